//! Tables: facts in memory, facts in runs, and the list of the files that make up the store.
//!
//! ```text
//!   commits ─► memtable ─(frozen)─► waiting to be folded ─► runs ─► merged runs
//!              └───────────────────── view ─────────────────────┘
//!                                     └─ at an LSN: snapshot
//! ```
//!
//! Commits [insert](Tables::insert) their facts into the memory table, and a [`Snapshot`] reads all of it as of one
//! moment. A full table is frozen and [folded](fold): it becomes runs, one for each domain, in one file.
//! Files are [merged](merging) as [they become many](tiers). Each step ends with a new [list](RunList), which replaces
//! the old one atomically; a crash before that leaves files that the next opening removes.
//!
//! # Invariants kept here
//! - A table takes in a group of commits before the group's LSN becomes the visible one, and is frozen between groups:
//!   the caller of [`freeze`](Tables::freeze) keeps commits out. So a view together with an LSN that was read after it
//!   shows whole commits only.
//! - The view's runs are those of the list, each domain's in its order, but for those of [locked] domains: both change
//!   in [`Tables::publish_runs`] and in [`Tables::retain_domains`], and nothing can fail between.
//! - The list on disk is the same as the list in memory, or, after a sync of it failed, nothing is written any more.
//!
//! # Locks
//! `folding` (one step of maintenance at a time), then `list` (across replacing the file), then `view`. Readers take
//! `view` and a shard of a memory table for moments only.

mod fold;
mod follow;
mod list;
mod locked;
pub(crate) mod memtable;
mod merging;
mod queries;
mod runs;
mod tiers;
mod upkeep;
pub(crate) mod view;
mod watch;

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};

pub(crate) use fold::Log;
pub(crate) use follow::News;
pub(crate) use list::{LogEntry, MAX_SEARCHED, RunId, RunList, RunMeta, Unread};
#[cfg(feature = "fuzzing")]
pub(crate) use runs::Footer;
pub(crate) use runs::{Expected, Lead, Merge, MergeJob, PageCache, Probe, Run, RunFile, RunWriter, Source, open_file};
pub(crate) use upkeep::{Signal, Upkeep};
pub(crate) use view::{Snapshot, View};
use watch::Watch;
pub(crate) use watch::Watching;

use crate::clock::StoreClock;
use crate::envelope::Keyring;
use crate::error::{Error, Result};
use crate::facts::{Fact, Family};
use crate::files::{Files, Space, limits};
use crate::id::{DomainId, FileId, Lsn, SessionId};
use crate::names::Names;
use crate::sealed::{MappingBudget, ReadMode};
use crate::sync::{OftenRead, lock, read, write};
use locked::Locked;
use memtable::Memtable;

/// More tables than this wait to become runs: commits wait for them.
const MAX_FROZEN: usize = 3;

/// More log files than this hold facts that no run has: time to fold, or opening would have to read them all.
const MAX_UNFOLDED_LOGS: u64 = 8;

/// At closing, more bytes of facts than this are folded: a table of 1 MiB takes the next opening a millisecond or two
/// to read back, and a run of it costs as many syncs.
const FOLD_AT_CLOSE: usize = 1 << 20;

/// How facts are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableOptions {
    /// How many bytes of facts a memory table holds.
    pub(crate) memtable_size: usize,
    /// How many bytes of log files are kept for readers of events.
    pub(crate) history: u64,
    /// How many bytes of decrypted pages of runs are kept in memory.
    pub(crate) page_cache: usize,
    pub(crate) read_mode: ReadMode,
}

/// The log files that are needed also where nothing lives in them that can be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NeededLogs {
    /// Those from this one on are listed.
    oldest: FileId,
    /// Those below this one may have something of a locked domain in them.
    withheld: FileId,
}

impl NeededLogs {
    pub(crate) fn has(self, log: FileId) -> bool {
        log >= self.oldest || log < self.withheld
    }
}

/// All facts.
pub(crate) struct Tables {
    files: Arc<Files>,
    upkeep: Arc<Upkeep>,
    clock: StoreClock,
    options: TableOptions,
    /// This opening of the store.
    session: SessionId,
    view: OftenRead<Arc<View>>,
    /// What `runs/LIST` says. Held while the file is replaced.
    list: Mutex<RunList>,
    /// The log files that it names, for readers and commits: they do not wait for the file.
    logs: RwLock<Arc<[LogEntry]>>,
    /// The last LSN that readers see.
    visible: AtomicU64,
    /// The last LSN that is durable.
    durable: AtomicU64,
    /// Who waits for the next commit.
    watch: Watch,
    /// How many of the log files that the list names have facts that no run has.
    unfolded_logs: AtomicU64,
    /// Held while facts are folded or merged.
    folding: Mutex<()>,
    /// Log files that no list names any more, to be removed where nothing lives in them.
    dead_logs: Mutex<Vec<FileId>>,
    /// Runs that a merge has found damaged: it is not tried again.
    damaged_runs: Mutex<HashSet<RunId>>,
    /// Decrypted pages of runs.
    pages: Arc<PageCache>,
    /// Files of runs are few, and all of them are needed all the time: their budget is their own.
    mappings: Arc<MappingBudget>,
    /// Where another process writes the store: reads on where that is by now.
    catching_up: OnceLock<CatchUp>,
}

/// What moves tables forward that another process writes; whether they have moved.
type CatchUp = Box<dyn Fn() -> Result<bool> + Send + Sync>;

crate::sync::print_by_name!(Tables);

impl Tables {
    /// The tables of a store whose list says this, with the facts that its log has and no run, up to an LSN. Its runs
    /// are [opened](Self::open_runs) later.
    pub(crate) fn new(
        (files, names, upkeep): (Arc<Files>, Arc<Names>, Arc<Upkeep>),
        clock: StoreClock,
        options: TableOptions,
        session: SessionId,
        list: RunList,
        (table, durable): (Memtable, Lsn),
    ) -> Self {
        let domains = files.keys().active().collect();
        Self {
            view: OftenRead::new(Arc::new(View {
                active: Arc::new(table),
                frozen: Vec::new(),
                runs: Arc::default(),
                fresh: (FileId(FileId::MAX), Lsn::ZERO), // until a log file begins nothing is written
                folded: list.folded,
                domains,
                locked: Arc::default(),
                names,
            })),
            logs: RwLock::new(list.logs.as_slice().into()),
            visible: AtomicU64::new(durable.0),
            durable: AtomicU64::new(durable.0),
            watch: Watch::default(),
            unfolded_logs: AtomicU64::new(list.unfolded_logs()),
            list: Mutex::new(list),
            folding: Mutex::default(),
            dead_logs: Mutex::default(),
            damaged_runs: Mutex::default(),
            pages: PageCache::new(options.page_cache),
            mappings: limits::run_mappings(options.read_mode),
            catching_up: OnceLock::new(),
            files,
            upkeep,
            clock,
            options,
            session,
        }
    }

    /// The facts as of now, as the default domain sees them.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot_of(DomainId::DEFAULT)
    }

    /// The facts as of now, as a domain sees them.
    pub(crate) fn snapshot_of(&self, domain: DomainId) -> Snapshot {
        let view = self.view();
        Snapshot { view, lsn: self.visible(), domain, is_kept: false }
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// All domains that are not locked, in order: the default one first.
    pub(crate) fn domains(&self) -> Arc<[DomainId]> {
        Arc::clone(&self.view.read().domains)
    }

    /// The last LSN that readers see.
    pub(crate) fn visible(&self) -> Lsn {
        Lsn(self.visible.load(Ordering::Acquire))
    }

    /// The last LSN that is durable.
    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Everything up to an LSN is durable.
    pub(crate) fn set_durable(&self, lsn: Lsn) {
        self.durable.store(lsn.0, Ordering::Release);
        self.watch.wake();
    }

    /// Wakes those who wait for a commit: none will come.
    pub(crate) fn end_waiting(&self) {
        self.watch.wake();
    }

    /// Takes in the facts of commits. Readers see them when they are [made visible](Self::set_visible).
    pub(crate) fn insert(&self, facts: impl IntoIterator<Item = (Lsn, Fact)>) {
        let view = self.view();
        facts.into_iter().for_each(|(lsn, fact)| view.active.insert(lsn, fact));
    }

    /// The runs of the view, and their domains.
    #[cfg(test)]
    #[cfg(feature = "encryption")]
    pub(crate) fn open_run_domains(&self) -> Vec<(RunId, DomainId)> {
        self.view().runs.all().map(|run| (run.id(), run.domain())).collect()
    }

    /// The facts of a family that no run has, in the order of their keys.
    pub(crate) fn unfolded(&self, family: Family) -> Vec<Fact> {
        self.view().active.of_family(family, self.visible())
    }

    /// About how many facts no run has, and how many bytes of memory they take.
    pub(crate) fn unfolded_len(&self) -> (u64, u64) {
        let view = self.view();
        let tables = || view.frozen.iter().chain([&view.active]);
        (tables().map(|table| table.len() as u64).sum(), tables().map(|table| table.bytes() as u64).sum())
    }

    /// A log file begins, with this LSN.
    pub(crate) fn log_begins(&self, file: FileId, first_lsn: Lsn) {
        let mut view = self.view.write();
        *view = Arc::new(View { fresh: (file, first_lsn), ..View::clone(&view) });
    }

    /// From now on readers see all commits up to an LSN.
    pub(crate) fn set_visible(&self, lsn: Lsn) {
        self.visible.store(lsn.0, Ordering::Release);
        self.watch.wake();
    }

    /// How many bytes the files of all runs have.
    pub(crate) fn run_bytes(&self) -> u64 {
        self.view().runs.files().values().map(|file| file.len()).sum()
    }

    /// What the list says.
    pub(crate) fn list(&self) -> RunList {
        lock(&self.list).clone()
    }

    /// The log files that the list names, oldest first.
    pub(crate) fn logs(&self) -> Arc<[LogEntry]> {
        Arc::clone(&read(&self.logs))
    }

    /// The oldest log file that recovery needs, where `active` is the one being written.
    pub(crate) fn oldest_log(&self, active: FileId) -> FileId {
        read(&self.logs).first().map_or(active, |log| log.id.min(active))
    }

    /// The log files that are needed whatever lives in them, where `active` is the one being written.
    pub(crate) fn needed_logs(&self, active: FileId) -> NeededLogs {
        NeededLogs { oldest: self.oldest_log(active), withheld: self.withheld() }
    }

    /// How many bytes of log files are kept for readers of events: none where space has to be given back.
    pub(crate) fn history(&self) -> u64 {
        if self.files.lacks_space() { 0 } else { self.options.history }
    }

    /// Replaces `runs/LIST` by what `change` makes of it.
    ///
    /// # Errors
    /// After [`Error::Poisoned`] the one or the other list may count; after any other error it is the old one.
    pub(crate) fn update_list(&self, space: Space, mut change: impl FnMut(&mut RunList)) -> Result<()> {
        self.files.within(space, || self.replace_list(&mut change))
    }

    fn replace_list(&self, change: &mut dyn FnMut(&mut RunList)) -> Result<()> {
        self.files.check_writable()?;
        let mut list = lock(&self.list);
        let mut new = list.clone();
        (new.next_file, new.orphan_floor) = self.files.horizon();
        new.durable = self.durable().max(new.durable);
        new.session = self.session;
        new.open_time_ms = self.clock.open_time();
        new.generation = new.generation.saturating_add(1);
        change(&mut new);
        let (vfs, runs) = (self.files.vfs(), self.files.layout().runs());
        let dir = crate::files::open_dir(vfs, &runs)?;
        let file = new.write(vfs, &runs, &self.files.keys())?;
        file.sync().map_err(Error::io("sync", &runs)).map_err(|error| self.files.poison(error))?;
        RunList::replace(vfs, &runs, &*dir).map_err(|error| self.files.fail_stop(error))?;
        self.unfolded_logs.store(new.unfolded_logs(), Ordering::Relaxed);
        if new.logs != list.logs {
            *write(&self.logs) = new.logs.as_slice().into();
        }
        *list = new;
        Ok(())
    }

    /// Keeps others from replacing the list, and runs from coming and going.
    pub(crate) fn hold_list(&self) -> MutexGuard<'_, RunList> {
        lock(&self.list)
    }

    /// Keeps others from folding and merging.
    pub(crate) fn pause_folding(&self) -> MutexGuard<'_, ()> {
        lock(&self.folding)
    }

    /// From now on there are the domains that the keys are of, and no facts of others in sight. The caller keeps
    /// commits out, and [holds the list](Self::hold_list).
    pub(crate) fn retain_domains(&self, keys: &Keyring, list: &RunList) {
        let domains: Arc<[DomainId]> = keys.active().collect();
        let mut view = self.view.write();
        let runs = view.runs.all().filter(|run| domains.contains(&run.domain())).cloned().collect();
        for table in view.frozen.iter().chain([&view.active]) {
            table.retain(|key| domains.contains(&key.domain));
        }
        let locked = Locked::new(keys, list);
        *view = Arc::new(View { domains, runs: Arc::new(runs), locked, ..View::clone(&view) });
    }

    /// Takes the runs of a domain out of the list, with what is unread of it, and removes them.
    pub(crate) fn drop_runs(&self, domain: DomainId) -> Result<()> {
        let before = self.list().runs;
        self.update_list(Space::Reserve, |list| {
            list.runs.retain(|run| run.domain != domain);
            list.unread.retain(|unread| unread.domain != domain);
        })?;
        self.discard_unlisted(&before);
        Ok(())
    }

    /// Removes the files of runs that the list named before and does not any more.
    fn discard_unlisted(&self, before: &[RunMeta]) {
        let files = |runs: &[RunMeta]| runs.iter().map(|run| run.id.file).collect::<BTreeSet<_>>();
        files(before).difference(&files(&self.list().runs)).for_each(|file| self.files.discard(*file));
    }

    /// Forgets decrypted pages.
    pub(crate) fn forget_pages(&self) {
        self.pages.clear();
    }

    /// Fails where commits should wait: while too many facts wait to become runs.
    pub(crate) fn wait_for_room(&self) -> Result<()> {
        let has_room = || {
            let view = self.view();
            view.frozen.len() <= MAX_FROZEN && view.active.bytes() <= self.options.memtable_size.saturating_mul(2)
        };
        self.upkeep.wait_until(has_room, || self.files.check_writable())
    }

    /// Log files that no list names any more, and in which nothing may live.
    pub(crate) fn dead_logs(&self) -> Vec<FileId> {
        lock(&self.dead_logs).clone()
    }

    /// More of them.
    pub(crate) fn add_dead_logs(&self, logs: &mut Vec<FileId>) {
        lock(&self.dead_logs).append(logs);
    }

    /// They are gone, or have to stay.
    pub(crate) fn forget_dead_logs(&self, logs: &[FileId]) {
        lock(&self.dead_logs).retain(|id| !logs.contains(id));
    }

    /// Takes from the list the log files that recovery no longer needs and that are not kept for readers of events, up
    /// to so many bytes.
    pub(crate) fn unlist_folded_logs(&self, history: u64, space: Space) -> Result<()> {
        let mut dropped = Vec::new();
        self.update_list(space, |list| dropped = self.unlist(list, history))?;
        self.add_dead_logs(&mut dropped);
        Ok(())
    }

    /// Takes such log files out of a list that is about to replace the one on disk.
    fn unlist(&self, list: &mut RunList, history: u64) -> Vec<FileId> {
        let dropped = list.drop_folded_logs(history);
        dropped.iter().for_each(|id| self.files.unlisted(*id));
        dropped
    }
}
