//! A compare-and-swap of a change, also where an original server has deleted the key. Does not decide what is swapped.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::change::{ABSENT, expired};
use super::item::Rules;
use crate::client::{Error, RawKey, Router, Stored, Swapped};
use crate::clock::ClockTime;
use crate::wire::params::SetOp;

/// Swaps in a record of this meta and data; over what an original server has deleted, where it takes no swap, in the way that comes next to it.
///
/// With `-E` an item that has expired already is set in the tombstone's place, and can be swapped from then on: of several
/// gateways that have set one, one wins. Without, the value itself must be set. Either overwrites what somebody else may
/// have written since the tombstone was seen, about one exchange with the server ago: no request can exclude that there.
pub(super) async fn swap(
    router: &Arc<Router>,
    rules: &Rules,
    key: &RawKey,
    expected: ClockTime,
    record: (u16, &[u8]),
    limit: Duration,
) -> Result<Swapped, Error> {
    let started = Instant::now();
    let left = || limit.saturating_sub(started.elapsed());
    let swapped = router.swap(key, expected, record, limit, None).await?;
    let refused = swapped == Swapped::Mismatch && expected == ABSENT;
    if !refused || !router.is_deleted_on_original(key, left()).await {
        return Ok(swapped);
    }
    match expired(rules) {
        Some(expired) => {
            let meta = rules.layout.meta();
            match router.set(key, SetOp::Sync, (meta, &expired), left(), None).await? {
                Stored::At(expected) => router.swap(key, expected, record, left(), None).await,
                Stored::Overwritten => Ok(Swapped::Mismatch),
            }
        }
        None => router.set(key, SetOp::Sync, record, left(), None).await.map(Swapped::from),
    }
}
