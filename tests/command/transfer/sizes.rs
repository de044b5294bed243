//! Large and deep folders, with few descriptors and few rights.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use super::import::import;
use super::lab::{Lab, names_of};
use crate::command::{assert_alike, ends, limited};

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

#[test]
fn long_paths_make_several_parts_too() {
    let lab = Lab::new();
    fs::create_dir(lab.path("from")).unwrap();
    symlink("x".repeat(4000), lab.path("link")).unwrap();
    names_of(&lab.path("link"), &lab.path("from"), (0..5000).map(|n| n.to_string()));
    import(&lab, &[]);
    let parts = crate::common::file_names(&strongroom::Store::open(&lab.data).unwrap()).unwrap();
    assert_eq!(parts.len(), 2);
    for part in parts {
        assert!(lab.ok(&["cat", &part]).len() < 17 << 20);
    }
    assert_eq!(lab.export("from"), 0);
    assert_alike(&lab.path("from"), &lab.path("to"));
}

#[test]
fn ten_thousand_directories_take_few_descriptors() {
    let lab = Lab::new();
    for outer in 0..1000 {
        for inner in 0..9 {
            fs::create_dir_all(lab.path(&format!("from/{outer}/{inner}"))).unwrap();
        }
        fs::write(lab.path(&format!("from/{outer}/7/file")), "x".repeat(outer)).unwrap();
    }
    for arguments in [&["import", &lab.text("from")][..], &["export", "from", &lab.text("to")]] {
        let output = ends(&limited("-n 40", &lab.data, arguments));
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_alike(&lab.path("from"), &lab.path("to"));
}

#[test]
fn a_tree_that_is_deeper_than_paths_are_long_is_stored_as_far_as_they_are() {
    let lab = Lab::new();
    fs::create_dir(lab.path("from")).unwrap();
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = openat(CWD, lab.path("from"), flags, Mode::empty()).unwrap();
    for _ in 0..10_000 {
        mkdirat(&dir, "d", Mode::RWXU).unwrap();
        dir = openat(&dir, "d", flags, Mode::empty()).unwrap();
    }
    let report = import(&lab, &[]);
    assert_eq!(report["left_out_count"], 1);
    assert_eq!(report["left_out"][0]["why"], "its path is too long");
    assert_eq!(lab.export("from"), 0);
    let mut depth = 0;
    let mut dir = openat(CWD, lab.path("to"), flags, Mode::empty()).unwrap();
    while let Ok(next) = openat(&dir, "d", flags, Mode::empty()) {
        (dir, depth) = (next, depth + 1);
    }
    assert_eq!(depth, 2048);
    // Deeper than what removes temporary directories may go.
    for name in ["from", "to"] {
        assert!(Command::new("rm").arg("-rf").arg(lab.path(name)).status().unwrap().success());
    }
}
