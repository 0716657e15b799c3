//! `ctl` (kumoctl): shows the state of a cluster and changes it, through its manager.

mod backup;
mod choice;
mod manager;
mod members;
mod status;
mod wait;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::cli::args::values::seconds;
use crate::cli::args::{Call, parse};
use crate::cli::exit::Stop;
use crate::cli::tool::date;
use crate::cli::tool::{block_on, manager, server, show};
use crate::client::{Caller, Overview};
use crate::clock::unix_seconds;
use crate::net::hosts::HostPort;
use crate::wire::NodeAddress;
use crate::wire::method::{ErrorCode, SetAutoReplace, StartReplace};
use crate::wire::params::{NODE_LIMIT, is_backup_suffix};
use choice::{Expected, Kind, MemberChange};
use status::Status;

use manager::explained;
pub(super) use manager::{caller, failed, overview};
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

    /// The command
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

    /// attach: change nothing unless there are so many servers in all, with those that are attached already
    #[arg(long, value_name = "N", conflicts_with = "expect", value_parser = clap::value_parser!(u16).range(1..=NODE_LIMIT as i64))]
    total: Option<u16>,

    /// detach: the servers named are off and stay off, and those that are left are no majority: go on without their
    /// votes. What the servers named have acknowledged without the others is lost; before one of them is started again,
    /// remove its store
    #[arg(long)]
    force: bool,

    /// How long to wait for the servers that are named or expected, and for the manager if it cannot be reached
    /// [default: 30]
    #[arg(long, value_name = "SEC", value_parser = seconds)]
    timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Command {
    /// Show the attached servers, those that are not, how the servers vote, and who is waited for
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
    /// The same, but every server sends all its records
    FullReplace,
    /// Have every active server write a backup beside its store
    Backup,
    /// Let this manager attach, detach and replace by itself
    EnableAutoReplace,
    /// Leave that to the operator
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
    let wanted = args.member_change()?;
    block_on(async {
        if args.command == Command::Status {
            let overview = overview(&caller(QUESTION), manager).await?;
            let status = Status::of(&Arc::new(caller(QUESTION)), manager, overview).await;
            return show(if args.json { status.to_json()? } else { status.text() }.as_bytes());
        }
        let caller = caller(CHANGE);
        match (args.command, wanted) {
            (_, Some((wanted, replace))) => {
                let done = if args.force {
                    members::force(&caller, manager, &wanted, replace).await?
                } else {
                    members::change(&caller, manager, &wanted, replace, args.timeout.unwrap_or(LISTING)).await?
                };
                show(done.text.as_bytes())?;
                if args.wait && done.replace { wait::wait_for(&caller, manager, &done.before).await } else { Ok(()) }
            }
            (Command::Backup, _) => {
                let suffix = args.operands.first().cloned().unwrap_or_else(today);
                backup::back_up(&caller, manager, &suffix, args.wait).await
            }
            _ => {
                let before = overview(&caller, manager).await?;
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
        if self.force && !matches!(self.command.members(), Some((Kind::Detach, _))) {
            return Err(Stop::Usage(format!("--force: only for detach, not for {name}")));
        }
        if self.force && self.operands.is_empty() {
            return Err(Stop::Usage("--force: name the servers that are off and stay off".to_owned()));
        }
        if self.force && self.timeout.is_some() {
            return Err(Stop::Usage("--timeout: --force waits for no servers".to_owned()));
        }
        if self.expect.is_some() && self.command.members().is_none() {
            return Err(Stop::Usage(format!("--expect: only for attach and detach, not for {name}")));
        }
        if self.expect.is_some() && !self.operands.is_empty() {
            return Err(Stop::Usage("--expect: the servers are named already".to_owned()));
        }
        if self.total.is_some() && !matches!(self.command, Command::Attach | Command::AttachNoreplace) {
            return Err(Stop::Usage(format!("--total: only for attach, not for {name}")));
        }
        if self.total.is_some() && !self.operands.is_empty() {
            return Err(Stop::Usage("--total: the servers are named already".to_owned()));
        }
        if self.timeout.is_some()
            && self.expect.is_none()
            && self.total.is_none()
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

    /// The servers to attach or detach, and whether a replace is to follow.
    fn member_change(&self) -> Result<Option<(MemberChange, bool)>, Stop> {
        let Some((kind, replace)) = self.command.members() else { return Ok(None) };
        let address = |operand: &String| {
            let host: HostPort =
                operand.parse().map_err(|error| Stop::Usage(format!("invalid server '{operand}': {error}")))?;
            server("server", &host)
        };
        let servers = self.operands.iter().map(address).collect::<Result<BTreeSet<_>, _>>()?;
        let expected = self.expect.map(|count| Expected::Changes(count.into()));
        let expected = expected.or(self.total.map(|count| Expected::Total(count.into())));
        Ok(Some((MemberChange { kind, servers, expected }, replace)))
    }
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
    match answer {
        Ok(_) => Ok(()),
        Err(error) => Err(explained(caller, manager, error).await),
    }
}

fn today() -> String {
    date::compact(unix_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "m attach --total 3 --timeout 1",
            "m detach --force a b:1 --wait",
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
            ("m attach --force a", "--force: only for detach, not for attach"),
            ("m detach --force", "--force: name the servers that are off and stay off"),
            ("m detach --force a --timeout 2", "--timeout: --force waits for no servers"),
            ("m attach a --expect 2", "--expect: the servers are named already"),
            ("m detach --total 2", "--total: only for attach, not for detach"),
            ("m attach a --total 2", "--total: the servers are named already"),
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
