//! Reading a log file back.
//!
//! Records stand one behind the other, each with the LSN after its predecessor's. Where one is missing or invalid, the
//! question is whether a power cut tore it (then nobody was told that it is durable, and the log ends before it) or
//! whether it was durable and is damaged. A record behind the gap answers it: it says up to which LSN all was durable
//! when it was written.

use std::path::Path;

use crate::envelope::{Keyring, Purpose, Sealing};
use crate::error::{Damage, Error, Result};
use crate::facts::Fact;
use crate::id::{DomainId, Lsn};
use crate::log::file::{HEADER_LEN, LogHeader, LogKeys};
use crate::log::record::{self, ALIGNMENT, Header, parse_facts};
use crate::segment::{DESCRIPTOR_LEN, Frame};
use crate::transaction::MAX_BODY;
use crate::vfs::File;
use crate::wire::{crc32c, index};

/// A record as read back.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) header: Header,
    /// Where in the file the record begins.
    pub(crate) offset: u64,
    pub(crate) ops: Vec<u8>,
    pub(crate) facts: Vec<Fact>,
    /// Whether what it says can't be read: the key is gone that it was encrypted with, or its domain is locked, or not
    /// the one that is [wanted](Replay::only). Then there are neither operations nor facts.
    pub(crate) is_lost: bool,
}

impl Record {
    /// Where in the file the record's frame begins.
    pub(crate) fn frame_offset(&self) -> u64 {
        self.offset + record::HEADER_LEN as u64
    }

    /// The domain that it belongs to. What is left of a record whose key is gone says nothing that is of its domain.
    pub(crate) fn domain(&self) -> DomainId {
        if self.is_lost { DomainId::DEFAULT } else { self.header.domain }
    }

    /// Where in the file the record ends.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.header.record_len()
    }
}

/// How far a log file reaches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    /// To this length and this LSN, all of it durable.
    Sealed { len: u64, last: Lsn },
    /// Unknown: it was being written. All up to this LSN is durable.
    Open { durable: Lsn },
}

/// Reads the records of a log file, in order.
pub(crate) struct Replay<'a> {
    path: &'a Path,
    window: Window<'a>,
    keyring: &'a Keyring,
    keys: LogKeys,
    /// Where the next record should begin, and its LSN.
    position: u64,
    expected: Lsn,
    end: u64,
    /// Whether the file ends before that: what it has left is read, and then the damage met.
    is_cut: bool,
    extent: Extent,
    folded: Lsn,
    /// Of this domain only records are read.
    only: Option<DomainId>,
}

impl<'a> Replay<'a> {
    /// Runs have the facts of all records up to `folded`: damage to one of those is passed over.
    pub(crate) fn new(
        path: &'a Path,
        file: &'a dyn File,
        header: LogHeader,
        keyring: &'a Keyring,
        extent: Extent,
        folded: Lsn,
    ) -> Result<Self> {
        let keys = LogKeys::new(&header, keyring, path)?;
        let len = file.len().map_err(Error::io("read the length of", path))?;
        let end = match extent {
            Extent::Sealed { len, .. } => len,
            Extent::Open { .. } => header.capacity,
        };
        let (end, is_cut) = (end.min(len), len < end);
        let window = Window::new(file);
        let (position, expected) = (HEADER_LEN, header.first_lsn);
        Ok(Self { path, window, keyring, keys, position, expected, end, is_cut, extent, folded, only: None })
    }

    /// Reads what records of this domain say, and of the others no more than that they are there.
    pub(crate) fn only(self, domain: DomainId) -> Self {
        Self { only: Some(domain), ..self }
    }

    /// Goes on where a record with this LSN begins, or will.
    pub(crate) fn skip_to(&mut self, position: u64, expected: Lsn) {
        (self.position, self.expected) = (position, expected);
    }

    /// The next record, or `None` at the end of the log.
    pub(crate) fn next(&mut self) -> Result<Option<Record>> {
        if let Extent::Sealed { len, last } = self.extent
            && self.position == len
        {
            return match self.expected == last.next() {
                true => Ok(None),
                false => Err(self.ends_early(last)),
            };
        }
        let record = match self.read_record()? {
            None if self.expected <= self.folded => self.after_damage()?,
            found => found,
        };
        match record {
            Some(record) => {
                self.position = record.end();
                self.expected = record.header.lsn.next();
                Ok(Some(record))
            }
            None => self.torn_or_damaged().map(|()| None),
        }
    }

    /// The first whole record behind damage, if nothing is missing between that no run has.
    fn after_damage(&mut self) -> Result<Option<Record>> {
        let (position, expected) = (self.position, self.expected);
        let known = expected.next()..=self.folded.next();
        let mut from = position + ALIGNMENT;
        while let Some((offset, header)) = self.find_header(from, |header| known.contains(&header.lsn))? {
            (self.position, self.expected) = (offset, header.lsn);
            if let Some(record) = self.read_record()? {
                return Ok(Some(record));
            }
            from = offset + ALIGNMENT;
        }
        (self.position, self.expected) = (position, expected);
        Ok(None)
    }

    /// The first valid record header of a kind from an offset on, and where it stands.
    fn find_header(&mut self, from: u64, is_wanted: impl Fn(&Header) -> bool) -> Result<Option<(u64, Header)>> {
        let check = self.keys.check.clone();
        let mut offset = from;
        while offset + record::HEADER_LEN as u64 <= self.end {
            let header = Header::parse(self.read(offset, record::HEADER_LEN)?, &check);
            if let Some(header) = header.filter(&is_wanted) {
                return Ok(Some((offset, header)));
            }
            offset += ALIGNMENT;
        }
        Ok(None)
    }

    /// A record's frame, verified: `None` where it is not whole and undamaged. Records that are not known durable need
    /// this; those of others are verified when the blob is read. No frame, or one of a locked domain: an empty one.
    pub(crate) fn frame(&mut self, record: &Record) -> Result<Option<Option<Frame>>> {
        let header = record.header;
        let len = index(header.frame_len.into());
        let is_locked = self.keyring.lock_of(header.domain).is_some();
        if header.frame_len == 0 || record.is_lost && !is_locked {
            return Ok(Some(None));
        }
        if is_locked {
            return Ok(Frame::is_whole(self.read(record.frame_offset(), len)?).then_some(None));
        }
        let sealing = self.opening(&header, Purpose::Content);
        let content_at = record.frame_offset() + DESCRIPTOR_LEN;
        let frame = Frame::read(self.read(record.frame_offset(), len)?, sealing.as_ref(), content_at);
        Ok(frame.map(Some))
    }

    fn opening(&self, header: &Header, purpose: Purpose) -> Option<Sealing> {
        self.keys.envelope.opening(self.keyring, header.domain, header.key, purpose)
    }

    /// Ends the log before `record`, unless that is known to have been durable.
    pub(crate) fn end_before(&mut self, record: &Record) -> Result<()> {
        self.position = record.offset;
        self.expected = record.header.lsn;
        self.torn_or_damaged()
    }

    /// The record at the position, or `None` where there is no valid one.
    fn read_record(&mut self) -> Result<Option<Record>> {
        let offset = self.position;
        if offset + record::HEADER_LEN as u64 > self.end {
            return Ok(None);
        }
        let check = self.keys.check.clone();
        let Some(header) = Header::parse(self.read(offset, record::HEADER_LEN)?, &check) else { return Ok(None) };
        let [ops_len, facts_len] = [header.ops_len, header.facts_len].map(|len| index(len.into()));
        if header.lsn != self.expected
            || ops_len > MAX_BODY
            || facts_len > MAX_BODY
            || header.record_len() > self.end - offset
        {
            return Ok(None);
        }
        let len = index(header.body_len());
        let body = self.read(offset + record::HEADER_LEN as u64 + u64::from(header.frame_len), len)?;
        if crc32c(body) != header.body_crc {
            return Ok(None);
        }
        let mut body = body.to_vec();
        if self.only.is_some_and(|only| only != header.domain) {
            return Ok(Some(Record { header, offset, ops: Vec::new(), facts: Vec::new(), is_lost: true }));
        }
        if header.key != 0 {
            let Some(sealing) = self.opening(&header, Purpose::Record) else { return self.without_key(header, offset) };
            // It is whole, so it was not torn.
            let opened = header.open(&sealing, offset, &body);
            body = opened.ok_or_else(|| Error::corrupt(self.path, offset, Damage::Seal))?;
        } else if !self.keyring.accepts_plain {
            return Err(Error::corrupt(self.path, offset, Damage::NotSealed));
        }
        let Some((ops, facts)) = body.split_at_checked(ops_len) else { return Ok(None) };
        let Some(facts) = parse_facts(facts, header.domain) else { return Ok(None) };
        Ok(Some(Record { header, offset, ops: ops.to_vec(), facts, is_lost: false }))
    }

    /// A record of a domain that was shredded, which can't be decrypted any more, or of one that is locked. (Or one
    /// whose key was given up, since all that it said has been written again.)
    fn without_key(&self, header: Header, offset: u64) -> Result<Option<Record>> {
        let is_known = header.domain < self.keyring.next_domain;
        let is_shut = self.keyring.is_shredded(header.domain) || self.keyring.lock_of(header.domain).is_some();
        if !is_known || header.lsn > self.folded && !is_shut {
            return Err(Error::corrupt(self.path, offset, Damage::Invalid("key number")));
        }
        Ok(Some(Record { header, offset, ops: Vec::new(), facts: Vec::new(), is_lost: true }))
    }

    /// `Ok` where the record that should begin at the position was torn, an error where it was durable.
    fn torn_or_damaged(&mut self) -> Result<()> {
        if self.is_cut {
            return Err(Error::corrupt(self.path, self.end, Damage::Truncated));
        }
        let durable = match self.extent {
            Extent::Sealed { .. } => return Err(self.damaged()),
            Extent::Open { durable } => durable,
        };
        if durable >= self.expected {
            return Err(self.damaged());
        }
        let expected = self.expected;
        match self.find_header(self.position + ALIGNMENT, |later| later.durable >= expected)? {
            Some(_) => Err(self.damaged()),
            None => Ok(()),
        }
    }

    fn damaged(&self) -> Error {
        Error::corrupt(self.path, self.position, Damage::Invalid("log record"))
    }

    fn ends_early(&self, expected: Lsn) -> Error {
        let found = self.expected.0.saturating_sub(1);
        Error::corrupt(self.path, self.position, Damage::LogEndsEarly { expected: expected.0, found })
    }

    fn read(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        self.window.get(offset, len, self.end).map_err(Error::io("read", self.path))
    }
}

/// A file read through a buffer that slides along it.
pub(super) struct Window<'a> {
    file: &'a dyn File,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    const LEN: usize = 256 << 10;

    pub(super) fn new(file: &'a dyn File) -> Self {
        Self { file, start: 0, bytes: Vec::new() }
    }

    pub(super) fn get(&mut self, offset: u64, len: usize, end: u64) -> std::io::Result<&[u8]> {
        let held = |start: u64, bytes: &[u8]| {
            let from = usize::try_from(offset.checked_sub(start)?).ok()?;
            let range = from..from.checked_add(len)?;
            bytes.get(range.clone()).map(|_| range)
        };
        if held(self.start, &self.bytes).is_none() {
            let rest = index(end.saturating_sub(offset));
            if len > rest {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.bytes.resize(len.max(Self::LEN.min(rest)), 0);
            self.start = offset;
            self.file.read_exact_at(&mut self.bytes, offset)?;
        }
        let range = held(self.start, &self.bytes).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        self.bytes.get(range).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}
