//! `hash` (kumohash): where keys lie in the hash space, and which servers own them.

use std::ffi::OsString;
use std::fmt::Write;
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};

use super::args::{Call, parse};
use super::exit::Stop;
use super::tool::{Cluster, block_on, json, server, show};
use crate::clock::ClockTime;
use crate::net::hosts::HostPort;
use crate::ring::{self, HashSpace};
use crate::wire::NodeAddress;
use crate::wire::params::Seed;

/// The end of `--help`.
const NOTES: &str = "\
Commands:
  hash KEY...    Print each key behind its hash; needs no server
  assign KEY...  Print below each key its owners in order
  dump           Print every point of the ring with its server

Servers that are named need not be there; all count as active. With -m the hash space is the one for writing that the \
manager has, and servers in fault are marked. The first owner that is active coordinates the key. '--' stands between \
servers and command, and may be left out where no server is named.";

/// Shows where keys lie in the hash space, and which servers own them
#[derive(Debug, Parser)]
#[command(after_help = NOTES)]
pub(super) struct Args {
    /// The servers of the ring [port: 19800]
    #[arg(value_name = "SERVER[:PORT]")]
    first: Vec<OsString>,

    /// The command, and keys
    #[arg(value_name = "COMMAND KEY", last = true)]
    last: Vec<OsString>,

    #[command(flatten)]
    cluster: Cluster,

    /// Print an array with an object for each key or point
    #[arg(long)]
    json: bool,
}

/// The result to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Hash,
    Assign,
    Dump,
}

/// The arguments without a flag, separated.
#[derive(Debug, PartialEq, Eq)]
struct Arguments<'a> {
    servers: &'a [OsString],
    command: Command,
    keys: Vec<&'a [u8]>,
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let question = Arguments::read(&args.first, &args.last)?;
    let managers = args.cluster.managers()?;
    question.check(!managers.is_empty())?;
    let space = match question.command {
        Command::Hash => HashSpace::default(),
        _ if managers.is_empty() => named(question.servers)?,
        _ => block_on(async {
            let whs = args.cluster.space(&args.cluster.caller()).await?;
            Ok(HashSpace::new(whs))
        })?,
    };
    show(if args.json { json(&question.objects(&space))? } else { question.text(&space) }.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The ring of servers that are all active.
fn named(servers: &[OsString]) -> Result<HashSpace, Stop> {
    let mut nodes = Vec::new();
    for name in servers {
        let host: Result<HostPort, _> = name.to_str().ok_or("not a text".to_owned()).and_then(str::parse);
        let host = host.map_err(|error| Stop::Usage(format!("server '{}': {error}", name.display())))?;
        let node = (server("server", &host)?, true);
        if nodes.contains(&node) {
            return Err(Stop::Usage(format!("server '{host}' is named twice")));
        }
        nodes.push(node);
    }
    Ok(HashSpace::new(Seed { nodes, clocktime: ClockTime(0) }))
}

impl Command {
    fn read(word: Option<&OsString>) -> Option<Self> {
        match word?.to_str()? {
            "hash" => Some(Self::Hash),
            "assign" => Some(Self::Assign),
            "dump" => Some(Self::Dump),
            _ => None,
        }
    }
}

impl<'a> Arguments<'a> {
    /// Takes what stands in front of `--` and behind it apart.
    fn read(first: &'a [OsString], last: &'a [OsString]) -> Result<Self, Stop> {
        let (servers, command, keys): (_, _, Vec<_>) = if let Some(command) = Command::read(first.first()) {
            (&[][..], command, first.iter().skip(1).chain(last).collect())
        } else if let Some(command) = Command::read(last.first()) {
            (first, command, last.iter().skip(1).collect())
        } else {
            let word = last.first().or(first.first()).map(|word| format!("'{}' is", word.display()));
            let problem = word.unwrap_or_else(|| "there is".to_owned());
            return Err(Stop::Usage(format!("{problem} no command: hash, assign or dump must follow '--'")));
        };
        Ok(Self { servers, command, keys: keys.into_iter().map(|key| key.as_encoded_bytes()).collect() })
    }

    fn check(&self, has_manager: bool) -> Result<(), Stop> {
        let mistake = match (self.command, self.servers.is_empty(), has_manager) {
            (Command::Dump, ..) if !self.keys.is_empty() => "dump takes no key",
            (Command::Hash | Command::Assign, ..) if self.keys.is_empty() => "the keys are missing",
            (Command::Assign | Command::Dump, true, false) => {
                "the servers are missing: name them, or a manager with -m"
            }
            (_, false, true) => "servers and a manager (-m): only one of them",
            _ => return Ok(()),
        };
        Err(Stop::Usage(mistake.to_owned()))
    }

    fn text(&self, space: &HashSpace) -> String {
        let mut text = String::new();
        for key in &self.keys {
            let _ = writeln!(text, "{:016x}  {}", ring::hash(key), readable(key));
            for (number, (node, active)) in space.owners(ring::hash(key)).all().enumerate() {
                let _ = writeln!(text, "  {number}: {node}{}", if active { "" } else { "  (fault)" });
            }
        }
        for (point, (node, active)) in self.points(space) {
            let _ = writeln!(text, "{point:016x}  {node}{}", if active { "" } else { "  (fault)" });
        }
        text
    }

    fn objects(&self, space: &HashSpace) -> Vec<Value> {
        let node = |(node, active): (NodeAddress, bool)| json!({"address": node.to_string(), "active": active});
        let key = |key: &&[u8]| {
            let hash = ring::hash(key);
            let mut object = json!({"key": readable(key), "hash": format!("{hash:016x}")});
            if let (Command::Assign, Value::Object(members)) = (self.command, &mut object) {
                members.insert("owners".to_owned(), space.owners(hash).all().map(node).collect());
            }
            object
        };
        let point = |(point, (node, active)): (u64, (NodeAddress, bool))| json!({"point": format!("{point:016x}"), "address": node.to_string(), "active": active});
        self.keys.iter().map(key).chain(self.points(space).map(point)).collect()
    }

    /// The points of the ring with their servers, if they were asked for.
    fn points<'s>(&self, space: &'s HashSpace) -> impl Iterator<Item = (u64, (NodeAddress, bool))> + use<'s> {
        let points = if self.command == Command::Dump { space.points() } else { &[] };
        points.iter().filter_map(|point| Some((*point, space.owners(*point).all().next()?)))
    }
}

/// A key as a word in a line: bytes that are no text are escaped.
fn readable(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => key.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(Into::into).collect()
    }

    #[test]
    fn servers_command_and_keys_are_separated() {
        for (first, last, servers, command, keys) in [
            ("s1 s2", "assign k1 k2", "s1 s2", Command::Assign, "k1 k2"),
            ("s1", "dump", "s1", Command::Dump, ""),
            ("", "hash k", "", Command::Hash, "k"),
            ("hash k", "", "", Command::Hash, "k"),
            ("hash k", "-k hash", "", Command::Hash, "k -k hash"),
            ("assign", "hash", "", Command::Assign, "hash"),
        ] {
            let (first, last, servers, keys) = (words(first), words(last), words(servers), words(keys));
            let question = Arguments::read(&first, &last).unwrap();
            assert_eq!((question.servers, question.command), (servers.as_slice(), command), "{first:?} {last:?}");
            assert_eq!(question.keys, keys.iter().map(|key| key.as_encoded_bytes()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn mistakes_are_named() {
        let question = |first, last, manager| {
            let (first, last) = (words(first), words(last));
            Arguments::read(&first, &last).and_then(|question| question.check(manager))
        };
        for (first, last, manager, message) in [
            ("s1", "", false, "'s1' is no command: hash, assign or dump must follow '--'"),
            ("s1", "explode", false, "'explode' is no command: hash, assign or dump must follow '--'"),
            ("", "", false, "there is no command: hash, assign or dump must follow '--'"),
            ("s1", "dump k", false, "dump takes no key"),
            ("", "hash", false, "the keys are missing"),
            ("", "assign k", false, "the servers are missing: name them, or a manager with -m"),
            ("s1", "dump", true, "servers and a manager (-m): only one of them"),
        ] {
            assert_eq!(question(first, last, manager), Err(Stop::Usage(message.to_owned())), "{first} -- {last}");
        }
        assert_eq!(question("", "dump", true), Ok(()));
        assert_eq!(question("s1", "hash k", false), Ok(()));
    }
}
