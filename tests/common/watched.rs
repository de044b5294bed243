//! A simulated disk that a test watches: it may refuse to open files, and sees what is removed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use strongroom::vfs::{Directory, File, OpenMode, SimVfs, Vfs};

/// What is asked before a file or a directory is opened: an error is what comes of that.
type Opening = Box<dyn Fn(&Path, OpenMode) -> io::Result<()> + Send + Sync>;

/// What is told of each file that was there and was removed.
type Removed = Box<dyn Fn(&Path) + Send + Sync>;

pub struct Watched {
    pub disk: SimVfs,
    pub opening: Opening,
    pub removed: Removed,
}

impl Watched {
    pub fn new(disk: &SimVfs) -> Self {
        Self { disk: disk.clone(), opening: Box::new(|_, _| Ok(())), removed: Box::new(|_| {}) }
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl Vfs for Watched {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        (self.opening)(path, mode)?;
        self.disk.open(path, mode)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)?;
        (self.removed)(path);
        Ok(())
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Directory>> {
        (self.opening)(dir, OpenMode::Read)?;
        self.disk.open_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Vfs::lock(&self.disk, path)
    }
}
