//! Storing the files of a tree.

use std::io::{self, ErrorKind};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread::Builder;

use rustix::fs::Mode;

use crate::blobs::{Expect, SourceFile};
use crate::digest::Digest;
use crate::error::Error;
use crate::store::Store;
use crate::transfer::error::{TransferError, at};
use crate::transfer::path::TreePath;
use crate::transfer::progress::Counting;
use crate::transfer::report::{LeftOut, Why};
use crate::transfer::space::Space;
use crate::transfer::tree::Tree;
use crate::transfer::workers::at_once;

/// A file to store, and what its digest has to be.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) path: TreePath,
    /// What it had when it was listed.
    pub(crate) len: u64,
    pub(crate) expect: Expect,
}

/// A file that was stored.
#[derive(Debug)]
pub(crate) struct StoredFile {
    pub(crate) path: TreePath,
    pub(crate) mode: Mode,
    pub(crate) digest: Digest,
    /// How much was read: no more than it had when it was opened.
    pub(crate) len: u64,
}

/// A store that something is imported into, and who is told how far that has come.
#[derive(Debug)]
pub(crate) struct Importing<'a> {
    pub(crate) store: &'a Store,
    pub(crate) space: Space,
    pub(crate) counting: &'a Counting<'a>,
}

impl Importing<'_> {
    /// Stores files; returns them in the same order, without those that are left out.
    pub(crate) fn store_files(
        &self,
        tree: &mut Tree,
        jobs: Vec<Job>,
        left_out: &mut LeftOut,
    ) -> Result<Vec<StoredFile>, TransferError> {
        jobs.iter().try_for_each(|job| self.space.check(&tree.whole(&job.path), job.len))?;
        self.counting.expect(jobs.iter().fold(0, |bytes, job| bytes.saturating_add(job.len)));
        let queue = Mutex::new((tree, jobs.into_iter().enumerate()));
        // One at a time, so that few descriptors are open, and files of a directory are opened one after the other.
        let next = || {
            let mut queue = queue.lock().ok()?;
            let (number, job) = queue.1.next()?;
            let (opened, whole) = (queue.0.open_file(&job.path), queue.0.whole(&job.path));
            Some((number, job, whole, opened))
        };
        let done = at_once(Builder::new, |stop| {
            let mut done = Vec::new();
            while !stop.load(Ordering::Relaxed)
                && let Some((number, Job { path, expect, .. }, whole, opened)) = next()
            {
                let stored = match opened {
                    Ok(None) => Err((path, Why::Changed)),
                    Err(TransferError::File { source, .. }) if source.kind() == ErrorKind::WouldBlock => {
                        Err((path, Why::Leased))
                    }
                    Err(failure) => return Err(failure),
                    Ok(Some(opened)) => {
                        let watch = |bytes| self.counting.add_unless(stop, bytes);
                        let file = SourceFile { file: &opened.file, len: opened.len, watch: &watch };
                        let stored = self.store.put_source(file, expect).map_err(|error| match error {
                            Error::Source { source } => at(&whole)(io::Error::new(source.kind(), source)),
                            other => other.into(),
                        })?;
                        self.counting.item().map_err(|_| TransferError::Stopped)?;
                        Ok(StoredFile { path, mode: opened.mode, digest: stored.digest, len: stored.len })
                    }
                };
                done.push((number, stored));
            }
            Ok(done)
        });
        let mut done = self.counting.unless_stopped(done)?;
        done.sort_unstable_by_key(|(number, _)| *number);
        let mut all = Vec::with_capacity(done.len());
        for (_, stored) in done {
            match stored {
                Ok(stored) => all.push(stored),
                Err((path, why)) => left_out.add(path.as_bytes(), why),
            }
        }
        Ok(all)
    }
}
