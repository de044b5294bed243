//! Commands beside a process that has the store open: those that only read work.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use strongroom::keys::LocalKey;
use strongroom::{Algorithm, Options, PutNamed, Store};

use crate::command::{code, ok, refused};

/// A store that is open, perhaps with a key, and what commands need to read it.
fn open_store(dir: &tempfile::TempDir, encrypted: bool) -> (Store, PathBuf, Vec<String>) {
    let (data, key) = (dir.path().join("data"), dir.path().join("key"));
    let options = Options::new().create(true);
    if !encrypted {
        return (options.open(&data).unwrap(), data, Vec::new());
    }
    LocalKey::create_file(&key).unwrap();
    let arguments = vec!["--key-file".to_owned(), key.display().to_string()];
    (options.key_provider(Arc::new(LocalKey::from_file(&key).unwrap())).open(&data).unwrap(), data, arguments)
}

#[test]
fn commands_that_only_read_work_beside_a_process_that_has_the_store_open() {
    for encrypted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (store, data, key) = open_store(&dir, encrypted);
        let run = |arguments: &[&str]| {
            let arguments: Vec<&str> = arguments.iter().copied().chain(key.iter().map(String::as_str)).collect();
            ok(&data, &arguments)
        };
        for n in 0..3 {
            let content = format!("content {n}");
            let digest = store.put(&content, Algorithm::Sha256).unwrap().digest;
            store.named().set("name", &digest, PutNamed::new()).unwrap();
            // All that was acknowledged.
            assert_eq!(run(&["cat", "name"]), content);
            assert_eq!(run(&["cat", &digest.to_string()]), content);
            assert_eq!(run(&["ls", "--blobs"]).lines().count(), n + 1);
        }
        assert!(run(&["ls"]).contains("name"));
        assert!(run(&["verify"]).contains("all sound"));
        assert!(run(&["stat"]).contains('3'));
        let to = dir.path().join("to");
        run(&["get", "name", to.to_str().unwrap()]);
        assert_eq!(fs::read(&to).unwrap(), b"content 2");
        if encrypted {
            assert!(run(&["domain", "list"]).contains('0') && run(&["key", "list"]).contains("local:"));
            assert_eq!(code(&data, &["ls"]), 7);
        } else {
            refused(&data, &["put", to.to_str().unwrap()], 6, &["in use"]);
        }
        store.close().unwrap();
        assert!(run(&["ls"]).contains("name"));
    }
}
