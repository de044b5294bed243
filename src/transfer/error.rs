//! Why something could not be imported or exported.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::Error;

/// Why an import or an export failed. What it has left is said at the function that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The store refused or failed: the error says what to do.
    #[error(transparent)]
    Store(#[from] Error),
    /// A file or directory outside of the store could not be read, or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file system of the store has less space than one file alone needs. Nothing was stored: free some space.
    #[error("{} has {len} bytes, and there are {free} left for {}: free some space", path.display(), store.display())]
    NotEnoughSpace {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The store's directory.
        store: PathBuf,
        /// How many bytes are free there.
        free: u64,
    },
    /// What lies at a path can't be imported, or nothing can be exported to it.
    #[error("{} {problem}", path.display())]
    Unsuitable {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A document that was to be exported has a path at which nothing can be written. Nothing was written.
    #[error("the document has the path {path:?}, which {problem}")]
    Path {
        /// The path, cut to 300 bytes.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An image layout's index names a blob that the layout does not have. Nothing was stored: copy it there.
    #[error("the index.json file names {digest}, which is not among the layout's blobs: copy it there")]
    MissingBlob {
        /// The blob.
        digest: Digest,
    },
    /// What has the name that was to be exported was not stored by an import. Nothing was written: read it as a blob.
    #[error("{problem}")]
    NotAnImport {
        /// What it is instead.
        problem: &'static str,
    },
    /// The name is in use, and may not be replaced: choose another one, or [`Existing::Replace`](super::Existing).
    #[error("{name:?} names {digest} already: give another name, or have it replaced")]
    NameInUse {
        /// The name.
        name: String,
        /// What it names.
        digest: Digest,
    },
    /// The name may not be given to an import: choose another one.
    #[error("{name:?} {problem}")]
    ReservedName {
        /// The name.
        name: String,
        /// What it is reserved for.
        problem: &'static str,
    },
    /// The caller's progress callback asked for the end. What was stored until then is kept as long as other
    /// unreferenced blobs, so that the next attempt goes on from there.
    #[error("stopped by the caller")]
    Stopped,
}

impl TransferError {
    pub(crate) fn unsuitable(path: impl Into<PathBuf>, problem: &'static str) -> Self {
        Self::Unsuitable { path: path.into(), problem }
    }
}

/// Adds the path to an error of a file that is not the store's.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> TransferError + '_ {
    move |source| TransferError::File { path: path.to_path_buf(), source }
}
