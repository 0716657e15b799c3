//! Rates, memberships, skew and the words for it all, from readings made up.

use std::time::Duration;

use super::super::row::HISTORY;
use super::*;
use crate::clock::ClockTime;
use crate::wire::figures::{Figures, ReplaceFigures, StoreFigures};

pub(in crate::cli::top) fn node(port: u16) -> NodeAddress {
    NodeAddress::new(([127, 0, 0, 1], port).into())
}

pub(in crate::cli::top) fn reading(gets: u64, items: u64, flags: u32) -> Reading {
    let clocktime = ClockTime::new(1_795_375_259, 77).0;
    let status = Status { time: 1_795_375_259, gets, sets: 0, deletes: 0, items, clocktime, flags };
    Reading { status, ahead: 0, figures: None }
}

/// Figures of a server that copies: records scanned, sent, received, dropped.
pub(in crate::cli::top) fn copying([scanned, sent, received, dropped]: [u64; 4]) -> Figures {
    let replace = ReplaceFigures { scanned, sent, received, dropped, ..ReplaceFigures::default() };
    Figures { replace: Some(replace), ..Figures::default() }
}

/// A sample that takes no time.
pub(in crate::cli::top) fn span(at: Instant) -> Range<Instant> {
    at..at
}

fn nodes(attached: &[(NodeAddress, bool)], detached: &[NodeAddress], flags: Option<u32>) -> Nodes {
    Nodes { manager: node(19700), attached: attached.to_vec(), detached: detached.to_vec(), flags }
}

fn addresses(model: &Model, sort: Sort, reverse: bool) -> Vec<u16> {
    model.sorted(sort, reverse).iter().map(|row| row.address.socket().port()).collect()
}

#[test]
fn rates_lie_between_two_samples_and_end_with_a_gap() {
    let mut model = Model::named(&[node(1)]);
    let start = Instant::now();
    let at = |half_seconds| start + Duration::from_millis(500) * half_seconds;
    let rate = |model: &Model| model.sorted(Sort::Address, false)[0].rates.map(|rates| whole(rates.gets));
    model.take(node(1), span(at(0)), Ok(reading(100, 5, 0)));
    model.tick();
    assert_eq!(rate(&model), None);
    model.take(node(1), span(at(1)), Ok(reading(600, 5, 0)));
    model.tick();
    assert_eq!(rate(&model), Some(1000));
    model.take(node(1), span(at(2)), Err(ErrorCode::TimedOut));
    model.tick();
    assert_eq!((rate(&model), model.sorted(Sort::Address, false)[0].word().0), (None, "no answer"));
    model.take(node(1), span(at(3)), Ok(reading(9000, 5, 0)));
    model.tick();
    assert_eq!(rate(&model), None, "nobody saw when these happened");
    // Started anew: the counters are smaller.
    model.take(node(1), span(at(4)), Ok(reading(7, 5, 0)));
    model.tick();
    assert_eq!(rate(&model), None);
    model.take(node(1), span(at(4)), Ok(reading(8, 5, 0)));
    model.tick();
    assert_eq!(rate(&model), None, "no time has passed");
    model.take(node(1), span(at(5)), Ok(reading(108, 5, 0)));
    model.tick();
    assert_eq!(rate(&model), Some(200));
    assert_eq!(model.sorted(Sort::Address, false)[0].history, [0, 1000, 0, 0, 0, 0, 200]);
}

/// The server is stopped for two seconds, or this program for ten: what happens then is not divided by an instant.
#[test]
fn a_look_that_takes_long_makes_no_peak() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let highest = |samples: &[(u64, u64, u64)]| {
        let mut model = Model::named(&[node(1)]);
        let mut highest = Vec::new();
        for (from, to, gets) in samples {
            model.take(node(1), at(*from)..at(*to), Ok(reading(*gets, 5, 0)));
            model.tick();
            highest = model.history.iter().copied().collect();
        }
        highest
    };
    // A thousand requests in a second while it runs. It counts those that have waited for it as soon as it runs again.
    assert_eq!(highest(&[(0, 0, 0), (500, 2500, 500), (2500, 2501, 520), (3001, 3001, 1020)]), [0, 200, 10, 998]);
    // The server's answer came at once, but this program took it ten seconds later.
    assert_eq!(highest(&[(0, 0, 0), (500, 10_500, 500), (11_000, 11_000, 11_000)]), [0, 48, 1000]);
    // Nothing comes of less than this.
    assert_eq!(highest(&[(0, 0, 0), (49, 49, 500), (99, 99, 550)]), [0, 0, 1000]);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut model = Model::named(&[node(1)]);
    for _ in 0..=HISTORY {
        model.take(node(1), span(Instant::now()), Err(ErrorCode::NodeLost));
        model.tick();
    }
    assert_eq!((model.history.len(), model.sorted(Sort::Address, false)[0].history.len()), (HISTORY, HISTORY));
}

#[test]
fn servers_come_and_go_with_the_manager() {
    let mut model = Model::default();
    model.take_nodes(nodes(&[(node(1), true), (node(2), false)], &[node(3)], None));
    let words = |model: &Model| model.sorted(Sort::Address, false).iter().map(|row| row.word().0).collect::<Vec<_>>();
    for port in 1..=3 {
        model.take(node(port), span(Instant::now()), Ok(reading(0, 0, 0)));
    }
    assert_eq!(words(&model), ["ready", "fault", "detached"]);
    assert_eq!(model.census(), "3 of 3 servers answer, 1 in fault, 1 not attached");
    model.take_nodes(nodes(&[(node(1), true), (node(3), true), (node(4), true)], &[], None));
    assert_eq!(words(&model), ["ready", "ready", "..."]);
    // An answer that was under way when the server went.
    model.take(node(2), span(Instant::now()), Ok(reading(0, 0, 0)));
    assert_eq!(addresses(&model, Sort::Address, false), [1, 3, 4]);
}

#[test]
fn the_middle_clock_is_right() {
    let mut model = Model::named(&[node(1), node(2), node(3), node(4)]);
    for (port, ahead) in [(1, 100), (2, 100), (3, 97)] {
        model.take(node(port), span(Instant::now()), Ok(Reading { ahead, ..reading(0, 0, 0) }));
    }
    let skews: Vec<_> = model.sorted(Sort::Address, false).iter().map(|row| row.skew).collect();
    assert_eq!(skews, [Some(0), Some(0), Some(-3), None]);
    assert_eq!(addresses(&model, Sort::Skew, false)[0], 3);
}

#[test]
fn rows_are_sorted_by_what_is_asked_for() {
    let mut model = Model::named(&[node(1), node(2), node(3)]);
    let start = Instant::now();
    for (port, gets, items) in [(1, 10, 7), (2, 30, 7), (3, 20, 9)] {
        model.take(node(port), span(start), Ok(reading(0, items, 0)));
        model.take(node(port), span(start + Duration::from_secs(1)), Ok(reading(gets, items, 0)));
    }
    assert_eq!(addresses(&model, Sort::Address, false), [1, 2, 3]);
    assert_eq!(addresses(&model, Sort::Address, true), [3, 2, 1]);
    assert_eq!(addresses(&model, Sort::Gets, false), [2, 3, 1]);
    assert_eq!(addresses(&model, Sort::Total, true), [1, 3, 2]);
    assert_eq!(addresses(&model, Sort::Items, false), [3, 1, 2]);
    model.take(node(3), span(start), Err(ErrorCode::NodeLost));
    assert_eq!(addresses(&model, Sort::Status, false), [3, 1, 2]);
    assert_eq!((model.total_status().gets, whole(model.total_rates().total())), (40, 40));
}

#[test]
fn a_replace_is_reported_by_servers_and_manager() {
    let mut model = Model::named(&[node(1), node(2)]);
    assert_eq!(model.replace().0, "none");
    model.take(node(2), span(Instant::now()), Ok(reading(0, 0, FLAG_DIFFERENT)));
    assert!(model.replace().0.starts_with("waiting"), "{:?}", model.replace());
    model.take(node(1), span(Instant::now()), Ok(reading(0, 0, FLAG_DIFFERENT | FLAG_COPYING)));
    assert_eq!(model.replace().0, "copying on 1 of 2 servers");
    let figures = copying([50, 20, 3, 0]);
    let ours = Reading { figures: Some(Box::new(figures)), ..reading(0, 200, FLAG_COPYING) };
    model.take(node(1), span(Instant::now()), Ok(ours));
    assert_eq!(model.replace().0, "copying on 1 of 2 servers: 25 % scanned, 20 sent, 3 received, 0 dropped");
    model.take(node(1), span(Instant::now()), Ok(reading(0, 0, FLAG_DELETING)));
    assert_eq!(model.replace().0, "deleting on 1 of 2 servers");
    model.take_nodes(nodes(&[], &[], Some(FLAG_UNFINISHED)));
    assert_eq!(model.replace().1, Severity::Alarm);
}

#[test]
fn a_store_that_cannot_write_is_the_worst_that_an_answer_can_say() {
    let mut model = Model::named(&[node(1)]);
    let figures = Figures {
        store: StoreFigures { failed: Some("disk full".to_owned()), ..StoreFigures::default() },
        ..Figures::default()
    };
    model.take(node(1), span(Instant::now()), Ok(Reading { figures: Some(Box::new(figures)), ..reading(0, 0, 0) }));
    assert_eq!(model.sorted(Sort::Address, false)[0].word(), ("no writes", Severity::Alarm));
}
