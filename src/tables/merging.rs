//! Merging: of files of runs one becomes, in which each domain has one run.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::files::Space;
use crate::id::{DomainId, FileId};
use crate::sync::lock;
use crate::tables::tiers::{groups, pick_merge};
use crate::tables::{Expected, Log, MergeJob, Run, RunId, RunList, RunMeta, RunWriter, Tables};

/// How many facts a merge moves between two looks at whether it should stop.
const MERGE_STEP: usize = 64 << 10;

/// What a merge has done.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    /// How many runs were merged.
    pub(crate) runs: usize,
    /// What was found damaged: those runs that should have been merged with it are as they were.
    pub(crate) damage: Vec<Error>,
}

impl Merged {
    /// Fails unless all were merged that should have been.
    pub(crate) fn all(self) -> Result<()> {
        self.damage.into_iter().next().map_or(Ok(()), Err)
    }
}

impl Tables {
    /// Merges files of runs if that is due; `false` where nothing has changed by it.
    pub(super) fn merge_once(&self, log: &dyn Log) -> Result<bool> {
        let damaged = lock(&self.damaged_runs).clone();
        let (runs, keys, view) = (self.list().runs, self.files.keys(), self.view());
        let is_movable = |run: &RunMeta| keys.is_open(run.domain) && !damaged.contains(&run.id);
        let files = view.runs.files();
        let len = |id: FileId| files.get(&id).map_or(0, |file| file.len());
        let Some(due) = pick_merge(&runs, is_movable, len) else { return Ok(false) };
        let merged =
            self.merge(log, &groups(&runs, |run| due.files.contains(&run.id.file) && is_movable(run)), due.level)?;
        // Damage is remembered: the next time the others are merged without it.
        Ok(merged.runs > 0 || !merged.damage.is_empty())
    }

    /// Merges groups of runs, each of one domain that has no other between them, into a run each, all in one file.
    /// Where it is told to stop, those that were merged by then count.
    fn merge(&self, log: &dyn Log, groups: &[Vec<RunMeta>], level: u8) -> Result<Merged> {
        let mut merged = Merged::default();
        if groups.is_empty() {
            return Ok(merged);
        }
        let (before, keys, view) = (self.list().runs, self.files.keys(), self.view());
        let open: HashMap<RunId, &Arc<Run>> = view.runs.all().map(|run| (run.id(), run)).collect();
        let oldest: HashMap<DomainId, RunId> = before.iter().map(|meta| (meta.domain, meta.id)).collect();
        let (file, mut runs) = self.begin_runs()?;
        let (mut done, mut metas) = (Vec::new(), Vec::new());
        for group in groups {
            let sources: Vec<Arc<Run>> = group.iter().filter_map(|meta| open.get(&meta.id).copied().cloned()).collect();
            if sources.len() != group.len() {
                // They are added and removed only by the thread that folds or merges.
                let error = Error::Internal { invariant: "runs that are merged are listed and open" };
                return Err(self.files.fail_stop(error));
            }
            let Some(last) = group.last() else { continue };
            let job = MergeJob::new(&sources, oldest.get(&last.domain) == Some(&last.id));
            let lsns = group
                .iter()
                .fold((last.lsn_min, last.lsn_max), |(min, max), run| (min.min(run.lsn_min), max.max(run.lsn_max)));
            let writer = runs.begin(&keys, last.domain, lsns, Expected::of_runs(&sources))?;
            match self.merge_group(log, job, writer, level) {
                Ok(Some(meta)) => {
                    done.push(group);
                    metas.push(meta);
                }
                Ok(None) => break,
                Err(error) if self.is_damage_to(group, &error) => merged.damage.push(error),
                Err(error) => return Err(error),
            }
        }
        if metas.is_empty() {
            return Ok(merged);
        }
        self.finish_runs(&runs)?;
        let list = |list: &mut RunList, metas: &[RunMeta]| {
            // The run of a group takes the place of its first.
            let mut places: HashMap<RunId, Option<&RunMeta>> = HashMap::new();
            for (group, new) in done.iter().zip(metas) {
                places.extend(group.iter().map(|old| (old.id, None)));
                places.extend(group.first().map(|first| (first.id, Some(new))));
            }
            let old = std::mem::take(&mut list.runs).into_iter();
            list.runs = old.filter_map(|run| places.get(&run.id).map_or(Some(run), |new| new.cloned())).collect();
        };
        self.publish_runs(Some((file, metas)), Space::Free, list, |_| {})?;
        self.discard_unlisted(&before);
        Ok(Merged { runs: done.iter().map(|group| group.len()).sum(), ..merged })
    }

    /// Writes the run that a group becomes; `None` where it is told to stop. While it goes on, tables are folded as
    /// they fill.
    fn merge_group(
        &self,
        log: &dyn Log,
        mut job: MergeJob<'_>,
        mut writer: RunWriter<'_>,
        level: u8,
    ) -> Result<Option<RunMeta>> {
        loop {
            if self.upkeep.stops() {
                return Ok(None);
            }
            self.fold_if_due(log)?;
            if job.step(&mut writer, MERGE_STEP)? {
                return writer.finish(level).map(Some).map_err(|error| self.files.fail_stop(error));
            }
        }
    }

    /// Merges all runs of each domain for which that is due.
    pub(crate) fn merge_all(&self, log: &dyn Log, is_due: impl Fn(DomainId, &[RunMeta]) -> bool) -> Result<Merged> {
        let _one = lock(&self.folding);
        let keys = self.files.keys();
        let mut due = groups(&self.list().runs, |run| keys.is_open(run.domain));
        due.retain(|own| own.first().is_some_and(|run| is_due(run.domain, own)));
        let level = due.iter().flatten().map(|run| run.level).max().unwrap_or_default();
        let merged = self.merge(log, &due, level.saturating_add(1))?;
        // Little may be left of the files that they were in. What fails of that, maintenance tries again.
        while self.merge_once(log).unwrap_or_default() {}
        Ok(merged)
    }

    /// Merges all runs of those domains of which so many facts, in percent, are dead: tombstones, and as many facts
    /// that they hide.
    pub(crate) fn merge_if_dead(&self, log: &dyn Log, percent: u8) -> Result<Merged> {
        let damaged = lock(&self.damaged_runs).clone();
        let is_due = |_, runs: &[RunMeta]| {
            let entries: u64 = runs.iter().map(|run| run.entries).sum();
            let tombstones: u64 = runs.iter().map(|run| run.tombstones).sum();
            runs.len() > 1
                && 200 * tombstones > u64::from(percent) * entries
                && !runs.iter().any(|run| damaged.contains(&run.id))
        };
        self.merge_all(log, is_due)
    }

    /// Whether an error says that one of these runs is damaged, or can't be read. That is remembered, so that others
    /// are merged without it.
    fn is_damage_to(&self, runs: &[RunMeta], error: &Error) -> bool {
        let (file, offset) = match error {
            Error::Corrupt { file, offset, .. } => (file, Some(offset)),
            Error::Io { path, .. } if error.is_of_disk() => (path, None),
            _ => return false,
        };
        let is_at = |run: &RunMeta, at| (run.id.at..run.id.at.saturating_add(run.len)).contains(at);
        let is_hit = |run: &&RunMeta| {
            self.files.layout().run(run.id.file) == *file && offset.is_none_or(|offset| is_at(run, offset))
        };
        let hit: Vec<RunId> = runs.iter().filter(is_hit).map(|run| run.id).collect();
        lock(&self.damaged_runs).extend(&hit);
        !hit.is_empty()
    }
}
