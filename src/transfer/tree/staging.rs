//! A directory in the destination of an export, in which all is made before it is moved to where it belongs.
//!
//! Others may be able to write to the destination, or be given access to what is made there by its default ACL. Only
//! its owner may write to the staging directory, and it has no ACL: both are verified through its descriptor before
//! anything is made in it. So everything in it was made by the export, and nobody else can replace it.
//!
//! What is in the root of the staging directory is moved when all is complete, and replaces nothing. Until all are
//! moved, only the owner has access to directories. So undoing a failed move removes what was made and nothing else,
//! and a directory whose mode forbids writing can be moved.

use std::io;
use std::path::PathBuf;

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FileType, Mode, RenameFlags, chmodat, fchmod, fremovexattr, fstat, linkat, mkdirat, openat, renameat,
    renameat_with, statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};

use super::{DIRECTORY, Found, Identity, Made, OTHERS_WRITE, OWNERS_FOLDER, Tree, list};
use crate::transfer::error::{TransferError, at};
use crate::transfer::path::TreePath;

/// The staging directory, which goes when this is dropped, with what is still in it.
#[derive(Debug)]
pub(crate) struct Staging {
    to: Tree,
    name: String,
    tree: Tree,
    /// What is in it may be somebody else's.
    keep: bool,
    removed: bool,
}

impl Staging {
    /// Creates it in an empty tree.
    pub(crate) fn create(to: Tree) -> Result<Self, TransferError> {
        let failed = |errno: Errno| at(&to.path)(errno.into());
        let number = getrandom::u64().map_err(|error| at(&to.path)(io::Error::other(error.to_string())))?;
        let name = format!(".strongroom-{number:016x}");
        mkdirat(&to.root, &name, OWNERS_FOLDER).map_err(failed)?;
        let opened = retry_on_intr(|| openat(&to.root, &name, DIRECTORY, Mode::empty()));
        let root = opened.map_err(|errno| {
            let _ = unlinkat(&to.root, &name, AtFlags::REMOVEDIR);
            failed(errno)
        })?;
        let mut staging =
            Self { tree: Tree { path: to.path.clone(), root, last: None }, to, name, keep: true, removed: false };
        let failed = |errno: Errno| at(&staging.to.path)(errno.into());
        if !is_safe(&staging.tree.root).map_err(failed)? {
            let problem = "can't keep what is written to it from others: export to a folder that nobody changes";
            return Err(TransferError::unsuitable(&staging.to.path, problem));
        }
        for acl in ["system.posix_acl_access", "system.posix_acl_default"] {
            match fremovexattr(&staging.tree.root, acl) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        staging.keep = false;
        Ok(staging)
    }

    /// Where to make everything. Its paths are those that things will have.
    pub(crate) fn tree(&mut self) -> &mut Tree {
        &mut self.tree
    }

    /// Moves what is in its root to where it belongs. Fails where something is there, and then leaves nothing. Returns
    /// the staging directory where it could not be removed.
    pub(crate) fn move_into_place(
        mut self,
        top: &[(&TreePath, Option<Made>)],
    ) -> Result<Option<PathBuf>, TransferError> {
        for (number, (path, _)) in top.iter().enumerate() {
            if let Err(errno) = move_new(&self.tree.root, path.as_bytes(), &self.to.root) {
                let failure = self.to.failed(path, errno);
                self.take_back(top.get(..number).unwrap_or_default());
                return Err(failure);
            }
        }
        self.set_modes(top)?;
        Ok(self.remove().err().map(|_| self.to.path.join(&self.name)))
    }

    /// Removes the directory with what is still in it.
    fn remove(&mut self) -> Result<(), Errno> {
        if std::mem::replace(&mut self.removed, true) {
            return Ok(());
        }
        if !self.keep {
            empty(&self.tree.root)?;
        }
        unlinkat(&self.to.root, &self.name, AtFlags::REMOVEDIR)
    }

    /// Sets the modes of the directories that were moved: of all but those that others have replaced.
    fn set_modes(&mut self, top: &[(&TreePath, Option<Made>)]) -> Result<(), TransferError> {
        let dirs = top.iter().filter_map(|(path, dir)| Some((path, dir.as_ref()?)));
        dirs.map(|(path, made)| self.to.set_dir_mode(path, made)).fold(Ok(()), Result::and)
    }

    /// Moves back what was moved, and lets be what others have put in its place.
    fn take_back(&mut self, top: &[(&TreePath, Option<Made>)]) {
        for (path, dir) in top {
            let name = path.as_bytes();
            if move_new(&self.to.root, name, &self.tree.root).is_err() {
                continue;
            }
            let stat = statat(&self.tree.root, name, AtFlags::SYMLINK_NOFOLLOW);
            let is_ours = stat.is_ok_and(|stat| match dir {
                Some(made) => Identity::of(&stat) == made.identity,
                None => !FileType::from_raw_mode(stat.st_mode).is_dir(),
            });
            if !is_ours {
                self.keep |= move_new(&self.tree.root, name, &self.to.root).is_err();
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = self.remove(); // the failure that led here is the one to report
    }
}

/// Whether a directory is empty, ours, and nobody else may write to it, as is so of one that was just created.
fn is_safe(dir: &OwnedFd) -> Result<bool, Errno> {
    let stat = fstat(dir)?;
    let is_private = !Mode::from_raw_mode(stat.st_mode).intersects(OTHERS_WRITE);
    Ok(stat.st_uid == user() && is_private && list(dir)?.found.is_empty())
}

/// Whose the files are that this process makes.
fn user() -> u32 {
    #[expect(unsafe_code, reason = "std has no call for it")]
    // SAFETY: the call has no arguments, touches no memory of ours and can't fail.
    unsafe {
        libc::geteuid()
    }
}

/// Moves something from one directory to another, where it must not be yet.
fn move_new(from: &OwnedFd, name: &[u8], to: &OwnedFd) -> Result<(), Errno> {
    match renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => move_by_link(from, name, to),
        other => other,
    }
}

/// Does the same where the file system can't: NFS. An empty directory is replaced by a directory.
fn move_by_link(from: &OwnedFd, name: &[u8], to: &OwnedFd) -> Result<(), Errno> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        return renameat(from, name, to, name);
    }
    linkat(from, name, to, name, AtFlags::empty())?;
    unlinkat(from, name, AtFlags::empty())
}

/// Removes all that is in a directory to which nobody else may write. Directories that are further down are moved up
/// into it first, so that few descriptors are enough for any depth.
fn empty(root: &OwnedFd) -> Result<(), Errno> {
    let mut number = 0_u64;
    loop {
        let found = list(root)?.found;
        if found.is_empty() {
            return Ok(());
        }
        for Found { name, kind, .. } in found {
            if !kind.is_dir() {
                unlinkat(root, &name[..], AtFlags::empty())?;
                continue;
            }
            let dir = open_writable(root, &name)?;
            for below in list(&dir)?.found {
                if below.kind.is_dir() {
                    open_writable(&dir, &below.name)?;
                    move_up(&dir, &below.name, root, &mut number)?;
                } else {
                    unlinkat(&dir, &below.name[..], AtFlags::empty())?;
                }
            }
            unlinkat(root, &name[..], AtFlags::REMOVEDIR)?;
        }
    }
}

/// Moves a directory to another one, under a name that nothing has there.
fn move_up(from: &OwnedFd, name: &[u8], to: &OwnedFd, number: &mut u64) -> Result<(), Errno> {
    loop {
        *number += 1;
        let new = number.to_string();
        match statat(to, &new, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => {}
            Err(Errno::NOENT) => return renameat(from, name, to, new),
            Err(errno) => return Err(errno),
        }
    }
}

/// Opens a directory to change what is in it, whatever its mode was.
fn open_writable(dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let open = || retry_on_intr(|| openat(dir, name, DIRECTORY, Mode::empty()));
    let opened = match open() {
        Err(Errno::ACCESS) => {
            chmodat(dir, name, OWNERS_FOLDER, AtFlags::empty())?;
            open()?
        }
        other => other?,
    };
    fchmod(&opened, OWNERS_FOLDER)?;
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::{Path, PathBuf};

    use super::*;

    const READ_ONLY: Mode = Mode::from_raw_mode(0o555);

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    /// A staging directory in `to`, beside a directory of somebody else, `foreign`.
    fn staging() -> (tempfile::TempDir, PathBuf, Staging) {
        let dir = tempfile::tempdir().unwrap();
        let (to, foreign) = (dir.path().join("to"), dir.path().join("foreign"));
        fs::create_dir_all(foreign.join("sub")).unwrap();
        fs::write(foreign.join("sub/file"), "foreign").unwrap();
        fs::set_permissions(&foreign, fs::Permissions::from_mode(0o711)).unwrap();
        let staging = Staging::create(Tree::create(&to).unwrap()).unwrap();
        (dir, to, staging)
    }

    fn count(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn nothing_is_staged_in_a_directory_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let is_safe = |mode: u32| {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            is_safe(&openat(super::super::CWD, dir.path(), DIRECTORY, Mode::empty()).unwrap()).unwrap()
        };
        assert!(is_safe(0o700) && is_safe(0o2700));
        assert!(!is_safe(0o720) && !is_safe(0o702) && !is_safe(0o1777));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(!is_safe(0o700), "something is in it");
    }

    #[test]
    fn what_is_staged_is_moved_when_it_is_complete() {
        let (_dir, to, mut staging) = staging();
        let tree = staging.tree();
        let [outer, inner, link] = ["dir", "dir/dir", "link"].map(path);
        let made = tree.create_dir(&outer, Some(READ_ONLY)).unwrap();
        let below = tree.create_dir(&inner, Some(READ_ONLY)).unwrap();
        tree.create_link(&link, b"anywhere").unwrap();
        tree.set_dir_mode(&inner, &below).unwrap();
        let staged = fs::read_dir(&to).unwrap().next().unwrap().unwrap().path();
        assert_eq!((count(&to), mode(&staged), mode(&staged.join("dir"))), (1, 0o700, 0o700));
        staging.move_into_place(&[(&outer, Some(made)), (&link, None)]).unwrap();
        assert_eq!((count(&to), mode(&to.join("dir")), mode(&to.join("dir/dir"))), (2, 0o555, 0o555));
        fs::set_permissions(to.join("dir"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn what_is_there_is_not_replaced_and_what_was_moved_is_taken_back() {
        let (dir, to, mut staging) = staging();
        let paths = ["a", "b", "c", "d"].map(path);
        let [a, b, c, d] = &paths;
        let tree = staging.tree();
        let dirs = [a, b].map(|path| (path, Some(tree.create_dir(path, Some(READ_ONLY)).unwrap())));
        tree.create_dir(&path("a/deep"), None).unwrap();
        tree.create_file(c, None, |_| Ok(())).unwrap();
        tree.create_link(d, b"x").unwrap();
        fs::write(to.join("d"), "foreign").unwrap();
        let failure =
            staging.move_into_place(&Vec::from_iter(dirs.into_iter().chain([(c, None), (d, None)]))).unwrap_err();
        assert!(failure.to_string().contains("exists"), "{failure}");
        assert_eq!((count(&to), &fs::read(to.join("d")).unwrap()[..]), (1, &b"foreign"[..]));

        // As if somebody had put their own in the place of what was moved.
        fs::remove_file(to.join("d")).unwrap();
        let mut staging = Staging::create(Tree::create(&to).unwrap()).unwrap();
        let made = staging.tree().create_dir(a, Some(READ_ONLY)).unwrap();
        staging.tree().create_file(b, None, |_| Ok(())).unwrap();
        let top = [(a, Some(made)), (b, None)];
        for name in ["a", "b"] {
            fs::rename(dir.path().join("foreign"), to.join(name)).unwrap();
            staging.take_back(&top);
            assert_eq!(mode(&to.join(name)), 0o711);
            fs::rename(to.join(name), dir.path().join("foreign")).unwrap();
        }
        drop(staging);
        assert_eq!(count(&to), 0);
        assert_eq!(fs::read(dir.path().join("foreign/sub/file")).unwrap(), b"foreign");
    }

    #[test]
    fn a_directory_that_took_the_place_of_a_moved_one_keeps_its_mode() {
        let (dir, to, mut staging) = staging();
        let paths = ["a", "b"].map(path);
        let top = paths.each_ref().map(|path| {
            let made = staging.tree().create_dir(path, Some(Mode::from_raw_mode(0o777))).unwrap();
            move_new(&staging.tree.root, path.as_bytes(), &staging.to.root).unwrap();
            (path, Some(made))
        });
        fs::rename(to.join("a"), dir.path().join("aside")).unwrap();
        fs::rename(dir.path().join("foreign"), to.join("a")).unwrap();
        assert!(staging.set_modes(&top).is_err());
        assert_eq!((mode(&to.join("a")), mode(&to.join("b"))), (0o711, 0o777));
    }

    #[test]
    fn what_is_not_moved_into_place_is_removed_however_deep_it_is_and_whatever_its_modes_are() {
        let (dir, to, mut staging) = staging();
        let tree = staging.tree();
        let mut dirs = Vec::new();
        for depth in 1..=TreePath::MAX.div_ceil(2) {
            let dir = path(&vec!["1"; depth].join("/"));
            dirs.push((tree.create_dir(&dir, Some(Mode::empty())).unwrap(), dir));
        }
        tree.create_dir(&path("1/2"), None).unwrap();
        tree.create_link(&path("1/1/link"), dir.path().join("foreign").as_os_str().as_encoded_bytes()).unwrap();
        symlink(dir.path().join("foreign"), dir.path().join("link")).unwrap();
        for (made, dir) in dirs.iter().rev() {
            tree.set_dir_mode(dir, made).unwrap();
        }
        drop(staging);
        assert_eq!(count(&to), 0);
        assert_eq!(fs::read(dir.path().join("foreign/sub/file")).unwrap(), b"foreign");
    }

    #[test]
    fn without_an_atomic_rename_nothing_is_replaced_either() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        let [one, other] = [&from, &to].map(|path| {
            fs::create_dir(path).unwrap();
            openat(super::super::CWD, path, DIRECTORY, Mode::empty()).unwrap()
        });
        fs::write(from.join("file"), "new").unwrap();
        symlink("file", from.join("link")).unwrap();
        fs::create_dir(from.join("dir")).unwrap();
        for name in ["file", "link", "dir"] {
            fs::create_dir(to.join(name)).unwrap();
            fs::write(to.join(name).join("file"), "old").unwrap();
            assert!(move_by_link(&one, name.as_bytes(), &other).is_err());
            assert_eq!(fs::read(to.join(name).join("file")).unwrap(), b"old");
            fs::remove_dir_all(to.join(name)).unwrap();
            move_by_link(&one, name.as_bytes(), &other).unwrap();
        }
        assert_eq!((count(&from), count(&to)), (0, 3));
        assert!(to.join("link").is_symlink());
    }
}
