//! The runtime of tools that ask nodes.

use std::future::Future;

use crate::cli::exit::Stop;

/// Runs a tool's work on this thread.
pub(in crate::cli) fn block_on<T>(work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Stop::Failed(format!("cannot start: {error}")))?;
    let done = runtime.block_on(work);
    // The look-up of a name may take long, and cannot be cut short.
    runtime.shutdown_background();
    done
}
