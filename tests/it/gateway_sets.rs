//! Sets and deletions through a gateway when their outcome is not known: never done twice, and no error where a look at the
//! record can tell.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::cluster::Cluster;
use crate::harness::gateway::Memcached;
use crate::harness::script::{Reply, Step, follow, serve};
use crate::harness::{Folder, Gateway, Port, wait_until};
use crate::simulation::history::{self, Kind, Operation, Verdict};

const UNKNOWN: &str = "SERVER_ERROR connection lost, whether this was done is not known";

/// What a client is answered to `request` whose server has written something at time 5 and then follows the script.
fn answered(request: &[u8], script: Vec<Step>) -> String {
    let (folder, manager, server) = (Folder::new(), Port::reserve(), Port::reserve());
    let _manager = follow(manager.address(), server.address());
    let first = [Step::Set(Reply::At(5))].into_iter();
    let serving = serve(server.address(), first.chain(script).collect());
    let gateway = Gateway::start(&folder, &[manager.address()], &["-S", "5", "-D", "5"]);
    let mut client = gateway.client();
    client.exchange(b"set k 0 0 3\r\nnew\r\n", b"STORED\r\n");
    let answer = client.line(request);
    serving.join().expect("the whole script");
    answer
}

fn set(script: Vec<Step>) -> String {
    answered(b"set k 0 0 3\r\nnew\r\n", script)
}

fn delete(script: Vec<Step>) -> String {
    answered(b"delete k\r\n", script)
}

#[test]
fn a_set_that_was_lost_on_its_way_is_done_in_place_of_what_was_there() {
    use Reply::{At, Lost};
    assert_eq!(set(vec![Step::Set(Lost), Step::Read(Some((5, b"old"))), Step::Swap(5, At(9))]), "STORED");
    assert_eq!(set(vec![Step::Set(Lost), Step::Read(None), Step::Swap(0, At(9))]), "STORED");
    assert_eq!(set(vec![Step::Set(Lost), Step::ReadDeleted(4), Step::Swap(0, At(9))]), "STORED");
    // The second try is lost, too.
    let script = vec![
        Step::Set(Lost),
        Step::Read(Some((5, b"old"))),
        Step::Swap(5, Lost),
        Step::Read(Some((5, b"old"))),
        Step::Swap(5, At(9)),
    ];
    assert_eq!(set(script), "STORED");
}

#[test]
fn a_set_that_was_done_is_completed_and_not_repeated_over_what_came_later() {
    use Reply::{At, Lost, Mismatch, Nil};
    for reply in [Nil, Lost] {
        assert_eq!(set(vec![Step::Set(reply), Step::Read(Some((8, b"new"))), Step::Swap(8, At(9))]), "STORED");
    }
    // Done, as the server says, and overwritten or deleted since.
    assert_eq!(set(vec![Step::Set(Nil), Step::Read(Some((9, b"other")))]), "STORED");
    assert_eq!(set(vec![Step::Set(Nil), Step::ReadDeleted(9)]), "STORED");
    let script =
        vec![Step::Set(Nil), Step::Read(Some((8, b"new"))), Step::Swap(8, Mismatch), Step::Read(Some((9, b"other")))];
    assert_eq!(set(script), "STORED");
    // Not done when it was looked for, and forestalled after that: it counts as done just before a deletion.
    let script = vec![Step::Set(Lost), Step::Read(Some((5, b"old"))), Step::Swap(5, Mismatch), Step::ReadDeleted(9)];
    assert_eq!(set(script), "STORED");
}

#[test]
fn a_set_of_which_nobody_can_tell_is_not_repeated() {
    use Reply::{Lost, Mismatch};
    assert_eq!(set(vec![Step::Set(Lost), Step::Read(Some((8, b"other")))]), UNKNOWN);
    assert_eq!(set(vec![Step::Set(Lost), Step::ReadDeleted(8)]), UNKNOWN);
    // What has forestalled it may have been a swap with what was there.
    let script =
        vec![Step::Set(Lost), Step::Read(Some((5, b"old"))), Step::Swap(5, Mismatch), Step::Read(Some((9, b"other")))];
    assert_eq!(set(script), UNKNOWN);
}

#[test]
fn a_deletion_is_repeated_only_where_it_can_do_no_harm() {
    use Reply::{Lost, Mismatch, Nil};
    for found in [Step::Read(Some((5, b"old"))), Step::Read(None), Step::ReadDeleted(8)] {
        assert_eq!(delete(vec![Step::Delete(Lost), found, Step::Delete(Mismatch)]), "DELETED");
    }
    // Done, as the server says, and written anew since.
    assert_eq!(delete(vec![Step::Delete(Nil), Step::Read(Some((8, b"other")))]), "DELETED");
    assert_eq!(delete(vec![Step::Delete(Lost), Step::Read(Some((8, b"other")))]), UNKNOWN);
}

/// Keys that all clients write.
const KEYS: usize = 6;

/// The operations on each key, as the clients saw them.
type Histories = Mutex<HashMap<usize, Vec<Operation>>>;

/// A client that reads, sets and swaps the keys of all.
struct Rival {
    number: usize,
    client: Memcached,
    started: Instant,
    histories: Arc<Histories>,
    values: Arc<AtomicU64>,
}

impl Rival {
    fn work(mut self, stop: &AtomicBool) {
        let mut random = fastrand::Rng::with_seed(self.number as u64);
        while !stop.load(Ordering::Relaxed) {
            let key = random.usize(..KEYS);
            match random.u8(..10) {
                0..3 => drop(self.read(key)),
                3..7 => {
                    let value = self.values.fetch_add(1, Ordering::Relaxed);
                    let request = format!("set k{key} 0 0 {}\r\n{value}\r\n", value.to_string().len());
                    let (begun, answer) = self.ask(&request);
                    self.note(key, Kind::Set(value), begun, answer == "STORED");
                }
                _ => self.swap(key),
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// When it was asked, and the first line of the answer.
    fn ask(&mut self, request: &str) -> (Duration, String) {
        (self.started.elapsed(), self.client.line(request.as_bytes()))
    }

    fn note(&self, key: usize, kind: Kind, begun: Duration, answered: bool) {
        let ended = answered.then(|| self.started.elapsed());
        let operation = Operation { client: self.number, kind, begun, ended };
        self.histories.lock().unwrap().entry(key).or_default().push(operation);
    }

    /// The value of a key with its CAS unique, if there is one.
    fn read(&mut self, key: usize) -> Option<(u64, u64)> {
        let (begun, head) = self.ask(&format!("gets k{key}\r\n"));
        if head.starts_with("SERVER_ERROR") {
            return None;
        }
        let found = head.strip_prefix("VALUE ").map(|head| {
            let unique = head.split(' ').nth(3).and_then(|unique| unique.parse().ok()).expect("a unique");
            let rest = self.client.ask(b"", b"END\r\n");
            (rest.split("\r\n").next().and_then(|value| value.parse().ok()).expect("a number"), unique)
        });
        self.note(key, Kind::Get(found.map(|(value, _)| vec![value])), begun, true);
        found
    }

    fn swap(&mut self, key: usize) {
        let Some((before, unique)) = self.read(key) else { return };
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        let request = format!("cas k{key} 0 0 {} {unique}\r\n{value}\r\n", value.to_string().len());
        let (begun, answer) = self.ask(&request);
        // A value that was completed has another unique: what does not match says nothing about values.
        if answer != "EXISTS" && answer != "NOT_FOUND" {
            self.note(key, Kind::Swap(Some(vec![before]), value, true), begun, answer == "STORED");
        }
    }
}

#[test]
fn clients_see_one_order_of_sets_and_swaps_though_servers_are_killed() {
    for round in 0..3 {
        let mut cluster = Cluster::start(4);
        let gateways = [(); 2].map(|()| Gateway::of(&cluster, &[]));
        let (stop, histories, values) =
            (AtomicBool::new(false), Arc::<Histories>::default(), Arc::new(AtomicU64::new(1)));
        let started = Instant::now();
        let done = || histories.lock().unwrap().values().map(Vec::len).sum::<usize>();
        thread::scope(|scope| {
            for number in 0..8 {
                let (histories, values) = (histories.clone(), values.clone());
                let rival = Rival { number, client: gateways[number % 2].client(), started, histories, values };
                let stop = &stop;
                scope.spawn(move || rival.work(stop));
            }
            for victim in [round, round + 1] {
                let enough = done() + 400;
                wait_until("the clients are at work", || done() >= enough);
                cluster.kill(victim);
                cluster.wait_faulty(victim);
            }
            let enough = done() + 400;
            wait_until("the clients go on", || done() >= enough);
            stop.store(true, Ordering::Relaxed);
        });
        let histories = std::mem::take(&mut *histories.lock().unwrap());
        assert_eq!(histories.len(), KEYS);
        let failed = histories.values().flatten().filter(|operation| operation.ended.is_none()).count();
        println!("round {round}: {failed} of {} without an answer", histories.values().map(Vec::len).sum::<usize>());
        for (key, mut history) in histories {
            history.sort_by_key(|operation| operation.begun);
            let verdict = history::check(&history);
            assert_eq!(verdict, Verdict::Linearizable, "round {round}, k{key}: {}", shown(&history));
        }
    }
}

/// A history that can be read: begin and end in milliseconds.
fn shown(history: &[Operation]) -> String {
    let line = |Operation { client, kind, begun, ended }: &Operation| {
        let ended = ended.map_or("-".to_owned(), |ended| ended.as_millis().to_string());
        format!("\n{:>8} {ended:>8} client {client}: {kind:?}", begun.as_millis())
    };
    history.iter().map(line).collect::<Vec<_>>().concat()
}
