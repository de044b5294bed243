//! The simulated file system: in memory, with power cuts and faults at any operation.
//!
//! What is live and what is durable are kept apart, for each file and for each directory entry; see [`disk`] for what a
//! power cut may keep. Operations that change or sync something are counted, and a [`Fault`] can be planned for any of
//! them by its number. All calls are counted too, also those that only read, and any of them but a sync can be refused
//! for a [shortage](SimVfs::shortage_during).

mod disk;

use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{Directory, File, FileKind, OpenMode, Stat, Vfs};
use crate::sync::lock;
use disk::{Call, Disk, Node};

/// What happens at a planned operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Power goes off in the middle of the operation: it may have had its effect or not, and this and every later
    /// operation fails. [`SimVfs::power_cut`] then shows what is left.
    PowerCut,
    /// The operation fails with an I/O error and has no effect.
    Error,
    /// From this operation on there is no space for anything more, until [`SimVfs::free_space`].
    Full,
    /// If the operation is a write of more than one byte, only a part is written, which it says.
    ShortWrite,
    /// If the operation is a sync, it fails, and, as on Linux, what it should have made durable counts as clean
    /// afterwards: a later sync says nothing about it.
    FailedSync,
}

/// A simulated file system. Clones share it.
///
/// ```
/// use std::path::Path;
/// use std::sync::Arc;
/// use strongroom::vfs::{Fault, SimVfs};
/// use strongroom::{Algorithm, Digest, Options};
///
/// let disk = SimVfs::new();
/// let open = |disk: &SimVfs| Options::new().create(true).vfs(Arc::new(disk.clone())).open("/store");
/// let store = open(&disk)?;
/// let digest = store.put("acknowledged", Algorithm::Sha256)?.digest;
/// disk.fault_at(disk.operations() + 1, Fault::PowerCut);
/// assert!(store.put("not acknowledged", Algorithm::Sha256).is_err());
///
/// let after = disk.power_cut(1);
/// assert_eq!(open(&after)?.get(&digest)?.bytes()?, "acknowledged");
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SimVfs {
    disk: Arc<Mutex<Disk>>,
}

impl Default for SimVfs {
    fn default() -> Self {
        Self::new()
    }
}

impl SimVfs {
    /// A file system with nothing but its root, `/`.
    pub fn new() -> Self {
        Self::of(Disk::new())
    }

    fn of(disk: Disk) -> Self {
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// What is left after a power cut now: all that is durable, and of the rest what the seed draws.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        Self::of(lock(&self.disk).power_cut(seed))
    }

    /// The file system as the next process finds it after this one was killed: everything is there, and what was not
    /// durable still is not. Locks and planned faults are gone.
    #[must_use]
    pub fn restarted(&self) -> Self {
        Self::of(lock(&self.disk).restarted())
    }

    /// How many operations have changed or synced something, or tried to.
    pub fn operations(&self) -> u64 {
        lock(&self.disk).operations
    }

    /// Plans a fault for the operation with this number; the first is 1.
    pub fn fault_at(&self, operation: u64, fault: Fault) {
        lock(&self.disk).faults.insert(operation, fault);
    }

    /// How many calls there were in all, also those that only read.
    pub fn calls(&self) -> u64 {
        lock(&self.disk).calls
    }

    /// Refuses the calls with these numbers, the first of all being 1, as the system does for want of file descriptors
    /// (where something is opened) or of memory. They have no effect. Syncs are not refused: see [`Fault::FailedSync`].
    pub fn shortage_during(&self, calls: Range<u64>) {
        lock(&self.disk).shortage = calls;
    }

    /// Ends [`Fault::Full`].
    pub fn free_space(&self) {
        lock(&self.disk).full = false;
    }

    /// Limits how many bytes all files together may have.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.disk).capacity = bytes;
    }

    /// How many bytes all files have.
    pub fn used(&self) -> u64 {
        lock(&self.disk).used()
    }

    /// Whether everything that would change something is refused with `PermissionDenied`.
    pub fn set_read_only(&self, read_only: bool) {
        lock(&self.disk).read_only = read_only;
    }

    /// Makes reads that touch a range of a file fail.
    pub fn fail_reads(&self, path: impl Into<PathBuf>, range: Range<u64>) {
        lock(&self.disk).bad_reads.push((path.into(), range));
    }

    /// All files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        lock(&self.disk).files()
    }

    /// A file's content.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn read_file(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let disk = lock(&self.disk);
        let inode = disk.inode(path.as_ref())?;
        Ok(disk.node(inode)?.live.to_vec())
    }

    /// Replaces a file's content behind everybody's back, durably: for damage.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn tamper(&self, path: impl AsRef<Path>, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        let inode = disk.inode(path.as_ref())?;
        let node = disk.node_mut(inode)?;
        change(Arc::make_mut(&mut node.live));
        node.settle();
        Ok(())
    }

    /// Flips a bit of a file, durably.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn flip_bit(&self, path: impl AsRef<Path>, bit: u64) -> io::Result<()> {
        self.tamper(path, |content| {
            if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| content.get_mut(at)) {
                *byte ^= 1 << (bit % 8);
            }
        })
    }

    /// Removes a directory with all that is in it, durably.
    pub fn remove_tree(&self, dir: impl AsRef<Path>) {
        lock(&self.disk).remove_tree(dir.as_ref());
    }
}

impl Vfs for SimVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Opens)?;
        let inode = if mode == OpenMode::CreateNew { disk.create(path)? } else { disk.open(path)? };
        let file =
            SimFile { disk: Arc::clone(&self.disk), path: path.to_path_buf(), inode, writable: mode != OpenMode::Read };
        Ok(Arc::new(file))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Works)?;
        disk.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Opens)?;
        disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Works)?;
        disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Works)?;
        disk.remove(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Works)?;
        disk.link(from, to)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Works)?;
        disk.remove_dir(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Works)?;
        disk.stat(path)
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Directory>> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Opens)?;
        disk.list(dir)?;
        Ok(Box::new(SimDirectory { disk: Arc::clone(&self.disk), path: dir.to_path_buf() }))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Opens)?;
        if disk.locks.contains(path) {
            return Err(ErrorKind::WouldBlock.into());
        }
        match disk.entry(path) {
            Some(Node::File(_)) => {}
            _ => drop(disk.create(path)?),
        }
        disk.locks.insert(path.to_path_buf());
        Ok(Box::new(Held { disk: Arc::clone(&self.disk), path: path.to_path_buf() }))
    }
}

/// A lock that is held.
struct Held {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.disk).locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimDirectory {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl Directory for SimDirectory {
    fn sync(&self) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Syncs)?;
        disk.sync_dir(&self.path)
    }
}

/// An open file: it goes on reading its inode when the name is gone.
#[derive(Debug)]
struct SimFile {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    inode: u64,
    writable: bool,
}

impl SimFile {
    fn writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Works)?;
        disk.read(self.inode, &self.path, buf, offset)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.writable()?;
        let bytes = bufs.iter().map(|buf| &buf[..]).collect::<Vec<_>>().concat();
        let mut disk = lock(&self.disk);
        disk.admit(Call::Works)?;
        disk.write(self.inode, &bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Works)?;
        disk.len(self.inode)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        let mut disk = lock(&self.disk);
        disk.admit(Call::Works)?;
        disk.set_len(self.inode, len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        let mut disk = lock(&self.disk);
        disk.admit(Call::Works)?;
        let now = disk.len(self.inode)?;
        disk.set_len(self.inode, len.max(now))
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Syncs)?;
        disk.sync(self.inode)
    }

    fn start_writeback(&self, _: u64, _: u64) {}

    /// Sharing is a write, but never of a part: it is as durable as one.
    fn share(&self, from: &std::fs::File, offset: u64, len: u64) -> io::Result<bool> {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        from.read_exact_at(&mut bytes, 0)?;
        (self as &dyn File).write_all_vectored_at(&mut [IoSlice::new(&bytes)], offset).map(|()| true)
    }

    fn map(&self) -> io::Result<Bytes> {
        let mut disk = lock(&self.disk);
        disk.admit(Call::Works)?;
        disk.powered()?;
        Ok(Bytes::copy_from_slice(&disk.node(self.inode)?.live))
    }

    /// Not what was changed since it was mapped: the mapping is a copy, and does not show that.
    fn populate(&self, map: &[u8], range: Range<usize>) -> bool {
        let mut now = vec![0; range.len()];
        let read = self.read_at(&mut now, range.start as u64);
        matches!(read, Ok(len) if len == now.len()) && map.get(range) == Some(&now[..])
    }
}

#[cfg(test)]
mod tests;
