//! Requests, and the pure decisions about them.
//!
//! A [`Request`] is decided by [`resolve`] at its turn in the order of all commits: whether it is possible, and which
//! facts follow, given every earlier commit. So no other commit can come between a check and its effect. A commit
//! belongs to one key domain: it may read facts of others, and changes facts of its own only. [`Changes`] keeps their
//! invariants.
//!
//! Nothing here knows of files, threads or the log: facts are read through a [`Reader`](crate::facts::Reader), and what
//! depends on the commit's place in the log is asked of [`Placing`]. So the same decisions can be made over facts that
//! are stored elsewhere.

mod changes;
pub(crate) mod collection;
pub(crate) mod named;
mod op;
mod placing;
pub(crate) mod registry;
#[cfg(test)]
mod tests;

use crate::clock::{Retention, Times};
use crate::digest::Digest;
use crate::envelope::KeyNumber;
use crate::error::{Damage, Error, Result};
use crate::facts::{Fact, Key, Known, Lookup, Noting, Place, Reader, SegmentFact, SegmentKind, UploadFact};
use crate::id::{DomainId, FileId, Lsn, UploadId};
use crate::segment::{Descriptor, Frame, SEGMENT_FRAME_OFFSET};
pub(crate) use changes::Changes;
pub use named::ExpectNamed;
use named::NamedOutcome;
pub(crate) use op::{Gone, Op};
pub(crate) use placing::{Over, Placing};

/// The longest operations and facts of one record in bytes: enough to replace the named file that holds most by another
/// one of that size.
pub(crate) const MAX_BODY: usize = 32 << 20;

/// A request that reads more facts than this is rehearsed before it is queued.
pub(crate) const MANY: usize = 16;

/// So many facts are looked up together.
const READ_AT_ONCE: usize = 256;

/// What a module above the store asks for: decided, as all requests are, with every earlier commit in sight.
pub(crate) trait Apply: std::fmt::Debug + Send + Sync {
    /// Changes the facts, and says what happened. Where it fails, nothing of the request takes place.
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>>;

    /// Whether it leads to space being given back, so that it may use what is reserved for that.
    fn frees_space(&self) -> bool {
        false
    }

    /// Whether it may read many facts: then that is done before its turn has come.
    fn reads_much(&self) -> bool {
        false
    }

    /// Keys that it will read, as far as it names them itself: they are looked up together.
    fn reads(&self, _domain: DomainId) -> Vec<Key> {
        Vec::new()
    }

    /// The number of the key that a segment is encrypted with which it publishes.
    fn segment_key(&self) -> Option<KeyNumber> {
        None
    }
}

/// What follows, in the same step, from content being stored or an upload being begun.
pub(crate) type Then = Option<Box<dyn Apply>>;

/// What a caller asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Store content that rides in the log.
    PutFrame { frame: Frame, then: Then },
    /// Store content that lies in a segment of its own, already synced.
    PutSegment { descriptor: Descriptor, file: FileId, then: Then },
    /// Note that somebody relies on blobs, outside of any repository. Refuses those that are not there.
    Touch(Vec<Digest>),
    /// Remove a blob that nothing holds.
    Remove(Digest),
    /// Begin an upload.
    BeginUpload { id: UploadId, fact: UploadFact, then: Then },
    /// Advance an upload from one state to the next, with the parts of its list of block checksums that changed.
    AppendUpload { id: UploadId, from: UploadFact, to: UploadFact, parts: Vec<(u64, Vec<u8>)> },
    /// Make an upload a blob, whose content lies in the upload's segment or, where there is a frame, in the log.
    CommitUpload { id: UploadId, from: UploadFact, descriptor: Descriptor, frame: Option<Frame>, then: Then },
    /// Give an upload up, whatever its state; or only if it was not touched since an open time.
    CancelUpload { id: UploadId, untouched_since: Option<u64> },
    /// Let a blob lie in the log that lies in this place now.
    MoveFrame { from: Place, frame: Frame },
    /// Let a blob lie in a segment of its own, already synced, that lies in this place now.
    MoveSegment { from: Place, descriptor: Descriptor, file: FileId },
    /// Let an upload go on in another segment, which has the same content.
    MoveUpload { id: UploadId, from: UploadFact, to: UploadFact, parts: Vec<(u64, Vec<u8>)> },
    /// Give up a log file in which nothing of the domain lives.
    DropFile(FileId),
    /// What a module above asks for.
    Apply(Box<dyn Apply>),
}

impl Request {
    /// Whether it leads to space being given back, so that it may use what is reserved for that.
    pub(crate) fn frees_space(&self) -> bool {
        match self {
            Self::Remove(_) | Self::CancelUpload { .. } | Self::DropFile(_) => true,
            Self::Apply(apply) => apply.frees_space(),
            Self::PutFrame { .. }
            | Self::PutSegment { .. }
            | Self::Touch(_)
            | Self::BeginUpload { .. }
            | Self::AppendUpload { .. }
            | Self::CommitUpload { .. }
            | Self::MoveFrame { .. }
            | Self::MoveSegment { .. }
            | Self::MoveUpload { .. } => false,
        }
    }

    /// The number of the key that a segment is encrypted with which the request publishes.
    pub(crate) fn segment_key(&self) -> Option<KeyNumber> {
        match self {
            Self::PutSegment { descriptor, .. }
            | Self::CommitUpload { descriptor, frame: None, .. }
            | Self::MoveSegment { descriptor, .. } => Some(descriptor.key),
            Self::AppendUpload { to, .. } | Self::MoveUpload { to, .. } => Some(to.key).filter(|_| to.file.is_some()),
            Self::Apply(apply) => apply.segment_key(),
            _ => None,
        }
    }

    /// Whether it may read many facts: then that is done before its turn has come.
    pub(crate) fn reads_much(&self) -> bool {
        match self {
            Self::Touch(digests) => digests.len() > MANY,
            _ => self.applies().is_some_and(|apply| apply.reads_much()),
        }
    }

    /// Keys that it will read, as far as it names them itself: they are looked up together.
    fn reads(&self, domain: DomainId) -> Vec<Key> {
        match self {
            Self::Touch(digests) => digests.iter().map(|digest| Key::blob(domain, digest)).collect(),
            _ => self.applies().map_or_else(Vec::new, |apply| apply.reads(domain)),
        }
    }

    /// What a module above asks for, in this request or as a part of it.
    fn applies(&self) -> Option<&dyn Apply> {
        match self {
            Self::PutFrame { then, .. }
            | Self::PutSegment { then, .. }
            | Self::BeginUpload { then, .. }
            | Self::CommitUpload { then, .. } => then.as_deref(),
            Self::Apply(apply) => Some(&**apply),
            _ => None,
        }
    }

    /// The content that rides in the request's record.
    pub(crate) fn frame(&self) -> Option<&Frame> {
        match self {
            Self::PutFrame { frame, .. } => Some(frame),
            Self::CommitUpload { frame, .. } => frame.as_ref(),
            Self::MoveFrame { frame, .. } => Some(frame),
            _ => None,
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Its position in the order of all commits; where it came to nothing, that of the last one before it.
    pub(crate) lsn: Lsn,
    /// The content was there already: what the caller brought is not needed.
    pub(crate) existed: bool,
    /// Where something [follows](Then) from the content: whether the repository had it already. That the store had it
    /// is nothing for its users to know.
    pub(crate) was_linked: bool,
    /// Files that nothing refers to any more, to be removed.
    pub(crate) dropped: Vec<FileId>,
    /// How many operations it came to.
    pub(crate) applied: usize,
    /// Parts of the request that were not done, by their numbers, and why.
    pub(crate) refused: Vec<(usize, Error)>,
    /// What became of the named file that it set.
    pub(crate) named: Option<Box<NamedOutcome>>,
    pub(crate) tally: Tally,
}

/// What became of blobs, and of other facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Links that were removed because their grace period had passed.
    pub(crate) links: u64,
    /// Repositories that were deleted since no push to them was completed.
    pub(crate) repositories: u64,
    /// Facts that did not follow from others, and do now.
    pub(crate) mended: u64,
    /// Blobs that the store does not have any more.
    pub(crate) forgotten: Frames,
    /// Blobs that lie in another place.
    pub(crate) moved: Frames,
}

/// How many frames, and how many bytes they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frames {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

impl Frames {
    fn add(&mut self, place: &Place) {
        self.count += 1;
        self.bytes += place.frame_len();
    }
}

/// A request resolved: its operations and facts. Without any, nothing is written.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) ops: Vec<Op>,
    pub(crate) facts: Vec<Fact>,
    pub(crate) outcome: Outcome,
    /// Whether the request's frame goes into the record.
    pub(crate) uses_frame: bool,
}

/// Where things stand when a request's turn has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// The domain that the commit belongs to.
    pub(crate) domain: DomainId,
    /// All earlier commits.
    pub(crate) facts: &'a dyn Reader,
    pub(crate) placing: &'a dyn Placing,
    pub(crate) now: Times,
    pub(crate) retention: Retention,
}

/// Decides what a request comes to.
pub(crate) fn resolve(request: &Request, context: &Context<'_>) -> Result<Resolved> {
    let mut facts = Changes::new(context, Vec::new());
    let domain = context.domain;
    let mut existed = false;
    let mut uses_frame = false;
    let ops = match request {
        Request::PutFrame { frame, then } => {
            existed = facts.put_frame(&frame.descriptor, then)?;
            uses_frame = !existed;
            facts.follow(put_op(existed, &frame.descriptor), &frame.descriptor.digest, then)?
        }
        Request::PutSegment { descriptor, file, then } => {
            existed = facts.put(descriptor, *file, SEGMENT_FRAME_OFFSET, then)?;
            facts.follow(put_op(existed, descriptor), &descriptor.digest, then)?
        }
        Request::Touch(digests) => {
            for (part, digest) in digests.iter().enumerate() {
                match facts.touch(digest) {
                    Err(gone @ Error::BlobNotFound { .. }) => facts.refused.push((part, gone)),
                    other => other?,
                }
            }
            Vec::new()
        }
        Request::Remove(digest) => {
            let blob = facts.blob(digest)?.ok_or(Error::BlobNotFound { digest: *digest })?;
            if blob.count > 0 {
                return Err(Error::BlobInUse { digest: *digest, count: blob.count });
            }
            facts.change(Key::blob(domain, digest), Some(&blob), None)?;
            vec![Op::Remove { digest: *digest }]
        }
        Request::BeginUpload { id, fact, then } => {
            facts.set(Key::upload(domain, *id), Some(fact.encode()));
            let mut ops = vec![Op::BeginUpload { id: *id, algorithm: fact.algorithm }];
            if let Some(then) = then {
                ops.extend(then.apply(&mut facts)?);
            }
            ops
        }
        Request::AppendUpload { id, from, to, parts } => {
            facts.expect_upload(*id, from)?;
            facts.set_upload(*id, to, parts, from.file.is_none());
            vec![Op::AppendUpload { id: *id, offset: from.offset, len: to.offset - from.offset }]
        }
        Request::CommitUpload { id, from, descriptor, frame, then } => {
            facts.expect_upload(*id, from)?;
            existed = match (frame, from.file) {
                (None, Some(file)) => facts.put(descriptor, file, SEGMENT_FRAME_OFFSET, then)?,
                _ => facts.put_frame(descriptor, then)?,
            };
            uses_frame = frame.is_some() && !existed;
            facts.end_upload(*id, from, existed || frame.is_some())?;
            let mut ops = put_op(existed, descriptor);
            ops.push(Op::CommitUpload { id: *id, digest: descriptor.digest, len: descriptor.len });
            facts.follow(ops, &descriptor.digest, then)?
        }
        Request::CancelUpload { id, untouched_since } => match facts.upload(*id)? {
            Some(upload) if untouched_since.is_none_or(|since| upload.touched <= since) => {
                facts.end_upload(*id, &upload, true)?;
                vec![Op::CancelUpload { id: *id }]
            }
            Some(_) => Vec::new(),
            None => return Err(Error::UploadNotFound { id: *id }),
        },
        Request::MoveFrame { from, frame } => {
            let (log, offset, key) = context.placing.frame();
            existed = !facts.put_elsewhere(from, &frame.descriptor.in_log(key), log, offset)?;
            uses_frame = !existed;
            Vec::new()
        }
        Request::MoveSegment { from, descriptor, file } => {
            existed = !facts.put_elsewhere(from, descriptor, *file, SEGMENT_FRAME_OFFSET)?;
            Vec::new()
        }
        Request::MoveUpload { id, from, to, parts } => {
            facts.expect_upload(*id, from)?;
            facts.end_upload(*id, from, true)?;
            facts.set_upload(*id, to, parts, true);
            Vec::new()
        }
        Request::DropFile(file) => match facts.segment(*file)? {
            Some(SegmentFact { kind: SegmentKind::Log, live_frames: 0, .. }) if !context.placing.is_needed(*file) => {
                facts.drop_file(*file)?;
                vec![Op::DropFile { file: *file }]
            }
            _ => Vec::new(),
        },
        Request::Apply(apply) => apply.apply(&mut facts)?,
    };
    let Changes { changed, dropped, refused, named, tally, was_linked, .. } = facts;
    let (lsn, applied) = (context.placing.lsn(), ops.len());
    let outcome = Outcome { lsn, existed, was_linked, dropped, applied, refused, named, tally };
    Ok(Resolved { ops, facts: changed.into_iter().collect(), outcome, uses_frame })
}

/// Decides a request before its turn has come, for what that reads: at its turn only what has changed since has to be
/// read again. What it comes to, its turn says.
pub(crate) fn rehearse(request: &Request, as_of: Lsn, context: &Context<'_>) -> Known {
    let facts = Noting::new(context.facts, as_of, MAX_BODY);
    for keys in request.reads(context.domain).chunks(READ_AT_ONCE) {
        let _ = facts.get_many(keys);
    }
    let _ = resolve(request, &Context { facts: &facts, ..*context });
    facts.into_known()
}

/// A count of references that grows by one.
pub(crate) fn one_more(count: u32) -> Result<u32> {
    count.checked_add(1).ok_or(Error::TooLarge {
        what: "the number of references",
        limit: u32::MAX.into(),
        found: u64::from(u32::MAX) + 1,
    })
}

/// A count of references that becomes less by one.
///
/// # Errors
/// [`Damage::Invalid`] where it is 0 although something was held: then counts do not say what is held, and nothing may
/// be concluded from them before they were [repaired](crate::Store::repair).
pub(crate) fn one_less(facts: &Changes<'_>, key: &Key, count: u32) -> Result<u32> {
    let what = "count of references: less than what is held";
    count.checked_sub(1).ok_or_else(|| facts.miscounted(key, what))
}

/// The error that the fact under a key does not agree with others, with its place.
pub(crate) fn miscounted(facts: &dyn Reader, key: &Key, what: &'static str) -> Error {
    match facts.invalid(key) {
        Error::Corrupt { file, offset, .. } => Error::Corrupt { file, offset, damage: Damage::Invalid(what) },
        other => other,
    }
}

fn put_op(existed: bool, descriptor: &Descriptor) -> Vec<Op> {
    if existed { Vec::new() } else { vec![Op::Put { digest: descriptor.digest, len: descriptor.len }] }
}
