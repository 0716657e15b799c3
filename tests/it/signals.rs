//! What signals do to a daemon: an orderly end, an end at once, and log files opened anew.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Instant;

use rustix::process::Signal;

use crate::harness::{Folder, PATIENCE, Port, Process, example, kumo_server, wait_for, wait_until};

/// A running daemon and a connection to it.
struct Scene {
    folder: Folder,
    port: Port,
    daemon: Process,
    socket: BufReader<TcpStream>,
}

impl Scene {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(args: &[&str]) -> Self {
        let (folder, port) = (Folder::new(), Port::reserve());
        let address = port.address().to_string();
        let args = [&[&*address, "-o", "log"], args].concat();
        let daemon = Process::spawn(&folder, "daemon", &example("echo_daemon"), &args);
        let socket = wait_for("the daemon listens", || TcpStream::connect(port.address()).ok());
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut scene = Self { folder, port, daemon, socket: BufReader::new(socket) };
        scene.send("hello");
        assert_eq!(scene.receive(), "hello\n");
        scene
    }

    fn send(&mut self, line: &str) {
        self.socket.get_mut().write_all(format!("{line}\n").as_bytes()).expect("a write");
    }

    /// The next line; empty when the daemon has closed the connection.
    fn receive(&mut self) -> String {
        let mut line = String::new();
        self.socket.read_line(&mut line).expect("a read");
        line
    }

    fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || self.folder.read("log").contains(text));
    }
}

#[test]
fn what_is_in_flight_is_answered_before_the_end() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let mut scene = Scene::start();
        scene.send("wait");
        scene.wait_for_log("asked to wait");
        scene.daemon.signal(signal);
        assert_eq!((scene.receive().as_str(), scene.receive().as_str()), ("wait\n", ""));
        assert!(TcpStream::connect(scene.port.address()).is_err(), "still accepting");
        let finished = scene.daemon.finish();
        assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""));
        let log = scene.folder.read("log");
        assert!(log.contains(&format!("{name}: stopping")) && log.ends_with("INFO stopped\n"), "{log}");
    }
}

#[test]
fn what_never_ends_is_waited_for_only_so_long() {
    let mut scene = Scene::start();
    scene.send("hang");
    scene.wait_for_log("asked to hang");
    let begin = Instant::now();
    scene.daemon.signal(Signal::TERM);
    assert_eq!(scene.daemon.finish().status.code(), Some(0));
    assert!(begin.elapsed().as_millis() >= 500, "{:?}", begin.elapsed());
}

#[test]
fn only_a_second_sigint_ends_at_once() {
    for signals in [[Signal::INT, Signal::TERM, Signal::INT], [Signal::TERM, Signal::INT, Signal::INT]] {
        let mut scene = Scene::start_with(&["--patient"]);
        scene.send("hang");
        scene.wait_for_log("asked to hang");
        let [first, second, third] = signals;
        scene.daemon.signal(first);
        scene.wait_for_log(": stopping\n");
        scene.daemon.signal(second);
        scene.wait_for_log(": stopping already\n");
        assert!(scene.daemon.is_running());
        scene.daemon.signal(third);
        assert_eq!(scene.daemon.finish().status.code(), Some(130));
        assert!(scene.folder.read("log").contains("SIGINT again: ending at once"));
    }
}

#[test]
fn a_second_sigterm_cuts_nothing_short() {
    let mut scene = Scene::start();
    scene.send("hang");
    scene.wait_for_log("asked to hang");
    let begin = Instant::now();
    scene.daemon.signal(Signal::TERM);
    scene.wait_for_log("SIGTERM: stopping\n");
    while scene.daemon.is_running() && begin.elapsed() < PATIENCE {
        scene.daemon.signal(Signal::TERM);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(scene.daemon.finish().status.code(), Some(0));
    assert!(begin.elapsed().as_millis() >= 500, "{:?}", begin.elapsed());
    let log = scene.folder.read("log");
    assert!(log.contains("SIGTERM: stopping already") && log.ends_with("INFO stopped\n"), "{log}");
}

#[test]
fn a_signal_during_the_start_ends_it() {
    let (folder, port) = (Folder::new(), Port::reserve());
    let args = [&*port.address().to_string(), "-o", "log", "--never"];
    let daemon = Process::spawn(&folder, "daemon", &example("echo_daemon"), &args);
    // The runtime's threads are there a moment before its signal handlers; before those the signal kills.
    wait_until("signals are handled", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid().as_raw_nonzero()));
        let caught =
            status.expect("a process").lines().find_map(|line| line.strip_prefix("SigCgt:").map(str::to_owned));
        let caught = u64::from_str_radix(caught.expect("a mask").trim(), 16).expect("a mask");
        [Signal::TERM, Signal::INT, Signal::HUP].iter().all(|signal| caught >> (signal.as_raw() - 1) & 1 == 1)
    });
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.finish().status.code(), Some(143));
    assert!(folder.read("log").contains("SIGTERM before the start was complete"));
}

#[test]
fn sighup_opens_the_log_anew() {
    let mut scene = Scene::start();
    // Lines have a queue before them: this one could still go to the new file.
    scene.wait_for_log("accepted");
    std::fs::rename(scene.folder.join("log"), scene.folder.join("log.1")).expect("a rename");
    scene.daemon.signal(Signal::HUP);
    scene.wait_for_log("service reopens");
    scene.send("still here");
    assert_eq!(scene.receive(), "still here\n");
    assert!(scene.folder.read("log.1").contains("accepted"));
    assert!(scene.folder.read("log").contains("log reopened"));
}

/// Signals that end a process by default, and that nobody sends to a daemon for that.
const MEANINGLESS: [Signal; 8] =
    [Signal::PIPE, Signal::USR1, Signal::USR2, Signal::ALARM, Signal::XFSZ, Signal::VTALARM, Signal::PROF, Signal::IO];

#[test]
fn signals_without_a_meaning_are_ignored_in_every_role() {
    let (folder, ports) = (Folder::new(), [Port::reserve(), Port::reserve(), Port::reserve()]);
    let [manager, server, gateway] = ports.each_ref().map(|port| port.address().to_string());
    let mut daemons = [
        ("manager", vec!["manager", "-v", "-l", &manager]),
        ("server", vec!["-v", "-l", &server, "-L", "0", "-m", &manager, "-s", "db"]),
        ("gateway", vec!["gateway", "-v", "-t", &gateway, "-m", &manager]),
    ]
    .map(|(name, args)| Process::spawn(&folder, name, &kumo_server(), &args));
    for (daemon, port) in daemons.iter_mut().zip(&ports) {
        // Its port is open earlier than its start is complete.
        let started = |log: &str| log.contains("manager started") || log.contains("listening");
        wait_until("it has started", || started(&daemon.stdout()));
        for signal in MEANINGLESS {
            daemon.signal(signal);
        }
        // A signal that kills has done so before the connection is accepted, or the next one finds nobody.
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(daemon.is_running());
            TcpStream::connect(port.address()).expect("a connection");
        }
        daemon.signal(Signal::TERM);
    }
    for daemon in daemons {
        assert_eq!(daemon.finish().status.code(), Some(0));
    }
}

#[test]
fn a_limit_of_file_sizes_costs_log_lines_and_nothing_else() {
    let mut scene = Scene::start();
    scene.daemon.limit_file_size(Some(1000));
    for round in 0..50 {
        scene.send(&format!("round {round}"));
        assert_eq!(scene.receive(), format!("round {round}\n"));
    }
    // The last line that had room is cut off.
    wait_until("the limit is hit", || scene.folder.read("log").len() == 1000);
    scene.send("still here");
    assert_eq!(scene.receive(), "still here\n");
    scene.daemon.limit_file_size(None);
    scene.send("there is room");
    assert_eq!(scene.receive(), "there is room\n");
    scene.wait_for_log("asked to there is room");
}

#[test]
fn a_panic_is_logged_with_thread_and_place_and_others_are_served() {
    let mut scene = Scene::start();
    scene.send("panic");
    assert_eq!(scene.receive(), "");
    let log = scene.folder.read("log");
    assert!(log.contains("ERROR panic: asked to location=\"tests/it/echo_daemon.rs:"), "{log}");
    assert!(log.contains("thread=\"tokio-"), "{log}");
    let socket = TcpStream::connect(scene.port.address()).expect("a connection");
    scene.socket = BufReader::new(socket);
    scene.send("others");
    assert_eq!(scene.receive(), "others\n");
}

#[test]
fn a_service_that_fails_ends_the_process_with_its_reason() {
    let mut scene = Scene::start();
    scene.send("fail");
    let finished = scene.daemon.finish();
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(1), "echo: the service has failed\n"));
    assert!(scene.folder.read("log").contains("ERROR ending: the service has failed"));
}
