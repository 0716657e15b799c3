//! Machines with a network between them that can be cut: network namespaces, joined by a bridge.
//!
//! The thread of the test moves into a namespace of its own that reaches all machines: whatever it connects to and
//! starts from then on is there. Namespaces have no names: they end with the processes in them, however the test ends.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Folder, Process, required, wait_for};

/// Where the namespace of the calling thread can be opened.
const OWN: &str = "/proc/thread-self/ns/net";

/// A namespace, held by a process that does nothing and ends with the test.
struct Namespace {
    holder: Child,
    file: File,
}

impl Namespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && echo && exec cat"]);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare");
        // A line says that it is there.
        let mut line = [0];
        std::io::Read::read_exact(holder.stdout.as_mut().expect("its output"), &mut line).expect("a namespace");
        let file = File::open(format!("/proc/{}/ns/net", holder.id())).expect("a namespace");
        Self { holder, file }
    }

    /// The calling thread moves there, with all that it starts from now on.
    fn enter(file: &File) {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("to enter a namespace");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A network with machines, numbered from zero.
pub(crate) struct Network {
    machines: Vec<Namespace>,
    /// Where the bridge is, and the test.
    bridge: Namespace,
    /// Where the test was before.
    before: File,
}

impl Network {
    /// So many machines, all connected; `None` where a test must not make any, which is said then.
    pub(crate) fn new(machines: usize) -> Option<Self> {
        let made = Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]).output();
        let there = made.is_ok_and(|made| made.status.success());
        if !required::is_there("network namespaces (root, unshare, ip)", there) {
            return None;
        }
        let before = File::open(OWN).expect("the namespace of this thread");
        let network =
            Self { machines: (0..machines).map(|_| Namespace::new()).collect(), bridge: Namespace::new(), before };
        Namespace::enter(&network.bridge.file);
        ip("link add br0 type bridge");
        ip("addr add 10.77.0.254/24 dev br0");
        ip("link set br0 up");
        for (number, machine) in network.machines.iter().enumerate() {
            ip(&format!("link add v{number} type veth peer name eth0 netns {}", machine.holder.id()));
            ip(&format!("link set v{number} master br0 up"));
            network.at(number, || {
                ip(&format!("addr add {}/24 dev eth0", Self::ip(number)));
                ip("link set eth0 up");
            });
        }
        Some(network)
    }

    /// The address of a machine.
    pub(crate) fn ip(machine: usize) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(machine + 1).expect("few machines")).into()
    }

    /// Does something on a machine.
    pub(crate) fn at<T: Send>(&self, machine: usize, work: impl FnOnce() -> T + Send) -> T {
        within(&self.machines[machine].file, work)
    }

    /// Starts a process on a machine.
    pub(crate) fn spawn(&self, machine: usize, folder: &Folder, name: &str, command: Command) -> Process {
        self.at(machine, || Process::spawn_command(folder, name, command))
    }

    /// What `from` sends to `to` is lost, without a word, until [`Self::heal`].
    pub(crate) fn cut_one_way(&self, from: usize, to: usize) {
        // To a machine that there is none of.
        let lost = format!("neigh replace {} lladdr 02:00:00:00:00:00 nud permanent dev eth0", Self::ip(to));
        self.at(from, || ip(&lost));
    }

    /// Nothing gets from one to the other any more.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// All machines reach each other again.
    pub(crate) fn heal(&self) {
        for machine in 0..self.machines.len() {
            self.at(machine, || ip("neigh flush nud permanent dev eth0"));
        }
    }

    /// Pulls the plug of a machine, or puts it back.
    pub(crate) fn set_plugged(&self, machine: usize, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        within(&self.bridge.file, || ip(&format!("link set v{machine} {state}")));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        Namespace::enter(&self.before);
    }
}

/// Does something in a namespace.
fn within<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            Namespace::enter(namespace);
            work()
        });
        done.join().expect("what is done there")
    })
}

/// Runs `ip`; its words are separated by blanks.
fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).output().expect("ip");
    assert!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr));
}

/// What is lost comes through again once the network has healed; one way stays open when the other is cut.
#[test]
fn a_network_is_cut_and_heals() {
    let Some(network) = Network::new(3) else { return };
    let echo = |from: usize, to: usize| {
        use std::net::UdpSocket;
        use std::time::Duration;
        let bound =
            |machine: usize| network.at(machine, || UdpSocket::bind((Network::ip(machine), 0)).expect("a socket"));
        let (sender, receiver) = (bound(from), bound(to));
        receiver.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
        let mut got = [0; 1];
        wait_for("the network takes a packet", || {
            sender.send_to(b"x", receiver.local_addr().expect("an address")).ok()
        });
        receiver.recv(&mut got).is_ok()
    };
    let reaches = |from, to| wait_for("a packet comes through", || echo(from, to).then_some(()));
    reaches(0, 1);
    reaches(1, 0);
    network.cut_one_way(0, 1);
    assert!(!echo(0, 1));
    reaches(1, 0);
    network.cut(0, 2);
    assert!(!echo(0, 2) && !echo(2, 0));
    reaches(1, 2);
    network.heal();
    reaches(0, 1);
    reaches(2, 0);
    network.set_plugged(1, false);
    assert!(!echo(0, 1) && !echo(1, 2));
    network.set_plugged(1, true);
    reaches(0, 1);
}
