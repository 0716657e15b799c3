//! The manager that `ctl` talks to: calls to it, and the line for one that failed.

use std::time::Duration;

use crate::cli::exit::Stop;
use crate::cli::tool::reason;
use crate::client::{Caller, Options, Overview};
use crate::env::Env;
use crate::wire::NodeAddress;
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

/// Asks a manager which servers it knows.
pub(in crate::cli) async fn overview(caller: &Caller, manager: NodeAddress) -> Result<Overview, Stop> {
    caller.overview(manager).await.map_err(|error| failed(manager, error))
}
