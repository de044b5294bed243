//! Names in order: a derived view, on sled.
//!
//! Facts lie in the runs by the hashes of names, so they have no order of names. This view has: it answers which names of
//! a kind come after one. Everything in it can be read from the facts again; its directory may be deleted, damaged,
//! restored from an older moment or taken from another store, and no answer changes. (It is the one place where files are
//! touched outside of [`crate::vfs`]: by sled, which no one relies on.)
//!
//! # When it is trusted
//! Names are written to sled together with a *watermark*, in one batch: the store, the session, the boot of the machine
//! and the LSN up to which commits are in it. After a restart it is trusted only if sled opens, the store and the boot are
//! the same (sled's flush does not call fsync, so what it wrote may be lost with the machine), the session is the last one
//! that the log knows, and the LSN is not below what the log can replay nor above where it ends. Otherwise it is thrown
//! away and rebuilt from the facts, and until that is done readers are told to ask those.
//!
//! # What holds while it runs
//! A commit's names go into an overlay in memory as the commit becomes visible, and to sled later, in batches. An error or
//! a panic in sled turns the view into one in memory, which is rebuilt. Nothing that it does fails a commit.

mod memory;
mod sled;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::id::{Lsn, SessionId, StoreId};
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
        out.put_u8(1);
        out.put(&self.store.0);
        out.put(&self.session.0);
        out.put_u64(self.lsn.0);
        out.put(&self.boot);
        out
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        (fields.u8()? == 1).then_some(())?;
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

/// Keys in order.
trait Backend: Send {
    /// Sets and removes keys and sets the watermark, all or nothing.
    fn write(&mut self, changes: &[(Vec<u8>, Change)], watermark: Option<&[u8]>) -> Result<(), Failed>;

    /// The keys behind `after` that begin with the same byte, at most `limit`.
    fn keys_after(&self, after: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Failed>;

    /// The watermark written last.
    fn watermark(&self) -> Result<Option<Vec<u8>>, Failed>;

    /// Writes out what waits, as far as the backend can.
    fn close(&mut self);
}

/// The view.
pub(crate) struct Names {
    state: Mutex<State>,
    identity: Watermark,
}

struct State {
    backend: Box<dyn Backend>,
    /// Where a backend may be, and when it would be trusted; none once that was looked at.
    to_open: Option<(PathBuf, Trust)>,
    /// Changes that the backend does not have, the newest for each key.
    overlay: BTreeMap<Vec<u8>, Change>,
    /// The LSN of the newest change.
    lsn: Lsn,
    /// Whether the backend has, with the overlay, all names.
    ready: bool,
    /// Whether a backend failed, so that a rebuild is due.
    failed: bool,
}

/// So many changes wait at most before they go to the backend.
const OVERLAY_MAX: usize = 4096;

/// How many names are written in one batch of a rebuild.
const BATCH: usize = 1000;

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

fn key(kind: NameKind, name: &str) -> Vec<u8> {
    let mut key = vec![kind as u8];
    key.put(name.as_bytes());
    key
}

impl Names {
    /// A view in a directory, or one in memory. Until it was [prepared](Self::prepare) it has no answers.
    pub(crate) fn new(dir: Option<PathBuf>, session: SessionId, trust: Trust) -> Self {
        let boot = trust.boot.0.clone().unwrap_or_default();
        let state = State {
            backend: Box::new(MemoryBackend::default()),
            to_open: dir.map(|dir| (dir, trust.clone())),
            overlay: BTreeMap::new(),
            lsn: trust.last,
            ready: false,
            failed: true,
        };
        let identity = Watermark { store: trust.store, session, lsn: Lsn::ZERO, boot };
        Self { state: Mutex::new(state), identity }
    }

    /// Opens what is in the directory, if that was not done, and says whether the names have to be
    /// [read from the facts](Self::rebuild) again. Opening sled takes tens of milliseconds, so this is not part of opening
    /// the store where a thread can do it.
    pub(crate) fn prepare(&self) -> bool {
        let Some((dir, trust)) = lock(&self.state).to_open.take() else { return self.needs_rebuild() };
        let (backend, trusted): (Box<dyn Backend>, bool) = match open_trusted(&dir, &trust) {
            Some(backend) => (Box::new(backend), true),
            None => match SledBackend::create(&dir) {
                Ok(backend) => (Box::new(backend), false),
                Err(Failed) => return true,
            },
        };
        let mut state = lock(&self.state);
        (state.backend, state.ready, state.failed) = (backend, trusted, !trusted);
        !trusted
    }

    /// Takes in what a commit did to names, in the order of commits.
    pub(crate) fn apply<'a>(&self, lsn: Lsn, changes: impl IntoIterator<Item = (NameKind, &'a str, Change)>) {
        let mut state = lock(&self.state);
        state.lsn = state.lsn.max(lsn);
        if !state.ready && !state.failed {
            return; // given up for this opening: what waited would wait for ever
        }
        for (kind, name, change) in changes {
            state.overlay.insert(key(kind, name), change);
        }
    }

    /// The names of a kind behind `after`, in order, at most `limit`; `None` where the facts have to be asked.
    pub(crate) fn list(&self, kind: NameKind, after: Option<&str>, limit: usize) -> Option<Vec<String>> {
        let mut state = lock(&self.state);
        if !state.ready {
            return None;
        }
        let listed = state.list(kind, after, limit);
        if listed.is_err() {
            state.fail();
        }
        listed.ok()
    }

    /// Whether there is something to do: enough waits to go to the backend, or the view has to be rebuilt.
    pub(crate) fn due(&self) -> bool {
        let state = lock(&self.state);
        state.overlay.len() > OVERLAY_MAX || state.failed
    }

    /// Whether the view has to be rebuilt.
    pub(crate) fn needs_rebuild(&self) -> bool {
        lock(&self.state).failed
    }

    /// Moves what waits to the backend.
    pub(crate) fn maintain(&self) {
        let mut state = lock(&self.state);
        if state.ready && !state.overlay.is_empty() {
            self.flush(&mut state);
        }
    }

    /// Fills the view with all names there were at some moment. Changes applied since that moment win.
    ///
    /// # Errors
    /// The first of `names`: facts are damaged. The view then has no answers until the next opening tries again.
    pub(crate) fn rebuild<E>(&self, names: impl IntoIterator<Item = Result<(NameKind, String), E>>) -> Result<(), E> {
        let mut names = names.into_iter();
        loop {
            let batch = names.by_ref().take(BATCH).map(|name| name.map(|(kind, name)| (key(kind, &name), Change::Set)));
            let batch = batch.collect::<Result<Vec<_>, E>>();
            let mut state = lock(&self.state);
            let batch = batch.inspect_err(|_| {
                state.failed = false;
                state.overlay.clear();
            })?;
            if state.backend.write(&batch, None).is_err() {
                // Again, in memory: the names already taken from the iterator are asked for again by the caller.
                state.fail();
                return Ok(());
            }
            if batch.len() < BATCH {
                state.ready = true;
                state.failed = false;
                self.flush(&mut state);
                return Ok(());
            }
        }
    }

    /// Moves what waits to the backend and lets it write it out. No commit comes any more; `last` was the last.
    pub(crate) fn close(&self, last: Lsn) {
        let mut state = lock(&self.state);
        if state.ready {
            // Also where no name changed: the view is trusted by what the last session wrote.
            state.lsn = last;
            self.flush(&mut state);
        }
        state.backend.close();
    }

    fn flush(&self, state: &mut State) {
        let watermark = Watermark { lsn: state.lsn, ..self.identity.clone() }.encode();
        let changes: Vec<_> = std::mem::take(&mut state.overlay).into_iter().collect();
        if state.backend.write(&changes, Some(&watermark)).is_err() {
            state.overlay = changes.into_iter().collect();
            state.fail();
        }
    }
}

impl State {
    /// Goes on in memory, where a rebuild has to bring the names.
    fn fail(&mut self) {
        self.backend = Box::new(MemoryBackend::default());
        self.ready = false;
        self.failed = true;
    }

    fn list(&self, kind: NameKind, after: Option<&str>, limit: usize) -> Result<Vec<String>, Failed> {
        let start = key(kind, after.unwrap_or_default());
        let end = [kind as u8 + 1];
        let mut merged = BTreeMap::new();
        let range = (std::ops::Bound::Excluded(start.clone()), std::ops::Bound::Excluded(end.to_vec()));
        // Each removal in the overlay may hide one of the backend's names, so those are asked for on top.
        let changes: Vec<_> = self.overlay.range(range).collect();
        let removed = changes.iter().filter(|(_, change)| **change == Change::Remove).count();
        for key in self.backend.keys_after(&start, limit.saturating_add(removed))? {
            merged.insert(key, Change::Set);
        }
        merged.extend(changes.into_iter().map(|(key, change)| (key.clone(), *change)));
        let names = merged.into_iter().filter(|(_, change)| *change == Change::Set).take(limit);
        names.map(|(key, _)| String::from_utf8(key.get(1..).unwrap_or_default().to_vec()).map_err(|_| Failed)).collect()
    }
}

/// Opens what is there, if it can be trusted.
fn open_trusted(dir: &Path, trust: &Trust) -> Option<SledBackend> {
    let backend = SledBackend::open(dir).ok()?;
    let watermark = Watermark::parse(&backend.watermark().ok()??)?;
    watermark.is_trusted(trust).then_some(backend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn trust(session: u8, folded: u64, last: u64) -> Trust {
        Trust {
            store: StoreId([1; 16]),
            session: SessionId([session; 16]),
            folded: Lsn(folded),
            last: Lsn(last),
            boot: BootId(Some(b"boot".to_vec())),
        }
    }

    fn rebuild(names: &Names, all: &[&str]) {
        names.rebuild(all.iter().map(|name| Ok::<_, ()>((NameKind::Pin, (*name).to_owned())))).unwrap();
    }

    /// A view in `dir` with the names a, b and c, written by session 7 at LSN 3, and closed.
    fn written(dir: &Path) {
        let names = Names::new(Some(dir.to_path_buf()), SessionId([7; 16]), trust(0, 0, 0));
        assert!(names.prepare());
        rebuild(&names, &[]);
        for (lsn, name) in [(1, "c"), (2, "a"), (3, "b")] {
            names.apply(Lsn(lsn), [(NameKind::Pin, name, Change::Set)]);
        }
        assert_eq!(names.list(NameKind::Pin, None, 2).unwrap(), ["a", "b"]);
        names.close(Lsn(3));
    }

    fn is_trusted(dir: &Path, trust: &Trust) -> bool {
        !Names::new(Some(dir.to_path_buf()), SessionId([8; 16]), trust.clone()).prepare()
    }

    #[test]
    fn a_view_is_trusted_where_session_lsn_store_and_boot_agree_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        written(&path);
        let names = Names::new(Some(path.clone()), SessionId([8; 16]), trust(7, 2, 5));
        assert_eq!(names.list(NameKind::Pin, None, 10), None, "not open yet");
        assert!(!names.prepare());
        assert_eq!(names.list(NameKind::Pin, Some("a"), 10).unwrap(), ["b", "c"]);
        drop(names);
        let other_boot = Trust { boot: BootId(Some(b"later".to_vec())), ..trust(7, 2, 5) };
        let no_boot = Trust { boot: BootId(None), ..trust(7, 2, 5) };
        let other_store = Trust { store: StoreId([2; 16]), ..trust(7, 2, 5) };
        for wrong in [trust(6, 2, 5), trust(7, 4, 5), trust(7, 0, 2), other_boot, no_boot, other_store] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("names");
            written(&path);
            assert!(!is_trusted(&path, &wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_view_stays_trusted_over_a_session_in_which_no_name_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        written(&path);
        let names = Names::new(Some(path.clone()), SessionId([8; 16]), trust(7, 2, 5));
        assert!(!names.prepare());
        names.close(Lsn(90));
        drop(names);
        assert!(is_trusted(&path, &trust(8, 90, 90)), "all is folded, and another session wrote last");
    }

    #[test]
    fn an_error_while_names_are_read_leaves_the_view_without_answers() {
        let names = Names::new(None, SessionId([7; 16]), trust(0, 0, 0));
        let read = (0..5000).map(|n| if n < 3000 { Ok((NameKind::Pin, n.to_string())) } else { Err(n) });
        assert_eq!(names.rebuild(read), Err(3000));
        assert!(!names.needs_rebuild(), "not before the next opening");
        assert_eq!(names.list(NameKind::Pin, None, 1), None);
    }

    #[test]
    fn a_damaged_or_missing_view_is_rebuilt() {
        let spoil: [&dyn Fn(&Path); 4] = [
            &|path| std::fs::remove_dir_all(path).unwrap(),
            &|path| std::fs::write(path.join("db"), b"garbage").unwrap(),
            &|path| std::fs::write(path.join("conf"), b"garbage").unwrap(),
            &|path| {
                std::fs::remove_dir_all(path).unwrap();
                std::fs::write(path, b"a file in its place").unwrap();
            },
        ];
        for (number, spoil) in spoil.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("names");
            written(&path);
            spoil(&path);
            let names = Names::new(Some(path), SessionId([8; 16]), trust(7, 2, 5));
            if names.prepare() {
                assert_eq!(names.list(NameKind::Pin, None, 9), None, "spoilt in way {number}");
                names.apply(Lsn(6), [(NameKind::Pin, "b", Change::Remove), (NameKind::Pin, "d", Change::Set)]);
                rebuild(&names, &["a", "b", "c"]);
                assert_eq!(names.list(NameKind::Pin, None, 9).unwrap(), ["a", "c", "d"], "the overlay wins");
            } else {
                assert_eq!(names.list(NameKind::Pin, None, 9).unwrap(), ["a", "b", "c"]);
            }
        }
    }

    #[test]
    fn a_snapshot_that_a_kill_left_half_written_does_not_keep_the_view_from_opening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        written(&path);
        std::fs::write(path.join("snap.00000000000FFFFF.generating"), b"half").unwrap();
        assert!(is_trusted(&path, &trust(7, 2, 5)));
    }

    #[test]
    fn pages_equal_those_of_a_sorted_set() {
        let dir = tempfile::tempdir().unwrap();
        for dir in [None, Some(dir.path().join("names"))] {
            let names = Names::new(dir, SessionId([7; 16]), trust(0, 0, 0));
            assert!(names.prepare());
            rebuild(&names, &[]);
            let mut model = BTreeSet::new();
            let mut random = 1u64;
            for lsn in 1..3000 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let name = format!("team-{}/app", random >> 54);
                let change = if random >> 40 & 3 == 0 { Change::Remove } else { Change::Set };
                match change {
                    Change::Set => model.insert(name.clone()),
                    Change::Remove => model.remove(&name),
                };
                names.apply(Lsn(lsn), [(NameKind::Pin, name.as_str(), change)]);
                if lsn % 100 == 0 {
                    names.maintain();
                }
                if lsn % 37 == 0 {
                    let expected: Vec<_> = model
                        .range::<String, _>((std::ops::Bound::Excluded(&name), std::ops::Bound::Unbounded))
                        .take(7)
                        .cloned()
                        .collect();
                    assert_eq!(names.list(NameKind::Pin, Some(&name), 7).unwrap(), expected);
                }
            }
        }
    }
}
