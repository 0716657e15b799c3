//! The life of a daemon's process: detaching, pid file, log, runtime, signals, and an orderly end.
//!
//! Knows nothing of what the daemon serves: a [`Service`] is started, reopens its log files on request, and is stopped.

mod detach;
mod files;
mod launcher;
mod pid_file;
mod reserve;
mod signals;

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::time::Instant;

use crate::logging::{self, Log};
use detach::{Ready, Side};
pub use files::{connections, raise_limit};
use pid_file::PidFile;
pub(crate) use signals::ignore_meaningless;
use signals::{Order, Signal, Signals};

/// Tasks that a network thread runs between two polls of the sockets.
///
/// A thread's own queue holds 256 tasks. Those beyond it go to a shared queue, which is looked at once for every 61 of the
/// thread's own: with a thousand connections at work some would wait five times as long as others.
const EVENTS_PER_POLL: u8 = 128;

/// Why a service cannot start or go on, in one line once its sources are appended.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// How a daemon's process lives.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name, in front of the line that says why it ended.
    pub program: String,
    /// Detach from the terminal, and write the process id here.
    pub pid_file: Option<PathBuf>,
    /// Keep stdout when detaching, even if it is a terminal or a pipe.
    pub keep_stdout: bool,
    /// End when stdin does: whoever holds its other end is gone, or wants this to end.
    pub end_with_stdin: bool,
    /// The log.
    pub log: logging::Settings,
    /// Threads that serve connections; `None`: half as many as the machine has cores.
    pub network_threads: Option<usize>,
    /// Counts up when a network thread begins a call that the kernel may hold back, and when that ends. With it there is a
    /// thread in reserve.
    pub blocking_calls: Option<Arc<AtomicU64>>,
    /// How long requests in flight may take once the process has been asked to end.
    pub shutdown_timeout: Duration,
}

impl Settings {
    /// Half of the cores, and the one in reserve: the store's threads and the kernel's work for the sockets need the
    /// others. With a thread for each core they wake and displace one another, and single requests cost a fifth more.
    fn worker_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.network_threads.unwrap_or((cores / 2).max(1)) + usize::from(self.blocking_calls.is_some())
    }
}

/// The service of a daemon. It listens from the moment it exists.
pub trait Service: Sized {
    /// Stops accepting, finishes and answers what is in flight until `deadline`, writes what must be kept, and closes.
    fn stop(self, deadline: Instant) -> impl Future<Output = Result<(), Cause>>;

    /// Opens its log-like files anew (SIGHUP).
    fn reopen(&self) {}

    /// Completes when the service cannot go on. May be called again after it has been dropped.
    fn failed(&mut self) -> impl Future<Output = Cause> {
        std::future::pending()
    }
}

/// Runs the service that `start` makes until a signal ends it; the result is the process's exit status.
///
/// Call it before the process has a second thread: it may fork. The status is 0 after SIGTERM or SIGINT and an orderly
/// end, 1 after an error, of which one line is on stderr, and 128 + n after signal n when it did not end in order: it had
/// not started yet, or SIGINT came twice.
/// When it detaches, this returns in the launching process once the service listens or has failed.
pub fn run<S: Service>(settings: &Settings, start: impl AsyncFnOnce() -> Result<S, Cause>) -> ExitCode {
    // Outlives everything else: the launching process ends only when the reason is printed and the pid file is gone.
    let mut ready = match settings.pid_file.as_ref().map(|_| detach::detach(settings.keep_stdout)) {
        None => Ready::foreground(),
        Some(Ok(Side::Daemon(ready))) => ready,
        Some(Ok(Side::Launcher(status))) => return status,
        Some(Err(error)) => return complain(settings, &error),
    };
    match live(settings, &mut ready, start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => complain(settings, &*cause),
    }
}

/// Runs the service from taking the pid file to removing it.
fn live<S: Service>(
    settings: &Settings,
    ready: &mut Ready,
    start: impl AsyncFnOnce() -> Result<S, Cause>,
) -> Result<(), Cause> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.worker_threads())
        .max_io_events_per_tick(usize::from(EVENTS_PER_POLL))
        .event_interval(u32::from(EVENTS_PER_POLL))
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    // First of all: no file is written before a signal that a write can cause is ignored.
    let signals = {
        let _within = runtime.enter();
        Signals::new().map_err(|error| format!("cannot handle signals: {error}"))?
    };
    let claim = |path| PidFile::claim(path, &settings.program);
    let mut pid_file = settings.pid_file.as_deref().map(claim).transpose()?;
    let log = Log::open(&settings.log)?;
    files::raise_limit();
    let _reserve = {
        let _within = runtime.enter();
        settings.blocking_calls.clone().map(reserve::stand_by)
    };
    let end = runtime.block_on(serve(settings, &log, &mut pid_file, signals, ready, start));
    if let Err(cause) = &end {
        tracing::error!("ending: {}", line(&**cause));
    }
    // What a service has left behind, such as a store that is still being opened, is not waited for.
    runtime.shutdown_background();
    // Whoever sees that the pid file is gone finds all of the log, but for what there is to say about that file.
    log.flush();
    drop(pid_file);
    drop(log);
    end
}

/// Starts the service, serves until a signal or failure, and stops it.
async fn serve<S: Service>(
    settings: &Settings,
    log: &Log,
    pid_file: &mut Option<PidFile>,
    mut signals: Signals,
    ready: &mut Ready,
    start: impl AsyncFnOnce() -> Result<S, Cause>,
) -> Result<(), Cause> {
    // Pinned here and below, so that ending at once does not begin by dropping what may take its time to go.
    let starting = pin!(start());
    let mut service = tokio::select! {
        service = starting => service?,
        signal = signals.end() => {
            tracing::warn!("{signal} before the start was complete");
            end_at_once(signal, log, pid_file);
        }
    };
    ready.report();
    let mut launcher_gone = std::pin::pin!(launcher::gone(settings.end_with_stdin));
    let begun = loop {
        tokio::select! {
            order = signals.next() => match order {
                Order::End(signal) => {
                    tracing::info!("{signal}: stopping");
                    break Some(signal);
                }
                Order::Reopen => {
                    log.reopen();
                    service.reopen();
                }
            },
            () = &mut launcher_gone => {
                tracing::info!("stdin has ended: stopping");
                break None;
            }
            cause = service.failed() => return Err(cause),
        }
    };
    let stopping = pin!(service.stop(Instant::now() + settings.shutdown_timeout));
    tokio::select! {
        stopped = stopping => stopped?,
        signal = signals.cut_short(begun) => {
            tracing::warn!("{signal} again: ending at once");
            end_at_once(signal, log, pid_file);
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Ends the process without waiting for any thread, and without any destructor but those of log and pid file.
fn end_at_once(signal: Signal, log: &Log, pid_file: &mut Option<PidFile>) -> ! {
    log.flush();
    drop(pid_file.take());
    log.flush();
    std::process::exit(signal.exit_status());
}

/// Prints why the process ends; the result is its exit status.
fn complain(settings: &Settings, cause: &(dyn std::error::Error + 'static)) -> ExitCode {
    use std::io::Write;
    // With stderr closed it cannot be printed.
    let _ = writeln!(std::io::stderr(), "{}: {}", settings.program, line(cause));
    ExitCode::FAILURE
}

/// An error and its sources in one line, without repeating what an error has taken over from its source.
fn line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Failure {
        said: &'static str,
        source: Option<Box<Failure>>,
    }

    #[test]
    fn an_error_and_its_sources_are_one_line() {
        let inner = || Some(Box::new(Failure { said: "disk\nfull", source: None }));
        assert_eq!(line(&Failure { said: "cannot write", source: inner() }), "cannot write: disk full");
        assert_eq!(line(&Failure { said: "cannot write: disk\nfull", source: inner() }), "cannot write: disk full");
    }
}
