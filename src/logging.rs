//! Where log lines go: stdout or a file, off the request path, reopened for logrotate.
//!
//! A line has time (UTC), level, what happened and, as a field, with which peer. Knows nothing of who writes lines.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::Dispatch;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// Lines that may wait for a slow disk or reader; beyond it they are dropped, counted, and the count is logged.
const LINES_WAITING: usize = 16_384;

/// How long a panic or the end of the process waits for lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The level of the log, and its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where lines go.
    pub target: Target,
    /// Information as well, not only warnings and errors.
    pub verbose: bool,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The process's standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened for appending.
    #[error("cannot open the log file '{}': {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// There is one already in this process.
    #[error("the log is already open")]
    AlreadyOpen,
}

/// The process's log; when it is dropped, what waits is written.
#[derive(Debug)]
pub struct Log {
    output: Arc<Output>,
    queue: Queue,
    worker: Option<WorkerGuard>,
}

impl Log {
    /// Opens the log and makes it the process's own; panics are logged from now on.
    ///
    /// `RUST_LOG` overrides what `settings` say about levels.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let (log, events, mistake) = Self::make(settings, std::env::var("RUST_LOG").ok().as_deref())?;
        tracing::dispatcher::set_global_default(events).map_err(|_| Error::AlreadyOpen)?;
        log_panics(Arc::clone(&log.output), log.queue.clone());
        if let Some(mistake) = mistake {
            tracing::warn!("RUST_LOG is not understood and ignored: {mistake}");
        }
        Ok(log)
    }

    /// The log, what turns events into its lines, and what is wrong with `rust_log`.
    fn make(settings: &Settings, rust_log: Option<&str>) -> Result<(Self, Dispatch, Option<String>), Error> {
        let output = Arc::new(Output::open(&settings.target)?);
        let (queue, worker) = NonBlockingBuilder::default()
            .buffered_lines_limit(LINES_WAITING)
            .thread_name("log")
            .finish(Arc::clone(&output).writer());
        let queue = Queue { queue, sent: Arc::default() };
        // It is empty: this output has just been made.
        let _ = output.dropped.set(queue.queue.error_counter());
        let (filter, mistake) = filter(rust_log, if settings.verbose { "info" } else { "warn" });
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_target(false)
            .with_ansi(settings.target == Target::Stdout && io::stdout().is_terminal())
            .with_writer({
                let queue = queue.clone();
                move || queue.clone()
            })
            .finish();
        Ok((Self { output, queue, worker: Some(worker) }, Dispatch::new(subscriber), mistake))
    }

    /// Opens the file anew, after logrotate has moved it. If that fails, the old one is kept.
    pub fn reopen(&self) {
        match self.output.reopen() {
            Ok(()) => tracing::info!("log reopened"),
            Err(error) => tracing::error!("{error}; continuing with the old one"),
        }
    }

    /// Waits, up to a second, until every line so far is written; false if that was not long enough.
    pub fn flush(&self) -> bool {
        self.output.flush(&self.queue, FLUSH_TIMEOUT)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if !self.flush()
            && let Some(worker) = self.worker.take()
        {
            // A reader of stdout that has stopped reading must not keep the process from ending.
            std::mem::forget(worker);
        }
    }
}

/// The filter that `wish` asks for, or `default`; and what is wrong with the wish.
fn filter(wish: Option<&str>, default: &str) -> (EnvFilter, Option<String>) {
    match wish.filter(|wish| !wish.is_empty()).map(|wish| EnvFilter::builder().parse(wish)) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(default), Some(error.to_string())),
        None => (EnvFilter::new(default), None),
    }
}

/// Logs each panic before anything else happens to its thread, which may take the process down.
fn log_panics(output: Arc<Output>, queue: Queue) {
    let standard = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let message = info.payload_as_str().unwrap_or("(no message)");
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(location, thread = thread.name().unwrap_or("?"), "panic: {message}");
        output.flush(&queue, FLUSH_TIMEOUT);
        standard(info);
    }));
}

/// The file behind the queue.
#[derive(Debug)]
struct Output {
    /// `None` for stdout.
    path: Option<PathBuf>,
    state: Mutex<State>,
    /// Signalled after each line.
    progress: Condvar,
    /// Lines that found the queue full.
    dropped: OnceLock<ErrorCounter>,
}

#[derive(Debug)]
struct State {
    file: File,
    /// Lines that came out of the queue.
    arrived: usize,
    /// Those of them that could not be written.
    failed: usize,
    /// Lost lines that have been reported.
    reported: usize,
}

/// The way into the queue: never waits.
#[derive(Debug, Clone)]
struct Queue {
    queue: NonBlocking,
    /// Lines ever sent, those that did not fit included.
    sent: Arc<AtomicUsize>,
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.queue.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn open(target: &Target) -> Result<Self, Error> {
        let (path, file) = match target {
            Target::File(path) => (Some(path.clone()), append(path)?),
            Target::Stdout => {
                let copy = io::stdout().as_fd().try_clone_to_owned();
                (None, copy.map_err(|cause| Error::Open { path: "stdout".into(), cause })?.into())
            }
        };
        let state = Mutex::new(State { file, arrived: 0, failed: 0, reported: 0 });
        Ok(Self { path, state, progress: Condvar::new(), dropped: OnceLock::new() })
    }

    fn writer(self: Arc<Self>) -> Writer {
        Writer(self)
    }

    fn reopen(&self) -> Result<(), Error> {
        if let Some(path) = &self.path {
            let file = append(path)?;
            self.state.lock().file = file;
        }
        Ok(())
    }

    /// Waits until the lines before this call are written; false if that takes longer than `timeout`.
    fn flush(&self, queue: &Queue, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let sent = queue.sent.load(Ordering::Relaxed);
        let done = |state: &State| state.arrived + self.dropped() >= sent;
        let Some(mut state) = self.state.try_lock_until(deadline) else { return false };
        while !done(&state) {
            if self.progress.wait_until(&mut state, deadline).timed_out() {
                return done(&state);
            }
        }
        true
    }

    /// Lines that found the queue full.
    fn dropped(&self) -> usize {
        self.dropped.get().map_or(0, ErrorCounter::dropped_lines)
    }
}

fn append(path: &Path) -> Result<File, Error> {
    let cause = |cause| Error::Open { path: path.to_owned(), cause };
    OpenOptions::new().append(true).create(true).open(path).map_err(cause)
}

/// The end of the queue, on the thread of the worker.
struct Writer(Arc<Output>);

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line)?;
        Ok(line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        let mut state = self.0.state.lock();
        if state.file.write_all(line).is_err() {
            state.failed += 1;
        }
        state.arrived += 1;
        self.0.progress.notify_all();
        Ok(())
    }

    /// Called when the queue is empty: the time to say what was lost.
    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.0.state.lock();
        let lost = self.0.dropped() + state.failed;
        let news = lost.saturating_sub(state.reported);
        if news > 0 {
            let mut line = String::new();
            // Writing to a string does not fail.
            let _ = SystemTime.format_time(&mut format::Writer::new(&mut line));
            line.push_str("  WARN ");
            line.push_str(&news.to_string());
            line.push_str(" log lines lost: too many at once, or the log could not be written\n");
            if state.file.write_all(line.as_bytes()).is_ok() {
                state.reported = lost;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
