//! Findings of checks.

use crate::digest::Digest;
use crate::error::Error;

/// So many findings are kept at most, and so many damaged blobs.
pub(super) const MOST_LISTED: usize = if cfg!(test) { 50 } else { 10_000 };

/// Something wrong that a check found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Finding {
    /// A blob can't be read, or is not what its digest says. (In a [`Scrub`](crate::Scrub): it can't be read, for
    /// another reason than damage.)
    Blob {
        /// The blob, where its digest is known.
        digest: Option<Digest>,
        /// Why.
        error: Error,
    },
    /// A segment's header or footer, or what stands in front of a blob in one, is damaged. The blobs may be sound all
    /// the same.
    Segment {
        /// Which, and where.
        error: Error,
    },
    /// A part of a run is damaged. If facts are found without it, if not as fast, merging the run repairs it.
    Run {
        /// Which, and where.
        error: Error,
    },
    /// Records in the log are damaged whose facts no run has, while the store is open and knows those facts. A scrub
    /// folds them into a run, so that the store opens again. After a [`verify`](crate::Store::verify) that finds this,
    /// call [`checkpoint`](crate::Store::checkpoint).
    Log {
        /// Which, and where.
        error: Error,
    },
    /// Facts are damaged: neither they nor what would have been checked by them is known.
    Facts {
        /// Which, and where.
        error: Error,
    },
    /// A stored count differs from the recount.
    Count {
        /// What is counted.
        what: String,
        /// The number on record.
        stored: u64,
        /// The recount.
        counted: u64,
    },
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blob { digest: Some(digest), error } => write!(f, "{digest}: {error}"),
            Self::Blob { digest: None, error } | Self::Segment { error } | Self::Run { error } => error.fmt(f),
            Self::Log { error } => write!(f, "records that no run has are damaged: {error}"),
            Self::Facts { error } => write!(f, "facts can't be read: {error}"),
            Self::Count { what, stored, counted } => write!(f, "{what}: {stored} on record, {counted} counted"),
        }
    }
}

/// Adds a finding, if there is one, to a list that has not too many.
pub(super) fn note(findings: &mut Vec<Finding>, more: &mut u64, finding: impl Into<Option<Finding>>) {
    let Some(finding) = finding.into() else { return };
    if findings.len() < MOST_LISTED {
        findings.push(finding);
    } else {
        *more += 1;
    }
}
