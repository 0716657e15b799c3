//! A disk whose operations can be counted, refused, torn and stopped at, and which knows what a loss of power leaves.

use crate::store::disk::{Disk, LogFile, RealDisk, Step};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The fault injected at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process is killed there; a write gets this many thousandths of its bytes out.
    Kill(usize),
    /// This operation and so many more fail; writes get half of their bytes out.
    Fail(u64),
}

/// A small generator, so that a failing run can be repeated from its seed.
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides.max(1)
    }
}

/// A log file as the kernel and as the platter have it.
#[derive(Debug, Clone, Default)]
struct Shadow {
    durable: Vec<u8>,
    /// Since the last sync: offset and bytes; no bytes: cut off there.
    volatile: Vec<(u64, Vec<u8>)>,
    /// The name survives a loss of power.
    named: bool,
    removed: bool,
}

impl Shadow {
    fn apply(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).unwrap();
        if bytes.is_empty() {
            image.truncate(offset);
            return;
        }
        if image.len() < offset + bytes.len() {
            image.resize(offset + bytes.len(), 0);
        }
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

type Visitor = Box<dyn FnMut(Step) + Send>;

#[derive(Default)]
struct State {
    operations: u64,
    fault_at: Option<(u64, Fault)>,
    failed: u64,
    dead: bool,
    shadows: BTreeMap<PathBuf, Shadow>,
    /// The main tree's files when they were last certainly durable.
    tree: Vec<(PathBuf, Vec<u8>)>,
    store: PathBuf,
    image: Option<PathBuf>,
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct FaultyDisk {
    state: Arc<Mutex<State>>,
    visitor: Arc<Mutex<Option<Visitor>>>,
}

enum Verdict {
    Go,
    /// Fail, after so many thousandths of the bytes.
    Stop(usize),
}

impl FaultyDisk {
    pub(super) fn new(store: &Path) -> Self {
        let disk = Self::default();
        disk.state.lock().store = store.to_path_buf();
        disk
    }

    /// Lets `fault` happen so many operations from now.
    pub(super) fn plan(&self, after: u64, fault: Fault) {
        let mut state = self.state.lock();
        state.fault_at = Some((state.operations + after, fault));
    }

    /// Nothing fails from now on.
    pub(super) fn heal(&self) {
        self.state.lock().fault_at = None;
    }

    /// How many operations were made to fail.
    pub(super) fn failed(&self) -> u64 {
        self.state.lock().failed
    }

    /// Calls `visitor` at each step, outside of any lock of this disk.
    pub(super) fn visit(&self, visitor: impl FnMut(Step) + Send + 'static) {
        *self.visitor.lock() = Some(Box::new(visitor));
    }

    pub(super) fn leave(&self) {
        *self.visitor.lock() = None;
    }

    /// The directory a kill has left, if it came to that.
    pub(super) fn image(&self) -> Option<PathBuf> {
        self.state.lock().image.clone()
    }

    /// Kills now, between two operations.
    pub(super) fn kill(&self) {
        let mut state = self.state.lock();
        if !state.dead {
            die(&mut state);
        }
    }

    fn verdict(state: &mut State) -> Verdict {
        state.operations += 1;
        if state.dead {
            return Verdict::Stop(0);
        }
        match state.fault_at {
            Some((at, Fault::Kill(part))) if state.operations >= at => Verdict::Stop(part),
            Some((at, Fault::Fail(count))) if state.operations >= at && state.operations <= at + count => {
                state.failed += 1;
                Verdict::Stop(500)
            }
            _ => Verdict::Go,
        }
    }

    /// After an operation that was stopped.
    fn stopped(state: &mut State) -> io::Error {
        if !state.dead && matches!(state.fault_at, Some((_, Fault::Kill(_)))) {
            die(state);
        }
        io::Error::from(io::ErrorKind::StorageFull)
    }

    /// Writes into `target` what a loss of power might have left: of what was not synced each write may be there, torn,
    /// or missing, and so may names. Returns the store's path in it.
    pub(super) fn power_loss(&self, target: &Path, dice: &mut Dice) -> PathBuf {
        std::fs::create_dir(target).unwrap();
        let state = self.state.lock();
        for (path, shadow) in &state.shadows {
            if shadow.removed || (!shadow.named && dice.roll(2) == 0) {
                continue;
            }
            let mut image = shadow.durable.clone();
            for (offset, bytes) in &shadow.volatile {
                match dice.roll(3) {
                    0 => {}
                    1 if !bytes.is_empty() => {
                        let part = usize::try_from(dice.roll(bytes.len() as u64)).unwrap();
                        if part > 0 {
                            Shadow::apply(&mut image, *offset, &bytes[..part]);
                        }
                    }
                    _ => Shadow::apply(&mut image, *offset, bytes),
                }
            }
            std::fs::write(target.join(path.file_name().unwrap()), image).unwrap();
        }
        for (path, bytes) in &state.tree {
            std::fs::write(target.join(path.file_name().unwrap()), bytes).unwrap();
        }
        target.join(state.store.file_name().unwrap())
    }

    /// Remembers the main tree as durable in its present state. Only while nobody writes to it.
    pub(super) fn tree_is_durable(&self) {
        let mut state = self.state.lock();
        state.tree = ["", "-wal"]
            .iter()
            .map(|suffix| crate::store::paths::side_path(&state.store, suffix))
            .filter_map(|path| std::fs::read(&path).ok().map(|bytes| (path, bytes)))
            .collect();
    }

    fn act<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        match Self::verdict(&mut state) {
            Verdict::Go => act(&mut state),
            Verdict::Stop(_) => Err(Self::stopped(&mut state)),
        }
    }
}

/// Copies the store's directory: what a kill leaves is what the kernel has.
fn die(state: &mut State) {
    state.dead = true;
    let directory = state.store.parent().unwrap();
    let target = directory.join("killed");
    std::fs::create_dir(&target).unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
        }
    }
    state.image = Some(target.join(state.store.file_name().unwrap()));
}

struct FaultyFile {
    disk: FaultyDisk,
    path: PathBuf,
    file: Arc<dyn LogFile>,
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let file = self.act(|state| {
            let file = RealDisk.create(path)?;
            state.shadows.insert(path.to_path_buf(), Shadow::default());
            Ok(file)
        })?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), path: path.to_path_buf(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let file = RealDisk.open(path)?;
        let bytes = std::fs::read(path)?;
        // What is found when a store is opened need not be durable, but is there.
        let shadow = Shadow { named: true, volatile: vec![(0, bytes)], ..Shadow::default() };
        self.state.lock().shadows.insert(path.to_path_buf(), shadow);
        Ok(Arc::new(FaultyFile { disk: self.clone(), path: path.to_path_buf(), file }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.act(|state| {
            RealDisk.remove(path)?;
            if let Some(shadow) = state.shadows.get_mut(path) {
                shadow.removed = true;
            }
            Ok(())
        })
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.act(|state| {
            state.shadows.values_mut().for_each(|shadow| shadow.named = true);
            Ok(())
        })
    }

    fn reached(&self, step: Step) -> io::Result<()> {
        if matches!(step, Step::MergeSynced | Step::Checkpointed | Step::FloorChanged) && !self.state.lock().dead {
            self.tree_is_durable();
        }
        self.act(|_| Ok(()))?;
        // Taken out meanwhile, since what it does may come here again.
        let visitor = self.visitor.lock().take();
        if let Some(mut visitor) = visitor {
            visitor(step);
            self.visitor.lock().get_or_insert(visitor);
        }
        Ok(())
    }
}

impl LogFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let verdict = FaultyDisk::verdict(&mut state);
        let written = match verdict {
            Verdict::Go => bytes.len(),
            Verdict::Stop(_) if state.dead => 0,
            Verdict::Stop(part) => bytes.len() * part / 1000,
        };
        if written > 0 {
            self.file.write_at(&bytes[..written], offset)?;
            if let Some(shadow) = state.shadows.get_mut(&self.path) {
                shadow.volatile.push((offset, bytes[..written].to_vec()));
            }
        }
        match verdict {
            Verdict::Go => Ok(()),
            Verdict::Stop(_) => Err(FaultyDisk::stopped(&mut state)),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let result = self.disk.act(|state| {
            if let Some(shadow) = state.shadows.get_mut(&self.path) {
                for (offset, bytes) in std::mem::take(&mut shadow.volatile) {
                    Shadow::apply(&mut shadow.durable, offset, &bytes);
                }
            }
            Ok(())
        });
        let mut state = self.disk.state.lock();
        if result.is_err()
            && !state.dead
            && let Some(shadow) = state.shadows.get_mut(&self.path)
        {
            // The kernel forgets the pages that it could not write, and the next sync will not miss them.
            shadow.volatile.clear();
        }
        result
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.act(|state| {
            self.file.truncate(length)?;
            if let Some(shadow) = state.shadows.get_mut(&self.path) {
                shadow.volatile.push((length, Vec::new()));
            }
            Ok(())
        })
    }
}
