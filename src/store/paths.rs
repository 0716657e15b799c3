//! Names of a store's files. Knows none of what is in them.

use std::path::{Path, PathBuf};

/// The path of a store's side file.
pub(super) fn side_path(store: &Path, suffix: &str) -> PathBuf {
    let mut name = store.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// The path of the redo log file `number` of the store at `store`.
pub(super) fn redo_file(store: &Path, number: u64) -> PathBuf {
    side_path(store, &format!(".redo.{number}"))
}

/// The directory a path is in.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path without symbolic links, whether the file exists or not.
pub(super) fn canonical(path: &Path) -> PathBuf {
    let by_folder = || Some(std::fs::canonicalize(directory(path)).ok()?.join(path.file_name()?));
    std::fs::canonicalize(path).ok().or_else(by_folder).unwrap_or_else(|| path.to_path_buf())
}
