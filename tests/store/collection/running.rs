//! In the background, beside others, and through a store that is closed meanwhile.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::{Algorithm, CollectOptions, Options, PutNamed};

use super::is_whole;
use crate::common::Random;
use crate::common::registry::assert_sound;

#[test]
fn the_background_thread_gives_space_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().create(true).retention(Duration::ZERO).history(0).log_file_size(1 << 20);
    let options = options.collect_every(Duration::from_millis(20), CollectOptions::new());
    let store = options.open(dir.path()).unwrap();
    let kept: Vec<_> = (0..20u64)
        .map(|n| {
            let digest = store.put(Random(n).bytes(5000), Algorithm::Sha256).unwrap().digest;
            // Without retention it may be gone already: then it is stored again, as a client would.
            while store.named().set(&n.to_string(), &digest, PutNamed::new()).is_err() {
                store.put(Random(n).bytes(5000), Algorithm::Sha256).unwrap();
            }
            digest
        })
        .collect();
    for n in 100..400u64 {
        store.put(Random(n).bytes(20_000), Algorithm::Sha256).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(60);
    while store.blobs().count() > kept.len() || store.usage().unwrap().dead_bytes > 1 << 20 {
        assert!(Instant::now() < until, "{:?}", store.usage());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(kept.iter().all(|digest| is_whole(&store, digest)));
    assert_sound(&store);
    store.close().unwrap();
}

#[test]
fn closing_a_store_ends_its_collection() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().create(true).retention(Duration::ZERO).history(0).log_file_size(1 << 20);
    // At this rate it would take a day.
    let slowly = CollectOptions::new().bytes_per_second(100).max_dead(0);
    let store = options.collect_every(Duration::from_millis(1), slowly).open(dir.path()).unwrap();
    for n in 0..300u64 {
        let digest = store.put(Random(n).bytes(20_000), Algorithm::Sha256).unwrap().digest;
        if n % 2 == 0 {
            let _ = store.named().set(&n.to_string(), &digest, PutNamed::new());
        }
    }
    let began = Instant::now();
    store.close().unwrap();
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_sound(&Options::new().open(dir.path()).unwrap());
}

#[test]
fn two_collections_come_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().create(true).retention(Duration::ZERO).history(0).log_file_size(1 << 20);
    let store = Arc::new(options.open(dir.path()).unwrap());
    for n in 0..2000u64 {
        store.put(n.to_le_bytes().repeat(50), Algorithm::Sha256).unwrap();
    }
    std::thread::sleep(Duration::from_millis(5));
    let collect = || store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap().blobs;
    let counts = std::thread::scope(|scope| [0; 4].map(|_| scope.spawn(collect)).map(|one| one.join().unwrap()));
    assert_eq!(counts.iter().sum::<u64>(), 2000, "each blob goes once: {counts:?}");
    assert_sound(&store);
}
