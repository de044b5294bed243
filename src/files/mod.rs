//! The store's files: ids are given out here, and open segments are kept here.

pub(crate) mod layout;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use crate::envelope::{FileEnvelope, KeyNumber, Keys, Purpose};
use crate::error::{Damage, Error, Result};
use crate::facts::Place;
use crate::files::layout::{Layout, shard};
use crate::id::{DomainId, FileId, StoreId};
use crate::log::{ActiveLog, LogHeader};
use crate::sealed::{Grain, MappingBudget, ReadMode, SealedFile};
use crate::segment::{FooterEntry, parse_footer, parse_header};
use crate::store::options::Options;
use crate::sync::{IdHasher, lock, read, write};
use crate::tables::PageCache;
use crate::vfs::{Directory, File, OpenMode, Vfs};

/// Opens, keeps and creates log files and segments.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) layout: Layout,
    pub(crate) store: StoreId,
    /// The keys that files are encrypted with.
    pub(crate) keys: Keys,
    /// Decrypted pages of runs.
    pub(crate) pages: Arc<PageCache>,
    mappings: Arc<MappingBudget>,
    /// Runs are few, and all of them are needed all the time: their budget is their own.
    pub(crate) run_mappings: Arc<MappingBudget>,
    next_id: AtomicU64,
    /// Files that exist, or soon will, and that no durable fact names yet.
    unpublished: Mutex<BTreeSet<FileId>>,
    /// Shard directories known to be durable: one for every 256 files at most.
    shards: Mutex<BTreeSet<PathBuf>>,
    open: RwLock<HashMap<FileId, Arc<Entry>, BuildHasherDefault<IdHasher>>>,
    /// The ids of `open` in the order of opening, for eviction by second chance.
    order: Mutex<VecDeque<FileId>>,
    max_open: usize,
    /// Segments up to this length may be packs: they have small content in them.
    longest_pack: u64,
    /// What was opened, for as long as somebody can read from it.
    handles: Mutex<Vec<Handle>>,
    /// How many files were removed.
    removals: AtomicU64,
    /// How long the reserve is, in bytes, and whether it is there.
    reserve_len: u64,
    reserved: AtomicBool,
    /// Held by who makes the reserve or gives it up.
    reserve: Mutex<()>,
    /// Held by who tries whether files can be written.
    pub(crate) probing: Mutex<()>,
}

/// What space may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// What is free.
    Free,
    /// That, and what is reserved for giving space back.
    Reserve,
}

/// A file that was opened.
#[derive(Debug)]
struct Handle {
    id: FileId,
    len: u64,
    held: Weak<()>,
    /// Whether the file was removed since.
    removed: bool,
}

#[derive(Debug)]
struct Entry {
    file: Arc<SealedFile>,
    used: AtomicBool,
    /// A log file that is still written stays: opened anew it would be taken for a sealed one, and mapped.
    stays: bool,
}

impl Files {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, layout: Layout, keys: Keys, next_id: FileId, options: &Options) -> Self {
        let (read_mode, max_open, reserve_len) = (options.read_mode, options.max_open_files, options.reserve_len());
        Self {
            vfs,
            layout,
            store: keys.get().store,
            keys,
            pages: PageCache::new(options.page_cache),
            mappings: MappingBudget::new(read_mode, max_open),
            run_mappings: MappingBudget::new(read_mode, 1024),
            next_id: AtomicU64::new(next_id.0),
            unpublished: Mutex::default(),
            shards: Mutex::default(),
            open: RwLock::default(),
            order: Mutex::default(),
            max_open: max_open.max(1),
            longest_pack: options.log_file_size.saturating_mul(2),
            handles: Mutex::default(),
            removals: AtomicU64::new(0),
            reserve_len,
            reserved: AtomicBool::new(false),
            reserve: Mutex::default(),
            probing: Mutex::default(),
        }
    }

    /// An id that no file of this store has or had.
    ///
    /// It counts as unpublished until [`published`](Self::published): an opening after a crash looks for files from the
    /// lowest such id on, and removes those that nothing refers to.
    pub(crate) fn new_id(&self) -> FileId {
        let mut unpublished = lock(&self.unpublished);
        let id = FileId(self.next_id.fetch_add(1, Ordering::Relaxed));
        unpublished.insert(id);
        id
    }

    /// A file that the list no longer names, and that is about to be removed if no fact names it: until
    /// [`published`](Self::published), an opening after a crash looks for it.
    pub(crate) fn unlisted(&self, id: FileId) {
        lock(&self.unpublished).insert(id);
    }

    /// A durable fact, or the list of runs, names the file, or it is gone.
    pub(crate) fn published(&self, id: FileId) {
        lock(&self.unpublished).remove(&id);
    }

    /// The id that the next file gets, and the lowest one that may be an orphan after a crash now.
    pub(crate) fn horizon(&self) -> (FileId, FileId) {
        let unpublished = lock(&self.unpublished);
        let next = FileId(self.next_id.load(Ordering::Relaxed));
        (next, unpublished.first().copied().unwrap_or(next))
    }

    /// No id up to this one is given out any more.
    pub(crate) fn skip_past(&self, id: FileId) {
        self.next_id.fetch_max(id.0.saturating_add(1), Ordering::Relaxed);
    }

    /// Removes a new file whose content could not be published, because of `error`. Where the log may have a record of
    /// it all the same, it stays, unpublished: the next opening finds out.
    pub(crate) fn give_up(&self, id: FileId, error: &Error) {
        if !matches!(error, Error::Io { .. } | Error::Poisoned { .. }) {
            self.discard(id);
        }
    }

    /// Removes a file that nothing refers to nor will. Where that fails the next opening does it.
    pub(crate) fn discard(&self, id: FileId) {
        if self.remove_durably(&[id]).is_ok() {
            self.published(id);
        }
    }

    /// Makes sure that the directory of a new file's shard exists, durably.
    fn prepare_shard(&self, parent: &Path, id: FileId) -> Result<PathBuf> {
        let dir = parent.join(shard(id));
        let mut shards = lock(&self.shards);
        if !shards.contains(&dir) {
            let open = open_dir(&*self.vfs, parent)?;
            match self.vfs.create_dir(&dir) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(Error::io("create", &dir)(error));
                }
                // Whoever created it, perhaps before a crash, may not have synced it.
                _ => open.sync().map_err(Error::io("sync", parent))?,
            }
            shards.insert(dir.clone());
        }
        Ok(dir)
    }

    /// Creates a file with this id below `parent`, durably by name.
    pub(crate) fn create_in_shard<T>(
        &self,
        parent: &Path,
        id: FileId,
        create: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let dir = self.prepare_shard(parent, id)?;
        let open = open_dir(&*self.vfs, &dir)?;
        let created = create()?;
        open.sync().map_err(Error::io("sync", &dir))?;
        Ok(created)
    }

    /// What is in a segment, which belongs to a domain and is encrypted with this key: its frames, by its footer.
    pub(crate) fn footer(&self, id: FileId, domain: DomainId, key: KeyNumber) -> Result<Vec<FooterEntry>> {
        let path = self.layout.segment(id);
        let file = self.vfs.open(&path, OpenMode::Read).map_err(Error::opening(&path))?;
        let read = |offset, len| {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, offset).ok().map(|()| bytes)
        };
        let invalid = || Error::corrupt(&path, 0, Damage::Invalid("segment header"));
        let header = read(0, 512).ok_or_else(invalid)?;
        if !parse_header(&header).is_some_and(|header| header.is_of(id, self.store, domain, key)) {
            return Err(invalid());
        }
        let sealing = FileEnvelope::new(id, &header).opening(&self.keys.get(), domain, key, Purpose::Content);
        let len = file.len().map_err(Error::io("read the length of", &path))?;
        let footer = parse_footer(len, sealing.as_ref(), read);
        footer.ok_or_else(|| Error::corrupt(&path, len, Damage::Invalid("segment footer")))
    }

    /// Registers a log file that is still written: it is read by position, up to its capacity.
    pub(crate) fn insert_active(&self, log: &ActiveLog) {
        let (path, file, header) = (log.path.clone(), Arc::clone(&log.file), &log.header);
        let none = MappingBudget::new(ReadMode::Positioned, 0);
        let mut file = SealedFile::new(path, file, header.capacity, Grain::Small, &none);
        file.envelope = Some(FileEnvelope::new(header.file, &header.encode()));
        self.insert(header.file, Arc::new(file), true);
    }

    /// Whether the reserve is there.
    pub(crate) fn has_reserve(&self) -> bool {
        self.reserved.load(Ordering::Acquire)
    }

    /// Makes sure that the reserve is there. Nothing that takes space does so without it.
    pub(crate) fn restore_reserve(&self) -> Result<()> {
        if self.reserved.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = lock(&self.reserve);
        if self.reserved.load(Ordering::Acquire) {
            return Ok(());
        }
        let path = self.layout.reserve();
        let restore = || {
            let file = match self.vfs.open(&path, OpenMode::Write) {
                Err(error) if error.kind() == ErrorKind::NotFound => self.vfs.open(&path, OpenMode::CreateNew)?,
                other => other?,
            };
            if file.len()? == self.reserve_len { Ok(()) } else { file.allocate(self.reserve_len) }
        };
        restore().map_err(Error::io("reserve", &path)).inspect_err(|_| drop(self.vfs.remove(&path)))?;
        self.reserved.store(true, Ordering::Release);
        Ok(())
    }

    /// Does something that takes space, and does it again without the reserve where that is needed and allowed.
    pub(crate) fn within<T>(&self, space: Space, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        match work() {
            Err(Error::Full { .. }) if space == Space::Reserve => {
                self.release_reserve();
                work()
            }
            other => other,
        }
    }

    /// Gives up the reserve. It may be gone: somebody else just did this, or was about to make it.
    fn release_reserve(&self) {
        let _one = lock(&self.reserve);
        self.reserved.store(false, Ordering::Release);
        let _ = self.vfs.remove(&self.layout.reserve());
    }

    /// Gives back the space behind the records of a log file that takes no more of them; nobody relies on that. From
    /// now on it is read as any sealed file.
    pub(crate) fn cut_log(&self, id: FileId, len: u64) {
        if let Ok(file) = self.vfs.open(&self.layout.log(id), OpenMode::Write)
            && file.len().is_ok_and(|found| found > len)
        {
            let _ = file.set_len(len);
        }
        self.forget(id);
    }

    /// Forgets what was derived from a domain's keys, and what was decrypted with them.
    pub(crate) fn forget_domain(&self, domain: DomainId) {
        let open = read(&self.open);
        open.values().filter_map(|entry| entry.file.envelope.as_ref()).for_each(|envelope| envelope.forget(domain));
        self.pages.clear();
    }

    /// Forgets an open file, so that the next reader opens it anew (or not at all). Readers that have it go on.
    pub(crate) fn forget(&self, id: FileId) {
        write(&self.open).remove(&id);
    }

    /// The file that a frame lies in.
    ///
    /// # Errors
    /// [`Damage::Missing`] if there is no such file: the caller decides whether it was removed meanwhile.
    pub(crate) fn get(&self, place: &Place) -> Result<Arc<SealedFile>> {
        if let Some(entry) = read(&self.open).get(&place.file) {
            // A load first: a store by every reader would make them fight for the cache line.
            if !entry.used.load(Ordering::Relaxed) {
                entry.used.store(true, Ordering::Relaxed);
            }
            return Ok(Arc::clone(&entry.file));
        }
        let removals = self.removals.load(Ordering::SeqCst);
        let file = self.open_sealed(place.file, &self.mappings)?;
        self.note_handle(place.file, &file);
        self.insert(place.file, Arc::clone(&file), false);
        if self.removals.load(Ordering::SeqCst) != removals {
            self.forget(place.file); // it may be this one that was removed: it must not be held for nobody
        }
        Ok(file)
    }

    /// The file that a frame lies in, opened anew and read by position: nothing is taken to be verified since it was
    /// once, or to be there since somebody has it open.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn get_anew(&self, place: &Place) -> Result<Arc<SealedFile>> {
        self.open_sealed(place.file, &MappingBudget::new(ReadMode::Positioned, 0))
    }

    fn open_sealed(&self, id: FileId, mappings: &Arc<MappingBudget>) -> Result<Arc<SealedFile>> {
        let (path, file, grain) = self.open_any(id)?;
        let len = file.len().map_err(Error::io("read the length of", &path))?;
        let grain = if len <= self.longest_pack { Grain::Small } else { grain };
        let mut file = SealedFile::new(path, file, len, grain, mappings);
        if self.keys.get().is_encrypted() {
            file.envelope = Some(FileEnvelope::new(id, &file.read(0, 512)?));
        }
        Ok(Arc::new(file))
    }

    /// Where a log file or segment lies.
    pub(crate) fn path(&self, id: FileId) -> PathBuf {
        self.open_any(id).map_or_else(|_| self.layout.segment(id), |(path, ..)| path)
    }

    /// Opens a segment, or the log file that became one.
    pub(crate) fn open_any(&self, id: FileId) -> Result<(PathBuf, Arc<dyn File>, Grain)> {
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

    /// Opens a log file to go through its records.
    pub(crate) fn open_log(&self, id: FileId) -> Result<(PathBuf, Arc<dyn File>, LogHeader)> {
        let path = self.layout.log(id);
        let file = self.vfs.open(&path, OpenMode::Read).map_err(Error::opening(&path))?;
        let header = LogHeader::read(&path, &*file, id, self.store)?;
        Ok((path, file, header))
    }

    fn insert(&self, id: FileId, file: Arc<SealedFile>, stays: bool) {
        let mut order = lock(&self.order);
        let mut open = write(&self.open);
        open.insert(id, Arc::new(Entry { file, used: AtomicBool::new(true), stays }));
        order.push_back(id);
        if order.len() > 2 * self.max_open {
            order.retain(|id| open.contains_key(id)); // those that were forgotten
        }
        // Each round either evicts or takes a second chance away, so two rounds over all suffice.
        for _ in 0..2 * order.len() {
            if open.len() <= self.max_open {
                break;
            }
            let Some(oldest) = order.pop_front() else { break };
            match open.get(&oldest) {
                Some(entry) if oldest == id || entry.stays || entry.used.swap(false, Ordering::Relaxed) => {
                    order.push_back(oldest);
                }
                Some(_) => drop(open.remove(&oldest)),
                None => {}
            }
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

    /// Removes a log file or segment; one that is not there is fine. Who reads it goes on. A power cut may bring it
    /// back.
    pub(crate) fn remove(&self, id: FileId) -> Result<()> {
        for path in [self.layout.segment(id), self.layout.log(id)] {
            remove_if_there(&*self.vfs, &path)?;
        }
        self.removals.fetch_add(1, Ordering::SeqCst);
        self.forget(id);
        lock(&self.handles).iter_mut().filter(|handle| handle.id == id).for_each(|handle| handle.removed = true);
        Ok(())
    }

    fn note_handle(&self, id: FileId, file: &SealedFile) {
        let mut handles = lock(&self.handles);
        // Those that nobody can read from any more go when there are as many as are kept open: so it costs little for
        // each.
        if handles.len() == handles.capacity() || handles.len() > 2 * self.max_open {
            handles.retain(|handle| handle.held.strong_count() > 0);
        }
        handles.push(Handle { id, len: file.len(), held: file.held(), removed: false });
    }

    /// How many bytes of removed files somebody can still read.
    pub(crate) fn held_bytes(&self) -> u64 {
        let mut handles = lock(&self.handles);
        handles.retain(|handle| handle.held.strong_count() > 0);
        let held: BTreeMap<FileId, u64> =
            handles.iter().filter(|handle| handle.removed).map(|handle| (handle.id, handle.len)).collect();
        held.values().sum()
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
