//! The thread on which a cluster runs: its runtime, and what it is asked to do. Knows no settings of nodes.

use std::net::SocketAddr;
use std::path::Path;

use tokio::sync::{mpsc, oneshot};

use super::error::Error;
use super::nodes::Nodes;

/// The answer to a command.
type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Something to do with the servers; they are named by their places.
#[derive(Debug)]
pub(super) enum Command {
    /// Starts one more, and attaches it.
    Add(Reply<SocketAddr>),
    /// Stops one.
    Stop(usize, Reply<()>),
    /// Starts one that was stopped.
    Start(usize, Reply<()>),
}

/// Where the nodes of a cluster listen that has started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) manager: SocketAddr,
    pub(super) servers: Vec<SocketAddr>,
}

/// Runs a cluster with its stores in `folder` until `commands` are closed; `ready` receives a message when it serves, or why it cannot.
pub(super) fn run(folder: &Path, servers: usize, ready: Reply<Started>, commands: mpsc::Receiver<Command>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("kumo-embedded").enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve(folder, servers, ready, commands)),
        Err(error) => {
            let _ = ready.send(Err(Error::start("a runtime", error)));
        }
    }
}

/// Whoever has asked may have gone meanwhile: answers that nobody takes are dropped.
async fn serve(folder: &Path, servers: usize, ready: Reply<Started>, mut commands: mpsc::Receiver<Command>) {
    let mut nodes = match Nodes::start(folder) {
        Ok(nodes) => nodes,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = match nodes.add(servers).await {
        Ok(servers) => ready.send(Ok(Started { manager: nodes.manager(), servers })),
        Err(error) => ready.send(Err(error)),
    };
    while let Some(command) = commands.recv().await {
        match command {
            Command::Add(reply) => {
                let added = nodes.add(1).await.and_then(|added| added.first().copied().ok_or(Error::Ended));
                let _ = reply.send(added);
            }
            Command::Stop(place, reply) => {
                let _ = reply.send(nodes.stop_server(place).await);
            }
            Command::Start(place, reply) => {
                let _ = reply.send(nodes.start_server(place).await);
            }
        }
    }
    nodes.stop().await;
}
