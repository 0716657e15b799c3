//! Following the hash spaces: who the servers are, which of them answer, and when to ask the managers.
//!
//! A manager pushes every change; it is also asked now and then, and whenever calls fail. What becomes of an operation
//! is decided in `operations`.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::routes::{Node, Routes};
use super::{Caller, Error, Options};
use crate::clock::ClockTime;
use crate::env::{Env, Group, Tasks};
use crate::net::NamedNode;
use crate::wire::method::{ErrorCode, GetStatus, HashSpaceRequest, STATUS_CLOCKTIME, STATUS_RHS, STATUS_WHS};
use crate::wire::params::{Seed, decode};
use crate::wire::{Call, Extension, NodeAddress};

/// The managers are asked at most once in this time, however much fails.
const ASK_PAUSE: Duration = Duration::from_millis(20);
/// Interval of probing a suspect server.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
/// How long a server that answers again is observed: the log has a line for it no more often.
const OBSERVATION: Duration = Duration::from_secs(1);
/// Number of `GetStatus` that costs a server least: its process id.
const PROBE: u32 = 0;

/// A client's view of a cluster, kept up to date.
pub struct Router {
    managers: Vec<NamedNode>,
    caller: Caller,
    options: Options,
    routes: watch::Sender<Arc<Routes>>,
    /// All servers of the routes, with what is known of them.
    nodes: Mutex<BTreeMap<NodeAddress, Arc<Node>>>,
    ask: Arc<Notify>,
    /// Failed calls since the managers were asked for them.
    errors: AtomicU32,
    env: Env,
    following: Mutex<Tasks>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Router({:?})", self.managers)
    }
}

impl Router {
    /// Follows these managers from now on; nothing is known yet. One that cannot be reached is looked up again by its name.
    pub fn new(env: &Env, managers: Vec<impl Into<NamedNode>>, options: Options) -> Arc<Self> {
        let managers = managers.into_iter().map(Into::into).collect();
        let router = Arc::new_cyclic(|router: &Weak<Self>| {
            let pushed = router.clone();
            let caller = Caller::with_push(
                env,
                &options,
                Box::new(move |whs, rhs, extension| {
                    if let Some(router) = pushed.upgrade() {
                        router.take(whs, rhs, extension.as_ref());
                    }
                }),
            );
            Self {
                managers,
                caller,
                options,
                routes: watch::Sender::default(),
                nodes: Mutex::default(),
                ask: Arc::default(),
                errors: AtomicU32::new(0),
                env: env.clone(),
                following: Mutex::default(),
            }
        });
        router.following.lock().add(env.spawn(follow(Arc::downgrade(&router))));
        router
    }

    /// How long things may take.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The machine that it runs on.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Asks one node anything.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Where requests go now.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.borrow().clone()
    }

    /// Tells of every change of the routes.
    pub fn changes(&self) -> watch::Receiver<Arc<Routes>> {
        self.routes.subscribe()
    }

    /// Asks the managers, and if none answers soon the servers: these go over to other hash spaces without managers, too.
    /// Returns when a manager has answered with hash spaces that can be used, or all have been asked.
    pub async fn refresh(self: &Arc<Self>) -> Result<(), Error> {
        let mut managers = pin!(self.ask_all_managers());
        let soon = tokio::time::timeout(self.options.read_patience, &mut managers).await;
        match soon {
            Ok(Ok(())) => Ok(()),
            Ok(failed) => {
                self.ask_servers().await;
                failed
            }
            Err(_) => {
                self.ask_servers().await;
                managers.await
            }
        }
    }

    /// Takes the hash spaces that the servers act by.
    async fn ask_servers(self: &Arc<Self>) {
        let active: BTreeSet<_> = self.routes().nodes().map(|node| node.address()).collect();
        let mut asking = Group::new(&self.env);
        for server in active {
            let router = self.clone();
            asking.add(async move {
                let (whs, rhs) =
                    tokio::try_join!(router.caller.space(server, STATUS_WHS), router.caller.space(server, STATUS_RHS))?;
                router.take(whs, rhs, None);
                Ok::<_, ErrorCode>(())
            });
        }
        // One that does not answer takes its time: what it says later still counts.
        let all = async { while asking.next().await.is_some() {} };
        let _ = tokio::time::timeout(self.options.read_patience, all).await;
        asking.detach();
    }

    async fn ask_all_managers(self: &Arc<Self>) -> Result<(), Error> {
        let mut asking = Group::new(&self.env);
        for manager in &self.managers {
            asking.add(self.clone().ask_named(manager.clone()));
        }
        let mut failed = None;
        let mut answered = false;
        while let Some(asked) = asking.next().await {
            match asked {
                Ok(Ok(usable)) => {
                    answered = true;
                    if usable {
                        break;
                    }
                }
                Ok(Err(error)) => failed = Some(error),
                Err(_) => {}
            }
        }
        // What the slower one has to say still counts.
        asking.detach();
        if answered { Ok(()) } else { Err(failed.unwrap_or(Error::NoServer)) }
    }

    /// Asks the manager that has this name. If it does not answer, the name is looked up again, and the managers are asked
    /// once more when that has found another address.
    async fn ask_named(self: Arc<Self>, manager: NamedNode) -> Result<bool, Error> {
        let asked = match manager.address() {
            Some(address) => self.ask_manager(address).await,
            None => Err(Error::Name(manager.name())),
        };
        if let Err(Error::Name(_) | Error::Manager(..)) = asked {
            let (env, ask) = (self.env.clone(), self.ask.clone());
            self.env.spawn(async move {
                if manager.look_up(&env, None).await.is_some() {
                    ask.notify_one();
                }
            });
        }
        asked
    }

    /// Asks a manager; says whether its hash spaces can be used.
    async fn ask_manager(&self, manager: NodeAddress) -> Result<bool, Error> {
        // An original passes over the element.
        let request = HashSpaceRequest { extension: Some(Extension::default()) };
        let result = self.caller.ask(manager, &request).await;
        let result = result.map_err(|error| Error::Manager(manager, error))?;
        let spaces = HashSpaceRequest::answer(&result).map_err(|_| Error::Answer(manager))?;
        let usable = spaces.rhs.has_active();
        self.take(spaces.whs, spaces.rhs, spaces.extension.as_ref());
        Ok(usable)
    }

    /// Wants the managers to be asked soon.
    pub(super) fn ask_managers(&self) {
        self.ask.notify_one();
    }

    /// Takes each hash space that is newer than the one known, and gives up calls to servers that are in none. The
    /// `extension` says how long a message servers take.
    fn take(&self, whs: Seed, rhs: Seed, extension: Option<&Extension>) {
        for (server, limit) in extension.iter().flat_map(|extension| &extension.message_limits) {
            // One that is not in a hash space yet may be soon.
            let session = self.caller.session(*server);
            session.set_message_limit(usize::try_from(*limit).unwrap_or(usize::MAX));
        }
        let mut left = Vec::new();
        self.routes.send_if_modified(|routes| {
            // Who tells of an older hash space does not know yet.
            let knows = !whs.clocktime.is_before(routes.whs().clocktime());
            let votes = extension.filter(|_| knows).map_or(routes.votes(), |extension| extension.votes);
            let newer = routes.newer(whs, rhs);
            if newer.is_none() && votes == routes.votes() {
                return false;
            }
            let (whs, rhs) = newer.unwrap_or_else(|| (routes.whs().clone(), routes.rhs().clone()));
            tracing::info!(
                whs = %whs.clocktime(), rhs = %rhs.clocktime(), active = whs.active_nodes().count(), "hash space taken"
            );
            let mut nodes = self.nodes.lock();
            let node = |address| {
                let new = || Arc::new(Node::new(self.caller.session(address)));
                nodes.entry(address).or_insert_with(new).clone()
            };
            *routes = Arc::new(Routes::new(whs, rhs, votes, node));
            nodes.retain(|address, node| {
                let active = routes.is_active(*address);
                if !active {
                    left.push(node.clone());
                }
                active || routes.nodes().any(|other| other.address() == *address)
            });
            true
        });
        // Not under the lock: whoever made these calls will look at the routes.
        for node in left {
            node.trust();
            node.session().close();
            node.session().fail_calls(ErrorCode::TransportLost);
        }
    }

    /// Asks the servers that are connected for their clocks: those that get no writes tell them by no answer.
    fn ask_clocks(&self) {
        let nodes: Vec<_> = self.nodes.lock().values().cloned().collect();
        for node in nodes.into_iter().filter(|node| node.session().is_connected()) {
            let (asked, steps) = (node.clone(), super::steps(self.options.call_timeout));
            let on_reply = Box::new(move |answer: Result<&[u8], ErrorCode>| {
                if let Ok(Ok(clocktime)) = answer.map(decode::<ClockTime>) {
                    asked.note_clock(clocktime.clock());
                }
            });
            node.session().call(&GetStatus { number: STATUS_CLOCKTIME }, steps, on_reply);
        }
    }

    /// A call to `node` has ended so: keeps reads away from servers that do not answer, and asks the managers when
    /// much fails.
    pub fn note(self: &Arc<Self>, node: &Arc<Node>, error: ErrorCode) {
        if self.errors.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= self.options.renew_threshold {
            self.errors.store(0, Ordering::Relaxed);
            self.ask_managers();
        }
        if matches!(error, ErrorCode::TransportLost | ErrorCode::NodeLost) {
            node.forget_clock();
        }
        let silent = matches!(error, ErrorCode::TransportLost | ErrorCode::NodeLost | ErrorCode::TimedOut);
        if silent && node.suspect() {
            tracing::warn!(peer = %node.address(), "call to a server failed: {error}; reads go to other owners until it answers");
            self.env.spawn(probe_suspect(Arc::downgrade(self), node.clone()));
        }
    }
}

/// Asks the managers now and then and when wanted, as long as the router is there.
async fn follow(router: Weak<Router>) {
    let mut reachable = true;
    loop {
        let Some(strong) = router.upgrade() else { return };
        let asked = strong.refresh().await;
        match &asked {
            Err(error) if reachable => {
                tracing::warn!("no manager answers; following the hash spaces of the servers: {error}");
            }
            Ok(()) if !reachable => tracing::info!("a manager answers again"),
            _ => {}
        }
        reachable = asked.is_ok();
        tokio::time::sleep(ASK_PAUSE).await;
        let (interval, wanted) = (strong.options.follow_interval, strong.ask.clone());
        // The router must be able to go meanwhile.
        drop(strong);
        let is_wanted = tokio::time::timeout(interval, wanted.notified()).await.is_ok();
        if let (false, Some(strong)) = (is_wanted, router.upgrade()) {
            strong.ask_clocks();
        }
    }
}

/// Probes a suspect server until it answers, and observes it for a while longer. One that answers this and nothing else
/// is thus trusted for a moment once in a while only.
async fn probe_suspect(router: Weak<Router>, node: Arc<Node>) {
    loop {
        if probe(&router, &node).await {
            tracing::info!(peer = %node.address(), "server answers again");
            tokio::time::sleep(OBSERVATION).await;
        } else {
            node.trust();
        }
        if node.unwatch() {
            return;
        }
        tracing::warn!(peer = %node.address(), "calls to a server fail again; reads go to other owners until it answers");
    }
}

/// Probes a server until it is trusted; `false` if it belongs to the cluster no more.
async fn probe(router: &Weak<Router>, node: &Node) -> bool {
    loop {
        // The call that has failed was a probe, too.
        tokio::time::sleep(PROBE_PAUSE).await;
        if !node.is_suspect() {
            return true;
        }
        let Some(strong) = router.upgrade() else { return false };
        if !strong.routes().is_active(node.address()) {
            return false;
        }
        let steps = super::steps(strong.options.read_patience);
        drop(strong);
        let answer = node.session().ask(&GetStatus { number: PROBE }, steps).await;
        if answer.is_ok() {
            node.trust();
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_tells_of_an_older_hash_space_does_not_know_about_votes() {
        let router = Router::new(&Env::real(), Vec::<NamedNode>::new(), Options::default());
        let seed = |clock| {
            let nodes = vec![(NodeAddress::new(([127, 0, 0, 1], 9).into()), true)];
            Seed { nodes, clocktime: ClockTime::new(9, clock) }
        };
        let mut told = Vec::new();
        for (clock, votes) in
            [(2, Some(true)), (1, Some(false)), (2, None), (3, None), (3, Some(false)), (4, Some(true))]
        {
            let extension = votes.map(|votes| Extension { votes, ..Extension::default() });
            router.take(seed(clock), seed(clock), extension.as_ref());
            told.push(router.routes().route().map(|route| route.whs == router.routes().whs().clocktime().0));
        }
        assert_eq!(told, [Some(true), Some(true), Some(true), Some(true), None, Some(true)]);
    }
}
