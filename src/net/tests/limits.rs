//! Limits of connections, and what happens beyond them.

use super::*;
use crate::net::peers::NODE_CONNECTIONS;
use crate::net::registry::Connected;
use crate::wire::params::{Encode, Object};
use crate::wire::{self, Call};

/// Parameters that are no array.
struct Bytes(Vec<u8>);

impl Encode for Bytes {
    fn encode(&self, out: &mut Vec<u8>) {
        pack::raw(out, &self.0);
    }
}

impl Call for Bytes {
    const METHOD: Method = Method::GetStatus;
    type Answer<'r> = Object<'r>;
}

#[tokio::test]
async fn no_more_is_read_while_too_much_is_in_flight() {
    let node = node_with(Limits { in_flight: 10, ..Limits::default() });
    let mut stream = client(&node).await;
    for msgid in 0..30 {
        stream.write_all(&request(msgid, Method::SetConfig, b"x")).await.unwrap();
        until("it arrives", || node.echo.held.lock().len() >= usize::try_from(msgid + 1).unwrap().min(10)).await;
    }
    for _ in 0..3 {
        until("ten are in flight", || node.echo.held.lock().len() == 10).await;
        let held = std::mem::take(&mut *node.echo.held.lock());
        for reply in held {
            reply.ok(pack::nil);
        }
    }
    let answers: Vec<u8> = (0..30).flat_map(|msgid| [0x94, 1, msgid, 0xc0, 0xc0]).collect();
    expect(&mut stream, &answers).await;
}

#[tokio::test]
async fn a_call_that_is_larger_than_the_node_takes_fails_alone_and_at_once() {
    let (a, b) = (node(), node_with(Limits { message: 1000, ..Limits::default() }));
    let session = a.peers.session(b.address);
    session.set_message_limit(1000);
    let ask = |length: usize| session.ask(&Bytes(vec![7; length]), STEPS);
    // Not even dialled for.
    assert_eq!(ask(1000).await, Err(ErrorCode::TooLarge));
    assert!(!session.is_connected());
    assert_eq!(session.pending_calls(), 0);
    // The head takes 4 bytes, the header of the raw 3.
    let (fits, too_large, after) = (ask(993), ask(994), ask(5));
    assert_eq!(too_large.await, Err(ErrorCode::TooLarge));
    assert_eq!(fits.await.map(|result| result.len()), Ok(996));
    assert_eq!(after.await.map(|result| result.len()), Ok(6));
    assert_eq!(a.peers.link_count(), 1);
}

#[tokio::test]
async fn a_node_may_send_a_little_more_than_a_client() {
    let node = node_with(Limits { message: 1000, ..Limits::default() });
    let long = vec![7; 1000 + wire::NODE_MARGIN - 7];
    let peer = Init { address: NodeAddress::new("127.0.0.1:9".parse().unwrap()), role: Role::Server };
    let mut init = Vec::new();
    peer.write(&mut init);
    // With the init in one read, and later.
    for split in [false, true] {
        let mut stream = client(&node).await;
        let ask = request(1, Method::GetStatus, &long);
        if split {
            stream.write_all(&init).await.unwrap();
            tokio::task::yield_now().await;
            stream.write_all(&ask).await.unwrap();
        } else {
            stream.write_all(&[&init[..], &ask].concat()).await.unwrap();
        }
        let mut own = Vec::new();
        Init { address: node.address, role: Role::Server }.write(&mut own);
        expect(&mut stream, &[own, echo_of(1, &long)].concat()).await;
        let _ = stream.write_all(&request(2, Method::GetStatus, &[&long[..], b"x"].concat())).await;
        expect_close(&mut stream).await;
    }
    let mut stream = client(&node).await;
    let _ = stream.write_all(&request(1, Method::GetStatus, &long)).await;
    expect_close(&mut stream).await;
}

#[tokio::test]
async fn no_more_is_read_while_what_is_in_flight_weighs_too_much() {
    let node = node_with(Limits { in_flight_bytes: 1000, ..Limits::default() });
    let mut stream = client(&node).await;
    let bytes: Vec<u8> = (0..9).flat_map(|msgid| request(msgid, Method::SetConfig, &[7; 400])).collect();
    stream.write_all(&bytes).await.unwrap();
    for _ in 0..3 {
        until("three are in flight", || node.echo.held.lock().len() >= 3).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let held = std::mem::take(&mut *node.echo.held.lock());
        assert_eq!(held.len(), 3);
        for reply in held {
            reply.ok(pack::nil);
        }
    }
    let answers: Vec<u8> = (0..9).flat_map(|msgid| [0x94, 1, msgid, 0xc0, 0xc0]).collect();
    expect(&mut stream, &answers).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_turned_away() {
    let node = node_with(Limits { connections: 2, ..Limits::default() });
    let (mut first, second) = (client(&node).await, client(&node).await);
    until("two are connected", || node.peers.link_count() == 2).await;
    let mut turned_away = client(&node).await;
    turned_away.write_all(&request(1, Method::GetStatus, b"x")).await.unwrap();
    expect_close(&mut turned_away).await;
    drop(second);
    until("one has gone", || node.peers.link_count() == 1).await;
    let mut third = client(&node).await;
    for stream in [&mut first, &mut third] {
        assert_served(stream).await;
    }
}

#[tokio::test]
async fn incomplete_messages_are_bounded_over_all_connections() {
    let node = node_with(Limits { partial_total: 100_000, ..Limits::default() });
    let mut streams = Vec::new();
    let half = request(1, Method::GetStatus, &vec![7; 50_000]);
    for _ in 0..10 {
        let mut stream = client(&node).await;
        let _ = stream.write_all(&half[..40_000]).await;
        streams.push(stream);
    }
    until("most are closed", || node.peers.link_count() <= 2).await;
    assert_eq!(node.peers.link_count(), 2);
}

#[tokio::test]
async fn nodes_are_let_in_when_clients_are_not() {
    let (node, other) = (node_with(Limits { connections: 2, ..Limits::default() }), super::node());
    let clients = (client(&node).await, client(&node).await);
    until("two are connected", || node.peers.link_count() == 2).await;
    let session = other.peers.session(node.address);
    let result = session.ask(&GetStatus { number: 7 }, STEPS).await;
    assert_eq!(result, Ok(vec![0x91, 0x07]));
    // Nor do nodes take the places of clients.
    drop(clients);
    until("the clients have gone", || node.peers.link_count() == 1).await;
    let mut clients = (client(&node).await, client(&node).await);
    for stream in [&mut clients.0, &mut clients.1] {
        assert_served(stream).await;
    }
}

#[tokio::test]
async fn connections_that_say_nothing_are_bounded_too() {
    let node = node_with(Limits { connections: 2, ..Limits::default() });
    let mut silent = Vec::new();
    for _ in 0..2 + NODE_CONNECTIONS {
        silent.push(client(&node).await);
    }
    until("all are connected", || node.peers.link_count() == silent.len()).await;
    expect_close(&mut client(&node).await).await;
}

/// Requests that wait for a node that hangs take all the memory: those who have nothing under way are served.
#[tokio::test]
async fn the_memory_of_all_connections_is_bounded_and_everybody_is_served() {
    let node = node_with(Limits { in_flight_total: 1000, ..Limits::default() });
    let mut hoarder = client(&node).await;
    let held = |count| move |node: &Node| node.echo.held.lock().len() == count;
    let bytes: Vec<u8> = (0..9).flat_map(|msgid| request(msgid, Method::SetConfig, &[7; 400])).collect();
    hoarder.write_all(&bytes).await.unwrap();
    until("three are in flight", || held(3)(&node)).await;
    let mut other = client(&node).await;
    for msgid in 0..2 {
        other.write_all(&request(msgid, Method::SetConfig, &[7; 400])).await.unwrap();
        other.write_all(&request(9, Method::GetStatus, b"x")).await.unwrap();
    }
    until("the other has its turn", || held(4)(&node)).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(held(4)(&node), "no second request while the memory is full");
    let mut answered = 0;
    while answered < 11 {
        until("some are held", || !node.echo.held.lock().is_empty()).await;
        let replies = std::mem::take(&mut *node.echo.held.lock());
        assert!(replies.len() <= 4);
        answered += replies.len();
        for reply in replies {
            reply.ok(pack::nil);
        }
    }
    let answers: Vec<u8> = (0..9).flat_map(|msgid| [0x94, 1, msgid, 0xc0, 0xc0]).collect();
    expect(&mut hoarder, &answers).await;
}

/// Closing a socket with input unread resets the connection, and answers on their way are lost with it.
#[tokio::test]
async fn a_drained_client_that_goes_on_sending_gets_its_answers() {
    let node = node();
    let mut stream = client(&node).await;
    stream.write_all(&request(5, Method::SetConfig, b"x")).await.unwrap();
    until("it arrives", || node.echo.held.lock().len() == 1).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let peers = node.peers.clone();
    let draining = tokio::spawn(async move { peers.drain_clients(deadline).await });
    until("it drains", || node.peers.links().iter().all(|link| link.control().is_draining())).await;
    stream.write_all(&request(6, Method::GetStatus, &vec![1; 100_000])).await.unwrap();
    let reply = node.echo.held.lock().pop().unwrap();
    let answer = vec![7; 1 << 20];
    reply.ok(|out| pack::raw(out, &answer));
    let mut all = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await.unwrap().expect("no reset");
    assert_eq!(all.len(), (1 << 20) + 9);
    assert!(draining.await.unwrap());
}
