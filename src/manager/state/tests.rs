//! One manager's decisions, event by event; then any events at all.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

pub(super) fn node(number: u8) -> NodeAddress {
    NodeAddress::new(([127, 0, 0, number], 19800).into())
}

pub(super) fn clock() -> Clock {
    Clock::with_time(0, || 1000)
}

/// A manager with these servers attached, replaced and settled.
pub(super) fn settled(numbers: &[u8], clock: &Clock) -> State {
    let mut state = State::default();
    for number in numbers {
        assert!(state.server_bound(node(*number)));
    }
    state.attach(true, clock).unwrap();
    finish(&mut state);
    assert_eq!(state.spaces.whs, state.spaces.rhs);
    state
}

/// Every server reports the end of both phases.
fn finish(state: &mut State) {
    let clocktime = state.replace().unwrap().seed().clocktime;
    for phase in [Phase::Copy, Phase::Delete] {
        for server in state.servers.clone() {
            state.ended(server, phase, clocktime);
        }
    }
    assert!(state.replace().is_none());
}

const TOLD: [Action; 3] = [Action::SyncPartner, Action::SyncServers, Action::PushClients];
const COPY: [Action; 3] = [Action::SyncPartner, Action::StartCopy, Action::PushClients];
const DELETE: [Action; 3] = [Action::SyncPartner, Action::StartDelete, Action::PushClients];

#[test]
fn a_new_server_is_not_attached_until_it_is_told_to_be() {
    let clock = clock();
    let mut state = State::default();
    assert_eq!(state.attach(true, &clock), Err(Impossible::NoServer));
    state.server_bound(node(2));
    state.server_bound(node(1));
    assert_eq!(state.detached(), [node(1), node(2)]);
    assert_eq!(state.attach(true, &clock), Ok(COPY.to_vec()));
    assert_eq!(state.spaces.whs.nodes, [(node(1), true), (node(2), true)]);
    assert!(state.spaces.rhs.nodes.is_empty());
    assert!(state.detached().is_empty());
}

#[test]
fn deleting_starts_when_the_last_has_copied_and_reading_follows_writing() {
    let clock = clock();
    let mut state = settled(&[1, 2], &clock);
    state.server_bound(node(3));
    state.attach(true, &clock).unwrap();
    let clocktime = state.spaces.whs.clocktime;
    assert_eq!(state.flags(), FLAG_COPYING | FLAG_DIFFERENT);
    assert!(state.ended(node(1), Phase::Copy, clocktime).is_empty());
    assert!(state.ended(node(1), Phase::Copy, clocktime).is_empty());
    assert!(state.ended(node(2), Phase::Copy, ClockTime(7)).is_empty(), "another replace");
    assert!(state.ended(node(2), Phase::Delete, clocktime).is_empty(), "another phase");
    assert!(state.ended(node(2), Phase::Copy, clocktime).is_empty());
    assert_ne!(state.spaces.rhs, state.spaces.whs);
    assert_eq!(state.ended(node(3), Phase::Copy, clocktime), DELETE);
    assert_eq!(state.spaces.rhs, state.spaces.whs);
    for number in 1..=3 {
        assert_eq!(state.flags(), FLAG_DELETING);
        assert!(state.ended(node(number), Phase::Delete, clocktime).is_empty());
    }
    assert!(state.replace().is_none());
}

#[test]
fn a_lost_server_is_faulty_everywhere_and_listed_when_it_returns() {
    let clock = clock();
    let mut state = settled(&[1, 2, 3], &clock);
    assert_eq!(state.server_lost(node(2), &clock), TOLD);
    assert_eq!(state.spaces.whs, state.spaces.rhs);
    assert!(!state.spaces.is_attached(node(2)));
    assert!(state.detached().is_empty());
    assert!(state.server_lost(node(2), &clock).is_empty(), "once");
    state.server_bound(node(2));
    assert_eq!(state.detached(), [node(2)]);
    assert_eq!(state.attach(false, &clock), Ok(TOLD.to_vec()));
    assert!(state.spaces.is_attached(node(2)));
    assert_eq!(state.spaces.whs.nodes.len(), 3);
}

#[test]
fn no_delete_follows_a_copy_during_which_a_server_was_lost() {
    let clock = clock();
    let mut state = settled(&[1, 2, 3], &clock);
    state.start_replace(false, &clock).unwrap();
    let clocktime = state.spaces.whs.clocktime;
    state.ended(node(1), Phase::Copy, clocktime);
    state.server_lost(node(2), &clock);
    assert!(state.replace().is_none());
    assert!(state.ended(node(3), Phase::Copy, clocktime).is_empty());
    assert_eq!(state.start_replace(false, &clock), Ok(COPY.to_vec()));
    assert_eq!(*state.replace().unwrap().servers(), [node(1), node(3)].into());
    finish(&mut state);
}

#[test]
fn where_servers_vote_a_copy_that_was_given_up_is_begun_anew_when_all_are_there() {
    let clock = clock();
    let mut state = settled(&[1, 2, 3, 4], &clock);
    state.set_voted(true);
    state.server_bound(node(5));
    state.attach(true, &clock).unwrap();
    let first = state.replace().unwrap().seed().clocktime;
    state.server_lost(node(4), &clock);
    assert!(state.replace().is_none() && state.may_copy_anew());
    state.server_away(node(3));
    assert_eq!((state.may_copy_anew(), state.begin_anew(&clock)), (false, Ok(Vec::new())));
    state.server_bound(node(3));
    assert_eq!(state.begin_anew(&clock), Ok(COPY.to_vec()));
    assert!(first.is_before(state.replace().unwrap().seed().clocktime));
    finish(&mut state);
    assert!(!state.may_copy_anew(), "once");
    // Another manager has changed what is read by: the ends of copying are not those of its configuration.
    state.start_replace(true, &clock).unwrap();
    let mut spaces = state.spaces.clone();
    spaces.rhs.clocktime = clock.stamp_after(spaces.whs.clocktime);
    state.take(spaces, &clock);
    assert!(state.replace().is_none() && state.may_copy_anew());
    state.begin_anew(&clock).unwrap();
    assert!(state.replace().unwrap().is_full());
}

/// Nobody has copied for it, and it may come back with what only it has.
#[test]
fn a_last_owner_that_is_waited_for_is_not_taken_for_one_that_has_copied() {
    let clock = clock();
    let mut state = settled(&[1], &clock);
    state.set_voted(true);
    state.server_bound(node(2));
    state.attach(true, &clock).unwrap();
    let clocktime = state.replace().unwrap().seed().clocktime;
    state.ended(node(2), Phase::Copy, clocktime);
    state.server_lost(node(1), &clock);
    assert!(state.replace().is_none());
    assert_ne!(state.spaces.whs, state.spaces.rhs);
}

#[test]
fn the_loss_of_a_bystander_does_not_void_a_copy_nor_hold_it_up() {
    let clock = clock();
    let mut state = settled(&[1, 2], &clock);
    state.server_bound(node(9));
    state.start_replace(false, &clock).unwrap();
    let clocktime = state.spaces.whs.clocktime;
    state.ended(node(1), Phase::Copy, clocktime);
    state.ended(node(2), Phase::Copy, clocktime);
    assert_eq!(state.server_lost(node(9), &clock), DELETE);
}

#[test]
fn a_server_lost_while_deleting_is_not_waited_for() {
    let clock = clock();
    let mut state = settled(&[1, 2], &clock);
    state.start_replace(true, &clock).unwrap();
    let clocktime = state.spaces.whs.clocktime;
    state.ended(node(1), Phase::Copy, clocktime);
    state.ended(node(2), Phase::Copy, clocktime);
    state.ended(node(1), Phase::Delete, clocktime);
    assert_eq!(state.server_lost(node(2), &clock), TOLD);
    assert!(state.replace().is_none());
}

#[test]
fn a_replace_run_again_does_not_count_the_reports_of_the_one_before() {
    let clock = clock();
    let mut state = settled(&[1, 2], &clock);
    let settled = state.spaces.whs.clocktime;
    state.start_replace(false, &clock).unwrap();
    assert_eq!(state.spaces.whs.clocktime, settled, "nothing has changed, as far as servers can see");
    state.start_replace(true, &clock).unwrap();
    assert!(settled.is_before(state.spaces.whs.clocktime));
    state.ended(node(1), Phase::Copy, settled);
    assert!(state.ended(node(2), Phase::Copy, settled).is_empty());
    finish(&mut state);
}

#[test]
fn a_copy_that_a_server_refuses_is_given_up() {
    let clock = clock();
    let mut state = settled(&[1, 2], &clock);
    state.start_replace(false, &clock).unwrap();
    state.refused(node(1), Phase::Copy, ClockTime(7));
    assert!(state.replace().is_some());
    state.refused(node(1), Phase::Copy, state.spaces.whs.clocktime);
    assert!(state.replace().is_none());
    assert_eq!(state.flags(), FLAG_UNFINISHED);
}

#[test]
fn a_server_that_refuses_to_delete_is_not_waited_for_but_remembered() {
    let clock = clock();
    let mut state = settled(&[1, 2], &clock);
    state.start_replace(false, &clock).unwrap();
    let clocktime = state.spaces.whs.clocktime;
    state.ended(node(1), Phase::Copy, clocktime);
    state.ended(node(2), Phase::Copy, clocktime);
    state.refused(node(1), Phase::Delete, clocktime);
    state.ended(node(2), Phase::Delete, clocktime);
    assert!(state.replace().is_none());
    assert!(state.has_work());
}

#[test]
fn changing_the_attached_servers_voids_a_copy() {
    let clock = clock();
    let mut state = settled(&[1, 2], &clock);
    state.start_replace(false, &clock).unwrap();
    assert_eq!(state.attach(false, &clock), Ok(Vec::new()), "nothing to attach");
    assert!(state.replace().is_some());
    state.server_bound(node(3));
    state.attach(false, &clock).unwrap();
    assert!(state.replace().is_none());
}

#[test]
fn detaching_removes_the_faulty_and_replaces() {
    let clock = clock();
    let mut state = settled(&[1, 2, 3], &clock);
    assert_eq!(state.detach(false, &clock), Ok(Vec::new()));
    state.server_lost(node(3), &clock);
    assert_eq!(state.detach(true, &clock), Ok(COPY.to_vec()));
    assert_eq!(state.spaces.whs.nodes, [(node(1), true), (node(2), true)]);
    assert_eq!(state.spaces.rhs.nodes.len(), 3, "until the copying has ended");
    finish(&mut state);
    assert_eq!(state.spaces.rhs.nodes.len(), 2);
}

#[test]
fn nothing_is_replaced_while_an_active_server_is_absent() {
    let clock = clock();
    let known = settled(&[1, 2], &clock).spaces;
    let mut state = State::default();
    state.server_bound(node(1));
    assert_eq!(state.server_spaces(known.whs, known.rhs, &clock), TOLD);
    assert_eq!(state.start_replace(false, &clock), Err(Impossible::Absent(node(2))));
    state.server_lost(node(2), &clock);
    assert_eq!(state.start_replace(false, &clock), Ok(COPY.to_vec()));
}

#[test]
fn with_every_server_lost_nothing_is_detached() {
    let clock = clock();
    let mut state = settled(&[1, 2], &clock);
    state.server_lost(node(1), &clock);
    state.server_lost(node(2), &clock);
    assert_eq!(state.detach(true, &clock), Err(Impossible::NoServer));
    assert_eq!(state.spaces.whs.nodes.len(), 2);
    assert!(!state.has_work());
}

#[test]
fn a_partner_that_knows_better_voids_a_copy_and_is_passed_on_to_clients() {
    let clock = clock();
    let mut state = settled(&[1, 2], &clock);
    let mut other = state.spaces.clone();
    other.fault(node(1), &Clock::with_time(500, || 1001));
    state.start_replace(false, &clock).unwrap();
    let (merge, actions) = state.partner_spaces(other.whs.clone(), other.rhs.clone(), &clock);
    assert!(merge.taken);
    assert_eq!(actions, [Action::PushClients]);
    assert_eq!(state.spaces, other);
    assert!(state.replace().is_none());
}

#[test]
fn a_partner_that_lags_is_told() {
    let clock = clock();
    let mut state = settled(&[1, 2], &clock);
    let old = state.spaces.clone();
    state.server_lost(node(1), &clock);
    assert_eq!(state.partner_spaces(old.whs, old.rhs, &clock).1, [Action::SyncPartner]);
    assert_eq!(state.partner_spaces(Seed::default(), Seed::default(), &clock).1, [Action::SyncPartner]);
}

#[test]
fn an_automatic_replace_attaches_detaches_and_copies_at_once() {
    let clock = clock();
    let mut state = settled(&[1, 2, 3], &clock);
    assert!(!state.has_work());
    state.server_lost(node(1), &clock);
    state.server_bound(node(4));
    assert!(state.has_work());
    assert_eq!(state.rearrange(&clock), Ok(COPY.to_vec()));
    assert_eq!(state.spaces.whs.nodes, [(node(2), true), (node(3), true), (node(4), true)]);
    assert!(!state.has_work(), "it is under way");
    finish(&mut state);
    assert!(!state.has_work());
}

#[test]
fn a_replace_given_up_is_work_also_when_it_was_the_partners() {
    let clock = clock();
    let mut state = settled(&[1, 2], &clock);
    state.start_replace(false, &clock).unwrap();
    state.refused(node(1), Phase::Copy, state.spaces.whs.clocktime);
    assert!(state.has_work());
    let mut state = settled(&[1, 2], &clock);
    let mut other = state.spaces.clone();
    other.attach([node(3)], &clock);
    state.partner_spaces(other.whs, other.rhs, &clock);
    assert!(!state.has_work());
    state.partner_lost();
    assert!(state.has_work());
}

#[derive(Debug, Clone)]
enum Event {
    Bound(u8),
    Lost(u8),
    Attach(bool),
    Detach(bool),
    Replace(bool),
    Ended(u8, Phase),
    Refused(u8, Phase),
    Rearrange,
}

fn event() -> impl Strategy<Value = Event> {
    let phase = || prop_oneof![Just(Phase::Copy), Just(Phase::Delete)];
    prop_oneof![
        3 => (1u8..6).prop_map(Event::Bound),
        2 => (1u8..6).prop_map(Event::Lost),
        1 => any::<bool>().prop_map(Event::Attach),
        1 => any::<bool>().prop_map(Event::Detach),
        1 => any::<bool>().prop_map(Event::Replace),
        12 => ((1u8..6), phase()).prop_map(|(server, phase)| Event::Ended(server, phase)),
        1 => ((1u8..6), phase()).prop_map(|(server, phase)| Event::Refused(server, phase)),
        1 => Just(Event::Rearrange),
    ]
}

proptest! {
    /// Whatever happens, records are deleted only when every server of the newest hash space has copied.
    #[test]
    fn deleting_is_always_earned(events in prop::collection::vec(event(), 1..120)) {
        let clock = clock();
        let mut state = State::default();
        // Who has copied for the present clocktime, by a count of our own.
        let mut copied: HashSet<(NodeAddress, ClockTime)> = HashSet::new();
        for event in events {
            let before = state.spaces.clone();
            let current = state.replace().map(|replace| replace.seed().clocktime);
            let actions = match event {
                Event::Bound(number) => {
                    state.server_bound(node(number));
                    Vec::new()
                }
                Event::Lost(number) => state.server_lost(node(number), &clock),
                Event::Attach(replace) => state.attach(replace, &clock).unwrap_or_default(),
                Event::Detach(replace) => state.detach(replace, &clock).unwrap_or_default(),
                Event::Replace(full) => state.start_replace(full, &clock).unwrap_or_default(),
                Event::Rearrange => state.rearrange(&clock).unwrap_or_default(),
                Event::Refused(number, phase) => state.refused(node(number), phase, current.unwrap_or_default()),
                Event::Ended(number, phase) => {
                    let clocktime = current.unwrap_or_default();
                    if phase == Phase::Copy && state.servers.contains(&node(number)) {
                        copied.insert((node(number), clocktime));
                    }
                    state.ended(node(number), phase, clocktime)
                }
            };
            if actions.contains(&Action::StartDelete) {
                let seed = state.replace().unwrap().seed().clone();
                prop_assert_eq!(&seed, &state.spaces.whs);
                prop_assert_eq!(&seed, &state.spaces.rhs);
                for (server, active) in &seed.nodes {
                    prop_assert!(!active || copied.contains(&(*server, seed.clocktime)), "{} has not copied", server);
                }
            }
            let changed = state.spaces != before;
            let told = [Action::SyncPartner, Action::PushClients].iter().all(|action| actions.contains(action));
            prop_assert!(!changed || told, "a change that nobody hears of");
            for (server, active) in &state.spaces.whs.nodes {
                prop_assert!(!active || state.servers.contains(server), "{} is active and gone", server);
            }
            if let Some(replace) = state.replace() {
                prop_assert!(replace.phase() == Phase::Delete || *replace.seed() == state.spaces.whs);
                prop_assert!(replace.servers().is_subset(&state.servers));
            }
        }
    }
}

fn seed(states: &[(u8, bool)], clock: u32) -> Seed {
    let nodes = states.iter().map(|(number, active)| (node(*number), *active)).collect();
    Seed { nodes, clocktime: ClockTime::new(1000, clock) }
}

/// The servers ended one after the other: the last one knows that the others were gone when it still took writes.
#[test]
fn the_newest_hash_space_is_recalled_when_all_who_were_active_in_it_are_back() {
    let clock = clock();
    let mut state = State::default();
    let (all, last) = (seed(&[(1, true), (2, true), (3, true)], 7), seed(&[(1, false), (2, true), (3, true)], 9));
    for number in [1, 2, 3] {
        assert_eq!(state.recall(&clock), [], "before {number}");
        state.server_bound(node(number));
        let seed = if number == 1 { &all } else { &last };
        state.server_remembers(node(number), seed.clone(), seed.clone());
    }
    assert_eq!(state.recall(&clock), TOLD);
    assert_eq!((&state.spaces.whs, &state.spaces.rhs), (&last, &last));
    assert_eq!(state.detached(), [node(1)]);
    assert_eq!(state.recall(&clock), [], "once");
}

#[test]
fn nothing_is_recalled_without_a_server_that_was_active_or_after_a_new_beginning() {
    let clock = clock();
    let mut state = State::default();
    let last = seed(&[(1, true), (2, true)], 7);
    for number in [1, 2] {
        state.server_bound(node(number));
    }
    // It is here, but its disk is another one.
    state.server_remembers(node(1), last.clone(), last.clone());
    assert_eq!(state.missing(), Some(node(2)));
    assert_eq!(state.recall(&clock), []);
    state.server_remembers(node(2), last.clone(), last.clone());
    state.server_lost(node(1), &clock);
    assert_eq!(state.recall(&clock), [], "it has gone again");
    state.attach(false, &clock).unwrap();
    state.server_bound(node(1));
    state.server_remembers(node(1), last.clone(), last);
    assert_eq!(state.recall(&clock), [], "the operator has begun anew");
}

/// The manager has seen all of it, and acts by itself: the first server back must not become the only owner.
#[test]
fn after_the_loss_of_all_the_one_that_was_last_must_be_back() {
    let clock = clock();
    let mut state = settled(&[1, 2, 3], &clock);
    for number in [1, 2, 3] {
        state.server_lost(node(number), &clock);
    }
    state.server_bound(node(1));
    assert!(!state.has_work());
    assert_eq!(state.recall(&clock), []);
    assert_eq!(state.rearrange(&clock), Err(Impossible::Missing(node(3))));
    let before = state.spaces.rhs.clocktime;
    state.server_bound(node(3));
    assert_eq!(state.recall(&clock), TOLD);
    assert_eq!(state.spaces.whs, state.spaces.rhs);
    assert!(before.is_before(state.spaces.rhs.clocktime));
    assert_eq!(state.spaces.active().into_iter().collect::<Vec<_>>(), [node(3)]);
    assert!(state.has_work());
    assert_eq!(state.rearrange(&clock), Ok(COPY.to_vec()));
    assert_eq!(state.spaces.whs.nodes.len(), 2, "of three servers each has every key: the second may go");
}

#[test]
fn the_operator_may_give_up_the_one_that_was_last() {
    let clock = clock();
    let mut state = settled(&[1, 2], &clock);
    state.server_lost(node(1), &clock);
    state.server_lost(node(2), &clock);
    state.server_bound(node(1));
    let told = state.attach(false, &clock).unwrap();
    assert_eq!(told[..3], TOLD);
    assert_eq!(state.spaces.whs.nodes, [(node(1), true), (node(2), false)]);
    assert_eq!(state.missing(), None);
}

#[test]
fn servers_whose_records_may_be_nowhere_else_are_not_detached_by_themselves() {
    let clock = clock();
    let mut state = settled(&[1, 2, 3, 4], &clock);
    for number in [2, 3, 4] {
        state.server_lost(node(number), &clock);
    }
    assert!(!state.has_work());
    state.server_bound(node(5));
    state.rearrange(&clock).unwrap();
    assert_eq!(state.spaces.whs.nodes.len(), 5);
    finish(&mut state);
    for number in [2, 3] {
        state.server_bound(node(number));
    }
    state.rearrange(&clock).unwrap();
    finish(&mut state);
    assert!(state.has_work(), "now the last one may go");
    state.rearrange(&clock).unwrap();
    assert_eq!(state.spaces.whs.nodes.len(), 4);
}
