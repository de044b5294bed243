//! Large folders, with few rights.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::command::assert_alike;
use crate::import::import;
use crate::lab::{Lab, names_of};

#[test]
fn a_directory_that_nobody_may_write_to_comes_back_with_all_that_is_in_it() {
    let lab = Lab::new();
    let locked = lab.path("from/locked");
    fs::create_dir_all(&locked).unwrap();
    symlink("anywhere", lab.path("link")).unwrap();
    names_of(&lab.path("link"), &locked, (0..50_100).map(|n| n.to_string()));
    fs::write(locked.join("file"), "content").unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    import(&lab, &["--name", "f"]);
    if let Some(export) = lab.as_user(&["export", "f", &lab.text("to")]) {
        assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
        assert_alike(&lab.path("from"), &lab.path("to"));
        assert_eq!(fs::metadata(lab.path("to/locked")).unwrap().permissions().mode() & 0o7777, 0o555);
        // What is locked is not removed with the rest.
        fs::set_permissions(lab.path("to/locked"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
}
