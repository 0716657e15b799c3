//! From a tool's arguments to its flags: clap, with the historic spellings, and one line for each error.

pub(super) mod addresses;
pub(super) mod historic;
pub(super) mod layout;
pub(super) mod values;

use std::ffi::OsString;
use std::sync::LazyLock;

use clap::error::ErrorKind;
use clap::{Command, CommandFactory, FromArgMatches};

use super::exit::Stop;
use crate::store;
use historic::{restore_help, rewrite};

/// How a tool was called.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The name to use in help and in front of errors: `kumo-server`, `kumo-manager`, `kumo-server ctl`.
    pub(super) program: String,
    /// The arguments after the name.
    pub(super) args: Vec<OsString>,
}

/// Parses a tool's arguments. `adjust` may change the command that `A` derives, e.g. its defaults.
pub(super) fn parse<A>(call: &Call, adjust: impl FnOnce(Command) -> Command) -> Result<A, Stop>
where
    A: CommandFactory + FromArgMatches,
{
    let mut command = adjust(named(A::command(), &call.program)).no_binary_name(true);
    let written = rewrite(&command, call.args.iter().cloned()).map_err(Stop::Usage)?;
    command.try_get_matches_from_mut(&written.args).and_then(|matches| A::from_arg_matches(&matches)).map_err(|error| {
        match error.kind() {
            ErrorKind::DisplayHelp => Stop::Show(restore_help(&error.render().to_string())),
            ErrorKind::DisplayVersion => Stop::Show(error.render().to_string()),
            _ => Stop::Usage(written.restore(&one_line(&error.render().to_string()))),
        }
    })
}

/// The text of `--version` after the name: the version, which is all that `-V` shows, and on a second line the build.
static VERSION: LazyLock<String> = LazyLock::new(|| format!("{}\n{}", env!("CARGO_PKG_VERSION"), build()));

/// For which machine, how, and with which SQLite the binary was built, in a line.
pub(super) fn build() -> String {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    let libc = if cfg!(target_env = "musl") { "-musl" } else { "" };
    format!("build: {profile}, {arch}-{os}{libc}, SQLite {}", store::sqlite_version())
}

/// A tool's command under the name that it is called by.
pub(super) fn named(command: Command, program: &str) -> Command {
    command
        .display_name(program)
        .bin_name(program)
        .version(env!("CARGO_PKG_VERSION"))
        .long_version(VERSION.as_str())
        .args_override_self(true)
        .max_term_width(120)
}

/// The first paragraph of clap's report in one line, without its prefix.
fn one_line(report: &str) -> String {
    let mut lines = report.lines().map(str::trim).take_while(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let rest: Vec<_> = lines.collect();
    format!("{first} {}", rest.join(", ")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[arg(short, long, value_name = "PATH")]
        store: String,
        #[arg(long, value_name = "N")]
        read_threads: u8,
        #[arg(long, value_parser = ["a", "b"], default_value = "a")]
        mode: String,
    }

    fn parsed(args: &str) -> Result<Flags, Stop> {
        let args = args.split_whitespace().map(OsString::from).collect();
        parse(&Call { program: "kumo-test".to_owned(), args }, |command| command)
    }

    #[test]
    fn errors_are_one_line_in_the_spelling_of_the_writer() {
        for (args, message) in [
            ("-TR x -s a", "invalid value 'x' for '-TR <N>': invalid digit found in string"),
            ("-s", "a value is required for '-s <PATH>' but none was supplied"),
            ("", "the following required arguments were not provided: --store <PATH>, --read-threads <N>"),
            ("-s a -TR 1 --mode c", "invalid value 'c' for '--mode <MODE>' [possible values: a, b]"),
            ("-s a -TR 1 --nope", "unexpected argument '--nope' found"),
        ] {
            assert_eq!(parsed(args).unwrap_err(), Stop::Usage(message.to_owned()), "{args}");
        }
    }

    #[test]
    fn the_last_of_repeated_flags_counts() {
        let flags = parsed("-s a --store b -TR 1 -TR 2").unwrap();
        assert_eq!((flags.store.as_str(), flags.read_threads, flags.mode.as_str()), ("b", 2, "a"));
    }

    #[test]
    fn help_and_version_are_shown() {
        let Err(Stop::Show(help)) = parsed("--help") else { panic!("no help") };
        assert!(help.contains("Usage: kumo-test"), "{help}");
        assert!(help.contains("\n -TR, --read-threads <N>"), "{help}");
        let version = format!("kumo-test {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(parsed("-V").unwrap_err(), Stop::Show(version.clone()));
        let Err(Stop::Show(long)) = parsed("--version") else { panic!("no version") };
        let build = long.strip_prefix(&version).expect("the short one, and then the build");
        assert!(build.starts_with("build: debug, ") && build.contains(std::env::consts::ARCH), "{build}");
        assert!(build.contains(&format!("SQLite {}", store::sqlite_version())), "{build}");
    }
}
