//! The answers of servers: how one is asked for, how it looks as text and as JSON, and the error line for those that failed.

use std::fmt;

use serde_json::{Map, Value};

use super::command::Command;
use crate::cli::exit::Stop;
use crate::cli::tool::{failed, space};
use crate::client::{Caller, Error};
use crate::wire::NodeAddress;
use crate::wire::method::{
    ErrorCode, STATUS_DELETES, STATUS_FLAGS, STATUS_GETS, STATUS_ITEMS, STATUS_PID, STATUS_RHS, STATUS_SETS,
    STATUS_TIME, STATUS_UPTIME, STATUS_VERSION, STATUS_WHS,
};
use crate::wire::params::Seed;

/// memcached's names of the counters, and the numbers to ask for them.
const STATS: [(&str, u32); 7] = [
    ("pid", STATUS_PID),
    ("uptime", STATUS_UPTIME),
    ("time", STATUS_TIME),
    ("cmd_get", STATUS_GETS),
    ("cmd_set", STATUS_SETS),
    ("cmd_delete", STATUS_DELETES),
    ("curr_items", STATUS_ITEMS),
];

/// One answer of a server.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Number(u64),
    Text(String),
    Space(Seed),
    Stats { version: String, numbers: Vec<(&'static str, u64)> },
    Figures(Value),
}

/// Asks `server` for what `command` shows.
pub(super) async fn ask(caller: &Caller, server: NodeAddress, command: Command) -> Result<Answer, ErrorCode> {
    let number = async |number| caller.number(server, number).await.map(Answer::Number);
    match command {
        Command::Pid => number(STATUS_PID).await,
        Command::Uptime => number(STATUS_UPTIME).await,
        Command::Time => number(STATUS_TIME).await,
        Command::CmdGet => number(STATUS_GETS).await,
        Command::CmdSet => number(STATUS_SETS).await,
        Command::CmdDelete => number(STATUS_DELETES).await,
        Command::Items => number(STATUS_ITEMS).await,
        Command::Version => caller.text(server, STATUS_VERSION).await.map(Answer::Text),
        Command::Rhs => caller.space(server, STATUS_RHS).await.map(Answer::Space),
        Command::Whs => caller.space(server, STATUS_WHS).await.map(Answer::Space),
        Command::Replstat => {
            let flags = caller.number(server, STATUS_FLAGS).await?;
            Ok(Answer::Text(space::replace_state(flags).to_owned()))
        }
        Command::SetDelay => caller.set_nodelay(server, false).await.map(Answer::Number),
        Command::UnsetDelay => caller.set_nodelay(server, true).await.map(Answer::Number),
        Command::Figures => caller.figures_json(server).await?.map(Answer::Figures).ok_or(ErrorCode::Protocol),
        Command::Stats => {
            let version = caller.text(server, STATUS_VERSION).await?;
            let mut numbers = Vec::new();
            for (name, number) in STATS {
                numbers.push((name, caller.number(server, number).await?));
            }
            Ok(Answer::Stats { version, numbers })
        }
        // Not asked of one server.
        Command::Hscheck => Err(ErrorCode::Protocol),
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => writeln!(f, "{number}"),
            Self::Text(text) => writeln!(f, "{text}"),
            Self::Space(seed) => f.write_str(&space::text(seed)),
            Self::Figures(figures) => writeln!(f, "{figures}"),
            Self::Stats { version, numbers } => {
                for (name, number) in numbers {
                    writeln!(f, "STAT {name} {number}")?;
                    if *name == "time" {
                        writeln!(f, "STAT version {version}")?;
                    }
                }
                writeln!(f, "END")
            }
        }
    }
}

impl Answer {
    /// The members of a JSON object for what `name` has shown.
    pub(super) fn object(&self, name: &str) -> Map<String, Value> {
        let value = match self {
            Self::Number(number) => (*number).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Space(seed) => serde_json::to_value(space::Json::new(seed)).unwrap_or_default(),
            Self::Figures(figures) => figures.clone(),
            Self::Stats { version, numbers } => {
                let numbers = numbers.iter().map(|(name, number)| ((*name).to_owned(), (*number).into()));
                return numbers.chain([("version".to_owned(), version.as_str().into())]).collect();
            }
        };
        [(name.to_owned(), value)].into_iter().collect()
    }
}

/// The error line if not all have answered.
pub(super) fn outcome<T>(answers: &[(NodeAddress, Result<T, ErrorCode>)]) -> Result<(), Stop> {
    let mut failures = answers.iter().filter_map(|(node, answer)| answer.as_ref().err().map(|error| (*node, *error)));
    match (answers, failures.next()) {
        (_, None) => Ok(()),
        ([_], Some((node, error))) => Err(failed(Error::Server(node, error))),
        (_, Some(_)) => {
            Err(Stop::Failed(format!("{} of {} nodes did not answer", failures.count() + 1, answers.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_look_as_memcacheds() {
        let answer =
            Answer::Stats { version: "0.4.13".to_owned(), numbers: vec![("pid", 7), ("time", 9), ("curr_items", 3)] };
        assert_eq!(answer.to_string(), "STAT pid 7\nSTAT time 9\nSTAT version 0.4.13\nSTAT curr_items 3\nEND\n");
        assert_eq!(
            Value::from(answer.object("stats")),
            serde_json::json!({"pid": 7, "time": 9, "version": "0.4.13", "curr_items": 3})
        );
    }
}
