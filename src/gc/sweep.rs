//! The sweep: what nothing holds, and nobody relies on any more, is forgotten.
//!
//! It goes through the [list of what nothing holds](crate::facts::Idle), in which what has come due is in front, and so costs what there is to
//! forget. A blob is *condemned* in one commit and *forgotten* in a later one. Whoever stores, claims or holds it between the two takes its entry from the list, and with that
//! rescues it.

use std::collections::HashMap;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::{BlobFact, Idle, IdleKind, LinkFact, PinFact};
use crate::gc::collector::{Collector, Step};
use crate::id::{DomainId, RepositoryId};
use crate::log::{Named, Op};
use crate::registry::changes::Expire;
use crate::store::files::Space;
use crate::store::request::{Apply, Facts, Request};
use crate::store::view::Lookup;

/// So many entries go in one commit: others wait for it.
const AT_ONCE: usize = 256;

/// Condemns blobs.
#[derive(Debug)]
pub(crate) struct Condemn(Vec<Idle>);

impl Apply for Condemn {
    fn apply(&self, facts: &mut Facts<'_>) -> Result<Vec<Op>> {
        for idle in &self.0 {
            if facts.idle(idle)?.is_some_and(|idle| !idle.condemned) {
                let (at, value) = Idle { condemned: true, ..*idle }.fact();
                facts.set(at, value);
            }
        }
        Ok(Vec::new())
    }

    fn space(&self) -> Space {
        Space::Reserve
    }
}

/// Forgets blobs that were condemned, with the digests of those of which it can be read, for who follows events.
#[derive(Debug)]
pub(crate) struct Forget(Vec<(Idle, Option<Digest>)>);

impl Apply for Forget {
    fn apply(&self, facts: &mut Facts<'_>) -> Result<Vec<Op>> {
        let mut ops = Vec::new();
        for (idle, digest) in &self.0 {
            // The entry is there, and condemned: nothing holds the blob, and nobody has asked for it since.
            if !facts.idle(idle)?.is_some_and(|idle| idle.condemned) {
                continue;
            }
            if let Some(blob) = facts.blob_by_key(&idle.key)? {
                facts.change(idle.key, Some(&blob), None)?;
                ops.extend(digest.map(|digest| Op::Remove { digest }));
            }
        }
        Ok(ops)
    }

    fn space(&self) -> Space {
        Space::Reserve
    }
}

impl Collector<'_> {
    /// Forgets what has come due: first what holds, then what was held.
    pub(super) fn sweep(&mut self) -> Step<()> {
        if !self.is_dry() {
            // What deleted repositories have left holds blobs.
            self.inner.purge()?;
        }
        self.expire_pins()?;
        self.expire_uploads()?;
        self.expire_links()?;
        for domain in self.domains() {
            self.forget_blobs(domain)?;
        }
        Ok(())
    }

    pub(super) fn domains(&self) -> Vec<DomainId> {
        self.inner.snapshot().domains().to_vec()
    }

    fn expire_pins(&mut self) -> Step<()> {
        let mut after = None;
        loop {
            let due = self.due(DomainId::DEFAULT, IdleKind::Pin, after, self.at_once(AT_ONCE))?;
            let Some(last) = due.last() else { return Ok(()) };
            after = Some(last.at());
            for idle in due {
                let pin = self.snapshot_of(DomainId::DEFAULT).decode(&idle.key, PinFact::decode)?;
                let Some(name) = pin.map(|pin| pin.name) else { continue };
                let now = self.inner.open_time();
                let outcome = self.commit(DomainId::DEFAULT, Request::ExpirePin { name, now })?;
                self.report.pins += u64::from(outcome.applied > 0);
                self.go_on()?;
            }
        }
    }

    /// Gives up uploads that were not touched for the retention time.
    fn expire_uploads(&mut self) -> Step<()> {
        let retention = self.inner.options.retention_time().0;
        let Some(since) = self.inner.open_time().checked_sub(retention) else { return Ok(()) };
        for domain in self.domains() {
            for (id, upload) in self.inner.upload_facts(domain)? {
                if upload.touched > since || self.inner.is_upload_busy(id) {
                    continue;
                }
                let request = Request::CancelUpload { id, untouched_since: Some(since) };
                match self.commit(domain, request) {
                    Ok(outcome) => self.report.uploads += u64::from(outcome.applied > 0),
                    Err(Error::UploadNotFound { .. }) => {} // committed or cancelled meanwhile
                    Err(error) => return Err(error.into()),
                }
                if !self.is_dry() {
                    self.inner.forget_upload(id);
                }
                self.go_on()?;
            }
        }
        Ok(())
    }

    /// Takes links away on which nobody relies any more.
    pub(super) fn expire_links(&mut self) -> Step<()> {
        for domain in self.domains() {
            self.expire_links_of(domain)?;
        }
        Ok(())
    }

    fn expire_links_of(&mut self, domain: DomainId) -> Step<()> {
        let mut names: Option<HashMap<RepositoryId, Named>> = None;
        let mut after = None;
        loop {
            let due = self.due(domain, IdleKind::Link, after, self.at_once(AT_ONCE))?;
            let Some(last) = due.last() else { return Ok(()) };
            after = Some(last.at());
            let snapshot = self.snapshot_of(domain);
            // Those of deleted repositories are not among them: what is theirs goes otherwise.
            if names.is_none() {
                let all = snapshot.repositories()?.map(|one| one.map(|one| (one.id, one.named())));
                names = Some(all.collect::<Result<_>>()?);
            }
            let mut by_repository: HashMap<RepositoryId, Vec<(Idle, Option<Digest>)>> = HashMap::new();
            for idle in due {
                let Some(link) = snapshot.decode(&idle.key, LinkFact::decode)? else { continue };
                let blob = link.blob(&idle.key);
                let digest = snapshot.blob_by_key(&blob)?.and_then(|fact| self.inner.digest_of(&blob, &fact).ok());
                by_repository.entry(idle.key.repository_id()).or_default().push((idle, digest));
            }
            drop(snapshot);
            for (id, links) in by_repository {
                let Some(repository) = names.as_ref().and_then(|names| names.get(&id)).cloned() else { continue };
                let expired = self.commit(domain, Request::Apply(Box::new(Expire { repository, links })))?;
                self.report.links += expired.tally.links;
                self.go_on()?;
            }
        }
    }

    fn forget_blobs(&mut self, domain: DomainId) -> Step<()> {
        let mut after = None;
        loop {
            let due = self.due(domain, IdleKind::Blob, after, self.at_once(AT_ONCE))?;
            let Some(last) = due.last() else { return Ok(()) };
            after = Some(last.at());
            let snapshot = self.snapshot_of(domain);
            let mut with_digests = Vec::with_capacity(due.len());
            for idle in &due {
                let blob = snapshot.blob_by_key(&idle.key)?;
                with_digests.push((*idle, blob.and_then(|fact: BlobFact| self.inner.digest_of(&idle.key, &fact).ok())));
            }
            drop(snapshot);
            let count = due.len() as u64;
            self.commit(domain, Request::Apply(Box::new(Condemn(due))))?;
            self.go_on()?;
            let forgotten = self.commit(domain, Request::Apply(Box::new(Forget(with_digests))))?.tally.forgotten;
            self.report.blobs += forgotten.count;
            self.report.blob_bytes += forgotten.bytes;
            self.report.rescued += count.saturating_sub(forgotten.count);
            self.go_on()?;
        }
    }
}
