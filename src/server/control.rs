//! `GetStatus`, `SetConfig` and `CreateBackup`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::refusal::Refusal;
use super::replace_host;
use super::shared::Shared;
use crate::net::Reply;
use crate::ring::HashSpace;
use crate::wire::figures::{Figures, NodeFigures, SpaceFigures};
use crate::wire::method::{
    CONFIG_NODELAY, ErrorCode, FLAG_DIFFERENT, FLAG_INACTIVE, STATUS_CLOCKTIME, STATUS_DELETES, STATUS_FLAGS,
    STATUS_GETS, STATUS_ITEMS, STATUS_JSON, STATUS_PID, STATUS_REMEMBERED, STATUS_RHS, STATUS_SETS, STATUS_TIME,
    STATUS_UPTIME, STATUS_VERSION, STATUS_WHS, SetConfig,
};
use crate::wire::pack;
use crate::wire::params::{Encode, Object, is_backup_suffix};

/// The version of the original, so that tools which compare versions go on working.
const PROTOCOL_VERSION: &str = "0.4.13 revision ";

/// Suffixes under which SQLite keeps files of its own beside the store.
const SQLITE_SUFFIXES: [&str; 3] = ["wal", "shm", "journal"];

/// Answers `GetStatus` (protocol, section 7).
pub(super) fn status(server: &Arc<Shared>, number: u32, reply: Reply) {
    let counters = &server.counters;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let value = match number {
        STATUS_PID => u64::from(server.env.process_id()),
        STATUS_UPTIME => server.env.time().elapsed(server.started).as_secs(),
        STATUS_TIME => u64::from(server.env.time().unix_seconds()),
        STATUS_VERSION => return reply.ok(|out| pack::raw(out, PROTOCOL_VERSION.as_bytes())),
        STATUS_GETS => count(&counters.gets),
        STATUS_SETS => count(&counters.sets),
        STATUS_DELETES => count(&counters.deletes),
        STATUS_ITEMS => return count_items(server, reply),
        STATUS_CLOCKTIME => server.clock.now().0,
        STATUS_RHS => return reply.ok(|out| server.spaces().rhs.seed().encode(out)),
        STATUS_WHS => return reply.ok(|out| server.spaces().whs.seed().encode(out)),
        STATUS_FLAGS => u64::from(flags(server)),
        STATUS_JSON => return full_status(server, reply),
        STATUS_REMEMBERED => {
            return reply.ok(|out| match server.last_spaces.get() {
                Some(spaces) => out.extend_from_slice(&spaces),
                None => pack::nil(out),
            });
        }
        _ => return reply.ok(pack::nil),
    };
    reply.ok(|out| pack::uint(out, value));
}

/// The bits of `GetStatus` 11: what is under way here.
fn flags(server: &Shared) -> u32 {
    let spaces = server.spaces();
    let inactive = if spaces.whs.is_active(server.address) { 0 } else { FLAG_INACTIVE };
    let different = if spaces.whs.same_nodes(&spaces.rhs) { 0 } else { FLAG_DIFFERENT };
    inactive | different | replace_host::flags(server)
}

/// Counting may have to look at the disk: not on a network thread.
fn count_items(server: &Arc<Shared>, reply: Reply) {
    let store = server.store.clone();
    count_alone(server, move || reply.ok(|out| pack::uint(out, store.count())));
}

/// Runs `count` on a thread that may block, one at a time: more would only wait for each other.
fn count_alone(server: &Arc<Shared>, count: impl FnOnce() + Send + 'static) {
    let env = server.env.clone();
    server.counts.enter(&server.env, move |permit| {
        env.detach_blocking(move || {
            count();
            drop(permit);
        });
    });
}

fn full_status(server: &Arc<Shared>, reply: Reply) {
    let counting = server.clone();
    let server = server.clone();
    count_alone(&counting, move || {
        let spaces = server.spaces();
        let figures = Figures {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: Some(server.address),
            pid: server.env.process_id(),
            uptime_s: server.env.time().elapsed(server.started).as_secs(),
            cmd_get: server.counters.gets.load(Ordering::Relaxed),
            cmd_set: server.counters.sets.load(Ordering::Relaxed),
            cmd_delete: server.counters.deletes.load(Ordering::Relaxed),
            connections: server.peers.link_count() as u64,
            clocktime: server.clock.now().0,
            flags: flags(&server),
            whs: space_figures(&spaces.whs),
            rhs: space_figures(&spaces.rhs),
            configuration: spaces.counter,
            lease_ms: spaces.permit.lasts_ms(server.env.time()),
            items: server.store.count(),
            unsettled: server.unsettled.len() as u64,
            store: server.store.status(),
            replace: replace_host::progress(&server),
        };
        reply.ok(|out| pack::raw(out, figures.to_json().as_bytes()));
    });
}

fn space_figures(space: &HashSpace) -> SpaceFigures {
    let nodes = space.seed().nodes.iter().map(|(address, active)| NodeFigures { address: *address, active: *active });
    SpaceFigures { clocktime: space.clocktime().0, nodes: nodes.collect() }
}

/// Changes a setting of the running server; returns how many connections that concerned.
pub(super) fn set_config(server: &Shared, call: &SetConfig<Object<'_>>) -> Result<u64, Refusal> {
    if call.number != CONFIG_NODELAY {
        return Err(Refusal(ErrorCode::Protocol));
    }
    let on = call.value.read()?;
    let links = server.peers.links();
    for link in &links {
        link.set_nodelay(on);
    }
    Ok(links.len() as u64)
}

/// Answers `CreateBackup` when the backup is complete. The suffix comes from the network and names a file.
pub(super) fn backup(server: &Arc<Shared>, suffix: &[u8], reply: Reply) {
    let Some(path) = backup_path(server, suffix) else {
        tracing::warn!(peer = %reply.link().peer(), suffix = %suffix.escape_ascii(), "backup refused: not a valid suffix");
        return reply.error(ErrorCode::Server);
    };
    let store = server.store.clone();
    server.env.detach_blocking(move || match store.backup(&path) {
        Ok(()) => {
            tracing::info!(path = %path.display(), "backup complete");
            reply.ok(|out| pack::bool(out, true));
        }
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "backup failed");
            reply.error(ErrorCode::Server);
        }
    });
}

/// `<store path>-<suffix>`, if the suffix has only harmless characters.
fn backup_path(server: &Shared, suffix: &[u8]) -> Option<PathBuf> {
    let valid = is_backup_suffix(suffix);
    let suffix = std::str::from_utf8(suffix).ok().filter(|suffix| valid && !SQLITE_SUFFIXES.contains(suffix))?;
    let mut path = server.config.store.path.clone().into_os_string();
    path.push("-");
    path.push(suffix);
    Some(path.into())
}
