//! Where things lie in a store's directory.

use std::path::{Path, PathBuf};

use crate::id::FileId;

/// The paths of a store.
///
/// Log files and segments lie in sharded directories of 256 ids each: a directory stays small, and since ids only grow,
/// all that was created since some id lies in the last few directories, which is where recovery looks for orphans.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The file whose lock keeps a second writer out.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    /// The file that makes a directory a store.
    pub(crate) fn format(&self) -> PathBuf {
        self.root.join("FORMAT")
    }

    /// Space that is kept for giving space back when the disk is full.
    pub(crate) fn reserve(&self) -> PathBuf {
        self.root.join("RESERVE")
    }

    /// A file that is written and removed to see whether that can be done.
    pub(crate) fn probe(&self) -> PathBuf {
        self.root.join("PROBE")
    }

    /// The file that marks a directory in which a snapshot is being built.
    pub(crate) fn unfinished(&self) -> PathBuf {
        self.root.join("UNFINISHED-SNAPSHOT")
    }

    /// The directory of copies of what salvages have cut.
    pub(crate) fn salvage(&self) -> PathBuf {
        self.root.join("salvage")
    }

    /// The directory of runs and their list.
    pub(crate) fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    pub(crate) fn run(&self, id: FileId) -> PathBuf {
        self.runs().join(format!("{id}.run"))
    }

    /// The derived view of names.
    pub(crate) fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// The directory of shards of log files.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The directory of shards of segments.
    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub(crate) fn log(&self, id: FileId) -> PathBuf {
        self.logs().join(shard(id)).join(format!("{id}.log"))
    }

    pub(crate) fn segment(&self, id: FileId) -> PathBuf {
        self.segments().join(shard(id)).join(format!("{id}.seg"))
    }
}

/// The name of the directory that holds a file.
pub(crate) fn shard(id: FileId) -> String {
    format!("{:010x}", id.0 >> 8)
}

/// Whether a directory that holds log files or segments may have a name.
pub(crate) fn is_shard(name: &str) -> bool {
    name.len() == 10 && name.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
}

/// The id in the name of a log file, segment or run.
pub(crate) fn parse_id(name: &str) -> Option<FileId> {
    let (hex, extension) = name.split_once('.')?;
    let known = matches!(extension, "log" | "seg" | "run") && hex.len() == 12;
    known.then(|| u64::from_str_radix(hex, 16).ok()).flatten().map(FileId)
}
