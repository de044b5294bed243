//! Creating and opening a store, and recovery.
//!
//! # Recovery, step by step
//! 1. Take the lock; read `FORMAT` and `runs/LIST`, and sync the directories of both; open the runs that the latter
//!    names.
//! 2. Replay the log files that the list names, oldest first: facts above the LSN that the runs reach go into a table.
//!    A sealed file must reach exactly as far as the list says. The last one may end in a group that a power cut tore.
//! 3. Find out what is known durable: the highest LSN that the list or any record says is. The records behind it, the
//!    *tail*, were read from what may be only the page cache, so they are written to a new log file and synced, in
//!    which their frames have new places. The new list, which names that file, makes it so; before it, nothing has
//!    changed, and the next recovery does the same again.
//! 4. Seal the log file of the session before, and cut it behind its last record: readers may map it.
//! 5. Remove files that were given up in the facts replayed, and files that nothing refers to: those with ids from the
//!    list's orphan floor on that no fact and no list names.
//! 6. Open the names, or have them rebuilt. Start maintenance. Answer.
//!
//! After a restart nothing is appended to a file of an earlier session: the first commit begins a new log file.
//!
//! Where step 2 meets damage, opening fails, unless the caller has asked for what is before it
//! ([`Recovery::ReadOnlyUpToDamage`]): then the facts up to there are used, all steps that write are left out, and from
//! then on the file system refuses all changes. Repairing it is [`salvage`]'s task.
//!
//! [`salvage`]: super::salvage

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::StoreClock;
use crate::envelope::{Keyring, Keys};
use crate::error::{Damage, Error, ReadOnlyCause, Result};
use crate::facts::Family;
use crate::files::{Files, Layout, open_dir, remove_if_there};
use crate::gc;
use crate::id::{FileId, SessionId, StoreId};
use crate::keys::KeyProvider;
use crate::log::recovery::{Replayed, replay};
use crate::names::{BootId, Names, Trust};
use crate::random::random;
use crate::store::follow::open_reading;
use crate::store::format::Access;
use crate::store::locked::{hold_back, read_held_back};
use crate::store::options::{Maintenance, Options, Recovery};
use crate::store::orphans::{remove_orphans, unlisted_files};
use crate::store::{Inner, Open, Store, format, maintenance, names};
use crate::sync::lock;
use crate::tables::RunList;
use crate::tables::memtable::Memtable;
use crate::thread;
use crate::vfs::{Directory, OpenMode, Vfs, parent_of};

/// How long opening waits between attempts to take the lock: the system can wait for a lock, but not for so long and no
/// longer.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

impl Store {
    pub(crate) fn open_with(mut options: Options, root: &Path) -> Result<Self> {
        options.max_open_files = Some(options.open_files());
        let layout = Layout::new(root);
        let vfs = Arc::clone(&options.vfs);
        if options.read_only {
            return Self::open_reading(options, layout);
        }
        if options.create {
            create_root(&*vfs, root, &layout)?;
        }
        let held = take_lock(&options, &layout)?;
        if !exists(&*vfs, &layout.format())? {
            if !options.create {
                return Err(missing_format(&*vfs, &layout));
            }
            create(&*vfs, &layout, options.key_provider.as_deref())?;
        }
        let keys = format::load(&*vfs, &layout.format(), options.key_provider.as_deref())?;
        let inner = Arc::new(recover(options, layout, keys, held)?);
        if inner.files.damage().is_some() {
            return Ok(Open::new(inner).into_store());
        }
        if inner.options.maintenance == Maintenance::Inline {
            let shared = Arc::downgrade(&inner);
            inner.upkeep.do_inline(Box::new(move || {
                if let Some(inner) = shared.upgrade() {
                    inner.maintain_if_due();
                }
            }));
        }
        inner.go_on_shredding();
        // Dropped where a thread can't be started, it ends those that were.
        let mut open = Open::new(inner);
        if open.inner.options.maintenance == Maintenance::Thread {
            open.spawn("strongroom-names", names::run_thread)?;
            open.spawn("strongroom", maintenance::run_thread)?;
        }
        if let Some(background) = open.inner.options.background.clone() {
            open.spawn("strongroom-gc", move |inner| {
                gc::run_thread(&inner.collections, &background, &inner.collector)
            })?;
        }
        Ok(open.into_store())
    }

    fn open_reading(options: Options, layout: Layout) -> Result<Self> {
        if !exists(&*options.vfs, &layout.format())? {
            return Err(missing_format(&*options.vfs, &layout));
        }
        let inner = match open_reading(&options, &layout) {
            // As it is now: a store with a damaged log has no writer.
            Err(Error::Corrupt { .. }) if options.recovery == Recovery::ReadOnlyUpToDamage => {
                let (bytes, path) = (format::read(&*options.vfs, &layout.format())?, layout.format());
                let keys = format::open(&bytes, &path, options.key_provider.as_deref(), Access::Read)?;
                Arc::new(recover(options, layout, keys, Box::new(()))?)
            }
            opened => {
                let inner = Arc::new(opened?);
                inner.follow();
                inner
            }
        };
        Ok(Open::new(inner).into_store())
    }
}

impl Open {
    fn spawn(&mut self, name: &str, run: impl FnOnce(&Inner) + Send + 'static) -> Result<()> {
        let shared = Arc::clone(&self.inner);
        let spawned = thread::spawn(name, move || run(&shared));
        let root = self.inner.files.layout().root();
        lock(&self.threads).push(spawned.map_err(Error::io("start a thread of", root))?);
        Ok(())
    }
}

/// Makes sure that the store's directory is there, durably, with the directories that lead to it.
fn create_root(vfs: &dyn Vfs, root: &Path, layout: &Layout) -> Result<()> {
    if exists(vfs, &layout.format())? {
        return Ok(()); // it was synced when the store was created
    }
    let mut missing = Vec::new();
    let mut there = root;
    while !there.as_os_str().is_empty() && is_missing(vfs, there)? {
        missing.push(there);
        there = there.parent().unwrap_or(Path::new(""));
    }
    // What is there may have been created, and not synced, before a power cut. What leads to it was synced before it
    // was created.
    sync_entry_of(vfs, there)?;
    for dir in missing.into_iter().rev() {
        let Some(parent) = parent_of(dir) else { continue };
        let open = open_dir(vfs, parent)?;
        // Before there is anything, to find out whether that can be done there.
        sync_entries(&*open, parent)?;
        make_dir(vfs, dir)?;
        sync_entries(&*open, parent)?;
    }
    // Before there is anything in it.
    sync_entries(&*open_dir(vfs, root)?, root)
}

fn is_missing(vfs: &dyn Vfs, dir: &Path) -> Result<bool> {
    match vfs.open_dir(dir) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        // What may not be opened, or is no directory, is there.
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(Error::io("open", dir)(error)),
    }
}

/// Makes the entry of a directory that is there durable.
fn sync_entry_of(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    let Some(parent) = parent_of(dir) else { return Ok(()) };
    let open = vfs.open_dir(parent).map_err(Error::io("open", parent));
    match open.and_then(|open| sync_entries(&*open, parent)) {
        // The directory was made by another user, or is a mount point: its entry is durable.
        Err(Error::UnsupportedFileSystem { .. }) => Ok(()),
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Makes a directory's entries durable, or says that its file system can't.
pub(super) fn sync_entries(open: &dyn Directory, dir: &Path) -> Result<()> {
    open.sync().map_err(|error| match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::Unsupported => {
            Error::UnsupportedFileSystem { path: dir.to_path_buf(), lacks: "syncing directories (fsync)" }
        }
        _ => Error::io("sync", dir)(error),
    })
}

/// Creates a directory unless it is there.
pub(super) fn make_dir(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    match vfs.create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(Error::io("create", path)(error)),
        _ => Ok(()),
    }
}

/// Makes the entries of a directory durable as an earlier process left them.
pub(super) fn sync_dir(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    open_dir(vfs, dir)?.sync().map_err(Error::io("sync", dir))
}

/// Takes the lock, and waits for it as long as the options say.
pub(super) fn take_lock(options: &Options, layout: &Layout) -> Result<Box<dyn Send + Sync>> {
    let vfs = &*options.vfs;
    if !options.create && !exists(vfs, &layout.format())? {
        return Err(missing_format(vfs, layout));
    }
    let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        let held = try_lock(vfs, layout);
        let left = options.wait_for_lock.saturating_sub(began.elapsed());
        if left.is_zero() || !matches!(held, Err(Error::Locked { .. })) {
            return held;
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Takes the lock, unless somebody holds it.
pub(super) fn try_lock(vfs: &dyn Vfs, layout: &Layout) -> Result<Box<dyn Send + Sync>> {
    vfs.lock(&layout.lock()).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => Error::Locked { path: layout.root().to_path_buf() },
        _ => Error::io("lock", &layout.lock())(error),
    })
}

/// Why there is no `FORMAT`: because there is no store, or because it was lost.
fn missing_format(vfs: &dyn Vfs, layout: &Layout) -> Error {
    match RunList::is_of_a_store(vfs, &layout.runs()) {
        Ok(true) => Error::corrupt(&layout.format(), 0, Damage::Missing),
        Ok(false) => Error::NotAStore { path: layout.root().to_path_buf() },
        Err(error) => error,
    }
}

pub(super) fn exists(vfs: &dyn Vfs, path: &Path) -> Result<bool> {
    match vfs.open(path, OpenMode::Read) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(Error::io("open", path)(error)),
    }
}

/// Makes an empty directory, or one in which this was begun before, a store. `FORMAT` comes last.
fn create(vfs: &dyn Vfs, layout: &Layout, provider: Option<&dyn KeyProvider>) -> Result<()> {
    let root = layout.root();
    for name in vfs.list(root).map_err(Error::io("list", root))? {
        if !matches!(
            name.as_str(),
            "LOCK" | "RESERVE" | "FORMAT.tmp" | "log" | "runs" | "segments" | "names" | "lost+found"
        ) {
            return Err(Error::NotEmpty { path: root.to_path_buf() });
        }
    }
    match missing_format(vfs, layout) {
        Error::NotAStore { .. } => {}
        other => return Err(other),
    }
    let store = StoreId(random()?);
    let plain = Keyring::plain(store);
    let keys = provider.map_or(Ok(plain.clone()), |provider| plain.encrypted(provider, false))?;
    let open = open_dir(vfs, root)?;
    [layout.logs(), layout.runs(), layout.segments()].iter().try_for_each(|dir| make_dir(vfs, dir))?;
    sync_entries(&*open, root)?;
    let list = RunList::empty(store).write(vfs, &layout.runs(), &keys)?;
    list.sync().map_err(Error::io("sync", &layout.runs()))?;
    RunList::replace(vfs, &layout.runs(), &*open_dir(vfs, &layout.runs())?)?;
    format::replace(vfs, layout, &keys, format::Old::Leave)
}

/// Brings a store back from what is on disk.
pub(super) fn recover(options: Options, layout: Layout, keyring: Keyring, held: Box<dyn Send + Sync>) -> Result<Inner> {
    let vfs = Arc::clone(&options.vfs);
    let store = keyring.store;
    let list = RunList::load(&*vfs, &layout.runs(), &keyring)?;
    // A process that was killed may have renamed the list, or `FORMAT` with new keys, and not synced that. What follows
    // acts on what they say, and encrypts with those keys.
    if !options.read_only {
        [layout.runs(), layout.root().to_path_buf()].iter().try_for_each(|dir| sync_dir(&*vfs, dir))?;
    }
    if list.store != store {
        return Err(Error::corrupt(&layout.runs().join("LIST"), 0, Damage::Invalid("store id")));
    }
    let (keyring, held_back) = hold_back(keyring, &list);
    let keys = Keys::new(keyring);
    let next_id = list.next_file.max(FileId(1));
    let mut files = Files::new((vfs, held), layout, keys.clone(), next_id, options.files());
    let session = SessionId(random()?);
    let replayed = replay(&files, &list)?;
    let Replayed { records, tail, names, durable, unsealed, session: last_session, open_time, stop } = replayed;
    match stop {
        Some(stop) if options.recovery == Recovery::Strict => return Err(stop.error),
        Some(stop) => files.only_read(ReadOnlyCause::Damage(Arc::new(stop.error))),
        None => {}
    }
    let files = Arc::new(files);
    let (mut list, table) = (list, Memtable::new());
    let held_back = if files.damage().is_some() {
        read_held_back(&files, &mut list, held_back, durable, &table);
        Vec::new()
    } else {
        held_back
    };
    table.fill(records.into_iter().flat_map(|record| {
        let lsn = record.header.lsn;
        record.facts.into_iter().map(move |fact| (lsn, fact))
    }));
    let trust = Trust {
        store,
        session: last_session.unwrap_or(list.session),
        folded: list.folded,
        last: tail.last().map_or(durable, |tail| tail.record.header.lsn),
        boot: BootId::current(),
    };
    let clock = StoreClock::new(options.clock.clone(), open_time.max(list.open_time_ms));
    let names_dir = (options.names_on_disk && files.damage().is_none()).then(|| files.layout().names());
    let view = Arc::new(Names::new(names_dir, session, trust, keys));
    let found = list.clone();
    let inner = Inner::new(options, (files, view), clock, session, (list, table, durable, unsealed));
    let (files, tables, log) = (&inner.files, &inner.tables, &inner.log);
    tables.open_runs()?;
    if files.damage().is_some() {
        tables.see_locked(&files.keys(), &tables.hold_list());
        inner.names.apply(&names, || {});
        inner.refresh_names();
        return Ok(inner);
    }
    let unlisted = unlisted_files(files, &tables.list())?;
    files.skip_named(tables.unfolded(Family::Segment).iter().chain(tail.iter().flat_map(|tail| &tail.record.facts)));
    log.take_tail(tail)?;
    log.seal_last_session()?;
    tables.note_unread(&found);
    remove_orphans(files, tables, log, &unlisted)?;
    log.cut_logs();
    // A crash may have left them.
    remove_if_there(files.vfs(), &files.layout().probe())?;
    remove_if_there(files.vfs(), &files.layout().unfinished())?;
    let _ = files.restore_reserve(); // on a full disk, later
    inner.names.apply(&names, || {});
    inner.take_in_all(held_back)?;
    // Else their thread does it, and until then the facts are asked.
    if inner.options.maintenance == Maintenance::Inline {
        inner.refresh_names();
    }
    Ok(inner)
}
