//! A store, and a directory outside of every folder, in which nothing may change.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use strongroom::{Algorithm, Digest};

use crate::command::{code, command, ok};

/// What a file of somebody else has in it.
pub const SECRET: &str = "the secret of somebody else";

pub struct Lab {
    dir: tempfile::TempDir,
    pub data: PathBuf,
    /// What nothing may touch.
    pub outside: PathBuf,
    before: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

impl Lab {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data, outside) = (dir.path().join("data"), dir.path().join("outside"));
        fs::create_dir_all(outside.join("dir")).unwrap();
        for name in ["secret", "index.json", "dir/secret"] {
            fs::write(outside.join(name), SECRET).unwrap();
        }
        fs::set_permissions(outside.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        ok(&data, &["init"]);
        let before = snapshot(&outside);
        Self { dir, data, outside, before }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path as an argument.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        ok(&self.data, arguments)
    }

    /// Stores content, and pins it where a name is given.
    pub fn put(&self, content: &str, name: Option<&str>) -> String {
        let file = self.path("file");
        fs::write(&file, content).unwrap();
        let pin = name.map_or_else(Vec::new, |name| vec!["--pin", name]);
        let printed = self.ok(&[&["put", file.to_str().unwrap()], &pin[..]].concat());
        printed.split_whitespace().next().unwrap().to_owned()
    }

    /// Pins a document with these entries, as import would have made it.
    pub fn pin_entries(&self, name: &str, entries: &Value) {
        self.put(&json!({ "strongroom": "folder", "entries": entries, "parts": [] }).to_string(), Some(name));
    }

    /// Exports to a new folder; returns the exit code.
    pub fn export(&self, name: &str) -> i32 {
        let _ = fs::remove_dir_all(self.path("to"));
        code(&self.data, &["export", name, &self.text("to")])
    }

    /// Fails where something outside was changed, or read into the store.
    pub fn assert_outside_is_untouched(&self) {
        assert_eq!(snapshot(&self.outside), self.before);
        let secret = Digest::of(Algorithm::Sha256, SECRET.as_bytes());
        assert!(!self.ok(&["ls", "--blobs"]).contains(&secret.to_string()), "a file outside was imported");
    }

    /// Runs a command as an ordinary user, to whom all is given. `None` where that can't be: it is skipped.
    pub fn as_user(&self, arguments: &[&str]) -> Option<Output> {
        let mut command = command(&self.data, arguments);
        if fs::metadata(self.dir.path()).unwrap().uid() == 0 {
            give(self.dir.path(), NOBODY);
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output().ok().or_else(|| skip("an ordinary user can't run the command here"))
    }
}

const NOBODY: u32 = 65534;

fn give(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), user));
    }
}

pub fn skip<T>(why: &str) -> Option<T> {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    None
}

/// Makes names in a directory for what is at a path. Names of one file are cheap; there may be 65,000 of them.
pub fn names_of(path: &Path, dir: &Path, names: impl Iterator<Item = String>) {
    names.for_each(|name| fs::hard_link(path, dir.join(name)).unwrap());
}

/// All that is below a directory, and that itself: modes, content, and what links point to.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let metadata = fs::symlink_metadata(dir).unwrap();
    let mut found = BTreeMap::new();
    let content = if metadata.is_dir() {
        fs::read_dir(dir).unwrap().for_each(|entry| found.append(&mut snapshot(&entry.unwrap().path())));
        Vec::new()
    } else if metadata.is_symlink() {
        fs::read_link(dir).unwrap().into_os_string().into_encoded_bytes()
    } else if metadata.is_file() {
        fs::read(dir).unwrap()
    } else {
        Vec::new()
    };
    found.insert(dir.to_owned(), (metadata.mode(), content));
    found
}

/// Puts a link to `target` in the place of each directory in `tree`, and the directory back, again and again, while
/// `work` runs.
pub fn while_swapped(tree: &Path, target: &Path, work: impl FnOnce()) {
    let swap = || {
        for path in fs::read_dir(tree).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let aside = path.with_extension("aside");
            if path.is_dir() && fs::rename(&path, &aside).is_ok() {
                let _ = symlink(target, &path);
                std::thread::yield_now();
                let _ = fs::remove_file(&path);
                let _ = fs::rename(&aside, &path);
            }
        }
    };
    meanwhile(swap, work);
}

/// Does something again and again while `work` runs.
pub fn meanwhile(again: impl Fn() + Sync, work: impl FnOnce()) {
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                again();
            }
        });
        let _ends = Ends(&is_over);
        work();
    });
}
