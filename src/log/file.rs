//! One log file: a header, then records.
//!
//! ```text
//! header, 512 bytes: magic 8 | version u32 | reserved (0) u32 | file u64 | store 16 | session 16 | first_lsn u64 |
//!                    capacity u64 | key u32 | reserved (0) 4 | salt 32 | zeros | crc u32 at 508
//! ```
//!
//! A file gets its whole capacity and its header, and both are synced, before the [list](crate::tables) names it, so a
//! listed file without a valid header or shorter than its capacity is damaged, never torn.
//!
//! `key` is the number of the default domain's key under which records have their checks; 0 without encryption. Each
//! record says by itself which key it is encrypted with.

use std::borrow::Cow;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::envelope::{FileEnvelope, KeyNumber, Keyring, Purpose};
use crate::error::{Damage, Error, Result};
use crate::files::Files;
use crate::id::{DomainId, FileId, Lsn, SessionId, StoreId};
use crate::log::record::{Body, Encoded, Position, Salt};
use crate::segment::Frame;
use crate::vfs::{File, OpenMode, Vfs};
use crate::wire::{Fields, PutFields, crc32c, index, len64};
use crate::zeroing::Zeroizing;

/// The length of a log file's header in bytes: the first record begins behind it.
pub(crate) const HEADER_LEN: u64 = 512;

const MAGIC: [u8; 8] = *b"SRlog\0\0\0";
const VERSION: u32 = 1;

/// How far ahead of the records the file is filled with zeros: at least so far, and for so many groups like the one
/// that is written, up to the length of these. An fdatasync of bytes over zeros changes no metadata: on ext4 it takes
/// 90 µs where one over space that was only reserved takes 137, and 280 instead of 400 for 70 KiB.
const ZEROS_AHEAD: u64 = 256 << 10;
const GROUPS_AHEAD: u64 = 16;
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Zeros are written for such groups only: larger ones take as long without, and then zeros just double what is
/// written.
const ZEROS_FOR: u64 = 128 << 10;

/// What a log file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogHeader {
    pub(crate) file: FileId,
    pub(crate) store: StoreId,
    pub(crate) session: SessionId,
    pub(crate) first_lsn: Lsn,
    /// The file's length until it is sealed.
    pub(crate) capacity: u64,
    pub(crate) key: KeyNumber,
    pub(crate) salt: Salt,
}

/// What the keys make of a log file.
pub(crate) struct LogKeys {
    pub(crate) envelope: FileEnvelope,
    /// The key of the checks in records' headers.
    pub(crate) check: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for LogKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogKeys(…)")
    }
}

impl LogKeys {
    /// The keys of a file with this header.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the header names a key that there is not, or none although all of the store is
    /// encrypted.
    pub(crate) fn new(header: &LogHeader, keys: &Keyring, path: &Path) -> Result<Self> {
        let envelope = FileEnvelope::new(header.file, &header.encode());
        let check = match header.key {
            0 if keys.accepts_plain => Ok(Zeroizing::new(header.salt)),
            0 => Err(Damage::NotSealed),
            key => {
                let check = envelope.subkey(keys, DomainId::DEFAULT, key, Purpose::Header);
                check.ok_or(Damage::Invalid("key number"))
            }
        };
        let check = check.map_err(|damage| Error::corrupt(path, 0, damage))?;
        Ok(Self { envelope, check })
    }
}

impl LogHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.put(&MAGIC);
        out.put_u32(VERSION);
        out.put_u32(0);
        out.put_u64(self.file.0);
        out.put(&self.store.0);
        out.put(&self.session.0);
        out.put_u64(self.first_lsn.0);
        out.put_u64(self.capacity);
        out.put_u32(self.key.into());
        out.put_u32(0);
        out.put(&self.salt);
        out.resize(508, 0);
        out.put_u32(crc32c(&out));
        out
    }

    /// Parses a header.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let header = bytes.get(..512).and_then(<[u8]>::split_last_chunk);
        let (body, check) = header.ok_or(Damage::Truncated)?;
        let mut fields = Fields(body);
        if fields.array() != Some(MAGIC) {
            return Err(Damage::Magic);
        }
        let (expected, found) = (u32::from_le_bytes(*check), crc32c(body));
        if expected != found {
            return Err(Damage::Checksum { expected, found });
        }
        let mut parse = || {
            (fields.u32()? == VERSION).then_some(())?;
            fields.u32()?;
            let file = FileId(fields.u64()?);
            let store = StoreId(fields.array()?);
            let session = SessionId(fields.array()?);
            let first_lsn = Lsn(fields.u64()?);
            let capacity = fields.u64()?;
            let key = KeyNumber::try_from(fields.u32()?).ok()?;
            fields.u32()?;
            Some(Self { file, store, session, first_lsn, capacity, key, salt: fields.array()? })
        };
        parse().ok_or(Damage::Invalid("log header"))
    }

    /// Reads and checks the header of the log file with this id.
    pub(crate) fn read(path: &Path, file: &dyn File, id: FileId, store: StoreId) -> Result<Self> {
        let mut bytes = [0; 512];
        file.read_exact_at(&mut bytes, 0).map_err(Error::io("read", path))?;
        let header = Self::parse(&bytes).map_err(|damage| Error::corrupt(path, 0, damage))?;
        if header.file != id || header.store != store {
            return Err(Error::corrupt(path, 0, Damage::Invalid("file id or store id")));
        }
        Ok(header)
    }
}

/// Opens a log file to go through its records.
pub(crate) fn open_log(files: &Files, id: FileId) -> Result<(PathBuf, Arc<dyn File>, LogHeader)> {
    let path = files.layout().log(id);
    let file = files.vfs().open(&path, OpenMode::Read).map_err(Error::opening(&path))?;
    let header = LogHeader::read(&path, &*file, id, files.store())?;
    Ok((path, file, header))
}

/// The log file that records are appended to.
#[derive(Debug)]
pub(crate) struct ActiveLog {
    pub(crate) header: LogHeader,
    pub(crate) keys: LogKeys,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    /// Where the next record goes.
    pub(crate) position: u64,
    /// Up to where the file was written, with records or zeros.
    written: u64,
}

impl ActiveLog {
    /// Creates the file with its header and its space, and makes both durable. The caller syncs the directory.
    pub(crate) fn create(vfs: &dyn Vfs, path: PathBuf, header: LogHeader, keys: &Keyring) -> Result<Self> {
        let keys = LogKeys::new(&header, keys, &path)?;
        let file = vfs.open(&path, OpenMode::CreateNew).map_err(Error::io("create", &path))?;
        file.allocate(header.capacity).map_err(Error::io("allocate", &path))?;
        file.write_all_at(&header.encode(), 0).map_err(Error::io("write", &path))?;
        file.sync().map_err(Error::io("sync", &path))?;
        Ok(Self { header, keys, path, file, position: HEADER_LEN, written: HEADER_LEN })
    }

    /// Encodes a record that is to stand at a place, with its frame, whose content begins at `content_at`: all
    /// encrypted, if the store is.
    pub(crate) fn encode<'f>(
        &self,
        keys: &Keyring,
        body: &Body,
        at: Position,
        frame: Option<&'f Frame>,
        content_at: u64,
    ) -> Result<Encoded<'f>> {
        let sealing = |purpose| self.keys.envelope.sealing(keys, body.domain, purpose);
        let frame = match (frame, sealing(Purpose::Content)?) {
            (None, _) => Cow::Borrowed(&[][..]),
            (Some(frame), None) => Cow::Borrowed(frame.bytes.as_slice()),
            (Some(frame), Some(sealing)) => Cow::Owned(frame.seal(&sealing, content_at)?),
        };
        let (head, rest) = body.encode(at, len64(&frame), &self.keys.check, sealing(Purpose::Record)?.as_ref())?;
        Ok(Encoded { head, frame, rest })
    }

    /// How many bytes of records fit in.
    pub(crate) fn room(&self) -> u64 {
        self.header.capacity.saturating_sub(self.position)
    }

    /// Writes records (`len` bytes in all) behind the last, and zeros behind them. They are durable after the next
    /// [`sync`](Self::sync). After an error nothing may be appended any more: what reached the file is unknown.
    pub(crate) fn append<'a>(&mut self, pieces: &mut Vec<IoSlice<'a>>, len: u64) -> Result<()> {
        let end = self.position + len;
        if end > self.written {
            let ahead = if len <= ZEROS_FOR { (GROUPS_AHEAD * len).max(ZEROS_AHEAD) } else { 0 };
            let ahead = ahead.min(self.header.capacity.saturating_sub(end));
            let (zeros, _) = ZEROS.split_at(ZEROS.len().min(index(ahead)));
            pieces.push(IoSlice::new(zeros));
            self.written = end + len64(zeros);
        }
        self.file.write_all_vectored_at(pieces, self.position).map_err(Error::io("write", &self.path))?;
        self.position = end;
        Ok(())
    }

    /// Makes all records written so far durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().map_err(Error::io("sync", &self.path))
    }
}
