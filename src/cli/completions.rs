//! `completions`: scripts with which a shell completes the binary, its tools and their links.

use std::process::ExitCode;

use clap::{Command, Parser, ValueEnum};
use clap_complete::{Generator, generate};

use super::parse::{Call, Stop, named, parse};
use super::tool::show;
use super::{SERVER, TOOLS};

/// Prints a script that completes kumo-server, its tools and the links to them.
#[derive(Debug, Parser)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Shells whose scripts are tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(call: &Call) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let mut script = Vec::new();
    for (name, command) in programs() {
        script.extend(args.shell.script(name, command));
    }
    show(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Each name that the binary may be called by, with what it takes.
fn programs() -> impl Iterator<Item = (&'static str, Command)> {
    let links = TOOLS.iter().filter_map(|tool| Some((tool.link?, named((tool.command)(), tool.link?))));
    std::iter::once((SERVER, super::tree())).chain(links)
}

impl Shell {
    fn script(self, name: &str, mut command: Command) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Bash => write(clap_complete::Shell::Bash, name, &mut command, &mut out),
            Self::Zsh => write(clap_complete::Shell::Zsh, name, &mut command, &mut out),
            Self::Fish => write(clap_complete::Shell::Fish, name, &mut command, &mut out),
        }
        out
    }
}

fn write(generator: impl Generator, name: &str, command: &mut Command, out: &mut Vec<u8>) {
    generate(generator, command, name, out);
}
