//! Reading the commits that are cut, as far as they can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use crate::error::{Damage, Error, Result};
use crate::facts::{Family, Key, SegmentFact};
use crate::files::Files;
use crate::id::{FileId, Lsn, RepositoryId};
use crate::log::file::HEADER_LEN;
use crate::log::record::ALIGNMENT;
use crate::log::recovery::Stop;
use crate::log::{LogHeader, Piece, survey};
use crate::store::salvage::content::Copies;
use crate::store::salvage::if_there;
use crate::store::salvage::report::ChangedNames;
use crate::tables::{LogEntry, RunList};
use crate::vfs::OpenMode;

/// A log file that can't be looked at is taken to have been at most this long.
const LONGEST_LOG: u64 = 1 << 40;

/// LSNs from here on are none: a list with twice as many is refused.
const LSN_END: u64 = 1 << 59;

/// What the log tells of what stood behind its first damage.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// The damage met, the first of each file.
    pub(super) damage: Vec<Error>,
    /// The log files from the first damage on.
    pub(super) files: BTreeSet<FileId>,
    /// Commits that were read.
    read: BTreeSet<Lsn>,
    /// The last commit that is known to have been.
    pub(super) last: Lsn,
    /// No commit can have had an LSN from here on.
    pub(super) end: Lsn,
    /// Whether commits may have been behind the last one.
    pub(super) may_be_more: bool,
    pub(super) changes: ChangedNames,
    /// Which blobs and files of content were there, or were gone, after the last commit that was read and says so.
    pub(super) is_there: BTreeMap<Key, bool>,
    pub(super) copies: Copies,
    /// The highest id of a file that facts name.
    pub(super) last_file: FileId,
    /// The store's open time, as far as it is known.
    pub(super) open_time: u64,
}

impl Cut {
    /// Looks at the log files of a list from the damage on that ended a replay. Commits up to `kept` are known.
    pub(super) fn read(
        files: &Files,
        list: &RunList,
        stop: &Stop,
        kept: Lsn,
        names: &mut BTreeMap<RepositoryId, String>,
    ) -> Result<Self> {
        let mut cut = Self { damage: vec![stop.error.clone()], last: list.durable.max(kept), ..Self::default() };
        let is_behind = |entry: &&LogEntry| entry.id != stop.file;
        for entry in list.logs.iter().skip_while(is_behind) {
            let from = if entry.id == stop.file { stop.end } else { 0 };
            cut.read_file(files, entry, from, kept, names)?;
        }
        cut.end = cut.end.max(cut.last.next());
        match cut.end.0 < LSN_END {
            true => Ok(cut),
            false => Err(Error::corrupt(&RunList::path(&files.layout().runs()), 0, Damage::Invalid("LSN"))),
        }
    }

    fn read_file(
        &mut self,
        files: &Files,
        entry: &LogEntry,
        from: u64,
        kept: Lsn,
        names: &mut BTreeMap<RepositoryId, String>,
    ) -> Result<()> {
        self.files.insert(entry.id);
        let path = files.layout().log(entry.id);
        let (mut len, mut header) = (None, Err(Error::corrupt(&path, 0, Damage::Missing)));
        let mut walk = Walk { file: entry.id, kept, end: from.max(HEADER_LEN), next: kept.next().max(entry.first_lsn) };
        if let Some(file) = if_there(files.vfs().open(&path, OpenMode::Read), &path)? {
            let found = file.len().map_err(Error::io("read the length of", &path))?;
            let end = entry.sealed.map_or(found, |(len, _)| len.min(found));
            header = LogHeader::read(&path, &*file, entry.id, files.store());
            let (keys, range) = (files.keys(), walk.end..end);
            let take = |piece: Piece| self.take(piece, &path, &mut walk, names);
            survey(&path, &*file, header.as_ref().ok(), &keys, range, take)?;
            len = Some(found);
        }
        match (header, entry.sealed) {
            (Err(error @ Error::Corrupt { .. }), _) => self.note_damage(error),
            (Err(error), _) => return Err(error),
            (Ok(_), Some((_, last))) if walk.next <= last => {
                self.note_damage(Error::corrupt(&path, walk.end, Damage::Invalid("log record")));
            }
            _ => {}
        }
        match entry.sealed {
            Some((_, last)) => self.last = self.last.max(last),
            None => {
                self.may_be_more = true;
                // As many as there is space for behind what is known.
                let most = len.unwrap_or(LONGEST_LOG) / ALIGNMENT;
                self.end = Lsn(self.last.max(entry.first_lsn).0.saturating_add(most).min(LSN_END - 1));
            }
        }
        Ok(())
    }

    fn take(&mut self, piece: Piece, path: &Path, walk: &mut Walk, names: &mut BTreeMap<RepositoryId, String>) {
        match piece {
            Piece::Frame(domain, at, descriptor) => {
                let fact = descriptor.fact(walk.file, at);
                self.copies.add(Key::blob(domain, &descriptor.digest), descriptor.digest, fact);
            }
            Piece::Record(offset, header, body) if header.lsn > walk.kept && header.lsn.0 < LSN_END => {
                if header.lsn != walk.next || body.is_none() {
                    let at = if header.lsn == walk.next { offset } else { walk.end };
                    self.note_damage(Error::corrupt(path, at, Damage::Invalid("log record")));
                }
                (walk.end, walk.next) = (offset + header.record_len(), header.lsn.next());
                self.open_time = self.open_time.max(header.open);
                self.last = self.last.max(header.lsn).max(header.durable);
                let Some((ops, facts)) = body else { return };
                let noted = self.changes.note(&ops, names).and_then(|()| self.changes.note_facts(&facts, names));
                if noted.is_some() {
                    self.read.insert(header.lsn);
                }
                let files = facts.iter().filter(|(key, _)| key.family == Family::Segment);
                self.last_file = files.map(|(key, _)| FileId(key.prefix())).fold(self.last_file, FileId::max);
                for (key, value) in facts {
                    let is_there = match (key.family, value) {
                        (Family::Blob, value) => value.is_some(),
                        (Family::Segment, value) => value
                            .and_then(|value| SegmentFact::decode(value.as_bytes()))
                            .is_some_and(|segment| segment.live_frames > 0),
                        _ => continue,
                    };
                    self.is_there.insert(key, is_there);
                }
            }
            Piece::Record(..) => {}
        }
    }

    /// Notes damage, unless some to that file was noted already.
    fn note_damage(&mut self, error: Error) {
        let path_of = |error: &Error| match error {
            Error::Corrupt { file, .. } => Some(file.clone()),
            _ => None,
        };
        if !self.damage.iter().any(|known| path_of(known) == path_of(&error)) {
            self.damage.push(error);
        }
    }

    /// The commits behind `kept` that could not be read.
    pub(super) fn unread(&self, kept: Lsn) -> Vec<RangeInclusive<Lsn>> {
        let mut unread = Vec::new();
        let mut next = kept.next();
        for lsn in self.read.iter().copied().chain([self.last.next()]) {
            if next < lsn {
                unread.push(next..=Lsn(lsn.0.saturating_sub(1)));
            }
            next = lsn.next();
        }
        unread
    }
}

/// How far a log file was looked at.
struct Walk {
    file: FileId,
    kept: Lsn,
    /// Where the last record ends, and the LSN of the one that should be there.
    end: u64,
    next: Lsn,
}
