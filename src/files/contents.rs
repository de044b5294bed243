//! Where content is kept: the trait to implement for a store that keeps it elsewhere than in its directory.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use crate::envelope::Keyring;
use crate::error::{Error, Result};
use crate::facts::Place;
use crate::files::Files;
use crate::id::FileId;
use crate::sealed::SealedFile;
use crate::vfs::{File, OpenMode};

/// Files of content, by ids. [`Files`] keeps them in the store's directory, among them log files, which have content
/// too; a store that many nodes share keeps them elsewhere.
///
/// ```text
/// begin ─► create ─► (write, sync) ─► a commit names it ─► published ─► open ... ─► give_up
///   │         │            │                                                          ▲
///   └─────────┴────────────┴──────────────────────────────────────────────────────────┘
///                          └─► a crash: one of the orphans, unless a fact names it
/// ```
///
/// [`NewFile`](crate::files::NewFile) keeps to that: what is begun through it is published or given up.
pub(crate) trait Contents: Debug + Send + Sync {
    /// An id that no file has or had. Until its file is published or given up, it may be an orphan.
    fn begin(&self) -> FileId;

    /// Creates a segment's file, durably by name, and says how errors name it.
    fn create(&self, id: FileId) -> Result<(PathBuf, Arc<dyn File>)>;

    /// Opens the file of a segment that is not sealed, to go on with it.
    fn resume(&self, id: FileId) -> Result<(PathBuf, Arc<dyn File>)>;

    /// The file that a frame lies in.
    ///
    /// # Errors
    /// [`Damage::Missing`](crate::Damage::Missing) if there is no such file: the caller decides whether it was removed
    /// meanwhile.
    fn open(&self, place: &Place) -> Result<Arc<SealedFile>>;

    /// The keys that content is encrypted with now.
    fn keys(&self) -> Arc<Keyring>;

    /// Whether content that is not encrypted is read.
    fn accepts_plain(&self) -> bool {
        self.keys().accepts_plain
    }

    /// How errors name a file.
    fn path(&self, id: FileId) -> PathBuf;

    /// A durable fact names the file.
    fn published(&self, id: FileId);

    /// Removes a file that nothing names any more, or ever did. Where that fails it is done later.
    fn give_up(&self, id: FileId);

    /// The segments with ids from `floor` on: those that no fact names are orphans. `next` is an id that was free once;
    /// there may be others behind it.
    fn orphans(&self, floor: FileId, next: FileId) -> Result<Vec<FileId>>;

    /// Stops all writes because of a failed sync.
    fn poison(&self, error: Error) -> Error;
}

impl Contents for Files {
    fn begin(&self) -> FileId {
        self.ids.take()
    }

    fn create(&self, id: FileId) -> Result<(PathBuf, Arc<dyn File>)> {
        let path = self.layout.segment(id);
        let open = || self.vfs.open(&path, OpenMode::CreateNew).map_err(Error::io("create", &path));
        let file = self.create_in_shard(&self.layout.segments(), id, open)?;
        Ok((path, file))
    }

    fn resume(&self, id: FileId) -> Result<(PathBuf, Arc<dyn File>)> {
        let path = self.layout.segment(id);
        let file = self.vfs.open(&path, OpenMode::Write).map_err(Error::opening(&path))?;
        Ok((path, file))
    }

    fn open(&self, place: &Place) -> Result<Arc<SealedFile>> {
        self.check_open()?;
        self.cache.get(place.file, || self.open_sealed(place.file, &self.mappings))
    }

    fn keys(&self) -> Arc<Keyring> {
        self.keys()
    }

    fn accepts_plain(&self) -> bool {
        self.keys.accepts_plain()
    }

    fn path(&self, id: FileId) -> PathBuf {
        self.open_any(id).map_or_else(|_| self.layout.segment(id), |(path, ..)| path)
    }

    fn published(&self, id: FileId) {
        self.settled(id);
    }

    fn give_up(&self, id: FileId) {
        self.discard(id);
    }

    fn orphans(&self, floor: FileId, next: FileId) -> Result<Vec<FileId>> {
        self.created_since(&self.layout.segments(), floor, next)
    }

    fn poison(&self, error: Error) -> Error {
        self.poison(error)
    }
}
