//! What is under names while others remove it, and pushes that come slowly.

use std::io::{self, Read};
use std::time::Duration;

use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, Digest, Durability, Error, Store};

use super::{RETENTION, any, collect, lab};
use crate::common::{Random, options};

/// Yields content, and does something before each piece.
struct Slow<'a, F> {
    content: &'a [u8],
    before: F,
}

impl<F: FnMut()> Read for Slow<'_, F> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        (self.before)();
        let len = to.len().min(10_000);
        self.content.read(&mut to[..len])
    }
}

fn long() -> (Vec<u8>, Digest) {
    let content = Random(3).bytes(2_500_000);
    let digest = Digest::of(Algorithm::Sha256, &content);
    (content, digest)
}

#[test]
fn the_grace_period_of_a_slow_push_of_what_is_there_is_that_of_its_answer() {
    let (clock, store) = lab();
    let (content, digest) = long();
    store.put(&content, digest).unwrap();
    // 250 pieces: it takes longer than the grace period.
    let before = || {
        clock.advance(RETENTION / 200);
        collect(&store);
    };
    assert!(store.put_reader(Slow { content: &content, before }, digest).unwrap().existed);
    clock.advance(RETENTION / 2);
    collect(&store);
    assert_eq!(store.get(&digest).unwrap().bytes().unwrap(), content);
}

#[test]
fn a_name_is_set_to_the_content_that_its_caller_brought_whoever_removes_that_meanwhile() {
    let (clock, store) = lab();
    let (content, digest) = long();
    store.put(&content, digest).unwrap();
    let mut is_first = true;
    let before = || {
        if std::mem::take(&mut is_first) {
            store.remove(&digest).unwrap();
        }
    };
    let slow = Slow { content: &content, before };
    let written = store.named().put_reader("a", slow, any().digest(digest)).unwrap();
    assert!(!written.existed);
    clock.advance(2 * RETENTION);
    collect(&store);
    assert_eq!(store.named().get("a").unwrap().blob.bytes().unwrap(), content);
}

#[test]
fn what_is_discarded_goes_however_it_was_written() {
    let (clock, store) = lab();
    clock.advance(Duration::from_secs(1));
    let (content, digest) = long();
    let files = store.named().discarding();
    for again in [0, 1] {
        files.put("first", &content, any()).unwrap();
        match again {
            0 => files.put("second", &content, any().digest(digest)).unwrap(),
            _ => files.put_reader("second", &content[..], any().digest(digest)).unwrap(),
        };
        assert_eq!(files.remove_prefix("").unwrap().removed, 2);
        collect(&store);
        assert!(!store.exists(&digest).unwrap(), "{again}");
    }
}

#[test]
fn a_removal_that_finds_nothing_is_as_durable_as_one_that_does() {
    for remove in [
        |store: &Store| store.named().remove_prefix("go").map(drop),
        |store: &Store| store.named().remove_many(&[] as &[&str]).map(drop),
    ] {
        let disk = SimVfs::new();
        let open = |disk: &SimVfs| options(disk, &Clock::manual()).open("/store").unwrap();
        let store = open(&disk);
        store.named().put("gone", "content", any()).unwrap();
        let relaxed = store.with_durability(Durability::Relaxed).named();
        relaxed.remove("gone", strongroom::ExpectNamed::Any).unwrap();
        remove(&store).unwrap();
        for seed in 0..12 {
            assert!(open(&disk.power_cut(seed)).named().stat("gone").is_err(), "seed {seed}");
        }
    }
}

#[test]
fn no_name_is_set_to_content_that_is_known_to_be_damaged() {
    let disk = SimVfs::new();
    let store = options(&disk, &Clock::manual()).open("/store").unwrap();
    let (content, digest) = long();
    store.put(&content, digest).unwrap();
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "seg");
    let segment = disk.files().into_iter().find(is_segment).unwrap();
    disk.tamper(segment, |bytes| bytes[1_000_000] ^= 1).unwrap();
    store.scrub(&strongroom::ScrubOptions::new(), |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert!(store.stat(&digest).unwrap().damaged);
    assert!(matches!(store.named().set("a", &digest, any()), Err(Error::Corrupt { .. })));
    store.named().put("a", &content, any().digest(digest)).unwrap();
    assert!(!store.stat(&digest).unwrap().damaged);
    store.named().set("b", &digest, any()).unwrap();
}

#[test]
fn an_upload_is_committed_under_whatever_digest_it_has_if_its_caller_says_so() {
    let (_, store) = lab();
    let (content, digest) = long();
    let upload = |algorithm| {
        let id = store.begin_upload(algorithm).unwrap();
        store.append_upload(id, None, &content).unwrap();
        id
    };
    let written = store.named().put_upload("a", upload(Algorithm::Sha256), Algorithm::Sha256, any()).unwrap();
    assert_eq!(written.file.digest, digest);
    let stored = store.commit_upload(upload(Algorithm::Blake3), Algorithm::Blake3).unwrap();
    assert_eq!(stored.digest, Digest::of(Algorithm::Blake3, &content));
    // Of another algorithm than it was begun with: it is read again.
    let stored = store.commit_upload(upload(Algorithm::Blake3), Algorithm::Sha256).unwrap();
    assert!(stored.existed && stored.digest == digest);
}
