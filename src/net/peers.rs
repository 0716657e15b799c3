//! All connections of this process and the sessions they serve: dialling, redialling, time-outs, limits.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::budget::Budget;
use super::connection::{self, Connections};
use super::limits::{DialPolicy, Limits};
use super::link::{Link, LinkKind};
use super::registry::Registry;
use super::service::{Admission, Service};
use super::session::{Dialer, Session};
use super::task;
use crate::env::{Backoff, Env, Stream};
use crate::wire::method::ErrorCode;
use crate::wire::{Init, NodeAddress};

/// The pause before the second try; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Accepted connections beyond the limit of clients: for nodes, and for those that have not said yet what they are.
pub(super) const NODE_CONNECTIONS: usize = 64;

/// Connections and sessions.
pub struct Peers {
    /// Sent first on what this side dials, and in answer to an init; `None` for a client of the cluster.
    init: Option<Init>,
    policy: DialPolicy,
    limits: Limits,
    service: OnceLock<Weak<dyn Service>>,
    sessions: Mutex<BTreeMap<NodeAddress, Arc<Session>>>,
    links: Registry<Link>,
    accepted: AtomicUsize,
    /// Those of `accepted` that are nodes'.
    accepted_nodes: AtomicUsize,
    in_flight: Arc<Budget>,
    partial: Budget,
    env: Env,
    stopping: AtomicBool,
}

impl Peers {
    /// The connections of a node that introduces itself with `init`, or of a client of the cluster, on this machine.
    pub fn new(env: &Env, init: Option<Init>, policy: DialPolicy, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            init,
            policy,
            in_flight: Arc::new(Budget::new(limits.in_flight_total)),
            partial: Budget::new(limits.partial_total),
            limits,
            accepted_nodes: AtomicUsize::new(0),
            service: OnceLock::new(),
            sessions: Mutex::default(),
            links: Registry::new(env.time()),
            accepted: AtomicUsize::new(0),
            env: env.clone(),
            stopping: AtomicBool::new(false),
        })
    }

    /// Says who handles requests; before that, nothing can be dialled or accepted. The caller keeps it alive.
    pub fn serve(&self, service: &Arc<dyn Service>) {
        // A second call would be a mistake of the program; the first service stays.
        let _ = self.service.set(Arc::downgrade(service));
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The session of a node, made if there is none. Does not dial; a call does.
    pub(crate) fn session(self: &Arc<Self>, address: NodeAddress) -> Arc<Session> {
        let new = || {
            let peers: Weak<Self> = Arc::downgrade(self);
            Arc::new(Session::new(address, peers, &self.limits))
        };
        self.sessions.lock().entry(address).or_insert_with(new).clone()
    }

    /// The session of a node, if one is known.
    pub(crate) fn known_session(&self, address: NodeAddress) -> Option<Arc<Session>> {
        self.sessions.lock().get(&address).cloned()
    }

    /// Connects to a node if there is no connection yet; the service is notified of the outcome.
    pub fn connect(self: &Arc<Self>, address: NodeAddress) {
        let session = self.session(address);
        if session.begin_dialing() {
            self.clone().dial(session);
        }
    }

    /// Of the connections that are bound to `node`, those that do not come from where it `belongs` are another machine's:
    /// nothing is taken from them any more, and no calls go there.
    pub(crate) fn separate(&self, node: NodeAddress, belongs: impl Fn(IpAddr) -> bool) {
        for link in self.links() {
            let Some(session) = link.session().filter(|session| session.address() == node) else { continue };
            if !belongs(link.peer().ip()) {
                link.set_refused();
                session.detach(link.id());
            }
        }
    }

    /// One step of the clock interval has passed: pending calls grow older, sessions of nobody are forgotten.
    pub fn step(&self) {
        let sessions: Vec<_> = self.sessions.lock().values().cloned().collect();
        for session in sessions {
            session.step();
        }
        self.sessions.lock().retain(|_, session| !(session.is_idle() && Arc::strong_count(session) == 1));
    }

    /// Closes the accepted connections that have owed a message, or left answers unread, for too long.
    pub(crate) fn reap(&self) {
        self.links.reap(self.limits.stalled, |link, limit| {
            tracing::info!(peer = %link.peer(), "closing: no progress for {limit} s");
        });
    }

    /// All connections open now.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.links.all()
    }

    /// How many connections are open now.
    pub(crate) fn link_count(&self) -> usize {
        self.links.len()
    }

    /// Lets client connections finish what is under way and end; `true` when none is left at the deadline.
    pub(crate) async fn drain_clients(&self, deadline: tokio::time::Instant) -> bool {
        self.stopping.store(true, Ordering::Release);
        self.links.drain(deadline, |link| link.session().is_none()).await == 0
    }

    /// Closes everything and dials no more.
    pub fn close(&self) {
        self.stopping.store(true, Ordering::Release);
        self.links.close_all();
    }

    /// Takes a connection from a listener; beyond the limit, with those kept for nodes, it is closed at once.
    pub(super) fn accept(self: &Arc<Self>, stream: Stream, peer: SocketAddr) {
        let limit = self.limits.connections.saturating_add(NODE_CONNECTIONS);
        if self.accepted.fetch_add(1, Ordering::AcqRel) >= limit {
            self.accepted.fetch_sub(1, Ordering::AcqRel);
            return self.links.warn_turned_away(&peer, self.limits.connections);
        }
        let link = self.new_link(peer);
        let guard = Accepted(self.clone(), link.clone());
        self.run(stream, link, move || drop(guard));
    }

    fn new_link(&self, peer: SocketAddr) -> Arc<Link> {
        let id = self.links.next_id();
        let link = Arc::new(Link::new(id, peer, &self.limits, &self.in_flight));
        // How many are accepted is counted apart: those that this side has dialled are no client's.
        self.links.insert(id, link.clone(), usize::MAX);
        link
    }

    /// Starts the task of a connection; `after` runs when it has ended, however it did.
    fn run(self: &Arc<Self>, stream: Stream, link: Arc<Link>, after: impl FnOnce() + Send + 'static) {
        let Some(service) = self.service.get().and_then(Weak::upgrade) else {
            self.links.remove(link.id());
            return;
        };
        let ended = {
            let (peers, link) = (self.clone(), link.clone());
            move || {
                peers.ended(&link);
                after();
            }
        };
        let (env, peer, silence) = (&self.env, link.peer(), self.limits.stalled);
        let peers = self.clone();
        let serve = async move |stream| connection::serve(stream, &link, &peers, &*service).await;
        task::spawn(env, stream, peer, silence, serve, ended);
    }

    fn dialled(self: &Arc<Self>, stream: Stream, session: &Arc<Session>) {
        let Some(service) = self.service.get().and_then(Weak::upgrade) else {
            // Nobody would read from it.
            return session.give_up();
        };
        let link = self.new_link(session.address().socket());
        link.bind(session.clone(), self.init.is_some());
        if let Some(init) = self.init {
            link.push(|out| init.write(out));
        }
        link.admit();
        if self.init.is_none() {
            service.bound(session, None);
        }
        self.run(stream, link, || ());
    }

    /// A connection has ended: its calls fail, and if it was the node's last one the node is dialled again.
    fn ended(self: &Arc<Self>, link: &Arc<Link>) {
        link.shut();
        self.links.remove(link.id());
        let Some(session) = link.session() else { return };
        let connected = session.detach(link.id());
        if connected || self.init.is_none() || self.stopping.load(Ordering::Acquire) {
            return;
        }
        let service = self.service.get().and_then(Weak::upgrade);
        if service.is_some_and(|service| service.keeps(session.address())) {
            self.connect(session.address());
        }
    }
}

impl Dialer for Peers {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn dial(self: Arc<Self>, session: Arc<Session>) {
        let peers = self.clone();
        self.env.spawn(async move {
            let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
            let mut refused = false;
            for attempt in 0..=peers.policy.retry_limit {
                if attempt > 0 {
                    backoff.pause(&peers.env).await;
                }
                if peers.stopping.load(Ordering::Acquire) {
                    break;
                }
                // The node may have dialled us meanwhile.
                if session.is_connected() {
                    return;
                }
                match peers.env.connect(session.address().socket(), peers.policy.timeout).await {
                    Ok(stream) => return peers.dialled(stream, &session),
                    Err(error) => {
                        tracing::debug!(peer = %session.address(), attempt, %error, "connecting failed");
                        refused = error.kind() == ErrorKind::ConnectionRefused;
                    }
                }
            }
            session.give_up();
            if let Some(service) = peers.service.get().and_then(Weak::upgrade) {
                service.lost(session.address(), refused);
            }
        });
    }
}

impl Connections for Peers {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn partial(&self) -> &Budget {
        &self.partial
    }

    fn uptime_seconds(&self) -> u32 {
        self.links.uptime_seconds()
    }

    fn admit_client(&self, link: &Link) -> bool {
        let nodes = self.accepted_nodes.load(Ordering::Acquire);
        let others = self.accepted.load(Ordering::Acquire).saturating_sub(nodes);
        let admitted = others <= self.limits.connections;
        if admitted {
            link.become_client();
        } else {
            self.links.warn_turned_away(&link.peer(), self.limits.connections);
        }
        admitted
    }

    fn accept_init(self: &Arc<Self>, link: &Arc<Link>, init: Init, service: &dyn Service, out: &mut Vec<u8>) -> bool {
        let Some(own) = self.init else { return false };
        match (link.kind(), link.session()) {
            (LinkKind::Undecided, None) => {
                let admission = service.admission(&init, link.peer());
                if admission == Admission::Refused {
                    return false;
                }
                let session = self.session(init.address);
                link.bind(session.clone(), true);
                self.accepted_nodes.fetch_add(1, Ordering::AcqRel);
                own.write(out);
                if admission == Admission::Welcome && link.admit() {
                    service.bound(&session, Some(init.role));
                }
                true
            }
            // The answer to the init that we have sent.
            (LinkKind::Cluster, Some(session)) if session.address() == init.address => {
                service.bound(session, Some(init.role));
                true
            }
            (LinkKind::Cluster, Some(session)) => {
                // Each would know the other by an address that the rest of the cluster does not use.
                tracing::warn!(peer = %session.address(), "this node calls itself {}: name it by that address", init.address);
                false
            }
            _ => false,
        }
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peers({} connections)", self.link_count())
    }
}

/// Counts an accepted connection until its task has ended.
struct Accepted(Arc<Peers>, Arc<Link>);

impl Drop for Accepted {
    fn drop(&mut self) {
        if self.1.kind() == LinkKind::Cluster {
            self.0.accepted_nodes.fetch_sub(1, Ordering::AcqRel);
        }
        self.0.accepted.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for session in self.sessions.get_mut().values() {
            session.fail_calls(ErrorCode::NodeLost);
        }
    }
}
