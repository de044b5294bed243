//! The store's files: their ids, where they lie, and what is open of them.
//!
//! Log files, segments and runs have ids of one counter. A new file is a [`NewFile`] until something names it; if that
//! is dropped before, the file is removed. Log files and segments that are read are kept open in a [cache](Cache), up
//! to a limit. Space is [reserved](Reserve) for operations that free space, and the first failed sync [stops](Poison)
//! all writes. Files may be open for reading [only](OnlyRead): where that was asked for, or the log is damaged.

mod cache;
mod contents;
mod ids;
pub(crate) mod layout;
pub(crate) mod limits;
mod new;
mod poison;
mod reserve;

pub(crate) use contents::Contents;
pub(crate) use layout::Layout;
pub(crate) use new::NewFile;
pub(crate) use reserve::Space;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use crate::envelope::{FileEnvelope, KeyNumber, Keyring, Keys, Purpose};
use crate::error::{Damage, Error, ReadOnlyCause, Result};
use crate::facts::{Fact, Family, Place};
use crate::id::{DomainId, FileId, StoreId};
use crate::keys::DomainName;
use crate::sealed::{Grain, MappingBudget, ReadMode, SealedFile};
use crate::segment::{FooterEntry, parse_footer, parse_header};
use crate::sync::{lock, read, write};
use crate::vfs::{Directory, File, Gate, Gated, OpenMode, ReadOnly, Vfs};
use cache::Cache;
use ids::Ids;
use layout::{parse_id, shard};
use poison::Poison;
use reserve::Reserve;

/// How files are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileOptions {
    pub(crate) read_mode: ReadMode,
    /// So many log files and segments are kept open, and mapped.
    pub(crate) max_open: usize,
    /// Segments up to this length, in bytes, may be packs: they have small content in them.
    pub(crate) longest_pack: u64,
    /// How much space is reserved, in bytes.
    pub(crate) reserve: u64,
}

/// How long a log file is at most, in bytes: where another process writes it, its length says nothing.
const LONGEST_LOG: u64 = 1 << 41;

/// Why files are open for reading only.
#[derive(Debug)]
struct OnlyRead {
    cause: ReadOnlyCause,
    /// Whether damage is about to be made good, so that files may be changed.
    is_lifted: Arc<AtomicBool>,
}

/// Opens, keeps, creates and removes log files and segments.
pub(crate) struct Files {
    /// What changes something in it passes the gate.
    vfs: Arc<dyn Vfs>,
    gate: Arc<Gate>,
    layout: Layout,
    store: StoreId,
    keys: Keys,
    ids: Ids,
    cache: Cache,
    mappings: Arc<MappingBudget>,
    longest_pack: u64,
    /// Files that are to be removed.
    discarded: Mutex<Vec<FileId>>,
    /// Shard directories known to be durable: one for every 256 files at most.
    shards: Mutex<BTreeSet<PathBuf>>,
    reserve: Reserve,
    poison: Poison,
    /// Why nothing may be changed.
    only_read: Option<OnlyRead>,
    /// Where another process writes the store: the log files that it may still append to or cut, as far as is known,
    /// and the length that it cuts them to.
    growing: RwLock<BTreeMap<FileId, Option<u64>>>,
    /// Held while a caller tests whether files can be written.
    probing: Mutex<()>,
}

crate::sync::print_by_name!(Files);

impl Files {
    /// Files of a directory that this process has locked.
    pub(crate) fn new(
        (vfs, lock): (Arc<dyn Vfs>, Box<dyn Send + Sync>),
        layout: Layout,
        keys: Keys,
        next_id: FileId,
        options: FileOptions,
    ) -> Self {
        let gate = Gate::new(lock);
        Self {
            store: keys.get().store,
            keys,
            ids: Ids::new(next_id),
            cache: Cache::new(options.max_open),
            mappings: limits::file_mappings(options.read_mode, options.max_open),
            longest_pack: options.longest_pack,
            discarded: Mutex::default(),
            shards: Mutex::default(),
            reserve: Reserve::new(layout.reserve(), options.reserve),
            poison: Poison::default(),
            only_read: None,
            growing: RwLock::default(),
            probing: Mutex::default(),
            vfs: Arc::new(Gated::new(vfs, Arc::clone(&gate))),
            gate,
            layout,
        }
    }

    pub(crate) fn vfs(&self) -> &dyn Vfs {
        &*self.vfs
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn store(&self) -> StoreId {
        self.store
    }

    /// The keys that files are encrypted with now.
    pub(crate) fn keys(&self) -> Arc<Keyring> {
        self.keys.get()
    }

    /// The domain that has a name.
    pub(crate) fn domain_of(&self, name: &DomainName) -> Result<DomainId> {
        self.keys().find(name.as_str()).ok_or_else(|| Error::DomainNotFound { name: name.to_string() })
    }

    /// Lets files be encrypted with other keys from now on. `FORMAT` has them.
    pub(crate) fn set_keys(&self, keys: Keyring) {
        self.keys.set(keys);
    }

    /// From now on nothing is changed.
    pub(crate) fn only_read(&mut self, cause: ReadOnlyCause) {
        let is_lifted = Arc::new(AtomicBool::new(false));
        self.vfs = Arc::new(ReadOnly::new(Arc::clone(&self.vfs), Arc::clone(&is_lifted)));
        self.only_read = Some(OnlyRead { cause, is_lifted });
    }

    /// Lets files be changed all the same: by a salvage.
    pub(crate) fn lift_damage(&self) {
        self.only_read.iter().for_each(|only_read| only_read.is_lifted.store(true, Ordering::Release));
    }

    /// Why nothing is changed, if so.
    pub(crate) fn read_only(&self) -> Option<&ReadOnlyCause> {
        let only_read = self.only_read.as_ref().filter(|only_read| !only_read.is_lifted.load(Ordering::Acquire));
        only_read.map(|only_read| &only_read.cause)
    }

    /// The damage because of which nothing is changed.
    pub(crate) fn damage(&self) -> Option<&Arc<Error>> {
        match self.read_only()? {
            ReadOnlyCause::Damage(damage) => Some(damage),
            ReadOnlyCause::Asked => None,
        }
    }

    /// Another process may still append to these log files, or cut them to a length: they are read by position. A file
    /// that is none of them any more is opened anew.
    pub(crate) fn set_growing(&self, logs: BTreeMap<FileId, Option<u64>>) {
        let old = std::mem::replace(&mut *write(&self.growing), logs);
        old.keys().for_each(|id| self.cache.forget(*id));
    }

    /// The store is closed: nothing is changed from now on, and the lock of the directory is given back.
    pub(crate) fn close(&self) {
        self.gate.shut();
    }

    /// Fails if the store was closed: files may be gone, or changed by another process.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.gate.is_shut() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Fails if an earlier sync did, or nothing may be changed.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        match self.read_only() {
            Some(cause) => Err(Error::ReadOnly { cause: cause.clone() }),
            None => self.poison.check(),
        }
    }

    /// Stops all writes because of a failed sync.
    pub(crate) fn poison(&self, error: Error) -> Error {
        match error {
            Error::Closed => error, // nothing was synced, and nothing will be
            error => self.poison.set(error),
        }
    }

    /// Stops all writes if what failed was a sync, or a rename in which the disk failed (then, and only then, POSIX
    /// leaves open whether it took place), or an invariant that does not hold.
    pub(crate) fn fail_stop(&self, error: Error) -> Error {
        match &error {
            Error::Io { operation: "sync", .. } | Error::Internal { .. } => self.poison(error),
            Error::Io { operation: "rename", source, .. } if source.raw_os_error() == Some(libc::EIO) => {
                self.poison(error)
            }
            _ => error,
        }
    }

    /// Begins a file, under an id that no file of this store has or had.
    pub(crate) fn begin(self: &Arc<Self>) -> NewFile {
        NewFile::begin(Arc::clone(self) as Arc<dyn Contents>)
    }

    /// Creates a log file, durably by name. Stops all writes where the sync of its directory fails.
    pub(crate) fn create_log<T>(&self, id: FileId, create: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let path = self.layout.log(id);
        self.create_in_shard(&self.layout.logs(), id, || create(&path))
    }

    /// Removes a file that nothing names any more, or ever did. Where that fails [maintenance](Self::remove_discarded)
    /// does it, or the next opening.
    pub(crate) fn discard(&self, id: FileId) {
        lock(&self.discarded).push(id);
        self.remove_discarded();
    }

    /// Removes the files that were discarded and are there still.
    pub(crate) fn remove_discarded(&self) {
        let discarded = std::mem::take(&mut *lock(&self.discarded));
        for id in discarded {
            let run = self.layout.run(id);
            let remove = || match self.vfs.remove(&run) {
                // Of a run that a power cut brings back the list says that it is not needed.
                Ok(()) => Ok(()),
                Err(error) if error.kind() == ErrorKind::NotFound => self.remove_durably(&[id]),
                Err(error) => Err(Error::io("remove", &run)(error)),
            };
            let removed = self.check_writable().and_then(|()| remove()).map_err(|error| self.fail_stop(error));
            match removed {
                Ok(()) => self.settled(id),
                Err(_) => lock(&self.discarded).push(id),
            }
        }
    }

    /// A file that the list no longer names, and that is about to be removed if no fact names it: until it is
    /// [`settled`](Self::settled), an opening after a crash looks for it.
    pub(crate) fn unlisted(&self, id: FileId) {
        self.ids.unsettle(id);
    }

    /// The file can be no orphan any more: a durable fact or the list names it, or it is gone.
    pub(crate) fn settled(&self, id: FileId) {
        self.ids.settle(id);
    }

    /// The id that the next file gets, and the lowest one that may be an orphan after a crash now.
    pub(crate) fn horizon(&self) -> (FileId, FileId) {
        self.ids.horizon()
    }

    /// The lowest id of a file that may be being written: of those that are unsettled, without these, and of the next.
    pub(crate) fn oldest_written(&self, except: &[FileId]) -> FileId {
        self.ids.lowest(except)
    }

    /// No id up to this one is given out any more.
    pub(crate) fn skip_past(&self, id: FileId) {
        self.ids.skip_past(id);
    }

    /// No id of a file that facts name is given out any more: a fact that gives one up would give the new file up too.
    pub(crate) fn skip_named<'a>(&self, facts: impl IntoIterator<Item = &'a Fact>) {
        let segments = facts.into_iter().filter(|(key, _)| key.family == Family::Segment);
        segments.for_each(|(key, _)| self.skip_past(FileId(key.prefix())));
    }

    /// Changes entries of a directory, durably.
    pub(crate) fn change_entries<T>(&self, dir: &Path, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let open = open_dir(self.vfs(), dir)?;
        let changed = change()?;
        open.sync().map_err(Error::io("sync", dir))?;
        Ok(changed)
    }

    /// Creates a file with this id below `parent`, durably by name. Stops all writes where a sync fails.
    fn create_in_shard<T>(&self, parent: &Path, id: FileId, create: impl FnOnce() -> Result<T>) -> Result<T> {
        let created = self.prepare_shard(parent, id).and_then(|shard| self.change_entries(&shard, create));
        created.map_err(|error| self.fail_stop(error))
    }

    /// Makes sure that the directory of a new file's shard exists, durably.
    fn prepare_shard(&self, parent: &Path, id: FileId) -> Result<PathBuf> {
        let dir = parent.join(shard(id));
        let mut shards = lock(&self.shards);
        if !shards.contains(&dir) {
            // Also where it is there: whoever created it, perhaps before a crash, may not have synced it.
            self.change_entries(parent, || match self.vfs.create_dir(&dir) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(Error::io("create", &dir)(error)),
                _ => Ok(()),
            })?;
            shards.insert(dir.clone());
        }
        Ok(dir)
    }

    /// The log files with ids from `floor` on, of which `next` was free once.
    pub(crate) fn logs_since(&self, floor: FileId, next: FileId) -> Result<Vec<FileId>> {
        self.created_since(&self.layout.logs(), floor, next)
    }

    /// The files in the shards of a directory with ids from `floor` on. Shards are created in order, but a crash may
    /// have lost any that was not synced, so the search ends at two in a row that are missing beyond the known ids.
    fn created_since(&self, parent: &Path, floor: FileId, next: FileId) -> Result<Vec<FileId>> {
        let mut found = Vec::new();
        let (mut missing, mut number) = (0, floor.0 >> 8);
        while missing < 2 || number <= next.0 >> 8 {
            let dir = parent.join(shard(FileId(number << 8)));
            match self.vfs.list(&dir) {
                Ok(names) => {
                    missing = 0;
                    found.extend(names.iter().filter_map(|name| parse_id(name)).filter(|id| *id >= floor));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => missing += 1,
                Err(error) => return Err(Error::io("list", &dir)(error)),
            }
            number += 1;
        }
        Ok(found)
    }

    /// Keeps everybody else from trying whether files can be written.
    pub(crate) fn probing(&self) -> MutexGuard<'_, ()> {
        lock(&self.probing)
    }

    /// Whether the reserve is there.
    pub(crate) fn has_reserve(&self) -> bool {
        self.reserve.is_there()
    }

    /// Whether space is wanting: for a write that failed, or for the reserve.
    pub(crate) fn lacks_space(&self) -> bool {
        self.gate.lacks_space() || !self.has_reserve()
    }

    /// How many writes have failed for want of space.
    pub(crate) fn shortages(&self) -> u64 {
        self.gate.shortages()
    }

    /// Notes that a collection has given back what it could since there were so many.
    pub(crate) fn gave_space_back(&self, shortages: u64) {
        self.gate.gave_space_back(shortages);
    }

    /// Makes sure that the reserve is there. Nothing that takes space does so without it.
    pub(crate) fn restore_reserve(&self) -> Result<()> {
        self.reserve.restore(self.vfs())
    }

    /// Does something that takes space, and does it again without the reserve where that is needed and allowed.
    pub(crate) fn within<T>(&self, space: Space, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        match work() {
            Err(Error::Full { .. }) if space == Space::Reserve => {
                self.reserve.release(self.vfs());
                work()
            }
            other => other,
        }
    }

    /// Registers a log file that is still written, with its header's bytes: it is read by position, up to its capacity.
    pub(crate) fn insert_active(&self, id: FileId, file: Arc<dyn File>, capacity: u64, header: &[u8]) {
        let none = MappingBudget::new(ReadMode::Positioned, 0);
        let mut file = SealedFile::new(self.layout.log(id), file, capacity, Grain::Small, &none);
        file.set_envelope(FileEnvelope::new(id, header));
        self.cache.insert(id, Arc::new(file), true);
    }

    /// Gives back the space behind the records of a log file that takes no more of them; nobody relies on that. From
    /// now on it is read as any sealed file.
    pub(crate) fn cut_log(&self, id: FileId, len: u64) {
        if let Ok(file) = self.vfs.open(&self.layout.log(id), OpenMode::Write)
            && file.len().is_ok_and(|found| found > len)
        {
            let _ = file.set_len(len);
        }
        self.cache.forget(id);
    }

    /// Forgets all files that are open: others may have their ids by now. Readers that have one go on.
    pub(crate) fn forget_open(&self) {
        self.cache.clear();
    }

    /// Forgets what was derived from a domain's keys.
    pub(crate) fn forget_domain(&self, domain: DomainId) {
        self.cache.forget_domain(domain);
    }

    /// The file that a frame lies in, opened anew and read by position: nothing is taken to be verified since it was
    /// once, or to be there since somebody has it open.
    ///
    /// # Errors
    /// As [`open`](Contents::open).
    pub(crate) fn get_anew(&self, place: &Place) -> Result<Arc<SealedFile>> {
        self.open_sealed(place.file, &MappingBudget::new(ReadMode::Positioned, 0))
    }

    fn open_sealed(&self, id: FileId, mappings: &Arc<MappingBudget>) -> Result<Arc<SealedFile>> {
        let (path, file, grain) = self.open_any(id)?;
        let len = file.len().map_err(Error::io("read the length of", &path))?;
        let grain = if len <= self.longest_pack { Grain::Small } else { grain };
        let mut file = match read(&self.growing).get(&id) {
            Some(cut_to) if *cut_to != Some(len) => {
                let none = MappingBudget::new(ReadMode::Positioned, 0);
                SealedFile::new(path, file, LONGEST_LOG, grain, &none)
            }
            _ => SealedFile::new(path, file, len, grain, mappings),
        };
        if self.keys().is_encrypted() {
            file.set_envelope(FileEnvelope::new(id, &file.read(0, 512)?));
        }
        Ok(Arc::new(file))
    }

    /// Opens a segment, or the log file that became one.
    fn open_any(&self, id: FileId) -> Result<(PathBuf, Arc<dyn File>, Grain)> {
        let segment = self.layout.segment(id);
        for (path, grain) in [(self.layout.log(id), Grain::Small), (segment.clone(), Grain::Block)] {
            match self.vfs.open(&path, OpenMode::Read) {
                Ok(file) => return Ok((path, file, grain)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("open", &path)(error)),
            }
        }
        Err(Error::corrupt(&segment, 0, Damage::Missing))
    }

    /// What is in a segment, which belongs to a domain and is encrypted with this key: its frames, by its footer.
    pub(crate) fn footer(&self, id: FileId, domain: DomainId, key: KeyNumber) -> Result<Vec<FooterEntry>> {
        let path = self.layout.segment(id);
        let file = self.vfs.open(&path, OpenMode::Read).map_err(Error::opening(&path))?;
        // What could not be read is not damaged.
        let failed = std::cell::OnceCell::new();
        let read = |offset, len| {
            let mut bytes = vec![0; len];
            let read = Error::unless_cut_off(&path, file.read_exact_at(&mut bytes, offset));
            read.unwrap_or_else(|error| failed.set(error).ok().and(None)).map(|()| bytes)
        };
        let invalid = || Error::corrupt(&path, 0, Damage::Invalid("segment header"));
        let header = read(0, 512).ok_or_else(|| failed.get().cloned().unwrap_or_else(invalid))?;
        if !parse_header(&header).is_some_and(|header| header.is_of(id, self.store, domain, key)) {
            return Err(invalid());
        }
        let sealing = FileEnvelope::new(id, &header).opening(&self.keys(), domain, key, Purpose::Content);
        let len = file.len().map_err(Error::io("read the length of", &path))?;
        let footer = parse_footer(len, sealing.as_ref(), read);
        let invalid = || Error::corrupt(&path, len, Damage::Invalid("segment footer"));
        footer.ok_or_else(|| failed.get().cloned().unwrap_or_else(invalid))
    }

    /// How long a log file or segment is, in bytes; 0 where it is not there.
    pub(crate) fn len_of(&self, id: FileId) -> Result<u64> {
        match self.open_any(id) {
            Ok((path, file, _)) => file.len().map_err(Error::io("read the length of", &path)),
            Err(Error::Corrupt { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Removes log files or segments so that no power cut brings them back.
    pub(crate) fn remove_durably(&self, ids: &[FileId]) -> Result<()> {
        let mut by_shard: BTreeMap<String, Vec<FileId>> = BTreeMap::new();
        ids.iter().for_each(|id| by_shard.entry(shard(*id)).or_default().push(*id));
        for (shard, ids) in by_shard {
            let dirs = [self.layout.segments(), self.layout.logs()].map(|parent| parent.join(&shard));
            let mut open = Vec::new();
            for dir in &dirs {
                match self.vfs.open_dir(dir) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    opened => open.push((opened.map_err(Error::io("open", dir))?, dir)),
                }
            }
            ids.iter().try_for_each(|id| self.remove(*id))?;
            open.iter().try_for_each(|(open, dir)| open.sync().map_err(Error::io("sync", dir)))?;
        }
        Ok(())
    }

    /// Removes a log file or segment; one that is not there is fine. Open readers are not disturbed. A power cut may
    /// bring it back.
    pub(crate) fn remove(&self, id: FileId) -> Result<()> {
        for path in [self.layout.segment(id), self.layout.log(id)] {
            remove_if_there(self.vfs(), &path)?;
        }
        self.cache.removed(id);
        Ok(())
    }

    /// How many bytes of removed files somebody can still read.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.cache.held_bytes()
    }
}

/// Opens a directory whose entries are going to change.
pub(crate) fn open_dir(vfs: &dyn Vfs, dir: &Path) -> Result<Box<dyn Directory>> {
    vfs.open_dir(dir).map_err(Error::io("open", dir))
}

/// Removes a file, if it is there.
pub(crate) fn remove_if_there(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    match vfs.remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
