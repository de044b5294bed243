//! Resumable uploads.
//!
//! An upload is a fact. While its content is short the fact has it too, so appending a piece is a commit and no more.
//! Once it is longer than [`SHORT`], or than what rides in the log, it lies in a segment that no blob refers to yet:
//! each appended piece is synced there; then a commit updates the fact: the new offset, the hash's state, the checksums
//! of the blocks that are complete. So an upload survives a restart, a crash included, and continues without reading
//! again what it has. Committing it publishes the segment as a blob, or moves content that rides in the log there.
//!
//! # Invariant kept here
//! One call at a time writes to an upload's segment: it takes the upload's [`Slot`], and its [`Lease`] gives the slot
//! back. What a failed call wrote is after the fact's offset, and its state in memory is dropped with the lease: the
//! next call starts from the facts. So it does where the slot was removed meanwhile, because the upload no longer
//! exists.

mod appending;

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::io::Read;
use std::ops::Deref;
use std::time::Duration;

pub(crate) use appending::Appending;

use crate::blobs::content::{Expect, source_failed};
use crate::blobs::{BlobStore, Destination, Stored, frame_for};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Damage, Error, Result};
use crate::facts::{Key, Lookup, PART_BLOCKS, Reader as _, UploadFact, successor};
use crate::files::NewFile;
use crate::id::{DomainId, RepositoryId, UploadId};
use crate::page::Page;
use crate::random::random;
use crate::segment::{Descriptor, Progress, SegmentWriter};
use crate::sync::lock;
use crate::transaction::{Outcome, Request};
use crate::wire::{index, len64};

/// Up to what length, in bytes, an upload's content lies in its fact, which each piece rewrites: a block of a segment,
/// as much as the fact of an encrypted upload may hold in any case. Sessions in memory hold as much, and there are no
/// more of those than files that may be open.
const SHORT: u64 = 64 << 10;

/// How much of a reader's content is written at a time.
const PIECE: usize = 1 << 20;

/// The status of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadStatus {
    /// The upload's id.
    pub id: UploadId,
    /// How many bytes are durable: the offset at which the next piece has to begin.
    pub offset: u64,
    /// The digest algorithm that it was begun with.
    pub algorithm: Algorithm,
    /// When it was begun, by the wall clock, in milliseconds since 1970.
    pub created_ms: u64,
    /// For how much of the store's open time nothing was appended.
    pub idle: Duration,
}

/// The state of an upload in memory.
#[derive(Debug)]
pub(crate) enum Slot {
    /// A call is working on it, and has its state.
    InUse,
    /// What the next call goes on with.
    Idle(Box<Session>),
}

/// An upload with its content, as its facts say it stands, and behind that what is not saved yet.
#[derive(Debug)]
pub(crate) struct Session {
    domain: DomainId,
    /// The state on disk.
    fact: UploadFact,
    content: Written,
    /// None where the state was lost in a restart and can't be saved: the content is read again in the end.
    hasher: Option<Hasher>,
    /// The segment, until a fact names it.
    unpublished: Option<NewFile>,
}

/// Where the content of an upload lies.
#[derive(Debug)]
enum Written {
    /// In memory: what of it is durable, the fact has.
    Short(Vec<u8>),
    /// In the upload's segment.
    Segment(SegmentWriter),
}

impl Written {
    fn len(&self) -> u64 {
        match self {
            Self::Short(content) => len64(content),
            Self::Segment(writer) => writer.len(),
        }
    }
}

/// The right to work on an upload. Gives the slot back, also if the caller's reader panics.
struct Lease<I: Deref<Target = BlobStore>> {
    store: I,
    id: UploadId,
    /// What the next call can go on with.
    session: Option<Box<Session>>,
}

impl<I: Deref<Target = BlobStore>> Lease<I> {
    /// Takes an upload that no other call is at work on.
    fn take(store: I, domain: DomainId, id: UploadId) -> Result<(Self, Box<Session>)> {
        store.log.settle_failed()?;
        let held = match lock(&store.uploads).entry(id) {
            Entry::Vacant(vacant) => {
                vacant.insert(Slot::InUse);
                None
            }
            // The facts of the domain do not have it.
            Entry::Occupied(slot) if matches!(slot.get(), Slot::Idle(session) if session.domain != domain) => {
                return Err(Error::UploadNotFound { id });
            }
            Entry::Occupied(mut slot) => match slot.insert(Slot::InUse) {
                Slot::Idle(session) => Some(session),
                Slot::InUse => return Err(Error::UploadBusy { id }),
            },
        };
        let lease = Self { store, id, session: None };
        let session = match held {
            Some(session) => session,
            None => Box::new(lease.store.load_session(domain, id)?),
        };
        Ok((lease, session))
    }
}

impl<I: Deref<Target = BlobStore>> Drop for Lease<I> {
    fn drop(&mut self) {
        let mut slots = lock(&self.store.uploads);
        if let Entry::Occupied(mut slot) = slots.entry(self.id) {
            match self.session.take() {
                Some(session) => drop(slot.insert(Slot::Idle(session))),
                None => drop(slot.remove()),
            }
        }
        // Each keeps a file open. One that is dropped starts again from its facts.
        let idle = |(id, slot): (&UploadId, &Slot)| (matches!(slot, Slot::Idle(_)) && *id != self.id).then_some(*id);
        if slots.len() > self.store.options.max_open_files / 8
            && let Some(id) = slots.iter().find_map(idle)
        {
            slots.remove(&id);
        }
    }
}

impl BlobStore {
    pub(crate) fn begin_upload(&self, algorithm: Algorithm, into: &dyn Destination) -> Result<UploadId> {
        let id = UploadId(random()?);
        let now = self.clock.now();
        let fact = UploadFact {
            file: None,
            offset: 0,
            block_crc: 0,
            created: now.wall,
            touched: now.open,
            algorithm,
            repository: into.repository()?,
            hash_state: Vec::new(),
            key: 0,
            rest: Vec::new(),
        };
        self.log.commit_as(into.durability(), into.domain(), Request::BeginUpload { id, fact, then: into.exists() })?;
        Ok(id)
    }

    pub(crate) fn append_upload(
        &self,
        id: UploadId,
        offset: Option<u64>,
        content: &mut dyn Read,
        into: &dyn Destination,
    ) -> Result<u64> {
        let mut appending = Appending::begin(self, id, offset, into)?;
        let mut piece = Vec::new();
        loop {
            piece.clear();
            let source = content.take(PIECE as u64).read_to_end(&mut piece).map_err(source_failed);
            appending = appending.write(&[&piece])?;
            if let Err(error @ Error::ContentTooLong { .. }) = source {
                appending.discard();
                return Err(error);
            }
            if source.is_err() || piece.len() < PIECE {
                return appending.finish().and_then(|offset| source.map(|_| offset));
            }
        }
    }

    pub(crate) fn commit_upload(&self, id: UploadId, expect: Expect, into: &dyn Destination) -> Result<Stored> {
        self.end_upload(id, expect, into).map(|(stored, _)| stored)
    }

    /// The same, with what became of the commit.
    pub(super) fn end_upload(&self, id: UploadId, expect: Expect, into: &dyn Destination) -> Result<(Stored, Outcome)> {
        self.with_upload(id, into, |session| self.finish_upload(id, session, &[], expect, into))
    }

    /// Appends the last piece of an upload, and commits it: in one commit where all of it rides in the log and no
    /// segment was begun.
    pub(crate) fn commit_upload_with(
        &self,
        id: UploadId,
        offset: Option<u64>,
        last: &[u8],
        expect: Expect,
        into: &dyn Destination,
    ) -> Result<Stored> {
        let owner = into.repository()?;
        let committed = self.with_session(id, into.domain(), |session| {
            session.expect(id, owner, offset).map_err(Refused)?;
            if !session.may_ride_with(len64(last), self) {
                return Ok((None, Next::GoesOn));
            }
            let finished = self.finish_upload(id, session, last, expect, into);
            finished.map(|((stored, _), next)| (Some(stored), next)).map_err(Failed)
        })?;
        match committed {
            Some(stored) => Ok(stored),
            None => {
                self.append_upload(id, offset, &mut &*last, into)?;
                self.commit_upload(id, expect, into)
            }
        }
    }

    pub(crate) fn upload_status(&self, id: UploadId, of: &dyn Destination) -> Result<UploadStatus> {
        Ok(self.status(id, &self.upload_fact_of(id, of)?))
    }

    pub(crate) fn uploads_of(
        &self,
        of: &dyn Destination,
        after: Option<&UploadId>,
        limit: usize,
    ) -> Result<Page<UploadStatus, UploadId>> {
        let owner = of.repository()?;
        let snapshot = self.tables.snapshot_of(of.domain());
        let from = after.map_or(Some([0; 32]), |after| successor(Key::upload(of.domain(), *after).bytes));
        let mut own: Vec<UploadStatus> = Vec::new();
        for upload in from.map(|from| snapshot.uploads_from(from)).transpose()?.into_iter().flatten() {
            let (id, fact) = upload?;
            if fact.repository != owner {
                continue;
            }
            if own.len() >= limit.max(1) {
                let next = own.last().map(|last| last.id);
                return Ok(Page::new(own, next));
            }
            own.push(self.status(id, &fact));
        }
        Ok(Page::new(own, None))
    }

    /// How many uploads there are of a destination, counted up to a limit.
    pub(crate) fn count_uploads_of(&self, of: &dyn Destination, limit: usize) -> Result<usize> {
        let (owner, snapshot) = (of.repository()?, self.tables.snapshot_of(of.domain()));
        let uploads = snapshot.uploads()?;
        let own = uploads.filter(|upload| upload.as_ref().map_or(true, |(_, fact)| fact.repository == owner));
        own.take(limit).try_fold(0, |count, upload| upload.map(|_| count + 1))
    }

    /// How many uploads there are in all domains, counted up to a limit.
    pub(crate) fn count_uploads(&self, limit: usize) -> Result<usize> {
        let snapshot = self.tables.snapshot();
        let mut count = 0;
        for domain in snapshot.each_domain() {
            for upload in domain.uploads()?.take(limit - count) {
                upload?;
                count += 1;
            }
        }
        Ok(count)
    }

    pub(crate) fn cancel_upload(&self, id: UploadId, of: &dyn Destination) -> Result<()> {
        self.upload_fact_of(id, of)?;
        self.log.commit_as(of.durability(), of.domain(), Request::CancelUpload { id, untouched_since: None })?;
        self.forget_upload(id);
        Ok(())
    }

    fn upload_fact(&self, domain: DomainId, id: UploadId) -> Result<UploadFact> {
        self.tables.snapshot().decode(&Key::upload(domain, id), UploadFact::decode)?.ok_or(Error::UploadNotFound { id })
    }

    fn upload_fact_of(&self, id: UploadId, of: &dyn Destination) -> Result<UploadFact> {
        let owner = of.repository()?;
        let fact = self.upload_fact(of.domain(), id)?;
        expect_owner(id, &fact, owner)?;
        Ok(fact)
    }

    fn status(&self, id: UploadId, fact: &UploadFact) -> UploadStatus {
        UploadStatus {
            id,
            offset: fact.offset,
            algorithm: fact.algorithm,
            created_ms: fact.created,
            idle: Duration::from_millis(self.clock.open_time().saturating_sub(fact.touched)),
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

    /// Does something to an upload, whichever repository it belongs to.
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
        if result.is_err() {
            session.give_up(self);
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
        let Written::Segment(old) = &session.content else { return Ok(((), Next::GoesOn)) };
        self.log.admit()?;
        let file = session.unpublished.insert(self.begin_file());
        let id_of_file = file.id();
        let mut new = self.create_segment(file, session.domain)?;
        let mut piece = vec![0; PIECE];
        let from = session.fact.clone();
        while new.len() < from.offset {
            piece.truncate(index(from.offset - new.len()));
            old.read(new.len(), &mut piece)?;
            new.append(&piece)?;
        }
        new.sync().map_err(|error| self.contents.poison(error))?;
        let to = advanced(UploadFact { file: Some(id_of_file), ..from.clone() }, &new);
        let parts = changed_parts(new.table(), to.entry_len(), 0);
        let moved = self.log.commit(session.domain, Request::MoveUpload { id, from, to: to.clone(), parts })?;
        session.unpublished.take().map_or(Ok(()), |file| self.log.publish(file, moved.lsn))?;
        (session.fact, session.content) = (to, Written::Segment(new));
        Ok(((), Next::GoesOn))
    }

    fn load_session(&self, domain: DomainId, id: UploadId) -> Result<Session> {
        let (snapshot, key) = (self.tables.snapshot(), Key::upload(domain, id));
        let fact = snapshot.decode(&key, UploadFact::decode)?.ok_or(Error::UploadNotFound { id })?;
        let (hasher, content) = match fact.file {
            None if fact.offset != len64(&fact.rest) => return Err(snapshot.invalid(&key)),
            None => {
                let mut hasher = Hasher::new(fact.algorithm);
                hasher.update(&fact.rest);
                (Some(hasher), Written::Short(fact.rest.clone()))
            }
            Some(file) => {
                let mut table = Vec::new();
                for part in 0..fact.parts() {
                    let value = snapshot.get(&Key::upload_part(domain, id, part))?;
                    table.extend_from_slice(snapshot.decoded(&key, value)?.as_bytes());
                }
                let (is_whole, keys) = (len64(&table) == fact.table_len(), self.contents.keys());
                snapshot.decoded(&key, is_whole.then_some(()))?;
                let (key, len, block_crc, rest) = (fact.key, fact.offset, fact.block_crc, fact.rest.clone());
                let progress = Progress { key, len, table, block_crc, rest };
                let writer = SegmentWriter::resume(self.contents.resume(file)?, file, &keys, domain, progress)?;
                (Hasher::resume(fact.algorithm, &fact.hash_state), Written::Segment(writer))
            }
        };
        Ok(Session { domain, fact, content, hasher, unpublished: None })
    }

    /// Commits an upload with a last piece, which is none where the content lies in a segment.
    fn finish_upload(
        &self,
        id: UploadId,
        session: &mut Session,
        last: &[u8],
        expect: Expect,
        into: &dyn Destination,
    ) -> Result<((Stored, Outcome), Next)> {
        let from = session.fact.clone();
        let found = match &session.hasher {
            Some(hasher) if hasher.algorithm() == expect.algorithm() => {
                let mut hasher = hasher.clone();
                hasher.update(last);
                hasher.finish()
            }
            _ => self.hash_upload(session, last, expect.algorithm())?,
        };
        let digest = expect.check(found)?;
        let (descriptor, frame) = match &mut session.content {
            Written::Segment(writer) if writer.len() > self.options.inline_max => {
                let descriptor: Descriptor = writer.seal(digest)?;
                writer.sync().map_err(|error| self.contents.poison(error))?;
                (descriptor, None)
            }
            Written::Segment(writer) => {
                let mut content = vec![0; index(writer.len())];
                writer.read(0, &mut content)?;
                // What the disk returns need not be what was hashed.
                if Digest::of(digest.algorithm(), &content) != digest {
                    return Err(Error::corrupt(writer.path(), 0, Damage::Digest));
                }
                let frame = frame_for(digest, &content, self.options.compression);
                (frame.descriptor, Some(frame))
            }
            Written::Short(content) => {
                let whole = if content.is_empty() { Cow::Borrowed(last) } else { [content, last].concat().into() };
                let frame = frame_for(digest, &whole, self.options.compression);
                (frame.descriptor, Some(frame))
            }
        };
        let (len, then) = (descriptor.len, into.then(&digest));
        let request = Request::CommitUpload { id, from, descriptor, frame, then };
        let outcome = self.log.commit_as(into.durability(), session.domain, request)?;
        let stored = Stored { digest, len, existed: into.existed(&outcome), lsn: outcome.lsn };
        Ok(((stored, outcome), Next::Ends))
    }

    /// The digest of an upload's content by another algorithm than was declared, or after its hash state was lost.
    fn hash_upload(&self, session: &Session, last: &[u8], algorithm: Algorithm) -> Result<Digest> {
        let mut hasher = Hasher::new(algorithm);
        match &session.content {
            Written::Short(content) => hasher.update(content),
            Written::Segment(writer) => {
                let (mut at, mut piece) = (0, vec![0; PIECE]);
                while at < writer.len() {
                    piece.truncate(index(writer.len() - at));
                    writer.read(at, &mut piece)?;
                    hasher.update(&piece);
                    at += len64(&piece);
                }
            }
        }
        hasher.update(last);
        Ok(hasher.finish())
    }
}

/// Why something could not be done to an upload: it was not begun, or it failed.
enum Unsuccessful {
    Refused(Error),
    Failed(Error),
}

use Unsuccessful::{Failed, Refused};

/// An upload of another owner is not found: its existence is not revealed.
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
    fn give_up(&mut self, store: &BlobStore) {
        if let Some(file) = self.unpublished.take() {
            store.log.give_up(file);
        }
    }

    /// How many bytes were written that the fact does not count yet.
    fn unsaved(&self) -> u64 {
        self.content.len().saturating_sub(self.fact.offset)
    }

    /// Fails where the upload is another's, or does not stand at `offset`, if one is given.
    fn expect(&self, id: UploadId, owner: Option<RepositoryId>, offset: Option<u64>) -> Result<()> {
        expect_owner(id, &self.fact, owner)?;
        match (self.fact.offset, offset) {
            (expected, Some(found)) if found != expected => Err(Error::WrongOffset { expected, found }),
            _ => Ok(()),
        }
    }

    /// Whether the content, with so much more, can be committed in a record, without a segment.
    fn may_ride_with(&self, more: u64, store: &BlobStore) -> bool {
        matches!(&self.content, Written::Short(content) if len64(content) + more <= store.options.inline_max)
    }
}

/// An upload that stands where its segment's writer does.
fn advanced(upload: UploadFact, writer: &SegmentWriter) -> UploadFact {
    let (block_crc, rest) = writer.incomplete();
    UploadFact { offset: writer.len(), block_crc, key: writer.key(), rest: rest.to_vec(), ..upload }
}

/// The parts of a table of blocks, with entries of this length, that differ from when there were `before` of them.
fn changed_parts(table: &[u8], entry_len: u64, before: u64) -> Vec<(u64, Vec<u8>)> {
    let first = before / PART_BLOCKS;
    let is_new = |number: &u64| len64(table) / entry_len > before.max(number * PART_BLOCKS);
    let parts = table.chunks(index(PART_BLOCKS * entry_len));
    (0..)
        .zip(parts)
        .skip(index(first))
        .filter(|(number, _)| is_new(number))
        .map(|(number, part)| (number, part.to_vec()))
        .collect()
}
