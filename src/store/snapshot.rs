//! The store as of one moment.

use std::sync::Arc;

use crate::blobs::{Blob, Blobs, Stat};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::id::{DomainId, Lsn};
use crate::oci::RepositoryName;
use crate::page::Page;
use crate::registry::RepositorySnapshot;
use crate::store::Store;
use crate::tables;

/// The store as of one commit: every call reads the same moment, however much is written meanwhile. Made by
/// [`Store::snapshot`].
///
/// It keeps facts, and the runs and tables they lie in, for as long as it lives; not content: a blob that was removed
/// since is not found. Lists of names are read from the facts, at a cost that grows with their number.
#[derive(Clone, Debug)]
pub struct Snapshot {
    store: Store,
    facts: tables::Snapshot,
}

impl Store {
    /// The store as of now, for reads that have to agree with each other.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let before = store.snapshot()?;
    /// let stored = store.put("content", Algorithm::Sha256)?;
    /// assert!(store.exists(&stored.digest)? && !before.exists(&stored.digest)?);
    /// assert!(before.lsn() < stored.lsn);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot { facts: self.inner()?.tables.snapshot().kept(), store: self.clone() })
    }
}

impl Snapshot {
    /// The commit that it is as of: the last that was visible then.
    pub fn lsn(&self) -> Lsn {
        self.facts.lsn
    }

    /// As [`Store::exists`].
    ///
    /// # Errors
    /// As [`Store::exists`]'s.
    pub fn exists(&self, digest: &Digest) -> Result<bool> {
        self.store.inner()?;
        self.facts.has_blob(digest)
    }

    /// As [`Store::stat`].
    ///
    /// # Errors
    /// As [`Store::stat`]'s.
    pub fn stat(&self, digest: &Digest) -> Result<Stat> {
        self.stat_many(&[*digest])?.pop().flatten().ok_or(Error::BlobNotFound { digest: *digest })
    }

    /// As [`Store::stat_many`].
    ///
    /// # Errors
    /// As [`Store::stat_many`]'s.
    pub fn stat_many(&self, digests: &[Digest]) -> Result<Vec<Option<Stat>>> {
        self.store.inner()?.blobs.stat_as_of(&self.facts, digests)
    }

    /// As [`Store::get`].
    ///
    /// # Errors
    /// As [`Store::get`]'s; [`Error::BlobNotFound`] also where it was removed since.
    pub fn get(&self, digest: &Digest) -> Result<Blob> {
        self.stat(digest)?;
        self.store.inner()?.blobs.get(DomainId::DEFAULT, digest)
    }

    /// As [`Store::blobs`].
    pub fn blobs(&self) -> Blobs {
        self.store.open.inner.blobs.list(self.facts.clone())
    }

    /// As [`Store::repositories`].
    ///
    /// # Errors
    /// As [`Store::repositories`]'s.
    pub fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Page<RepositoryName, String>> {
        self.store.inner()?.registry.repositories_as_of(&self.facts, after, limit)
    }

    /// A repository that was there then.
    ///
    /// # Errors
    /// As [`Store::repository`]'s.
    pub fn repository(&self, name: &RepositoryName) -> Result<RepositorySnapshot> {
        let repository = self.store.inner()?.registry.repository_as_of(&self.facts, name)?;
        Ok(repository.keeping(Arc::clone(&self.store.open) as Arc<_>))
    }
}
