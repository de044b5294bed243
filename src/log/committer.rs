//! The committer: the order of all commits, and how they become durable.
//!
//! A group of [queued](super::queue) requests is committed together: each is [resolved](crate::transaction) at its
//! turn, the records are written with one call and synced with one fdatasync, then the facts become visible.
//!
//! A commit belongs to one key domain, and its facts are that domain's; a group may have commits of several.
//!
//! # Invariants kept here
//! - Facts enter the memory table only after the fdatasync that covers their record has returned. (With
//!   [`Durability::Relaxed`], which the caller chooses, after the write.)
//! - A record is written only when the segment it publishes was synced: the caller did that before it queued.
//! - After a failed sync nothing is written any more ([`Error::Poisoned`]). After a failed write that was not a sync,
//!   nothing more is appended to that file, whose content is unknown from there on: the next group opens a new one.
//! - A log file takes records only after the list on disk names it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};

use crate::clock::{Retention, StoreClock};
use crate::error::{Error, Result};
use crate::facts::Known;
use crate::files::{Files, NewFile, Space};
use crate::id::{DomainId, FileId, Lsn, SessionId};
use crate::log::file::HEADER_LEN;
use crate::log::group::InLog;
use crate::log::queue::{BROKEN, Lead, Queue, Queued, Turn};
use crate::log::{ActiveLog, LogHeader};
use crate::names::Names;
use crate::random::random;
use crate::sync::InTurn;
use crate::tables::{Log, RunList, Tables, Upkeep};
use crate::transaction::{Context, Outcome, Request, rehearse};

/// So many groups one leader commits at most: to wake the next one takes half as long as a sync, but a leader's own
/// caller waits too.
const GROUPS_LED: usize = 4;

/// How small a log file may be on a full disk, in bytes.
const SMALL_LOG: u64 = 64 << 10;

/// When a write returns: of all writes, by [`Options::durability`](crate::Options::durability), or of those through a
/// handle, by [`Store::with_durability`](crate::Store::with_durability).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it is durable: it survives a power cut. Commits that wait at the same time share one fdatasync.
    #[default]
    Synced,
    /// When it is visible: it survives the end of the process, but a power cut takes back the commits after the last
    /// [`Store::sync`](crate::Store::sync), or a suffix of them, each as a whole.
    ///
    /// Only the commits themselves are not synced. Content with a segment of its own (longer than
    /// [`Options::inline_max`](crate::Options::inline_max), or appended to an upload of more than 64 KiB) is synced all
    /// the same before it is committed: such writes are as slow as with `Synced`.
    Relaxed,
}

/// How the log is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogOptions {
    pub(crate) durability: Durability,
    /// The size that log files grow to, in bytes.
    pub(crate) file_size: u64,
    /// The grace period for unreferenced blobs and links.
    pub(crate) retention: Retention,
}

/// The first log file of a session has this part of the size that they grow to, and at least so many bytes.
const FIRST_PART: u64 = 64;
const FIRST_LOG: u64 = 256 << 10;

impl LogOptions {
    /// The size of a log file behind one with so many bytes in it: twice as much. So what is reserved is no more than
    /// what was written, while files, each of which takes a new list, become few.
    fn size_behind(&self, written: u64) -> u64 {
        let first = (self.file_size / FIRST_PART).max(FIRST_LOG).min(self.file_size);
        let doubled = written.saturating_mul(2).checked_next_power_of_two();
        doubled.unwrap_or(self.file_size).clamp(first, self.file_size)
    }

    /// How long a log file with nothing in it can be for one large record, in bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.file_size.max(64 << 20)
    }
}

/// Where the log stands. Only the leader touches it.
#[derive(Debug)]
pub(super) struct Tip {
    /// The file that records go to; none before the first commit of a session, and after a failed write.
    pub(super) active: Option<ActiveLog>,
    /// The last LSN given out to a record that was written.
    pub(super) last: Lsn,
    /// How far the file reaches that the list still has as open although nothing is appended to it any more.
    pub(super) unsealed: Option<(u64, Lsn)>,
}

impl Tip {
    /// How far the file reaches that the list has as open, and its last LSN.
    fn end(&self) -> Option<(u64, Lsn)> {
        self.active.as_ref().map(|log| (log.position, self.last)).or(self.unsealed)
    }
}

/// Brings requests into the order of all commits.
pub(crate) struct Committer {
    pub(super) files: Arc<Files>,
    pub(super) tables: Arc<Tables>,
    pub(super) names: Arc<Names>,
    pub(super) upkeep: Arc<Upkeep>,
    pub(super) clock: StoreClock,
    pub(super) options: LogOptions,
    /// This opening of the store.
    session: SessionId,
    queue: Queue,
    pub(super) tip: InTurn<Tip>,
    /// Whether the log may hold records of a group that failed, since it could not be sealed before them.
    pub(super) unsettled: AtomicBool,
}

crate::sync::print_by_name!(Committer);

impl Committer {
    /// Goes on behind a log whose last commit is `last`; `unsealed` says how far its last file reaches, where the list
    /// has that as open.
    pub(crate) fn new(
        (files, tables, names, upkeep): (Arc<Files>, Arc<Tables>, Arc<Names>, Arc<Upkeep>),
        clock: StoreClock,
        options: LogOptions,
        session: SessionId,
        (last, unsealed): (Lsn, Option<(u64, Lsn)>),
    ) -> Self {
        let tip = InTurn::new(Tip { active: None, last, unsealed });
        let (queue, unsettled) = (Queue::default(), AtomicBool::new(false));
        Self { files, tables, names, upkeep, clock, options, session, queue, tip, unsettled }
    }

    /// When writes return, if their caller does not say.
    pub(crate) fn durability(&self) -> Durability {
        self.options.durability
    }

    /// Brings a request of a domain into the order of all commits, and returns when it is durable. Where it takes space
    /// it waits for maintenance that is behind, and it wakes maintenance that it makes due.
    pub(crate) fn commit(&self, domain: DomainId, request: Request) -> Result<Outcome> {
        self.commit_as(self.options.durability, domain, request)
    }

    /// [`commit`](Self::commit), which returns when the caller says.
    pub(crate) fn commit_as(&self, durability: Durability, domain: DomainId, request: Request) -> Result<Outcome> {
        one(self.commit_all(durability, domain, vec![request])?)
    }

    /// [`commit`](Self::commit) for maintenance itself, which neither waits for maintenance nor causes any. The caller
    /// removes the files that it gives up.
    pub(crate) fn commit_unthrottled(&self, domain: DomainId, request: Request) -> Result<Outcome> {
        one(self.queue_all(self.options.durability, domain, vec![request])?)
    }

    /// [`commit_as`](Self::commit_as) for several requests, of which each is a commit of its own, or fails on its own
    /// account. They are written and synced together, as far as a group takes them in.
    pub(crate) fn commit_all(
        &self,
        durability: Durability,
        domain: DomainId,
        requests: Vec<Request>,
    ) -> Result<Vec<Result<Outcome>>> {
        if requests.iter().any(|request| !request.frees_space()) {
            self.admit()?;
        }
        let outcomes = self.queue_all(durability, domain, requests);
        self.maintain_if_due();
        let outcomes = outcomes?;
        outcomes.iter().flatten().for_each(|outcome| self.remove_dropped(outcome));
        Ok(outcomes)
    }

    fn queue_all(
        &self,
        durability: Durability,
        domain: DomainId,
        requests: Vec<Request>,
    ) -> Result<Vec<Result<Outcome>>> {
        self.files.check_writable()?;
        let queued = requests.into_iter().map(|request| {
            let known = request.reads_much().then(|| self.rehearse(domain, &request));
            Queued { domain, request, durability, known }
        });
        let turns = self.queue.enter_all(queued.collect());
        Ok(turns
            .map(|turn| match turn {
                Turn::Done(result) => result,
                Turn::Lead(lead) => self.lead(lead),
            })
            .collect())
    }

    /// Commits what is queued, until the lead's own request and a few groups are done.
    fn lead(&self, mut lead: Lead<'_>) -> Result<Outcome> {
        // If what follows panics, it is unknown what the log has of it.
        let mut unfinished = StopWrites { files: &self.files, is_finished: false };
        for groups_left in (0..GROUPS_LED).rev() {
            let group = lead.take_group();
            let results = self.commit_group(&group);
            lead.answer(results);
            if !lead.goes_on(groups_left == 0) {
                break;
            }
        }
        unfinished.is_finished = true;
        lead.result()
    }

    /// Reads what a request will read at its turn, while nobody waits for that.
    fn rehearse(&self, domain: DomainId, request: &Request) -> Known {
        // In this order: the snapshot has all commits up to that one.
        let as_of = self.tables.visible();
        let snapshot = self.tables.snapshot_of(domain);
        let placing = InLog::nowhere(as_of.next(), &self.tables);
        let (now, retention) = (self.clock.now(), self.options.retention);
        rehearse(request, as_of, &Context { domain, facts: &snapshot, placing: &placing, now, retention })
    }

    /// Has maintenance done if commits have made it due.
    pub(crate) fn maintain_if_due(&self) {
        self.names.raise_if_due();
        self.upkeep.committed(|| self.tables.is_fold_due());
    }

    /// Removes the files that a commit gave up.
    pub(crate) fn remove_dropped(&self, outcome: &Outcome) {
        // It is durable, and folding that fact removes the file again. What is not durable yet is left to that.
        if outcome.lsn <= self.tables.durable() && !outcome.dropped.is_empty() {
            outcome.dropped.iter().for_each(|file| drop(self.files.remove(*file)));
            let _ = self.files.restore_reserve(); // this may have been what it was used for
        }
    }

    /// What everything that takes space begins with.
    pub(crate) fn admit(&self) -> Result<()> {
        self.files.check_writable()?;
        self.files.restore_reserve()?;
        self.tables.wait_for_room()
    }

    /// A commit names a new file, and is made durable if that was left open.
    pub(crate) fn publish(&self, file: NewFile, commit: Lsn) -> Result<()> {
        if let Err(error) = self.reach(Durability::Synced, commit) {
            file.keep();
            return Err(error);
        }
        file.publish();
        Ok(())
    }

    /// A commit that would have named a new file failed. The file is removed, unless the log may have the record all
    /// the same.
    pub(crate) fn give_up(&self, file: NewFile) {
        if self.files.check_writable().is_err() || self.unsettled.load(Ordering::Acquire) {
            file.keep();
        }
    }

    /// Begins a new log file, which has room for at least `len` bytes of records, and seals the one before. Where that
    /// fails nothing has changed.
    pub(super) fn rotate(&self, tip: &mut Tip, len: u64, space: Space) -> Result<()> {
        self.files.check_writable()?;
        let (file, log) = self.create_log(tip, len, space)?;
        // Where commits do not sync, this is what keeps the unsynced tail within one file.
        self.sync_tip(tip)?;
        let end = tip.end();
        self.list_log(file, &log, end, space)?;
        tip.unsealed = None;
        tip.active = Some(log);
        self.unsettled.store(false, Ordering::Release);
        Ok(())
    }

    /// Makes a log file part of the store, and with that seals the one before, which reaches so far. Where that fails
    /// the new file is gone and nothing has changed.
    pub(super) fn list_log(&self, file: NewFile, log: &ActiveLog, end: Option<(u64, Lsn)>, space: Space) -> Result<()> {
        let (id, first_lsn) = (log.header.file, log.header.first_lsn);
        let mut sealed = None;
        // Where this fails the file goes, except after a failed sync: then the list on disk may name it.
        self.tables.update_list(space, |list| {
            sealed = list.seal_last(end);
            list.begin_log(id, first_lsn);
        })?;
        file.publish();
        self.tables.log_begins(id, first_lsn);
        self.files.insert_active(id, Arc::clone(&log.file), log.header.capacity, &log.header.encode());
        sealed.iter().for_each(|(id, len)| self.files.cut_log(*id, *len));
        Ok(())
    }

    /// Begins a new log file, unless nothing was written to the one that there is.
    pub(crate) fn begin_log(&self) -> Result<()> {
        let mut tip = self.tip.lock();
        let is_used = tip.active.as_ref().is_some_and(|log| log.position > HEADER_LEN);
        if is_used { self.rotate(&mut tip, 0, Space::Reserve) } else { Ok(()) }
    }

    /// Begins a new log file in any case, and returns it, with what `look` sees while nobody commits.
    pub(crate) fn begin_new_log<T>(&self, look: impl FnOnce() -> T) -> Result<(FileId, T)> {
        self.admit()?;
        let mut tip = self.tip.lock();
        self.rotate(&mut tip, 0, Space::Free)?;
        let log = tip.active.as_ref().map(|log| log.header.file).ok_or(BROKEN)?;
        Ok((log, look()))
    }

    /// The list as it would be if the log ended here, all of it durable; the log file that may still be written to; and
    /// what `look` sees while nobody commits.
    pub(crate) fn ended_list<T>(&self, look: impl FnOnce() -> Result<T>) -> Result<(RunList, Option<FileId>, T)> {
        self.files.check_writable()?;
        let tip = self.tip.lock();
        self.sync_tip(&tip)?;
        let mut list = self.tables.list();
        let being_written = list.end(tip.end(), tip.last, self.files.horizon().0);
        Ok((list, being_written, look()?))
    }

    /// Begins a new log file if the one that there is has more records than so many bytes.
    pub(crate) fn end_log_of(&self, bytes: u64) -> Result<()> {
        let mut tip = self.tip.lock();
        let is_long = tip.active.as_ref().is_some_and(|log| log.position > HEADER_LEN + bytes);
        if is_long { self.rotate(&mut tip, 0, Space::Free) } else { Ok(()) }
    }

    /// Does something while nobody commits, and lets the next commit begin a new log file.
    pub(crate) fn between_logs(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.files.check_writable()?;
        let mut tip = self.tip.lock();
        self.sync_tip(&tip)?;
        work()?;
        tip.unsealed = tip.active.take().map(|log| (log.position, tip.last)).or(tip.unsealed);
        Ok(())
    }

    /// Does something while nobody commits.
    pub(crate) fn between_commits<T>(&self, work: impl FnOnce() -> T) -> T {
        let _tip = self.tip.lock();
        work()
    }

    /// Makes sure that what an earlier group left of itself, when writing it failed, can't come back after a restart.
    pub(crate) fn settle_failed(&self) -> Result<()> {
        self.files.check_writable()?;
        if !self.unsettled.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut tip = self.tip.lock();
        if self.unsettled.load(Ordering::Acquire) { self.rotate(&mut tip, 0, Space::Reserve) } else { Ok(()) }
    }

    /// Leaves a seal at a clean close: the list says how far the log reaches, so that from now on whatever is missing
    /// of it is damage.
    pub(crate) fn seal(&self) -> Result<()> {
        let mut tip = self.tip.lock();
        let end = tip.active.take().map(|log| (log.position, tip.last)).or(tip.unsealed.take());
        let (mut sealed, mut folded) = (None, Vec::new());
        self.tables.update_list(Space::Reserve, |list| {
            sealed = list.seal_last(end);
            folded = list.drop_folded_logs(self.tables.history());
        })?;
        sealed.iter().for_each(|(id, len)| self.files.cut_log(*id, *len));
        // What has no frames goes. An empty one that had some is given up by the next opening.
        let snapshot = self.tables.snapshot();
        folded.retain(|id| {
            let is_empty = snapshot.segments(*id).is_ok_and(|segments| segments.is_empty());
            is_empty && self.tables.is_withheld(*id).is_ok_and(|withheld| !withheld)
        });
        self.files.remove_durably(&folded).map_err(|error| self.files.fail_stop(error))
    }

    /// Seals, at opening, the file that the session before was writing, so that it is not taken for one that is still
    /// written: it is cut to what it has, and then read as any sealed file.
    pub(crate) fn seal_last_session(&self) -> Result<()> {
        let mut tip = self.tip.lock();
        let Some(end) = tip.unsealed else { return Ok(()) };
        let mut sealed = None;
        self.tables.update_list(Space::Reserve, |list| sealed = list.seal_last(Some(end)))?;
        tip.unsealed = None;
        sealed.iter().for_each(|(id, len)| self.files.cut_log(*id, *len));
        Ok(())
    }

    /// Creates the next log file, durably, that nothing names yet: twice as long as the one before came to be, up to
    /// the size that the options say, or, on a disk that is too full for that, as small as will do.
    pub(super) fn create_log(&self, tip: &Tip, len: u64, space: Space) -> Result<(NewFile, ActiveLog)> {
        let (first_lsn, needed) = (tip.last.next(), len + HEADER_LEN);
        let written = tip.end().map_or(0, |(position, _)| position);
        let usual = self.options.size_behind(written).max(needed).next_multiple_of(4096);
        let small = needed.max(SMALL_LOG).next_multiple_of(4096).min(usual);
        match self.create_log_of(first_lsn, usual) {
            Err(Error::Full { .. }) => self.files.within(space, || self.create_log_of(first_lsn, small)),
            other => other,
        }
    }

    fn create_log_of(&self, first_lsn: Lsn, capacity: u64) -> Result<(NewFile, ActiveLog)> {
        let new = self.files.begin();
        let (file, store, session, keys) = (new.id(), self.files.store(), self.session, self.files.keys());
        let key = keys.in_use(DomainId::DEFAULT)?;
        let header = LogHeader { file, store, session, first_lsn, capacity, key, salt: random()? };
        let log = self
            .files
            .create_log(file, |path| ActiveLog::create(self.files.vfs(), path.to_path_buf(), header, &keys))?;
        Ok((new, log))
    }

    /// Makes sure that a commit is as durable as a caller wants to rely on it: another caller may have left that open.
    pub(crate) fn reach(&self, durability: Durability, commit: Lsn) -> Result<()> {
        if durability == Durability::Relaxed || commit <= self.tables.durable() { Ok(()) } else { self.sync() }
    }

    /// Makes all commits so far durable: for [`Durability::Relaxed`].
    pub(crate) fn sync(&self) -> Result<()> {
        self.files.check_writable()?;
        self.sync_tip(&self.tip.lock())
    }

    pub(super) fn sync_tip(&self, tip: &Tip) -> Result<()> {
        if let Some(log) = &tip.active
            && self.tables.durable() < tip.last
        {
            log.sync().map_err(|error| self.files.poison(error))?;
            self.tables.set_durable(tip.last);
        }
        Ok(())
    }

    /// Folds all facts into runs, and merges those that are due.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.files.check_writable()?;
        self.tables.freeze(self);
        self.fold()
    }

    /// Folds and merges what is due, and removes log files that are no longer needed.
    pub(crate) fn fold(&self) -> Result<()> {
        self.tables.fold_and_merge(self)?;
        self.drop_dead_logs()
    }

    /// Does what the commits of maintenance itself have made due: no other thread does meanwhile, and some wait for it.
    pub(crate) fn keep_up(&self) -> Result<()> {
        self.names.keep_up();
        if self.tables.is_fold_due() { self.fold() } else { Ok(()) }
    }

    /// Folds what the next opening would spend its time on.
    pub(crate) fn fold_for_close(&self) -> Result<()> {
        self.tables.fold_for_close(self)?;
        self.drop_dead_logs()
    }

    /// Takes from the list the log files that recovery no longer needs and that are not kept for readers of events, up
    /// to so many bytes; and removes those in which nothing lives.
    pub(crate) fn unlist_folded_logs(&self, history: u64, space: Space) -> Result<()> {
        self.tables.unlist_folded_logs(history, space)?;
        self.drop_dead_logs()
    }

    /// Removes log files that recovery no longer needs and in which no frame lives. What fails is tried again next
    /// time; a file of which can't be read what lives in it is left alone until the next opening. What is withheld for
    /// a locked domain is looked at when that is unlocked.
    pub(crate) fn drop_dead_logs(&self) -> Result<()> {
        let logs = self.tables.not_withheld(self.tables.dead_logs())?;
        if logs.is_empty() {
            return Ok(());
        }
        // A group that is under way may still take these to be needed, and leave one that it empties to be dropped
        // here.
        drop(self.tip.lock());
        let (mut removed, mut settled) = (Vec::new(), Vec::new());
        for id in &logs {
            let Some(segments) = self.tables.snapshot().segments_if_readable(*id)? else { continue };
            if segments.is_empty() {
                removed.push(*id);
            }
            // Also where another domain has live frames in it: the file is removed with the last domain's fact.
            for (domain, _) in segments.iter().filter(|(_, segment)| segment.live_frames == 0) {
                removed.extend(self.commit_unthrottled(*domain, Request::DropFile(*id))?.dropped);
            }
            settled.push(*id);
        }
        self.sync()?; // a run may have the facts that gave these up
        self.files.remove_durably(&removed).map_err(|error| self.files.fail_stop(error))?;
        settled.iter().for_each(|id| self.files.settled(*id));
        self.tables.forget_dead_logs(&logs);
        Ok(())
    }

    /// The file that records go to now.
    #[cfg(test)]
    #[cfg(feature = "encryption")]
    pub(crate) fn active_log(&self) -> Option<FileId> {
        self.tip.lock().active.as_ref().map(|log| log.header.file)
    }

    #[cfg(test)]
    #[cfg(feature = "encryption")]
    pub(crate) fn rotate_now(&self) {
        self.rotate(&mut self.tip.lock(), 0, Space::Free).unwrap();
    }
}

impl Log for Committer {
    fn between_groups(&self, work: &mut dyn FnMut()) {
        let _tip: MutexGuard<'_, Tip> = self.tip.lock();
        work();
    }

    fn settle(&self, until: Lsn) -> Result<()> {
        self.sync()?;
        self.names.reach_soon(until);
        Ok(())
    }

    fn wait_for_views(&self, until: Lsn) {
        self.names.reach(until);
    }
}

/// What became of a request that was alone.
fn one(mut outcomes: Vec<Result<Outcome>>) -> Result<Outcome> {
    outcomes.pop().unwrap_or(Err(BROKEN))
}

/// Stops all writes if a leader panics.
struct StopWrites<'a> {
    files: &'a Files,
    is_finished: bool,
}

impl Drop for StopWrites<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.files.poison(BROKEN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_files_grow_with_what_is_written_up_to_the_size_of_the_options() {
        let sizes = |file_size, written: [u64; 4]| {
            let options = LogOptions { durability: Durability::Synced, file_size, retention: Retention(0) };
            written.map(|written| options.size_behind(written))
        };
        assert_eq!(sizes(64 << 20, [0, 1 << 20, 40 << 20, 1 << 40]), [1 << 20, 2 << 20, 64 << 20, 64 << 20]);
        assert_eq!(sizes(64 << 20, [600 << 10, 3 << 20, 5 << 20, u64::MAX]), [2 << 20, 8 << 20, 16 << 20, 64 << 20]);
        assert_eq!(
            sizes(1000 << 10, [0, 9 << 10, 200 << 10, 400 << 10]),
            [256 << 10, 256 << 10, 512 << 10, 1000 << 10]
        );
        assert_eq!(sizes(16 << 10, [0, 4 << 10, 16 << 10, 1 << 20]), [16 << 10; 4]);
    }
}
