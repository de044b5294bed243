//! Garbage collection: asking for it.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::error::Result;
use crate::gc::{CollectOptions, Collection};
use crate::store::Store;

impl Store {
    /// Gives space back: forgets what nothing holds and nobody relies on any more, and moves what lives out of files
    /// that are mostly dead. Goes on beside everything else. `progress` is called after each step with the numbers so
    /// far, and says whether to go on.
    ///
    /// What goes: pins that have expired; uploads to which nothing was added, links that no manifest holds, and blobs
    /// that nothing holds, each when [`Options::retention`](crate::Options::retention) has passed since somebody relied
    /// on it; and what deleted repositories have left. What can be seen before goes on being readable through handles
    /// that are open.
    ///
    /// There is one collection at a time: a second one waits (so `progress` must not call for one). It may end early,
    /// by its options or by `progress`; then, and after a crash, the next one goes on where it was.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use std::time::Duration;
    /// use strongroom::{Algorithm, CollectOptions, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = Options::new().create(true).retention(Duration::ZERO).open(dir.path().join("store"))?;
    /// let digest = store.put("nobody needs this", Algorithm::Sha256)?;
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
    /// [`Error::Corrupt`] where facts are damaged that say what is held: then nothing is taken. [`Error::Full`] where
    /// not even the space that is reserved for this is enough; [`Error::Poisoned`] after a failed sync. Damaged content
    /// is no error, but [reported](Collection::damaged), and stays where it is.
    pub fn collect(
        &self,
        options: &CollectOptions,
        mut progress: impl FnMut(&Collection) -> ControlFlow<()>,
    ) -> Result<Collection> {
        self.inner.collections.collect(options, &mut progress)
    }

    /// What the last collection came to, whoever asked for it; `None` before the first since the store was opened. For
    /// who looks after a store that collects [in the background](crate::Options::collect_every).
    pub fn last_collection(&self) -> Option<Result<Collection>> {
        self.inner.collections.last()
    }

    /// Ends pins and uploads that have expired: pins by what their options said, uploads that nothing was added to for
    /// `upload_age` of open time. Returns how many of each: a part of what [`collect`](Self::collect) does.
    ///
    /// # Errors
    /// What ending them meets; those already ended stay so.
    pub fn expire(&self, upload_age: Duration) -> Result<(usize, usize)> {
        self.inner.collections.expire(upload_age)
    }

    /// Gives up uploads, those of repositories too, that nothing was added to for a time that the store was open, and
    /// returns how many.
    ///
    /// # Errors
    /// What giving them up meets; those already given up stay so.
    pub fn expire_uploads(&self, idle: Duration) -> Result<usize> {
        self.inner.collections.expire_uploads(idle)
    }

    /// Takes blobs from repositories that no manifest references and that nobody pushed, mounted or claimed for
    /// [`Options::retention`](crate::Options::retention), and returns how many: a part of what
    /// [`collect`](Self::collect) does.
    ///
    /// # Errors
    /// What taking them away meets; those already taken stay so.
    pub fn expire_blobs(&self) -> Result<usize> {
        self.inner.collections.expire_blobs()
    }
}
