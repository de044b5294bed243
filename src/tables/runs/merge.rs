//! Merging sorted sources of facts: what is newer hides what is older.

use std::iter::Peekable;
use std::sync::Arc;

use crate::error::Result;
use crate::facts::{Fact, Family, Value};
use crate::tables::{Run, RunWriter};

/// Facts in the order of their keys.
pub(crate) type Source<'a> = Box<dyn Iterator<Item = Result<Fact>> + 'a>;

/// Merges sources, given newest first. Ends with the first error.
pub(crate) struct Merge<'a> {
    sources: Vec<Peekable<Source<'a>>>,
    failed: bool,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(sources: Vec<Source<'a>>) -> Self {
        Self { sources: sources.into_iter().map(Iterator::peekable).collect(), failed: false }
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<Fact>;

    fn next(&mut self) -> Option<Result<Fact>> {
        if self.failed {
            return None;
        }
        let mut least = None;
        for source in &mut self.sources {
            match source.peek() {
                Some(Ok((key, _))) => least = Some(least.map_or(*key, |least| *key.min(&least))),
                Some(Err(_)) => {
                    self.failed = true;
                    return source.next();
                }
                None => {}
            }
        }
        let least = least?;
        let mut newest = None;
        for source in &mut self.sources {
            if matches!(source.peek(), Some(Ok((key, _))) if *key == least) {
                let fact = source.next();
                newest = newest.or(fact);
            }
        }
        newest
    }
}

/// Merges runs into one, in steps.
pub(crate) struct MergeJob<'a> {
    families: Vec<Merge<'a>>,
    drop_tombstones: bool,
}

impl<'a> MergeJob<'a> {
    /// A merge of runs of one domain, given newest first. Tombstones are needed unless the domain's oldest run is among
    /// them.
    pub(crate) fn new(runs: &'a [Arc<Run>], drop_tombstones: bool) -> Self {
        let merge = |family: Family| {
            Merge::new(runs.iter().map(|run| -> Source<'a> { Box::new(run.iter(family, [0; 32])) }).collect())
        };
        Self { families: Family::ALL.into_iter().rev().map(merge).collect(), drop_tombstones }
    }

    /// Moves up to `most` facts to the writer; `true` when there are no more.
    pub(crate) fn step(&mut self, writer: &mut RunWriter<'_>, most: usize) -> Result<bool> {
        let mut moved = 0;
        while let Some(family) = self.families.last_mut() {
            let Some(fact) = family.next() else {
                self.families.pop();
                continue;
            };
            let (key, value) = fact?;
            if value.is_some() || !self.drop_tombstones {
                writer.push(&key, value.as_ref().map(Value::as_bytes))?;
            }
            moved += 1;
            if moved == most {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
