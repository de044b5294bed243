//! What a reader sees: the facts as of one LSN.

use std::sync::Arc;

use crate::digest::Digest;
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Fact, Family, Key, Prefix, SegmentFact, Value, successor};
use crate::id::{DomainId, FileId, Lsn};
use crate::tables::memtable::Memtable;
use crate::tables::{Merge, Run, Source};

/// The tables and runs that hold all facts, newest first. Replaced as a whole when one of them is.
///
/// A table takes in a group of commits before the group's LSN becomes the visible one, and a table is frozen between
/// groups, so a view together with an LSN that was read after it shows whole commits only: all of those up to the LSN,
/// or, where the table was frozen meanwhile, all that it had taken in by then.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) active: Arc<Memtable>,
    /// Tables that wait to become a run, newest first.
    pub(crate) frozen: Vec<Arc<Memtable>>,
    /// Newest first.
    pub(crate) runs: Vec<Arc<Run>>,
    /// All domains, in order: the default one first.
    pub(crate) domains: Arc<[DomainId]>,
}

/// A view at an LSN, as one domain sees it. A key that is asked for is looked up in its own domain all the same.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) view: Arc<View>,
    pub(crate) lsn: Lsn,
    pub(crate) domain: DomainId,
}

impl Snapshot {
    /// The same moment, as another domain sees it.
    pub(crate) fn in_domain(&self, domain: DomainId) -> Self {
        Self { domain, ..self.clone() }
    }

    /// All domains, in order: the default one first.
    pub(crate) fn domains(&self) -> &[DomainId] {
        &self.view.domains
    }

    /// The same moment, as each domain sees it.
    pub(crate) fn each_domain(&self) -> impl Iterator<Item = Self> + '_ {
        self.domains().iter().map(|domain| self.in_domain(*domain))
    }

    /// What the domains have in a file: those that have a fact of it. While there is one, the file is needed.
    pub(crate) fn segments(&self, id: FileId) -> Result<Vec<(DomainId, SegmentFact)>> {
        let found = |snapshot: Self| Ok(snapshot.segment(id)?.map(|segment| (snapshot.domain, segment)));
        self.each_domain().filter_map(|snapshot| found(snapshot).transpose()).collect()
    }

    /// What `look` makes of the value under a key.
    pub(crate) fn look<T>(&self, key: &Key, look: impl Fn(&[u8]) -> T) -> Result<Option<T>> {
        for table in std::iter::once(&self.view.active).chain(&self.view.frozen) {
            if let Some(found) = table.get(key, self.lsn, &look) {
                return Ok(found);
            }
        }
        for run in self.view.runs.iter().filter(|run| run.domain() == key.domain) {
            if let Some(found) = run.get(key, &look)? {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The value under a key.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Value>> {
        self.look(key, Value::new)
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
        let tables = std::iter::once(&self.view.active).chain(&self.view.frozen);
        let mut sources: Vec<Source<'_>> = Vec::new();
        for table in tables {
            sources.push(Box::new(table.range(domain, family, from, self.lsn).map(Ok)));
        }
        for run in self.view.runs.iter().filter(|run| run.domain() == domain) {
            sources.push(Box::new(run.iter(family, from)));
        }
        let merged = Merge::new(sources);
        Ok(merged.filter_map(|fact: Result<Fact>| match fact {
            Ok((key, value)) => value.map(|value| Ok((key, value))),
            Err(error) => Some(Err(error)),
        }))
    }

    /// The facts with a prefix, in the order of their keys.
    pub(crate) fn scan(&self, prefix: Prefix) -> Result<impl Iterator<Item = Result<(Key, Value)>> + '_> {
        self.scan_after(prefix, None)
    }

    /// The facts with a prefix, in the order of their keys, those behind a key.
    pub(crate) fn scan_after(
        &self,
        prefix: Prefix,
        after: Option<Key>,
    ) -> Result<impl Iterator<Item = Result<(Key, Value)>> + '_> {
        let from = after.map_or(Some(prefix.from), |after| successor(after.bytes)).unwrap_or([u8::MAX; 32]);
        let facts = self.facts_of(prefix.domain, prefix.family, from.max(prefix.from))?;
        Ok(facts.take_while(move |fact| fact.as_ref().map_or(true, |(key, _)| prefix.contains(key))))
    }
}

/// What can be asked of facts, whether as of an LSN or with what a commit changes.
pub(crate) trait Lookup {
    /// The domain in which is looked for what is not asked for by its key.
    fn domain(&self) -> DomainId;

    /// The value under a key, decoded.
    fn decode<T>(&self, key: &Key, decode: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>>;

    /// What is known under a blob's key.
    fn blob_by_key(&self, key: &Key) -> Result<Option<BlobFact>> {
        self.decode(key, BlobFact::decode)
    }

    /// What is known of the blob with a digest.
    fn blob(&self, digest: &Digest) -> Result<Option<BlobFact>> {
        let blob = self.blob_by_key(&Key::blob(self.domain(), digest))?;
        Ok(blob.filter(|blob| blob.algorithm == digest.algorithm()))
    }

    /// What is known of a segment: of what the domain has in it.
    fn segment(&self, id: FileId) -> Result<Option<SegmentFact>> {
        self.decode(&Key::segment(self.domain(), id), SegmentFact::decode)
    }
}

impl Lookup for Snapshot {
    fn domain(&self) -> DomainId {
        self.domain
    }

    fn decode<T>(&self, key: &Key, decode: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>> {
        self.look(key, decode)?.map(decoded).transpose()
    }
}

/// A decoded value, or the error that it can't be: a writer wrote it and its checksum holds, so it is of another
/// format.
pub(crate) fn decoded<T>(value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::Corrupt {
        file: std::path::PathBuf::from("runs"),
        offset: 0,
        damage: Damage::Invalid("fact"),
    })
}
