//! A directory tree that others may change while it is read or written.
//!
//! A [`Tree`] holds its root open and reaches everything below it name by name, each with `openat` in the directory
//! before it. This is the only place where import and export touch a file system, and it keeps these promises:
//!
//! - No link is followed, and no `..` either, since a [`TreePath`] can't have one: nothing outside of the root is read,
//!   created or changed, whatever another process does to the tree meanwhile.
//! - A file is read once `fstat` has said that what was opened is a regular file. Opening does not block.
//! - What is written is created by the same call, in a directory of its own to which nobody else may write, and moved
//!   from there when it is complete: see [`Staging`]. Modes are set through a descriptor: of the file that was created,
//!   or of a directory that is the one that was created.
//! - Besides the root and a file in use, at most two descriptors are open: the directory that was used last is kept, so
//!   that what is in it needs no walk from the root.

mod staging;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, linkat, mkdirat, openat, readlinkat, statat,
    symlinkat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};

use crate::transfer::error::{TransferError, at};
use crate::transfer::path::TreePath;

pub(crate) use staging::Staging;

/// How every directory, and every file that is read, is opened.
const NO_LINK: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);
const TO_READ: OFlags = NO_LINK.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const DIRECTORY: OFlags = NO_LINK.union(OFlags::DIRECTORY);

/// The modes that files and directories are created with where the umask decides, and where they get another one in the
/// end.
const FILE: Mode = Mode::from_raw_mode(0o666);
const FOLDER: Mode = Mode::from_raw_mode(0o777);
const OWNERS_FILE: Mode = Mode::from_raw_mode(0o600);
const OWNERS_FOLDER: Mode = Mode::from_raw_mode(0o700);

/// What nobody but the owner may do in a directory in which nothing is to be exchanged or removed.
pub(crate) const OTHERS_WRITE: Mode = Mode::WGRP.union(Mode::WOTH);

/// How long a lease of a file is waited for, and how long between two attempts.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// A directory as it was listed.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) mode: Mode,
    /// What is in it, by name.
    pub(crate) found: Vec<Found>,
}

/// Something in a directory, as it was when that was listed.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: FileType,
    pub(crate) mode: Mode,
    pub(crate) len: u64,
}

/// A regular file, opened to be read.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) mode: Mode,
    pub(crate) len: u64,
}

/// A directory that was created. It is the owner's alone until it gets its mode.
#[derive(Debug)]
pub(crate) struct Made {
    identity: Identity,
    mode: Mode,
}

/// Which directory it is, whatever its name is, and whose.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    owner: u32,
    mode: Mode,
}

/// A directory and what is below it.
#[derive(Debug)]
pub(crate) struct Tree {
    /// What the root was called, for messages.
    path: PathBuf,
    root: OwnedFd,
    /// The directory that was used last.
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Tree {
    /// Opens a directory. The path is the user's: links in it are followed.
    pub(crate) fn open(path: &Path) -> Result<Self, TransferError> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = retry_on_intr(|| openat(CWD, path, flags, Mode::empty()));
        Ok(Self { path: path.to_owned(), root: root.map_err(|errno| at(path)(errno.into()))?, last: None })
    }

    /// Creates a directory, or opens an empty one. Others may be able to change the directory that it is in, so a link
    /// is not followed.
    pub(crate) fn create(path: &Path) -> Result<Self, TransferError> {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(path)(error)),
            _ => {}
        }
        let root = match retry_on_intr(|| openat(CWD, path, DIRECTORY, Mode::empty())) {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let problem = "is no directory; a link to one is not followed, unless a / stands behind it";
                return Err(TransferError::unsuitable(path, problem));
            }
            other => other.map_err(|errno| at(path)(errno.into()))?,
        };
        let mut tree = Self { path: path.to_owned(), root, last: None };
        let listing = tree.list(None)?;
        if listing.is_none_or(|listing| !listing.found.is_empty()) {
            return Err(at(path)(io::ErrorKind::DirectoryNotEmpty.into()));
        }
        Ok(tree)
    }

    /// What kind of thing a path names, if there is one.
    pub(crate) fn kind(&mut self, path: &TreePath) -> Result<Option<FileType>, TransferError> {
        let stat = self.parent(path).and_then(|(dir, name)| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW));
        Ok(self.unless_changed(path, stat)?.map(|stat| FileType::from_raw_mode(stat.st_mode)))
    }

    /// Lists a directory, or the root; `None` where that is no directory any more.
    pub(crate) fn list(&mut self, dir: Option<&TreePath>) -> Result<Option<Listing>, TransferError> {
        let listed = self.dir(dir.map_or(&[], TreePath::as_bytes)).and_then(list);
        match dir {
            Some(path) => self.unless_changed(path, listed),
            None => listed.map(Some).map_err(|errno| at(&self.path)(errno.into())),
        }
    }

    /// Opens a file; `None` where what is there is no regular file, or nothing is there any more. Whoever has a lease
    /// of it, as file servers have, is asked by the system to give it up, and gets a moment for that.
    pub(crate) fn open_file(&mut self, path: &TreePath) -> Result<Option<Opened>, TransferError> {
        let limit = Instant::now() + PATIENCE;
        let opened = loop {
            match self.open_at(path, TO_READ) {
                Err(Errno::AGAIN) if Instant::now() < limit => thread::sleep(PAUSE),
                other => break other,
            }
        };
        let opened = self.unless_changed(path, opened)?;
        Ok(opened.filter(|(_, stat)| FileType::from_raw_mode(stat.st_mode).is_file()).map(|(file, stat)| Opened {
            file: file.into(),
            mode: Mode::from_raw_mode(stat.st_mode),
            len: length(&stat),
        }))
    }

    /// Where a link points to; `None` where what is there is no link any more.
    pub(crate) fn read_link(&mut self, path: &TreePath) -> Result<Option<Vec<u8>>, TransferError> {
        let target = self.parent(path).and_then(|(dir, name)| match readlinkat(dir, name, Vec::new()) {
            Err(Errno::INVAL) => Err(Errno::NOTDIR), // it is something else
            other => other,
        });
        Ok(self.unless_changed(path, target)?.map(std::ffi::CString::into_bytes))
    }

    /// Creates a directory, which is the owner's alone until its mode is [set](Self::set_dir_mode). Without a mode, it
    /// gets what the umask leaves.
    pub(crate) fn create_dir(&mut self, path: &TreePath, mode: Option<Mode>) -> Result<Made, TransferError> {
        self.make_dir(path, mode).map_err(|errno| self.failed(path, errno))
    }

    fn make_dir(&mut self, path: &TreePath, mode: Option<Mode>) -> Result<Made, Errno> {
        let (dir, name) = self.parent(path)?;
        mkdirat(dir, name, if mode.is_some() { OWNERS_FOLDER } else { FOLDER })?;
        if let Some(mode) = mode {
            let stat = fstat(self.dir(path.as_bytes())?)?;
            return Ok(Made { identity: Identity::of(&stat), mode });
        }
        let (dir, stat) = self.open_at(path, DIRECTORY)?;
        fchmod(&dir, OWNERS_FOLDER)?;
        Ok(Made { identity: Identity::of(&fstat(&dir)?), mode: Mode::from_raw_mode(stat.st_mode) })
    }

    /// Creates a file with what `write` writes to it, or none where that fails. Where it is to have a mode, it is the
    /// owner's alone until then.
    pub(crate) fn create_file(
        &mut self,
        path: &TreePath,
        mode: Option<Mode>,
        write: impl FnOnce(&mut File) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let mut file = self.make_file(path, if mode.is_some() { OWNERS_FILE } else { FILE })?;
        if let Err(error) = write(&mut file) {
            let _ = self.parent(path).and_then(|(dir, name)| unlinkat(dir, name, AtFlags::empty()));
            return Err(error);
        }
        mode.map_or(Ok(()), |mode| fchmod(&file, mode)).map_err(|errno| self.failed(path, errno))
    }

    /// Creates a file that is written piece by piece, and gets what the umask leaves.
    pub(crate) fn create_empty(&mut self, path: &TreePath) -> Result<File, TransferError> {
        self.make_file(path, FILE)
    }

    fn make_file(&mut self, path: &TreePath, mode: Mode) -> Result<File, TransferError> {
        let flags = NO_LINK | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let created = self.parent(path).and_then(|(dir, name)| retry_on_intr(|| openat(dir, name, flags, mode)));
        Ok(created.map_err(|errno| self.failed(path, errno))?.into())
    }

    /// Gives a file a second name. `false` where there is no such file, or the file system can't.
    pub(crate) fn link(&mut self, from: &TreePath, to: &TreePath) -> bool {
        let from = self.parent(from).ok().and_then(|(dir, name)| Some((dir.try_clone().ok()?, name)));
        let (Some((dir, name)), Ok((to_dir, to_name))) = (from, self.parent(to)) else { return false };
        linkat(&dir, name, to_dir, to_name, AtFlags::empty()).is_ok()
    }

    /// Creates a link, which nothing here ever follows.
    pub(crate) fn create_link(&mut self, path: &TreePath, target: &[u8]) -> Result<(), TransferError> {
        let made = self.parent(path).and_then(|(dir, name)| symlinkat(target, dir, name));
        made.map_err(|errno| self.failed(path, errno))
    }

    /// Sets the mode of a directory that [`create_dir`](Self::create_dir) has made.
    pub(crate) fn set_dir_mode(&mut self, path: &TreePath, made: &Made) -> Result<(), TransferError> {
        let (dir, stat) = self.open_at(path, DIRECTORY).map_err(|errno| self.failed(path, errno))?;
        if Identity::of(&stat) != made.identity {
            return Err(TransferError::unsuitable(self.whole(path), "was replaced while it was written"));
        }
        fchmod(&dir, made.mode).map_err(|errno| self.failed(path, errno))
    }

    /// A path as messages have it.
    pub(crate) fn whole(&self, path: &TreePath) -> PathBuf {
        self.path.join(path.as_path())
    }

    fn open_at(&mut self, path: &TreePath, flags: OFlags) -> Result<(OwnedFd, Stat), Errno> {
        let (dir, name) = self.parent(path)?;
        let opened = retry_on_intr(|| openat(dir, name, flags, Mode::empty()))?;
        let stat = fstat(&opened)?;
        Ok((opened, stat))
    }

    /// The directory that a path is in, and its name there.
    fn parent<'a>(&mut self, path: &'a TreePath) -> Result<(&OwnedFd, &'a [u8]), Errno> {
        let (dir, name) = path.split();
        Ok((self.dir(dir)?, name))
    }

    /// The directory of a path. It is good for reaching what is in it, and needs no right to list it.
    fn dir(&mut self, path: &[u8]) -> Result<&OwnedFd, Errno> {
        let (mut open, mut rest) = (None, path);
        if let Some((known, dir)) = self.last.take()
            && let Some(below) = path.strip_prefix(&known[..]).filter(|below| matches!(below, [] | [b'/', ..]))
        {
            (open, rest) = (Some(dir), below);
        }
        for name in rest.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let from = open.as_ref().unwrap_or(&self.root);
            let next = retry_on_intr(|| openat(from, name, DIRECTORY | OFlags::PATH, Mode::empty()))?;
            open = Some(next);
        }
        Ok(match open {
            Some(dir) => &self.last.insert((path.to_vec(), dir)).1,
            None => &self.root,
        })
    }

    /// Tells what was removed, or replaced by something of another kind, from other failures.
    fn unless_changed<T>(&self, path: &TreePath, result: Result<T, Errno>) -> Result<Option<T>, TransferError> {
        match result {
            Ok(value) => Ok(Some(value)),
            // A socket and a device without a driver can't be opened.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV) => Ok(None),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    fn failed(&self, path: &TreePath, errno: Errno) -> TransferError {
        at(&self.whole(path))(errno.into())
    }
}

impl Identity {
    fn of(stat: &Stat) -> Self {
        let mode = Mode::from_raw_mode(stat.st_mode);
        Self { device: stat.st_dev, inode: stat.st_ino, owner: stat.st_uid, mode }
    }
}

fn list(dir: &OwnedFd) -> Result<Listing, Errno> {
    let opened = retry_on_intr(|| openat(dir, ".", DIRECTORY, Mode::empty()))?;
    let mode = Mode::from_raw_mode(fstat(&opened)?.st_mode);
    let mut entries = Dir::new(opened)?;
    let mut found = Vec::new();
    while let Some(entry) = entries.read() {
        let name = entry?.file_name().to_owned();
        if matches!(name.as_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue, // it is gone by now
            other => other?,
        };
        let (kind, mode) = (FileType::from_raw_mode(stat.st_mode), Mode::from_raw_mode(stat.st_mode));
        found.push(Found { name: name.into_bytes(), kind, mode, len: length(&stat) });
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(Listing { mode, found })
}

fn length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    /// A tree with `dir/file`, and a directory beside it with the same.
    fn trees() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        for (tree, content) in [("tree", "inside"), ("outside", "secret")] {
            fs::create_dir_all(dir.path().join(tree).join("dir")).unwrap();
            fs::write(dir.path().join(tree).join("dir/file"), content).unwrap();
        }
        let tree = Tree::open(&dir.path().join("tree")).unwrap();
        (dir, tree)
    }

    #[test]
    fn what_was_replaced_after_it_was_listed_is_not_read() {
        let (dir, mut tree) = trees();
        let (inside, outside) = (dir.path().join("tree/dir"), dir.path().join("outside/dir"));
        let file = inside.join("file");
        assert_eq!(tree.list(Some(&path("dir"))).unwrap().unwrap().found.len(), 1);
        let pipe = || assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        let replacements: [&dyn Fn(); 4] =
            [&|| {}, &|| symlink(outside.join("file"), &file).unwrap(), &|| fs::create_dir(&file).unwrap(), &pipe];
        for replace in replacements {
            let _ = fs::remove_file(&file).or_else(|_| fs::remove_dir(&file));
            replace();
            assert!(tree.open_file(&path("dir/file")).unwrap().is_none());
        }
        assert!(tree.read_link(&path("dir/file")).unwrap().is_none());

        fs::rename(&inside, dir.path().join("aside")).unwrap();
        symlink(&outside, &inside).unwrap();
        let mut tree = Tree::open(&dir.path().join("tree")).unwrap();
        assert!(tree.open_file(&path("dir/file")).unwrap().is_none());
        assert!(tree.list(Some(&path("dir"))).unwrap().is_none());
        assert!(tree.create_file(&path("dir/new"), None, |_| Ok(())).is_err());
        assert!(tree.create_dir(&path("dir/new"), None).is_err());
        assert!(tree.create_link(&path("dir/new"), b"x").is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn what_is_there_is_never_written_over() {
        let (dir, mut tree) = trees();
        symlink("../outside/dir/file", dir.path().join("tree/link")).unwrap();
        symlink("../outside/new", dir.path().join("tree/nowhere")).unwrap();
        for name in ["dir", "dir/file", "link", "nowhere"] {
            assert!(tree.create_file(&path(name), None, |_| Ok(())).is_err());
            assert!(tree.create_dir(&path(name), None).is_err());
            assert!(tree.create_link(&path(name), b"x").is_err());
        }
        assert!(!dir.path().join("outside/new").exists());
    }

    #[test]
    fn a_mode_is_set_of_the_directory_that_was_made() {
        let (dir, mut tree) = trees();
        let (made, outside) = (dir.path().join("tree/made"), dir.path().join("outside/dir"));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        let (wanted, before) = (Mode::from_raw_mode(0o501), mode(&outside));
        let created = tree.create_dir(&path("made"), Some(wanted)).unwrap();
        assert_eq!(mode(&made), 0o700);
        fs::rename(&made, dir.path().join("aside")).unwrap();
        fs::create_dir(&made).unwrap();
        fs::set_permissions(&made, fs::Permissions::from_mode(0o711)).unwrap();
        assert!(tree.set_dir_mode(&path("made"), &created).is_err(), "it is another one");
        assert_eq!(mode(&made), 0o711);
        fs::remove_dir(&made).unwrap();
        symlink(&outside, &made).unwrap();
        assert!(tree.set_dir_mode(&path("made"), &created).is_err(), "it is a link");
        assert_eq!(mode(&outside), before);
        fs::remove_file(&made).unwrap();
        fs::rename(dir.path().join("aside"), &made).unwrap();
        tree.set_dir_mode(&path("made"), &created).unwrap();
        assert_eq!(mode(&made), 0o501);
        assert!(tree.set_dir_mode(&path("made"), &created).is_err(), "somebody else has set its mode");

        let created = tree.create_dir(&path("umask"), None).unwrap();
        let (umask, by_umask) = (dir.path().join("tree/umask"), mode(&dir.path().join("tree")));
        assert_eq!(mode(&umask), 0o700);
        tree.set_dir_mode(&path("umask"), &created).unwrap();
        assert_eq!(mode(&umask), by_umask);
    }

    #[test]
    fn the_directory_that_was_used_last_is_told_from_others() {
        let (dir, mut tree) = trees();
        for (name, content) in [("a/b/f", "1"), ("a/b/c/f", "2"), ("a/bc/f", "3"), ("f", "4"), ("a/f", "5")] {
            let whole = dir.path().join("tree").join(name);
            fs::create_dir_all(whole.parent().unwrap()).unwrap();
            fs::write(whole, content).unwrap();
        }
        for (name, content) in
            ["a/b/f", "a/b/c/f", "a/bc/f", "a/b/f", "f", "a/f", "a/bc/f"].into_iter().zip("1231453".chars())
        {
            let mut found = String::new();
            tree.open_file(&path(name)).unwrap().unwrap().file.read_to_string(&mut found).unwrap();
            assert_eq!(found, content.to_string(), "{name}");
        }
    }
}
