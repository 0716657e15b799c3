//! `top` (kumotop): a live screen of all servers, or one table of them.

mod draw;
mod model;
mod row;
mod screen;
mod table;
mod watch;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{ArgGroup, Parser};
use serde_json::{Value, json};

use crate::cli::args::values::positive_seconds;
use crate::cli::args::{Call, parse};
use crate::cli::exit::Stop;
use crate::cli::tool::{Cluster, ask_all, block_on, failed, json, reason, server, show};
use crate::client::Error;
use crate::net::hosts::HostPort;
use crate::wire::figures::ReplaceFigures;
use model::Model;
use row::{Membership, Row, Sort, whole};
use watch::Poller;

/// The end of `--help`.
const NOTES: &str = "\
Keys: q, Esc or Ctrl-C quits; t g s d sort by requests, gets, sets or deletes in a second, i by items, k by skew of the \
clocks, u by status, a by address; r reverses; arrows and page keys scroll.

Skew is how far a server's clock is ahead of the servers' middle one. With -m servers are shown as they come and go; one \
that does not answer stays until the manager forgets it.

Exit status of --once: 0 all servers answer, 1 not so.";

/// Shows rates, items, clocks and the replace of all servers, live
#[derive(Debug, Parser)]
#[command(after_help = NOTES, group = ArgGroup::new("target").required(true).args(["servers", "manager1"]))]
pub(super) struct Args {
    /// The servers to watch [port: 19800]
    #[arg(value_name = "SERVER[:PORT]")]
    servers: Vec<HostPort>,

    #[command(flatten)]
    cluster: Cluster,

    /// Interval between two samples
    #[arg(short, long, value_name = "SEC", default_value = "0.5", value_parser = interval)]
    interval: Duration,

    /// Print one table and end; rates are of one interval
    #[arg(long)]
    once: bool,

    /// Print the table as JSON
    #[arg(long, requires = "once")]
    json: bool,
}

/// A pause that leaves the servers something else to do.
fn interval(text: &str) -> Result<Duration, String> {
    positive_seconds(text).and_then(|time| match time {
        time if time < Duration::from_millis(100) => Err("must be at least 0.1 seconds".to_owned()),
        time => Ok(time),
    })
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    if !args.once && !std::io::stdout().is_terminal() {
        return Err(Stop::Usage("standard output is not a terminal; --once prints a table".to_owned()));
    }
    let servers: Result<Vec<_>, _> = args.servers.iter().map(|host| server("server", host)).collect();
    let mut model = Model::named(&servers?);
    let managers = args.cluster.named_managers()?;
    block_on(async {
        let poller = Poller { caller: args.cluster.caller(), managers, timeout: args.cluster.timeout };
        if !poller.managers.is_empty() {
            // A manager that is not there at the start is more likely a mistake than a failure.
            model.take_nodes(poller.nodes().await.map_err(|failures| no_manager(&failures))?);
        }
        if args.once {
            once(&args, poller, model).await.map(|()| ExitCode::SUCCESS)
        } else {
            screen::run(poller, args.interval, model).await
        }
    })
}

fn no_manager(failures: &[(crate::wire::NodeAddress, crate::wire::method::ErrorCode)]) -> Stop {
    let failure = failures.last().map(|(manager, error)| failed(Error::Manager(*manager, *error)));
    failure.unwrap_or_else(|| Stop::Failed("no manager to ask".to_owned()))
}

/// Samples all servers twice, and prints a table.
async fn once(args: &Args, poller: Poller, mut model: Model) -> Result<(), Stop> {
    let servers: Vec<_> = model.servers().into_iter().collect();
    for sample in 0..2 {
        if sample > 0 {
            tokio::time::sleep(args.interval).await;
        }
        let answers = ask_all(&servers, poller.timeout, |server| {
            let poller = poller.clone();
            async move { Ok(poller.sample(server).await) }
        })
        .await;
        for (server, answer) in servers.iter().zip(answers) {
            match answer {
                Ok((time, answer)) => model.take(*server, time, answer),
                Err(error) => model.take(*server, Instant::now()..Instant::now(), Err(error)),
            }
        }
    }
    let rows = model.sorted(Sort::Address, false);
    show(
        if args.json {
            json(&rows.iter().map(|row| object(row)).collect::<Vec<_>>())?
        } else {
            table::text(&model, &rows)
        }
        .as_bytes(),
    )?;
    match rows.iter().filter(|row| row.reading().is_none()).count() {
        0 => Ok(()),
        silent => Err(Stop::Failed(format!("{silent} of {} servers did not answer", rows.len()))),
    }
}

/// A row as JSON: counters as `stat` names them.
fn object(row: &Row) -> Value {
    let membership = match row.membership {
        Membership::Named => None,
        Membership::Active => Some("active"),
        Membership::Fault => Some("fault"),
        Membership::Detached => Some("not attached"),
    };
    let mut object = json!({
        "address": row.address.to_string(),
        "standing": membership,
        "status": row.word().0,
    });
    let members = match (row.reading(), row.failure) {
        (Some(reading), _) => {
            let status = reading.status;
            let figures = reading.figures.clone().unwrap_or_default();
            let progress = figures.replace.map(|ReplaceFigures { scanned, sent, received, dropped, .. }| {
                json!({"scanned": scanned, "sent": sent, "received": received, "dropped": dropped})
            });
            json!({
                "cmd_get": status.gets, "cmd_set": status.sets, "cmd_delete": status.deletes,
                "get_per_s": row.rates.map(|rates| whole(rates.gets)),
                "set_per_s": row.rates.map(|rates| whole(rates.sets)),
                "delete_per_s": row.rates.map(|rates| whole(rates.deletes)),
                "qps": row.rates.map(|rates| whole(rates.total())),
                "items": status.items, "time": status.time, "skew_s": row.skew, "clock": row.clock(),
                "flags": status.flags, "replace": progress, "failed": figures.store.failed,
            })
        }
        (None, Some(error)) => json!({"error": reason(error)}),
        (None, None) => Value::Null,
    };
    if let (Value::Object(object), Value::Object(members)) = (&mut object, members) {
        object.extend(members);
    }
    object
}
