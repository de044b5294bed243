//! Fail-stop: after a sync that the kernel was asked for and refused, nothing is written.

use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};

/// The first failed sync, if there was one.
///
/// A failed sync says nothing about what reached the disk, and neither does a later one that succeeds. So the first one
/// stops all writes for as long as the store is open; reads go on.
#[derive(Debug, Default)]
pub(super) struct Poison(OnceLock<Arc<Error>>);

impl Poison {
    /// Fails if an earlier sync did.
    pub(super) fn check(&self) -> Result<()> {
        match self.0.get() {
            Some(cause) => Err(Error::Poisoned { cause: Arc::clone(cause) }),
            None => Ok(()),
        }
    }

    /// Stops all writes, and returns the error that says so.
    pub(super) fn set(&self, error: Error) -> Error {
        let cause = self.0.get_or_init(|| Arc::new(error));
        Error::Poisoned { cause: Arc::clone(cause) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_first_failure_is_the_one_that_is_told() {
        let poison = Poison::default();
        assert!(poison.check().is_ok());
        for path in ["first", "second"] {
            let failed = Error::io("sync", Path::new(path))(std::io::ErrorKind::Other.into());
            let Error::Poisoned { cause } = poison.set(failed) else { panic!() };
            assert!(cause.to_string().contains("first"));
        }
        assert!(matches!(poison.check(), Err(Error::Poisoned { .. })));
    }
}
