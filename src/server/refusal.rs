//! Why a request is refused: the error that its sender is answered.

use crate::wire;
use crate::wire::method::ErrorCode;

/// A request that is not carried out.
pub(super) struct Refusal(pub(super) ErrorCode);

impl From<wire::Error> for Refusal {
    fn from(_: wire::Error) -> Self {
        Self(ErrorCode::Protocol)
    }
}
