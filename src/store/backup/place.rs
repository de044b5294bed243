//! Where a snapshot is to be, and whether it can be there.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, TargetProblem};
use crate::files::Layout;
use crate::store::open::exists;
use crate::tables::RunList;
use crate::vfs::{FileKind, Vfs, parent_of};

/// The permission bits of a directory that only its owner may use.
pub(super) const OWNER_ONLY: u32 = 0o700;

/// A place where a snapshot can be made.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) parent: PathBuf,
    /// Where it is built.
    pub(super) unfinished: Layout,
    /// The permission bits that it gets: those of the directory that it replaces, else those of the store's.
    pub(super) mode: u32,
}

impl Place {
    /// Finds out whether a snapshot of a store can be made there.
    pub(super) fn find(vfs: &dyn Vfs, dir: &Path, store: &Path) -> Result<Self> {
        let in_use = || Error::NotEmpty { path: dir.to_path_buf() };
        let parent = parent_of(dir).ok_or_else(in_use)?;
        let mut name = dir.file_name().ok_or_else(in_use)?.to_os_string();
        let refused = |problem| Err(Error::SnapshotTarget { path: dir.to_path_buf(), problem });
        let there = match vfs.stat(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            found => Some(found.map_err(Error::io("look at", dir))?),
        };
        match there.map(|there| there.kind) {
            Some(FileKind::Directory) if vfs.list(dir).map_err(Error::io("list", dir))?.is_empty() => {}
            Some(FileKind::Directory | FileKind::File | FileKind::Other) => return Err(in_use()),
            Some(FileKind::Link) => return refused(TargetProblem::Link),
            None => {}
        }
        let canonical = vfs.canonicalize(parent).map_err(Error::io("find", parent))?;
        let device = vfs.stat(&canonical).map_err(Error::io("look at", &canonical))?.device;
        if there.is_some_and(|there| there.device != device) {
            return refused(TargetProblem::MountPoint);
        }
        if let Some(store) = store_around(vfs, &canonical)? {
            return refused(TargetProblem::InStore { store: store.to_path_buf() });
        }
        name.push(".incomplete");
        let like = match there {
            Some(there) => there,
            None => {
                let root = vfs.canonicalize(store).map_err(Error::io("find", store))?;
                vfs.stat(&root).map_err(Error::io("look at", &root))?
            }
        };
        Ok(Self {
            dir: dir.to_path_buf(),
            parent: parent.to_path_buf(),
            unfinished: Layout::new(&parent.join(name)),
            mode: like.mode | OWNER_ONLY,
        })
    }
}

/// The store that a directory is, or lies in.
fn store_around<'a>(vfs: &dyn Vfs, dir: &'a Path) -> Result<Option<&'a Path>> {
    for dir in dir.ancestors() {
        let layout = Layout::new(dir);
        if exists(vfs, &layout.format())? && exists(vfs, &RunList::path(&layout.runs()))? {
            return Ok(Some(dir));
        }
    }
    Ok(None)
}
