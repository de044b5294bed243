//! Who sees what: a repository's user is told of nothing outside of it.

use std::io::Read;

use strongroom::{Algorithm, Digest, Error};

use crate::common::registry::{
    Lab, assert_sound, at, blob, create, image, index, is_gone, is_unknown, missing, name, push, push_image, tag,
    try_push,
};

/// A reader that says how much of it was taken.
struct Counted<'a>(&'a [u8], &'a mut usize);

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(into)?;
        *self.1 += read;
        Ok(read)
    }
}

#[test]
fn a_blob_of_one_repository_is_not_found_in_another_by_any_way() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let (secret, large) = (blob(&theirs, "secret"), blob(&theirs, &"secret".repeat(1000)));
    let of_the_store = store.put("of the store", Algorithm::Sha256).unwrap().digest;
    let nowhere = Digest::of(Algorithm::Sha256, b"nowhere");
    let answers = |digest: &Digest| {
        let answers = [
            ours.get(digest).map(drop),
            ours.stat(digest).map(drop),
            ours.claim(digest).map(drop),
            ours.remove_blob(digest).map(drop),
            ours.mount(digest, &name("a/ours"), |_| true).map(drop),
        ];
        assert!(answers.iter().all(is_gone), "{answers:?}");
        assert_eq!(missing(try_push(&ours, image(&[*digest], None), &[])), (vec![*digest], vec![]));
        answers.map(|answer| answer.unwrap_err().to_string().replace(&digest.to_string(), "it"))
    };
    // What exists elsewhere looks as what exists nowhere.
    let expected = answers(&nowhere);
    for digest in [secret, large, of_the_store] {
        assert_eq!(answers(&digest), expected);
    }
    assert!(ours.blobs(None, 9).unwrap().items.is_empty());
    assert_eq!(theirs.blobs(None, 9).unwrap().items.len(), 2);
    assert_eq!(theirs.get(&secret).unwrap().bytes().unwrap(), "secret");
}

#[test]
fn a_manifest_of_one_repository_is_not_found_in_another_by_any_way() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let secret = push_image(&theirs, "secret", &["v1"]);
    for reference in [at("v1"), secret.into()] {
        assert!(is_unknown(&ours.get_manifest(&reference)) && is_unknown(&ours.pull_manifest(&reference)));
        assert!(is_unknown(&ours.manifest_info(&reference)));
    }
    assert!(is_unknown(&ours.delete_manifest(&secret)) && is_unknown(&ours.untag(&tag("v1"))));
    assert!(is_unknown(&ours.tag(&tag("mine"), &secret, Default::default())) && is_unknown(&ours.resolve(&tag("v1"))));
    assert_eq!(missing(try_push(&ours, index(&[secret], None), &[])), (vec![], vec![secret]));
    assert!(ours.manifests(None, 9).unwrap().items.is_empty() && ours.tags(None, 9).unwrap().items.is_empty());
    // Not even in its own repository is a manifest a blob, whose removal would take it away.
    assert!(is_gone(&theirs.get(&secret)) && is_gone(&theirs.remove_blob(&secret)));
    assert!(is_gone(&ours.mount(&secret, theirs.name(), |_| true)));
}

#[test]
fn mounting_from_where_one_may_not_read_what_is_absent_and_where_there_is_nothing_look_the_same() {
    // pulp_container#1286: a mount that did not ask whether the source may be read.
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let secret = blob(&theirs, "secret");
    let mut asked = Vec::new();
    let denied = ours.mount(&secret, theirs.name(), |from| {
        asked.push(from.clone());
        false
    });
    assert_eq!(asked, [name("a/theirs")]);
    let no_repository = ours.mount(&secret, &name("a/nobody"), |_| true);
    theirs.remove_blob(&secret).unwrap();
    let absent = ours.mount(&secret, theirs.name(), |_| true);
    let errors = [denied, no_repository, absent].map(|answer| {
        assert!(is_gone(&answer));
        answer.unwrap_err().to_string()
    });
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
    assert!(is_gone(&ours.stat(&secret)));
}

#[test]
fn a_mounted_blob_is_stored_once_and_stays_when_its_source_goes() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let layer = theirs.put("x".repeat(5000), Algorithm::Sha512).unwrap().digest;
    ours.mount(&layer, theirs.name(), |_| true).unwrap();
    ours.mount(&layer, theirs.name(), |_| true).unwrap();
    assert_eq!(store.usage().unwrap().blobs, 1);
    theirs.remove_blob(&layer).unwrap();
    assert!(is_gone(&theirs.get(&layer)));
    assert_eq!(ours.get(&layer).unwrap().bytes().unwrap().len(), 5000);
    assert_sound(&store);
}

#[test]
fn an_upload_is_worth_nothing_in_another_repository_or_at_the_stores_level() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let content = "content".repeat(1000);
    let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
    let unknown = |answers: Vec<Result<(), Error>>| {
        let is_unknown = |answer: &Result<(), Error>| matches!(answer, Err(Error::UploadNotFound { .. }));
        assert!(answers.iter().all(is_unknown), "{answers:?}");
    };
    let id = theirs.begin_upload(Algorithm::Sha256).unwrap();
    theirs.append_upload(id, 0, &content).unwrap();
    let len = content.len() as u64;
    unknown(vec![
        ours.append_upload(id, len, "x").map(drop),
        ours.append_upload_from(id, len, &b"x"[..]).map(drop),
        ours.upload_status(id).map(drop),
        ours.commit_upload(id, digest).map(drop),
        ours.cancel_upload(id),
        store.append_upload(id, len, "x").map(drop),
        store.append_upload_from(id, len, &b"x"[..]).map(drop),
        store.upload_status(id).map(drop),
        store.commit_upload(id, digest).map(drop),
        store.cancel_upload(id),
    ]);
    assert!(ours.uploads(None, 1000).unwrap().items.is_empty() && store.uploads(None, 1000).unwrap().items.is_empty());
    assert_eq!(
        theirs.uploads(None, 1000).unwrap().items.iter().map(|upload| (upload.id, upload.offset)).collect::<Vec<_>>(),
        [(id, len)]
    );
    // Nothing of that has hurt it.
    theirs.commit_upload(id, digest).unwrap();
    assert_eq!(theirs.get(&digest).unwrap().bytes().unwrap(), content);

    let id = store.begin_upload(Algorithm::Sha256).unwrap();
    unknown(vec![ours.upload_status(id).map(drop), ours.append_upload(id, 0, "x").map(drop), ours.cancel_upload(id)]);
    assert_eq!(store.append_upload(id, 0, "x").unwrap(), 1);
}

#[test]
fn pushing_what_others_have_takes_the_whole_content_and_a_wrong_one_fails() {
    // Otherwise who knows a digest would get the content.
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    for len in [0, 100, 5000, 100_000] {
        let content = vec![b'x'; len];
        let digest = theirs.put(&content, Algorithm::Sha256).unwrap().digest;
        let mut wrong = content.clone();
        wrong.push(b'y');
        assert!(matches!(ours.put(&wrong, digest), Err(Error::DigestMismatch { .. })));
        assert!(matches!(ours.put_reader(&wrong[..], digest), Err(Error::DigestMismatch { .. })));
        let empty = ours.begin_upload(Algorithm::Sha256).unwrap();
        if len > 0 {
            assert!(matches!(ours.commit_upload(empty, digest), Err(Error::DigestMismatch { .. })));
        }
        assert!(is_gone(&ours.stat(&digest)));
        for _ in 0..2 {
            let mut taken = 0;
            ours.put_reader(Counted(&content, &mut taken), digest).unwrap();
            assert_eq!(taken, len);
        }
        assert_eq!(ours.get(&digest).unwrap().bytes().unwrap(), content);
    }
    assert_eq!(store.usage().unwrap().blobs, 4, "each is stored once");
    let manifest = push(&ours, image(&[ours.blobs(None, 1).unwrap().items[0].digest], None), &[]);
    assert_eq!(ours.get_manifest(&manifest.into()).unwrap().digest, manifest);
    assert_sound(&store);
}
