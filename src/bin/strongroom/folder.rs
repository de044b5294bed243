//! Plain folders: their files as blobs, and a pinned document that says which file is where.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};
use strongroom::{Algorithm, Digest, Expect, PinOptions, Store};

use crate::commands::{Failure, at};
use crate::output::Output;
use crate::pins::NewPin;
use crate::transfer::{Report, store_files, write_files};

/// A document lists so many entries at most; further ones get documents, and pins, of their own.
const ENTRIES: usize = 50_000;

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
    let parts: Vec<_> = if entries.is_empty() { vec![&entries[..]] } else { entries.chunks(ENTRIES).collect() };
    let mut replaced = None;
    for (number, part) in parts.into_iter().enumerate() {
        let mut held = BTreeSet::new();
        let mut rows = Vec::new();
        for (path, mode, entry) in part {
            let mut row = json!({ "path": encode(path), "mode": mode });
            match entry {
                Entry::Dir => row["type"] = "dir".into(),
                Entry::Link(target) => {
                    row["type"] = "link".into();
                    row["target"] = encode(target);
                }
                Entry::File => {
                    if let Some((digest, len)) = stored.next() {
                        held.insert(digest);
                        row["type"] = "file".into();
                        row["digest"] = digest.to_string().into();
                        row["bytes"] = len.into();
                    }
                }
            }
            rows.push(row);
        }
        let digest = store.put(json!({ "strongroom": "folder", "entries": rows }).to_string(), Algorithm::Sha256)?;
        let options = PinOptions::new().references(Vec::from_iter(held));
        if number == 0 {
            replaced = pin.set(&digest, options)?;
        } else {
            store.pin(&format!("{}#{}", pin.name, number + 1), &digest, options)?;
        }
    }
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

/// A path in JSON: a text, or its bytes where it is none.
fn encode(path: &Path) -> Value {
    path.to_str().map_or_else(|| json!(path.as_os_str().as_bytes()), Value::from)
}

fn decode(value: &Value) -> Option<PathBuf> {
    if let Some(text) = value.as_str() {
        return Some(text.into());
    }
    let bytes = value.as_array()?.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect::<Option<Vec<_>>>()?;
    Some(std::ffi::OsString::from_vec(bytes).into())
}

/// Writes the files that a document lists; returns how many.
pub fn export(store: &Store, document: &Value, to: &Path, output: &Output) -> Result<usize, Failure> {
    let bad = || Failure::Document("the pinned document is no list of files: use get or cat".into());
    if document["strongroom"] != "folder" {
        return Err(bad());
    }
    let mut jobs: Vec<(Digest, PathBuf)> = Vec::new();
    let mut modes = Vec::new();
    let mut total = 0;
    let mut links = BTreeSet::new();
    for row in document["entries"].as_array().ok_or_else(bad)? {
        let path = decode(&row["path"]).ok_or_else(bad)?;
        // A document is content that anybody may have stored: it must not lead out of the folder, nor through a link.
        let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !is_inside || path.ancestors().any(|part| links.contains(part)) {
            return Err(Failure::Document(format!(
                "the document has the path {path:?}, which leads out of the folder"
            )));
        }
        let whole = to.join(&path);
        let mode = row["mode"].as_u64().and_then(|mode| u32::try_from(mode).ok()).ok_or_else(bad)?;
        match row["type"].as_str() {
            Some("dir") => {
                fs::create_dir_all(&whole).map_err(at(&whole))?;
                modes.push((whole, mode));
            }
            Some("link") => {
                let target = decode(&row["target"]).ok_or_else(bad)?;
                symlink(target, &whole).map_err(at(&whole))?;
                links.insert(path);
            }
            Some("file") => {
                let digest = row["digest"].as_str().ok_or_else(bad)?.parse()?;
                total += store.stat(&digest)?.len;
                jobs.push((digest, whole.clone()));
                modes.push((whole, mode));
            }
            _ => return Err(bad()),
        }
    }
    let progress = output.bytes(total);
    write_files(store, &jobs, &progress)?;
    progress.finish_and_clear();
    // Last, and children first: a directory may not let anything be put into it.
    for (path, mode) in modes.iter().rev() {
        fs::set_permissions(path, fs::Permissions::from_mode(*mode)).map_err(at(path))?;
    }
    Ok(jobs.len())
}
