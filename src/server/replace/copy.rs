//! The copy phase: what the gatherer has filled is delivered, all targets at a time.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::context::{Context, Failure, Settling, TOMBSTONE_LEASE};
use super::deliver::{self, Undelivered};
use super::gather::{Gatherer, Shipment};
use super::job::Job;
use super::plan::Plan;
use crate::env::{Gone, Group};

/// How often it is checked that the hash space is still the one that is copied for.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The end of a shipment; `Some` names the target whose stream it was.
type Delivery = (Option<usize>, Result<(), Undelivered>);

/// Copies what others need. An error means that not everything has arrived: nothing may be deleted.
///
/// Records that are written here until all is settled are looked at again. Dropping the future cancels.
pub(super) async fn run(
    context: &Arc<Context>,
    job: &Job,
    plan: &Arc<Plan>,
    settling: Settling,
) -> Result<(), Failure> {
    if plan.all_targets().is_empty() {
        return Ok(());
    }
    let failed: Vec<_> = plan.all_targets().iter().map(|_| Arc::new(AtomicBool::new(false))).collect();
    let (sender, mut shipments) = mpsc::channel(1);
    let gatherer = Gatherer::new(context.clone(), plan.clone(), &failed, sender);
    let mut gathering = pin!(gatherer.run(job.generation, settling));
    let mut deliveries: Group<Delivery> = Group::new(context.host.env());
    let mut failures = 0;
    let mut all_gathered = false;
    let mut checks = tokio::time::interval(CHECK_INTERVAL);
    while !all_gathered || !shipments.is_closed() || !shipments.is_empty() || !deliveries.is_empty() {
        tokio::select! {
            biased;
            Some(shipment) = shipments.recv() => {
                deliveries.add(deliver(context.clone(), plan.clone(), shipment));
            }
            Some(delivery) = deliveries.next() => {
                failures += usize::from(!settle(context, plan, &failed, delivery));
            }
            result = &mut gathering, if !all_gathered => {
                result?;
                all_gathered = true;
            }
            _ = checks.tick() => {
                check_current(context, job)?;
                context.host.store().hold_tombstones(TOMBSTONE_LEASE);
            }
        }
    }
    check_current(context, job)?;
    // What is taken for copied may be deleted elsewhere.
    let lost = failed.iter().filter(|flag| flag.load(Ordering::Relaxed)).count();
    assert!(failures >= lost, "streams to {lost} targets have failed, but {failures} failures are counted");
    if failures > 0 { Err(Failure::Undelivered(failures)) } else { Ok(()) }
}

/// A newer hash space means that a server was lost or has come: the copy is void.
fn check_current(context: &Context, job: &Job) -> Result<(), Failure> {
    let (whs, _) = context.host.spaces();
    if whs.clocktime() == job.new.clocktime { Ok(()) } else { Err(Failure::Void) }
}

async fn deliver(context: Arc<Context>, plan: Arc<Plan>, shipment: Shipment) -> Delivery {
    match shipment {
        Shipment::Chunk { target, chunk, permit } => {
            let result = match plan.all_targets().get(target) {
                Some(address) => deliver::chunk(&context, *address, chunk).await,
                None => Ok(()),
            };
            drop(permit);
            (Some(target), result)
        }
        Shipment::Tombstones { batch, permit } => {
            let result = deliver::tombstones(&context, &plan, batch).await;
            drop(permit);
            (None, result)
        }
    }
}

/// Notes how a delivery has ended; says whether it ended well.
fn settle(context: &Context, plan: &Plan, failed: &[Arc<AtomicBool>], delivery: Result<Delivery, Gone>) -> bool {
    let (target, result) = match delivery {
        Ok(delivery) => delivery,
        // A panic: what it was about is not known, so nothing counts as copied.
        Err(error) => {
            context.progress.failed.add(1);
            tracing::error!(%error, "delivery task panicked");
            return false;
        }
    };
    let Err(error) = result else { return true };
    context.progress.failed.add(1);
    let address = target.and_then(|target| plan.all_targets().get(target));
    tracing::error!(target = address.map(tracing::field::display), "not copied: {error}");
    if let Some(flag) = target.and_then(|target| failed.get(target)) {
        flag.store(true, Ordering::Relaxed);
    }
    false
}
