//! A handle on a blob, and what can be read through it.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::blob::unpack;
use crate::digest::{Digest, Hasher};
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Codec};
use crate::sealed::SealedFile;
use crate::segment::{blocks, table_offset};

/// A handle on a blob.
///
/// It stays readable, with the same bytes, while the blob is removed or its segment is compacted away.
///
/// Content is stored in blocks of 4 KiB to 64 KiB with a checksum each. [`bytes`](Self::bytes), [`slice`](Self::slice) and
/// [`reader`](Self::reader) verify each block that they touch, the first time it is touched, and hand out damage as
/// [`Error::Corrupt`].
#[derive(Clone, Debug)]
pub struct Blob {
    digest: Digest,
    fact: BlobFact,
    file: Arc<SealedFile>,
    /// What was read once and is needed again: the content of a compressed blob, the table of block checksums of another.
    kept: OnceLock<Bytes>,
}

impl Blob {
    pub(crate) fn new(digest: Digest, fact: BlobFact, file: Arc<SealedFile>) -> Self {
        Self { digest, fact, file, kept: OnceLock::new() }
    }

    /// The blob's digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The blob's length in bytes.
    pub fn len(&self) -> u64 {
        self.fact.len
    }

    /// Whether the blob is empty.
    pub fn is_empty(&self) -> bool {
        self.fact.len == 0
    }

    /// The whole content, verified.
    ///
    /// Where the content is mapped and not compressed, no byte is copied: the time goes into verifying blocks that were
    /// not touched before.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the content is damaged, [`Error::Io`] where it can't be read.
    pub fn bytes(&self) -> Result<Bytes> {
        self.slice(0..self.len())
    }

    /// The whole content without verification, in constant time where it is mapped and not compressed.
    ///
    /// # Errors
    /// [`Error::Io`] where the content can't be read; [`Error::Corrupt`] where it is cut off, or compressed and damaged.
    pub fn bytes_unverified(&self) -> Result<Bytes> {
        match self.fact.codec {
            Codec::Plain => self.file.bytes_unverified(self.fact.place.offset, to_usize(self.fact.place.stored_len)?),
            Codec::Zstd => self.unpacked(),
        }
    }

    /// A part of the content, verified. Only the blocks that it touches are read.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] unless the range lies within the blob; otherwise as [`bytes`](Self::bytes).
    pub fn slice(&self, range: Range<u64>) -> Result<Bytes> {
        self.check(&range)?;
        let Range { start, end } = range;
        match self.fact.codec {
            Codec::Plain => self.stored(start, end),
            Codec::Zstd => Ok(self.unpacked()?.slice(to_usize(start)?..to_usize(end)?)),
        }
    }

    /// Fails unless a range lies within the blob.
    pub(crate) fn check(&self, range: &Range<u64>) -> Result<()> {
        let (&Range { start, end }, len) = (range, self.len());
        if start <= end && end <= len { Ok(()) } else { Err(Error::OutOfRange { start, end, len }) }
    }

    /// Reads the content from the front, block by block, verified. Damage comes out as an [`io::Error`] that holds the
    /// [`Error`].
    pub fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), position: 0, held: Bytes::new(), held_at: 0 }
    }

    /// Reads everything and compares it with the digest.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with [`Damage::Digest`] where the content is another, although its checksums hold; otherwise
    /// as [`bytes`](Self::bytes).
    pub fn verify(&self) -> Result<()> {
        let mut hasher = Hasher::new(self.digest.algorithm());
        let mut at = 0;
        while at < self.len() {
            let end = self.len().min(at + (1 << 20));
            hasher.update(&self.slice(at..end)?);
            at = end;
        }
        if hasher.finish() == self.digest {
            return Ok(());
        }
        Err(Error::corrupt(self.file.path(), self.fact.place.offset, Damage::Digest))
    }

    /// The verified bytes of stored content.
    fn stored(&self, start: u64, end: u64) -> Result<Bytes> {
        let place = &self.fact.place;
        if start == end {
            return Ok(Bytes::new());
        }
        let block_len = 1 << place.block_log2;
        let count = blocks(place.stored_len, place.block_log2);
        if count == 1 {
            let whole = self.file.bytes(place.offset, to_usize(place.stored_len)?, place.crc)?;
            return Ok(whole.slice(to_usize(start)?..to_usize(end)?));
        }
        let table_at = place.offset + table_offset(place.stored_len);
        let table = self.table(table_at, to_usize(4 * count)?)?;
        let (first, last) = (start / block_len, (end - 1) / block_len);
        let mut crcs = table.get(to_usize(4 * first)?..).unwrap_or_default().chunks_exact(4);
        let mut copied = Vec::new();
        if !self.file.is_mapped() {
            copied.reserve_exact(to_usize(end - start)?);
        }
        for number in first..=last {
            let crc = crcs.next().and_then(|crc| crc.try_into().ok()).map(u32::from_le_bytes);
            let crc = crc.ok_or_else(|| Error::corrupt(self.file.path(), table_at, Damage::Truncated))?;
            let at = number * block_len;
            let len = block_len.min(place.stored_len - at);
            let block = self.file.block(place.offset + at, to_usize(len)?, crc)?;
            if !self.file.is_mapped() {
                let from = to_usize(start.saturating_sub(at))?;
                let to = to_usize((end - at).min(len))?;
                copied.extend_from_slice(block.get(from..to).unwrap_or_default());
            }
        }
        if self.file.is_mapped() {
            return self.file.bytes_unverified(place.offset + start, to_usize(end - start)?);
        }
        Ok(copied.into())
    }

    /// The verified table of block checksums.
    fn table(&self, at: u64, len: usize) -> Result<Bytes> {
        let keeps = self.fact.codec == Codec::Plain;
        if keeps && let Some(table) = self.kept.get() {
            return Ok(table.clone());
        }
        let table = self.file.bytes(at, len, self.fact.place.crc)?;
        Ok(if keeps { self.kept.get_or_init(|| table).clone() } else { table })
    }

    /// The content of a compressed blob. Compressed content is at most 4 MiB long, so it is unpacked whole, once.
    fn unpacked(&self) -> Result<Bytes> {
        if let Some(content) = self.kept.get() {
            return Ok(content.clone());
        }
        let damaged = || Error::corrupt(self.file.path(), self.fact.place.offset, Damage::Compression);
        let packed = self.stored(0, self.fact.place.stored_len)?;
        let len = usize::try_from(self.fact.len).ok().filter(|len| *len <= MAX_UNPACKED).ok_or_else(damaged)?;
        let content: Bytes = unpack(&packed, len).ok_or_else(damaged)?.into();
        Ok(self.kept.get_or_init(|| content).clone())
    }
}

/// The longest content that is ever compressed, in bytes.
const MAX_UNPACKED: usize = 4 << 20;

fn to_usize(n: u64) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::TooLarge { what: "content in memory", limit: usize::MAX as u64, found: n })
}

/// Reads a blob from any position, verified block by block. See [`Blob::reader`].
#[derive(Clone, Debug)]
pub struct BlobReader {
    blob: Blob,
    position: u64,
    /// The block read last, and where it begins.
    held: Bytes,
    held_at: u64,
}

impl BlobReader {
    /// How much is read at a time: the largest block.
    const STEP: u64 = 64 << 10;
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.blob.len() || buf.is_empty() {
            return Ok(0);
        }
        if self.position < self.held_at || self.position >= self.held_at + self.held.len() as u64 {
            self.held_at = self.position - self.position % Self::STEP;
            let end = self.blob.len().min(self.held_at + Self::STEP);
            self.held = self.blob.slice(self.held_at..end).map_err(io::Error::other)?;
        }
        let from = usize::try_from(self.position - self.held_at).unwrap_or(usize::MAX);
        let rest = self.held.get(from..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.blob.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
