//! Names in order: a derived view, on sled.
//!
//! Facts lie in the runs by the hashes of names, so they have no order of names. This view has: it answers which names
//! of a kind, in a key domain, come after one. Everything in it can be read from the facts again; its directory may be
//! deleted, damaged, restored from an older moment or taken from another store, and no answer changes. (It is the one
//! place where files are touched outside of [`crate::vfs`]: by sled, which no one relies on.)
//!
//! # When it is trusted
//! Names are written to sled together with a *watermark*, in one batch: the store, the session, the boot of the machine
//! and the LSN up to which commits are in it. After a restart it is trusted only if sled opens, the store and the boot
//! are the same (sled's flush does not call fsync, so what it wrote may be lost with the machine), the session is the
//! last one that the log knows, and the LSN is not below what the log can replay nor above where it ends. Otherwise it
//! is thrown away and rebuilt from the facts, and until that is done readers are told to ask those.
//!
//! # What holds while it runs
//! A commit's names go into an overlay in memory as the commit becomes visible, and to sled later, in batches. Neither
//! commits nor readers wait for that: while a batch is written it stays in sight beside the overlay. An error or a
//! panic in sled turns the view into one in memory, which is rebuilt. Nothing that it does fails a commit.

mod memory;
mod seal;
mod sled;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::envelope::Keys;
use crate::error::is_shortage;
use crate::id::{DomainId, Lsn, RepositoryId, SessionId, StoreId};
use crate::names::memory::MemoryBackend;
use crate::names::sled::SledBackend;
use crate::sync::lock;
use crate::wire::{Fields, PutFields};

/// What a name names. The numbers stand in sled's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum NameKind {
    /// A pin.
    Pin = 1,
    /// A repository.
    Repository = 2,
    /// A tag, as [`tag_name`] has it.
    Tag = 3,
}

/// What a commit did to a name.
#[derive(Clone, Debug)]
pub(crate) struct NameChange {
    pub(crate) domain: DomainId,
    pub(crate) kind: NameKind,
    pub(crate) name: String,
    pub(crate) change: Change,
}

/// A tag behind its repository's id, in hex digits of one length: so all tags of a repository lie together, in order.
pub(crate) fn tag_name(repository: RepositoryId, tag: &str) -> String {
    format!("{:012x}{tag}", repository.0)
}

/// The first of names that come in any order, those behind `after`: for who has to ask the facts.
pub(crate) fn first_names<E>(
    names: impl Iterator<Item = Result<String, E>>,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, E> {
    let mut first = BTreeSet::new();
    for name in names {
        let name = name?;
        if after.is_none_or(|after| name.as_str() > after) {
            first.insert(name);
            if first.len() > limit {
                first.pop_last();
            }
        }
    }
    Ok(first.into_iter().collect())
}

/// What became of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Set,
    Remove,
}

/// One boot of the machine; none where that can't be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootId(Option<Vec<u8>>);

impl BootId {
    pub(crate) fn current() -> Self {
        let id = std::fs::read("/proc/sys/kernel/random/boot_id").ok();
        Self(id.map(|id| id.trim_ascii().to_vec()).filter(|id| !id.is_empty() && id.len() < 100))
    }
}

/// What the store knows when it opens the view.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    pub(crate) store: StoreId,
    /// The last session that wrote to the log.
    pub(crate) session: SessionId,
    /// The log can replay all commits behind this.
    pub(crate) folded: Lsn,
    /// The log's last commit.
    pub(crate) last: Lsn,
    pub(crate) boot: BootId,
}

/// How names are laid out in sled. A view of another layout is not trusted.
const LAYOUT: u8 = 3;

/// How far the names in a backend reach, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Watermark {
    store: StoreId,
    session: SessionId,
    lsn: Lsn,
    boot: Vec<u8>,
}

impl Watermark {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(LAYOUT);
        out.put(&self.store.0);
        out.put(&self.session.0);
        out.put_u64(self.lsn.0);
        out.put(&self.boot);
        out
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        (fields.u8()? == LAYOUT).then_some(())?;
        let store = StoreId(fields.array()?);
        let session = SessionId(fields.array()?);
        let lsn = Lsn(fields.u64()?);
        Some(Self { store, session, lsn, boot: fields.0.to_vec() })
    }

    fn is_trusted(&self, trust: &Trust) -> bool {
        self.store == trust.store
            && self.session == trust.session
            && trust.boot.0.as_ref() == Some(&self.boot)
            && (trust.folded..=trust.last).contains(&self.lsn)
    }
}

/// A failure of a backend. What it was matters to nobody: the answer to all is to rebuild.
#[derive(Clone, Copy, Debug)]
struct Failed;

/// Why a backend could not be opened.
#[derive(Clone, Copy, Debug)]
enum Unopened {
    /// There were no threads, file descriptors or memory for it. What is there stays as it is.
    Short,
    /// For another reason.
    Failed,
}

impl From<Failed> for Unopened {
    fn from(_: Failed) -> Self {
        Self::Failed
    }
}

impl From<std::io::Error> for Unopened {
    fn from(error: std::io::Error) -> Self {
        if is_shortage(&error) { Self::Short } else { Self::Failed }
    }
}

/// Changes of names, the newest for each.
type Changes = BTreeMap<Vec<u8>, Change>;

/// Keys in order.
trait Backend: Send + Sync {
    /// Sets and removes keys, then sets the watermark. Of the keys, any may be left undone where this fails.
    fn write(&self, changes: &Changes, watermark: Option<&[u8]>) -> Result<(), Failed>;

    /// The keys behind `after` and before `end`, which both begin with the same byte, at most `limit`.
    fn keys_between(&self, after: &[u8], end: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Failed>;

    /// The watermark written last.
    fn watermark(&self) -> Result<Option<Vec<u8>>, Failed>;

    /// Writes out what waits, as far as the backend can.
    fn close(&self);
}

/// The view.
pub(crate) struct Names {
    state: Mutex<State>,
    /// Held by who writes to the backend.
    writer: Mutex<()>,
    identity: Watermark,
    keys: Keys,
}

struct State {
    backend: Arc<dyn Backend>,
    /// Where a backend is to be, and when what is there would be trusted, if at all; none once that was looked at.
    to_open: Option<(PathBuf, Option<Trust>)>,
    /// Changes that the backend does not have.
    overlay: Changes,
    /// Those, older than the overlay, that are being written to it.
    in_flight: Arc<Changes>,
    /// All commits up to this LSN are in the overlay or older.
    lsn: Lsn,
    /// The LSN of the backend's watermark.
    written: Lsn,
    /// Whether the backend has, with what is in flight and the overlay, all names.
    ready: bool,
    /// Whether a backend failed, so that a rebuild is due.
    failed: bool,
    /// Whether that waits since there was a shortage: until somebody does maintenance for another reason.
    short: bool,
}

/// Behind all names: no text begins with the last of all characters twice.
const LAST: &str = "\u{10ffff}\u{10ffff}";

/// So many changes wait at most before they go to the backend.
const OVERLAY_MAX: usize = 4096;

/// How many bytes of names a rebuild sorts at a time before it writes them.
const BATCH: usize = 16 << 20;

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

/// What stands before a name in its key.
const PREFIX_LEN: usize = 5;

/// The key of a name: `kind u8 | domain u32, big-endian | name`.
fn key(domain: DomainId, kind: NameKind, name: &str) -> Vec<u8> {
    let mut key = vec![kind as u8];
    key.put(&domain.0.to_be_bytes());
    key.put(name.as_bytes());
    key
}

impl Names {
    /// A view in a directory, or one in memory. Until it was [prepared](Self::prepare) it has no answers.
    pub(crate) fn new(dir: Option<PathBuf>, session: SessionId, trust: Trust, keys: Keys) -> Self {
        let boot = trust.boot.0.clone().unwrap_or_default();
        let state = State {
            backend: Arc::new(MemoryBackend::default()),
            to_open: dir.map(|dir| (dir, Some(trust.clone()))),
            overlay: Changes::new(),
            in_flight: Arc::default(),
            lsn: trust.last,
            written: Lsn::ZERO,
            ready: false,
            failed: true,
            short: false,
        };
        let identity = Watermark { store: trust.store, session, lsn: Lsn::ZERO, boot };
        Self { state: Mutex::new(state), writer: Mutex::default(), identity, keys }
    }

    /// Opens what is in the directory, if that was not done, and says whether the names have to be [read from the
    /// facts](Self::rebuild) again. Opening sled takes tens of milliseconds, so this is not part of opening the store
    /// where a thread can do it. Where there is a shortage, that is left to the next time, and the facts are asked.
    pub(crate) fn prepare(&self) -> bool {
        let Some((dir, trust)) = lock(&self.state).to_open.take() else { return self.needs_rebuild() };
        let trusted = trust.as_ref().map_or(Ok(None), |trust| open_trusted(&dir, trust, &self.keys));
        let opened = trusted.and_then(|trusted| match trusted {
            Some(backend) => Ok((backend, true)),
            None => Ok((SledBackend::create(&dir, &self.keys)?, false)),
        });
        let mut state = lock(&self.state);
        match opened {
            Ok((backend, trusted)) => {
                state.backend = Arc::new(backend);
                (state.ready, state.failed, state.short) = (trusted, !trusted, false);
                !trusted
            }
            Err(Unopened::Failed) => true,
            Err(Unopened::Short) => {
                state.to_open = Some((dir, trust));
                state.short = true;
                false
            }
        }
    }

    /// Begins anew, in a directory or in memory: how names are kept has changed. Until they were read from the facts
    /// again there are no answers.
    pub(crate) fn restart(&self, dir: Option<PathBuf>) {
        let _writer = lock(&self.writer);
        let mut state = lock(&self.state);
        state.backend.close();
        state.backend = Arc::new(MemoryBackend::default());
        state.to_open = dir.map(|dir| (dir, None));
        state.in_flight = Arc::default(); // the facts have them
        state.overlay.clear();
        (state.ready, state.failed, state.short) = (false, true, false);
    }

    /// Takes in what a group of commits did to names, in their order, and makes the group `visible`: who asks for names
    /// sees all that it did or nothing of it.
    pub(crate) fn apply(&self, changes: &[(Lsn, NameChange)], visible: impl FnOnce()) {
        let mut state = lock(&self.state);
        visible();
        state.lsn = changes.iter().map(|(lsn, _)| *lsn).fold(state.lsn, Lsn::max);
        if !state.ready && !state.failed {
            return; // given up for this opening: what waited would wait for ever
        }
        if state.short
            && state.overlay.len() > OVERLAY_MAX
            && let Some((_, trust)) = &mut state.to_open
        {
            *trust = None; // what waits for the backend must not grow for ever: the facts have it
            state.overlay.clear();
        }
        state.overlay.extend(changes.iter().map(|(_, one)| (key(one.domain, one.kind, &one.name), one.change)));
    }

    /// The names of a kind in some domains behind `after`, in order, at most `limit`; `None` where the facts have to be
    /// asked.
    pub(crate) fn list(
        &self,
        domains: &[DomainId],
        kind: NameKind,
        after: Option<&str>,
        limit: usize,
    ) -> Option<Vec<String>> {
        self.list_ranges(domains, kind, (after.unwrap_or_default(), LAST), limit)
    }

    /// The names of a kind in a domain behind `after` and before `end`.
    pub(crate) fn list_between(
        &self,
        domain: DomainId,
        kind: NameKind,
        after: &str,
        end: &str,
        limit: usize,
    ) -> Option<Vec<String>> {
        self.list_ranges(&[domain], kind, (after, end), limit)
    }

    /// What waits is taken for all domains at once, so that all are listed as of one moment.
    fn list_ranges(
        &self,
        domains: &[DomainId],
        kind: NameKind,
        (after, end): (&str, &str),
        limit: usize,
    ) -> Option<Vec<String>> {
        let ranges = domains.iter().map(|domain| (key(*domain, kind, after), key(*domain, kind, end)));
        let (backend, changes) = {
            let state = lock(&self.state);
            if !state.ready {
                return None;
            }
            let with_changes =
                |(start, end): (Vec<u8>, Vec<u8>)| (state.changes_between(&start, &end, limit), start, end);
            (Arc::clone(&state.backend), ranges.map(with_changes).collect::<Vec<_>>())
        };
        let mut names = Vec::new();
        for (changes, start, end) in changes {
            match merged(&*backend, changes, &start, &end, limit) {
                Ok(own) => names.extend(own),
                Err(Failed) => {
                    self.fail(&backend);
                    return None;
                }
            }
        }
        names.sort_unstable();
        names.truncate(limit);
        Some(names)
    }

    /// Whether there is something to do: enough waits to go to the backend, or the view has to be rebuilt.
    pub(crate) fn due(&self) -> bool {
        let state = lock(&self.state);
        !state.short && (state.overlay.len() > OVERLAY_MAX || state.failed)
    }

    /// Whether the view has to be rebuilt.
    pub(crate) fn needs_rebuild(&self) -> bool {
        lock(&self.state).failed
    }

    /// Moves what waits to the backend.
    pub(crate) fn maintain(&self) {
        if !lock(&self.state).overlay.is_empty() {
            self.flush_unless_busy();
        }
    }

    /// Makes the backend, and its watermark, reach an LSN up to which all commits were [applied](Self::apply): before
    /// the log can no longer replay those.
    pub(crate) fn reach(&self, lsn: Lsn) {
        let is_behind = {
            let mut state = lock(&self.state);
            state.lsn = state.lsn.max(lsn);
            state.written < lsn
        };
        if is_behind {
            self.flush_unless_busy();
        }
    }

    /// Fills the view with all names there were at some moment. Changes applied since that moment win.
    ///
    /// # Errors
    /// The first of `names`. The view then has no answers until this is tried again, or for this opening
    /// ([`give_up`](Self::give_up)).
    pub(crate) fn rebuild<E>(
        &self,
        names: impl IntoIterator<Item = Result<(DomainId, NameKind, String), E>>,
    ) -> Result<(), E> {
        let writer = lock(&self.writer);
        let backend = Arc::clone(&lock(&self.state).backend);
        let mut names = names.into_iter().peekable();
        while names.peek().is_some() {
            let (mut batch, mut bytes) = (Changes::new(), 0);
            while bytes < BATCH
                && let Some(name) = names.next()
            {
                let (domain, kind, name) = name?;
                bytes += name.len() + 64;
                batch.insert(key(domain, kind, &name), Change::Set);
            }
            if backend.write(&batch, None).is_err() {
                // Again, in memory: the names already taken from the iterator are asked for again by the caller.
                self.fail(&backend);
                return Ok(());
            }
        }
        {
            let mut state = lock(&self.state);
            if !Arc::ptr_eq(&state.backend, &backend) {
                return Ok(()); // it failed meanwhile
            }
            (state.ready, state.failed, state.short) = (true, false, false);
        }
        self.flush(&writer);
        Ok(())
    }

    /// Does without answers until the next opening: facts are damaged.
    pub(crate) fn give_up(&self) {
        let mut state = lock(&self.state);
        state.failed = false;
        state.overlay.clear();
    }

    /// Leaves the rebuild to later, since there was a shortage.
    pub(crate) fn put_off(&self) {
        lock(&self.state).short = true;
    }

    /// Moves what waits to the backend and lets it write it out. No commit comes any more; `last` was the last.
    pub(crate) fn close(&self, last: Lsn) {
        self.reach(last); // also where no name changed: the view is trusted by what the last session wrote
        let backend = Arc::clone(&lock(&self.state).backend);
        backend.close();
    }

    /// Nobody waits for a rebuild, or for a batch that somebody else writes.
    fn flush_unless_busy(&self) {
        if let Ok(writer) = self.writer.try_lock() {
            self.flush(&writer);
        }
    }

    /// Writes what waits, and how far that reaches.
    fn flush(&self, _writer: &MutexGuard<'_, ()>) {
        let (backend, changes, lsn) = {
            let mut state = lock(&self.state);
            if !state.ready {
                return;
            }
            state.in_flight = Arc::new(std::mem::take(&mut state.overlay));
            (Arc::clone(&state.backend), Arc::clone(&state.in_flight), state.lsn)
        };
        let watermark = Watermark { lsn, ..self.identity.clone() }.encode();
        if backend.write(&changes, Some(&watermark)).is_err() {
            return self.fail(&backend);
        }
        let mut state = lock(&self.state);
        state.in_flight = Arc::default();
        state.written = lsn;
    }

    /// Goes on in memory, where a rebuild has to bring the names, unless that was done since `backend` was in use.
    fn fail(&self, backend: &Arc<dyn Backend>) {
        let mut state = lock(&self.state);
        if Arc::ptr_eq(&state.backend, backend) {
            state.backend = Arc::new(MemoryBackend::default());
            state.in_flight = Arc::default(); // the facts have them
            state.ready = false;
            state.failed = true;
        }
    }
}

impl State {
    /// What waits, from a key on, as far as it can count for so many names.
    fn changes_between(&self, start: &[u8], end: &[u8], limit: usize) -> Changes {
        if start >= end {
            return Changes::new();
        }
        let range = (Bound::Excluded(start.to_vec()), Bound::Excluded(end.to_vec()));
        let mut overlay = self.overlay.range(range.clone()).peekable();
        let mut in_flight = self.in_flight.range(range).peekable();
        let mut changes = Changes::new();
        let mut set = 0;
        while set < limit {
            let next = match (overlay.peek(), in_flight.peek()) {
                (Some((newer, _)), Some((older, _))) => match newer.cmp(older) {
                    Ordering::Less => overlay.next(),
                    Ordering::Equal => in_flight.next().and_then(|_| overlay.next()),
                    Ordering::Greater => in_flight.next(),
                },
                (Some(_), None) => overlay.next(),
                (None, _) => in_flight.next(),
            };
            let Some((key, change)) = next else { break };
            set += usize::from(*change == Change::Set);
            changes.insert(key.clone(), *change);
        }
        changes
    }
}

/// The names between two keys, at most `limit`: those of the backend, with changes over them.
fn merged(
    backend: &dyn Backend,
    changes: Changes,
    start: &[u8],
    end: &[u8],
    limit: usize,
) -> Result<Vec<String>, Failed> {
    // Each removal may hide one of the backend's names, so those are asked for on top.
    let removed = changes.values().filter(|change| **change == Change::Remove).count();
    let known = backend.keys_between(start, end, limit.saturating_add(removed))?;
    let mut all: Changes = known.into_iter().map(|key| (key, Change::Set)).collect();
    all.extend(changes);
    let names = all.into_iter().filter(|(_, change)| *change == Change::Set).take(limit);
    names
        .map(|(key, _)| String::from_utf8(key.get(PREFIX_LEN..).unwrap_or_default().to_vec()).map_err(|_| Failed))
        .collect()
}

/// Parses a page, for fuzzing.
#[cfg(feature = "fuzzing")]
pub(crate) fn parse_page(bytes: &[u8]) {
    sled::parse_any(bytes);
}

/// Opens what is there, if it can be trusted.
fn open_trusted(dir: &Path, trust: &Trust, keys: &Keys) -> Result<Option<SledBackend>, Unopened> {
    let backend = match SledBackend::open(dir, keys) {
        Err(Unopened::Failed) => return Ok(None),
        other => other?,
    };
    let watermark = backend.watermark().ok().flatten().and_then(|watermark| Watermark::parse(&watermark));
    Ok(watermark.is_some_and(|watermark| watermark.is_trusted(trust)).then_some(backend))
}
