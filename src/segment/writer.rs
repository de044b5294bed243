//! Writing a segment of one frame, front to back, from content that streams in.

use std::fs;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::envelope::{CheckKey, FileEnvelope, FileHeader, KeyNumber, Keyring, Nonce, Purpose, Sealing};
use crate::error::{Damage, Error, Result};
use crate::facts::{BLOCK_LOG2, Codec, DESCRIPTOR_LEN, SEALED_ENTRY, entry_len, frame_len, put_digest, take_digest};
use crate::id::{DomainId, FileId};
use crate::random::random;
use crate::segment::frame::{Descriptor, FOOTER_NUMBER, MAX_LEN, encode_tail, entry, open_block, put_entry};
use crate::vfs::File;
use crate::wire::{Fields, PutFields, RunningCrc, crc32c, first, index, len64};
use crate::zeroing::Zeroizing;

/// Where the first frame of a segment begins: its content, behind the descriptor, begins at a page.
pub(crate) const SEGMENT_FRAME_OFFSET: u64 = 4096 - DESCRIPTOR_LEN;
pub(crate) const CONTENT_OFFSET: u64 = 4096;

pub(super) const MAGIC: [u8; 8] = *b"SRseg\0\0\0";
const TRAILER_MAGIC: [u8; 4] = *b"SRft";
const TRAILER_LEN: u64 = 24;

/// The last bytes of a segment that is complete.
pub(crate) type Trailer = [u8; 24];

/// Content that streams into a segment is checksummed, or encrypted, in blocks of 64 KiB. What turns out to be so short
/// that smaller blocks would do is either put into the log instead, or is one block all the same.
const BLOCK: usize = 1 << *BLOCK_LOG2.end();

/// How much is read back at a time of content that is shared with another file.
const PIECE: usize = 1 << 20;

/// Writes a segment of one frame.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    path: PathBuf,
    file: Arc<dyn File>,
    /// How many bytes of content were taken in.
    len: u64,
    /// The table of the whole blocks written.
    table: Vec<u8>,
    blocks: Blocks,
}

/// What becomes of blocks, and what is kept of the last, incomplete one.
#[derive(Debug)]
enum Blocks {
    /// They are written as they are; its checksum.
    Plain(RunningCrc),
    /// They are encrypted, whole: until then its bytes are held in memory.
    Sealed(SealedBlocks),
}

struct SealedBlocks {
    sealing: Sealing,
    check_key: CheckKey,
    /// In the nonces of all that this opening of the segment encrypts: see [`crate::envelope`].
    prefix: u64,
    rest: Zeroizing<Vec<u8>>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for SealedBlocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedBlocks(domain {}, key {})", self.sealing.domain.0, self.sealing.key)
    }
}

/// How much of a segment is durable: where writing resumes.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The number of the key that it is encrypted with; 0 for none.
    pub(crate) key: KeyNumber,
    /// How many bytes of content.
    pub(crate) len: u64,
    /// The table of the whole blocks.
    pub(crate) table: Vec<u8>,
    /// The checksum of the last, incomplete block.
    pub(crate) block_crc: u32,
    /// The content of that block, where the segment is encrypted and so does not have it yet.
    pub(crate) rest: Vec<u8>,
}

impl SegmentWriter {
    /// Begins a segment in a new file, for content of a domain.
    pub(crate) fn begin(
        (path, file): (PathBuf, Arc<dyn File>),
        id: FileId,
        keys: &Keyring,
        domain: DomainId,
    ) -> Result<Self> {
        let header = FileHeader::new(id, keys, domain)?;
        let encoded = header.encode(&MAGIC);
        let blocks = Blocks::new(&path, &FileEnvelope::new(id, &encoded), keys, domain, header.key)?;
        file.write_all_at(&encoded, 0).map_err(Error::io("write", &path))?;
        Ok(Self { path, file, len: 0, table: Vec::new(), blocks })
    }

    /// Goes on with a segment of which so much is durable. What was written behind that is overwritten.
    pub(crate) fn resume(
        (path, file): (PathBuf, Arc<dyn File>),
        id: FileId,
        keys: &Keyring,
        domain: DomainId,
        progress: Progress,
    ) -> Result<Self> {
        let file_len = file.len().map_err(Error::io("read the length of", &path))?;
        let written = progress.len.saturating_sub(len64(&progress.rest));
        if written > 0 && file_len < CONTENT_OFFSET + written {
            return Err(Error::corrupt(&path, file_len, Damage::Truncated));
        }
        let mut header = [0; 512];
        file.read_exact_at(&mut header, 0).map_err(Error::io("read", &path))?;
        // Else what comes now would be encrypted under a salt that is damaged.
        if !parse_header(&header).is_some_and(|header| header.is_of(id, keys.store, domain, progress.key)) {
            return Err(Error::corrupt(&path, 0, Damage::Invalid("segment header")));
        }
        let mut blocks = Blocks::new(&path, &FileEnvelope::new(id, &header), keys, domain, progress.key)?;
        match &mut blocks {
            Blocks::Plain(crc) => *crc = RunningCrc::resume(progress.block_crc),
            Blocks::Sealed(sealed) => sealed.rest.put(&progress.rest),
        }
        Ok(Self { path, file, len: progress.len, table: progress.table, blocks })
    }

    /// How many bytes of content were taken in.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The table of the whole blocks written.
    pub(crate) fn table(&self) -> &[u8] {
        &self.table
    }

    /// What a later opening needs to know of the last, incomplete block: its checksum or, where blocks are encrypted,
    /// its content.
    pub(crate) fn incomplete(&self) -> (u32, &[u8]) {
        match &self.blocks {
            Blocks::Plain(crc) => (crc.get(), &[]),
            Blocks::Sealed(sealed) => (0, &sealed.rest),
        }
    }

    /// The number of the key that the segment is encrypted with; 0 for none.
    pub(crate) fn key(&self) -> KeyNumber {
        match &self.blocks {
            Blocks::Plain(_) => 0,
            Blocks::Sealed(sealed) => sealed.sealing.key,
        }
    }

    /// Takes in the next piece of content.
    pub(crate) fn append(&mut self, content: &[u8]) -> Result<()> {
        self.append_all(&[content])
    }

    /// Takes in the next pieces of content. They are written together.
    pub(crate) fn append_all(&mut self, pieces: &[&[u8]]) -> Result<()> {
        let len = self.len + len_of(pieces);
        if len > MAX_LEN {
            return Err(Error::TooLarge { what: "a blob's length", limit: MAX_LEN, found: len });
        }
        match &mut self.blocks {
            Blocks::Plain(crc) => {
                let mut at = self.len;
                write(&*self.file, &self.path, pieces, CONTENT_OFFSET + at)?;
                for piece in pieces {
                    add_checksums(&mut self.table, crc, at, piece);
                    at += len64(piece);
                }
            }
            Blocks::Sealed(sealed) => {
                for piece in pieces {
                    let number = self.table.len() / SEALED_ENTRY;
                    sealed.take(piece);
                    sealed.seal_buffer(number, &mut self.table)?;
                    write(&*self.file, &self.path, &[&sealed.buffer], CONTENT_OFFSET + (number * BLOCK) as u64)?;
                }
            }
        }
        self.len = len;
        Ok(())
    }

    /// Takes in the first `len` bytes of a file that is as long at least, before any other content, without writing
    /// them: the file system shares them. `read` is given what is taken in. `false`, and nothing taken in, where that
    /// can't be, as it can't where content is encrypted.
    ///
    /// What counts is what this file has: the other one may be written to meanwhile.
    pub(crate) fn share(
        &mut self,
        from: &fs::File,
        len: u64,
        mut read: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let Blocks::Plain(crc) = &mut self.blocks else { return Ok(false) };
        if self.len > 0 || len == 0 || len > MAX_LEN || !self.file.share(from, CONTENT_OFFSET, len).unwrap_or(false) {
            return Ok(false);
        }
        let mut piece = vec![0; PIECE];
        while self.len < len {
            let left = usize::try_from(len - self.len).unwrap_or(PIECE);
            let piece = piece.get_mut(..left.min(PIECE)).unwrap_or_default();
            self.file.read_exact_at(piece, CONTENT_OFFSET + self.len).map_err(Error::io("read", &self.path))?;
            add_checksums(&mut self.table, crc, self.len, piece);
            self.len += len64(piece);
            read(piece)?;
        }
        Ok(true)
    }

    /// Writes what is held of the content, and what surrounds it. The segment is complete, and durable after
    /// [`sync`](Self::sync).
    pub(crate) fn seal(&mut self, digest: Digest) -> Result<Descriptor> {
        let block_log2 = *BLOCK_LOG2.end();
        let (key, len, whole) = (self.key(), self.len, self.table.len());
        let mut table = self.table.clone();
        let is_incomplete = whole as u64 / entry_len(key) * (BLOCK as u64) < len;
        let mut descriptor = Descriptor::new(Codec::Plain, len, len, digest, &[]);
        (descriptor.block_log2, descriptor.key) = (block_log2, key);
        let mut end = Vec::new();
        match &self.blocks {
            Blocks::Plain(crc) => {
                if is_incomplete {
                    table.put_u32(crc.get());
                }
                let one = table.as_chunks().0;
                descriptor.crc = if let [one] = one { u32::from_le_bytes(*one) } else { crc32c(&table) };
            }
            Blocks::Sealed(sealed) => {
                if is_incomplete {
                    end.put(&sealed.rest);
                    let nonce = sealed.nonce(whole / SEALED_ENTRY)?;
                    let tag = sealed.sealing.cipher.seal(nonce, &[], &mut end)?;
                    put_entry(&mut table, sealed.prefix, &tag);
                }
                descriptor.crc = table_check(&sealed.check_key, &table);
            }
        }
        let frame_len = frame_len(len, block_log2, key);
        let at = CONTENT_OFFSET + len - len64(&end);
        end.put(&encode_tail(len, block_log2, key, &table));
        let frames = [(SEGMENT_FRAME_OFFSET, frame_len, digest)];
        end.put(&encode_footer(SEGMENT_FRAME_OFFSET + frame_len, &frames, self.blocks.sealed())?);
        write(&*self.file, &self.path, &[&end], at)?;
        let encoded = match self.blocks.sealed() {
            None => descriptor.encode(),
            Some((sealing, prefix)) => descriptor.seal(sealing, prefix)?,
        };
        self.file.write_all_at(&encoded, SEGMENT_FRAME_OFFSET).map_err(Error::io("write", &self.path))?;
        // A resumed upload may have left something longer behind.
        self.file.set_len(at + len64(&end)).map_err(Error::io("cut", &self.path))?;
        if let Blocks::Sealed(sealed) = &mut self.blocks {
            sealed.prefix = u64::from_le_bytes(random()?); // should this have to be done once more
        }
        Ok(descriptor)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().map_err(Error::io("sync", &self.path))
    }

    /// Reads content back, from `offset` of it on, until `buf` is full.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let failed = Error::io("read", &self.path);
        let Blocks::Sealed(sealed) = &self.blocks else {
            return self.file.read_exact_at(buf, CONTENT_OFFSET + offset).map_err(failed);
        };
        let (mut at, mut left) = (offset, buf);
        while !left.is_empty() {
            let number = at / BLOCK as u64;
            let block = self.open_block(sealed, number)?;
            let from = index(at % BLOCK as u64);
            let found = block.get(from..).unwrap_or_default();
            let n = found.len().min(left.len());
            if n == 0 {
                return Err(Error::corrupt(&self.path, CONTENT_OFFSET + at, Damage::Truncated));
            }
            let (now, later) = left.split_at_mut(n);
            now.iter_mut().zip(found).for_each(|(to, from)| *to = *from);
            (at, left) = (at + n as u64, later);
        }
        Ok(())
    }

    fn open_block(&self, sealed: &SealedBlocks, number: u64) -> Result<Vec<u8>> {
        let index = index(number);
        if index >= self.table.len() / SEALED_ENTRY {
            return Ok(sealed.rest.to_vec());
        }
        let at = CONTENT_OFFSET + number * BLOCK as u64;
        let mut block = vec![0; BLOCK];
        self.file.read_exact_at(&mut block, at).map_err(Error::io("read", &self.path))?;
        let opened = open_block(&sealed.sealing, entry(&self.table, index), number, None, &mut block);
        opened.map(|()| block).ok_or_else(|| Error::corrupt(&self.path, at, Damage::Seal))
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Blocks {
    fn new(path: &Path, envelope: &FileEnvelope, keys: &Keyring, domain: DomainId, key: KeyNumber) -> Result<Self> {
        if key == 0 {
            return Ok(Self::Plain(RunningCrc::default()));
        }
        let unknown = || Error::corrupt(path, 0, Damage::Invalid("key number"));
        Ok(Self::Sealed(SealedBlocks {
            sealing: envelope.opening(keys, domain, key, Purpose::Content).ok_or_else(unknown)?,
            check_key: envelope.check_key(keys, domain, key).ok_or_else(unknown)?,
            prefix: u64::from_le_bytes(random()?),
            rest: Zeroizing::default(),
            buffer: Vec::new(),
        }))
    }

    fn sealed(&self) -> Option<(&Sealing, u64)> {
        match self {
            Self::Plain(_) => None,
            Self::Sealed(sealed) => Some((&sealed.sealing, sealed.prefix)),
        }
    }
}

impl SealedBlocks {
    /// Moves whole blocks of what is there and what comes to the buffer, and keeps the rest.
    fn take(&mut self, content: &[u8]) {
        self.buffer.clear();
        let whole = (self.rest.len() + content.len()) / BLOCK * BLOCK;
        let (now, later) = match whole.checked_sub(self.rest.len()) {
            Some(taken) if whole > 0 => content.split_at(taken.min(content.len())),
            _ => (&[][..], content),
        };
        if whole > 0 {
            self.buffer.put(&self.rest);
            self.rest.clear();
        }
        self.buffer.put(now);
        self.rest.put(later);
    }

    /// The nonce of a block. Two are not blocks': those of the descriptor and of the footer.
    fn nonce(&self, block: usize) -> Result<Nonce> {
        let number = u32::try_from(block).ok().filter(|number| *number < FOOTER_NUMBER);
        let invariant = "each block of a segment has a nonce of its own";
        number.map(|number| Nonce::new(self.prefix, number)).ok_or(Error::Internal { invariant })
    }

    /// Encrypts the blocks in the buffer, of which the first has this number.
    fn seal_buffer(&mut self, first: usize, table: &mut Vec<u8>) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        for (number, block) in (first..).zip(buffer.chunks_mut(BLOCK)) {
            let tag = self.sealing.cipher.seal(self.nonce(number)?, &[], block)?;
            put_entry(table, self.prefix, &tag);
        }
        self.buffer = buffer;
        Ok(())
    }
}

/// Writes pieces of content, one after the other, and has the system begin to write them out.
pub(super) fn write(file: &dyn File, path: &Path, pieces: &[&[u8]], offset: u64) -> Result<()> {
    let len = len_of(pieces);
    if len == 0 {
        return Ok(());
    }
    let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    file.write_all_vectored_at(&mut slices, offset).map_err(Error::io("write", path))?;
    file.start_writeback(offset, len);
    Ok(())
}

fn len_of(pieces: &[&[u8]]) -> u64 {
    pieces.iter().map(|piece| len64(piece)).sum()
}

/// Takes the next piece of content, which begins at `at`, into the checksums of its blocks.
fn add_checksums(table: &mut Vec<u8>, last: &mut RunningCrc, mut at: u64, mut content: &[u8]) {
    while !content.is_empty() {
        let filled = index(at % BLOCK as u64);
        let (head, rest) = content.split_at(content.len().min(BLOCK - filled));
        if head.len() == BLOCK {
            table.put_u32(crc32c(head));
        } else {
            last.update(head);
            if filled + head.len() == BLOCK {
                table.put_u32(std::mem::take(last).get());
            }
        }
        at += len64(head);
        content = rest;
    }
}

/// What the fact of a blob in an encrypted segment repeats of its table. 0 is what content in a log file has.
pub(crate) fn table_check(key: &[u8; 32], table: &[u8]) -> u32 {
    u32::from_le_bytes(first(blake3::keyed_hash(key, table).as_bytes())).max(1)
}

/// Parses a segment's header. `None` where it is none.
pub(crate) fn parse_header(bytes: &[u8]) -> Option<FileHeader> {
    FileHeader::parse(bytes, &MAGIC)
}

/// Whether these are such bytes. They are never encrypted.
pub(crate) fn is_trailer(bytes: &Trailer) -> bool {
    let Some((body, check)) = bytes.split_last_chunk() else { return false };
    body.ends_with(&TRAILER_MAGIC) && u32::from_le_bytes(*check) == crc32c(body)
}

/// A frame as the footer names it: its offset, its length and its blob.
pub(crate) type FooterEntry = (u64, u64, Digest);

/// Encodes what stands at the end; encrypted: prefix u64 | ciphertext | tag 16, and the trailer, which is not.
pub(super) fn encode_footer(offset: u64, frames: &[FooterEntry], sealed: Option<(&Sealing, u64)>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    out.put_len32(frames.len());
    for (offset, len, digest) in frames {
        out.put_u48(*offset);
        out.put_u48(*len);
        put_digest(&mut out, digest);
    }
    if let Some((sealing, prefix)) = sealed {
        sealing.cipher.seal_vec(Nonce::new(prefix, FOOTER_NUMBER), &[], &mut out)?;
        out.splice(0..0, prefix.to_le_bytes());
    }
    let (len, crc) = (out.len(), crc32c(&out));
    let mut trailer = Vec::new();
    trailer.put_u64(offset);
    trailer.put_len32(len);
    trailer.put_u32(crc);
    trailer.put(&TRAILER_MAGIC);
    trailer.put_u32(crc32c(&trailer));
    out.put(&trailer);
    Ok(out)
}

/// Parses the footer of a whole segment, which is encrypted like this or not at all. `None` where it has none that is
/// undamaged.
pub(crate) fn parse_footer(
    file_len: u64,
    sealing: Option<&Sealing>,
    read: impl Fn(u64, usize) -> Option<Vec<u8>>,
) -> Option<Vec<FooterEntry>> {
    let trailer = read(file_len.checked_sub(TRAILER_LEN)?, 24)?;
    let (body, check) = trailer.split_at_checked(20)?;
    let mut fields = Fields(body);
    let offset = fields.u64()?;
    let len = fields.u32()?;
    let crc = fields.u32()?;
    if fields.array()? != TRAILER_MAGIC
        || Fields(check).u32()? != crc32c(body)
        || offset.checked_add(u64::from(len) + TRAILER_LEN)? != file_len
    {
        return None;
    }
    let mut footer = read(offset, usize::try_from(len).ok()?)?;
    if crc32c(&footer) != crc {
        return None;
    }
    if let Some(sealing) = sealing {
        let mut fields = Fields(&footer);
        let nonce = Nonce::new(fields.u64()?, FOOTER_NUMBER);
        footer = sealing.cipher.open_vec(nonce, &[], fields.0).ok()?;
    }
    let mut fields = Fields(&footer);
    let count = fields.u32()?;
    let mut frames = Vec::new();
    for _ in 0..count {
        frames.push((fields.u48()?, fields.u48()?, take_digest(&mut fields)?));
    }
    fields.end()?;
    Some(frames)
}
