//! The directory of the view between openings of the store.
//!
//! A directory may come from anywhere: from an archive, or from an attacker who could write to the store for a moment.
//! sled follows links, and writes to, truncates and removes what they lead to. So the directory is checked before sled
//! opens it: it may have only files without a second name, and one level of real directories. Otherwise it is removed,
//! without following links, and the view is rebuilt. (This does not protect against somebody who can write to the store
//! at the same time.)

use std::fs::{self, FileType};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
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
    /// Where a call that has hung still uses it: nothing else may touch it then.
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
        if !is_ours(&self.0) {
            return Ok(None);
        }
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

    /// Neither call follows a link, at the path or below it.
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

/// Whether there is a directory with nothing in it but files, and one level of directories of files. None of them has
/// another name.
fn is_ours(dir: &Path) -> bool {
    let below = |dir: &Path| has_only(dir, &|_| false);
    kind(dir).is_some_and(|kind| kind.is_dir()) && has_only(dir, &below)
}

fn has_only(dir: &Path, may_be_dir: &dyn Fn(&Path) -> bool) -> bool {
    let Ok(mut entries) = fs::read_dir(dir) else { return false };
    entries.all(|entry| {
        let Ok(path) = entry.map(|entry| entry.path()) else { return false };
        fs::symlink_metadata(&path).is_ok_and(|found| match found.is_dir() {
            true => may_be_dir(&path),
            false => found.is_file() && found.nlink() <= 1,
        })
    })
}
