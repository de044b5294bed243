//! Repositories, manifests, tags and referrers: what their users rely on, and the races that have hurt users of others.

mod archive;
mod attached;
mod awaited;
mod claims;
mod conditional;
mod documents;
mod events;
mod images;
mod indexes;
mod lifecycle;
mod referrers;
mod repositories;
mod tags;
mod times;
mod visibility;

use std::time::Duration;

use strongroom::registry::{EventKind, PutManifest, Reference, RepositoryDeletion, RepositorySettings};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, Digest, Error, Lsn};

use crate::common::registry::{image, index, name, options, tag};

#[test]
fn a_document_that_references_itself_does_not_hold_itself() {
    let store = options(&SimVfs::new(), &Clock::manual()).open("/store").unwrap();
    let repository = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let own = Digest::of(Algorithm::Sha256, b"document");
    for _ in 0..2 {
        repository.put_manifest("document", PutManifest::new("a/b").references([], [own])).unwrap();
        assert_eq!(repository.manifest_info(&own.into()).unwrap().references, 0);
        assert!(store.verify(|_| {}).unwrap().findings.is_empty());
    }
    repository.delete_manifest(&own).unwrap();
}

#[test]
fn documents_with_given_references_never_hold_each_other_in_a_circle() {
    let store = options(&SimVfs::new(), &Clock::manual()).open("/store").unwrap();
    let repository = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let put = |document: &str, manifests: &[Digest]| {
        repository.put_manifest(document, PutManifest::new("a/b").references([], manifests)).map(|pushed| pushed.digest)
    };
    let first = put("first", &[]).unwrap();
    let second = put("second", &[first]).unwrap();
    assert!(matches!(put("first", &[second]), Err(Error::InvalidManifest { .. })));
    let sparse = PutManifest::new("a/b").references([], [second]).allow_missing_manifests();
    assert!(matches!(repository.put_manifest("first", sparse), Err(Error::InvalidManifest { .. })));
    assert_eq!(put("second", &[first]).unwrap(), second, "the same again is fine");
    repository.delete_manifest(&second).unwrap();
    repository.delete_manifest(&first).unwrap();
}

#[test]
fn a_pull_that_was_not_noted_yet_is_not_told_of_a_deleted_repository_nor_of_a_manifest_pushed_again() {
    let clock = Clock::manual();
    let store = options(&SimVfs::new(), &clock).open("/store").unwrap();
    let app = name("team/app");
    let repository = store.create_repository(&app, RepositorySettings::new()).unwrap();
    let push = || repository.put_manifest("document", PutManifest::new("a/b").references([], [])).unwrap().digest;
    let digest = push();
    clock.advance(Duration::from_millis(10));
    repository.pull_manifest(&digest.into()).unwrap();
    repository.delete_manifest(&digest).unwrap();
    push();
    assert_eq!(repository.manifest_info(&digest.into()).unwrap().pulled_ms, None);
    repository.pull_manifest(&digest.into()).unwrap();
    store.delete_repository(&app, RepositoryDeletion::WithContents).unwrap();
    let last = store.events(Lsn::default(), 100).unwrap().events.pop().unwrap();
    assert_eq!(last.kind, EventKind::Deleted);
}

#[test]
fn a_push_comes_back_byte_for_byte_by_tag_and_by_digest_also_after_a_restart() {
    let (disk, clock) = (SimVfs::new(), Clock::manual());
    let store = options(&disk, &clock).open("/store").unwrap();
    let repository = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let config = repository.put("{}", Algorithm::Sha256).unwrap().digest;
    let layer = repository.put("layer", Algorithm::Sha512).unwrap().digest;
    let (media_type, document) = image(&[config, layer], None);
    let put = PutManifest::new(media_type).tag(tag("v1")).tag(tag("latest"));
    let pushed = repository.put_manifest(&document, put).unwrap();
    let (list_type, list) = index(&[pushed.digest], None);
    let listed = repository.put_manifest(&list, PutManifest::new(list_type).tag(tag("all"))).unwrap();
    store.close().unwrap();

    let store = options(&disk, &clock).open("/store").unwrap();
    let repository = store.repository(&name("team/app")).unwrap();
    for reference in ["v1".parse().unwrap(), Reference::from(pushed.digest)] {
        let manifest = repository.get_manifest(&reference).unwrap();
        assert_eq!((manifest.digest, manifest.media_type.as_str()), (pushed.digest, media_type));
        assert_eq!(manifest.content, document);
    }
    assert_eq!(repository.tags(None, 10).unwrap().items, [tag("all"), tag("latest"), tag("v1")]);
    assert_eq!(repository.tags_of(&pushed.digest).unwrap(), [tag("latest"), tag("v1")]);
    assert_eq!(repository.manifest_info(&pushed.digest.into()).unwrap().references, 1);
    assert!(matches!(repository.delete_manifest(&pushed.digest), Err(Error::ManifestInUse { count: 1, .. })));
    assert!(matches!(repository.remove_blob(&layer), Err(Error::BlobInUse { count: 1, .. })));
    repository.delete_manifest(&listed.digest).unwrap();
    repository.delete_manifest(&pushed.digest).unwrap();
    assert!(repository.tags(None, 10).unwrap().items.is_empty());
    repository.remove_blob(&layer).unwrap();
    assert!(store.verify(|_| {}).unwrap().findings.is_empty());
    let kinds: Vec<_> =
        store.events(Lsn::default(), 1000).unwrap().events.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds.first(), Some(&EventKind::Created));
    assert_eq!(kinds.last(), Some(&EventKind::BlobRemoved(layer)));
    assert!(kinds.contains(&EventKind::ManifestDeleted(listed.digest)));
}
