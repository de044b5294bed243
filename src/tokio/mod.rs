//! Adapters for async programs: calls off the runtime, blobs as streams, uploads as sinks. Feature `tokio`.
//!
//! The store is blocking and owns no runtime. An [`AsyncStore`] lets programs on tokio use it without ever blocking
//! theirs:
//!
//! ```text
//!   async tasks                                        tokio's blocking threads
//!   call(work) ──────────── permit of `calls` ───────► work(&Store)             one result back
//!   read(work) ──────────── permit of `reads` ───────► work(&Store)             one result back
//!   BlobStream ──────────── permit of `reads` ───────► Blob::slice, a piece     one piece read ahead
//!   ContentSink ─ 8 pieces ─ permit of `writes` ─────► put_reader, …            reads the pieces as they come
//!   UploadWriter ─────────── permit of `writes` ─────► some pieces of an upload, then the next
//! ```
//!
//! What holds for all of them:
//! - **Memory is bounded.** A stream holds two pieces of 256 KiB (none of its own with mapped reads), a sink holds at
//!   most eight that are not written yet; a source that is faster waits. An upload writer holds what it is given until
//!   that is written.
//! - **Threads are bounded** by [`Limits`]. Calls are short, and so are the steps of an upload: a client that sends
//!   slowly, or nothing, holds no thread. An operation that [reads from a sink](AsyncStore::write) lasts as long as its
//!   source, so it has permits of its own: slow clients never make calls wait. All kinds together should stay below the
//!   runtime's `max_blocking_threads` (512 by default).
//! - **Reads never wait for writes.** A commit may wait: for a disk that does not answer, or for facts to be folded.
//!   [Reads](AsyncStore::read) and streams have permits of their own, and continue when all calls wait.
//! - **Dropping a future leaves nothing half done.** A call that began runs to its end. Where a sink is dropped before
//!   [`finish`](ContentSink::finish), its write fails with [`Error::Source`], as where a reader fails: an upload keeps
//!   what arrived before, and can be continued.
//! - After [`AsyncStore::close`], on a runtime that shuts down, or without a runtime, calls fail with
//!   [`Error::Closed`].
//!
//! ```
//! use futures_util::{SinkExt, TryStreamExt};
//! use strongroom::tokio::AsyncStore;
//! use strongroom::{Algorithm, Digest, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
//! # runtime.block_on(async {
//! let id = store.call(|store| store.begin_upload(Algorithm::Sha256)).await?;
//! let mut sink = store.append_upload(None, id, 0);
//! sink.send("two ".into()).await?;
//! sink.send("pieces".into()).await?;
//! assert_eq!(sink.finish().await?, 10);
//!
//! let digest = Digest::of(Algorithm::Sha256, b"two pieces");
//! store.call(move |store| store.commit_upload(id, &digest)).await?;
//! let stream = store.open(move |store| store.get(&digest).map(|blob| (blob, 4..10))).await?;
//! assert_eq!(stream.remaining(), 6);
//! assert_eq!(stream.try_collect::<Vec<_>>().await?, ["pieces"]);
//! store.close().await?;
//! # Ok(()) })
//! # }
//! ```

mod blocking;
mod sink;
mod stream;
mod upload;

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use ::tokio::runtime::Handle;
use ::tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore};
use ::tokio::task::JoinError;

pub use sink::{ContentReader, ContentSink, StreamError};
pub use stream::BlobStream;
pub use upload::UploadWriter;

use crate::error::{Error, Result};
use crate::store::Store;
use crate::sync::lock;
use crate::tokio::blocking::Threads;

/// The largest piece of content that is read or passed on at a time, in bytes.
const PIECE: usize = 256 << 10;

/// How many operations run at once. See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Limits {
    calls: u16,
    reads: u16,
    writes: u16,
}

impl Default for Limits {
    /// 64 calls, 64 reads and 256 writes.
    fn default() -> Self {
        Self { calls: 64, reads: 64, writes: 256 }
    }
}

impl Limits {
    /// The default limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many [calls](AsyncStore::call) run at once; at least 1. Commits that wait at the same time share a sync, so
    /// more than there are cores help.
    pub fn calls(mut self, calls: u16) -> Self {
        self.calls = calls.max(1);
        self
    }

    /// How many [reads](AsyncStore::read) run at once, those of streams included; at least 1. A read that is not in
    /// memory waits for the disk, so more than there are cores help.
    pub fn reads(mut self, reads: u16) -> Self {
        self.reads = reads.max(1);
        self
    }

    /// How many [operations that read from a sink](AsyncStore::write) run at once, each from its first piece to its
    /// end, and how many steps of uploads; at least 1.
    pub fn writes(mut self, writes: u16) -> Self {
        self.writes = writes.max(1);
        self
    }
}

/// A [`Store`] for async programs. Cheap to clone; see the [module](self).
#[derive(Clone, Debug)]
pub struct AsyncStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// None once closed.
    store: Mutex<Option<Arc<Store>>>,
    limits: Limits,
    calls: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    /// Held for reading by those to whose upload something was written that is not durable yet.
    open_uploads: Arc<RwLock<()>>,
    threads: Arc<Threads>,
}

impl AsyncStore {
    /// A store with the default [`Limits`]. Takes a [`Store`], or an `Arc` of one that the program uses elsewhere too.
    pub fn new(store: impl Into<Arc<Store>>) -> Self {
        Self::with_limits(store, Limits::new())
    }

    /// A store with limits.
    pub fn with_limits(store: impl Into<Arc<Store>>, limits: Limits) -> Self {
        let shared = Shared {
            store: Mutex::new(Some(store.into())),
            limits,
            calls: Arc::new(Semaphore::new(limits.calls.into())),
            reads: Arc::new(Semaphore::new(limits.reads.into())),
            writes: Arc::new(Semaphore::new(limits.writes.into())),
            open_uploads: Arc::default(),
            threads: Threads::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Runs a blocking operation off the runtime, once fewer than [`Limits::calls`] run.
    ///
    /// Dropping the future before the operation began cancels it; once it began, it runs to its end. A panic of `work`
    /// is passed on to the caller.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Closed`]; [`Error::Io`] where the runtime can't start a thread for it, of which
    /// [`Error::is_shortage`] is true.
    pub async fn call<T: Send + 'static>(&self, work: impl FnOnce(&Store) -> Result<T> + Send + 'static) -> Result<T> {
        let permit = permit(&self.shared.calls).await?;
        self.run(permit, |store| work(store)).await
    }

    /// Runs a blocking operation that only reads, off the runtime, once fewer than [`Limits::reads`] run. It does not
    /// wait for [calls](Self::call), however long those take.
    ///
    /// `work` must not change anything: a commit may wait as long as calls do, and other reads would wait for it.
    /// Opening blobs, looking up, listing and [pulling manifests](crate::registry::Repository::pull_manifest) are
    /// reads; [claiming](crate::registry::Repository::claim) is not.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Options, tokio::AsyncStore};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
    /// # runtime.block_on(async {
    /// assert!(store.read(|store| store.repositories(None, 100)).await?.items.is_empty());
    /// # Ok(()) })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn read<T: Send + 'static>(&self, work: impl FnOnce(&Store) -> Result<T> + Send + 'static) -> Result<T> {
        let permit = permit(&self.shared.reads).await?;
        self.run(permit, |store| work(store)).await
    }

    /// Runs blocking work that has its permit.
    async fn run<T: Send + 'static>(
        &self,
        permit: OwnedSemaphorePermit,
        work: impl FnOnce(&Arc<Store>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = lock(&self.shared.store).clone().ok_or(Error::Closed)?;
        let task = self.shared.threads.spawn(move || {
            let result = work(&store);
            // In this order: a holder of all permits knows that nothing else has the store.
            drop(store);
            drop(permit);
            result
        })?;
        joined(task.await.map(unless_taken_back))
    }

    /// Waits for the operations that are running, and closes the store: [`Store::close`]. From when this is called,
    /// other calls wait, and finally fail with [`Error::Closed`]; uploads to which nothing was written yet fail at
    /// once. Idle streams and sinks need not be dropped before.
    ///
    /// It waits for sinks whose source has not ended, and for uploads that are being written: drop those, where that
    /// may take long. If the program has the store in an `Arc` elsewhere too, this only [syncs](Store::sync) it; it is
    /// closed when the last `Arc` is dropped.
    ///
    /// # Errors
    /// As [`Store::close`]; [`Error::Closed`] the second time; [`Error::Io`] where no thread can be started for it: the
    /// store stays open then.
    pub async fn close(&self) -> Result<()> {
        let Shared { store, limits, calls, reads, writes, open_uploads, threads } = &*self.shared;
        Handle::try_current().map_err(|_| Error::Closed)?;
        let gone = |_| Error::Closed;
        // First of all: their steps need permits.
        let _uploads = open_uploads.write().await;
        let _writes = writes.acquire_many(limits.writes.into()).await.map_err(gone)?;
        let permits = Arc::clone(calls).acquire_many_owned(limits.calls.into()).await.map_err(gone)?;
        // Last of all: reads go on until all writes have ended.
        let _reads = reads.acquire_many(limits.reads.into()).await.map_err(gone)?;
        threads.check()?; // else it stays open, and can be closed later
        calls.close();
        reads.close();
        writes.close();
        let store = lock(store).take().ok_or(Error::Closed)?;
        let close = move || {
            let _permits = permits;
            Store::clone(&store).close()
        };
        joined(threads.spawn(close)?.await.map(unless_taken_back))
    }
}

/// A permit, or the news that the store was closed.
async fn permit(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    Arc::clone(of).acquire_owned().await.map_err(|_| Error::Closed)
}

/// What work came to that was given to a thread: it is taken back only where that failed.
fn unless_taken_back<T>(done: Option<Result<T>>) -> Result<T> {
    done.unwrap_or(Err(Error::Closed))
}

/// The result of a task. Only a runtime that shuts down cancels one, and blocking ones before they begin only.
fn joined<T>(result: Result<Result<T>, JoinError>) -> Result<T> {
    match result.map_err(JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_cancelled)) => Err(Error::Closed),
    }
}
