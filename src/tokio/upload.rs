//! Appending to an upload from async code, without a thread while nothing comes.
//!
//! ```text
//!  write(pieces) ── permit of `writes` ──► a blocking thread: hash, write ──► back, with the upload's right to go on
//!  finish()      ── permit of `writes` ──► a blocking thread: sync, commit ─► where the upload stands
//! ```
//!
//! Between two calls the upload is nobody's but the [`UploadWriter`]'s, and no thread waits for the client: however many send slowly,
//! others are not kept from writing.

use std::ops::Deref;
use std::sync::Arc;

use ::tokio::runtime::Handle;
use ::tokio::sync::OwnedRwLockReadGuard;
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::id::UploadId;
use crate::registry::RepositoryName;
use crate::store::uploads::Appending;
use crate::store::{Inner, Store};
use crate::tokio::{AsyncStore, permit};

/// Small pieces are written together up to so many bytes: a copy is cheaper than a call of the system for each.
const TOGETHER: usize = 128 << 10;

/// Appends to an upload, some pieces at a time. Made by [`AsyncStore::upload_writer`].
///
/// What was written is durable when [`finish`](Self::finish) returns, and 256 MiB at a time before. Dropping the writer, or one of its futures,
/// leaves the upload where what was written ends: it can be continued there, as soon as that was made durable in the background;
/// until then other calls on the upload fail with [`Error::UploadBusy`].
#[must_use = "what it is given becomes durable when it is finished"]
#[derive(Debug)]
pub struct UploadWriter {
    store: AsyncStore,
    state: State,
}

enum State {
    /// Nothing was written.
    Unopened {
        repository: Option<RepositoryName>,
        id: UploadId,
        offset: u64,
    },
    Open(Open),
    /// A call is at work, or has failed.
    Closed,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unopened { .. } => "Unopened",
            Self::Open(_) => "Open",
            Self::Closed => "Closed",
        })
    }
}

/// An upload that is being written. Where it is dropped, what was written is made durable: that blocks.
struct Open {
    appending: Option<Appending<Owned>>,
    /// Keeps the store from being closed. Behind what uses the store: so it is dropped later.
    _guard: OwnedRwLockReadGuard<()>,
}

struct Owned(Arc<Store>);

impl Deref for Owned {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0.inner
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(appending) = self.appending.take() {
            let _ = appending.finish(); // what of it counts, the upload's status says
        }
    }
}

impl Open {
    fn begin(
        store: &Arc<Store>,
        guard: OwnedRwLockReadGuard<()>,
        repository: Option<&RepositoryName>,
        id: UploadId,
        offset: u64,
    ) -> Result<Self> {
        let owned = Owned(Arc::clone(store));
        let appending = match repository {
            Some(name) => Appending::begin(owned, id, offset, &store.repository(name)?),
            None => Appending::begin(owned, id, offset, &*store.inner),
        };
        Ok(Self { appending: Some(appending?), _guard: guard })
    }

    fn write(&mut self, pieces: &[Bytes]) -> Result<()> {
        let mut small = Vec::new();
        for piece in pieces {
            if small.len() + piece.len() <= TOGETHER {
                small.extend_from_slice(piece);
                continue;
            }
            self.append(&small)?;
            small.clear();
            match piece.len() {
                ..=TOGETHER => small.extend_from_slice(piece),
                _ => self.append(piece)?,
            }
        }
        self.append(&small)
    }

    fn append(&mut self, piece: &[u8]) -> Result<()> {
        let appending = self.appending.take().ok_or(Error::Closed)?;
        self.appending = Some(appending.write(piece)?);
        Ok(())
    }

    fn finish(mut self) -> Result<u64> {
        self.appending.take().ok_or(Error::Closed)?.finish()
    }

    fn discard(mut self) {
        if let Some(appending) = self.appending.take() {
            appending.discard();
        }
    }
}

impl AsyncStore {
    /// A writer that appends to an upload, of a repository or of the store itself (`None`), at `offset`. Nothing is done before something
    /// is written.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Options, tokio::AsyncStore};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
    /// # runtime.block_on(async {
    /// let id = store.call(|store| store.begin_upload(Algorithm::Sha256)).await?;
    /// let mut writer = store.upload_writer(None, id, 0);
    /// writer.write(["two ".into(), "pieces".into()]).await?;
    /// assert_eq!(writer.finish().await?, 10);
    /// # Ok(()) })
    /// # }
    /// ```
    pub fn upload_writer(&self, repository: Option<&RepositoryName>, id: UploadId, offset: u64) -> UploadWriter {
        let state = State::Unopened { repository: repository.cloned(), id, offset };
        UploadWriter { store: self.clone(), state }
    }
}

impl UploadWriter {
    /// Writes pieces, in their order. They take memory until this returns, and a thread while it runs.
    ///
    /// # Errors
    /// As [`Store::append_upload`], and [`Error::Closed`], which is what every call after an error comes to.
    pub async fn write(&mut self, pieces: impl Into<Vec<Bytes>>) -> Result<()> {
        let pieces = pieces.into();
        let open = self.step(move |mut open| open.write(&pieces).map(|()| open)).await?;
        self.state = State::Open(open);
        Ok(())
    }

    /// Makes durable what was written, and returns where the upload then stands.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn finish(self) -> Result<u64> {
        self.finish_with(Vec::new()).await
    }

    /// Forgets what was written: the upload stands where it was durable last, which is where it stood before if that was less than 256 MiB ago.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn discard(mut self) -> Result<()> {
        if let State::Unopened { .. } = self.state {
            return Ok(());
        }
        let discard = |open: Open| {
            open.discard();
            Ok(())
        };
        self.step(discard).await
    }

    /// Writes the last pieces, and finishes.
    pub(super) async fn finish_with(mut self, pieces: Vec<Bytes>) -> Result<u64> {
        let finish = move |mut open: Open| {
            open.write(&pieces)?;
            open.finish()
        };
        self.step(finish).await
    }

    /// Does something with the upload, off the runtime. Until its turn has come, dropping the future changes nothing.
    async fn step<T: Send + 'static>(&mut self, work: impl FnOnce(Open) -> Result<T> + Send + 'static) -> Result<T> {
        let shared = Arc::clone(&self.store.shared);
        let guard = match &self.state {
            State::Unopened { .. } => Some(Arc::clone(&shared.open_uploads).read_owned().await),
            State::Open(_) => None,
            State::Closed => return Err(Error::Closed),
        };
        let permit = permit(&shared.writes).await?;
        let state = std::mem::replace(&mut self.state, State::Closed);
        let work = move |store: &Arc<Store>| match (state, guard) {
            (State::Open(open), _) => work(open),
            (State::Unopened { repository, id, offset }, Some(guard)) => {
                work(Open::begin(store, guard, repository.as_ref(), id, offset)?)
            }
            _ => Err(Error::Closed),
        };
        self.store.run(permit, work).await
    }
}

impl Drop for UploadWriter {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        let (State::Open(open), Ok(runtime)) = (state, Handle::try_current()) else { return };
        let store = self.store.clone();
        runtime.spawn(async move {
            // Where there is no permit any more, or no runtime, it is made durable here.
            if let Ok(permit) = permit(&store.shared.writes).await {
                let flush = move |_: &Arc<Store>| {
                    drop(open);
                    Ok(())
                };
                let _ = store.run(permit, flush).await;
            }
        });
    }
}
