//! Repositories that pushes create: they go if none is completed, and stay otherwise.

use std::ops::ControlFlow;
use std::time::Duration;

use strongroom::registry::{EventKind, PutManifest, Reference, RepositoryDeletion, RepositorySettings, TagMutability};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, CollectOptions, Digest, Error, Lsn};

use super::{GONE, collect, open};
use crate::common::options;
use crate::common::registry::{Lab, assert_sound, blob, name, push_image, tag};

fn names(store: &strongroom::Store) -> Vec<String> {
    store.repositories(None, 99).unwrap().items.iter().map(ToString::to_string).collect()
}

#[test]
fn what_failed_pushes_created_goes_and_what_was_created_otherwise_stays() {
    let lab = Lab::new();
    let store = lab.open();
    let settings = RepositorySettings::new;
    store.create_repository(&name("a/created"), settings()).unwrap();
    store.ensure_repository(&name("a/ensured"), settings()).unwrap();
    for pushed in ["a/pushed", "a/pushed-and-ensured", "a/pushed-and-set", "a/pushed-and-deleted"] {
        let ours = store.create_on_push(&name(pushed), settings()).unwrap();
        let upload = ours.begin_upload(Algorithm::Sha256).unwrap();
        ours.append_upload(upload, 0, "content").unwrap();
        assert!(ours.commit_upload(upload, Digest::of(Algorithm::Sha256, b"other")).is_err());
        ours.cancel_upload(upload).unwrap();
        assert!(ours.put_manifest("{}", PutManifest::new("text/plain")).is_err());
    }
    store.ensure_repository(&name("a/pushed-and-ensured"), settings()).unwrap();
    store.repository(&name("a/pushed-and-set")).unwrap().set_settings(settings()).unwrap();
    let deleted = store.create_on_push(&name("a/pushed-and-deleted"), settings()).unwrap();
    let image = push_image(&deleted, "config", &["v1"]);
    deleted.delete_manifest(&image).unwrap();

    assert_eq!(collect(&store).repositories, 0, "a push may be under way");
    lab.advance(GONE);
    let report = collect(&store);
    assert_eq!((report.repositories, report.links), (1, 1));
    assert_eq!(
        names(&store),
        ["a/created", "a/ensured", "a/pushed-and-deleted", "a/pushed-and-ensured", "a/pushed-and-set"]
    );
    let events = store.events(Lsn::default(), usize::MAX).unwrap().events;
    let last = events.iter().rfind(|event| event.kind == EventKind::Deleted).unwrap();
    assert_eq!(last.repository().unwrap().as_str(), "a/pushed");
    assert_sound(&store);
    store.close().unwrap();
    assert_eq!(collect(&open(&lab)).repositories, 0);
}

#[test]
fn what_is_in_a_repository_keeps_it_until_that_goes() {
    let lab = Lab::new();
    let store = lab.open();
    let create = |one: &str| store.create_on_push(&name(one), RepositorySettings::new()).unwrap();
    let (blobs, uploads) = (create("a/blobs"), create("a/uploads"));
    blob(&blobs, "a layer");
    let upload = uploads.begin_upload(Algorithm::Sha256).unwrap();
    lab.advance(GONE - 50);
    uploads.append_upload(upload, 0, "content").unwrap();
    lab.advance(50);
    // The blob goes, and with it what kept its repository; the upload goes on.
    let report = collect(&store);
    assert_eq!((report.links, report.repositories, names(&store).len()), (1, 1, 1));
    // Whoever is about to push has begun an upload: the repository stays as long as that could be.
    uploads.cancel_upload(upload).unwrap();
    uploads.begin_upload(Algorithm::Sha256).unwrap();
    lab.advance(GONE / 2);
    assert_eq!(collect(&store).repositories, 0);
    lab.advance(GONE / 2 + 1);
    let report = collect(&store);
    assert_eq!((report.uploads, report.repositories, names(&store).len()), (1, 1, 0));

    // A blob that somebody claims again and again keeps its repository too.
    let blobs = store.create_on_push(&name("a/blobs"), RepositorySettings::new()).unwrap();
    let layer = blob(&blobs, "a layer");
    for _ in 0..3 {
        lab.advance(GONE / 2 + 1);
        blobs.claim(&layer).unwrap();
        assert_eq!(collect(&store).repositories, 0);
    }
    push_image(&blobs, "config", &["v1"]);
    lab.advance(3 * GONE);
    assert_eq!(collect(&store).repositories, 0);
    assert!(blobs.get_manifest(&Reference::Tag(tag("v1"))).is_ok());
    assert_sound(&store);
}

#[test]
fn who_creates_a_repository_that_a_push_left_has_it_and_with_these_settings() {
    let lab = Lab::new();
    let store = lab.open();
    let pushed = store.create_on_push(&name("a/b"), RepositorySettings::new()).unwrap();
    let layer = blob(&pushed, "a layer");
    let settings = RepositorySettings::new().mutability(TagMutability::Immutable);
    let created = store.create_repository(&name("a/b"), settings.clone()).unwrap();
    assert!(created.stat(&layer).is_ok() && pushed.stat(&layer).is_ok(), "what was pushed is there");
    let again = store.create_repository(&name("a/b"), settings.clone());
    assert!(matches!(again, Err(Error::RepositoryExists { .. })));
    lab.advance(2 * GONE);
    assert_eq!(collect(&store).repositories, 0);
    assert_eq!(store.repository(&name("a/b")).unwrap().info().unwrap().settings, settings);
    assert_sound(&store);
}

#[test]
fn who_opens_a_repository_for_a_push_has_it_for_a_while_though_nothing_comes() {
    let lab = Lab::new();
    let store = lab.open();
    store.create_on_push(&name("a/b"), RepositorySettings::new()).unwrap();
    lab.advance(GONE);
    let ours = store.create_on_push(&name("a/b"), RepositorySettings::new()).unwrap();
    assert_eq!(collect(&store).repositories, 0);
    blob(&ours, "a layer");
}

/// A collection and pushes add to each other's work without end, where what is new is due at once.
#[test]
fn a_collection_ends_though_nothing_is_kept_and_pushes_go_on() {
    let lab = Lab::new();
    let store = lab.options().retention(Duration::ZERO).open("/store").unwrap();
    let ours = store.create_on_push(&name("a/b"), RepositorySettings::new()).unwrap();
    let other = store.create_repository(&name("o/o"), RepositorySettings::new()).unwrap();
    blob(&other, "x");
    lab.advance(1);
    let mut steps = 0;
    let report = store.collect(&CollectOptions::new(), |_| {
        blob(&ours, &format!("layer {steps}"));
        steps += 1;
        lab.advance(1);
        if steps < 100 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(report.unwrap().stopped.is_none(), "{steps} steps");
}

#[test]
fn a_dry_run_counts_the_repositories_of_uploads_that_it_would_give_up() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = store.create_on_push(&name("a/b"), RepositorySettings::new()).unwrap();
    ours.begin_upload(Algorithm::Sha256).unwrap();
    lab.advance(2 * GONE);
    let dry = store.collect(&CollectOptions::new().dry_run(true), |_| ControlFlow::Continue(())).unwrap();
    let real = collect(&store);
    assert_eq!((dry.uploads, dry.repositories), (1, 1));
    assert_eq!((real.uploads, real.repositories), (1, 1));
}

#[test]
fn a_repository_that_is_collected_at_the_same_moment_is_there_for_who_wants_it() {
    let store = &options(&SimVfs::new(), &Clock::system()).retention(Duration::ZERO).open("/store").unwrap();
    let wanted = |n: usize| name(&format!("a/r{}", n % 4));
    let (push, keep) = (RepositorySettings::new, RepositorySettings::new);
    std::thread::scope(|scope| {
        let client = scope.spawn(move || {
            for n in 0..500 {
                store.create_on_push(&wanted(n), push()).unwrap();
                store.ensure_repository(&wanted(n), keep()).unwrap();
                let delete = || store.delete_repository(&wanted(n), RepositoryDeletion::WithContents);
                delete().unwrap();
                store.create_on_push(&wanted(n), push()).unwrap();
                store.create_repository(&wanted(n), keep()).unwrap();
                delete().unwrap();
            }
        });
        while !client.is_finished() {
            store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
        }
        client.join().unwrap();
    });
    assert_sound(store);
}
