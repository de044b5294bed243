//! Blobs: reading stored content back, and deciding how it is stored.

mod compress;
pub(crate) mod content;
pub(crate) mod pins;
mod reader;
pub(crate) mod uploads;

pub(crate) use compress::{frame_for, unpack};
pub use reader::{Blob, BlobReader};
