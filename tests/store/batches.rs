//! Calls on many blobs at a time: what each answers, and what they cost.

use strongroom::registry::Repository;
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, Digest, Durability, Error, Expect, Store};

use crate::common::registry::{create, name};
use crate::common::{Random, options};

fn open(disk: &SimVfs) -> Store {
    options(disk, &Clock::manual()).log_file_size(4 << 20).memtable_size(8 << 20).open("/store").unwrap()
}

fn contents(random: &mut Random, count: usize, len: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| random.bytes(len)).collect()
}

#[test]
fn a_batch_is_written_and_synced_once() {
    let (disk, mut random) = (SimVfs::new(), Random(1));
    let store = open(&disk);
    let repository = create(&store, "team/app");
    store.put("the first commit of a session begins a log file", Algorithm::Sha256).unwrap();
    for (n, len) in [100, 2000].into_iter().enumerate() {
        let contents = contents(&mut random, 64, len);
        let (lsn, before) = (store.last_lsn(), disk.operations());
        let put = contents.iter().map(|content| (content, Algorithm::Blake3));
        let stored = if n == 0 { store.put_many(put).unwrap() } else { repository.put_many(put).unwrap() };
        // Log files grow now and then.
        assert!(disk.operations() - before <= 6, "{} operations for 64 blobs", disk.operations() - before);
        let stored: Vec<_> = stored.into_iter().map(Result::unwrap).collect();
        assert!(stored.windows(2).all(|two| two[0].lsn < two[1].lsn) && stored[0].lsn > lsn);
        assert!(stored.iter().all(|one| !one.existed && one.len == len as u64));

        let before = disk.operations();
        let put = contents.iter().map(|content| (content, Algorithm::Blake3));
        let again = if n == 0 { store.put_many(put).unwrap() } else { repository.put_many(put).unwrap() };
        assert!(again.into_iter().all(|one| one.unwrap().existed));
        assert_eq!(disk.operations(), before, "nothing is written of what is there");
        for cut in 0..10 {
            let left = open(&disk.power_cut(cut));
            let digests: Vec<Digest> = stored.iter().map(|one| one.digest).collect();
            assert!(left.exists_many(&digests).unwrap().into_iter().all(|is_there| is_there));
        }
    }
}

#[test]
fn each_of_a_batch_has_its_own_answer() {
    let store = open(&SimVfs::new());
    let repository = create(&store, "team/app");
    let (small, large) = (b"small".to_vec(), vec![7; 200_000]);
    let wrong = Digest::of(Algorithm::Sha256, b"something else");
    let put_many = |put: Vec<(&[u8], Expect)>| -> [Vec<Result<strongroom::Stored, Error>>; 2] {
        [store.put_many(put.clone()).unwrap(), repository.put_many(put).unwrap()]
    };
    for results in put_many(vec![
        (&small, Algorithm::Sha256.into()),
        (&small, wrong.into()),
        (&large, Algorithm::Sha512.into()),
        (&small, Algorithm::Sha256.into()),
        (&large, wrong.into()),
        (&large, Algorithm::Sha512.into()),
        (b"", Algorithm::Blake3.into()),
    ]) {
        let told: Vec<_> = results
            .iter()
            .map(|one| match one {
                Ok(stored) => Some((stored.len, stored.existed)),
                Err(Error::DigestMismatch { expected, .. }) if *expected == wrong => None,
                Err(error) => panic!("{error}"),
            })
            .collect();
        let (small, large) = (5, 200_000);
        let expected = [Some((small, false)), None, Some((large, false)), Some((small, true)), None];
        assert_eq!(told[..5], expected);
        assert_eq!(told[5..], [Some((large, true)), Some((0, false))]);
    }
    assert!(store.put_many(Vec::<(Vec<u8>, Algorithm)>::new()).unwrap().is_empty());
    let digests = [Digest::of(Algorithm::Sha256, &small), wrong, Digest::of(Algorithm::Sha512, &large)];
    let found = repository.get_many(&digests).unwrap();
    assert_eq!(found[0].as_ref().unwrap().bytes().unwrap(), small);
    assert!(matches!(&found[1], Err(Error::BlobNotFound { digest }) if *digest == wrong));
    assert_eq!(found[2].as_ref().unwrap().bytes().unwrap(), large);
    let found = store.get_many(&digests).unwrap();
    assert!(found[0].is_ok() && found[1].is_err() && found[2].is_ok());
    let lens = |stats: Vec<Option<u64>>| assert_eq!(stats, [Some(5), None, Some(200_000)]);
    lens(store.stat_many(&digests).unwrap().into_iter().map(|one| one.map(|one| one.len)).collect());
    lens(repository.stat_many(&digests).unwrap().into_iter().map(|one| one.map(|one| one.len)).collect());

    // Another repository has none of it, and is not told that others do.
    let other = create(&store, "team/other");
    assert!(other.stat_many(&digests).unwrap().iter().all(Option::is_none));
    assert!(other.get_many(&digests).unwrap().iter().all(Result::is_err));
    assert!(other.claim_many(&digests).unwrap().iter().all(Result::is_err));
    assert!(!other.put_many([(&small, Algorithm::Sha256)]).unwrap()[0].as_ref().unwrap().existed);
}

#[test]
fn many_claims_are_one_commit() {
    let (clock, disk) = (Clock::manual(), SimVfs::new());
    let store = options(&disk, &clock).log_file_size(4 << 20).open("/store").unwrap();
    let repository = create(&store, "team/app");
    let contents = contents(&mut Random(2), 200, 40);
    let digests = |through: &dyn Fn() -> Vec<Result<strongroom::Stored, Error>>| -> Vec<Digest> {
        through().into_iter().map(|one| one.unwrap().digest).collect()
    };
    let put = || contents.iter().map(|content| (content, Algorithm::Blake3));
    let outside = digests(&|| store.put_many(put()).unwrap());
    let inside = digests(&|| repository.put_many(put()).unwrap());
    clock.advance(std::time::Duration::from_secs(3600));
    let claim: [&dyn Fn() -> usize; 2] =
        [&|| store.claim_many(&outside).unwrap().into_iter().flatten().count(), &|| {
            repository.claim_many(&inside).unwrap().into_iter().flatten().count()
        }];
    for claim in claim {
        let lsn = store.last_lsn();
        assert_eq!(claim(), 200);
        assert_eq!(store.last_lsn().get(), lsn.get() + 1);
        assert_eq!(claim(), 200);
        assert_eq!(store.last_lsn().get(), lsn.get() + 1, "noted a moment ago");
    }
}

/// A batch is as good as calls one by one: from many threads, beside single calls, whoever leads the commits.
#[test]
fn batches_and_single_calls_share_groups() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let repositories: Vec<Repository> = (0..2).map(|n| create(&store, &format!("team/app{n}"))).collect();
    let threads: Vec<_> = (0..6u64)
        .map(|thread| {
            let (repository, store) = (repositories[thread as usize % 2].clone(), store.clone());
            std::thread::spawn(move || {
                let mut random = Random(thread);
                let mut digests = Vec::new();
                for round in 0..30 {
                    let contents = contents(&mut random, 1 + (round + thread as usize) % 9, 300);
                    let put = contents.iter().map(|content| (content, Algorithm::Sha256));
                    if thread < 4 {
                        let stored = repository.put_many(put).unwrap();
                        digests.extend(stored.into_iter().map(|one| one.unwrap().digest));
                    } else {
                        let relaxed = store.with_durability(Durability::Relaxed);
                        contents.iter().for_each(|content| {
                            relaxed.put(content, Algorithm::Sha256).unwrap();
                        });
                    }
                }
                (thread, digests)
            })
        })
        .collect();
    let stored: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let left = open(&disk.power_cut(3));
    for (thread, digests) in stored {
        let Some(digest) = digests.first() else { continue };
        let repository = left.repository(&name(&format!("team/app{}", thread % 2))).unwrap();
        assert!(repository.stat(digest).is_ok());
        assert!(repository.stat_many(&digests).unwrap().iter().all(Option::is_some));
        assert!(repository.get_many(&digests).unwrap().iter().all(|blob| blob.as_ref().unwrap().verify().is_ok()));
    }
}
