//! Options of a scrub, and the reports of checks.

use std::time::Duration;

use crate::check::finding::{Finding, MOST_LISTED, note};
use crate::digest::Digest;
use crate::envelope::LockedDomain;
use crate::error::Error;
use crate::oci::{RepositoryName, Tag};

/// Options of [`Store::scrub`](crate::Store::scrub).
#[derive(Clone, Debug)]
#[must_use]
pub struct ScrubOptions {
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) max_time: Option<Duration>,
    pub(crate) recount: bool,
    pub(crate) restart: bool,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { bytes_per_second: None, max_time: None, recount: true, restart: false }
    }
}

impl ScrubOptions {
    /// A scrub that continues the last one if that stopped early, otherwise starts from the beginning, without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most bytes that are read in a second; without limit by default. The recount, which reads facts, does not
    /// count.
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(bytes.max(1));
        self
    }

    /// The most time that the scrub may take; without limit by default. The recount, and the blob that is being read,
    /// are finished all the same, so that each scrub makes progress.
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = Some(time);
        self
    }

    /// Whether reference counts are recounted before content is read; yes by default. A scrub that continues an earlier
    /// one does not recount again.
    pub fn recount(mut self, recount: bool) -> Self {
        self.recount = recount;
        self
    }

    /// Whether the scrub starts from the beginning, even if the last one stopped early; no by default.
    pub fn restart(mut self, restart: bool) -> Self {
        self.restart = restart;
        self
    }
}

/// The report of a scrub. See [`Store::scrub`](crate::Store::scrub).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Scrub {
    /// Whether it continued an earlier scrub. The numbers are then those of both.
    pub resumed: bool,
    /// When it was begun, by the wall clock, in milliseconds since 1970.
    pub began_ms: u64,
    /// Whether all content was read, except that of [locked](Self::locked) domains. If not, the next scrub continues.
    pub complete: bool,
    /// How many blobs were read.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many bytes of files were read for that.
    pub read_bytes: u64,
    /// How many bytes of files there were to read when it started, or continued.
    pub total_bytes: u64,
    /// How many blobs are damaged.
    pub damaged_blobs: u64,
    /// The damaged blobs, with what is affected: at most 10,000.
    pub damaged: Vec<DamagedBlob>,
    /// How many blobs that were flagged as damaged turned out to be sound.
    pub recovered: u64,
    /// Other findings: at most 10,000.
    pub findings: Vec<Finding>,
    /// How many findings are not in the list, because it is full, or because an earlier part of this scrub reported
    /// them.
    pub more_findings: u64,
    /// Whether [`damaged`](Self::damaged) lists everything that is damaged, and everything that is affected.
    pub all_listed: bool,
    /// The key domains that are locked: nothing of them was read.
    pub locked: Vec<LockedDomain>,
}

/// A blob whose content is damaged.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DamagedBlob {
    /// The blob, where its digest is known.
    pub digest: Option<Digest>,
    /// What is damaged, and where.
    pub error: Error,
    /// The repositories that have the blob, and what of them is affected.
    pub affected: Vec<Affected>,
    /// The named files that hold it.
    pub named: Vec<String>,
}

/// What of a repository is affected by damage to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Affected {
    /// The repository.
    pub repository: RepositoryName,
    /// Its manifests that can't be pulled completely: those that are the blob or reference it, and the indexes over
    /// those.
    pub manifests: Vec<Digest>,
    /// The tags that name one of those.
    pub tags: Vec<Tag>,
}

/// So many names and digests of what is affected are kept at most.
pub(super) const MOST_AFFECTED: usize = 20 * MOST_LISTED;

impl Scrub {
    /// Whether nothing wrong was found.
    pub fn is_sound(&self) -> bool {
        self.damaged_blobs == 0 && self.findings.is_empty() && self.more_findings == 0
    }

    /// Notes a finding, if there is one.
    pub(super) fn note(&mut self, finding: impl Into<Option<Finding>>) {
        note(&mut self.findings, &mut self.more_findings, finding);
    }
}
