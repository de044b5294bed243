//! Opening for reading up to the damage: the facts of the last commit before it, and not a byte changed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use strongroom::registry::{PutManifest, RepositoryDeletion, RepositorySettings};
use strongroom::vfs::SimVfs;
use strongroom::{
    Algorithm, Clock, CollectOptions, Error, ExpectNamed, Maintenance, Options, PutNamed, ReadOnlyCause, Recovery,
    ScrubOptions, Store,
};

use super::lab::{contents, damage, make, open};
use crate::common::file_names;
use crate::common::registry::{image, name, push};
use crate::common::{
    Model, ModelFile, Random, encrypted_disk, history, options, outline, seed, small, tell, uploads_of,
};

fn open_reading(disk: &SimVfs) -> Result<Store, Error> {
    options(disk, &Clock::manual()).create(false).recovery(Recovery::ReadOnlyUpToDamage).open("/store")
}

/// The named files and uploads that the store says there are: what can be observed where content may be gone.
fn names(store: &Store) -> Model {
    let mut seen = Model::default();
    for pin in file_names(store).unwrap() {
        let found = store.named().stat(&pin).unwrap();
        seen.files.insert(pin, ModelFile::from(&found));
    }
    for (owner, upload) in uploads_of(store).unwrap() {
        seen.uploads.insert(upload.id, vec![0; upload.offset as usize]);
        seen.owners.extend(owner.map(|owner| (upload.id, owner)));
    }
    seen
}

fn damage_histories(seed: u64, rounds: u64, new: fn() -> SimVfs) {
    let (mut opened, mut compared) = (0, 0);
    for round in 0..rounds {
        let mut random = Random(seed ^ round << 32);
        let steps = history(&mut random, 60);
        let made = make(&new(), &steps, [12 << 10, 1 << 20][round as usize % 2], round % 4 != 3);
        for n in 0..8 {
            let disk = made.disk.restarted();
            let (_, how) = damage(&disk, &mut random);
            let context = format!("seed {seed} round {round} damage {n}: {how}");
            let Err(error @ Error::Corrupt { .. }) = open(&disk) else { continue };
            let before = contents(&disk);
            let operations = disk.operations();
            let store = open_reading(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(store.damage().map(ToString::to_string), Some(error.to_string()), "{context}");
            assert!(matches!(open_reading(&disk), Err(Error::Locked { .. })), "{context}");
            let refused = store.put(b"more", Algorithm::Sha256);
            let is_it = |damage: &Error| damage.to_string() == error.to_string();
            let is_damage = |cause: &ReadOnlyCause| matches!(cause, ReadOnlyCause::Damage(damage) if is_it(damage));
            assert!(matches!(&refused, Err(Error::ReadOnly { cause }) if is_damage(cause)));
            // What it holds is what there was when that commit was made, where that ended a step.
            let last = store.last_lsn();
            if let Some(step) = made.history.iter().rev().find(|step| step.until == last) {
                let (seen, expected) = (names(&store), outline(&step.model));
                assert_eq!(
                    (seen.files, seen.uploads, seen.owners),
                    (expected.files, expected.uploads, expected.owners)
                );
                let names: Vec<_> =
                    store.repositories(None, 10).unwrap().items.iter().map(ToString::to_string).collect();
                assert!(names.iter().eq(step.model.repositories.keys()), "{context}: {names:?}");
                for (digest, content) in &step.model.blobs {
                    match store.get(digest).and_then(|blob| blob.bytes()) {
                        Ok(bytes) => assert_eq!(bytes, content, "{context}"),
                        Err(Error::Corrupt { .. }) => {} // it was removed or moved since, or it is damaged
                        Err(error) => panic!("{context}: {digest}: {error}"),
                    }
                }
                for (name, expected) in &step.model.repositories {
                    let repository = store.repository(&name.parse().unwrap()).unwrap();
                    for (tag, digest) in &expected.tags {
                        let tag = tag.parse().unwrap();
                        assert_eq!(repository.resolve(&tag).unwrap().digest, *digest, "{context}");
                    }
                }
                compared += 1;
            }
            store.close().unwrap();
            assert_eq!(contents(&disk), before, "{context}");
            let synced = disk.operations() - operations;
            assert!(synced <= 2, "{context}: {synced} operations, and two directories to sync");
            opened += 1;
        }
    }
    tell(&format!("{opened} damaged stores opened for reading, {compared} of them compared"));
    assert!(opened > 20 && compared > opened / 2, "{opened}, {compared}");
}

#[test]
fn it_holds_what_was_there_before_the_damage() {
    damage_histories(seed(0x5b1), 40, SimVfs::new);
}

#[test]
fn so_it_does_where_the_store_is_encrypted() {
    damage_histories(seed(0x5b2), 20, encrypted_disk);
}

/// All files below a directory, with their content.
fn tree(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.insert(path.clone(), Vec::new());
            tree(&path, files);
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
}

#[test]
fn every_write_is_refused_and_says_why_and_no_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let clock = Clock::manual();
    let store = small(Options::new(), &clock).memtable_size(1 << 20).open(&dir).unwrap();
    let app = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let layer = app.put(b"layer", Algorithm::Sha256).unwrap().digest;
    let manifest = push(&app, image(&[layer], None), &["v1"]);
    let blob = store.put(b"content", Algorithm::Sha256).unwrap().digest;
    store.named().set("pin", &blob, PutNamed::new()).unwrap();
    let upload = store.begin_upload(Algorithm::Sha256).unwrap();
    store.put(b"the record behind this one's content is damaged", Algorithm::Sha256).unwrap();
    store.close().unwrap();
    let mut files = BTreeMap::new();
    tree(&dir, &mut files);
    let is_log = |path: &&PathBuf| path.extension().is_some_and(|ext| ext == "log");
    let log = files.keys().find(is_log).unwrap().clone();
    let mut bytes = files[&log].clone();
    let at = bytes.windows(6).rposition(|window| window == b"behind").unwrap();
    bytes[at + 90] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    files.clear();
    tree(&dir, &mut files);

    let error = Options::new().open(&dir).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { file, .. } if *file == log), "{error}");
    let every = Duration::from_millis(1);
    // With threads that would maintain and collect.
    let options = Options::new().recovery(Recovery::ReadOnlyUpToDamage).maintenance(Maintenance::Thread);
    let store = options.collect_every(every, CollectOptions::new()).open(&dir).unwrap();
    assert!(matches!(store.damage(), Some(Error::Corrupt { file, .. }) if *file == log));
    let strongroom::StoreState::ReadOnly { cause } = store.health().state else { panic!("{:?}", store.health()) };
    let ReadOnlyCause::Damage(cause) = cause else { panic!("{cause:?}") };
    assert!(matches!(&*cause, Error::Corrupt { file, .. } if *file == log));
    let app = store.repository(&name("team/app")).unwrap();
    assert_eq!(store.get(&blob).unwrap().bytes().unwrap(), "content");
    assert_eq!(file_names(&store).unwrap(), ["pin"]);
    assert_eq!(app.resolve(&"v1".parse().unwrap()).unwrap().digest, manifest);
    assert_eq!(store.blobs().count(), 3);
    assert!(store.verify(|_| {}).unwrap().findings.iter().all(|one| matches!(one, strongroom::Finding::Log { .. })));

    let (kind, document) = image(&[layer], None);
    let long = vec![1; 9 << 20];
    let refusals: Vec<(&str, Result<(), Error>)> = vec![
        ("put", store.put(b"more", Algorithm::Sha256).map(drop)),
        ("put what is long", store.put_reader(&long[..], Algorithm::Sha256).map(drop)),
        ("remove", store.remove(&blob).map(drop)),
        ("set", store.named().set("pin 2", &blob, PutNamed::new()).map(drop)),
        ("remove a file", store.named().remove("pin", ExpectNamed::Any).map(drop)),
        ("begin", store.begin_upload(Algorithm::Sha256).map(drop)),
        ("append", store.append_upload(upload, 0, b"content").map(drop)),
        ("commit", store.commit_upload(upload, blob).map(drop)),
        ("cancel", store.cancel_upload(upload)),
        ("create", store.create_repository(&name("team/new"), RepositorySettings::new()).map(drop)),
        ("delete", store.delete_repository(&name("team/app"), RepositoryDeletion::WithContents).map(drop)),
        ("push", app.put(b"other layer", Algorithm::Sha256).map(drop)),
        ("push a manifest", app.put_manifest(&document, PutManifest::new(kind)).map(drop)),
        ("delete a manifest", app.delete_manifest(&manifest).map(drop)),
        ("collect", store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).map(drop)),
        ("scrub", store.scrub(&ScrubOptions::new(), |_| ControlFlow::Continue(())).map(drop)),
        ("checkpoint", store.checkpoint()),
        ("merge", store.merge_runs()),
        ("probe", store.probe()),
    ];
    for (what, result) in refusals {
        let Err(error) = result else { panic!("{what} was done") };
        assert!(matches!(error, Error::ReadOnly { .. }), "{what}: {error}");
        assert!(error.to_string().contains("salvage") && error.to_string().contains(".log"), "{error}");
    }
    store.close().unwrap();
    let mut after = BTreeMap::new();
    tree(&dir, &mut after);
    assert!(after == files, "{:?}", after.keys().filter(|path| !files.contains_key(*path)).collect::<Vec<_>>());
}

#[test]
fn a_sound_store_is_opened_as_usual() {
    let disk = SimVfs::new();
    let store = options(&disk, &Clock::manual()).recovery(Recovery::ReadOnlyUpToDamage).open("/store").unwrap();
    store.put(b"content", Algorithm::Sha256).unwrap();
    let killed = disk.restarted();
    drop(store);
    let store = open_reading(&killed).unwrap();
    assert!(store.damage().is_none());
    store.put(b"more", Algorithm::Sha256).unwrap();
    assert_eq!(store.blobs().count(), 2);
}
