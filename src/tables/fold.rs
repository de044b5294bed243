//! Folding: a memory table becomes runs.
//!
//! A run has facts of one key domain: a table becomes one run for each domain that it has facts of. All of them lie in
//! one file, which is synced once. One step runs at a time, beside commits and reads.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::envelope::Keyring;
use crate::error::{Error, Result};
use crate::facts::{Fact, Family, Value};
use crate::files::{NewFile, Space};
use crate::id::{DomainId, FileId, Lsn};
use crate::sealed::{MappingBudget, ReadMode, SealedFile};
use crate::sync::lock;
use crate::tables::memtable::Memtable;
use crate::tables::view::Runs;
use crate::tables::{
    Expected, FOLD_AT_CLOSE, LogEntry, MAX_UNFOLDED_LOGS, Run, RunFile, RunList, RunMeta, Snapshot, Tables, View,
    open_file,
};

/// Runs that are durable, and that the list does not name yet: the file, and what lies in it.
pub(super) type NewRuns = (NewFile, Vec<RunMeta>);

/// What folding asks of the log, which lies above the tables.
pub(crate) trait Log {
    /// Does something between groups of commits.
    fn between_groups(&self, work: &mut dyn FnMut());

    /// Makes all commits up to an LSN durable, and tells views that are derived from the log to reach as far: it may
    /// not be able to replay those any more.
    fn settle(&self, until: Lsn) -> Result<()>;

    /// Waits for those views, for a moment at most.
    fn wait_for_views(&self, until: Lsn);
}

impl Tables {
    /// Whether a table should be folded.
    pub(crate) fn is_fold_due(&self) -> bool {
        self.is_freeze_due() || !self.view().frozen.is_empty()
    }

    /// Whether the active table is large, or opening would have to read many log files.
    fn is_freeze_due(&self) -> bool {
        self.view().active.bytes() > self.options.memtable_size
            || self.unfolded_logs.load(Ordering::Relaxed) > MAX_UNFOLDED_LOGS
    }

    /// Folds what is due, and merges what is.
    pub(crate) fn fold_and_merge(&self, log: &dyn Log) -> Result<()> {
        let _one = lock(&self.folding);
        self.fold_if_due(log)?;
        while self.merge_once(log)? {}
        Ok(())
    }

    /// Folds what is frozen, and the table before that if it is due.
    pub(super) fn fold_if_due(&self, log: &dyn Log) -> Result<()> {
        if self.is_freeze_due() {
            self.freeze(log);
        }
        while self.fold_oldest(log)? {}
        Ok(())
    }

    /// Folds what the next opening would spend its time on.
    pub(crate) fn fold_for_close(&self, log: &dyn Log) -> Result<()> {
        let _one = lock(&self.folding);
        let view = self.view();
        let logs = self.unfolded_logs.load(Ordering::Relaxed);
        if view.active.bytes() <= FOLD_AT_CLOSE && view.frozen.is_empty() && logs <= 1 {
            return Ok(());
        }
        self.freeze(log);
        while self.fold_oldest(log)? {}
        Ok(())
    }

    /// Puts a new, empty table in front and leaves the one that took in facts so far to become a run.
    pub(crate) fn freeze(&self, log: &dyn Log) {
        log.between_groups(&mut || {
            let mut view = self.view.write();
            if view.active.len() > 0 {
                let mut new = View::clone(&view);
                new.frozen.insert(0, std::mem::replace(&mut new.active, Arc::new(Memtable::new())));
                *view = Arc::new(new);
            }
        });
    }

    /// Writes the oldest frozen table as runs; `false` where there is none.
    fn fold_oldest(&self, log: &dyn Log) -> Result<bool> {
        let view = self.view();
        let Some(table) = view.frozen.last().cloned() else { return Ok(false) };
        let folded = table.lsn_range().1;
        let facts = table.sorted(Lsn(u64::MAX));
        // A run is durable, so what it says of the log must be: commits that do not sync leave that to be done here.
        log.settle(folded)?;
        let space = self.space_for_fold();
        // As of the table's end: what came later is not durable for certain.
        let removed = given_up(&facts, &Snapshot { view, lsn: folded, domain: DomainId::DEFAULT, is_kept: false })?;
        let removed = self.not_withheld(removed)?;
        let runs = self.files.within(space, || self.write_table(&table, &facts))?;
        log.wait_for_views(folded);
        // A file that was given up must be gone before the record that says so is.
        self.files.remove_durably(&removed).map_err(|error| self.files.fail_stop(error))?;
        let mut dropped = Vec::new();
        let list = |list: &mut RunList, new: &[RunMeta]| {
            list.folded = folded;
            list.runs.splice(0..0, new.iter().cloned());
            dropped = self.unlist(list, self.history());
        };
        self.publish_runs(runs, space, list, |view| {
            view.frozen.pop();
            view.folded = folded;
        })?;
        self.add_dead_logs(&mut dropped);
        self.upkeep.progressed();
        Ok(true)
    }

    /// Folds all facts, those that no log has too, and lets the list be what `change` makes of it, in one step. Nobody
    /// commits meanwhile.
    pub(crate) fn fold_into(&self, log: &dyn Log, mut change: impl FnMut(&mut RunList)) -> Result<()> {
        self.freeze(log);
        let table = self.view().frozen.first().cloned();
        let runs = table.map(|table| self.write_table(&table, &table.sorted(Lsn(u64::MAX)))).transpose()?;
        let list = |list: &mut RunList, new: &[RunMeta]| {
            list.runs.splice(0..0, new.iter().cloned());
            change(list);
        };
        self.publish_runs(runs.flatten(), Space::Free, list, |view| view.frozen.clear())
    }

    /// A fold may use the reserve if it lets log files go in which nothing lives.
    fn space_for_fold(&self) -> Space {
        let snapshot = self.snapshot();
        let is_empty = |id: FileId| {
            // Where that can't be read, something may live in it.
            let segments = snapshot.segments(id);
            segments.is_ok_and(|segments| segments.iter().all(|(_, segment)| segment.live_frames == 0))
        };
        let logs = self.logs();
        let is_kept = |log: &LogEntry| log.sealed.is_none() || log.id < snapshot.view.locked.withheld;
        let gives_space = logs.iter().any(|log| !is_kept(log) && is_empty(log.id));
        if gives_space { Space::Reserve } else { Space::Free }
    }

    /// Makes runs, all or none, part of the list and of the view, as `change_list` says.
    pub(super) fn publish_runs(
        &self,
        new: Option<NewRuns>,
        space: Space,
        mut change_list: impl FnMut(&mut RunList, &[RunMeta]),
        change_view: impl FnOnce(&mut View),
    ) -> Result<()> {
        let (file, metas) = new.unzip();
        let metas = metas.unwrap_or_default();
        let open = self.open_all(&metas, &self.files.keys(), &Runs::default())?;
        open.iter().for_each(|run| run.verify_ahead());
        // Where this fails they go, except after a failed sync: then the list on disk may name them.
        self.update_list(space, |list| change_list(list, &metas))?;
        file.into_iter().for_each(NewFile::publish);
        let list = self.hold_list();
        let mut view = self.view.write();
        let mut new = View { runs: Arc::new(view.runs.listed(&list, &open)), ..View::clone(&view) };
        change_view(&mut new);
        *view = Arc::new(new);
        Ok(())
    }

    /// Writes a table's facts, in the order of their keys.
    fn write_table(&self, table: &Memtable, facts: &[Fact]) -> Result<Option<NewRuns>> {
        let (view, keys) = (self.view(), self.files.keys());
        // Below a domain's only run there is nothing that a tombstone could hide.
        self.write_runs(table, facts, &keys, |domain| !view.runs.of(domain).is_empty())
    }

    /// Writes facts of a table, in the order of their keys, if there are any: a run for each domain.
    pub(super) fn write_runs(
        &self,
        table: &Memtable,
        facts: &[Fact],
        keys: &Keyring,
        keeps_tombstones: impl Fn(DomainId) -> bool,
    ) -> Result<Option<NewRuns>> {
        if facts.is_empty() {
            return Ok(None);
        }
        let (file, mut runs) = self.begin_runs()?;
        let mut metas = Vec::new();
        for own in facts.chunk_by(|(one, _), (next, _)| one.domain == next.domain) {
            let Some(domain) = own.first().map(|(key, _)| key.domain) else { continue };
            let keep_tombstones = keeps_tombstones(domain);
            let kept = own.iter().filter(|(_, value)| keep_tombstones || value.is_some());
            let mut kept = kept.map(|(key, value)| (key, value.as_ref().map(Value::as_bytes)));
            let expected = Expected::of_facts(kept.clone());
            let mut writer = runs.begin(keys, domain, table.lsn_range(), expected)?;
            kept.try_for_each(|(key, value)| writer.push(key, value))?;
            metas.push(writer.finish(0).map_err(|error| self.files.fail_stop(error))?);
        }
        self.finish_runs(&runs)?;
        Ok(Some((file, metas)))
    }

    /// Begins a file of runs.
    pub(super) fn begin_runs(&self) -> Result<(NewFile, RunFile)> {
        let file = self.files.begin();
        let runs = RunFile::create(self.files.vfs(), &self.files.layout().run(file.id()), file.id())?;
        Ok((file, runs))
    }

    /// Makes a file of runs and its name durable.
    pub(super) fn finish_runs(&self, file: &RunFile) -> Result<()> {
        let runs = self.files.layout().runs();
        let dir = crate::files::open_dir(self.files.vfs(), &runs)?;
        file.sync().map_err(|error| self.files.fail_stop(error))?;
        dir.sync().map_err(Error::io("sync", &runs)).map_err(|error| self.files.poison(error))
    }

    /// Opens runs. Those in a file that is open already share it.
    pub(super) fn open_all<'m>(
        &self,
        metas: impl IntoIterator<Item = &'m RunMeta>,
        keys: &Keyring,
        open: &Runs,
    ) -> Result<Vec<Arc<Run>>> {
        let mut files: HashMap<FileId, Arc<SealedFile>> =
            open.files().into_iter().map(|(id, file)| (id, Arc::clone(file))).collect();
        // What is encrypted is read by position: its pages are kept as they are decrypted.
        let none = MappingBudget::new(ReadMode::Positioned, 0);
        let mut runs = Vec::new();
        for meta in metas {
            let file = match files.entry(meta.id.file) {
                Entry::Occupied(file) => file.into_mut(),
                Entry::Vacant(place) => {
                    let mappings = if meta.key == 0 { &self.mappings } else { &none };
                    let path = self.files.layout().run(meta.id.file);
                    place.insert(open_file(self.files.vfs(), &path, mappings)?)
                }
            };
            runs.push(Arc::new(Run::open(file, meta, keys, &self.pages)?));
        }
        Ok(runs)
    }

    /// Opens the runs that the list names.
    pub(crate) fn open_runs(&self) -> Result<()> {
        // Those of a domain that was being shredded have no key any more, and are about to go; those of a locked one
        // wait.
        let (metas, keys) = (self.list().runs, self.files.keys());
        let metas = metas.iter().filter(|meta| keys.is_open(meta.domain));
        let runs = Arc::new(self.open_all(metas, &keys, &Runs::default())?.into_iter().collect());
        let mut view = self.view.write();
        *view = Arc::new(View { runs, ..View::clone(&view) });
        Ok(())
    }

    /// The files that facts give up which no run has, except those that are withheld.
    pub(crate) fn given_up(&self) -> Result<Vec<FileId>> {
        self.not_withheld(given_up(&self.unfolded(Family::Segment), &self.snapshot())?)
    }
}

/// The files that facts of a table give up, where no domain has a fact of them as of the table's end. One of which that
/// can't be read is left alone: it costs its space, and a scrub says why.
pub(super) fn given_up(facts: &[Fact], end: &Snapshot) -> Result<Vec<FileId>> {
    let gone = facts.iter().filter(|(key, value)| key.family == Family::Segment && value.is_none());
    let mut files = Vec::new();
    for id in gone.map(|(key, _)| FileId(key.prefix())) {
        if end.segments_if_readable(id)?.is_some_and(|segments| segments.is_empty()) {
            files.push(id);
        }
    }
    Ok(files)
}
