//! The threads behind the network threads: reads that miss memory, and writes that must read or wait.
//!
//! A hand-over costs more than the read itself, so jobs carry many keys and a thread takes all jobs that wait into one
//! read transaction.

use super::batch::{Applied, Base, Batch};
use super::core::Core;
use super::driver::Driver;
use super::error::Error;
use super::tree::Reader;
use super::write::{Outcome, OwnedWrite, Write};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Keys read in one transaction, about: a transaction that lasts keeps the checkpoint waiting.
const READ_KEYS: usize = 512;

/// Keys read again in one transaction when a merge has made what was read of them stale.
const READ_AGAIN: usize = 8;

/// Values in the order of their keys: raw value or tombstone, `None` if there is no record.
pub type Values = Vec<Option<Vec<u8>>>;

/// An answer that is given exactly once: a job that is dropped unanswered is answered with [`Error::Closed`].
struct Answer<T>(Option<Callback<T>>);

type Callback<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

impl<T> Answer<T> {
    fn give(mut self, result: Result<T, Error>) {
        if let Some(answer) = self.0.take() {
            answer(result);
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(Error::Closed));
        }
    }
}

/// Keys to read. See [`Store::read`](super::Store::read).
pub struct ReadJob {
    keys: Vec<Box<[u8]>>,
    done: Answer<Values>,
}

impl ReadJob {
    /// `done` is called once, on a store thread. It must not block, nor panic.
    pub fn new(keys: Vec<Box<[u8]>>, done: impl FnOnce(Result<Values, Error>) + Send + 'static) -> Self {
        Self { keys, done: Answer(Some(Box::new(done))) }
    }
}

/// Writes to be decided, in order. See [`Store::write`](super::Store::write).
pub struct WriteJob {
    writes: Vec<OwnedWrite>,
    token: Option<u64>,
    decided: Box<dyn FnMut(usize, Outcome) + Send>,
    committed: Answer<()>,
}

impl WriteJob {
    /// `decided` hears the outcome of each write by its index, `committed` then whether they may be acknowledged: both on a
    /// store thread. They must not block, nor panic.
    pub fn new(
        writes: Vec<OwnedWrite>,
        decided: impl FnMut(usize, Outcome) + Send + 'static,
        committed: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) -> Self {
        Self { writes, token: None, decided: Box::new(decided), committed: Answer(Some(Box::new(committed))) }
    }

    /// As [`Batch::fenced`].
    pub(crate) fn fenced(mut self, token: u64) -> Self {
        self.token = Some(token);
        self
    }
}

/// A message to a pool thread.
pub(super) enum Job<T> {
    /// Work.
    Do(T),
    /// End, after what was queued before.
    Stop,
}

/// Where jobs of one kind go: to the threads of a pool, or to a [`Driver`].
pub(super) enum Queue<T> {
    Threads(Sender<Job<T>>),
    Driven { driver: Arc<dyn Driver>, core: Weak<Core>, serve: fn(&Core, T) },
}

impl<T: Send + 'static> Queue<T> {
    /// Waits while the queue is full. If all threads are gone the job is dropped, which answers it.
    pub(super) fn put(&self, job: T) {
        match self {
            Self::Threads(jobs) => drop(jobs.send(Job::Do(job))),
            Self::Driven { driver, core, serve } => {
                let (core, serve) = (core.clone(), *serve);
                driver.run(Box::new(move || {
                    if let Some(core) = core.upgrade() {
                        serve(&core, job);
                    }
                }));
            }
        }
    }

    /// As [`Self::put`], but gives the job back if the queue is full.
    pub(super) fn try_put(&self, job: T) -> Result<(), T> {
        match self {
            Self::Threads(jobs) => match jobs.try_send(Job::Do(job)) {
                Err(TrySendError::Full(Job::Do(job))) => Err(job),
                _ => Ok(()),
            },
            Self::Driven { .. } => {
                self.put(job);
                Ok(())
            }
        }
    }
}

/// Does one read without a thread of the pool.
pub(super) fn serve_read(core: &Core, job: ReadJob) {
    let done = core.with_connection(|connection| {
        let mut reader = Reader::new(connection)?;
        Ok(read_all(core, &mut reader, &job.keys.iter().map(|key| &**key).collect::<Vec<_>>()))
    });
    job.done.give(done.and_then(|values| values));
}

/// Does one write job without a thread of the pool.
pub(super) fn serve_write(core: &Core, job: WriteJob) {
    // Where there is no connection the job is dropped, which answers it.
    let _ = core.with_connection(|connection| {
        let mut reader = Reader::new(connection)?;
        write_all(core, &mut reader, job);
        Ok(())
    });
}

/// A pool's queue, and how many of its threads have not been asked to end.
pub(super) struct Pool<T> {
    pub(super) jobs: Sender<Job<T>>,
    pub(super) threads: usize,
}

impl<T> Pool<T> {
    /// Has all threads end after what is queued; false if the queue is full before all are asked to: call it again.
    pub(super) fn stop(&mut self) -> bool {
        while self.threads > 0 {
            // If all are gone already nobody needs to be stopped.
            if let Err(TrySendError::Full(_)) = self.jobs.try_send(Job::Stop) {
                return false;
            }
            self.threads -= 1;
        }
        true
    }
}

/// A thread of the read pool.
pub(super) fn run_reads(core: &Core, jobs: &Receiver<Job<ReadJob>>, reader: &mut Reader<'_>) {
    let mut stop = false;
    while !stop {
        let mut waiting = Vec::new();
        let mut keys = 0;
        match jobs.recv() {
            Ok(Job::Do(job)) => {
                keys += job.keys.len();
                waiting.push(job);
            }
            Ok(Job::Stop) | Err(_) => return,
        }
        while keys < READ_KEYS {
            match jobs.try_recv() {
                Ok(Job::Do(job)) => {
                    keys += job.keys.len();
                    waiting.push(job);
                }
                Ok(Job::Stop) => {
                    stop = true;
                    break;
                }
                Err(_) => break,
            }
        }
        let keys: Vec<&[u8]> = waiting.iter().flat_map(|job| &job.keys).map(|key| &**key).collect();
        let read = read_all(core, reader, &keys);
        match read {
            Ok(values) => {
                let mut values = values.into_iter();
                for job in waiting {
                    let its = values.by_ref().take(job.keys.len()).collect();
                    job.done.give(Ok(its));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "reading from the main tree failed");
                for job in waiting {
                    job.done.give(Err(error.clone()));
                }
            }
        }
    }
}

/// Current values, from memory where they are, the rest in read transactions of bounded length.
fn read_all(core: &Core, reader: &mut Reader<'_>, keys: &[&[u8]]) -> Result<Values, Error> {
    let mut values = Vec::with_capacity(keys.len());
    for some in keys.chunks(READ_KEYS) {
        let epoch = core.cache.epoch();
        // After the epoch: whatever is taken into memory by it is current then.
        let floor = core.floor();
        reader
            .within(|reader| {
                for key in some {
                    let mut place = core.cache.find(key);
                    if let Some(slot) = place.slot() {
                        values.push(slot.value().map(|value| value.bytes().to_vec()));
                        place.touch();
                        continue;
                    }
                    drop(place);
                    let collisions = core.collisions.load(Ordering::Acquire) > 0;
                    let value = reader.get(key, collisions, floor, |found| {
                        core.cache.settle(key, found, epoch, |value| value.map(|value| value.bytes().to_vec()))
                    })?;
                    values.push(value);
                }
                Ok(())
            })
            .map_err(Error::read)?;
    }
    Ok(values)
}

/// A thread of the write pool.
pub(super) fn run_writes(core: &Core, jobs: &Receiver<Job<WriteJob>>, reader: &mut Reader<'_>) {
    while let Ok(Job::Do(job)) = jobs.recv() {
        write_all(core, reader, job);
    }
}

/// Decides and commits the writes of a job.
fn write_all(core: &Core, reader: &mut Reader<'_>, mut job: WriteJob) {
    let mut batch = Batch::unthrottled(core);
    if let Some(token) = job.token {
        batch = batch.fenced(token);
    }
    let mut result = Ok(());
    for (some_index, some) in job.writes.chunks(READ_KEYS).enumerate() {
        result = write_some(core, reader, &mut batch, some, |index, outcome| {
            (job.decided)(some_index * READ_KEYS + index, outcome);
        });
        if result.is_err() {
            break;
        }
    }
    match result {
        Ok(()) => {
            let committed = job.committed;
            batch.commit(move |result| committed.give(result));
        }
        Err(error) => {
            // Writes decided before are written in any case, but the whole job is answered as failed.
            batch.commit(|_| ());
            job.committed.give(Err(error));
        }
    }
}

/// A record as the tree has it; the outer `None`: not read, since it was in memory.
type Read = Option<Option<(Vec<u8>, u32)>>;

fn write_some(
    core: &Core,
    reader: &mut Reader<'_>,
    batch: &mut Batch<'_>,
    writes: &[OwnedWrite],
    mut decided: impl FnMut(usize, Outcome),
) -> Result<(), Error> {
    let keys: Vec<&[u8]> = writes.iter().map(OwnedWrite::key).collect();
    let (mut epoch, mut bases) = read_bases(core, reader, &keys)?;
    for (index, owned) in writes.iter().enumerate() {
        let Some(write) = owned.borrow() else { return Err(Error::Read("a write with a malformed key".into())) };
        core.wait_for_throttle(write.key().bytes().len() as u64 + write.body().len() as u64);
        loop {
            let base = bases.get(index).and_then(Option::as_ref).map(|read| Base {
                value: read.as_ref().map(|(value, _)| &value[..]),
                generation: read.as_ref().map_or(0, |(_, generation)| *generation),
                epoch,
            });
            match batch.apply_on(&write, base.as_ref()) {
                Applied::Done(outcome) => {
                    decided(index, outcome);
                    break;
                }
                Applied::Failed(error) => return Err(error),
                Applied::Later => {
                    core.wait_while_held()?;
                    wait_if_full(core, &write)?;
                    // The record that was read is out of date, or has left memory: read this one and some after it again. Not all: in
                    // the midst of a merge they would be out of date again before the first of them is used.
                    let rest = keys.get(index..).unwrap_or_default();
                    let rest = rest.get(..READ_AGAIN).unwrap_or(rest);
                    let again;
                    (epoch, again) = read_bases(core, reader, rest)?;
                    bases.truncate(index);
                    bases.extend(again);
                }
            }
        }
    }
    Ok(())
}

/// Waits for space if that is what is missing.
fn wait_if_full(core: &Core, write: &Write<'_>) -> Result<(), Error> {
    let bytes = (write.key().bytes().len() + write.body().len()) as u64;
    let lacks = |used: u64, limit: u64| used + bytes + 64 > limit;
    if lacks(core.redo.used(), core.options.redo_bytes) || lacks(core.cache.dirty_bytes(), core.dirty_limit()) {
        core.wait_for_space(bytes)?;
    }
    Ok(())
}

/// Reads what the tree has of keys that are not in memory, with the epoch from before.
fn read_bases(core: &Core, reader: &mut Reader<'_>, keys: &[&[u8]]) -> Result<(u64, Vec<Read>), Error> {
    let epoch = core.cache.epoch();
    let floor = core.floor();
    let missing: Vec<bool> = keys.iter().map(|key| core.cache.find(key).slot().is_none()).collect();
    if !missing.contains(&true) {
        return Ok((epoch, vec![None; keys.len()]));
    }
    let bases = reader.within(|reader| {
        let mut bases = Vec::with_capacity(keys.len());
        for (key, missing) in keys.iter().zip(missing) {
            bases.push(if missing {
                let collisions = core.collisions.load(Ordering::Acquire) > 0;
                let own = |found: Option<(&[u8], u32)>| found.map(|(value, generation)| (value.to_vec(), generation));
                Some(reader.get(key, collisions, floor, own)?)
            } else {
                None
            });
        }
        Ok(bases)
    });
    Ok((epoch, bases.map_err(Error::read)?))
}
