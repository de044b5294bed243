//! A simulated disk that a test watches: it may refuse to open files, and sees what is removed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

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

/// A file system that does not answer for a while where a file of some kind is created.
#[derive(Default)]
pub struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    /// A disk that stands where a file is created whose name ends so, while the gate is shut.
    pub fn before(self: &Arc<Self>, ending: &'static str, disk: &SimVfs) -> Watched {
        let gate = Arc::clone(self);
        let opening = move |path: &Path, mode: OpenMode| {
            if mode == OpenMode::CreateNew && path.to_string_lossy().ends_with(ending) {
                let mut state = gate.state.lock().expect("a gate");
                state.1 += usize::from(state.0);
                gate.changed.notify_all();
                let _open = gate.changed.wait_while(state, |(shut, _)| *shut).expect("a gate");
            }
            Ok(())
        };
        Watched { opening: Box::new(opening), ..Watched::new(disk) }
    }

    pub fn shut(&self) {
        self.state.lock().expect("a gate").0 = true;
    }

    pub fn open(&self) {
        self.state.lock().expect("a gate").0 = false;
        self.changed.notify_all();
    }

    /// Whether somebody stood before it.
    pub fn is_waited_for(&self) -> bool {
        self.state.lock().expect("a gate").1 > 0
    }

    /// Until somebody stands before it.
    pub fn wait(&self) {
        let state = self.state.lock().expect("a gate");
        drop(self.changed.wait_while(state, |(_, waiting)| *waiting == 0).expect("a gate"));
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
