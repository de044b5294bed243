//! A file on its way into the store.

use std::sync::Arc;

use crate::files::Contents;
use crate::id::FileId;

/// A file that nothing names yet.
///
/// ```text
/// begin ─► create ─► (write, sync) ─► commit ─► publish
///   │         │            │            │ └─► keep: the record that names it may be in the log
///   └─────────┴────────────┴────────────┴───► dropped: the file is removed
/// ```
///
/// # Invariants kept here
/// - The file's id is unsettled until [`publish`](Self::publish), or until the file is gone: a crash at any moment
///   leaves at most a file that the next opening looks for.
/// - A file is removed only where no record and no list can name it: [`keep`](Self::keep) is for the other case, in
///   which the next opening finds out.
/// - After a failed sync nothing is removed.
#[derive(Debug)]
pub(crate) struct NewFile {
    contents: Arc<dyn Contents>,
    id: FileId,
    /// Whether dropping it removes the file.
    discards: bool,
}

impl NewFile {
    /// Begins a file, under an id that no file has or had.
    pub(crate) fn begin(contents: Arc<dyn Contents>) -> Self {
        Self { id: contents.begin(), contents, discards: true }
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// A durable fact, or the list, names the file.
    pub(crate) fn publish(mut self) {
        self.discards = false;
        self.contents.published(self.id);
    }

    /// Leaves the file, and its id unsettled: whether something names it, the next opening finds out.
    pub(crate) fn keep(mut self) {
        self.discards = false;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.discards {
            self.contents.give_up(self.id);
        }
    }
}
