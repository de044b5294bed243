//! Files that are stored.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::retry_on_intr;

use crate::blobs::content::source_failed;
use crate::error::Result;

/// A file whose content is stored: as much of it as it had when it was opened, however it grows.
#[derive(Clone, Copy)]
pub(crate) struct SourceFile<'a> {
    pub(crate) file: &'a File,
    pub(crate) len: u64,
    /// Is told how much was read each time, and fails where that is enough.
    pub(crate) watch: &'a (dyn Fn(usize) -> io::Result<()> + Sync),
}

impl<'a> SourceFile<'a> {
    /// Its content from an offset on.
    pub(crate) fn from(self, offset: u64) -> FromOffset<'a> {
        FromOffset { source: self, offset }
    }
}

/// A reader of a file, which has a position of its own.
pub(crate) struct FromOffset<'a> {
    source: SourceFile<'a>,
    offset: u64,
}

impl Read for FromOffset<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.source.len.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let len = to.len().min(left);
        let read = self.source.file.read_at(to.get_mut(..len).unwrap_or_default(), self.offset)?;
        self.offset += read as u64;
        (self.source.watch)(read)?;
        Ok(read)
    }
}

/// Opens a regular file to read it. A link is not followed, and nothing that is not a file makes the caller wait.
pub(crate) fn open_source(path: &Path) -> Result<(File, u64)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = retry_on_intr(|| openat(CWD, path, flags, Mode::empty()));
    let file = File::from(opened.map_err(|errno| source_failed(errno.into()))?);
    let metadata = file.metadata().map_err(source_failed)?;
    if metadata.is_file() {
        return Ok((file, metadata.len()));
    }
    Err(source_failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")))
}
