//! Sending a stream, or a batch of deletions, to its target, with a bounded number of tries.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::context::Context;
use super::fill::Tombstone;
use super::plan::Plan;
use crate::env::Backoff;
use crate::net::{OFFER_STEPS, STEPS};
use crate::server::stream::{self, Chunk};
use crate::wire::NodeAddress;
use crate::wire::method::{ErrorCode, ReplaceOffer, ReplicateDelete};

/// How often a stream is offered again after the first time.
const OFFER_RETRIES: u32 = 3;
/// How often a deletion is sent again.
const TOMBSTONE_RETRIES: u32 = 20;
/// The longest pause before a stream is offered again for the first time.
const OFFER_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause before a deletion is sent again for the first time.
const TOMBSTONE_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between later tries of either.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why a target has not taken what was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undelivered {
    #[error("offer: {0}")]
    Refused(ErrorCode),
    #[error("the offer was answered but the stream not fetched")]
    NotFetched,
    #[error("the stream was not fetched in {} s", .0.as_secs())]
    NeverCame(Duration),
    #[error("another offer to this target has taken its place")]
    Superseded,
    #[error("stream: {0}")]
    Stream(#[from] stream::Error),
    #[error("{0} deletions not stored by the target")]
    Tombstones(usize),
}

/// Offers a stream until the target has taken all of it.
pub(super) async fn chunk(context: &Context, target: NodeAddress, chunk: Chunk) -> Result<(), Undelivered> {
    let chunk = Arc::new(chunk);
    let (mut attempt, mut backoff) = (0, Backoff::new(OFFER_PAUSE, PAUSE_MAX));
    loop {
        match offer(context, target, &chunk).await {
            Ok(()) => {
                context.progress.sent.add(usize::try_from(chunk.records()).unwrap_or(usize::MAX));
                tracing::debug!(%target, records = chunk.records(), bytes = chunk.bytes(), "stream delivered");
                return Ok(());
            }
            Err(error) if attempt == OFFER_RETRIES => return Err(error),
            Err(error) => tracing::warn!(%target, attempt, "{error}; offering again"),
        }
        backoff.pause(context.host.env()).await;
        attempt += 1;
    }
}

async fn offer(context: &Context, target: NodeAddress, chunk: &Arc<Chunk>) -> Result<(), Undelivered> {
    let silence = context.settings.silence;
    let mut offer = context.offers.open(target);
    let session = context.host.peers().session(target);
    let answer =
        session.ask(&ReplaceOffer { stream: context.stream_address, fence: context.host.fence() }, OFFER_STEPS);
    // The original never answers an offer; that the stream is acknowledged is what counts.
    let stream = tokio::select! {
        biased;
        stream = offer.taken() => stream.ok_or(Undelivered::Superseded)?,
        answer = answer => return Err(answer.err().map_or(Undelivered::NotFetched, Undelivered::Refused)),
        () = sleep(silence) => return Err(Undelivered::NeverCame(silence)),
    };
    Ok(stream::send(context.host.env(), stream, chunk, silence).await?)
}

/// Tells deletions to their targets until all are answered.
pub(super) async fn tombstones(context: &Context, plan: &Plan, mut batch: Vec<Tombstone>) -> Result<(), Undelivered> {
    let count = batch.len();
    let (mut attempt, mut backoff) = (0, Backoff::new(TOMBSTONE_PAUSE, PAUSE_MAX));
    loop {
        batch = tell(context, plan, batch).await;
        if batch.is_empty() {
            context.progress.tombstones.add(count);
            return Ok(());
        }
        if attempt == TOMBSTONE_RETRIES {
            return Err(Undelivered::Tombstones(batch.len()));
        }
        backoff.pause(context.host.env()).await;
        attempt += 1;
    }
}

/// Sends each deletion once; returns those that were not taken.
async fn tell(context: &Context, plan: &Plan, batch: Vec<Tombstone>) -> Vec<Tombstone> {
    let (sender, mut refused) = mpsc::unbounded_channel();
    for tombstone in batch {
        let Some(target) = plan.all_targets().get(tombstone.target) else { continue };
        let (clock, clocktime, key) = (context.host.clock().take(), tombstone.clocktime, tombstone.key.clone());
        let call = ReplicateDelete { clock, flags: 0, clocktime, key: &key, fence: context.host.fence() };
        let sender = sender.clone();
        // True and false are both fine: the target has it, or something newer.
        let on_reply = move |answer: Result<&[u8], ErrorCode>| {
            if answer.is_err() {
                let _ = sender.send(tombstone);
            }
        };
        context.host.peers().session(*target).call(&call, STEPS, Box::new(on_reply));
    }
    drop(sender);
    let mut left = Vec::new();
    while let Some(tombstone) = refused.recv().await {
        left.push(tombstone);
    }
    left
}
