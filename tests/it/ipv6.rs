//! A cluster on IPv6: among nodes of this program its addresses travel as 22 bytes. A gateway for clients of both kinds.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use crate::harness::gateway::Memcached;
use crate::harness::{Folder, Port, Process, kumo_server, preload, required, wait_until};

fn at(port: &Port) -> String {
    SocketAddr::from((Ipv6Addr::LOCALHOST, port.number())).to_string()
}

#[test]
fn records_are_kept_on_three_servers() {
    if !has_ipv6() {
        return;
    }
    let folder = Folder::new();
    let (manager, ports) = (Port::reserve(), [Port::reserve(), Port::reserve(), Port::reserve()]);
    let _manager = Process::spawn(&folder, "manager", &kumo_server(), &["manager", "-l", &at(&manager), "-k", "0.3"]);
    let _servers = ports.each_ref().map(|port| {
        let name = format!("server{}", port.number());
        let args = ["-v", "-l", &at(port), "-L", "0", "-m", &at(&manager), "-s", &name, "-k", "0.3", "-f", "."];
        Process::spawn(&folder, &name, &kumo_server(), &args)
    });
    let tool = |args: &[&str]| Process::run(&folder, &kumo_server(), args);
    let manager = at(&manager);
    wait_until("all servers are known", || tool(&["ctl", &manager, "status"]).stdout.matches("[::1]").count() == 3);
    assert!(tool(&["ctl", &manager, "attach", "--wait"]).status.success());
    assert!(tool(&["set", "-m", &manager, "key", "value"]).status.success());
    assert_eq!(tool(&["get", "-m", &manager, "key"]).stdout.trim_end(), "value");
    let status = tool(&["ctl", &manager, "status"]).stdout;
    assert_eq!(status.matches("(active)").count(), 3, "{status}");
}

fn has_ipv6() -> bool {
    required::is_there("IPv6", TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok())
}

/// The addresses of this host by which the port may be reached, IPv4 and IPv6.
fn ways(port: &Port) -> [SocketAddr; 2] {
    [(Ipv4Addr::LOCALHOST, port.number()).into(), (Ipv6Addr::LOCALHOST, port.number()).into()]
}

/// A gateway of no cluster, which listens all the same.
fn gateway(folder: &Folder, port: &Port, flags: &[&str], environment: &[(&str, PathBuf)]) -> Process {
    let mut command = Command::new(kumo_server());
    command.args(["gateway", "-v", "-m", "127.0.0.1:1"]).args(flags).envs(environment.iter().cloned());
    Process::spawn_command(folder, &format!("gateway{}", port.number()), command)
}

/// Waits until it listens; says by which of [`ways`] it answers.
#[track_caller]
fn answers(process: &mut Process, port: &Port) -> [bool; 2] {
    wait_until("the gateway listens", || {
        assert!(process.is_running(), "it has ended: {}", process.stderr());
        process.stdout().contains("listening address")
    });
    ways(port).map(|address| {
        let is_open = TcpStream::connect(address).is_ok();
        if is_open {
            assert!(Memcached::connect(address).line(b"version\r\n").starts_with("VERSION "), "{address}");
        }
        is_open
    })
}

#[test]
fn a_gateway_serves_both_kinds_of_addresses_unless_told_otherwise() {
    if !has_ipv6() {
        return;
    }
    let folder = Folder::new();
    for (place, more, expected) in [
        ("PORT", &[][..], [true, true]),
        ("[::]:PORT", &[], [true, true]),
        ("0.0.0.0:PORT", &[], [true, false]),
        ("127.0.0.1:PORT", &[], [true, false]),
        ("[::1]:PORT", &[], [false, true]),
        ("PORT", &["--ipv6-only"], [false, true]),
        ("[::]:PORT", &["--ipv6-only"], [false, true]),
    ] {
        let port = Port::reserve();
        let place = place.replace("PORT", &port.number().to_string());
        let mut process = gateway(&folder, &port, &[&["-t", &place], more].concat(), &[]);
        assert_eq!(answers(&mut process, &port), expected, "-t {place} {more:?}");
    }
}

#[test]
fn a_port_that_is_taken_for_one_kind_of_addresses_is_not_served_on_the_other() {
    if !has_ipv6() {
        return;
    }
    let folder = Folder::new();
    for way in 0..2 {
        let port = Port::reserve();
        let _taken = TcpListener::bind(ways(&port)[way]).expect("a port");
        let number = port.number().to_string();
        let finished = gateway(&folder, &port, &["-t", &number], &[]).finish();
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        let line = format!("kumo-server gateway: cannot listen on *:{number}: Address already in use (os error 98)\n");
        assert_eq!(finished.stderr, line);
    }
}

/// A library that makes the kernel look as if it had been built without IPv6.
fn shim(folder: &Folder) -> PathBuf {
    const SOURCE: &str = "
        #include <errno.h>
        #include <sys/socket.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int socket(int domain, int type, int protocol) {
            if (domain == AF_INET6) { errno = EAFNOSUPPORT; return -1; }
            return (int)syscall(SYS_socket, domain, type, protocol);
        }";
    preload::library(folder, "no-ipv6", SOURCE)
}

#[test]
fn without_ipv6_in_the_kernel_a_gateway_serves_ipv4() {
    let folder = Folder::new();
    let environment = [("LD_PRELOAD", shim(&folder))];
    let port = Port::reserve();
    let number = port.number().to_string();
    let mut process = gateway(&folder, &port, &["-t", &number], &environment);
    assert!(answers(&mut process, &port)[0]);
    assert!(process.stdout().contains("no IPv6: listening on IPv4 alone"), "{}", process.stdout());
    drop(process);
    // Whoever asks for IPv6 by name is told.
    for flags in [&["-t", &format!("[::]:{number}")][..], &["-t", &number, "--ipv6-only"]] {
        let finished = gateway(&folder, &port, flags, &environment).finish();
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        let start = format!("kumo-server gateway: cannot listen on [::]:{number}: Address family not supported");
        assert!(finished.stderr.starts_with(&start) && finished.stderr.lines().count() == 1, "{finished:?}");
    }
}

#[test]
fn a_link_local_address_needs_its_interface() {
    let folder = Folder::new();
    for args in [
        &["gateway", "-m", "127.0.0.1", "-t", "[fe80::1]:7"][..],
        &["manager", "-l", "[fe80::1]:7"],
        &["get", "-m", "[fe80::1]:7", "key"],
    ] {
        let finished = Process::run(&folder, &kumo_server(), args);
        assert_eq!((finished.status.code(), finished.stderr.lines().count()), (Some(2), 1), "{finished:?}");
        let line = " [fe80::1]:7: a link-local address needs its interface, as in fe80::1%eth0";
        assert!(finished.stderr.contains(line), "{finished:?}");
    }
}

#[test]
fn a_node_bound_to_every_address_is_reached_by_both_kinds() {
    if !has_ipv6() {
        return;
    }
    let (folder, port) = (Folder::new(), Port::reserve());
    let own = port.address().to_string();
    let _manager = Process::spawn(&folder, "manager", &kumo_server(), &["manager", "-l", &own, "--bind", "::"]);
    wait_until("it is reached", || ways(&port).iter().all(|address| TcpStream::connect(address).is_ok()));
}
