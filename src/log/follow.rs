//! Following the log of a store that another process writes to.
//!
//! The reader goes on where it stopped, in the file that is being written too. What it finds there is believed once it
//! is durable: records say up to which LSN all was when they were written, and the file is synced for those behind.
//! (An fdatasync makes durable what any process has written to the file.)
//!
//! What is read beside a writer may be half of what it is by then, and looks like damage: a record is missing of which
//! a later one, read a moment after, says that it was durable. Whoever gets such an error reads again.

use std::io::ErrorKind;

use crate::error::{Damage, Error, Result};
use crate::files::Files;
use crate::id::{FileId, Lsn};
use crate::log::file::HEADER_LEN;
use crate::log::group::name_changes;
use crate::log::replay::{Extent, Record, Replay};
use crate::log::{LogHeader, open_log};
use crate::names::NameChange;
use crate::tables::{LogEntry, RunList};
use crate::transaction::Op;
use crate::vfs::File;

/// How far the log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The LSN of the next record.
    pub(crate) next: Lsn,
    /// Where the last file that was read ends; none before the first.
    pub(crate) end: Option<End>,
}

/// How far a log file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The file's header. Its salt is random, so another file of the same id, in a store that was put in this one's
    /// place, is not taken for it.
    log: LogHeader,
    /// Where the last record ends.
    pub(crate) at: u64,
    /// Where that begins, and its LSN; none where the file had none.
    last: Option<(u64, Lsn)>,
}

impl End {
    /// The file.
    pub(crate) fn file(&self) -> FileId {
        self.log.file
    }
}

impl Reached {
    /// Nothing was read: what the runs have is known.
    pub(crate) fn runs_of(list: &RunList) -> Self {
        Self { next: list.folded.next(), end: None }
    }

    /// The LSN up to which all commits are known.
    pub(crate) fn last(self) -> Lsn {
        Lsn(self.next.0.saturating_sub(1))
    }
}

/// What was read.
#[derive(Debug)]
pub(crate) struct ReadOn {
    pub(crate) records: Vec<Record>,
    /// What these did to names.
    pub(crate) names: Vec<(Lsn, NameChange)>,
    pub(crate) reached: Reached,
}

impl ReadOn {
    /// The open time of the last commit, in milliseconds.
    pub(crate) fn open_time(&self) -> u64 {
        self.records.iter().map(|record| record.header.open).max().unwrap_or_default()
    }
}

/// Reads what the log files of a list have behind what was read before. `None` where those do not say: what was read
/// was taken back by a recovery, the log does not go back as far any more, or it is that of another history, since a
/// copy of the store was put in its place.
pub(crate) fn read_on(files: &Files, list: &RunList, from: Reached) -> Result<Option<ReadOn>> {
    let Some(logs) = logs_behind(list, from) else { return Ok(None) };
    // The file that was read last is not listed any more. A session has one history: what it goes on with in its next
    // file is what was read.
    if let (Some(end), Some(first)) = (from.end, logs.first())
        && first.id != end.file()
        && open_log(files, first.id)?.2.session != end.log.session
    {
        return Ok(None);
    }
    let mut read = ReadOn { records: Vec::new(), names: Vec::new(), reached: from };
    let mut durable = list.durable.max(list.folded);
    for entry in logs {
        if !read.read_file(files, list, entry, &mut durable)? {
            return Ok(None);
        }
    }
    Ok(Some(read))
}

/// The log files to read, oldest first.
fn logs_behind(list: &RunList, from: Reached) -> Option<&[LogEntry]> {
    let at = match from.end {
        None if from.next != list.folded.next() => return None, // runs have been made of what was to be read
        None => list.logs.iter().position(|log| log.is_needed(list.folded)),
        Some(end) => {
            let own = list.logs.iter().position(|log| log.id == end.file());
            own.or_else(|| list.logs.iter().position(|log| log.first_lsn == from.next))
        }
    };
    match at {
        Some(at) => list.logs.get(at..),
        None if from.end.is_none() => Some(&[]), // the runs have all of it
        None => None,
    }
}

impl ReadOn {
    /// Reads a file to its end. `false` where it ends before what was read of it.
    fn read_file(&mut self, files: &Files, list: &RunList, entry: &LogEntry, durable: &mut Lsn) -> Result<bool> {
        let (path, file, header) = open_log(files, entry.id)?;
        let (keyring, next) = (files.keys(), self.reached.next);
        let own = self.reached.end.filter(|end| end.file() == entry.id);
        if own.is_some_and(|own| own.log != header) {
            return Ok(false); // another file of that id
        }
        if header.first_lsn != entry.first_lsn || own.is_none() && header.first_lsn > next {
            return Err(Error::corrupt(&path, 0, Damage::Invalid("first LSN")));
        }
        let extent = match entry.sealed {
            Some((len, last)) if own.is_some_and(|own| own.at > len) || next > last.next() => {
                return Ok(false); // a recovery has written the rest to another file
            }
            Some((len, last)) => Extent::Sealed { len, last },
            None => Extent::Open { durable: list.durable },
        };
        if own.is_none() && self.reached.end.is_some() && header.first_lsn != next {
            return Ok(false); // as above
        }
        let mut reader = Replay::new(&path, &*file, header, &keyring, extent, list.folded)?;
        if let Some(own) = own {
            // A copy of the file may end before what was read of it.
            if let Some((offset, lsn)) = own.last.filter(|_| entry.sealed.is_none()) {
                reader.skip_to(offset, lsn);
                if reader.next()?.is_none_or(|last| last.end() != own.at) {
                    return Ok(false);
                }
            }
            reader.skip_to(own.at, next);
        }
        let mut records = Vec::new();
        while let Some(record) = reader.next()? {
            *durable = record.header.durable.max(*durable);
            records.push(record);
        }
        if let Some((_, last)) = entry.sealed {
            *durable = last.max(*durable);
        }
        let is_durable = |record: &Record| record.header.lsn <= *durable;
        let known = records.iter().take_while(|record| is_durable(record)).count();
        for (at, record) in records.iter().enumerate().skip(known) {
            if reader.frame(record)?.is_none() {
                reader.end_before(record)?;
                records.truncate(at);
                break;
            }
        }
        if records.len() > known && !make_durable(&*file) {
            records.truncate(known);
        }
        let before = own.unwrap_or(End { log: header, at: HEADER_LEN, last: None });
        self.reached.end = Some(records.last().map_or(before, |last| {
            let (at, last) = (last.end(), Some((last.offset, last.header.lsn)));
            End { log: header, at, last }
        }));
        for record in &records {
            let lsn = record.header.lsn;
            let invalid = || Error::corrupt(&path, record.offset, Damage::Invalid("operation"));
            let ops = Op::parse_all(&record.ops).ok_or_else(invalid)?;
            let names = name_changes(record.header.domain, &ops).into_iter();
            self.names.extend(names.filter(|_| lsn >= next).map(|change| (lsn, change)));
            self.reached.next = lsn.next().max(self.reached.next);
        }
        self.records.append(&mut records);
        Ok(true)
    }
}

/// Makes durable what was read of a file, or says that this failed. A file system that has no such call, since nothing
/// can be written to it, has nothing that is not durable.
fn make_durable(file: &dyn File) -> bool {
    match file.sync() {
        Ok(()) => true,
        Err(error) => {
            matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::ReadOnlyFilesystem)
        }
    }
}
