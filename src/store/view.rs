//! What a reader sees: the facts as of one LSN.

use std::sync::Arc;

use crate::digest::Digest;
use crate::error::{Damage, Error, Result};
use crate::facts::memtable::Memtable;
use crate::facts::{BlobFact, Fact, Family, Key, Prefix, SegmentFact, Value, successor};
use crate::id::{FileId, Lsn};
use crate::runs::{Merge, Run, Source};

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
}

/// A view at an LSN.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) view: Arc<View>,
    pub(crate) lsn: Lsn,
}

impl Snapshot {
    /// What `look` makes of the value under a key.
    pub(crate) fn look<T>(&self, key: &Key, look: impl Fn(&[u8]) -> T) -> Result<Option<T>> {
        for table in std::iter::once(&self.view.active).chain(&self.view.frozen) {
            if let Some(found) = table.get(key, self.lsn, &look) {
                return Ok(found);
            }
        }
        for run in &self.view.runs {
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

    /// The facts of a family in the order of their keys, from one on.
    pub(crate) fn facts(
        &self,
        family: Family,
        from: [u8; 32],
    ) -> Result<impl Iterator<Item = Result<(Key, Value)>> + '_> {
        let tables = std::iter::once(&self.view.active).chain(&self.view.frozen);
        let mut sources: Vec<Source<'_>> = Vec::new();
        for table in tables {
            sources.push(Box::new(table.range(family, from, self.lsn).map(Ok)));
        }
        for run in &self.view.runs {
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
        let facts = self.facts(prefix.family, from.max(prefix.from))?;
        Ok(facts.take_while(move |fact| fact.as_ref().map_or(true, |(key, _)| prefix.contains(key))))
    }
}

/// What can be asked of facts, whether as of an LSN or with what a commit changes.
pub(crate) trait Lookup {
    /// The value under a key, decoded.
    fn decode<T>(&self, key: &Key, decode: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>>;

    /// What is known under a blob's key.
    fn blob_by_key(&self, key: &Key) -> Result<Option<BlobFact>> {
        self.decode(key, BlobFact::decode)
    }

    /// What is known of the blob with a digest.
    fn blob(&self, digest: &Digest) -> Result<Option<BlobFact>> {
        let blob = self.blob_by_key(&Key::blob(digest))?;
        Ok(blob.filter(|blob| blob.algorithm == digest.algorithm()))
    }

    /// What is known of a segment.
    fn segment(&self, id: FileId) -> Result<Option<SegmentFact>> {
        self.decode(&Key::segment(id), SegmentFact::decode)
    }
}

impl Lookup for Snapshot {
    fn decode<T>(&self, key: &Key, decode: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>> {
        self.look(key, decode)?.map(decoded).transpose()
    }
}

/// A decoded value, or the error that it can't be: a writer wrote it and its checksum holds, so it is of another format.
pub(crate) fn decoded<T>(value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::Corrupt {
        file: std::path::PathBuf::from("runs"),
        offset: 0,
        damage: Damage::Invalid("fact"),
    })
}
