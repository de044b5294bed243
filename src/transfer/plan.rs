//! What an export makes: checked as a whole before any of it is written.
//!
//! The documents that an export reads are content that anybody may have stored. In a [`Plan`], every path is one below
//! the root, and each is in a directory of the plan that came before it. It is carried out in an order in which no
//! link, and no directory's mode, is in the way of anything: directories, files, links, and the directories' modes from
//! the bottom up.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use crate::blobs::Blob;
use crate::digest::Digest;
use crate::error::Error;
use crate::store::Store;
use crate::transfer::error::{TransferError, at};
use crate::transfer::path::TreePath;
use crate::transfer::progress::Counting;
use crate::transfer::tree::{Made, OTHERS_WRITE, Tree};
use rustix::fs::Mode;

/// Writes a blob's content to its end.
pub(crate) fn copy(blob: &Blob, to: &mut File, path: &Path, counting: &Counting<'_>) -> Result<(), TransferError> {
    let copied = io::copy(&mut counting.count(blob.reader()), to).and_then(|_| counting.item());
    // What fails is the store inside of the I/O error, or the file.
    let copied = copied.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => TransferError::Store(error),
        Err(error) => at(path)(error),
    });
    counting.unless_stopped(copied)
}

/// What owner, group and others may do.
const PERMISSIONS: Mode = Mode::from_raw_mode(0o777);

/// What is to be at a path. Without a mode, it gets what the umask leaves.
#[derive(Debug)]
pub(crate) enum Entry {
    Dir { mode: Option<Mode> },
    File { mode: Option<Mode>, digest: Digest },
    Link { target: Box<[u8]> },
}

/// What is to be in a folder.
#[derive(Debug, Default)]
pub(crate) struct Plan(BTreeMap<TreePath, Entry>);

impl Plan {
    /// Adds something that is in the root, or in a directory that was added before.
    pub(crate) fn add(&mut self, path: TreePath, entry: Entry) -> Result<(), TransferError> {
        let (dir, _) = path.split();
        let problem = match self.0.get(dir) {
            _ if self.0.contains_key(&path) => "is there twice",
            None if !dir.is_empty() => "is in a directory that is not listed before it",
            Some(Entry::File { .. }) => "is below a file",
            Some(Entry::Link { .. }) => "is below a link",
            None | Some(Entry::Dir { .. }) => {
                self.0.insert(path, entry);
                return Ok(());
            }
        };
        Err(TransferError::Path { path: path.as_path().to_owned(), problem })
    }

    /// Takes the bits that are no permissions from all modes: set-user-ID, set-group-ID and sticky. To a directory that
    /// was sticky only its owner may write then: others may not remove what is not theirs. Returns from how many modes.
    pub(crate) fn drop_special_bits(&mut self) -> usize {
        let mut count = 0;
        for entry in self.0.values_mut() {
            let (mode, is_dir) = match entry {
                Entry::Dir { mode: Some(mode) } => (mode, true),
                Entry::File { mode: Some(mode), .. } => (mode, false),
                _ => continue,
            };
            if PERMISSIONS.contains(*mode) {
                continue;
            }
            if is_dir && mode.contains(Mode::SVTX) {
                *mode -= OTHERS_WRITE;
            }
            *mode &= PERMISSIONS;
            count += 1;
        }
        count
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&TreePath, Option<Mode>, &Digest)> {
        self.0.iter().filter_map(|(path, entry)| match entry {
            Entry::File { mode, digest } => Some((path, *mode, digest)),
            _ => None,
        })
    }

    /// How many bytes there are to write. Fails where the store does not have all the blobs.
    pub(crate) fn bytes(&self, store: &Store) -> Result<u64, TransferError> {
        let mut bytes = 0_u64;
        for (.., digest) in self.files() {
            bytes = bytes.saturating_add(store.stat(digest)?.len);
        }
        Ok(bytes)
    }

    /// Writes everything into a tree. Returns what is in its root; of the directories there the modes are still to be
    /// set, once they are where they belong.
    pub(crate) fn write(
        &self,
        store: &Store,
        tree: &mut Tree,
        counting: &Counting<'_>,
    ) -> Result<Vec<(&TreePath, Option<Made>)>, TransferError> {
        let (mut top, mut below) = (Vec::new(), Vec::new());
        for (path, entry) in &self.0 {
            match entry {
                Entry::Dir { mode } if path.is_top() => top.push((path, Some(tree.create_dir(path, *mode)?))),
                Entry::Dir { mode } => below.push((path, tree.create_dir(path, *mode)?)),
                _ if path.is_top() => top.push((path, None)),
                _ => {}
            }
        }
        for (path, mode, digest) in self.files() {
            let blob = store.get(digest)?;
            let whole = tree.whole(path);
            tree.create_file(path, mode, |file| copy(&blob, file, &whole, counting))?;
        }
        for (path, entry) in &self.0 {
            if let Entry::Link { target } = entry {
                tree.create_link(path, target)?;
            }
        }
        for (path, made) in below.iter().rev() {
            tree.set_dir_mode(path, made)?;
        }
        Ok(top)
    }
}
