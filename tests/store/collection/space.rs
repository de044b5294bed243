//! How much comes back, what stays and why, and what happens where there is hardly any space left.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use strongroom::{Algorithm, CollectOptions, Digest, Error, ExpectNamed, Options, PutNamed, Stopped, Store};

use super::{collect, is_whole};
use crate::common::registry::{Lab, assert_sound};
use crate::common::{Random, encrypted_disk};

/// Log files of 256 KiB, content of 12 KB in them, every `nth` blob of which is kept.
fn scattered(lab: &Lab, count: u64, nth: u64) -> (Store, Vec<Digest>) {
    let store = options(lab).open("/store").unwrap();
    let mut random = Random(count);
    let mut kept = Vec::new();
    for n in 0..count {
        let digest = store.put(random.bytes(12_000), Algorithm::Blake3).unwrap().digest;
        if n % nth == 0 {
            store.named().set(&n.to_string(), &digest, PutNamed::new()).unwrap();
            kept.push(digest);
        }
    }
    store.checkpoint().unwrap();
    lab.advance(1);
    (store, kept)
}

fn options(lab: &Lab) -> Options {
    let options = crate::common::options(&lab.disk, &lab.clock).history(0).retention(Duration::ZERO);
    options.inline_max(64 << 10).log_file_size(256 << 10).memtable_size(64 << 10)
}

fn content_files(lab: &Lab) -> Vec<PathBuf> {
    let files = lab.disk.files().into_iter();
    files.filter(|path| path.starts_with("/store/segments") || path.starts_with("/store/log")).collect()
}

fn on_disk(lab: &Lab) -> u64 {
    content_files(lab).iter().map(|path| lab.disk.read_file(path).unwrap().len() as u64).sum()
}

#[test]
fn what_is_dead_comes_back_up_to_the_percentage_that_may_stay() {
    for disk in [strongroom::vfs::SimVfs::new, encrypted_disk] {
        let lab = Lab { disk: disk(), ..Lab::new() };
        let (store, kept) = scattered(&lab, 600, 3);
        let before = on_disk(&lab);
        let report = store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(report.blobs, 400);
        assert!(100 * report.dead_bytes <= 20 * (report.live_bytes + report.dead_bytes), "{report:?}");
        assert!(on_disk(&lab) * 10 < before * 5, "{} of {before}", on_disk(&lab));
        assert!(report.freed_bytes > 0 && report.stopped.is_none());
        assert!(kept.iter().all(|digest| is_whole(&store, digest)));
        assert_sound(&store);
        // Nothing more to do.
        let again = store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((again.blobs, again.moved, again.files), (0, 0, 0), "{again:?}");
        store.close().unwrap();
        let store = options(&lab).open("/store").unwrap();
        assert!(kept.iter().all(|digest| is_whole(&store, digest)));
        assert_sound(&store);
    }
}

#[test]
fn little_that_is_dead_stays_where_it_is_unless_less_may() {
    let lab = Lab::new();
    let (store, _) = scattered(&lab, 600, 1);
    for n in (0..600).step_by(10) {
        store.named().remove(&n.to_string(), ExpectNamed::Any).unwrap();
    }
    let report = store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.blobs, report.moved), (60, 0), "{report:?}");
    assert!(report.stayed.scattered_bytes > 400_000, "{report:?}");
    let report = store.collect(&CollectOptions::new().max_dead(2), |_| ControlFlow::Continue(())).unwrap();
    assert!(report.moved > 300 && 100 * report.dead_bytes <= 2 * (report.live_bytes + report.dead_bytes), "{report:?}");
    assert_sound(&store);
}

#[test]
fn records_without_content_do_not_keep_log_files() {
    // A tag, or a pin, that changes all the time: almost nothing but records, and now and then a blob that stays.
    let lab = Lab::new();
    let store = options(&lab).open("/store").unwrap();
    let digest = store.put("named again and again", Algorithm::Sha256).unwrap().digest;
    for n in 0..6000 {
        store.named().set(&format!("name {}", n % 10), &digest, PutNamed::new()).unwrap();
        if n % 500 == 0 {
            let rare = store.put(format!("rare {n}"), Algorithm::Sha256).unwrap().digest;
            store.named().set(&format!("rare {n}"), &rare, PutNamed::new()).unwrap();
        }
    }
    store.checkpoint().unwrap();
    let before = on_disk(&lab);
    let report = store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert!(on_disk(&lab) * 2 < before, "{} of {before}: {report:?}", on_disk(&lab));
    assert_sound(&store);
}

#[test]
fn small_files_become_one() {
    // Each opening begins a log file.
    let lab = Lab::new();
    let mut kept = Vec::new();
    for n in 0..40u64 {
        let store = options(&lab).open("/store").unwrap();
        let digest = store.put(Random(n).bytes(2000), Algorithm::Sha256).unwrap().digest;
        store.named().set(&n.to_string(), &digest, PutNamed::new()).unwrap();
        kept.push(digest);
        store.close().unwrap();
    }
    let store = options(&lab).open("/store").unwrap();
    store.checkpoint().unwrap();
    let before = content_files(&lab).len();
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    let after = content_files(&lab).len();
    assert!(before > 20 && after < 8, "{before}, then {after}");
    assert!(kept.iter().all(|digest| is_whole(&store, digest)));
    assert_sound(&store);
}

#[test]
fn dead_facts_leave_the_runs() {
    let lab = Lab::new();
    let (store, _) = scattered(&lab, 2000, 100);
    store.merge_runs().unwrap();
    let before = store.usage().unwrap().run_bytes;
    let report = store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    store.checkpoint().unwrap();
    let report_after = store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    let after = store.usage().unwrap().run_bytes;
    assert!(after * 3 < before, "{before}, then {after}: {report:?} {report_after:?}");
    assert_sound(&store);
}

#[test]
fn a_damaged_frame_is_told_and_left_and_the_rest_moves() {
    for disk in [strongroom::vfs::SimVfs::new, encrypted_disk] {
        let lab = Lab { disk: disk(), ..Lab::new() };
        let (store, kept) = scattered(&lab, 600, 3);
        store.close().unwrap();
        // A bit of a log file, until one hits what is kept.
        let file = &content_files(&lab)[1];
        let flip = |n: u64| lab.disk.flip_bit(file, 8 * (60_000 + 5000 * n)).unwrap();
        let store = (0..40).find_map(|n| {
            flip(n);
            let store = options(&lab).open("/store").unwrap();
            if kept.iter().any(|digest| store.get(digest).is_ok_and(|blob| blob.bytes().is_err())) {
                return Some(store);
            }
            drop(store);
            flip(n);
            None
        });
        let store = store.expect("every third blob is kept");
        let report = collect(&store);
        assert_eq!(report.damaged.len(), 1, "{report:?}");
        assert!(matches!(report.damaged[0], Error::Corrupt { .. }));
        assert!(report.stayed.damaged_bytes > 0 && report.stopped.is_none(), "{report:?}");
        let whole = kept.iter().filter(|digest| store.get(digest).unwrap().bytes().is_ok()).count();
        assert_eq!(whole, kept.len() - 1, "all but that one");
        // It is not tried again and again.
        let again = collect(&store);
        assert_eq!((again.moved, again.damaged.len()), (0, 0), "{again:?}");
        assert!(again.stayed.damaged_bytes > 0);
    }
}

#[test]
fn a_full_disk_gets_space_back_out_of_the_reserve() {
    let lab = Lab::new();
    let (store, kept) = scattered(&lab, 600, 30);
    store.checkpoint().unwrap();
    let used = lab.disk.used();
    lab.disk.set_capacity(Some(used));
    let refused = store.put(Random(77).bytes(60_000), Algorithm::Sha256);
    let _ = refused; // there may be room in the log file
    let mut rounds = 0;
    let report = loop {
        rounds += 1;
        match store.collect(&CollectOptions::new().max_dead(5), |_| ControlFlow::Continue(())) {
            Ok(report) => break report,
            Err(Error::Full { .. }) if rounds < 5 => {}
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(store.blobs().count(), kept.len(), "{report:?}");
    assert!(lab.disk.used() * 4 < used, "{} of {used}: {report:?}", lab.disk.used());
    assert!(kept.iter().all(|digest| is_whole(&store, digest)));
    store.put(Random(78).bytes(60_000), Algorithm::Sha256).unwrap();
    assert_sound(&store);
}

#[test]
fn a_pack_is_finished_in_the_reserve_where_its_file_could_be_begun_without() {
    // A few blocks are free: enough for a new file, not for what is to be in it.
    let lab = Lab::new();
    let (store, kept) = scattered(&lab, 600, 30);
    store.checkpoint().unwrap();
    let used = lab.disk.used();
    for free in [4096, 8192, 16_384, 32_768] {
        lab.disk.set_capacity(Some(lab.disk.used() + free));
        store.collect(&CollectOptions::new().max_dead(5), |_| ControlFlow::Continue(())).unwrap();
    }
    assert!(lab.disk.used() * 4 < used, "{} of {used}", lab.disk.used());
    assert!(kept.iter().all(|digest| is_whole(&store, digest)));
    assert_sound(&store);
}

#[test]
fn it_ends_where_it_is_told_to_and_goes_on_the_next_time() {
    let lab = Lab::new();
    let (store, kept) = scattered(&lab, 900, 3);
    let options = CollectOptions::new().max_dead(0);
    let none = store.collect(&options.clone().max_bytes(0), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((none.blobs, none.moved), (600, 0), "{none:?}");
    let some = store.collect(&options.clone().max_bytes(400_000), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(some.stopped, Some(Stopped::Bytes));
    assert!(some.moved > 20 && some.moved < 60 && some.stayed.unreached_bytes > 0, "{some:?}");
    let mut calls = 0;
    let told = store.collect(&options, |_| {
        calls += 1;
        if calls > 50 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let told = told.unwrap();
    assert_eq!(told.stopped, Some(Stopped::Told));
    let late = store.collect(&options.clone().max_time(Duration::ZERO), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(late.stopped, Some(Stopped::Time));
    let rest = collect(&store);
    assert!(rest.stopped.is_none() && rest.moved > 50, "{rest:?}");
    assert!(some.moved + told.moved + late.moved + rest.moved >= 300, "each of them moved its part");
    assert!(kept.iter().all(|digest| is_whole(&store, digest)));
    assert_sound(&store);
}

#[test]
fn what_was_removed_after_a_write_found_no_space_comes_back_also_where_it_is_kept_for_events() {
    let lab = Lab::new();
    let store = options(&lab).history(64 << 20).open("/store").unwrap();
    lab.disk.set_capacity(Some(lab.disk.used() + (4 << 20)));
    let mut random = Random(5);
    let mut fill =
        || (0..).find_map(|n| store.named().put(&n.to_string(), random.bytes(50_000), PutNamed::new()).err());
    for _ in 0..3 {
        assert!(matches!(fill(), Some(Error::Full { .. })));
        assert!(store.named().remove_prefix("").unwrap().removed > 50, "as much as before");
        collect(&store);
        lab.advance(1);
        collect(&store);
    }
    assert_sound(&store);
}
