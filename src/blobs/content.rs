//! Storing and reading blobs.

use std::io::Read;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::blobs::source::{SourceFile, open_source};
use crate::blobs::{Blob, BlobStore, Claimed, Destination, frame_for};
use crate::clock::StoreClock;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Lookup as _, Place};
use crate::files::NewFile;
use crate::id::{DomainId, FileId, Lsn};
use crate::log::Durability;
use crate::sealed::SealedFile;
use crate::segment::{Descriptor, SegmentWriter};
use crate::sync::lock;
use crate::tables::Snapshot;
use crate::thread;
use crate::transaction::{Outcome, Request};

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
    /// What the store knows of blobs, as of now.
    pub(crate) fn stat_many(&self, digests: &[Digest]) -> Result<Vec<Option<Stat>>> {
        self.stat_as_of(&self.tables.snapshot(), digests)
    }

    /// What the store knew of blobs as of a moment; `None` for those that it did not have.
    pub(crate) fn stat_as_of(&self, moment: &Snapshot, digests: &[Digest]) -> Result<Vec<Option<Stat>>> {
        let facts = moment.blobs(digests)?.into_iter().zip(digests);
        Ok(facts.map(|(fact, digest)| fact.map(|fact| Stat::new(*digest, &fact, &self.clock))).collect())
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
        match self.read_head(reader)? {
            (head, None) => self.put_small(&head, expect, into),
            (head, rest) => self.put_large(Content::Parts(&head, rest), expect, into),
        }
    }

    /// What a reader yields, and the reader itself where that is more than is stored in the log.
    pub(super) fn read_head<'r>(&self, reader: &'r mut dyn Read) -> Result<(Vec<u8>, Option<&'r mut dyn Read>)> {
        let (mut head, inline_max) = (Vec::new(), self.options.inline_max);
        (&mut *reader).take(inline_max + 1).read_to_end(&mut head).map_err(source_failed)?;
        let is_more = head.len() as u64 > inline_max;
        Ok((head, is_more.then_some(reader)))
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

    /// Stores contents in memory. Those that ride in the log are written and synced together; long ones come before
    /// them, so that no claim has grown old when all is answered.
    pub(crate) fn put_many(&self, contents: &[(&[u8], Expect)], into: &dyn Destination) -> Result<Vec<Result<Stored>>> {
        let mut placed = Vec::with_capacity(contents.len());
        for (content, expect) in contents {
            let digest = expect.check(Digest::of(expect.algorithm(), content));
            placed.push(digest.and_then(|digest| {
                if content.len() as u64 <= self.options.inline_max {
                    return Ok((digest, None));
                }
                let stored = self.put_large(Content::Parts(content, None), digest.into(), into)?;
                Ok((digest, Some((stored.existed, stored.lsn))))
            }));
        }
        let asked: Vec<Digest> =
            placed.iter().flatten().filter(|(_, found)| found.is_none()).map(|(digest, _)| *digest).collect();
        let mut claimed = into.claim_many(&asked)?.into_iter();
        let mut requests = Vec::new();
        for ((content, _), placed) in contents.iter().zip(&mut placed) {
            let Ok((digest, found @ None)) = placed else { continue };
            match claimed.next().map_or(Ok(None), Claimed::lsn_of) {
                Ok(Some(lsn)) => *found = Some((true, lsn)),
                Ok(None) => {
                    let frame = frame_for(*digest, content, self.options.compression);
                    requests.push(Request::PutFrame { frame, then: into.then(digest) });
                }
                Err(error) => *placed = Err(error),
            }
        }
        let mut outcomes = self.log.commit_all(into.durability(), into.domain(), requests)?.into_iter();
        let mut outcome = || {
            let missing = Error::Internal { invariant: "each request of a batch has its outcome" };
            outcomes.next().unwrap_or(Err(missing)).map(|outcome| (into.existed(&outcome), outcome.lsn))
        };
        let mut stored = Vec::with_capacity(contents.len());
        for ((content, _), placed) in contents.iter().zip(placed) {
            stored.push(placed.and_then(|(digest, found)| {
                let (existed, lsn) = found.map_or_else(&mut outcome, Ok)?;
                Ok(Stored { digest, len: content.len() as u64, existed, lsn })
            }));
        }
        Ok(stored)
    }

    /// Opens a blob of a domain.
    pub(crate) fn get(&self, domain: DomainId, digest: &Digest) -> Result<Blob> {
        self.get_as_of(self.tables.snapshot_of(domain), digest)
    }

    /// Opens a blob that there was at a moment. If its file is gone since, it is where it has been moved to.
    pub(crate) fn get_as_of(&self, moment: Snapshot, digest: &Digest) -> Result<Blob> {
        let look = |snapshot: &Snapshot| {
            let fact = snapshot.blob(digest)?.ok_or(Error::BlobNotFound { digest: *digest })?;
            Ok(((), *digest, fact))
        };
        Ok(self.open_found(moment, look)?.1)
    }

    /// Opens the blob that `look` finds, as of a moment or, where its file is gone since, as of a later one, with what
    /// else it finds.
    pub(crate) fn open_found<T>(
        &self,
        mut moment: Snapshot,
        look: impl Fn(&Snapshot) -> Result<(T, Digest, BlobFact)>,
    ) -> Result<(T, Blob)> {
        let (domain, mut before) = (moment.domain, None);
        loop {
            let (found, digest, fact) = look(&moment)?;
            match self.open_at(&fact.place) {
                Ok(file) => {
                    file.prefetch(fact.place.offset);
                    return Ok((found, Blob::new(digest, fact, file, &*self.contents, domain)?));
                }
                // The blob may have been removed, or moved, between the two look-ups. If it was not, the file is lost.
                Err(error) if is_gone(&error) && before != Some(fact.place) => {
                    before = Some(fact.place);
                    self.tables.catch_up();
                    moment = self.tables.snapshot_of(domain);
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
            && let Some(mut lsn) = Claimed::lsn_of(into.claim(&digest))?
        {
            // However slowly the content comes, the grace period is that of the answer. Where somebody removes the
            // blob, or finds it damaged, meanwhile, that was after this write.
            let claim = || {
                lsn = Claimed::lsn_of(into.claim(&digest))?.unwrap_or(lsn);
                Ok(())
            };
            let len = check_all(content, expect, claim)?;
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

/// Reads content that is not stored, compares its digest with the one expected, and returns its length. `claim` is
/// called with each piece, and in the end.
pub(super) fn check_all(content: Content<'_>, expect: Expect, mut claim: impl FnMut() -> Result<()>) -> Result<u64> {
    let mut len = 0;
    let count = |piece: Piece<'_>| {
        len += piece.len() as u64;
        claim()
    };
    expect.check(hash(content, expect.algorithm(), count)?)?;
    claim()?;
    Ok(len)
}

/// A reader's error: of one that found that there is too much content, that; else one of the source.
pub(crate) fn source_failed(error: std::io::Error) -> Error {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(Error::ContentTooLong { limit }) => Error::ContentTooLong { limit: *limit },
        _ => Error::Source { source: Arc::new(error) },
    }
}

/// Whether a file is not what facts say, since it was removed, or cut by another process.
pub(super) fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Corrupt { damage: Damage::Missing | Damage::Truncated, .. })
}
