//! Facts: what the store knows.
//!
//! A fact is a [`Key`] and a [`Value`], or the absence of one. Facts are absolute: of several facts with the same key the
//! one with the highest LSN holds, so that replaying a log twice, or replaying facts that a run already holds, changes
//! nothing. They are made by commits ([`crate::store`]), wait in a [`Memtable`](memtable::Memtable) until there are
//! enough of them, and are then kept in [runs](crate::runs).

pub(crate) mod memtable;
mod values;

pub(crate) use values::{
    BlobFact, Codec, PART_BLOCKS, PinFact, Place, SegmentFact, SegmentKind, UploadFact, put_digest, take_digest,
};

use std::sync::Arc;

use crate::digest::{Algorithm, Digest};
use crate::id::{FileId, UploadId};

/// The kinds of facts. The numbers stand in files.
///
/// 6 to 12 are kept for chunks, links, manifests, referrers, tags, repositories and the dead list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Family {
    /// A blob's place, lengths and count, by its digest.
    Blob = 1,
    /// A segment's (or sealed log file's) length and how much of it lives, by its file id.
    Segment = 2,
    /// What a pin holds, by the hash of its name.
    Pin = 3,
    /// Where an upload stands, by its id.
    Upload = 4,
    /// A part of the list of an upload's block checksums, by the upload's id and the part's number.
    UploadPart = 5,
}

impl Family {
    /// All families, in the order of their numbers, which is the order of a run's sections.
    pub(crate) const ALL: [Self; 5] = [Self::Blob, Self::Segment, Self::Pin, Self::Upload, Self::UploadPart];

    /// The family of a number in a file.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|family| *family as u8 == code)
    }

    /// The length of every value of this family in bytes, or `None` where values differ in length.
    pub(crate) fn value_len(self) -> Option<usize> {
        match self {
            Self::Blob => Some(BlobFact::LEN),
            Self::Segment => Some(SegmentFact::LEN),
            Self::Pin | Self::Upload | Self::UploadPart => None,
        }
    }
}

/// The longest value, in bytes: it has to fit into a record.
pub(crate) const MAX_VALUE: usize = 8 << 20;

/// What a fact is about: a family and 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) family: Family,
    pub(crate) bytes: [u8; 32],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}:", self.family)?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Key {
    /// The key of a blob: the digest's bytes where there are 32 of them, else a hash of them. The algorithm is part of the
    /// fact, not of the key, so no two digests may have the same key: that hash is under a context of its own, since
    /// otherwise content that is a digest's bytes would have, as a blob named by BLAKE3, the key of that digest.
    pub(crate) fn blob(digest: &Digest) -> Self {
        let bytes = match digest.algorithm() {
            Algorithm::Sha256 | Algorithm::Blake3 => digest.as_bytes().try_into().unwrap_or_default(),
            Algorithm::Sha512 => blake3::derive_key("strongroom 2026-11 key of a SHA-512 digest", digest.as_bytes()),
        };
        Self { family: Family::Blob, bytes }
    }

    /// The key of a segment: its id, big-endian, so that keys sort as ids do.
    pub(crate) fn segment(id: FileId) -> Self {
        let mut bytes = [0; 32];
        let (head, _) = bytes.split_at_mut(8);
        head.copy_from_slice(&id.0.to_be_bytes());
        Self { family: Family::Segment, bytes }
    }

    /// The key of a pin: the BLAKE3 hash of its name.
    pub(crate) fn pin(name: &str) -> Self {
        Self { family: Family::Pin, bytes: *blake3::hash(name.as_bytes()).as_bytes() }
    }

    /// The key of an upload.
    pub(crate) fn upload(id: UploadId) -> Self {
        let mut bytes = [0; 32];
        let (head, _) = bytes.split_at_mut(16);
        head.copy_from_slice(&id.0);
        Self { family: Family::Upload, bytes }
    }

    /// The key of the `part`th part of an upload's list of block checksums.
    pub(crate) fn upload_part(id: UploadId, part: u64) -> Self {
        let mut bytes = Self::upload(id).bytes;
        let (_, tail) = bytes.split_at_mut(24);
        tail.copy_from_slice(&part.to_be_bytes());
        Self { family: Family::UploadPart, bytes }
    }

    /// The key's first eight bytes as a number that sorts as keys do.
    pub(crate) fn prefix(&self) -> u64 {
        prefix(&self.bytes)
    }
}

/// The first eight of a key's bytes as a number that sorts as keys do.
pub(crate) fn prefix(bytes: &[u8; 32]) -> u64 {
    let &[a, b, c, d, e, f, g, h, ..] = bytes;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// A fact's value: its encoded bytes. Short ones, which most are, need no allocation.
#[derive(Clone)]
pub(crate) enum Value {
    /// The length, and the bytes with zeros after them.
    Short(u8, [u8; 46]),
    /// More than 46 bytes.
    Long(Arc<[u8]>),
}

impl Value {
    /// A value of these bytes.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut short = [0; 46];
        match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(head), Ok(len)) => {
                head.copy_from_slice(bytes);
                Self::Short(len, short)
            }
            _ => Self::Long(bytes.into()),
        }
    }

    /// The bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Self::Long(bytes) => bytes,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?}", self.as_bytes())
    }
}

/// A key and what is known under it: `None` says that it is gone (a tombstone).
pub(crate) type Fact = (Key, Option<Value>);
