//! What keeps snapshots from being made in a place.

use std::path::PathBuf;

/// Why a snapshot can't be made in a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetProblem {
    /// It is a mount point: a snapshot is renamed to its name once it is whole, and nothing can be renamed to that one.
    #[error("it is a mount point, which can't be replaced: choose a new directory in it")]
    MountPoint,
    /// It is a symbolic link.
    #[error("it is a symbolic link: choose the directory that it leads to, or another name")]
    Link,
    /// It lies in a store's directory, perhaps that of the store itself or of the base. A store removes what it finds
    /// in its directories and does not know.
    #[error("it lies in the store {}: choose a directory outside of it", store.display())]
    InStore {
        /// That store's directory, without links in its path.
        store: PathBuf,
    },
}
