//! Options of a garbage collection, and its report.

use std::time::Duration;

use crate::envelope::LockedDomain;
use crate::error::Error;

/// Options of [`Store::collect`](crate::Store::collect).
#[derive(Clone, Debug)]
#[must_use]
pub struct CollectOptions {
    pub(crate) dry_run: bool,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_time: Option<Duration>,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) max_dead: u8,
    /// Whether the report counts blobs in their grace period, which costs a look at all unreferenced blobs that are
    /// kept.
    pub(crate) explain: bool,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { dry_run: false, max_bytes: None, max_time: None, bytes_per_second: None, max_dead: 20, explain: true }
    }
}

impl CollectOptions {
    /// A collection without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the collection only reports what it would do; no by default. A dry run takes the same decisions and
    /// reports the same numbers, except that it does not notice damaged content, which only copying does. It remembers
    /// in memory what it would forget: if that takes more than
    /// [`Options::memtable_size`](crate::Options::memtable_size) (or 1 MiB, if that is more), it stops early and [says
    /// so](Stopped::Memory).
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// The most bytes that compaction may write; without limit by default. Neither sweeping nor merging runs counts; at
    /// 0 no runs are merged.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// The most time that the collection may take; without limit by default. It is checked after each step.
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = Some(time);
        self
    }

    /// The most bytes that compaction writes in a second; without limit by default. Set this where other work needs the
    /// disk too.
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(bytes.max(1));
        self
    }

    /// The highest share of dead bytes in files of content, in percent, that compaction leaves; 20 by default, at most
    /// 99. Above it compaction rewrites files, those with the largest share of dead bytes first. A lower number means
    /// that more is copied for each byte that is given back: up to four bytes at 20, nine at 10.
    pub fn max_dead(mut self, percent: u8) -> Self {
        self.max_dead = percent.min(99);
        self
    }
}

/// The report of a collection: what it did, or in a dry run would do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Collection {
    /// Whether this was a dry run, which changed nothing.
    pub dry_run: bool,
    /// Named files that expired.
    pub named: u64,
    /// Uploads that expired.
    pub uploads: u64,
    /// Links that expired: blobs that were removed from a repository because no manifest references them.
    pub links: u64,
    /// Repositories that expired: pushes created them, and no manifest was pushed to them.
    pub repositories: u64,
    /// Unreferenced blobs that were forgotten.
    pub blobs: u64,
    /// How many bytes those blobs took in files.
    pub blob_bytes: u64,
    /// Blobs that were condemned, and were not forgotten because they were stored, claimed or referenced in time.
    pub rescued: u64,
    /// How many live bytes the files have that compaction chose to empty.
    pub to_move_bytes: u64,
    /// Blobs that were moved.
    pub moved: u64,
    /// How many bytes those blobs take in files.
    pub moved_bytes: u64,
    /// How many log files and segments were removed.
    pub files: u64,
    /// How many bytes those files had.
    pub freed_bytes: u64,
    /// By how many bytes the runs, which hold the facts, shrank.
    pub run_bytes: u64,
    /// How many bytes removed files still take because readers have them open; freed when the last reader is done.
    pub held_bytes: u64,
    /// How many bytes of live content the store has now.
    pub live_bytes: u64,
    /// How many dead bytes log files and segments have now.
    pub dead_bytes: u64,
    /// Why those dead bytes were not given back.
    pub stayed: Stayed,
    /// Damage that was met: to content, which stays where it is, or to facts. What only damaged facts name is neither
    /// forgotten nor moved, nor counted as live or dead here; the rest of the store is collected as ever.
    pub damaged: Vec<Error>,
    /// The key domains that are locked: nothing in them was collected.
    pub locked: Vec<LockedDomain>,
    /// Why the collection stopped early, if it did.
    pub stopped: Option<Stopped>,
}

/// What [`Store::expire`](crate::Store::expire) removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expired {
    /// Named files that had expired.
    pub named: usize,
    /// Uploads that nothing was appended to for the given time.
    pub uploads: usize,
}

/// Why dead bytes were not given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stayed {
    /// Dead bytes in files of which so little is dead that moving the rest does not pay.
    pub scattered_bytes: u64,
    /// Dead bytes in log files that are kept for [events](crate::Store::events), or whose facts no run has yet.
    pub log_bytes: u64,
    /// Dead bytes in files with damaged content, which can't be emptied.
    pub damaged_bytes: u64,
    /// Bytes that are not known to be live in log files that may have content of [locked](crate::Store::locked_domains)
    /// domains. Not counted as [dead](Collection::dead_bytes), since many of them may be live.
    pub locked_bytes: u64,
    /// Dead bytes in files that this collection chose to empty and did not get to.
    pub unreached_bytes: u64,
    /// Unreferenced blobs that are kept because their grace period has not passed. Their bytes count as live. Counted
    /// neither in the background nor in a dry run.
    pub recent_blobs: u64,
}

/// Why a collection stopped early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// The progress callback returned `Break`, or the store is being closed.
    Told,
    /// The time of [`CollectOptions::max_time`] is up.
    Time,
    /// The bytes of [`CollectOptions::max_bytes`] are written.
    Bytes,
    /// A dry run remembers as many changes as [it may](CollectOptions::dry_run).
    Memory,
    /// The disk has no space for moving more.
    Space,
}
