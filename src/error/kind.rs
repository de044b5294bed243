//! What a caller does about an error, as a small enum.

use std::io;

use crate::error::Error;

/// What a caller can do about an [`Error`]: see [`Error::kind`].
///
/// The kinds are for programs that answer others, or decide whether to try again. What exactly is wrong, and with what,
/// is in the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What the call names is not there: a blob, named file, upload, repository, manifest, tag, key domain or store. A
    /// server answers 404.
    NotFound,
    /// Something has the name, or the place, already. A server answers 409.
    AlreadyExists,
    /// What is stored is not what the caller expected, or may not be changed: look again, then decide. A server answers
    /// 409, or 412 to a conditional request.
    Conflict,
    /// Something references what was to be removed: remove that first. A server answers 405 or 409.
    InUse,
    /// Another call, handle or process uses it just now: try again in a moment. A server answers 429.
    Busy,
    /// What the caller passed in is malformed: the same call always fails. A server answers 400.
    InvalidInput,
    /// Content does not have the digest that it was said to have: read it from its source again. A server answers 400.
    DigestMismatch,
    /// A manifest references what its repository does not have: push that first, then the manifest again. A server
    /// answers 400.
    ReferencesMissing,
    /// Something is larger than the format, the options or the caller allow. A server answers 413.
    TooLarge,
    /// A position or range lies outside of what is there, which the error says: continue from there. A server answers
    /// 416.
    OutOfRange,
    /// The source of content that the caller passed in has failed: a client went away, for example. Nothing is wrong
    /// with the store. A server answers 400, if anybody is there.
    Source,
    /// The disk is full, or a quota. Reading, removing and collecting go on; writes succeed again once there is space.
    /// A server answers 507 and tells its operator.
    Full,
    /// The process or the machine is short of file descriptors, threads, mappings or memory: try again in a moment. A
    /// server answers 503 with `Retry-After`.
    Shortage,
    /// The store takes no writes: an earlier sync failed, or it was opened for reading only. Reads go on. A server
    /// answers 503; its operator looks at the disk and opens the store again.
    ReadOnly,
    /// The store was closed, or another one is in the place of the one that was opened: open it anew. A server answers
    /// 503: it is about to end, or has that to do.
    Closed,
    /// A key is missing, wrong, or can't be used now. Nothing is lost: with the right key it works. A server answers
    /// 503 and tells its operator.
    Key,
    /// The format or the file system is one that this version can't use, or encryption was left out of the program. It
    /// shows when a store is opened; the error says what to do.
    Unsupported,
    /// Bytes on disk are not what was written. What else is stored is not affected. A server answers 500, and its
    /// operator restores the file or has the content pushed again.
    Damaged,
    /// The operating system refused a file operation for another reason. A server answers 500 and tells its operator.
    Io,
    /// A bug of this crate: please report it. A server answers 500.
    Internal,
}

impl Error {
    /// What a caller can do about it.
    ///
    /// ```
    /// use strongroom::{Algorithm, Digest, ErrorKind, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = Options::new().create(true).open(dir.path())?;
    /// let status = match store.get(&Digest::of(Algorithm::Sha256, b"absent")) {
    ///     Ok(_) => 200,
    ///     Err(error) => match error.kind() {
    ///         ErrorKind::NotFound => 404,
    ///         ErrorKind::Busy => 429,
    ///         ErrorKind::Shortage | ErrorKind::Key | ErrorKind::Closed => 503,
    ///         _ => 500,
    ///     },
    /// };
    /// assert_eq!(status, 404);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn kind(&self) -> ErrorKind {
        match self {
            // No wildcard: who adds an error decides what callers do about it.
            Self::Io { .. } if self.is_shortage() => ErrorKind::Shortage,
            Self::Io { .. } => ErrorKind::Io,
            Self::Full { .. } => ErrorKind::Full,
            Self::Corrupt { .. } => ErrorKind::Damaged,
            Self::InvalidDigest { .. }
            | Self::InvalidUploadId { .. }
            | Self::InvalidAlgorithm { .. }
            | Self::InvalidName { .. }
            | Self::InvalidRepositoryName { .. }
            | Self::InvalidDocumentName { .. }
            | Self::InvalidTag { .. }
            | Self::InvalidTagFilter { .. }
            | Self::InvalidManifest { .. }
            | Self::SnapshotTarget { .. } => ErrorKind::InvalidInput,
            Self::DigestMismatch { .. } => ErrorKind::DigestMismatch,
            Self::ReferencesMissing { .. } => ErrorKind::ReferencesMissing,
            Self::Locked { .. } | Self::UploadBusy { .. } | Self::HandlesInUse => ErrorKind::Busy,
            Self::NotAStore { .. }
            | Self::DomainNotFound { .. }
            | Self::DomainShredded { .. }
            | Self::BlobNotFound { .. }
            | Self::NamedNotFound { .. }
            | Self::DocumentNotFound { .. }
            | Self::UploadNotFound { .. }
            | Self::RepositoryNotFound { .. }
            | Self::ManifestNotFound { .. }
            | Self::ManifestArchived { .. } => ErrorKind::NotFound,
            Self::NotEmpty { .. } | Self::DomainExists { .. } | Self::RepositoryExists { .. } => {
                ErrorKind::AlreadyExists
            }
            Self::TagImmutable { .. }
            | Self::TagMoved { .. }
            | Self::NamedChanged { .. }
            | Self::DocumentChanged { .. }
            | Self::ImageChanged { .. } => ErrorKind::Conflict,
            Self::BlobInUse { .. } | Self::ManifestInUse { .. } | Self::RepositoryNotEmpty { .. } => ErrorKind::InUse,
            Self::TooLarge { .. } | Self::ContentTooLong { .. } => ErrorKind::TooLarge,
            Self::WrongOffset { .. } | Self::OutOfRange { .. } | Self::Gap { .. } | Self::AheadOfStore { .. } => {
                ErrorKind::OutOfRange
            }
            Self::UnsupportedFormat { .. } | Self::UnsupportedFileSystem { .. } | Self::EncryptionLeftOut => {
                ErrorKind::Unsupported
            }
            Self::KeyRequired { .. } | Self::NotEncrypted { .. } | Self::Key { .. } => ErrorKind::Key,
            Self::Poisoned { .. } | Self::ReadOnly { .. } => ErrorKind::ReadOnly,
            Self::Closed | Self::OtherStore { .. } => ErrorKind::Closed,
            Self::Source { .. } => ErrorKind::Source,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }
}

/// The error in one of the operating system's, of the kind that is nearest, for programs that read and write: with
/// [`io::Error::downcast`] they have it back.
///
/// ```
/// use std::io;
///
/// # let dir = tempfile::tempdir()?;
/// # let store = strongroom::Options::new().create(true).open(dir.path())?;
/// let read = |name: &str| -> io::Result<Vec<u8>> { Ok(store.named().get(name)?.blob.bytes()?.into()) };
/// let error = read("config").unwrap_err();
/// assert_eq!(error.kind(), io::ErrorKind::NotFound);
/// assert!(matches!(error.downcast()?, strongroom::Error::NamedNotFound { .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match (error.kind(), &error) {
            (_, Error::Io { source, .. } | Error::Source { source }) => source.kind(),
            (ErrorKind::NotFound, _) => io::ErrorKind::NotFound,
            (ErrorKind::AlreadyExists, _) => io::ErrorKind::AlreadyExists,
            (ErrorKind::InvalidInput | ErrorKind::OutOfRange, _) => io::ErrorKind::InvalidInput,
            (ErrorKind::DigestMismatch | ErrorKind::Damaged, _) => io::ErrorKind::InvalidData,
            (ErrorKind::Busy | ErrorKind::InUse, _) => io::ErrorKind::ResourceBusy,
            (ErrorKind::TooLarge, _) => io::ErrorKind::FileTooLarge,
            (ErrorKind::Full, _) => io::ErrorKind::StorageFull,
            (ErrorKind::ReadOnly, _) => io::ErrorKind::ReadOnlyFilesystem,
            (ErrorKind::Unsupported, _) => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
