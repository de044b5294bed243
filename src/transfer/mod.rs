//! Moving data in and out: folders, OCI image layouts, other registries' directories, and what a store has.
//!
//! - [`import`] stores a folder, or an OCI image layout, as a pinned document that holds its blobs; [`export`] writes
//!   it to a new folder; [`remove`] removes it.
//! - [`import_layout`] and [`import_distribution`] push to repositories what an image layout, or the storage directory
//!   of a CNCF distribution registry, has.
//! - [`export_repository`] writes a repository as an image layout; [`export_all`] writes blobs, repositories and named
//!   files.
//!
//! ```
//! use std::ops::ControlFlow;
//! use strongroom::Options;
//! use strongroom::transfer::{self, Existing, SpecialBits};
//!
//! # let dir = tempfile::tempdir()?;
//! let (from, to) = (dir.path().join("from"), dir.path().join("to"));
//! std::fs::create_dir(&from)?;
//! std::fs::write(from.join("file"), "content")?;
//! let store = Options::new().create(true).open(dir.path().join("store"))?;
//!
//! let goes_on = |_progress| ControlFlow::Continue(());
//! let report = transfer::import(&store, &from, "folder", Existing::Refuse, goes_on)?;
//! assert_eq!((report.files, report.bytes_in, report.left_out.count()), (1, 7, 0));
//! transfer::export(&store, "folder", &to, SpecialBits::Drop, goes_on)?;
//! assert_eq!(std::fs::read_to_string(to.join("file"))?, "content");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a tree can do
//! Whoever has made a folder, or stored a document, is not trusted:
//! - No link in a tree is followed, nor is anything outside of it read or written, whatever others do to it meanwhile.
//! - An export is checked as a whole before any of it is written, is made in a directory to which nobody else may
//!   write, and replaces nothing. One that fails leaves nothing.
//! - Lengths are bounded before anything is read: of documents, of lists, of paths.
//! - Every blob of a layout is compared with the digest that it is named by, and a repository gets none whose content
//!   is not there, whatever other repositories have.

mod distribution;
mod document;
mod error;
mod extras;
mod files;
mod folder;
#[cfg(test)]
mod fuzz;
mod layout;
mod media;
mod path;
mod pins;
mod plan;
mod progress;
mod push;
mod registries;
mod report;
mod repositories;
mod space;
mod tree;
mod workers;

pub use distribution::import_distribution;
pub use error::TransferError;
pub use layout::import_layout;
pub use pins::{Existing, HeldBlobs, NewPin, import_of_part, remove};
pub use progress::Progress;
pub use registries::{Counts, Reason, RegistryExport, RegistryImport, Skipped, Skips};
pub use report::{Exported, Imported, LeftOut, Why};
pub use repositories::{export_all, export_repository};
pub use space::check_space;

use std::ops::ControlFlow;
use std::path::Path;

use crate::store::Store;
use document::{DOCUMENT_MAX, read};
use files::Importing;
use plan::Plan;
use progress::Counting;
use space::Space;
use tree::{Staging, Tree};

/// What becomes of the set-user-ID, set-group-ID and sticky bits in an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialBits {
    /// They are left out: a document may come from anyone.
    Drop,
    /// They are set as they were imported.
    Set,
}

/// Stores a folder, or an OCI image layout, as a document that is pinned under a name and holds its blobs.
///
/// Links are stored as links; an image layout has none. What is neither a file, a directory nor a link, and what is
/// replaced while it is read, is left out and [reported](Imported::left_out). Owners and times are not stored.
///
/// Where it fails, the name names what it did before. Content that was stored until then stays as long as other
/// unreferenced blobs, and need not be stored again.
///
/// # Errors
/// [`TransferError`], as its variants say; [`Error::DigestMismatch`](crate::Error::DigestMismatch) where a blob of a
/// layout is not what its name says.
pub fn import(
    store: &Store,
    from: &Path,
    name: &str,
    existing: Existing,
    progress: impl Fn(Progress) -> ControlFlow<()> + Sync,
) -> Result<Imported, TransferError> {
    let pin = NewPin::new(store, name, existing)?;
    let mut tree = Tree::open(from)?;
    let before = store.usage()?.live_bytes;
    let import = if layout::is_layout(&mut tree)? { layout::import } else { folder::import };
    let counting = Counting::new(&progress);
    let report = import(&Importing { store, space: Space::at(store.root()), counting: &counting }, &mut tree, pin)?;
    Ok(Imported { bytes_stored: store.usage()?.live_bytes.saturating_sub(before), ..report })
}

/// Writes what was imported under a name to a folder, which must not exist or be empty.
///
/// Modes are as they were, whatever the umask is; those of image layouts are what the umask leaves. Where it fails,
/// nothing is left in the folder.
///
/// # Errors
/// [`TransferError`], as its variants say; [`Error::NamedNotFound`](crate::Error::NamedNotFound) where nothing has this
/// name.
pub fn export(
    store: &Store,
    name: &str,
    to: &Path,
    bits: SpecialBits,
    progress: impl Fn(Progress) -> ControlFlow<()> + Sync,
) -> Result<Exported, TransferError> {
    let mut plan = plan(store, name)?;
    let dropped = if bits == SpecialBits::Set { 0 } else { plan.drop_special_bits() };
    let counting = Counting::new(&progress);
    counting.expect(plan.bytes(store)?);
    let mut staging = Staging::create(Tree::create(to)?)?;
    let top = plan.write(store, staging.tree(), &counting)?;
    let left_behind = staging.move_into_place(&top)?;
    Ok(Exported { files: plan.files().count(), dropped, left_behind })
}

/// What there is to write of what was imported under a name.
fn plan(store: &Store, name: &str) -> Result<Plan, TransferError> {
    let pin = store.named().stat(name)?;
    let document = read(store, &pin.digest, DOCUMENT_MAX)?;
    if layout::is_index(&document) { layout::plan(store, &pin) } else { document::plan(store, name, &document) }
}
