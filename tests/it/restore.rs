//! `restore`: a backup becomes a store, whole or not at all.

use serde_json::Value;

use kumo_server::clock::ClockTime;
use kumo_server::wire::method::{self, Method};
use kumo_server::wire::params::Encode as _;

use crate::harness::cluster::Cluster;
use crate::harness::{Folder, wait_until};
use crate::mergedb::{fixture, make, report, run};

#[test]
fn a_backup_of_a_running_server_becomes_a_store() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    for index in 0..200 {
        assert!(client.set(format!("k{index}").as_bytes(), b"value").is_acknowledged());
    }
    client.delete(b"k0");
    cluster.manager(Method::ManagerBackup, |out| method::ManagerBackup { suffix: b"today", ask: None }.encode(out));
    let backup = cluster.folder().join("server0.tch-today");
    wait_until("the backup is there", || backup.exists());
    let backup = backup.to_str().unwrap();
    let folder = Folder::new();
    let restored = run(&folder, &["restore", backup, "server0.tch"]);
    assert_eq!((restored.status.code(), restored.stderr.as_str()), (Some(0), ""));
    assert_eq!(
        restored.stdout,
        format!(
            "{backup}: store, 200 records read, 200 taken, 0 not newer\n\
             server0.tch: 200 records, 1 of them deletions; verified\n"
        )
    );
    let again = Cluster::start_in(folder.path(), 1, &[]);
    assert_eq!(again.client().get(b"k199").as_deref(), Some(&b"value"[..]));
    assert_eq!(again.client().get(b"k0"), None);
}

#[test]
fn a_damaged_backup_needs_force() {
    let folder = Folder::new();
    let record = |index: u32| (format!("key {index}"), ClockTime::new(9, index), Some("value".repeat(20)));
    make(&folder.join("backup"), (0..2000).map(record));
    let mut bytes = std::fs::read(folder.join("backup")).unwrap();
    let leaf = (2..bytes.len() / 4096).find(|page| bytes[page * 4096] == 0x0d).unwrap();
    bytes[leaf * 4096..(leaf + 1) * 4096].fill(1);
    std::fs::write(folder.join("backup"), bytes).unwrap();
    let refused = run(&folder, &["restore", "backup", "store"]);
    assert_eq!((refused.status.code(), refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
    assert!(refused.stderr.starts_with("kumo-server restore: backup: 1 range of hashes"), "{refused:?}");
    assert!(refused.stderr.ends_with("--force takes what can be read\n"), "{refused:?}");
    assert!(!folder.join("store").exists());
    let forced = report(&folder, 3, &["restore", "--force", "backup", "store"]);
    let source = &forced["sources"][0];
    assert_eq!(source["read"].as_u64().unwrap() + source["lost"].as_u64().unwrap(), 2000);
    assert_eq!(report(&folder, 0, &["check", "store"])["records"], source["read"]);
}

#[test]
fn files_of_2010_are_sent_to_mergedb() {
    let folder = Folder::new();
    let refused = run(&folder, &["restore", &fixture("big"), "store"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.ends_with("not a backup of this program; mergedb imports it\n"), "{refused:?}");
    let merged = report(&folder, 0, &["mergedb", "store", &fixture("big")]);
    assert_eq!(merged["sources"][0]["kind"], Value::from("tokyo-cabinet"));
}
