//! Recounting the counts of repositories, and following every reference.

use std::collections::{HashMap, HashSet};

use crate::check::Step;
use crate::check::recount::{Holds, Listener, check_listed};
use crate::check::wrong::{Wrong, unknown};
use crate::facts::find;
use crate::facts::{
    AwaitedFact, DocumentFact, Family, Held, Idle, Key, LinkFact, ManifestFact, Prefix, Reader as _, ReferrerFact,
    RepositoryFact, TagFact,
};
use crate::id::RepositoryId;
use crate::tables::Snapshot;

/// The families of what belongs to repositories.
const OF_REPOSITORIES: [Family; 9] = [
    Family::Link,
    Family::Manifest,
    Family::Referrer,
    Family::Tag,
    Family::TagOf,
    Family::Pull,
    Family::AwaitedBlob,
    Family::AwaitedManifest,
    Family::Document,
];

/// Recounts the repositories of the snapshot's domain, and looks whether links that no manifest holds are in the list
/// of those. What is left of deleted repositories is not in order otherwise.
pub(super) fn recount(snapshot: &Snapshot, listener: &mut dyn Listener) -> Step<()> {
    let mut deleted = HashSet::new();
    for fact in snapshot.facts(Family::Deleted, [0; 32])? {
        deleted.insert(fact?.0.repository_id());
    }
    let mut known = HashSet::new();
    for repository in snapshot.repositories()? {
        let repository = repository?;
        known.insert(repository.id);
        let key = Key::repository(snapshot.domain, &repository.name);
        check_listed(snapshot, Idle::of_repository(&key, &repository), listener)?;
        if !find::is_owned(snapshot, snapshot.domain, &repository.name)? {
            listener.found(Wrong::missing(format!("key domain of the name {}", repository.name), 1))?;
        }
        recount_documents(snapshot, &repository, listener)?;
        recount_repository(snapshot, &repository, listener)?;
    }
    for fact in snapshot.all::<LinkFact>()? {
        let (key, link) = fact?;
        check_listed(snapshot, Idle::of_link(&key, &link), listener)?;
        listener.step()?;
    }
    let mut strays: HashMap<RepositoryId, u64> = HashMap::new();
    for family in OF_REPOSITORIES {
        for fact in snapshot.facts(family, [0; 32])? {
            let id = fact?.0.repository_id();
            if !known.contains(&id) && !deleted.contains(&id) {
                *strays.entry(id).or_default() += 1;
            }
            listener.step()?;
        }
    }
    for (id, count) in strays {
        listener.found(Wrong::Beyond { what: unknown(id), stored: count, counted: 0 })?;
    }
    Ok(())
}

fn recount_documents(snapshot: &Snapshot, repository: &RepositoryFact, listener: &mut dyn Listener) -> Step<()> {
    let mut counted = 0;
    for fact in snapshot.all_of::<DocumentFact>(repository.id)? {
        fact?;
        counted += 1;
        listener.step()?;
    }
    let stored = u32::from(repository.documents);
    if counted != u64::from(stored) {
        let key = Key::repository(snapshot.domain, &repository.name);
        let name = format!("documents of {}", repository.name);
        listener.found(Wrong::Count { key, name, stored, counted })?;
    }
    Ok(())
}

/// Counts how often blobs are held by what repositories have, what is left of deleted ones too.
pub(super) fn holds(snapshot: &Snapshot, holds: &mut Holds, listener: &mut dyn Listener) -> Step<()> {
    for fact in snapshot.all::<LinkFact>()? {
        let (key, link) = fact?;
        holds.add(&link.blob(&key));
        listener.step()?;
    }
    for fact in snapshot.all::<ManifestFact>()? {
        holds.add(&Key::blob(snapshot.domain, &fact?.1.digest));
        listener.step()?;
    }
    Ok(())
}

fn recount_repository(snapshot: &Snapshot, repository: &RepositoryFact, listener: &mut dyn Listener) -> Step<()> {
    let (domain, id, name) = (snapshot.domain, repository.id, &repository.name);
    let (mut awaited, mut subjects): (HashMap<Key, (Held, u64)>, HashMap<Key, ReferrerFact>) = Default::default();
    for fact in snapshot.all_of::<ManifestFact>(id)? {
        let (_, manifest) = fact?;
        for held in &manifest.held {
            awaited.entry(held.awaited_key(domain, id)).or_insert((*held, 0)).1 += 1;
        }
        subjects.extend(manifest.subject.map(|subject| {
            let fact = ReferrerFact { subject, digest: manifest.digest };
            (Key::referrer(domain, id, &subject, &manifest.digest), fact)
        }));
        listener.step()?;
    }
    for family in [Family::AwaitedBlob, Family::AwaitedManifest] {
        for fact in snapshot.scan_all(Prefix::of(domain, family, id))? {
            let (key, value) = fact?;
            let fact = snapshot.decoded(&key, AwaitedFact::decode(value.as_bytes()))?;
            // What is there is not awaited, whatever a fact says.
            let is_there = match family {
                Family::AwaitedBlob => find::link(snapshot, id, &fact.digest)?.is_some(),
                _ => find::manifest(snapshot, id, &fact.digest)?.is_some(),
            };
            let counted = if is_there { 0 } else { awaited.remove(&key).map_or(0, |(_, counted)| counted) };
            if counted != u64::from(fact.count) {
                let (name, stored) = (format!("{} awaited by manifests of {name}", fact.digest), fact.count);
                listener.found(Wrong::Count { key, name, stored, counted })?;
            }
            listener.step()?;
        }
    }
    // The rest has to be there.
    let by_keys = |held: Held| (held.key(domain, id), Key::blob(domain, &held.digest()));
    let mut holds: HashMap<_, u64> = awaited.into_values().map(|(held, count)| (by_keys(held), count)).collect();
    let links = snapshot.all_of::<LinkFact>(id)?.map(|fact| fact.map(|(key, link)| (key, link.blob(&key), link.count)));
    let manifests = snapshot.all_of::<ManifestFact>(id)?;
    let manifests =
        manifests.map(|fact| fact.map(|(key, manifest)| (key, Key::blob(domain, &manifest.digest), manifest.count)));
    for fact in links.chain(manifests) {
        let (key, blob, stored) = fact?;
        let counted = holds.remove(&(key, blob)).unwrap_or_default();
        if counted != u64::from(stored) {
            listener.found(Wrong::Count { key, name: format!("{key:?} by manifests of {name}"), stored, counted })?;
        }
        listener.step()?;
    }
    for ((key, _), counted) in holds {
        listener.found(Wrong::missing(format!("manifests of {name} that hold {key:?}, which is missing"), counted))?;
    }
    for fact in snapshot.all_of::<ReferrerFact>(id)? {
        let (key, fact) = fact?;
        if subjects.remove(&key) != Some(fact) {
            listener.found(Wrong::Referrer { key, fact, repository: name.clone(), is_there: true })?;
        }
        listener.step()?;
    }
    for (key, fact) in subjects {
        listener.found(Wrong::Referrer { key, fact, repository: name.clone(), is_there: false })?;
    }
    recount_tags(snapshot, repository, listener)
}

fn recount_tags(snapshot: &Snapshot, repository: &RepositoryFact, listener: &mut dyn Listener) -> Step<()> {
    let (domain, id, name) = (snapshot.domain, repository.id, &repository.name);
    for fact in snapshot.all_of::<TagFact>(id)? {
        let (_, tag) = fact?;
        if find::manifest(snapshot, id, &tag.digest)?.is_none() {
            let what = format!("manifests that tag {} of {name} names", tag.tag);
            listener.found(Wrong::Beyond { what, stored: 1, counted: 0 })?;
        }
        let key = Key::tag_of(domain, id, &tag.digest, &tag.tag);
        if snapshot.get(&key)?.is_none_or(|found| found.as_bytes() != tag.tag.as_bytes()) {
            listener.found(Wrong::TagOf { key, tag: tag.tag, repository: name.clone(), is_there: false })?;
        }
        listener.step()?;
    }
    for fact in snapshot.scan_all(Prefix::of(domain, Family::TagOf, id))? {
        let (key, value) = fact?;
        let tag = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let named = find::tag(snapshot, id, &tag)?;
        if named.is_none_or(|named| Key::tag_of(domain, id, &named.digest, &tag) != key) {
            listener.found(Wrong::TagOf { key, tag, repository: name.clone(), is_there: true })?;
        }
        listener.step()?;
    }
    Ok(())
}
