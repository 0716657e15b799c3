//! The command line as a user meets it: exit statuses, one line for each mistake, help.

use crate::harness::{Finished, Folder, Process, kumo_server};

fn run(args: &str) -> Finished {
    let args: Vec<_> = args.split_whitespace().collect();
    Process::run(&Folder::new(), &kumo_server(), &args)
}

#[test]
fn without_arguments_usage_goes_to_stderr() {
    let finished = run("");
    assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(2), ""));
    assert!(finished.stderr.starts_with("usage: kumo-server -m <addr[:19700]>"), "{finished:?}");
}

#[test]
fn help_and_version_go_to_stdout() {
    let help = run("--help");
    assert_eq!((help.status.code(), help.stderr.as_str()), (Some(0), ""));
    for line in ["Usage: kumo-server [OPTIONS] --listen", "\n -gN, --garbage-min-time <SEC>", "\nTools"] {
        assert!(help.stdout.contains(line), "no {line:?} in {}", help.stdout);
    }
    let version = run("--version");
    assert_eq!((version.status.code(), version.stderr.as_str()), (Some(0), ""));
    let mut lines = version.stdout.lines();
    assert_eq!(lines.next(), Some(concat!("kumo-server ", env!("CARGO_PKG_VERSION"))));
    assert!(lines.next().is_some_and(|line| line.starts_with("tools: ")), "{version:?}");
    assert!(
        lines.next().is_some_and(|line| line.starts_with("build: ") && line.contains(", SQLite 3.")),
        "{version:?}"
    );
    for (args, count) in [("-V", 1), ("ctl --version", 2), ("ctl -V", 1)] {
        assert_eq!(run(args).stdout.lines().count(), count, "{args:?}");
    }
}

/// Each block of the manual that begins with a command shows what that command prints, and each tool has one.
///
/// After a change of flags, `UPDATE_MANUAL=1 cargo test --test it manual` writes the blocks anew.
#[test]
fn the_manual_shows_the_help_as_it_is() {
    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/manual.md");
    let manual = std::fs::read_to_string(PATH).expect("the manual");
    let mut updated = manual.clone();
    let mut commands = Vec::new();
    for block in manual.split("```").skip(1).step_by(2) {
        let shown = block.split_once("$ kumo-server ").and_then(|(_, rest)| rest.split_once('\n'));
        let Some((command, text)) = shown else { continue };
        let place = |text: &str| format!("$ kumo-server {command}\n{text}```");
        updated = updated.replace(&place(text), &place(&run(command).stdout));
        commands.push(command);
    }
    let version = run("--version").stdout;
    let tools = version.lines().find_map(|line| line.strip_prefix("tools: ")).expect("the tools");
    for tool in tools.split(", ") {
        assert!(commands.contains(&&*format!("{tool} --help")), "docs/manual.md does not show {tool} --help");
    }
    if std::env::var_os("UPDATE_MANUAL").is_some() {
        std::fs::write(PATH, updated).expect("the manual");
    } else {
        assert_eq!(manual, updated, "docs/manual.md is not what --help prints");
    }
}

#[test]
fn mistakes_are_one_line_on_stderr() {
    const LEAST: &str = "-m 127.0.0.1 -l 127.0.0.1 -s x";
    for (args, status, line) in [
        ("nonsense".to_owned(), 2, "kumo-server: unknown tool 'nonsense'; try 'kumo-server --help'\n"),
        (
            format!("{LEAST} -TR x"),
            2,
            "kumo-server: invalid value 'x' for '-TR <N>': invalid digit found in string; try 'kumo-server --help'\n",
        ),
        (format!("{LEAST} -f /nowhere"), 1, "kumo-server: -f /nowhere: not a directory\n"),
    ] {
        let finished = run(&args);
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(status), ""), "{args}");
        assert_eq!(finished.stderr, line, "{args}");
    }
}

#[test]
fn an_unknown_host_is_named() {
    // The name of a host that cannot exist (RFC 6761); the system's words for that differ.
    for (command, named) in [
        ("-m 127.0.0.1 -l host.invalid -s x", "kumo-server: -l host.invalid"),
        ("get -m host.invalid key", "kumo-server get: -m host.invalid"),
        ("get -m host.invalid -p other.invalid key", "kumo-server get: -m host.invalid"),
    ] {
        let finished = run(command);
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        let start = format!("{named}: cannot resolve host 'host.invalid': ");
        assert!(finished.stderr.starts_with(&start) && finished.stderr.lines().count() == 1, "{finished:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = Folder::new();
    let shell = format!("'{}' --help | true; echo ${{PIPESTATUS[0]}}", kumo_server().display());
    let finished = Process::run(&folder, "bash".as_ref(), &["-c", &shell]);
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("0\n", ""));
}
