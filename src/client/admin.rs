//! Changing a cluster through its manager: attach, detach, replace, backup.
//!
//! Managers of this program say more than those of 2010, to whom the same bytes go that they always got; see
//! [`crate::wire::extension`]. An answer of a wrong shape is the error [`ErrorCode::Unknown`].

use super::Caller;
use super::inspect::understood;
use crate::wire::extension::{Ask, BackupEnd, Changed, Choice, ManagerState};
use crate::wire::method::{AttachNewServers, DetachFaultServers, ErrorCode, GetNodesInfo, ManagerBackup};
use crate::wire::params::{NodesInfo, Packed, Seed, decode};
use crate::wire::{Call, NodeAddress};

/// The servers of a cluster as its manager knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// The hash space for writing.
    pub whs: Seed,
    /// Connected servers that are not attached.
    pub detached: Vec<NodeAddress>,
    /// The work that the manager has in progress; `None` from an original one, which says no more than the above.
    pub state: Option<ManagerState>,
}

impl Caller {
    /// The servers that a manager knows. The answer also says whether it is an original one, without a request that an original
    /// would not understand.
    pub async fn overview(&self, manager: NodeAddress) -> Result<Overview, ErrorCode> {
        let answer = self.ask(manager, &GetNodesInfo { ask: Some(Ask {}) }).await?;
        let NodesInfo { whs, detached, state } = understood(GetNodesInfo::answer(&answer))?;
        Ok(Overview { whs, detached, state })
    }

    /// Attaches servers, and starts a replace if asked to; returns when that has begun. With a `choice`, which is only for a
    /// manager of this program (an original one would take all servers), the result says what was done.
    pub async fn attach(
        &self,
        manager: NodeAddress,
        replace: bool,
        choice: Option<Choice>,
    ) -> Result<Option<Changed>, ErrorCode> {
        let answer = self.ask(manager, &AttachNewServers { replace, choice }).await?;
        Ok(understood(AttachNewServers::answer(&answer))?.map(|Packed(changed)| changed))
    }

    /// Removes servers in fault, likewise.
    pub async fn detach(
        &self,
        manager: NodeAddress,
        replace: bool,
        choice: Option<Choice>,
    ) -> Result<Option<Changed>, ErrorCode> {
        let answer = self.ask(manager, &DetachFaultServers { replace, choice }).await?;
        Ok(understood(DetachFaultServers::answer(&answer))?.map(|Packed(changed)| changed))
    }

    /// Has the active servers write backups; returns when they have been asked to.
    pub async fn backup(&self, manager: NodeAddress, suffix: &[u8]) -> Result<(), ErrorCode> {
        self.ask(manager, &ManagerBackup { suffix: &suffix, ask: None }).await.map(drop)
    }

    /// The same; returns when every server has ended. Only for a manager of this program.
    pub async fn backup_to_end(&self, manager: NodeAddress, suffix: &[u8]) -> Result<BackupEnd, ErrorCode> {
        let answer = self.ask(manager, &ManagerBackup { suffix: &suffix, ask: Some(Ask {}) }).await?;
        understood(decode(&answer)).map(|Packed(end)| end)
    }
}
