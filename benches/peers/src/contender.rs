//! What each contender can be asked to do.

use std::path::Path;

use sha2::{Digest as _, Sha256};

/// How many are stored in one transaction when loading.
const BATCH: usize = 10_000;

/// The name that a contender gives content.
pub type Key = Vec<u8>;

/// A store of blobs.
pub trait Contender: Send + Sync {
    /// Stores content, as durably as it can, and returns when that is done.
    fn put(&self, content: &[u8]);

    /// Stores many, as durably as it can, and returns when that is done: with one transaction where it has any.
    fn put_many(&self, contents: &[Vec<u8>]) {
        contents.iter().for_each(|content| self.put(content));
    }

    /// Stores many, however is fastest.
    fn load(&self, contents: &mut dyn Iterator<Item = Vec<u8>>) {
        in_batches(contents, |batch| self.put_many(batch));
    }

    /// Reads content and returns its length, having looked at each page of it.
    fn get(&self, key: &[u8]) -> usize;

    /// Whether there is such content.
    fn exists(&self, key: &[u8]) -> bool;

    /// The name that it gives this content.
    fn key(&self, content: &[u8]) -> Key {
        sha256(content)
    }
}

/// Opens a contender in an empty directory.
pub type Open = fn(&Path) -> Box<dyn Contender>;

pub fn sha256(content: &[u8]) -> Key {
    Sha256::digest(content).to_vec()
}

/// Looks at each page of bytes.
pub fn touch(bytes: &[u8]) -> usize {
    let sum: u64 = bytes.iter().step_by(4096).map(|byte| u64::from(*byte)).sum();
    std::hint::black_box(sum);
    bytes.len()
}

/// Hands on what comes, so many at a time.
pub fn in_batches(contents: &mut dyn Iterator<Item = Vec<u8>>, mut write: impl FnMut(&[Vec<u8>])) {
    loop {
        let batch: Vec<_> = contents.take(BATCH).collect();
        if batch.is_empty() {
            return;
        }
        write(&batch);
    }
}
