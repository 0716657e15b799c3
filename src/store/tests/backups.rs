//! Files that an interrupted backup leaves, and their removal.

use super::faulty::FaultyDisk;
use super::fixture::*;
use crate::store::disk::Step;
use crate::store::temporary;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Names in the store's folder that end as temporary files do, or as what SQLite leaves beside them.
fn left_over(fixture: &Fixture) -> Vec<String> {
    let names = std::fs::read_dir(fixture.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> =
        names.map(|name| name.into_string().unwrap()).filter(|name| name.contains(".tmp")).collect();
    names.sort_unstable();
    names
}

/// A store with so many records that a backup of it takes several steps.
fn large() -> (Fixture, FaultyDisk) {
    let mut fixture = Fixture::in_memory();
    let disk = FaultyDisk::new(&fixture.options.path);
    fixture.disk = Arc::new(disk.clone());
    let store = fixture.open();
    for number in 0..200 {
        set(&store, &key(number), &"x".repeat(30_000));
    }
    store.close().unwrap();
    (fixture, disk)
}

#[test]
fn what_a_killed_backup_leaves_goes_at_the_next_start_and_with_the_next_backup_of_any_name() {
    let (fixture, disk) = large();
    let store = fixture.open();
    let image = Arc::new(parking_lot::Mutex::new(None));
    let (directory, taken) = (fixture.directory.path().to_path_buf(), image.clone());
    disk.visit(move |step| {
        if step == Step::BackupCopied && taken.lock().is_none() {
            let target = tempfile::tempdir().unwrap();
            for entry in std::fs::read_dir(&directory).unwrap().map(Result::unwrap) {
                std::fs::copy(entry.path(), target.path().join(entry.file_name())).unwrap();
            }
            *taken.lock() = Some(target);
        }
    });
    store.backup(&fixture.path("db-one")).unwrap();
    assert_eq!(left_over(&fixture), [""; 0]);
    store.close().unwrap();

    let mut killed = Fixture::new();
    killed.directory = image.lock().take().expect("a backup of several steps");
    killed.options.path = killed.path("db");
    let as_killed = left_over(&killed);
    assert_eq!(as_killed, ["db.backup.tmp", "db.backup.tmp-journal"]);
    let unfinished = as_killed.iter().map(|name| (name.clone(), std::fs::read(killed.path(name)).unwrap()));
    let unfinished: Vec<_> = unfinished.collect();
    let store = killed.open();
    assert_eq!(left_over(&killed), [""; 0], "removed at start");

    for (name, bytes) in &unfinished {
        std::fs::write(killed.path(name), bytes).unwrap();
        std::fs::write(killed.path(&name.replace(".backup", "-20101122")), bytes).unwrap();
    }
    store.backup(&killed.path("db-two")).unwrap();
    assert_eq!(left_over(&killed), [""; 0], "removed by the next backup, also under the name of earlier versions");
    assert_eq!(scan_all(&killed.try_open_at(&killed.path("db-two")).unwrap(), 100).len(), 200);
}

#[test]
fn what_is_in_use_or_a_backup_or_none_of_ours_stays() {
    let fixture = Fixture::new();
    let store = fixture.open();
    set(&store, &key(1), "x");
    store.backup(&fixture.path("db-before.tmp")).unwrap();
    let kept = [".db.a1b2c3.tmp", "db-in-use.tmp", "db2-20261122.tmp", "db2.backup.tmp", "notes.tmp"];
    for name in kept {
        std::fs::write(fixture.path(name), b"").unwrap();
    }
    std::fs::create_dir(fixture.path("db-folder.tmp")).unwrap();
    let in_use = File::open(fixture.path("db-in-use.tmp")).unwrap();
    assert!(temporary::hold(&in_use, &fixture.path("db-in-use.tmp")).unwrap());
    std::fs::write(fixture.path("db-left.tmp"), b"").unwrap();
    store.backup(&fixture.path("db-after")).unwrap();
    let mut expected: Vec<_> = kept.into_iter().chain(["db-before.tmp", "db-folder.tmp"]).collect();
    expected.sort_unstable();
    assert_eq!(left_over(&fixture), expected);
    drop(in_use);
    store.close().unwrap();
    fixture.open();
    expected.retain(|name| *name != "db-in-use.tmp");
    assert_eq!(left_over(&fixture), expected, "its process has ended");
}

/// Two stores of one name that are backed up to one folder.
#[test]
fn a_backup_does_not_touch_the_file_that_another_is_writing() {
    let (one, disk) = large();
    let other = Fixture::new();
    let (first, second) = (one.open(), other.open());
    set(&second, &key(1), "x");
    let target = tempfile::tempdir().unwrap();
    let (path, refused) = (target.path().join("second"), Arc::new(AtomicBool::new(false)));
    let (seen, second) = (refused.clone(), second.clone());
    disk.visit(move |step| {
        if step == Step::BackupCopied && !seen.load(Ordering::Relaxed) {
            let error = second.backup(&path).unwrap_err().to_string();
            assert!(error.contains("db.backup.tmp: File exists"), "{error}");
            seen.store(true, Ordering::Relaxed);
        }
    });
    first.backup(&target.path().join("first")).unwrap();
    assert!(refused.load(Ordering::Relaxed));
    assert_eq!(scan_all(&one.try_open_at(&target.path().join("first")).unwrap(), 100).len(), 200);
}

/// Several runs use one name, each for a moment, and all remove what they find unused: none removes a file in use.
#[test]
fn a_file_in_use_is_never_taken_for_a_left_over() {
    let folder = tempfile::tempdir().unwrap();
    let (path, given) = (folder.path().join("db.backup.tmp"), folder.path().join("given"));
    let (stop, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for run in 0..3 {
            let (folder, path, given, stop, made) = (folder.path(), &path, &given, &stop, &made);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    temporary::remove_unused(folder, |name| Some(name) == path.file_name());
                    // Another run's file is there, and stays.
                    let Ok(file) = temporary::create(path) else { continue };
                    std::thread::yield_now();
                    std::fs::rename(path, given.with_extension(run.to_string())).expect("the file that is held");
                    drop(file);
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            let begun = Instant::now();
            while made.load(Ordering::Relaxed) < 2000 && begun.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
    assert!(made.into_inner() > 0);
}
