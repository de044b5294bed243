//! Repositories that pushes create: they go if none is completed, and stay otherwise.

use strongroom::registry::{EventKind, PutManifest, Reference, RepositorySettings};
use strongroom::{Algorithm, Digest, Lsn};

use super::{GONE, collect, open};
use crate::common::registry::{Lab, assert_sound, blob, name, push_image, tag};

fn names(store: &strongroom::Store) -> Vec<String> {
    store.repositories(None, 99).unwrap().iter().map(ToString::to_string).collect()
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
        assert!(ours.commit_upload(upload, &Digest::of(Algorithm::Sha256, b"other")).is_err());
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
    assert_eq!(last.repository.as_str(), "a/pushed");
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
