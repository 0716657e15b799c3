//! `stat` (kumostat): figures and hash spaces of servers, and whether all nodes have the same hash spaces.

mod answer;
mod command;
mod hscheck;
mod target;

use std::process::ExitCode;

use clap::{ArgGroup, Parser};

use crate::cli::args::{Call, parse};
use crate::cli::exit::Stop;
use crate::cli::tool::{ask_all, block_on, json, reason, show};
use crate::wire::NodeAddress;
use crate::wire::method::ErrorCode;
use answer::{Answer, ask, outcome};
use command::Command;
use target::Target;

/// Shows figures of a server, or with -m of every active server of a cluster
#[derive(Debug, Parser)]
#[command(allow_missing_positional = true, group = ArgGroup::new("target").required(true).args(["server", "manager1"]))]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,

    /// What to show
    #[arg(value_enum)]
    command: Command,

    /// Print an array with an object for each node
    #[arg(long)]
    json: bool,
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    block_on(async {
        match args.command {
            Command::Hscheck => hscheck::run(&args.target, args.json).await,
            _ => args.print().await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Asks every server, and prints an answer or a reason for each.
    async fn print(&self) -> Result<(), Stop> {
        let caller = self.target.cluster.caller();
        let servers = self.target.servers(&caller).await?;
        let command = self.command;
        let answers = ask_all(&servers, self.target.cluster.timeout, |server| {
            let caller = caller.clone();
            async move { ask(&caller, server, command).await }
        })
        .await;
        let answers: Vec<_> = servers.iter().copied().zip(answers).collect();
        if self.json {
            let objects: Vec<_> = answers.iter().map(|(server, answer)| object(*server, command, answer)).collect();
            show(json(&objects)?.as_bytes())?;
        } else if self.target.server.is_none() {
            show(answers.iter().map(|(server, answer)| lines(*server, answer)).collect::<String>().as_bytes())?;
        } else if let [(_, Ok(answer))] = answers.as_slice() {
            show(answer.to_string().as_bytes())?;
        }
        outcome(&answers)
    }
}

/// One server's answer among several: each line begins with its address.
fn lines(node: NodeAddress, answer: &Result<Answer, ErrorCode>) -> String {
    let text = answer.as_ref().map_or_else(|error| reason(*error).to_owned(), ToString::to_string);
    let head = format!("{node}:  ");
    text.lines().flat_map(|line| [&head, line, "\n"]).collect()
}

fn object(node: NodeAddress, command: Command, answer: &Result<Answer, ErrorCode>) -> serde_json::Value {
    let mut object = match answer {
        Ok(answer) => answer.object(&command.name()),
        Err(error) => [("error".to_owned(), reason(*error).into())].into_iter().collect(),
    };
    object.insert("address".to_owned(), node.to_string().into());
    object.into()
}
