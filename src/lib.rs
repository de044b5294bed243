//! strongroom: an embedded content-addressable storage engine for container registries and build tools.
//!
//! A program links this crate and gets, in one directory: blobs named by their digests and stored once, uploads that
//! survive a restart, repositories with manifests and tags that keep what they reference, and named files: content
//! under names that can be replaced. There is no server and nothing to set up. When a write returns, it survives a
//! power cut.
//!
//! # Overview
//! - [`Options`] opens or creates a [`Store`], which any number of threads share.
//! - [`Store::put`] and [`Store::put_reader`] store content under its [`Digest`], given or computed. [`Store::get`]
//!   returns a [`Blob`]: [`view`](Blob::view), [`bytes`](Blob::bytes), [`slice`](Blob::slice),
//!   [`reader`](Blob::reader), all verified. A blob stays readable while it is removed.
//! - [`Store::begin_upload`], [`append_upload`](Store::append_upload), [`commit_upload`](Store::commit_upload): content
//!   that arrives in pieces, perhaps over days.
//! - [`registry`]: [`Store::create_repository`] gives a [`Repository`](registry::Repository), which sees the blobs that
//!   were pushed to it, and whose [manifests](registry::Repository::put_manifest) hold what they reference.
//!   [`Store::events`] returns what happened, in order.
//! - [`keys`]: encryption at rest. [`Options::key_provider`] opens or creates an encrypted store;
//!   [`Store::create_domain`] creates domains that share neither keys nor content, and [`Store::shred_domain`]
//!   destroys one for good.
//! - [`Store::named`]: [named files](NamedFiles). Names that keep content, and what it references, and that are
//!   replaced atomically, by compare-and-set where asked: for mutable files beside blobs, and cache keys.
//!   [`Store::remove`] removes an unreferenced blob.
//! - [`Store::collect`], or [`Options::collect_every`] in the background, collects garbage: it removes unreferenced
//!   blobs and gives their space back.
//! - [`Store::verify`] reads all content and recounts reference counts. [`Store::scrub`] does so at a bounded rate, and
//!   flags damaged blobs, which a push of the same content repairs. [`Store::repair`] rebuilds reference counts and
//!   indexes. [`Options::salvage`] makes a store with a damaged log open again.
//! - [`registry::lifecycle`]: lifecycle policies of Amazon ECR, which expire and archive images, and leave those that
//!   are used meanwhile.
//! - [`policy`]: access policies in the language of Amazon's IAM, and decisions that name the statement they come from.
//!   `sigv4` (with the feature `encryption`) verifies requests that AWS clients sign.
//! - [`transfer`] imports and exports folders and OCI image layouts.
//! - [`Error`] is one enum to match on, and [`Error::kind`] says what to do about it. Nothing that is passed in or lies
//!   on disk causes a panic.
//!
//! # Example
//! ```
//! use std::io::Read;
//!
//! use strongroom::{Algorithm, Digest, Error, Options, PutNamed};
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("store");
//! let store = Options::new().create(true).open(&dir)?;
//!
//! // A layer comes in pieces, as clients of registries send it.
//! let upload = store.begin_upload(Algorithm::Sha256)?;
//! let offset = store.append_upload(upload, 0, "first half, ")?;
//! store.append_upload(upload, offset, "second half")?;
//! let digest = Digest::of(Algorithm::Sha256, b"first half, second half");
//! store.commit_upload(upload, &digest)?;
//!
//! // A document that refers to it gets a name: now nothing can remove the layer.
//! let document = format!("{{\"layers\":[\"{digest}\"]}}");
//! store.named().put("app:1", document, PutNamed::new().references([digest]))?;
//! assert!(matches!(store.remove(&digest), Err(Error::BlobInUse { count: 1, .. })));
//!
//! // Any part can be read, and each byte is verified.
//! let blob = store.get(&digest)?;
//! assert_eq!(blob.slice(0..5)?, "first");
//! let mut whole = String::new();
//! blob.reader().read_to_string(&mut whole)?;
//! assert_eq!(whole, "first half, second half");
//! store.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//! Facts and small content are written to one log; commits that wait at the same time share one `fdatasync`. Facts are
//! then folded into sorted, immutable runs; long content is stored in segment files of its own. `docs/design.md` in the
//! repository describes the formats byte by byte, the invariants, the order of syncs and recovery.
//!
//! # Features
//! On by default:
//! - `encryption`: encryption at rest, and [`keys`]' providers. Without it, [`Error::EncryptionLeftOut`] refuses an
//!   encrypted store.
//! - `sled`: the view of names on disk. Without it names in order are in memory, some 100 bytes each, and read from the
//!   facts at each opening.
//!
//! Others:
//! - `cli`: the `strongroom` command; with `encryption`.
//! - `kms`: with `encryption`; in [`keys`], a provider whose key a key management service keeps, and a client of AWS
//!   KMS.
//! - `simulation`: [`vfs`]'s simulated file system with power cuts and faults, for tests.
//! - `tokio`: the module `aio`, for async programs on tokio: the same calls, blobs as streams and readers, uploads as
//!   sinks and writers.
//! - `fuzzing`: the parsers as entry points for fuzzers; no stable API.

#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "tests"))]

#[cfg(feature = "tokio")]
pub mod aio;
mod blobs;
mod calendar;
mod check;
mod clock;
mod digest;
mod envelope;
mod error;
mod facts;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gc;
#[cfg(test)]
mod golden;
mod id;
mod json;
pub mod keys;
mod log;
mod names;
#[cfg(all(feature = "encryption", feature = "simulation"))]
#[doc(hidden)]
pub mod nonces;
mod oci;
mod page;
pub mod policy;
mod prefetch;
mod random;
pub mod registry;
#[cfg(test)]
mod rooms;
mod sealed;
mod segment;
#[cfg(feature = "encryption")]
pub mod sigv4;
mod store;
#[cfg(test)]
mod style;
mod sync;
mod tables;
mod thread;
mod transaction;
pub mod transfer;
pub mod vfs;
mod wire;
mod zeroing;

/// The example of the README is compiled and run.
#[cfg(all(doctest, feature = "encryption"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// So are those of docs/embedding.md.
#[cfg(all(doctest, feature = "encryption", feature = "tokio"))]
#[doc = include_str!("../docs/embedding.md")]
struct Embedding;

pub use blobs::{
    Blob, BlobReader, BlobView, Blobs, Compression, Expect, Expires, LimitedReader, NamedBlob, NamedFile, NamedRemoval,
    NamedWrite, PutNamed, Stat, Stored, UploadStatus,
};
pub use check::{Affected, DamagedBlob, Finding, Repair, Scrub, ScrubOptions, Verification};
pub use clock::Clock;
pub use digest::{Algorithm, Digest, Hasher};
pub use envelope::LockedDomain;
pub use error::{Damage, Error, ErrorKind, ManifestProblem, ReadOnlyCause, Result, TargetProblem};
pub use gc::{CollectOptions, Collection, Expired, Stayed, Stopped};
pub use id::{Lsn, UploadId};
pub use log::Durability;
pub use page::Page;
pub use sealed::ReadMode;
pub use store::{
    ChangedInRepository, ChangedNames, DataKeyInfo, DomainInfo, Health, Maintenance, NamedFiles, NamedSnapshot,
    Options, Recovery, Rewriting, Salvage, SalvageReport, Snapshot, SnapshotOptions, SnapshotReport, Store, StoreState,
    Usage,
};
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub use thread::limit_threads;
pub use transaction::ExpectNamed;
