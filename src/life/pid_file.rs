//! The pid file: says which process serves, and keeps a second one out.
//!
//! It is locked as long as its process lives, so that two that start at once cannot both have it. The daemons of 2010
//! do not lock theirs: the process that the number in it belongs to is looked at, too. After a crash or a loss of power
//! the number may have become that of any other program.

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
    file: File,
}

impl PidFile {
    /// Writes the process's id to `path`, on behalf of `program`. A file left behind by a process that is no more is
    /// taken over, whoever has its number now.
    pub(super) fn claim(path: &Path, program: &str) -> Result<Self, Error> {
        let unwritable = |cause| Error::Unwritable { path: path.to_owned(), cause };
        let mut file = Self::lock(path)?;
        let content = read(&mut file).map_err(unwritable)?;
        if let Some(pid) = content
            .trim()
            .parse()
            .ok()
            .filter(|pid| *pid > 0)
            .and_then(Pid::from_raw)
            .filter(|pid| is_another_alive(*pid) && is_original(*pid, program))
        {
            return Err(Error::Running { path: path.to_owned(), pid: pid.as_raw_nonzero().to_string() });
        }
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(own_content().as_bytes())).map_err(
            |cause| {
                // An empty pid file would be of use to nobody.
                let _ = fs::remove_file(path);
                unwritable(cause)
            },
        )?;
        // The daemon's directory may have changed by the time of the removal.
        let path = std::path::absolute(path).map_err(unwritable)?;
        Ok(Self { path, file })
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
            if is_named(&file, path).map_err(unwritable)? {
                return Ok(file);
            }
        }
        Err(unwritable(io::Error::other("others keep replacing it")))
    }
}

impl PidFile {
    /// Whether the file is still there and says what this process has written: another daemon may have taken its name,
    /// or one of 2010 may have written over it.
    fn is_own(&mut self) -> io::Result<bool> {
        self.file.rewind()?;
        Ok(is_named(&self.file, &self.path)? && read(&mut self.file)? == own_content())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.is_own().is_ok_and(|own| !own) {
            if self.path.exists() {
                tracing::warn!("the pid file '{}' has become that of another process: it stays", self.path.display());
            }
            return;
        }
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove the pid file '{}': {error}", self.path.display());
        }
    }
}

/// The contents of the pid file of this process.
fn own_content() -> String {
    format!("{}\n", std::process::id())
}

/// Whether the open file `file` is the one that `path` names now.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(named) => Ok(identity(&named) == identity(&file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Device and inode: two files with the same are one.
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
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

/// Whether the living process `pid`, which does not hold the lock, is the daemon of 2010 in whose place `program` starts.
///
/// One that runs the same executable as this process is none: it would hold the lock if this were its pid file.
fn is_original(pid: Pid, program: &str) -> bool {
    let folder = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
    let executable = |folder: &Path| fs::metadata(folder.join("exe")).ok().as_ref().map(identity);
    let own = executable(Path::new("/proc/self"));
    name.trim_end() == name_of_2010(program) && !(own.is_some() && executable(&folder) == own)
}

/// The name that the process of `program` had in 2010: `kumo-manager` for `kumo-server manager`.
fn name_of_2010(program: &str) -> String {
    match program.split_once(' ') {
        Some((_, role)) => format!("kumo-{role}"),
        None => program.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn claim(path: &Path) -> Result<PidFile, Error> {
        PidFile::claim(path, "kumo-server")
    }

    fn path() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        (dir, path)
    }

    #[test]
    fn it_names_this_process_and_goes_away() {
        let (_dir, path) = path();
        let file = claim(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_locked_one_is_a_running_processs() {
        let (_dir, path) = path();
        let _file = claim(&path).unwrap();
        let error = claim(&path).unwrap_err().to_string();
        let expected =
            format!("the pid file '{}' is that of the running process {}", path.display(), std::process::id());
        assert_eq!(error, expected);
        assert!(path.exists());
    }

    /// A process that only sleeps, by the name of a daemon or another; killed when dropped.
    struct Sleeper(std::process::Child);

    impl Sleeper {
        fn start(dir: &Path, name: &str) -> Self {
            let program = dir.join(name);
            fs::copy("/bin/sleep", &program).unwrap();
            // While another test forks, the program just written may be open for writing in its child.
            let mut command = Command::new(&program);
            command.arg("60");
            let child = loop {
                match command.spawn() {
                    Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
                    child => break child.unwrap(),
                }
            };
            Self(child)
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn one_of_a_daemon_of_2010_is_refused_without_a_lock() {
        let (dir, path) = path();
        for (name, program) in
            [("kumo-server", "kumo-server"), ("kumo-manager", "kumo-server manager"), ("kumo-gateway", "kumo-gateway")]
        {
            let mut original = Sleeper::start(dir.path(), name);
            let pid = original.0.id();
            fs::write(&path, pid.to_string()).unwrap();
            let claimed = PidFile::claim(&path, program);
            assert!(
                matches!(&claimed, Err(Error::Running { pid: named, .. }) if *named == pid.to_string()),
                "{claimed:?}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), pid.to_string());
            original.0.kill().unwrap();
            // Not yet waited for: a zombie.
            while !fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z") {
                std::thread::yield_now();
            }
            drop(PidFile::claim(&path, program).unwrap());
        }
    }

    #[test]
    fn one_whose_number_is_another_programs_now_is_taken_over() {
        let (dir, path) = path();
        // The last one shares the beginning of its name only; the others are daemons, but of other roles.
        for name in ["anything", "kumo-manager", "kumo-gateway", "kumo-serverless"] {
            let other = Sleeper::start(dir.path(), name);
            fs::write(&path, other.0.id().to_string()).unwrap();
            let _file = claim(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), own_content(), "{name}");
        }
    }

    #[test]
    fn what_another_has_written_or_put_in_its_place_stays() {
        let (_dir, path) = path();
        let file = claim(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");

        let file = claim(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, own_content()).unwrap();
        drop(file);
        assert!(path.exists(), "another file of that name");

        fs::remove_file(&path).unwrap();
        let file = claim(&path).unwrap();
        fs::remove_file(&path).unwrap();
        drop(file);
        assert!(!path.exists());
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
            let _file = claim(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()), "{content}");
        }
    }

    #[test]
    fn an_unwritable_one_is_named() {
        let error = claim(Path::new("/nowhere/pid")).unwrap_err().to_string();
        assert!(error.starts_with("cannot write the pid file '/nowhere/pid': "), "{error}");
    }
}
