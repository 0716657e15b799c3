//! Records that are not known to be on all owners: sent until all have them, and waited for by who is to be told of them.
//!
//! Once a read has told of a record, no loss of a server may take it back; and some time after the last fault all owners must
//! hold the same. So who has coordinated a write that did not reach all owners goes on sending what it holds of the key,
//! at a bounded rate, until they have it, are lost, or have something later, which it takes over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::later::{self, Held};
use crate::env::{Backoff, Group};
use crate::net::Reply;
use crate::rules::Rule;
use crate::server::marks::Wait;
use crate::server::remote;
use crate::server::shared::Shared;
use crate::server::spaces::Spaces;
use crate::wire::method::ErrorCode;
use crate::wire::record::TOMBSTONE_LEN;
use crate::wire::{RecordKey, RecordValue};

/// The pauses after a round in which nothing could be settled.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// The pause after any other.
const BREATH: Duration = Duration::from_millis(10);
/// How long one key may take in a round.
const ROUND: Duration = Duration::from_secs(1);
/// How often in one round a key is sent again, since another record was taken over or there are other owners.
const SENDS: u8 = 4;
/// How long an answer waits for a record to be settled. Then it is an error, and a gateway asks the next owner.
const PATIENCE: Duration = Duration::from_millis(500);

/// Gives an answer that tells of a record when that is settled. `result` is the result object's bytes.
pub(in crate::server) fn answer(server: &Arc<Shared>, wait: Arc<Wait>, reply: Reply, result: Vec<u8>) {
    let server = server.clone();
    server.env.clone().spawn(async move {
        let settled = tokio::time::timeout(PATIENCE, wait.ended()).await.is_ok();
        if settled && server.spaces().permit.holds(server.env.time()) {
            reply.ok(|out| out.extend_from_slice(&result));
        } else {
            reply.error(ErrorCode::Server);
        }
    });
}

/// These keys have records here that are not known to be on all owners, and nobody else sees to them any more.
pub(in crate::server) fn take_over(server: &Shared, keys: Vec<Box<[u8]>>) {
    let joins = server.spaces().joins();
    if !server.env.rules().follow(Rule::SettleCopies) {
        return;
    }
    for key in keys {
        keep(server, &key, joins);
    }
}

/// A record was read here that another server coordinates: says what to wait for until it is on all owners, `None` if it is
/// known to be. `clock` is that of the record, if there is one.
pub(in crate::server) fn copy(
    server: &Shared,
    spaces: &Spaces,
    key: RecordKey<'_>,
    clock: Option<u32>,
) -> Option<Arc<Wait>> {
    let marked = server.marks.wait(key.hash());
    let Some(clock) = clock.filter(|_| marked.is_none() && must_settle(server, spaces)) else { return marked };
    let coordinator = spaces.rhs.owners(key.hash()).coordinator()?;
    if coordinator == server.address || server.copies.are_settled(coordinator, clock) {
        return None;
    }
    keep(server, key.bytes(), spaces.joins());
    server.unsettled.hurry(key.bytes());
    server.marks.wait(key.hash())
}

/// Whether servers vote, and so tell each other how far their writes are on all owners.
fn must_settle(server: &Shared, spaces: &Spaces) -> bool {
    spaces.fence().is_some() && server.env.rules().follow(Rule::SettleCopies)
}

fn keep(server: &Shared, key: &[u8], joins: u32) {
    let Ok(record_key) = RecordKey::new(key) else { return };
    server.unsettled.keep(key, Some(server.marks.mark(record_key.hash())), joins);
}

/// Settles what is unsettled, until it is dropped.
pub(in crate::server) async fn run(server: Arc<Shared>) {
    let mut pauses = PAUSES;
    loop {
        while server.unsettled.len() == 0 {
            server.unsettled.woken().await;
        }
        let mut settling = Group::new(&server.env);
        for turn in server.unsettled.next() {
            let server = server.clone();
            settling.add(async move {
                let settled = settle(&server, &turn.key, turn.joins).await;
                settled.then_some(turn)
            });
        }
        let mut any = false;
        while let Some(ended) = settling.next().await {
            if let Ok(Some(turn)) = ended {
                server.unsettled.settled(&turn);
                any = true;
            }
        }
        tokio::time::sleep(BREATH).await;
        if any {
            pauses = PAUSES;
        } else {
            // Either will do.
            let _ = tokio::time::timeout(pauses.next(&server.env), server.unsettled.woken()).await;
        }
    }
}

/// Sends what is held of a key to all other owners, for a while; says whether they have it. `joins`: see
/// [`Spaces::joins`](crate::server::spaces::Spaces::joins).
pub(super) async fn settle(server: &Arc<Shared>, key: &[u8], joins: u32) -> bool {
    let Ok(key) = RecordKey::new(key) else { return true };
    let sending = async {
        for _ in 0..SENDS {
            match send(server, key, joins).await {
                Sent::Everywhere => return true,
                Sent::Failed => return false,
                Sent::Changed => {}
            }
        }
        false
    };
    tokio::time::timeout(ROUND, sending).await.unwrap_or(false)
}

/// How far a record has come.
enum Sent {
    /// All owners have it, or it is not this server's business any more.
    Everywhere,
    /// One of them does not have it.
    Failed,
    /// There is another record by now, or there are other owners.
    Changed,
}

async fn send(server: &Arc<Shared>, key: RecordKey<'_>, joins: u32) -> Sent {
    let (own, spaces) = (server.address, server.spaces());
    let owners = [&spaces.whs, &spaces.rhs].map(|space| space.owners(key.hash()));
    if spaces.joins() != joins || !owners.iter().any(|owners| owners.is_active_owner(own)) {
        // What it held before it was given up counts no more; what it does not own the owners are sent by a replace.
        return Sent::Everywhere;
    }
    if !spaces.permit.holds(server.env.time()) {
        return Sent::Failed;
    }
    let Ok(value) = read(server, key).await else { return Sent::Failed };
    let Some(value) = value.as_deref().and_then(|value| RecordValue::new(value).ok()) else { return Sent::Everywhere };
    let mut targets = Vec::new();
    spaces.targets(own, key.hash(), |target| targets.push(target));
    if targets.is_empty() && !server.store.takes_writes() {
        // It is in memory, and may be nowhere else.
        return Sent::Failed;
    }
    let answers: Vec<_> = targets.iter().map(|target| remote::send(target, key, value)).collect();
    let mut sent = Sent::Everywhere;
    for (target, answer) in targets.iter().zip(answers) {
        let node = target.session.address();
        match answer.await {
            Ok(true) => {}
            Err(error) => {
                tracing::debug!(peer = %node, key = %key.bytes().escape_ascii(), clocktime = %value.clocktime(), "not settled: {error}");
                sent = Sent::Failed;
            }
            Ok(false) => match later::held_by(server, node, key.bytes(), value.clocktime()).await {
                Held::Same => {}
                held if held.is_deleted() && value.is_tombstone() => {}
                // It answers no reads yet; what it has later its coordinator answers for.
                Held::Unknown if !owners[1].is_active_owner(node) => {}
                Held::Unknown => sent = Sent::Failed,
                held => {
                    tracing::debug!(peer = %node, key = %key.bytes().escape_ascii(), clocktime = %value.clocktime(), ?held, "not settled: it has a later record");
                    let taken = later::give_way(server, &spaces, key.bytes(), value.clocktime(), held).await;
                    return if taken { Sent::Changed } else { Sent::Failed };
                }
            },
        }
    }
    match sent {
        Sent::Everywhere if !server.spaces().have_the_owners_of(&spaces) => Sent::Changed,
        sent => sent,
    }
}

/// What is stored here of a key.
async fn read(server: &Arc<Shared>, key: RecordKey<'_>) -> Result<Option<Vec<u8>>, ErrorCode> {
    if let Some(seen) = server.store.peek(key, |value| value.map(|value| value.bytes().to_vec())) {
        return Ok(seen);
    }
    let (sender, found) = oneshot::channel();
    let (store, key) = (server.store.clone(), key.bytes().into());
    server.reads.enter(&server.env, move |permit| {
        store.read(vec![key], move |found| {
            drop(permit);
            // Who has asked may have gone.
            let _ = sender.send(found.map(|mut found| found.pop().flatten()));
        });
    });
    let found = found.await.map_err(|_| ErrorCode::Server)?.map_err(|_| ErrorCode::Server)?;
    Ok(found.filter(|value| value.len() >= TOMBSTONE_LEN))
}
