//! The log on its own: what is written comes back, whatever the end looks like.

use super::format::FILE_HEADER;
use super::*;
use crate::store::disk::{Disk, LogFile, RealDisk};
use crate::store::error::OpenError;
use crate::store::failures::Failures;
use crate::store::paths::redo_file;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const STORE_ID: u64 = 77;

fn start(store: &Path, number: u64, first: u64, limit: u64) -> Redo {
    start_on(Arc::new(RealDisk), store, number, first, limit)
}

fn start_on(disk: Arc<dyn Disk>, store: &Path, number: u64, first: u64, limit: u64) -> Redo {
    let failures = Arc::new(Failures::default());
    let options =
        RedoOptions { store: store.to_path_buf(), store_id: STORE_ID, limit, disk, writes: Arc::default(), failures };
    Redo::start(options, number, first, Vec::new()).unwrap()
}

/// A disk whose syncs fail while a flag says so.
#[derive(Clone, Default)]
struct Failing(Arc<AtomicBool>);

impl Disk for Failing {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(FailingFile(self.clone(), RealDisk.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        RealDisk.open(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        RealDisk.sync_directory(directory)
    }
}

struct FailingFile(Failing, Arc<dyn LogFile>);

impl LogFile for FailingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if self.0.0.load(Ordering::Relaxed) { Err(io::ErrorKind::Other.into()) } else { self.1.sync() }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.1.truncate(length)
    }
}

fn append(redo: &Redo, key: &[u8], value: &[u8]) -> u64 {
    let entry = Entry { kind: Kind::Put, generation: 3, key, head: &value[..4], body: &value[4..] };
    match redo.append(&entry) {
        Append::Buffered(seq) => seq,
        Append::Full => panic!("there is space"),
    }
}

/// Sequence number, key and value.
type Came = (u64, Vec<u8>, Vec<u8>);

/// All that comes back, and how many bytes were cut off.
fn read_back(store: &Path, from: u64) -> Result<(Vec<Came>, u64), OpenError> {
    let mut entries = Vec::new();
    let found = recover(store, STORE_ID, from, false, &RealDisk, |entry| {
        assert_eq!(entry.generation, 3);
        entries.push((entry.sequence, entry.key.to_vec(), entry.value.to_vec()));
        Ok(())
    })?;
    assert_eq!(found.entries, entries.len() as u64);
    Ok((entries, found.cut_bytes))
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_back_to_the_last_whole_frame() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("db");
    let redo = start(&store, 1, 1, 1 << 20);
    let path = redo_file(&store, 1);
    let mut ends = vec![FILE_HEADER];
    for number in 0..6_u8 {
        for part in 0..=number % 3 {
            append(&redo, &[b'k', number, part], &[number; 9]);
        }
        redo.write_all().unwrap();
        ends.push(usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap());
    }
    let whole = std::fs::read(&path).unwrap();
    let (all, _) = read_back(&store, 1).unwrap();
    assert_eq!(all.len(), 12);
    for cut in FILE_HEADER..whole.len() {
        // Cut short, and with the rest overwritten as a reused block would be.
        for tail in [0, whole.len() - cut] {
            let mut torn = whole[..cut].to_vec();
            torn.resize(cut + tail, 0xa5);
            if torn == whole {
                continue;
            }
            std::fs::write(&path, &torn).unwrap();
            let (entries, _) = read_back(&store, 1).unwrap();
            let frames = ends.iter().filter(|&&end| end <= cut).count() - 1;
            let expected: usize = (0..frames).map(|number| number % 3 + 1).sum();
            assert_eq!(entries[..], all[..expected], "cut at {cut}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), ends[frames] as u64, "cut off at the last good end");
        }
    }
    for cut in 0..FILE_HEADER {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (entries, cut_bytes) = read_back(&store, 1).unwrap();
        assert_eq!((entries.len(), cut_bytes), (0, cut as u64), "a file that was just being made");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "found again if the start is cut short, too");
        std::fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_flipped_bit_anywhere_ends_the_log_there() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("db");
    let redo = start(&store, 1, 1, 1 << 20);
    for number in 0..4_u8 {
        append(&redo, &[number], &[number; 9]);
        redo.write_all().unwrap();
    }
    let path = redo_file(&store, 1);
    let whole = std::fs::read(&path).unwrap();
    let frame = (whole.len() - FILE_HEADER) / 4;
    for at in FILE_HEADER..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let (entries, _) = read_back(&store, 1).unwrap();
        assert_eq!(entries.len(), (at - FILE_HEADER) / frame, "flipped at {at}");
    }
}

#[test]
fn damage_to_an_earlier_file_is_an_error_once_it_was_durable() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("db");
    for synced in [false, true] {
        for number in 1..4 {
            let _ = std::fs::remove_file(redo_file(&store, number));
        }
        let redo = start(&store, 1, 1, 1 << 20);
        append(&redo, b"one", &[1; 9]);
        redo.write_all().unwrap();
        append(&redo, b"two", &[2; 9]);
        redo.write_all().unwrap();
        assert_eq!(redo.rotate().unwrap(), (2, 3));
        append(&redo, b"three", &[3; 9]);
        redo.write_all().unwrap();
        if synced {
            redo.sync().unwrap();
        }
        assert_eq!(read_back(&store, 1).unwrap().0.len(), 3);
        let path = redo_file(&store, 1);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let result = read_back(&store, 1);
        if synced {
            assert!(matches!(result, Err(OpenError::RedoDamaged { .. })));
            assert!(redo_file(&store, 2).exists(), "left for whoever looks into it");
        } else {
            assert_eq!(result.unwrap().0.len(), 1, "power was lost before the first file was synced");
            assert!(!redo_file(&store, 2).exists());
        }
    }
}

#[test]
fn files_that_are_merged_are_deleted_and_gaps_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("db");
    let redo = start(&store, 1, 1, 1 << 20);
    for number in 0..3_u8 {
        append(&redo, &[number], &[number; 9]);
        redo.write_all().unwrap();
        redo.rotate().unwrap();
    }
    redo.sync().unwrap();
    let bytes = std::fs::read(redo_file(&store, 2)).unwrap();
    std::fs::remove_file(redo_file(&store, 2)).unwrap();
    assert!(matches!(read_back(&store, 1), Err(OpenError::RedoDamaged { .. })));
    assert!(matches!(read_back(&store, 2), Err(OpenError::RedoDamaged { .. })));
    std::fs::write(redo_file(&store, 2), bytes).unwrap();
    assert_eq!(read_back(&store, 2).unwrap().0.len(), 2, "from the second file on");
    assert!(!redo_file(&store, 1).exists());
}

#[test]
fn the_limit_refuses_before_anything_is_buffered() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("db");
    let redo = start(&store, 1, 1, 1000);
    let value = [1; 100];
    let entry = Entry { kind: Kind::Put, generation: 3, key: b"k", head: &value[..8], body: &value[8..] };
    let mut taken = 0;
    while redo.append(&entry) != Append::Full {
        taken += 1;
    }
    assert_eq!(taken, (1000 - FILE_HEADER) / entry.len());
    redo.write_all().unwrap();
    let (number, _) = redo.rotate().unwrap();
    redo.delete_before(number);
    assert!(matches!(redo.append(&entry), Append::Buffered(_)));
}

#[test]
fn a_file_that_was_being_made_leaves_no_gap_behind() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("db");
    let redo = start(&store, 1, 1, 1 << 20);
    append(&redo, b"one", &[1; 9]);
    redo.write_all().unwrap();
    // Killed, or without power, before the header of the next file was there; and then again before a merge ended.
    for round in 0..3_u8 {
        for unfinished in [&[][..], &[0; FILE_HEADER]] {
            let next = recover(&store, STORE_ID, 1, false, &RealDisk, |_| Ok(())).unwrap();
            std::fs::write(redo_file(&store, next.next_number), unfinished).unwrap();
        }
        let found = recover(&store, STORE_ID, 1, false, &RealDisk, |_| Ok(())).unwrap();
        assert_eq!(found.entries, 1 + u64::from(round));
        let redo = start(&store, found.next_number, found.next_sequence, 1 << 20);
        append(&redo, &[round], &[round; 9]);
        redo.write_all().unwrap();
    }
    assert_eq!(read_back(&store, 1).unwrap().0.len(), 4);
}

#[test]
fn a_failed_sync_is_remembered_until_it_is_forgiven_also_by_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("db");
    let disk = Failing::default();
    let redo = start_on(Arc::new(disk.clone()), &store, 1, 1, 1 << 20);
    append(&redo, b"key", b"value");
    redo.write_all().unwrap();
    disk.0.store(true, Ordering::Relaxed);
    assert!(redo.sync().is_err());
    disk.0.store(false, Ordering::Relaxed);
    assert!(redo.sync().is_err(), "the kernel would call it good");
    drop(redo);
    let redo = start_on(Arc::new(disk.clone()), &store, 2, 2, 1 << 20);
    assert!(redo.is_suspect() && redo.sync().is_err(), "killed and started again");
    redo.trust_again(2);
    redo.sync().unwrap();
    assert!(!start_on(Arc::new(disk), &store, 3, 2, 1 << 20).is_suspect());
}
