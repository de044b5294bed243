//! The store: options, opening, closing, and the wiring of the rooms.
//!
//! Each room below is a type of its own; an open store has one of each. This is where they are made, where the threads
//! run that do [maintenance] and collection, and where users find everything.

mod backup;
mod blobs;
mod checks;
mod collection;
mod files;
mod follow;
pub(crate) mod format;
mod health;
mod keys;
mod locked;
mod maintenance;
mod named;
mod names;
mod open;
pub(crate) mod options;
mod orphans;
mod probe;
mod repositories;
mod rewrite;
mod salvage;
mod snapshot;
#[cfg(test)]
#[cfg(feature = "encryption")]
mod tests;
mod uploads;
mod usage;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub use backup::{SnapshotOptions, SnapshotReport};
pub use health::{Health, StoreState};
pub use keys::{DataKeyInfo, DomainInfo};
pub use named::NamedFiles;
pub use options::{Maintenance, Options, Recovery};
pub use rewrite::Rewriting;
pub use salvage::{ChangedInRepository, ChangedNames, Salvage, SalvageReport};
pub use snapshot::{NamedSnapshot, Snapshot};
pub use usage::Usage;

use crate::blobs::BlobStore;
use crate::check::Checks;
use crate::clock::StoreClock;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::gc::Collections;
use crate::id::{Lsn, SessionId};
use crate::keys::KeyProvider;
use crate::log::{Committer, Durability};
use crate::names::Names;
use crate::registry::Registry;
use crate::sync::lock;
use crate::tables::memtable::Memtable;
use crate::tables::{RunList, Signal, Tables, Upkeep};

/// A handle to an open store.
///
/// Handles are cheap to clone, and all methods may be called from any number of threads. The store is open until the
/// last handle is dropped, [repositories](crate::registry::Repository) included, or until one of them is
/// [closed](Self::close), which closes it for all. Writes return when they are durable (see
/// [`Durability`](crate::Durability)).
///
/// ```
/// use strongroom::{Algorithm, Options};
///
/// # let dir = tempfile::tempdir()?;
/// let store = Options::new().create(true).open(dir.path().join("store"))?;
/// let stored = store.put("hello", Algorithm::Sha256)?;
/// let other = store.clone();
/// let content = std::thread::spawn(move || other.get(&stored.digest)?.bytes()).join().unwrap()?;
/// assert_eq!(content, "hello");
/// store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    open: Arc<Open>,
    /// When writes through this handle return.
    durability: Durability,
}

/// A store that is open, until the last handle drops it.
#[derive(Debug)]
struct Open {
    inner: Arc<Inner>,
    /// Those of maintenance, of the names and of collection.
    threads: Mutex<Vec<JoinHandle<()>>>,
    is_closed: Mutex<bool>,
}

/// The rooms of an open store, and what only the store itself needs.
pub(crate) struct Inner {
    options: Options,
    files: Arc<Files>,
    tables: Arc<Tables>,
    log: Arc<Committer>,
    names: Arc<Names>,
    blobs: Arc<BlobStore>,
    registry: Arc<Registry>,
    collections: Collections,
    checks: Checks,
    upkeep: Arc<Upkeep>,
    /// What the thread waits for that collects in the background.
    collector: Signal,
    /// Held while the view of names is opened or rebuilt.
    names_refresh: Mutex<()>,
    /// The provider of the key that data keys are wrapped with.
    key_provider: Mutex<Option<Arc<dyn KeyProvider>>>,
    /// Held while keys are changed.
    key_changes: Mutex<()>,
    /// Attempts to unlock domains.
    attempts: locked::Attempts,
    /// Where the store is open for reading only: how far the one that writes it was followed.
    follower: Option<follow::Follower>,
    clock: StoreClock,
}

/// Where it is: what it holds, and what its keys have decrypted, is not for logs.
impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("dir", &self.files.layout().root()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Makes the rooms of a store whose list says this, whose log has these facts that no run has, all durable up to an
    /// LSN, and whose last log file reaches so far, if the list has it as open.
    fn new(
        options: Options,
        (files, names): (Arc<Files>, Arc<Names>),
        clock: StoreClock,
        session: SessionId,
        (list, table, durable, unsealed): (RunList, Memtable, Lsn, Option<(u64, Lsn)>),
    ) -> Self {
        let upkeep = Arc::new(Upkeep::default());
        let (file, up, name) = (|| Arc::clone(&files), || Arc::clone(&upkeep), || Arc::clone(&names));
        let below = (file(), name(), up());
        let tables = Tables::new(below, clock.clone(), options.tables(), session, list, (table, durable));
        let tables = Arc::new(tables);
        let below = (file(), Arc::clone(&tables), name(), up());
        let log = Arc::new(Committer::new(below, clock.clone(), options.log(), session, (durable, unsealed)));
        let below = || (file(), Arc::clone(&tables), Arc::clone(&log));
        let (contents, facts, commits) = below();
        let blobs = BlobStore::new((contents, facts, commits), up(), clock.clone(), options.blobs());
        let blobs = Arc::new(blobs);
        let retention = options.log().retention;
        let registry = Registry::new(below(), up(), Arc::clone(&blobs), clock.clone(), retention);
        let registry = Arc::new(registry);
        let content = || (Arc::clone(&blobs), Arc::clone(&registry));
        Self {
            collections: Collections::new(below(), content(), up(), clock.clone(), options.collections()),
            checks: Checks::new(below(), content(), up(), clock.clone()),
            collector: Signal::default(),
            names_refresh: Mutex::default(),
            key_provider: Mutex::new(options.key_provider.clone()),
            key_changes: Mutex::default(),
            attempts: locked::Attempts::default(),
            follower: None,
            clock,
            options,
            files,
            tables,
            log,
            names,
            blobs,
            registry,
            upkeep,
        }
    }
}

#[cfg(test)]
impl Store {
    /// Where facts are, and where commits go.
    pub(crate) fn rooms(&self) -> (&Tables, &Committer) {
        (&self.open.inner.tables, &self.open.inner.log)
    }

    /// The keys that content is encrypted with.
    pub(crate) fn keys(&self) -> Arc<crate::envelope::Keyring> {
        self.open.inner.files.keys()
    }

    /// Blobs of the store whose content lies elsewhere.
    pub(crate) fn blobs_over(&self, contents: Arc<dyn crate::files::Contents>) -> BlobStore {
        let Inner { tables, log, upkeep, clock, options, .. } = &*self.open.inner;
        let below = (contents, Arc::clone(tables), Arc::clone(log));
        BlobStore::new(below, Arc::clone(upkeep), clock.clone(), options.blobs())
    }
}

impl Store {
    /// Opens the store in a directory with the default [`Options`].
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(dir)
    }

    /// The same store, whose writes through the new handle, and through repositories opened with it, return when this
    /// says: so durability can be chosen for each call. A synced write makes all commits before it durable too.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Durability, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let relaxed = store.with_durability(Durability::Relaxed);
    /// for part in ["a", "b", "c"] {
    ///     relaxed.put(part, Algorithm::Blake3)?;
    /// }
    /// store.sync()?; // all three at once
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self { open: Arc::clone(&self.open), durability }
    }

    /// The rooms, while the store is open.
    fn inner(&self) -> Result<&Arc<Inner>> {
        self.open.inner.files.check_open()?;
        Ok(&self.open.inner)
    }

    /// Makes all writes so far durable. Needed with [`Durability::Relaxed`](crate::Durability::Relaxed) only, where
    /// they are not durable when they return.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the sync fails, or an earlier one did; [`Error::Closed`].
    pub fn sync(&self) -> Result<()> {
        self.inner()?.log.sync()
    }

    /// The LSN of the last commit that is visible.
    pub fn last_lsn(&self) -> Lsn {
        self.open.inner.tables.visible()
    }

    /// The damage in the log up to which the store was opened for reading, under
    /// [`Recovery::ReadOnlyUpToDamage`]; none where all of the log was read. [`last_lsn`](Self::last_lsn) is the last
    /// commit before it.
    pub fn damage(&self) -> Option<&Error> {
        self.open.inner.files.damage().map(|damage| &**damage)
    }

    /// Closes the store, for all its handles: ends its threads, makes everything durable, leaves a seal, so that the
    /// next opening can tell damage from a power cut, and gives the lock of the directory back. From then on calls fail
    /// with [`Error::Closed`]; blobs that were opened stay readable. A call that is under way in another thread may end
    /// with that error too, and then be durable or not.
    ///
    /// # Errors
    /// The first failure. The store is closed all the same, and nothing acknowledged is lost.
    pub fn close(self) -> Result<()> {
        self.open.shut()
    }
}

impl Open {
    fn new(inner: Arc<Inner>) -> Self {
        Self { inner, threads: Mutex::default(), is_closed: Mutex::new(false) }
    }

    fn into_store(self) -> Store {
        let durability = self.inner.options.durability;
        Store { open: Arc::new(self), durability }
    }

    /// What closing does; the second time, nothing.
    fn shut(&self) -> Result<()> {
        let mut is_closed = lock(&self.is_closed);
        if std::mem::replace(&mut *is_closed, true) {
            return Ok(());
        }
        let inner = &self.inner;
        inner.upkeep.stop();
        inner.collector.stop();
        inner.names.stop();
        inner.attempts.join();
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join(); // it holds nothing that needs its panic, had it had one
        }
        let ended = inner.end();
        inner.files.close();
        inner.tables.end_waiting();
        ended
    }
}

impl Inner {
    /// Folds, syncs and seals.
    fn end(&self) -> Result<()> {
        if self.files.read_only().is_some() {
            return Ok(());
        }
        let writable = self.files.check_writable();
        if writable.is_err() {
            self.names.close(self.tables.visible());
            return writable;
        }
        let noted = self.registry.write_pulls();
        // On a full disk the facts stay in the log, which has them all the same.
        let folded = self.log.fold_for_close();
        self.names.close(self.tables.visible());
        self.log.sync()?;
        self.log.seal()?;
        match noted.and(folded) {
            Err(Error::Full { .. }) => Ok(()),
            other => other,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.shut(); // `close` is for callers that want to know
    }
}
