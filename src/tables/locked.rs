//! Locked key domains: what is kept for them, and how it becomes visible again.
//!
//! Neither the runs of a locked domain nor its records in the log can be read. A domain is locked at opening only, so
//! nothing of it is written after that: all of it is in files that existed at that moment.
//!
//! # What must not be lost
//! - **Records.** The list notes up to which LSN the domain's runs have its facts, and which log files existed
//!   ([`Unread`]). Folding continues for other domains; those log files stay until the domain is unlocked. Then its
//!   records in them become a run ([`Tables::take_in`]): the list that names the run no longer has the note, so
//!   unlocking happens as a whole or not at all. The run is the domain's newest, since nobody has changed its facts
//!   meanwhile.
//! - **Files.** No file with an id below the one in the note is removed if it may have something of the domain: a
//!   segment whose header names the domain or can't be read, and every log file ([`Tables::is_withheld`]). Instead it
//!   is put among the dead log files, its id unsettled, so that it is looked at again after unlocking, also by a later
//!   opening. A log file without live frames that can be read keeps its facts until then: commits can't look into
//!   files.
//! - **Ids.** Files that its records give up are removed only below that id: higher ids may have been used twice.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::envelope::Keyring;
use crate::error::{Error, Result};
use crate::facts::{Fact, SegmentKind};
use crate::files::Space;
use crate::id::{DomainId, FileId, Lsn};
use crate::segment::parse_header;
use crate::sync::lock;
use crate::tables::fold::given_up;
use crate::tables::memtable::Memtable;
use crate::tables::{LogEntry, Run, RunList, Snapshot, Tables, Unread, View};
use crate::vfs::OpenMode;

/// What readers and commits know of locked domains.
#[derive(Debug, Default)]
pub(crate) struct Locked {
    /// Log files below this one may have something of a locked domain in them.
    pub(crate) withheld: FileId,
    why: Vec<(DomainId, Error)>,
}

impl Locked {
    pub(super) fn new(keys: &Keyring, list: &RunList) -> Arc<Self> {
        let why = keys.locked().map(|(id, why)| (id, why.clone())).collect();
        Arc::new(Self { withheld: list.withheld(), why })
    }

    /// Why a domain is locked, if it is.
    pub(super) fn why(&self, domain: DomainId) -> Option<&Error> {
        self.why.iter().find(|(id, _)| *id == domain).map(|(_, why)| why)
    }
}

impl Tables {
    /// Log files below this one may have something of a locked domain in them.
    pub(crate) fn withheld(&self) -> FileId {
        self.view().locked.withheld
    }

    /// Whether a file may have something of a locked domain in it.
    pub(crate) fn is_withheld(&self, id: FileId) -> Result<bool> {
        if id >= lock(&self.list).withheld() {
            return Ok(false);
        }
        let (vfs, layout) = (self.files.vfs(), self.files.layout());
        for (path, is_log) in [(layout.log(id), true), (layout.segment(id), false)] {
            let file = match vfs.open(&path, OpenMode::Read) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(Error::io("open", &path))?,
            };
            if is_log {
                return Ok(true);
            }
            let mut header = [0; 512];
            let header = file.read_exact_at(&mut header, 0).ok().and_then(|()| parse_header(&header));
            return Ok(header.is_none_or(|header| self.files.keys().lock_of(header.domain).is_some()));
        }
        Ok(false)
    }

    /// Of files that are about to be removed those that may be: the others are looked at again after unlocking.
    pub(crate) fn not_withheld(&self, mut files: Vec<FileId>) -> Result<Vec<FileId>> {
        let mut withheld = Vec::new();
        for id in &files {
            if self.is_withheld(*id)? {
                withheld.push(*id);
            }
        }
        self.leave_dead(&withheld);
        files.retain(|id| !withheld.contains(id));
        Ok(files)
    }

    /// Leaves files that may be of no use to be looked at later, also by the next opening.
    fn leave_dead(&self, files: &[FileId]) {
        files.iter().for_each(|id| self.files.unlisted(*id));
        let mut dead = lock(&self.dead_logs);
        dead.extend(files);
        dead.sort_unstable();
        dead.dedup();
    }

    /// Leaves log files to be looked at that recovery does not need, and in which nothing lives that can be read. Those
    /// that damaged facts would name cost their space.
    pub(crate) fn leave_empty_logs(&self) -> Result<()> {
        let oldest_log = self.oldest_log(FileId(FileId::MAX));
        let mut empty = Vec::new();
        for snapshot in self.snapshot().each_domain() {
            for fact in snapshot.segment_facts()? {
                let (id, segment) = match fact {
                    Err(Error::Corrupt { .. }) => break,
                    other => other?,
                };
                if segment.kind == SegmentKind::Log && segment.live_frames == 0 && id < oldest_log {
                    empty.push(id);
                }
            }
        }
        self.leave_dead(&empty);
        Ok(())
    }

    /// Notes what of locked domains is unread, where the list does not say so yet: every list that is written from now
    /// on has it. `found` is the list as it was when the store was opened; its log files are sealed by now.
    pub(crate) fn note_unread(&self, found: &RunList) {
        let (keys, files) = (self.files.keys(), self.files.horizon().0);
        let mut list = lock(&self.list);
        let was_there = |log: &&LogEntry| found.logs.iter().any(|found| found.id == log.id);
        let logs: Vec<LogEntry> = list.logs.iter().filter(was_there).copied().collect();
        debug_assert!(logs.iter().all(|log| log.sealed.is_some()), "recovery has found how far the last one reaches");
        for (domain, _) in keys.locked() {
            if !list.unread.iter().any(|unread| unread.domain == domain) {
                list.unread.push(Unread { domain, from: found.folded, files, logs: logs.clone() });
            }
        }
        self.see_locked(&keys, &list);
    }

    /// Lets everybody see which domains are locked. The caller holds the list.
    pub(crate) fn see_locked(&self, keys: &Keyring, list: &RunList) {
        let mut view = self.view.write();
        *view = Arc::new(View { locked: Locked::new(keys, list), ..View::clone(&view) });
    }

    /// What of a locked domain is unread.
    pub(crate) fn unread_of(&self, domain: DomainId) -> Vec<Unread> {
        lock(&self.list).unread.iter().filter(|unread| unread.domain == domain).cloned().collect()
    }

    /// Makes a run of what was unread of a locked domain, whose keys are there, and notes it no more. Returns the
    /// domain's runs. The caller keeps others from folding, and keys from being changed.
    pub(crate) fn take_in(
        &self,
        id: DomainId,
        keys: &Keyring,
        unread: &[Unread],
        table: &Memtable,
    ) -> Result<Vec<Arc<Run>>> {
        let facts = table.sorted(Lsn(u64::MAX));
        self.files.skip_named(&facts); // as in recovery
        let metas = self.list().runs;
        let new = self.files.within(Space::Reserve, || self.write_runs(table, &facts, keys, |_| true))?;
        let of_new = new.iter().flat_map(|(_, metas)| metas);
        let own = of_new.chain(metas.iter().filter(|meta| meta.domain == id));
        let runs = self.open_all(own, keys, &self.view().runs)?;
        self.leave_dead(&self.given_up_by(id, unread, &facts, &runs)?);
        self.leave_empty_logs()?;
        // Where this fails the run goes, except after a failed sync: then the list on disk may name it.
        self.update_list(Space::Reserve, |list| {
            list.unread.retain(|unread| unread.domain != id);
            list.runs.splice(0..0, new.iter().flat_map(|(_, metas)| metas.iter().cloned()));
        })?;
        new.into_iter().for_each(|(file, _)| file.publish());
        Ok(runs)
    }

    /// The files that facts of a domain give up which were unread, and the log files that were kept for those.
    fn given_up_by(&self, id: DomainId, unread: &[Unread], facts: &[Fact], runs: &[Arc<Run>]) -> Result<Vec<FileId>> {
        let view = self.view();
        let domains = view.domains.iter().copied().chain([id]).collect();
        let runs = Arc::new(view.runs.all().chain(runs).cloned().collect());
        let known = Arc::new(View { runs, domains, ..View::clone(&view) });
        let mut gone = given_up(facts, &Snapshot { view: known, lsn: self.visible(), domain: id, is_kept: false })?;
        let files = unread.iter().map(|unread| unread.files).max().unwrap_or_default();
        gone.retain(|file| *file < files);
        let listed = self.logs();
        let logs = unread.iter().flat_map(|unread| &unread.logs).map(|log| log.id);
        gone.extend(logs.filter(|id| !listed.iter().any(|log| log.id == *id)));
        Ok(gone)
    }

    /// Lets everybody see a domain that was locked, with its runs. The caller keeps commits out, and others from
    /// folding.
    pub(crate) fn open_domain(&self, keys: Keyring, opened: &[Arc<Run>]) {
        let list = lock(&self.list);
        let mut view = self.view.write();
        let runs = Arc::new(view.runs.listed(&list, opened));
        let (domains, locked) = (keys.active().collect(), Locked::new(&keys, &list));
        self.files.set_keys(keys);
        *view = Arc::new(View { runs, domains, locked, ..View::clone(&view) });
    }
}
