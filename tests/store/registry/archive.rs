//! The storage class of images: what can be pulled can be pulled as a whole.

use std::time::Duration;

use strongroom::registry::{EventKind, PutManifest, Repository, RepositorySettings, StorageClass};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, Digest, Error, ErrorKind, Lsn};

use crate::common::registry::{image, index, name, options, tag};

fn push(to: &Repository, (media_type, document): (&str, String)) -> Digest {
    to.put_manifest(document, PutManifest::new(media_type)).unwrap().digest
}

fn push_image(to: &Repository, layer: &str) -> Digest {
    let layer = to.put(layer, Algorithm::Sha256).unwrap().digest;
    push(to, image(&[layer], None))
}

fn class(of: &Repository, digest: Digest) -> StorageClass {
    of.manifest_info(&digest.into()).unwrap().storage_class
}

#[test]
fn an_archived_image_is_not_pulled_and_is_read_and_kept() {
    let clock = Clock::manual();
    let store = options(&SimVfs::new(), &clock).open("/store").unwrap();
    let app = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let digest = push_image(&app, "a layer");
    app.tag(&tag("v1"), &digest, Default::default()).unwrap();
    clock.advance(Duration::from_millis(50));
    app.set_storage_class(&digest, StorageClass::Archive).unwrap();
    let archived = app.manifest_info(&digest.into()).unwrap();
    clock.advance(Duration::from_millis(50));
    for reference in [tag("v1").into(), digest.into()] {
        let refused = app.pull_manifest(&reference).unwrap_err();
        assert!(matches!(refused, Error::ManifestArchived { digest: found } if found == digest));
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        assert_eq!(app.get_manifest(&reference).unwrap().digest, digest);
    }
    assert_eq!((archived.pulled_ms, archived.activated_ms), (None, None));
    assert!(archived.archived_ms > Some(archived.pushed_ms));
    let last = store.last_lsn();
    app.set_storage_class(&digest, StorageClass::Archive).unwrap();
    assert_eq!((app.manifest_info(&digest.into()).unwrap(), store.last_lsn()), (archived.clone(), last), "again");
    // A push of it is a sign that somebody wants it.
    assert_eq!(push_image(&app, "a layer"), digest);
    let restored = app.manifest_info(&digest.into()).unwrap();
    assert_eq!((restored.storage_class, restored.archived_ms), (StorageClass::Standard, archived.archived_ms));
    assert!(restored.activated_ms > archived.archived_ms && restored.pushed_ms == archived.pushed_ms);
    app.pull_manifest(&tag("v1").into()).unwrap();
    let kinds = store.events(Lsn::default(), 100).unwrap().events.into_iter().map(|event| event.kind);
    let changes = kinds.filter(|kind| matches!(kind, EventKind::StorageClassChanged { .. }));
    assert!(changes.eq(
        [StorageClass::Archive, StorageClass::Standard].map(|class| EventKind::StorageClassChanged { digest, class })
    ));
    let absent = Digest::of(Algorithm::Sha256, b"absent");
    for class in [StorageClass::Archive, StorageClass::Standard] {
        assert!(matches!(app.set_storage_class(&absent, class), Err(Error::ManifestNotFound { .. })));
    }
}

#[test]
fn an_index_is_archived_with_what_it_alone_holds_and_restored_with_all_that_it_holds() {
    let store = options(&SimVfs::new(), &Clock::manual()).open("/store").unwrap();
    let app = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let [own, shared, deep] = ["own", "shared", "deep"].map(|layer| push_image(&app, layer));
    let inner = push(&app, index(&[deep], None));
    let outer = push(&app, index(&[own, shared, inner], None));
    let other = push(&app, index(&[shared], None));
    let archived = |expected: &[Digest]| {
        for digest in [own, shared, deep, inner, outer, other] {
            assert_eq!(class(&app, digest) == StorageClass::Archive, expected.contains(&digest), "{digest}");
        }
    };
    for held in [own, inner, deep] {
        let refused = app.set_storage_class(&held, StorageClass::Archive);
        assert!(matches!(refused, Err(Error::ManifestInUse { count: 1, .. })));
    }
    app.set_storage_class(&outer, StorageClass::Archive).unwrap();
    archived(&[outer, own, inner, deep]);
    // One that comes to hold an archived one can be pulled with that.
    let third = push(&app, index(&[inner], Some(&other)));
    archived(&[outer, own]);
    app.set_storage_class(&outer, StorageClass::Standard).unwrap();
    archived(&[]);
    app.delete_manifest(&third).unwrap();
    app.set_storage_class(&other, StorageClass::Archive).unwrap();
    archived(&[other]); // the shared one can be pulled with the outer
    app.set_storage_class(&outer, StorageClass::Archive).unwrap();
    archived(&[other, outer, own, inner, deep]);
    app.delete_manifest(&outer).unwrap();
    app.set_storage_class(&inner, StorageClass::Standard).unwrap();
    assert_eq!([own, inner, deep].map(|one| class(&app, one)), {
        [StorageClass::Archive, StorageClass::Standard, StorageClass::Standard]
    });
    assert!(store.verify(|_| {}).unwrap().findings.is_empty());
}
