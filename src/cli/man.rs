//! `man`: a page for the server, for each tool and for each link, from the definitions that `--help` has.

use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Command, Parser};
use clap_mangen::Man;

use super::args::historic::restore_page;
use super::args::{Call, named, parse};
use super::daemon::server;
use super::exit::Stop;
use super::tool::{SERVER, Tool, write_files};

/// Writes the man pages of kumo-server, its tools and the links to them
#[derive(Debug, Parser)]
pub(super) struct Args {
    /// Where they go, such as /usr/local/share/man/man1; made if it is not there
    dir: PathBuf,
}

/// Writes the pages of the server and of `tools`.
pub(super) fn run(call: &Call, tools: &'static [Tool]) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let rendered =
        pages(tools).map(|page| (format!("{}.1", page.name), page.render())).map(|(file, page)| match page {
            Ok(page) => Ok((file, page)),
            Err(error) => Err(Stop::Failed(format!("{file}: {error}"))),
        });
    write_files(&args.dir, rendered.collect::<Result<Vec<_>, _>>()?)?;
    Ok(ExitCode::SUCCESS)
}

/// A page to be.
struct Page {
    /// The name by which `man` finds it.
    name: String,
    about: String,
    command: Command,
    see_also: Vec<String>,
    /// Tools to be listed, on the page that is about all of them.
    tools: &'static [Tool],
}

/// Every page: `kumo-server`, then `kumo-server-TOOL`, and the same under the name of its link.
fn pages(tools: &'static [Tool]) -> impl Iterator<Item = Page> {
    let root = Page {
        name: SERVER.to_owned(),
        about: "The storage daemon of kumofs, and its tools".to_owned(),
        command: named(server::command(), SERVER),
        see_also: tools.iter().map(|tool| format!("{SERVER}-{}", tool.name)).collect(),
        tools,
    };
    let page = |tool: &Tool, name: String, program: &str, other: Option<String>| Page {
        name,
        about: tool.about.to_owned(),
        command: named((tool.command)(), program),
        see_also: other.into_iter().chain([SERVER.to_owned()]).collect(),
        tools: &[],
    };
    let others = tools.iter().flat_map(move |tool| {
        let name = format!("{SERVER}-{}", tool.name);
        let by_link = tool.link.map(|link| page(tool, link.to_owned(), link, Some(name.clone())));
        let link = tool.link.map(ToOwned::to_owned);
        [Some(page(tool, name, &format!("{SERVER} {}", tool.name), link)), by_link].into_iter().flatten()
    });
    std::iter::once(root).chain(others)
}

impl Page {
    fn render(mut self) -> io::Result<String> {
        let name = escaped(&self.name);
        let usage = self.command.render_usage().to_string();
        let notes = self.command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let mut page = format!(
            // Prepares for the apostrophes of clap's text; a date would only tell when the page was made.
            ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n\
             .TH {} 1 \"\" \"kumo\\-server {}\" kumofs\n\
             .SH NAME\n{name} \\- {}\n.SH SYNOPSIS\n{}\n",
            name.to_uppercase(),
            env!("CARGO_PKG_VERSION"),
            escaped(&self.about),
            paragraph(usage.trim_start_matches("Usage: ")),
        );
        let man = Man::new(self.command);
        let mut rendered = Vec::new();
        man.render_description_section(&mut rendered)?;
        man.render_options_section(&mut rendered)?;
        page += &String::from_utf8(rendered).map_err(io::Error::other)?;
        if !notes.is_empty() {
            let paragraphs: Vec<_> = notes.split("\n\n").map(paragraph).collect();
            let _ = writeln!(page, ".SH NOTES\n{}", paragraphs.join("\n.PP\n"));
        }
        if !self.tools.is_empty() {
            page += ".SH TOOLS\n";
            for tool in self.tools {
                let link = tool.link.map_or(String::new(), |link| format!(" (link: {})", escaped(link)));
                let (name, about) = (escaped(tool.name), escaped(tool.about));
                let _ = writeln!(page, ".TP\n\\fB{} {name}\\fR{link}\n{about}", escaped(SERVER));
            }
        }
        let others: Vec<_> = self.see_also.iter().map(|name| format!("\\fB{}\\fR(1)", escaped(name))).collect();
        let _ = writeln!(page, ".SH SEE ALSO\n{}", others.join(",\n"));
        // An empty line between two breaks is what roff calls a paragraph.
        Ok(restore_page(&page.replace("\n.br\n\n.br\n", "\n.sp\n")))
    }
}

/// Text as it stands, line by line.
fn paragraph(text: &str) -> String {
    // A dot or an apostrophe at the start of a line would be a request.
    let protected = |line: &str| if line.starts_with(['.', '\'']) { "\\&" } else { "" };
    let lines = text.lines().map(|line| protected(line).to_owned() + &escaped(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// Text whose dashes are to be dashes in roff.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
