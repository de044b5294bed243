//! What the steps of a collection share: committing (or, in a dry run, simulating it), limits, progress.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

use crate::clock::Pace;
use crate::error::{Error, Result};
use crate::facts::{Idle, IdleKind, Key, Reader as _, Value};
use crate::gc::Collections;
use crate::gc::options::{CollectOptions, Collection, Stopped};
use crate::gc::plan::Plan;
use crate::id::{DomainId, FileId};
use crate::log::InLog;
use crate::sync::lock;
use crate::tables::Snapshot;
use crate::transaction::{Context, Outcome, Over, Request, resolve};

/// Why a collection can't continue.
#[derive(Debug)]
pub(super) enum Halt {
    Stopped(Stopped),
    Failed(Error),
}

pub(super) type Step<T> = std::result::Result<T, Halt>;

/// A collection under way.
pub(super) struct Collector<'a> {
    pub(super) inner: &'a Collections,
    pub(super) options: &'a CollectOptions,
    pub(super) report: Collection,
    progress: &'a mut dyn FnMut(&Collection) -> ControlFlow<()>,
    /// In a dry run: the facts as of its beginning, and those it would have changed since.
    dry: Option<DryRun>,
    began: Instant,
    /// How many bytes compaction has written.
    pub(super) writing: Pace,
    /// What compaction has planned, where it has changed nothing since.
    pub(super) planned: Option<Plan>,
    /// The files out of which it has moved what it could.
    pub(super) evacuated: Vec<FileId>,
}

/// The facts that a dry run decides over: those as of its beginning, with those that it would have changed since.
#[derive(Debug)]
struct DryRun {
    snapshot: Snapshot,
    changed: BTreeMap<Key, Option<Value>>,
    placing: InLog,
}

impl DryRun {
    fn new(inner: &Collections) -> Self {
        let snapshot = inner.tables.snapshot();
        let placing = InLog::nowhere(snapshot.lsn.next(), &inner.tables);
        Self { snapshot, changed: BTreeMap::new(), placing }
    }

    fn facts(&self) -> Over<'_> {
        Over { newer: &self.changed, older: &self.snapshot }
    }

    /// Decides a request, and remembers what it would change.
    fn commit(&mut self, inner: &Collections, domain: DomainId, request: &Request) -> Result<Outcome> {
        let (now, retention) = (inner.clock.now(), inner.settings.retention);
        let context = Context { domain, facts: &self.facts(), placing: &self.placing, now, retention };
        let resolved = resolve(request, &context)?;
        self.changed.extend(resolved.facts);
        Ok(resolved.outcome)
    }
}

/// The most entries that one commit removes: other commits wait for it.
const AT_ONCE: usize = 256;

/// What a remembered fact takes in memory, in bytes, roughly.
const FACT_BYTES: usize = 200;

impl<'a> Collector<'a> {
    pub(super) fn new(
        inner: &'a Collections,
        options: &'a CollectOptions,
        progress: &'a mut dyn FnMut(&Collection) -> ControlFlow<()>,
    ) -> Self {
        let dry = options.dry_run.then(|| DryRun::new(inner));
        let (dry_run, locked) = (options.dry_run, inner.files.keys().locked_domains());
        let report = Collection { dry_run, locked, ..Collection::default() };
        Self {
            inner,
            options,
            report,
            progress,
            dry,
            began: Instant::now(),
            writing: Pace::new(options.bytes_per_second),
            planned: None,
            evacuated: Vec::new(),
        }
    }

    pub(super) fn is_dry(&self) -> bool {
        self.dry.is_some()
    }

    /// The facts as of now, in a dry run as of its beginning.
    pub(super) fn snapshot_of(&self, domain: DomainId) -> Snapshot {
        match &self.dry {
            Some(dry) => dry.snapshot.in_domain(domain),
            None => self.inner.tables.snapshot_of(domain),
        }
    }

    /// What a dry run would have changed of a fact, if it would.
    pub(super) fn would_be(&self, key: &Key) -> Option<&Option<Value>> {
        self.dry.as_ref()?.changed.get(key)
    }

    /// Commits a request, and removes the files that it gave up. In a dry run decides the same, and only remembers the
    /// facts that would change.
    pub(super) fn commit(&mut self, domain: DomainId, request: Request) -> Result<Outcome> {
        let outcome = match &mut self.dry {
            None => {
                match self.inner.tables.wait_for_room() {
                    // What is forgotten now may be what makes room.
                    Err(Error::Full { .. }) => {}
                    other => other?,
                }
                self.inner.log.commit_unthrottled(domain, request)?
            }
            Some(dry) => dry.commit(self.inner, domain, &request)?,
        };
        for file in &outcome.dropped {
            self.report.files += 1;
            self.report.freed_bytes += self.len_of(*file).unwrap_or(0); // only for the report
        }
        if !self.is_dry() {
            self.inner.log.remove_dropped(&outcome);
            self.inner.log.maintain_if_due();
        }
        Ok(outcome)
    }

    /// Goes through the entries of a kind that are due when this begins, some at a time. Entries that become due
    /// meanwhile are left out, since others may be adding them without end.
    pub(super) fn each_due(
        &mut self,
        domain: DomainId,
        kind: IdleKind,
        mut take: impl FnMut(&mut Self, Vec<Idle>) -> Step<()>,
    ) -> Step<()> {
        // A dry run goes through all that it remembers for each look.
        let at_once = if self.is_dry() { 64 * AT_ONCE } else { AT_ONCE };
        let now = match kind {
            IdleKind::NamedByClock => self.inner.clock.now().wall,
            _ => self.inner.clock.open_time(),
        };
        let mut after = None;
        loop {
            let due = match self.due(domain, kind, now, after, at_once) {
                Err(damage @ Error::Corrupt { .. }) => {
                    self.note_damage(damage);
                    return Ok(());
                }
                due => due?,
            };
            let Some(last) = due.last() else { return Ok(()) };
            after = Some(last.at());
            self.take_readable(&due, &mut |this, due| take(this, due.to_vec()))?;
        }
    }

    /// Takes what is given together or, where that meets damage, one by one: so it keeps those that need what is
    /// damaged, and no others.
    pub(super) fn take_readable<T>(
        &mut self,
        all: &[T],
        take: &mut dyn FnMut(&mut Self, &[T]) -> Step<()>,
    ) -> Step<()> {
        match take(self, all) {
            Err(Halt::Failed(Error::Corrupt { .. })) => all.iter().try_for_each(|one| {
                let taken = take(self, std::slice::from_ref(one));
                self.unless_damaged(taken)?;
                self.go_on()
            }),
            other => other,
        }
    }

    /// Damage is reported, and what it keeps from being collected stays.
    pub(super) fn unless_damaged(&mut self, step: Step<()>) -> Step<()> {
        match step {
            Err(Halt::Failed(damage @ Error::Corrupt { .. })) => {
                self.note_damage(damage);
                Ok(())
            }
            other => other,
        }
    }

    /// Reports damage, once.
    pub(super) fn note_damage(&mut self, damage: Error) {
        if !self.report.damaged.iter().any(|known| known.to_string() == damage.to_string()) {
            self.report.damaged.push(damage);
        }
    }

    /// The first entries of a kind, behind a key, whose time has come by `now`.
    fn due(&self, domain: DomainId, kind: IdleKind, now: u64, after: Option<Key>, limit: usize) -> Result<Vec<Idle>> {
        let retention = self.inner.settings.retention;
        let is_due = |idle: &Idle| match kind {
            IdleKind::Named | IdleKind::NamedByClock => idle.time <= now,
            IdleKind::Link | IdleKind::Repository => retention.has_expired(idle.time, now),
            IdleKind::Blob => idle.time == 0 || retention.has_expired(idle.time, now),
        };
        let entries = match &self.dry {
            Some(dry) => dry.facts().scan(Idle::all(domain, kind), after, limit)?,
            None => self.inner.tables.snapshot().scan(Idle::all(domain, kind), after, limit)?,
        };
        let mut found = Vec::new();
        for (at, value) in entries {
            let invalid = || self.snapshot_of(domain).invalid(&at);
            let idle = Idle::decode(&at, value.as_bytes()).ok_or_else(invalid)?;
            if !is_due(&idle) {
                break;
            }
            found.push(idle);
        }
        Ok(found)
    }

    /// How long a file is on disk, in bytes.
    pub(super) fn len_of(&self, id: FileId) -> Result<u64> {
        let known = lock(&self.inner.lens).get(&id).copied();
        known.map_or_else(|| self.inner.files.len_of(id), Ok)
    }

    /// Called after each step: reports progress, and stops the collection where a limit is reached or the caller says
    /// so.
    pub(super) fn go_on(&mut self) -> Step<()> {
        if (self.progress)(&self.report) == ControlFlow::Break(()) || self.inner.upkeep.closes() {
            return Err(Halt::Stopped(Stopped::Told));
        }
        if self.options.max_time.is_some_and(|most| self.began.elapsed() >= most) {
            return Err(Halt::Stopped(Stopped::Time));
        }
        let remembered = self.dry.as_ref().map_or(0, |dry| dry.changed.len() * FACT_BYTES);
        if remembered > self.inner.settings.memory.max(1 << 20) {
            return Err(Halt::Stopped(Stopped::Memory));
        }
        Ok(())
    }

    /// Stops the collection where it has written as much as it may.
    pub(super) fn check_budget(&self) -> Step<()> {
        match self.options.max_bytes {
            Some(most) if self.writing.bytes() >= most => Err(Halt::Stopped(Stopped::Bytes)),
            _ => Ok(()),
        }
    }

    /// Notes that so many bytes were written, and waits until the rate is within its limit.
    pub(super) fn pace(&mut self, bytes: u64) -> Step<()> {
        self.writing.add(bytes);
        while self.writing.rest() {
            self.go_on()?;
        }
        Ok(())
    }
}
