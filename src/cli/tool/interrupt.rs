//! SIGINT and SIGTERM for tools that have something to put in order before they end.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::exit::Stop;

/// Set by SIGINT and SIGTERM; a second one ends the process at once.
pub(in crate::cli) struct Interrupt {
    stop: Arc<AtomicBool>,
    signal: Arc<AtomicU8>,
}

impl Interrupt {
    /// Receives the signals from now on.
    pub(in crate::cli) fn watch() -> Result<Self, Stop> {
        Self::start().map_err(|error| Stop::Failed(format!("cannot handle signals: {error}")))
    }

    /// Whether one has come.
    pub(in crate::cli) fn flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// The exit status of a tool that has ended well, or because of a signal.
    pub(in crate::cli) fn status(&self) -> ExitCode {
        match self.signal.load(Ordering::Relaxed) {
            0 => ExitCode::SUCCESS,
            signal => ExitCode::from(128 + signal),
        }
    }

    fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate) = {
            let _within = runtime.enter();
            // To a tool as to a daemon, a limit of file sizes is a full disk.
            crate::life::ignore_meaningless()?;
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let this = Self { stop: Arc::default(), signal: Arc::default() };
        let (stop, number) = (this.stop.clone(), this.signal.clone());
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    let came = tokio::select! {
                        _ = interrupt.recv() => 2,
                        _ = terminate.recv() => 15,
                    };
                    number.store(came, Ordering::Relaxed);
                    if stop.swap(true, Ordering::Relaxed) {
                        std::process::exit(128 + i32::from(came));
                    }
                }
            });
        })?;
        Ok(this)
    }
}
