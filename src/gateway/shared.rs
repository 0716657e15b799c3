//! All that the connections of a gateway share: its settings, the way to the servers, its memory, counters and flushes.
//! Knows no connection.

use std::sync::Arc;

use super::config::Config;
use super::flushes::Flushes;
use super::holdings::Holdings;
use super::item_locks::ItemLocks;
use super::stats::Stats;
use crate::binlog::Binlog;
use crate::client::{Options, Router};
use crate::env::Env;
use crate::net::budget::Budget;
use crate::time::Moment;
use crate::wire::params::SetOp;

/// The share of the memory of all connections that the values on their way from servers may have together. All of them are
/// read before the answer to what is asked next, so it is also how long that takes.
const ASKED_SHARE: usize = 8;

/// The state that all connections of a gateway share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) config: Config,
    pub(super) router: Arc<Router>,
    /// Bytes that the requests and answers of all connections hold.
    pub(super) budget: Arc<Budget>,
    /// Bytes of values that servers have been asked for, and have not answered.
    pub(super) asked: Arc<Budget>,
    pub(super) flushes: Arc<Flushes>,
    pub(super) item_locks: ItemLocks,
    pub(super) stats: Stats,
    pub(super) holdings: Holdings,
    pub(super) binary_log: Binlog,
    pub(super) started: Moment,
}

impl Shared {
    /// The state of a gateway that starts now: from here on it follows the managers.
    pub(super) fn new(env: &Env, config: Config, binary_log: Binlog) -> Arc<Self> {
        let options = Options {
            connect_timeout: config.connect_timeout,
            call_timeout: config.call_timeout,
            renew_threshold: config.renew_threshold,
            follow_interval: config.keepalive_interval,
            ..Options::default()
        };
        let router = Router::new(env, config.managers.clone(), options);
        Arc::new(Self {
            env: env.clone(),
            budget: Arc::new(Budget::new(config.limits.memory)),
            asked: Arc::new(Budget::new(config.limits.memory / ASKED_SHARE)),
            flushes: Arc::new(Flushes::new(&router, config.set_limit)),
            router,
            item_locks: ItemLocks::default(),
            stats: Stats::default(),
            holdings: Holdings::default(),
            binary_log,
            started: env.time().now(),
            config,
        })
    }

    /// Unix seconds now.
    pub(super) fn unix_seconds(&self) -> u32 {
        self.env.time().unix_seconds()
    }

    /// Seconds since the start, at least one.
    pub(super) fn uptime_seconds(&self) -> u32 {
        let uptime = self.env.time().elapsed(self.started);
        u32::try_from(uptime.as_secs()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Whether a server answers a set before its replicas have the value.
    pub(super) fn set_op(&self) -> SetOp {
        if self.config.async_set { SetOp::Async } else { SetOp::Sync }
    }
}
