//! Tags: they move in one step, stay where they may not move, and are listed in order.

use std::collections::BTreeSet;
use std::ops::Bound;

use strongroom::registry::{ExpectTag, PutManifest, Reference, Repository, RepositorySettings, TagMutability};
use strongroom::{Algorithm, Clock, Digest, Error, Maintenance, Options};

use crate::common::registry::{
    IMAGE, Lab, assert_sound, blob, create, image, is_unknown, name, push, push_document, push_image, tag,
};
use crate::common::{Random, seed};

/// All tags, read in pages.
fn listed(repository: &Repository, limit: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let page = repository.tags(all.last().map(String::as_str), limit).unwrap().items;
        assert!(page.len() <= limit);
        all.extend(page.iter().map(ToString::to_string));
        if page.len() < limit {
            return all;
        }
    }
}

#[test]
fn a_tag_moves_only_from_where_it_was_expected() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let [a, b] = ["a", "b"].map(|content| push_image(&ours, content, &[]));
    let latest = tag("latest");
    let found = |result: Result<(), Error>| match result {
        Err(Error::TagMoved { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(found(ours.tag(&latest, &a, ExpectTag::Is(b)).map(drop)), None);
    ours.tag(&latest, &a, ExpectTag::Absent).unwrap();
    assert_eq!(found(ours.tag(&latest, &a, ExpectTag::Absent).map(drop)), Some(a));
    assert_eq!(found(ours.tag(&latest, &b, ExpectTag::Is(b)).map(drop)), Some(a));
    ours.tag(&latest, &b, ExpectTag::Is(a)).unwrap();
    assert_eq!((ours.tags_of(&a).unwrap(), ours.tags_of(&b).unwrap()), (vec![], vec![latest.clone()]));
    // A push whose tag has moved stores nothing, under none of its tags.
    let before = store.last_lsn();
    let (media_type, document) = image(&[blob(&ours, "a")], Some(&a));
    let put = PutManifest::new(media_type).tag(tag("new")).tag(latest.clone()).expect_tag(ExpectTag::Absent);
    assert_eq!(found(ours.put_manifest(document, put).map(drop)), Some(b));
    assert_eq!((store.last_lsn(), listed(&ours, 9)), (before, vec!["latest".to_owned()]));
    assert!(ours.referrers(&a, None, None, 9).unwrap().items.is_empty());
    assert_sound(&store);
}

#[test]
fn an_immutable_tag_stays_except_where_it_is_excluded_and_the_other_way_round() {
    let lab = Lab::new();
    let store = lab.open();
    for mutability in [TagMutability::Immutable, TagMutability::Mutable] {
        let filters = ["latest", "dev-*"].map(|filter| filter.parse().unwrap());
        let settings = RepositorySettings::new().mutability(mutability).exclusions(filters).unwrap();
        let repository = name(&format!("a/{mutability:?}").to_lowercase());
        let ours = store.create_repository(&repository, settings.clone()).unwrap();
        assert_eq!(ours.info().unwrap().settings, settings);
        let (immutable, mutable): (Vec<_>, Vec<_>) = ["v1", "latest", "dev-1", "dev-", "latest2", "xdev-1"]
            .into_iter()
            .partition(|name| settings.is_immutable(&tag(name)));
        assert_eq!(immutable.len(), 3);
        let [a, b] = ["a", "b"].map(|content| push_image(&ours, content, &[]));
        let move_to = |name: &str, digest| ours.tag(&tag(name), digest, ExpectTag::Any);
        for name in mutable {
            move_to(name, &a).unwrap();
            move_to(name, &b).unwrap();
        }
        for name in immutable {
            move_to(name, &a).unwrap();
            for expect in [ExpectTag::Any, ExpectTag::Is(a)] {
                let refused = ours.tag(&tag(name), &b, expect);
                assert!(matches!(&refused, Err(Error::TagImmutable { digest, .. }) if *digest == a), "{refused:?}");
            }
            let (media_type, document) = image(&[blob(&ours, "c")], None);
            let put = PutManifest::new(media_type).tag(tag("other")).tag(tag(name));
            assert!(matches!(ours.put_manifest(&document, put), Err(Error::TagImmutable { .. })));
            assert!(is_unknown(&ours.resolve(&tag("other"))), "all or nothing");
            // The same again is no move. (harbor#22543 and others: a retried push must succeed.)
            move_to(name, &a).unwrap();
            push_image(&ours, "a", &[name]);
            // It can be deleted, by itself or with its manifest, and then be set again.
            ours.untag(&tag(name)).unwrap();
            move_to(name, &b).unwrap();
            ours.delete_manifest(&b).unwrap();
            move_to(name, &a).unwrap();
            push_image(&ours, "b", &[]);
        }
        ours.set_settings(RepositorySettings::new()).unwrap();
        move_to("v1", &b).unwrap();
    }
    let many = vec!["a".parse().unwrap(); 6];
    assert!(matches!(RepositorySettings::new().exclusions(many), Err(Error::TooLarge { limit: 5, .. })));
    assert_sound(&store);
}

#[test]
fn tags_that_begin_alike_and_tags_of_any_length_are_each_their_own() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let longest = "z".repeat(128);
    let mut names: Vec<String> =
        ["a", "a-", "a.", "a.b", "a_", "aa", "A", "_", "0", "a-b", "a.b.c", "Z", "zz"].map(String::from).to_vec();
    names.extend([longest.clone(), longest[..127].to_owned(), format!("{}y", &longest[..127]), "_".repeat(128)]);
    let digests: Vec<_> = names.iter().map(|name| push_document(&ours, name, &[name])).collect();
    for (name, digest) in names.iter().zip(&digests) {
        assert_eq!(ours.resolve(&tag(name)).unwrap().digest, *digest);
        assert_eq!(ours.tags_of(digest).unwrap(), [tag(name)]);
    }
    names.sort_unstable();
    for limit in [1, 2, 3, 100] {
        assert_eq!(listed(&ours, limit), names);
    }
    assert_eq!(ours.tags(None, 0).unwrap().items.len(), 1, "0 counts as 1");
    assert_eq!(ours.tags(Some("a"), 3).unwrap().items, ["a-", "a-b", "a."].map(tag));
    assert_eq!(ours.tags(Some("a+"), 1).unwrap().items, [tag("a-")], "a place where there is none");
    assert!(
        ours.tags(Some("\u{10ffff}"), 9).unwrap().items.is_empty()
            && ours.tags(Some(&longest), 9).unwrap().items.is_empty()
    );
    ours.untag(&tag("a")).unwrap();
    assert!(is_unknown(&ours.resolve(&tag("a"))) && ours.resolve(&tag("a-")).is_ok());
    assert!(ours.tag(&tag("t"), &digests[0], ExpectTag::Any).is_ok());
    assert_sound(&store);
}

#[test]
fn tags_do_not_leak_into_the_pages_of_neighbours() {
    let lab = Lab::new();
    let store = lab.open();
    let repositories: Vec<_> = ["b/b", "a/a", "a/b", "c/c"].map(|name| create(&store, name)).into();
    for (number, repository) in repositories.iter().enumerate().filter(|(number, _)| number % 2 == 0) {
        for n in 0..30 {
            push_document(repository, &n.to_string(), &[&format!("t{number}-{n:02}"), "same"]);
        }
    }
    for (number, repository) in repositories.iter().enumerate() {
        let own = |tag: &String| tag == "same" || tag.starts_with(&format!("t{number}-"));
        for limit in [1, 7, 31, 1000, usize::MAX] {
            let all = listed(repository, limit);
            assert!(all.iter().all(own), "{all:?}");
            assert_eq!(all.len(), if number % 2 == 0 { 31 } else { 0 });
        }
        assert!(repository.tags(Some("z"), 9).unwrap().items.is_empty());
    }
}

#[test]
fn a_manifest_is_deleted_with_all_of_its_tags_however_many() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let manifest = push_document(&ours, "x", &[]);
    let tags: Vec<_> = (0..12_000).map(|n| tag(&format!("{n:0>100}"))).collect();
    for some in tags.chunks(1000) {
        let put = PutManifest::new("text/plain").references([], []);
        let put = some.iter().fold(put, |put, tag| put.tag(tag.clone()));
        ours.put_manifest("x", put).unwrap();
    }
    let too_many = tags[..1001].iter().fold(PutManifest::new(IMAGE), |put, tag| put.tag(tag.clone()));
    assert!(matches!(ours.put_manifest("{}", too_many), Err(Error::TooLarge { limit: 1000, .. })));
    assert_eq!(ours.tags_of(&manifest).unwrap(), tags);
    ours.delete_manifest(&manifest).unwrap();
    assert!(ours.tags(None, 9).unwrap().items.is_empty());
    assert!(tags.iter().all(|tag| is_unknown(&ours.resolve(tag))));
    assert_sound(&store);
}

#[test]
fn what_is_too_much_for_one_step_is_deleted_in_several_whatever_its_order() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    // With their tags they are too many for a step.
    let manifests: Vec<Digest> = (0..12)
        .map(|n| {
            let put = PutManifest::new("text/plain").references([], []);
            let put = (0..900).fold(put, |put, tag_number| put.tag(tag(&format!("{n}-{tag_number}"))));
            ours.put_manifest(format!("manifest {n}"), put).unwrap().digest
        })
        .collect();
    let held = push_document(&ours, "held by another one", &[]);
    let put = PutManifest::new("text/plain").references([], [held]);
    ours.put_manifest("holds", put).unwrap();
    let put = PutManifest::new("text/plain").references([], manifests.as_slice());
    let over = ours.put_manifest("over all of them", put).unwrap().digest;

    let missing = Digest::of(Algorithm::Sha256, b"nowhere");
    let batch: Vec<Reference> = manifests.iter().chain([&missing, &held, &over]).map(|one| (*one).into()).collect();
    let results = ours.delete_batch(&batch).unwrap();
    let (done, [of_missing, of_held, of_over]) = results.split_at(12) else { panic!("15 results") };
    assert!(done.iter().chain([of_over]).all(Result::is_ok), "{results:?}");
    assert!(matches!(of_missing, Err(Error::ManifestNotFound { .. })));
    assert!(matches!(of_held, Err(Error::ManifestInUse { count: 1, .. })));
    assert!(ours.tags(None, 9).unwrap().items.is_empty());
    assert_eq!(ours.manifests(None, 9).unwrap().items.len(), 2);
    assert_sound(&store);
}

/// Compares pages with a sorted set, while tags come and go.
fn wander(repository: &Repository, model: &mut BTreeSet<String>, random: &mut Random, steps: usize) {
    let digest = push_document(repository, "wander", &[]);
    for _ in 0..steps {
        let drawn = random.next();
        let name = ["", "-", ".x", "_"][random.below(4) as usize];
        let name = format!("t{}{name}", drawn % 300);
        match random.below(5) {
            0 | 1 => assert_eq!(repository.untag(&tag(&name)).is_ok(), model.remove(&name)),
            2 => {
                let expected = model.range::<str, _>((Bound::Excluded(name.as_str()), Bound::Unbounded));
                let limit = 1 + random.below(20) as usize;
                let page = repository.tags(Some(&name), limit).unwrap().items;
                assert!(page.iter().map(|tag| tag.as_str()).eq(expected.take(limit).map(String::as_str)), "{page:?}");
            }
            _ => {
                repository.tag(&tag(&name), &digest, ExpectTag::Any).unwrap();
                model.insert(name);
            }
        }
    }
    assert!(listed(repository, 13).into_iter().eq(model.iter().cloned()));
}

#[test]
fn pages_equal_a_sorted_set_also_while_the_names_are_rebuilt() {
    let mut random = Random(seed(7));
    let dir = tempfile::tempdir().unwrap();
    let mut models: [BTreeSet<String>; 3] = Default::default();
    let repositories = ["a/a", "a/b", "a/c"].map(name);
    for (round, maintenance) in [Maintenance::Thread, Maintenance::Thread, Maintenance::Inline].into_iter().enumerate()
    {
        // Where it is gone, the facts answer until it is there again; nobody waits for that.
        let _ = std::fs::remove_dir_all(dir.path().join("store/names"));
        let options =
            Options::new().create(true).clock(Clock::manual()).maintenance(maintenance).memtable_size(64 << 10);
        let store = options.open(dir.path().join("store")).unwrap();
        for (name, model) in repositories.iter().zip(&mut models) {
            let ours = store.ensure_repository(name, RepositorySettings::new()).unwrap();
            assert!(listed(&ours, 7).into_iter().eq(model.iter().cloned()), "at once, in round {round}");
            wander(&ours, model, &mut random, 200);
        }
        assert_eq!(store.repositories(None, 9).unwrap().items, repositories);
        assert_sound(&store);
        store.close().unwrap();
    }
}

#[test]
fn pages_equal_a_sorted_set_through_folds_merges_and_restarts() {
    let mut random = Random(seed(8));
    let lab = Lab::new();
    let mut model = BTreeSet::new();
    for _ in 0..4 {
        let store = lab.open();
        let ours = store.ensure_repository(&name("a/ours"), RepositorySettings::new()).unwrap();
        let other = store.ensure_repository(&name("a/other"), RepositorySettings::new()).unwrap();
        wander(&ours, &mut model, &mut random, 400);
        push(&other, image(&[blob(&other, "x")], None), &["t1", "t2"]);
        store.merge_runs().unwrap();
        wander(&ours, &mut model, &mut random, 100);
        assert_sound(&store);
        store.close().unwrap();
    }
}
