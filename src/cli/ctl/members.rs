//! Attaching and detaching: waiting for the servers that are meant, changing them, and saying what was done.

use std::time::{Duration, Instant};

use super::choice::{Kind, MemberChange, Unmet, names};
use super::manager::{explained, failed, overview};
use crate::cli::exit::{Stop, print};
use crate::cli::tool::reason;
use crate::client::{Caller, Overview};
use crate::wire::NodeAddress;
use crate::wire::extension::{Changed, Choice};
use crate::wire::method::ErrorCode;

/// Interval of polling the manager.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A wait that takes longer than this is explained.
const SHORT: Duration = Duration::from_secs(1);

/// The changes, and whether a replace was started.
#[derive(Debug)]
pub(super) struct Done {
    /// Lines for stdout.
    pub(super) text: String,
    pub(super) replace: bool,
    /// The cluster as it was when the manager was first asked.
    pub(super) before: Overview,
}

/// Attaches or detaches the servers of `wanted`; waits until they are listed, at most for `patience`. Says on stderr
/// what it waits for.
pub(super) async fn change(
    caller: &Caller,
    manager: NodeAddress,
    wanted: &MemberChange,
    replace: bool,
    patience: Duration,
) -> Result<Done, Stop> {
    let started = Instant::now();
    let mut before = None;
    let mut explained = false;
    loop {
        let overview = match caller.overview(manager).await {
            Ok(overview) => overview,
            // It may just be starting, as the servers may.
            Err(ErrorCode::NodeLost) if wanted.may_wait() && started.elapsed() < patience => {
                explain(
                    &mut explained,
                    started,
                    patience,
                    &format!("manager {manager} {}", reason(ErrorCode::NodeLost)),
                );
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            }
            Err(error) => return Err(failed(manager, error)),
        };
        let before = before.get_or_insert_with(|| overview.clone());
        let unmet = match wanted.choose(&overview) {
            Ok(servers) => {
                let changed = if overview.state.is_some() {
                    let choice = Choice { servers: servers.clone(), force: false };
                    let changed = order(caller, manager, wanted.kind, replace, Some(choice)).await?;
                    changed.ok_or_else(|| failed(manager, ErrorCode::Unknown))?
                } else {
                    change_at_original(caller, manager, wanted, replace, &overview, servers.clone()).await?
                };
                if changed.missing.is_empty() {
                    return Ok(Done {
                        text: report(wanted.kind, &servers.unwrap_or_default(), &changed, replace),
                        replace: changed.replace,
                        before: before.clone(),
                    });
                }
                // They have gone, or come back, since the manager was asked for its list.
                format!("{} cannot be {}ed now", names(&changed.missing), wanted.verb())
            }
            Err(Unmet::Never(text)) => return Err(Stop::Unmet(format!("{text}; nothing was changed"))),
            Err(Unmet::Yet(text)) => text,
        };
        if started.elapsed() >= patience {
            let seconds = patience.as_secs_f64();
            return Err(Stop::Unmet(format!("{unmet} (after {seconds} s); nothing was changed")));
        }
        explain(&mut explained, started, patience, &unmet);
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Detaches the servers that `wanted` names without their votes.
pub(super) async fn force(
    caller: &Caller,
    manager: NodeAddress,
    wanted: &MemberChange,
    replace: bool,
) -> Result<Done, Stop> {
    let before = overview(caller, manager).await?;
    let knows = before.state.is_some()
        && caller.manager_figures(manager).await.map_err(|error| failed(manager, error))?.is_some();
    if !knows {
        return Err(Stop::Unmet(format!("manager {manager} does not know --force; nothing was changed")));
    }
    let servers: Vec<_> = wanted.servers.iter().copied().collect();
    let choice = Choice { servers: Some(servers.clone()), force: true };
    let changed = order(caller, manager, Kind::Detach, replace, Some(choice)).await?;
    let changed = changed.ok_or_else(|| failed(manager, ErrorCode::Unknown))?;
    if let Some(why) = &changed.refused {
        return Err(Stop::Unmet(format!("refused: {why}; nothing was changed")));
    }
    if let Some(lost) = &changed.lost {
        print(std::io::stderr(), &format!("{lost}\nbefore one of them is started again, remove its store\n"));
    }
    Ok(Done { text: report(Kind::Detach, &servers, &changed, replace), replace: changed.replace, before })
}

/// Says once, on stderr, what a wait that is not short is for.
fn explain(explained: &mut bool, started: Instant, patience: Duration, why: &str) {
    if !*explained && started.elapsed() >= SHORT {
        *explained = true;
        print(std::io::stderr(), &format!("waiting up to {} s: {why}\n", patience.as_secs_f64()));
    }
}

/// Has the manager attach or detach; one of this program says what it has done if there is a choice.
async fn order(
    caller: &Caller,
    manager: NodeAddress,
    kind: Kind,
    replace: bool,
    choice: Option<Choice>,
) -> Result<Option<Changed>, Stop> {
    let answer = match kind {
        Kind::Attach => caller.attach(manager, replace, choice).await,
        Kind::Detach => caller.detach(manager, replace, choice).await,
    };
    match answer {
        Ok(changed) => Ok(changed),
        Err(error) => Err(explained(caller, manager, error).await),
    }
}

/// An original manager takes every server that it lists and says nothing: if that is not what was asked for, it is not asked.
async fn change_at_original(
    caller: &Caller,
    manager: NodeAddress,
    wanted: &MemberChange,
    replace: bool,
    before: &Overview,
    servers: Option<Vec<NodeAddress>>,
) -> Result<Changed, Stop> {
    if let Some(servers) = &servers {
        let mut others = wanted.listed(before);
        others.retain(|server| !servers.contains(server));
        if !others.is_empty() {
            return Err(Stop::Unmet(format!(
                "an original manager {}es every server that it lists, also {}; nothing was changed",
                wanted.verb(),
                names(&others)
            )));
        }
    }
    order(caller, manager, wanted.kind, replace, None).await?;
    let after = overview(caller, manager).await?;
    let left =
        servers.map(|servers| MemberChange { servers: servers.into_iter().collect(), ..wanted.clone() }.left(&after));
    if let Some(left) = left.filter(|left| !left.is_empty()) {
        return Err(Stop::Unmet(format!("{}: the manager did not {} it", names(&left), wanted.verb())));
    }
    Ok(Changed { servers: wanted.difference(before, &after), replace, ..Changed::default() })
}

/// Tells what was done: a line for each server of `chosen`; or why nothing was done, if none was chosen.
fn report(kind: Kind, chosen: &[NodeAddress], changed: &Changed, replace: bool) -> String {
    let (verb, done, so_before) = match kind {
        Kind::Attach => ("attach", "attached", "already attached"),
        Kind::Detach => ("detach", "detached", "already detached"),
    };
    let line = |word: &str, server: &NodeAddress| format!("{word} {server}\n");
    if changed.servers.is_empty() && chosen.is_empty() {
        let besides = match (replace, changed.replace) {
            (false, _) => "",
            (true, true) => "; a replace was started",
            (true, false) => "; no replace was started",
        };
        return format!("nothing to {verb}{besides}\n");
    }
    let before = chosen.iter().filter(|server| !changed.servers.contains(server));
    changed
        .servers
        .iter()
        .map(|server| line(done, server))
        .chain(before.map(|server| line(so_before, server)))
        .collect()
}
