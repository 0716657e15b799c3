//! Compare-and-swap through a gateway when its outcome is not known: never done twice, never denied when it was done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kumo_server::wire::method::Method;
use kumo_server::wire::pack;
use kumo_server::wire::record::raw_value;

use crate::harness::script::{Reply, Step, follow, serve, time};
use crate::harness::scripted::ScriptedNode;
use crate::harness::{Folder, Gateway, Port};

/// What a client is answered whose `cas` on the value of second 5 meets this script.
fn swapped(script: Vec<Step>) -> String {
    answered(&format!("cas k 0 0 3 {}\r\nnew\r\n", time(5).0), script)
}

fn answered(request: &str, script: Vec<Step>) -> String {
    let (folder, manager, server) = (Folder::new(), Port::reserve(), Port::reserve());
    let _manager = follow(manager.address(), server.address());
    let serving = serve(server.address(), script);
    let gateway = Gateway::start(&folder, &[manager.address()], &["-S", "5"]);
    let answer = gateway.client().line(request.as_bytes());
    serving.join().expect("the whole script");
    answer
}

/// What a client is answered whose `add` meets this script.
fn added(script: Vec<Step>) -> String {
    answered("add k 0 0 3\r\nnew\r\n", script)
}

#[test]
fn an_add_of_a_key_that_is_deleted_now_may_have_been_done_before_that() {
    let unknown = "SERVER_ERROR connection lost, whether this was done is not known";
    assert_eq!(added(vec![Step::Swap(0, Reply::Lost), Step::ReadDeleted(9)]), unknown);
    // It was done, and is over.
    assert_eq!(
        added(vec![
            Step::Swap(0, Reply::Nil),
            Step::Read(Some((8, b"new"))),
            Step::Swap(8, Reply::Nil),
            Step::ReadDeleted(9)
        ]),
        "STORED"
    );
    // Never done.
    assert_eq!(added(vec![Step::Swap(0, Reply::Lost), Step::Read(None), Step::Swap(0, Reply::At(9))]), "STORED");
}

#[test]
fn a_swap_that_was_lost_on_its_way_is_done_again() {
    let script = vec![Step::Swap(5, Reply::Lost), Step::Read(Some((5, b"old"))), Step::Swap(5, Reply::At(9))];
    assert_eq!(swapped(script), "STORED");
}

#[test]
fn a_swap_whose_answer_was_lost_is_not_denied() {
    // Ours, or another one's with the same bytes: nobody can tell.
    let script = vec![Step::Swap(5, Reply::Lost), Step::Read(Some((8, b"new")))];
    assert_eq!(swapped(script), "SERVER_ERROR connection lost, whether this was done is not known");
    // It is carried out after all, just before it is done again.
    let script = vec![Step::Swap(5, Reply::Lost), Step::Read(Some((5, b"old"))), Step::Swap(5, Reply::Mismatch)];
    assert_eq!(swapped(script), "SERVER_ERROR connection lost, whether this was done is not known");
}

#[test]
fn a_swap_that_is_not_on_every_replica_is_completed() {
    let script = vec![Step::Swap(5, Reply::Nil), Step::Read(Some((8, b"new"))), Step::Swap(8, Reply::At(9))];
    assert_eq!(swapped(script), "STORED");
    // Somebody has written since: it was done, and is over.
    let script = vec![Step::Swap(5, Reply::Nil), Step::Read(Some((9, b"other")))];
    assert_eq!(swapped(script), "STORED");
    let script = vec![
        Step::Swap(5, Reply::Nil),
        Step::Read(Some((8, b"new"))),
        Step::Swap(8, Reply::Mismatch),
        Step::Read(Some((9, b"other"))),
    ];
    assert_eq!(swapped(script), "STORED");
}

#[test]
fn a_swap_that_was_taken_back_is_done_again() {
    let script = vec![Step::Swap(5, Reply::Nil), Step::Read(Some((5, b"old"))), Step::Swap(5, Reply::At(9))];
    assert_eq!(swapped(script), "STORED");
    let unknown = "SERVER_ERROR connection lost, whether this was done is not known";
    let script = vec![Step::Swap(5, Reply::Nil), Step::Read(Some((5, b"old"))), Step::Swap(5, Reply::Mismatch)];
    assert_eq!(swapped(script), unknown);
    // Done and seen, and gone with its server.
    for reply in [Reply::Nil, Reply::Mismatch] {
        let script = vec![
            Step::Swap(5, Reply::Nil),
            Step::Read(Some((8, b"new"))),
            Step::Swap(8, reply),
            Step::Read(Some((5, b"old"))),
            Step::Swap(5, Reply::At(9)),
        ];
        assert_eq!(swapped(script), "STORED");
    }
}

#[test]
fn a_write_that_is_on_some_servers_does_not_end_as_one_that_reached_none() {
    let (folder, manager, server) = (Folder::new(), Port::reserve(), Port::reserve());
    let _manager = follow(manager.address(), server.address());
    let mut first = true;
    let _server = ScriptedNode::listen(
        server.address(),
        Vec::new(),
        Box::new(move |method, _| {
            let partial = method == Method::Set.number() && std::mem::replace(&mut first, false);
            partial.then(|| vec![0xc0])
        }),
    );
    let gateway = Gateway::start(&folder, &[manager.address()], &["-S", "1", "-Ci", "0.1"]);
    gateway.client().exchange(b"set k 0 0 3\r\nnew\r\n", b"SERVER_ERROR not written to every replica\r\n");
    // The next one is not answered at all.
    let lost = b"SERVER_ERROR connection lost, whether this was done is not known\r\n";
    gateway.client().exchange(b"set k 0 0 3\r\nnew\r\n", lost);
}

#[test]
fn a_swap_that_does_not_match_says_what_is_there() {
    let script = vec![Step::Swap(5, Reply::Mismatch), Step::Read(Some((8, b"other")))];
    assert_eq!(swapped(script), "EXISTS");
    assert_eq!(swapped(vec![Step::Swap(5, Reply::Mismatch), Step::Read(None)]), "NOT_FOUND");
}

#[test]
fn a_change_that_others_keep_from_being_made_ends_with_its_time() {
    let (folder, manager, server) = (Folder::new(), Port::reserve(), Port::reserve());
    let _manager = follow(manager.address(), server.address());
    let swaps = Arc::new(AtomicU32::new(0));
    let counted = swaps.clone();
    let _server = ScriptedNode::listen(
        server.address(),
        Vec::new(),
        Box::new(move |method, _| {
            let mut out = Vec::new();
            if method == Method::Get.number() {
                pack::raw(&mut out, &raw_value(time(5), 0, b"1"));
            } else {
                // Slow enough that all tries take longer than the time there is.
                std::thread::sleep(Duration::from_millis(20));
                counted.fetch_add(1, Ordering::Relaxed);
                pack::bool(&mut out, false);
            }
            Some(out)
        }),
    );
    let gateway = Gateway::start(&folder, &[manager.address()], &["-S", "1"]);
    let answer = gateway.client().line(b"incr k 1\r\n");
    assert_eq!(answer, "SERVER_ERROR too much contention, try again");
    let swaps = swaps.load(Ordering::Relaxed);
    assert!((2..150).contains(&swaps), "{swaps} swaps");
}
