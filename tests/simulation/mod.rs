//! Simulations of whole clusters: the real manager, server and gateway on simulated machines, from one seed.
//!
//! `cargo run --release --example simulate` plays many; `tests/it` plays some of them.

pub(crate) mod application;
pub(crate) mod cluster;
pub(crate) mod history;
pub(crate) mod injector;
pub(crate) mod journal;
pub(crate) mod judge;
pub(crate) mod load;
pub(crate) mod network;
pub(crate) mod operator;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod scenario;
pub(crate) mod scheduler;
pub(crate) mod store_driver;
pub(crate) mod world;

#[cfg(test)]
mod tests {
    use kumo_server::rules::Rule;

    use super::run::{Report, Settings, run};
    use super::scenario::{self, named};

    /// Seeds of each scenario that a test plays; `KUMO_SEEDS` plays more.
    const SEEDS: u64 = 1;

    fn play(name: &str, seed: u64) -> Report {
        let directory = tempfile::tempdir().expect("a directory");
        run(named(name).expect("a scenario"), seed, Settings::default(), directory.path())
    }

    #[test]
    fn clients_see_one_order_in_every_scenario() {
        let seeds = std::env::var("KUMO_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
        for scenario in scenario::SCENARIOS {
            for seed in 1..=seeds {
                let report = play(scenario.name, seed);
                let events: Vec<_> = report.events.iter().map(ToString::to_string).collect();
                let (name, events) = (scenario.name, events.join("\n"));
                let violations = report.violations.join("\n");
                assert!(report.violations.is_empty(), "{name}, seed {seed}:\n{violations}\n{events}");
                assert!(report.operations >= 300 && report.keys == 10, "{name}, seed {seed}: {report:?}");
                assert!(report.faults.values().sum::<u32>() >= 3, "{name}, seed {seed}: {report:?}");
                assert!(report.longest_outage <= scenario.outage_limit, "{name}, seed {seed}: {report:?}");
            }
        }
    }

    #[test]
    fn each_rule_has_a_scenario_with_faults() {
        assert!(Rule::ALL.iter().all(|rule| !scenario::made_for(*rule).choices.is_empty()));
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        for name in ["calm", "isolate", "cut", "attach", "kill"] {
            let (one, other) = (play(name, 7), play(name, 7));
            let events = |report: &Report| report.events.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(events(&one), events(&other), "{name}");
            assert_eq!((one.sum, one.operations, one.time), (other.sum, other.operations, other.time), "{name}");
            assert_ne!(one.sum, play(name, 8).sum, "{name}: another seed gives another run");
        }
    }
}
