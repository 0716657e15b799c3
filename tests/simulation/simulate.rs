//! Simulates whole clusters from seeds, and looks whether they keep their promises.
//!
//! `cargo run --release --example simulate -- --seeds 100`; `--seed N --trace` plays one again, `--without RULE` shows what a
//! rule is for. `docs/development.md` says more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a simulation that cannot go on must stop"
)]

#[path = "mod.rs"]
mod simulation;

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser;
use kumo_server::rules::{Rule, Rules};
use simulation::run::{Report, Settings, run};
use simulation::scenario::{self, SCENARIOS, Scenario, named};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Violations that are shown in full.
const SHOWN: usize = 10;

/// Simulates clusters of managers, servers and gateways, and checks what their clients saw.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds to play.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this scenario, or these; else, or with 'all', each of them in turn.
    #[arg(long, value_parser = scenario_named)]
    scenario: Vec<Choice>,
    /// Show all that happens and all that the nodes log; for one seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Show all bytes that are sent, too.
    #[arg(long, requires = "trace")]
    bytes: bool,
    /// Leave out this rule, in the scenario made for it unless one is named, until that shows: a violation is what is
    /// looked for, and none the failure. 'all' stands for each of them in turn.
    #[arg(long, value_parser = rule_named)]
    without: Option<Without>,
    /// Managers are told to be compatible: servers do not vote, and most scenarios with losses and cuts break promises.
    #[arg(long)]
    compatible: bool,
    /// Simulations that run beside each other.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

/// A scenario, or all.
type Choice = Option<&'static Scenario>;
/// A rule, or all.
type Without = Option<Rule>;

fn scenario_named(name: &str) -> Result<Choice, String> {
    let names = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    match named(name) {
        None if name != "all" => Err(format!("one of all, {}", names())),
        scenario => Ok(scenario),
    }
}

fn rule_named(name: &str) -> Result<Without, String> {
    let names = || Rule::ALL.iter().map(|rule| rule.name()).collect::<Vec<_>>().join(", ");
    match Rule::ALL.iter().copied().find(|rule| rule.name() == name) {
        None if name != "all" => Err(format!("one of all, {}", names())),
        rule => Ok(rule),
    }
}

/// A line of the table.
#[derive(Default)]
struct Row {
    runs: u64,
    operations: usize,
    keys: usize,
    faults: BTreeMap<&'static str, u32>,
    longest_outage: Duration,
    violated: u64,
    /// On the clocks of the simulation.
    time: Duration,
}

impl Row {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.operations += report.operations;
        self.keys += report.keys;
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.longest_outage = self.longest_outage.max(report.longest_outage);
        self.time += report.time;
        self.violated += u64::from(!report.violations.is_empty());
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let (from, count) = args.seed.map_or((args.from, args.seeds), |seed| (seed, 1));
    let seeds = from..from.saturating_add(count);
    let all = args.scenario.iter().any(Option::is_none);
    let chosen: Vec<_> =
        if all { SCENARIOS.iter().collect() } else { args.scenario.iter().copied().flatten().collect() };
    if let Some(without) = args.without {
        let rules = without.map_or_else(|| Rule::ALL.to_vec(), |rule| vec![rule]);
        let missed = rules.into_iter().filter(|rule| is_missed(*rule, &chosen, seeds.clone(), &args)).count();
        return if missed == without.map_or(Rule::ALL.len(), |_| 1) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let scenarios = if chosen.is_empty() { SCENARIOS.iter().collect() } else { chosen };
    let begun = Instant::now();
    let mut rows: Vec<_> = scenarios.iter().map(|scenario| (scenario.name, Row::default())).collect();
    let mut violated = 0;
    let settings =
        Settings { rules: Rules::default(), compatible: args.compatible, trace: args.trace, bytes: args.bytes };
    play(&scenarios, seeds, settings, args.jobs, |seed, place, report| {
        rows[place].1.add(report);
        if args.seed.is_some() {
            println!("the sum of all that travelled: {:016x}", report.sum);
        }
        if !report.violations.is_empty() {
            violated += 1;
            if violated <= SHOWN {
                show(seed, scenarios[place], report);
            }
        }
        true
    });
    if violated > SHOWN {
        println!("{} more seeds with violations are not shown\n", violated - SHOWN);
    }
    show_table(&rows);
    let runs: u64 = rows.iter().map(|(_, row)| row.runs).sum();
    let hours = rows.iter().map(|(_, row)| row.time).sum::<Duration>().as_secs_f64() / 3600.0;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{runs} runs in {seconds:.1} s, {hours:.1} hours on the clocks of the simulation; {violated} with a violation"
    );
    if violated > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Whether it shows that a rule is left out.
fn is_missed(rule: Rule, chosen: &[&'static Scenario], seeds: Range<u64>, args: &Args) -> bool {
    let made_for = [scenario::made_for(rule)];
    let scenarios = if chosen.is_empty() { &made_for[..] } else { chosen };
    let settings =
        Settings { rules: Rules::without(rule), compatible: args.compatible, trace: args.trace, bytes: args.bytes };
    let (begun, mut runs, mut found) = (Instant::now(), 0, None);
    play(scenarios, seeds, settings, args.jobs, |seed, place, report| {
        runs += 1;
        if found.is_none() && !report.violations.is_empty() {
            if args.seed.is_some() {
                show(seed, scenarios[place], report);
            }
            found =
                Some((seed, scenarios[place].name, report.violations[0].lines().next().unwrap_or_default().to_owned()));
        }
        found.is_none()
    });
    let seconds = begun.elapsed().as_secs_f64();
    match &found {
        Some((seed, scenario, violation)) => {
            println!(
                "without {:16} {runs:>6} runs, {seconds:6.1} s: seed {seed} of {scenario}: {violation}",
                rule.name()
            );
        }
        None => println!("without {:16} {runs:>6} runs, {seconds:6.1} s: nothing", rule.name()),
    }
    found.is_some()
}

/// Plays seeds, each in the scenario that its number says; `see` is shown every report, and says whether to go on.
fn play(
    scenarios: &[&'static Scenario],
    seeds: Range<u64>,
    settings: Settings,
    jobs: usize,
    mut see: impl FnMut(u64, usize, &Report) -> bool,
) {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (sender, reports) = mpsc::channel();
        for _ in 0..jobs.max(1) {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let place = usize::try_from(seed).unwrap_or(0) % scenarios.len();
                    let report = run(scenarios[place], seed, settings, directory().path());
                    if sender.send((seed, place, report)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (seed, place, report) in reports {
            if !see(seed, place, &report) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
}

/// A folder for the stores of a run.
fn directory() -> tempfile::TempDir {
    // A file system in memory, where there is one.
    let memory = std::path::Path::new("/dev/shm");
    let place = if memory.is_dir() { memory } else { std::path::Path::new("/tmp") };
    tempfile::Builder::new().prefix("kumo-simulate").tempdir_in(place).expect("a directory")
}

fn show(seed: u64, scenario: &Scenario, report: &Report) {
    println!("seed {seed}, scenario {}: {} violations", scenario.name, report.violations.len());
    for violation in &report.violations {
        println!("  {}", violation.replace('\n', "\n  "));
    }
    println!("  what happened:");
    for event in &report.events {
        println!("  {event}");
    }
    println!("  again: --scenario {} --seed {seed} --trace\n", scenario.name);
}

fn show_table(rows: &[(&str, Row)]) {
    println!(
        "{:12} {:>6} {:>10} {:>7} {:>7} {:>14} {:>9}  faults by kind",
        "scenario", "runs", "operations", "keys", "faults", "longest outage", "violated"
    );
    for (name, row) in rows.iter().filter(|(_, row)| row.runs > 0) {
        let kinds: Vec<_> = row.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        println!(
            "{name:12} {:>6} {:>10} {:>7} {:>7} {:>12.1} s {:>9}  {}",
            row.runs,
            row.operations,
            row.keys,
            row.faults.values().sum::<u32>(),
            row.longest_outage.as_secs_f64(),
            row.violated,
            kinds.join(", ")
        );
    }
}
