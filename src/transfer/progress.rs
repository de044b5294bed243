//! How far a transfer has come, and its end where the caller asks for it.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::transfer::error::TransferError;

/// How far an import or an export has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How many bytes of content were read or written.
    pub bytes: u64,
    /// How many there are in all, where that is known beforehand.
    pub total_bytes: Option<u64>,
    /// How many files were stored or written; of a registry, how many blobs, manifests and tags.
    pub items: u64,
}

/// Counts, and tells the caller.
pub(crate) struct Counting<'a> {
    tell: &'a (dyn Fn(Progress) -> ControlFlow<()> + Sync),
    bytes: AtomicU64,
    items: AtomicU64,
    /// The highest value where it is not known.
    total: AtomicU64,
    stopped: AtomicBool,
}

impl<'a> Counting<'a> {
    pub(crate) fn new(tell: &'a (dyn Fn(Progress) -> ControlFlow<()> + Sync)) -> Self {
        let (bytes, items, total) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Self { tell, bytes, items, total, stopped: AtomicBool::new(false) }
    }

    /// Says how many bytes there are.
    pub(crate) fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Whether the caller has asked for the end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Counts bytes. Fails once the caller asks for the end.
    pub(crate) fn add(&self, bytes: usize) -> io::Result<()> {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.told()
    }

    /// Counts bytes; fails also once something else has failed.
    pub(crate) fn add_unless(&self, stop: &AtomicBool, bytes: usize) -> io::Result<()> {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another file has failed"));
        }
        self.add(bytes)
    }

    /// Counts something that is done. Fails once the caller asks for the end.
    pub(crate) fn item(&self) -> io::Result<()> {
        self.items.fetch_add(1, Ordering::Relaxed);
        self.told()
    }

    fn told(&self) -> io::Result<()> {
        let [bytes, items, total] = [&self.bytes, &self.items, &self.total].map(|n| n.load(Ordering::Relaxed));
        let progress = Progress { bytes, items, total_bytes: Some(total).filter(|total| *total < u64::MAX) };
        if self.is_stopped() || (self.tell)(progress).is_break() {
            self.stopped.store(true, Ordering::Relaxed);
            return Err(io::Error::other("stopped by the caller"));
        }
        Ok(())
    }

    /// Says that it was the caller who asked for the end, where something failed because of that.
    pub(crate) fn unless_stopped<T>(&self, result: Result<T, TransferError>) -> Result<T, TransferError> {
        result.map_err(|error| if self.is_stopped() { TransferError::Stopped } else { error })
    }

    /// A reader of which each byte counts.
    pub(crate) fn count<R>(&self, reader: R) -> Counted<'_, R> {
        Counted { reader, counting: self }
    }
}

impl std::fmt::Debug for Counting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counting")
    }
}

/// A reader of which each byte counts.
pub(crate) struct Counted<'a, R> {
    reader: R,
    counting: &'a Counting<'a>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read(to)?;
        self.counting.add(len)?;
        Ok(len)
    }
}
