//! Lines from events to the file, without making the log the process's own.

use std::fs;

use super::*;

/// A log in a fresh directory, and its file.
fn log(verbose: bool, rust_log: Option<&str>) -> (tempfile::TempDir, PathBuf, Log, tracing::Dispatch) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kumo.log");
    let settings = Settings { target: Target::File(path.clone()), verbose };
    let (log, events, _) = Log::make(&settings, rust_log).unwrap();
    (dir, path, log, events)
}

/// The lines that each of three levels leaves in the file.
fn written(verbose: bool, rust_log: Option<&str>) -> String {
    let (_dir, path, log, events) = log(verbose, rust_log);
    tracing::dispatcher::with_default(&events, || {
        tracing::warn!(peer = "10.0.0.1:5", "malformed");
        tracing::info!("attached");
        tracing::debug!("detail");
    });
    drop(log);
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_line_has_time_level_what_and_peer() {
    let text = written(false, None);
    let (time, rest) = text.split_once(' ').unwrap();
    assert_eq!(rest, "WARN malformed peer=\"10.0.0.1:5\"\n".to_owned().replacen("WARN", " WARN", 1));
    assert!(time.ends_with('Z') && time.len() == "2010-01-01T00:00:00.000000Z".len(), "{time}");
}

#[test]
fn levels_follow_the_flag_and_rust_log_overrides_it() {
    for (verbose, rust_log, lines) in [
        (false, None, 1),
        (true, None, 2),
        (false, Some("debug"), 3),
        (true, Some("error"), 0),
        (true, Some(""), 2),
        (false, Some("=nonsense="), 1),
    ] {
        assert_eq!(written(verbose, rust_log).lines().count(), lines, "{verbose} {rust_log:?}");
    }
    assert!(filter(Some("=nonsense="), "warn").1.is_some());
}

#[test]
fn reopening_follows_the_name_and_loses_nothing() {
    let (dir, path, log, events) = log(true, None);
    let moved = dir.path().join("kumo.log.1");
    tracing::dispatcher::with_default(&events, || {
        for number in 0..1000 {
            tracing::info!(number);
            if number == 500 {
                fs::rename(&path, &moved).unwrap();
                assert!(log.flush());
                log.output.reopen().unwrap();
            }
        }
    });
    drop(log);
    let (old, new) = (fs::read_to_string(moved).unwrap(), fs::read_to_string(path).unwrap());
    assert!(!new.is_empty());
    let numbers: Vec<_> = old.lines().chain(new.lines()).map(|line| line.rsplit_once('=').unwrap().1).collect();
    assert_eq!(numbers, (0..1000).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_directory_that_has_gone_keeps_the_old_file() {
    let (dir, path, log, events) = log(true, None);
    let moved = dir.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(log.output.reopen().is_err());
    tracing::dispatcher::with_default(&events, || tracing::info!("still here"));
    drop(log);
    assert!(fs::read_to_string(moved).unwrap().contains("still here"));
}

#[test]
fn lines_that_do_not_fit_are_counted_and_the_count_is_logged() {
    let (_dir, path, log, events) = log(true, None);
    let sent = LINES_WAITING * 2;
    tracing::dispatcher::with_default(&events, || {
        // The worker waits for the file as long as it is locked here: a disk that does not answer.
        let stuck = log.output.state.lock();
        for number in 0..sent {
            tracing::info!(number);
        }
        drop(stuck);
    });
    let lost = log.output.dropped();
    drop(log);
    let text = fs::read_to_string(path).unwrap();
    assert!(lost >= LINES_WAITING - 1, "{lost}");
    assert_eq!(text.lines().filter(|line| line.contains("number=")).count(), sent - lost);
    assert!(text.contains(&format!("WARN {lost} log lines lost")), "{}", text.lines().last().unwrap());
}

#[test]
fn an_unwritable_file_is_named() {
    let settings = Settings { target: Target::File("/nowhere/kumo.log".into()), verbose: false };
    let error = Log::make(&settings, None).err().unwrap().to_string();
    assert!(error.starts_with("cannot open the log file '/nowhere/kumo.log': "), "{error}");
}
