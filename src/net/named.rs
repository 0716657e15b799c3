//! A node that an operator has named: its host, and the address that stands for it now.
//!
//! On the wire a node is known by its address alone. Those that are given by name (managers) may get another address while
//! this process runs: the name is looked up again when its address cannot be reached. One that does not resolve yet is
//! waited for. Knows no roles: they decide when to look up, and what a new address means.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::env::Env;
use crate::wire::NodeAddress;

/// Least time between two look-ups of one name.
const PAUSE: Duration = Duration::from_secs(1);

/// A node as an operator has named it. Its clones are one: each sees the address that another has found.
#[derive(Clone)]
pub struct NamedNode(Arc<Inner>);

struct Inner {
    host: String,
    port: u16,
    state: Mutex<State>,
}

struct State {
    address: Option<NodeAddress>,
    /// Somebody is looking it up, or waits to.
    looking: bool,
    /// When the last look-up ended.
    looked: Option<Instant>,
    /// A failure was logged since the name last had an address.
    warned: bool,
}

/// Result of a look-up: another address than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The address that stood for the node so far.
    pub from: Option<NodeAddress>,
    /// The one that stands for it now.
    pub to: NodeAddress,
}

impl NamedNode {
    /// `port` of `host`, which stands for `address`, or for none yet. A host that is an IP address is never looked up.
    pub fn new(host: &str, port: u16, address: Option<NodeAddress>) -> Self {
        let state = State { address, looking: false, looked: None, warned: false };
        Self(Arc::new(Inner { host: host.to_owned(), port, state: Mutex::new(state) }))
    }

    /// Its host and port, as the operator has named them.
    pub fn name(&self) -> String {
        let Inner { host, port, .. } = &*self.0;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The address that stands for it now; `None` if its name has not been resolved yet.
    pub fn address(&self) -> Option<NodeAddress> {
        self.0.state.lock().address
    }

    /// Whether `node` is the one that is meant.
    pub fn is(&self, node: NodeAddress) -> bool {
        self.address() == Some(node)
    }

    /// Whether a look-up is under way, or about to be.
    pub(crate) fn is_looked_up(&self) -> bool {
        self.0.state.lock().looking
    }

    /// Looks the name up in the system's way. The result is `None` if its address is the same as before, the look-up
    /// failed, or another is under way. `own` is the address of this process, which the name cannot mean.
    ///
    /// It takes as long as the system does, at most one look-up at a time, and none within a second of the last: until
    /// then it waits. A failure is logged once.
    pub async fn look_up(&self, env: &Env, own: Option<NodeAddress>) -> Option<Moved> {
        let inner = &*self.0;
        if inner.host.parse::<IpAddr>().is_ok() {
            return None;
        }
        let looked = {
            let mut state = inner.state.lock();
            if std::mem::replace(&mut state.looking, true) {
                return None;
            }
            state.looked
        };
        let looking = LookupGuard(inner);
        if let Some(looked) = looked {
            tokio::time::sleep_until(looked + PAUSE).await;
        }
        let moved = self.take(env.resolve(&inner.host, inner.port).await, own);
        drop(looking);
        moved
    }

    /// Takes over what a look-up has found.
    fn take(&self, found: io::Result<Vec<SocketAddr>>, own: Option<NodeAddress>) -> Option<Moved> {
        let mut state = self.0.state.lock();
        let chosen = match found {
            Ok(found) => choose(&found, state.address, own).ok_or_else(|| "it has no address of a node".to_owned()),
            Err(error) => Err(cause(&error)),
        };
        match chosen {
            Ok(to) => {
                state.warned = false;
                let from = state.address.replace(to);
                if from == Some(to) {
                    return None;
                }
                let name = self.name();
                match from {
                    Some(from) => tracing::warn!(peer = %to, "{name} has another address now; it was {from}"),
                    None => tracing::info!(peer = %to, "{name} is resolved"),
                }
                Some(Moved { from, to })
            }
            // With an address at hand it is said that this one cannot be reached.
            Err(why) => {
                if state.address.is_none() && !std::mem::replace(&mut state.warned, true) {
                    tracing::warn!("cannot resolve host '{}': {why}; trying again", self.0.host);
                }
                None
            }
        }
    }
}

/// Marks the look-up as ended when it is dropped, also before it is complete.
struct LookupGuard<'a>(&'a Inner);

impl Drop for LookupGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.looking = false;
        state.looked = Some(Instant::now());
    }
}

impl From<NodeAddress> for NamedNode {
    fn from(address: NodeAddress) -> Self {
        let socket = address.socket();
        Self::new(&socket.ip().to_string(), socket.port(), Some(address))
    }
}

/// Its address, or its name until that is resolved.
impl fmt::Display for NamedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => address.fmt(f),
            None => f.write_str(&self.name()),
        }
    }
}

impl fmt::Debug for NamedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The address to use of those that a look-up has found: the one held if it is still there, else the first that can be a
/// node's, IPv4 before IPv6, since original nodes know no other.
pub(crate) fn choose(found: &[SocketAddr], held: Option<NodeAddress>, own: Option<NodeAddress>) -> Option<NodeAddress> {
    let usable = || {
        let addresses = found.iter().filter(|address| names_one_host(address.ip())).copied().map(NodeAddress::new);
        addresses.filter(|address| Some(*address) != own)
    };
    let held = || usable().find(|address| Some(*address) == held);
    held().or_else(|| usable().find(|address| address.socket().is_ipv4())).or_else(|| usable().next())
}

/// Whether other hosts can dial `ip` to reach one certain node.
pub(crate) fn names_one_host(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::from([255; 4])
}

/// The system's words on a failed look-up without the ones that only name the call.
pub(crate) fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn node(text: &str) -> NodeAddress {
        NodeAddress::new(text.parse().unwrap())
    }

    #[test]
    fn the_address_held_is_kept_as_long_as_it_is_one_of_the_names() {
        let found = addresses(&["[::2]:1", "10.0.0.1:1", "10.0.0.2:1"]);
        assert_eq!(choose(&found, None, None), Some(node("10.0.0.1:1")));
        assert_eq!(choose(&found, Some(node("10.0.0.2:1")), None), Some(node("10.0.0.2:1")));
        assert_eq!(choose(&found, Some(node("10.0.0.3:1")), None), Some(node("10.0.0.1:1")));
        assert_eq!(choose(&found, None, Some(node("10.0.0.1:1"))), Some(node("10.0.0.2:1")));
        assert_eq!(choose(&addresses(&["[::2]:1"]), None, None), Some(node("[::2]:1")));
        assert_eq!(choose(&addresses(&["0.0.0.0:1", "224.0.0.1:1"]), None, None), None);
    }

    #[test]
    fn what_is_found_is_reported_once_and_a_failure_changes_nothing() {
        let named = NamedNode::new("mgr", 1, None);
        let fails = || Err(io::Error::other("no such name"));
        assert_eq!((named.take(fails(), None), named.address()), (None, None));
        let (first, second) = (node("10.0.0.1:1"), node("10.0.0.2:1"));
        assert_eq!(named.take(Ok(addresses(&["10.0.0.1:1"])), None), Some(Moved { from: None, to: first }));
        assert_eq!(named.take(Ok(addresses(&["10.0.0.1:1"])), None), None);
        assert_eq!(named.take(fails(), None), None);
        assert_eq!(named.take(Ok(Vec::new()), None), None);
        assert!(named.is(first));
        let moved = Moved { from: Some(first), to: second };
        assert_eq!(named.take(Ok(addresses(&["10.0.0.2:1"])), None), Some(moved));
        assert!(named.is(second) && !named.is(first));
    }

    #[tokio::test]
    async fn one_looks_at_a_time_and_an_address_is_never_looked_up() {
        let (env, named) = (Env::real(), NamedNode::new("localhost", 7, None));
        let (one, other) = tokio::join!(named.look_up(&env, None), named.look_up(&env, None));
        assert_eq!([one, other].iter().flatten().count(), 1, "{one:?} {other:?}");
        assert!(named.address().is_some());
        let fixed = NamedNode::from(node("10.0.0.1:1"));
        assert_eq!((fixed.look_up(&env, None).await, fixed.to_string().as_str()), (None, "10.0.0.1:1"));
        assert!(fixed.is(node("10.0.0.1:1")));
        assert_eq!(NamedNode::from(node("[fe80::1%3]:9")).address(), Some(node("[fe80::1%3]:9")));
    }
}
