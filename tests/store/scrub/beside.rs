//! What happens while a scrub reads: damage, removal, compaction, pushes.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lab::{Content, assert_sound, build, flip, open, read, scrub};
use crate::common::{Random, options};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, CollectOptions, Maintenance, Scrub, ScrubOptions};

#[test]
fn damage_that_comes_while_it_reads_is_met_there_or_by_the_next_one() {
    let disk = SimVfs::new();
    let known = build(&disk);
    let all = [&known.small, &known.large, &known.packed];
    let total = scrub(&open(&disk)).blobs;
    for at in 0..total {
        for content in all {
            let disk = disk.restarted();
            let store = open(&disk);
            let done = Cell::new(false);
            let harm = |so_far: &Scrub| {
                if so_far.blobs >= at && !done.replace(true) {
                    flip(&disk, content);
                }
                ControlFlow::Continue(())
            };
            let first = store.scrub(&ScrubOptions::new(), harm).unwrap();
            assert!(first.complete && first.damaged_blobs <= 1);
            let next = scrub(&store);
            assert_eq!(next.damaged_blobs, 1);
            store.put(&content.bytes, content.digest).unwrap();
            assert_sound(&store);
        }
    }
}

#[test]
fn a_blob_that_goes_or_comes_back_while_it_is_read_is_no_damage() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let content = Random(2).bytes(3 << 20);
    let digest = store.put(&content, Algorithm::Sha256).unwrap().digest;
    for (again, lost) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut calls = 0;
        let report = store
            .scrub(&ScrubOptions::new().recount(false), |_| {
                calls += 1;
                if calls == 2 {
                    // In the midst of the blob; with its file damaged before, so that what was read would be wrong.
                    let path = super::lab::segment(&disk, 3 << 20);
                    if lost {
                        disk.flip_bit(&path, 8 * (2 << 20)).unwrap();
                    }
                    store.remove(&digest).unwrap();
                    if again {
                        store.put(&content, digest).unwrap();
                    }
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(report.complete && report.is_sound(), "{again} {lost}: {report:#?}");
        if again {
            assert!(!store.stat(&digest).unwrap().damaged);
        } else {
            store.put(&content, digest).unwrap();
        }
        assert_eq!(read(&store, &digest).unwrap(), content);
    }
    assert_sound(&store);
}

#[test]
fn a_scrub_beside_pushes_removals_and_collections_finds_nothing() {
    let seed = crate::common::seed(0x5c);
    let disk = SimVfs::new();
    let options = options(&disk, &Clock::manual()).maintenance(Maintenance::Thread);
    let store = options.open("/store").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|n| {
                let store = &store;
                scope.spawn(move || {
                    let mut random = Random(seed + n);
                    let mut digests = Vec::new();
                    for round in 0..250 {
                        let len = [300, 900, 1900, 6000][random.below(4) as usize];
                        digests.push(store.put(random.bytes(len), Algorithm::Sha256).unwrap().digest);
                        if round % 3 > 0 {
                            let at = random.below(digests.len() as u64) as usize;
                            store.remove(&digests.swap_remove(at)).unwrap();
                        }
                        if round % 25 == 0 {
                            store.collect(&CollectOptions::new().max_dead(5), |_| ControlFlow::Continue(())).unwrap();
                        }
                    }
                })
            })
            .collect();
        let scrubber = scope.spawn(|| {
            let mut scrubs = 0;
            while !done.load(Ordering::Relaxed) || scrubs == 0 {
                let report = scrub(&store);
                assert!(report.complete && report.is_sound(), "{report:#?}");
                scrubs += 1;
            }
            scrubs
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
        println!("{} scrubs", scrubber.join().unwrap());
    });
    assert_sound(&store);
}

#[test]
fn a_collection_leaves_what_is_damaged_where_it_is_and_a_push_brings_it_back() {
    let disk = SimVfs::new();
    let known = build(&disk);
    [&known.small, &known.packed].into_iter().for_each(|content| flip(&disk, content));
    let store = open(&disk);
    assert_eq!(scrub(&store).damaged_blobs, 2);
    store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(scrub(&store).damaged_blobs, 2);
    for Content { digest, bytes } in [&known.small, &known.packed] {
        store.put(bytes, digest).unwrap();
    }
    assert_sound(&store);
    store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(())).unwrap();
    assert_sound(&store);
    store.close().unwrap();
    assert_sound(&open(&disk));
}
