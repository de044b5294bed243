//! How many files a store keeps open, and mapped: a share of the process's limits, since the program that embeds it
//! needs some too, and may have several stores open.

use std::sync::Arc;

use crate::sealed::{MappingBudget, ReadMode};

/// So many log files and segments are kept open at most, unless the options say otherwise.
const MOST_FILES: usize = 512;

/// So few are, however few descriptors there may be.
const LEAST_FILES: usize = 8;

/// So many runs are mapped at most.
const MOST_RUNS: usize = 1024;

/// Linux's default, in case that it can't be read.
const MAPPINGS: usize = 65_530;

/// How many log files and segments are kept open: a quarter of the descriptors that the process may have now. Runs,
/// uploads under way and files being written take others.
pub(crate) fn open_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    (limit / 4).clamp(LEAST_FILES, MOST_FILES)
}

/// How many log files and segments may be mapped, where so many are kept open: a quarter of the mappings that the
/// process may have at most. What is not mapped is read by position.
pub(super) fn file_mappings(mode: ReadMode, open_files: usize) -> Arc<MappingBudget> {
    MappingBudget::new(mode, open_files.min(mappings() / 4))
}

/// How many runs may be mapped: a sixteenth of the mappings that the process may have at most.
pub(crate) fn run_mappings(mode: ReadMode) -> Arc<MappingBudget> {
    MappingBudget::new(mode, MOST_RUNS.min(mappings() / 16))
}

fn mappings() -> usize {
    let most = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    most.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(MAPPINGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_may_have_few_descriptors_keeps_most_of_them() {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(open_files() >= LEAST_FILES && open_files() as u64 <= (limit / 4).max(LEAST_FILES as u64));
    }
}
