//! The storage directory of CNCF distribution, the registry that Docker wrote (`registry:2`, `registry:3`).
//!
//! ```text
//! docker/registry/v2/
//!   blobs/<algorithm>/<first two digits>/<hex>/data
//!   repositories/<name>/
//!     _layers/<algorithm>/<hex>/link                    that the repository has the blob; a digest
//!     _manifests/revisions/<algorithm>/<hex>/link       that it has the manifest; a digest
//!     _manifests/tags/<tag>/current/link                the manifest that the tag names; a digest
//!     _manifests/tags/<tag>/index/…                     those that it named before; not read
//!     _uploads/<id>/…                                   unfinished uploads; not read
//! ```
//!
//! Of what is deleted, `link` is gone, and its directory stays. A link names the data; the directory that it is in,
//! what clients call it. What they are given is compared with the latter. Nothing but this is read, no link of the file
//! system is followed, and no file is read beyond the length that what it is may have.

#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;

use crate::digest::Digest;
use crate::oci::{RepositoryName, RepositorySettings, Tag};
use crate::store::Store;
use crate::sync::lock;
use crate::transfer::error::TransferError;
use crate::transfer::layout::digest_of;
use crate::transfer::path::{BadPath, TreePath};
use crate::transfer::progress::{Counting, Progress};
use crate::transfer::push::{Contents, Found, Kind, Push, Source, open};
use crate::transfer::registries::{Reason, RegistryImport};
use crate::transfer::space::Space;
use crate::transfer::tree::{Found as Listed, Tree};

/// Where its root may be, in the directory that is given.
const ROOTS: [&str; 3] = ["docker/registry/v2/", "registry/v2/", ""];

/// The longest text of a digest with the end of a line.
const LINK_MAX: u64 = 256;

/// Imports the storage directory of a CNCF distribution registry: all repositories with their blobs, manifests,
/// untagged ones and referrers included, and tags. `from` is the directory of its `rootdirectory` setting, by default
/// `/var/lib/registry`, or `docker/registry/v2` in it.
///
/// Repositories that do not exist are created with these settings; blobs are stored once, and each is compared with its
/// digest. What is there already stays as it is, so an import that was interrupted goes on where it ended, and one that
/// is repeated brings what has come since: import while the old registry runs, stop it, import once more. Tags that
/// have moved are moved. Nothing is deleted.
///
/// What can't be imported is skipped and [reported](RegistryImport::skipped). Memory holds the digests and tags of one
/// repository at a time.
///
/// ```no_run
/// use std::ops::ControlFlow;
/// use strongroom::registry::RepositorySettings;
/// use strongroom::{Options, transfer};
///
/// let store = Options::new().create(true).open("registry-data")?;
/// let goes_on = |_progress| ControlFlow::Continue(());
/// let from = "/var/lib/registry".as_ref();
/// let report = transfer::import_distribution(&store, from, &RepositorySettings::new(), goes_on)?;
/// println!("{} repositories, {} manifests are new", report.repositories, report.manifests.new);
/// for skipped in report.skipped.listed() {
///     println!("{} {}: {}", skipped.repository, skipped.what, skipped.reason);
/// }
/// # Ok::<(), strongroom::transfer::TransferError>(())
/// ```
///
/// # Errors
/// [`TransferError::Unsuitable`] where there is no such directory; [`TransferError::File`] where a directory can't be
/// listed; what the store fails with, a full disk among it; [`TransferError::Stopped`].
pub fn import_distribution(
    store: &Store,
    from: &Path,
    settings: &RepositorySettings,
    progress: impl Fn(Progress) -> ControlFlow<()> + Sync,
) -> Result<RegistryImport, TransferError> {
    let mut tree = Tree::open(from)?;
    let root = find_root(&mut tree)?.ok_or_else(|| {
        let problem = "has no docker/registry/v2/repositories: it is no storage directory of CNCF distribution";
        TransferError::unsuitable(from, problem)
    })?;
    let (counting, space) = (Counting::new(&progress), Space::at(store.root()));
    let mut report = RegistryImport::default();
    let repositories = TreePath::new(format!("{root}repositories"))?;
    let mut ahead = vec![repositories.clone()];
    while let Some(dir) = ahead.pop() {
        let Some(listing) = tree.list(Some(&dir))? else { continue };
        let mut parts = Parts::default();
        for Listed { name, kind, .. } in listing.found.into_iter().rev() {
            let Ok(path) = TreePath::of(Some(&dir), &name) else { continue };
            match &name[..] {
                b"_layers" => parts.layers = Some(path),
                b"_manifests" => parts.manifests = Some(path),
                _ if !kind.is_dir() => report.skipped.add("", path.as_path().display(), Reason::Stray),
                // They are only counted: that they can't be is no reason to end.
                b"_uploads" => {
                    report.uploads += tree.list(Some(&path)).ok().flatten().map_or(0, |list| list.found.len() as u64)
                }
                [b'_', ..] => report.skipped.add("", path.as_path().display(), Reason::Stray),
                _ => ahead.push(path),
            }
        }
        if parts.layers.is_none() && parts.manifests.is_none() {
            continue;
        }
        let name = dir.as_bytes().strip_prefix(repositories.as_bytes()).and_then(|name| name.strip_prefix(b"/"));
        let name = name.and_then(|name| std::str::from_utf8(name).ok()).and_then(|name| name.parse().ok());
        let Some(name): Option<RepositoryName> = name else {
            report.skipped.add("", dir.as_path().display(), Reason::InvalidName);
            continue;
        };
        let contents = parts.contents(&mut tree, &name, &mut report)?;
        let repository = store.ensure_repository(&name, settings.clone())?;
        report.repositories += 1;
        let push = Push {
            repository: &repository,
            source: &Layout { root, parts: &parts },
            tree: Mutex::new(&mut tree),
            space: &space,
            counting: &counting,
            report: Mutex::new(&mut report),
        };
        push.push(contents)?;
    }
    Ok(report)
}

/// Finds what precedes `repositories` in a directory.
fn find_root(tree: &mut Tree) -> Result<Option<&'static str>, TransferError> {
    for root in ROOTS {
        let path = TreePath::new(format!("{root}repositories"))?;
        if tree.kind(&path)?.is_some_and(|kind| kind.is_dir()) {
            return Ok(Some(root));
        }
    }
    Ok(None)
}

/// The directories of a repository.
#[derive(Debug, Default)]
struct Parts {
    layers: Option<TreePath>,
    manifests: Option<TreePath>,
}

impl Parts {
    /// Lists what the repository has.
    fn contents(
        &self,
        tree: &mut Tree,
        name: &RepositoryName,
        report: &mut RegistryImport,
    ) -> Result<Contents, TransferError> {
        let mut contents = Contents::default();
        if let Some(dir) = &self.layers {
            contents.blobs = digests(tree, dir, name, report)?;
        }
        let Some(manifests) = &self.manifests else { return Ok(contents) };
        // Behind a link nothing is found, and so nothing reported.
        if list(tree, manifests, name, report)?.is_empty() {
            return Ok(contents);
        }
        let revisions = TreePath::of(Some(manifests), b"revisions")?;
        contents.manifests =
            digests(tree, &revisions, name, report)?.into_iter().map(|digest| (digest, None)).collect();
        let tags = TreePath::of(Some(manifests), b"tags")?;
        let listed = list(tree, &tags, name, report)?;
        let tree = Mutex::new(tree);
        for found in listed {
            let text = String::from_utf8_lossy(&found.name);
            let Ok(tag) = text.parse::<Tag>() else {
                let path = TreePath::of(Some(&tags), &found.name);
                let is_stray = path.is_ok_and(|path| is_file(&mut lock(&tree), &path).unwrap_or_default());
                report.skipped.add(name.as_str(), text, if is_stray { Reason::Stray } else { Reason::InvalidName });
                continue;
            };
            let link = below(&tags, &format!("{tag}/current/link"))?;
            match read_link(&tree, &link)? {
                Ok(digest) => contents.tags.push((tag, digest)),
                Err(reason) => report.skipped.add(name.as_str(), tag, reason.unwrap_or(Reason::Missing)),
            }
        }
        Ok(contents)
    }
}

/// The digests that directories are named by, in those of their algorithms.
fn digests(
    tree: &mut Tree,
    dir: &TreePath,
    name: &RepositoryName,
    report: &mut RegistryImport,
) -> Result<Vec<Digest>, TransferError> {
    let mut digests = Vec::new();
    for algorithm in list(tree, dir, name, report)? {
        let Ok(path) = TreePath::of(Some(dir), &algorithm.name) else { continue };
        if is_file(tree, &path)? {
            report.skipped.add(name.as_str(), path.as_path().display(), Reason::Stray);
            continue;
        }
        for found in list(tree, &path, name, report)? {
            match digest_of(&algorithm.name, &found.name) {
                Some(digest) => digests.push(digest),
                None => {
                    let path = path.as_path().join(String::from_utf8_lossy(&found.name).as_ref());
                    report.skipped.add(name.as_str(), path.display(), Reason::Stray);
                }
            }
        }
    }
    Ok(digests)
}

/// Lists a directory, if there is one. Whatever else is in its place is reported, since it may be a link to one.
fn list(
    tree: &mut Tree,
    dir: &TreePath,
    name: &RepositoryName,
    report: &mut RegistryImport,
) -> Result<Vec<Listed>, TransferError> {
    if let Some(listing) = tree.list(Some(dir))? {
        return Ok(listing.found);
    }
    if tree.kind(dir)?.is_some() {
        report.skipped.add(name.as_str(), dir.as_path().display(), Reason::NoDirectory);
    }
    Ok(Vec::new())
}

/// Whether a path names a file, which belongs nowhere where directories are.
fn is_file(tree: &mut Tree, path: &TreePath) -> Result<bool, TransferError> {
    Ok(tree.kind(path)?.is_some_and(|kind| kind.is_file()))
}

fn below(dir: &TreePath, path: &str) -> Result<TreePath, BadPath> {
    TreePath::of(Some(dir), path.as_bytes())
}

/// The digest in a link.
fn read_link(tree: &Mutex<&mut Tree>, path: &TreePath) -> Result<Found<Digest>, TransferError> {
    let opened = match open(tree, path)? {
        Ok(opened) => opened,
        Err(reason) => return Ok(Err(reason)),
    };
    let mut text = Vec::new();
    match opened.file.take(LINK_MAX).read_to_end(&mut text) {
        Err(error) => Ok(Err(Some(Reason::Unreadable { problem: error.to_string() }))),
        Ok(_) => {
            let digest = std::str::from_utf8(&text).ok().and_then(|text| text.trim_ascii().parse().ok());
            Ok(digest.ok_or(Some(Reason::InvalidLink)))
        }
    }
}

/// Where the content of a repository is.
struct Layout<'a> {
    root: &'static str,
    parts: &'a Parts,
}

impl Source for Layout<'_> {
    fn path_of(&self, tree: &Mutex<&mut Tree>, kind: Kind, digest: &Digest) -> Result<Found<TreePath>, TransferError> {
        let named = format!("{}/{}/link", digest.algorithm().name(), digest.hex());
        let link = match kind {
            Kind::Blob => self.parts.layers.as_ref().map(|dir| below(dir, &named)),
            Kind::Manifest => self.parts.manifests.as_ref().map(|dir| below(dir, &format!("revisions/{named}"))),
        };
        let Some(link) = link.transpose()? else { return Ok(Err(None)) };
        let data = match read_link(tree, &link)? {
            Ok(data) => data,
            // Of what is deleted the directory stays.
            Err(Some(Reason::Missing)) => return Ok(Err(None)),
            Err(reason) => return Ok(Err(reason)),
        };
        let hex = data.hex();
        let first = hex.get(..2).unwrap_or_default();
        Ok(Ok(TreePath::new(format!("{}blobs/{}/{first}/{hex}/data", self.root, data.algorithm().name()))?))
    }
}
