//! A repository as of one moment.

use std::sync::Arc;

use crate::blobs::Blob;
use crate::digest::Digest;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::id::Lsn;
use crate::oci::{Reference, RepositoryInfo, RepositoryName, Tag};
use crate::page::Page;
use crate::registry::lifecycle::{Plan, Policy};
use crate::registry::{
    BlobInfo, Document, ImageFacts, ImageInfo, Manifest, ManifestInfo, OpenManifest, Referrer, Registry, Repository,
    TagInfo,
};
use crate::tables::Snapshot;

/// A repository as of one commit: every call reads the same moment, however much is pushed and deleted meanwhile. Made
/// by [`Repository::snapshot`] and [`Snapshot::repository`](crate::Snapshot::repository).
///
/// It keeps facts, not content: a blob, or a manifest's document, that was deleted since may have been removed, and is
/// then not found. Lists of tags are read from the facts, at a cost that grows with the number of tags.
#[derive(Clone, Debug)]
pub struct RepositorySnapshot {
    repository: Repository,
    lsn: Lsn,
}

impl Repository {
    /// The repository as of now, for reads that have to agree with each other.
    ///
    /// ```
    /// # use strongroom::registry::{PutManifest, RepositorySettings};
    /// # use strongroom::Options;
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// # let app = store.create_repository(&"team/app".parse()?, RepositorySettings::new())?;
    /// # let put = PutManifest::new("text/plain").references([], []).tag("v1".parse()?);
    /// # app.put_manifest("a document", put)?;
    /// let before = app.snapshot()?;
    /// app.untag(&"v1".parse()?)?;
    /// assert!(app.resolve(&"v1".parse()?).is_err());
    /// assert!(before.resolve(&"v1".parse()?).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where it was deleted.
    pub fn snapshot(&self) -> Result<RepositorySnapshot> {
        Ok(RepositorySnapshot::new(self, self.facts()?))
    }
}

impl Registry {
    /// [`Snapshot::repository`](crate::Snapshot::repository).
    pub(crate) fn repository_as_of(
        self: &Arc<Self>,
        moment: &Snapshot,
        name: &RepositoryName,
    ) -> Result<RepositorySnapshot> {
        let fact = moment.repository_of_name(name.as_str())?;
        let repository = Repository::new(self, fact.domain, fact.id, name.clone());
        Ok(RepositorySnapshot::new(&repository, moment.in_domain(fact.domain)))
    }
}

impl RepositorySnapshot {
    fn new(repository: &Repository, moment: Snapshot) -> Self {
        let lsn = moment.lsn;
        Self { repository: repository.as_of(moment.kept()), lsn }
    }

    /// A handle that keeps the store open.
    pub(crate) fn keeping(self, open: Arc<dyn Send + Sync>) -> Self {
        Self { repository: self.repository.keeping(open), ..self }
    }

    /// The commit that it is as of: the last that was visible then.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The repository's name.
    pub fn name(&self) -> &RepositoryName {
        self.repository.name()
    }

    /// As [`Repository::info`].
    ///
    /// # Errors
    /// As [`Repository::info`]'s.
    pub fn info(&self) -> Result<RepositoryInfo> {
        self.repository.info()
    }

    /// As [`Repository::document`].
    ///
    /// # Errors
    /// As [`Repository::document`]'s.
    pub fn document(&self, name: &str) -> Result<Option<Document>> {
        self.repository.document(name)
    }

    /// As [`Repository::documents`].
    ///
    /// # Errors
    /// As [`Repository::documents`]'s.
    pub fn documents(&self) -> Result<Vec<Document>> {
        self.repository.documents()
    }

    /// As [`Repository::get`].
    ///
    /// # Errors
    /// As [`Repository::get`]'s; [`Error::BlobNotFound`] also where it was removed since.
    pub fn get(&self, digest: &Digest) -> Result<Blob> {
        self.repository.get(digest)
    }

    /// As [`Repository::get_many`].
    ///
    /// # Errors
    /// As [`Repository::get_many`]'s; for each: as [`get`](Self::get).
    pub fn get_many(&self, digests: &[Digest]) -> Result<Vec<Result<Blob>>> {
        self.repository.get_many(digests)
    }

    /// As [`Repository::stat`].
    ///
    /// # Errors
    /// As [`Repository::stat`]'s.
    pub fn stat(&self, digest: &Digest) -> Result<BlobInfo> {
        self.repository.stat(digest)
    }

    /// As [`Repository::stat_many`].
    ///
    /// # Errors
    /// As [`Repository::stat_many`]'s.
    pub fn stat_many(&self, digests: &[Digest]) -> Result<Vec<Option<BlobInfo>>> {
        self.repository.stat_many(digests)
    }

    /// As [`Repository::blobs`].
    ///
    /// # Errors
    /// As [`Repository::blobs`]'s.
    pub fn blobs(&self, after: Option<&Digest>, limit: usize) -> Result<Page<BlobInfo, Digest>> {
        self.repository.blobs(after, limit)
    }

    /// As [`Repository::get_manifest`].
    ///
    /// # Errors
    /// As [`Repository::get_manifest`]'s; [`Error::ManifestNotFound`] also where it was removed since.
    pub fn get_manifest(&self, reference: &Reference) -> Result<Manifest> {
        self.repository.get_manifest(reference)
    }

    /// As [`Repository::open_manifest`].
    ///
    /// # Errors
    /// As [`get_manifest`](Self::get_manifest)'s.
    pub fn open_manifest(&self, reference: &Reference) -> Result<OpenManifest> {
        self.repository.open_manifest(reference)
    }

    /// As [`Repository::manifest_info`].
    ///
    /// # Errors
    /// As [`Repository::manifest_info`]'s.
    pub fn manifest_info(&self, reference: &Reference) -> Result<ManifestInfo> {
        self.repository.manifest_info(reference)
    }

    /// As [`Repository::manifests`].
    ///
    /// # Errors
    /// As [`Repository::manifests`]'s.
    pub fn manifests(&self, after: Option<&Digest>, limit: usize) -> Result<Page<ManifestInfo, Digest>> {
        self.repository.manifests(after, limit)
    }

    /// As [`Repository::images`].
    ///
    /// # Errors
    /// As [`Repository::images`]'s.
    pub fn images(&self, after: Option<&Digest>, limit: usize) -> Result<Page<ImageInfo, Digest>> {
        self.repository.images(after, limit)
    }

    /// As [`Repository::image`].
    ///
    /// # Errors
    /// As [`Repository::image`]'s.
    pub fn image(&self, reference: &Reference) -> Result<ImageInfo> {
        self.repository.image(reference)
    }

    /// As [`Repository::image_many`].
    ///
    /// # Errors
    /// As [`Repository::image_many`]'s.
    pub fn image_many(&self, references: &[Reference]) -> Result<Vec<Option<ImageInfo>>> {
        self.repository.image_many(references)
    }

    /// As [`Repository::image_facts`].
    ///
    /// # Errors
    /// As [`Repository::image_facts`]'s.
    pub fn image_facts(&self, after: Option<&Digest>, limit: usize) -> Result<Page<ImageFacts, Digest>> {
        self.repository.image_facts(after, limit)
    }

    /// As [`Repository::image_facts_many`].
    ///
    /// # Errors
    /// As [`Repository::image_facts_many`]'s.
    pub fn image_facts_many(&self, digests: &[Digest]) -> Result<Vec<Option<ImageFacts>>> {
        self.repository.image_facts_many(digests)
    }

    /// As [`Repository::lifecycle_plan`], about the images of this moment. Carry it out on the
    /// [repository](Repository::apply_lifecycle) itself.
    ///
    /// # Errors
    /// As [`Repository::lifecycle_plan`]'s.
    pub fn lifecycle_plan(&self, policy: &Policy, now_ms: u64) -> Result<Plan<Digest>> {
        self.repository.lifecycle_plan(policy, now_ms)
    }

    /// As [`Repository::referrers`].
    ///
    /// # Errors
    /// As [`Repository::referrers`]'s.
    pub fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Referrer, Digest>> {
        self.repository.referrers(subject, artifact_type, after, limit)
    }

    /// As [`Repository::resolve`].
    ///
    /// # Errors
    /// As [`Repository::resolve`]'s.
    pub fn resolve(&self, tag: &Tag) -> Result<TagInfo> {
        self.repository.resolve(tag)
    }

    /// As [`Repository::tags`].
    ///
    /// # Errors
    /// As [`Repository::tags`]'s.
    pub fn tags(&self, after: Option<&str>, limit: usize) -> Result<Page<Tag, String>> {
        self.repository.tags(after, limit)
    }

    /// As [`Repository::tags_of`].
    ///
    /// # Errors
    /// As [`Repository::tags_of`]'s.
    pub fn tags_of(&self, digest: &Digest) -> Result<Vec<Tag>> {
        self.repository.tags_of(digest)
    }
}
