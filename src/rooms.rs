//! The rooms of the engine, and a test that the arrows between them point one way.
//!
//! `docs/design.md` draws them. A room uses those before it in the list, and none behind it. A name that the crate's
//! root exports counts as one of the room that it comes from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Numbers, digests, errors, encoding, time, locks: known to all, and no room of their own.
const WORDS: [&str; 13] = [
    "error", "id", "digest", "page", "wire", "json", "sync", "thread", "clock", "calendar", "prefetch", "random",
    "zeroing",
];

/// From the bottom up.
const ROOMS: [&str; 21] = [
    "policy",
    "vfs",
    "sigv4",
    "keys",
    "envelope",
    "facts",
    "segment",
    "sealed",
    "files",
    "oci",
    "names",
    "tables",
    "transaction",
    "log",
    "blobs",
    "registry",
    "gc",
    "check",
    "store",
    "transfer",
    "aio",
];

/// The source files of a room, those of tests apart.
fn sources(room: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if room.with_extension("rs").is_file() {
        found.push(room.with_extension("rs"));
    }
    let mut dirs: Vec<PathBuf> = Some(room.to_path_buf()).filter(|room| room.is_dir()).into_iter().collect();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.extend(Some(path).filter(|path| !path.ends_with("tests")));
            } else if path.file_name().is_some_and(|name| name != "tests.rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The name that a path begins with.
fn first_name(path: &str) -> &str {
    let path = path.trim_start();
    path.split(|char: char| !char.is_alphanumeric() && char != '_').next().unwrap()
}

/// The names that a path behind `crate::` or `pub use` begins with, of which a group has several.
fn first_names(path: &str) -> Vec<&str> {
    let Some(group) = path.strip_prefix('{') else { return vec![first_name(path)] };
    let (mut names, mut depth) = (vec![first_name(group)], 0);
    for (at, char) in group.char_indices() {
        match char {
            ',' if depth == 0 => names.push(first_name(&group[at + 1..])),
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty()); // behind the last comma
    names
}

/// The names of the crate's root that a file's code uses.
fn named(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    code.split("crate::").skip(1).flat_map(first_names).map(str::to_owned).collect()
}

/// The modules from which the crate's root exports names.
fn exports() -> BTreeMap<String, String> {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let exports = lib.split("\npub use ").skip(1).flat_map(|export| {
        let (module, names) = export.split_once("::").unwrap();
        first_names(names).into_iter().map(|name| (name.to_owned(), module.to_owned())).collect::<Vec<_>>()
    });
    exports.collect()
}

#[test]
fn groups_and_exports_are_seen() {
    let source = "use crate::{\n    gc::{self, plan},\n    Store,\n};\n// crate::log\nfn f(_: crate::Error) {}";
    assert_eq!(named(source), ["gc", "Store", "Error"]);
    assert_eq!((&*exports()["Store"], &*exports()["Digest"]), ("store", "digest"));
}

#[test]
fn arrows_between_rooms_point_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let exports = exports();
    let mut wrong: BTreeMap<(&str, String), PathBuf> = BTreeMap::new();
    for (height, room) in ROOMS.iter().enumerate() {
        let files = sources(&src.join(room));
        assert!(!files.is_empty(), "there is no room {room}");
        for file in files {
            for name in named(&fs::read_to_string(&file).unwrap()) {
                let other = exports.get(&name).unwrap_or(&name);
                let is_below = ROOMS.iter().position(|room| room == other).is_none_or(|other| other <= height);
                if !is_below {
                    wrong.insert((room, name), file.clone());
                }
            }
        }
    }
    assert!(wrong.is_empty(), "a room knows one that stands above it: {wrong:#?}");
}

#[test]
fn every_module_has_its_place() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let modules = lib.lines().filter_map(|line| {
        let line = line.trim_start_matches("pub ");
        line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'))
    });
    let aside = ["fuzzing", "golden", "nonces", "rooms", "style"];
    let unknown: Vec<_> = modules.filter(|name| ![&WORDS[..], &ROOMS, &aside].concat().contains(name)).collect();
    assert!(unknown.is_empty(), "modules that the list of rooms does not have: {unknown:?}");
}
