//! The manager that `ctl` talks to: calls to it, and the line for one that failed.

use std::time::Duration;

use crate::cli::exit::Stop;
use crate::cli::tool::reason;
use crate::client::{Caller, Options, Overview};
use crate::env::Env;
use crate::wire::NodeAddress;
use crate::wire::figures::ManagerFigures;
use crate::wire::method::ErrorCode;

/// A client of nodes whose answers may take so long.
pub(in crate::cli) fn caller(call_timeout: Duration) -> Caller {
    Caller::new(&Env::real(), &Options { call_timeout, ..Options::default() })
}

/// The one line for a call to the manager that failed.
pub(in crate::cli) fn failed(manager: NodeAddress, error: ErrorCode) -> Stop {
    Stop::Failed(match error {
        ErrorCode::Server => format!("manager {manager} refuses: no server is active (its log says more)"),
        error => format!("manager {manager} {}", reason(error)),
    })
}

/// The same for a change, when it may be that no majority of the voters answers.
pub(super) async fn explained(caller: &Caller, manager: NodeAddress, error: ErrorCode) -> Stop {
    if let (ErrorCode::Server | ErrorCode::TimedOut, Ok(Some(figures))) = (error, caller.manager_figures(manager).await)
        && let Some(why) = no_majority(&figures)
    {
        return Stop::Failed(format!("manager {manager} cannot change anything: {why}"));
    }
    failed(manager, error)
}

/// Who is missing for a majority, and what can be done; `None` if there is one, or none is needed.
pub(super) fn no_majority(figures: &ManagerFigures) -> Option<String> {
    if !figures.votes || figures.voters_heard > figures.voters / 2 {
        return None;
    }
    let is_silent = |address: &NodeAddress| figures.voters_silent.contains(&address.to_string());
    let servers = figures.servers.iter().filter(|member| member.active).filter_map(|member| member.address);
    let servers: Vec<_> = servers.filter(is_silent).map(|address| address.to_string()).collect();
    let force = if servers.is_empty() {
        String::new()
    } else {
        format!("; if they are off for good: detach --force {}", servers.join(" "))
    };
    let silent = figures.voters_silent.join(", ");
    Some(format!("no majority: {silent} do not answer, and without them no server serves; start them again{force}"))
}

/// Asks a manager which servers it knows.
pub(in crate::cli) async fn overview(caller: &Caller, manager: NodeAddress) -> Result<Overview, Stop> {
    caller.overview(manager).await.map_err(|error| failed(manager, error))
}
