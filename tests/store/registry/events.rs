//! Events: what happened, in order and from any position on; and when manifests were pulled.

use std::time::Duration;

use strongroom::registry::{Event, EventKind, PutManifest, RepositoryDeletion, RepositorySettings};
use strongroom::{Algorithm, Durability, Error, Lsn, Store};

use crate::common::registry::{
    Lab, assert_sound, at, blob, create, image, index, name, push, push_document, push_image, tag,
};

/// All events behind a position, read in pages.
fn read(store: &Store, mut after: Lsn, limit: usize) -> Vec<Event> {
    let mut all: Vec<Event> = Vec::new();
    while after < store.last_lsn() {
        let page = store.events(after, limit).unwrap();
        assert!(page.next > after, "it goes on");
        assert!(page.events.iter().all(|event| after < event.lsn && event.lsn <= page.next));
        all.extend(page.events);
        after = page.next;
    }
    assert!(all.is_sorted_by_key(|event| event.lsn));
    all
}

/// The events of repositories among those.
fn read_of_repositories(store: &Store, after: Lsn, limit: usize) -> Vec<Event> {
    read(store, after, limit).into_iter().filter(|event| event.repository().is_some()).collect()
}

#[test]
fn events_tell_what_happened_in_order_and_survive_a_restart() {
    let lab = Lab::new();
    let store = lab.open();
    lab.advance(1);
    let ours = create(&store, "a/ours");
    let (config, loose) = (blob(&ours, "config"), blob(&ours, "loose"));
    lab.advance(1);
    let child = push(&ours, image(&[config], None), &["v1", "latest"]);
    push(&ours, image(&[config], None), &["v1"]);
    let (media_type, document) = index(&[child], Some(&child));
    let parent = push(&ours, (media_type, document), &["latest"]);
    ours.remove_blob(&loose).unwrap();
    ours.set_settings(RepositorySettings::new().exclusions(vec!["a".parse().unwrap()]).unwrap()).unwrap();
    ours.untag(&tag("latest")).unwrap();
    ours.delete_batch(&[child.into(), parent.into()]).unwrap().into_iter().for_each(|done| {
        done.unwrap();
    });
    lab.advance(1 << 20);
    store.expire_blobs().unwrap();
    store.delete_repository(&name("a/ours"), RepositoryDeletion::WithContents).unwrap();
    let pushed = |digest, media_type: &str, subject| EventKind::ManifestPushed {
        digest,
        media_type: media_type.into(),
        subject,
    };
    let tagged = |name, digest, before| EventKind::Tagged { tag: tag(name), digest, before };
    let untagged = |name, digest| EventKind::Untagged { tag: tag(name), digest };
    let expected = [
        EventKind::Created,
        EventKind::BlobAdded(config),
        EventKind::BlobAdded(loose),
        pushed(child, image(&[config], None).0, None),
        tagged("v1", child, None),
        tagged("latest", child, None),
        pushed(parent, media_type, Some(child)),
        tagged("latest", parent, Some(child)),
        EventKind::BlobRemoved(loose),
        EventKind::SettingsChanged,
        untagged("latest", parent),
        EventKind::ManifestDeleted(parent),
        untagged("v1", child),
        EventKind::ManifestDeleted(child),
        EventKind::BlobRemoved(config),
        EventKind::Deleted,
    ];
    let all = read_of_repositories(&store, Lsn::default(), 1000);
    assert_eq!(all.iter().map(|event| event.kind.clone()).collect::<Vec<_>>(), expected);
    assert!(all.iter().all(|event| event.repository() == Some(&name("a/ours"))));
    assert_eq!((all[0].time_ms, all[3].time_ms), (1000, 2000));
    assert_eq!(all[3].lsn, all[5].lsn, "what happened in one step has one position");
    for limit in [0, 1, 2, 3, 7] {
        assert_eq!(read_of_repositories(&store, Lsn::default(), limit), all);
    }
    store.close().unwrap();
    for disk in [lab.disk.restarted(), lab.disk.power_cut(3)] {
        let lab = Lab { disk, clock: lab.clock.clone() };
        let store = lab.open();
        assert_eq!(read_of_repositories(&store, Lsn::default(), 2), all);
        assert!(read_of_repositories(&store, store.last_lsn(), 2).is_empty());
        create(&store, "a/new");
        assert_eq!(read_of_repositories(&store, all[15].lsn, 9).len(), 1);
        assert_eq!(read_of_repositories(&store, all[14].lsn, 1).len(), 2);
    }
}

#[test]
fn reading_goes_on_where_there_are_only_commits_without_events() {
    let lab = Lab::new();
    let store = lab.open();
    create(&store, "a/ours");
    let after = store.last_lsn();
    for n in 0..200 {
        let upload = store.begin_upload(Algorithm::Sha256).unwrap();
        store.append_upload(upload, 0, format!("{n}").repeat(300)).unwrap();
    }
    let page = store.events(after, 10).unwrap();
    assert_eq!((page.events.len(), page.next), (0, store.last_lsn()));
    assert_eq!(store.events(page.next, 10).unwrap(), page);
    create(&store, "a/next");
    assert_eq!(store.events(page.next, 10).unwrap().events.len(), 1);
}

#[test]
fn pages_end_between_commits_and_every_position_is_one_to_go_on_from() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    for n in 0..150 {
        push_document(&ours, &format!("{n}").repeat(200), &["a", "b", "c"]);
    }
    let all = read(&store, Lsn::default(), usize::MAX);
    assert_eq!(all.len(), 1 + 150 * 5);
    assert!(lab.disk.files().iter().filter(|path| path.to_string_lossy().contains("/log/")).count() > 3);
    for after in all.iter().map(|event| event.lsn) {
        let behind: Vec<_> = all.iter().filter(|event| event.lsn > after).take(5).cloned().collect();
        let page = store.events(after, 5).unwrap();
        assert_eq!(page.events.iter().take(5).cloned().collect::<Vec<_>>(), behind);
        assert!(page.events.len() <= 9, "no more than the commit with the fifth");
        assert_eq!(page.next, page.events.last().map_or(after, |last| last.lsn));
    }
}

#[test]
fn a_position_ahead_of_the_store_is_told_as_that() {
    let lab = Lab::new();
    let store = lab.options().open("/store").unwrap();
    let ours = store.ensure_repository(&name("a/ours"), RepositorySettings::new()).unwrap();
    let copy = lab.disk.restarted();
    store.sync().unwrap();
    push_image(&ours, "later", &["later"]);
    let position = store.last_lsn();
    // Restored from the copy, which was made before that push.
    let restored = Lab { disk: copy, clock: lab.clock.clone() }.options().open("/store").unwrap();
    let ahead = restored.events(position, 10);
    let Err(Error::AheadOfStore { position: asked, last }) = ahead else { panic!("{ahead:?}") };
    assert_eq!((asked, last), (position, restored.last_lsn()));
    assert!(restored.events(last, 10).unwrap().events.is_empty(), "one can go on from there");
}

#[test]
fn what_the_log_gave_up_is_told_as_a_gap_from_which_one_can_go_on() {
    let lab = Lab::new();
    let oldest = |answer| match answer {
        Err(Error::Gap { oldest }) => oldest,
        other => panic!("{other:?}"),
    };
    for history in [0, 40 << 10] {
        let store = lab.options().history(history).open("/store").unwrap();
        let ours = store.ensure_repository(&name("a/ours"), RepositorySettings::new()).unwrap();
        for n in 0..1500 {
            push_document(&ours, &format!("{history} {}", n % 5), &[&format!("{n}")]);
        }
        let from = oldest(store.events(Lsn::default(), 10));
        let all = read(&store, from, 100);
        assert!(!all.is_empty() || history == 0);
        // The last one before is gone, as is all before that.
        if from > Lsn::default() {
            assert_eq!(oldest(store.events(Lsn::default(), 1)), from);
        }
        store.checkpoint().unwrap();
        store.close().unwrap();
        let store = lab.options().history(history).open("/store").unwrap();
        let from = oldest(store.events(Lsn::default(), 10));
        assert!(from <= store.last_lsn());
        read(&store, from, 3);
        assert_sound(&store);
    }
}

#[test]
fn none_is_told_before_it_is_durable() {
    let lab = Lab::new();
    let store = lab
        .options()
        .durability(Durability::Relaxed)
        .memtable_size(1 << 20)
        .log_file_size(1 << 20)
        .open("/store")
        .unwrap();
    create(&store, "a/ours");
    let page = store.events(Lsn::default(), 9).unwrap();
    assert_eq!((page.events.len(), page.next), (0, Lsn::default()));
    store.sync().unwrap();
    let page = store.events(Lsn::default(), 9).unwrap();
    assert_eq!((page.events.len(), page.next), (1, store.last_lsn()));
}

#[test]
fn pulls_are_noted_in_batches_and_survive_a_restart() {
    let lab = Lab::new();
    let store = lab.open();
    let ours = create(&store, "a/ours");
    let manifests: Vec<_> = (0..50).map(|n| push_image(&ours, &n.to_string(), &[&n.to_string()])).collect();
    assert!(manifests.iter().all(|digest| ours.manifest_info(&digest.into()).unwrap().pulled_ms.is_none()));
    lab.advance(100);
    let before = store.last_lsn();
    for _ in 0..10 {
        lab.clock.advance(Duration::from_millis(900));
        for (n, digest) in manifests.iter().enumerate().skip(1) {
            let reference = if n % 2 == 0 { digest.into() } else { at(&n.to_string()) };
            assert_eq!(ours.pull_manifest(&reference).unwrap().digest, *digest);
        }
        ours.get_manifest(&manifests[0].into()).unwrap();
    }
    assert_eq!(store.last_lsn(), before, "no commit for each");
    let pulled = |store: &Store, n: usize| {
        store.repository(&name("a/ours")).unwrap().manifest_info(&manifests[n].into()).unwrap().pulled_ms
    };
    assert_eq!((pulled(&store, 0), pulled(&store, 1)), (None, Some(109_000)));
    lab.advance(2);
    ours.pull_manifest(&manifests[1].into()).unwrap();
    assert_eq!(store.last_lsn(), before, "whoever pulls does not do it");
    assert!(store.named().remove("whoever commits does", strongroom::ExpectNamed::Any).is_err());
    assert_eq!(store.last_lsn().get(), before.get() + 1, "one for all");
    assert_eq!((pulled(&store, 1), pulled(&store, 2)), (Some(111_000), Some(109_000)));
    ours.pull_manifest(&manifests[3].into()).unwrap();
    store.close().unwrap();

    let store = lab.open();
    let times = [0, 1, 2, 3].map(|n| pulled(&store, n));
    assert_eq!(times, [None, Some(111_000), Some(109_000), Some(111_000)]);
    let events = read(&store, before, 100);
    assert!(events.iter().all(|event| matches!(event.kind, EventKind::ManifestPulled { .. })));
    assert_eq!(events.len(), 50);
    // A manifest that was deleted and pushed again was not pulled.
    let ours = store.repository(&name("a/ours")).unwrap();
    ours.delete_manifest(&manifests[1]).unwrap();
    push_image(&ours, "1", &[]);
    assert_eq!(pulled(&store, 1), None);
    assert_sound(&store);
}

#[test]
fn many_pulls_are_noted_before_their_time_so_that_memory_stays_bounded() {
    let lab = Lab::new();
    let store = lab.options().memtable_size(1 << 20).log_file_size(1 << 20).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    let manifests: Vec<_> = (0..4100).map(|n| push_document(&ours, &n.to_string(), &[])).collect();
    let before = store.last_lsn();
    lab.clock.advance(Duration::from_millis(5));
    manifests.iter().for_each(|digest| {
        ours.pull_manifest(&digest.into()).unwrap();
    });
    assert_eq!(store.last_lsn(), before);
    assert!(store.named().remove("whoever commits notes them", strongroom::ExpectNamed::Any).is_err());
    assert_eq!(store.last_lsn().get(), before.get() + 17, "256 at a time: others wait for each");
    assert_eq!(read(&store, before, 9999).len(), 4100);
    store.close().unwrap();
    let store = lab.open();
    let ours = store.repository(&name("a/ours")).unwrap();
    assert!(manifests.iter().all(|digest| ours.manifest_info(&digest.into()).unwrap().pulled_ms == Some(5)));
}

#[test]
fn a_pull_of_what_is_deleted_before_it_is_noted_is_forgotten() {
    let lab = Lab::new();
    let store = lab.open();
    let (ours, theirs) = (create(&store, "a/ours"), create(&store, "a/theirs"));
    let manifest = push_image(&ours, "x", &["v1"]);
    let put = PutManifest::new("a/b").references([], []);
    let kept = theirs.put_manifest("kept", put).unwrap().digest;
    ours.pull_manifest(&at("v1")).unwrap();
    theirs.pull_manifest(&kept.into()).unwrap();
    store.delete_repository(&name("a/ours"), RepositoryDeletion::WithContents).unwrap();
    lab.advance(20);
    blob(&theirs, "something to do");
    let is_pull = |event: &Event| matches!(event.kind, EventKind::ManifestPulled { .. });
    let pulls = read(&store, Lsn::default(), 9).into_iter().filter(is_pull);
    let kinds: Vec<_> = pulls.map(|event| (event.repository().cloned().unwrap(), event.kind)).collect();
    assert_eq!(kinds, [(name("a/theirs"), EventKind::ManifestPulled { digest: kept, time_ms: 0 })]);
    assert!(store.repository(&name("a/ours")).is_err() && manifest != kept);
    assert_sound(&store);
}
