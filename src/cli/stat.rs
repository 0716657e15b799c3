//! `stat` (kumostat): what servers tell of themselves, and whether all nodes have the same hash spaces.

mod check;
mod told;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgGroup, Parser, ValueEnum};

use super::parse::{Call, Stop, parse};
use super::tool::{Cluster, ask_all, block_on, failed, json, server, show, trouble};
use crate::client::{Caller, Error};
use crate::net::hosts::HostPort;
use crate::wire::NodeAddress;
use crate::wire::method::{ErrorCode, STATUS_WHS};
pub(super) use told::replace_state;
use told::{Told, tell};

/// Shows what a server tells of itself, or with -m every active server of a cluster
#[derive(Debug, Parser)]
#[command(allow_missing_positional = true, group = ArgGroup::new("target").required(true).args(["server", "manager1"]))]
pub(super) struct Args {
    /// The server to ask [port: 19800]
    #[arg(value_name = "SERVER[:PORT]")]
    server: Option<HostPort>,

    /// What to show
    #[arg(value_enum)]
    command: Command,

    #[command(flatten)]
    cluster: Cluster,

    /// Print an array with an object for each node
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Command {
    /// Process id
    Pid,
    /// Seconds since the start
    Uptime,
    /// Unix seconds by the server's clock
    Time,
    /// Version
    Version,
    /// Get requests since the start
    #[value(name = "cmd_get")]
    CmdGet,
    /// Set requests since the start
    #[value(name = "cmd_set")]
    CmdSet,
    /// Delete requests since the start
    #[value(name = "cmd_delete")]
    CmdDelete,
    /// Stored records, deleted ones that are still remembered included
    Items,
    /// All of these, as memcached's stats
    Stats,
    /// The hash space for reading
    Rhs,
    /// The hash space for writing
    Whs,
    /// Whether managers and servers have the same hash spaces; exit status 1 if not
    Hscheck,
    /// State of the replace: inactive, Deleting, Copying, WAIT or ready
    Replstat,
    /// Let the kernel gather small packets on the server's connections; shows how many there are
    #[value(name = "set_delay")]
    SetDelay,
    /// Send small packets at once, as after the start
    #[value(name = "unset_delay")]
    UnsetDelay,
    /// Everything that a server of this program tells, as JSON
    Figures,
}

impl Command {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    block_on(async {
        match args.command {
            Command::Hscheck => check::run(&args).await,
            _ => args.tell().await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Asks every server, and prints an answer or a reason for each.
    async fn tell(&self) -> Result<(), Stop> {
        let caller = self.cluster.caller();
        let servers = self.servers(&caller).await?;
        let command = self.command;
        let answers = ask_all(&servers, self.cluster.timeout, |server| {
            let caller = caller.clone();
            async move { tell(&caller, server, command).await }
        })
        .await;
        let answers: Vec<_> = servers.iter().copied().zip(answers).collect();
        if self.json {
            let objects: Vec<_> = answers.iter().map(|(server, answer)| object(*server, command, answer)).collect();
            show(json(&objects)?.as_bytes())?;
        } else if self.server.is_none() {
            show(answers.iter().map(|(server, answer)| lines(*server, answer)).collect::<String>().as_bytes())?;
        } else if let [(_, Ok(told))] = answers.as_slice() {
            show(told.to_string().as_bytes())?;
        }
        outcome(&answers)
    }

    /// Whom to ask: the server that was named, or all active ones.
    async fn servers(&self, caller: &Arc<Caller>) -> Result<Vec<NodeAddress>, Stop> {
        if let Some(host) = &self.server {
            return Ok(vec![server("server", host)?]);
        }
        let whs = self.cluster.space(caller).await?;
        Ok(whs.nodes.into_iter().filter(|(_, active)| *active).map(|(node, _)| node).collect())
    }

    /// Every active server of the cluster that the one named belongs to.
    async fn relatives(&self, caller: &Arc<Caller>) -> Result<Vec<NodeAddress>, Stop> {
        let servers = self.servers(caller).await?;
        let ([named], true) = (servers.as_slice(), self.server.is_some()) else { return Ok(servers) };
        let whs = caller.space(*named, STATUS_WHS).await.map_err(|error| failed(Error::Server(*named, error)))?;
        let others = whs.nodes.into_iter().filter(|(node, active)| *active && node != named);
        Ok(std::iter::once(*named).chain(others.map(|(node, _)| node)).collect())
    }
}

/// One server's answer among several: each line begins with its address.
fn lines(node: NodeAddress, answer: &Result<Told, ErrorCode>) -> String {
    let text = answer.as_ref().map_or_else(|error| trouble(*error).to_owned(), ToString::to_string);
    let head = format!("{node}:  ");
    text.lines().flat_map(|line| [&head, line, "\n"]).collect()
}

fn object(node: NodeAddress, command: Command, answer: &Result<Told, ErrorCode>) -> serde_json::Value {
    let mut object = match answer {
        Ok(told) => told.object(&command.name()),
        Err(error) => [("error".to_owned(), trouble(*error).into())].into_iter().collect(),
    };
    object.insert("address".to_owned(), node.to_string().into());
    object.into()
}

/// The error line if not all have answered.
fn outcome<T>(answers: &[(NodeAddress, Result<T, ErrorCode>)]) -> Result<(), Stop> {
    let mut failures = answers.iter().filter_map(|(node, answer)| answer.as_ref().err().map(|error| (*node, *error)));
    match (answers, failures.next()) {
        (_, None) => Ok(()),
        ([_], Some((node, error))) => Err(failed(Error::Server(node, error))),
        (_, Some(_)) => {
            Err(Stop::Failed(format!("{} of {} nodes did not answer", failures.count() + 1, answers.len())))
        }
    }
}
