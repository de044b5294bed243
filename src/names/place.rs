//! Where the view lies from one opening of the store to the next.

use std::fs::{self, FileType};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::envelope::Keys;
use crate::names::sled::SledBackend;
use crate::names::{Backend, Failed};

/// Where a backend lies.
pub(super) trait Place: Send + Sync {
    /// Opens what is there; `None` where that can't be, and it may be removed.
    ///
    /// # Errors
    /// Where somebody uses it who did not come back from a call: nobody else may touch it then.
    fn open(&self, keys: &Keys) -> Result<Option<Arc<dyn Backend>>, Failed>;

    /// Begins anew, whatever is there.
    fn create(&self, keys: &Keys) -> Result<Arc<dyn Backend>, Failed>;

    /// Removes what is there.
    fn remove(&self) -> Result<(), Failed>;
}

/// A directory for sled.
pub(super) fn directory(path: PathBuf) -> Arc<dyn Place> {
    Arc::new(Directory(path))
}

struct Directory(PathBuf);

impl Place for Directory {
    fn open(&self, keys: &Keys) -> Result<Option<Arc<dyn Backend>>, Failed> {
        match SledBackend::open(&self.0, keys) {
            Ok(Some(backend)) => Ok(Some(Arc::new(backend))),
            Ok(None) => Err(Failed),
            Err(Failed) => Ok(None),
        }
    }

    fn create(&self, keys: &Keys) -> Result<Arc<dyn Backend>, Failed> {
        self.remove()?;
        fs::create_dir(&self.0).map_err(|_| Failed)?;
        Ok(Arc::new(SledBackend::open(&self.0, keys)?.ok_or(Failed)?))
    }

    fn remove(&self) -> Result<(), Failed> {
        let removed = match kind(&self.0) {
            Some(kind) if kind.is_dir() => fs::remove_dir_all(&self.0),
            _ => fs::remove_file(&self.0),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Failed),
            _ => Ok(()),
        }
    }
}

/// What a path itself is, not what a link leads to.
fn kind(path: &Path) -> Option<FileType> {
    fs::symlink_metadata(path).ok().map(|metadata| metadata.file_type())
}
