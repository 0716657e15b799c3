//! The names of what decides whether servers vote. Pure.

use std::time::Duration;

use crate::wire::NodeAddress;

/// How long a server or manager of this program may take, once connected, to say that it can vote. One that does not is of
/// another program.
pub(super) const INTRODUCTION: Duration = Duration::from_secs(3);

/// Whether servers are to vote, as far as it is known who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// They are.
    Votes,
    /// They are not.
    Without(Why),
    /// The other manager has connected and not yet said what it is: it stays as it is.
    Open,
}

/// Why servers do not vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Why {
    #[error("this manager runs with --compatible")]
    Own,
    #[error("the other manager, {0}, runs with --compatible")]
    Partner(NodeAddress),
    #[error("the other manager, {0}, is of a program that does not vote")]
    OriginalPartner(NodeAddress),
    #[error("server {0} is of a program that does not vote")]
    OriginalServer(NodeAddress),
}
