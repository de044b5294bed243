//! Health check: tries whether the store can write.

use std::io::ErrorKind;

use crate::error::{Damage, Error, Result};
use crate::files::remove_if_there;
use crate::store::{Store, format};
use crate::vfs::OpenMode;

/// How much is written, in bytes.
const LEN: usize = 512;

impl Store {
    /// Tries whether the store can write now, for health checks: that no sync has failed, that its directory still
    /// exists and is the one that was opened, and that a new file in it can be written, synced and removed. Costs about
    /// as much as a small [`put`](Self::put); changes nothing.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed sync; [`Error::Full`] where there is no space: reading, deleting and
    /// collecting still work then; [`Error::Corrupt`] where the directory is gone or another one is in its place;
    /// [`Error::Io`] for what else fails, such as a file system that has become read-only.
    pub fn probe(&self) -> Result<()> {
        self.inner()?.files.check_writable()?;
        let files = &self.inner()?.files;
        let (vfs, layout) = (files.vfs(), files.layout());
        let path = layout.format();
        if format::store_of(vfs, &path)? != files.store() {
            return Err(Error::corrupt(&path, 0, Damage::Invalid("store id")));
        }
        // A copy of the directory has the same id, and a lock of its own, which nobody holds.
        match vfs.lock(&layout.lock()) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(Error::io("lock", &layout.lock())(error)),
            Ok(_) => return Err(Error::corrupt(&layout.lock(), 0, Damage::Missing)),
        }
        let path = layout.probe();
        let _one = files.probing();
        remove_if_there(vfs, &path)?; // a crash may have left it
        let file = vfs.open(&path, OpenMode::CreateNew).map_err(Error::io("create", &path))?;
        let written = file.write_all_at(&[0; LEN], 0).map_err(Error::io("write", &path));
        let synced = written.and_then(|()| file.sync().map_err(Error::io("sync", &path)));
        synced.and(remove_if_there(vfs, &path))
    }
}
