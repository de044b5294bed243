//! What importing and exporting folders and image layouts have in common.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use indicatif::ProgressBar;
use serde_json::json;
use strongroom::{Digest, Expect, Store};

use crate::commands::{Failure, at};
use crate::document::{self, DOCUMENT_MAX, read};
use crate::oci;
use crate::output::{Output, size};
use crate::plan::Plan;
use crate::tree::Tree;

/// So many files are stored at a time: those that wait for the disk share its syncs.
const WORKERS: usize = 16;

/// What an import did.
#[derive(Debug, Default)]
pub struct Report {
    pub files: usize,
    pub bytes_in: u64,
    pub bytes_stored: u64,
    /// What the name stood for before.
    pub replaced: Option<Digest>,
}

impl Report {
    pub fn print(&self, name: &str, output: &Output) {
        let replaced = self.replaced.map(|digest| digest.to_string());
        let document = json!({
            "name": name, "files": self.files, "bytes_in": self.bytes_in, "bytes_stored": self.bytes_stored,
            "replaced": replaced,
        });
        let replaced = replaced.map_or_else(String::new, |digest| format!("\nreplaced {digest}"));
        let text = format!(
            "{name}: {} files, {} ({} bytes) in, {} ({} bytes) stored anew{replaced}",
            self.files,
            size(self.bytes_in),
            self.bytes_in,
            size(self.bytes_stored),
            self.bytes_stored
        );
        output.print(&document, &text);
    }
}

/// A file to store, and what its digest has to be.
pub type Job = (PathBuf, Expect);

/// Stores files, and returns their digests and lengths in the same order.
pub fn store_files(store: &Store, jobs: Vec<Job>, progress: &ProgressBar) -> Result<Vec<(Digest, u64)>, Failure> {
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let work = || {
        let mut done = Vec::new();
        while let Some((number, (path, expect))) = queue.lock().ok().and_then(|mut queue| queue.next()) {
            let file = fs::File::open(&path).map_err(at(&path))?;
            let len = file.metadata().map_err(at(&path))?.len();
            let digest = store.put_reader(progress.wrap_read(file), expect)?;
            done.push((number, (digest, len)));
        }
        Ok::<_, Failure>(done)
    };
    let mut stored = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        let mut stored = Vec::new();
        for worker in workers {
            stored.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, Failure>(stored)
    })?;
    stored.sort_unstable_by_key(|(number, _)| *number);
    Ok(stored.into_iter().map(|(_, result)| result).collect())
}

/// What becomes of the set-user-ID, set-group-ID and sticky bits in an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialBits {
    Drop,
    Set,
}

/// What an export did.
#[derive(Debug)]
pub struct Exported {
    files: usize,
    /// How many modes are without their special bits.
    dropped: usize,
}

impl Exported {
    pub fn print(&self, name: &str, output: &Output) {
        let Self { files, dropped } = self;
        let mut text = format!("{name}: {files} files");
        if *dropped > 0 {
            text += &format!("\nleft out: the special bits of {dropped} modes; --special-bits sets them");
        }
        output.print(&json!({ "name": name, "files": files, "special_bits_left_out": dropped }), &text);
    }
}

/// Writes what was imported under a name to a new folder.
pub fn export(store: &Store, name: &str, to: &Path, bits: SpecialBits, output: &Output) -> Result<Exported, Failure> {
    let mut plan = plan(store, name)?;
    let dropped = if bits == SpecialBits::Set { 0 } else { plan.drop_special_bits() };
    let progress = output.bytes(plan.bytes(store)?);
    plan.write(store, &mut Tree::create(to)?, &progress)?;
    progress.finish_and_clear();
    Ok(Exported { files: plan.files().count(), dropped })
}

/// What there is to write of what was imported under a name.
pub fn plan(store: &Store, name: &str) -> Result<Plan, Failure> {
    let pin = store.get_pin(name)?;
    let document = read(store, &pin.digest, DOCUMENT_MAX)?;
    if oci::is_index(&document) { oci::plan(store, &pin) } else { document::plan(store, name, &document) }
}
