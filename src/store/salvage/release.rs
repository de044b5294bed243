//! Removing blobs whose content is in no file any more, with everything that holds them.
//!
//! What is held can't be deleted, and a file is removed only when no blob in it is held. So where the content of a blob
//! is gone, everything that held it at the last kept commit was deleted by a commit that is cut. It is deleted again,
//! by the functions that keep counts and lists right. (A file that was lost for another reason looks the same. The
//! report lists what is removed in either case.)

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::error::Result;
use crate::facts::find;
use crate::facts::{Family, Held, Key, LinkFact, Lookup, ManifestFact, Prefix, Reader, RepositoryFact, Value};
use crate::id::{DomainId, FileId, RepositoryId};
use crate::oci::Reference;
use crate::store::salvage::Planner;
use crate::transaction::named::{Released, RemoveNamed};
use crate::transaction::registry::{DeleteReferences, MAX_TAGS_DELETED, Purge, Untag};
use crate::transaction::{Apply, Changes, ExpectNamed, Op, Request};

/// Nothing is placed in a log file.
const NO_LOG: FileId = FileId(0);

impl Planner {
    /// The digests of blobs, where keys or what refers to the blobs tell them.
    pub(super) fn digests_of(&self, keys: &BTreeSet<Key>) -> Result<BTreeMap<Key, Digest>> {
        let mut digests = BTreeMap::new();
        for domain in keys.iter().map(|key| key.domain).collect::<BTreeSet<_>>() {
            let snapshot = self.inner.tables.snapshot_of(domain);
            let mut note = |digest: &Digest| {
                let key = Key::blob(domain, digest);
                if keys.contains(&key) {
                    digests.insert(key, *digest);
                }
            };
            self.report.cut.blobs.iter().for_each(&mut note);
            for file in snapshot.named_files()? {
                file?.held().for_each(&mut note);
            }
            for fact in snapshot.all::<ManifestFact>()? {
                let (_, manifest) = fact?;
                note(&manifest.digest);
                for held in &manifest.held {
                    let (Held::Blob(digest) | Held::Manifest(digest)) = held;
                    note(digest);
                }
            }
        }
        for key in keys {
            if let Some(fact) = self.inner.tables.snapshot_of(key.domain).blob_by_key(key)?
                && let Ok(digest) = self.inner.blobs.digest_of(key, &fact)
            {
                digests.insert(*key, digest);
            }
        }
        Ok(digests)
    }

    /// Lets go of blobs whose content is in no file, and of what holds them. Returns those that are still held.
    pub(super) fn release(&mut self, gone: &BTreeSet<Key>) -> Result<BTreeSet<Key>> {
        let domains: BTreeSet<DomainId> = gone.iter().map(|key| key.domain).collect();
        let digests = self.digests_of(gone)?;
        for domain in domains {
            self.release_named(domain, gone)?;
            let repositories = self.inner.tables.snapshot_of(domain).repositories()?.collect::<Result<Vec<_>>>()?;
            for repository in &repositories {
                self.release_manifests(repository, gone)?;
            }
            self.release_rest(domain, gone, &digests)?;
        }
        let mut held = BTreeSet::new();
        for key in gone {
            let Some(blob) = self.inner.tables.snapshot_of(key.domain).blob_by_key(key)? else { continue };
            if blob.count > 0 {
                held.insert(*key);
                continue;
            }
            match digests.get(key) {
                Some(digest) => drop(self.report.gone.blobs.insert(*digest)),
                None => self.report.unnamed += 1,
            }
            self.apply(key.domain, NO_LOG, Box::new(Forget(*key)))?;
        }
        Ok(held)
    }

    fn release_named(&mut self, domain: DomainId, gone: &BTreeSet<Key>) -> Result<()> {
        let files = self.inner.tables.snapshot_of(domain).named_files()?.collect::<Result<Vec<_>>>()?;
        for file in files {
            if file.held().any(|digest| gone.contains(&Key::blob(domain, digest))) {
                let (expect, released) = (ExpectNamed::Any, Released::Kept);
                let remove = RemoveNamed { name: file.name, expect, released };
                self.apply(domain, NO_LOG, Box::new(remove))?;
            }
        }
        Ok(())
    }

    /// Deletes the manifests of a repository that are, or hold, one of the blobs, and the indexes over those.
    fn release_manifests(&mut self, repository: &RepositoryFact, gone: &BTreeSet<Key>) -> Result<()> {
        let domain = repository.domain;
        let snapshot = self.inner.tables.snapshot_of(domain);
        let is_gone = |digest: &Digest| gone.contains(&Key::blob(domain, digest));
        let (mut manifests, mut going) = (Vec::new(), BTreeSet::new());
        for fact in snapshot.all_of::<ManifestFact>(repository.id)? {
            let (_, manifest) = fact?;
            let mut goes = is_gone(&manifest.digest);
            // What is awaited was never the repository's: another one has lost it.
            for held in manifest.held.iter().filter(|held| matches!(held, Held::Blob(digest) if is_gone(digest))) {
                goes |= find::awaited(&snapshot, repository.id, held)?.is_none();
            }
            going.extend(goes.then_some(manifest.digest));
            manifests.push(manifest);
        }
        loop {
            let before = going.len();
            for manifest in &manifests {
                if manifest.held.iter().filter_map(Held::manifest).any(|held| going.contains(&held)) {
                    going.insert(manifest.digest);
                }
            }
            if going.len() == before {
                break;
            }
        }
        // One in a step: all of them may not fit into one. An index goes before what it holds.
        while !going.is_empty() {
            let before = going.len();
            for digest in going.clone() {
                self.release_tags(repository, &digest)?;
                let references = vec![Reference::Digest(digest)];
                let delete = DeleteReferences { repository: repository.named(), references };
                if !self.apply(domain, NO_LOG, Box::new(delete))?.is_empty() {
                    going.remove(&digest);
                }
            }
            if going.len() == before {
                break;
            }
        }
        Ok(())
    }

    /// Removes a manifest's tags, where those are too many to go with it.
    fn release_tags(&mut self, repository: &RepositoryFact, digest: &Digest) -> Result<()> {
        let (domain, id) = (repository.domain, repository.id);
        let snapshot = self.inner.tables.snapshot_of(domain);
        let tags = snapshot.scan_all(Prefix::under(domain, Family::TagOf, id, digest))?;
        let name = |fact: Result<(Key, Value)>| Ok(String::from_utf8_lossy(fact?.1.as_bytes()).into_owned());
        let tags = tags.map(name).collect::<Result<Vec<_>>>()?;
        if tags.len() > MAX_TAGS_DELETED {
            for tags in tags.chunks(MAX_TAGS_DELETED) {
                let untag = Untag { repository: repository.named(), digest: *digest, tags: tags.to_vec() };
                self.apply(domain, NO_LOG, Box::new(untag))?;
            }
        }
        Ok(())
    }

    /// Takes the blobs from repositories, also from what is left of deleted ones.
    fn release_rest(&mut self, domain: DomainId, gone: &BTreeSet<Key>, digests: &BTreeMap<Key, Digest>) -> Result<()> {
        let snapshot = self.inner.tables.snapshot_of(domain);
        let repositories = snapshot.repositories()?.map(|one| Ok(one?.id));
        let repositories = repositories.collect::<Result<BTreeSet<RepositoryId>>>()?;
        let mut going: Vec<(RepositoryId, Key, Key)> = Vec::new();
        for fact in snapshot.all::<LinkFact>()? {
            let (key, link) = fact?;
            let blob = link.blob(&key);
            if gone.contains(&blob) && (link.count == 0 || !repositories.contains(&key.repository_id())) {
                going.push((key.repository_id(), key, blob));
            }
        }
        for fact in snapshot.all::<ManifestFact>()? {
            let (key, manifest) = fact?;
            let blob = Key::blob(domain, &manifest.digest);
            if gone.contains(&blob) && !repositories.contains(&key.repository_id()) {
                going.push((key.repository_id(), key, blob));
            }
        }
        for (repository, key, blob) in going {
            let name = self.names.get(&repository);
            let changes = name.and_then(|name| self.report.gone.repository(name));
            if let (Some(changes), Some(digest)) = (changes, digests.get(&blob)) {
                changes.blobs.insert(*digest);
            }
            self.apply(domain, NO_LOG, Box::new(Purge { repository, keys: vec![key] }))?;
        }
        Ok(())
    }

    /// Ends uploads whose segment is gone, and those whose segment is complete: they were committed, or about to be.
    pub(super) fn release_uploads(&mut self, is_over: impl Fn(FileId) -> bool) -> Result<()> {
        let domains = self.inner.tables.snapshot().domains().to_vec();
        for domain in domains {
            let uploads = self.inner.tables.snapshot_of(domain).uploads()?.collect::<Result<Vec<_>>>()?;
            for (id, upload) in uploads {
                if upload.file.is_some_and(&is_over) {
                    self.commit(domain, NO_LOG, &Request::CancelUpload { id, untouched_since: None })?;
                }
            }
        }
        Ok(())
    }
}

/// Forgets a blob that nothing holds.
#[derive(Debug)]
struct Forget(Key);

impl Apply for Forget {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let old = facts.blob_by_key(&self.0)?;
        facts.change(self.0, old.as_ref(), None)?;
        Ok(Vec::new())
    }
}
