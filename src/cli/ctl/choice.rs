//! Which servers an attach or detach is for, given what the manager knows. Pure.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::client::Overview;
use crate::wire::NodeAddress;

/// Attach or detach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Attach,
    Detach,
}

/// The change that the operator has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemberChange {
    pub(super) kind: Kind,
    /// The servers that were named; none: all that there are.
    pub(super) servers: BTreeSet<NodeAddress>,
    /// How many there should be.
    pub(super) expected: Option<Expected>,
}

/// A number of servers that must be there before anything is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Servers to attach or to detach.
    Changes(usize),
    /// Servers that are attached, and servers to attach, together.
    Total(usize),
}

/// Why a wanted cannot be met as things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unmet {
    /// It may be possible when more servers are listed, or in fault.
    Yet(String),
    /// Waiting will not help.
    Never(String),
}

impl MemberChange {
    /// The servers to change; `None`: all that there are, however many.
    pub(super) fn choose(&self, overview: &Overview) -> Result<Option<Vec<NodeAddress>>, Unmet> {
        if !self.servers.is_empty() {
            let reasons: Vec<_> = self.servers.iter().filter_map(|server| self.objection(*server, overview)).collect();
            let reason = reasons.join(", ");
            return match reasons.len() {
                0 => Ok(Some(self.servers.iter().copied().collect())),
                _ if self.servers.iter().any(|server| self.can_never_happen(*server, overview)) => {
                    Err(Unmet::Never(reason))
                }
                _ => Err(Unmet::Yet(reason)),
            };
        }
        let listed = self.listed(overview);
        let attached: Vec<_> = overview.whs.active().collect();
        let (there, expected) = match self.expected {
            None => return Ok(None),
            Some(Expected::Changes(expected)) => (listed.len(), expected),
            Some(Expected::Total(expected)) => (attached.len() + listed.len(), expected),
        };
        let text = || {
            let names = if listed.is_empty() { String::new() } else { format!(" ({})", names(&listed)) };
            let attached = match self.kind {
                Kind::Attach if !attached.is_empty() => format!(", {} attached already", attached.len()),
                _ => String::new(),
            };
            format!("{} to {}{names}{attached}, {expected} expected", count(listed.len()), self.verb())
        };
        match (there.cmp(&expected), self.expected) {
            (Ordering::Greater, _) => Err(Unmet::Never(text())),
            (Ordering::Less, _) => Err(Unmet::Yet(text())),
            (Ordering::Equal, Some(Expected::Total(_))) => Ok(Some([attached, listed].concat())),
            (Ordering::Equal, _) => Ok(Some(listed)),
        }
    }

    /// Whether some servers must be there before anything is changed.
    pub(super) fn may_wait(&self) -> bool {
        !self.servers.is_empty() || self.expected.is_some()
    }

    /// The servers that can be attached, or detached.
    pub(super) fn listed(&self, overview: &Overview) -> Vec<NodeAddress> {
        match self.kind {
            Kind::Attach => overview.detached.clone(),
            Kind::Detach => {
                overview.whs.nodes.iter().filter(|(_, active)| !*active).map(|(server, _)| *server).collect()
            }
        }
    }

    /// How the manager's view of the servers has changed as asked for: for managers that do not say what they have done.
    pub(super) fn difference(&self, before: &Overview, after: &Overview) -> Vec<NodeAddress> {
        let known = |overview: &Overview| match self.kind {
            Kind::Attach => overview.whs.active().collect::<Vec<_>>(),
            Kind::Detach => overview.whs.nodes.iter().map(|(server, _)| *server).collect(),
        };
        let (before, after) = (known(before), known(after));
        let (more, fewer) = match self.kind {
            Kind::Attach => (after, before),
            Kind::Detach => (before, after),
        };
        more.into_iter().filter(|server| !fewer.contains(server)).collect()
    }

    /// Those of the named servers that are not as asked for.
    pub(super) fn left(&self, after: &Overview) -> Vec<NodeAddress> {
        let is_left = |server: &NodeAddress| match self.kind {
            Kind::Attach => !after.whs.nodes.contains(&(*server, true)),
            Kind::Detach => after.whs.nodes.iter().any(|(known, _)| known == server),
        };
        self.servers.iter().copied().filter(is_left).collect()
    }

    /// Why `server` can be changed neither as asked for nor is so already.
    fn objection(&self, server: NodeAddress, overview: &Overview) -> Option<String> {
        let state = overview.whs.nodes.iter().find(|(known, _)| *known == server).map(|(_, active)| *active);
        let why = match (self.kind, state) {
            (Kind::Attach, Some(true)) | (Kind::Detach, Some(false)) => return None,
            (Kind::Attach, _) if overview.detached.contains(&server) => return None,
            (Kind::Attach, _) => "is not connected to the manager",
            (Kind::Detach, Some(true)) => "is active, not in fault",
            (Kind::Detach, None) => "is not in the hash space",
        };
        Some(format!("{server} {why}"))
    }

    /// Whether `server` is to be detached and is in no hash space: it cannot come to be in fault. A manager that has just
    /// been started has none, and learns it.
    fn can_never_happen(&self, server: NodeAddress, overview: &Overview) -> bool {
        let nodes = &overview.whs.nodes;
        self.kind == Kind::Detach && !nodes.is_empty() && nodes.iter().all(|(known, _)| *known != server)
    }

    /// The word for messages.
    pub(super) fn verb(&self) -> &'static str {
        match self.kind {
            Kind::Attach => "attach",
            Kind::Detach => "detach",
        }
    }
}

/// Addresses for a message.
pub(super) fn names(servers: &[NodeAddress]) -> String {
    servers.iter().map(NodeAddress::to_string).collect::<Vec<_>>().join(", ")
}

fn count(servers: usize) -> String {
    match servers {
        0 => "no server".to_owned(),
        1 => "1 server".to_owned(),
        more => format!("{more} servers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::params::Seed;

    fn node(port: u16) -> NodeAddress {
        NodeAddress::new(([127, 0, 0, 1], port).into())
    }

    /// 1 and 2 are active, 3 and 4 in fault, 4 is connected again, 5 is new.
    fn overview() -> Overview {
        let whs = Seed {
            nodes: vec![(node(1), true), (node(2), true), (node(3), false), (node(4), false)],
            ..Seed::default()
        };
        Overview { whs, detached: vec![node(4), node(5)], state: None }
    }

    fn choose(kind: Kind, servers: &[u16], expected: Option<Expected>) -> Result<Option<Vec<NodeAddress>>, Unmet> {
        MemberChange { kind, servers: servers.iter().map(|port| node(*port)).collect(), expected }.choose(&overview())
    }

    fn yet(text: &str) -> Result<Option<Vec<NodeAddress>>, Unmet> {
        Err(Unmet::Yet(text.to_owned()))
    }

    fn never(text: &str) -> Result<Option<Vec<NodeAddress>>, Unmet> {
        Err(Unmet::Never(text.to_owned()))
    }

    #[test]
    fn all_that_there_are_unless_some_are_named() {
        assert_eq!(choose(Kind::Attach, &[], None), Ok(None));
        assert_eq!(choose(Kind::Detach, &[], None), Ok(None));
    }

    #[test]
    fn named_servers_must_be_listed_or_be_so_already() {
        assert_eq!(choose(Kind::Attach, &[5, 4, 1], None), Ok(Some(vec![node(1), node(4), node(5)])));
        assert_eq!(choose(Kind::Detach, &[3], None), Ok(Some(vec![node(3)])));
        assert_eq!(
            choose(Kind::Attach, &[5, 3, 9], None),
            yet("127.0.0.1:3 is not connected to the manager, 127.0.0.1:9 is not connected to the manager")
        );
        assert_eq!(choose(Kind::Detach, &[3, 1], None), yet("127.0.0.1:1 is active, not in fault"));
    }

    #[test]
    fn as_many_as_expected_and_no_more() {
        let changes = |count| Some(Expected::Changes(count));
        assert_eq!(choose(Kind::Attach, &[], changes(2)), Ok(Some(vec![node(4), node(5)])));
        assert_eq!(
            choose(Kind::Attach, &[], changes(3)),
            yet("2 servers to attach (127.0.0.1:4, 127.0.0.1:5), 2 attached already, 3 expected")
        );
        assert_eq!(
            choose(Kind::Detach, &[], changes(1)),
            never("2 servers to detach (127.0.0.1:3, 127.0.0.1:4), 1 expected")
        );
        let nobody = MemberChange { kind: Kind::Detach, servers: BTreeSet::new(), expected: changes(1) };
        assert_eq!(nobody.choose(&Overview::default()), yet("no server to detach, 1 expected"));
    }

    #[test]
    fn a_total_counts_those_that_are_attached_already() {
        let total = |count| Some(Expected::Total(count));
        assert_eq!(choose(Kind::Attach, &[], total(4)), Ok(Some(vec![node(1), node(2), node(4), node(5)])));
        let text = "2 servers to attach (127.0.0.1:4, 127.0.0.1:5), 2 attached already";
        assert_eq!(choose(Kind::Attach, &[], total(5)), yet(&format!("{text}, 5 expected")));
        assert_eq!(choose(Kind::Attach, &[], total(3)), never(&format!("{text}, 3 expected")));
        let wanted = MemberChange { kind: Kind::Attach, servers: BTreeSet::new(), expected: total(2) };
        let settled = Overview { detached: Vec::new(), ..overview() };
        assert_eq!(
            wanted.choose(&settled),
            Ok(Some(vec![node(1), node(2)])),
            "all are attached: nothing is to be done"
        );
    }

    #[test]
    fn a_server_of_no_hash_space_is_not_waited_for_unless_the_manager_has_none_yet() {
        let text = "127.0.0.1:1 is active, not in fault, 127.0.0.1:5 is not in the hash space";
        assert_eq!(choose(Kind::Detach, &[3, 1, 5], None), never(text));
        let wanted = MemberChange { kind: Kind::Detach, servers: [node(5)].into(), expected: None };
        assert_eq!(wanted.choose(&Overview::default()), yet("127.0.0.1:5 is not in the hash space"));
    }

    #[test]
    fn what_a_manager_of_2010_has_done_is_seen_in_its_hash_space() {
        let mut after = overview();
        after.whs.nodes = vec![(node(1), true), (node(2), false), (node(4), true), (node(5), true)];
        let wanted = |kind| MemberChange { kind, servers: BTreeSet::new(), expected: None };
        assert_eq!(wanted(Kind::Attach).difference(&overview(), &after), [node(4), node(5)]);
        assert_eq!(wanted(Kind::Detach).difference(&overview(), &after), [node(3)]);
    }
}
