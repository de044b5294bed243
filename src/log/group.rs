//! A group of commits: resolved, written and synced together.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::Times;
use crate::envelope::KeyNumber;
use crate::error::{Error, Result};
use crate::facts::{Key, Reader, Value};
use crate::files::Space;
use crate::id::{DomainId, FileId, Lsn};
use crate::keys::KeyError;
use crate::log::committer::{Committer, Durability, Tip};
use crate::log::queue::{BROKEN, Queued};
use crate::log::record::{self, record_len, tag_len};
use crate::log::{Body, Encoded, Position};
use crate::names::{Change, NameChange, NameKind, tag_name};
use crate::segment::DESCRIPTOR_LEN;
use crate::tables::{NeededLogs, Snapshot, Tables};
use crate::transaction::{Context, MAX_BODY, Op, Outcome, Over, Placing, Request, resolve};

/// A group that has changed so many facts takes no more requests: who comes later does not wait for what they cost.
const GROUP_FACTS: usize = 16 << 10;

/// The length of what most commits do, in bytes.
const OPS: usize = 128;

/// Requests that become durable together.
struct Group<'r> {
    snapshot: Snapshot,
    times: Times,
    /// What its commits so far have changed: all of it becomes visible at once, so only how it ends counts.
    changed: BTreeMap<Key, Option<Value>>,
    /// How many facts its records have.
    facts: usize,
    names: Vec<(Lsn, NameChange)>,
    records: Vec<Encoded<'r>>,
    /// The records' length in bytes.
    len: u64,
    /// Whether a caller is told only when its commit, or what it found, is durable.
    is_synced: bool,
    results: Vec<Result<Outcome>>,
}

impl Group<'_> {
    fn new(snapshot: Snapshot, times: Times) -> Self {
        Self {
            snapshot,
            times,
            changed: BTreeMap::new(),
            facts: 0,
            names: Vec::new(),
            records: Vec::new(),
            len: 0,
            is_synced: false,
            results: Vec::new(),
        }
    }
}

/// A place in a log file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InLog {
    pub(super) lsn: Lsn,
    pub(super) file: FileId,
    /// Where the record's frame begins.
    pub(super) offset: u64,
    pub(super) key: KeyNumber,
    pub(super) needed: NeededLogs,
}

impl InLog {
    /// No place: for a request that is decided and not committed.
    pub(crate) fn nowhere(lsn: Lsn, tables: &Tables) -> Self {
        let none = FileId(FileId::MAX);
        Self { lsn, file: none, offset: 0, key: 0, needed: tables.needed_logs(none) }
    }
}

impl Placing for InLog {
    fn lsn(&self) -> Lsn {
        self.lsn
    }

    fn frame(&self) -> (FileId, u64, KeyNumber) {
        (self.file, self.offset, self.key)
    }

    fn is_needed(&self, log: FileId) -> bool {
        self.needed.has(log)
    }
}

fn space_of(request: &Request) -> Space {
    if request.frees_space() { Space::Reserve } else { Space::Free }
}

impl Committer {
    /// Commits requests in order, as one group or, where a log file ends between them, as several.
    pub(super) fn commit_group(&self, requests: &[Queued]) -> Vec<Result<Outcome>> {
        let mut tip = self.tip.lock();
        let mut results: Vec<Result<Outcome>> = Vec::with_capacity(requests.len());
        while let Some(rest) = requests.get(results.len()..)
            && !rest.is_empty()
        {
            let mut group = Group::new(self.tables.snapshot(), self.clock.now());
            let done = match self.fill(&mut tip, &mut group, rest) {
                Ok(()) => self.write(&mut tip, &mut group),
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => results.append(&mut group.results),
                // Every request of the group fails with what failed the group, except those refused on their own
                // account.
                Err(error) => {
                    let error = self.files.fail_stop(error);
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

    /// Resolves requests into records until the log file or the requests end, or the group is full.
    fn fill<'r>(&self, tip: &mut Tip, group: &mut Group<'r>, requests: &'r [Queued]) -> Result<()> {
        let keys = self.files.keys();
        let mut needed: Option<NeededLogs> = None;
        for Queued { domain, request, durability, known } in requests {
            if group.facts >= GROUP_FACTS {
                return Ok(());
            }
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
                self.rotate(tip, record_len(frame_len, 0), space_of(request))?;
            }
            let log = tip.active.as_ref().ok_or(BROKEN)?;
            let (begins, file) = (log.position + group.len, log.header.file);
            let needed = *needed.get_or_insert_with(|| self.tables.needed_logs(file));
            let placing = InLog {
                lsn: Lsn(tip.last.0 + group.records.len() as u64).next(),
                file,
                offset: begins + record::HEADER_LEN as u64,
                key,
                needed,
            };
            let recalled = known.as_ref().and_then(|known| group.snapshot.recalling(known));
            let older: &dyn Reader = recalled.as_ref().map_or(&group.snapshot, |recalled| recalled);
            let context = Context {
                domain: *domain,
                facts: &Over { newer: &group.changed, older },
                placing: &placing,
                now: group.times,
                retention: self.options.retention,
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
                group.is_synced |= *durability == Durability::Synced;
                let before = Lsn(resolved.outcome.lsn.0.saturating_sub(1));
                group.results.push(Ok(Outcome { lsn: before, ..resolved.outcome }));
                continue;
            }
            let frame = request.frame().filter(|_| resolved.uses_frame);
            let mut body = Body { domain: *domain, ops: Vec::with_capacity(OPS), facts: resolved.facts };
            resolved.ops.iter().for_each(|op| op.encode(&mut body.ops));
            let frame_len = frame.map_or(0, |frame| frame.len(key));
            let len = record_len(frame_len, body.encoded_len() + tag_len(key));
            let limit = self.options.capacity();
            if body.encoded_len() > MAX_BODY as u64 || len > limit {
                let limit = limit.min(MAX_BODY as u64);
                group.results.push(Err(Error::TooLarge { what: "a commit's record", limit, found: len }));
                continue;
            }
            if log.room() < group.len + len {
                if group.results.is_empty() {
                    // It fits no behind of what is there, but into a new file.
                    self.rotate(tip, len, space_of(request))?;
                    return self.fill(tip, group, requests);
                }
                return Ok(());
            }
            let (lsn, content_at) = (placing.lsn, placing.offset + DESCRIPTOR_LEN);
            let at = Position { lsn, durable: self.tables.durable(), times: group.times, offset: begins };
            let record = log.encode(&keys, &body, at, frame, content_at)?;
            group.facts += body.facts.len();
            group.changed.extend(body.facts);
            group.len += record.len();
            group.is_synced |= *durability == Durability::Synced;
            group.records.push(record);
            group.names.extend(name_changes(*domain, &resolved.ops).into_iter().map(|change| (lsn, change)));
            group.results.push(Ok(resolved.outcome));
        }
        Ok(())
    }

    /// Writes and syncs a group's records, then makes its facts visible.
    fn write(&self, tip: &mut Tip, group: &mut Group<'_>) -> Result<()> {
        if group.records.is_empty() {
            // What a request found may be what another caller has left unsynced.
            return if group.is_synced { self.sync_tip(tip) } else { Ok(()) };
        }
        self.files.check_writable()?;
        let log = tip.active.as_mut().ok_or(BROKEN)?;
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
        if group.is_synced {
            log.sync().map_err(|error| self.files.poison(error))?;
        }
        tip.last = Lsn(tip.last.0 + group.records.len() as u64);
        if group.is_synced {
            self.tables.set_durable(tip.last);
        }
        let changed = std::mem::take(&mut group.changed);
        self.tables.insert(changed.into_iter().map(|fact| (tip.last, fact)));
        let visible = || self.tables.set_visible(tip.last);
        if group.names.is_empty() {
            visible()
        } else {
            self.names.apply(&group.names, visible)
        }
        Ok(())
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
            Op::SetNamed { name, .. } => note(NameKind::Named, name, Change::Set),
            Op::RemoveNamed { name, .. } => note(NameKind::Named, name, Change::Remove),
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
