//! What a store says of its own health: what it knows, without a look at the disk.

use strongroom::registry::RepositorySettings;
use strongroom::vfs::{Fault, SimVfs};
use strongroom::{Algorithm, Clock, Error, Store, StoreState};

use crate::common::options;
use crate::common::registry::name;

fn open(disk: &SimVfs) -> Store {
    options(disk, &Clock::manual()).open("/store").unwrap()
}

#[test]
fn a_store_that_works_says_so_and_what_waits_in_it() {
    let disk = SimVfs::new();
    let store = options(&disk, &Clock::manual()).memtable_size(1 << 20).open("/store").unwrap();
    let health = store.health();
    assert!(health.is_good() && matches!(health.state, StoreState::Writable), "{health:?}");
    assert_eq!((health.uploads, health.locked.len()), (Some(0), 0));
    let repository = store.create_repository(&name("a/ours"), RepositorySettings::new()).unwrap();
    for n in 0..40u64 {
        store.put(vec![n as u8; 1000], Algorithm::Sha256).unwrap();
        store.begin_upload(Algorithm::Sha256).unwrap();
        repository.begin_upload(Algorithm::Sha256).unwrap();
    }
    let before = (disk.operations(), store.health());
    assert_eq!(before.1.uploads, Some(80), "those of repositories too");
    assert!(before.1.unfolded_facts >= 120 && before.1.unfolded_bytes > 120 * 32, "{:?}", before.1);
    assert!(before.1.log_bytes > 16 << 10, "log files were sealed");
    store.health();
    assert_eq!(disk.operations(), before.0, "nothing is written for it");
    store.checkpoint().unwrap();
    let folded = store.health();
    assert!(folded.unfolded_facts < 10 && folded.uploads == Some(80), "{folded:?}");
    for _ in 0..1000 {
        store.begin_upload(Algorithm::Sha256).unwrap();
    }
    assert_eq!(store.health().uploads, Some(1000), "more are not counted");
}

#[test]
fn why_a_store_takes_no_writes_is_told() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let digest = store.put("content", Algorithm::Sha256).unwrap().digest;
    let clone = store.clone();
    store.close().unwrap();
    assert!(matches!(clone.health().state, StoreState::Closed) && !clone.health().is_good());
    drop(clone);

    let store = open(&disk);
    store.put("the log file is there", Algorithm::Sha256).unwrap();
    disk.fault_at(disk.operations() + 2, Fault::FailedSync);
    assert!(store.put("more", Algorithm::Sha256).is_err());
    let StoreState::Stopped { cause } = store.health().state else { panic!("{:?}", store.health()) };
    assert!(matches!(&*cause, Error::Io { operation: "sync", .. }), "{cause}");
    assert!(store.get(&digest).is_ok(), "reads go on");
}

#[test]
fn a_full_disk_is_told_and_that_it_is_no_more() {
    let disk = SimVfs::new();
    let store = options(&disk, &Clock::manual()).memtable_size(1 << 20).open("/store").unwrap();
    (0..5).for_each(|n| store.put(vec![n; 1500], Algorithm::Sha256).map(drop).unwrap());
    disk.fault_at(disk.operations() + 1, Fault::Full);
    assert!(matches!(store.checkpoint(), Err(Error::Full { .. })));
    let full = store.health();
    assert!(matches!(full.state, StoreState::Writable), "{full:?}");
    assert!(matches!(full.maintenance, Some(Error::Full { .. })) && !full.is_good(), "{full:?}");
    disk.free_space();
    store.checkpoint().unwrap();
    let free = store.health();
    assert!(free.is_good() && free.has_reserve, "{free:?}");
}
