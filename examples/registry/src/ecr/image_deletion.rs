//! Deleting images.
//!
//! | an image is named by | what is deleted | what is answered |
//! |---|---|---|
//! | its digest | it, with all its tags | it, once for each tag |
//! | a tag, or both | the tag; the image with the last of its tags | it, with the tag |
//!
//! What one request names may be named in any order: an index goes before its images.
//!
//! An image that goes with its last tag goes only if it still has no other one when it is deleted: a push that gives it
//! one at the same time is not undone. So that is decided on a version of the image, and decided anew if it is of
//! another one by then.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use strongroom::registry::{ConditionalAction, ImageAction, ImageInfo, Reference, Repository, Tag};
use strongroom::{Digest, Error};

use super::call::{Answer, Call};
use super::error::ApiError;
use super::image_ids::{ImageId, Unfound, each, failure, shown};
use super::{Built, Service, Target};

/// How often what is refused is tried again: for what an index still held, and for images that others changed.
const ROUNDS: usize = 8;

pub const OPERATIONS: &[Built] = &[
    Service::Private.writes("BatchDeleteImage", Target::Repository, delete),
    Service::Public.writes("BatchDeleteImage", Target::Repository, delete),
];

/// What a request names of an image.
#[derive(Default)]
struct Named {
    /// The ways it is named, as given.
    given: Vec<Value>,
    by_digest: bool,
    tags: BTreeSet<Tag>,
}

impl Named {
    /// What names a tag of it.
    fn only(&self, tag: &Tag) -> Self {
        let given = self.given.iter().filter(|given| given.get("imageTag").is_some_and(|of| of == tag.as_str()));
        Self { given: given.cloned().collect(), by_digest: false, tags: BTreeSet::from([tag.clone()]) }
    }
}

fn delete(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    let mut named: BTreeMap<Digest, Named> = BTreeMap::new();
    let failures = each(call, |given, id| {
        let digest = id.digest(&repository)?;
        repository.manifest_info(&Reference::Digest(digest))?;
        let named = named.entry(digest).or_default();
        named.given.push(given.clone());
        match id {
            ImageId::Digest(_) => named.by_digest = true,
            ImageId::Tag(tag, _) => drop(named.tags.insert(tag)),
        }
        Ok(())
    })?;
    let mut deletion = Deletion { call, repository: &repository, left: named, deleted: Vec::new(), failures };
    for _ in 0..ROUNDS {
        let (before, is_changed) = (deletion.left.len(), deletion.round()?);
        if deletion.left.is_empty() || (deletion.left.len() == before && !is_changed) {
            return Ok(deletion.end());
        }
    }
    // They are changed again and again: what is done is done, and the client asks once more for the rest.
    Err(ApiError::new("ThrottlingException", "The images are being changed by others: try again"))
}

/// A request that is carried out.
struct Deletion<'a> {
    call: &'a Call<'a>,
    repository: &'a Repository,
    /// What is not done.
    left: BTreeMap<Digest, Named>,
    deleted: Vec<Value>,
    failures: Vec<Value>,
}

impl Deletion<'_> {
    /// Does what can be done of what is left. Says whether something can't since others changed it meanwhile; the rest
    /// that is left is held by indexes.
    fn round(&mut self) -> Result<bool, ApiError> {
        let digests: Vec<Reference> = self.left.keys().copied().map(Reference::Digest).collect();
        let images = self.repository.image_many(&digests).map_err(|error| self.call.error(error))?;
        let (mut at_once, mut with_last_tag) = (Vec::new(), Vec::new());
        for (image, (digest, named)) in images.into_iter().zip(std::mem::take(&mut self.left)) {
            let Some(image) = image else {
                self.fail(&named.given, Unfound::not_found())?;
                continue;
            };
            let has_others = image.has_more_tags || image.tags.iter().any(|tag| !named.tags.contains(tag));
            if named.by_digest {
                at_once.push((Reference::Digest(digest), answered(&image), named));
            } else if image.tags.is_empty() {
                self.fail(&named.given, Unfound::not_found())?; // removed since
            } else if has_others {
                at_once.extend(
                    named
                        .tags
                        .iter()
                        .map(|tag| (Reference::Tag(tag.clone()), vec![shown(&digest, Some(tag))], named.only(tag))),
                );
            } else {
                with_last_tag.push((image, named));
            }
        }
        self.delete_at_once(at_once)?;
        self.delete_with_last_tag(with_last_tag)
    }

    /// Removes tags and deletes images, together.
    fn delete_at_once(&mut self, parts: Vec<(Reference, Vec<Value>, Named)>) -> Result<(), ApiError> {
        let references: Vec<Reference> = parts.iter().map(|(reference, ..)| reference.clone()).collect();
        let results = self.repository.delete_batch(&references).map_err(|error| self.call.error(error))?;
        for ((reference, deleted, named), result) in parts.into_iter().zip(results) {
            match (result, reference) {
                (Ok(_), _) => self.deleted.extend(deleted),
                (Err(Error::ManifestInUse { .. }), Reference::Digest(digest)) => {
                    self.left.insert(digest, named);
                }
                (Err(error), _) => self.fail(&named.given, error.into())?,
            }
        }
        Ok(())
    }

    /// Deletes images that have no other tags than those named, if they have none either when they are deleted. Says
    /// whether any has changed.
    fn delete_with_last_tag(&mut self, mut images: Vec<(ImageInfo, Named)>) -> Result<bool, ApiError> {
        images.sort_by_key(|(image, _)| image.manifests.is_empty()); // indexes first
        let action = |(image, _): &(ImageInfo, Named)| ConditionalAction {
            digest: image.digest,
            expect: image.version,
            action: ImageAction::Expire,
        };
        let actions: Vec<ConditionalAction> = images.iter().map(action).collect();
        let results = self.repository.apply_if_unchanged(&actions).map_err(|error| self.call.error(error))?;
        let mut is_changed = false;
        for ((image, named), result) in images.into_iter().zip(results) {
            match result {
                Ok(_) => self.deleted.extend(answered(&image)),
                Err(error @ (Error::ManifestInUse { .. } | Error::ImageChanged { .. })) => {
                    is_changed |= matches!(error, Error::ImageChanged { .. });
                    self.left.insert(image.digest, named);
                }
                Err(error) => self.fail(&named.given, error.into())?,
            }
        }
        Ok(is_changed)
    }

    fn fail(&mut self, given: &[Value], unfound: Unfound) -> Result<(), ApiError> {
        match unfound {
            Unfound::Failure(code, reason) => {
                self.failures.extend(given.iter().map(|given| failure(given, code, &reason)));
                Ok(())
            }
            Unfound::Error(error) => Err(self.call.error(error)),
        }
    }

    /// What is left is held by indexes.
    fn end(mut self) -> Value {
        let held = self.left.values().flat_map(|named| &named.given);
        let reason = "Requested image referenced by manifest list";
        self.failures.extend(held.map(|given| failure(given, "ImageReferencedByManifestList", reason)));
        json!({ "imageIds": self.deleted, "failures": self.failures })
    }
}

/// What is answered for an image that was deleted: it, once for each tag that it had, up to 1,000.
fn answered(image: &ImageInfo) -> Vec<Value> {
    match image.tags.as_slice() {
        [] => vec![shown(&image.digest, None)],
        tags => tags.iter().map(|tag| shown(&image.digest, Some(tag))).collect(),
    }
}
