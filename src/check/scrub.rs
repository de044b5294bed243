//! Scrubbing: reads all content again, at a bounded rate, and flags what is damaged.
//!
//! Content is read in the order of keys, domain by domain. The scrub's position is a fact, written now and then, and
//! removed at the end: a crash repeats what was read since the last write. Blobs that are stored before the position
//! are not read, and a blob that moves is read in the place that it has when its turn comes.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::check::Checks;
use crate::check::content::{Found, Reread};
use crate::check::finding::{Finding, MOST_LISTED};
use crate::check::recount::Listener;
use crate::check::report::{DamagedBlob, Scrub, ScrubOptions};
use crate::check::wrong::Wrong;
use crate::check::{Halt, Step};
use crate::clock::Pace;
use crate::digest::Digest;
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Family, Key, Lookup, Place, ProgressFact, successor};
use crate::files::Contents as _;
use crate::id::DomainId;
use crate::sync::lock;
use crate::tables::Snapshot;
use crate::transaction::{Apply, Changes, Op, Request};

/// Where it stands is written after so many bytes, or so much time.
const SAVE_BYTES: u64 = 1 << 30;
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// So many keys are looked up at a time: each time costs a look through all facts that no run has.
const BATCH: usize = if cfg!(test) { 16 } else { 16 << 10 };

/// While facts are gone through, progress is told each time that so many were.
const STEPS: u64 = 4096;

/// Flags a blob as damaged, or takes the flag away, if it is still in the place that was read.
#[derive(Debug)]
struct Flag {
    key: Key,
    place: Place,
    damaged: bool,
}

impl Apply for Flag {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let is_same = |blob: &BlobFact| blob.place == self.place && blob.damaged != self.damaged;
        if let Some(blob) = facts.blob_by_key(&self.key)?.filter(is_same) {
            facts.change(self.key, Some(&blob), Some(&BlobFact { damaged: self.damaged, ..blob }))?;
        }
        Ok(Vec::new())
    }
}

/// Notes how far a scrub has come; nothing: that there is none to go on with.
#[derive(Debug)]
struct Save(Option<ProgressFact>);

impl Apply for Save {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let key = Key::progress(facts.domain());
        let new = self.0.map(|progress| progress.encode());
        if facts.get(&key)? != new {
            facts.set(key, new);
        }
        Ok(Vec::new())
    }
}

impl Checks {
    /// [`Store::scrub`](crate::Store::scrub).
    pub(crate) fn scrub(
        &self,
        options: &ScrubOptions,
        progress: &mut dyn FnMut(&Scrub) -> ControlFlow<()>,
    ) -> Result<Scrub> {
        let _one = lock(&self.scrubbing);
        self.files.check_writable()?;
        Scrubber::new(self, options, progress).run()
    }
}

/// What is to be read next: the first blob of a domain whose key is not below this one.
type Cursor = (DomainId, [u8; 32]);

/// A scrub under way.
pub(super) struct Scrubber<'a> {
    pub(super) inner: &'a Checks,
    options: &'a ScrubOptions,
    progress: &'a mut dyn FnMut(&Scrub) -> ControlFlow<()>,
    pub(super) report: Scrub,
    /// The blobs of [`Scrub::damaged`].
    pub(super) keys: Vec<Key>,
    began: Instant,
    /// How many bytes were read by this call.
    reading: Pace,
    steps: u64,
    next: Cursor,
    /// When, and after how many bytes read, it was last noted where it stands.
    saved: (Instant, u64),
    /// Whether facts are damaged that say which blobs there are.
    blind: bool,
}

impl<'a> Scrubber<'a> {
    fn new(
        inner: &'a Checks,
        options: &'a ScrubOptions,
        progress: &'a mut dyn FnMut(&Scrub) -> ControlFlow<()>,
    ) -> Self {
        let (began_ms, locked) = (inner.clock.now().wall, inner.files.keys().locked_domains());
        let report = Scrub { began_ms, all_listed: true, locked, ..Scrub::default() };
        let (began, next) = (Instant::now(), (DomainId::DEFAULT, [0; 32]));
        let (keys, saved, reading) = (Vec::new(), (began, 0), Pace::new(options.bytes_per_second));
        Self { inner, options, progress, report, keys, began, reading, steps: 0, next, saved, blind: false }
    }

    fn run(mut self) -> Result<Scrub> {
        let mut is_reading = self.resume()?;
        let ended = self.begin(is_reading).and_then(|()| {
            is_reading = true;
            self.read_all()
        });
        match ended {
            Ok(()) => {
                self.report.complete = !self.blind;
                self.save(None)?;
            }
            Err(Halt::Stopped) if is_reading => self.save_where_it_stands()?,
            Err(Halt::Stopped) => {}
            Err(Halt::Failed(error)) => return Err(error),
        }
        if !self.report.damaged.is_empty()
            && let Err(error) = self.find_affected()
        {
            self.report.all_listed = false;
            self.report.note(Finding::Facts { error });
        }
        Ok(self.report)
    }

    /// Takes up a scrub that ended early, if there is one that should go on; says whether there is.
    fn resume(&mut self) -> Result<bool> {
        let key = Key::progress(DomainId::DEFAULT);
        let Some(progress) = self.inner.tables.snapshot().decode(&key, ProgressFact::decode)? else { return Ok(false) };
        if self.options.restart {
            self.save(None)?;
            return Ok(false);
        }
        let ProgressFact { domain, from, began, blobs, bytes, read_bytes, findings } = progress;
        self.next = (domain, from);
        let report = &mut self.report;
        (report.resumed, report.began_ms, report.more_findings) = (true, began, findings);
        (report.blobs, report.bytes, report.read_bytes) = (blobs, bytes, read_bytes);
        Ok(true)
    }

    /// What comes before content is read. A scrub that goes on was told most of it, but not which blobs it has flagged.
    fn begin(&mut self, goes_on: bool) -> Step<()> {
        let snapshots: Vec<Snapshot> = self.inner.tables.snapshot().each_domain().collect();
        for snapshot in &snapshots {
            let total = snapshot.sum_segments(|segment| segment.live_bytes).map_err(Halt::from);
            let total = self.known(total)?.unwrap_or_default();
            self.report.total_bytes = self.report.total_bytes.saturating_add(total);
        }
        if goes_on {
            for snapshot in &snapshots {
                let noted = self.note_flagged(snapshot);
                self.known(noted)?;
            }
            return Ok(());
        }
        if !self.options.recount {
            return Ok(());
        }
        let inner = self.inner;
        for snapshot in &snapshots {
            let recounted = inner.recount(snapshot, self);
            self.known(recounted)?;
            let checked = inner.check_segments(snapshot, &mut |finding| {
                self.report.note(finding);
                self.step()
            });
            self.known(checked)?;
        }
        let mut is_damaged = false;
        inner.check_logs(&mut |len, finding| {
            is_damaged |= finding.is_some();
            self.report.note(finding);
            self.pace(len)
        })?;
        if is_damaged {
            // While the store is open it knows what they said; without this it would not open again.
            match inner.log.checkpoint() {
                Err(Error::Full { .. }) => {} // maintenance tries again
                other => other?,
            }
        }
        inner.check_runs(&mut |run, finding| {
            self.report.note(finding);
            self.pace(run.len)
        })
    }

    /// Facts that can't be read are a finding, and not the end.
    fn known<T>(&mut self, step: Step<T>) -> Step<Option<T>> {
        match step {
            Err(Halt::Failed(error @ Error::Corrupt { .. })) => {
                self.report.note(Finding::Facts { error });
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Lists the blobs in front of the one that is next that are flagged.
    fn note_flagged(&mut self, snapshot: &Snapshot) -> Step<()> {
        for fact in snapshot.all::<BlobFact>()? {
            let (key, fact) = fact?;
            if (key.domain, key.bytes) >= self.next {
                break;
            }
            if fact.damaged {
                let path = self.inner.files.path(fact.place.file);
                let error = Error::corrupt(&path, fact.place.offset, Damage::Known);
                self.note_damage(key, self.inner.blobs.digest_of(&key, &fact).ok(), error);
            }
            self.step()?;
        }
        Ok(())
    }

    fn read_all(&mut self) -> Step<()> {
        let domains = self.inner.tables.domains().to_vec();
        let (first, _) = self.next;
        for domain in domains.into_iter().filter(|domain| *domain >= first) {
            if domain > first {
                self.next = (domain, [0; 32]);
            }
            let read = self.read_domain();
            self.blind |= self.known(read)?.is_none();
        }
        Ok(())
    }

    /// Reads what a domain has, from where it stands on.
    fn read_domain(&mut self) -> Step<()> {
        let (domain, from) = self.next;
        let mut from = Some(from);
        while let Some(first) = from {
            let keys = self.inner.blob_keys(domain, first)?;
            from = keys.last().filter(|_| keys.len() == BATCH).and_then(|key| successor(key.bytes));
            for key in keys {
                self.read_blob(&key)?;
                self.next = match successor(key.bytes) {
                    Some(next) => (domain, next),
                    None => (DomainId(domain.0.saturating_add(1)), [0; 32]),
                };
                self.save_now_and_then()?;
                self.go_on()?;
                if self.options.max_time.is_some_and(|most| self.began.elapsed() >= most) {
                    return Err(Halt::Stopped);
                }
            }
        }
        Ok(())
    }

    fn read_blob(&mut self, key: &Key) -> Step<()> {
        let (inner, before) = (self.inner, self.report.read_bytes);
        let read = inner.reread(key, &mut |len| {
            self.report.read_bytes = self.report.read_bytes.saturating_add(len);
            self.pace(len)
        });
        self.report.read_bytes = before;
        let Some(Reread { fact, digest, found }) = read? else { return Ok(()) };
        self.report.blobs += 1;
        self.report.bytes += fact.len;
        self.report.read_bytes += fact.place.frame_len();
        match found {
            Found::Sound => self.take_flag(key, &fact)?,
            Found::Frame(error) => {
                self.report.note(Finding::Segment { error });
                self.take_flag(key, &fact)?;
            }
            Found::Unreadable(error) => self.report.note(Finding::Blob { digest, error }),
            Found::Damaged(error) => {
                if self.flag(key, &fact, true)? {
                    self.note_damage(*key, digest, error);
                }
            }
        }
        Ok(())
    }

    /// What is sound after all is not suspected any more.
    fn take_flag(&mut self, key: &Key, fact: &BlobFact) -> Step<()> {
        if fact.damaged && self.flag(key, fact, false)? {
            self.report.recovered += 1;
        }
        Ok(())
    }

    /// Sets a flag or takes it away, durably; `false` where the blob is in that place no more.
    fn flag(&mut self, key: &Key, fact: &BlobFact, damaged: bool) -> Step<bool> {
        if fact.damaged != damaged {
            let flag = Flag { key: *key, place: fact.place, damaged };
            match self.inner.log.commit(key.domain, Request::Apply(Box::new(flag))) {
                Err(Error::DomainShredded { .. }) => return Ok(false),
                Err(Error::Full { .. }) => {} // the next scrub meets it again
                other => other.map(drop)?,
            }
        }
        let now = self.inner.tables.snapshot_of(key.domain).blob_by_key(key)?;
        Ok(now.is_some_and(|now| now.place == fact.place))
    }

    fn note_damage(&mut self, key: Key, digest: Option<Digest>, error: Error) {
        self.report.damaged_blobs += 1;
        if self.keys.len() < MOST_LISTED {
            self.keys.push(key);
            self.report.damaged.push(DamagedBlob { digest, error, affected: Vec::new(), named: Vec::new() });
        } else {
            self.report.all_listed = false;
        }
    }

    /// Tells how far it has come, and ends it where it is to end.
    fn go_on(&mut self) -> Step<()> {
        let is_told = (self.progress)(&self.report) == ControlFlow::Break(()) || self.inner.upkeep.closes();
        if is_told { Err(Halt::Stopped) } else { Ok(()) }
    }

    /// Notes that so many bytes were read, and waits until that is no more than what may be read in the time.
    fn pace(&mut self, bytes: u64) -> Step<()> {
        self.reading.add(bytes);
        self.go_on()?;
        while self.reading.rest() {
            self.go_on()?;
        }
        Ok(())
    }

    fn save_now_and_then(&mut self) -> Step<()> {
        let (when, read) = self.saved;
        if when.elapsed() < SAVE_EVERY && self.reading.bytes().saturating_sub(read) < SAVE_BYTES {
            return Ok(());
        }
        self.saved = (Instant::now(), self.reading.bytes());
        Ok(self.save_where_it_stands()?)
    }

    fn save_where_it_stands(&self) -> Result<()> {
        let (report, (domain, from)) = (&self.report, self.next);
        self.save(Some(ProgressFact {
            domain,
            from,
            began: report.began_ms,
            blobs: report.blobs,
            bytes: report.bytes,
            read_bytes: report.read_bytes,
            findings: report.more_findings.saturating_add(report.findings.len() as u64),
        }))
    }

    fn save(&self, progress: Option<ProgressFact>) -> Result<()> {
        let key = Key::progress(DomainId::DEFAULT);
        if self.inner.tables.snapshot().decode(&key, ProgressFact::decode)? == progress {
            return Ok(());
        }
        match self.inner.log.commit(DomainId::DEFAULT, Request::Apply(Box::new(Save(progress)))) {
            Err(Error::Full { .. }) => Ok(()), // what was read is read again
            other => other.map(drop),
        }
    }
}

impl Listener for Scrubber<'_> {
    fn found(&mut self, wrong: Wrong) -> Step<()> {
        self.report.note(wrong.finding());
        Ok(())
    }

    fn step(&mut self) -> Step<()> {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS) { self.go_on() } else { Ok(()) }
    }
}

impl Checks {
    /// The keys of the next blobs of a domain, from one on.
    fn blob_keys(&self, domain: DomainId, from: [u8; 32]) -> Result<Vec<Key>> {
        let snapshot = self.tables.snapshot_of(domain);
        snapshot.facts(Family::Blob, from)?.take(BATCH).map(|fact| Ok(fact?.0)).collect()
    }
}
