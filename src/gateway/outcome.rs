//! The outcomes of requests, independent of the protocol they came in. Knows neither bytes on the wire nor the cluster.

use super::failure::Failure;
use super::item::Item;
use crate::clock::ClockTime;

/// The answer to `version`: the memcached whose protocol this is, which is what clients compare, and this program.
pub const VERSION: &str = concat!("1.6.18-kumo-server-", env!("CARGO_PKG_VERSION"));

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The item that was asked for.
    Found(Item<'a>),
    /// There was no such item; an empty one has its place, and this client is to store it.
    Created(Item<'a>),
    /// There is no such item, for a read.
    Missing,
    /// Written; the clocktime is the new CAS unique.
    Stored(ClockTime),
    /// The condition of an add, replace, append or prepend did not hold.
    NotStored,
    /// The CAS unique given is not the item's.
    Exists,
    /// There is no such item, for a change.
    NotFound,
    /// The new number of an increment or decrement, with its item: the data is the number in decimal.
    Number(u64, Item<'a>),
    /// Its expiry is as wanted.
    Touched(Item<'a>),
    /// It was there and is no more.
    Deleted,
    /// Done, with nothing to say about it.
    Done,
    /// [`VERSION`].
    Version,
    /// `stats`: names and values, in order.
    Stats(Vec<(String, String)>),
    /// The counters of `stats` are set back.
    Reset,
    /// Refused or failed; nothing is known to be changed unless the failure says so.
    Failed(Failure),
}
