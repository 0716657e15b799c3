//! Clients that others have written, against a gateway of three servers: from Python, and libmemcached's tools.
//!
//! A test whose client is not installed checks nothing, and says so; in CI it fails.

use std::path::{Path, PathBuf};

use crate::harness::cluster::Cluster;
use crate::harness::{Gateway, Process, required, wait_until};

/// The first of these programs that runs with `args`.
#[track_caller]
fn program(names: &[&str], args: &[&str]) -> Option<PathBuf> {
    let found = names.iter().find(|name| required::runs(name, args)).map(PathBuf::from);
    required::is_there(&format!("one of {names:?} that runs with {args:?}"), found.is_some());
    found
}

/// Runs a client to its end, which must be a good one. Returns what it has printed.
#[track_caller]
fn run(cluster: &Cluster, program: &Path, args: &[&str]) -> String {
    let finished = Process::run(cluster.folder(), program, args);
    assert!(finished.status.success(), "{} {args:?}: {finished:?}", program.display());
    finished.stdout
}

/// A script of `tests/clients`. Its Python is `KUMO_PYTHON`, or the first one on the path.
fn script(name: &str, module: &str, flags: &[&str]) {
    let python = std::env::var("KUMO_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let Some(python) = program(&[&python], &["-c", &format!("import {module}")]) else { return };
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, flags);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name);
    let (script, port) = (script.to_str().expect("a path"), gateway.port.number().to_string());
    assert_eq!(run(&cluster, &python, &[script, "127.0.0.1", &port]), "all as expected\n");
}

#[test]
fn pymemcache_finds_everything_as_it_expects() {
    script("text.py", "pymemcache", &[]);
}

#[test]
fn python_binary_memcached_finds_everything_as_it_expects() {
    script("binary.py", "bmemcached", &[]);
}

#[test]
fn a_client_that_waits_for_half_a_second_may_flush() {
    script("flush.py", "pymemcache", &["--allow-flush"]);
}

/// All tests of memcapable in one protocol.
fn memcapable(protocol: &str) {
    let Some(memcapable) = program(&["memccapable", "memcapable"], &["-V"]) else { return };
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &["--allow-flush"]);
    let port = gateway.port.number().to_string();
    let told = run(&cluster, &memcapable, &["-h", "127.0.0.1", "-p", &port, protocol]);
    assert!(told.contains("All tests passed"), "{told}");
}

#[test]
fn memcapable_passes_in_text() {
    memcapable("-a");
}

#[test]
fn memcapable_passes_in_binary() {
    memcapable("-b");
}

#[test]
fn what_memaslap_stores_it_reads_back() {
    let Some(memaslap) = program(&["memcaslap", "memaslap"], &["-V"]) else { return };
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let address = gateway.port.address().to_string();
    let common = ["-s", &address, "-T", "2", "-c", "16", "-x", "4000", "-v", "0.5", "-X", "300"];
    for more in [&["-d", "10"][..], &["-B"], &["-B", "-d", "10"]] {
        let told = run(&cluster, &memaslap, &[&common[..], more].concat());
        for line in ["get_misses: 0\n", "verify_misses: 0\n", "verify_failed: 0\n"] {
            assert!(told.contains(line), "{more:?}: {told}");
        }
    }
}

#[test]
fn memslap_ends_without_a_complaint() {
    let Some(memslap) = program(&["memcslap", "memslap"], &["-V"]) else { return };
    let cluster = Cluster::start(3);
    let gateway = Gateway::of(&cluster, &[]);
    let address = gateway.port.address().to_string();
    for more in [&["-t", "get"][..], &["-t", "mget"], &["-t", "set", "-b"], &["-t", "set", "-n", "-R"]] {
        run(&cluster, &memslap, &[&["-s", &address, "-c", "4", "-e", "500"][..], more].concat());
    }
    wait_until("what is not answered is done, too", || gateway.stat("cmd_set") >= 2 * 4 * 500);
}
