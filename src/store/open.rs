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
//! 4. Remove files that were given up in the facts replayed, and files that nothing refers to: those with ids from the
//!    list's orphan floor on that no fact and no list names.
//! 5. Open the names, or have them rebuilt. Start maintenance. Answer.
//!
//! After a restart nothing is appended to a file of an earlier session: the first commit begins a new log file.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};

use crate::envelope::{Keyring, Keys};
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Fact, Family, Key, SegmentFact, SegmentKind, TagFact};
use crate::files::layout::{Layout, parse_id, shard};
use crate::files::{Files, Space, open_dir, remove_if_there};
use crate::gc;
use crate::id::{DomainId, FileId, Lsn, SessionId, StoreId};
use crate::keys::KeyProvider;
use crate::log::commit::{Tip, name_changes};
use crate::log::record::{record_len, tag_len};
use crate::log::replay::{Extent, Record, Replay};
use crate::log::{Body, Op, Position, Times};
use crate::names::{BootId, NameChange, NameKind, Names, Trust, tag_name};
use crate::random::random;
use crate::registry::Chores;
use crate::segment::{DESCRIPTOR_LEN, Frame};
use crate::store::options::{Maintenance, Options};
use crate::store::{Inner, LockGuard, Store, format};
use crate::sync::lock;
use crate::tables::RunList;
use crate::tables::maintenance::{self, Signal};
use crate::tables::memtable::Memtable;
use crate::tables::view::{Lookup, Snapshot, View, decoded};
use crate::transaction::{Context, Facts};
use crate::vfs::{OpenMode, Vfs};

impl Store {
    pub(crate) fn open_with(options: Options, root: &Path) -> Result<Self> {
        let layout = Layout::new(root);
        let vfs = Arc::clone(&options.vfs);
        if options.create {
            create_dir(&*vfs, root)?;
        }
        let guard = take_lock(&*vfs, &layout, options.create)?;
        if !exists(&*vfs, &layout.format())? {
            if !options.create {
                return Err(missing_format(&*vfs, &layout));
            }
            create(&*vfs, &layout, options.key_provider.as_deref())?;
        }
        let keys = format::load(&*vfs, &layout.format(), options.key_provider.as_deref())?;
        let inner = Arc::new(recover(options, layout, keys, guard)?);
        inner.go_on_shredding();
        // Dropped where a thread can't be started, it ends those that were.
        let mut store = Self { inner, threads: Vec::new(), closed: false };
        if store.inner.options.maintenance == Maintenance::Thread {
            store.spawn("strongroom", maintenance::run_thread)?;
        }
        if let Some(background) = store.inner.options.background.clone() {
            store.spawn("strongroom-gc", move |inner| gc::run_thread(inner, &background))?;
        }
        Ok(store)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce(&Inner) + Send + 'static) -> Result<()> {
        let shared = Arc::clone(&self.inner);
        let spawned = std::thread::Builder::new().name(name.into()).spawn(move || run(&shared));
        let root = self.inner.files.layout.root();
        self.threads.push(spawned.map_err(Error::io("start a thread of", root))?);
        Ok(())
    }
}

/// Creates a directory, durably, unless it is there.
fn create_dir(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    match vfs.create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(Error::io("create", path)(error)),
        _ => {}
    }
    // Also where it was there: whoever created it may have lost power since.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(vfs, parent)
}

/// Makes durable what whoever had the store before has done to a directory.
fn sync_dir(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    open_dir(vfs, dir)?.sync().map_err(Error::io("sync", dir))
}

fn take_lock(vfs: &dyn Vfs, layout: &Layout, create: bool) -> Result<LockGuard> {
    let root = layout.root();
    if !create && !exists(vfs, &layout.format())? {
        return Err(missing_format(vfs, layout));
    }
    match vfs.lock(&layout.lock()) {
        Ok(guard) => Ok(LockGuard(guard)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Error::Locked { path: root.to_path_buf() }),
        Err(error) => Err(Error::io("lock", &layout.lock())(error)),
    }
}

/// Why there is no `FORMAT`: because there is no store, or because it was lost.
fn missing_format(vfs: &dyn Vfs, layout: &Layout) -> Error {
    if RunList::is_of_a_store(vfs, &layout.runs()) {
        return Error::corrupt(&layout.format(), 0, Damage::Missing);
    }
    Error::NotAStore { path: layout.root().to_path_buf() }
}

fn exists(vfs: &dyn Vfs, path: &Path) -> Result<bool> {
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
    if let Error::Corrupt { file, offset, damage } = missing_format(vfs, layout) {
        return Err(Error::Corrupt { file, offset, damage });
    }
    let store = StoreId(random()?);
    let plain = Keyring::plain(store);
    let keys = provider.map_or(Ok(plain.clone()), |provider| plain.encrypted(provider, false))?;
    for dir in [layout.logs(), layout.runs(), layout.segments()] {
        create_dir(vfs, &dir)?;
    }
    let list = RunList::empty(store).write(vfs, &layout.runs(), &keys)?;
    list.sync().map_err(Error::io("sync", &layout.runs()))?;
    RunList::publish(vfs, &layout.runs(), &*open_dir(vfs, &layout.runs())?)?;
    format::replace(vfs, layout, &keys, format::Old::Leave)
}

/// Brings a store back from what is on disk.
fn recover(options: Options, layout: Layout, keyring: Keyring, guard: LockGuard) -> Result<Inner> {
    let vfs = Arc::clone(&options.vfs);
    let store = keyring.store;
    let list = RunList::load(&*vfs, &layout.runs(), &keyring)?;
    // A process that was killed may have renamed the list, or `FORMAT` with new keys, and not synced that. What follows
    // acts on what they say, and encrypts with those keys.
    for dir in [layout.runs(), layout.root().to_path_buf()] {
        sync_dir(&*vfs, &dir)?;
    }
    if list.store != store {
        return Err(Error::corrupt(&layout.runs().join("LIST"), 0, Damage::Invalid("store id")));
    }
    let next_id = list.next_file.max(FileId(1));
    let domains = keyring.active().collect();
    let keys = Keys::new(keyring);
    let files = Files::new(vfs, layout, keys.clone(), next_id, &options);
    let session = SessionId(random()?);
    let replayed = replay(&files, &list)?;
    let table = Memtable::new();
    let mut names = Vec::new();
    let (durable, tail) = (replayed.durable, replayed.tail);
    for record in replayed.records {
        note_names(&mut names, &record);
        for fact in record.facts {
            table.insert(record.header.lsn, fact);
        }
    }
    let trust = Trust {
        store,
        session: replayed.session.unwrap_or(list.session),
        folded: list.folded,
        last: tail.last().map_or(durable, |tail| tail.record.header.lsn),
        boot: BootId::current(),
    };
    let names_dir = options.names_on_disk.then(|| files.layout.names());
    let view = Names::new(names_dir, session, trust, keys);
    let inner = Inner {
        session,
        queue: Mutex::default(),
        tip: Mutex::new(Tip { active: None, last: durable, unsealed: replayed.unsealed }),
        view: RwLock::new(Arc::new(View { active: Arc::new(table), frozen: Vec::new(), runs: Vec::new(), domains })),
        visible: AtomicU64::new(durable.0),
        durable: AtomicU64::new(durable.0),
        unfolded_logs: AtomicU64::new(list.unfolded_logs()),
        names: view,
        uploads: Mutex::default(),
        key_provider: Mutex::new(options.key_provider.clone()),
        key_changes: Mutex::default(),
        chores: Chores::default(),
        event_positions: Mutex::default(),
        signal: Signal::default(),
        collector: Signal::default(),
        collections: gc::Memory::default(),
        scrubbing: Mutex::default(),
        maintenance: Mutex::default(),
        maintenance_failure: Mutex::default(),
        folded: std::sync::Condvar::new(),
        poison: OnceLock::new(),
        open_time_base: replayed.open_time.max(list.open_time_ms).cast_signed() - options.clock.elapsed().cast_signed(),
        names_refresh: Mutex::default(),
        dead_logs: Mutex::default(),
        damaged_runs: Mutex::default(),
        unsettled: AtomicBool::new(false),
        logs: RwLock::new(list.logs.as_slice().into()),
        list: Mutex::new(list),
        _lock: guard,
        files,
        options,
    };
    inner.open_runs()?;
    let candidates = inner.unlisted_files()?;
    // A file that a fact gave up is gone, but its id must not come again: the fact would give up the new file too.
    let replayed_facts = inner.view().active.sorted(Lsn(u64::MAX));
    let tail_facts = tail.iter().flat_map(|tail| &tail.record.facts);
    for (key, _) in replayed_facts.iter().chain(tail_facts).filter(|(key, _)| key.family == Family::Segment) {
        inner.files.skip_past(FileId(key.prefix()));
    }
    for tail in &tail {
        note_names(&mut names, &tail.record);
    }
    inner.rewrite_tail(tail)?;
    inner.remove_orphans(&candidates)?;
    inner.cut_logs();
    remove_if_there(&*inner.files.vfs, &inner.files.layout.probe())?; // a crash may have left it
    let _ = inner.files.restore_reserve(); // on a full disk, later
    inner.names.apply(&names, || {});
    // Else the maintenance thread does it, and until then the facts are asked.
    if inner.options.maintenance == Maintenance::Inline {
        inner.refresh_names();
    }
    Ok(inner)
}

fn note_names(names: &mut Vec<(Lsn, NameChange)>, record: &Record) {
    let ops = Op::parse_all(&record.ops).unwrap_or_default();
    names.extend(name_changes(record.header.domain, &ops).into_iter().map(|change| (record.header.lsn, change)));
}

/// What the log holds.
struct Replayed {
    /// Records behind the folded LSN that are known durable.
    records: Vec<Record>,
    /// Whole records behind those, with their frames.
    tail: Vec<Tail>,
    durable: Lsn,
    /// How far the last file reaches with what is durable, if the list has it as open.
    unsealed: Option<(u64, Lsn)>,
    /// The last session that wrote to the log.
    session: Option<SessionId>,
    open_time: u64,
}

/// A record that may be in the page cache only.
struct Tail {
    record: Record,
    file: FileId,
    frame: Option<Frame>,
}

impl Tail {
    /// How long the record is at most in a new file.
    fn len(&self, keys: &Keyring) -> u64 {
        let key = keys.current(self.record.domain()).unwrap_or_default();
        let frame_len = self.frame.as_ref().map_or(0, |frame| frame.len(key));
        record_len(frame_len, self.record.header.body_len() + tag_len(key))
    }
}

/// Reads the log files that the list names.
fn replay(files: &Files, list: &RunList) -> Result<Replayed> {
    let mut replayed = Replayed {
        records: Vec::new(),
        tail: Vec::new(),
        durable: list.durable.max(list.folded),
        unsealed: None,
        session: None,
        open_time: 0,
    };
    let keyring = files.keys.get();
    let mut next = list.folded.next();
    // What the runs have is not needed any more: those files are kept for who reads events.
    for entry in list.logs.iter().filter(|entry| entry.is_needed(list.folded)) {
        let (path, file, header) = files.open_log(entry.id)?;
        if header.first_lsn != entry.first_lsn || header.first_lsn > next {
            return Err(Error::corrupt(&path, 0, Damage::Invalid("first LSN")));
        }
        let extent = match entry.sealed {
            Some((len, last)) => Extent::Sealed { len, last },
            None => Extent::Open { durable: list.durable },
        };
        let mut reader = Replay::new(&path, &*file, header, &keyring, extent, list.folded)?;
        let mut records = Vec::new();
        while let Some(record) = reader.next()? {
            next = record.header.lsn.next().max(next);
            replayed.durable = replayed.durable.max(record.header.durable);
            replayed.open_time = replayed.open_time.max(record.header.open);
            records.push(record);
        }
        replayed.session = Some(header.session);
        if let Some((_, last)) = entry.sealed {
            replayed.durable = replayed.durable.max(last);
        }
        let tail = records.split_off(records.partition_point(|record| record.header.lsn <= replayed.durable));
        if entry.sealed.is_none() {
            let len = records.last().map_or(crate::log::file::HEADER_LEN, Record::end);
            replayed.unsealed = Some((len, replayed.durable));
        }
        for record in tail {
            let Some(frame) = reader.frame(&record)? else {
                reader.end_before(&record)?;
                break;
            };
            replayed.tail.push(Tail { record, file: entry.id, frame });
        }
        replayed.records.extend(records.into_iter().filter(|record| record.header.lsn > list.folded));
    }
    Ok(replayed)
}

impl Inner {
    fn open_runs(&self) -> Result<()> {
        // Those of a domain that was being shredded have no key any more, and are about to go.
        let (metas, keys) = (lock(&self.list).runs.clone(), self.files.keys.get());
        let metas = metas.iter().filter(|meta| !keys.is_shredded(meta.domain));
        let runs = metas.map(|meta| self.open_run(meta).map(Arc::new)).collect::<Result<Vec<_>>>()?;
        let old = self.view();
        *crate::sync::write(&self.view) = Arc::new(View { runs, ..View::clone(&old) });
        Ok(())
    }

    /// The log files and segments from the orphan floor on, and the runs, that the list does not name. No id of theirs
    /// is given out again.
    fn unlisted_files(&self) -> Result<Vec<(FileId, PathBuf)>> {
        let list = lock(&self.list).clone();
        let layout = &self.files.layout;
        let mut dirs = vec![layout.runs()];
        for parent in [layout.logs(), layout.segments()] {
            dirs.extend(self.shards_from(&parent, list.orphan_floor, list.next_file)?);
        }
        let mut unlisted = Vec::new();
        for dir in dirs {
            for name in self.files.vfs.list(&dir).map_err(Error::io("list", &dir))? {
                let Some(id) = parse_id(&name) else { continue };
                self.files.skip_past(id);
                let is_listed = list.logs.iter().any(|log| log.id == id) || list.runs.iter().any(|run| run.id == id);
                if !is_listed && (id >= list.orphan_floor || dir == layout.runs()) {
                    self.files.unlisted(id); // until it is dealt with, lists tell the next opening to look for it
                    unlisted.push((id, dir.join(name)));
                }
            }
        }
        Ok(unlisted)
    }

    /// Removes files that were given up, and those of the unlisted that no fact names.
    fn remove_orphans(&self, unlisted: &[(FileId, PathBuf)]) -> Result<()> {
        let snapshot = self.snapshot();
        for (key, value) in snapshot.view.active.sorted(snapshot.lsn) {
            let given_up = FileId(key.prefix());
            if key.family == Family::Segment && value.is_none() && snapshot.segments(given_up)?.is_empty() {
                self.files.remove(given_up)?;
            }
        }
        let (mut orphans, mut empty_logs) = (Vec::new(), Vec::new());
        for (id, path) in unlisted {
            let segments = snapshot.segments(*id)?;
            let is_empty = |segment: &SegmentFact| segment.kind == SegmentKind::Log && segment.live_frames == 0;
            if segments.iter().any(|(_, segment)| is_empty(segment)) {
                empty_logs.push(*id);
            } else if segments.is_empty() && path.starts_with(self.files.layout.runs()) {
                remove_if_there(&*self.files.vfs, path)?;
            } else if segments.is_empty() {
                orphans.push(*id);
            }
        }
        self.files.remove_durably(&orphans)?;
        let dealt_with = unlisted.iter().map(|(id, _)| *id).filter(|id| !empty_logs.contains(id));
        dealt_with.for_each(|id| self.files.published(id));
        lock(&self.dead_logs).append(&mut empty_logs);
        match self.drop_dead_logs() {
            Err(Error::Full { .. }) => Ok(()), // maintenance tries again
            other => other,
        }
    }

    /// Gives back the space behind the records of log files, where a crash came before that was done.
    fn cut_logs(&self) {
        let logs = lock(&self.list).logs.clone();
        for log in logs {
            log.sealed.iter().for_each(|(len, _)| self.files.cut_log(log.id, *len));
        }
    }

    /// The shard directories that may hold files with ids from `floor` on. Shards are created in order, but a crash may
    /// have lost any that was not synced, so the search ends at two in a row that are missing beyond the known ids.
    fn shards_from(&self, parent: &Path, floor: FileId, next: FileId) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut missing = 0;
        let mut shard_number = floor.0 >> 8;
        while missing < 2 || shard_number <= next.0 >> 8 {
            let dir = parent.join(shard(FileId(shard_number << 8)));
            match self.files.vfs.list(&dir) {
                Ok(_) => {
                    found.push(dir);
                    missing = 0;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => missing += 1,
                Err(error) => return Err(Error::io("list", &dir)(error)),
            }
            shard_number += 1;
        }
        Ok(found)
    }

    /// Writes the tail to a new log file, durably, and takes its facts in.
    fn rewrite_tail(&self, tail: Vec<Tail>) -> Result<()> {
        if tail.is_empty() {
            return Ok(());
        }
        let mut tip = lock(&self.tip);
        let keys = self.files.keys.get();
        let len: u64 = tail.iter().map(|tail| tail.len(&keys) + REBASE_ROOM).sum();
        let mut log = self.create_log(tip.last.next(), len, Space::Reserve)?;
        let snapshot = self.snapshot();
        let mut overlay: HashMap<Key, _> = HashMap::new();
        let mut moved = HashMap::new();
        let mut facts = Vec::new();
        for Tail { record, file, frame } in tail {
            let frame_offset = log.position + crate::log::record::HEADER_LEN as u64;
            let context = Context {
                domain: record.domain(),
                key: keys.current(record.domain()).unwrap_or_default(),
                snapshot: &snapshot,
                overlay: &overlay,
                log: log.header.file,
                frame_offset,
                oldest_log: self.oldest_log(file),
                lsn: record.header.lsn,
                now: Times { wall: record.header.wall, open: record.header.open },
                retention: self.options.retention_time(),
            };
            if frame.is_some() {
                moved.insert(record.frame_offset() + DESCRIPTOR_LEN, frame_offset + DESCRIPTOR_LEN);
            }
            let times = context.now;
            let rebased = rebase(&record, file, &moved, &context)?;
            overlay.extend(rebased.iter().cloned());
            let body = Body { domain: record.domain(), ops: record.ops, facts: rebased };
            let header = record.header;
            let at = Position { lsn: header.lsn, durable: self.durable(), times, offset: log.position };
            let content_at = frame_offset + DESCRIPTOR_LEN;
            let encoded = log.encode(&keys, &body, at, frame.as_ref(), content_at)?;
            log.append(&mut encoded.pieces().map(std::io::IoSlice::new).to_vec(), encoded.len())?;
            facts.extend(body.facts.into_iter().map(|fact| (header.lsn, fact)));
            tip.last = header.lsn;
        }
        log.sync()?;
        let durable = tip.last;
        self.durable.store(durable.0, std::sync::atomic::Ordering::Release);
        self.list_log(&log, tip.unsealed.take(), Space::Reserve)?;
        let view = self.view();
        for (lsn, fact) in facts {
            view.active.insert(lsn, fact);
        }
        self.visible.store(durable.0, std::sync::atomic::Ordering::Release);
        tip.active = Some(log);
        Ok(())
    }

    /// Opens the view of names or reads them from the facts again, if that is due. Where those are damaged, whoever
    /// asks for names meets that.
    pub(crate) fn refresh_names(&self) {
        // One at a time: a second one would bring the names of an older moment, or to a view that the first is about to
        // replace.
        if let Ok(one) = self.names_refresh.try_lock() {
            self.refresh_names_as(&one);
        }
    }

    pub(crate) fn refresh_names_as(&self, _one: &MutexGuard<'_, ()>) {
        if !self.names.needs_rebuild() || !self.names.prepare() {
            return;
        }
        let snapshots: Vec<Snapshot> = self.snapshot().each_domain().collect();
        // One after the other: each looks through all facts that no run has.
        let names = snapshots.iter().flat_map(|snapshot| -> Box<dyn Iterator<Item = _>> {
            match names_of(snapshot) {
                Ok(names) => Box::new(names),
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        });
        let _ = self.names.rebuild(names);
    }
}

/// All names that facts of the snapshot's domain have.
fn names_of(snapshot: &Snapshot) -> Result<impl Iterator<Item = Result<(DomainId, NameKind, String)>> + '_> {
    let domain = snapshot.domain;
    let pins = snapshot.pins()?.map(move |pin| Ok((domain, NameKind::Pin, pin?.name)));
    let repositories = snapshot.repositories()?;
    let repositories = repositories.map(move |repository| Ok((domain, NameKind::Repository, repository?.name)));
    let tags = snapshot.facts(Family::Tag, [0; 32])?.map(move |fact| {
        let (key, value) = fact?;
        let tag = decoded(TagFact::decode(value.as_bytes()))?.tag;
        Ok((domain, NameKind::Tag, tag_name(key.repository_id(), &tag)))
    });
    Ok(pins.chain(repositories).chain(tags))
}

/// How many bytes a record may grow when its facts are rebased: the facts of two segments.
const REBASE_ROOM: u64 = 512;

/// The facts of a record of the tail, where frames of `old_log` have moved: `moved` has the old and the new offsets of
/// the frames' contents.
///
/// What the facts say of segments was true of the old places: it is taken from the changes of the blobs' places anew,
/// except that an upload was begun in a segment, or that one was given up.
fn rebase(record: &Record, old_log: FileId, moved: &HashMap<u64, u64>, context: &Context<'_>) -> Result<Vec<Fact>> {
    let (blobs, others): (Vec<Fact>, Vec<Fact>) =
        record.facts.iter().cloned().partition(|(key, _)| key.family == Family::Blob);
    let stands = |(key, value): &Fact| match value {
        Some(value) if key.family == Family::Segment => {
            SegmentFact::decode(value.as_bytes()).is_some_and(|segment| segment.kind == SegmentKind::Upload)
        }
        _ => true,
    };
    let mut facts = Facts::new(context, others.into_iter().filter(stands).collect());
    for (key, value) in blobs {
        let old = facts.blob_by_key(&key)?;
        let mut new = value.map(|value| decoded(BlobFact::decode(value.as_bytes()))).transpose()?;
        if let Some(BlobFact { place, .. }) = &mut new
            && place.file == old_log
            && let Some(offset) = moved.get(&place.offset)
        {
            place.file = context.log;
            place.offset = *offset;
            if context.key != 0 {
                (place.key, place.crc) = (context.key, 0);
            }
        }
        facts.change(key, old.as_ref(), new.as_ref())?;
    }
    Ok(facts.into_facts())
}
