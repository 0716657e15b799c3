//! The command line: which tool a call means, its flags, and its exit status.
//!
//! Everything about flags ends here: the layers above receive resolved settings and know no flag's name.

mod args;
mod bench;
mod check;
mod cluster;
mod completions;
mod ctl;
mod daemon;
mod delete;
mod exit;
mod get;
mod hash;
mod install_links;
mod log;
mod man;
mod mergedb;
mod set;
mod stat;
mod tool;
mod top;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Command, CommandFactory};

use args::Call;
use daemon::{gateway, manager, server};
use exit::{USAGE, print, report};
use tool::{Run, SERVER, Tool};

/// Every tool but the server, which has no name: it is what flags without a tool's name mean.
static TOOLS: &[Tool] = &[
    Tool {
        name: "manager",
        link: Some("kumo-manager"),
        about: "Knows the servers, owns the hash space",
        command: manager::command,
        run: manager::run,
    },
    Tool {
        name: "gateway",
        link: Some("kumo-gateway"),
        about: "Serves memcached clients from a cluster",
        command: gateway::command,
        run: gateway::run,
    },
    Tool {
        name: "ctl",
        link: Some("kumoctl"),
        about: "Shows and changes the state of a cluster",
        command: ctl::Args::command,
        run: ctl::run,
    },
    Tool {
        name: "cluster",
        link: None,
        about: "Runs a whole cluster on this machine, to try it",
        command: cluster::Args::command,
        run: cluster::run,
    },
    Tool { name: "get", link: None, about: "Prints the value of a key", command: get::Args::command, run: get::run },
    Tool { name: "set", link: None, about: "Sets a key", command: set::Args::command, run: set::run },
    Tool { name: "delete", link: None, about: "Deletes a key", command: delete::Args::command, run: delete::run },
    Tool {
        name: "stat",
        link: Some("kumostat"),
        about: "Shows figures and hash spaces of servers",
        command: stat::Args::command,
        run: stat::run,
    },
    Tool {
        name: "top",
        link: Some("kumotop"),
        about: "Shows all servers on a live screen",
        command: top::Args::command,
        run: top::run,
    },
    Tool {
        name: "hash",
        link: Some("kumohash"),
        about: "Shows where keys lie and which servers own them",
        command: hash::Args::command,
        run: hash::run,
    },
    Tool {
        name: "log",
        link: Some("kumolog"),
        about: "Prints binary logs as text",
        command: log::Args::command,
        run: log::run,
    },
    Tool {
        name: "bench",
        link: None,
        about: "Measures a server or a cluster under load",
        command: bench::Args::command,
        run: bench::run,
    },
    Tool {
        name: "check",
        link: None,
        about: "Checks a store or a backup for damage",
        command: check::Args::command,
        run: check::run,
    },
    Tool {
        name: "restore",
        link: None,
        about: "Makes a store from a backup",
        command: mergedb::RestoreArgs::command,
        run: mergedb::restore,
    },
    Tool {
        name: "mergedb",
        link: Some("kumomergedb"),
        about: "Merges stores, backups and files of 2010",
        command: mergedb::MergeArgs::command,
        run: mergedb::run,
    },
    Tool {
        name: "completions",
        link: None,
        about: "Prints a script for completion in a shell",
        command: completions::Args::command,
        run: |call| completions::run(call, TOOLS),
    },
    Tool {
        name: "man",
        link: None,
        about: "Writes the man pages",
        command: man::Args::command,
        run: |call| man::run(call, TOOLS),
    },
    Tool {
        name: "install-links",
        link: None,
        about: "Makes links to this binary under the names of the tools",
        command: install_links::Args::command,
        run: |call| install_links::run(call, TOOLS),
    },
];

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
    if let Some(tool) = TOOLS.iter().find(|tool| tool.link == Some(program)) {
        return Ok((Call { program: program.to_owned(), args }, tool.run));
    }
    let Some(first) = args.first() else {
        return Err(usage());
    };
    if first.as_encoded_bytes().starts_with(b"-") {
        return Ok((Call { program: SERVER.to_owned(), args }, |call| server::run(call, list_tools)));
    }
    match TOOLS.iter().find(|tool| first == tool.name) {
        Some(tool) => {
            args.remove(0);
            Ok((Call { program: format!("{SERVER} {}", tool.name), args }, tool.run))
        }
        None => Err(format!("{SERVER}: unknown tool '{}'; try '{SERVER} --help'\n", first.display())),
    }
}

/// Adds the tools to the server's help and version.
fn list_tools(command: Command) -> Command {
    static VERSION: LazyLock<String> = LazyLock::new(|| tool::version(TOOLS));
    command.after_help(tool::help(TOOLS)).long_version(VERSION.as_str())
}

fn usage() -> String {
    format!(
        "usage: {SERVER} -m <addr[:19700]> [-p <addr[:19700]>] -l <addr[:19800]> -s <path> [option]...\n       \
         {SERVER} <tool> ...\n\
         tools: {}\n\
         More with '{SERVER} --help'.\n",
        tool::names(TOOLS)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(program: &str, args: &[&str]) -> Result<(String, Vec<OsString>), String> {
        choose(program, args.iter().map(OsString::from).collect()).map(|(call, _)| (call.program, call.args))
    }

    #[test]
    fn a_dash_means_the_server_whatever_the_binary_is_called() {
        for program in ["kumo-server", "kumo-server-0.1", ""] {
            assert_eq!(chosen(program, &["-v"]), Ok(("kumo-server".to_owned(), vec!["-v".into()])), "{program}");
        }
    }

    #[test]
    fn each_tool_is_found_by_name_and_by_link() {
        for tool in TOOLS {
            let by_name = (format!("kumo-server {}", tool.name), vec![OsString::from("--help")]);
            assert_eq!(chosen("kumo-server", &[tool.name, "--help"]), Ok(by_name));
            if let Some(link) = tool.link {
                assert_eq!(chosen(link, &["-x"]), Ok((link.to_owned(), vec!["-x".into()])));
            }
        }
    }

    #[test]
    fn the_arguments_of_each_tool_fit_together() {
        for tool in TOOLS {
            args::named((tool.command)(), tool.name).debug_assert();
        }
    }

    #[test]
    fn no_tool_is_a_mistake() {
        assert_eq!(chosen("kumo-server", &[]), Err(usage()));
        let unknown = "kumo-server: unknown tool 'nope'; try 'kumo-server --help'\n";
        assert_eq!(chosen("kumo-server", &["nope", "-v"]), Err(unknown.to_owned()));
    }
}
