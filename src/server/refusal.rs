//! Why a request is refused: the error in the answer to its sender.

use crate::wire;
use crate::wire::method::ErrorCode;
use crate::wire::requests::Rejected;

/// A request that is not carried out.
pub(super) struct Refusal(pub(super) ErrorCode);

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        Self(rejected.code())
    }
}

impl From<wire::Error> for Refusal {
    fn from(error: wire::Error) -> Self {
        Rejected::from(error).into()
    }
}
