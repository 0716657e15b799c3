//! The signals a daemon obeys.

use std::fmt;
use std::io;

use tokio::signal::unix::{self, SignalKind};

/// A signal that ends the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    /// The exit status of a process that this signal has ended, by the shell's convention.
    pub(super) fn exit_status(self) -> i32 {
        128 + match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// The action that a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Stop.
    End(Signal),
    /// Open log files anew.
    Reopen,
}

/// Signals that would end the process by default and mean nothing to a daemon: ignored.
///
/// A write that would make a file longer than the process may have (SIGXFSZ) then fails, as on a full disk. SIGPIPE is
/// not among them: the standard library ignores it from the first instruction of a process.
const IGNORED: [rustix::process::Signal; 7] = {
    use rustix::process::Signal;
    [Signal::XFSZ, Signal::USR1, Signal::USR2, Signal::ALARM, Signal::VTALARM, Signal::PROF, Signal::IO]
};

/// Ignores, from now on and until the process ends, the signals that mean nothing to it. Must be called within a runtime.
pub(crate) fn ignore_meaningless() -> io::Result<()> {
    for ignored in IGNORED {
        // They are caught, by a handler that stays, and nobody asks for them.
        let _ = unix::signal(SignalKind::from_raw(ignored.as_raw()))?;
    }
    Ok(())
}

/// Receives signals from its creation on; until then they have their usual effect.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Must be called within the runtime.
    pub(super) fn new() -> io::Result<Self> {
        ignore_meaningless()?;
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// Waits for any of them.
    pub(super) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.interrupt.recv() => Order::End(Signal::Interrupt),
            _ = self.terminate.recv() => Order::End(Signal::Terminate),
            _ = self.hangup.recv() => Order::Reopen,
        }
    }

    /// Waits for one that ends the process.
    pub(super) async fn end(&mut self) -> Signal {
        loop {
            if let Order::End(signal) = self.next().await {
                return signal;
            }
        }
    }

    /// Waits until an end that `begun` has begun is to be cut short: SIGINT has come twice, as from a terminal.
    ///
    /// SIGTERM never cuts an end short: a supervisor may send it to the whole group after the process itself.
    pub(super) async fn cut_short(&mut self, begun: Option<Signal>) -> Signal {
        let mut interrupted = begun == Some(Signal::Interrupt);
        loop {
            let signal = self.end().await;
            if signal == Signal::Interrupt && std::mem::replace(&mut interrupted, true) {
                return signal;
            }
            tracing::info!("{signal}: stopping already");
        }
    }
}
