//! Pins: names that keep blobs, for programs without manifests.

use crate::blobs::{Pin, PinOptions};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::id::DomainId;
use crate::store::Store;
use crate::transaction::Request;

impl Store {
    /// Pins a blob under a name: the blob, and the blobs that the options say it references, are kept. An existing pin
    /// of that name is replaced in the same commit.
    ///
    /// # Errors
    /// [`Error::BlobNotFound`] where a blob is missing (nothing is changed then); [`Error::InvalidName`] unless the
    /// name has 1 to 1,024 bytes without control characters; [`Error::TooLarge`] for more than 65,535 references.
    pub fn pin(&self, name: &str, digest: &Digest, options: PinOptions) -> Result<()> {
        self.inner()?.blobs.pin(name, digest, options)
    }

    /// Removes a pin. Blobs that nothing else references are kept for [`Options::retention`](crate::Options::retention)
    /// after that, unless they are [removed](Self::remove); then [`collect`](Self::collect) removes them.
    ///
    /// # Errors
    /// [`Error::PinNotFound`] where there is none of that name.
    pub fn unpin(&self, name: &str) -> Result<()> {
        self.inner()?.log.commit(DomainId::DEFAULT, Request::Unpin(name.to_owned())).map(drop)
    }

    /// The pin of a name.
    ///
    /// # Errors
    /// [`Error::PinNotFound`] where there is none of that name.
    pub fn get_pin(&self, name: &str) -> Result<Pin> {
        self.inner()?.blobs.get_pin(name)?.ok_or_else(|| Error::PinNotFound { name: name.to_owned() })
    }

    /// At most `limit` names of pins, in order, beginning after `after`.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Options, PinOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let digest = store.put("content", Algorithm::Sha256)?;
    /// for name in ["b", "a", "c"] {
    ///     store.pin(name, &digest, PinOptions::new())?;
    /// }
    /// assert_eq!(store.pins(Some("a"), 10)?, ["b", "c"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the view of names is being rebuilt, and facts that are read in its place are damaged.
    pub fn pins(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        self.inner()?.blobs.pins(after, limit)
    }
}
