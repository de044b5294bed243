//! Maintenance: tables become runs, runs are merged, names go to their view.
//!
//! A run has facts of one key domain: a table becomes one for each domain that it has facts of, and those of a domain
//! are merged with each other only.
//!
//! One step at a time, under a lock of its own, beside commits and reads. Each step ends with a new list of runs, which
//! replaces the old one atomically; a crash before that leaves files that the next opening removes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::facts::{Fact, Family, Value};
use crate::files::{Space, open_dir, remove_if_there};
use crate::id::{DomainId, FileId, Lsn};
use crate::store::options::Maintenance;
use crate::store::{Inner, Store};
use crate::sync::{lock, read, write};
use crate::tables::memtable::Memtable;
use crate::tables::view::{Snapshot, View};
use crate::tables::{FamilyCounts, MergeJob, Run, RunList, RunMeta, RunWriter, pick_merge};
use crate::transaction::Request;

/// How many facts a merge moves between two looks at whether it should stop.
const MERGE_STEP: usize = 64 << 10;

/// More tables than this wait to become runs: commits wait for them.
const MAX_FROZEN: usize = 3;

/// At closing, more bytes of facts than this are folded: a table of 1 MiB takes the next opening a millisecond or two
/// to read back, and a run of it costs as many syncs.
const FOLD_AT_CLOSE: usize = 1 << 20;

/// Tells the maintenance thread that there is work, or that it should end.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    due: bool,
    stop: bool,
}

impl Signal {
    fn raise(&self) {
        lock(&self.state).due = true;
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        lock(&self.state).stop = true;
        self.changed.notify_all();
    }

    pub(crate) fn stopped(&self) -> bool {
        lock(&self.state).stop
    }

    /// Waits until there is work, at most for a time; `false` where the thread should end.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        let state = lock(&self.state);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, at_most, |state| !state.due && !state.stop)
            .unwrap_or_else(PoisonError::into_inner);
        state.due = false;
        !state.stop
    }
}

impl Inner {
    /// Starts or does what has become due: called after each group of commits.
    pub(crate) fn maintain_if_due(&self) {
        if self.is_fold_due() || self.names.due() || self.chores.due(self.open_time()) {
            match self.options.maintenance {
                Maintenance::Thread => self.signal.raise(),
                Maintenance::Inline => {
                    let _ = self.maintain(); // it failed for a reason that the next commit meets too, or was poisoned by
                }
            }
        }
    }

    /// Does all maintenance that is due. A step that fails does not keep the others from being done.
    pub(crate) fn maintain(&self) -> Result<()> {
        let kept = self.keep_house();
        let merged = self.fold_and_merge();
        let dropped = self.drop_dead_logs();
        self.refresh_names();
        self.names.maintain();
        let reserved = self.files.restore_reserve();
        merged.and(dropped).and(reserved).and(kept)
    }

    /// Does what has become due by what maintenance itself commits: nobody else does meanwhile, and others wait for it.
    pub(crate) fn keep_up(&self) -> Result<()> {
        if self.is_fold_due() {
            self.fold_and_merge()?;
            self.drop_dead_logs()?;
        }
        if self.names.due() {
            self.refresh_names();
            self.names.maintain();
        }
        Ok(())
    }

    fn is_fold_due(&self) -> bool {
        let view = self.view();
        view.active.bytes() > self.options.memtable_size
            || !view.frozen.is_empty()
            || self.unfolded_logs.load(Ordering::Relaxed) > MAX_UNFOLDED_LOGS
    }

    /// Whether maintenance should leave what it is at to the next opening.
    pub(crate) fn maintenance_stops(&self) -> bool {
        self.options.maintenance == Maintenance::Thread && self.signal.stopped()
    }

    /// How many bytes of log files are kept for who reads events: none where space has to be given back.
    pub(crate) fn history(&self) -> u64 {
        if self.files.has_reserve() { self.options.history } else { 0 }
    }

    fn fold_and_merge(&self) -> Result<()> {
        let _guard = lock(&self.maintenance);
        self.fold_if_due()?;
        while self.merge_once()? {}
        Ok(())
    }

    /// Folds what is frozen, and the table before that if it is large or opening would have to read many log files.
    fn fold_if_due(&self) -> Result<()> {
        if self.view().active.bytes() > self.options.memtable_size
            || self.unfolded_logs.load(Ordering::Relaxed) > MAX_UNFOLDED_LOGS
        {
            self.freeze();
        }
        while self.fold_oldest()? {}
        Ok(())
    }

    /// Folds all facts into runs, and merges those that are due.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.check_writable()?;
        self.freeze();
        self.maintain()
    }

    /// Folds what the next opening would spend its time on.
    pub(crate) fn fold_for_close(&self) -> Result<()> {
        let _guard = lock(&self.maintenance);
        let view = self.view();
        let logs = self.unfolded_logs.load(Ordering::Relaxed);
        if view.active.bytes() <= FOLD_AT_CLOSE && view.frozen.is_empty() && logs <= 1 {
            return Ok(());
        }
        self.freeze();
        while self.fold_oldest()? {}
        self.drop_dead_logs()
    }

    /// Writes the oldest frozen table as runs; `false` where there is none.
    fn fold_oldest(&self) -> Result<bool> {
        let view = self.view();
        let Some(table) = view.frozen.last().cloned() else { return Ok(false) };
        let folded = table.lsn_range().1;
        let facts = table.sorted(Lsn(u64::MAX));
        // A run is durable, so what it says of the log must be: commits that do not sync leave that to be done here.
        self.sync()?;
        self.names.reach(folded);
        let space = self.space_for_fold()?;
        // As of the table's end: what came later is not durable for certain.
        let removed = given_up(&facts, &Snapshot { view, lsn: folded, domain: DomainId::DEFAULT })?;
        let metas = self.files.within(space, || self.write_runs(&table, &facts))?;
        // A file that was given up must be gone before the record that says so is.
        let gone = self.files.remove_durably(&removed).map_err(|error| self.fail_stop(error));
        gone.inspect_err(|_| self.discard_runs(&metas))?;
        let mut dropped = Vec::new();
        let list = |list: &mut RunList| {
            list.folded = folded;
            list.runs.splice(0..0, metas.iter().cloned());
            dropped = list.drop_folded_logs(self.history());
            dropped.iter().for_each(|id| self.files.unlisted(*id));
        };
        self.publish_runs(&metas, space, list, |view, runs| {
            view.frozen.pop();
            view.runs.splice(0..0, runs);
        })?;
        lock(&self.dead_logs).append(&mut dropped);
        self.folded.notify_all();
        Ok(true)
    }

    /// A fold may use the reserve if it lets log files go in which nothing lives.
    fn space_for_fold(&self) -> Result<Space> {
        let snapshot = self.snapshot();
        let logs = Arc::clone(&read(&self.logs));
        for log in logs.iter().filter(|log| log.sealed.is_some()) {
            if snapshot.segments(log.id)?.iter().all(|(_, segment)| segment.live_frames == 0) {
                return Ok(Space::Reserve);
            }
        }
        Ok(Space::Free)
    }

    /// Makes runs, all or none, part of the list and of the view. The view's runs are those of the list, in its order:
    /// both change here and nowhere else, and nothing can fail between.
    fn publish_runs(
        &self,
        metas: &[RunMeta],
        space: Space,
        change_list: impl FnMut(&mut RunList),
        change_view: impl FnOnce(&mut View, Vec<Arc<Run>>),
    ) -> Result<()> {
        let runs = metas.iter().map(|meta| self.open_run(meta).map(Arc::new)).collect::<Result<Vec<_>>>();
        let runs = runs.inspect_err(|_| self.discard_runs(metas))?;
        self.update_list(space, change_list).inspect_err(|error| {
            // Else the list on disk may name it.
            if !matches!(error, Error::Poisoned { .. }) {
                self.discard_runs(metas);
            }
        })?;
        metas.iter().for_each(|meta| self.files.published(meta.id));
        let mut view = write(&self.view);
        let mut new = View::clone(&view);
        change_view(&mut new, runs);
        *view = Arc::new(new);
        Ok(())
    }

    /// Writes a table's facts, in the order of their keys: a run for each domain, all or none.
    fn write_runs(&self, table: &Memtable, facts: &[Fact]) -> Result<Vec<RunMeta>> {
        let mut metas = Vec::new();
        for own in facts.chunk_by(|(one, _), (next, _)| one.domain == next.domain) {
            metas.extend(self.write_run(table, own).inspect_err(|_| self.discard_runs(&metas))?);
        }
        Ok(metas)
    }

    /// Writes facts of one domain, if there are any.
    fn write_run(&self, table: &Memtable, facts: &[Fact]) -> Result<Option<RunMeta>> {
        let Some(domain) = facts.first().map(|(key, _)| key.domain) else { return Ok(None) };
        let count = |family| facts.iter().filter(|(key, _)| key.family == family).count();
        let mut writer = self.run_writer(domain, table.lsn_range(), Family::ALL.map(count))?;
        // Below the domain's only run there is nothing that a tombstone could hide.
        let keep_tombstones = self.view().runs.iter().any(|run| run.domain() == domain);
        let written = facts
            .iter()
            .filter(|(_, value)| keep_tombstones || value.is_some())
            .try_for_each(|(key, value)| writer.push(key, value.as_ref().map(Value::as_bytes)));
        self.finish_run(writer, written, 0).map(Some)
    }

    /// Merges runs if a tier is full; `false` where none is.
    fn merge_once(&self) -> Result<bool> {
        let damaged = lock(&self.damaged_runs).clone();
        let keys = self.files.keys.get();
        let mut runs = lock(&self.list).runs.clone();
        runs.retain(|run| !keys.is_shredded(run.domain));
        let picked = pick_merge(&runs, |id| damaged.contains(&id));
        picked.map_or(Ok(false), |picked| self.merge(&picked))
    }

    /// Merges runs of one domain between which it has no other; `false` where it was told to stop. While it goes on,
    /// tables are folded as they fill.
    pub(crate) fn merge(&self, old: &[FileId]) -> Result<bool> {
        let metas = lock(&self.list).runs.clone();
        let merged: Vec<&RunMeta> = metas.iter().filter(|meta| old.contains(&meta.id)).collect();
        let sources: Vec<Arc<Run>> = self.view().runs.iter().filter(|run| old.contains(&run.id())).cloned().collect();
        let Some(domain) = merged.first().map(|meta| meta.domain) else { return Ok(false) };
        let level = merged.iter().map(|meta| meta.level).max().unwrap_or_default().saturating_add(1);
        let lsns = (
            merged.iter().map(|meta| meta.lsn_min).min().unwrap_or_default(),
            merged.iter().map(|meta| meta.lsn_max).max().unwrap_or_default(),
        );
        let count = |family| {
            let entries: u64 = sources.iter().map(|run| run.entries(family)).sum();
            usize::try_from(entries).unwrap_or(usize::MAX)
        };
        let mut writer = self.run_writer(domain, lsns, Family::ALL.map(count))?;
        let oldest = metas.iter().rfind(|meta| meta.domain == domain);
        let drop_tombstones = oldest.is_some_and(|oldest| old.contains(&oldest.id));
        let mut job = MergeJob::new(&sources, drop_tombstones);
        let merging = loop {
            match job.step(&mut writer, MERGE_STEP) {
                Ok(true) => break Ok(()),
                Ok(false) if self.maintenance_stops() => {
                    self.discard_run(writer.id());
                    return Ok(false);
                }
                Ok(false) => {
                    if let Err(error) = self.fold_if_due() {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        drop(job);
        let meta = self.finish_run(writer, merging, level).inspect_err(|error| self.note_damage(old, error))?;
        let list = |list: &mut RunList| {
            let at = list.runs.iter().position(|run| old.contains(&run.id)).unwrap_or_default();
            list.runs.retain(|run| !old.contains(&run.id));
            list.runs.insert(at, meta.clone());
        };
        self.publish_runs(std::slice::from_ref(&meta), Space::Free, list, |view, runs| {
            let at = view.runs.iter().position(|run| old.contains(&run.id())).unwrap_or_default();
            view.runs.retain(|run| !old.contains(&run.id()));
            view.runs.splice(at..at, runs);
        })?;
        for id in old {
            remove_if_there(&*self.files.vfs, &self.files.layout.run(*id))?;
        }
        Ok(true)
    }

    /// Merges all runs of a domain into one, if that is due, and says how many those were.
    pub(crate) fn merge_all(&self, domain: DomainId, is_due: impl FnOnce(&[RunMeta]) -> bool) -> Result<usize> {
        let _guard = lock(&self.maintenance);
        let mut runs = lock(&self.list).runs.clone();
        runs.retain(|run| run.domain == domain);
        if !is_due(&runs) {
            return Ok(0);
        }
        let own: Vec<FileId> = runs.iter().map(|run| run.id).collect();
        Ok(if self.merge(&own)? { own.len() } else { 0 })
    }

    /// Merges all runs of a domain if so many of their facts, in percent, are dead: tombstones, and as many facts that
    /// they hide.
    pub(crate) fn merge_if_dead(&self, domain: DomainId, percent: u8) -> Result<()> {
        let is_due = |runs: &[RunMeta]| {
            let entries: u64 = runs.iter().map(|run| run.entries).sum();
            let tombstones: u64 = runs.iter().map(|run| run.tombstones).sum();
            let damaged = lock(&self.damaged_runs);
            runs.len() > 1
                && 200 * tombstones > u64::from(percent) * entries
                && !runs.iter().any(|run| damaged.contains(&run.id))
        };
        self.merge_all(domain, is_due).map(drop)
    }

    /// Remembers the run that a merge found damaged, so that the others are merged without it.
    fn note_damage(&self, runs: &[FileId], error: &Error) {
        if let Error::Corrupt { file, .. } = error {
            let damaged = runs.iter().filter(|id| self.files.layout.run(**id) == *file);
            lock(&self.damaged_runs).extend(damaged);
        }
    }

    fn run_writer(&self, domain: DomainId, lsns: (Lsn, Lsn), entries: FamilyCounts) -> Result<RunWriter> {
        let id = self.files.new_id();
        let path = self.files.layout.run(id);
        RunWriter::create(&*self.files.vfs, &path, id, &self.files.keys.get(), domain, lsns, entries)
            .inspect_err(|_| self.discard_run(id))
    }

    /// Makes a run and its name durable, or removes it if writing it failed.
    fn finish_run(&self, writer: RunWriter, written: Result<()>, level: u8) -> Result<RunMeta> {
        let id = writer.id();
        let finish = || {
            written?;
            let runs = self.files.layout.runs();
            let dir = open_dir(&*self.files.vfs, &runs)?;
            let meta = writer.finish(level)?;
            dir.sync().map_err(Error::io("sync", &runs)).map_err(|error| self.poison(error))?;
            Ok(meta)
        };
        finish().inspect_err(|_| self.discard_run(id))
    }

    fn discard_runs(&self, metas: &[RunMeta]) {
        metas.iter().for_each(|meta| self.discard_run(meta.id));
    }

    /// Removes a run that no list names.
    fn discard_run(&self, id: FileId) {
        let _ = self.files.vfs.remove(&self.files.layout.run(id)); // at worst the next opening removes it
        self.files.published(id);
    }

    pub(crate) fn open_run(&self, meta: &RunMeta) -> Result<Run> {
        Run::open(
            &*self.files.vfs,
            &self.files.layout.run(meta.id),
            meta,
            &self.files.keys.get(),
            &self.files.run_mappings,
            &self.files.pages,
        )
    }

    /// Takes from the list the log files that recovery no longer needs and that are not kept for who reads events, up
    /// to so many bytes; and removes those in which nothing lives.
    pub(crate) fn unlist_folded_logs(&self, history: u64, space: Space) -> Result<()> {
        let mut dropped = Vec::new();
        self.update_list(space, |list| {
            dropped = list.drop_folded_logs(history);
            dropped.iter().for_each(|id| self.files.unlisted(*id));
        })?;
        lock(&self.dead_logs).append(&mut dropped);
        self.drop_dead_logs()
    }

    /// Removes log files that recovery no longer needs and in which no frame lives. What fails is tried again next
    /// time.
    pub(crate) fn drop_dead_logs(&self) -> Result<()> {
        let logs = lock(&self.dead_logs).clone();
        if logs.is_empty() {
            return Ok(());
        }
        // A group that is under way may still take these to be needed, and leave one that it empties to be dropped
        // here.
        drop(lock(&self.tip));
        let mut removed = Vec::new();
        for id in &logs {
            let segments = self.snapshot().segments(*id)?;
            if segments.is_empty() {
                removed.push(*id);
            }
            // Also where another domain has something alive in it: the file goes with that, and not before the last
            // fact.
            for (domain, _) in segments.iter().filter(|(_, segment)| segment.live_frames == 0) {
                removed.extend(self.commit_now(*domain, Request::DropFile(*id))?.dropped);
            }
        }
        self.sync()?; // see `fold_oldest`
        self.files.remove_durably(&removed).map_err(|error| self.fail_stop(error))?;
        logs.iter().for_each(|id| self.files.published(*id));
        lock(&self.dead_logs).retain(|id| !logs.contains(id));
        Ok(())
    }

    /// Waits while too many facts wait to become runs.
    pub(crate) fn wait_for_room(&self) -> Result<()> {
        let has_room = || {
            let view = self.view();
            view.frozen.len() <= MAX_FROZEN && view.active.bytes() <= self.options.memtable_size.saturating_mul(2)
        };
        if self.options.maintenance == Maintenance::Inline || has_room() {
            return Ok(());
        }
        self.signal.raise();
        let mut failure = lock(&self.maintenance_failure);
        // While the store is being closed nobody makes room, and nobody needs it: closing folds what there is.
        while !has_room() && !self.maintenance_stops() {
            if let Some(error) = failure.take() {
                return Err(error);
            }
            let (guard, _) =
                self.folded.wait_timeout(failure, Duration::from_millis(100)).unwrap_or_else(PoisonError::into_inner);
            failure = guard;
            self.check_writable()?;
        }
        Ok(())
    }
}

/// The files that facts of a table give up, where no domain has a fact of them as of the table's end.
fn given_up(facts: &[Fact], end: &Snapshot) -> Result<Vec<FileId>> {
    let gone = facts.iter().filter(|(key, value)| key.family == Family::Segment && value.is_none());
    let mut files = Vec::new();
    for id in gone.map(|(key, _)| FileId(key.prefix())) {
        if end.segments(id)?.is_empty() {
            files.push(id);
        }
    }
    Ok(files)
}

/// More log files than this hold facts that no run has: time to fold, or opening would have to read them all.
const MAX_UNFOLDED_LOGS: u64 = 8;

/// The maintenance thread: works when told to, and looks after the names now and then.
pub(crate) fn run_thread(inner: &Inner) {
    inner.signal.raise(); // the names wait to be opened
    while inner.signal.wait(Duration::from_secs(1)) {
        // A full disk is the usual reason for a failure; the next commit that raises the signal tries again, or the
        // next second.
        *lock(&inner.maintenance_failure) = inner.maintain().err();
        inner.folded.notify_all();
    }
}

impl Store {
    /// Merges all runs into one (of each key domain), so that a look-up has one place to look. Maintenance keeps them
    /// few by itself; this is for after a large import.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn merge_runs(&self) -> Result<()> {
        self.checkpoint()?;
        let inner = &self.inner;
        for domain in inner.snapshot().domains() {
            inner.merge_all(*domain, |runs| runs.len() > 1)?;
        }
        Ok(())
    }

    /// Folds all facts into runs now, so that the next opening has nothing to replay. Maintenance does so by itself
    /// when enough has come together.
    ///
    /// # Errors
    /// [`Error::Full`] where there is no space for the run: nothing is lost by it.
    pub fn checkpoint(&self) -> Result<()> {
        self.inner.checkpoint()
    }
}
