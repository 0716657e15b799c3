//! `-d`: the shell's exit status is 0 only when the service listens; the pid file names who serves.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::harness::{Folder, Port, Process, example, wait_until};

/// A daemon that has detached; killed when dropped.
struct Detached(Pid);

impl Detached {
    /// The process that the pid file in `folder` names.
    fn named_by(folder: &Folder) -> Self {
        let pid = folder.read("pid").trim().parse().ok().and_then(Pid::from_raw);
        Self(pid.expect("a pid file"))
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Whether a service answers at `port`.
fn answers(port: &Port) -> bool {
    let Ok(mut socket) = TcpStream::connect(port.address()) else { return false };
    socket.write_all(b"hello\n").expect("a write");
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).expect("a read");
    line == "hello\n"
}

#[test]
fn it_serves_once_the_launcher_has_ended_and_leaves_nothing_behind() {
    let (folder, port) = (Folder::new(), Port::reserve());
    // Pipes, which `output` reads to their end: the daemon must not hold them open.
    let launched = Command::new(example("echo_daemon"))
        .args([&port.address().to_string(), "-d", "pid", "-o", "log"])
        .current_dir(folder.path())
        .output()
        .expect("a launcher");
    assert!(launched.status.success() && launched.stdout.is_empty() && launched.stderr.is_empty(), "{launched:?}");
    let daemon = Detached::named_by(&folder);
    assert!(answers(&port));
    // Its paths are still relative to where it was started.
    wait_until("a line in the log", || folder.read("log").contains("accepted peer=127.0.0.1"));
    kill_process(daemon.0, Signal::TERM).expect("a signal");
    wait_until("the pid file is removed", || !folder.join("pid").exists());
    wait_until("nobody listens", || TcpStream::connect(port.address()).is_err());
    assert!(folder.read("log").contains("stopped"), "{}", folder.read("log"));
}

#[test]
fn without_a_log_file_the_log_goes_where_stdout_was_redirected_to() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let launched = Process::run(&folder, &example("echo_daemon"), &[&port.address().to_string(), "-d", "pid"]);
    assert_eq!(launched.status.code(), Some(0));
    let _daemon = Detached::named_by(&folder);
    assert!(answers(&port));
    wait_until("a line in the log", || folder.read("run.out").contains("accepted peer=127.0.0.1"));
}

#[test]
fn a_log_that_was_sent_to_stdout_stays_there_even_in_a_pipe() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let mut launcher = Command::new(example("echo_daemon"))
        .args([&port.address().to_string(), "-d", "pid", "--keep-stdout"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a launcher");
    let mut log = BufReader::new(launcher.stdout.take().expect("a pipe"));
    assert!(launcher.wait().expect("a launcher").success());
    let daemon = Detached::named_by(&folder);
    assert!(answers(&port));
    let mut line = String::new();
    log.read_line(&mut line).expect("a line");
    assert!(line.contains("accepted peer=127.0.0.1"), "{line}");
    kill_process(daemon.0, Signal::TERM).expect("a signal");
    // The end of the daemon is the end of the pipe.
    let rest: Vec<_> = log.lines().map(|line| line.expect("a line")).collect();
    assert!(rest.last().is_some_and(|line| line.ends_with("stopped")), "{rest:?}");
}

#[test]
fn a_failure_at_the_start_is_one_line_and_no_pid_file() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let _taken = std::net::TcpListener::bind(port.address()).expect("a listener");
    let address = port.address().to_string();
    for args in [&[&*address][..], &[&*address, "-d", "pid"]] {
        let finished = Process::run(&folder, &example("echo_daemon"), &[args, &["-o", "log"]].concat());
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        let line = format!("echo: cannot listen on {address}: Address already in use (os error 98)\n");
        assert_eq!((finished.stderr, finished.stdout.as_str()), (line, ""));
        assert!(!folder.join("pid").exists());
        assert!(folder.read("log").contains("ERROR ending: cannot listen"), "{}", folder.read("log"));
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let address = port.address().to_string();
    for (args, start) in [
        (["-d", "/nowhere/pid", "-o", "log"], "echo: cannot write the pid file '/nowhere/pid': No such file"),
        (["-d", "pid", "-o", "/nowhere/log"], "echo: cannot open the log file '/nowhere/log': No such file"),
    ] {
        let finished = Process::run(&folder, &example("echo_daemon"), &[&[&*address][..], &args].concat());
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        assert!(finished.stderr.starts_with(start) && finished.stderr.lines().count() == 1, "{finished:?}");
        assert!(!folder.join("pid").exists());
    }
}

#[test]
fn a_daemon_that_dies_unheard_is_a_failure() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let finished = Process::run(&folder, &example("echo_daemon"), &[&port.address().to_string(), "-d", "pid", "--die"]);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert_eq!(finished.stderr, "echo: the daemon was killed before it was ready\n");
    // Its pid file remains, names nobody, and is in nobody's way.
    wait_until("the daemon is gone", || {
        let pid = folder.read("pid").trim().parse().ok().and_then(Pid::from_raw).expect("a pid file");
        test_kill_process(pid).is_err() || is_zombie(pid)
    });
    let again =
        Process::run(&folder, &example("echo_daemon"), &[&port.address().to_string(), "-d", "pid", "-o", "log"]);
    let _daemon = Detached::named_by(&folder);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    assert!(answers(&port));
}

/// Whether `pid` has ended, its last thread too, but nobody has waited for it, as where no init process does.
fn is_zombie(pid: Pid) -> bool {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let ended = std::fs::read_to_string(format!("{folder}/stat")).is_ok_and(|stat| stat.contains(") Z"));
    ended && std::fs::read_dir(format!("{folder}/task")).is_ok_and(|threads| threads.count() <= 1)
}

#[test]
fn a_panic_at_the_start_is_told_and_logged() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let finished = Process::run(
        &folder,
        &example("echo_daemon"),
        &[&port.address().to_string(), "-d", "pid", "-o", "log", "--panic"],
    );
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("asked to"), "{finished:?}");
    assert!(folder.read("log").contains("ERROR panic: asked to location=\"tests/it/echo_daemon.rs:"));
    assert!(!folder.join("pid").exists());
}

#[test]
fn a_second_daemon_on_the_same_pid_file_is_refused() {
    let (folder, port, other) = (Folder::new(), Port::reserve(), Port::reserve());
    let first =
        Process::run(&folder, &example("echo_daemon"), &[&port.address().to_string(), "-d", "pid", "-o", "log"]);
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let daemon = Detached::named_by(&folder);
    let second =
        Process::run(&folder, &example("echo_daemon"), &[&other.address().to_string(), "-d", "pid", "-o", "log2"]);
    assert_eq!(second.status.code(), Some(1));
    let pid = daemon.0.as_raw_nonzero();
    assert_eq!(second.stderr, format!("echo: the pid file 'pid' is that of the running process {pid}\n"));
    assert_eq!(folder.read("pid"), format!("{pid}\n"));
    assert!(answers(&port) && !answers(&other));
}

/// What a loss of power leaves: a file, and its number given anew to something that starts at every boot.
#[test]
fn a_pid_file_whose_number_is_another_programs_is_in_nobodys_way() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let other = Process::spawn(&folder, "other", "/bin/sleep".as_ref(), &["60"]);
    std::fs::write(folder.join("pid"), other.pid().as_raw_nonzero().to_string()).unwrap();
    let started =
        Process::run(&folder, &example("echo_daemon"), &[&port.address().to_string(), "-d", "pid", "-o", "log"]);
    assert_eq!((started.status.code(), started.stderr.as_str()), (Some(0), ""));
    let daemon = Detached::named_by(&folder);
    assert!(daemon.0 != other.pid() && answers(&port));
}

/// A daemon of 2010 looks at no lock: it writes its number over ours.
#[test]
fn a_pid_file_that_another_has_written_meanwhile_stays() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let started =
        Process::run(&folder, &example("echo_daemon"), &[&port.address().to_string(), "-d", "pid", "-o", "log"]);
    assert_eq!(started.status.code(), Some(0), "{started:?}");
    let daemon = Detached::named_by(&folder);
    std::fs::write(folder.join("pid"), "1\n").unwrap();
    kill_process(daemon.0, Signal::TERM).expect("a signal");
    wait_until("it has ended", || test_kill_process(daemon.0).is_err() || is_zombie(daemon.0));
    assert_eq!(folder.read("pid"), "1\n");
    assert!(folder.read("log").contains("has become that of another process"), "{}", folder.read("log"));
}
