//! Keys change while everybody works.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use strongroom::registry::RepositorySettings;
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Digest, Error, Maintenance, ReadMode, Store};

use super::lab::{ALGORITHMS, DOMAINS, Keeper, assert_sound, build, domain, finish, open, options, rewrite, see};
use crate::common::registry::name;
use crate::common::{Random, seed, tell};

/// Puts, reads, uploads and removes until it is told to stop, each content checked. Returns what it has left there.
fn work(store: &Store, repository: &str, seed: u64, stop: &AtomicBool, count: &AtomicU64) -> Vec<(Digest, Vec<u8>)> {
    let mut random = Random(seed);
    let mut kept: Vec<(Digest, Vec<u8>)> = Vec::new();
    let repository = store.repository(&name(repository)).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let len = [40, 700, 3000, 70_000][random.below(4) as usize];
        let content = random.bytes(len);
        let algorithm = ALGORITHMS[random.below(3) as usize];
        let digest = Digest::of(algorithm, &content);
        let stored = match random.below(3) {
            0 => upload(&repository, &content, &digest),
            _ => repository.put_reader(&content[..], digest).map(drop),
        };
        match stored {
            Ok(()) => kept.push((digest, content)),
            // What was being written with a key that was given up.
            Err(Error::Key { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        if kept.len() > 12 {
            let (digest, _) = kept.swap_remove(random.below(12) as usize);
            repository.remove_blob(&digest).unwrap();
            drop(store.remove(&digest)); // in the default domain it may go
        }
        if let Some((digest, content)) = kept.get(random.below(kept.len().max(1) as u64) as usize) {
            assert!(repository.get(digest).unwrap().bytes().unwrap() == *content);
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    kept
}

fn upload(repository: &strongroom::registry::Repository, content: &[u8], digest: &Digest) -> Result<(), Error> {
    let id = repository.begin_upload(Algorithm::Sha256)?;
    let mut at = 0;
    while at < content.len() {
        let end = content.len().min(at + 20_000);
        match repository.append_upload(id, at as u64, &content[at..end]) {
            Ok(_) => at = end,
            // Rewriting is at it right now.
            Err(Error::UploadBusy { .. }) => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    loop {
        match repository.commit_upload(id, digest) {
            Err(Error::UploadBusy { .. }) => std::thread::yield_now(),
            other => return other.map(drop),
        }
    }
}

#[test]
fn keys_are_rotated_and_rewritten_while_everybody_works() {
    let seed = seed(0x0e11);
    let keeper = Keeper::new(1);
    let dir = tempfile::tempdir().unwrap();
    let make = || {
        let options = options(&SimVfs::new(), Some(&keeper)).vfs(std::sync::Arc::new(strongroom::vfs::RealVfs));
        options.maintenance(Maintenance::Thread).history(0)
    };
    let store = make().open(dir.path().join("store")).unwrap();
    store.create_domain(&domain(DOMAINS[0]), None).unwrap();
    store.create_repository(&name("in/default"), RepositorySettings::new()).unwrap();
    store.create_repository(&name("in/tenant"), RepositorySettings::new().domain(domain(DOMAINS[0]))).unwrap();
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut rounds = 0;
    let kept = std::thread::scope(|scope| {
        let workers: Vec<_> = ["in/default", "in/tenant", "in/tenant"]
            .iter()
            .zip(0..)
            .map(|(repository, n)| {
                (
                    *repository,
                    scope.spawn({
                        let (store, stop, count) = (&store, &stop, &count);
                        move || work(store, repository, seed + n, stop, count)
                    }),
                )
            })
            .collect();
        let began = std::time::Instant::now();
        while rounds < 6 || began.elapsed().as_secs() < 2 {
            match rounds % 3 {
                0 => store.rotate_data_key(None).unwrap(),
                1 => store.rotate_data_key(Some(&domain(DOMAINS[0]))).unwrap(),
                _ => store.rewrap_keys(keeper.clone()).unwrap(),
            }
            // It may be that an upload is in somebody's hands: that much is left to the next time.
            let report = store.rewrite(|_| ControlFlow::Continue(())).unwrap();
            assert!(report.damaged.is_empty(), "{:?}", report.damaged);
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|(repository, worker)| (repository, worker.join().unwrap())).collect::<Vec<_>>()
    });
    rewrite(&store);
    let check = |store: &Store| {
        for (repository, kept) in &kept {
            let repository = store.repository(&name(repository)).unwrap();
            kept.iter()
                .for_each(|(digest, content)| assert!(repository.get(digest).unwrap().bytes().unwrap() == *content));
        }
        assert_sound(store);
    };
    check(&store);
    store.close().unwrap();
    check(&make().open(dir.path().join("store")).unwrap());
    tell(&format!("{rounds} times keys were changed, beside {} pushes", count.into_inner()));
}

#[test]
fn handles_stay_readable_while_all_is_rewritten() {
    for is_encrypted in [false, true] {
        for mode in [ReadMode::Mapped, ReadMode::Positioned] {
            let keeper = Keeper::new(1);
            let own = is_encrypted.then_some(&keeper);
            let (disk, _) = build(own);
            let store = options(&disk, own).read_mode(mode).open("/store").unwrap();
            let digests: Vec<_> = store.blobs().map(|stat| stat.unwrap().digest).collect();
            let repository = store.repository(&name("default/application")).unwrap();
            let linked: Vec<_> =
                repository.blobs(None, 999).unwrap().items.into_iter().map(|blob| blob.digest).collect();
            let handles: Vec<_> = digests.iter().chain(&linked).map(|digest| store.get(digest).unwrap()).collect();
            // Some were read before, and some were not.
            handles.iter().step_by(2).for_each(|handle| drop(handle.slice(0..handle.len().min(10)).unwrap()));
            match is_encrypted {
                true => store.rotate_data_key(None).unwrap(),
                false => store.encrypt(keeper.clone()).unwrap(),
            }
            rewrite(&store);
            for handle in &handles {
                handle.verify().unwrap();
                assert!(store.get(handle.digest()).unwrap().bytes().unwrap() == handle.bytes().unwrap());
            }
            assert!(handles.len() > 20);
        }
    }
}

#[test]
fn uploads_go_on_through_a_rewrite_wherever_they_stand() {
    // Lengths around a block; with the segment open in this process, and taken up again; before, after and between
    // changes of keys.
    const BLOCK: usize = 65_536;
    for first in [0, 1, 3000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
        for second in [0, 1, BLOCK, BLOCK + 5000] {
            for reopened in 0..4 {
                let keeper = Keeper::new(1);
                let disk = SimVfs::new();
                let mut store = open(&disk, None).unwrap();
                let mut random = Random((first + second) as u64);
                let (one, two, three) = (random.bytes(first), random.bytes(second), random.bytes(777));
                let id = store.begin_upload(Algorithm::Sha256).unwrap();
                let mut at = store.append_upload(id, 0, &one).unwrap();
                if reopened & 1 != 0 {
                    store.close().unwrap();
                    store = open(&disk, None).unwrap();
                }
                store.encrypt(keeper.clone()).unwrap();
                rewrite(&store);
                at = store.append_upload(id, at, &two).unwrap();
                store.rotate_data_key(None).unwrap();
                if reopened & 2 != 0 {
                    store.close().unwrap();
                    store = open(&disk, Some(&keeper)).unwrap();
                }
                rewrite(&store);
                store.append_upload(id, at, &three).unwrap();
                let content = [one, two, three].concat();
                let digest = Digest::of(ALGORITHMS[reopened % 3], &content);
                store.commit_upload(id, digest).unwrap();
                assert!(store.get(&digest).unwrap().bytes().unwrap() == content);
                rewrite(&store);
                assert_sound(&store);
                store.close().unwrap();
                assert!(open(&disk, Some(&keeper)).unwrap().get(&digest).unwrap().bytes().unwrap() == content);
            }
        }
    }
}

#[test]
fn rewriting_stops_when_it_is_told_to_and_goes_on_where_it_was() {
    let keeper = Keeper::new(1);
    let (mut disk, known) = build(Some(&keeper));
    let store = open(&disk, Some(&keeper)).unwrap();
    let seen = see(&store);
    store.rotate_data_key(None).unwrap();
    store.rotate_data_key(Some(&domain(DOMAINS[0]))).unwrap();
    store.close().unwrap();
    let (mut rounds, mut left) = (0, u64::MAX);
    loop {
        let store = open(&disk, Some(&keeper)).unwrap();
        let report = store
            .rewrite(|so_far| if so_far.blobs < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            .unwrap();
        assert!(report.total_bytes <= left, "{} of {left} bytes", report.total_bytes);
        left = report.total_bytes;
        assert!(report.bytes <= report.total_bytes || report.complete);
        rounds += 1;
        assert!(rounds < 200);
        if rounds % 2 == 0 {
            disk = disk.restarted(); // killed
        } else {
            store.close().unwrap();
        }
        if report.complete {
            break;
        }
    }
    let store = open(&disk, Some(&keeper)).unwrap();
    rewrite(&store);
    let found = see(&store);
    assert!(found == seen, "{}", found.difference(&seen));
    finish(&store, &known);
    tell(&format!("rewritten in {rounds} pieces"));
}

#[test]
fn damaged_content_is_reported_and_keeps_its_key_and_all_else_is_rewritten() {
    let keeper = Keeper::new(1);
    let (disk, _) = build(Some(&keeper));
    let segment =
        super::disk::files(&disk, "seg").into_iter().max_by_key(|path| disk.read_file(path).unwrap().len()).unwrap();
    disk.flip_bit(&segment, 8 * 5000).unwrap();
    let store = open(&disk, Some(&keeper)).unwrap();
    store.rotate_data_key(None).unwrap();
    DOMAINS.iter().for_each(|name| store.rotate_data_key(Some(&domain(name))).unwrap());
    let report = store.rewrite(|_| ControlFlow::Continue(())).unwrap();
    assert!(!report.complete);
    assert!(matches!(&report.damaged[..], [Error::Corrupt { file, .. }] if *file == segment), "{:?}", report.damaged);
    let keys: usize = store.domains().iter().map(|domain| domain.keys.len()).sum();
    assert_eq!(keys, 4, "one key is needed still");
    store.close().unwrap();
    // Mended, it is rewritten.
    disk.flip_bit(&segment, 8 * 5000).unwrap();
    let store = open(&disk, Some(&keeper)).unwrap();
    rewrite(&store);
    see(&store);
}
