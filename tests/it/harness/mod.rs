//! What every scenario is made of: a folder, ports, processes, and waiting for a condition with a deadline.

pub(crate) mod cluster;
pub(crate) mod fake_server;
pub(crate) mod gateway;
pub(crate) mod manager;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod preload;
pub(crate) mod process;
pub(crate) mod requests;
pub(crate) mod required;
pub(crate) mod script;
pub(crate) mod scripted;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use fake_server::FakeServer;
pub(crate) use gateway::Gateway;
pub(crate) use manager::Manager;
pub(crate) use network::Network;
pub(crate) use port::Port;
pub(crate) use process::{Finished, Process};

/// Longest time that anything may take on a busy machine before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Pause between two looks at a condition.
const GLANCE: Duration = Duration::from_millis(5);

/// The binary under test.
pub(crate) fn kumo_server() -> PathBuf {
    env!("CARGO_BIN_EXE_kumo-server").into()
}

/// A program that only tests use; built with the examples, as `cargo test` does.
pub(crate) fn example(name: &str) -> PathBuf {
    let path = kumo_server().with_file_name("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build --examples", path.display());
    path
}

/// A fresh folder, removed at the end. When its test fails, the logs in it are shown.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("kumo-it-").tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of `name` in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The text of the file `name` in it; empty if there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        read(&self.join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let files = std::fs::read_dir(self.path()).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_log = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains("log"));
        for log in files.filter(|path| std::thread::panicking() && is_log(path)) {
            eprintln!("--- {}\n{}", log.display(), read(&log));
        }
    }
}

/// The text of a file; empty if there is none.
pub(crate) fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Waits until `condition` holds; fails with `reason` after [`PATIENCE`].
#[track_caller]
pub(crate) fn wait_until(reason: &str, mut condition: impl FnMut() -> bool) {
    wait_for(reason, || condition().then_some(()));
}

/// Waits until `look` finds something; fails with `reason` after [`PATIENCE`].
#[track_caller]
pub(crate) fn wait_for<T>(reason: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "after {PATIENCE:?}, still not: {reason}");
        std::thread::sleep(GLANCE);
    }
}
