//! Managers given by name: a name that stands for another address, and one that does not resolve yet.
//!
//! The names are in a file that stands for `/etc/hosts` in a mount namespace of each process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use kumo_server::wire::method::{self, ErrorCode, Method, Role};
use kumo_server::wire::params::Encode as _;
use kumo_server::wire::{Init, NodeAddress};
use rustix::process::Signal;

use crate::harness::gateway::Memcached;
use crate::harness::scripted::Line;
use crate::harness::{Folder, Manager, Port, Process, kumo_server, required, wait_until};

/// Names that only the processes of one test know.
struct Names {
    folder: Folder,
}

impl Names {
    /// `None` where a test may not mount.
    fn make() -> Option<Self> {
        let names = Self { folder: Folder::new() };
        names.set(&[]);
        let mounted = names.command(Path::new("true"), &[]).output();
        let there = mounted.is_ok_and(|output| output.status.success());
        required::is_there("mount namespaces (root, unshare)", there).then_some(names)
    }

    /// From now on these names stand for these addresses, and no others for any.
    fn set(&self, names: &[(&str, &str)]) {
        let lines: Vec<_> = names.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
        // In place: what is mounted is this file, not its name.
        std::fs::write(self.folder.join("hosts"), lines.concat()).expect("a file of names");
    }

    /// `program` where these names are known, and nobody else is asked for any.
    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let switch = self.folder.join("nsswitch.conf");
        std::fs::write(&switch, "hosts: files\n").expect("a file");
        let script = "mount --bind \"$0\" /etc/hosts && mount --bind \"$1\" /etc/nsswitch.conf && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(self.folder.join("hosts")).arg(switch);
        command.arg(program).args(args);
        command
    }

    fn spawn(&self, name: &str, line: &str) -> Process {
        let args: Vec<_> = line.split_whitespace().collect();
        Process::spawn_command(&self.folder, name, self.command(&kumo_server(), &args))
    }

    /// A server whose manager is called `mgr`, and its address.
    fn server(&self, name: &str, port: u16) -> (Process, NodeAddress) {
        let own = Port::reserve();
        let quick = "-v -k 0.1 -Ys 0.3 -Yn 1 -Ci 0.2 -L 0 -f .";
        let line = format!("-l {} -m mgr:{port} -s {name}.db {quick}", own.address());
        (self.spawn(name, &line), NodeAddress::new(own.address()))
    }

    /// A gateway of the same, and where it listens.
    fn gateway(&self, port: u16) -> (Process, SocketAddr) {
        let own = Port::reserve().address();
        let line = format!("gateway -v -t {own} -m mgr:{port} --keepalive-interval 0.1 --connect-timeout 0.3");
        let gateway = self.spawn("gateway", &line);
        wait_until("the gateway listens", || gateway.stdout().contains("listening"));
        (gateway, own)
    }

    /// A manager at `address`.
    fn manager(&self, name: &str, address: &str, port: u16, more: &str) -> Manager {
        let line = format!("manager -v -l {address}:{port} -k 0.1 -Ys 0.3 -Yn 1 -Ci 0.1 {more}");
        let process = self.spawn(name, &line);
        wait_until("the manager listens", || process.stdout().contains("manager started"));
        Manager { process, address: format!("{address}:{port}").parse().expect("an address") }
    }
}

fn set(gateway: SocketAddr, key: &str) -> bool {
    Memcached::connect(gateway).ask(format!("set {key} 0 0 1\r\n1\r\n").as_bytes(), b"\r\n") == "STORED\r\n"
}

#[test]
fn a_manager_that_moves_with_its_name_is_found_and_the_old_address_is_nobodys() {
    let Some(names) = Names::make() else { return };
    let port = Port::reserve();
    names.set(&[("mgr", "127.0.0.1")]);
    let manager = names.manager("manager1", "127.0.0.1", port.number(), "");
    let servers: Vec<_> = ["one", "two"].map(|name| names.server(name, port.number())).into();
    let (gateway, at) = names.gateway(port.number());
    let addresses: Vec<_> = servers.iter().map(|(_, address)| *address).collect();
    manager.wait_detached(&addresses);
    manager.switch(Method::AttachNewServers, true).expect("an attach");
    manager.wait_settled();
    wait_until("the gateway serves", || set(at, "a"));

    manager.process.signal(Signal::KILL);
    drop(manager);
    names.set(&[("mgr", "127.0.0.2")]);
    let moved = names.manager("manager2", "127.0.0.2", port.number(), "");
    let active: Vec<_> = addresses.iter().map(|address| (*address, true)).collect();
    moved.wait_attached(&active);
    for (server, _) in &servers {
        let news = format!("mgr:{0} has another address now; it was 127.0.0.1:{0}", port.number());
        wait_until("it says so", || server.stdout().contains(&news));
    }
    wait_until("the gateway hears of it", || gateway.stdout().contains("a manager answers again"));
    // What the new manager decides, servers and gateway follow.
    let (third, third_address) = names.server("three", port.number());
    moved.wait_detached(&[third_address]);
    moved.switch(Method::AttachNewServers, true).expect("an attach");
    moved.wait_settled();
    wait_until("the servers know the third", || {
        let taken = "hash space taken peer=127.0.0.2";
        servers.iter().map(|(server, _)| server).chain([&third]).all(|server| server.stdout().contains(taken))
    });
    wait_until("the gateway serves", || set(at, "b"));

    // Whoever has the old address now is nobody's manager.
    let mut stranger = Line::connect(addresses[0].socket());
    let mut init = Vec::new();
    let old = SocketAddr::from(([127, 0, 0, 1], port.number()));
    Init { address: NodeAddress::new(old), role: Role::Manager }.write(&mut init);
    stranger.send(&init);
    stranger.receive();
    let (whs, rhs) = moved.spaces();
    let sync = |out: &mut Vec<u8>| method::HashSpaceSync { whs: &whs, rhs: &rhs, clock: 1 }.encode(out);
    assert_eq!(stranger.call(Method::HashSpaceSync, sync), Err(ErrorCode::Server));
    assert!(set(at, "c"));
}

#[test]
fn a_partner_that_moves_with_its_name_is_found() {
    let Some(names) = Names::make() else { return };
    let port = Port::reserve();
    names.set(&[("one", "127.0.0.1"), ("two", "127.0.0.2")]);
    let one = names.manager("one", "127.0.0.1", port.number(), &format!("-p two:{}", port.number()));
    let two = names.manager("two", "127.0.0.2", port.number(), &format!("-p one:{}", port.number()));
    let connected = |manager: &Manager, address: &str| {
        let line = format!("the other manager connected peer={address}:");
        wait_until(&format!("{line} in the log"), || manager.process.stdout().contains(&line));
    };
    connected(&one, "127.0.0.2");
    connected(&two, "127.0.0.1");
    two.process.signal(Signal::KILL);
    drop(two);
    names.set(&[("one", "127.0.0.1"), ("two", "127.0.0.3")]);
    let two = names.manager("two-again", "127.0.0.3", port.number(), &format!("-p one:{}", port.number()));
    connected(&one, "127.0.0.3");
    connected(&two, "127.0.0.1");
    assert!(!one.process.stdout().contains("does not belong here"), "{}", one.process.stdout());
}

#[test]
fn a_name_that_does_not_resolve_yet_is_waited_for() {
    let Some(names) = Names::make() else { return };
    let port = Port::reserve();
    let (server, address) = names.server("one", port.number());
    let (gateway, _) = names.gateway(port.number());
    let partner = names.manager("partner", "127.0.0.2", port.number(), &format!("-p mgr:{}", port.number()));
    for process in [&server, &gateway, &partner.process] {
        wait_until("a warning", || process.stdout().contains("WARN cannot resolve host 'mgr': "));
    }
    names.set(&[("mgr", "127.0.0.1")]);
    let more = format!("-p 127.0.0.2:{}", port.number());
    let manager = names.manager("manager", "127.0.0.1", port.number(), &more);
    manager.wait_detached(&[address]);
    wait_until("the gateway finds it", || gateway.stdout().contains("a manager answers again"));
    wait_until("its partner finds it", || partner.process.stdout().contains("the other manager connected"));
    for process in [&server, &gateway, &partner.process] {
        assert_eq!(process.stdout().matches("cannot resolve host").count(), 1, "{}", process.stdout());
    }
}

#[test]
fn an_own_address_and_what_a_tool_asks_must_resolve_at_once() {
    let Some(names) = Names::make() else { return };
    for (line, error) in [
        ("-l nowhere -m mgr -s db -L 0", "kumo-server: -l nowhere: cannot resolve host 'nowhere': "),
        ("manager -l nowhere", "kumo-server manager: -l nowhere: cannot resolve host 'nowhere': "),
        ("gateway -m mgr -t nowhere:1", "kumo-server gateway: -t nowhere:1: cannot resolve host 'nowhere': "),
        ("get -m nowhere key", "kumo-server get: -m nowhere: cannot resolve host 'nowhere': "),
        ("top -m nowhere --once", "kumo-server top: -m nowhere: cannot resolve host 'nowhere': "),
    ] {
        let finished = names.spawn("run", line).finish();
        assert_eq!((finished.status.code(), finished.stderr.lines().count()), (Some(1), 1), "{finished:?}");
        assert!(finished.stderr.starts_with(error), "{finished:?}");
    }
    // One manager of two is enough.
    let port = Port::reserve();
    names.set(&[("here", "127.0.0.1")]);
    let manager = names.manager("manager", "127.0.0.1", port.number(), "");
    let asked = names.spawn("get", &format!("get -m nowhere -p here:{} key", port.number())).finish();
    assert_eq!(asked.stderr, "kumo-server get: no active server for this key\n", "{asked:?}");
    drop(manager);
}
