//! Files that are stored.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::retry_on_intr;

use crate::blobs::content::{Content, check_all, source_failed};
use crate::digest::Digest;
use crate::error::{Error, Result};

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

    /// Reads its content without storing it. Returns its length; fails where it has another digest.
    pub(crate) fn check(self, digest: &Digest) -> Result<u64> {
        check_all(Content::File(self), digest.into(), || Ok(()))
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

/// A reader of at most so many bytes of another: with more it fails with [`Error::ContentTooLong`], where
/// [`Read::take`] would cut the content off. Nothing of content that is put through it is then stored. What is appended
/// through it to an upload is taken back as well, except that each 256 MiB become durable while the rest comes.
///
/// ```
/// use strongroom::{Algorithm, Error, LimitedReader, Options};
///
/// # let dir = tempfile::tempdir()?;
/// let store = Options::new().create(true).open(dir.path())?;
/// let id = store.begin_upload(Algorithm::Sha256)?;
/// let body = &b"content that is too long"[..];
/// let refused = store.append_upload_from(id, None, LimitedReader::new(body, 10));
/// assert!(matches!(refused, Err(Error::ContentTooLong { limit: 10 })));
/// assert_eq!(store.upload_status(id)?.offset, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LimitedReader<R> {
    reader: R,
    limit: u64,
    /// None once there was more.
    left: Option<u64>,
}

impl<R: Read> LimitedReader<R> {
    /// Reads at most `limit` bytes of `reader`.
    pub fn new(reader: R, limit: u64) -> Self {
        Self { reader, limit, left: Some(limit) }
    }
}

impl<R: Read> Read for LimitedReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        if let Some(left) = self.left {
            // One byte more than is left tells whether there is more.
            let len = to.len().min(usize::try_from(left).unwrap_or(usize::MAX).saturating_add(1));
            read = self.reader.read(to.get_mut(..len).unwrap_or_default())?;
            self.left = left.checked_sub(read as u64);
        }
        match self.left {
            Some(_) => Ok(read),
            None => Err(Error::ContentTooLong { limit: self.limit }.into()),
        }
    }
}
