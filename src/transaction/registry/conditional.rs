//! Changes of images that are made only where the images are still as they were when that was decided: what a lifecycle
//! policy asks for.
//!
//! Deciding takes long: all images of a repository are looked at. Meanwhile they are pulled, tagged and restored, each
//! of which may be a reason to keep one. So a decision goes with the [version](ImageVersion) of the image that it was
//! made about, and is carried out at its turn in the order of all commits only if the image is of that version then.
//!
//! # Pulls
//! A pull is not a commit: it is noted in memory, and becomes a fact within seconds. So notes are looked at as well, at
//! the same turn: [`Pulls`].
//! - A pull that was noted before the turn wins: the image stays. A note is given up only after the commit that makes
//!   it a fact, and that is an earlier commit then, whose facts are seen. So at every turn it is the one or the other.
//! - A pull that is noted after the turn loses: it has read the manifest as of an earlier commit, so that it comes
//!   before this one, as if the image had been deleted by hand right after. It has the manifest; the layers that only
//!   this one held stay for the grace period, which begins with the deletion; a later pull is told that there is none.

use std::fmt::Debug;
use std::sync::Arc;

use super::deletion::{MAX_TAGS_DELETED, TAGS, delete_manifest};
use super::{class, manifest_not_found, repository};
use crate::digest::Digest;
use crate::error::{Error, ImageChange, Result};
use crate::facts::find;
use crate::facts::{Family, Key, Lookup, ManifestFact, Named, Prefix, PullFact, Storage, StorageClass, TagFact};
use crate::id::{DomainId, RepositoryId};
use crate::transaction::{Apply, Changes, Op};

/// What an image was like at some moment: its tags and when they were set, when it was pushed, pulled, archived and
/// restored last. See [`Repository::apply_if_unchanged`](crate::registry::Repository::apply_if_unchanged).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageVersion {
    /// The beginning of a hash of the tags and their times.
    tags: [u8; 16],
    pushed: u64,
    pulled: Option<u64>,
    storage: Storage,
}

impl ImageVersion {
    /// The version of an image with these tags, in the order of their keys.
    pub(crate) fn new(manifest: &ManifestFact, tags: &[TagFact], pulled: Option<u64>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for tag in tags {
            hasher.update(&tag.updated.to_le_bytes()).update(tag.tag.as_bytes()).update(&[0]);
        }
        let tags = crate::wire::first(hasher.finalize().as_bytes());
        Self { tags, pushed: manifest.pushed, pulled, storage: manifest.storage }
    }

    /// What has changed since, if anything, of an image that is of another version now and of which a pull is noted.
    fn changed(&self, now: &Self, noted: Option<u64>) -> Option<ImageChange> {
        // A noted pull may be earlier than one that is known, by a clock that was set back.
        let is_pulled = now.pulled.max(noted) != self.pulled || noted.is_some_and(|noted| Some(noted) != self.pulled);
        let changes = [
            (now.pushed != self.pushed, ImageChange::Pushed),
            (now.storage != self.storage, ImageChange::StorageClass),
            (now.tags != self.tags, ImageChange::Tags),
            (is_pulled, ImageChange::Pulled),
        ];
        changes.into_iter().find_map(|(is_so, change)| is_so.then_some(change))
    }
}

/// What becomes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageAction {
    /// It is deleted with its tags.
    Expire,
    /// It is [archived](crate::registry::StorageClass::Archive).
    Archive,
}

/// What is to become of an image that is still as it was when that was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConditionalAction {
    /// The image.
    pub digest: Digest,
    /// What it was like.
    pub expect: ImageVersion,
    /// What is to become of it.
    pub action: ImageAction,
}

/// A conditional action, and what it follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Following {
    pub(crate) action: ConditionalAction,
    /// The subject that the same must have become of at the turn of this one, in the same commit or before: it is
    /// deleted where this one is to be deleted, and archived where this one is to be archived.
    pub(crate) subject: Option<Digest>,
}

impl From<ConditionalAction> for Following {
    fn from(action: ConditionalAction) -> Self {
        Self { action, subject: None }
    }
}

/// When manifests were pulled last, as far as no fact says it yet.
pub(crate) trait Pulls: Debug + Send + Sync {
    fn noted(&self, domain: DomainId, repository: RepositoryId, digest: &Digest) -> Option<u64>;
}

/// Does what is to become of images, each if it is unchanged: the others are [refused](Changes::refuse).
#[derive(Debug)]
pub(crate) struct ActIfUnchanged {
    pub(crate) repository: Named,
    pub(crate) actions: Vec<Following>,
    pub(crate) pulls: Arc<dyn Pulls>,
}

impl ActIfUnchanged {
    /// Fails where an image is not as expected.
    fn check(&self, facts: &Changes<'_>, wanted: &ConditionalAction) -> Result<()> {
        let (id, domain, digest) = (self.repository.id, facts.domain(), wanted.digest);
        let manifest = find::manifest(facts, id, &digest)?.ok_or_else(|| manifest_not_found(digest))?;
        if manifest.count > 0 {
            return Err(Error::ManifestInUse { digest, count: manifest.count });
        }
        let tags = facts.scan(Prefix::under(domain, Family::TagOf, id, &digest), MAX_TAGS_DELETED + 1)?;
        Error::check_limit(TAGS, tags.len(), MAX_TAGS_DELETED)?;
        let tags = find::tags_among(facts, id, &digest, &tags, |key| facts.invalid(key))?;
        let pulled = facts.decode(&Key::of_digest(domain, Family::Pull, id, &digest), PullFact::decode)?;
        let now = ImageVersion::new(&manifest, &tags, pulled.map(|pull| pull.pulled));
        let change = wanted.expect.changed(&now, self.pulls.noted(domain, id, &digest));
        change.map_or(Ok(()), |change| Err(Error::ImageChanged { digest, change }))
    }

    /// Fails where the subject that an image follows is left as it is.
    fn check_subject(&self, facts: &Changes<'_>, wanted: &Following) -> Result<()> {
        let Some(subject) = &wanted.subject else { return Ok(()) };
        let found = find::manifest(facts, self.repository.id, subject)?;
        let is_done = match wanted.action.action {
            ImageAction::Expire => found.is_none(),
            ImageAction::Archive => found.is_some_and(|found| found.storage.class == StorageClass::Archive),
        };
        let (digest, change) = (wanted.action.digest, ImageChange::Subject);
        if is_done { Ok(()) } else { Err(Error::ImageChanged { digest, change }) }
    }

    /// Refuses before anything has changed.
    fn act(&self, facts: &mut Changes<'_>, wanted: &Following) -> Result<Vec<Op>> {
        self.check(facts, &wanted.action)?;
        self.check_subject(facts, wanted)?;
        let wanted = &wanted.action;
        match wanted.action {
            ImageAction::Expire => delete_manifest(facts, &self.repository, &wanted.digest).map(|(ops, _)| ops),
            ImageAction::Archive => class::archive(facts, &self.repository, &wanted.digest),
        }
    }
}

impl Apply for ActIfUnchanged {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        repository(facts, &self.repository)?;
        let mut ops = Vec::new();
        for (part, wanted) in self.actions.iter().enumerate() {
            match self.act(facts, wanted) {
                Ok(done) => ops.extend(done),
                Err(
                    error @ (Error::ManifestNotFound { .. }
                    | Error::ManifestInUse { .. }
                    | Error::ImageChanged { .. }
                    | Error::TooLarge { what: TAGS | class::CHANGES, .. }),
                ) => facts.refuse(part, error),
                Err(error) => return Err(error),
            }
        }
        Ok(ops)
    }

    fn reads_much(&self) -> bool {
        true
    }

    fn reads(&self, domain: DomainId) -> Vec<Key> {
        let id = self.repository.id;
        let keys = |wanted: &Following| {
            [Family::Manifest, Family::Pull].map(|family| Key::of_digest(domain, family, id, &wanted.action.digest))
        };
        self.actions.iter().flat_map(keys).collect()
    }

    fn frees_space(&self) -> bool {
        self.actions.iter().any(|wanted| wanted.action.action == ImageAction::Expire)
    }
}
