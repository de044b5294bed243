//! Writing a segment of one frame, front to back, from content that streams in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::{Damage, Error, Result};
use crate::facts::{Codec, put_digest, take_digest};
use crate::id::{FileId, StoreId};
use crate::segment::frame::{BLOCK_LOG2, DESCRIPTOR_LEN, Descriptor, MAX_LEN, blocks, encode_tail, frame_len};
use crate::vfs::{File, OpenMode, Vfs};
use crate::wire::{Fields, PutFields, RunningCrc, crc32c, len64};

/// Where the first frame of a segment begins: its content, behind the descriptor, begins at a page.
pub(crate) const SEGMENT_FRAME_OFFSET: u64 = 4096 - DESCRIPTOR_LEN;
const CONTENT_OFFSET: u64 = 4096;

const MAGIC: [u8; 8] = *b"SRseg\0\0\0";
const TRAILER_MAGIC: [u8; 4] = *b"SRft";
const TRAILER_LEN: u64 = 24;
const VERSION: u32 = 1;

/// Content that streams into a segment is checksummed in blocks of 64 KiB. What turns out to be so short that smaller
/// blocks would do is either put into the log instead, or is one block all the same.
const BLOCK: usize = 1 << *BLOCK_LOG2.end();

/// Writes a segment of one frame.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    path: PathBuf,
    file: Arc<dyn File>,
    /// How many bytes of content were written.
    len: u64,
    /// The checksums of the whole blocks written.
    crcs: Vec<u32>,
    /// The checksum of the last, incomplete block.
    block: RunningCrc,
}

impl SegmentWriter {
    /// Creates the file. The caller syncs the directory.
    pub(crate) fn create(vfs: &dyn Vfs, path: PathBuf, id: FileId, store: StoreId) -> Result<Self> {
        let file = vfs.open(&path, OpenMode::CreateNew).map_err(Error::io("create", &path))?;
        file.write_all_at(&encode_header(id, store), 0).map_err(Error::io("write", &path))?;
        Ok(Self { path, file, len: 0, crcs: Vec::new(), block: RunningCrc::default() })
    }

    /// Goes on with a segment that has `len` durable bytes of content with these checksums. What was written behind
    /// them is overwritten.
    pub(crate) fn resume(vfs: &dyn Vfs, path: PathBuf, len: u64, crcs: Vec<u32>, block_crc: u32) -> Result<Self> {
        let file = vfs.open(&path, OpenMode::Write).map_err(Error::opening(&path))?;
        let file_len = file.len().map_err(Error::io("read the length of", &path))?;
        if file_len < CONTENT_OFFSET + len {
            return Err(Error::corrupt(&path, file_len, Damage::Truncated));
        }
        Ok(Self { path, file, len, crcs, block: RunningCrc::resume(block_crc) })
    }

    /// How many bytes of content were written.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The checksums of the whole blocks written.
    pub(crate) fn crcs(&self) -> &[u32] {
        &self.crcs
    }

    /// The checksum of the last, incomplete block.
    pub(crate) fn block_crc(&self) -> u32 {
        self.block.get()
    }

    /// Writes the next piece of content.
    pub(crate) fn append(&mut self, mut content: &[u8]) -> Result<()> {
        let offset = CONTENT_OFFSET + self.len;
        if self.len + len64(content) > MAX_LEN {
            let found = self.len + len64(content);
            return Err(Error::TooLarge { what: "a blob's length", limit: MAX_LEN, found });
        }
        self.file.write_all_at(content, offset).map_err(Error::io("write", &self.path))?;
        self.file.start_writeback(offset, len64(content));
        while !content.is_empty() {
            let filled = usize::try_from(self.len % BLOCK as u64).unwrap_or_default();
            let (head, rest) = content.split_at(content.len().min(BLOCK - filled));
            if head.len() == BLOCK {
                self.crcs.push(crc32c(head));
            } else {
                self.block.update(head);
                if filled + head.len() == BLOCK {
                    self.crcs.push(std::mem::take(&mut self.block).get());
                }
            }
            self.len += len64(head);
            content = rest;
        }
        Ok(())
    }

    /// Writes what surrounds the content. The segment is complete, and durable after [`sync`](Self::sync).
    pub(crate) fn seal(&self, digest: Digest) -> Result<Descriptor> {
        let mut crcs = self.crcs.clone();
        if blocks(self.len, *BLOCK_LOG2.end()) > len64_of(&crcs) {
            crcs.push(self.block.get());
        }
        let mut descriptor = Descriptor::new(Codec::Plain, self.len, self.len, digest, &crcs);
        descriptor.block_log2 = *BLOCK_LOG2.end();
        let frame_len = frame_len(self.len, descriptor.block_log2);
        let mut end = encode_tail(self.len, descriptor.block_log2, &crcs);
        end.put(&encode_footer(SEGMENT_FRAME_OFFSET + frame_len, &[(SEGMENT_FRAME_OFFSET, frame_len, digest)]));
        self.file.write_all_at(&end, CONTENT_OFFSET + self.len).map_err(Error::io("write", &self.path))?;
        self.file.write_all_at(&descriptor.encode(), SEGMENT_FRAME_OFFSET).map_err(Error::io("write", &self.path))?;
        // A resumed upload may have left something longer behind.
        self.file.set_len(CONTENT_OFFSET + self.len + len64(&end)).map_err(Error::io("cut", &self.path))?;
        Ok(descriptor)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().map_err(Error::io("sync", &self.path))
    }

    /// Reads content back, from `offset` of it on, until `buf` is full.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buf, CONTENT_OFFSET + offset).map_err(Error::io("read", &self.path))
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn len64_of(crcs: &[u32]) -> u64 {
    crcs.len() as u64
}

fn encode_header(id: FileId, store: StoreId) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.put(&MAGIC);
    out.put_u32(VERSION);
    out.put_u32(0);
    out.put_u64(id.0);
    out.put(&store.0);
    out.resize(508, 0);
    out.put_u32(crc32c(&out));
    out
}

/// Parses a segment's header: its own id and the store's. `None` where it is none.
pub(crate) fn parse_header(bytes: &[u8]) -> Option<(FileId, StoreId)> {
    let (body, check) = bytes.get(..512)?.split_at_checked(508)?;
    let mut fields = Fields(body);
    if Fields(check).u32()? != crc32c(body) || fields.array()? != MAGIC || fields.u32()? != VERSION {
        return None;
    }
    let _domain = fields.u32()?;
    Some((FileId(fields.u64()?), StoreId(fields.array()?)))
}

/// A frame as the footer names it: its offset, its length and its blob.
pub(crate) type FooterEntry = (u64, u64, Digest);

fn encode_footer(offset: u64, frames: &[FooterEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32(u32::try_from(frames.len()).unwrap_or(u32::MAX));
    for (offset, len, digest) in frames {
        out.put_u48(*offset);
        out.put_u48(*len);
        put_digest(&mut out, digest);
    }
    let (len, crc) = (out.len(), crc32c(&out));
    let mut trailer = Vec::new();
    trailer.put_u64(offset);
    trailer.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    trailer.put_u32(crc);
    trailer.put(&TRAILER_MAGIC);
    trailer.put_u32(crc32c(&trailer));
    out.put(&trailer);
    out
}

/// Parses the footer of a whole segment. `None` where it has none that is undamaged.
pub(crate) fn parse_footer(file_len: u64, read: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Option<Vec<FooterEntry>> {
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
    let footer = read(offset, usize::try_from(len).ok()?)?;
    if crc32c(&footer) != crc {
        return None;
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
