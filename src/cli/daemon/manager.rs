//! The manager's flags, letter for letter, and the settings they resolve to.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Command, CommandFactory, Parser};
use tokio::time::Instant;

use super::common::{Bounds, Common, fit_connections};
use crate::cli::args::addresses::{own_address, peer_node};
use crate::cli::args::values::seconds;
use crate::cli::args::{Call, parse};
use crate::cli::exit::Stop;
use crate::env::Env;
use crate::life;
use crate::manager::{Config, Manager};
use crate::net::hosts::{HostPort, MANAGER_PORT, Resolver, system_resolver};
use crate::register::Timing;

/// The manager of a kumofs cluster: knows the servers, owns the hash space, starts rebalancing.
#[derive(Debug, Parser)]
struct Args {
    /// Address of this manager, by which the other nodes reach it [port: 19700]
    #[arg(short, long, value_name = "ADDR[:PORT]")]
    listen: HostPort,

    /// Address of the other manager, if there are two [port: 19700]
    #[arg(short, long, value_name = "ADDR[:PORT]")]
    partner: Option<HostPort>,

    /// Attach and detach servers, and start replaces, automatically
    #[arg(short, long)]
    auto_replace: bool,

    /// Keep to the original's behaviour: no votes, a single server goes on alone. Costs: both sides of a cut network then
    /// go on, and acknowledged writes of one are lost
    #[arg(long, conflicts_with_all = ["failure_timeout", "lease"])]
    compatible: bool,

    /// Silence after which a node of a cluster that votes is lost; where servers do not vote -k, -Ys and -Yn decide
    #[arg(long, value_name = "SEC", default_value = "1.5", value_parser = seconds)]
    failure_timeout: Duration,

    /// Time for which a majority confirms that a server may act, at most the failure time-out
    #[arg(long, value_name = "SEC", default_value = "1", value_parser = seconds)]
    lease: Duration,

    /// Delay between a change of the servers and an automatic replace
    #[arg(long, value_name = "SEC", default_value = "4", value_parser = seconds)]
    replace_delay: Duration,

    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    bounds: Bounds,
}

/// Runs a manager until a signal ends it.
pub(in crate::cli) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let (life, mut config) = settings(call)?;
    Ok(life::run(&life, async || {
        fit_connections(&mut config.limits.connections);
        Ok(Manager::start(&Env::real(), config)?)
    }))
}

impl life::Service for Manager {
    async fn stop(self, deadline: Instant) -> Result<(), life::Cause> {
        self.stop(deadline).await;
        Ok(())
    }

    fn reopen(&self) {
        self.reopen();
    }
}

/// Parses and resolves the manager's flags.
fn settings(call: &Call) -> Result<(life::Settings, Config), Stop> {
    let args: Args = parse(call, adjusted)?;
    let config = args.config(&system_resolver)?;
    Ok((args.common.life(&call.program, &args.bounds), config))
}

/// The manager's flags: those of every daemon, as far as they concern it.
pub(in crate::cli) fn command() -> Command {
    adjusted(Args::command())
}

fn adjusted(command: Command) -> Command {
    command
        .mut_arg("clock_interval", |flag| flag.default_value("2"))
        // Flags of every daemon, which a manager has no use for.
        .mut_arg("write_threads", |flag| flag.hide(true))
        .mut_arg("read_threads", |flag| flag.hide(true))
        .mut_arg("keepalive_interval", |flag| flag.help("Interval between keep-alive messages to each node"))
}

impl Args {
    fn config(&self, resolver: Resolver) -> Result<Config, Stop> {
        let address = own_address("-l", &self.listen, MANAGER_PORT, resolver)?;
        let partner = match &self.partner {
            Some(host) => Some(peer_node("-p", host, MANAGER_PORT, resolver)?),
            None => None,
        };
        if partner.as_ref().is_some_and(|partner| partner.is(address.into())) {
            return Err(Stop::Usage("-p names this manager itself (-l)".to_owned()));
        }
        let timing = Timing::new(self.lease, self.failure_timeout);
        let timing = timing.map_err(|error| Stop::Usage(format!("--lease and --failure-timeout: {error}")))?;
        Ok(Config {
            address: address.into(),
            bind: self.bounds.bind(address),
            partner,
            auto_replace: self.auto_replace,
            replace_delay: self.replace_delay,
            keepalive_interval: self.common.keepalive_interval,
            votes: !self.compatible,
            timing,
            dial: self.common.dial(),
            clock_interval: self.common.clock_interval,
            binary_log: self.common.binary_log()?,
            limits: self.bounds.limits()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: &str) -> Result<Config, Stop> {
        let args = line.split_whitespace().map(Into::into).collect();
        parse::<Args>(&Call { program: "kumo-manager".to_owned(), args }, adjusted)?.config(&system_resolver)
    }

    #[test]
    fn defaults_are_the_originals() {
        let config = config("-l 127.0.0.1").unwrap();
        assert_eq!((config.address.to_string().as_str(), config.partner.is_none()), ("127.0.0.1:19700", true));
        assert_eq!((config.auto_replace, config.replace_delay), (false, Duration::from_secs(4)));
        assert_eq!(
            (config.keepalive_interval, config.clock_interval),
            (Duration::from_secs(2), Duration::from_secs(2))
        );
        assert_eq!((config.dial.timeout, config.dial.retry_limit), (Duration::from_secs(1), 4));
        assert_eq!((config.votes, config.timing), (true, Timing::default()));
    }

    #[test]
    fn flags_arrive() {
        let config = config("-a -l 127.0.0.1:1 -p 127.0.0.1:2 -Rs 0.5 -Ci 3 -TR 9 -TW 9 -g m.mpac").unwrap();
        assert_eq!(config.partner.unwrap().to_string(), "127.0.0.1:2");
        assert_eq!((config.auto_replace, config.replace_delay), (true, Duration::from_millis(500)));
        assert_eq!((config.clock_interval, config.binary_log), (Duration::from_secs(3), Some("m.mpac".into())));
        assert!(!self::config("-l 127.0.0.1 --compatible").unwrap().votes);
        let timing = self::config("-l 127.0.0.1 --lease 0.4 --failure-timeout 0.8").unwrap().timing;
        assert_eq!((timing.lease().as_millis(), timing.failure().as_millis()), (400, 800));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, message) in [
            ("-l 127.0.0.1 -p 127.0.0.1", "-p names this manager itself (-l)"),
            ("-l 127.0.0.1 -gN 5", "unknown flag '-gN'"),
            (
                "-l 127.0.0.1 --failure-timeout 0.5",
                "--lease and --failure-timeout: the failure time-out of 0.5 seconds is shorter than the lease of 1 seconds",
            ),
            ("-l 127.0.0.1 --lease 0", "--lease and --failure-timeout: a lease lasts from 0.1 to 60 seconds, not 0"),
            ("-l 127.0.0.1 --compatible --lease 2", "the argument '--compatible' cannot be used with '--lease <SEC>'"),
            ("", "the following required arguments were not provided: --listen <ADDR[:PORT]>"),
        ] {
            assert_eq!(config(line).unwrap_err(), Stop::Usage(message.to_owned()), "{line}");
        }
    }
}
