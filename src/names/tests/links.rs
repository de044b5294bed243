//! A view whose directory somebody else has made: nothing outside of it is written, cut or removed.

use std::collections::BTreeMap;
use std::fs::{self, hard_link};
use std::os::unix::fs::symlink;

use super::*;

/// All that lies below a directory: files with their content.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(content(&entry.path())),
            false => drop(found.insert(entry.path(), fs::read(entry.path()).unwrap())),
        }
    }
    found
}

#[test]
fn links_in_the_place_of_the_view_or_in_it_are_removed_and_nothing_that_they_lead_to_is_touched() {
    type Spoil = fn(&Path, &Path);
    let replace = |path: PathBuf, link: &dyn Fn(&Path)| {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.unwrap_or_else(|_| assert!(!path.exists()));
        link(&path);
    };
    let spoil: [(&str, Spoil); 9] = [
        ("the directory", |names, out| symlink(out, names).unwrap()),
        ("the directory, to nothing", |names, out| symlink(out.join("new"), names).unwrap()),
        ("db", |names, out| symlink(out.join("db"), names.join("db")).unwrap()),
        ("db, to nothing", |names, out| symlink(out.join("new"), names.join("db")).unwrap()),
        ("db, by another name", |names, out| hard_link(out.join("db"), names.join("db")).unwrap()),
        ("conf, to nothing", |names, out| symlink(out.join("new"), names.join("conf")).unwrap()),
        ("blobs", |names, out| symlink(out.join("blobs"), names.join("blobs")).unwrap()),
        ("blobs, to nothing", |names, out| symlink(out.join("new"), names.join("blobs")).unwrap()),
        ("a blob", |names, out| hard_link(out.join("blobs/99999"), names.join("blobs/99999")).unwrap()),
    ];
    for (what, spoil) in spoil {
        let dir = tempfile::tempdir().unwrap();
        let (names, out) = (dir.path().join("names"), dir.path().join("out"));
        written(&names);
        // As a view of sled's, so that it is at home there.
        written(&out);
        fs::write(out.join("snap.0000000000000FFF.generating"), b"not ours").unwrap();
        fs::write(out.join("blobs/99999"), b"not ours").unwrap();
        let before = content(&out);
        let at = match what.split(',').next().unwrap() {
            "the directory" => names.clone(),
            "a blob" => names.join("blobs/99999"),
            file => names.join(file),
        };
        replace(at, &|_| spoil(&names, &out));
        let view = Names::new(Some(names.clone()), SessionId([8; 16]), trust(7, 2, 5), keys());
        rebuild(&view, &["a", "b"]);
        apply(&view, 6, "c", Change::Set);
        view.maintain();
        assert_eq!(view.list(&[DOMAIN], NameKind::Named, None, 9).unwrap(), ["a", "b", "c"], "{what}");
        view.close(Lsn(6));
        assert!(names.symlink_metadata().unwrap().is_dir(), "{what}");
        assert_eq!(content(&out), before, "{what}");
        drop(view);
        assert!(is_trusted(&names, &trust(8, 6, 6)), "{what}");
    }
}
