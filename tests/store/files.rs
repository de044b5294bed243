//! Files that are stored: each is one, is as it is, and stays what it was when it was read.
//!
//! `STRONGROOM_REFLINKS` is a directory on a file system that shares content between files; without it, the tests copy.

use std::fs;
use std::io::{ErrorKind, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
#[cfg(feature = "encryption")]
use std::sync::Arc;

#[cfg(feature = "encryption")]
use strongroom::keys::LocalKey;
use strongroom::registry::RepositorySettings;
#[cfg(feature = "encryption")]
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Digest, Error, Options, Store};

use crate::common::Random;
#[cfg(feature = "encryption")]
use crate::common::content_files;

fn dir() -> tempfile::TempDir {
    match std::env::var_os("STRONGROOM_REFLINKS") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

fn store(dir: &Path) -> Store {
    Options::new().create(true).inline_max(1000).open(dir.join("store")).unwrap()
}

#[test]
fn files_of_all_lengths_are_stored_as_they_are() {
    let (dir, mut random) = (dir(), Random(7));
    let store = store(dir.path());
    let app = store.create_repository(&"team/app".parse().unwrap(), RepositorySettings::new()).unwrap();
    for len in [0, 1, 1000, 1001, 4095, 4096, 4097, 8192, 65_536, 100_000, (1 << 20) + 1, (3 << 20) + 4096] {
        let (path, content) = (dir.path().join(len.to_string()), random.bytes(len));
        fs::write(&path, &content).unwrap();
        let stored = store.put_file(&path, Algorithm::Sha256).unwrap();
        assert_eq!((stored.digest, stored.len), (Digest::of(Algorithm::Sha256, &content), len as u64));
        assert!(!stored.existed);
        let again = app.put_file(&path, stored.digest).unwrap();
        assert_eq!((again.digest, again.len, again.existed), (stored.digest, len as u64, false), "isolation");
        assert!(app.put_file(&path, stored.digest).unwrap().existed);
        assert_eq!(fs::read(&path).unwrap(), content, "it stays as it is");
        // What is written to it later does not change the blob.
        let mut file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all(&vec![0; len / 2]).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"more").unwrap();
        file.sync_all().unwrap();
        assert_eq!(store.get(&stored.digest).unwrap().bytes().unwrap(), content);
        assert_eq!(app.get(&stored.digest).unwrap().bytes().unwrap(), content);
    }
    store.close().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    assert!(store.verify(|_| {}).unwrap().findings.is_empty());
}

#[test]
fn what_is_no_file_or_another_is_refused_and_leaves_nothing() {
    let dir = dir();
    let store = store(dir.path());
    let [file, link, pipe] = ["file", "link", "pipe"].map(|name| dir.path().join(name));
    fs::write(&file, vec![7; 10_000]).unwrap();
    symlink(&file, &link).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&link, &pipe, dir.path(), &dir.path().join("missing"), Path::new("/dev/null")] {
        assert!(matches!(store.put_file(path, Algorithm::Sha256), Err(Error::Source { .. })), "{path:?}");
    }
    let missing = store.put_file(dir.path().join("missing"), Algorithm::Sha256);
    assert!(matches!(missing, Err(Error::Source { source }) if source.kind() == ErrorKind::NotFound));
    let other = Digest::of(Algorithm::Sha256, b"another");
    assert!(matches!(store.put_file(&file, other), Err(Error::DigestMismatch { .. })));
    assert_eq!(store.blobs().count(), 0);
    assert_eq!(store.usage().unwrap().segments, 0);
}

#[cfg(feature = "encryption")]
#[test]
fn encrypted_content_is_never_shared() {
    let (dir, disk) = (dir(), SimVfs::new());
    let key = dir.path().join("key");
    LocalKey::create_file(&key).unwrap();
    let options = Options::new().create(true).inline_max(1000).vfs(Arc::new(disk.clone()));
    let store = options.key_provider(Arc::new(LocalKey::from_file(&key).unwrap())).open("/store").unwrap();
    let (path, content) = (dir.path().join("file"), b"plain text ".repeat(10_000));
    fs::write(&path, &content).unwrap();
    let stored = store.put_file(&path, Algorithm::Sha256).unwrap();
    assert_eq!(store.get(&stored.digest).unwrap().bytes().unwrap(), content);
    let files = content_files(&disk);
    assert!(!files.is_empty());
    for file in files {
        let bytes = disk.read_file(&file).unwrap();
        assert!(!bytes.windows(11).any(|window| window == b"plain text "), "{file}");
    }
}
