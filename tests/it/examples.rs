//! The example programs do what they say.

use std::process::Command;

use kumo_server::embedded::Cluster;

use crate::harness::example;

/// What an example prints; it must succeed.
fn output(name: &str, args: &[&str]) -> String {
    let done = Command::new(example(name)).args(args).output().expect("a process");
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

/// What an example says that fails.
fn failure(name: &str, args: &[&str]) -> String {
    let done = Command::new(example(name)).args(args).output().expect("a process");
    assert!(!done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stdout));
    String::from_utf8(done.stderr).expect("text")
}

fn cluster() -> (tokio::runtime::Runtime, Cluster) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let cluster = runtime.block_on(Cluster::start(3)).expect("a cluster");
    (runtime, cluster)
}

#[test]
fn get_and_set() {
    let (_runtime, cluster) = cluster();
    let expected = "greeting is hello\nswapped for goodbye\nnot swapped for too late: another write came first\n\
                    deleted: true\ndeleted again: false\n";
    assert_eq!(output("get_set", &[&cluster.manager().to_string()]), expected);
    assert!(failure("get_set", &[]).contains("usage"));
}

#[test]
fn counters_that_run_at_the_same_time_lose_nothing() {
    let (_runtime, cluster) = cluster();
    let manager = cluster.manager().to_string();
    let others: Vec<_> = (0..2)
        .map(|_| Command::new(example("counter")).arg(&manager).stdout(std::process::Stdio::null()).spawn().unwrap())
        .collect();
    assert!(output("counter", &[&manager]).starts_with("100 increments took "));
    for mut other in others {
        assert!(other.wait().unwrap().success());
    }
    assert!(output("counter", &[&manager]).ends_with("the counter went from 300 to 400\n"));
}

#[test]
fn the_hash_space_is_followed_to_its_end() {
    let text = output("hash_space", &[]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines[0], lines.len() >= 11), ("3 servers: each has a copy of every key", true), "{text}");
    assert_eq!(lines[lines.len() - 6..][..2], ["4 servers: settled", "now every key is on three servers of the 4"]);
    for line in lines[1..5].iter().chain(&lines[lines.len() - 4..]) {
        assert_eq!(line.split_whitespace().count(), 4, "a key and three servers: {line}");
    }
}

#[test]
fn a_store_is_read_offline() {
    let (runtime, cluster) = cluster();
    let manager = cluster.manager().to_string();
    output("counter", &[&manager]);
    let store = cluster.store(0);
    let path = store.to_str().expect("a path in UTF-8");
    let refused = failure("offline", &[path]);
    assert!(refused.contains("in use by another process") && refused.contains("or read a backup"), "{refused}");
    runtime.block_on(cluster.stop_server(0)).unwrap();
    assert_eq!(output("offline", &[path, "counter"]), "100\n");
    let list = output("offline", &[path]);
    assert!(list.starts_with("counter at ") && list.ends_with(": 3 bytes\n1 records\n"), "{list}");
    assert!(failure("offline", &[path, "nobody"]).contains("not found"));
}

#[test]
fn a_program_is_tested_with_an_embedded_cluster() {
    let expected = "first visit, before: None\nsecond visit, before: Some(\"monday\")\n\
                    with one server left, before: Some(\"tuesday\")\nwith none left, an error: true\n";
    assert_eq!(output("embedded", &[]), expected);
}
