//! Random bytes from the operating system: ids, salts, data keys.

use std::path::Path;

use crate::error::{Error, Result};

#[cfg(test)]
thread_local! {
    /// For formats that are to be compared byte for byte: what is drawn by this thread is always the same.
    pub(crate) static NOT_RANDOM: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
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
