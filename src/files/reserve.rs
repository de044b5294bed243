//! The reserve: disk space that is kept for operations that free space on a full disk.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::sync::lock;
use crate::vfs::{OpenMode, Vfs};

/// What space may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// What is free.
    Free,
    /// That, and what is reserved for giving space back.
    Reserve,
}

/// A file of a fixed length that holds nothing.
///
/// # Invariant kept here
/// Whatever takes space begins with [`restore`](Self::restore); only what leads to space being given back may
/// [`release`](Self::release) it.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    len: u64,
    is_there: AtomicBool,
    /// Held while the reserve is made or given up.
    changing: Mutex<()>,
}

impl Reserve {
    pub(super) fn new(path: PathBuf, len: u64) -> Self {
        Self { path, len, is_there: AtomicBool::new(false), changing: Mutex::default() }
    }

    pub(super) fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Acquire)
    }

    /// Makes sure that the reserve is there.
    pub(super) fn restore(&self, vfs: &dyn Vfs) -> Result<()> {
        if self.is_there() {
            return Ok(());
        }
        let _one = lock(&self.changing);
        if self.is_there() {
            return Ok(());
        }
        let open = || match vfs.open(&self.path, OpenMode::Write) {
            Err(error) if error.kind() == ErrorKind::NotFound => vfs.open(&self.path, OpenMode::CreateNew),
            other => other,
        };
        let file = open().map_err(Error::io("reserve", &self.path))?;
        if file.len().map_err(Error::io("reserve", &self.path))? != self.len {
            let allocated = file.allocate(self.len).map_err(Error::io("reserve", &self.path));
            allocated.inspect_err(|_| drop(vfs.remove(&self.path)))?; // a part of it is of no use to anybody
        }
        self.is_there.store(true, Ordering::Release);
        Ok(())
    }

    /// Gives up the reserve. It may be gone: somebody else just did this, or was about to make it.
    pub(super) fn release(&self, vfs: &dyn Vfs) {
        let _one = lock(&self.changing);
        self.is_there.store(false, Ordering::Release);
        let _ = vfs.remove(&self.path);
    }
}
