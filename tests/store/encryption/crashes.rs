//! A crash at every operation of everything that changes keys: what there was is there, and going on brings it to an
//! end.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strongroom::vfs::{Fault, SimVfs};
use strongroom::{Algorithm, Error, Store};

use super::lab::{DOMAINS, Keeper, Known, Seen, assert_sound, build, domain, finish, open, open_any, rewrite, see};
use crate::common::{Random, seed, tell};

/// Something that changes keys, and nothing of what a store holds.
type Change<'a> = dyn Fn(&Store) -> Result<(), Error> + Sync + 'a;

/// A store before a change.
struct Before {
    disk: SimVfs,
    known: Known,
    seen: Seen,
    /// Whom the store's keys are wrapped by, if by anybody, and by whom they may be after the change.
    keeper: Option<Arc<Keeper>>,
    next: Arc<Keeper>,
}

impl Before {
    fn new(is_encrypted: bool) -> Self {
        let keeper = is_encrypted.then(|| Keeper::new(1));
        let next = if is_encrypted { Keeper::new(2) } else { Keeper::new(1) };
        let (disk, known) = build(keeper.as_ref());
        let seen = see(&open(&disk.restarted(), keeper.as_ref()).unwrap());
        Self { disk, known, seen, keeper, next }
    }

    fn open(&self, disk: &SimVfs) -> Store {
        open(disk, self.keeper.as_ref()).unwrap()
    }

    /// Opens what a change has left.
    fn open_after(&self, disk: &SimVfs) -> Store {
        let keepers: Vec<_> = self.keeper.iter().chain([&self.next]).collect();
        open_any(disk, &keepers)
    }

    /// Begins with a change that is known to succeed.
    fn with(mut self, first: &Change<'_>) -> Self {
        let store = self.open(&self.disk);
        first(&store).unwrap();
        store.close().unwrap();
        if self.keeper.is_none() {
            self.keeper = Some(Arc::clone(&self.next));
        }
        self
    }

    /// The operations that a change takes, by their numbers.
    fn operations(&self, change: &Change<'_>) -> std::ops::RangeInclusive<u64> {
        let disk = self.disk.restarted();
        let store = self.open(&disk);
        let first = disk.operations() + 1;
        change(&store).unwrap();
        first..=disk.operations()
    }

    /// Lets a fault meet one operation of a change, and looks at what is left.
    fn cut(&self, change: &Change<'_>, k: u64, fault: Fault, draw: u64, context: &str) {
        let disk = self.disk.restarted();
        let store = self.open(&disk);
        disk.fault_at(k, fault);
        let error = change(&store).err();
        let left = match fault {
            Fault::PowerCut if draw.is_multiple_of(2) => disk.restarted(), // a kill: the kernel lives on
            Fault::Full => {
                disk.free_space();
                assert!(see(&store) == self.seen, "{context}: {error:?}: after the space was there again");
                change(&store).unwrap_or_else(|error| panic!("{context}: with space again: {error}"));
                disk.restarted()
            }
            _ => disk.power_cut(draw),
        };
        drop(store);
        self.check(&left, draw, &format!("{context} draw {draw}: {error:?}"));
    }

    /// Opens what is left and compares it, brings the change to an end, and loses the power again.
    fn check(&self, left: &SimVfs, draw: u64, context: &str) {
        let store = self.open_after(left);
        let compare = |store: &Store, when: &str| {
            let seen = see(store);
            assert!(seen == self.seen, "{context}: {when}: {}", seen.difference(&self.seen));
        };
        compare(&store, "opened again");
        // What was answered is durable, however the store came to be open.
        let digest = store.put("and on it goes", Algorithm::Sha256).unwrap().digest;
        let cut = self.open_after(&left.power_cut(draw + 2));
        assert_eq!(cut.get(&digest).unwrap().bytes().unwrap(), "and on it goes", "{context}");
        cut.remove(&digest).unwrap();
        compare(&cut, "lost power once more");
        drop(cut);
        store.remove(&digest).unwrap();
        if !store.is_encrypted() {
            store.encrypt(self.next.clone()).unwrap();
        }
        // By turns: with the uploads' segments open in this process, and not.
        if draw.is_multiple_of(3) {
            finish(&store, &self.known);
            rewrite(&store);
            assert_sound(&store);
            return store.close().unwrap();
        }
        rewrite(&store);
        compare(&store, "rewritten");
        store.close().unwrap();
        let store = self.open_after(left);
        compare(&store, "rewritten and opened again");
        finish(&store, &self.known);
        assert_sound(&store);
        store.close().unwrap();
    }

    /// Crashes at each operation of a change, or at a part of them that is drawn.
    fn cut_everywhere(&self, what: &str, change: &Change<'_>) {
        let seed = seed(0xc4a5);
        strongroom::nonces::record();
        let points = self.operations(change);
        let most = if std::env::var_os("STRONGROOM_EXHAUSTIVE").is_some() { u64::MAX } else { 60 };
        let total = points.end() + 1 - points.start();
        let next = AtomicU64::new(*points.start());
        let covered = AtomicU64::new(0);
        let work = || loop {
            let k = next.fetch_add(1, Ordering::Relaxed);
            if k > *points.end() {
                return;
            }
            let mut draws = Random(seed ^ k << 20);
            if draws.below(total) >= most {
                continue;
            }
            for kill in [0, 1] {
                let draw = draws.next() & !1 | kill;
                self.cut(
                    change,
                    k,
                    Fault::PowerCut,
                    draw,
                    &format!("seed {seed}: {what}: power cut at {k} of {points:?}"),
                );
            }
            for fault in [Fault::FailedSync, Fault::Error, Fault::Full] {
                if draws.below(3) == 0 {
                    self.cut(change, k, fault, draws.next() | 1, &format!("seed {seed}: {what}: {fault:?} at {k}"));
                }
            }
            covered.fetch_add(1, Ordering::Relaxed);
        };
        std::thread::scope(|scope| [scope.spawn(work), scope.spawn(work)].map(|one| one.join().expect("it holds")));
        let (seen, repeated) = strongroom::nonces::recorded();
        assert_eq!(repeated, 0, "{what}: of {seen} pairs of key and nonce");
        tell(&format!("{what}: {} of {total} crash points", covered.into_inner()));
    }
}

fn all(_: &strongroom::Rewriting) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_crash_while_encryption_is_turned_on_loses_nothing() {
    let before = Before::new(false);
    let keeper = before.next.clone();
    before.cut_everywhere("encrypt", &move |store| store.encrypt(keeper.clone()));
}

#[test]
fn a_crash_while_a_plain_store_is_rewritten_loses_nothing() {
    let keeper = Keeper::new(1);
    let before = Before::new(false).with(&|store| store.encrypt(keeper.clone()));
    before.cut_everywhere("rewrite of a plain store", &|store| store.rewrite(all).map(drop));
}

#[test]
fn a_crash_while_a_domain_is_created_loses_nothing() {
    Before::new(true).cut_everywhere("create_domain", &|store| match store.create_domain(&domain("another"), None) {
        Err(Error::DomainExists { .. }) => Ok(()), // the first attempt had come so far
        other => other,
    });
}

#[test]
fn a_crash_while_data_keys_are_rotated_loses_nothing() {
    Before::new(true).cut_everywhere("rotate_data_key", &|store| {
        store.rotate_data_key(None)?;
        store.rotate_data_key(Some(&domain(DOMAINS[1])))
    });
}

#[test]
fn a_crash_while_keys_are_wrapped_anew_loses_nothing() {
    let before = Before::new(true);
    let next = before.next.clone();
    before.cut_everywhere("rewrap_keys", &move |store| store.rewrap_keys(next.clone()));
}

#[test]
fn a_crash_while_rotated_keys_are_rewritten_loses_nothing() {
    let before = Before::new(true).with(&|store| {
        store.rotate_data_key(None)?;
        store.rotate_data_key(Some(&domain(DOMAINS[0])))?;
        store.rotate_data_key(Some(&domain(DOMAINS[1])))
    });
    before.cut_everywhere("rewrite after rotation", &|store| store.rewrite(all).map(drop));
}
