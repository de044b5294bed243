//! Content that arrives in async pieces, for blocking calls that read from a reader.
//!
//! ```text
//!  ContentSink ── PollSender ─ 8 pieces ─ Receiver ──► ContentReader ──► work(&Store, reader)
//!  send, finish                                        Read, on a blocking thread
//!        ▲                                                                 │
//!        └──────────────────────── result ◄────────────────────────────────┘
//! ```
//!
//! The reader's end is said, never inferred: [`Piece::End`] comes from [`finish`](ContentSink::finish) alone. A channel
//! that ends without it means that the sink was dropped, and the reader fails; else a cut-off upload would look like a
//! whole one.

use std::fmt;
use std::io::{self, Read};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use ::tokio::runtime::Handle;
use ::tokio::sync::mpsc::{Receiver, Sender, channel};
use ::tokio::task::JoinHandle;
use bytes::{Buf as _, Bytes};
use futures_core::Stream;
use futures_sink::Sink;
use tokio_util::sync::PollSender;

use crate::blobs::source_failed;
use crate::error::{Error, Result};
use crate::id::UploadId;
use crate::registry::RepositoryName;
use crate::store::Store;
use crate::tokio::{AsyncStore, PIECE, UploadWriter, joined, permit};

/// How many pieces may wait for the reader: enough that neither side waits for the other's every step.
const WAITING: usize = 8;

/// What goes from the sink to the reader.
#[derive(Debug)]
enum Piece {
    /// At most [`PIECE`] bytes, and not empty.
    Content(Bytes),
    /// That was all.
    End,
}

impl Piece {
    fn content(self) -> Option<Bytes> {
        match self {
            Self::Content(piece) => Some(piece),
            Self::End => None,
        }
    }
}

/// A sink for content, which a blocking operation reads. Made by [`AsyncStore::append_upload`] and
/// [`AsyncStore::write`].
///
/// At most eight pieces of at most 256 KiB wait for the operation, besides what is left of the one given last; then the
/// sink is not ready. Flushing hands everything over, and says nothing about what is durable.
///
/// [`finish`](Self::finish) ends the content, and returns the operation's result. Where a sink is dropped before, the
/// operation's reader fails. If the operation fails early, sending fails with its error, and so does
/// [`finish`](Self::finish).
#[must_use = "dropping it cuts the content off"]
pub struct ContentSink<T> {
    sender: PollSender<Piece>,
    /// What of the last piece is still to be sent.
    rest: Bytes,
    ended: bool,
    work: Work<T>,
}

enum Work<T> {
    Running(JoinHandle<Result<T>>),
    /// None once the result was handed out.
    Done(Option<Result<T>>),
}

/// What reads from a [`ContentSink`], to its end.
///
/// # Errors
/// Reading fails with [`io::ErrorKind::UnexpectedEof`] where the sink was dropped before it was finished.
#[derive(Debug)]
pub struct ContentReader {
    receiver: Receiver<Piece>,
    piece: Bytes,
    ended: bool,
}

impl AsyncStore {
    /// A sink that appends to an upload, of a repository or of the store itself (`None`), at `offset`, and gives the
    /// offset where the upload then stands: an [`UploadWriter`] as a sink. It holds no thread while nothing comes.
    ///
    /// # Errors
    /// Come from the sink: as [`Store::append_upload_from`]'s, and [`Error::Closed`]. A sink that is dropped leaves the
    /// upload where what came before ends, or further back; [`upload_status`](Store::upload_status) tells.
    pub fn append_upload(&self, repository: Option<&RepositoryName>, id: UploadId, offset: u64) -> ContentSink<u64> {
        let (sender, receiver) = channel(WAITING);
        ContentSink::new(sender, append(self.upload_writer(repository, id, offset), receiver))
    }

    /// A sink for any operation that reads content, such as [`Store::put_reader`]. The operation begins with the first
    /// piece, once fewer than [`Limits::writes`](super::Limits::writes) run, and holds a thread until it ends.
    ///
    /// ```
    /// # use futures_util::SinkExt;
    /// # use strongroom::{Algorithm, Options, tokio::AsyncStore};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
    /// # runtime.block_on(async {
    /// let mut sink = store.write(|store, content| store.put_reader(content, Algorithm::Sha256));
    /// sink.send("content".into()).await?;
    /// let digest = sink.finish().await?.digest;
    /// # store.call(move |store| store.get(&digest)).await?;
    /// # Ok(()) })
    /// # }
    /// ```
    pub fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, ContentReader) -> Result<T> + Send + 'static,
    ) -> ContentSink<T> {
        let (sender, mut receiver) = channel(WAITING);
        let store = self.clone();
        let write = async move {
            // No thread is held before there is something to write.
            let (piece, ended) = match receiver.recv().await {
                Some(Piece::Content(piece)) => (piece, false),
                Some(Piece::End) => (Bytes::new(), true),
                None => return Err(source_failed(cut_off())),
            };
            let reader = ContentReader { receiver, piece, ended };
            let permit = permit(&store.shared.writes).await?;
            store.run(permit, move |store| work(store, reader)).await
        };
        ContentSink::new(sender, write)
    }
}

/// Writes what is sent to an upload: each time what is there.
async fn append(mut writer: UploadWriter, mut receiver: Receiver<Piece>) -> Result<u64> {
    loop {
        let mut sent = Vec::with_capacity(WAITING);
        receiver.recv_many(&mut sent, WAITING).await;
        let (is_cut_off, is_end) = (sent.is_empty(), matches!(sent.last(), Some(Piece::End)));
        let pieces: Vec<Bytes> = sent.into_iter().filter_map(Piece::content).collect();
        if is_end {
            return writer.finish_with(pieces).await;
        }
        if is_cut_off {
            writer.finish().await?; // what came before counts
            return Err(source_failed(cut_off()));
        }
        writer.write(pieces).await?;
    }
}

impl<T: Send + 'static> ContentSink<T> {
    fn new(sender: Sender<Piece>, work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        let work = match Handle::try_current() {
            Ok(runtime) => Work::Running(runtime.spawn(work)),
            Err(_) => Work::Done(Some(Err(Error::Closed))),
        };
        Self { sender: PollSender::new(sender), rest: Bytes::new(), ended: false, work }
    }
}

impl<T> ContentSink<T> {
    /// Ends the content, and waits for the operation's result.
    ///
    /// Dropping this future either cuts the content off, or, where the end was handed over already, lets the operation
    /// run to its end.
    ///
    /// # Errors
    /// Those of the operation, and [`Error::Closed`].
    pub async fn finish(mut self) -> Result<T> {
        std::future::poll_fn(|cx| Pin::new(&mut self).poll_close(cx)).await?;
        match self.work {
            Work::Done(Some(result)) => result,
            _ => Err(Error::Closed), // not after closing
        }
    }

    /// Sends all of a stream, and [finishes](Self::finish). One piece of the stream is taken at a time.
    ///
    /// # Errors
    /// [`StreamError::Source`] where the stream fails: what came before it is then stored as far as it counts (an
    /// upload stands there and can be continued at once). [`StreamError::Store`] where the operation fails.
    pub async fn send_stream<E>(mut self, content: impl Stream<Item = Result<Bytes, E>>) -> Result<T, StreamError<E>> {
        let mut content = pin!(content);
        while let Some(piece) = std::future::poll_fn(|cx| content.as_mut().poll_next(cx)).await {
            match piece {
                Ok(piece) => {
                    let mut sink = Pin::new(&mut self);
                    std::future::poll_fn(|cx| sink.as_mut().poll_ready(cx)).await.map_err(StreamError::Store)?;
                    sink.start_send(piece).map_err(StreamError::Store)?;
                }
                Err(error) => {
                    self.cut_off().await;
                    return Err(StreamError::Source(error));
                }
            }
        }
        self.finish().await.map_err(StreamError::Store)
    }

    /// Lets the operation fail for want of content, and waits until it has.
    async fn cut_off(mut self) {
        let _ = std::future::poll_fn(|cx| self.poll_rest(cx)).await; // what came before counts
        self.sender.close();
        let _ = std::future::poll_fn(|cx| self.poll_work(cx)).await; // that it failed is known
    }

    /// Hands over what is left of the last piece.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.rest.is_empty() {
            if ready!(self.sender.poll_reserve(cx)).is_err() {
                return self.poll_refused(cx);
            }
            let piece = self.rest.split_to(self.rest.len().min(PIECE));
            if self.sender.send_item(Piece::Content(piece)).is_err() {
                return self.poll_refused(cx);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The reader is gone: the operation has failed, or has not read to the end, which is then not needed.
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_work(cx))?;
        self.rest.clear();
        Poll::Ready(Ok(()))
    }

    /// Waits for the operation to end.
    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Work::Running(task) = &mut self.work {
            self.work = Work::Done(Some(joined(ready!(Pin::new(task).poll(cx)))));
        }
        Poll::Ready(match &self.work {
            Work::Done(Some(Err(error))) => Err(error.clone()),
            _ => Ok(()),
        })
    }
}

impl<T> Unpin for ContentSink<T> {} // nothing in it is ever pinned

impl<T> Sink<Bytes> for ContentSink<T> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_rest(cx))?;
        // A slot is kept, so that the next piece goes out at once.
        match ready!(self.sender.poll_reserve(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => self.poll_refused(cx),
        }
    }

    fn start_send(mut self: Pin<&mut Self>, mut piece: Bytes) -> Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        let first = piece.split_to(piece.len().min(PIECE));
        // Where the reader is gone, the next `poll_ready` says why.
        let _ = self.sender.send_item(Piece::Content(first));
        self.rest = piece;
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_rest(cx)
    }

    /// Ends the content, and waits for the operation to end.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_rest(cx))?;
        if !self.ended {
            if ready!(self.sender.poll_reserve(cx)).is_ok() {
                let _ = self.sender.send_item(Piece::End); // where it is gone, so is the need to know
            }
            self.ended = true;
        }
        self.poll_work(cx)
    }
}

impl Read for ContentReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended && !buf.is_empty() {
            match self.receiver.blocking_recv() {
                Some(Piece::Content(piece)) => self.piece = piece,
                Some(Piece::End) => self.ended = true,
                None => return Err(cut_off()),
            }
        }
        let n = self.piece.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), self.piece.get(..n)) {
            to.copy_from_slice(from);
        }
        self.piece.advance(n);
        Ok(n)
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the content was cut off")
}

impl<T> fmt::Debug for ContentSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_running = matches!(self.work, Work::Running(_));
        f.debug_struct("ContentSink")
            .field("ended", &self.ended)
            .field("is_running", &is_running)
            .finish_non_exhaustive()
    }
}

/// Why a stream was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StreamError<E> {
    /// The stream failed: a client that went away, usually.
    #[error("cannot read the content to store: {0}")]
    Source(E),
    /// The store did.
    #[error(transparent)]
    Store(Error),
}
