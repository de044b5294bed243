//! Backups of a store that is in use, from the command line: while it is written to, and when they are killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use strongroom::keys::LocalKey;
use strongroom::registry::{PutManifest, RepositorySettings};
use strongroom::{Algorithm, CollectOptions, Digest, Lsn, Options, Store};

use crate::command::{command, ok, refused, rows, strongroom};
use crate::common::{Random, tell};

/// The number of backups, and in how many of them one is killed before.
fn rounds() -> u64 {
    std::env::var("STRONGROOM_BACKUPS").ok().and_then(|count| count.parse().ok()).unwrap_or(8)
}

fn push(store: &Store, is_over: &AtomicBool, mut random: Random) -> Vec<(Lsn, Digest)> {
    let app = store.create_repository(&"app".parse().unwrap(), RepositorySettings::new()).unwrap();
    let mut done: Vec<(Lsn, Digest)> = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let len = [100, 30_000, 5 << 20][random.below(40).min(2) as usize];
        let layer = app.put(random.bytes(len), Algorithm::Sha256).unwrap().digest;
        let manifest = PutManifest::new("text/plain").references([layer], []).tag("latest".parse().unwrap());
        let pushed = app.put_manifest(done.len().to_string(), manifest).unwrap();
        if let Some((_, before)) = done.last() {
            app.delete_manifest(before).unwrap();
        }
        done.push((pushed.lsn, pushed.digest));
        if done.len().is_multiple_of(200) {
            store.collect(&CollectOptions::new().max_dead(10), |_| std::ops::ControlFlow::Continue(())).unwrap();
        }
    }
    done
}

fn latest(store: &Store) -> Option<Digest> {
    let app = store.repository(&"app".parse().unwrap()).ok()?;
    app.resolve(&"latest".parse().unwrap()).ok().map(|info| info.digest)
}

#[test]
fn backups_of_a_store_in_use_hold_what_was_acknowledged_also_after_kills_of_others() {
    for encrypted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (data, key) = (dir.path().join("data"), dir.path().join("key"));
        LocalKey::create_file(&key).unwrap();
        let options = || {
            let options = Options::new().log_file_size(4 << 20).retention(Duration::from_secs(5));
            if encrypted { options.key_provider(Arc::new(LocalKey::from_file(&key).unwrap())) } else { options }
        };
        let keyed = |arguments: &[&str]| -> Vec<String> {
            let key = encrypted.then(|| ["--key-file".to_owned(), key.display().to_string()]);
            arguments.iter().map(|one| (*one).to_owned()).chain(key.into_iter().flatten()).collect()
        };
        let run = |arguments: &[&str]| {
            let arguments = keyed(&[&["--json"], arguments].concat());
            let printed = ok(&data, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
            serde_json::from_str::<serde_json::Value>(&printed).unwrap()
        };
        let store = options().create(true).open(&data).unwrap();
        let is_over = AtomicBool::new(false);
        let to = |n: u64| dir.path().join(format!("backup-{n}"));
        let mut random = Random(3);
        let (mut kills, mut seen) = (0, BTreeMap::new());
        let done = std::thread::scope(|scope| {
            let pushing = scope.spawn(|| push(&store, &is_over, Random(7)));
            let start = Instant::now();
            run(&["backup", to(1_000).to_str().unwrap()]);
            let whole = start.elapsed();
            for n in 0..rounds() {
                let path = to(n);
                let path = path.to_str().unwrap();
                let arguments = keyed(&["backup", path, "--no-links"]);
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let mut child = command(&data, &arguments).spawn().unwrap();
                std::thread::sleep(whole.mul_f64(random.below(1500) as f64 / 1000.0));
                child.kill().unwrap();
                let killed = !child.wait().unwrap().success();
                kills += u64::from(killed);
                if Path::new(path).exists() {
                    // It was whole by then.
                    let copy = options().read_only(true).open(path).unwrap();
                    assert!(copy.verify(|_| {}).unwrap().findings.is_empty());
                    seen.insert(copy.last_lsn(), latest(&copy));
                    fs::remove_dir_all(path).unwrap();
                }
                let before = store.last_lsn();
                let told = run(&["backup", path]);
                assert!(!PathBuf::from(format!("{path}.incomplete")).exists());
                let copy = options().open(path).unwrap();
                assert!(Some(copy.last_lsn().get()) == told["lsn"].as_u64() && copy.last_lsn() >= before);
                assert!(copy.verify(|_| {}).unwrap().findings.is_empty());
                seen.insert(copy.last_lsn(), latest(&copy));
            }
            is_over.store(true, Ordering::Relaxed);
            pushing.join().unwrap()
        });
        for (lsn, found) in &seen {
            let expected = done.iter().rfind(|(own, _)| own <= lsn).map(|(_, digest)| *digest);
            assert_eq!(*found, expected, "the backup of commit {lsn}");
        }
        tell(&format!("{} backups beside {} pushes, {kills} of others killed", seen.len(), done.len()));
        assert!(seen.len() as u64 >= rounds());
        // What one is restored from is not needed any more.
        store.close().unwrap();
        fs::remove_dir_all(&data).unwrap();
        let last = to(rounds() - 1);
        let told = run(&["restore", last.to_str().unwrap(), data.to_str().unwrap()]);
        assert_eq!(told["findings"].as_array().unwrap().len(), 0);
        fs::remove_dir_all(&last).unwrap();
        let store = options().open(&data).unwrap();
        assert_eq!(latest(&store), *seen.last_key_value().unwrap().1);
        store.put("and on it goes", Algorithm::Sha256).unwrap();
    }
}

#[test]
fn a_backup_with_a_base_copies_what_is_new_and_one_of_a_damaged_store_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("file"));
    ok(&data, &["init"]);
    let put = |n: u8| {
        fs::write(&file, vec![n; 5 << 20]).unwrap();
        ok(&data, &["put", file.to_str().unwrap()]);
    };
    let [first, second, third] = ["first", "second", "third"].map(|name| dir.path().join(name));
    let [first, second, third] = [&first, &second, &third].map(|path| path.to_str().unwrap());
    put(1);
    assert!(ok(&data, &["backup", first, "--no-links"]).contains("0 files linked"));
    put(2);
    let told = rows(&data, &["backup", second, "--no-links", "--base", first]);
    assert!(told[0]["linked_bytes"].as_u64() > Some(5 << 20) && told[0]["copied_bytes"].as_u64() < Some(6 << 20));
    refused(&data, &["backup", second], 1, &["no empty directory"]);
    refused(&data, &["backup", third, "--base", dir.path().to_str().unwrap()], 3, &["no strongroom store"]);
    assert!(ok(Path::new(second), &["verify"]).contains("all sound"));
    let segments = data.join("segments/0000000000");
    fs::remove_file(fs::read_dir(&segments).unwrap().next().unwrap().unwrap().path()).unwrap();
    refused(&data, &["backup", third], 4, &["1 findings"]);
    // A restore reads all of it, unless it is told not to. What the backup does not have is one finding, and the blob
    // that lay there another; in JSON, all of it is one document.
    let restored = dir.path().join("restored");
    refused(&data, &["restore", third, restored.to_str().unwrap()], 4, &["findings"]);
    fs::remove_dir_all(&restored).unwrap();
    let output = strongroom(&data, &["--json", "restore", third, restored.to_str().unwrap()]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(told["lsn"].as_u64() > Some(0) && told["blobs"].as_u64() > Some(0), "{told}");
    let [missing, findings] = ["missing", "findings"].map(|list| told[list].as_array().unwrap().len());
    assert!(missing == 1 && findings > 0, "{told}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("{} findings", missing + findings)));
    let again = dir.path().join("damaged");
    let output = strongroom(&data, &["--json", "backup", again.to_str().unwrap()]);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["missing"].as_array().unwrap().len(),
        1
    );
    // What is there is named for what it is.
    for there in [again.to_str().unwrap(), file.to_str().unwrap()] {
        refused(&data, &["backup", there], 1, &[there, "is there already and is no empty directory"]);
    }
    ok(&data, &["restore", first, dir.path().join("again").to_str().unwrap(), "--no-verify"]);
    assert!(ok(&dir.path().join("again"), &["verify"]).contains("all sound"));
}
