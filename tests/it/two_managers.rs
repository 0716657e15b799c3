//! Two managers: they agree, either may be killed and come back, and one of them runs an automatic replace.

use kumo_server::wire::NodeAddress;
use kumo_server::wire::method::Method;
use rustix::process::Signal;

use crate::harness::{FakeServer, Folder, Manager, Port, wait_until};

struct Pair {
    folder: Folder,
    ports: [Port; 2],
    managers: [Option<Manager>; 2],
    servers: Vec<FakeServer>,
    args: &'static str,
}

impl Pair {
    /// Two managers with `count` servers attached and settled.
    fn start(count: usize, args: &'static str) -> Self {
        let mut ports = [Port::reserve(), Port::reserve()];
        ports.sort_by_key(Port::number);
        let mut pair = Self { folder: Folder::new(), ports, managers: [None, None], servers: Vec::new(), args };
        pair.start_manager(0);
        pair.start_manager(1);
        for _ in 0..count {
            pair.add_server();
        }
        pair
    }

    fn attached(count: usize) -> Self {
        let pair = Self::start(count, "");
        for manager in pair.running() {
            manager.wait_detached(&pair.addresses());
        }
        pair.manager(0).switch(Method::AttachNewServers, true).unwrap();
        pair.wait_agreed();
        pair
    }

    fn start_manager(&mut self, index: usize) {
        let args = format!("-p {} {}", self.ports[1 - index].address(), self.args);
        let name = format!("manager{index}");
        self.managers[index] = Some(Manager::start(&self.folder, &name, &self.ports[index], &args));
    }

    fn kill_manager(&mut self, index: usize) {
        let manager = self.managers[index].take().expect("a running manager");
        manager.process.signal(Signal::KILL);
    }

    fn add_server(&mut self) {
        let managers = [self.ports[0].address(), self.ports[1].address()];
        self.servers.push(FakeServer::start(&managers));
    }

    fn restart_server(&mut self, port: Port, held: kumo_server::wire::params::Seed) {
        let managers = [self.ports[0].address(), self.ports[1].address()];
        self.servers.push(FakeServer::start_on(port, &managers, (held.clone(), held)));
    }

    fn manager(&self, index: usize) -> &Manager {
        self.managers[index].as_ref().expect("a running manager")
    }

    fn running(&self) -> impl Iterator<Item = &Manager> {
        self.managers.iter().flatten()
    }

    fn addresses(&self) -> Vec<NodeAddress> {
        self.servers.iter().map(FakeServer::address).collect()
    }

    fn states(&self) -> Vec<(NodeAddress, bool)> {
        self.addresses().into_iter().map(|address| (address, true)).collect()
    }

    /// Waits until managers and servers have one hash space for everything.
    #[track_caller]
    fn wait_agreed(&self) {
        wait_until("managers and servers agree", || {
            let first = self.running().next().expect("a running manager").spaces();
            first.0.has_active()
                && first.0 == first.1
                && self.running().all(|manager| manager.spaces() == first)
                && self.servers.iter().all(|server| server.spaces() == first)
        });
    }
}

#[test]
fn both_know_what_either_was_told() {
    let mut pair = Pair::attached(3);
    pair.add_server();
    let newcomer = pair.servers[3].address();
    pair.manager(1).wait_detached(&[newcomer]);
    pair.manager(1).switch(Method::AttachNewServers, true).unwrap();
    pair.wait_agreed();
    assert_eq!(pair.manager(0).nodes().0.nodes.len(), 4);
    assert!(pair.manager(0).nodes().1.is_empty());
}

#[test]
fn a_dead_server_is_faulty_for_both_and_found_by_both() {
    let mut pair = Pair::attached(3);
    let (port, _) = pair.servers.remove(0).kill();
    let dead = NodeAddress::new(port.address());
    let mut states = pair.states();
    states.push((dead, false));
    for manager in pair.running() {
        manager.wait_attached(&states);
    }
    pair.wait_agreed();
    let held = pair.servers[0].spaces().0;
    pair.restart_server(port, held);
    for manager in pair.running() {
        manager.wait_detached(&[dead]);
    }
    pair.manager(1).switch(Method::AttachNewServers, true).unwrap();
    pair.wait_agreed();
}

#[test]
fn either_manager_may_be_killed_and_come_back() {
    for victim in [0, 1] {
        let mut pair = Pair::attached(3);
        pair.kill_manager(victim);
        // The other one goes on alone.
        let (port, _) = pair.servers.remove(0).kill();
        let dead = NodeAddress::new(port.address());
        let mut states = pair.states();
        states.push((dead, false));
        pair.manager(1 - victim).wait_attached(&states);
        pair.manager(1 - victim).switch(Method::DetachFaultServers, true).unwrap();
        pair.wait_agreed();
        let spaces = pair.manager(1 - victim).spaces();

        pair.start_manager(victim);
        wait_until("it learns from the other", || pair.manager(victim).spaces() == spaces);
        assert_eq!(pair.manager(1 - victim).spaces(), spaces, "and changes nothing");
        // And works as before.
        pair.add_server();
        let newcomer = pair.servers[2].address();
        pair.manager(victim).wait_detached(&[newcomer]);
        pair.manager(victim).switch(Method::AttachNewServers, true).unwrap();
        pair.wait_agreed();
    }
}

#[test]
fn both_managers_may_be_killed_at_once() {
    let mut pair = Pair::attached(3);
    let spaces = pair.manager(0).spaces();
    pair.kill_manager(0);
    pair.kill_manager(1);
    pair.start_manager(1);
    wait_until("it learns from the servers", || pair.manager(1).spaces() == spaces);
    pair.start_manager(0);
    wait_until("it learns from the other", || pair.manager(0).spaces() == spaces);
    pair.manager(0).switch(Method::StartReplace, false).unwrap();
    pair.wait_agreed();
}

#[test]
fn a_manager_that_dies_while_servers_copy_leaves_it_to_the_other() {
    let mut pair = Pair::attached(2);
    pair.add_server();
    pair.manager(0).wait_detached(&[pair.servers[2].address()]);
    pair.servers[2].copy_endlessly(true);
    pair.manager(0).switch(Method::AttachNewServers, true).unwrap();
    wait_until("the other has heard of the start", || pair.manager(1).spaces().0.nodes.len() == 3);
    pair.kill_manager(0);
    assert_ne!(pair.manager(1).spaces().0, pair.manager(1).spaces().1);
    pair.servers[2].copy_endlessly(false);
    pair.manager(1).switch(Method::StartReplace, false).unwrap();
    pair.wait_agreed();
}

#[test]
fn an_automatic_replace_is_run_once() {
    let mut pair = Pair::start(3, "-a -Rs 0.3");
    for manager in pair.running() {
        manager.wait_attached(&pair.states());
    }
    pair.wait_agreed();
    let starts = |pair: &Pair| pair.servers[0].heard(Method::ReplaceCopyStart).len();
    let before = starts(&pair);
    pair.add_server();
    for manager in pair.running() {
        manager.wait_attached(&pair.states());
    }
    pair.wait_agreed();
    assert_eq!(starts(&pair), before + 1, "one manager did it, not both");

    // Also when the one that would do it is gone.
    pair.kill_manager(0);
    pair.servers.remove(1).kill();
    pair.manager(1).wait_attached(&pair.states());
    pair.wait_agreed();
}
