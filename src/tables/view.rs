//! Views and snapshots: the facts as of one LSN.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Damage, Error, Result};
use crate::facts::{
    Fact, Family, Key, Known, Lookup, NamesOf, Prefix, Reader, SegmentFact, Value, overlaid, successor,
};
use crate::id::{DomainId, FileId, Lsn};
use crate::names::{NameKind, Names};
use crate::sealed::SealedFile;
use crate::tables::locked::Locked;
use crate::tables::memtable::Memtable;
use crate::tables::{Lead, Merge, Probe, Run, RunId, RunList, Source};

/// So many keys are looked up side by side: while memory is fetched for one, others go on.
const AT_ONCE: usize = 16;

/// The tables and runs that hold all facts, newest first. Replaced as a whole when one of them is.
///
/// A table takes in a group of commits before the group's LSN becomes the visible one, and a table is frozen between
/// groups, so a view together with an LSN that was read after it shows whole commits only: all of those up to the LSN,
/// or, where the table was frozen meanwhile, all that it had taken in by then.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(super) active: Arc<Memtable>,
    /// Tables that wait to become a run, newest first.
    pub(super) frozen: Vec<Arc<Memtable>>,
    pub(super) runs: Arc<Runs>,
    /// What is known of files with ids from this one on, commits from this LSN on said. So older runs need not be
    /// asked: damage to one would else keep everything from being written that counts what lives in a new file.
    pub(super) fresh: (FileId, Lsn),
    /// The runs have all commits up to this one, and those behind it are in the tables alone, but for those of a domain
    /// that was unlocked, which no reader has seen before.
    pub(super) folded: Lsn,
    /// All domains that are not locked, in order: the default one first.
    pub(super) domains: Arc<[DomainId]>,
    /// The others.
    pub(super) locked: Arc<Locked>,
    /// Names in order.
    pub(super) names: Arc<Names>,
}

/// Open runs, those of each domain newest first.
#[derive(Debug, Default)]
pub(crate) struct Runs(BTreeMap<DomainId, Vec<Arc<Run>>>);

impl FromIterator<Arc<Run>> for Runs {
    fn from_iter<I: IntoIterator<Item = Arc<Run>>>(runs: I) -> Self {
        let mut by_domain: BTreeMap<DomainId, Vec<Arc<Run>>> = BTreeMap::new();
        runs.into_iter().for_each(|run| by_domain.entry(run.domain()).or_default().push(run));
        Self(by_domain)
    }
}

impl Runs {
    /// Those of a domain, newest first.
    pub(super) fn of(&self, domain: DomainId) -> &[Arc<Run>] {
        self.0.get(&domain).map_or(&[], Vec::as_slice)
    }

    /// Those of all domains, one after the other.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.0.values().flatten()
    }

    /// The files that they lie in.
    pub(super) fn files(&self) -> HashMap<FileId, &Arc<SealedFile>> {
        self.all().map(|run| (run.id().file, run.file())).collect()
    }

    /// Those that a list names, of these and more.
    pub(super) fn listed(&self, list: &RunList, more: &[Arc<Run>]) -> Self {
        let known: HashMap<RunId, &Arc<Run>> = self.all().chain(more).map(|run| (run.id(), run)).collect();
        list.runs.iter().filter_map(|meta| known.get(&meta.id).copied().cloned()).collect()
    }
}

/// A view at an LSN, as one domain sees it. A key that is asked for is looked up in its own domain all the same.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(super) view: Arc<View>,
    pub(crate) lsn: Lsn,
    pub(crate) domain: DomainId,
    /// Whether it is kept for many reads: names are then as of its LSN too, and not as of when they are asked for.
    pub(super) is_kept: bool,
}

impl Snapshot {
    /// The same moment, for reads that have to agree with each other.
    pub(crate) fn kept(self) -> Self {
        Self { is_kept: true, ..self }
    }

    /// The same moment, as another domain sees it.
    pub(crate) fn in_domain(&self, domain: DomainId) -> Self {
        Self { domain, ..self.clone() }
    }

    /// The same moment, as each domain sees it.
    pub(crate) fn each_domain(&self) -> impl Iterator<Item = Self> + '_ {
        self.domains().iter().map(|domain| self.in_domain(*domain))
    }

    /// What the domains have in a file: those that have a fact of it. While there is one, the file is needed. What
    /// locked ones have is not known: see [`Tables::is_withheld`](super::Tables::is_withheld).
    pub(crate) fn segments(&self, id: FileId) -> Result<Vec<(DomainId, SegmentFact)>> {
        let found = |snapshot: Self| Ok(snapshot.segment(id)?.map(|segment| (snapshot.domain, segment)));
        self.each_domain().filter_map(|snapshot| found(snapshot).transpose()).collect()
    }

    /// The same; `None` where facts that would tell are damaged. Then something may live in the file.
    pub(crate) fn segments_if_readable(&self, id: FileId) -> Result<Option<Vec<(DomainId, SegmentFact)>>> {
        match self.segments(id) {
            Err(Error::Corrupt { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The memory tables, newest first.
    fn tables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.view.active).chain(&self.view.frozen)
    }

    /// A decoded value, or the error that it can't be, with its place: a writer wrote it and its checksum holds, so it
    /// is of another format.
    pub(crate) fn decoded<T>(&self, key: &Key, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.invalid(key))
    }

    /// What `look` makes of the value under a key.
    pub(crate) fn look<T>(&self, key: &Key, look: impl Fn(&[u8]) -> T) -> Result<Option<T>> {
        let probe = Probe::new(key);
        // Each run has a line of its guide to look at: waiting for all of them, and for the tables, takes hardly longer
        // than for one.
        self.runs(key).for_each(|run| run.prefetch_line(&probe));
        match self.look_in_tables(key, &look) {
            Some(found) => Ok(found),
            None => self.look_in_runs(&probe, 0, None, look),
        }
    }

    /// What `look` makes of the values under keys, in their order.
    pub(crate) fn look_many<T>(&self, keys: &[Key], look: impl Fn(&[u8]) -> T) -> Result<Vec<Option<T>>> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(AT_ONCE) {
            let probes: Vec<Probe<'_>> = keys.iter().map(Probe::new).collect();
            for probe in &probes {
                self.runs(probe.key).for_each(|run| run.prefetch_line(probe));
            }
            // The newest run that may have the key: those before it do not.
            let newest = |probe: &Probe<'_>| {
                self.runs(probe.key).enumerate().find_map(|(number, run)| Some((number, run.lead(probe)?)))
            };
            let leads: Vec<_> = probes.iter().map(newest).collect();
            for (probe, newest) in probes.iter().zip(leads) {
                found.push(match (self.look_in_tables(probe.key, &look), newest) {
                    (Some(found), _) => found,
                    (None, Some((number, lead))) => self.look_in_runs(probe, number, Some(lead), &look)?,
                    (None, None) => None,
                });
            }
        }
        Ok(found)
    }

    fn look_in_tables<T>(&self, key: &Key, look: impl Fn(&[u8]) -> T) -> Option<Option<T>> {
        self.tables().find_map(|table| table.get(key, self.lsn, &look))
    }

    /// Looks into the runs from one on, of which the first's guide may have been asked before.
    fn look_in_runs<T>(
        &self,
        probe: &Probe<'_>,
        first: usize,
        mut lead: Option<Lead>,
        look: impl Fn(&[u8]) -> T,
    ) -> Result<Option<T>> {
        for run in self.runs(probe.key).skip(first) {
            if let Some(found) = run.get(probe, lead.take(), &look)? {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The runs that may know of a key, newest first.
    fn runs(&self, key: &Key) -> impl Iterator<Item = &Arc<Run>> {
        let (file, lsn) = self.view.fresh;
        let is_fresh = key.family == Family::Segment && FileId(key.prefix()) >= file;
        self.view.runs.of(key.domain).iter().filter(move |run| !(is_fresh && run.last_lsn() < lsn))
    }

    /// The facts of the domain's family in the order of their keys, from one on.
    pub(crate) fn facts(
        &self,
        family: Family,
        from: [u8; 32],
    ) -> Result<impl Iterator<Item = Result<(Key, Value)>> + '_> {
        self.facts_of(self.domain, family, from)
    }

    fn facts_of(
        &self,
        domain: DomainId,
        family: Family,
        from: [u8; 32],
    ) -> Result<impl Iterator<Item = Result<(Key, Value)>> + '_> {
        let mut sources: Vec<Source<'_>> = Vec::new();
        for table in self.tables() {
            sources.push(Box::new(table.range(domain, family, from, self.lsn).map(Ok)));
        }
        for run in self.view.runs.of(domain) {
            sources.push(Box::new(run.iter(family, from)));
        }
        let merged = Merge::new(sources);
        Ok(merged.filter_map(|fact: Result<Fact>| match fact {
            Ok((key, value)) => value.map(|value| Ok((key, value))),
            Err(error) => Some(Err(error)),
        }))
    }

    /// The facts with a prefix, in the order of their keys.
    pub(crate) fn scan_all(&self, prefix: Prefix) -> Result<impl Iterator<Item = Result<(Key, Value)>> + '_> {
        self.scan_all_after(prefix, None)
    }

    /// The facts with a prefix, in the order of their keys, those behind a key.
    pub(crate) fn scan_all_after(
        &self,
        prefix: Prefix,
        after: Option<Key>,
    ) -> Result<impl Iterator<Item = Result<(Key, Value)>> + '_> {
        let from = after.map_or(Some(prefix.from), |after| successor(after.bytes)).unwrap_or([u8::MAX; 32]);
        let facts = self.facts_of(prefix.domain, prefix.family, from.max(prefix.from))?;
        Ok(facts.take_while(move |fact| fact.as_ref().map_or(true, |(key, _)| prefix.contains(key))))
    }
}

/// A snapshot, with what was read before. So nothing is looked for in runs, which may have to be read, but what was not
/// read then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recalled<'a> {
    snapshot: &'a Snapshot,
    known: &'a Known,
}

impl Snapshot {
    /// With what was read as of an earlier moment; without it where runs have come since that may say otherwise.
    pub(crate) fn recalling<'a>(&'a self, known: &'a Known) -> Option<Recalled<'a>> {
        (self.view.folded <= known.as_of).then_some(Recalled { snapshot: self, known })
    }
}

impl Reader for Recalled<'_> {
    fn get(&self, key: &Key) -> Result<Option<Value>> {
        let Some(known) = self.known.get(key) else { return self.snapshot.get(key) };
        // Whatever has changed since is in a table.
        let mut tables = self.snapshot.tables().filter_map(|table| table.get(key, self.snapshot.lsn, Value::new));
        Ok(tables.next().unwrap_or_else(|| known.clone()))
    }

    fn scan(&self, prefix: Prefix, after: Option<Key>, limit: usize) -> Result<Vec<(Key, Value)>> {
        let Some((known, is_all)) = self.known.scan(prefix, after, limit) else {
            return Reader::scan(self.snapshot, prefix, after, limit);
        };
        let mut facts: BTreeMap<Key, Option<Value>> = BTreeMap::new();
        for table in self.snapshot.tables() {
            let changed = table.range(prefix.domain, prefix.family, prefix.from, self.snapshot.lsn);
            let changed = changed.take_while(|(key, _)| prefix.contains(key));
            for (key, value) in changed.filter(|(key, _)| after.is_none_or(|after| after < *key)) {
                facts.entry(key).or_insert(value);
            }
        }
        // Behind the last there may be others between those that have changed since.
        if let Some((last, _)) = known.last().filter(|_| !is_all) {
            facts.retain(|key, _| key <= last);
        }
        let found: Vec<_> = overlaid(facts, known.iter().cloned()).take(limit).collect();
        if found.len() < limit && !is_all {
            return Reader::scan(self.snapshot, prefix, after, limit);
        }
        Ok(found)
    }

    fn names(&self, of: NamesOf<'_>, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        self.snapshot.names(of, after, limit)
    }

    fn domains(&self) -> &[DomainId] {
        self.snapshot.domains()
    }

    fn lock_of(&self, domain: DomainId) -> Option<&Error> {
        self.snapshot.lock_of(domain)
    }

    fn invalid(&self, key: &Key) -> Error {
        self.snapshot.invalid(key)
    }
}

impl Reader for Snapshot {
    fn get(&self, key: &Key) -> Result<Option<Value>> {
        self.look(key, Value::new)
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>> {
        self.look_many(keys, Value::new)
    }

    fn scan(&self, prefix: Prefix, after: Option<Key>, limit: usize) -> Result<Vec<(Key, Value)>> {
        self.scan_all_after(prefix, after)?.take(limit).collect()
    }

    fn names(&self, of: NamesOf<'_>, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        if self.is_kept {
            return of.first(self, after, limit);
        }
        let view = &self.view.names;
        let listed = match of {
            NamesOf::Named(domain, prefix) => view.named(domain, prefix, after, limit),
            NamesOf::Repositories => view.list(self.domains(), NameKind::Repository, after, limit),
            NamesOf::Tags(domain, repository) => view.tags(domain, repository, after, limit),
        };
        // Without the view, or while it is being rebuilt.
        listed.map_or_else(|| of.first(self, after, limit), Ok)
    }

    fn domains(&self) -> &[DomainId] {
        &self.view.domains
    }

    fn lock_of(&self, domain: DomainId) -> Option<&Error> {
        self.view.locked.why(domain)
    }

    fn invalid(&self, key: &Key) -> Error {
        let in_run = || self.view.runs.of(key.domain).iter().find_map(|run| run.invalid_value(key));
        let is_in_table = self.tables().any(|table| table.get(key, self.lsn, |_| ()).is_some());
        let place = if is_in_table { None } else { in_run() };
        place.unwrap_or_else(|| Error::corrupt(Path::new("log"), 0, Damage::Invalid("fact")))
    }
}

impl Lookup for Snapshot {
    fn domain(&self) -> DomainId {
        self.domain
    }

    fn decode<T>(&self, key: &Key, decode: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>> {
        self.look(key, decode)?.map(|value| self.decoded(key, value)).transpose()
    }
}
