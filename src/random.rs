//! Random bytes from the operating system: ids, salts, data keys.

use std::path::Path;

use crate::error::{Error, Result};

#[cfg(test)]
thread_local! {
    /// For formats that are to be compared byte for byte: what is drawn by this thread is always the same.
    pub(crate) static NOT_RANDOM: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Random numbers from a seed (SplitMix64), for tests.
#[cfg(test)]
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

#[cfg(test)]
impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    #[cfg(test)]
    if NOT_RANDOM.get() {
        return Ok([0x11; N]);
    }
    let failed = |error: getrandom::Error| std::io::Error::other(error.to_string());
    getrandom::fill(&mut bytes).map_err(|error| Error::io("draw random bytes for", Path::new("ids"))(failed(error)))?;
    Ok(bytes)
}
