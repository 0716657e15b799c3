//! One manager: join, loss, attach, detach, replace, and what it refuses.

use kumo_server::wire::method::{self, ErrorCode, Method, Role};
use kumo_server::wire::params::{self, Encode as _, Seed};
use kumo_server::wire::{Init, Message, NodeAddress, pack};
use rustix::process::Signal;

use crate::harness::scripted::Line;
use crate::harness::{FakeServer, Folder, Manager, Port, wait_until};

/// A manager with `count` servers attached and settled.
fn settled(folder: &Folder, port: &Port, count: usize, args: &str) -> (Manager, Vec<FakeServer>) {
    let manager = Manager::start(folder, "manager", port, args);
    let servers: Vec<_> = (0..count).map(|_| FakeServer::start(&[manager.address])).collect();
    manager.wait_detached(&servers.iter().map(FakeServer::address).collect::<Vec<_>>());
    manager.switch(Method::AttachNewServers, true).unwrap();
    manager.wait_settled();
    (manager, servers)
}

fn states(servers: &[FakeServer], active: impl Fn(usize) -> bool) -> Vec<(NodeAddress, bool)> {
    servers.iter().enumerate().map(|(index, server)| (server.address(), active(index))).collect()
}

#[test]
fn servers_join_are_attached_and_replaced() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, mut servers) = settled(&folder, &port, 3, "");
    let first = manager.nodes().0;
    servers.push(FakeServer::start(&[manager.address]));
    manager.wait_detached(&[servers[3].address()]);
    assert_eq!(manager.nodes().0, first, "joining alone changes nothing");

    manager.switch(Method::AttachNewServers, true).unwrap();
    manager.wait_settled();
    manager.wait_attached(&states(&servers, |_| true));
    for server in &servers {
        wait_until("every server has the hash space", || server.spaces() == manager.spaces());
        let start =
            params::decode::<method::ReplaceCopyStart<Seed>>(server.heard(Method::ReplaceCopyStart).last().unwrap())
                .unwrap();
        assert_eq!((start.seed, start.full), (manager.nodes().0, false));
    }
    let started = servers[0].heard(Method::ReplaceCopyStart).len();
    manager.switch(Method::StartReplace, true).unwrap();
    wait_until("a full replace", || {
        let heard = servers[0].heard(Method::ReplaceCopyStart);
        heard.len() == started + 1 && params::decode::<method::ReplaceCopyStart<Seed>>(&heard[started]).unwrap().full
    });
    manager.wait_settled();
}

#[test]
fn without_replace_reading_stays_where_it_was() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, mut servers) = settled(&folder, &port, 2, "");
    let before = manager.spaces().1;
    servers.push(FakeServer::start(&[manager.address]));
    manager.wait_detached(&[servers[2].address()]);
    manager.switch(Method::AttachNewServers, false).unwrap();
    let (whs, rhs) = manager.spaces();
    assert_eq!((whs.nodes.len(), &rhs), (3, &before));
    wait_until("the servers know", || servers.iter().all(|server| server.spaces() == (whs.clone(), rhs.clone())));
    manager.switch(Method::StartReplace, false).unwrap();
    manager.wait_settled();
}

#[test]
fn a_dead_server_is_faulty_and_listed_when_it_returns() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, mut servers) = settled(&folder, &port, 3, "");
    let before = manager.nodes().0.clocktime;
    let (server_port, held) = servers.remove(1).kill();
    let dead = NodeAddress::new(server_port.address());
    let mut nodes = states(&servers, |_| true);
    nodes.push((dead, false));
    manager.wait_attached(&nodes);
    let (whs, rhs) = manager.spaces();
    assert_eq!(whs, rhs);
    assert!(before.is_before(whs.clocktime));
    wait_until("the others hear", || servers.iter().all(|server| server.spaces() == (whs.clone(), rhs.clone())));

    servers.push(FakeServer::start_on(server_port, &[manager.address], held));
    manager.wait_detached(&[dead]);
    manager.switch(Method::AttachNewServers, true).unwrap();
    manager.wait_settled();
    manager.wait_attached(&states(&servers, |_| true));

    drop(servers.remove(2));
    manager.wait_attached(&[(servers[0].address(), true), (servers[1].address(), true), (dead, false)]);
    manager.switch(Method::DetachFaultServers, true).unwrap();
    manager.wait_settled();
    manager.wait_attached(&states(&servers, |_| true));
}

#[test]
fn a_hung_server_is_lost_though_its_connections_stand() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, servers) = settled(&folder, &port, 2, "");
    servers[0].hang(true);
    manager.wait_attached(&states(&servers, |index| index != 0));
    servers[0].hang(false);
    manager.wait_detached(&[servers[0].address()]);
}

#[test]
fn a_copy_that_lost_a_server_is_not_followed_by_a_delete() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, mut servers) = settled(&folder, &port, 3, "");
    // The replace of the attach goes on while its hash spaces are there already.
    wait_until("the first one deletes", || !servers[0].heard(Method::ReplaceDeleteStart).is_empty());
    let deletes = servers[0].heard(Method::ReplaceDeleteStart).len();
    let starts = servers[0].heard(Method::ReplaceCopyStart).len();
    servers[0].copy_endlessly(true);
    manager.switch(Method::StartReplace, false).unwrap();
    wait_until("the copying", || servers[0].heard(Method::ReplaceCopyStart).len() > starts);
    servers.remove(2).kill();
    wait_until("the loss", || manager.nodes().0.nodes.iter().any(|(_, active)| !active));
    // Its report comes late, for a hash space that is no longer the one.
    servers[0].copy_endlessly(false);
    let mut late = Line::connect(manager.address);
    let mut init = Vec::new();
    Init { address: servers[0].address(), role: Role::Server }.write(&mut init);
    late.send(&init);
    let method::ReplaceCopyStart { seed, .. } =
        params::decode::<method::ReplaceCopyStart<Seed>>(servers[0].heard(Method::ReplaceCopyStart).last().unwrap())
            .unwrap();
    let answer = late
        .call(Method::ReplaceCopyEnd, |out| method::ReplaceCopyEnd { clocktime: seed.clocktime, clock: 1 }.encode(out));
    assert_eq!(answer, Ok(vec![0xc3]), "answered, so that the server stops repeating it");
    drop(late);
    assert_eq!(servers[0].heard(Method::ReplaceDeleteStart).len(), deletes);

    manager.switch(Method::StartReplace, false).unwrap();
    wait_until("the next one ends well", || servers[0].heard(Method::ReplaceDeleteStart).len() == deletes + 1);
}

#[test]
fn clients_are_told_of_every_change() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, mut servers) = settled(&folder, &port, 2, "");
    let mut gateway = Line::connect(manager.address);
    gateway.call(Method::HashSpaceRequest, |out| pack::array(out, 0)).unwrap();
    servers.remove(0).kill();
    let message = gateway.receive();
    let Message::Request(push) = Message::parse(&message).unwrap() else { panic!("not a request") };
    assert_eq!((push.msgid, push.method), (1, Method::HashSpacePush.number()));
    assert_eq!(params::decode::<(Seed, Seed)>(push.params).unwrap(), manager.spaces());
}

#[test]
fn an_automatic_replace_waits_and_then_attaches_and_detaches() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let manager = Manager::start(&folder, "manager", &port, "-a -Rs 0.3");
    let mut servers: Vec<_> = (0..3).map(|_| FakeServer::start(&[manager.address])).collect();
    manager.wait_attached(&states(&servers, |_| true));
    manager.wait_settled();
    servers.remove(0).kill();
    manager.wait_attached(&states(&servers, |_| true));
    manager.wait_settled();
    manager.switch(Method::SetAutoReplace, false).unwrap();
    servers.push(FakeServer::start(&[manager.address]));
    manager.wait_detached(&[servers[2].address()]);
    manager.switch(Method::SetAutoReplace, true).unwrap();
    manager.wait_attached(&states(&servers, |_| true));
}

#[test]
fn a_manager_that_was_killed_learns_the_hash_space_from_the_servers() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, mut servers) = settled(&folder, &port, 3, "");
    let before = manager.spaces();
    manager.process.signal(Signal::KILL);
    drop(manager);
    let manager = Manager::start(&folder, "manager2", &port, "");
    wait_until("the hash space is back", || manager.spaces() == before);
    assert!(manager.nodes().1.is_empty());

    // Also when the first thing that it is told is to attach a server that nobody has seen before.
    drop(manager);
    let (server_port, _) = servers.pop().unwrap().kill();
    let newcomer = FakeServer::start(&[port.address()]);
    let manager = Manager::start(&folder, "manager3", &port, "");
    // The answer comes when the third is known to be dead.
    manager.switch(Method::AttachNewServers, true).unwrap();
    let mut expected = states(&servers, |_| true);
    expected.push((NodeAddress::new(server_port.address()), false));
    expected.push((newcomer.address(), true));
    manager.wait_attached(&expected);
    manager.wait_settled();
}

#[test]
fn the_newest_hash_space_counts_not_that_of_the_first_server() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, mut servers) = settled(&folder, &port, 3, "");
    // One is left behind with the hash space of before.
    let (absent_port, stale) = servers.remove(0).kill();
    let absent = NodeAddress::new(absent_port.address());
    let mut nodes = states(&servers, |_| true);
    nodes.push((absent, false));
    manager.wait_attached(&nodes);
    let newest = manager.spaces();
    wait_until("the others know", || servers.iter().all(|server| server.spaces() == newest));
    drop(manager);
    // It is the first to find the manager that is started anew.
    let others: Vec<_> = servers.into_iter().map(FakeServer::kill).collect();
    let manager = Manager::start(&folder, "manager2", &port, "-k 0.5");
    let stale_server = FakeServer::start_on(absent_port, &[manager.address], stale.clone());
    wait_until("the stale one is learnt", || manager.spaces() == stale);
    let start = |(port, held)| FakeServer::start_on(port, &[manager.address], held);
    let servers: Vec<_> = others.into_iter().map(start).collect();
    wait_until("the newest is learnt", || manager.spaces() == newest);
    manager.wait_detached(&[stale_server.address()]);
    assert!(servers.iter().all(|server| server.spaces() == newest));
}

#[test]
fn nothing_can_be_done_without_servers() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let manager = Manager::start(&folder, "manager", &port, "");
    for method in [Method::AttachNewServers, Method::DetachFaultServers, Method::StartReplace] {
        assert_eq!(manager.switch(method, true), Err(ErrorCode::Server), "{method:?}");
    }
    assert_eq!(manager.nodes(), (Seed::default(), Vec::new()));
}

#[test]
fn strangers_and_nonsense_are_refused() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, servers) = settled(&folder, &port, 2, "");
    let before = manager.spaces();

    let mut client = Line::connect(manager.address);
    for method in [
        Method::KeepAlive,
        Method::HashSpaceSync,
        Method::ReplaceCopyEnd,
        Method::Get,
        Method::AttachNewServers,
        Method::SetAutoReplace,
        Method::ManagerBackup,
    ] {
        let answer = client.call(method, |out| pack::array(out, 0));
        assert_eq!(answer, Err(ErrorCode::Protocol), "{method:?} from a client");
    }
    for suffix in ["../../etc/passwd", ".", "", "a b"] {
        let answer = client.call(Method::ManagerBackup, |out| {
            method::ManagerBackup { suffix: suffix.as_bytes(), ask: None }.encode(out);
        });
        assert_eq!(answer, Err(ErrorCode::Server), "{suffix:?}");
    }
    assert_eq!(
        client.call(Method::ManagerBackup, |out| method::ManagerBackup { suffix: b"20261122", ask: None }.encode(out)),
        Ok(vec![0xc0])
    );
    wait_until("the backups", || servers.iter().all(|server| server.heard(Method::CreateBackup).len() == 1));

    let mut stranger = Line::connect(manager.address);
    let mut init = Vec::new();
    Init { address: NodeAddress::new("127.0.0.1:9".parse().unwrap()), role: Role::Manager }.write(&mut init);
    stranger.send(&init);
    let mut later = before.0.clone();
    later.clocktime.0 += 1 << 40;
    later.nodes.truncate(1);
    let sync = stranger
        .call(Method::HashSpaceSync, |out| method::HashSpaceSync { whs: &later, rhs: &later, clock: 1 }.encode(out));
    assert_eq!(sync, Err(ErrorCode::Server));
    let election =
        stranger.call(Method::ReplaceElection, |out| method::ReplaceElection { seed: &later, clock: 1 }.encode(out));
    assert_eq!(election, Err(ErrorCode::Server));
    let end = stranger.call(Method::ReplaceCopyEnd, |out| {
        method::ReplaceCopyEnd { clocktime: before.0.clocktime, clock: 1 }.encode(out);
    });
    assert_eq!(end, Err(ErrorCode::Server));
    assert_eq!(
        stranger.call(Method::GetNodesInfo, |out| pack::array(out, 0)),
        Err(ErrorCode::Protocol),
        "a client's method"
    );
    assert_eq!(manager.spaces(), before);
}

#[test]
fn sigterm_ends_it_in_order() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let (manager, _servers) = settled(&folder, &port, 2, "-g manager.mpac");
    manager.process.signal(Signal::TERM);
    let finished = manager.process.finish();
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    let entries = std::fs::read(folder.join("manager.mpac")).unwrap();
    let names: Vec<_> = kumo_server::binlog::Entries::new(&entries[..]).map(|entry| entry.unwrap().name).collect();
    assert_eq!(names, ["SM", "nS", "nS"]);
}
