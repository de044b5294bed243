//! What a repository holds, counted.

use crate::error::Result;
use crate::facts::{LinkFact, Lookup as _, ManifestFact, TagFact};
use crate::registry::Repository;

/// What a repository holds. See [`Repository::usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepositoryUsage {
    /// How many blobs it has.
    pub blobs: u64,
    /// How many bytes those have, each counted once. Other repositories of the key domain may share them.
    pub blob_bytes: u64,
    /// How many manifests it has.
    pub manifests: u64,
    /// How many bytes those have, without what they reference.
    pub manifest_bytes: u64,
    /// How many tags it has.
    pub tags: u64,
    /// How many uploads into it are unfinished.
    pub uploads: u64,
    /// How many bytes those have received.
    pub upload_bytes: u64,
}

impl Repository {
    /// Counts what the repository holds as of now: for quotas and for those who pay for it.
    ///
    /// It goes through all of its blobs, manifests and tags, and all uploads of its key domain: about a microsecond for
    /// each. Memory does not grow with them.
    ///
    /// ```
    /// # use strongroom::registry::RepositorySettings;
    /// # use strongroom::{Algorithm, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let repository = store.create_repository(&"team/app".parse()?, RepositorySettings::new())?;
    /// repository.put("a layer", Algorithm::Sha256)?;
    /// let usage = repository.usage()?;
    /// assert_eq!((usage.blobs, usage.blob_bytes, usage.tags), (1, 7, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`](crate::Error::RepositoryNotFound) where it was deleted;
    /// [`Error::Corrupt`](crate::Error::Corrupt) where facts of it are damaged.
    pub fn usage(&self) -> Result<RepositoryUsage> {
        let snapshot = self.facts()?;
        let mut usage = RepositoryUsage::default();
        for link in snapshot.all_of::<LinkFact>(self.id)? {
            let (key, link) = link?;
            let blob = snapshot.decoded(&key, snapshot.blob_by_key(&link.blob(&key))?)?;
            usage.blobs += 1;
            usage.blob_bytes = usage.blob_bytes.saturating_add(blob.len);
        }
        for manifest in snapshot.all_of::<ManifestFact>(self.id)? {
            usage.manifests += 1;
            usage.manifest_bytes = usage.manifest_bytes.saturating_add(manifest?.1.len);
        }
        for tag in snapshot.all_of::<TagFact>(self.id)? {
            tag?;
            usage.tags += 1;
        }
        for upload in snapshot.uploads()? {
            let (_, upload) = upload?;
            if upload.repository == Some(self.id) {
                usage.uploads += 1;
                usage.upload_bytes = usage.upload_bytes.saturating_add(upload.offset);
            }
        }
        Ok(usage)
    }
}
