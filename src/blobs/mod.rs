//! Blobs: storing, reading and claiming them, resumable uploads, and named files.

mod compress;
mod content;
mod destination;
mod list;
mod named;
mod reader;
mod source;
#[cfg(test)]
mod tests;
mod uploads;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

pub use compress::Compression;
pub(crate) use compress::{frame_for, unpack};
pub(crate) use content::Content;
#[cfg(feature = "tokio")]
pub(crate) use content::source_failed;
pub use content::{Expect, Stat, Stored};
pub(crate) use destination::{Claimed, Destination, Outside};
pub use list::Blobs;
pub(crate) use list::digest_in;
pub(crate) use named::NamedIn;
pub use named::{Expires, NamedBlob, NamedFile, NamedRemoval, NamedWrite, PutNamed};
#[cfg(feature = "tokio")]
pub(crate) use reader::part_of;
pub use reader::{Blob, BlobReader, BlobView};
pub use source::LimitedReader;
pub(crate) use source::SourceFile;
#[cfg(feature = "tokio")]
pub(crate) use uploads::Appending;
pub use uploads::UploadStatus;

use crate::clock::{Retention, StoreClock};
use crate::files::Contents;
use crate::id::UploadId;
use crate::log::Committer;
use crate::tables::{Tables, Upkeep};
use uploads::Slot;

/// How blobs are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlobOptions {
    /// Up to what length, in bytes, content is stored in the log.
    pub(crate) inline_max: u64,
    pub(crate) compression: Compression,
    /// The grace period for unreferenced blobs.
    pub(crate) retention: Retention,
    /// How many files the store keeps open: an eighth of them may be those of uploads that no call is working on.
    pub(crate) max_open_files: usize,
}

/// Stores and reads blobs.
pub(crate) struct BlobStore {
    contents: Arc<dyn Contents>,
    tables: Arc<Tables>,
    log: Arc<Committer>,
    upkeep: Arc<Upkeep>,
    clock: StoreClock,
    options: BlobOptions,
    /// Uploads that were appended to since the store was opened.
    uploads: Mutex<HashMap<UploadId, Slot>>,
}

crate::sync::print_by_name!(BlobStore);

impl BlobStore {
    pub(crate) fn new(
        (contents, tables, log): (Arc<dyn Contents>, Arc<Tables>, Arc<Committer>),
        upkeep: Arc<Upkeep>,
        clock: StoreClock,
        options: BlobOptions,
    ) -> Self {
        Self { contents, tables, log, upkeep, clock, options, uploads: Mutex::default() }
    }

    /// How small content is stored.
    pub(crate) fn compression(&self) -> Compression {
        self.options.compression
    }
}
