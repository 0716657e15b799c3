//! The figures that a server of this program reports as JSON (`GetStatus` 1000): one table of their names, types and meanings,
//! for the server that fills it in, for the tools and gateways that read it, and for `docs/operations.md`.
//!
//! A figure that a reader misses has its default, one that it does not know is passed over. How a figure is obtained is
//! known to its owner.

use serde::{Deserialize, Serialize};

use super::NodeAddress;

/// Defines a table of figures: `name: type`, or `name = "name in JSON": type`, each with one line that describes it.
macro_rules! figures {
    ($(#[$doc:meta])* $table:ident {
        $(#[doc = $text:literal] $name:ident $(= $json:literal)?: $type:ty,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $table { $(#[doc = $text] $(#[serde(rename = $json)])? pub $name: $type,)* }

        impl $table {
            /// The name of each in JSON, with its description.
            #[cfg(test)]
            pub(crate) const DESCRIPTIONS: &'static [(&'static str, &'static str)] =
                &[$((figures!(@json $name $(, $json)?), $text)),*];
        }
    };
    (@json $name:ident) => { stringify!($name) };
    (@json $name:ident, $json:literal) => { $json };
}

figures! {
    /// Everything that a server tells.
    Figures {
        /// Version of the program.
        version: String,
        /// Where the server listens for the cluster.
        address: Option<NodeAddress>,
        /// Process id.
        pid: u32,
        /// Seconds since the start.
        uptime_s: u64,
        /// Get requests since the start.
        cmd_get: u64,
        /// Set requests since the start, compare-and-swaps included.
        cmd_set: u64,
        /// Delete requests since the start.
        cmd_delete: u64,
        /// Connections that are open, of clients and nodes.
        connections: u64,
        /// Time of the server's clock, as in records.
        clocktime: u64,
        /// 1 not active in whs, 2 rhs and whs have different nodes, 4 copying, 8 deleting; their sum.
        flags: u32,
        /// Hash space for writing.
        whs: SpaceFigures,
        /// Hash space for reading.
        rhs: SpaceFigures,
        /// Number of the configuration that the server acts by; 0 if servers have never voted.
        configuration: u64,
        /// Milliseconds for which a majority has confirmed that the server may act; null if servers do not vote.
        lease_ms: Option<u64>,
        /// Records stored, tombstones included.
        items: u64,
        /// Keys whose last write here is not known to be on all owners though it has ended; they are sent it until it is.
        unsettled: u64,
        /// The store.
        store: StoreFigures,
        /// The replace that is under way, or the last one; null if there was none since the start.
        replace: Option<ReplaceFigures>,
    }
}

figures! {
    /// A hash space.
    SpaceFigures {
        /// When it was made.
        clocktime: u64,
        /// Its servers, each with `address` and whether it is `active`.
        nodes: Vec<NodeFigures>,
    }
}

/// A server of a hash space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFigures {
    /// Where it listens.
    pub address: NodeAddress,
    /// Whether it is not in fault.
    pub active: bool,
}

figures! {
    /// A store.
    StoreFigures {
        /// Records stored, tombstones included. Exact if `unresolved` is 0, else an estimate.
        items: u64,
        /// Records written of which it is not known yet whether they existed before.
        unresolved: u64,
        /// Records that are not in the main tree yet.
        dirty: u64,
        /// Bytes of memory that these take.
        dirty_bytes: u64,
        /// Bytes of memory that all cached records take.
        cache_bytes: u64,
        /// Limit of `cache_bytes`.
        cache_limit: u64,
        /// Bytes of the redo log.
        redo_bytes: u64,
        /// Limit of `redo_bytes`.
        redo_limit: u64,
        /// Bytes of the main tree's file.
        tree_bytes: u64,
        /// Bytes of the main tree's write-ahead log.
        wal_bytes: u64,
        /// Limit of `wal_bytes`; one transaction may exceed it.
        wal_limit: u64,
        /// Tombstones in the main tree.
        tombstones: u64,
        /// Bytes of their keys, and eight for each.
        tombstone_bytes: u64,
        /// Records below the store's floor: they count as absent, and are kept until they are deleted.
        old_records: u64,
        /// Rows of keys that share a hash with another key.
        collisions = "twins": u64,
        /// Merges since the store was opened.
        merges: u64,
        /// Records that these have moved.
        merged_records: u64,
        /// Microseconds that these took, pauses included.
        merge_micros: u64,
        /// Counted up when a replace begins; every write records it.
        generation: u32,
        /// Why no write is acknowledged at the moment, or null.
        failed: Option<String>,
    }
}

figures! {
    /// One replace on one server.
    #[derive(Copy)]
    ReplaceFigures {
        /// Records looked at because they may have to be sent or dropped.
        scanned: u64,
        /// Records that targets have acknowledged.
        sent: u64,
        /// Deletions that targets have answered.
        tombstones: u64,
        /// Streams and batches of deletions that were given up.
        failed: u64,
        /// Records stored from streams of others, or found to be known.
        received: u64,
        /// Records dropped because others have them now.
        dropped: u64,
    }
}

figures! {
    /// Everything that a manager tells.
    ManagerFigures {
        /// Version of the program.
        version: String,
        /// Where the manager listens.
        address: Option<NodeAddress>,
        /// Number of the latest configuration that it knows; 0 if servers have never voted.
        configuration: u64,
        /// Whether the servers vote on every change, and need leases to act.
        votes: bool,
        /// Why they do not; null if they do.
        without_votes: Option<String>,
        /// Who votes on the next configuration.
        voters: u64,
        /// Those of them that this manager has heard in the last 1.5 s, itself included.
        voters_heard: u64,
        /// Those that it has not heard: addresses, or what is known of them.
        voters_silent: Vec<String>,
        /// Attached servers, faulty ones included.
        servers: Vec<MemberFigures>,
        /// The change that is voted on; null if there is none.
        change: Option<ChangeFigures>,
        /// Changes that wait for that one.
        changes_waiting: u64,
        /// Servers refused in the last minute because they announce the address of another machine.
        refused: Vec<RefusedFigures>,
    }
}

figures! {
    /// An attached server as a manager sees it.
    MemberFigures {
        /// Its address.
        address: Option<NodeAddress>,
        /// Whether it is not in fault.
        active: bool,
        /// Whether it is connected to this manager.
        connected: bool,
        /// Id of its store by the configuration, sixteen digits; empty if it is no member.
        store: String,
        /// Number of the configuration that it has said it holds; null if it was never heard.
        configuration: Option<u64>,
        /// Milliseconds since it was last heard; null if it was never.
        silent_ms: Option<u64>,
        /// Servers that it says do not answer it.
        unreached: Vec<NodeAddress>,
        /// Why it was given up, or is waited for; null if it takes part.
        reason: Option<String>,
    }
}

figures! {
    /// A change that is voted on.
    ChangeFigures {
        /// What it is.
        what: String,
        /// Milliseconds since it was proposed.
        waits_ms: u64,
        /// Voters that have not answered.
        silent: Vec<String>,
    }
}

figures! {
    /// A server that announces the address of another machine.
    RefusedFigures {
        /// The address that it announces.
        address: Option<NodeAddress>,
        /// Where it connects from.
        machine: String,
        /// Id of its store, sixteen digits; empty if it is not known.
        store: String,
        /// The machine that has the address; empty if it is a loopback address, which other machines cannot reach.
        owner: String,
        /// Id of that one's store.
        owner_store: String,
    }
}

impl ManagerFigures {
    /// As JSON, names in alphabetical order.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_value(self).unwrap_or_default().to_string()
    }
}

impl Figures {
    /// As JSON, names in alphabetical order.
    pub(crate) fn to_json(&self) -> String {
        // A map of JSON sorts its names. Nothing here can fail to be one.
        serde_json::to_value(self).unwrap_or_default().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_find_the_names_that_they_always_found() {
        let address = NodeAddress::new(([127, 0, 0, 1], 19800).into());
        let space = SpaceFigures { clocktime: 7, nodes: vec![NodeFigures { address, active: true }] };
        let figures = Figures {
            version: "0.1.0".to_owned(),
            address: Some(address),
            whs: space,
            store: StoreFigures { collisions: 2, ..StoreFigures::default() },
            replace: Some(ReplaceFigures { sent: 5, ..ReplaceFigures::default() }),
            ..Figures::default()
        };
        let json = concat!(
            r#"{"address":"127.0.0.1:19800","clocktime":0,"cmd_delete":0,"cmd_get":0,"cmd_set":0,"#,
            r#""configuration":0,"connections":0,"flags":0,"items":0,"lease_ms":null,"pid":0,"#,
            r#""replace":{"dropped":0,"failed":0,"received":0,"scanned":0,"sent":5,"tombstones":0},"#,
            r#""rhs":{"clocktime":0,"nodes":[]},"#,
            r#""store":{"cache_bytes":0,"cache_limit":0,"dirty":0,"dirty_bytes":0,"failed":null,"generation":0,"#,
            r#""items":0,"merge_micros":0,"merged_records":0,"merges":0,"old_records":0,"redo_bytes":0,"redo_limit":0,"#,
            r#""tombstone_bytes":0,"tombstones":0,"tree_bytes":0,"twins":2,"unresolved":0,"wal_bytes":0,"#,
            r#""wal_limit":0},"unsettled":0,"uptime_s":0,"version":"0.1.0","#,
            r#""whs":{"clocktime":7,"nodes":[{"active":true,"address":"127.0.0.1:19800"}]}}"#,
        );
        assert_eq!(figures.to_json(), json);
        assert_eq!(serde_json::from_str::<Figures>(json).unwrap(), figures);
    }

    #[test]
    fn figures_are_read_as_far_as_they_are_there() {
        let json =
            r#"{"store": {"failed": "disk full", "colour": 1}, "replace": {"scanned": 3, "sent": 2}, "later": {}}"#;
        let store = StoreFigures { failed: Some("disk full".to_owned()), ..StoreFigures::default() };
        let replace = ReplaceFigures { scanned: 3, sent: 2, ..ReplaceFigures::default() };
        let figures = Figures { store, replace: Some(replace), ..Figures::default() };
        assert_eq!(serde_json::from_str::<Figures>(json).unwrap(), figures);
        let none: Figures = serde_json::from_str(r#"{"store": {"failed": null}, "replace": null}"#).unwrap();
        assert_eq!(none, Figures::default());
    }

    /// `UPDATE_MANUAL=1` writes the table anew.
    #[test]
    fn the_documentation_has_all_of_them() {
        let tables: [(&str, &[(&str, &str)]); 5] = [
            ("", Figures::DESCRIPTIONS),
            ("whs.", SpaceFigures::DESCRIPTIONS),
            ("rhs.", SpaceFigures::DESCRIPTIONS),
            ("store.", StoreFigures::DESCRIPTIONS),
            ("replace.", ReplaceFigures::DESCRIPTIONS),
        ];
        let managers: [(&str, &[(&str, &str)]); 4] = [
            ("", ManagerFigures::DESCRIPTIONS),
            ("servers[].", MemberFigures::DESCRIPTIONS),
            ("change.", ChangeFigures::DESCRIPTIONS),
            ("refused[].", RefusedFigures::DESCRIPTIONS),
        ];
        documented("| figure | meaning |\n| --- | --- |\n", &tables);
        documented("| figure of a manager | meaning |\n| --- | --- |\n", &managers);
    }

    /// The table that begins with `head` has a row for each figure.
    fn documented(head: &str, tables: &[(&str, &[(&str, &str)])]) {
        const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
        let row = |table: &str, (name, text): &(&str, &str)| format!("| `{table}{name}` | {} |\n", text.trim());
        let rows: String = tables.iter().flat_map(|(table, all)| all.iter().map(|each| row(table, each))).collect();
        let text = std::fs::read_to_string(PATH).unwrap();
        let (before, rest) = text.split_once(head).expect("the table of figures");
        let length: usize = rest.split_inclusive('\n').take_while(|line| line.starts_with('|')).map(str::len).sum();
        let (documented, after) = rest.split_at(length);
        if std::env::var_os("UPDATE_MANUAL").is_some() {
            std::fs::write(PATH, format!("{before}{head}{rows}{after}")).unwrap();
        } else {
            assert_eq!(documented, rows, "docs/operations.md: UPDATE_MANUAL=1 writes it anew");
        }
    }
}
