//! A file on its way into the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::files::Files;
use crate::id::FileId;

/// What a new file is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Log,
    Segment,
    Run,
}

/// A file that nothing names yet.
///
/// ```text
/// Files::begin ─► create ─► (write, sync) ─► commit ─► publish
///       │            │             │            │ └─► keep: the record that names it may be in the log
///       └────────────┴─────────────┴────────────┴───► dropped: the file is removed
/// ```
///
/// # Invariants kept here
/// - The file's id counts as unpublished until [`publish`](Self::publish), or until the file is gone: a crash at any
///   moment leaves at most a file that the next opening looks for.
/// - A file is removed only where no record and no list can name it: [`keep`](Self::keep) is for the other case, in
///   which the next opening finds out.
/// - After a failed sync nothing is removed.
#[derive(Debug)]
pub(crate) struct NewFile {
    files: Arc<Files>,
    id: FileId,
    kind: FileKind,
    /// Whether dropping it removes the file.
    discards: bool,
}

impl NewFile {
    pub(super) fn new(files: Arc<Files>, id: FileId, kind: FileKind) -> Self {
        Self { files, id, kind, discards: true }
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    pub(crate) fn path(&self) -> PathBuf {
        let layout = self.files.layout();
        match self.kind {
            FileKind::Log => layout.log(self.id),
            FileKind::Segment => layout.segment(self.id),
            FileKind::Run => layout.run(self.id),
        }
    }

    /// Creates the file, durably by name. Stops all writes where the sync of its directory fails.
    pub(crate) fn create<T>(&self, create: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let parent = match self.kind {
            FileKind::Log => self.files.layout().logs(),
            FileKind::Segment => self.files.layout().segments(),
            // Their directory is there, and is synced once they are written.
            FileKind::Run => return create(&self.path()),
        };
        let created = self.files.create_in_shard(&parent, self.id, || create(&self.path()));
        created.map_err(|error| self.files.fail_stop(error))
    }

    /// A durable fact, or the list, names the file.
    pub(crate) fn publish(mut self) {
        self.discards = false;
        self.files.ids.publish(self.id);
    }

    /// Leaves the file, unpublished: whether something names it, the next opening finds out.
    pub(crate) fn keep(mut self) {
        self.discards = false;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.discards {
            self.files.discard(self.id, self.kind);
        }
    }
}
