//! Indexes hold their children, and children what they reference: nothing goes from under what is there.

use strongroom::registry::{ExpectTag, PutManifest, Reference};
use strongroom::{Algorithm, Digest, Error};

use crate::common::registry::{
    IMAGE, Lab, assert_sound, at, blob, create, image, index, is_gone, is_unknown, missing, push, push_document,
    push_image, tag, try_push,
};

fn in_use(result: Result<(), Error>) -> u32 {
    match result {
        Err(Error::ManifestInUse { count, .. } | Error::BlobInUse { count, .. }) => count,
        other => panic!("{other:?}"),
    }
}

#[test]
fn neither_a_child_nor_a_blob_can_be_deleted_from_under_what_references_it() {
    // distribution#3178: untagged children of multi-platform images were deleted, and the images with them.
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let (config, layer) = (blob(&ours, "config"), blob(&ours, "layer"));
    let child = push(&ours, image(&[config, layer], None), &["child"]);
    let parent = push(&ours, index(&[child], None), &["parent"]);
    ours.untag(&tag("child")).unwrap();
    assert_eq!(in_use(ours.delete_manifest(&child).map(drop)), 1);
    assert_eq!((in_use(ours.remove_blob(&layer).map(drop)), in_use(ours.remove_blob(&config).map(drop))), (1, 1));
    assert_eq!(in_use(store.remove(&layer).map(drop)), 1);
    assert_eq!(in_use(store.remove(&child).map(drop)), 1, "not at the store's level either");
    lab.advance(1 << 20);
    assert_eq!(store.expire_blobs().unwrap(), 0);
    ours.delete_manifest(&parent).unwrap();
    assert!(ours.get_manifest(&child.into()).is_ok(), "deleting an index leaves its children");
    ours.delete_manifest(&child).unwrap();
    ours.remove_blob(&layer).unwrap();
    assert!(is_gone(&ours.get(&layer)));
    assert_sound(&store);
}

#[test]
fn nested_indexes_are_held_whatever_is_untagged() {
    // zot#2624: a nested index went with its tag, although another index held it.
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let mut chain = vec![push_image(&ours, "image", &["0"])];
    for n in 1..=4 {
        chain.push(push(&ours, index(&[chain[n - 1]], None), &[&n.to_string()]));
    }
    (0..4).for_each(|n| {
        ours.untag(&tag(&n.to_string())).unwrap();
    });
    assert_eq!(ours.tags(None, 9).unwrap().items, [tag("4")]);
    for held in &chain[..4] {
        assert_eq!(in_use(ours.delete_manifest(held).map(drop)), 1);
        assert!(ours.get_manifest(&held.into()).is_ok());
    }
    assert!(chain.iter().rev().all(|digest| ours.delete_manifest(digest).is_ok()), "from the outside in");
    assert!(ours.manifests(None, 9).unwrap().items.is_empty());
    assert_sound(&store);
}

#[test]
fn an_index_with_a_subject_holds_its_children_and_not_its_subject() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let (subject, child) = (push_image(&ours, "subject", &[]), push_image(&ours, "child", &[]));
    let parent = push(&ours, index(&[child], Some(&subject)), &[]);
    assert_eq!(in_use(ours.delete_manifest(&child).map(drop)), 1);
    ours.delete_manifest(&subject).unwrap();
    assert_eq!(in_use(ours.delete_manifest(&child).map(drop)), 1);
    assert_eq!(ours.referrers(&subject, None, None, 9).unwrap().items[0].digest, parent);
    ours.delete_manifest(&parent).unwrap();
    ours.delete_manifest(&child).unwrap();
    assert_sound(&store);
}

#[test]
fn a_child_of_two_indexes_goes_when_neither_holds_it() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let [shared, other] = ["shared", "other"].map(|content| push_image(&ours, content, &[]));
    let parents = [index(&[shared], None), index(&[shared, other], None)].map(|document| push(&ours, document, &[]));
    for left in [2, 1] {
        assert_eq!(ours.manifest_info(&shared.into()).unwrap().references, left);
        assert_eq!(in_use(ours.delete_manifest(&shared).map(drop)), left);
        ours.delete_manifest(&parents[left as usize - 1]).unwrap();
    }
    ours.delete_manifest(&shared).unwrap();
    assert_eq!(ours.manifest_info(&other.into()).unwrap().references, 0);
    assert_sound(&store);
}

#[test]
fn counts_are_of_manifests_and_say_so_however_often_they_are_pushed() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let (config, layer) = (blob(&ours, "config"), blob(&ours, "layer"));
    let references = |digest: &Digest| ours.stat(digest).unwrap().references;
    let images = [image(&[config, layer, layer], None), image(&[config, config], None)];
    for _ in 0..3 {
        assert!(images.iter().all(|image| try_push(&ours, image.clone(), &["v1"]).is_ok()));
        assert_eq!((references(&config), references(&layer)), (2, 1));
    }
    let digests: Vec<_> = ours.manifests(None, 9).unwrap().items.iter().map(|manifest| manifest.digest).collect();
    let (media_type, document) = index(&[digests[0], digests[1], digests[0]], None);
    for _ in 0..3 {
        push(&ours, (media_type, document.clone()), &[]);
        assert!(digests.iter().all(|digest| ours.manifest_info(&digest.into()).unwrap().references == 1));
    }
    assert_eq!(ours.claim(&config).unwrap().references, 2);
    assert_eq!(ours.blobs(None, 9).unwrap().items.iter().map(|blob| blob.references).sum::<u32>(), 3);
    // A blob that is a manifest too is counted apart as the one and as the other.
    let as_blob = blob(&ours, &document);
    assert_eq!(references(&as_blob), 0);
    ours.remove_blob(&as_blob).unwrap();
    assert!(ours.get_manifest(&as_blob.into()).is_ok());
    assert_sound(&store);
}

#[test]
fn an_index_and_what_it_holds_are_deleted_in_one_step_in_any_order() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    for turn in 0..3 {
        let mut chain = vec![push_image(&ours, "image", &["image"])];
        (0..5).for_each(|n| chain.push(push(&ours, index(&[chain[n]], None), &[])));
        let kept = push_image(&ours, "kept", &["kept"]);
        let holder = push(&ours, index(&[kept], None), &[]);
        let absent = Digest::of(Algorithm::Sha256, b"absent");
        let mut references: Vec<Reference> = chain.iter().map(Reference::from).collect();
        match turn {
            0 => {}
            1 => references.reverse(),
            _ => references.rotate_left(3),
        }
        references.extend([kept.into(), absent.into(), at("kept"), at("none")]);
        let before = store.last_lsn();
        let results = ours.delete_batch(&references).unwrap();
        assert_eq!(store.last_lsn().get(), before.get() + 1, "one step");
        assert!(results[..6].iter().all(Result::is_ok), "{results:?}");
        assert!(matches!(results[6], Err(Error::ManifestInUse { digest, count: 1 }) if digest == kept));
        assert!(is_unknown(&results[7]) && results[8].is_ok() && is_unknown(&results[9]));
        assert!(ours.tags(None, 9).unwrap().items.is_empty());
        assert_eq!(ours.manifests(None, 99).unwrap().items.len(), 2);
        let left: Vec<Reference> = vec![kept.into(), holder.into(), kept.into()];
        let results = ours.delete_batch(&left).unwrap();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2, "{results:?}");
        assert_sound(&store);
    }
    assert!(matches!(ours.delete_batch(&vec![at("x"); 1001]), Err(Error::TooLarge { limit: 1000, .. })));
    assert!(ours.delete_batch(&[]).unwrap().is_empty());
}

#[test]
fn a_long_chain_of_indexes_is_deleted_from_the_wrong_end() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let mut chain = vec![push_image(&ours, "image", &[])];
    (0..300).for_each(|n| chain.push(push(&ours, index(&[chain[n]], None), &[])));
    let references: Vec<_> = chain.iter().map(Reference::from).collect();
    assert!(ours.delete_batch(&references).unwrap().iter().all(Result::is_ok));
    assert!(ours.manifests(None, 9).unwrap().items.is_empty());
    assert_sound(&store);
}

#[test]
fn untagging_deletes_nothing_and_an_untagged_manifest_stays() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let layer = blob(&ours, "layer");
    let manifest = push(&ours, image(&[layer], None), &["a", "b"]);
    ours.delete_batch(&[at("a"), at("b")]).unwrap().into_iter().for_each(|done| {
        done.unwrap();
    });
    let other = push_image(&ours, "other", &["c"]);
    ours.tag(&tag("c"), &manifest, ExpectTag::Is(other)).unwrap();
    ours.untag(&tag("c")).unwrap();
    lab.advance(1 << 20);
    store.expire_blobs().unwrap();
    for digest in [manifest, other] {
        assert!(ours.get_manifest(&digest.into()).is_ok() && ours.tags_of(&digest).unwrap().is_empty());
    }
    assert_eq!(ours.get(&layer).unwrap().bytes().unwrap(), "layer");
}

#[test]
fn a_sparse_index_holds_what_is_there_and_the_rest_when_it_arrives() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let there = push_image(&ours, "there", &[]);
    let later = push_image(&ours, "later", &[]);
    ours.delete_manifest(&later).unwrap();
    let (media_type, document) = index(&[there, later], None);
    let strict = || ours.put_manifest(&document, PutManifest::new(media_type));
    let sparse = || ours.put_manifest(&document, PutManifest::new(media_type).allow_missing_manifests());
    assert_eq!(missing(strict()), (vec![], vec![later]));
    let parent = sparse().unwrap().digest;
    assert_eq!(in_use(ours.delete_manifest(&there).map(drop)), 1);
    // Pushed again before that: it is still not whole.
    assert_eq!(sparse().unwrap().digest, parent);
    assert_eq!(missing(strict()), (vec![], vec![later]));
    // Another index that waits goes before it arrives.
    let (other_type, other) = index(&[later], Some(&parent));
    let other = ours.put_manifest(other, PutManifest::new(other_type).allow_missing_manifests()).unwrap().digest;
    ours.delete_manifest(&other).unwrap();
    push_image(&ours, "later", &[]);
    assert_eq!(ours.manifest_info(&later.into()).unwrap().references, 1);
    assert_eq!(strict().unwrap().digest, parent);
    for digest in [there, later] {
        assert_eq!(ours.manifest_info(&digest.into()).unwrap().references, 1);
        assert_eq!(in_use(ours.delete_manifest(&digest).map(drop)), 1);
    }
    ours.delete_manifest(&parent).unwrap();
    assert!([there, later].iter().all(|digest| ours.delete_manifest(digest).is_ok()));
    // Blobs may not be absent because manifests may.
    let absent = Digest::of(Algorithm::Sha256, b"absent");
    let (media_type, document) = image(&[absent], None);
    let put = PutManifest::new(media_type).allow_missing_manifests();
    assert_eq!(missing(ours.put_manifest(document, put)), (vec![absent], vec![]));
    assert_sound(&store);
}

#[test]
fn manifests_that_would_hold_each_other_are_refused_since_nobody_could_delete_them() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let [a, b, c] = ["a", "b", "c"].map(|content| push_document(&ours, content, &[]));
    let refer = |content: &str, to: &[Digest]| {
        let put = PutManifest::new("text/plain").references([], to).allow_missing_manifests();
        ours.put_manifest(content, put)
    };
    let refused = |result: Result<_, Error>| matches!(result.map(drop), Err(Error::InvalidManifest { .. }));
    refer("a", &[a]).unwrap(); // itself, which it does not hold
    refer("b", &[c]).unwrap();
    refer("a", &[b]).unwrap();
    assert!(refused(refer("b", &[a])) && refused(refer("c", &[a])) && refused(refer("c", &[b])));
    // An index waits for its child, which claims to reference it.
    let child = Digest::of(Algorithm::Sha256, b"child");
    let (media_type, document) = index(&[child], None);
    let parent = ours.put_manifest(&document, PutManifest::new(media_type).allow_missing_manifests()).unwrap().digest;
    assert!(refused(refer("child", &[parent])));
    refer("child", &[]).unwrap();
    assert!(refused(refer("child", &[parent])));
    // What is held may come to hold what holds nothing, and then that nothing that holds it.
    let d = push_document(&ours, "d", &[]);
    refer("c", &[d]).unwrap();
    assert!([a, b, c].iter().all(|above| refused(refer("d", &[*above]))));
    // From the root on, whatever is missing: each is waited for before it is there.
    let [e, f, g] = ["e", "f", "g"].map(|content| Digest::of(Algorithm::Sha256, content.as_bytes()));
    refer("e", &[f]).unwrap();
    refer("f", &[g, a]).unwrap_err();
    refer("f", &[g]).unwrap();
    assert!(refused(refer("g", &[e])) && refused(refer("g", &[f])));
    refer("g", &[d]).unwrap();
    for digest in [a, b, c, e, f, g, d, parent, child] {
        ours.delete_manifest(&digest).unwrap();
    }
    assert_sound(&store);
}

#[test]
fn an_index_of_layers_as_build_caches_are_holds_them() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let layer = ours.put("layer", Algorithm::Sha256).unwrap().digest;
    let (media_type, document) = index(&[layer], None);
    let as_manifest = ours.put_manifest(&document, PutManifest::new(media_type));
    assert_eq!(missing(as_manifest), (vec![], vec![layer]), "a blob is no manifest where a manifest is listed");
    let document =
        document.replace(&format!(r#"{{"mediaType":"{IMAGE}""#), r#"{"mediaType":"application/vnd.x.layer""#);
    let cache = ours.put_manifest(&document, PutManifest::new(media_type)).unwrap().digest;
    assert!(matches!(ours.remove_blob(&layer), Err(Error::BlobInUse { count: 1, .. })));
    ours.put_manifest(&document, PutManifest::new(media_type)).unwrap();
    ours.delete_manifest(&cache).unwrap();
    ours.remove_blob(&layer).unwrap();
    assert_sound(&store);
}

#[test]
fn children_of_another_repository_are_no_children() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let child = push_image(&theirs, "child", &[]);
    assert_eq!(missing(try_push(&ours, index(&[child], None), &[])), (vec![], vec![child]));
    // Held there, it can still be deleted here, where nothing holds it.
    push(&theirs, index(&[child], None), &[]);
    push_image(&ours, "child", &[]);
    ours.delete_manifest(&child).unwrap();
    assert!(is_unknown(&ours.get_manifest(&child.into())) && theirs.get_manifest(&child.into()).is_ok());
    assert_sound(&store);
}
