//! Maintenance: tables become runs, runs are merged, names go to their view.
//!
//! One step at a time, under a lock of its own, beside commits and reads. Each step ends with a new list of runs, which
//! replaces the old one atomically; a crash before that leaves files that the next opening removes.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::facts::memtable::Memtable;
use crate::facts::{Family, SegmentFact};
use crate::id::FileId;
use crate::runs::{FamilyCounts, MergeJob, Run, RunMeta, RunWriter, pick_merge};
use crate::store::files::remove_if_there;
use crate::store::options::Maintenance;
use crate::store::request::Request;
use crate::store::view::View;
use crate::store::{Inner, Store};
use crate::sync::{lock, write};

/// How many facts a merge moves between two looks at whether it should stop.
const MERGE_STEP: usize = 64 << 10;

/// More tables than this wait to become runs: commits wait for them.
const MAX_FROZEN: usize = 3;

/// At closing, more bytes of facts than this are folded: a table of 1 MiB takes the next opening a millisecond or two to
/// read back, and a run of it costs as many syncs.
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

    fn stopped(&self) -> bool {
        lock(&self.state).stop
    }

    /// Waits until there is work, at most for a time; `false` where the thread should end.
    fn wait(&self, at_most: Duration) -> bool {
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
        let view = self.view();
        let due = view.active.bytes() > self.options.memtable_size
            || !view.frozen.is_empty()
            || self.unfolded_logs.load(Ordering::Relaxed) > MAX_UNFOLDED_LOGS
            || self.names.due();
        if due {
            match self.options.maintenance {
                Maintenance::Thread => self.signal.raise(),
                Maintenance::Inline => {
                    let _ = self.maintain(); // it failed for a reason that the next commit meets too, or was poisoned by
                }
            }
        }
    }

    /// Does all maintenance that is due.
    pub(crate) fn maintain(&self) -> Result<()> {
        let guard = lock(&self.maintenance);
        let view = self.view();
        if view.active.bytes() > self.options.memtable_size
            || self.unfolded_logs.load(Ordering::Relaxed) > MAX_UNFOLDED_LOGS
        {
            self.freeze();
        }
        let mut dead_logs = Vec::new();
        while self.fold_oldest(&mut dead_logs)? {}
        while self.merge_once()? {}
        drop(guard);
        self.drop_logs(&dead_logs)?;
        if self.names.needs_rebuild() && self.names.prepare() {
            self.rebuild_names();
        }
        self.names.maintain();
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
        let mut dead_logs = Vec::new();
        while self.fold_oldest(&mut dead_logs)? {}
        self.drop_logs(&dead_logs)
    }

    /// Writes the oldest frozen table as a run; `false` where there is none.
    fn fold_oldest(&self, dead_logs: &mut Vec<FileId>) -> Result<bool> {
        let Some(table) = self.view().frozen.last().cloned() else { return Ok(false) };
        // A run is durable, so what it says of the log must be: commits that do not sync leave that to be done here.
        self.sync()?;
        let (info, removed) = self.write_run(&table)?;
        // A file that was given up must be gone before the record that says so is.
        self.files.remove_durably(&removed)?;
        let mut dropped = Vec::new();
        self.update_list(|list| {
            list.folded = info.lsn_max;
            list.runs.insert(0, info.clone());
            dropped = list.drop_folded_logs();
            dropped.iter().for_each(|id| self.files.unlisted(*id));
        })
        .inspect_err(|error| self.give_up_run(info.id, error))?;
        self.files.published(info.id);
        let run = Arc::new(self.open_run(&info)?);
        {
            let mut view = write(&self.view);
            let mut frozen = view.frozen.clone();
            frozen.pop();
            let runs = std::iter::once(run).chain(view.runs.iter().cloned()).collect();
            *view = Arc::new(View { active: Arc::clone(&view.active), frozen, runs });
        }
        self.folded.notify_all();
        dead_logs.extend(dropped);
        Ok(true)
    }

    /// Writes a table's facts, and says which files they give up.
    fn write_run(&self, table: &Memtable) -> Result<(RunMeta, Vec<FileId>)> {
        let facts = table.sorted(crate::id::Lsn(u64::MAX));
        let removed = facts.iter().filter(|(key, value)| key.family == Family::Segment && value.is_none());
        let removed = removed.map(|(key, _)| FileId(key.prefix())).collect();
        let count = |family| facts.iter().filter(|(key, _)| key.family == family).count();
        let mut writer = self.run_writer(table.lsn_range(), Family::ALL.map(count))?;
        // Below the only run there is nothing that a tombstone could hide.
        let keep_tombstones = !self.view().runs.is_empty();
        let written = facts
            .iter()
            .filter(|(_, value)| keep_tombstones || value.is_some())
            .try_for_each(|(key, value)| writer.push(key, value.as_ref().map(crate::facts::Value::as_bytes)));
        let meta = self.finish_run(writer, written, 0)?;
        Ok((meta, removed))
    }

    /// Merges runs if a tier is full; `false` where none is.
    fn merge_once(&self) -> Result<bool> {
        let range = pick_merge(&lock(&self.list).runs);
        range.map_or(Ok(false), |range| self.merge(range))
    }

    /// Merges the runs at these positions of the list; `false` where it was told to stop.
    fn merge(&self, range: Range<usize>) -> Result<bool> {
        let metas = lock(&self.list).runs.clone();
        let view = self.view();
        let (Some(sources), Some(merged)) = (view.runs.get(range.clone()), metas.get(range.clone())) else {
            return Ok(false);
        };
        let level = merged.iter().map(|meta| meta.level).max().unwrap_or_default().saturating_add(1);
        let lsns = (
            merged.iter().map(|meta| meta.lsn_min).min().unwrap_or_default(),
            merged.iter().map(|meta| meta.lsn_max).max().unwrap_or_default(),
        );
        let count = |family| {
            let entries: u64 = sources.iter().map(|run| run.entries(family)).sum();
            usize::try_from(entries).unwrap_or(usize::MAX)
        };
        let mut writer = self.run_writer(lsns, Family::ALL.map(count))?;
        let drop_tombstones = range.end == metas.len();
        let mut job = MergeJob::new(sources, drop_tombstones);
        let merging = loop {
            match job.step(&mut writer, MERGE_STEP) {
                Ok(true) => break Ok(()),
                Ok(false) if self.options.maintenance == Maintenance::Thread && self.signal.stopped() => {
                    self.discard_run(writer.id());
                    return Ok(false);
                }
                Ok(false) => {}
                Err(error) => break Err(error),
            }
        };
        drop(job);
        let meta = self.finish_run(writer, merging, level)?;
        let old: Vec<FileId> = merged.iter().map(|meta| meta.id).collect();
        let run = Arc::new(self.open_run(&meta).inspect_err(|_| self.discard_run(meta.id))?);
        self.update_list(|list| {
            let at = list.runs.iter().position(|run| old.contains(&run.id)).unwrap_or_default();
            list.runs.retain(|run| !old.contains(&run.id));
            list.runs.insert(at, meta.clone());
        })
        .inspect_err(|error| self.give_up_run(meta.id, error))?;
        self.files.published(meta.id);
        {
            let mut view = write(&self.view);
            let mut runs = view.runs.clone();
            runs.splice(range, [run]);
            *view = Arc::new(View { active: Arc::clone(&view.active), frozen: view.frozen.clone(), runs });
        }
        for id in old {
            remove_if_there(&*self.files.vfs, &self.files.layout.run(id))?;
        }
        Ok(true)
    }

    fn run_writer(&self, lsns: (crate::id::Lsn, crate::id::Lsn), entries: FamilyCounts) -> Result<RunWriter> {
        let id = self.files.new_id();
        let path = self.files.layout.run(id);
        RunWriter::create(&*self.files.vfs, &path, id, self.files.store, lsns, entries)
            .inspect_err(|_| self.files.published(id))
    }

    /// Makes a run and its name durable, or removes it if writing it failed.
    fn finish_run(&self, writer: RunWriter, written: Result<()>, level: u8) -> Result<RunMeta> {
        let id = writer.id();
        let finish = || {
            written?;
            let meta = writer.finish(level)?;
            let runs = self.files.layout.runs();
            self.files.vfs.sync_dir(&runs).map_err(Error::io("sync", &runs))?;
            Ok(meta)
        };
        finish().inspect_err(|_| self.discard_run(id))
    }

    /// Removes a run that could not be published, unless the list on disk may name it all the same.
    fn give_up_run(&self, id: FileId, error: &Error) {
        if matches!(error, Error::Full { .. }) {
            self.discard_run(id);
        }
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
            meta.id,
            self.files.store,
            meta.len,
            &self.files.run_mappings,
        )
    }

    /// Removes log files that recovery no longer needs and in which no frame lives.
    pub(crate) fn drop_logs(&self, logs: &[FileId]) -> Result<()> {
        let mut removed = Vec::new();
        for id in logs {
            // Readers map a sealed file; until now it was read by position.
            self.files.forget(*id);
            match self.snapshot().segment(*id)? {
                None => removed.push(*id),
                Some(SegmentFact { live_frames: 0, .. }) => {
                    removed.extend(self.commit_now(Request::DropFile(*id))?.dropped);
                }
                Some(_) => {}
            }
        }
        self.sync()?; // see `fold_oldest`
        self.files.remove_durably(&removed)?;
        logs.iter().for_each(|id| self.files.published(*id));
        Ok(())
    }

    /// Waits while too many facts wait to become runs.
    pub(crate) fn wait_for_room(&self) -> Result<()> {
        if self.options.maintenance == Maintenance::Inline || self.view().frozen.len() <= MAX_FROZEN {
            return Ok(());
        }
        self.signal.raise();
        let mut failure = lock(&self.maintenance_failure);
        while self.view().frozen.len() > MAX_FROZEN {
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

/// More log files than this hold facts that no run has: time to fold, or opening would have to read them all.
const MAX_UNFOLDED_LOGS: u64 = 8;

/// The maintenance thread: works when told to, and looks after the names now and then.
pub(crate) fn run_thread(inner: &Inner) {
    inner.signal.raise(); // the names wait to be opened
    while inner.signal.wait(Duration::from_secs(1)) {
        if let Err(error) = inner.maintain() {
            *lock(&inner.maintenance_failure) = Some(error);
            inner.folded.notify_all();
            // A full disk is the usual reason; the next commit that raises the signal tries again, or the next second.
        }
    }
}

impl Store {
    /// Merges all runs into one, so that a look-up has one place to look. Maintenance keeps them few by itself; this is for
    /// after a large import.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn merge_runs(&self) -> Result<()> {
        self.checkpoint()?;
        let inner = &self.inner;
        let _guard = lock(&inner.maintenance);
        let count = lock(&inner.list).runs.len();
        if count > 1 { inner.merge(0..count).map(drop) } else { Ok(()) }
    }

    /// Folds all facts into runs now, so that the next opening has nothing to replay. Maintenance does so by itself when
    /// enough has come together.
    ///
    /// # Errors
    /// [`Error::Full`] where there is no space for the run: nothing is lost by it.
    pub fn checkpoint(&self) -> Result<()> {
        self.inner.checkpoint()
    }
}
