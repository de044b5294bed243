//! Blocking work that waits for a permit and a thread, and runs, whether or not somebody polls for its result.
//!
//! A semaphore hands a permit to the future that waits longest, also where nobody polls that any more: a stream whose
//! client has stalled would hold it for good. So a future never waits for a permit itself. A task of the runtime's
//! does, which is polled until the work is done or the [`Call`] is dropped.

use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::task::{JoinError, JoinHandle};

use crate::aio::{AsyncStore, Held, Shared};
use crate::error::{Error, Result};

/// Work that waits for its turn, or runs. Dropping it takes back what has not begun; what has begun runs to its end.
#[derive(Debug)]
pub(super) struct Call<T, E>(JoinHandle<Option<Result<T, E>>>);

impl<T, E> Call<T, E> {
    pub(super) fn new(task: JoinHandle<Option<Result<T, E>>>) -> Self {
        Self(task)
    }
}

impl<T, E: From<Error>> Future for Call<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        Pin::new(&mut self.0).poll(cx).map(joined)
    }
}

impl<T, E> Drop for Call<T, E> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Work for a thread.
struct Job<W> {
    // In this order: the store is closed by the handle that is dropped last, off the runtime.
    work: W,
    held: Held,
    shared: Arc<Shared>,
}

impl<T, E, W> Job<W>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    W: FnOnce() -> Result<T, E> + Send + 'static,
{
    async fn wait(self, permits: Arc<Semaphore>) -> Result<T, E> {
        let permit = permits.acquire_owned().await.map_err(|_| Error::Closed)?;
        self.begin(permit)?.await
    }

    fn begin(self, permit: OwnedSemaphorePermit) -> Result<Call<T, E>> {
        let threads = Arc::clone(&self.shared.threads);
        threads.spawn(move || self.run(permit)).map(Call)
    }

    fn run(self, permit: OwnedSemaphorePermit) -> Result<T, E> {
        let Self { work, held, shared: _shared } = self;
        let result = work();
        // A holder of all permits knows that nothing else is at work.
        drop(held);
        drop(permit);
        result
    }
}

impl AsyncStore {
    /// Begins blocking work once there is a permit, also where the call is not polled.
    pub(super) fn begin<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<Call<T, E>> {
        let job = Job { work, held: self.held.clone(), shared: Arc::clone(&self.shared) };
        match Arc::clone(permits).try_acquire_owned() {
            Ok(permit) => job.begin(permit),
            Err(TryAcquireError::Closed) => Err(Error::Closed),
            Err(TryAcquireError::NoPermits) => {
                let runtime = Handle::try_current().map_err(|_| Error::Closed)?;
                let wait = job.wait(Arc::clone(permits));
                Ok(Call(runtime.spawn(async { Some(wait.await) })))
            }
        }
    }

    /// Runs blocking work once there is a permit.
    pub(super) async fn run<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        self.begin(permits, work)?.await
    }
}

/// The result of work that was given to a thread. There is none where the work was taken back, and it is cancelled
/// where the runtime shuts down before it begins.
pub(super) fn joined<T, E: From<Error>>(done: Result<Option<Result<T, E>>, JoinError>) -> Result<T, E> {
    match done.map_err(JoinError::try_into_panic) {
        Ok(Some(result)) => result,
        Err(Ok(panic)) => resume_unwind(panic),
        Ok(None) | Err(Err(_)) => Err(Error::Closed.into()),
    }
}
