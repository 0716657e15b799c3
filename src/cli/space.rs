//! Hash spaces as the tools print them.

use std::fmt::Write;

use serde::Serialize;

use super::date::date;
use crate::clock::ClockTime;
use crate::wire::NodeAddress;
use crate::wire::params::Seed;

/// When a hash space was made.
pub(super) fn timestamp(clocktime: ClockTime) -> String {
    format!("{} clock {}", date(clocktime.seconds()), clocktime.clock())
}

/// A hash space in lines, as kumoctl shows it.
pub(super) fn text(seed: &Seed) -> String {
    let mut text = format!("hash space timestamp:\n  {}\nattached node:\n", timestamp(seed.clocktime));
    for (node, active) in &seed.nodes {
        let _ = writeln!(text, "  {node}  ({})", if *active { "active" } else { "fault" });
    }
    text
}

/// A hash space as JSON.
#[derive(Debug, Serialize)]
pub(super) struct Json {
    clocktime: u64,
    time: u32,
    clock: u32,
    attached: Vec<Node>,
}

#[derive(Debug, Serialize)]
struct Node {
    address: String,
    active: bool,
}

impl Json {
    pub(super) fn new(seed: &Seed) -> Self {
        let node = |(node, active): &(NodeAddress, bool)| Node { address: node.to_string(), active: *active };
        Self {
            clocktime: seed.clocktime.0,
            time: seed.clocktime.seconds(),
            clock: seed.clocktime.clock(),
            attached: seed.nodes.iter().map(node).collect(),
        }
    }
}
