//! Received records on their way to the store: each is an update if newer, and counts as seen in this replace in any case.

use std::sync::Arc;

use super::context::{Context, TOMBSTONE_LEASE};
use crate::server::stream::{RecordBatch, Sink, Stored};
use crate::store::{OwnedWrite, Write, WriteJob};

/// The store as the end of a stream.
pub(super) struct StoreSink(Arc<Context>);

impl StoreSink {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self(context)
    }
}

impl Sink for StoreSink {
    fn store(&self, batch: RecordBatch, stored: Stored) {
        let store = self.0.host.store();
        store.hold_tombstones(TOMBSTONE_LEASE);
        let writes = batch.iter().map(|(key, value)| OwnedWrite::from(&Write::Update { key, value, touch: true }));
        let (context, count) = (self.0.clone(), batch.len());
        let committed = move |result: Result<(), _>| {
            if result.is_ok() {
                context.progress.received.add(count);
            }
            stored(result);
        };
        let job = WriteJob::new(writes.collect(), |_, _| (), committed);
        // Streams are bounded and so are their batches; the queue is full only if others have filled it.
        if let Err(job) = store.try_write(job) {
            let store = store.clone();
            self.0.host.env().detach_blocking(move || store.submit_write(job));
        }
    }
}
