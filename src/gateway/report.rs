//! The rows of `stats`, under the names that memcached and what watches it use. The counters are in `stats`, what the
//! servers hold in `holdings`.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use super::config::Config;
use super::holdings::Held;
use super::layout::FlagBytes;
use super::outcome::VERSION;
use super::stats::{Fate, Kind, Stats};
use crate::client::Router;
use crate::net::budget::Budget;

/// Names and values, in order.
pub(super) type Rows = Vec<(String, String)>;

/// Counters of memcached that are always zero here: nothing is evicted or reclaimed, memory is not divided into
/// slabs, listening does not pause, and nobody authenticates.
const NOTHING: [&str; 12] = [
    "auth_cmds",
    "auth_errors",
    "conn_yields",
    "evicted_active",
    "evicted_unfetched",
    "evictions",
    "expired_unfetched",
    "hash_bytes",
    "limit_maxbytes",
    "listen_disabled_num",
    "reclaimed",
    "slabs_moved",
];

/// The parts of a gateway that are shown.
pub(super) struct Gateway<'a> {
    pub(super) config: &'a Config,
    pub(super) stats: &'a Stats,
    pub(super) budget: &'a Budget,
    pub(super) router: &'a Router,
    /// How long it has run.
    pub(super) uptime: Duration,
    /// Connections that are open.
    pub(super) open: usize,
}

fn row(name: &str, value: impl Display) -> (String, String) {
    (name.to_owned(), value.to_string())
}

/// The counters of this gateway, and the state it is in.
pub(super) fn general(of: &Gateway<'_>) -> Rows {
    let (open, connections) = (of.open, of.config.limits.connections);
    let (user, system) = processor_time();
    let mut rows = vec![
        row("pid", std::process::id()),
        row("uptime", of.uptime.as_secs()),
        row("time", of.router.env().time().unix_seconds()),
        row("version", VERSION),
        row("pointer_size", usize::BITS),
        row("rusage_user", user),
        row("rusage_system", system),
        row("max_connections", connections),
        row("curr_connections", open),
        row("connection_structures", open),
        row("accepting_conns", u8::from(open < connections)),
        row("threads", network_threads()),
    ];
    rows.extend(requests(of.stats));
    rows.extend(NOTHING.map(|name| row(name, 0)));
    let (routes, budget) = (of.router.routes(), of.budget);
    rows.extend([
        row("bytes_in_flight", budget.held()),
        row("limit_in_flight", of.config.limits.memory),
        row("servers_active", routes.whs().active_nodes().count()),
        row("servers_suspect", routes.suspects()),
        row("hash_space_whs", routes.whs().clocktime()),
        row("hash_space_rhs", routes.rhs().clocktime()),
    ]);
    rows
}

/// The counters of requests.
fn requests(stats: &Stats) -> Rows {
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (get, store, swap) = (Kind::Get, Kind::Store, Kind::Swap);
    let both = |fate| stats.of(store, fate).saturating_add(stats.of(swap, fate));
    let mut rows = vec![
        row("total_connections", value(&stats.connections)),
        row("rejected_connections", value(&stats.rejected)),
        row("cmd_get", stats.all_of(get)),
        row("cmd_set", stats.all_of(store).saturating_add(stats.all_of(swap))),
        row("cmd_flush", value(&stats.flushes)),
        row("cmd_touch", stats.all_of(Kind::Touch)),
        row("get_expired", value(&stats.expired)),
        row("get_flushed", value(&stats.flushed)),
        row("cas_badval", stats.of(swap, Fate::Differs)),
        row("store_too_large", stats.all_that(Fate::TooLarge).saturating_add(value(&stats.oversized))),
        row("store_no_memory", both(Fate::Refused)),
        row("total_items", stats.stored()),
        row("bytes_read", value(&stats.bytes_read)),
        row("bytes_written", value(&stats.bytes_written)),
        row("failed_requests", stats.all_that(Fate::Failed)),
        row("refused_requests", stats.all_that(Fate::Refused)),
        row("contended_changes", value(&stats.contended)),
        row("foreign_layout_items", stats.foreign()),
    ];
    for (name, kind) in [
        ("get", get),
        ("delete", Kind::Delete),
        ("incr", Kind::Increment),
        ("decr", Kind::Decrement),
        ("cas", swap),
        ("touch", Kind::Touch),
    ] {
        rows.push(row(&format!("{name}_hits"), stats.of(kind, Fate::Hit)));
        // A deletion that finds another CAS unique is a miss to memcached.
        let differing = if kind == Kind::Delete { stats.of(kind, Fate::Differs) } else { 0 };
        rows.push(row(&format!("{name}_misses"), stats.of(kind, Fate::Miss).saturating_add(differing)));
    }
    rows
}

/// The contents of the servers.
pub(super) fn cluster(held: Held) -> [(String, String); 2] {
    [row("curr_items", held.items), row("bytes", held.bytes)]
}

/// `stats slabs`: no class is in use.
pub(super) fn slabs() -> Rows {
    vec![row("active_slabs", 0), row("total_malloced", 0)]
}

/// `stats sizes`: not gathered.
pub(super) fn sizes() -> Rows {
    vec![row("sizes_status", "disabled")]
}

/// Threads that drive connections.
#[allow(clippy::disallowed_methods, reason = "looks at the runtime, starts nothing")]
fn network_threads() -> usize {
    Handle::current().metrics().num_workers()
}

/// `stats settings`: memcached's names where they mean something, then this gateway's own.
pub(super) fn settings(config: &Config) -> Rows {
    let yes = |on: bool| if on { "yes" } else { "no" };
    let managers = config.managers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let listen = config.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    vec![
        row("maxbytes", 0),
        row("maxconns", config.limits.connections),
        row("tcpport", config.listen.first().map_or(0, |listen| listen.port())),
        row("udpport", 0),
        row("inter", listen),
        row("evictions", "off"),
        row("domain_socket", config.unix.as_ref().map_or("NULL".to_owned(), |path| path.display().to_string())),
        row("num_threads", network_threads()),
        row("detail_enabled", "no"),
        row("cas_enabled", "yes"),
        row("binding_protocol", "auto-negotiate"),
        row("auth_enabled_sasl", "no"),
        row("auth_enabled_ascii", "no"),
        row("item_size_max", config.rules.value_limit),
        row("maxconns_fast", "yes"),
        row("slab_reassign", "no"),
        row("slab_automove", 0),
        row("lru_crawler", "no"),
        row("lru_maintainer_thread", "no"),
        row("flush_enabled", yes(config.allow_flush)),
        row("dump_enabled", "no"),
        row("managers", managers),
        row("flags_kept", yes(config.rules.layout.flags != FlagBytes::Zero)),
        row("flag_bytes", config.rules.layout.flags as u16),
        row("expiry_kept", yes(config.rules.layout.expiry)),
        row("key_prefix", config.key_prefix.escape_ascii()),
        row("async_replicate_set", yes(config.async_set)),
        row("async_replicate_delete", yes(config.async_delete)),
    ]
}

/// Time that processors have spent on this process, for itself and in the kernel, in seconds and microseconds.
fn processor_time() -> (String, String) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let (user, system) = ticks(&stat).unwrap_or_default();
    let seconds = |ticks: u64| {
        let rate = rustix::param::clock_ticks_per_second().max(1);
        format!("{}.{:06}", ticks / rate, ticks % rate * 1_000_000 / rate)
    };
    (seconds(user), seconds(system))
}

/// `utime` and `stime` of a line of `/proc/*/stat`, whose second field is a name in parentheses that may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "17 (a) b) 2 3) S 1 17 17 0 -1 4194560 3034 0 1 0 41 7 0 0 20 0 9 0 1000 5 6";
        assert_eq!(ticks(stat), Some((41, 7)));
        assert_eq!(ticks(""), None);
        let (user, system) = processor_time();
        for time in [user, system] {
            let (seconds, micros) = time.split_once('.').expect("two numbers");
            assert!(seconds.parse::<u64>().is_ok() && micros.len() == 6 && micros.parse::<u64>().is_ok(), "{time}");
        }
    }
}
