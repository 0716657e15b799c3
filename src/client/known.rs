//! The most that is known of a write that is tried again: what its operation ends with when the time is up. Pure.
//!
//! A later try that reached nobody says nothing about an earlier one that was done on some servers.

use super::Error;
use crate::wire::method::ErrorCode;

/// The error that says most of those met so far, the last one of several that say as much.
#[derive(Debug, Default)]
pub(super) struct Known(Option<Error>);

/// How much an error says about what has been done.
fn rank(error: &Error) -> u8 {
    match error {
        Error::Partial(_) => 2,
        Error::Doubtful(..) => 1,
        _ => 0,
    }
}

impl Known {
    /// A try has ended with `error`: the one to end with if there is no other try.
    pub(super) fn with(&mut self, error: Error) -> Error {
        match &self.0 {
            Some(known) if rank(known) > rank(&error) => known.clone(),
            _ => self.0.insert(error).clone(),
        }
    }

    /// The write was found undone: a try may only have been done somewhere else.
    pub(super) fn undone(&mut self) {
        if let Some(Error::Partial(server)) = self.0 {
            self.0 = Some(Error::Doubtful(server, ErrorCode::Unknown));
        }
    }

    /// The error that says that a try may have been done, if one may.
    pub(super) fn doubt(self) -> Option<Error> {
        self.0.filter(|error| rank(error) > 0)
    }
}

/// The error of a try that was sent, and of which nothing was heard.
pub(super) fn doubtful(error: Error) -> Error {
    match error {
        Error::Server(server, code) => Error::Doubtful(server, code),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NodeAddress;

    #[test]
    fn what_says_more_stays() {
        let server = NodeAddress::new("127.0.0.1:19800".parse().unwrap());
        let lost = doubtful(Error::Server(server, ErrorCode::TransportLost));
        let mut known = Known::default();
        assert_eq!(known.with(Error::NoServer), Error::NoServer);
        let refused = Error::Server(server, ErrorCode::Server);
        assert_eq!(known.with(refused.clone()), refused);
        assert_eq!(known.with(lost.clone()), lost);
        assert_eq!(known.with(Error::NoServer), lost);
        assert_eq!(known.with(Error::Partial(server)), Error::Partial(server));
        assert_eq!(known.with(lost.clone()), Error::Partial(server));
        known.undone();
        assert_eq!(known.with(Error::NoServer), Error::Doubtful(server, ErrorCode::Unknown));
        assert_eq!(known.doubt(), Some(Error::Doubtful(server, ErrorCode::Unknown)));
        let mut known = Known::default();
        known.with(Error::NoServer);
        assert_eq!(known.doubt(), None);
    }
}
