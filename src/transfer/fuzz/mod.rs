//! Documents, layouts and trees made at random, valid ones and nearly valid ones. Whatever they are: nothing outside of
//! its folder is written by an export or read by an import, and what was imported is exported as it was.
//!
//! `STRONGROOM_CASES` is the number of cases of each test; `STRONGROOM_SEED` is the seed, which is printed.

mod documents;
mod trees;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::digest::{Algorithm, Digest};
use crate::log::Durability;
use crate::store::{Options, Store};
use crate::transfer::{self, Exported, Progress, SpecialBits, TransferError};
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

const CASES: u64 = 500;

/// What is in files that are none of an import's business.
const SECRET: &[u8] = b"the secret of somebody else";

/// Names of files, the second half of which is rare in practice.
const NAMES: [&[u8]; 12] =
    [b"a", b"b", b"c", b"d", b"e", b"f", b"-rf", b"a\xff", b"x\ny", b"...", b"index.json", b"oci-layout"];

/// A source of choices.
struct Draws(TestRng);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.next_u64() % bound as u64).unwrap()
    }

    /// True in one of so many cases.
    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// Runs a test for many cases, with choices that follow from a seed.
fn cases(mut case: impl FnMut(&Lab, &mut Draws)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: u64 = number("STRONGROOM_SEED").unwrap_or(23);
    println!("seed {seed}: repeat with STRONGROOM_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut draws = Draws(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let lab = Lab::new();
    for number in 0..number("STRONGROOM_CASES").unwrap_or(CASES) {
        let _case = Case(number);
        case(&lab, &mut draws);
        lab.check();
    }
}

fn goes_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Says which case failed.
struct Case(u64);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("case {} failed", self.0);
        }
    }
}

/// A store, folders for the cases, and what is around them.
struct Lab {
    dir: tempfile::TempDir,
    store: Store,
    before: Snapshot,
}

/// Files, directories, links and others by path: mode, and content or what the link points to.
type Snapshot = BTreeMap<PathBuf, (u32, Vec<u8>)>;

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let around = dir.path().join("around");
        fs::create_dir_all(around.join("dir/empty")).unwrap();
        fs::create_dir(around.join("cases")).unwrap();
        for name in ["secret", "a", "dir/a", "cases/a"] {
            fs::write(around.join(name), SECRET).unwrap();
        }
        fs::set_permissions(around.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("dir", around.join("link")).unwrap();
        let options = Options::new().create(true).durability(Durability::Relaxed);
        let store = options.open(dir.path().join("store")).unwrap();
        let before = snapshot(&around);
        Self { dir, store, before }
    }

    /// Where the cases are: a folder in the surroundings.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("around/cases").join(name)
    }

    /// What a path outside may be called, from inside of a case's folder.
    fn outside(&self, draws: &mut Draws) -> Vec<u8> {
        let around = self.dir.path().join("around");
        let relative =
            ["..", "../..", "../a", "../../secret", "../../dir", "../../dir/a", "../../../../../../etc/passwd"];
        match draws.below(3) {
            0 => around
                .join(draws.pick(&["", "secret", "dir", "dir/a", "link", "cases"]))
                .into_os_string()
                .into_encoded_bytes(),
            1 => draws.pick(&["/", "/etc/passwd", "/dev/zero", "/proc/self/fd/0"]).as_bytes().to_vec(),
            _ => draws.pick(&relative).as_bytes().to_vec(),
        }
    }

    fn export(&self, bits: SpecialBits) -> Result<Exported, TransferError> {
        transfer::export(&self.store, "case", &self.path("to"), bits, goes_on)
    }

    /// Removes the folders of a case. Nothing else may have changed, and no secret may be in the store.
    fn check(&self) {
        for name in ["from", "to"] {
            remove(&self.path(name));
        }
        assert_eq!(snapshot(&self.dir.path().join("around")), self.before);
        assert!(!self.store.exists(&Digest::of(Algorithm::Sha256, SECRET)).unwrap());
    }
}

/// Removes what is at a path, whatever its modes are.
fn remove(path: &Path) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if metadata.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        fs::read_dir(path).unwrap().for_each(|entry| remove(&entry.unwrap().path()));
        fs::remove_dir(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

/// All that is below a directory, and may be read, by path relative to it.
fn snapshot(root: &Path) -> Snapshot {
    fn visit(root: &Path, dir: &Path, found: &mut Snapshot) {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let content = if metadata.is_file() {
                fs::read(&path).unwrap_or_default()
            } else if metadata.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                Vec::new()
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), (metadata.mode(), content));
            if metadata.is_dir() {
                visit(root, &path, found);
            }
        }
    }
    let mut found = Snapshot::new();
    visit(root, root, &mut found);
    found
}
