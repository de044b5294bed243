//! The sizes of images.
//!
//! Images of a repository share layers, and indexes share images. Each is looked up once for all that are asked for
//! together; the blobs of one manifest are looked up in one go.

use std::collections::HashMap;

use crate::digest::Digest;
use crate::error::Result;
use crate::facts::find;
use crate::facts::{BlobFact, Family, Held, Key, LinkFact, ManifestFact, Reader as _};
use crate::id::RepositoryId;
use crate::tables::Snapshot;

/// Sizes of images of a repository, as of one moment.
pub(super) struct Sizes<'a> {
    snapshot: &'a Snapshot,
    id: RepositoryId,
    /// The lengths of blobs.
    blobs: HashMap<Digest, u64>,
    /// The sizes of manifests; 0 while those of what they hold are found out.
    manifests: HashMap<Digest, u64>,
    /// How many facts were read.
    pub(super) read: usize,
}

/// A manifest whose size is found out.
struct Under {
    manifest: ManifestFact,
    /// How much of what it holds was looked at.
    seen: usize,
}

impl<'a> Sizes<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, id: RepositoryId) -> Self {
        Self { snapshot, id, blobs: HashMap::new(), manifests: HashMap::new(), read: 0 }
    }

    /// The size of an image: of the blobs that it holds, together, and of the largest of the manifests that it holds.
    ///
    /// Indexes may hold indexes, to any depth.
    pub(super) fn of(&mut self, manifest: &ManifestFact) -> Result<u64> {
        if let Some(known) = self.manifests.get(&manifest.digest) {
            return Ok(*known);
        }
        let mut under = vec![self.begin(manifest.clone())];
        let mut size = 0;
        while let Some(mut top) = under.pop() {
            let (below, seen) = self.next_unknown(&top)?;
            top.seen = seen;
            if let Some(below) = below {
                under.push(top);
                under.push(self.begin(below));
                continue;
            }
            let manifests = top.manifest.held.iter().filter_map(Held::manifest);
            let largest = manifests.filter_map(|digest| self.manifests.get(&digest)).max().copied();
            size = self.blobs_of(&top.manifest)?.saturating_add(largest.unwrap_or_default());
            self.manifests.insert(top.manifest.digest, size);
        }
        Ok(size)
    }

    fn begin(&mut self, manifest: ManifestFact) -> Under {
        // Were facts damaged so that manifests hold each other, that would come to an end too.
        self.manifests.insert(manifest.digest, 0);
        Under { manifest, seen: 0 }
    }

    /// The next of the manifests that one holds whose size is not known, and how far that was looked for.
    fn next_unknown(&mut self, top: &Under) -> Result<(Option<ManifestFact>, usize)> {
        for (number, held) in top.manifest.held.iter().enumerate().skip(top.seen) {
            let Some(digest) = held.manifest().filter(|digest| !self.manifests.contains_key(digest)) else { continue };
            self.read += 1;
            if let Some(found) = find::manifest(self.snapshot, self.id, &digest)? {
                return Ok((Some(found), number + 1));
            }
        }
        Ok((None, top.manifest.held.len()))
    }

    /// The lengths of the blobs that a manifest holds, together. Those that the repository does not have count 0, also
    /// where others have them: that is nothing for its users to know.
    fn blobs_of(&mut self, manifest: &ManifestFact) -> Result<u64> {
        let blobs = manifest.held.iter().filter_map(|held| match held {
            Held::Blob(digest) => Some(*digest),
            Held::Manifest(_) => None,
        });
        let unknown: Vec<Digest> = blobs.clone().filter(|digest| !self.blobs.contains_key(digest)).collect();
        let (domain, count) = (self.snapshot.domain, unknown.len());
        let links = unknown.iter().map(|digest| Key::of_digest(domain, Family::Link, self.id, digest));
        let keys: Vec<Key> = links.chain(unknown.iter().map(|digest| Key::blob(domain, digest))).collect();
        self.read += keys.len();
        let values = self.snapshot.get_many(&keys)?;
        let (links, facts) = values.split_at_checked(count).unwrap_or_default();
        let (link_keys, blob_keys) = keys.split_at_checked(count).unwrap_or_default();
        let entries = unknown.iter().zip(link_keys.iter().zip(links)).zip(blob_keys.iter().zip(facts));
        for ((digest, (link_key, link)), (blob_key, blob)) in entries {
            let mut len = 0;
            if let (Some(link), Some(blob)) = (link, blob) {
                let link = self.snapshot.decoded(link_key, LinkFact::decode(link.as_bytes()))?;
                let blob = self.snapshot.decoded(blob_key, BlobFact::decode(blob.as_bytes()))?;
                // Digests of different algorithms may have one key.
                if link.blob(link_key) == *blob_key && blob.algorithm == digest.algorithm() {
                    len = blob.len;
                }
            }
            self.blobs.insert(*digest, len);
        }
        Ok(blobs.filter_map(|digest| self.blobs.get(&digest)).fold(0, |sum: u64, len| sum.saturating_add(*len)))
    }
}
