//! `ctl` (kumoctl): shows the state of a cluster and changes it, through its manager.

mod wait;

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;

use super::hosts::HostPort;
use super::parse::{Call, Stop, parse};
use super::space;
use super::tool::{block_on, json, manager, show, trouble};
use crate::client::{Caller, Options};
use crate::clock::unix_seconds;
use crate::env::Env;
use crate::wire::NodeAddress;
use crate::wire::method::{ErrorCode, Method};
use crate::wire::params::{self, Seed};
pub(super) use wait::wait;

/// How long a manager may take to answer a question.
const QUESTION: Duration = Duration::from_secs(4);
/// How long it may take for a change: it waits until servers it does not hear from are lost.
const CHANGE: Duration = Duration::from_secs(30);

/// Shows the state of a cluster, attaches and detaches servers, starts replaces and backups.
#[derive(Debug, Parser)]
pub(super) struct Args {
    /// Address of a manager of the cluster [port: 19700]
    #[arg(value_name = "MANAGER[:PORT]")]
    manager: HostPort,

    /// What to do
    #[arg(value_enum)]
    command: Command,

    /// Suffix of the backup files [default: today, YYYYMMDD]
    suffix: Option<String>,

    /// Print the status as JSON
    #[arg(long)]
    json: bool,

    /// Return when the replace has finished; progress goes to a terminal
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Command {
    /// Show the attached servers, and those that are not
    Status,
    /// Attach the servers that are not, and start a replace
    Attach,
    /// Attach them without a replace: what they should have is not copied to them
    AttachNoreplace,
    /// Remove the servers in fault, and start a replace
    Detach,
    /// Remove them without a replace
    DetachNoreplace,
    /// Copy every record to the servers that should have it, then delete it elsewhere
    Replace,
    /// The same, where every server sends all its records
    FullReplace,
    /// Have every server write a backup beside its store
    Backup,
    /// Let the manager attach, detach and replace by itself
    EnableAutoReplace,
    /// Leave that to you
    DisableAutoReplace,
}

impl Command {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn replaces(self) -> bool {
        matches!(self, Self::Attach | Self::Detach | Self::Replace | Self::FullReplace)
    }
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    args.check()?;
    let manager = manager("manager", &args.manager)?;
    block_on(async {
        match args.command {
            Command::Status => {
                let nodes = nodes(&caller(QUESTION), manager).await?;
                show(if args.json { nodes.json()? } else { nodes.text() }.as_bytes())
            }
            _ => {
                let caller = caller(CHANGE);
                change(&caller, manager, &args).await?;
                if args.wait { wait(&caller, manager).await } else { Ok(()) }
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
        if self.wait && !self.command.replaces() {
            return Err(Stop::Usage(format!("--wait: {name} starts no replace")));
        }
        match &self.suffix {
            Some(suffix) if self.command != Command::Backup => {
                Err(Stop::Usage(format!("unexpected argument '{suffix}' behind {name}")))
            }
            Some(suffix) if !params::is_backup_suffix(suffix.as_bytes()) => Err(Stop::Usage(format!(
                "suffix '{suffix}': 1 to 64 of letters, digits, '.', '_' and '-', not starting with a dot"
            ))),
            _ => Ok(()),
        }
    }
}

/// A client of nodes whose answers may take so long.
pub(super) fn caller(call_timeout: Duration) -> Caller {
    Caller::new(&Env::real(), &Options { call_timeout, ..Options::default() })
}

/// Asks the manager for a change; it answers when the change has begun.
async fn change(caller: &Caller, manager: NodeAddress, args: &Args) -> Result<(), Stop> {
    let switch = |method, value| caller.ask(manager, method, move |out| params::write_switch(out, value));
    let answer = match args.command {
        Command::Status => return Ok(()),
        Command::Attach => switch(Method::AttachNewServers, true).await,
        Command::AttachNoreplace => switch(Method::AttachNewServers, false).await,
        Command::Detach => switch(Method::DetachFaultServers, true).await,
        Command::DetachNoreplace => switch(Method::DetachFaultServers, false).await,
        Command::Replace => switch(Method::StartReplace, false).await,
        Command::FullReplace => switch(Method::StartReplace, true).await,
        Command::EnableAutoReplace => switch(Method::SetAutoReplace, true).await,
        Command::DisableAutoReplace => switch(Method::SetAutoReplace, false).await,
        Command::Backup => {
            let suffix = args.suffix.clone().unwrap_or_else(today);
            let write = |out: &mut Vec<u8>| params::write_backup_suffix(out, suffix.as_bytes());
            caller.ask(manager, Method::ManagerBackup, write).await
        }
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
pub(super) struct Nodes {
    pub(super) whs: Seed,
    pub(super) detached: Vec<NodeAddress>,
}

pub(super) async fn nodes(caller: &Caller, manager: NodeAddress) -> Result<Nodes, Stop> {
    let (whs, detached) = caller.nodes(manager).await.map_err(|error| failed(manager, error))?;
    Ok(Nodes { whs, detached })
}

impl Nodes {
    fn text(&self) -> String {
        let mut text = space::text(&self.whs);
        text += "not attached node:\n";
        for node in &self.detached {
            let _ = writeln!(text, "  {node}");
        }
        text
    }

    fn json(&self) -> Result<String, Stop> {
        #[derive(Serialize)]
        struct Status {
            #[serde(flatten)]
            whs: space::Json,
            not_attached: Vec<String>,
        }
        let status = Status {
            whs: space::Json::new(&self.whs),
            not_attached: self.detached.iter().map(NodeAddress::to_string).collect(),
        };
        json(&status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockTime;

    fn nodes() -> Nodes {
        let node = |port| NodeAddress::new(([127, 0, 0, 1], port).into());
        let whs = Seed {
            nodes: vec![(node(19801), true), (node(19802), false)],
            clocktime: ClockTime::new(1_228_315_535, 62),
        };
        Nodes { whs, detached: vec![node(19803)] }
    }

    #[test]
    fn status_looks_as_it_did() {
        assert_eq!(
            nodes().text(),
            "hash space timestamp:\n  Wed Dec 03 14:45:35 +0000 2008 clock 62\n\
             attached node:\n  127.0.0.1:19801  (active)\n  127.0.0.1:19802  (fault)\n\
             not attached node:\n  127.0.0.1:19803\n"
        );
        let empty = Nodes { whs: Seed::default(), detached: Vec::new() };
        assert_eq!(
            empty.text(),
            "hash space timestamp:\n  Thu Jan 01 00:00:00 +0000 1970 clock 0\nattached node:\nnot attached node:\n"
        );
    }

    #[test]
    fn status_as_json_says_the_same() {
        assert_eq!(
            nodes().json().unwrap(),
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
        for line in ["m status --json", "m attach --wait", "m backup", "m backup 20261122", "m full-replace"] {
            assert_eq!(checked(line), Ok(()), "{line}");
        }
        for (line, message) in [
            ("m attach --json", "--json: only for status, not for attach"),
            ("m attach-noreplace --wait", "--wait: attach-noreplace starts no replace"),
            ("m status x", "unexpected argument 'x' behind status"),
            ("m backup ../x", "suffix '../x': 1 to 64 of letters, digits, '.', '_' and '-', not starting with a dot"),
        ] {
            assert_eq!(checked(line), Err(Stop::Usage(message.to_owned())), "{line}");
        }
        assert!(checked("m").is_err());
        assert!(checked("m nonsense").is_err());
    }
}
