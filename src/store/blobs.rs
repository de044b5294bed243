//! Blobs: storing, reading, claiming and removing them, outside of repositories.

use std::io::Read;

#[cfg(feature = "tokio")]
use crate::blobs::BlobStore;
#[cfg(feature = "tokio")]
use crate::blobs::Outside;
use crate::blobs::{Blob, Blobs, Expect, Stat, Stored};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::id::{DomainId, Lsn};
use crate::store::Store;
use crate::transaction::Request;

impl Store {
    /// Outside of repositories: for adapters.
    #[cfg(feature = "tokio")]
    pub(crate) fn outside(&self) -> Result<Outside<'_>> {
        Ok(self.inner()?.blobs.outside(self.durability))
    }

    /// Where blobs are stored: for adapters.
    #[cfg(feature = "tokio")]
    pub(crate) fn blob_store(&self) -> &BlobStore {
        &self.open.inner.blobs
    }

    /// Stores content, and returns its digest and what became of it. Content that the store has already is not stored
    /// again.
    ///
    /// An unreferenced blob is kept for at least [`Options::retention`](crate::Options::retention) after it was stored
    /// or [claimed](Self::claim), unless it is [removed](Self::remove); after that [`collect`](Self::collect) removes
    /// it. Give a blob a [name](Self::named) to keep it.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Digest, Error, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let digest = store.put("content", Algorithm::Blake3)?.digest;
    /// assert!(store.put("content", digest)?.existed);
    /// assert!(matches!(store.put("other", digest), Err(Error::DigestMismatch { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] where the content does not have the digest given; [`Error::Full`] on a full disk;
    /// [`Error::Poisoned`] after a failed sync. In each case nothing is stored.
    pub fn put(&self, content: impl AsRef<[u8]>, expect: impl Into<Expect>) -> Result<Stored> {
        let inner = self.inner()?;
        inner.blobs.put(content.as_ref(), expect.into(), &inner.blobs.outside(self.durability))
    }

    /// Stores contents that are in memory. Those of up to [`Options::inline_max`](crate::Options::inline_max) are
    /// written and synced together: one sync for each 8 MiB, whatever their number. Each is a commit of its own, since
    /// what is named by its digest has nothing to be atomic with: where the power goes off before this returns, any of
    /// the first may be there.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Digest, Error, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let stored = store.put_many(["one", "two"].map(|content| (content, Algorithm::Blake3)))?;
    /// let digests = stored.into_iter().map(|one| Ok(one?.digest)).collect::<Result<Vec<_>, Error>>()?;
    /// assert_eq!(store.exists_many(&digests)?, [true, true]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`], and what keeps commits from being durable. For each: as [`put`](Self::put).
    pub fn put_many<C: AsRef<[u8]>, E: Into<Expect>>(
        &self,
        contents: impl IntoIterator<Item = (C, E)>,
    ) -> Result<Vec<Result<Stored>>> {
        let inner = self.inner()?;
        inner.blobs.put_all(contents, &inner.blobs.outside(self.durability))
    }

    /// Stores what a reader yields, to its end, as [`put`](Self::put). Memory use does not depend on the length:
    /// content longer than [`Options::inline_max`](crate::Options::inline_max) streams into a file.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`Error::Source`] where the reader fails.
    pub fn put_reader(&self, mut reader: impl Read, expect: impl Into<Expect>) -> Result<Stored> {
        let inner = self.inner()?;
        inner.blobs.put_reader(&mut reader, expect.into(), &inner.blobs.outside(self.durability))
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// [`Error::BlobNotFound`] where the store does not have it; [`Error::Corrupt`] where the store has it, but its
    /// file is missing or its facts are damaged.
    pub fn get(&self, digest: &Digest) -> Result<Blob> {
        self.inner()?.blobs.get(DomainId::DEFAULT, digest)
    }

    /// Opens blobs for reading, all looked up as of one moment.
    ///
    /// # Errors
    /// [`Error::Closed`]. For each: as [`get`](Self::get).
    pub fn get_many(&self, digests: &[Digest]) -> Result<Vec<Result<Blob>>> {
        let inner = self.inner()?;
        let moment = inner.tables.snapshot();
        Ok(digests.iter().map(|digest| inner.blobs.get_as_of(moment.clone(), digest)).collect())
    }

    /// Whether the store has a blob. This promises nothing about the next moment.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the facts that would tell are damaged.
    pub fn exists(&self, digest: &Digest) -> Result<bool> {
        self.inner()?.tables.snapshot().has_blob(digest)
    }

    /// Whether the store has each of several blobs, all as of one moment.
    ///
    /// # Errors
    /// As [`exists`](Self::exists).
    pub fn exists_many(&self, digests: &[Digest]) -> Result<Vec<bool>> {
        self.inner()?.tables.snapshot().has_blobs(digests)
    }

    /// Returns what the store knows of a blob, and keeps the blob: no collection removes it for at least
    /// [`Options::retention`](crate::Options::retention), even if nothing references it. Fails where the content is
    /// known to be damaged.
    ///
    /// A claim is stored durably at most once in an eighth of that time, so repeated claims cost a look-up.
    ///
    /// # Errors
    /// [`Error::BlobNotFound`] where the store does not have it; [`Error::Corrupt`] where its content or its facts are
    /// damaged.
    pub fn claim(&self, digest: &Digest) -> Result<Stat> {
        let claimed = self.claim_many(&[*digest])?.pop();
        claimed.unwrap_or(Err(Error::BlobNotFound { digest: *digest }))
    }

    /// [Claims](Self::claim) several blobs, all looked up as of one moment, with one commit where any has to be stored.
    ///
    /// # Errors
    /// [`Error::Closed`], and what keeps a commit from being durable. For each: as [`claim`](Self::claim).
    pub fn claim_many(&self, digests: &[Digest]) -> Result<Vec<Result<Stat>>> {
        self.inner()?.blobs.claim_many(digests, self.durability)
    }

    /// What the store knows of several blobs as of one moment; `None` for those that it does not have.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the facts are damaged.
    pub fn stat_many(&self, digests: &[Digest]) -> Result<Vec<Option<Stat>>> {
        self.inner()?.blobs.stat_many(digests)
    }

    /// What the store knows of a blob.
    ///
    /// # Errors
    /// [`Error::BlobNotFound`] where the store does not have it; [`Error::Corrupt`] where the facts are damaged.
    pub fn stat(&self, digest: &Digest) -> Result<Stat> {
        self.stat_many(&[*digest])?.pop().flatten().ok_or(Error::BlobNotFound { digest: *digest })
    }

    /// Removes an unreferenced blob. Open handles stay readable.
    ///
    /// A segment of its own is removed at once; space in a file that other blobs use too is given back when that is
    /// compacted.
    ///
    /// # Errors
    /// [`Error::BlobNotFound`] where the store does not have it, [`Error::BlobInUse`] where something references it.
    pub fn remove(&self, digest: &Digest) -> Result<Lsn> {
        let remove = Request::Remove(*digest);
        self.inner()?.log.commit_as(self.durability, DomainId::DEFAULT, remove).map(|outcome| outcome.lsn)
    }

    /// All blobs as of now, in the order of their keys. The iterator reads the facts in batches.
    pub fn blobs(&self) -> Blobs {
        self.open.inner.blobs.list(self.open.inner.tables.snapshot())
    }
}
