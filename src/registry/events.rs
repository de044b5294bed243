//! Events: what happened to repositories, named files and blobs, read from the log from any position that it still has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::{Damage, Error, Result};
use crate::facts::{Named, StorageClass};
use crate::id::{FileId, Lsn};
use crate::log::open_log;
use crate::log::record::Salt;
use crate::log::replay::{Extent, Replay};
use crate::oci::{RepositoryName, Tag};
use crate::registry::Registry;
use crate::sync::lock;
use crate::tables::LogEntry;
use crate::transaction::{Gone, Op};

/// Something that happened in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The commit's position in the order of all commits. All events of one commit have the same position.
    pub lsn: Lsn,
    /// When it happened, by the wall clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// The number of the key domain that it happened in; 0 is the default one.
    /// [`Store::domains`](crate::Store::domains) lists their names.
    pub domain: u32,
    /// What it happened to.
    pub subject: Subject,
    /// What happened.
    pub kind: EventKind,
}

impl Event {
    /// The repository that it happened to, if it did to one.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match &self.subject {
            Subject::Repository(name) => Some(name),
            Subject::NamedFile(_) | Subject::Store => None,
        }
    }
}

/// What something happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// A repository. It may have been deleted since, and another one may have its name.
    Repository(RepositoryName),
    /// The [named file](crate::NamedFiles) of this name.
    NamedFile(String),
    /// The store itself, or one key domain of it, where content is stored once: however many repositories and named
    /// files have a blob, it is added when the first one gets it, and removed after the last one has lost it.
    Store,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A repository was created.
    Created,
    /// A repository was deleted, with what was in it.
    Deleted,
    /// The settings of a repository changed.
    SettingsChanged,
    /// A blob was pushed to a repository or mounted there; or the store has got content that it did not have.
    BlobAdded(Digest),
    /// A blob was removed from a repository or from the store, by a call or by a collection. (That a collection removed
    /// one with a SHA-512 digest from the store is not told where its content is damaged: that has the digest.)
    BlobRemoved(Digest),
    /// A named file was set.
    Set {
        /// Its content.
        digest: Digest,
        /// The length of that in bytes.
        len: u64,
        /// The content that it had before; none where there was no such file.
        before: Option<Digest>,
    },
    /// A named file was removed by a call.
    Removed {
        /// The content that it had.
        digest: Digest,
    },
    /// A named file was removed since it had expired.
    Expired {
        /// The content that it had.
        digest: Digest,
    },
    /// A manifest was pushed that the repository did not have.
    ManifestPushed {
        /// The manifest.
        digest: Digest,
        /// Its media type.
        media_type: String,
        /// Its subject.
        subject: Option<Digest>,
    },
    /// A manifest was pulled. Of several pulls that are noted together, the last.
    ManifestPulled {
        /// The manifest.
        digest: Digest,
        /// When, by the wall clock, in milliseconds since 1970.
        time_ms: u64,
    },
    /// A manifest was deleted.
    ManifestDeleted(Digest),
    /// A tag was set.
    Tagged {
        /// The tag.
        tag: Tag,
        /// The manifest that it names.
        digest: Digest,
        /// The manifest that it named before.
        before: Option<Digest>,
    },
    /// A [document](crate::registry::Repository::document) of the repository was set or removed.
    DocumentChanged {
        /// Its name.
        name: String,
    },
    /// A manifest was archived or restored.
    StorageClassChanged {
        /// The manifest.
        digest: Digest,
        /// What its storage class is now.
        class: StorageClass,
    },
    /// A tag was removed.
    Untagged {
        /// The tag.
        tag: Tag,
        /// The manifest that it named.
        digest: Digest,
    },
}

/// A page of events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Events {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The position to continue from: the log was read up to here, whether there were events or not.
    pub next: Lsn,
    /// The numbers of the [locked](crate::Store::locked_domains) key domains that have events here, which are left out:
    /// read this page again, from the same position, when the domains are unlocked.
    pub locked: Vec<u32>,
}

/// Where a reading of events ended, so that the next one, from there, need not begin at the start of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventPosition {
    file: FileId,
    /// That of the file: another history of the store may have another file of the id.
    salt: Salt,
    /// Where the next record begins.
    offset: u64,
}

/// How many positions are remembered. A reading from another position begins at the nearest one before it.
const POSITIONS: usize = 64;

/// The positions where readings ended, by the LSN up to which they went.
pub(crate) type EventPositions = BTreeMap<Lsn, EventPosition>;

impl Registry {
    /// [`Store::events`](crate::Store::events).
    pub(crate) fn events(&self, after: Lsn, limit: usize) -> Result<Events> {
        loop {
            let visible = self.tables.visible();
            let until = visible.min(self.tables.durable());
            if after > visible {
                return Err(Error::AheadOfStore { position: after, last: until });
            }
            if after >= until {
                return Ok(Events { events: Vec::new(), next: after, locked: Vec::new() });
            }
            let logs = self.tables.logs();
            let oldest = logs.first().map_or(until, |log| Lsn(log.first_lsn.0.saturating_sub(1)));
            if after < oldest {
                return Err(Error::Gap { oldest });
            }
            match self.read_events(&logs, after, until, limit) {
                // A file was given up, or cut to its length, meanwhile: then the list says so by now.
                Err(Error::Corrupt { .. }) if self.tables.catch_up() || !Arc::ptr_eq(&logs, &self.tables.logs()) => {}
                other => return other,
            }
        }
    }

    fn read_events(&self, logs: &[LogEntry], after: Lsn, until: Lsn, limit: usize) -> Result<Events> {
        let (mut events, keys, mut locked) = (Vec::new(), self.files.keys(), BTreeSet::new());
        let known = lock(&self.event_positions).range(..=after).next_back().map(|(lsn, known)| (*lsn, *known));
        let is_behind = |log: &&LogEntry| log.sealed.is_none_or(|(_, last)| last > after);
        for log in logs.iter().filter(is_behind) {
            let (path, file, header) = open_log(&self.files, log.id)?;
            let extent = match log.sealed {
                Some((len, last)) => Extent::Sealed { len, last },
                None => Extent::Open { durable: until },
            };
            let mut reader = Replay::new(&path, &*file, header, &keys, extent, Lsn::ZERO)?;
            let salt = header.salt;
            if let Some((lsn, known)) = known.filter(|(_, known)| known.salt == salt) {
                reader.skip_to(known.offset, lsn.next());
            }
            while let Some(record) = reader.next()? {
                let lsn = record.header.lsn;
                if lsn <= after {
                    continue;
                }
                if record.is_lost && keys.lock_of(record.header.domain).is_some() {
                    locked.insert(record.header.domain.0);
                }
                let invalid = || Error::corrupt(&path, record.offset, Damage::Invalid("operation"));
                let ops = Op::parse_all(&record.ops).ok_or_else(invalid)?;
                let (time_ms, domain) = (record.header.wall, record.header.domain.0);
                let what = ops.into_iter().filter_map(event);
                events.extend(what.map(|(subject, kind)| Event { lsn, time_ms, domain, subject, kind }));
                if events.len() >= limit || lsn == until {
                    self.remember_position(lsn, EventPosition { file: log.id, salt, offset: record.end() });
                    return Ok(Events { events, next: lsn, locked: locked.into_iter().collect() });
                }
            }
        }
        Ok(Events { events, next: until, locked: locked.into_iter().collect() })
    }

    /// Forgets where readings ended: the log may be another one by now.
    pub(crate) fn forget_event_positions(&self) {
        lock(&self.event_positions).clear();
    }

    fn remember_position(&self, after: Lsn, position: EventPosition) {
        let mut positions = lock(&self.event_positions);
        positions.insert(after, position);
        if positions.len() > POSITIONS {
            // The one that costs least to find again from the one before it: so they spread over what is read.
            let mut before = None;
            let costs = positions.iter().map(|(lsn, position)| {
                let from = before.replace(*position).filter(|before| before.file == position.file);
                (position.offset.saturating_sub(from.map_or(0, |before| before.offset)), *lsn)
            });
            if let Some((_, lsn)) = costs.min() {
                positions.remove(&lsn);
            }
        }
    }
}

/// What an operation says to readers of events.
fn event(op: Op) -> Option<(Subject, EventKind)> {
    let (Named { name, .. }, kind) = match op {
        Op::Put { digest, .. } => return Some((Subject::Store, EventKind::BlobAdded(digest))),
        Op::Remove { digest } => return Some((Subject::Store, EventKind::BlobRemoved(digest))),
        Op::SetNamed { name, len, replaced: before, digests } => {
            let digest = *digests.first()?;
            return Some((Subject::NamedFile(name), EventKind::Set { digest, len, before }));
        }
        Op::RemoveNamed { name, digest, why } => {
            let kind = match why {
                Gone::Removed => EventKind::Removed { digest },
                Gone::Expired => EventKind::Expired { digest },
            };
            return Some((Subject::NamedFile(name), kind));
        }
        Op::CreateRepository { repository } => (repository, EventKind::Created),
        Op::DeleteRepository { repository } => (repository, EventKind::Deleted),
        Op::SetRepository { repository } => (repository, EventKind::SettingsChanged),
        Op::Link { repository, digest } => (repository, EventKind::BlobAdded(digest)),
        Op::Unlink { repository, digest } => (repository, EventKind::BlobRemoved(digest)),
        Op::PutManifest { repository, digest, media_type, subject } => {
            (repository, EventKind::ManifestPushed { digest, media_type, subject })
        }
        Op::DeleteManifest { repository, digest } => (repository, EventKind::ManifestDeleted(digest)),
        Op::Tag { repository, tag, digest, old } => {
            (repository, EventKind::Tagged { tag: tag.parse().ok()?, digest, before: old })
        }
        Op::Untag { repository, tag, digest } => (repository, EventKind::Untagged { tag: tag.parse().ok()?, digest }),
        Op::Pull { repository, digest, time } => (repository, EventKind::ManifestPulled { digest, time_ms: time }),
        Op::SetStorageClass { repository, digest, class } => {
            (repository, EventKind::StorageClassChanged { digest, class })
        }
        Op::Document { repository, name } => (repository, EventKind::DocumentChanged { name }),
        _ => return None,
    };
    Some((Subject::Repository(name.parse().ok()?), kind))
}
