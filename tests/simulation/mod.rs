//! Simulations of whole clusters: the real manager, server and client on simulated machines, from one seed.
//!
//! `cargo run --release --example simulate` plays many; `tests/it` plays some of those in which the promises are kept.

pub(crate) mod application;
pub(crate) mod cluster;
pub(crate) mod history;
pub(crate) mod load;
pub(crate) mod network;
pub(crate) mod scenario;
pub(crate) mod store_driver;
pub(crate) mod world;

#[cfg(test)]
mod tests {
    use super::scenario::{self, Scenario};

    /// Seeds of each scenario that a test plays; `KUMO_SEEDS` plays more.
    const SEEDS: u64 = 10;

    fn play(scenario: Scenario) {
        assert!(Scenario::KEPT.contains(&scenario));
        let seeds = std::env::var("KUMO_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
        for seed in 1..=seeds {
            let directory = tempfile::tempdir().expect("a directory");
            let report = scenario::run(scenario, seed, directory.path());
            assert!(report.violations.is_empty(), "{scenario:?}, seed {seed}:\n{}", report.violations.join("\n"));
            assert!(report.operations >= 300 && report.keys == 8, "{scenario:?}, seed {seed}: {report:?}");
            assert!(report.faults.values().sum::<u32>() > 0, "{scenario:?}, seed {seed}: nothing has happened");
        }
    }

    #[test]
    fn clients_see_one_order_though_clocks_are_wrong_and_the_network_loses_packets() {
        play(Scenario::Calm);
    }

    #[test]
    fn clients_see_one_order_while_a_server_is_attached() {
        play(Scenario::Attach);
    }

    #[test]
    fn clients_see_one_order_while_servers_stop_and_go_on() {
        play(Scenario::Stop);
    }

    #[test]
    fn clients_see_one_order_while_managers_are_killed() {
        play(Scenario::Managers);
    }

    #[test]
    fn clients_of_a_gateway_see_one_order_while_it_is_killed() {
        play(Scenario::Gateway);
    }
}
