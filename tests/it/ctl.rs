//! The control tool and get, set, delete as people run them: output, exit status, one line for each failure.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kumo_server::wire::NodeAddress;
use rustix::process::Signal;

use crate::harness::cluster::Cluster;
use crate::harness::{FakeServer, Finished, Folder, Manager, Port, Process, kumo_server, wait_until};

fn run(args: &[&str]) -> Finished {
    Process::run(&Folder::new(), &kumo_server(), args)
}

fn ctl(manager: &impl ToString, command: &str) -> Finished {
    let manager = manager.to_string();
    let mut args = vec!["ctl", &manager];
    args.extend(command.split_whitespace());
    run(&args)
}

/// Asserts success; returns what was printed.
#[track_caller]
fn fine(finished: &Finished) -> &str {
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    &finished.stdout
}

/// Asserts failure with this status and one line.
#[track_caller]
fn refused(finished: &Finished, status: i32, line: &str) {
    let got = (finished.status.code(), finished.stdout.as_str(), finished.stderr.as_str());
    assert_eq!(got, (Some(status), "", line));
}

/// The lines of `status` that the original has, without the date, which is the manager's.
fn status(manager: &Manager) -> String {
    let finished = ctl(&manager.address, "status");
    let text = fine(&finished);
    let (head, rest) = text.split_once("attached node:\n").expect("a list of nodes");
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("hash space timestamp:"));
    let date = lines.next().expect("a date");
    assert!(date.starts_with("  ") && date.contains(" +0000 20") && date.contains(" clock "), "{date:?}");
    // What is new is not indented.
    let nodes = rest.split_once("votes: ").map_or(rest, |(nodes, _)| nodes);
    format!("attached node:\n{nodes}")
}

#[test]
fn every_command_does_what_it_says() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let manager = Manager::start(&folder, "manager", &port, "-Rs 0.2");
    let mut servers: Vec<_> = (0..2).map(|_| FakeServer::start(&[manager.address])).collect();
    servers.sort_by_key(FakeServer::address);
    let address = |index: usize| servers[index].address();
    manager.wait_detached(&[address(0), address(1)]);
    let finished = ctl(&manager.address, "status");
    assert_eq!(
        fine(&finished),
        format!(
            "hash space timestamp:\n  Thu Jan 01 00:00:00 +0000 1970 clock 0\nattached node:\nnot attached node:\n  {}\n  {}\n",
            address(0),
            address(1)
        )
    );

    let both = format!("attached {}\nattached {}\n", address(0), address(1));
    assert_eq!(fine(&ctl(&manager.address, "attach --wait")), both);
    let (whs, rhs) = manager.spaces();
    assert_eq!(whs, rhs, "the replace has finished");
    let active = format!("  {}  (active)\n  {}  (active)\n", address(0), address(1));
    assert_eq!(status(&manager), format!("attached node:\n{active}not attached node:\n"));
    let json = ctl(&manager.address, "status --json");
    let json: serde_json::Value = serde_json::from_str(fine(&json)).unwrap();
    assert_eq!(json["clocktime"], whs.clocktime.0);
    assert_eq!(json["attached"][1], serde_json::json!({"address": address(1).to_string(), "active": true}));
    assert_eq!(json["not_attached"], serde_json::json!([]));

    fine(&ctl(&manager.address, "replace --wait"));
    fine(&ctl(&manager.address, "full-replace --wait"));
    fine(&ctl(&manager.address, "backup"));
    fine(&ctl(&manager.address, "backup before-upgrade"));
    wait_until("the backups", || servers[0].heard(kumo_server::wire::method::Method::CreateBackup).len() == 2);

    let (dead_port, _) = servers.pop().unwrap().kill();
    let dead = NodeAddress::new(dead_port.address());
    manager.wait_attached(&[(servers[0].address(), true), (dead, false)]);
    assert!(status(&manager).contains(&format!("  {dead}  (fault)\n")));
    assert_eq!(fine(&ctl(&manager.address, "detach-noreplace")), format!("detached {dead}\n"));
    assert!(!status(&manager).contains(&dead.to_string()));
    servers.push(FakeServer::start(&[manager.address]));
    manager.wait_detached(&[servers[1].address()]);
    fine(&ctl(&manager.address, "attach-noreplace"));
    manager.wait_attached(&[(servers[0].address(), true), (servers[1].address(), true)]);
    fine(&ctl(&manager.address, "replace --wait"));
    manager.wait_settled();

    fine(&ctl(&manager.address, "enable-auto-replace"));
    servers.push(FakeServer::start(&[manager.address]));
    wait_until("attached by itself", || manager.nodes().0.nodes.len() == 3);
    fine(&ctl(&manager.address, "disable-auto-replace"));
    servers.push(FakeServer::start(&[manager.address]));
    manager.wait_detached(&[servers[3].address()]);
}

#[test]
fn waiting_ends_with_the_replace_however_that_ends() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let manager = Manager::start(&folder, "manager", &port, "");
    let mut servers: Vec<_> = (0..2).map(|_| FakeServer::start(&[manager.address])).collect();
    manager.wait_detached(
        &servers
            .iter()
            .map(FakeServer::address)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>(),
    );
    fine(&ctl(&manager.address, "attach --wait"));

    servers[0].copy_endlessly(true);
    let starts = servers[0].heard(kumo_server::wire::method::Method::ReplaceCopyStart).len();
    let args = ["ctl", &manager.address.to_string(), "replace", "--wait"].map(ToOwned::to_owned);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let mut waiting = Process::spawn(&folder, "ctl", &kumo_server(), &args);
    wait_until("the copying", || servers[0].heard(kumo_server::wire::method::Method::ReplaceCopyStart).len() > starts);
    assert!(waiting.is_running(), "it has not finished");
    servers.remove(1).kill();
    let finished = waiting.finish();
    refused(&finished, 1, "kumo-server ctl: the replace was given up, see the manager's log; run it again\n");
}

#[test]
fn failures_are_one_line_and_soon() {
    let port = Port::reserve();
    let manager = port.address().to_string();
    for args in [
        vec!["ctl", &manager, "status"],
        vec!["ctl", &manager, "attach", "--wait"],
        vec!["get", "-m", &manager, "key"],
        vec!["set", "-m", &manager, "key", "value"],
        vec!["delete", "-m", &manager, "key"],
    ] {
        let started = Instant::now();
        let line = format!("kumo-server {}: manager {manager} cannot be reached\n", args[0]);
        refused(&run(&args), 1, &line);
        assert!(started.elapsed() < Duration::from_secs(5), "{args:?} took {:?}", started.elapsed());
    }
    // Somebody listens but says nothing.
    let _mute = std::net::TcpListener::bind(port.address()).unwrap();
    let started = Instant::now();
    refused(&ctl(&manager, "status"), 1, &format!("kumo-server ctl: manager {manager} does not answer\n"));
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());

    for (args, line) in [
        (vec!["ctl", &manager, "explode"], "invalid value 'explode' for '<COMMAND>'"),
        (vec!["ctl", &manager], "the following required arguments were not provided: <COMMAND>"),
        (vec!["ctl", &manager, "backup", "../x"], "suffix '../x'"),
        (vec!["ctl", &manager, "detach-noreplace", "--wait"], "--wait: detach-noreplace starts no replace"),
        (vec!["ctl", &manager, "attach", "a:x"], "invalid server 'a:x': 'x' is not a port (0 to 65535)"),
        (vec!["set", "-m", &manager, "", "value"], "the key is empty: memcached clients could not read it"),
        (vec!["get", "key"], "the following required arguments were not provided: --manager1"),
        (vec!["get", "-m", &manager], "the following required arguments were not provided: <KEY>"),
        (vec!["cluster", "--servers", "0"], "invalid value '0' for '--servers <N>'"),
    ] {
        let finished = run(&args);
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(2), ""), "{args:?}: {finished:?}");
        let expected = format!("kumo-server {}: {line}", args[0]);
        assert!(finished.stderr.starts_with(&expected), "{args:?}: {finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    }
    let finished = ctl(&manager, "detach no.such.host.invalid");
    let line = "kumo-server ctl: server no.such.host.invalid: cannot resolve host";
    assert!(finished.stderr.starts_with(line) && finished.status.code() == Some(1), "{finished:?}");
    let finished = run(&["get", "-m", "no.such.host.invalid", "key"]);
    assert_eq!(finished.status.code(), Some(1));
    assert!(
        finished.stderr.starts_with("kumo-server get: -m no.such.host.invalid: cannot resolve host"),
        "{finished:?}"
    );
}

#[test]
fn a_manager_without_servers_refuses_in_words() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let manager = Manager::start(&folder, "manager", &port, "");
    let line =
        format!("kumo-server ctl: manager {} refuses: no server is active (its log says more)\n", manager.address);
    for command in ["attach", "detach", "replace", "full-replace --wait", "backup", "backup --wait"] {
        refused(&ctl(&manager.address, command), 1, &line);
    }
    let set = run(&["set", "-m", &manager.address.to_string(), "key", "value"]);
    refused(&set, 1, "kumo-server set: no active server for this key\n");
}

/// Runs a tool with `input` on its stdin; returns exit status and stdout.
fn with_stdin(args: &[&str], input: &[u8]) -> (Option<i32>, Vec<u8>) {
    let mut child =
        Command::new(kumo_server()).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the tool");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().expect("its end");
    (output.status.code(), output.stdout)
}

#[test]
fn values_pass_as_they_are() {
    let mut cluster = Cluster::start(3);
    let manager = cluster.managers[0].0.address().to_string();
    let tool = |args: &[&str]| {
        let all: Vec<_> = [&args[..1], &["-m", &manager], &args[1..]].concat();
        run(&all)
    };
    assert_eq!(fine(&tool(&["set", "greeting", "hello world"])), "");
    assert_eq!(fine(&tool(&["get", "greeting"])), "hello world");
    refused(&tool(&["get", "nothing"]), 1, "kumo-server get: nothing: not found\n");
    fine(&tool(&["delete", "greeting"]));
    refused(&tool(&["delete", "greeting"]), 1, "kumo-server delete: greeting: not found\n");
    refused(&tool(&["get", "greeting"]), 1, "kumo-server get: greeting: not found\n");
    fine(&tool(&["set", "empty", ""]));
    assert_eq!(fine(&tool(&["get", "empty"])), "");
    fine(&tool(&["set", "--", "-dash", "--value"]));
    assert_eq!(fine(&tool(&["get", "--", "-dash"])), "--value");

    let all_bytes: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    assert_eq!(with_stdin(&["set", "-m", &manager, "large"], &all_bytes), (Some(0), Vec::new()));
    assert_eq!(with_stdin(&["get", "-m", &manager, "large"], b""), (Some(0), all_bytes));

    // A server that has died is no obstacle to reading; writing goes on when the manager has noticed.
    cluster.kill(0);
    assert_eq!(fine(&tool(&["get", "empty"])), "");
    fine(&tool(&["set", "empty", "not any more"]));
    assert_eq!(fine(&tool(&["get", "empty"])), "not any more");
}

#[test]
fn ctl_drives_real_servers() {
    let mut cluster = Cluster::start_with(2, 3, &[]);
    let manager = cluster.managers[1].0.address();
    let mut client = cluster.client();
    for index in 0..100 {
        assert!(client.set(format!("key{index}").as_bytes(), b"value").is_acknowledged());
    }
    fine(&ctl(&manager, "backup test --wait"));
    for index in 0..3 {
        assert!(cluster.folder().join(&format!("server{index}.tch-test")).exists(), "{index}");
    }
    std::fs::create_dir(cluster.folder().join("server1.tch-again")).unwrap();
    let failed = cluster.servers[1].address();
    refused(
        &ctl(&manager, "backup again --wait"),
        1,
        &format!("kumo-server ctl: backup failed on {failed} (the log of each says why)\n"),
    );
    assert!(cluster.folder().join("server2.tch-again").exists());

    cluster.kill(2);
    cluster.wait_faulty(2);
    fine(&ctl(&manager, "detach --wait"));
    let both_have = |cluster: &Cluster, count: usize| {
        let (whs, rhs) = cluster.spaces();
        whs.seed() == rhs.seed() && whs.seed().nodes.len() == count
    };
    wait_until("the other manager knows of two", || both_have(&cluster, 2));
    cluster.start_server(2);
    let listed = format!("not attached node:\n  {}\n", cluster.servers[2].address());
    wait_until("the server is listed", || ctl(&manager, "status").stdout.contains(&listed));
    fine(&ctl(&manager, "attach --wait"));
    wait_until("the other manager knows of three", || both_have(&cluster, 3));

    // Either manager can be asked; the other may be gone.
    cluster.managers[0].1.take().expect("a manager").signal(Signal::KILL);
    fine(&ctl(&manager, "replace --wait"));
    let both = ["get", "-m", &cluster.managers[0].0.address().to_string(), "-p", &manager.to_string(), "key7"]
        .map(ToOwned::to_owned);
    assert_eq!(fine(&run(&both.iter().map(String::as_str).collect::<Vec<_>>())), "value");
}
