//! Servers that a manager hears, and that do not reach each other: writes of keys that they share would fail for as long as
//! that lasts, so one of them is given up. Which one [`crate::register::Reports`] decides.

use std::collections::BTreeSet;

use super::job::Job;
use super::shell::{Inner, Shell};

impl Shell {
    /// Gives a server up that others do not reach, unless something else is under way.
    pub(super) fn look_at_reach(&self, inner: &mut Inner) {
        if !inner.votes.are_held() || inner.changes.pending.is_some() || !inner.changes.waiting.is_empty() {
            return;
        }
        let members: BTreeSet<_> = inner.votes.configuration().members.keys().copied().collect();
        let spaces = inner.state.spaces();
        let now = self.env.time().now();
        let Some((server, others)) = inner.reports.to_remove(&members, now, |node| spaces.is_last(node)) else {
            return;
        };
        let names: Vec<_> = others.iter().map(ToString::to_string).collect();
        let why = format!("it and {} do not reach each other", names.join(", "));
        tracing::error!(peer = %server, "server given up: {why}; attach it when they do");
        inner.note_reason(server, why);
        self.decide(inner, Job::exchange(server));
    }
}
