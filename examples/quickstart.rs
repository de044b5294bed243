//! The library in forty lines: a folder goes into a store, the store is opened again, the folder is compared.
//!
//! `cargo run --release --example quickstart [FOLDER [STORE]]`: the sources and a temporary store by default.

use std::path::{Path, PathBuf};

use strongroom::{Algorithm, Digest, Options, PutNamed, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().unwrap_or_else(|| "src".into());
    let temporary = tempfile::tempdir()?;
    let dir = arguments.next().unwrap_or_else(|| temporary.path().join("store"));

    // Every file becomes a blob; equal content is stored once. When `put_reader` returns, the blob survives a power
    // cut.
    let store = Options::new().create(true).open(&dir)?;
    let mut files = Vec::new();
    for path in files_of(&folder)? {
        let digest = store.put_reader(std::fs::File::open(&path)?, Algorithm::Sha256)?.digest;
        files.push((path, digest));
    }

    // A document that lists them is pinned, and with it all that it refers to.
    let list: String = files.iter().map(|(path, digest)| format!("{digest} {}\n", path.display())).collect();
    let document = store.put(&list, Algorithm::Sha256)?.digest;
    let digests: Vec<Digest> = files.iter().map(|(_, digest)| *digest).collect();
    store.named().set("quickstart", &document, PutNamed::new().references(digests))?;
    store.close()?;

    // Read back, every byte verified.
    let store = Store::open(&dir)?;
    for (path, digest) in &files {
        assert_eq!(store.get(digest)?.bytes()?, std::fs::read(path)?, "{}", path.display());
    }
    let usage = store.usage()?;
    println!("{} files became {} blobs in {} bytes", files.len(), usage.blobs, usage.live_bytes);
    Ok(())
}

fn files_of(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_of(&path)?) } else { files.push(path) }
    }
    Ok(files)
}
