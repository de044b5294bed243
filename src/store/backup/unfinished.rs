//! The directory in which a snapshot is built, `NAME.incomplete`, until it is renamed.
//!
//! What an earlier snapshot has left there is removed, and nothing else: the directory must have a marker, and only
//! names that a snapshot has. The marker is durable before anything else is in the directory, and is removed after all
//! else, or once the snapshot has its own name. A crash right before that leaves a whole snapshot with a marker in it,
//! which its next opening for writing removes. No link is followed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::layout::{Layout, is_shard, parse_id};
use crate::files::remove_if_there;
use crate::store::backup::place::OWNER_ONLY;
use crate::store::open::{make_dir, sync_dir, try_lock};
use crate::tables::RunList;
use crate::vfs::{FileKind, OpenMode, Vfs};

/// Makes the directory, or empties one that an earlier snapshot has left, and returns its lock.
///
/// # Errors
/// [`Error::NotEmpty`] where it is anything else; [`Error::Locked`] while another call builds there.
pub(super) fn begin(vfs: &dyn Vfs, layout: &Layout) -> Result<Box<dyn Send + Sync>> {
    let root = layout.root();
    make_dir(vfs, root)?;
    let marker = layout.unfinished();
    let names = entries(vfs, layout, root)?;
    if !names.is_empty() && !names.iter().any(|name| root.join(name) == marker) {
        return Err(not_empty(layout));
    }
    match vfs.open(&marker, OpenMode::CreateNew) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        created => drop(created.map_err(Error::io("create", &marker))?),
    }
    sync_dir(vfs, root)?;
    let lock = try_lock(vfs, layout)?;
    vfs.set_mode(root, OWNER_ONLY).map_err(Error::io("set the permissions of", root))?;
    clear(vfs, layout)?;
    Ok(lock)
}

/// Removes the marker of a snapshot that is whole.
pub(super) fn end(vfs: &dyn Vfs, layout: &Layout) -> Result<()> {
    remove_if_there(vfs, &layout.unfinished())?;
    sync_dir(vfs, layout.root())
}

/// Removes the directory.
pub(super) fn remove(vfs: &dyn Vfs, layout: &Layout) -> Result<()> {
    clear(vfs, layout)?;
    remove_if_there(vfs, &layout.lock())?;
    sync_dir(vfs, layout.root())?;
    end(vfs, layout)?;
    vfs.remove_dir(layout.root()).map_err(Error::io("remove", layout.root()))
}

/// Removes all but the marker and the lock.
fn clear(vfs: &dyn Vfs, layout: &Layout) -> Result<()> {
    let left = Left::find(vfs, layout)?;
    left.files.iter().try_for_each(|file| vfs.remove(file).map_err(Error::io("remove", file)))?;
    left.dirs.iter().rev().try_for_each(|dir| vfs.remove_dir(dir).map_err(Error::io("remove", dir)))
}

/// What is in the directory, but for the marker and the lock.
#[derive(Default)]
struct Left {
    files: Vec<PathBuf>,
    /// Each behind the one that it is in.
    dirs: Vec<PathBuf>,
}

impl Left {
    /// Finds it, unless there is anything that a snapshot does not have.
    fn find(vfs: &dyn Vfs, layout: &Layout) -> Result<Self> {
        let mut left = Self::default();
        let root = layout.root();
        for name in entries(vfs, layout, root)? {
            let path = root.join(name);
            if path == layout.runs() {
                left.add(vfs, layout, path)?;
            } else if path == layout.logs() || path == layout.segments() {
                let shards = entries(vfs, layout, &path)?;
                left.dirs.push(path.clone());
                for shard in shards {
                    if !is_shard(&shard) {
                        return Err(not_empty(layout));
                    }
                    left.add(vfs, layout, path.join(shard))?;
                }
            } else if path == layout.format() {
                left.files.push(path);
            } else if path != layout.unfinished() && path != layout.lock() {
                return Err(not_empty(layout));
            }
        }
        Ok(left)
    }

    /// Adds a directory of files.
    fn add(&mut self, vfs: &dyn Vfs, layout: &Layout, dir: PathBuf) -> Result<()> {
        for name in entries(vfs, layout, &dir)? {
            let path = dir.join(&name);
            let is_list = dir == layout.runs() && RunList::NAMES.contains(&name.as_str());
            let is_file = |id| [layout.run(id), layout.log(id), layout.segment(id)].contains(&path);
            if !is_list && !parse_id(&name).is_some_and(is_file) {
                return Err(not_empty(layout));
            }
            self.files.push(path);
        }
        self.dirs.push(dir);
        Ok(())
    }
}

/// The names in a directory of the snapshot's, which is no link.
fn entries(vfs: &dyn Vfs, layout: &Layout, dir: &Path) -> Result<Vec<String>> {
    match vfs.stat(dir).map_err(Error::io("look at", dir))?.kind {
        FileKind::Directory => vfs.list(dir).map_err(Error::io("list", dir)),
        FileKind::File | FileKind::Link | FileKind::Other => Err(not_empty(layout)),
    }
}

fn not_empty(layout: &Layout) -> Error {
    Error::NotEmpty { path: layout.root().to_path_buf() }
}
