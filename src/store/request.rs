//! Requests to the maintenance thread, and where their answers go.

use super::error::Error;
use super::undecided::Undecided;
use crossbeam_channel::Sender;
use std::path::PathBuf;
use std::sync::Arc;

/// Where an answer goes.
pub(super) type Reply<T> = Sender<Result<T, Error>>;

/// Who serves requests where the store has no thread for it.
pub(super) trait Inline: Send {
    /// Serves a request, if there is one, and does what else is due; gives itself back unless the store is closed now.
    fn step(self: Box<Self>, request: Option<Request>) -> Option<Box<dyn Inline>>;
}

/// A request to the maintenance thread.
pub(super) enum Request {
    /// Look whether a merge is due.
    Wake,
    /// Merge all that was written before.
    Flush(Reply<()>),
    /// Store a named blob durably.
    PutState { name: String, value: Vec<u8>, reply: Reply<()> },
    /// Ask who knows which writes others are still to have, from now on.
    Undecided(Arc<dyn Undecided>, Reply<()>),
    /// Count the generation up, durably.
    Generation(Reply<u32>),
    /// Have everything stored so far count as absent, durably; the first generation that counts.
    SetFloor(Reply<u32>),
    /// Begin to delete what lies below the floor.
    DropOld(Reply<()>),
    /// Copy the store.
    Backup { destination: PathBuf, reply: Reply<()> },
    /// Merge all, close the tree, end.
    Close(Reply<()>),
}
