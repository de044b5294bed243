//! OCI image layouts: their blobs, and their index as a pinned document.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use strongroom::{Algorithm, Digest, Expect, Pin, PinOptions, Store};

use crate::commands::{Failure, at};
use crate::document::{parse, read};
use crate::output::Output;
use crate::path::TreePath;
use crate::pins::NewPin;
use crate::plan::{Entry, Plan};
use crate::transfer::{Job, Report, store_files};

/// The file that makes a folder an image layout, and the most bytes it may have.
const MARKER: &str = "oci-layout";
const MARKER_MAX: u64 = 4096;

/// Whether a folder is an image layout.
pub fn is_layout(path: &Path) -> bool {
    path.join(MARKER).is_file() && path.join("index.json").is_file()
}

/// Stores a layout's blobs, each verified against its name, and its marker, and pins the index, which holds them.
pub fn import(store: &Store, from: &Path, pin: NewPin<'_>, output: &Output) -> Result<Report, Failure> {
    let before = store.usage()?;
    let marker = from.join(MARKER);
    let marker = fs::read(&marker).map_err(at(&marker))?;
    if !is_marker(&marker) {
        return Err(Failure::Document("the oci-layout file says nothing of a version".into()));
    }
    let jobs = blobs(from)?;
    let mut bytes_in = marker.len() as u64;
    for (path, _) in &jobs {
        bytes_in += fs::metadata(path).map_err(at(path))?.len();
    }
    let index = from.join("index.json");
    let document = fs::read(&index).map_err(at(&index))?;
    bytes_in += document.len() as u64;
    let progress = output.bytes(bytes_in);
    let files = jobs.len();
    let mut digests: Vec<Digest> = store_files(store, jobs, &progress)?.into_iter().map(|(digest, _)| digest).collect();
    progress.finish_and_clear();
    digests.push(store.put(&marker, Algorithm::Sha256)?);
    let digest = store.put(&document, Algorithm::Sha256)?;
    let replaced = pin.set(&digest, PinOptions::new().references(digests))?;
    let bytes_stored = store.usage()?.live_bytes.saturating_sub(before.live_bytes);
    Ok(Report { files: files + 2, bytes_in, bytes_stored, replaced })
}

/// The files below `blobs/`, with the digests that their names say they have.
fn blobs(layout: &Path) -> Result<Vec<Job>, Failure> {
    let mut jobs = Vec::new();
    for algorithm in sorted(&layout.join("blobs"))? {
        for path in sorted(&algorithm)? {
            let [name, hex] = [&algorithm, &path].map(|path| path.file_name().unwrap_or_default().to_string_lossy());
            let digest: Digest = format!("{name}:{hex}").parse()?;
            jobs.push((path.clone(), Expect::Digest(digest)));
        }
    }
    Ok(jobs)
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(dir).map_err(at(dir))?;
    let mut paths = entries.map(|entry| Ok(entry.map_err(at(dir))?.path())).collect::<Result<Vec<_>, Failure>>()?;
    paths.sort();
    Ok(paths)
}

fn is_marker(content: &[u8]) -> bool {
    let has_version = |document: Value| document.get("imageLayoutVersion").is_some();
    content.len() as u64 <= MARKER_MAX && serde_json::from_slice(content).is_ok_and(has_version)
}

/// Whether a document is an image index.
pub fn is_index(document: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Document {
        #[serde(rename = "manifests")]
        _manifests: Vec<IgnoredAny>,
    }
    parse::<Document>(document).is_some()
}

/// The layout whose index is pinned.
pub fn plan(store: &Store, pin: &Pin) -> Result<Plan, Failure> {
    let not_a_layout = || Failure::Document("this index was not stored by import: use get or cat".into());
    let (marker, blobs) = pin.references.split_last().ok_or_else(not_a_layout)?;
    if !is_marker(&read(store, marker, MARKER_MAX)?) {
        return Err(not_a_layout());
    }
    let mut plan = Plan::default();
    let mut add = |path: String, digest: Option<&Digest>| {
        let entry = digest.map_or(Entry::Dir { mode: None }, |digest| Entry::File { mode: None, digest: *digest });
        plan.add(TreePath::new(path)?, entry)
    };
    add("blobs".into(), None)?;
    let algorithms: BTreeSet<_> = blobs.iter().map(|digest| digest.algorithm().name()).collect();
    algorithms.iter().try_for_each(|algorithm| add(format!("blobs/{algorithm}"), None))?;
    for digest in blobs {
        add(format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()), Some(digest))?;
    }
    add(MARKER.into(), Some(marker))?;
    add("index.json".into(), Some(&pin.digest))?;
    Ok(plan)
}
