//! Reading a store without a server, in whatever state it was left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kumo_server::client::Client;
use kumo_server::embedded::Cluster;
use kumo_server::offline::{ReadError, Reader};
use tokio::runtime::Runtime;

use crate::harness::Folder;

/// SQLite's page size.
const PAGE: usize = 4096;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Every file of a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect()
}

/// Copies the store with all that lies beside it, as if its server were killed now.
fn copy(cluster: &Cluster, folder: &Folder, name: &str) -> PathBuf {
    let to = folder.join(name);
    std::fs::create_dir(&to).expect("a folder");
    let store = cluster.store(0);
    for (file, bytes) in files(store.parent().expect("a folder")) {
        std::fs::write(to.join(file.file_name().expect("a name")), bytes).expect("a copy");
    }
    to.join(store.file_name().expect("a name"))
}

fn all(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut store = Reader::open(path).unwrap();
    let records: Vec<_> = store.records().unwrap().map(|record| record.expect("a record")).collect();
    for record in &records {
        assert_eq!(store.get(&record.key).unwrap().as_ref(), Some(record));
    }
    let count = records.len();
    let map: BTreeMap<_, _> = records.into_iter().map(|record| (record.key, record.data)).collect();
    assert_eq!(map.len(), count, "each key once");
    map
}

async fn set(client: &Client, numbers: std::ops::Range<u32>, data: &[u8], expected: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    for number in numbers {
        let key = format!("key{number}").into_bytes();
        client.set(&key, data).await.unwrap();
        expected.insert(key, data.to_vec());
    }
}

#[test]
fn all_records_are_read_also_after_a_kill_and_nothing_changes() {
    runtime().block_on(async {
        let folder = Folder::new();
        let cluster = Cluster::start_in(folder.join("cluster"), 1).await.unwrap();
        let client = Client::connect([cluster.manager()]).await.unwrap();
        let mut expected = BTreeMap::new();
        set(&client, 0..300, b"in the tables", &mut expected).await;
        // Closing moves everything to the tables; what follows is in the redo log only.
        cluster.stop_server(0).await.unwrap();
        cluster.start_server(0).await.unwrap();
        set(&client, 200..400, b"in the log", &mut expected).await;
        for number in 0..100 {
            let key = format!("key{number}").into_bytes();
            assert!(client.delete(&key).await.unwrap());
            expected.remove(&key);
        }
        let killed = copy(&cluster, &folder, "killed");
        let before = files(killed.parent().unwrap());
        assert!(before.iter().any(|(path, bytes)| path.to_string_lossy().contains(".redo.") && !bytes.is_empty()));
        assert_eq!(all(&killed), expected);
        assert_eq!(Reader::open(&killed).unwrap().get(b"key0").unwrap(), None, "a deleted key");
        assert_eq!(Reader::open(&killed).unwrap().get(b"nobody").unwrap(), None);
        assert!(files(killed.parent().unwrap()) == before, "a file has changed");
        cluster.stop_server(0).await.unwrap();
        assert_eq!(all(&cluster.store(0)), expected);
    });
}

#[test]
fn a_server_and_a_reader_do_not_have_a_store_at_the_same_time() {
    runtime().block_on(async {
        let cluster = Cluster::start(1).await.unwrap();
        let path = cluster.store(0);
        let refused = Reader::open(&path).unwrap_err();
        assert!(matches!(&refused, ReadError::InUse(line) if line.contains("in use by another process")), "{refused}");
        cluster.stop_server(0).await.unwrap();
        // Two readers do not mind each other.
        let readers = [Reader::open(&path).unwrap(), Reader::open(&path).unwrap()];
        let refused = cluster.start_server(0).await.unwrap_err().to_string();
        assert!(refused.contains("in use by another process"), "{refused}");
        drop(readers);
        cluster.start_server(0).await.unwrap();
    });
}

#[test]
fn damage_is_an_error_after_all_that_can_be_read() {
    runtime().block_on(async {
        let folder = Folder::new();
        let cluster = Cluster::start_in(folder.join("cluster"), 1).await.unwrap();
        let client = Client::connect([cluster.manager()]).await.unwrap();
        let value = [b'x'; 500];
        set(&client, 0..1000, &value, &mut BTreeMap::new()).await;
        cluster.stop_server(0).await.unwrap();
        let path = cluster.store(0);
        let mut bytes = std::fs::read(&path).unwrap();
        // A page in the middle, which holds records.
        let at = bytes.len() / 2 / PAGE * PAGE;
        bytes[at..at + PAGE].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        let mut store = Reader::open(&path).unwrap();
        let found: Vec<_> = store.records().unwrap().collect();
        let (last, good) = found.split_last().unwrap();
        assert!(matches!(last, Err(ReadError::Damaged(line)) if line.contains("missing")), "{last:?}");
        assert!(good.len() > 900 && good.len() < 1000 && good.iter().all(Result::is_ok), "{}", good.len());
    });
}

#[test]
fn other_files_are_refused() {
    let folder = Folder::new();
    let missing = Reader::open(folder.join("nothing")).unwrap_err();
    assert!(matches!(&missing, ReadError::NotAStore(line) if line.ends_with("nothing: no such file")), "{missing}");
    std::fs::write(folder.join("text"), "text").unwrap();
    assert!(matches!(Reader::open(folder.join("text")), Err(ReadError::NotAStore(_))));
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokyocabinet-little-endian.tch");
    let refused = Reader::open(old).unwrap_err();
    assert!(matches!(&refused, ReadError::NotAStore(line) if line.contains("mergedb imports it")), "{refused}");
}
