//! Manifests of which blobs are missing: a pull-through cache stores the manifest first.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use strongroom::registry::{Pushed, PutManifest, Repository, RepositoryDeletion};
use strongroom::{Algorithm, CollectOptions, Digest, Error, Result};

use crate::common::registry::{Lab, blob, create, image, name, tag};

fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn put(repository: &Repository, blobs: &[Digest]) -> Result<Pushed> {
    let (media_type, document) = image(blobs, None);
    let put = PutManifest::new(media_type).tag(tag("v1"));
    repository.put_manifest(document, put.allow_missing_blobs())
}

#[test]
fn what_arrives_later_is_held_from_then_on() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let blobs = ["config", "one", "two"].map(digest);
    blob(&ours, "one");
    let pushed = put(&ours, &blobs).unwrap();
    assert_eq!(ours.stat(&blobs[1]).unwrap().references, 1);
    assert!(matches!(ours.get(&blobs[0]), Err(Error::BlobNotFound { .. })));
    // Others reference it too, and one of them goes before it arrives.
    let (media_type, document) = image(&[digest("config"), digest("two")], None);
    let second = ours.put_manifest(document, PutManifest::new(media_type).allow_missing_blobs()).unwrap().digest;
    let third = PutManifest::new("text/plain").references([digest("two")], []).allow_missing_blobs();
    let third = ours.put_manifest("third", third).unwrap().digest;
    ours.delete_manifest(&third).unwrap();

    assert_eq!(blob(&ours, "two"), blobs[2]);
    assert_eq!(ours.stat(&blobs[2]).unwrap().references, 2);
    let theirs = create(&store, "a/theirs");
    blob(&theirs, "config");
    assert!(!ours.mount(&blobs[0], &name("a/theirs"), |_| true).unwrap().existed);
    assert_eq!(ours.stat(&blobs[0]).unwrap().references, 2);
    store.delete_repository(&name("a/theirs"), RepositoryDeletion::WithContents).unwrap();

    lab.advance(1_000_000);
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert!(ours.stat_many(&blobs).unwrap().iter().all(Option::is_some), "no collection takes what is held");
    assert!(matches!(ours.remove_blob(&blobs[0]), Err(Error::BlobInUse { count: 2, .. })));
    // Complete, it can be pushed as any other.
    let (media_type, document) = image(&blobs, None);
    assert!(ours.put_manifest(document, PutManifest::new(media_type)).unwrap().existed);
    ours.delete_manifest(&second).unwrap();
    ours.delete_manifest(&pushed.digest).unwrap();
    lab.advance(1_000_000);
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert!(ours.stat_many(&blobs).unwrap().iter().all(Option::is_none), "nor does anything hold it after that");
    assert!(store.verify(|_| ()).unwrap().findings.is_empty());
}

#[test]
fn without_leave_a_manifest_with_missing_blobs_is_refused_also_where_it_is_there() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let blobs = ["config", "one"].map(digest);
    put(&ours, &blobs).unwrap();
    let strict = || {
        let (media_type, document) = image(&blobs, None);
        ours.put_manifest(document, PutManifest::new(media_type))
    };
    let Err(Error::ReferencesMissing { blobs: missing, .. }) = strict() else { panic!() };
    assert_eq!(BTreeSet::from_iter(missing), BTreeSet::from(blobs));
    blob(&ours, "one");
    assert!(matches!(strict(), Err(Error::ReferencesMissing { blobs: missing, .. }) if missing == blobs[..1]));
    blob(&ours, "config");
    strict().unwrap();
}

#[test]
fn digests_of_nothing_that_are_nearly_alike_do_not_take_each_others_place() {
    let lab = Lab::new();
    let mut store = lab.open();
    let ours = create(&store, "a/ours");
    let layer = digest("layer");
    let text = layer.to_string();
    let (head, last) = text.split_at(text.len() - 1);
    let twin: Digest = format!("{head}{}", if last == "0" { '1' } else { '0' }).parse().unwrap();
    let other: Digest = text.replace("sha256", "blake3").parse().unwrap();
    let wait = |content: &str, references: &[Digest]| {
        let put = PutManifest::new("text/plain").references(references, []).allow_missing_blobs();
        ours.put_manifest(content, put).unwrap().digest
    };
    let documents = [wait("victim", &[layer]), wait("twin", &[twin]), wait("all", &[layer, twin, other])];
    blob(&ours, "layer");
    assert_eq!(ours.stat(&layer).unwrap().references, 2);
    assert!([twin, other].iter().all(|digest| ours.stat(digest).is_err()));
    // The same for manifests.
    let sparse = |content: &str, references: &[Digest]| {
        let put = PutManifest::new("text/plain").references([], references).allow_missing_manifests();
        ours.put_manifest(content, put).unwrap().digest
    };
    let indexes = [sparse("index", &[layer]), sparse("indexes", &[twin, layer, other])];
    ours.put_manifest("layer", PutManifest::new("text/plain").references([], [])).unwrap();
    assert_eq!(ours.manifest_info(&layer.into()).unwrap().references, 2);

    lab.advance(1_000_000);
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    drop(ours);
    let report = store.repair(|_| ControlFlow::Continue(())).unwrap();
    assert!(report.mended == 0 && report.left.is_sound(), "{report:?}");
    let ours = store.repository(&name("a/ours")).unwrap();
    assert!(ours.get(&layer).is_ok());
    for digest in documents.into_iter().chain(indexes).chain([layer]) {
        ours.delete_manifest(&digest).unwrap();
    }
    lab.advance(1_000_000);
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(store.usage().unwrap().blobs, 0);
    assert!(store.verify(|_| ()).unwrap().findings.is_empty());
}

#[test]
fn it_goes_with_its_repository_and_is_repaired() {
    let lab = Lab::new();
    let mut store = lab.open();
    let ours = create(&store, "a/ours");
    for n in 0..600 {
        let put = PutManifest::new("text/plain").references([digest(&n.to_string()), digest("all")], []);
        ours.put_manifest(format!("document {n}"), put.allow_missing_blobs()).unwrap();
    }
    drop(ours);
    let report = store.repair(|_| ControlFlow::Continue(())).unwrap();
    assert!(report.mended == 0 && report.left.is_sound(), "{report:?}");
    let ours = store.repository(&name("a/ours")).unwrap();
    blob(&ours, "all");
    assert_eq!(ours.stat(&digest("all")).unwrap().references, 600);
    store.delete_repository(&name("a/ours"), RepositoryDeletion::WithContents).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    let store = lab.open();
    lab.advance(1_000_000);
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(store.usage().unwrap().blobs, 0);
    assert!(store.verify(|_| ()).unwrap().findings.is_empty());
}
