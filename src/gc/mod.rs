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
//!    [`Changes::hold`] and [`Changes::release_key`] and by `hold` and `release` in [`crate::registry`]'s changes, and
//!    nowhere else.
//! 2. **Nothing is taken whose count is above 0.** An entry of the [list of what nothing holds](crate::facts::Idle) is
//!    there exactly while the count is 0: [`Changes::change`] and `set_link` keep it so, in the same commit. All that
//!    collection removes (`Expire`, [`Forget`](sweep::Forget)), it removes where that entry is still there when its
//!    turn in the order of all commits has come.
//! 3. **Nothing comes to be held that is not there.** `put_manifest`, `pin`, `mount` look for what they hold at their
//!    own turn in that order ([`Changes::hold`] fails where it is gone). So of a collection and a push one is first:
//!    either the push holds the blob and the collection leaves it, or the collection takes it and the push is told that
//!    it is missing, and nothing of it takes place. There is no third way, and no gap between being uploaded and being
//!    held in which something else protects a blob: what protects it then is the courtesy.
//! 4. **Nothing is taken to be unheld by mistake.** A fact that can't be read ends the sweep: no count is assumed.
//! 5. **No content goes whose place counts.** A file is unlinked when its last live frame has left it:
//!    `Changes::drop_file`. A blob moves in one commit that is refused where the blob is not in the place that was copied
//!    any more ([`Changes::put_elsewhere`]), after the copy is durable.
//!
//! The *courtesy* is what clocks are for: whatever somebody stored, or was told of when he claimed it, stays for
//! [`Options::retention`](crate::Options::retention) of open time after that. It saves a push from having to be
//! repeated, and nothing else depends on it.
//!
//! # Why readers are not disturbed
//! A handle has its file open; unlinking it changes nothing for who reads. Whoever looked up a place before a move, and
//! opens the file after it, finds it missing, and looks again ([`BlobStore::get`]).
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
pub use options::{CollectOptions, Collection, Stayed, Stopped};

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
    /// Held by the one that goes on.
    going_on: Mutex<()>,
    /// The lengths of files that are not written any more.
    lens: Mutex<HashMap<FileId, u64>>,
    /// Files out of which not all could be moved, since it is damaged, and how many live bytes were left in each.
    stuck: Mutex<HashMap<FileId, u64>>,
    /// What the last one came to.
    last: Mutex<Option<Result<Collection>>>,
}

crate::sync::print_by_name!(Collections);

/// What the store's options say that collections have to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// For how long stays what nothing holds.
    pub(crate) retention: Retention,
    /// The size of a log file, and of a pack, in bytes.
    pub(crate) file_size: u64,
    /// How much space is reserved, in bytes.
    pub(crate) reserve: u64,
    /// How many bytes of memory a dry run may take for what it remembers.
    pub(crate) memory: usize,
}

fn count(count: u64) -> usize {
    index(count)
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

    /// What the last collection came to.
    pub(crate) fn last(&self) -> Option<Result<Collection>> {
        lock(&self.last).clone()
    }

    /// [`Store::expire`](crate::Store::expire).
    pub(crate) fn expire(&self, upload_age: Duration) -> Result<(usize, usize)> {
        let done = self.collect_part(|collector| {
            collector.expire_pins()?;
            collector.expire_uploads(milliseconds(upload_age))
        })?;
        Ok((count(done.pins), count(done.uploads)))
    }

    /// [`Store::expire_uploads`](crate::Store::expire_uploads).
    pub(crate) fn expire_uploads(&self, idle: Duration) -> Result<usize> {
        let done = self.collect_part(|collector| collector.expire_uploads(milliseconds(idle)))?;
        Ok(count(done.uploads))
    }

    /// [`Store::expire_blobs`](crate::Store::expire_blobs).
    pub(crate) fn expire_blobs(&self) -> Result<usize> {
        Ok(count(self.collect_part(|collector| collector.expire_links())?.links))
    }

    /// [`Store::collect`](crate::Store::collect).
    pub(crate) fn collect(
        &self,
        options: &CollectOptions,
        progress: &mut dyn FnMut(&Collection) -> ControlFlow<()>,
    ) -> Result<Collection> {
        let _one = lock(&self.going_on);
        let mut collected = self.collect_alone(options, progress);
        // It is not among the domains any more.
        for _ in self.tables.domains().iter() {
            if !matches!(&collected, Err(Error::DomainShredded { .. })) {
                break;
            }
            collected = self.collect_alone(options, progress);
        }
        if !options.dry_run {
            *lock(&self.last) = Some(collected.clone());
        }
        collected
    }

    /// Does steps of a collection, beside any that goes on: each is decided at the ordering point.
    fn collect_part(&self, steps: impl FnOnce(&mut Collector<'_>) -> Step<()>) -> Result<Collection> {
        let options = CollectOptions::new();
        let mut progress = |_: &Collection| ControlFlow::Continue(());
        let mut collector = Collector::new(self, &options, &mut progress);
        match steps(&mut collector) {
            Ok(()) | Err(Halt::Stopped(_)) => Ok(collector.report),
            Err(Halt::Failed(error)) => Err(error),
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
        let ended = collector
            .sweep()
            .and_then(|()| collector.compact_what_can_be_read())
            .and_then(|()| collector.merge_facts());
        match ended {
            Err(Halt::Failed(error)) => return Err(error),
            Err(Halt::Stopped(stopped)) => collector.report.stopped = Some(stopped),
            Ok(()) => {}
        }
        collector.report_rest()?;
        Ok(collector.report)
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
