//! A process of the binary under test: its output goes to files, and it does not outlive its test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::{Folder, read, wait_for};

/// A running process. When its test fails, what it has printed is shown; when it is dropped, it is killed.
pub(crate) struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

/// What a process has left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Process {
    /// Starts `program` in `folder`, where its output is kept in `name.out` and `name.err`.
    pub(crate) fn spawn(folder: &Folder, name: &str, program: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args);
        Self::spawn_command(folder, name, command)
    }

    /// The same for a command that needs more than arguments.
    pub(crate) fn spawn_command(folder: &Folder, name: &str, mut command: Command) -> Self {
        let (out, err) = (folder.join(&format!("{name}.out")), folder.join(&format!("{name}.err")));
        let child = command
            .current_dir(folder.path())
            .env_remove("RUST_LOG")
            .env_remove("RUST_BACKTRACE")
            .env_remove("COLUMNS")
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a file for stdout"))
            .stderr(File::create(&err).expect("a file for stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { name: name.to_owned(), child, out, err }
    }

    /// Runs a process to its end.
    #[track_caller]
    pub(crate) fn run(folder: &Folder, program: &Path, args: &[&str]) -> Finished {
        Self::spawn(folder, "run", program, args).finish()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let status = wait_for(&format!("the end of {}", self.name), || self.child.try_wait().expect("a child"));
        Finished { status, stdout: self.stdout(), stderr: self.stderr() }
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Memory that it has in use, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_nonzero())).expect("its status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Sends it a signal: TERM and HUP, KILL for a crash, STOP and CONT for a hang.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap_or_else(|error| panic!("{signal:?} to {}: {error}", self.name));
    }

    /// Bounds the length of every file that it writes, as `ulimit -f` would; `None` lifts the bound.
    pub(crate) fn limit_file_size(&self, bytes: Option<u64>) {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(self.pid()), Resource::Fsize, limit).expect("a limit of file sizes");
    }

    /// Makes it hang, until it is sent CONT: none of its threads runs any more when this returns.
    pub(crate) fn hang(&self) {
        self.signal(Signal::STOP);
        let path = format!("/proc/{}/stat", self.pid().as_raw_nonzero());
        wait_for(&format!("{} has stopped", self.name), || {
            std::fs::read_to_string(&path).expect("its state").contains(") T ").then_some(())
        });
    }

    /// What it has printed to stdout, where its log goes.
    pub(crate) fn stdout(&self) -> String {
        read(&self.out)
    }

    pub(crate) fn stderr(&self) -> String {
        read(&self.err)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After its end this does nothing: the child has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} stdout\n{}--- {} stderr\n{}", self.name, self.stdout(), self.name, self.stderr());
        }
    }
}
