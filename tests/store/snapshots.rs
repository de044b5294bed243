//! Reads as of one moment, and waiting for the next.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use strongroom::registry::{EventKind, PutManifest, Reference, RepositoryDeletion};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, CollectOptions, Digest, Error, ExpectNamed, Lsn, PutNamed, Store};

use crate::common::registry::{blob, create, image, name, push, tag};
use crate::common::{Random, options};

fn open(disk: &SimVfs) -> Store {
    options(disk, &Clock::manual()).retention(Duration::ZERO).history(1 << 40).open("/store").unwrap()
}

#[test]
fn a_snapshot_stays_as_it_is_whatever_happens() {
    let store = open(&SimVfs::new());
    let app = create(&store, "team/app");
    let (config, layer) = (blob(&app, "config"), blob(&app, "layer"));
    let manifest = push(&app, image(&[config, layer], None), &["v1", "v2"]);
    let outside = store.put("outside", Algorithm::Sha256).unwrap().digest;
    let named = |name: &str, content: &str| store.named().put(name, content, PutNamed::new()).unwrap().file;
    let [index, status] = [named("a/index", "one version"), named("a/status", "starting")];
    named("b/copy", "one version");
    let (snapshot, team) = (store.snapshot().unwrap(), app.snapshot().unwrap());
    assert_eq!((snapshot.lsn(), team.lsn()), (store.last_lsn(), store.last_lsn()));

    // All of it goes, other things come, facts are folded and merged.
    named("a/index", "two versions");
    named("a/other", "new");
    store.named().discarding().remove("a/status", ExpectNamed::Any).unwrap();
    store.delete_repository(&name("team/app"), RepositoryDeletion::WithContents).unwrap();
    store.remove(&outside).unwrap();
    let new = create(&store, "team/app");
    push(&new, image(&[blob(&new, "other")], None), &["v3"]);
    for n in 0..200u64 {
        store.put(Random(n).bytes(700), Algorithm::Blake3).unwrap();
    }
    store.checkpoint().unwrap();
    store.merge_runs().unwrap();
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert!(store.stat(&layer).is_err() && store.stat(&outside).is_err());

    let same = snapshot.repository(&name("team/app")).unwrap();
    for team in [&team, &same] {
        assert_eq!(team.name().as_str(), "team/app");
        assert_eq!(team.resolve(&tag("v1")).unwrap().digest, manifest);
        assert!(team.resolve(&tag("v3")).is_err());
        let tags = team.tags(None, 9).unwrap().items;
        assert_eq!(tags.iter().map(ToString::to_string).collect::<Vec<_>>(), ["v1", "v2"]);
        assert_eq!(team.tags_of(&manifest).unwrap().len(), 2);
        assert_eq!(team.manifests(None, 9).unwrap().items.len(), 1);
        assert_eq!(team.manifest_info(&manifest.into()).unwrap().references, 0);
        assert_eq!(team.blobs(None, 9).unwrap().items.len(), 2);
        assert_eq!(team.stat(&layer).unwrap().references, 1);
        assert!(team.info().is_ok() && team.referrers(&manifest, None, None, 9).is_ok());
        // Content is not kept.
        assert!(matches!(team.get(&layer), Err(Error::BlobNotFound { digest }) if digest == layer));
        assert!(matches!(team.get_many(&[layer]).unwrap()[0], Err(Error::BlobNotFound { .. })));
        let reference = Reference::from(manifest);
        assert!(matches!(team.get_manifest(&reference), Err(Error::ManifestNotFound { .. })));
    }
    assert!(snapshot.exists(&outside).unwrap() && snapshot.stat(&outside).is_ok());
    assert!(matches!(snapshot.get(&outside), Err(Error::BlobNotFound { .. })));
    let missing = Digest::of(Algorithm::Sha256, b"other");
    assert_eq!(snapshot.exists_many(&[outside, missing]).unwrap(), [true, false]);
    let found = snapshot.get_many(&[outside, missing, index.digest]).unwrap();
    assert!(matches!(found[..], [Err(Error::BlobNotFound { .. }), Err(Error::BlobNotFound { .. }), Ok(_)]));
    let files = snapshot.named();
    assert_eq!(files.iter("a/").map(|file| file.unwrap().name).collect::<Vec<_>>(), ["a/index", "a/status"]);
    assert_eq!(files.list("a/", Some("a/index"), 9).unwrap().items, std::slice::from_ref(&status));
    assert_eq!(files.stat("a/index").unwrap(), index);
    assert_eq!(files.get("a/index").unwrap().blob.bytes().unwrap(), "one version");
    assert!(matches!(files.get("a/status"), Err(Error::BlobNotFound { digest }) if digest == status.digest));
    assert!(matches!(files.stat("a/other"), Err(Error::NamedNotFound { .. })));
    let digests: Vec<Digest> = snapshot.blobs().map(|blob| blob.unwrap().digest).collect();
    assert_eq!(digests.len(), 6);
    assert_eq!(snapshot.repositories(None, 9).unwrap().items, [name("team/app")]);
    store.close().unwrap();
    assert!(matches!(snapshot.exists(&outside), Err(Error::Closed)));
    assert!(matches!(team.resolve(&tag("v1")), Err(Error::Closed)));
}

/// Two facts that one commit changes together never differ in a snapshot, whichever moment it is of.
#[test]
fn a_snapshot_never_sees_half_of_a_commit() {
    let store = open(&SimVfs::new());
    let app = create(&store, "team/app");
    let writer = {
        let app = app.clone();
        std::thread::spawn(move || {
            for n in 0..300 {
                let put = PutManifest::new("text/plain").references([], []).tag(tag("a")).tag(tag("b"));
                app.put_manifest(format!("document {n}"), put).unwrap();
            }
        })
    };
    let mut seen = 0;
    while !writer.is_finished() {
        let (snapshot, own) = (store.snapshot().unwrap(), app.snapshot().unwrap());
        for team in [snapshot.repository(app.name()).unwrap(), own] {
            let at = |name: &str| team.resolve(&tag(name)).ok().map(|tag| tag.digest);
            let (a, count) = (at("a"), team.manifests(None, 999).unwrap().items.len());
            std::thread::yield_now();
            assert_eq!(at("b"), a);
            assert_eq!(team.manifests(None, 999).unwrap().items.len(), count);
            seen = seen.max(count);
        }
    }
    writer.join().unwrap();
    assert!(seen > 0);
}

#[test]
fn who_waits_for_events_is_woken_by_the_next_one_and_by_no_other_commit() {
    let store = open(&SimVfs::new());
    let app = create(&store, "team/app");
    let long = Duration::from_secs(600);
    let page = store.wait_for_events(Lsn::default(), 9, long).unwrap();
    assert_eq!(page.events[0].kind, EventKind::Created);
    let none = store.wait_for_events(page.next, 9, Duration::from_millis(1)).unwrap();
    assert!(none.events.is_empty());
    let followers: Vec<_> = (0..4)
        .map(|_| {
            let (store, after) = (store.clone(), none.next);
            std::thread::spawn(move || {
                let (mut after, mut told) = (after, Vec::new());
                while told.len() < 100 {
                    let page = store.wait_for_events(after, 9, long).unwrap();
                    assert!(!page.events.is_empty());
                    told.extend(page.events);
                    after = page.next;
                }
                told.truncate(100); // a commit has several
                told
            })
        })
        .collect();
    for n in 0..100 {
        store.claim(&Digest::of(Algorithm::Sha256, b"nothing")).unwrap_err();
        app.put(format!("content {n}"), Algorithm::Sha256).unwrap();
    }
    let told: Vec<_> = followers.into_iter().map(|follower| follower.join().unwrap()).collect();
    assert!(told.iter().all(|one| *one == told[0]));

    // Closing ends the wait.
    let waiting = {
        let (store, after) = (store.clone(), store.last_lsn());
        std::thread::spawn(move || store.wait_for_events(after, 9, long))
    };
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(20));
    store.close().unwrap();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Closed)));
    assert!(began.elapsed() < long);
}
