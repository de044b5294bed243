//! Garbage collection: removes unreferenced blobs and gives their space back, while reads and writes continue.
//!
//! A collection first [sweeps](sweep): it forgets blobs, links, named files and uploads that are due. Then it
//! [compacts](compact): it moves live content out of files that are mostly dead. Both work in small commits. What a
//! collection has done when it ends, for whatever reason, stays done, and the next one does the rest: a collection
//! keeps no state on disk but the facts themselves.
//!
//! # Why nothing reachable is collected
//! *Reachable* is every blob that a named file holds, every blob and manifest that a manifest holds, and every
//! manifest. The argument has no clock in it:
//!
//! 1. **Whatever is held has a count above 0.** A blob's count is the number of named files, links and manifests that
//!    hold it; a link's count is the number of the repository's manifests that hold it. A count changes in the commit
//!    that changes what is counted, by [`Changes::hold`] and [`Changes::release_key`] (with its likes), and for links
//!    and manifests by `hold` and `release` in [`crate::transaction::registry`], and nowhere else (apart from a repair,
//!    which sets a wrong count to the recount).
//! 2. **Nothing with a count above 0 is removed.** An entry of the [idle list](crate::facts::Idle), which lists blobs
//!    and links that nothing holds, exists exactly while the count is 0: [`Changes::change`] and `set_link` add and
//!    remove it in the same commit. A commit that removes blobs or links for collection ([`Forget`](sweep::Forget),
//!    `Expire`) removes one only if its entry still exists at that commit's turn in the order of all commits.
//! 3. **Nothing that is missing can be held.** `put_manifest`, `mount` and setting a named file look up what they hold
//!    at their own turn in that order ([`Changes::hold`] fails if it is missing). So either the push comes first, holds
//!    the blob, and the collection leaves it; or the collection comes first, removes the blob, and the push fails, is
//!    told that the blob is missing, and changes nothing. There is no third way. Between its upload and its first
//!    reference nothing but the grace period protects a blob.
//! 4. **No count is assumed.** A commit that needs a fact which can't be read fails, and what it would have removed
//!    stays.
//! 5. **No file with live content is removed.** A file is unlinked when its last live frame has left it:
//!    `Changes::drop_file`. A blob moves in one commit, after its copy is durable; that commit is refused if the blob
//!    is no longer in the place that was copied ([`Changes::put_elsewhere`]).
//!
//! Clocks serve only the *grace period*: a blob that a client stored, or was told of when it claimed it, is kept for
//! [`Options::retention`](crate::Options::retention) of open time after that. It saves clients from having to repeat a
//! push, and nothing else depends on it. (A named file may be set to expire by the wall clock. Then the caller has
//! chosen that clock to say for how long the *name* stands; what the name held is collected as everything that nothing
//! holds.)
//!
//! # Why readers are not disturbed
//! A handle keeps its file open, so unlinking the file does not affect its reader. A reader that looked up a blob's
//! place before the blob moved, and opens the file after the file was removed, finds it missing and looks the place up
//! again ([`BlobStore::get`]).
//!
//! [`Changes::hold`]: crate::transaction::Changes::hold
//! [`Changes::release_key`]: crate::transaction::Changes::release_key
//! [`Changes::change`]: crate::transaction::Changes::change
//! [`Changes::put_elsewhere`]: crate::transaction::Changes::put_elsewhere

mod background;
mod collector;
mod compact;
mod options;
mod plan;
mod sweep;

pub(crate) use background::{Background, run_thread};
pub use options::{CollectOptions, Collection, Expired, Stayed, Stopped};

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::blobs::BlobStore;
use crate::clock::{Retention, StoreClock, milliseconds};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::id::FileId;
use crate::log::Committer;
use crate::registry::Registry;
use crate::sync::lock;
use crate::tables::{Tables, Upkeep};
use crate::wire::index;
use collector::{Collector, Halt, Step};

/// Collections, one at a time.
pub(crate) struct Collections {
    files: Arc<Files>,
    tables: Arc<Tables>,
    log: Arc<Committer>,
    blobs: Arc<BlobStore>,
    registry: Arc<Registry>,
    upkeep: Arc<Upkeep>,
    clock: StoreClock,
    settings: Settings,
    /// Held by the collection that is running.
    going_on: Mutex<()>,
    /// The lengths of files that are not written any more.
    lens: Mutex<HashMap<FileId, u64>>,
    /// Files that could not be emptied since they are damaged, and how many live bytes were left in each.
    stuck: Mutex<HashMap<FileId, u64>>,
    /// The result of the last collection.
    last: Mutex<Option<Result<Collection>>>,
}

crate::sync::print_by_name!(Collections);

/// The store's options that concern collections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// The grace period for unreferenced blobs and links.
    pub(crate) retention: Retention,
    /// The size of a log file, and of a pack, in bytes.
    pub(crate) file_size: u64,
    /// How much space is reserved, in bytes.
    pub(crate) reserve: u64,
    /// How many bytes of memory the changes that a dry run remembers may take.
    pub(crate) memory: usize,
}

impl Collections {
    pub(crate) fn new(
        (files, tables, log): (Arc<Files>, Arc<Tables>, Arc<Committer>),
        (blobs, registry): (Arc<BlobStore>, Arc<Registry>),
        upkeep: Arc<Upkeep>,
        clock: StoreClock,
        settings: Settings,
    ) -> Self {
        let (going_on, lens, stuck, last) = (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        Self { files, tables, log, blobs, registry, upkeep, clock, settings, going_on, lens, stuck, last }
    }

    /// The result of the last collection.
    pub(crate) fn last(&self) -> Option<Result<Collection>> {
        lock(&self.last).clone()
    }

    /// [`Store::expire`](crate::Store::expire).
    pub(crate) fn expire(&self, upload_age: Duration) -> Result<Expired> {
        let done = self.collect_part(|collector| {
            collector.expire_named()?;
            collector.expire_uploads(milliseconds(upload_age))
        })?;
        Ok(Expired { named: index(done.named), uploads: index(done.uploads) })
    }

    /// [`Store::expire_uploads`](crate::Store::expire_uploads).
    pub(crate) fn expire_uploads(&self, idle: Duration) -> Result<usize> {
        let done = self.collect_part(|collector| collector.expire_uploads(milliseconds(idle)))?;
        Ok(index(done.uploads))
    }

    /// [`Store::expire_blobs`](crate::Store::expire_blobs).
    pub(crate) fn expire_blobs(&self) -> Result<usize> {
        Ok(index(self.collect_part(|collector| collector.expire_links())?.links))
    }

    /// [`Store::collect`](crate::Store::collect).
    pub(crate) fn collect(
        &self,
        options: &CollectOptions,
        progress: &mut dyn FnMut(&Collection) -> ControlFlow<()>,
    ) -> Result<Collection> {
        let _one = lock(&self.going_on);
        let shortages = self.files.shortages();
        let mut collected = self.collect_alone(options, progress);
        // A domain that was shredded meanwhile is not listed any more.
        for _ in self.tables.domains().iter() {
            if !matches!(&collected, Err(Error::DomainShredded { .. })) {
                break;
            }
            collected = self.collect_alone(options, progress);
        }
        if !options.dry_run {
            if collected.as_ref().is_ok_and(|collected| collected.stopped.is_none()) {
                self.files.gave_space_back(shortages);
            }
            *lock(&self.last) = Some(collected.clone());
        }
        collected
    }

    /// Does some steps of a collection, also while another collection is running: each step is decided at the ordering
    /// point.
    fn collect_part(&self, steps: impl FnOnce(&mut Collector<'_>) -> Step<()>) -> Result<Collection> {
        let options = CollectOptions::new();
        let mut progress = |_: &Collection| ControlFlow::Continue(());
        let mut collector = Collector::new(self, &options, &mut progress);
        match steps(&mut collector) {
            Err(Halt::Failed(error)) => Err(error),
            Ok(()) | Err(Halt::Stopped(_)) => match collector.report.damaged.first() {
                Some(damage) => Err(damage.clone()),
                None => Ok(collector.report),
            },
        }
    }

    fn collect_alone(
        &self,
        options: &CollectOptions,
        progress: &mut dyn FnMut(&Collection) -> ControlFlow<()>,
    ) -> Result<Collection> {
        if !options.dry_run {
            self.files.check_writable()?;
        }
        let mut collector = Collector::new(self, options, progress);
        let ended =
            collector.sweep().and_then(|()| collector.compact_unless_damaged()).and_then(|()| collector.merge_facts());
        match ended {
            Err(Halt::Failed(error)) => return Err(error),
            Err(Halt::Stopped(stopped)) => collector.report.stopped = Some(stopped),
            Ok(()) => {}
        }
        match collector.report_rest() {
            Err(Halt::Failed(error)) => Err(error),
            _ => Ok(collector.report),
        }
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
