//! The servers that `stat` asks, as its arguments name them.

use std::sync::Arc;

use crate::cli::exit::Stop;
use crate::cli::tool::{Cluster, failed, server};
use crate::client::{Caller, Error};
use crate::net::hosts::HostPort;
use crate::wire::NodeAddress;
use crate::wire::method::STATUS_WHS;

/// A server, or the managers of a cluster.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The server to ask [port: 19800]
    #[arg(value_name = "SERVER[:PORT]")]
    pub(super) server: Option<HostPort>,

    #[command(flatten)]
    pub(super) cluster: Cluster,
}

impl Target {
    /// The servers to ask: the one that was named, or all active ones.
    pub(super) async fn servers(&self, caller: &Arc<Caller>) -> Result<Vec<NodeAddress>, Stop> {
        if let Some(host) = &self.server {
            return Ok(vec![server("server", host)?]);
        }
        let whs = self.cluster.space(caller).await?;
        Ok(whs.nodes.into_iter().filter(|(_, active)| *active).map(|(node, _)| node).collect())
    }

    /// Every active server of the cluster that the server named belongs to.
    pub(super) async fn relatives(&self, caller: &Arc<Caller>) -> Result<Vec<NodeAddress>, Stop> {
        let servers = self.servers(caller).await?;
        let ([named], true) = (servers.as_slice(), self.server.is_some()) else { return Ok(servers) };
        let whs = caller.space(*named, STATUS_WHS).await.map_err(|error| failed(Error::Server(*named, error)))?;
        let others = whs.nodes.into_iter().filter(|(node, active)| *active && node != named);
        Ok(std::iter::once(*named).chain(others.map(|(node, _)| node)).collect())
    }
}
