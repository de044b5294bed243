//! A frame: one checksummed piece of content.
//!
//! ```text
//! descriptor, 128 bytes | content, stored_len bytes | where there are two blocks or more: zeros up to a multiple of 4,
//! then one CRC-32C (u32) a block | zeros up to a multiple of 8
//! ```
//!
//! Content is divided into blocks of 4 KiB to 64 KiB (a field of the frame) with a checksum each, so that a part can be
//! read and verified alone. Content of one block keeps its checksum in the descriptor; with more, the descriptor has the
//! checksum of the table of checksums. The blob's fact repeats that number, so that a frame that was swapped for another
//! valid one is noticed.
//!
//! ```text
//! descriptor: magic u32 | version u8 | codec u8 | algorithm u8 | block_log2 u8 | stored_len u64 | len u64 | domain u32 |
//!             key u32 | digest 64 bytes, zeros behind a shorter one | crc u32 | reserved (0) 24 bytes | descriptor_crc u32
//! ```

use std::ops::RangeInclusive;

use crate::digest::{Algorithm, Digest};
use crate::facts::{BlobFact, Codec, Place};
use crate::id::FileId;
use crate::wire::{Fields, PutFields, crc32c, len64};

/// The length of a frame's descriptor in bytes.
pub(crate) const DESCRIPTOR_LEN: u64 = 128;

/// The block sizes that the format allows, as powers of two: 4 KiB to 64 KiB.
pub(crate) const BLOCK_LOG2: RangeInclusive<u8> = 12..=16;

/// The longest content, in bytes: 16 TiB, the longest file of ext4. 48 bits can place it in a file, with room to spare, and
/// one record can end an upload of it.
pub(crate) const MAX_LEN: u64 = 1 << 44;

const MAGIC: u32 = u32::from_le_bytes(*b"SRfr");
const VERSION: u8 = 1;

/// The block size for content of a length: the smallest that holds it in one block, else the largest.
pub(crate) fn block_log2_for(stored_len: u64) -> u8 {
    BLOCK_LOG2.into_iter().find(|log2| stored_len <= 1 << log2).unwrap_or(*BLOCK_LOG2.end())
}

/// How many blocks content has. Empty content has none.
pub(crate) fn blocks(stored_len: u64, block_log2: u8) -> u64 {
    stored_len.div_ceil(1 << block_log2)
}

/// Where the table of block checksums begins, counted from the content's first byte.
pub(crate) fn table_offset(stored_len: u64) -> u64 {
    stored_len.next_multiple_of(4)
}

/// A whole frame's length in bytes.
pub(crate) fn frame_len(stored_len: u64, block_log2: u8) -> u64 {
    let content = match blocks(stored_len, block_log2) {
        0 | 1 => stored_len,
        blocks => table_offset(stored_len) + 4 * blocks,
    };
    (DESCRIPTOR_LEN + content).next_multiple_of(8)
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) codec: Codec,
    pub(crate) block_log2: u8,
    pub(crate) stored_len: u64,
    /// The blob's own length.
    pub(crate) len: u64,
    pub(crate) digest: Digest,
    /// CRC-32C of the stored content if that is one block, else of the table of block checksums.
    pub(crate) crc: u32,
}

impl Descriptor {
    /// The descriptor of content that was checksummed block by block.
    pub(crate) fn new(codec: Codec, stored_len: u64, len: u64, digest: Digest, block_crcs: &[u32]) -> Self {
        let crc = match block_crcs {
            [] => crc32c(&[]),
            [one] => *one,
            many => crc32c(&encode_table(many)),
        };
        Self { codec, block_log2: block_log2_for(stored_len), stored_len, len, digest, crc }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.put_u32(MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.codec as u8);
        out.put_u8(self.digest.algorithm().code());
        out.put_u8(self.block_log2);
        out.put_u64(self.stored_len);
        out.put_u64(self.len);
        out.put(&[0; 8]);
        out.put(self.digest.as_bytes());
        out.resize(96, 0);
        out.put_u32(self.crc);
        out.put(&[0; 24]);
        out.put_u32(crc32c(&out));
        out
    }

    /// Parses a descriptor; `None` where the bytes are none.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, check) = bytes.get(..128)?.split_at_checked(124)?;
        if Fields(check).u32()? != crc32c(body) {
            return None;
        }
        let mut fields = Fields(body);
        if fields.u32()? != MAGIC || fields.u8()? != VERSION {
            return None;
        }
        let codec = Codec::from_code(fields.u8()?)?;
        let algorithm = Algorithm::from_code(fields.u8()?)?;
        let block_log2 = fields.u8().filter(|log2| BLOCK_LOG2.contains(log2))?;
        let stored_len = fields.u64().filter(|len| *len <= MAX_LEN)?;
        let len = fields.u64().filter(|len| *len <= MAX_LEN)?;
        fields.bytes(8)?;
        let digest = Digest::from_bytes(algorithm, fields.bytes(64)?.get(..algorithm.digest_len())?)?;
        let crc = fields.u32()?;
        Some(Self { codec, block_log2, stored_len, len, digest, crc })
    }

    /// The fact of a blob whose frame begins at `frame_offset` of a file and that nothing holds yet.
    pub(crate) fn fact(&self, file: FileId, frame_offset: u64) -> BlobFact {
        let place = Place {
            file,
            offset: frame_offset + DESCRIPTOR_LEN,
            stored_len: self.stored_len,
            block_log2: self.block_log2,
            crc: self.crc,
        };
        BlobFact { algorithm: self.digest.algorithm(), codec: self.codec, place, len: self.len, count: 0 }
    }
}

/// The table of block checksums as it stands behind the content.
pub(crate) fn encode_table(block_crcs: &[u32]) -> Vec<u8> {
    block_crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect()
}

/// What stands behind content in its frame: padding, the table where there is one, padding.
pub(crate) fn encode_tail(stored_len: u64, block_log2: u8, block_crcs: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    if block_crcs.len() > 1 {
        out.resize(usize::try_from(table_offset(stored_len) - stored_len).unwrap_or_default(), 0);
        out.put(&encode_table(block_crcs));
    }
    let tail_len = frame_len(stored_len, block_log2) - DESCRIPTOR_LEN - stored_len;
    out.resize(usize::try_from(tail_len).unwrap_or_default(), 0);
    out
}

/// A whole frame in memory, ready to be written.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    /// Frames stored content that belongs to a blob of `len` bytes.
    pub(crate) fn new(digest: Digest, len: u64, codec: Codec, stored: &[u8]) -> Self {
        let stored_len = len64(stored);
        let block_log2 = block_log2_for(stored_len);
        let crcs: Vec<u32> = stored.chunks(1 << block_log2).map(crc32c).collect();
        let descriptor = Descriptor::new(codec, stored_len, len, digest, &crcs);
        let mut bytes = descriptor.encode();
        bytes.reserve_exact(stored.len() + 4 * crcs.len() + 16);
        bytes.put(stored);
        bytes.put(&encode_tail(stored_len, block_log2, &crcs));
        Self { descriptor, bytes }
    }

    /// Parses the frame at the front of `bytes` and verifies all of it, except that the content has the digest. `None`
    /// where there is no whole, undamaged frame.
    pub(crate) fn verify(bytes: &[u8]) -> Option<Descriptor> {
        let descriptor = Descriptor::parse(bytes)?;
        let frame = bytes.get(..usize::try_from(frame_len(descriptor.stored_len, descriptor.block_log2)).ok()?)?;
        let content = frame.get(128..)?.get(..usize::try_from(descriptor.stored_len).ok()?)?;
        let crcs: Vec<u32> = content.chunks(1 << descriptor.block_log2).map(crc32c).collect();
        let tail = frame.get(128 + content.len()..)?;
        let same = Descriptor::new(descriptor.codec, descriptor.stored_len, descriptor.len, descriptor.digest, &crcs)
            .crc
            == descriptor.crc;
        (same && tail == encode_tail(descriptor.stored_len, descriptor.block_log2, &crcs)).then_some(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_shape_verify_and_no_flipped_bit_does() {
        for len in [0, 1, 511, 4096, 4097, 65_536, 65_537, 200_003] {
            let content: Vec<u8> = (0..len).map(|i: u32| i.to_le_bytes()[0]).collect();
            let digest = Digest::of(Algorithm::Blake3, &content);
            let frame = Frame::new(digest, content.len() as u64, Codec::Plain, &content);
            let descriptor = Frame::verify(&frame.bytes).unwrap();
            assert_eq!(descriptor, frame.descriptor);
            assert_eq!(frame.bytes.len() as u64, frame_len(descriptor.stored_len, descriptor.block_log2));
            for bit in (0..frame.bytes.len() * 8).step_by(1 + frame.bytes.len() / 500) {
                let mut flipped = frame.bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Frame::verify(&flipped), None, "bit {bit} of {len}");
            }
            assert_eq!(Frame::verify(&frame.bytes[..frame.bytes.len() - 1]), None);
        }
    }
}
