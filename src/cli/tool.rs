//! What the short-lived tools share: a runtime, the managers to ask, and output.

use std::future::Future;
use std::io::{ErrorKind, Write};

use super::common::{MANAGER_PORT, peer_address};
use super::hosts::{HostPort, system_resolver};
use super::parse::Stop;
use crate::client::{Cluster, Error, Options};
use crate::wire::NodeAddress;
use crate::wire::method::ErrorCode;

/// The managers of the cluster that a tool works on.
#[derive(Debug, clap::Args)]
pub(super) struct Managers {
    /// Address of a manager of the cluster [port: 19700]
    #[arg(short, long, value_name = "ADDR[:PORT]")]
    manager1: HostPort,

    /// Address of the second manager, if there are two [port: 19700]
    #[arg(short = 'p', long, value_name = "ADDR[:PORT]")]
    manager2: Option<HostPort>,
}

impl Managers {
    /// A client of the cluster.
    pub(super) async fn connect(&self) -> Result<Cluster, Stop> {
        let mut managers = vec![manager("-m", &self.manager1)?];
        if let Some(second) = &self.manager2 {
            managers.push(manager("-p", second)?);
        }
        Cluster::connect(managers, Options::default()).await.map_err(failed)
    }
}

/// The address of a manager given as `what`.
pub(super) fn manager(what: &str, host: &HostPort) -> Result<NodeAddress, Stop> {
    peer_address(what, host, MANAGER_PORT, &system_resolver)
}

/// Runs a tool's work on this thread.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Stop::Failed(format!("cannot start: {error}")))?;
    runtime.block_on(work)
}

/// The one line for an operation that failed.
pub(super) fn failed(error: Error) -> Stop {
    Stop::Failed(match error {
        Error::Manager(node, ErrorCode::NodeLost) => format!("manager {node} cannot be reached"),
        Error::Server(node, ErrorCode::NodeLost) => format!("server {node} cannot be reached"),
        error => error.to_string(),
    })
}

/// Writes to stdout what was asked for. Whoever stops reading early has had enough.
pub(super) fn show(bytes: &[u8]) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Stop::Failed(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}

/// What `--json` prints.
pub(super) fn json_text(report: &impl serde::Serialize) -> Result<String, Stop> {
    serde_json::to_string_pretty(report).map(|text| text + "\n").map_err(|error| Stop::Failed(error.to_string()))
}

/// The line for a key that is not there.
pub(super) fn not_found(key: &[u8]) -> Stop {
    Stop::Failed(format!("{}: not found", key.escape_ascii()))
}
