//! Where a snapshot is to be, and whether it can be there.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, TargetProblem};
use crate::files::Layout;
use crate::store::open::{exists, parent_of};
use crate::tables::RunList;
use crate::vfs::Vfs;

/// A place where a snapshot can be made.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) parent: PathBuf,
    /// Where it is built.
    pub(super) unfinished: Layout,
}

impl Place {
    /// Finds out whether a snapshot can be made there.
    pub(super) fn find(vfs: &dyn Vfs, dir: &Path) -> Result<Self> {
        let in_use = || Error::NotEmpty { path: dir.to_path_buf() };
        let parent = parent_of(dir).ok_or_else(in_use)?;
        let mut name = dir.file_name().ok_or_else(in_use)?.to_os_string();
        match vfs.list(dir) {
            Ok(names) if names.is_empty() => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(_) => return Err(in_use()),
            Err(error) if error.kind() == ErrorKind::NotADirectory => return Err(in_use()),
            Err(error) => return Err(Error::io("list", dir)(error)),
        }
        let canonical = vfs.canonicalize(parent).map_err(Error::io("find", parent))?;
        if let Some(store) = store_around(vfs, &canonical)? {
            let problem = TargetProblem::InStore { store: store.to_path_buf() };
            return Err(Error::SnapshotTarget { path: dir.to_path_buf(), problem });
        }
        name.push(".incomplete");
        Ok(Self { dir: dir.to_path_buf(), parent: parent.to_path_buf(), unfinished: Layout::new(&parent.join(name)) })
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
