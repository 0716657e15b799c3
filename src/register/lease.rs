//! Leases: how long a server may act by its configuration, and what a voter has confirmed to others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::configuration::{Configuration, Version, Voter};
use crate::time::Moment;

/// The confirmations that a server has received.
#[derive(Debug, Clone, Default)]
pub struct Lease {
    version: Version,
    /// Until when each voter's last confirmation holds.
    until: BTreeMap<Voter, Moment>,
}

impl Lease {
    /// `voter` has confirmed `version`, in answer to a question that left at `sent`; that holds for `lease`.
    pub fn confirmed(&mut self, version: Version, voter: Voter, sent: Moment, lease: Duration) {
        if self.version != version {
            // One for an earlier version comes late.
            if self.version.is_after(version) {
                return;
            }
            *self = Self { version, until: BTreeMap::new() };
        }
        let until = self.until.entry(voter).or_insert(Moment::from_nanos(0));
        *until = (*until).max(sent + lease);
    }

    /// Until when this server may act by `configuration`; never, if a majority has not confirmed it. `own` is its own
    /// vote, which it gives itself as long as the caller asks: not once it has accepted a successor.
    pub fn until(&self, configuration: &Configuration, own: Voter) -> Moment {
        let never = Moment::from_nanos(0);
        let mut ends: Vec<Moment> = configuration
            .voters
            .iter()
            .map(|voter| match self.until.get(voter) {
                _ if *voter == own => Moment::from_nanos(u64::MAX),
                Some(until) if self.version == configuration.version() => *until,
                _ => never,
            })
            .collect();
        // The latest moment at which a majority still holds.
        ends.sort_unstable_by(|one, other| other.cmp(one));
        ends.get(configuration.majority().saturating_sub(1)).copied().unwrap_or(never)
    }
}

impl Lease {
    /// The voters of `configuration`, but `own`, whose confirmation does not hold at `now`.
    pub fn missing(&self, configuration: &Configuration, own: Voter, now: Moment) -> Vec<Voter> {
        let holds = |voter: &Voter| {
            self.version == configuration.version() && self.until.get(voter).is_some_and(|until| *until > now)
        };
        configuration.voters.iter().copied().filter(|voter| *voter != own && !holds(voter)).collect()
    }
}

/// The confirmations that a voter has given to servers: until when their leases may rest on it.
#[derive(Debug, Clone, Default)]
pub struct Confirmations(BTreeMap<u64, Moment>);

impl Confirmations {
    /// Confirms to the server with `store`, whose question came at `now`, for `lease`: it was sent no later.
    pub fn confirm(&mut self, store: u64, now: Moment, lease: Duration) {
        self.0.insert(store, now + lease);
    }

    /// A voter that remembers nothing may have confirmed anything until just now.
    pub fn forget(stores: impl IntoIterator<Item = u64>, now: Moment, lease: Duration) -> Self {
        Self(stores.into_iter().map(|store| (store, now + lease)).collect())
    }

    /// Leases of `stores` that rest on this voter and may last after `now`, and for how many milliseconds.
    pub fn lasting(&self, stores: &BTreeSet<u64>, now: Moment) -> Vec<(u64, u64)> {
        let millis = |until: Moment| u64::try_from(until.since(now).as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        let ends = stores.iter().filter_map(|store| Some((*store, *self.0.get(store)?)));
        ends.filter(|(_, until)| *until > now).map(|(store, until)| (store, millis(until))).collect()
    }
}
