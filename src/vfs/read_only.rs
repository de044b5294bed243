//! A file system in which nothing can be changed for the time being.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::vfs::{Directory, File, OpenMode, Vfs};

/// Another file system, of which only what reads is passed on until that is lifted.
#[derive(Debug)]
pub(crate) struct ReadOnly {
    vfs: Arc<dyn Vfs>,
    is_lifted: Arc<AtomicBool>,
}

impl ReadOnly {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, is_lifted: Arc<AtomicBool>) -> Self {
        Self { vfs, is_lifted }
    }

    /// The file system, to change something in it.
    fn writable(&self) -> io::Result<&dyn Vfs> {
        if self.is_lifted.load(Ordering::Acquire) { Ok(&*self.vfs) } else { Err(ErrorKind::ReadOnlyFilesystem.into()) }
    }
}

impl Vfs for ReadOnly {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        match mode {
            OpenMode::Read => self.vfs.open(path, mode),
            OpenMode::Write | OpenMode::CreateNew => self.writable()?.open(path, mode),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.writable()?.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.vfs.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.writable()?.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.writable()?.remove(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.writable()?.link(from, to)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.writable()?.remove_dir(path)
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Directory>> {
        self.vfs.open_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.vfs.lock(path)
    }
}
