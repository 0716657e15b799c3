//! The server's flags, letter for letter, and the settings they resolve to.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Command, CommandFactory, Parser, ValueEnum};
use tokio::time::Instant;

use super::common::{Bounds, Common, fit_connections};
use crate::cli::args::addresses::{own_address, peer_node};
use crate::cli::args::values::{kibibytes, mebibytes, seconds};
use crate::cli::args::{Call, parse};
use crate::cli::exit::Stop;
use crate::env::Env;
use crate::life;
use crate::net::hosts::{HostPort, MANAGER_PORT, Resolver, SERVER_PORT, system_resolver};
use crate::server::Server;
use crate::server::config::Config;
use crate::store::{self, SweepPolicy, SyncMode};

/// Least size limit of a redo log: below it, merging would never pause.
const REDO_LIMIT_MIN: u64 = 16 << 20;

/// Least bound of the write-ahead log: about what one transaction of a merge adds.
const WAL_LIMIT_MIN: u64 = 4 << 20;

/// The storage daemon of kumofs: keeps records, copies them, moves them when servers come and go.
#[derive(Debug, Parser)]
struct Args {
    /// Address of this server, by which the other nodes reach it [port: 19800]
    #[arg(short, long, value_name = "ADDR[:PORT]")]
    listen: HostPort,

    /// Port of the replace stream; another free one if it is taken
    #[arg(short = 'L', long, value_name = "PORT", default_value = "19900")]
    stream_listen: u16,

    /// Directory for temporary files of a replace
    #[arg(short = 'f', long, value_name = "DIR", default_value = "/tmp")]
    offer_tmp: PathBuf,

    /// The database file
    #[arg(short, long, value_name = "PATH")]
    store: PathBuf,

    /// Address of the manager [port: 19700]
    #[arg(short, long, value_name = "ADDR[:PORT]")]
    manager1: HostPort,

    /// Address of the second manager, if there are two [port: 19700]
    #[arg(short = 'p', long, value_name = "ADDR[:PORT]")]
    manager2: Option<HostPort>,

    /// How often a set that failed on a replica is tried again
    #[arg(short = 'S', long, value_name = "N", default_value = "20", value_parser = RangedU64ValueParser::<u32>::new().range(0..=65535))]
    replicate_set_retry: u32,

    /// How often a delete that failed on a replica is tried again
    #[arg(short = 'D', long, value_name = "N", default_value = "20", value_parser = RangedU64ValueParser::<u32>::new().range(0..=65535))]
    replicate_delete_retry: u32,

    /// Disk space for temporary files of a replace; 0: no limit
    #[arg(short = 'M', long, value_name = "MIB", default_value = "0", value_parser = mebibytes)]
    replace_memory_limit: u64,

    /// Minimum time for which a deleted key is remembered
    #[arg(long, value_name = "SEC", default_value = "60", value_parser = seconds)]
    garbage_min_time: Duration,

    /// Maximum time for which a deleted key is remembered
    #[arg(long, value_name = "SEC", default_value = "3600", value_parser = seconds)]
    garbage_max_time: Duration,

    /// Memory for deleted keys; beyond it, the oldest are forgotten early
    #[arg(long, value_name = "KIB", default_value = "2048", value_parser = kibibytes)]
    garbage_mem_limit: u64,

    #[command(flatten)]
    common: Common,

    /// When writes are forced to disk: always (before each answer), everysec, or os
    #[arg(long, value_name = "MODE", default_value = "everysec", value_enum, hide_possible_values = true)]
    sync: Sync,

    /// Memory for cached records
    #[arg(long, value_name = "MIB", default_value = "512", value_parser = mebibytes)]
    cache: u64,

    /// Size limit of the redo log, which holds writes not yet in the database
    #[arg(long, value_name = "MIB", default_value = "512", value_parser = mebibytes)]
    redo_limit: u64,

    /// Size limit of the database's write-ahead log
    #[arg(long, value_name = "MIB", default_value = "64", value_parser = mebibytes)]
    wal_limit: u64,

    #[command(flatten)]
    bounds: Bounds,
}

/// `--sync`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sync {
    Always,
    Everysec,
    Os,
}

/// Runs a server until a signal ends it. `adjust` adds to its help and version whatever else the binary can do.
pub(in crate::cli) fn run(call: &Call, adjust: fn(Command) -> Command) -> Result<ExitCode, Stop> {
    let (life, mut config) = settings(call, adjust)?;
    Ok(life::run(&life, async || {
        fit_connections(&mut config.limits.connections);
        Ok(Server::start(&Env::real(), config).await?)
    }))
}

impl life::Service for Server {
    async fn stop(self, deadline: Instant) -> Result<(), life::Cause> {
        Ok(self.stop(deadline).await?)
    }

    fn reopen(&self) {
        self.reopen();
    }
}

/// Parses and resolves the server's flags.
fn settings(call: &Call, adjust: fn(Command) -> Command) -> Result<(life::Settings, Config), Stop> {
    let args: Args = parse(call, adjust)?;
    let config = args.config(&system_resolver)?;
    let mut life = args.common.life(&call.program, &args.bounds);
    life.blocking_calls = Some(config.store.log_writes.clone());
    Ok((life, config))
}

/// The server's flags.
pub(in crate::cli) fn command() -> Command {
    Args::command()
}

impl Args {
    fn config(&self, resolver: Resolver) -> Result<Config, Stop> {
        let address = own_address("-l", &self.listen, SERVER_PORT, resolver)?;
        let mut managers = vec![peer_node("-m", &self.manager1, MANAGER_PORT, resolver)?];
        if let Some(host) = &self.manager2 {
            let second = peer_node("-p", host, MANAGER_PORT, resolver)?;
            if managers.iter().any(|first| first.to_string() == second.to_string()) {
                return Err(Stop::Usage(format!("-p {host}: the same manager as -m {}", self.manager1)));
            }
            managers.push(second);
        }
        if managers.iter().any(|manager| manager.is(address.into())) {
            return Err(Stop::Usage(format!("-l {}: the address of a manager", self.listen)));
        }
        if !self.offer_tmp.is_dir() {
            return Err(Stop::Failed(format!("-f {}: not a directory", self.offer_tmp.display())));
        }
        let limits = self.bounds.limits()?;
        Ok(Config {
            address: address.into(),
            bind: self.bounds.bind(address),
            stream_port: self.stream_listen,
            managers,
            store: self.store(limits.message)?,
            offer_dir: self.offer_tmp.clone(),
            offer_limit: Some(self.replace_memory_limit).filter(|bytes| *bytes > 0),
            replicate_set_retries: self.replicate_set_retry,
            replicate_delete_retries: self.replicate_delete_retry,
            keepalive_interval: self.common.keepalive_interval,
            dial: self.common.dial(),
            clock_interval: self.common.clock_interval,
            binary_log: self.common.binary_log()?,
            limits,
        })
    }

    fn store(&self, message_bytes: usize) -> Result<store::Options, Stop> {
        if self.store.file_name().is_none() {
            return Err(Stop::Usage(format!("-s {}: not the name of a file", self.store.display())));
        }
        // A record that the redo log cannot hold could never be written.
        let least = u64::try_from(message_bytes).unwrap_or(u64::MAX).saturating_mul(2).max(REDO_LIMIT_MIN);
        if self.redo_limit < least {
            return Err(Stop::Usage(format!(
                "--redo-limit {}: must be at least {} MiB, twice --max-message",
                self.redo_limit >> 20,
                least >> 20
            )));
        }
        if self.wal_limit < WAL_LIMIT_MIN {
            return Err(Stop::Usage(format!(
                "--wal-limit {}: must be at least {} MiB",
                self.wal_limit >> 20,
                WAL_LIMIT_MIN >> 20
            )));
        }
        Ok(store::Options {
            sync: match self.sync {
                Sync::Always => SyncMode::Always,
                Sync::Everysec => SyncMode::Everysec,
                Sync::Os => SyncMode::Os,
            },
            read_threads: self.common.read_threads,
            write_threads: self.common.write_threads,
            cache_bytes: self.cache,
            redo_bytes: self.redo_limit,
            wal_bytes: self.wal_limit,
            sweep: SweepPolicy {
                min_age: self.garbage_min_time.min(self.garbage_max_time),
                max_age: self.garbage_max_time,
                memory_limit: self.garbage_mem_limit,
            },
            ..store::Options::new(&self.store)
        })
    }
}

#[cfg(test)]
mod tests;
