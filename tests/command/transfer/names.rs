//! What a name stands for changes only where that was asked for, and as a whole.

use std::fs;
use std::path::Path;

use strongroom::{PutNamed, Store};

use super::import::import;
use super::lab::{Lab, names_of};
use crate::command::{assert_alike, code, refused, rows};

/// A folder whose document has a part besides itself.
fn large(path: &Path) {
    fs::create_dir(path).unwrap();
    fs::write(path.join("file"), "content").unwrap();
    names_of(&path.join("file"), path, (0..50_100).map(|n| n.to_string()));
}

fn small(path: &Path) {
    fs::create_dir(path).unwrap();
    fs::write(path.join("file"), "content").unwrap();
}

fn pins(lab: &Lab) -> Vec<String> {
    crate::common::file_names(&Store::open(&lab.data).unwrap()).unwrap()
}

#[test]
fn a_shorter_import_takes_the_place_of_a_longer_one() {
    let lab = Lab::new();
    large(&lab.path("large"));
    small(&lab.path("small"));
    lab.ok(&["import", &lab.text("large"), "--name", "f"]);
    let parts = pins(&lab);
    assert!(parts.len() == 2 && parts[1].starts_with("f#sha256:"), "{parts:?}");
    let listed = rows(&lab.data, &["ls"]);
    assert_eq!((listed.len(), &listed[0]["name"]), (1, &"f".into()));

    lab.ok(&["import", &lab.text("small"), "--name", "f", "--replace"]);
    assert_eq!(pins(&lab), ["f"]);
    assert_eq!(lab.export("f"), 0);
    assert_alike(&lab.path("small"), &lab.path("to"));

    // As an import that was killed leaves it: parts of it are held, and the name stands for what it did before.
    lab.ok(&["import", &lab.text("large"), "--name", "g"]);
    let store = Store::open(&lab.data).unwrap();
    let part = store.named().stat("g").unwrap();
    store.named().set(&format!("f#{}", part.digest), &part.digest, PutNamed::new()).unwrap();
    store.named().set(&format!("h#{}", part.digest), &part.digest, PutNamed::new()).unwrap();
    store.close().unwrap();
    assert_eq!(lab.export("f"), 0);
    assert_alike(&lab.path("small"), &lab.path("to"));
    let listed = rows(&lab.data, &["ls"]);
    let listed = listed.iter().map(|row| (row["name"].as_str().unwrap(), row["incomplete"].as_bool().unwrap()));
    assert_eq!(Vec::from_iter(listed), [("f", false), ("g", false), ("h", true)]);
    assert!(lab.ok(&["ls"]).lines().any(|line| line.starts_with("h ") && line.contains("incomplete")));
    lab.ok(&["import", &lab.text("small"), "--name", "f", "--replace"]);
    lab.ok(&["rm", "h"]);
    lab.ok(&["rm", "g"]);
    assert_eq!(pins(&lab), ["f"]);
    assert_eq!(code(&lab.data, &["rm", "g"]), 3);
}

#[test]
fn other_pins_have_no_part_in_an_import() {
    let lab = Lab::new();
    small(&lab.path("from"));
    import(&lab, &[]);
    for name in ["from#2", "from#", "from#3", "from#sha256:ab"] {
        lab.put(r#"{"strongroom":"folder","entries":[{"path":"file","mode":511,"type":"dir"}]}"#, Some(name));
    }
    assert_eq!(lab.export("from"), 0);
    assert_alike(&lab.path("from"), &lab.path("to"));
    lab.ok(&["rm", "from"]);
    assert_eq!(rows(&lab.data, &["ls"]).len(), 4);
}

#[test]
fn the_names_of_parts_are_not_the_users() {
    let lab = Lab::new();
    small(&lab.path("from"));
    let digest = lab.put("content", None);
    let (from, file) = (lab.text("from"), lab.text("file"));
    for name in [
        format!("f#{digest}"),
        format!("f#2#{digest}"),
        format!("#{digest}"),
        format!("f#sha512:{}", "ab".repeat(64)),
        format!("f#blake3:{}", "ab".repeat(32)),
    ] {
        let words = ["part of an import"];
        refused(&lab.data, &["pin", &name, &digest], 1, &words);
        refused(&lab.data, &["put", &file, "--pin", &name], 1, &words);
        refused(&lab.data, &["import", &from, "--name", &name], 1, &words);
        refused(&lab.data, &["rm", &name], 1, &words);
    }
    assert_eq!(lab.ok(&["ls"]), "");
    let long = "n".repeat(953);
    refused(&lab.data, &["import", &from, "--name", &long], 1, &["952"]);
    refused(&lab.data, &["import", &from, "--name", "a\nb"], 1, &["invalid name"]);
    refused(&lab.data, &["import", &from, "--name", ""], 1, &["invalid name"]);
    lab.ok(&["import", &from, "--name", &long[1..]]);
}

#[test]
fn a_digest_is_no_name_of_a_pin() {
    let lab = Lab::new();
    let digest = lab.put("content", None);
    let missing = format!("sha256:{}", "ab".repeat(32));
    fs::create_dir(lab.path(&digest)).unwrap();
    fs::create_dir(lab.path("from")).unwrap();
    let (from, named, file) = (lab.text("from"), lab.text(&digest), lab.text("file"));
    for name in [&digest, &missing] {
        for arguments in [
            &["pin", name, &digest][..],
            &["put", &file, "--pin", name],
            &["import", &from, "--name", name],
            &["import", &named],
        ] {
            refused(&lab.data, arguments, 1, &["is a digest", "another name"]);
        }
    }
    assert_eq!(lab.ok(&["ls"]), "");

    // As earlier versions let them be.
    let store = Store::open(&lab.data).unwrap();
    let content = digest.parse().unwrap();
    for name in [&digest, &missing] {
        store.named().set(name, &content, PutNamed::new()).unwrap();
    }
    store.close().unwrap();
    lab.ok(&["rm", &missing]);
    lab.ok(&["rm", &digest]);
    assert_eq!(lab.ok(&["ls"]), "");
    lab.ok(&["rm", &digest]);
    assert_eq!(code(&lab.data, &["rm", &digest]), 3);
}

#[test]
fn removing_a_large_import_removes_what_its_parts_held() {
    let lab = Lab::new();
    let from = lab.path("from");
    large(&from);
    for n in 0..10_u8 {
        fs::write(from.join(format!("file-{n}")), [n]).unwrap();
    }
    import(&lab, &[]);
    lab.ok(&["rm", "from", "--blobs"]);
    assert_eq!((lab.ok(&["ls"]), lab.ok(&["ls", "--blobs"])), (String::new(), String::new()));
}
