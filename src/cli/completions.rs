//! `completions`: scripts with which a shell completes the binary, its tools and their links.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, Command, Parser, ValueEnum};
use clap_complete::generate;

use super::args::{Call, parse};
use super::daemon::server;
use super::exit::Stop;
use super::tool::{SERVER, Tool, show, write_files};

/// Prints a script that completes kumo-server, its tools and the links to them
#[derive(Debug, Parser)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,

    /// Write a file for each name into this folder instead; made if it is not there
    dir: Option<PathBuf>,
}

/// Shells whose scripts are tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the scripts of the server and of `tools`.
pub(super) fn run(call: &Call, tools: &'static [Tool]) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let scripts = programs(tools).map(|(name, command)| (args.shell.file(name), args.shell.script(name, command)));
    match &args.dir {
        Some(dir) => write_files(dir, scripts)?,
        None => show(scripts.map(|(_, script)| script).collect::<Vec<_>>().concat().as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Each name that the binary may be called by, with what it takes.
fn programs(tools: &'static [Tool]) -> impl Iterator<Item = (&'static str, Command)> {
    let subcommands = tools.iter().map(|tool| visible(&(tool.command)(), tool.name).about(tool.about));
    let root = visible(&server::command(), SERVER).subcommands(subcommands).disable_help_subcommand(true);
    let links = tools.iter().filter_map(|tool| Some((tool.link?, visible(&(tool.command)(), tool.link?))));
    std::iter::once((SERVER, root)).chain(links)
}

/// The command without what `--help` does not show either.
fn visible(command: &Command, name: &'static str) -> Command {
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_flag(command.is_disable_help_flag_set())
        .allow_missing_positional(command.is_allow_missing_positional_set())
        .args(arguments)
}

impl Shell {
    /// The name by which the shell finds the script of `program`.
    fn file(self, program: &str) -> String {
        match self {
            Self::Bash => program.to_owned(),
            Self::Zsh => format!("_{program}"),
            Self::Fish => format!("{program}.fish"),
        }
    }

    fn script(self, name: &str, mut command: Command) -> String {
        let shell = match self {
            Self::Bash => clap_complete::Shell::Bash,
            Self::Zsh => clap_complete::Shell::Zsh,
            Self::Fish => clap_complete::Shell::Fish,
        };
        let mut out = Vec::new();
        generate(shell, &mut command, name, &mut out);
        let script = String::from_utf8_lossy(&out).into_owned();
        match self {
            // clap names a command of a program with a dash in two ways (clap-rs/clap#6421): none would be found.
            Self::Bash => script.replace(
                &format!("{}__subcmd__", name.replace('-', "__subcmd__")),
                &format!("{}__subcmd__", name.replace('-', "__")),
            ),
            Self::Zsh => script,
            Self::Fish => script + &words_for_fish(name, &command),
        }
    }
}

/// The words that may stand as an argument, which clap forgets for fish.
fn words_for_fish(name: &str, command: &Command) -> String {
    let mut lines = String::new();
    let tools =
        command.get_subcommands().map(|tool| (tool, format!(" -n '__fish_seen_subcommand_from {}'", tool.get_name())));
    for (command, condition) in std::iter::once((command, String::new())).chain(tools) {
        for value in command.get_positionals().flat_map(Arg::get_possible_values) {
            let help = value.get_help().map(|help| help.to_string().replace('\'', "\\'")).unwrap_or_default();
            let _ = writeln!(lines, "complete -c {name}{condition} -f -a {} -d '{help}'", value.get_name());
        }
    }
    lines
}
