//! Polling the servers, each on a task of its own so that one which hangs delays no other, and their manager.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::model::Nodes;
use super::row::Reading;
use crate::client::{Caller, Overview};
use crate::clock::unix_seconds;
use crate::env::Env;
use crate::net::NamedNode;
use crate::wire::NodeAddress;
use crate::wire::method::ErrorCode;

/// Updates that may wait to be taken.
const UPDATES_WAITING: usize = 1024;

/// A sample, or a state of the managers.
#[derive(Debug)]
pub(super) enum Update {
    /// When the request was sent and answered, and the answer.
    Server(NodeAddress, Range<Instant>, Result<Reading, ErrorCode>),
    /// The answer of a manager, or why none has answered.
    Nodes(Result<Nodes, Vec<(NodeAddress, ErrorCode)>>),
}

/// Sends requests to nodes.
#[derive(Clone)]
pub(super) struct Poller {
    pub(super) caller: Arc<Caller>,
    pub(super) managers: Vec<NamedNode>,
    /// How long one sample may take.
    pub(super) timeout: Duration,
}

impl Poller {
    /// Samples a server once. Also says from when to when its counters may have been read.
    pub(super) async fn sample(&self, server: NodeAddress) -> (Range<Instant>, Result<Reading, ErrorCode>) {
        let start = Instant::now();
        let ask = async {
            let before = unix_seconds();
            let status = self.caller.status(server).await?;
            let (after, read) = (unix_seconds(), Instant::now());
            // What an original server answers there is nothing to fail for.
            let figures = self.caller.figures(server).await.ok().flatten();
            let ahead = ahead(status.time, before, after);
            Ok((read, Reading { status, ahead, figures: figures.map(Box::new) }))
        };
        match tokio::time::timeout(self.timeout, ask).await.unwrap_or(Err(ErrorCode::TimedOut)) {
            Ok((read, reading)) => (start..read, Ok(reading)),
            Err(error) => (start..Instant::now(), Err(error)),
        }
    }

    /// Asks the managers in turn whom they know.
    pub(super) async fn nodes(&self) -> Result<Nodes, Vec<(NodeAddress, ErrorCode)>> {
        let mut failures = Vec::new();
        for named in &self.managers {
            if let Some(manager) = named.address() {
                match self.nodes_of(manager).await {
                    Ok(nodes) => return Ok(nodes),
                    Err(error) => failures.push((manager, error)),
                }
            }
            // Its new address is asked the next time.
            let named = named.clone();
            tokio::spawn(async move { named.look_up(&Env::real(), None).await });
        }
        Err(failures)
    }

    async fn nodes_of(&self, manager: NodeAddress) -> Result<Nodes, ErrorCode> {
        let ask = async {
            let Overview { whs, detached, state } = self.caller.overview(manager).await?;
            Ok(Nodes { manager, attached: whs.nodes, detached, flags: state.map(|state| state.flags) })
        };
        tokio::time::timeout(self.timeout, ask).await.unwrap_or(Err(ErrorCode::TimedOut))
    }
}

/// How far `time` lies outside of what our clock said before and after.
fn ahead(time: u64, before: u32, after: u32) -> i64 {
    let distance = |from: u64, to: u64| i64::try_from(to.saturating_sub(from)).unwrap_or(i64::MAX);
    distance(after.into(), time).saturating_sub(distance(time, before.into()))
}

/// Polls at intervals, and sends the answers.
pub(super) struct Watch {
    poller: Poller,
    interval: Duration,
    sender: mpsc::Sender<Update>,
    servers: BTreeMap<NodeAddress, JoinHandle<()>>,
    managers: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts with the managers, if there are any. Must be called within a runtime.
    pub(super) fn start(poller: Poller, interval: Duration) -> (Self, mpsc::Receiver<Update>) {
        let (sender, receiver) = mpsc::channel(UPDATES_WAITING);
        let managers = (!poller.managers.is_empty()).then(|| {
            let (poller, sender) = (poller.clone(), sender.clone());
            tokio::spawn(poll_repeatedly(interval, sender, async move || Update::Nodes(poller.nodes().await)))
        });
        (Self { poller, interval, sender, servers: BTreeMap::new(), managers }, receiver)
    }

    /// Polls exactly these servers from now on.
    pub(super) fn follow(&mut self, servers: &BTreeSet<NodeAddress>) {
        self.servers.retain(|server, polling| {
            let stays = servers.contains(server);
            if !stays {
                polling.abort();
            }
            stays
        });
        for server in servers.iter().copied() {
            self.servers.entry(server).or_insert_with(|| {
                let poller = self.poller.clone();
                let sample = async move || {
                    let (time, answer) = poller.sample(server).await;
                    Update::Server(server, time, answer)
                };
                tokio::spawn(poll_repeatedly(self.interval, self.sender.clone(), sample))
            });
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for polling in self.servers.values().chain(&self.managers) {
            polling.abort();
        }
    }
}

/// Samples with a pause of `pause` after each sample, also after one that has taken long.
async fn poll_repeatedly(pause: Duration, sender: mpsc::Sender<Update>, sample: impl AsyncFn() -> Update) {
    while sender.send(sample().await).await.is_ok() {
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_within_the_time_of_the_question_is_right() {
        for (time, before, after, expected) in
            [(10, 10, 11, 0), (11, 10, 11, 0), (13, 10, 11, 2), (7, 10, 11, -3), (u64::MAX, 0, 0, i64::MAX)]
        {
            assert_eq!(ahead(time, before, after), expected, "{time}");
        }
    }

    /// Of two samples without a pause between them the second says nothing.
    #[tokio::test]
    async fn there_is_a_pause_also_after_a_sample_that_took_long() {
        let (sender, mut updates) = mpsc::channel(UPDATES_WAITING);
        let pause = Duration::from_millis(40);
        let sample = async move || {
            let start = Instant::now();
            tokio::time::sleep(pause * 3).await;
            Update::Server(
                NodeAddress::new(([127, 0, 0, 1], 1).into()),
                start..Instant::now(),
                Err(ErrorCode::NodeLost),
            )
        };
        let polling = tokio::spawn(poll_repeatedly(pause, sender, sample));
        let mut end = None;
        for _ in 0..3 {
            let Some(Update::Server(_, time, _)) = updates.recv().await else { panic!("no sample") };
            assert!(end.is_none_or(|end| time.start >= end + pause), "{end:?} {time:?}");
            end = Some(time.end);
        }
        polling.abort();
    }
}
