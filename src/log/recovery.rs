//! Reading the log back after a restart or a crash.
//!
//! Facts of records that are known durable are put into a memory table. The records after those, the *tail*, may have
//! been read from the page cache only, so they are written to a new log file and synced, in which their frames have new
//! places. The new list, which names that file, makes this effective; before it, nothing has changed, and the next
//! recovery does the same again.
//!
//! A record of a locked domain can't be encrypted for another place. A tail with such a record stays where it is: the
//! same bytes are written there once more, and synced. (A sync alone is not enough: after one that failed, the system
//! may consider pages written that are not.) The end of the tail is found without the key: records and their frames
//! have checksums.

use std::collections::{BTreeMap, HashMap};
use std::io::IoSlice;
use std::path::Path;

use crate::clock::Times;
use crate::envelope::Keyring;
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Fact, Family, Key, Lookup as _};
use crate::files::{Files, Space};
use crate::id::{FileId, Lsn, SessionId};
use crate::log::committer::Committer;
use crate::log::file::HEADER_LEN;
use crate::log::group::{InLog, name_changes};
use crate::log::record::{self, record_len, tag_len};
use crate::log::replay::{Extent, Record, Replay};
use crate::log::{ActiveLog, Body, Position, open_log};
use crate::names::NameChange;
use crate::segment::{DESCRIPTOR_LEN, Frame};
use crate::tables::memtable::Memtable;
use crate::tables::{LogEntry, RunList, Unread};
use crate::transaction::{Changes, Context, Op, Over};
use crate::vfs::OpenMode;
use crate::wire::{index, len64};

/// What the log holds.
pub(crate) struct Replayed {
    /// Records behind the folded LSN that are known durable.
    pub(crate) records: Vec<Record>,
    /// Whole records behind those, with their frames.
    pub(crate) tail: Vec<Tail>,
    /// What all of these did to names.
    pub(crate) names: Vec<(Lsn, NameChange)>,
    pub(crate) durable: Lsn,
    /// How far the last file reaches with what is durable, if the list has it as open.
    pub(crate) unsealed: Option<(u64, Lsn)>,
    /// The last session that wrote to the log.
    pub(crate) session: Option<SessionId>,
    pub(crate) open_time: u64,
    /// The damage that ended it. All that was read before that is durable.
    pub(crate) stop: Option<Stop>,
}

/// Damage that ends a replay.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) error: Error,
    /// The log file, and where in it the last whole record ends; 0 where nothing of the file was read.
    pub(crate) file: FileId,
    pub(crate) end: u64,
}

/// A record that may be in the page cache only.
pub(crate) struct Tail {
    pub(crate) record: Record,
    file: FileId,
    frame: Option<Frame>,
}

impl Tail {
    /// How long the record is at most in a new file.
    fn len(&self, keys: &Keyring) -> Result<u64> {
        let key = keys.in_use(self.record.domain())?;
        let frame_len = self.frame.as_ref().map_or(0, |frame| frame.len(key));
        Ok(record_len(frame_len, self.record.header.body_len() + tag_len(key)))
    }
}

/// Reads the log files that the list names, up to damage to records that no run has.
pub(crate) fn replay(files: &Files, list: &RunList) -> Result<Replayed> {
    let mut replayed = Replayed {
        records: Vec::new(),
        tail: Vec::new(),
        names: Vec::new(),
        durable: list.durable.max(list.folded),
        unsealed: None,
        session: None,
        open_time: 0,
        stop: None,
    };
    let mut next = list.folded.next();
    // What the runs have is not needed any more: those files are kept for readers of events.
    for entry in list.logs.iter().filter(|entry| entry.is_needed(list.folded)) {
        let mut end = 0;
        match replayed.read(files, list, entry, &mut next, &mut end) {
            Err(error @ Error::Corrupt { .. }) => {
                replayed.stop = Some(Stop { error, file: entry.id, end });
                replayed.durable = Lsn(next.0.saturating_sub(1));
                replayed.records.extend(replayed.tail.drain(..).map(|tail| tail.record));
                break;
            }
            other => other?,
        }
    }
    replayed.records.retain(|record| record.header.lsn > list.folded);
    replayed.names.retain(|(lsn, _)| *lsn > list.folded && *lsn < next);
    Ok(replayed)
}

impl Replayed {
    /// Reads a log file that begins with an LSN up to `next`. What was read is noted also where it ends in damage:
    /// `next` is then the first LSN that is not known, and `end` where in the file that should be.
    fn read(&mut self, files: &Files, list: &RunList, entry: &LogEntry, next: &mut Lsn, end: &mut u64) -> Result<()> {
        let (path, file, header) = open_log(files, entry.id)?;
        if header.first_lsn != entry.first_lsn || header.first_lsn > *next {
            return Err(Error::corrupt(&path, 0, Damage::Invalid("first LSN")));
        }
        let extent = match entry.sealed {
            Some((len, last)) => Extent::Sealed { len, last },
            None => Extent::Open { durable: list.durable },
        };
        let keyring = files.keys();
        let mut reader = Replay::new(&path, &*file, header, &keyring, extent, list.folded)?;
        *end = HEADER_LEN;
        self.session = Some(header.session);
        let first = self.records.len();
        while let Some(record) = reader.next()? {
            *next = record.header.lsn.next().max(*next);
            *end = record.end();
            self.open_time = self.open_time.max(record.header.open);
            self.durable = self.durable.max(record.header.durable);
            let invalid = || Error::corrupt(&path, record.offset, Damage::Invalid("operation"));
            let ops = Op::parse_all(&record.ops).ok_or_else(invalid)?;
            let names = name_changes(record.header.domain, &ops).into_iter();
            self.names.extend(names.map(|change| (record.header.lsn, change)));
            self.records.push(record);
        }
        if let Some((_, last)) = entry.sealed {
            self.durable = self.durable.max(last);
        }
        let is_durable = |record: &Record| record.header.lsn <= self.durable;
        let (tail, end_of_durable) = {
            let own = || self.records.iter().skip(first).take_while(|record| is_durable(record));
            (first + own().count(), own().last().map_or(HEADER_LEN, Record::end))
        };
        if entry.sealed.is_none() {
            self.unsealed = Some((end_of_durable, self.durable));
        }
        for record in self.records.split_off(tail) {
            let Some(frame) = reader.frame(&record)? else {
                (*next, *end) = (record.header.lsn, record.offset);
                return reader.end_before(&record);
            };
            self.tail.push(Tail { record, file: entry.id, frame });
        }
        Ok(())
    }
}

/// Reads, into a table, what a domain's records up to an LSN say that its runs do not have.
pub(crate) fn read_unread(files: &Files, unread: &Unread, keys: &Keyring, until: Lsn, table: &Memtable) -> Result<()> {
    for log in &unread.logs {
        let Some((len, last)) = log.sealed.filter(|(_, last)| *last > unread.from) else { continue };
        let (path, file, header) = open_log(files, log.id)?;
        let extent = Extent::Sealed { len, last };
        let mut records = Replay::new(&path, &*file, header, keys, extent, unread.from)?.only(unread.domain);
        let mut reached = log.first_lsn.0.saturating_sub(1);
        // What is behind that is not even looked at: it may be damaged.
        while reached < until.0
            && let Some(record) = records.next()?
        {
            let lsn = record.header.lsn;
            reached = lsn.0;
            if !record.is_lost && lsn > unread.from {
                record.facts.into_iter().for_each(|fact| table.insert(lsn, fact));
            }
        }
    }
    Ok(())
}

impl Committer {
    /// Makes the tail durable, and takes its facts in.
    pub(crate) fn take_tail(&self, tail: Vec<Tail>) -> Result<()> {
        let keys = self.files.keys();
        let is_locked = |tail: &Tail| keys.lock_of(tail.record.header.domain).is_some();
        if tail.iter().any(is_locked) { self.keep_tail(&tail) } else { self.rewrite_tail(tail) }
    }

    /// Makes the tail durable where it is, and takes in those of its facts that can be read. The file is
    /// [sealed](Self::seal_last_session) behind it.
    fn keep_tail(&self, tail: &[Tail]) -> Result<()> {
        let mut tip = self.tip.lock();
        for records in tail.chunk_by(|one, next| one.file == next.file) {
            let (Some(first), Some(last)) = (records.first(), records.last()) else { continue };
            let path = self.files.layout().log(first.file);
            let file = self.files.vfs().open(&path, OpenMode::Write).map_err(Error::io("open", &path))?;
            let mut piece = vec![0; 1 << 20];
            let (mut at, end) = (first.record.offset, last.record.end());
            while at < end {
                piece.truncate(index(end - at));
                file.read_exact_at(&mut piece, at).map_err(Error::io("read", &path))?;
                file.write_all_at(&piece, at).map_err(Error::io("write", &path))?;
                at += piece.len() as u64;
            }
            file.sync().map_err(Error::io("sync", &path)).map_err(|error| self.files.poison(error))?;
            (tip.last, tip.unsealed) = (last.record.header.lsn, Some((end, last.record.header.lsn)));
        }
        self.tables.set_durable(tip.last);
        let facts = tail
            .iter()
            .flat_map(|Tail { record, .. }| record.facts.iter().map(|fact| (record.header.lsn, fact.clone())));
        self.tables.insert(facts);
        self.tables.set_visible(tip.last);
        Ok(())
    }

    /// Writes the tail to a new log file, durably, and takes its facts in.
    fn rewrite_tail(&self, tail: Vec<Tail>) -> Result<()> {
        if tail.is_empty() {
            return Ok(());
        }
        let mut tip = self.tip.lock();
        let keys = self.files.keys();
        let lens = tail.iter().map(|tail| Ok(tail.len(&keys)? + REBASE_ROOM));
        let len = lens.sum::<Result<u64>>()?;
        let (file, mut log) = self.create_log(&tip, len, Space::Reserve)?;
        let snapshot = self.tables.snapshot();
        let mut changed: BTreeMap<Key, _> = BTreeMap::new();
        let mut moved = HashMap::new();
        let mut facts = Vec::new();
        let mut encoded = Vec::new();
        let write = |log: &mut ActiveLog, encoded: &mut Vec<u8>| {
            log.append(&mut vec![IoSlice::new(encoded)], len64(encoded))?;
            encoded.clear();
            Ok::<_, Error>(())
        };
        for Tail { record, file: old_log, frame } in tail {
            let header = record.header;
            let begins = log.position + len64(&encoded);
            let placing = InLog {
                lsn: header.lsn,
                file: log.header.file,
                offset: begins + record::HEADER_LEN as u64,
                key: keys.in_use(record.domain())?,
                needed: self.tables.needed_logs(old_log),
            };
            let (frame_offset, times) = (placing.offset, Times { wall: header.wall, open: header.open });
            let context = Context {
                domain: record.domain(),
                facts: &Over { newer: &changed, older: &snapshot },
                placing: &placing,
                now: times,
                retention: self.options.retention,
            };
            if frame.is_some() {
                moved.insert(record.frame_offset() + DESCRIPTOR_LEN, frame_offset + DESCRIPTOR_LEN);
            }
            let path = self.files.layout().log(old_log);
            let rebased = rebase(&record, (old_log, &path), &moved, &context)?;
            changed.extend(rebased.iter().cloned());
            let body = Body { domain: record.domain(), ops: record.ops, facts: rebased };
            let at = Position { lsn: header.lsn, durable: self.tables.durable(), times, offset: begins };
            let content_at = frame_offset + DESCRIPTOR_LEN;
            let record = log.encode(&keys, &body, at, frame.as_ref(), content_at)?;
            record.pieces().iter().for_each(|piece| encoded.extend_from_slice(piece));
            if encoded.len() >= WRITTEN_AT_ONCE {
                write(&mut log, &mut encoded)?;
            }
            facts.extend(body.facts.into_iter().map(|fact| (header.lsn, fact)));
            tip.last = header.lsn;
        }
        write(&mut log, &mut encoded)?;
        log.sync()?;
        self.tables.set_durable(tip.last);
        self.list_log(file, &log, tip.unsealed.take(), Space::Reserve)?;
        self.tables.insert(facts);
        self.tables.set_visible(tip.last);
        tip.active = Some(log);
        Ok(())
    }

    /// Gives back the space behind the records of log files, where a crash came before that was done.
    pub(crate) fn cut_logs(&self) {
        for log in self.tables.logs().iter() {
            log.sealed.iter().for_each(|(len, _)| self.files.cut_log(log.id, *len));
        }
    }
}

/// So many bytes of a tail, or a record more, are written at a time.
const WRITTEN_AT_ONCE: usize = 1 << 20;

/// How many bytes a record may grow when its facts are rebased: the facts of two segments.
const REBASE_ROOM: u64 = 512;

/// The facts of a record of the tail, where frames of `old_log` have moved: `moved` has the old and the new offsets of
/// the frames' contents.
///
/// What they say of what lives in `old_log` was true of the old places: that is taken from the changes of the blobs'
/// places anew, and so is what lives in the new log. What they say of other files holds, and is said last: a file is on
/// record until the last of its blobs has gone.
fn rebase(
    record: &Record,
    (old_log, path): (FileId, &Path),
    moved: &HashMap<u64, u64>,
    context: &Context<'_>,
) -> Result<Vec<Fact>> {
    let invalid = || Error::corrupt(path, record.offset, Damage::Invalid("fact"));
    let (mut blobs, mut files, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for (key, value) in record.facts.iter().cloned() {
        match key.family {
            Family::Blob => blobs.push((key, value)),
            Family::Segment if FileId(key.prefix()) == old_log => {}
            Family::Segment => files.push((key, value)),
            _ => others.push((key, value)),
        }
    }
    let mut facts = Changes::new(context, others);
    let (log, _, key_number) = context.placing.frame();
    for (key, value) in blobs {
        let old = facts.blob_by_key(&key)?;
        let mut new = value.map(|value| BlobFact::decode(value.as_bytes()).ok_or_else(&invalid)).transpose()?;
        if let Some(BlobFact { place, .. }) = &mut new
            && place.file == old_log
            && let Some(offset) = moved.get(&place.offset)
        {
            place.file = log;
            place.offset = *offset;
            if key_number != 0 {
                (place.key, place.crc) = (key_number, 0);
            }
        }
        facts.change(key, old.as_ref(), new.as_ref())?;
    }
    files.into_iter().for_each(|(key, value)| facts.set(key, value));
    Ok(facts.into_facts())
}
