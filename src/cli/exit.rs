//! How a call of the binary ends: the exit status, and what is printed before it.

use std::io::Write;
use std::process::ExitCode;

/// Exit status after a mistake in the arguments.
pub(super) const USAGE: u8 = 2;
/// Exit status when a condition that the arguments set was not met.
pub(super) const UNMET: u8 = 3;
/// Exit status when the work was done, but part of its input was damaged and is lost.
pub(super) const LOSSES: u8 = 3;

/// Why a tool does not run: what to print, where, and the exit status that follows from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Text that was asked for (`--help`, `--version`): to stdout, status 0.
    Show(String),
    /// A mistake in the arguments, in one line: to stderr, status 2.
    Usage(String),
    /// The work failed; the reason in one line: to stderr, status 1.
    Failed(String),
    /// A condition that the arguments set was not met, in one line: to stderr, status 3.
    Unmet(String),
}

/// Prints why a tool did not run; the result is the exit status.
pub(super) fn report(program: &str, stop: Stop) -> ExitCode {
    match stop {
        Stop::Show(text) => {
            print(std::io::stdout(), &text);
            ExitCode::SUCCESS
        }
        Stop::Usage(line) => {
            print(std::io::stderr(), &format!("{program}: {line}; try '{program} --help'\n"));
            ExitCode::from(USAGE)
        }
        Stop::Failed(line) => {
            print(std::io::stderr(), &format!("{program}: {line}\n"));
            ExitCode::FAILURE
        }
        Stop::Unmet(line) => {
            print(std::io::stderr(), &format!("{program}: {line}\n"));
            ExitCode::from(UNMET)
        }
    }
}

/// Prints as much as the other end wants: a closed pipe is no reason to fail.
pub(super) fn print(mut to: impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}
