//! A store is killed, loses power, and meets full and broken disks, at any operation on any of its files.
//!
//! A worker (`store_worker.rs`) does random work on a store and prints what it does; `tests/shim/faults.c`, preloaded into
//! it, fails at a chosen operation of the redo log, of SQLite, of a backup. Then the next worker opens what is left, and
//! what it finds is compared with what the one before had been answered.
//!
//! `KUMO_CRASH_RUNS` sets the number of workers of each test, `KUMO_CRASH_SEED` the first chain's seed.

mod history;

use super::harness::example;
use fastrand::Rng;
use history::{End, History, View};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

/// Workers in a row on one store.
const CHAIN: u64 = 8;
/// Chains at once, of runs that compute and of runs that mostly wait.
const AT_ONCE: [usize; 2] = [2, 8];

/// The shim, compiled once.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/faults.c");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.so");
        // Another run of the tests may be using it.
        let made = path.with_extension(format!("{}.so", std::process::id()));
        let status = Command::new("cc")
            .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .args([&made, &source])
            .status()
            .expect("a C compiler, as SQLite needs one, too");
        assert!(status.success(), "the shim must compile");
        std::fs::rename(&made, &path).expect("the shim gets its name");
        path
    })
}

/// A value as the environment takes it.
struct Word(String);

impl From<u64> for Word {
    fn from(number: u64) -> Self {
        Self(number.to_string())
    }
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Word {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&Path> for Word {
    fn from(path: &Path) -> Self {
        Self(path.display().to_string())
    }
}

/// What happens to a worker.
#[derive(Debug, Clone, Default)]
struct Fault {
    /// Variables for the shim, without their prefix.
    variables: Vec<(&'static str, String)>,
    /// Arguments for the worker.
    arguments: Vec<String>,
    /// It ends by a loss of power.
    dark: bool,
}

impl Fault {
    fn with(mut self, name: &'static str, value: impl Into<Word>) -> Self {
        self.variables.push((name, value.into().0));
        self
    }

    /// What the kernel had is taken back: the store may have to end the process.
    fn may_abort(&self) -> bool {
        self.variables.iter().any(|(name, _)| *name == "FORGET")
    }

    fn saying(mut self, argument: impl Into<Word>) -> Self {
        self.arguments.push(argument.into().0);
        self
    }
}

/// What a worker has left.
struct Left {
    lines: Vec<String>,
    killed: bool,
    /// It has ended itself.
    aborted: bool,
    errors: String,
}

/// A place for the worker's files: in memory where the system has that, for there are thousands of runs.
fn place() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}

fn run(store: &Path, dark: &Path, seed: u64, fault: &Fault) -> Left {
    let mut command = Command::new(example("store_worker"));
    command.arg(store).arg(seed.to_string()).args(&fault.arguments);
    command.env("LD_PRELOAD", shim()).env("KUMO_FAULT_FOLDER", store).env("KUMO_FAULT_SEED", seed.to_string());
    for (name, value) in &fault.variables {
        command.env(format!("KUMO_FAULT_{name}"), value);
    }
    if fault.dark {
        command.env("KUMO_FAULT_DARK", dark);
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the worker starts");
    let stdout = BufReader::new(child.stdout.take().expect("its stdout"));
    // It prints no more on stderr than a pipe holds.
    let mut lines: Vec<String> = stdout.lines().map(|line| line.expect("text")).collect();
    let output = child.wait_with_output().expect("its end");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let killed = output.status.signal() == Some(9);
    // Until the store has noticed, a read may fail.
    let misread = fault.may_abort() && lines.pop_if(|line| line.starts_with("problem reading failed")).is_some();
    let aborted = fault.may_abort() && output.status.signal() == Some(6);
    let fine = killed || aborted || misread || output.status.success();
    assert!(fine, "seed {seed}, {fault:?}: {} {errors}{}", output.status, tail(&lines));
    Left { lines, killed, aborted, errors }
}

fn tail(lines: &[String]) -> String {
    lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
}

/// What is in the store, told by a worker whose disk works. It also compares a scan with reads.
fn look(store: &Path, seed: u64, context: &str) -> View {
    let healthy = Fault::default().saying("steps=0").saying("look");
    let left = run(store, store, seed, &healthy);
    let mut view = View::new();
    for line in &left.lines {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("saw"), Some(key), Some(name)) => {
                if name != "-" {
                    view.insert(key.parse().expect("a key"), name.to_owned());
                }
            }
            (Some("end"), ..) => return view,
            _ => panic!("{context}: after it: {line}"),
        }
    }
    panic!("{context}: after it the store could not be read: {}{}", left.errors, tail(&left.lines));
}

/// Sums over all chains of a test.
#[derive(Default)]
struct Sums {
    runs: AtomicU64,
    /// Of those, killed at the operation that was chosen, and not at their end.
    killed: AtomicU64,
    failed: AtomicU64,
    aborted: AtomicU64,
    acknowledged: AtomicU64,
    /// Which operations met the fault first, and how often: `w db.redo.` is a write to some file of the redo log.
    points: Mutex<BTreeMap<String, u64>>,
}

impl Sums {
    /// The fault was met by every kind of file: redo log, write-ahead log, main tree, backup.
    fn assert_all_met(self) {
        let points = self.points.into_inner().expect("no panic");
        let met = |operations: &str, name: &str| {
            points.keys().filter_map(|point| point.split_once(' ')).any(|(operation, file)| {
                operations.contains(operation) && if name == "db" { file == name } else { file.starts_with(name) }
            })
        };
        let all = [("w", "db.redo."), ("s", "db.redo."), ("n", ""), ("w", "db-wal"), ("s", "db-wal")];
        let all = all.into_iter().chain([("wst", "db"), ("wsn", "db.backup.tmp")]);
        all.for_each(|(operations, name)| assert!(met(operations, name), "{operations} {name}: {points:?}"));
    }
}

/// The operation at which the shim says that it has begun.
fn point(errors: &str) -> Option<String> {
    let line = errors.lines().find(|line| line.starts_with("faults: "))?;
    let (_, point) = line.rsplit_once(": ")?;
    Some(point.trim_end_matches(|last: char| last.is_ascii_digit()).to_owned())
}

/// One chain of workers on one store, each with the fault that `plan` makes of the dice.
fn chain(seed: u64, plan: &dyn Fn(&mut Rng, &Path) -> Fault, sums: &Sums) {
    let folder = place();
    let (mut store, mut base) = (folder.path().join("0"), View::new());
    std::fs::create_dir(&store).expect("a folder");
    let mut rng = Rng::with_seed(seed);
    for link in 0..CHAIN {
        let number = seed * 1000 + link;
        let sync = *rng.choice(&["always", "everysec", "os"]).expect("one of them");
        let heal = folder.path().join("full");
        std::fs::write(&heal, []).expect("a file");
        let fault =
            plan(&mut rng, &heal).saying(format!("sync={sync}")).saying(format!("now={}", 1_600_000_000 + 1000 * link));
        let dark = folder.path().join(format!("dark-{link}"));
        std::fs::create_dir(&dark).expect("a folder");
        let left = run(&store, &dark, number, &fault);
        let context = format!("KUMO_CRASH_SEED={seed} link {link} sync {sync} {fault:?}\n{}", left.errors);
        let mut history = History::on(base);
        for line in &left.lines {
            if let Some(reason) = line.strip_prefix("refused ") {
                // Opening met the fault: then it must say so, and has promised nothing.
                assert!(!reason.is_empty() && left.lines.len() == 1, "{context}: {line}");
            } else if let Err(error) = history.hear(line) {
                panic!("{context}: {error}{}", tail(&left.lines));
            }
        }
        let has_failed = left.errors.contains("failing");
        if has_failed {
            history.note_failure();
        }
        let end = if left.killed && fault.dark {
            store = dark;
            End::Dark { always: sync == "always" }
        } else {
            End::Kill
        };
        base = look(&store, number, &context);
        if let Err(error) = history.allows_all(&base, end) {
            panic!("{context}: {error}{}", tail(&left.lines));
        }
        sums.runs.fetch_add(1, Ordering::Relaxed);
        sums.killed.fetch_add(u64::from(left.errors.contains("killed at")), Ordering::Relaxed);
        sums.failed.fetch_add(u64::from(has_failed), Ordering::Relaxed);
        if let Some(point) = point(&left.errors) {
            *sums.points.lock().expect("no panic").entry(point).or_default() += 1;
        }
        sums.aborted.fetch_add(u64::from(left.aborted), Ordering::Relaxed);
        sums.acknowledged.fetch_add(history.acknowledged() as u64, Ordering::Relaxed);
    }
}

/// Chains until there were `runs` workers, some at a time.
fn chains(runs: u64, at_once: usize, plan: impl Fn(&mut Rng, &Path) -> Fault + Sync) -> Sums {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (runs, first) = (number("KUMO_CRASH_RUNS", runs), number("KUMO_CRASH_SEED", 1));
    let (sums, seeds) = (Sums::default(), Mutex::new(first..first + runs.div_ceil(CHAIN)));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(seed) = { seeds.lock().expect("no panic").next() } {
                    chain(seed, &plan, &sums);
                }
            });
        }
    });
    let count = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
    eprintln!(
        "{} runs, {} killed at some operation, {} with failures, {} writes acknowledged",
        count(&sums.runs),
        count(&sums.killed),
        count(&sums.failed),
        count(&sums.acknowledged)
    );
    eprintln!("met by {:?}", sums.points.lock().expect("no panic"));
    assert!(count(&sums.acknowledged) > count(&sums.runs), "the work must get somewhere");
    sums
}

/// An operation somewhere in a run: its beginning is met as often as its long middle.
fn somewhere(rng: &mut Rng) -> u64 {
    let bound = *rng.choice(&[20, 100, 300]).expect("one of them");
    rng.u64(1..=bound)
}

/// A kill somewhere; syncs and names, of which there are fewer than writes, get their part.
fn kill(rng: &mut Rng) -> Fault {
    let (operations, at) = match rng.u8(..4) {
        0 => ("s", rng.u64(1..=60)),
        1 => ("nt", rng.u64(1..=30)),
        _ => ("wstn", somewhere(rng)),
    };
    let fault = Fault::default().with("OPS", operations).with("KILL_AT", at).with("TEAR", rng.u64(..=1000));
    size(rng, fault).saying("end=kill")
}

fn size(rng: &mut Rng, fault: Fault) -> Fault {
    if rng.u8(..6) == 0 { fault.saying("large") } else { fault }
}

#[test]
fn killed_at_any_operation_nothing_acknowledged_is_lost() {
    let sums = chains(400, AT_ONCE[0], |rng, _| kill(rng));
    assert!(sums.killed.load(Ordering::Relaxed) * 2 > sums.runs.load(Ordering::Relaxed));
    sums.assert_all_met();
}

#[test]
fn a_loss_of_power_leaves_a_prefix_and_what_was_promised() {
    let sums = chains(400, AT_ONCE[0], |rng, _| Fault { dark: true, ..kill(rng) });
    assert!(sums.killed.into_inner() * 2 > sums.runs.into_inner());
}

/// It was no database then: SQLite's journal of the switch to write-ahead logging had been torn.
#[test]
fn a_store_can_be_opened_after_power_was_lost_while_it_was_made() {
    let mut killed = 0;
    // The last one is that which has found it.
    for (seed, at) in (0..100).map(|number| (number * 7919, number / 2 + 1)).chain([(2_459_000, 20)]) {
        let folder = place();
        let [store, dark] = ["store", "dark"].map(|name| folder.path().join(name));
        for path in [&store, &dark] {
            std::fs::create_dir(path).expect("a folder");
        }
        let fault = Fault { dark: true, ..Fault::default() }.with("KILL_AT", at).saying("steps=0");
        let left = run(&store, &dark, seed, &fault);
        if left.killed {
            killed += 1;
            let found = look(&dark, seed, &format!("seed {seed}: {}", left.errors));
            assert!(found.is_empty(), "{found:?}");
        }
    }
    assert!(killed > 50, "{killed}");
}

/// Operations that fail from somewhere on, for a while.
fn failing(rng: &mut Rng, heal: &Path) -> Fault {
    let (eio, enospc) = (5_u64, 28);
    let errno = *rng.choice(&[eio, enospc]).expect("one of them");
    let count = *rng.choice(&[1, 3, u64::from(u32::MAX)]).expect("one of them");
    let operations = *rng.choice(&["wstn", "w", "s", "nt"]).expect("one of them");
    let from = if operations.contains('w') { somewhere(rng) } else { rng.u64(1..=60) };
    Fault::default()
        .with("FAIL_AT", from)
        .with("COUNT", count)
        .with("OPS", operations)
        .with("ERRNO", errno)
        .with("TEAR", rng.u64(..=1000))
        .with("WHILE", heal)
        .saying(format!("heal={}", heal.display()))
}

#[test]
fn a_full_or_broken_disk_loses_nothing_and_writes_go_on_when_it_is_well_again() {
    let sums = chains(240, AT_ONCE[1], |rng, heal| {
        let fault = failing(rng, heal);
        let fault = size(rng, fault);
        if rng.bool() { fault.saying("end=kill") } else { fault }
    });
    assert!(sums.failed.load(Ordering::Relaxed) * 2 > sums.runs.load(Ordering::Relaxed));
    sums.assert_all_met();
}

/// After a sync that has failed the kernel may have forgotten what it could not write, and the next sync succeeds.
#[test]
fn what_a_failed_sync_has_lost_is_not_believed_to_be_durable() {
    let sums = chains(160, AT_ONCE[1], |rng, heal| {
        let (fail_at, count) = (somewhere(rng) / 2 + 1, rng.u64(1..4));
        let fault = Fault { dark: true, ..Fault::default() };
        let fault = fault.with("OPS", "s").with("FAIL_AT", fail_at).with("COUNT", count);
        // Soon after: as long as what was lost may be needed.
        let fault = fault.with("KILL_AT", fail_at + count + rng.u64(..12));
        fault.with("WHILE", heal).saying(format!("heal={}", heal.display())).saying("end=kill")
    });
    assert!(sums.failed.into_inner() * 3 > sums.runs.into_inner());
}

/// Some file systems read what is on the disk again after a sync that failed: then the process must end, not go on with
/// that.
#[test]
fn a_write_ahead_log_that_has_lost_writes_is_not_used() {
    let sums = chains(80, AT_ONCE[1], |rng, heal| {
        let fault = Fault { dark: true, ..Fault::default() };
        let fault = fault.with("OPS", "s").with("NAME", "db-wal").with("FORGET", 1_u64).with("FAIL_AT", rng.u64(1..20));
        fault.with("WHILE", heal).saying(format!("heal={}", heal.display())).saying("end=kill")
    });
    assert!(sums.aborted.into_inner() > 0);
}
