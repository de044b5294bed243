//! Background work for repositories: recording pull times, and removing what deleted repositories have left.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::{Family, Key, Named, Prefix};
use crate::id::{DomainId, RepositoryId};
use crate::registry::Registry;
use crate::registry::Repository;
use crate::sync::lock;
use crate::transaction::Request;
use crate::transaction::registry::{NotePulls, Pulls, Purge};

/// The most pulls that are held in memory before they are made durable.
const PULLS_HELD: usize = 4096;

/// For how long they are held at most, in milliseconds of open time.
const PULLS_HELD_FOR: u64 = 10_000;

/// The most pulls that one commit records: other commits wait for it.
const NOTED_AT_ONCE: usize = 256;

/// The most facts of a deleted repository that one commit removes.
const PURGED_AT_ONCE: usize = 256;

const NEVER: u64 = u64::MAX;

/// A manifest, by its repository's domain, the repository and its digest.
type Pulled = (DomainId, RepositoryId, Digest);

/// What waits to be done.
#[derive(Debug)]
pub(crate) struct Pending {
    /// When manifests were pulled last, as far as that is not durable yet.
    pulls: Mutex<HashMap<Pulled, (String, u64)>>,
    /// When they are to be made durable, in open time: [`NEVER`] where none waits.
    due_at: AtomicU64,
    /// Whether something may be left of a deleted repository.
    purge: AtomicBool,
    /// Whether something of one could not be read: then it is tried again by the next collection or opening.
    is_damaged: AtomicBool,
    /// Held while that is removed.
    purging: Mutex<()>,
}

impl Default for Pending {
    fn default() -> Self {
        // A crash may have come between a deletion and its end.
        Self {
            pulls: Mutex::default(),
            due_at: AtomicU64::new(NEVER),
            purge: AtomicBool::new(true),
            is_damaged: AtomicBool::new(false),
            purging: Mutex::default(),
        }
    }
}

impl Pending {
    /// When manifests were pulled last, in their order, if that is not durable yet.
    pub(crate) fn last_of(&self, repository: &Repository, digests: impl Iterator<Item = Digest>) -> Vec<Option<u64>> {
        let pulls = lock(&self.pulls);
        let last = |digest| pulls.get(&(repository.domain, repository.id, digest)).map(|(_, time)| *time);
        digests.map(last).collect()
    }

    /// Whether pulls may have been left out, since nothing can be written.
    pub(crate) fn is_overfull(&self) -> bool {
        lock(&self.pulls).len() >= 2 * PULLS_HELD
    }

    /// A manifest was deleted: should it be pushed again, it was not pulled yet.
    pub(crate) fn forget(&self, repository: &Repository, digest: &Digest) {
        lock(&self.pulls).remove(&(repository.domain, repository.id, *digest));
    }

    /// Whether there is something to do.
    pub(crate) fn due(&self, open_time: u64) -> bool {
        self.purge.load(Ordering::Acquire) || self.due_at.load(Ordering::Relaxed) <= open_time
    }
}

/// Nobody waits while holding the lock of the notes: also not at the ordering point.
impl Pulls for Registry {
    fn noted(&self, domain: DomainId, repository: RepositoryId, digest: &Digest) -> Option<u64> {
        lock(&self.pending.pulls).get(&(domain, repository, *digest)).map(|(_, time)| *time)
    }
}

impl Registry {
    /// Whether something waits to be done.
    pub(crate) fn is_due(&self) -> bool {
        self.pending.due(self.clock.open_time())
    }

    /// Does what is due.
    pub(crate) fn do_pending(&self) -> Result<()> {
        if !self.is_due() {
            return Ok(());
        }
        let written = self.write_pulls();
        self.purge().and(written)
    }

    /// Remembers that a manifest was pulled now.
    pub(crate) fn note_pull(&self, repository: &Repository, digest: &Digest) {
        if self.files.read_only().is_some() {
            return; // it could never be written
        }
        let now = self.clock.now();
        let key = (repository.domain, repository.id, *digest);
        let mut waiting = lock(&self.pending.pulls);
        if waiting.is_empty() {
            self.pending.due_at.store(now.open.saturating_add(PULLS_HELD_FOR), Ordering::Relaxed);
        }
        // When nothing can be written (a full disk), the newest are not worth more memory.
        if waiting.len() < 2 * PULLS_HELD || waiting.contains_key(&key) {
            waiting.insert(key, (repository.name.to_string(), now.wall));
        }
        if waiting.len() >= PULLS_HELD {
            self.pending.due_at.store(0, Ordering::Relaxed);
        }
        drop(waiting);
        // Not done here, also without a maintenance thread: this is a read.
        if self.pending.due(now.open) {
            self.upkeep.wake();
        }
    }

    /// Has what a deleted repository has left removed, soon.
    pub(crate) fn purge_later(&self) {
        self.pending.purge.store(true, Ordering::Release);
        self.upkeep.committed(|| true);
    }

    /// Makes the times of pulls durable.
    pub(crate) fn write_pulls(&self) -> Result<()> {
        // They stay in sight until they are durable: whoever expires what was not pulled for long must not miss any.
        let taken = lock(&self.pending.pulls).clone();
        if taken.is_empty() {
            return Ok(());
        }
        let mut by_domain: BTreeMap<DomainId, Vec<(Named, Digest, u64)>> = BTreeMap::new();
        for ((domain, id, digest), (name, time)) in &taken {
            let named = Named { id: *id, name: name.clone() };
            by_domain.entry(*domain).or_default().push((named, *digest, *time));
        }
        let mut written = Ok(());
        for (domain, pulls) in by_domain {
            let note = |pulls: &[(Named, Digest, u64)]| {
                let note = Request::Apply(Box::new(NotePulls(pulls.to_vec())));
                self.log.commit_unthrottled(domain, note).map(drop)
            };
            // Where a fact is damaged that says when one was pulled, the others are noted.
            let note_readable = |pulls: &[_]| match note(pulls) {
                Err(Error::Corrupt { .. }) => pulls.iter().try_for_each(|one| match note(std::slice::from_ref(one)) {
                    Err(Error::Corrupt { .. }) => Ok(()),
                    other => other,
                }),
                other => other,
            };
            let noted = match pulls.chunks(NOTED_AT_ONCE).try_for_each(note_readable) {
                Err(Error::DomainShredded { .. }) => Ok(()), // nobody can ask for them any more
                other => other,
            };
            if noted.is_ok() {
                lock(&self.pending.pulls).retain(|key, value| key.0 != domain || taken.get(key) != Some(value));
            }
            written = written.and(noted);
        }
        let waiting = lock(&self.pending.pulls);
        let next = if waiting.is_empty() { NEVER } else { self.clock.open_time().saturating_add(PULLS_HELD_FOR) };
        self.pending.due_at.store(next, Ordering::Relaxed);
        written
    }

    /// Removes what is left of deleted repositories. Whoever else does so has done it when this returns.
    pub(crate) fn purge(&self) -> Result<()> {
        let _one = lock(&self.pending.purging);
        let was_damaged = self.pending.is_damaged.swap(false, Ordering::AcqRel);
        if !self.pending.purge.swap(false, Ordering::AcqRel) && !was_damaged {
            return Ok(());
        }
        let purged = self.purge_all();
        match &purged {
            Ok(()) => {}
            Err(Error::Corrupt { .. }) => self.pending.is_damaged.store(true, Ordering::Release),
            Err(_) => self.pending.purge.store(true, Ordering::Release),
        }
        purged
    }

    /// What can't be read of one repository does not keep the others.
    fn purge_all(&self) -> Result<()> {
        let (mut deleted, mut purged) = (Vec::new(), Ok(()));
        for snapshot in self.tables.snapshot().each_domain() {
            for fact in snapshot.facts(Family::Deleted, [0; 32])? {
                match fact {
                    Ok((key, _)) => deleted.push(key),
                    Err(error) => {
                        purged = purged.and(Err(error));
                        break;
                    }
                }
            }
        }
        for key in deleted {
            match self.purge_repository(key) {
                Ok(true) => {}
                Ok(false) => {
                    self.pending.purge.store(true, Ordering::Release);
                    return Ok(());
                }
                Err(error @ Error::Corrupt { .. }) => purged = purged.and(Err(error)),
                Err(error) => return Err(error),
            }
        }
        purged
    }

    /// Removes what is left of a deleted repository, which this fact names; `false` where it was told to stop.
    fn purge_repository(&self, key: Key) -> Result<bool> {
        let (domain, id) = (key.domain, key.repository_id());
        let uploads = match self.purge_uploads(domain, id) {
            Err(damage @ Error::Corrupt { .. }) => Err(damage), // the rest goes all the same
            other => Ok(other?),
        };
        // Tags first: each names a manifest that is there, until none does.
        let rest = [Family::Pull, Family::Referrer, Family::Manifest];
        let held = [Family::AwaitedBlob, Family::AwaitedManifest, Family::Link, Family::Document];
        for family in [Family::Tag, Family::TagOf].into_iter().chain(rest).chain(held) {
            if !self.purge_family(domain, family, id)? {
                return Ok(false);
            }
        }
        uploads?;
        self.log.commit_unthrottled(domain, Request::Apply(Box::new(Purge { repository: id, keys: vec![key] })))?;
        Ok(true)
    }

    fn purge_uploads(&self, domain: DomainId, id: RepositoryId) -> Result<()> {
        let (uploads, mut damage) = self.tables.snapshot_of(domain).readable_uploads()?;
        for (upload, _) in uploads.into_iter().filter(|(_, fact)| fact.repository == Some(id)) {
            match self.log.commit_unthrottled(domain, Request::CancelUpload { id: upload, untouched_since: None }) {
                Err(Error::UploadNotFound { .. }) => {}
                Err(error @ Error::Corrupt { .. }) => {
                    damage = Some(error);
                    continue;
                }
                other => self.log.remove_dropped(&other?),
            }
            self.blobs.forget_upload(upload);
        }
        damage.map_or(Ok(()), Err)
    }

    /// Removes facts of a family step by step; `false` where it was told to stop. Each step goes on behind the one
    /// before: what that has removed would else be gone through again and again.
    fn purge_family(&self, domain: DomainId, family: Family, id: RepositoryId) -> Result<bool> {
        let mut after = None;
        loop {
            let facts = self.tables.snapshot();
            let facts = facts.scan_all_after(Prefix::of(domain, family, id), after)?.take(PURGED_AT_ONCE);
            let keys = facts.map(|fact| Ok(fact?.0)).collect::<Result<Vec<Key>>>()?;
            after = keys.last().copied();
            if keys.is_empty() {
                return Ok(true);
            }
            self.log.commit_unthrottled(domain, Request::Apply(Box::new(Purge { repository: id, keys })))?;
            self.log.keep_up()?;
            if self.upkeep.closes() {
                return Ok(false);
            }
        }
    }
}
