//! The store: options, opening, closing, and the wiring of the rooms.
//!
//! Each room below is a type of its own; an open store has one of each. This is where they are made, where the threads
//! run that do [maintenance] and collection, and where users find everything.

mod blobs;
mod checks;
mod collection;
mod files;
pub(crate) mod format;
mod keys;
mod locked;
mod maintenance;
mod names;
mod open;
pub(crate) mod options;
mod orphans;
mod pins;
mod probe;
mod repositories;
mod rewrite;
mod salvage;
#[cfg(test)]
mod tests;
mod uploads;
mod usage;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub use keys::{DataKeyInfo, DomainInfo};
pub use options::{Maintenance, Options, Recovery};
pub use rewrite::Rewriting;
pub use salvage::{ChangedInRepository, ChangedNames, Salvage, SalvageReport};
pub use usage::Usage;

use crate::blobs::BlobStore;
use crate::check::Checks;
use crate::clock::StoreClock;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::gc::Collections;
use crate::id::{Lsn, SessionId};
use crate::keys::KeyProvider;
use crate::log::Committer;
use crate::names::Names;
use crate::registry::Registry;
use crate::tables::memtable::Memtable;
use crate::tables::{RunList, Signal, Tables, Upkeep};

/// An open store.
///
/// All methods take `&self` and may be called from any number of threads; an `Arc<Store>` is how a program shares it.
/// Writes return when they are durable (see [`Durability`](crate::Durability)). Dropping the store closes it;
/// [`close`](Self::close) does that too, and returns an error if it fails.
///
/// ```
/// use strongroom::{Algorithm, Options};
///
/// # let dir = tempfile::tempdir()?;
/// let store = Options::new().create(true).open(dir.path().join("store"))?;
/// let digest = store.put("hello", Algorithm::Sha256)?;
/// assert_eq!(store.get(&digest)?.bytes()?, "hello");
/// store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Store {
    inner: Arc<Inner>,
    /// Those of maintenance, of the names and of collection.
    threads: Vec<JoinHandle<()>>,
    closed: bool,
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
    clock: StoreClock,
    /// Keeps other processes out. Last, so that it is given back last.
    _lock: LockGuard,
}

/// The lock of the store's directory.
pub(crate) struct LockGuard(#[expect(dead_code, reason = "held, not read")] pub(crate) Box<dyn Send + Sync>);

impl std::fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LockGuard")
    }
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
        guard: LockGuard,
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
            clock,
            _lock: guard,
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
        (&self.inner.tables, &self.inner.log)
    }

    /// The keys that content is encrypted with.
    pub(crate) fn keys(&self) -> Arc<crate::envelope::Keyring> {
        self.inner.files.keys()
    }

    /// Blobs of the store whose content lies elsewhere.
    pub(crate) fn blobs_over(&self, contents: Arc<dyn crate::files::Contents>) -> BlobStore {
        let Inner { tables, log, upkeep, clock, options, .. } = &*self.inner;
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

    /// Makes all writes so far durable. Needed with [`Durability::Relaxed`](crate::Durability::Relaxed) only, where
    /// they are not durable when they return.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the sync fails, or an earlier one did.
    pub fn sync(&self) -> Result<()> {
        self.inner.log.sync()
    }

    /// The LSN of the last commit that is visible.
    pub fn last_lsn(&self) -> Lsn {
        self.inner.tables.visible()
    }

    /// The damage in the log up to which the store was opened for reading, under
    /// [`Recovery::ReadOnlyUpToDamage`]; none where all of the log was read. [`last_lsn`](Self::last_lsn) is the last
    /// commit before it.
    pub fn damage(&self) -> Option<&Error> {
        self.inner.files.damage().map(|damage| &**damage)
    }

    /// Closes the store: ends its threads, makes everything durable and leaves a seal, so that the next opening can
    /// tell damage from a power cut.
    ///
    /// # Errors
    /// The first failure. The store is closed all the same, and nothing acknowledged is lost.
    pub fn close(mut self) -> Result<()> {
        self.shut()
    }

    /// What closing does; the second time, nothing.
    fn shut(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let inner = &self.inner;
        inner.upkeep.stop();
        inner.collector.stop();
        inner.names.stop();
        inner.attempts.join();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // it holds nothing that needs its panic, had it had one
        }
        if inner.files.damage().is_some() {
            return Ok(());
        }
        let writable = inner.files.check_writable();
        if writable.is_err() {
            inner.names.close(inner.tables.visible());
            return writable;
        }
        let noted = inner.registry.write_pulls();
        // On a full disk the facts stay in the log, which has them all the same.
        let folded = inner.log.fold_for_close();
        inner.names.close(inner.tables.visible());
        inner.log.sync()?;
        inner.log.seal()?;
        match noted.and(folded) {
            Err(Error::Full { .. }) => Ok(()),
            other => other,
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.shut(); // `close` is for callers that want to know
    }
}
