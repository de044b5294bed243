//! Named files: names that keep blobs, for programs without manifests.
//!
//! A name and the content under it change in one commit ([`crate::transaction::named`]). Who reads a name gets content
//! that is there: what the snapshot names is opened, and where its file is gone, since the name was replaced and the
//! content collected in between, the name is read again.

use std::io::Read;
use std::time::{Duration, SystemTime};

use crate::blobs::{Blob, BlobStore, Claimed, Content, Destination, Expect, Outside, frame_for};
use crate::clock::milliseconds;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::facts::{Expiry, Key, Lookup, NamedFact, NamesOf, Reader as _};
use crate::id::{DomainId, Lsn, UploadId};
use crate::log::Durability;
use crate::page::Page;
use crate::tables::Snapshot;
use crate::transaction::named::{Lifetime, NamedOutcome, Released, RemoveNamed, RemoveSeveral, SetNamed};
use crate::transaction::{ExpectNamed, Outcome, Request, Then, miscounted};

/// The longest name in bytes.
const MAX_NAME: usize = 1024;

/// The most blobs that one named file holds, so that its record stays of bounded size; and the most references in a
/// page of a list, but for those of its last file.
const MAX_HELD: usize = 65_536;

/// So many named files go in one commit at most: others wait for it.
const REMOVED_AT_ONCE: usize = 1000;

/// When a named file expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expires {
    /// Never.
    Never,
    /// After this much more of the store's open time.
    After(Duration),
    /// At this time, by the wall clock.
    At(SystemTime),
}

/// What is known of a named file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedFile {
    /// Its name.
    pub name: String,
    /// The digest of its content.
    pub digest: Digest,
    /// The length of its content in bytes.
    pub len: u64,
    /// Other blobs that it keeps.
    pub references: Vec<Digest>,
    /// When the name was first set, by the wall clock, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it was set last, by the wall clock, in milliseconds since 1970.
    pub modified_ms: u64,
    /// When it expires.
    pub expires: Expires,
    /// Whether that time has come: then the next collection removes it.
    pub is_expired: bool,
}

/// A named file and its content, of one moment.
#[derive(Debug)]
#[non_exhaustive]
pub struct NamedBlob {
    /// What is known of the file.
    pub file: NamedFile,
    /// Its content, open for reading. It stays readable when the file is replaced or removed.
    pub blob: Blob,
}

/// What a write of a named file did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedWrite {
    /// The file as it is now.
    pub file: NamedFile,
    /// Whether the store had the content already.
    pub existed: bool,
    /// The content that the file had before; none where there was no such file.
    pub replaced: Option<Digest>,
    /// The position of the commit in the order of all commits.
    pub lsn: Lsn,
}

/// What a removal of named files did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedRemoval {
    /// How many files were removed.
    pub removed: u64,
    /// The position of the last commit that removed some; where there was none to remove, of the last commit.
    pub lsn: Lsn,
}

/// Options of a write of a named file.
///
/// ```
/// use std::time::Duration;
/// use strongroom::{Algorithm, ExpectNamed, PutNamed};
///
/// let put = PutNamed::new()
///     .algorithm(Algorithm::Blake3)
///     .expect(ExpectNamed::Absent)
///     .expires_after(Duration::from_secs(3600));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct PutNamed {
    content: Expect,
    references: Vec<Digest>,
    lifetime: Lifetime,
    expect: ExpectNamed,
}

impl Default for PutNamed {
    fn default() -> Self {
        let content = Expect::Algorithm(Algorithm::Sha256);
        Self { content, references: Vec::new(), lifetime: Lifetime::Unlimited, expect: ExpectNamed::Any }
    }
}

impl PutNamed {
    /// A file that does not expire, keeps no other blobs, and takes the place of whatever has the name.
    pub fn new() -> Self {
        Self::default()
    }

    /// The algorithm of the content's digest; SHA-256 by default.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.content = Expect::Algorithm(algorithm);
        self
    }

    /// The digest that the content must have.
    pub fn digest(mut self, digest: Digest) -> Self {
        self.content = Expect::Digest(digest);
        self
    }

    /// Blobs that the file keeps besides its content: those that the document in it references. At most 65,535.
    pub fn references(mut self, references: impl Into<Vec<Digest>>) -> Self {
        self.references = references.into();
        self
    }

    /// What the content is expected to be.
    #[cfg(feature = "tokio")]
    pub(crate) fn content(&self) -> Expect {
        self.content
    }

    /// After how much of the store's open time the file expires. The next [collection](crate::Store::collect) after
    /// that, or [`Store::expire`](crate::Store::expire), removes it, and its content with it unless something else
    /// keeps that; until then it is there and [says](NamedFile::is_expired) that it has expired.
    pub fn expires_after(mut self, open_time: Duration) -> Self {
        self.lifetime = Lifetime::OpenTime(milliseconds(open_time));
        self
    }

    /// When the file expires by the wall clock, as [`expires_after`](Self::expires_after). A wall clock that runs wrong
    /// removes it early or late.
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        self.lifetime = Lifetime::Until(since.map_or(0, milliseconds));
        self
    }

    /// What has the name now, for the write to take place; anything by default.
    pub fn expect(mut self, expect: ExpectNamed) -> Self {
        self.expect = expect;
        self
    }
}

/// Where named files are, and how they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NamedIn {
    pub(crate) domain: DomainId,
    /// What becomes of content that is replaced or removed.
    pub(crate) released: Released,
    pub(crate) durability: Durability,
}

/// An upload that becomes a named file.
struct IntoNamed<'a, F> {
    outside: Outside<'a>,
    set: F,
}

impl<F: Fn(Digest) -> SetNamed + Sync> Destination for IntoNamed<'_, F> {
    fn domain(&self) -> DomainId {
        self.outside.domain()
    }

    fn durability(&self) -> Durability {
        self.outside.durability()
    }

    fn claim_many(&self, digests: &[Digest]) -> Result<Vec<Result<Claimed>>> {
        self.outside.claim_many(digests)
    }

    fn then(&self, digest: &Digest) -> Then {
        Some(Box::new((self.set)(*digest)))
    }
}

/// What a write asks for, once the digest is known.
fn set(into: NamedIn, name: &str, put: &PutNamed) -> Result<impl Fn(Digest) -> SetNamed> {
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(Error::InvalidName { name: name.chars().take(200).collect(), max: MAX_NAME });
    }
    Error::check_limit("the number of blobs of a named file", 1 + put.references.len(), MAX_HELD)?;
    let (name, references) = (name.to_owned(), put.references.clone());
    let (lifetime, expect, released) = (put.lifetime, put.expect, into.released);
    Ok(move |digest| SetNamed {
        name: name.clone(),
        digest,
        references: references.clone(),
        lifetime,
        expect,
        released,
    })
}

fn not_found(name: &str) -> Error {
    Error::NamedNotFound { name: name.to_owned() }
}

impl BlobStore {
    /// Sets a name to content in memory.
    pub(crate) fn put_named(&self, into: NamedIn, name: &str, content: &[u8], put: &PutNamed) -> Result<NamedWrite> {
        let set = set(into, name, put)?;
        if content.len() as u64 <= self.options.inline_max {
            return self.put_small_named(into, content, put.content, set);
        }
        if let Expect::Digest(digest) = put.content
            && self.is_there(into.domain, &digest)?
        {
            put.content.check(Digest::of(digest.algorithm(), content))?;
            if let Some(written) = self.set_to_stored(into, digest, &set)? {
                return Ok(written);
            }
        }
        self.put_large_named(into, Content::Parts(content, None), put.content, set)
    }

    /// Sets a name to what a reader yields.
    pub(crate) fn put_named_reader(
        &self,
        into: NamedIn,
        name: &str,
        reader: &mut dyn Read,
        put: &PutNamed,
    ) -> Result<NamedWrite> {
        let set = set(into, name, put)?;
        match self.read_head(reader)? {
            (head, None) => self.put_small_named(into, &head, put.content, set),
            // Also where the content is there: it might be gone when all of it has been read.
            (head, rest) => self.put_large_named(into, Content::Parts(&head, rest), put.content, set),
        }
    }

    fn put_small_named(
        &self,
        into: NamedIn,
        content: &[u8],
        expect: Expect,
        set: impl Fn(Digest) -> SetNamed,
    ) -> Result<NamedWrite> {
        let digest = expect.check(Digest::of(expect.algorithm(), content))?;
        if self.is_there(into.domain, &digest)?
            && let Some(written) = self.set_to_stored(into, digest, &set)?
        {
            return Ok(written);
        }
        let frame = frame_for(digest, content, self.options.compression);
        let then: Then = Some(Box::new(set(digest)));
        let outcome = self.commit_named(into, Request::PutFrame { frame, then })?;
        self.written(outcome)
    }

    fn put_large_named(
        &self,
        into: NamedIn,
        content: Content<'_>,
        expect: Expect,
        set: impl Fn(Digest) -> SetNamed,
    ) -> Result<NamedWrite> {
        let (_, outcome) = self.store_segment(into.durability, into.domain, content, expect, |descriptor, file| {
            let then: Then = Some(Box::new(set(descriptor.digest)));
            Request::PutSegment { descriptor, file, then }
        })?;
        self.written(outcome)
    }

    /// Whether a domain has content, undamaged.
    fn is_there(&self, domain: DomainId, digest: &Digest) -> Result<bool> {
        Ok(self.tables.snapshot_of(domain).blob(digest)?.is_some_and(|blob| !blob.damaged))
    }

    /// Sets a name to content that was there a moment ago; `None` where it has been collected since.
    fn set_to_stored(
        &self,
        into: NamedIn,
        digest: Digest,
        set: &impl Fn(Digest) -> SetNamed,
    ) -> Result<Option<NamedWrite>> {
        match self.commit_set(into, set(digest)) {
            // If it is another blob that is missing, that is found again.
            Err(Error::BlobNotFound { digest: missing }) if missing == digest => Ok(None),
            written => written.map(Some),
        }
    }

    /// Sets a name to the content of an upload, which ends with that.
    pub(crate) fn put_named_upload(
        &self,
        into: NamedIn,
        name: &str,
        id: UploadId,
        expect: Expect,
        put: &PutNamed,
    ) -> Result<NamedWrite> {
        let set = set(into, name, put)?;
        let outside = self.outside_in(into.durability, into.domain);
        let (_, outcome) = self.end_upload(id, expect, &IntoNamed { outside, set })?;
        self.written(outcome)
    }

    /// Sets a name to a blob that is there.
    pub(crate) fn set_named(&self, into: NamedIn, name: &str, digest: &Digest, put: &PutNamed) -> Result<NamedWrite> {
        let blob = self.tables.snapshot_of(into.domain).blob(digest)?.ok_or(Error::BlobNotFound { digest: *digest })?;
        self.check_undamaged(&blob)?;
        self.commit_set(into, set(into, name, put)?(*digest))
    }

    fn commit_set(&self, into: NamedIn, set: SetNamed) -> Result<NamedWrite> {
        let outcome = self.commit_named(into, Request::Apply(Box::new(set)))?;
        self.written(Outcome { existed: true, ..outcome })
    }

    fn commit_named(&self, at: NamedIn, request: Request) -> Result<Outcome> {
        self.log.commit_as(at.durability, at.domain, request)
    }

    fn written(&self, outcome: Outcome) -> Result<NamedWrite> {
        let invariant = "a write of a named file says what became of it";
        let NamedOutcome { file, replaced } = *outcome.named.ok_or(Error::Internal { invariant })?;
        Ok(NamedWrite { file: self.named_file(file), existed: outcome.existed, replaced, lsn: outcome.lsn })
    }

    fn named_file(&self, fact: NamedFact) -> NamedFile {
        let now = self.clock.now();
        NamedFile {
            name: fact.name,
            digest: fact.digest,
            len: fact.len,
            references: fact.references,
            created_ms: fact.created,
            modified_ms: fact.modified,
            expires: match fact.expires {
                Expiry::Never => Expires::Never,
                Expiry::OpenTime(time) => Expires::After(Duration::from_millis(time.saturating_sub(now.open))),
                Expiry::WallClock(time) => Expires::At(SystemTime::UNIX_EPOCH + Duration::from_millis(time)),
            },
            is_expired: fact.expires.is_due(now),
        }
    }

    fn find_named(snapshot: &Snapshot, name: &str) -> Result<Option<NamedFact>> {
        snapshot.decode(&Key::named(snapshot.domain, name), NamedFact::decode)
    }

    /// What is known of a named file.
    pub(crate) fn stat_named(&self, domain: DomainId, name: &str) -> Result<NamedFile> {
        self.stat_named_as_of(&self.tables.snapshot_of(domain), name)
    }

    /// What was known of a named file at a moment.
    pub(crate) fn stat_named_as_of(&self, moment: &Snapshot, name: &str) -> Result<NamedFile> {
        let fact = Self::find_named(moment, name)?;
        fact.map(|fact| self.named_file(fact)).ok_or_else(|| not_found(name))
    }

    /// A named file with its content.
    pub(crate) fn get_named(&self, domain: DomainId, name: &str) -> Result<NamedBlob> {
        let look = |snapshot: &Snapshot| {
            let named = Self::find_named(snapshot, name)?.ok_or_else(|| not_found(name))?;
            let missing = || miscounted(snapshot, &Key::named(domain, name), "reference: what it holds is missing");
            let fact = snapshot.blob(&named.digest)?.ok_or_else(missing)?;
            let digest = named.digest;
            Ok((named, digest, fact))
        };
        let (named, blob) = self.open_found(self.tables.snapshot_of(domain), look)?;
        Ok(NamedBlob { file: self.named_file(named), blob })
    }

    /// A page of the named files whose names begin with a prefix, in order.
    pub(crate) fn list_named(
        &self,
        domain: DomainId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<NamedFile, String>> {
        self.list_named_as_of(&self.tables.snapshot_of(domain), prefix, after, limit)
    }

    /// The same as of a moment.
    pub(crate) fn list_named_as_of(
        &self,
        snapshot: &Snapshot,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<NamedFile, String>> {
        let limit = limit.max(1);
        let names = snapshot.names(NamesOf::Named(snapshot.domain, prefix), after, limit)?;
        let (mut files, mut references) = (Vec::with_capacity(names.len()), 0);
        for (number, name) in names.iter().enumerate() {
            // The names may be of a later moment.
            if let Some(fact) = Self::find_named(snapshot, name)? {
                references += fact.references.len();
                files.push(self.named_file(fact));
            }
            if number + 1 == limit || references >= MAX_HELD {
                return Ok(Page::new(files, Some(name.clone())));
            }
        }
        Ok(Page::new(files, None))
    }

    /// Removes a named file.
    pub(crate) fn remove_named(&self, from: NamedIn, name: &str, expect: ExpectNamed) -> Result<Lsn> {
        let remove = RemoveNamed { name: name.to_owned(), expect, released: from.released };
        Ok(self.commit_named(from, Request::Apply(Box::new(remove)))?.lsn)
    }

    /// Removes those named files of several that there are.
    pub(crate) fn remove_several_named(&self, from: NamedIn, names: &[impl AsRef<str>]) -> Result<NamedRemoval> {
        let mut removal = NamedRemoval { removed: 0, lsn: self.tables.visible() };
        for names in names.chunks(REMOVED_AT_ONCE) {
            let mut names: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
            while !names.is_empty() {
                let remove = RemoveSeveral { names: names.clone(), only_expired: false, released: from.released };
                let outcome = self.commit_named(from, Request::Apply(Box::new(remove)))?;
                if outcome.applied > 0 {
                    removal = NamedRemoval { removed: removal.removed + outcome.applied as u64, lsn: outcome.lsn };
                }
                // They hold very much: the others go in the next commit.
                names = outcome.refused.first().map_or_else(Vec::new, |(part, _)| names.split_off(*part));
            }
        }
        self.log.reach(from.durability, removal.lsn)?;
        Ok(removal)
    }

    /// Removes all named files whose names begin with a prefix.
    pub(crate) fn remove_named_prefix(&self, from: NamedIn, prefix: &str) -> Result<NamedRemoval> {
        let mut removal = NamedRemoval { removed: 0, lsn: self.tables.visible() };
        let mut after: Option<String> = None;
        loop {
            let of = NamesOf::Named(from.domain, prefix);
            let names = self.tables.snapshot().names(of, after.as_deref(), REMOVED_AT_ONCE)?;
            let Some(last) = names.last() else { break };
            let these = self.remove_several_named(from, &names)?;
            if these.removed > 0 {
                removal = NamedRemoval { removed: removal.removed + these.removed, lsn: these.lsn };
            }
            after = Some(last.clone());
        }
        self.log.reach(from.durability, removal.lsn)?;
        Ok(removal)
    }
}
