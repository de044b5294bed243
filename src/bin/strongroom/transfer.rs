//! What importing and exporting folders and image layouts have in common.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use indicatif::ProgressBar;
use serde_json::{Value, json};
use strongroom::{Digest, Error, Expect, Store};

use crate::commands::{Failure, at};
use crate::output::{Output, size};
use crate::{folder, oci};

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

/// Writes blobs to new files.
pub fn write_files(store: &Store, jobs: &[(Digest, PathBuf)], progress: &ProgressBar) -> Result<(), Failure> {
    for (digest, path) in jobs {
        let blob = store.get(digest)?;
        let mut file = fs::File::create_new(path).map_err(at(path))?;
        io::copy(&mut progress.wrap_read(blob.reader()), &mut file).map_err(|error| {
            match error.downcast::<Error>() {
                Ok(error) => Failure::Store(error),
                Err(error) => at(path)(error),
            }
        })?;
    }
    Ok(())
}

/// The pins that an import under a name has made: the name itself, and `name#2` and so on where it was large.
pub fn parts(store: &Store, name: &str) -> Result<Vec<String>, Failure> {
    let mut parts = vec![name.to_owned()];
    store.get_pin(name)?;
    loop {
        let next = format!("{name}#{}", parts.len() + 1);
        match store.get_pin(&next) {
            Ok(_) => parts.push(next),
            Err(Error::PinNotFound { .. }) => return Ok(parts),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes what was imported under a name to a new folder.
pub fn export(store: &Store, name: &str, to: &Path, output: &Output) -> Result<(), Failure> {
    match fs::create_dir(to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::read_dir(to).map_err(at(to))?.next().is_some() {
                return Err(at(to)(io::ErrorKind::DirectoryNotEmpty.into()));
            }
        }
        other => other.map_err(at(to))?,
    }
    let mut files = 0;
    for part in parts(store, name)? {
        let pin = store.get_pin(&part)?;
        let bytes = store.get(&pin.digest)?.bytes()?;
        let document: Value = serde_json::from_slice(&bytes)
            .map_err(|_| Failure::Document(format!("{part} was not made by import: use get or cat")))?;
        files += if oci::is_index(&document) {
            oci::export(store, &bytes, &pin.references, to, output)?
        } else {
            folder::export(store, &document, to, output)?
        };
    }
    output.print(&json!({ "name": name, "files": files }), &format!("{name}: {files} files"));
    Ok(())
}
