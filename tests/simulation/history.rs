//! Whether what clients saw of one key can have happened: linearizability, decided by search.
//!
//! Every write has a value of its own, so that a value tells which write it is of. A swap names the value that it
//! expects. A write whose outcome is not known may have happened at any time since it began, or never.

use std::collections::HashSet;
use std::time::Duration;

/// The value of a key; none if it is absent.
pub(crate) type Value = Option<u64>;

/// What was asked, and what came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A read that returned this.
    Get(Value),
    /// A write in any case.
    Set(u64),
    /// A write if the value was the first; whether it matched.
    Swap(Value, u64, bool),
    /// A deletion; whether something was there, if that is known.
    Delete(Option<bool>),
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
const SEARCH_LIMIT: usize = 2_000_000;

impl Kind {
    /// The value after this on `before`, if it can happen then. A swap of unknown outcome that does not match does
    /// nothing, which the search covers by leaving it out.
    fn apply(&self, before: Value, known: bool) -> Option<Value> {
        match *self {
            Self::Get(seen) => (seen == before).then_some(before),
            Self::Set(value) => Some(Some(value)),
            Self::Swap(expected, value, done) => match (known, expected == before) {
                (true, matches) if matches != done => None,
                (true, false) => Some(before),
                (false, false) => None,
                (_, true) => Some(Some(value)),
            },
            Self::Delete(Some(there)) if known && there != before.is_some() => None,
            Self::Delete(_) => Some(None),
        }
    }
}

/// Decides whether the operations on one key, which was absent before, can have happened one after the other, each
/// between its beginning and its end.
pub(crate) fn check(history: &[Operation]) -> Verdict {
    // A read without an answer says nothing.
    let operations: Vec<_> = history
        .iter()
        .filter(|operation| operation.ended.is_some() || !matches!(operation.kind, Kind::Get(_)))
        .collect();
    let mut search = Search { operations, seen: HashSet::new(), steps: 0 };
    let done = vec![0_u64; search.operations.len().div_ceil(64)];
    match search.go(done, None) {
        Some(true) => Verdict::Linearizable,
        Some(false) => Verdict::Violated,
        None => Verdict::Undecided,
    }
}

struct Search<'a> {
    operations: Vec<&'a Operation>,
    seen: HashSet<(Vec<u64>, Value)>,
    steps: usize,
}

impl Search<'_> {
    /// Whether the operations that are not done yet can follow; `None`: given up.
    fn go(&mut self, done: Vec<u64>, value: Value) -> Option<bool> {
        let mut open = vec![(done, value)];
        while let Some((done, value)) = open.pop() {
            if !self.seen.insert((done.clone(), value)) {
                continue;
            }
            self.steps += 1;
            if self.steps > SEARCH_LIMIT {
                return None;
            }
            let left = || (0..self.operations.len()).filter(|index| done[index / 64] & (1 << (index % 64)) == 0);
            // Only what began before the first of them had ended can be next.
            let Some(first_end) = left().filter_map(|index| self.operations[index].ended).min() else {
                return Some(true);
            };
            for index in left() {
                let operation = self.operations[index];
                if operation.begun > first_end {
                    continue;
                }
                if let Some(after) = operation.kind.apply(value, operation.ended.is_some()) {
                    let mut done = done.clone();
                    done[index / 64] |= 1 << (index % 64);
                    open.push((done, after));
                }
            }
        }
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations given as (kind, begun, ended), in seconds.
    fn verdict(operations: &[(Kind, u64, Option<u64>)]) -> Verdict {
        let operation = |(client, (kind, begun, ended)): (usize, &(Kind, u64, Option<u64>))| Operation {
            client,
            kind: kind.clone(),
            begun: Duration::from_secs(*begun),
            ended: ended.map(Duration::from_secs),
        };
        check(&operations.iter().enumerate().map(operation).collect::<Vec<_>>())
    }

    #[test]
    fn good_histories_are_good() {
        use Kind::{Delete, Get, Set, Swap};
        let good: &[&[(Kind, u64, Option<u64>)]] = &[
            &[],
            &[(Get(None), 0, Some(1)), (Set(1), 2, Some(3)), (Get(Some(1)), 4, Some(5))],
            // Beside each other, in either order.
            &[(Set(1), 0, Some(9)), (Get(None), 1, Some(2)), (Get(Some(1)), 3, Some(4))],
            &[(Set(1), 0, Some(9)), (Set(2), 0, Some(9)), (Get(Some(1)), 10, Some(11))],
            // A write without an answer happens late, or never.
            &[(Set(1), 0, None), (Get(None), 5, Some(6)), (Get(Some(1)), 50, Some(60))],
            &[(Set(1), 0, None), (Set(2), 1, Some(2)), (Get(Some(2)), 50, Some(60))],
            &[(Set(1), 0, Some(1)), (Swap(Some(1), 2, true), 2, Some(3)), (Swap(Some(1), 3, false), 4, Some(5))],
            &[(Swap(None, 1, true), 0, Some(1)), (Delete(Some(true)), 2, Some(3)), (Get(None), 4, Some(5))],
            &[(Set(1), 0, Some(1)), (Swap(Some(1), 2, true), 2, None), (Get(Some(2)), 4, Some(5))],
            &[(Delete(Some(false)), 0, Some(1)), (Delete(None), 2, Some(3))],
        ];
        for history in good {
            assert_eq!(verdict(history), Verdict::Linearizable, "{history:?}");
        }
    }

    #[test]
    fn bad_histories_are_bad() {
        use Kind::{Delete, Get, Set, Swap};
        let bad: &[&[(Kind, u64, Option<u64>)]] = &[
            // A read of the past.
            &[(Set(1), 0, Some(1)), (Get(None), 2, Some(3))],
            &[(Set(1), 0, Some(1)), (Set(2), 2, Some(3)), (Get(Some(1)), 4, Some(5))],
            // Seen, and gone again.
            &[(Set(1), 0, None), (Get(Some(1)), 1, Some(2)), (Get(None), 3, Some(4))],
            // Never written, or before it was.
            &[(Get(Some(7)), 0, Some(1))],
            &[(Get(Some(1)), 0, Some(1)), (Set(1), 2, Some(3))],
            // A deletion undone.
            &[(Set(1), 0, Some(1)), (Delete(Some(true)), 2, Some(3)), (Get(Some(1)), 4, Some(5))],
            // An acknowledged swap undone by a set of before that had no answer, and happened twice.
            &[
                (Set(1), 0, None),
                (Get(Some(1)), 1, Some(2)),
                (Swap(Some(1), 2, true), 3, Some(4)),
                (Get(Some(1)), 5, Some(6)),
            ],
            // Two swaps of one value.
            &[(Set(1), 0, Some(1)), (Swap(Some(1), 2, true), 2, Some(5)), (Swap(Some(1), 3, true), 2, Some(5))],
            &[(Swap(None, 1, true), 0, Some(1)), (Swap(None, 2, true), 2, Some(3))],
            &[(Delete(Some(true)), 0, Some(1))],
        ];
        for history in bad {
            assert_eq!(verdict(history), Verdict::Violated, "{history:?}");
        }
    }

    #[test]
    fn a_search_that_takes_too_long_is_not_called_good() {
        // Ten writes that nobody answered, and a read that none of them explains.
        let mut history: Vec<_> = (1..=10).map(|value| (Kind::Set(value), 0, None)).collect();
        history.push((Kind::Get(Some(99)), 100, Some(101)));
        assert_ne!(verdict(&history), Verdict::Linearizable);
    }
}
