//! Export writes inside of its folder alone, whatever the documents say and whoever changes the folder meanwhile.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use rustix::fs::{CWD, RenameFlags, XattrFlags, lgetxattr, renameat_with, setxattr};
use rustix::io::Errno;
use serde_json::{Value, json};
use strongroom::{PutNamed, Store};

use super::lab::{Lab, meanwhile, skip, snapshot, while_swapped};
use crate::command::{code, ends, limited, refused, rows};

/// Set-user-ID, and for all to execute.
const SPECIAL: u32 = 0o4755;

fn dir(path: &str) -> Value {
    json!({ "path": path, "mode": 0o755, "type": "dir" })
}

fn file(path: &str, digest: &str) -> Value {
    json!({ "path": path, "mode": SPECIAL, "type": "file", "digest": digest })
}

fn link(path: &str, target: impl Into<Value>) -> Value {
    json!({ "path": path, "mode": 0o777, "type": "link", "target": target.into() })
}

#[test]
fn what_is_below_a_link_is_not_written_wherever_the_link_is_listed() {
    let lab = Lab::new();
    let (digest, outside) = (lab.put("evil", None), lab.outside.to_str().unwrap());
    for (number, entries) in [
        json!([file("d/evil", &digest), link("d", outside)]),
        json!([link("d", outside), file("d/evil", &digest)]),
        json!([dir("d"), file("d/evil", &digest), link("d", outside)]),
        json!([link("d", outside), dir("d")]),
        json!([link("d", outside), dir("d"), file("d/evil", &digest)]),
        json!([link("d", outside), dir("d/evil")]),
        json!([dir("d"), link("d/e", outside), link("d/e/evil", "x")]),
    ]
    .iter()
    .enumerate()
    {
        let name = number.to_string();
        lab.pin_entries(&name, entries);
        assert_eq!(lab.export(&name), 1, "{entries}");
        assert!(!lab.path("to").exists(), "{entries}: something was written");
        lab.assert_outside_is_untouched();
    }
}

#[test]
fn one_document_writes_nothing_through_a_link_of_another() {
    let lab = Lab::new();
    let (digest, outside) = (lab.put("evil", None), lab.outside.to_str().unwrap());
    // As earlier versions named parts: now the second is no part of anything.
    for (name, entry) in
        [("file", file("d/evil", &digest)), ("dir", json!({ "path": "d", "mode": 511, "type": "dir" }))]
    {
        lab.put(&json!({ "strongroom": "folder", "entries": [link("d", outside)] }).to_string(), Some(name));
        lab.put(&json!({ "strongroom": "folder", "entries": [entry] }).to_string(), Some(&format!("{name}#2")));
        assert_eq!(lab.export(name), 0);
        assert_eq!(snapshot(&lab.path("to")).len(), 2, "the folder and the link");
        lab.assert_outside_is_untouched();
        let part = json!({ "strongroom": "folder-part", "entries": [link("d", outside)] });
        let part = lab.put(&part.to_string(), None);
        let whole = json!({ "strongroom": "folder", "entries": [entry], "parts": [part] });
        lab.put(&whole.to_string(), Some(&format!("new-{name}")));
        assert_eq!(lab.export(&format!("new-{name}")), 1);
        assert!(!lab.path("to").exists());
        lab.assert_outside_is_untouched();
    }
}

#[test]
fn a_layout_is_not_written_over_what_a_folder_has_linked() {
    let lab = Lab::new();
    let [marker, index] =
        [lab.put(r#"{"imageLayoutVersion":"1.0.0"}"#, None), lab.put(r#"{"schemaVersion":2,"manifests":[]}"#, None)];
    let links = json!([link("index.json", lab.outside.join("index.json").to_str().unwrap())]);
    lab.put(&json!({ "strongroom": "folder", "entries": links }).to_string(), Some("mixed"));
    let whole = json!({ "strongroom": "folder", "entries": links, "parts": [index] });
    lab.put(&whole.to_string(), Some("listed"));
    let store = Store::open(&lab.data).unwrap();
    let held = PutNamed::new().references([marker.parse().unwrap()]);
    store.named().set("mixed#2", &index.parse().unwrap(), held).unwrap();
    store.close().unwrap();
    assert_eq!(lab.export("mixed"), 0);
    assert!(fs::symlink_metadata(lab.path("to/index.json")).unwrap().is_symlink());
    assert_eq!(lab.export("listed"), 1, "an index is no part of a folder");
    assert_eq!(lab.export("mixed#2"), 0, "by itself it is a layout");
    assert!(fs::symlink_metadata(lab.path("to/index.json")).unwrap().is_file());
    lab.assert_outside_is_untouched();
}

#[test]
fn links_that_another_process_puts_into_the_folder_are_not_followed() {
    let lab = Lab::new();
    let digest = lab.put("evil", None);
    let dirs: Vec<String> = (0..200).map(|n| format!("{n}")).collect();
    let mut entries: Vec<Value> = dirs.iter().map(|path| dir(path)).collect();
    entries.extend(dirs.iter().map(|path| dir(&format!("{path}/dir"))));
    entries.extend(dirs.iter().map(|path| file(&format!("{path}/dir/evil"), &digest)));
    lab.pin_entries("f", &entries.into());
    let to = lab.path("to");
    while_swapped(&to, &lab.outside, || {
        for _ in 0..40 {
            lab.export("f");
        }
    });
    lab.assert_outside_is_untouched();
}

#[test]
fn a_directory_that_another_process_puts_into_the_folder_keeps_its_mode() {
    let lab = Lab::new();
    let names: Vec<String> = (0..200).map(|n| format!("{n}")).collect();
    lab.pin_entries("f", &names.iter().map(|path| json!({ "path": path, "mode": 0o777, "type": "dir" })).collect());
    let foreign = lab.path("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o711)).unwrap();
    for (round, name) in names.iter().enumerate().take(40) {
        let to = lab.path(&round.to_string());
        let name = to.join(name);
        let exchange = || renameat_with(CWD, &foreign, CWD, &name, RenameFlags::EXCHANGE);
        let there_and_back = || {
            let _ = exchange().and_then(|()| exchange());
        };
        meanwhile(there_and_back, || {
            code(&lab.data, &["export", "f", to.to_str().unwrap()]);
        });
        assert_eq!(fs::metadata(&foreign).unwrap().mode() & 0o7777, 0o711);
    }
}

/// An access control list that gives all to the user 1, as Linux stores it.
fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 7, 1), (4, 7, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
    }
    acl
}

#[test]
fn the_default_acl_of_the_folder_gives_nobody_access_to_what_is_exported() {
    let lab = Lab::new();
    let digest = lab.put("content", None);
    let file = |path: &str| json!({ "path": path, "mode": 0o640, "type": "file", "digest": digest });
    lab.pin_entries("f", &json!([dir("d"), dir("d/d"), file("d/f"), file("f")]));
    let to = lab.path("to");
    fs::create_dir(&to).unwrap();
    if setxattr(&to, "system.posix_acl_default", &acl(), XattrFlags::empty()).is_err() {
        skip::<()>("the file system has no access control lists");
        return;
    }
    lab.ok(&["export", "f", &lab.text("to")]);
    for (path, mode) in [("d", 0o755), ("d/d", 0o755), ("d/f", 0o640), ("f", 0o640)] {
        for name in ["system.posix_acl_access", "system.posix_acl_default"] {
            let acl = lgetxattr(to.join(path), name, &mut [0; 64]);
            assert_eq!(acl, Err(Errno::NODATA), "{path} has {name}");
        }
        assert_eq!(fs::metadata(to.join(path)).unwrap().mode() & 0o7777, mode);
    }
}

#[test]
fn an_export_that_fails_leaves_nothing_and_keeps_what_is_there() {
    let lab = Lab::new();
    let (small, large) = (lab.put("content", None), lab.put(&"content".repeat(1000), None));
    let file = |path: &str, digest: &str| json!({ "path": path, "mode": 0o444, "type": "file", "digest": digest });
    lab.pin_entries("f", &json!([dir("d"), file("d/f", &small), file("large", &large), link("l", "x")]));
    let to = lab.path("to");
    // Blocks of 512 bytes, or of 1024.
    let output = ends(&limited("-f 2", &lab.data, &["export", "f", &lab.text("to")]));
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    lab.ok(&["export", "f", &lab.text("to")]);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 3);
}

#[test]
fn special_bits_are_set_only_when_they_are_asked_for() {
    let lab = Lab::new();
    let digest = lab.put("content", None);
    let dir = |path: &str, mode: u32| json!({ "path": path, "mode": mode, "type": "dir" });
    let [sticky, group, open] = [dir("sticky", 0o7777), dir("group", 0o2775), dir("open", 0o777)];
    lab.pin_entries("f", &json!([sticky, group, open, file("f", &digest)]));
    let modes = |to: &str| {
        ["sticky", "group", "open", "f"].map(|name| fs::metadata(lab.path(to).join(name)).unwrap().mode() & 0o7777)
    };
    let report = &rows(&lab.data, &["export", "f", &lab.text("to")])[0];
    assert_eq!((&report["files"], &report["special_bits_left_out"]), (&1.into(), &3.into()));
    // Without the sticky bit, whoever may write to a directory may remove what others have there.
    assert_eq!(modes("to"), [0o755, 0o775, 0o777, 0o755]);
    let told = lab.ok(&["export", "f", "--special-bits", &lab.text("special")]);
    assert!(!told.contains("left out"), "{told}");
    assert_eq!(modes("special"), [0o7777, 0o2775, 0o777, SPECIAL]);
}

#[test]
fn an_export_goes_to_an_empty_folder_and_not_through_a_link() {
    let lab = Lab::new();
    lab.pin_entries("f", &json!([dir("d")]));
    let (to, link) = (lab.text("to"), lab.text("link"));
    fs::create_dir(&to).unwrap();
    lab.ok(&["export", "f", &to]);
    refused(&lab.data, &["export", "f", &to], 1, &["not empty"]);
    fs::remove_dir(lab.path("to/d")).unwrap();
    symlink("to", &link).unwrap();
    refused(&lab.data, &["export", "f", &link], 1, &["link"]);
    refused(&lab.data, &["export", "f", &lab.text("file")], 1, &["no directory"]);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
}

#[test]
fn a_document_that_is_none_is_refused_before_anything_is_written() {
    let lab = Lab::new();
    let digest = lab.put("content", None);
    let good = file("f", &digest);
    let with = |field: &str, value: Value| {
        let mut entry = good.clone();
        entry[field] = value;
        entry
    };
    let missing = format!("sha256:{}", "ab".repeat(32));
    let long = "x/".repeat(2047) + "xx";
    let mut bad: Vec<Value> =
        ["", ".", "..", "/", "/f", "f/", "d//f", "./f", "d/./f", "../f", "d/../../f", "d/..", "f\0"]
            .map(|path| json!([dir("d"), with("path", path.into())]))
            .into();
    bad.extend([
        json!([dir("d"), with("path", json!([100, 47, 46, 46, 47, 255]))]),
        json!([dir("d"), with("path", json!([256]))]),
        json!([with("path", "x".repeat(256).into())]),
        json!([with("path", long.into())]),
        json!([with("path", 7.into())]),
        json!([with("mode", 0o10000.into())]),
        json!([with("mode", (-1).into())]),
        json!([with("mode", 1e300.into())]),
        json!([with("mode", Value::Null)]),
        json!([with("type", "pipe".into())]),
        json!([with("digest", "sha256:ab".into())]),
        json!([with("digest", Value::Null)]),
        json!([link("l", "")]),
        json!([link("l", "a\0b")]),
        json!([link("l", "x".repeat(4096))]),
        json!([link("l", Value::Null)]),
        json!([good, good]),
        json!([good, dir("f")]),
        json!([good, dir("f/d")]),
        json!([dir("d/e"), dir("d")]),
        json!([file("d/f", &digest)]),
        json!({ "entries": [] }),
        json!([[]]),
    ]);
    for (number, entries) in bad.iter().enumerate() {
        lab.pin_entries(&number.to_string(), entries);
        assert_eq!(lab.export(&number.to_string()), 1, "{entries}");
        assert!(!lab.path("to").exists(), "{entries}");
    }
    lab.pin_entries("missing", &json!([dir("d"), file("d/f", &missing)]));
    assert_eq!(lab.export("missing"), 3);
    assert!(!lab.path("to").exists());

    let part = lab.put(r#"{"strongroom":"folder-part","entries":[]}"#, None);
    let nested = lab.put(r#"{"strongroom":"folder-part","entries":[],"parts":[]}"#, None);
    let whole = lab.put(r#"{"strongroom":"folder","entries":[],"parts":[]}"#, None);
    for (number, (parts, code)) in [
        (json!([part]), 0),
        (json!([part, part]), 1),
        (json!([nested]), 1),
        (json!([whole]), 1),
        (json!([digest]), 1),
        (json!([missing]), 3),
        (json!(["../x"]), 1),
        (json!(7), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("parts-{number}");
        lab.put(&json!({ "strongroom": "folder", "entries": [], "parts": parts }).to_string(), Some(&name));
        assert_eq!(lab.export(&name), code, "{parts}");
    }
    for (number, text) in
        ["", "[]", "7", "{}", "{", r#"["folder",[],[]]"#, r#"{"strongroom":"folder-part","entries":[]}"#]
            .into_iter()
            .enumerate()
    {
        let name = format!("text-{number}");
        lab.put(text, Some(&name));
        refused(&lab.data, &["export", &name, &lab.text("to")], 1, &["get or cat"]);
    }
}

#[test]
fn a_document_that_is_too_long_is_not_read() {
    let lab = Lab::new();
    let long = format!(r#"{{"strongroom":"folder","entries":[],"parts":[]{}}}"#, " ".repeat(32 << 20));
    lab.put(&long, Some("f"));
    refused(&lab.data, &["export", "f", &lab.text("to")], 1, &["more bytes than"]);
}

#[test]
fn a_document_with_more_entries_than_one_has_is_not_read_to_its_end() {
    let lab = Lab::new();
    for (count, code) in [(50_000, 0), (50_001, 1), (500_000, 1)] {
        let row = |n: usize| format!(r#"{{"path":"{n:x}","mode":0,"type":"link","target":"x"}}"#);
        let rows = Vec::from_iter((0..count).map(row)).join(",");
        let part = lab.put(&format!(r#"{{"strongroom":"folder-part","entries":[{rows}]}}"#), None);
        for (kind, entries, parts) in [("whole", &rows[..], json!([])), ("part", "", json!([part]))] {
            let name = format!("{kind}-{count}");
            lab.put(&format!(r#"{{"strongroom":"folder","entries":[{entries}],"parts":{parts}}}"#), Some(&name));
            assert_eq!(lab.export(&name), code, "{name}");
        }
    }
}

#[test]
fn documents_of_earlier_versions_are_exported_where_they_are_whole() {
    let lab = Lab::new();
    let digest = lab.put("content", None);
    let entry = json!({ "path": "f", "mode": 0o640, "type": "file", "digest": digest, "bytes": 7 });
    lab.put(&json!({ "strongroom": "folder", "entries": [entry] }).to_string(), Some("one"));
    lab.put("anything", Some("one#2"));
    assert_eq!(lab.export("one"), 0);
    assert_eq!(fs::metadata(lab.path("to/f")).unwrap().permissions().mode() & 0o7777, 0o640);
    let entries: Vec<Value> = (0..50_000).map(|n| dir(&format!("{n}"))).collect();
    lab.put(&json!({ "strongroom": "folder", "entries": entries }).to_string(), Some("several"));
    lab.put(&json!({ "strongroom": "folder", "entries": [entry] }).to_string(), Some("several#2"));
    refused(&lab.data, &["export", "several", &lab.text("none")], 1, &["several parts", "earlier version"]);
    assert!(!lab.path("none").exists());
}
