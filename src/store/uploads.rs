//! Uploads: content that arrives in pieces, outside of repositories.

use std::io::Read;

use crate::blobs::{Expect, Stored, UploadStatus};
use crate::digest::Algorithm;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::id::UploadId;
use crate::page::Page;
use crate::store::Store;

impl Store {
    /// Begins an upload whose digest is computed with this algorithm. (It can be committed under a digest of another
    /// algorithm, for which the content is read again.)
    ///
    /// ```
    /// # use strongroom::{Algorithm, Digest, Error, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let id = store.begin_upload(Algorithm::Sha256)?;
    /// assert_eq!(store.append_upload(id, 0, "two ")?, 4);
    /// assert!(matches!(store.append_upload(id, 9, "pieces"), Err(Error::WrongOffset { expected: 4, .. })));
    /// assert_eq!(store.append_upload(id, 4, "pieces")?, 10);
    /// let digest = Digest::of(Algorithm::Sha256, b"two pieces");
    /// store.commit_upload(id, &digest)?;
    /// assert_eq!(store.get(&digest)?.bytes()?, "two pieces");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Full`] on a full disk, [`Error::Poisoned`] after a failed sync.
    pub fn begin_upload(&self, algorithm: Algorithm) -> Result<UploadId> {
        let inner = self.inner()?;
        inner.blobs.begin_upload(algorithm, &inner.blobs.outside(self.durability))
    }

    /// Appends content at `offset`, which must be the upload's current length, or at its end for `None`, and returns
    /// the new length. The content is durable when this returns.
    ///
    /// # Errors
    /// [`Error::WrongOffset`] with the offset expected; [`Error::UploadNotFound`]; [`Error::UploadBusy`] while another
    /// call is working on the upload; [`Error::Full`]. In each case the upload is unchanged.
    pub fn append_upload(
        &self,
        id: UploadId,
        offset: impl Into<Option<u64>>,
        content: impl AsRef<[u8]>,
    ) -> Result<u64> {
        let inner = self.inner()?;
        inner.blobs.append_upload(id, offset.into(), &mut content.as_ref(), &inner.blobs.outside(self.durability))
    }

    /// Appends what a reader yields, to its end. Memory use does not depend on how much that is. Content becomes
    /// durable each 256 MiB, while the rest arrives.
    ///
    /// # Errors
    /// As [`append_upload`](Self::append_upload), except that content that became durable before the error stays
    /// appended; and [`Error::Source`] where the reader fails: what it yielded before stays appended.
    /// [`upload_status`](Self::upload_status) says how much that is.
    pub fn append_upload_from(
        &self,
        id: UploadId,
        offset: impl Into<Option<u64>>,
        mut content: impl Read,
    ) -> Result<u64> {
        let inner = self.inner()?;
        inner.blobs.append_upload(id, offset.into(), &mut content, &inner.blobs.outside(self.durability))
    }

    /// The status of an upload: how much of it is durable, and more.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`] where there is none of that id.
    pub fn upload_status(&self, id: UploadId) -> Result<UploadStatus> {
        let inner = self.inner()?;
        inner.blobs.upload_status(id, &inner.blobs.outside(self.durability))
    }

    /// Commits an upload as a blob, if its content has the digest that is [expected](Expect). With the algorithm that
    /// it was begun with instead of a digest, it is committed under whatever digest its content has.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] where the content has another digest (the upload stays as it is:
    /// [cancel](Self::cancel_upload) it); [`Error::UploadNotFound`]; [`Error::UploadBusy`]; [`Error::Full`].
    pub fn commit_upload(&self, id: UploadId, expect: impl Into<Expect>) -> Result<Stored> {
        let inner = self.inner()?;
        inner.blobs.commit_upload(id, expect.into(), &inner.blobs.outside(self.durability))
    }

    /// Appends the last piece of an upload at `offset`, or where it ends for `None`, and commits the upload: in one
    /// commit, and with one sync, where the content is no longer than
    /// [`Options::inline_max`](crate::Options::inline_max) and no more than 64 KiB of it came before.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Digest, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let id = store.begin_upload(Algorithm::Sha256)?;
    /// let stored = store.commit_upload_with(id, 0, "all of it", Algorithm::Sha256)?;
    /// assert_eq!(store.get(&stored.digest)?.bytes()?, "all of it");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`append_upload`](Self::append_upload) and [`commit_upload`](Self::commit_upload). In each case the
    /// upload is as it was, or stands behind the last piece: [`upload_status`](Self::upload_status) says which.
    pub fn commit_upload_with(
        &self,
        id: UploadId,
        offset: impl Into<Option<u64>>,
        last: impl AsRef<[u8]>,
        expect: impl Into<Expect>,
    ) -> Result<Stored> {
        let inner = self.inner()?;
        let (offset, into) = (offset.into(), inner.blobs.outside(self.durability));
        inner.blobs.commit_upload_with(id, offset, last.as_ref(), expect.into(), &into)
    }

    /// Cancels an upload: its content is removed.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`] where there is none of that id.
    pub fn cancel_upload(&self, id: UploadId) -> Result<()> {
        let inner = self.inner()?;
        inner.blobs.cancel_upload(id, &inner.blobs.outside(self.durability))
    }

    /// A [page](Page) of the unfinished uploads behind one, in the order of their ids, without those of
    /// [repositories](crate::registry).
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn uploads(&self, after: Option<&UploadId>, limit: usize) -> Result<Page<UploadStatus, UploadId>> {
        let inner = self.inner()?;
        inner.blobs.uploads_of(&inner.blobs.outside(self.durability), after, limit)
    }

    /// How many uploads are unfinished, in the store and its [repositories](crate::registry), counted up to `limit`:
    /// for a bound on how many there may be. Those of [locked](Self::locked_domains) key domains are left out.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// for _ in 0..3 {
    ///     store.begin_upload(Algorithm::Sha256)?;
    /// }
    /// assert_eq!((store.count_uploads(100)?, store.count_uploads(2)?), (3, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn count_uploads(&self, limit: usize) -> Result<usize> {
        self.inner()?.blobs.count_uploads(limit)
    }
}
