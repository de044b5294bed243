//! Locks that outlive a panic, and a hash for tables under them.
//!
//! The engine does not panic, but the caller's code that runs inside of it (a reader that is handed in, an allocator)
//! may. Every critical section leaves its data whole at each step, so a poisoned lock is used as it is.

use std::hash::Hasher;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read<T>(rwlock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    rwlock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(rwlock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    rwlock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A value under a lock that its holder can't have again before those who wait for it: a thread that wakes up is slower
/// than one that goes on, and would lose against it again and again.
#[derive(Debug)]
pub(crate) struct InTurn<T> {
    /// Held while the value is waited for.
    turn: Mutex<()>,
    value: Mutex<T>,
}

impl<T> InTurn<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { turn: Mutex::default(), value: Mutex::new(value) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let _turn = lock(&self.turn);
        lock(&self.value)
    }
}

/// A value that every look-up reads and that is replaced now and then: its readers do not take turns at the lock's line
/// of the cache, as those of an `RwLock` do; who replaces it takes several locks.
#[derive(Debug)]
pub(crate) struct OftenRead<T>(ShardedLock<T>);

impl<T> OftenRead<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(ShardedLock::new(value))
    }

    pub(crate) fn read(&self) -> ShardedLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> ShardedLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ids count up: their last bits, spread over all, are as good a hash as any.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Lets a room be printed by its name: what it holds, and what keys have decrypted, is not for logs.
macro_rules! print_by_name {
    ($room:ident) => {
        impl std::fmt::Debug for $room {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($room))
            }
        }
    };
}

pub(crate) use print_by_name;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_lock_has_it_before_its_holder_has_it_again() {
        let value = InTurn::new(0);
        std::thread::scope(|scope| {
            for round in 1..100 {
                let held = value.lock();
                let waiting = scope.spawn(|| *value.lock() += 1);
                while value.turn.try_lock().is_ok() {
                    std::thread::yield_now();
                }
                drop(held);
                assert_eq!(*value.lock(), round);
                waiting.join().unwrap();
            }
        });
    }
}
