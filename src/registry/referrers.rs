//! What refers to a manifest: signatures, attestations, and whatever else names it as its subject.
//!
//! # Invariant kept here
//! What a page costs does not depend on what was pushed: it ends where it is full, and also where enough was looked at
//! for it. So neither long annotations, nor long documents, nor many referrers of another type than is asked for keep
//! anybody waiting.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::find;
use crate::facts::{Family, Key, ManifestFact, Prefix, ReferrerFact, decoded};
use crate::oci::document::annotations;
use crate::registry::Repository;
use crate::tables::Snapshot;

/// A manifest that refers to a subject: what its descriptor says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Referrer {
    /// The manifest's digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its artifact type: its `artifactType`, or the media type of its config.
    pub artifact_type: Option<String>,
    /// Its length in bytes.
    pub len: u64,
    /// Its annotations, at most 1,000 of them.
    pub annotations: BTreeMap<String, String>,
    /// Whether its document can't be read: what it says besides is then not known. One that is damaged does not hide
    /// the others.
    pub is_damaged: bool,
}

/// A page of referrers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Referrers {
    /// The manifests, in the order of the store's keys.
    pub referrers: Vec<Referrer>,
    /// Where to go on: up to here all was looked at, whether it is in the page or not. `None` where that was all.
    pub next: Option<Digest>,
}

/// A page ends behind the facts with which more bytes of them were looked at.
const MAX_FACTS_LEN: usize = 1 << 20;

/// A page ends behind the document with which more bytes of documents were read.
const MAX_DOCUMENTS_LEN: usize = 8 << 20;

/// A page ends behind the manifest with which it has more bytes of annotations.
const MAX_ANNOTATIONS_LEN: usize = 256 << 10;

/// What was done for a page, in bytes.
#[derive(Default)]
struct Work {
    facts: usize,
    documents: usize,
    annotations: usize,
}

impl Work {
    fn is_enough(&self) -> bool {
        self.facts > MAX_FACTS_LEN || self.documents > MAX_DOCUMENTS_LEN || self.annotations > MAX_ANNOTATIONS_LEN
    }
}

impl Repository<'_> {
    /// The manifests that refer to a subject, whether that is there or not: those behind `after`, of an artifact type
    /// if one is given, in pages of at most `limit` of them (of one for 0). A page may have fewer, also none, though
    /// more follow: [`Referrers::next`] tells. It costs at most 1 MiB of facts, 8 MiB of documents and 256 KiB of
    /// annotations, and one manifest more, which may be of 4 MiB.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Referrers> {
        let snapshot = self.snapshot()?;
        let mut page = Referrers::default();
        let (mut work, mut last) = (Work::default(), after.copied());
        let after = after.map(|after| Key::referrer(self.domain, self.id, subject, after));
        for fact in snapshot.scan_all_after(Prefix::under(self.domain, Family::Referrer, self.id, subject), after)? {
            if page.referrers.len() >= limit.max(1) || work.is_enough() {
                page.next = last;
                break;
            }
            let value = fact?.1;
            work.facts += value.as_bytes().len();
            let fact = decoded(ReferrerFact::decode(value.as_bytes()))?;
            last = Some(fact.digest);
            if fact.subject == *subject {
                // another one may begin with the same bytes
                page.referrers.extend(self.referrer(&snapshot, &fact.digest, artifact_type, &mut work)?);
            }
        }
        Ok(page)
    }

    /// A referrer, if it is of the type that is wanted.
    fn referrer(
        &self,
        snapshot: &Snapshot,
        digest: &Digest,
        artifact_type: Option<&str>,
        work: &mut Work,
    ) -> Result<Option<Referrer>> {
        let manifest = decoded(find::manifest(snapshot, self.id, digest)?)?;
        work.facts += ManifestFact::MIN_LEN + ManifestFact::HELD_LEN * manifest.held.len();
        if artifact_type.is_some_and(|wanted| manifest.artifact_type.as_deref() != Some(wanted)) {
            return Ok(None);
        }
        let (content, is_damaged) = match self.registry.blobs.get(self.domain, digest).and_then(|blob| blob.bytes()) {
            Err(Error::BlobNotFound { .. }) => return Ok(None), // deleted since
            Err(Error::Corrupt { .. }) => (Bytes::new(), true),
            content => (content?, false),
        };
        let annotations = annotations(&content);
        work.documents += content.len();
        work.annotations += annotations.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        Ok(Some(Referrer {
            digest: *digest,
            media_type: manifest.media_type,
            artifact_type: manifest.artifact_type,
            len: manifest.len,
            annotations,
            is_damaged,
        }))
    }
}
