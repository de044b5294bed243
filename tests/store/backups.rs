//! Snapshots: each holds the store as of its commit, is a store of its own, and appears as a whole or not at all.

mod load;
mod places;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use strongroom::vfs::{Fault, SimVfs, Vfs as _};
use strongroom::{Algorithm, Clock, CollectOptions, Digest, Error, Options, SnapshotOptions, Store};

use crate::common::tour::tour;
use crate::common::{
    Model, Pair, Random, Step, encrypted_disk, finish_uploads, history, observe, options, outline, remove_everything,
    seed, small, tell,
};

fn open(disk: &SimVfs, path: impl AsRef<Path>) -> Store {
    options(disk, &Clock::manual()).create(false).open(path).unwrap()
}

fn open_reading(disk: &SimVfs, path: impl AsRef<Path>) -> Store {
    options(disk, &Clock::manual()).create(false).read_only(true).open(path).unwrap()
}

fn names(disk: &SimVfs, path: &Path) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|file| file.starts_with(path)).collect()
}

/// How the snapshots of a history are made, by turns.
fn ways(n: usize, last: Option<&PathBuf>) -> SnapshotOptions {
    let options = SnapshotOptions::new().links(!n.is_multiple_of(3));
    match last {
        Some(base) if n.is_multiple_of(2) => options.base(base),
        _ => options,
    }
}

#[test]
fn snapshots_hold_the_store_as_of_their_commits_and_are_stores_of_their_own() {
    let seed = seed(0x5a9);
    let (mut linked, mut copied) = (0, 0);
    for round in 0..6 {
        let disk = if round % 2 == 0 { SimVfs::new() } else { encrypted_disk() };
        let steps = if round < 2 { tour() } else { history(&mut Random(seed + round), 100) };
        let mut pair = Pair::new(&disk).unwrap();
        let mut taken: Vec<(PathBuf, Model)> = Vec::new();
        for (n, step) in steps.iter().enumerate() {
            pair.run(step).unwrap();
            if n % 9 != 8 {
                continue;
            }
            let context = format!("seed {seed} round {round} step {n}");
            let store = pair.store.as_ref().unwrap();
            let path = PathBuf::from(format!("/snapshot-{n}"));
            let with = ways(n, taken.last().map(|(path, _)| path));
            let from = if n % 4 == 0 { &open_reading(&disk, "/store") } else { store };
            let report = from.snapshot_to(&path, &with).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(report.lsn == store.last_lsn() && report.missing.is_empty(), "{context}: {report:?}");
            assert!(matches!(from.snapshot_to(&path, &with), Err(Error::NotEmpty { .. })));
            (linked, copied) = (linked + report.linked_files, copied + report.copied_files);
            assert!(observe(&open_reading(&disk, &path)) == outline(&pair.model), "{context}");
            taken.push((path, pair.model.clone()));
        }
        let expected = outline(&pair.model);
        for (n, (path, model)) in taken.iter().enumerate() {
            let context = format!("seed {seed} round {round} snapshot {}", path.display());
            // Whatever has become of the store, and of the snapshots before.
            assert!(observe(&open_reading(&disk, path)) == outline(model), "{context}");
            if n % 2 == 1 {
                continue;
            }
            let store = open(&disk, path);
            assert!(observe(&store) == outline(model), "{context}");
            finish_uploads(&store, &[model]);
            store.put(Random(n as u64).bytes(9000), Algorithm::Sha256).unwrap();
            remove_everything(&store);
            store.checkpoint().unwrap();
            store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(())).unwrap();
            store.close().unwrap();
            assert!(observe(pair.store.as_ref().unwrap()) == expected, "{context}: what it shares was changed");
        }
        for (path, model) in taken.iter().skip(1).step_by(2) {
            assert!(observe(&open(&disk, path)) == outline(model), "{} was changed", path.display());
        }
        finish_uploads(pair.store.as_ref().unwrap(), &[&pair.model]);
        pair.store.take().unwrap().close().unwrap();
        assert!(open(&disk, "/store").verify(|_| {}).unwrap().findings.is_empty());
    }
    tell(&format!("{linked} files linked, {copied} copied"));
    assert!(linked > 100 && copied > 100);
}

/// A store with something of everything in it, and what that is.
fn prepared(new: fn() -> SimVfs, seed: u64) -> (SimVfs, Pair) {
    let disk = new();
    let mut pair = Pair::new(&disk).unwrap();
    let begin = Step::Begin { algorithm: Algorithm::Sha256, repository: None };
    let append = Step::Append { upload: 0, content: Random(seed).bytes(70_000) };
    for step in history(&mut Random(seed), 40).iter().chain([&begin, &append]) {
        pair.run(step).unwrap();
    }
    (disk, pair)
}

#[test]
fn a_power_cut_at_any_operation_leaves_a_whole_snapshot_or_none_and_the_store() {
    let seed = seed(0x5a90);
    let mut covered = 0;
    let (mut whole, mut none) = (0, 0);
    for (round, new) in [SimVfs::new, encrypted_disk].into_iter().enumerate() {
        for links in [true, false] {
            let with = SnapshotOptions::new().links(links);
            let (disk, pair) = prepared(new, seed);
            let before = disk.operations();
            pair.store.as_ref().unwrap().snapshot_to("/copy", &with).unwrap();
            let operations = disk.operations() - before;
            for at in (1..=operations).step_by(1 + round) {
                let (disk, pair) = prepared(new, seed);
                disk.fault_at(disk.operations() + at, Fault::PowerCut);
                let made = pair.store.as_ref().unwrap().snapshot_to("/copy", &with);
                if made.is_ok() {
                    continue; // it took an operation less than the one that was counted: ids of uploads are drawn
                }
                let (expected, model) = (outline(&pair.model), pair.model.clone());
                let context = format!("seed {seed} round {round} links {links} at {at}: {made:?}");
                pair.kill();
                for left in [disk.power_cut(seed ^ at), disk.restarted()] {
                    let store = open(&left, "/store");
                    assert!(observe(&store) == expected, "{context}");
                    let is_whole = left.list(Path::new("/copy")).is_ok();
                    if is_whole {
                        assert!(observe(&open_reading(&left, "/copy")) == expected, "{context}");
                        whole += 1;
                    } else {
                        // The next one removes what is left.
                        store.snapshot_to("/copy", &with).unwrap_or_else(|error| panic!("{context}: {error}"));
                        assert!(observe(&open_reading(&left, "/copy")) == expected, "{context}");
                        none += 1;
                    }
                    assert!(left.list(Path::new("/copy.incomplete")).is_err(), "{context}");
                    let again = left.power_cut(at);
                    if is_whole && again.list(Path::new("/copy")).is_err() {
                        continue; // whole, and nobody was told so
                    }
                    let store = open(&again, "/copy");
                    assert!(observe(&store) == expected, "{context}: it was not durable");
                    finish_uploads(&store, &[&model]);
                }
                covered += 1;
            }
        }
    }
    tell(&format!("power cuts during snapshots: {covered}; {whole} whole, {none} none"));
    assert!(whole > 0 && none > 0);
}

#[test]
fn a_snapshot_that_fails_leaves_nothing_and_costs_the_store_nothing() {
    let seed = seed(0x5a91);
    let with = SnapshotOptions::new();
    let (disk, pair) = prepared(SimVfs::new, seed);
    let before = disk.operations();
    pair.store.as_ref().unwrap().snapshot_to("/copy", &with).unwrap();
    let operations = disk.operations() - before;
    for fault in [Fault::Error, Fault::Full, Fault::FailedSync, Fault::ShortWrite] {
        for at in 1..=operations {
            let (disk, mut pair) = prepared(SimVfs::new, seed);
            let files = names(&disk, Path::new("/"));
            disk.fault_at(disk.operations() + at, fault);
            let store = pair.store.as_ref().unwrap();
            let made = store.snapshot_to("/copy", &with);
            disk.free_space();
            let context = format!("seed {seed} {fault:?} at {at}: {made:?}");
            assert!(fault != Fault::Full || matches!(made, Ok(_) | Err(Error::Full { .. })), "{context}");
            if made.is_err() {
                assert!(disk.list(Path::new("/copy")).is_err(), "{context}");
                if !matches!(made, Err(Error::Poisoned { .. })) {
                    let left = names(&disk, Path::new("/copy.incomplete"));
                    let is_marker = |file: &PathBuf| file.ends_with("UNFINISHED-SNAPSHOT");
                    assert!(left.iter().all(is_marker) || fault == Fault::Error, "{context}: {left:?}");
                    store.snapshot_to("/copy", &with).unwrap_or_else(|error| panic!("{context}: {error}"));
                }
            }
            // A sync of the store's own log is one of the operations.
            if !matches!(made, Err(Error::Poisoned { .. })) && store.put("more", Algorithm::Sha256).is_ok() {
                assert!(observe(&open_reading(&disk, "/copy")) == outline(&pair.model), "{context}");
                let (digest, expected) = (Digest::of(Algorithm::Sha256, b"more"), outline(&pair.model));
                store.remove(&digest).unwrap();
                assert!(observe(store) == expected, "{context}");
            }
            assert!(files.iter().all(|file| !file.starts_with("/copy")));
            drop(pair.store.take());
        }
    }
}

#[test]
fn what_is_missing_is_reported_and_the_rest_is_copied() {
    let disk = SimVfs::new();
    let store = options(&disk, &Clock::manual()).open("/store").unwrap();
    let kept = store.put(Random(1).bytes(20_000), Algorithm::Sha256).unwrap().digest;
    let lost = store.put(Random(2).bytes(30_000), Algorithm::Sha256).unwrap().digest;
    let file = disk.files().into_iter().rev().find(|path| path.extension().is_some_and(|end| end == "seg")).unwrap();
    disk.remove(&file).unwrap();
    for (n, from) in [&store, &open_reading(&disk, "/store")].into_iter().enumerate() {
        let path = format!("/copy-{n}");
        let report = from.snapshot_to(&path, &SnapshotOptions::new()).unwrap();
        assert_eq!(report.missing, std::slice::from_ref(&file));
        let copy = open(&disk, &path);
        copy.get(&kept).unwrap().verify().unwrap();
        assert!(matches!(copy.get(&lost), Err(Error::Corrupt { .. })));
    }
    // Where the facts are damaged that would tell, all files are taken.
    store.checkpoint().unwrap();
    let run = disk.files().into_iter().rev().find(|path| path.extension().is_some_and(|end| end == "run")).unwrap();
    for page in 1..disk.read_file(&run).unwrap().len() as u64 / 4096 {
        disk.flip_bit(&run, (page * 4096 + 10) * 8).unwrap();
    }
    drop(store);
    let reader = open_reading(&disk, "/store");
    let report = reader.snapshot_to("/damaged", &SnapshotOptions::new()).unwrap();
    let (own, copied) = (names(&disk, Path::new("/store/segments")), names(&disk, Path::new("/damaged/segments")));
    assert_eq!((own.len(), report.missing.len()), (copied.len(), 0));
}

#[test]
fn what_can_not_be_read_is_reported_and_the_rest_is_copied() {
    let disk = SimVfs::new();
    let store = options(&disk, &Clock::manual()).open("/store").unwrap();
    let contents = [1, 2, 3].map(|n| Random(n).bytes(3 << 20));
    let [whole, lost, other] = contents.clone().map(|content| store.put(content, Algorithm::Sha256).unwrap().digest);
    let segments: Vec<PathBuf> =
        disk.files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    let holding = |content: &[u8]| {
        let file =
            |path: &&PathBuf| disk.read_file(path).unwrap().windows(64).any(|at| at == &content[2 << 20..][..64]);
        segments.iter().find(file).unwrap()
    };
    let bad = holding(&contents[1]);
    disk.fail_reads(bad, 1_500_000..1_500_512);
    let bytes = disk.read_file(bad).unwrap();
    let from = [&store, &open_reading(&disk, "/store")];
    for (n, from) in from.into_iter().enumerate() {
        let path = PathBuf::from(format!("/copy-{n}"));
        let report = from.snapshot_to(&path, &SnapshotOptions::new().links(false)).unwrap();
        assert_eq!(report.unreadable, std::slice::from_ref(bad));
        assert!(report.missing.is_empty());
        let mut expected = bytes.clone();
        expected[1_499_136..1_503_232].fill(0);
        assert!(disk.read_file(path.join(bad.strip_prefix("/store").unwrap())).unwrap() == expected);
        let copy = open(&disk, &path);
        copy.get(&whole).unwrap().verify().unwrap();
        copy.get(&other).unwrap().verify().unwrap();
        assert!(matches!(copy.get(&lost).and_then(|blob| blob.verify()), Err(Error::Corrupt { .. })));
    }
    // Nothing is read of what is linked, and a file that can't be read is linked as any other.
    let report = store.snapshot_to("/linked", &SnapshotOptions::new()).unwrap();
    assert!(report.unreadable.is_empty());
    // Where facts can't be read that would say which files are needed, all are taken.
    store.checkpoint().unwrap();
    let run = disk.files().into_iter().rev().find(|path| path.extension().is_some_and(|end| end == "run")).unwrap();
    let pages = disk.read_file(&run).unwrap().len() as u64 / 4096;
    let reader = open_reading(&disk, "/store");
    disk.fail_reads(&run, 4096..(pages - 1) * 4096);
    let report = reader.snapshot_to("/facts", &SnapshotOptions::new().links(false)).unwrap();
    assert_eq!(report.unreadable, [run, bad.clone()]);
    assert_eq!(names(&disk, Path::new("/facts/segments")).len(), segments.len());
    // At the end of a file, the copy is as long as it.
    let end = bytes.len() as u64;
    disk.fail_reads(bad, end - 10..end);
    store.snapshot_to("/end", &SnapshotOptions::new().links(false)).unwrap();
    assert_eq!(disk.read_file(Path::new("/end").join(bad.strip_prefix("/store").unwrap())).unwrap().len(), bytes.len());
}

#[test]
fn a_second_snapshot_to_one_directory_waits_for_nobody_and_a_wrong_base_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(Options::new(), &Clock::manual()).open(dir.path().join("store")).unwrap();
    store.put(Random(1).bytes(20_000), Algorithm::Sha256).unwrap();
    let to = dir.path().join("copy");
    let building = dir.path().join("copy.incomplete");
    std::fs::create_dir_all(building.join("segments/0000000000")).unwrap();
    std::fs::write(building.join("segments/0000000000/000000000001.seg"), "left by another").unwrap();
    std::fs::create_dir(building.join("log")).unwrap();
    std::fs::write(building.join("UNFINISHED-SNAPSHOT"), "").unwrap();
    let lock = strongroom::vfs::RealVfs.lock(&building.join("LOCK")).unwrap();
    assert!(matches!(store.snapshot_to(&to, &SnapshotOptions::new()), Err(Error::Locked { .. })));
    drop(lock);
    let no_base = SnapshotOptions::new().base(dir.path());
    assert!(matches!(store.snapshot_to(&to, &no_base), Err(Error::NotAStore { .. })));
    std::fs::create_dir(&to).unwrap(); // empty: that will do
    let first = store.snapshot_to(&to, &SnapshotOptions::new().links(false)).unwrap();
    assert!(first.linked_files == 0 && first.copied_bytes > 20_000, "{first:?}");
    assert!(!building.exists());
    for taken in [to.clone(), dir.path().join("store"), dir.path().join("store/FORMAT"), "/".into()] {
        let refused = store.snapshot_to(&taken, &SnapshotOptions::new());
        assert!(matches!(refused, Err(Error::NotEmpty { .. })), "{refused:?}");
    }
    assert!(matches!(store.snapshot_to(dir.path().join("no/such"), &SnapshotOptions::new()), Err(Error::Io { .. })));
    // With a base that is a snapshot of it, what is new is copied.
    store.put(Random(2).bytes(7000), Algorithm::Sha256).unwrap();
    let with = SnapshotOptions::new().links(false).base(&to);
    let second = store.snapshot_to(dir.path().join("second"), &with).unwrap();
    assert!(second.linked_bytes > 20_000 && second.copied_bytes < 20_000, "{second:?}");
    // A base that went its own way has other files under the same names.
    let base = small(Options::new(), &Clock::manual()).open(&to).unwrap();
    base.put(Random(3).bytes(7000), Algorithm::Sha256).unwrap();
    base.close().unwrap();
    let third = store.snapshot_to(dir.path().join("third"), &with).unwrap();
    assert!(third.copied_bytes >= 7000, "{third:?}");
    let third = small(Options::new(), &Clock::manual()).open(dir.path().join("third")).unwrap();
    assert!(observe(&third) == observe(&store));
}

#[test]
fn what_has_rotted_in_a_base_is_not_handed_down() {
    let disk = SimVfs::new();
    let store = options(&disk, &Clock::manual()).open("/store").unwrap();
    let digest = store.put(Random(1).bytes(3 << 20), Algorithm::Sha256).unwrap().digest;
    store.snapshot_to("/base", &SnapshotOptions::new().links(false)).unwrap();
    let segment = |dir: &str| names(&disk, &Path::new(dir).join("segments")).pop().unwrap();
    disk.flip_bit(segment("/base"), 8 * (2 << 20)).unwrap();
    let with = SnapshotOptions::new().links(false).base("/base");
    store.snapshot_to("/copy", &with).unwrap();
    open(&disk, "/copy").get(&digest).unwrap().verify().unwrap();
    // What can't be read in the base is copied from the store.
    disk.fail_reads(segment("/base"), 4096..8192);
    let report = store.snapshot_to("/again", &with).unwrap();
    assert!(report.unreadable.is_empty() && report.copied_bytes > 3 << 20, "{report:?}");
}
