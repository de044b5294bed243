//! Referrers of a manifest: signatures, attestations, and other manifests that name it as their subject.
//!
//! # Invariant kept here
//! The cost of a page is bounded, whatever was pushed: a page ends where it is full, and also where enough was read for
//! it. So neither long annotations, nor long documents, nor many referrers of other types than the one asked for delay
//! others.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::find;
use crate::facts::{Family, Key, ManifestFact, Prefix, ReferrerFact};
use crate::oci::document::annotations;
use crate::page::Page;
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
    /// Whether its document can't be read: its annotations are not known then. A damaged referrer does not hide the
    /// others.
    pub is_damaged: bool,
}

/// The most bytes of facts that are read for a page, but for the last fact.
const MAX_FACTS_LEN: usize = 1 << 20;

/// The most bytes of documents that are read for a page, but for the last document.
const MAX_DOCUMENTS_LEN: usize = 8 << 20;

/// The most bytes of annotations in a page, but for those of the last manifest.
const MAX_ANNOTATIONS_LEN: usize = 256 << 10;

/// What was read for a page, in bytes.
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

impl Repository {
    /// A [page](Page) of the manifests that name a subject, those behind `after`, of an artifact type if one is given.
    /// The subject need not exist. A page may have fewer than `limit`, even none, although more follow: it costs at
    /// most 1 MiB of facts, 8 MiB of documents and 256 KiB of annotations, and one manifest more, which may have 4 MiB.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Referrer, Digest>> {
        let snapshot = self.facts()?;
        let mut page = Page::default();
        let (mut work, mut last) = (Work::default(), after.copied());
        let after = after.map(|after| Key::referrer(self.domain, self.id, subject, after));
        for fact in snapshot.scan_all_after(Prefix::under(self.domain, Family::Referrer, self.id, subject), after)? {
            if page.items.len() >= limit.max(1) || work.is_enough() {
                page.next = last;
                break;
            }
            let (key, value) = fact?;
            work.facts += value.as_bytes().len();
            let fact = snapshot.decoded(&key, ReferrerFact::decode(value.as_bytes()))?;
            last = Some(fact.digest);
            if fact.subject == *subject {
                // another one may begin with the same bytes
                page.items.extend(self.referrer(&snapshot, (&key, &fact.digest), artifact_type, &mut work)?);
            }
        }
        Ok(page)
    }

    /// A referrer, which the fact with this key names, if it is of the type that is wanted.
    fn referrer(
        &self,
        snapshot: &Snapshot,
        (key, digest): (&Key, &Digest),
        artifact_type: Option<&str>,
        work: &mut Work,
    ) -> Result<Option<Referrer>> {
        let manifest = snapshot.decoded(key, find::manifest(snapshot, self.id, digest)?)?;
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
