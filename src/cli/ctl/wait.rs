//! Waiting for a replace to finish, with progress on a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::{Stop, failed};
use crate::client::Caller;
use crate::wire::NodeAddress;
use crate::wire::method::{
    ErrorCode, FLAG_COPYING, FLAG_DELETING, FLAG_DIFFERENT, FLAG_UNFINISHED, STATUS_FLAGS, STATUS_ITEMS,
};

/// Pause between two looks.
const GLANCE: Duration = Duration::from_millis(200);
/// How long one server may take to tell how far it is.
const SERVER_PATIENCE: Duration = Duration::from_secs(2);
/// How long a manager may be away.
const MANAGER_PATIENCE: Duration = Duration::from_secs(10);
/// How long servers may be idle while the manager waits for them before nothing more is to be expected.
const STUCK: Duration = Duration::from_secs(30);
/// How long servers must be idle before a replace of a manager that does not tell counts as finished.
const QUIET: Duration = Duration::from_secs(2);

/// Returns when the replace that `manager` has under way is over: well, or with the reason.
pub(in crate::cli) async fn wait(caller: &Caller, manager: NodeAddress) -> Result<(), Stop> {
    let mut line = Line { shown: false };
    let mut heard = Instant::now();
    let mut busy = Instant::now();
    loop {
        let servers = match stage(caller, manager).await {
            Ok(Stage::Finished) => return Ok(()),
            Ok(Stage::GivenUp) => {
                return Err(Stop::Failed("the replace was given up, see the manager's log; run it again".to_owned()));
            }
            Ok(Stage::Running(doing)) => {
                heard = Instant::now();
                let servers = servers(caller, manager).await;
                line.show(&format!("{doing}: {} of {} servers, {} records", servers.busy, servers.all, servers.items));
                servers
            }
            Ok(Stage::Untold) => {
                heard = Instant::now();
                let servers = servers(caller, manager).await;
                if servers.busy == 0 && !servers.differ && busy.elapsed() > QUIET {
                    return Ok(());
                }
                line.show(&format!("{} of {} servers, {} records", servers.busy, servers.all, servers.items));
                servers
            }
            Err(error) if heard.elapsed() > MANAGER_PATIENCE => return Err(failed(manager, error)),
            Err(_) => Servers::default(),
        };
        if servers.busy > 0 {
            busy = Instant::now();
        } else if busy.elapsed() > STUCK {
            return Err(Stop::Failed("the servers are idle but the replace has not ended; run it again".to_owned()));
        }
        tokio::time::sleep(GLANCE).await;
    }
}

enum Stage {
    /// What the servers are doing.
    Running(&'static str),
    Finished,
    GivenUp,
    /// The manager is one of 2010, which cannot be asked.
    Untold,
}

async fn stage(caller: &Caller, manager: NodeAddress) -> Result<Stage, ErrorCode> {
    let flags = match caller.number(manager, STATUS_FLAGS).await {
        Err(ErrorCode::Protocol) => return Ok(Stage::Untold),
        flags => flags?,
    };
    let has = |flag: u32| flags & u64::from(flag) != 0;
    Ok(if has(FLAG_COPYING) {
        Stage::Running("copying")
    } else if has(FLAG_DELETING) {
        Stage::Running("deleting")
    } else if has(FLAG_UNFINISHED) || has(FLAG_DIFFERENT) {
        Stage::GivenUp
    } else {
        Stage::Finished
    })
}

/// What the active servers say of themselves.
#[derive(Default)]
struct Servers {
    all: usize,
    /// Those that copy or delete.
    busy: usize,
    items: u64,
    /// Reading and writing have different hash spaces.
    differ: bool,
}

async fn servers(caller: &Caller, manager: NodeAddress) -> Servers {
    let mut servers = Servers::default();
    let Ok((whs, rhs)) = caller.spaces(manager).await else {
        return Servers { differ: true, ..servers };
    };
    servers.differ = whs.clocktime != rhs.clocktime;
    for (server, _) in whs.nodes.iter().filter(|(_, active)| *active) {
        servers.all += 1;
        let ask = async { (caller.number(*server, STATUS_FLAGS).await, caller.number(*server, STATUS_ITEMS).await) };
        if let Ok((Ok(flags), Ok(items))) = tokio::time::timeout(SERVER_PATIENCE, ask).await {
            servers.busy += usize::from(flags & u64::from(FLAG_COPYING | FLAG_DELETING) != 0);
            servers.items = servers.items.saturating_add(items);
        }
    }
    servers
}

/// One line of a terminal that is written over and over, and gone in the end.
struct Line {
    shown: bool,
}

impl Line {
    fn show(&mut self, text: &str) {
        let mut err = std::io::stderr();
        if err.is_terminal() {
            self.shown = true;
            // A terminal that is gone has nobody in front of it.
            let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
