//! Reading all content and recounting all counts, at once.

use crate::check::Checks;
use crate::check::content::{Found, Reread};
use crate::check::finding::{Finding, note};
use crate::check::recount::Listener;
use crate::check::wrong::Wrong;
use crate::check::{Step, is_done};
use crate::envelope::LockedDomain;
use crate::error::Result;
use crate::facts::BlobFact;
use crate::tables::Snapshot;

/// What [`Store::verify`](crate::Store::verify) found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// How many blobs were read.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many bytes their content takes on disk, without checksums.
    pub stored_bytes: u64,
    /// What is wrong: at most 10,000 things. Empty for a sound store.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub more_findings: u64,
    /// The key domains that are locked: nothing of them was read.
    pub locked: Vec<LockedDomain>,
}

impl Checks {
    /// [`Store::verify`](crate::Store::verify).
    pub(crate) fn verify(&self, progress: &mut dyn FnMut(&Verification)) -> Result<Verification> {
        let mut report = Verification { locked: self.files.keys().locked_domains(), ..Verification::default() };
        for snapshot in self.tables.snapshot().each_domain() {
            is_done(self.verify_domain(&snapshot, &mut report, progress))?;
        }
        is_done(self.check_logs(&mut |_, finding| report.note(finding)))?;
        // What these say of facts was readable, or this would have ended already.
        is_done(self.check_runs(&mut |_, finding| report.note(finding)))?;
        Ok(report)
    }

    fn verify_domain(
        &self,
        snapshot: &Snapshot,
        report: &mut Verification,
        progress: &mut dyn FnMut(&Verification),
    ) -> Step<()> {
        self.recount(snapshot, report)?;
        self.check_segments(snapshot, &mut |finding| report.note(finding))?;
        for fact in snapshot.all::<BlobFact>()? {
            let (key, known) = fact?;
            report.blobs += 1;
            report.bytes += known.len;
            report.stored_bytes += known.place.stored_len;
            if let Some(Reread { digest, found, .. }) = self.reread(&key, &mut |_| Ok(()))? {
                match found {
                    Found::Sound => {}
                    Found::Frame(error) => report.note(Finding::Segment { error })?,
                    Found::Damaged(error) | Found::Unreadable(error) => report.note(Finding::Blob { digest, error })?,
                }
            }
            progress(report);
        }
        Ok(())
    }
}

impl Verification {
    /// Notes a finding, if there is one. That never ends a verification.
    fn note(&mut self, finding: impl Into<Option<Finding>>) -> Step<()> {
        note(&mut self.findings, &mut self.more_findings, finding);
        Ok(())
    }
}

impl Listener for Verification {
    fn found(&mut self, wrong: Wrong) -> Step<()> {
        self.note(wrong.finding())
    }
}
