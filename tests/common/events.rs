//! Whether what a store tells of its history is what happened.

use std::collections::{BTreeMap, BTreeSet};

use strongroom::registry::{Event, EventKind, StorageClass, Subject};
use strongroom::{Digest, Error, Lsn, Store};

use super::Model;
use super::calls::pulls;

/// What events tell of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    blobs: BTreeSet<Digest>,
    manifests: BTreeMap<Digest, (String, Option<Digest>)>,
    tags: BTreeMap<String, Digest>,
    archived: BTreeSet<Digest>,
}

/// Repositories as those know them who follow events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Follower {
    repositories: BTreeMap<String, Told>,
    pulled: BTreeMap<(String, Digest), u64>,
    files: BTreeMap<String, Digest>,
    /// What the store has.
    blobs: BTreeSet<Digest>,
}

impl Follower {
    /// One that has taken stock.
    pub fn of(model: &Model) -> Self {
        let told = |repository: &super::repositories::Repository| Told {
            blobs: repository.links.keys().copied().collect(),
            manifests: repository
                .manifests
                .iter()
                .map(|(d, one)| (*d, (one.media_type.clone(), one.subject)))
                .collect(),
            tags: repository.tags.clone(),
            archived: repository.manifests.iter().filter(|(_, one)| one.archived).map(|(digest, _)| *digest).collect(),
        };
        let repositories = model.repositories.iter().map(|(name, repository)| (name.clone(), told(repository)));
        let files = model.files.iter().map(|(name, file)| (name.clone(), file.digests[0])).collect();
        let blobs = model.blobs.keys().copied().collect();
        Self { repositories: repositories.collect(), pulled: BTreeMap::new(), files, blobs }
    }

    /// Whether both know of the same things, pulls apart.
    pub fn agrees(&self, other: &Self) -> bool {
        (&self.repositories, &self.files, &self.blobs) == (&other.repositories, &other.files, &other.blobs)
    }

    pub fn follow(&mut self, events: &[Event]) -> Result<(), String> {
        events
            .iter()
            .try_for_each(|event| self.apply(event).ok_or_else(|| format!("{event:?} can't be after {self:?}")))
    }

    /// `None` where it can't have happened.
    fn apply(&mut self, event: &Event) -> Option<()> {
        let name = match &event.subject {
            Subject::Repository(name) => name.to_string(),
            Subject::NamedFile(name) => {
                let is_new = match event.kind {
                    EventKind::Set { digest, before, .. } => {
                        self.blobs.contains(&digest) && self.files.insert(name.clone(), digest) == before
                    }
                    EventKind::Removed { digest } | EventKind::Expired { digest } => {
                        self.files.remove(name) == Some(digest)
                    }
                    _ => false,
                };
                return is_new.then_some(());
            }
            _ => {
                let is_new = match &event.kind {
                    EventKind::BlobAdded(digest) => self.blobs.insert(*digest),
                    EventKind::BlobRemoved(digest) => self.blobs.remove(digest),
                    _ => false,
                };
                return is_new.then_some(());
            }
        };
        let is_new = match &event.kind {
            EventKind::Created => self.repositories.insert(name, Told::default()).is_none(),
            EventKind::Deleted => {
                self.pulled.retain(|(repository, _), _| *repository != name);
                self.repositories.remove(&name).is_some()
            }
            kind => {
                let told = self.repositories.get_mut(&name)?;
                match kind {
                    EventKind::BlobAdded(digest) => told.blobs.insert(*digest),
                    EventKind::BlobRemoved(digest) => told.blobs.remove(digest),
                    EventKind::ManifestPushed { digest, media_type, subject } => {
                        told.manifests.insert(*digest, (media_type.clone(), *subject)).is_none()
                    }
                    EventKind::ManifestDeleted(digest) => {
                        self.pulled.remove(&(name, *digest));
                        told.archived.remove(digest);
                        told.manifests.remove(digest).is_some() && !told.tags.values().any(|named| named == digest)
                    }
                    EventKind::Tagged { tag, digest, before } => {
                        let old = told.tags.insert(tag.to_string(), *digest);
                        old == *before && old != Some(*digest) && told.manifests.contains_key(digest)
                    }
                    EventKind::StorageClassChanged { digest, class: StorageClass::Archive } => {
                        told.archived.insert(*digest) && told.manifests.contains_key(digest)
                    }
                    EventKind::StorageClassChanged { digest, .. } => told.archived.remove(digest),
                    EventKind::Untagged { tag, digest } => told.tags.remove(tag.as_str()) == Some(*digest),
                    EventKind::ManifestPulled { digest, time_ms } => {
                        let old = self.pulled.insert((name, *digest), *time_ms);
                        told.manifests.contains_key(digest) && old < Some(*time_ms)
                    }
                    _ => true,
                }
            }
        };
        is_new.then_some(())
    }
}

/// What a store has told, up to where, and what it held then.
#[derive(Clone, Debug, Default)]
pub struct Stock {
    pub told: Vec<Event>,
    pub position: Lsn,
    pub model: Model,
}

/// What a store tells of its history.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// What is told is all that happened behind this.
    pub since: Lsn,
    pub events: Vec<Event>,
    /// Where to go on.
    pub next: Lsn,
}

/// Reads all events behind a position, or as many of them as the log still has.
///
/// # Errors
/// Where the disk fails.
pub fn record(store: &Store, after: Lsn) -> Result<Record, Error> {
    store.sync()?; // what is not durable is not told
    let mut record = Record { since: after, events: Vec::new(), next: after };
    loop {
        match store.events(record.next, 3) {
            Ok(page) if page.events.is_empty() => {
                assert!(page.next == store.last_lsn());
                record.next = page.next;
                return Ok(record);
            }
            Ok(page) => {
                let behind = |event: &Event| event.lsn > record.next && event.lsn <= page.next;
                assert!(page.events.is_sorted_by_key(|event| event.lsn) && page.events.iter().all(behind));
                record.events.extend(page.events);
                record.next = page.next;
            }
            Err(Error::Gap { oldest }) => {
                assert!(oldest > record.next, "a gap of nothing");
                record = Record { since: oldest, events: Vec::new(), next: oldest };
            }
            Err(error) => return Err(error),
        }
    }
}

impl Record {
    /// Compares what a store tells after it was opened again with what it told and held before, and with what it holds:
    /// nothing that was told is told otherwise or no more, and what is told besides leads from what was held to what
    /// is.
    pub fn check(&self, before: &Stock, store: &Store, seen: &Model) -> Result<(), String> {
        let kept: Vec<&Event> = before.told.iter().filter(|event| event.lsn > self.since).collect();
        let (again, new) = self.events.split_at_checked(kept.len()).unwrap_or((&self.events, &[]));
        if !again.iter().eq(kept) {
            return Err(format!("told before {:#?}\nthen behind {} {:#?}", before.told, self.since, self.events));
        }
        if self.since > before.position {
            return Ok(()); // what the last operation did made the log go on so far that it no longer tells of it
        }
        let holds = Follower::of(seen);
        let mut follower = Follower::of(&before.model);
        follower.follow(new)?;
        if !follower.agrees(&holds) {
            return Err(format!("new events {new:#?} do not lead to {holds:#?}"));
        }
        if self.since > Lsn::default() {
            return Ok(());
        }
        let mut follower = Follower::default();
        follower.follow(&self.events)?;
        // What was not noted yet went with the process.
        if !follower.agrees(&holds) || follower.pulled != pulls(store) {
            return Err(format!("{:#?} lead to {follower:#?}, not to {holds:#?} {:#?}", self.events, pulls(store)));
        }
        Ok(())
    }
}
