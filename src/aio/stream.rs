//! A blob as a stream of verified pieces.

use std::fmt;
use std::hint::black_box;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::{FusedStream, Stream};

use crate::aio::blob::SharedBlob;
use crate::aio::call::Call;
use crate::aio::{AsyncStore, PIECE};
use crate::blobs::Blob;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::Store;

/// How much is passed on at a time of what is mapped, which takes no memory: each piece costs two switches of threads,
/// which at 256 KiB were a fifth of what it takes to send a blob.
const MAPPED: u64 = 1 << 20;

/// A part of a blob as a [`Stream`] of pieces, each of them verified and read off the runtime: of at most 256 KiB, or
/// 1 MiB of what is [mapped](Blob::memory). Made by [`AsyncBlob::stream`](crate::aio::AsyncBlob::stream) and
/// [`AsyncStore::open`].
///
/// One piece is read ahead, so that the disk works while the network does, and no more until that is taken. A stream
/// that is not polled holds no permit. It can still be read if the blob is removed meanwhile. After an error the stream
/// has ended.
pub struct BlobStream {
    /// What was not yielded yet.
    rest: Range<u64>,
    /// The piece at its front. Before the blob, since it may be a part of its file.
    next: Next,
    blob: Arc<SharedBlob>,
    store: AsyncStore,
}

enum Next {
    /// Nobody has asked for it.
    Unread,
    Reading(Call<Bytes, Error>),
    Ready(Result<Bytes>),
}

impl AsyncStore {
    /// Opens a blob and reads the first piece of a range of it, in one [read](Self::read): so a repository, a blob and
    /// its first piece cost one switch of threads, and damage at the front is known before an answer has begun. `get`
    /// must not change anything.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Options, aio::AsyncStore};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// # let digest = store.put("content", Algorithm::Sha256)?.digest;
    /// # let store = AsyncStore::new(store);
    /// # runtime.block_on(async {
    /// let whole = store
    ///     .open(move |store| {
    ///         let blob = store.get(&digest)?;
    ///         let all = 0..blob.len();
    ///         Ok::<_, strongroom::Error>((blob, all))
    ///     })
    ///     .await?;
    /// assert_eq!(whole.remaining(), 7);
    /// # Ok(()) })
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `get`; those of [`Blob::slice`], such as [`OutOfRange`](crate::Error::OutOfRange);
    /// [`Closed`](crate::Error::Closed).
    pub async fn open<E: From<Error> + Send + 'static>(
        &self,
        get: impl FnOnce(&Store) -> Result<(Blob, Range<u64>), E> + Send + 'static,
    ) -> Result<BlobStream, E> {
        let begin = |store: &Store| {
            let (blob, range) = get(store)?;
            blob.check(&range)?; // the whole of it, not only its first piece
            let piece = read(&blob, first_piece(&blob, &range))?;
            Ok::<_, E>((blob, range, piece))
        };
        let (blob, rest, piece) = self.read(begin).await?;
        let (next, blob) = (Next::Ready(Ok(piece)), SharedBlob::new(self, blob));
        Ok(BlobStream { rest, next, blob, store: self.without_guard() })
    }

    /// Streams a part of a blob that a blocking call has opened. Nothing is read before the stream is polled.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::Error::OutOfRange) unless the range lies within the blob.
    pub fn stream(&self, blob: Blob, range: Range<u64>) -> Result<BlobStream> {
        BlobStream::new(self, SharedBlob::new(self, blob), range, None)
    }
}

impl BlobStream {
    /// A stream, perhaps of one piece that is known.
    pub(super) fn new(
        store: &AsyncStore,
        blob: Arc<SharedBlob>,
        range: Range<u64>,
        known: Option<Bytes>,
    ) -> Result<Self> {
        blob.check(&range)?;
        let next = known.map_or(Next::Unread, |piece| Next::Ready(Ok(piece)));
        Ok(Self { rest: range, next, blob, store: store.without_guard() })
    }

    /// Reads the piece at the front of the rest.
    pub(super) async fn read_first(&mut self) -> Result<()> {
        if !self.is_terminated() {
            let piece = std::future::poll_fn(|cx| self.poll_piece(cx)).await?;
            self.next = Next::Ready(Ok(piece));
        }
        Ok(())
    }

    /// Takes the piece at the front of the rest, if it is there.
    pub(super) fn take_ready(&mut self) -> Bytes {
        let Next::Ready(Ok(piece)) = &mut self.next else { return Bytes::new() };
        let piece = std::mem::take(piece);
        (self.rest.start, self.next) = (self.rest.start + piece.len() as u64, Next::Unread);
        piece
    }

    /// Goes on elsewhere in the blob.
    pub(super) fn restart(&mut self, rest: Range<u64>) {
        (self.rest, self.next) = (rest, Next::Unread);
    }

    /// The blob.
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    /// The blob's digest.
    pub fn digest(&self) -> &Digest {
        self.blob.digest()
    }

    /// The length of the whole blob in bytes.
    pub fn blob_len(&self) -> u64 {
        self.blob.len()
    }

    /// What is still to come, as a range of the blob.
    pub fn range(&self) -> Range<u64> {
        self.rest.clone()
    }

    /// How many bytes are still to come.
    pub fn remaining(&self) -> u64 {
        self.rest.end - self.rest.start
    }

    /// Begins to read the piece at the front of the rest.
    fn begin(&self) -> Next {
        let (blob, range) = (Arc::clone(&self.blob), first_piece(&self.blob, &self.rest));
        match self.store.begin(&self.store.shared.reads, move || read(&blob, range)) {
            Ok(reading) => Next::Reading(reading),
            Err(error) => Next::Ready(Err(error)),
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        loop {
            match &mut self.next {
                Next::Unread => self.next = self.begin(),
                Next::Reading(reading) => self.next = Next::Ready(ready!(Pin::new(reading).poll(cx))),
                Next::Ready(piece) => {
                    let piece = std::mem::replace(piece, Ok(Bytes::new()));
                    self.next = Next::Unread;
                    return Poll::Ready(piece);
                }
            }
        }
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let this = &mut *self;
        if this.is_terminated() {
            return Poll::Ready(None);
        }
        let piece = match ready!(this.poll_piece(cx)) {
            Ok(piece) => piece,
            Err(error) => {
                this.rest.start = this.rest.end;
                return Poll::Ready(Some(Err(error)));
            }
        };
        this.rest.start += piece.len() as u64;
        if !this.is_terminated() {
            this.next = this.begin();
        }
        Poll::Ready(Some(Ok(piece)))
    }

    /// The number of pieces; an error may end them early.
    fn size_hint(&self) -> (usize, Option<usize>) {
        let pieces = usize::try_from(self.remaining().div_ceil(piece_len(&self.blob, &self.rest))).ok();
        (usize::from(self.remaining() > 0), pieces)
    }
}

impl FusedStream for BlobStream {
    fn is_terminated(&self) -> bool {
        self.rest.is_empty()
    }
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStream").field("blob", &**self.blob).field("rest", &self.rest).finish_non_exhaustive()
    }
}

fn first_piece(blob: &Blob, range: &Range<u64>) -> Range<u64> {
    range.start..range.end.min(range.start.saturating_add(piece_len(blob, range)))
}

/// How long the pieces of a range are, but for the last.
fn piece_len(blob: &Blob, range: &Range<u64>) -> u64 {
    if blob.memory(range) > 0 { PIECE as u64 } else { MAPPED }
}

/// Reads a piece, and touches its pages: what is mapped and was verified long ago may have left memory, and would be
/// read from disk again by its user, on the runtime. One byte in 4 KiB costs about 1% of what a checksum does.
pub(super) fn read(blob: &Blob, range: Range<u64>) -> Result<Bytes> {
    let piece = blob.slice(range)?;
    black_box(piece.iter().step_by(4096).fold(0, |sum: u8, byte| sum ^ byte));
    Ok(piece)
}
