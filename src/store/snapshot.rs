//! The store as of one moment.

use std::sync::Arc;

use crate::blobs::{Blob, BlobStore, Blobs, NamedBlob, NamedFile, Stat};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::id::{DomainId, Lsn};
use crate::keys::DomainName;
use crate::oci::RepositoryName;
use crate::page::Page;
use crate::registry::RepositorySnapshot;
#[cfg(doc)]
use crate::store::NamedFiles;
use crate::store::Store;
use crate::store::named::PAGE;
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

/// The named files of a key domain as of one commit. Made by [`Snapshot::named`].
///
/// It keeps what is known of the files, not their content. Lists are read from the facts, at a cost that grows with
/// the number of names.
///
/// ```
/// # use strongroom::{Options, PutNamed};
/// # let dir = tempfile::tempdir()?;
/// # let store = Options::new().create(true).open(dir.path())?;
/// store.named().put("index", "one version", PutNamed::new())?;
/// let before = store.snapshot()?;
/// store.named().put("index", "two versions", PutNamed::new())?;
/// assert_eq!(before.named().stat("index")?.len, 11);
/// assert_eq!(before.named().get("index")?.blob.bytes()?, "one version");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct NamedSnapshot {
    store: Store,
    facts: tables::Snapshot,
}

impl NamedSnapshot {
    fn blobs(&self) -> Result<&BlobStore> {
        let inner = self.store.inner()?;
        // Nothing of a domain that was shredded meanwhile is read.
        inner.files.keys().in_use(self.facts.domain)?;
        Ok(&inner.blobs)
    }

    /// What was known of a file, as [`NamedFiles::stat`].
    ///
    /// # Errors
    /// As [`NamedFiles::stat`]'s.
    pub fn stat(&self, name: &str) -> Result<NamedFile> {
        self.blobs()?.stat_named_as_of(&self.facts, name)
    }

    /// A file as it was, and its content, as [`NamedFiles::get`].
    ///
    /// # Errors
    /// As [`NamedFiles::get`]'s; [`Error::BlobNotFound`] where the content was removed since.
    pub fn get(&self, name: &str) -> Result<NamedBlob> {
        let blobs = self.blobs()?;
        let file = blobs.stat_named_as_of(&self.facts, name)?;
        let blob = blobs.get(self.facts.domain, &file.digest)?;
        Ok(NamedBlob { file, blob })
    }

    /// A page of the files that there were, as [`NamedFiles::list`].
    ///
    /// # Errors
    /// As [`NamedFiles::list`]'s.
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page<NamedFile, String>> {
        self.blobs()?.list_named_as_of(&self.facts, prefix, after, limit)
    }

    /// All files that there were, as [`NamedFiles::iter`], all as of the one moment.
    pub fn iter(&self, prefix: &str) -> impl Iterator<Item = Result<NamedFile>> + use<> {
        let (files, prefix) = (self.clone(), prefix.to_owned());
        Page::all(move |after: Option<&String>| files.list(&prefix, after.map(String::as_str), PAGE))
    }
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

    /// As [`Store::get_many`].
    ///
    /// # Errors
    /// As [`Store::get_many`]'s; for each: as [`get`](Self::get).
    pub fn get_many(&self, digests: &[Digest]) -> Result<Vec<Result<Blob>>> {
        let inner = self.store.inner()?;
        let now = inner.tables.snapshot(); // where content is that was moved since
        let get = |digest: &Digest| match self.facts.has_blob(digest)? {
            true => inner.blobs.get_as_of(now.clone(), digest),
            false => Err(Error::BlobNotFound { digest: *digest }),
        };
        Ok(digests.iter().map(get).collect())
    }

    /// As [`Store::exists_many`].
    ///
    /// # Errors
    /// As [`Store::exists_many`]'s.
    pub fn exists_many(&self, digests: &[Digest]) -> Result<Vec<bool>> {
        self.store.inner()?;
        digests.iter().map(|digest| self.facts.has_blob(digest)).collect()
    }

    /// The named files that there were in the default key domain.
    pub fn named(&self) -> NamedSnapshot {
        NamedSnapshot { store: self.store.clone(), facts: self.facts.clone() }
    }

    /// The named files that there were in a key domain, as [`Store::named_in`].
    ///
    /// # Errors
    /// As [`Store::named_in`]'s.
    pub fn named_in(&self, domain: &DomainName) -> Result<NamedSnapshot> {
        let keys = &self.store.inner()?.files;
        let id = keys.domain_of(domain)?;
        keys.keys().in_use(id)?;
        Ok(NamedSnapshot { store: self.store.clone(), facts: self.facts.in_domain(id) })
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
