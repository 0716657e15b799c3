//! The folder of a try-it cluster: data, logs, and a note of what the cluster was.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::exit::Stop;

/// Number of servers without a flag and without a note.
const SERVERS: usize = 3;

/// The contents of the note; servers have their place in the hash space by their address.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Note {
    servers: usize,
    base_port: u16,
    /// None in notes of versions without one.
    #[serde(default)]
    gateway_port: Option<u16>,
}

/// A folder that this process holds.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    note: Option<Note>,
    /// Locked as long as it is open.
    _lock: File,
}

impl Folder {
    /// Opens the folder, made if there is none; refuses one that another cluster runs in.
    pub(super) fn open(path: &Path) -> Result<Self, Stop> {
        let failed = |error: std::io::Error| Stop::Failed(format!("--dir {}: {error}", path.display()));
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::options().create(true).append(true).open(path.join("lock")).map_err(failed)?;
        if lock.try_lock().is_err() {
            return Err(Stop::Failed(format!("--dir {}: another cluster is running in it", path.display())));
        }
        let name = path.join(NOTE);
        let note = match fs::read(&name) {
            Ok(text) => Some(
                serde_json::from_slice(&text)
                    .map_err(|error| Stop::Failed(format!("{}: not a note of a cluster: {error}", name.display())))?,
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { path: path.to_owned(), note, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The manager's port: that of the data in the folder, or the one wanted, or the usual one.
    pub(super) fn base_port(&self, wanted: Option<u16>, usual: u16) -> Result<u16, Stop> {
        match (self.note, wanted) {
            (Some(note), Some(wanted)) if wanted != note.base_port => {
                // Other addresses own other keys.
                let (path, base_port) = (self.path.display(), note.base_port);
                Err(Stop::Failed(format!("{path} holds the data of a cluster with --base-port {base_port}")))
            }
            (Some(note), _) => Ok(note.base_port),
            (None, wanted) => Ok(wanted.unwrap_or(usual)),
        }
    }

    /// How many servers to run, given how many are wanted.
    pub(super) fn servers(&self, wanted: Option<usize>) -> Result<usize, Stop> {
        match (self.note, wanted) {
            (Some(note), Some(wanted)) if wanted < note.servers => {
                let (path, servers) = (self.path.display(), note.servers);
                Err(Stop::Failed(format!("{path} holds the data of {servers} servers: --servers {wanted} is too few")))
            }
            (Some(note), wanted) => Ok(wanted.unwrap_or(note.servers)),
            (None, wanted) => Ok(wanted.unwrap_or(SERVERS)),
        }
    }

    /// How many servers hold the data of the folder.
    pub(super) fn attached(&self) -> usize {
        self.note.map_or(0, |note| note.servers)
    }

    /// Where the gateway listened the last time.
    pub(super) fn gateway_port(&self) -> Option<u16> {
        self.note.and_then(|note| note.gateway_port)
    }

    /// Notes what holds the data from now on.
    pub(super) fn remember(&self, servers: usize, base_port: u16, gateway_port: u16) -> Result<(), Stop> {
        let failed = |error: std::io::Error| Stop::Failed(format!("{}: {error}", self.path.display()));
        let note = serde_json::to_vec(&Note { servers, base_port, gateway_port: Some(gateway_port) })
            .map_err(|error| Stop::Failed(error.to_string()))?;
        let mut file = tempfile::NamedTempFile::new_in(&self.path).map_err(failed)?;
        file.write_all(&note).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(self.path.join(NOTE)).map(drop).map_err(|error| failed(error.error))
    }

    /// The log of a process.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    /// The database of the server with this number.
    pub(super) fn store(&self, number: usize) -> PathBuf {
        self.path.join(format!("database{number}.tch"))
    }
}

/// Name of the note.
const NOTE: &str = "cluster.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_remembers_its_cluster_and_serves_one() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("new");
        let folder = Folder::open(&path).unwrap();
        assert_eq!((folder.servers(None), folder.servers(Some(5)), folder.attached()), (Ok(3), Ok(5), 0));
        assert_eq!((folder.base_port(None, 9), folder.base_port(Some(1), 9)), (Ok(9), Ok(1)));
        folder.remember(4, 1, 7).unwrap();
        let Err(Stop::Failed(line)) = Folder::open(&path) else { panic!("opened twice") };
        assert!(line.ends_with("another cluster is running in it"), "{line}");
        drop(folder);

        let folder = Folder::open(&path).unwrap();
        assert_eq!((folder.servers(None), folder.servers(Some(6)), folder.attached()), (Ok(4), Ok(6), 4));
        assert_eq!((folder.base_port(None, 9), folder.base_port(Some(1), 9)), (Ok(1), Ok(1)));
        assert_eq!(folder.gateway_port(), Some(7));
        let refused = |answer: Result<String, Stop>| match answer {
            Err(Stop::Failed(line)) => line.split_once(" holds ").unwrap().1.to_owned(),
            other => panic!("{other:?}"),
        };
        let servers = folder.servers(Some(3)).map(|servers| servers.to_string());
        assert_eq!(refused(servers), "the data of 4 servers: --servers 3 is too few");
        let base_port = folder.base_port(Some(2), 9).map(|port| port.to_string());
        assert_eq!(refused(base_port), "the data of a cluster with --base-port 1");
        drop(folder);

        fs::write(path.join(NOTE), "nonsense").unwrap();
        assert!(matches!(Folder::open(&path), Err(Stop::Failed(line)) if line.contains("not a note of a cluster")));
    }
}
