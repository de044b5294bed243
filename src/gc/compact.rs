//! Compaction: what lives moves out of files that are mostly dead, and small files become one.
//!
//! Frames are copied, verified on the way, into a [pack](Pack), a new segment. When that is durable, the blobs' new places are committed, a few hundred at a
//! time, each if the blob is still in the place that was copied. A file goes in the commit that moves its last live frame. A crash leaves a pack
//! that no fact names, which the next opening removes, or files of which a part has moved.
//!
//! On a disk that is too full for a pack of the usual size, files are taken up of which so little lives that the reserve has space for it, one at a time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::blob::Blob;
use crate::digest::Digest;
use crate::envelope::{FileEnvelope, KeyNumber, Purpose};
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Idle, IdleKind, Key, Place};
use crate::gc::collector::{Collector, Halt, Step};
use crate::gc::options::Stopped;
use crate::gc::plan::Candidate;
use crate::id::{DomainId, FileId};
use crate::log::{Op, frames};
use crate::segment::{DESCRIPTOR_LEN, Descriptor, Frame, Pack, parse_footer, parse_header};
use crate::store::Inner;
use crate::store::files::Space;
use crate::store::request::{Apply, Facts, Request};
use crate::store::view::Lookup;
use crate::sync::lock;
use crate::vfs::OpenMode;

/// So many blobs change their places in one commit: others wait for it.
const AT_ONCE: usize = 256;

/// So many frames has a pack at most: what is remembered of each until they are published takes 200 bytes.
const MAX_FRAMES: usize = 64 << 10;

/// Lets blobs lie in a pack that lie in other places now.
#[derive(Debug)]
struct MoveFrames {
    file: FileId,
    key: KeyNumber,
    moves: Vec<Move>,
}

/// A blob's place, and the frame in the pack that has the same content.
#[derive(Clone, Copy, Debug)]
struct Move {
    from: Place,
    to: Descriptor,
    offset: u64,
}

impl Apply for MoveFrames {
    fn apply(&self, facts: &mut Facts<'_>) -> Result<Vec<Op>> {
        for Move { from, to, offset } in &self.moves {
            facts.put_elsewhere(from, to, self.file, *offset)?;
        }
        Ok(Vec::new())
    }

    fn space(&self) -> Space {
        Space::Reserve
    }

    fn segment_key(&self) -> Option<KeyNumber> {
        Some(self.key)
    }
}

/// A pack being filled.
struct Filling {
    id: FileId,
    pack: Pack,
    moves: Vec<Move>,
}

/// The packs being filled, of each domain.
type Packs = BTreeMap<DomainId, Filling>;

/// A blob that lives in a file.
struct Live {
    key: Key,
    digest: Digest,
    fact: BlobFact,
}

impl Collector<'_> {
    /// Gives back the space that is scattered among what lives.
    pub(super) fn compact(&mut self) -> Step<()> {
        let mut plan = self.plan()?;
        if plan.may_fold && !self.is_dry() {
            // What is dead in log files whose facts no run has yet is more than may stay.
            self.inner.begin_log()?;
            self.inner.checkpoint()?;
            self.inner.unlist_folded_logs(self.inner.history(), Space::Reserve)?;
            plan = self.plan()?;
        }
        self.report.to_move_bytes = plan.files.iter().map(|file| file.live).sum();
        if self.is_dry() {
            for file in &plan.files {
                self.report.files += 1;
                self.report.freed_bytes += file.len;
                self.report.moved_bytes += file.live;
            }
            return Ok(());
        }
        let moved = self.move_out(&plan.files);
        let ended = match moved {
            Err(Halt::Failed(Error::Full { .. })) => self.move_out_in_reserve(),
            other => other,
        };
        ended.and(self.note_stuck(&plan.files))
    }

    /// Moves out of files what lives in them.
    fn move_out(&mut self, files: &[Candidate]) -> Step<()> {
        let mut packs = Packs::new();
        let moved = files.iter().try_for_each(|file| self.evacuate(file, &mut packs));
        let published = packs.into_iter().try_for_each(|(domain, filling)| self.finish(domain, filling));
        match published {
            Err(error @ Halt::Failed(_)) => Err(error),
            _ => moved,
        }
    }

    fn evacuate(&mut self, file: &Candidate, packs: &mut Packs) -> Step<()> {
        for live in self.live_in(file)? {
            self.check_budget()?;
            if let Some(frame) = self.copy(&live)? {
                self.put_in_pack(&live, &frame, packs)?;
            }
            self.go_on()?;
        }
        Ok(())
    }

    /// A file out of which not all can be moved, since it is damaged, is not taken up again before something in it changes.
    fn note_stuck(&mut self, files: &[Candidate]) -> Step<()> {
        if self.report.damaged.is_empty() {
            return Ok(());
        }
        let snapshot = self.inner.snapshot();
        for file in files {
            let left: u64 = snapshot.segments(file.id)?.iter().map(|(_, segment)| segment.live_bytes).sum();
            if left > 0 {
                lock(&self.inner.collections.stuck).insert(file.id, left);
            }
        }
        Ok(())
    }

    /// The content of a blob, verified; `None` where it is damaged, or the blob is not there any more.
    fn copy(&mut self, live: &Live) -> Result<Option<Frame>> {
        let read = || {
            self.inner.check_undamaged(&live.fact)?;
            let file = self.inner.files.get(&live.fact.place)?;
            let blob = Blob::new(live.digest, live.fact, file, &self.inner.files.keys.get(), live.key.domain)?;
            blob.verify()?;
            Ok(Frame::new(live.digest, live.fact.len, live.fact.codec, &blob.stored_content()?))
        };
        match read() {
            Ok(frame) => Ok(Some(frame)),
            Err(error @ Error::Corrupt { .. }) => {
                if self.inner.snapshot().blob_by_key(&live.key)?.is_some_and(|now| now.place == live.fact.place) {
                    self.report.damaged.push(error);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn put_in_pack(&mut self, live: &Live, frame: &Frame, packs: &mut Packs) -> Step<()> {
        let domain = live.key.domain;
        if let Some(filling) = packs.remove(&domain) {
            let is_full = filling.pack.len() + frame.len(filling.pack.key()) > self.inner.options.log_file_size
                || filling.moves.len() >= MAX_FRAMES;
            if is_full {
                self.finish(domain, filling)?;
            } else {
                packs.insert(domain, filling);
            }
        }
        let filling = match packs.entry(domain) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.inner.begin_pack(domain)?),
        };
        let added = filling.add(live, frame);
        if let Err(error) = added {
            let filling = packs.remove(&domain);
            filling.iter().for_each(|filling| self.inner.files.discard(filling.id));
            return Err(error.into());
        }
        self.pace(frame.bytes.len() as u64)
    }

    /// Makes a pack durable, and lets the blobs lie there.
    fn finish(&mut self, domain: DomainId, filling: Filling) -> Step<()> {
        let Filling { id, pack, moves } = filling;
        let key = pack.key();
        if let Err(error) = pack.finish() {
            self.inner.files.give_up(id, &error);
            return Err(self.inner.fail_stop(error).into());
        }
        let mut is_published = false;
        for moves in moves.chunks(AT_ONCE) {
            let request = Request::Apply(Box::new(MoveFrames { file: id, key, moves: moves.to_vec() }));
            match self.commit(domain, request) {
                Ok(outcome) => {
                    let moved = outcome.tally.moved;
                    is_published |= moved.count > 0;
                    self.report.moved += moved.count;
                    self.report.moved_bytes += moved.bytes;
                }
                Err(error) => {
                    if is_published {
                        self.inner.publish(id)?;
                    } else {
                        self.inner.files.give_up(id, &error);
                    }
                    return Err(error.into());
                }
            }
        }
        if is_published {
            self.inner.publish(id)?;
        } else {
            self.inner.files.discard(id);
        }
        Ok(())
    }

    /// Takes up the files of which so little lives that there is space for it in the reserve.
    fn move_out_in_reserve(&mut self) -> Step<()> {
        let room = self.inner.options.reserve_len() / 2;
        let mut files = self.plan()?.files;
        files.retain(|file| file.live <= room && matches!(file.domains.as_slice(), [_]));
        files.sort_by_key(|file| file.live);
        let is_none = files.is_empty();
        for file in files {
            let live = self.live_in(&file)?;
            let Some(domain) = live.first().map(|live| live.key.domain) else { continue };
            let mut frames = Vec::new();
            for live in &live {
                frames.extend(self.copy(live)?.map(|frame| (live, frame)));
            }
            let fill = || {
                let mut filling = self.inner.begin_pack(domain)?;
                let filled = frames.iter().try_for_each(|(live, frame)| filling.add(live, frame));
                filled.inspect_err(|_| self.inner.files.discard(filling.id)).map(|()| filling)
            };
            let filling = match self.inner.files.within(Space::Reserve, fill) {
                Err(Error::Full { .. }) => return Err(Halt::Stopped(Stopped::Space)),
                other => other?,
            };
            self.finish(domain, filling)?;
            self.go_on()?;
        }
        if is_none { Err(Halt::Stopped(Stopped::Space)) } else { Ok(()) }
    }

    /// The blobs that live in a file, in the order in which they lie there.
    fn live_in(&mut self, file: &Candidate) -> Result<Vec<Live>> {
        let (mut found, mut damage) = (Vec::new(), Vec::new());
        let keys = self.inner.files.keys.get();
        if file.is_log {
            let (path, handle, header) = match self.inner.files.open_log(file.id) {
                Err(error @ Error::Corrupt { .. }) => {
                    self.report.damaged.push(error);
                    return Ok(Vec::new());
                }
                other => other?,
            };
            let note = |domain, at, descriptor: Descriptor| found.push((domain, at, descriptor.digest));
            damage.extend(frames(&path, &*handle, file.len, &header, &keys, note)?);
        } else {
            for domain in &file.domains {
                match self.inner.packed(file.id, *domain) {
                    Ok(frames) => found.extend(frames.into_iter().map(|(at, digest)| (*domain, at, digest))),
                    Err(error @ Error::Corrupt { .. }) => damage.push(error),
                    Err(error) => return Err(error),
                }
            }
        }
        let mut live = Vec::new();
        for (domain, at, digest) in found {
            let key = Key::blob(domain, &digest);
            let fact = self.inner.snapshot_of(domain).blob(&digest)?;
            let is_here = |fact: &BlobFact| (fact.place.file, fact.place.offset) == (file.id, at + DESCRIPTOR_LEN);
            live.extend(fact.filter(is_here).map(|fact| Live { key, digest, fact }));
        }
        // Damage to what is dead is none.
        if live.iter().map(|live| live.fact.place.frame_len()).sum::<u64>() < file.live {
            self.report.damaged.extend(damage);
        }
        Ok(live)
    }

    /// Lets dead facts leave the runs, where they are many.
    pub(super) fn merge_facts(&mut self) -> Step<()> {
        if self.is_dry() || self.options.max_bytes == Some(0) {
            return Ok(());
        }
        let run_bytes = |inner: &Inner| inner.view().runs.iter().map(|run| run.len()).sum::<u64>();
        let before = run_bytes(self.inner);
        for domain in self.domains() {
            self.inner.merge_if_dead(domain, self.options.max_dead)?;
            self.go_on()?;
        }
        self.report.run_bytes = before.saturating_sub(run_bytes(self.inner));
        Ok(())
    }

    /// What stands after all that was done, and why the rest stayed.
    pub(super) fn look_back(&mut self) -> Result<()> {
        let plan = self.plan()?;
        // A dry run that came to its end would have done all of it.
        let is_done = self.is_dry() && self.report.stopped.is_none();
        let unreached = if is_done { 0 } else { plan.files.iter().map(Candidate::dead).sum() };
        (self.report.live_bytes, self.report.dead_bytes) = (plan.live, plan.dead);
        let stayed = &mut self.report.stayed;
        (stayed.scattered_bytes, stayed.log_bytes, stayed.damaged_bytes) = (plan.scattered, plan.logs, plan.damaged);
        stayed.unreached_bytes = unreached;
        if self.options.explain && !self.is_dry() {
            for domain in self.domains() {
                let blobs = self.inner.snapshot_of(domain);
                for blob in blobs.scan(Idle::all(domain, IdleKind::Blob))? {
                    blob?;
                    self.report.stayed.recent_blobs += 1;
                }
            }
        }
        self.report.held_bytes = self.inner.files.held_bytes();
        Ok(())
    }
}

impl Filling {
    fn add(&mut self, live: &Live, frame: &Frame) -> Result<()> {
        let (to, offset) = self.pack.append(frame)?;
        self.moves.push(Move { from: live.fact.place, to, offset });
        Ok(())
    }
}

impl Inner {
    fn begin_pack(&self, domain: DomainId) -> Result<Filling> {
        let id = self.files.new_id();
        let create = || {
            let files = &self.files;
            let dir = files.prepare_shard(&files.layout.segments(), id)?;
            let pack = Pack::create(&*files.vfs, files.layout.segment(id), id, &files.keys.get(), domain)?;
            files.vfs.sync_dir(&dir).map_err(Error::io("sync", &dir))?;
            Ok(Filling { id, pack, moves: Vec::new() })
        };
        create().map_err(|error| self.fail_stop(error)).inspect_err(|error| self.files.give_up(id, error))
    }

    /// Where the frames of a segment begin, and of which blobs they are, by its footer.
    fn packed(&self, id: FileId, domain: DomainId) -> Result<Vec<(u64, Digest)>> {
        let path = self.files.layout.segment(id);
        let file = self.files.vfs.open(&path, OpenMode::Read).map_err(Error::opening(&path))?;
        let read = |offset, len| {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, offset).ok().map(|()| bytes)
        };
        let invalid = |at| Error::corrupt(&path, at, Damage::Invalid("segment footer"));
        let header = read(0, 512).ok_or_else(|| invalid(0))?;
        let parsed =
            parse_header(&header).ok_or_else(|| Error::corrupt(&path, 0, Damage::Invalid("segment header")))?;
        let envelope = FileEnvelope::new(id, &header);
        let sealing = envelope.opening(&self.files.keys.get(), domain, parsed.key, Purpose::Content);
        let len = file.len().map_err(Error::io("read the length of", &path))?;
        let footer = parse_footer(len, sealing.as_ref(), read).ok_or_else(|| invalid(len))?;
        Ok(footer.into_iter().map(|(at, _, digest)| (at, digest)).collect())
    }
}
