//! Queries of snapshots that several modules need.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::find::check_locked;
use crate::facts::{BlobFact, Family, Key, Lookup as _, PinFact, RepositoryFact, SegmentFact, UploadFact};
use crate::id::{FileId, UploadId};
use crate::tables::Snapshot;

impl Snapshot {
    /// Whether there is a blob with a digest.
    pub(crate) fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let found = self.look(&Key::blob(self.domain, digest), BlobFact::algorithm_of)?;
        Ok(found == Some(Some(digest.algorithm())))
    }

    /// All facts of the domain's family, decoded.
    fn all<T>(
        &self,
        family: Family,
        decode: impl Fn(&Key, &[u8]) -> Option<T>,
    ) -> Result<impl Iterator<Item = Result<T>>> {
        Ok(self.facts(family, [0; 32])?.map(move |fact| {
            let (key, value) = fact?;
            self.decoded(&key, decode(&key, value.as_bytes()))
        }))
    }

    /// All pins, in no order that means anything.
    pub(crate) fn pins(&self) -> Result<impl Iterator<Item = Result<PinFact>> + '_> {
        self.all(Family::Pin, |_, value| PinFact::decode(value))
    }

    /// All repositories of the domain, in no order that means anything.
    pub(crate) fn repositories(&self) -> Result<impl Iterator<Item = Result<RepositoryFact>> + '_> {
        self.all(Family::Repository, |_, value| RepositoryFact::decode(value))
    }

    /// The repository that has a name now, in whichever domain it is.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`]; why a domain is locked, where it may be there.
    pub(crate) fn repository_of_name(&self, name: &str) -> Result<RepositoryFact> {
        for own in self.each_domain() {
            if let Some(found) = own.decode(&Key::repository(own.domain, name), RepositoryFact::decode)? {
                return Ok(found);
            }
        }
        check_locked(self, name)?;
        Err(Error::RepositoryNotFound { name: name.to_owned() })
    }

    /// All uploads of the domain.
    pub(crate) fn uploads(&self) -> Result<impl Iterator<Item = Result<(UploadId, UploadFact)>> + '_> {
        self.all(Family::Upload, |key, value| Some((UploadId(*key.bytes.first_chunk()?), UploadFact::decode(value)?)))
    }

    /// What the domain has in files.
    pub(crate) fn segment_facts(&self) -> Result<impl Iterator<Item = Result<(FileId, SegmentFact)>> + '_> {
        self.all(Family::Segment, |key, value| Some((FileId(key.prefix()), SegmentFact::decode(value)?)))
    }

    /// The sum of a number over what the domain has in files.
    pub(crate) fn sum_segments(&self, number: impl Fn(&SegmentFact) -> u64) -> Result<u64> {
        let add = |sum: u64, fact: Result<(FileId, SegmentFact)>| Ok(sum.saturating_add(number(&fact?.1)));
        self.segment_facts()?.try_fold(0, add)
    }
}
