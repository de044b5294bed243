//! What a snapshot consists of, as of one moment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::envelope::Keyring;
use crate::error::Result;
use crate::facts::SegmentKind;
use crate::id::{FileId, Lsn};
use crate::segment::{CONTENT_OFFSET, Trailer, is_trailer};
use crate::store::{Inner, format};
use crate::tables::{RunList, Snapshot};
use crate::vfs::OpenMode;
use crate::wire::len64;

/// The store after a commit.
pub(super) struct Moment {
    /// What is in `FORMAT`, and the keys that it has.
    pub(super) format: Vec<u8>,
    pub(super) keys: Arc<Keyring>,
    /// The list of a store whose log ends with that commit.
    pub(super) list: RunList,
    pub(super) parts: Vec<Part>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) from: PathBuf,
    /// Where it lies in a store's directory.
    pub(super) path: PathBuf,
    pub(super) extent: Extent,
}

/// How much of a file is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it. It does not change any more.
    Whole,
    /// So much. Once it is as long as that, it does not change any more.
    SealedAt(u64),
    /// So much, or all where it is shorter. It may become longer.
    Growing(u64),
}

impl Moment {
    /// What there is now; in a store that is open for reading only, as of the last commit that is durable.
    pub(super) fn now(inner: &Inner) -> Result<Self> {
        let (list, being_written, snapshot, format, keys) = match inner.followed_moment()? {
            Some(followed) => followed,
            None => {
                // Where that fails (on a full disk), what is in the log file is copied, however long that is.
                let _ = inner.log.end_log_of(super::COPIED_LOG);
                let (list, being_written, (snapshot, format, keys)) = inner.log.ended_list(|| {
                    let format = format::read(inner.files.vfs(), &inner.files.layout().format())?;
                    Ok((inner.tables.snapshot(), format, inner.files.keys()))
                })?;
                (list, being_written, snapshot, format, keys)
            }
        };
        let mut parts = Parts { inner, found: BTreeMap::new() };
        parts.add_listed(&list, being_written);
        let is_all = parts.add_known(&snapshot)?;
        if !is_all || !list.unread.is_empty() || keys.locked().next().is_some() {
            parts.add_others(list.next_file, is_all)?;
        }
        let parts = parts.found.into_values().collect();
        Ok(Self { format, keys, list, parts })
    }

    /// The last commit.
    pub(super) fn lsn(&self) -> Lsn {
        self.list.durable
    }
}

/// The files of a moment, by their paths.
struct Parts<'a> {
    inner: &'a Inner,
    found: BTreeMap<PathBuf, Part>,
}

impl Parts<'_> {
    /// Adds a file, unless it is there.
    fn add(&mut self, from: PathBuf, extent: Extent) {
        let root = self.inner.files.layout().root();
        let path = from.strip_prefix(root).unwrap_or(&from).to_path_buf();
        self.found.entry(path.clone()).or_insert(Part { from, path, extent });
    }

    /// The files that the list names. Of these one is perhaps being written.
    fn add_listed(&mut self, list: &RunList, being_written: Option<FileId>) {
        let layout = self.inner.files.layout();
        list.runs.iter().for_each(|run| self.add(layout.run(run.id.file), Extent::Whole));
        let unread = list.unread.iter().flat_map(|unread| &unread.logs);
        for log in list.logs.iter().chain(unread) {
            let Some((len, _)) = log.sealed else { continue };
            let extent = if being_written == Some(log.id) { Extent::Growing(len) } else { Extent::SealedAt(len) };
            self.add(layout.log(log.id), extent);
        }
    }

    /// The files of content that facts know of. `false` where facts are damaged that may know of others.
    fn add_known(&mut self, snapshot: &Snapshot) -> Result<bool> {
        let layout = self.inner.files.layout();
        let mut is_all = true;
        for own in snapshot.each_domain() {
            let (uploads, damage) = own.readable_uploads()?;
            is_all &= damage.is_none();
            let uploads = uploads.into_iter().filter_map(|(_, upload)| Some((upload.file?, upload.offset)));
            let uploads: BTreeMap<FileId, u64> = uploads.collect();
            for fact in own.segment_facts()? {
                let (id, segment) = match fact {
                    Err(error) if error.is_of_disk() => {
                        is_all = false;
                        break;
                    }
                    other => other?,
                };
                match segment.kind {
                    SegmentKind::Log => self.add(layout.log(id), Extent::Whole),
                    SegmentKind::Sealed => self.add(layout.segment(id), Extent::Whole),
                    SegmentKind::Upload => {
                        let durable = uploads.get(&id).map_or(u64::MAX, |len| CONTENT_OFFSET.saturating_add(*len));
                        self.add(layout.segment(id), Extent::Growing(durable));
                    }
                }
            }
        }
        Ok(is_all)
    }

    /// Files that may be needed although no fact that can be read says so: those of locked domains, and where facts are
    /// damaged, all that there are below an id. What is not needed, the next opening removes.
    fn add_others(&mut self, next: FileId, is_all: bool) -> Result<()> {
        let Inner { files, tables, .. } = self.inner;
        let layout = files.layout();
        let is_needed = |id: FileId| Ok(id < next && (!is_all || tables.is_withheld(id)?));
        for (id, path) in self.inner.all_files(&layout.logs())? {
            if is_needed(id)? {
                self.add(path, Extent::Whole);
            }
        }
        for (id, path) in self.inner.all_files(&layout.segments())? {
            if is_needed(id)? {
                let mut trailer = Trailer::default();
                let file = files.vfs().open(&path, OpenMode::Read);
                let read = file.and_then(|file| {
                    let at = file.len()?.saturating_sub(len64(&trailer));
                    file.read_exact_at(&mut trailer, at)
                });
                let is_sealed = read.is_ok() && is_trailer(&trailer);
                self.add(path, if is_sealed { Extent::Whole } else { Extent::Growing(u64::MAX) });
            }
        }
        Ok(())
    }
}
