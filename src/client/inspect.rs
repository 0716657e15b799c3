//! Figures that nodes report: the numbers of `GetStatus` (protocol, section 7), and hash spaces.
//!
//! Asks nothing that an original node could not answer, but for [`Caller::figures`]. An answer of a wrong shape is the
//! error [`ErrorCode::Unknown`].

use super::Caller;
use crate::wire::figures::{Figures, ManagerFigures};
use crate::wire::method::{
    CONFIG_NODELAY, ErrorCode, GetStatus, HashSpaceRequest, STATUS_CLOCKTIME, STATUS_DELETES, STATUS_FLAGS,
    STATUS_GETS, STATUS_ITEMS, STATUS_JSON, STATUS_SETS, STATUS_TIME, SetConfig,
};
use crate::wire::params::{Seed, decode};
use crate::wire::{Call, NodeAddress};

/// Counters and state of a server at one time, as every server of kumofs tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// Unix seconds by the server's clock.
    pub time: u64,
    /// Get requests since its start.
    pub gets: u64,
    /// Set requests since its start.
    pub sets: u64,
    /// Delete requests since its start.
    pub deletes: u64,
    /// Stored records, tombstones included.
    pub items: u64,
    /// The server's clocktime, as a number.
    pub clocktime: u64,
    /// The work in progress, see [`crate::wire::method::FLAG_COPYING`] and the others.
    pub flags: u32,
}

impl Caller {
    /// A status that is a number.
    pub async fn number(&self, node: NodeAddress, number: u32) -> Result<u64, ErrorCode> {
        let answer = self.answer(node, number).await?;
        understood(decode(&answer))
    }

    /// A status that is a text; bytes that are no UTF-8 are replaced.
    pub async fn text(&self, node: NodeAddress, number: u32) -> Result<String, ErrorCode> {
        let answer = self.answer(node, number).await?;
        understood(decode(&answer).map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }

    /// A status that is a hash space.
    pub async fn space(&self, node: NodeAddress, number: u32) -> Result<Seed, ErrorCode> {
        let answer = self.answer(node, number).await?;
        understood(decode(&answer))
    }

    /// The figures of a server of this program; `None` from an original one.
    pub async fn figures(&self, server: NodeAddress) -> Result<Option<Figures>, ErrorCode> {
        let json = self.figures_json(server).await?;
        json.map(|json| understood(serde_json::from_value(json))).transpose()
    }

    /// The figures of a manager of this program; `None` from one that has none.
    pub async fn manager_figures(&self, manager: NodeAddress) -> Result<Option<ManagerFigures>, ErrorCode> {
        let json = self.figures_json(manager).await?;
        json.map(|json| understood(serde_json::from_value(json))).transpose()
    }

    /// The same as it came, with figures that only a later server knows.
    pub async fn figures_json(&self, server: NodeAddress) -> Result<Option<serde_json::Value>, ErrorCode> {
        let answer = self.answer(server, STATUS_JSON).await?;
        let answer: Option<&[u8]> = understood(decode(&answer))?;
        answer.map(|json| understood(serde_json::from_slice(json))).transpose()
    }

    /// Counters and state of a server, asked for all at once.
    pub async fn status(&self, server: NodeAddress) -> Result<Status, ErrorCode> {
        let (time, gets, sets, deletes, items, clocktime, flags) = tokio::try_join!(
            self.number(server, STATUS_TIME),
            self.number(server, STATUS_GETS),
            self.number(server, STATUS_SETS),
            self.number(server, STATUS_DELETES),
            self.number(server, STATUS_ITEMS),
            self.number(server, STATUS_CLOCKTIME),
            self.number(server, STATUS_FLAGS),
        )?;
        let flags = understood(u32::try_from(flags))?;
        Ok(Status { time, gets, sets, deletes, items, clocktime, flags })
    }

    /// Sets or clears `TCP_NODELAY` on the connections of a server; returns how many there are.
    pub async fn set_nodelay(&self, server: NodeAddress, nodelay: bool) -> Result<u64, ErrorCode> {
        let answer = self.ask(server, &SetConfig { number: CONFIG_NODELAY, value: nodelay }).await?;
        understood(decode(&answer))
    }

    /// The hash spaces that a manager has, for writing and for reading.
    pub async fn spaces(&self, manager: NodeAddress) -> Result<(Seed, Seed), ErrorCode> {
        let answer = self.ask(manager, &HashSpaceRequest { extension: None }).await?;
        understood(HashSpaceRequest::answer(&answer)).map(|spaces| (spaces.whs, spaces.rhs))
    }

    async fn answer(&self, node: NodeAddress, number: u32) -> Result<Vec<u8>, ErrorCode> {
        self.ask(node, &GetStatus { number }).await
    }
}

/// An answer of a shape that nobody expects.
pub(super) fn understood<T, E>(read: Result<T, E>) -> Result<T, ErrorCode> {
    read.map_err(|_| ErrorCode::Unknown)
}
