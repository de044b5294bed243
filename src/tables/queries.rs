//! Queries of snapshots that several modules need.

use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::facts::find::check_locked;
use crate::facts::{
    BlobFact, Decoded, Family, Key, LinkFact, Lookup as _, NamedFact, Prefix, RepositoryFact, SegmentFact, UploadFact,
    Value,
};
use crate::id::{FileId, RepositoryId, UploadId};
use crate::tables::Snapshot;

/// Uploads, with what is known of them.
type Uploads = Vec<(UploadId, UploadFact)>;

impl Snapshot {
    /// Whether there is a blob with a digest.
    pub(crate) fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let found = self.look(&Key::blob(self.domain, digest), BlobFact::algorithm_of)?;
        Ok(found == Some(Some(digest.algorithm())))
    }

    /// Whether there is each of several blobs.
    pub(crate) fn has_blobs(&self, digests: &[Digest]) -> Result<Vec<bool>> {
        let keys: Vec<Key> = digests.iter().map(|digest| Key::blob(self.domain, digest)).collect();
        let found = self.look_many(&keys, BlobFact::algorithm_of)?;
        let same = |(found, digest): (Option<Option<Algorithm>>, &Digest)| found == Some(Some(digest.algorithm()));
        Ok(found.into_iter().zip(digests).map(same).collect())
    }

    /// What is known of each of several blobs.
    pub(crate) fn blobs(&self, digests: &[Digest]) -> Result<Vec<Option<BlobFact>>> {
        let keys: Vec<Key> = digests.iter().map(|digest| Key::blob(self.domain, digest)).collect();
        let found = self.look_many(&keys, BlobFact::decode)?;
        let mut blobs = Vec::with_capacity(keys.len());
        for ((fact, key), digest) in found.into_iter().zip(&keys).zip(digests) {
            let fact = fact.map(|fact| self.decoded(key, fact)).transpose()?;
            blobs.push(fact.filter(|fact| fact.algorithm == digest.algorithm()));
        }
        Ok(blobs)
    }

    /// A repository's links to several blobs, and the blobs.
    pub(crate) fn links(
        &self,
        repository: RepositoryId,
        digests: &[Digest],
    ) -> Result<Vec<Option<(LinkFact, BlobFact)>>> {
        let keys: Vec<Key> =
            digests.iter().map(|digest| Key::of_digest(self.domain, Family::Link, repository, digest)).collect();
        let mut links = Vec::with_capacity(digests.len());
        for ((link, key), digest) in self.look_many(&keys, LinkFact::decode)?.into_iter().zip(&keys).zip(digests) {
            let link = link.map(|link| self.decoded(key, link)).transpose()?;
            links.push(link.filter(|link| link.blob(key) == Key::blob(self.domain, digest)));
        }
        // Others are not asked for: not even their damage may be told.
        let own: Vec<Digest> =
            digests.iter().zip(&links).filter(|(_, link)| link.is_some()).map(|(own, _)| *own).collect();
        let mut blobs = self.blobs(&own)?.into_iter();
        Ok(links.into_iter().map(|link| Some((link?, blobs.next()??))).collect())
    }

    /// The domain's facts of a family, in the order of their keys.
    pub(crate) fn all<T: Decoded>(&self) -> Result<impl Iterator<Item = Result<(Key, T)>>> {
        Ok(self.decode_all(self.facts(T::FAMILY, [0; 32])?))
    }

    /// A repository's facts of a family, in the order of their keys.
    pub(crate) fn all_of<T: Decoded>(
        &self,
        repository: RepositoryId,
    ) -> Result<impl Iterator<Item = Result<(Key, T)>>> {
        self.all_of_after(repository, None)
    }

    /// The same, those behind a key.
    pub(crate) fn all_of_after<T: Decoded>(
        &self,
        repository: RepositoryId,
        after: Option<Key>,
    ) -> Result<impl Iterator<Item = Result<(Key, T)>>> {
        let prefix = Prefix::of(self.domain, T::FAMILY, repository);
        Ok(self.decode_all(self.scan_all_after(prefix, after)?))
    }

    fn decode_all<T: Decoded>(
        &self,
        facts: impl Iterator<Item = Result<(Key, Value)>>,
    ) -> impl Iterator<Item = Result<(Key, T)>> {
        facts.map(|fact| {
            let (key, value) = fact?;
            Ok((key, self.decoded(&key, T::decoded(value.as_bytes()))?))
        })
    }

    /// All named files of the domain, in no order that means anything.
    pub(crate) fn named_files(&self) -> Result<impl Iterator<Item = Result<NamedFact>> + '_> {
        Ok(self.all()?.map(|fact| fact.map(|(_, file)| file)))
    }

    /// All repositories of the domain, in no order that means anything.
    pub(crate) fn repositories(&self) -> Result<impl Iterator<Item = Result<RepositoryFact>> + '_> {
        Ok(self.all()?.map(|fact| fact.map(|(_, repository)| repository)))
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
        self.uploads_from([0; 32])
    }

    /// The uploads of the domain from a key on, in the order of their ids.
    pub(crate) fn uploads_from(
        &self,
        from: [u8; 32],
    ) -> Result<impl Iterator<Item = Result<(UploadId, UploadFact)>> + '_> {
        Ok(self.facts(Family::Upload, from)?.map(|fact| {
            let (key, value) = fact?;
            let upload = key.bytes.first_chunk().copied().map(UploadId).zip(UploadFact::decode(value.as_bytes()));
            self.decoded(&key, upload)
        }))
    }

    /// The uploads of the domain that can be read, and the damage that hides others.
    pub(crate) fn readable_uploads(&self) -> Result<(Uploads, Option<Error>)> {
        let mut found = Vec::new();
        for upload in self.uploads()? {
            match upload {
                Err(damage) if damage.is_of_disk() => return Ok((found, Some(damage))),
                upload => found.push(upload?),
            }
        }
        Ok((found, None))
    }

    /// What the domain has in files.
    pub(crate) fn segment_facts(&self) -> Result<impl Iterator<Item = Result<(FileId, SegmentFact)>> + '_> {
        Ok(self.all()?.map(|fact| fact.map(|(key, segment)| (FileId(key.prefix()), segment))))
    }

    /// The sum of a number over what the domain has in files.
    pub(crate) fn sum_segments(&self, number: impl Fn(&SegmentFact) -> u64) -> Result<u64> {
        let add = |sum: u64, fact: Result<(FileId, SegmentFact)>| Ok(sum.saturating_add(number(&fact?.1)));
        self.segment_facts()?.try_fold(0, add)
    }
}
