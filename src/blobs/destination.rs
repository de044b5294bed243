//! Where content is stored, and claims to what is there.

use crate::blobs::{BlobStore, Stat};
use crate::digest::Digest;
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, LinkFact, Lookup as _};
use crate::id::{DomainId, Lsn, RepositoryId};
use crate::log::Durability;
use crate::transaction::{Outcome, Request, Then};

/// The most blobs whose grace period begins anew in one commit: other commits wait for it.
const TOUCHED_AT_ONCE: usize = 256;

/// Where content is stored: in a repository, or outside of repositories, as it is unless one says otherwise.
pub(crate) trait Destination: Sync {
    /// The domain that the content belongs to from then on.
    fn domain(&self) -> DomainId;

    /// When writes return.
    fn durability(&self) -> Durability;

    /// Finds blobs, each as of one moment, undamaged, and begins their grace period anew.
    fn claim_many(&self, digests: &[Digest]) -> Result<Vec<Result<Claimed>>>;

    /// Finds one.
    fn claim(&self, digest: &Digest) -> Result<Claimed> {
        self.claim_many(&[*digest])?.pop().unwrap_or(Err(Error::BlobNotFound { digest: *digest }))
    }

    /// Makes the commit fail where the repository no longer exists.
    fn exists(&self) -> Then {
        None
    }

    /// What the commit that stores a blob does besides.
    fn then(&self, _digest: &Digest) -> Then {
        None
    }

    /// Whether the content was there before a commit that stores it, as far as a caller may know.
    fn existed(&self, outcome: &Outcome) -> bool {
        outcome.existed
    }

    /// The repository whose uploads are meant, which is still there; none: those of the store.
    fn repository(&self) -> Result<Option<RepositoryId>> {
        Ok(None)
    }
}

/// Outside of repositories.
#[derive(Clone, Copy)]
pub(crate) struct Outside<'a> {
    store: &'a BlobStore,
    durability: Durability,
    domain: DomainId,
}

impl Destination for Outside<'_> {
    fn domain(&self) -> DomainId {
        self.domain
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn claim_many(&self, digests: &[Digest]) -> Result<Vec<Result<Claimed>>> {
        let (store, snapshot) = (self.store, self.store.tables.snapshot_of(self.domain));
        let (retention, now) = (store.options.retention, store.clock.open_time());
        let look = |digest: &Digest| {
            let blob = snapshot.blob(digest)?.ok_or(Error::BlobNotFound { digest: *digest })?;
            Ok((blob, None, blob.is_stale(retention, now)))
        };
        let touch = |stale| store.log.commit_as(self.durability, self.domain, Request::Touch(stale));
        store.claim_each(digests, self.durability, snapshot.lsn, look, touch)
    }
}

/// A blob that a caller relies on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed {
    pub(crate) blob: BlobFact,
    /// That a repository has it; none outside of repositories.
    pub(crate) link: Option<LinkFact>,
    /// A commit as of which it is there for as long as the grace period lasts, as durable as the caller's writes.
    pub(crate) lsn: Lsn,
}

impl Claimed {
    /// The commit as of which a blob is there; `None` where it has to be stored.
    pub(super) fn lsn_of(claimed: Result<Self>) -> Result<Option<Lsn>> {
        match claimed {
            Err(Error::BlobNotFound { .. } | Error::Corrupt { damage: Damage::Known, .. }) => Ok(None),
            other => Ok(Some(other?.lsn)),
        }
    }
}

impl BlobStore {
    /// What is outside of repositories, in the default domain.
    pub(crate) fn outside(&self, durability: Durability) -> Outside<'_> {
        self.outside_in(durability, DomainId::DEFAULT)
    }

    /// What is outside of repositories, in a domain.
    pub(crate) fn outside_in(&self, durability: Durability, domain: DomainId) -> Outside<'_> {
        Outside { store: self, durability, domain }
    }

    /// What the store knows of blobs, for a caller that relies on them.
    pub(crate) fn claim_many(&self, digests: &[Digest], durability: Durability) -> Result<Vec<Result<Stat>>> {
        let claimed = self.outside(durability).claim_many(digests)?;
        let stat = |(digest, claimed): (&Digest, Result<Claimed>)| Ok(Stat::new(*digest, &claimed?.blob, &self.clock));
        Ok(digests.iter().zip(claimed).map(stat).collect())
    }

    /// Claims blobs: `look` finds each as of one moment, and says whether the grace period has to begin anew, which
    /// `touch` then does for all of those in one commit.
    pub(crate) fn claim_each(
        &self,
        digests: &[Digest],
        durability: Durability,
        as_of: Lsn,
        look: impl Fn(&Digest) -> Result<(BlobFact, Option<LinkFact>, bool)>,
        touch: impl Fn(Vec<Digest>) -> Result<Outcome>,
    ) -> Result<Vec<Result<Claimed>>> {
        let (mut found, mut stale) = (Vec::with_capacity(digests.len()), Vec::new());
        for digest in digests {
            let claimed = look(digest).and_then(|(blob, link, is_stale)| {
                self.check_undamaged(&blob)?;
                if is_stale {
                    stale.push((found.len(), *digest));
                }
                Ok(Claimed { blob, link, lsn: as_of })
            });
            found.push(claimed);
        }
        for stale in stale.chunks(TOUCHED_AT_ONCE) {
            let touched = touch(stale.iter().map(|(_, digest)| *digest).collect())?;
            for (place, _) in stale {
                if let Some(Ok(claimed)) = found.get_mut(*place) {
                    claimed.lsn = touched.lsn;
                }
            }
            for (part, gone) in touched.refused {
                if let Some(slot) = stale.get(part).and_then(|(place, _)| found.get_mut(*place)) {
                    *slot = Err(gone);
                }
            }
        }
        // That a blob is not there is nothing to rely on.
        if found.iter().any(Result::is_ok) {
            self.log.reach(durability, as_of)?;
        }
        Ok(found)
    }

    /// Fails where a blob is known to be damaged.
    pub(crate) fn check_undamaged(&self, blob: &BlobFact) -> Result<()> {
        if !blob.damaged {
            return Ok(());
        }
        let path = self.contents.path(blob.place.file);
        Err(Error::corrupt(&path, blob.place.offset, Damage::Known))
    }
}
