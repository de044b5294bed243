//! Disk usage, from counts that facts have anyway.

use std::collections::HashSet;

use crate::error::Result;
use crate::store::Store;

/// Space taken, in bytes. See [`Store::usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The frames of blobs: content as stored, with its checksums.
    pub live_bytes: u64,
    /// Frames of removed blobs, in files that have frames of other blobs too.
    pub dead_bytes: u64,
    /// How many frames live: as many as there are blobs.
    pub blobs: u64,
    /// How many log files and segments hold them.
    pub segments: u64,
    /// The runs, in which facts lie.
    pub run_bytes: u64,
}

impl Store {
    /// What blobs and facts take on disk, without [locked](Self::locked_domains) key domains. Unfinished uploads, log
    /// space that is allocated ahead, the reserve and the view of names are not counted. The cost is proportional to
    /// the number of segments, not of blobs.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) where the facts that would tell are damaged.
    pub fn usage(&self) -> Result<Usage> {
        let snapshot = self.inner()?.tables.snapshot();
        let run_bytes = self.inner()?.tables.run_bytes();
        let mut usage = Usage { run_bytes, ..Usage::default() };
        // A log file counts once, however many domains have something in it.
        let mut files = HashSet::new();
        for snapshot in snapshot.each_domain() {
            for fact in snapshot.segment_facts()? {
                let (file, segment) = fact?;
                usage.live_bytes += segment.live_bytes;
                usage.dead_bytes += segment.frame_bytes.saturating_sub(segment.live_bytes);
                usage.blobs += u64::from(segment.live_frames);
                files.insert(file);
            }
        }
        usage.segments = files.len() as u64;
        Ok(usage)
    }
}
