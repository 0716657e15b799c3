//! An operator: types commands to the managers, and looks at copies on the servers.

use std::time::Duration;

use kumo_server::client::{self, Caller, Overview};
use kumo_server::env::Env;
use kumo_server::ring;
use kumo_server::wire::NodeAddress;
use kumo_server::wire::method::{ErrorCode, Get, StartReplace};

/// A command to a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Attach what is connected; with a replace.
    Attach(bool),
    /// Remove what is faulty; with a replace.
    Detach(bool),
    Replace,
    FullReplace,
    Backup,
}

/// Someone who types commands to the managers.
pub(crate) struct Operator {
    caller: Caller,
    managers: Vec<NodeAddress>,
}

/// What a server holds of a key, as it answers; an error if it is none of its owners.
pub(crate) type Held = Result<Vec<u8>, ErrorCode>;

impl Operator {
    pub(crate) fn new(env: &Env, managers: Vec<NodeAddress>) -> Self {
        let options = client::Options { call_timeout: Duration::from_secs(10), ..client::Options::default() };
        Self { caller: Caller::new(env, &options), managers }
    }

    /// Gives a command to the first manager that takes it.
    pub(crate) async fn order(&self, command: Command) -> Result<(), ErrorCode> {
        let mut result = Err(ErrorCode::NodeLost);
        for manager in &self.managers {
            result = match command {
                Command::Attach(replace) => self.caller.attach(*manager, replace, None).await.map(drop),
                Command::Detach(replace) => self.caller.detach(*manager, replace, None).await.map(drop),
                Command::Replace => self.caller.ask(*manager, &StartReplace { full: false }).await.map(drop),
                Command::FullReplace => self.caller.ask(*manager, &StartReplace { full: true }).await.map(drop),
                Command::Backup => self.caller.backup(*manager, b"simulated").await,
            };
            if !matches!(result, Err(ErrorCode::NodeLost | ErrorCode::TransportLost | ErrorCode::TimedOut)) {
                break;
            }
        }
        result
    }

    /// What the first manager that answers knows.
    pub(crate) async fn overview(&self) -> Option<Overview> {
        for manager in &self.managers {
            if let Ok(overview) = self.caller.overview(*manager).await {
                return Some(overview);
            }
        }
        None
    }

    /// Waits until so many servers are known and not attached, for at most `limit`.
    pub(crate) async fn wait_detached(&self, count: usize, limit: Duration) -> bool {
        self.wait(limit, async || self.overview().await.is_some_and(|overview| overview.detached.len() >= count)).await
    }

    /// Whether `count` servers are active for reading and writing alike, as every manager says.
    pub(crate) async fn is_settled(&self, count: usize) -> bool {
        for manager in &self.managers {
            let Ok((whs, rhs)) = self.caller.spaces(*manager).await else { return false };
            if whs != rhs || whs.nodes.iter().filter(|(_, active)| *active).count() != count {
                return false;
            }
        }
        true
    }

    /// Waits for that, for at most `limit`.
    pub(crate) async fn wait_settled(&self, count: usize, limit: Duration) -> bool {
        self.wait(limit, async || self.is_settled(count).await).await
    }

    async fn wait(&self, limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
        let waiting = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(limit, waiting).await.is_ok()
    }

    /// The raw value that a server answers for a key.
    pub(crate) async fn read(&self, server: NodeAddress, key: &[u8]) -> Held {
        self.caller.ask(server, &Get { key: &ring::raw_key(key), look: None }).await
    }
}
