//! What a gateway counts, and how `stats` shows it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use super::Shared;
use super::layout::FlagBytes;
use super::outcome::{Failure, Outcome, VERSION};
use crate::clock::unix_seconds;

/// Counters since the start, or since they were set back.
#[derive(Debug)]
pub(super) struct Stats {
    started: Instant,
    gets: AtomicU64,
    hits: AtomicU64,
    writes: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    /// Changes that were decided anew because somebody else had changed the item.
    pub(super) contended: AtomicU64,
    /// Items read that a gateway with another layout has written.
    foreign: AtomicU64,
    /// Connections accepted so far.
    pub(super) connections: AtomicU64,
    /// Connections turned away.
    pub(super) rejected: AtomicU64,
    /// Flushes done.
    pub(super) flushes: AtomicU64,
    /// Second of the last warning.
    warned: AtomicU32,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            gets: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            contended: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            warned: AtomicU32::new(0),
        }
    }

    /// One more.
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request on a key by what became of it.
    pub(super) fn count(&self, outcome: &Outcome<'_>, writes: bool) {
        Self::add(if writes { &self.writes } else { &self.gets });
        match outcome {
            Outcome::Found(_) if !writes => Self::add(&self.hits),
            Outcome::Failed(
                Failure::Unavailable | Failure::Partial | Failure::Unknown | Failure::Hidden | Failure::Contended,
            ) => {
                Self::add(&self.failed);
            }
            Outcome::Failed(Failure::Overloaded) => Self::add(&self.refused),
            _ => {}
        }
    }

    /// Counts an item that a gateway with another layout has written; says whether it is the first.
    pub(super) fn count_foreign(&self) -> bool {
        self.foreign.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Whether a warning about a request is due: one in a second is enough.
    pub(super) fn may_warn(&self, now: u32) -> bool {
        self.warned.swap(now, Ordering::Relaxed) != now
    }

    /// Sets all counters of requests back.
    fn reset(&self) {
        for counter in
            [&self.gets, &self.hits, &self.writes, &self.failed, &self.refused, &self.contended, &self.flushes]
        {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// The answer to `stats`.
pub(super) fn show(shared: &Shared, section: &[u8]) -> Outcome<'static> {
    match section {
        b"" => Outcome::Stats(general(shared)),
        b"settings" => Outcome::Stats(settings(shared)),
        // Items are the servers' affair; see `stat`.
        b"items" | b"slabs" | b"sizes" | b"conns" => Outcome::Stats(Vec::new()),
        b"reset" => {
            shared.stats.reset();
            Outcome::Reset
        }
        _ => Outcome::Failed(Failure::UnknownCommand),
    }
}

fn row(name: &str, value: impl std::fmt::Display) -> (String, String) {
    (name.to_owned(), format!("{value}"))
}

fn general(shared: &Shared) -> Vec<(String, String)> {
    let stats = &shared.stats;
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let routes = shared.router.routes();
    let (gets, hits) = (value(&stats.gets), value(&stats.hits));
    vec![
        row("pid", std::process::id()),
        row("uptime", stats.started.elapsed().as_secs()),
        row("time", unix_seconds()),
        row("version", VERSION),
        row("pointer_size", usize::BITS),
        row("curr_connections", shared.open_connections()),
        row("total_connections", value(&stats.connections)),
        row("rejected_connections", value(&stats.rejected)),
        row("max_connections", shared.config.limits.connections),
        row("cmd_get", gets),
        row("cmd_set", value(&stats.writes)),
        row("cmd_flush", value(&stats.flushes)),
        row("get_hits", hits),
        row("get_misses", gets.saturating_sub(hits)),
        row("failed_requests", value(&stats.failed)),
        row("refused_requests", value(&stats.refused)),
        row("contended_changes", value(&stats.contended)),
        row("foreign_layout_items", value(&stats.foreign)),
        row("bytes_in_flight", shared.budget.held()),
        row("limit_in_flight", shared.config.limits.memory),
        row("servers_active", routes.whs().active_nodes().count()),
        row("servers_suspect", routes.suspects()),
        row("hash_space_whs", routes.whs().clocktime()),
        row("hash_space_rhs", routes.rhs().clocktime()),
    ]
}

fn settings(shared: &Shared) -> Vec<(String, String)> {
    let config = &shared.config;
    let yes = |on: bool| if on { "yes" } else { "no" };
    let managers = config.managers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let listen = config.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    vec![
        row("managers", managers),
        row("inter", listen),
        row("domain_socket", config.unix.as_ref().map_or("NULL".to_owned(), |path| path.display().to_string())),
        row("maxconns", config.limits.connections),
        row("item_size_max", config.rules.value_limit),
        row("flags_kept", yes(config.rules.layout.flags != FlagBytes::Zero)),
        row("flag_bytes", config.rules.layout.flags as u16),
        row("expiry_kept", yes(config.rules.layout.expiry)),
        row("key_prefix", config.key_prefix.escape_ascii()),
        row("async_replicate_set", yes(config.async_set)),
        row("async_replicate_delete", yes(config.async_delete)),
        row("flush_enabled", yes(config.allow_flush)),
        row("cas_enabled", "yes"),
    ]
}
