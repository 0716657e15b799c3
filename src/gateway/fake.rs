//! A gateway in memory for the tests of its pure parts: the records of a cluster in a map, time set by hand.

use std::collections::HashMap;

use super::change::Decision;
use super::item::{Item, Rules};
use super::layout::{FlagBytes, Layout};
use super::outcome::Outcome;
use super::protocol::{Codec, Next, Section, Task, Writer};
use crate::clock::ClockTime;

/// Everything is kept, values of up to 1,000 bytes.
pub(super) const RULES: Rules = Rules { layout: Layout { expiry: true, flags: FlagBytes::Two }, value_limit: 1000 };

pub(super) struct FakeGateway {
    pub(super) rules: Rules,
    pub(super) now: u32,
    pub(super) records: HashMap<Vec<u8>, (ClockTime, u16, Vec<u8>)>,
    last: u64,
    codec: Codec,
    writer: Writer,
    /// Bytes read that are no whole request.
    held: Vec<u8>,
    /// Bytes of a refused value that are yet to be dropped.
    skip: usize,
    pub(super) closed: bool,
}

impl FakeGateway {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            now: 1_700_000_000,
            records: HashMap::new(),
            last: 0,
            codec: Codec::new(),
            writer: Writer::default(),
            held: Vec::new(),
            skip: 0,
            closed: false,
        }
    }

    /// All answers to what one connection sends at once.
    pub(super) fn ask(&mut self, input: &[u8]) -> Vec<u8> {
        let (mut held, mut out) = (std::mem::take(&mut self.held), Vec::new());
        held.extend_from_slice(input);
        self.serve(&mut held, &mut out);
        self.held = held;
        out
    }

    /// As [`Self::ask`], as text.
    pub(super) fn talk(&mut self, input: &str) -> String {
        String::from_utf8(self.ask(input.as_bytes())).unwrap()
    }

    fn serve(&mut self, held: &mut Vec<u8>, out: &mut Vec<u8>) {
        while !self.closed {
            let dropped = self.skip.min(held.len());
            held.drain(..dropped);
            self.skip -= dropped;
            if self.skip > 0 {
                return;
            }
            let mut codec = std::mem::take(&mut self.codec);
            let next = codec.next(held, &self.rules);
            self.codec = codec;
            match next {
                Next::NotYet { needed } => {
                    assert!(needed > held.len(), "asks for less than there is");
                    return;
                }
                Next::Request { length, request } => {
                    let mut writer = std::mem::take(&mut self.writer);
                    self.run(request.task, |key, outcome, now| writer.write(&request.form, key, outcome, now, out));
                    self.writer = writer;
                    self.closed = request.close;
                    self.skip = length;
                }
            }
        }
    }

    /// Does what a gateway does, and hands the outcome on.
    fn run(&mut self, task: Task<'_>, mut answer: impl FnMut(&[u8], &Outcome<'_>, u32)) {
        let (now, rules) = (self.now, self.rules);
        match task {
            Task::Answer(outcome) => answer(b"", &outcome, now),
            Task::Stats { section: Section::Reset } => answer(b"", &Outcome::Reset, now),
            Task::Stats { .. } => answer(b"", &Outcome::Stats(vec![("pid".into(), "1".into())]), now),
            Task::Flush { .. } => {
                self.records.clear();
                answer(b"", &Outcome::Done, now);
            }
            Task::Get { key } => {
                let item = self.records.get(&*key);
                let item = item.map(|(clocktime, meta, data)| Item::decode(*clocktime, *meta, data, &rules));
                let outcome = item.filter(|item| !item.is_expired(now)).map_or(Outcome::Missing, Outcome::Found);
                answer(&key, &outcome, now);
            }
            Task::Change { key, change } => {
                let mut direct = change.direct(now, &rules);
                loop {
                    let held = self.records.get(&*key).cloned();
                    let current = held.as_ref().map(|(clocktime, meta, data)| (*clocktime, *meta, &data[..]));
                    match direct.take().unwrap_or_else(|| change.decide(current, now, &rules)) {
                        Decision::Answer(outcome) => return answer(&key, &outcome, now),
                        Decision::Delete { refused } => {
                            let found = self.records.remove(&*key).is_some();
                            let outcome = if found { Outcome::Deleted } else { Outcome::NotFound };
                            return answer(&key, &refused.map_or(outcome, Outcome::Failed), now);
                        }
                        Decision::Store { expected, data, reward } => {
                            let there = held.as_ref().map_or(ClockTime(0), |(clocktime, ..)| *clocktime);
                            if expected.is_none_or(|expected| expected == there) {
                                self.last += 1;
                                let clocktime = ClockTime(self.last);
                                answer(&key, &reward.outcome(clocktime, &data, &rules), now);
                                self.records.insert(key.into_owned(), (clocktime, reward.meta(rules.layout), data));
                                return;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Each line or block of lines and its answer, on one connection; ends of lines are added.
#[track_caller]
pub(super) fn converse(steps: &[(&str, &str)]) {
    let mut gateway = FakeGateway::new(RULES);
    for (input, expected) in steps {
        let answer = gateway.talk(&format!("{}\r\n", input.replace('\n', "\r\n")));
        assert_eq!(answer.replace("\r\n", "\n").trim_end_matches('\n'), *expected, "{input:?}");
    }
}
