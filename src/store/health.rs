//! Health, as the store knows it without a look at the disk.

use std::sync::Arc;

use crate::envelope::LockedDomain;
use crate::error::{Error, ReadOnlyCause};
use crate::store::Store;

/// Uploads are counted up to so many.
const MAX_UPLOADS: usize = 1000;

/// Whether a store takes writes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StoreState {
    /// It reads and writes.
    Writable,
    /// It was opened for reading only.
    ReadOnly {
        /// Because that was asked for, or up to damage in its log.
        cause: ReadOnlyCause,
    },
    /// Writes have stopped, since a sync failed or an invariant does not hold; reads go on. Find out what is wrong with
    /// the disk, then open the store again.
    Stopped {
        /// What failed first.
        cause: Arc<Error>,
    },
    /// It was closed.
    Closed,
}

/// What a store says of itself. See [`Store::health`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Whether it takes writes.
    pub state: StoreState,
    /// Whether the space is there that is reserved for giving space back. Where not, the disk is full or was a moment
    /// ago: removing and collecting work, other writes fail with [`Full`](Error::Full) until there is space for it
    /// again.
    pub has_reserve: bool,
    /// How many facts are in memory and in the log, and in no run yet. They are what maintenance has to do, and what
    /// an opening after a kill has to read.
    pub unfolded_facts: u64,
    /// How many bytes of memory those take.
    pub unfolded_bytes: u64,
    /// How many bytes the log files have that the next opening reads, or that are kept for
    /// [events](crate::Store::events); without the one that is written now.
    pub log_bytes: u64,
    /// How many uploads are unfinished, in the store and its repositories, up to 1,000; `None` where what says so is
    /// damaged.
    pub uploads: Option<usize>,
    /// The key domains that are locked, and why.
    pub locked: Vec<LockedDomain>,
    /// Why the last round of maintenance failed; `None` where it did not. It tries again, and writes go on until too
    /// much waits for it.
    pub maintenance: Option<Error>,
}

impl Health {
    /// Whether the store takes writes, and nothing that it does by itself has failed.
    pub fn is_good(&self) -> bool {
        matches!(self.state, StoreState::Writable) && self.has_reserve && self.maintenance.is_none()
    }
}

impl Store {
    /// What the store knows of its own health, for metrics and health checks that are made often: it writes nothing,
    /// waits for no call under way, and costs a look through the facts that no run has (some milliseconds at most).
    ///
    /// It does not try the disk: what a store has not written to for an hour may have gone meanwhile. That is what
    /// [`probe`](Self::probe) is for, which writes and syncs, and so may wait as long as the disk does.
    ///
    /// ```
    /// use strongroom::{Algorithm, Options, StoreState};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = Options::new().create(true).open(dir.path())?;
    /// store.begin_upload(Algorithm::Sha256)?;
    /// let health = store.health();
    /// assert!(health.is_good() && matches!(health.state, StoreState::Writable));
    /// assert_eq!(health.uploads, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn health(&self) -> Health {
        let inner = &self.open.inner;
        let state = match inner.files.check_writable() {
            Ok(()) => StoreState::Writable,
            Err(Error::Closed) => StoreState::Closed,
            Err(Error::ReadOnly { cause }) => StoreState::ReadOnly { cause },
            Err(Error::Poisoned { cause }) => StoreState::Stopped { cause },
            Err(other) => StoreState::Stopped { cause: Arc::new(other) },
        };
        let (unfolded_facts, unfolded_bytes) = inner.tables.unfolded_len();
        Health {
            state,
            has_reserve: inner.files.has_reserve(),
            unfolded_facts,
            unfolded_bytes,
            log_bytes: inner.tables.logs().iter().filter_map(|log| log.sealed).map(|(len, _)| len).sum(),
            uploads: inner.blobs.count_uploads(MAX_UPLOADS).ok(),
            locked: inner.files.keys().locked_domains(),
            maintenance: inner.upkeep.last_failure(),
        }
    }
}
