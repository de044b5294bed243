//! Images: manifests with what servers show of them, and with what lifecycle policies are about.
//!
//! # Invariant kept here
//! The cost of a page is bounded, whatever was pushed: a page ends where it is full, and also where enough was read for
//! it. So neither images of many layers, nor indexes over many images, nor many tags delay others. Of an image with
//! more than 1,000 tags so many are read.

mod sizes;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::find;
use crate::facts::{Family, Held, Key, Lookup as _, ManifestFact, Prefix, PullFact, Reader, StorageClass, TagFact};
use crate::oci::{Reference, Tag};
use crate::page::Page;
use crate::registry::Repository;
use crate::tables::Snapshot;
use crate::transaction::registry::ImageVersion;
use sizes::Sizes;

/// The most tags of an image that are read.
pub(super) const MAX_TAGS: usize = 1000;

/// So many facts are read for a page, but for those of its last image.
const MAX_FACTS: usize = 1 << 16;

/// An image, or an index over images, or another artifact: a manifest with what belongs to it, all of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// The manifest's digest.
    pub digest: Digest,
    /// The media type that it was pushed as.
    pub media_type: String,
    /// What kind of artifact it is: its `artifactType`, or the media type of its config.
    pub artifact_type: Option<String>,
    /// The document's length in bytes.
    pub len: u64,
    /// The lengths of the blobs that it holds, together, in bytes; of an index also the largest of its manifests'
    /// sizes. What the repository does not have counts 0.
    pub size: u64,
    /// When it was pushed, by the wall clock, in milliseconds since 1970.
    pub pushed_ms: u64,
    /// When it was last [pulled](Repository::pull_manifest), by the same clock; after a crash perhaps an earlier time,
    /// by up to ten seconds. (This may be a moment later than the rest.)
    pub pulled_ms: Option<u64>,
    /// The tags that name it, in order: all of them, or 1,000.
    pub tags: Vec<Tag>,
    /// Whether more tags name it.
    pub has_more_tags: bool,
    /// Its subject.
    pub subject: Option<Digest>,
    /// How many manifests of the repository hold it.
    pub holders: u32,
    /// The manifests that it holds.
    pub manifests: Vec<Digest>,
    /// Whether it can be pulled.
    pub storage_class: StorageClass,
    /// When it was archived last, if ever, by the wall clock, in milliseconds since 1970.
    pub archived_ms: Option<u64>,
    /// When it was restored last, if ever, likewise.
    pub activated_ms: Option<u64>,
    /// Whether the document is known to be damaged: a push of the same document repairs it.
    pub is_damaged: bool,
    /// As [`ImageFacts::version`].
    pub version: ImageVersion,
}

/// What decides about the life of an image: an [`ImageInfo`] without what takes longer to be read, and with the
/// [version](Self::version) that a decision about it is [carried out](Repository::apply_if_unchanged) on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageFacts {
    /// As [`ImageInfo::digest`].
    pub digest: Digest,
    /// As [`ImageInfo::media_type`].
    pub media_type: String,
    /// As [`ImageInfo::artifact_type`].
    pub artifact_type: Option<String>,
    /// As [`ImageInfo::pushed_ms`].
    pub pushed_ms: u64,
    /// As [`ImageInfo::pulled_ms`].
    pub pulled_ms: Option<u64>,
    /// As [`ImageInfo::tags`].
    pub tags: Vec<Tag>,
    /// As [`ImageInfo::has_more_tags`]. Nothing can be decided about such an image: see
    /// [`apply_if_unchanged`](Repository::apply_if_unchanged).
    pub has_more_tags: bool,
    /// When the last of its tags was set to it, by the wall clock, in milliseconds since 1970.
    pub tagged_ms: Option<u64>,
    /// As [`ImageInfo::subject`].
    pub subject: Option<Digest>,
    /// As [`ImageInfo::holders`].
    pub holders: u32,
    /// As [`ImageInfo::storage_class`].
    pub storage_class: StorageClass,
    /// As [`ImageInfo::archived_ms`].
    pub archived_ms: Option<u64>,
    /// As [`ImageInfo::activated_ms`].
    pub activated_ms: Option<u64>,
    /// What it is like, for a decision about it.
    pub version: ImageVersion,
}

/// What was read of an image.
struct Found {
    manifest: ManifestFact,
    /// In the order of their keys.
    tags: Vec<TagFact>,
    has_more_tags: bool,
    pulled: Option<u64>,
}

impl Found {
    fn tags(&self) -> Result<Vec<Tag>> {
        let mut tags = self.tags.iter().map(|tag| tag.tag.parse()).collect::<Result<Vec<Tag>>>()?;
        tags.sort_unstable();
        Ok(tags)
    }

    fn facts(self) -> Result<ImageFacts> {
        let version = ImageVersion::new(&self.manifest, &self.tags, self.pulled);
        let (tags, tagged_ms) = (self.tags()?, self.tags.iter().map(|tag| tag.updated).max());
        let Self { manifest, has_more_tags, pulled, .. } = self;
        Ok(ImageFacts {
            digest: manifest.digest,
            media_type: manifest.media_type,
            artifact_type: manifest.artifact_type,
            pushed_ms: manifest.pushed,
            pulled_ms: pulled,
            tags,
            has_more_tags,
            tagged_ms,
            subject: manifest.subject,
            holders: manifest.count,
            storage_class: manifest.storage.class,
            archived_ms: manifest.storage.archived(),
            activated_ms: manifest.storage.activated(),
            version,
        })
    }

    fn info(self, size: u64, is_damaged: bool) -> Result<ImageInfo> {
        let version = ImageVersion::new(&self.manifest, &self.tags, self.pulled);
        let tags = self.tags()?;
        let Self { manifest, has_more_tags, pulled, .. } = self;
        Ok(ImageInfo {
            digest: manifest.digest,
            media_type: manifest.media_type,
            artifact_type: manifest.artifact_type,
            len: manifest.len,
            size,
            pushed_ms: manifest.pushed,
            pulled_ms: pulled,
            tags,
            has_more_tags,
            subject: manifest.subject,
            holders: manifest.count,
            manifests: manifest.held.iter().filter_map(Held::manifest).collect(),
            storage_class: manifest.storage.class,
            archived_ms: manifest.storage.archived(),
            activated_ms: manifest.storage.activated(),
            is_damaged,
            version,
        })
    }
}

impl Repository {
    /// A [page](Page) of the repository's images, those behind `after`, in the order of the store's keys: for SHA-256
    /// that of the digests. Every manifest is one: indexes, the manifests that they hold, and referrers too. A page may
    /// have fewer than `limit` although more follow: it costs at most some 65,000 facts, and those of one image more.
    ///
    /// ```
    /// # use strongroom::registry::{PutManifest, RepositorySettings};
    /// # use strongroom::{Algorithm, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let app = store.create_repository(&"team/app".parse()?, RepositorySettings::new())?;
    /// let layer = app.put("a layer", Algorithm::Sha256)?.digest;
    /// let put = PutManifest::new("text/plain").references([layer], []).tag("v1".parse()?).tag("latest".parse()?);
    /// app.put_manifest("a document", put)?;
    ///
    /// let image = &app.images(None, 100)?.items[0];
    /// let tags: Vec<_> = image.tags.iter().map(|tag| tag.as_str()).collect();
    /// assert_eq!((tags, image.size), (vec!["latest", "v1"], 7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn images(&self, after: Option<&Digest>, limit: usize) -> Result<Page<ImageInfo, Digest>> {
        let snapshot = self.facts()?;
        let mut sizes = Sizes::new(&snapshot, self.id);
        let mut read = Vec::new();
        let next = self.read_images(&snapshot, after, limit, |found| {
            let (size, before) = (sizes.of(&found.manifest)?, sizes.read);
            read.push((found, size));
            Ok(before)
        })?;
        Ok(Page::new(self.infos(&snapshot, read)?, next))
    }

    /// The image with a tag or a digest.
    ///
    /// # Errors
    /// [`Error::ManifestNotFound`] where the repository does not have it.
    pub fn image(&self, reference: &Reference) -> Result<ImageInfo> {
        let found = self.image_many(std::slice::from_ref(reference))?.pop().flatten();
        found.ok_or_else(|| Error::ManifestNotFound { reference: reference.to_string() })
    }

    /// Images by their tags or digests, as of one moment; `None` for those that the repository does not have.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where the repository was deleted; [`Error::Corrupt`] where facts are damaged.
    pub fn image_many(&self, references: &[Reference]) -> Result<Vec<Option<ImageInfo>>> {
        let snapshot = self.facts()?;
        let mut sizes = Sizes::new(&snapshot, self.id);
        let (mut read, mut is_there) = (Vec::new(), Vec::new());
        for reference in references {
            let manifest = match self.find_manifest(&snapshot, reference) {
                Err(Error::ManifestNotFound { .. }) => None,
                other => Some(other?),
            };
            is_there.push(manifest.is_some());
            if let Some(manifest) = manifest {
                let size = sizes.of(&manifest)?;
                read.push((self.read_image(&snapshot, manifest)?, size));
            }
        }
        let mut infos = self.infos(&snapshot, read)?.into_iter();
        Ok(is_there.into_iter().map(|is_there| if is_there { infos.next() } else { None }).collect())
    }

    /// A [page](Page) of what decides about the lives of images, as [`images`](Self::images): for programs that look at
    /// all of them. It takes some tens of microseconds an image.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn image_facts(&self, after: Option<&Digest>, limit: usize) -> Result<Page<ImageFacts, Digest>> {
        let snapshot = self.facts()?;
        let mut read = Vec::new();
        let next = self.read_images(&snapshot, after, limit, |found| {
            read.push(found);
            Ok(0)
        })?;
        self.add_pulls(&mut read.iter_mut().collect::<Vec<_>>())?;
        Ok(Page::new(read.into_iter().map(Found::facts).collect::<Result<_>>()?, next))
    }

    /// What decides about the lives of some images, as of one moment; `None` for those that the repository does not
    /// have.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where the repository was deleted; [`Error::Corrupt`] where facts are damaged.
    pub fn image_facts_many(&self, digests: &[Digest]) -> Result<Vec<Option<ImageFacts>>> {
        let snapshot = self.facts()?;
        let read = digests.iter().map(|digest| {
            let manifest = find::manifest(&snapshot, self.id, digest)?;
            manifest.map(|manifest| self.read_image(&snapshot, manifest)).transpose()
        });
        let mut read = read.collect::<Result<Vec<Option<Found>>>>()?;
        self.add_pulls(&mut read.iter_mut().flatten().collect::<Vec<_>>())?;
        read.into_iter().map(|found| found.map(Found::facts).transpose()).collect()
    }

    /// Reads images one by one, and hands them on, until there are enough, or enough was read: `read` says how many
    /// facts it has read in all. Returns the last where more follow.
    fn read_images(
        &self,
        snapshot: &Snapshot,
        after: Option<&Digest>,
        limit: usize,
        mut read: impl FnMut(Found) -> Result<usize>,
    ) -> Result<Option<Digest>> {
        let after = after.map(|after| Key::of_digest(self.domain, Family::Manifest, self.id, after));
        let (mut count, mut facts, mut others, mut last) = (0, 0, 0, None);
        for fact in snapshot.all_of_after::<ManifestFact>(self.id, after)? {
            if count >= limit.max(1) || facts + others > MAX_FACTS {
                return Ok(last);
            }
            let (_, manifest) = fact?;
            last = Some(manifest.digest);
            let found = self.read_image(snapshot, manifest)?;
            count += 1;
            facts += 1 + 2 * found.tags.len() + found.manifest.held.len() / 16;
            others = read(found)?;
        }
        Ok(None)
    }

    fn read_image(&self, snapshot: &Snapshot, manifest: ManifestFact) -> Result<Found> {
        let prefix = Prefix::under(self.domain, Family::TagOf, self.id, &manifest.digest);
        let mut tags = Reader::scan(snapshot, prefix, None, MAX_TAGS + 1)?;
        let has_more_tags = tags.len() > MAX_TAGS;
        tags.truncate(MAX_TAGS);
        let tags = find::tags_among(snapshot, self.id, &manifest.digest, &tags, |key| snapshot.invalid(key))?;
        Ok(Found { manifest, tags, has_more_tags, pulled: None })
    }

    /// Adds when images were pulled last.
    fn add_pulls(&self, images: &mut [&mut Found]) -> Result<()> {
        let digests: Vec<Digest> = images.iter().map(|found| found.manifest.digest).collect();
        images.iter_mut().zip(self.last_pulls(&digests)?).for_each(|(image, pulled)| image.pulled = pulled);
        Ok(())
    }

    /// When manifests were pulled last, as of now: also where the repository is looked at as of another moment.
    pub(super) fn last_pulls(&self, digests: &[Digest]) -> Result<Vec<Option<u64>>> {
        // In this order: what does not wait any more is stored by now. It need not have been at that moment; and of a
        // manifest that is gone since, only that moment tells.
        let mut pulled = self.registry.pending.last_of(self, digests.iter().copied());
        let now = self.registry.tables.snapshot_of(self.domain);
        let key = |digest| Key::of_digest(self.domain, Family::Pull, self.id, digest);
        let keys: Vec<Key> = digests.iter().map(key).collect();
        for snapshot in self.moment().into_iter().chain([&now]) {
            for ((pulled, key), stored) in pulled.iter_mut().zip(&keys).zip(snapshot.get_many(&keys)?) {
                let stored =
                    stored.map(|value| snapshot.decoded(key, PullFact::decode(value.as_bytes()))).transpose()?;
                *pulled = (*pulled).max(stored.map(|stored| stored.pulled));
            }
        }
        Ok(pulled)
    }

    fn infos(&self, snapshot: &Snapshot, mut read: Vec<(Found, u64)>) -> Result<Vec<ImageInfo>> {
        self.add_pulls(&mut read.iter_mut().map(|(found, _)| found).collect::<Vec<_>>())?;
        let info = |(found, size): (Found, u64)| {
            let damaged = snapshot.blob(&found.manifest.digest)?.is_some_and(|blob| blob.damaged);
            found.info(size, damaged)
        };
        read.into_iter().map(info).collect()
    }
}
