//! The store: commits, readers' views, recovery and maintenance, and the operations that users call.
//!
//! [`request`] decides what a commit does, [`commit`] makes it durable and visible, [`view`] is what readers see,
//! [`maintenance`] turns facts into runs, [`open`] brings it all back after a restart or a crash.

pub(crate) mod format;
mod keys;
mod open;
pub(crate) mod options;
mod probe;
mod rewrite;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, RwLock};
use std::thread::JoinHandle;

pub use keys::{DataKeyInfo, DomainInfo};
pub use options::{Compression, Durability, Maintenance, Options};
pub use rewrite::{GoOn, Rewriting};
pub use usage::Usage;

use crate::blobs::uploads::Slots;
use crate::clock;
use crate::error::{Error, Result};
use crate::files::{Files, Space, open_dir};
use crate::gc;
use crate::id::{FileId, Lsn, SessionId};
use crate::keys::KeyProvider;
use crate::log::Times;
use crate::log::commit::{Queue, Tip};
use crate::names::Names;
use crate::registry::{Chores, EventPositions};
use crate::sync::{lock, read, write};
use crate::tables::maintenance::Signal;
use crate::tables::view::View;
use crate::tables::{LogEntry, RunList};

/// An open store.
///
/// All methods take `&self` and may be called from any number of threads; an `Arc<Store>` is how a program shares it.
/// Writes return when they are durable (see [`Durability`]). Dropping the store closes it; [`close`](Self::close) does
/// that too, and says whether it went well.
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
    pub(crate) inner: Arc<Inner>,
    /// Those of maintenance and of collection.
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

/// What the store's methods, their leaders and the maintenance thread share.
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) files: Files,
    /// This opening of the store.
    pub(crate) session: SessionId,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) tip: Mutex<Tip>,
    pub(crate) view: RwLock<Arc<View>>,
    /// What `runs/LIST` says. Held while the file is replaced.
    pub(crate) list: Mutex<RunList>,
    /// The log files that it names, for readers and commits: they do not wait for the file.
    pub(crate) logs: RwLock<Arc<[LogEntry]>>,
    /// The last LSN that readers see.
    pub(crate) visible: AtomicU64,
    /// The last LSN that is durable.
    pub(crate) durable: AtomicU64,
    /// How many of the log files that the list names have facts that no run has.
    pub(crate) unfolded_logs: AtomicU64,
    pub(crate) names: Names,
    /// Held by who opens the view of names or rebuilds it.
    pub(crate) names_refresh: Mutex<()>,
    pub(crate) uploads: Mutex<Slots>,
    pub(crate) signal: Signal,
    /// What the thread waits for that collects in the background.
    pub(crate) collector: Signal,
    pub(crate) collections: gc::Memory,
    /// Held by who scrubs.
    pub(crate) scrubbing: Mutex<()>,
    /// Held by who does maintenance.
    pub(crate) maintenance: Mutex<()>,
    /// Log files that no list names any more, to be removed where nothing lives in them.
    pub(crate) dead_logs: Mutex<Vec<FileId>>,
    /// Runs that a merge has found damaged: it is not tried again.
    pub(crate) damaged_runs: Mutex<HashSet<FileId>>,
    /// Whether the log may hold records of a group that failed, since it could not be sealed before them.
    pub(crate) unsettled: AtomicBool,
    /// The maintenance thread's last failure, for who waits for it.
    pub(crate) maintenance_failure: Mutex<Option<Error>>,
    /// Who has the key that data keys are wrapped with.
    pub(crate) key_provider: Mutex<Option<Arc<dyn KeyProvider>>>,
    /// Held by who changes keys.
    pub(crate) key_changes: Mutex<()>,
    /// What is to be done for repositories.
    pub(crate) chores: Chores,
    /// Where readings of events ended.
    pub(crate) event_positions: Mutex<EventPositions>,
    /// A table became a run.
    pub(crate) folded: Condvar,
    /// The first failed sync.
    pub(crate) poison: OnceLock<Arc<Error>>,
    /// The open time that earlier openings have added up, less what the clock said when this one began, in
    /// milliseconds.
    pub(crate) open_time_base: i64,
    /// Keeps other processes out. Last, so that it is given back last.
    pub(crate) _lock: LockGuard,
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
        f.debug_struct("Inner").field("dir", &self.files.layout.root()).finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&read(&self.view))
    }

    /// The last LSN that readers see.
    pub(crate) fn visible(&self) -> Lsn {
        Lsn(self.visible.load(Ordering::Acquire))
    }

    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// The open time in milliseconds, over all openings.
    pub(crate) fn open_time(&self) -> u64 {
        self.options.clock.elapsed().saturating_add_signed(self.open_time_base).min(clock::MAX)
    }

    pub(crate) fn now(&self) -> Times {
        Times { wall: self.options.clock.wall(), open: self.open_time() }
    }

    /// The oldest log file that recovery needs, where `active` is the one being written.
    pub(crate) fn oldest_log(&self, active: FileId) -> FileId {
        read(&self.logs).first().map_or(active, |log| log.id.min(active))
    }

    /// Whether the store is being closed.
    pub(crate) fn closes(&self) -> bool {
        self.collector.stopped()
    }

    /// Fails if an earlier sync did.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { cause: Arc::clone(cause) }),
            None => Ok(()),
        }
    }

    /// Stops all writes because of a failed sync.
    pub(crate) fn poison(&self, error: Error) -> Error {
        let cause = self.poison.get_or_init(|| Arc::new(error));
        Error::Poisoned { cause: Arc::clone(cause) }
    }

    /// Stops all writes if what failed was a sync, which says nothing of what reached the disk, as later ones then do.
    pub(crate) fn fail_stop(&self, error: Error) -> Error {
        match error {
            Error::Io { operation: "sync", .. } => self.poison(error),
            other => other,
        }
    }

    /// Replaces `runs/LIST` by what `change` makes of it.
    ///
    /// # Errors
    /// After [`Error::Poisoned`] the one or the other list may count; after any other error it is the old one.
    pub(crate) fn update_list(&self, space: Space, mut change: impl FnMut(&mut RunList)) -> Result<()> {
        self.files.within(space, || self.replace_list(&mut change))
    }

    fn replace_list(&self, change: &mut dyn FnMut(&mut RunList)) -> Result<()> {
        self.check_writable()?;
        let mut list = lock(&self.list);
        let mut new = list.clone();
        (new.next_file, new.orphan_floor) = self.files.horizon();
        new.durable = self.durable().max(new.durable);
        new.session = self.session;
        new.open_time_ms = self.open_time();
        new.generation = new.generation.saturating_add(1);
        change(&mut new);
        let (vfs, runs) = (&*self.files.vfs, self.files.layout.runs());
        let dir = open_dir(vfs, &runs)?;
        let file = new.write(vfs, &runs, &self.files.keys.get())?;
        file.sync().map_err(Error::io("sync", &runs)).map_err(|error| self.poison(error))?;
        // From here on the new list may be the one that counts, whatever comes back.
        RunList::publish(vfs, &runs, &*dir).map_err(|error| self.poison(error))?;
        self.unfolded_logs.store(new.unfolded_logs(), Ordering::Relaxed);
        if new.logs != list.logs {
            *write(&self.logs) = new.logs.as_slice().into();
        }
        *list = new;
        Ok(())
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

    /// Makes all writes so far durable: for [`Durability::Relaxed`], where they are not when they return.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the sync fails, or an earlier one did.
    pub fn sync(&self) -> Result<()> {
        self.inner.sync()
    }

    /// The LSN of the last commit that is visible.
    pub fn last_lsn(&self) -> Lsn {
        self.inner.visible()
    }

    /// Closes the store: ends its thread, makes everything durable and leaves a seal, so that the next opening can tell
    /// damage from a power cut.
    ///
    /// # Errors
    /// What failed of that. The store is closed all the same, and nothing acknowledged is lost.
    pub fn close(mut self) -> Result<()> {
        self.shut()
    }

    /// What closing does; the second time, nothing.
    fn shut(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let inner = &self.inner;
        inner.signal.stop();
        inner.collector.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // it holds nothing that needs its panic, had it had one
        }
        if inner.poison.get().is_some() {
            inner.names.close(inner.snapshot().lsn);
            return inner.check_writable();
        }
        let noted = inner.write_pulls();
        // On a full disk the facts stay in the log, which has them all the same.
        let folded = inner.fold_for_close();
        inner.names.close(inner.snapshot().lsn);
        inner.sync()?;
        inner.seal()?;
        match noted.and(folded) {
            Err(Error::Full { .. }) => Ok(()),
            other => other,
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.shut(); // `close` is for who wants to know
    }
}
