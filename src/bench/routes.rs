//! Which server a request goes to: one for all, or by the hash spaces, which may change during a run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::choice::Operation;
use crate::ring::HashSpace;
use crate::wire::NodeAddress;
use crate::wire::params::Seed;

/// Where requests go, at one time.
#[derive(Debug)]
pub(super) struct Routes {
    servers: Vec<SocketAddr>,
    /// For writing and for reading; `None` if everything goes to the only server.
    spaces: Option<Spaces>,
}

#[derive(Debug)]
struct Spaces {
    whs: HashSpace,
    rhs: HashSpace,
}

impl Routes {
    /// Everything to one server.
    pub(super) fn to(server: SocketAddr) -> Self {
        Self { servers: vec![server], spaces: None }
    }

    /// By hash spaces; `None` if no server is active in one of them.
    pub(super) fn by(whs: Seed, rhs: Seed) -> Option<Self> {
        let (whs, rhs) = (HashSpace::new(whs), HashSpace::new(rhs));
        if !whs.is_ready() || !rhs.is_ready() {
            return None;
        }
        let mut servers: Vec<_> = whs.active_nodes().map(|node| node.socket()).collect();
        servers.extend(rhs.active_nodes().map(|node| node.socket()).filter(|server| !whs.contains((*server).into())));
        let alone = servers.len() == 1;
        Some(Self { servers, spaces: (!alone).then_some(Spaces { whs, rhs }) })
    }

    /// The servers in use.
    pub(super) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// The server of the connection with this number.
    pub(super) fn server(&self, connection: usize) -> Option<SocketAddr> {
        self.servers.get(connection % self.servers.len().max(1)).copied()
    }

    /// Of the connections to the same server: how many precede this one, and how many there are.
    pub(super) fn place(&self, connection: usize, connections: usize) -> (u64, u64) {
        let servers = self.servers.len().max(1);
        let column = connection % servers;
        let count = connections.saturating_sub(column).div_ceil(servers);
        ((connection / servers) as u64, count.max(1) as u64)
    }

    /// Whether `server` is the one to ask.
    #[inline]
    pub(super) fn lead_to(&self, server: SocketAddr, operation: Operation, hash: u64) -> bool {
        let Some(spaces) = &self.spaces else { return true };
        let space = if operation == Operation::Get { &spaces.rhs } else { &spaces.whs };
        space.owners(hash).coordinator() == Some(NodeAddress::new(server))
    }
}

/// The routes in force, and how often they have changed.
#[derive(Debug)]
pub(super) struct Router {
    routes: RwLock<Arc<Routes>>,
    generation: AtomicU64,
}

impl Router {
    /// A router that starts with `routes`.
    pub(super) fn new(routes: Routes) -> Self {
        Self { routes: RwLock::new(Arc::new(routes)), generation: AtomicU64::new(0) }
    }

    /// The routes in force.
    pub(super) fn routes(&self) -> Arc<Routes> {
        self.routes.read().clone()
    }

    /// How often they have changed.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts other routes in force.
    pub(super) fn replace(&self, routes: Routes) {
        *self.routes.write() = Arc::new(routes);
        self.generation.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockTime;

    fn seed(ports: &[u16], faulty: &[u16]) -> Seed {
        let node = |port: &u16| NodeAddress::new(SocketAddr::from(([127, 0, 0, 1], *port)));
        Seed {
            nodes: ports.iter().map(|port| (node(port), !faulty.contains(port))).collect(),
            clocktime: ClockTime::new(1, 1),
        }
    }

    #[test]
    fn one_server_takes_everything() {
        let server = "127.0.0.1:1".parse().unwrap();
        for routes in [Routes::to(server), Routes::by(seed(&[1, 2], &[2]), seed(&[1], &[])).unwrap()] {
            assert_eq!(routes.servers(), [server]);
            assert!(routes.lead_to(server, Operation::Set, 12345));
        }
        assert!(Routes::by(seed(&[], &[]), seed(&[1], &[])).is_none());
        assert!(Routes::by(seed(&[1], &[]), seed(&[1], &[1])).is_none());
    }

    #[test]
    fn reads_go_by_rhs_and_writes_by_whs() {
        let routes = Routes::by(seed(&[1, 2, 3, 4], &[]), seed(&[1, 2, 3], &[])).unwrap();
        assert_eq!(routes.servers().len(), 4);
        let mut to_new = 0;
        for hash in (0..1000u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            for operation in Operation::ALL {
                let leads = |server: &&SocketAddr| routes.lead_to(**server, operation, hash);
                assert_eq!(routes.servers().iter().filter(leads).count(), 1, "{operation:?}");
            }
            let new = routes.servers()[3];
            assert!(!routes.lead_to(new, Operation::Get, hash));
            to_new += u32::from(routes.lead_to(new, Operation::Set, hash));
        }
        assert!((150..350).contains(&to_new), "{to_new}");
    }

    #[test]
    fn connections_are_dealt_out() {
        let routes = Routes::by(seed(&[1, 2, 3], &[]), seed(&[1, 2, 3], &[])).unwrap();
        let ports: Vec<_> = (0..5).map(|number| routes.server(number).unwrap().port()).collect();
        assert_eq!(ports, [1, 2, 3, 1, 2]);
        let places: Vec<_> = (0..5).map(|number| routes.place(number, 5)).collect();
        assert_eq!(places, [(0, 2), (0, 2), (0, 1), (1, 2), (1, 2)]);
    }
}
