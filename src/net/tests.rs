//! Connections over real sockets, with a service that echoes.

mod limits;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::env::Env;
use crate::wire::method::{ErrorCode, GetStatus, Method, Role, SetConfig};
use crate::wire::{Init, NodeAddress, Request, frame, pack};

/// Echoes the parameters of method 97, keeps those of method 98 unanswered, panics at 77.
#[derive(Default)]
struct Echo {
    held: Mutex<Vec<Reply>>,
    batches: AtomicUsize,
    bound: AtomicUsize,
    lost: AtomicUsize,
    /// Requests of one batch after which it has had enough.
    enough_after: Mutex<Option<usize>>,
}

impl Service for Echo {
    fn handle(&self, link: &Arc<Link>, requests: &mut dyn Iterator<Item = Request<'_>>, out: &mut Vec<u8>) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        for (count, request) in requests.enumerate() {
            if Some(count + 1) == *self.enough_after.lock() {
                link.enough();
            }
            match request.method {
                98 => self.held.lock().push(Reply::new(link, request.msgid).weighing(request.params.len())),
                77 => panic!("as the test wants"),
                _ => {
                    frame::response_head(out, request.msgid);
                    out.extend_from_slice(request.params);
                }
            }
        }
    }

    fn bound(&self, _session: &Arc<Session>, _role: Option<Role>) {
        self.bound.fetch_add(1, Ordering::Relaxed);
    }

    fn lost(&self, _address: NodeAddress, _refused: bool) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

struct Node {
    address: NodeAddress,
    peers: Arc<Peers>,
    echo: Arc<Echo>,
    _service: Arc<dyn Service>,
}

fn node_with(limits: Limits) -> Node {
    let env = Env::real();
    let listener = env.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = NodeAddress::new(listener.local_address().unwrap());
    let policy = DialPolicy { timeout: Duration::from_secs(1), retry_limit: 1 };
    let peers = Peers::new(&env, Some(Init { address, role: Role::Server }), policy, limits);
    let echo = Arc::new(Echo::default());
    let service: Arc<dyn Service> = echo.clone();
    peers.serve(&service);
    env.spawn(accept(listener, peers.clone()));
    Node { address, peers, echo, _service: service }
}

fn node() -> Node {
    node_with(Limits::default())
}

fn request(msgid: u32, method: Method, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::request_head(&mut out, msgid, method);
    pack::raw(&mut out, bytes);
    out
}

fn echo_of(msgid: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::response_head(&mut out, msgid);
    pack::raw(&mut out, bytes);
    out
}

async fn client(node: &Node) -> TcpStream {
    TcpStream::connect(node.address.socket()).await.unwrap()
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut arrived = vec![0; bytes.len()];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut arrived)).await;
    read.expect("an answer in time").expect("an answer");
    assert_eq!(arrived, bytes);
}

/// Asserts that a request on this connection is answered.
async fn assert_served(stream: &mut TcpStream) {
    stream.write_all(&request(1, Method::GetStatus, b"x")).await.unwrap();
    expect(stream, &echo_of(1, b"x")).await;
}

async fn expect_close(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    // An end or a reset: both are a closed connection.
    assert!(end.is_ok(), "still open");
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_request_in_any_pieces_is_answered() {
    let node = node();
    let mut stream = client(&node).await;
    for piece in [1, 7, 64, 1000, 70_000] {
        let body = vec![7; 200_000];
        let bytes = [request(1, Method::GetStatus, &body), request(2, Method::GetStatus, b"x")].concat();
        let pieces = if piece == 1 { &bytes[bytes.len() - 40..] } else { &bytes[..] };
        if piece == 1 {
            stream.write_all(&bytes[..bytes.len() - 40]).await.unwrap();
        }
        for chunk in pieces.chunks(piece) {
            stream.write_all(chunk).await.unwrap();
            tokio::task::yield_now().await;
        }
        expect(&mut stream, &[echo_of(1, &body), echo_of(2, b"x")].concat()).await;
    }
}

#[tokio::test]
async fn pipelined_requests_come_in_one_batch() {
    let node = node();
    let mut stream = client(&node).await;
    let bytes: Vec<u8> = (0..100).flat_map(|msgid| request(msgid, Method::GetStatus, b"abc")).collect();
    stream.write_all(&bytes).await.unwrap();
    let answers: Vec<u8> = (0..100).flat_map(|msgid| echo_of(msgid, b"abc")).collect();
    expect(&mut stream, &answers).await;
    assert_eq!(node.echo.batches.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn garbage_and_too_long_messages_close_their_connection_only() {
    let limits = Limits { message: 1000, ..Limits::default() };
    let node = node_with(limits);
    let mut fine = client(&node).await;
    for bad in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xdb, 0xff, 0xff, 0xff, 0xff],
        &[0x91; 500],
        &request(1, Method::GetStatus, &[0; 1000]),
    ] {
        let mut stream = client(&node).await;
        // The other side may close before it has taken everything.
        let _ = stream.write_all(bad).await;
        expect_close(&mut stream).await;
        assert_served(&mut fine).await;
    }
}

#[tokio::test]
async fn what_came_before_garbage_is_answered() {
    let node = node();
    let mut stream = client(&node).await;
    stream.write_all(&[request(1, Method::GetStatus, b"x"), vec![0xc1]].concat()).await.unwrap();
    expect(&mut stream, &echo_of(1, b"x")).await;
    expect_close(&mut stream).await;
}

#[tokio::test]
async fn a_panic_ends_one_connection() {
    let node = node();
    let (mut fine, mut stream) = (client(&node).await, client(&node).await);
    stream.write_all(&[0x94, 0, 1, 77, 0x90]).await.unwrap();
    expect_close(&mut stream).await;
    assert_served(&mut fine).await;
    until("the connection is forgotten", || node.peers.link_count() == 1).await;
}

#[tokio::test]
async fn a_dropped_reply_is_an_error() {
    let node = node();
    let mut stream = client(&node).await;
    stream.write_all(&request(5, Method::SetConfig, b"x")).await.unwrap();
    until("it arrives", || node.echo.held.lock().len() == 1).await;
    node.echo.held.lock().clear();
    expect(&mut stream, &[0x94, 1, 5, 6, 0xc0]).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_not_read_from_and_then_closed() {
    let limits = Limits { unread_answers: 10_000, stalled: Duration::from_secs(1), ..Limits::default() };
    let node = node_with(limits);
    let mut stream = client(&node).await;
    let ask = request(1, Method::GetStatus, &[7; 10_000]);
    let flood = async { while stream.write_all(&ask).await.is_ok() {} };
    let reap = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            node.peers.reap();
        }
    };
    tokio::select! {
        () = flood => {}
        () = reap => {}
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("still open"),
    }
    until("it is forgotten", || node.peers.link_count() == 0).await;
}

#[tokio::test]
async fn half_a_message_and_silence_is_closed_but_an_idle_client_is_not() {
    let node = node_with(Limits { stalled: Duration::from_secs(1), ..Limits::default() });
    let (mut silent, mut half, mut idle) = (client(&node).await, client(&node).await, client(&node).await);
    half.write_all(&request(1, Method::GetStatus, b"xyz")[..5]).await.unwrap();
    assert_served(&mut idle).await;
    until("three are connected", || node.peers.link_count() == 3).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while node.peers.link_count() > 1 {
        assert!(tokio::time::Instant::now() < deadline, "still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.peers.reap();
    }
    expect_close(&mut silent).await;
    expect_close(&mut half).await;
    idle.write_all(&request(2, Method::GetStatus, b"x")).await.unwrap();
    expect(&mut idle, &echo_of(2, b"x")).await;
}

#[tokio::test]
async fn a_client_that_waits_for_its_answers_is_not_closed() {
    let node = node_with(Limits { in_flight: 10, stalled: Duration::from_secs(1), ..Limits::default() });
    let mut stream = client(&node).await;
    let bytes: Vec<u8> = (0..30).flat_map(|msgid| request(msgid, Method::SetConfig, b"x")).collect();
    let (most, rest) = bytes.split_at(bytes.len() - 3);
    stream.write_all(most).await.unwrap();
    until("ten are in flight", || node.echo.held.lock().len() == 10).await;
    let end = tokio::time::Instant::now() + Duration::from_millis(2500);
    while tokio::time::Instant::now() < end {
        node.peers.reap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stream.write_all(rest).await.unwrap();
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
async fn machines_that_have_gone_are_noticed_on_accepted_and_on_dialled_connections() {
    let (a, b) = (node(), node());
    let address = a.address.socket();
    let session = b.peers.session(a.address);
    assert!(session.ask(&GetStatus { number: 0 }, STEPS).await.is_ok());
    // The kernel shows for each end of an established connection (01) which timer runs: 02 is keep-alive.
    let port = format!("0100007F:{:04X}", address.port());
    until("both ends are watched", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let ends = table.lines().filter(|line| line.contains(&port) && line.contains(" 01 "));
        ends.filter(|end| end.contains(" 02:")).count() == 2
    })
    .await;
}

#[tokio::test]
async fn nodes_call_each_other_over_one_connection() {
    let (a, b) = (node(), node());
    let session = a.peers.session(b.address);
    let result = session.ask(&GetStatus { number: 7 }, STEPS).await;
    assert_eq!(result, Ok(vec![0x91, 0x07]));
    until("both have bound it", || {
        b.echo.bound.load(Ordering::Relaxed) == 1 && a.echo.bound.load(Ordering::Relaxed) == 1
    })
    .await;
    // Back over the connection that the other side has dialled.
    let back = b.peers.session(a.address);
    assert!(back.is_connected());
    assert_eq!(back.ask(&GetStatus { number: 8 }, STEPS).await, Ok(vec![0x91, 0x08]));
    assert_eq!((a.peers.link_count(), b.peers.link_count()), (1, 1));
}

#[tokio::test]
async fn calls_fail_when_the_connection_drops_when_nobody_listens_and_when_time_is_up() {
    let (a, b) = (node(), node());
    let session = a.peers.session(b.address);
    let call = || {
        let session = session.clone();
        async move { session.ask(&SetConfig { number: 0, value: true }, 2).await }
    };
    assert!(session.ask(&GetStatus { number: 7 }, 2).await.is_ok());
    let timed_out = tokio::spawn(call());
    until("it is held", || b.echo.held.lock().len() == 1).await;
    a.peers.step();
    a.peers.step();
    assert_eq!(timed_out.await.unwrap(), Err(ErrorCode::TimedOut));

    let dropped = tokio::spawn(call());
    until("it is held", || b.echo.held.lock().len() == 2).await;
    b.peers.close();
    assert_eq!(dropped.await.unwrap(), Err(ErrorCode::TransportLost));

    let unused = Env::real().listen("127.0.0.1:0".parse().unwrap()).unwrap().local_address().unwrap();
    let nobody = a.peers.session(NodeAddress::new(unused));
    assert_eq!(nobody.ask(&GetStatus { number: 0 }, STEPS).await, Err(ErrorCode::NodeLost));
    assert!(a.echo.lost.load(Ordering::Relaxed) >= 1);
}

#[tokio::test]
async fn calls_that_are_given_up_are_told_from_those_that_were_never_sent() {
    let (a, b) = (node(), node());
    let session = a.peers.session(b.address);
    // The connection is dialled by a task, which does not run before this one waits.
    let unsent = session.ask(&SetConfig { number: 0, value: true }, STEPS);
    session.fail_calls(ErrorCode::TransportLost);
    assert_eq!(unsent.await, Err(ErrorCode::NodeLost));
    let sent = session.ask(&SetConfig { number: 0, value: true }, STEPS);
    until("it is held", || b.echo.held.lock().len() == 1).await;
    session.fail_calls(ErrorCode::TransportLost);
    assert_eq!(sent.await, Err(ErrorCode::TransportLost));
}

#[tokio::test]
async fn pending_calls_are_bounded() {
    let b = node();
    let a = node_with(Limits { pending_calls: 5, ..Limits::default() });
    let session = a.peers.session(b.address);
    for _ in 0..5 {
        session.call(&SetConfig { number: 0, value: true }, STEPS, Box::new(|_| ()));
    }
    assert_eq!(session.ask(&GetStatus { number: 0 }, STEPS).await, Err(ErrorCode::Server));
}

#[tokio::test]
async fn a_response_to_no_call_is_ignored_and_on_any_connection_taken() {
    let a = node();
    let fake = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = NodeAddress::new(fake.local_addr().unwrap());
    let session = a.peers.session(address);
    let asked = tokio::spawn(async move { session.ask(&GetStatus { number: 0 }, STEPS).await });
    let (mut dialled, _) = fake.accept().await.unwrap();
    let mut bytes = Vec::new();
    Init { address: a.address, role: Role::Server }.write(&mut bytes);
    frame::request(&mut bytes, 1, &GetStatus { number: 0 });
    expect(&mut dialled, &bytes).await;
    // The node dials back and answers there, after a response to a call that was never made.
    let mut second = client(&a).await;
    let mut bytes = Vec::new();
    Init { address, role: Role::Server }.write(&mut bytes);
    frame::error_response(&mut bytes, 99, ErrorCode::Server);
    frame::response_head(&mut bytes, 1);
    pack::bool(&mut bytes, true);
    second.write_all(&bytes).await.unwrap();
    assert_eq!(asked.await.unwrap(), Ok(vec![0xc3]));
}

#[tokio::test]
async fn draining_answers_what_is_in_flight() {
    let node = node();
    let mut stream = client(&node).await;
    stream.write_all(&request(5, Method::SetConfig, b"x")).await.unwrap();
    until("it arrives", || node.echo.held.lock().len() == 1).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let peers = node.peers.clone();
    let draining = tokio::spawn(async move { peers.drain_clients(deadline).await });
    let reply = node.echo.held.lock().pop().unwrap();
    reply.ok(pack::nil);
    expect(&mut stream, &[0x94, 1, 5, 0xc0, 0xc0]).await;
    assert!(draining.await.unwrap());
    expect_close(&mut stream).await;
}

#[tokio::test]
async fn requests_wait_while_the_answers_to_those_before_take_much_memory() {
    let node = node();
    *node.echo.enough_after.lock() = Some(3);
    let mut stream = client(&node).await;
    let bytes: Vec<u8> = (0..10).flat_map(|msgid| request(msgid, Method::GetStatus, b"abc")).collect();
    stream.write_all(&bytes).await.unwrap();
    let answers: Vec<u8> = (0..10).flat_map(|msgid| echo_of(msgid, b"abc")).collect();
    expect(&mut stream, &answers).await;
    assert_eq!(node.echo.batches.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_connection_that_nobody_would_read_from_does_not_stay() {
    let b = node();
    let env = Env::real();
    let policy = DialPolicy { timeout: Duration::from_secs(1), retry_limit: 1 };
    let peers = Peers::new(&env, None, policy, Limits::default());
    let session = peers.session(b.address);
    let call = || session.ask(&GetStatus { number: 7 }, STEPS);
    assert_eq!(call().await, Err(ErrorCode::NodeLost), "there is no service yet");
    let service: Arc<dyn Service> = Arc::new(Echo::default());
    peers.serve(&service);
    assert!(tokio::time::timeout(Duration::from_secs(20), call()).await.expect("answered").is_ok());
}
