//! A record as a client sees it: hidden if it has expired or been flushed. Reads nothing itself.

use super::change::Current;
use super::failure::Failure;
use super::item::Item;
use super::layout::Layout;
use super::outcome::Outcome;
use super::shared::Shared;
use super::stats::Stats;
use crate::client::Found;
use crate::clock::ClockTime;
use crate::wire::RecordValue;

/// The outcome of a read of the key with this hash.
pub(super) fn of_read<'v>(found: &'v Found, hash: u64, shared: &Shared) -> Outcome<'v> {
    found.as_ref().map_or(Outcome::Missing, |record| of_record(hash, current(record), shared))
}

/// The outcome of a read of the key with this hash, from a server's answer as it is.
pub(super) fn of_value<'v>(value: Option<RecordValue<'v>>, hash: u64, shared: &Shared) -> Outcome<'v> {
    value.map_or(Outcome::Missing, |value| of_record(hash, (value.clocktime(), value.meta(), value.data()), shared))
}

/// A record that was read.
pub(super) fn current((clocktime, meta, data): &(ClockTime, u16, Vec<u8>)) -> Current<'_> {
    (*clocktime, *meta, data)
}

fn of_record<'v>(hash: u64, (clocktime, meta, data): Current<'v>, shared: &Shared) -> Outcome<'v> {
    compare_layouts(meta, shared);
    let item = Item::decode(clocktime, meta, data, &shared.config.rules);
    // Most need not ask for the time.
    let expired = item.expires != 0 && item.is_expired(shared.unix_seconds());
    let flushed = shared.flushes.hides(hash, clocktime);
    if flushed {
        Stats::add(&shared.stats.flushed);
    } else if expired {
        Stats::add(&shared.stats.expired);
    }
    let gone = expired || flushed;
    if gone { Outcome::Missing } else { Outcome::Found(item) }
}

/// The outcome of a deletion, which `found` something or not; `refused` is the answer if there is one already.
pub(super) fn of_deletion(found: bool, refused: Option<Failure>) -> Outcome<'static> {
    refused.map_or(if found { Outcome::Deleted } else { Outcome::NotFound }, Outcome::Failed)
}

/// Counts a record that a gateway with another layout has written; the first is in the log.
pub(super) fn compare_layouts(meta: u16, shared: &Shared) {
    let own = shared.config.rules.layout;
    if shared.config.rules.disagrees(meta) && shared.stats.count_foreign() {
        let other = Layout::of(meta).map_or("without --flag-bytes 4".to_owned(), |other| format!("with {other}"));
        tracing::warn!(
            "an item was written by a gateway {other}, this one runs with {own}: all gateways of a cluster should have \
             the same (foreign_layout_items of stats says how many such items were read)"
        );
    }
}
