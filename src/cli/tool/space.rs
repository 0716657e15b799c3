//! Hash spaces, and the state of a replace, as the tools print them.

use std::fmt::Write;

use serde::Serialize;

use super::date::date;
use crate::clock::ClockTime;
use crate::wire::NodeAddress;
use crate::wire::method::{FLAG_COPYING, FLAG_DELETING, FLAG_DIFFERENT, FLAG_INACTIVE};
use crate::wire::params::Seed;

/// When a hash space was made.
pub(in crate::cli) fn timestamp(clocktime: ClockTime) -> String {
    format!("{} clock {}", date(clocktime.seconds()), clocktime.clock())
}

/// A hash space in lines, as kumoctl shows it.
pub(in crate::cli) fn text(seed: &Seed) -> String {
    let mut text = format!("hash space timestamp:\n  {}\nattached node:\n", timestamp(seed.clocktime));
    for (node, active) in &seed.nodes {
        let _ = writeln!(text, "  {node}  ({})", if *active { "active" } else { "fault" });
    }
    text
}

/// A hash space as JSON.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Json {
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
    pub(in crate::cli) fn new(seed: &Seed) -> Self {
        let node = |(node, active): &(NodeAddress, bool)| Node { address: node.to_string(), active: *active };
        Self {
            clocktime: seed.clocktime.0,
            time: seed.clocktime.seconds(),
            clock: seed.clocktime.clock(),
            attached: seed.nodes.iter().map(node).collect(),
        }
    }
}

/// The state of a replace in the words of kumostat, by a server's flags.
pub(in crate::cli) fn replace_state(flags: u64) -> &'static str {
    let words =
        [(FLAG_INACTIVE, "inactive"), (FLAG_DELETING, "Deleting"), (FLAG_COPYING, "Copying"), (FLAG_DIFFERENT, "WAIT")];
    words.into_iter().find(|(flag, _)| flags & u64::from(*flag) != 0).map_or("ready", |(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

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
