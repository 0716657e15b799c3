//! Leaving the terminal (`-d`): the launching process stays until the daemon listens or has failed.
//!
//! Both are joined by a pipe. The daemon writes one byte when it is ready; an end without one is a failure, of which
//! the daemon has said on the stderr that both still share why, unless it was killed.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;

use daemonize::{Daemonize, Outcome, Stdio};
use rustix::fs::FileType;

/// The byte that the daemon writes to the pipe.
const READY: u8 = 0;
const FAILED: u8 = 1;

/// Why the process could not detach, or what came of the daemon.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot detach: {0}")]
    System(#[from] io::Error),
    #[error("cannot detach: {0}")]
    Fork(#[from] daemonize::Error),
    #[error("the daemon was killed before it was ready")]
    Silence,
}

/// Which process this is now.
pub(super) enum Side {
    /// The one that was called; it ends with this status.
    Launcher(ExitCode),
    /// The one that serves: the same process if it did not detach.
    Daemon(Ready),
}

/// The daemon's end of the pipe, if it has detached.
#[derive(Debug)]
pub(super) struct Ready(Option<PipeWriter>);

/// Detaches from the terminal. With `keep_stdout`, stdout stays even if it is a terminal or a pipe.
///
/// The working directory and the file mode mask stay, so that relative paths do too.
pub(super) fn detach(keep_stdout: bool) -> Result<Side, Error> {
    let (reader, writer) = io::pipe()?;
    let keep_stdout = keep_stdout || outlives_the_terminal(io::stdout().as_fd());
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    let outcome = Daemonize::new()
        .working_directory(".")
        .umask(mask.bits())
        .stdout(if keep_stdout { Stdio::keep() } else { Stdio::devnull() })
        // Until it is ready, the daemon says on the terminal what is wrong.
        .stderr(Stdio::keep())
        .execute();
    match outcome {
        Outcome::Parent(parent) => {
            drop(writer);
            parent?;
            wait(reader).map(Side::Launcher)
        }
        Outcome::Child(child) => {
            drop(reader);
            child?;
            Ok(Side::Daemon(Ready(Some(writer))))
        }
    }
}

/// Waits for the daemon's byte.
fn wait(mut pipe: PipeReader) -> Result<ExitCode, Error> {
    let mut byte = [FAILED];
    match pipe.read(&mut byte)? {
        0 => Err(Error::Silence),
        _ => Ok(if byte == [READY] { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
    }
}

/// Whether writing to `stream` works, and holds nobody up, when the launching process and its terminal are gone.
fn outlives_the_terminal(stream: BorrowedFd) -> bool {
    rustix::fs::fstat(stream).is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::RegularFile)
}

impl Ready {
    /// Of a process that stays in the foreground: nobody waits for it.
    pub(super) fn foreground() -> Self {
        Self(None)
    }

    /// The service listens: the launching process may end with success.
    pub(super) fn report(&mut self) {
        let Some(mut pipe) = self.0.take() else { return };
        if !outlives_the_terminal(io::stderr().as_fd())
            && let Err(error) = File::options()
                .write(true)
                .open("/dev/null")
                .and_then(|null| rustix::stdio::dup2_stderr(null).map_err(io::Error::from))
        {
            tracing::warn!("cannot leave stderr: {error}");
        }
        // If the launching process has been killed meanwhile, nobody waits.
        let _ = pipe.write_all(&[READY]);
    }
}

/// Dropped without having reported readiness: the start has failed, and the reason is on stderr.
impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(pipe) = &mut self.0 {
            let _ = pipe.write_all(&[FAILED]);
        }
    }
}
