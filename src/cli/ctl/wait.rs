//! Waiting for a replace to finish, with progress on a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::manager::failed;
use crate::cli::exit::Stop;
use crate::client::{Caller, Overview};
use crate::wire::NodeAddress;
use crate::wire::extension::ManagerState;
use crate::wire::method::{FLAG_COPYING, FLAG_DELETING, FLAG_DIFFERENT, FLAG_UNFINISHED, STATUS_FLAGS, STATUS_ITEMS};
use crate::wire::params::Seed;

/// Interval of polling.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long one server may take to tell how far it is.
const SERVER_PATIENCE: Duration = Duration::from_secs(2);
/// How long a manager may be away.
const MANAGER_PATIENCE: Duration = Duration::from_secs(10);
/// How long servers may be idle while the manager waits for them before nothing more is to be expected.
const STUCK: Duration = Duration::from_secs(30);
/// How long servers must be idle before a replace of a manager that does not tell counts as finished.
const QUIET: Duration = Duration::from_secs(2);

/// Returns when the replace that `manager` has under way is over: well, or with the reason.
/// The manager must be one of this program.
pub(in crate::cli) async fn wait(caller: &Caller, manager: NodeAddress) -> Result<(), Stop> {
    watch(caller, manager, None).await
}

/// The same for a replace that was started after `before` was seen.
pub(super) async fn wait_for(caller: &Caller, manager: NodeAddress, before: &Overview) -> Result<(), Stop> {
    watch(caller, manager, Some(before)).await
}

async fn watch(caller: &Caller, manager: NodeAddress, before: Option<&Overview>) -> Result<(), Stop> {
    let mut line = Line { shown: false };
    let mut heard = Instant::now();
    let mut busy = Instant::now();
    // An original manager says nothing of a replace: it is not asked, the servers are.
    let original = before.is_some_and(|overview| overview.state.is_none());
    let mut first = None;
    let replaces = before.and_then(|overview| overview.state).map(|state| state.replaces);
    loop {
        let stage = if original {
            caller.spaces(manager).await.map(|(whs, _)| from_spaces(first.get_or_insert_with(|| whs.clone()), &whs))
        } else {
            caller.overview(manager).await.map(|now| stage(now.state, replaces))
        };
        let servers = match stage {
            Ok(Stage::Finished) => return Ok(()),
            Ok(Stage::GivenUp(why)) => return Err(Stop::Failed(format!("{why}; run it again"))),
            Ok(Stage::Running(doing)) => {
                heard = Instant::now();
                let servers = servers(caller, manager).await;
                line.show(&format!("{doing}: {} of {} servers, {} records", servers.busy, servers.all, servers.items));
                servers
            }
            Ok(Stage::Unreported) => {
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
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// The phase that the servers are in.
    Running(&'static str),
    Finished,
    /// Why it has not finished and will not.
    GivenUp(String),
    /// The manager is one of 2010, which does not tell.
    Unreported,
}

/// Where a replace is, by what the manager tells now, and by how many replaces it had finished when this one was started.
fn stage(now: Option<ManagerState>, before: Option<u64>) -> Stage {
    let Some(now) = now else {
        return Stage::GivenUp("an original manager has taken the place of the one that was asked".to_owned());
    };
    let has = |flag: u32| now.flags & flag != 0;
    if has(FLAG_COPYING) {
        Stage::Running("copying")
    } else if has(FLAG_DELETING) {
        Stage::Running("deleting")
    } else if has(FLAG_UNFINISHED) || has(FLAG_DIFFERENT) {
        Stage::GivenUp("the replace was given up, see the manager's log".to_owned())
    } else if before.is_some_and(|before| now.replaces <= before) {
        Stage::GivenUp("the manager does not know of the replace any more, see its log".to_owned())
    } else {
        Stage::Finished
    }
}

/// Where a replace is when the manager does not tell: it is given up when a server is lost.
fn from_spaces(first: &Seed, now: &Seed) -> Stage {
    match first.active().find(|server| !now.nodes.contains(&(*server, true))) {
        Some(lost) => Stage::GivenUp(format!("{lost} was lost, so the replace may have been given up")),
        None => Stage::Unreported,
    }
}

/// The states of the active servers.
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
    for server in whs.active() {
        servers.all += 1;
        let ask = async { (caller.number(server, STATUS_FLAGS).await, caller.number(server, STATUS_ITEMS).await) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replace_has_finished_only_if_the_manager_has_finished_one_since() {
        let state = |flags, replaces| Some(ManagerState { flags, replaces });
        assert_eq!(stage(state(FLAG_COPYING | FLAG_DIFFERENT, 3), Some(3)), Stage::Running("copying"));
        assert_eq!(stage(state(FLAG_DELETING, 3), Some(3)), Stage::Running("deleting"));
        assert_eq!(stage(state(0, 4), Some(3)), Stage::Finished);
        assert_eq!(stage(state(0, 0), None), Stage::Finished, "nothing is under way");
        for (flags, replaces) in [(FLAG_UNFINISHED, 4), (FLAG_DIFFERENT, 4), (0, 3), (0, 0)] {
            let given_up = stage(state(flags, replaces), Some(3));
            assert!(matches!(given_up, Stage::GivenUp(_)), "{flags} {replaces}: {given_up:?}");
        }
        assert!(matches!(stage(None, Some(0)), Stage::GivenUp(_)));
    }

    #[test]
    fn a_server_that_is_lost_ends_the_waiting_at_an_original_manager() {
        let node = |port| NodeAddress::new(([127, 0, 0, 1], port).into());
        let seed = |states: &[(u16, bool)]| Seed {
            nodes: states.iter().map(|(port, active)| (node(*port), *active)).collect(),
            ..Seed::default()
        };
        let first = seed(&[(1, true), (2, false)]);
        assert_eq!(from_spaces(&first, &seed(&[(1, true), (3, true)])), Stage::Unreported);
        assert!(matches!(from_spaces(&first, &seed(&[(1, false), (3, true)])), Stage::GivenUp(_)));
    }
}
