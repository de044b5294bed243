//! Collection: what it takes and what it leaves, the races that have hurt users of others, full disks, damage, and
//! crashes.

mod between;
mod clients;
mod crashes;
mod races;
mod repositories;
mod running;
mod space;

use std::ops::ControlFlow;

use strongroom::{CollectOptions, Collection, Digest, Store};

use crate::common::registry::{Lab, RETENTION};

/// Past this, what nobody relied on since the beginning is gone: retention, and how exactly that is noted.
const GONE: u64 = RETENTION + RETENTION / 8 + 1;

/// A collection to its end that leaves nothing dead.
fn collect(store: &Store) -> Collection {
    store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(())).unwrap()
}

/// A store on a disk where nothing is kept for who reads events.
fn open(lab: &Lab) -> Store {
    lab.options().history(0).open("/store").unwrap()
}

/// Whether the content is there, and right.
fn is_whole(store: &Store, digest: &Digest) -> bool {
    store.get(digest).is_ok_and(|blob| Digest::of(digest.algorithm(), &blob.bytes().unwrap()) == *digest)
}
