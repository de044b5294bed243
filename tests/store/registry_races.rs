//! Clients that come between each other: each test lets threads run into the moment that has hurt users of others.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use strongroom::registry::{EventKind, ExpectTag, PutManifest, Reference, RepositoryDeletion, RepositorySettings};
use strongroom::{Algorithm, CollectOptions, Digest, Error, Lsn, Maintenance, Options, Result, Store};

use crate::common::registry::{
    Lab, assert_sound, blob, create, image, index, is_gone, is_unknown, name, push_document, tag, try_push,
};

/// A store with its own thread for maintenance, small enough to fold, merge and change log files all the time.
fn options(lab: &Lab) -> Options {
    lab.options().maintenance(Maintenance::Thread).log_file_size(64 << 10).memtable_size(16 << 10)
}

/// Runs `disturb` over and over beside `work`, until that is done.
fn beside(work: impl FnOnce() + Send, disturb: impl Fn() + Sync + Send) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                disturb();
            }
        });
        let working = scope.spawn(work);
        let worked = working.join();
        done.store(true, Ordering::Release);
        worked.unwrap();
    });
}

/// Fails unless a deletion succeeded or was refused for a reason that it may have.
fn tolerate(result: Result<()>) {
    match result {
        Ok(()) | Err(Error::BlobNotFound { .. } | Error::BlobInUse { .. }) => {}
        Err(Error::ManifestNotFound { .. } | Error::ManifestInUse { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_manifest_is_refused_or_everything_it_references_can_be_read_as_long_as_it_exists() {
    // harbor#23116, quay#6318: HEAD finds a layer, something collects it, the manifest is accepted or fails for good.
    let lab = Lab::new();
    let store = options(&lab).retention(Duration::ZERO).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    let contents = ["config", "layer 1", "layer 2"];
    let digests = contents.map(|content| Digest::of(Algorithm::Sha256, content.as_bytes()));
    let manifest = Digest::of(Algorithm::Sha256, image(&digests, None).1.as_bytes());
    let (accepted, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let push = || {
        for (content, digest) in contents.iter().zip(&digests) {
            if is_gone(&ours.claim(digest)) {
                ours.put(content, digest).unwrap();
            }
        }
        match try_push(&ours, image(&digests, None), &["v1"]) {
            Ok(pushed) => {
                accepted.fetch_add(1, Ordering::Relaxed);
                assert_eq!(pushed.digest, manifest);
                for (content, digest) in contents.iter().zip(&digests) {
                    match ours.get(digest) {
                        Ok(blob) => assert_eq!(blob.bytes().unwrap(), content.as_bytes()),
                        // Nobody else pushes it, so it was deleted before this blob was.
                        Err(_) => assert!(is_unknown(&ours.get_manifest(&manifest.into()))),
                    }
                }
            }
            Err(Error::ReferencesMissing { blobs, manifests }) => {
                refused.fetch_add(1, Ordering::Relaxed);
                assert!(!blobs.is_empty() && blobs.iter().all(|blob| digests.contains(blob)) && manifests.is_empty());
            }
            Err(other) => panic!("{other}"),
        }
    };
    beside(
        || (0..1500).for_each(|_| push()),
        || {
            digests.iter().for_each(|digest| tolerate(ours.remove_blob(digest).map(drop)));
            store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
            tolerate(ours.delete_manifest(&manifest).map(drop));
        },
    );
    println!("{accepted:?} accepted, {refused:?} refused");
    assert!(accepted.into_inner() > 0);
    assert_sound(&store);
    store.close().unwrap();
    assert_sound(&options(&lab).open("/store").unwrap());
}

#[test]
fn an_index_is_refused_or_has_its_children() {
    // distribution#4461: children deleted while the index that references them was pushed.
    let lab = Lab::new();
    let store = options(&lab).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    let config = blob(&ours, "config");
    let subject = Digest::of(Algorithm::Sha256, b"subject");
    let child_document = image(&[config], Some(&subject));
    let child = Digest::of(Algorithm::Sha256, child_document.1.as_bytes());
    let parent_document = index(&[child], None);
    let parent = Digest::of(Algorithm::Sha256, parent_document.1.as_bytes());
    beside(
        || {
            for _ in 0..1500 {
                try_push(&ours, child_document.clone(), &["child"]).unwrap();
                match try_push(&ours, parent_document.clone(), &["parent"]) {
                    Ok(_) => {
                        let found = ours.get_manifest(&child.into());
                        assert!(found.is_ok() || is_unknown(&ours.get_manifest(&parent.into())));
                    }
                    Err(Error::ReferencesMissing { blobs, manifests }) => {
                        assert_eq!((blobs, manifests), (vec![], vec![child]));
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        },
        || {
            tolerate(ours.delete_manifest(&child).map(drop));
            // What is listed is whole, whatever happens meanwhile.
            let listed = ours.referrers(&subject, None, None, 9).unwrap().items;
            assert!(listed.len() <= 1 && listed.iter().all(|referrer| referrer.digest == child));
            let both: [Reference; 2] = [child.into(), parent.into()];
            ours.delete_batch(&both).unwrap().into_iter().for_each(|done| tolerate(done.map(drop)));
        },
    );
    assert_sound(&store);
}

#[test]
fn of_eight_who_move_a_tag_from_one_value_exactly_one_wins() {
    let lab = Lab::new();
    let store = options(&lab).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    let latest = tag("latest");
    let own: Vec<_> = (0..8).map(|n| push_document(&ours, &n.to_string(), &[])).collect();
    let barrier = Barrier::new(8);
    let winners: Vec<Mutex<Vec<Digest>>> = (0..60).map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        for (n, mine) in own.iter().enumerate() {
            let (ours, latest, barrier, winners) = (&ours, &latest, &barrier, &winners);
            scope.spawn(move || {
                let mut expect = ExpectTag::Absent;
                for (round, won) in winners.iter().enumerate() {
                    // The winner of the last round has nothing to move: it pushes something new.
                    let content = format!("{n} in round {round}");
                    let mine = if expect == ExpectTag::Is(*mine) { push_document(ours, &content, &[]) } else { *mine };
                    barrier.wait();
                    let result = if n % 2 == 0 {
                        ours.tag(latest, &mine, expect).map(drop)
                    } else {
                        let put = PutManifest::new("text/plain").references([], []).tag(latest.clone());
                        ours.put_manifest(ours.get_manifest(&mine.into()).unwrap().content, put.expect_tag(expect))
                            .map(drop)
                    };
                    match result {
                        Ok(()) => won.lock().unwrap().push(mine),
                        Err(Error::TagMoved { found, .. }) => assert!(found.is_some()),
                        Err(other) => panic!("{other}"),
                    }
                    barrier.wait();
                    let won = won.lock().unwrap().clone();
                    assert_eq!(won.len(), 1, "in round {round}");
                    assert_eq!(ours.resolve(latest).unwrap().digest, won[0]);
                    expect = ExpectTag::Is(won[0]);
                }
            });
        }
    });
    // Each value in turn, none lost.
    let events = store.events(Lsn::default(), usize::MAX).unwrap().events;
    let moves = events.into_iter().filter_map(|event| match event.kind {
        EventKind::Tagged { digest, before, .. } => Some((before, digest)),
        _ => None,
    });
    let won: Vec<_> = winners.iter().map(|won| won.lock().unwrap()[0]).collect();
    let expected = (0..60usize).map(|round| (round.checked_sub(1).map(|before| won[before]), won[round]));
    assert!(moves.eq(expected));
    assert_sound(&store);
}

#[test]
fn of_two_who_push_one_tag_one_is_the_later_and_no_tag_is_lost() {
    // zot#4337: both were answered with 201, and then there was no tag.
    let lab = Lab::new();
    let store = options(&lab).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    let config = blob(&ours, "config");
    let barrier = Barrier::new(2);
    let push = |n: usize| {
        (0..200)
            .map(|round| {
                let subject = Digest::of(Algorithm::Sha256, format!("{n} {round}").as_bytes());
                barrier.wait();
                let own = format!("own-{n}-{round}");
                try_push(&ours, image(&[config], Some(&subject)), &["latest", &format!("both-{round}"), &own])
                    .unwrap()
                    .digest
            })
            .collect::<Vec<_>>()
    };
    let (a, b) = std::thread::scope(|scope| {
        let a = scope.spawn(|| push(0));
        let b = push(1);
        (a.join().unwrap(), b)
    });
    for (round, (a, b)) in a.iter().zip(&b).enumerate() {
        let both = tag(&format!("both-{round}"));
        let named = ours.resolve(&both).unwrap().digest;
        assert!(named == *a || named == *b);
        for (n, digest) in [a, b].into_iter().enumerate() {
            let tags = ours.tags_of(digest).unwrap();
            assert_eq!(tags.contains(&both), named == *digest);
            assert!(tags.contains(&tag(&format!("own-{n}-{round}"))));
        }
    }
    assert!([a[199], b[199]].contains(&ours.resolve(&tag("latest")).unwrap().digest));
    assert_eq!(ours.tags(None, 1000).unwrap().items.len(), 601);
    assert_sound(&store);
}

#[test]
fn all_who_upload_one_digest_into_one_repository_succeed() {
    // nexus-public#967, gitea#19586: the same layer from two jobs, and one of them failed.
    let lab = Lab::new();
    let store = options(&lab).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    let barrier = Barrier::new(8);
    for round in 0..20 {
        for len in [100, 50_000] {
            let content = vec![round; len];
            let digest = Digest::of(Algorithm::Sha256, &content);
            std::thread::scope(|scope| {
                for n in 0..8 {
                    let (ours, barrier, content) = (&ours, &barrier, &content);
                    scope.spawn(move || {
                        let upload = (n % 2 == 0).then(|| ours.begin_upload(Algorithm::Sha256).unwrap());
                        assert!(upload.iter().all(|id| ours.append_upload(*id, 0, content).is_ok()));
                        barrier.wait();
                        match upload {
                            Some(id) => drop(ours.commit_upload(id, digest).unwrap()),
                            None => drop(ours.put(content, digest).unwrap()),
                        }
                        assert_eq!(ours.get(&digest).unwrap().bytes().unwrap(), content);
                    });
                }
            });
        }
    }
    assert!(ours.uploads(None, 1000).unwrap().items.is_empty());
    assert_eq!(store.usage().unwrap().blobs, 40);
    let added = store.events(Lsn::default(), usize::MAX).unwrap().events;
    let added = added.iter().filter(|event| matches!(event.kind, EventKind::BlobAdded(_)));
    let (linked, stored): (Vec<_>, Vec<_>) = added.partition(|event| event.repository().is_some());
    assert_eq!((linked.len(), stored.len()), (40, 40));
    assert_sound(&store);
}

#[test]
fn of_those_who_create_a_repository_one_does_and_deletions_beside_pushes_leave_nothing() {
    let lab = Lab::new();
    let store = options(&lab).open("/store").unwrap();
    let ours = name("a/ours");
    let barrier = Barrier::new(4);
    let created = AtomicUsize::new(0);
    let work = |n: usize| {
        for round in 0..100 {
            barrier.wait();
            match store.create_repository(&ours, RepositorySettings::new()) {
                Ok(_) => drop(created.fetch_add(1, Ordering::Relaxed)),
                Err(Error::RepositoryExists { .. } | Error::RepositoryNotFound { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            barrier.wait();
            if n == 0 {
                store.delete_repository(&ours, RepositoryDeletion::WithContents).unwrap();
            } else {
                let push = || {
                    let ours = store.repository(&ours)?;
                    let layer = ours.put(format!("{round}").repeat(1000), Algorithm::Sha256)?.digest;
                    let upload = ours.begin_upload(Algorithm::Sha256)?;
                    ours.append_upload(upload, 0, format!("{n} {round}"))?;
                    try_push(&ours, image(&[layer], None), &["v1"]).map(drop)
                };
                match push() {
                    Ok(()) | Err(Error::RepositoryNotFound { .. } | Error::UploadNotFound { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for n in 0..4 {
            scope.spawn(move || work(n));
        }
    });
    assert_eq!(created.into_inner(), 100);
    store.close().unwrap();
    let store = lab.open();
    store.checkpoint().unwrap();
    assert!(store.blobs().all(|blob| blob.unwrap().references == 0), "all is purged");
    assert_eq!(store.expire_uploads(Duration::ZERO).unwrap(), 0, "uploads too");
    assert_sound(&store);
}

#[test]
fn who_reads_events_while_others_write_gets_each_once_and_in_order() {
    let lab = Lab::new();
    let store = options(&lab).open("/store").unwrap();
    const WRITERS: usize = 3;
    const EACH: usize = 700;
    let running = AtomicUsize::new(WRITERS);
    let read = |limit: usize| {
        let (mut after, mut all) = (Lsn::default(), Vec::new());
        loop {
            let is_last = running.load(Ordering::Acquire) == 0;
            let page = store.events(after, limit).unwrap();
            assert!(page.next >= after && page.events.iter().all(|event| event.lsn > after));
            after = page.next;
            all.extend(page.events);
            if is_last && after >= store.last_lsn() {
                return all;
            }
        }
    };
    let logs = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, running) = (&store, &running);
            scope.spawn(move || {
                let ours = create(store, &format!("a/{writer}"));
                for n in 0..EACH {
                    push_document(&ours, &format!("{writer} {n} {}", "x".repeat(n % 3000)), &[&n.to_string()]);
                }
                running.fetch_sub(1, Ordering::Release);
            });
        }
        let readers: Vec<_> = [1, 10, 1000].map(|limit| scope.spawn(move || read(limit))).into();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    for events in logs {
        assert!(events.is_sorted_by_key(|event| event.lsn));
        let mut tags: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for event in events {
            if let EventKind::Tagged { tag, .. } = &event.kind {
                tags.entry(event.repository().unwrap().to_string()).or_default().push(tag.as_str().parse().unwrap());
            }
        }
        assert_eq!(tags.len(), WRITERS);
        assert!(tags.values().all(|tags| tags.iter().copied().eq(0..EACH)));
    }
}

#[test]
fn events_are_read_or_known_to_be_gone_while_log_files_are_given_up() {
    let lab = Lab::new();
    let store = options(&lab).history(0).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    let after = Mutex::new(Lsn::default());
    beside(
        || {
            for n in 0..3000 {
                push_document(&ours, &format!("{} {}", n % 3, "x".repeat(3000)), &[&format!("{n}")]);
            }
        },
        || {
            let mut after = after.lock().unwrap();
            match store.events(*after, 20) {
                Ok(page) => {
                    assert!(page.events.is_sorted_by_key(|event| event.lsn));
                    assert!(page.events.iter().all(|event| *after < event.lsn && event.lsn <= page.next));
                    *after = page.next;
                }
                Err(Error::Gap { oldest }) => {
                    assert!(oldest > *after);
                    *after = oldest;
                }
                Err(other) => panic!("{other}"),
            }
        },
    );
    assert!(*after.lock().unwrap() > Lsn::default());
}

#[test]
fn pulls_never_go_back_while_they_are_noted() {
    let lab = Lab::new();
    let store: Store = options(&lab).open("/store").unwrap();
    let ours = create(&store, "a/ours");
    let manifest = push_document(&ours, "x", &["v1"]);
    lab.advance(1);
    ours.pull_manifest(&manifest.into()).unwrap();
    let last = Mutex::new(0);
    beside(
        || {
            for n in 0..300 {
                lab.advance(11); // longer than they wait
                ours.pull_manifest(&manifest.into()).unwrap();
                push_document(&ours, &n.to_string(), &[]);
            }
        },
        || {
            let pulled = ours.manifest_info(&manifest.into()).unwrap().pulled_ms.unwrap();
            let mut last = last.lock().unwrap();
            assert!(pulled >= *last, "{pulled} after {last}");
            *last = pulled;
        },
    );
    assert_eq!(ours.manifest_info(&manifest.into()).unwrap().pulled_ms, Some(1000 + 300 * 11_000));
}
