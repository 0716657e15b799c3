//! The scenarios: which faults may happen to which clusters.

use std::ops::RangeInclusive;
use std::time::Duration;

use kumo_server::rules::Rule;

use super::plan::Choice;

/// A kind of run.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) managers: RangeInclusive<usize>,
    pub(crate) servers: RangeInclusive<usize>,
    /// Servers that are not attached when clients begin.
    pub(crate) spare: usize,
    pub(crate) choices: &'static [Choice],
    pub(crate) events: RangeInclusive<usize>,
    /// Faults happen beside each other; else each waits until the cluster is well again.
    pub(crate) overlap: bool,
    /// Clocks are wrong from the beginning.
    pub(crate) skewed: bool,
    /// The longest stop of a server: with 3 s it ends before anybody takes it for a death.
    pub(crate) longest_stop: Duration,
    /// When tombstones go.
    pub(crate) tombstones: Duration,
    /// Half of the clusters have managers that replace by themselves.
    pub(crate) auto_replace: bool,
    /// The longest that a client may wait until something that it asked for is done.
    pub(crate) outage_limit: Duration,
}

/// What most have in common.
const PLAIN: Scenario = Scenario {
    name: "",
    managers: 1..=2,
    servers: 3..=4,
    spare: 0,
    choices: &[],
    events: 3..=4,
    overlap: false,
    skewed: false,
    longest_stop: Duration::from_secs(16),
    tombstones: Duration::from_hours(1),
    auto_replace: false,
    outage_limit: Duration::from_secs(30),
};

/// How long a client may wait where its gateway can be cut off, from all servers or with too few of them, or where faults are
/// beside each other: twice the longest of them, and the time between two, in which the client may get nothing done yet.
const CUT_OFF: Duration = Duration::from_secs(45);

const CUTS: &[Choice] = &[
    Choice::Isolate,
    Choice::FromManagers,
    Choice::FromPeers,
    Choice::AllButGateways,
    Choice::OneWay,
    Choice::Halves,
    Choice::Thirds,
    Choice::Scattered,
];

const EVERYTHING: &[Choice] = &[
    Choice::KillServer,
    Choice::KillManager,
    Choice::KillGateway,
    Choice::PowerLoss,
    Choice::EmptyDisk,
    Choice::OlderDisk,
    Choice::StopServer,
    Choice::StopManager,
    Choice::Isolate,
    Choice::FromManagers,
    Choice::FromPeers,
    Choice::AllButGateways,
    Choice::OneWay,
    Choice::Halves,
    Choice::Thirds,
    Choice::Scattered,
    Choice::Weather,
    Choice::Refuse,
    Choice::HalfOpen,
    Choice::Clock,
    Choice::SlowDisk,
    Choice::FullDisk,
    Choice::Attach,
    Choice::Detach,
    Choice::Replace,
    Choice::FullReplace,
    Choice::Backup,
];

/// All scenarios.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "calm",
        choices: &[Choice::Weather, Choice::Weather, Choice::Clock, Choice::Backup],
        skewed: true,
        outage_limit: Duration::from_secs(5),
        ..PLAIN
    },
    Scenario {
        name: "attach",
        spare: 1,
        choices: &[Choice::Attach, Choice::Attach, Choice::Replace, Choice::FullReplace, Choice::Weather],
        outage_limit: Duration::from_secs(5),
        ..PLAIN
    },
    Scenario {
        name: "stop",
        choices: &[Choice::StopServer, Choice::StopServer, Choice::StopManager],
        longest_stop: Duration::from_secs(3),
        outage_limit: Duration::from_secs(5),
        ..PLAIN
    },
    Scenario { name: "managers", choices: &[Choice::KillManager], outage_limit: Duration::from_secs(5), ..PLAIN },
    Scenario {
        name: "half-done",
        managers: 1..=1,
        choices: &[Choice::HalfDone],
        outage_limit: Duration::from_secs(5),
        ..PLAIN
    },
    Scenario { name: "gateway", choices: &[Choice::KillGateway], outage_limit: Duration::from_secs(5), ..PLAIN },
    Scenario { name: "kill", choices: &[Choice::KillServer], ..PLAIN },
    Scenario {
        name: "forgotten",
        choices: &[Choice::KillServer],
        tombstones: Duration::from_secs(1),
        skewed: true,
        ..PLAIN
    },
    Scenario { name: "hang", choices: &[Choice::StopServer], ..PLAIN },
    Scenario { name: "power", choices: &[Choice::PowerLoss], ..PLAIN },
    Scenario { name: "all-off", choices: &[Choice::KillAll], ..PLAIN },
    Scenario { name: "auto", choices: &[Choice::KillServer, Choice::StopServer], auto_replace: true, ..PLAIN },
    Scenario { name: "empty", choices: &[Choice::EmptyDisk], ..PLAIN },
    Scenario { name: "older", choices: &[Choice::OlderDisk], ..PLAIN },
    Scenario { name: "disk", choices: &[Choice::SlowDisk, Choice::FullDisk], ..PLAIN },
    Scenario { name: "half-open", choices: &[Choice::HalfOpen, Choice::Refuse], ..PLAIN },
    Scenario { name: "isolate", choices: &[Choice::Isolate, Choice::AllButGateways, Choice::FromManagers], ..PLAIN },
    Scenario { name: "peers", choices: &[Choice::FromPeers], ..PLAIN },
    Scenario { name: "one-way", choices: &[Choice::OneWay], outage_limit: CUT_OFF, ..PLAIN },
    Scenario {
        name: "split",
        managers: 2..=2,
        choices: &[Choice::Halves, Choice::Thirds],
        outage_limit: CUT_OFF,
        ..PLAIN
    },
    Scenario { name: "cut", choices: CUTS, outage_limit: CUT_OFF, ..PLAIN },
    Scenario {
        name: "any",
        choices: EVERYTHING,
        skewed: true,
        spare: 1,
        servers: 4..=5,
        auto_replace: true,
        outage_limit: CUT_OFF,
        ..PLAIN
    },
    Scenario {
        name: "overlap",
        choices: EVERYTHING,
        events: 4..=8,
        overlap: true,
        skewed: true,
        servers: 3..=5,
        auto_replace: true,
        outage_limit: CUT_OFF,
        ..PLAIN
    },
];

/// The scenario of this name.
pub(crate) fn named(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

/// The scenario in which it shows soonest that a rule is left out.
pub(crate) fn made_for(rule: Rule) -> &'static Scenario {
    let name = match rule {
        Rule::AllOwners => "disk",
        Rule::LateWrites | Rule::Admission => "isolate",
        Rule::Complete => "half-done",
        Rule::SettleCopies => "one-way",
    };
    named(name).expect("a scenario")
}
