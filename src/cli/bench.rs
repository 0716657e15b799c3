//! The load generator's flags, its progress line, and the printing of its report.

use std::io::{IsTerminal, Write};
use std::num::NonZero;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{ArgGroup, Parser, ValueEnum};

use super::args::values::{positive_seconds, seconds};
use super::args::{Call, parse};
use super::daemon::gateway::TEXT_PORT;
use super::exit::{Stop, USAGE, print};
use super::tool::Interrupt;
use super::tool::json_text;
use crate::bench::{self, Config, Distribution, ENTRY_LEN, Extent, KEYS_LIMIT, Mix, Progress, Target};
use crate::life;
use crate::net::hosts::{HostPort, MANAGER_PORT, Resolver, SERVER_PORT, system_resolver};

/// Files that a run needs besides its connections.
const OTHER_FILES: usize = 32;
/// Largest value: half of what a server accepts as a message.
const VALUE_LIMIT: u64 = 32 << 20;
/// Shortest part of a run that is reported by itself.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);
/// Skew of `zipf` without a number: the customary one.
const USUAL_THETA: f64 = 0.99;

/// The end of `--help`.
fn notes() -> String {
    format!(
        "The loop is closed, as redis-benchmark's: each connection sends a batch of requests in one write, waits for \
         all answers, and sends the next. Latency runs from that write to the read that brought the answer.\n\n\
         Every value names its key and version. One that is wrong, missing or older than an acknowledged write is \
         counted and described, and makes the exit status 1; so does a request that fails. Others must not write the \
         keys (key:000000000000 and so on) meanwhile.\n\n\
         Ctrl-C prints what was measured until then. A run takes {ENTRY_LEN} bytes of memory for each key, and the \
         requests in flight.\n\n\
         Exit status: 0 all answers right, 1 not so or not possible, {USAGE} a mistake in the arguments, 130 or 143 \
         ended by a signal."
    )
}

/// Measures a server or a cluster under load, and checks every answer
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("target").required(true), after_help = notes())]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Args {
    /// Ask this manager; each request goes to the server that coordinates its key [port: 19700]
    #[arg(short, long, value_name = "ADDR[:PORT]", group = "target")]
    manager1: Option<HostPort>,

    /// The second manager, if there are two [port: 19700]
    #[arg(short = 'p', long, value_name = "ADDR[:PORT]", requires = "manager1")]
    manager2: Option<HostPort>,

    /// Send everything to this server [port: 19800]
    #[arg(short, long, value_name = "ADDR[:PORT]", group = "target")]
    server: Option<HostPort>,

    /// Send everything to this memcached server or gateway, in its text protocol [port: 11411]
    #[arg(long, value_name = "ADDR[:PORT]", group = "target", conflicts_with = "replicate_as")]
    memcached: Option<HostPort>,

    /// Ask for all keys that follow one another in a batch with one command
    #[arg(long, requires = "memcached")]
    multiget: bool,

    /// Connections in all, dealt out to the servers
    #[arg(short, long, value_name = "N", default_value = "8", value_parser = number(1, 1 << 16))]
    connections: usize,

    /// Requests in a batch; 1: no pipelining
    #[arg(short = 'P', long, value_name = "N", default_value = "16", value_parser = number(1, 1 << 16))]
    pipeline: usize,

    /// Threads that share the connections
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = number(1, 256))]
    threads: usize,

    /// Send one kind of request only
    #[arg(long, value_name = "KIND", conflicts_with_all = ["get", "set", "cas", "delete"])]
    mode: Option<Mode>,

    /// Part of Get in the mix
    #[arg(long, value_name = "PART", default_value = "1")]
    get: u32,

    /// Part of Set
    #[arg(long, value_name = "PART", default_value = "1")]
    set: u32,

    /// Part of compare-and-swap; one that does not match reads and tries again
    #[arg(long, value_name = "PART", default_value = "0")]
    cas: u32,

    /// Part of Delete
    #[arg(long, value_name = "PART", default_value = "0")]
    delete: u32,

    /// Send copies, as coordinators do, in the name of this active node, which should be idle; --load too [port: 19800]
    #[arg(long, value_name = "NODE", conflicts_with_all = ["mode", "get", "set", "cas", "delete"])]
    replicate_as: Option<HostPort>,

    /// Keys in use
    #[arg(short = 'n', long, value_name = "N", default_value = "200000", value_parser = RangedU64ValueParser::<u64>::new().range(1..=KEYS_LIMIT))]
    keys: u64,

    /// How keys are chosen: uniform, zipf or zipf:EXPONENT; with -m, by each connection among its server's keys
    #[arg(long, value_name = "HOW", default_value = "uniform", value_parser = distribution)]
    distribution: Distribution,

    /// Bytes of a value
    #[arg(short = 'd', long, value_name = "BYTES", default_value = "100", value_parser = number(0, VALUE_LIMIT))]
    value_size: usize,

    /// Write every key first; measured by itself
    #[arg(long)]
    load: bool,

    /// Every key is there from an earlier --load: an absent one is missing
    #[arg(long, conflicts_with = "load")]
    loaded: bool,

    /// Requests before those that are measured
    #[arg(long, value_name = "SEC", default_value = "0", value_parser = seconds)]
    warm_up: Duration,

    /// How long to measure
    #[arg(long, value_name = "SEC", default_value = "10", value_parser = positive_seconds)]
    duration: Duration,

    /// Requests to measure, instead of a time
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    requests: Option<NonZero<u64>>,

    /// Report each part of this length by itself too, at least 0.1
    #[arg(long, value_name = "SEC", value_parser = interval)]
    interval: Option<Duration>,

    /// How long an answer may take; after twice that without any, the run ends
    #[arg(long, value_name = "SEC", default_value = "10", value_parser = positive_seconds)]
    timeout: Duration,

    /// Where the random choices start
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Get,
    Set,
    Cas,
    Delete,
}

fn number(least: u64, most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=most)
}

/// Runs the load generator.
pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let config = args.config(&system_resolver)?;
    life::raise_limit();
    if life::connections(config.connections, OTHER_FILES) < config.connections {
        return Err(Stop::Failed("the limit of open files is too low for -c; raise it (ulimit -n)".to_owned()));
    }
    let interrupt = Interrupt::watch()?;
    let mut line = ProgressLine::new();
    let report = bench::run(&config, interrupt.flag(), |progress| line.show(progress));
    line.clear();
    let report = report.map_err(|error| match error {
        bench::Error::Mistake(mistake) => Stop::Usage(mistake.to_string()),
        error => Stop::Failed(error.to_string()),
    })?;
    let text = if args.json { json_text(&report)? } else { report.to_string() };
    print(std::io::stdout(), &text);
    Ok(if report.is_good() { interrupt.status() } else { ExitCode::FAILURE })
}

impl Args {
    fn config(&self, resolver: Resolver) -> Result<Config, Stop> {
        let resolve = |flag: &str, host: &HostPort, port| {
            host.resolve(port, resolver).map_err(|error| Stop::Failed(format!("{flag} {host}: {error}")))
        };
        let mut managers = Vec::new();
        for (flag, manager) in [("-m", &self.manager1), ("-p", &self.manager2)] {
            if let Some(manager) = manager {
                managers.push(resolve(flag, manager, MANAGER_PORT)?);
            }
        }
        let target = match (&self.server, &self.memcached) {
            (Some(server), _) => Target::Server(resolve("-s", server, SERVER_PORT)?),
            (None, Some(server)) => {
                Target::Memcached { address: resolve("--memcached", server, TEXT_PORT)?, multiget: self.multiget }
            }
            (None, None) => Target::Managers(managers),
        };
        let replicate_as = match &self.replicate_as {
            Some(node) => Some(resolve("--replicate-as", node, SERVER_PORT)?),
            None => None,
        };
        let config = Config {
            target,
            replicate_as,
            interval: self.interval,
            connections: self.connections,
            pipeline: self.pipeline,
            threads: self.threads,
            mix: self.mix(),
            keys: self.keys,
            distribution: self.distribution,
            value_size: self.value_size,
            load: self.load,
            loaded: self.loaded,
            warm_up: self.warm_up,
            extent: self.requests.map_or(Extent::Time(self.duration), |count| Extent::Requests(count.get())),
            timeout: self.timeout,
            seed: self.seed,
        };
        config.check().map(|()| config).map_err(|mistake| Stop::Usage(mistake.to_string()))
    }

    fn mix(&self) -> Mix {
        let Some(mode) = self.mode else {
            return Mix { get: self.get, set: self.set, cas: self.cas, delete: self.delete };
        };
        let part = |kind| u32::from(kind == mode);
        Mix { get: part(Mode::Get), set: part(Mode::Set), cas: part(Mode::Cas), delete: part(Mode::Delete) }
    }
}

/// `uniform`, `zipf` or `zipf:0.99`.
fn distribution(text: &str) -> Result<Distribution, String> {
    match text.split_once(':') {
        None if text == "uniform" => Ok(Distribution::Uniform),
        None if text == "zipf" => Ok(Distribution::Zipf(USUAL_THETA)),
        Some(("zipf", theta)) => {
            let theta: f64 = theta.parse().map_err(|_| "the exponent is not a number".to_owned())?;
            let sensible = (0.01..=10.0).contains(&theta);
            if sensible {
                Ok(Distribution::Zipf(theta))
            } else {
                Err("the exponent must be from 0.01 to 10".to_owned())
            }
        }
        _ => Err("must be uniform, zipf or zipf:EXPONENT".to_owned()),
    }
}

/// Threads look at the time often enough for parts of this length.
fn interval(text: &str) -> Result<Duration, String> {
    seconds(text).and_then(|time| match time {
        time if time < LEAST_INTERVAL => Err(format!("must be at least {} seconds", LEAST_INTERVAL.as_secs_f64())),
        time => Ok(time),
    })
}

/// One line that tells how far the run is, on a terminal only.
struct ProgressLine {
    shown: bool,
    terminal: bool,
}

impl ProgressLine {
    fn new() -> Self {
        Self { shown: false, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, progress: Progress) {
        if self.terminal {
            let Progress { stage, elapsed, answers, rate } = progress;
            let _ = write!(
                std::io::stderr(),
                "\r\x1b[K{stage}: {:.1} s, {answers} answers, {rate:.0}/s",
                elapsed.as_secs_f64()
            );
            self.shown = true;
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: &str) -> Result<Config, Stop> {
        let args = line.split_whitespace().map(Into::into).collect();
        let call = Call { program: "kumo-server bench".to_owned(), args };
        parse::<Args>(&call, |command| command)?.config(&system_resolver)
    }

    #[test]
    fn defaults_are_redis_benchmarks_or_nearly() {
        let config = config("-s 127.0.0.1").unwrap();
        assert_eq!(config.target, Target::Server("127.0.0.1:19800".parse().unwrap()));
        assert_eq!((config.connections, config.pipeline, config.threads, config.keys), (8, 16, 1, 200_000));
        assert_eq!(config.mix, Mix { get: 1, set: 1, cas: 0, delete: 0 });
        assert_eq!((config.value_size, config.distribution), (100, Distribution::Uniform));
        assert_eq!((config.extent, config.warm_up), (Extent::Time(Duration::from_secs(10)), Duration::ZERO));
        assert_eq!((config.load, config.loaded), (false, false));
    }

    #[test]
    fn flags_arrive() {
        let config = config(
            "-m 127.0.0.1 -p 127.0.0.1:2 -c 4 -P 1 -t 2 --get 9 --cas 2 --delete 3 -n 5 -d 0 --load --distribution zipf:0.5 \
             --requests 7 --warm-up 0.5 --seed 3 --timeout 2 --interval 0.5",
        );
        let config = config.unwrap();
        assert_eq!(
            config.target,
            Target::Managers(["127.0.0.1:19700", "127.0.0.1:2"].map(|address| address.parse().unwrap()).to_vec())
        );
        assert_eq!((config.connections, config.pipeline, config.threads, config.keys), (4, 1, 2, 5));
        assert_eq!(config.mix, Mix { get: 9, set: 1, cas: 2, delete: 3 });
        assert_eq!((config.value_size, config.distribution), (0, Distribution::Zipf(0.5)));
        assert_eq!((config.extent, config.warm_up), (Extent::Requests(7), Duration::from_millis(500)));
        assert_eq!((config.load, config.seed, config.timeout), (true, 3, Duration::from_secs(2)));
        assert_eq!((config.interval, config.replicate_as), (Some(Duration::from_millis(500)), None));
    }

    #[test]
    fn a_mode_is_a_mix_of_one() {
        for (mode, mix) in
            [("get", [1, 0, 0, 0]), ("set", [0, 1, 0, 0]), ("cas", [0, 0, 1, 0]), ("delete", [0, 0, 0, 1])]
        {
            let [get, set, cas, delete] = mix;
            assert_eq!(config(&format!("-s 127.0.0.1 --mode {mode}")).unwrap().mix, Mix { get, set, cas, delete });
        }
    }

    #[test]
    fn copies_go_out_as_a_node() {
        let config = config("-s 127.0.0.1 --replicate-as 127.0.0.2").unwrap();
        assert_eq!(config.replicate_as, Some("127.0.0.2:19800".parse().unwrap()));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, message) in [
            (
                "",
                "the following required arguments were not provided: <--manager1 <ADDR[:PORT]>|--server <ADDR[:PORT]>|--memcached <ADDR[:PORT]>>",
            ),
            ("-s 127.0.0.1 -m 127.0.0.1", "the argument '-s <ADDR[:PORT]>' cannot be used with '-m <ADDR[:PORT]>'"),
            ("-s 127.0.0.1 --get 0 --set 0", "every part of the mix is 0"),
            ("-s 127.0.0.1 -c 2 -t 3", "more threads than connections"),
            (
                "-s 127.0.0.1 --distribution zipf:0",
                "invalid value 'zipf:0' for '--distribution <HOW>': the exponent must be from 0.01 to 10",
            ),
            (
                "-s 127.0.0.1 --requests 0",
                "invalid value '0' for '--requests <N>': number would be zero for non-zero type",
            ),
            (
                "-s 127.0.0.1 --interval 0.05",
                "invalid value '0.05' for '--interval <SEC>': must be at least 0.1 seconds",
            ),
            (
                "-s 127.0.0.1 --replicate-as 127.0.0.1:2 --set 1",
                "the argument '--replicate-as <NODE>' cannot be used with '--set <PART>'",
            ),
            ("-s 127.0.0.1 -n 0", "invalid value '0' for '-n <N>': 0 is not in 1..=100000000"),
        ] {
            assert_eq!(config(line).unwrap_err(), Stop::Usage(message.to_owned()), "{line}");
        }
    }

    #[test]
    fn distributions() {
        assert_eq!(distribution("uniform"), Ok(Distribution::Uniform));
        assert_eq!(distribution("zipf"), Ok(Distribution::Zipf(0.99)));
        assert_eq!(distribution("zipf:1"), Ok(Distribution::Zipf(1.0)));
        for text in ["", "normal", "uniform:1", "zipf:", "zipf:-1", "zipf:nan", "zipf:11"] {
            assert!(distribution(text).is_err(), "{text}");
        }
    }
}
