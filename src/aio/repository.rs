//! The calls of a repository.

use bytes::Bytes;

use crate::aio::arguments::calls;
use crate::aio::blob::Opened;
use crate::aio::target::{Target, content};
use crate::aio::{AsyncBlob, AsyncStore};
use crate::blobs::Stored;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::id::Lsn;
use crate::log::Durability;
use crate::oci::{ExpectDocument, ExpectTag, Reference, RepositoryInfo, RepositoryName, RepositorySettings, Tag};
use crate::page::Page;
use crate::registry::lifecycle::{Carried, Plan, Policy};
use crate::registry::{
    BlobInfo, ConditionalAction, Document, ImageFacts, ImageInfo, Manifest, ManifestInfo, OpenManifest, Pushed,
    PutManifest, Referrer, Repository, RepositoryUsage, StorageClass, TagInfo,
};

/// A handle to a repository for async programs: a [`Repository`] whose calls never block the runtime. It is cheap to
/// clone, can be kept and sent to other tasks, and keeps the store open. See the [module](crate::aio).
///
/// ```
/// use strongroom::aio::AsyncStore;
/// use strongroom::registry::{PutManifest, RepositorySettings};
/// use strongroom::{Algorithm, Options};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
/// # runtime.block_on(async {
/// let app = store.create_repository(&"team/app".parse()?, RepositorySettings::new()).await?;
/// let layer = app.put("a layer", Algorithm::Sha256).await?.digest;
/// let manifest = PutManifest::new("text/plain").references([layer], []).tag("v1".parse()?);
/// let pushed = app.put_manifest("a document", manifest).await?;
/// assert_eq!(app.resolve(&"v1".parse()?).await?.digest, pushed.digest);
/// assert_eq!(app.pull_manifest(&pushed.digest.into()).await?.content, "a document");
/// # Ok(()) })
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AsyncRepository {
    // In this order: the store is closed by the handle that is dropped last, off the runtime.
    repository: Repository,
    store: AsyncStore,
}

impl AsyncRepository {
    pub(super) fn new(repository: Repository, store: AsyncStore) -> Self {
        Self { repository, store }
    }

    /// The blocking handle, for calls that may be made on a thread of the runtime: see [which those
    /// are](crate::aio#which-calls-may-be-made-on-a-thread-of-the-runtime).
    pub fn blocking(&self) -> &Repository {
        &self.repository
    }

    /// The repository's name.
    pub fn name(&self) -> &RepositoryName {
        self.repository.name()
    }

    /// The same repository, whose writes through the new handle return when this says:
    /// [`Repository::with_durability`].
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self::new(self.repository.with_durability(durability), self.store.with_durability(durability))
    }

    pub(super) fn parts(&self) -> (Target, &AsyncStore) {
        (Target::from(&self.repository), &self.store)
    }

    /// Runs a blocking operation off the runtime, once fewer than [`Limits::calls`](crate::aio::Limits::calls) run: for
    /// several calls in one go, as [`AsyncStore::call`].
    ///
    /// # Errors
    /// As [`AsyncStore::call`].
    pub async fn call<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        work: impl FnOnce(&Repository) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let repository = self.repository.clone();
        self.store.call(move |_| work(&repository)).await
    }

    /// Runs a blocking operation that only reads, off the runtime, once fewer than
    /// [`Limits::reads`](crate::aio::Limits::reads) run, as [`AsyncStore::read`].
    ///
    /// # Errors
    /// As [`AsyncStore::read`].
    pub async fn read<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        work: impl FnOnce(&Repository) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let repository = self.repository.clone();
        self.store.read(move |_| work(&repository)).await
    }

    calls! { Repository:
        /// What is known of the repository.
        read info() -> RepositoryInfo;
        /// What the repository has, in numbers.
        read usage() -> RepositoryUsage;
        /// Changes the repository's settings.
        call set_settings(settings: RepositorySettings) -> Lsn;
        /// A document of the repository, if there is one of this name.
        read document(name: &str) -> Option<Document>;
        /// All documents of the repository, by their names.
        read documents() -> Vec<Document>;
        /// Removes a document.
        call remove_document(name: &str, expect: ExpectDocument) -> Lsn;
    }

    /// Sets a document, and returns its revision.
    ///
    /// # Errors
    /// As [`Repository::set_document`] and [`call`](Self::call).
    pub async fn set_document(&self, name: &str, content: impl Into<Bytes>, expect: ExpectDocument) -> Result<Lsn> {
        let (name, content) = (name.to_owned(), content.into());
        self.call(move |repository| repository.set_document(&name, content, expect)).await
    }
}

/// Blobs and uploads.
impl AsyncRepository {
    content!(Repository);

    calls! { Repository:
        /// Returns what is known of a blob, and promises nothing about the next moment.
        read stat(digest: &Digest) -> BlobInfo;
        /// Returns what is known of a blob, and keeps it in the repository for the time of retention: for `HEAD`.
        call claim(digest: &Digest) -> BlobInfo;
        /// What is known of several blobs as of one moment; `None` for those that the repository does not have.
        read stat_many(digests: &[Digest]) -> Vec<Option<BlobInfo>>;
        /// Claims several blobs, with one commit at most.
        call claim_many(digests: &[Digest]) -> Vec<Result<BlobInfo>>;
        /// Removes a blob from the repository.
        call remove_blob(digest: &Digest) -> Lsn;
        /// A page of the repository's blobs.
        read blobs(after: Option<&Digest>, limit: usize) -> Page<BlobInfo, Digest>;
    }

    /// Makes a blob of another repository visible in this one, if `allow` says that the caller may read there.
    ///
    /// # Errors
    /// As [`Repository::mount`] and [`call`](Self::call).
    pub async fn mount(
        &self,
        digest: &Digest,
        from: &RepositoryName,
        allow: impl FnOnce(&RepositoryName) -> bool + Send + 'static,
    ) -> Result<Stored> {
        let (digest, from) = (*digest, from.clone());
        self.call(move |repository| repository.mount(&digest, &from, allow)).await
    }
}

/// Manifests and tags.
impl AsyncRepository {
    /// Pushes a manifest.
    ///
    /// # Errors
    /// As [`Repository::put_manifest`] and [`call`](Self::call).
    pub async fn put_manifest(&self, content: impl Into<Bytes>, put: PutManifest) -> Result<Pushed> {
        let content = content.into();
        self.call(move |repository| repository.put_manifest(content, put)).await
    }

    /// Opens a manifest by its tag or digest: its media type, and its document as a blob. Does not record a pull.
    ///
    /// # Errors
    /// As [`Repository::open_manifest`] and [`read`](Self::read).
    pub async fn open_manifest(&self, reference: &Reference) -> Result<(String, AsyncBlob)> {
        let reference = reference.clone();
        let open = move |repository: &Repository| {
            let OpenManifest { media_type, blob } = repository.open_manifest(&reference)?;
            Ok((media_type, Opened::from(blob)))
        };
        let (media_type, opened) = self.read(open).await?;
        Ok((media_type, AsyncBlob::opened(&self.store, opened)))
    }

    calls! { Repository:
        /// A manifest by its tag or digest. Does not record a pull.
        read get_manifest(reference: &Reference) -> Manifest;
        /// A manifest by its tag or digest, with the time recorded as its last pull.
        read pull_manifest(reference: &Reference) -> Manifest;
        /// What is known of a manifest, by its tag or digest.
        read manifest_info(reference: &Reference) -> ManifestInfo;
        /// Archives a manifest, or restores it.
        call set_storage_class(digest: &Digest, class: StorageClass) -> Lsn;
        /// Deletes a manifest and all tags that name it.
        call delete_manifest(digest: &Digest) -> Lsn;
        /// Removes tags and deletes manifests, and says for each whether that was done.
        call delete_batch(references: &[Reference]) -> Vec<Result<Lsn>>;
        /// At most `limit` of the repository's manifests, beginning after `after`.
        read manifests(after: Option<&Digest>, limit: usize) -> Page<ManifestInfo, Digest>;
        /// A page of the repository's images.
        read images(after: Option<&Digest>, limit: usize) -> Page<ImageInfo, Digest>;
        /// The image with a tag or a digest.
        read image(reference: &Reference) -> ImageInfo;
        /// Images by their tags or digests, as of one moment; `None` for those that the repository does not have.
        read image_many(references: &[Reference]) -> Vec<Option<ImageInfo>>;
        /// A page of what decides about the lives of images.
        read image_facts(after: Option<&Digest>, limit: usize) -> Page<ImageFacts, Digest>;
        /// What decides about the lives of some images, as of one moment.
        read image_facts_many(digests: &[Digest]) -> Vec<Option<ImageFacts>>;
        /// Deletes or archives images, each only if it is still as it was when that was decided.
        call apply_if_unchanged(actions: &[ConditionalAction]) -> Vec<Result<Lsn>>;
        /// What a lifecycle policy does to the repository's images.
        read lifecycle_plan(policy: &Policy, now_ms: u64) -> Plan<Digest>;
        /// Carries out a plan, as far as the policy still says it and the images are as they were.
        call apply_lifecycle(policy: &Policy, plan: &Plan<Digest>) -> Carried;
        /// At most `limit` manifests that name a subject, beginning after `after`, of an artifact type if one is given.
        read referrers(
            subject: &Digest,
            artifact_type: Option<&str>,
            after: Option<&Digest>,
            limit: usize
        ) -> Page<Referrer, Digest>;
        /// Sets a tag to a manifest that the repository has.
        call tag(tag: &Tag, digest: &Digest, expect: ExpectTag) -> Lsn;
        /// Removes a tag. The manifest stays.
        call untag(tag: &Tag) -> Lsn;
        /// What a tag names.
        read resolve(tag: &Tag) -> TagInfo;
        /// At most `limit` of the repository's tags, in order, beginning after `after`.
        read tags(after: Option<&str>, limit: usize) -> Page<Tag, String>;
        /// The tags that name a manifest, in order.
        read tags_of(digest: &Digest) -> Vec<Tag>;
    }
}
