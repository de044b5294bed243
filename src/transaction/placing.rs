//! Inputs of decisions other than stored facts: what only the log knows of a commit's place, and the changes of earlier
//! commits of the same group.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::envelope::KeyNumber;
use crate::error::{Error, Result};
use crate::facts::{Key, NamesOf, Prefix, Reader, SegmentKind, Value, overlaid};
use crate::id::{DomainId, FileId, Lsn};

/// Where a commit goes. A store that many nodes share has other places.
pub(crate) trait Placing: Debug + Send + Sync {
    /// The commit's position, of which the id of a repository that it creates is made.
    fn lsn(&self) -> Lsn;

    /// Where content that rides in the commit's record comes to lie: the file, where its frame begins there, and the
    /// number of the key that it is encrypted with; 0 for none.
    fn frame(&self) -> (FileId, u64, KeyNumber);

    /// What a file is to which content comes.
    fn kind(&self, file: FileId) -> SegmentKind {
        if file == self.frame().0 { SegmentKind::Log } else { SegmentKind::Sealed }
    }

    /// Whether a log file is needed, also if nothing lives in it that can be read.
    fn is_needed(&self, log: FileId) -> bool;
}

/// Facts that changed, over others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over<'a> {
    pub(crate) newer: &'a BTreeMap<Key, Option<Value>>,
    pub(crate) older: &'a dyn Reader,
}

impl Reader for Over<'_> {
    fn get(&self, key: &Key) -> Result<Option<Value>> {
        match self.newer.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.older.get(key),
        }
    }

    fn scan(&self, prefix: Prefix, after: Option<Key>, limit: usize) -> Result<Vec<(Key, Value)>> {
        scan_over(self.newer, self.older, prefix, after, limit)
    }

    fn names(&self, of: NamesOf<'_>, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        of.first_over(self.newer, self.older, after, limit)
    }

    fn domains(&self) -> &[DomainId] {
        self.older.domains()
    }

    fn lock_of(&self, domain: DomainId) -> Option<&Error> {
        self.older.lock_of(domain)
    }

    fn invalid(&self, key: &Key) -> Error {
        self.older.invalid(key)
    }
}

/// A scan of facts, of which `newer` hide older ones.
pub(super) fn scan_over(
    newer: &BTreeMap<Key, Option<Value>>,
    older: &dyn Reader,
    prefix: Prefix,
    after: Option<Key>,
    limit: usize,
) -> Result<Vec<(Key, Value)>> {
    let newer: BTreeMap<Key, Option<Value>> =
        prefix.range(newer, after).map(|(key, value)| (*key, value.clone())).collect();
    // Each of the newer ones may hide one of these.
    let older = older.scan(prefix, after, limit.saturating_add(newer.len()))?;
    Ok(overlaid(newer, older).take(limit).collect())
}
