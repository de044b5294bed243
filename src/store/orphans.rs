//! Files that a crash left behind, and files that were given up before it.
//!
//! # Invariant kept here
//! A file is removed only where no fact and no list names it, and all facts that could are readable. One of which that
//! can't be said, since facts are damaged, is left alone, and looked at again by the next opening.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::facts::{SegmentFact, SegmentKind};
use crate::files::layout::{parse_id, shard};
use crate::files::{Files, remove_if_there};
use crate::id::FileId;
use crate::log::Committer;
use crate::tables::{RunList, Tables};

/// The log files and segments from the orphan floor on, and the runs, that the list does not name. No id of theirs is
/// given out again.
pub(super) fn unlisted_files(files: &Files, list: &RunList) -> Result<Vec<(FileId, PathBuf)>> {
    let layout = files.layout();
    let mut dirs = vec![layout.runs()];
    for parent in [layout.logs(), layout.segments()] {
        dirs.extend(shards_from(files, &parent, list.orphan_floor, list.next_file)?);
    }
    let mut unlisted = Vec::new();
    for dir in dirs {
        for name in files.vfs().list(&dir).map_err(Error::io("list", &dir))? {
            let Some(id) = parse_id(&name) else { continue };
            files.skip_past(id);
            let is_listed = list.names_log(id) || list.runs.iter().any(|run| run.id == id);
            if !is_listed && (id >= list.orphan_floor || dir == layout.runs()) {
                files.unlisted(id); // until it is dealt with, lists tell the next opening to look for it
                unlisted.push((id, dir.join(name)));
            }
        }
    }
    Ok(unlisted)
}

/// The shard directories that may hold files with ids from `floor` on. Shards are created in order, but a crash may
/// have lost any that was not synced, so the search ends at two in a row that are missing beyond the known ids.
fn shards_from(files: &Files, parent: &Path, floor: FileId, next: FileId) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut missing = 0;
    let mut shard_number = floor.0 >> 8;
    while missing < 2 || shard_number <= next.0 >> 8 {
        let dir = parent.join(shard(FileId(shard_number << 8)));
        match files.vfs().list(&dir) {
            Ok(_) => {
                found.push(dir);
                missing = 0;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => missing += 1,
            Err(error) => return Err(Error::io("list", &dir)(error)),
        }
        shard_number += 1;
    }
    Ok(found)
}

/// Removes files that were given up, and those of the unlisted that no fact names.
pub(super) fn remove_orphans(
    files: &Files,
    tables: &Tables,
    log: &Committer,
    unlisted: &[(FileId, PathBuf)],
) -> Result<()> {
    tables.given_up()?.into_iter().try_for_each(|id| files.remove(id))?;
    let (mut orphans, mut empty_logs) = (Vec::new(), Vec::new());
    for (id, path) in unlisted {
        if path.starts_with(files.layout().runs()) {
            remove_if_there(files.vfs(), path)?;
            files.published(*id);
            continue;
        }
        let Some(segments) = tables.snapshot().segments_if_readable(*id)? else { continue };
        let is_empty = |segment: &SegmentFact| segment.kind == SegmentKind::Log && segment.live_frames == 0;
        if segments.is_empty() {
            orphans.push(*id);
        } else if segments.iter().any(|(_, segment)| is_empty(segment)) {
            empty_logs.push(*id);
        } else {
            files.published(*id);
        }
    }
    let orphans = tables.not_withheld(orphans)?;
    files.remove_durably(&orphans)?;
    orphans.iter().for_each(|id| files.published(*id));
    tables.add_dead_logs(&mut empty_logs);
    match log.drop_dead_logs() {
        Err(Error::Full { .. }) => Ok(()), // maintenance tries again
        other => other,
    }
}
