//! The rooms of the engine, and a test that the arrows between them point one way.
//!
//! `docs/design.md` draws them. What stands lower in the list knows nothing of what stands above it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Numbers, digests, errors, encoding, time, locks: known to all, and no room of their own.
const WORDS: [&str; 8] = ["error", "id", "digest", "wire", "sync", "thread", "clock", "random"];

/// From the bottom up.
const ROOMS: [&str; 18] = [
    "vfs",
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
    "tokio",
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

/// The modules of the crate that a file's code names.
fn named(source: &str) -> Vec<&str> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let after = lines.flat_map(|line| line.split("crate::").skip(1));
    after.filter_map(|rest| rest.split(|char: char| !char.is_alphanumeric() && char != '_').next()).collect()
}

#[test]
fn arrows_between_rooms_point_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong: BTreeMap<(&str, String), PathBuf> = BTreeMap::new();
    for (height, room) in ROOMS.iter().enumerate() {
        let files = sources(&src.join(room));
        assert!(!files.is_empty(), "there is no room {room}");
        for file in files {
            for other in named(&fs::read_to_string(&file).unwrap()) {
                let is_below = ROOMS.iter().position(|room| *room == other).is_none_or(|other| other <= height);
                if !is_below {
                    wrong.insert((room, other.to_owned()), file.clone());
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
