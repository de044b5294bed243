//! Checking: everything is read again and recounted.

mod content;
mod finding;
mod recount;
mod repositories;
mod verify;
mod wrong;

pub use finding::Finding;
pub use verify::Verification;

use crate::error::{Error, Result};

/// What keeps a check from going on.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Somebody said so.
    Stopped,
    Failed(Error),
}

pub(crate) type Step<T> = Result<T, Halt>;

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Whether something came to its end.
fn is_done(step: Step<()>) -> Result<bool> {
    match step {
        Ok(()) => Ok(true),
        Err(Halt::Stopped) => Ok(false),
        Err(Halt::Failed(error)) => Err(error),
    }
}
