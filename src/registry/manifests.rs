//! Manifests: pushing, pulling, deleting, listing.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;

use crate::blobs::{Blob, Expect, frame_for};
use crate::digest::{Algorithm, Digest};
#[cfg(doc)]
use crate::error::ManifestProblem;
use crate::error::{Error, Result};
use crate::facts::find;
use crate::facts::{Family, Key, Lookup, ManifestFact, Prefix, Reader, StorageClass, Value};
use crate::id::Lsn;
use crate::oci::document::{Document, check_media_type};
use crate::oci::json::MAX_REFERENCES;
use crate::oci::{ExpectTag, Reference, Tag};
use crate::page::Page;
use crate::registry::Repository;
use crate::tables::Snapshot;
use crate::transaction::registry::MAX_TAGS_DELETED;
use crate::transaction::{Request, registry as changes};

/// The longest manifest in bytes, as in Amazon ECR: it is stored in the log and held in memory.
pub(crate) const MAX_MANIFEST: usize = 4 << 20;

/// The most tags that one push sets, and the most references that one call deletes.
const MAX_AT_ONCE: usize = 1000;

/// How a manifest is pushed.
///
/// ```
/// use strongroom::registry::{ExpectTag, PutManifest};
///
/// // Moves `latest` only if nobody else did since it was looked up.
/// # let seen: strongroom::Digest = strongroom::Digest::of(strongroom::Algorithm::Sha256, b"");
/// let put = PutManifest::new("application/vnd.oci.image.manifest.v1+json")
///     .tag("latest".parse()?)
///     .expect_tag(ExpectTag::Is(seen));
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct PutManifest {
    media_type: String,
    expect: Expect,
    tags: Vec<Tag>,
    expect_tag: ExpectTag,
    awaits_blobs: bool,
    awaits_manifests: bool,
    references: Option<(Vec<Digest>, Vec<Digest>)>,
}

impl PutManifest {
    /// Pushes a manifest of this media type. OCI image manifests and indexes, Docker manifests (version 2, schema 2)
    /// and manifest lists are parsed; for documents of other types [`references`](Self::references) says what they
    /// reference.
    pub fn new(media_type: impl Into<String>) -> Self {
        Self {
            media_type: media_type.into(),
            expect: Expect::Algorithm(Algorithm::Sha256),
            tags: Vec::new(),
            expect_tag: ExpectTag::Any,
            awaits_blobs: false,
            awaits_manifests: false,
            references: None,
        }
    }

    /// The digest that the document must have, or the algorithm of its digest; SHA-256 by default.
    pub fn expect(mut self, expect: impl Into<Expect>) -> Self {
        self.expect = expect.into();
        self
    }

    /// Sets a tag to the manifest in the same commit. Call it again for each further tag, up to 1,000.
    pub fn tag(mut self, tag: Tag) -> Self {
        if !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
        self
    }

    /// What each of the tags has to name before the push; otherwise the push fails.
    pub fn expect_tag(mut self, expect: ExpectTag) -> Self {
        self.expect_tag = expect;
        self
    }

    /// Allows an index to reference manifests that the repository does not have: a sparse index, or one in a
    /// pull-through cache, which stores the manifest of a platform when it is asked for. The index holds the manifests
    /// that are there, and each of the others from when it is pushed. As for
    /// [blobs](Self::allow_missing_blobs), sizes are compared with what is there, and without this an index of which
    /// manifests are missing is refused, also when it is there already.
    ///
    /// Indexes of indexes can be pushed from the outermost in, or from the innermost out. One that others hold, or wait
    /// for, is refused where it comes to hold a manifest that holds manifests itself ([`ManifestProblem::References`]):
    /// two might come to hold each other.
    pub fn allow_missing_manifests(mut self) -> Self {
        self.awaits_manifests = true;
        self
    }

    /// Allows the manifest to reference blobs that the repository does not have: a pull-through cache stores the
    /// manifest first, and each blob when it is asked for. The manifest holds the blobs that are there, and each of the
    /// others from when it is pushed or mounted: no collection comes between. Sizes that the document states are
    /// compared with the blobs that are there only. Pushed again without this, a manifest of which blobs are missing is
    /// refused.
    ///
    /// ```
    /// # use strongroom::registry::{PutManifest, RepositorySettings};
    /// # use strongroom::{Algorithm, Digest, Error, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let cache = store.create_repository(&"cache/app".parse()?, RepositorySettings::new())?;
    /// let layer = Digest::of(Algorithm::Sha256, b"a layer");
    /// let put = PutManifest::new("text/plain").references([layer], []).allow_missing_blobs();
    /// cache.put_manifest("needs a layer", put)?;
    /// assert!(matches!(cache.get(&layer), Err(Error::BlobNotFound { .. }))); // fetch it, and store it
    /// cache.put("a layer", layer)?;
    /// assert!(matches!(cache.remove_blob(&layer), Err(Error::BlobInUse { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allow_missing_blobs(mut self) -> Self {
        self.awaits_blobs = true;
        self
    }

    /// The blobs and manifests of the repository that the document references, at most 10,000 in all. The document may
    /// then be of any media type and is not parsed. Pushed again with more references, it holds those too, unless
    /// another manifest holds it; pushed again with fewer, it still holds all.
    pub fn references(mut self, blobs: impl Into<Vec<Digest>>, manifests: impl Into<Vec<Digest>>) -> Self {
        self.references = Some((blobs.into(), manifests.into()));
        self
    }

    fn document(&self, content: &[u8]) -> Result<Document> {
        check_media_type(&self.media_type)?;
        match &self.references {
            None => Document::parse(&self.media_type, content),
            Some((blobs, manifests)) => {
                Error::check_limit("the number of references", blobs.len() + manifests.len(), MAX_REFERENCES)?;
                Document::of_references(blobs, manifests)
            }
        }
    }
}

/// So many references and tags of manifests are released in one step, if not those of one manifest are more.
const STEP_COST: usize = 10_000;

/// How often a refused part is tried again: an index and what it holds take two rounds, if not others push to them.
const ROUNDS: usize = 4;

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// The manifest's digest.
    pub digest: Digest,
    /// Its subject.
    pub subject: Option<Digest>,
    /// Whether the repository had the manifest already.
    pub existed: bool,
    /// The position of the commit as of which it is there, with its tags.
    pub lsn: Lsn,
}

/// A manifest with its content.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// The manifest's digest.
    pub digest: Digest,
    /// The media type that it was pushed as.
    pub media_type: String,
    /// The document, byte for byte as it was pushed.
    pub content: Bytes,
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manifest({} {}, {} bytes)", self.media_type, self.digest, self.content.len())
    }
}

/// A manifest, opened for reading.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenManifest {
    /// The media type that it was pushed as.
    pub media_type: String,
    /// The document: its digest is the manifest's.
    pub blob: Blob,
}

/// A manifest, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestInfo {
    /// The manifest's digest.
    pub digest: Digest,
    /// The media type that it was pushed as.
    pub media_type: String,
    /// What kind of artifact it is: its `artifactType`, or the media type of its config.
    pub artifact_type: Option<String>,
    /// Its subject.
    pub subject: Option<Digest>,
    /// The document's length in bytes.
    pub len: u64,
    /// When it was pushed, by the wall clock, in milliseconds since 1970.
    pub pushed_ms: u64,
    /// When it was last [pulled](Repository::pull_manifest), by the same clock; after a crash perhaps an earlier time,
    /// by up to ten seconds.
    pub pulled_ms: Option<u64>,
    /// How many manifests of the repository hold it.
    pub references: u32,
    /// Whether it can be pulled, or has to be [restored](Repository::set_storage_class) before.
    pub storage_class: StorageClass,
    /// When it was archived last, if ever, by the wall clock, in milliseconds since 1970.
    pub archived_ms: Option<u64>,
    /// When it was restored last, if ever, likewise.
    pub activated_ms: Option<u64>,
    /// Whether the document is known to be damaged: a push of the same document repairs it.
    pub damaged: bool,
}

impl Repository {
    /// Pushes a manifest: in one commit it is stored, holds what it references, is listed under its subject, and its
    /// tags are set. Pushing a manifest that the repository has already is no error.
    ///
    /// # Errors
    /// In each case nothing has changed. [`Error::ReferencesMissing`] where the repository does not have what the
    /// manifest references; [`Error::InvalidManifest`]; [`Error::DigestMismatch`]; [`Error::TagImmutable`];
    /// [`Error::TagMoved`]; [`Error::TooLarge`] for more than 4 MiB; [`Error::RepositoryNotFound`]; [`Error::Full`].
    pub fn put_manifest(&self, content: impl AsRef<[u8]>, put: PutManifest) -> Result<Pushed> {
        let content = content.as_ref();
        Error::check_limit("a manifest", content.len(), MAX_MANIFEST)?;
        Error::check_limit("the number of tags", put.tags.len(), MAX_AT_ONCE)?;
        let digest = put.expect.check(Digest::of(put.expect.algorithm(), content))?;
        let document = put.document(content)?;
        let subject = document.subject;
        let change = changes::PutManifest {
            repository: self.named(),
            digest,
            len: content.len() as u64,
            media_type: put.media_type,
            document,
            tags: put.tags,
            expect_tag: put.expect_tag,
            awaits_blobs: put.awaits_blobs,
            awaits_manifests: put.awaits_manifests,
        };
        let frame = frame_for(digest, content, self.registry.blobs.compression());
        let request = Request::PutFrame { frame, then: Some(Box::new(change)) };
        let outcome = self.registry.log.commit_as(self.durability, self.domain, request)?;
        Ok(Pushed { digest, subject, existed: outcome.was_linked, lsn: outcome.lsn })
    }

    /// A manifest by its tag or digest. Does not record a pull: see [`pull_manifest`](Self::pull_manifest).
    ///
    /// # Errors
    /// [`Error::ManifestNotFound`] where the repository does not have it; [`Error::Corrupt`] where it is damaged.
    pub fn get_manifest(&self, reference: &Reference) -> Result<Manifest> {
        let OpenManifest { media_type, blob } = self.open_manifest(reference)?;
        Ok(Manifest { digest: *blob.digest(), media_type, content: blob.bytes()? })
    }

    /// Opens a manifest by its tag or digest, to be read as blobs are. Does not record a pull.
    ///
    /// # Errors
    /// As [`get_manifest`](Self::get_manifest).
    pub fn open_manifest(&self, reference: &Reference) -> Result<OpenManifest> {
        let (media_type, _, blob) = self.open(reference)?;
        Ok(OpenManifest { media_type, blob })
    }

    fn open(&self, reference: &Reference) -> Result<(String, StorageClass, Blob)> {
        let mut before = None;
        loop {
            let snapshot = self.facts()?;
            let fact = self.find_manifest(&snapshot, reference)?;
            match self.registry.blobs.get(self.domain, &fact.digest) {
                Err(Error::BlobNotFound { .. }) if self.moment().is_some() => {
                    return Err(Error::ManifestNotFound { reference: reference.to_string() });
                }
                // It was deleted between the look-up and the reading, and the tag may name another one by now. If
                // nothing has happened since, the facts contradict each other.
                Err(Error::BlobNotFound { .. }) if before != Some(snapshot.lsn) => before = Some(snapshot.lsn),
                Err(Error::BlobNotFound { .. }) => return Err(self.without_blob(&snapshot, &fact.digest)),
                blob => return Ok((fact.media_type, fact.storage.class, blob?)),
            }
        }
    }

    /// A manifest by its tag or digest, with the time recorded as its last pull: in memory at first, durably within ten
    /// seconds, so that a pull costs no sync.
    ///
    /// # Errors
    /// As [`get_manifest`](Self::get_manifest), and [`Error::ManifestArchived`].
    pub fn pull_manifest(&self, reference: &Reference) -> Result<Manifest> {
        let (media_type, class, blob) = self.open(reference)?;
        let digest = *blob.digest();
        if class == StorageClass::Archive {
            return Err(Error::ManifestArchived { digest });
        }
        let manifest = Manifest { digest, media_type, content: blob.bytes()? };
        self.registry.note_pull(self, &digest);
        Ok(manifest)
    }

    /// Archives a manifest, or restores it. One that is archived is kept with all that it references, can be read, and
    /// is not pulled: [`pull_manifest`](Self::pull_manifest) fails with [`Error::ManifestArchived`]. Pushing it again
    /// restores it too. Of a manifest that is of the class already nothing changes.
    ///
    /// Archiving an index archives the manifests that it alone holds, and theirs; restoring one restores all that it
    /// holds, as does a push of an index that holds archived ones. So what can be pulled can be pulled as a whole.
    ///
    /// ```
    /// use strongroom::registry::{PutManifest, RepositorySettings, StorageClass};
    /// use strongroom::{Error, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let app = store.create_repository(&"team/app".parse()?, RepositorySettings::new())?;
    /// let put = PutManifest::new("text/plain").references([], []);
    /// let digest = app.put_manifest("a document", put)?.digest;
    /// app.set_storage_class(&digest, StorageClass::Archive)?;
    /// assert!(matches!(app.pull_manifest(&digest.into()), Err(Error::ManifestArchived { .. })));
    /// app.set_storage_class(&digest, StorageClass::Standard)?;
    /// assert_eq!(app.pull_manifest(&digest.into())?.content, "a document");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::ManifestNotFound`]; [`Error::ManifestInUse`] where one is to be archived that an index holds;
    /// [`Error::TooLarge`] where more than 10,000 manifests would go with it.
    pub fn set_storage_class(&self, digest: &Digest, class: StorageClass) -> Result<Lsn> {
        let set = changes::SetStorageClass { repository: self.named(), digest: *digest, class };
        Ok(self.commit(set)?.lsn)
    }

    /// What is known of a manifest, by its tag or digest.
    ///
    /// # Errors
    /// [`Error::ManifestNotFound`] where the repository does not have it.
    pub fn manifest_info(&self, reference: &Reference) -> Result<ManifestInfo> {
        let snapshot = self.facts()?;
        let fact = self.find_manifest(&snapshot, reference)?;
        self.info_of(fact)
    }

    /// Deletes a manifest and all tags that name it. The blobs and manifests that it references stay, no longer held by
    /// it; its referrers stay too. Of more than 1,000 tags some are removed in commits before, so that other commits
    /// need not wait.
    ///
    /// # Errors
    /// [`Error::ManifestNotFound`]; [`Error::ManifestInUse`] where an index of the repository holds it.
    pub fn delete_manifest(&self, digest: &Digest) -> Result<Lsn> {
        self.delete_one(Reference::Digest(*digest))
    }

    /// Removes a tag or deletes a manifest.
    pub(super) fn delete_one(&self, reference: Reference) -> Result<Lsn> {
        let result = self.delete_batch(&[reference])?.pop();
        result.unwrap_or_else(|| Err(self.broken("each reference of a batch has a result")))
    }

    /// Stops all writes, since something does not hold that always does.
    fn broken(&self, invariant: &'static str) -> Error {
        self.registry.files.fail_stop(Error::Internal { invariant })
    }

    /// Removes tags and deletes manifests, and says for each whether that was done, as of the batch's last commit. A
    /// tag is removed, and the manifest stays; a digest is deleted with all its tags. An index, what it holds, and
    /// their tags may be given in any order. At most 1,000 at once.
    ///
    /// All of it is one commit, unless it is so much that others would wait for it: more than some 10,000 references
    /// and tags of manifests are removed in several.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more; [`Error::RepositoryNotFound`]; [`Error::Corrupt`] where facts are damaged. For
    /// each: as [`delete_manifest`](Self::delete_manifest).
    pub fn delete_batch(&self, references: &[Reference]) -> Result<Vec<Result<Lsn>>> {
        Error::check_limit("the number of references", references.len(), MAX_AT_ONCE)?;
        let (mut refused, mut last): (HashMap<usize, Error>, Lsn) = Default::default();
        let mut left: Vec<(usize, &Reference)> = references.iter().enumerate().collect();
        for _ in 0..ROUNDS {
            let steps = self.steps(&left)?;
            left.iter().for_each(|(part, _)| drop(refused.remove(part)));
            left.clear();
            for step in &steps {
                let own = step.iter().map(|(_, reference)| Reference::clone(reference)).collect();
                let delete = changes::DeleteReferences { repository: self.named(), references: own };
                let outcome = self.commit(delete)?;
                last = outcome.lsn;
                for (number, error) in outcome.refused {
                    let asked = step.get(number);
                    let (part, reference) = asked.ok_or_else(|| self.broken("what is refused was asked for"))?;
                    // It may be held by what goes in a later step, or have tags that only now may go.
                    let waits = match &error {
                        Error::ManifestInUse { .. } => steps.len() > 1,
                        Error::TooLarge { what: changes::TAGS, .. } => true,
                        _ => false,
                    };
                    left.extend(waits.then_some((*part, *reference)));
                    refused.insert(*part, error);
                }
            }
            if left.is_empty() {
                break;
            }
        }
        let results: Vec<Result<Lsn>> =
            (0..references.len()).map(|part| refused.remove(&part).map_or(Ok(last), Err)).collect();
        for (reference, result) in references.iter().zip(&results) {
            if let (Reference::Digest(digest), Ok(_)) = (reference, result) {
                self.registry.pending.forget(self, digest);
            }
        }
        Ok(results)
    }

    /// Divides what is to be deleted into steps of bounded cost.
    fn steps<'r>(&self, parts: &[(usize, &'r Reference)]) -> Result<Vec<Vec<(usize, &'r Reference)>>> {
        let snapshot = self.facts()?;
        let (mut steps, mut cost) = (vec![Vec::new()], 0);
        for (part, reference) in parts {
            let own = match reference {
                Reference::Tag(_) => 1,
                Reference::Digest(digest) => {
                    let manifest = find::manifest(&snapshot, self.id, digest)?;
                    1 + manifest.map_or(0, |manifest| manifest.held.len()) + self.untag_most(digest)?
                }
            };
            cost += own;
            if cost > STEP_COST && !steps.iter().all(Vec::is_empty) {
                steps.push(Vec::new());
                cost = own;
            }
            steps.last_mut().into_iter().for_each(|step| step.push((*part, *reference)));
        }
        Ok(steps)
    }

    /// Removes tags of a manifest that is about to be deleted, until they are few enough to go with it, and says how
    /// many those are. One that is held stays as it is: it may not be deleted.
    ///
    /// Each step begins behind the one before: a scan from the beginning passes all that is removed.
    fn untag_most(&self, digest: &Digest) -> Result<usize> {
        let mut after = None;
        loop {
            let snapshot = self.facts()?;
            let Some(manifest) = find::manifest(&snapshot, self.id, digest)? else { return Ok(0) };
            let tags = Prefix::under(self.domain, Family::TagOf, self.id, digest);
            let tags = Reader::scan(&snapshot, tags, after, MAX_TAGS_DELETED + 1)?;
            if tags.len() <= MAX_TAGS_DELETED && after.is_some() && manifest.count == 0 {
                after = None; // some may have been set before it meanwhile
                continue;
            }
            if tags.len() <= MAX_TAGS_DELETED || manifest.count > 0 {
                return Ok(tags.len());
            }
            after = tags.last().map(|(key, _)| *key);
            let text = |(key, tag): &(Key, Value)| {
                snapshot.decoded(key, str::from_utf8(tag.as_bytes()).ok().map(str::to_owned))
            };
            let tags = tags.iter().map(text).collect::<Result<_>>()?;
            self.commit(changes::Untag { repository: self.named(), digest: *digest, tags })?;
        }
    }

    /// A [page](Page) of the repository's manifests, those behind `after`, in the order of the store's keys: for
    /// SHA-256 that of the digests.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn manifests(&self, after: Option<&Digest>, limit: usize) -> Result<Page<ManifestInfo, Digest>> {
        let snapshot = self.facts()?;
        let after = after.map(|after| Key::of_digest(self.domain, Family::Manifest, self.id, after));
        let manifests = snapshot.all_of_after(self.id, after)?;
        Page::collect(manifests.map(|fact| self.info_of(fact?.1)), limit, |manifest| manifest.digest)
    }

    pub(super) fn find_manifest(&self, snapshot: &Snapshot, reference: &Reference) -> Result<ManifestFact> {
        let digest = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => find::tag(snapshot, self.id, tag.as_str())?.map(|tag| tag.digest),
        };
        let manifest = match digest {
            Some(digest) => find::manifest(snapshot, self.id, &digest)?,
            None => None,
        };
        manifest.ok_or_else(|| Error::ManifestNotFound { reference: reference.to_string() })
    }

    /// The error that there is a manifest, and not the blob that it is.
    fn without_blob(&self, snapshot: &Snapshot, digest: &Digest) -> Error {
        snapshot.invalid(&Key::of_digest(self.domain, Family::Manifest, self.id, digest))
    }

    fn info_of(&self, fact: ManifestFact) -> Result<ManifestInfo> {
        let pulled_ms = self.last_pulls(&[fact.digest])?.into_iter().next().flatten();
        let now = || self.registry.tables.snapshot_of(self.domain);
        let snapshot = self.moment().cloned().unwrap_or_else(now);
        let damaged = snapshot.blob(&fact.digest)?.is_some_and(|blob| blob.damaged);
        Ok(ManifestInfo {
            digest: fact.digest,
            media_type: fact.media_type,
            artifact_type: fact.artifact_type,
            subject: fact.subject,
            len: fact.len,
            pushed_ms: fact.pushed,
            pulled_ms,
            references: fact.count,
            storage_class: fact.storage.class,
            archived_ms: fact.storage.archived(),
            activated_ms: fact.storage.activated(),
            damaged,
        })
    }
}
