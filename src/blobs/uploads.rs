//! Resumable uploads.
//!
//! An upload is a fact and, from its first byte on, a segment that nothing refers to yet. Each appended piece is synced
//! in the segment, then a commit moves the fact on: the new offset, the hash's state, the checksums of the blocks that
//! became whole. So an upload survives a restart, a crash included, and goes on without reading again what it has.
//! Committing it publishes the segment as a blob, or moves short content into the log like any other.
//!
//! # Invariant kept here
//! One call at a time writes to an upload's segment: it takes the upload's [`Slot`], and its [`Lease`] gives that back.
//! What a failed call wrote lies behind the offset of the fact, and the memory of it goes with the lease: the next call
//! starts from the facts. So it does where the slot was taken away meanwhile, because the upload is gone.

mod appending;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Read;
use std::ops::Deref;
use std::time::Duration;

pub(crate) use appending::Appending;

use crate::blobs::content::{Destination, Expect, source_failed};
use crate::blobs::frame_for;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use crate::facts::{Family, Key, PART_BLOCKS, UploadFact};
use crate::id::{DomainId, FileId, RepositoryId, UploadId};
use crate::random::random;
use crate::segment::{Descriptor, Progress, SegmentWriter};
use crate::store::{Inner, Store};
use crate::sync::lock;
use crate::tables::view::{Lookup, decoded};
use crate::transaction::Request;
use crate::wire::len64;

/// How much of a reader's content is written at a time.
const PIECE: usize = 1 << 20;

/// Where an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadStatus {
    /// The upload's id.
    pub id: UploadId,
    /// How many bytes are durable: where the next piece has to begin.
    pub offset: u64,
    /// The digest algorithm declared.
    pub algorithm: Algorithm,
    /// When it was begun, by the wall clock, in milliseconds since 1970.
    pub created_ms: u64,
    /// For how much of the store's open time nothing was added.
    pub idle: Duration,
}

/// Uploads that this opening has appended to.
pub(crate) type Slots = HashMap<UploadId, Slot>;

/// What is in memory of an upload.
#[derive(Debug)]
pub(crate) enum Slot {
    /// A call is at work on it, and has what there was.
    InUse,
    /// What the next call goes on with.
    Idle(Box<Session>),
}

/// An upload with its segment open, as its facts say it stands.
#[derive(Debug)]
pub(crate) struct Session {
    domain: DomainId,
    /// The state on disk.
    fact: UploadFact,
    /// None before the first byte.
    writer: Option<SegmentWriter>,
    /// None where the state was lost in a restart and can't be saved: the content is read again in the end.
    hasher: Option<Hasher>,
    /// The segment, until a fact names it.
    unpublished: Option<FileId>,
}

/// The right to work on an upload. Gives the slot back, also if the caller's reader panics.
struct Lease<I: Deref<Target = Inner>> {
    inner: I,
    id: UploadId,
    /// What the next call can go on with.
    session: Option<Box<Session>>,
}

impl<I: Deref<Target = Inner>> Lease<I> {
    /// Takes an upload that no other call is at work on.
    fn take(inner: I, domain: DomainId, id: UploadId) -> Result<(Self, Box<Session>)> {
        inner.settle()?;
        let held = match lock(&inner.uploads).entry(id) {
            Entry::Vacant(vacant) => {
                vacant.insert(Slot::InUse);
                None
            }
            Entry::Occupied(mut slot) => match slot.insert(Slot::InUse) {
                Slot::Idle(session) => Some(session),
                Slot::InUse => return Err(Error::UploadBusy { id }),
            },
        };
        let lease = Self { inner, id, session: None };
        let session = match held {
            Some(session) => session,
            None => Box::new(lease.inner.load_session(domain, id)?),
        };
        Ok((lease, session))
    }
}

impl<I: Deref<Target = Inner>> Drop for Lease<I> {
    fn drop(&mut self) {
        let mut slots = lock(&self.inner.uploads);
        if let Entry::Occupied(mut slot) = slots.entry(self.id) {
            match self.session.take() {
                Some(session) => drop(slot.insert(Slot::Idle(session))),
                None => drop(slot.remove()),
            }
        }
        // Each keeps a file open. One that is let go starts from its facts.
        let idle = |(id, slot): (&UploadId, &Slot)| (matches!(slot, Slot::Idle(_)) && *id != self.id).then_some(*id);
        if slots.len() > self.inner.options.max_open_files / 8
            && let Some(id) = slots.iter().find_map(idle)
        {
            slots.remove(&id);
        }
    }
}

impl Store {
    /// Begins an upload whose digest will be by this algorithm. (Another one at the end is possible, at the price of
    /// reading the content again.)
    ///
    /// ```
    /// # use strongroom::{Algorithm, Digest, Error, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let id = store.begin_upload(Algorithm::Sha256)?;
    /// assert_eq!(store.append_upload(id, 0, "two ")?, 4);
    /// assert!(matches!(store.append_upload(id, 9, "pieces"), Err(Error::WrongOffset { expected: 4, .. })));
    /// assert_eq!(store.append_upload(id, 4, "pieces")?, 10);
    /// let digest = Digest::of(Algorithm::Sha256, b"two pieces");
    /// store.commit_upload(id, &digest)?;
    /// assert_eq!(store.get(&digest)?.bytes()?, "two pieces");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Full`] on a full disk, [`Error::Poisoned`] after a failed sync.
    pub fn begin_upload(&self, algorithm: Algorithm) -> Result<UploadId> {
        self.inner.begin_upload(algorithm, &*self.inner)
    }

    /// Adds a piece of content at `offset`, which must be where the upload stands, and returns where it then stands.
    /// The piece is durable when this returns.
    ///
    /// # Errors
    /// [`Error::WrongOffset`] with the offset expected; [`Error::UploadNotFound`]; [`Error::UploadBusy`] while another
    /// call is at work on it; [`Error::Full`]. The upload then stands where it did.
    pub fn append_upload(&self, id: UploadId, offset: u64, content: impl AsRef<[u8]>) -> Result<u64> {
        self.inner.append_upload(id, offset, &mut content.as_ref(), &*self.inner)
    }

    /// Adds what a reader yields, to its end. Memory use does not depend on how much that is, and every 256 MiB become
    /// durable while the rest comes.
    ///
    /// # Errors
    /// As [`append_upload`](Self::append_upload), except that what became durable before counts; and [`Error::Source`]
    /// where the reader fails: what it yielded before counts. [`upload_status`](Self::upload_status) tells how much
    /// that was.
    pub fn append_upload_from(&self, id: UploadId, offset: u64, mut content: impl Read) -> Result<u64> {
        self.inner.append_upload(id, offset, &mut content, &*self.inner)
    }

    /// Where an upload stands.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`] where there is none of that id.
    pub fn upload_status(&self, id: UploadId) -> Result<UploadStatus> {
        self.inner.upload_status(id, &*self.inner)
    }

    /// Ends an upload as a blob, if its content has the digest.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] where it has not (the upload stays as it is: [cancel](Self::cancel_upload) it);
    /// [`Error::UploadNotFound`]; [`Error::UploadBusy`]; [`Error::Full`].
    pub fn commit_upload(&self, id: UploadId, digest: &Digest) -> Result<()> {
        self.inner.commit_upload(id, digest, &*self.inner)
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`] where there is none of that id.
    pub fn cancel_upload(&self, id: UploadId) -> Result<()> {
        self.inner.cancel_upload(id, &*self.inner)
    }

    /// All uploads that were begun and neither committed nor given up, in the order of their ids. Those of
    /// [repositories](crate::registry) are not among them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn uploads(&self) -> Result<Vec<UploadStatus>> {
        self.inner.uploads_of(&*self.inner)
    }
}

impl Inner {
    pub(crate) fn begin_upload(&self, algorithm: Algorithm, into: &dyn Destination) -> Result<UploadId> {
        let id = UploadId(random()?);
        let now = self.now();
        let fact = UploadFact {
            file: None,
            offset: 0,
            block_crc: 0,
            created: now.wall,
            touched: now.open,
            algorithm,
            repository: into.repository()?,
            hash_state: Hasher::new(algorithm).save().unwrap_or_default(),
            key: 0,
            rest: Vec::new(),
        };
        self.commit(into.domain(), Request::BeginUpload { id, fact, then: into.exists() })?;
        Ok(id)
    }

    pub(crate) fn append_upload(
        &self,
        id: UploadId,
        offset: u64,
        content: &mut dyn Read,
        into: &dyn Destination,
    ) -> Result<u64> {
        let mut appending = Appending::begin(self, id, offset, into)?;
        let mut piece = Vec::new();
        loop {
            piece.clear();
            let source = content.take(PIECE as u64).read_to_end(&mut piece).map_err(source_failed);
            appending = appending.write(&[&piece])?;
            if source.is_err() || piece.len() < PIECE {
                return appending.finish().and_then(|offset| source.map(|_| offset));
            }
        }
    }

    pub(crate) fn commit_upload(&self, id: UploadId, digest: &Digest, into: &dyn Destination) -> Result<()> {
        self.with_upload(id, into, |session| self.finish_upload(id, session, *digest, into))
    }

    pub(crate) fn upload_status(&self, id: UploadId, of: &dyn Destination) -> Result<UploadStatus> {
        Ok(self.status(id, &self.upload_fact_of(id, of)?))
    }

    pub(crate) fn uploads_of(&self, of: &dyn Destination) -> Result<Vec<UploadStatus>> {
        let owner = of.repository()?;
        let facts = self.upload_facts(of.domain())?;
        let own = facts.iter().filter(|(_, fact)| fact.repository == owner);
        Ok(own.map(|(id, fact)| self.status(*id, fact)).collect())
    }

    pub(crate) fn cancel_upload(&self, id: UploadId, of: &dyn Destination) -> Result<()> {
        self.upload_fact_of(id, of)?;
        self.commit(of.domain(), Request::CancelUpload { id, untouched_since: None })?;
        self.forget_upload(id);
        Ok(())
    }

    fn upload_fact(&self, domain: DomainId, id: UploadId) -> Result<UploadFact> {
        self.snapshot().decode(&Key::upload(domain, id), UploadFact::decode)?.ok_or(Error::UploadNotFound { id })
    }

    fn upload_fact_of(&self, id: UploadId, of: &dyn Destination) -> Result<UploadFact> {
        let owner = of.repository()?;
        let fact = self.upload_fact(of.domain(), id)?;
        expect_owner(id, &fact, owner)?;
        Ok(fact)
    }

    /// All uploads of a domain.
    pub(crate) fn upload_facts(&self, domain: DomainId) -> Result<Vec<(UploadId, UploadFact)>> {
        let snapshot = self.snapshot_of(domain);
        let facts = snapshot.facts(Family::Upload, [0; 32])?;
        facts
            .map(|fact| {
                let (key, value) = fact?;
                let id = decoded(key.bytes.first_chunk().copied().map(UploadId))?;
                Ok((id, decoded(UploadFact::decode(value.as_bytes()))?))
            })
            .collect()
    }

    fn status(&self, id: UploadId, fact: &UploadFact) -> UploadStatus {
        UploadStatus {
            id,
            offset: fact.offset,
            algorithm: fact.algorithm,
            created_ms: fact.created,
            idle: Duration::from_millis(self.open_time().saturating_sub(fact.touched)),
        }
    }

    /// Does something with an upload that no other call is at work on, and keeps the session where it says that it can
    /// go on.
    fn with_upload<T>(
        &self,
        id: UploadId,
        of: &dyn Destination,
        work: impl FnOnce(&mut Session) -> Result<(T, Next)>,
    ) -> Result<T> {
        let owner = of.repository()?;
        self.with_session(id, of.domain(), |session| {
            expect_owner(id, &session.fact, owner).map_err(Refused)?;
            work(session).map_err(Failed)
        })
    }

    /// Does something to an upload, whoever it belongs to.
    fn with_session<T>(
        &self,
        id: UploadId,
        domain: DomainId,
        work: impl FnOnce(&mut Session) -> Result<(T, Next), Unsuccessful>,
    ) -> Result<T> {
        let (mut lease, mut session) = Lease::take(self, domain, id)?;
        let result = match work(&mut session) {
            Ok(done) => Ok(done),
            Err(Refused(error)) => {
                lease.session = Some(session);
                return Err(error);
            }
            Err(Failed(error)) => Err(error),
        };
        if let Err(error) = &result {
            session.give_up(self, error);
        }
        // This is found out before anything is written.
        if matches!(&result, Err(Error::DigestMismatch { .. }) | Ok((_, Next::GoesOn))) {
            lease.session = Some(session);
        }
        result.map(|(value, _)| value)
    }

    /// Whether a call is at work on an upload.
    pub(crate) fn is_upload_busy(&self, id: UploadId) -> bool {
        matches!(lock(&self.uploads).get(&id), Some(Slot::InUse))
    }

    /// Lets go of an upload that is gone. A call that is at work on it finds out.
    pub(crate) fn forget_upload(&self, id: UploadId) {
        lock(&self.uploads).remove(&id);
    }

    /// Lets go of all uploads of a domain that no call is at work on.
    pub(crate) fn forget_uploads(&self, domain: DomainId) {
        let is_other = |slot: &Slot| !matches!(slot, Slot::Idle(session) if session.domain == domain);
        lock(&self.uploads).retain(|_, slot| is_other(slot));
    }

    /// Lets an upload go on in a new segment, with its content so far, encrypted with the current key.
    pub(crate) fn rewrite_upload(&self, domain: DomainId, id: UploadId) -> Result<()> {
        self.with_session(id, domain, |session| self.move_upload(id, session).map_err(Failed))
    }

    fn move_upload(&self, id: UploadId, session: &mut Session) -> Result<((), Next)> {
        let Some(old) = session.writer.take() else { return Ok(((), Next::GoesOn)) };
        self.admit()?;
        let file = *session.unpublished.insert(self.files.new_id());
        let mut new = self.create_segment(file, session.domain)?;
        let mut piece = vec![0; PIECE];
        let from = session.fact.clone();
        while new.len() < from.offset {
            let len = usize::try_from(from.offset - new.len()).unwrap_or(PIECE).min(PIECE);
            let piece = piece.get_mut(..len).unwrap_or_default();
            old.read(new.len(), piece)?;
            new.append(piece)?;
        }
        new.sync().map_err(|error| self.poison(error))?;
        let to = UploadFact { file: Some(file), ..from.clone() }.advanced(&new);
        let parts = changed_parts(new.table(), to.entry_len(), 0);
        self.commit(session.domain, Request::MoveUpload { id, from, to: to.clone(), parts })?;
        session.unpublished = None;
        self.publish(file)?;
        (session.fact, session.writer) = (to, Some(new));
        Ok(((), Next::GoesOn))
    }

    fn load_session(&self, domain: DomainId, id: UploadId) -> Result<Session> {
        let fact = self.upload_fact(domain, id)?;
        let hasher = match fact.offset {
            0 => Some(Hasher::new(fact.algorithm)),
            _ => Hasher::resume(fact.algorithm, &fact.hash_state),
        };
        let writer = match fact.file {
            None => None,
            Some(file) => {
                let mut table = Vec::new();
                for part in 0..fact.parts() {
                    let value = self.snapshot().get(&Key::upload_part(domain, id, part))?;
                    let value = value.ok_or(Error::UploadNotFound { id })?;
                    table.extend_from_slice(value.as_bytes());
                }
                let (is_whole, keys) = (len64(&table) == fact.table_len(), self.files.keys.get());
                decoded(is_whole.then_some(()))?;
                let (key, len, block_crc, rest) = (fact.key, fact.offset, fact.block_crc, fact.rest.clone());
                let progress = Progress { key, len, table, block_crc, rest };
                let path = self.files.layout.segment(file);
                Some(SegmentWriter::resume(&*self.files.vfs, path, file, &keys, domain, progress)?)
            }
        };
        Ok(Session { domain, fact, writer, hasher, unpublished: None })
    }

    fn finish_upload(
        &self,
        id: UploadId,
        session: &mut Session,
        expected: Digest,
        into: &dyn Destination,
    ) -> Result<((), Next)> {
        let then = into.then(&expected);
        let from = session.fact.clone();
        let found = match &session.hasher {
            Some(hasher) if hasher.algorithm() == expected.algorithm() => hasher.clone().finish(),
            _ => self.hash_upload(session, expected.algorithm())?,
        };
        Expect::Digest(expected).check(found)?;
        let in_segment = session.writer.as_mut().filter(|writer| writer.len() > self.options.inline_max);
        let request = if let Some(writer) = in_segment {
            let descriptor: Descriptor = writer.seal(expected)?;
            writer.sync().map_err(|error| self.poison(error))?;
            Request::CommitUpload { id, from, descriptor, frame: None, then }
        } else {
            let mut content = vec![0; usize::try_from(from.offset).unwrap_or_default()];
            if let Some(writer) = &session.writer {
                writer.read(0, &mut content)?;
                // What the disk returns need not be what was hashed.
                if Digest::of(expected.algorithm(), &content) != expected {
                    let damage = crate::error::Damage::Digest;
                    return Err(Error::corrupt(writer.path(), 0, damage));
                }
            }
            let frame = frame_for(expected, &content, self.options.compression);
            Request::CommitUpload { id, from, descriptor: frame.descriptor, frame: Some(frame), then }
        };
        self.commit(session.domain, request)?;
        Ok(((), Next::Ends))
    }

    /// The digest of an upload's content by another algorithm than was declared, or after its hash state was lost.
    fn hash_upload(&self, session: &Session, algorithm: Algorithm) -> Result<Digest> {
        let mut hasher = Hasher::new(algorithm);
        let mut at = 0;
        let mut piece = vec![0; PIECE];
        while let Some(writer) = &session.writer
            && at < writer.len()
        {
            let len = usize::try_from(writer.len() - at).unwrap_or(PIECE).min(PIECE);
            let piece = piece.get_mut(..len).unwrap_or_default();
            writer.read(at, piece)?;
            hasher.update(piece);
            at += len as u64;
        }
        Ok(hasher.finish())
    }
}

/// Why something could not be done to an upload: it was not begun, or it failed.
enum Unsuccessful {
    Refused(Error),
    Failed(Error),
}

use Unsuccessful::{Failed, Refused};

/// Whose upload it is, nobody else is told.
fn expect_owner(id: UploadId, fact: &UploadFact, owner: Option<RepositoryId>) -> Result<()> {
    if fact.repository == owner { Ok(()) } else { Err(Error::UploadNotFound { id }) }
}

/// What becomes of an upload's session.
enum Next {
    GoesOn,
    Ends,
}

impl Session {
    /// What was written is not wanted: the segment goes, where no fact names it.
    fn give_up(&mut self, inner: &Inner, error: &Error) {
        if let Some(file) = self.unpublished.take() {
            inner.files.give_up(file, error);
        }
    }

    /// How many bytes were written that the fact does not count yet.
    fn unsaved(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.len().saturating_sub(self.fact.offset))
    }
}

/// The parts of a table of blocks, with entries of this length, that differ from when there were `before` of them.
fn changed_parts(table: &[u8], entry_len: u64, before: u64) -> Vec<(u64, Vec<u8>)> {
    let first = before / PART_BLOCKS;
    let is_new = |number: &u64| len64(table) / entry_len > before.max(number * PART_BLOCKS);
    let parts = table.chunks(usize::try_from(PART_BLOCKS * entry_len).unwrap_or(usize::MAX));
    (0..)
        .zip(parts)
        .skip(usize::try_from(first).unwrap_or(usize::MAX))
        .filter(|(number, _)| is_new(number))
        .map(|(number, part)| (number, part.to_vec()))
        .collect()
}
