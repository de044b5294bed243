//! Tables of a store that another process writes to.
//!
//! They move forward in steps: a step takes in the facts of the log that were read since the last one, and the list as
//! it is by then. Runs that are open stay open: a file that a merge removes is read to the end by those who have it.
//!
//! # Invariant kept here
//! A view, with an LSN that was read after it, shows whole commits only. Facts of later commits are put into the table
//! of the view of before, where nobody sees them yet; then the view changes, then the visible LSN. With the new view
//! and the LSN of before, a reader sees what was visible then or, where the new runs reach further, what those have:
//! all facts of the table are behind them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::envelope::Keyring;
use crate::error::Result;
use crate::facts::Fact;
use crate::id::Lsn;
use crate::sync::{lock, write};
use crate::tables::locked::Locked;
use crate::tables::memtable::Memtable;
use crate::tables::view::Runs;
use crate::tables::{RunId, RunList, Tables, View};

/// What a step brings.
#[derive(Debug)]
pub(crate) struct News<'a> {
    /// The list, where it is another than before.
    pub(crate) list: Option<RunList>,
    /// All facts that its runs do not have, where what was known before is not to be built upon.
    pub(crate) anew: Option<(Memtable, &'a Keyring)>,
    /// Facts of commits behind the visible one.
    pub(crate) facts: Vec<(Lsn, Fact)>,
}

impl Tables {
    /// Lets `catch_up` move the tables forward, since another process writes the store.
    pub(crate) fn follow_by(&self, catch_up: impl Fn() -> Result<bool> + Send + Sync + 'static) {
        let _ = self.catching_up.set(Box::new(catch_up));
    }

    /// Reads on where another process has written since, if one may have: for whoever finds that a file is gone, or
    /// is not what facts say. `false` where there is nothing newer, or it can't be read now.
    pub(crate) fn catch_up(&self) -> bool {
        self.catching_up.get().is_some_and(|catch_up| catch_up().unwrap_or(false))
    }

    /// Whether another process may write the store.
    pub(crate) fn is_following(&self) -> bool {
        self.catching_up.get().is_some()
    }

    /// Takes a step. The new facts are seen when an LSN [becomes visible](Self::set_visible).
    pub(crate) fn take_step(&self, news: News<'_>) -> Result<()> {
        let News { list, anew, facts } = news;
        let is_anew = anew.is_some();
        let runs = list.as_ref().map(|list| self.runs_of(list, is_anew)).transpose()?;
        let before = self.view();
        if !is_anew {
            facts.iter().for_each(|(lsn, fact)| before.active.insert(*lsn, fact.clone()));
        }
        let (Some(list), Some(runs)) = (list, runs) else { return Ok(()) };
        let mut view = View { runs: Arc::new(runs), folded: list.folded, ..View::clone(&before) };
        match anew {
            Some((table, keys)) => {
                facts.into_iter().for_each(|(lsn, fact)| table.insert(lsn, fact));
                view.active = Arc::new(table);
                (view.domains, view.locked) = (keys.active().collect(), Locked::new(keys, &list));
            }
            None if list.folded > before.folded => view.active = Arc::new(before.active.newer_than(list.folded)),
            None => {}
        }
        *self.view.write() = Arc::new(view);
        *write(&self.logs) = list.logs.as_slice().into();
        *lock(&self.list) = list;
        Ok(())
    }

    /// The runs that a list names and that can be read: those that are open, unless all are to be opened anew.
    fn runs_of(&self, list: &RunList, is_anew: bool) -> Result<Runs> {
        let (keys, before) = (self.files.keys(), self.view());
        let nothing = Runs::default();
        let known = if is_anew { &nothing } else { &*before.runs };
        let ids: HashSet<RunId> = known.all().map(|run| run.id()).collect();
        let new = list.runs.iter().filter(|meta| keys.is_open(meta.domain) && !ids.contains(&meta.id));
        Ok(known.listed(list, &self.open_all(new, &keys, known)?))
    }
}
