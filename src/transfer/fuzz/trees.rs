//! Imports of trees.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::transfer::Existing;

/// What may stand in the files of a layout.
const TEXTS: [&[u8]; 12] = [
    br#"{"imageLayoutVersion":"1.0.0"}"#,
    br#"{"imageLayoutVersion":"1.0.0"}"#,
    br#"{"imageLayoutVersion":"1.0.0"}"#,
    br#"{"schemaVersion":2,"manifests":[]}"#,
    b"{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"blake3:\
        0000000000000000000000000000000000000000000000000000000000000000\"}]}",
    br#"{"schemaVersion":2,"manifests":[],"strongroom":"folder","entries":[]}"#,
    br#"{"schemaVersion":2,"manifests":[{"digest":"../../secret"}]}"#,
    br#"{"strongroom":"folder","entries":[],"parts":[]}"#,
    b"[]",
    b"",
    b"content",
    &[0; 5000],
];

/// Makes something at a path, and in it.
fn make(lab: &Lab, path: &Path, depth: usize, draws: &mut Draws) {
    match draws.below(10) {
        0..4 if depth < 4 => {
            fs::create_dir(path).unwrap();
            for _ in 0..draws.below(5) {
                let below = path.join(OsStr::from_bytes(draws.pick(&NAMES)));
                if fs::symlink_metadata(&below).is_err() {
                    make(lab, &below, depth + 1, draws);
                }
            }
            chmod(path, draws.pick(&[0o755, 0o700, 0o1777, 0o2755, 0o555]));
        }
        6 => link(lab, path, draws),
        7 if draws.one_in(2) => special(path, draws),
        _ => {
            fs::write(path, draws.pick(&TEXTS)).unwrap();
            chmod(path, draws.pick(&[0o644, 0o600, 0o755, 0o4755, 0o6711, 0o400]));
        }
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn link(lab: &Lab, path: &Path, draws: &mut Draws) {
    symlink(OsStr::from_bytes(&lab.outside(draws)), path).unwrap();
}

fn special(path: &Path, draws: &mut Draws) {
    if draws.one_in(2) {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    } else {
        let _ = UnixListener::bind(path); // not where the path is too long for one
    }
}

/// Makes a layout, in which some things are others than they should be.
fn make_layout(lab: &Lab, draws: &mut Draws) {
    let from = lab.path("from");
    fs::create_dir_all(from.join("blobs/sha256")).unwrap();
    for _ in 0..draws.below(4) {
        let content = draws.pick(&TEXTS);
        let named = if draws.one_in(30) { &b"another"[..] } else { content };
        let name = Digest::of(Algorithm::Sha256, named).hex();
        fs::write(from.join("blobs/sha256").join(name), content).unwrap();
    }
    for (name, right) in [("oci-layout", 0..3), ("index.json", 3..6)] {
        let text = if draws.one_in(4) { draws.pick(&TEXTS) } else { draws.pick(&TEXTS[right]) };
        fs::write(from.join(name), text).unwrap();
    }
    while draws.one_in(2) {
        let digest = "ab".repeat(32);
        let blob = format!("blobs/sha256/{digest}");
        let path =
            from.join(draws.pick(&["oci-layout", "index.json", &blob, "blobs/x", "blobs/sha256/x", "x", "blobs"]));
        let aside = lab.path("from/aside");
        if fs::symlink_metadata(&path).is_ok() && fs::rename(&path, &aside).is_err() {
            continue;
        }
        if path.parent().is_none_or(|parent| !parent.is_dir() || parent.is_symlink()) {
            continue;
        }
        match draws.below(3) {
            0 => link(lab, &path, draws),
            1 => special(&path, draws),
            _ => fs::create_dir(&path).unwrap(),
        }
    }
}

#[test]
fn an_import_reads_nothing_outside_of_its_folder_and_is_exported_as_it_was() {
    let mut imported = 0;
    cases(|lab, draws| {
        let from = lab.path("from");
        if draws.one_in(2) {
            make_layout(lab, draws);
        } else {
            fs::create_dir(&from).unwrap();
            for name in NAMES.iter().take(draws.below(6)) {
                make(lab, &from.join(OsStr::from_bytes(name)), 0, draws);
            }
        }
        let before = snapshot(&from);
        let is_layout = ["oci-layout", "index.json"].iter().all(|name| from.join(name).is_file());
        let result = transfer::import(&lab.store, &from, "case", Existing::Replace, goes_on);
        assert_eq!(snapshot(&from), before, "the import changed something");
        let Ok(report) = result else { return };
        imported += 1;
        lab.export(SpecialBits::Set).unwrap();
        let mut after = snapshot(&lab.path("to"));
        for (path, what) in before {
            match after.remove(&path) {
                Some(made) if is_layout => assert_eq!(made.1, what.1, "{path:?}"),
                Some(made) => assert_eq!(made, what, "{path:?}"),
                None if is_layout && from.join(&path).is_dir() => {} // it holds no blob
                None => {
                    let mut left_out = report.left_out.listed();
                    assert!(left_out.any(|(left, _)| path.starts_with(left)), "{path:?} is lost");
                }
            }
        }
        assert!(after.is_empty(), "more was made than there was: {after:?}");
    });
    println!("{imported} imports succeeded");
    assert!(imported > 0, "valid trees are among them");
}
