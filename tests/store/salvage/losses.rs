//! Random damage to the logs of random histories: whatever was acknowledged and is missing or different is told.

use std::ops::ControlFlow;
use std::time::Duration;

use strongroom::registry::RepositoryDeletion;
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, CollectOptions, Error, Lsn, Store};

use super::lab::{Made, check_told, contents, damage, heal, logs, make, open, salvaging};
use crate::common::file_names;
use crate::common::repositories::RETENTION;
use crate::common::tour::tour;
use crate::common::{Random, encrypted_disk, history, options, outline, seed, tell};

/// Salvages a store that was damaged. Says whether that was needed.
fn salvage(made: &Made, disk: &SimVfs, hit: &[std::path::PathBuf], context: &str) -> bool {
    match open(disk) {
        Ok(_) => return false,
        Err(Error::Corrupt { .. }) => {}
        Err(error) => panic!("{context}: {error}"),
    }
    let before = contents(disk);
    let salvage = salvaging(disk).salvage("/store").unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(contents(disk), before, "{context}: the plan changes nothing");
    let planned = salvage.report().clone();
    assert!(planned.is_needed(), "{context}");
    let report = salvage.carry_out().unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(format!("{planned:?}"), format!("{report:?}"), "{context}: what was planned was done");
    for (path, content) in before.iter().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "log")) {
        let copy = disk.read_file(report.copies.join(path.file_name().unwrap()));
        let is_named = report.damage.iter().any(|error| matches!(error, Error::Corrupt { file, .. } if file == path));
        assert!(copy.as_ref().is_ok_and(|copy| copy == content) || !is_named, "{context}: {} is kept", path.display());
    }
    let store = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    if !made.history.is_empty() && store.last_lsn() > Lsn::default() {
        let gap = store.events(report.kept, 10);
        assert!(matches!(gap, Err(Error::Gap { .. })), "{context}: who follows events is told: {gap:?}");
    }
    let Some(seen) = heal(&store, made, &report, hit, context) else { return true };
    check_told(made, &report, &seen, context);
    store.close().unwrap();
    let store = open(disk).unwrap_or_else(|error| panic!("{context}, again: {error}"));
    assert_eq!(outline(&crate::common::observe(&store)), outline(&seen), "{context}: it survives a restart");
    goes_on(store, disk, context);
    true
}

/// Goes on with a salvaged store, then empties it: nothing is left behind.
fn goes_on(store: Store, disk: &SimVfs, context: &str) {
    let digest = store.put(b"and on it goes", Algorithm::Sha256).unwrap().digest;
    store.named().set("on", &digest, strongroom::PutNamed::new()).unwrap();
    store.close().unwrap();
    let clock = Clock::manual();
    let store = options(disk, &clock).history(0).open("/store").unwrap();
    assert_eq!(store.get(&store.named().stat("on").unwrap().digest).unwrap().bytes().unwrap(), &b"and on it goes"[..]);
    file_names(&store)
        .unwrap()
        .iter()
        .for_each(|pin| store.named().remove(pin, strongroom::ExpectNamed::Any).map(drop).unwrap());
    for name in store.repositories(None, usize::MAX).unwrap().items {
        store.delete_repository(&name, RepositoryDeletion::WithContents).unwrap();
    }
    store.uploads(None, 1000).unwrap().items.iter().for_each(|upload| store.cancel_upload(upload.id).unwrap());
    clock.advance(Duration::from_millis(2 * RETENTION));
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(store.blobs().count(), 0, "{context}: what nothing holds is gone");
    store.checkpoint().unwrap();
    store.close().unwrap();
    let left = || disk.files().into_iter().filter(|path| path.starts_with("/store/segments"));
    assert!(logs(disk).len() <= 1 && left().count() == 0, "{context}: {:?} {:?}", logs(disk), left().next());
}

fn damage_histories(seed: u64, rounds: u64, new: fn() -> SimVfs) {
    let (mut needed, mut tried) = (0, 0);
    for round in 0..rounds {
        let mut random = Random(seed ^ round << 32);
        let steps = if round == 0 { tour() } else { history(&mut random, 60) };
        let memtable = [2 << 10, 12 << 10, 1 << 20][round as usize % 3];
        let made = make(&new(), &steps, memtable, round % 4 != 3);
        for n in 0..if round == 0 { 60 } else { 12 } {
            let disk = made.disk.restarted();
            let hits: Vec<_> =
                (0..1 + n % 3).map(|_| (!logs(&disk).is_empty()).then(|| damage(&disk, &mut random))).collect();
            let (paths, hows): (Vec<_>, Vec<_>) = hits.into_iter().flatten().unzip();
            let context = format!("seed {seed} round {round} damage {n}: {hows:?}");
            tried += 1;
            needed += u64::from(salvage(&made, &disk, &paths, &context));
        }
    }
    tell(&format!("{tried} damaged stores, {needed} of them salvaged"));
    assert!(needed > tried / 5, "{needed} of {tried}");
}

#[test]
fn what_is_lost_is_told() {
    damage_histories(seed(0x5a1), 60, SimVfs::new);
}

#[test]
fn also_where_the_store_is_encrypted() {
    damage_histories(seed(0x5a2), 30, encrypted_disk);
}
