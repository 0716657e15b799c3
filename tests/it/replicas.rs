//! A real coordinator between a manager and replicas that answer as the test wants.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use kumo_server::clock::{ClockTime, unix_seconds};
use kumo_server::ring::{self, HashSpace};
use kumo_server::wire::extension::Look;
use kumo_server::wire::method::{self, ErrorCode, Method, Role, STATUS_RHS, STATUS_WHS};
use kumo_server::wire::params::{self, Encode as _, Seed, SetOp};
use kumo_server::wire::record::raw_value;
use kumo_server::wire::unpack::Reader;
use kumo_server::wire::{Init, NodeAddress, RecordValue, frame, pack};

use crate::harness::cluster::seed as seed_at;
use crate::harness::scripted::{Line, Look as Sign, ScriptedNode};
use crate::harness::{Folder, Port, Process, kumo_server, requests, wait_until};

/// What a replica does with a call: the result object, or silence.
type Answer = Box<dyn FnMut(Method, &[u8]) -> Option<Vec<u8>> + Send>;

const TRUE: &[u8] = &[0xc3];
const FALSE: &[u8] = &[0xc2];
const NIL: &[u8] = &[0xc0];

/// What both replicas have been asked, but for their clocks.
type Asked = Arc<Mutex<Vec<(usize, Method)>>>;

/// Makes the hash space that a manager answers a request with, of the usual one.
type SpaceAnswer = Box<dyn FnMut(Method, &[u8]) -> Vec<u8> + Send>;

struct Stage {
    _server: Process,
    address: SocketAddr,
    spaces: HashSpace,
    asked: Asked,
    ports: Vec<Port>,
    nodes: Vec<ScriptedNode>,
    _folder: Folder,
}

fn init(address: SocketAddr, role: Role) -> Vec<u8> {
    let mut out = Vec::new();
    Init { address: NodeAddress::new(address), role }.write(&mut out);
    out
}

fn uint(number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    pack::uint(&mut out, number);
    out
}

impl Stage {
    /// Two replicas, the first of which answers with `first`; the second takes everything.
    fn set_up(first: Answer) -> Self {
        Self::with_manager(first, Box::new(|_, seed| seed.to_vec()))
    }

    /// The same with a manager that answers requests for a hash space as `manager` says.
    fn with_manager(first: Answer, manager: SpaceAnswer) -> Self {
        Self::start(vec![first, Box::new(|_, _| Some(TRUE.to_vec()))], manager, &[])
    }

    /// The same with more replicas, which are in no hash space at first, and flags of the real server.
    fn start(replicas: Vec<Answer>, mut manager: SpaceAnswer, flags: &[&str]) -> Self {
        let folder = Folder::new();
        let ports: Vec<_> = (0..3 + replicas.len()).map(|_| Port::reserve()).collect();
        let address = |index: usize| ports[index].address();
        let nodes = (1..4).map(|index| (NodeAddress::new(address(index)), true)).collect();
        let seed = Seed { nodes, clocktime: ClockTime::new(1_500_000_000, 1) };
        let mut bytes = Vec::new();
        seed.encode(&mut bytes);
        let answer = move |method, _: &[u8]| match Method::from_number(method)? {
            Method::KeepAlive => Some(NIL.to_vec()),
            method @ (Method::WhsRequest | Method::RhsRequest) => Some(manager(method, &bytes)),
            _ => Some(TRUE.to_vec()),
        };
        let mut scripted = vec![ScriptedNode::listen(address(0), init(address(0), Role::Manager), Box::new(answer))];
        let asked = Asked::default();
        for (index, mut answer) in replicas.into_iter().enumerate() {
            let asked = asked.clone();
            let own = address(index + 2);
            let answer = move |method, params: &[u8]| match Method::from_number(method)? {
                Method::GetStatus => Some(uint(ClockTime::new(unix_seconds(), 1).0)),
                method => {
                    asked.lock().unwrap().push((index, method));
                    answer(method, params)
                }
            };
            scripted.push(ScriptedNode::listen(own, init(own, Role::Server), Box::new(answer)));
        }
        let (own, manager) = (address(1), address(0).to_string());
        let stream = ports.last().unwrap().number().to_string();
        let own_name = own.to_string();
        let mut args = vec!["-v", "-l", &own_name, "-L", &stream, "-s", "store", "-m", &manager, "-k", "0.1"];
        args.extend(flags);
        let server = Process::spawn(&folder, "server", &kumo_server(), &args);
        let stage = Self {
            _server: server,
            address: own,
            spaces: HashSpace::new(seed),
            asked,
            ports,
            nodes: scripted,
            _folder: folder,
        };
        wait_until("the server has its hash spaces", || {
            [STATUS_WHS, STATUS_RHS].iter().all(|number| seed_at(own, *number).is_some_and(|seed| seed.has_active()))
        });
        stage
    }

    /// The node that is scripted as replica `index`.
    fn replica(&self, index: usize) -> NodeAddress {
        NodeAddress::new(self.ports[index + 2].address())
    }

    /// A hash space of the real server and these replicas, the `version`th one.
    fn space(&self, version: u32, replicas: &[usize]) -> Seed {
        let own = NodeAddress::new(self.address);
        let nodes = std::iter::once(own).chain(replicas.iter().map(|index| self.replica(*index)));
        Seed { nodes: nodes.map(|node| (node, true)).collect(), clocktime: ClockTime::new(1_500_000_000, version) }
    }

    /// Has the manager send hash spaces.
    fn sync(&self, whs: Seed, rhs: Seed) {
        let mut message = Vec::new();
        frame::request_head(&mut message, 1_000, Method::HashSpaceSync);
        method::HashSpaceSync { whs, rhs, clock: 1 }.encode(&mut message);
        self.nodes[0].send(&message);
    }

    /// A raw key that the real server coordinates.
    fn key(&self) -> Vec<u8> {
        self.key_where(|_| true)
    }

    /// One for whose hash `wanted` holds, too.
    fn key_where(&self, wanted: impl Fn(u64) -> bool) -> Vec<u8> {
        let own = Some(NodeAddress::new(self.address));
        let key = (0..1000).map(|index| format!("k{index}")).find(|key| {
            let hash = ring::hash(key.as_bytes());
            self.spaces.owners(hash).coordinator() == own && wanted(hash)
        });
        ring::raw_key(key.unwrap().as_bytes())
    }

    fn call(&self, method: Method, write: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, ErrorCode> {
        Line::connect(self.address).call(method, write)
    }

    fn set(&self, op: SetOp, expected: ClockTime, data: &[u8]) -> Vec<u8> {
        self.set_key(op, &self.key(), expected, data)
    }

    fn set_key(&self, op: SetOp, key: &[u8], expected: ClockTime, data: &[u8]) -> Vec<u8> {
        let value = raw_value(expected, 0, data);
        self.call(Method::Set, |out| method::Set { op, key, value: &value, route: None }.encode(out)).unwrap()
    }

    fn get(&self) -> Option<Vec<u8>> {
        let result = self.call(Method::Get, |out| method::Get { key: &self.key(), look: None }.encode(out)).unwrap();
        let mut reader = Reader::new(&result);
        if reader.nil() { None } else { Some(RecordValue::new(reader.raw().unwrap()).unwrap().data().to_vec()) }
    }

    fn was_asked(&self, replica: usize, method: Method) -> bool {
        self.times_asked(replica, method) > 0
    }

    fn times_asked(&self, replica: usize, method: Method) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| **asked == (replica, method)).count()
    }
}

/// Answers `result` to the first call of `method`, and true to all others.
fn once(method: Method, result: &'static [u8]) -> Answer {
    let mut done = false;
    Box::new(move |asked, _| {
        let first = asked == method && !done;
        done |= first;
        Some(if first { result } else { TRUE }.to_vec())
    })
}

#[test]
fn a_deletion_that_is_stamped_anew_still_says_that_it_has_deleted() {
    let stage = Stage::set_up(once(Method::ReplicateDelete, FALSE));
    stage.set(SetOp::Sync, ClockTime(0), b"v");
    let deleted = stage
        .call(Method::Delete, |out| method::Delete { flags: 0, key: &stage.key(), route: None }.encode(out))
        .unwrap();
    assert_eq!(deleted, TRUE);
    assert_eq!(stage.get(), None);
}

/// A record stamped by a machine whose clock is far ahead must not pull the stamps of all later writes along.
#[test]
fn a_set_over_a_record_from_the_future_succeeds_and_is_alone_ahead() {
    let future = ClockTime::new(4_000_000_000, 7);
    let later = raw_value(future, 0, b"later");
    let stage = Stage::set_up(Box::new(move |method, params| match method {
        Method::ReplicateSet => {
            let sent = requests::replicate_set(params).value.clocktime();
            Some(if future.is_before(sent) { TRUE } else { FALSE }.to_vec())
        }
        Method::Get => {
            let mut out = Vec::new();
            pack::raw(&mut out, &later);
            Some(out)
        }
        _ => Some(TRUE.to_vec()),
    }));
    let written = ClockTime(Reader::new(&stage.set(SetOp::Sync, ClockTime(0), b"v")).u64().unwrap());
    assert!(future.is_before(written), "{written}");
    assert_eq!(stage.get().as_deref(), Some(&b"v"[..]));
    let now = stage.call(Method::GetStatus, |out| method::GetStatus { number: 8 }.encode(out)).unwrap();
    let now = ClockTime(Reader::new(&now).u64().unwrap());
    assert!(now.seconds() < 3_000_000_000, "{now}");
}

/// As at a server that was just attached, and whose clock is behind: the copy of what it is to replace arrives in between.
#[test]
fn a_record_that_a_copy_brings_is_not_taken_for_a_later_write_of_the_coordinator() {
    let future = ClockTime::new(4_000_000_000, 1);
    let later = raw_value(future, 0, b"later");
    let (held, go_on) = (later.clone(), Arc::new(AtomicBool::new(true)));
    let waits = go_on.clone();
    let stage = Stage::set_up(Box::new(move |method, params| match method {
        Method::ReplicateSet => {
            let is_first = !waits.load(Ordering::Relaxed);
            wait_until("the copy has arrived", || waits.load(Ordering::Relaxed));
            let sent = requests::replicate_set(params).value.clocktime();
            Some(if is_first || sent.is_before(future) { FALSE } else { TRUE }.to_vec())
        }
        Method::Get => {
            let mut out = Vec::new();
            pack::raw(&mut out, &held);
            Some(out)
        }
        _ => Some(TRUE.to_vec()),
    }));
    let key = stage.key();
    go_on.store(false, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let setting = scope.spawn(|| stage.set(SetOp::Sync, ClockTime(0), b"v"));
        wait_until("the write is decided", || stage.was_asked(0, Method::ReplicateSet));
        let mut copy = Vec::new();
        frame::request_head(&mut copy, 1_000, Method::ReplicateSet);
        method::ReplicateSet { clock: 1, flags: 0, key: &key, value: &later, fence: None }.encode(&mut copy);
        stage.nodes[2].send(&copy);
        wait_until("the copy is stored", || {
            let look = Some(Look { unsettled: true });
            let found = stage.call(Method::Get, |out| method::Get { key: &key, look }.encode(out)).unwrap();
            found.ends_with(b"later")
        });
        go_on.store(true, Ordering::Relaxed);
        let written = setting.join().expect("an answer");
        let written = ClockTime(Reader::new(&written).u64().unwrap_or_else(|_| panic!("{written:?}")));
        assert!(future.is_before(written), "{written}");
    });
    assert_eq!(stage.get().as_deref(), Some(&b"v"[..]));
}

#[test]
fn a_swap_that_a_replica_has_already_is_no_failure() {
    // As when the answer to a first try was lost, or when the stream of a replace was faster.
    let mut held = Vec::new();
    let stage = Stage::set_up(Box::new(move |method, params| match method {
        Method::ReplicateSet => {
            held = requests::replicate_set(params).value.bytes().to_vec();
            Some(FALSE.to_vec())
        }
        Method::Get => {
            let mut out = Vec::new();
            pack::raw(&mut out, &held);
            Some(out)
        }
        _ => Some(TRUE.to_vec()),
    }));
    let swapped = stage.set(SetOp::Cas, ClockTime(0), b"v");
    assert!(Reader::new(&swapped).u64().is_ok(), "{swapped:?}");
    assert_eq!(stage.get().as_deref(), Some(&b"v"[..]));
}

#[test]
fn a_swap_that_fails_at_a_replica_leaves_what_that_has_everywhere() {
    let later = raw_value(ClockTime::new(4_000_000_000, 7), 0, b"later");
    let stage = Stage::set_up(Box::new(move |method, _| match method {
        Method::ReplicateSet => Some(FALSE.to_vec()),
        Method::Get => {
            let mut out = Vec::new();
            pack::raw(&mut out, &later);
            Some(out)
        }
        _ => Some(TRUE.to_vec()),
    }));
    assert_eq!(stage.set(SetOp::Cas, ClockTime(0), b"v"), FALSE);
    assert_eq!(stage.get().as_deref(), Some(&b"later"[..]));
    wait_until("the other replica has the later record, too", || {
        let asked = stage.asked.lock().unwrap();
        asked.iter().filter(|asked| **asked == (1, Method::ReplicateSet)).count() == 2
    });
}

#[test]
fn a_swap_that_fails_at_a_replica_where_the_key_is_deleted_deletes_it_everywhere() {
    let stage = Stage::set_up(Box::new(move |method, _| match method {
        Method::ReplicateSet => Some(FALSE.to_vec()),
        Method::Get => Some(NIL.to_vec()),
        _ => Some(TRUE.to_vec()),
    }));
    assert_eq!(stage.set(SetOp::Cas, ClockTime(0), b"v"), FALSE);
    assert_eq!(stage.get(), None, "the swap has failed, its value must not be there");
    wait_until("the other replica is told", || stage.was_asked(1, Method::ReplicateDelete));
}

#[test]
fn a_hash_space_that_the_manager_did_not_give_at_first_is_asked_for_again() {
    let mut refused = 0;
    let stage = Stage::with_manager(
        Box::new(|_, _| Some(TRUE.to_vec())),
        Box::new(move |method, seed| {
            if method == Method::RhsRequest && refused < 2 {
                refused += 1;
                // An empty one: it cannot be used.
                return vec![0x92, 0x90, 0x00];
            }
            seed.to_vec()
        }),
    );
    assert_eq!(stage.get(), None);
}

/// While records are copied, the coordinator of a key may not have it yet. The original decides on that: a swap fails
/// though it names what is stored, and an addition overwrites it.
#[test]
fn a_swap_while_records_are_copied_is_decided_on_what_the_owners_for_reading_have() {
    let stored = ClockTime::new(1_600_000_000, 7);
    let value = raw_value(stored, 0, b"old");
    let first: Answer = Box::new(move |method, _| match method {
        Method::Get => {
            let mut out = Vec::new();
            pack::raw(&mut out, &value);
            Some(out)
        }
        _ => Some(TRUE.to_vec()),
    });
    // The real server is in the hash space for writing only.
    let old_space: SpaceAnswer = Box::new(|method, bytes| {
        let mut seed = params::decode::<Seed>(bytes).unwrap();
        if method == Method::RhsRequest {
            seed.nodes.remove(0);
            seed.nodes.truncate(1);
            seed.clocktime = ClockTime::new(1_400_000_000, 1);
        }
        let mut out = Vec::new();
        seed.encode(&mut out);
        out
    });
    let stage = Stage::with_manager(first, old_space);
    assert_eq!(stage.set(SetOp::Cas, ClockTime(0), b"added"), FALSE);
    let swapped = stage.set(SetOp::Cas, stored, b"new");
    let swapped = ClockTime(Reader::new(&swapped).u64().unwrap_or_else(|_| panic!("{swapped:?}")));
    assert!(stored.is_before(swapped));
    assert!(stage.was_asked(0, Method::ReplicateSet), "the owners for reading get the new value");
}

/// The flags under which a replica gets the copies of writes, for each of them.
type Flags = Arc<Mutex<Vec<u32>>>;

/// Takes copies, once `refuses` allows, and notes under which flags they came. What is refused is left unanswered, as by
/// a server whose answer is lost.
fn noting(flags: &Flags, refuses: impl Fn(u32) -> bool + Send + 'static) -> Answer {
    let flags = flags.clone();
    Box::new(move |method, params| {
        let sent = match method {
            Method::ReplicateSet => requests::replicate_set(params).flags,
            Method::ReplicateDelete => requests::replicate_delete(params).flags,
            _ => return Some(TRUE.to_vec()),
        };
        flags.lock().unwrap().push(sent);
        (!refuses(sent)).then(|| TRUE.to_vec())
    })
}

/// A replica knows the next hash space before the coordinator does, by which it owns the key for reading only, and does
/// not take a copy as an owner for writing. When the coordinator hears of that hash space it must neither take the replica
/// for one that need not have the write, nor forget the new owner: the write would be lost with the servers that have it.
#[test]
fn a_write_succeeds_when_the_owners_of_that_moment_have_it_whoever_they_were_when_it_was_decided() {
    type Change = fn(&Stage, &[u8]) -> Vec<u8>;
    let set: Change = |stage, key| stage.set_key(SetOp::Sync, key, ClockTime(0), b"v");
    let swap: Change = |stage, key| stage.set_key(SetOp::Cas, key, ClockTime(0), b"v");
    let delete: Change = |stage, key| {
        stage.call(Method::Delete, |out| method::Delete { flags: 0, key, route: None }.encode(out)).unwrap()
    };
    for (name, change) in [("set", set), ("swap", swap), ("delete", delete)] {
        let (left, joined) = (Flags::default(), Flags::default());
        let replicas = vec![
            noting(&left, |flags| flags == 0),
            Box::new(|_, _: &_| Some(TRUE.to_vec())) as Answer,
            noting(&joined, |_| false),
        ];
        let stage = Stage::start(replicas, Box::new(|_, seed| seed.to_vec()), &["-Ci", "0.1"]);
        let (old, new) = (stage.space(1, &[0, 1]), stage.space(2, &[0, 1, 2]));
        let space = HashSpace::new(new.clone());
        let key = stage.key_where(|hash| {
            space.owners(hash).coordinator() == Some(NodeAddress::new(stage.address))
                && !space.owners(hash).is_active_owner(stage.replica(0))
        });
        let answer = std::thread::scope(|scope| {
            let changing = scope.spawn(|| change(&stage, &key));
            wait_until("the replica is asked", || !left.lock().unwrap().is_empty());
            stage.sync(new, old);
            changing.join().unwrap()
        });
        assert_ne!(answer, NIL, "{name}");
        assert_eq!(left.lock().unwrap().last(), Some(&1), "{name}: the owner for reading has it");
        assert_eq!(joined.lock().unwrap()[..], [0], "{name}: the new owner has it");
    }
}

/// A replica that the real server reaches by rhs only, beside one by whs.
fn with_an_owner_for_reading(reader: Answer) -> (Stage, Vec<u8>) {
    let stage = Stage::start(
        vec![reader, Box::new(|_, _| Some(TRUE.to_vec())), Box::new(|_, _| Some(TRUE.to_vec()))],
        Box::new(|_, seed| seed.to_vec()),
        &["-S", "3", "-D", "3"],
    );
    stage.sync(stage.space(2, &[1, 2]), stage.space(1, &[0, 1]));
    let taken = |number| seed_at(stage.address, number).map(|seed| seed.clocktime.clock());
    wait_until("both hash spaces are taken", || taken(STATUS_WHS) == Some(2));
    let space = HashSpace::new(stage.space(2, &[1, 2]));
    let key = stage.key_where(|hash| space.owners(hash).coordinator() == Some(NodeAddress::new(stage.address)));
    (stage, key)
}

#[test]
fn a_write_that_an_owner_for_reading_does_not_take_has_failed() {
    let (stage, key) = with_an_owner_for_reading(Box::new(|_, _| Some(NIL.to_vec())));
    assert_eq!(stage.set_key(SetOp::Sync, &key, ClockTime(0), b"v"), NIL);
    assert!(stage.times_asked(0, Method::ReplicateSet) >= 4, "it is tried again, like others");
}

#[test]
fn a_write_over_something_later_at_an_owner_for_reading_is_stamped_anew() {
    let stamps = Arc::new(Mutex::new(Vec::new()));
    let seen = stamps.clone();
    let (stage, key) = with_an_owner_for_reading(Box::new(move |method, params| {
        if method == Method::ReplicateSet {
            let call = requests::replicate_set(params);
            let mut stamps = seen.lock().unwrap();
            stamps.push((call.flags, call.value.clocktime()));
            return Some(if stamps.len() == 1 { FALSE } else { TRUE }.to_vec());
        }
        Some(TRUE.to_vec())
    }));
    let written = stage.set_key(SetOp::Sync, &key, ClockTime(0), b"v");
    let written = ClockTime(Reader::new(&written).u64().unwrap_or_else(|_| panic!("{written:?}")));
    let stamps = stamps.lock().unwrap();
    assert_eq!(stamps.len(), 2, "{stamps:?}");
    assert_eq!((stamps[0].0, stamps[1]), (1, (1, written)));
    assert!(stamps[0].1.is_before(written), "{stamps:?}");
}

/// What a replica does just now, as the test says.
struct Conduct(Arc<Mutex<Option<&'static [u8]>>>);

impl Default for Conduct {
    /// It takes all copies.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(TRUE))))
    }
}

impl Conduct {
    /// From now on it answers copies so; `None`: not at all.
    fn answer(&self, result: Option<&'static [u8]>) {
        *self.0.lock().unwrap() = result;
    }

    /// A replica that does so, and that holds `later`.
    fn replica(&self, later: Option<Vec<u8>>) -> Answer {
        let conduct = self.0.clone();
        Box::new(move |method, _| match (method, &later) {
            (Method::Get, Some(value)) => {
                let mut out = Vec::new();
                pack::raw(&mut out, value);
                Some(out)
            }
            (Method::ReplicateSet | Method::ReplicateDelete, _) => conduct.lock().unwrap().map(<[u8]>::to_vec),
            _ => Some(TRUE.to_vec()),
        })
    }
}

/// A stage whose first replica behaves as told, and whose coordinator tries so often again.
fn retrying(retries: &str, conduct: &Conduct, later: Option<Vec<u8>>) -> Stage {
    let second: Answer = Box::new(|_, _| Some(TRUE.to_vec()));
    let replicas = vec![conduct.replica(later), second];
    Stage::start(replicas, Box::new(|_, seed| seed.to_vec()), &["-Ci", "0.1", "-S", retries, "-D", retries])
}

impl Stage {
    fn try_get(&self) -> Result<Option<Vec<u8>>, ErrorCode> {
        let result = self.call(Method::Get, |out| method::Get { key: &self.key(), look: None }.encode(out))?;
        let mut reader = Reader::new(&result);
        Ok(if reader.nil() { None } else { Some(RecordValue::new(reader.raw().unwrap()).unwrap().data().to_vec()) })
    }
}

#[test]
fn no_read_is_told_of_a_write_before_all_owners_have_it() {
    let conduct = Conduct::default();
    let stage = retrying("20", &conduct, None);
    stage.set(SetOp::Sync, ClockTime(0), b"old");
    conduct.answer(None);
    std::thread::scope(|scope| {
        let setting = scope.spawn(|| stage.set(SetOp::Sync, ClockTime(0), b"new"));
        wait_until("the replica is asked", || stage.times_asked(0, Method::ReplicateSet) >= 2);
        assert_eq!(stage.try_get(), Err(ErrorCode::Server), "the replica does not have it yet");
        let refused = stage.call(Method::Set, |out| {
            let value = raw_value(ClockTime(1), 0, b"swapped");
            method::Set { op: SetOp::Cas, key: &stage.key(), value: &value, route: None }.encode(out);
        });
        assert_eq!(refused, Err(ErrorCode::Server), "that it does not match would tell of the write, too");
        conduct.answer(Some(TRUE));
        assert_ne!(setting.join().unwrap(), NIL);
    });
    assert_eq!(stage.try_get(), Ok(Some(b"new".to_vec())));
}

#[test]
fn a_read_that_meets_a_write_under_way_is_answered_when_that_has_ended() {
    let conduct = Conduct::default();
    let stage = retrying("20", &conduct, None);
    conduct.answer(None);
    let (mut setter, mut getter) = (Line::connect(stage.address), Line::connect(stage.address));
    let value = raw_value(ClockTime(0), 0, b"v");
    setter.request(Method::Set, |out| {
        method::Set { op: SetOp::Sync, key: &stage.key(), value: &value, route: None }.encode(out);
    });
    wait_until("the replica is asked", || stage.was_asked(0, Method::ReplicateSet));
    // It is tried again within a second, and by then it answers. A read of that last half second is answered.
    conduct.answer(Some(TRUE));
    wait_until("a read is answered with the value", || {
        getter
            .call(Method::Get, |out| method::Get { key: &stage.key(), look: None }.encode(out))
            .is_ok_and(|result| result != NIL)
    });
    assert!(matches!(setter.look_for(std::time::Duration::from_millis(200)), Sign::Message(_)), "the write had ended");
}

#[test]
fn what_a_replica_did_not_take_is_sent_to_it_until_it_does() {
    for delete in [false, true] {
        let conduct = Conduct::default();
        let stage = retrying("1", &conduct, None);
        stage.set(SetOp::Sync, ClockTime(0), b"old");
        conduct.answer(Some(NIL));
        let (method, answer) = if delete {
            let delete = |out: &mut Vec<u8>| method::Delete { flags: 0, key: &stage.key(), route: None }.encode(out);
            (Method::ReplicateDelete, stage.call(Method::Delete, delete).unwrap())
        } else {
            (Method::ReplicateSet, stage.set(SetOp::Sync, ClockTime(0), b"new"))
        };
        assert_eq!(answer, NIL);
        assert_eq!(stage.try_get(), Err(ErrorCode::Server), "nobody knows whether it will be");
        let asked = stage.times_asked(0, method);
        wait_until("it is sent again", || stage.times_asked(0, method) > asked);
        conduct.answer(Some(TRUE));
        let expected = (!delete).then(|| b"new".to_vec());
        wait_until("it is settled", || stage.try_get() == Ok(expected.clone()));
    }
}

#[test]
fn what_a_replica_has_later_is_taken_over_when_a_failed_write_is_settled() {
    let conduct = Conduct::default();
    let later = raw_value(ClockTime::new(4_000_000_000, 7), 0, b"later");
    let stage = retrying("1", &conduct, Some(later));
    conduct.answer(Some(NIL));
    assert_eq!(stage.set(SetOp::Sync, ClockTime(0), b"v"), NIL);
    let sent = stage.times_asked(1, Method::ReplicateSet);
    conduct.answer(Some(FALSE));
    wait_until("the later record is taken over", || stage.try_get() == Ok(Some(b"later".to_vec())));
    assert!(stage.times_asked(1, Method::ReplicateSet) > sent, "the other replica has it, too");
}
