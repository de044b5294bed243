//! What a collection is asked for, and what it tells.

use std::time::Duration;

use crate::envelope::LockedDomain;
use crate::error::Error;

/// How [`Store::collect`](crate::Store::collect) goes about it.
#[derive(Clone, Debug)]
#[must_use]
pub struct CollectOptions {
    pub(crate) dry_run: bool,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_time: Option<Duration>,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) max_dead: u8,
    /// Whether the report says what costs a look at all that stays.
    pub(crate) explain: bool,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { dry_run: false, max_bytes: None, max_time: None, bytes_per_second: None, max_dead: 20, explain: true }
    }
}

impl CollectOptions {
    /// A collection that does all there is to do, as fast as it can.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it only tells what it would do. It takes the same decisions and counts the same; only what is damaged
    /// shows when it is copied. What is to be forgotten is remembered meanwhile: if that would take more memory than
    /// [`Options::memtable_size`](crate::Options::memtable_size), it ends there and [says so](Stopped::Memory).
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// How many bytes compaction may write; without limit by default. Sweeping is not limited by it.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// How long it may take; without limit by default. Kept to within a step.
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = Some(time);
        self
    }

    /// How many bytes a second compaction writes at most; without limit by default. What has little to spare for others
    /// sets this.
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(bytes.max(1));
        self
    }

    /// How many of the bytes in files of content may be dead, in percent of all, before compaction takes the emptiest
    /// files up; 20 by default, at most 99. At a lower number more has to be copied for each byte that comes back: four
    /// bytes at 20, nine at 10.
    pub fn max_dead(mut self, percent: u8) -> Self {
        self.max_dead = percent.min(99);
        self
    }
}

/// What a collection did, or in a dry run would do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Collection {
    /// Whether nothing of this was done.
    pub dry_run: bool,
    /// Pins that expired.
    pub pins: u64,
    /// Uploads that expired.
    pub uploads: u64,
    /// Links that expired: blobs that a repository does not have any more.
    pub links: u64,
    /// Repositories that expired: pushes created them, and none was completed.
    pub repositories: u64,
    /// Blobs that were forgotten.
    pub blobs: u64,
    /// How many bytes of files they took.
    pub blob_bytes: u64,
    /// Blobs that were condemned, and asked for before they were forgotten.
    pub rescued: u64,
    /// How many live bytes compaction set out to move.
    pub to_move_bytes: u64,
    /// Blobs that were moved.
    pub moved: u64,
    /// How many bytes of files they take.
    pub moved_bytes: u64,
    /// How many files of content were removed.
    pub files: u64,
    /// How many bytes those had.
    pub freed_bytes: u64,
    /// By how many bytes the runs, in which facts lie, shrank.
    pub run_bytes: u64,
    /// How many bytes of removed files readers still hold; they come back when the last of them is done.
    pub held_bytes: u64,
    /// How many bytes of content live now.
    pub live_bytes: u64,
    /// How many bytes in files of content are dead now.
    pub dead_bytes: u64,
    /// Why those stayed.
    pub stayed: Stayed,
    /// What could not be moved: its content, or what is known of what lives in files, is damaged. It stays where it is.
    pub damaged: Vec<Error>,
    /// The key domains that are locked: nothing of them was collected.
    pub locked: Vec<LockedDomain>,
    /// Why it ended before all was done, if it did.
    pub stopped: Option<Stopped>,
}

/// Why dead bytes stayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stayed {
    /// In files of which so little is dead that moving the rest does not pay.
    pub scattered_bytes: u64,
    /// In log files that are kept for who reads events, or whose facts no run has yet.
    pub log_bytes: u64,
    /// In files with damaged content.
    pub damaged_bytes: u64,
    /// In log files that may have content of [locked](crate::Store::locked_domains) domains: whatever in them does not
    /// live for certain. Not counted as [dead](Collection::dead_bytes), since much of it may live.
    pub locked_bytes: u64,
    /// Of what this collection set out to give back and did not come to.
    pub unreached_bytes: u64,
    /// Blobs that nothing holds and that somebody relied on so recently that they stay. Their bytes count as live. (Not
    /// counted in the background.)
    pub recent_blobs: u64,
}

/// Why a collection ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// Who was told of its progress said so, or the store is being closed.
    Told,
    /// It was to take no more time.
    Time,
    /// It was to write no more bytes.
    Bytes,
    /// A dry run remembered as much as it may.
    Memory,
    /// There is no space for moving more.
    Space,
}
