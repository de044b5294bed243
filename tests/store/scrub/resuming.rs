//! A scrub that ends early goes on, after a restart too.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::lab::{Content, assert_sound, flip, open, read, scrub};
use crate::common::Random;
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Scrub, ScrubOptions, Store};

/// A store with so many blobs, in the order in which they are scrubbed.
fn fill(disk: &SimVfs, count: usize) -> Vec<Content> {
    let mut random = Random(3);
    let store = open(disk);
    for n in 0..count {
        store.put(random.bytes([500, 900, 2500][n % 3]), Algorithm::Sha256).unwrap();
    }
    let all = store.blobs().map(|stat| stat.unwrap().digest);
    let contents = all.map(|digest| Content { digest, bytes: read(&store, &digest).unwrap() }).collect();
    store.close().unwrap();
    contents
}

/// Scrubs until so many blobs were read, those of earlier parts included.
fn scrub_until(store: &Store, blobs: u64) -> Scrub {
    let go_on = |so_far: &Scrub| if so_far.blobs < blobs { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    store.scrub(&ScrubOptions::new(), go_on).unwrap()
}

#[test]
fn a_scrub_that_was_told_to_end_goes_on_where_it_was() {
    let disk = SimVfs::new();
    let contents = fill(&disk, 90);
    [10, 50, 80].iter().for_each(|n| flip(&disk, &contents[*n]));
    let mut store = open(&disk);
    for (upto, found) in [(30, 1), (60, 2)] {
        let part = scrub_until(&store, upto);
        assert_eq!((part.complete, part.blobs, part.resumed), (false, upto, upto > 30));
        assert_eq!((part.damaged_blobs, part.damaged.len()), (found, found as usize), "with those found before");
        // Also after a kill.
        drop(store);
        store = open(&disk.power_cut(upto));
    }
    let rest = scrub(&store);
    assert!(rest.complete && rest.resumed);
    assert_eq!((rest.blobs, rest.read_bytes, rest.damaged_blobs), (90, rest.total_bytes, 3));
    let found: Vec<_> = rest.damaged.iter().map(|blob| blob.digest.unwrap()).collect();
    assert_eq!(found, [10, 50, 80].map(|n: usize| contents[n].digest));
    let again = scrub(&store);
    assert!(!again.resumed && again.blobs == 90, "that one is done");
}

#[test]
fn a_restart_begins_anew() {
    let disk = SimVfs::new();
    fill(&disk, 40);
    let store = open(&disk);
    assert!(!scrub_until(&store, 25).complete);
    let report = store.scrub(&ScrubOptions::new().restart(true), |_| ControlFlow::Break(())).unwrap();
    assert!(!report.resumed && !report.complete);
    let report = scrub(&store);
    assert!(report.complete && report.blobs == 40);
    assert!(!scrub(&store).resumed);
}

#[test]
fn however_little_time_there_is_each_scrub_gets_further() {
    let disk = SimVfs::new();
    fill(&disk, 25);
    let store = open(&disk);
    let options = ScrubOptions::new().max_time(Duration::ZERO);
    for blobs in 1..=25 {
        let report = store.scrub(&options, |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((report.blobs, report.complete), (blobs, false));
    }
    let report = store.scrub(&options, |_| ControlFlow::Continue(())).unwrap();
    assert!(report.complete && report.blobs == 25 && report.is_sound());
    assert_sound(&store);
}

#[test]
fn what_comes_and_goes_between_two_parts_is_no_damage() {
    let disk = SimVfs::new();
    let contents = fill(&disk, 60);
    let store = open(&disk);
    assert!(!scrub_until(&store, 30).complete);
    contents.iter().step_by(3).for_each(|content| {
        store.remove(&content.digest).unwrap();
    });
    let mut random = Random(77);
    for _ in 0..20 {
        store.put(random.bytes(800), Algorithm::Sha256).unwrap();
    }
    let report = scrub(&store);
    assert!(report.complete && report.is_sound(), "{report:#?}");
    assert_sound(&store);
}

#[test]
fn the_rate_is_kept_and_progress_told_while_it_waits() {
    let disk = SimVfs::new();
    let store = open(&disk);
    store.put(Random(1).bytes(400_000), Algorithm::Sha256).unwrap();
    let (began, mut calls) = (Instant::now(), 0);
    let options = ScrubOptions::new().recount(false).bytes_per_second(1 << 20);
    let report = store
        .scrub(&options, |_| {
            calls += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(report.complete && began.elapsed() >= Duration::from_millis(380), "{:?}", began.elapsed());
    assert!(calls > 3, "{calls}");
    // Told so while it waits, it ends, and has not read the blob.
    let options = ScrubOptions::new().recount(false).bytes_per_second(1);
    let mut calls = 0;
    let report = store
        .scrub(&options, |_| {
            calls += 1;
            if calls > 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!((report.complete, report.blobs, report.read_bytes), (false, 0, 0));
    assert_sound(&store);
}
