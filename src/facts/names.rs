//! Names in order, read from facts, whose keys are hashes of names.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::facts::{Family, Key, NamedFact, Prefix, Reader, RepositoryFact, TagFact, Value};
use crate::id::{DomainId, RepositoryId};

/// How many facts are read at a time.
const BATCH: usize = 16 << 10;

/// Names that are listed in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamesOf<'a> {
    /// The named files of a domain whose names begin so.
    Named(DomainId, &'a str),
    /// The repositories of all domains that are not locked.
    Repositories,
    /// The tags of a repository.
    Tags(DomainId, RepositoryId),
}

impl NamesOf<'_> {
    /// Where the facts are that have the names.
    fn prefixes(self, facts: &dyn Reader) -> Vec<Prefix> {
        match self {
            Self::Named(domain, _) => vec![Prefix::all(domain, Family::Named)],
            Self::Repositories => {
                facts.domains().iter().map(|domain| Prefix::all(*domain, Family::Repository)).collect()
            }
            Self::Tags(domain, repository) => vec![Prefix::of(domain, Family::Tag, repository)],
        }
    }

    /// Whether a name is one of those, behind `after`.
    fn has(self, name: &str, after: Option<&str>) -> bool {
        let is_own = match self {
            Self::Named(_, prefix) => name.starts_with(prefix),
            Self::Repositories | Self::Tags(..) => true,
        };
        is_own && after.is_none_or(|after| name > after)
    }

    /// The name in such a fact.
    fn name_in(self, facts: &dyn Reader, key: &Key, value: &Value) -> Result<String> {
        let value = value.as_bytes();
        let name = match self {
            Self::Named(..) => NamedFact::decode(value).map(|file| file.name),
            Self::Repositories => RepositoryFact::decode(value).map(|repository| repository.name),
            Self::Tags(..) => TagFact::decode(value).map(|tag| tag.tag),
        };
        name.ok_or_else(|| facts.invalid(key))
    }

    /// The first names behind `after`, at most `limit`, for readers that do not have them in order: reads all facts
    /// that have such names.
    pub(crate) fn first(self, facts: &dyn Reader, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        let mut first = BTreeSet::new();
        for prefix in self.prefixes(facts) {
            let mut last = None;
            loop {
                let batch = facts.scan(prefix, last, BATCH)?;
                for (key, value) in &batch {
                    let name = self.name_in(facts, key, value)?;
                    if self.has(&name, after) {
                        first.insert(name);
                        if first.len() > limit {
                            first.pop_last();
                        }
                    }
                }
                last = batch.last().map(|(key, _)| *key);
                if batch.len() < BATCH {
                    break;
                }
            }
        }
        Ok(first.into_iter().collect())
    }

    /// The same where some facts have changed.
    pub(crate) fn first_over(
        self,
        newer: &BTreeMap<Key, Option<Value>>,
        older: &dyn Reader,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        let (mut names, mut removed) = (BTreeSet::new(), BTreeSet::new());
        for (key, value) in self.prefixes(older).into_iter().flat_map(|prefix| prefix.range(newer, None)) {
            match (value, older.get(key)?) {
                (Some(value), _) => drop(names.insert(self.name_in(older, key, value)?)),
                (None, Some(old)) => drop(removed.insert(self.name_in(older, key, &old)?)),
                (None, None) => {}
            }
        }
        // Each that was removed may be one of these.
        let others = older.names(self, after, limit.saturating_add(removed.len()))?;
        names.extend(others.into_iter().filter(|name| !removed.contains(name)));
        let behind = names.into_iter().filter(|name| self.has(name, after));
        Ok(behind.take(limit).collect())
    }
}
