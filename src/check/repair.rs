//! Repair: rebuilds facts that follow from other facts.
//!
//! | what | follows from |
//! |---|---|
//! | a blob's count | named files, links, manifests |
//! | a link's, a manifest's count | the repository's manifests |
//! | what lives in a file, and whether the file is needed | the places of blobs, uploads |
//! | the idle list | counts, and what they are of |
//! | under which subject a manifest is listed | the manifest |
//! | which tags name a manifest | tags |
//! | the view of names | named files, repositories, tags |
//! | a run's guide | its facts |
//!
//! What follows from nothing else can't be repaired, and is reported: damaged content, which is flagged, so that a push
//! repairs it; facts in damaged pages of runs; manifests that hold missing blobs or manifests, tags without their
//! manifest, facts of unknown repositories.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::check::Checks;
use crate::check::finding::{Finding, note};
use crate::check::mend::Mend;
use crate::check::recount::Listener;
use crate::check::report::{Scrub, ScrubOptions};
use crate::check::wrong::Wrong;
use crate::check::{Halt, Step, is_done};
use crate::error::{Error, Result};
use crate::facts::find::is_owned;
use crate::id::DomainId;
use crate::transaction::Request;
use crate::transaction::registry::TakeName;

/// So many facts are mended in one commit.
const AT_ONCE: usize = 256;

/// What is mended may show something else: a count that becomes 0, an entry that is missing. More rounds than this
/// change nothing more.
const ROUNDS: usize = 4;

/// What [`Store::repair`](crate::Store::repair) did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Repair {
    /// How many facts were repaired.
    pub mended: u64,
    /// What was wrong with them: at most 10,000 of them.
    pub was_wrong: Vec<Finding>,
    /// How many runs were merged because their guides were damaged, without which their facts can be read.
    pub merged_runs: u64,
    /// What is left: the report of a scrub after the repair.
    pub left: Scrub,
}

impl Checks {
    /// [`Store::repair`](crate::Store::repair). `renew_names` has the view of names written anew.
    pub(crate) fn repair(
        &self,
        renew_names: &dyn Fn(),
        progress: &mut dyn FnMut(&Scrub) -> ControlFlow<()>,
    ) -> Result<Repair> {
        let mut report = Repair::default();
        self.files.check_writable()?;
        // What deleted repositories have left is counted too, and goes beside.
        match self.registry.do_pending() {
            Err(Error::Corrupt { .. }) => {} // the scrub tells it
            other => other?,
        }
        for _ in 0..ROUNDS {
            let before = report.mended;
            self.mend_all(&mut report)?;
            if report.mended == before {
                break;
            }
        }
        self.mend_owners(&mut report)?;
        renew_names();
        self.mend_runs(&mut report)?;
        report.left = self.scrub(&ScrubOptions::new().restart(true), progress)?;
        Ok(report)
    }

    /// Recounts everything, and mends what is wrong.
    fn mend_all(&self, report: &mut Repair) -> Result<()> {
        let domains = self.tables.domains().to_vec();
        for domain in domains {
            let mut mender = Mender { inner: self, report, domain, batch: Vec::new() };
            let recounted = self.recount(&self.tables.snapshot_of(domain), &mut mender);
            // What was found before a fact that can't be read was counted whole.
            mender.flush()?;
            match is_done(recounted) {
                Err(Error::Corrupt { .. }) => {} // the scrub tells it
                other => other.map(drop)?,
            }
        }
        Ok(())
    }

    /// Notes which domains the names of repositories belong to, where that is not known.
    fn mend_owners(&self, report: &mut Repair) -> Result<()> {
        for snapshot in self.tables.snapshot().each_domain() {
            for repository in snapshot.repositories()? {
                let (name, domain) = match repository {
                    Err(Error::Corrupt { .. }) => break, // the scrub tells it
                    other => (other?.name, snapshot.domain),
                };
                if !is_owned(&snapshot, domain, &name)? {
                    self.log.commit(DomainId::DEFAULT, Request::Apply(Box::new(TakeName { name, domain })))?;
                    report.mended += 1;
                }
            }
        }
        Ok(())
    }

    /// Merges the runs of domains in which one has a damaged guide.
    fn mend_runs(&self, report: &mut Repair) -> Result<()> {
        let mut domains = BTreeSet::new();
        is_done(self.check_runs(&mut |run, finding| {
            domains.extend(matches!(finding, Some(Finding::Run { .. })).then_some(run.domain));
            Ok(())
        }))?;
        // What is damaged in their facts too the scrub tells.
        let merged = self.tables.merge_all(&*self.log, |domain, _| domains.contains(&domain))?;
        report.merged_runs += merged.runs as u64;
        Ok(())
    }
}

/// Mends what a recount finds, some at a time.
struct Mender<'a> {
    inner: &'a Checks,
    report: &'a mut Repair,
    domain: DomainId,
    batch: Vec<Wrong>,
}

impl Mender<'_> {
    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        match self.mend(batch.clone()) {
            Ok(mended) if mended == batch.len() as u64 => batch.into_iter().for_each(|wrong| self.note(wrong)),
            // Which of them, or which is so large, shows one by one.
            Ok(mended) => self.report.mended += mended,
            Err(Error::TooLarge { .. }) => {
                for wrong in batch {
                    if self.mend(vec![wrong.clone()])? > 0 {
                        self.note(wrong);
                    }
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Mends what still is wrong of this, and says how much that is.
    fn mend(&self, batch: Vec<Wrong>) -> Result<u64> {
        let outcome = self.inner.log.commit(self.domain, Request::Apply(Box::new(Mend(batch))))?;
        Ok(outcome.tally.mended)
    }

    fn note(&mut self, wrong: Wrong) {
        self.report.mended += 1;
        note(&mut self.report.was_wrong, &mut 0, wrong.finding());
    }
}

impl Listener for Mender<'_> {
    fn found(&mut self, wrong: Wrong) -> Step<()> {
        if wrong.can_be_mended() {
            self.batch.push(wrong);
        }
        if self.batch.len() >= AT_ONCE { self.flush().map_err(Halt::from) } else { Ok(()) }
    }
}
