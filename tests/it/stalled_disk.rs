//! A disk that takes long over a write: only writes wait for it.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use kumo_server::wire::NodeAddress;

use crate::harness::cluster::Cluster;
use crate::harness::{preload, wait_until};

/// How long the disk stalls: several times what it takes until a silent server is given up.
const STALL: Duration = Duration::from_secs(3);

/// Holds back writes to the disk and syncs for as long as the file that `KUMO_TEST_STALL` names is there; makes one beside it
/// when the first waits.
const SOURCE: &str = r#"
    #include <dlfcn.h>
    #include <fcntl.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <unistd.h>
    static void stall(void) {
        char waits[4096];
        const char *file = getenv("KUMO_TEST_STALL");
        if (!file || access(file, F_OK)) return;
        snprintf(waits, sizeof waits, "%s.waits", file);
        close(open(waits, O_CREAT | O_WRONLY, 0600));
        while (!access(file, F_OK)) usleep(1000);
    }
    ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
        static ssize_t (*real)(int, const void *, size_t, off64_t);
        if (!real) real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
        stall();
        return real(fd, bytes, count, at);
    }
    static int synced(const char *name, int fd) {
        stall();
        return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
    }
    int fsync(int fd) { return synced("fsync", fd); }
    int fdatasync(int fd) { return synced("fdatasync", fd); }
"#;

/// A cluster of one server, attached, whose disk stalls while the file is there.
fn on_a_disk_that_may_stall(flags: &[&str]) -> (Cluster, PathBuf) {
    let mut cluster = Cluster::start(0);
    let stall = cluster.folder().join("stall");
    let library = preload::library(cluster.folder(), "stall", SOURCE);
    cluster.environment = vec![("LD_PRELOAD", library), ("KUMO_TEST_STALL", stall.clone())];
    cluster.add_server_with(flags);
    cluster.attach();
    (cluster, stall)
}

#[test]
fn reads_from_memory_and_keep_alives_go_on_while_writes_wait() {
    let (mut cluster, stall) = on_a_disk_that_may_stall(&["--network-threads", "1"]);
    let server = cluster.servers[0].address();
    let mut reader = cluster.client();
    reader.set_surely(&cluster, b"there", b"value");

    std::fs::write(&stall, b"").expect("a file");
    let mut writers = Vec::new();
    for number in 0..4 {
        let mut client = cluster.client();
        writers.push(thread::spawn(move || client.set(format!("slow{number}").as_bytes(), b"value")));
        if number == 0 {
            wait_until("a write hangs", || Path::new(&format!("{}.waits", stall.display())).exists());
        }
    }
    let begun = Instant::now();
    let mut reads = 0;
    while begun.elapsed() < STALL {
        let read = reader.get_from(server, b"there").expect("an answer").expect("the record");
        assert!(read.ends_with(b"value"));
        let (whs, _) = cluster.nodes_info();
        assert!(whs.nodes.contains(&(NodeAddress::new(server), true)), "given up after {:?}", begun.elapsed());
        reads += 1;
    }
    assert!(reads > 10, "{reads} reads in {STALL:?}");
    assert!(writers.iter().all(|writer| !writer.is_finished()), "a write was acknowledged that the disk has not taken");
    let mut logs = |line: &str| cluster.servers[0].process().stdout().contains(line);
    wait_until("the log says so", || logs("the disk has not answered for"));
    std::fs::remove_file(&stall).expect("the file");
    for writer in writers {
        let written = writer.join().expect("a writer");
        assert!(written.is_acknowledged(), "{written:?}");
    }
    wait_until("the log says that it is over", || logs("the disk has answered after"));
    assert!(reader.get_from(server, b"slow3").expect("an answer").is_some());
}

/// Nobody wants a shutdown that waits for the disk for ever; the next start finds all that was acknowledged.
#[test]
fn a_shutdown_ends_although_the_disk_does_not_answer_and_says_what_is_not_written() {
    for mode in ["always", "everysec"] {
        let (mut cluster, stall) = on_a_disk_that_may_stall(&["--sync", mode, "--shutdown-timeout", "1"]);
        let mut client = cluster.client();
        client.set_surely(&cluster, b"there", b"value");
        let server = cluster.servers[0].address();

        std::fs::write(&stall, b"").expect("a file");
        let writers: Vec<_> = (0..4)
            .map(|number| {
                let mut client = cluster.client();
                thread::spawn(move || client.set(format!("lost{number}").as_bytes(), b"value"))
            })
            .collect();
        wait_until("a write hangs", || Path::new(&format!("{}.waits", stall.display())).exists());
        let begun = Instant::now();
        let finished = cluster.terminate(0);
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        assert!(finished.stderr.contains("the store was not closed: the disk does not answer; "), "{finished:?}");
        assert!(finished.stdout.contains("ERROR ending: the store was not closed: "), "{finished:?}");
        for writer in writers {
            let written = writer.join().expect("a writer");
            assert!(!written.is_acknowledged(), "{mode}: {written:?}");
        }

        std::fs::remove_file(&stall).expect("the file");
        cluster.start_server(0);
        cluster.wait_known(0);
        wait_until(
            "what was acknowledged is read",
            || matches!(client.get_from(server, b"there"), Ok(Some(data)) if data.ends_with(b"value")),
        );
    }
}
