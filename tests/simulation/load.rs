//! Clients that read and write a few keys at random, and note what they saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kumo_server::client;
use parking_lot::Mutex;

use super::application::{Application, value_of};
use super::history::{Kind, Operation, Value};
use super::world::World;

/// What all clients saw, by key.
#[derive(Default)]
pub(crate) struct Ledger {
    histories: Mutex<BTreeMap<u64, Vec<Operation>>>,
    last_value: Mutex<u64>,
    /// The longest time between two acknowledged writes of one client.
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

    /// Operations noted so far.
    pub(crate) fn len(&self) -> usize {
        self.histories.lock().values().map(Vec::len).sum()
    }

    /// The longest time between two acknowledged operations of one client.
    pub(crate) fn longest_outage(&self) -> Duration {
        *self.longest_outage.lock()
    }
}

/// The name of a key.
pub(crate) fn key_name(key: u64) -> Vec<u8> {
    format!("key{key}").into_bytes()
}

/// Notes what a client reads of a key when all is over; says whether it was answered.
pub(crate) async fn read_at_the_end(world: &World, ledger: &Ledger, cluster: &client::Client, key: u64) -> bool {
    let begun = world.now();
    let Ok(found) = cluster.get(&key_name(key)).await else { return false };
    let kind = Kind::Get(found.map(|found| value_of(&found.data)));
    ledger.note(key, Operation { client: 0, kind, begun, ended: Some(world.now()) });
    true
}

/// One client at work: `count` operations on `keys` keys.
pub(crate) async fn work(
    world: Arc<World>,
    ledger: Arc<Ledger>,
    application: Application,
    number: usize,
    count: usize,
    keys: u64,
) {
    let mut last_success = world.now();
    for _ in 0..count {
        let key = world.below(keys);
        let begun = world.now();
        let (kind, answered) = operation(&world, &ledger, &application, number, key).await;
        let now = world.now();
        if answered {
            let mut longest = ledger.longest_outage.lock();
            *longest = (*longest).max(now.saturating_sub(last_success));
            last_success = now;
        }
        if let Some(kind) = kind {
            ledger.note(key, Operation { client: number, kind, begun, ended: answered.then_some(now) });
        }
        tokio::time::sleep(Duration::from_millis(world.below(100))).await;
    }
}

/// Does one operation; says what it was as far as it may have happened, and whether it was answered.
async fn operation(
    world: &World,
    ledger: &Ledger,
    application: &Application,
    number: usize,
    key: u64,
) -> (Option<Kind>, bool) {
    let name = key_name(key);
    match world.below(10) {
        0..4 => {
            let read = application.get(&name).await;
            match read {
                Ok(found) => (Some(Kind::Get(found.map(|(value, _)| value))), true),
                Err(_) => (None, false),
            }
        }
        4..7 => {
            let value = ledger.next_value();
            let done = application.set(&name, value).await.is_ok();
            (Some(Kind::Set(value)), done)
        }
        7 => (Some(Kind::Delete(None)), application.delete(&name).await.is_ok()),
        _ => swap(world, ledger, application, number, key).await,
    }
}

/// Reads, and writes if nobody else has written since.
async fn swap(
    world: &World,
    ledger: &Ledger,
    application: &Application,
    number: usize,
    key: u64,
) -> (Option<Kind>, bool) {
    let name = key_name(key);
    let begun = world.now();
    let Ok(found) = application.get(&name).await else { return (None, false) };
    let (expected, unique): (Value, _) = found.unzip();
    let read = Operation { client: number, kind: Kind::Get(expected), begun, ended: Some(world.now()) };
    ledger.note(key, read);
    let value = ledger.next_value();
    match application.swap(&name, unique, value).await {
        Ok(done) => (Some(Kind::Swap(expected, value, done)), true),
        Err(_) => (Some(Kind::Swap(expected, value, true)), false),
    }
}
