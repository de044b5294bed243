//! When content was stored, how long ago somebody relied on it, and how much a repository has.

use std::ops::ControlFlow;
use std::time::Duration;

use strongroom::registry::{PutManifest, RepositoryDeletion};
use strongroom::{Algorithm, CollectOptions, UploadId};

use crate::common::registry::{Lab, RETENTION, at, blob, create, image, name, push, push_document, tag};

#[test]
fn it_is_told_when_content_was_stored_and_how_long_ago_somebody_relied_on_it() {
    let lab = Lab::new();
    let store = lab.open();
    lab.advance(100);
    let digest = store.put("content", Algorithm::Blake3).unwrap().digest;
    let stat = store.stat(&digest).unwrap();
    assert_eq!((stat.stored_ms, stat.relied_on), (100_000, Some(Duration::ZERO)));
    lab.advance(RETENTION / 2);
    let stat = store.stat(&digest).unwrap();
    assert_eq!((stat.stored_ms, stat.relied_on), (100_000, Some(Duration::from_secs(RETENTION / 2))));
    assert_eq!(store.claim(&digest).unwrap(), stat, "as it was before the claim");
    assert_eq!(store.stat(&digest).unwrap().relied_on, Some(Duration::ZERO));
    assert_eq!(store.blobs().next().unwrap().unwrap(), store.stat(&digest).unwrap());
    // Content that is there is not stored again.
    store.put("content", digest).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();

    let store = lab.open();
    let stat = store.stat(&digest).unwrap();
    assert_eq!(stat.stored_ms, 100_000, "after a restart");
    // Only a repository relies on what is pushed to it.
    let repository = create(&store, "a/ours");
    let pushed = blob(&repository, "pushed");
    assert_eq!(store.stat(&pushed).unwrap().relied_on, None);
}

#[test]
fn a_repository_tells_its_own_times_and_no_others() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    lab.advance(100);
    let digest = blob(&theirs, "shared");
    lab.advance(7);
    assert_eq!(blob(&ours, "shared"), digest);
    let (own, other) = (ours.stat(&digest).unwrap(), theirs.stat(&digest).unwrap());
    assert_eq!((own.stored_ms, own.relied_on), (107_000, Duration::ZERO), "not when others pushed it");
    assert_eq!((other.stored_ms, other.relied_on), (100_000, Duration::from_secs(7)));
    assert_eq!(ours.blobs(None, 9).unwrap().items, [own]);
    // A manifest that holds it is no reason to count anew, but its deletion is.
    let manifest = push(&ours, image(&[digest], None), &[]);
    lab.advance(5);
    assert_eq!(ours.stat(&digest).unwrap().relied_on, Duration::from_secs(5));
    ours.delete_manifest(&manifest).unwrap();
    assert_eq!(ours.stat(&digest).unwrap().relied_on, Duration::ZERO);
    assert_eq!(ours.stat(&digest).unwrap().stored_ms, 107_000);
}

#[test]
fn what_is_moved_keeps_the_time_when_it_was_stored() {
    let lab = Lab::new();
    let store = lab.options().history(0).open("/store").unwrap();
    lab.advance(50);
    let all: Vec<_> =
        (0..60u64).map(|n| store.put(n.to_le_bytes().repeat(100), Algorithm::Blake3).unwrap().digest).collect();
    store.checkpoint().unwrap();
    lab.advance(50);
    all.iter().skip(1).step_by(2).for_each(|digest| store.remove(digest).map(drop).unwrap());
    store.checkpoint().unwrap();
    let report = store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(())).unwrap();
    assert!(report.moved > 0, "{report:?}");
    assert!(all.iter().step_by(2).all(|digest| store.stat(digest).unwrap().stored_ms == 50_000));
}

#[test]
fn what_a_repository_has_is_counted() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let (layer, shared) = (blob(&ours, "layer"), blob(&theirs, "shared by both"));
    ours.mount(&shared, &name("a/theirs"), |_| true).unwrap();
    let (media_type, document) = image(&[layer, shared], None);
    let put = PutManifest::new(media_type).tag(tag("v1")).tag(tag("latest"));
    ours.put_manifest(&document, put).unwrap();
    push_document(&ours, "another", &["other"]);
    push_document(&theirs, "theirs", &["v1"]);
    let upload = ours.begin_upload(Algorithm::Sha256).unwrap();
    ours.append_upload(upload, 0, "0123456789").unwrap();
    theirs.begin_upload(Algorithm::Sha256).unwrap();
    store.begin_upload(Algorithm::Sha256).unwrap();
    store.put("of nobody", Algorithm::Sha256).unwrap();
    for _ in 0..2 {
        let usage = ours.usage().unwrap();
        assert_eq!((usage.blobs, usage.blob_bytes), (2, 5 + 14));
        assert_eq!((usage.manifests, usage.manifest_bytes), (2, document.len() as u64 + 7));
        assert_eq!((usage.tags, usage.uploads, usage.upload_bytes), (3, 1, 10));
        store.checkpoint().unwrap();
    }
    ours.untag(&tag("latest")).unwrap();
    ours.cancel_upload(upload).unwrap();
    ours.delete_manifest(&ours.resolve(&tag("other")).unwrap().digest).unwrap();
    assert!(ours.get_manifest(&at("v1")).is_ok());
    let usage = ours.usage().unwrap();
    assert_eq!((usage.manifests, usage.tags, usage.uploads, usage.upload_bytes), (1, 1, 0, 0));
    store.delete_repository(ours.name(), RepositoryDeletion::WithContents).unwrap();
    assert!(ours.usage().is_err());
    assert_eq!(theirs.usage().unwrap().blobs, 1);
}

#[test]
fn uploads_are_listed_in_pages() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let mut own: Vec<_> = (0..7).map(|_| ours.begin_upload(Algorithm::Sha256).unwrap()).collect();
    let mut others: Vec<_> = (0..4).map(|_| store.begin_upload(Algorithm::Sha256).unwrap()).collect();
    own.sort_unstable();
    others.sort_unstable();
    let pages = |limit, list: &dyn Fn(Option<&UploadId>, usize) -> Vec<UploadId>| {
        let (mut found, mut pages) = (Vec::new(), 0);
        loop {
            let page = list(found.last(), limit);
            pages += 1;
            found.extend(page.iter().copied());
            if page.len() < limit {
                return (found, pages);
            }
        }
    };
    for limit in [1, 3, 7, 8] {
        let list = |after: Option<&UploadId>, limit| {
            let page = ours.uploads(after, limit).unwrap();
            let ids = page.items.iter().map(|upload| upload.id).collect::<Vec<_>>();
            assert!(page.next.is_none() || page.next == ids.last().copied(), "it says where to go on");
            let last = own.last().copied();
            assert_eq!(page.next.is_none(), ids.last().copied() == last || ids.is_empty(), "none at the end");
            ids
        };
        assert_eq!(pages(limit, &list).0, own);
        let list = |after: Option<&UploadId>, limit| {
            store.uploads(after, limit).unwrap().items.iter().map(|upload| upload.id).collect()
        };
        assert_eq!(pages(limit, &list).0, others);
    }
    assert_eq!(ours.uploads(None, 0).unwrap().items.len(), 1, "no page is without end");
}
