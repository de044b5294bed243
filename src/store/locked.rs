//! Key domains that are locked: their keys could not be unwrapped when the store was opened.
//!
//! A call on such a domain fails with the key provider's error; all other domains work. Such a call also has the
//! provider asked again, beside it, so that no call waits for a provider; the domain is unlocked when that answers, or
//! by [`Store::unlock_domains`]. (A store without threads asks in the call.) The default domain can't be locked: lists,
//! and the checks of records in the log, are under its key.
//!
//! [`crate::tables`]'s `locked` describes what is kept for a locked domain; [`crate::log::recovery`], how its records
//! that were not known durable are recovered. The view of names notes which domains were locked when it was made, and
//! is trusted only while the same ones are locked. A domain that has its keys, but of which records are unread, is kept
//! locked until the end of recovery, and then unlocked in the same way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::envelope::{Domain, Keyring, LockedDomain};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::id::{DomainId, Lsn};
use crate::keys::KeyError;
use crate::log::recovery::read_unread;
use crate::store::{Inner, Store};
use crate::sync::lock;
use crate::tables::RunList;
use crate::tables::memtable::Memtable;
use crate::thread;

/// How often calls ask the provider for the keys of a locked domain: at most once in this time, in milliseconds of open
/// time.
const ASKED_EVERY: u64 = 5_000;

/// For how long an answer of the provider is waited for, and how long at a time, so that closing does not wait.
const ASKED_FOR: Duration = Duration::from_secs(60);
const ANSWERED_WITHIN: Duration = Duration::from_millis(100);

/// So many questions about a domain may be without an answer: each has a thread.
const MAX_ASKED: usize = 4;

/// Attempts to unlock domains: which are under way, and when the next one may begin.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    of: Mutex<HashMap<DomainId, Arc<Attempt>>>,
    /// Those that calls have begun.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Attempt {
    /// Held while the provider is asked.
    one: Mutex<()>,
    /// Whether a thread asks.
    is_begun: AtomicBool,
    /// When the next one may, in open time.
    next: AtomicU64,
    /// Shared with the threads that the provider has not answered.
    asked: Arc<()>,
}

impl Attempts {
    fn of(&self, domain: DomainId) -> Arc<Attempt> {
        Arc::clone(lock(&self.of).entry(domain).or_default())
    }

    /// Waits for those that are under way. None is begun while a store is being closed, and none waits for a provider.
    pub(super) fn join(&self) {
        let threads = std::mem::take(&mut *lock(&self.threads));
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

impl Store {
    /// The key domains that are locked: the store was opened without their keys. What is in them is kept, and can't be
    /// read or changed.
    pub fn locked_domains(&self) -> Vec<LockedDomain> {
        self.open.inner.files.keys().locked_domains()
    }

    /// Asks the key provider for the keys of all locked domains, and unlocks those whose keys it returns. Returns the
    /// domains that stay locked, and why.
    ///
    /// A call on a locked domain fails, and has the same done for that domain beside it, at most every five seconds. So
    /// a domain is unlocked without this, but later.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = strongroom::Options::new().create(true).open(dir.path())?;
    /// for domain in store.unlock_domains() {
    ///     eprintln!("domain {} stays locked: {}", domain.number, domain.error);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unlock_domains(&self) -> Vec<LockedDomain> {
        let inner = &self.open.inner;
        let locked: Vec<DomainId> = inner.files.keys().locked().map(|(id, _)| id).collect();
        for id in locked {
            let attempt = inner.attempts.of(id);
            let _one = lock(&attempt.one);
            let _ = inner.unlock(id, &attempt); // why it failed is what the domain says from now on
        }
        self.locked_domains()
    }
}

/// Takes the keys from domains of which records are unread, until they are [taken in](Inner::take_in).
pub(super) fn hold_back(keys: Keyring, list: &RunList) -> (Keyring, Vec<(DomainId, Domain)>) {
    let (mut keys, mut held_back) = (keys, Vec::new());
    for unread in list.unread.iter().filter(|unread| unread.domain != DomainId::DEFAULT) {
        let Some(domain) = keys.domains.get(&unread.domain).filter(|_| keys.is_open(unread.domain)).cloned() else {
            continue;
        };
        let reason = "its records in the log were not read yet".to_owned();
        let why = Error::Key { domain: unread.domain.0, source: KeyError::Unreachable { reason } };
        keys = keys.with(unread.domain, domain.locked(why));
        held_back.push((unread.domain, domain));
    }
    (keys, held_back)
}

/// Reads what was held back into memory, up to the LSN behind which the log is damaged, where files are not changed: a
/// domain with which that fails stays locked.
pub(super) fn read_held_back(
    files: &Files,
    list: &mut RunList,
    held_back: Vec<(DomainId, Domain)>,
    until: Lsn,
    table: &Memtable,
) {
    for (id, domain) in held_back {
        let (known, read) = (files.keys(), Memtable::new());
        let keys = known.with(id, domain.clone());
        let mut unread = list.unread.iter().filter(|unread| unread.domain == id);
        match unread.try_for_each(|unread| read_unread(files, unread, &keys, until, &read)) {
            Ok(()) => {
                read.sorted(Lsn(u64::MAX)).into_iter().for_each(|fact| table.insert(list.folded, fact));
                list.unread.retain(|unread| unread.domain != id);
                files.set_keys(keys);
            }
            Err(why) => files.set_keys(known.with(id, domain.locked(why))),
        }
    }
}

impl Inner {
    /// What a call comes to. Where it failed since a domain was locked, and another attempt to unlock that is due, this
    /// begins one; without threads it makes the attempt, and the call again.
    pub(super) fn unlocking<T>(self: &Arc<Self>, call: impl Fn() -> Result<T>) -> Result<T> {
        let error = match call() {
            Err(error) => error,
            done => return done,
        };
        // A domain may be locked for another reason than its keys: the error does not say which, then.
        let keys = self.files.keys();
        let matches = |id: DomainId, why: &Error| match (&error, why) {
            (Error::Key { domain, .. }, _) => *domain == id.0,
            (_, Error::Key { .. }) => false,
            (error, why) => std::mem::discriminant(error) == std::mem::discriminant(why),
        };
        let locked = keys.locked().filter(|(id, why)| matches(*id, why)).map(|(id, _)| id);
        if self.upkeep.is_inline() {
            let is_tried = locked.fold(false, |any, id| any | self.unlock_if_due(id));
            return if is_tried { call() } else { Err(error) };
        }
        locked.for_each(|id| self.begin_to_unlock(id));
        Err(error)
    }

    /// Has a thread try to unlock a domain, if that is due and none does.
    fn begin_to_unlock(self: &Arc<Self>, id: DomainId) {
        let attempt = self.attempts.of(id);
        if !self.is_due(id, &attempt) || attempt.is_begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut threads = lock(&self.attempts.threads);
        let (inner, own) = (Arc::clone(self), Arc::clone(&attempt));
        let begun = thread::spawn("strongroom-unlock", move || {
            inner.unlock_if_due(id);
            own.is_begun.store(false, Ordering::Release);
        });
        threads.retain(|thread| !thread.is_finished());
        match begun {
            Ok(thread) => threads.push(thread),
            Err(_) => attempt.is_begun.store(false, Ordering::Release), // the next call tries again
        }
    }

    /// Not where nothing can be written: what was unread becomes a run.
    fn is_due(&self, id: DomainId, attempt: &Attempt) -> bool {
        let is_due = || self.clock.open_time() >= attempt.next.load(Ordering::Relaxed);
        self.files.check_writable().is_ok() && (self.files.keys().is_open(id) || is_due())
    }

    /// Tries to unlock a domain, unless another attempt is under way or the last one was too short ago: no caller waits
    /// for another one's attempt. `false` where it was not tried.
    fn unlock_if_due(&self, id: DomainId) -> bool {
        let attempt = self.attempts.of(id);
        let _one = match attempt.one.try_lock() {
            Ok(one) => one,
            Err(TryLockError::Poisoned(one)) => one.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let is_due = self.is_due(id, &attempt);
        if is_due {
            let _ = self.unlock(id, &attempt); // why it failed is what the domain says from now on
        }
        is_due
    }

    /// Asks the provider for a domain's keys, while no lock is held but that of the attempt, and unlocks it.
    fn unlock(&self, id: DomainId, attempt: &Attempt) -> Result<()> {
        let keys = self.files.keys();
        let Some(domain) = keys.domains.get(&id).filter(|domain| domain.lock.is_some()) else { return Ok(()) };
        let open = self.ask(id, domain, attempt);
        // Counted from the answer: one that takes long does not make for more questions.
        attempt.next.store(self.clock.open_time().saturating_add(ASKED_EVERY), Ordering::Relaxed);
        {
            let _changes = lock(&self.key_changes);
            if self.files.keys().lock_of(id).is_none() {
                return Ok(()); // shredded meanwhile
            }
            open.and_then(|open| self.take_in(id, open)).inspect_err(|why| self.keep_locked(id, why))?;
        }
        // It is unlocked, whatever becomes of these: maintenance tries again.
        let _ = self.release_withheld();
        self.registry.purge_later(); // what repositories have left that it had deleted
        Ok(())
    }

    /// Asks the provider for a domain's keys. On a thread of its own: one that does not answer keeps nobody from
    /// closing the store.
    fn ask(&self, id: DomainId, domain: &Domain, attempt: &Attempt) -> Result<Domain> {
        let (provider, store) = (self.provider()?, self.files.store());
        if self.upkeep.is_inline() {
            return domain.unwrapped(store, id, &*provider);
        }
        let no_answer = || {
            let reason = "it has not answered".to_owned();
            Error::Key { domain: id.0, source: KeyError::Unreachable { reason } }
        };
        let asked = Arc::clone(&attempt.asked);
        if Arc::strong_count(&asked) > 1 + MAX_ASKED {
            return Err(no_answer());
        }
        let (answer, answered) = sync_channel(1);
        let domain = domain.clone();
        let ask = move || {
            let _asked = asked;
            drop(answer.send(domain.unwrapped(store, id, &*provider)));
        };
        let asking = thread::spawn("strongroom-key", ask);
        asking.map_err(Error::io("start a thread of", self.files.layout().root()))?;
        for _ in 0..ASKED_FOR.as_millis() / ANSWERED_WITHIN.as_millis() {
            match answered.recv_timeout(ANSWERED_WITHIN) {
                Ok(open) => return open,
                Err(RecvTimeoutError::Timeout) if !self.upkeep.closes() => {}
                Err(_) => break,
            }
        }
        Err(no_answer())
    }

    /// Notes why a domain stays locked. Keys do not change meanwhile.
    fn keep_locked(&self, id: DomainId, why: &Error) {
        let keys = self.files.keys();
        let Some(domain) = keys.domains.get(&id) else { return };
        let list = self.tables.hold_list();
        let keys = keys.with(id, domain.locked(why.clone()));
        self.files.set_keys(keys.clone());
        self.tables.see_locked(&keys, &list);
    }

    /// Takes in what a locked domain has, whose keys are there: reads its records that no run has, opens its runs, and
    /// has its names read. Keys do not change meanwhile.
    fn take_in(&self, id: DomainId, open: Domain) -> Result<()> {
        {
            let _folding = self.tables.pause_folding();
            let keys = self.files.keys().with(id, open);
            let (unread, table) = (self.tables.unread_of(id), Memtable::new());
            unread.iter().try_for_each(|unread| read_unread(&self.files, unread, &keys, Lsn(u64::MAX), &table))?;
            let runs = self.tables.take_in(id, &keys, &unread, &table)?;
            // Whoever is opening or rebuilding the view of names does so with the domains of before.
            self.names.suspend();
            self.log.between_commits(|| self.tables.open_domain(keys, &runs));
        }
        self.names.restart(self.options.names_on_disk.then(|| self.files.layout().names()));
        Ok(())
    }

    /// Takes in what was held back. A domain with which that fails stays locked, and the next call on it tries again.
    pub(super) fn take_in_all(&self, held_back: Vec<(DomainId, Domain)>) -> Result<()> {
        if held_back.is_empty() {
            return Ok(());
        }
        for (id, domain) in held_back {
            let _ = self.take_in(id, domain).inspect_err(|why| self.keep_locked(id, why));
        }
        self.files.check_writable()?;
        self.release_withheld()
    }

    /// Looks at what was withheld for a domain that is not locked any more.
    pub(super) fn release_withheld(&self) -> Result<()> {
        self.tables.leave_empty_logs()?;
        match self.log.drop_dead_logs() {
            Err(Error::Full { .. }) => Ok(()), // maintenance tries again
            other => other,
        }
    }
}
