//! Plain folders: their files as blobs, and a pinned document that says which file is where.

use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use strongroom::{Algorithm, Expect, Store};

use crate::commands::{Failure, at};
use crate::document::{Kind, Row, Writer};
use crate::output::Output;
use crate::path::{RawPath, TreePath};
use crate::pins::NewPin;
use crate::transfer::{Report, store_files};

/// Something in a folder.
enum Entry {
    Dir,
    File,
    Link(PathBuf),
}

/// Stores a folder.
pub fn import(store: &Store, from: &Path, pin: NewPin<'_>, output: &Output) -> Result<Report, Failure> {
    let before = store.usage()?;
    let mut entries = Vec::new();
    walk(from, Path::new(""), &mut entries)?;
    let files: Vec<_> = entries.iter().filter(|(_, _, entry)| matches!(entry, Entry::File)).collect();
    let mut bytes_in = 0;
    for (path, ..) in &files {
        bytes_in += fs::metadata(from.join(path)).map_err(at(path))?.len();
    }
    let progress = output.bytes(bytes_in);
    let jobs = files.iter().map(|(path, ..)| (from.join(path), Expect::Algorithm(Algorithm::Sha256))).collect();
    let mut stored = store_files(store, jobs, &progress)?.into_iter();
    progress.finish_and_clear();
    let count = files.len();
    let mut document = Writer::new(store, pin);
    for (path, mode, entry) in entries {
        let path = TreePath::new(path.into_os_string().into_vec())?;
        let row = |kind| Row::new(kind, &path, Mode::from_raw_mode(mode));
        match entry {
            Entry::Dir => document.add(&row(Kind::Dir), None)?,
            Entry::Link(target) => {
                let target = Some(RawPath(target.into_os_string().into_vec()));
                document.add(&Row { target, ..row(Kind::Link) }, None)?;
            }
            Entry::File => {
                if let Some((digest, len)) = stored.next() {
                    let row = Row { digest: Some(digest.to_string()), bytes: Some(len), ..row(Kind::File) };
                    document.add(&row, Some(digest))?;
                }
            }
        }
    }
    let replaced = document.finish()?;
    let bytes_stored = store.usage()?.live_bytes.saturating_sub(before.live_bytes);
    Ok(Report { files: count, bytes_in, bytes_stored, replaced })
}

/// All that is in a folder, parents before their children, by path relative to it. What is neither a file, a directory
/// nor a link is left out.
fn walk(root: &Path, below: &Path, entries: &mut Vec<(PathBuf, u32, Entry)>) -> Result<(), Failure> {
    let dir = root.join(below);
    let listed = fs::read_dir(&dir).map_err(at(&dir))?;
    let mut names =
        listed.map(|entry| Ok(entry.map_err(at(&dir))?.file_name())).collect::<Result<Vec<_>, Failure>>()?;
    names.sort();
    for name in names {
        let path = below.join(name);
        let whole = root.join(&path);
        let metadata = fs::symlink_metadata(&whole).map_err(at(&whole))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            entries.push((path.clone(), mode, Entry::Dir));
            walk(root, &path, entries)?;
        } else if metadata.is_file() {
            entries.push((path, mode, Entry::File));
        } else if metadata.is_symlink() {
            let target = fs::read_link(&whole).map_err(at(&whole))?;
            entries.push((path, mode, Entry::Link(target)));
        }
    }
    Ok(())
}
