//! Counting anew what is counted in repositories, and following every reference.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::facts::{Family, Held, Idle, Key, LinkFact, ManifestFact, Prefix, ReferrerFact, TagFact};
use crate::id::RepositoryId;
use crate::registry::find;
use crate::store::view::{Snapshot, decoded};

/// What is told of each number: what it counts, what is on record, and the recount.
pub(crate) type Compare<'a> = dyn FnMut(String, u64, u64) + 'a;

/// Recounts the repositories of the snapshot's domain, and adds to `held` how often each blob, by its key, is held by them. Calls `idle` for each
/// link that no manifest holds. What is left of deleted repositories holds blobs too, but is not in order otherwise.
pub(crate) fn recount(
    snapshot: &Snapshot,
    held: &mut HashMap<[u8; 32], u64>,
    idle: &mut dyn FnMut(Idle) -> Result<()>,
    compare: &mut Compare<'_>,
) -> Result<()> {
    let mut deleted = HashSet::new();
    for fact in snapshot.facts(Family::Deleted, [0; 32])? {
        deleted.insert(fact?.0.repository_id());
    }
    let mut known = HashSet::new();
    for repository in snapshot.repositories()? {
        let repository = repository?;
        known.insert(repository.id);
        recount_repository(snapshot, repository.id, &repository.name, compare)?;
    }
    for fact in snapshot.facts(Family::Link, [0; 32])? {
        let (key, value) = fact?;
        let link = decoded(LinkFact::decode(value.as_bytes()))?;
        *held.entry(link.blob(&key).bytes).or_default() += 1;
        Idle::of_link(&key, &link).map_or(Ok(()), &mut *idle)?;
    }
    for fact in snapshot.facts(Family::Manifest, [0; 32])? {
        let digest = decoded(ManifestFact::decode(fact?.1.as_bytes()))?.digest;
        *held.entry(Key::blob(snapshot.domain, &digest).bytes).or_default() += 1;
    }
    for family in [Family::Link, Family::Manifest, Family::Referrer, Family::Tag, Family::TagOf, Family::Pull] {
        for fact in snapshot.facts(family, [0; 32])? {
            let id = fact?.0.repository_id();
            if !known.contains(&id) && !deleted.contains(&id) {
                compare(format!("facts of the unknown repository {id:?}"), 0, 1);
            }
        }
    }
    Ok(())
}

fn recount_repository(snapshot: &Snapshot, id: RepositoryId, name: &str, compare: &mut Compare<'_>) -> Result<()> {
    let domain = snapshot.domain;
    let facts = |family| snapshot.scan(Prefix::of(domain, family, id));
    let (mut holds, mut subjects): (HashMap<Key, u64>, HashSet<Key>) = Default::default();
    for fact in facts(Family::Manifest)? {
        let manifest = decoded(ManifestFact::decode(fact?.1.as_bytes()))?;
        for held in &manifest.held {
            let key = match held {
                Held::Blob(digest) => Key::of_digest(domain, Family::Link, id, digest),
                Held::Manifest(digest) => Key::of_digest(domain, Family::Manifest, id, digest),
            };
            *holds.entry(key).or_default() += 1;
        }
        subjects.extend(manifest.subject.map(|subject| Key::referrer(domain, id, &subject, &manifest.digest)));
    }
    for fact in facts(Family::Link)?.chain(facts(Family::Manifest)?) {
        let (key, value) = fact?;
        let count = match key.family {
            Family::Link => decoded(LinkFact::decode(value.as_bytes()))?.count,
            _ => decoded(ManifestFact::decode(value.as_bytes()))?.count,
        };
        let counted = holds.remove(&key).unwrap_or_default();
        if counted != u64::from(count) {
            compare(format!("manifests of {name} that hold {key:?}"), count.into(), counted);
        }
    }
    for (key, counted) in holds {
        compare(format!("manifests of {name} that hold {key:?}, which is missing"), 0, counted);
    }
    for fact in facts(Family::Referrer)? {
        let (key, value) = fact?;
        decoded(ReferrerFact::decode(value.as_bytes()))?;
        if !subjects.remove(&key) {
            compare(format!("referrer in {name} without a manifest: {key:?}"), 1, 0);
        }
    }
    for key in subjects {
        compare(format!("manifest of {name} that is not listed under its subject: {key:?}"), 0, 1);
    }
    recount_tags(snapshot, id, name, compare)
}

fn recount_tags(snapshot: &Snapshot, id: RepositoryId, name: &str, compare: &mut Compare<'_>) -> Result<()> {
    let (mut tags, mut back) = (0, 0);
    for fact in snapshot.scan(Prefix::of(snapshot.domain, Family::Tag, id))? {
        let tag = decoded(TagFact::decode(fact?.1.as_bytes()))?;
        tags += 1;
        if find::manifest(snapshot, id, &tag.digest)?.is_none() {
            compare(format!("manifests that tag {} of {name} names", tag.tag), 1, 0);
        }
        let leads_back = snapshot.get(&Key::tag_of(snapshot.domain, id, &tag.digest, &tag.tag))?;
        back += u64::from(leads_back.is_some_and(|found| found.as_bytes() == tag.tag.as_bytes()));
    }
    let prefix = Prefix::of(snapshot.domain, Family::TagOf, id);
    let on_record = snapshot.scan(prefix)?.try_fold(0, |count, fact| fact.map(|_| count + 1))?;
    if (tags, tags) != (back, on_record) {
        compare(format!("tags of {name} that their manifests lead to"), on_record, tags);
    }
    Ok(())
}
