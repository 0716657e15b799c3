//! The figures that `stat` can show.

use clap::ValueEnum;

/// A figure, or a set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Command {
    /// Process id
    Pid,
    /// Seconds since the start
    Uptime,
    /// Unix seconds by the server's clock
    Time,
    /// Version
    Version,
    /// Get requests since the start
    #[value(name = "cmd_get")]
    CmdGet,
    /// Set requests since the start
    #[value(name = "cmd_set")]
    CmdSet,
    /// Delete requests since the start
    #[value(name = "cmd_delete")]
    CmdDelete,
    /// Stored records, including deleted ones that are still remembered
    Items,
    /// All of these, as memcached's stats
    Stats,
    /// The hash space for reading
    Rhs,
    /// The hash space for writing
    Whs,
    /// Whether managers and servers have the same hash spaces; exit status 1 if not
    Hscheck,
    /// State of the replace: inactive, Deleting, Copying, WAIT or ready
    Replstat,
    /// Clear `TCP_NODELAY` on the server's connections; prints how many there are
    #[value(name = "set_delay")]
    SetDelay,
    /// Set `TCP_NODELAY` again, as after the start
    #[value(name = "unset_delay")]
    UnsetDelay,
    /// All figures of a server of this program, as JSON
    Figures,
}

impl Command {
    /// The word for it on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
