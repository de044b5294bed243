//! Files that are kept open, and mapped, for readers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use crate::error::Result;
use crate::id::{DomainId, FileId};
use crate::sealed::SealedFile;
use crate::sync::{IdHasher, lock, read, write};

/// Open files, of which there are at most so many, by second chance.
///
/// # Invariants kept here
/// - A file that was removed is held only by its readers: [`removed`](Self::removed) forgets it, and a call that opens
///   one checks whether any was removed meanwhile.
/// - Nothing is closed or unmapped while a lock is held that readers need: a mapping of a gigabyte takes milliseconds
///   to give back.
#[derive(Debug)]
pub(super) struct Cache {
    open: RwLock<HashMap<FileId, Arc<Entry>, BuildHasherDefault<IdHasher>>>,
    /// The ids of `open` in the order of opening.
    order: Mutex<VecDeque<FileId>>,
    max_open: usize,
    /// What was opened, for as long as somebody can read from it.
    handles: Mutex<Vec<Handle>>,
    /// How many files were removed.
    removals: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    file: Arc<SealedFile>,
    used: AtomicBool,
    /// A log file that is still written stays: opened anew it would be taken for a sealed one, and mapped.
    stays: bool,
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

impl Cache {
    pub(super) fn new(max_open: usize) -> Self {
        Self {
            open: RwLock::default(),
            order: Mutex::default(),
            max_open: max_open.max(1),
            handles: Mutex::default(),
            removals: AtomicU64::new(0),
        }
    }

    /// The file, if it is open; else what `open` opens.
    pub(super) fn get(&self, id: FileId, open: impl FnOnce() -> Result<Arc<SealedFile>>) -> Result<Arc<SealedFile>> {
        if let Some(entry) = read(&self.open).get(&id) {
            // A load first: a store by every reader would make them fight for the cache line.
            if !entry.used.load(Ordering::Relaxed) {
                entry.used.store(true, Ordering::Relaxed);
            }
            return Ok(Arc::clone(&entry.file));
        }
        let removals = self.removals.load(Ordering::SeqCst);
        let file = open()?;
        self.note_handle(id, &file);
        self.insert(id, Arc::clone(&file), false);
        if self.removals.load(Ordering::SeqCst) != removals {
            self.forget(id); // it may be this one that was removed
        }
        Ok(file)
    }

    /// Keeps a file open; one that `stays`, until it is forgotten.
    pub(super) fn insert(&self, id: FileId, file: Arc<SealedFile>, stays: bool) {
        let entry = Arc::new(Entry { file, used: AtomicBool::new(true), stays });
        let evicted = self.insert_entry(id, entry);
        drop(evicted); // no lock is held any more
    }

    fn insert_entry(&self, id: FileId, entry: Arc<Entry>) -> Vec<Arc<Entry>> {
        let mut order = lock(&self.order);
        let mut open = write(&self.open);
        let mut evicted: Vec<_> = open.insert(id, entry).into_iter().collect();
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
                Some(_) => evicted.extend(open.remove(&oldest)),
                None => {}
            }
        }
        evicted
    }

    /// Forgets an open file, so that the next reader opens it anew (or not at all). Readers that have it go on.
    pub(super) fn forget(&self, id: FileId) {
        let gone = write(&self.open).remove(&id);
        drop(gone); // no lock is held any more
    }

    /// Forgets all open files.
    pub(super) fn clear(&self) {
        self.removals.fetch_add(1, Ordering::SeqCst); // one that is being opened now may be another one by then
        let gone = std::mem::take(&mut *write(&self.open));
        drop(gone); // no lock is held any more
    }

    /// A file was removed.
    pub(super) fn removed(&self, id: FileId) {
        self.removals.fetch_add(1, Ordering::SeqCst);
        self.forget(id);
        lock(&self.handles).iter_mut().filter(|handle| handle.id == id).for_each(|handle| handle.removed = true);
    }

    /// Forgets what was derived from a domain's keys.
    pub(super) fn forget_domain(&self, domain: DomainId) {
        let open = read(&self.open);
        open.values().filter_map(|entry| entry.file.envelope()).for_each(|envelope| envelope.forget(domain));
    }

    fn note_handle(&self, id: FileId, file: &SealedFile) {
        let mut handles = lock(&self.handles);
        // Those without readers are dropped when there are as many as are kept open: so it costs little for each.
        if handles.len() == handles.capacity() || handles.len() > 2 * self.max_open {
            handles.retain(|handle| handle.held.strong_count() > 0);
        }
        handles.push(Handle { id, len: file.len(), held: file.held(), removed: false });
    }

    /// How many bytes of removed files somebody can still read.
    pub(super) fn held_bytes(&self) -> u64 {
        let mut handles = lock(&self.handles);
        handles.retain(|handle| handle.held.strong_count() > 0);
        let held: BTreeMap<FileId, u64> =
            handles.iter().filter(|handle| handle.removed).map(|handle| (handle.id, handle.len)).collect();
        held.values().sum()
    }
}
