//! The hash tool against the recorded ring, and with a manager.

use std::fmt::Write;

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::{Finished, Folder, Process, kumo_server};

fn hash(args: &[&str]) -> Finished {
    let args = [&["hash"], args].concat();
    Process::run(&Folder::new(), &kumo_server(), &args)
}

#[track_caller]
fn fine(args: &[&str]) -> String {
    let finished = hash(args);
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""), "{args:?}: {finished:?}");
    finished.stdout
}

/// The recorded ring: its servers, and for each key its hash and owners, as the tool prints them.
struct Recorded {
    servers: Vec<String>,
    keys: Vec<String>,
    hashes: String,
    owners: String,
    points: Vec<(String, String)>,
}

fn recorded() -> Recorded {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/ring.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let nodes = vectors["nodes"].as_array().unwrap();
    let servers: Vec<_> = nodes.iter().map(|node| text(&node["addr"])).collect();
    let points = nodes.iter().flat_map(|node| {
        let points = node["points"].as_array().unwrap().iter().chain([&node["last"]]);
        points.map(|point| (text(point), text(&node["addr"])))
    });
    let mut all =
        Recorded { points: points.collect(), servers, keys: Vec::new(), hashes: String::new(), owners: String::new() };
    for entry in vectors["keys"].as_array().unwrap() {
        let key = text(&entry["key"]);
        let line = format!(
            "{}  {}\n",
            text(&entry["hash"]),
            if key.contains(char::is_control) { key.escape_default().to_string() } else { key.clone() }
        );
        all.hashes += &line;
        all.owners += &line;
        for (number, owner) in entry["owners"].as_array().unwrap().iter().enumerate() {
            let owner = usize::try_from(owner.as_u64().unwrap()).unwrap();
            writeln!(all.owners, "  {number}: {}", all.servers[owner]).unwrap();
        }
        all.keys.push(key);
    }
    all
}

#[test]
fn hashes_owners_and_points_are_the_recorded_ones() {
    let recorded = recorded();
    let keys: Vec<_> = recorded.keys.iter().map(String::as_str).collect();
    let servers: Vec<_> = recorded.servers.iter().map(String::as_str).collect();
    assert!(keys.len() > 100);
    assert_eq!(fine(&[&["--", "hash"], &keys[..]].concat()), recorded.hashes);
    assert_eq!(fine(&[&servers[..], &["--", "assign"], &keys[..]].concat()), recorded.owners);
    let dump = fine(&[&servers[..], &["--", "dump"]].concat());
    assert_eq!(dump.lines().count(), servers.len() * 128);
    assert!(dump.lines().is_sorted(), "in the order of the ring");
    for (point, server) in &recorded.points {
        assert!(dump.contains(&format!("{point}  {server}\n")), "{point} of {server}");
    }
}

#[test]
fn json_says_the_same() {
    let json = |args: &[&str]| serde_json::from_str::<Value>(&fine(args)).unwrap();
    assert_eq!(json(&["--json", "hash", "key0"]), serde_json::json!([{"key": "key0", "hash": "996e1f2d33efb1ad"}]));
    let owned = json(&["--json", "127.0.0.1:19801", "--", "assign", "key0"]);
    assert_eq!(owned[0]["owners"], serde_json::json!([{"address": "127.0.0.1:19801", "active": true}]));
    let dump = json(&["--json", "127.0.0.1:19801", "--", "dump"]);
    assert_eq!(dump.as_array().unwrap().len(), 128);
    assert_eq!(dump[0]["address"], "127.0.0.1:19801");
}

#[test]
fn a_manager_tells_the_servers_and_who_is_in_fault() {
    let mut cluster = Cluster::start(3);
    let manager = cluster.managers[0].0.address().to_string();
    let (whs, _) = cluster.spaces();
    let owners: Vec<_> = whs.owners(kumo_server::ring::hash(b"key")).all().map(|(node, _)| node).collect();
    let lines = |marks: [&str; 3]| {
        let hash = kumo_server::ring::hash(b"key");
        let line = |(number, mark): (usize, &str)| format!("  {number}: {}{mark}\n", owners[number]);
        format!("{hash:016x}  key\n{}", marks.into_iter().enumerate().map(line).collect::<Vec<_>>().concat())
    };
    assert_eq!(fine(&["-m", &manager, "assign", "key"]), lines(["", "", ""]));
    let victim = cluster.servers.iter().position(|server| server.address() == owners[1].socket()).unwrap();
    cluster.kill(victim);
    cluster.wait_faulty(victim);
    assert_eq!(fine(&["-m", &manager, "--", "assign", "key"]), lines(["", "  (fault)", ""]));
}
