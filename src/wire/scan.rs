//! Finding where a message ends while its bytes are still arriving.
//!
//! A scanner keeps its place between calls, so that a message that comes in a thousand pieces is looked at once, and
//! knows three answers: complete, not yet, broken. It reads no meaning; [`super::frame`] does.

use super::unpack::Head;
use super::{DEPTH_LIMIT, Error};

/// The place reached in one message that may be incomplete.
#[derive(Debug, Clone)]
pub struct Scanner {
    limit: usize,
    /// Bytes of the message that have been accounted for; may lie beyond what has arrived.
    at: usize,
    /// Elements still to come at each level of nesting, outermost first.
    open: [u64; DEPTH_LIMIT],
    depth: usize,
    started: bool,
}

impl Scanner {
    /// A scanner for messages of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, at: 0, open: [0; DEPTH_LIMIT], depth: 0, started: false }
    }

    /// Bytes that the message is known to need, at least.
    pub fn needed(&self) -> usize {
        self.at
    }

    /// Looks at `bytes`, which begin where the message begins and hold all that has arrived of it.
    ///
    /// Returns the length of the message when all of it is there (the scanner is then ready for the next one), and
    /// `None` when more bytes are needed.
    #[inline]
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        loop {
            if self.started && self.depth == 0 {
                if self.at > bytes.len() {
                    return Ok(None);
                }
                let len = self.at;
                *self = Self::new(self.limit);
                return Ok(Some(len));
            }
            let room = self.limit.saturating_sub(self.at);
            let Some(head) = bytes.get(self.at..).map_or(Ok(None), |rest| Head::read(rest, room))? else {
                // A marker must still fit when it comes.
                return if room == 0 { Err(Error::TooLong(self.limit)) } else { Ok(None) };
            };
            // Each child takes a byte at least: a count beyond the limit can be refused before anything arrives.
            if head.len > room || head.children > (room - head.len) as u64 {
                return Err(Error::TooLong(self.limit));
            }
            self.at += head.len;
            self.started = true;
            self.close_one();
            if head.children > 0 {
                *self.open.get_mut(self.depth).ok_or(Error::TooDeep)? = head.children;
                self.depth += 1;
            }
            self.unwind();
        }
    }

    /// Counts the object just read as an element of the innermost open array.
    #[inline]
    fn close_one(&mut self) {
        if let Some(innermost) = self.depth.checked_sub(1).and_then(|depth| self.open.get_mut(depth)) {
            *innermost = innermost.saturating_sub(1);
        }
    }

    /// Leaves the arrays that have got all their elements.
    #[inline]
    fn unwind(&mut self) {
        while let Some(depth) = self.depth.checked_sub(1) {
            if self.open.get(depth).is_some_and(|open| *open > 0) {
                break;
            }
            self.depth = depth;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_finds_the_same_end() {
        let message = [0x94, 0x00, 0x01, 0x22, 0x91, 0xa3, b'a', b'b', b'c', 0xc0];
        for cut in 0..9 {
            let mut scanner = Scanner::new(64);
            assert_eq!(scanner.advance(&message[..cut]), Ok(None), "{cut}");
            assert_eq!(scanner.advance(&message), Ok(Some(9)), "{cut}");
        }
    }

    #[test]
    fn an_empty_array_is_a_whole_message() {
        assert_eq!(Scanner::new(64).advance(&[0x90]), Ok(Some(1)));
        assert_eq!(Scanner::new(64).advance(&[0x92, 0x90, 0x00]), Ok(Some(3)));
    }

    #[test]
    fn a_declared_length_beyond_the_limit_is_refused_at_once() {
        assert_eq!(Scanner::new(64).advance(&[0xdb, 0xff, 0xff, 0xff, 0xff]), Err(Error::TooLong(64)));
        assert_eq!(Scanner::new(64).advance(&[0xdd, 0xff, 0xff, 0xff, 0xff]), Err(Error::TooLong(64)));
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(Scanner::new(9000).advance(&[0x91; 1000]), Err(Error::TooDeep));
    }

    #[test]
    fn markers_outside_the_dialect_are_refused() {
        for marker in [0xc1, 0xc7, 0xd4, 0xd8] {
            assert_eq!(Scanner::new(64).advance(&[0x91, marker]), Err(Error::Malformed), "{marker:x}");
        }
    }
}
