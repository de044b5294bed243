//! One log file: a header, then records.
//!
//! ```text
//! header, 512 bytes: magic 8 | version u32 | domain u32 (0) | file u64 | store 16 | session 16 | first_lsn u64 |
//!                    capacity u64 | key u32 (0) | reserved (0) 4 | salt 32 | zeros | crc u32 at 508
//! ```
//!
//! A file gets its whole capacity and its header, and both are synced, before the [list](crate::runs) names it, so a
//! listed file without a valid header or shorter than its capacity is damaged, never torn.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Damage, Error, Result};
use crate::id::{FileId, Lsn, SessionId, StoreId};
use crate::log::record::Salt;
use crate::vfs::{File, OpenMode, Vfs};
use crate::wire::{Fields, PutFields, crc32c};

/// The length of a log file's header in bytes: the first record begins behind it.
pub(crate) const HEADER_LEN: u64 = 512;

const MAGIC: [u8; 8] = *b"SRlog\0\0\0";
const VERSION: u32 = 1;

/// How far ahead of the records the file is filled with zeros. An fdatasync of bytes over zeros changes no metadata: on
/// ext4 it takes 90 µs where one over space that was only reserved takes 137.
const ZEROS_AHEAD: u64 = 256 << 10;
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// Zeros are written for small groups only: larger ones take as long without, and then zeros just double what is written.
const ZEROS_FOR: u64 = 16 << 10;

/// What a log file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogHeader {
    pub(crate) file: FileId,
    pub(crate) store: StoreId,
    pub(crate) session: SessionId,
    pub(crate) first_lsn: Lsn,
    /// The file's length until it is sealed.
    pub(crate) capacity: u64,
    pub(crate) salt: Salt,
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
        out.put_u64(0);
        out.put(&self.salt);
        out.resize(508, 0);
        out.put_u32(crc32c(&out));
        out
    }

    /// Parses a header.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let (body, check) = bytes.get(..512).and_then(|bytes| bytes.split_at_checked(508)).ok_or(Damage::Truncated)?;
        let mut fields = Fields(body);
        if fields.array() != Some(MAGIC) {
            return Err(Damage::Magic);
        }
        let (expected, found) = (Fields(check).u32().unwrap_or_default(), crc32c(body));
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
            fields.u64()?;
            Some(Self { file, store, session, first_lsn, capacity, salt: fields.array()? })
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

/// The log file that records are appended to.
#[derive(Debug)]
pub(crate) struct ActiveLog {
    pub(crate) header: LogHeader,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    /// Where the next record goes.
    pub(crate) position: u64,
    /// Up to where the file was written, with records or zeros.
    written: u64,
}

impl ActiveLog {
    /// Creates the file with its header and its space, and makes both durable. The caller syncs the directory.
    pub(crate) fn create(vfs: &dyn Vfs, path: PathBuf, header: LogHeader) -> Result<Self> {
        let file = vfs.open(&path, OpenMode::CreateNew).map_err(Error::io("create", &path))?;
        file.allocate(header.capacity).map_err(Error::io("allocate", &path))?;
        file.write_all_at(&header.encode(), 0).map_err(Error::io("write", &path))?;
        file.sync().map_err(Error::io("sync", &path))?;
        Ok(Self { header, path, file, position: HEADER_LEN, written: HEADER_LEN })
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
            let ahead = if len <= ZEROS_FOR { ZEROS_AHEAD.min(self.header.capacity.saturating_sub(end)) } else { 0 };
            pieces.push(IoSlice::new(ZEROS.get(..usize::try_from(ahead).unwrap_or_default()).unwrap_or_default()));
            self.written = end + ahead;
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
