//! Whose address is whose, and which servers were refused lately because they announce another machine's. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::register::{Claims, Machine};
use crate::time::Moment;
use crate::wire::NodeAddress;

/// Refused servers that are remembered.
const REFUSED: usize = 64;
/// How long one is shown after it was last heard.
const SHOWN_SECONDS: u64 = 60;

/// A server that is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused {
    /// The machine that announces the address.
    pub(super) machine: Machine,
    /// The machine that has it; `None`: it is a loopback address.
    pub(super) owner: Option<Machine>,
    heard: Moment,
}

/// Whose address is whose, and who was refused lately.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    pub(super) claims: Claims,
    refused: BTreeMap<(NodeAddress, IpAddr), Refused>,
}

impl Addresses {
    /// Those that were refused lately, with the address that each announces.
    pub(super) fn refused(&self, now: Moment) -> impl Iterator<Item = (NodeAddress, Refused)> {
        let lately = move |refused: &Refused| now.since(refused.heard).as_secs() < SHOWN_SECONDS;
        self.refused.iter().filter(move |(_, refused)| lately(refused)).map(|((node, _), refused)| (*node, *refused))
    }

    /// Notes a server that is refused.
    pub(super) fn refuse(&mut self, node: NodeAddress, machine: Machine, owner: Option<Machine>, now: Moment) {
        let key = (node, machine.ip);
        while self.refused.len() >= REFUSED && !self.refused.contains_key(&key) {
            self.refused.pop_first();
        }
        self.refused.insert(key, Refused { machine, owner, heard: now });
    }
}
