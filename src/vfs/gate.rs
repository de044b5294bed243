//! A file system in which nothing can be changed any more once its gate is shut.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::vfs::{Directory, File, OpenMode, Vfs};

/// Another file system, whose changes pass a [`Gate`].
///
/// # Invariant kept here
/// Whatever changes a file or a directory happens while the gate is open, and the gate keeps the lock of the store's
/// directory until it is shut. So no call that is still under way when a store is closed, through any handle, changes
/// anything beside the next process that opens it: to what is on disk, its end is that of a process which was killed.
#[derive(Debug)]
pub(crate) struct Gated {
    vfs: Arc<dyn Vfs>,
    gate: Arc<Gate>,
}

/// What changes pass, until it is shut.
pub(crate) struct Gate {
    /// The lock of the store's directory; none once the gate is shut. Each change holds this for reading, for as long
    /// as one operation of the file system takes.
    lock: RwLock<Option<Box<dyn Send + Sync>>>,
    is_shut: AtomicBool,
    /// How many changes have failed for want of space, and up to which of them space was given back since.
    shortages: AtomicU64,
    given_back: AtomicU64,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// The error of a change after the gate was shut.
#[derive(Debug)]
pub(crate) struct Shut;

impl fmt::Display for Shut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store was closed")
    }
}

impl std::error::Error for Shut {}

impl Shut {
    /// Whether this is why something failed.
    pub(crate) fn is_why(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// Whether a call failed since the disk is full, or the quota, or the process may not write longer files.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl Gate {
    /// An open gate, with the lock of the directory.
    pub(crate) fn new(lock: Box<dyn Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            lock: RwLock::new(Some(lock)),
            is_shut: AtomicBool::new(false),
            shortages: AtomicU64::new(0),
            given_back: AtomicU64::new(0),
        })
    }

    /// Waits for the changes that are under way, lets no other one pass, and gives the lock back.
    pub(crate) fn shut(&self) {
        let mut lock = self.lock.write().unwrap_or_else(PoisonError::into_inner);
        self.is_shut.store(true, Ordering::Release);
        drop(lock.take());
    }

    /// Whether it was shut.
    pub(crate) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Acquire)
    }

    /// How many changes have failed for want of space.
    pub(crate) fn shortages(&self) -> u64 {
        self.shortages.load(Ordering::Relaxed)
    }

    /// Whether there were some since space was [given back](Self::gave_space_back).
    pub(crate) fn lacks_space(&self) -> bool {
        self.shortages() > self.given_back.load(Ordering::Relaxed)
    }

    /// Notes that as much space as can be was given back since there were so many.
    pub(crate) fn gave_space_back(&self, shortages: u64) {
        self.given_back.fetch_max(shortages, Ordering::Relaxed);
    }

    /// Changes something, unless the gate is shut.
    fn change<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let passing = self.lock.read().unwrap_or_else(PoisonError::into_inner);
        if passing.is_none() {
            return Err(io::Error::other(Shut));
        }
        change().inspect_err(|error| {
            if is_full(error) {
                self.shortages.fetch_add(1, Ordering::Relaxed);
            }
        })
    }
}

impl Gated {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, gate: Arc<Gate>) -> Self {
        Self { vfs, gate }
    }
}

impl Vfs for Gated {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if mode == OpenMode::Read {
            return self.vfs.open(path, mode);
        }
        let file = self.gate.change(|| self.vfs.open(path, mode))?;
        Ok(Arc::new(GatedFile { file, gate: Arc::clone(&self.gate) }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.gate.change(|| self.vfs.create_dir(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.vfs.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.gate.change(|| self.vfs.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.gate.change(|| self.vfs.remove(path))
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Directory>> {
        self.vfs.open_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.vfs.lock(path)
    }
}

/// A file that was opened for writing.
#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl File for GatedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.gate.change(|| self.file.write_at(bufs, offset))
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.gate.change(|| self.file.set_len(len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.gate.change(|| self.file.allocate(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.change(|| self.file.sync())
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        self.file.start_writeback(offset, len);
    }

    fn wait_for_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.wait_for_writeback(offset, len)
    }

    fn share(&self, from: &std::fs::File, offset: u64, len: u64) -> io::Result<bool> {
        self.gate.change(|| self.file.share(from, offset, len))
    }

    fn map(&self) -> io::Result<Bytes> {
        self.file.map()
    }

    fn populate(&self, map: &[u8], range: Range<usize>) -> bool {
        self.file.populate(map, range)
    }
}
