//! What the values of facts say, field by field. All numbers are little-endian.

use crate::clock::{Retention, Seconds};
use crate::digest::{Algorithm, Digest};
use crate::envelope::KeyNumber;
use crate::facts::Value;
use crate::id::{DomainId, FileId, RepositoryId};
use crate::wire::{Fields, PutFields};

/// How stored content is encoded. The numbers stand in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Codec {
    /// As it is.
    Plain = 0,
    /// One zstd frame.
    Zstd = 1,
}

impl Codec {
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Plain),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Where a frame's content lies and how it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The log file or segment.
    pub(crate) file: FileId,
    /// Where in the file the content begins: behind the frame's descriptor.
    pub(crate) offset: u64,
    /// The content's length as stored.
    pub(crate) stored_len: u64,
    /// The block size is 2 to this power.
    pub(crate) block_log2: u8,
    /// CRC-32C of the stored content if that is one block, else of the table of block checksums behind it. Where it is
    /// encrypted: the check of a segment's table, and 0 for content in a log file.
    pub(crate) crc: u32,
    /// The number of the data key that it is encrypted with; 0 for none.
    pub(crate) key: KeyNumber,
}

impl Place {
    /// How many bytes the whole frame takes in its file: descriptor, content, padding and table.
    pub(crate) fn frame_len(&self) -> u64 {
        crate::facts::frame_len(self.stored_len, self.block_log2, self.key)
    }
}

/// What is known of a blob. 46 bytes, which is what a [`Value`] holds without an allocation:
///
/// ```text
/// block size and algorithm u8 | recipe, damaged and codec u8 | crc u32 | file u48 | offset u48 | stored_len u48 |
/// len u48 | count u32 | key u16 | touched u48 (ms of open time) | stored u32 (s since 1970)
/// ```
///
/// The first byte has the block size in its upper four bits, as a power of two, less 12. The second has the recipe
/// there (0 is *whole*, one frame; 1 *chunked* and 2 *decomposed* are taken), in bit 3 whether the content was found
/// damaged, and the codec in the lower three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobFact {
    pub(crate) algorithm: Algorithm,
    pub(crate) codec: Codec,
    pub(crate) place: Place,
    /// The blob's own length in bytes.
    pub(crate) len: u64,
    /// How many named files, links and manifests hold the blob.
    pub(crate) count: u32,
    /// The store's open time when somebody outside of any repository last stored or claimed the blob; 0: nobody did.
    pub(crate) touched: u64,
    /// The wall clock when the content was stored.
    pub(crate) stored: Seconds,
    /// Whether the content was found damaged: a push of the same content repairs it.
    pub(crate) damaged: bool,
}

/// Whether a blob was found damaged, in the second byte of its fact.
const DAMAGED: u8 = 1 << 3;

/// The smallest block size, as a power of two.
const MIN_BLOCK_LOG2: u8 = *crate::facts::BLOCK_LOG2.start();

impl BlobFact {
    /// The length of an encoded fact in bytes.
    pub(crate) const LEN: usize = 46;

    /// Whether it is time to note that somebody outside of any repository relies on the blob.
    pub(crate) fn is_stale(&self, retention: Retention, now: u64) -> bool {
        self.touched == 0 || retention.is_stale(self.touched, now)
    }

    /// The algorithm in an encoded fact.
    pub(crate) fn algorithm_of(bytes: &[u8]) -> Option<Algorithm> {
        Algorithm::from_code(*bytes.first()? & 0xf)
    }

    pub(crate) fn encode(&self) -> Value {
        let mut out = Vec::with_capacity(Self::LEN);
        out.put_u8(self.algorithm.code() | self.place.block_log2.saturating_sub(MIN_BLOCK_LOG2) << 4);
        out.put_u8(self.codec as u8 | if self.damaged { DAMAGED } else { 0 });
        out.put_u32(self.place.crc);
        out.put_u48(self.place.file.0);
        out.put_u48(self.place.offset);
        out.put_u48(self.place.stored_len);
        out.put_u48(self.len);
        out.put_u32(self.count);
        out.put_u16(self.place.key);
        out.put_u48(self.touched);
        out.put_u32(self.stored.0);
        Value::new(&out)
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (first, second) = (fields.u8()?, fields.u8()?);
        let algorithm = Algorithm::from_code(first & 0xf)?;
        let block_log2 = Some((first >> 4) + MIN_BLOCK_LOG2).filter(|log2| crate::facts::BLOCK_LOG2.contains(log2))?;
        let codec = Codec::from_code(second & !DAMAGED)?;
        let damaged = second & DAMAGED != 0;
        let crc = fields.u32()?;
        let file = FileId(fields.u48()?);
        let offset = fields.u48().filter(|offset| *offset >= crate::facts::DESCRIPTOR_LEN)?;
        let stored_len = fields.u48()?;
        let len = fields.u48()?;
        let count = fields.u32()?;
        let key = fields.u16()?;
        let touched = fields.u48()?;
        let stored = Seconds(fields.u32()?);
        fields.end()?;
        let place = Place { file, offset, stored_len, block_log2, crc, key };
        (codec != Codec::Plain || len == stored_len).then_some(())?;
        Some(Self { algorithm, codec, place, len, count, touched, stored, damaged })
    }
}

/// What a segment is. The numbers stand in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SegmentKind {
    /// A log file that holds frames.
    Log = 1,
    /// A segment file that is complete.
    Sealed = 2,
    /// A segment file that an upload still writes.
    Upload = 3,
}

/// What is known of a segment: of what one domain has in it. A log file holds frames of several. 32 bytes:
///
/// ```text
/// kind u8 | key u16 | reserved (0) u8 | domain u32 (0) | live_frames u32 | live_bytes u48 | frame_bytes u48 |
/// reserved (0) 8 bytes
/// ```
///
/// `frame_bytes - live_bytes` is what compaction would give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFact {
    pub(crate) kind: SegmentKind,
    /// How many frames blobs refer to.
    pub(crate) live_frames: u32,
    /// How many bytes those frames take.
    pub(crate) live_bytes: u64,
    /// How many bytes all frames take that were ever published in it.
    pub(crate) frame_bytes: u64,
    /// The number of the data key that what lives in it is encrypted with; 0 for none. (A log file begun after the key
    /// of a domain changed has nothing under the one before.)
    pub(crate) key: KeyNumber,
}

impl SegmentFact {
    /// The length of an encoded fact in bytes.
    pub(crate) const LEN: usize = 32;

    /// A segment without frames.
    pub(crate) fn empty(kind: SegmentKind, key: KeyNumber) -> Self {
        Self { kind, live_frames: 0, live_bytes: 0, frame_bytes: 0, key }
    }

    pub(crate) fn encode(&self) -> Value {
        let mut out = Vec::with_capacity(Self::LEN);
        out.put_u8(self.kind as u8);
        out.put_u16(self.key);
        out.put_u8(0);
        out.put_u32(0);
        out.put_u32(self.live_frames);
        out.put_u48(self.live_bytes);
        out.put_u48(self.frame_bytes);
        out.put(&[0; 8]);
        Value::new(&out)
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let kind = match fields.u8()? {
            1 => SegmentKind::Log,
            2 => SegmentKind::Sealed,
            3 => SegmentKind::Upload,
            _ => return None,
        };
        let key = fields.u16()?;
        fields.u8()?;
        let _domain = fields.u32()?;
        let live_frames = fields.u32()?;
        let live_bytes = fields.u48()?;
        let frame_bytes = fields.u48()?;
        fields.bytes(8)?;
        fields.end()?;
        Some(Self { kind, live_frames, live_bytes, frame_bytes, key })
    }
}

/// How far a scrub has come. 76 bytes:
///
/// ```text
/// domain u32 | key 32 | began u64 (ms since 1970) | blobs u64 | bytes u64 | read bytes u64 | findings u64
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProgressFact {
    /// The domain whose blobs are being read, and the first key that was not.
    pub(crate) domain: DomainId,
    pub(crate) from: [u8; 32],
    /// The wall clock when it was begun, in milliseconds since 1970.
    pub(crate) began: u64,
    /// How many blobs were read, how many bytes they have, and how many bytes of files they take.
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
    pub(crate) read_bytes: u64,
    /// How many findings were told, other than damaged blobs, which are flagged.
    pub(crate) findings: u64,
}

impl ProgressFact {
    /// The length of an encoded fact in bytes.
    pub(crate) const LEN: usize = 76;

    pub(crate) fn encode(&self) -> Value {
        let mut out = Vec::with_capacity(Self::LEN);
        out.put_u32(self.domain.0);
        out.put(&self.from);
        for number in [self.began, self.blobs, self.bytes, self.read_bytes, self.findings] {
            out.put_u64(number);
        }
        Value::new(&out)
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (domain, from) = (DomainId(fields.u32()?), fields.array()?);
        let (began, blobs, bytes) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (read_bytes, findings) = (fields.u64()?, fields.u64()?);
        fields.end()?;
        Some(Self { domain, from, began, blobs, bytes, read_bytes, findings })
    }
}

/// Where an upload stands, as of its last acknowledged piece:
///
/// ```text
/// file u48 (0: none yet) | offset u48 | block_crc u32 | created u64 (ms since 1970) | touched u64 (ms of open time) |
/// algorithm u8 | repository u48 (0: none) | hash state length u16, hash state | where there is a rest: key u16, rest
/// ```
///
/// The rest is what of the content no file has: all of it, while it is short and so has no file; later, where the
/// segment is encrypted, what the last block has until it is whole, since only whole ones are written. The
/// checksums of its whole blocks of 64 KiB (their entries in the frame's table) stand in
/// [`UploadPart`](super::Family::UploadPart) facts, [`PART_BLOCKS`] in each: however small the pieces are in which it
/// came, ending it changes few facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UploadFact {
    /// The segment that the content goes to; none while the content is short.
    pub(crate) file: Option<FileId>,
    /// How many bytes are durable.
    pub(crate) offset: u64,
    /// The checksum of the last, incomplete block.
    pub(crate) block_crc: u32,
    /// The wall clock when the upload was begun, in milliseconds since 1970.
    pub(crate) created: u64,
    /// The store's open time when the last piece came, in milliseconds.
    pub(crate) touched: u64,
    /// The digest algorithm declared.
    pub(crate) algorithm: Algorithm,
    /// The repository that it was begun in.
    pub(crate) repository: Option<RepositoryId>,
    /// The saved state of the hash over the bytes so far; empty where the algorithm has none to save, and where all of
    /// them are here.
    pub(crate) hash_state: Vec<u8>,
    /// The number of the data key that the segment is encrypted with; 0 for none.
    pub(crate) key: KeyNumber,
    /// What of the content no file has.
    pub(crate) rest: Vec<u8>,
}

/// How many block checksums one part of an upload's list holds: 64 MiB of content, 4 KiB.
pub(crate) const PART_BLOCKS: u64 = 1024;

impl UploadFact {
    /// How many whole blocks of content the segment has, durably.
    pub(crate) fn whole_blocks(&self) -> u64 {
        self.file.map_or(0, |_| self.offset >> crate::facts::BLOCK_LOG2.end())
    }

    /// How long a block's entry in the table is, in bytes.
    pub(crate) fn entry_len(&self) -> u64 {
        crate::facts::entry_len(self.key)
    }

    /// How long the table of whole blocks is, in bytes.
    pub(crate) fn table_len(&self) -> u64 {
        self.whole_blocks() * self.entry_len()
    }

    /// How many facts hold the checksums of those.
    pub(crate) fn parts(&self) -> u64 {
        self.whole_blocks().div_ceil(PART_BLOCKS)
    }

    pub(crate) fn encode(&self) -> Value {
        let mut out = Vec::with_capacity(256);
        out.put_u48(self.file.map_or(0, |file| file.0));
        out.put_u48(self.offset);
        out.put_u32(self.block_crc);
        out.put_u64(self.created);
        out.put_u64(self.touched);
        out.put_u8(self.algorithm.code());
        out.put_u48(self.repository.map_or(0, |repository| repository.0));
        out.put_len16(self.hash_state.len());
        out.put(&self.hash_state);
        if self.key != 0 || !self.rest.is_empty() {
            out.put_u16(self.key);
            out.put(&self.rest);
        }
        Value::new(&out)
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let file = Some(FileId(fields.u48()?)).filter(|file| file.0 != 0);
        let offset = fields.u48()?;
        let block_crc = fields.u32()?;
        let created = fields.u64()?;
        let touched = fields.u64()?;
        let algorithm = Algorithm::from_code(fields.u8()?)?;
        let repository = Some(RepositoryId(fields.u48()?)).filter(|repository| repository.0 != 0);
        let hash_state = fields.bytes16()?.to_vec();
        let key = if fields.is_empty() { 0 } else { fields.u16()? };
        let rest = fields.0.to_vec();
        Some(Self { file, offset, block_crc, created, touched, algorithm, repository, hash_state, key, rest })
    }
}

/// Appends a digest: its algorithm's number and its bytes.
pub(crate) fn put_digest(out: &mut Vec<u8>, digest: &Digest) {
    out.put_u8(digest.algorithm().code());
    out.put(digest.as_bytes());
}

/// Takes a digest that [`put_digest`] wrote.
pub(crate) fn take_digest(fields: &mut Fields<'_>) -> Option<Digest> {
    let algorithm = Algorithm::from_code(fields.u8()?)?;
    Digest::from_bytes(algorithm, fields.bytes(algorithm.digest_len())?)
}
