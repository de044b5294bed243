//! Power cuts and kills at every operation, and again at every operation of the recovery.
//!
//! A history runs on the simulated file system. For each operation of it the power is cut there, with the choice of
//! lost and kept sectors and names drawn from the seed. After recovery the store holds what was acknowledged, and what
//! was under way wholly or not at all; all counts equal a recount. Then the same with the power cut again at each
//! operation of the recovery.

use std::ops::ControlFlow;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use strongroom::vfs::{Fault, SimVfs, Vfs};
use strongroom::{Clock, CollectOptions, Durability, Error, Lsn, Store};

use crate::common::events::{Stock, record};
use crate::common::repositories::RETENTION;
use crate::common::tour::tour;
use crate::common::{
    Leeway, Model, Pair, Random, Step, content_files, finish_uploads, history, is_one_of, observe, options, outline,
    remove_everything, seed, tell,
};

/// So many operations has a history that is drawn.
const STEPS: usize = 24;

/// What a run left behind when it ended.
struct End {
    before: Model,
    after: Model,
    leeway: Leeway,
    stock: Stock,
}

impl End {
    fn of(pair: &Pair) -> Self {
        let (before, after) = (pair.model.clone(), pair.next.clone());
        Self { before, after, leeway: pair.leeway, stock: pair.stock.clone() }
    }
}

/// Runs a history until an operation fails.
fn run(disk: &SimVfs, steps: &[Step]) -> (End, Option<Error>) {
    let mut pair = match Pair::new(disk) {
        Ok(pair) => pair,
        Err(error) => {
            let none = || Model::default();
            let end = End { before: none(), after: none(), leeway: Leeway::None, stock: Stock::default() };
            return (end, Some(error));
        }
    };
    let error = steps.iter().find_map(|step| pair.run(step).err());
    let end = End::of(&pair);
    pair.kill();
    (end, error)
}

fn open(disk: &SimVfs) -> Result<Store, Error> {
    options(disk, &Clock::manual()).open("/store")
}

/// Opens what is left, compares it, and goes on with it.
fn check(left: &SimVfs, end: &End, context: &str) {
    let store = open(left).unwrap_or_else(|error| panic!("{context}: {error}"));
    let seen = observe(&store);
    assert!(
        is_one_of(&seen, &end.before, &end.after, end.leeway),
        "{context}\nseen {:#?}\nbefore {:#?}\nafter {:#?}",
        summary(&seen),
        summary(&outline(&end.before)),
        summary(&outline(&end.after)),
    );
    let events = record(&store, Lsn::default()).expect("a working disk");
    let told = events.check(&end.stock, &store, &seen);
    told.unwrap_or_else(|error| panic!("{context}\n{error}"));
    // Whatever was answered is durable: the power may go off right after, however the store came to be open.
    let stock = Stock { told: events.events, position: events.next, model: seen.clone() };
    let again = open(&left.power_cut(7)).unwrap_or_else(|error| panic!("{context}, cut again: {error}"));
    assert_eq!(summary(&observe(&again)), summary(&seen), "{context}: what was answered was lost");
    let told = record(&again, Lsn::default()).expect("a working disk").check(&stock, &again, &seen);
    told.unwrap_or_else(|error| panic!("{context}, cut again\n{error}"));
    drop(again);
    finish_uploads(&store, &[&end.before, &end.after]);
    let digest = store.put(b"and on it goes", strongroom::Algorithm::Sha256).expect("a working store");
    store.close().expect("a clean close");
    let clock = Clock::manual();
    let store = options(left, &clock).history(0).open("/store").expect("a clean opening");
    assert_eq!(store.get(&digest.digest).expect("stored").bytes().expect("content"), &b"and on it goes"[..]);
    remove_everything(&store);
    clock.advance(Duration::from_millis(2 * RETENTION));
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).expect("a collection");
    assert_eq!(store.blobs().count(), 0, "{context}: what nothing holds is gone");
    store.checkpoint().expect("a checkpoint");
    store.close().expect("a clean close");
    // What the crash left half done is not left for ever either: of an empty store there is a last log file at most.
    let files = content_files(left);
    assert!(files.len() <= 1 && files.iter().all(|file| file.ends_with(".log")), "{context}: {files:?}");
}

fn summary(model: &Model) -> [Vec<String>; 4] {
    [
        model.blobs.iter().map(|(digest, content)| format!("{digest} {}", content.len())).collect(),
        model.files.iter().map(|(name, file)| format!("{name} {file:?}")).collect(),
        model.uploads.iter().map(|(id, one)| format!("{id} {} {:?}", one.len(), model.owners.get(id))).collect(),
        model.repositories.iter().map(|(name, repository)| format!("{name} {repository:#?}")).collect(),
    ]
}

/// The histories that are run: one that meets everything, and others drawn from a seed.
fn histories(seed: u64, count: u64) -> Vec<Vec<Step>> {
    let drawn = (1..count).map(|round| history(&mut Random(seed + round), STEPS));
    std::iter::once(tour()).chain(drawn).collect()
}

/// Makes the disk that a history runs on. On one with a key everything is encrypted.
type NewDisk = fn() -> SimVfs;

/// The operations that a history takes, by their numbers.
fn operations(steps: &[Step], new: NewDisk) -> RangeInclusive<u64> {
    let disk = new();
    let first = disk.operations() + 1;
    let (_, error) = run(&disk, steps);
    assert!(error.is_none(), "{error:?}");
    first..=disk.operations()
}

#[test]
fn nothing_acknowledged_is_lost_at_any_power_cut_nor_at_a_second_one_during_recovery() {
    let covered = power_cuts(seed(0x5eed), 3, SimVfs::new, 2);
    tell(&format!("crash points covered: {covered}"));
    assert!(covered >= 10_000, "{covered} crash points");
}

/// Cuts the power at each operation of histories, and again at every `stride`th of the recovery, beginning with another
/// one each time. Returns how many cuts that were.
fn power_cuts(seed: u64, rounds: u64, new: NewDisk, stride: u64) -> u64 {
    let covered = AtomicU64::new(0);
    for (round, steps) in (0u64..).zip(histories(seed, rounds)) {
        let points = operations(&steps, new);
        let (next, last) = (AtomicU64::new(*points.start()), *points.end());
        let work = || {
            loop {
                let k = next.fetch_add(1, Ordering::Relaxed);
                if k > last {
                    return;
                }
                covered.fetch_add(cut(&steps, k, seed ^ round << 32, new, stride), Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| [scope.spawn(work), scope.spawn(work)].map(|one| one.join().expect("it holds")));
    }
    covered.into_inner()
}

/// Cuts the power at one operation, and again at operations of the recovery. Returns how many cuts that were.
fn cut(steps: &[Step], k: u64, seed: u64, new: NewDisk, stride: u64) -> u64 {
    let mut draws = Random(seed ^ k << 40);
    let disk = new();
    disk.fault_at(k, Fault::PowerCut);
    let (end, error) = run(&disk, steps);
    let Some(error) = error else { return 0 };
    let draw = draws.next();
    let context = format!("seed {seed} cut at {k} draw {draw}: {error}");
    check(&disk.power_cut(draw), &end, &context);
    let counting = disk.power_cut(draw);
    drop(open(&counting));
    let mut cuts = 1;
    for j in (1 + k % stride..=counting.operations()).step_by(stride as usize) {
        let again = disk.power_cut(draw);
        again.fault_at(j, Fault::PowerCut);
        drop(open(&again));
        let second = draws.next();
        let context = format!("{context}, again at {j} of the recovery draw {second}");
        check(&again.power_cut(second), &end, &context);
        cuts += 1;
    }
    cuts
}

#[test]
fn a_store_is_created_with_the_directories_that_lead_to_it_whatever_interrupts_that() {
    let open = |disk: &SimVfs| options(disk, &Clock::manual()).open("/data/registry/store");
    let disk = SimVfs::new();
    drop(open(&disk).expect("a working disk"));
    for k in 1..=disk.operations() {
        let begun = SimVfs::new();
        begun.fault_at(k, Fault::PowerCut);
        drop(open(&begun));
        // After a power cut, or as a killed process left it, with nothing of it durable.
        for left in [begun.power_cut(k), begun.restarted()] {
            let store = open(&left).unwrap_or_else(|error| panic!("cut at {k}: {error}"));
            let stored = store.put("acknowledged", strongroom::Algorithm::Sha256).expect("a working store");
            for seed in 0..8 {
                let again = open(&left.power_cut(seed)).unwrap_or_else(|error| panic!("cut at {k}, again: {error}"));
                assert!(again.exists(&stored.digest).expect("readable"), "cut at {k}, again with seed {seed}");
            }
        }
    }
}

#[test]
fn log_files_grow_and_lose_nothing_at_any_power_cut_nor_at_a_second_one_during_recovery() {
    let open =
        |disk: &SimVfs| options(disk, &Clock::manual()).inline_max(64 << 10).log_file_size(1 << 20).open("/store");
    let content = |n: u64| Random(n).bytes(50_000);
    let run = |disk: &SimVfs| {
        let store = open(disk).ok();
        let put = |n: &u64| store.as_ref().map(|store| store.put(content(*n), strongroom::Algorithm::Sha256));
        let count = (0..24).take_while(|n| put(n).is_some_and(|stored| stored.is_ok())).count();
        if let Some(store) = store {
            std::mem::forget(store); // it was killed
        }
        count as u64
    };
    let check = |left: &SimVfs, stored: u64, context: &str| {
        let store = open(left).unwrap_or_else(|error| panic!("{context}: {error}"));
        for n in 0..stored {
            let digest = strongroom::Digest::of(strongroom::Algorithm::Sha256, &content(n));
            assert!(store.get(&digest).and_then(|blob| blob.bytes()).is_ok(), "{context}: {n} of {stored} is gone");
        }
    };
    let disk = SimVfs::new();
    assert_eq!(run(&disk), 24);
    let lens = content_files(&disk).iter().map(|log| disk.read_file(log).expect("a file").len()).collect::<Vec<_>>();
    assert!(lens.len() == 3 && lens[0] < 256 << 10 && lens[1] < 512 << 10 && lens[2] == 1 << 20, "{lens:?}");
    for k in 1..=disk.operations() {
        let disk = SimVfs::new();
        disk.fault_at(k, Fault::PowerCut);
        let stored = run(&disk);
        check(&disk.power_cut(k), stored, &format!("cut at {k}"));
        let counting = disk.power_cut(k);
        drop(open(&counting));
        for j in (1 + k % 5..=counting.operations()).step_by(5) {
            let again = disk.power_cut(k);
            again.fault_at(j, Fault::PowerCut);
            drop(open(&again));
            check(&again.power_cut(j), stored, &format!("cut at {k}, again at {j}"));
        }
    }
}

#[test]
fn what_a_killed_process_left_in_the_page_cache_is_durable_once_it_was_answered() {
    let covered = kills(seed(0xdead), 3, SimVfs::new);
    tell(&format!("kill points covered: {covered}"));
}

fn kills(seed: u64, rounds: u64, new: NewDisk) -> u64 {
    let mut covered = 0u64;
    for (round, steps) in (0u64..).zip(histories(seed, rounds)) {
        for k in operations(&steps, new) {
            let disk = new();
            disk.fault_at(k, Fault::PowerCut);
            let (end, error) = run(&disk, &steps);
            let Some(error) = error else { continue };
            // The kernel lives on: all that was written is there, and none of it is safe before it is synced.
            check(&disk.restarted(), &end, &format!("seed {seed} round {round} killed at {k}: {error}"));
            covered += 1;
        }
    }
    covered
}

#[test]
fn a_full_disk_loses_nothing_and_the_store_goes_on_when_there_is_space() {
    full_disks(seed(0xf011), 3, SimVfs::new);
}

fn full_disks(seed: u64, rounds: u64, new: NewDisk) {
    for (round, steps) in (0u64..).zip(histories(seed, rounds)) {
        for k in operations(&steps, new) {
            let disk = new();
            disk.fault_at(k, Fault::Full);
            let mut pair = match Pair::new(&disk) {
                Ok(pair) => pair,
                Err(Error::Full { .. }) => {
                    disk.free_space();
                    Pair::new(&disk).unwrap_or_else(|error| panic!("full at {k}, then not: {error}"))
                }
                Err(error) => panic!("full at {k}: {error}"),
            };
            for step in &steps {
                match pair.run(step) {
                    Ok(()) => {}
                    Err(Error::Full { .. }) => {
                        disk.free_space();
                        if pair.store.is_none() {
                            pair.open().expect("space again");
                        }
                        let store = pair.store.as_ref().expect("open");
                        let seen = observe(store);
                        assert!(is_one_of(&seen, &pair.model, &pair.next, pair.leeway), "full at {k} in {step:?}");
                        pair.adopt(&seen);
                        pair.run(step).unwrap_or_else(|error| panic!("full at {k}, again {step:?}: {error}"));
                    }
                    Err(error) => panic!("seed {seed} round {round} full at {k} in {step:?}: {error}"),
                }
            }
            let store = pair.store.as_ref().expect("open");
            assert_eq!(summary(&observe(store)), summary(&outline(&pair.model)));
            let runs = disk.list(Path::new("/store/runs")).expect("a directory").into_iter();
            let len = |name| disk.read_file(Path::new("/store/runs").join(name)).expect("a file").len() as u64;
            let bytes: u64 = runs.filter(|name| name.ends_with(".run")).map(len).sum();
            assert_eq!(bytes, store.usage().expect("facts").run_bytes, "full at {k}: a run that nothing names");
        }
    }
}

#[test]
fn without_syncs_a_power_cut_takes_back_whole_commits_from_the_end_and_nothing_else() {
    let seed = seed(0x1a2);
    let mut covered = 0u64;
    for round in 0..5 {
        let drawn = history(&mut Random(seed + round), 2 * STEPS);
        let mut steps = if round == 0 { tour() } else { drawn };
        // These are several commits each, or begin an upload that only a lost commit would name.
        steps.retain(|step| {
            !matches!(
                step,
                Step::Expire | Step::ExpireBlobs | Step::Collect(_) | Step::Begin { .. } | Step::PutMany { .. }
            )
        });
        let mut draws = Random(seed ^ round << 32);
        for k in operations(&steps, SimVfs::new) {
            let disk = SimVfs::new();
            disk.fault_at(k, Fault::PowerCut);
            let mut states = vec![Model::default()];
            let Ok(mut pair) = Pair::with(&disk, Durability::Relaxed) else { continue };
            for step in &steps {
                let done = pair.run(step);
                states.push(pair.next.clone());
                if done.is_err() {
                    break;
                }
            }
            let stock = std::mem::take(&mut pair.stock);
            pair.kill();
            let draw = draws.next();
            let left = disk.power_cut(draw);
            let context = format!("seed {seed} round {round} cut at {k} draw {draw}");
            let open = |disk: &SimVfs| {
                let options = options(disk, &Clock::manual()).durability(Durability::Relaxed);
                options.open("/store").unwrap_or_else(|error| panic!("{context}: {error}"))
            };
            let store = open(&left);
            let seen = observe(&store);
            assert!(states.iter().any(|state| seen == outline(state)), "{context}: {:#?}", summary(&seen));
            // What is told is what was told, but for the end, and leads to what there is.
            let record = record(&store, Lsn::default()).expect("a working disk");
            let mut told = stock.told;
            told.retain(|event| event.lsn <= store.last_lsn());
            let position = stock.position.min(store.last_lsn());
            let before = states.iter().map(|model| Stock { told: told.clone(), position, model: model.clone() });
            let leads = before.map(|before| record.check(&before, &store, &seen));
            let error = leads.reduce(|one, other| one.or(other)).and_then(Result::err);
            assert_eq!(error, None, "{context}");
            drop(store);
            assert_eq!(summary(&observe(&open(&left))), summary(&seen), "{context}: opened again");
            covered += 1;
        }
    }
    tell(&format!("crash points covered without syncs: {covered}"));
}

#[test]
fn what_killed_processes_reserved_is_given_back() {
    let mut disk = SimVfs::new();
    let mut used = Vec::new();
    for n in 0..40u32 {
        let store = open(&disk).expect("a working store");
        store.put(n.to_le_bytes(), strongroom::Algorithm::Sha256).expect("space");
        let logs = content_files(&disk);
        used.push(logs.iter().map(|log| disk.read_file(log).expect("a file").len()).sum::<usize>());
        // Killed: the log file is as long as it was reserved.
        disk = disk.restarted();
    }
    // One of them is in use; each of the others has a header and a record or two.
    assert!(used[39] < (16 << 10) + 40 * 2048, "{used:?}");
}

#[test]
fn after_a_failed_sync_writes_are_refused_reads_go_on_and_nothing_acknowledged_is_lost() {
    failed_syncs(seed(0xf5), SimVfs::new);
}

fn failed_syncs(seed: u64, new: NewDisk) {
    let mut poisoned = 0;
    for fault in [Fault::FailedSync, Fault::Error] {
        let steps = tour().into_iter().chain(history(&mut Random(seed), STEPS)).collect::<Vec<_>>();
        for k in operations(&steps, new) {
            let disk = new();
            disk.fault_at(k, fault);
            let Ok(mut pair) = Pair::new(&disk) else { continue };
            let Some(error) = steps.iter().find_map(|step| pair.run(step).err()) else { continue };
            let end = End::of(&pair);
            if let Some(store) = &pair.store {
                for (digest, content) in &end.before.blobs {
                    if let Ok(blob) = store.get(digest) {
                        assert_eq!(blob.bytes().expect("content"), content);
                    } else {
                        assert!(!end.after.blobs.contains_key(digest), "{fault:?} at {k}: {digest} is gone");
                    }
                }
                if matches!(error, Error::Poisoned { .. }) {
                    poisoned += 1;
                    let refused = store.put(format!("after {k}"), strongroom::Algorithm::Sha256);
                    assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
                }
            }
            let draw = seed ^ k;
            let left = disk.power_cut(draw);
            pair.kill();
            check(&left, &end, &format!("seed {seed} {fault:?} at {k} draw {draw}: {error}"));
        }
    }
    assert!(poisoned > 20, "{poisoned} failed syncs met");
}

#[test]
fn short_writes_change_nothing() {
    let seed = seed(0x5407);
    let steps = tour().into_iter().chain(history(&mut Random(seed), STEPS)).collect::<Vec<_>>();
    for k in operations(&steps, SimVfs::new) {
        let disk = SimVfs::new();
        disk.fault_at(k, Fault::ShortWrite);
        let (end, error) = run(&disk, &steps);
        assert!(error.is_none(), "short write at {k}: {error:?}");
        check(&disk.restarted(), &end, &format!("short write at {k}"));
    }
}

#[test]
#[cfg(feature = "encryption")]
fn an_encrypted_store_holds_the_same_and_never_uses_a_nonce_twice() {
    use crate::common::encrypted_disk;
    let seed = seed(0xc1f);
    strongroom::nonces::record();
    let cuts = power_cuts(seed, 1, encrypted_disk, 4);
    let kills = kills(seed, 1, encrypted_disk);
    full_disks(seed, 1, encrypted_disk);
    failed_syncs(seed, encrypted_disk);
    let (seen, repeated) = strongroom::nonces::recorded();
    tell(&format!("encrypted: {cuts} crash points, {kills} kill points, {seen} pairs of key and nonce"));
    assert_eq!(repeated, 0, "of {seen} pairs of key and nonce");
    assert!(seen > 100_000 && cuts > 2000, "{seen} pairs of key and nonce");
}
