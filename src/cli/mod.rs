//! The command line: which tool a call means, its flags, and its exit status.
//!
//! Everything about flags ends here: the layers above receive resolved settings and know no flag's name.

mod common;
mod historic;
mod hosts;
mod manager;
mod parse;
mod server;
mod values;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

pub use parse::{Call, Stop, parse};

/// Name of the binary, and of its oldest tool.
const SERVER: &str = "kumo-server";

/// Exit status after a mistake in the arguments.
const USAGE: u8 = 2;

/// A tool of the binary.
struct Tool {
    /// First argument that selects it.
    name: &'static str,
    /// Name of a link to the binary that selects it: its name in 2010.
    link: &'static str,
    /// What it does, for `--help`.
    about: &'static str,
    run: Run,
}

/// Every tool but the server, which has no name: it is what flags without a tool's name mean.
const TOOLS: &[Tool] = &[Tool {
    name: "manager",
    link: "kumo-manager",
    about: "Knows the servers, owns the hash space",
    run: manager::run,
}];

type Run = fn(&Call) -> Result<ExitCode, Stop>;

/// Runs what the process's arguments ask for; the result is the process's exit status.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let program = Path::new(&program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match choose(program, args.collect()) {
        Ok((call, run)) => run(&call).unwrap_or_else(|stop| report(&call.program, stop)),
        Err(text) => {
            print(std::io::stderr(), &text);
            ExitCode::from(USAGE)
        }
    }
}

/// Which tool runs, by the name of the program and its first argument. The error is the text for stderr.
fn choose(program: &str, mut args: Vec<OsString>) -> Result<(Call, Run), String> {
    if let Some(tool) = TOOLS.iter().find(|tool| tool.link == program) {
        return Ok((Call { program: tool.link.to_owned(), args }, tool.run));
    }
    let Some(first) = args.first() else {
        return Err(usage());
    };
    if first.as_encoded_bytes().starts_with(b"-") {
        return Ok((Call { program: SERVER.to_owned(), args }, server::run));
    }
    match TOOLS.iter().find(|tool| first == tool.name) {
        Some(tool) => {
            args.remove(0);
            Ok((Call { program: format!("{SERVER} {}", tool.name), args }, tool.run))
        }
        None => Err(format!("{SERVER}: unknown tool '{}'; try '{SERVER} --help'\n", first.display())),
    }
}

fn usage() -> String {
    let tools: Vec<_> = TOOLS.iter().map(|tool| tool.name).collect();
    format!(
        "usage: {SERVER} -m <addr[:19700]> [-p <addr[:19700]>] -l <addr[:19800]> -s <path> [option]...\n       \
         {SERVER} <tool> ...\n\
         tools: {}\n\
         More with '{SERVER} --help'.\n",
        tools.join(", ")
    )
}

/// The tools, for the end of the server's `--help` and `--version`.
fn tools_help() -> String {
    let lines = TOOLS.iter().map(|tool| format!("\n  {:<10} {} (link: {})", tool.name, tool.about, tool.link));
    format!("Tools ({SERVER} <tool> --help):{}", lines.collect::<String>())
}

/// Prints why a tool did not run; the result is the exit status.
fn report(program: &str, stop: Stop) -> ExitCode {
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
    }
}

/// Prints as much as the other end wants: a closed pipe is no reason to fail.
fn print(mut to: impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}
