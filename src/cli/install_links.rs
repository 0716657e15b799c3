//! `install-links`: a link to this binary under the name of each tool that had one.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use super::args::{Call, parse};
use super::exit::Stop;
use super::tool::{SERVER, Tool, show};

/// Makes kumo-server, kumo-manager, kumoctl and the other names links to this binary
#[derive(Debug, Parser)]
pub(super) struct Args {
    /// The folder, such as /usr/local/bin
    dir: PathBuf,

    /// Replace files and links that are something else
    #[arg(short, long)]
    force: bool,
}

/// The state of the place of a link.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Free,
    /// This binary, or a link to it.
    Ours,
    /// A file, or a link to something else.
    Foreign,
    /// A folder, which is never replaced.
    Folder,
}

/// Makes the links of `tools`.
pub(super) fn run(call: &Call, tools: &[Tool]) -> Result<ExitCode, Stop> {
    let args: Args = parse(call, |command| command)?;
    let cannot = |path: &Path, error: std::io::Error| Stop::Failed(format!("{}: {error}", path.display()));
    let binary = std::env::current_exe().and_then(fs::canonicalize);
    let binary = binary.map_err(|error| Stop::Failed(format!("cannot find this binary: {error}")))?;
    let dir = fs::canonicalize(&args.dir).map_err(|error| cannot(&args.dir, error))?;
    if !dir.is_dir() {
        return Err(Stop::Failed(format!("{}: not a folder", args.dir.display())));
    }
    let names = std::iter::once(SERVER).chain(tools.iter().filter_map(|tool| tool.link));
    let places: Vec<_> =
        names.map(|name| (name, dir.join(name))).map(|(name, path)| (name, place(&path, &binary), path)).collect();
    // All or nothing.
    let in_the_way = places.iter().filter(|(_, place, _)| match place {
        Place::Foreign => !args.force,
        Place::Folder => true,
        Place::Free | Place::Ours => false,
    });
    let in_the_way: Vec<_> = in_the_way.map(|(_, _, path)| path.display().to_string()).collect();
    if !in_the_way.is_empty() {
        let hint = if args.force { "a folder is never replaced" } else { "--force replaces files" };
        return Err(Stop::Failed(format!(
            "already exists and is not this binary: {} ({hint}); nothing was changed",
            in_the_way.join(", ")
        )));
    }
    // Within its own folder the binary may be moved together with its links.
    let target = match (binary.parent() == Some(&dir), binary.file_name()) {
        (true, Some(name)) => PathBuf::from(name),
        _ => binary.clone(),
    };
    let mut report = String::new();
    for (name, place, path) in places {
        let done = match place {
            Place::Ours => "is there",
            _ => {
                link(&target, &path, name).map_err(|error| cannot(&path, error))?;
                if place == Place::Free { "made" } else { "replaced" }
            }
        };
        report.extend([&*path.to_string_lossy(), ": ", done, "\n"]);
    }
    show(report.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn place(path: &Path, binary: &Path) -> Place {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Place::Free,
        _ if fs::canonicalize(path).is_ok_and(|target| target == binary) => Place::Ours,
        Ok(file) if file.is_dir() => Place::Folder,
        _ => Place::Foreign,
    }
}

/// Puts the link in place in one step, so that a tool in use is never missing.
fn link(target: &Path, path: &Path, name: &str) -> std::io::Result<()> {
    let fresh = path.with_file_name(format!(".{name}.{}", std::process::id()));
    std::os::unix::fs::symlink(target, &fresh)?;
    fs::rename(&fresh, path).inspect_err(|_| drop(fs::remove_file(&fresh)))
}
