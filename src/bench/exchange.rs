//! One thread's requests as bytes, and what their answers mean. Knows no sockets.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::choice::Operation;
use super::ledger::{Fault, Known, Ledger};
use super::memcached;
use super::tally::{Failure, Tally};
use super::value::{self, Values};
use crate::clock::{Clock, ClockTime};
use crate::wire::method::{Delete, ErrorCode, Get, ReplicateSet, Set};
use crate::wire::params::{Encode, SetOp, Written, decode};
use crate::wire::record::{KEY_HEADER, RecordValue, VALUE_HEADER};
use crate::wire::{frame, pack};

/// Writes requests and judges answers.
#[derive(Debug)]
pub(super) struct Exchange {
    ledger: Arc<Ledger>,
    values: Arc<Values>,
    /// Gives copies their clocktimes.
    clock: Arc<Clock>,
    value_size: usize,
    next_version: u64,
    version_step: u64,
    /// Writes the requests to a memcached server, if that is asked.
    text: Option<memcached::Writer>,
    /// A server has refused something since this was last taken back.
    pub(super) refused: bool,
    /// The counts since the last; see [`Self::take_tally`].
    pub(super) tally: Tally,
}

/// A request that awaits its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    operation: Operation,
    /// A Get for the sake of the clocktime.
    to_swap: bool,
    index: u64,
    version: u64,
    /// Of a copy.
    clocktime: ClockTime,
    known: Known,
}

/// A request that an answer calls for: an application whose compare-and-swap failed reads and tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// Read the clocktime of this key.
    Read(u64),
    /// Swap the value of this key if it has this clocktime; 0 if it is absent.
    Swap(u64, ClockTime),
}

impl Exchange {
    /// Versions start at `first_version`, which is not 0, and go up in steps, so that threads do not share any.
    pub(super) fn new(
        ledger: Arc<Ledger>,
        clock: Arc<Clock>,
        value_size: usize,
        first_version: u64,
        version_step: u64,
        tally: Tally,
    ) -> Self {
        let values = Arc::new(Values::default());
        Self {
            ledger,
            values,
            clock,
            value_size,
            next_version: first_version,
            version_step,
            text: None,
            refused: false,
            tally,
        }
    }

    /// From now on requests are those of memcached's text protocol; `multiget`: Gets in a row are one.
    pub(super) fn speak_text(&mut self, multiget: bool) {
        self.text = Some(memcached::Writer::new(multiget));
    }

    /// Whether Gets in a row are one command of the text protocol; `None` in the protocol of kumofs.
    pub(super) fn multiget(&self) -> Option<bool> {
        self.text.map(|text| text.multiget)
    }

    /// Ends a batch.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        if let Some(text) = &mut self.text {
            text.end(out);
        }
    }

    /// The ledger of all keys.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The counts since this was last called.
    pub(super) fn take_tally(&mut self) -> io::Result<Tally> {
        Ok(std::mem::replace(&mut self.tally, Tally::new().map_err(io::Error::other)?))
    }

    /// Appends a request chosen by the mix.
    #[inline]
    pub(super) fn ask(
        &mut self,
        out: &mut Vec<u8>,
        msgid: u32,
        operation: Operation,
        index: u64,
        known: Known,
    ) -> Pending {
        match operation {
            Operation::Get => self.get(out, msgid, index, known, false),
            Operation::Set => self.set(out, msgid, index, known, None),
            Operation::Cas => self.set(out, msgid, index, known, Some(known.clocktime)),
            Operation::Delete => {
                let known = self.ledger.begin_delete(index);
                if let Some(text) = &mut self.text {
                    text.delete(out, &value::key(index));
                    return Pending::new(Operation::Delete, index, 0, known);
                }
                frame::request(out, msgid, &Delete { flags: 0, key: Key::new(index, known), route: None });
                Pending::new(Operation::Delete, index, 0, known)
            }
            Operation::Replicate => self.replicate(out, msgid, index, known),
        }
    }

    /// Appends a request that follows from an answer.
    pub(super) fn follow(&mut self, out: &mut Vec<u8>, msgid: u32, follow: Follow) -> Pending {
        match follow {
            Follow::Read(index) => {
                let known = self.ledger.begin(index);
                self.get(out, msgid, index, known, true)
            }
            Follow::Swap(index, clocktime) => self.set(out, msgid, index, self.ledger.begin(index), Some(clocktime)),
        }
    }

    #[inline]
    fn get(&mut self, out: &mut Vec<u8>, msgid: u32, index: u64, known: Known, to_swap: bool) -> Pending {
        match &mut self.text {
            Some(text) => text.get(out, &value::key(index)),
            None => frame::request(out, msgid, &Get { key: Key::new(index, known), look: None }),
        }
        Pending { to_swap, ..Pending::new(Operation::Get, index, 0, known) }
    }

    #[inline]
    fn set(&mut self, out: &mut Vec<u8>, msgid: u32, index: u64, known: Known, swap: Option<ClockTime>) -> Pending {
        let (operation, op) = if swap.is_some() { (Operation::Cas, SetOp::Cas) } else { (Operation::Set, SetOp::Sync) };
        if let Some(text) = &mut self.text {
            text.set(out, &value::key(index), self.value_size, swap);
            let version = self.take_version();
            self.values.write(out, index, version, self.value_size);
            out.extend_from_slice(b"\r\n");
            return Pending::new(operation, index, version, known);
        }
        let version = self.take_version();
        let value = self.raw_value(index, version, swap.unwrap_or_default());
        frame::request(out, msgid, &Set { op, key: Key::new(index, known), value, route: None });
        Pending::new(operation, index, version, known)
    }

    /// Each copy is the newest there is of its key, unless another overtakes it.
    #[inline]
    fn replicate(&mut self, out: &mut Vec<u8>, msgid: u32, index: u64, known: Known) -> Pending {
        let clocktime = self.clock.stamp();
        let version = self.take_version();
        let value = self.raw_value(index, version, clocktime);
        let key = Key::new(index, known);
        frame::request(out, msgid, &ReplicateSet { clock: clocktime.clock(), flags: 0, key, value, fence: None });
        Pending { clocktime, ..Pending::new(Operation::Replicate, index, version, known) }
    }

    /// A version of a value under a clocktime, to be written.
    #[inline]
    fn raw_value(&self, index: u64, version: u64, clocktime: ClockTime) -> Value<'_> {
        Value { values: &self.values, index, version, size: self.value_size, clocktime }
    }

    /// The number of the next version of a value.
    #[inline]
    fn take_version(&mut self) -> u64 {
        let version = self.next_version;
        self.next_version = version.wrapping_add(self.version_step);
        version
    }

    /// Judges an answer that came after `latency`.
    #[inline]
    pub(super) fn answer(
        &mut self,
        asked: Pending,
        result: Result<&[u8], ErrorCode>,
        latency: Duration,
    ) -> Option<Follow> {
        let judged = match result {
            Err(code) => Err(code.into()),
            Ok(result) => match asked.operation {
                Operation::Get => self.got(asked, result),
                Operation::Set | Operation::Cas => self.stored(asked, result),
                Operation::Delete => self.deleted(asked, result),
                Operation::Replicate => self.copied(asked, result),
            },
        };
        match judged {
            Ok(Answer { void, follow }) => {
                self.tally.answered(asked.operation, latency, void);
                follow
            }
            Err(failure) => {
                self.refused |= failure == Failure::Server;
                self.tally.failed(failure, 1);
                None
            }
        }
    }

    #[inline]
    fn got(&mut self, asked: Pending, result: &[u8]) -> Result<Answer, Failure> {
        let found: Option<RecordValue<'_>> = decode(result).map_err(|_| Failure::Unexpected)?;
        match found {
            Some(value) => self.judge(asked, value),
            None => {
                if let Err(fault) = self.ledger.absent(asked.index, asked.known) {
                    self.fault(fault, asked, "is absent");
                }
            }
        }
        let found = found.map(|value| value.clocktime());
        let follow = asked.to_swap.then(|| Follow::Swap(asked.index, found.unwrap_or_default()));
        Ok(Answer { void: found.is_none(), follow })
    }

    #[inline]
    fn judge(&mut self, asked: Pending, value: RecordValue<'_>) {
        match self.values.check(asked.index, value.data()) {
            Ok(version) => {
                if let Err(fault) = self.ledger.found(asked.index, asked.known, value.clocktime(), version) {
                    self.fault(fault, asked, &format!("was read with clocktime {}", value.clocktime()));
                }
            }
            Err(wrong) => {
                let data = value.data();
                let start = String::from_utf8_lossy(data.get(..value::HEAD_LEN).unwrap_or(data)).into_owned();
                self.tally.fault(
                    |faults| &mut faults.wrong,
                    || format!("{}: the value ({} bytes, {start:?}) {wrong}", name(asked.index), data.len()),
                );
            }
        }
    }

    #[inline]
    fn stored(&mut self, asked: Pending, result: &[u8]) -> Result<Answer, Failure> {
        match (decode(result), asked.operation) {
            (Ok(Written::At(clocktime)), _) => {
                self.ledger.written(asked.index, asked.known, clocktime, asked.version);
                Ok(Answer { void: false, follow: None })
            }
            (Ok(Written::Partly), _) => Err(Failure::NotReplicated),
            (Ok(Written::Is(false)), Operation::Cas) => {
                Ok(Answer { void: true, follow: Some(Follow::Read(asked.index)) })
            }
            _ => Err(Failure::Unexpected),
        }
    }

    fn deleted(&mut self, asked: Pending, result: &[u8]) -> Result<Answer, Failure> {
        match decode(result) {
            Ok(Written::Is(live)) => {
                self.ledger.deleted(asked.index, asked.known);
                Ok(Answer { void: !live, follow: None })
            }
            Ok(Written::Partly) => Err(Failure::NotReplicated),
            _ => Err(Failure::Unexpected),
        }
    }

    #[inline]
    fn copied(&mut self, asked: Pending, result: &[u8]) -> Result<Answer, Failure> {
        let Ok(Written::Is(taken)) = decode(result) else { return Err(Failure::Unexpected) };
        if taken {
            self.ledger.written(asked.index, asked.known, asked.clocktime, asked.version);
        }
        Ok(Answer { void: !taken, follow: None })
    }

    #[cold]
    fn fault(&mut self, fault: Fault, asked: Pending, what: &str) {
        let why = if asked.known.clocktime == ClockTime(0) {
            "after its load or delete".to_owned()
        } else {
            format!("after a write at {} was acknowledged", asked.known.clocktime)
        };
        let describe = || format!("{} {what} {why}", name(asked.index));
        match fault {
            Fault::Missing => self.tally.fault(|faults| &mut faults.missing, describe),
            Fault::Stale => self.tally.fault(|faults| &mut faults.stale, describe),
            Fault::Exchanged => self.tally.fault(
                |faults| &mut faults.wrong,
                || format!("{} {what}, at which another value was acknowledged", name(asked.index)),
            ),
        }
    }
}

impl Pending {
    /// Whether it is a Get of this key; of any key without one.
    pub(super) fn reads(&self, key: Option<&[u8]>) -> bool {
        self.operation == Operation::Get && key.is_none_or(|key| value::key(self.index) == *key)
    }

    #[inline]
    fn new(operation: Operation, index: u64, version: u64, known: Known) -> Self {
        Self { operation, to_swap: false, index, version, clocktime: ClockTime(0), known }
    }
}

/// An answer without an error.
struct Answer {
    void: bool,
    follow: Option<Follow>,
}

/// A raw key, to be written.
struct Key {
    hash: u64,
    key: [u8; value::KEY_LEN],
}

impl Key {
    #[inline]
    fn new(index: u64, known: Known) -> Self {
        Self { hash: known.hash, key: value::key(index) }
    }
}

impl Encode for Key {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        pack::raw_header(out, KEY_HEADER + value::KEY_LEN);
        out.extend_from_slice(&self.hash.to_be_bytes());
        out.extend_from_slice(&self.key);
    }
}

/// A raw value, made as it is written.
struct Value<'a> {
    values: &'a Values,
    index: u64,
    version: u64,
    size: usize,
    clocktime: ClockTime,
}

impl Encode for Value<'_> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        pack::raw_header(out, VALUE_HEADER + self.size);
        out.extend_from_slice(&self.clocktime.0.to_be_bytes());
        out.extend_from_slice(&0u16.to_be_bytes());
        self.values.write(out, self.index, self.version, self.size);
    }
}

fn name(index: u64) -> String {
    String::from_utf8_lossy(&value::key(index)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tally::Faults;
    use super::*;
    use crate::wire::{Message, RecordKey};

    const LATENCY: Duration = Duration::from_micros(100);

    fn exchange() -> Exchange {
        let clock = Arc::new(Clock::with_time(50, || 1_000_000));
        Exchange::new(Arc::new(Ledger::new(3, false)), clock, 100, 1, 1, Tally::new().unwrap())
    }

    fn at(clock: u32) -> ClockTime {
        ClockTime::new(1_000_000, clock)
    }

    /// Sends one request; the result is its parameters.
    fn ask(exchange: &mut Exchange, operation: Operation, index: u64) -> (Pending, Vec<u8>) {
        let mut out = Vec::new();
        let asked = exchange.ask(&mut out, 7, operation, index, exchange.ledger.begin(index));
        (asked, request(&out))
    }

    fn request(bytes: &[u8]) -> Vec<u8> {
        let Ok(Message::Request(request)) = Message::parse(bytes) else { panic!("{bytes:?}") };
        assert_eq!(request.msgid, 7);
        request.params.to_vec()
    }

    fn packed(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    fn write_of(set: &[u8]) -> Set<RecordKey<'_>, RecordValue<'_>> {
        decode(set).unwrap()
    }

    /// A stored value as Get answers it.
    fn stored(set: &[u8], clocktime: ClockTime) -> Vec<u8> {
        let value = write_of(set).value;
        packed(|out| pack::raw(out, &[&clocktime.0.to_be_bytes(), value.body()].concat()))
    }

    fn write(exchange: &mut Exchange, index: u64, clock: u32) -> Vec<u8> {
        let (asked, set) = ask(exchange, Operation::Set, index);
        assert_eq!(exchange.answer(asked, Ok(&packed(|out| pack::uint(out, at(clock).0))), LATENCY), None);
        stored(&set, at(clock))
    }

    fn read(exchange: &mut Exchange, index: u64, result: &[u8]) -> Faults {
        exchange.tally.faults = Faults::default();
        let (asked, _) = ask(exchange, Operation::Get, index);
        assert_eq!(exchange.answer(asked, Ok(result), LATENCY), None);
        exchange.tally.faults
    }

    #[test]
    fn what_was_written_reads_well() {
        let mut exchange = exchange();
        let value = write(&mut exchange, 0, 5);
        assert_eq!(read(&mut exchange, 0, &value), Faults::default());
        assert_eq!(exchange.tally.answers(), 2);
        assert_eq!(exchange.tally.failed_in_all(), 0);
    }

    #[test]
    fn wrong_missing_and_stale_answers_are_counted_and_described() {
        let mut exchange = exchange();
        let old = write(&mut exchange, 0, 5);
        write(&mut exchange, 0, 6);
        let other = write(&mut exchange, 1, 7);
        assert_eq!(read(&mut exchange, 0, &old), Faults { stale: 1, ..Faults::default() });
        assert_eq!(read(&mut exchange, 0, &[0xc0]), Faults { missing: 1, ..Faults::default() });
        assert_eq!(read(&mut exchange, 0, &other), Faults { wrong: 1, ..Faults::default() });
        // The clocktime of the second write with the value of the first.
        let mut exchanged = old.clone();
        exchanged[3..11].copy_from_slice(&at(6).0.to_be_bytes());
        assert_eq!(read(&mut exchange, 0, &exchanged), Faults { wrong: 1, ..Faults::default() });
        assert_eq!(
            exchange.tally.samples,
            [
                "key:000000000000 was read with clocktime 1000000.5 after a write at 1000000.6 was acknowledged",
                "key:000000000000 is absent after a write at 1000000.6 was acknowledged",
                "key:000000000000: the value (100 bytes, \"key:000000000001 0000000000000003 \") does not begin with its key",
                "key:000000000000 was read with clocktime 1000000.6, at which another value was acknowledged",
            ]
        );
    }

    #[test]
    fn a_key_that_was_never_written_may_be_absent() {
        let mut exchange = exchange();
        assert_eq!(read(&mut exchange, 2, &[0xc0]), Faults::default());
        assert_eq!(exchange.tally.of(Operation::Get).void, 1);
    }

    #[test]
    fn a_failed_swap_reads_and_tries_again() {
        let mut exchange = exchange();
        let (asked, set) = ask(&mut exchange, Operation::Cas, 0);
        assert_eq!(write_of(&set).value.clocktime(), ClockTime(0));
        let follow = exchange.answer(asked, Ok(&[0xc2]), LATENCY);
        assert_eq!(follow, Some(Follow::Read(0)));
        let mut out = Vec::new();
        let asked = exchange.follow(&mut out, 7, follow.unwrap());
        assert_eq!(decode::<Get<RecordKey<'_>>>(&request(&out)).unwrap().key.key(), b"key:000000000000");
        let follow = exchange.answer(asked, Ok(&stored(&set, at(9))), LATENCY);
        assert_eq!(follow, Some(Follow::Swap(0, at(9))));
        let mut out = Vec::new();
        let asked = exchange.follow(&mut out, 7, follow.unwrap());
        let swap = request(&out);
        assert_eq!((write_of(&swap).op, write_of(&swap).value.clocktime()), (SetOp::Cas, at(9)));
        assert_eq!(exchange.answer(asked, Ok(&packed(|out| pack::uint(out, at(10).0))), LATENCY), None);
        // The next one knows.
        let (_, set) = ask(&mut exchange, Operation::Cas, 0);
        assert_eq!(write_of(&set).value.clocktime(), at(10));
        assert_eq!(exchange.tally.faults, Faults::default());
    }

    #[test]
    fn a_copy_is_newer_than_the_one_before_and_counts_once_it_is_taken() {
        let mut exchange = exchange();
        let old = write(&mut exchange, 0, 5);
        let mut copies = Vec::new();
        for clock in [50, 51] {
            let (asked, copy) = ask(&mut exchange, Operation::Replicate, 0);
            let call = decode::<ReplicateSet<RecordKey<'_>, RecordValue<'_>>>(&copy).unwrap();
            assert_eq!((call.clock, call.flags, call.value.clocktime()), (clock, 0, at(clock)));
            copies.push((asked, packed(|out| pack::raw(out, call.value.bytes()))));
        }
        let [(first, _), (second, newest)] = &copies[..] else { panic!() };
        assert_eq!(exchange.answer(*second, Ok(&[0xc3]), LATENCY), None);
        // The first was overtaken.
        assert_eq!(exchange.answer(*first, Ok(&[0xc2]), LATENCY), None);
        assert_eq!(exchange.tally.of(Operation::Replicate).void, 1);
        assert_eq!(read(&mut exchange, 0, newest), Faults::default());
        assert_eq!(read(&mut exchange, 0, &old), Faults { stale: 1, ..Faults::default() });
        let (asked, _) = ask(&mut exchange, Operation::Replicate, 0);
        assert_eq!(exchange.answer(asked, Ok(&[0xc0]), LATENCY), None);
        assert_eq!(exchange.tally.failed_in_all(), 1);
    }

    #[test]
    fn a_deleted_key_may_be_absent_and_must_not_return() {
        let mut exchange = exchange();
        let value = write(&mut exchange, 0, 5);
        let (asked, delete) = ask(&mut exchange, Operation::Delete, 0);
        assert_eq!(decode::<Delete<RecordKey<'_>>>(&delete).unwrap().flags, 0);
        assert_eq!(exchange.answer(asked, Ok(&[0xc3]), LATENCY), None);
        assert_eq!(read(&mut exchange, 0, &[0xc0]), Faults::default());
        assert_eq!(read(&mut exchange, 0, &value), Faults { stale: 1, ..Faults::default() });
    }

    #[test]
    fn errors_are_counted_by_reason_and_not_measured() {
        let mut exchange = exchange();
        for (operation, result, failure) in [
            (Operation::Get, Err(ErrorCode::Server), Failure::Server),
            (Operation::Set, Err(ErrorCode::Protocol), Failure::Error(5)),
            (Operation::Set, Ok(&[0xc0][..]), Failure::NotReplicated),
            (Operation::Delete, Ok(&[0xc0]), Failure::NotReplicated),
            (Operation::Set, Ok(&[0xc2]), Failure::Unexpected),
            (Operation::Get, Ok(&[0xa1, 0]), Failure::Unexpected),
            (Operation::Delete, Ok(&[0x05]), Failure::Unexpected),
        ] {
            let before = exchange.tally.failures.get(&failure).copied().unwrap_or_default();
            let (asked, _) = ask(&mut exchange, operation, 0);
            assert_eq!(exchange.answer(asked, result, LATENCY), None);
            assert_eq!(exchange.tally.failures[&failure], before + 1, "{operation:?} {result:?}");
        }
        assert_eq!(exchange.tally.answers(), 0);
    }
}
