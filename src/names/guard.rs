//! Calls of a backend on threads of its own, each with a deadline.
//!
//! ```text
//!  open, flush, rebuild, close ──► a lane of one thread ────┐
//!                                                           ├──► backend
//!  lists of names ───────────────► a lane of four threads ──┘
//! ```
//!
//! sled may fail, panic, or never return. A call through a guard returns after the deadline at the latest: a call that
//! hangs is abandoned on its thread, together with the backend, which is not used again.
//!
//! Reads do not wait for writes, which have another lane. A read without an answer for a while, although nothing is
//! known to have hung, is *late*: the facts are read instead, and the view stays as it is.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::names::memory::MemoryBackend;
use crate::names::{Backend, Change, Deadlines, Failed, KeyList, KeyRange};
use crate::sync::lock;
use crate::thread;

/// How many lists of names are read at a time.
const READERS: usize = 4;

/// A backend, and the threads that call it; none for one in memory, which neither hangs nor panics.
pub(super) struct Guard {
    /// Taken when this is dropped.
    backend: Option<Arc<dyn Backend>>,
    lanes: Option<Lanes>,
    deadlines: Deadlines,
    hung: AtomicBool,
}

struct Lanes {
    writer: Lane,
    readers: Lane,
}

impl Guard {
    pub(super) fn in_memory(deadlines: Deadlines) -> Self {
        let backend = Arc::new(MemoryBackend::default());
        Self { backend: Some(backend), lanes: None, deadlines, hung: AtomicBool::new(false) }
    }

    /// Guards what `open` opens, on a thread of its own. Beside it comes what `open` has to say.
    pub(super) fn open<T: Send + 'static>(
        deadlines: Deadlines,
        open: impl FnOnce() -> Result<(Arc<dyn Backend>, T), Failed> + Send + 'static,
    ) -> Result<(Self, T), Missed> {
        let lanes = Lanes { writer: Lane::new(1), readers: Lane::new(READERS) };
        let (backend, said) = lanes.writer.call(deadlines.open, open)?.map_err(|Failed| Missed::Failed)?;
        Ok((Self { backend: Some(backend), lanes: Some(lanes), deadlines, hung: AtomicBool::new(false) }, said))
    }

    /// Whether a call did not come back. Its thread may still touch the backend's files.
    pub(super) fn has_hung(&self) -> bool {
        self.hung.load(Ordering::Acquire)
    }

    pub(super) fn write(&self, changes: Vec<(Vec<u8>, Change)>, watermark: Option<Vec<u8>>) -> Result<(), Failed> {
        self.call(move |backend| backend.write(&changes, watermark.as_deref()))?
    }

    /// The keys in each range; `None` where they are late.
    pub(super) fn keys_in(&self, ranges: Vec<KeyRange>) -> Result<Option<Vec<KeyList>>, Failed> {
        let backend = self.backend()?;
        let read = move || ranges.iter().map(|range| backend.keys_in(range)).collect::<Result<Vec<_>, Failed>>();
        let Some(Lanes { readers, .. }) = &self.lanes else { return read().map(Some) };
        match readers.call(self.deadlines.read, read) {
            Ok(keys) => keys.map(Some),
            Err(Missed::Late) if readers.longest() >= self.deadlines.call => Err(self.hangs()),
            Err(Missed::Late | Missed::NoThread) => Ok(None),
            Err(Missed::Failed) => Err(Failed),
        }
    }

    /// Lets the backend write out what waits, and give back its files, once no reader uses it any more.
    pub(super) fn close(&self) {
        let is_read = self.lanes.as_ref().is_some_and(|lanes| !lanes.readers.end_and_wait(self.deadlines.call));
        if is_read {
            self.hangs();
        }
        let _ = self.call(|backend| backend.close()); // what it loses is rebuilt
    }

    /// Calls the backend on the writer's thread, unless it has hung before.
    fn call<T: Send + 'static>(&self, work: impl FnOnce(&dyn Backend) -> T + Send + 'static) -> Result<T, Failed> {
        let backend = self.backend()?;
        let Some(Lanes { writer, .. }) = &self.lanes else { return Ok(work(&*backend)) };
        writer.call(self.deadlines.call, move || work(&*backend)).map_err(|missed| match missed {
            Missed::Late => self.hangs(),
            Missed::NoThread | Missed::Failed => Failed,
        })
    }

    fn backend(&self) -> Result<Arc<dyn Backend>, Failed> {
        self.backend.clone().filter(|_| !self.has_hung()).ok_or(Failed)
    }

    fn hangs(&self) -> Failed {
        self.hung.store(true, Ordering::Release);
        Failed
    }
}

impl Drop for Guard {
    /// The backend is dropped by its own threads: that writes, and may hang.
    fn drop(&mut self) {
        let backend = self.backend.take();
        if let Some(lanes) = &self.lanes {
            let _ = lanes.writer.push(Box::new(move || drop(backend))); // it takes this: it has not ended
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Missed {
    /// Not within the deadline.
    Late,
    /// There is no thread, and none could be started.
    NoThread,
    /// The call failed or panicked, or no more are taken.
    Failed,
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that do jobs in the order in which they come. They are started when there is something to do for them.
struct Lane {
    shared: Arc<Shared>,
    most: usize,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, Job)>,
    /// Since when the jobs run that do.
    running: BTreeMap<u64, Instant>,
    next: u64,
    threads: usize,
    /// Nothing is taken any more; what waits is done.
    ended: bool,
}

impl Lane {
    fn new(most: usize) -> Self {
        Self { shared: Arc::default(), most }
    }

    /// Does something on a thread of the lane, and waits for what comes of it.
    fn call<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Missed> {
        let (sender, receiver) = sync_channel(1);
        let number = self.push(Box::new(move || {
            let _ = sender.send(work()); // no caller waits after the deadline
        }))?;
        match receiver.recv_timeout(deadline) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Disconnected) => Err(Missed::Failed),
            Err(RecvTimeoutError::Timeout) => {
                lock(&self.shared.queue).waiting.retain(|(other, _)| *other != number);
                Err(Missed::Late)
            }
        }
    }

    /// Has something done, and gives it a number.
    fn push(&self, job: Job) -> Result<u64, Missed> {
        let mut queue = lock(&self.shared.queue);
        if queue.ended {
            return Err(Missed::Failed);
        }
        if queue.waiting.len() + queue.running.len() >= queue.threads && queue.threads < self.most {
            let shared = Arc::clone(&self.shared);
            queue.threads += usize::from(thread::spawn("strongroom-sled", move || serve(&shared)).is_ok());
        }
        if queue.threads == 0 {
            return Err(Missed::NoThread);
        }
        let number = queue.next;
        queue.next += 1;
        queue.waiting.push_back((number, job));
        drop(queue);
        self.shared.changed.notify_all();
        Ok(number)
    }

    /// For how long the oldest of the jobs runs.
    fn longest(&self) -> Duration {
        let queue = lock(&self.shared.queue);
        queue.running.first_key_value().map(|(_, since)| since.elapsed()).unwrap_or_default()
    }

    /// Takes no more jobs. The threads end when those are done that wait.
    fn end(&self) {
        lock(&self.shared.queue).ended = true;
        self.shared.changed.notify_all();
    }

    /// Takes no more jobs, and waits for those that there are; `false` where the deadline came before their end.
    fn end_and_wait(&self, deadline: Duration) -> bool {
        self.end();
        let is_busy = |queue: &mut Queue| !queue.waiting.is_empty() || !queue.running.is_empty();
        let queue = lock(&self.shared.queue);
        let waited = self.shared.changed.wait_timeout_while(queue, deadline, is_busy);
        !is_busy(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.end();
    }
}

/// A thread of a lane.
fn serve(shared: &Shared) {
    let mut queue = lock(&shared.queue);
    loop {
        if let Some((number, job)) = queue.waiting.pop_front() {
            queue.running.insert(number, Instant::now());
            drop(queue);
            let _ = catch_unwind(AssertUnwindSafe(job)); // a caller that waits for the job learns of it by its end
            queue = lock(&shared.queue);
            queue.running.remove(&number);
            if queue.ended {
                shared.changed.notify_all();
            }
        } else if queue.ended {
            return;
        } else {
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
