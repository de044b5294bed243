//! What others do, or have done, while files are compacted.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom::registry::RepositorySettings;
use strongroom::vfs::{OpenMode, Vfs as _};
use strongroom::{Algorithm, CollectOptions, Digest, Options, PutNamed, Store};

use super::{collect, is_whole};
use crate::common::registry::{Lab, assert_sound, name};
use crate::common::watched::Watched;
use crate::common::{Random, encrypted_disk};

/// What happens once.
type Hook = Box<dyn FnOnce() + Send>;

/// Log files of 256 KiB, nothing kept for events, and nothing that goes by itself.
fn options(lab: &Lab) -> Options {
    let options = crate::common::options(&lab.disk, &lab.clock).history(0).retention(Duration::from_secs(1_000_000));
    options.inline_max(64 << 10).log_file_size(256 << 10)
}

/// Blobs of a length, two of three of which are removed again; the others.
fn scattered(store: &Store, count: u64, len: usize) -> Vec<Digest> {
    let mut random = Random(count);
    let all: Vec<Digest> =
        (0..count).map(|_| store.put(random.bytes(len), Algorithm::Blake3).unwrap().digest).collect();
    store.checkpoint().unwrap();
    for (n, digest) in all.iter().enumerate().filter(|(n, _)| n % 3 != 0) {
        store.remove(digest).unwrap_or_else(|error| panic!("{n}: {error}"));
    }
    store.checkpoint().unwrap();
    all.into_iter().step_by(3).collect()
}

#[test]
fn a_pack_whose_first_blobs_are_removed_while_the_others_are_published_loses_none() {
    let lab = Lab::new();
    // What happens when the first log file is removed: between two commits of a compaction.
    let hook: Arc<Mutex<Option<Hook>>> = Arc::default();
    let hooked = Arc::clone(&hook);
    let removed = move |path: &Path| {
        let hook = if path.starts_with("/store/log") { hooked.lock().unwrap().take() } else { None };
        hook.into_iter().for_each(|hook| hook());
    };
    let vfs = Watched { removed: Box::new(removed), ..Watched::new(&lab.disk) };
    let store = Arc::new(options(&lab).memtable_size(1 << 20).vfs(Arc::new(vfs)).open("/store").unwrap());
    let kept = scattered(&store, 1200, 400);
    let (first, rest) = kept.split_at(256);
    let (first, handle) = (first.to_vec(), Arc::clone(&store));
    *hook.lock().unwrap() = Some(Box::new(move || {
        first.iter().for_each(|digest| {
            handle.remove(digest).unwrap();
        })
    }));
    let report = collect(&store);
    assert!(hook.lock().unwrap().is_none(), "it came between: {report:?}");
    assert!(rest.iter().all(|digest| is_whole(&store, digest)));
    assert_sound(&store);
    assert!(collect(&store).damaged.is_empty());
    assert!(rest.iter().all(|digest| is_whole(&store, digest)));
}

#[test]
fn a_log_file_is_compacted_whose_default_key_was_given_up_since() {
    if cfg!(not(feature = "encryption")) {
        return; // there is one domain only
    }
    let lab = Lab { disk: encrypted_disk(), ..Lab::new() };
    let store = options(&lab).open("/store").unwrap();
    let tenant: strongroom::keys::DomainName = "tenant".parse().unwrap();
    store.create_domain(&tenant, None).unwrap();
    let settings = RepositorySettings::new().domain(tenant);
    let theirs = store.create_repository(&name("their/repo"), settings).unwrap();
    let mut random = Random(2);
    let mut digests = Vec::new();
    for n in 0..200 {
        let digest = store.put(random.bytes(3000), Algorithm::Blake3).unwrap().digest;
        store.named().set(&n.to_string(), &digest, PutNamed::new()).unwrap();
        if n % 5 == 0 {
            digests.push(theirs.put(random.bytes(3000), Algorithm::Blake3).unwrap().digest);
        }
    }
    collect(&store);
    store.rotate_data_key(None).unwrap();
    assert!(store.rewrite(|_| ControlFlow::Continue(())).unwrap().complete);
    let report = collect(&store);
    assert!(report.moved >= 20 && report.damaged.is_empty() && report.stopped.is_none(), "{report:?}");
    assert!(digests.iter().all(|digest| theirs.get(digest).unwrap().verify().is_ok()));
    assert_sound(&store);
}

#[test]
fn a_small_store_is_not_compacted_again_and_again() {
    let lab = Lab::new();
    let store = options(&lab).open("/store").unwrap();
    scattered(&store, 40, 900);
    let moved: Vec<u64> =
        (0..5).map(|_| store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap().moved).collect();
    assert_eq!(moved[1..], [0; 4], "{moved:?}");
}

#[test]
fn what_a_budget_left_is_not_taken_to_be_damaged() {
    let lab = Lab::new();
    let store = options(&lab).open("/store").unwrap();
    let kept = scattered(&store, 600, 12_000);
    let mut logs = lab.disk.files();
    logs.retain(|path| path.starts_with("/store/log"));
    logs.sort();
    let damaged = lab.disk.open(&logs[0], OpenMode::Write).unwrap();
    (512..200_000).step_by(4000).for_each(|at| damaged.write_all_at(b"garbage!", at).unwrap());
    let budget = CollectOptions::new().max_dead(0).max_bytes(200_000);
    let (mut rounds, mut found) = (0, 0);
    loop {
        let report = store.collect(&budget, |_| ControlFlow::Continue(())).unwrap();
        found += report.damaged.len();
        if report.stopped.is_none() {
            break;
        }
        rounds += 1;
    }
    assert!(rounds > 3 && found > 0, "{found} damaged in {rounds} rounds");
    let last = collect(&store);
    assert!(last.stayed.damaged_bytes > 0 && last.stayed.damaged_bytes <= 256 << 10 && last.moved == 0, "{last:?}");
    assert!(kept.iter().filter(|digest| is_readable(&store, digest)).count() > 150);
}

fn is_readable(store: &Store, digest: &Digest) -> bool {
    store.get(digest).is_ok_and(|blob| blob.verify().is_ok())
}

#[test]
fn a_sector_that_cannot_be_read_keeps_nothing_else_from_moving() {
    let lab = Lab::new();
    let store = options(&lab).read_mode(strongroom::ReadMode::Positioned).open("/store").unwrap();
    let kept = scattered(&store, 600, 12_000);
    let mut logs = lab.disk.files();
    logs.retain(|path| path.starts_with("/store/log"));
    logs.sort();
    lab.disk.fail_reads(&logs[1], 20_000..140_000);
    let report = collect(&store);
    assert!(!report.damaged.is_empty() && report.moved > 150 && report.stopped.is_none(), "{report:?}");
    assert!(report.stayed.damaged_bytes > 0);
    let lost = kept.iter().filter(|digest| !is_readable(&store, digest)).count();
    assert!(lost > 0 && lost < 12, "{lost}");
}

#[test]
fn blobs_are_listed_while_they_are_moved() {
    // The key of a SHA-512 blob is not its digest: that stands in the frame, which has moved, or is gone.
    let lab = Lab::new();
    let store = options(&lab).open("/store").unwrap();
    let mut random = Random(9);
    let digests: Vec<Digest> =
        (0..90).map(|_| store.put(random.bytes(9000), Algorithm::Sha512).unwrap().digest).collect();
    store.checkpoint().unwrap();
    for (n, digest) in digests.iter().enumerate().filter(|(n, _)| n % 3 != 0) {
        store.remove(digest).unwrap_or_else(|error| panic!("{n}: {error}"));
    }
    let listing = store.blobs();
    assert!(collect(&store).moved > 20);
    store.remove(&digests[0]).unwrap();
    let listed: Vec<Digest> = listing.map(|blob| blob.unwrap().digest).collect();
    assert_eq!(listed.len(), 29);
    assert!(listed.iter().all(|digest| digests.contains(digest)));
}
