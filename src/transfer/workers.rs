//! Many files at a time: those that wait for the disk share its syncs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;

use crate::sync::lock;
use crate::transfer::error::TransferError;

/// So many files are stored at a time.
const WORKERS: usize = 16;

/// Works in [`WORKERS`] threads, or in as many as there may be. Once one of them fails, the others are told to stop.
pub(crate) fn at_once<T: Send>(
    thread: impl Fn() -> Builder,
    work: impl Fn(&AtomicBool) -> Result<Vec<T>, TransferError> + Sync,
) -> Result<Vec<T>, TransferError> {
    let (stop, failure) = (AtomicBool::new(false), Mutex::new(None));
    let work = || {
        work(&stop).unwrap_or_else(|error| {
            stop.store(true, Ordering::Relaxed);
            if let Ok(mut first) = failure.lock() {
                first.get_or_insert(error);
            }
            Vec::new()
        })
    };
    let done = std::thread::scope(|scope| {
        let more: Vec<_> = (1..WORKERS).map_while(|_| thread().spawn_scoped(scope, work).ok()).collect();
        let mut done = work();
        for worker in more {
            done.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    failure.into_inner().ok().flatten().map_or(Ok(done), Err)
}

/// Does something with each of many, in as many threads.
pub(crate) fn for_each<T: Send>(
    items: Vec<T>,
    work: impl Fn(T, &AtomicBool) -> Result<(), TransferError> + Sync,
) -> Result<(), TransferError> {
    if items.is_empty() {
        return Ok(());
    }
    let left = Mutex::new(items.into_iter());
    let next = || lock(&left).next();
    let done = at_once(Builder::new, |stop| {
        while !stop.load(Ordering::Relaxed)
            && let Some(item) = next()
        {
            work(item, stop)?;
        }
        Ok(Vec::<()>::new())
    });
    done.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(problem: &'static str) -> TransferError {
        TransferError::NotAnImport { problem }
    }

    #[test]
    fn work_is_done_also_where_there_may_be_no_more_threads() {
        let left = Mutex::new(0..100);
        let work = |_: &AtomicBool| Ok(std::iter::from_fn(|| left.lock().unwrap().next()).collect());
        let too_large = || Builder::new().stack_size(1 << 60);
        assert_eq!(at_once(too_large, work).unwrap(), Vec::from_iter(0..100));
    }

    #[test]
    fn the_first_failure_is_told_and_stops_what_is_read_meanwhile() {
        let number = Mutex::new(0..);
        let work = |stop: &AtomicBool| {
            if number.lock().unwrap().next() == Some(0) {
                return Err(failed("the first"));
            }
            // It ends because it is told to.
            while !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Err::<Vec<()>, _>(failed("a later one"))
        };
        assert_eq!(at_once(Builder::new, work).unwrap_err().to_string(), "the first");
    }
}
