//! The flags that every daemon has, and what they resolve to.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use crate::cli::args::values::{mebibytes, positive_seconds, seconds};
use crate::cli::exit::Stop;
use crate::life;
use crate::logging;
use crate::net::{DialPolicy, Limits};
use crate::wire::MESSAGE_LIMIT_MIN;

/// Open files kept for all that is no accepted connection: store, logs, offers, connections to other nodes.
const FILES_RESERVED: usize = 256;

/// Timing, threads, logs and life of a daemon, letter for letter.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// Interval between keep-alive messages to each manager
    #[arg(short, long, value_name = "SEC", default_value = "2", value_parser = positive_seconds)]
    pub(super) keepalive_interval: Duration,

    /// Time limit of one attempt to connect
    #[arg(long, value_name = "SEC", default_value = "1", value_parser = positive_seconds)]
    connect_timeout: Duration,

    /// Attempts to connect after a failed one; then the node counts as lost
    #[arg(long, value_name = "N", default_value = "4", value_parser = RangedU64ValueParser::<u32>::new().range(0..=65535))]
    connect_retry_limit: u32,

    /// A tenth of the time limit of a call to another node
    #[arg(long, value_name = "SEC", default_value = "8", value_parser = positive_seconds)]
    pub(super) clock_interval: Duration,

    /// Threads for writes that wait for the disk
    #[arg(long, value_name = "N", default_value = "2", value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    pub(super) write_threads: usize,

    /// Threads for reads that miss the cache
    #[arg(long, value_name = "N", default_value = "4", value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    pub(super) read_threads: usize,

    /// Log file; "-" or no flag: standard output
    #[arg(short = 'o', long, value_name = "PATH")]
    log: Option<PathBuf>,

    /// Binary log file, in the original's format
    #[arg(short = 'g', long, value_name = "PATH")]
    binary_log: Option<PathBuf>,

    /// Log informational messages, not only warnings and errors
    #[arg(short, long)]
    verbose: bool,

    /// Run in the background and write the process id to a file
    #[arg(short, long, value_name = "PIDFILE")]
    daemon: Option<PathBuf>,

    /// End when stdin does; for a process that launches daemons and takes them along
    #[arg(long, hide = true, conflicts_with = "daemon")]
    end_with_stdin: bool,
}

/// Bounds of a daemon, which the original had not.
#[derive(Debug, clap::Args)]
pub(super) struct Bounds {
    /// Address to listen on instead of that of --listen; 0.0.0.0 for all
    #[arg(long, value_name = "IP")]
    bind: Option<IpAddr>,

    /// Largest message accepted
    #[arg(long, value_name = "MIB", default_value = "64", value_parser = mebibytes)]
    max_message: u64,

    /// Client connections accepted at one time
    #[arg(long, value_name = "N", default_value = "10000", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    max_connections: usize,

    /// Time limit for receiving one message; then the connection is closed
    #[arg(long, value_name = "SEC", default_value = "60", value_parser = positive_seconds)]
    idle_timeout: Duration,

    /// Threads that serve connections [default: half of the cores]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    network_threads: Option<usize>,

    /// How long a shutdown waits for requests in progress
    #[arg(long, value_name = "SEC", default_value = "10", value_parser = seconds)]
    shutdown_timeout: Duration,
}

impl Common {
    /// How to reach other nodes.
    pub(super) fn dial(&self) -> DialPolicy {
        DialPolicy { timeout: self.connect_timeout, retry_limit: self.connect_retry_limit }
    }

    /// The file of the binary log.
    pub(super) fn binary_log(&self) -> Result<Option<PathBuf>, Stop> {
        match &self.binary_log {
            Some(path) if path.as_os_str() == "-" => Err(Stop::Usage("-g -: the binary log needs a file".to_owned())),
            path => Ok(path.clone()),
        }
    }

    /// How the process lives.
    pub(super) fn life(&self, program: &str, bounds: &Bounds) -> life::Settings {
        let log = match &self.log {
            Some(path) if path.as_os_str() != "-" => logging::Target::File(path.clone()),
            _ => logging::Target::Stdout,
        };
        life::Settings {
            program: program.to_owned(),
            pid_file: self.daemon.clone(),
            // A log that was sent to stdout in so many words stays there, even in the background.
            keep_stdout: self.log.as_ref().is_some_and(|path| path.as_os_str() == "-"),
            end_with_stdin: self.end_with_stdin,
            log: logging::Settings { target: log, verbose: self.verbose },
            network_threads: bounds.network_threads,
            blocking_calls: None,
            shutdown_timeout: bounds.shutdown_timeout,
        }
    }
}

impl Bounds {
    /// The limits of connections.
    pub(super) fn limits(&self) -> Result<Limits, Stop> {
        // Lengths on the wire have 32 bits, and a record is copied more than once.
        let message =
            usize::try_from(self.max_message).ok().filter(|bytes| (MESSAGE_LIMIT_MIN..=1 << 30).contains(bytes));
        let message = message.ok_or_else(|| {
            Stop::Usage(format!("--max-message {}: must be from 1 to 1024 MiB", self.max_message >> 20))
        })?;
        Ok(Limits { message, connections: self.max_connections, stalled: self.idle_timeout, ..Limits::default() })
    }

    /// Where to listen, given who the node is.
    pub(super) fn bind(&self, address: SocketAddr) -> SocketAddr {
        self.bind.map_or(address, |ip| SocketAddr::new(ip, address.port()))
    }
}

/// Lowers the number of connections to what the limit of open files allows. Called with the log open: it may warn.
pub(super) fn fit_connections(connections: &mut usize) {
    *connections = life::connections(*connections, FILES_RESERVED);
}
