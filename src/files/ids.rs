//! The ids of files: one counter for log files, segments and runs, and which of them nothing names yet.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::FileId;
use crate::sync::lock;

/// Gives out ids.
///
/// # Invariant kept here
/// An id counts as unpublished from when it is given out until a durable fact or the list names its file, or the file
/// is gone. The list on disk has the lowest of them as its *orphan floor*: an opening after a crash looks for files
/// from there on, and removes those that nothing refers to.
#[derive(Debug)]
pub(super) struct Ids {
    next: AtomicU64,
    unpublished: Mutex<BTreeSet<FileId>>,
}

impl Ids {
    pub(super) fn new(next: FileId) -> Self {
        Self { next: AtomicU64::new(next.0), unpublished: Mutex::default() }
    }

    /// An id that no file of this store has or had.
    pub(super) fn take(&self) -> FileId {
        let mut unpublished = lock(&self.unpublished);
        let id = FileId(self.next.fetch_add(1, Ordering::Relaxed));
        unpublished.insert(id);
        id
    }

    pub(super) fn unpublish(&self, id: FileId) {
        lock(&self.unpublished).insert(id);
    }

    pub(super) fn publish(&self, id: FileId) {
        lock(&self.unpublished).remove(&id);
    }

    /// The id that the next file gets, and the lowest one that may be an orphan after a crash now.
    pub(super) fn horizon(&self) -> (FileId, FileId) {
        let unpublished = lock(&self.unpublished);
        let next = FileId(self.next.load(Ordering::Relaxed));
        (next, unpublished.first().copied().unwrap_or(next))
    }

    /// The lowest unpublished id that is none of these, or the next one.
    pub(super) fn lowest(&self, except: &[FileId]) -> FileId {
        let unpublished = lock(&self.unpublished);
        let lowest = unpublished.iter().find(|id| !except.contains(id)).copied();
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
        ids.publish(first);
        assert_eq!(ids.horizon(), (FileId(7), second));
        ids.unpublish(FileId(3));
        assert_eq!(ids.horizon(), (FileId(7), FileId(3)));
        assert_eq!(ids.lowest(&[FileId(3)]), second);
        assert_eq!(ids.lowest(&[FileId(3), second]), FileId(7));
        ids.skip_past(FileId(9));
        ids.skip_past(FileId(1));
        assert_eq!(ids.take(), FileId(10));
    }
}
