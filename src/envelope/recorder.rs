//! Sees every (key, nonce) pair that is used, in tests: none may come twice.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use crate::sync::lock;
use crate::wire::first;

static ON: AtomicBool = AtomicBool::new(false);
static REPEATED: AtomicU64 = AtomicU64::new(0);
static SEEN: LazyLock<Mutex<HashSet<Pair>>> = LazyLock::new(Mutex::default);

/// What stands for a key, and a nonce.
type Pair = ([u8; 16], [u8; 12]);

/// Stands for a key, and does not tell it.
pub(crate) fn fingerprint(key: &[u8; 32]) -> [u8; 16] {
    let hash = blake3::derive_key("strongroom recorder of nonces", key);
    first(&hash)
}

pub(crate) fn note(key: [u8; 16], nonce: [u8; 12]) {
    if ON.load(Ordering::Relaxed) && !lock(&SEEN).insert((key, nonce)) {
        REPEATED.fetch_add(1, Ordering::Relaxed);
    }
}

/// From now on every pair is recorded, of all stores of this process.
pub(crate) fn start() {
    ON.store(true, Ordering::Relaxed);
}

/// How many pairs were seen, and how often one came again.
pub(crate) fn report() -> (u64, u64) {
    (lock(&SEEN).len() as u64, REPEATED.load(Ordering::Relaxed))
}
