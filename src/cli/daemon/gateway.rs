//! The gateway's flags, letter for letter, and the settings they resolve to.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Command, CommandFactory, Parser};
use tokio::time::Instant;

use super::common::{Bounds, Common, fit_connections};
use crate::cli::args::addresses::{peer_node, resolve};
use crate::cli::args::layout::LayoutArgs;
use crate::cli::args::values::mebibytes;
use crate::cli::args::{Call, parse};
use crate::cli::exit::Stop;
use crate::env::Env;
use crate::gateway::item::Rules;
use crate::gateway::{Config, Gateway, Limits, Listen};
use crate::life;
use crate::net::STEPS;
use crate::net::hosts::{HostPort, MANAGER_PORT, Resolver, system_resolver};

/// Default port of the text protocol.
pub(in crate::cli) const TEXT_PORT: u16 = 11411;
/// Default port of the binary protocol.
const BINARY_PORT: u16 = 11511;

/// Serves memcached clients from a kumofs cluster.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Args {
    /// Address of a manager [port: 19700]
    #[arg(short, long, value_name = "ADDR[:PORT]")]
    manager1: HostPort,

    /// Address of the second manager, if there are two [port: 19700]
    #[arg(short = 'p', long, value_name = "ADDR[:PORT]")]
    manager2: Option<HostPort>,

    /// Where text clients connect; a port alone: on every address, IPv6 and IPv4; without -t, -b and --unix: 11411,
    /// and -b 11511
    #[arg(short = 't', long, value_name = "[ADDR:]PORT")]
    memproto_text: Option<Place>,

    /// Where binary clients connect; each port takes both protocols
    #[arg(short = 'b', long, value_name = "[ADDR:]PORT")]
    memproto_binary: Option<Place>,

    /// A port alone, or `[::]`, means IPv6 addresses only
    #[arg(long)]
    ipv6_only: bool,

    /// A Unix socket to listen on as well
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,

    #[command(flatten)]
    layout: LayoutArgs,

    /// Prefix added to every key
    #[arg(short, long, value_name = "PREFIX", default_value = "", value_parser = key_prefix)]
    key_prefix: String,

    /// Answer a set before its replicas are written
    #[arg(long)]
    async_replicate_set: bool,

    /// Answer a delete before its replicas are written
    #[arg(long)]
    async_replicate_delete: bool,

    /// Seconds for which a get is retried
    #[arg(short = 'G', long, value_name = "N", default_value = "5", value_parser = tries())]
    get_retry: u32,

    /// Seconds for which a set is retried
    #[arg(short = 'S', long, value_name = "N", default_value = "20", value_parser = tries())]
    set_retry: u32,

    /// Seconds for which a delete is retried
    #[arg(short = 'D', long, value_name = "N", default_value = "20", value_parser = tries())]
    delete_retry: u32,

    /// Failed calls after which the managers are asked for a new hash space
    #[arg(long, value_name = "N", default_value = "4", value_parser = RangedU64ValueParser::<u32>::new().range(1..=65535))]
    renew_threshold: u32,

    /// Accepted and ignored: values are always read from the cluster
    #[arg(long, value_name = "CACHE")]
    local_cache: Option<OsString>,

    /// Accept `flush_all`: this gateway, and no other, then hides all older items
    #[arg(long)]
    allow_flush: bool,

    /// Largest value
    #[arg(long, value_name = "BYTES", default_value = "1m", value_parser = item_size)]
    max_item_size: usize,

    /// Memory for requests and responses of all connections
    #[arg(long, value_name = "MIB", default_value = "512", value_parser = mebibytes)]
    max_memory: u64,

    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    bounds: Bounds,
}

/// `port`, `addr` or `addr:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Port(u16),
    Host(HostPort),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            return text.parse().map(Self::Port).map_err(|_| format!("'{text}' is not a port (0 to 65535)"));
        }
        text.parse().map(Self::Host)
    }
}

impl Place {
    /// Where to listen, for the given flag.
    fn listen(&self, flag: &str, default_port: u16, ipv6_only: bool, resolver: Resolver) -> Result<Listen, Stop> {
        let host = match self {
            Self::Port(port) if ipv6_only => return Ok(Listen::Ipv6Only(*port)),
            Self::Port(port) => return Ok(Listen::Everywhere(*port)),
            Self::Host(host) => host,
        };
        match resolve(flag, host, default_port, resolver)? {
            address if !ipv6_only => Ok(Listen::At(address)),
            SocketAddr::V4(_) => {
                Err(Stop::Usage(format!("{flag} {host}: --ipv6-only does not go with an IPv4 address")))
            }
            SocketAddr::V6(address) if address.ip().is_unspecified() => Ok(Listen::Ipv6Only(address.port())),
            SocketAddr::V6(address) => Ok(Listen::At(address.into())),
        }
    }
}

fn tries() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=3600)
}

/// A prefix that leaves space for a key of 250 bytes in what other nodes can take, and that text clients could send.
fn key_prefix(text: &str) -> Result<String, String> {
    if text.len() > 250 {
        return Err("must be at most 250 bytes".to_owned());
    }
    Ok(text.to_owned())
}

/// Bytes, or with `k` or `m` behind it KiB or MiB, as memcached's `-I` has it.
fn item_size(text: &str) -> Result<usize, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = match (lower.strip_suffix('k'), lower.strip_suffix('m')) {
        (Some(digits), _) => (digits, 1 << 10),
        (_, Some(digits)) => (digits, 1 << 20),
        _ => (lower.as_str(), 1),
    };
    let bytes = digits.parse().ok().and_then(|count: usize| count.checked_mul(unit));
    // A record must fit in a message of an original server, and 16 times in what is under way on one connection.
    bytes.filter(|bytes| (1..=32 << 20).contains(bytes)).ok_or_else(|| "must be from 1 byte to 32m".to_owned())
}

/// Runs a gateway until a signal ends it.
pub(in crate::cli) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, adjusted)?;
    let mut config = args.config(&system_resolver)?;
    let life = args.common.life(&call.program, &args.bounds);
    Ok(life::run(&life, async || {
        if args.local_cache.is_some() {
            tracing::warn!("-lc is ignored: this gateway reads every value from the cluster");
        }
        fit_connections(&mut config.limits.connections);
        Ok(Gateway::start(&Env::real(), config)?)
    }))
}

impl life::Service for Gateway {
    async fn stop(self, deadline: Instant) -> Result<(), life::Cause> {
        self.stop(deadline).await;
        Ok(())
    }

    fn reopen(&self) {
        self.reopen();
    }
}

/// The gateway's flags: those of every daemon, as far as they concern it.
pub(in crate::cli) fn command() -> Command {
    adjusted(Args::command())
}

fn adjusted(command: Command) -> Command {
    command
        .mut_arg("clock_interval", |flag| flag.default_value("2"))
        .mut_arg("keepalive_interval", |flag| {
            flag.short(None).help("Interval at which the managers are asked for their state")
        })
        .mut_arg("idle_timeout", |flag| flag.help("Time limit for sending a request, and for reading its responses"))
        // Flags of every daemon, which a gateway has no use for.
        .mut_arg("connect_retry_limit", |flag| flag.hide(true))
        .mut_arg("write_threads", |flag| flag.hide(true))
        .mut_arg("read_threads", |flag| flag.hide(true))
        .mut_arg("max_message", |flag| flag.hide(true))
        .mut_arg("bind", |flag| flag.hide(true))
}

impl Args {
    fn config(&self, resolver: Resolver) -> Result<Config, Stop> {
        let mut managers = vec![peer_node("-m", &self.manager1, MANAGER_PORT, resolver)?];
        if let Some(second) = &self.manager2 {
            managers.push(peer_node("-p", second, MANAGER_PORT, resolver)?);
        }
        let (mut text, mut binary) = (self.memproto_text.clone(), self.memproto_binary.clone());
        if text.is_none() && binary.is_none() && self.unix.is_none() {
            (text, binary) = (Some(Place::Port(TEXT_PORT)), Some(Place::Port(BINARY_PORT)));
        }
        let mut listen = Vec::new();
        for (flag, at, port) in [("-t", text, TEXT_PORT), ("-b", binary, BINARY_PORT)] {
            if let Some(at) = at {
                listen.push(at.listen(flag, port, self.ipv6_only, resolver)?);
            }
        }
        let bounds = self.bounds.limits()?;
        let memory = usize::try_from(self.max_memory).unwrap_or(usize::MAX);
        if memory < self.max_item_size.saturating_mul(4) {
            return Err(Stop::Usage("--max-memory: must be at least four times --max-item-size".to_owned()));
        }
        let seconds = |count: u32| Duration::from_secs(count.into());
        Ok(Config {
            managers,
            listen,
            unix: self.unix.clone(),
            rules: Rules { layout: self.layout.layout(), value_limit: self.max_item_size },
            key_prefix: self.key_prefix.clone().into_bytes(),
            async_set: self.async_replicate_set,
            async_delete: self.async_replicate_delete,
            get_limit: seconds(self.get_retry),
            set_limit: seconds(self.set_retry),
            delete_limit: seconds(self.delete_retry),
            renew_threshold: self.renew_threshold,
            connect_timeout: self.common.dial().timeout,
            call_timeout: self.common.clock_interval.saturating_mul(u32::from(STEPS)),
            keepalive_interval: self.common.keepalive_interval,
            allow_flush: self.allow_flush,
            limits: Limits { connections: bounds.connections, stalled: bounds.stalled, memory, ..Limits::default() },
            binary_log: self.common.binary_log()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::layout::{FlagBytes, Layout};

    fn config(line: &str) -> Result<Config, Stop> {
        let args = line.split_whitespace().map(Into::into).collect();
        parse::<Args>(&Call { program: "kumo-gateway".to_owned(), args }, adjusted)?.config(&system_resolver)
    }

    #[test]
    fn defaults_are_the_originals() {
        let config = config("-m 127.0.0.1").unwrap();
        assert_eq!(config.managers[0].to_string(), "127.0.0.1:19700");
        assert_eq!(config.listen, [Listen::Everywhere(11411), Listen::Everywhere(11511)]);
        let limits = [config.get_limit, config.set_limit, config.delete_limit].map(|limit| limit.as_secs());
        assert_eq!((limits, config.renew_threshold), ([5, 20, 20], 4));
        assert_eq!(config.rules, Rules { layout: Layout::BARE, value_limit: 1 << 20 });
        assert!(!config.async_set && !config.async_delete && !config.allow_flush && config.key_prefix.is_empty());
    }

    #[test]
    fn flags_arrive() {
        let line =
            "-m 127.0.0.1:1 -p 127.0.0.1:2 -t 127.0.0.1:5 -F -E -As -Ad -G 1 -S 2 -D 3 -rn 7 -k pre: -Ci 0.5 -lc 16";
        let config = config(line).unwrap();
        assert_eq!(config.managers.len(), 2);
        assert_eq!(config.listen, [Listen::At("127.0.0.1:5".parse().unwrap())]);
        assert_eq!(config.rules.layout, Layout { expiry: true, flags: FlagBytes::Two });
        assert!(config.async_set && config.async_delete);
        let limits = [config.get_limit, config.set_limit, config.delete_limit].map(|limit| limit.as_secs());
        assert_eq!((limits, config.renew_threshold, &config.key_prefix[..]), ([1, 2, 3], 7, &b"pre:"[..]));
        assert_eq!(config.call_timeout, Duration::from_secs(5));
    }

    #[test]
    fn flags_may_have_four_bytes() {
        let layout = |line: &str| config(&format!("-m 127.0.0.1 {line}")).map(|config| config.rules.layout);
        assert_eq!(layout("-F --flag-bytes 4"), Ok(Layout { expiry: false, flags: FlagBytes::Four }));
        assert_eq!(layout("-E -F --flag-bytes 2"), Ok(Layout { expiry: true, flags: FlagBytes::Two }));
        assert_eq!(layout("-E"), Ok(Layout { expiry: true, flags: FlagBytes::Zero }));
        assert!(
            matches!(layout("-F --flag-bytes 3"), Err(Stop::Usage(line)) if line.contains("possible values: 2, 4"))
        );
        assert!(matches!(layout("--flag-bytes 4"), Err(Stop::Usage(line)) if line.contains("--memproto-save-flag")));
    }

    #[test]
    fn addresses_of_both_kinds_unless_one_is_named() {
        let listen = |line: &str| config(&format!("-m 127.0.0.1 {line}")).map(|config| config.listen);
        let at = |address: &str| Listen::At(address.parse().unwrap());
        assert_eq!(listen("-t [::]:7 -b 0.0.0.0:8"), Ok(vec![at("[::]:7"), at("0.0.0.0:8")]));
        assert_eq!(listen("--ipv6-only"), Ok(vec![Listen::Ipv6Only(11411), Listen::Ipv6Only(11511)]));
        assert_eq!(listen("--ipv6-only -t [::]:7 -b [::1]"), Ok(vec![Listen::Ipv6Only(7), at("[::1]:11511")]));
        assert_eq!(listen("-t [fe80::1%1]:7").map(|listen| listen.len()), Ok(1));
        for (line, message) in [
            ("--ipv6-only -t 0.0.0.0:7", "-t 0.0.0.0:7: --ipv6-only does not go with an IPv4 address"),
            ("-t [fe80::1]:7", "-t [fe80::1]:7: a link-local address needs its interface, as in fe80::1%eth0"),
        ] {
            assert_eq!(listen(line), Err(Stop::Usage(message.to_owned())), "{line}");
        }
    }

    #[test]
    fn one_way_in_is_enough() {
        assert_eq!(config("-m 127.0.0.1 -b 7").unwrap().listen, [Listen::Everywhere(7)]);
        let config = config("-m 127.0.0.1 --unix /tmp/x").unwrap();
        assert!(config.listen.is_empty() && config.unix.is_some());
    }

    #[test]
    fn mistakes_are_named() {
        for (line, message) in [
            ("", "the following required arguments were not provided: --manager1 <ADDR[:PORT]>"),
            (
                "-m 127.0.0.1 -t 70000",
                "invalid value '70000' for '-t <[ADDR:]PORT>': '70000' is not a port (0 to 65535)",
            ),
            ("-m 127.0.0.1 -G 0", "invalid value '0' for '-G <N>': 0 is not in 1..=3600"),
            (
                "-m 127.0.0.1 --max-item-size 33m",
                "invalid value '33m' for '--max-item-size <BYTES>': must be from 1 byte to 32m",
            ),
            ("-m 127.0.0.1 --max-memory 1", "--max-memory: must be at least four times --max-item-size"),
        ] {
            assert_eq!(config(line).unwrap_err(), Stop::Usage(message.to_owned()), "{line}");
        }
    }

    #[test]
    fn item_sizes() {
        assert_eq!((item_size("100"), item_size("64k"), item_size("2M")), (Ok(100), Ok(65536), Ok(2 << 20)));
        for text in ["", "0", "m", "-1", "1g", "99999999999999999999m"] {
            assert!(item_size(text).is_err(), "{text}");
        }
    }
}
