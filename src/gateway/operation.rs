//! An operation on the record of one key, as a request asks it of the servers. Knows neither the client that asked nor how
//! an operation is carried out.

use super::change::{Change, Decision, Reward};
use super::failure::Failure;
use super::item::Rules;
use super::outcome::Outcome;
use crate::clock::ClockTime;

/// An operation on a record.
#[derive(Debug)]
pub(super) enum Operation {
    /// Read.
    Get,
    /// Write in any case.
    Set { data: Vec<u8>, reward: Reward },
    /// Write if the clocktime is `expected`; if not, `change` decides what that means.
    Swap { expected: ClockTime, data: Vec<u8>, reward: Reward, change: Change<'static> },
    /// Delete in any case; `refused` is the answer then, if there is one already.
    Delete { refused: Option<Failure> },
    /// Read; if there is nothing, the change decides.
    Vivify(Change<'static>),
    /// Read, decide, write.
    Change(Change<'static>),
}

impl Operation {
    /// The operation that makes a change, `now` in unix seconds; or the outcome, if it is known already. Where a flush may
    /// hide records (`flushed`), a change reads the record that it depends on.
    pub(super) fn of(
        change: Change<'_>,
        now: u32,
        rules: &Rules,
        flushed: impl FnOnce() -> bool,
    ) -> Result<Self, Outcome<'static>> {
        let direct = change.direct(now, rules);
        let blind = matches!(
            direct,
            Some(Decision::Store { expected: None, .. } | Decision::Delete { refused: Some(_) } | Decision::Answer(_))
        );
        Ok(match direct.filter(|_| blind || !flushed()) {
            None => match change {
                Change::Vivify { exptime: None, .. } => Self::Vivify(change.into_owned()),
                change => Self::Change(change.into_owned()),
            },
            Some(Decision::Store { expected: None, data, reward }) => Self::Set { data, reward },
            Some(Decision::Store { expected: Some(expected), data, reward }) => {
                Self::Swap { expected, data, reward, change: change.into_owned() }
            }
            Some(Decision::Delete { refused }) => Self::Delete { refused },
            Some(Decision::Answer(outcome)) => return Err(outcome),
        })
    }

    /// Bytes that it keeps.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Get | Self::Delete { .. } => 0,
            Self::Set { data, .. } => data.len(),
            Self::Swap { data, change, .. } => data.len() + change.weight(),
            Self::Vivify(change) | Self::Change(change) => change.weight(),
        }
    }

    /// Whether its answer may bring the value of an item.
    pub(super) fn reads(&self) -> bool {
        matches!(self, Self::Get | Self::Vivify(_) | Self::Change(Change::Touch { read: true, .. }))
    }

    /// Whether it may write: a request behind it for the same key waits.
    pub(super) fn writes(&self) -> bool {
        !matches!(self, Self::Get)
    }
}
