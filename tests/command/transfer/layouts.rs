//! Image layouts: nothing in one is believed before it was looked at.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use strongroom::{Algorithm, Digest};

use super::import::{import, left_out, pipe};
use super::lab::{Lab, names_of};
use crate::command::{assert_alike, code, command, ends, limited};

const MARKER: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

/// A layout with one blob, in `from`.
fn layout() -> (Lab, PathBuf) {
    let lab = Lab::new();
    let from = lab.path("from");
    fs::create_dir_all(from.join("blobs/sha256")).unwrap();
    fs::write(from.join("oci-layout"), MARKER).unwrap();
    fs::write(from.join("index.json"), INDEX).unwrap();
    fs::write(from.join("blobs/sha256").join(Digest::of(Algorithm::Sha256, b"layer").hex()), "layer").unwrap();
    (lab, from)
}

/// An import that fails, and says these words.
fn refused(lab: &Lab, words: &[&str]) {
    let output = ends(&command(&lab.data, &["import", &lab.text("from")]));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    words.iter().for_each(|word| assert!(told.contains(word), "{told:?} has no {word:?}"));
    assert_eq!(lab.ok(&["ls"]), "");
    lab.assert_outside_is_untouched();
}

#[test]
fn pipes_links_and_strays_among_the_blobs_are_left_out_and_told() {
    let (lab, from) = layout();
    let blobs = from.join("blobs/sha256");
    let before = lab.path("before");
    assert!(std::process::Command::new("cp").arg("-r").args([&from, &before]).status().unwrap().success());
    let (zero, secret, fifo, folder) = ("0".repeat(64), "1".repeat(64), "2".repeat(64), "3".repeat(64));
    symlink("/dev/zero", blobs.join(&zero)).unwrap();
    symlink(lab.outside.join("secret"), blobs.join(&secret)).unwrap();
    pipe(&blobs.join(&fifo));
    fs::create_dir(blobs.join(&folder)).unwrap();
    fs::write(blobs.join(format!("{}.part", "a".repeat(64))), "half").unwrap();
    fs::write(from.join("blobs/.DS_Store"), "").unwrap();
    fs::write(from.join("README"), "").unwrap();
    symlink(&lab.outside, from.join("blobs/sha512")).unwrap();
    let report = import(&lab, &[]);
    let blob = |name: &str| format!("blobs/sha256/{name}");
    let part = format!("{}.part", "a".repeat(64));
    let mut expected = [&zero, &secret, &fifo, &folder, &part].map(|name| blob(name)).to_vec();
    expected.extend(["README", "blobs/.DS_Store", "blobs/sha512"].map(str::to_owned));
    expected.sort();
    let mut named = left_out(&report);
    named.sort_unstable();
    assert_eq!(named, expected);
    assert_eq!(lab.export("from"), 0);
    assert_alike(&before, &lab.path("to"));
    lab.assert_outside_is_untouched();
}

#[test]
fn a_layout_whose_own_files_are_links_or_pipes_is_refused() {
    for name in ["oci-layout", "index.json"] {
        let (lab, from) = layout();
        let path = from.join(name);
        fs::remove_file(&path).unwrap();
        pipe(&path);
        refused(&lab, &[name, "regular file"]);
        for target in [lab.outside.join("index.json"), "/dev/zero".into(), lab.path("nowhere")] {
            fs::remove_file(&path).unwrap();
            symlink(target, &path).unwrap();
            refused(&lab, &[name, "links"]);
        }
    }
    let (lab, from) = layout();
    fs::rename(from.join("blobs"), lab.path("blobs")).unwrap();
    symlink(lab.path("blobs"), from.join("blobs")).unwrap();
    refused(&lab, &["blobs"]);
}

#[test]
fn files_that_are_too_long_are_not_read() {
    for (name, len) in [("oci-layout", 3 << 30), ("oci-layout", 4097), ("index.json", 1 << 30), ("index.json", 3 << 40)]
    {
        let (lab, from) = layout();
        File::options().write(true).open(from.join(name)).unwrap().set_len(len).unwrap();
        // With this many KiB of memory, neither is read before its length is known.
        let output = ends(&limited("-v 1000000", &lab.data, &["import", &lab.text("from")]));
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(name) && told.contains("more than"), "{told}");
        assert_eq!(lab.ok(&["ls"]), "");
    }
}

#[test]
fn an_index_is_one_before_it_is_imported() {
    let digest = Digest::of(Algorithm::Sha256, b"layer");
    let (lab, from) = layout();
    let entry = format!(r#"{{"digest":"{digest}"}}"#);
    for index in [
        String::new(),
        "\0".repeat(100),
        "[]".into(),
        "7".into(),
        "{}".into(),
        r#"{"manifests":[]}"#.into(),
        r#"{"schemaVersion":2}"#.into(),
        r#"{"schemaVersion":1,"manifests":[]}"#.into(),
        r#"{"schemaVersion":"2","manifests":[]}"#.into(),
        r#"{"schemaVersion":2,"manifests":{}}"#.into(),
        r#"{"schemaVersion":2,"manifests":[7]}"#.into(),
        r#"{"schemaVersion":2,"manifests":[{}]}"#.into(),
        r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:ab"}]}"#.into(),
        r#"{"schemaVersion":2,"manifests":[{"digest":"../../x"}]}"#.into(),
        format!(r#"{{"schemaVersion":2,"manifests":[{entry},{{}}]}}"#),
        format!("[2,[{entry}]]"),
        format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}} more"#),
    ] {
        fs::write(from.join("index.json"), &index).unwrap();
        refused(&lab, &["index.json"]);
    }
    fs::write(from.join("oci-layout"), "{}").unwrap();
    refused(&lab, &["oci-layout"]);
    fs::write(from.join("oci-layout"), MARKER).unwrap();
    fs::write(from.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#)).unwrap();
    assert_eq!(import(&lab, &[])["files"], 3);
    assert_eq!(lab.export("from"), 0);
    assert_alike(&from, &lab.path("to"));
}

#[test]
fn a_layout_without_what_its_index_names_is_refused() {
    let (lab, from) = layout();
    let [there, missing] = [&b"layer"[..], b"missing"].map(|content| Digest::of(Algorithm::Sha256, content));
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{there}"}},{{"digest":"{missing}"}}]}}"#);
    fs::write(from.join("index.json"), index).unwrap();
    let blob = from.join("blobs/sha256").join(missing.hex());
    let words = ["index.json", &missing.to_string()];
    refused(&lab, &words);
    symlink(lab.outside.join("secret"), &blob).unwrap();
    refused(&lab, &words);
    assert_eq!(lab.ok(&["ls", "--blobs"]), "");
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, "missing").unwrap();
    assert_eq!(import(&lab, &[])["files"], 4);
}

#[test]
fn what_follows_a_blob_unlike_its_name_is_not_imported_any_more() {
    let (lab, from) = layout();
    let blobs = from.join("blobs/sha256");
    for n in 0..2000 {
        let content = n.to_string();
        fs::write(blobs.join(Digest::of(Algorithm::Sha256, content.as_bytes()).hex()), content).unwrap();
    }
    fs::write(blobs.join("0".repeat(64)), "another").unwrap();
    assert_eq!(code(&lab.data, &["import", &lab.text("from")]), 4);
    let stored = lab.ok(&["ls", "--blobs"]).lines().count();
    assert!(stored < 1000, "{stored}");
}

#[test]
fn more_blobs_than_a_pin_holds_are_refused_before_they_are_read() {
    let (lab, from) = layout();
    for numbers in [0..33_000, 33_000..65_534] {
        let file = lab.path(&format!("{}", numbers.start));
        fs::write(&file, "").unwrap();
        names_of(&file, &from.join("blobs/sha256"), numbers.map(|number| format!("{number:064x}")));
    }
    refused(&lab, &["65535"]);
    assert_eq!(lab.ok(&["ls", "--blobs"]), "");
}
