//! The only module that starts threads, and lends what they keep.
//!
//! That may fail at any time, because of a limit of the user, the control group or the machine, and each caller handles
//! it: content is hashed, verified and decrypted on the caller's own thread; opening a store, or a call of an async
//! program, fails with what was short; the view of names is opened later, and until then the facts are read.

use std::cell::RefCell;
use std::io;
use std::thread::{Builder, JoinHandle, LocalKey, Scope, ScopedJoinHandle};

/// Lends what a thread keeps from call to call. In a thread's last moments, when destructors run, it may be gone: then
/// the call gets a new one.
pub(crate) fn lend<T: Default, R>(kept: &'static LocalKey<RefCell<T>>, work: impl FnOnce(&mut T) -> R) -> R {
    let mut lent = kept.try_with(RefCell::take).unwrap_or_default();
    let result = work(&mut lent);
    let _ = kept.try_with(|kept| kept.replace(lent)); // gone: no later call needs it
    result
}

/// Starts a thread.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    allowed()?;
    Builder::new().name(name.to_owned()).spawn(run)
}

/// Starts a thread that ends within a scope.
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    allowed()?;
    Builder::new().name(name.to_owned()).spawn_scoped(scope, run)
}

/// Does work here and, where a thread can be had, there too. Each takes a part of it as long as there is one.
///
/// # Errors
/// One of those that the work ends with.
pub(crate) fn side_by_side<E: Send>(name: &str, work: impl Fn() -> Result<(), E> + Sync) -> Result<(), E> {
    std::thread::scope(|scope| {
        let other = spawn_scoped(scope, name, &work).ok();
        let own = work();
        let others =
            other.map_or(Ok(()), |other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        own.and(others)
    })
}

/// Finds out whether so many threads can be started at the same time, by starting them: for code of others that does
/// not bear it if they can't.
#[cfg(any(test, feature = "tokio"))]
pub(crate) fn check_room(count: usize) -> io::Result<()> {
    let started = std::sync::Mutex::new(());
    std::thread::scope(|scope| {
        let _not_all = crate::sync::lock(&started); // they wait for it until all of them are there, or one is not
        (0..count)
            .try_for_each(|_| spawn_scoped(scope, "strongroom-room", || drop(crate::sync::lock(&started))).map(drop))
    })
}

#[cfg(not(any(test, feature = "simulation")))]
fn allowed() -> io::Result<()> {
    Ok(())
}

#[cfg(any(test, feature = "simulation"))]
use limited::allowed;
#[cfg(any(test, feature = "simulation"))]
pub use limited::limit_threads;

#[cfg(any(test, feature = "simulation"))]
mod limited {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// How many more threads the engine can start from the current one, for tests; none: as many as it likes. No stable
    /// API.
    pub fn limit_threads(left: Option<usize>) {
        LEFT.set(left);
    }

    pub(super) fn allowed() -> io::Result<()> {
        match LEFT.get() {
            Some(0) => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            left => {
                LEFT.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_threads_is_found_by_starting_them() {
        check_room(20).unwrap();
        limit_threads(Some(5));
        assert_eq!(check_room(6).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        limit_threads(None);
    }
}
