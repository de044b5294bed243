//! What was read of facts, to be recalled later.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::facts::{Key, NamesOf, Prefix, Reader, Value};
use crate::id::{DomainId, Lsn};
use crate::sync::lock;

/// What was read as of a moment.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The moment: all commits up to this one are in it.
    pub(crate) as_of: Lsn,
    facts: HashMap<Key, Option<Value>>,
    scans: HashMap<(Prefix, Option<Key>), Scanned>,
    /// How long the values are, in bytes.
    bytes: usize,
}

/// The facts that a scan found.
#[derive(Debug)]
struct Scanned {
    limit: usize,
    facts: Vec<(Key, Value)>,
}

impl Known {
    /// What was under a key, if that was read.
    pub(crate) fn get(&self, key: &Key) -> Option<&Option<Value>> {
        self.facts.get(key)
    }

    /// What a scan found, and whether that was all there was, if it was asked for as many facts.
    pub(crate) fn scan(&self, prefix: Prefix, after: Option<Key>, limit: usize) -> Option<(&[(Key, Value)], bool)> {
        let scanned = self.scans.get(&(prefix, after))?;
        let is_all = scanned.facts.len() < scanned.limit;
        (is_all || limit <= scanned.limit).then_some((&scanned.facts, is_all))
    }
}

/// Facts, with a note of what is read of them, up to so many bytes.
#[derive(Debug)]
pub(crate) struct Noting<'a> {
    facts: &'a dyn Reader,
    known: Mutex<Known>,
    limit: usize,
}

impl<'a> Noting<'a> {
    pub(crate) fn new(facts: &'a dyn Reader, as_of: Lsn, limit: usize) -> Self {
        Self { facts, known: Mutex::new(Known { as_of, ..Known::default() }), limit }
    }

    pub(crate) fn into_known(self) -> Known {
        self.known.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: impl FnOnce(&mut Known), bytes: usize) {
        let mut known = lock(&self.known);
        if known.bytes < self.limit {
            known.bytes += bytes;
            note(&mut known);
        }
    }
}

impl Reader for Noting<'_> {
    fn get(&self, key: &Key) -> Result<Option<Value>> {
        if let Some(known) = lock(&self.known).get(key) {
            return Ok(known.clone());
        }
        let value = self.facts.get(key)?;
        let bytes = value.as_ref().map_or(0, |value| value.as_bytes().len());
        self.note(|known| drop(known.facts.insert(*key, value.clone())), bytes);
        Ok(value)
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>> {
        let values = self.facts.get_many(keys)?;
        for (key, value) in keys.iter().zip(&values) {
            let bytes = value.as_ref().map_or(0, |value| value.as_bytes().len());
            self.note(|known| drop(known.facts.insert(*key, value.clone())), bytes);
        }
        Ok(values)
    }

    fn scan(&self, prefix: Prefix, after: Option<Key>, limit: usize) -> Result<Vec<(Key, Value)>> {
        let facts = self.facts.scan(prefix, after, limit)?;
        let bytes = facts.iter().map(|(_, value)| value.as_bytes().len()).sum();
        let scanned = Scanned { limit, facts: facts.clone() };
        self.note(|known| drop(known.scans.insert((prefix, after), scanned)), bytes);
        Ok(facts)
    }

    fn names(&self, of: NamesOf<'_>, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        self.facts.names(of, after, limit)
    }

    fn domains(&self) -> &[DomainId] {
        self.facts.domains()
    }

    fn lock_of(&self, domain: DomainId) -> Option<&Error> {
        self.facts.lock_of(domain)
    }

    fn invalid(&self, key: &Key) -> Error {
        self.facts.invalid(key)
    }
}
