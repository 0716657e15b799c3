//! A request under way: its operation, and the duty to answer it. Knows neither how the operation is carried out nor the
//! stream that the answer leaves on.

use std::sync::Arc;

use super::failure::Failure;
use super::operation::Operation;
use super::outcome::Outcome;
use super::pipeline::{Pipeline, Weight};
use super::protocol::Form;
use super::shared::Shared;
use super::stats::Kind;
use crate::binlog::Record;
use crate::client::{Error, RawKey};
use crate::clock::ClockTime;

/// A request with what it does.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) reply: Reply,
    pub(super) operation: Operation,
}

/// The duty to answer one request, exactly once: dropped unanswered, it answers that nobody could be reached.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) shared: Arc<Shared>,
    pub(super) key: RawKey,
    pipeline: Arc<Pipeline<Job>>,
    number: u64,
    form: Form,
    kind: Kind,
    writes: bool,
    weight: Weight,
    answered: bool,
}

impl Reply {
    /// Takes on the duty for the request `number` of a connection, which has been opened with this weight.
    pub(super) fn new(
        shared: &Arc<Shared>,
        pipeline: &Arc<Pipeline<Job>>,
        number: u64,
        key: RawKey,
        form: Form,
        (kind, writes): (Kind, bool),
        weight: Weight,
    ) -> Self {
        Self {
            shared: shared.clone(),
            key,
            pipeline: pipeline.clone(),
            number,
            form,
            kind,
            writes,
            weight,
            answered: false,
        }
    }

    /// Whether a flush hides the request's record, which was written then.
    pub(super) fn is_hidden(&self, written: ClockTime) -> bool {
        self.shared.flushes.hides(self.key.hash(), written)
    }

    /// Answers, and starts the requests for the same key that have waited for this one.
    pub(super) fn answer(mut self, outcome: &Outcome<'_>) {
        self.answer_with(outcome);
    }

    /// Whether the client has gone, so that nobody waits for the answer.
    pub(super) fn is_abandoned(&self) -> bool {
        self.pipeline.has_gone()
    }

    /// Ends the duty to answer a client that has gone.
    pub(super) fn abandon(mut self) {
        self.answered = true;
        self.complete(&[], &Outcome::Done);
    }

    fn complete(&self, key: &[u8], outcome: &Outcome<'_>) {
        let order = Some((self.key.hash(), self.writes));
        self.pipeline.complete(self.number, self.weight, (&self.form, key, outcome), order);
    }

    fn answer_with(&mut self, outcome: &Outcome<'_>) {
        self.answered = true;
        let shared = &self.shared;
        let refused = Outcome::Failed(Failure::Overloaded);
        let outcome = match outcome {
            Outcome::Found(item) if shared.budget.is_exceeded_by(item.data.len()) => &refused,
            outcome => outcome,
        };
        shared.stats.count(self.kind, outcome);
        let key = self.key.key().get(shared.config.key_prefix.len()..).unwrap_or_default();
        self.complete(key, outcome);
    }

    /// Answers that it has failed, with a line in the logs.
    pub(super) fn fail(self, error: &Error, data: Option<&[u8]>) {
        let key = self.key.key();
        let record = match (self.writes, data) {
            (false, _) => Record::GetFailed { key, error: error.code() },
            (true, Some(value)) => Record::SetFailed { key, value, error: error.code() },
            (true, None) => Record::DeleteFailed { key, error: error.code() },
        };
        self.shared.binary_log.write(&record);
        if self.shared.stats.may_warn(self.shared.uptime_seconds()) {
            tracing::warn!(key = %key.escape_ascii(), "request failed: {error} (at most one line a second; stats has the number of failures)");
        }
        self.answer(&Outcome::Failed(match error {
            Error::TooLarge(server, limit) => Failure::TooLargeFor(*server, *limit),
            Error::Partial(_) => Failure::Partial,
            Error::Doubtful(..) => Failure::Unknown,
            _ => Failure::Unavailable,
        }));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.answer_with(&Outcome::Failed(Failure::Unavailable));
        }
    }
}
