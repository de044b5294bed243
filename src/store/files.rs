//! Files outside of the store.

use std::path::Path;

use crate::blobs::{Expect, SourceFile, Stored};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;

use crate::store::Store;

impl Store {
    /// Stores the content of a file, which stays as it is, as [`put_reader`](Self::put_reader).
    ///
    /// Where the file is on the store's file system, and that can share content between files (XFS, Btrfs), content
    /// longer than [`Options::inline_max`](crate::Options::inline_max) is read once, for its digest, and not written;
    /// what is written to the file later does not change the blob. Elsewhere, and in encrypted stores, it is copied. In
    /// both cases the blob has the digest that is returned, also where the file is written to meanwhile; only with an
    /// expected digest is that an error.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Error, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path().join("store"))?;
    /// let staged = dir.path().join("layer.tar");
    /// std::fs::write(&staged, "content")?;
    /// let stored = store.put_file(&staged, Algorithm::Sha256)?;
    /// std::fs::remove_file(&staged)?;
    /// assert_eq!(store.get(&stored.digest)?.bytes()?, "content");
    /// assert!(matches!(store.put_file(dir.path(), Algorithm::Sha256), Err(Error::Source { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`put_reader`](Self::put_reader); [`Error::Source`] where there is no such file, it can't be read, or it is
    /// not a regular file. A symbolic link is none: it may lead elsewhere than the caller has looked.
    pub fn put_file(&self, path: impl AsRef<Path>, expect: impl Into<Expect>) -> Result<Stored> {
        let inner = self.inner()?;
        inner.blobs.put_path(path.as_ref(), expect.into(), &inner.blobs.outside(self.durability))
    }

    /// The same for a file that is open.
    pub(crate) fn put_source(&self, file: SourceFile<'_>, expect: Expect) -> Result<Stored> {
        let inner = self.inner()?;
        inner.blobs.put_file(file, expect, &inner.blobs.outside(self.durability))
    }

    /// The store's directory.
    pub(crate) fn root(&self) -> &Path {
        self.open.inner.files.layout().root()
    }
}
