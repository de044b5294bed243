//! Checks: verifying, scrubbing, repairing.

use std::ops::ControlFlow;
use std::sync::Arc;

#[cfg(test)]
use crate::check::Checks;
use crate::check::{Repair, Scrub, ScrubOptions, Verification};
use crate::error::{Error, Result};
use crate::store::Store;

impl Store {
    /// The checks of this store.
    #[cfg(test)]
    pub(crate) fn checks(&self) -> &Checks {
        &self.open.inner.checks
    }

    /// Reads every blob, compares it with its digest, and recounts all reference counts. Calls `progress` after each
    /// blob with the numbers so far. Changes nothing; [`scrub`](Self::scrub) does the same at a bounded rate, and flags
    /// damaged blobs.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) where facts are damaged, so that not even the list of blobs is known;
    /// an error that is a [shortage](crate::Error::is_shortage).
    pub fn verify(&self, mut progress: impl FnMut(&Verification)) -> Result<Verification> {
        self.inner()?.checks.verify(&mut progress)
    }
}

impl Store {
    /// Reads all content at a bounded rate, compares it with its digests, and recounts all reference counts, while
    /// reads and writes continue. `progress` is called after each blob, and while the scrub waits, with the numbers so
    /// far; `Break` stops the scrub.
    ///
    /// A blob whose content is damaged, or whose file is missing, is flagged. From then on a [`claim`](Self::claim) of
    /// it fails, and a push of the same content repairs it: the blob, with all that references it, is intact again.
    /// Readers get the damage as an error, as before.
    ///
    /// A scrub that stops early, because of its options, of `progress` or of a crash, is continued by the next one. One
    /// scrub runs at a time: a second one waits.
    ///
    /// The system's cache may serve what is read: damage on disk to content that was just written, or that is read all
    /// the time, is found later.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use std::time::Duration;
    /// use strongroom::{Algorithm, Options, ScrubOptions};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = Options::new().create(true).open(dir.path().join("store"))?;
    /// store.put("content", Algorithm::Sha256)?;
    ///
    /// let options = ScrubOptions::new().bytes_per_second(50 << 20).max_time(Duration::from_secs(600));
    /// let report = store.scrub(&options, |so_far| {
    ///     println!("{} of {} bytes", so_far.read_bytes, so_far.total_bytes);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert!(report.complete && report.is_sound());
    /// for blob in &report.damaged {
    ///     println!("push {:?} again: {}", blob.digest, blob.error);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed sync; an error that is a [shortage](Error::is_shortage). Flags that were set
    /// stay set, and the next scrub continues. Damage, and content that can't be read for another reason, is no error,
    /// but [reported](Scrub); on a full disk damage is reported, but not flagged.
    pub fn scrub(&self, options: &ScrubOptions, mut progress: impl FnMut(&Scrub) -> ControlFlow<()>) -> Result<Scrub> {
        self.inner()?.checks.scrub(options, &mut progress)
    }
}

impl Store {
    /// Rebuilds reference counts and indexes from other facts: counts, the idle list, referrers, the view of names,
    /// guides of runs. Then [scrubs](Self::scrub) from the beginning, and reports what is left that can't be repaired;
    /// `progress` is called as by a scrub. Nobody else can use the store meanwhile: no other handle of it may exist.
    ///
    /// A repair is needed only after a bug, or where a disk returned old content in place of what was written. It does
    /// not restore what damage destroyed: restore the file from a backup, or push the content again.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use strongroom::{Algorithm, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let mut store = Options::new().create(true).open(dir.path().join("store"))?;
    /// store.put("content", Algorithm::Sha256)?;
    /// let report = store.repair(|_| ControlFlow::Continue(()))?;
    /// assert!(report.mended == 0 && report.left.is_sound());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::HandlesInUse`]; [`Error::Full`], [`Error::Poisoned`] and the like: what was repaired before the error
    /// stays so. Damage is no error, but [reported](Repair::left).
    pub fn repair(&mut self, mut progress: impl FnMut(&Scrub) -> ControlFlow<()>) -> Result<Repair> {
        self.inner()?;
        let inner = &Arc::get_mut(&mut self.open).ok_or(Error::HandlesInUse)?.inner;
        inner.checks.repair(&|| inner.renew_names(), &mut progress)
    }
}
