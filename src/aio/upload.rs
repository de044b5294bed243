//! Appending to an upload from async code, without occupying a thread while no content arrives.
//!
//! ```text
//!  write(pieces) ── permit of `writes` ──► a blocking thread: hash, write ──► back, with the upload's right to go on
//!  write_from()  ── permit of `writes` ──► the same, for as long as pieces come
//!  finish()      ── permit of `writes` ──► a blocking thread: sync, commit ─► where the upload stands
//! ```
//!
//! Between two calls only the [`UploadWriter`] can use the upload, and no thread waits for the client: slow clients,
//! however many, do not keep others from writing.

use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::OwnedRwLockReadGuard;

use crate::aio::AsyncStore;
use crate::aio::target::Target;
use crate::blobs::Appending;
use crate::error::{Error, Result};
use crate::id::UploadId;
use crate::sync::lock;

/// Appends to an upload, some pieces at a time. Made by `upload_writer` of [`AsyncStore`] and
/// [`AsyncRepository`](crate::aio::AsyncRepository).
///
/// Content is durable when [`finish`](Self::finish) returns, and each 256 MiB before that. Dropping the writer, or one
/// of its futures, keeps what was written: the upload can be continued there, as soon as that was made durable in the
/// background; until then other calls on the upload fail with [`Error::UploadBusy`].
///
/// Each writer keeps a file open from write to write, unless more uploads are being written than half of
/// [`Options::max_open_files`](crate::Options::max_open_files): each write is then durable when it returns, and the
/// upload is free until the next.
#[must_use = "what it is given becomes durable when it is finished"]
#[derive(Debug)]
pub struct UploadWriter {
    // In this order: the store is closed by the handle that is dropped last, off the runtime.
    state: Arc<Mutex<State>>,
    into: Target,
    store: AsyncStore,
    id: UploadId,
    room: Option<Room>,
    /// Gone where who sends the content is.
    sender: Option<Weak<()>>,
}

/// How much may be written.
#[derive(Clone, Copy, Debug)]
struct Room {
    limit: u64,
    left: u64,
}

impl Room {
    /// Takes room for pieces.
    fn take(room: &mut Option<Self>, pieces: &[Bytes]) -> Result<()> {
        let Some(Self { limit, left }) = room else { return Ok(()) };
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        *left = left.checked_sub(len).ok_or(Error::ContentTooLong { limit: *limit })?;
        Ok(())
    }
}

enum State {
    /// The upload is to stand here, or anywhere, and is nobody's.
    Unopened(Option<u64>),
    Open(Open),
    /// A call is at work, or has failed. One that waits for its turn has not taken it yet.
    Closed,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unopened(_) => "Unopened",
            Self::Open(_) => "Open",
            Self::Closed => "Closed",
        })
    }
}

/// An upload that is being written. Where it is dropped, what was written is made durable, off the runtime.
struct Open {
    unsaved: Option<Unsaved>,
    store: AsyncStore,
}

/// What was written. Where it is dropped, it is made durable: that blocks.
struct Unsaved {
    appending: Option<Appending<Target>>,
    /// Keeps the store from being closed. Behind what uses the store: so it is dropped later.
    _guard: OwnedRwLockReadGuard<()>,
}

impl Drop for Unsaved {
    fn drop(&mut self) {
        if let Some(appending) = self.appending.take() {
            let _ = appending.finish(); // what of it counts, the upload's status says
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let (Some(unsaved), Ok(runtime)) = (self.unsaved.take(), Handle::try_current()) else { return };
        let store = self.store.clone();
        runtime.spawn(async move {
            let flush = move || {
                drop(unsaved);
                Ok::<_, Error>(())
            };
            // Where there is no permit any more, or no runtime, it is made durable here.
            let _ = store.run(&store.shared.writes, flush).await;
        });
    }
}

impl Open {
    fn write(mut self, pieces: &[Bytes], room: &mut Option<Room>) -> Result<Self> {
        if let Err(too_long) = Room::take(room, pieces) {
            self.discard()?;
            return Err(too_long);
        }
        self.unsaved.as_mut().ok_or(Error::Closed)?.write(pieces)?;
        Ok(self)
    }

    fn finish(mut self) -> Result<u64> {
        self.unsaved.take().ok_or(Error::Closed)?.take()?.finish()
    }

    fn discard(mut self) -> Result<()> {
        self.unsaved.take().ok_or(Error::Closed)?.take().map(Appending::discard)
    }

    /// What the next write goes on with.
    fn rest(self) -> Result<State> {
        let appending = self.unsaved.as_ref().and_then(|unsaved| unsaved.appending.as_ref());
        if appending.is_some_and(Appending::is_in_the_way) {
            return Ok(State::Unopened(Some(self.finish()?)));
        }
        Ok(State::Open(self))
    }
}

impl Unsaved {
    fn write(&mut self, pieces: &[Bytes]) -> Result<()> {
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
        self.appending = Some(self.take()?.write(&pieces)?);
        Ok(())
    }

    fn take(&mut self) -> Result<Appending<Target>> {
        self.appending.take().ok_or(Error::Closed)
    }
}

impl UploadWriter {
    pub(super) fn new((into, store): (Target, &AsyncStore), id: UploadId, offset: Option<u64>) -> Self {
        let state = Arc::new(Mutex::new(State::Unopened(offset)));
        Self { state, into, store: store.without_guard(), id, room: None, sender: None }
    }

    /// Where the upload is to go on where it ends, and this is gone before the writer's turn has come, nothing is
    /// written: another request may have gone on by then.
    pub(super) fn sent_by(mut self, sender: &Arc<()>) -> Self {
        self.sender = Some(Arc::downgrade(sender));
        self
    }

    /// Takes at most so many bytes from now on. With more a write fails with [`Error::ContentTooLong`], and what is not
    /// durable yet is [discarded](Self::discard): the upload stands where it did before this writer, unless that has
    /// written 256 MiB, or is one of many. [Cancel](AsyncStore::cancel_upload) the upload where that is not wanted.
    pub fn limit(mut self, bytes: u64) -> Self {
        self.room = Some(Room { limit: bytes, left: bytes });
        self
    }

    /// Writes pieces, in order. They occupy memory until this returns, and a thread while it runs.
    ///
    /// # Errors
    /// As [`AsyncStore::append_upload`], and [`Error::Closed`], with which every call after an error fails.
    pub async fn write(&mut self, pieces: impl Into<Vec<Bytes>>) -> Result<()> {
        let mut pieces = pieces.into();
        self.write_from(move || std::mem::take(&mut pieces)).await
    }

    /// Writes the pieces that `next` returns, until it returns none. It is called on the thread that writes, and may
    /// block: so pieces that arrive fast are written without a pause. It occupies no other thread, and no thread at all
    /// while no pieces arrive if `next` returns none then.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_from(&mut self, mut next: impl FnMut() -> Vec<Bytes> + Send + 'static) -> Result<()> {
        let mut room = self.room;
        let write = move |mut open: Open| {
            loop {
                let pieces = next();
                if pieces.is_empty() {
                    return Ok((open.rest()?, room));
                }
                open = open.write(&pieces, &mut room)?;
            }
        };
        let (state, room) = self.step(write).await?;
        *lock(&self.state) = state;
        self.room = room;
        Ok(())
    }

    /// Makes what was written durable, and returns the upload's length.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn finish(self) -> Result<u64> {
        self.finish_with(Vec::new()).await
    }

    /// Discards what is not durable yet: the upload has the length that was last durable, which is its length before
    /// this writer if less than 256 MiB were written and few uploads are being written.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn discard(mut self) -> Result<()> {
        if matches!(*lock(&self.state), State::Unopened(_)) {
            return Ok(());
        }
        self.step(Open::discard).await
    }

    /// Writes the last pieces, and finishes.
    pub(super) async fn finish_with(mut self, pieces: Vec<Bytes>) -> Result<u64> {
        let mut room = self.room;
        self.step(move |open: Open| open.write(&pieces, &mut room)?.finish()).await
    }

    /// Does something with the upload, off the runtime. Until its turn has come, dropping the future changes nothing.
    async fn step<T: Send + 'static>(&mut self, work: impl FnOnce(Open) -> Result<T> + Send + 'static) -> Result<T> {
        let (store, id) = (self.store.clone(), self.id);
        let begins = match &*lock(&self.state) {
            // A store that is being closed waits for the uploads that are open, which may wait for this one.
            State::Unopened(_) => {
                let guard = Arc::clone(&store.shared.open_uploads).try_read_owned().map_err(|_| Error::Closed)?;
                Some((guard, self.into.clone()))
            }
            State::Open(_) => None,
            State::Closed => return Err(Error::Closed),
        };
        let (owner, sender, state) = (store.clone(), self.sender.clone(), Arc::clone(&self.state));
        let is_gone = move || sender.is_some_and(|sender| sender.strong_count() == 0);
        let work = move || {
            // A statement of its own: nobody on the runtime waits for a lock that is held during the work.
            let state = std::mem::replace(&mut *lock(&state), State::Closed);
            match (state, begins) {
                (State::Open(open), _) => work(open),
                (State::Unopened(offset), Some((guard, into))) => {
                    let appending = into.with(|to| Appending::begin(into.clone(), id, offset, to))?;
                    if offset.is_none() && is_gone() {
                        return appending.finish().and(Err(Error::Closed));
                    }
                    let unsaved = Some(Unsaved { appending: Some(appending), _guard: guard });
                    work(Open { unsaved, store: owner })
                }
                _ => Err(Error::Closed),
            }
        };
        store.run(&store.shared.writes, work).await
    }
}
