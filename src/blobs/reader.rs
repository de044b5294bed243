//! Handles on blobs, and reading through them.

use std::cell::RefCell;
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use memmap2::MmapMut;

use crate::blobs::unpack;
use crate::digest::{Digest, Hasher};
use crate::envelope::{CheckKey, Keyring, Purpose, Sealing};
use crate::error::{Damage, Error, Result, room};
use crate::facts::{BlobFact, Codec, SEALED_ENTRY};
use crate::files::Contents;
use crate::id::DomainId;
use crate::sealed::{Block, SealedFile};
use crate::segment::{blocks, entry, entry_len, open_block, table_check, table_offset};
use crate::sync::lock;
use crate::thread::{lend, side_by_side};
use crate::wire::index;

/// A handle on a blob.
///
/// It stays readable, with the same bytes, while the blob is removed or its segment is compacted away.
///
/// Content is stored in blocks of 4 KiB to 64 KiB with a checksum each. [`bytes`](Self::bytes), [`slice`](Self::slice)
/// and [`reader`](Self::reader) verify each block the first time it is read, and return [`Error::Corrupt`] where it is
/// damaged. Where content is encrypted, each block is decrypted, and thereby verified, each time it is
/// read.
#[derive(Clone)]
pub struct Blob {
    digest: Digest,
    fact: BlobFact,
    file: Arc<SealedFile>,
    opening: Option<Opening>,
    /// What was read once and is needed again: the content of a compressed blob, the table of block checksums of
    /// another.
    kept: OnceLock<Bytes>,
}

/// The content of a [`Blob`], which it borrows: see [`Blob::view`].
pub struct BlobView<'a>(Viewed<'a>);

enum Viewed<'a> {
    Block(Block<'a>),
    Bytes(Bytes),
}

impl Deref for BlobView<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Viewed::Block(block) => block,
            Viewed::Bytes(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for BlobView<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// How long it is: content is not for logs.
impl std::fmt::Debug for BlobView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobView").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Which it is: its content is not for logs.
impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob").field("digest", &self.digest).field("len", &self.fact.len).finish_non_exhaustive()
    }
}

impl Blob {
    /// A handle on the blob of a domain.
    pub(crate) fn new(
        digest: Digest,
        fact: BlobFact,
        file: Arc<SealedFile>,
        contents: &dyn Contents,
        domain: DomainId,
    ) -> Result<Self> {
        let opening = match fact.place.key {
            0 if contents.accepts_plain() => None,
            0 => return Err(Error::corrupt(file.path(), fact.place.offset, Damage::NotSealed)),
            _ => Some(Opening::new(&fact, &file, &contents.keys(), domain)?),
        };
        Ok(Self { digest, fact, file, opening, kept: OnceLock::new() })
    }

    /// The file that holds the content.
    #[cfg(feature = "tokio")]
    pub(crate) fn file(&self) -> &Arc<SealedFile> {
        &self.file
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
    /// Where the content is mapped and neither compressed nor encrypted, no byte of more than 16 KiB is copied: the
    /// time is spent on verifying blocks that were not read before. Such bytes keep the file mapped, up to 64 MiB of
    /// it, as long as they are there; shorter ones are copied and do not.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the content is damaged, [`Error::Io`] where it can't be read.
    pub fn bytes(&self) -> Result<Bytes> {
        self.slice(0..self.len())
    }

    /// The whole content, verified, for as long as the handle is there. However short it is, it is not copied where it
    /// is mapped and neither compressed nor encrypted, and was read before.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// # let digest = store.put("content", Algorithm::Blake3)?.digest;
    /// let blob = store.get(&digest)?;
    /// assert_eq!(blob.view()?[..4], *b"cont");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn view(&self) -> Result<BlobView<'_>> {
        let place = &self.fact.place;
        let is_plain = self.opening.is_none() && self.fact.codec == Codec::Plain;
        if is_plain && blocks(place.stored_len, place.block_log2) == 1 {
            let block = self.file.block(place.offset, to_usize(place.stored_len)?, place.crc)?;
            return Ok(BlobView(Viewed::Block(block)));
        }
        // What is longer than a block is not copied either.
        self.bytes().map(|bytes| BlobView(Viewed::Bytes(bytes)))
    }

    /// The whole content without verification, in constant time where it is mapped and neither compressed nor
    /// encrypted.
    ///
    /// # Errors
    /// [`Error::Io`] where the content can't be read; [`Error::Corrupt`] where it is cut off, or where it is damaged
    /// and compressed or encrypted.
    pub fn bytes_unverified(&self) -> Result<Bytes> {
        match self.fact.codec {
            Codec::Plain if self.opening.is_none() => {
                self.file.bytes_unverified(self.fact.place.offset, to_usize(self.fact.place.stored_len)?)
            }
            _ => self.bytes(),
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
            _ if start == end => Ok(Bytes::new()),
            Codec::Plain => self.stored(start, end),
            Codec::Zstd => Ok(self.unpacked()?.slice(to_usize(start)?..to_usize(end)?)),
        }
    }

    /// About how many bytes of the process's own memory are needed to read a range of the content in pieces of 256 KiB,
    /// one ahead: none where the range is empty, or mapped and neither compressed nor encrypted; two pieces where it is
    /// copied or decrypted; the whole content where it is compressed, which only content up to 4 MiB is.
    pub fn memory(&self, range: &Range<u64>) -> u64 {
        let pieces = range.end.saturating_sub(range.start).min(512 << 10);
        match self.fact.codec {
            _ if pieces == 0 => 0,
            Codec::Zstd => self.len(),
            Codec::Plain if self.opening.is_some() || !self.file.is_mapped() => pieces,
            Codec::Plain => 0,
        }
    }

    /// Fails unless a range lies within the blob.
    pub(crate) fn check(&self, range: &Range<u64>) -> Result<()> {
        let (&Range { start, end }, len) = (range, self.len());
        if start <= end && end <= len { Ok(()) } else { Err(Error::OutOfRange { start, end, len }) }
    }

    /// A reader of the content from its beginning, verified block by block. Where a block is damaged, it fails with an
    /// [`io::Error`] that holds the [`Error`].
    pub fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), position: 0, held: Bytes::new(), held_at: 0 }
    }

    /// Reads everything and compares it with the digest.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with [`Damage::Digest`] where the content has another digest, although its checksums are
    /// right; otherwise as [`bytes`](Self::bytes).
    pub fn verify(&self) -> Result<()> {
        self.verify_by(|_| Ok(()))
    }

    /// [`verify`](Self::verify), which calls `step` with the length of each piece that it has read, and ends with its
    /// error.
    pub(crate) fn verify_by<E: From<Error>>(&self, mut step: impl FnMut(u64) -> Result<(), E>) -> Result<(), E> {
        let mut hasher = Hasher::new(self.digest.algorithm());
        let mut at = 0;
        while at < self.len() {
            let end = self.len().min(at + (1 << 20));
            hasher.update(&self.slice(at..end)?);
            step(end - at)?;
            at = end;
        }
        if hasher.finish() == self.digest { Ok(()) } else { Err(self.corrupt(Damage::Digest).into()) }
    }

    /// The content as it is stored: perhaps compressed, not encrypted.
    pub(crate) fn stored_content(&self) -> Result<Bytes> {
        self.stored(0, self.fact.place.stored_len)
    }

    /// Damage to the content.
    pub(crate) fn corrupt(&self, damage: Damage) -> Error {
        Error::corrupt(self.file.path(), self.fact.place.offset, damage)
    }

    /// There is less content than there should be.
    fn cut_off(&self, offset: u64) -> Error {
        Error::corrupt(self.file.path(), offset, Damage::Truncated)
    }

    /// The verified bytes of stored content.
    fn stored(&self, start: u64, end: u64) -> Result<Bytes> {
        let place = &self.fact.place;
        if start == end {
            return Ok(Bytes::new());
        }
        if let Some(opening) = &self.opening {
            return self.decrypted(opening, start, end);
        }
        let block_len = 1 << place.block_log2;
        let count = blocks(place.stored_len, place.block_log2);
        if count == 1 {
            let whole = self.file.bytes(place.offset, to_usize(place.stored_len)?, place.crc)?;
            return Ok(part_of(&whole, to_usize(start)?..to_usize(end)?));
        }
        let table_at = place.offset + table_offset(place.stored_len, 0);
        let table = self.table(table_at, to_usize(4 * count)?)?;
        let (first, last) = (start / block_len, (end - 1) / block_len);
        let crcs = table.as_chunks().0.get(to_usize(first)?..to_usize(last + 1)?);
        let crcs = crcs.ok_or_else(|| Error::corrupt(self.file.path(), table_at, Damage::Truncated))?;
        if self.file.is_mapped() {
            let (from, until) = (first * block_len, place.stored_len.min((last + 1) * block_len));
            self.file.verify(place.offset + from, to_usize(until - from)?, to_usize(block_len)?, crcs)?;
            return self.file.bytes_verified(place.offset + start, to_usize(end - start)?);
        }
        let mut copied = room(self.file.path(), to_usize(end - start)?)?;
        for (number, crc) in (first..).zip(crcs) {
            let at = number * block_len;
            let len = block_len.min(place.stored_len - at);
            let block = self.file.block(place.offset + at, to_usize(len)?, u32::from_le_bytes(*crc))?;
            let from = to_usize(start.saturating_sub(at))?;
            let to = to_usize((end - at).min(len))?;
            let part = block.get(from..to).ok_or_else(|| self.cut_off(place.offset + at))?;
            copied.extend_from_slice(part);
        }
        Ok(copied.into())
    }

    /// The bytes of encrypted content. Only the blocks are decrypted that the range touches.
    fn decrypted(&self, opening: &Opening, start: u64, end: u64) -> Result<Bytes> {
        let place = &self.fact.place;
        let block_len = 1 << place.block_log2;
        let (first, last) = (start / block_len, (end - 1) / block_len);
        let from = first * block_len;
        let until = ((last + 1) * block_len).min(place.stored_len);
        if blocks(place.stored_len, place.block_log2) == 1 {
            let content = self.decrypt_small(opening)?;
            return Ok(content.slice(to_usize(start)?..to_usize(end)?));
        }
        let mut out = Buffer::new(self.file.path(), to_usize(until - from)?)?;
        match &mut out {
            Buffer::Large(map) => self.decrypt_into(opening, first, map)?,
            Buffer::Small(bytes) => {
                let table = self.sealed_table(opening, first, last)?;
                for (index, number) in (first..=last).enumerate() {
                    let (filled, len) = (bytes.len(), block_len.min(place.stored_len - number * block_len));
                    self.file.append_to(place.offset + number * block_len, to_usize(len)?, bytes)?;
                    self.open_block(opening, entry(&table, index), number, bytes.split_at_mut(filled).1)?;
                }
            }
        }
        Ok(out.into_bytes().slice(to_usize(start - from)?..to_usize(end - from)?))
    }

    /// Decrypts the blocks from one on into memory for so many whole ones, of which the last may be the shorter one at
    /// the end. Many are decrypted on two threads.
    fn decrypt_into(&self, opening: &Opening, first: u64, out: &mut [u8]) -> Result<()> {
        let place = &self.fact.place;
        let block_len = 1 << place.block_log2;
        let last = first + blocks((out.len() as u64).max(1), place.block_log2) - 1;
        let table = self.sealed_table(opening, first, last)?;
        let is_long = out.len() >= Buffer::LARGE;
        let parts = (first..)
            .step_by(PART / block_len)
            .zip(out.chunks_mut(PART))
            .zip(table.chunks(PART / block_len * SEALED_ENTRY));
        let parts = Mutex::new(parts);
        let work = || {
            loop {
                let Some(((first, part), table)) = lock(&parts).next() else { return Ok(()) };
                for ((number, block), index) in (first..).zip(part.chunks_mut(block_len)).zip(0..) {
                    self.file.copy_to(place.offset + number * block_len as u64, block)?;
                    self.open_block(opening, entry(table, index), number, block)?;
                }
            }
        };
        if is_long { side_by_side("strongroom-decrypt", work) } else { work() }
    }

    /// Decrypts a block that was just read, where it is.
    fn open_block(&self, opening: &Opening, entry: &[u8], number: u64, block: &mut [u8]) -> Result<()> {
        let at = self.fact.place.offset + (number << self.fact.place.block_log2);
        let opened = open_block(&opening.sealing, entry, number, opening.prefix, block);
        opened.ok_or_else(|| Error::corrupt(self.file.path(), at, Damage::Seal))?;
        self.file.mark(at, block.len());
        Ok(())
    }

    /// Decrypts whole blocks from a position on into memory of the caller's, and says how many bytes that were: none
    /// where the content is not encrypted in several blocks, the position is not the beginning of one, or there is no
    /// room for one.
    fn decrypt_whole(&self, position: u64, out: &mut [u8]) -> Result<usize> {
        let place = &self.fact.place;
        let block_len = 1u64 << place.block_log2;
        let Some(opening) = self.opening.as_ref().filter(|_| self.fact.codec == Codec::Plain) else { return Ok(0) };
        if blocks(place.stored_len, place.block_log2) == 1 || !position.is_multiple_of(block_len) {
            return Ok(0);
        }
        let (left, room) = (place.stored_len.saturating_sub(position), out.len() as u64);
        let len = to_usize(if left <= room { left } else { room - room % block_len })?;
        if let Some(out) = out.get_mut(..len).filter(|out| !out.is_empty()) {
            self.decrypt_into(opening, position / block_len, out)?;
        }
        Ok(len)
    }

    /// Decrypts content of one block, with what stands behind it: out of the mapping, or from where both are read to.
    fn decrypt_small(&self, opening: &Opening) -> Result<Bytes> {
        let place = &self.fact.place;
        let table_at = to_usize(table_offset(place.stored_len, place.key))?;
        let len = table_at + to_usize(entry_len(place.key))?;
        let open = |found: &[u8]| {
            let (content, table) = found.split_at(table_at);
            let is_expected = opening.check.as_ref().is_none_or(|check| table_check(check, table) == place.crc);
            let stored = content.get(..to_usize(place.stored_len)?).filter(|_| is_expected);
            let opened = stored.and_then(|stored| {
                let mut out = stored.to_vec();
                open_block(&opening.sealing, table, 0, opening.prefix, &mut out).map(|()| out)
            });
            Ok(Bytes::from(opened.ok_or_else(|| self.corrupt(Damage::Seal))?))
        };
        if let Some(seen) = self.file.seen(place.offset, len)? {
            return open(seen);
        }
        lend(&SCRATCH, |scratch| {
            scratch.resize(len, 0);
            self.file.copy_to(place.offset, scratch)?;
            let out = open(scratch)?;
            self.file.mark(place.offset, len);
            Ok(out)
        })
    }

    /// The table's entries for these blocks. That of a segment is verified as a whole, and kept.
    fn sealed_table(&self, opening: &Opening, first: u64, last: u64) -> Result<Bytes> {
        let place = &self.fact.place;
        let (entry, at) = (entry_len(place.key), place.offset + table_offset(place.stored_len, place.key));
        let range = to_usize(first * entry)?..to_usize((last + 1) * entry)?;
        let Some(check) = &opening.check else {
            return self.file.read(at + first * entry, range.len()).map(Bytes::from);
        };
        if let Some(table) = self.kept.get().filter(|_| self.fact.codec == Codec::Plain) {
            return Ok(table.slice(range));
        }
        let len = to_usize(entry * blocks(place.stored_len, place.block_log2))?;
        let table = Bytes::from(self.file.read(at, len)?);
        if table_check(check, &table) != place.crc {
            return Err(Error::corrupt(self.file.path(), at, Damage::Seal));
        }
        let kept = if self.fact.codec == Codec::Plain { self.kept.get_or_init(|| table).clone() } else { table };
        Ok(kept.slice(range))
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
        let damaged = || self.corrupt(Damage::Compression);
        let packed = self.stored(0, self.fact.place.stored_len)?;
        let len = usize::try_from(self.fact.len).ok().filter(|len| *len <= MAX_UNPACKED).ok_or_else(damaged)?;
        let content: Bytes = unpack(&packed, len).ok_or_else(damaged)?.into();
        Ok(self.kept.get_or_init(|| content).clone())
    }
}

thread_local! {
    /// Where small encrypted content is read to, with what it takes to decrypt it.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// So much is decrypted at a time by one of two threads: a huge page, so that each fills its own.
const PART: usize = 2 << 20;

/// Memory that content is decrypted into.
enum Buffer {
    Small(Vec<u8>),
    Large(MmapMut),
}

impl Buffer {
    /// From this length on huge pages are asked for: to fault the others in, one by one, takes several times as long as
    /// to decrypt.
    const LARGE: usize = 4 << 20;

    /// Room for so many bytes: nothing yet, or zeros.
    fn new(path: &Path, len: usize) -> Result<Self> {
        if len >= Self::LARGE
            && let Ok(map) = MmapMut::map_anon(len)
        {
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage); // only slower without
            return Ok(Self::Large(map));
        }
        room(path, len).map(Self::Small)
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Small(bytes) => bytes.into(),
            Self::Large(map) => Bytes::from_owner(map),
        }
    }
}

/// How a blob's content is decrypted.
#[derive(Clone)]
struct Opening {
    sealing: Sealing,
    /// The key for the check of the table, where there is one: in a segment.
    check: Option<CheckKey>,
    /// The prefix of its nonces, where that is known: in a log file.
    prefix: Option<u64>,
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.sealing.fmt(f)
    }
}

impl Opening {
    fn new(fact: &BlobFact, file: &SealedFile, keys: &Keyring, domain: DomainId) -> Result<Self> {
        let key = fact.place.key;
        let unknown = || Error::corrupt(file.path(), fact.place.offset, Damage::Invalid("key number"));
        let envelope = file.envelope().ok_or_else(unknown)?;
        let sealing = envelope.opening(keys, domain, key, Purpose::Content).ok_or_else(unknown)?;
        let has_check = fact.place.crc != 0;
        let check_key = || envelope.check_key(keys, domain, key).ok_or_else(unknown);
        let check = has_check.then(check_key).transpose()?;
        let prefix = (!has_check).then_some(fact.place.offset);
        Ok(Self { sealing, check, prefix })
    }
}

/// The longest content that is ever compressed, in bytes.
const MAX_UNPACKED: usize = 4 << 20;

/// A part of content that may be mapped: few bytes of it are copied, so that they do not keep the mapping.
pub(crate) fn part_of(whole: &Bytes, range: Range<usize>) -> Bytes {
    let part = whole.slice(range);
    let is_few_of_many = part.len() <= SealedFile::COPIED && whole.len() > SealedFile::COPIED;
    if is_few_of_many { Bytes::copy_from_slice(&part) } else { part }
}

fn to_usize(n: u64) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::TooLarge { what: "content in memory", limit: usize::MAX as u64, found: n })
}

/// Reads a blob from any position, verified block by block. See [`Blob::reader`].
#[derive(Clone)]
pub struct BlobReader {
    blob: Blob,
    position: u64,
    /// The block read last, and where it begins.
    held: Bytes,
    held_at: u64,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader").field("blob", &self.blob).field("position", &self.position).finish_non_exhaustive()
    }
}

impl BlobReader {
    /// How much is read at a time: the largest block.
    const STEP: u64 = 64 << 10;

    /// Whether the next byte is in the block that was read last.
    fn holds_position(&self) -> bool {
        (self.held_at..self.held_at + self.held.len() as u64).contains(&self.position)
    }
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position >= self.blob.len() {
            return Ok(&[]);
        }
        if !self.holds_position() {
            let held_at = self.position - self.position % Self::STEP;
            let end = self.blob.len().min(held_at + Self::STEP);
            self.held = self.blob.slice(held_at..end).map_err(io::Error::other)?;
            self.held_at = held_at;
        }
        let from = index(self.position - self.held_at);
        // To read nothing would say that the content ends here.
        let rest = self.held.get(from..).filter(|rest| !rest.is_empty());
        rest.ok_or_else(|| io::Error::other(self.blob.corrupt(Damage::Truncated)))
    }

    fn consume(&mut self, len: usize) {
        self.position += len as u64;
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if !self.holds_position() {
            let n = self.blob.decrypt_whole(self.position, buf).map_err(io::Error::other)?;
            if n > 0 {
                self.consume(n);
                return Ok(n);
            }
        }
        let rest = self.fill_buf()?;
        let n = rest.len().min(buf.len());
        buf.split_at_mut(n).0.copy_from_slice(rest.split_at(n).0);
        self.consume(n);
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
