//! Facts: what the store knows.
//!
//! A fact is a [`Key`] and a [`Value`], or the absence of one. Each belongs to one key domain. Facts are absolute: of
//! several facts with the same key the one with the highest LSN holds, so that replaying a log twice, or replaying
//! facts that a run already holds, changes nothing. Commits ([`crate::transaction`]) make them; they are held in a
//! [`Memtable`](crate::tables::memtable::Memtable) until there are enough of them, and are then kept in
//! [runs](crate::tables).

mod class;
mod document;
pub(crate) mod find;
mod geometry;
mod idle;
mod known;
mod lookup;
mod named;
mod names;
mod repository;
mod values;

pub(crate) use class::Storage;
pub use class::StorageClass;
pub(crate) use document::DocumentFact;
pub(crate) use geometry::{
    BLOCK_LOG2, DESCRIPTOR_LEN, SEALED_ENTRY, block_log2_for, blocks, entry_len, frame_len, has_table, table_offset,
};
pub(crate) use idle::{Idle, IdleKind};
pub(crate) use known::{Known, Noting};
pub(crate) use lookup::{Decoded, Lookup, Reader};
pub(crate) use named::{Expiry, NamedFact};
pub(crate) use names::NamesOf;
pub(crate) use repository::{
    AwaitedFact, Held, LinkFact, ManifestFact, Named, PullFact, ReferrerFact, RepositoryFact, TagFact,
};

pub(crate) use values::{
    BlobFact, Codec, PART_BLOCKS, Place, ProgressFact, SegmentFact, SegmentKind, UploadFact, put_digest, take_digest,
};

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::digest::{Algorithm, Digest};
use crate::id::{DomainId, FileId, RepositoryId, UploadId};

/// The kinds of facts. The numbers stand in files; 6 is kept for chunks.
///
/// The keys of what belongs to a repository begin with its id, so that all of it lies together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Family {
    /// A blob's place, lengths and count, by its digest.
    Blob = 1,
    /// How much a segment or log file holds, and how much of that lives, by its file id.
    Segment = 2,
    /// What a named file holds, by the hash of its name.
    Named = 3,
    /// Where an upload stands, by its id.
    Upload = 4,
    /// A part of the list of an upload's block checksums, by the upload's id and the part's number.
    UploadPart = 5,
    /// That a repository has a blob, and how many of its manifests reference it, by repository and digest.
    Link = 7,
    /// A manifest of a repository, by repository and digest.
    Manifest = 8,
    /// That a manifest refers to a subject, by repository, subject and digest.
    Referrer = 9,
    /// What a tag points to, by repository and the hash of the tag.
    Tag = 10,
    /// A repository's id and settings, by the hash of its name.
    Repository = 11,
    /// A repository that was deleted and of which something is left, by its id.
    Deleted = 12,
    /// When a manifest was pulled last, by repository and digest.
    Pull = 13,
    /// That a tag points to a manifest, by repository, digest and the hash of the tag.
    TagOf = 14,
    /// What nothing holds, in the order in which its time comes: see [`Idle`].
    Idle = 15,
    /// How far a scrub has come: one fact of the default domain.
    Progress = 16,
    /// Which domain a repository's name belongs to, if not to the default one, by the hash of the name: facts of the
    /// default domain.
    Owner = 17,
    /// A blob that a repository does not have, and how many of its manifests wait for it, by repository and digest.
    AwaitedBlob = 18,
    /// The same of a manifest.
    AwaitedManifest = 19,
    /// A document of a repository, by repository and the hash of the document's name.
    Document = 20,
}

impl Family {
    /// All families, in the order of their numbers, which is the order of a run's sections.
    pub(crate) const ALL: [Self; 19] = [
        Self::Blob,
        Self::Segment,
        Self::Named,
        Self::Upload,
        Self::UploadPart,
        Self::Link,
        Self::Manifest,
        Self::Referrer,
        Self::Tag,
        Self::Repository,
        Self::Deleted,
        Self::Pull,
        Self::TagOf,
        Self::Idle,
        Self::Progress,
        Self::Owner,
        Self::AwaitedBlob,
        Self::AwaitedManifest,
        Self::Document,
    ];

    /// The family of a number in a file.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|family| *family as u8 == code)
    }

    /// The length of every value of this family in bytes, or `None` where values differ in length.
    pub(crate) fn value_len(self) -> Option<usize> {
        match self {
            Self::Blob => Some(BlobFact::LEN),
            Self::Segment => Some(SegmentFact::LEN),
            Self::Link => Some(LinkFact::LEN),
            Self::Pull => Some(PullFact::LEN),
            Self::Deleted => Some(0),
            Self::Idle => Some(Idle::LEN),
            Self::Progress => Some(ProgressFact::LEN),
            Self::Owner => Some(4),
            Self::Named
            | Self::Upload
            | Self::UploadPart
            | Self::Manifest
            | Self::Referrer
            | Self::Tag
            | Self::Repository
            | Self::TagOf
            | Self::AwaitedBlob
            | Self::AwaitedManifest
            | Self::Document => None,
        }
    }

    /// Whether keys of this family are often asked for in order, from some key on.
    pub(crate) fn is_ordered(self) -> bool {
        match self {
            Self::Link
            | Self::Manifest
            | Self::Referrer
            | Self::Tag
            | Self::Pull
            | Self::TagOf
            | Self::Deleted
            | Self::Idle
            | Self::AwaitedBlob
            | Self::AwaitedManifest
            | Self::Document => true,
            Self::Blob
            | Self::Segment
            | Self::Named
            | Self::Upload
            | Self::UploadPart
            | Self::Repository
            | Self::Progress
            | Self::Owner => false,
        }
    }
}

/// The longest value, in bytes: it has to fit into a record.
pub(crate) const MAX_VALUE: usize = 8 << 20;

/// What a fact is about: a domain, a family and 32 bytes. The domain stands nowhere beside the others: records and runs
/// are of one domain each, and say which.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) domain: DomainId,
    pub(crate) family: Family,
    pub(crate) bytes: [u8; 32],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.domain != DomainId::DEFAULT {
            write!(f, "{}/", self.domain.0)?;
        }
        write!(f, "{:?}:", self.family)?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Key {
    /// The key of a blob: the digest's bytes where there are 32 of them, else a hash of them. The algorithm is part of
    /// the fact, not of the key, so no two digests may have the same key: that hash is under a context of its own,
    /// since otherwise content that is a digest's bytes would have, as a blob named by BLAKE3, the key of that digest.
    pub(crate) fn blob(domain: DomainId, digest: &Digest) -> Self {
        Self { domain, family: Family::Blob, bytes: digest_key(digest) }
    }

    /// The key of a segment: its id, big-endian, so that keys sort as ids do. Each domain counts what it has in the
    /// file.
    pub(crate) fn segment(domain: DomainId, id: FileId) -> Self {
        let mut bytes = [0; 32];
        let (head, _) = bytes.split_at_mut(8);
        head.copy_from_slice(&id.0.to_be_bytes());
        Self { domain, family: Family::Segment, bytes }
    }

    /// The key of a named file: the BLAKE3 hash of its name.
    pub(crate) fn named(domain: DomainId, name: &str) -> Self {
        Self { domain, family: Family::Named, bytes: *blake3::hash(name.as_bytes()).as_bytes() }
    }

    /// The key of an upload.
    pub(crate) fn upload(domain: DomainId, id: UploadId) -> Self {
        let mut bytes = [0; 32];
        let (head, _) = bytes.split_at_mut(16);
        head.copy_from_slice(&id.0);
        Self { domain, family: Family::Upload, bytes }
    }

    /// The key of the `part`th part of an upload's list of block checksums.
    pub(crate) fn upload_part(domain: DomainId, id: UploadId, part: u64) -> Self {
        let mut bytes = Self::upload(domain, id).bytes;
        let (_, tail) = bytes.split_at_mut(24);
        tail.copy_from_slice(&part.to_be_bytes());
        Self { domain, family: Family::UploadPart, bytes }
    }

    /// The key of a repository: the BLAKE3 hash of its name.
    pub(crate) fn repository(domain: DomainId, name: &str) -> Self {
        Self { domain, family: Family::Repository, bytes: *blake3::hash(name.as_bytes()).as_bytes() }
    }

    /// The key under which stands which domain the name of a repository belongs to.
    pub(crate) fn owner(name: &str) -> Self {
        Self { family: Family::Owner, ..Self::repository(DomainId::DEFAULT, name) }
    }

    /// The key of a deleted repository.
    pub(crate) fn deleted(domain: DomainId, repository: RepositoryId) -> Self {
        Self { domain, family: Family::Deleted, bytes: scoped(repository, &[]) }
    }

    /// The key of what a repository has under a digest.
    pub(crate) fn of_digest(domain: DomainId, family: Family, repository: RepositoryId, digest: &Digest) -> Self {
        Self { domain, family, bytes: scoped(repository, &[&digest_key(digest)]) }
    }

    /// The key of what a repository awaits: by a hash of the algorithm and all of the digest. Nobody has shown content
    /// with such a digest, so that it may be chosen to differ from another one only in what [`scoped`] cuts off.
    pub(crate) fn awaited(domain: DomainId, family: Family, repository: RepositoryId, digest: &Digest) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[digest.algorithm() as u8]).update(digest.as_bytes());
        Self { domain, family, bytes: scoped(repository, &[hasher.finalize().as_bytes()]) }
    }

    /// The key of a tag.
    pub(crate) fn tag(domain: DomainId, repository: RepositoryId, tag: &str) -> Self {
        Self { domain, family: Family::Tag, bytes: scoped(repository, &[blake3::hash(tag.as_bytes()).as_bytes()]) }
    }

    /// The key of a document.
    pub(crate) fn document(domain: DomainId, repository: RepositoryId, name: &str) -> Self {
        let bytes = scoped(repository, &[blake3::hash(name.as_bytes()).as_bytes()]);
        Self { domain, family: Family::Document, bytes }
    }

    /// The key of the fact that a tag points to a manifest.
    pub(crate) fn tag_of(domain: DomainId, repository: RepositoryId, digest: &Digest, tag: &str) -> Self {
        let (digest, tag) = (digest_key(digest), *blake3::hash(tag.as_bytes()).as_bytes());
        Self { domain, family: Family::TagOf, bytes: scoped(repository, &[head(&digest), &tag]) }
    }

    /// The key of the fact that a manifest refers to a subject.
    pub(crate) fn referrer(domain: DomainId, repository: RepositoryId, subject: &Digest, digest: &Digest) -> Self {
        let (subject, digest) = (digest_key(subject), digest_key(digest));
        Self { domain, family: Family::Referrer, bytes: scoped(repository, &[head(&subject), &digest]) }
    }

    /// The key of how far a scrub has come.
    pub(crate) fn progress(domain: DomainId) -> Self {
        Self { domain, family: Family::Progress, bytes: [0; 32] }
    }

    /// The repository in the key of what belongs to one.
    pub(crate) fn repository_id(&self) -> RepositoryId {
        RepositoryId(self.prefix() >> 16)
    }

    /// The key's first eight bytes as a number that sorts as keys do.
    pub(crate) fn prefix(&self) -> u64 {
        prefix(&self.bytes)
    }
}

/// The bytes of a blob's key, of which others have the beginning.
fn digest_key(digest: &Digest) -> [u8; 32] {
    match digest.algorithm() {
        Algorithm::Sha256 | Algorithm::Blake3 => digest.first_bytes(),
        Algorithm::Sha512 => blake3::derive_key("strongroom 2026-11 key of a SHA-512 digest", digest.as_bytes()),
    }
}

/// Bytes of a repository's id in keys, then of a digest that others sort below.
const ID_LEN: usize = 6;
const HEAD_LEN: usize = 10;

/// The repository's id, big-endian, then as much as fits in. What is cut off is not needed to tell keys apart: 26 bytes
/// of the digest of content that is there are left, or ten of a digest and sixteen of another hash.
fn scoped(repository: RepositoryId, parts: &[&[u8]]) -> [u8; 32] {
    let id = repository.0.to_be_bytes();
    let (_, id) = id.split_at(8 - ID_LEN);
    let mut bytes = [0; 32];
    let parts = id.iter().chain(parts.iter().copied().flatten());
    bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
    bytes
}

fn head(digest: &[u8; 32]) -> &[u8] {
    digest.split_at(HEAD_LEN).0
}

/// The keys of a family and a domain that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Prefix {
    pub(crate) domain: DomainId,
    pub(crate) family: Family,
    /// The first key that begins so.
    pub(crate) from: [u8; 32],
    len: usize,
}

impl Prefix {
    /// All of a family.
    pub(crate) fn all(domain: DomainId, family: Family) -> Self {
        Self { domain, family, from: [0; 32], len: 0 }
    }

    /// All of a family that belongs to a repository.
    pub(crate) fn of(domain: DomainId, family: Family, repository: RepositoryId) -> Self {
        Self { domain, family, from: scoped(repository, &[]), len: ID_LEN }
    }

    /// The tags of a manifest, or the referrers of a subject (and of whatever other digest begins with the same ten
    /// bytes).
    pub(crate) fn under(domain: DomainId, family: Family, repository: RepositoryId, digest: &Digest) -> Self {
        let from = scoped(repository, &[head(&digest_key(digest))]);
        Self { domain, family, from, len: ID_LEN + HEAD_LEN }
    }

    /// The entries of a map whose keys begin so, those behind a key.
    pub(crate) fn range<V>(self, map: &BTreeMap<Key, V>, after: Option<Key>) -> impl Iterator<Item = (&Key, &V)> {
        let first = Key { domain: self.domain, family: self.family, bytes: self.from };
        let entries = map.range(first..).take_while(move |(key, _)| self.contains(key));
        entries.filter(move |(key, _)| after.is_none_or(|after| after < **key))
    }

    /// Whether a key begins so.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        (key.domain, key.family) == (self.domain, self.family) && key.bytes.get(..self.len) == self.from.get(..self.len)
    }
}

/// Facts in the order of their keys, where newer ones hide older ones.
pub(crate) fn overlaid(
    mut newer: BTreeMap<Key, Option<Value>>,
    older: impl IntoIterator<Item = (Key, Value)>,
) -> impl Iterator<Item = (Key, Value)> {
    for (key, value) in older {
        newer.entry(key).or_insert(Some(value));
    }
    newer.into_iter().filter_map(|(key, value)| value.map(|value| (key, value)))
}

/// The key after this one; none after the last.
pub(crate) fn successor(mut key: [u8; 32]) -> Option<[u8; 32]> {
    for byte in key.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(key);
        }
    }
    None
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
