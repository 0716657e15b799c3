//! The file operations of the redo log behind a small interface, so that each of them can be made to fail in tests.
//!
//! Nothing here knows what the bytes mean.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::driver::Driver;

/// Steps of the main tree's life at which a test may look at the files or refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A merge has noted what it will write.
    MergeCollected,
    /// A transaction of a merge is about to be committed.
    MergeCommit,
    /// A transaction of a merge is committed, its records not yet marked as merged.
    MergeCommitted,
    /// The redo log's current file is durable; the tree does not say yet that the older ones are not needed.
    RedoSynced,
    /// All is in the tree and synced; the redo log's old files are about to go.
    MergeSynced,
    /// The checkpoint is about to begin.
    Checkpoint,
    /// The checkpoint is over.
    Checkpointed,
    /// A backup has copied some pages.
    BackupCopied,
    /// A backup is about to get its name.
    BackupRename,
    /// A step of the sweeper has decided.
    Sweep,
    /// The tree says, durably, that there is a new floor.
    FloorChanged,
    /// Some rows below the floor are deleted.
    OldDeleted,
}

/// The operations of the file system that the redo log needs.
pub(super) trait Disk: Send + Sync {
    /// Makes a new file; one of that name must not exist.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;
    /// Opens a file that exists, to sync or shorten it.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;
    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the creation and removal of names in `directory` durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Called at each [`Step`]; an error makes that step fail.
    fn reached(&self, _step: Step) -> io::Result<()> {
        Ok(())
    }
}

/// One file of the redo log.
pub(super) trait LogFile: Send + Sync {
    /// Writes all of `bytes` at `offset`; on an error some of them may be there.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file off.
    fn truncate(&self, length: u64) -> io::Result<()>;
}

/// The file system itself.
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(OpenOptions::new().write(true).open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

/// The file system, where a driver decides whether it takes anything.
pub(super) struct DrivenDisk(pub(super) Arc<dyn Driver>);

/// A file on it.
struct DrivenFile {
    file: Arc<dyn LogFile>,
    driver: Arc<dyn Driver>,
}

impl DrivenDisk {
    fn driven(&self, file: Arc<dyn LogFile>) -> Arc<dyn LogFile> {
        Arc::new(DrivenFile { file, driver: self.0.clone() })
    }
}

impl Disk for DrivenDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        self.0.before_write()?;
        RealDisk.create(path).map(|file| self.driven(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        RealDisk.open(path).map(|file| self.driven(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        RealDisk.sync_directory(directory)
    }

    fn reached(&self, _: Step) -> io::Result<()> {
        self.0.before_write()
    }
}

impl LogFile for DrivenFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.driver.before_write()?;
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.driver.before_write()?;
        self.file.sync()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }
}

impl LogFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
