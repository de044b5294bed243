//! Which files of runs become one, so that there are few.
//!
//! A fold writes one file, with a run for each domain that it has facts of. Four files of a tier become one of the
//! next, in which each domain has one run again. So a fact is written a few times in its life, and how many files there
//! are does not depend on how many domains there are.
//!
//! Where all runs of a domain are rewritten by themselves, they leave a file in which nothing of it is needed any more,
//! and another one that is in no order with the others. So there are two more rules: what is left of a file of which
//! less than half is needed is written anew, and past a number of files the smallest that follow each other become one.

use std::collections::BTreeMap;

use crate::id::{DomainId, FileId};
use crate::tables::RunMeta;

/// So many files of a tier become one of the next.
const FANOUT: usize = 4;

/// So many files there are at most, beside those that can't be merged.
const MOST_FILES: usize = 32;

/// What is to be merged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) files: Vec<FileId>,
    /// The tier of the file that they become.
    pub(crate) level: u8,
}

/// A file, and what of it can be merged.
#[derive(Debug)]
struct Candidate {
    id: FileId,
    level: u8,
    /// How many bytes of it are needed.
    needed: u64,
    /// Whether something has to stay in it.
    has_fixed: bool,
}

/// The files that should become one, newest first; none where there are few. `len` is how long a file is.
pub(crate) fn pick_merge(
    runs: &[RunMeta],
    is_movable: impl Fn(&RunMeta) -> bool,
    len: impl Fn(FileId) -> u64,
) -> Option<Due> {
    let files = candidates(runs, is_movable);
    let due = |files: &[Candidate], level: u8| Due { files: files.iter().map(|file| file.id).collect(), level };
    let level = |files: &[Candidate]| files.iter().map(|file| file.level).max().unwrap_or_default();
    let mut tiers = files.chunk_by(|newer, older| newer.level == older.level);
    if let Some(full) = tiers.find(|tier| tier.len() >= FANOUT) {
        return Some(due(full, level(full).saturating_add(1)));
    }
    let is_sparse = |file: &&Candidate| !file.has_fixed && file.needed.saturating_mul(2) < len(file.id);
    if let Some(sparse) = files.iter().find(is_sparse) {
        return Some(due(std::slice::from_ref(sparse), sparse.level));
    }
    let size = |files: &&[Candidate]| files.iter().map(|file| file.needed).fold(0, u64::saturating_add);
    let smallest = files.windows(FANOUT).min_by_key(size).filter(|_| files.len() > MOST_FILES);
    smallest.map(|files| due(files, level(files)))
}

/// The files in which something can be merged, in the order in which they are listed.
fn candidates(runs: &[RunMeta], is_movable: impl Fn(&RunMeta) -> bool) -> Vec<Candidate> {
    let mut files: Vec<Candidate> = Vec::new();
    let mut numbers: BTreeMap<FileId, usize> = BTreeMap::new();
    for run in runs {
        let number = *numbers.entry(run.id.file).or_insert(files.len());
        if number == files.len() {
            files.push(Candidate { id: run.id.file, level: 0, needed: 0, has_fixed: false });
        }
        if let Some(file) = files.get_mut(number) {
            if is_movable(run) {
                file.level = file.level.max(run.level);
                file.needed = file.needed.saturating_add(run.len);
            } else {
                file.has_fixed = true;
            }
        }
    }
    files.retain(|file| file.needed > 0);
    files
}

/// The runs that may be merged with each other, newest first: of one domain, between which it has no other.
pub(crate) fn groups(runs: &[RunMeta], is_merged: impl Fn(&RunMeta) -> bool) -> Vec<Vec<RunMeta>> {
    let mut by_domain: BTreeMap<DomainId, Vec<RunMeta>> = BTreeMap::new();
    for run in runs {
        by_domain.entry(run.domain).or_default().push(run.clone());
    }
    let groups = by_domain.values().flat_map(|own| own.split(|run| !is_merged(run)));
    groups.filter(|group| !group.is_empty()).map(<[RunMeta]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Lsn;
    use crate::tables::RunId;

    /// A run in a file, of so many bytes.
    fn run(file: u64, domain: u32, level: u8, len: u64) -> RunMeta {
        let id = RunId { file: FileId(file), at: u64::from(domain) << 32 };
        let (domain, lsn) = (DomainId(domain), Lsn(file));
        RunMeta { id, level, domain, key: 0, entries: len, tombstones: 0, lsn_min: lsn, lsn_max: lsn, len }
    }

    fn len_in(runs: &[RunMeta]) -> impl Fn(FileId) -> u64 {
        |id| runs.iter().filter(|run| run.id.file == id).map(|run| run.len).sum()
    }

    fn picked(runs: &[RunMeta], is_movable: impl Fn(&RunMeta) -> bool) -> Option<Vec<u64>> {
        pick_merge(runs, is_movable, len_in(runs)).map(|due| due.files.iter().map(|file| file.0).collect())
    }

    /// Merges as long as something is due; how many bytes were written.
    fn merge_all(runs: &mut Vec<RunMeta>, next: &mut u64, is_movable: impl Fn(&RunMeta) -> bool + Copy) -> u64 {
        let mut written = 0;
        while let Some(due) = pick_merge(runs, is_movable, len_in(runs)) {
            *next += 1;
            for group in groups(runs, |run| due.files.contains(&run.id.file) && is_movable(run)) {
                let at = runs.iter().position(|run| run.id == group[0].id).unwrap();
                let len = group.iter().map(|run| run.len).sum();
                let mut merged = run(*next, group[0].domain.0, due.level, len);
                merged.id.at += runs.iter().filter(|run| run.id.file == FileId(*next)).count() as u64;
                (merged.lsn_max, merged.lsn_min) = (group[0].lsn_max, group.last().unwrap().lsn_min);
                runs.retain(|run| !group.iter().any(|old| old.id == run.id));
                runs.insert(at, merged);
                written += len;
            }
        }
        written
    }

    fn files(runs: &[RunMeta]) -> usize {
        runs.iter().map(|run| run.id.file).collect::<std::collections::BTreeSet<_>>().len()
    }

    #[test]
    fn ten_million_facts_are_written_less_than_five_times_and_lie_in_few_runs() {
        let (mut runs, mut next) = (Vec::new(), 1_000_000);
        let (mut written, mut most) = (0, 0);
        for id in 0..100 {
            runs.insert(0, run(id, 0, 0, 100_000));
            written += 100_000;
            most = most.max(runs.len());
            written += merge_all(&mut runs, &mut next, |_| true);
        }
        assert_eq!(runs.iter().map(|run| run.len).sum::<u64>(), 10_000_000);
        assert!(written <= 5 * 10_000_000, "{written} facts written");
        assert!(most <= 12, "{most} runs");
    }

    #[test]
    fn files_stay_few_and_each_domain_in_order_whatever_is_rewritten_damaged_or_locked() {
        let (mut runs, mut next) = (Vec::new(), 1_000_000);
        let is_movable = |run: &RunMeta| run.domain.0 != 7 && run.lsn_max.0 % 50 != 13;
        for id in 1..=1000u64 {
            // Each time some of sixteen domains, of sizes that differ; and now and then all of one is written anew.
            let domains = (0..16u32).filter(|domain| id % (u64::from(*domain) + 1) == 0);
            let new: Vec<RunMeta> = domains.map(|domain| run(id, domain, 0, 100 << (domain % 8))).collect();
            runs.splice(0..0, new);
            merge_all(&mut runs, &mut next, is_movable);
            if id % 7 == 0 {
                let domain = DomainId((id % 16) as u32);
                let own: Vec<RunMeta> = runs.iter().filter(|run| run.domain == domain).cloned().collect();
                if let [first, .., last] = &own[..] {
                    next += 1;
                    let at = runs.iter().position(|run| run.id == first.id).unwrap();
                    let len = own.iter().map(|run| run.len).sum();
                    let mut merged = run(next, domain.0, first.level, len);
                    (merged.lsn_max, merged.lsn_min) = (first.lsn_max, last.lsn_min);
                    runs.insert(at, merged);
                    runs.retain(|run| run.id.file == FileId(next) || run.domain != domain);
                }
            }
            merge_all(&mut runs, &mut next, is_movable);
            let movable: Vec<RunMeta> = runs.iter().filter(|run| is_movable(run)).cloned().collect();
            assert!(files(&movable) <= MOST_FILES, "{} files", files(&movable));
            for domain in 0..16 {
                let own: Vec<&RunMeta> = runs.iter().filter(|run| run.domain.0 == domain).collect();
                assert!(own.is_sorted_by(|newer, older| newer.lsn_min > older.lsn_max), "{own:?}");
            }
        }
    }

    #[test]
    fn a_tier_is_full_with_four_files_whatever_domains_they_have_and_damage_divides_groups() {
        let mut runs: Vec<RunMeta> = (0..3).map(|n| run(12 - n, (n % 2) as u32, 0, 10)).collect();
        assert_eq!(picked(&runs, |_| true), None, "three files");
        runs.push(run(9, 0, 0, 10));
        assert_eq!(picked(&runs, |_| true), Some(vec![12, 11, 10, 9]));
        assert_eq!(picked(&runs, |run| run.id.file != FileId(10)), None, "one that can't be merged does not count");
        runs.extend([run(8, 0, 0, 10), run(7, 1, 1, 10)]);
        let is_sound = |run: &RunMeta| run.id.file != FileId(10);
        assert_eq!(picked(&runs, is_sound), Some(vec![12, 11, 9, 8]));
        let groups = groups(&runs, |run| is_sound(run) && run.level == 0);
        let ids: Vec<Vec<u64>> = groups.iter().map(|group| group.iter().map(|run| run.id.file.0).collect()).collect();
        assert_eq!(ids, [vec![12], vec![9, 8], vec![11]], "a damaged run divides those of its domain");
    }

    #[test]
    fn what_is_left_of_a_file_is_written_anew_unless_it_is_most_of_it_or_has_to_stay() {
        let runs = [run(5, 0, 2, 100), run(4, 1, 3, 40)];
        let of = |len: u64| pick_merge(&runs, |_| true, move |id| if id == FileId(4) { len } else { 100 });
        assert_eq!(of(80), None);
        assert_eq!(of(81), Some(Due { files: vec![FileId(4)], level: 3 }));
        assert_eq!(pick_merge(&runs, |run| run.domain.0 != 1, |_| 200), None, "file 4 is fixed, 5 is half needed");
    }
}
