//! A daemon dials the port of one that is not running: the kernel may give the connection that very port.

use std::process::Command;

use crate::harness::{Folder, Process, kumo_server, required, wait_until};

/// Few local ports, so that one dial in four comes from the port that it dials, and the manager's is among them.
const PORTS: &str = "26800 26807";
const MANAGER: &str = "127.0.0.1:26800";

/// Whether this machine lets a test make a network namespace.
fn namespaces() -> bool {
    let made = Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]).output();
    required::is_there("network namespaces (root, unshare, ip)", made.is_ok_and(|made| made.status.success()))
}

/// `args` of the binary in the network namespace of `process`.
fn beside(process: &Process, args: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", process.pid().as_raw_nonzero())).arg(kumo_server()).args(args);
    command
}

#[test]
fn a_dial_that_reaches_itself_keeps_no_port_from_its_owner() {
    if !namespaces() {
        return;
    }
    let folder = Folder::new();
    let mut command = Command::new("unshare");
    let script = format!(
        "ip link set lo up; echo {PORTS} > /proc/sys/net/ipv4/ip_local_port_range; RUST_LOG=debug exec \"$0\" \"$@\""
    );
    command.args(["--net", "sh", "-c", &script]).arg(kumo_server());
    command.args(["gateway", "-t", "127.0.0.1:26900", "-m", MANAGER, "--keepalive-interval", "0.1"]);
    let gateway = Process::spawn_command(&folder, "gateway", command);
    wait_until("it has dialled itself", || gateway.stdout().contains("reached itself"));
    let server = ["-v", "-l", "127.0.0.1:26910", "-L", "26920", "-s", "db", "-m", MANAGER, "-k", "0.1"];
    let server = Process::spawn_command(&folder, "server", beside(&gateway, &server));
    wait_until("the server has dialled in vain", || server.stdout().contains("node unreachable"));

    let mut manager = Process::spawn_command(&folder, "manager", beside(&gateway, &["manager", "-v", "-l", MANAGER]));
    wait_until("the manager listens", || {
        assert!(manager.is_running(), "it has ended: {}", manager.stderr());
        manager.stdout().contains("server connected")
    });
    wait_until("the gateway hears of it", || gateway.stdout().contains("a manager answers again"));
}
