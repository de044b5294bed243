//! The disk of the simulated file system: live state, durable state, and what lies between.
//!
//! # What a power cut keeps
//! - Of a file: what was synced, and of the 512-byte sectors written since, any subset, each in any version that was
//!   written since; the length is the synced one or any that a write made since, independent of the data. What lies
//!   beyond the length kept is gone; where the length was kept and the data not, there are zeros.
//! - Of a directory: what was synced, and of the changes of entries since, any subset, except that of the changes of
//!   one name a first part is kept. A rename within a directory is one change. One between two directories is two.
//! - A file of which no name was kept is gone, and so is a directory, with all that is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Fault, FileKind, Stat};

pub(super) const SECTOR: usize = 512;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File(u64),
    Dir,
}

/// What a call does, as far as a shortage is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// It needs a file descriptor.
    Opens,
    /// It needs memory.
    Works,
    /// It needs nothing: that it fails says nothing of what is durable, which is [`Fault::FailedSync`].
    Syncs,
}

/// A file's content.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) live: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// The versions of sectors written since the last sync, oldest first.
    pending: BTreeMap<usize, Vec<Vec<u8>>>,
    /// The lengths the file has had since.
    lengths: Vec<usize>,
    /// Sectors that a failed sync has left clean but not durable, with their durable content.
    lost: BTreeMap<usize, Vec<u8>>,
}

impl Inode {
    /// Makes what is live durable.
    pub(super) fn settle(&mut self) {
        self.durable = Arc::clone(&self.live);
        self.pending.clear();
        self.lengths.clear();
    }

    fn note_sectors(&mut self, range: Range<usize>) {
        for sector in range.start / SECTOR..range.end.div_ceil(SECTOR) {
            let version = sector_of(&self.live, sector);
            self.pending.entry(sector).or_default().push(version);
            self.lost.remove(&sector);
        }
    }

    fn fail_sync(&mut self) {
        for sector in std::mem::take(&mut self.pending).into_keys() {
            let durable = sector_of(&self.durable, sector);
            self.lost.entry(sector).or_insert(durable);
        }
    }

    fn power_cut(&self, random: &mut Random) -> Self {
        let mut content = self.durable.to_vec();
        let mut keep = |sector: usize, version: &[u8]| {
            let end = (sector + 1) * SECTOR;
            if content.len() < end {
                content.resize(end, 0);
            }
            if let Some(place) = content.get_mut(sector * SECTOR..end) {
                place.copy_from_slice(version);
            }
        };
        for (sector, versions) in &self.pending {
            if random.keeps() {
                let version = random.below(versions.len() as u64);
                versions.get(usize::try_from(version).unwrap_or_default()).into_iter().for_each(|v| keep(*sector, v));
            }
        }
        for (sector, durable) in &self.lost {
            if !random.keeps() {
                keep(*sector, durable);
            }
        }
        let mut lengths = vec![self.durable.len()];
        if random.keeps() {
            lengths.extend(&self.lengths);
        }
        let length = random.below(lengths.len() as u64);
        content.resize(lengths.get(usize::try_from(length).unwrap_or_default()).copied().unwrap_or_default(), 0);
        let content = Arc::new(content);
        Self { live: Arc::clone(&content), durable: content, ..Self::default() }
    }
}

fn sector_of(content: &[u8], sector: usize) -> Vec<u8> {
    let start = content.len().min(sector * SECTOR);
    let end = content.len().min(start + SECTOR);
    let mut version = content.get(start..end).unwrap_or_default().to_vec();
    version.resize(SECTOR, 0);
    version
}

/// The entries that one operation changes.
type Change = Vec<(String, Option<Node>)>;

#[derive(Clone, Debug, Default)]
struct Dir {
    live: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    pending: Vec<Change>,
}

impl Dir {
    fn change(&mut self, change: Change) {
        apply(&mut self.live, &change);
        self.pending.push(change);
    }

    fn power_cut(&self, random: &mut Random) -> BTreeMap<String, Node> {
        let mut entries = self.durable.clone();
        let mut given_up: BTreeSet<&str> = BTreeSet::new();
        for change in &self.pending {
            if random.keeps() && change.iter().all(|(name, _)| !given_up.contains(name.as_str())) {
                apply(&mut entries, change);
            } else {
                given_up.extend(change.iter().map(|(name, _)| name.as_str()));
            }
        }
        entries
    }
}

fn apply(entries: &mut BTreeMap<String, Node>, change: &Change) {
    for (name, node) in change {
        match node {
            Some(node) => entries.insert(name.clone(), *node),
            None => entries.remove(name),
        };
    }
}

/// SplitMix64, and how much a power cut keeps this time.
struct Random {
    state: u64,
    keep_in_1024: u64,
}

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self { state: seed, keep_in_1024: 0 };
        random.keep_in_1024 = match random.below(8) {
            0 => 0,
            1 => 1024,
            _ => random.below(1024),
        };
        random
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or_default()
    }

    fn keeps(&mut self) -> bool {
        self.below(1024) < self.keep_in_1024
    }
}

/// The whole state.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) operations: u64,
    pub(super) calls: u64,
    /// The calls that are refused.
    pub(super) shortage: Range<u64>,
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) full: bool,
    pub(super) capacity: Option<u64>,
    pub(super) read_only: bool,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) bad_reads: Vec<(PathBuf, Range<u64>)>,
    is_dead: bool,
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    dirs: BTreeMap<PathBuf, Dir>,
    /// Directories as they were under names that they had before: a power cut may bring those back.
    renamed: BTreeMap<PathBuf, Dir>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            operations: 0,
            calls: 0,
            shortage: 0..0,
            faults: BTreeMap::new(),
            full: false,
            capacity: None,
            read_only: false,
            locks: BTreeSet::new(),
            bad_reads: Vec::new(),
            is_dead: false,
            next_inode: 1,
            inodes: BTreeMap::new(),
            dirs: BTreeMap::from([(PathBuf::from("/"), Dir::default())]),
            renamed: BTreeMap::new(),
        }
    }

    pub(super) fn restarted(&self) -> Self {
        Self {
            operations: 0,
            calls: 0,
            shortage: 0..0,
            faults: BTreeMap::new(),
            locks: BTreeSet::new(),
            bad_reads: Vec::new(),
            is_dead: false,
            ..self.clone()
        }
    }

    pub(super) fn power_cut(&self, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut left = Self { capacity: self.capacity, next_inode: self.next_inode, ..Self::new() };
        let mut dirs = vec![PathBuf::from("/")];
        while let Some(path) = dirs.pop() {
            let dir = self.dirs.get(&path).or_else(|| self.renamed.get(&path));
            let entries = dir.map(|dir| dir.power_cut(&mut random)).unwrap_or_default();
            for (name, node) in &entries {
                match node {
                    Node::Dir => dirs.push(path.join(name)),
                    Node::File(inode) => {
                        // One that has two names is one file all the same.
                        if let Some(file) = self.inodes.get(inode).filter(|_| !left.inodes.contains_key(inode)) {
                            left.inodes.insert(*inode, file.power_cut(&mut random));
                        }
                    }
                }
            }
            left.dirs.insert(path, Dir { live: entries.clone(), durable: entries, pending: Vec::new() });
        }
        left
    }

    pub(super) fn powered(&self) -> io::Result<()> {
        if self.is_dead { Err(io::Error::other("power is cut")) } else { Ok(()) }
    }

    /// Counts a call, and refuses it where there is a shortage of what it needs.
    pub(super) fn admit(&mut self, call: Call) -> io::Result<()> {
        self.calls += 1;
        let errno = match call {
            Call::Opens => libc::EMFILE,
            Call::Works => libc::ENOMEM,
            Call::Syncs => return Ok(()),
        };
        if self.shortage.contains(&self.calls) { Err(io::Error::from_raw_os_error(errno)) } else { Ok(()) }
    }

    /// Counts an operation and says which fault it meets: `PowerCut` after having switched off everything.
    fn step(&mut self) -> io::Result<Option<Fault>> {
        self.powered()?;
        if self.read_only {
            return Err(ErrorKind::PermissionDenied.into());
        }
        self.operations += 1;
        let fault = self.faults.remove(&self.operations);
        match fault {
            Some(Fault::PowerCut) => self.is_dead = true,
            Some(Fault::Error) => return Err(io::Error::from_raw_os_error(5)),
            Some(Fault::Full) => self.full = true,
            _ => {}
        }
        Ok(fault)
    }

    fn space_for(&self, more: u64) -> io::Result<()> {
        let beyond = self.capacity.is_some_and(|capacity| self.used().saturating_add(more) > capacity);
        if more > 0 && (self.full || beyond) { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    pub(super) fn used(&self) -> u64 {
        let linked = self.dirs.values().flat_map(|dir| dir.live.values()).filter_map(|node| match node {
            Node::File(inode) => self.inodes.get(inode).map(|file| (*inode, file)),
            Node::Dir => None,
        });
        linked.collect::<BTreeMap<_, _>>().into_values().map(|inode| inode.live.len() as u64).sum()
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let names = self.dirs.iter().flat_map(|(path, dir)| dir.live.iter().map(move |entry| (path, entry)));
        names.filter(|(_, (_, node))| **node != Node::Dir).map(|(path, (name, _))| path.join(name)).collect()
    }

    pub(super) fn remove_tree(&mut self, path: &Path) {
        self.dirs.retain(|dir, _| !dir.starts_with(path));
        if let Some((parent, name)) = split(path)
            && let Some(parent) = self.dirs.get_mut(parent)
        {
            parent.live.remove(name);
            parent.durable.remove(name);
            parent.pending.clear();
        }
    }

    pub(super) fn entry(&self, path: &Path) -> Option<Node> {
        let (parent, name) = split(path)?;
        self.dirs.get(parent)?.live.get(name).copied()
    }

    pub(super) fn inode(&self, path: &Path) -> io::Result<u64> {
        match self.entry(path) {
            Some(Node::File(inode)) => Ok(inode),
            Some(Node::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn node(&self, inode: u64) -> io::Result<&Inode> {
        self.inodes.get(&inode).ok_or_else(|| ErrorKind::NotFound.into())
    }

    pub(super) fn node_mut(&mut self, inode: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&inode).ok_or_else(|| ErrorKind::NotFound.into())
    }

    pub(super) fn open(&self, path: &Path) -> io::Result<u64> {
        self.powered()?;
        self.inode(path)
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.powered()?;
        Ok(self.dirs.get(dir).ok_or(ErrorKind::NotFound)?.live.keys().cloned().collect())
    }

    pub(super) fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.powered()?;
        let kind = match self.entry(path) {
            Some(Node::File(_)) => FileKind::File,
            Some(Node::Dir) => FileKind::Directory,
            None if self.dirs.contains_key(path) => FileKind::Directory, // the root
            None => return Err(ErrorKind::NotFound.into()),
        };
        Ok(Stat { kind, device: 0, mode: 0o755 })
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        let inode = self.next_inode;
        let made = self.add_entry(path, Node::File(inode));
        if made.is_ok() || self.entry(path) == Some(Node::File(inode)) {
            self.next_inode += 1;
            self.inodes.insert(inode, Inode::default());
        }
        made.map(|()| inode)
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.powered().is_ok() && self.dirs.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let made = self.add_entry(path, Node::Dir);
        if self.entry(path) == Some(Node::Dir) {
            self.dirs.entry(path.to_path_buf()).or_default();
        }
        made
    }

    fn add_entry(&mut self, path: &Path, node: Node) -> io::Result<()> {
        self.step()?;
        let (parent, name) = split(path).ok_or(ErrorKind::InvalidInput)?;
        self.space_for(1)?;
        let parent = self.dirs.get_mut(parent).ok_or(ErrorKind::NotFound)?;
        if parent.live.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        parent.change(vec![(name.to_owned(), Some(node))]);
        self.powered()
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let node = self.entry(from).ok_or(ErrorKind::NotFound)?;
        if node == Node::Dir {
            self.rename_dir(from, to)?;
        }
        let ((from_dir, from_name), (to_dir, to_name)) = split(from).zip(split(to)).ok_or(ErrorKind::InvalidInput)?;
        let mut changes = vec![(from_dir, vec![(from_name.to_owned(), None)])];
        let arrives = (to_name.to_owned(), Some(node));
        match changes.first_mut() {
            Some((dir, change)) if *dir == to_dir => change.push(arrives),
            _ => changes.insert(0, (to_dir, vec![arrives])),
        }
        for (dir, change) in changes {
            self.dirs.get_mut(dir).ok_or(ErrorKind::NotFound)?.change(change);
        }
        self.powered()
    }

    /// Moves what is in a directory, with all below it.
    fn rename_dir(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if self.dirs.get(to).is_some_and(|dir| !dir.live.is_empty()) {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        let moved: Vec<PathBuf> = self.dirs.keys().filter(|dir| dir.starts_with(from)).cloned().collect();
        for path in moved {
            if let (Ok(below), Some(dir)) = (path.strip_prefix(from), self.dirs.remove(&path)) {
                let new = if below == Path::new("") { to.to_path_buf() } else { to.join(below) };
                self.renamed.insert(path, dir.clone());
                self.dirs.insert(new, dir);
            }
        }
        Ok(())
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.inode(from)?;
        self.add_entry(to, Node::File(inode))
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        match self.dirs.get(path) {
            None => return Err(ErrorKind::NotFound.into()),
            Some(dir) if !dir.live.is_empty() => return Err(ErrorKind::DirectoryNotEmpty.into()),
            Some(_) => {}
        }
        let (parent, name) = split(path).ok_or(ErrorKind::InvalidInput)?;
        self.dirs.get_mut(parent).ok_or(ErrorKind::NotFound)?.change(vec![(name.to_owned(), None)]);
        if let Some(dir) = self.dirs.remove(path) {
            self.renamed.insert(path.to_path_buf(), dir); // a power cut may bring it back
        }
        self.powered()
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.inode(path)?;
        let (parent, name) = split(path).ok_or(ErrorKind::InvalidInput)?;
        self.dirs.get_mut(parent).ok_or(ErrorKind::NotFound)?.change(vec![(name.to_owned(), None)]);
        self.powered()
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        let fault = self.step()?;
        self.powered()?;
        if fault == Some(Fault::FailedSync) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let dir = self.dirs.get_mut(dir).ok_or(ErrorKind::NotFound)?;
        dir.durable = dir.live.clone();
        dir.pending.clear();
        Ok(())
    }

    pub(super) fn read(&self, inode: u64, path: &Path, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.powered()?;
        let end = offset + buf.len() as u64;
        let is_bad = |(bad, range): &(PathBuf, Range<u64>)| bad == path && range.start < end && offset < range.end;
        if self.bad_reads.iter().any(is_bad) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let live = &self.node(inode)?.live;
        let rest = usize::try_from(offset).ok().and_then(|offset| live.get(offset..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    pub(super) fn len(&self, inode: u64) -> io::Result<u64> {
        self.powered()?;
        Ok(self.node(inode)?.live.len() as u64)
    }

    pub(super) fn write(&mut self, inode: u64, mut bytes: &[u8], offset: u64) -> io::Result<usize> {
        if self.step()? == Some(Fault::ShortWrite) {
            bytes = bytes.get(..bytes.len().div_ceil(2)).unwrap_or_default();
        }
        let start = usize::try_from(offset).map_err(|_| ErrorKind::InvalidInput)?;
        let end = start + bytes.len();
        self.space_for((end as u64).saturating_sub(self.node(inode)?.live.len() as u64))?;
        let node = self.node_mut(inode)?;
        let live = Arc::make_mut(&mut node.live);
        if live.len() < end {
            live.resize(end, 0);
            node.lengths.push(end);
        }
        if let Some(place) = live.get_mut(start..end) {
            place.copy_from_slice(bytes);
        }
        node.note_sectors(start..end);
        self.powered()?;
        Ok(bytes.len())
    }

    pub(super) fn set_len(&mut self, inode: u64, len: u64) -> io::Result<()> {
        self.step()?;
        let new = usize::try_from(len).map_err(|_| ErrorKind::InvalidInput)?;
        let old = self.node(inode)?.live.len();
        self.space_for((new as u64).saturating_sub(old as u64))?;
        let node = self.node_mut(inode)?;
        Arc::make_mut(&mut node.live).resize(new, 0);
        node.lengths.push(new);
        if new < old {
            node.note_sectors(new..old);
        }
        self.powered()
    }

    pub(super) fn sync(&mut self, inode: u64) -> io::Result<()> {
        let fault = self.step()?;
        self.powered()?;
        let node = self.node_mut(inode)?;
        if fault == Some(Fault::FailedSync) {
            node.fail_sync();
            return Err(io::Error::from_raw_os_error(5));
        }
        node.settle();
        Ok(())
    }
}

/// A path's directory and last name.
fn split(path: &Path) -> Option<(&Path, &str)> {
    path.parent().zip(path.file_name().and_then(|name| name.to_str()))
}
