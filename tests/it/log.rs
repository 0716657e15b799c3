//! `log`: recorded and damaged files, the ends of long ones, and a file that grows and is rotated.

use std::fs::OpenOptions;
use std::io::Write;

use rustix::process::Signal;

use crate::harness::{Finished, Folder, Process, kumo_server, wait_until};

const RECORDED: &[u8] = include_bytes!("../fixtures/kumo-server.mpac");

fn log(folder: &Folder, args: &str) -> Finished {
    let args: Vec<_> = ["log"].into_iter().chain(args.split_whitespace()).collect();
    Process::run(folder, &kumo_server(), &args)
}

fn recorded(folder: &Folder) {
    std::fs::write(folder.join("log.mpac"), RECORDED).unwrap();
}

#[test]
fn the_recorded_log_reads_as_it_was() {
    let folder = Folder::new();
    recorded(&folder);
    let finished = log(&folder, "log.mpac");
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(0), ""));
    let lines = [
        "[2026-11-22 13:33:42 +0000 S.SS v2]: server started: addr=127.0.0.1:29801 db=\"kumodb.tch\" \
         mgr1=127.0.0.1:29700 mgr2=none sadd=127.0.0.1:29901 tmpd=\"/tmp\" bkup=\"kumodb.tch-\"",
        "[2026-11-22 13:33:47 +0000 S.ers v4]: set not replicated: key=\"lost1\" val=\"x\" hash=f325c7bd65a8b84b \
         cktm=1795354426.344 to=127.0.0.1:29855",
        "[2026-11-22 13:33:47 +0000 S.ers v4]: set not replicated: key=\"lost3\" val=\"x\" hash=4bd2034284c30b69 \
         cktm=1795354426.345 to=127.0.0.1:29855",
        "[2026-11-22 13:33:47 +0000 S.erd v4]: delete not replicated: key=\"lost1\" hash=f325c7bd65a8b84b to=none",
        "[2026-11-22 13:33:47 +0000 S.erd v4]: delete not replicated: key=\"lost3\" hash=4bd2034284c30b69 to=none",
    ];
    assert_eq!(finished.stdout.lines().collect::<Vec<_>>(), lines);
    for (args, from, to) in [
        ("-h -n 2", 0, 2),
        ("--head --lines=-1", 0, 1),
        ("-t -n 2", 3, 5),
        ("-t", 0, 5),
        ("-n 1", 4, 5),
        ("-n -3", 2, 5),
        ("-t -n 0", 5, 5),
    ] {
        let finished = log(&folder, &format!("{args} log.mpac"));
        assert_eq!(finished.stdout.lines().collect::<Vec<_>>(), lines[from..to], "{args}");
    }
    let json = log(&folder, "--json log.mpac").stdout;
    let objects: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((objects.len(), &objects[0]["fields"]["mgr2"]), (5, &serde_json::Value::Null));
    assert_eq!((&objects[1]["name"], &objects[1]["fields"]["key"]), (&"ers".into(), &"lost1".into()));
}

#[test]
fn damage_is_passed_over_and_counted() {
    let folder = Folder::new();
    let bytes = [&RECORDED[..114], b"some junk", &RECORDED[114..], &RECORDED[..50]].concat();
    std::fs::write(folder.join("log.mpac"), bytes).unwrap();
    let finished = log(&folder, "log.mpac");
    assert_eq!(finished.status.code(), Some(3));
    assert!(finished.stdout.lines().count() >= 4, "{finished:?}");
    assert!(finished.stderr.starts_with("log.mpac: damaged: ") && finished.stderr.lines().count() == 1, "{finished:?}");
}

#[test]
fn help_is_long_only_and_flags_that_fight_are_refused() {
    let folder = Folder::new();
    recorded(&folder);
    assert!(log(&folder, "--help").stdout.contains("--follow"));
    for args in ["-t -h log.mpac", "-f -h log.mpac", "-n x log.mpac", ""] {
        let finished = log(&folder, args);
        assert_eq!((finished.status.code(), finished.stderr.lines().count()), (Some(2), 1), "{args}: {finished:?}");
    }
}

#[test]
fn a_log_is_followed_through_rotation_and_truncation() {
    let folder = Folder::new();
    let path = folder.join("log.mpac");
    recorded(&folder);
    let follower = Process::spawn(&folder, "follow", &kumo_server(), &["log", "-f", "-n", "2", "log.mpac"]);
    let lines = |count: usize, why: &str| wait_until(why, || follower.stdout().lines().count() == count);
    lines(2, "the last two are shown");
    let append = |bytes: &[u8]| OpenOptions::new().append(true).open(&path).unwrap().write_all(bytes).unwrap();
    append(&RECORDED[..60]);
    append(&RECORDED[60..]);
    lines(7, "what was appended in two pieces is shown");
    std::fs::rename(&path, folder.join("log.mpac.1")).unwrap();
    recorded(&folder);
    lines(12, "the new file is shown");
    std::fs::write(&path, &RECORDED[..109]).unwrap();
    lines(13, "the file is shown from its beginning after it was cut");
    follower.signal(Signal::INT);
    let finished = follower.finish();
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(130), ""), "{finished:?}");
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let folder = Folder::new();
    std::fs::write(folder.join("log.mpac"), RECORDED.repeat(2000)).unwrap();
    let shell = format!("'{}' log log.mpac | head -n 1; echo ${{PIPESTATUS[0]}}", kumo_server().display());
    let finished = Process::run(&folder, "bash".as_ref(), &["-c", &shell]);
    assert_eq!((finished.stdout.lines().last(), finished.stderr.as_str()), (Some("0"), ""));
}
