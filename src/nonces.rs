//! Reports every nonce that is used, for tests. No stable API.

use crate::envelope::recorder;

/// From now on every pair of key and nonce is recorded, of all stores of this process.
pub fn record() {
    recorder::start();
}

/// How many pairs were seen, and how often one came again.
pub fn recorded() -> (u64, u64) {
    recorder::report()
}
