//! Images with what belongs to them: exact, of one moment, a page at the cost of a page.

use std::time::Duration;

use strongroom::registry::{PutManifest, Repository, RepositorySettings, Tag};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, Digest, Error, Page};

use crate::common::registry::{image, index, name, options, tag};

fn push(to: &Repository, (media_type, document): (&str, String)) -> Digest {
    to.put_manifest(document, PutManifest::new(media_type)).unwrap().digest
}

fn blob(to: &Repository, len: usize) -> Digest {
    to.put(vec![7; len], Algorithm::Sha256).unwrap().digest
}

fn size(of: &Repository, digest: Digest) -> u64 {
    of.image(&digest.into()).unwrap().size
}

#[test]
fn a_size_is_that_of_all_blobs_and_of_the_largest_manifest_at_any_depth() {
    let store = options(&SimVfs::new(), &Clock::manual()).open("/store").unwrap();
    let app = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let (config, base) = (blob(&app, 10), blob(&app, 3000));
    let small = push(&app, image(&[config, base], None));
    let large = push(&app, image(&[config, base, blob(&app, 500)], None));
    assert_eq!([small, large].map(|one| size(&app, one)), [3010, 3510]);
    let both = push(&app, index(&[small, large], None));
    let mut outer = push(&app, index(&[both, small], None));
    assert_eq!((size(&app, both), size(&app, outer)), (3510, 3510));
    for _ in 0..200 {
        outer = push(&app, index(&[outer], None));
    }
    assert_eq!(size(&app, outer), 3510);
    // What is awaited has no length here, also where other repositories have it.
    let other = store.create_repository(&name("team/other"), RepositorySettings::new()).unwrap();
    let secret = blob(&other, 12_345);
    let put = PutManifest::new("a/b").references([secret, config], []).allow_missing_blobs();
    let waiting = app.put_manifest("waits", put).unwrap().digest;
    assert_eq!(size(&app, waiting), 10);
    app.mount(&secret, other.name(), |_| true).unwrap();
    assert_eq!(size(&app, waiting), 12_355);
    let sizes = app.images(None, 1000).unwrap().items;
    assert!(sizes.iter().all(|image| image.size == size(&app, image.digest)), "one by one or together");
}

#[test]
fn images_have_tags_times_and_holders_of_one_moment() {
    let clock = Clock::manual();
    let store = options(&SimVfs::new(), &clock).open("/store").unwrap();
    let app = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let one = push(&app, image(&[blob(&app, 10)], None));
    clock.advance(Duration::from_millis(10));
    for name in ["v2", "latest", "v1"] {
        app.tag(&tag(name), &one, Default::default()).unwrap();
    }
    let signature = push(&app, image(&[blob(&app, 20)], Some(&one)));
    let over = push(&app, index(&[one], None));
    clock.advance(Duration::from_millis(10));
    app.pull_manifest(&one.into()).unwrap(); // noted in memory only
    let moment = app.snapshot().unwrap();
    let info = app.image(&tag("v1").into()).unwrap();
    assert_eq!(info.tags, ["latest", "v1", "v2"].map(tag));
    assert_eq!((info.digest, info.holders, info.pulled_ms), (one, 1, Some(info.pushed_ms + 20)));
    assert_eq!(app.image(&over.into()).unwrap().manifests, [one]);
    assert_eq!(app.image(&signature.into()).unwrap().subject, Some(one));
    let facts = app.image_facts(None, 100).unwrap().items;
    let facts = facts.iter().find(|facts| facts.digest == one).unwrap();
    assert_eq!(
        (&facts.tags, facts.tagged_ms, facts.pulled_ms),
        (&info.tags, Some(info.pushed_ms + 10), info.pulled_ms)
    );
    app.delete_manifest(&over).unwrap();
    app.delete_manifest(&one).unwrap();
    assert!(matches!(app.image(&one.into()), Err(Error::ManifestNotFound { .. })));
    let many = [one.into(), tag("v1").into(), signature.into()];
    let found = app.image_many(&many).unwrap().into_iter().map(|image| image.map(|image| image.digest));
    assert!(found.eq([None, None, Some(signature)]));
    assert_eq!(moment.image(&tag("v1").into()).unwrap().tags, info.tags);
    assert_eq!(moment.images(None, 100).unwrap().items.len(), 3);
    assert_eq!(moment.image_facts(None, 100).unwrap().items.len(), 3);
}

#[test]
fn pages_have_every_image_once_and_end_where_enough_was_read() {
    let store = options(&SimVfs::new(), &Clock::manual()).memtable_size(1 << 20).open("/store").unwrap();
    let app = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let many: Vec<Tag> = (0..1500).map(|n| tag(&format!("tag-{n:04}"))).collect();
    let document = |n: usize| format!("document {n}");
    let plain = || PutManifest::new("a/b").references([], []);
    let tagged = app.put_manifest(document(0), plain()).unwrap().digest;
    for tags in many.chunks(500) {
        app.put_manifest(document(0), tags.iter().cloned().fold(plain(), PutManifest::tag)).unwrap();
    }
    for n in 1..60 {
        app.put_manifest(document(n), plain()).unwrap();
    }
    let all = |limit| Page::all(|after| app.images(after, limit)).collect::<Result<Vec<_>, _>>().unwrap();
    let images = all(1000);
    assert_eq!(images.len(), 60);
    assert!(images == all(1) && images == all(7));
    let facts: Vec<_> = Page::all(|after| app.image_facts(after, 9)).collect::<Result<_, _>>().unwrap();
    assert!(facts.iter().map(|facts| facts.digest).eq(images.iter().map(|image| image.digest)));
    for image in &images {
        let expected = if image.digest == tagged { (1000, true) } else { (0, false) };
        assert_eq!((image.tags.len(), image.has_more_tags), expected);
        assert!(image.tags.is_sorted());
    }
    // Together their layers are more than one page is about.
    let wide = store.create_repository(&name("team/wide"), RepositorySettings::new()).unwrap();
    for image in 0..12 {
        let blobs: Vec<_> =
            (0..9000_u16).map(|n| Digest::of(Algorithm::Blake3, format!("{image} {n}").as_bytes())).collect();
        let put = PutManifest::new("a/b").references(blobs, []).allow_missing_blobs();
        wide.put_manifest(format!("wide {image}"), put).unwrap();
    }
    let page = wide.images(None, 1000).unwrap();
    assert!((1..12).contains(&page.items.len()) && page.next.is_some(), "{}", page.items.len());
    let pages = Page::all(|after| wide.images(after, 1000)).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(pages.len(), 12);
}
