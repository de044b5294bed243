//! The file system seam: the only module that touches files.
//!
//! Everything else in the engine speaks to storage through [`Vfs`] and [`File`], a dozen operations in all. There is
//! one real implementation, [`RealVfs`], and one simulated, `SimVfs` (feature `simulation`), which keeps what is live
//! and what is durable apart and can lose power, run full or fail at any operation.
//!
//! # What the engine assumes of the medium
//!
//! - Bytes written with [`File::write_at`] are durable once a later [`File::sync`] of the same file has returned. Until
//!   then a power cut keeps any subset of their 512-byte sectors, in any order, and the file's length is on its own
//!   too.
//! - A directory entry (created, renamed or removed) is durable once a later [`Directory::sync`] of its directory has
//!   returned. Until then it may or may not be there. A rename is atomic: the new name holds the old or the new file.
//! - A failed `sync` says nothing about what reached the disk, and neither does a later one that succeeds.
//! - No file is shorter after a power cut than its last synced length, and nothing else writes into the directory.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

mod gate;
mod read_only;
mod real;
#[cfg(any(test, feature = "simulation"))]
mod sim;

pub(crate) use gate::{Gate, Gated, Shut, is_full};
pub(crate) use read_only::ReadOnly;
pub use real::RealVfs;
#[cfg(any(test, feature = "simulation"))]
pub use sim::{Fault, SimVfs};

/// How [`Vfs::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A file that must not exist yet, for reading and writing.
    CreateNew,
}

/// What [`Vfs::stat`] says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What is there.
    pub kind: FileKind,
    /// The file system that it is in.
    pub device: u64,
    /// Who may use it: the permission bits.
    pub mode: u32,
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, wherever it leads to.
    Link,
    /// A device, a socket or the like.
    Other,
}

/// A file system, as much of it as the engine needs.
///
/// Paths are whole paths, as the caller of [`Store::open`](crate::Store::open) gave them, joined with the store's own
/// names. Errors carry the operating system's [`io::ErrorKind`]: the engine tells `NotFound`, `AlreadyExists`,
/// `StorageFull` and `WouldBlock` apart.
pub trait Vfs: Debug + Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Creates a directory whose parent exists. Fails with `AlreadyExists` where there is one.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Renames a file, replacing the one that has the new name; or a directory, replacing an empty one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Open handles remain readable.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name in the same file system, which must not exist yet. Where that can't be done, it fails
    /// with an error that is neither `NotFound` nor `AlreadyExists`, and the caller copies the file instead.
    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes an empty directory.
    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What a path names, without following a link in its last part. [Snapshots](crate::Store::snapshot_to) need it.
    fn stat(&self, _path: &Path) -> io::Result<Stat> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sets who may use a directory: the permission bits. A file system that has none does nothing.
    fn set_mode(&self, _dir: &Path, _mode: u32) -> io::Result<()> {
        Ok(())
    }

    /// The same path without links in it, as a whole path. A file system that has no links returns it as it is.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }

    /// Opens a directory, to make its entries durable. Callers open it before they change entries: so a process without
    /// descriptors fails before it has done anything, rather than not knowing what is durable.
    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Directory>>;

    /// Takes the exclusive lock of a file, which is created if needed, and of the directory that it is in, or fails
    /// with `WouldBlock` where another process holds one of them. So removing the file lets nobody else in. The lock is
    /// given back when the returned guard is dropped, or when the process dies.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open directory.
pub trait Directory: Debug + Send + Sync {
    /// Makes the entries durable that the directory has now.
    fn sync(&self) -> io::Result<()>;
}

/// An open file. All positions are absolute; nothing has a cursor.
#[expect(clippy::len_without_is_empty, reason = "nobody asks a file that")]
pub trait File: Debug + Send + Sync {
    /// Reads into `buf` from `offset` and returns how many bytes came: fewer than asked at the end of the file, or for
    /// no reason at all, as with `pread`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes `bufs`, one after the other, from `offset` on and returns how many bytes were written, which may be
    /// fewer than given, as with `pwritev`. Extends the file.
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Extends the file to `len` bytes with space that is reserved: a write below `len` does not run out of it.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Makes content and length durable: `fdatasync`.
    fn sync(&self) -> io::Result<()>;

    /// Tells the system to begin writing out what was written so far in a range, without waiting and without any
    /// promise: `sync` has less to wait for later.
    fn start_writeback(&self, offset: u64, len: u64);

    /// Waits until the system has written out what it [began to](Self::start_writeback) in a range, so that a long
    /// write leaves the disk to others in between. That makes nothing durable. An error may be told here and not again
    /// by `sync`: the file is to be given up then.
    fn wait_for_writeback(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Shares the first `len` bytes of another file with this one, from `offset` on, without a copy of them: what is
    /// written to either file later does not change the other. `false`, and nothing done, where the file system can't,
    /// as most can't; where the files are on two of them; and where a number is no multiple of its blocks.
    fn share(&self, _from: &std::fs::File, _offset: u64, _len: u64) -> io::Result<bool> {
        Ok(false)
    }

    /// Maps the whole file as it is now. For sealed files only: nothing may cut the file while the mapping lives.
    fn map(&self) -> io::Result<Bytes>;

    /// Brings a part of a [mapping](Self::map) of the file into memory, so that to touch it right after does not read
    /// from the disk. `false` where that can't be done, or fails: a read by position then tells why.
    fn populate(&self, _map: &[u8], _range: Range<usize>) -> bool {
        false
    }
}

impl dyn File + '_ {
    /// Fills `buf` from `offset`, or fails with `UnexpectedEof`.
    pub fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buf = buf.get_mut(n..).ok_or(io::ErrorKind::InvalidData)?;
                    offset += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `buf` at `offset`.
    pub fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_vectored_at(&mut [IoSlice::new(buf)], offset)
    }

    /// Writes all of `bufs`, one after the other, from `offset` on.
    pub fn write_all_vectored_at(&self, mut bufs: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut bufs, 0); // drop empty slices at the front
        while !bufs.is_empty() {
            // The kernel takes at most 1,024 slices a call.
            match self.write_at(bufs.get(..bufs.len().min(1024)).unwrap_or_default(), offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    IoSlice::advance_slices(&mut bufs, n);
                    offset += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The directory that has a path's entry, if one has.
pub(crate) fn parent_of(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}
