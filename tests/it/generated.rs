//! Completions and man pages: every tool and every flag is in them, and shells and man can read them.

use std::path::Path;
use std::process::Command;

use crate::harness::{Finished, Folder, Process, kumo_server, required};

fn run(args: &[&str]) -> Finished {
    let finished = Process::run(&Folder::new(), &kumo_server(), args);
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""), "{args:?}");
    finished
}

/// The tools, and the links to those that have one.
pub(crate) fn tools() -> Vec<(String, Option<String>)> {
    let help = run(&["--help"]).stdout;
    let (_, list) = help.split_once("\nTools").expect("the tools");
    let tool = |line: &str| {
        let link = line.split_once("(link: ").map(|(_, rest)| rest.trim_end_matches(')').to_owned());
        (line.split_whitespace().next().expect("a name").to_owned(), link)
    };
    let tools: Vec<_> = list.lines().filter(|line| line.starts_with("  ")).map(tool).collect();
    assert!(tools.len() > 10, "{help}");
    tools
}

/// The flags that a help text lists, as they are written there: `-gN`, `--garbage-min-time`.
fn flags(help: &str) -> Vec<String> {
    let listed = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = listed.flat_map(|line| line.split("  ").next().unwrap_or_default().split([' ', ',']));
    let is_flag = |word: &&str| word.trim_start_matches('-').starts_with(|first: char| first.is_ascii_alphabetic());
    words.filter(|word| word.starts_with('-')).filter(is_flag).map(ToOwned::to_owned).collect()
}

/// Whether a program is there, for checks that need it.
#[track_caller]
fn is_there(program: &str) -> bool {
    required::is_there(program, required::runs("sh", &["-c", &format!("command -v {program}")]))
}

/// Runs a check of a file; returns what it has to say.
fn checked(command: &[&str], file: &Path) -> String {
    let output = Command::new(command[0]).args(&command[1..]).arg(file).output().expect("a process");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() || !said.is_empty(), "{command:?} failed without a word");
    said
}

#[test]
fn completions_have_every_tool_and_flag() {
    let tools = tools();
    for (shell, forms) in [
        ("bash", (|flag| vec![format!(" {flag} ")]) as fn(&str) -> Vec<String>),
        ("zsh", |flag| ["=", "[", "+["].map(|behind| format!("{flag}{behind}")).to_vec()),
        ("fish", |flag| match flag.strip_prefix("--") {
            Some(long) => vec![format!(" -l {long} ")],
            None => vec![format!(" -s {} ", &flag[1..])],
        }),
    ] {
        let folder = Folder::new();
        let dir = folder.join("made");
        let dir_text = dir.to_str().unwrap();
        let whole = run(&["completions", shell]).stdout;
        let listed = run(&["completions", shell, dir_text]).stdout;
        let files: Vec<_> = listed.lines().map(Path::new).collect();
        let links = tools.iter().filter(|(_, link)| link.is_some()).count();
        assert_eq!(files.len(), 1 + links);
        let texts: Vec<_> = files.iter().map(|file| std::fs::read_to_string(file).expect("a script")).collect();
        assert_eq!(texts.concat(), whole, "sourced or in files: it is the same");

        let has_flags = |text: &str, help: &str, of: &str| {
            let long = flags(help).into_iter().filter(|flag| flag.starts_with("--") || flag.len() == 2);
            for flag in long {
                // At the end of its line a flag has nothing behind it.
                let text = text.replace('"', " ").replace('\n', " \n");
                assert!(forms(&flag).iter().any(|form| text.contains(form)), "{shell}: no {flag} of {of}");
            }
        };
        has_flags(&texts[0], &run(&["--help"]).stdout, "kumo-server");
        let mut by_link = texts[1..].iter();
        for (tool, link) in &tools {
            assert!(texts[0].contains(tool), "{shell}: no {tool}");
            let help = run(&[tool, "--help"]).stdout;
            has_flags(&texts[0], &help, tool);
            if link.is_some() {
                has_flags(by_link.next().unwrap(), &help, tool);
            }
        }
        if is_there(shell) {
            for file in files {
                assert_eq!(checked(&[shell, "-n"], file), "", "{shell}: {}", file.display());
            }
        }
    }
}

#[test]
fn bash_completes_tools_flags_and_links() {
    // What the completion function of bash answers to a line; the last word is the one to complete.
    let complete = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let script = format!(
            "source <('{}' completions bash); COMP_WORDS=({}); COMP_CWORD={}; \
             spec=$(complete -p {}); function=${{spec#*-F }}; ${{function%% *}} {} '{}' ''; echo \"${{COMPREPLY[@]}}\"",
            kumo_server().display(),
            words.iter().map(|word| format!("'{word}' ")).collect::<Vec<_>>().concat(),
            words.len() - 1,
            words[0],
            words[0],
            words[words.len() - 1],
        );
        let finished = Process::run(&Folder::new(), "bash".as_ref(), &["-c", &script]);
        assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""), "{line}");
        finished.stdout
    };
    assert_eq!(complete("kumo-server st"), "stat\n");
    assert_eq!(complete("kumo-server --garbage-mem"), "--garbage-mem-limit\n");
    assert_eq!(complete("kumo-server stat --ti"), "--timeout\n");
    assert_eq!(complete("kumostat hsch"), "hscheck\n");
    assert_eq!(complete("kumo-manager --auto"), "--auto-replace\n");
}

#[test]
fn fish_completes_tools_flags_and_links() {
    if !is_there("fish") {
        return;
    }
    for (line, answer) in [
        ("kumo-server st", "stat\t"),
        ("kumo-server --garbage-mem", "--garbage-mem-limit\t"),
        ("kumo-server stat --ti", "--timeout\t"),
        ("kumo-server ctl m full", "full-replace\t"),
        ("kumostat hsch", "hscheck\t"),
        ("kumo-manager --auto", "--auto-replace\t"),
    ] {
        let script = format!("'{}' completions fish | source; complete -C '{line}'", kumo_server().display());
        let finished = Process::run(&Folder::new(), "fish".as_ref(), &["--no-config", "-c", &script]);
        assert!(finished.status.success() && finished.stdout.starts_with(answer), "{line}: {finished:?}");
    }
}

#[test]
fn man_pages_have_every_tool_and_flag() {
    let folder = Folder::new();
    let dir = folder.join("man1");
    let listed = run(&["man", dir.to_str().unwrap()]).stdout;
    let page = |name: &str| {
        let path = dir.join(format!("{name}.1"));
        assert!(listed.contains(&format!("{}\n", path.display())), "{name} in {listed}");
        std::fs::read_to_string(path).expect("a page")
    };
    let has_flags = |page: &str, help: &str, of: &str| {
        for flag in flags(help) {
            let shown = format!("\\fB{}\\fR", flag.replace('-', "\\-"));
            assert!(page.contains(&shown), "no {flag} of {of} in its page");
        }
    };
    let root = page("kumo-server");
    let help = run(&["--help"]).stdout;
    assert!(flags(&help).contains(&"-gN".to_owned()));
    has_flags(&root, &help, "kumo-server");
    assert!(root.contains("\\fB\\-gN\\fR, \\fB\\-\\-garbage\\-min\\-time\\fR \\fI<SEC>\\fR"), "{root}");
    let tools = tools();
    for (tool, link) in &tools {
        let escaped = tool.replace('-', "\\-");
        assert!(root.contains(&format!("\n\\fBkumo\\-server {escaped}\\fR")), "{tool}");
        let help = run(&[tool, "--help"]).stdout;
        has_flags(&page(&format!("kumo-server-{tool}")), &help, tool);
        if let Some(link) = link {
            let page = page(link);
            has_flags(&page, &help, link);
            assert!(page.contains(&format!("\n.SH NAME\n{} \\- ", link.replace('-', "\\-"))), "{page}");
        }
    }
    let links = tools.iter().filter(|(_, link)| link.is_some()).count();
    assert_eq!(listed.lines().count(), 1 + tools.len() + links);

    for (program, check) in [
        ("mandoc", &["mandoc", "-T", "lint", "-W", "warning"][..]),
        ("groff", &["groff", "-man", "-ww", "-z", "-K", "utf8"]),
    ] {
        if is_there(program) {
            for path in listed.lines() {
                let said = checked(check, path.as_ref());
                // A date would only tell when the page was made.
                let said: Vec<_> = said.lines().filter(|line| !line.contains("missing date")).collect();
                assert!(said.is_empty(), "{said:?}");
            }
        }
    }
}

#[test]
fn files_that_cannot_be_written_are_named() {
    let folder = Folder::new();
    std::fs::write(folder.join("file"), "").unwrap();
    let path = folder.join("file/man1");
    for args in [&["man", path.to_str().unwrap()][..], &["completions", "fish", path.to_str().unwrap()]] {
        let finished = Process::run(&folder, &kumo_server(), args);
        let start = format!("kumo-server {}: {}: ", args[0], path.display());
        assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(1), ""));
        assert!(finished.stderr.starts_with(&start) && finished.stderr.lines().count() == 1, "{finished:?}");
    }
}
