//! The store for async programs on tokio: the same calls, off the runtime; blobs as streams and readers, uploads as
//! sinks and writers. Feature `tokio`.
//!
//! The store is blocking and owns no runtime. [`AsyncStore`] and [`AsyncRepository`] have the calls of
//! [`Store`] and [`Repository`](crate::registry::Repository), but for [some](self#what-is-left-to-closures), and never
//! block the runtime:
//!
//! ```text
//!   async tasks                                        tokio's blocking threads
//!   put, tag, … call(work) ─ permit of `calls` ───────► the blocking call           one result back
//!   get, stat, … read(work)─ permit of `reads` ───────► the blocking call           one result back
//!   BlobStream, reader ───── permit of `reads` ───────► Blob::slice, a piece        one piece read ahead
//!   ContentSink, writer ──── permit of `writes` ──────► some pieces, then the next
//!   write(work) ─ 8 pieces ─ permit of `writes` ──────► put_reader, …               reads the pieces as they come
//! ```
//!
//! What holds for all of them:
//! - **Handles are owned**: `Clone + Send + Sync + 'static`, kept in maps, moved into tasks, held over an `.await`.
//!   When the last one is dropped the store is closed: on a thread of the runtime's where there is a runtime, so that
//!   dropping never blocks it (unless no thread can be started); on the spot where there is none.
//! - **Memory is bounded.** A stream holds two pieces of 256 KiB (none of its own with mapped reads), a sink at most
//!   eight that are not written yet and 512 KiB besides, and up to 1 MiB where it stores a blob; a source that is
//!   faster waits. An upload writer holds what it is given until that is written.
//! - **Threads are bounded** by [`Limits`]. Calls are short, and so are the steps of an upload: a client that sends
//!   slowly, or nothing, holds no thread. Only an operation of the program's own that [reads from a
//!   sink](AsyncStore::write) lasts as long as its source. All kinds together should stay below the runtime's
//!   `max_blocking_threads` (512 by default).
//! - **What is not polled holds no permit**: a stream, a reader, a writer or the future of a call waits for its permit
//!   in a task, which gives it back when the work is done, whether or not its program comes back for the result.
//! - **Reads never wait for writes.** A commit may wait: for a disk that does not answer, or for facts to be folded.
//!   Calls that only read, and streams, have permits of their own, and continue when all others wait.
//! - **Dropping a future leaves nothing half done.** Before its turn has come nothing was begun; a call that began runs
//!   to its end. Where a sink is dropped before [`finish`](ContentSink::finish), an upload keeps what arrived before,
//!   and can be continued; a blob that was being stored is not.
//! - After [`AsyncStore::close`], on a runtime that shuts down, or without a runtime, calls fail with
//!   [`Error::Closed`].
//!
//! ```
//! use futures_util::TryStreamExt;
//! use strongroom::aio::AsyncStore;
//! use strongroom::registry::RepositorySettings;
//! use strongroom::{Algorithm, Digest, Options};
//! use tokio::io::AsyncWriteExt;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
//! # runtime.block_on(async {
//! let app = store.create_repository(&"team/app".parse()?, RepositorySettings::new()).await?;
//! let layer = app.put("a layer", Algorithm::Sha256).await?;
//!
//! // An upload, at the pace of its client.
//! let id = app.begin_upload(Algorithm::Sha256).await?;
//! let mut sink = app.append_sink(id, None);
//! sink.write_all(b"two ").await?;
//! sink.write_all(b"pieces").await?;
//! assert_eq!(sink.finish().await?, 10);
//! let digest = Digest::of(Algorithm::Sha256, b"two pieces");
//! app.commit_upload(id, &digest).await?;
//!
//! // Blobs as a whole, and as streams.
//! assert_eq!(app.get(&layer.digest).await?.bytes().await?, "a layer");
//! let blob = app.get(&digest).await?;
//! assert_eq!(blob.stream(4..blob.len())?.try_collect::<Vec<_>>().await?, ["pieces"]);
//! store.close().await?;
//! # Ok(()) })
//! # }
//! ```
//!
//! # Which calls may be made on a thread of the runtime
//! A call costs a switch of threads and back: some 20 µs. [`AsyncStore::blocking`] and
//! [`AsyncRepository::blocking`] are the blocking handles, for calls that are shorter than that. On the runtime are
//! fine:
//! - what reads memory only: `name`, `last_lsn`, `damage`, `is_encrypted`, `domains`, `locked_domains`,
//!   `last_collection`, `with_durability`, `clone`, and [`Blob`]'s `len`, `digest` and `memory`: less than
//!   1 µs each;
//! - with care, look-ups of one fact: `repository`, `exists`, `stat`, `resolve`, `upload_status`: 1 to 5 µs where the
//!   facts are in memory. Facts that were folded into runs are read through the page cache, and from the disk where
//!   they are not in it: that takes as long as the disk does, which for a disk that hangs is for ever.
//!
//! All else may wait for the disk, for other commits or for maintenance. Dropping the last handle, or closing a store,
//! blocks as well: the async handles do it on another thread.
//!
//! # What is left to closures
//! These have no call here. [`AsyncStore::call`] and [`AsyncStore::read`] run them with what belongs to them, in one
//! switch of threads:
//! - [`Store::snapshot`], [`Repository::snapshot`](crate::registry::Repository::snapshot): reads that have to agree are
//!   made together, in one `read`. A snapshot keeps the store open, and dropping it may close it: drop it there as
//!   well.
//! - [`Store::blobs`], [`NamedFiles::iter`](crate::NamedFiles::iter): an iterator reads at each step. Take some of its
//!   items in a `read`, and move it into the next; named files also have pages
//!   ([`AsyncNamedFiles::list`]).
//! - [`Blob::verify`](crate::Blob::verify), and [`transfer`](crate::transfer).
//! - [`Store::repair`], which needs the only handle: call it before [`AsyncStore::new`].
//!
//! [`AsyncStore::wait_for_events`] waits without an end; it is dropped to end it.

mod arguments;
mod blob;
mod blocking;
mod call;
mod named;
mod reader;
mod repository;
mod sink;
mod store;
mod stream;
mod target;
mod upload;

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::{RwLock, Semaphore};

pub use blob::AsyncBlob;
pub use named::AsyncNamedFiles;
pub use reader::AsyncBlobReader;
pub use repository::AsyncRepository;
pub use sink::{ContentReader, ContentSink, StreamError};
pub use stream::BlobStream;
pub use upload::UploadWriter;

use crate::aio::blob::Opened;
use crate::aio::blocking::Threads;
use crate::aio::call::{Call, joined};
use crate::blobs::Blob;
use crate::error::{Error, Result};
use crate::log::Durability;
use crate::store::Store;

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

    /// How many steps of uploads, and of content that is stored from a stream, run at once, and how many [operations
    /// that read from a sink](AsyncStore::write), each from its first piece to its end; at least 1.
    pub fn writes(mut self, writes: u16) -> Self {
        self.writes = writes.max(1);
        self
    }
}

/// A handle to an open [`Store`] for async programs. It is cheap to clone, can be kept and sent to other tasks, and
/// keeps the store open; see the [module](self).
#[derive(Clone, Debug)]
pub struct AsyncStore {
    // In this order: of the handles to the store, the last one that is dropped is that of `shared`.
    store: Store,
    held: Held,
    shared: Arc<Shared>,
}

/// What the program wants to be held until a call has ended.
#[derive(Clone, Default)]
struct Held(#[expect(dead_code, reason = "held, not read")] Option<Arc<dyn Any + Send + Sync>>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

#[derive(Debug)]
struct Shared {
    /// The handle that closes the store, unless the program has others. None while this is dropped.
    last: Option<Store>,
    limits: Limits,
    calls: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    /// Held for reading by those to whose upload something was written that is not durable yet.
    open_uploads: Arc<RwLock<()>>,
    threads: Arc<Threads>,
}

impl Drop for Shared {
    /// Closing blocks: it is for a thread of the runtime's. Without a runtime, or a thread, the store is closed here.
    fn drop(&mut self) {
        let last = self.last.take();
        let _ = self.threads.spawn(move || drop(last));
    }
}

impl AsyncStore {
    /// A store with the default [`Limits`].
    pub fn new(store: Store) -> Self {
        Self::with_limits(store, Limits::new())
    }

    /// A store with limits. They count for all handles that are made of this one.
    pub fn with_limits(store: Store, limits: Limits) -> Self {
        let shared = Shared {
            last: Some(store.clone()),
            limits,
            calls: Arc::new(Semaphore::new(limits.calls.into())),
            reads: Arc::new(Semaphore::new(limits.reads.into())),
            writes: Arc::new(Semaphore::new(limits.writes.into())),
            open_uploads: Arc::default(),
            threads: Threads::new(),
        };
        Self { store, held: Held::default(), shared: Arc::new(shared) }
    }

    /// The blocking store, for calls that may be made on a thread of the runtime: see [which those
    /// are](self#which-calls-may-be-made-on-a-thread-of-the-runtime).
    ///
    /// ```
    /// # use strongroom::{Options, aio::AsyncStore};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
    /// let now = store.blocking().last_lsn();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn blocking(&self) -> &Store {
        &self.store
    }

    /// The same store, whose writes through the new handle return when this says: [`Store::with_durability`].
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self { store: self.store.with_durability(durability), ..self.clone() }
    }

    /// The same store, whose calls through the new handle, and through repositories that it opens, hold something until
    /// they have ended, also where their future was dropped and the call runs on: the turn of a client, a permit, a
    /// counter. What lasts as long as its client wants does not hold it: blobs, streams, sinks and writers.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use strongroom::{Algorithm, Options, aio::AsyncStore};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
    /// # runtime.block_on(async {
    /// let turns = Arc::new(tokio::sync::Semaphore::new(10)); // of one client
    /// let turn = turns.clone().acquire_owned().await?;
    /// store.holding(turn).put("content", Algorithm::Sha256).await?;
    /// # Ok(()) })
    /// # }
    /// ```
    pub fn holding(&self, guard: impl Any + Send + Sync) -> Self {
        Self { held: Held(Some(Arc::new(guard))), ..self.clone() }
    }

    /// The same store, for what lasts.
    fn without_guard(&self) -> Self {
        Self { held: Held::default(), ..self.clone() }
    }

    /// Runs a blocking operation off the runtime, once fewer than [`Limits::calls`] run: for what has no call of its
    /// own here, and for several calls in one go. `work` gets the blocking handle, which it may clone, and fails with
    /// any error that is made from the store's.
    ///
    /// Dropping the future before the operation began cancels it; once it began, it runs to its end. A panic of `work`
    /// is passed on to the caller.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Options, aio::AsyncStore};
    /// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
    /// # runtime.block_on(async {
    /// let document = store
    ///     .call(|store| {
    ///         let stored = store.put("a document", Algorithm::Sha256)?;
    ///         // An error that is not the store's.
    ///         let text = String::from_utf8(store.get(&stored.digest)?.bytes()?.into())?;
    ///         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(text)
    ///     })
    ///     .await?;
    /// assert_eq!(document, "a document");
    /// # Ok(()) })
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `work`; [`Error::Closed`]; [`Error::Io`] where the runtime can't start a thread for it, of which
    /// [`Error::is_shortage`] is true.
    pub async fn call<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let store = self.store.clone();
        self.run(&self.shared.calls, move || work(&store)).await
    }

    /// Runs a blocking operation that only reads, off the runtime, once fewer than [`Limits::reads`] run. It does not
    /// wait for [calls](Self::call), however long those take.
    ///
    /// `work` must not change anything: a commit may wait as long as calls do, and other reads would wait for it.
    /// Opening blobs, looking up, listing and [pulling manifests](crate::registry::Repository::pull_manifest) are
    /// reads; [claiming](crate::registry::Repository::claim) is not.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn read<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let store = self.store.clone();
        self.run(&self.shared.reads, move || work(&store)).await
    }

    /// Opens the blob that a blocking [`read`](Self::read) finds. One of up to 64 KiB is read in the same switch of
    /// threads.
    ///
    /// ```
    /// # use strongroom::registry::{RepositoryName, RepositorySettings};
    /// # use strongroom::{Algorithm, Error, Options, aio::AsyncStore};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
    /// # runtime.block_on(async {
    /// let name: RepositoryName = "team/app".parse()?;
    /// # let app = store.create_repository(&name, RepositorySettings::new()).await?;
    /// # let digest = app.put("a layer", Algorithm::Sha256).await?.digest;
    /// let blob = store.open_blob(move |store| store.repository(&name)?.get(&digest)).await?;
    /// assert_eq!(blob.bytes().await?, "a layer");
    /// # Ok(()) })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn open_blob<E: From<Error> + Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<Blob, E> + Send + 'static,
    ) -> Result<AsyncBlob, E> {
        let opened = self.read(|store| work(store).map(Opened::from)).await?;
        Ok(AsyncBlob::opened(self, opened))
    }

    /// Waits for the operations that are running, and closes the store for all its handles: [`Store::close`]. From when
    /// this is called, other calls wait, and finally fail with [`Error::Closed`]; uploads to which nothing was written
    /// yet fail at once. Idle streams and sinks need not be dropped before.
    ///
    /// It waits for sinks whose source has not ended, and for uploads that are being written: drop those, where that
    /// may take long.
    ///
    /// # Errors
    /// As [`Store::close`], the second time none; [`Error::Io`] where no thread can be started for it: the store stays
    /// open then.
    pub async fn close(&self) -> Result<()> {
        let runtime = Handle::try_current().map_err(|_| Error::Closed)?;
        let store = self.without_guard();
        let mut closing = Box::pin(async move { Some(store.close_when_idle().await) });
        // It begins at once, so that later calls come behind it, and goes on in a task, also where this is not polled.
        match poll_fn(|cx| Poll::Ready(closing.as_mut().poll(cx))).await {
            Poll::Ready(done) => joined(Ok(done)),
            Poll::Pending => Call::new(runtime.spawn(closing)).await,
        }
    }

    async fn close_when_idle(&self) -> Result<()> {
        let Shared { limits, calls, reads, writes, open_uploads, threads, .. } = &*self.shared;
        // There are none where somebody else closes it: that is waited for below.
        // First of all: their steps need permits.
        let _uploads = open_uploads.write().await;
        let _writes = writes.acquire_many(limits.writes.into()).await;
        let permits = Arc::clone(calls).acquire_many_owned(limits.calls.into()).await;
        // Last of all: reads go on until all writes have ended.
        let _reads = reads.acquire_many(limits.reads.into()).await;
        threads.check()?; // else it stays open, and can be closed later
        calls.close();
        reads.close();
        writes.close();
        let store = self.store.clone();
        let close = move || {
            let _permits = permits;
            store.close()
        };
        joined(threads.spawn(close)?.await)
    }
}
