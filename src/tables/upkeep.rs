//! Requests for maintenance, and waiting for it.

use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sync::lock;

/// Tells a thread that there is work, or that it should end.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    due: bool,
    stop: bool,
}

impl Signal {
    pub(crate) fn raise(&self) {
        lock(&self.state).due = true;
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        lock(&self.state).stop = true;
        self.changed.notify_all();
    }

    pub(crate) fn stopped(&self) -> bool {
        lock(&self.state).stop
    }

    /// Waits until there is work, at most for a time; `false` where the thread should end.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        let state = lock(&self.state);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, at_most, |state| !state.due && !state.stop)
            .unwrap_or_else(PoisonError::into_inner);
        state.due = false;
        !state.stop
    }
}

/// What does maintenance where there is no thread for it.
type Work = Box<dyn Fn() + Send + Sync>;

/// Where the rooms below the one that does maintenance request it, and wait for it.
#[derive(Default)]
pub(crate) struct Upkeep {
    signal: Signal,
    /// Set where the thread that makes maintenance due does it.
    inline: OnceLock<Work>,
    /// The last failure, for callers that wait.
    failure: Mutex<Option<Error>>,
    /// Why the last round failed.
    last: Mutex<Option<Error>>,
    progress: Condvar,
}

impl std::fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upkeep").field("signal", &self.signal).finish_non_exhaustive()
    }
}

impl Upkeep {
    /// Has maintenance done in the calls that make it due.
    pub(crate) fn do_inline(&self, work: Work) {
        let _ = self.inline.set(work); // set once, at opening
    }

    pub(crate) fn is_inline(&self) -> bool {
        self.inline.get().is_some()
    }

    /// Called after each commit: has maintenance done if it is due.
    pub(crate) fn committed(&self, is_due: impl FnOnce() -> bool) {
        match self.inline.get() {
            Some(work) => work(),
            None if is_due() => self.signal.raise(),
            None => {}
        }
    }

    /// Wakes the thread, if there is one: for callers that do not commit, and so should not do the work themselves.
    pub(crate) fn wake(&self) {
        self.signal.raise();
    }

    /// The store is being closed: its thread should end.
    pub(crate) fn stop(&self) {
        self.signal.stop();
    }

    /// Whether maintenance should leave what it is at to the next opening.
    pub(crate) fn stops(&self) -> bool {
        !self.is_inline() && self.signal.stopped()
    }

    /// Whether the store is being closed.
    pub(crate) fn closes(&self) -> bool {
        self.signal.stopped()
    }

    /// Waits until there is work, at most for a time; `false` where the thread should end.
    pub(crate) fn wait_for_work(&self, at_most: Duration) -> bool {
        self.signal.wait(at_most)
    }

    /// Remembers whether a round of maintenance failed, whoever did it.
    pub(crate) fn note(&self, result: &Result<()>) {
        *lock(&self.last) = result.as_ref().err().cloned();
    }

    /// Why the last round of maintenance failed, if it did.
    pub(crate) fn last_failure(&self) -> Option<Error> {
        lock(&self.last).clone()
    }

    /// A round of maintenance has ended.
    pub(crate) fn ended(&self, result: Result<()>) {
        *lock(&self.failure) = result.err();
        self.progress.notify_all();
    }

    /// A step of maintenance was made.
    pub(crate) fn progressed(&self) {
        self.progress.notify_all();
    }

    /// Waits until `is_met`, while the thread works towards it.
    ///
    /// # Errors
    /// What keeps maintenance from it, and what `check` says.
    pub(crate) fn wait_until(&self, is_met: impl Fn() -> bool, check: impl Fn() -> Result<()>) -> Result<()> {
        if self.is_inline() || is_met() {
            return Ok(());
        }
        self.signal.raise();
        let mut failure = lock(&self.failure);
        // While the store is being closed no room is made, and none is needed: closing folds what there is.
        while !is_met() && !self.stops() {
            if let Some(error) = failure.take() {
                return Err(error);
            }
            let waited = self.progress.wait_timeout(failure, Duration::from_millis(100));
            (failure, _) = waited.unwrap_or_else(PoisonError::into_inner);
            check()?;
        }
        Ok(())
    }
}
