//! What holds for every tool: one clear line for a mistake, a host that is away or a host that hangs; no colours.

use std::collections::BTreeSet;
use std::net::TcpListener;

use crate::generated::tools;
use crate::harness::{Finished, Folder, Port, Process, kumo_server};

/// How a tool is made to fail.
struct Case {
    /// Empty: the server.
    tool: &'static str,
    /// Arguments that cannot be, and the beginning of what it says to them.
    mistake: (&'static str, &'static str),
    /// Arguments with which it cannot do its work, and the beginning of what it says. NODE stands for a node that is
    /// not there, then for one that accepts connections and says nothing.
    failure: Option<(&'static str, &'static str)>,
}

const fn case(
    tool: &'static str,
    mistake: (&'static str, &'static str),
    failure: Option<(&'static str, &'static str)>,
) -> Case {
    Case { tool, mistake, failure }
}

/// Every tool has a row; daemons wait for nodes that are away, so they fail by an own address that they cannot resolve.
const CASES: &[Case] = &[
    case(
        "",
        ("-m 127.0.0.1 -l 127.0.0.1 -s x -TR 0", "invalid value '0' for '-TR <N>'"),
        Some(("-m 127.0.0.1 -l no.invalid -s x", "-l no.invalid: cannot resolve host")),
    ),
    case(
        "manager",
        ("-l 127.0.0.1 -Rs x", "invalid value 'x' for '-Rs <SEC>'"),
        Some(("-l no.invalid", "-l no.invalid: cannot resolve host")),
    ),
    case("ctl", ("127.0.0.1 explode", "invalid value 'explode'"), Some(("NODE status", "manager NODE "))),
    case(
        "cluster",
        ("--servers 0", "invalid value '0' for '--servers <N>'"),
        Some(("--dir /dev/null/x", "--dir /dev/null/x: ")),
    ),
    case("get", ("key", "the following required arguments"), Some(("-m NODE key", "manager NODE "))),
    case("set", ("-m a:b key value", "invalid value 'a:b'"), Some(("-m NODE key value", "manager NODE "))),
    case("delete", ("-m 127.0.0.1", "the following required arguments"), Some(("-m NODE key", "manager NODE "))),
    case(
        "bench",
        ("-s 127.0.0.1 -c 0", "invalid value '0' for '-c <N>'"),
        Some(("-m NODE --requests 10 --timeout 1", "")),
    ),
    case("completions", ("csh", "invalid value 'csh' for '<SHELL>'"), Some(("fish /dev/null/x", "/dev/null/x: "))),
    case("stat", ("127.0.0.1 explode", "invalid value 'explode'"), Some(("NODE pid --timeout 1", "server NODE "))),
    case("hash", ("-m 127.0.0.1 assign", "the keys are missing"), Some(("-m NODE dump --timeout 1", "manager NODE "))),
    case(
        "top",
        ("--once", "the following required arguments"),
        Some(("NODE --once --timeout 1", "1 of 1 servers did not answer")),
    ),
    case("mergedb", ("new.db", "the following required arguments"), Some(("new.db /dev/null/x", "/dev/null/x: "))),
    case("restore", ("backup", "the following required arguments"), Some(("/nowhere/x new.db", "/nowhere/x: "))),
    case("log", ("-n x file", "invalid value 'x' for "), Some(("/nowhere/x", "/nowhere/x: "))),
    case("check", ("", "the following required arguments"), Some(("/nowhere/x", "/nowhere/x: "))),
    case(
        "gateway",
        ("-m 127.0.0.1 -G x", "invalid value 'x' for '-G <N>'"),
        Some(("-m 127.0.0.1 -t no.invalid:1", "-t no.invalid:1: cannot resolve host")),
    ),
    case("man", ("", "the following required arguments"), Some(("/dev/null/x", "/dev/null/x: "))),
    case("install-links", ("--nope", "unexpected argument '--nope' found"), Some(("/nowhere", "/nowhere: "))),
];

/// Asserts one line on stderr that begins with `start` behind the program's name, and plain text.
fn one_line(finished: &Finished, tool: &str, args: &str, status: i32, start: &str) {
    let program = format!("kumo-server {tool}");
    let start = format!("{}: {start}", program.trim_end());
    assert_eq!(finished.status.code(), Some(status), "{tool} {args}: {finished:?}");
    assert!(finished.stderr.starts_with(&start), "{tool} {args}: not {start:?} but {:?}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 1, "{tool} {args}: {finished:?}");
    for text in [&finished.stdout, &finished.stderr] {
        assert!(!text.contains(['\x1b', '\r']), "{tool} {args}: colours or progress on a pipe: {text:?}");
    }
}

#[test]
fn every_tool_says_what_is_wrong_in_one_line() {
    let rows: BTreeSet<_> = CASES.iter().map(|case| case.tool.to_owned()).collect();
    let all: BTreeSet<_> = tools().into_iter().map(|(tool, _)| tool).chain([String::new()]).collect();
    assert_eq!(rows, all, "each tool has a row above");

    let folder = Folder::new();
    let away = Port::reserve();
    let hung = Port::reserve();
    let _listener = TcpListener::bind(hung.address()).expect("a port");
    let start = |number: usize, case: &Case, args: &str| {
        let args: Vec<_> = case.tool.split_whitespace().chain(args.split_whitespace()).collect();
        Process::spawn(&folder, &format!("{}{number}", case.tool), &kumo_server(), &args)
    };
    // All at once: those that wait for a time-out wait together.
    let mut running = Vec::new();
    for case in CASES {
        let (args, line) = case.mistake;
        running.push((case.tool, args.to_owned(), start(0, case, args), 2, line.to_owned()));
        let Some((args, line)) = case.failure else { continue };
        for (number, node) in [&away, &hung].into_iter().enumerate() {
            let [args, line] = [args, line].map(|text| text.replace("NODE", &node.address().to_string()));
            running.push((case.tool, args.clone(), start(number + 1, case, &args), 1, line));
        }
    }
    for (tool, args, process, status, line) in running {
        one_line(&process.finish(), tool, &args, status, &line);
    }
}
