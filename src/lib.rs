//! strongroom: an embedded content-addressable storage engine for container registries and build tools.

mod digest;
mod error;
mod facts;
mod id;
mod segment;
pub mod vfs;
mod wire;

pub use digest::{Algorithm, Digest, Hasher};
pub use error::{Damage, Error, Result};
pub use id::{InvalidUploadId, Lsn, UploadId};
