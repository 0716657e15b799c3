//! The life of a real server: the manual's command lines, the background, signals, its files and its limits.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use kumo_server::binlog::Entries;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::cluster::status;
use crate::harness::{Finished, Folder, Port, Process, kumo_server, wait_until};

/// What a server at `address` says its process is; `None` while nobody listens there.
fn pid_at(address: SocketAddr) -> Option<u64> {
    TcpStream::connect(address).ok()?;
    status(address, 0)
}

/// Flags of a server at `port` in its folder, with a manager that is away.
fn flags(port: &Port, more: &str) -> Vec<String> {
    let line = format!("-l {} -L 0 -m 127.0.0.1:1 -s db {more}", port.address());
    line.split_whitespace().map(str::to_owned).collect()
}

fn spawn(folder: &Folder, port: &Port, more: &str) -> Process {
    let flags = flags(port, more);
    let server =
        Process::spawn(folder, "server", &kumo_server(), &flags.iter().map(|flag| &**flag).collect::<Vec<_>>());
    let pid = u64::try_from(server.pid().as_raw_nonzero().get()).ok();
    wait_until("the server listens", || pid_at(port.address()) == pid);
    server
}

fn run(folder: &Folder, port: &Port, more: &str) -> Finished {
    let flags = flags(port, more);
    Process::run(folder, &kumo_server(), &flags.iter().map(|flag| &**flag).collect::<Vec<_>>())
}

#[test]
fn the_manuals_lines_for_one_machine_run_as_written() {
    // The ports are the manual's, so only one test of this machine can have them at a time.
    let lock = File::create(std::env::temp_dir().join("kumo-it-ports-of-the-manual")).unwrap();
    lock.lock().unwrap();
    let folder = Folder::new();
    let mut servers = Vec::new();
    for (name, port, line) in [
        ("one", 19801, "-v -m localhost -l localhost:19801 -L 19901 -s ./database1.tch"),
        ("two", 19802, "-v -m localhost -l localhost:19802 -L 19902 -s ./database2.tch"),
        // The stream port of the one before: not fatal.
        ("three", 19803, "-v -m localhost -l localhost:19803 -L 19902 -s ./database3.tch"),
    ] {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = Process::spawn(&folder, name, &kumo_server(), &line.split_whitespace().collect::<Vec<_>>());
        let pid = u64::try_from(server.pid().as_raw_nonzero().get()).ok();
        wait_until("the server listens", || pid_at(address) == pid);
        servers.push(server);
    }
    for server in servers {
        server.signal(Signal::TERM);
        let finished = server.finish();
        assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
        assert!(finished.stdout.ends_with("INFO stopped\n"), "{finished:?}");
    }
}

/// Starting twice at once is how a restart script goes wrong.
#[test]
fn in_the_background_it_serves_when_the_launcher_has_ended() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let launched = run(&folder, &port, "-d pid -o log -v");
    assert_eq!((launched.status.code(), launched.stderr.as_str()), (Some(0), ""), "{launched:?}");
    let pid: i32 = folder.read("pid").trim().parse().unwrap();
    assert_eq!(pid_at(port.address()), u64::try_from(pid).ok());

    let other = Port::reserve();
    for (port, more, reason) in [
        (&other, "-d pid2 -o log2", "in use by another process"),
        (&port, "-d pid2 -o log2 -s db2", "cannot listen on"),
        (&other, "-d pid -o log2 -s db2", "is that of the running process"),
    ] {
        let failed = run(&folder, port, more);
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert!(failed.stderr.starts_with("kumo-server: ") && failed.stderr.lines().count() == 1, "{failed:?}");
        assert!(failed.stderr.contains(reason), "{failed:?}");
        assert!(!folder.join("pid2").exists());
    }

    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    wait_until("the pid file is removed", || !folder.join("pid").exists());
    assert!(folder.read("log").contains("SIGTERM: stopping"));
    wait_until("the store is free", || run(&folder, &port, "-d pid -o log").status.success());
    let pid: i32 = folder.read("pid").trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    wait_until("nobody listens", || TcpStream::connect(port.address()).is_err());
}

#[test]
fn a_taken_port_is_fatal() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let _taken = TcpListener::bind(port.address()).unwrap();
    let failed = run(&folder, &port, "");
    let line = format!("kumo-server: cannot listen on {}: Address already in use (os error 98)\n", port.address());
    assert_eq!((failed.status.code(), failed.stderr), (Some(1), line));
    assert!(!folder.join("db").exists(), "a store was made");
}

#[test]
fn sighup_opens_both_logs_anew() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let server = spawn(&folder, &port, "-v -o log -g binary");
    for name in ["log", "binary"] {
        std::fs::rename(folder.join(name), folder.join(&format!("{name}.1"))).unwrap();
    }
    server.signal(Signal::HUP);
    wait_until("both files are there", || folder.join("log").exists() && folder.join("binary").exists());
    server.signal(Signal::TERM);
    assert_eq!(server.finish().status.code(), Some(0));
    assert!(folder.read("log").contains("stopped") && !folder.read("log.1").contains("stopped"));
    for name in ["binary", "binary.1"] {
        let mut entries = Entries::new(File::open(folder.join(name)).unwrap());
        let names: Vec<_> = entries.by_ref().map(|entry| entry.unwrap().name).collect();
        assert_eq!(names, if name == "binary.1" { vec!["SS"] } else { vec![] });
        assert_eq!(entries.decoder().skipped_bytes(), 0, "{name}");
    }
}

#[test]
fn a_binary_log_that_cannot_be_opened_is_named() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let failed = run(&folder, &port, "-g /nowhere/binary");
    assert_eq!(failed.status.code(), Some(1));
    let start = "kumo-server: cannot open the binary log '/nowhere/binary': ";
    assert!(failed.stderr.starts_with(start) && failed.stderr.lines().count() == 1, "{failed:?}");
}

#[test]
fn the_limit_of_open_files_bounds_the_connections() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let mut command = Command::new("bash");
    command
        .args(["-c", "ulimit -Sn 200; ulimit -Hn 400; exec \"$@\"", "bash"])
        .arg(kumo_server())
        .args(flags(&port, "-o log"));
    let server = Process::spawn_command(&folder, "server", command);
    wait_until("the server listens", || pid_at(port.address()).is_some());
    wait_until("a warning", || folder.read("log").contains("allows only 144 connections instead of 10000"));
    // More than the soft limit; the rest are turned away, and the server stays well.
    let held: Vec<_> = (0..300).filter_map(|_| TcpStream::connect(port.address()).ok()).collect();
    drop(held);
    wait_until("it serves", || pid_at(port.address()).is_some());
    server.signal(Signal::TERM);
    assert_eq!(server.finish().status.code(), Some(0));
}
