//! The try-it cluster: up with one command, its printed lines work, down in order, and back with its data.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, test_kill_process};

use crate::harness::gateway::Memcached;
use crate::harness::{Finished, Folder, Port, Process, kumo_server, wait_for, wait_until};

/// Distances of the ports of the gateway, of four servers and of their streams from that of the manager.
const DISTANCES: [u16; 10] = [1, 2, 101, 102, 103, 104, 201, 202, 203, 204];

struct TryIt {
    folder: Folder,
    base: Port,
    /// Held against other tests.
    _others: Vec<Port>,
}

impl TryIt {
    fn new() -> Self {
        let (base, others) = Port::reserve_with(&DISTANCES);
        Self { folder: Folder::new(), base, _others: others }
    }

    fn start(&self, name: &str, more: &[&str]) -> Process {
        let base = self.base.number().to_string();
        let args = [&["cluster", "--base-port", &base, "--dir", "data"], more].concat();
        Process::spawn(&self.folder, name, &kumo_server(), &args)
    }

    /// Starts it and waits until it is ready; returns what it has printed.
    #[track_caller]
    fn ready(&self, name: &str, more: &[&str]) -> (Process, String) {
        let mut process = self.start(name, more);
        let text = wait_for("the cluster is ready", || {
            let text = process.stdout();
            assert!(process.is_running() || text.contains("Ctrl-C"), "it has ended: {}", process.stderr());
            text.contains("Ctrl-C ends all of it").then_some(text)
        });
        (process, text)
    }

    fn tool(&self, args: &[&str]) -> Finished {
        Process::run(&self.folder, &kumo_server(), args)
    }

    /// Process ids of the children of `process`.
    fn children(process: &Process) -> Vec<Pid> {
        let pid = process.pid().as_raw_nonzero();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("/proc");
        text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect()
    }

    /// A value by the gateway, which may be away.
    fn gateway_gets(&self, key: &str) -> Option<String> {
        let address: std::net::SocketAddr = (std::net::Ipv4Addr::LOCALHOST, self.base.number() + 1).into();
        std::net::TcpStream::connect(address).ok()?;
        Memcached::connect(address).get(key)
    }

    fn log(&self, name: &str) -> String {
        self.folder.read(&format!("data/{name}.log"))
    }
}

/// The lines printed to be tried, behind a line that starts so.
fn offered_behind<'t>(text: &'t str, start: &str) -> Vec<&'t str> {
    let lines = text.lines().skip_while(|line| !line.starts_with(start)).skip(1);
    lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect()
}

fn offered(text: &str) -> Vec<&str> {
    offered_behind(text, "Ready")
}

fn shell(line: &str, folder: &Path) -> Finished {
    let output = Command::new("sh").args(["-c", line]).current_dir(folder).output().expect("a shell");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Finished { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn it_comes_up_can_be_tried_and_comes_back_with_its_data() {
    let tryit = TryIt::new();
    let (process, text) = tryit.ready("first", &[]);
    let children = TryIt::children(&process);
    assert_eq!(children.len(), 5, "{text}");
    let gateway = (std::net::Ipv4Addr::LOCALHOST, tryit.base.number() + 1).into();
    assert!(offered(&text)[0].ends_with(&format!("| nc 127.0.0.1 {}", tryit.base.number() + 1)), "{text}");
    let greeting = b"VALUE greeting 3 5\r\nhello\r\nEND\r\n";
    let mut client = Memcached::connect(gateway);
    client.exchange(b"set greeting 3 0 5\r\nhello\r\nget greeting\r\n", &[&b"STORED\r\n"[..], greeting].concat());
    for (line, printed) in offered(&text).into_iter().skip(1).zip(["", "world", "hash space timestamp:\n"]) {
        let finished = shell(line, tryit.folder.path());
        assert!(finished.status.success() && finished.stdout.starts_with(printed), "{line}: {finished:?}");
    }
    let manager = tryit.base.address().to_string();
    // Tools and gateway understand each other without a flag.
    let mut client = Memcached::connect(gateway);
    client.exchange(b"set flagged 4294967295 1000 5\r\nhello\r\n", b"STORED\r\n");
    assert_eq!(tryit.tool(&["get", "-m", &manager, "flagged"]).stdout, "hello");
    let long = "a value that is longer than any header in front of it";
    assert!(tryit.tool(&["set", "-m", &manager, "long", long]).status.success());
    let answer = format!("VALUE flagged 4294967295 5\r\nhello\r\nVALUE long 0 {}\r\n{long}\r\nEND\r\n", long.len());
    client.exchange(b"get flagged long\r\n", answer.as_bytes());
    drop(client);
    let keys: Vec<_> = (0..20).map(|index| format!("key{index}")).collect();
    for key in &keys {
        assert!(tryit.tool(&["set", "-m", &manager, key, &format!("value of {key}")]).status.success());
    }
    process.signal(Signal::INT);
    let finished = process.finish();
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""));
    for child in children {
        assert!(test_kill_process(child).is_err(), "{child:?} has outlived it");
    }
    for name in ["manager", "server1", "server2", "server3", "gateway"] {
        assert!(tryit.log(name).contains("stopped"), "{name} did not end in order: {}", tryit.log(name));
    }

    // With one server more: it gets its share of what is there.
    let (process, text) = tryit.ready("second", &["--servers", "4"]);
    assert_eq!(TryIt::children(&process).len(), 6);
    Memcached::connect(gateway).exchange(b"get greeting\r\n", greeting);
    let get = offered(&text)[2].to_owned();
    assert_eq!(shell(&get, tryit.folder.path()).stdout, "world");
    for key in &keys {
        assert_eq!(tryit.tool(&["get", "-m", &manager, key]).stdout, format!("value of {key}"));
    }
    process.signal(Signal::TERM);
    assert_eq!(process.finish().status.code(), Some(0));

    // It remembers how many it was.
    let (process, _) = tryit.ready("third", &[]);
    assert_eq!(TryIt::children(&process).len(), 6);
    assert_eq!(shell(&get, tryit.folder.path()).stdout, "world");
    let busy = tryit.tool(&["cluster", "--dir", "data"]);
    assert_eq!(busy.status.code(), Some(1));
    assert_eq!(busy.stderr, "kumo-server cluster: --dir data: another cluster is running in it\n");
    drop(process);
}

#[test]
fn its_processes_do_not_outlive_it() {
    let tryit = TryIt::new();
    let (process, _) = tryit.ready("killed", &["--servers", "2"]);
    let children = TryIt::children(&process);
    process.signal(Signal::KILL);
    drop(process);
    wait_until("the end of its children", || children.iter().all(|child| test_kill_process(*child).is_err()));
    let (process, _) = tryit.ready("again", &[]);
    assert_eq!(TryIt::children(&process).len(), 4);
}

#[test]
fn a_server_that_is_killed_is_missed_started_again_and_taken_back_as_it_says() {
    let tryit = TryIt::new();
    let (process, text) = tryit.ready("victim", &["--restart-after", "2"]);
    let children = TryIt::children(&process);
    let manager = tryit.base.address().to_string();
    let folder = tryit.folder.path();
    assert!(shell(offered(&text)[1], folder).status.success());
    let status = || tryit.tool(&["ctl", &manager, "status"]).stdout;

    let [kill, get, ctl] =
        offered_behind(&text, "To see it go on without server3, which is started again after 2s:")[..]
    else {
        panic!("{text}")
    };
    assert_eq!(kill, format!("kill -9 {}", children[3].as_raw_nonzero()));
    assert!(shell(kill, folder).status.success());
    wait_until("the end is shown", || process.stdout().contains("server3 (pid "));
    let line = format!(
        "server3 (pid {}) has ended: signal: 9 (SIGKILL), see data/server3.log; started again after 2s\n",
        children[3].as_raw_nonzero()
    );
    assert!(process.stdout().contains(&line), "{}", process.stdout());
    // The others go on, and the loss can be seen.
    assert_eq!(shell(get, folder).stdout, "world");
    wait_until("the manager has noticed", || shell(ctl, folder).stdout.matches("(fault)").count() == 1);
    for child in [0, 1, 2, 4] {
        assert!(test_kill_process(children[child]).is_ok(), "child {child} has ended");
    }

    wait_until("it is started again", || process.stdout().contains("server3 is started again, pid "));
    let again = TryIt::children(&process);
    assert!(again.len() == 5 && !again.contains(&children[3]), "{again:?}");
    wait_until("it is listed", || status().contains("not attached node:\n  127.0.0.1"));
    let [attach] = offered_behind(&text, "When server3 is back")[..] else { panic!("{text}") };
    assert!(process.stdout().contains(&format!("'{attach}' takes it back")), "{}", process.stdout());
    let attached = shell(attach, folder);
    assert!(attached.status.success(), "{attached:?}");
    assert_eq!(status().matches("(active)").count(), 3);

    // Manager and gateway are taken care of likewise.
    let mut client = Memcached::connect((std::net::Ipv4Addr::LOCALHOST, tryit.base.number() + 1).into());
    client.set("key", "value");
    for (index, name) in [(0, "manager"), (4, "gateway")] {
        rustix::process::kill_process(children[index], Signal::KILL).unwrap();
        wait_until("it is started again", || process.stdout().contains(&format!("{name} is started again, pid ")));
    }
    wait_until("the gateway serves", || tryit.gateway_gets("key").as_deref() == Some("value"));
    wait_until("the manager knows", || status().matches("(active)").count() == 3);
    process.signal(Signal::INT);
    let finished = process.finish();
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_server_that_was_away_at_the_end_is_attached_at_the_next_start() {
    let tryit = TryIt::new();
    let (process, text) = tryit.ready("first", &["--no-restart", "--servers", "2"]);
    let children = TryIt::children(&process);
    let manager = tryit.base.address().to_string();
    assert!(text.contains("To see it go on without server2, which is not started again (--no-restart):\n"), "{text}");
    assert!(!text.contains("is back"), "it does not come back: {text}");
    rustix::process::kill_process(children[2], Signal::KILL).unwrap();
    wait_until("the end is shown", || process.stdout().contains("see data/server2.log; not started again\n"));
    wait_until("the manager has noticed", || {
        tryit.tool(&["ctl", &manager, "status"]).stdout.matches("(fault)").count() == 1
    });
    assert!(tryit.tool(&["set", "-m", &manager, "key", "value"]).status.success());
    assert_eq!(TryIt::children(&process).len(), 3);
    process.signal(Signal::INT);
    assert_eq!(process.finish().status.code(), Some(0));

    // The folder knows its ports.
    let args = ["cluster", "--dir", "data", "--no-restart"];
    let process = Process::spawn(&tryit.folder, "second", &kumo_server(), &args);
    wait_until("the cluster is ready", || process.stdout().contains("Ctrl-C ends all of it"));
    assert_eq!(tryit.tool(&["ctl", &manager, "status"]).stdout.matches("(active)").count(), 2);
    assert_eq!(tryit.tool(&["get", "-m", &manager, "key"]).stdout, "value");
    // With nothing left and nothing to be started, it ends.
    for child in TryIt::children(&process) {
        rustix::process::kill_process(child, Signal::KILL).unwrap();
    }
    let finished = process.finish();
    assert_eq!(finished.status.code(), Some(1));
    assert_eq!(finished.stderr, "kumo-server cluster: all processes have ended\n");
    assert_eq!(finished.stdout.matches("not started again\n").count(), 4, "{}", finished.stdout);
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let tryit = TryIt::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", tryit.base.number() + 102)).unwrap();
    let finished = tryit.start("taken", &[]).finish();
    let address = taken.local_addr().unwrap();
    assert_eq!(finished.status.code(), Some(1));
    assert_eq!(
        finished.stderr,
        format!(
            "kumo-server cluster: port {address}: Address already in use (os error 98); another --base-port may help\n"
        )
    );
    drop(taken);
    // The port of the gateway is nobody's identity: another one will do, unless it was asked for.
    let taken = std::net::TcpListener::bind(("127.0.0.1", tryit.base.number() + 1)).unwrap();
    let (process, text) = tryit.ready("two", &["--servers", "2"]);
    let port = tryit.base.number() + 2;
    let told = format!("port {} is taken: the gateway listens on {port}\n", tryit.base.number() + 1);
    assert_eq!(process.stderr(), told);
    assert!(text.contains(&format!("memcached client can use 127.0.0.1:{port}.")), "{text}");
    drop(process);
    let finished = tryit.start("asked", &["--gateway-port", &(port - 1).to_string()]).finish();
    assert!(finished.stderr.ends_with("another --gateway-port may help\n"), "{finished:?}");
    drop(taken);
    // The folder's data is bound to its ports.
    let taken = std::net::TcpListener::bind(("127.0.0.1", tryit.base.number() + 102)).unwrap();
    let finished = tryit.start("taken", &[]).finish();
    assert!(finished.stderr.ends_with("; the data of this --dir belongs to these ports\n"), "{finished:?}");
    drop(taken);
    let finished = tryit.start("fewer", &["--servers", "1"]).finish();
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stderr.ends_with("data holds the data of 2 servers: --servers 1 is too few\n"), "{finished:?}");
    let finished = tryit.tool(&["cluster", "--dir", "data", "--base-port", "20999"]);
    let base = tryit.base.number();
    assert!(
        finished.stderr.ends_with(&format!("holds the data of a cluster with --base-port {base}\n")),
        "{finished:?}"
    );
    let finished = tryit.tool(&["cluster", "--dir", "/dev/null/x"]);
    assert_eq!((finished.status.code(), finished.stderr.lines().count()), (Some(1), 1), "{finished:?}");
}
