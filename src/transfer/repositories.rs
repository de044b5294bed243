//! Writing repositories as OCI image layouts, all blobs of a store as plain files, and the names of named files.

mod named;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::json;

use crate::blobs::Blob;
use crate::digest::Digest;
use crate::error::{Error, Result as StoreResult};
use crate::oci::{Reference, Tag};
use crate::page::Page;
use crate::registry::{ManifestInfo, Repository, StorageClass};
use crate::store::Store;
use crate::transfer::error::{TransferError, at};
use crate::transfer::extras::{self, EXTRAS};
use crate::transfer::layout::{BLOBS, INDEX, MARKER, TAG};
use crate::transfer::path::TreePath;
use crate::transfer::plan::copy;
use crate::transfer::progress::{Counting, Progress};
use crate::transfer::registries::{Reason, RegistryExport};
use crate::transfer::tree::{Made, Staging, Tree};

/// So many names are asked for at a time.
const PAGE: usize = 1000;

const REPOSITORIES: &str = "repositories";

/// What stands for `/` in the names of the layouts' directories: no name of a repository has it.
const SLASH: &str = "+";

/// Writes a repository to a folder, which must not exist or be empty, as an OCI image layout.
///
/// The layout's index lists the tagged manifests, once for each tag, which is the annotation
/// `org.opencontainers.image.ref.name`, and those that are neither tagged nor part of an index, referrers among them.
/// All blobs of the repository are in it; beside it, in `strongroom.jsonl`, are the repository's documents, and which
/// manifests are archived. What is deleted while it is written is left out; what is damaged is
/// [reported](RegistryExport::skipped). Where it fails, nothing is left in the folder.
///
/// ```
/// use std::ops::ControlFlow;
/// use strongroom::registry::{PutManifest, RepositorySettings};
/// use strongroom::{Algorithm, Options, transfer};
///
/// # let dir = tempfile::tempdir()?;
/// # let layout = dir.path().join("layout");
/// let store = Options::new().create(true).open(dir.path().join("store"))?;
/// let [app, copy] = ["team/app", "team/copy"].map(|name| name.parse().unwrap());
/// let app = store.create_repository(&app, RepositorySettings::new())?;
/// let config = app.put("{}", Algorithm::Sha256)?.digest;
/// let config = format!(r#"{{"mediaType":"a/b","digest":"{config}","size":2}}"#);
/// let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
/// let media_type = "application/vnd.oci.image.manifest.v1+json";
/// app.put_manifest(&manifest, PutManifest::new(media_type).tag("v1".parse()?))?;
///
/// let goes_on = |_progress| ControlFlow::Continue(());
/// let report = transfer::export_repository(&app, &layout, goes_on)?;
/// assert_eq!((report.manifests, report.tags, report.blobs), (1, 1, 1));
///
/// transfer::import_layout(&store, &layout, &copy, &RepositorySettings::new(), goes_on)?;
/// assert_eq!(store.repository(&copy)?.pull_manifest(&"v1".parse()?)?.content, manifest);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`TransferError`], as its variants say.
pub fn export_repository(
    repository: &Repository,
    to: &Path,
    progress: impl Fn(Progress) -> ControlFlow<()> + Sync,
) -> Result<RegistryExport, TransferError> {
    let counting = Counting::new(&progress);
    let mut staging = Staging::create(Tree::create(to)?)?;
    let mut export =
        Export { tree: staging.tree(), shared: None, counting: &counting, report: RegistryExport::default() };
    let Written { blobs, has_extras } = export.repository(repository, None)?;
    let report = export.report;
    let [blobs_path, marker, index, extras] = [BLOBS, MARKER, INDEX, EXTRAS].map(TreePath::new);
    let (blobs_path, marker, index, extras) = (blobs_path?, marker?, index?, extras?);
    let mut top = vec![(&blobs_path, Some(blobs)), (&marker, None), (&index, None)];
    top.extend(has_extras.then_some((&extras, None)));
    let left_behind = staging.move_into_place(&top)?;
    Ok(RegistryExport { left_behind, ..report })
}

/// Writes what a store has to a folder, which must not exist or be empty:
///
/// ```text
/// blobs/<algorithm>/<hex>       every blob of the default key domain, those of repositories and manifests included,
///                               and what named files of other key domains have and reference
/// repositories/<name>/          each repository as an image layout, with its documents: see `export_repository`; `+`
///                               stands for each `/`
/// named.jsonl                   named files, a JSON document a line: key domain, name, digest, references, times
/// ```
///
/// The blobs of the layouts are hard links to those in `blobs`, where the file system has them. Left out are the
/// settings of repositories, the times of blobs, unfinished uploads, and blobs of other key domains that nothing keeps.
/// [Locked](Store::locked_domains) key domains are left out and [reported](RegistryExport::skipped). Where it fails,
/// nothing is left in the folder.
///
/// # Errors
/// [`TransferError`], as its variants say.
pub fn export_all(
    store: &Store,
    to: &Path,
    progress: impl Fn(Progress) -> ControlFlow<()> + Sync,
) -> Result<RegistryExport, TransferError> {
    let counting = Counting::new(&progress);
    let mut staging = Staging::create(Tree::create(to)?)?;
    let [blobs, repositories] = [BLOBS, REPOSITORIES].map(TreePath::new);
    let (blobs, repositories) = (blobs?, repositories?);
    let tree = staging.tree();
    let made = [tree.create_dir(&blobs, None)?, tree.create_dir(&repositories, None)?];
    let mut export =
        Export { tree, shared: Some(blobs.clone()), counting: &counting, report: RegistryExport::default() };
    let mut dirs = Dirs::default();
    for stat in store.blobs() {
        let digest = stat?.digest;
        export.blob("", &blobs, &mut dirs, &digest, || store.get(&digest))?;
    }
    let named = export.named_files(store, &blobs, &mut dirs)?;
    dirs.set_modes(export.tree)?;
    for name in Page::all(|after: Option<&String>| store.repositories(after.map(String::as_str), PAGE)) {
        let name = name?;
        let repository = match store.repository(&name) {
            Err(Error::RepositoryNotFound { .. }) => continue, // deleted meanwhile
            other => other?,
        };
        let dir = TreePath::of(Some(&repositories), name.as_str().replace('/', SLASH).as_bytes())?;
        let own = export.tree.create_dir(&dir, None)?;
        let Written { blobs: below, .. } = export.repository(&repository, Some(&dir))?;
        export.tree.set_dir_mode(&TreePath::of(Some(&dir), BLOBS.as_bytes())?, &below)?;
        export.tree.set_dir_mode(&dir, &own)?;
    }
    let report = export.report;
    let [blobs_made, repositories_made] = made;
    let top = [(&blobs, Some(blobs_made)), (&repositories, Some(repositories_made)), (&named, None)];
    let left_behind = staging.move_into_place(&top)?;
    Ok(RegistryExport { left_behind, ..report })
}

/// The directories of algorithms that were made, and get their modes when what is in them is written.
#[derive(Default)]
struct Dirs(BTreeMap<&'static str, (TreePath, Made)>);

impl Dirs {
    fn of(&mut self, tree: &mut Tree, blobs: &TreePath, algorithm: &'static str) -> Result<&TreePath, TransferError> {
        if !self.0.contains_key(algorithm) {
            let path = TreePath::of(Some(blobs), algorithm.as_bytes())?;
            let made = tree.create_dir(&path, None)?;
            self.0.insert(algorithm, (path, made));
        }
        let dir = self.0.get(algorithm).map(|(path, _)| path);
        dir.ok_or_else(|| Error::Internal { invariant: "a directory that was made is known" }.into())
    }

    fn set_modes(&self, tree: &mut Tree) -> Result<(), TransferError> {
        self.0.values().try_for_each(|(path, made)| tree.set_dir_mode(path, made))
    }
}

/// A layout that was written.
struct Written {
    /// The directory of its blobs, whose mode is still to be set.
    blobs: Made,
    /// Whether there is a file of what has no place in a layout.
    has_extras: bool,
}

/// An export under way.
struct Export<'a> {
    tree: &'a mut Tree,
    /// Where all blobs are, for links to them.
    shared: Option<TreePath>,
    counting: &'a Counting<'a>,
    report: RegistryExport,
}

impl Export<'_> {
    /// Writes a repository as a layout to a directory.
    ///
    /// Tags are read first, then manifests, then blobs: what a manifest references can't be removed before it, so the
    /// blobs of those that are there are found.
    fn repository(&mut self, repository: &Repository, dir: Option<&TreePath>) -> Result<Written, TransferError> {
        let blobs = TreePath::of(dir, BLOBS.as_bytes())?;
        let made = self.tree.create_dir(&blobs, None)?;
        let mut dirs = Dirs::default();
        let name = repository.name().clone();
        let tags = tags(repository)?;
        let mut manifests = Vec::new();
        for info in Page::all(|after| repository.manifests(after, PAGE)) {
            let Some(info) = gone(info)? else { break };
            let reference = Reference::Digest(info.digest);
            let content = || repository.get_manifest(&reference);
            if self.manifest(name.as_str(), &blobs, &mut dirs, &info.digest, content)? {
                manifests.push(info);
            }
        }
        let written: BTreeSet<Digest> = manifests.iter().map(|info| info.digest).collect();
        for info in Page::all(|after| repository.blobs(after, PAGE)) {
            let Some(digest) = gone(info)?.map(|info| info.digest) else { break };
            if !written.contains(&digest) {
                let is_written = self.blob(name.as_str(), &blobs, &mut dirs, &digest, || repository.get(&digest))?;
                self.report.blobs += u64::from(is_written);
            }
        }
        dirs.set_modes(self.tree)?;
        self.report.repositories += 1;
        self.report.manifests += written.len() as u64;
        self.report.tags += self.index(dir, &manifests, &tags)?;
        self.write(dir, MARKER, r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let has_extras = self.extras(dir, repository, &manifests)?;
        Ok(Written { blobs: made, has_extras })
    }

    /// Writes what has no place in a layout, if there is any.
    fn extras(
        &mut self,
        dir: Option<&TreePath>,
        repository: &Repository,
        manifests: &[ManifestInfo],
    ) -> Result<bool, TransferError> {
        let documents = gone(repository.documents())?.unwrap_or_default();
        self.report.documents += documents.len() as u64;
        // What an index holds is archived with it.
        let is_archived = |info: &&ManifestInfo| info.storage_class == StorageClass::Archive && info.references == 0;
        let archived = manifests.iter().filter(is_archived).map(|info| extras::archived(&info.digest));
        let lines: String = documents.iter().map(extras::document).chain(archived).collect();
        if !lines.is_empty() {
            self.write(dir, EXTRAS, &lines)?;
        }
        Ok(!lines.is_empty())
    }

    /// Writes a blob, or links it. `false` where it is not there any more, or damaged.
    fn blob(
        &mut self,
        repository: &str,
        blobs: &TreePath,
        dirs: &mut Dirs,
        digest: &Digest,
        open: impl FnOnce() -> StoreResult<Blob>,
    ) -> Result<bool, TransferError> {
        let dir = dirs.of(self.tree, blobs, digest.algorithm().name())?;
        let path = TreePath::of(Some(dir), digest.hex().as_bytes())?;
        if self.link(&path, digest, blobs)? {
            return Ok(true);
        }
        let blob = match gone(open()) {
            Ok(Some(blob)) => blob,
            Ok(None) => return Ok(false),
            Err(error) => return self.skip_damaged(repository, digest, error.into()),
        };
        let (whole, counting) = (self.tree.whole(&path), self.counting);
        match self.tree.create_file(&path, None, |file| copy(&blob, file, &whole, counting)) {
            Ok(()) => self.report.bytes += blob.len(),
            Err(error) => return self.skip_damaged(repository, digest, error),
        }
        Ok(true)
    }

    /// Writes a manifest, or links it, likewise.
    fn manifest(
        &mut self,
        repository: &str,
        blobs: &TreePath,
        dirs: &mut Dirs,
        digest: &Digest,
        get: impl FnOnce() -> StoreResult<crate::registry::Manifest>,
    ) -> Result<bool, TransferError> {
        let dir = dirs.of(self.tree, blobs, digest.algorithm().name())?;
        let path = TreePath::of(Some(dir), digest.hex().as_bytes())?;
        if self.link(&path, digest, blobs)? {
            return Ok(true);
        }
        let content = match gone(get()) {
            Ok(Some(manifest)) => manifest.content,
            Ok(None) => return Ok(false),
            Err(error) => return self.skip_damaged(repository, digest, error.into()),
        };
        let whole = self.tree.whole(&path);
        self.tree.create_file(&path, None, |file| file.write_all(&content).map_err(at(&whole)))?;
        self.report.bytes += content.len() as u64;
        self.counting.item().map_err(|_| TransferError::Stopped)?;
        Ok(true)
    }

    /// Links what was written for all, where that can be.
    fn link(&mut self, path: &TreePath, digest: &Digest, blobs: &TreePath) -> Result<bool, TransferError> {
        let Some(shared) = self.shared.as_ref().filter(|shared| *shared != blobs) else { return Ok(false) };
        let from = format!("{}/{}", digest.algorithm().name(), digest.hex());
        let is_linked = self.tree.link(&TreePath::of(Some(shared), from.as_bytes())?, path);
        if is_linked {
            self.counting.item().map_err(|_| TransferError::Stopped)?;
        }
        Ok(is_linked)
    }

    /// Damage costs what it hit: everything else is exported.
    fn skip_damaged(&mut self, name: &str, what: &Digest, error: TransferError) -> Result<bool, TransferError> {
        match error {
            TransferError::Store(error @ Error::Corrupt { .. }) => {
                self.report.skipped.add(name, what, Reason::Unreadable { problem: error.to_string() });
                Ok(false)
            }
            error => Err(error),
        }
    }

    /// Writes the index of a layout. Returns how many tags are in it.
    fn index(
        &mut self,
        dir: Option<&TreePath>,
        manifests: &[ManifestInfo],
        tags: &BTreeMap<Digest, Vec<Tag>>,
    ) -> Result<u64, TransferError> {
        let mut listed = Vec::new();
        let mut count = 0;
        for info in manifests {
            let mut descriptor = json!({
                "mediaType": info.media_type, "digest": info.digest.to_string(), "size": info.len,
            });
            if let (Some(kind), Some(fields)) = (&info.artifact_type, descriptor.as_object_mut()) {
                fields.insert("artifactType".into(), kind.as_str().into());
            }
            let tags = tags.get(&info.digest);
            if tags.is_none() && info.references == 0 {
                listed.push(descriptor.to_string());
            }
            for tag in tags.into_iter().flatten() {
                let mut tagged = descriptor.clone();
                if let Some(fields) = tagged.as_object_mut() {
                    fields.insert("annotations".into(), json!({ TAG: tag.as_str() }));
                }
                listed.push(tagged.to_string());
                count += 1;
            }
        }
        let listed = listed.join(",\n");
        let media_type = crate::oci::document::OCI_INDEX;
        let index = format!("{{\"schemaVersion\":2,\"mediaType\":\"{media_type}\",\"manifests\":[\n{listed}\n]}}\n");
        self.write(dir, INDEX, &index)?;
        Ok(count)
    }

    fn write(&mut self, dir: Option<&TreePath>, name: &str, content: &str) -> Result<(), TransferError> {
        let path = TreePath::of(dir, name.as_bytes())?;
        let whole = self.tree.whole(&path);
        self.tree.create_file(&path, None, |file| file.write_all(content.as_bytes()).map_err(at(&whole)))
    }
}

/// What tags name.
fn tags(repository: &Repository) -> Result<BTreeMap<Digest, Vec<Tag>>, TransferError> {
    let mut tags: BTreeMap<Digest, Vec<Tag>> = BTreeMap::new();
    for tag in Page::all(|after: Option<&String>| repository.tags(after.map(String::as_str), PAGE)) {
        let Some(tag) = gone(tag)? else { break };
        if let Some(info) = gone(repository.resolve(&tag))? {
            tags.entry(info.digest).or_default().push(tag);
        }
    }
    Ok(tags)
}

/// What was deleted while it was read is none.
fn gone<T>(result: StoreResult<T>) -> StoreResult<Option<T>> {
    match result {
        Err(Error::BlobNotFound { .. } | Error::ManifestNotFound { .. } | Error::RepositoryNotFound { .. }) => Ok(None),
        other => other.map(Some),
    }
}
