//! Snapshots: a consistent copy of a store that is in use, made of links where the file system has them.
//!
//! A copy is what a process that was killed right after a commit would leave, without anything that such a process may
//! leave half done: the next opening of it has nothing to recover. It is a store like any other.
//!
//! # What it consists of
//! - `FORMAT`, and a list of its own, which says that the log ends with that commit;
//! - links to files that are never changed again: runs, sealed log files, segments. Where a link can't be made (the
//!   copy is on another file system), a copy, or a link to the file that an earlier snapshot has;
//! - copies of what still grows, as far as it counts: the log file that is being written, and segments of uploads.
//!
//! Nothing else: neither the view of names nor the reserve. So no file of the copy that its next user may write to is
//! one of the store, and none that the store writes to is one of the copy. (What is linked may be unlinked by both.)
//!
//! # How it is made
//! It is built in a directory beside, `NAME.incomplete`, and renamed once all of it is durable. What a crash has left
//! there is removed by the next one, which knows it by a [marker](unfinished). Which files there are is read at one
//! moment, while nobody commits; then they are linked, while everything goes on. A file that was removed meanwhile was
//! given up by a later commit: so the moment is taken anew, and what is linked already stays, as far as it is still
//! needed. Only what came in between is new, so this ends soon. A file that is missing at two moments is lost: it is
//! reported, and the copy is made without it. Of a file that has to be copied and can't be read everywhere, the copy
//! has zeros there: that is reported too.

mod parts;
mod place;
mod target;
mod unfinished;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::id::Lsn;
use crate::store::{Inner, Store};
use parts::Moment;
use target::Target;

/// A log file that is being written is copied, as far as it is written, if that is no more than so many bytes;
/// otherwise a new one is begun first, and it is linked.
const COPIED_LOG: u64 = 1 << 20;

/// How a [snapshot](Store::snapshot_to) is made.
///
/// ```
/// use strongroom::SnapshotOptions;
///
/// // To another disk, where links can't be made: files that last week's has are linked from there.
/// let options = SnapshotOptions::new().base("/backup/store-2026-11-23");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SnapshotOptions {
    base: Option<PathBuf>,
    links: bool,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self { base: None, links: true }
    }
}

impl SnapshotOptions {
    /// Links where they can be made, and copies where not.
    pub fn new() -> Self {
        Self::default()
    }

    /// An earlier snapshot of the store, in the file system that the new one goes to: files that it has are linked from
    /// it where they would have to be copied otherwise. So a snapshot on another disk costs space, and writing, for
    /// what is new. It costs reading all: each file is compared to the end, since the base's may be damaged by now.
    pub fn base(mut self, snapshot: impl Into<PathBuf>) -> Self {
        self.base = Some(snapshot.into());
        self
    }

    /// Whether files of the store are linked; yes by default. Without links the snapshot shares nothing with the store,
    /// not even its fate on a disk that fails.
    pub fn links(mut self, links: bool) -> Self {
        self.links = links;
        self
    }
}

/// What a snapshot consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotReport {
    /// The last commit that it has.
    pub lsn: Lsn,
    /// How many of its files are links to the store's, or to those of the [base](SnapshotOptions::base).
    pub linked_files: u64,
    /// How many bytes those have.
    pub linked_bytes: u64,
    /// How many files were written: at least two, `FORMAT` and the list.
    pub copied_files: u64,
    /// How many bytes those have.
    pub copied_bytes: u64,
    /// Files that the store should have and has not, or that can't be opened: what was in them is damaged in the
    /// snapshot as it is in the store. [`Store::scrub`] says what that is.
    pub missing: Vec<PathBuf>,
    /// Files of which the disk could not read all. In the copy there are zeros in each block of 4 KiB that could not be
    /// read; what was there is damaged in the snapshot as it is in the store.
    pub unreadable: Vec<PathBuf>,
}

impl Store {
    /// Makes a snapshot: a consistent copy of the store in another directory, as of one commit, while reads and writes
    /// go on. It is a store like this one, also to write to, with the same keys, and stays as it is whatever becomes of
    /// this one. It appears as a whole when it is durable; after a crash there is none, and the next call with this
    /// directory removes what was left of it (`NAME.incomplete`).
    ///
    /// Until then only its owner may use the directory. It gets the permissions of the empty one that it replaces, or
    /// else those of the store's directory; files that are links have those of the store's files.
    ///
    /// Files are linked where that is possible, so it costs a link for each file, and space only for what is removed
    /// later. Copied are `FORMAT`, at most a mebibyte of the log, and what unfinished uploads have; and all files where
    /// the directory is in another file system. A commit waits at most for as long as it takes to begin a log file.
    ///
    /// A store that is open for [reading only](crate::Options::read_only) can be copied too, beside the process that
    /// writes it: as of its last commit, since this moves the store [forward](Self::refresh) first.
    ///
    /// ```
    /// use strongroom::{Algorithm, Options, SnapshotOptions};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = Options::new().create(true).open(dir.path().join("store"))?;
    /// let digest = store.put("content", Algorithm::Sha256)?.digest;
    /// let report = store.snapshot_to(dir.path().join("monday"), &SnapshotOptions::new())?;
    /// assert_eq!(report.lsn, store.last_lsn());
    ///
    /// store.remove(&digest)?;
    /// let monday = Options::new().open(dir.path().join("monday"))?;
    /// assert_eq!(monday.get(&digest)?.bytes()?, "content");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotEmpty`] where something is in the directory already, or where `NAME.incomplete` has anything in it
    /// that an unfinished snapshot has not; [`Error::SnapshotTarget`] where the directory is a mount point or a link,
    /// or lies in a store; [`Error::Locked`] while another call makes a snapshot there; [`Error::NotAStore`] where the
    /// base is none; [`Error::Full`], and [`Error::Io`] where the directory's parent does not exist or can't be written
    /// to; [`Error::Poisoned`] after a failed sync of the store; [`Error::Closed`]. In each case there is no snapshot,
    /// and the store is as it was. Damage is no error: it is copied as it is, what can't be read included; the report
    /// says so.
    pub fn snapshot_to(&self, dir: impl AsRef<Path>, options: &SnapshotOptions) -> Result<SnapshotReport> {
        self.inner()?.snapshot_to(dir.as_ref(), options)
    }
}

impl Inner {
    fn snapshot_to(&self, dir: &Path, options: &SnapshotOptions) -> Result<SnapshotReport> {
        let vfs = &*self.options.vfs;
        let mut target = Target::begin(vfs, (self.files.layout().root(), dir), options)?;
        let made = self.build(&mut target).and_then(|report| target.finish().map(|()| report));
        made.inspect_err(|_| target.remove())
    }

    fn build(&self, target: &mut Target<'_>) -> Result<SnapshotReport> {
        let mut missing_before: BTreeSet<PathBuf> = BTreeSet::new();
        loop {
            let moment = Moment::now(self)?;
            target.retain(&moment.parts)?;
            let mut missing = BTreeSet::new();
            for part in &moment.parts {
                self.files.check_open()?;
                if !target.add(part)? {
                    missing.insert(part.from.clone());
                }
            }
            if missing.is_subset(&missing_before) {
                target.write(&moment)?;
                let unreadable = moment.parts.iter().filter(|part| target.is_unreadable(part));
                return Ok(SnapshotReport {
                    lsn: moment.lsn(),
                    missing: missing.into_iter().collect(),
                    unreadable: unreadable.map(|part| part.from.clone()).collect(),
                    ..target.report()
                });
            }
            missing_before = missing;
        }
    }
}
