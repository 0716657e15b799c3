//! Received records on their way to the store: each is an update if newer, and counts as seen in this replace in any case.

use std::sync::Arc;

use super::context::{Context, TOMBSTONE_LEASE};
use crate::server::stream::{RecordBatch, Sink, Stored};
use crate::store::{OwnedWrite, Write, WriteJob};

/// The store as the end of a stream.
pub(super) struct StoreSink {
    context: Arc<Context>,
    /// Under which the stream was begun: what arrives after the next configuration is refused.
    token: u64,
}

impl StoreSink {
    /// The end of a stream that was begun under the store's fencing token `token`.
    pub(super) fn new(context: Arc<Context>, token: u64) -> Self {
        Self { context, token }
    }
}

impl Sink for StoreSink {
    fn store(&self, batch: RecordBatch, stored: Stored) {
        let store = self.context.host.store();
        store.hold_tombstones(TOMBSTONE_LEASE);
        let writes = batch.iter().map(|(key, value)| OwnedWrite::from(&Write::Update { key, value, touch: true }));
        let (context, count) = (self.context.clone(), batch.len());
        let committed = move |result: Result<(), _>| {
            if result.is_ok() {
                context.progress.received.add(count);
            }
            stored(result);
        };
        let job = WriteJob::new(writes.collect(), |_, _| (), committed).fenced(self.token);
        // Streams are bounded and so are their batches; the queue is full only if others have filled it.
        if let Err(job) = store.try_write(job) {
            let store = store.clone();
            self.context.host.env().detach_blocking(move || store.submit_write(job));
        }
    }
}
