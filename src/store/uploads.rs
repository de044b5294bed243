//! Uploads: content that comes in pieces, outside of repositories.

use std::io::Read;

use crate::blobs::UploadStatus;
use crate::digest::{Algorithm, Digest};
use crate::error::Result;
use crate::id::UploadId;
use crate::store::Store;

impl Store {
    /// Begins an upload whose digest will be by this algorithm. (Another one at the end is possible, at the price of
    /// reading the content again.)
    ///
    /// ```
    /// # use strongroom::{Algorithm, Digest, Error, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let id = store.begin_upload(Algorithm::Sha256)?;
    /// assert_eq!(store.append_upload(id, 0, "two ")?, 4);
    /// assert!(matches!(store.append_upload(id, 9, "pieces"), Err(Error::WrongOffset { expected: 4, .. })));
    /// assert_eq!(store.append_upload(id, 4, "pieces")?, 10);
    /// let digest = Digest::of(Algorithm::Sha256, b"two pieces");
    /// store.commit_upload(id, &digest)?;
    /// assert_eq!(store.get(&digest)?.bytes()?, "two pieces");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Full`] on a full disk, [`Error::Poisoned`] after a failed sync.
    pub fn begin_upload(&self, algorithm: Algorithm) -> Result<UploadId> {
        self.inner.blobs.begin_upload(algorithm, &self.inner.blobs.outside())
    }

    /// Adds a piece of content at `offset`, which must be where the upload stands, and returns where it then stands.
    /// The piece is durable when this returns.
    ///
    /// # Errors
    /// [`Error::WrongOffset`] with the offset expected; [`Error::UploadNotFound`]; [`Error::UploadBusy`] while another
    /// call is at work on it; [`Error::Full`]. The upload then stands where it did.
    pub fn append_upload(&self, id: UploadId, offset: u64, content: impl AsRef<[u8]>) -> Result<u64> {
        self.inner.blobs.append_upload(id, offset, &mut content.as_ref(), &self.inner.blobs.outside())
    }

    /// Adds what a reader yields, to its end. Memory use does not depend on how much that is, and every 256 MiB become
    /// durable while the rest comes.
    ///
    /// # Errors
    /// As [`append_upload`](Self::append_upload), except that what became durable before counts; and [`Error::Source`]
    /// where the reader fails: what it yielded before counts. [`upload_status`](Self::upload_status) tells how much
    /// that was.
    pub fn append_upload_from(&self, id: UploadId, offset: u64, mut content: impl Read) -> Result<u64> {
        self.inner.blobs.append_upload(id, offset, &mut content, &self.inner.blobs.outside())
    }

    /// Where an upload stands.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`] where there is none of that id.
    pub fn upload_status(&self, id: UploadId) -> Result<UploadStatus> {
        self.inner.blobs.upload_status(id, &self.inner.blobs.outside())
    }

    /// Ends an upload as a blob, if its content has the digest.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] where it has not (the upload stays as it is: [cancel](Self::cancel_upload) it);
    /// [`Error::UploadNotFound`]; [`Error::UploadBusy`]; [`Error::Full`].
    pub fn commit_upload(&self, id: UploadId, digest: &Digest) -> Result<()> {
        self.inner.blobs.commit_upload(id, digest, &self.inner.blobs.outside())
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`] where there is none of that id.
    pub fn cancel_upload(&self, id: UploadId) -> Result<()> {
        self.inner.blobs.cancel_upload(id, &self.inner.blobs.outside())
    }

    /// All uploads that were begun and neither committed nor given up, in the order of their ids. Those of
    /// [repositories](crate::registry) are not among them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged.
    pub fn uploads(&self) -> Result<Vec<UploadStatus>> {
        self.inner.blobs.uploads_of(&self.inner.blobs.outside())
    }
}
