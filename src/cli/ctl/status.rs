//! `status`: the servers of a cluster, as text and as JSON.
//!
//! The text begins as that of kumoctl. What came later stands behind it, in lines that are not indented: scripts take the
//! indented ones for servers.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::manager::no_majority;
use crate::cli::exit::Stop;
use crate::cli::tool::{ask_all, json, space};
use crate::client::{Caller, Overview};
use crate::wire::NodeAddress;
use crate::wire::figures::{Figures, ManagerFigures, MemberFigures, RefusedFigures};

/// How long one server may take to answer.
const SERVER_PATIENCE: Duration = Duration::from_secs(2);

/// What the manager and the servers tell.
#[derive(Debug, Default)]
pub(super) struct Status {
    overview: Overview,
    /// `None` from a manager of another program, or of an earlier version.
    manager: Option<ManagerFigures>,
    /// What the attached servers tell themselves, in the order of `manager`; `None` if there was no answer.
    servers: Vec<Option<Figures>>,
}

impl Status {
    /// Asks for what is not in the `overview` that `manager` has given.
    pub(super) async fn of(caller: &Arc<Caller>, manager: NodeAddress, overview: Overview) -> Self {
        // An original manager would answer with an error, and log it.
        let manager = match overview.state {
            Some(_) => caller.manager_figures(manager).await.ok().flatten(),
            None => None,
        };
        let members = manager.iter().filter(|manager| manager.votes).flat_map(|manager| &manager.servers);
        let nodes: Vec<_> = members.filter_map(|member| member.address).collect();
        let ask = |node| {
            let caller = caller.clone();
            async move { caller.figures(node).await }
        };
        let answers = ask_all(&nodes, SERVER_PATIENCE, ask).await;
        let servers = answers.into_iter().map(|answer| answer.ok().flatten()).collect();
        Self { overview, manager, servers }
    }

    pub(super) fn text(&self) -> String {
        let mut text = space::text(&self.overview.whs);
        text += "not attached node:\n";
        for node in &self.overview.detached {
            let _ = writeln!(text, "  {node}");
        }
        if let Some(manager) = &self.manager {
            for line in self.lines(manager) {
                text += &line;
                text.push('\n');
            }
        }
        text
    }

    /// Votes, servers one by one, the change that waits, and who is refused.
    fn lines(&self, manager: &ManagerFigures) -> Vec<String> {
        let mut lines = Vec::new();
        if manager.votes || !manager.servers.is_empty() {
            lines.push(votes(manager));
        }
        lines.extend(no_majority(manager));
        for (place, member) in manager.servers.iter().enumerate() {
            let own = self.servers.get(place).and_then(Option::as_ref);
            lines.extend(server(manager.votes, member, own));
        }
        if let Some(change) = &manager.change {
            let seconds = change.waits_ms / 1000;
            let more = match manager.changes_waiting {
                0 => String::new(),
                more => format!("; {more} more wait for it"),
            };
            let silent = change.silent.join(", ");
            lines.push(format!("waits: {}, for {seconds} s, for the votes of {silent}{more}", change.what));
        }
        lines.extend(manager.refused.iter().map(|refused| format!("refused: {}", describe(refused))));
        lines
    }

    pub(super) fn to_json(&self) -> Result<String, Stop> {
        #[derive(Serialize)]
        struct Json<'a> {
            #[serde(flatten)]
            whs: space::Json,
            not_attached: Vec<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            manager: Option<&'a ManagerFigures>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            leases: Vec<LeaseJson>,
        }
        json(&Json {
            whs: space::Json::new(&self.overview.whs),
            not_attached: self.overview.detached.iter().map(NodeAddress::to_string).collect(),
            manager: self.manager.as_ref(),
            leases: self.leases(),
        })
    }

    fn leases(&self) -> Vec<LeaseJson> {
        let members = self.manager.iter().flat_map(|manager| &manager.servers);
        let lease = |(member, own): (&MemberFigures, &Option<Figures>)| LeaseJson {
            address: member.address,
            answers: own.is_some(),
            configuration: own.as_ref().map(|own| own.configuration),
            lease_ms: own.as_ref().and_then(|own| own.lease_ms),
        };
        members.zip(&self.servers).map(lease).collect()
    }
}

/// A server, as it tells itself.
#[derive(Debug, Serialize)]
struct LeaseJson {
    address: Option<NodeAddress>,
    /// Whether it has answered this tool.
    answers: bool,
    configuration: Option<u64>,
    lease_ms: Option<u64>,
}

/// Whether the servers vote.
fn votes(manager: &ManagerFigures) -> String {
    match &manager.without_votes {
        None => format!(
            "votes: configuration {}, {} of {} voters answer",
            manager.configuration, manager.voters_heard, manager.voters
        ),
        Some(why) => format!("votes: off, {why}"),
    }
}

/// In milliseconds: what lasts longer is for ever.
const LONGEST_LEASE: u64 = 1_000_000;

/// A server in a line; none if there is nothing to say of it. `own`: what it tells itself, if it was asked.
fn server(votes: bool, member: &MemberFigures, own: Option<&Figures>) -> Option<String> {
    let address = member.address?;
    let mut parts = Vec::new();
    if votes && (member.active || member.connected) {
        let configuration = own.map(|own| own.configuration).or(member.configuration);
        parts.extend(configuration.map(|configuration| format!("configuration {configuration}")));
        match own {
            Some(own) => match own.lease_ms {
                Some(0) | None if member.active => parts.push("no lease".to_owned()),
                Some(lease) if lease > LONGEST_LEASE => parts.push("a majority by itself".to_owned()),
                Some(lease) if lease > 0 => parts.push(format!("lease for {lease} ms")),
                _ => {}
            },
            None => parts.push("does not answer".to_owned()),
        }
    }
    if !member.unreached.is_empty() {
        let others: Vec<_> = member.unreached.iter().map(NodeAddress::to_string).collect();
        parts.push(format!("does not reach {}", others.join(", ")));
    }
    match &member.reason {
        Some(why) if member.active => parts.push(why.clone()),
        Some(why) if member.connected => parts.push(format!("was given up ({why}), and is there: attach it")),
        Some(why) => parts.push(format!("was given up: {why}")),
        None => {}
    }
    (!parts.is_empty()).then(|| format!("server {address}: {}", parts.join(", ")))
}

/// A server that is refused, and why.
fn describe(refused: &RefusedFigures) -> String {
    let store = |id: &str| if id.is_empty() { String::new() } else { format!(" (store {id})") };
    let address = refused.address.map(|address| address.to_string()).unwrap_or_default();
    let machine = format!("{}{} announces {address}", refused.machine, store(&refused.store));
    if refused.owner.is_empty() {
        format!("{machine}, where no other machine can reach it: start it with -l and an address of its own")
    } else {
        format!(
            "{machine}, the address of {}{}: start it with -l and an address of its own",
            refused.owner,
            store(&refused.owner_store)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockTime;
    use crate::wire::figures::ChangeFigures;
    use crate::wire::params::Seed;

    fn node(port: u16) -> NodeAddress {
        NodeAddress::new(([127, 0, 0, 1], port).into())
    }

    fn status() -> Status {
        let whs = Seed {
            nodes: vec![(node(19801), true), (node(19802), false)],
            clocktime: ClockTime::new(1_228_315_535, 62),
        };
        Status { overview: Overview { whs, detached: vec![node(19803)], state: None }, ..Status::default() }
    }

    const TEXT: &str = "hash space timestamp:\n  Wed Dec 03 14:45:35 +0000 2008 clock 62\n\
                        attached node:\n  127.0.0.1:19801  (active)\n  127.0.0.1:19802  (fault)\n\
                        not attached node:\n  127.0.0.1:19803\n";

    #[test]
    fn status_looks_as_it_did() {
        assert_eq!(status().text(), TEXT);
        let empty = Status::default();
        assert_eq!(
            empty.text(),
            "hash space timestamp:\n  Thu Jan 01 00:00:00 +0000 1970 clock 0\nattached node:\nnot attached node:\n"
        );
    }

    #[test]
    fn what_came_later_stands_behind_it() {
        let refused = RefusedFigures {
            address: Some(node(19801)),
            machine: "10.0.0.4".to_owned(),
            store: "00000000000000aa".to_owned(),
            owner: "10.0.0.3".to_owned(),
            owner_store: "00000000000000bb".to_owned(),
        };
        let local = RefusedFigures { owner: String::new(), store: String::new(), ..refused.clone() };
        let manager = ManagerFigures { refused: vec![refused, local], ..ManagerFigures::default() };
        let status = Status { manager: Some(manager), ..status() };
        let text = status.text();
        let later = text.strip_prefix(TEXT).unwrap();
        assert_eq!(
            later,
            "refused: 10.0.0.4 (store 00000000000000aa) announces 127.0.0.1:19801, the address of 10.0.0.3 (store \
             00000000000000bb): start it with -l and an address of its own\n\
             refused: 10.0.0.4 announces 127.0.0.1:19801, where no other machine can reach it: start it with -l and an \
             address of its own\n"
        );
        assert!(status.to_json().unwrap().contains(r#""refused":[{"address":"127.0.0.1:19801","machine":"10.0.0.4""#));
    }

    #[test]
    fn each_server_has_a_line_and_whatever_waits_says_for_whom() {
        let member = |port, active| MemberFigures {
            address: Some(node(port)),
            active,
            connected: active,
            configuration: Some(6),
            ..MemberFigures::default()
        };
        let lost = MemberFigures { reason: Some("does not answer".to_owned()), ..member(3, false) };
        let back = MemberFigures { connected: true, ..lost.clone() };
        let apart = MemberFigures { unreached: vec![node(2)], ..member(1, true) };
        let waited = MemberFigures {
            connected: false,
            reason: Some("it is the last owner of some keys, and is waited for".to_owned()),
            ..member(4, true)
        };
        let change = ChangeFigures { what: "Attach".to_owned(), waits_ms: 12_345, silent: vec![node(2).to_string()] };
        let manager = ManagerFigures {
            configuration: 7,
            votes: true,
            voters: 3,
            voters_heard: 1,
            voters_silent: vec!["127.0.0.1:2".to_owned(), "127.0.0.1:4".to_owned()],
            servers: vec![apart, member(2, true), lost, back, waited],
            change: Some(change),
            changes_waiting: 2,
            ..ManagerFigures::default()
        };
        let own = |lease_ms| Some(Figures { configuration: 7, lease_ms: Some(lease_ms), ..Figures::default() });
        let servers = vec![own(870), own(0), None, own(0), None];
        let status = Status { manager: Some(manager.clone()), servers, ..Status::default() };
        assert_eq!(
            status.lines(&manager),
            [
                "votes: configuration 7, 1 of 3 voters answer",
                "no majority: 127.0.0.1:2, 127.0.0.1:4 do not answer, and without them no server serves; start them again; if \
                 they are off for good: detach --force 127.0.0.1:2 127.0.0.1:4",
                "server 127.0.0.1:1: configuration 7, lease for 870 ms, does not reach 127.0.0.1:2",
                "server 127.0.0.1:2: configuration 7, no lease",
                "server 127.0.0.1:3: was given up: does not answer",
                "server 127.0.0.1:3: configuration 7, was given up (does not answer), and is there: attach it",
                "server 127.0.0.1:4: configuration 6, does not answer, it is the last owner of some keys, and is waited for",
                "waits: Attach, for 12 s, for the votes of 127.0.0.1:2; 2 more wait for it",
            ]
        );
        assert!(
            status
                .to_json()
                .unwrap()
                .contains(r#""leases":[{"address":"127.0.0.1:1","answers":true,"configuration":7,"lease_ms":870}"#)
        );
        let off = ManagerFigures { without_votes: Some("10.0.0.1:1 is not connected".to_owned()), ..manager };
        assert!(Status::default().lines(&off).contains(&"votes: off, 10.0.0.1:1 is not connected".to_owned()));
    }

    #[test]
    fn status_as_json_says_the_same() {
        assert_eq!(
            status().to_json().unwrap(),
            "{\"clocktime\":5275575051993743422,\"time\":1228315535,\"clock\":62,\
             \"attached\":[{\"address\":\"127.0.0.1:19801\",\"active\":true},\
             {\"address\":\"127.0.0.1:19802\",\"active\":false}],\"not_attached\":[\"127.0.0.1:19803\"]}\n"
        );
    }
}
