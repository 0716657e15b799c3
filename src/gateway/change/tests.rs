//! Decisions, and what they ask of a server: what is written straight away, what is compared, what is left alone.

use super::*;
use crate::gateway::fake::RULES;
use crate::gateway::layout::Layout;

const NOW: u32 = 1_700_000_000;
const WITHOUT_EXPIRY: Rules = Rules { layout: Layout { expiry: false, ..RULES.layout }, ..RULES };

fn put(mode: Mode, compare: Option<u64>) -> Change<'static> {
    let compare = compare.map(ClockTime);
    Change::Put { mode, flags: 0, exptime: 0, data: Cow::Borrowed(b"x"), compare }
}

/// One whose flags cannot be kept.
fn refused(mode: Mode, compare: Option<u64>) -> Change<'static> {
    let compare = compare.map(ClockTime);
    Change::Put { mode, flags: 65_536, exptime: 0, data: Cow::Borrowed(b"x"), compare }
}

/// The condition of a decision, in words.
fn compared(decision: &Decision<'_>) -> String {
    match decision {
        Decision::Store { expected: Some(clocktime), .. } => format!("store if {}", clocktime.0),
        Decision::Store { expected: None, .. } => "store".to_owned(),
        Decision::Delete { refused: None } => "delete".to_owned(),
        Decision::Delete { refused: Some(_) } => "discard".to_owned(),
        Decision::Answer(_) => "answer".to_owned(),
    }
}

#[test]
fn what_needs_no_read_goes_straight() {
    let direct = |change: &Change<'_>, rules: &Rules| {
        change.direct(NOW, rules).map_or("read".to_owned(), |decision| compared(&decision))
    };
    for (change, with_expiry, without) in [
        (put(Mode::Set, None), "store", "store"),
        (put(Mode::Add, None), "store if 0", "store if 0"),
        // Whether what it compares with has expired, only a read tells.
        (put(Mode::Set, Some(5)), "read", "store if 5"),
        // Zero is a server's word for no record, but no item's CAS unique.
        (put(Mode::Set, Some(0)), "read", "read"),
        (put(Mode::Replace, None), "read", "read"),
        (put(Mode::Append, Some(5)), "read", "read"),
        (Change::Delete { compare: None }, "read", "delete"),
        (Change::Delete { compare: Some(ClockTime(5)) }, "read", "read"),
        (Change::Touch { exptime: 0, read: true }, "read", "read"),
        (Change::Discard { refused: Failure::TooLarge }, "discard", "discard"),
        (refused(Mode::Set, None), "discard", "discard"),
        (refused(Mode::Add, None), "answer", "answer"),
        (refused(Mode::Set, Some(5)), "read", "answer"),
    ] {
        assert_eq!(direct(&change, &RULES), with_expiry, "{change:?}");
        assert_eq!(direct(&change, &WITHOUT_EXPIRY), without, "{change:?}");
    }
}

#[test]
fn what_has_expired_is_absent_but_compared_with() {
    let expired = encode(0, NOW, [b"old", b""], &RULES).unwrap();
    let current = Some((ClockTime(5), 0, &expired[..]));
    for change in [put(Mode::Add, None), put(Mode::Set, None)] {
        assert_eq!(compared(&change.decide(current, NOW, &RULES)), "store if 5");
        assert_eq!(compared(&change.decide(None, NOW, &RULES)), "store if 0");
    }
    let gone = Decision::Answer(Outcome::NotFound);
    assert_eq!(put(Mode::Set, Some(5)).decide(current, NOW, &RULES), gone);
    assert_eq!(Change::Delete { compare: None }.decide(current, NOW, &RULES), gone);
    assert_eq!(put(Mode::Replace, None).decide(current, NOW, &RULES), Decision::Answer(Outcome::NotStored));
}

#[test]
fn a_compared_delete_is_one_step_where_that_can_be_had() {
    let change = Change::Delete { compare: Some(ClockTime(5)) };
    let item = encode(0, 0, [b"x", b""], &RULES).unwrap();
    let decision = change.decide(Some((ClockTime(5), 0, &item)), NOW, &RULES);
    assert_eq!(compared(&decision), "store if 5");
    let Decision::Store { data, reward, .. } = decision else { panic!("stores") };
    assert!(Item::decode(ClockTime(6), 0, &data, &RULES).is_expired(NOW));
    assert_eq!(reward.outcome(ClockTime(6), &data, &RULES), Outcome::Deleted);
    assert_eq!(
        change.decide(Some((ClockTime(5), 0, b"..x")), NOW, &WITHOUT_EXPIRY),
        Decision::Delete { refused: None }
    );
    assert_eq!(change.decide(Some((ClockTime(6), 0, &item)), NOW, &RULES), Decision::Answer(Outcome::Exists));
}

#[test]
fn an_empty_item_is_awaited_until_it_is_written() {
    let vivify = |exptime| Change::Vivify { create: 30, exptime };
    let Decision::Store { expected, data, reward } = vivify(None).decide(None, NOW, &RULES) else { panic!("stores") };
    let (layout, awaited) = (RULES.layout, RULES.layout.awaited());
    assert_eq!((expected, reward.meta(layout)), (Some(ClockTime(0)), awaited));
    let Outcome::Created(item) = reward.outcome(ClockTime(5), &data, &RULES) else { panic!("creates") };
    assert_eq!((item.data, item.expires), (&b""[..], NOW + 30));
    let current = Some((ClockTime(5), awaited, &data[..]));
    // Whoever comes next finds it, and learns that it is awaited.
    let Decision::Answer(Outcome::Found(item)) = vivify(None).decide(current, NOW, &RULES) else { panic!("finds") };
    assert!(item.awaited);
    // A new expiry changes nothing about that.
    for change in
        [vivify(Some(50)), Change::Touch { exptime: 50, read: true }, Change::Touch { exptime: 50, read: false }]
    {
        let Decision::Store { reward, .. } = change.decide(current, NOW, &RULES) else { panic!("stores") };
        assert_eq!(reward.meta(layout), awaited, "{change:?}");
    }
    // Any value does.
    for change in [put(Mode::Set, None), put(Mode::Set, Some(5)), put(Mode::Replace, None), put(Mode::Append, None)] {
        let Decision::Store { reward, .. } = change.decide(current, NOW, &RULES) else { panic!("stores") };
        assert_eq!(reward.meta(layout), layout.meta(), "{change:?}");
    }
    assert_eq!(put(Mode::Add, None).decide(current, NOW, &RULES), Decision::Answer(Outcome::NotStored));
    // Nobody having come back, it is to be had again.
    let Decision::Store { expected, reward, .. } = vivify(None).decide(current, NOW + 30, &RULES) else {
        panic!("stores")
    };
    assert_eq!((expected, reward), (Some(ClockTime(5)), Reward::Created));
}

#[test]
fn counting_keeps_flags_and_expiry() {
    let item = encode(7, NOW + 9, [b"41", b""], &RULES).unwrap();
    let count = |exptime| {
        let change = Change::Count { up: true, delta: 1, create: None, exptime, compare: None };
        let decision = change.decide(Some((ClockTime(5), 0, &item)), NOW, &RULES);
        let Decision::Store { expected: Some(ClockTime(5)), data, reward } = decision else { panic!("stores") };
        let Outcome::Number(42, item) = reward.outcome(ClockTime(6), &data, &RULES) else { panic!("counts") };
        (item.flags, item.expires, item.data.to_vec())
    };
    assert_eq!(count(None), (7, NOW + 9, b"42".to_vec()));
    assert_eq!(count(Some(100)), (7, NOW + 100, b"42".to_vec()));
}

#[test]
fn owned_changes_are_the_same() {
    for change in [
        put(Mode::Append, Some(3)),
        Change::Delete { compare: Some(ClockTime(1)) },
        Change::Count { up: false, delta: 2, create: Some((3, 4)), exptime: Some(5), compare: None },
        Change::Discard { refused: Failure::TooLarge },
        Change::Touch { exptime: 9, read: true },
        Change::Vivify { create: 1, exptime: Some(2) },
    ] {
        assert_eq!(change.clone().into_owned(), change);
    }
}
