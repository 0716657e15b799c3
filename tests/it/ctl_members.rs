//! Attach and detach by the control tool: which servers, what it says, and its exit status; with our managers and with
//! one that knows no more than those of 2010.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kumo_server::clock::ClockTime;
use kumo_server::wire::method::{self, Method, STATUS_FLAGS};
use kumo_server::wire::params::{Encode as _, Seed};
use kumo_server::wire::{NodeAddress, pack};

use crate::harness::scripted::ScriptedNode;
use crate::harness::{FakeServer, Finished, Folder, Manager, Port, Process, kumo_server, wait_until};

/// What `ctl` waits for servers to be listed by itself, less what a busy machine may need.
const LISTING: Duration = Duration::from_secs(25);

fn arguments(manager: &impl ToString, command: &str) -> Vec<String> {
    let manager = manager.to_string();
    ["ctl", &manager].into_iter().chain(command.split_whitespace()).map(ToOwned::to_owned).collect()
}

fn ctl(manager: &impl ToString, command: &str) -> Finished {
    let args = arguments(manager, command);
    Process::run(&Folder::new(), &kumo_server(), &args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Exit status, stdout and stderr. On a busy machine a wait may be long enough to be explained.
fn outcome(finished: &Finished) -> (Option<i32>, &str, &str) {
    let mut errors = finished.stderr.as_str();
    if errors.starts_with("waiting up to ") {
        errors = errors.split_once('\n').map_or("", |(_, rest)| rest);
    }
    (finished.status.code(), &finished.stdout, errors)
}

fn starts(servers: &[FakeServer]) -> usize {
    servers.iter().map(|server| server.heard(Method::ReplaceCopyStart).len()).sum()
}

/// A manager with two servers attached.
fn settled(folder: &Folder, port: &Port) -> (Manager, Vec<FakeServer>) {
    let manager = Manager::start(folder, "manager", port, "");
    let mut servers: Vec<_> = (0..2).map(|_| FakeServer::start(&[manager.address])).collect();
    servers.sort_by_key(FakeServer::address);
    manager.wait_detached(&[servers[0].address(), servers[1].address()]);
    let both = format!("attached {}\nattached {}\n", servers[0].address(), servers[1].address());
    assert_eq!(outcome(&ctl(&manager.address, "attach --expect 2 --wait")), (Some(0), both.as_str(), ""));
    manager.wait_settled();
    (manager, servers)
}

#[test]
fn those_named_are_waited_for_and_nobody_else_is_attached() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, servers) = settled(&folder, &port);
    let bystander = FakeServer::start(&[manager.address]);
    manager.wait_detached(&[bystander.address()]);

    let late = Port::reserve();
    let args =
        arguments(&manager.address, &format!("attach {} {} --wait --timeout 30", late.address(), servers[0].address()));
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let mut waiting = Process::spawn(&folder, "ctl", &kumo_server(), &args);
    let before = manager.nodes();
    assert!(waiting.is_running());
    assert_eq!(manager.nodes(), before, "nothing is changed before all are there");
    let late = FakeServer::start_on(late, &[manager.address], Default::default());
    let finished = waiting.finish();
    let text = format!("attached {}\nalready attached {}\n", late.address(), servers[0].address());
    assert_eq!(outcome(&finished), (Some(0), text.as_str(), ""));
    manager.wait_detached(&[bystander.address()]);
    manager.wait_attached(&[(servers[0].address(), true), (servers[1].address(), true), (late.address(), true)]);
    let (whs, rhs) = manager.spaces();
    assert_eq!(whs, rhs, "the replace has finished");
}

#[test]
fn what_was_asked_for_and_not_met_has_a_status_of_its_own_and_changes_nothing() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, servers) = settled(&folder, &port);
    let mut others: Vec<_> = (0..2).map(|_| FakeServer::start(&[manager.address])).collect();
    others.sort_by_key(FakeServer::address);
    let (first, second) = (others[0].address(), others[1].address());
    manager.wait_detached(&[first, second]);
    let before = (manager.spaces(), starts(&servers));
    let active = servers[0].address();
    let free = Port::reserve();
    for (command, line) in [
        (
            format!("attach {first} {} --wait --timeout 0.2", free.address()),
            format!("{} is not connected to the manager (after 0.2 s)", free.address()),
        ),
        (
            "attach-noreplace --expect 3 --timeout 0.2".to_owned(),
            format!("2 servers to attach ({first}, {second}), 2 attached already, 3 expected (after 0.2 s)"),
        ),
        (
            "attach --expect 1".to_owned(),
            format!("2 servers to attach ({first}, {second}), 2 attached already, 1 expected"),
        ),
        (
            "attach --total 3".to_owned(),
            format!("2 servers to attach ({first}, {second}), 2 attached already, 3 expected"),
        ),
        (format!("detach {active} --timeout 0"), format!("{active} is active, not in fault (after 0 s)")),
        (format!("detach-noreplace {first}"), format!("{first} is not in the hash space")),
        ("detach --expect 1 --timeout 0.2".to_owned(), "no server to detach, 1 expected (after 0.2 s)".to_owned()),
    ] {
        let begun = Instant::now();
        let finished = ctl(&manager.address, &command);
        let line = format!("kumo-server ctl: {line}; nothing was changed\n");
        assert_eq!(outcome(&finished), (Some(3), "", line.as_str()), "{command}");
        assert!(begun.elapsed() < LISTING, "{command} has waited for what cannot come");
    }
    assert_eq!((manager.spaces(), starts(&servers)), before);
}

/// Nobody has to guess why nothing happens.
#[test]
fn a_wait_that_is_not_short_is_explained() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, servers) = settled(&folder, &port);
    let active = servers[0].address();
    let finished = ctl(&manager.address, &format!("detach {active} --timeout 1.5"));
    let lines = format!(
        "waiting up to 1.5 s: {active} is active, not in fault\n\
         kumo-server ctl: {active} is active, not in fault (after 1.5 s); nothing was changed\n"
    );
    assert_eq!((finished.status.code(), finished.stderr), (Some(3), lines));
}

/// A script may start the manager and its servers, and attach them at once.
#[test]
fn a_manager_that_is_still_starting_is_waited_for() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let args = arguments(&port.address(), "attach --expect 1 --timeout 30");
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let mut waiting = Process::spawn(&folder, "ctl", &kumo_server(), &args);
    let line = format!("waiting up to 30 s: manager {} cannot be reached\n", port.address());
    wait_until("the explanation", || waiting.stderr() == line);
    assert!(waiting.is_running());
    let manager = Manager::start(&folder, "manager", &port, "");
    let server = FakeServer::start(&[manager.address]);
    let text = format!("attached {}\n", server.address());
    assert_eq!(outcome(&waiting.finish()), (Some(0), text.as_str(), ""));

    drop(manager);
    let finished = ctl(&port.address(), "attach --expect 1 --timeout 0");
    let line = format!("kumo-server ctl: manager {} cannot be reached\n", port.address());
    assert_eq!(outcome(&finished), (Some(1), "", line.as_str()));
}

#[test]
fn nothing_to_do_is_said_and_a_detach_of_nobody_starts_no_replace() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, servers) = settled(&folder, &port);
    let before = starts(&servers);
    for (command, text) in [
        ("detach", "nothing to detach; no replace was started\n"),
        ("detach --wait", "nothing to detach; no replace was started\n"),
        ("detach-noreplace", "nothing to detach\n"),
        ("attach-noreplace", "nothing to attach\n"),
    ] {
        assert_eq!(outcome(&ctl(&manager.address, command)), (Some(0), text, ""), "{command}");
    }
    assert_eq!(starts(&servers), before);
    let text = "nothing to attach; a replace was started\n";
    assert_eq!(outcome(&ctl(&manager.address, "attach --wait")), (Some(0), text, ""));
    assert_eq!(starts(&servers), before + 2);
}

/// A script that sets a cluster up may be run again: the second time, everybody is attached already.
#[test]
fn a_total_is_met_by_those_that_are_attached_already() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, mut servers) = settled(&folder, &port);
    servers.push(FakeServer::start(&[manager.address]));
    let (first, second, new) = (servers[0].address(), servers[1].address(), servers[2].address());
    let old = if first < second { [first, second] } else { [second, first] };
    let before = format!("already attached {}\nalready attached {}\n", old[0], old[1]);
    let text = format!("attached {new}\n{before}");
    assert_eq!(outcome(&ctl(&manager.address, "attach --total 3 --wait")), (Some(0), text.as_str(), ""));
    let mut all = servers.iter().map(FakeServer::address).collect::<Vec<_>>();
    all.sort();
    let text = all.iter().map(|server| format!("already attached {server}\n")).collect::<Vec<_>>().concat();
    assert_eq!(outcome(&ctl(&manager.address, "attach --total 3 --wait")), (Some(0), text.as_str(), ""));
}

#[test]
fn only_those_named_are_detached() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, mut servers) = settled(&folder, &port);
    servers.push(FakeServer::start(&[manager.address]));
    let text = format!("attached {}\n", servers[2].address());
    assert_eq!(outcome(&ctl(&manager.address, "attach --expect 1 --wait")), (Some(0), text.as_str(), ""));
    let (one, two) = (servers.remove(2), servers.remove(1));
    let (one_address, two_address) = (one.address(), two.address());
    drop((one, two));
    // The fault is waited for.
    let text = format!("detached {two_address}\n");
    let finished = ctl(&manager.address, &format!("detach {two_address} --wait"));
    assert_eq!(outcome(&finished), (Some(0), text.as_str(), ""));
    manager.wait_attached(&[(servers[0].address(), true), (one_address, false)]);
    let text = format!("detached {one_address}\n");
    assert_eq!(outcome(&ctl(&manager.address, "detach --expect 1 --wait")), (Some(0), text.as_str(), ""));
}

#[test]
fn waiting_fails_when_the_manager_has_forgotten_the_replace() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, servers) = settled(&folder, &port);
    servers[0].copy_endlessly(true);
    let mut flags = Vec::new();
    method::GetStatus { number: STATUS_FLAGS }.encode(&mut flags);
    let looks = || servers[1].heard(Method::GetStatus).iter().filter(|params| **params == flags).count();
    let before = looks();
    let args = arguments(&manager.address, "replace --wait");
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let waiting = Process::spawn(&folder, "ctl", &kumo_server(), &args);
    wait_until("a look at the servers", || looks() > before);
    drop(manager);
    let _manager = Manager::start(&folder, "again", &port, "");
    let finished = waiting.finish();
    assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
    // While the new manager learns the hash spaces one by one, they differ, as after a replace that was given up.
    let lines = [
        "kumo-server ctl: the manager does not know of the replace any more, see its log; run it again\n",
        "kumo-server ctl: the replace was given up, see the manager's log; run it again\n",
    ];
    assert!(lines.contains(&finished.stderr.as_str()), "{finished:?}");
}

/// A manager that knows what one of 2010 knows: attaches and detaches at once and all that there are.
struct Original {
    address: std::net::SocketAddr,
    state: Arc<Mutex<OriginalState>>,
    _node: ScriptedNode,
    _port: Port,
}

#[derive(Default)]
struct OriginalState {
    whs: Seed,
    detached: Vec<NodeAddress>,
    /// Methods and parameters that arrived.
    heard: Vec<(u32, Vec<u8>)>,
}

impl Original {
    fn start(attached: &[(NodeAddress, bool)], detached: &[NodeAddress]) -> Self {
        let port = Port::reserve();
        let whs = Seed { nodes: attached.to_vec(), clocktime: ClockTime::new(1000, 1) };
        let state = Arc::new(Mutex::new(OriginalState { whs, detached: detached.to_vec(), heard: Vec::new() }));
        let shared = state.clone();
        let answers = move |method, params: &[u8]| Some(shared.lock().unwrap().answer(method, params));
        let node = ScriptedNode::listen(port.address(), Vec::new(), Box::new(answers));
        Self { address: port.address(), state, _node: node, _port: port }
    }

    fn heard(&self) -> Vec<(u32, Vec<u8>)> {
        std::mem::take(&mut self.state.lock().unwrap().heard)
    }
}

impl OriginalState {
    fn answer(&mut self, method: u32, params: &[u8]) -> Vec<u8> {
        self.heard.push((method, params.to_vec()));
        let mut out = Vec::new();
        match Method::from_number(method) {
            Some(Method::GetNodesInfo) => (&self.whs, self.detached.clone()).encode(&mut out),
            Some(Method::HashSpaceRequest) => (&self.whs, &self.whs).encode(&mut out),
            Some(Method::AttachNewServers) => {
                for server in std::mem::take(&mut self.detached) {
                    self.whs.nodes.retain(|(known, _)| *known != server);
                    self.whs.nodes.push((server, true));
                }
                pack::nil(&mut out);
            }
            Some(Method::DetachFaultServers) => {
                self.whs.nodes.retain(|(_, active)| *active);
                pack::nil(&mut out);
            }
            // The test that asks for anything else looks at what was heard.
            _ => pack::nil(&mut out),
        }
        out
    }
}

fn node(port: &Port) -> NodeAddress {
    NodeAddress::new(port.address())
}

#[test]
fn an_original_manager_gets_what_it_always_got_and_no_method_that_it_does_not_know() {
    let ports: Vec<_> = (0..3).map(|_| Port::reserve()).collect();
    let (one, two, three) = (node(&ports[0]), node(&ports[1]), node(&ports[2]));
    let manager = Original::start(&[(one, true), (two, false)], &[three]);
    let attached = format!("attached {three}\n");
    let detached = format!("detached {two}\n");
    for (command, change, text) in [
        ("attach --wait", (100, vec![0x91, 0xc3]), attached.as_str()),
        ("attach", (100, vec![0x91, 0xc3]), "nothing to attach; a replace was started\n"),
        ("detach-noreplace", (101, vec![0x91, 0xc2]), detached.as_str()),
        ("detach --wait", (101, vec![0x91, 0xc3]), "nothing to detach; a replace was started\n"),
        ("replace --wait", (104, vec![0x91, 0xc2]), ""),
    ] {
        assert_eq!(outcome(&ctl(&manager.address, command)), (Some(0), text, ""), "{command}");
        let heard = manager.heard();
        let changes: Vec<_> = heard.iter().filter(|(method, _)| *method >= 100).collect();
        assert_eq!(changes, [&change], "{command}");
        let known = [1, 99].map(|number| Method::from_number(number).unwrap().number());
        let asked = heard.iter().filter(|(method, _)| *method < 100);
        assert!(asked.clone().all(|(method, _)| known.contains(method)), "{command}: {heard:?}");
    }
}

#[test]
fn an_original_manager_is_not_asked_for_more_than_was_wished() {
    let ports: Vec<_> = (0..4).map(|_| Port::reserve()).collect();
    let (one, two, three, four) = (node(&ports[0]), node(&ports[1]), node(&ports[2]), node(&ports[3]));
    let manager = Original::start(&[(one, true), (two, false)], &[three, four]);
    let changes = |manager: &Original| manager.heard().iter().filter(|(method, _)| *method >= 100).count();
    let line = format!(
        "kumo-server ctl: an original manager attaches every server that it lists, also {four}; nothing was changed\n"
    );
    assert_eq!(outcome(&ctl(&manager.address, &format!("attach {three}"))), (Some(3), "", line.as_str()));
    let line = format!("kumo-server ctl: {one} is active, not in fault (after 0 s); nothing was changed\n");
    assert_eq!(outcome(&ctl(&manager.address, &format!("detach {one} --timeout 0"))), (Some(3), "", line.as_str()));
    assert_eq!(changes(&manager), 0);
    let text = format!("attached {three}\nattached {four}\n");
    assert_eq!(outcome(&ctl(&manager.address, &format!("attach {three} {four}"))), (Some(0), text.as_str(), ""));
    let text = format!("detached {two}\n");
    assert_eq!(outcome(&ctl(&manager.address, &format!("detach {two}"))), (Some(0), text.as_str(), ""));
    assert_eq!(changes(&manager), 2);
}

#[test]
fn an_original_manager_is_looked_at_until_it_lists_those_who_are_meant() {
    let ports: Vec<_> = (0..3).map(|_| Port::reserve()).collect();
    let (one, two, three) = (node(&ports[0]), node(&ports[1]), node(&ports[2]));
    for command in [format!("attach-noreplace {two} {three}"), "attach-noreplace --expect 2".to_owned()] {
        let manager = Original::start(&[(one, true)], &[two]);
        let folder = Folder::new();
        let args = arguments(&manager.address, &command);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let waiting = Process::spawn(&folder, "ctl", &kumo_server(), &args);
        wait_until("two looks", || manager.state.lock().unwrap().heard.len() >= 2);
        manager.state.lock().unwrap().detached.push(three);
        let text = format!("attached {two}\nattached {three}\n");
        assert_eq!(outcome(&waiting.finish()), (Some(0), text.as_str(), ""), "{command}");
        assert_eq!(manager.heard().iter().filter(|(method, _)| *method == 100).count(), 1, "{command}");
    }
}

#[test]
fn what_an_original_manager_would_only_seem_to_do_is_refused() {
    let port = Port::reserve();
    let manager = Original::start(&[], &[]);
    let line =
        format!("kumo-server ctl: manager {} refuses: no server is active (its log says more)\n", manager.address);
    for command in ["replace", "full-replace --wait", "backup"] {
        assert_eq!(outcome(&ctl(&manager.address, command)), (Some(1), "", line.as_str()), "{command}");
    }
    manager.state.lock().unwrap().whs.nodes.push((node(&port), true));
    let finished = ctl(&manager.address, "backup --wait");
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    assert!(finished.stderr.contains("an original manager does not tell when a backup is complete"), "{finished:?}");
    assert!(manager.heard().iter().all(|(method, _)| *method < 100));
    assert_eq!(outcome(&ctl(&manager.address, "backup")), (Some(0), "", ""));
}
