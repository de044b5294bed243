//! The report of a salvage.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::check::Finding;
use crate::digest::Digest;
use crate::error::Error;
use crate::facts::{Fact, Family, ManifestFact, Named, RepositoryFact, UploadFact, Value};
use crate::id::{Lsn, RepositoryId, UploadId};
use crate::oci::{RepositoryName, Tag};
use crate::transaction::Op;

/// What a salvage keeps, and what may be missing after it. See [`Options::salvage`](crate::Options::salvage).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Where the log is damaged; it is cut at the first. Empty where there is nothing to salvage.
    pub damage: Vec<Error>,
    /// The last commit that is kept.
    pub kept: Lsn,
    /// The last commit that is known of. Those after [`kept`](Self::kept) are cut.
    pub last: Lsn,
    /// Whether there may have been commits after the last one that is known of: the store was not closed, and the end
    /// of its log may be lost.
    pub may_be_more: bool,
    /// The cut commits that could not be read: **anything written in them may be missing**, whether it is listed below
    /// or not.
    pub unread: Vec<RangeInclusive<Lsn>>,
    /// What the other cut commits changed. Each of these is as it was at the last kept commit, or missing, except for
    /// content that was [recovered](Self::recovered).
    pub cut: ChangedNames,
    /// What existed at the last kept commit and is removed, because its content is in no file any more: as far as can
    /// be known, a later commit removed it together with what held it.
    pub gone: ChangedNames,
    /// How many blobs are removed besides, whose SHA-512 digest was stored only in front of their content. Nothing that
    /// is kept referenced them.
    pub unnamed: u64,
    /// Blobs of cut commits whose content was found. Nothing references them, so they are collected after the retention
    /// time unless what referenced them is pushed again.
    pub recovered: BTreeSet<Digest>,
    /// Content that is damaged. It is flagged: a push of the same content repairs it.
    pub damaged: Vec<Finding>,
    /// The directory of the copies: of log files from the first damage on, of files that nothing refers to any more,
    /// and of the list of log files as it was.
    pub copies: PathBuf,
    /// How many bytes the copies have.
    pub copied_bytes: u64,
}

impl SalvageReport {
    /// Whether there is something to salvage.
    pub fn is_needed(&self) -> bool {
        !self.damage.is_empty()
    }
}

/// What commits have changed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangedNames {
    /// Blobs that were stored or removed.
    pub blobs: BTreeSet<Digest>,
    /// Named files that were set or removed.
    pub named: BTreeSet<String>,
    /// Uploads that were begun, continued or ended.
    pub uploads: BTreeSet<UploadId>,
    /// Repositories in which something has changed.
    pub repositories: BTreeMap<RepositoryName, ChangedInRepository>,
}

/// What commits have changed in a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangedInRepository {
    /// Whether the repository was created, changed or deleted: with all that was in it.
    pub itself: bool,
    /// Blobs that were pushed, mounted or removed.
    pub blobs: BTreeSet<Digest>,
    /// Manifests that were pushed, pulled or deleted.
    pub manifests: BTreeSet<Digest>,
    /// Tags that were set or removed.
    pub tags: BTreeSet<Tag>,
    /// Documents that were set or removed.
    pub documents: BTreeSet<String>,
}

impl ChangedNames {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn repository(&mut self, name: &str) -> Option<&mut ChangedInRepository> {
        Some(self.repositories.entry(name.parse().ok()?).or_default())
    }

    /// Notes what operations have changed, in a store whose repositories have had these names. `None` where they name
    /// what is no name.
    pub(super) fn note(&mut self, ops: &[Op], names: &mut BTreeMap<RepositoryId, String>) -> Option<()> {
        for op in ops {
            match op {
                Op::Put { digest, .. } | Op::Remove { digest } => drop(self.blobs.insert(*digest)),
                Op::SetNamed { name, .. } | Op::RemoveNamed { name, .. } => drop(self.named.insert(name.clone())),
                Op::BeginUpload { id, .. } | Op::AppendUpload { id, .. } | Op::CancelUpload { id } => {
                    self.uploads.insert(*id);
                }
                Op::CommitUpload { id, digest, .. } => {
                    self.uploads.insert(*id);
                    self.blobs.insert(*digest);
                }
                Op::DropFile { .. } => {}
                Op::Link { repository, digest } | Op::Unlink { repository, digest } => {
                    self.named(repository, names)?.blobs.insert(*digest);
                }
                Op::CreateRepository { repository }
                | Op::DeleteRepository { repository }
                | Op::SetRepository { repository } => self.named(repository, names)?.itself = true,
                Op::PutManifest { repository, digest, .. } => {
                    self.blobs.insert(*digest);
                    self.named(repository, names)?.manifests.insert(*digest);
                }
                Op::DeleteManifest { repository, digest }
                | Op::Pull { repository, digest, .. }
                | Op::SetStorageClass { repository, digest, .. } => {
                    self.named(repository, names)?.manifests.insert(*digest);
                }
                Op::Tag { repository, tag, .. } | Op::Untag { repository, tag, .. } => {
                    self.named(repository, names)?.tags.insert(tag.parse().ok()?);
                }
                Op::Document { repository, name } => {
                    self.named(repository, names)?.documents.insert(name.clone());
                }
                Op::Purge { repository, tags } => {
                    // Its deletion is another commit, which names it.
                    if let Some(name) = names.get(repository) {
                        let tags = tags.iter().map(|tag| tag.parse().ok()).collect::<Option<Vec<Tag>>>()?;
                        self.repository(name)?.tags.extend(tags);
                    }
                }
            }
        }
        Some(())
    }

    /// Notes what facts have changed that no operation tells of.
    pub(super) fn note_facts(&mut self, facts: &[Fact], names: &BTreeMap<RepositoryId, String>) -> Option<()> {
        for (key, value) in facts {
            let value = value.as_ref().map(Value::as_bytes);
            match (key.family, value) {
                (Family::Repository, Some(value)) => {
                    self.repository(&RepositoryFact::decode(value)?.name)?.itself = true;
                }
                (Family::Manifest, Some(value)) => {
                    if let Some(name) = names.get(&key.repository_id()) {
                        self.repository(name)?.manifests.insert(ManifestFact::decode(value)?.digest);
                    }
                }
                (Family::Upload, Some(value)) => {
                    UploadFact::decode(value)?;
                    self.uploads.insert(UploadId(*key.bytes.first_chunk()?));
                }
                _ => {}
            }
        }
        Some(())
    }

    fn named(
        &mut self,
        repository: &Named,
        names: &mut BTreeMap<RepositoryId, String>,
    ) -> Option<&mut ChangedInRepository> {
        names.insert(repository.id, repository.name.clone());
        self.repository(&repository.name)
    }
}
