//! Compaction: moves live content out of files that are mostly dead, and merges small files into one.
//!
//! Frames are verified and copied into a [pack](Pack), a new segment. When the pack is durable, the blobs' new places
//! are committed, a few hundred at a time; a blob is left alone if it is no longer in the place that was copied. The
//! commit that moves the last live frame out of a file gives the file up. A crash leaves either a pack that no fact
//! names, which the next opening removes, or files that are partly emptied.
//!
//! On a disk that is too full for a pack of the usual size, compaction empties files one at a time, those only whose
//! live content fits into half of the reserve.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::blobs::Blob;
use crate::clock::Pace;
use crate::digest::Digest;
use crate::envelope::KeyNumber;
use crate::error::{Error, Result};
use crate::facts::{BlobFact, Idle, IdleKind, Key, Lookup};
use crate::files::{Contents as _, NewFile, Space};
use crate::gc::Collections;
use crate::gc::collector::{Collector, Halt, Step};
use crate::gc::options::Stopped;
use crate::gc::plan::Candidate;
use crate::id::{DomainId, FileId, Lsn};
use crate::log::{frames, open_log};
use crate::segment::{DESCRIPTOR_LEN, Descriptor, Frame, Pack};
use crate::sync::lock;
use crate::transaction::Request;
use crate::transaction::collection::{Move, MoveFrames};

/// The most blobs that one commit moves: other commits wait for it.
const AT_ONCE: usize = 256;

/// The most frames in a pack: each takes 200 bytes of memory until they are published.
const MAX_FRAMES: usize = 64 << 10;

/// A pack being filled.
struct Filling {
    file: NewFile,
    pack: Pack,
    moves: Vec<Move>,
}

/// A pack that is durable and that no fact names yet.
struct Packed {
    file: NewFile,
    key: KeyNumber,
    moves: Vec<Move>,
}

/// The packs being filled, of each domain.
type Packs = BTreeMap<DomainId, Filling>;

/// A frame of a file: its domain, where it begins, its blob.
type Found = (DomainId, u64, Digest);

/// A blob whose content is in a file.
struct Live {
    key: Key,
    digest: Digest,
    fact: BlobFact,
}

impl Collector<'_> {
    /// Compacts what facts can be read of: the rest is left alone, which is reported.
    pub(super) fn compact_unless_damaged(&mut self) -> Step<()> {
        let compacted = self.compact();
        self.unless_damaged(compacted)
    }

    /// Gives back the space of dead frames in files that have live ones too.
    fn compact(&mut self) -> Step<()> {
        let mut plan = self.plan()?;
        if plan.may_fold && !self.is_dry() {
            // What is dead in log files whose facts no run has yet is more than may stay.
            match self.inner.fold_log() {
                // Then those files are left out.
                Err(Error::Full { .. }) => {}
                other => other?,
            }
            plan = self.plan()?;
        }
        self.report.to_move_bytes = plan.files.iter().map(|file| file.live).sum();
        if self.is_dry() {
            for file in &plan.files {
                self.report.files += 1;
                self.report.freed_bytes += file.len;
                self.report.moved_bytes += file.live;
            }
        }
        if self.is_dry() || plan.files.is_empty() {
            self.planned = Some(plan);
            return Ok(());
        }
        let moved = self.move_out(&plan.files);
        let ended = match moved {
            Err(Halt::Failed(Error::Full { .. })) => {
                self.evacuated.clear(); // what they had is not published
                self.move_out_in_reserve()
            }
            other => other,
        };
        ended.and(self.note_stuck())
    }

    /// Moves live content out of files.
    fn move_out(&mut self, files: &[Candidate]) -> Step<()> {
        self.writing = Pace::new(self.options.bytes_per_second);
        let mut packs = Packs::new();
        let moved = files.iter().try_for_each(|file| {
            let evacuated = self.evacuate(file, &mut packs);
            self.unless_damaged(evacuated)
        });
        let mut failed = None;
        for (domain, filling) in packs {
            if failed.is_none() {
                failed = self.finish(domain, filling).err();
            }
        }
        failed.map_or(moved, Err)
    }

    fn evacuate(&mut self, file: &Candidate, packs: &mut Packs) -> Step<()> {
        for live in self.live_in(file)? {
            self.check_budget()?;
            if let Some(frame) = self.copy(&live)? {
                self.put_in_pack(&live, &frame, packs)?;
            }
            self.go_on()?;
        }
        self.evacuated.push(file.id);
        Ok(())
    }

    /// A file that can't be emptied because it is damaged is not tried again before something in it changes.
    fn note_stuck(&mut self) -> Step<()> {
        if self.report.damaged.is_empty() {
            return Ok(());
        }
        for id in &self.evacuated {
            let left = self.left_in(*id)?;
            if left > 0 {
                lock(&self.inner.stuck).insert(*id, left);
            }
        }
        Ok(())
    }

    /// The content of a blob, verified; `None` where it is damaged, or the blob is not there any more.
    fn copy(&mut self, live: &Live) -> Result<Option<Frame>> {
        let read = || {
            self.inner.blobs.check_undamaged(&live.fact)?;
            let file = self.inner.files.open(&live.fact.place)?;
            let blob = Blob::new(live.digest, live.fact, file, &*self.inner.files, live.key.domain)?;
            blob.verify()?;
            Ok(Frame::new(live.digest, live.fact.len, live.fact.codec, &blob.stored_content()?))
        };
        match read() {
            Ok(frame) => Ok(Some(frame)),
            Err(error) if is_unreadable(&error) => {
                if self.inner.tables.snapshot().blob_by_key(&live.key)?.is_some_and(|now| now.place == live.fact.place)
                {
                    self.report.damaged.push(error);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn put_in_pack(&mut self, live: &Live, frame: &Frame, packs: &mut Packs) -> Step<()> {
        let domain = live.key.domain;
        let is_full = |filling: &Filling| {
            filling.pack.len() + frame.len(filling.pack.key()) > self.inner.settings.file_size
                || filling.moves.len() >= MAX_FRAMES
        };
        if packs.get(&domain).is_some_and(is_full)
            && let Some(filling) = packs.remove(&domain)
        {
            self.finish(domain, filling)?;
        }
        let filling = match packs.entry(domain) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.inner.begin_pack(domain)?),
        };
        if let Err(error) = filling.add(live, frame) {
            packs.remove(&domain);
            return Err(error.into());
        }
        self.pace(frame.bytes.len() as u64)
    }

    /// Makes a pack durable, and commits the blobs' new places.
    fn finish(&mut self, domain: DomainId, filling: Filling) -> Step<()> {
        let packed = self.inner.seal_pack(filling)?;
        self.commit_moves(domain, packed)
    }

    /// Commits that blobs are in a pack that is durable.
    fn commit_moves(&mut self, domain: DomainId, Packed { file, key, moves }: Packed) -> Step<()> {
        let (id, mut is_published, mut last) = (file.id(), false, Lsn::ZERO);
        let bytes = moves.iter().map(|step| step.to.fact(id, step.offset).place.frame_len()).sum();
        let mut commit = |this: &mut Self, moves: &[Move]| {
            let step = MoveFrames { file: id, key, bytes, goes_on: is_published, moves: moves.to_vec() };
            let outcome = this.commit(domain, Request::Apply(Box::new(step)))?;
            let moved = outcome.tally.moved;
            last = outcome.lsn;
            is_published |= moved.count > 0;
            this.report.moved += moved.count;
            this.report.moved_bytes += moved.bytes;
            Ok(())
        };
        let moved = moves.chunks(AT_ONCE).try_for_each(|moves| self.take_readable(moves, &mut commit));
        match &moved {
            _ if is_published => self.inner.log.publish(file, last)?,
            Ok(()) => drop(file),
            Err(_) => self.inner.log.give_up(file),
        }
        moved
    }

    /// Empties the files whose live content fits into half of the reserve.
    fn move_out_in_reserve(&mut self) -> Step<()> {
        let room = self.inner.settings.reserve / 2;
        let mut files = self.plan()?.files;
        files.retain(|file| file.live <= room && matches!(file.domains.as_slice(), [_]));
        files.sort_by_key(|file| file.live);
        let is_none = files.is_empty();
        for file in files {
            let live = self.live_in(&file)?;
            self.evacuated.push(file.id);
            let Some(domain) = live.first().map(|live| live.key.domain) else { continue };
            let mut frames = Vec::new();
            for live in &live {
                frames.extend(self.copy(live)?.map(|frame| (live, frame)));
            }
            let fill = || {
                let mut filling = self.inner.begin_pack(domain)?;
                frames.iter().try_for_each(|(live, frame)| filling.add(live, frame))?;
                self.inner.seal_pack(filling)
            };
            let packed = match self.inner.files.within(Space::Reserve, fill) {
                Err(Error::Full { .. }) => return Err(Halt::Stopped(Stopped::Space)),
                other => other?,
            };
            self.commit_moves(domain, packed)?;
            self.go_on()?;
        }
        if is_none { Err(Halt::Stopped(Stopped::Space)) } else { Ok(()) }
    }

    /// The blobs that live in a file, in the order in which they lie there.
    fn live_in(&mut self, file: &Candidate) -> Result<Vec<Live>> {
        let found = if file.is_log {
            self.inner.logged(file)
        } else {
            self.inner.packed(file).map(|found| (found, Vec::new()))
        };
        let (found, damage) = match found {
            // What would tell is damaged, or (a header's check) under a key that was given up.
            Err(error) if is_unreadable(&error) => return self.live_by_facts(file, &error),
            other => other?,
        };
        let mut live = Vec::new();
        for (domain, at, digest) in found {
            let key = Key::blob(domain, &digest);
            let fact = match self.inner.tables.snapshot_of(domain).blob(&digest) {
                Err(damage @ Error::Corrupt { .. }) => {
                    self.note_damage(damage);
                    continue;
                }
                fact => fact?,
            };
            let is_here = |fact: &BlobFact| (fact.place.file, fact.place.offset) == (file.id, at + DESCRIPTOR_LEN);
            live.extend(fact.filter(is_here).map(|fact| Live { key, digest, fact }));
        }
        // Damage to what is dead is none.
        let found: u64 = live.iter().map(|live| live.fact.place.frame_len()).sum();
        if !damage.is_empty() && found < self.left_in(file.id)? {
            self.report.damaged.extend(damage);
        }
        Ok(live)
    }

    /// How many bytes live in a file now.
    fn left_in(&self, id: FileId) -> Result<u64> {
        Ok(self.inner.tables.snapshot().segments(id)?.iter().map(|(_, segment)| segment.live_bytes).sum())
    }

    /// The same for a file whose header, footer or records can't be read, because of an error: looks through all blob
    /// facts of the domains that have something in it.
    fn live_by_facts(&mut self, file: &Candidate, error: &Error) -> Result<Vec<Live>> {
        let mut live = Vec::new();
        if self.left_in(file.id)? == 0 {
            return Ok(live); // it is gone
        }
        for domain in &file.domains {
            for fact in self.inner.tables.snapshot_of(*domain).all::<BlobFact>()? {
                let (key, fact) = fact?;
                if fact.place.file != file.id {
                    continue;
                }
                match self.inner.blobs.digest_of(&key, &fact) {
                    Ok(digest) => live.push(Live { key, digest, fact }),
                    Err(short) if short.is_shortage() => return Err(short),
                    Err(_) => self.report.damaged.push(error.clone()),
                }
            }
        }
        live.sort_by_key(|live| live.fact.place.offset);
        Ok(live)
    }

    /// Merges the runs of domains in which many facts are dead.
    pub(super) fn merge_facts(&mut self) -> Step<()> {
        if self.is_dry() || self.options.max_bytes == Some(0) {
            return Ok(());
        }
        let run_bytes = |inner: &Collections| inner.tables.run_bytes();
        let before = run_bytes(self.inner);
        match self.inner.tables.merge_if_dead(&*self.inner.log, self.options.max_dead) {
            Err(Error::Full { .. }) => return Err(Halt::Stopped(Stopped::Space)),
            merged => merged?.damage.into_iter().for_each(|damage| self.note_damage(damage)),
        }
        self.go_on()?;
        self.report.run_bytes = before.saturating_sub(run_bytes(self.inner));
        Ok(())
    }

    /// Reports the live and dead bytes that the store has now, and why the dead ones were kept.
    pub(super) fn report_rest(&mut self) -> Step<()> {
        let plan = match self.planned.take() {
            Some(plan) => plan,
            None => self.plan()?,
        };
        // A dry run that came to its end would have done all of it.
        let is_done = self.is_dry() && self.report.stopped.is_none();
        let unreached = if is_done { 0 } else { plan.files.iter().map(Candidate::dead).sum() };
        (self.report.live_bytes, self.report.dead_bytes) = (plan.live, plan.dead);
        let stayed = &mut self.report.stayed;
        (stayed.scattered_bytes, stayed.log_bytes, stayed.damaged_bytes) = (plan.scattered, plan.logs, plan.damaged);
        (stayed.unreached_bytes, stayed.locked_bytes) = (unreached, plan.locked);
        if self.options.explain && !self.is_dry() {
            for domain in self.domains() {
                let blobs = self.inner.tables.snapshot_of(domain);
                for blob in blobs.scan_all(Idle::all(domain, IdleKind::Blob))? {
                    let counted = blob.map(|_| self.report.stayed.recent_blobs += 1);
                    self.unless_damaged(counted.map_err(Halt::from))?;
                }
            }
        }
        self.report.held_bytes = self.inner.files.held_bytes();
        Ok(())
    }
}

/// Whether an error says that something can't be read, rather than that nothing can be done, or not now.
fn is_unreadable(error: &Error) -> bool {
    let is_reading = matches!(error, Error::Io { operation: "read" | "open" | "read the length of", .. });
    matches!(error, Error::Corrupt { .. }) || is_reading && !error.is_shortage()
}

impl Filling {
    fn add(&mut self, live: &Live, frame: &Frame) -> Result<()> {
        let (to, offset) = self.pack.append(frame)?;
        self.moves.push(Move { from: live.fact.place, to, offset });
        Ok(())
    }
}

impl Collections {
    fn begin_pack(&self, domain: DomainId) -> Result<Filling> {
        let file = self.files.begin();
        let pack = Pack::begin(self.files.create(file.id())?, file.id(), &self.files.keys(), domain)?;
        Ok(Filling { file, pack, moves: Vec::new() })
    }

    /// Makes a pack durable.
    fn seal_pack(&self, Filling { file, pack, moves }: Filling) -> Result<Packed> {
        let key = pack.key();
        pack.finish().map_err(|error| self.files.fail_stop(error))?;
        Ok(Packed { file, key, moves })
    }

    /// Folds the log into runs, so that its files are no longer needed for recovery.
    fn fold_log(&self) -> Result<()> {
        self.log.begin_log()?;
        self.log.checkpoint()?;
        self.log.unlist_folded_logs(self.tables.history(), Space::Reserve)
    }

    /// The frames of a log file, by its records' headers, and the damage met.
    fn logged(&self, file: &Candidate) -> Result<(Vec<Found>, Vec<Error>)> {
        let (path, handle, header) = open_log(&self.files, file.id)?;
        let mut found = Vec::new();
        let note = |domain, at, descriptor: Descriptor| found.push((domain, at, descriptor.digest));
        let damage = frames(&path, &*handle, file.len, &header, &self.files.keys(), note)?;
        Ok((found, damage))
    }

    /// The frames of a segment, by its footer.
    fn packed(&self, file: &Candidate) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for (domain, segment) in self.tables.snapshot().segments(file.id)? {
            let footer = self.files.footer(file.id, domain, segment.key)?;
            found.extend(footer.into_iter().map(|(at, _, digest)| (domain, at, digest)));
        }
        Ok(found)
    }
}
