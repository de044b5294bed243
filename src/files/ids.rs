//! The ids of files: one counter for log files, segments and runs, and which of them nothing names yet.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::FileId;
use crate::sync::lock;

/// Gives out ids.
///
/// # Invariant kept here
/// An id is unsettled from when it is given out until a durable fact or the list names its file, or the file is gone.
/// The list on disk has the lowest of them as its *orphan floor*: an opening after a crash looks for files from there
/// on, and removes those that nothing refers to.
#[derive(Debug)]
pub(super) struct Ids {
    next: AtomicU64,
    unsettled: Mutex<BTreeSet<FileId>>,
}

impl Ids {
    pub(super) fn new(next: FileId) -> Self {
        Self { next: AtomicU64::new(next.0), unsettled: Mutex::default() }
    }

    /// An id that no file of this store has or had.
    pub(super) fn take(&self) -> FileId {
        let mut unsettled = lock(&self.unsettled);
        let id = FileId(self.next.fetch_add(1, Ordering::Relaxed));
        unsettled.insert(id);
        id
    }

    /// The file may be an orphan after a crash.
    pub(super) fn unsettle(&self, id: FileId) {
        lock(&self.unsettled).insert(id);
    }

    /// The file can be no orphan any more.
    pub(super) fn settle(&self, id: FileId) {
        lock(&self.unsettled).remove(&id);
    }

    /// The id that the next file gets, and the lowest one that may be an orphan after a crash now.
    pub(super) fn horizon(&self) -> (FileId, FileId) {
        let unsettled = lock(&self.unsettled);
        let next = FileId(self.next.load(Ordering::Relaxed));
        (next, unsettled.first().copied().unwrap_or(next))
    }

    /// The lowest unsettled id that is none of these, or the next one.
    pub(super) fn lowest(&self, except: &[FileId]) -> FileId {
        let unsettled = lock(&self.unsettled);
        let lowest = unsettled.iter().find(|id| !except.contains(id)).copied();
        lowest.unwrap_or(FileId(self.next.load(Ordering::Relaxed)))
    }

    /// No id up to this one is given out any more.
    pub(super) fn skip_past(&self, id: FileId) {
        self.next.fetch_max(id.0.saturating_add(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_lowest_id_that_nothing_names() {
        let ids = Ids::new(FileId(5));
        assert_eq!(ids.horizon(), (FileId(5), FileId(5)));
        let [first, second] = [ids.take(), ids.take()];
        assert_eq!(ids.horizon(), (FileId(7), first));
        ids.settle(first);
        assert_eq!(ids.horizon(), (FileId(7), second));
        ids.unsettle(FileId(3));
        assert_eq!(ids.horizon(), (FileId(7), FileId(3)));
        assert_eq!(ids.lowest(&[FileId(3)]), second);
        assert_eq!(ids.lowest(&[FileId(3), second]), FileId(7));
        ids.skip_past(FileId(9));
        ids.skip_past(FileId(1));
        assert_eq!(ids.take(), FileId(10));
    }
}
