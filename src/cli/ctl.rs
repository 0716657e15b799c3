//! `ctl` (kumoctl): shows the state of a cluster and changes it, through its manager.

mod backup;
mod choice;
mod members;
mod wait;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;

use super::parse::{Call, Stop, parse};
use super::space;
use super::tool::{block_on, json, manager, server, show, trouble};
use super::values::seconds;
use crate::client::{Caller, Options, Overview};
use crate::clock::unix_seconds;
use crate::env::Env;
use crate::net::hosts::HostPort;
use crate::wire::NodeAddress;
use crate::wire::method::{ErrorCode, SetAutoReplace, StartReplace};
use crate::wire::params::{NODE_LIMIT, is_backup_suffix};
use choice::{Kind, Wish};
pub(super) use wait::wait;

/// How long a manager may take to answer a question.
const QUESTION: Duration = Duration::from_secs(4);
/// How long it may take for a change: it waits until servers it does not hear from are lost.
const CHANGE: Duration = Duration::from_secs(30);
/// How long servers that are named or expected may take to be listed: a hung one is lost after 11 s, with two original
/// managers a dead one after more than 20 s.
const LISTING: Duration = Duration::from_secs(30);

/// Shows the state of a cluster, attaches and detaches servers, starts replaces and backups.
#[derive(Debug, Parser)]
pub(super) struct Args {
    /// Address of a manager of the cluster [port: 19700]
    #[arg(value_name = "MANAGER[:PORT]")]
    manager: HostPort,

    /// What to do
    #[arg(value_enum)]
    command: Command,

    /// attach and detach: only these servers [port: 19800]; backup: suffix of the files [default: today, YYYYMMDD]
    #[arg(value_name = "SERVER[:PORT]|SUFFIX")]
    operands: Vec<String>,

    /// Print the status as JSON
    #[arg(long)]
    json: bool,

    /// Return when the replace has finished, or the backup; progress of a replace goes to a terminal
    #[arg(long)]
    wait: bool,

    /// attach and detach: change nothing unless there are so many servers to attach or detach
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=NODE_LIMIT as i64))]
    expect: Option<u16>,

    /// How long to wait for the servers that are named or expected [default: 30]
    #[arg(long, value_name = "SEC", value_parser = seconds)]
    timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Command {
    /// Show the attached servers, and those that are not
    Status,
    /// Attach the servers that are not, or those named, and start a replace
    Attach,
    /// Attach them without a replace: what they should have is not copied to them
    AttachNoreplace,
    /// Remove the servers in fault, or those named of them; if there are any, start a replace
    Detach,
    /// Remove them without a replace
    DetachNoreplace,
    /// Copy every record to the servers that should have it, then delete it elsewhere
    Replace,
    /// The same, where every server sends all its records
    FullReplace,
    /// Have every active server write a backup beside its store
    Backup,
    /// Let this manager attach, detach and replace by itself
    EnableAutoReplace,
    /// Leave that to you
    DisableAutoReplace,
}

impl Command {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether there is something to wait for.
    fn may_wait(self) -> bool {
        matches!(self, Self::Attach | Self::Detach | Self::Replace | Self::FullReplace | Self::Backup)
    }

    /// Whether it attaches or detaches, and with a replace.
    fn members(self) -> Option<(Kind, bool)> {
        match self {
            Self::Attach => Some((Kind::Attach, true)),
            Self::AttachNoreplace => Some((Kind::Attach, false)),
            Self::Detach => Some((Kind::Detach, true)),
            Self::DetachNoreplace => Some((Kind::Detach, false)),
            _ => None,
        }
    }
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    args.check()?;
    let manager = manager("manager", &args.manager)?;
    let wish = args.wish()?;
    block_on(async {
        if args.command == Command::Status {
            let nodes = nodes(&caller(QUESTION), manager).await?;
            return show(if args.json { status_json(&nodes)? } else { status_text(&nodes) }.as_bytes());
        }
        let caller = caller(CHANGE);
        match (args.command, wish) {
            (_, Some((wish, replace))) => {
                let before = nodes(&caller, manager).await?;
                let done = members::change(&caller, manager, &wish, replace, args.timeout.unwrap_or(LISTING)).await?;
                show(done.text.as_bytes())?;
                if args.wait && done.replace { wait::wait_for(&caller, manager, &before).await } else { Ok(()) }
            }
            (Command::Backup, _) => {
                let suffix = args.operands.first().cloned().unwrap_or_else(today);
                backup::back_up(&caller, manager, &suffix, args.wait).await
            }
            _ => {
                let before = nodes(&caller, manager).await?;
                switch(&caller, manager, args.command, &before).await?;
                if args.wait { wait::wait_for(&caller, manager, &before).await } else { Ok(()) }
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn check(&self) -> Result<(), Stop> {
        let name = self.command.name();
        if self.json && self.command != Command::Status {
            return Err(Stop::Usage(format!("--json: only for status, not for {name}")));
        }
        if self.wait && !self.command.may_wait() {
            return Err(Stop::Usage(format!("--wait: {name} starts no replace")));
        }
        if self.expect.is_some() && self.command.members().is_none() {
            return Err(Stop::Usage(format!("--expect: only for attach and detach, not for {name}")));
        }
        if self.expect.is_some() && !self.operands.is_empty() {
            return Err(Stop::Usage("--expect: the servers are named already".to_owned()));
        }
        if self.timeout.is_some()
            && self.expect.is_none()
            && (self.command.members().is_none() || self.operands.is_empty())
        {
            return Err(Stop::Usage("--timeout: no servers to wait for are named or expected".to_owned()));
        }
        let most = match self.command {
            Command::Backup => 1,
            command if command.members().is_some() => NODE_LIMIT,
            _ => 0,
        };
        if let Some(operand) = self.operands.get(most) {
            return Err(Stop::Usage(format!("unexpected argument '{operand}' behind {name}")));
        }
        match self.operands.first() {
            Some(suffix) if self.command == Command::Backup && !is_backup_suffix(suffix.as_bytes()) => {
                Err(Stop::Usage(format!(
                    "suffix '{suffix}': 1 to 64 of letters, digits, '.', '_' and '-', not starting with a dot"
                )))
            }
            _ => Ok(()),
        }
    }

    /// What is to be attached or detached, and whether a replace is to follow.
    fn wish(&self) -> Result<Option<(Wish, bool)>, Stop> {
        let Some((kind, replace)) = self.command.members() else { return Ok(None) };
        let address = |operand: &String| {
            let host: HostPort =
                operand.parse().map_err(|error| Stop::Usage(format!("invalid server '{operand}': {error}")))?;
            server(operand, &host)
        };
        let servers = self.operands.iter().map(address).collect::<Result<BTreeSet<_>, _>>()?;
        Ok(Some((Wish { kind, servers, expect: self.expect.map(usize::from) }, replace)))
    }
}

/// A client of nodes whose answers may take so long.
pub(super) fn caller(call_timeout: Duration) -> Caller {
    Caller::new(&Env::real(), &Options { call_timeout, ..Options::default() })
}

/// Asks the manager for a change that is a switch; it answers when the change has begun.
async fn switch(caller: &Caller, manager: NodeAddress, command: Command, before: &Overview) -> Result<(), Stop> {
    let answer = match command {
        Command::EnableAutoReplace => caller.ask(manager, &SetAutoReplace { enabled: true }).await,
        Command::DisableAutoReplace => caller.ask(manager, &SetAutoReplace { enabled: false }).await,
        // An original manager answers as if it had started one.
        _ if before.state.is_none() && !before.whs.has_active() => Err(ErrorCode::Server),
        _ => caller.ask(manager, &StartReplace { full: command == Command::FullReplace }).await,
    };
    answer.map(drop).map_err(|error| failed(manager, error))
}

fn today() -> String {
    super::date::compact(unix_seconds())
}

/// The one line for a call to the manager that failed.
pub(super) fn failed(manager: NodeAddress, error: ErrorCode) -> Stop {
    Stop::Failed(match error {
        ErrorCode::Server => format!("manager {manager} refuses: no server is active (its log says more)"),
        error => format!("manager {manager} {}", trouble(error)),
    })
}

/// The servers of a cluster as its manager knows them.
pub(super) async fn nodes(caller: &Caller, manager: NodeAddress) -> Result<Overview, Stop> {
    caller.overview(manager).await.map_err(|error| failed(manager, error))
}

fn status_text(nodes: &Overview) -> String {
    let mut text = space::text(&nodes.whs);
    text += "not attached node:\n";
    for node in &nodes.detached {
        let _ = writeln!(text, "  {node}");
    }
    text
}

fn status_json(nodes: &Overview) -> Result<String, Stop> {
    #[derive(Serialize)]
    struct Status {
        #[serde(flatten)]
        whs: space::Json,
        not_attached: Vec<String>,
    }
    json(&Status {
        whs: space::Json::new(&nodes.whs),
        not_attached: nodes.detached.iter().map(NodeAddress::to_string).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockTime;
    use crate::wire::params::Seed;

    fn nodes() -> Overview {
        let node = |port| NodeAddress::new(([127, 0, 0, 1], port).into());
        let whs = Seed {
            nodes: vec![(node(19801), true), (node(19802), false)],
            clocktime: ClockTime::new(1_228_315_535, 62),
        };
        Overview { whs, detached: vec![node(19803)], state: None }
    }

    #[test]
    fn status_looks_as_it_did() {
        assert_eq!(
            status_text(&nodes()),
            "hash space timestamp:\n  Wed Dec 03 14:45:35 +0000 2008 clock 62\n\
             attached node:\n  127.0.0.1:19801  (active)\n  127.0.0.1:19802  (fault)\n\
             not attached node:\n  127.0.0.1:19803\n"
        );
        let empty = Overview::default();
        assert_eq!(
            status_text(&empty),
            "hash space timestamp:\n  Thu Jan 01 00:00:00 +0000 1970 clock 0\nattached node:\nnot attached node:\n"
        );
    }

    #[test]
    fn status_as_json_says_the_same() {
        assert_eq!(
            status_json(&nodes()).unwrap(),
            "{\"clocktime\":5275575051993743422,\"time\":1228315535,\"clock\":62,\
             \"attached\":[{\"address\":\"127.0.0.1:19801\",\"active\":true},\
             {\"address\":\"127.0.0.1:19802\",\"active\":false}],\"not_attached\":[\"127.0.0.1:19803\"]}\n"
        );
    }

    fn checked(line: &str) -> Result<(), Stop> {
        let args = line.split_whitespace().map(Into::into).collect();
        parse::<Args>(&Call { program: "kumoctl".to_owned(), args }, |command| command)?.check()
    }

    #[test]
    fn flags_belong_to_their_commands() {
        for line in [
            "m status --json",
            "m attach --wait",
            "m attach-noreplace a b:1 --timeout 5",
            "m detach --expect 2 --timeout 0",
            "m backup",
            "m backup 20261122 --wait",
            "m full-replace",
        ] {
            assert_eq!(checked(line), Ok(()), "{line}");
        }
        for (line, message) in [
            ("m attach --json", "--json: only for status, not for attach"),
            ("m attach-noreplace --wait", "--wait: attach-noreplace starts no replace"),
            ("m status x", "unexpected argument 'x' behind status"),
            ("m backup x y", "unexpected argument 'y' behind backup"),
            ("m replace --expect 2", "--expect: only for attach and detach, not for replace"),
            ("m attach a --expect 2", "--expect: the servers are named already"),
            ("m attach --timeout 2", "--timeout: no servers to wait for are named or expected"),
            ("m backup x --timeout 2", "--timeout: no servers to wait for are named or expected"),
            ("m backup ../x", "suffix '../x': 1 to 64 of letters, digits, '.', '_' and '-', not starting with a dot"),
        ] {
            assert_eq!(checked(line), Err(Stop::Usage(message.to_owned())), "{line}");
        }
        assert!(checked("m attach --expect 0").is_err());
        assert!(checked("m").is_err());
        assert!(checked("m nonsense").is_err());
    }
}
