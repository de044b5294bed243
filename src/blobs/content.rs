//! Storing and reading blobs.

use std::io::Read;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::blobs::source::{SourceFile, open_source};
use crate::blobs::{Blob, BlobStore, frame_for};
use crate::clock::StoreClock;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::envelope::Purpose;
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Family, Key, LinkFact, Lookup, Place, successor};
use crate::files::NewFile;
use crate::id::{DomainId, FileId, Lsn, RepositoryId};
use crate::log::Durability;
use crate::sealed::SealedFile;
use crate::segment::{DESCRIPTOR_LEN, Descriptor, SegmentWriter};
use crate::sync::lock;
use crate::tables::Snapshot;
use crate::thread;
use crate::transaction::{Outcome, Request, Then};

/// The most blobs whose grace period begins anew in one commit: other commits wait for it.
const TOUCHED_AT_ONCE: usize = 256;

/// How much of long content is hashed and written at a time.
const PIECE: usize = 1 << 20;

/// Files share their content in multiples of this. Where blocks are larger, it is copied.
const SHARED: u64 = 4096;

/// The digest that content to be stored must have, or the algorithm of its digest.
///
/// Made from a [`Digest`], which the content must have, or from an [`Algorithm`], with which its digest is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The content has this digest.
    Digest(Digest),
    /// The content's digest is computed with this algorithm.
    Algorithm(Algorithm),
}

impl From<Digest> for Expect {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl From<&Digest> for Expect {
    fn from(digest: &Digest) -> Self {
        Self::Digest(*digest)
    }
}

impl From<Algorithm> for Expect {
    fn from(algorithm: Algorithm) -> Self {
        Self::Algorithm(algorithm)
    }
}

impl Expect {
    pub(crate) fn algorithm(self) -> Algorithm {
        match self {
            Self::Digest(digest) => digest.algorithm(),
            Self::Algorithm(algorithm) => algorithm,
        }
    }

    /// Compares content's digest with the one expected.
    pub(crate) fn check(self, found: Digest) -> Result<Digest> {
        match self {
            Self::Digest(expected) if expected != found => Err(Error::DigestMismatch { expected, found }),
            _ => Ok(found),
        }
    }
}

/// Where content is stored: in a repository, or outside of repositories.
pub(crate) trait Destination: Sync {
    /// The domain that the content belongs to from then on.
    fn domain(&self) -> DomainId;

    /// When writes return.
    fn durability(&self) -> Durability;

    /// Finds blobs, each as of one moment, undamaged, and begins their grace period anew.
    fn claim_many(&self, digests: &[Digest]) -> Result<Vec<Result<Claimed>>>;

    /// Finds one.
    fn claim(&self, digest: &Digest) -> Result<Claimed> {
        self.claim_many(&[*digest])?.pop().unwrap_or(Err(Error::BlobNotFound { digest: *digest }))
    }

    /// Makes the commit fail where the repository no longer exists.
    fn exists(&self) -> Then;

    /// What the commit that stores a blob does besides.
    fn then(&self, digest: &Digest) -> Then;

    /// Whether the content was there before a commit that stores it, as far as a caller may know.
    fn existed(&self, outcome: &Outcome) -> bool;

    /// The repository whose uploads are meant, which is still there; none: those of the store.
    fn repository(&self) -> Result<Option<RepositoryId>>;
}

/// Outside of repositories.
#[derive(Clone, Copy)]
pub(crate) struct Outside<'a> {
    store: &'a BlobStore,
    durability: Durability,
    domain: DomainId,
}

impl Destination for Outside<'_> {
    fn domain(&self) -> DomainId {
        self.domain
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn claim_many(&self, digests: &[Digest]) -> Result<Vec<Result<Claimed>>> {
        let (store, snapshot) = (self.store, self.store.tables.snapshot_of(self.domain));
        let (retention, now) = (store.options.retention, store.clock.open_time());
        let look = |digest: &Digest| {
            let blob = snapshot.blob(digest)?.ok_or(Error::BlobNotFound { digest: *digest })?;
            Ok((blob, None, blob.is_stale(retention, now)))
        };
        let touch = |stale| store.log.commit_as(self.durability, self.domain, Request::Touch(stale));
        store.claim_each(digests, self.durability, snapshot.lsn, look, touch)
    }

    fn exists(&self) -> Then {
        None
    }

    fn then(&self, _: &Digest) -> Then {
        None
    }

    fn existed(&self, outcome: &Outcome) -> bool {
        outcome.existed
    }

    fn repository(&self) -> Result<Option<RepositoryId>> {
        Ok(None)
    }
}

/// A blob that a caller relies on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed {
    pub(crate) blob: BlobFact,
    /// That a repository has it; none outside of repositories.
    pub(crate) link: Option<LinkFact>,
    /// A commit as of which it is there for as long as the grace period lasts, as durable as the caller's writes.
    pub(crate) lsn: Lsn,
}

impl Claimed {
    /// The commit as of which a blob is there; `None` where it has to be stored.
    pub(super) fn lsn_of(claimed: Result<Self>) -> Result<Option<Lsn>> {
        match claimed {
            Err(Error::BlobNotFound { .. } | Error::Corrupt { damage: Damage::Known, .. }) => Ok(None),
            other => Ok(Some(other?.lsn)),
        }
    }
}

/// What a write that stores content came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// The content's digest.
    pub digest: Digest,
    /// The content's length in bytes.
    pub len: u64,
    /// Whether it was there already, where it was stored: in the repository, or in the store. That another repository
    /// has it is not told.
    pub existed: bool,
    /// The position of a commit as of which it is there.
    pub lsn: Lsn,
}

impl From<Stored> for Digest {
    fn from(stored: Stored) -> Self {
        stored.digest
    }
}

/// What the store knows of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub len: u64,
    /// How many bytes its content takes on disk, without checksums.
    pub stored_len: u64,
    /// How many named files, repositories and manifests hold it.
    pub references: u32,
    /// Whether its content is known to be damaged: storing the same content again repairs it.
    pub damaged: bool,
    /// When its content was stored, by the wall clock, in milliseconds since 1970, to the second.
    pub stored_ms: u64,
    /// How long ago, in open time, a caller last relied on it outside of repositories: stored or
    /// [claimed](crate::Store::claim) it. `None`: no caller ever did. Noted to an eighth of
    /// [`Options::retention`](crate::Options::retention).
    pub relied_on: Option<Duration>,
}

impl Stat {
    pub(crate) fn new(digest: Digest, fact: &BlobFact, clock: &StoreClock) -> Self {
        let (len, stored_len, references, damaged) = (fact.len, fact.place.stored_len, fact.count, fact.damaged);
        let relied_on = (fact.touched > 0).then(|| clock.since(fact.touched));
        Self { digest, len, stored_len, references, damaged, stored_ms: fact.stored.milliseconds(), relied_on }
    }
}

impl BlobStore {
    /// What is outside of repositories, in the default domain.
    pub(crate) fn outside(&self, durability: Durability) -> Outside<'_> {
        self.outside_in(durability, DomainId::DEFAULT)
    }

    /// What is outside of repositories, in a domain.
    pub(crate) fn outside_in(&self, durability: Durability, domain: DomainId) -> Outside<'_> {
        Outside { store: self, durability, domain }
    }

    /// What the store knows of a blob.
    pub(crate) fn stat(&self, digest: &Digest) -> Result<Stat> {
        Ok(Stat::new(*digest, &self.find(digest)?, &self.clock))
    }

    /// What the store knows of blobs, as of one moment; `None` for those that it does not have.
    pub(crate) fn stat_many(&self, digests: &[Digest]) -> Result<Vec<Option<Stat>>> {
        let snapshot = self.tables.snapshot();
        digests
            .iter()
            .map(|digest| Ok(snapshot.blob(digest)?.map(|fact| Stat::new(*digest, &fact, &self.clock))))
            .collect()
    }

    /// The same, for a caller that relies on them.
    pub(crate) fn claim_many(&self, digests: &[Digest], durability: Durability) -> Result<Vec<Result<Stat>>> {
        let claimed = self.outside(durability).claim_many(digests)?;
        let stat = |(digest, claimed): (&Digest, Result<Claimed>)| Ok(Stat::new(*digest, &claimed?.blob, &self.clock));
        Ok(digests.iter().zip(claimed).map(stat).collect())
    }

    /// Claims blobs: `look` finds each as of one moment, and says whether the grace period has to begin anew, which
    /// `touch` then does for all of those in one commit.
    pub(crate) fn claim_each(
        &self,
        digests: &[Digest],
        durability: Durability,
        as_of: Lsn,
        look: impl Fn(&Digest) -> Result<(BlobFact, Option<LinkFact>, bool)>,
        touch: impl Fn(Vec<Digest>) -> Result<Outcome>,
    ) -> Result<Vec<Result<Claimed>>> {
        let (mut found, mut stale) = (Vec::with_capacity(digests.len()), Vec::new());
        for digest in digests {
            let claimed = look(digest).and_then(|(blob, link, is_stale)| {
                self.check_undamaged(&blob)?;
                if is_stale {
                    stale.push((found.len(), *digest));
                }
                Ok(Claimed { blob, link, lsn: as_of })
            });
            found.push(claimed);
        }
        for stale in stale.chunks(TOUCHED_AT_ONCE) {
            let touched = touch(stale.iter().map(|(_, digest)| *digest).collect())?;
            for (part, digest) in stale {
                let gone = |refused: &&(usize, Error)| stale.get(refused.0).is_some_and(|(_, gone)| gone == digest);
                let gone = touched.refused.iter().find(gone).map(|(_, gone)| gone.clone());
                if let Some(slot) = found.get_mut(*part) {
                    let claimed = slot.clone().map(|claimed| Claimed { lsn: touched.lsn, ..claimed });
                    *slot = gone.map_or(claimed, Err);
                }
            }
        }
        self.log.reach(durability, as_of)?;
        Ok(found)
    }

    fn find(&self, digest: &Digest) -> Result<BlobFact> {
        self.tables.snapshot().blob(digest)?.ok_or(Error::BlobNotFound { digest: *digest })
    }

    /// All blobs outside of domains of their own, as of a moment.
    pub(crate) fn list(self: &Arc<Self>, snapshot: Snapshot) -> Blobs {
        Blobs { store: Arc::clone(self), snapshot, from: Some([0; 32]), batch: Vec::new().into_iter() }
    }

    /// Fails where a blob is known to be damaged.
    pub(crate) fn check_undamaged(&self, blob: &BlobFact) -> Result<()> {
        if !blob.damaged {
            return Ok(());
        }
        let path = self.contents.path(blob.place.file);
        Err(Error::corrupt(&path, blob.place.offset, Damage::Known))
    }

    /// Stores content in memory.
    pub(crate) fn put(&self, content: &[u8], expect: Expect, into: &dyn Destination) -> Result<Stored> {
        if content.len() as u64 <= self.options.inline_max {
            return self.put_small(content, expect, into);
        }
        self.put_large(Content::Parts(content, None), expect, into)
    }

    /// Stores what a reader yields.
    pub(crate) fn put_reader(&self, reader: &mut dyn Read, expect: Expect, into: &dyn Destination) -> Result<Stored> {
        let mut head = Vec::new();
        let inline_max = self.options.inline_max;
        reader.take(inline_max + 1).read_to_end(&mut head).map_err(source_failed)?;
        if head.len() as u64 <= inline_max {
            return self.put_small(&head, expect, into);
        }
        self.put_large(Content::Parts(&head, Some(reader)), expect, into)
    }

    /// Stores the content of a file.
    pub(crate) fn put_file(&self, file: SourceFile<'_>, expect: Expect, into: &dyn Destination) -> Result<Stored> {
        if file.len <= self.options.inline_max {
            return self.put_reader(&mut file.from(0), expect, into);
        }
        self.put_large(Content::File(file), expect, into)
    }

    /// Stores the content of the file at a path.
    pub(crate) fn put_path(&self, path: &Path, expect: Expect, into: &dyn Destination) -> Result<Stored> {
        let (file, len) = open_source(path)?;
        self.put_file(SourceFile { file: &file, len, watch: &|_| Ok(()) }, expect, into)
    }

    /// [`put_many`](Self::put_many) for callers with whatever they have.
    pub(crate) fn put_all<C: AsRef<[u8]>, E: Into<Expect>>(
        &self,
        contents: impl IntoIterator<Item = (C, E)>,
        into: &dyn Destination,
    ) -> Result<Vec<Result<Stored>>> {
        let contents: Vec<(C, Expect)> =
            contents.into_iter().map(|(content, expect)| (content, expect.into())).collect();
        let borrowed: Vec<_> = contents.iter().map(|(content, expect)| (content.as_ref(), *expect)).collect();
        self.put_many(&borrowed, into)
    }

    /// Stores contents in memory. Those that ride in the log are written and synced together.
    pub(crate) fn put_many(&self, contents: &[(&[u8], Expect)], into: &dyn Destination) -> Result<Vec<Result<Stored>>> {
        let digest = |(content, expect): &(&[u8], Expect)| expect.check(Digest::of(expect.algorithm(), content));
        let digests: Vec<Result<Digest>> = contents.iter().map(digest).collect();
        let asked: Vec<Digest> = digests.iter().flatten().copied().collect();
        let mut claimed = into.claim_many(&asked)?.into_iter();
        let (mut stored, mut riding, mut requests) = (Vec::with_capacity(contents.len()), Vec::new(), Vec::new());
        for ((content, _), digest) in contents.iter().zip(digests) {
            let place = stored.len();
            let one = digest.and_then(|digest| {
                let (len, existed) = (content.len() as u64, true);
                let claimed = claimed.next().unwrap_or(Err(Error::BlobNotFound { digest }));
                if let Some(lsn) = Claimed::lsn_of(claimed)? {
                    return Ok(Stored { digest, len, existed, lsn });
                }
                if len > self.options.inline_max {
                    return self.put_large(Content::Parts(content, None), digest.into(), into);
                }
                let frame = frame_for(digest, content, self.options.compression);
                requests.push(Request::PutFrame { frame, then: into.then(&digest) });
                riding.push(place);
                Ok(Stored { digest, len, existed, lsn: Lsn::ZERO })
            });
            stored.push(one);
        }
        let outcomes = self.log.commit_all(into.durability(), into.domain(), requests)?;
        for (place, outcome) in riding.into_iter().zip(outcomes) {
            if let Some(slot) = stored.get_mut(place) {
                let told =
                    |stored, outcome: Outcome| Stored { existed: into.existed(&outcome), lsn: outcome.lsn, ..stored };
                *slot = slot.clone().and_then(|stored| Ok(told(stored, outcome?)));
            }
        }
        Ok(stored)
    }

    /// Opens a blob of a domain.
    pub(crate) fn get(&self, domain: DomainId, digest: &Digest) -> Result<Blob> {
        let look = |snapshot: &Snapshot| {
            let fact = snapshot.blob(digest)?.ok_or(Error::BlobNotFound { digest: *digest })?;
            Ok(((), *digest, fact))
        };
        Ok(self.open_found(domain, look)?.1)
    }

    /// Opens the blob of a domain that `look` finds, as of one moment, with what else it finds.
    pub(super) fn open_found<T>(
        &self,
        domain: DomainId,
        look: impl Fn(&Snapshot) -> Result<(T, Digest, BlobFact)>,
    ) -> Result<(T, Blob)> {
        let mut before = None;
        loop {
            let (found, digest, fact) = look(&self.tables.snapshot_of(domain))?;
            match self.open_at(&fact.place) {
                Ok(file) => return Ok((found, Blob::new(digest, fact, file, &self.contents.keys(), domain)?)),
                // The blob may have been removed, or moved, between the two look-ups. If it was not, the file is lost.
                Err(error) if is_gone(&error) && before != Some(fact.place) => {
                    before = Some(fact.place);
                    self.tables.catch_up();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The file that a frame lies in. Where another process writes the store, it may have been cut before that.
    fn open_at(&self, place: &Place) -> Result<Arc<SealedFile>> {
        let file = self.contents.open(place)?;
        if self.tables.is_following() && !file.is_mapped() && place.stored_len > 0 {
            file.read(place.offset + place.stored_len - 1, 1)?;
        }
        Ok(file)
    }

    /// Stores content in the log.
    fn put_small(&self, content: &[u8], expect: Expect, into: &dyn Destination) -> Result<Stored> {
        let (digest, len) = (expect.check(Digest::of(expect.algorithm(), content))?, content.len() as u64);
        if let Some(lsn) = Claimed::lsn_of(into.claim(&digest))? {
            return Ok(Stored { digest, len, existed: true, lsn });
        }
        let frame = frame_for(digest, content, self.options.compression);
        let request = Request::PutFrame { frame, then: into.then(&digest) };
        let outcome = self.log.commit_as(into.durability(), into.domain(), request)?;
        Ok(Stored { digest, len, existed: into.existed(&outcome), lsn: outcome.lsn })
    }

    /// Stores content in a segment of its own.
    fn put_large(&self, content: Content<'_>, expect: Expect, into: &dyn Destination) -> Result<Stored> {
        if let Expect::Digest(digest) = expect
            && let Some(lsn) = Claimed::lsn_of(into.claim(&digest))?
        {
            let len = check_all(content, expect)?;
            return Ok(Stored { digest, len, existed: true, lsn });
        }
        let (durability, domain) = (into.durability(), into.domain());
        let (descriptor, outcome) = self.store_segment(durability, domain, content, expect, |descriptor, file| {
            let then = into.then(&descriptor.digest);
            Request::PutSegment { descriptor, file, then }
        })?;
        let (Descriptor { digest, len, .. }, lsn) = (descriptor, outcome.lsn);
        Ok(Stored { digest, len, existed: into.existed(&outcome), lsn })
    }

    /// Writes content to a segment of its own, which a request then makes known. Where that does not need it, or fails,
    /// the segment is gone.
    pub(crate) fn store_segment(
        &self,
        durability: Durability,
        domain: DomainId,
        content: Content<'_>,
        expect: Expect,
        request: impl FnOnce(Descriptor, FileId) -> Request,
    ) -> Result<(Descriptor, Outcome)> {
        self.log.admit()?;
        let file = self.begin_file();
        let descriptor = self.write_segment(&file, domain, content, expect)?;
        match self.log.commit_as(durability, domain, request(descriptor, file.id())) {
            Ok(outcome) => {
                if outcome.existed {
                    drop(file);
                } else {
                    self.log.publish(file, outcome.lsn)?;
                }
                Ok((descriptor, outcome))
            }
            Err(error) => {
                self.log.give_up(file);
                Err(error)
            }
        }
    }

    /// Writes a segment, durably. Hashing runs beside writing, unless the options allow no thread or none can be
    /// started. The content of a file is shared with it where the file system can: it is read once, and not written.
    fn write_segment(
        &self,
        file: &NewFile,
        domain: DomainId,
        content: Content<'_>,
        expect: Expect,
    ) -> Result<Descriptor> {
        let algorithm = expect.algorithm();
        let begun = Mutex::new(match content {
            Content::Parts(..) => None,
            Content::File(source) => {
                let mut writer = self.create_segment(file, domain)?;
                let mut hasher = Hasher::new(algorithm);
                let hash = |piece: &[u8]| {
                    hasher.update(piece);
                    (source.watch)(piece.len()).map_err(source_failed)
                };
                if writer.share(source.file, source.len - source.len % SHARED, hash)? {
                    let mut rest = source.from(writer.len());
                    hash_into(&mut hasher, Content::Parts(&[], Some(&mut rest)), |piece| writer.append(&piece))?;
                    return self.seal(writer, expect.check(hasher.finish())?);
                }
                Some(writer)
            }
        });
        let (writer, digest) = std::thread::scope(|scope| {
            let (sender, receiver): (SyncSender<Piece<'_>>, Receiver<Piece<'_>>) = sync_channel(4);
            let begin = || lock(&begun).take().map_or_else(|| self.create_segment(file, domain), Ok);
            let write = move || {
                let mut writer = begin()?;
                receiver.into_iter().try_for_each(|piece| writer.append(&piece))?;
                Ok(writer)
            };
            let start = || thread::spawn_scoped(scope, "strongroom-write", write).ok();
            let Some(writing) = (!self.upkeep.is_inline()).then(start).flatten() else {
                let mut writer = begin()?;
                let digest = hash(content, algorithm, |piece| writer.append(&piece))?;
                return Ok((writer, digest));
            };
            // A send fails once the writer has: its own error is the one to report.
            let hashed = hash(content, algorithm, |piece| {
                let gone = || Error::Source { source: Arc::new(std::io::ErrorKind::BrokenPipe.into()) };
                sender.send(piece).map_err(|_| gone())
            });
            drop(sender);
            let writer = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok::<_, Error>((writer, hashed?))
        })?;
        self.seal(writer, expect.check(digest)?)
    }

    fn seal(&self, mut writer: SegmentWriter, digest: Digest) -> Result<Descriptor> {
        let descriptor = writer.seal(digest)?;
        writer.sync().map_err(|error| self.contents.poison(error))?;
        Ok(descriptor)
    }

    /// Begins a file, under an id that none has or had.
    pub(super) fn begin_file(&self) -> NewFile {
        NewFile::begin(Arc::clone(&self.contents))
    }

    /// Creates a segment's file for content of a domain, and makes its name durable.
    pub(super) fn create_segment(&self, file: &NewFile, domain: DomainId) -> Result<SegmentWriter> {
        SegmentWriter::begin(self.contents.create(file.id())?, file.id(), &self.contents.keys(), domain)
    }
}

/// Content to be stored.
pub(crate) enum Content<'a> {
    /// What is in memory, and then what a reader yields.
    Parts(&'a [u8], Option<&'a mut dyn Read>),
    /// A file.
    File(SourceFile<'a>),
}

/// A piece of content on its way to the writer.
enum Piece<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl std::ops::Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(piece) => piece,
            Self::Owned(piece) => piece,
        }
    }
}

/// Hashes content piece by piece, after handing each piece on.
fn hash<'a>(
    content: Content<'a>,
    algorithm: Algorithm,
    hand_on: impl FnMut(Piece<'a>) -> Result<()>,
) -> Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    hash_into(&mut hasher, content, hand_on)?;
    Ok(hasher.finish())
}

fn hash_into<'a>(
    hasher: &mut Hasher,
    content: Content<'a>,
    mut hand_on: impl FnMut(Piece<'a>) -> Result<()>,
) -> Result<()> {
    let mut file;
    let (head, rest): (_, Option<&mut dyn Read>) = match content {
        Content::Parts(head, rest) => (head, rest),
        Content::File(source) => {
            file = source.from(0);
            (&[][..], Some(&mut file))
        }
    };
    for piece in head.chunks(PIECE) {
        hand_on(Piece::Borrowed(piece))?;
        hasher.update(piece);
    }
    if let Some(rest) = rest {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            rest.take(PIECE as u64).read_to_end(&mut piece).map_err(source_failed)?;
            if piece.is_empty() {
                break;
            }
            let piece = Bytes::from(piece);
            hand_on(Piece::Owned(piece.clone()))?;
            hasher.update(&piece);
        }
    }
    Ok(())
}

/// Reads content that is not stored, compares its digest with the one expected, and returns its length.
pub(super) fn check_all(content: Content<'_>, expect: Expect) -> Result<u64> {
    let mut len = 0;
    let count = |piece: Piece<'_>| {
        len += piece.len() as u64;
        Ok(())
    };
    expect.check(hash(content, expect.algorithm(), count)?)?;
    Ok(len)
}

/// A reader's error: of one that found that there is too much content, that; else one of the source.
pub(crate) fn source_failed(error: std::io::Error) -> Error {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(Error::ContentTooLong { limit }) => Error::ContentTooLong { limit: *limit },
        _ => Error::Source { source: Arc::new(error) },
    }
}

/// An iterator over all blobs. See [`Store::blobs`](crate::Store::blobs).
#[derive(Debug)]
pub struct Blobs {
    store: Arc<BlobStore>,
    snapshot: Snapshot,
    /// The key from which the next batch begins; none after the last.
    from: Option<[u8; 32]>,
    batch: std::vec::IntoIter<Result<Stat>>,
}

impl Blobs {
    /// Each batch begins with a look through all facts that no run has.
    const BATCH: usize = 16 << 10;

    fn next_batch(&mut self, from: [u8; 32]) -> Result<Vec<Result<Stat>>> {
        let (mut batch, mut count) = (Vec::new(), 0);
        let mut last = None;
        for fact in self.snapshot.facts(Family::Blob, from)?.take(Self::BATCH) {
            let (key, value) = fact?;
            last = Some(key.bytes);
            let stat = self.snapshot.decoded(&key, BlobFact::decode(value.as_bytes())).and_then(|fact| {
                let digest = self.store.digest_since(&key, &fact)?;
                Ok(digest.map(|digest| Stat::new(digest, &fact, &self.store.clock)))
            });
            batch.extend(stat.transpose());
            count += 1;
        }
        self.from = last.filter(|_| count == Self::BATCH).and_then(successor);
        Ok(batch)
    }
}

impl Iterator for Blobs {
    type Item = Result<Stat>;

    fn next(&mut self) -> Option<Result<Stat>> {
        loop {
            if let Some(stat) = self.batch.next() {
                return Some(stat);
            }
            match self.from.take().map(|from| self.next_batch(from))? {
                Ok(batch) => self.batch = batch.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl BlobStore {
    /// The digest of a blob whose key and fact are known: the key itself, or what the frame says where the key is only
    /// a hash of the digest.
    pub(crate) fn digest_of(&self, key: &Key, fact: &BlobFact) -> Result<Digest> {
        match digest_in(key, fact) {
            Some(digest) => Ok(digest),
            None => Ok(self.descriptor_in(&*self.contents.open(&fact.place)?, key, fact)?.digest),
        }
    }

    /// The digest of a blob that was there as of some snapshot, wherever it lies now. `None` where it is gone since,
    /// and only its frame could tell.
    pub(crate) fn digest_since(&self, key: &Key, fact: &BlobFact) -> Result<Option<Digest>> {
        let mut fact = *fact;
        loop {
            let error = match self.digest_of(key, &fact) {
                Err(error) if is_gone(&error) => error,
                other => return other.map(Some),
            };
            self.tables.catch_up();
            match self.tables.snapshot_of(key.domain).blob_by_key(key)? {
                Some(now) if now.place != fact.place => fact = now,
                Some(_) => return Err(error),
                None => return Ok(None),
            }
        }
    }

    /// The descriptor of the frame that a blob lies in, in this file.
    pub(crate) fn descriptor_in(&self, file: &SealedFile, key: &Key, fact: &BlobFact) -> Result<Descriptor> {
        let at = fact.place.offset - DESCRIPTOR_LEN;
        let bytes = file.read(at, 128)?;
        let keys = self.contents.keys();
        let envelope = file.envelope();
        let sealing =
            envelope.and_then(|envelope| envelope.opening(&keys, key.domain, fact.place.key, Purpose::Content));
        let prefix = (fact.place.crc == 0).then_some(fact.place.offset); // in a log file
        let descriptor = Descriptor::read(&bytes, sealing.as_ref(), prefix);
        let descriptor = descriptor.filter(|descriptor| Key::blob(key.domain, &descriptor.digest) == *key);
        descriptor.ok_or_else(|| Error::corrupt(file.path(), at, Damage::Invalid("frame descriptor")))
    }
}

/// Whether a file is not what facts say, since it was removed, or cut by another process.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Corrupt { damage: Damage::Missing | Damage::Truncated, .. })
}

/// The digest of a blob, where its key is the digest.
pub(crate) fn digest_in(key: &Key, fact: &BlobFact) -> Option<Digest> {
    match fact.algorithm {
        Algorithm::Sha512 => None,
        algorithm => Digest::from_bytes(algorithm, &key.bytes),
    }
}
