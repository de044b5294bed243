//! Looking up facts: by key, by prefix, and by what they are about.

use std::fmt::Debug;

use crate::digest::Digest;
use crate::error::{Damage, Error, Result};
use crate::facts::{
    BlobFact, DocumentFact, Family, Key, LinkFact, ManifestFact, NamedFact, NamesOf, Prefix, ReferrerFact,
    RepositoryFact, SegmentFact, TagFact, Value,
};
use crate::id::{DomainId, FileId};

/// Facts as of one moment, wherever they are kept.
pub(crate) trait Reader: Debug + Send + Sync {
    /// The value under a key.
    fn get(&self, key: &Key) -> Result<Option<Value>>;

    /// The values under keys, in their order: for a reader that has to ask another machine.
    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// The first facts with a prefix behind a key, at most `limit`, in the order of their keys.
    fn scan(&self, prefix: Prefix, after: Option<Key>, limit: usize) -> Result<Vec<(Key, Value)>>;

    /// The first names behind `after`, at most `limit`, in order. They are as of the same moment or a later one.
    fn names(&self, of: NamesOf<'_>, after: Option<&str>, limit: usize) -> Result<Vec<String>>;

    /// All domains that are not locked, in order: the default one first.
    fn domains(&self) -> &[DomainId];

    /// Why a domain is locked, if it is: then what it knows can't be asked for.
    fn lock_of(&self, domain: DomainId) -> Option<&Error>;

    /// The error that the value under a key can't be decoded: a writer wrote it and its checksum holds, so it is of
    /// another format. Says where it lies, if that is known.
    fn invalid(&self, _key: &Key) -> Error {
        Error::corrupt(std::path::Path::new("runs"), 0, Damage::Invalid("fact"))
    }
}

/// A value that all facts of a family have.
pub(crate) trait Decoded: Sized {
    const FAMILY: Family;

    fn decoded(value: &[u8]) -> Option<Self>;
}

macro_rules! values_of {
    ($($family:ident: $value:ident),*) => {$(
        impl Decoded for $value {
            const FAMILY: Family = Family::$family;

            fn decoded(value: &[u8]) -> Option<Self> {
                Self::decode(value)
            }
        }
    )*};
}

values_of!(
    Blob: BlobFact,
    Segment: SegmentFact,
    Named: NamedFact,
    Repository: RepositoryFact,
    Link: LinkFact,
    Manifest: ManifestFact,
    Referrer: ReferrerFact,
    Tag: TagFact,
    Document: DocumentFact
);

/// What can be asked of facts, whether as of an LSN or with what a commit changes.
pub(crate) trait Lookup {
    /// The domain in which is looked for what is not asked for by its key.
    fn domain(&self) -> DomainId;

    /// The value under a key, decoded.
    fn decode<T>(&self, key: &Key, decode: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>>;

    /// What is known under a blob's key.
    fn blob_by_key(&self, key: &Key) -> Result<Option<BlobFact>> {
        self.decode(key, BlobFact::decode)
    }

    /// What is known of the blob with a digest.
    fn blob(&self, digest: &Digest) -> Result<Option<BlobFact>> {
        let blob = self.blob_by_key(&Key::blob(self.domain(), digest))?;
        Ok(blob.filter(|blob| blob.algorithm == digest.algorithm()))
    }

    /// What is known of a segment: of what the domain has in it.
    fn segment(&self, id: FileId) -> Result<Option<SegmentFact>> {
        self.decode(&Key::segment(self.domain(), id), SegmentFact::decode)
    }
}
