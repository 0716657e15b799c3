//! The meaning of a server's answer to one try for the operation. Pure: no connections, no time.
//!
//! A write that was sent and not answered may have been done, and must not be repeated blindly: a compare-and-swap would
//! meet its own success, a Set or Delete undo what others have written since.

use super::Error;
use crate::clock::ClockTime;
use crate::wire::method::{ErrorCode, Get};
use crate::wire::params::{Written, decode};
use crate::wire::{Call, NodeAddress, RecordKey, RecordValue};

/// The next step after a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<T> {
    /// Nothing: this is the answer.
    Done(T),
    /// It was not done; try again.
    Again(Error),
    /// It may have been done.
    Doubtful(Error),
    /// It was done, but not everywhere.
    Partial(Error),
    /// It cannot be done.
    Failed(Error),
}

impl<T> Verdict<T> {
    /// The same with another answer.
    pub fn map<U>(self, answer: impl FnOnce(T) -> U) -> Verdict<U> {
        match self {
            Self::Done(value) => Verdict::Done(answer(value)),
            Self::Again(error) => Verdict::Again(error),
            Self::Doubtful(error) => Verdict::Doubtful(error),
            Self::Partial(error) => Verdict::Partial(error),
            Self::Failed(error) => Verdict::Failed(error),
        }
    }
}

/// Whether a request that ended with `error` was surely not carried out: not sent, or refused.
fn is_refusal(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::NodeLost | ErrorCode::Server)
}

/// The verdict on an error.
fn failed<T>(server: NodeAddress, error: ErrorCode) -> Verdict<T> {
    match error {
        // The same bytes will not be understood the next time.
        ErrorCode::Protocol | ErrorCode::TooLarge => Verdict::Failed(Error::Server(server, error)),
        error if is_refusal(error) => Verdict::Again(Error::Server(server, error)),
        error => Verdict::Doubtful(Error::Server(server, error)),
    }
}

/// Of a Get: the live value, or `None` if there is none.
#[inline]
pub fn get(server: NodeAddress, answer: Result<&[u8], ErrorCode>) -> Verdict<Option<RecordValue<'_>>> {
    match answer {
        // Reading twice does no harm, whatever the error.
        Err(error) => Verdict::Again(Error::Server(server, error)),
        Ok(result) => {
            Get::<RecordKey<'_>>::answer(result).map_or(Verdict::Failed(Error::Answer(server)), Verdict::Done)
        }
    }
}

/// Of a Get that looks for tombstones, too: the raw value or tombstone, or `None` if there is none.
pub(super) fn look(server: NodeAddress, answer: Result<&[u8], ErrorCode>) -> Verdict<Option<Vec<u8>>> {
    match answer.map(decode::<Option<&[u8]>>) {
        Err(error) => Verdict::Again(Error::Server(server, error)),
        Ok(Ok(None)) => Verdict::Done(None),
        Ok(Ok(Some(bytes))) if RecordValue::new(bytes).is_ok() => Verdict::Done(Some(bytes.to_vec())),
        Ok(_) => Verdict::Failed(Error::Answer(server)),
    }
}

/// Of a Set: its clocktime, or `None` if a compare-and-swap did not match.
#[inline]
pub fn set(server: NodeAddress, answer: Result<&[u8], ErrorCode>) -> Verdict<Option<ClockTime>> {
    match answer {
        Err(error) => failed(server, error),
        Ok(result) => match decode(result) {
            Ok(Written::At(clocktime)) => Verdict::Done(Some(clocktime)),
            Ok(Written::Is(false)) => Verdict::Done(None),
            Ok(Written::Partly) => Verdict::Partial(Error::Partial(server)),
            Ok(Written::Is(true)) | Err(_) => Verdict::Failed(Error::Answer(server)),
        },
    }
}

/// Of a Delete: whether the key was there.
#[inline]
pub fn delete(server: NodeAddress, answer: Result<&[u8], ErrorCode>) -> Verdict<bool> {
    match answer {
        Err(error) => failed(server, error),
        Ok(result) => match decode(result) {
            Ok(Written::Is(found)) => Verdict::Done(found),
            Ok(Written::Partly) => Verdict::Partial(Error::Partial(server)),
            Ok(Written::At(_)) | Err(_) => Verdict::Failed(Error::Answer(server)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pack;
    use crate::wire::record::raw_value;

    fn server() -> NodeAddress {
        NodeAddress::new("127.0.0.1:19800".parse().unwrap())
    }

    #[test]
    fn only_what_was_surely_not_done_may_be_done_again() {
        for (error, again) in [
            (ErrorCode::NodeLost, true),
            (ErrorCode::Server, true),
            (ErrorCode::TransportLost, false),
            (ErrorCode::TimedOut, false),
            (ErrorCode::Unknown, false),
        ] {
            let expected = Error::Server(server(), error);
            let expected = if again { Verdict::Again(expected) } else { Verdict::Doubtful(expected) };
            assert_eq!(set(server(), Err(error)), expected);
        }
        let refused = Error::Server(server(), ErrorCode::Protocol);
        assert_eq!(set(server(), Err(ErrorCode::Protocol)), Verdict::Failed(refused.clone()));
        assert_eq!(delete(server(), Err(ErrorCode::Protocol)), Verdict::Failed(refused));
    }

    #[test]
    fn answers_are_read() {
        let clocktime = ClockTime::new(9, 7);
        let mut number = Vec::new();
        pack::uint(&mut number, clocktime.0);
        assert_eq!(set(server(), Ok(&number)), Verdict::Done(Some(clocktime)));
        assert_eq!(set(server(), Ok(&[0xc2])), Verdict::Done(None));
        assert_eq!(set(server(), Ok(&[0xc0])), Verdict::Partial(Error::Partial(server())));
        assert_eq!(delete(server(), Ok(&[0xc3])), Verdict::Done(true));
        assert_eq!(delete(server(), Ok(&[0xc0])), Verdict::Partial(Error::Partial(server())));
        assert_eq!(get(server(), Ok(&[0xc0])), Verdict::Done(None));
        let raw = raw_value(clocktime, 3, b"data");
        let mut packed = Vec::new();
        pack::raw(&mut packed, &raw);
        let Verdict::Done(Some(value)) = get(server(), Ok(&packed)) else { panic!("no value") };
        assert_eq!((value.clocktime(), value.data()), (clocktime, &b"data"[..]));
    }

    #[test]
    fn a_look_is_told_tombstones() {
        let mut packed = Vec::new();
        pack::raw(&mut packed, &ClockTime::new(9, 7).0.to_be_bytes());
        assert_eq!(look(server(), Ok(&packed)), Verdict::Done(Some(packed[1..].to_vec())));
        assert_eq!(look(server(), Ok(&[0xc0])), Verdict::Done(None));
        for bytes in [&[0xa3, 1, 2, 3][..], &[0xa9, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0xc3], &[]] {
            assert_eq!(look(server(), Ok(bytes)), Verdict::Failed(Error::Answer(server())), "{bytes:?}");
        }
        let lost = Error::Server(server(), ErrorCode::TransportLost);
        assert_eq!(look(server(), Err(ErrorCode::TransportLost)), Verdict::Again(lost));
    }

    #[test]
    fn what_the_protocol_does_not_allow_is_an_error() {
        for bytes in [&[0x90][..], &[0xa3, 1, 2, 3], &[]] {
            assert_eq!(get(server(), Ok(bytes)), Verdict::Failed(Error::Answer(server())));
            assert_eq!(set(server(), Ok(bytes)), Verdict::Failed(Error::Answer(server())));
            assert_eq!(delete(server(), Ok(bytes)), Verdict::Failed(Error::Answer(server())));
        }
    }
}
