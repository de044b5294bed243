//! OCI image layouts: their blobs, and their index as a pinned document.
//!
//! The pin of the index holds the layout's blobs and, behind them, its marker, the file `oci-layout`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;

use rustix::fs::FileType;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::blobs::{Expect, NamedFile, PutNamed};
use crate::digest::{Algorithm, Digest};
use crate::error::Error;
use crate::oci::{RepositoryName, RepositorySettings};
use crate::store::Store;
use crate::transfer::document::{parse, read};
use crate::transfer::error::{TransferError, at};
use crate::transfer::extras;
use crate::transfer::files::{Importing, Job};
use crate::transfer::path::TreePath;
use crate::transfer::pins::{HELD_MAX, NewPin};
use crate::transfer::plan::{Entry, Plan};
use crate::transfer::progress::{Counting, Progress};
use crate::transfer::push::{Contents, Found, Kind, Push, Source};
use crate::transfer::registries::{Reason, RegistryImport, Skips};
use crate::transfer::report::{Imported, LeftOut, Why};
use crate::transfer::space::Space;
use crate::transfer::tree::Tree;

/// The file that makes a folder an image layout, and the most bytes it may have.
pub(crate) const MARKER: &str = "oci-layout";
const MARKER_MAX: u64 = 4096;

pub(crate) const INDEX: &str = "index.json";
const INDEX_MAX: u64 = 64 << 20;

pub(crate) const BLOBS: &str = "blobs";

/// The annotation that has a manifest's tag.
pub(crate) const TAG: &str = "org.opencontainers.image.ref.name";

/// The marker's content.
#[derive(Deserialize)]
struct Marker {
    #[serde(rename = "imageLayoutVersion")]
    _version: String,
}

/// An image index, as far as it has to be one.
#[derive(Deserialize)]
struct Index {
    #[serde(rename = "schemaVersion")]
    version: u64,
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

/// Whether a folder is an image layout. One with links in the place of its files is one that can't be imported.
pub(crate) fn is_layout(tree: &mut Tree) -> Result<bool, TransferError> {
    for name in [MARKER, INDEX] {
        if tree.kind(&TreePath::new(name)?)?.is_none_or(FileType::is_dir) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Stores a layout's blobs, each verified against its name, and its marker, and pins the index, which holds them.
pub(crate) fn import(to: &Importing<'_>, tree: &mut Tree, pin: NewPin<'_>) -> Result<Imported, TransferError> {
    let marker = content(tree, MARKER, MARKER_MAX)?;
    if parse::<Marker>(&marker).is_none() {
        return Err(TransferError::unsuitable(tree.whole(&TreePath::new(MARKER)?), "says nothing of a version"));
    }
    let index = content(tree, INDEX, INDEX_MAX)?;
    let Some(manifests) = manifests(&index) else {
        return Err(TransferError::unsuitable(tree.whole(&TreePath::new(INDEX)?), "is no image index"));
    };
    let mut left_out = LeftOut::default();
    let jobs = jobs(tree, &mut left_out)?;
    Error::check_limit("the number of blobs in the layout", jobs.len(), HELD_MAX - 1)?;
    check_present(
        &manifests,
        jobs.iter().filter_map(|job| match job.expect {
            Expect::Digest(digest) => Some(digest),
            _ => None,
        }),
    )?;
    let blobs = to.store_files(tree, jobs, &mut left_out)?;
    let mut digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest).collect();
    check_present(&manifests, digests.iter().copied())?;
    digests.push(to.store.put(&marker, Algorithm::Sha256)?.digest);
    let digest = to.store.put(&index, Algorithm::Sha256)?.digest;
    let replaced = pin.set(&digest, PutNamed::new().references(digests))?;
    let bytes_in = blobs.iter().map(|blob| blob.len).sum::<u64>() + (marker.len() + index.len()) as u64;
    Ok(Imported { files: blobs.len() + 2, bytes_in, left_out, replaced, ..Imported::default() })
}

/// What an image index names, where it is one.
fn manifests(index: &[u8]) -> Option<Vec<Digest>> {
    let index: Index = parse(index)?;
    let manifests = index.manifests.iter().map(|entry| entry.digest.parse().ok()).collect::<Option<_>>()?;
    (index.version == 2).then_some(manifests)
}

/// Refuses a layout that lacks what its index names: an export of it would be of no use.
fn check_present(manifests: &[Digest], blobs: impl Iterator<Item = Digest>) -> Result<(), TransferError> {
    let blobs: BTreeSet<_> = blobs.collect();
    match manifests.iter().find(|manifest| !blobs.contains(manifest)) {
        Some(missing) => Err(TransferError::MissingBlob { digest: *missing }),
        None => Ok(()),
    }
}

/// What a small file of a layout has in it.
fn content(tree: &mut Tree, name: &str, max: u64) -> Result<Vec<u8>, TransferError> {
    let path = TreePath::new(name)?;
    let whole = tree.whole(&path);
    let problem = match tree.open_file(&path)? {
        None => "is no regular file: links in an image layout are not followed",
        Some(opened) => {
            let mut content = Vec::new();
            opened.file.take(max + 1).read_to_end(&mut content).map_err(at(&whole))?;
            if content.len() as u64 <= max {
                return Ok(content);
            }
            "has more than it may have"
        }
    };
    Err(TransferError::unsuitable(whole, problem))
}

/// The files below `blobs/`, with the digests that their names say they have. All else in the layout is left out.
fn jobs(tree: &mut Tree, left_out: &mut LeftOut) -> Result<Vec<Job>, TransferError> {
    let blobs = TreePath::new(BLOBS)?;
    let mut jobs = Vec::new();
    for found in tree.list(None)?.into_iter().flat_map(|listing| listing.found) {
        if ![MARKER, INDEX, BLOBS].iter().any(|name| name.as_bytes() == found.name) {
            left_out.add(&found.name, Why::Stray);
        }
    }
    let Some(listing) = tree.list(Some(&blobs))? else {
        return Err(TransferError::unsuitable(tree.whole(&blobs), "is no directory"));
    };
    for algorithm in listing.found {
        let dir = TreePath::of(Some(&blobs), &algorithm.name)?;
        let Some(listing) = tree.list(Some(&dir))? else {
            left_out.add(dir.as_bytes(), Why::Stray);
            continue;
        };
        for found in listing.found {
            let path = TreePath::of(Some(&dir), &found.name)?;
            match digest_of(&algorithm.name, &found.name) {
                None => left_out.add(path.as_bytes(), Why::Stray),
                Some(_) if !found.kind.is_file() => left_out.add(path.as_bytes(), Why::NoFile),
                Some(digest) => jobs.push(Job { path, len: found.len, expect: digest.into() }),
            }
        }
    }
    Ok(jobs)
}

pub(crate) fn digest_of(algorithm: &[u8], hex: &[u8]) -> Option<Digest> {
    let [algorithm, hex] = [algorithm, hex].map(std::str::from_utf8);
    format!("{}:{}", algorithm.ok()?, hex.ok()?).parse().ok()
}

/// Whether a document is an image index.
pub(crate) fn is_index(document: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Document {
        #[serde(rename = "manifests")]
        _manifests: Vec<IgnoredAny>,
    }
    parse::<Document>(document).is_some()
}

/// The layout whose index is pinned.
pub(crate) fn plan(store: &Store, pin: &NamedFile) -> Result<Plan, TransferError> {
    let not_a_layout = || TransferError::NotAnImport { problem: "the pinned index was not stored by an import" };
    let (marker, blobs) = pin.references.split_last().ok_or_else(not_a_layout)?;
    parse::<Marker>(&read(store, marker, MARKER_MAX)?).ok_or_else(not_a_layout)?;
    let mut plan = Plan::default();
    let mut add = |path: String, digest: Option<&Digest>| {
        let entry = digest.map_or(Entry::Dir { mode: None }, |digest| Entry::File { mode: None, digest: *digest });
        plan.add(TreePath::new(path)?, entry)
    };
    add(BLOBS.into(), None)?;
    let algorithms: BTreeSet<_> = blobs.iter().map(|digest| digest.algorithm().name()).collect();
    algorithms.iter().try_for_each(|algorithm| add(format!("{BLOBS}/{algorithm}"), None))?;
    for digest in blobs {
        add(format!("{BLOBS}/{}/{}", digest.algorithm().name(), digest.hex()), Some(digest))?;
    }
    add(MARKER.into(), Some(marker))?;
    add(INDEX.into(), Some(&pin.digest))?;
    Ok(plan)
}

/// Pushes an OCI image layout to a repository: what its index lists, with all that it references, and the tags that the
/// annotations `org.opencontainers.image.ref.name` say; and the documents of the repository, where it was exported with
/// some. What is there already stays, so that an interrupted import goes on; what can't be imported is skipped and
/// [reported](RegistryImport::skipped). Each blob is compared with its digest.
///
/// A repository that does not exist is created with these settings, once it is certain that `from` is a layout.
///
/// # Errors
/// [`TransferError::Unsuitable`] where it is no image layout; what the store fails with; [`TransferError::Stopped`].
pub fn import_layout(
    store: &Store,
    from: &Path,
    name: &RepositoryName,
    settings: &RepositorySettings,
    progress: impl Fn(Progress) -> ControlFlow<()> + Sync,
) -> Result<RegistryImport, TransferError> {
    let mut tree = Tree::open(from)?;
    if !is_layout(&mut tree)? {
        return Err(TransferError::unsuitable(from, "is no image layout"));
    }
    let index = content(&mut tree, INDEX, INDEX_MAX)?;
    let index: Option<Index> = parse(&index).filter(|index: &Index| index.version == 2);
    let index = index.ok_or_else(|| TransferError::unsuitable(from.join(INDEX), "is no image index"))?;
    let mut report = RegistryImport { repositories: 1, ..RegistryImport::default() };
    let contents = listed(index, name, &mut report.skipped);
    let repository = store.ensure_repository(name, settings.clone())?;
    let (counting, space) = (Counting::new(&progress), Space::at(store.root()));
    let push = Push {
        repository: &repository,
        source: &Blobs,
        tree: Mutex::new(&mut tree),
        space: &space,
        counting: &counting,
        report: Mutex::new(&mut report),
    };
    push.push_reachable(contents)?;
    extras::import(&mut tree, &repository, &mut report)?;
    Ok(report)
}

/// The manifests and tags that an index lists.
fn listed(index: Index, name: &RepositoryName, skipped: &mut Skips) -> Contents {
    let mut contents = Contents::default();
    for Descriptor { digest, media_type, annotations } in index.manifests {
        let Ok(digest) = digest.parse() else {
            skipped.add(name.as_str(), digest, Reason::InvalidLink);
            continue;
        };
        contents.manifests.push((digest, media_type));
        match annotations.unwrap_or_default().remove(TAG).map(|tag| tag.parse().map_err(|_| tag)) {
            Some(Ok(tag)) => contents.tags.push((tag, digest)),
            Some(Err(tag)) => skipped.add(name.as_str(), tag, Reason::InvalidName),
            None => {}
        }
    }
    contents
}

/// Content lies where its digest says.
struct Blobs;

impl Source for Blobs {
    fn path_of(&self, _: &Mutex<&mut Tree>, _: Kind, digest: &Digest) -> Result<Found<TreePath>, TransferError> {
        Ok(Ok(TreePath::new(format!("{BLOBS}/{}/{}", digest.algorithm().name(), digest.hex()))?))
    }
}
