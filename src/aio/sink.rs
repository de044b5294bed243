//! Content that arrives in async pieces.
//!
//! ```text
//!                                                     ┌─► UploadWriter: a step each time that something has come
//!  ContentSink ── PollSender ─ 8 pieces ─ Receiver ──►┼─► put: at once what is short, an upload for what is not
//!  send, write, finish                                └─► ContentReader ──► work(&Store, reader), on a blocking thread
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
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio_util::sync::PollSender;

use crate::aio::call::joined;
use crate::aio::target::{Put, Target};
use crate::aio::{AsyncStore, PIECE, UploadWriter};
use crate::blobs::source_failed;
use crate::error::{Error, Result};
use crate::log::Durability;
use crate::store::Store;

/// How many pieces may wait for the reader: enough that neither side waits for the other's every step.
const WAITING: usize = 8;

/// So much that was written in small parts is gathered before it is handed over.
const GATHERED: usize = 64 << 10;

/// A blob that is no longer is stored in one step, once all of it has come.
const AT_ONCE: usize = 1 << 20;

/// What goes from the sink to the reader.
#[derive(Debug)]
enum Piece {
    /// At most [`PIECE`] bytes, and not empty.
    Content(Bytes),
    /// That was all.
    End,
    /// There was more than this limit.
    TooLong(u64),
}

/// How what came together ends.
enum Ending {
    GoesOn,
    Ended,
    /// The sink was dropped.
    CutOff,
    TooLong(u64),
}

/// A [`Sink`] and an [`AsyncWrite`] for content, which an operation of the store takes. Made by `append_sink` and
/// `put_sink` of [`AsyncStore`] and [`AsyncRepository`](crate::aio::AsyncRepository), and by [`AsyncStore::write`].
///
/// At most eight pieces of at most 256 KiB wait for the operation, besides what is left of the one given last, and what
/// was written in parts of less than 64 KiB, which are gathered; then the sink is not ready. Flushing hands everything
/// over, and says nothing about what is durable.
///
/// [`finish`](Self::finish) ends the content, and returns the operation's result; so does shutting the writer down,
/// except for the result. Where a sink is dropped before, the content is cut off, and the operation fails. If the
/// operation fails early, sending fails with its error, and so does [`finish`](Self::finish). Once closing or shutting
/// down was begun, sending fails with [`Error::Closed`], and writing with [`io::ErrorKind::BrokenPipe`].
#[must_use = "dropping it cuts the content off"]
pub struct ContentSink<T> {
    sender: PollSender<Piece>,
    /// What of the last piece is still to be sent.
    rest: Bytes,
    /// What was written after that.
    gathered: BytesMut,
    limit: Option<u64>,
    taken: u64,
    stage: Stage,
    work: Work<T>,
    /// Who has it knows whether this is still there.
    _alive: Arc<()>,
}

/// How far the content has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Coming,
    /// The end was asked for: nothing comes behind what was taken before.
    Ending,
    /// The operation has been told of the end.
    Ended,
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
    /// A sink for an operation of the program's own that reads content. It begins with the first piece, once fewer than
    /// [`Limits::writes`](super::Limits::writes) run, and holds a thread until it ends.
    ///
    /// Its error is the store's, since sending fails with it. An operation with errors of its own returns those as its
    /// value: `Ok(result)`. What is sent after it has ended goes nowhere then, and `finish` gives its result.
    ///
    /// ```
    /// # use futures_util::SinkExt;
    /// # use strongroom::{Algorithm, Options, aio::AsyncStore};
    /// # use std::io::Read;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
    /// # runtime.block_on(async {
    /// let mut sink = store.write(|store, content| store.put_reader(content.take(100), Algorithm::Sha256));
    /// sink.send("content".into()).await?;
    /// assert_eq!(sink.finish().await?.len, 7);
    /// # Ok(()) })
    /// # }
    /// ```
    pub fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, ContentReader) -> Result<T> + Send + 'static,
    ) -> ContentSink<T> {
        let (sender, mut receiver) = channel(WAITING);
        let store = self.without_guard();
        let write = async move {
            // No thread is held before there is something to write.
            let (piece, ended) = match receiver.recv().await {
                Some(Piece::Content(piece)) => (piece, false),
                Some(Piece::End) => (Bytes::new(), true),
                Some(Piece::TooLong(limit)) => return Err(Error::ContentTooLong { limit }),
                None => return Err(cut_off()),
            };
            let reader = ContentReader { receiver, piece, ended };
            let blocking = store.blocking().clone();
            store.run(&store.shared.writes, move || work(&blocking, reader)).await
        };
        ContentSink::new(sender, write)
    }
}

impl ContentSink<u64> {
    /// A sink that writes what is sent to an upload: each time what is there.
    pub(super) fn append(writer: UploadWriter) -> Self {
        let (sender, mut receiver) = channel(WAITING);
        let alive = Arc::new(());
        let mut writer = writer.sent_by(&alive);
        let append = async move {
            loop {
                let (pieces, ending) = receive(&mut receiver).await;
                match ending {
                    Ending::GoesOn => writer.write(pieces).await?,
                    Ending::Ended => return writer.finish_with(pieces).await,
                    Ending::CutOff => {
                        writer.finish().await?; // what came before counts
                        return Err(cut_off());
                    }
                    Ending::TooLong(limit) => {
                        writer.discard().await?;
                        return Err(Error::ContentTooLong { limit });
                    }
                }
            }
        };
        Self { _alive: alive, ..Self::new(sender, append) }
    }
}

impl<T: Send + 'static> ContentSink<T> {
    /// A sink whose content becomes a blob, or a named file.
    pub(super) fn put((target, store): (Target, &AsyncStore), put: impl Put<Done = T>) -> Self {
        let (sender, mut receiver) = channel(WAITING);
        let store = store.without_guard();
        let work = async move {
            let (store, target, put) = (store, target, put); // in this order: what is declared later is dropped first
            let (mut pieces, mut len) = (Vec::new(), 0);
            loop {
                let (more, ending) = receive(&mut receiver).await;
                len += more.iter().map(Bytes::len).sum::<usize>();
                pieces.extend(more);
                match ending {
                    Ending::Ended if len <= AT_ONCE => {
                        return store.run(&store.shared.writes, move || put.put(&target, &joint(&pieces))).await;
                    }
                    Ending::GoesOn if len <= AT_ONCE => {}
                    Ending::GoesOn | Ending::Ended => {
                        let ended = matches!(ending, Ending::Ended);
                        return put_long((target, &store), put, (pieces, ended, receiver)).await;
                    }
                    Ending::CutOff => return Err(cut_off()),
                    Ending::TooLong(limit) => return Err(Error::ContentTooLong { limit }),
                }
            }
        };
        Self::new(sender, work)
    }
}

/// Stores long content by way of an upload, first what has come.
async fn put_long<P: Put>(
    (target, store): (Target, &AsyncStore),
    put: P,
    (first, ended, mut receiver): (Vec<Bytes>, bool, Receiver<Piece>),
) -> Result<P::Done> {
    // Nobody else knows of the upload: only the commit that ends it has to be as durable as is wanted.
    let begins = target.with_durability(Durability::Relaxed);
    let (uploads, algorithm) = (begins.clone(), put.algorithm());
    let writes = &store.shared.writes;
    let id = store.run(writes, move || uploads.begin_upload(algorithm)).await?;
    let cancels = target.clone();
    let stored = async {
        let mut writer = UploadWriter::new((begins, store), id, None);
        let (mut pieces, mut ending) = (first, if ended { Ending::Ended } else { Ending::GoesOn });
        loop {
            match ending {
                Ending::GoesOn => writer.write(pieces).await?,
                Ending::Ended => break,
                Ending::CutOff => return Err(cut_off()),
                Ending::TooLong(limit) => return Err(Error::ContentTooLong { limit }),
            }
            (pieces, ending) = receive(&mut receiver).await;
        }
        writer.finish_with(pieces).await?;
        store.run(writes, move || put.commit(&target, id)).await
    };
    let stored = stored.await;
    if stored.is_err() {
        let _ = store.run(writes, move || cancels.cancel_upload(id)).await; // where this fails, it expires
    }
    stored
}

/// What is there, or what comes next.
async fn receive(receiver: &mut Receiver<Piece>) -> (Vec<Bytes>, Ending) {
    let mut sent = Vec::with_capacity(WAITING);
    receiver.recv_many(&mut sent, WAITING).await;
    let ending = if sent.is_empty() { Ending::CutOff } else { Ending::GoesOn };
    let mut pieces = Vec::with_capacity(sent.len());
    for piece in sent {
        match piece {
            Piece::Content(piece) => pieces.push(piece),
            Piece::End => return (pieces, Ending::Ended),
            Piece::TooLong(limit) => return (pieces, Ending::TooLong(limit)),
        }
    }
    (pieces, ending)
}

/// Pieces as one.
fn joint(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [piece] => piece.clone(),
        pieces => pieces.concat().into(),
    }
}

impl<T: Send + 'static> ContentSink<T> {
    fn new(sender: Sender<Piece>, work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        let work = match Handle::try_current() {
            Ok(runtime) => Work::Running(runtime.spawn(work)),
            Err(_) => Work::Done(Some(Err(Error::Closed))),
        };
        let (rest, gathered) = (Bytes::new(), BytesMut::new());
        let sender = PollSender::new(sender);
        Self { sender, rest, gathered, limit: None, taken: 0, stage: Stage::Coming, work, _alive: Arc::default() }
    }
}

impl<T> ContentSink<T> {
    /// Takes at most so many bytes. With more the operation fails with [`Error::ContentTooLong`], and nothing of it
    /// counts: no blob is stored, and an upload has the length that was last durable, as after
    /// [`UploadWriter::discard`].
    pub fn limit(mut self, bytes: u64) -> Self {
        self.limit = Some(bytes);
        self
    }

    /// Ends the content, and waits for the operation's result.
    ///
    /// Dropping this future either cuts the content off, or, where the end was handed over already, lets the operation
    /// run to its end.
    ///
    /// # Errors
    /// Those of the operation, and [`Error::Closed`].
    pub async fn finish(mut self) -> Result<T> {
        std::future::poll_fn(|cx| self.poll_end(cx)).await?;
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

    /// Sends all that a reader yields, and [finishes](Self::finish).
    ///
    /// # Errors
    /// [`Error::Source`] where the reader fails: what came before is then stored as far as it counts, as for
    /// [`send_stream`](Self::send_stream); otherwise those of the operation.
    pub async fn send_reader(mut self, reader: impl AsyncRead) -> Result<T> {
        let mut reader = pin!(reader);
        let mut scratch = vec![0; GATHERED];
        loop {
            let mut read = ReadBuf::new(&mut scratch);
            if let Err(error) = std::future::poll_fn(|cx| reader.as_mut().poll_read(cx, &mut read)).await {
                self.cut_off().await;
                return Err(source_failed(error));
            }
            let mut rest = read.filled();
            if rest.is_empty() {
                return self.finish().await;
            }
            while !rest.is_empty() {
                let taken = std::future::poll_fn(|cx| self.poll_gather(cx, rest)).await?;
                rest = rest.get(taken..).unwrap_or_default();
            }
        }
    }

    /// Lets the operation fail for want of content, and waits until it has.
    async fn cut_off(mut self) {
        let _ = std::future::poll_fn(|cx| self.poll_rest(cx)).await; // what came before counts
        self.sender.abort_send(); // room that was kept for a piece keeps the channel open
        self.sender.close();
        let _ = std::future::poll_fn(|cx| self.poll_work(cx)).await; // that it failed is known
    }

    /// Hands over what is left of the last piece, and what was gathered after it.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            if self.rest.is_empty() {
                if self.gathered.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                self.rest = self.gathered.split().freeze();
            }
            if ready!(self.sender.poll_reserve(cx)).is_err() {
                return self.poll_refused(cx);
            }
            let piece = self.rest.split_to(self.rest.len().min(PIECE));
            if self.sender.send_item(Piece::Content(piece)).is_err() {
                return self.poll_refused(cx);
            }
        }
    }

    /// Fails once the end was asked for.
    fn check_coming(&self) -> Result<()> {
        if self.stage == Stage::Coming { Ok(()) } else { Err(Error::Closed) }
    }

    /// Waits until there is room for a piece, which is then kept: so the piece goes out at once.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_rest(cx))?;
        match ready!(self.sender.poll_reserve(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => self.poll_refused(cx),
        }
    }

    /// Takes the front of what was written. What waits to be handed over is bounded by a piece.
    fn poll_gather(&mut self, cx: &mut Context<'_>, content: &[u8]) -> Poll<Result<usize>> {
        let is_over = |limit: u64| self.taken.saturating_add(content.len() as u64) > limit;
        if self.limit.is_some_and(is_over) {
            ready!(self.poll_room(cx))?;
            self.give_up();
            return Poll::Ready(Ok(content.len())); // the next call says why
        }
        let room = PIECE.saturating_sub(self.gathered.len());
        if self.gathered.len() >= GATHERED || room == 0 {
            match self.poll_room(cx) {
                Poll::Pending if room == 0 => return Poll::Pending,
                Poll::Pending => {}
                Poll::Ready(done) => done?,
            }
        }
        let room = PIECE.saturating_sub(self.gathered.len());
        let front = content.get(..room).unwrap_or(content);
        self.gathered.extend_from_slice(front);
        self.taken += front.len() as u64;
        Poll::Ready(Ok(front.len()))
    }

    /// Tells that there is more content than may be, by the piece that there is room for.
    fn give_up(&mut self) {
        let limit = self.limit.unwrap_or_default();
        let _ = self.sender.send_item(Piece::TooLong(limit)); // where it is gone, so is the need to know
        self.sender.close();
    }

    /// The reader is gone: the operation has failed, or has not read to the end, which is then not needed.
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_work(cx))?;
        self.rest.clear();
        self.gathered.clear();
        Poll::Ready(Ok(()))
    }

    /// Waits for the operation to end.
    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Work::Running(task) = &mut self.work {
            self.work = Work::Done(Some(joined(ready!(Pin::new(task).poll(cx)).map(Some))));
        }
        Poll::Ready(match &self.work {
            Work::Done(Some(Err(error))) => Err(error.clone()),
            _ => Ok(()),
        })
    }

    /// Ends the content, and waits for the operation to end.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.stage == Stage::Coming {
            self.stage = Stage::Ending;
        }
        ready!(self.poll_rest(cx))?;
        if self.stage == Stage::Ending {
            if ready!(self.sender.poll_reserve(cx)).is_ok() {
                let _ = self.sender.send_item(Piece::End); // where it is gone, so is the need to know
            }
            self.stage = Stage::Ended;
        }
        self.poll_work(cx)
    }
}

impl<T> Unpin for ContentSink<T> {} // nothing in it is ever pinned

impl<T> Sink<Bytes> for ContentSink<T> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.check_coming()?;
        self.poll_room(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, mut piece: Bytes) -> Result<()> {
        self.check_coming()?;
        self.taken = self.taken.saturating_add(piece.len() as u64);
        if self.limit.is_some_and(|limit| self.taken > limit) {
            self.give_up();
            return Ok(());
        }
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

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_end(cx)
    }
}

/// Errors are those of the sink, each in an [`io::Error`].
impl<T> AsyncWrite for ContentSink<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, content: &[u8]) -> Poll<io::Result<usize>> {
        self.check_coming().map_err(|ended| io::Error::new(io::ErrorKind::BrokenPipe, ended))?;
        self.poll_gather(cx, content).map_err(io::Error::other)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_rest(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx).map_err(io::Error::other)
    }
}

impl Read for ContentReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended && !buf.is_empty() {
            match self.receiver.blocking_recv() {
                Some(Piece::Content(piece)) => self.piece = piece,
                Some(Piece::End) => self.ended = true,
                Some(Piece::TooLong(limit)) => return Err(io::Error::other(Error::ContentTooLong { limit })),
                None => return Err(is_cut_off()),
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

fn is_cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the content was cut off")
}

fn cut_off() -> Error {
    source_failed(is_cut_off())
}

impl<T> fmt::Debug for ContentSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_running = matches!(self.work, Work::Running(_));
        f.debug_struct("ContentSink")
            .field("stage", &self.stage)
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
