//! `status`: the servers of a cluster, as text and as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::cli::exit::Stop;
use crate::cli::tool::{json, space};
use crate::client::Overview;
use crate::wire::NodeAddress;

pub(super) fn text(overview: &Overview) -> String {
    let mut text = space::text(&overview.whs);
    text += "not attached node:\n";
    for node in &overview.detached {
        let _ = writeln!(text, "  {node}");
    }
    text
}

pub(super) fn to_json(overview: &Overview) -> Result<String, Stop> {
    #[derive(Serialize)]
    struct Status {
        #[serde(flatten)]
        whs: space::Json,
        not_attached: Vec<String>,
    }
    json(&Status {
        whs: space::Json::new(&overview.whs),
        not_attached: overview.detached.iter().map(NodeAddress::to_string).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockTime;
    use crate::wire::params::Seed;

    fn overview() -> Overview {
        let node = |port| NodeAddress::new(([127, 0, 0, 1], port).into());
        let whs = Seed {
            nodes: vec![(node(19801), true), (node(19802), false)],
            clocktime: ClockTime::new(1_228_315_535, 62),
        };
        Overview { whs, detached: vec![node(19803)], state: None }
    }

    #[test]
    fn status_looks_as_it_did() {
        assert_eq!(
            text(&overview()),
            "hash space timestamp:\n  Wed Dec 03 14:45:35 +0000 2008 clock 62\n\
             attached node:\n  127.0.0.1:19801  (active)\n  127.0.0.1:19802  (fault)\n\
             not attached node:\n  127.0.0.1:19803\n"
        );
        let empty = Overview::default();
        assert_eq!(
            text(&empty),
            "hash space timestamp:\n  Thu Jan 01 00:00:00 +0000 1970 clock 0\nattached node:\nnot attached node:\n"
        );
    }

    #[test]
    fn status_as_json_says_the_same() {
        assert_eq!(
            to_json(&overview()).unwrap(),
            "{\"clocktime\":5275575051993743422,\"time\":1228315535,\"clock\":62,\
             \"attached\":[{\"address\":\"127.0.0.1:19801\",\"active\":true},\
             {\"address\":\"127.0.0.1:19802\",\"active\":false}],\"not_attached\":[\"127.0.0.1:19803\"]}\n"
        );
    }
}
