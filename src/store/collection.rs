//! Garbage collection: the calls of a store.

use std::ops::ControlFlow;
use std::time::Duration;

#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::gc::{CollectOptions, Collection, Expired};
use crate::store::Store;

impl Store {
    /// Collects garbage: removes unreferenced blobs, links, named files and uploads that are due, and moves live
    /// content out of files that are mostly dead, while reads and writes continue. `progress` is called after each step
    /// with the numbers so far; `Break` stops the collection.
    ///
    /// It removes named files that have expired; uploads that nothing was appended to, links that no manifest holds,
    /// and blobs that nothing references, each once its grace period
    /// ([`Options::retention`](crate::Options::retention)) has passed; repositories that a push
    /// [created](Self::create_on_push) and that received no manifest within that period; and what deleted repositories
    /// have left. Open handles stay readable.
    ///
    /// One collection runs at a time: a second one waits (so `progress` must not call for one). A collection that stops
    /// early, because of its options, of `progress` or of a crash, is completed by the next one.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use std::time::Duration;
    /// use strongroom::{Algorithm, CollectOptions, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = Options::new().create(true).retention(Duration::ZERO).open(dir.path().join("store"))?;
    /// let digest = store.put("nobody needs this", Algorithm::Sha256)?.digest;
    ///
    /// let would = store.collect(&CollectOptions::new().dry_run(true), |_| ControlFlow::Continue(()))?;
    /// assert!(would.blobs == 1 && store.exists(&digest)?);
    ///
    /// let done = store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(()))?;
    /// assert!(done.blobs == 1 && !store.exists(&digest)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Full`] where not even the space that is reserved for this is enough; [`Error::Poisoned`] after a failed
    /// sync. Damage is no error, but [reported](Collection::damaged): what it concerns stays, and the rest is
    /// collected.
    pub fn collect(
        &self,
        options: &CollectOptions,
        mut progress: impl FnMut(&Collection) -> ControlFlow<()>,
    ) -> Result<Collection> {
        self.inner()?.collections.collect(options, &mut progress)
    }

    /// The result of the last collection since the store was opened, whether it was called for or ran [in the
    /// background](crate::Options::collect_every); `None` before the first. For metrics.
    pub fn last_collection(&self) -> Option<Result<Collection>> {
        self.open.inner.collections.last()
    }

    /// Removes named files that have expired, and cancels uploads that nothing was appended to for `upload_age` of open
    /// time. A part of what [`collect`](Self::collect) does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strongroom::{Algorithm, Clock, Options, PutNamed};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let clock = Clock::manual();
    /// let store = Options::new().create(true).clock(clock.clone()).open(dir.path().join("store"))?;
    /// store.named().put("build:1", "built a while ago", PutNamed::new().expires_after(Duration::from_secs(60)))?;
    /// store.begin_upload(Algorithm::Sha256)?;
    ///
    /// clock.advance(Duration::from_secs(90));
    /// let expired = store.expire(Duration::from_secs(3600))?;
    /// assert_eq!((expired.named, expired.uploads), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of removing them; [`Error::Corrupt`] for the first damage met, when all others were removed. Named files
    /// and uploads that were removed before the error stay removed.
    pub fn expire(&self, upload_age: Duration) -> Result<Expired> {
        self.inner()?.collections.expire(upload_age)
    }

    /// Cancels uploads, including those of repositories, that nothing was appended to for `idle` of open time, and
    /// returns how many.
    ///
    /// # Errors
    /// Those of cancelling them. Uploads that were cancelled before the error stay cancelled.
    pub fn expire_uploads(&self, idle: Duration) -> Result<usize> {
        self.inner()?.collections.expire_uploads(idle)
    }

    /// Removes blobs from repositories in which no manifest references them and their grace period
    /// ([`Options::retention`](crate::Options::retention)) has passed since they were last pushed, mounted or claimed
    /// there, or a manifest that referenced them was deleted. Returns how many. A part of what
    /// [`collect`](Self::collect) does.
    ///
    /// # Errors
    /// Those of removing them. Blobs that were removed before the error stay removed.
    pub fn expire_blobs(&self) -> Result<usize> {
        self.inner()?.collections.expire_blobs()
    }
}
