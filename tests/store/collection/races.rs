//! The moments between the steps of a collection: in each of them a client does what has gone wrong elsewhere.

use std::ops::ControlFlow;
use strongroom::registry::{Repository, RepositoryDeletion, RepositorySettings};
use strongroom::{Algorithm, CollectOptions, Collection, Digest, Error, Store};

use super::{GONE, collect, is_whole, open};
use crate::common::registry::{
    Lab, assert_sound, blob, create, image, index, is_gone, is_unknown, missing, name, push, push_document, push_image,
    tag, try_push,
};

/// Prepares a store and collects on it again and again, each time with `act` after another of its steps, and `check` at
/// the end with what `act` came to.
fn at_each_step<P, A>(
    prepare: impl Fn(&Lab, &Store) -> P,
    act: impl Fn(&Store, &P) -> A,
    check: impl Fn(&Lab, &Store, &P, A, &Collection),
) {
    for step in 1.. {
        let lab = Lab::new();
        let store = open(&lab);
        let prepared = prepare(&lab, &store);
        let (mut steps, mut acted) = (0, None);
        let report = store.collect(&CollectOptions::new().max_dead(0), |_| {
            steps += 1;
            if steps == step {
                acted = Some(act(&store, &prepared));
            }
            ControlFlow::Continue(())
        });
        let report = report.unwrap();
        let Some(acted) = acted else {
            assert!(step > 2, "there are steps to come between");
            return;
        };
        check(&lab, &store, &prepared, acted, &report);
        assert_sound(&store);
        store.close().unwrap();
        assert_sound(&open(&lab));
    }
}

/// Two blobs that are alike for collection, so that something is condemned whichever is rescued.
fn two(repository: &Repository) -> [Digest; 2] {
    ["a layer", "another layer"].map(|content| blob(repository, content))
}

#[test]
fn a_push_to_a_repository_that_no_push_completed_comes_while_that_is_collected() {
    at_each_step(
        |lab, store| {
            for one in ["a/ours", "a/theirs"] {
                store.create_on_push(&name(one), RepositorySettings::new()).unwrap();
            }
            lab.advance(GONE);
        },
        |store, _| {
            let ours = store.create_on_push(&name("a/ours"), RepositorySettings::new()).unwrap();
            ours.begin_upload(Algorithm::Sha256).unwrap()
        },
        |lab, store, _, upload, report| {
            // Whether the collection took the repository before: there is one, and the upload in it.
            assert!((1..=2).contains(&report.repositories), "{report:?}");
            let ours = store.repository(&name("a/ours")).unwrap();
            assert_eq!(ours.upload_status(upload).unwrap().offset, 0);
            assert_eq!(collect(store).repositories, 0);
            lab.advance(GONE / 2);
            ours.append_upload(upload, 0, "content").unwrap();
            lab.advance(GONE / 2 + 1);
            assert_eq!(collect(store).repositories, 0);
            ours.commit_upload(upload, Digest::of(Algorithm::Sha256, b"content")).unwrap();
        },
    );
}

#[test]
fn head_says_yes_then_collected_before_the_manifest_comes() {
    // harbor#23116, quay#6318.
    at_each_step(
        |lab, store| {
            let ours = create(store, "a/ours");
            let digests = two(&ours);
            assert_eq!(ours.claim(&digests[0]).unwrap().len, 7);
            lab.advance(GONE); // longer than what was promised
            digests
        },
        |store, digests| try_push(&store.repository(&name("a/ours")).unwrap(), image(digests, None), &["v1"]),
        |_, store, digests, pushed, _| {
            let ours = store.repository(&name("a/ours")).unwrap();
            match pushed {
                Ok(pushed) => {
                    collect(store);
                    assert!(ours.get_manifest(&pushed.digest.into()).is_ok());
                    assert!(digests.iter().all(|digest| is_whole(store, digest)), "what a manifest holds stays");
                }
                refused => {
                    let (blobs, manifests) = missing(refused);
                    assert!(!blobs.is_empty() && manifests.is_empty());
                    assert!(is_unknown(&ours.get_manifest(&tag("v1").into())), "nothing of it took place");
                    // The client pushes again, and is not refused again.
                    let again = two(&ours);
                    push(&ours, image(&again, None), &["v1"]);
                    collect(store);
                    assert!(again.iter().all(|digest| is_whole(store, digest)));
                }
            }
        },
    );
}

#[test]
fn what_head_promised_is_kept() {
    let lab = Lab::new();
    let store = open(&lab);
    let ours = create(&store, "a/ours");
    let [claimed, other] = two(&ours);
    let outside = store.put("outside", Algorithm::Blake3).unwrap().digest;
    lab.advance(GONE - 1);
    ours.claim(&claimed).unwrap();
    store.claim(&outside).unwrap();
    lab.advance(700);
    let report = collect(&store);
    assert_eq!((report.links, report.blobs, report.stayed.recent_blobs), (1, 1, 1));
    assert!(is_gone(&ours.get(&other)) && is_whole(&store, &claimed) && is_whole(&store, &outside));
    lab.advance(GONE);
    assert_eq!(collect(&store).blobs, 2);
    assert_eq!(store.blobs().count(), 0);
    assert_sound(&store);
}

#[test]
fn a_blob_is_pushed_again_while_it_is_condemned() {
    let mut rescued = 0;
    for way in 0..3 {
        let count = std::cell::Cell::new(0);
        at_each_step(
            |lab, store| {
                let digests = ["one", "two"].map(|content| store.put(content, Algorithm::Sha256).unwrap().digest);
                lab.advance(GONE);
                digests
            },
            |store, digests| match way {
                0 => store.put("one", Algorithm::Sha256).is_ok(),
                1 => store.claim(&digests[0]).is_ok(),
                _ => store.named().set("held", &digests[0], strongroom::PutNamed::new()).is_ok(),
            },
            |_, store, digests, came_in_time, report| {
                assert_eq!(is_whole(store, &digests[0]), came_in_time, "way {way}");
                assert!(way > 0 || came_in_time, "what is pushed is there");
                assert!(is_gone(&store.get(&digests[1])));
                count.set(count.get() + report.rescued);
                collect(store);
                assert_eq!(is_whole(store, &digests[0]), came_in_time, "it stays for the retention time");
            },
        );
        rescued += count.into_inner();
    }
    assert!(rescued >= 3, "each way came once between being condemned and being forgotten");
}

#[test]
fn a_blob_that_is_held_for_a_moment_while_it_is_condemned_is_not_forgotten_without_being_condemned_again() {
    let survived = std::cell::Cell::new(0);
    at_each_step(
        |lab, store| {
            let digests = ["one", "two"].map(|content| store.put(content, Algorithm::Sha256).unwrap().digest);
            lab.advance(GONE);
            digests
        },
        |store, digests| {
            let files = store.named().discarding();
            let named = files.set("a moment", &digests[0], strongroom::PutNamed::new());
            named.and_then(|_| files.remove("a moment", strongroom::ExpectNamed::Any)).is_ok()
        },
        |_, store, digests, came_in_time, report| {
            survived.set(survived.get() + u64::from(is_whole(store, &digests[0])));
            assert_eq!(report.rescued, u64::from(came_in_time && is_whole(store, &digests[0])));
            collect(store);
            assert_eq!(store.blobs().count(), 0, "nobody relies on it any more");
        },
    );
    assert_eq!(survived.into_inner(), 1, "between the two");
}

#[test]
fn a_blob_is_mounted_from_a_repository_that_is_being_deleted() {
    at_each_step(
        |lab, store| {
            let [ours, theirs] = ["a/ours", "a/theirs"].map(|name| create(store, name));
            let digests = two(&theirs);
            push(&theirs, image(&digests, None), &["v1"]);
            let old = store.put("old", Algorithm::Sha256).unwrap().digest;
            lab.advance(GONE);
            drop(ours);
            (digests, old)
        },
        |store, (digests, _)| {
            let ours = store.repository(&name("a/ours")).unwrap();
            let before = ours.mount(&digests[0], &name("a/theirs"), |_| true);
            store.delete_repository(&name("a/theirs"), RepositoryDeletion::WithContents).unwrap();
            let after = ours.mount(&digests[1], &name("a/theirs"), |_| true);
            (before, after)
        },
        |_, store, (digests, old), (before, after), _| {
            before.unwrap();
            assert!(is_gone(&after), "the repository is not there any more");
            collect(store);
            let ours = store.repository(&name("a/ours")).unwrap();
            assert!(is_whole(store, &digests[0]) && ours.stat(&digests[0]).is_ok());
            assert!(is_gone(&store.get(&digests[1])) && is_gone(&store.get(old)));
        },
    );
}

#[test]
fn an_index_is_deleted_while_its_child_is_pulled() {
    let lab = Lab::new();
    let store = open(&lab);
    let ours = create(&store, "a/ours");
    let layer = blob(&ours, &"layer ".repeat(1000));
    let small = blob(&ours, "small");
    let child = push(&ours, image(&[small, layer], None), &[]);
    let parent = push(&ours, index(&[child], None), &["v1"]);
    let manifest = ours.pull_manifest(&child.into()).unwrap();
    let [layer_handle, small_handle] = [layer, small].map(|digest| ours.get(&digest).unwrap());
    let document = store.get(&child).unwrap();
    for digest in [parent, child] {
        ours.delete_manifest(&digest).unwrap();
    }
    lab.advance(GONE);
    let report = collect(&store);
    assert_eq!((report.links, report.blobs), (2, 4));
    assert!(report.held_bytes > 0, "its readers are not done");
    assert_eq!(layer_handle.bytes().unwrap(), "layer ".repeat(1000));
    assert_eq!(small_handle.bytes().unwrap(), "small");
    assert_eq!(document.bytes().unwrap(), manifest.content);
    layer_handle.verify().unwrap();
    drop((layer_handle, small_handle, document));
    assert_eq!(collect(&store).held_bytes, 0);
    assert_eq!(store.blobs().count(), 0);
}

#[test]
fn a_referrer_is_pushed_while_its_subject_goes() {
    at_each_step(
        |lab, store| {
            let ours = create(store, "a/ours");
            let subject = push_image(&ours, "image", &["v1"]);
            ours.delete_manifest(&subject).unwrap();
            let signature = blob(&ours, "signature");
            lab.advance(GONE);
            ours.claim(&signature).unwrap();
            (subject, signature)
        },
        |store, (subject, signature)| {
            let ours = store.repository(&name("a/ours")).unwrap();
            push(&ours, image(&[*signature], Some(subject)), &[])
        },
        |lab, store, (subject, signature), referrer, _| {
            lab.advance(10 * GONE);
            collect(store);
            let ours = store.repository(&name("a/ours")).unwrap();
            assert!(is_unknown(&ours.get_manifest(&(*subject).into())));
            let listed = ours.referrers(subject, None, None, 9).unwrap().items;
            assert_eq!(listed.iter().map(|one| one.digest).collect::<Vec<_>>(), [referrer]);
            assert!(is_whole(store, signature) && is_whole(store, &referrer));
            assert_eq!(store.blobs().count(), 2, "the subject and its blob are gone");
        },
    );
}

#[test]
fn an_upload_is_committed_while_it_expires() {
    for content in ["short".to_owned(), "long".repeat(2000)] {
        let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
        at_each_step(
            |lab, store| {
                let ours = create(store, "a/ours");
                let dead = ours.begin_upload(Algorithm::Sha256).unwrap();
                ours.append_upload(dead, 0, "nobody goes on with this").unwrap();
                let upload = ours.begin_upload(Algorithm::Sha256).unwrap();
                ours.append_upload(upload, 0, &content).unwrap();
                store.put("old", Algorithm::Sha256).unwrap();
                lab.advance(GONE);
                upload
            },
            |store, upload| store.repository(&name("a/ours")).unwrap().commit_upload(*upload, digest),
            |_, store, _, committed, report| {
                collect(store);
                match committed {
                    Ok(_) => assert!(is_whole(store, &digest), "what was committed is there"),
                    Err(Error::UploadNotFound { .. }) => assert!(is_gone(&store.get(&digest))),
                    Err(other) => panic!("{other}"),
                }
                assert!(report.uploads >= 1);
                assert!(store.repository(&name("a/ours")).unwrap().uploads(None, 1000).unwrap().items.is_empty());
            },
        );
    }
}

#[test]
fn an_upload_that_goes_on_does_not_expire() {
    let lab = Lab::new();
    let store = open(&lab);
    let upload = store.begin_upload(Algorithm::Sha256).unwrap();
    for offset in 0..5 {
        lab.advance(700);
        store.append_upload(upload, offset, "x").unwrap();
        assert_eq!(collect(&store).uploads, 0);
    }
    store.commit_upload(upload, Digest::of(Algorithm::Sha256, b"xxxxx")).unwrap();
}

#[test]
fn a_segment_is_compacted_away_under_its_reader() {
    use std::io::Read as _;
    // Mapped and read by position: on a disk that is one, since only there files are mapped.
    for mode in [strongroom::ReadMode::Mapped, strongroom::ReadMode::Positioned] {
        let dir = tempfile::tempdir().unwrap();
        let clock = strongroom::Clock::manual();
        let options =
            crate::common::small(strongroom::Options::new(), &clock).read_mode(mode).history(0).inline_max(4 << 20);
        let store = options.log_file_size(256 << 10).open(dir.path()).unwrap();
        let contents: Vec<Vec<u8>> = (0..30).map(|n| crate::common::Random(n).bytes(30_000)).collect();
        let digests: Vec<_> =
            contents.iter().map(|content| store.put(content, Algorithm::Sha256).unwrap().digest).collect();
        let kept: Vec<_> = (0..30).step_by(3).collect();
        for n in &kept {
            store.named().set(&n.to_string(), &digests[*n], strongroom::PutNamed::new()).unwrap();
        }
        let handles: Vec<_> = digests.iter().map(|digest| store.get(digest).unwrap()).collect();
        let bytes = handles[3].bytes().unwrap();
        let mut reader = handles[6].reader();
        let mut half = vec![0; 15_000];
        reader.read_exact(&mut half).unwrap();
        clock.advance(std::time::Duration::from_secs(1000));
        let report = collect(&store);
        assert_eq!((report.blobs, report.moved), (20, 10), "{report:?}");
        assert!(report.held_bytes > 0 && report.files > 0);
        reader.read_to_end(&mut half).unwrap();
        assert_eq!(half, contents[6]);
        for (handle, content) in handles.iter().zip(&contents) {
            assert_eq!(handle.bytes().unwrap(), content, "also what is gone since");
        }
        drop((handles, reader));
        assert_eq!(bytes, contents[3]);
        let held = collect(&store).held_bytes;
        assert_eq!(held > 0, mode == strongroom::ReadMode::Mapped, "a part of the mapping, or a copy");
        drop(bytes);
        assert_eq!(collect(&store).held_bytes, 0);
        for n in kept {
            assert!(is_whole(&store, &digests[n]));
        }
        assert_sound(&store);
    }
}

#[test]
fn a_dry_run_changes_nothing_and_tells_what_then_comes_to_pass() {
    let lab = Lab::new();
    let store = open(&lab);
    let ours = create(&store, "a/ours");
    for n in 0..40 {
        push_image(&ours, &format!("image {n}"), &[&format!("v{n}")]);
        store.put(format!("loose {n}").repeat(50), Algorithm::Sha256).unwrap();
    }
    let shared = blob(&ours, "shared");
    let document = push_document(&ours, "document", &[]);
    store
        .named()
        .set("soon", &shared, strongroom::PutNamed::new().expires_after(std::time::Duration::from_secs(1)))
        .unwrap();
    for n in 0..30 {
        ours.delete_manifest(&ours.resolve(&tag(&format!("v{n}"))).unwrap().digest).unwrap();
    }
    lab.advance(GONE);
    let before = (store.last_lsn(), store.usage().unwrap());
    let would = store.collect(&CollectOptions::new().max_dead(0).dry_run(true), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((store.last_lsn(), store.usage().unwrap()), before);
    let done = collect(&store);
    let counts = |one: &Collection| (one.named, one.uploads, one.links, one.blobs, one.blob_bytes, one.to_move_bytes);
    assert_eq!(counts(&would), counts(&done));
    assert_eq!((done.named, done.links, done.blobs), (1, 31, 30 + 30 + 40 + 1));
    assert_eq!(would.files, done.files);
    assert!(is_whole(&store, &document) && done.freed_bytes > 0);
    assert_sound(&store);
}
