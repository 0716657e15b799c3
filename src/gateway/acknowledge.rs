//! The answer to a write that its server has done. While a flush is under way it waits, and what the flush hides is
//! written again first.

use std::time::Duration;

use tokio::time::Instant;

use super::change::Reward;
use super::failure::Failure;
use super::job::Reply;
use super::outcome::Outcome;
use crate::client::Swapped;
use crate::clock::ClockTime;
use crate::env::Backoff;

/// The first pause before what a flush hides is written again, at most.
const REWRITE_PAUSE: Duration = Duration::from_millis(1);
/// The longest such pause.
const REWRITE_PAUSE_MAX: Duration = Duration::from_millis(250);

/// Whether the answer to a write that is done at `clocktime` must wait, see [`acknowledge`].
pub(super) fn must_wait(reply: &Reply, clocktime: ClockTime) -> bool {
    reply.shared.flushes.is_under_way() || reply.is_hidden(clocktime)
}

/// Answers a write of `data`, tried since `started` and done at `clocktime`, when no flush can hide it any more.
///
/// A flush that was under way meanwhile may have come after it on its server, but its client learns of both in the other
/// order, and must find what it has written. So it is written again, behind the flush, unless somebody else has already
/// overwritten it.
pub(super) async fn acknowledge(reply: Reply, mut clocktime: ClockTime, data: &[u8], reward: Reward, started: Instant) {
    let shared = reply.shared.clone();
    let (config, mut backoff) = (&shared.config, Backoff::new(REWRITE_PAUSE, REWRITE_PAUSE_MAX));
    shared.flushes.settled().await;
    while reply.is_hidden(clocktime) {
        let left = config.set_limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            return reply.answer(&Outcome::Failed(Failure::Hidden));
        }
        let body = (reward.meta(config.rules.layout), data);
        match shared.router.swap(&reply.key, clocktime, body, left, None).await {
            Ok(Swapped::At(later)) => clocktime = later,
            Ok(Swapped::Overwritten | Swapped::Mismatch) => break,
            Err(error) => return reply.fail(&error, Some(data)),
        }
        shared.flushes.settled().await;
        if reply.is_hidden(clocktime) {
            // Another flush came, or the server's clock lags: it learns those of others in a while.
            backoff.pause(&shared.env).await;
        }
    }
    reply.answer(&reward.outcome(clocktime, data, &config.rules));
}
