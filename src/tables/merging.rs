//! Merging: runs of a domain become one.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::files::Space;
use crate::id::{DomainId, FileId};
use crate::sync::lock;
use crate::tables::{Expected, Log, MergeJob, Run, RunList, RunMeta, Tables, pick_merge};

/// How many facts a merge moves between two looks at whether it should stop.
const MERGE_STEP: usize = 64 << 10;

impl Tables {
    /// Merges runs if a tier is full; `false` where none is.
    pub(super) fn merge_once(&self, log: &dyn Log) -> Result<bool> {
        let damaged = lock(&self.damaged_runs).clone();
        let keys = self.files.keys();
        let mut runs = self.list().runs;
        runs.retain(|run| keys.is_open(run.domain));
        let picked = pick_merge(&runs, |id| damaged.contains(&id));
        match picked.map_or(Ok(false), |picked| self.merge(log, &picked)) {
            // That is remembered: the others are merged without it.
            Err(Error::Corrupt { .. }) if lock(&self.damaged_runs).len() > damaged.len() => Ok(true),
            other => other,
        }
    }

    /// Merges runs of one domain between which it has no other; `false` where it was told to stop. While it goes on,
    /// tables are folded as they fill.
    fn merge(&self, log: &dyn Log, old: &[FileId]) -> Result<bool> {
        let metas = self.list().runs;
        let merged: Vec<&RunMeta> = metas.iter().filter(|meta| old.contains(&meta.id)).collect();
        let sources: Vec<Arc<Run>> = self.view().runs.iter().filter(|run| old.contains(&run.id())).cloned().collect();
        let Some(first) = merged.first() else { return Ok(false) };
        if merged.len() != old.len() || sources.len() != old.len() {
            // They are added and removed only by the thread that folds or merges.
            return Err(self
                .files
                .fail_stop(Error::Internal { invariant: "runs that are merged are listed and open" }));
        }
        let fold =
            |(level, min, max), meta: &&RunMeta| (meta.level.max(level), meta.lsn_min.min(min), meta.lsn_max.max(max));
        let (level, lsn_min, lsn_max) = merged.iter().fold((first.level, first.lsn_min, first.lsn_max), fold);
        let expected = Expected::of_runs(&sources);
        let (file, mut writer) = self.begin_run(first.domain, (lsn_min, lsn_max), expected, &self.files.keys())?;
        let oldest = metas.iter().rfind(|meta| meta.domain == first.domain);
        let drop_tombstones = oldest.is_some_and(|oldest| old.contains(&oldest.id));
        let mut job = MergeJob::new(&sources, drop_tombstones);
        while !job.step(&mut writer, MERGE_STEP).inspect_err(|error| self.note_damage(old, error))? {
            if self.upkeep.stops() {
                return Ok(false);
            }
            self.fold_if_due(log)?;
        }
        drop(job);
        let meta =
            self.finish_run(writer, level.saturating_add(1)).inspect_err(|error| self.note_damage(old, error))?;
        let list = |list: &mut RunList| {
            let at = list.runs.iter().position(|run| old.contains(&run.id));
            list.runs.retain(|run| !old.contains(&run.id));
            at.into_iter().for_each(|at| list.runs.insert(at, meta.clone()));
        };
        self.publish_runs(vec![(file, meta.clone())], Space::Free, list, |view, runs| {
            let at = view.runs.iter().position(|run| old.contains(&run.id()));
            view.runs.retain(|run| !old.contains(&run.id()));
            at.into_iter().for_each(|at| drop(view.runs.splice(at..at, runs.iter().cloned())));
        })?;
        old.iter().for_each(|id| self.files.discard(*id));
        Ok(true)
    }

    /// Merges all runs of a domain into one, if that is due, and says how many those were.
    pub(crate) fn merge_all(
        &self,
        log: &dyn Log,
        domain: DomainId,
        is_due: impl FnOnce(&[RunMeta]) -> bool,
    ) -> Result<usize> {
        let _one = lock(&self.folding);
        let mut runs = self.list().runs;
        runs.retain(|run| run.domain == domain);
        if !is_due(&runs) {
            return Ok(0);
        }
        let own: Vec<FileId> = runs.iter().map(|run| run.id).collect();
        Ok(if self.merge(log, &own)? { own.len() } else { 0 })
    }

    /// Merges all runs of a domain if so many of their facts, in percent, are dead: tombstones, and as many facts that
    /// they hide.
    pub(crate) fn merge_if_dead(&self, log: &dyn Log, domain: DomainId, percent: u8) -> Result<()> {
        let is_due = |runs: &[RunMeta]| {
            let entries: u64 = runs.iter().map(|run| run.entries).sum();
            let tombstones: u64 = runs.iter().map(|run| run.tombstones).sum();
            let damaged = lock(&self.damaged_runs);
            runs.len() > 1
                && 200 * tombstones > u64::from(percent) * entries
                && !runs.iter().any(|run| damaged.contains(&run.id))
        };
        self.merge_all(log, domain, is_due).map(drop)
    }

    /// Remembers the run that a merge found damaged, so that the others are merged without it.
    fn note_damage(&self, runs: &[FileId], error: &Error) {
        if let Error::Corrupt { file, .. } = error {
            let damaged = runs.iter().filter(|id| self.files.layout().run(**id) == *file);
            lock(&self.damaged_runs).extend(damaged);
        }
    }
}
