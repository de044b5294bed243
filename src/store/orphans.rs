//! Files that a crash left behind, and files that were given up before it.
//!
//! # Invariant kept here
//! A file is removed only where no fact and no list names it, and all facts that could name it are readable. Where
//! damaged facts leave that open, the file stays, and the next opening looks at it again.

use crate::error::{Error, Result};
use crate::facts::{SegmentFact, SegmentKind};
use crate::files::layout::parse_id;
use crate::files::{Contents as _, Files, remove_if_there};
use crate::id::FileId;
use crate::log::Committer;
use crate::tables::{RunList, Tables};

/// Files that the list does not name.
#[derive(Debug)]
pub(super) struct Unlisted {
    runs: Vec<FileId>,
    /// Log files and segments, from the orphan floor on.
    others: Vec<FileId>,
}

/// The files that the list does not name. No id of theirs is given out again, and until they are dealt with, lists tell
/// the next opening to look for them.
pub(super) fn unlisted_files(files: &Files, list: &RunList) -> Result<Unlisted> {
    let (dir, floor, next) = (files.layout().runs(), list.orphan_floor, list.next_file);
    let names = files.vfs().list(&dir).map_err(Error::io("list", &dir))?;
    let mut runs: Vec<FileId> = names.iter().filter_map(|name| parse_id(name)).collect();
    let mut others = files.logs_since(floor, next)?;
    others.extend(files.orphans(floor, next)?);
    for ids in [&mut runs, &mut others] {
        ids.iter().for_each(|id| files.skip_past(*id));
        ids.retain(|id| !list.names_log(*id) && !list.runs.iter().any(|run| run.id.file == *id));
        ids.iter().for_each(|id| files.unlisted(*id));
    }
    Ok(Unlisted { runs, others })
}

/// Removes files that were given up, and those of the unlisted that no fact names.
pub(super) fn remove_orphans(files: &Files, tables: &Tables, log: &Committer, unlisted: &Unlisted) -> Result<()> {
    tables.given_up()?.into_iter().try_for_each(|id| files.remove(id))?;
    for id in &unlisted.runs {
        remove_if_there(files.vfs(), &files.layout().run(*id))?;
        files.settled(*id);
    }
    let (mut orphans, mut empty_logs) = (Vec::new(), Vec::new());
    for id in &unlisted.others {
        let Some(segments) = tables.snapshot().segments_if_readable(*id)? else { continue };
        let is_empty = |segment: &SegmentFact| segment.kind == SegmentKind::Log && segment.live_frames == 0;
        if segments.is_empty() {
            orphans.push(*id);
        } else if segments.iter().any(|(_, segment)| is_empty(segment)) {
            empty_logs.push(*id);
        } else {
            files.settled(*id);
        }
    }
    let orphans = tables.not_withheld(orphans)?;
    files.remove_durably(&orphans)?;
    orphans.iter().for_each(|id| files.settled(*id));
    tables.add_dead_logs(&mut empty_logs);
    match log.drop_dead_logs() {
        Err(Error::Full { .. }) => Ok(()), // maintenance tries again
        other => other,
    }
}
