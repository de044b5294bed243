//! Removing tags and deleting manifests.

use std::collections::HashMap;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::find;
use crate::facts::{Family, Held, Key, Lookup as _, Named, Prefix};
use crate::id::DomainId;
use crate::oci::Reference;
use crate::transaction::registry::{manifest_key, manifest_not_found, release, remove_tag, repository};
use crate::transaction::{Apply, Changes, Op};

/// So many tags go with manifests in one step: others wait for it.
pub(crate) const MAX_TAGS_DELETED: usize = 1000;

/// What there are too many of, where a manifest has more tags than go with it in one step.
pub(crate) const TAGS: &str = "the number of tags that go with a manifest";

/// Deletes a manifest and its tags, and releases what it holds, which it returns. Its referrers stay. Refuses before it
/// changes anything.
pub(super) fn delete_manifest(facts: &mut Changes<'_>, named: &Named, digest: &Digest) -> Result<(Vec<Op>, Vec<Held>)> {
    let id = named.id;
    let manifest = find::manifest(facts, id, digest)?.ok_or_else(|| manifest_not_found(digest))?;
    if manifest.count > 0 {
        return Err(Error::ManifestInUse { digest: *digest, count: manifest.count });
    }
    let mut ops = Vec::new();
    let tags = facts.scan(Prefix::under(facts.domain(), Family::TagOf, id, digest), MAX_TAGS_DELETED + 1)?;
    Error::check_limit(TAGS, tags.len(), MAX_TAGS_DELETED)?;
    for (key, tag) in tags {
        let tag = str::from_utf8(tag.as_bytes()).map_err(|_| facts.invalid(&key))?;
        // Another digest may begin with the same bytes.
        if find::tag(facts, id, tag)?.is_some_and(|tag| tag.digest == *digest) {
            ops.extend(remove_tag(facts, named, tag)?);
        }
    }
    let key = manifest_key(facts, id, digest);
    for held in &manifest.held {
        release(facts, id, held, &key)?;
        facts.check_size()?;
    }
    if let Some(subject) = &manifest.subject {
        facts.set(Key::referrer(facts.domain(), id, subject, digest), None);
    }
    let pulled = Key::of_digest(facts.domain(), Family::Pull, id, digest);
    if facts.get(&pulled)?.is_some() {
        facts.set(pulled, None);
    }
    facts.release_from(digest, &key)?;
    facts.set(key, None);
    ops.push(Op::DeleteManifest { repository: named.clone(), digest: *digest });
    Ok((ops, manifest.held))
}

/// Removes tags, each if it still names a manifest: before that is deleted, where they are too many for one step.
#[derive(Debug)]
pub(crate) struct Untag {
    pub(crate) repository: Named,
    pub(crate) digest: Digest,
    pub(crate) tags: Vec<String>,
}

impl Apply for Untag {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let (named, mut ops) = (&self.repository, Vec::new());
        repository(facts, named)?;
        for tag in &self.tags {
            if find::tag(facts, named.id, tag)?.is_some_and(|tag| tag.digest == self.digest) {
                ops.extend(remove_tag(facts, named, tag)?);
            }
        }
        Ok(ops)
    }

    fn reads_much(&self) -> bool {
        true
    }

    fn frees_space(&self) -> bool {
        true
    }
}

/// Removes tags and deletes manifests, each if it can be: the others are [refused](Changes::refuse).
#[derive(Debug)]
pub(crate) struct DeleteReferences {
    pub(crate) repository: Named,
    pub(crate) references: Vec<Reference>,
}

impl Apply for DeleteReferences {
    fn reads_much(&self) -> bool {
        true
    }

    fn reads(&self, domain: DomainId) -> Vec<Key> {
        let id = self.repository.id;
        let key = |reference: &Reference| match reference {
            Reference::Digest(digest) => Key::of_digest(domain, Family::Manifest, id, digest),
            Reference::Tag(tag) => Key::tag(domain, id, tag.as_str()),
        };
        self.references.iter().map(key).collect()
    }

    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        repository(facts, &self.repository)?;
        let mut ops = Vec::new();
        let parts = || self.references.iter().enumerate();
        // Tags first: they may be those of a manifest that goes.
        for (part, reference) in parts() {
            let Reference::Tag(tag) = reference else { continue };
            match remove_tag(facts, &self.repository, tag.as_str())? {
                Some(op) => ops.push(op),
                None => facts.refuse(part, manifest_not_found(tag)),
            }
        }
        // An index may come behind what it holds, which waits for it.
        let mut waiting: HashMap<Digest, (u32, Vec<usize>)> = HashMap::new();
        for (part, reference) in parts() {
            let Reference::Digest(digest) = reference else { continue };
            let mut due = vec![(part, *digest)];
            while let Some((part, digest)) = due.pop() {
                match delete_manifest(facts, &self.repository, &digest) {
                    Ok((done, held)) => {
                        ops.extend(done);
                        for digest in held.iter().filter_map(Held::manifest) {
                            let (_, parts) = waiting.remove(&digest).unwrap_or_default();
                            due.extend(parts.into_iter().rev().map(|part| (part, digest)));
                        }
                    }
                    Err(Error::ManifestInUse { digest, count }) => {
                        let (counted, parts) = waiting.entry(digest).or_default();
                        *counted = count;
                        parts.push(part);
                    }
                    Err(error @ (Error::ManifestNotFound { .. } | Error::TooLarge { what: TAGS, .. })) => {
                        facts.refuse(part, error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        for (digest, (count, parts)) in waiting {
            parts.into_iter().for_each(|part| facts.refuse(part, Error::ManifestInUse { digest, count }));
        }
        Ok(ops)
    }

    fn frees_space(&self) -> bool {
        true
    }
}
