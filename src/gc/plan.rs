//! Choosing the files that compaction empties.
//!
//! In a file of content every byte that does not belong to a live frame is dead: frames that no fact refers to, and the
//! records of a log file once runs have their facts. Files with the largest share of dead bytes are chosen first, and
//! only as many as are needed to get below [`max_dead`]: so at most (100 − [`max_dead`]) / [`max_dead`] bytes are moved
//! for each byte that is given back.
//!
//! [`max_dead`]: crate::CollectOptions::max_dead

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::facts::{Family, SegmentFact, SegmentKind, Value};
use crate::gc::collector::Collector;
use crate::id::{DomainId, FileId};
use crate::sync::lock;

/// From this number on the small files of a domain are merged into one.
const MERGED: usize = 8;

/// A file of content.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: FileId,
    pub(super) is_log: bool,
    /// The domains that have something in it.
    pub(super) domains: Vec<DomainId>,
    pub(super) live: u64,
    /// How long it is.
    pub(super) len: u64,
}

impl Candidate {
    pub(super) fn dead(&self) -> u64 {
        self.len.saturating_sub(self.live)
    }
}

/// The files to empty, and the dead bytes that are left.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The files to empty, in this order.
    pub(super) files: Vec<Candidate>,
    pub(super) live: u64,
    /// Dead bytes of all files. Below: those among them in files that are too full, are needed as log files, or are
    /// damaged.
    pub(super) dead: u64,
    pub(super) scattered: u64,
    pub(super) logs: u64,
    pub(super) damaged: u64,
    /// Bytes that may be dead, in log files that may have something of locked domains.
    pub(super) locked: u64,
    /// Whether folding the log would make more files available.
    pub(super) may_fold: bool,
}

impl Collector<'_> {
    /// Looks at every file of content once. Where facts that say what lives in files are damaged, which is reported,
    /// only segments are emptied: they are of one domain, so that all that lives in one is known or nothing.
    pub(super) fn plan(&mut self) -> Result<Plan> {
        let oldest_log = self.inner.tables.oldest_log(FileId(FileId::MAX));
        let max_small = self.inner.settings.file_size.min(32 << 20) / MERGED as u64;
        let mut plan = Plan::default();
        let mut files: BTreeMap<FileId, Candidate> = BTreeMap::new();
        let mut is_complete = true;
        for domain in self.domains() {
            let snapshot = self.snapshot_of(domain);
            for fact in snapshot.facts(Family::Segment, [0; 32])? {
                let read = fact.and_then(|(key, value)| {
                    let value = self.would_be(&key).cloned().unwrap_or(Some(value));
                    let decode = |value: Value| snapshot.decoded(&key, SegmentFact::decode(value.as_bytes()));
                    Ok((FileId(key.prefix()), value.map(decode).transpose()?))
                });
                let (id, segment) = match read {
                    Err(damage @ Error::Corrupt { .. }) => {
                        is_complete = false;
                        self.note_damage(damage);
                        continue;
                    }
                    read => read?,
                };
                let Some(segment) = segment else { continue };
                plan.live += segment.live_bytes;
                if segment.kind == SegmentKind::Upload {
                    continue;
                }
                let is_log = segment.kind == SegmentKind::Log;
                // One blob in a file of its own: as it should be, and there may be very many of them.
                if !is_log && segment.live_bytes == segment.frame_bytes && segment.live_bytes > max_small {
                    continue;
                }
                let new = || Candidate { id, is_log, domains: Vec::new(), live: 0, len: 0 };
                let file = files.entry(id).or_insert_with(new);
                file.domains.push(domain);
                file.live += segment.live_bytes;
                file.len += segment.frame_bytes;
            }
        }
        // What surrounds the frames of a segment is not dead: it would be there again in the next.
        for file in files.values_mut().filter(|file| file.is_log && file.id < oldest_log) {
            file.len = self.len_of(file.id)?;
        }
        let sealed = files.values().filter(|file| file.is_log && file.id < oldest_log);
        *lock(&self.inner.lens) = sealed.map(|file| (file.id, file.len)).collect();
        let (mut free, mut listed) = (Vec::new(), 0);
        let stuck = lock(&self.inner.stuck).clone();
        let withheld = self.inner.tables.withheld();
        for file in files.into_values() {
            if file.is_log && file.id < withheld {
                plan.locked += file.dead();
                continue;
            }
            plan.dead += file.dead();
            if file.is_log && file.id >= oldest_log {
                listed += file.len;
                plan.logs += file.dead();
            } else if stuck.get(&file.id) == Some(&file.live) || file.is_log && !is_complete {
                plan.damaged += file.dead();
            } else {
                free.push(file);
            }
        }
        // Of log files that no run needs any more so many bytes are kept for events, dead or not.
        plan.may_fold = plan.logs > 0 && listed > self.inner.tables.history();
        self.choose(&mut plan, free, max_small);
        Ok(plan)
    }

    fn choose(&self, plan: &mut Plan, mut free: Vec<Candidate>, max_small: u64) {
        let allowed = |plan: &Plan, dead: u64| {
            u128::from(dead) * 100 <= u128::from(plan.live + dead) * u128::from(self.options.max_dead)
        };
        // The emptiest first: dead / len, without dividing.
        free.sort_by(|one, other| {
            let [one, other] =
                [(one, other), (other, one)].map(|(this, that)| u128::from(this.dead()) * u128::from(that.len));
            other.cmp(&one)
        });
        let mut dead = plan.dead;
        let mut rest = Vec::new();
        for file in free {
            if file.dead() > 0 && !allowed(plan, dead) {
                dead -= file.dead();
                plan.files.push(file);
            } else {
                rest.push(file);
            }
        }
        plan.may_fold &= !allowed(plan, dead);
        let mut small: BTreeMap<DomainId, Vec<Candidate>> = BTreeMap::new();
        for file in rest {
            match file.domains.as_slice() {
                [domain] if file.len <= max_small => small.entry(*domain).or_default().push(file),
                _ => plan.scattered += file.dead(),
            }
        }
        for files in small.into_values() {
            if files.len() >= MERGED {
                plan.files.extend(files);
            } else {
                plan.scattered += files.iter().map(Candidate::dead).sum::<u64>();
            }
        }
    }
}
