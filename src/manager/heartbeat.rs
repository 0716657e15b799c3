//! The keep-alives of one node that it has answered, and not. Pure.

/// Keep-alives in a row without an answer after which a node is lost, where servers do not vote.
pub(super) const LIMIT: u32 = 5;

/// Answers of one node to its keep-alives.
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    /// Whether a keep-alive is out to which no answer has come.
    owing: bool,
    missed: u32,
}

impl Heartbeat {
    /// The next keep-alive is due. Says whether the node is lost instead, as after `limit` of them without an answer.
    pub(super) fn beat(&mut self, limit: u32) -> bool {
        self.missed = if self.owing { self.missed.saturating_add(1) } else { 0 };
        self.owing = true;
        self.missed >= limit
    }

    /// An answer has come, to whichever keep-alive.
    pub(super) fn answered(&mut self) {
        self.owing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_misses_in_a_row_and_no_fewer() {
        let mut heartbeat = Heartbeat::default();
        for _ in 0..3 {
            for _ in 0..5 {
                assert!(!heartbeat.beat(LIMIT));
            }
            heartbeat.answered();
        }
        for _ in 0..5 {
            assert!(!heartbeat.beat(LIMIT));
        }
        assert!(heartbeat.beat(LIMIT));
    }
}
