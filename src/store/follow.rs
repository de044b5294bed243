//! Stores that are open for reading only, beside a process that writes.
//!
//! No lock is taken and nothing is written. What the store is at a moment follows from three things that the writer
//! replaces as a whole or appends to: `FORMAT`, the list, and the log. A reader reads them in this order, opens the
//! runs that the list names, and holds what it has read until it is asked to [read on](Store::refresh). Then it reads
//! what is new: log files from where it stopped, and runs that it does not have open. It begins anew where keys have
//! changed, where a recovery has written anew what had been read, where the log does not go back as far any more, and
//! where what it finds is not known to be a later moment of what it has read.
//!
//! # Why what it sees is the store
//! - **Files are immutable** once they are named (a log file: what was read of it), and no id is used twice. So a file
//!   that is there is the right one, and one that is not there was given up by a later commit, or replaced.
//! - **Damage is believed when it stands still.** What is read while the writer goes on may be of two moments: a file
//!   that the list had named is gone, a list is encrypted with a key that was not in `FORMAT` yet. So where something
//!   is damaged, all is read again, until it fails twice at one place while neither `FORMAT` nor the list has changed.
//! - **What is seen is durable**: see [`crate::log`]'s `follow`.
//! - **A call that meets damage reads on** and tries again, once its facts have changed: content may have moved.
//! - **One history is followed.** An older copy of the store may be put in its place, and written to: it has the same
//!   store id, and uses LSNs and ids of files again for other things. It is a later moment of what was read if its list
//!   is a later one and its log has the last record that was read, in the same file, which a random header tells, or
//!   goes on behind that in the next file of the same session. Everything else is read anew, with nothing kept of what
//!   was open; and where the directory has another store, that is an error.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use crate::clock::StoreClock;
use crate::envelope::{Keyring, Keys};
use crate::error::{Damage, Error, ReadOnlyCause, Result};
use crate::facts::Fact;
use crate::files::{Files, Layout};
use crate::id::{FileId, Lsn, SessionId};
use crate::log::{Reached, ReadOn, read_on};
use crate::names::{BootId, Names, Trust};
use crate::random::random;
use crate::store::format::{self, Access};
use crate::store::locked::{hold_back, read_held_back};
use crate::store::options::Options;
use crate::store::{Inner, Store};
use crate::sync::lock;
use crate::tables::memtable::Memtable;
use crate::tables::{News, RunId, RunList, RunMeta, Snapshot};

/// How far a reader has followed the store.
#[derive(Debug)]
pub(super) struct Follower(Mutex<Followed>);

#[derive(Debug)]
struct Followed {
    files: Arc<Read>,
    list: RunList,
    reached: Reached,
}

/// See [`Inner::followed_moment`].
pub(super) type FollowedMoment = (RunList, Option<FileId>, Snapshot, Vec<u8>, Arc<Keyring>);

/// What is in the files that are replaced as a whole.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    format: Vec<u8>,
    list: Vec<u8>,
}

impl Read {
    fn now(options: &Options, layout: &Layout) -> Result<Self> {
        let vfs = &*options.vfs;
        let format = format::read(vfs, &layout.format())?;
        Ok(Self { format, list: RunList::read_bytes(vfs, &layout.runs())? })
    }
}

/// Tries again while what fails may be a moment between two states of the store.
fn until_it_stands_still<T>(
    options: &Options,
    layout: &Layout,
    mut attempt: impl FnMut(&Arc<Read>) -> Result<T>,
) -> Result<T> {
    let mut before: Option<(Arc<Read>, Error)> = None;
    loop {
        let read = Arc::new(Read::now(options, layout)?);
        match attempt(&read) {
            Err(error @ Error::Corrupt { .. }) => {
                if before.is_some_and(|(old, failed)| old == read && is_at_one_place(&failed, &error)) {
                    return Err(error);
                }
                before = Some((read, error));
            }
            other => return other,
        }
    }
}

fn is_at_one_place(one: &Error, other: &Error) -> bool {
    let place = |error: &Error| match error {
        Error::Corrupt { file, offset, .. } => Some((file.clone(), *offset)),
        _ => None,
    };
    place(one) == place(other)
}

/// All that is known of the store at a moment.
struct Moment {
    files: Files,
    keys: Keys,
    list: RunList,
    table: Memtable,
    read: ReadOn,
}

impl Moment {
    fn read(options: &Options, layout: &Layout, read: &Read) -> Result<Self> {
        let provider = options.key_provider.as_deref();
        let keyring = format::open(&read.format, &layout.format(), provider, Access::Read)?;
        let mut list = RunList::open_bytes(&read.list, &layout.runs(), &keyring)?;
        if list.store != keyring.store {
            return Err(Error::corrupt(&RunList::path(&layout.runs()), 0, Damage::Invalid("store id")));
        }
        let (keyring, held_back) = hold_back(keyring, &list);
        let (keys, vfs) = (Keys::new(keyring), Arc::clone(&options.vfs));
        let mut files = Files::new((vfs, Box::new(())), layout.clone(), keys.clone(), list.next_file, options.files());
        files.only_read(ReadOnlyCause::Asked);
        let known = read_on(&files, &list, Reached::runs_of(&list))?;
        let known = known.ok_or_else(|| Error::corrupt(&RunList::path(&layout.runs()), 0, Damage::Invalid("log")))?;
        let table = Memtable::new();
        read_held_back(&files, &mut list, held_back, known.reached.last(), &table);
        facts_of(&known, &list).for_each(|(lsn, fact)| table.insert(lsn, fact));
        Ok(Self { files, keys, list, table, read: known })
    }
}

/// What records say that the runs of a list do not have.
fn facts_of<'a>(read: &'a ReadOn, list: &RunList) -> impl Iterator<Item = (Lsn, Fact)> + 'a {
    let folded = list.folded;
    let records = read.records.iter().filter(move |record| record.header.lsn > folded);
    records.flat_map(|record| record.facts.iter().map(|fact| (record.header.lsn, fact.clone())))
}

/// Whether another list may be a later one of what was followed. Without a log file that was read there is no telling.
fn may_follow(list: &RunList, followed: &Followed) -> bool {
    let before = &followed.list;
    let known: HashMap<RunId, &RunMeta> = before.runs.iter().map(|run| (run.id, run)).collect();
    let is_same = |run: &RunMeta| known.get(&run.id).is_none_or(|known| *known == run);
    followed.reached.end.is_some()
        && list.generation > before.generation
        && list.folded >= before.folded
        && list.runs.iter().all(is_same)
}

/// The log files that the writer may still append to, or cut.
fn growing(list: &RunList) -> BTreeMap<FileId, Option<u64>> {
    list.logs.iter().map(|log| (log.id, log.sealed.map(|(len, _)| len))).collect()
}

/// Opens a store for reading only.
pub(super) fn open_reading(options: &Options, layout: &Layout) -> Result<Inner> {
    until_it_stands_still(options, layout, |read| {
        let Moment { files, keys, list, table, read: known } = Moment::read(options, layout, read)?;
        files.set_growing(growing(&list));
        let (files, last, session) = (Arc::new(files), known.reached.last(), SessionId(random()?));
        let (store, folded, boot) = (list.store, list.folded, BootId::NONE);
        let trust = Trust { store, session, folded, last, boot };
        let names = Arc::new(Names::new(None, session, trust, keys));
        let clock = StoreClock::new(options.clock.clone(), known.open_time().max(list.open_time_ms));
        let followed = Followed { files: Arc::clone(read), list: list.clone(), reached: known.reached };
        let state = (list, table, last, None);
        let mut inner = Inner::new(options.clone(), (files, names), clock, session, state);
        inner.follower = Some(Follower(Mutex::new(followed)));
        inner.tables.open_runs()?;
        inner.tables.see_locked(&inner.files.keys(), &inner.tables.hold_list());
        Ok(inner)
    })
}

impl Inner {
    /// Lets rooms below have this read on where they find that files have changed.
    pub(super) fn follow(self: &Arc<Self>) {
        let shared = Arc::downgrade(self);
        self.tables.follow_by(move || shared.upgrade().map_or(Ok(false), |inner| inner.refresh()));
        let shared = Arc::downgrade(self);
        self.names.fill_by(move || shared.upgrade().iter().for_each(|inner| inner.refresh_names()));
    }

    /// Reads what was written since; whether there was anything.
    pub(super) fn refresh(&self) -> Result<bool> {
        let Some(Follower(followed)) = &self.follower else { return Ok(false) };
        let (mut followed, before) = (lock(followed), self.tables.visible());
        let (options, layout) = (&self.options, self.files.layout());
        let is_new_list = until_it_stands_still(options, layout, |read| {
            let is_new_list = followed.files.list != read.list;
            if !self.step(&mut followed, read)? {
                self.begin_anew(&mut followed, read)?;
            }
            Ok(is_new_list)
        })?;
        Ok(is_new_list || self.tables.visible() != before)
    }

    /// What is known of a store that another process writes, as of the last commit that is durable: the list, as if the
    /// log ended there; the log file that may still be written to; the facts, `FORMAT` and the keys. `None` in a store
    /// that is open for writing.
    pub(super) fn followed_moment(&self) -> Result<Option<FollowedMoment>> {
        let Some(Follower(followed)) = &self.follower else { return Ok(None) };
        self.refresh()?;
        let followed = lock(followed);
        let keys = self.files.keys();
        // As it was read: what this store has taken in of domains that were locked, another one does not know.
        let mut list = RunList::open_bytes(&followed.files.list, &self.files.layout().runs(), &keys)?;
        let (last, end) = (followed.reached.last(), followed.reached.end);
        let end = end.filter(|end| list.logs.last().is_some_and(|log| log.id == end.file()));
        let being_written = list.end(end.map(|end| (end.at, last)), last, FileId(0));
        Ok(Some((list, being_written, self.tables.snapshot(), followed.files.format.clone(), keys)))
    }

    /// Reads on from where it was. `false` where what was read does not go on.
    fn step(&self, followed: &mut Followed, read: &Arc<Read>) -> Result<bool> {
        if read.format != followed.files.format {
            return Ok(false);
        }
        let is_new = read.list != followed.files.list;
        let runs = self.files.layout().runs();
        let list = if is_new { &RunList::open_bytes(&read.list, &runs, &self.files.keys())? } else { &followed.list };
        if list.unread != followed.list.unread || is_new && !may_follow(list, followed) {
            return Ok(false);
        }
        let Some(known) = read_on(&self.files, list, followed.reached)? else { return Ok(false) };
        let facts = facts_of(&known, list).collect();
        if is_new {
            self.files.set_growing(growing(list));
        }
        self.tables.take_step(News { list: is_new.then(|| list.clone()), anew: None, facts })?;
        self.show(&known, list.folded);
        *followed = Followed { files: Arc::clone(read), list: list.clone(), reached: known.reached };
        Ok(true)
    }

    /// Reads all that no run has, as when the store is opened.
    fn begin_anew(&self, followed: &mut Followed, read: &Arc<Read>) -> Result<()> {
        let layout = self.files.layout();
        if format::parse(&read.format, &layout.format(), Access::Read)?.0 != self.files.store() {
            return Err(Error::OtherStore { path: layout.root().to_path_buf() });
        }
        let moment = Moment::read(&self.options, layout, read)?;
        let (keys, list, mut known) = (moment.keys.get(), moment.list, moment.read);
        self.names.suspend();
        self.files.forget_open();
        self.tables.forget_pages();
        self.registry.forget_event_positions();
        self.files.set_keys(Keyring::clone(&keys));
        self.files.set_growing(growing(&list));
        let news = News { list: Some(list.clone()), anew: Some((moment.table, &keys)), facts: Vec::new() };
        self.tables.take_step(news)?;
        known.names.clear(); // they are read from the facts
        self.show(&known, list.folded);
        self.names.restart(None);
        *followed = Followed { files: Arc::clone(read), list, reached: known.reached };
        Ok(())
    }

    /// Lets everybody see what was read.
    fn show(&self, known: &ReadOn, folded: Lsn) {
        let last = known.reached.last().max(folded);
        self.names.apply(&known.names, || {
            self.tables.set_durable(last);
            self.tables.set_visible(last);
        });
        if self.names.due() {
            self.names.maintain();
        }
    }
}

impl Store {
    /// Moves a store that is open for [reading only](crate::Options::read_only) forward: reads what the process that
    /// writes it has made durable since it was opened, or since the last call. Returns the LSN of the last commit that
    /// is visible then. The cost is proportional to what is new. Calls and iterators under way go on with the facts
    /// they began with. A store that is open for writing is always up to date.
    ///
    /// Where a copy of the store was put in its place, such as an older one from a backup, that is what is read from
    /// then on, from its beginning: the LSN that is returned may be lower than before. Until then content of the store
    /// of before may be reported as missing or damaged.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = Options::new().create(true).open(dir.path().join("store"))?;
    /// let reader = Options::new().read_only(true).open(dir.path().join("store"))?;
    /// let digest = store.put("pushed a moment ago", Algorithm::Sha256)?.digest;
    /// assert!(!reader.exists(&digest)?);
    /// reader.refresh()?;
    /// assert_eq!(reader.get(&digest)?.bytes()?, "pushed a moment ago");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts that were durable are damaged; [`Error::Key`] where keys have changed and the
    /// provider can't unwrap them; [`Error::OtherStore`] where another store is in the directory by now. The store then
    /// stays where it is.
    pub fn refresh(&self) -> Result<Lsn> {
        self.inner()?.refresh()?;
        Ok(self.last_lsn())
    }
}
