//! Opening the view, rebuilding it, and writing the overlay to its backend.
//!
//! One thread, which [serves](Names::serve) the view, does all of it; in a store without threads, and when the thread
//! has ended, the calling thread does. The work is done in steps that each end within a [deadline](super::Deadlines),
//! and stops between two steps where the store is being closed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::envelope::Keys;
use crate::id::{DomainId, Lsn};
use crate::names::guard::{Guard, Missed};
use crate::names::place::{Place, directory};
use crate::names::watermark::{Trust, Watermark};
use crate::names::{Backend, Change, Changes, Failed, NameKind, Names, State, key};
use crate::sync::lock;

/// So many changes wait at most before they go to the backend.
const OVERLAY_MAX: usize = 4096;

/// How many bytes of names a rebuild sorts at a time before it writes them.
const BATCH: usize = 16 << 20;

/// So many changes are written in one call: some tenths of a second of sled's, in the worst case.
const WRITTEN_AT_ONCE: usize = 4096;

/// A backend that has no names yet.
pub(crate) struct Empty(Arc<Guard>);

impl Names {
    /// Opens what is in the directory, if that was not done, and gives the backend where it has to be [filled from the
    /// facts](Self::rebuild), as they are from now on. Opening sled takes tens of milliseconds, so this is not part of
    /// opening the store where a thread can do it.
    pub(crate) fn prepare(&self) -> Option<Empty> {
        let _opening = lock(&self.opening);
        let to_open = {
            let mut state = lock(&self.state);
            if state.suspended.is_some() {
                return None;
            }
            state.to_open.take()
        };
        if let Some((place, trust)) = to_open {
            let (keys, deadlines) = (self.keys.clone(), lock(&self.state).deadlines);
            let without: Vec<DomainId> = keys.get().locked().map(|(id, _)| id).collect();
            let known = without.clone();
            let opened = Guard::open(deadlines, move || open_or_create(&*place, trust.as_ref(), &known, &keys));
            let mut state = lock(&self.state);
            state.without = without;
            match opened {
                Ok((backend, _)) if state.suspended.is_some() => {
                    drop(state);
                    backend.close();
                    return None;
                }
                Ok((backend, is_trusted)) => {
                    state.backend = Arc::new(backend);
                    (state.ready, state.failed) = (is_trusted, !is_trusted);
                }
                Err(Missed::Late) => state.hung = true,
                Err(Missed::NoThread | Missed::Failed) => {}
            }
        }
        let state = lock(&self.state);
        (state.failed && state.suspended.is_none()).then(|| Empty(Arc::clone(&state.backend)))
    }

    /// From now on there are no answers, and what opens or rebuilds the view ends, until it is begun
    /// [anew](Self::restart): which names there are is about to change. Waits for nobody.
    pub(crate) fn suspend(&self) {
        let mut state = lock(&self.state);
        let old = state.let_go();
        state.to_open = None;
        state.suspended.get_or_insert(old);
    }

    /// Begins anew, in a directory or in memory: how names are kept has changed. What is in the directory is gone when
    /// this returns. Until the names were read from the facts again there are no answers.
    pub(crate) fn restart(&self, dir: Option<PathBuf>) {
        self.restart_at(dir.map(directory));
    }

    fn restart_at(&self, place: Option<Arc<dyn Place>>) {
        let _opening = lock(&self.opening);
        let (old, gone) = {
            let mut state = lock(&self.state);
            state.to_open = None;
            let current = state.let_go();
            (state.suspended.take().unwrap_or(current), std::mem::take(&mut state.overlay))
        };
        drop(gone); // the facts have them
        old.close();
        let is_removed = place.as_ref().is_none_or(|place| place.remove().is_ok());
        let mut state = lock(&self.state);
        state.hung |= old.has_hung();
        if is_removed && !state.hung {
            state.to_open = place.map(|place| (place, None));
        }
        state.raised = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Whether there is something to do: enough waits to go to the backend, or the view has to be rebuilt.
    pub(crate) fn due(&self) -> bool {
        let state = lock(&self.state);
        state.overlay.len() > OVERLAY_MAX || state.failed
    }

    /// Whether the view has to be rebuilt.
    pub(crate) fn needs_rebuild(&self) -> bool {
        lock(&self.state).failed
    }

    /// From now on, until what this gives is dropped, the thread that calls this does what is due, each time it has
    /// [waited](Self::wait). Without such a thread, callers do what they depend on.
    pub(crate) fn serve(&self) -> Serving<'_> {
        let mut state = lock(&self.state);
        (state.served, state.raised) = (true, true);
        Serving(self)
    }

    /// Tells the thread that serves the view that there is something to do.
    pub(crate) fn raise(&self) {
        lock(&self.state).raised = true;
        self.changed.notify_all();
    }

    /// As [`raise`](Self::raise), where there is.
    pub(crate) fn raise_if_due(&self) {
        if self.due() {
            self.raise();
        }
    }

    /// Has what waits moved to the backend, if that is due: by the thread that serves the view, or here, where none
    /// does.
    pub(crate) fn keep_up(&self) {
        let is_served = lock(&self.state).served;
        match self.due() {
            true if is_served => self.raise(),
            true => self.maintain(),
            false => {}
        }
    }

    /// Waits until there is something to do, at most for a time; `false` where the thread should end.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        let state = lock(&self.state);
        let is_idle = |state: &mut State| !state.raised && !self.stops();
        let waited = self.changed.wait_timeout_while(state, at_most, is_idle);
        waited.unwrap_or_else(PoisonError::into_inner).0.raised = false;
        !self.stops()
    }

    /// Ends the thread, and what is under way on it: soon, and at the latest when the deadline of a call has come.
    pub(crate) fn stop(&self) {
        let state = lock(&self.state);
        self.stopped.store(true, Ordering::Release);
        drop(state);
        self.changed.notify_all();
    }

    fn stops(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Moves what waits to the backend.
    pub(crate) fn maintain(&self) {
        let is_due = {
            let state = lock(&self.state);
            !state.overlay.is_empty() || !state.in_flight.is_empty() || state.is_behind(state.wanted)
        };
        if is_due {
            self.flush_unless_busy(&|| !self.stops());
        }
    }

    /// Has the thread that serves the view make it [reach](Self::reach) an LSN, beside what the caller does.
    pub(crate) fn reach_soon(&self, lsn: Lsn) {
        let mut state = lock(&self.state);
        state.lsn = state.lsn.max(lsn);
        (state.wanted, state.raised) = (state.wanted.max(lsn), true);
        drop(state);
        self.changed.notify_all();
    }

    /// Makes the backend, and its watermark, reach an LSN up to which all commits were [applied](Self::apply): before
    /// the log can no longer replay those. Where that takes long, or the view has no answers, it is given up: if the
    /// process is killed then, the watermark is not within what the log replays, and the view is rebuilt.
    pub(crate) fn reach(&self, lsn: Lsn) {
        self.reach_soon(lsn);
        let state = lock(&self.state);
        if !state.is_behind(lsn) {
            return;
        }
        if !state.served {
            drop(state);
            return self.flush_for_a_while();
        }
        let is_awaited = |state: &mut State| state.served && !state.late && state.is_behind(lsn);
        let deadline = state.deadlines.reach;
        let waited = self.changed.wait_timeout_while(state, deadline, is_awaited);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.late = state.is_behind(lsn); // the next one does not wait again for the same
    }

    /// Fills the backend with all names there were at some moment since it was given out. Changes applied since then
    /// win. Ends early where the store is being closed, or another backend has taken its place.
    ///
    /// # Errors
    /// The first of `names`: facts are damaged. The view then has no answers until the next opening tries again.
    pub(crate) fn rebuild<E>(
        &self,
        Empty(backend): Empty,
        names: impl IntoIterator<Item = Result<(DomainId, NameKind, String), E>>,
    ) -> Result<(), E> {
        let writer = lock(&self.writer);
        let goes_on = || !self.stops() && lock(&self.state).is_current(&backend);
        let mut names = names.into_iter().peekable();
        while names.peek().is_some() {
            let (mut batch, mut bytes) = (Changes::new(), 0);
            while bytes < BATCH
                && !self.stops()
                && let Some(name) = names.next()
            {
                let (domain, kind, name) = name.inspect_err(|_| self.give_up(&backend))?;
                bytes += name.len() + 64;
                batch.insert(key(domain, kind, &name), Change::Set);
            }
            match write(&backend, &batch, None, &goes_on) {
                Ok(true) if goes_on() => {}
                Ok(_) => return Ok(()),
                Err(Failed) => {
                    // Again, in memory: the names already taken from the iterator are asked for again by the caller.
                    self.fail(&backend);
                    return Ok(());
                }
            }
        }
        let mut state = lock(&self.state);
        if !state.is_current(&backend) {
            return Ok(());
        }
        (state.ready, state.failed) = (true, false);
        drop(state);
        self.flush(&writer, &|| !self.stops());
        Ok(())
    }

    /// Moves what waits to the backend and lets it write it out, as far as that goes within the deadlines. No commit
    /// comes any more; `last` was the last.
    pub(crate) fn close(&self, last: Lsn) {
        let backend = {
            let mut state = lock(&self.state);
            state.lsn = state.lsn.max(last); // also where no name changed: what the last session wrote is trusted
            Arc::clone(&state.backend)
        };
        if lock(&self.state).is_behind(last) {
            self.flush_for_a_while();
        }
        backend.close();
    }

    /// For stores without a thread for it.
    fn flush_for_a_while(&self) {
        let end = Instant::now() + lock(&self.state).deadlines.call;
        self.flush_unless_busy(&|| Instant::now() < end);
    }

    /// Nobody waits for a rebuild, or for a batch that somebody else writes.
    fn flush_unless_busy(&self, goes_on: &dyn Fn() -> bool) {
        if let Ok(writer) = self.writer.try_lock() {
            self.flush(&writer, goes_on);
        }
    }

    /// Writes what waits, and how far that reaches.
    fn flush(&self, _writer: &MutexGuard<'_, ()>, goes_on: &dyn Fn() -> bool) {
        let (backend, changes, reached) = {
            let mut state = lock(&self.state);
            if !state.ready {
                return;
            }
            // What is in flight still, an earlier one was told to leave.
            let waiting = std::mem::take(&mut state.overlay);
            Arc::make_mut(&mut state.in_flight).extend(waiting);
            (Arc::clone(&state.backend), Arc::clone(&state.in_flight), (state.lsn, state.without.clone()))
        };
        let (lsn, without) = reached;
        let watermark = Watermark { lsn, without, ..self.identity.clone() }.encode();
        match write(&backend, &changes, Some(watermark), goes_on) {
            Ok(true) => {}
            Ok(false) => return,
            Err(Failed) => return self.fail(&backend),
        }
        let mut state = lock(&self.state);
        if !state.is_current(&backend) {
            return;
        }
        let done = std::mem::take(&mut state.in_flight);
        (state.written, state.late) = (lsn, false);
        drop(state);
        drop((done, changes)); // many, perhaps: commits do not wait for that
        self.changed.notify_all();
    }

    /// Goes on in memory, where a rebuild has to bring the names, unless that was done since `backend` was in use.
    pub(super) fn fail(&self, backend: &Arc<Guard>) {
        let mut state = lock(&self.state);
        if state.is_current(backend) {
            state.let_go();
            state.hung |= backend.has_hung();
            state.raised = true;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Has no answers until the next opening.
    fn give_up(&self, backend: &Arc<Guard>) {
        let mut state = lock(&self.state);
        if state.is_current(backend) {
            state.failed = false;
            state.overlay.clear();
        }
    }
}

/// That a thread serves the view.
#[must_use = "dropping it ends the service"]
pub(crate) struct Serving<'a>(&'a Names);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).served = false;
        self.0.changed.notify_all();
    }
}

/// Writes changes, and the watermark with the last of them; `false` where it was told to stop before.
fn write(
    backend: &Guard,
    changes: &Changes,
    watermark: Option<Vec<u8>>,
    goes_on: &dyn Fn() -> bool,
) -> Result<bool, Failed> {
    let mut left = changes.iter().peekable();
    loop {
        let some = left.by_ref().take(WRITTEN_AT_ONCE).map(|(key, change)| (key.clone(), *change)).collect();
        if left.peek().is_none() {
            return backend.write(some, watermark).map(|()| true);
        }
        backend.write(some, None)?;
        if !goes_on() {
            return Ok(false);
        }
    }
}

/// Opens what is there, if it can be trusted, or begins anew; and says which. What panics can't be trusted.
fn open_or_create(
    place: &dyn Place,
    trust: Option<&Trust>,
    locked: &[DomainId],
    keys: &Keys,
) -> Result<(Arc<dyn Backend>, bool), Failed> {
    let trusted = trust.map_or(Ok(None), |trust| {
        catch_unwind(AssertUnwindSafe(|| open_trusted(place, trust, locked, keys))).unwrap_or(Ok(None))
    });
    match trusted? {
        Some(backend) => Ok((backend, true)),
        None => Ok((place.create(keys)?, false)),
    }
}

fn open_trusted(
    place: &dyn Place,
    trust: &Trust,
    locked: &[DomainId],
    keys: &Keys,
) -> Result<Option<Arc<dyn Backend>>, Failed> {
    let Some(backend) = place.open(keys)? else { return Ok(None) };
    let watermark = backend.watermark().ok().flatten().and_then(|bytes| Watermark::parse(&bytes));
    if watermark.is_some_and(|watermark| watermark.is_trusted(trust, locked)) {
        return Ok(Some(backend));
    }
    backend.close();
    Ok(None)
}
