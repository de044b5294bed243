//! A frame: one checksummed piece of content.
//!
//! ```text
//! descriptor, 128 bytes | content, stored_len bytes | where there are two blocks or more: zeros up to a multiple of 4,
//! then one CRC-32C (u32) a block | zeros up to a multiple of 8
//! ```
//!
//! Content is divided into blocks of 4 KiB to 64 KiB (a field of the frame) with a checksum each, so that a part can be
//! read and verified alone. Content of one block keeps its checksum in the descriptor; with more, the descriptor has
//! the checksum of the table of checksums. The blob's fact repeats that number, so that a frame that was swapped for
//! another valid one is noticed.
//!
//! ```text
//! descriptor: magic u32 | version u8 (1) | codec u8 | algorithm u8 | block_log2 u8 | stored_len u64 | len u64 |
//!             domain u32 | key u32 | digest 64 bytes, zeros behind a shorter one | crc u32 | reserved (0) 24 bytes |
//!             descriptor_crc u32
//! ```
//!
//! # Encrypted
//! Blocks are encrypted where they are. The table, which begins at a multiple of 8, has an entry for every block, also
//! where there is only one: prefix u64 (of its [nonce](crate::envelope)) | tag 16.
//!
//! ```text
//! descriptor: magic u32 | version u8 (2) | 0 u8 | key u16 | domain u32 | prefix u64 |
//!             encrypted, with the above as associated data: [
//!               codec u8 | algorithm u8 | block_log2 u8 | 0 u8 | stored_len u64 | len u64 | digest 64 | check u32
//!             ] | tag 16 | crc u32
//! ```
//!
//! The check, which the blob's fact repeats, is for a segment the first four bytes of BLAKE3 of the table, keyed; no
//! two versions of a table that an upload wrote pass for each other. Content in a log file has none: what is there was
//! written once.
//!
//! The crc at the descriptor's end covers what stands in front of it; in a log file or a pack also all that follows, to
//! the end of the frame. So recovery can tell a frame that a power cut tore from a whole one also where it has no key.

use crate::clock::Seconds;
use crate::digest::{Algorithm, Digest};
use crate::envelope::{KeyNumber, Nonce, Sealing, TAG_LEN, Tag};
use crate::error::{Error, Result};
use crate::facts::{
    BLOCK_LOG2, BlobFact, Codec, DESCRIPTOR_LEN, Place, SEALED_ENTRY, block_log2_for, blocks, entry_len, frame_len,
    has_table, table_offset,
};
use crate::id::{DomainId, FileId};
use crate::wire::{Fields, PutFields, RunningCrc, crc32c, index, len64};

/// The longest content, in bytes: 16 TiB, the longest file of ext4. 48 bits can place it in a file, with room to spare,
/// and one record can end an upload of it.
pub(crate) const MAX_LEN: u64 = 1 << 44;

const MAGIC: u32 = u32::from_le_bytes(*b"SRfr");
const VERSION: u8 = 1;
const VERSION_SEALED: u8 = 2;

/// The numbers of the nonces of what has none among the blocks.
const DESCRIPTOR_NUMBER: u32 = u32::MAX;
pub(super) const FOOTER_NUMBER: u32 = u32::MAX - 1;

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) codec: Codec,
    pub(crate) block_log2: u8,
    pub(crate) stored_len: u64,
    /// The blob's own length.
    pub(crate) len: u64,
    pub(crate) digest: Digest,
    /// CRC-32C of the stored content if that is one block, else of the table of block checksums; what is said above
    /// where it is encrypted.
    pub(crate) crc: u32,
    /// The number of the data key that the frame is encrypted with; 0 for none.
    pub(crate) key: KeyNumber,
}

impl Descriptor {
    /// The descriptor of content that was checksummed block by block.
    pub(crate) fn new(codec: Codec, stored_len: u64, len: u64, digest: Digest, block_crcs: &[u32]) -> Self {
        let crc = match block_crcs {
            [] => crc32c(&[]),
            [one] => *one,
            many => crc32c(&encode_table(many)),
        };
        Self { codec, block_log2: block_log2_for(stored_len), stored_len, len, digest, crc, key: 0 }
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

    /// The descriptor of the same content in a log file, encrypted with this key, or not at all.
    pub(crate) fn in_log(self, key: KeyNumber) -> Self {
        if key == 0 { self } else { Self { key, crc: 0, ..self } }
    }

    /// Encrypts the descriptor.
    pub(crate) fn seal(&self, sealing: &Sealing, prefix: u64) -> Result<Vec<u8>> {
        let mut head = Vec::with_capacity(128);
        head.put_u32(MAGIC);
        head.put_u8(VERSION_SEALED);
        head.put_u8(0);
        head.put_u16(sealing.key);
        head.put_u32(sealing.domain.0);
        head.put_u64(prefix);
        let mut body = Vec::with_capacity(SEALED_BODY + TAG_LEN);
        body.put(&[self.codec as u8, self.digest.algorithm().code(), self.block_log2, 0]);
        body.put_u64(self.stored_len);
        body.put_u64(self.len);
        body.put(self.digest.as_bytes());
        body.resize(SEALED_BODY - 4, 0);
        body.put_u32(self.crc);
        sealing.cipher.seal_vec(Nonce::new(prefix, DESCRIPTOR_NUMBER), &head, &mut body)?;
        head.put(&body);
        head.put_u32(crc32c(&head));
        Ok(head)
    }

    /// Parses a descriptor, which is encrypted like this, or not at all; `None` where the bytes are none such. In a log
    /// file the prefix of what is encrypted is known.
    pub(crate) fn read(bytes: &[u8], sealing: Option<&Sealing>, expected: Option<u64>) -> Option<Self> {
        let Some(sealing) = sealing else { return Self::parse(bytes) };
        let (prefix, head, sealed) = Self::sealed_parts(bytes, sealing, expected.is_none())?;
        expected.is_none_or(|expected| expected == prefix).then_some(())?;
        let body = sealing.cipher.open_vec(Nonce::new(prefix, DESCRIPTOR_NUMBER), head, sealed).ok()?;
        let mut fields = Fields(&body);
        let [codec, algorithm, block_log2, _] = fields.array()?;
        let (codec, algorithm) = (Codec::from_code(codec)?, Algorithm::from_code(algorithm)?);
        let (stored_len, len) = (fields.u64()?, fields.u64()?);
        let digest = Digest::from_bytes(algorithm, fields.bytes(64)?.get(..algorithm.digest_len())?)?;
        let is_sane = BLOCK_LOG2.contains(&block_log2) && stored_len <= MAX_LEN && len <= MAX_LEN;
        let descriptor = Self { codec, block_log2, stored_len, len, digest, crc: fields.u32()?, key: sealing.key };
        is_sane.then_some(descriptor)
    }

    /// The prefix in an encrypted descriptor, what is associated with it, and what is encrypted. The checksum is that
    /// of the descriptor alone, or else the tag is all that shows that it is whole.
    fn sealed_parts<'a>(bytes: &'a [u8], sealing: &Sealing, has_crc: bool) -> Option<(u64, &'a [u8], &'a [u8])> {
        let (body, check) = bytes.get(..128)?.split_at_checked(124)?;
        let (head, sealed) = body.split_at_checked(124 - SEALED_BODY - TAG_LEN)?;
        let mut fields = Fields(head);
        let is_one = (!has_crc || Fields(check).u32()? == crc32c(body))
            && fields.u32()? == MAGIC
            && fields.u8()? == VERSION_SEALED
            && fields.u8()? == 0
            && fields.u16()? == sealing.key
            && DomainId(fields.u32()?) == sealing.domain;
        is_one.then_some((fields.u64()?, head, sealed))
    }

    /// The domain and the number of the key of an encrypted descriptor; `None` where the bytes are none.
    pub(crate) fn sealed_for(bytes: &[u8]) -> Option<(DomainId, KeyNumber)> {
        let mut fields = Fields(bytes);
        let is_one = fields.u32()? == MAGIC && fields.u8()? == VERSION_SEALED;
        fields.u8()?;
        let (key, domain) = (fields.u16()?, DomainId(fields.u32()?));
        is_one.then_some((domain, key))
    }

    /// Parses a descriptor that is not encrypted; `None` where the bytes are none.
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
        Some(Self { codec, block_log2, stored_len, len, digest, crc, key: 0 })
    }

    /// The fact of a blob whose frame begins at `frame_offset` of a file and that nothing holds yet, without the time
    /// when it is stored.
    pub(crate) fn fact(&self, file: FileId, frame_offset: u64) -> BlobFact {
        let place = Place {
            file,
            offset: frame_offset + DESCRIPTOR_LEN,
            stored_len: self.stored_len,
            block_log2: self.block_log2,
            crc: self.crc,
            key: self.key,
        };
        let (algorithm, codec, len) = (self.digest.algorithm(), self.codec, self.len);
        BlobFact { algorithm, codec, place, len, count: 0, touched: 0, stored: Seconds::default(), damaged: false }
    }
}

/// Where in a descriptor its checksum stands.
const CRC_AT: usize = 124;

/// The checksum of a frame of a log file: of all but itself.
fn crc_of_all(frame: &[u8]) -> Option<u32> {
    let (descriptor, rest) = frame.split_at_checked(128)?;
    let mut crc = RunningCrc::resume(crc32c(descriptor.get(..CRC_AT)?));
    crc.update(rest);
    Some(crc.get())
}

/// How long the encrypted part of a descriptor is, in bytes.
const SEALED_BODY: usize = 88;

/// The table of block checksums as it stands behind the content.
pub(crate) fn encode_table(block_crcs: &[u32]) -> Vec<u8> {
    block_crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect()
}

/// Appends a block's entry to an encrypted frame's table.
pub(super) fn put_entry(table: &mut Vec<u8>, prefix: u64, tag: &Tag) {
    table.put_u64(prefix);
    table.put(tag);
}

/// Decrypts a block in place by its entry in the table. `None` where it is not what was encrypted there.
///
/// In a log file the prefix of its nonce is `expected`: where content begins. Without that, the blocks of two blobs of
/// the file could be exchanged together with their entries. A segment has one blob.
pub(crate) fn open_block(
    sealing: &Sealing,
    entry: &[u8],
    number: u64,
    expected: Option<u64>,
    block: &mut [u8],
) -> Option<()> {
    let mut fields = Fields(entry);
    let prefix = fields.u64()?;
    let tag = fields.array()?;
    (fields.is_empty() && expected.is_none_or(|expected| expected == prefix)).then_some(())?;
    sealing.cipher.open(Nonce::new(prefix, u32::try_from(number).ok()?), &[], block, tag).ok()
}

/// A block's entry in a frame's table; an empty one where it has none.
pub(crate) fn entry(table: &[u8], index: usize) -> &[u8] {
    table.as_chunks::<SEALED_ENTRY>().0.get(index).map_or(&[], |entry| entry.as_slice())
}

/// What stands behind content in its frame: padding, the table where there is one, padding.
pub(crate) fn encode_tail(stored_len: u64, block_log2: u8, key: KeyNumber, table: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if has_table(blocks(stored_len, block_log2), key) {
        out.resize(index(table_offset(stored_len, key) - stored_len), 0);
        out.put(table);
    }
    let tail_len = frame_len(stored_len, block_log2, key) - DESCRIPTOR_LEN - stored_len;
    out.resize(index(tail_len), 0);
    out
}

/// A whole frame in memory, as it is written where nothing is encrypted.
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
        bytes.put(&encode_tail(stored_len, block_log2, 0, &encode_table(&crcs)));
        Self { descriptor, bytes }
    }

    /// The frame's length, encrypted with a key, or not at all.
    pub(crate) fn len(&self, key: KeyNumber) -> u64 {
        frame_len(self.descriptor.stored_len, self.descriptor.block_log2, key)
    }

    /// Encrypts the frame for a log file, in which its content begins at `content_at`.
    pub(crate) fn seal(&self, sealing: &Sealing, content_at: u64) -> Result<Vec<u8>> {
        const WHOLE: Error = Error::Internal { invariant: "a frame has what its descriptor says" };
        let Descriptor { stored_len, block_log2, .. } = self.descriptor;
        let stored = self.bytes.get(128..).and_then(|rest| rest.get(..index(stored_len))).ok_or(WHOLE)?;
        let mut out = self.descriptor.in_log(sealing.key).seal(sealing, content_at)?;
        out.reserve_exact(index(self.len(sealing.key)));
        out.put(stored);
        let mut table = Vec::new();
        let (_, content) = out.split_at_mut(128);
        for (number, block) in (0..).zip(content.chunks_mut(1 << block_log2)) {
            let tag = sealing.cipher.seal(Nonce::new(content_at, number), &[], block)?;
            put_entry(&mut table, content_at, &tag);
        }
        out.put(&encode_tail(stored_len, block_log2, sealing.key, &table));
        let crc = crc_of_all(&out).ok_or(WHOLE)?;
        out.iter_mut().skip(CRC_AT).zip(crc.to_le_bytes()).for_each(|(to, from)| *to = from);
        Ok(out)
    }

    /// Whether an encrypted frame of a log file is as it was written. Only decrypting it shows that its writer had the
    /// key.
    pub(crate) fn is_whole(bytes: &[u8]) -> bool {
        let crc = bytes.get(CRC_AT..).and_then(|bytes| Fields(bytes).u32());
        crc.is_some() && crc == crc_of_all(bytes)
    }

    /// Reads the frame at the front of `bytes`, which is encrypted like this, its content beginning at `content_at` of
    /// a log file, or not at all, and verifies all of it, except that the content has the digest. `None` where there is
    /// no whole, undamaged frame.
    pub(crate) fn read(bytes: &[u8], sealing: Option<&Sealing>, content_at: u64) -> Option<Self> {
        let descriptor = Descriptor::read(bytes, sealing, Some(content_at))?;
        let Descriptor { codec, block_log2, stored_len, len, digest, crc, key } = descriptor;
        let frame = bytes.get(..usize::try_from(frame_len(stored_len, block_log2, key)).ok()?)?;
        let (content, tail) = frame.get(128..)?.split_at_checked(usize::try_from(stored_len).ok()?)?;
        let plain = match sealing {
            None => Self::new(digest, len, codec, content),
            Some(sealing) => {
                Self::is_whole(frame).then_some(())?;
                let at = usize::try_from(table_offset(stored_len, key) - stored_len).ok()?;
                let table_len = usize::try_from(entry_len(key) * blocks(stored_len, block_log2)).ok()?;
                let table = tail.get(at..at + table_len)?;
                (tail == encode_tail(stored_len, block_log2, key, table)).then_some(())?;
                let mut content = content.to_vec();
                for (number, block) in content.chunks_mut(1 << block_log2).enumerate() {
                    open_block(sealing, entry(table, number), number as u64, Some(content_at), block)?;
                }
                return Some(Self::new(digest, len, codec, &content));
            }
        };
        let same = plain.descriptor.crc == crc && plain.descriptor.block_log2 == block_log2;
        (same && plain.bytes.get(128..)? == frame.get(128..)?).then_some(plain)
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
            let descriptor = Frame::read(&frame.bytes, None, 0).unwrap().descriptor;
            assert_eq!(descriptor, frame.descriptor);
            assert_eq!(frame.bytes.len() as u64, frame.len(0));
            for bit in (0..frame.bytes.len() * 8).step_by(1 + frame.bytes.len() / 500) {
                let mut flipped = frame.bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Frame::read(&flipped, None, 0).is_none(), "bit {bit} of {len}");
            }
            assert!(Frame::read(&frame.bytes[..frame.bytes.len() - 1], None, 0).is_none());
        }
    }

    #[test]
    #[cfg(feature = "encryption")]
    fn encrypted_frames_open_where_they_were_put_and_no_flipped_bit_does() {
        use crate::envelope::{Cipher, Suite};
        let cipher = |byte| std::sync::Arc::new(Cipher::new(Suite::best(), &[byte; 32]).unwrap());
        let sealing = Sealing { cipher: cipher(1), domain: DomainId(3), key: 2 };
        for len in [0, 1, 511, 4096, 4097, 65_536, 65_537, 200_003] {
            let content: Vec<u8> = (0..len).map(|i: u32| i.to_le_bytes()[0]).collect();
            let frame = Frame::new(Digest::of(Algorithm::Sha512, &content), len.into(), Codec::Plain, &content);
            let sealed = frame.seal(&sealing, 1000).unwrap();
            assert_eq!(sealed.len() as u64, frame.len(2));
            assert_eq!(Frame::read(&sealed, Some(&sealing), 1000).unwrap().bytes, frame.bytes);
            assert!(Frame::is_whole(&sealed));
            assert!(Frame::read(&sealed, None, 1000).is_none(), "a plain one it is not");
            assert!(Frame::read(&sealed, Some(&sealing), 1008).is_none(), "that is another place");
            for wrong in [
                Sealing { cipher: cipher(2), ..sealing.clone() },
                Sealing { domain: DomainId(0), ..sealing.clone() },
                Sealing { key: 1, ..sealing.clone() },
            ] {
                assert!(Frame::read(&sealed, Some(&wrong), 1000).is_none());
            }
            for bit in (0..sealed.len() * 8).step_by(1 + sealed.len() / 500) {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Frame::read(&flipped, Some(&sealing), 1000).is_none(), "bit {bit} of {len}");
                assert!(!Frame::is_whole(&flipped), "without a key: bit {bit} of {len}");
            }
        }
    }
}
