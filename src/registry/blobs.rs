//! The blobs of a repository: pushing, claiming, mounting, reading.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

#[cfg(feature = "tokio")]
use crate::blobs::BlobStore;
use crate::blobs::{Blob, Claimed, Destination, Expect, SourceFile, Stored, UploadStatus};
use crate::clock::StoreClock;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::facts::find;
use crate::facts::{BlobFact, Family, Key, LinkFact, Lookup, RepositoryFact};
use crate::id::{DomainId, Lsn, RepositoryId, UploadId};
use crate::log::Durability;
use crate::oci::RepositoryName;
use crate::page::Page;
use crate::registry::Repository;
use crate::tables::Snapshot;
use crate::transaction::registry::{Exists, Link, Touch, Unlink};
use crate::transaction::{Outcome, Then};

/// A blob of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobInfo {
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub len: u64,
    /// How many manifests of the repository hold it.
    pub references: u32,
    /// Whether its content is known to be damaged: a push of the same content repairs it.
    pub damaged: bool,
    /// When the repository got it, by the wall clock, in milliseconds since 1970, to the second.
    pub stored_ms: u64,
    /// How long ago, in open time, somebody last relied on it without a manifest: pushed, mounted or claimed it here,
    /// or deleted the last manifest that referenced it. Noted to an eighth of
    /// [`Options::retention`](crate::Options::retention), and not while a manifest references it.
    pub relied_on: Duration,
}

impl BlobInfo {
    fn new(digest: Digest, link: &LinkFact, blob: &BlobFact, clock: &StoreClock) -> Self {
        let (stored_ms, relied_on) = (link.stored.milliseconds(), clock.since(link.touched));
        Self { digest, len: blob.len, references: link.count, damaged: blob.damaged, stored_ms, relied_on }
    }

    fn of_claimed(digest: &Digest, claimed: Result<Claimed>, clock: &StoreClock) -> Result<Self> {
        let Claimed { link, blob, .. } = claimed?;
        link.map(|link| Self::new(*digest, &link, &blob, clock)).ok_or(Error::BlobNotFound { digest: *digest })
    }
}

/// A blob that goes into a repository is linked there in the step that stores it.
impl Destination for Repository {
    fn domain(&self) -> DomainId {
        self.domain
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn claim_many(&self, digests: &[Digest]) -> Result<Vec<Result<Claimed>>> {
        let (registry, snapshot) = (&self.registry, self.facts()?);
        let (retention, now) = (registry.retention, registry.clock.open_time());
        let look = |digest: &Digest| {
            let found = find::link(&snapshot, self.id, digest)?;
            let (link, blob) = found.ok_or(Error::BlobNotFound { digest: *digest })?;
            Ok((blob, Some(link), link.count == 0 && retention.is_stale(link.touched, now)))
        };
        let touch = |digests| self.commit(Touch { repository: self.named(), digests });
        registry.blobs.claim_each(digests, self.durability, snapshot.lsn, look, touch)
    }

    fn exists(&self) -> Then {
        Some(Box::new(Exists(self.named())))
    }

    fn then(&self, digest: &Digest) -> Then {
        Some(Box::new(Link { repository: self.named(), digest: *digest, from: None }))
    }

    fn existed(&self, outcome: &Outcome) -> bool {
        outcome.was_linked
    }

    fn repository(&self) -> Result<Option<RepositoryId>> {
        self.facts()?;
        Ok(Some(self.id))
    }
}

impl Repository {
    /// Where blobs are stored: for adapters.
    #[cfg(feature = "tokio")]
    pub(crate) fn blob_store(&self) -> &BlobStore {
        &self.registry.blobs
    }

    /// Pushes a blob, as [`Store::put`](crate::Store::put). It is visible in this repository, and while no manifest
    /// references it, is kept there for at least [`Options::retention`](crate::Options::retention).
    ///
    /// # Errors
    /// As [`Store::put`](crate::Store::put), and [`Error::RepositoryNotFound`] where the repository was deleted.
    pub fn put(&self, content: impl AsRef<[u8]>, expect: impl Into<Expect>) -> Result<Stored> {
        self.registry.blobs.put(content.as_ref(), expect.into(), self)
    }

    /// Pushes a blob that a reader yields, as [`Store::put_reader`](crate::Store::put_reader).
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`Error::Source`] where the reader fails.
    pub fn put_reader(&self, mut reader: impl Read, expect: impl Into<Expect>) -> Result<Stored> {
        self.registry.blobs.put_reader(&mut reader, expect.into(), self)
    }

    /// Pushes contents that are in memory, as [`Store::put_many`](crate::Store::put_many).
    ///
    /// # Errors
    /// As [`Store::put_many`](crate::Store::put_many), and [`Error::RepositoryNotFound`] where the repository was
    /// deleted.
    pub fn put_many<C: AsRef<[u8]>, E: Into<Expect>>(
        &self,
        contents: impl IntoIterator<Item = (C, E)>,
    ) -> Result<Vec<Result<Stored>>> {
        self.registry.blobs.put_all(contents, self)
    }

    /// Pushes the content of a file, which stays as it is, as [`Store::put_file`](crate::Store::put_file).
    ///
    /// # Errors
    /// As [`put_reader`](Self::put_reader); [`Error::Source`] where it is not a regular file, or can't be read.
    pub fn put_file(&self, path: impl AsRef<Path>, expect: impl Into<Expect>) -> Result<Stored> {
        self.registry.blobs.put_path(path.as_ref(), expect.into(), self)
    }

    /// Pushes the content of a file that is open. Where another repository has that content, the file is read and
    /// compared all the same, but not written: whoever knows a digest alone gets no blob by it.
    pub(crate) fn put_source(&self, file: SourceFile<'_>, digest: &Digest) -> Result<Stored> {
        if self.is_stored(digest)? {
            let len = file.check(digest)?;
            match self.commit(Link { repository: self.named(), digest: *digest, from: None }) {
                Err(Error::BlobNotFound { .. }) => {} // it was collected meanwhile
                other => {
                    let Outcome { lsn, was_linked: existed, .. } = other?;
                    return Ok(Stored { digest: *digest, len, existed, lsn });
                }
            }
        }
        self.registry.blobs.put_file(file, digest.into(), self)
    }

    /// Whether the store has a blob in this key domain, undamaged, whichever repository it is in: nothing to be told to
    /// who may not have it.
    pub(crate) fn is_stored(&self, digest: &Digest) -> Result<bool> {
        Ok(self.facts()?.blob(digest)?.is_some_and(|blob| !blob.damaged))
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// [`Error::BlobNotFound`] where the repository does not have it, even if other repositories do.
    pub fn get(&self, digest: &Digest) -> Result<Blob> {
        if self.moment().is_some() {
            // A handle as of one moment keeps no content: that is where it is now.
            self.stat(digest)?;
            return self.registry.blobs.get(self.domain, digest);
        }
        let look = |snapshot: &Snapshot| {
            let found = find::link(snapshot, self.id, digest)?;
            let (_, blob) = found.ok_or(Error::BlobNotFound { digest: *digest })?;
            Ok(((), *digest, blob))
        };
        Ok(self.registry.blobs.open_found(self.facts()?, look)?.1)
    }

    /// Opens blobs for reading, all looked up as of one moment.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where the repository was deleted. For each: as [`get`](Self::get).
    pub fn get_many(&self, digests: &[Digest]) -> Result<Vec<Result<Blob>>> {
        let (blobs, moment) = (&self.registry.blobs, self.facts()?);
        // A handle as of one moment keeps no content: that is where it is now.
        let content = self.moment().map_or_else(|| moment.clone(), |_| self.registry.tables.snapshot_of(self.domain));
        let get = |digest: &Digest| match find::link(&moment, self.id, digest)? {
            Some(_) => blobs.get_as_of(content.clone(), digest),
            None => Err(Error::BlobNotFound { digest: *digest }),
        };
        Ok(digests.iter().map(get).collect())
    }

    /// Returns what is known of several blobs as of one moment; `None` for those that the repository does not have.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where the repository was deleted; [`Error::Corrupt`] where facts are damaged.
    pub fn stat_many(&self, digests: &[Digest]) -> Result<Vec<Option<BlobInfo>>> {
        let snapshot = self.facts()?;
        let found = snapshot.links(self.id, digests)?.into_iter().zip(digests);
        let info = |(link, blob): (LinkFact, BlobFact), digest: &Digest| {
            BlobInfo::new(*digest, &link, &blob, &self.registry.clock)
        };
        Ok(found.map(|(found, digest)| found.map(|found| info(found, digest))).collect())
    }

    /// Returns what is known of a blob, and promises nothing about the next moment: that is what [`claim`](Self::claim)
    /// is for.
    ///
    /// # Errors
    /// [`Error::BlobNotFound`] where the repository does not have it.
    pub fn stat(&self, digest: &Digest) -> Result<BlobInfo> {
        let (link, blob) = self.find(digest)?;
        Ok(BlobInfo::new(*digest, &link, &blob, &self.registry.clock))
    }

    /// Returns what is known of a blob, and keeps the blob in the repository for at least
    /// [`Options::retention`](crate::Options::retention), unless it is [removed](Self::remove_blob). `HEAD` uses this:
    /// a client that is told that a blob exists does not push it.
    ///
    /// A claim is stored durably at most once in an eighth of that time, so repeated claims cost a look-up.
    ///
    /// # Errors
    /// [`Error::BlobNotFound`] where the repository does not have it; [`Error::Corrupt`] where its content is known to
    /// be damaged: it has to be pushed again.
    pub fn claim(&self, digest: &Digest) -> Result<BlobInfo> {
        BlobInfo::of_claimed(digest, Destination::claim(self, digest), &self.registry.clock)
    }

    /// [Claims](Self::claim) several blobs, all looked up as of one moment, with one commit where any has to be stored.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where the repository was deleted, and what keeps a commit from being durable. For
    /// each: as [`claim`](Self::claim).
    pub fn claim_many(&self, digests: &[Digest]) -> Result<Vec<Result<BlobInfo>>> {
        let claimed = Destination::claim_many(self, digests)?;
        Ok(digests
            .iter()
            .zip(claimed)
            .map(|(digest, claimed)| BlobInfo::of_claimed(digest, claimed, &self.registry.clock))
            .collect())
    }

    /// Makes a blob of another repository visible in this one, without its content being sent. Where the other
    /// repository is in another key domain the content is copied. `allow` is called with the other repository's name,
    /// and says whether the caller may read there.
    ///
    /// # Errors
    /// [`Error::BlobNotFound`] where the other repository does not have the blob, where there is no such repository,
    /// and where `allow` returns false: the caller is not told which. [`Error::Corrupt`] where its content is known to
    /// be damaged, and [`Error::Key`] where the other repository is in a [locked](crate::Store::locked_domains) domain:
    /// the blob has to be pushed then.
    pub fn mount(
        &self,
        digest: &Digest,
        from: &RepositoryName,
        allow: impl FnOnce(&RepositoryName) -> bool,
    ) -> Result<Stored> {
        let snapshot = self.facts()?;
        let not_found = || Error::BlobNotFound { digest: *digest };
        if !allow(from) {
            return Err(not_found());
        }
        let from = match snapshot.repository_of_name(from.as_str()) {
            Err(Error::RepositoryNotFound { .. }) => return Err(not_found()),
            other => other?,
        };
        let source = snapshot.in_domain(from.domain);
        let (_, blob) = find::link(&source, from.id, digest)?.ok_or_else(not_found)?;
        self.registry.blobs.check_undamaged(&blob)?;
        if from.domain != self.domain {
            return self.copy(digest, &from);
        }
        let link = Link { repository: self.named(), digest: *digest, from: Some(from.named()) };
        let Outcome { lsn, was_linked: existed, .. } = self.commit(link)?;
        Ok(Stored { digest: *digest, len: blob.len, existed, lsn })
    }

    /// Pushes a blob of a repository of another domain, in which content is stored once more.
    fn copy(&self, digest: &Digest, from: &RepositoryFact) -> Result<Stored> {
        let name = from.name.parse()?;
        let from = Self::new(&self.registry, from.domain, from.id, name);
        let blob = match from.get(digest) {
            // Deleted meanwhile: the caller is not told that it was there.
            Err(Error::RepositoryNotFound { .. }) => return Err(Error::BlobNotFound { digest: *digest }),
            other => other?,
        };
        match self.put_reader(blob.reader(), digest) {
            Err(Error::Source { source }) => Err(Error::of_reader(&source)),
            other => other,
        }
    }

    /// Removes a blob from the repository at once, even if it was claimed. Other repositories keep it, and open handles
    /// stay readable.
    ///
    /// # Errors
    /// [`Error::BlobNotFound`] where the repository does not have it, [`Error::BlobInUse`] where a manifest of it
    /// references it.
    pub fn remove_blob(&self, digest: &Digest) -> Result<Lsn> {
        Ok(self.commit(Unlink { repository: self.named(), digest: *digest })?.lsn)
    }

    /// A [page](Page) of the repository's blobs, those behind `after`, in the order of the store's keys.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn blobs(&self, after: Option<&Digest>, limit: usize) -> Result<Page<BlobInfo, Digest>> {
        let snapshot = self.facts()?;
        let after = after.map(|after| Key::of_digest(self.domain, Family::Link, self.id, after));
        let links = snapshot.all_of_after::<LinkFact>(self.id, after)?;
        let infos = links.map(|fact| {
            let (key, link) = fact?;
            let blob_key = link.blob(&key);
            let blob = snapshot.decoded(&key, snapshot.blob_by_key(&blob_key)?)?;
            let digest = self.registry.blobs.digest_since(&blob_key, &blob)?;
            Ok(digest.map(|digest| BlobInfo::new(digest, &link, &blob, &self.registry.clock)))
        });
        Page::collect(infos.filter_map(Result::transpose), limit, |blob| blob.digest)
    }

    /// Begins an upload into this repository, as [`Store::begin_upload`](crate::Store::begin_upload). Its id is valid
    /// in this repository only.
    ///
    /// # Errors
    /// As [`Store::begin_upload`](crate::Store::begin_upload), and [`Error::RepositoryNotFound`] where the repository
    /// was deleted.
    pub fn begin_upload(&self, algorithm: Algorithm) -> Result<UploadId> {
        self.registry.blobs.begin_upload(algorithm, self)
    }

    /// Appends content to an upload of this repository, as [`Store::append_upload`](crate::Store::append_upload).
    ///
    /// # Errors
    /// As [`Store::append_upload`](crate::Store::append_upload).
    pub fn append_upload(
        &self,
        id: UploadId,
        offset: impl Into<Option<u64>>,
        content: impl AsRef<[u8]>,
    ) -> Result<u64> {
        self.registry.blobs.append_upload(id, offset.into(), &mut content.as_ref(), self)
    }

    /// Appends what a reader yields to an upload of this repository, as
    /// [`Store::append_upload_from`](crate::Store::append_upload_from).
    ///
    /// # Errors
    /// As [`Store::append_upload_from`](crate::Store::append_upload_from).
    pub fn append_upload_from(
        &self,
        id: UploadId,
        offset: impl Into<Option<u64>>,
        mut content: impl Read,
    ) -> Result<u64> {
        self.registry.blobs.append_upload(id, offset.into(), &mut content, self)
    }

    /// The status of an upload of this repository.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`] where this repository has none of that id.
    pub fn upload_status(&self, id: UploadId) -> Result<UploadStatus> {
        self.registry.blobs.upload_status(id, self)
    }

    /// Commits an upload as a blob of this repository, as [`Store::commit_upload`](crate::Store::commit_upload).
    ///
    /// # Errors
    /// As [`Store::commit_upload`](crate::Store::commit_upload), and [`Error::RepositoryNotFound`] where the repository
    /// was deleted.
    pub fn commit_upload(&self, id: UploadId, expect: impl Into<Expect>) -> Result<Stored> {
        self.registry.blobs.commit_upload(id, expect.into(), self)
    }

    /// Appends the last piece of an upload of this repository, and commits the upload, as
    /// [`Store::commit_upload_with`](crate::Store::commit_upload_with).
    ///
    /// # Errors
    /// As [`Store::commit_upload_with`](crate::Store::commit_upload_with), and [`Error::RepositoryNotFound`] where the
    /// repository no longer exists.
    pub fn commit_upload_with(
        &self,
        id: UploadId,
        offset: impl Into<Option<u64>>,
        last: impl AsRef<[u8]>,
        expect: impl Into<Expect>,
    ) -> Result<Stored> {
        self.registry.blobs.commit_upload_with(id, offset.into(), last.as_ref(), expect.into(), self)
    }

    /// Cancels an upload of this repository.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`] where this repository has none of that id.
    pub fn cancel_upload(&self, id: UploadId) -> Result<()> {
        self.registry.blobs.cancel_upload(id, self)
    }

    /// A [page](Page) of the unfinished uploads of this repository behind one, in the order of their ids. It is found
    /// among all uploads of the key domain.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn uploads(&self, after: Option<&UploadId>, limit: usize) -> Result<Page<UploadStatus, UploadId>> {
        self.registry.blobs.uploads_of(self, after, limit)
    }

    /// How many uploads of this repository are unfinished, counted up to `limit`. They are found among all uploads of
    /// the key domain.
    ///
    /// # Errors
    /// As [`uploads`](Self::uploads).
    pub fn count_uploads(&self, limit: usize) -> Result<usize> {
        self.registry.blobs.count_uploads_of(self, limit)
    }

    fn find(&self, digest: &Digest) -> Result<(LinkFact, BlobFact)> {
        find::link(&self.facts()?, self.id, digest)?.ok_or(Error::BlobNotFound { digest: *digest })
    }
}
