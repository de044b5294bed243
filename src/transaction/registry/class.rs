//! The storage class of manifests: archiving and restoring them.
//!
//! # Invariant kept here
//! **What a manifest of the standard class holds is of that class**, so that what can be pulled can be pulled as a
//! whole. A manifest that another one holds is archived only with that one, where no other holds it: [`archive`].
//! Restoring a manifest restores what it holds: [`restore`]; so does a push of it, and a push of another one that comes
//! to hold it.

use std::collections::HashSet;

use super::{manifest_key, manifest_not_found, repository};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::{Held, ManifestFact, Named, StorageClass, find};
use crate::transaction::{Apply, Changes, Op};

/// So many manifests change their class in one step: others wait for it.
const MAX_CHANGED: usize = 10_000;

/// With so many references each, if they have more than some: what they are stored again with fits into a record.
const REFERENCES_EACH: usize = 20;

/// What there are too many of, where more would change.
pub(super) const CHANGES: &str = "the number of manifests that change their storage class together";

/// Sets the class of a manifest, and of those that go with it.
#[derive(Debug)]
pub(crate) struct SetStorageClass {
    pub(crate) repository: Named,
    pub(crate) digest: Digest,
    pub(crate) class: StorageClass,
}

impl Apply for SetStorageClass {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let (named, digest) = (&self.repository, &self.digest);
        repository(facts, named)?;
        match self.class {
            StorageClass::Standard if find::manifest(facts, named.id, digest)?.is_none() => {
                Err(manifest_not_found(digest))
            }
            StorageClass::Standard => restore(facts, named, digest),
            StorageClass::Archive => archive(facts, named, digest),
        }
    }

    fn reads_much(&self) -> bool {
        true
    }
}

/// Archives a manifest that no other holds, and those that only it holds.
pub(super) fn archive(facts: &mut Changes<'_>, named: &Named, digest: &Digest) -> Result<Vec<Op>> {
    let manifest = find::manifest(facts, named.id, digest)?.ok_or_else(|| manifest_not_found(digest))?;
    if manifest.storage.class == StorageClass::Archive {
        return Ok(Vec::new());
    }
    if manifest.count > 0 {
        return Err(Error::ManifestInUse { digest: *digest, count: manifest.count });
    }
    set_all(facts, named, manifest, StorageClass::Archive, |held| held.count == 1)
}

/// Restores a manifest, and those that it holds. One that is not there, or not archived, is left as it is.
pub(super) fn restore(facts: &mut Changes<'_>, named: &Named, digest: &Digest) -> Result<Vec<Op>> {
    match find::manifest(facts, named.id, digest)? {
        Some(manifest) if manifest.storage.class == StorageClass::Archive => {
            set_all(facts, named, manifest, StorageClass::Standard, |_| true)
        }
        _ => Ok(Vec::new()),
    }
}

/// Sets the class of a manifest, and of those below it that go with it and are of another one. Below one that has the
/// class, all have it that could go with it. Refuses before anything has changed.
fn set_all(
    facts: &mut Changes<'_>,
    named: &Named,
    manifest: ManifestFact,
    class: StorageClass,
    goes_with: impl Fn(&ManifestFact) -> bool,
) -> Result<Vec<Op>> {
    let (mut seen, mut references) = (HashSet::from([manifest.digest]), 0);
    let (mut changed, mut due) = (Vec::new(), vec![manifest]);
    while let Some(manifest) = due.pop() {
        references += manifest.held.len();
        for held in manifest.held.iter().filter_map(Held::manifest).filter(|held| !seen.contains(held)) {
            if let Some(held) = find::manifest(facts, named.id, &held)?
                && held.storage.class != class
                && goes_with(&held)
            {
                due.push(held);
            }
        }
        seen.extend(due.iter().map(|manifest| manifest.digest));
        changed.push(manifest);
        Error::check_limit(CHANGES, (changed.len() + due.len()).max(references / REFERENCES_EACH), MAX_CHANGED)?;
    }
    let mut ops = Vec::with_capacity(changed.len());
    for mut manifest in changed {
        let digest = manifest.digest;
        manifest.storage = manifest.storage.moved(class, facts.now().wall);
        facts.set(manifest_key(facts, named.id, &digest), Some(manifest.encode()));
        ops.push(Op::SetStorageClass { repository: named.clone(), digest, class });
    }
    facts.check_size()?;
    Ok(ops)
}
