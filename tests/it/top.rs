//! top on a terminal of its own, and as one table.

use std::fs::File;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::{Finished, Folder, Process, kumo_server, wait_for, wait_until};

fn top(args: &[&str]) -> Finished {
    let args = [&["top"], args].concat();
    Process::run(&Folder::new(), &kumo_server(), &args)
}

#[test]
fn one_table_has_rates_and_whoever_is_away() {
    let mut cluster = Cluster::start(3);
    let manager = cluster.managers[0].0.address().to_string();
    let mut client = cluster.client();
    assert!(client.set(b"key", b"value").is_acknowledged());

    let table = top(&["-m", &manager, "--once", "-i", "0.1"]);
    assert_eq!((table.status.code(), table.stderr.as_str()), (Some(0), ""));
    assert!(!table.stdout.contains('\x1b'), "no colours: {table:?}");
    let lines: Vec<Vec<_>> = table.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((lines.len(), lines[0][0], lines[4][0]), (5, "Server", "all"));
    for (line, node) in lines[1..4].iter().zip(cluster.spaces().0.active_nodes()) {
        assert_eq!((line[0], line[1], line[2], line[3]), (node.to_string().as_str(), "ready", "0", "1"), "{table:?}");
    }

    cluster.kill(1);
    cluster.wait_faulty(1);
    let dead = cluster.servers[1].address().to_string();
    let table = top(&["-m", &manager, "--once", "--json", "-i", "0.1"]);
    let ended = (table.status.code(), table.stderr.as_str());
    assert_eq!(ended, (Some(1), "kumo-server top: 1 of 3 servers did not answer\n"));
    let rows: Value = serde_json::from_str(&table.stdout).unwrap();
    let row = rows.as_array().unwrap().iter().find(|row| row["address"] == dead).expect("a row");
    let expected = serde_json::json!({
        "address": dead, "standing": "fault", "status": "unreachable", "error": "cannot be reached"
    });
    assert_eq!(*row, expected);
    // They may ask each other yet what the lost one had under way.
    wait_until("the others are at rest", || {
        let table = top(&["-m", &manager, "--once", "--json", "-i", "0.1"]);
        let rows: Value = serde_json::from_str(&table.stdout).unwrap();
        rows.as_array().unwrap().iter().filter(|row| row["qps"] == 0 && row["skew_s"] == 0).count() == 2
    });
}

#[test]
fn without_a_terminal_there_is_no_screen() {
    let finished = top(&["127.0.0.1:1"]);
    assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(2), ""));
    let line =
        "kumo-server top: standard output is not a terminal; --once prints a table; try 'kumo-server top --help'\n";
    assert_eq!(finished.stderr, line);
}

/// What a terminal of 24 rows shows after it was sent this: text goes where the last cursor position was.
fn shown(sent: &str) -> String {
    let mut rows = vec![[' '; 80]; 24];
    let (mut row, mut column) = (0, 0);
    // Each part but the first begins with an escape sequence; those that end with H or J matter.
    for part in sent.split("\x1b[") {
        let end = part.find(|next: char| next.is_ascii_alphabetic()).unwrap_or_default();
        let (numbers, text) = part.split_at(end);
        if text.starts_with('H') {
            let mut numbers = numbers.split(';').map(|number| number.parse::<usize>().unwrap_or(1) - 1);
            (row, column) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        } else if text.starts_with('J') {
            rows = vec![[' '; 80]; 24];
        }
        for next in text.chars().skip(1) {
            if let Some(cell) = rows.get_mut(row).and_then(|cells| cells.get_mut(column)) {
                *cell = next;
            }
            column += 1;
        }
    }
    rows.iter().map(|cells| cells.iter().collect::<String>() + "\n").collect()
}

/// Runs it on a terminal that `script` makes; what is written to `keys` is typed.
struct Screen {
    folder: Folder,
    script: std::process::Child,
    keys: Option<std::process::ChildStdin>,
}

impl Screen {
    fn start(args: &str) -> Self {
        let folder = Folder::new();
        // The pid goes to a file, since the process is a child of the shell of `script`.
        let command = format!("stty rows 24 cols 80; echo $$ > pid; exec '{}' top {args}", kumo_server().display());
        let mut script = Command::new("script")
            .args(["-q", "-e", "-c", &command, "/dev/null"])
            .current_dir(folder.path())
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(File::create(folder.join("screen")).expect("a file"))
            .spawn()
            .expect("script, of the package bsdutils");
        let keys = script.stdin.take();
        Self { folder, script, keys }
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        wait_until(&format!("{text:?} on the screen"), || shown(&self.folder.read("screen")).contains(text));
    }

    fn pid(&self) -> Pid {
        wait_for("the pid", || Pid::from_raw(self.folder.read("pid").trim().parse().ok()?))
    }

    /// Asserts that it ends with this status, and leaves the screen that it has taken.
    fn ends(mut self, status: i32) {
        let ended = wait_for("its end", || self.script.try_wait().expect("a child"));
        let screen = self.folder.read("screen");
        assert_eq!(ended.code(), Some(status), "{screen:?}");
        let (entered, left) = (screen.rfind("\x1b[?1049h"), screen.rfind("\x1b[?1049l"));
        assert!(entered.is_some() && entered < left, "{screen:?}");
        assert!(screen.rfind("\x1b[?25l") < screen.rfind("\x1b[?25h"), "the cursor is back: {screen:?}");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[test]
fn the_screen_follows_the_cluster_and_gives_the_terminal_back() {
    use std::io::Write;

    let mut cluster = Cluster::start(2);
    let manager = cluster.managers[0].0.address().to_string();
    let mut screen = Screen::start(&format!("-m {manager} -i 0.1"));
    screen.wait_for("2 of 2 servers answer");
    cluster.add_server();
    screen.wait_for("1 not attached");
    cluster.kill(0);
    screen.wait_for("unreachable");
    screen.wait_for("2 of 3 servers answer");
    cluster.start_server(0);
    screen.wait_for("3 of 3 servers answer");
    screen.keys.as_mut().expect("a keyboard").write_all(b"q").expect("a key");
    screen.ends(0);

    let screen = Screen::start(&format!("{} -i 0.1", cluster.servers[1].address()));
    screen.wait_for("1 of 1 servers answer");
    kill_process(screen.pid(), Signal::TERM).expect("a signal");
    screen.ends(143);
}
