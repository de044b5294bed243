//! What importing and exporting folders and image layouts have in common.

use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;

use rustix::fs::Mode;
use serde_json::json;
use strongroom::{Digest, Expect, Store};

use crate::commands::Failure;
use crate::document::{self, DOCUMENT_MAX, read};
use crate::output::{Output, escaped, shown, size};
use crate::path::{RawPath, TreePath};
use crate::pins::{Existing, NewPin};
use crate::plan::Plan;
use crate::space::Space;
use crate::tree::{Staging, Tree};
use crate::{folder, oci};

/// So many files are stored at a time: those that wait for the disk share its syncs.
const WORKERS: usize = 16;

/// So many names of what was left out are told.
const LISTED: usize = 1000;

/// What an import did.
#[derive(Debug, Default)]
pub struct Report {
    pub files: usize,
    pub bytes_in: u64,
    pub bytes_stored: u64,
    pub left_out: LeftOut,
    /// What the name stood for before.
    pub replaced: Option<Digest>,
}

impl Report {
    pub fn print(&self, name: &str, output: &Output) {
        let Self { files, bytes_in, bytes_stored, left_out, .. } = self;
        let replaced = self.replaced.map(|digest| digest.to_string());
        let listed = left_out.listed.iter();
        let told: Vec<_> = listed.clone().map(|(path, why)| json!({ "path": path, "why": why.text() })).collect();
        let document = json!({
            "name": name, "files": files, "bytes_in": bytes_in, "bytes_stored": bytes_stored, "replaced": replaced,
            "left_out": told, "left_out_count": left_out.count,
        });
        let (read, anew) = (size(*bytes_in), size(*bytes_stored));
        let name = escaped(name);
        let mut lines = vec![format!(
            "{name}: {files} files, {read} ({bytes_in} bytes) in, {anew} ({bytes_stored} bytes) stored anew"
        )];
        lines.extend(replaced.map(|digest| format!("replaced {digest}")));
        lines.extend(listed.map(|(path, why)| format!("left out: {}: {}", shown(path.as_path()), why.text())));
        let more = left_out.count - left_out.listed.len();
        lines.extend((more > 0).then(|| format!("left out: {more} more")));
        output.print(&document, &lines.join("\n"));
    }
}

/// What becomes of the set-user-ID, set-group-ID and sticky bits in an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialBits {
    Drop,
    Set,
}

/// What was left out of an import.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// The first of it.
    pub listed: Vec<(RawPath, Why)>,
    count: usize,
}

/// Why something was left out.
#[derive(Clone, Copy, Debug)]
pub enum Why {
    /// It is a pipe, a socket or a device.
    Special,
    /// It was replaced or removed between listing and opening.
    Changed,
    /// Another process has a lease of it, and does not give it up.
    Leased,
    /// An export could not make its path.
    TooLong,
    /// An image layout has no such file.
    Stray,
    /// What should be a blob of an image layout is a link, a directory, a pipe …
    NoFile,
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Self::Special => "neither a file, a directory nor a link",
            Self::Changed => "removed or replaced while it was read",
            Self::Leased => "held by a lease of another process",
            Self::TooLong => "its path is too long",
            Self::Stray => "not part of an image layout",
            Self::NoFile => "no regular file; links in an image layout are not followed",
        }
    }
}

impl LeftOut {
    pub fn add(&mut self, path: &[u8], why: Why) {
        self.count += 1;
        if self.listed.len() < LISTED {
            self.listed.push((RawPath(path.to_vec()), why));
        }
    }
}

/// A file to store, and what its digest has to be.
#[derive(Debug)]
pub struct Job {
    pub path: TreePath,
    /// What it had when it was listed.
    pub len: u64,
    pub expect: Expect,
}

/// A file that was stored.
#[derive(Debug)]
pub struct Stored {
    pub path: TreePath,
    pub mode: Mode,
    pub digest: Digest,
    /// How much was read: no more than it had when it was opened.
    pub len: u64,
}

/// A store that something is imported into, and who is told how far that has come.
#[derive(Debug)]
pub struct Importing<'a> {
    pub store: &'a Store,
    space: Space,
    output: &'a Output,
}

impl Importing<'_> {
    /// Stores files; returns them in the same order, without those that are left out.
    pub fn store_files(&self, tree: &mut Tree, jobs: Vec<Job>, left_out: &mut LeftOut) -> Result<Vec<Stored>, Failure> {
        jobs.iter().try_for_each(|job| self.space.check(&tree.whole(&job.path), job.len))?;
        let progress = self.output.bytes(jobs.iter().fold(0, |bytes, job| bytes.saturating_add(job.len)));
        let queue = Mutex::new((tree, jobs.into_iter().enumerate()));
        // One at a time, so that few descriptors are open, and files of a directory are opened one after the other.
        let next = || {
            let mut queue = queue.lock().ok()?;
            let (number, job) = queue.1.next()?;
            let opened = queue.0.open_file(&job.path);
            Some((number, job, opened))
        };
        let mut done = at_once(Builder::new, |stop| {
            let mut done = Vec::new();
            while !stop.load(Ordering::Relaxed)
                && let Some((number, Job { path, expect, .. }, opened)) = next()
            {
                let stored = match opened {
                    Ok(None) => Err((path, Why::Changed)),
                    Err(Failure::File(_, error)) if error.kind() == ErrorKind::WouldBlock => Err((path, Why::Leased)),
                    Err(failure) => return Err(failure),
                    Ok(Some(opened)) => {
                        let mut content = Until { reader: opened.file, stop }.take(opened.len);
                        let digest = self.store.put_reader(progress.wrap_read(&mut content), expect)?;
                        Ok(Stored { path, mode: opened.mode, digest, len: opened.len - content.limit() })
                    }
                };
                done.push((number, stored));
            }
            Ok(done)
        })?;
        progress.finish_and_clear();
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

/// Works in [`WORKERS`] threads, or in as many as there may be. Once one of them fails, the others are told to stop.
fn at_once<T: Send>(
    thread: impl Fn() -> Builder,
    work: impl Fn(&AtomicBool) -> Result<Vec<T>, Failure> + Sync,
) -> Result<Vec<T>, Failure> {
    let (stop, failure) = (AtomicBool::new(false), Mutex::new(None));
    let work = || {
        work(&stop).unwrap_or_else(|error| {
            stop.store(true, Ordering::Relaxed);
            if let Ok(mut first) = failure.lock() {
                first.get_or_insert(error);
            }
            Vec::new()
        })
    };
    let done = std::thread::scope(|scope| {
        let more: Vec<_> = (1..WORKERS).map_while(|_| thread().spawn_scoped(scope, work).ok()).collect();
        let mut done = work();
        for worker in more {
            done.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    failure.into_inner().ok().flatten().map_or(Ok(done), Err)
}

/// A reader that fails once it is told to stop.
struct Until<'a, R> {
    reader: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Until<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another file has failed"));
        }
        self.reader.read(to)
    }
}

/// Stores a folder, or an image layout, under a name.
pub fn import(
    store: &Store,
    data: &Path,
    from: &Path,
    name: &str,
    existing: Existing,
    output: &Output,
) -> Result<Report, Failure> {
    let pin = NewPin::new(store, name, existing)?;
    let mut tree = Tree::open(from)?;
    let before = store.usage()?.live_bytes;
    let import = if oci::is_layout(&mut tree)? { oci::import } else { folder::import };
    let report = import(&Importing { store, space: Space::of(data), output }, &mut tree, pin)?;
    Ok(Report { bytes_stored: store.usage()?.live_bytes.saturating_sub(before), ..report })
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
        let mut text = format!("{}: {files} files", escaped(name));
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
    let mut staging = Staging::create(Tree::create(to)?)?;
    let top = plan.write(store, staging.tree(), &progress)?;
    staging.move_into_place(&top)?;
    progress.finish_and_clear();
    Ok(Exported { files: plan.files().count(), dropped })
}

/// What there is to write of what was imported under a name.
pub fn plan(store: &Store, name: &str) -> Result<Plan, Failure> {
    let pin = store.get_pin(name)?;
    let document = read(store, &pin.digest, DOCUMENT_MAX)?;
    if oci::is_index(&document) { oci::plan(store, &pin) } else { document::plan(store, name, &document) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_also_where_there_may_be_no_more_threads() {
        let left = Mutex::new(0..100);
        let work = |_: &AtomicBool| Ok(std::iter::from_fn(|| left.lock().unwrap().next()).collect());
        let too_large = || Builder::new().stack_size(1 << 60);
        assert_eq!(at_once(too_large, work).unwrap(), Vec::from_iter(0..100));
    }

    #[test]
    fn the_first_failure_is_told_and_stops_what_is_read_meanwhile() {
        let number = Mutex::new(0..);
        let work = |stop: &AtomicBool| {
            if number.lock().unwrap().next() == Some(0) {
                return Err(Failure::Document("the first".into()));
            }
            // It ends because it is told to.
            let endless = Until { reader: io::repeat(7), stop };
            io::copy(&mut { endless }, &mut io::sink()).map_err(|error| Failure::Document(error.to_string()))?;
            Ok(Vec::<()>::new())
        };
        assert_eq!(at_once(Builder::new, work).unwrap_err().to_string(), "the first");
    }
}
