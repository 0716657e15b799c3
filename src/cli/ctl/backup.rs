//! Having the servers of a cluster write backups, and saying what became of them.

use std::time::Duration;

use super::choice::names;
use super::manager::{caller, failed, overview};
use crate::cli::exit::Stop;
use crate::client::Caller;
use crate::wire::NodeAddress;
use crate::wire::method::ErrorCode;

/// How long the servers may take, in a call whose time-out has no more steps: some 54 minutes.
const BACKUP: Duration = Duration::from_hours(1);

/// Has every active server write a backup; with `wait` until all have ended.
pub(super) async fn back_up(asker: &Caller, manager: NodeAddress, suffix: &str, wait: bool) -> Result<(), Stop> {
    let before = overview(asker, manager).await?;
    // An original manager, and an older one of this program, answers as if it had asked somebody.
    if !before.whs.has_active() {
        return Err(failed(manager, ErrorCode::Server));
    }
    if !wait {
        return asker.backup(manager, suffix.as_bytes()).await.map_err(|error| failed(manager, error));
    }
    if before.state.is_none() {
        return Err(Stop::Usage("--wait: an original manager does not tell when a backup is complete".to_owned()));
    }
    let end = caller(BACKUP).backup_to_end(manager, suffix.as_bytes()).await;
    let end = end.map_err(|error| failed(manager, error))?;
    if end.failed.is_empty() {
        return Ok(());
    }
    Err(Stop::Failed(format!("backup failed on {} (the log of each says why)", names(&end.failed))))
}
