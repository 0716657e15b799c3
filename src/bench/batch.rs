//! The requests of one connection that were sent together, by message id, until all are answered.

use std::time::Instant;

use super::exchange::Pending;

/// Requests in flight on one connection.
#[derive(Debug)]
pub(super) struct Batch {
    /// The message id of the first.
    first: u32,
    asked: Vec<Option<Pending>>,
    unanswered: usize,
    /// When they were sent.
    pub(super) sent: Instant,
}

impl Batch {
    /// An empty batch for at most `limit` requests.
    pub(super) fn new(limit: usize, now: Instant) -> Self {
        Self { first: 1, asked: Vec::with_capacity(limit), unanswered: 0, sent: now }
    }

    /// Forgets what was asked before; ids go on from there.
    pub(super) fn clear(&mut self) {
        self.first = self.next_id();
        self.asked.clear();
        self.unanswered = 0;
    }

    /// The message id of the next request.
    #[inline]
    pub(super) fn next_id(&self) -> u32 {
        // Fewer than 2^32 by far; ids wrap.
        self.first.wrapping_add(u32::try_from(self.asked.len()).unwrap_or_default())
    }

    /// Adds the request that was given [`Self::next_id`].
    #[inline]
    pub(super) fn push(&mut self, asked: Pending) {
        self.asked.push(Some(asked));
        self.unanswered += 1;
    }

    /// The request that an answer belongs to; `None` if it was answered before, or never made.
    #[inline]
    pub(super) fn take(&mut self, msgid: u32) -> Option<Pending> {
        let index = usize::try_from(msgid.wrapping_sub(self.first)).ok()?;
        let asked = self.asked.get_mut(index)?.take()?;
        self.unanswered -= 1;
        Some(asked)
    }

    /// The request with this id, if it is not answered.
    pub(super) fn peek(&self, msgid: u32) -> Option<&Pending> {
        let index = usize::try_from(msgid.wrapping_sub(self.first)).ok()?;
        self.asked.get(index)?.as_ref()
    }

    /// The message id of the first request that is not answered; answers must come in order.
    pub(super) fn next_unanswered(&self) -> u32 {
        self.next_id().wrapping_sub(u32::try_from(self.unanswered).unwrap_or_default())
    }

    /// Requests without an answer.
    #[inline]
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Requests in it, answered or not.
    pub(super) fn len(&self) -> usize {
        self.asked.len()
    }
}
