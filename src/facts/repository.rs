//! What the values of facts about repositories say, field by field. All numbers are little-endian.

use crate::clock::{Seconds, Times};
use crate::digest::Digest;
use crate::facts::{Family, ID_LEN, Key, Storage, Value, put_digest, take_digest};
use crate::id::{DomainId, RepositoryId};
use crate::wire::{Fields, PutFields, last};

/// A repository in an operation: its id, and what it was called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Named {
    pub(crate) id: RepositoryId,
    pub(crate) name: String,
}

impl Named {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_u48(self.id.0);
        out.put_text(&self.name);
    }

    pub(crate) fn take(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { id: RepositoryId(fields.u48()?), name: fields.text()? })
    }
}

/// What is known of a repository:
///
/// ```text
/// id u48 | created u64 (ms since 1970) | domain u32 | quota u64 (0) | immutable u8 |
/// provisional u8 (0 no, 1), touched u48 (ms of open time) | documents u8 | name text |
/// exclusions u8, then each: text
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepositoryFact {
    /// The domain that it belongs to, as its key does.
    pub(crate) domain: DomainId,
    pub(crate) id: RepositoryId,
    pub(crate) created: u64,
    pub(crate) immutable: bool,
    /// A push created it, and none was completed yet: the store's open time when an upload into it was last begun.
    /// None: it stays until somebody deletes it.
    pub(crate) provisional: Option<u64>,
    /// How many documents it has.
    pub(crate) documents: u8,
    pub(crate) name: String,
    pub(crate) exclusions: Vec<String>,
}

impl RepositoryFact {
    /// The repository as operations name it.
    pub(crate) fn named(&self) -> Named {
        Named { id: self.id, name: self.name.clone() }
    }

    pub(crate) fn encode(&self) -> Value {
        let mut out = Vec::new();
        out.put_u48(self.id.0);
        out.put_u64(self.created);
        out.put_u32(self.domain.0);
        out.put_u64(0);
        out.put_u8(u8::from(self.immutable));
        out.put_u8(u8::from(self.provisional.is_some()));
        out.put_u48(self.provisional.unwrap_or(0));
        out.put_u8(self.documents);
        out.put_text(&self.name);
        out.put_u8(u8::try_from(self.exclusions.len()).unwrap_or(u8::MAX));
        self.exclusions.iter().for_each(|filter| out.put_text(filter));
        Value::new(&out)
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let id = RepositoryId(fields.u48()?);
        let created = fields.u64()?;
        let (domain, _quota) = (DomainId(fields.u32()?), fields.u64()?);
        let immutable = fields.u8()? == 1;
        let (is_provisional, touched) = (fields.u8()? == 1, fields.u48()?);
        let provisional = is_provisional.then_some(touched);
        let documents = fields.u8()?;
        let name = fields.text()?;
        let exclusions = (0..fields.u8()?).map(|_| fields.text()).collect::<Option<_>>()?;
        fields.end()?;
        Some(Self { domain, id, created, immutable, provisional, documents, name, exclusions })
    }
}

/// That a repository has a blob. 20 bytes:
///
/// ```text
/// count u32 | touched u48 (ms of open time) | stored u32 (s since 1970) |
/// the last 6 bytes of the blob's key: the link's key has the others
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkFact {
    /// How many of the repository's manifests reference the blob.
    pub(crate) count: u32,
    /// The store's open time when somebody last relied on the blob without a manifest: pushed, mounted or claimed it,
    /// or deleted the last manifest that referenced it.
    pub(crate) touched: u64,
    /// The wall clock when the repository got the blob.
    pub(crate) stored: Seconds,
    /// The end of the blob's key.
    pub(crate) rest: [u8; 6],
}

impl LinkFact {
    /// The length of an encoded fact in bytes.
    pub(crate) const LEN: usize = 20;

    pub(crate) fn encode(&self) -> Value {
        let mut out = Vec::with_capacity(Self::LEN);
        out.put_u32(self.count);
        out.put_u48(self.touched);
        out.put_u32(self.stored.0);
        out.put(&self.rest);
        Value::new(&out)
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (count, touched, stored) = (fields.u32()?, fields.u48()?, Seconds(fields.u32()?));
        let fact = Self { count, touched, stored, rest: fields.array()? };
        fields.end()?;
        Some(fact)
    }

    /// A new link to a blob with this key.
    pub(crate) fn new(blob: &Key, now: Times) -> Self {
        Self { count: 0, touched: now.open, stored: now.seconds(), rest: last(&blob.bytes) }
    }

    /// The key of the blob, of the same domain, that the link with this key leads to.
    pub(crate) fn blob(&self, link: &Key) -> Key {
        let (_, digest) = link.bytes.split_at(ID_LEN);
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest.iter().chain(&self.rest)).for_each(|(to, from)| *to = *from);
        Key { domain: link.domain, family: Family::Blob, bytes }
    }
}

/// A blob or manifest that manifests of a repository hold, and that the repository does not have yet:
/// `count u32 | digest`. As soon as it has it, the link or the manifest has the count, and this is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AwaitedFact {
    /// How many of the repository's manifests reference it; not 0.
    pub(crate) count: u32,
    pub(crate) digest: Digest,
}

impl AwaitedFact {
    pub(crate) fn encode(&self) -> Value {
        let mut out = Vec::new();
        out.put_u32(self.count);
        put_digest(&mut out, &self.digest);
        Value::new(&out)
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let fact = Self { count: fields.u32()?, digest: take_digest(&mut fields)? };
        fields.end()?;
        Some(fact)
    }
}

/// What a manifest references and holds. What was missing, and allowed to be, is [awaited](AwaitedFact).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Held {
    Blob(Digest),
    Manifest(Digest),
}

impl Held {
    pub(crate) fn digest(&self) -> Digest {
        match self {
            Self::Blob(digest) | Self::Manifest(digest) => *digest,
        }
    }

    /// The key under which a repository has it.
    pub(crate) fn key(&self, domain: DomainId, repository: RepositoryId) -> Key {
        let family = match self {
            Self::Blob(_) => Family::Link,
            Self::Manifest(_) => Family::Manifest,
        };
        Key::of_digest(domain, family, repository, &self.digest())
    }

    /// The key under which it is awaited in a repository.
    pub(crate) fn awaited_key(&self, domain: DomainId, repository: RepositoryId) -> Key {
        let family = match self {
            Self::Blob(_) => Family::AwaitedBlob,
            Self::Manifest(_) => Family::AwaitedManifest,
        };
        Key::awaited(domain, family, repository, &self.digest())
    }

    /// The digest, if it is that of a manifest.
    pub(crate) fn manifest(&self) -> Option<Digest> {
        match self {
            Self::Manifest(digest) => Some(*digest),
            Self::Blob(_) => None,
        }
    }
}

/// A manifest of a repository:
///
/// ```text
/// length u48 | pushed u64 (ms since 1970) | count u32 | storage class 17 | digest | media type text |
/// artifact type text (empty: none) | subject u8 (0 none, 1), digest |
/// held u32, then for each: kind u8 (0 blob, 1 manifest), digest
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestFact {
    pub(crate) digest: Digest,
    pub(crate) len: u64,
    pub(crate) pushed: u64,
    /// How many of the repository's manifests hold this one.
    pub(crate) count: u32,
    pub(crate) storage: Storage,
    pub(crate) media_type: String,
    pub(crate) artifact_type: Option<String>,
    pub(crate) subject: Option<Digest>,
    /// What it holds, each once.
    pub(crate) held: Vec<Held>,
}

impl ManifestFact {
    /// About how long an encoded fact is that holds nothing, in bytes.
    pub(crate) const MIN_LEN: usize = 220;

    /// How long what it holds is in it, each, with a digest of 32 bytes.
    pub(crate) const HELD_LEN: usize = 34;

    pub(crate) fn encode(&self) -> Value {
        let mut out = Vec::with_capacity(Self::MIN_LEN + Self::HELD_LEN * self.held.len());
        out.put_u48(self.len);
        out.put_u64(self.pushed);
        out.put_u32(self.count);
        self.storage.put(&mut out);
        put_digest(&mut out, &self.digest);
        out.put_text(&self.media_type);
        out.put_text(self.artifact_type.as_deref().unwrap_or_default());
        out.put_u8(u8::from(self.subject.is_some()));
        self.subject.iter().for_each(|subject| put_digest(&mut out, subject));
        out.put_len32(self.held.len());
        for held in &self.held {
            let (kind, digest) = match held {
                Held::Blob(digest) => (0, digest),
                Held::Manifest(digest) => (1, digest),
            };
            out.put_u8(kind);
            put_digest(&mut out, digest);
        }
        Value::new(&out)
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (len, pushed, count) = (fields.u48()?, fields.u64()?, fields.u32()?);
        let storage = Storage::take(&mut fields)?;
        let digest = take_digest(&mut fields)?;
        let media_type = fields.text()?;
        let artifact_type = Some(fields.text()?).filter(|kind| !kind.is_empty());
        let subject = match fields.u8()? {
            0 => None,
            _ => Some(take_digest(&mut fields)?),
        };
        let number = usize::try_from(fields.u32()?).ok()?;
        // Bounded by what is there before anything is allocated.
        let mut held = Vec::with_capacity(number.min(fields.0.len() / 34));
        for _ in 0..number {
            let kind = fields.u8()?;
            let digest = take_digest(&mut fields)?;
            held.push(if kind == 0 { Held::Blob(digest) } else { Held::Manifest(digest) });
        }
        fields.end()?;
        Some(Self { digest, len, pushed, count, storage, media_type, artifact_type, subject, held })
    }
}

/// What a tag points to:
///
/// ```text
/// updated u64 (ms since 1970) | digest | tag text
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TagFact {
    pub(crate) updated: u64,
    pub(crate) digest: Digest,
    pub(crate) tag: String,
}

impl TagFact {
    pub(crate) fn encode(&self) -> Value {
        let mut out = Vec::new();
        out.put_u64(self.updated);
        put_digest(&mut out, &self.digest);
        out.put_text(&self.tag);
        Value::new(&out)
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (updated, digest) = (fields.u64()?, take_digest(&mut fields)?);
        let tag = fields.text()?;
        fields.end()?;
        Some(Self { updated, digest, tag })
    }
}

/// That a manifest refers to a subject: `subject digest | digest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReferrerFact {
    pub(crate) subject: Digest,
    pub(crate) digest: Digest,
}

impl ReferrerFact {
    pub(crate) fn encode(&self) -> Value {
        let mut out = Vec::new();
        put_digest(&mut out, &self.subject);
        put_digest(&mut out, &self.digest);
        Value::new(&out)
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let fact = Self { subject: take_digest(&mut fields)?, digest: take_digest(&mut fields)? };
        fields.end()?;
        Some(fact)
    }
}

/// When a manifest was pulled last: `pulled u64 (ms since 1970)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PullFact {
    pub(crate) pulled: u64,
}

impl PullFact {
    /// The length of an encoded fact in bytes.
    pub(crate) const LEN: usize = 8;

    pub(crate) fn encode(self) -> Value {
        Value::new(&self.pulled.to_le_bytes())
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self { pulled: u64::from_le_bytes(bytes.try_into().ok()?) })
    }
}
