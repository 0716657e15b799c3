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

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Stop.
    End(Signal),
    /// Open log files anew.
    Reopen,
}

/// Receives signals from its creation on; until then they have their usual effect.
///
/// SIGPIPE needs nothing: the standard library ignores it from the first instruction of a process.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Must be called within the runtime.
    pub(super) fn new() -> io::Result<Self> {
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
}
