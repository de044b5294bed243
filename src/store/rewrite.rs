//! Re-encryption of content and facts that are encrypted with an old key, or not at all.
//!
//! Blobs are re-encrypted one by one, each in a commit that changes its place; readers that have the old place open are
//! not disturbed. Runs are merged. Rewriting can be interrupted at any time: what was done stays done, and the next
//! call continues. When nothing needs the old keys any more, they are given up.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::blobs::{Blob, Content};
use crate::envelope::{KeyNumber, Keyring, LockedDomain};
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Key, Lookup, SegmentFact};
use crate::files::{Contents as _, Space};
use crate::id::{DomainId, FileId};
use crate::segment::Frame;
use crate::store::{Inner, Store};
use crate::tables::RunMeta;
use crate::transaction::Request;

/// The progress of re-encryption. See [`Store::rewrite`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Rewriting {
    /// How many bytes of content, as stored, there were to rewrite.
    pub total_bytes: u64,
    /// How many of those were rewritten, or removed meanwhile.
    pub bytes: u64,
    /// How many blobs were rewritten.
    pub blobs: u64,
    /// Content that could not be rewritten because it is damaged.
    pub damaged: Vec<Error>,
    /// The key domains that are locked: nothing in them was rewritten.
    pub locked: Vec<LockedDomain>,
    /// Whether all is done: no domain is locked, everything is encrypted with its domain's current key, and the other
    /// keys are given up.
    pub complete: bool,
}

/// When rewriting began: a writer of a file with a lower id than that log file may have begun with an old key; while
/// the keys are those, all that is written to files with higher ids is encrypted with the current one.
#[derive(Debug)]
pub(crate) struct Began {
    pub(crate) log: FileId,
    pub(crate) keys: Arc<Keyring>,
}

impl Store {
    /// Re-encrypts with the current keys everything that is encrypted with old ones, or was stored before encryption
    /// was [turned on](Self::encrypt), and then gives the old keys up, while reads and writes continue. `progress` is
    /// called after each blob; `Break` stops the rewriting.
    ///
    /// In a store that is not encrypted this does nothing, and [`complete`](Rewriting::complete) is false.
    ///
    /// The events so far are dropped, since they are stored in old log files: [`events`](Self::events) from an earlier
    /// position fails with [`Error::Gap`].
    ///
    /// # Errors
    /// Those of writing; what was rewritten before the error stays so. Damaged content is no error, but
    /// [`reported`](Rewriting::damaged), and its key is kept.
    pub fn rewrite(&self, mut progress: impl FnMut(&Rewriting) -> ControlFlow<()>) -> Result<Rewriting> {
        let inner = self.inner()?;
        let mut report = Rewriting::default();
        if !inner.files.keys().is_encrypted() {
            return Ok(report);
        }
        // Keys change only between log files.
        let (log, keys) = inner.log.begin_new_log(|| inner.files.keys())?;
        let began = Began { log, keys };
        let domains = inner.tables.domains().to_vec();
        for domain in &domains {
            report.total_bytes += inner.bytes_with_old_keys(*domain)?;
        }
        report.locked = inner.files.keys().locked_domains();
        report.complete = report.locked.is_empty();
        for domain in &domains {
            let done = inner.rewrite_domain(*domain, &mut report, &mut progress)?;
            let is_complete = done && inner.retire(*domain, &began)?;
            report.complete &= is_complete;
        }
        Ok(report)
    }
}

impl Inner {
    /// How many bytes live in segments that are encrypted with an old key, or not at all.
    fn bytes_with_old_keys(&self, domain: DomainId) -> Result<u64> {
        let current = self.files.keys().current(domain);
        let is_old = |segment: &SegmentFact| Some(segment.key) != current;
        self.tables.snapshot_of(domain).sum_segments(|segment| if is_old(segment) { segment.live_bytes } else { 0 })
    }

    /// Rewrites what a domain has; `false` where something is left.
    fn rewrite_domain(
        &self,
        domain: DomainId,
        report: &mut Rewriting,
        progress: &mut dyn FnMut(&Rewriting) -> ControlFlow<()>,
    ) -> Result<bool> {
        let Some(current) = self.files.keys().current(domain) else { return Ok(true) };
        let snapshot = self.tables.snapshot_of(domain);
        let damaged = report.damaged.len();
        for fact in snapshot.all::<BlobFact>()? {
            let (key, blob) = fact?;
            if blob.place.key == current {
                continue;
            }
            match self.rewrite_blob(&key, &blob) {
                Ok(()) => report.blobs += 1,
                // It may have been removed, or moved, since.
                Err(error @ Error::Corrupt { .. }) => {
                    if self.tables.snapshot_of(domain).blob_by_key(&key)?.is_some_and(|now| now.place == blob.place) {
                        report.damaged.push(error);
                    }
                }
                Err(error) => return Err(error),
            }
            report.bytes += blob.place.frame_len();
            if progress(report) == ControlFlow::Break(()) {
                return Ok(false);
            }
        }
        for (id, upload) in self.tables.snapshot_of(domain).uploads()?.collect::<Result<Vec<_>>>()? {
            if upload.file.is_some() && upload.key != current {
                match self.blobs.rewrite_upload(domain, id) {
                    Err(Error::UploadNotFound { .. } | Error::UploadBusy { .. }) => {}
                    other => other?,
                }
            }
        }
        drop(snapshot);
        self.rewrite_facts(domain, current)?;
        Ok(report.damaged.len() == damaged)
    }

    /// Lets a blob lie in another place, encrypted with the current key.
    fn rewrite_blob(&self, key: &Key, fact: &BlobFact) -> Result<()> {
        let (domain, from) = (key.domain, fact.place);
        let digest = self.blobs.digest_of(key, fact)?;
        let file = self.files.open(&from)?;
        let blob = Blob::new(digest, *fact, file, &*self.files, domain)?;
        if from.stored_len <= self.options.inline_max {
            blob.verify()?;
            let frame = Frame::new(digest, fact.len, fact.codec, &blob.stored_content()?);
            return self.log.commit(domain, Request::MoveFrame { from, frame }).map(drop);
        }
        let request = |descriptor, file| Request::MoveSegment { from, descriptor, file };
        let durability = self.options.durability;
        let moved = self.blobs.store_segment(
            durability,
            domain,
            Content::Parts(&[], Some(&mut blob.reader())),
            digest.into(),
            request,
        );
        match moved {
            Err(Error::DigestMismatch { .. }) => Err(blob.corrupt(Damage::Digest)),
            Err(Error::Source { source }) => Err(Error::of_reader(&source)),
            other => other.map(drop),
        }
    }

    /// Brings a domain's facts into runs that are encrypted with the current key, and unlists log files with others.
    fn rewrite_facts(&self, domain: DomainId, current: KeyNumber) -> Result<()> {
        self.log.checkpoint()?;
        let is_due = |own, runs: &[RunMeta]| own == domain && runs.iter().any(|run| run.key != current);
        self.tables.merge_all(&*self.log, is_due)?.all()?;
        self.log.unlist_folded_logs(0, Space::Free)
    }
}
