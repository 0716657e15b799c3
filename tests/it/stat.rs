//! The stat tool as people run it: every command, several servers, servers that do not answer.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::{FakeServer, Finished, Folder, Manager, Port, Process, kumo_server};

fn stat(args: &[&str]) -> Finished {
    let args = [&["stat"], args].concat();
    Process::run(&Folder::new(), &kumo_server(), &args)
}

#[track_caller]
fn fine(args: &[&str]) -> String {
    let finished = stat(args);
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""), "{args:?}: {finished:?}");
    finished.stdout
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    serde_json::from_str(&fine(&[&["--json"], args].concat())).expect("JSON")
}

#[test]
fn every_command_is_answered() {
    let mut cluster = Cluster::start(3);
    let manager = cluster.managers[0].0.address().to_string();
    let mut addresses: Vec<_> = cluster.spaces().0.active_nodes().map(|node| node.to_string()).collect();
    let mut client = cluster.client();
    for key in 0..30 {
        assert!(client.set(format!("key{key}").as_bytes(), b"value").is_acknowledged());
    }
    assert!(client.delete(b"key0").is_acknowledged());
    assert_eq!(client.get(b"key1").as_deref(), Some(&b"value"[..]));

    let server = cluster.servers[0].address().to_string();
    let pid = cluster.servers[0].process().pid().as_raw_nonzero();
    assert_eq!(fine(&[&server, "pid"]), format!("{pid}\n"));
    assert!(fine(&[&server, "uptime"]).trim().parse::<u32>().is_ok_and(|uptime| uptime < 1000));
    assert!(fine(&[&server, "time"]).trim().parse::<u32>().is_ok_and(|time| time > 1_700_000_000));
    assert_eq!(fine(&[&server, "version"]), "0.4.13 revision \n");
    // Each of three servers has every record.
    let all = |value: &str| addresses.iter().flat_map(|address| [address, ":  ", value, "\n"]).collect::<String>();
    assert_eq!(fine(&["-m", &manager, "items"]), all("30"));
    assert_eq!(fine(&["-m", &manager, "replstat"]), all("ready"));
    for (command, count) in [("cmd_get", 1), ("cmd_set", 30), ("cmd_delete", 1)] {
        let objects = json(&["-m", &manager, command]);
        let sum: u64 = objects.as_array().unwrap().iter().map(|object| object[command].as_u64().unwrap()).sum();
        assert_eq!(sum, count, "{command}: {objects}");
    }
    let stats = fine(&[&server, "stats"]);
    assert!(stats.starts_with(&format!("STAT pid {pid}\n")) && stats.ends_with("STAT curr_items 30\nEND\n"), "{stats}");
    assert_eq!(json(&[&server, "stats"])[0]["version"], "0.4.13 revision ");

    let listed: String = addresses.iter().flat_map(|address| ["  ", address, "  (active)\n"]).collect();
    for command in ["whs", "rhs"] {
        let text = fine(&[&server, command]);
        assert!(text.starts_with("hash space timestamp:\n  "), "{text}");
        assert!(text.ends_with(&format!("attached node:\n{listed}")), "{text}");
        assert_eq!(json(&[&server, command])[0][command]["attached"][2]["address"], addresses[2]);
    }
    let connections = fine(&[&server, "set_delay"]).trim().parse::<u32>().expect("a count");
    assert!(connections > 0);
    assert!(fine(&[&server, "unset_delay"]).trim().parse::<u32>().is_ok());
    let figures: Value = serde_json::from_str(&fine(&[&server, "figures"])).unwrap();
    assert_eq!((&figures["address"], &figures["items"]), (&server.as_str().into(), &30.into()));

    let checked = fine(&["-m", &manager, "hscheck"]);
    assert!(checked.starts_with(&format!("{manager}:  whs ")), "{checked}");
    assert!(checked.ends_with(&all("same")), "{checked}");
    addresses.retain(|address| *address != server);
    let same = json(&[&server, "hscheck"]);
    assert_eq!(same.as_array().unwrap().iter().filter(|object| object["same"] == true).count(), 3);

    // The hash space is known without a manager; who does not answer is named, the others are shown.
    cluster.managers[0].1.take().expect("a manager").signal(Signal::KILL);
    let victim = cluster.servers.iter().position(|server| server.address().to_string() == addresses[1]).unwrap();
    cluster.kill(victim);
    let checked = stat(&[&server, "hscheck"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(checked.stdout.contains(&format!("{}:  same\n", addresses[0])), "{checked:?}");
    assert!(checked.stdout.contains(&format!("{}:  cannot be reached\n", addresses[1])), "{checked:?}");
    assert_eq!(checked.stderr, "kumo-server stat: 1 of 3 nodes did not answer\n");
}

#[test]
fn different_hash_spaces_are_found() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let manager = Manager::start(&folder, "manager", &port, "-k 30");
    let nobody = stat(&["-m", &manager.address.to_string(), "items"]);
    let line = format!("kumo-server stat: manager {} has no server attached\n", manager.address);
    assert_eq!((nobody.status.code(), nobody.stderr), (Some(1), line));
    let servers = [FakeServer::start(&[manager.address]), FakeServer::start(&[])];
    manager.wait_detached(&[servers[0].address()]);
    let attach = ["ctl", &manager.address.to_string(), "attach", "--wait"].map(ToOwned::to_owned);
    let attached = Process::run(&folder, &kumo_server(), &attach.each_ref().map(String::as_str));
    assert!(attached.status.success(), "{attached:?}");
    let manager = manager.address.to_string();
    fine(&["-m", &manager, "hscheck"]);

    // One that has missed the latest.
    let (mut whs, rhs) = servers[0].spaces();
    whs.nodes.push((servers[1].address(), true));
    servers[0].set_spaces((whs, rhs));
    let checked = stat(&["-m", &manager, "hscheck"]);
    let line = format!("{}:  differs: whs ", servers[0].address());
    assert!(checked.stdout.contains(&line) && checked.stdout.ends_with("2 of 2 active\n"), "{checked:?}");
    let ended = (checked.status.code(), checked.stderr.as_str());
    assert_eq!(ended, (Some(1), "kumo-server stat: the hash spaces differ\n"));
}

#[test]
fn one_that_hangs_does_not_hide_the_others() {
    let (folder, port) = (Folder::new(), Port::reserve());
    // Does not notice within the time of this test.
    let manager = Manager::start(&folder, "manager", &port, "-k 30");
    let mut servers: Vec<_> = (0..3).map(|_| FakeServer::start(&[manager.address])).collect();
    servers.sort_by_key(FakeServer::address);
    let addresses: Vec<_> = servers.iter().map(FakeServer::address).collect();
    manager.wait_detached(&addresses);
    let manager = manager.address.to_string();
    let attached = Process::run(&folder, &kumo_server(), &["ctl", &manager, "attach", "--wait"]);
    assert!(attached.status.success(), "{attached:?}");
    servers[1].hang(true);
    let started = Instant::now();
    let finished = stat(&["-m", &manager, "--timeout", "0.4", "items"]);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let [first, hung, last] = [0, 1, 2].map(|index| addresses[index]);
    let lines = format!("{first}:  0\n{hung}:  does not answer\n{last}:  0\n");
    assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(1), lines.as_str()));
    assert_eq!(finished.stderr, "kumo-server stat: 1 of 3 nodes did not answer\n");
    let finished = stat(&["-m", &manager, "--timeout", "0.4", "--json", "items"]);
    let objects: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(objects[1], serde_json::json!({"address": hung.to_string(), "error": "does not answer"}));
}

#[test]
fn servers_of_2010_are_asked_for_what_they_know() {
    // The fake one tells no more than an original.
    let server = FakeServer::start(&[]);
    let address = server.address().to_string();
    assert_eq!(fine(&[&address, "version"]), "0.4.13\n");
    assert_eq!(fine(&[&address, "replstat"]), "ready\n");
    assert!(fine(&[&address, "stats"]).ends_with("STAT curr_items 0\nEND\n"));
    let figures = stat(&[&address, "figures"]);
    let line = format!("kumo-server stat: server {address} does not support this request\n");
    assert_eq!((figures.status.code(), figures.stderr), (Some(1), line));
    let table = Process::run(&Folder::new(), &kumo_server(), &["top", "--once", "-i", "0.1", "--json", &address]);
    let row = &serde_json::from_str::<Value>(&table.stdout).unwrap()[0];
    assert_eq!((&row["status"], &row["qps"], &row["replace"]), (&"ready".into(), &0.into(), &Value::Null));
}
