//! The pid file: says which process serves, and keeps a second one out.
//!
//! It is locked as long as its process lives, so that two that start at once cannot both have it. The number in it
//! is looked at too: the original daemons do not lock theirs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// Longest pid file that is read, in bytes: far more than a number needs.
const LENGTH_LIMIT: u64 = 64;

/// Times to start over when the file is removed or replaced at the moment of locking it.
const RACES_LIMIT: u32 = 10;

/// Why the pid file is not ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot write the pid file '{}': {cause}", path.display())]
    Unwritable { path: PathBuf, cause: io::Error },
    #[error("the pid file '{}' is that of the running process {pid}", path.display())]
    Running { path: PathBuf, pid: String },
}

/// This process's pid file; removed when dropped.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl PidFile {
    /// Writes the process's id to `path`. A file left behind by a process that is no more is taken over.
    pub(super) fn claim(path: &Path) -> Result<Self, Error> {
        let unwritable = |cause| Error::Unwritable { path: path.to_owned(), cause };
        let mut file = Self::lock(path)?;
        let content = read(&mut file).map_err(unwritable)?;
        if let Some(pid) = content
            .trim()
            .parse()
            .ok()
            .filter(|pid| *pid > 0)
            .and_then(Pid::from_raw)
            .filter(|pid| is_another_alive(*pid))
        {
            return Err(Error::Running { path: path.to_owned(), pid: pid.as_raw_nonzero().to_string() });
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
            .map_err(|cause| {
                // An empty pid file would be of use to nobody.
                let _ = fs::remove_file(path);
                unwritable(cause)
            })?;
        // The daemon's directory may have changed by the time of the removal.
        let path = std::path::absolute(path).map_err(unwritable)?;
        Ok(Self { path, _file: file })
    }

    /// Opens and locks the file that has the name `path` now.
    fn lock(path: &Path) -> Result<File, Error> {
        let unwritable = |cause| Error::Unwritable { path: path.to_owned(), cause };
        for _ in 0..RACES_LIMIT {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(unwritable)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let pid = read(&mut file).map_err(unwritable)?.trim().to_owned();
                    return Err(Error::Running { path: path.to_owned(), pid });
                }
                Err(TryLockError::Error(cause)) => return Err(unwritable(cause)),
            }
            // The process that had it may have removed it between our opening and locking it.
            let locked = file.metadata().map_err(unwritable)?;
            if fs::metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
                return Ok(file);
            }
        }
        Err(unwritable(io::Error::other("others keep replacing it")))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove the pid file '{}': {error}", self.path.display());
        }
    }
}

fn read(file: &mut File) -> io::Result<String> {
    let mut content = Vec::new();
    file.take(LENGTH_LIMIT).read_to_end(&mut content)?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// Whether `pid` is a process other than this one that has not ended.
///
/// After a restart of the machine, or in a container, the number left behind may be our own. A process that has ended
/// but was not waited for (a zombie) serves nobody.
fn is_another_alive(pid: Pid) -> bool {
    if pid == rustix::process::getpid() {
        return false;
    }
    let exists = match rustix::process::test_kill_process(pid) {
        Ok(()) => true,
        Err(error) => error == rustix::io::Errno::PERM,
    };
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok();
    // The name in parentheses may contain anything.
    let state = state.as_deref().and_then(|stat| stat.rsplit_once(") ")).map(|(_, rest)| rest.starts_with(['Z', 'X']));
    exists && state != Some(true)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        (dir, path)
    }

    #[test]
    fn it_names_this_process_and_goes_away() {
        let (_dir, path) = path();
        let file = PidFile::claim(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_locked_one_is_a_running_processs() {
        let (_dir, path) = path();
        let _file = PidFile::claim(&path).unwrap();
        let error = PidFile::claim(&path).unwrap_err().to_string();
        let expected =
            format!("the pid file '{}' is that of the running process {}", path.display(), std::process::id());
        assert_eq!(error, expected);
        assert!(path.exists());
    }

    #[test]
    fn one_of_a_living_process_without_a_lock_is_refused() {
        let (_dir, path) = path();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(&path, child.id().to_string()).unwrap();
        let claimed = PidFile::claim(&path);
        child.kill().unwrap();
        // Not yet waited for: a zombie.
        let zombie = std::iter::repeat_with(|| fs::read_to_string(format!("/proc/{}/stat", child.id())))
            .find(|stat| stat.as_ref().is_ok_and(|stat| stat.contains(") Z")))
            .map(|_| PidFile::claim(&path));
        child.wait().unwrap();
        assert!(matches!(claimed, Err(Error::Running { .. })), "{claimed:?}");
        assert!(matches!(zombie, Some(Ok(_))), "{zombie:?}");
    }

    #[test]
    fn stale_ones_are_replaced() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        for content in
            [child.id().to_string(), std::process::id().to_string(), String::new(), "\0\0junk".into(), "-1".into()]
        {
            let (_dir, path) = path();
            fs::write(&path, &content).unwrap();
            let _file = PidFile::claim(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()), "{content}");
        }
    }

    #[test]
    fn an_unwritable_one_is_named() {
        let error = PidFile::claim(Path::new("/nowhere/pid")).unwrap_err().to_string();
        assert!(error.starts_with("cannot write the pid file '/nowhere/pid': "), "{error}");
    }
}
