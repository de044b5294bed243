//! The facts that a commit changes.
//!
//! # Invariants kept here
//! - A blob's count is the number of (named file, digest) pairs that name it, and of the repositories' links and
//!   manifests under its digest. Only [`Changes::hold`], [`Changes::release_from`] and its likes change it.
//! - A blob has an entry in the [idle list](Idle), under the time at which it was touched, exactly while its count is
//!   0: [`Changes::change`]. So has a named file that expires, under that time: [`Changes::set_named`].
//! - A segment's live frames and bytes are those of the blobs of one domain placed in it. Only [`Changes::change`]
//!   changes them, and every change of a blob's place goes through it.
//! - A file is given up with the last fact that a domain has of it: [`Changes::drop_file`].

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::{Retention, Times};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::{
    BlobFact, Fact, Idle, Key, Lookup, NamedFact, Place, Prefix, SegmentFact, SegmentKind, UploadFact, Value,
};
use crate::id::{DomainId, FileId, Lsn, UploadId};
use crate::segment::Descriptor;
use crate::transaction::named::{NamedOutcome, Released};
use crate::transaction::placing::scan_over;
use crate::transaction::{Context, MAX_BODY, Op, Tally, Then, miscounted, one_less, one_more};

/// The facts that a commit changes, over those of all earlier commits.
#[derive(Debug)]
pub(crate) struct Changes<'a> {
    context: &'a Context<'a>,
    pub(super) changed: BTreeMap<Key, Option<Value>>,
    /// Entries of the idle list that this commit has made: where it takes them away again, nothing has
    /// to be said of them.
    new_entries: BTreeSet<Key>,
    /// How long the values are that have changed, in bytes.
    bytes: usize,
    pub(super) dropped: Vec<FileId>,
    pub(super) refused: Vec<(usize, Error)>,
    pub(super) named: Option<Box<NamedOutcome>>,
    pub(crate) tally: Tally,
    /// Whether the repository that content goes to had it already.
    pub(crate) was_linked: bool,
}

impl Lookup for Changes<'_> {
    fn domain(&self) -> DomainId {
        self.context.domain
    }

    fn decode<T>(&self, key: &Key, decode: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>> {
        let value = self.get(key)?;
        value.map(|value| decode(value.as_bytes()).ok_or_else(|| self.invalid(key))).transpose()
    }
}

impl<'a> Changes<'a> {
    /// Changes to what there is, beginning with facts that stand as they are.
    pub(crate) fn new(context: &'a Context<'a>, facts: Vec<Fact>) -> Self {
        let mut new = Self {
            context,
            changed: BTreeMap::new(),
            new_entries: BTreeSet::new(),
            bytes: 0,
            dropped: Vec::new(),
            refused: Vec::new(),
            named: None,
            tally: Tally::default(),
            was_linked: false,
        };
        facts.into_iter().for_each(|(key, value)| new.set(key, value));
        new
    }

    /// All facts changed.
    pub(crate) fn into_facts(self) -> Vec<Fact> {
        self.changed.into_iter().collect()
    }

    /// Does what follows from content having been stored. Where that is nothing, the caller relies on the blob itself.
    pub(super) fn follow(&mut self, mut ops: Vec<Op>, digest: &Digest, then: &Then) -> Result<Vec<Op>> {
        match then {
            Some(then) => ops.extend(then.apply(self)?),
            None => self.touch(digest)?,
        }
        Ok(ops)
    }

    /// The grace period for unreferenced blobs and links.
    pub(crate) fn retention(&self) -> Retention {
        self.context.retention
    }

    /// All domains that are not locked, in order: the default one first.
    pub(crate) fn domains(&self) -> &'a [DomainId] {
        self.context.facts.domains()
    }

    /// Why a domain is locked, if it is.
    pub(crate) fn lock_of(&self, domain: DomainId) -> Option<&'a Error> {
        self.context.facts.lock_of(domain)
    }

    /// The LSN that this commit gets.
    pub(crate) fn lsn(&self) -> Lsn {
        self.context.placing.lsn()
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
        scan_over(&self.changed, self.context.facts, prefix, after, limit)
    }

    /// The value under a key.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Value>> {
        match self.changed.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.context.facts.get(key),
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

    /// The entry of this time in the idle list, if it is there.
    pub(crate) fn idle(&self, idle: &Idle) -> Result<Option<Idle>> {
        let at = idle.at();
        self.decode(&at, |value| Idle::decode(&at, value))
    }

    /// Puts something in the idle list, takes it out, or moves it to another time. An entry that stays
    /// is left as it is.
    pub(crate) fn relist(&mut self, old: Option<Idle>, new: Option<Idle>) {
        if old == new {
            return;
        }
        if let Some(old) = old.map(|old| old.at()) {
            if self.new_entries.remove(&old) {
                let entry = self.changed.remove(&old).flatten();
                self.bytes -= entry.map_or(0, |entry| entry.as_bytes().len());
            } else {
                self.set(old, None);
            }
        }
        if let Some((at, value)) = new.map(|new| new.fact()) {
            if !self.changed.contains_key(&at) {
                self.new_entries.insert(at);
            }
            self.set(at, value);
        }
    }

    pub(super) fn set_named(&mut self, old: Option<&NamedFact>, new: Option<&NamedFact>) {
        let Some(name) = new.or(old).map(|file| &file.name) else { return };
        let key = Key::named(self.domain(), name);
        let idle = |file: Option<&NamedFact>| file.and_then(|file| Idle::of_named(&key, file));
        self.relist(idle(old), idle(new));
        self.set(key, new.map(NamedFact::encode));
    }

    pub(super) fn named(&self, name: &str) -> Result<Option<NamedFact>> {
        self.decode(&Key::named(self.domain(), name), NamedFact::decode)
    }

    /// Notes what became of a named file, for the caller.
    pub(super) fn note_named(&mut self, outcome: NamedOutcome) {
        self.named = Some(Box::new(outcome));
    }

    pub(super) fn upload(&self, id: UploadId) -> Result<Option<UploadFact>> {
        self.decode(&Key::upload(self.domain(), id), UploadFact::decode)
    }

    /// Makes sure that an upload stands where the caller left it.
    pub(super) fn expect_upload(&self, id: UploadId, expected: &UploadFact) -> Result<()> {
        match self.upload(id)? {
            Some(upload) if upload == *expected => Ok(()),
            Some(upload) => Err(Error::WrongOffset { expected: upload.offset, found: expected.offset }),
            None => Err(Error::UploadNotFound { id }),
        }
    }

    /// Stores a blob whose content rides in the commit's record, unless it is there, and says whether it was.
    pub(super) fn put_frame(&mut self, descriptor: &Descriptor, then: &Then) -> Result<bool> {
        let (log, offset, key) = self.context.placing.frame();
        self.put(&descriptor.in_log(key), log, offset, then)
    }

    /// Stores a blob unless it is there, and says whether it was. One that is damaged takes the new content.
    pub(super) fn put(
        &mut self,
        descriptor: &Descriptor,
        file: FileId,
        frame_offset: u64,
        then: &Then,
    ) -> Result<bool> {
        let old = self.blob(&descriptor.digest)?;
        // As `follow` would leave it.
        let touched = if then.is_none() { self.now().touched() } else { 0 };
        let mut new = BlobFact { touched, stored: self.now().seconds(), ..descriptor.fact(file, frame_offset) };
        match &old {
            Some(old) if old.damaged => (new.count, new.touched) = (old.count, old.touched),
            Some(_) => return Ok(true),
            None => {}
        }
        self.change(Key::blob(self.domain(), &descriptor.digest), old.as_ref(), Some(&new))?;
        Ok(false)
    }

    /// Notes that somebody outside of any repository relies on a blob, unless that was noted a moment ago.
    pub(super) fn touch(&mut self, digest: &Digest) -> Result<()> {
        let blob = self.blob(digest)?.ok_or(Error::BlobNotFound { digest: *digest })?;
        let touched = self.now().touched();
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
        let BlobFact { count, touched, stored, .. } = old;
        let new = BlobFact { count, touched, stored, ..to.fact(file, frame_offset) };
        self.change(Key::blob(self.domain(), &to.digest), Some(&old), Some(&new))?;
        Ok(true)
    }

    /// Counts one more that holds a blob.
    pub(crate) fn hold(&mut self, digest: &Digest) -> Result<()> {
        let blob = self.blob(digest)?.ok_or(Error::BlobNotFound { digest: *digest })?;
        let count = one_more(blob.count)?;
        self.change(Key::blob(self.domain(), digest), Some(&blob), Some(&BlobFact { count, ..blob }))
    }

    /// Counts one less that holds a blob, which the fact under `holder` holds.
    pub(crate) fn release_from(&mut self, digest: &Digest, holder: &Key) -> Result<()> {
        let blob = self.blob(digest)?.ok_or_else(|| self.holds_nothing(holder))?;
        self.release_blob(Key::blob(self.domain(), digest), &blob)
    }

    /// Counts one less that holds the blob with this key, which the fact under `holder` holds.
    pub(crate) fn release_key(&mut self, key: Key, holder: &Key) -> Result<()> {
        let blob = self.blob_by_key(&key)?.ok_or_else(|| self.holds_nothing(holder))?;
        self.release_blob(key, &blob)
    }

    /// Counts one less that holds a blob, which the named file under `holder` holds. Where the content is to be kept,
    /// its grace period begins, unless it began a moment ago.
    pub(super) fn release_named(&mut self, digest: &Digest, holder: &Key, released: Released) -> Result<()> {
        let mut blob = self.blob(digest)?.ok_or_else(|| self.holds_nothing(holder))?;
        let (old, now) = (blob, self.now().touched());
        if released == Released::Kept && blob.is_stale(self.retention(), now) {
            blob.touched = now;
        }
        let key = Key::blob(self.domain(), digest);
        let count = one_less(self, &key, blob.count)?;
        self.change(key, Some(&old), Some(&BlobFact { count, ..blob }))
    }

    fn release_blob(&mut self, key: Key, blob: &BlobFact) -> Result<()> {
        let count = one_less(self, &key, blob.count)?;
        self.change(key, Some(blob), Some(&BlobFact { count, ..*blob }))
    }

    /// The error that what a fact holds is not there. Who stores it again can have the counts repaired, and then lets
    /// go of it.
    pub(crate) fn holds_nothing(&self, holder: &Key) -> Error {
        self.miscounted(holder, "reference: what it holds is missing")
    }

    /// The error that the fact under a key does not agree with others, with its place.
    pub(crate) fn miscounted(&self, key: &Key, what: &'static str) -> Error {
        miscounted(self.context.facts, key, what)
    }

    /// The error that the value under a key can't be decoded, with its place.
    pub(crate) fn invalid(&self, key: &Key) -> Error {
        self.context.facts.invalid(key)
    }

    /// Notes that a part of a request was not done, while the others are.
    pub(crate) fn refuse(&mut self, part: usize, error: Error) {
        self.refused.push((part, error));
    }

    /// Lets an upload stand there, with the parts of its list of block checksums that changed, and perhaps a new file.
    pub(super) fn set_upload(&mut self, id: UploadId, to: &UploadFact, parts: &[(u64, Vec<u8>)], file_is_new: bool) {
        let domain = self.domain();
        self.set(Key::upload(domain, id), Some(to.encode()));
        for (number, part) in parts {
            self.set(Key::upload_part(domain, id, *number), Some(Value::new(part)));
        }
        if let Some(file) = to.file.filter(|_| file_is_new) {
            self.set(Key::segment(domain, file), Some(SegmentFact::empty(SegmentKind::Upload, to.key).encode()));
        }
    }

    /// Removes all facts of an upload, and its file with them where no blob lies in it.
    pub(super) fn end_upload(&mut self, id: UploadId, upload: &UploadFact, drop_file: bool) -> Result<()> {
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

    /// Sets what the domain has in a file, from which something went, and gives the file up where nothing is left that
    /// needs it.
    pub(crate) fn set_segment(&mut self, file: FileId, segment: &SegmentFact) -> Result<()> {
        let is_needed = segment.kind == SegmentKind::Log && self.context.placing.is_needed(file);
        if segment.live_frames == 0 && !is_needed {
            return self.drop_file(file);
        }
        self.set(Key::segment(self.domain(), file), Some(segment.encode()));
        Ok(())
    }

    /// Sets how many bytes of frames the domain has in a file, if it has any: what no blob has of them is dead.
    pub(crate) fn set_frame_bytes(&mut self, file: FileId, frame_bytes: u64) -> Result<()> {
        if let Some(segment) = self.segment(file)? {
            let segment = SegmentFact { frame_bytes, ..segment };
            self.set(Key::segment(self.domain(), file), Some(segment.encode()));
        }
        Ok(())
    }

    /// Changes a blob's fact, and carries that over to the idle list and, where its place changes, to
    /// the segments concerned.
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
        if let Some(BlobFact { place, .. }) = old {
            let lies = || self.miscounted(&key, "place: nothing is on record of its file");
            let mut segment = self.segment(place.file)?.ok_or_else(lies)?;
            let (frames, bytes) =
                (segment.live_frames.checked_sub(1), segment.live_bytes.checked_sub(place.frame_len()));
            let at = Key::segment(self.domain(), place.file);
            let less = || self.miscounted(&at, "count of what lives in a file: less than what does");
            (segment.live_frames, segment.live_bytes) = frames.zip(bytes).ok_or_else(less)?;
            self.set_segment(place.file, &segment)?;
        }
        if let Some(BlobFact { place, .. }) = new {
            let kind = self.context.placing.kind(place.file);
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
