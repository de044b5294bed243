//! `strongroom lifecycle`: what a policy does to a repository, seen and done.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use strongroom::registry::lifecycle::DOCUMENT;
use strongroom::registry::{ExpectDocument, PutManifest, Repository, RepositorySettings, StorageClass};
use strongroom::{Clock, Digest, Options, Store};

use crate::command::{code, ok, refused, rows};

const EXPIRE: &str = r#""type": "expire""#;
const ARCHIVE: &str = r#""type": "transition", "targetStorageClass": "archive""#;

/// A policy that keeps the newest so many images, and does this with the others.
fn keep(count: usize, action: &str) -> String {
    let selection = format!(r#""tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": {count}"#);
    format!(r#"{{"rules": [{{"rulePriority": 7, "selection": {{{selection}}}, "action": {{{action}}}}}]}}"#)
}

fn push(app: &Repository, document: &str) -> Digest {
    let put = PutManifest::new("text/plain").references([], []).tag(document.parse().unwrap());
    app.put_manifest(document, put).unwrap().digest
}

/// A store with so many images in a repository, `v0` being the oldest.
fn store(dir: &tempfile::TempDir, images: usize) -> (Store, Repository, PathBuf, Vec<Digest>) {
    let data = dir.path().join("data");
    let store = Options::new().create(true).open(&data).unwrap();
    let app = store.create_repository(&"team/app".parse().unwrap(), RepositorySettings::new()).unwrap();
    let images = (0..images).map(|n| {
        let digest = push(&app, &format!("v{n}"));
        let pushed = app.image(&digest.into()).unwrap().pushed_ms;
        while now_ms() == pushed {} // each is of a moment of its own
        digest
    });
    let images = images.collect();
    (store, app, data, images)
}

fn now_ms() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

fn policy_file(dir: &tempfile::TempDir, text: &str) -> String {
    let path = dir.path().join("policy.json");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A command that applies a policy to a store that this test had open: another test may just begin a process, which has
/// what this one had open until it runs its program.
fn applying<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["--wait-lock", "30s", "lifecycle", "apply", "team/app"], arguments].concat()
}

fn apply(data: &Path, arguments: &[&str]) -> Value {
    rows(data, &applying(arguments)).remove(0)
}

#[test]
fn a_policy_is_previewed_beside_an_open_store_and_applied_when_that_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, app, data, images) = store(&dir, 4);
    let policy = policy_file(&dir, &keep(2, EXPIRE));
    let with_policy = ["lifecycle", "preview", "team/app", "--policy", &policy];
    let listed = rows(&data, &with_policy);
    for (row, n) in listed.iter().zip(0..2) {
        let digest = images[n].to_string();
        let expected = serde_json::json!({
            "digest": digest, "tags": [format!("v{n}")], "action": "expire", "rule_priority": 7,
        });
        assert_eq!(*row, expected);
    }
    assert_eq!(listed[2..], [serde_json::json!({ "expiring": 2, "archiving": 0, "images": 4 })]);
    let text = ok(&data, &with_policy);
    assert!(text.contains(&format!("expire   rule 7    {}  v0\n", images[0])), "{text}");
    assert!(text.ends_with("2 of 4 images expire, 0 are archived\n"), "{text}");
    assert_eq!(app.images(None, 9).unwrap().items.len(), 4, "nothing was done");

    refused(&data, &["lifecycle", "apply", "team/app", "--policy", &policy], 6, &["in use"]);
    drop(app);
    store.close().unwrap();
    let done = apply(&data, &["--policy", &policy]);
    assert_eq!(done, serde_json::json!({ "expired": 2, "archived": 0, "skipped": 0 }));
    let policy = policy_file(&dir, &keep(1, ARCHIVE));
    let text = ok(&data, &applying(&["--policy", &policy]));
    assert_eq!(text, "expired   0\narchived  1\nleft      0\n");
    let app = Store::open(&data).unwrap().repository(&"team/app".parse().unwrap()).unwrap();
    let left: Vec<_> = [2, 3].map(|n| app.manifest_info(&images[n].into()).unwrap().storage_class).into();
    assert_eq!(left, [StorageClass::Archive, StorageClass::Standard]);
    assert_eq!(app.images(None, 9).unwrap().items.len(), 2);
}

#[test]
fn the_policy_that_is_set_for_a_repository_is_taken_where_none_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let (store, app, data, _) = store(&dir, 3);
    let preview = ["lifecycle", "preview", "team/app"];
    refused(&data, &preview, 1, &["has no lifecycle policy", "--policy"]);
    app.set_document(DOCUMENT, keep(1, EXPIRE), ExpectDocument::Any).unwrap();
    assert_eq!(rows(&data, &preview).len(), 3);
    drop(app);
    store.close().unwrap();
    assert_eq!(apply(&data, &[])["expired"], 2);
    assert_eq!(apply(&data, &[])["expired"], 0, "again");
}

#[test]
fn a_policy_that_acts_on_much_is_applied_when_that_is_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, app, data, _) = store(&dir, 20);
    drop(app);
    store.close().unwrap();
    let policy = policy_file(&dir, &keep(8, EXPIRE));
    for more in [&[][..], &["--confirm", "11"], &["--trust-clock"]] {
        let arguments = applying(&[&["--policy", &policy], more].concat());
        refused(&data, &arguments, 1, &["12 of 20 images", "lifecycle preview", "--confirm 12"]);
    }
    assert_eq!(apply(&data, &["--policy", &policy, "--confirm", "12"])["expired"], 12);
    assert_eq!(rows(&data, &["lifecycle", "preview", "team/app", "--policy", &policy])[0]["images"], 8);
}

#[test]
fn a_clock_that_is_behind_the_images_needs_somebody_who_trusts_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let clock = Clock::manual();
    clock.advance(std::time::Duration::from_millis(now_ms() + 86_400_000));
    let store = Options::new().create(true).clock(clock).open(&data).unwrap();
    let app = store.create_repository(&"team/app".parse().unwrap(), RepositorySettings::new()).unwrap();
    push(&app, "v0");
    push(&app, "v1");
    let is_ahead = app.images(None, 9).unwrap().items[0].pushed_ms > now_ms();
    assert!(is_ahead);
    drop(app);
    store.close().unwrap();
    let policy = policy_file(&dir, &keep(1, EXPIRE));
    refused(&data, &applying(&["--policy", &policy]), 1, &["the clock says 2", "--trust-clock"]);
    assert_eq!(apply(&data, &["--policy", &policy, "--trust-clock"])["expired"], 1);
}

#[test]
fn what_is_wrong_with_a_policy_or_a_repository_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, _app, data, _) = store(&dir, 1);
    let preview = |policy: &str| {
        let path = policy_file(&dir, policy);
        ["lifecycle", "preview", "team/app", "--policy", &path].map(str::to_owned)
    };
    let refused_policy = |policy: &str, words: &[&str]| {
        let arguments = preview(policy);
        refused(&data, &arguments.each_ref().map(String::as_str), 1, words);
    };
    refused_policy("{}", &["policy.json: ", "rules"]);
    refused_policy(&keep(0, EXPIRE), &["countNumber"]);
    refused_policy(&keep(1, r#""type": "\u001b[2Jdrop""#), &["type", "\\u{1b}[2Jdrop"]);
    let pulled = r#""tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 3"#;
    let pulled = format!(r#"{{"rules": [{{"rulePriority": 1, "selection": {{{pulled}}}, "action": {{{EXPIRE}}}}}]}}"#);
    refused_policy(&pulled, &["sinceImagePulled"]);
    let extended = [&preview(&pulled)[..], &["--extended".to_owned()]].concat();
    ok(&data, &extended.iter().map(String::as_str).collect::<Vec<_>>());

    assert_eq!(code(&data, &["lifecycle", "preview", "team/none"]), 3);
    assert_eq!(code(&data, &["lifecycle", "preview", "Team/App"]), 2);
    assert_eq!(code(&data, &["lifecycle", "preview"]), 2);
    let missing = dir.path().join("none").display().to_string();
    refused(&data, &["lifecycle", "preview", "team/app", "--policy", &missing], 1, &["none", "No such file"]);
}
