//! Bytes on their way out, in pieces: small answers together, so that they leave in one write, large ones as they are.

use std::collections::VecDeque;

/// A piece of this length takes no more answers.
const PIECE: usize = 64 << 10;
/// Capacity that the last piece keeps when it is empty; more is given back, since most connections are idle.
const KEPT: usize = 16 << 10;

/// Bytes that a connection has still to send, in order.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Only the last may be empty.
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that have been sent.
    sent: usize,
    /// Bytes in all that have not been sent.
    len: usize,
}

impl Output {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that have not been sent.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends what `write` appends to a buffer; says how many bytes that was.
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        if self.pieces.back().is_none_or(|last| last.len() >= PIECE) {
            self.pieces.push_back(Vec::new());
        }
        let Some(last) = self.pieces.back_mut() else { return 0 };
        let before = last.len();
        write(last);
        let added = last.len().saturating_sub(before);
        self.len += added;
        added
    }

    /// Appends `bytes`.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.write(|out| out.extend_from_slice(bytes));
        }
    }

    /// Moves all of `other` behind what is here; an empty buffer changes places with it.
    pub(crate) fn take(&mut self, other: &mut Self) {
        if self.len == 0 {
            std::mem::swap(self, other);
        } else if other.len > 0 {
            self.len += std::mem::take(&mut other.len);
            self.pieces.append(&mut other.pieces);
        }
    }

    /// The bytes to be sent next; empty when there are none.
    pub(crate) fn next(&self) -> &[u8] {
        self.pieces.front().and_then(|piece| piece.get(self.sent..)).unwrap_or_default()
    }

    /// Says that this many of [`Self::next`] have been sent.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent += count;
        self.len = self.len.saturating_sub(count);
        while let Some(first) = self.pieces.front_mut().filter(|first| first.len() <= self.sent) {
            self.sent = 0;
            first.clear();
            if self.pieces.len() == 1 && self.pieces.front().is_some_and(|last| last.capacity() <= KEPT) {
                return;
            }
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends all, `step` bytes at a time.
    fn drain(answers: &mut Output, step: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        while !answers.next().is_empty() {
            let count = answers.next().len().min(step);
            sent.extend_from_slice(&answers.next()[..count]);
            answers.advance(count);
        }
        assert_eq!(answers.len(), 0);
        sent
    }

    #[test]
    fn what_goes_in_comes_out_in_order() {
        for step in [1, 7, 100_000] {
            let (mut out, mut ready) = (Output::default(), Output::default());
            let (mut expected, mut sent) = (Vec::new(), Vec::new());
            for round in 0..50_u8 {
                let bytes = vec![round; if round % 9 == 0 { PIECE } else { usize::from(round) }];
                expected.extend_from_slice(&bytes);
                assert_eq!(ready.write(|out| out.extend_from_slice(&bytes)), bytes.len());
                if round % 5 == 0 {
                    out.take(&mut ready);
                    let some = out.next().len().min(step);
                    sent.extend_from_slice(&out.next()[..some]);
                    out.advance(some);
                }
            }
            out.take(&mut ready);
            sent.extend(drain(&mut out, step));
            assert!(sent == expected, "in steps of {step}");
        }
    }

    #[test]
    fn small_answers_leave_together_and_a_large_one_is_not_kept() {
        let mut answers = Output::default();
        for _ in 0..100 {
            answers.write(|out| out.extend_from_slice(b"STORED\r\n"));
        }
        assert_eq!(answers.next().len(), 800);
        answers.write(|out| out.resize(PIECE, 7));
        answers.write(|out| out.push(7));
        drain(&mut answers, usize::MAX);
        assert!(answers.pieces.iter().map(Vec::capacity).sum::<usize>() <= KEPT);
    }
}
