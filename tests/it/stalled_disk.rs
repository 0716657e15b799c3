//! A disk that takes long over a write: only writes wait for it.

use std::path::Path;
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

#[test]
fn reads_from_memory_and_keep_alives_go_on_while_writes_wait() {
    let mut cluster = Cluster::start(0);
    let stall = cluster.folder().join("stall");
    let library = preload::library(cluster.folder(), "stall", SOURCE);
    cluster.environment = vec![("LD_PRELOAD", library), ("KUMO_TEST_STALL", stall.clone())];
    cluster.add_server_with(&["--network-threads", "1"]);
    cluster.attach();
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
    std::fs::remove_file(&stall).expect("the file");
    for writer in writers {
        let written = writer.join().expect("a writer");
        assert!(written.is_acknowledged(), "{written:?}");
    }
    assert!(reader.get_from(server, b"slow3").expect("an answer").is_some());
}
