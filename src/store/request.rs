//! What callers ask of the log, and what becomes of it at the ordering point.
//!
//! A [`Request`] says what is wanted. Whether it can be, and which facts follow, is decided by [`resolve`] when its turn
//! in the order of all commits has come: the leader of a group calls it with every earlier commit in sight, also those
//! of the same group. So no check can be overtaken by another commit. A commit belongs to one key domain: it may look at
//! what others have, and changes facts of its own only.
//!
//! # Invariants kept here
//! - A blob's count is the number of (pin, digest) pairs that name it, and of the repositories' links and manifests under its
//!   digest. Only [`Facts::hold`] and [`Facts::release`] change it.
//! - A blob whose count is 0 is in the [list of what nothing holds](Idle), under the time at which it was touched, and no other is: [`Facts::change`].
//!   So is a pin that expires: [`Facts::set_pin`].
//! - A segment's live frames and bytes are those of the blobs of one domain placed in it. Only [`Facts::change`] changes
//!   them, and every change of a blob's place goes through it.
//! - A file is given up with the last fact that a domain has of it: [`Facts::drop_file`].

use std::collections::{BTreeMap, HashMap};

use crate::clock::Retention;
use crate::digest::Digest;
use crate::envelope::KeyNumber;
use crate::error::{Error, Result};
use crate::facts::{BlobFact, Fact, Idle, Key, PinFact, Place, Prefix, SegmentFact, SegmentKind, UploadFact, Value};
use crate::id::{DomainId, FileId, Lsn, UploadId};
use crate::log::record::MAX_BODY;
use crate::log::{Op, Times};
use crate::segment::{Descriptor, Frame, SEGMENT_FRAME_OFFSET};
use crate::store::files::Space;
use crate::store::view::{Lookup, Snapshot, decoded};

/// What a module above the store asks for: decided, as all requests are, with every earlier commit in sight.
pub(crate) trait Apply: std::fmt::Debug + Send + Sync {
    /// Changes the facts, and says what happened. Where it fails, nothing of the request takes place.
    fn apply(&self, facts: &mut Facts<'_>) -> Result<Vec<Op>>;

    /// What space it may take.
    fn space(&self) -> Space {
        Space::Free
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
    /// Note that somebody relies on a blob, outside of any repository.
    Touch(Digest),
    /// Remove a blob that nothing holds.
    Remove(Digest),
    /// Set a pin, replacing the one that has the name.
    Pin(PinFact),
    /// Remove a pin.
    Unpin(String),
    /// Remove a pin if it has expired by this open time.
    ExpirePin { name: String, now: u64 },
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
    /// What leads to space being given back may use the reserve.
    pub(crate) fn space(&self) -> Space {
        match self {
            Self::Remove(_)
            | Self::Unpin(_)
            | Self::ExpirePin { .. }
            | Self::CancelUpload { .. }
            | Self::DropFile(_) => Space::Reserve,
            Self::Apply(apply) => apply.space(),
            Self::PutFrame { .. }
            | Self::PutSegment { .. }
            | Self::Touch(_)
            | Self::Pin(_)
            | Self::BeginUpload { .. }
            | Self::AppendUpload { .. }
            | Self::CommitUpload { .. }
            | Self::MoveFrame { .. }
            | Self::MoveSegment { .. }
            | Self::MoveUpload { .. } => Space::Free,
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
    /// Its position in the order of all commits, where it came to anything.
    pub(crate) lsn: Lsn,
    /// The content was there already: what the caller brought is not needed.
    pub(crate) existed: bool,
    /// Files that nothing refers to any more, to be removed.
    pub(crate) dropped: Vec<FileId>,
    /// How many operations it came to.
    pub(crate) applied: usize,
    /// Parts of the request that were not done, by their numbers, and why.
    pub(crate) refused: Vec<(usize, Error)>,
    pub(crate) tally: Tally,
}

/// What became of blobs, and of other facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Links that were taken away since nobody relied on them.
    pub(crate) links: u64,
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
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// The domain that the commit belongs to, and the number of the key that its frame is encrypted with; 0 for none.
    pub(crate) domain: DomainId,
    pub(crate) key: KeyNumber,
    /// All commits of earlier groups.
    pub(crate) snapshot: &'a Snapshot,
    /// The facts of earlier commits of the same group.
    pub(crate) overlay: &'a HashMap<Key, Option<Value>>,
    /// The log file being written, and where a frame of this request would begin in it.
    pub(crate) log: FileId,
    pub(crate) frame_offset: u64,
    /// Log files from this one on are listed.
    pub(crate) oldest_log: FileId,
    /// The LSN that the request gets if there is something to write.
    pub(crate) lsn: Lsn,
    pub(crate) now: Times,
    pub(crate) retention: Retention,
}

/// Decides what a request comes to.
pub(crate) fn resolve(request: &Request, context: &Context<'_>) -> Result<Resolved> {
    let mut facts = Facts::new(context, Vec::new());
    let domain = context.domain;
    let mut existed = false;
    let mut uses_frame = false;
    let ops = match request {
        Request::PutFrame { frame, then } => {
            existed = facts.put(&frame.descriptor.in_log(context.key), context.log, context.frame_offset)?;
            uses_frame = !existed;
            facts.follow(put_op(existed, &frame.descriptor), &frame.descriptor.digest, then)?
        }
        Request::PutSegment { descriptor, file, then } => {
            existed = facts.put(descriptor, *file, SEGMENT_FRAME_OFFSET)?;
            facts.follow(put_op(existed, descriptor), &descriptor.digest, then)?
        }
        Request::Touch(digest) => {
            facts.touch(digest)?;
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
        Request::Pin(pin) => {
            let old = facts.pin(&pin.name)?;
            for digest in &pin.digests {
                facts.hold(digest)?;
            }
            for digest in old.iter().flat_map(|old| &old.digests) {
                facts.release(digest)?;
            }
            facts.set_pin(old.as_ref(), Some(pin));
            vec![Op::Pin { name: pin.name.clone(), digests: pin.digests.clone() }]
        }
        Request::Unpin(name) => {
            let pin = facts.pin(name)?.ok_or_else(|| Error::PinNotFound { name: name.clone() })?;
            facts.unpin(&pin)?
        }
        Request::ExpirePin { name, now } => match facts.pin(name)? {
            Some(pin) if pin.expires != 0 && pin.expires <= *now => facts.unpin(&pin)?,
            _ => Vec::new(),
        },
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
            facts.set(Key::upload(domain, *id), Some(to.encode()));
            for (number, part) in parts {
                facts.set(Key::upload_part(domain, *id, *number), Some(Value::new(part)));
            }
            if let (None, Some(file)) = (from.file, to.file) {
                facts.set(Key::segment(domain, file), Some(SegmentFact::empty(SegmentKind::Upload, to.key).encode()));
            }
            vec![Op::AppendUpload { id: *id, offset: from.offset, len: to.offset - from.offset }]
        }
        Request::CommitUpload { id, from, descriptor, frame, then } => {
            facts.expect_upload(*id, from)?;
            existed = match (frame, from.file) {
                (None, Some(file)) => facts.put(descriptor, file, SEGMENT_FRAME_OFFSET)?,
                _ => facts.put(&descriptor.in_log(context.key), context.log, context.frame_offset)?,
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
            let descriptor = frame.descriptor.in_log(context.key);
            existed = !facts.put_elsewhere(from, &descriptor, context.log, context.frame_offset)?;
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
            facts.set(Key::upload(domain, *id), Some(to.encode()));
            for (number, part) in parts {
                facts.set(Key::upload_part(domain, *id, *number), Some(Value::new(part)));
            }
            if let Some(file) = to.file {
                facts.set(Key::segment(domain, file), Some(SegmentFact::empty(SegmentKind::Upload, to.key).encode()));
            }
            Vec::new()
        }
        Request::DropFile(file) => match facts.segment(*file)? {
            Some(SegmentFact { kind: SegmentKind::Log, live_frames: 0, .. }) if *file < context.oldest_log => {
                facts.drop_file(*file)?;
                vec![Op::DropFile { file: *file }]
            }
            _ => Vec::new(),
        },
        Request::Apply(apply) => apply.apply(&mut facts)?,
    };
    let Facts { changed, dropped, refused, tally, .. } = facts;
    let outcome = Outcome { lsn: context.lsn, existed, dropped, applied: ops.len(), refused, tally };
    Ok(Resolved { ops, facts: changed.into_iter().collect(), outcome, uses_frame })
}

/// A count of references that grows by one.
pub(crate) fn one_more(count: u32) -> Result<u32> {
    count.checked_add(1).ok_or(Error::TooLarge {
        what: "the number of references",
        limit: u32::MAX.into(),
        found: u64::from(u32::MAX) + 1,
    })
}

fn put_op(existed: bool, descriptor: &Descriptor) -> Vec<Op> {
    if existed { Vec::new() } else { vec![Op::Put { digest: descriptor.digest, len: descriptor.len }] }
}

/// The facts that a commit changes, over those of all earlier commits.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    context: &'a Context<'a>,
    changed: BTreeMap<Key, Option<Value>>,
    /// How long the values are that have changed, in bytes.
    bytes: usize,
    dropped: Vec<FileId>,
    refused: Vec<(usize, Error)>,
    pub(crate) tally: Tally,
}

impl Lookup for Facts<'_> {
    fn domain(&self) -> DomainId {
        self.context.domain
    }

    fn decode<T>(&self, key: &Key, decode: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>> {
        self.get(key)?.map(|value| decoded(decode(value.as_bytes()))).transpose()
    }
}

impl<'a> Facts<'a> {
    /// Starts from facts that stand as they are.
    pub(crate) fn new(context: &'a Context<'a>, facts: Vec<Fact>) -> Self {
        let mut new = Self {
            context,
            changed: BTreeMap::new(),
            bytes: 0,
            dropped: Vec::new(),
            refused: Vec::new(),
            tally: Tally::default(),
        };
        facts.into_iter().for_each(|(key, value)| new.set(key, value));
        new
    }

    /// All facts changed.
    pub(crate) fn into_facts(self) -> Vec<Fact> {
        self.changed.into_iter().collect()
    }

    /// Does what follows from content having been stored. Where that is nothing, whoever stored it relies on the blob itself.
    fn follow(&mut self, mut ops: Vec<Op>, digest: &Digest, then: &Then) -> Result<Vec<Op>> {
        match then {
            Some(then) => ops.extend(then.apply(self)?),
            None => self.touch(digest)?,
        }
        Ok(ops)
    }

    /// For how long stays what nothing holds.
    pub(crate) fn retention(&self) -> Retention {
        self.context.retention
    }

    /// All domains, in order: the default one first.
    pub(crate) fn domains(&self) -> &'a [DomainId] {
        self.context.snapshot.domains()
    }

    /// The LSN that this commit gets.
    pub(crate) fn lsn(&self) -> Lsn {
        self.context.lsn
    }

    /// When this commit takes place.
    pub(crate) fn now(&self) -> Times {
        self.context.now
    }

    /// The first facts with a prefix, at most `limit`, in the order of their keys.
    pub(crate) fn scan(&self, prefix: Prefix, limit: usize) -> Result<Vec<(Key, Value)>> {
        self.scan_after(prefix, None, limit)
    }

    /// The first facts with a prefix behind a key, at most `limit`, in the order of their keys.
    pub(crate) fn scan_after(&self, prefix: Prefix, after: Option<Key>, limit: usize) -> Result<Vec<(Key, Value)>> {
        let wanted = |key: &Key| prefix.contains(key) && after.is_none_or(|after| after < *key);
        let overlay = self.context.overlay.iter().filter(|(key, _)| wanted(key));
        let from = Key { domain: prefix.domain, family: prefix.family, bytes: prefix.from };
        let changed = self.changed.range(from..).take_while(|(key, _)| prefix.contains(key));
        let newer = overlay.chain(changed.filter(|(key, _)| wanted(key)));
        let mut facts: BTreeMap<Key, Option<Value>> = newer.map(|(key, value)| (*key, value.clone())).collect();
        // Each of the newer ones may hide one of these.
        let most = limit.saturating_add(facts.len());
        for fact in self.context.snapshot.scan_after(prefix, after)?.take(most) {
            let (key, value) = fact?;
            facts.entry(key).or_insert(Some(value));
        }
        let present = facts.into_iter().filter_map(|(key, value)| value.map(|value| (key, value)));
        Ok(present.take(limit).collect())
    }

    /// The value under a key.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Value>> {
        match self.changed.get(key).or_else(|| self.context.overlay.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.context.snapshot.get(key),
        }
    }

    /// Sets the value under a key. Not for the places of blobs: those [change](Self::change).
    pub(crate) fn set(&mut self, key: Key, value: Option<Value>) {
        let len = |value: &Option<Value>| value.as_ref().map_or(0, |value| value.as_bytes().len());
        self.bytes += len(&value);
        self.bytes -= self.changed.insert(key, value).map_or(0, |old| len(&old));
    }

    /// Fails where what has changed will not fit into a record, before more memory is taken for it.
    pub(crate) fn check_size(&self) -> Result<()> {
        Error::check_limit("a commit's record", self.bytes, MAX_BODY)
    }

    /// The entry of this time in the list of what nothing holds, if it is there.
    pub(crate) fn idle(&self, idle: &Idle) -> Result<Option<Idle>> {
        let at = idle.at();
        self.decode(&at, |value| Idle::decode(&at, value))
    }

    /// Puts something in the list of what nothing holds, takes it out, or moves it to another time. An entry that stays is left as it is.
    pub(crate) fn relist(&mut self, old: Option<Idle>, new: Option<Idle>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.set(old.at(), None);
        }
        if let Some((at, value)) = new.map(|new| new.fact()) {
            self.set(at, value);
        }
    }

    fn set_pin(&mut self, old: Option<&PinFact>, new: Option<&PinFact>) {
        let Some(name) = new.or(old).map(|pin| &pin.name) else { return };
        let key = Key::pin(self.domain(), name);
        let idle = |pin: Option<&PinFact>| pin.and_then(|pin| Idle::of_pin(&key, pin));
        self.relist(idle(old), idle(new));
        self.set(key, new.map(PinFact::encode));
    }

    fn pin(&self, name: &str) -> Result<Option<PinFact>> {
        self.decode(&Key::pin(self.domain(), name), PinFact::decode)
    }

    fn upload(&self, id: UploadId) -> Result<Option<UploadFact>> {
        self.decode(&Key::upload(self.domain(), id), UploadFact::decode)
    }

    /// Makes sure that an upload stands where the caller left it.
    fn expect_upload(&self, id: UploadId, expected: &UploadFact) -> Result<()> {
        match self.upload(id)? {
            Some(upload) if upload == *expected => Ok(()),
            Some(upload) => Err(Error::WrongOffset { expected: upload.offset, found: expected.offset }),
            None => Err(Error::UploadNotFound { id }),
        }
    }

    /// Stores a blob unless it is there, and says whether it was. One that is damaged takes the new content.
    fn put(&mut self, descriptor: &Descriptor, file: FileId, frame_offset: u64) -> Result<bool> {
        let old = self.blob(&descriptor.digest)?;
        let mut new = descriptor.fact(file, frame_offset);
        match &old {
            Some(old) if old.damaged => (new.count, new.touched) = (old.count, old.touched),
            Some(_) => return Ok(true),
            None => {}
        }
        self.change(Key::blob(self.domain(), &descriptor.digest), old.as_ref(), Some(&new))?;
        Ok(false)
    }

    /// Notes that somebody outside of any repository relies on a blob, unless that was noted a moment ago.
    fn touch(&mut self, digest: &Digest) -> Result<()> {
        let blob = self.blob(digest)?.ok_or(Error::BlobNotFound { digest: *digest })?;
        // Never 0: that says that nobody does.
        let touched = self.now().open.max(1);
        if blob.is_stale(self.retention(), touched) {
            self.change(Key::blob(self.domain(), digest), Some(&blob), Some(&BlobFact { touched, ..blob }))?;
        }
        Ok(())
    }

    /// Lets a blob lie in another place; `false` where it is not in the one that it was copied from any more.
    pub(crate) fn put_elsewhere(
        &mut self,
        from: &Place,
        to: &Descriptor,
        file: FileId,
        frame_offset: u64,
    ) -> Result<bool> {
        let Some(old) = self.blob(&to.digest)?.filter(|blob| blob.place == *from) else { return Ok(false) };
        let new = BlobFact { count: old.count, touched: old.touched, ..to.fact(file, frame_offset) };
        self.change(Key::blob(self.domain(), &to.digest), Some(&old), Some(&new))?;
        Ok(true)
    }

    /// Counts one more that holds a blob.
    pub(crate) fn hold(&mut self, digest: &Digest) -> Result<()> {
        let blob = self.blob(digest)?.ok_or(Error::BlobNotFound { digest: *digest })?;
        let count = one_more(blob.count)?;
        self.change(Key::blob(self.domain(), digest), Some(&blob), Some(&BlobFact { count, ..blob }))
    }

    /// Counts one less that holds a blob.
    pub(crate) fn release(&mut self, digest: &Digest) -> Result<()> {
        let key = Key::blob(self.domain(), digest);
        if self.blob(digest)?.is_some() { self.release_key(key) } else { Ok(()) }
    }

    /// Counts one less that holds the blob with this key.
    pub(crate) fn release_key(&mut self, key: Key) -> Result<()> {
        let Some(blob) = self.blob_by_key(&key)? else { return Ok(()) };
        self.change(key, Some(&blob), Some(&BlobFact { count: blob.count.saturating_sub(1), ..blob }))
    }

    /// Notes that a part of a request was not done, while the others are.
    pub(crate) fn refuse(&mut self, part: usize, error: Error) {
        self.refused.push((part, error));
    }

    fn unpin(&mut self, pin: &PinFact) -> Result<Vec<Op>> {
        for digest in &pin.digests {
            self.release(digest)?;
        }
        self.set_pin(Some(pin), None);
        Ok(vec![Op::Unpin { name: pin.name.clone() }])
    }

    /// Removes all facts of an upload, and its file with them where no blob lies in it.
    fn end_upload(&mut self, id: UploadId, upload: &UploadFact, drop_file: bool) -> Result<()> {
        let domain = self.domain();
        self.set(Key::upload(domain, id), None);
        for part in 0..upload.parts() {
            self.set(Key::upload_part(domain, id, part), None);
        }
        upload.file.filter(|_| drop_file).map_or(Ok(()), |file| self.drop_file(file))
    }

    /// Gives up what the domain has of a file, and the file where no other domain has anything of it.
    pub(crate) fn drop_file(&mut self, file: FileId) -> Result<()> {
        self.set(Key::segment(self.domain(), file), None);
        for domain in self.domains() {
            if self.get(&Key::segment(*domain, file))?.is_some() {
                return Ok(());
            }
        }
        self.dropped.push(file);
        Ok(())
    }

    /// Sets what the domain has in a file, from which something went, and gives the file up where nothing is left that needs it.
    pub(crate) fn set_segment(&mut self, file: FileId, segment: &SegmentFact) -> Result<()> {
        let is_needed = segment.kind == SegmentKind::Log && file >= self.context.oldest_log;
        if segment.live_frames == 0 && !is_needed {
            return self.drop_file(file);
        }
        self.set(Key::segment(self.domain(), file), Some(segment.encode()));
        Ok(())
    }

    /// Changes a blob's fact, and carries that over to the list of what nothing holds and, where its place changes, to the segments
    /// concerned.
    pub(crate) fn change(&mut self, key: Key, old: Option<&BlobFact>, new: Option<&BlobFact>) -> Result<()> {
        self.set(key, new.map(BlobFact::encode));
        let idle = |blob: Option<&BlobFact>| blob.and_then(|blob| Idle::of_blob(&key, blob));
        self.relist(idle(old), idle(new));
        if old.map(|old| old.place) == new.map(|new| new.place) {
            return Ok(());
        }
        match (old, new) {
            (Some(old), None) => self.tally.forgotten.add(&old.place),
            (Some(_), Some(new)) => self.tally.moved.add(&new.place),
            _ => {}
        }
        if let Some(BlobFact { place, .. }) = old
            && let Some(mut segment) = self.segment(place.file)?
        {
            segment.live_frames = segment.live_frames.saturating_sub(1);
            segment.live_bytes = segment.live_bytes.saturating_sub(place.frame_len());
            self.set_segment(place.file, &segment)?;
        }
        if let Some(BlobFact { place, .. }) = new {
            let kind = if place.file == self.context.log { SegmentKind::Log } else { SegmentKind::Sealed };
            let mut segment = self.segment(place.file)?.unwrap_or(SegmentFact::empty(kind, place.key));
            (segment.kind, segment.key) = (kind, place.key);
            segment.live_frames += 1;
            segment.live_bytes += place.frame_len();
            segment.frame_bytes += place.frame_len();
            self.set(Key::segment(self.domain(), place.file), Some(segment.encode()));
        }
        Ok(())
    }
}
