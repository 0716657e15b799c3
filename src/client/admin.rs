//! Changing a cluster through its manager: attach, detach, replace, backup.
//!
//! Managers of this program say more than those of 2010, to whom the same bytes go that they always got; see
//! [`crate::wire::extension`]. An answer of a wrong shape is the error [`ErrorCode::Unknown`].

use super::Caller;
use super::inspect::understood;
use crate::wire::extension::{self, Ask, BackupEnd, Changed, Choice, ManagerState};
use crate::wire::method::{ErrorCode, Method};
use crate::wire::params::{self, Seed};
use crate::wire::{NodeAddress, pack};

/// The servers of a cluster as its manager knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// The hash space for writing.
    pub whs: Seed,
    /// Connected servers that are not attached.
    pub detached: Vec<NodeAddress>,
    /// What the manager has under way; `None` from an original one, which says no more than the above.
    pub state: Option<ManagerState>,
}

impl Caller {
    /// What a manager knows of its servers. It also says whether it is an original one, without a request that an original
    /// would not understand.
    pub async fn overview(&self, manager: NodeAddress) -> Result<Overview, ErrorCode> {
        let write = |out: &mut Vec<u8>| {
            pack::array(out, 1);
            extension::write(out, &Ask {});
        };
        let answer = self.ask(manager, Method::GetNodesInfo, write).await?;
        let (whs, detached) = understood(params::nodes_info(&answer))?;
        let state = understood(extension::read(&answer, 2))?;
        Ok(Overview { whs, detached, state })
    }

    /// Asks a manager for a change that a boolean describes; it answers when the change has begun.
    pub async fn switch(&self, manager: NodeAddress, method: Method, value: bool) -> Result<(), ErrorCode> {
        self.ask(manager, method, |out| params::write_switch(out, value)).await.map(drop)
    }

    /// Attaches or detaches, by `method`, the servers of `choice`, and starts a replace if asked to. Only for a manager of
    /// this program: an original one would take all servers.
    pub async fn change_chosen(
        &self,
        manager: NodeAddress,
        method: Method,
        replace: bool,
        choice: &Choice,
    ) -> Result<Changed, ErrorCode> {
        let write = |out: &mut Vec<u8>| {
            pack::array(out, 2);
            pack::bool(out, replace);
            extension::write(out, choice);
        };
        let answer = self.ask(manager, method, write).await?;
        understood(extension::read_result(&answer))
    }

    /// Has the active servers write backups; returns when they have been asked to.
    pub async fn backup(&self, manager: NodeAddress, suffix: &[u8]) -> Result<(), ErrorCode> {
        self.ask(manager, Method::ManagerBackup, |out| params::write_backup_suffix(out, suffix)).await.map(drop)
    }

    /// The same; returns when every server has ended. Only for a manager of this program.
    pub async fn backup_to_end(&self, manager: NodeAddress, suffix: &[u8]) -> Result<BackupEnd, ErrorCode> {
        let write = |out: &mut Vec<u8>| {
            pack::array(out, 2);
            pack::raw(out, suffix);
            extension::write(out, &Ask {});
        };
        let answer = self.ask(manager, Method::ManagerBackup, write).await?;
        understood(extension::read_result(&answer))
    }
}
