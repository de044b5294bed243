//! What the steps of a collection have in common: committing, or acting as if; budgets; progress.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::facts::{Idle, IdleKind, Key, Value};
use crate::gc::options::{CollectOptions, Collection, Stopped};
use crate::id::{DomainId, FileId};
use crate::store::request::{Context, Facts, Outcome, Request, resolve};
use crate::store::view::{Snapshot, decoded};
use crate::store::{GoOn, Inner};
use crate::sync::lock;
use crate::vfs::OpenMode;

/// What keeps a collection from going on.
#[derive(Debug)]
pub(super) enum Halt {
    Stopped(Stopped),
    Failed(Error),
}

pub(super) type Step<T> = std::result::Result<T, Halt>;

/// A collection under way.
pub(super) struct Collector<'a> {
    pub(super) inner: &'a Inner,
    pub(super) options: &'a CollectOptions,
    pub(super) report: Collection,
    progress: &'a mut dyn FnMut(&Collection) -> GoOn,
    /// In a dry run: what stood at its beginning, and what it would have changed since.
    dry: Option<Dry>,
    began: Instant,
    /// How many bytes compaction has written, and since when.
    pub(super) written: u64,
    writing: Option<Instant>,
    /// The files out of which it has moved what it could.
    pub(super) taken_up: Vec<FileId>,
}

struct Dry {
    snapshot: Snapshot,
    changed: HashMap<Key, Option<Value>>,
}

/// What a remembered fact takes in memory, in bytes, roughly.
const FACT_BYTES: usize = 200;

impl<'a> Collector<'a> {
    pub(super) fn new(
        inner: &'a Inner,
        options: &'a CollectOptions,
        progress: &'a mut dyn FnMut(&Collection) -> GoOn,
    ) -> Self {
        let dry = options.dry_run.then(|| Dry { snapshot: inner.snapshot(), changed: HashMap::new() });
        let report = Collection { dry_run: options.dry_run, ..Collection::default() };
        Self {
            inner,
            options,
            report,
            progress,
            dry,
            began: Instant::now(),
            written: 0,
            writing: None,
            taken_up: Vec::new(),
        }
    }

    pub(super) fn is_dry(&self) -> bool {
        self.dry.is_some()
    }

    /// The facts as of now, in a dry run as of its beginning.
    pub(super) fn snapshot_of(&self, domain: DomainId) -> Snapshot {
        match &self.dry {
            Some(dry) => dry.snapshot.in_domain(domain),
            None => self.inner.snapshot_of(domain),
        }
    }

    /// What a dry run would have changed of a fact, if it would.
    pub(super) fn would_be(&self, key: &Key) -> Option<&Option<Value>> {
        self.dry.as_ref()?.changed.get(key)
    }

    /// Commits a request, and removes the files that it gave up. In a dry run decides the same, and only remembers what would come of it.
    pub(super) fn commit(&mut self, domain: DomainId, request: Request) -> Result<Outcome> {
        let outcome = match &mut self.dry {
            None => {
                match self.inner.wait_for_room() {
                    // What is forgotten now may be what makes room.
                    Err(Error::Full { .. }) => {}
                    other => other?,
                }
                self.inner.commit_now(domain, request)?
            }
            Some(dry) => {
                let context = context(self.inner, dry, domain);
                let resolved = resolve(&request, &context)?;
                dry.changed.extend(resolved.facts);
                resolved.outcome
            }
        };
        for file in &outcome.dropped {
            self.report.files += 1;
            self.report.freed_bytes += self.len_of(*file)?;
        }
        if !self.is_dry() {
            self.inner.remove_dropped(&outcome);
            self.inner.maintain_if_due();
        }
        Ok(outcome)
    }

    /// The first entries of a kind, behind a key, whose time has come.
    pub(super) fn due(&self, domain: DomainId, kind: IdleKind, after: Option<Key>, limit: usize) -> Result<Vec<Idle>> {
        let (now, retention) = (self.inner.open_time(), self.inner.options.retention_time());
        let is_due = |idle: &Idle| match kind {
            IdleKind::Pin => idle.time <= now,
            IdleKind::Link => retention.has_expired(idle.time, now),
            IdleKind::Blob => idle.time == 0 || retention.has_expired(idle.time, now),
        };
        let prefix = Idle::all(domain, kind);
        let decode = |(at, value): (Key, Value)| decoded(Idle::decode(&at, value.as_bytes()));
        let mut found = Vec::new();
        let mut take = |idle: Idle| {
            let due = is_due(&idle);
            found.extend(Some(idle).filter(|_| due));
            due
        };
        match &self.dry {
            None => {
                for fact in self.inner.snapshot_of(domain).scan_after(prefix, after)?.take(limit) {
                    if !take(decode(fact?)?) {
                        break;
                    }
                }
            }
            Some(dry) => {
                let context = context(self.inner, dry, domain);
                for fact in Facts::new(&context, Vec::new()).scan_after(prefix, after, limit)? {
                    if !take(decode(fact)?) {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    /// How many steps are taken at once: a dry run goes through all that it remembers for each.
    pub(super) fn at_once(&self, live: usize) -> usize {
        if self.is_dry() { 64 * live } else { live }
    }

    /// How long a file is on disk, in bytes.
    pub(super) fn len_of(&self, id: FileId) -> Result<u64> {
        if let Some(len) = lock(&self.inner.collections.lens).get(&id) {
            return Ok(*len);
        }
        let len = match self.inner.files.vfs.open(&self.inner.files.path(id), OpenMode::Read) {
            Ok(file) => file.len().unwrap_or_default(),
            Err(_) => 0, // it is gone, or lost
        };
        Ok(len)
    }

    /// What follows each step: tells how far it has come, and ends it where it is to end.
    pub(super) fn go_on(&mut self) -> Step<()> {
        if (self.progress)(&self.report) == GoOn::No || self.inner.closes() {
            return Err(Halt::Stopped(Stopped::Told));
        }
        if self.options.max_time.is_some_and(|most| self.began.elapsed() >= most) {
            return Err(Halt::Stopped(Stopped::Time));
        }
        let remembered = self.dry.as_ref().map_or(0, |dry| dry.changed.len() * FACT_BYTES);
        if remembered > self.inner.options.memtable_size.max(1 << 20) {
            return Err(Halt::Stopped(Stopped::Memory));
        }
        Ok(())
    }

    /// Ends it where it may write no more.
    pub(super) fn check_budget(&self) -> Step<()> {
        match self.options.max_bytes {
            Some(most) if self.written >= most => Err(Halt::Stopped(Stopped::Bytes)),
            _ => Ok(()),
        }
    }

    /// Notes that so many bytes were written, and waits until that is no more than what may be written in the time.
    pub(super) fn pace(&mut self, bytes: u64) -> Step<()> {
        self.written += bytes;
        let Some(rate) = self.options.bytes_per_second else { return Ok(()) };
        let since = *self.writing.get_or_insert_with(Instant::now);
        let due = Duration::try_from_secs_f64(self.written as f64 / rate as f64).unwrap_or(Duration::MAX);
        while let Some(left) = due.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
            thread::sleep(left.min(Duration::from_millis(50)));
            self.go_on()?;
        }
        Ok(())
    }
}

/// Where a dry run's next request stands.
fn context<'a>(inner: &Inner, dry: &'a Dry, domain: DomainId) -> Context<'a> {
    Context {
        domain,
        key: 0,
        snapshot: &dry.snapshot,
        overlay: &dry.changed,
        log: FileId(FileId::MAX),
        frame_offset: 0,
        oldest_log: inner.oldest_log(FileId(FileId::MAX)),
        lsn: dry.snapshot.lsn.next(),
        now: inner.now(),
        retention: inner.options.retention_time(),
    }
}
