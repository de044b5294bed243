//! Recounting the counts of repositories, and following every reference.

use std::collections::{HashMap, HashSet};

use crate::check::Step;
use crate::check::recount::{Holds, Listener, check_listed};
use crate::check::wrong::{Wrong, unknown};
use crate::facts::find;
use crate::facts::{
    AwaitedFact, Family, Held, Idle, Key, LinkFact, ManifestFact, Prefix, Reader as _, ReferrerFact, RepositoryFact,
    TagFact,
};
use crate::id::RepositoryId;
use crate::tables::Snapshot;

/// The families of what belongs to repositories.
const OF_REPOSITORIES: [Family; 7] =
    [Family::Link, Family::Manifest, Family::Referrer, Family::Tag, Family::TagOf, Family::Pull, Family::Awaited];

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
    let (mut holds, mut subjects): (HashMap<Key, u64>, HashMap<Key, ReferrerFact>) = Default::default();
    for fact in snapshot.all_of::<ManifestFact>(id)? {
        let (_, manifest) = fact?;
        for held in &manifest.held {
            let key = match held {
                Held::Blob(digest) => Key::of_digest(domain, Family::Link, id, digest),
                Held::Manifest(digest) => Key::of_digest(domain, Family::Manifest, id, digest),
            };
            *holds.entry(key).or_default() += 1;
        }
        subjects.extend(manifest.subject.map(|subject| {
            let fact = ReferrerFact { subject, digest: manifest.digest };
            (Key::referrer(domain, id, &subject, &manifest.digest), fact)
        }));
        listener.step()?;
    }
    let links = snapshot.all_of::<LinkFact>(id)?.map(|fact| fact.map(|(key, link)| (key, link.count)));
    let manifests = snapshot.all_of::<ManifestFact>(id)?.map(|fact| fact.map(|(key, manifest)| (key, manifest.count)));
    for fact in links.chain(manifests) {
        let (key, stored) = fact?;
        let counted = holds.remove(&key).unwrap_or_default();
        if counted != u64::from(stored) {
            listener.found(Wrong::Count { key, name: format!("{key:?} by manifests of {name}"), stored, counted })?;
        }
        listener.step()?;
    }
    // What the repository does not have may be awaited.
    for fact in snapshot.all_of::<AwaitedFact>(id)? {
        let (key, awaited) = fact?;
        let counted = holds.remove(&Key { family: Family::Link, ..key }).unwrap_or_default();
        if counted != u64::from(awaited.count) {
            let (name, stored) = (format!("{} awaited by manifests of {name}", awaited.digest), awaited.count);
            listener.found(Wrong::Count { key, name, stored, counted })?;
        }
        listener.step()?;
    }
    for (key, counted) in holds {
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
