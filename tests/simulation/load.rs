//! Clients that read and write a few keys at random, and note what they saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::application::{Application, Unanswered};
use super::history::{Kind, Operation};
use super::world::World;

/// Keys: some that are set, swapped and deleted, some that are appended to, some that are counted up.
pub(crate) const KEYS: u64 = 10;

/// How the values of a key are made.
enum Use {
    Register,
    List,
    Counter,
}

impl Use {
    fn of(key: u64) -> Self {
        match key {
            0..6 => Self::Register,
            6..8 => Self::List,
            _ => Self::Counter,
        }
    }
}

/// An operation that was not answered by what was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal {
    pub(crate) begun: Duration,
    pub(crate) ended: Duration,
}

/// What all clients saw.
#[derive(Default)]
pub(crate) struct Ledger {
    histories: Mutex<BTreeMap<u64, Vec<Operation>>>,
    refusals: Mutex<Vec<Refusal>>,
    operations: Mutex<usize>,
    last_value: Mutex<u64>,
    longest_outage: Mutex<Duration>,
}

impl Ledger {
    /// A value that no other write has.
    fn next_value(&self) -> u64 {
        let mut last = self.last_value.lock();
        *last += 1;
        *last
    }

    fn note(&self, key: u64, operation: Operation) {
        self.histories.lock().entry(key).or_default().push(operation);
    }

    /// All histories, by key.
    pub(crate) fn histories(&self) -> BTreeMap<u64, Vec<Operation>> {
        self.histories.lock().clone()
    }

    /// What gateways have answered with an error.
    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        self.refusals.lock().clone()
    }

    /// Operations that clients have asked for.
    pub(crate) fn operations(&self) -> usize {
        *self.operations.lock()
    }

    /// The longest time that a client had to wait for something to be done.
    pub(crate) fn longest_outage(&self) -> Duration {
        *self.longest_outage.lock()
    }
}

/// The name of a key.
pub(crate) fn key_name(key: u64) -> String {
    format!("key{key}")
}

/// What one client is to do.
pub(crate) struct Task {
    pub(crate) number: usize,
    /// Operations, at least ...
    pub(crate) least: usize,
    /// ... and at most, until `over`.
    pub(crate) most: usize,
    /// The longest pause between two of them.
    pub(crate) pause: Duration,
    /// Whether nothing happens any more that clients must see.
    pub(crate) over: Arc<AtomicBool>,
}

/// One client at work.
pub(crate) async fn work(world: Arc<World>, ledger: Arc<Ledger>, application: Application, task: Task) {
    let mut client = Client { world, ledger, application, number: task.number, waiting: None };
    for count in 0..task.most {
        let over = task.over.load(Ordering::Relaxed);
        if over && count >= task.least {
            break;
        }
        let key = client.world.below(KEYS);
        client.operate(key).await;
        let longest = if over { task.pause / 8 } else { task.pause };
        let micros = u64::try_from(longest.as_micros()).unwrap_or_default();
        tokio::time::sleep(Duration::from_micros(client.world.below(micros))).await;
    }
}

/// Reads a key when all is over; says whether it was answered.
pub(crate) async fn read_at_the_end(
    world: &Arc<World>,
    ledger: &Arc<Ledger>,
    application: &Application,
    key: u64,
) -> bool {
    let begun = world.now();
    let Ok(found) = application.get(&key_name(key)).await else { return false };
    ledger.note(key, Operation { client: 0, kind: Kind::Get(found.value), begun, ended: Some(world.now()) });
    true
}

struct Client {
    world: Arc<World>,
    ledger: Arc<Ledger>,
    application: Application,
    number: usize,
    /// Since when nothing was done that this client asked for.
    waiting: Option<Duration>,
}

impl Client {
    /// One operation, of those that suit the key.
    async fn operate(&mut self, key: u64) {
        let name = key_name(key);
        let chance = self.world.below(20);
        let value = self.ledger.next_value();
        match (Use::of(key), chance) {
            (_, 0..7) => self.get(key, &name).await,
            (_, 7) => self.delete(key, &name).await,
            (Use::Register, 8..13) | (Use::List | Use::Counter, 8..10) => {
                let begun = self.begin();
                let done = self.application.set(&name, value).await.map(|()| Kind::Set(value));
                self.end(key, begun, done, Kind::Set(value));
            }
            (Use::Register, 13..15) | (Use::List | Use::Counter, 10) => {
                let begun = self.begin();
                let done = self.application.add(&name, value).await.map(|done| Kind::Swap(None, value, done));
                self.end(key, begun, done, Kind::Swap(None, value, true));
            }
            (Use::Register, _) => self.swap(key, &name, value).await,
            (Use::List, _) => {
                let begun = self.begin();
                let done = self.application.append(&name, value).await.map(|done| Kind::Append(value, done));
                self.end(key, begun, done, Kind::Append(value, true));
            }
            (Use::Counter, _) => {
                let delta = 1 + self.world.below(9);
                let begun = self.begin();
                let done = self.application.count(&name, delta).await.map(|number| Kind::Count(delta, number));
                self.end(key, begun, done, Kind::Count(delta, None));
            }
        }
    }

    async fn get(&mut self, key: u64, name: &str) {
        let begun = self.begin();
        let done = self.application.get(name).await.map(|found| Kind::Get(found.value));
        self.end(key, begun, done, Kind::Get(None));
    }

    async fn delete(&mut self, key: u64, name: &str) {
        let begun = self.begin();
        // Whether something was there is not sure: where it was tried twice, what the first try deleted counts; where records
        // are still to be copied, what only owners of before have does not.
        let done = self.application.delete(name).await.map(|_| Kind::Delete(None));
        self.end(key, begun, done, Kind::Delete(None));
    }

    /// Reads, and writes if nobody else has written since.
    async fn swap(&mut self, key: u64, name: &str, value: u64) {
        let begun = self.begin();
        let found = self.application.get(name).await;
        self.end(key, begun, found.clone().map(|found| Kind::Get(found.value)), Kind::Get(None));
        let Ok(found) = found else { return };
        let begun = self.begin();
        let expected = found.value;
        let swapped = match &expected {
            Some(_) => self.application.swap(name, found.unique, value).await,
            None => self.application.add(name, value).await,
        };
        let done = swapped.map(|done| Kind::Swap(expected.clone(), value, done));
        self.end(key, begun, done, Kind::Swap(expected, value, true));
    }

    fn begin(&mut self) -> Duration {
        *self.ledger.operations.lock() += 1;
        let now = self.world.now();
        self.waiting.get_or_insert(now);
        now
    }

    /// Notes what was done, or what may have been.
    fn end(&mut self, key: u64, begun: Duration, done: Result<Kind, Unanswered>, perhaps: Kind) {
        let now = self.world.now();
        let operation = |kind, ended| Operation { client: self.number, kind, begun, ended };
        self.world
            .journal()
            .trace(now, || format!("client{} {} {done:?} of {perhaps:?}", self.number + 1, key_name(key)));
        match done {
            Ok(kind) => {
                self.ledger.note(key, operation(kind, Some(now)));
                let since = self.waiting.take().unwrap_or(now);
                let longest = &mut *self.ledger.longest_outage.lock();
                *longest = (*longest).max(now.saturating_sub(since));
            }
            Err(unanswered) => {
                if unanswered != Unanswered::Refused {
                    self.ledger.note(key, operation(perhaps, None));
                }
                if unanswered != Unanswered::Lost {
                    self.ledger.refusals.lock().push(Refusal { begun, ended: now });
                }
            }
        }
    }
}
