//! What imports into repositories and exports of them report.

use std::path::PathBuf;

use crate::digest::Digest;
use crate::error::ManifestProblem;

/// So much of what was skipped is listed.
const LISTED: usize = 1000;

/// What an import into repositories did. What was there already was not read again, apart from manifests.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RegistryImport {
    /// How many repositories there were.
    pub repositories: u64,
    /// Blobs, without manifests, counted once for each repository that has them.
    pub blobs: Counts,
    /// Manifests and indexes.
    pub manifests: Counts,
    /// Tags.
    pub tags: Counts,
    /// Documents of repositories.
    pub documents: Counts,
    /// How many bytes of content were read.
    pub bytes: u64,
    /// Unfinished uploads, which are not imported: their clients begin anew. Those that can't be listed do not count.
    pub uploads: u64,
    /// What was skipped.
    pub skipped: Skips,
}

/// What an export of repositories did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RegistryExport {
    /// How many repositories were written.
    pub repositories: u64,
    /// How many manifests and indexes.
    pub manifests: u64,
    /// How many tags.
    pub tags: u64,
    /// How many blobs of repositories, counted once for each repository that has them.
    pub blobs: u64,
    /// How many named files.
    pub named: u64,
    /// How many documents of repositories.
    pub documents: u64,
    /// How many bytes of content were written: what is linked counts once.
    pub bytes: u64,
    /// What is damaged, and key domains that are locked: they were not written.
    pub skipped: Skips,
    /// A directory that could not be removed after all was moved from it.
    pub left_behind: Option<PathBuf>,
}

/// How many of something were imported, and how many were there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Imported by this call.
    pub new: u64,
    /// There before.
    pub existing: u64,
}

/// What an import or an export skipped.
#[derive(Clone, Debug, Default)]
pub struct Skips {
    listed: Vec<Skipped>,
    count: u64,
    strays: u64,
}

impl Skips {
    /// The first 1,000 of it.
    pub fn listed(&self) -> &[Skipped] {
        &self.listed
    }

    /// How much there is, listed or not.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How much of it is content or names that are left out: all but [strays](Reason::Stray). Where it is 0, the import
    /// or export is complete.
    pub fn lost(&self) -> u64 {
        self.count - self.strays
    }

    pub(crate) fn add(&mut self, repository: &str, what: impl ToString, reason: Reason) {
        self.count += 1;
        self.strays += u64::from(reason == Reason::Stray);
        if self.listed.len() < LISTED {
            self.listed.push(Skipped { repository: repository.to_owned(), what: what.to_string(), reason });
        }
    }
}

/// Something that was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The repository that it is in; empty where it is in none.
    pub repository: String,
    /// A digest, a tag, or a path.
    pub what: String,
    /// Why it was skipped.
    pub reason: Reason,
}

/// Why something was skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Its content is missing, or is not a regular file: links are not followed.
    #[error("its content is missing, or no regular file")]
    Missing,
    /// The file that should have its digest has something else, or can't be read as a whole.
    #[error("what says which content it has is no digest")]
    InvalidLink,
    /// Its content has another digest.
    #[error("its content is damaged: it has the digest {found}")]
    WrongDigest {
        /// The digest that it has.
        found: Digest,
    },
    /// It can't be read: the disk has an error, the file belongs to another user, or another process has a lease of it.
    #[error("it can't be read: {problem}")]
    Unreadable {
        /// The error of the operating system.
        problem: String,
    },
    /// It is no name of a repository or a tag.
    #[error("it is no valid name")]
    InvalidName,
    /// It stands where the layout has a directory, and is none: links are not followed. What should be in it is lost.
    #[error("no directory, where the layout has one; links are not followed")]
    NoDirectory,
    /// It is a [locked](crate::Store::locked_domains) key domain: its repositories and named files are left out.
    #[error("it is locked: open the store with its key")]
    Locked,
    /// It is nothing that belongs to the layout.
    #[error("not part of the layout")]
    Stray,
    /// It is a Docker manifest of the first schema, which clients do not use any more.
    #[error("a Docker manifest of schema 1, which is not supported")]
    OldManifest,
    /// It is no manifest that the store accepts.
    #[error("{problem}")]
    InvalidManifest {
        /// What is wrong with it.
        problem: ManifestProblem,
    },
    /// It has more bytes than a manifest may have.
    #[error("a manifest of {len} bytes is too long")]
    TooLong {
        /// Its length.
        len: u64,
    },
    /// The file system of the store has less space than it takes.
    #[error("it has {len} bytes, more than are free where the store is")]
    NoSpace {
        /// Its length.
        len: u64,
    },
    /// It references blobs that the repository does not have, by what else was skipped or was missing before: no client
    /// could have pulled it.
    #[error("the repository lacks {count} blobs that it references, {first} among them")]
    ReferencesMissing {
        /// How many.
        count: usize,
        /// One of them.
        first: Digest,
    },
    /// It names a manifest that was skipped, or that the repository does not have.
    #[error("it names {digest}, which the repository does not have")]
    ManifestMissing {
        /// The manifest.
        digest: Digest,
    },
    /// The repository's settings do not let it be moved, and it names another manifest.
    #[error("the tag is immutable and names {digest}")]
    Immutable {
        /// The manifest that it names.
        digest: Digest,
    },
}
