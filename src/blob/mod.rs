//! Blobs: reading stored content back, and deciding how it is stored.

mod compress;
mod reader;

pub(crate) use compress::{frame_for, unpack};
pub use reader::{Blob, BlobReader};
