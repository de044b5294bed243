//! Names in order: a derived view, on sled.
//!
//! Facts are stored in runs by the hashes of names, so they are not in the order of names. This view is: it answers
//! which names of a kind, in a key domain, come after a given one. It can be rebuilt from the facts; its directory may
//! be deleted, damaged, restored from an older moment or taken from another store, and no answer changes. (It is the
//! only place where files are accessed outside of [`crate::vfs`]: by sled, which nothing relies on.)
//!
//! # When it is trusted
//! Names are written to sled together with a *watermark*, in one batch: the store, the session, the boot of the
//! machine, the LSN up to which commits are in it, and the key domains that were locked, whose names are not. After a
//! restart it is trusted only if sled opens, the locked domains are the same, the store and the boot are the same
//! (sled's flush does not call fsync, so what it wrote may be lost with the machine), the session is the last one that
//! the log knows, and the LSN is not below what the log can replay nor above where it ends. Otherwise it is discarded
//! and rebuilt from the facts, and until that is done readers read the facts.
//!
//! Without the feature `sled` the view is in memory, read from the facts at each opening, and what another program has
//! left in its directory is removed.
//!
//! # While the store is open
//! A commit's names are put into an overlay in memory as the commit becomes visible, and written to sled later, in
//! batches, by a [thread of the names' own](Names::serve). Neither commits nor readers wait for that: while a batch is
//! written it stays visible beside the overlay. Folding waits for a moment at most (see [`Names::reach`]). No failure
//! of the view fails a commit.
//!
//! Every call of sled has a [deadline](guard). One that fails, panics or hangs replaces the view by one in memory,
//! which is rebuilt; a call that hangs is abandoned on its thread. The log replays what is behind the watermark, or the
//! view is not trusted: so a call that took effect in part changes no answer. Where a call has hung, sled's directory
//! is not used again until the store is opened again, and after that not as long as sled has it locked.

mod guard;
mod memory;
mod place;
#[cfg(feature = "sled")]
mod seal;
#[cfg(feature = "sled")]
mod sled;
#[cfg(not(feature = "sled"))]
#[path = "no_sled.rs"]
mod sled;
#[cfg(test)]
mod tests;
mod upkeep;
mod watermark;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use crate::envelope::Keys;
use crate::id::{DomainId, Lsn, RepositoryId, SessionId};
use crate::names::guard::Guard;
use crate::names::place::{Place, directory};
use crate::names::watermark::Watermark;
pub(crate) use crate::names::watermark::{BootId, Trust};
use crate::sync::lock;
use crate::wire::PutFields;

/// What a name names. The numbers stand in sled's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum NameKind {
    /// A named file.
    Named = 1,
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

/// What became of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Set,
    Remove,
}

/// A failure of a backend. What it was matters to nobody: the answer to all is to rebuild.
#[derive(Clone, Copy, Debug)]
struct Failed;

/// Keys, in order.
type KeyList = Vec<Vec<u8>>;

/// Changes of names, the newest for each.
type Changes = BTreeMap<Vec<u8>, Change>;

/// The keys behind `after` and before `end`, which both begin with the same byte, at most `limit`.
#[derive(Clone, Debug)]
struct KeyRange {
    after: Vec<u8>,
    end: Vec<u8>,
    limit: usize,
}

/// Keys in order.
trait Backend: Send + Sync {
    /// Sets and removes keys, which come in order, then sets the watermark. Of the keys, any may be left undone where
    /// this fails.
    fn write(&self, changes: &[(Vec<u8>, Change)], watermark: Option<&[u8]>) -> Result<(), Failed>;

    /// The keys in a range, in order.
    fn keys_in(&self, range: &KeyRange) -> Result<KeyList, Failed>;

    /// The watermark written last.
    fn watermark(&self) -> Result<Option<Vec<u8>>, Failed>;

    /// Writes out what waits, as far as the backend can.
    fn close(&self);
}

/// For how long is waited for a backend.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    /// Until it is open: 5 million keys take 2.7 s.
    open: Duration,
    /// For a call. After that it has hung.
    call: Duration,
    /// For a list of names. After that the facts are read.
    read: Duration,
    /// For a watermark that a fold waits for. After that the view may have to be rebuilt if the process is killed.
    reach: Duration,
}

const DEADLINES: Deadlines = Deadlines {
    open: Duration::from_secs(10),
    call: Duration::from_secs(10),
    read: Duration::from_secs(1),
    reach: Duration::from_secs(1),
};

/// The view.
pub(crate) struct Names {
    state: Mutex<State>,
    /// There is something to do, or it was done.
    changed: Condvar,
    /// Held while a backend is opened or replaced.
    opening: Mutex<()>,
    /// Held while the backend is written to.
    writer: Mutex<()>,
    /// Whether the store is being closed: what takes long ends.
    stopped: AtomicBool,
    identity: Watermark,
    keys: Keys,
    /// Reads all names from the facts, when somebody asks for names and there is no thread to do it.
    filling: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct State {
    backend: Arc<Guard>,
    deadlines: Deadlines,
    /// Where a backend is to be, and when what is there would be trusted, if at all; none once that was looked at.
    to_open: Option<(Arc<dyn Place>, Option<Trust>)>,
    /// The domains that were locked when the backend was opened.
    without: Vec<DomainId>,
    /// Changes that the backend does not have.
    overlay: Changes,
    /// Those, older than the overlay, that are being written to it.
    in_flight: Arc<Changes>,
    /// All commits up to this LSN are in the overlay or older.
    lsn: Lsn,
    /// The LSN of the backend's watermark.
    written: Lsn,
    /// An LSN that it is to have soon.
    wanted: Lsn,
    /// Whether somebody has waited for that in vain.
    late: bool,
    /// Whether the backend has, with what is in flight and the overlay, all names.
    ready: bool,
    /// Whether a backend failed, so that a rebuild is due.
    failed: bool,
    /// The backend of before, while the view is suspended: nothing is opened or rebuilt until it is begun anew.
    suspended: Option<Arc<Guard>>,
    /// Whether a backend has hung, so that its files are not to be touched.
    hung: bool,
    /// Whether a thread [serves](Names::serve) the view.
    served: bool,
    /// Whether that has something to do.
    raised: bool,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

/// What stands before a name in its key.
const PREFIX_LEN: usize = 5;

/// The key of a name: `kind u8 | domain u32, big-endian | name`.
fn key(domain: DomainId, kind: NameKind, name: impl AsRef<[u8]>) -> Vec<u8> {
    let mut key = vec![kind as u8];
    key.put(&domain.0.to_be_bytes());
    key.put(name.as_ref());
    key
}

/// A byte that is in no name, above all that are.
const ABOVE: u8 = 0xff;

/// What no name lies between and the first that begins with a prefix, and what lies behind all that do.
fn bounds(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let before = match prefix.as_bytes().split_last() {
        None | Some((0, _)) => prefix.into(), // no name has the character 0
        Some((last, head)) => [head, &[last - 1, ABOVE]].concat(),
    };
    (before, [prefix.as_bytes(), &[ABOVE]].concat())
}

impl Names {
    /// A view in a directory, or one in memory. Until it was [prepared](Self::prepare) it has no answers.
    pub(crate) fn new(dir: Option<PathBuf>, session: SessionId, trust: Trust, keys: Keys) -> Self {
        let boot = trust.boot.0.clone().unwrap_or_default();
        let identity = Watermark { store: trust.store, session, lsn: Lsn::ZERO, without: Vec::new(), boot };
        let state = State {
            backend: Arc::new(Guard::in_memory(DEADLINES)),
            deadlines: DEADLINES,
            without: Vec::new(),
            overlay: Changes::new(),
            in_flight: Arc::default(),
            lsn: trust.last,
            to_open: dir.map(|dir| (directory(dir), Some(trust))),
            written: Lsn::ZERO,
            wanted: Lsn::ZERO,
            late: false,
            ready: false,
            failed: true,
            suspended: None,
            hung: false,
            served: false,
            raised: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            opening: Mutex::default(),
            writer: Mutex::default(),
            stopped: AtomicBool::new(false),
            identity,
            keys,
            filling: OnceLock::new(),
        }
    }

    /// Lets the first who asks for names, of a store in which no thread does, have them read from the facts.
    pub(crate) fn fill_by(&self, fill: impl Fn() + Send + Sync + 'static) {
        let _ = self.filling.set(Box::new(fill));
    }

    /// Takes in what a group of commits did to names, in their order, and makes the group `visible`: lists of names
    /// show all that it did or nothing of it.
    pub(crate) fn apply(&self, changes: &[(Lsn, NameChange)], visible: impl FnOnce()) {
        let mut state = lock(&self.state);
        visible();
        state.lsn = changes.iter().map(|(lsn, _)| *lsn).fold(state.lsn, Lsn::max);
        if !state.ready && !state.failed {
            return; // given up for this opening: what waited would wait for ever
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
        self.list_ranges(domains, kind, (after.unwrap_or_default().as_bytes(), &[ABOVE]), limit)
    }

    /// The named files of a domain whose names begin with `prefix`, behind `after`, in order, at most `limit`; `None`
    /// where the facts have to be asked.
    pub(crate) fn named(
        &self,
        domain: DomainId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Option<Vec<String>> {
        let (before, end) = bounds(prefix);
        let after = after.unwrap_or_default().as_bytes().max(&before);
        self.list_ranges(&[domain], NameKind::Named, (after, &end), limit)
    }

    /// The tags of a repository behind `after`, in order, at most `limit`; `None` where the facts have to be asked.
    pub(crate) fn tags(
        &self,
        domain: DomainId,
        repository: RepositoryId,
        after: Option<&str>,
        limit: usize,
    ) -> Option<Vec<String>> {
        let from = tag_name(repository, after.unwrap_or_default());
        let end = tag_name(RepositoryId(repository.0 + 1), "");
        let names = self.list_ranges(&[domain], NameKind::Tag, (from.as_bytes(), end.as_bytes()), limit)?;
        let prefix = tag_name(repository, "");
        Some(names.iter().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect())
    }

    /// What waits is taken for all domains at once, so that all are listed as of one moment.
    fn list_ranges(
        &self,
        domains: &[DomainId],
        kind: NameKind,
        (after, end): (&[u8], &[u8]),
        limit: usize,
    ) -> Option<Vec<String>> {
        if let Some(fill) = self.filling.get().filter(|_| self.needs_rebuild()) {
            fill();
        }
        let range = |domain: &DomainId| (key(*domain, kind, after), key(*domain, kind, end));
        let (backend, changes, ranges) = {
            let state = lock(&self.state);
            if !state.ready {
                return None;
            }
            let with_changes = |(after, end): (Vec<u8>, Vec<u8>)| {
                let changes = state.changes_between(&after, &end, limit);
                // Each removal may hide one of the backend's names, so those are asked for on top.
                let removed = changes.values().filter(|change| **change == Change::Remove).count();
                (changes, KeyRange { after, end, limit: limit.saturating_add(removed) })
            };
            let (changes, ranges): (Vec<_>, Vec<_>) = domains.iter().map(range).map(with_changes).unzip();
            (Arc::clone(&state.backend), changes, ranges)
        };
        let listed = backend.keys_in(ranges).and_then(|keys| {
            let own = |keys: Vec<KeyList>| {
                let merged = keys.into_iter().zip(changes).map(|(known, changes)| merged(known, changes, limit));
                merged.collect::<Result<Vec<_>, Failed>>()
            };
            keys.map(own).transpose()
        });
        let Ok(names) = listed else {
            self.fail(&backend);
            return None;
        };
        let mut names: Vec<String> = names?.into_iter().flatten().collect();
        names.sort_unstable();
        names.truncate(limit);
        Some(names)
    }
}

impl State {
    fn is_current(&self, backend: &Arc<Guard>) -> bool {
        Arc::ptr_eq(&self.backend, backend)
    }

    /// Whether the watermark can reach an LSN and has not.
    fn is_behind(&self, lsn: Lsn) -> bool {
        self.ready && self.written < lsn
    }

    /// Goes on in memory, with nothing, and gives the backend that was used so far.
    fn let_go(&mut self) -> Arc<Guard> {
        self.in_flight = Arc::default(); // the facts have them
        (self.ready, self.failed) = (false, true);
        (self.written, self.late) = (Lsn::ZERO, false);
        std::mem::replace(&mut self.backend, Arc::new(Guard::in_memory(self.deadlines)))
    }

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

/// The first names of a range: those that the backend knows, with changes over them.
fn merged(known: KeyList, changes: Changes, limit: usize) -> Result<Vec<String>, Failed> {
    let mut all: Changes = known.into_iter().map(|key| (key, Change::Set)).collect();
    all.extend(changes);
    let names = all.into_iter().filter(|(_, change)| *change == Change::Set).take(limit);
    names.map(|(key, _)| String::from_utf8(key.get(PREFIX_LEN..).ok_or(Failed)?.to_vec()).map_err(|_| Failed)).collect()
}

/// Parses a page, for fuzzing.
#[cfg(all(feature = "fuzzing", feature = "sled"))]
pub(crate) fn parse_page(bytes: &[u8]) {
    sled::parse_any(bytes);
}
