//! The course of one replace: who still has to copy, then who still has to delete.
//!
//! Pure; what the phases are for is in the protocol, section 8.

use std::collections::BTreeSet;

use crate::clock::ClockTime;
use crate::wire::NodeAddress;
use crate::wire::params::Seed;

/// What the servers of a replace are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Sending records to their new owners.
    Copy,
    /// Deleting what they own no longer.
    Delete,
}

/// A replace under way.
#[derive(Debug, Clone)]
pub(super) struct Replace {
    seed: Seed,
    full: bool,
    phase: Phase,
    servers: BTreeSet<NodeAddress>,
    waiting: BTreeSet<NodeAddress>,
    /// A server has not done its part.
    incomplete: bool,
}

impl Replace {
    /// Begins the copying by `servers` towards `seed`.
    pub(super) fn new(seed: Seed, full: bool, servers: BTreeSet<NodeAddress>) -> Self {
        Self { seed, full, phase: Phase::Copy, waiting: servers.clone(), servers, incomplete: false }
    }

    pub(super) fn seed(&self) -> &Seed {
        &self.seed
    }

    /// Whether every server copies every record to all its owners.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn servers(&self) -> &BTreeSet<NodeAddress> {
        &self.servers
    }

    /// Whether some server has not done its part, so that it should all be run again.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Whether `server` has still to report the end of `phase` for the hash space of `clocktime`.
    pub(super) fn awaits(&self, server: NodeAddress, phase: Phase, clocktime: ClockTime) -> bool {
        self.phase == phase && self.seed.clocktime == clocktime && self.waiting.contains(&server)
    }

    /// `server` has ended the phase. Says whether it was the last; a report that nobody awaits changes nothing.
    pub(super) fn ended(&mut self, server: NodeAddress, phase: Phase, clocktime: ClockTime) -> bool {
        self.awaits(server, phase, clocktime) && self.waiting.remove(&server) && self.waiting.is_empty()
    }

    /// Begins the deleting by all that have copied.
    pub(super) fn delete(&mut self) {
        self.phase = Phase::Delete;
        self.waiting = self.servers.clone();
    }

    /// `server` will not do its part. Says whether it was the last awaited.
    pub(super) fn refused(&mut self, server: NodeAddress) -> bool {
        self.incomplete = true;
        self.forget(server)
    }

    /// `server` is gone and will report nothing. Says whether it was the last awaited.
    pub(super) fn forget(&mut self, server: NodeAddress) -> bool {
        self.servers.remove(&server);
        self.waiting.remove(&server) && self.waiting.is_empty()
    }
}
