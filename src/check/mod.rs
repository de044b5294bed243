//! Checks: reading all content again, recounting reference counts, flagging damage, and rebuilding facts that follow
//! from others.
//!
//! | | reads content | recounts | writes |
//! |---|---|---|---|
//! | [`Store::verify`](crate::Store::verify) | all of it, at once | yes | nothing |
//! | [`Store::scrub`](crate::Store::scrub) | all of it, at a bounded rate, over days if need be | yes | which blobs are damaged, and how far it has come |
//! | [`Store::repair`](crate::Store::repair) | as a scrub | yes | reference counts and indexes |
//!
//! # How damage is repaired
//! A blob whose content is found damaged is *flagged* in its fact. From then on a claim of it is refused, so that
//! clients push its content again; and a push of it, which otherwise would find the content present, stores it in a new
//! place, in a commit that keeps the references and clears the flag ([`Changes::put`](crate::transaction::Changes)).
//! Readers get the damage as an error, as before: it never becomes "not found".
//!
//! # Invariants kept here
//! - A flag is set, and cleared, only while the blob is in the place that was read: [`Flag`](scrub::Flag). Content that
//!   was stored meanwhile is not flagged.
//! - Content that can't be read for another reason than damage (the disk refuses) is not flagged: another copy may not
//!   be needed.
//! - Nothing is repaired by an incomplete recount: a fact that can't be read ends it.

mod affected;
mod content;
mod finding;
mod mend;
mod recount;
mod repair;
mod report;
mod repositories;
mod scrub;
#[cfg(test)]
mod tests;
mod verify;
mod wrong;

pub(crate) use content::{Found, Reread};
pub use finding::Finding;
pub use repair::Repair;
pub use report::{Affected, DamagedBlob, Scrub, ScrubOptions};
pub use verify::Verification;

use std::sync::{Arc, Mutex};

use crate::blobs::BlobStore;
use crate::clock::StoreClock;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::log::Committer;
use crate::registry::Registry;
use crate::tables::{Tables, Upkeep};

/// Checks what the rooms below have, and mends it.
pub(crate) struct Checks {
    files: Arc<Files>,
    tables: Arc<Tables>,
    log: Arc<Committer>,
    blobs: Arc<BlobStore>,
    registry: Arc<Registry>,
    upkeep: Arc<Upkeep>,
    clock: StoreClock,
    /// Held while a scrub runs.
    scrubbing: Mutex<()>,
}

crate::sync::print_by_name!(Checks);

impl Checks {
    pub(crate) fn new(
        (files, tables, log): (Arc<Files>, Arc<Tables>, Arc<Committer>),
        (blobs, registry): (Arc<BlobStore>, Arc<Registry>),
        upkeep: Arc<Upkeep>,
        clock: StoreClock,
    ) -> Self {
        Self { files, tables, log, blobs, registry, upkeep, clock, scrubbing: Mutex::default() }
    }
}

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
