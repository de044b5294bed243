//! Blocking work on the runtime's own threads, also where there may be no more of them.
//!
//! Where tokio has no thread for work and can't start one, it panics, and keeps the work in its queue all the same,
//! with all that it holds. So work is given to it only where one of its threads is known to take it: one that is at
//! work for this store, or was a moment ago and waits for more, or one for which there is room. Should it panic
//! nevertheless, the work is taken back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::sync::lock;
use crate::thread;

/// For so long a thread without work surely waits for more, in milliseconds: tokio's do for 10 seconds.
const WAITS: u64 = 1000;

/// What is known of the threads that work for a store.
#[derive(Debug)]
pub(super) struct Threads {
    began: Instant,
    working: AtomicUsize,
    /// When the last one ended its work, in milliseconds since the beginning; 0 before the first.
    ended: AtomicU64,
}

/// A thread at work.
struct Working(Arc<Threads>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.ended.store(self.0.now(), Ordering::Relaxed);
        self.0.working.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Threads {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), working: AtomicUsize::new(0), ended: AtomicU64::new(0) })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Fails where no thread would take work that is given to the runtime now.
    pub(super) fn check(&self) -> Result<()> {
        let ended = self.ended.load(Ordering::Relaxed);
        let waits = ended > 0 && self.now().saturating_sub(ended) < WAITS;
        if waits || self.working.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        // Two, since a thread that has ended may be counted for a moment longer.
        thread::check_room(2).map_err(none)
    }

    /// Gives work to a thread of the runtime.
    pub(super) fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Option<T>>> {
        let runtime = Handle::try_current().map_err(|_| Error::Closed)?;
        self.check()?;
        let threads = Arc::clone(self);
        let work = Arc::new(Mutex::new(Some(work)));
        let queued = Arc::clone(&work);
        let run = move || {
            let work = lock(&queued).take()?;
            threads.working.fetch_add(1, Ordering::Relaxed);
            let _working = Working(threads);
            Some(work())
        };
        // Somebody else may have taken the room meanwhile.
        catch_unwind(AssertUnwindSafe(|| runtime.spawn_blocking(run))).map_err(|_panic| {
            drop(lock(&work).take());
            none(std::io::Error::from_raw_os_error(libc::EAGAIN))
        })
    }
}

fn none(error: std::io::Error) -> Error {
    Error::io("start a thread of", std::path::Path::new("the runtime"))(error)
}
