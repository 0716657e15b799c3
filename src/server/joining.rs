//! A server that is admitted while others own the records: what it holds from before counts as absent until they have sent
//! theirs.
//!
//! The store does that, with a floor. Whether one is called for the configuration says ([`Member::admitted`]); here is when it is
//! set, and when what lies below it is deleted. Without votes there are no admissions.
//!
//! [`Member::admitted`]: crate::register::Member::admitted

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::clocks;
use super::shared::Shared;
use super::spaces::Place;
use crate::store;

/// Pause after a floor could not be set.
const RETRY: Duration = Duration::from_millis(500);

/// This server has become active, or was admitted anew: puts aside what it holds from before if that is called for, then
/// learns the clocks of the others, and lets the writes go that have waited for both.
pub(super) fn begin(server: &Arc<Shared>) {
    if server.spaces().may_store() {
        return clocks::learn(server);
    }
    let server = server.clone();
    server.env.clone().spawn(async move {
        while let Place::Joining(admitted) = server.spaces().place() {
            let setting = server.clone();
            let set = server.env.blocking(move || setting.joined.set_floor(&setting.store, admitted)).await;
            match set.unwrap_or(Err(store::Error::Closed)) {
                Ok(()) => {
                    tracing::info!("admitted: what this server holds from before counts as absent until it is copied");
                    server.note_joined(admitted);
                }
                Err(store::Error::Closed) => return,
                Err(error) => {
                    tracing::error!(%error, "admitted, but nothing is stored yet: what is held from before cannot be put aside");
                    sleep(RETRY).await;
                }
            }
        }
        if server.spaces().place() == Place::Foreign {
            tracing::error!(
                "this store is not the one that the others have admitted, or an older copy of it: nothing is served from it \
                 until this server was given up and is attached again"
            );
        }
        clocks::learn(&server);
    });
}

/// Looked at now and then: what lies below the floor goes when the others have sent all that this server owns, which is when
/// it is an owner for reading.
pub(super) fn look_after(server: &Arc<Shared>) {
    let spaces = server.spaces();
    let settled = spaces.rhs.is_active(server.address) && spaces.whs.clocktime() == spaces.rhs.clocktime();
    if !settled || !spaces.may_store() || !server.store.has_floor() {
        return;
    }
    let store = server.store.clone();
    server.env.detach_blocking(move || {
        if let Err(error) = store.drop_old() {
            tracing::warn!(%error, "what was held before this server was admitted cannot be deleted yet");
        }
    });
}
