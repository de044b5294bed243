//! strongroom: an embedded content-addressable storage engine for container registries and build tools.

#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "tests"))]

mod blob;
mod clock;
mod digest;
mod error;
mod facts;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod id;
mod log;
mod names;
mod runs;
mod sealed;
mod segment;
mod store;
mod sync;
pub mod vfs;
mod wire;

pub use blob::{Blob, BlobReader};
pub use clock::Clock;
pub use digest::{Algorithm, Digest, Hasher};
pub use error::{Damage, Error, Result};
pub use id::{InvalidUploadId, Lsn, UploadId};
pub use sealed::ReadMode;
pub use store::{
    Blobs, Compression, Durability, Expect, Finding, Maintenance, Options, Pin, PinOptions, Stat, Store, UploadStatus,
    Usage, Verification,
};
