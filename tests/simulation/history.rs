//! Whether what clients saw of one key can have happened: linearizability, decided by search.
//!
//! A value is a row of numbers: one for a value that was set, one more for each append; or the one number that is counted
//! up. Every set and append has a number of its own, so that a value tells which writes it is of. A write whose outcome is
//! not known may have happened at any time since it began, or never.

use std::collections::HashSet;
use std::time::Duration;

/// The value of a key; none if it is absent.
pub(crate) type Value = Option<Vec<u64>>;

/// What was asked, and what came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A read that returned this.
    Get(Value),
    /// A write in any case.
    Set(u64),
    /// A write if the value was the first; whether it matched. With none it is an add.
    Swap(Value, u64, bool),
    /// A deletion; whether something was there, if that is known.
    Delete(Option<bool>),
    /// An append; whether there was something to append to.
    Append(u64, bool),
    /// Counted up by so much; what it became, `None` if there was nothing to count.
    Count(u64, Option<u64>),
}

/// One operation of a client on the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    /// Who asked.
    pub(crate) client: usize,
    pub(crate) kind: Kind,
    /// When it was sent.
    pub(crate) begun: Duration,
    /// When it was answered; `None`: with an error, or never, so that a write may still happen.
    pub(crate) ended: Option<Duration>,
}

/// The answer of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is an order that explains everything.
    Linearizable,
    /// There is none.
    Violated,
    /// The search was given up.
    Undecided,
}

/// States that are looked at before the search is given up.
const SEARCH_LIMIT: usize = 1_000_000;

impl Kind {
    /// Whether it does the same on every value.
    fn overwrites(&self, known: bool) -> bool {
        match self {
            Self::Set(_) | Self::Delete(None) => true,
            Self::Delete(_) => !known,
            _ => false,
        }
    }

    /// The value after this on `before`, if it can happen then. A write of unknown outcome that would do nothing there
    /// does not happen there, which the search covers by leaving it out.
    fn apply(&self, before: &Value, known: bool) -> Option<Value> {
        match self {
            Self::Get(seen) => (seen == before).then(|| before.clone()),
            Self::Set(value) => Some(Some(vec![*value])),
            Self::Swap(expected, value, done) => match (known, expected == before) {
                (true, matches) if matches != *done => None,
                (true, false) => Some(before.clone()),
                (false, false) => None,
                (_, true) => Some(Some(vec![*value])),
            },
            Self::Delete(Some(there)) if known && *there != before.is_some() => None,
            Self::Delete(_) => Some(None),
            Self::Append(value, done) => match before {
                _ if known && *done != before.is_some() => None,
                None => known.then_some(None),
                Some(numbers) => Some(Some([&numbers[..], &[*value]].concat())),
            },
            Self::Count(delta, result) => {
                let after =
                    before.as_ref().map(|numbers| numbers.last().map_or(0, |number| number.wrapping_add(*delta)));
                match (known, after) {
                    (true, after) if after != *result => None,
                    (true, None) => Some(None),
                    (false, None) => None,
                    (_, Some(number)) => Some(Some(vec![number])),
                }
            }
        }
    }
}

/// Decides whether the operations on one key, which was absent before, can have happened one after the other, each
/// between its beginning and its end.
pub(crate) fn check(history: &[Operation]) -> Verdict {
    // A read without an answer says nothing.
    let mut operations: Vec<_> = history
        .iter()
        .filter(|operation| operation.ended.is_some() || !matches!(operation.kind, Kind::Get(_)))
        .collect();
    // What is tried first is what comes last here: of those that were answered the one that ended first.
    operations.sort_by_key(|operation| std::cmp::Reverse(operation.ended.unwrap_or(Duration::MAX)));
    match (Search { operations, seen: HashSet::new() }).go() {
        Some(true) => Verdict::Linearizable,
        Some(false) => Verdict::Violated,
        None => Verdict::Undecided,
    }
}

/// A place in the search.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    /// The operations that have been done.
    done: Vec<u64>,
    value: Value,
    /// The last of them is one of unknown outcome, which nobody has seen.
    unseen: bool,
}

struct Search<'a> {
    operations: Vec<&'a Operation>,
    seen: HashSet<Place>,
}

impl Search<'_> {
    /// Whether there is an order; `None`: given up.
    fn go(&mut self) -> Option<bool> {
        let mut open = vec![Place { done: vec![0; self.operations.len().div_ceil(64)], value: None, unseen: false }];
        while let Some(place) = open.pop() {
            if !self.seen.insert(place.clone()) {
                continue;
            }
            if self.seen.len() > SEARCH_LIMIT {
                return None;
            }
            let left = || (0..self.operations.len()).filter(|index| place.done[index / 64] & (1 << (index % 64)) == 0);
            // Only what began before the first of them had ended can be next.
            let Some(first_end) = left().filter_map(|index| self.operations[index].ended).min() else {
                return Some(true);
            };
            for index in left() {
                let operation = self.operations[index];
                let known = operation.ended.is_some();
                // What nobody sees before it is overwritten need not have happened.
                if operation.begun > first_end || (place.unseen && operation.kind.overwrites(known)) {
                    continue;
                }
                if let Some(value) = operation.kind.apply(&place.value, known) {
                    let mut done = place.done.clone();
                    done[index / 64] |= 1 << (index % 64);
                    open.push(Place { done, value, unseen: !known });
                }
            }
        }
        Some(false)
    }
}

/// The part of a violated history that shows the violation: reads that it does not need are left out, and writes are taken
/// for unknown where their outcome does not matter, or left out if nobody could have seen them.
pub(crate) fn smallest(history: &[Operation]) -> Vec<Operation> {
    let mut left = beginning(history);
    left.sort_by_key(|operation| operation.begun);
    let mut index = 0;
    while index < left.len() {
        let mut without = left.clone();
        let is_read = matches!(without.remove(index).kind, Kind::Get(_));
        if is_read && check(&without) == Verdict::Violated {
            left = without;
        } else {
            index += 1;
        }
    }
    index = 0;
    while index < left.len() {
        let mut without = left.clone();
        let operation = without.remove(index);
        if is_unseen(&operation, &without) && check(&without) == Verdict::Violated {
            left = without;
            continue;
        }
        if !matches!(operation.kind, Kind::Get(_)) && operation.ended.is_some() {
            // To know less allows more: what is violated still was before.
            without.insert(index, Operation { ended: None, ..operation });
            if check(&without) == Verdict::Violated {
                left = without;
            }
        }
        index += 1;
    }
    left
}

/// The history until the first answer that nothing explains.
fn beginning(history: &[Operation]) -> Vec<Operation> {
    let mut ends: Vec<_> = history.iter().filter_map(|operation| operation.ended).collect();
    ends.sort_unstable();
    let until = |end: Duration| -> Vec<_> {
        let begun = history.iter().filter(|operation| operation.begun <= end);
        begun
            .map(|operation| Operation { ended: operation.ended.filter(|ended| *ended <= end), ..operation.clone() })
            .collect()
    };
    // What is violated stays so, whatever comes later.
    let first = ends.partition_point(|end| check(&until(*end)) != Verdict::Violated);
    ends.get(first).map_or_else(|| history.to_vec(), |end| until(*end))
}

/// Whether no other operation speaks of what this one wrote: without it the history has one write less that could explain
/// something, but none that does.
fn is_unseen(operation: &Operation, others: &[Operation]) -> bool {
    let (Kind::Set(wrote) | Kind::Swap(_, wrote, _) | Kind::Append(wrote, _)) = operation.kind else { return false };
    let speaks = |value: &Value| value.as_ref().is_some_and(|numbers| numbers.contains(&wrote));
    let counts = others.iter().any(|other| matches!(other.kind, Kind::Count(..) | Kind::Append(..)));
    !counts
        && !others.iter().any(|other| match &other.kind {
            Kind::Get(value) => speaks(value),
            // That it failed, or found something, may be due to any write.
            Kind::Swap(value, _, done) => speaks(value) || !done,
            Kind::Delete(found) => *found == Some(true),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Append, Count, Delete, Get, Set, Swap};

    /// Operations given as (kind, begun, ended), in seconds.
    type Told = (Kind, u64, Option<u64>);

    fn history(operations: &[Told]) -> Vec<Operation> {
        let operation = |(client, (kind, begun, ended)): (usize, &Told)| Operation {
            client,
            kind: kind.clone(),
            begun: Duration::from_secs(*begun),
            ended: ended.map(Duration::from_secs),
        };
        operations.iter().enumerate().map(operation).collect()
    }

    fn verdict(operations: &[Told]) -> Verdict {
        check(&history(operations))
    }

    fn is(number: u64) -> Value {
        Value::from(vec![number])
    }

    #[test]
    fn good_histories_are_good() {
        let good: &[&[Told]] = &[
            &[],
            &[(Get(None), 0, Some(1)), (Set(1), 2, Some(3)), (Get(is(1)), 4, Some(5))],
            // Beside each other, in either order.
            &[(Set(1), 0, Some(9)), (Get(None), 1, Some(2)), (Get(is(1)), 3, Some(4))],
            &[(Set(1), 0, Some(9)), (Set(2), 0, Some(9)), (Get(is(1)), 10, Some(11))],
            // A write without an answer happens late, or never.
            &[(Set(1), 0, None), (Get(None), 5, Some(6)), (Get(is(1)), 50, Some(60))],
            &[(Set(1), 0, None), (Set(2), 1, Some(2)), (Get(is(2)), 50, Some(60))],
            &[(Set(1), 0, Some(1)), (Swap(is(1), 2, true), 2, Some(3)), (Swap(is(1), 3, false), 4, Some(5))],
            &[(Swap(None, 1, true), 0, Some(1)), (Delete(Some(true)), 2, Some(3)), (Get(None), 4, Some(5))],
            &[(Set(1), 0, Some(1)), (Swap(is(1), 2, true), 2, None), (Get(is(2)), 4, Some(5))],
            &[(Delete(Some(false)), 0, Some(1)), (Delete(None), 2, Some(3))],
            // Appends, answered or not, in the order of what is read.
            &[(Append(1, false), 0, Some(1)), (Set(2), 2, Some(3)), (Append(3, true), 4, Some(5))],
            &[
                (Set(1), 0, Some(1)),
                (Append(2, true), 2, Some(9)),
                (Append(3, true), 2, None),
                (Get(Some(vec![1, 3, 2])), 10, Some(11)),
            ],
            // Counts; one without an answer shows in the next.
            &[
                (Count(1, None), 0, Some(1)),
                (Set(5), 2, Some(3)),
                (Count(2, Some(7)), 4, Some(5)),
                (Get(is(7)), 6, Some(7)),
            ],
            &[(Set(5), 0, Some(1)), (Count(2, None), 2, None), (Count(1, Some(8)), 4, Some(5))],
            &[
                (Set(5), 0, Some(1)),
                (Count(2, None), 2, None),
                (Count(1, Some(6)), 4, Some(5)),
                (Get(is(8)), 6, Some(7)),
            ],
        ];
        for history in good {
            assert_eq!(verdict(history), Verdict::Linearizable, "{history:?}");
        }
    }

    #[test]
    fn bad_histories_are_bad() {
        let bad: &[&[Told]] = &[
            // A read of the past.
            &[(Set(1), 0, Some(1)), (Get(None), 2, Some(3))],
            &[(Set(1), 0, Some(1)), (Set(2), 2, Some(3)), (Get(is(1)), 4, Some(5))],
            // Seen, and gone again.
            &[(Set(1), 0, None), (Get(is(1)), 1, Some(2)), (Get(None), 3, Some(4))],
            // Never written, or before it was.
            &[(Get(is(7)), 0, Some(1))],
            &[(Get(is(1)), 0, Some(1)), (Set(1), 2, Some(3))],
            // Two swaps of one value, two adds, a deletion of nothing.
            &[(Set(1), 0, Some(1)), (Swap(is(1), 2, true), 2, Some(5)), (Swap(is(1), 3, true), 2, Some(5))],
            &[(Swap(None, 1, true), 0, Some(1)), (Swap(None, 2, true), 2, Some(3))],
            &[(Delete(Some(true)), 0, Some(1))],
            // An append that is lost, one that happened twice, one to nothing.
            &[(Set(1), 0, Some(1)), (Append(2, true), 2, Some(3)), (Get(is(1)), 4, Some(5))],
            &[(Set(1), 0, Some(1)), (Append(2, true), 2, Some(3)), (Get(Some(vec![1, 2, 2])), 4, Some(5))],
            &[(Append(2, true), 2, Some(3))],
            // A count that is lost, one that happened twice.
            &[(Set(5), 0, Some(1)), (Count(1, Some(6)), 2, Some(3)), (Count(1, Some(6)), 4, Some(5))],
            &[(Set(5), 0, Some(1)), (Count(1, None), 2, None), (Get(is(7)), 4, Some(5))],
        ];
        for history in bad {
            assert_eq!(verdict(history), Verdict::Violated, "{history:?}");
        }
    }

    /// What clients of an application see when the faults happen that `docs/consistency.md` knows.
    #[test]
    fn the_known_faults_are_violations() {
        let known: &[(&str, &[Told])] = &[
            ("an acknowledged write is gone", &[(Set(1), 0, Some(1)), (Set(2), 2, Some(3)), (Get(None), 20, Some(21))]),
            (
                "an unacknowledged write of a server that was cut off beats a later acknowledged one",
                &[(Set(1), 0, None), (Get(is(1)), 1, Some(2)), (Set(2), 5, Some(6)), (Get(is(1)), 20, Some(21))],
            ),
            (
                "a repeated set undoes an acknowledged swap",
                &[
                    (Set(1), 0, Some(9)),
                    (Get(is(1)), 1, Some(2)),
                    (Swap(is(1), 2, true), 3, Some(4)),
                    (Get(is(1)), 10, Some(11)),
                ],
            ),
            (
                "both sides of a split count from the same number",
                &[(Set(5), 0, Some(1)), (Count(1, Some(6)), 2, Some(3)), (Count(1, Some(6)), 2, Some(4))],
            ),
            (
                "a deleted key is read from a server that has returned, and appended to",
                &[
                    (Set(1), 0, Some(1)),
                    (Delete(None), 2, Some(3)),
                    (Append(2, true), 4, Some(5)),
                    (Get(Some(vec![1, 2])), 6, Some(7)),
                ],
            ),
            (
                "two owners answer in turn",
                &[(Set(1), 0, Some(1)), (Set(2), 2, None), (Get(is(2)), 4, Some(5)), (Get(is(1)), 6, Some(7))],
            ),
            (
                "a server that was given up answers what it holds",
                &[(Set(1), 0, Some(1)), (Set(2), 2, Some(3)), (Get(is(1)), 4, Some(5)), (Get(is(2)), 6, Some(7))],
            ),
            (
                "an add over a record that an emptied disk has lost",
                &[(Set(1), 0, Some(1)), (Swap(None, 2, true), 4, Some(5))],
            ),
        ];
        for (what, history) in known {
            assert_eq!(verdict(history), Verdict::Violated, "{what}");
        }
    }

    #[test]
    fn a_search_that_takes_too_long_is_not_called_good() {
        // Ten writes that nobody answered, and a read that none of them explains.
        let mut history: Vec<_> = (1..=10).map(|value| (Set(value), 0, None)).collect();
        history.push((Get(is(99)), 100, Some(101)));
        assert_ne!(verdict(&history), Verdict::Linearizable);
    }

    #[test]
    fn writes_without_an_answer_do_not_keep_the_search_from_its_end() {
        let mut told: Vec<Told> = Vec::new();
        for round in 0..60 {
            told.push((Set(round + 1), round * 10, if round % 3 == 0 { None } else { Some(round * 10 + 5) }));
            let seen = if round % 3 == 0 { round } else { round + 1 };
            told.push((
                Get(Some(seen).filter(|seen| *seen > 0).map(|seen| vec![seen])),
                round * 10 + 6,
                Some(round * 10 + 7),
            ));
        }
        assert_eq!(verdict(&told), Verdict::Linearizable);
    }

    #[test]
    fn the_smallest_history_has_what_shows_the_violation() {
        let told = history(&[
            (Set(1), 0, Some(1)),
            (Get(is(1)), 2, Some(3)),
            (Set(2), 4, Some(5)),
            (Get(is(2)), 6, Some(7)),
            (Set(3), 8, Some(9)),
            (Get(is(2)), 10, Some(11)),
        ]);
        let small = smallest(&told);
        assert_eq!(check(&small), Verdict::Violated);
        let kinds: Vec<_> = small.iter().map(|operation| operation.kind.clone()).collect();
        assert_eq!(kinds, [Set(2), Set(3), Get(is(2))], "a read of the past, and what it is the past of");
    }
}
