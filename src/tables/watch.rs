//! Waiting for commits: threads and tasks that want to know of the next one.
//!
//! # Invariant kept here
//! Whoever registers, and then finds that there is no commit yet, is woken by it: a commit is made visible before the
//! wakers are looked at, and a waker is there before the commit is looked for, with a fence on both sides.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::id::Lsn;
use crate::sync::lock;
use crate::tables::Tables;

/// How long is waited at most where another process writes the store, whose commits wake nobody: then it is time to
/// read on.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Who waits for the next commit.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// How many there are, so that a commit for which nobody waits costs a fence.
    waiting: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    wakers: Vec<(u64, Waker)>,
}

impl Watch {
    /// Wakes all who wait.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let woken = {
            let mut state = lock(&self.state);
            self.waiting.store(0, Ordering::Relaxed);
            std::mem::take(&mut state.wakers)
        };
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn set(&self, id: u64, waker: Option<&Waker>) {
        let mut state = lock(&self.state);
        state.wakers.retain(|(other, _)| *other != id);
        state.wakers.extend(waker.map(|waker| (id, waker.clone())));
        self.waiting.store(state.wakers.len(), Ordering::Relaxed);
        drop(state);
        fence(Ordering::SeqCst);
    }
}

/// Somebody who waits for commits. Whoever drops it waits no more.
pub(crate) struct Watching {
    tables: Arc<Tables>,
    id: u64,
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watching({})", self.id)
    }
}

impl Watching {
    pub(crate) fn new(tables: &Arc<Tables>) -> Self {
        let mut state = lock(&tables.watch.state);
        state.next += 1;
        Self { tables: Arc::clone(tables), id: state.next }
    }

    /// Ready where a durable commit behind this one is visible, or the store is closed.
    pub(crate) fn poll_past(&self, after: Lsn, context: &Context<'_>) -> Poll<()> {
        self.tables.watch.set(self.id, Some(context.waker()));
        let last = self.tables.visible().min(self.tables.durable());
        if last > after || self.tables.files.check_open().is_err() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether another process writes the store: its commits are seen only by who reads on.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_following(&self) -> bool {
        self.tables.is_following()
    }

    /// Waits for that, in the calling thread, or until it is time to read on where another process writes the store;
    /// `false` where nothing of it has come by then.
    pub(crate) fn wait_past(&self, after: Lsn, until: Option<Instant>) -> bool {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let context = Context::from_waker(&waker);
        let again = self.tables.is_following().then(|| Instant::now() + LOOK_AGAIN);
        while self.poll_past(after, &context).is_pending() {
            let now = Instant::now();
            let has_come = |time: Option<Instant>| time.is_some_and(|time| time <= now);
            if has_come(until) || has_come(again) {
                return !has_come(until);
            }
            match until.into_iter().chain(again).min() {
                Some(next) => thread::park_timeout(next - now),
                None => thread::park(),
            }
        }
        true
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.tables.watch.set(self.id, None);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
