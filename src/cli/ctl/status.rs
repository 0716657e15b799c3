//! `status`: the servers of a cluster, as text and as JSON.
//!
//! The text begins as that of kumoctl. What came later stands behind it, in lines that are not indented: scripts take the
//! indented ones for servers.

use std::fmt::Write;

use serde::Serialize;

use crate::cli::exit::Stop;
use crate::cli::tool::{json, space};
use crate::client::{Caller, Overview};
use crate::wire::NodeAddress;
use crate::wire::figures::{ManagerFigures, RefusedFigures};

/// What the manager and the servers tell.
#[derive(Debug, Default)]
pub(super) struct Status {
    overview: Overview,
    /// `None` from a manager of another program, or of an earlier version.
    manager: Option<ManagerFigures>,
}

impl Status {
    /// Asks for what is not in the `overview` that `manager` has given.
    pub(super) async fn of(caller: &Caller, manager: NodeAddress, overview: Overview) -> Self {
        // An original manager would answer with an error, and log it.
        let manager = match overview.state {
            Some(_) => caller.manager_figures(manager).await.ok().flatten(),
            None => None,
        };
        Self { overview, manager }
    }

    pub(super) fn text(&self) -> String {
        let mut text = space::text(&self.overview.whs);
        text += "not attached node:\n";
        for node in &self.overview.detached {
            let _ = writeln!(text, "  {node}");
        }
        if let Some(manager) = &self.manager {
            for refused in &manager.refused {
                let _ = writeln!(text, "refused: {}", describe(refused));
            }
        }
        text
    }

    pub(super) fn to_json(&self) -> Result<String, Stop> {
        #[derive(Serialize)]
        struct Json<'a> {
            #[serde(flatten)]
            whs: space::Json,
            not_attached: Vec<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            manager: Option<&'a ManagerFigures>,
        }
        json(&Json {
            whs: space::Json::new(&self.overview.whs),
            not_attached: self.overview.detached.iter().map(NodeAddress::to_string).collect(),
            manager: self.manager.as_ref(),
        })
    }
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
    fn status_as_json_says_the_same() {
        assert_eq!(
            status().to_json().unwrap(),
            "{\"clocktime\":5275575051993743422,\"time\":1228315535,\"clock\":62,\
             \"attached\":[{\"address\":\"127.0.0.1:19801\",\"active\":true},\
             {\"address\":\"127.0.0.1:19802\",\"active\":false}],\"not_attached\":[\"127.0.0.1:19803\"]}\n"
        );
    }
}
