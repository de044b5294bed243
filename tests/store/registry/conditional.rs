//! What is decided about an image is done only while the image is as it was then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use strongroom::registry::{
    ConditionalAction, ImageAction, ImageChange, PutManifest, Repository, RepositorySettings, StorageClass,
};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, Digest, Error, Options, Page};

use crate::common::registry::{index, name, options, tag};
use crate::common::seed;

fn put(to: &Repository, document: &str, tags: &[&str]) -> Digest {
    let put = PutManifest::new("a/b").references([], []);
    let put = tags.iter().fold(put, |put, name| put.tag(tag(name)));
    to.put_manifest(document, put).unwrap().digest
}

/// That all images are to go.
fn decide(of: &Repository, action: ImageAction) -> Vec<ConditionalAction> {
    let images = Page::all(|after| of.image_facts(after, 2)).map(|image| image.unwrap());
    images.map(|image| ConditionalAction { digest: image.digest, expect: image.version, action }).collect()
}

fn change(result: &Result<strongroom::Lsn, Error>) -> Option<ImageChange> {
    match result {
        Err(Error::ImageChanged { change, .. }) => Some(*change),
        _ => None,
    }
}

#[test]
fn whatever_happens_to_an_image_after_the_decision_keeps_it() {
    type Happens = fn(&Repository, &Digest, &Clock);
    let cases: [(Option<ImageChange>, Happens); 9] = [
        (None, |_, _, clock| clock.advance(Duration::from_secs(5))),
        (Some(ImageChange::Pulled), |app, digest, _| drop(app.pull_manifest(&(*digest).into()).unwrap())),
        (Some(ImageChange::Pulled), |app, _, clock| {
            app.pull_manifest(&tag("v1").into()).unwrap();
            clock.advance(Duration::from_secs(60)); // it is a fact by then
            put(app, "another", &[]);
        }),
        (Some(ImageChange::Tags), |app, digest, _| {
            app.tag(&tag("v2"), digest, Default::default()).unwrap();
        }),
        (Some(ImageChange::Tags), |app, _, _| {
            app.untag(&tag("v1")).unwrap();
        }),
        (Some(ImageChange::Tags), |app, digest, _| {
            put(app, "another", &["v1"]);
            app.tag(&tag("v1"), digest, Default::default()).unwrap(); // as before, and set anew
        }),
        (Some(ImageChange::StorageClass), |app, digest, _| {
            app.set_storage_class(digest, StorageClass::Archive).unwrap();
        }),
        (Some(ImageChange::StorageClass), |app, digest, clock| {
            app.set_storage_class(digest, StorageClass::Archive).unwrap();
            clock.advance(Duration::from_millis(1));
            app.set_storage_class(digest, StorageClass::Standard).unwrap();
        }),
        (Some(ImageChange::Pushed), |app, digest, clock| {
            app.delete_manifest(digest).unwrap();
            clock.advance(Duration::from_millis(1));
            put(app, "a document", &["v1"]);
        }),
    ];
    for (number, (expected, happens)) in cases.into_iter().enumerate() {
        for action in [ImageAction::Expire, ImageAction::Archive] {
            let clock = Clock::manual();
            let store = options(&SimVfs::new(), &clock).open("/store").unwrap();
            let app = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
            let digest = put(&app, "a document", &["v1"]);
            clock.advance(Duration::from_millis(20));
            app.pull_manifest(&digest.into()).unwrap();
            clock.advance(Duration::from_millis(20));
            let decided = decide(&app, action);
            clock.advance(Duration::from_millis(20));
            happens(&app, &digest, &clock);
            let done = app.apply_if_unchanged(&decided).unwrap();
            assert_eq!((done.len(), change(&done[0])), (1, expected), "{number} {action:?} {done:?}");
            if expected.is_none() {
                let class = app.manifest_info(&digest.into()).ok().map(|info| info.storage_class);
                let is_left = (action == ImageAction::Archive).then_some(StorageClass::Archive);
                assert_eq!(class, is_left);
                assert_eq!(app.tags(None, 9).unwrap().items.len(), usize::from(is_left.is_some()));
            } else {
                app.get_manifest(&digest.into()).unwrap();
            }
            assert!(store.verify(|_| {}).unwrap().findings.is_empty());
        }
    }
}

#[test]
fn what_an_index_holds_stays_and_each_image_has_its_own_answer() {
    let store = options(&SimVfs::new(), &Clock::manual()).open("/store").unwrap();
    let app = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let (held, free, gone) = (put(&app, "held", &[]), put(&app, "free", &[]), put(&app, "gone", &[]));
    let many = put(&app, "many", &[]);
    for chunk in 0..3 {
        let plain = PutManifest::new("a/b").references([], []);
        let tagged = (0..400).fold(plain, |put, n| put.tag(tag(&format!("t-{chunk}-{n}"))));
        app.put_manifest("many", tagged).unwrap();
    }
    let (media_type, document) = index(&[held], None);
    let over = app.put_manifest(document, PutManifest::new(media_type)).unwrap().digest;
    for action in [ImageAction::Archive, ImageAction::Expire] {
        let decided = decide(&app, action);
        let of = |digest| *decided.iter().find(|one| one.digest == digest).unwrap();
        if action == ImageAction::Archive {
            let done = app.apply_if_unchanged(&[of(held), of(over), of(gone)]).unwrap();
            assert!(
                matches!(done[0], Err(Error::ManifestInUse { count: 1, .. })) && done[1].is_ok() && done[2].is_ok()
            );
            continue;
        }
        app.delete_manifest(&gone).unwrap();
        let done = app.apply_if_unchanged(&[of(held), of(free), of(many), of(gone)]).unwrap();
        assert!(matches!(done[0], Err(Error::ManifestInUse { count: 1, .. })));
        assert!(done[1].is_ok(), "{done:?}");
        assert!(matches!(done[2], Err(Error::TooLarge { limit: 1000, .. })));
        assert!(matches!(done[3], Err(Error::ManifestNotFound { .. })));
        assert!(app.apply_if_unchanged(&[of(over), of(held)]).unwrap().iter().all(Result::is_ok));
    }
    assert_eq!(app.manifests(None, 9).unwrap().items.len(), 1);
    assert!(app.apply_if_unchanged(&[]).unwrap().is_empty());
}

#[test]
fn many_images_go_in_several_commits() {
    let store = options(&SimVfs::new(), &Clock::manual()).open("/store").unwrap();
    let app = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    for n in 0..150 {
        put(&app, &format!("document {n}"), &[&format!("v{n}")]);
    }
    let before = store.last_lsn();
    let done = app.apply_if_unchanged(&decide(&app, ImageAction::Expire)).unwrap();
    assert!(done.len() == 150 && done.iter().all(Result::is_ok));
    assert_eq!(store.last_lsn().get() - before.get(), 3);
    assert_eq!(app.images(None, 9).unwrap().items, []);
    assert_eq!(app.tags(None, 9).unwrap().items, []);
}

/// Of pulls and expirations at the same time, each pull that was answered before an expiration was asked for keeps the
/// image; and none that is answered leaves its client without what it was told of.
#[test]
fn a_pull_that_was_answered_before_keeps_the_image_and_a_later_one_loses_cleanly() {
    let seed = seed(11);
    let dir = tempfile::tempdir().unwrap();
    let store = Options::new().create(true).open(dir.path().join("store")).unwrap();
    let app = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    for round in 0..60 {
        let layer = format!("layer {seed} {round}");
        let blob = app.put(&layer, Algorithm::Sha256).unwrap().digest;
        let document = format!("document {round}");
        let digest = app.put_manifest(&document, PutManifest::new("a/b").references([blob], [])).unwrap().digest;
        let decided: Vec<_> =
            decide(&app, ImageAction::Expire).into_iter().filter(|one| one.digest == digest).collect();
        let answered = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let pull = scope.spawn(|| {
                let pulled = app.pull_manifest(&digest.into());
                answered.store(true, Ordering::SeqCst);
                match pulled {
                    Ok(manifest) => {
                        assert_eq!(manifest.content, document);
                        assert_eq!(app.get(&blob).unwrap().bytes().unwrap(), layer, "its layers are there");
                        true
                    }
                    Err(Error::ManifestNotFound { .. }) => false,
                    Err(error) => panic!("{error}"),
                }
            });
            if round % 3 == 0 {
                std::thread::yield_now();
            }
            let was_answered = answered.load(Ordering::SeqCst);
            let done = app.apply_if_unchanged(&decided).unwrap().remove(0);
            let is_pulled = pull.join().unwrap();
            assert!(!(was_answered && is_pulled && done.is_ok()), "it was pulled before");
            assert_eq!(app.get_manifest(&digest.into()).is_ok(), done.is_err());
        });
    }
}
