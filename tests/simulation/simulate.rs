//! Simulates whole clusters from seeds, and looks whether they keep their promises.
//!
//! `cargo run --release --example simulate -- --seeds 100`; `--seed N` plays one again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a simulation that cannot go on must stop"
)]

#[path = "mod.rs"]
mod simulation;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use simulation::scenario::{self, Report, Scenario};

/// Simulates clusters of managers, servers and clients, and checks what the clients saw.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds to play.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them, or the only one with --seeds 1.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these scenarios; else those in which the promises are kept today.
    #[arg(long, value_enum)]
    scenario: Vec<Scenario>,
    /// Show what the nodes log.
    #[arg(long)]
    trace: bool,
}

#[derive(Default)]
struct Row {
    runs: u64,
    operations: usize,
    keys: usize,
    faults: u32,
    longest_outage: Duration,
    violations: u64,
}

impl Row {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.operations += report.operations;
        self.keys += report.keys;
        self.faults += report.faults.values().sum::<u32>();
        self.longest_outage = self.longest_outage.max(report.longest_outage);
        self.violations += u64::from(!report.violations.is_empty());
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.trace {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_target(true).init();
    }
    let scenarios = if args.scenario.is_empty() { Scenario::KEPT.to_vec() } else { args.scenario.clone() };
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let begun = Instant::now();
    for seed in args.seed..args.seed + args.seeds {
        let scenario = scenarios[usize::try_from(seed).unwrap_or(0) % scenarios.len()];
        let directory = tempfile::Builder::new().prefix("kumo-simulate").tempdir_in(memory()).expect("a directory");
        let report = scenario::run(scenario, seed, directory.path());
        for violation in &report.violations {
            println!("seed {seed}, {scenario:?}: {violation}");
        }
        rows.entry(format!("{scenario:?}")).or_default().add(&report);
    }
    println!(
        "{:10} {:>6} {:>10} {:>6} {:>7} {:>14} {:>10}",
        "scenario", "runs", "operations", "keys", "faults", "longest outage", "violations"
    );
    for (name, row) in &rows {
        println!(
            "{name:10} {:>6} {:>10} {:>6} {:>7} {:>12.1} s {:>10}",
            row.runs,
            row.operations,
            row.keys,
            row.faults,
            row.longest_outage.as_secs_f64(),
            row.violations
        );
    }
    println!("{} seeds in {:.1} s", args.seeds, begun.elapsed().as_secs_f64());
    if rows.values().any(|row| row.violations > 0) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A file system in memory, where there is one.
fn memory() -> &'static std::path::Path {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { memory } else { std::path::Path::new("/tmp") }
}
