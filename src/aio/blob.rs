//! Blobs, opened for reading.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;

use crate::aio::blocking::Threads;
use crate::aio::stream::read;
use crate::aio::{AsyncBlobReader, AsyncStore, BlobStream};
use crate::blobs::{Blob, part_of};
use crate::digest::Digest;
use crate::error::Result;
use crate::sealed::SealedFile;

/// A blob that is no longer, in bytes, is read when it is opened.
const SHORT: u64 = 64 << 10;

/// A blob that handles, streams and reads share. Where they are the last to have its file open, that is closed off the
/// runtime: to unmap and free 2 GiB takes 0.8 s.
#[derive(Debug)]
pub(super) struct SharedBlob {
    // In this order: closing is for the one that is dropped last.
    blob: Blob,
    _file: HeldFile,
}

#[derive(Debug)]
struct HeldFile {
    file: Option<Arc<SealedFile>>,
    threads: Arc<Threads>,
}

impl SharedBlob {
    pub(super) fn new(store: &AsyncStore, blob: Blob) -> Arc<Self> {
        let _file = HeldFile { file: Some(Arc::clone(blob.file())), threads: Arc::clone(&store.shared.threads) };
        Arc::new(Self { blob, _file })
    }
}

impl Deref for SharedBlob {
    type Target = Blob;

    fn deref(&self) -> &Blob {
        &self.blob
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        if let Some(last) = self.file.take().and_then(Arc::into_inner) {
            let _ = self.threads.spawn(move || drop(last));
        }
    }
}

/// A blob that was opened off the runtime, and read if it is short.
pub(super) struct Opened {
    blob: Blob,
    content: Option<Bytes>,
}

impl From<Blob> for Opened {
    /// Where reading fails, reading it later will say so.
    fn from(blob: Blob) -> Self {
        let content = (blob.len() <= SHORT).then(|| blob.bytes().ok()).flatten();
        Self { blob, content }
    }
}

/// A handle on a blob whose content is read off the runtime. It stays readable, with the same bytes, while the blob is
/// removed or its segment is compacted away.
///
/// A blob of up to 64 KiB is read when a call of this module opens it: its content is then there without another switch
/// of threads.
#[derive(Clone)]
pub struct AsyncBlob {
    /// All of it, if it is short. Before the blob, since it may be a part of its file.
    content: Option<Bytes>,
    /// One handle: it keeps the table of checksums once that was read.
    blob: Arc<SharedBlob>,
    store: AsyncStore,
}

/// Which it is: its content is not for logs.
impl fmt::Debug for AsyncBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncBlob").field("blob", &**self.blob).finish_non_exhaustive()
    }
}

impl AsyncBlob {
    /// A blob that a blocking call has opened. Nothing of it is read before it is asked for.
    pub fn new(store: &AsyncStore, blob: Blob) -> Self {
        Self { content: None, blob: SharedBlob::new(store, blob), store: store.without_guard() }
    }

    /// A blob that a read has opened.
    pub(super) fn opened(store: &AsyncStore, Opened { blob, content }: Opened) -> Self {
        Self { content, ..Self::new(store, blob) }
    }

    /// The blob's digest.
    pub fn digest(&self) -> &Digest {
        self.blob.digest()
    }

    /// The blob's length in bytes.
    pub fn len(&self) -> u64 {
        self.blob.len()
    }

    /// Whether the blob is empty.
    pub fn is_empty(&self) -> bool {
        self.blob.is_empty()
    }

    /// The blocking handle.
    pub fn blocking(&self) -> &Blob {
        &self.blob
    }

    /// The whole content, verified. It is in memory at once; [`stream`](Self::stream) what may be long.
    ///
    /// # Errors
    /// As [`Blob::bytes`] and [`read`](AsyncStore::read).
    pub async fn bytes(&self) -> Result<Bytes> {
        self.slice(0..self.len()).await
    }

    /// A part of the content, verified. Only the blocks that it touches are read.
    ///
    /// # Errors
    /// As [`Blob::slice`] and [`read`](AsyncStore::read).
    pub async fn slice(&self, range: Range<u64>) -> Result<Bytes> {
        self.blob.check(&range)?;
        if let Some(part) = self.held(&range) {
            return Ok(part);
        }
        let blob = Arc::clone(&self.blob);
        self.store.read(move |_| read(&blob, range)).await
    }

    /// A part of the content as a [`Stream`](futures_core::Stream) of [pieces](BlobStream). Nothing is read before
    /// it is polled.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) unless the range lies within the blob.
    pub fn stream(&self, range: Range<u64>) -> Result<BlobStream> {
        BlobStream::new(&self.store, Arc::clone(&self.blob), range.clone(), self.held(&range))
    }

    /// The same stream, with its first piece read: damage there is known before an answer has begun.
    ///
    /// # Errors
    /// As [`slice`](Self::slice).
    pub async fn open_stream(&self, range: Range<u64>) -> Result<BlobStream> {
        let mut stream = self.stream(range)?;
        stream.read_first().await?;
        Ok(stream)
    }

    /// A part of the content as an [`AsyncRead`](tokio::io::AsyncRead), `AsyncBufRead` and `AsyncSeek`. Nothing is read
    /// before it is polled.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Options, aio::AsyncStore};
    /// # use tokio::io::{AsyncReadExt, AsyncSeekExt};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
    /// # runtime.block_on(async {
    /// let digest = store.put("one two", Algorithm::Sha256).await?.digest;
    /// let blob = store.get(&digest).await?;
    /// let mut reader = blob.reader(0..blob.len())?;
    /// reader.seek(std::io::SeekFrom::Start(4)).await?;
    /// let mut two = String::new();
    /// reader.read_to_string(&mut two).await?;
    /// assert_eq!(two, "two");
    /// # Ok(()) })
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) unless the range lies within the blob.
    pub fn reader(&self, range: Range<u64>) -> Result<AsyncBlobReader> {
        Ok(AsyncBlobReader::new(self.stream(range)?))
    }

    /// A part of what was read when the blob was opened.
    fn held(&self, range: &Range<u64>) -> Option<Bytes> {
        let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
        let content = self.content.as_ref().filter(|content| start <= end && end <= content.len())?;
        Some(part_of(content, start..end))
    }
}
