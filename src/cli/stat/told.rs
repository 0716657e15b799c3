//! One answer of one server: how it is asked for, and how it looks as text and as JSON.

use std::fmt;

use serde_json::{Map, Value};

use super::super::space;
use super::Command;
use crate::client::Caller;
use crate::wire::NodeAddress;
use crate::wire::method::{
    ErrorCode, FLAG_COPYING, FLAG_DELETING, FLAG_DIFFERENT, FLAG_INACTIVE, STATUS_DELETES, STATUS_FLAGS, STATUS_GETS,
    STATUS_ITEMS, STATUS_PID, STATUS_RHS, STATUS_SETS, STATUS_TIME, STATUS_UPTIME, STATUS_VERSION, STATUS_WHS,
};
use crate::wire::params::Seed;

/// What memcached calls the counters, and the numbers to ask for them.
const STATS: [(&str, u32); 7] = [
    ("pid", STATUS_PID),
    ("uptime", STATUS_UPTIME),
    ("time", STATUS_TIME),
    ("cmd_get", STATUS_GETS),
    ("cmd_set", STATUS_SETS),
    ("cmd_delete", STATUS_DELETES),
    ("curr_items", STATUS_ITEMS),
];

/// What a server has told.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    Number(u64),
    Text(String),
    Space(Seed),
    Stats { version: String, numbers: Vec<(&'static str, u64)> },
    Figures(Value),
}

/// Asks `server` for what `command` shows.
pub(super) async fn tell(caller: &Caller, server: NodeAddress, command: Command) -> Result<Told, ErrorCode> {
    let number = async |number| caller.number(server, number).await.map(Told::Number);
    match command {
        Command::Pid => number(STATUS_PID).await,
        Command::Uptime => number(STATUS_UPTIME).await,
        Command::Time => number(STATUS_TIME).await,
        Command::CmdGet => number(STATUS_GETS).await,
        Command::CmdSet => number(STATUS_SETS).await,
        Command::CmdDelete => number(STATUS_DELETES).await,
        Command::Items => number(STATUS_ITEMS).await,
        Command::Version => caller.text(server, STATUS_VERSION).await.map(Told::Text),
        Command::Rhs => caller.space(server, STATUS_RHS).await.map(Told::Space),
        Command::Whs => caller.space(server, STATUS_WHS).await.map(Told::Space),
        Command::Replstat => {
            let flags = caller.number(server, STATUS_FLAGS).await?;
            Ok(Told::Text(replace_state(flags).to_owned()))
        }
        Command::SetDelay => caller.set_nodelay(server, false).await.map(Told::Number),
        Command::UnsetDelay => caller.set_nodelay(server, true).await.map(Told::Number),
        Command::Figures => caller.figures(server).await?.map(Told::Figures).ok_or(ErrorCode::Protocol),
        Command::Stats => {
            let version = caller.text(server, STATUS_VERSION).await?;
            let mut numbers = Vec::new();
            for (name, number) in STATS {
                numbers.push((name, caller.number(server, number).await?));
            }
            Ok(Told::Stats { version, numbers })
        }
        // Not asked of one server.
        Command::Hscheck => Err(ErrorCode::Protocol),
    }
}

/// The state of a replace in kumostat's words, by a server's flags.
pub(in crate::cli) fn replace_state(flags: u64) -> &'static str {
    let words =
        [(FLAG_INACTIVE, "inactive"), (FLAG_DELETING, "Deleting"), (FLAG_COPYING, "Copying"), (FLAG_DIFFERENT, "WAIT")];
    words.into_iter().find(|(flag, _)| flags & u64::from(*flag) != 0).map_or("ready", |(_, word)| word)
}

impl fmt::Display for Told {
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

impl Told {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_look_as_memcacheds() {
        let told =
            Told::Stats { version: "0.4.13".to_owned(), numbers: vec![("pid", 7), ("time", 9), ("curr_items", 3)] };
        assert_eq!(told.to_string(), "STAT pid 7\nSTAT time 9\nSTAT version 0.4.13\nSTAT curr_items 3\nEND\n");
        assert_eq!(
            Value::from(told.object("stats")),
            serde_json::json!({"pid": 7, "time": 9, "version": "0.4.13", "curr_items": 3})
        );
    }

    #[test]
    fn the_first_word_that_fits_counts() {
        for (flags, word) in [
            (0, "ready"),
            (1, "inactive"),
            (15, "inactive"),
            (2, "WAIT"),
            (6, "Copying"),
            (14, "Deleting"),
            (32, "ready"),
        ] {
            assert_eq!(replace_state(flags), word, "{flags}");
        }
    }
}
