//! The results of a run, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::choice::Operation;
use super::config::{Config, Distribution, Target};
use super::intervals::Interval;
use super::tally::{Faults, Tally};

/// The result of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The settings of the run.
    pub config: Config,
    /// Servers that requests went to at the end.
    pub servers: usize,
    /// The writing of every key, if it was asked for.
    pub load: Option<Load>,
    /// When measuring began, in Unix seconds: to compare with other records of the same time.
    pub began: f64,
    /// From the first request measured to the last answer.
    pub seconds: f64,
    /// Requests answered without an error in that time, and how many that is in a second.
    pub requests: u64,
    /// See `requests`.
    pub requests_per_second: f64,
    /// Latency of all of them.
    pub latency_us: Latency,
    /// Each operation that was used.
    pub operations: BTreeMap<&'static str, Line>,
    /// Each part of the time by itself, if that was asked for.
    #[serde(rename = "intervals")]
    pub sections: Vec<Section>,
    /// Answers that cannot be, in every part of the run.
    pub faults: Faults,
    /// The first few of them in words.
    pub samples: Vec<String>,
    /// Requests that failed, by reason, in every part of the run.
    pub failures: BTreeMap<String, u64>,
    /// How often the hash spaces changed during the run.
    pub route_changes: u64,
    /// Ended by a signal; the figures are those until then.
    pub interrupted: bool,
    /// Ended because no answer came any more.
    pub gave_up: bool,
}

/// The writing of every key.
#[derive(Debug, Serialize)]
pub(crate) struct Load {
    /// Keys written.
    pub keys: u64,
    /// How long it took.
    pub seconds: f64,
    /// Keys written in a second.
    pub requests_per_second: f64,
}

/// One operation.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    /// Requests answered without an error.
    pub requests: u64,
    /// The same in a second.
    pub requests_per_second: f64,
    /// Of these, those that found nothing: keys that were absent, compare-and-swaps that did not match, copies that
    /// were not newer than what was stored.
    pub void: u64,
    /// From the write that sent a request to the read that brought its answer.
    pub latency_us: Latency,
}

/// A part of the time.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Section {
    /// Seconds since measuring began.
    pub from: f64,
    /// Its length.
    pub seconds: f64,
    /// Requests answered in it without an error.
    pub requests: u64,
    /// The same in a second.
    pub requests_per_second: f64,
    /// Latency of all of them.
    pub latency_us: Latency,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latency {
    mean: f64,
    p50: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p99_9: f64,
    #[serde(rename = "p99.99")]
    p99_99: f64,
    max: f64,
}

/// The facts of a run besides the tally.
#[derive(Debug)]
pub(super) struct RunFacts {
    /// Servers that requests went to at the end.
    pub(super) servers: usize,
    /// The writing of every key.
    pub(super) load: Option<Load>,
    /// When measuring began, since the Unix epoch.
    pub(super) began: Duration,
    /// From the first request measured to the last answer.
    pub(super) elapsed: Duration,
    /// Each part of that.
    pub(super) sections: Vec<Section>,
    /// How often the hash spaces changed.
    pub(super) route_changes: u64,
    /// Ended by a signal.
    pub(super) interrupted: bool,
    /// Ended for want of answers.
    pub(super) gave_up: bool,
}

impl Report {
    /// Puts the figures together.
    pub(super) fn new(config: &Config, tally: &Tally, run: RunFacts) -> Self {
        let all = tally.latency();
        let mut operations = BTreeMap::new();
        for operation in Operation::ALL {
            let seen = tally.of(operation);
            if !seen.latency.is_empty() {
                let line = Line {
                    requests: seen.latency.len(),
                    requests_per_second: rate(seen.latency.len(), run.elapsed),
                    void: seen.void,
                    latency_us: Latency::new(&seen.latency),
                };
                operations.insert(operation.name(), line);
            }
        }
        Self {
            config: config.clone(),
            servers: run.servers,
            load: run.load,
            began: run.began.as_secs_f64(),
            seconds: run.elapsed.as_secs_f64(),
            requests: all.len(),
            requests_per_second: rate(all.len(), run.elapsed),
            latency_us: Latency::new(&all),
            operations,
            sections: run.sections,
            faults: tally.faults,
            samples: tally.samples.clone(),
            failures: tally.failures.iter().map(|(failure, count)| (failure.to_string(), *count)).collect(),
            route_changes: run.route_changes,
            interrupted: run.interrupted,
            gave_up: run.gave_up,
        }
    }

    /// Whether every answer was right and no request failed.
    pub(crate) fn is_good(&self) -> bool {
        self.faults.total() == 0 && self.failures.is_empty() && !self.gave_up
    }

    /// Requests that failed, in all.
    fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

impl Load {
    /// So many keys in so much time.
    pub(crate) fn new(keys: u64, elapsed: Duration) -> Self {
        Self { keys, seconds: elapsed.as_secs_f64(), requests_per_second: rate(keys, elapsed) }
    }
}

impl Interval {
    /// The part of a report for it.
    pub(super) fn section(&self) -> Section {
        Section {
            from: self.from.as_secs_f64(),
            seconds: self.length.as_secs_f64(),
            requests: self.latency.len(),
            requests_per_second: rate(self.latency.len(), self.length),
            latency_us: Latency::new(&self.latency),
        }
    }
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| microseconds(histogram.value_at_quantile(quantile));
        Self {
            mean: histogram.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: microseconds(histogram.max()),
        }
    }

    fn write(&self, line: &mut String) -> fmt::Result {
        for time in [self.mean, self.p50, self.p90, self.p99, self.p99_9, self.p99_99, self.max] {
            write!(line, "{:>9}", format!("{:.3}", time / 1000.0))?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure to read")]
fn rate(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

#[expect(clippy::cast_precision_loss, reason = "a figure to read")]
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { connections, pipeline, threads, keys, value_size, .. } = self.config;
        match &self.config.target {
            Target::Server(server) => write!(f, "server {server}")?,
            Target::Memcached { address, multiget: false } => write!(f, "memcached {address}")?,
            Target::Memcached { address, multiget: true } => write!(f, "memcached {address}, multi-gets")?,
            Target::Managers(managers) => {
                let names: Vec<_> = managers.iter().map(ToString::to_string).collect();
                write!(f, "{} servers of manager {}", self.servers, names.join(", "))?;
            }
        }
        let plural = if threads == 1 { "" } else { "s" };
        write!(f, "; {connections} connections x {pipeline} requests, {threads} thread{plural}; {keys} keys, ")?;
        match self.config.distribution {
            Distribution::Uniform => write!(f, "uniform")?,
            Distribution::Zipf(theta) => write!(f, "zipf {theta}")?,
        }
        writeln!(f, "; values of {value_size} bytes")?;
        if let Some(node) = self.config.replicate_as {
            writeln!(f, "copies as node {node}")?;
        }
        if let Some(load) = &self.load {
            writeln!(f, "loaded {} keys in {:.2} s: {:.0}/s", load.keys, load.seconds, load.requests_per_second)?;
        }
        let ended = if self.interrupted { ", interrupted" } else { "" };
        writeln!(f, "measured for {:.2} s{ended}; latencies in milliseconds\n", self.seconds)?;
        writeln!(
            f,
            "{:<8}{:>12}{:>12}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "", "requests", "per second", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"
        )?;
        let mut row = |name: &str, requests: u64, rate: f64, latency: &Latency| {
            let mut line = format!("{name:<8}{requests:>12}{rate:>12.0}");
            latency.write(&mut line)?;
            writeln!(f, "{line}")
        };
        for (name, line) in &self.operations {
            row(name, line.requests, line.requests_per_second, &line.latency_us)?;
        }
        row("all", self.requests, self.requests_per_second, &self.latency_us)?;
        for Section { from, seconds, requests, requests_per_second, latency_us } in &self.sections {
            row(&format!("{from:.0}-{:.0} s", from + seconds), *requests, *requests_per_second, latency_us)?;
        }
        writeln!(f)?;
        self.write_remarks(f)
    }
}

impl Report {
    fn write_remarks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, line) in self.operations.iter().filter(|(_, line)| line.void > 0) {
            let what = match *name {
                "cas" => "did not match and were tried again",
                "replicate" => "were not newer than what was stored",
                _ => "found no such key",
            };
            writeln!(f, "{} of {} {name} requests {what}", line.void, line.requests)?;
        }
        let Faults { wrong, missing, stale } = self.faults;
        writeln!(f, "answers: {wrong} wrong, {missing} missing, {stale} stale; requests failed: {}", self.failed())?;
        for sample in &self.samples {
            writeln!(f, "  {sample}")?;
        }
        for (failure, count) in &self.failures {
            writeln!(f, "  {count} x {failure}")?;
        }
        if self.route_changes > 0 {
            writeln!(f, "the hash space changed {} times", self.route_changes)?;
        }
        if self.gave_up {
            writeln!(f, "given up: no answer for {:.1} s", 2.0 * self.config.timeout.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::config;
    use super::super::tally::Failure;
    use super::*;

    fn report(change: impl FnOnce(&mut Tally)) -> Report {
        let mut tally = Tally::new().unwrap();
        for micros in 1..=1000 {
            tally.answered(Operation::Get, Duration::from_micros(micros), micros <= 10);
            tally.answered(Operation::Set, Duration::from_millis(2), false);
        }
        change(&mut tally);
        let run = RunFacts {
            servers: 1,
            load: Some(Load::new(500, Duration::from_millis(250))),
            began: Duration::from_secs(1_000_000),
            elapsed: Duration::from_secs(2),
            sections: vec![
                Interval { from: Duration::from_secs(1), length: Duration::from_secs(1), latency: tally.latency() }
                    .section(),
            ],
            route_changes: 0,
            interrupted: false,
            gave_up: false,
        };
        Report::new(&config(), &tally, run)
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "quotients of small whole numbers")]
    fn figures_are_those_that_were_recorded() {
        let report = report(|_| {});
        assert_eq!((report.requests, report.requests_per_second), (2000, 1000.0));
        assert_eq!(report.load.as_ref().unwrap().requests_per_second, 2000.0);
        let get = &report.operations["get"];
        assert_eq!((get.requests, get.requests_per_second, get.void), (1000, 500.0, 10));
        for (seen, expected) in [
            (get.latency_us.p50, 500.0),
            (get.latency_us.p99, 990.0),
            (get.latency_us.max, 1000.0),
            (get.latency_us.mean, 500.5),
            (report.latency_us.p99, 2000.0),
        ] {
            assert!((seen - expected).abs() < expected * 0.002, "{seen}, not {expected}");
        }
        assert!(!report.operations.contains_key("cas"));
        assert!(report.is_good());
    }

    #[test]
    fn people_read_a_table() {
        let text = report(|_| {}).to_string();
        let rows: Vec<_> = text.lines().collect();
        assert_eq!(
            rows[0],
            "server 127.0.0.1:1; 8 connections x 16 requests, 1 thread; 1000 keys, uniform; values of 100 bytes"
        );
        assert_eq!(rows[1], "loaded 500 keys in 0.25 s: 2000/s");
        let get: Vec<_> = rows[5].split_whitespace().collect();
        assert_eq!(get[..3], ["get", "1000", "500"], "{text}");
        // The heading has no name, and "per second" is two words.
        assert_eq!(get.len(), rows[4].split_whitespace().count(), "{text}");
        let part: Vec<_> = rows[8].split_whitespace().collect();
        assert_eq!(part[..4], ["1-2", "s", "2000", "2000"], "{text}");
        assert!(text.contains("\n10 of 1000 get requests found no such key\n"), "{text}");
        assert!(text.ends_with("\nanswers: 0 wrong, 0 missing, 0 stale; requests failed: 0\n"), "{text}");
    }

    #[test]
    fn faults_and_failures_are_named() {
        let faulty = report(|tally| {
            tally.fault(|faults| &mut faults.missing, || "key:0 is absent".to_owned());
        });
        assert!(!faulty.is_good());
        let text = faulty.to_string();
        assert!(text.contains("0 wrong, 1 missing, 0 stale; requests failed: 0\n  key:0 is absent\n"), "{text}");
        let failed = report(|tally| tally.failed(Failure::Lost, 3));
        assert!(!failed.is_good());
        assert!(failed.to_string().contains("requests failed: 3\n  3 x connection lost\n"), "{failed}");
    }

    #[test]
    fn programs_read_json() {
        let json = serde_json::to_value(report(|tally| tally.failed(Failure::TimedOut, 2))).unwrap();
        assert_eq!(json["operations"]["get"]["requests"], 1000);
        assert_eq!(json["config"]["target"]["server"], "127.0.0.1:1");
        assert_eq!(json["config"]["extent"]["requests"], 1);
        assert_eq!(json["failures"]["no answer in time"], 2);
        assert_eq!((&json["began"], &json["intervals"][0]["from"]), (&1_000_000.0.into(), &1.0.into()));
        assert_eq!(json["intervals"][0]["requests"], 2000);
        assert_eq!(json["faults"]["missing"], 0);
        assert!(json["latency_us"]["p99.9"].as_f64().unwrap() > 1900.0, "{json}");
    }
}
