//! Checks: verifying, scrubbing, repairing.

use std::ops::ControlFlow;

#[cfg(test)]
use crate::check::Checks;
use crate::check::{Repair, Scrub, ScrubOptions, Verification};
use crate::error::Result;
use crate::store::Store;

impl Store {
    /// Where checks are done.
    #[cfg(test)]
    pub(crate) fn checks(&self) -> &Checks {
        &self.inner.checks
    }

    /// Reads every blob, compares it with its digest, and recounts all that is counted. Calls `progress` after each
    /// blob with the numbers so far. Changes nothing: [`scrub`](Self::scrub) does the same at a bounded rate, and notes
    /// what is damaged.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) where facts are damaged, so that not even the list of blobs is known;
    /// what there was a [shortage](crate::Error::is_shortage) of.
    pub fn verify(&self, mut progress: impl FnMut(&Verification)) -> Result<Verification> {
        self.inner.checks.verify(&mut progress)
    }
}

impl Store {
    /// Reads everything again, at a rate that leaves room for others, and recounts what is counted. Goes on beside
    /// everything else. `progress` is called after each blob, and while it waits, with the numbers so far, and says
    /// whether to go on.
    ///
    /// A blob whose content is damaged, or whose file is lost, is flagged: from then on nobody is told that it can be
    /// relied on ([`claim`](Self::claim)), and whoever pushes the same content again brings it back, with all that
    /// holds it. Readers meet the damage as before.
    ///
    /// Where a scrub ends early, by its options, by `progress` or by a crash, the next one goes on. One that is there
    /// at a time: a second one waits.
    ///
    /// What is read comes from the system's cache where that has it: damage on disk to what was just written, or is
    /// read all the time, shows later.
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
    /// [`Error::Poisoned`] after a failed sync; what there was a [shortage](Error::is_shortage) of. The flags that were
    /// set stay set, and the next scrub goes on. Damage is no error, nor is what can't be read for another reason, but
    /// [reported](Scrub); on a full disk it is reported too, but not flagged.
    pub fn scrub(&self, options: &ScrubOptions, mut progress: impl FnMut(&Scrub) -> ControlFlow<()>) -> Result<Scrub> {
        self.inner.checks.scrub(options, &mut progress)
    }
}

impl Store {
    /// Derives anew what follows from other facts: counts, lists, views, guides of runs. Then [scrubs](Self::scrub),
    /// from the beginning, and says what is left that can't be mended; `progress` is told how far that has come. Nobody
    /// else uses the store meanwhile.
    ///
    /// What is counted is never so wrong that a repair is needed, but by a bug, or a disk that gave back what was there
    /// before and not what was written. It does not bring back what damage took: restore the file from a backup, or
    /// push the content again.
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
    /// [`Error::Full`], [`Error::Poisoned`] and the like: what was mended stays so. Damage is no error, but
    /// [reported](Repair::left).
    pub fn repair(&mut self, mut progress: impl FnMut(&Scrub) -> ControlFlow<()>) -> Result<Repair> {
        self.inner.checks.repair(&|| self.inner.renew_names(), &mut progress)
    }
}
