//! The space on a store's file system.

use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use crate::commands::Failure;
use crate::output::{shown, size};

/// Whether there is space for less than this shows when it is stored: it may be compressed, and fills no disk alone.
const SMALL: u64 = 16 << 20;

/// How much there was at one time.
#[derive(Debug)]
pub struct Space {
    data: PathBuf,
    free: u64,
}

impl Space {
    /// Looks how much there is. What can't be known is taken for enough.
    pub fn of(data: &Path) -> Self {
        let known = statvfs(data).ok().filter(|stat| stat.f_blocks > 0);
        let free = known.map_or(u64::MAX, |stat| stat.f_bfree.saturating_mul(stat.f_frsize));
        Self { data: data.to_owned(), free }
    }

    /// Refuses a file for which there is not enough, whatever else is stored.
    pub fn check(&self, path: &Path, len: u64) -> Result<(), Failure> {
        if len < SMALL || len <= self.free {
            return Ok(());
        }
        let (file, data) = (shown(path), shown(&self.data));
        let (len, free) = (size(len), size(self.free));
        Err(Failure::Full(format!("{file} has {len}, and there are {free} left for {data}: free some space")))
    }
}
