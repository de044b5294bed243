//! What rustfmt leaves alone: comments and literals have at most as many columns as code.

use std::fs;
use std::path::{Path, PathBuf};

/// `max_width` of `rustfmt.toml`.
const COLUMNS: usize = 120;

/// Where code lies, and the packages of the workspace below it.
const DIRS: [&str; 5] = ["src", "tests", "examples", "benches", "fuzz"];

/// The Rust files below a directory, without those of builds.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.extend(Some(path).filter(|path| !path.ends_with("target")));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// Whether this is the row of a table, which can't be broken.
fn is_row(line: &str) -> bool {
    let comment = ["//!", "///"].iter().find_map(|start| line.trim_start().strip_prefix(start));
    comment.is_some_and(|text| text.starts_with(" | ") && text.ends_with('|'))
}

#[test]
fn no_line_is_longer_than_120_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dirs = DIRS.iter().map(|dir| root.join(dir)).filter(|dir| dir.is_dir()); // a package has not all of them
    let files: Vec<_> = dirs.flat_map(|dir| sources(&dir)).collect();
    let mut long = Vec::new();
    for file in &files {
        for (number, line) in fs::read_to_string(file).unwrap().lines().enumerate() {
            if line.chars().count() > COLUMNS && !is_row(line) {
                long.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    assert!(!files.is_empty() && long.is_empty(), "lines of more than {COLUMNS} columns: {long:#?}");
}
