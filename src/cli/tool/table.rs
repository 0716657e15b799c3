//! A tool as the table of all tools knows it, and the list of them in help and version.

use std::process::ExitCode;

use clap::Command;

use crate::cli::args::{Call, build};
use crate::cli::exit::Stop;

/// Name of the binary, and of its oldest tool.
pub(in crate::cli) const SERVER: &str = "kumo-server";

/// A tool of the binary.
pub(in crate::cli) struct Tool {
    /// First argument that selects it.
    pub(in crate::cli) name: &'static str,
    /// Name of a link to the binary that selects it: its name in 2010, if it had one.
    pub(in crate::cli) link: Option<&'static str>,
    /// Its purpose, for `--help`.
    pub(in crate::cli) about: &'static str,
    /// Its arguments, from which help, completions and man page are made.
    pub(in crate::cli) command: fn() -> Command,
    /// Its code.
    pub(in crate::cli) run: Run,
}

/// Runs a tool; the result is the process's exit status.
pub(in crate::cli) type Run = fn(&Call) -> Result<ExitCode, Stop>;

/// The names of `tools`.
pub(in crate::cli) fn names(tools: &[Tool]) -> String {
    tools.iter().map(|tool| tool.name).collect::<Vec<_>>().join(", ")
}

/// The version, the other tools of the binary, and how it was built.
pub(in crate::cli) fn version(tools: &[Tool]) -> String {
    format!("{}\ntools: {}\n{}", env!("CARGO_PKG_VERSION"), names(tools), build())
}

/// The tools, for the end of the server's `--help`.
pub(in crate::cli) fn help(tools: &[Tool]) -> String {
    let line = |tool: &Tool| {
        let link = tool.link.map(|link| format!(" (link: {link})")).unwrap_or_default();
        format!("\n  {:<13} {}{link}", tool.name, tool.about)
    };
    let lines = tools.iter().map(line);
    format!("Tools ({SERVER} <tool> --help):{}", lines.collect::<String>())
}
