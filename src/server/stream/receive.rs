//! The target's side of a stream: fetching it, storing its records in batches, acknowledging when all are stored.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::format::{Error, NIL, SIGN, SIGN_INTERVAL};
use super::{Decoder, RecordBatch, write_hello};
use crate::env::{Env, Stream};
use crate::store;
use crate::wire::NodeAddress;

/// Bytes taken from the connection at a time.
const READ_SIZE: usize = 64 << 10;
/// Records handed to the store at a time.
const BATCH_RECORDS: usize = 1000;
/// Bytes of records handed to the store at a time; a batch is closed when it reaches this.
const BATCH_BYTES: usize = 1 << 20;
/// Batches of one stream that the store may be busy with.
const BATCHES_IN_FLIGHT: usize = 3;
/// Streams fetched at once; further offers wait.
const STREAMS: usize = 16;
/// Inflated bytes that count as progress even if no record has become whole.
const PROGRESS: usize = 64 << 10;

/// Says that a batch is in the store for good, or why not.
pub type Stored = Box<dyn FnOnce(Result<(), store::Error>) + Send>;

/// Where received records go.
pub trait Sink: Send + Sync + 'static {
    /// Stores each record that is newer than what is stored, and calls `stored` when that will survive a crash.
    fn store(&self, batch: RecordBatch, stored: Stored);
}

/// Fetches streams that others offer.
pub struct Receiver {
    env: Env,
    own: NodeAddress,
    /// Largest record, in bytes.
    record_limit: usize,
    connect_timeout: Duration,
    silence: Duration,
    streams: Semaphore,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receiver({} of {STREAMS} streams free)", self.streams.available_permits())
    }
}

impl Receiver {
    /// A receiver that introduces itself as `own`.
    pub fn new(env: &Env, own: NodeAddress, record_limit: usize, connect_timeout: Duration, silence: Duration) -> Self {
        Self { env: env.clone(), own, record_limit, connect_timeout, silence, streams: Semaphore::new(STREAMS) }
    }

    /// Fetches the stream offered at `offerer`; returns how many records came when all are stored and acknowledged.
    pub(crate) async fn fetch(&self, offerer: NodeAddress, sink: &dyn Sink) -> Result<u64, Error> {
        let _permit = self.streams.acquire().await;
        let mut stream = self.env.connect(offerer.socket(), self.connect_timeout).await?;
        // The acknowledgement must not wait until a sign of life before it has been confirmed.
        stream.set_nodelay(true)?;
        stream.write_all(&write_hello(self.own)).await?;
        let (mut read, write) = tokio::io::split(stream);
        let mut transfer = Transfer {
            decoder: Decoder::new(self.record_limit),
            write,
            sink,
            batch: RecordBatch::default(),
            in_flight: VecDeque::new(),
            signs: 0,
            silence: self.silence,
        };
        let mut input = vec![0; READ_SIZE];
        let mut pace = ProgressWatch::new(self.silence);
        while !transfer.decoder.is_ended() {
            let len =
                timeout_at(pace.deadline, read.read(&mut input)).await.map_err(|_| Error::Silent(self.silence))??;
            if len == 0 {
                return Err(Error::Truncated);
            }
            transfer.take(input.get(..len).unwrap_or_default(), &mut pace).await?;
        }
        transfer.finish().await
    }
}

/// Watches that enough bytes arrive in the time allowed.
struct ProgressWatch {
    silence: Duration,
    deadline: Instant,
    inflated: usize,
}

impl ProgressWatch {
    fn new(silence: Duration) -> Self {
        Self { silence, deadline: Instant::now() + silence, inflated: 0 }
    }

    fn note(&mut self, inflated: usize, whole_records: bool) {
        self.inflated += inflated;
        if whole_records || self.inflated >= PROGRESS {
            *self = Self::new(self.silence);
        }
    }
}

struct Transfer<'a> {
    decoder: Decoder,
    write: WriteHalf<Stream>,
    sink: &'a dyn Sink,
    batch: RecordBatch,
    /// Batches that the store is busy with, oldest first.
    in_flight: VecDeque<oneshot::Receiver<Result<(), store::Error>>>,
    /// Signs of life given.
    signs: u64,
    silence: Duration,
}

impl Transfer<'_> {
    /// Works off what one read has brought, letting other tasks run between the steps.
    async fn take(&mut self, mut input: &[u8], pace: &mut ProgressWatch) -> Result<(), Error> {
        loop {
            let before = self.decoder.records();
            let batch = &mut self.batch;
            let step = self.decoder.step(input, |key, value| batch.push(key, value))?;
            if step.consumed == 0 && step.inflated == 0 {
                return Ok(());
            }
            input = input.get(step.consumed..).unwrap_or_default();
            if self.batch.len() >= BATCH_RECORDS || self.batch.size() >= BATCH_BYTES {
                self.submit().await?;
            }
            self.give_signs().await?;
            pace.note(step.inflated, self.decoder.records() > before);
            tokio::task::yield_now().await;
        }
    }

    /// Hands the batch to the store, waiting for space in its queue.
    async fn submit(&mut self) -> Result<(), Error> {
        while self.in_flight.len() >= BATCHES_IN_FLIGHT {
            self.oldest().await?;
        }
        let (sender, receiver) = oneshot::channel();
        let stored = Box::new(move |result| {
            // The connection may have broken meanwhile.
            let _ = sender.send(result);
        });
        self.sink.store(std::mem::take(&mut self.batch), stored);
        self.in_flight.push_back(receiver);
        Ok(())
    }

    /// Waits for the oldest batch in the store.
    async fn oldest(&mut self) -> Result<(), Error> {
        match self.in_flight.pop_front() {
            None => Ok(()),
            Some(stored) => Ok(stored.await.unwrap_or(Err(store::Error::Closed))?),
        }
    }

    async fn give_signs(&mut self) -> Result<(), Error> {
        let due = self.decoder.records() / SIGN_INTERVAL - self.signs;
        self.signs += due;
        let signs = vec![SIGN; usize::try_from(due).unwrap_or_default()];
        self.say(&signs).await
    }

    /// All has come: waits until all is stored, and says so.
    async fn finish(mut self) -> Result<u64, Error> {
        if !self.batch.is_empty() {
            self.submit().await?;
        }
        while !self.in_flight.is_empty() {
            self.oldest().await?;
        }
        self.say(&[NIL]).await?;
        Ok(self.decoder.records())
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let writing = self.write.write_all(bytes);
        Ok(timeout(self.silence, writing).await.map_err(|_| Error::Silent(self.silence))??)
    }
}
