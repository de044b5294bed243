//! `backup` and `restore`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use strongroom::{SnapshotOptions, SnapshotReport};

use crate::check::{self, Answer};
use crate::commands::Access;
use crate::failure::Failure;
use crate::output::{Output, shown, size};

#[derive(Debug, Args)]
pub struct Backup {
    /// The directory that the backup becomes. It must not exist, or be empty.
    to: PathBuf,
    /// An earlier backup on the same disk: files that it has take no more space.
    #[arg(long, value_name = "BACKUP")]
    base: Option<PathBuf>,
    /// Copy all files, also where they could be linked.
    #[arg(long)]
    no_links: bool,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The backup.
    backup: PathBuf,
    /// The directory that the store becomes. It must not exist, or be empty.
    to: PathBuf,
    /// Do not read all content of the restored store.
    #[arg(long)]
    no_verify: bool,
}

/// A snapshot of the store, also of one that another process has open.
pub fn backup(data: &Path, access: &Access, with: &Backup, output: &Output) -> Result<(), Failure> {
    let store = access.options()?.read_only(true).open(data)?;
    let mut options = SnapshotOptions::new().links(!with.no_links);
    if let Some(base) = &with.base {
        options = options.base(base);
    }
    let report = store.snapshot_to(&with.to, &options)?;
    let text = format!(
        "commit {}: {} files linked ({}), {} copied ({})",
        report.lsn,
        report.linked_files,
        size(report.linked_bytes),
        report.copied_files,
        size(report.copied_bytes)
    );
    answer(&report, text).give(output)
}

/// A copy of a backup that shares nothing with it.
pub fn restore(access: &Access, with: &Restore, output: &Output) -> Result<(), Failure> {
    let backup = access.options()?.read_only(true).open(&with.backup)?;
    let report = backup.snapshot_to(&with.to, &SnapshotOptions::new().links(false))?;
    let text = format!("commit {}: {} files ({})", report.lsn, report.copied_files, size(report.copied_bytes));
    let copied = answer(&report, text);
    if with.no_verify {
        return copied.give(output);
    }
    copied.and(check::verified(&access.options()?.read_only(true).open(&with.to)?, output)?).give(output)
}

/// What was copied, and the files of which not all was.
fn answer(report: &SnapshotReport, mut text: String) -> Answer {
    let damaged = [("missing", &report.missing), ("unreadable", &report.unreadable)];
    for (what, path) in damaged.into_iter().flat_map(|(what, paths)| paths.iter().map(move |path| (what, path))) {
        text = format!("{text}\n{what}: {}", shown(path));
    }
    let findings = report.missing.len() + report.unreadable.len();
    Answer { document: document(report), text, findings }
}

fn document(report: &SnapshotReport) -> Value {
    let names = |paths: &[PathBuf]| paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>();
    json!({
        "lsn": report.lsn.get(),
        "linked_files": report.linked_files, "linked_bytes": report.linked_bytes,
        "copied_files": report.copied_files, "copied_bytes": report.copied_bytes,
        "missing": names(&report.missing), "unreadable": names(&report.unreadable),
    })
}
