//! Group commit: the order of all commits, and how they become durable.
//!
//! Callers queue their requests. Whoever finds no leader becomes one, and takes what is queued as a group: each request
//! is [resolved](crate::transaction) at its turn, the records are written with one call and synced with one fdatasync, then
//! the facts become visible and the others are told. Who is alone leads himself and is handed to no other thread.
//!
//! A commit belongs to one key domain, and its facts are that domain's; a group may have commits of several.
//!
//! # Invariants kept here
//! - Facts enter the memtable only after the fdatasync that covers their record has returned. (With
//!   [`Durability::Relaxed`], which the caller chooses, after the write.)
//! - A record is written only when the segment it publishes was synced: the caller did that before it queued.
//! - After a failed sync nothing is written any more ([`Error::Poisoned`]). After a failed write that was not a sync,
//!   nothing more is appended to that file, whose content is unknown from there on: the next group opens a new one.
//! - A log file takes records only after the list on disk names it.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::facts::{Fact, Key, Value};
use crate::files::Space;
use crate::id::{DomainId, Lsn};
use crate::keys::KeyError;
use crate::log::record::{record_len, tag_len};
use crate::log::{ActiveLog, Body, Encoded, LogHeader, Op, Position, Times};
use crate::names::{Change, NameChange, NameKind, tag_name};
use crate::random::random;
use crate::segment::DESCRIPTOR_LEN;
use crate::store::Inner;
use crate::store::options::Durability;
use crate::sync::{lock, write};
use crate::tables::LogEntry;
use crate::tables::memtable::Memtable;
use crate::tables::view::{Snapshot, View};
use crate::transaction::{Context, Outcome, Request, resolve};

/// The most content that one group takes in, in bytes: bounds the time that those in it wait for each other.
const GROUP_BYTES: u64 = 8 << 20;

/// So many groups one leader commits at most: to wake the next one takes half as long as a sync, but a leader's own
/// caller waits too.
const GROUPS_LED: usize = 4;

/// A request that waits for its turn, and then its result.
#[derive(Debug)]
struct Waiter {
    /// What it is, and the domain that it belongs to.
    request: Mutex<Option<(DomainId, Request)>>,
    state: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug)]
enum Progress {
    Queued,
    /// The former leader has left the lead to this one.
    Lead,
    Done(Result<Outcome>),
}

impl Waiter {
    fn set(&self, progress: Progress) {
        *lock(&self.state) = progress;
        self.changed.notify_one();
    }
}

/// How small a log file may be on a full disk, in bytes.
const SMALL_LOG: u64 = 64 << 10;

/// Requests that wait, and whether somebody leads.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Arc<Waiter>>,
    led: bool,
}

/// Where the log stands. Only the leader touches it.
#[derive(Debug)]
pub(crate) struct Tip {
    /// The file that records go to; none before the first commit of a session, and after a failed write.
    pub(crate) active: Option<ActiveLog>,
    /// The last LSN given out to a record that was written.
    pub(crate) last: Lsn,
    /// How far the file reaches that the list still has as open although nothing is appended to it any more.
    pub(crate) unsealed: Option<(u64, Lsn)>,
}

impl Inner {
    /// Brings a request of a domain into the order of all commits, and returns when it is durable.
    pub(crate) fn commit(&self, domain: DomainId, request: Request) -> Result<Outcome> {
        if request.space() == Space::Free {
            self.admit()?;
        }
        let outcome = self.commit_now(domain, request);
        self.maintain_if_due();
        let outcome = outcome?;
        self.remove_dropped(&outcome);
        Ok(outcome)
    }

    /// Removes the files that a commit gave up.
    pub(crate) fn remove_dropped(&self, outcome: &Outcome) {
        // It is durable, and folding that fact removes the file again. What is not durable yet is left to that.
        if self.options.durability == Durability::Synced && !outcome.dropped.is_empty() {
            outcome.dropped.iter().for_each(|file| drop(self.files.remove(*file)));
            let _ = self.files.restore_reserve(); // this may have been what it was used for
        }
    }

    /// What everything that takes space begins with.
    pub(crate) fn admit(&self) -> Result<()> {
        self.check_writable()?;
        self.files.restore_reserve()?;
        self.wait_for_room()
    }

    /// [`commit`](Self::commit) for maintenance itself, which neither waits for maintenance nor causes any.
    pub(crate) fn commit_now(&self, domain: DomainId, request: Request) -> Result<Outcome> {
        self.check_writable()?;
        let waiter = Arc::new(Waiter {
            request: Mutex::new(Some((domain, request))),
            state: Mutex::new(Progress::Queued),
            changed: Condvar::new(),
        });
        let must_wait = {
            let mut queue = lock(&self.queue);
            queue.waiting.push_back(Arc::clone(&waiter));
            std::mem::replace(&mut queue.led, true)
        };
        if must_wait {
            let mut state = lock(&waiter.state);
            while matches!(*state, Progress::Queued) {
                state = waiter.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            if let Progress::Done(result) = &*state {
                return result.clone();
            }
        }
        self.lead(&waiter)
    }

    /// Commits a group, the leader's own request in it, and then those that came meanwhile, and passes the lead on.
    fn lead(&self, own: &Arc<Waiter>) -> Result<Outcome> {
        let mut own_result = None;
        for groups_left in (0..GROUPS_LED).rev() {
            let group = self.take_group();
            let mut results = {
                let requests: Vec<_> = group.iter().filter_map(|waiter| lock(&waiter.request).take()).collect();
                self.commit_group(&requests).into_iter()
            };
            for waiter in &group {
                let result = results.next().unwrap_or_else(|| Ok(Outcome::default()));
                if Arc::ptr_eq(waiter, own) {
                    own_result = Some(result);
                } else {
                    waiter.set(Progress::Done(result));
                }
            }
            let mut queue = lock(&self.queue);
            match queue.waiting.front() {
                Some(_) if groups_left > 0 => {}
                Some(next) => next.set(Progress::Lead),
                None => {
                    queue.led = false;
                    break;
                }
            }
        }
        own_result.unwrap_or_else(|| Ok(Outcome::default()))
    }

    /// Takes what is queued, from the front, up to the most that a group holds.
    fn take_group(&self) -> Vec<Arc<Waiter>> {
        let mut queue = lock(&self.queue);
        let mut bytes = 0;
        let mut count = 0;
        for waiter in &queue.waiting {
            let request = lock(&waiter.request);
            let frame = request.as_ref().and_then(|(_, request)| request.frame());
            let frame = frame.map_or(0, |frame| frame.bytes.len() as u64);
            if count > 0 && bytes + frame > GROUP_BYTES {
                break;
            }
            bytes += frame;
            count += 1;
        }
        queue.waiting.drain(..count).collect()
    }

    /// Commits requests in order, as one group or, where a log file ends between them, as several.
    fn commit_group(&self, requests: &[(DomainId, Request)]) -> Vec<Result<Outcome>> {
        let mut tip = lock(&self.tip);
        let mut results: Vec<Result<Outcome>> = Vec::with_capacity(requests.len());
        while let Some(rest) = requests.get(results.len()..)
            && !rest.is_empty()
        {
            let mut group = Group::new(self.snapshot(), self.now());
            let done = match self.fill(&mut tip, &mut group, rest) {
                Ok(()) => self.write(&mut tip, &group),
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => results.append(&mut group.results),
                // Every request of the group fails with what failed the group, except those refused on their own
                // account.
                Err(error) => {
                    let taken = group.results.len().max(1);
                    let mut refused = group.results.into_iter();
                    results.extend((0..taken).map(|_| match refused.next() {
                        Some(Err(own)) => Err(own),
                        _ => Err(error.clone()),
                    }));
                }
            }
        }
        results
    }

    /// Resolves requests into records until the log file or the requests end.
    fn fill<'r>(
        &self,
        tip: &mut MutexGuard<'_, Tip>,
        group: &mut Group<'r>,
        requests: &'r [(DomainId, Request)],
    ) -> Result<()> {
        let keys = self.files.keys.get();
        for (domain, request) in requests {
            let key = match keys.in_use(*domain) {
                Ok(key) if request.segment_key().is_none_or(|key| keys.has(*domain, key)) => key,
                Ok(_) => {
                    group.results.push(Err(retired(*domain)));
                    continue;
                }
                Err(error) => {
                    group.results.push(Err(error));
                    continue;
                }
            };
            let frame_len = request.frame().map_or(0, |frame| frame.len(key));
            if tip.active.as_ref().is_none_or(|log| log.room() < group.len + record_len(frame_len, 0)) {
                if !group.results.is_empty() {
                    return Ok(());
                }
                self.rotate(tip, record_len(frame_len, 0), request.space())?;
            }
            let Some(log) = &tip.active else { return Ok(()) };
            let begins = log.position + group.len;
            let context = Context {
                domain: *domain,
                key,
                snapshot: &group.snapshot,
                overlay: &group.overlay,
                log: log.header.file,
                frame_offset: begins + crate::log::record::HEADER_LEN as u64,
                oldest_log: self.oldest_log(log.header.file),
                lsn: Lsn(tip.last.0 + group.records.len() as u64).next(),
                now: group.times,
                retention: self.options.retention_time(),
            };
            let resolved = match resolve(request, &context) {
                Ok(resolved) => resolved,
                Err(error) => {
                    group.results.push(Err(error));
                    continue;
                }
            };
            debug_assert!(resolved.facts.iter().all(|(key, _)| key.domain == *domain), "facts of the commit's domain");
            if resolved.ops.is_empty() && resolved.facts.is_empty() {
                group.results.push(Ok(resolved.outcome));
                continue;
            }
            let frame = request.frame().filter(|_| resolved.uses_frame);
            let mut body = Body { domain: *domain, ops: Vec::new(), facts: resolved.facts };
            resolved.ops.iter().for_each(|op| op.encode(&mut body.ops));
            let frame_len = frame.map_or(0, |frame| frame.len(key));
            let len = record_len(frame_len, body.encoded_len() + tag_len(key));
            if body.encoded_len() > crate::log::record::MAX_BODY as u64 || len > self.options.log_capacity() {
                let limit = self.options.log_capacity().min(crate::log::record::MAX_BODY as u64);
                group.results.push(Err(Error::TooLarge { what: "a commit's record", limit, found: len }));
                continue;
            }
            if log.room() < group.len + len {
                if group.results.is_empty() {
                    // It fits no behind of what is there, but into a new file.
                    self.rotate(tip, len, request.space())?;
                    return self.fill(tip, group, requests);
                }
                return Ok(());
            }
            let (lsn, offset, content_at) = (context.lsn, begins, context.frame_offset + DESCRIPTOR_LEN);
            let at = Position { lsn, durable: self.durable(), times: group.times, offset };
            let record = log.encode(&keys, &body, at, frame, content_at)?;
            group.overlay.extend(body.facts.iter().cloned());
            group.facts.extend(body.facts.into_iter().map(|fact| (lsn, fact)));
            group.len += record.len();
            group.records.push(record);
            group.names.extend(name_changes(*domain, &resolved.ops).into_iter().map(|change| (lsn, change)));
            group.results.push(Ok(resolved.outcome));
        }
        Ok(())
    }

    /// Writes and syncs a group's records, then makes its facts visible.
    fn write(&self, tip: &mut Tip, group: &Group<'_>) -> Result<()> {
        if group.records.is_empty() {
            return Ok(());
        }
        self.check_writable()?;
        let Some(log) = &mut tip.active else { return Ok(()) };
        let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(3 * group.records.len() + 1);
        for record in &group.records {
            pieces.extend(record.pieces().map(IoSlice::new));
        }
        if let Err(error) = log.append(&mut pieces, group.len) {
            // Sealed before these records, the log does not have them, whatever reached the disk.
            if self.rotate(tip, 0, Space::Reserve).is_ok() {
                return Err(error);
            }
            self.sync_tip(tip)?;
            tip.unsealed = tip.active.take().map(|log| (log.position, tip.last));
            self.unsettled.store(true, Ordering::Release);
            return Err(unknown_outcome(error));
        }
        if self.options.durability == Durability::Synced {
            log.sync().map_err(|error| self.poison(error))?;
        }
        tip.last = Lsn(tip.last.0 + group.records.len() as u64);
        if self.options.durability == Durability::Synced {
            self.durable.store(tip.last.0, Ordering::Release);
        }
        let view = self.view();
        for (lsn, fact) in &group.facts {
            view.active.insert(*lsn, fact.clone());
        }
        let visible = || self.visible.store(tip.last.0, Ordering::Release);
        if group.names.is_empty() {
            visible()
        } else {
            self.names.apply(&group.names, visible)
        }
        Ok(())
    }

    /// Begins a new log file, which has room for at least `len` bytes of records, and seals the one before. Where that
    /// fails nothing has changed.
    pub(crate) fn rotate(&self, tip: &mut Tip, len: u64, space: Space) -> Result<()> {
        self.check_writable()?;
        let log = self.create_log(tip.last.next(), len, space)?;
        // Where commits do not sync, this is what keeps the unsynced tail within one file.
        self.sync_tip(tip)?;
        let end = tip.active.as_ref().map(|log| (log.position, tip.last)).or(tip.unsealed);
        self.list_log(&log, end, space)?;
        tip.unsealed = None;
        tip.active = Some(log);
        self.unsettled.store(false, Ordering::Release);
        Ok(())
    }

    /// Makes a log file part of the store, and with that seals the one before, which reaches so far. Where that fails
    /// the new file is gone and nothing has changed.
    pub(crate) fn list_log(&self, log: &ActiveLog, end: Option<(u64, Lsn)>, space: Space) -> Result<()> {
        let (id, first_lsn) = (log.header.file, log.header.first_lsn);
        let mut sealed = None;
        self.update_list(space, |list| {
            sealed = list.seal_last(end);
            list.logs.push(LogEntry { id, first_lsn, sealed: None });
        })
        .inspect_err(|error| {
            // Else the list on disk may name it.
            if !matches!(error, Error::Poisoned { .. }) {
                self.files.discard(id);
            }
        })?;
        self.files.published(id);
        self.files.insert_active(log);
        sealed.iter().for_each(|(id, len)| self.files.cut_log(*id, *len));
        Ok(())
    }

    /// Begins a new log file, unless nothing was written to the one that there is.
    pub(crate) fn begin_log(&self) -> Result<()> {
        let mut tip = lock(&self.tip);
        let is_used = tip.active.as_ref().is_some_and(|log| log.position > crate::log::file::HEADER_LEN);
        if is_used { self.rotate(&mut tip, 0, Space::Reserve) } else { Ok(()) }
    }

    /// Makes sure that what an earlier group left of itself, when writing it failed, can't come back after a restart.
    pub(crate) fn settle(&self) -> Result<()> {
        self.check_writable()?;
        if !self.unsettled.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut tip = lock(&self.tip);
        if self.unsettled.load(Ordering::Acquire) { self.rotate(&mut tip, 0, Space::Reserve) } else { Ok(()) }
    }

    /// Leaves a seal at a clean close: the list says how far the log reaches, so that from now on whatever is missing
    /// of it is damage.
    pub(crate) fn seal(&self) -> Result<()> {
        let mut tip = lock(&self.tip);
        let end = tip.active.take().map(|log| (log.position, tip.last)).or(tip.unsealed.take());
        let (mut sealed, mut folded) = (None, Vec::new());
        self.update_list(Space::Reserve, |list| {
            sealed = list.seal_last(end);
            folded = list.drop_folded_logs(self.history());
        })?;
        sealed.iter().for_each(|(id, len)| self.files.cut_log(*id, *len));
        // What has no frames goes. An empty one that had some is given up by the next opening.
        let snapshot = self.snapshot();
        folded.retain(|id| snapshot.segments(*id).is_ok_and(|segments| segments.is_empty()));
        self.files.remove_durably(&folded).map_err(|error| self.fail_stop(error))
    }

    /// Creates a log file, durably, that nothing names yet: of the size that the options say, or, on a disk that is too
    /// full for that, as small as will do.
    pub(crate) fn create_log(&self, first_lsn: Lsn, len: u64, space: Space) -> Result<ActiveLog> {
        let needed = len + crate::log::file::HEADER_LEN;
        let usual = self.options.log_file_size.max(needed).next_multiple_of(4096);
        let small = needed.max(SMALL_LOG).next_multiple_of(4096).min(usual);
        match self.create_log_of(first_lsn, usual) {
            Err(Error::Full { .. }) => self.files.within(space, || self.create_log_of(first_lsn, small)),
            other => other,
        }
    }

    fn create_log_of(&self, first_lsn: Lsn, capacity: u64) -> Result<ActiveLog> {
        let files = &self.files;
        let id = files.new_id();
        let create = || {
            let (file, store, session, keys) = (id, files.store, self.session, files.keys.get());
            let key = keys.current(DomainId::DEFAULT).unwrap_or_default();
            let header = LogHeader { file, store, session, first_lsn, capacity, key, salt: random()? };
            ActiveLog::create(&*files.vfs, files.layout.log(id), header, &keys)
        };
        let created = files.create_in_shard(&files.layout.logs(), id, create);
        created.inspect_err(|_| files.discard(id)).map_err(|error| self.fail_stop(error))
    }

    /// The facts as of now, as the default domain sees them.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot_of(DomainId::DEFAULT)
    }

    /// The facts as of now, as a domain sees them.
    pub(crate) fn snapshot_of(&self, domain: DomainId) -> Snapshot {
        let view = self.view();
        Snapshot { view, lsn: Lsn(self.visible.load(Ordering::Acquire)), domain }
    }

    /// Puts a new, empty table in front and leaves the one that took in facts so far to become a run.
    pub(crate) fn freeze(&self) {
        let _tip = lock(&self.tip); // between groups
        let mut view = write(&self.view);
        if view.active.len() == 0 {
            return;
        }
        let mut new = View::clone(&view);
        new.frozen.insert(0, std::mem::replace(&mut new.active, Arc::new(Memtable::new())));
        *view = Arc::new(new);
    }

    /// Makes all commits so far durable: for [`Durability::Relaxed`].
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_writable()?;
        self.sync_tip(&lock(&self.tip))
    }

    pub(crate) fn sync_tip(&self, tip: &Tip) -> Result<()> {
        if let Some(log) = &tip.active
            && self.durable() < tip.last
        {
            log.sync().map_err(|error| self.poison(error))?;
            self.durable.store(tip.last.0, Ordering::Release);
        }
        Ok(())
    }
}

/// Requests that become durable together.
struct Group<'r> {
    snapshot: Snapshot,
    times: Times,
    overlay: HashMap<Key, Option<Value>>,
    facts: Vec<(Lsn, Fact)>,
    names: Vec<(Lsn, NameChange)>,
    records: Vec<Encoded<'r>>,
    /// The records' length in bytes.
    len: u64,
    results: Vec<Result<Outcome>>,
}

impl Group<'_> {
    fn new(snapshot: Snapshot, times: Times) -> Self {
        Self {
            snapshot,
            times,
            overlay: HashMap::new(),
            facts: Vec::new(),
            names: Vec::new(),
            records: Vec::new(),
            len: 0,
            results: Vec::new(),
        }
    }
}

/// What was written with a key that was given up meanwhile, and could not be read any more.
fn retired(domain: DomainId) -> Error {
    let reason = "it was retired while the content came: push it again".to_owned();
    Error::Key { domain: domain.0, source: KeyError::Gone { key_id: "data key".to_owned(), reason } }
}

/// After a write to the log that failed, its records may be found there after a restart. [`Error::Full`] says that
/// nothing was written, so this is another error.
fn unknown_outcome(error: Error) -> Error {
    match error {
        Error::Full { path } => {
            let source = Arc::new(std::io::ErrorKind::StorageFull.into());
            Error::Io { path, operation: "write", source }
        }
        other => other,
    }
}

/// What operations do to names of a domain.
pub(crate) fn name_changes(domain: DomainId, ops: &[Op]) -> Vec<NameChange> {
    let mut changes = Vec::new();
    let mut note = |kind, name: &str, change| changes.push(NameChange { domain, kind, name: name.to_owned(), change });
    for op in ops {
        match op {
            Op::Pin { name, .. } => note(NameKind::Pin, name, Change::Set),
            Op::Unpin { name } => note(NameKind::Pin, name, Change::Remove),
            Op::CreateRepository { repository } => note(NameKind::Repository, &repository.name, Change::Set),
            Op::DeleteRepository { repository } => note(NameKind::Repository, &repository.name, Change::Remove),
            Op::Tag { repository, tag, .. } => note(NameKind::Tag, &tag_name(repository.id, tag), Change::Set),
            Op::Untag { repository, tag, .. } => note(NameKind::Tag, &tag_name(repository.id, tag), Change::Remove),
            Op::Purge { repository, tags } => {
                tags.iter().for_each(|tag| note(NameKind::Tag, &tag_name(*repository, tag), Change::Remove));
            }
            _ => {}
        }
    }
    changes
}
