//! Results of tools on their way to stdout and into files.

use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Serialize;

use crate::cli::exit::Stop;

/// A value as a line of JSON.
pub(in crate::cli) fn json(value: &impl Serialize) -> Result<String, Stop> {
    serde_json::to_string(value).map(|text| text + "\n").map_err(|error| Stop::Failed(error.to_string()))
}

/// Writes to stdout what was asked for. Whoever stops reading early has had enough.
pub(in crate::cli) fn show(bytes: &[u8]) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Stop::Failed(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}

/// A report as indented JSON.
pub(in crate::cli) fn json_text(report: &impl Serialize) -> Result<String, Stop> {
    serde_json::to_string_pretty(report).map(|text| text + "\n").map_err(|error| Stop::Failed(error.to_string()))
}

/// Writes files into a folder, which is made if it is not there, and prints the path of each.
pub(in crate::cli) fn write_files(dir: &Path, files: impl IntoIterator<Item = (String, String)>) -> Result<(), Stop> {
    let cannot = |path: &Path, error: std::io::Error| Stop::Failed(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(dir).map_err(|error| cannot(dir, error))?;
    let mut paths = String::new();
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| cannot(&path, error))?;
        paths.extend([&*path.to_string_lossy(), "\n"]);
    }
    show(paths.as_bytes())
}
