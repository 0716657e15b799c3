//! Libraries that stand between a process and the system, to make calls of it fail or wait.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::Folder;

/// Compiles `source`, in C, to a library for `LD_PRELOAD`.
pub(crate) fn library(folder: &Folder, name: &str, source: &str) -> PathBuf {
    let (file, path) = (folder.join(&format!("{name}.c")), folder.join(&format!("{name}.so")));
    std::fs::write(&file, format!("#define _GNU_SOURCE\n{source}")).expect("a file");
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&path, &file]).arg("-ldl").status();
    assert!(status.expect("a C compiler, as SQLite needs one, too").success(), "{name} must compile");
    path
}
