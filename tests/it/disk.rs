//! The store's file: full disk, another owner, foreign files, backups, the sweeper.

use std::process::Command;

use kumo_server::wire::method::{self, ErrorCode, Method};
use kumo_server::wire::params::Encode as _;

use crate::harness::cluster::{Cluster, Written};
use crate::harness::{Folder, Process, kumo_server, required, wait_until};

#[test]
fn a_store_has_one_owner() {
    let mut cluster = Cluster::start(1);
    let store = cluster.folder().join("server0.tch");
    let store = store.to_str().unwrap();
    let finished = Process::run(
        &Folder::new(),
        &kumo_server(),
        &["-l", "127.0.0.1:0", "-L", "0", "-m", "127.0.0.1:1", "-s", store],
    );
    assert_eq!(finished.status.code(), Some(1));
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains("in use by another process"), "{}", finished.stderr);
    let pid = cluster.servers[0].process().pid();
    assert!(finished.stderr.contains(&pid.as_raw_nonzero().to_string()), "{}", finished.stderr);
    assert!(cluster.client().set(b"k", b"v").is_acknowledged());
    // Without the lock file, too: the database itself is locked.
    std::fs::remove_file(cluster.folder().join("server0.tch.lock")).unwrap();
    for args in [&["-l", "127.0.0.1:0", "-L", "0", "-m", "127.0.0.1:1", "-s", store][..], &["check", store]] {
        let refused = Process::run(&Folder::new(), &kumo_server(), args);
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stderr.contains("in use by another process"), "{}", refused.stderr);
    }
    assert!(cluster.client().set(b"k", b"v").is_acknowledged());
}

/// The file in which a server writes a backup, as a kill in the middle of it has left it.
fn killed_in_a_backup(cluster: &mut Cluster) -> std::path::PathBuf {
    let unfinished = cluster.folder().join("server0.tch.backup.tmp");
    for attempt in 0..20 {
        let suffix = format!("attempt{attempt}");
        cluster.manager(Method::ManagerBackup, |out| {
            method::ManagerBackup { suffix: suffix.as_bytes(), ask: None }.encode(out);
        });
        let whole = cluster.folder().join(&format!("server0.tch-{suffix}"));
        wait_until("the backup has begun", || unfinished.exists() || whole.exists());
        cluster.servers[0].process().hang();
        if unfinished.exists() {
            cluster.kill(0);
            return unfinished;
        }
        cluster.servers[0].process().signal(rustix::process::Signal::CONT);
    }
    panic!("every backup was complete before the server could be killed");
}

#[test]
fn what_a_killed_backup_has_left_is_removed_at_the_next_start() {
    let mut cluster = Cluster::start(1);
    let mut client = cluster.client();
    let value = vec![7; 100_000];
    for index in 0..200 {
        assert!(client.set(format!("k{index}").as_bytes(), &value).is_acknowledged());
    }
    let unfinished = killed_in_a_backup(&mut cluster);
    assert!(unfinished.exists());
    cluster.start_server(0);
    let folder = cluster.folder().path().to_path_buf();
    let left_over = || {
        let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().contains(".tmp")).collect::<Vec<_>>()
    };
    wait_until("nothing is left over", || left_over().is_empty());
}

#[test]
fn a_foreign_file_is_refused_and_left_alone() {
    let folder = Folder::new();
    for (name, content) in [
        ("text", &b"not a database, but long enough to be taken for one by its size alone"[..]),
        ("old.tch", b"ToKyO CaBiNeT\n1.0:911\n"),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        let finished =
            Process::run(&folder, &kumo_server(), &["-l", "127.0.0.1:0", "-L", "0", "-m", "127.0.0.1:1", "-s", name]);
        assert_eq!(finished.status.code(), Some(1));
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
        assert!(finished.stderr.contains(name), "{}", finished.stderr);
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
}

#[test]
fn a_backup_while_others_write_is_complete_and_opens() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    for index in 0..2000 {
        assert!(client.set(format!("k{index}").as_bytes(), b"before").is_acknowledged());
    }
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, mut writer) = (stop.clone(), cluster.client());
    let writing = std::thread::spawn(move || {
        for round in 0.. {
            if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                break;
            }
            assert!(writer.set(format!("k{}", round % 2000).as_bytes(), b"after!").is_acknowledged());
        }
    });
    cluster.manager(Method::ManagerBackup, |out| method::ManagerBackup { suffix: b"20261122", ask: None }.encode(out));
    let backup = cluster.folder().join("server0.tch-20261122");
    wait_until("the backup is there", || backup.exists());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writing.join().unwrap();

    // The backup is a store: a server of its own serves it.
    let mut restored = Cluster::start(0);
    std::fs::copy(&backup, restored.folder().join("server0.tch")).unwrap();
    restored.add_server();
    restored.attach();
    let mut client = restored.client();
    for index in 0..2000 {
        let found = client
            .get(format!("k{index}").as_bytes())
            .unwrap_or_else(|| panic!("k{index} of {} is missing", restored.items()));
        assert!(found == b"before" || found == b"after!");
    }
    assert_eq!(restored.items(), 2000);
}

/// `ulimit -f`, or `LimitFSIZE=` of a unit.
#[test]
fn a_limit_of_file_sizes_is_a_full_disk() {
    let mut cluster = Cluster::start(1);
    let mut client = cluster.client();
    assert!(client.set(b"before", b"v").is_acknowledged());
    cluster.servers[0].process().limit_file_size(Some(3 << 20));
    let big = vec![7; 100_000];
    let mut kept = 0;
    loop {
        let written = client.set(format!("k{kept}").as_bytes(), &big);
        if !written.is_acknowledged() {
            // Not error 6, after which nothing has been done: it is in memory, and becomes durable when there is room.
            assert!(matches!(written, Written::Error(ErrorCode::Unknown)), "{written:?}");
            break;
        }
        kept += 1;
        assert!(kept < 1000, "the limit was never hit");
    }
    assert!(kept > 10, "{kept}");
    for index in 0..kept {
        assert_eq!(client.get(format!("k{index}").as_bytes()).as_deref(), Some(&big[..]));
    }
    wait_until("it is in the log", || cluster.servers[0].process().stdout().contains("cannot write"));
    cluster.servers[0].process().limit_file_size(None);
    wait_until("writes succeed again", || client.set(b"again", b"v").is_acknowledged());
    cluster.kill(0);
    cluster.start_server(0);
    cluster.wait_known(0);
    cluster.attach();
    let mut client = cluster.client();
    for index in 0..kept {
        assert_eq!(client.get(format!("k{index}").as_bytes()).as_deref(), Some(&big[..]));
    }
    assert_eq!(client.get(b"again").as_deref(), Some(&b"v"[..]));
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    // Where it cannot be had, the store's own tests inject a full disk.
    let Some(disk) = SmallDisk::mount(24) else { return };
    let mut cluster = Cluster::start_in(disk.0.path(), 1, &["--redo-limit", "128"]);
    let mut client = cluster.client();
    let big = vec![7; 100_000];
    let mut kept = 0;
    loop {
        let written = client.set(format!("k{kept}").as_bytes(), &big);
        if !written.is_acknowledged() {
            assert!(matches!(written, Written::Error(_)), "{written:?}");
            break;
        }
        kept += 1;
        assert!(kept < 1000, "the disk never filled");
    }
    assert!(kept > 10, "{kept}");
    // Reads go on.
    for index in 0..kept {
        assert_eq!(client.get(format!("k{index}").as_bytes()).as_deref(), Some(&big[..]));
    }
    disk.grow(300);
    wait_until("writes succeed again", || client.set(b"again", b"v").is_acknowledged());
    cluster.kill(0);
    cluster.start_server(0);
    wait_until("it is back", || {
        cluster.nodes_info().1.len() == 1 || cluster.nodes_info().0.nodes.iter().all(|node| node.1)
    });
    cluster.attach();
    let mut client = cluster.client();
    for index in 0..kept {
        assert_eq!(client.get(format!("k{index}").as_bytes()).as_deref(), Some(&big[..]));
    }
    assert_eq!(client.get(b"again").as_deref(), Some(&b"v"[..]));
}

/// A small file system in memory, unmounted at the end.
struct SmallDisk(Folder);

impl SmallDisk {
    fn mount(mebibytes: u32) -> Option<Self> {
        let folder = Folder::new();
        let size = format!("size={mebibytes}m");
        let path = folder.path().to_str().expect("a path");
        let mounted = required::runs("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", path]);
        required::is_there("the right to mount a small file system", mounted).then_some(Self(folder))
    }

    fn grow(&self, mebibytes: u32) {
        let size = format!("remount,size={mebibytes}m");
        assert!(Command::new("mount").args(["-o", &size]).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process of a failed test may still have it open.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn tombstones_go_by_age_also_after_a_restart() {
    let mut cluster = Cluster::start_with(1, 1, &["-gN", "0", "-gX", "2"]);
    let mut client = cluster.client();
    for index in 0..50 {
        assert!(client.set(format!("k{index}").as_bytes(), b"v").is_acknowledged());
    }
    for index in 0..40 {
        assert_eq!(client.delete(format!("k{index}").as_bytes()), Written::Bool(true));
    }
    assert_eq!(cluster.items(), 50);
    wait_until("the tombstones are swept", || cluster.items() == 10);
    for index in 40..45 {
        assert_eq!(client.delete(format!("k{index}").as_bytes()), Written::Bool(true));
    }
    cluster.stop(0);
    cluster.start_server(0);
    wait_until("those of before the restart are swept", || cluster.items() == 5);
}

#[test]
fn tombstones_beyond_the_memory_limit_go_early() {
    let cluster = Cluster::start_with(1, 1, &["-gN", "0", "-gX", "3600", "-gS", "1"]);
    let mut client = cluster.client();
    for index in 0..200 {
        let key = format!("a key of thirty-two bytes {index:06}");
        assert_eq!(client.delete(key.as_bytes()), Written::Bool(false));
    }
    // One KiB holds the keys and times of about twenty.
    wait_until("most tombstones are swept", || cluster.items() < 30);
    assert!(cluster.items() > 0);
}
