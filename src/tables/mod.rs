//! What the store knows: memory tables, runs, the list of what the store consists of, and snapshots of them.

mod list;
pub(crate) mod maintenance;
pub(crate) mod memtable;
mod runs;
pub(crate) mod view;

pub(crate) use list::{LogEntry, RunList, RunMeta, pick_merge};
#[cfg(feature = "fuzzing")]
pub(crate) use runs::Footer;
pub(crate) use runs::{FamilyCounts, Merge, MergeJob, PageCache, Run, RunWriter, Source};
