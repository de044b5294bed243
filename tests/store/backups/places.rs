//! Where snapshots may be made. Nothing that was there before is ever removed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use strongroom::{Algorithm, Digest, Error, Options, SnapshotOptions, Store, TargetProblem};

/// A store in a directory, with a blob.
fn store_at(path: &Path) -> (Store, Digest) {
    let store = Options::new().create(true).open(path).unwrap();
    let digest = store.put(vec![7; 200_000], Algorithm::Sha256).unwrap().digest;
    (store, digest)
}

fn assert_not_empty(made: Result<impl std::fmt::Debug, Error>, path: &Path) {
    assert!(matches!(&made, Err(Error::NotEmpty { path: found }) if found == path), "{made:?}");
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn what_is_not_an_unfinished_snapshot_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (store, _) = store_at(&at("store"));
    let refused = |name: &str| {
        assert_not_empty(store.snapshot_to(at(name), &SnapshotOptions::new()), &at(&format!("{name}.incomplete")));
    };
    // A folder of another program's, also with a marker, and with names that look like a snapshot's.
    for file in ["photo", "log/photo", "log/0000000000/photo", "runs/photo", "segments/0000000001/000000000001.seg"] {
        let folder = at("folder.incomplete");
        let file = folder.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "mine").unwrap();
        refused("folder");
        fs::write(folder.join("UNFINISHED-SNAPSHOT"), "").unwrap();
        refused("folder");
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        fs::remove_dir_all(&folder).unwrap();
    }
    // A store that nobody has open, and a file.
    let (other, digest) = store_at(&at("other.incomplete"));
    other.close().unwrap();
    refused("other");
    assert!(Options::new().open(at("other.incomplete")).unwrap().get(&digest).unwrap().verify().is_ok());
    fs::write(at("file.incomplete"), "mine").unwrap();
    refused("file");
    // A link to an unfinished snapshot, and a link in one.
    fs::create_dir_all(at("elsewhere/segments/0000000000")).unwrap();
    fs::write(at("elsewhere/segments/0000000000/000000000001.seg"), "mine").unwrap();
    fs::write(at("elsewhere/UNFINISHED-SNAPSHOT"), "").unwrap();
    std::os::unix::fs::symlink(at("elsewhere"), at("link.incomplete")).unwrap();
    refused("link");
    fs::create_dir(at("linked.incomplete")).unwrap();
    fs::write(at("linked.incomplete/UNFINISHED-SNAPSHOT"), "").unwrap();
    std::os::unix::fs::symlink(at("elsewhere/segments"), at("linked.incomplete/segments")).unwrap();
    refused("linked");
    assert_eq!(files(&at("elsewhere")).len(), 2);
}

#[test]
fn a_store_is_not_removed_by_a_snapshot_of_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.incomplete");
    let (store, digest) = store_at(&path);
    store.close().unwrap();
    let reader = Options::new().read_only(true).open(&path).unwrap();
    assert_not_empty(reader.snapshot_to(dir.path().join("store"), &SnapshotOptions::new()), &path);
    assert!(Options::new().open(&path).unwrap().get(&digest).unwrap().verify().is_ok());
}

#[test]
fn the_marker_of_an_unfinished_snapshot_does_not_outlive_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store_at(&dir.path().join("store"));
    let (copy, marker) = (dir.path().join("copy"), dir.path().join("copy/UNFINISHED-SNAPSHOT"));
    store.snapshot_to(&copy, &SnapshotOptions::new()).unwrap();
    assert!(!marker.exists());
    // A crash in the last moment leaves it: the snapshot is whole, and the next opening removes the marker.
    fs::write(&marker, "").unwrap();
    Options::new().open(&copy).unwrap().close().unwrap();
    assert!(!marker.exists());
}

#[test]
fn a_snapshot_in_a_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (store, _) = store_at(&at("store"));
    store.snapshot_to(at("base"), &SnapshotOptions::new()).unwrap();
    let _other = store_at(&at("other"));
    std::os::unix::fs::symlink(at("store/segments"), at("link")).unwrap();
    let before = files(dir.path());
    for (place, around) in [
        ("store/copy", "store"),
        ("store/names/copy", "store"),
        ("store/segments/copy", "store"),
        ("link/copy", "store"),
        ("store/../store/log/copy", "store"),
        ("base/copy", "base"),
        ("base/runs/copy", "base"),
        ("other/copy", "other"),
    ] {
        let refused = store.snapshot_to(at(place), &SnapshotOptions::new().links(false).base(at("base"))).unwrap_err();
        let Error::SnapshotTarget { problem: TargetProblem::InStore { store }, .. } = &refused else {
            panic!("{place}: {refused}")
        };
        assert_eq!(*store, fs::canonicalize(at(around)).unwrap());
    }
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_snapshot_at_a_link_or_a_mount_point_is_refused_before_anything_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store_at(&dir.path().join("store"));
    let refused = |place: &Path| match store.snapshot_to(place, &SnapshotOptions::new()) {
        Err(Error::SnapshotTarget { problem, .. }) => problem,
        other => panic!("{}: {other:?}", place.display()),
    };
    let (empty, link) = (dir.path().join("empty"), dir.path().join("link"));
    fs::create_dir(&empty).unwrap();
    std::os::unix::fs::symlink(&empty, &link).unwrap();
    assert_eq!(refused(&link), TargetProblem::Link);
    assert!(!dir.path().join("link.incomplete").exists());
    // On another file system than what is around it, and empty. There may be none that can be written to.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let is_empty = |path: &Path| fs::read_dir(path).is_ok_and(|mut names| names.next().is_none());
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let points = points.filter(|point| is_empty(point) && point.parent().is_some_and(|up| device(up) != device(point)));
    for point in points {
        assert_eq!(refused(point), TargetProblem::MountPoint, "{}", point.display());
    }
}

#[test]
fn a_snapshot_is_not_open_to_more_users_than_what_it_replaces_or_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let (store, _) = store_at(&at("store"));
    fs::create_dir(at("private")).unwrap();
    for (of_store, to, there, expected) in [
        (0o700, "new", None, 0o700),
        (0o750, "shared", None, 0o750),
        (0o755, "private", Some(0o700), 0o700),
        (0o500, "unwritable", None, 0o700),
    ] {
        set(&at("store"), of_store);
        if let Some(there) = there {
            set(&at(to), there);
        }
        store.snapshot_to(at(to), &SnapshotOptions::new()).unwrap();
        assert_eq!(mode(&at(to)), expected, "{to}");
    }
    set(&at("store"), 0o755);
    // While it is built, nobody else may look: what a crash leaves says so.
    fs::create_dir(at("late.incomplete")).unwrap();
    fs::create_dir(at("late.incomplete/runs")).unwrap();
    fs::create_dir(at("late.incomplete/runs/LIST")).unwrap(); // can't be removed
    fs::write(at("late.incomplete/UNFINISHED-SNAPSHOT"), "").unwrap();
    set(&at("late.incomplete"), 0o777);
    store.snapshot_to(at("late"), &SnapshotOptions::new()).unwrap_err();
    assert_eq!(mode(&at("late.incomplete")), 0o700);
}
