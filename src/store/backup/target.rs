//! Building a snapshot in a directory of its own, until it is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, TargetProblem, is_unreadable};
use crate::files::{Layout, open_dir, remove_if_there};
use crate::store::backup::parts::{Extent, Moment, Part};
use crate::store::backup::place::Place;
use crate::store::backup::{SnapshotOptions, SnapshotReport, unfinished};
use crate::store::open::{make_dir, sync_dir};
use crate::tables::RunList;
use crate::vfs::{File, OpenMode, Vfs};
use crate::wire::{index, len64};

/// How much is copied, or compared, at a time, in bytes.
const PIECE: u64 = 1 << 20;

/// How much is given up where something can't be read, in bytes.
const UNREADABLE: u64 = 4096;

/// A snapshot that is being built.
pub(super) struct Target<'a> {
    vfs: &'a dyn Vfs,
    /// Where it is to be.
    dir: PathBuf,
    parent: PathBuf,
    /// Where it is built, until it is renamed.
    layout: Layout,
    mode: u32,
    base: Option<PathBuf>,
    links: bool,
    made: BTreeMap<PathBuf, Made>,
    /// Directories whose entries have changed.
    dirs: BTreeSet<PathBuf>,
    /// Keeps others from building there.
    _lock: Box<dyn Send + Sync>,
}

/// A file of it.
struct Made {
    extent: Extent,
    is_linked: bool,
    /// Whether all that is copied of it could be read.
    is_whole: bool,
    len: u64,
}

impl<'a> Target<'a> {
    /// Begins one, and removes what an earlier one has left that was not finished.
    pub(super) fn begin(vfs: &'a dyn Vfs, (store, dir): (&Path, &Path), options: &SnapshotOptions) -> Result<Self> {
        let place = Place::find(vfs, dir, store)?;
        if let Some(base) = &options.base {
            let format = Layout::new(base).format();
            vfs.open(&format, OpenMode::Read).map_err(|error| match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => Error::NotAStore { path: base.clone() },
                _ => Error::io("open", &format)(error),
            })?;
        }
        let lock = unfinished::begin(vfs, &place.unfinished)?;
        let mut target = Self {
            vfs,
            dir: place.dir,
            parent: place.parent,
            layout: place.unfinished,
            mode: place.mode,
            base: options.base.clone(),
            links: options.links,
            made: BTreeMap::new(),
            dirs: BTreeSet::new(),
            _lock: lock,
        };
        let dirs = [target.layout.logs(), target.layout.runs(), target.layout.segments()];
        match dirs.iter().try_for_each(|dir| target.prepare(dir)) {
            Ok(()) => Ok(target),
            Err(error) => {
                target.remove();
                Err(error)
            }
        }
    }

    /// Makes a directory, whose entries are going to change.
    fn prepare(&mut self, dir: &Path) -> Result<()> {
        if !self.dirs.contains(dir) {
            make_dir(self.vfs, dir)?;
            self.dirs.insert(dir.to_path_buf());
        }
        Ok(())
    }

    /// Removes files that are none of these any more, or of which another extent is needed.
    pub(super) fn retain(&mut self, parts: &[Part]) -> Result<()> {
        let wanted: BTreeMap<&PathBuf, Extent> = parts.iter().map(|part| (&part.path, part.extent)).collect();
        let is_wanted = |path: &PathBuf, made: &Made| wanted.get(path) == Some(&made.extent);
        let unwanted: Vec<PathBuf> =
            self.made.iter().filter(|(path, made)| !is_wanted(path, made)).map(|(path, _)| path.clone()).collect();
        for path in unwanted {
            remove_if_there(self.vfs, &self.layout.root().join(&path))?;
            self.made.remove(&path);
        }
        Ok(())
    }

    /// Adds a file, unless it is there; `false` where the store does not have it, or it can't be opened.
    pub(super) fn add(&mut self, part: &Part) -> Result<bool> {
        if self.made.contains_key(&part.path) {
            return Ok(true);
        }
        let to = self.layout.root().join(&part.path);
        if let Some(dir) = to.parent() {
            self.prepare(dir)?;
        }
        let file = match self.vfs.open(&part.from, OpenMode::Read) {
            Err(error) if error.kind() == ErrorKind::NotFound || is_unreadable(&error) => return Ok(false),
            other => other.map_err(Error::io("open", &part.from))?,
        };
        let len = file.len().map_err(Error::io("read the length of", &part.from))?;
        let (len, is_fixed) = match part.extent {
            Extent::Whole => (len, true),
            Extent::SealedAt(end) => (len.min(end), len == end),
            Extent::Growing(end) => (len.min(end), false),
        };
        let is_linked = is_fixed && (self.link(&part.from, &to)? || self.link_of_base(part, &*file, len, &to)?);
        let is_whole = is_linked || self.copy((&*file, &part.from), len, &to)?;
        self.made.insert(part.path.clone(), Made { extent: part.extent, is_linked, is_whole, len });
        Ok(true)
    }

    /// Whether a file was added of which not all could be read.
    pub(super) fn is_unreadable(&self, part: &Part) -> bool {
        self.made.get(&part.path).is_some_and(|made| !made.is_whole)
    }

    /// Links a file of the store; `false` where it has to be copied. (It may be gone by now: it is open.)
    fn link(&mut self, from: &Path, to: &Path) -> Result<bool> {
        if !self.links {
            return Ok(false);
        }
        let refused = self.try_link(from, to)?;
        // Of no other file either, where it is for the whole file system.
        self.links = !matches!(refused, Some(ErrorKind::CrossesDevices | ErrorKind::Unsupported));
        Ok(refused.is_none())
    }

    /// Links a file, and returns why it can't be: unless for want of space, which a copy would want too.
    fn try_link(&self, from: &Path, to: &Path) -> Result<Option<ErrorKind>> {
        match self.vfs.link(from, to) {
            Err(error) if error.kind() == ErrorKind::StorageFull => Err(Error::io("link", to)(error)),
            linked => Ok(linked.err().map(|error| error.kind())),
        }
    }

    /// Links the file that the base has, if it is the same; `false` where it has to be copied.
    fn link_of_base(&self, part: &Part, file: &dyn File, len: u64, to: &Path) -> Result<bool> {
        let Some(from) = self.base.as_ref().map(|base| base.join(&part.path)) else { return Ok(false) };
        let is_same = self.vfs.open(&from, OpenMode::Read).and_then(|old| is_same(file, &*old, len));
        if !is_same.unwrap_or_default() {
            return Ok(false);
        }
        Ok(self.try_link(&from, to)?.is_none())
    }

    /// Copies a file. Where it can't be read, the copy has zeros; `false` where that is so.
    fn copy(&self, (file, path): (&dyn File, &Path), len: u64, to: &Path) -> Result<bool> {
        let new = self.vfs.open(to, OpenMode::CreateNew).map_err(Error::io("create", to))?;
        let mut is_whole = true;
        for piece in pieces(0..len, PIECE) {
            if copy_piece((file, path), &piece, (&*new, to))? {
                new.start_writeback(piece.start, piece.end - piece.start);
                continue;
            }
            for block in pieces(piece, UNREADABLE) {
                is_whole &= copy_piece((file, path), &block, (&*new, to))?;
            }
        }
        if !is_whole {
            new.set_len(len).map_err(Error::io("extend", to))?;
        }
        new.sync().map_err(Error::io("sync", to))?;
        Ok(is_whole)
    }

    /// Writes what the copy has of its own.
    pub(super) fn write(&mut self, moment: &Moment) -> Result<()> {
        let runs = self.layout.runs();
        let list = moment.list.write(self.vfs, &runs, &moment.keys)?;
        list.sync().map_err(Error::io("sync", &runs))?;
        RunList::replace(self.vfs, &runs, &*open_dir(self.vfs, &runs)?)?;
        self.note_written("LIST", list.len().map_err(Error::io("read the length of", &runs))?);
        let path = self.layout.format();
        let format = self.vfs.open(&path, OpenMode::CreateNew).map_err(Error::io("create", &path))?;
        format.write_all_at(&moment.format, 0).map_err(Error::io("write", &path))?;
        self.note_written("FORMAT", len64(&moment.format));
        format.sync().map_err(Error::io("sync", &path))
    }

    fn note_written(&mut self, name: &str, len: u64) {
        self.made.insert(name.into(), Made { extent: Extent::Whole, is_linked: false, is_whole: true, len });
    }

    /// Makes all of it durable, and then lets it appear.
    pub(super) fn finish(&mut self) -> Result<()> {
        let root = self.layout.root();
        self.vfs.set_mode(root, self.mode).map_err(Error::io("set the permissions of", root))?;
        self.dirs.insert(root.to_path_buf());
        // A directory comes behind the one that it is in.
        self.dirs.iter().rev().try_for_each(|dir| sync_dir(self.vfs, dir))?;
        let parent = open_dir(self.vfs, &self.parent)?;
        self.vfs.rename(self.layout.root(), &self.dir).map_err(|error| match error.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                Error::NotEmpty { path: self.dir.clone() }
            }
            // Of the same file system as what is around it.
            ErrorKind::ResourceBusy => {
                Error::SnapshotTarget { path: self.dir.clone(), problem: TargetProblem::MountPoint }
            }
            _ => Error::io("rename", self.layout.root())(error),
        })?;
        self.layout = Layout::new(&self.dir);
        parent.sync().map_err(Error::io("sync", &self.parent))?;
        unfinished::end(self.vfs, &self.layout)
    }

    /// Removes it, since something failed; what can't be removed, the next one there removes.
    pub(super) fn remove(&mut self) {
        let _ = unfinished::remove(self.vfs, &self.layout);
    }

    pub(super) fn report(&self) -> SnapshotReport {
        let mut report = SnapshotReport::default();
        for made in self.made.values() {
            let (files, bytes) = match made.is_linked {
                true => (&mut report.linked_files, &mut report.linked_bytes),
                false => (&mut report.copied_files, &mut report.copied_bytes),
            };
            *files += 1;
            *bytes = bytes.saturating_add(made.len);
        }
        report
    }
}

/// Copies a range of a file; `false` where it can't be read.
fn copy_piece((file, path): (&dyn File, &Path), range: &Range<u64>, (new, to): (&dyn File, &Path)) -> Result<bool> {
    let mut piece = vec![0; index(range.end - range.start)];
    match file.read_exact_at(&mut piece, range.start) {
        Err(error) if is_unreadable(&error) => return Ok(false),
        read => read.map_err(Error::io("read", path))?,
    }
    new.write_all_at(&piece, range.start).map_err(Error::io("write", to))?;
    Ok(true)
}

/// A range in pieces that are no longer than this.
fn pieces(range: Range<u64>, len: u64) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    let starts = std::iter::successors(Some(range.start), move |start| start.checked_add(len));
    starts.take_while(move |start| *start < end).map(move |start| start..end.min(start.saturating_add(len)))
}

/// Whether two files are the same. All of them is read: a base may have rotted since it was made.
fn is_same(one: &dyn File, other: &dyn File, len: u64) -> io::Result<bool> {
    if one.len()? != len || other.len()? != len {
        return Ok(false);
    }
    for piece in pieces(0..len, PIECE) {
        let mut read = [vec![0; index(piece.end - piece.start)], vec![0; index(piece.end - piece.start)]];
        let [mine, its] = &mut read;
        one.read_exact_at(mine, piece.start)?;
        other.read_exact_at(its, piece.start)?;
        if mine != its {
            return Ok(false);
        }
    }
    Ok(true)
}
