//! Collection: space comes back, while everything goes on.
//!
//! A collection [sweeps](sweep), which forgets what nothing holds, then [compacts](compact), which gives back the space
//! that is scattered among what lives. Both work beside everything else, in small commits; what they have done when
//! they end, for whatever reason, stays done, and the next one goes on: there is no state of a collection on disk but
//! the facts themselves.
//!
//! # Why nothing that is reachable goes
//! *Reachable* is what a pin names, what a manifest holds, and a manifest. The argument has no clock in it:
//!
//! 1. **What is held has a count above 0.** A blob's count is the number of pins, links and manifests that hold it; a
//!    link's that of the repository's manifests that do. Counts change in the commit that changes what is counted, by
//!    [`Facts::hold`] and [`Facts::release_key`] and by `hold` and `release` in [`crate::registry`]'s changes, and
//!    nowhere else.
//! 2. **Nothing is taken whose count is above 0.** An entry of the [list of what nothing holds](crate::facts::Idle) is
//!    there exactly while the count is 0: [`Facts::change`] and `set_link` keep it so, in the same commit. All that
//!    collection removes (`Expire`, [`Forget`](sweep::Forget)), it removes where that entry is still there when its
//!    turn in the order of all commits has come.
//! 3. **Nothing comes to be held that is not there.** `put_manifest`, `pin`, `mount` look for what they hold at their
//!    own turn in that order ([`Facts::hold`] fails where it is gone). So of a collection and a push one is first:
//!    either the push holds the blob and the collection leaves it, or the collection takes it and the push is told that
//!    it is missing, and nothing of it takes place. There is no third way, and no gap between being uploaded and being
//!    held in which something else protects a blob: what protects it then is the courtesy.
//! 4. **Nothing is taken to be unheld by mistake.** A fact that can't be read ends the sweep: no count is assumed.
//! 5. **No content goes whose place counts.** A file is unlinked when its last live frame has left it:
//!    `Facts::drop_file`. A blob moves in one commit that is refused where the blob is not in the place that was copied
//!    any more ([`Facts::put_elsewhere`]), after the copy is durable.
//!
//! The *courtesy* is what clocks are for: whatever somebody stored, or was told of when he claimed it, stays for
//! [`Options::retention`](crate::Options::retention) of open time after that. It saves a push from having to be
//! repeated, and nothing else depends on it.
//!
//! # Why readers are not disturbed
//! A handle has its file open; unlinking it changes nothing for who reads. Whoever looked up a place before a move, and
//! opens the file after it, finds it missing, and looks again (`Inner::get`).
//!
//! [`Facts::hold`]: crate::transaction::Facts::hold
//! [`Facts::release_key`]: crate::transaction::Facts::release_key
//! [`Facts::change`]: crate::transaction::Facts::change
//! [`Facts::put_elsewhere`]: crate::transaction::Facts::put_elsewhere

mod background;
mod collector;
mod compact;
mod options;
mod plan;
mod sweep;

pub(crate) use background::{Background, run_thread};
pub use options::{CollectOptions, Collection, Stayed, Stopped};

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::milliseconds;
use crate::error::{Error, Result};
use crate::id::FileId;
use crate::store::{GoOn, Inner, Store};
use crate::sync::lock;
use collector::{Collector, Halt, Step};

/// What collections know from each other.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Held by the one that goes on.
    going_on: Mutex<()>,
    /// The lengths of files that are not written any more.
    lens: Mutex<HashMap<FileId, u64>>,
    /// Files out of which not all could be moved, since it is damaged, and how many live bytes were left in each.
    stuck: Mutex<HashMap<FileId, u64>>,
    /// What the last one came to.
    last: Mutex<Option<Result<Collection>>>,
}

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
    /// use std::time::Duration;
    /// use strongroom::{Algorithm, CollectOptions, GoOn, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = Options::new().create(true).retention(Duration::ZERO).open(dir.path().join("store"))?;
    /// let digest = store.put("nobody needs this", Algorithm::Sha256)?;
    ///
    /// let would = store.collect(&CollectOptions::new().dry_run(true), |_| GoOn::Yes)?;
    /// assert!(would.blobs == 1 && store.exists(&digest)?);
    ///
    /// let done = store.collect(&CollectOptions::new(), |_| GoOn::Yes)?;
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
        mut progress: impl FnMut(&Collection) -> GoOn,
    ) -> Result<Collection> {
        self.inner.collect(options, &mut progress)
    }

    /// What the last collection came to, whoever asked for it; `None` before the first since the store was opened. For
    /// who looks after a store that collects [in the background](crate::Options::collect_every).
    pub fn last_collection(&self) -> Option<Result<Collection>> {
        lock(&self.inner.collections.last).clone()
    }

    /// Ends pins and uploads that have expired: pins by what their options said, uploads that nothing was added to for
    /// `upload_age` of open time. Returns how many of each: a part of what [`collect`](Self::collect) does.
    ///
    /// # Errors
    /// What ending them meets; those already ended stay so.
    pub fn expire(&self, upload_age: Duration) -> Result<(usize, usize)> {
        let done = self.inner.collect_part(|collector| {
            collector.expire_pins()?;
            collector.expire_uploads(milliseconds(upload_age))
        })?;
        Ok((count(done.pins), count(done.uploads)))
    }

    /// Gives up uploads, those of repositories too, that nothing was added to for a time that the store was open, and
    /// returns how many.
    ///
    /// # Errors
    /// What giving them up meets; those already given up stay so.
    pub fn expire_uploads(&self, idle: Duration) -> Result<usize> {
        let done = self.inner.collect_part(|collector| collector.expire_uploads(milliseconds(idle)))?;
        Ok(count(done.uploads))
    }

    /// Takes blobs from repositories that no manifest references and that nobody pushed, mounted or claimed for
    /// [`Options::retention`](crate::Options::retention), and returns how many: a part of what
    /// [`collect`](Self::collect) does.
    ///
    /// # Errors
    /// What taking them away meets; those already taken stay so.
    pub fn expire_blobs(&self) -> Result<usize> {
        Ok(count(self.inner.collect_part(|collector| collector.expire_links())?.links))
    }
}

fn count(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

impl Inner {
    /// [`Store::collect`].
    pub(crate) fn collect(
        &self,
        options: &CollectOptions,
        progress: &mut dyn FnMut(&Collection) -> GoOn,
    ) -> Result<Collection> {
        let _one = lock(&self.collections.going_on);
        let mut collected = self.collect_alone(options, progress);
        // It is not among the domains any more.
        for _ in self.snapshot().domains() {
            if !matches!(&collected, Err(Error::DomainShredded { .. })) {
                break;
            }
            collected = self.collect_alone(options, progress);
        }
        if !options.dry_run {
            *lock(&self.collections.last) = Some(collected.clone());
        }
        collected
    }

    /// Does steps of a collection, beside any that goes on: each is decided at the ordering point.
    fn collect_part(&self, steps: impl FnOnce(&mut Collector<'_>) -> Step<()>) -> Result<Collection> {
        let options = CollectOptions::new();
        let mut progress = |_: &Collection| GoOn::Yes;
        let mut collector = Collector::new(self, &options, &mut progress);
        match steps(&mut collector) {
            Ok(()) | Err(Halt::Stopped(_)) => Ok(collector.report),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    fn collect_alone(
        &self,
        options: &CollectOptions,
        progress: &mut dyn FnMut(&Collection) -> GoOn,
    ) -> Result<Collection> {
        if !options.dry_run {
            self.check_writable()?;
        }
        let mut collector = Collector::new(self, options, progress);
        let ended = collector.sweep().and_then(|()| collector.compact()).and_then(|()| collector.merge_facts());
        match ended {
            Err(Halt::Failed(error)) => return Err(error),
            Err(Halt::Stopped(stopped)) => collector.report.stopped = Some(stopped),
            Ok(()) => {}
        }
        collector.look_back()?;
        Ok(collector.report)
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
