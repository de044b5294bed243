//! Maintenance: folding, merging and removing what is no longer needed, in the background or by the thread whose commit
//! makes it due. (Names have a [thread](super::names) of their own.)

use std::time::Duration;

use crate::error::Result;
use crate::store::{Inner, Store};

impl Inner {
    /// Does what is due: called after each commit where there is no thread for it.
    pub(super) fn maintain_if_due(&self) {
        if self.tables.is_fold_due() || self.names.due() || self.registry.is_due() {
            let _ = self.maintain(); // it failed for a reason that the next commit meets too, or was poisoned by
        }
    }

    /// Does all maintenance that is due. A step that fails does not keep the others from being done.
    pub(super) fn maintain(&self) -> Result<()> {
        let pending = self.registry.do_pending(); // it tries again, and whoever collects is told why
        let folded = self.tables.fold_and_merge(&*self.log);
        let dropped = self.log.drop_dead_logs();
        self.files.remove_discarded();
        if self.upkeep.is_inline() {
            self.keep_names();
        }
        let reserved = self.files.restore_reserve();
        let done = folded.and(dropped).and(reserved);
        self.upkeep.note(&done.clone().and(pending));
        done
    }

    /// Folds all facts into runs, and does what else is due.
    pub(super) fn checkpoint(&self) -> Result<()> {
        self.files.check_writable()?;
        self.tables.freeze(&*self.log);
        self.maintain()
    }
}

/// The maintenance thread: works when told to, and now and then, for what failed before.
pub(super) fn run_thread(inner: &Inner) {
    inner.upkeep.wake(); // what an earlier opening left
    while inner.upkeep.wait_for_work(Duration::from_secs(1)) {
        // A full disk is the usual reason for a failure; the next commit that finds something due tries again, or the
        // next second.
        inner.upkeep.ended(inner.maintain());
    }
}

impl Store {
    /// Merges all runs into one (of each key domain), so that a look-up has one place to look. Maintenance keeps them
    /// few by itself; this is for after a large import.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn merge_runs(&self) -> Result<()> {
        self.checkpoint()?;
        let inner = self.inner()?;
        inner.tables.merge_all(&*inner.log, |_, runs| runs.len() > 1)?.all()
    }

    /// Folds all facts into runs now, so that the next opening has nothing to replay. Maintenance does so by itself
    /// when enough has come together.
    ///
    /// # Errors
    /// [`Error::Full`](crate::Error::Full) where there is no space for the run: nothing is lost by it.
    pub fn checkpoint(&self) -> Result<()> {
        self.inner()?.checkpoint()
    }
}
