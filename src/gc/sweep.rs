//! The sweep: forgets named files, uploads, links, repositories and blobs that are due.
//!
//! Except for uploads, it reads the [idle list](crate::facts::Idle), in which entries that are due come first, so its
//! cost is proportional to what there is to forget. A blob is *condemned* in one commit and *forgotten* in a later one.
//! A commit between the two that stores, claims or holds the blob removes or moves its entry in the list, and thereby
//! rescues it.

use std::collections::{HashMap, HashSet};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::{Idle, IdleKind, Key, LinkFact, Lookup, Named, NamedFact, RepositoryFact};
use crate::gc::collector::{Collector, Halt, Step};
use crate::id::{DomainId, RepositoryId};
use crate::tables::Snapshot;
use crate::transaction::Request;
use crate::transaction::collection::{Condemn, Forget};
use crate::transaction::named::{Released, RemoveSeveral};
use crate::transaction::registry::{Expire, ExpireRepository};

impl Collector<'_> {
    /// Forgets what is due: first named files, uploads, links and repositories, which hold blobs, then blobs.
    pub(super) fn sweep(&mut self) -> Step<()> {
        if !self.is_dry() {
            // What deleted repositories have left holds blobs.
            let purged = self.inner.registry.purge();
            self.unless_damaged(purged.map_err(Halt::from))?;
        }
        self.expire_named()?;
        self.expire_uploads(self.inner.settings.retention.0)?;
        self.expire_links()?;
        for domain in self.domains() {
            self.expire_repositories(domain)?;
            self.forget_blobs(domain)?;
        }
        Ok(())
    }

    pub(super) fn domains(&self) -> Vec<DomainId> {
        self.inner.tables.domains().to_vec()
    }

    /// Removes named files that have expired, by either clock.
    pub(super) fn expire_named(&mut self) -> Step<()> {
        for domain in self.domains() {
            for kind in [IdleKind::Named, IdleKind::NamedByClock] {
                self.each_due(domain, kind, |this, due| this.remove_expired(domain, &due))?;
            }
        }
        Ok(())
    }

    /// The content of what has expired is due at once: the caller has said until when it is relied on.
    fn remove_expired(&mut self, domain: DomainId, due: &[Idle]) -> Step<()> {
        let snapshot = self.snapshot_of(domain);
        let mut names = Vec::with_capacity(due.len());
        for idle in due {
            names.extend(snapshot.decode(&idle.key, NamedFact::decode)?.map(|file| file.name));
        }
        drop(snapshot);
        while !names.is_empty() {
            let remove = RemoveSeveral { names: names.clone(), only_expired: true, released: Released::Discarded };
            let outcome = self.commit(domain, Request::Apply(Box::new(remove)))?;
            self.report.named += outcome.applied as u64;
            // They hold very much: the others go in the next commit.
            names = outcome.refused.first().map_or_else(Vec::new, |(part, _)| names.split_off(*part));
            self.go_on()?;
        }
        Ok(())
    }

    /// Cancels uploads that nothing was appended to for so many milliseconds of open time.
    pub(super) fn expire_uploads(&mut self, idle: u64) -> Step<()> {
        let Some(since) = self.inner.clock.open_time().checked_sub(idle) else { return Ok(()) };
        for domain in self.domains() {
            self.expire_uploads_of(domain, since)?;
        }
        Ok(())
    }

    fn expire_uploads_of(&mut self, domain: DomainId, since: u64) -> Step<()> {
        let (uploads, damage) = self.inner.tables.snapshot_of(domain).readable_uploads()?;
        damage.into_iter().for_each(|damage| self.note_damage(damage));
        for (id, upload) in uploads {
            if upload.touched > since || self.inner.blobs.is_upload_busy(id) {
                continue;
            }
            match self.commit(domain, Request::CancelUpload { id, untouched_since: Some(since) }) {
                Ok(outcome) => self.report.uploads += u64::from(outcome.applied > 0),
                Err(Error::UploadNotFound { .. }) => {} // committed or cancelled meanwhile
                Err(error) => {
                    self.unless_damaged(Err(error.into()))?;
                    continue;
                }
            }
            if !self.is_dry() {
                self.inner.blobs.forget_upload(id);
            }
            self.go_on()?;
        }
        Ok(())
    }

    /// Removes links that no manifest holds and whose grace period has passed.
    pub(super) fn expire_links(&mut self) -> Step<()> {
        for domain in self.domains() {
            self.expire_links_of(domain)?;
        }
        Ok(())
    }

    fn expire_links_of(&mut self, domain: DomainId) -> Step<()> {
        let mut names = None;
        self.each_due(domain, IdleKind::Link, |this, due| {
            let names = match &mut names {
                Some(names) => names,
                none => none.insert(this.repository_names(domain)?),
            };
            this.expire_these(domain, due, names)
        })
    }

    /// The names of the domain's repositories, those that can be read.
    fn repository_names(&mut self, domain: DomainId) -> Step<HashMap<RepositoryId, Named>> {
        let mut names = HashMap::new();
        for one in self.snapshot_of(domain).repositories()? {
            let named = one.map(|one| names.insert(one.id, one.named()));
            self.unless_damaged(named.map(drop).map_err(Halt::from))?;
        }
        Ok(names)
    }

    /// Links of deleted repositories are left to the purge, which removes all that those had.
    fn expire_these(&mut self, domain: DomainId, due: Vec<Idle>, names: &HashMap<RepositoryId, Named>) -> Step<()> {
        let snapshot = self.snapshot_of(domain);
        let mut by_repository: HashMap<RepositoryId, Vec<(Idle, Option<Digest>)>> = HashMap::new();
        for idle in due {
            let Some(link) = snapshot.decode(&idle.key, LinkFact::decode)? else { continue };
            let digest = self.digest_at(&snapshot, &link.blob(&idle.key))?;
            by_repository.entry(idle.key.repository_id()).or_default().push((idle, digest));
        }
        drop(snapshot);
        for (id, links) in by_repository {
            let Some(repository) = names.get(&id).cloned() else { continue };
            let expired = self.commit(domain, Request::Apply(Box::new(Expire { repository, links })))?;
            self.report.links += expired.tally.links;
            self.go_on()?;
        }
        Ok(())
    }

    /// Deletes repositories that a push created and that received no manifest.
    fn expire_repositories(&mut self, domain: DomainId) -> Step<()> {
        let (uploads, damage) = self.inner.tables.snapshot_of(domain).readable_uploads()?;
        if let Some(damage) = damage {
            self.note_damage(damage);
            return Ok(()); // into which repositories there are uploads is not known
        }
        // One that is begun from now on touches its repository.
        let uploads = uploads.into_iter().filter(|(id, _)| self.would_be(&Key::upload(domain, *id)).is_none());
        let in_use: HashSet<RepositoryId> = uploads.filter_map(|(_, upload)| upload.repository).collect();
        self.each_due(domain, IdleKind::Repository, |this, due| {
            for idle in due {
                let found = this.snapshot_of(domain).decode(&idle.key, RepositoryFact::decode)?;
                let Some(found) = found else { continue };
                let expire = ExpireRepository { repository: found.named(), in_use: in_use.contains(&found.id) };
                let expired = this.commit(domain, Request::Apply(Box::new(expire)))?.tally.repositories;
                this.report.repositories += expired;
                if expired > 0 && !this.is_dry() {
                    this.inner.registry.purge_later();
                    let freed = this.inner.registry.free_name(domain, &found.name);
                    this.unless_damaged(freed.map_err(Halt::from))?;
                }
                this.go_on()?;
            }
            Ok(())
        })
    }

    /// The digest of the blob with a key, of which events tell; none where damage hides it.
    fn digest_at(&self, snapshot: &Snapshot, key: &Key) -> Result<Option<Digest>> {
        let Some(fact) = snapshot.blob_by_key(key)? else { return Ok(None) };
        match self.inner.blobs.digest_since(key, &fact) {
            Err(error) if error.is_shortage() => Err(error), // later it can be told: no event is to be missing
            other => Ok(other.ok().flatten()),
        }
    }

    fn forget_blobs(&mut self, domain: DomainId) -> Step<()> {
        self.each_due(domain, IdleKind::Blob, |this, due| {
            let snapshot = this.snapshot_of(domain);
            let with_digest = |idle: &Idle| Ok((*idle, this.digest_at(&snapshot, &idle.key)?));
            let with_digests = due.iter().map(with_digest).collect::<Result<Vec<_>>>()?;
            drop(snapshot);
            let count = due.len() as u64;
            this.commit(domain, Request::Apply(Box::new(Condemn(due))))?;
            this.go_on()?;
            let forgotten = this.commit(domain, Request::Apply(Box::new(Forget(with_digests))))?.tally.forgotten;
            this.report.blobs += forgotten.count;
            this.report.blob_bytes += forgotten.bytes;
            this.report.rescued += count.saturating_sub(forgotten.count);
            this.go_on()
        })
    }
}
