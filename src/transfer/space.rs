//! The space on a store's file system.

use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use crate::store::Store;
use crate::transfer::error::TransferError;

/// Whether there is space for less than this shows when it is stored: it may be compressed, and fills no disk alone.
const SMALL: u64 = 16 << 20;

/// How much there was at one time.
#[derive(Debug)]
pub(crate) struct Space {
    store: PathBuf,
    free: u64,
}

impl Space {
    /// Looks how much there is. What can't be known is taken for enough.
    pub(crate) fn at(store: &Path) -> Self {
        let known = statvfs(store).ok().filter(|stat| stat.f_blocks > 0);
        let free = known.map_or(u64::MAX, |stat| stat.f_bfree.saturating_mul(stat.f_frsize));
        Self { store: store.to_owned(), free }
    }

    /// Whether there may be enough for a file, whatever else is stored.
    pub(crate) fn has(&self, len: u64) -> bool {
        len < SMALL || len <= self.free
    }

    /// Refuses a file for which there is not enough, whatever else is stored.
    pub(crate) fn check(&self, path: &Path, len: u64) -> Result<(), TransferError> {
        if self.has(len) {
            return Ok(());
        }
        let (path, store) = (path.to_owned(), self.store.clone());
        Err(TransferError::NotEnoughSpace { path, len, store, free: self.free })
    }
}

/// Whether a file can be stored at all: fails where the file system of the store has less space than its length.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = strongroom::Options::new().create(true).open(dir.path())?;
/// use strongroom::transfer::{TransferError, check_space};
///
/// let image = "disk.img".as_ref();
/// check_space(&store, image, 1 << 10)?;
/// assert!(matches!(check_space(&store, image, u64::MAX), Err(TransferError::NotEnoughSpace { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`TransferError::NotEnoughSpace`].
pub fn check_space(store: &Store, path: &Path, len: u64) -> Result<(), TransferError> {
    Space::at(store.root()).check(path, len)
}
