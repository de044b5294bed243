//! Reading content, segments and runs again: from the disk, by position, whatever was verified before.

use std::sync::Arc;

use crate::blobs::{Blob, digest_in};
use crate::check::Checks;
use crate::check::finding::Finding;
use crate::check::{Halt, Step};
use crate::digest::Digest;
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Key, Lookup, SegmentKind};
use crate::log::open_log;
use crate::log::replay::{Extent, Replay};
use crate::sealed::{MappingBudget, ReadMode, SealedFile};
use crate::segment::{DESCRIPTOR_LEN, Frame};
use crate::tables::{PageCache, Run, RunMeta, Snapshot, open_file};
use crate::wire::index;

/// A blob that was read again.
#[derive(Debug)]
pub(crate) struct Reread {
    /// What was known of it when it was read.
    pub(crate) fact: BlobFact,
    /// Which it is, where that is known.
    pub(crate) digest: Option<Digest>,
    pub(crate) found: Found,
}

/// What reading a blob again came to.
#[derive(Debug)]
pub(crate) enum Found {
    Sound,
    /// The content is sound, but not what stands in front of it.
    Frame(Error),
    /// The content is damaged, or its file is lost.
    Damaged(Error),
    /// It could not be read, for another reason.
    Unreadable(Error),
}

/// Compares a frame with its checksum, where that is the frame's: in a log file or a pack, encrypted.
fn check_whole(file: &SealedFile, fact: &BlobFact) -> Result<()> {
    let (place, at) = (fact.place, fact.place.offset - DESCRIPTOR_LEN);
    if place.key == 0 || place.crc != 0 {
        return Ok(());
    }
    let frame = file.read(at, index(place.frame_len()))?;
    let damaged = || Error::corrupt(file.path(), at, Damage::Invalid("checksum of a frame"));
    if Frame::is_whole(&frame) { Ok(()) } else { Err(damaged()) }
}

impl Checks {
    /// Reads a blob again, wherever it is by then, and compares it with its digest. `None` where there is no such blob
    /// any more. `step` is called with the length of each piece that was read.
    pub(crate) fn reread(&self, key: &Key, step: &mut dyn FnMut(u64) -> Step<()>) -> Step<Option<Reread>> {
        let known = || self.tables.snapshot_of(key.domain).blob_by_key(key);
        let mut now = known()?;
        while let Some(fact) = now {
            let (digest, found) = self.read_at(key, &fact, step)?;
            if matches!(found, Found::Sound) {
                return Ok(Some(Reread { fact, digest, found }));
            }
            // It may have been removed while it was read, or moved.
            self.tables.catch_up();
            now = known()?;
            if now.is_some_and(|now| now.place == fact.place) {
                return Ok(Some(Reread { fact, digest, found }));
            }
        }
        Ok(None)
    }

    fn read_at(
        &self,
        key: &Key,
        fact: &BlobFact,
        step: &mut dyn FnMut(u64) -> Step<()>,
    ) -> Step<(Option<Digest>, Found)> {
        let mut known = digest_in(key, fact);
        let mut read = || {
            let file = self.files.get_anew(&fact.place)?;
            let descriptor = match self.check_frame(&file, key, fact) {
                Err(error) => Err(not_for_now(error)?),
                found => found,
            };
            let digest = match (known, &descriptor) {
                (Some(digest), _) => digest,
                (None, Ok(digest)) => *digest,
                (None, Err(error)) => return Err(Halt::Failed(error.clone())),
            };
            known = Some(digest);
            Blob::new(digest, *fact, Arc::clone(&file), &*self.files, key.domain)?.verify_by(&mut *step)?;
            match descriptor.and_then(|_| check_whole(&file, fact)) {
                Ok(()) => Ok(None),
                Err(error) => Ok(Some(not_for_now(error)?)),
            }
        };
        let found = match read() {
            Ok(None) => Found::Sound,
            Ok(Some(error)) => Found::Frame(error),
            Err(Halt::Failed(error @ Error::Corrupt { .. })) => Found::Damaged(error),
            Err(Halt::Failed(error)) if error.is_shortage() => return Err(Halt::Failed(error)),
            Err(Halt::Failed(error)) => Found::Unreadable(error),
            Err(Halt::Stopped) => return Err(Halt::Stopped),
        };
        Ok((known, found))
    }

    /// Compares what stands in front of a blob with its fact, and returns the digest that stands there.
    fn check_frame(&self, file: &SealedFile, key: &Key, fact: &BlobFact) -> Result<Digest> {
        let descriptor = self.blobs.descriptor_in(file, key, fact)?;
        let at = fact.place.offset - DESCRIPTOR_LEN;
        let BlobFact { count, touched, stored, damaged, .. } = *fact;
        if (BlobFact { count, touched, stored, damaged, ..descriptor.fact(fact.place.file, at) }) == *fact {
            return Ok(descriptor.digest);
        }
        Err(Error::corrupt(file.path(), at, Damage::Invalid("frame descriptor")))
    }

    /// Reads what surrounds the frames of the segments of a snapshot's domain.
    pub(super) fn check_segments(
        &self,
        snapshot: &Snapshot,
        tell: &mut dyn FnMut(Option<Finding>) -> Step<()>,
    ) -> Step<()> {
        for fact in snapshot.segment_facts()? {
            let (id, segment) = fact?;
            let mut finding = None;
            if segment.kind == SegmentKind::Sealed
                && let Err(error) = self.files.footer(id, snapshot.domain, segment.key)
                && let _ = self.tables.catch_up()
                && self.tables.snapshot_of(snapshot.domain).segment(id)?.is_some()
            {
                finding = Some(Finding::Segment { error: not_for_now(error)? });
            }
            tell(finding)?;
        }
        Ok(())
    }

    /// Goes through the records of log files that recovery needs, but for the file that is being written.
    pub(super) fn check_logs(&self, tell: &mut dyn FnMut(u64, Option<Finding>) -> Step<()>) -> Step<()> {
        let list = self.tables.list();
        for log in list.logs.iter().filter(|log| log.is_needed(list.folded)) {
            let Some((len, last)) = log.sealed else { continue };
            let replay = || -> Result<()> {
                let (path, file, header) = open_log(&self.files, log.id)?;
                let (keys, extent) = (self.files.keys(), Extent::Sealed { len, last });
                let mut records = Replay::new(&path, &*file, header, &keys, extent, list.folded)?;
                while records.next()?.is_some() {}
                Ok(())
            };
            let damage = replay();
            let is_needed = || {
                self.tables.catch_up();
                let now = self.tables.list();
                now.logs.iter().any(|one| one.id == log.id && one.is_needed(now.folded))
            };
            let damage = damage.err().filter(|_| is_needed()).map(not_for_now).transpose()?;
            tell(len, damage.map(|error| Finding::Log { error }))?;
        }
        Ok(())
    }

    /// Reads all pages of all runs, and tells which run has a damaged one: the first of each, and whether facts are in
    /// what is damaged.
    pub(super) fn check_runs(&self, tell: &mut dyn FnMut(&RunMeta, Option<Finding>) -> Step<()>) -> Step<()> {
        let runs = self.tables.list().runs.clone();
        let is_open = |run: &RunMeta| self.files.keys().is_open(run.domain);
        for run in runs.iter().filter(|run| is_open(run)) {
            let finding = match self.open_anew(run) {
                Err(error) => Some(Finding::Facts { error: not_for_now(error)? }),
                Ok(open) => match open.verify().map_err(not_for_now) {
                    Ok(()) => None,
                    Err(error) => Some(match (error?, open.verify_facts().map_err(not_for_now)) {
                        (error, Ok(())) => Finding::Run { error },
                        (_, Err(error)) => Finding::Facts { error: error? },
                    }),
                },
            };
            // It may have been merged meanwhile.
            let is_needed = || {
                self.tables.catch_up();
                self.tables.list().runs.iter().any(|now| now.id == run.id)
            };
            tell(run, finding.filter(|_| is_needed()))?;
        }
        Ok(())
    }

    /// Opens a run anew: nothing is taken to be verified since it was once.
    fn open_anew(&self, run: &RunMeta) -> Result<Run> {
        let mappings = MappingBudget::new(ReadMode::Positioned, 0);
        let file = open_file(self.files.vfs(), &self.files.layout().run(run.id.file), &mappings)?;
        Run::open(&file, run, &self.files.keys(), &PageCache::new(0))
    }
}

/// An error that is a finding, unless it says that there was a shortage: then it is one of the call.
fn not_for_now(error: Error) -> Result<Error> {
    if error.is_shortage() { Err(error) } else { Ok(error) }
}
