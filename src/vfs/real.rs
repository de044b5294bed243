//! The real file system, by `std` and, where it has no call for it, `rustix`.

use std::fs;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{Directory, File, FileKind, OpenMode, Stat, Vfs, parent_of};

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealVfs;

impl Vfs for RealVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(RealFile(open_regular(&mut options, path)?)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let metadata = fs::symlink_metadata(path)?;
        let kind = match metadata.file_type() {
            kind if kind.is_file() => FileKind::File,
            kind if kind.is_dir() => FileKind::Directory,
            kind if kind.is_symlink() => FileKind::Link,
            _ => FileKind::Other,
        };
        Ok(Stat { kind, device: metadata.dev(), mode: metadata.mode() & 0o7777 })
    }

    fn set_mode(&self, dir: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Directory>> {
        Ok(Box::new(RealDirectory(open_directory(dir)?)))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        outlive_file_size_limit();
        let dir = lock_directory(parent_of(path).unwrap_or(Path::new(".")))?;
        let create = || open_regular(fs::OpenOptions::new().read(true).write(true).create(true).truncate(false), path);
        let file = lock_what_is_there(path, create)?;
        Ok(Box::new((dir, file)))
    }
}

/// So often at most a lock is taken anew since what was locked is not what the path leads to any more.
const LOCK_ATTEMPTS: usize = 16;

/// Locks a directory itself: the file in it may be removed by somebody who takes it for stale, and then another process
/// would lock a new one. None where the file system has no locks for directories, as NFS: there the file has to do.
fn lock_directory(dir: &Path) -> io::Result<Option<fs::File>> {
    match lock_what_is_there(dir, || open_directory(dir)) {
        Ok(locked) => Ok(Some(locked)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::EINVAL | libc::ENOLCK)) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens and locks what a path leads to, and what it still leads to when the lock is held: between the two it may have
/// been removed or replaced.
fn lock_what_is_there(path: &Path, open: impl Fn() -> io::Result<fs::File>) -> io::Result<fs::File> {
    for _ in 0..LOCK_ATTEMPTS {
        let file = open()?;
        // `File::try_lock` does the same, from Rust 1.89 on.
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        let identity = |found: &fs::Metadata| (found.dev(), found.ino());
        let locked = identity(&file.metadata()?);
        match fs::metadata(path) {
            Ok(there) if identity(&there) == locked => return Ok(file),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Err(io::ErrorKind::WouldBlock.into()) // whoever replaces it again and again is using the directory
}

/// Opens a file, unless something else stands in its place. With a link, anyone who may write to the directory of a
/// store could have its process read, change or create a file elsewhere; a pipe would keep it waiting for a writer.
fn open_regular(options: &mut fs::OpenOptions, path: &Path) -> io::Result<fs::File> {
    let opened = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::other("it is a link, and a file of a store is none: put the file there itself"),
        _ => error,
    })?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file, as each file of a store is: put the file there"));
    }
    Ok(file)
}

/// Opens a directory; what else has its name is no directory, and not waited for.
fn open_directory(dir: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir)
}

/// A write past the limit on file sizes (`ulimit -f`) ends a process with the signal SIGXFSZ, unless it ignores that:
/// then the write fails with an error, as on a full disk. Done before the first write, and only where the program has
/// not decided otherwise.
#[cfg(unix)]
fn outlive_file_size_limit() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        #[expect(unsafe_code, reason = "neither std nor rustix can ignore a signal")]
        // SAFETY: both calls get pointers to whole, zeroed structures of the right type, or null where that is allowed.
        // Ignoring a signal runs no code of ours in a handler.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            let is_default = libc::sigaction(libc::SIGXFSZ, std::ptr::null(), &raw mut now) == 0
                && now.sa_sigaction == libc::SIG_DFL;
            if is_default {
                now.sa_sigaction = libc::SIG_IGN;
                libc::sigaction(libc::SIGXFSZ, &raw const now, std::ptr::null_mut());
            }
        }
    });
}

#[derive(Debug)]
struct RealDirectory(fs::File);

impl Directory for RealDirectory {
    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        match bufs {
            [one] => self.0.write_at(one, offset),
            many => Ok(rustix::io::pwritev(&self.0, many, offset)?),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mode = rustix::fs::FallocateFlags::empty();
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.0, mode, 0, len)) {
            // A file system without the call: the length is set, the space is not reserved.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(len),
            other => Ok(other?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        start_writeback(&self.0, offset, len);
    }

    fn wait_for_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        wait_for_writeback(&self.0, offset, len)
    }

    fn share(&self, from: &fs::File, offset: u64, len: u64) -> io::Result<bool> {
        Ok(share(from, &self.0, offset, len))
    }

    fn map(&self) -> io::Result<Bytes> {
        #[expect(unsafe_code, reason = "a mapping is what makes reads without a copy possible")]
        // SAFETY: the mapped bytes must not change while the mapping lives. `map` is called for sealed files only,
        // which the engine never writes or cuts again (it replaces and unlinks), and the store's lock keeps other
        // engines out.
        let map = unsafe { memmap2::Mmap::map(&self.0)? };
        Ok(Bytes::from_owner(map))
    }

    fn populate(&self, map: &[u8], range: Range<usize>) -> bool {
        populate(map, range)
    }
}

/// From Linux 5.14 on. An error of the disk is an error here, and not a signal.
#[cfg(target_os = "linux")]
fn populate(map: &[u8], range: Range<usize>) -> bool {
    // A mapping begins at a page, so that this does too, whatever the length of a page: it is 64 KiB at most.
    let start = range.start & !0xffff;
    let Some(part) = map.get(start..range.end) else { return false };
    #[expect(unsafe_code, reason = "bytes do not know that they are a mapping, which memmap2 could advise on")]
    // SAFETY: the call reads the pages of a slice that is borrowed for as long, and changes none of its bytes.
    let result = unsafe { libc::madvise(part.as_ptr().cast_mut().cast(), part.len(), libc::MADV_POPULATE_READ) };
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn populate(_: &[u8], _: Range<usize>) -> bool {
    false
}

#[cfg(target_os = "linux")]
fn start_writeback(file: &fs::File, offset: u64, len: u64) {
    let _ = sync_file_range(file, offset, len, libc::SYNC_FILE_RANGE_WRITE); // an error shows in the sync
}

/// The system tells an error in writing out once for each open file, here or in `fdatasync`.
#[cfg(target_os = "linux")]
fn wait_for_writeback(file: &fs::File, offset: u64, len: u64) -> io::Result<()> {
    match sync_file_range(file, offset, len, libc::SYNC_FILE_RANGE_WAIT_BEFORE) {
        // The call itself is not there, or not allowed.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)) => Ok(()),
        other => other,
    }
}

#[cfg(target_os = "linux")]
fn sync_file_range(file: &fs::File, offset: u64, len: u64, flags: libc::c_uint) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return Ok(()) };
    #[expect(unsafe_code, reason = "neither std nor rustix has sync_file_range")]
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no memory of ours.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whatever the reason is for which it fails: what is written instead meets it as well.
#[cfg(target_os = "linux")]
fn share(from: &fs::File, to: &fs::File, offset: u64, len: u64) -> bool {
    use std::os::fd::AsRawFd as _;
    let src_fd = i64::from(from.as_raw_fd());
    let range = libc::file_clone_range { src_fd, src_offset: 0, src_length: len, dest_offset: offset };
    #[expect(unsafe_code, reason = "neither std nor rustix has FICLONERANGE")]
    // SAFETY: both descriptors are open for as long as the files are borrowed, and the call reads the struct that the
    // pointer leads to, which lives until it returns, and writes to no memory of ours.
    let result = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONERANGE, &raw const range) };
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn share(_: &fs::File, _: &fs::File, _: u64, _: u64) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn start_writeback(_: &fs::File, _: u64, _: u64) {}

#[cfg(not(target_os = "linux"))]
fn wait_for_writeback(_: &fs::File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}
