//! A server's bounds under load: its write-ahead log, its memory, and its threads, few and many.

use crate::harness::cluster::Cluster;
use crate::harness::{Folder, Process, kumo_server};

const MIB: u64 = 1 << 20;
/// What one transaction of a merge adds to the write-ahead log at most if no record is larger: a thousand rows on pages
/// of their own, or 4 MiB, and the pages above them.
const TRANSACTION: u64 = 6 * MIB;

/// One server with these flags, beside a small cache.
fn server(flags: &str) -> Cluster {
    Cluster::start_with(1, 1, &flags.split(' ').collect::<Vec<_>>())
}

/// Load on the server, which must be answered right; `look` sees the cluster while it goes on.
fn load(cluster: &mut Cluster, args: &str, mut look: impl FnMut(&mut Cluster)) {
    let folder = Folder::new();
    let address = cluster.servers[0].address().to_string();
    let args: Vec<_> = ["bench", "-s", &address].into_iter().chain(args.split(' ')).collect();
    let mut bench = Process::spawn(&folder, "bench", &kumo_server(), &args);
    while bench.is_running() {
        look(cluster);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let finished = bench.finish();
    assert_eq!(finished.status.code(), Some(0), "{args:?}: {finished:?}");
}

#[test]
fn the_write_ahead_log_stays_below_its_limit_under_writes() {
    let mut cluster = server("--wal-limit 4 --cache 8 --max-message 8 --redo-limit 16");
    let wal = cluster.folder().join("server0.tch-wal");
    let mut most = 0;
    load(&mut cluster, "--mode set -n 60000 -d 300 --requests 200000", |_| {
        most = most.max(std::fs::metadata(&wal).map_or(0, |file| file.len()));
    });
    assert!(most > 4 * MIB, "{most}: the limit must have been reached");
    assert!(most <= 4 * MIB + TRANSACTION, "{most}");
}

#[test]
fn memory_is_bounded_with_large_values_as_with_tiny_ones() {
    for args in ["-n 300 -d 1000000 -c 4 -P 2 --requests 600", "-n 150000 -d 16 -c 8 -P 32 --requests 150000"] {
        let mut cluster = server("--cache 16 --max-message 8 --redo-limit 16 --wal-limit 4");
        let mut most = 0;
        load(&mut cluster, &format!("--load {args}"), |cluster| {
            most = most.max(cluster.servers[0].process().resident_kib());
        });
        // Cache 16, page caches 48, a merge's rows and requests in flight; and the program, which is not optimised here.
        assert!(most < 256 << 10, "{args}: {most} KiB");
    }
}

#[test]
fn one_thread_of_each_kind_and_many_both_serve_a_mixed_load() {
    for threads in ["-TR 1 -TW 1", "-TR 32 -TW 16"] {
        // A cache that holds a part of the records only: reads and writes go to the threads.
        let mut cluster = server(&format!("{threads} --cache 4 --max-message 8 --redo-limit 16"));
        let mix = "--get 3 --set 3 --cas 2 --delete 1 --load -n 40000 -d 100 -c 8 -P 16 --requests 60000";
        load(&mut cluster, mix, |_| ());
    }
}
