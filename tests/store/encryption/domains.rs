//! Domains are apart: what one has is nothing to another, and what was shredded is gone, and nothing else.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use strongroom::registry::{Event, EventKind, ExpectTag, Reference, RepositoryDeletion, RepositorySettings, Subject};
use strongroom::vfs::{Fault, SimVfs};
use strongroom::{Algorithm, CollectOptions, Digest, Error, ExpectNamed, Lsn, NamedFiles, PutNamed, Store};

use super::disk::{files, records, runs_in};
use super::lab::{
    DOMAINS, Keeper, Known, Seen, assert_sound, build, domain, events, fill, finish, open, options, repository_of,
    rewrite, see,
};
use crate::common::registry::{name, push_image, tag};
use crate::common::{Random, seed, tell};

fn in_domain(name: &str) -> RepositorySettings {
    RepositorySettings::new().domain(domain(name))
}

/// A store with two domains and a repository in each.
fn two_domains() -> (SimVfs, Store) {
    let disk = SimVfs::new();
    let store = open(&disk, Some(&Keeper::new(1))).unwrap();
    for name_of in DOMAINS {
        store.create_domain(&domain(name_of), None).unwrap();
        store.create_repository(&name(&repository_of(Some(name_of))), in_domain(name_of)).unwrap();
    }
    (disk, store)
}

/// What can be seen of a push from outside: how the store grows, and by how much what is written does.
fn push_once(content: &[u8], is_there: bool) -> ((u64, u64), usize, Vec<usize>, Vec<u64>) {
    let (disk, store) = two_domains();
    let one = store.repository(&name(&repository_of(Some(DOMAINS[0])))).unwrap();
    let other = store.repository(&name(&repository_of(Some(DOMAINS[1])))).unwrap();
    // As much in either case, and only in one of them the same.
    let mut theirs = content.to_vec();
    if !is_there {
        theirs.reverse();
        theirs[0] ^= 1;
    }
    other.put(&theirs, Algorithm::Sha256).unwrap();
    let digest = Digest::of(Algorithm::Sha256, content);
    assert!(matches!(one.get(&digest), Err(Error::BlobNotFound { .. })));
    assert!(matches!(one.stat(&digest), Err(Error::BlobNotFound { .. })));
    assert!(matches!(one.claim(&digest), Err(Error::BlobNotFound { .. })));
    assert!(matches!(store.exists(&digest), Ok(false)));
    assert!(matches!(store.get(&digest), Err(Error::BlobNotFound { .. })));
    let refused =
        one.put_manifest("a document", strongroom::registry::PutManifest::new("text/plain").references([digest], []));
    let Err(Error::ReferencesMissing { blobs, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(blobs, [digest]);
    let before = store.usage().unwrap();
    let written =
        |disk: &SimVfs| files(disk, "log").iter().map(|log| records(&disk.read_file(log).unwrap())).collect::<Vec<_>>();
    let (records_before, operations) = (written(&disk), disk.operations());
    assert_eq!(one.put_reader(content, Algorithm::Sha256).unwrap().digest, digest);
    // Pushed as an upload, too, and again.
    let upload = one.begin_upload(Algorithm::Sha256).unwrap();
    one.append_upload(upload, 0, content).unwrap();
    one.commit_upload(upload, digest).unwrap();
    one.put(content, digest).unwrap();
    let after = store.usage().unwrap();
    let grown = (after.live_bytes - before.live_bytes, after.blobs - before.blobs);
    let lens = written(&disk).into_iter().flatten().map(|record| record.whole.len()).collect::<Vec<_>>();
    let lens = lens[records_before.iter().flatten().count()..].to_vec();
    let segments = files(&disk, "seg").iter().map(|path| disk.read_file(path).unwrap().len() as u64).collect();
    (grown, (disk.operations() - operations) as usize, lens, segments)
}

#[test]
fn what_another_domain_has_changes_nothing_that_a_push_takes_or_says() {
    for len in [100, 1500, 5000, 70_000] {
        let content = Random(len).bytes(len as usize);
        let (there, not) = (push_once(&content, true), push_once(&content, false));
        assert_eq!(there, not, "{len} bytes");
        assert!(there.0.0 >= len && there.0.1 == 1);
    }
}

#[test]
fn mounting_from_another_domain_gives_the_content_and_shares_nothing() {
    let (_, store) = two_domains();
    let [one, other] = DOMAINS.map(|domain| store.repository(&name(&repository_of(Some(domain)))).unwrap());
    for (n, len) in [200, 70_000].into_iter().enumerate() {
        let content = Random(len).bytes(len as usize);
        let digest = one.put(&content, Algorithm::Blake3).unwrap().digest;
        let before = store.usage().unwrap();
        assert!(matches!(other.mount(&digest, one.name(), |_| false), Err(Error::BlobNotFound { .. })));
        other.mount(&digest, one.name(), |_| true).unwrap();
        let after = store.usage().unwrap();
        assert!(after.live_bytes - before.live_bytes >= len && after.blobs == before.blobs + 1, "{n}");
        one.remove_blob(&digest).unwrap();
        assert_eq!(other.get(&digest).unwrap().bytes().unwrap(), content);
        assert!(matches!(one.get(&digest), Err(Error::BlobNotFound { .. })));
    }
    store.delete_repository(one.name(), RepositoryDeletion::WithContents).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(other.blobs(None, 9).unwrap().items.len(), 2);
    store.shred_domain(&domain(DOMAINS[0])).unwrap();
    for blob in other.blobs(None, 9).unwrap().items {
        other.get(&blob.digest).unwrap().verify().unwrap();
    }
    assert_sound(&store);
}

/// What is left when a domain is gone.
pub fn without(seen: &Seen, known: &Known, gone: &str) -> (Seen, Known) {
    let (mut seen, mut known) = (seen.clone(), known.clone());
    let domain = gone;
    let gone = repository_of(Some(gone));
    seen.uploads.retain(|id, (owner, _)| {
        let stays = *owner != Some(gone.clone());
        if !stays {
            known.uploads.remove(id);
        }
        stays
    });
    seen.repositories.remove(&gone);
    seen.files.retain(|(owner, _), _| owner.as_deref() != Some(domain));
    (seen, known)
}

/// That nothing of a shredded domain can be had.
pub fn assert_gone(store: &Store, disk: &SimVfs, keeper: &Keeper, what: &str) {
    let gone = name(&repository_of(Some(what)));
    assert!(matches!(store.repository(&gone), Err(Error::RepositoryNotFound { .. })));
    assert!(!store.repositories(None, 99).unwrap().items.contains(&gone));
    assert!(store.domains().iter().all(|domain| domain.number != 1 && domain.name != Some(self::domain(what))));
    assert!(matches!(store.rotate_data_key(Some(&domain(what))), Err(Error::DomainNotFound { .. })));
    assert!(events(store).unwrap().iter().all(|event| event.repository() != Some(&gone)));
    for wrapped in keeper.wrapped(1) {
        for path in disk.files() {
            let bytes = disk.read_file(&path).unwrap();
            let is_there = bytes.windows(16).any(|window| window == &wrapped[13..29]);
            assert!(!is_there, "the wrapped key in {}", path.display());
        }
    }
    // Its segments are gone.
    for path in files(disk, "seg") {
        assert_ne!(disk.read_file(&path).unwrap()[12..16], [1, 0, 0, 0], "{} is one of its segments", path.display());
    }
}

#[test]
fn of_a_shredded_domain_nothing_is_left_and_of_the_others_all_is() {
    let keeper = Keeper::new(1);
    let (disk, known) = build(Some(&keeper));
    let store = open(&disk, Some(&keeper)).unwrap();
    let seen = see(&store);
    let (rest, known) = without(&seen, &known, DOMAINS[0]);
    let repository = store.repository(&name(&repository_of(Some(DOMAINS[0])))).unwrap();
    // Pulls that were not noted yet, an upload in memory, handles that are open, a commit that comes too late.
    let tags = repository.tags(None, 9).unwrap().items;
    repository.pull_manifest(&Reference::Tag(tags[0].clone())).unwrap();
    let upload = repository.begin_upload(Algorithm::Sha256).unwrap();
    repository.append_upload(upload, 0, vec![7; 70_000]).unwrap();
    let long = repository.blobs(None, 99).unwrap().items.into_iter().max_by_key(|blob| blob.len).unwrap();
    let (handle, bytes) =
        (repository.get(&long.digest).unwrap(), repository.get(&long.digest).unwrap().bytes().unwrap());
    let late = repository.get(&long.digest).unwrap();
    store.shred_domain(&domain(DOMAINS[0])).unwrap();
    assert_gone(&store, &disk, &keeper, DOMAINS[0]);
    assert_eq!(bytes.len() as u64, long.len);
    let _ = (handle.bytes(), late.verify()); // whatever it is, no panic
    let refused = [
        repository.put("more", Algorithm::Sha256).err(),
        repository.get(&long.digest).err(),
        repository.append_upload(upload, 70_000, "more").err(),
        repository.commit_upload(upload, Digest::of(Algorithm::Sha256, &vec![7; 70_000])).err(),
        repository.begin_upload(Algorithm::Sha256).err(),
        repository.tag(&tag("late"), &long.digest, ExpectTag::Any).err(),
        repository.blobs(None, 9).err(),
        repository.tags(None, 9).err(),
        repository.pull_manifest(&Reference::Tag(tags[0].clone())).err(),
        store.create_repository(&name("too/late"), in_domain(DOMAINS[0])).err(),
    ];
    for error in refused {
        let error = error.expect("refused");
        let is_told = matches!(
            error,
            Error::RepositoryNotFound { .. }
                | Error::DomainShredded { .. }
                | Error::DomainNotFound { .. }
                | Error::BlobNotFound { .. }
                | Error::UploadNotFound { .. }
        );
        assert!(is_told, "{error}");
    }
    let compare = |store: &Store, when: &str| {
        let seen = see(store);
        assert!(seen == rest, "{when}: {}", seen.difference(&rest));
    };
    compare(&store, "shredded");
    store.checkpoint().unwrap();
    compare(&store, "folded");
    // The name of the repository is free, and so is the domain's; what comes is another one.
    store.create_domain(&domain(DOMAINS[0]), None).unwrap();
    let mut again = Known::default();
    fill(&store, Some(DOMAINS[0]), 9, &mut again);
    let new = see(&store);
    assert_eq!(new.repositories.len(), rest.repositories.len() + 1);
    assert_gone_number(&store, 1);
    store.shred_domain(&domain(DOMAINS[0])).unwrap();
    compare(&store, "shredded again");
    rewrite(&store);
    store.close().unwrap();
    let store = open(&disk, Some(&keeper)).unwrap();
    compare(&store, "opened again");
    finish(&store, &known);
    store.close().unwrap();
}

fn assert_gone_number(store: &Store, number: u32) {
    let domains = store.domains();
    assert!(domains.iter().all(|domain| domain.number != number) && domains.len() == 3, "{domains:?}");
}

#[test]
fn after_a_domain_was_shredded_maintenance_and_closing_go_on() {
    // What waited to be noted for it has nowhere to go.
    let keeper = Keeper::new(1);
    let disk = SimVfs::new();
    let store = open(&disk, Some(&keeper)).unwrap();
    store.create_domain(&domain(DOMAINS[0]), None).unwrap();
    let repository = store.create_repository(&name("the/tenants"), in_domain(DOMAINS[0])).unwrap();
    push_image(&repository, "content", &["v1"]);
    repository.pull_manifest(&"v1".parse().unwrap()).unwrap();
    store.shred_domain(&domain(DOMAINS[0])).unwrap();
    let digest = store.put("others go on", Algorithm::Sha256).unwrap().digest;
    store.named().set("a-pin", &digest, PutNamed::new()).unwrap();
    store.checkpoint().unwrap();
    store.merge_runs().unwrap();
    store.close().unwrap();
    let store = open(&disk, Some(&keeper)).unwrap();
    assert_eq!(store.get(&digest).unwrap().bytes().unwrap(), "others go on");
    assert_sound(&store);
}

#[test]
fn a_crash_while_a_domain_is_shredded_leaves_it_whole_or_shredded() {
    let seed = seed(0x5ed);
    let keeper = Keeper::new(1);
    let (disk, known) = build(Some(&keeper));
    let seen = see(&open(&disk.restarted(), Some(&keeper)).unwrap());
    let (rest, rest_known) = without(&seen, &known, DOMAINS[0]);
    let counting = disk.restarted();
    let store = open(&counting, Some(&keeper)).unwrap();
    let first = counting.operations() + 1;
    store.shred_domain(&domain(DOMAINS[0])).unwrap();
    let last = counting.operations();
    drop(store);
    let (mut whole, mut shredded) = (0, 0);
    for k in first..=last {
        let mut draws = Random(seed ^ k << 20);
        for fault in [Fault::PowerCut, Fault::PowerCut, Fault::FailedSync, Fault::Error, Fault::Full] {
            let draw = draws.next();
            let disk = disk.restarted();
            let store = open(&disk, Some(&keeper)).unwrap();
            disk.fault_at(k, fault);
            let result = store.shred_domain(&domain(DOMAINS[0]));
            let context = format!("seed {seed}: {fault:?} at {k} of {first}..={last}, draw {draw}: {result:?}");
            let left = if fault == Fault::PowerCut && draw.is_multiple_of(2) {
                disk.restarted()
            } else {
                disk.power_cut(draw)
            };
            drop(store);
            left.free_space();
            let store = open(&left, Some(&keeper)).unwrap_or_else(|error| panic!("{context}: {error}"));
            let found = see(&store);
            let is_gone = found == rest;
            assert!(is_gone || found == seen, "{context}: {}", found.difference(&rest));
            assert!(is_gone || result.is_err(), "{context}: it was said to be gone");
            if is_gone {
                assert_gone(&store, &left, &keeper, DOMAINS[0]);
                shredded += 1;
            } else {
                whole += 1;
            }
            let digest = store.put("and on it goes", Algorithm::Sha256).unwrap().digest;
            let again = open(&left.power_cut(draw ^ 1), Some(&keeper)).unwrap();
            assert_eq!(again.get(&digest).unwrap().bytes().unwrap(), "and on it goes", "{context}");
            again.remove(&digest).unwrap();
            assert!(see(&again) == found, "{context}: opened again");
            drop(again);
            if !is_gone {
                store.shred_domain(&domain(DOMAINS[0])).unwrap();
                assert_gone(&store, &left, &keeper, DOMAINS[0]);
            }
            if draw.is_multiple_of(4) {
                rewrite(&store);
            }
            finish(&store, &rest_known);
            assert_sound(&store);
            store.close().unwrap_or_else(|error| panic!("{context}: closing: {error}"));
        }
    }
    assert!(whole > 10 && shredded > 10, "{whole} {shredded}");
    tell(&format!(
        "shred_domain: {} crash points, {whole} times whole and {shredded} times shredded",
        last + 1 - first
    ));
}

#[test]
fn two_domains_with_the_same_content_never_look_alike_on_disk() {
    let (disk, store) = two_domains();
    let content = Random(3).bytes(70_000);
    for domain in DOMAINS {
        let repository = store.repository(&name(&repository_of(Some(domain)))).unwrap();
        repository.put(&content[..1000], Algorithm::Sha256).unwrap();
        repository.put(&content, Algorithm::Sha256).unwrap();
        push_image(&repository, "the same image", &["the-same-tag"]);
    }
    store.checkpoint().unwrap();
    store.close().unwrap();
    // No 16 bytes of ciphertext come twice. (Headers of records have lengths in common, and there are zeros.)
    let (mut seen, mut blocks) = (BTreeSet::new(), 0);
    for path in disk.files().iter().filter(|path| path.extension().is_some()) {
        let bytes = disk.read_file(path).unwrap();
        let encrypted = match path.extension().unwrap().to_str() {
            Some("log") => records(&bytes).into_iter().flat_map(|record| [record.frame, record.body]).collect(),
            Some("run") => runs_in(&bytes).into_iter().map(|run| run.start + 512..run.end).collect(),
            _ => [(512, bytes.len())].map(|(from, to)| from..to).to_vec(),
        };
        for range in encrypted {
            for block in bytes[range].chunks_exact(16).filter(|block| block.iter().any(|byte| *byte != 0)) {
                assert!(seen.insert(block.to_vec()), "{block:02x?} in {}", path.display());
                blocks += 1;
            }
        }
    }
    assert!(blocks > 8000, "{blocks}");
}

#[test]
fn events_of_all_domains_come_in_one_order_and_go_with_their_domain() {
    let keeper = Keeper::new(1);
    let disk = SimVfs::new();
    let store = options(&disk, Some(&keeper)).history(1 << 40).open("/store").unwrap();
    for name_of in DOMAINS {
        store.create_domain(&domain(name_of), None).unwrap();
        store.create_repository(&name(&repository_of(Some(name_of))), in_domain(name_of)).unwrap();
    }
    for n in 0..4 {
        for domain in DOMAINS {
            let repository = store.repository(&name(&repository_of(Some(domain)))).unwrap();
            push_image(&repository, &format!("image {n}"), &["latest"]);
        }
    }
    let all = events(&store).unwrap();
    let of = |name_of: &str| {
        let number = 1 + DOMAINS.iter().position(|domain| *domain == name_of).unwrap() as u32;
        let own: Vec<_> = all.iter().filter(move |event| event.domain == number).cloned().collect();
        let named = name(&repository_of(Some(name_of)));
        let is_own = |event: &Event| event.repository().is_none_or(|repository| *repository == named);
        assert!(own.iter().any(|event| event.repository().is_some()) && own.iter().all(is_own));
        own
    };
    assert_eq!(of(DOMAINS[0]).len(), of(DOMAINS[1]).len());
    assert!(of(DOMAINS[0]).iter().any(|event| matches!(event.kind, EventKind::Tagged { .. })));
    store.shred_domain(&domain(DOMAINS[0])).unwrap();
    assert_eq!(events(&store).unwrap(), of(DOMAINS[1]));
    assert_eq!(store.events(Lsn::default(), 1).unwrap().events[0], of(DOMAINS[1])[0]);
    store.close().unwrap();
    let store = options(&disk, Some(&keeper)).history(1 << 40).open("/store").unwrap();
    assert_eq!(events(&store).unwrap(), of(DOMAINS[1]));
}

#[test]
fn named_files_of_a_domain_share_neither_names_nor_content_with_others_and_go_with_it() {
    let keeper = Keeper::new(1);
    let disk = SimVfs::new();
    let store = options(&disk, Some(&keeper)).retention(Duration::ZERO).open("/store").unwrap();
    store.create_domain(&domain(DOMAINS[0]), None).unwrap();
    let (ours, theirs) = (store.named(), store.named_in(&domain(DOMAINS[0])).unwrap());
    for len in [60, 70_000] {
        let name = format!("a/{len}");
        for (n, files) in [&ours, &theirs].into_iter().enumerate() {
            let content = Random(n as u64).bytes(len);
            assert!(!files.put(&name, &content, PutNamed::new()).unwrap().existed);
            assert_eq!(files.get(&name).unwrap().blob.bytes().unwrap(), content);
        }
        let digest = theirs.stat(&name).unwrap().digest;
        assert!(!store.exists(&digest).unwrap());
        assert!(matches!(ours.set("other", &digest, PutNamed::new()), Err(Error::BlobNotFound { .. })));
        theirs.set(&format!("b/{len}"), &digest, PutNamed::new().references([digest])).unwrap();
        let again = ours.put("copy", Random(1).bytes(len), PutNamed::new()).unwrap();
        assert!(!again.existed, "content is stored once in each domain");
        ours.discarding().remove("copy", ExpectNamed::Any).unwrap();
    }
    // An upload belongs to the domain that it was begun in.
    let upload = theirs.begin_upload(Algorithm::Sha256).unwrap();
    theirs.append_upload(upload, 0, "an upload").unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"an upload");
    assert!(matches!(ours.put_upload("c", upload, digest, PutNamed::new()), Err(Error::UploadNotFound { .. })));
    assert!(matches!(store.upload_status(upload), Err(Error::UploadNotFound { .. })));
    assert_eq!(theirs.upload_status(upload).unwrap().offset, 9);
    theirs.put_upload("c", upload, digest, PutNamed::new()).unwrap();
    let names = |files: &NamedFiles| files.iter("").map(|file| file.unwrap().name).collect::<Vec<_>>();
    assert_eq!((names(&ours), names(&theirs).len()), (vec!["a/60".into(), "a/70000".into()], 5));
    assert_eq!(theirs.remove_prefix("b/").unwrap().removed, 2);
    theirs.put("d", "d", PutNamed::new().expires_after(Duration::from_nanos(1))).unwrap();
    let is_theirs = |event: &Event| event.subject == Subject::NamedFile("d".into());
    assert!(events(&store).unwrap().iter().filter(|event| is_theirs(event)).all(|event| event.domain == 1));
    store.clone().close().unwrap();

    let store = options(&disk, Some(&keeper)).retention(Duration::ZERO).open("/store").unwrap();
    let (ours, theirs) = (store.named(), store.named_in(&domain(DOMAINS[0])).unwrap());
    assert_eq!(
        (names(&ours).len(), names(&theirs)),
        (2, vec!["a/60".into(), "a/70000".into(), "c".into(), "d".into()])
    );
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert_sound(&store);
    store.shred_domain(&domain(DOMAINS[0])).unwrap();
    let is_gone = |result: Result<(), Error>| matches!(result, Err(Error::DomainShredded { domain: 1 }));
    assert!(is_gone(theirs.get("c").map(drop)) && is_gone(theirs.list("", None, 9).map(drop)));
    assert!(is_gone(theirs.put("c", "c", PutNamed::new()).map(drop)));
    assert!(is_gone(theirs.remove_prefix("").map(drop)));
    assert!(matches!(store.named_in(&domain(DOMAINS[0])), Err(Error::DomainNotFound { .. })));
    assert_eq!(names(&ours).len(), 2);
    assert_sound(&store);
}
