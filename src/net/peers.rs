//! All connections of this process and the sessions they serve: dialling, redialling, time-outs, limits.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::connection::{self, Closed};
use super::dial::dial;
use super::room::Room;
use super::watch::watch;
use super::{DialPolicy, Limits, Link, LinkKind, Service, Session};
use crate::wire::method::ErrorCode;
use crate::wire::{Init, NodeAddress};

/// The pause before the second try; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Accepted connections beyond the limit of clients: for nodes, and for those that have not said yet what they are.
pub(super) const NODE_CONNECTIONS: usize = 64;
/// At most one warning in this many seconds about connections that were turned away.
const WARN_SECONDS: u32 = 10;

/// Connections and sessions.
pub struct Peers {
    /// Sent first on what this side dials, and in answer to an init; `None` for a client of the cluster.
    init: Option<Init>,
    policy: DialPolicy,
    limits: Limits,
    service: OnceLock<Weak<dyn Service>>,
    sessions: Mutex<HashMap<NodeAddress, Arc<Session>>>,
    links: Mutex<HashMap<u64, Arc<Link>>>,
    last_link: AtomicU64,
    accepted: AtomicUsize,
    /// Those of `accepted` that are nodes'.
    accepted_nodes: AtomicUsize,
    /// When a connection was turned away and that was said, in seconds of the reaper's clock; zero: never.
    turned_away: AtomicU32,
    room: Arc<Room>,
    partial: AtomicUsize,
    started: Instant,
    /// Calls may be made from threads that are not the runtime's.
    runtime: Handle,
    stopping: AtomicBool,
}

impl Peers {
    /// The connections of a node that introduces itself with `init`, or of a client of the cluster.
    ///
    /// Must be called within a runtime, which all connections then belong to.
    pub fn new(init: Option<Init>, policy: DialPolicy, limits: Limits) -> Arc<Self> {
        let room = Arc::new(Room::new(limits.in_flight_total));
        Arc::new(Self {
            init,
            policy,
            limits,
            room,
            accepted_nodes: AtomicUsize::new(0),
            turned_away: AtomicU32::new(0),
            service: OnceLock::new(),
            sessions: Mutex::default(),
            links: Mutex::default(),
            last_link: AtomicU64::new(0),
            accepted: AtomicUsize::new(0),
            partial: AtomicUsize::new(0),
            started: Instant::now(),
            runtime: Handle::current(),
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
    pub fn session(self: &Arc<Self>, address: NodeAddress) -> Arc<Session> {
        self.sessions.lock().entry(address).or_insert_with(|| Arc::new(Session::new(address, self))).clone()
    }

    /// The session of a node, if one is known.
    pub fn known_session(&self, address: NodeAddress) -> Option<Arc<Session>> {
        self.sessions.lock().get(&address).cloned()
    }

    /// Connects to a node if there is no connection yet; the outcome is told to the service.
    pub fn connect(self: &Arc<Self>, address: NodeAddress) {
        let session = self.session(address);
        if session.begin_dialing() {
            self.dial(session);
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
    pub fn reap(&self) {
        let now = self.uptime_seconds();
        let limit = u32::try_from(self.limits.stalled.as_secs()).unwrap_or(u32::MAX).max(1);
        let stalled: Vec<_> =
            self.links.lock().values().filter(|link| owes_since(link, now) >= limit).cloned().collect();
        for link in stalled {
            tracing::info!(peer = %link.peer(), "closing: no progress for {limit} s");
            link.close();
        }
    }

    /// Seconds since this was made, at least one: the reaper's clock.
    pub(super) fn uptime_seconds(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// All connections open now.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.links.lock().values().cloned().collect()
    }

    /// How many connections are open now.
    pub fn link_count(&self) -> usize {
        self.links.lock().len()
    }

    /// Lets client connections finish what is under way and end; `true` when none is left at the deadline.
    pub async fn drain_clients(&self, deadline: tokio::time::Instant) -> bool {
        self.stopping.store(true, Ordering::Release);
        loop {
            let clients: Vec<_> = self.links().into_iter().filter(|link| link.session().is_none()).collect();
            if clients.is_empty() {
                return true;
            }
            for link in &clients {
                link.drain();
            }
            if tokio::time::timeout_at(deadline, tokio::time::sleep(Duration::from_millis(5))).await.is_err() {
                return false;
            }
        }
    }

    /// Closes everything and dials no more.
    pub fn close(&self) {
        self.stopping.store(true, Ordering::Release);
        for link in self.links() {
            link.close();
        }
    }

    pub(super) fn hold_partial(&self, len: usize) {
        self.partial.fetch_add(len, Ordering::Relaxed);
    }

    pub(super) fn release_partial(&self, len: usize) {
        self.partial.fetch_sub(len, Ordering::Relaxed);
    }

    pub(super) fn partial_overfull(&self) -> bool {
        self.partial.load(Ordering::Relaxed) > self.limits.partial_total
    }

    /// Takes a connection from a listener; beyond the limit, with those kept for nodes, it is closed at once.
    pub(super) fn accept(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let limit = self.limits.connections.saturating_add(NODE_CONNECTIONS);
        if self.accepted.fetch_add(1, Ordering::AcqRel) >= limit {
            self.accepted.fetch_sub(1, Ordering::AcqRel);
            return self.note_turned_away(peer);
        }
        let link = self.new_link(peer);
        let guard = Accepted(self.clone(), link.clone());
        self.run(stream, link, move || drop(guard));
    }

    /// The first message of an accepted connection is a client's: whether there is a place for it.
    pub(super) fn admit_client(&self, link: &Link) -> bool {
        let nodes = self.accepted_nodes.load(Ordering::Acquire);
        let others = self.accepted.load(Ordering::Acquire).saturating_sub(nodes);
        let admitted = others <= self.limits.connections;
        if admitted {
            link.become_client();
        } else {
            self.note_turned_away(link.peer());
        }
        admitted
    }

    /// Warns, now and then, that there is no place for clients.
    fn note_turned_away(&self, peer: SocketAddr) {
        let (now, last) = (self.uptime_seconds(), self.turned_away.load(Ordering::Relaxed));
        let due = last == 0 || now.saturating_sub(last) >= WARN_SECONDS;
        if due && self.turned_away.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(%peer, "turned away: {} connections are open", self.limits.connections);
        }
    }

    fn new_link(&self, peer: SocketAddr) -> Arc<Link> {
        let id = self.last_link.fetch_add(1, Ordering::Relaxed) + 1;
        let link = Arc::new(Link::new(id, peer, &self.limits, &self.room));
        self.links.lock().insert(id, link.clone());
        link
    }

    /// Starts the task of a connection; `after` runs when it has ended, however it did.
    fn run(self: &Arc<Self>, stream: TcpStream, link: Arc<Link>, after: impl FnOnce() + Send + 'static) {
        let Some(service) = self.service.get().and_then(Weak::upgrade) else {
            self.links.lock().remove(&link.id());
            return;
        };
        let peers = self.clone();
        self.runtime.spawn(async move {
            let ending = Ending { peers: &peers, link: &link, closed: None, after: Some(after) };
            // Requests are small and answers are awaited: never wait to fill a packet.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(peer = %link.peer(), %error, "TCP_NODELAY");
            }
            if let Err(error) = watch(&stream, peers.limits.stalled) {
                tracing::debug!(peer = %link.peer(), %error, "keep-alive of the socket");
            }
            let closed = connection::serve(stream, &link, &peers, &*service).await;
            ending.with(closed);
        });
    }

    /// An init has arrived on `link`: binds it to the node's session. If this side accepted, ours is appended to `out`,
    /// which must be sent before everything that is pushed to the link from now on.
    pub(super) fn accept_init(
        self: &Arc<Self>,
        link: &Arc<Link>,
        init: Init,
        service: &dyn Service,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(own) = self.init else { return false };
        match (link.kind(), link.session()) {
            (LinkKind::Undecided, None) => {
                let session = self.session(init.address);
                link.bind(session.clone(), true);
                self.accepted_nodes.fetch_add(1, Ordering::AcqRel);
                own.write(out);
                session.attach(link);
                service.bound(&session, Some(init.role));
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

    /// Dials until a connection stands or the tries are used up. The caller has claimed it in the session.
    pub(super) fn dial(self: &Arc<Self>, session: Arc<Session>) {
        let peers = self.clone();
        self.runtime.spawn(async move {
            let mut pause = PAUSE_MIN;
            for attempt in 0..=peers.policy.retry_limit {
                if attempt > 0 {
                    tokio::time::sleep(jittered(pause, attempt)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                if peers.stopping.load(Ordering::Acquire) {
                    break;
                }
                // The node may have dialled us meanwhile.
                if session.is_connected() {
                    return;
                }
                let connecting = dial(session.address().socket());
                match tokio::time::timeout(peers.policy.timeout, connecting).await {
                    Ok(Ok(stream)) => return peers.dialled(stream, &session),
                    Ok(Err(error)) => tracing::debug!(peer = %session.address(), attempt, %error, "connect"),
                    Err(_) => tracing::debug!(peer = %session.address(), attempt, "connect timed out"),
                }
            }
            session.give_up();
            if let Some(service) = peers.service.get().and_then(Weak::upgrade) {
                service.lost(session.address());
            }
        });
    }

    fn dialled(self: &Arc<Self>, stream: TcpStream, session: &Arc<Session>) {
        let link = self.new_link(session.address().socket());
        link.bind(session.clone(), self.init.is_some());
        if let Some(init) = self.init {
            link.push(|out| init.write(out));
        }
        session.attach(&link);
        if self.init.is_none()
            && let Some(service) = self.service.get().and_then(Weak::upgrade)
        {
            service.bound(session, None);
        }
        self.run(stream, link, || ());
    }

    /// A connection has ended: its calls fail, and if it was the node's last one the node is dialled again.
    fn ended(self: &Arc<Self>, link: &Arc<Link>, closed: Option<&Closed>) {
        link.shut();
        self.links.lock().remove(&link.id());
        match closed {
            None if std::thread::panicking() => {
                tracing::error!(peer = %link.peer(), "closed: a message of this peer caused a panic");
            }
            // The runtime is going.
            None => {}
            Some(closed @ (Closed::Wire(_) | Closed::PartialLimit)) => {
                tracing::warn!(peer = %link.peer(), "closed: {closed}");
            }
            Some(closed) => tracing::debug!(peer = %link.peer(), "closed: {closed}"),
        }
        let Some(session) = link.session() else { return };
        let connected = session.detach(link);
        if connected || self.init.is_none() || self.stopping.load(Ordering::Acquire) {
            return;
        }
        let service = self.service.get().and_then(Weak::upgrade);
        if service.is_some_and(|service| service.keeps(session.address())) {
            self.connect(session.address());
        }
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peers({} connections)", self.link_count())
    }
}

/// Seconds for which the peer of `link` has owed progress; cluster connections may be silent but not half-said.
fn owes_since(link: &Link, now: u32) -> u32 {
    match link.owing_since.load(Ordering::Relaxed) {
        0 => 0,
        since => now.saturating_sub(since),
    }
}

/// Half of `pause` and a share of the other half that differs from try to try and from process to process.
fn jittered(pause: Duration, attempt: u32) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let share = RandomState::new().hash_one(attempt) % 1024;
    pause / 2 + pause / 2 * u32::try_from(share).unwrap_or(0) / 1024
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

/// Cleans up after a connection, also when a panic ends its task.
struct Ending<'a, F: FnOnce()> {
    peers: &'a Arc<Peers>,
    link: &'a Arc<Link>,
    closed: Option<Closed>,
    after: Option<F>,
}

impl<F: FnOnce()> Ending<'_, F> {
    fn with(mut self, closed: Closed) {
        self.closed = Some(closed);
    }
}

impl<F: FnOnce()> Drop for Ending<'_, F> {
    fn drop(&mut self) {
        self.peers.ended(self.link, self.closed.as_ref());
        if let Some(after) = self.after.take() {
            after();
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for session in self.sessions.get_mut().values() {
            session.fail_calls(ErrorCode::NodeLost);
        }
    }
}
