//! Repositories: blobs, manifests, tags and referrers, as in the OCI distribution specification.
//!
//! A [repository](Repository) has blobs, manifests and tags. A blob is visible in a repository only if it was pushed or
//! mounted there, even if other repositories have it; its content is stored once. A manifest holds the blobs and
//! manifests that it references: none of them can be deleted while it exists. A tag names a manifest.
//!
//! ```
//! use strongroom::registry::{PutManifest, RepositorySettings};
//! use strongroom::{Algorithm, Error, Options};
//!
//! # let dir = tempfile::tempdir()?;
//! let store = Options::new().create(true).open(dir.path().join("store"))?;
//! let app = store.create_repository(&"team/app".parse()?, RepositorySettings::new())?;
//!
//! // First the blobs, then the manifest that references them, under a tag.
//! let config = app.put("{}", Algorithm::Sha256)?.digest;
//! let layer = app.put("a layer", Algorithm::Sha256)?.digest;
//! let media_type = "application/vnd.oci.image.manifest.v1+json";
//! let manifest = format!(
//!     r#"{{"schemaVersion":2,
//!     "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},
//!     "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":7}}]}}"#
//! );
//! let pushed = app.put_manifest(&manifest, PutManifest::new(media_type).tag("v1".parse()?))?;
//!
//! // It comes back byte for byte, and what it references stays.
//! let pulled = app.pull_manifest(&"v1".parse()?)?;
//! assert_eq!((pulled.digest, &pulled.content[..]), (pushed.digest, manifest.as_bytes()));
//! assert!(matches!(app.remove_blob(&layer), Err(Error::BlobInUse { count: 1, .. })));
//!
//! // Another repository does not see the layer unless it is mounted there.
//! let other = store.create_repository(&"team/other".parse()?, RepositorySettings::new())?;
//! assert!(matches!(other.get(&layer), Err(Error::BlobNotFound { .. })));
//! other.mount(&layer, app.name(), |_from| true)?;
//! assert_eq!(other.get(&layer)?.bytes()?, "a layer");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//! - **All or nothing.** A manifest, its references, its tags and its subject take effect together, in one record of
//!   the log, or not at all. References are checked in that commit, so no deletion can come between.
//! - **A lost race costs a push, never an image.** A blob that a client pushed, mounted or [claimed](Repository::claim)
//!   is kept for at least [`Options::retention`](crate::Options::retention), counted while the store is open: neither a
//!   jump of the clock nor a restart shortens that. After it, a manifest that references a blob that was collected is
//!   refused with [`ReferencesMissing`](crate::Error::ReferencesMissing).
//! - **Tags** are moved atomically, and by compare-and-set where [asked](PutManifest::expect_tag). Where two clients
//!   push one tag, the later push wins.
//! - **Referrers**: a manifest with a `subject` is listed under it from when it is pushed until it is deleted itself,
//!   whether the subject exists or not. It neither keeps its subject nor is deleted with it.
//! - **Images are archived and restored as a whole**: what can be [pulled](Repository::pull_manifest) holds nothing
//!   that can't be. See [`set_storage_class`](Repository::set_storage_class).
//! - **What was decided about an image is done only while the image is as it was then**: see
//!   [`apply_if_unchanged`](Repository::apply_if_unchanged).
//! - **A deleted repository** is gone at once, and its name is free. What was in it is removed in small commits in the
//!   background, also after a crash.
//!
//! # Lifecycle policies
//! [`lifecycle`] reads the policies of Amazon ECR and decides which images of a repository expire or are archived.
//! [`Repository::lifecycle_plan`] is what a policy would do, and [`Repository::apply_lifecycle`] does it.
//!
//! # Isolation of repositories
//! A user of one repository learns nothing of others: a blob that only others have is [not
//! found](crate::Error::BlobNotFound), mounting from a repository that the user may not read fails as if the blob did
//! not exist, a push of content that is stored already still takes its whole content, and an upload's id is not valid
//! in another repository.

mod blobs;
mod conditional;
mod documents;
mod events;
mod housekeeping;
mod images;
pub mod lifecycle;
mod manifests;
mod referrers;
mod repository;
mod snapshot;
mod tags;
mod usage;

pub use crate::facts::StorageClass;
pub use crate::oci::{
    ExpectDocument, ExpectTag, Reference, RepositoryInfo, RepositoryName, RepositorySettings, Tag, TagFilter,
    TagMutability,
};
pub use blobs::BlobInfo;
pub use documents::Document;
pub use events::{Event, EventKind, Events, Subject};
pub use images::{ImageFacts, ImageInfo};
pub(crate) use manifests::MAX_MANIFEST;
pub use manifests::{Manifest, ManifestInfo, OpenManifest, Pushed, PutManifest};
pub use referrers::Referrer;
pub use repository::{Repository, RepositoryDeletion};
pub use snapshot::RepositorySnapshot;
pub use tags::TagInfo;
pub use usage::RepositoryUsage;

pub use crate::error::ImageChange;
pub use crate::transaction::registry::{ConditionalAction, ImageAction, ImageVersion};

use std::sync::{Arc, Mutex};

use crate::blobs::BlobStore;
use crate::clock::{Retention, StoreClock};
use crate::files::Files;
use crate::log::Committer;
use crate::tables::{Tables, Upkeep};
use events::EventPositions;
use housekeeping::Pending;

/// What repositories are kept on.
pub(crate) struct Registry {
    files: Arc<Files>,
    tables: Arc<Tables>,
    log: Arc<Committer>,
    blobs: Arc<BlobStore>,
    upkeep: Arc<Upkeep>,
    clock: StoreClock,
    /// The grace period for unreferenced blobs and links.
    retention: Retention,
    /// What is to be done for repositories.
    pending: Pending,
    /// Positions in log files where reading events ended.
    event_positions: Mutex<EventPositions>,
}

crate::sync::print_by_name!(Registry);

impl Registry {
    pub(crate) fn new(
        (files, tables, log): (Arc<Files>, Arc<Tables>, Arc<Committer>),
        upkeep: Arc<Upkeep>,
        blobs: Arc<BlobStore>,
        clock: StoreClock,
        retention: Retention,
    ) -> Self {
        let (pending, event_positions) = (Pending::default(), Mutex::default());
        Self { files, tables, log, blobs, upkeep, clock, retention, pending, event_positions }
    }
}
