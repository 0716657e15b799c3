//! A key that is deleted on an original server: it refuses every compare-and-swap of it, where a server of this program
//! takes one that expects nothing (protocol, section 7).

use std::sync::Arc;
use std::time::Duration;

use super::{RawKey, Router, steps};
use crate::clock::{ClockTime, unix_seconds};
use crate::wire::method::{ErrorCode, Get, GetIfModified, GetStatus, STATUS_JSON};
use crate::wire::params::{Modified, Nil, decode};

/// Seconds ahead of now that no record's clocktime is.
const FAR: u32 = 24 * 60 * 60;

impl Router {
    /// Whether the coordinator of `key` is an original server that holds a tombstone of it. `false` if that is not
    /// certain. Takes at most `limit` for each of its two exchanges.
    ///
    /// `GetIfModified` with a clocktime of the future tells a tombstone, for which an original says true, from an absent
    /// key. A read after that tells it from a live one, and a number of `GetStatus` that no original knows, from a server
    /// of this program. The read comes last, so that what it has seen is as new as can be.
    pub async fn is_deleted_on_original(self: &Arc<Self>, key: &RawKey, limit: Duration) -> bool {
        let Some(node) = self.routes().coordinator(key.hash()).cloned() else { return false };
        let (session, key) = (node.session(), key.bytes());
        let steps = steps(limit.min(self.options().call_timeout));
        let future = ClockTime::new(unix_seconds().saturating_add(FAR), 0);
        let unchanged = session.ask(&GetIfModified { key: &key, clocktime: future }, steps);
        if !unchanged.await.is_ok_and(|answer| decode(&answer) == Ok(Modified::No)) {
            return false;
        }
        let status = session.ask(&GetStatus { number: STATUS_JSON }, steps);
        let read = session.ask(&Get { key: &key, look: None }, steps);
        let (status, read) = tokio::join!(status, read);
        is_nil(status) && is_nil(read)
    }
}

fn is_nil(answer: Result<Vec<u8>, ErrorCode>) -> bool {
    answer.is_ok_and(|result| decode(&result) == Ok(Nil))
}
