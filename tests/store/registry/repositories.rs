//! Repositories: created once, deleted at once, and nothing of one is found in the next of its name.

use std::io::Read;

use strongroom::registry::{ExpectTag, PutManifest, RepositoryDeletion, RepositorySettings, TagMutability};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Digest, Error, Maintenance, Result, Store};

use crate::common::registry::{
    Lab, assert_sound, at, blob, create, image, is_gone, is_unknown, name, options, push, push_image, tag,
};

fn is_no_repository<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::RepositoryNotFound { .. }))
}

/// Fails unless nothing but these blobs is held in a store, and what its facts say is right.
fn assert_only(store: &Store, held: &[Digest]) {
    assert_sound(store);
    let stats = store.blobs().map(Result::unwrap).filter(|blob| blob.references > 0);
    let mut found: Vec<_> = stats.map(|blob| blob.digest).collect();
    found.sort_unstable();
    let mut held = held.to_vec();
    held.sort_unstable();
    assert_eq!(found, held);
}

#[test]
fn a_name_is_taken_once_and_free_when_its_repository_is_deleted() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let again = store.create_repository(&name("a/ours"), RepositorySettings::new());
    assert!(matches!(again, Err(Error::RepositoryExists { .. })));
    let immutable = RepositorySettings::new().mutability(TagMutability::Immutable);
    assert_eq!(store.ensure_repository(&name("a/ours"), immutable).unwrap().info().unwrap(), ours.info().unwrap());
    blob(&ours, "loose");
    let manifest = push_image(&ours, "x", &[]);
    let delete = |how| store.delete_repository(&name("a/ours"), how);
    assert!(matches!(delete(RepositoryDeletion::IfEmpty), Err(Error::RepositoryNotEmpty { .. })));
    ours.delete_manifest(&manifest).unwrap();
    delete(RepositoryDeletion::IfEmpty).unwrap();
    assert!(is_no_repository(delete(RepositoryDeletion::IfEmpty)));
    create(&store, "a/ours");
    assert_only(&store, &[]);
}

#[test]
fn a_new_repository_has_nothing_of_the_deleted_one_of_its_name() {
    let lab = Lab::new();
    let store = lab.open();
    let old = create(&store, "a/ours");
    let (config, layer) = (blob(&old, "config"), blob(&old, &"layer".repeat(1000)));
    let manifest = push(&old, image(&[config, layer], None), &["v1", "v2"]);
    push(&old, image(&[config], Some(&manifest)), &[]);
    old.pull_manifest(&at("v1")).unwrap();
    let upload = old.begin_upload(Algorithm::Sha256).unwrap();
    old.append_upload(upload, 0, "y".repeat(5000)).unwrap();
    store.delete_repository(&name("a/ours"), RepositoryDeletion::WithContents).unwrap();
    let new = create(&store, "a/ours");
    let unknown = |result: Result<()>| matches!(result, Err(Error::UploadNotFound { .. }));
    assert!(is_gone(&new.get(&config)) && is_gone(&new.claim(&layer)));
    assert!(is_unknown(&new.get_manifest(&manifest.into())) && is_unknown(&new.get_manifest(&at("v1"))));
    assert!(new.tags(None, 9).unwrap().items.is_empty() && new.tags_of(&manifest).unwrap().is_empty());
    assert!(new.referrers(&manifest, None, None, 9).unwrap().items.is_empty());
    assert!(new.manifests(None, 9).unwrap().items.is_empty() && new.blobs(None, 9).unwrap().items.is_empty());
    assert!(new.uploads(None, 1000).unwrap().items.is_empty() && unknown(new.upload_status(upload).map(drop)));
    assert!(unknown(new.commit_upload(upload, config).map(drop)) && unknown(new.cancel_upload(upload)));
    // What is pushed again counts for the new one only, and its pulls do too.
    let (config, layer) = (blob(&new, "config"), blob(&new, &"layer".repeat(1000)));
    assert_eq!(push(&new, image(&[config, layer], None), &["v1"]), manifest);
    assert_eq!(new.manifest_info(&manifest.into()).unwrap().pulled_ms, None);
    assert_eq!(new.stat(&config).unwrap().references, 1);
    assert_only(&store, &[config, layer, manifest]);
}

#[test]
fn handles_of_a_deleted_repository_fail_in_every_call_also_when_its_name_is_anothers() {
    let lab = Lab::new();
    let store = lab.open();
    let old = create(&store, "a/ours");
    let config = blob(&old, "config");
    let manifest = push(&old, image(&[config], None), &["v1"]);
    let upload = old.begin_upload(Algorithm::Sha256).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "z".repeat(5000)).unwrap();
    for is_there_a_new_one in [false, true] {
        if is_there_a_new_one {
            let new = create(&store, "a/ours");
            push(&new, image(&[blob(&new, "config")], None), &["v1"]);
        } else {
            store.delete_repository(&name("a/ours"), RepositoryDeletion::WithContents).unwrap();
        }
        let before = store.last_lsn();
        let put = || PutManifest::new("a/b").references([], []);
        let answers = [
            old.info().map(drop),
            old.set_settings(RepositorySettings::new().mutability(TagMutability::Immutable)).map(drop),
            old.put("config", Algorithm::Sha256).map(drop),
            old.put("z".repeat(5000), Algorithm::Sha256).map(drop),
            old.put_reader(&b"config"[..], config).map(drop),
            old.put_many([("config", Algorithm::Sha256)]).map(drop),
            old.put_many([("z".repeat(5000), Algorithm::Sha256)]).and_then(|mut each| each.remove(0)).map(drop),
            old.put_file(file.path(), Algorithm::Sha256).map(drop),
            old.get(&config).map(drop),
            old.get_many(&[config]).map(drop),
            old.stat(&config).map(drop),
            old.stat_many(&[config]).map(drop),
            old.claim(&config).map(drop),
            old.claim_many(&[config]).map(drop),
            old.snapshot().map(drop),
            old.usage().map(drop),
            old.count_uploads(9).map(drop),
            old.open_manifest(&at("v1")).map(drop),
            old.mount(&config, &name("a/ours"), |_| true).map(drop),
            old.remove_blob(&config).map(drop),
            old.blobs(None, 9).map(drop),
            old.begin_upload(Algorithm::Sha256).map(drop),
            old.append_upload(upload, 0, "x").map(drop),
            old.append_upload_from(upload, 0, &b"x"[..]).map(drop),
            old.upload_status(upload).map(drop),
            old.commit_upload(upload, config).map(drop),
            old.cancel_upload(upload),
            old.uploads(None, 9).map(drop),
            old.put_manifest("x", put()).map(drop),
            old.get_manifest(&at("v1")).map(drop),
            old.pull_manifest(&manifest.into()).map(drop),
            old.manifest_info(&at("v1")).map(drop),
            old.delete_manifest(&manifest).map(drop),
            old.delete_batch(&[at("v1")]).map(drop),
            old.manifests(None, 9).map(drop),
            old.tag(&tag("v2"), &manifest, ExpectTag::Any).map(drop),
            old.untag(&tag("v1")).map(drop),
            old.resolve(&tag("v1")).map(drop),
            old.tags(None, 9).map(drop),
            old.tags_of(&manifest).map(drop),
            old.referrers(&manifest, None, None, 9).map(drop),
        ];
        for (number, answer) in answers.into_iter().enumerate() {
            assert!(is_no_repository(answer), "call {number}");
        }
        assert_eq!(store.last_lsn(), before);
    }
    assert_only(&store, &[config, manifest]);
}

#[test]
fn what_is_shared_with_another_repository_survives_a_deletion() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let layer = blob(&ours, "layer");
    theirs.mount(&layer, ours.name(), |_| true).unwrap();
    let manifest = push(&ours, image(&[layer], None), &["v1"]);
    push(&theirs, image(&[layer], None), &["v1"]);
    let kept = ours.get(&layer).unwrap();
    store.delete_repository(&name("a/ours"), RepositoryDeletion::WithContents).unwrap();
    store.merge_runs().unwrap();
    assert_eq!(theirs.get_manifest(&at("v1")).unwrap().digest, manifest);
    assert_eq!((kept.bytes().unwrap(), theirs.get(&layer).unwrap().bytes().unwrap()), ("layer".into(), "layer".into()));
    assert_eq!(theirs.stat(&layer).unwrap().references, 1);
    assert_only(&store, &[layer, manifest]);
}

/// Content that stops in the middle for something to be done.
struct Interrupted<'a>(&'a [u8], Option<Box<dyn FnOnce() + 'a>>);

impl Read for Interrupted<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let half = into.len().min(self.0.len().div_ceil(2));
        if self.0.len() < 10 {
            self.1.take().into_iter().for_each(|interrupt| interrupt());
        }
        self.0.read(&mut into[..half])
    }
}

#[test]
fn a_push_into_a_repository_that_is_deleted_meanwhile_fails_and_leaves_nothing() {
    for len in [100, 100_000] {
        let lab = Lab::new();
        let store = lab.open();
        let content = vec![b'x'; len];
        let digest = Digest::of(Algorithm::Sha256, &content);
        let segments =
            || lab.disk.files().into_iter().filter(|path| path.to_string_lossy().contains("/segments/")).count();
        let delete = || {
            store.delete_repository(&name("a/ours"), RepositoryDeletion::WithContents).unwrap();
        };

        let ours = create(&store, "a/ours");
        let put = ours.put_reader(Interrupted(&content, Some(Box::new(delete))), digest);
        assert!(is_no_repository(put), "a blob of {len} bytes");

        let ours = create(&store, "a/ours");
        let upload = ours.begin_upload(Algorithm::Sha256).unwrap();
        ours.append_upload(upload, 0, &content).unwrap();
        delete();
        assert!(is_no_repository(ours.commit_upload(upload, digest)));

        let ours = create(&store, "a/ours");
        let upload = ours.begin_upload(Algorithm::Sha256).unwrap();
        let appended = ours.append_upload_from(upload, 0, Interrupted(&content, Some(Box::new(delete))));
        assert!(matches!(appended, Err(Error::UploadNotFound { .. })), "{appended:?}");

        store.checkpoint().unwrap();
        assert!(!store.exists(&digest).unwrap());
        assert_eq!(segments(), 0);
        assert_only(&store, &[]);
        store.close().unwrap();
        let store = lab.open();
        assert_eq!((store.usage().unwrap().live_bytes, segments()), (0, 0));
        assert_eq!(store.expire_uploads(std::time::Duration::ZERO).unwrap(), 0, "none is left");
    }
}

#[test]
fn names_of_repositories_are_listed_in_order_and_in_pages() {
    let lab = Lab::new();
    let store = lab.open();
    let mut names =
        vec!["a/b".to_owned(), "a-b".into(), "a/b/c".into(), "a.b".into(), "aa".into(), "a_b".into(), "zz".into()];
    names.push("z".repeat(256));
    names.extend((0..100).map(|n| format!("team-{n}/app")));
    names.iter().for_each(|name| drop(create(&store, name)));
    for n in (0..100).step_by(3) {
        let gone = format!("team-{n}/app");
        store.delete_repository(&name(&gone), RepositoryDeletion::IfEmpty).unwrap();
        names.retain(|name| *name != gone);
    }
    names.sort_unstable();
    for limit in [1, 7, 1000] {
        let mut listed: Vec<String> = Vec::new();
        loop {
            let page = store.repositories(listed.last().map(String::as_str), limit).unwrap().items;
            listed.extend(page.iter().map(ToString::to_string));
            if page.len() < limit {
                break;
            }
        }
        assert_eq!(listed, names);
    }
}

/// Fills a repository with manifests, each with two tags and a blob of its own.
fn fill(store: &Store, count: usize) {
    let large = create(store, "a/large");
    let shared = blob(&large, "shared");
    for n in 0..count {
        let own = blob(&large, &format!("blob {n}"));
        let put = PutManifest::new("a/b").references([shared, own], []);
        large.put_manifest(format!("{n}"), put.tag(tag(&format!("{n}"))).tag(tag(&format!("v{n}")))).unwrap();
    }
}

#[test]
fn a_large_repository_goes_in_steps_beside_pushes_and_goes_on_after_a_restart() {
    let lab = Lab::new();
    let with = |disk: &SimVfs, maintenance| {
        let options =
            options(disk, &lab.clock).maintenance(maintenance).log_file_size(1 << 20).memtable_size(256 << 10);
        options.open("/store").unwrap()
    };
    let store = with(&lab.disk, Maintenance::Thread);
    fill(&store, 10_000);
    let other = create(&store, "a/other");
    other.mount(&Digest::of(Algorithm::Sha256, b"shared"), &name("a/large"), |_| true).unwrap();
    let before = store.last_lsn().get();
    store.delete_repository(&name("a/large"), RepositoryDeletion::WithContents).unwrap();
    // At once it is gone, and others push while its contents go.
    let large = create(&store, "a/large");
    let mut held = vec![push_image(&large, "new", &["0"]), Digest::of(Algorithm::Sha256, b"new")];
    held.push(push_image(&other, "shared", &["v1"]));
    held.push(Digest::of(Algorithm::Sha256, b"shared"));
    let mut middle = Vec::new();
    for n in 0..10 {
        held.push(push_image(&other, &format!("other {n}"), &["latest"]));
        held.push(Digest::of(Algorithm::Sha256, format!("other {n}").as_bytes()));
        assert_eq!(large.tags(None, 100).unwrap().items, [tag("0")]);
        middle.push((held.clone(), if n % 2 == 0 { lab.disk.restarted() } else { lab.disk.power_cut(n) }));
    }
    store.close().unwrap();
    middle.push((held, lab.disk.restarted()));
    for (held, disk) in middle {
        let store = with(&disk, Maintenance::Inline);
        assert_sound(&store);
        // Pushes after the first commit of the other repository are not all in what was cut.
        store.checkpoint().unwrap();
        assert_only(&store, &held);
        assert!(store.last_lsn().get() - before > 100, "in steps");
        assert_eq!(store.repository(&name("a/large")).unwrap().tags(None, 100).unwrap().items, [tag("0")]);
    }
}
