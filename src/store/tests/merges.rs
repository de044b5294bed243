//! Runs of several domains, folded, merged, locked, damaged, shredded and cut off at random, and compared with a map.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::In;
use crate::clock::Clock;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::id::DomainId;
use crate::keys::{InPlain, KeyContext, KeyError, KeyProvider, SecretKey};
use crate::random::Random;
use crate::store::{Maintenance, Options, Store};
use crate::transaction::Request;
use crate::vfs::{Fault, SimVfs};

/// The domains whose keys it refuses.
#[derive(Debug, Default)]
struct Refuses(Mutex<BTreeSet<u32>>);

impl KeyProvider for Refuses {
    fn key_id(&self) -> Result<String, KeyError> {
        InPlain.key_id()
    }

    fn wrap(&self, key_id: &str, key: &SecretKey, context: &KeyContext) -> Result<Vec<u8>, KeyError> {
        InPlain.wrap(key_id, key, context)
    }

    fn unwrap(&self, key_id: &str, wrapped: &[u8], context: &KeyContext) -> Result<SecretKey, KeyError> {
        if self.0.lock().unwrap().contains(&context.domain) {
            return Err(KeyError::Unreachable { reason: "asked too often".into() });
        }
        InPlain.unwrap(key_id, wrapped, context)
    }
}

fn open(disk: &SimVfs, keeper: &Arc<Refuses>) -> Result<Store> {
    let options = Options::new().create(true).vfs(Arc::new(disk.clone())).clock(Clock::manual());
    let options = options.maintenance(Maintenance::Inline).history(0).log_file_size(64 << 10).page_cache(1);
    options.key_provider(Arc::clone(keeper) as Arc<dyn KeyProvider>).open("/store")
}

/// So many contents there are, each in none, some or all of the domains.
const CONTENTS: usize = 24;

/// Why a history ends early: what recovery has to read is damaged.
const NEEDS_DAMAGED: &str = "opening needs what is damaged";

fn content(number: usize) -> String {
    format!("content {number}")
}

fn digest(number: usize) -> Digest {
    Digest::of(Algorithm::Sha256, content(number).as_bytes())
}

/// A store, and what it should hold.
struct World {
    seed: u64,
    random: Random,
    disk: SimVfs,
    keeper: Arc<Refuses>,
    store: Option<Store>,
    /// What is in which domain.
    model: BTreeMap<u32, BTreeSet<usize>>,
    /// Changes that failed for a reason that leaves it open whether they took place.
    unsure: BTreeSet<(u32, usize)>,
    damaged: BTreeSet<u32>,
    made: u32,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let (disk, keeper) = (SimVfs::new(), Arc::new(Refuses::default()));
        let mut world = Self {
            seed,
            random: Random(seed),
            disk,
            keeper,
            store: None,
            model: BTreeMap::from([(0, BTreeSet::new())]),
            unsure: BTreeSet::new(),
            damaged: BTreeSet::new(),
            made: 0,
            trace: Vec::new(),
        };
        world.open();
        (0..4).for_each(|_| world.create());
        world
    }

    /// What has happened so far.
    fn context(&self) -> String {
        format!("seed {}\n{}", self.seed, self.trace.join("\n"))
    }

    fn note(&mut self, what: String) {
        self.trace.push(what);
    }

    fn open(&mut self) {
        let store = open(&self.disk, &self.keeper);
        if matches!(store, Err(Error::Corrupt { .. })) && !self.damaged.is_empty() {
            panic_any(NEEDS_DAMAGED);
        }
        self.store = Some(store.unwrap_or_else(|error| panic!("{error}: {}", self.context())));
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn create(&mut self) {
        self.made += 1;
        let name = format!("d{}", self.made).parse().unwrap();
        while let Err(error) = self.store().create_domain(&name, None) {
            self.disk.free_space();
            match error {
                Error::Poisoned { .. } => self.reopen(),
                Error::Full { .. } => {}
                Error::DomainExists { .. } => break,
                error => panic!("{error}"),
            }
        }
        self.model.insert(self.made, BTreeSet::new());
    }

    fn is_locked(&self, domain: u32) -> bool {
        self.store().open.inner.files.keys().lock_of(DomainId(domain)).is_some()
    }

    fn some_domain(&mut self, least: usize) -> u32 {
        let all: Vec<u32> = self.model.keys().copied().collect();
        all[least + self.random.below(all.len() - least)]
    }

    /// Whether an error may be: of a domain that is damaged.
    fn allow(&self, domain: u32, error: &Error) {
        let is_damage = matches!(error, Error::Corrupt { .. })
            && (self.damaged.contains(&domain) || domain == 0 && !self.damaged.is_empty());
        let runs = self.store().open.inner.tables.list().runs;
        let runs: Vec<_> = runs.iter().map(|run| (run.domain.0, run.id.file.0, run.id.at, run.len)).collect();
        assert!(is_damage, "domain {domain}: {error} {runs:?} {}", self.context());
    }

    fn change(&mut self) {
        let domain = self.some_domain(0);
        if self.is_locked(domain) {
            return;
        }
        let number = self.random.below(CONTENTS);
        if self.unsure.contains(&(domain, number)) {
            return;
        }
        let is_there = self.model[&domain].contains(&number);
        let store = self.store();
        let (id, digest) = (DomainId(domain), digest(number));
        let done = if is_there {
            store.open.inner.log.commit(id, Request::Remove(digest)).map(drop)
        } else {
            let to = In(store, id);
            store.open.inner.blobs.put(content(number).as_bytes(), Algorithm::Sha256.into(), &to).map(drop)
        };
        match done {
            Ok(()) => {
                self.note(format!("{} {number} in {domain}", if is_there { "remove" } else { "put" }));
                let own = self.model.get_mut(&domain).unwrap();
                if is_there {
                    own.remove(&number)
                } else {
                    own.insert(number)
                };
            }
            Err(Error::Full { .. } | Error::Poisoned { .. }) => {
                self.unsure.insert((domain, number));
            }
            // Whether a file can go, the others tell too.
            Err(Error::Corrupt { .. }) if !self.damaged.is_empty() => {}
            Err(error) => self.allow(domain, &error),
        }
    }

    fn check(&self) {
        let store = self.store();
        for (domain, own) in &self.model {
            if self.is_locked(*domain) {
                continue;
            }
            for number in 0..CONTENTS {
                if self.unsure.contains(&(*domain, number)) {
                    continue;
                }
                let got = store.open.inner.blobs.get(DomainId(*domain), &digest(number));
                match got.and_then(|blob| blob.verify()) {
                    Ok(_) => assert!(own.contains(&number), "{number} is back in {domain}: {}", self.context()),
                    Err(Error::BlobNotFound { .. }) => {
                        assert!(!own.contains(&number), "{number} is gone in {domain}: {}", self.context());
                    }
                    Err(error) => self.allow(*domain, &error),
                }
            }
        }
        self.check_lists();
    }

    fn check_lists(&self) {
        let inner = &self.store().open.inner;
        let (runs, keys) = (inner.tables.list().runs, inner.files.keys());
        let mut open: Vec<_> =
            runs.iter().filter(|run| keys.is_open(run.domain)).map(|run| (run.id, run.domain)).collect();
        open.sort_by_key(|(_, domain)| *domain);
        assert_eq!(inner.tables.open_run_domains(), open, "{}", self.context());
        let mut last: BTreeMap<DomainId, u64> = BTreeMap::new();
        for run in &runs {
            let newer = last.insert(run.domain, run.lsn_max.0).unwrap_or(u64::MAX);
            assert!(newer >= run.lsn_max.0, "{runs:?} {}", self.context());
        }
        if inner.files.check_writable().is_err() {
            return; // files stay until the next opening
        }
        inner.files.remove_discarded();
        let listed: BTreeSet<_> = runs.iter().map(|run| inner.files.layout().run(run.id.file)).collect();
        let is_run = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "run");
        let there: BTreeSet<_> = self.disk.files().into_iter().filter(is_run).collect();
        assert_eq!(listed, there, "{}", self.context());
        // Each file of runs is read as a whole: they do not overlap.
        for path in &there {
            let len = self.disk.read_file(path).unwrap().len() as u64;
            let mut own: Vec<_> = runs.iter().filter(|run| inner.files.layout().run(run.id.file) == *path).collect();
            own.sort_by_key(|run| run.id.at);
            let ends: Vec<u64> = own.iter().map(|run| run.id.at + run.len).collect();
            assert!(own.iter().skip(1).zip(&ends).all(|(next, end)| next.id.at >= *end), "{own:?} {}", self.context());
            assert!(ends.last().is_some_and(|end| *end <= len), "{own:?} {}", self.context());
        }
        assert!(there.len() <= 48, "{} files {}", there.len(), self.context());
    }

    fn lock_some(&mut self) {
        let all: Vec<u32> = self.model.keys().copied().filter(|domain| *domain > 0).collect();
        let locked: BTreeSet<u32> = all.into_iter().filter(|_| self.random.below(3) == 0).collect();
        self.note(format!("locked: {locked:?}"));
        *self.keeper.0.lock().unwrap() = locked;
    }

    fn reopen(&mut self) {
        self.lock_some();
        let store = self.store.take().unwrap();
        let disk = match self.random.below(3) {
            0 => {
                self.note("close".into());
                let _ = store.clone().close();
                self.disk.restarted()
            }
            1 => {
                self.note("kill".into());
                self.disk.restarted()
            }
            _ => {
                self.note("power cut".into());
                self.disk.power_cut(self.random.next())
            }
        };
        if self.random.below(8) == 0 && self.damaged.len() < 2 {
            self.damage(&store, &disk);
        }
        drop(store);
        disk.free_space();
        self.disk = disk;
        self.open();
        // What was unsure is known now.
        let unsure: Vec<_> = self.unsure.iter().copied().filter(|(domain, _)| !self.is_locked(*domain)).collect();
        for (domain, number) in unsure {
            self.unsure.remove(&(domain, number));
            let Some(own) = self.model.get_mut(&domain) else { continue };
            let store = self.store.as_ref().unwrap();
            match store.open.inner.blobs.get(DomainId(domain), &digest(number)) {
                Ok(_) => drop(own.insert(number)),
                Err(Error::BlobNotFound { .. }) => drop(own.remove(&number)),
                Err(_) => drop(self.unsure.insert((domain, number))),
            }
        }
    }

    /// Flips a bit in a page of a run of a domain that is not the default one.
    fn damage(&mut self, store: &Store, disk: &SimVfs) {
        let runs = store.open.inner.tables.list().runs;
        let hit: Vec<_> =
            runs.iter().filter(|run| run.domain.0 > 0 && self.model.contains_key(&run.domain.0)).collect();
        if hit.is_empty() {
            return;
        }
        let run = hit[self.random.below(hit.len())];
        let pages = run.len.saturating_sub(4096 + 1000) / (4096 + 16);
        if pages == 0 {
            return;
        }
        let at = run.id.at + 4096 + self.random.below(pages as usize * 4096) as u64;
        let path = store.open.inner.files.layout().run(run.id.file);
        if disk.flip_bit(&path, at * 8).is_ok() {
            self.note(format!("damage in {} at {:?} len {}: byte {at}", run.domain.0, run.id, run.len));
            self.damaged.insert(run.domain.0);
        }
    }

    fn upkeep(&mut self) {
        if self.random.below(6) == 0 {
            let at = self.disk.operations() + 1 + self.random.below(40) as u64;
            let fault = if self.random.below(8) == 0 { Fault::FailedSync } else { Fault::Full };
            self.note(format!("{fault:?} is to come"));
            self.disk.fault_at(at, fault);
        }
        let (kind, chosen) = (self.random.below(12), DomainId(self.some_domain(0)));
        let store = self.store();
        let (what, done) = match kind {
            0 => ("merge_runs", store.merge_runs()),
            1 => {
                let inner = &store.open.inner;
                ("merge_if_dead", inner.tables.merge_if_dead(&*inner.log, 10).map(drop))
            }
            2 => {
                let inner = &store.open.inner;
                ("merge_all", inner.tables.merge_all(&*inner.log, |own, _| own == chosen).map(drop))
            }
            3 => ("rewrite", store.rewrite(|_| ControlFlow::Continue(())).map(drop)),
            _ => ("checkpoint", store.checkpoint()),
        };
        let told = format!("{what}: {done:?}");
        match &done {
            Ok(()) => {}
            Err(Error::Corrupt { .. }) if !self.damaged.is_empty() => {}
            Err(Error::Full { .. } | Error::Poisoned { .. }) => {}
            Err(error) => panic!("{what}: {error}: {}", self.context()),
        }
        self.note(told);
        self.disk.free_space();
        if self.store().open.inner.files.check_writable().is_err() {
            self.reopen();
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..=54 => self.change(),
            55..=79 => self.upkeep(),
            80..=84 => self.reopen(),
            85..=89 => {
                let open = self.random.below(2) == 0;
                if open {
                    self.keeper.0.lock().unwrap().clear();
                }
                let left = self.store().unlock_domains();
                self.note(format!("unlock: {} stay locked", left.len()));
            }
            90..=92 => {
                let domain = self.some_domain(0);
                if !self.is_locked(domain) {
                    let name = format!("d{domain}").parse().unwrap();
                    let named = if domain == 0 { None } else { Some(&name) };
                    let done = self.store().rotate_data_key(named);
                    self.note(format!("rotate {domain}: {done:?}"));
                }
            }
            93 => {
                let domain = self.some_domain(1);
                let done = self.store().shred_domain(&format!("d{domain}").parse().unwrap());
                self.note(format!("shred {domain}: {done:?}"));
                self.disk.free_space();
                if self.store().open.inner.files.check_writable().is_err() {
                    self.reopen();
                }
                let left = self.store().open.inner.files.keys().find(&format!("d{domain}"));
                if left.is_some() {
                    return;
                }
                self.model.remove(&domain);
                self.damaged.remove(&domain);
                self.create();
            }
            _ => self.check(),
        }
        self.disk.free_space();
        if self.store().open.inner.files.check_writable().is_err() {
            self.reopen();
        } else {
            self.check_lists();
        }
    }
}

/// `STRONGROOM_SEED` and `STRONGROOM_SEEDS` say from which seed on, and how many.
#[test]
fn whatever_happens_to_files_of_runs_no_fact_is_lost_and_none_comes_back() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let from = number("STRONGROOM_SEED", 1);
    let mut whole = 0;
    let seeds = from..from + number("STRONGROOM_SEEDS", 20);
    for seed in seeds.clone() {
        let mut world = World::new(seed);
        let steps = AssertUnwindSafe(|| (0..400).for_each(|_| world.step()));
        match catch_unwind(steps) {
            Err(why) if why.downcast_ref::<&str>() == Some(&NEEDS_DAMAGED) => continue,
            ended => ended.unwrap_or_else(|why| resume_unwind(why)),
        }
        world.keeper.0.lock().unwrap().clear();
        world.store().unlock_domains();
        world.check();
        let _ = world.store().merge_runs();
        world.check();
        whole += 1;
    }
    assert!(seeds.count() < 2 * whole, "{whole} came to their end");
}

#[test]
fn a_sector_that_can_not_be_read_costs_its_domain_and_no_other() {
    let (disk, keeper) = (SimVfs::new(), Arc::new(Refuses::default()));
    let store = open(&disk, &keeper).unwrap();
    (1..4).for_each(|n| store.create_domain(&format!("d{n}").parse().unwrap(), None).unwrap());
    let put = |store: &Store, domain: u32, what: &str| {
        _ = store
            .open
            .inner
            .blobs
            .put(what.as_bytes(), Algorithm::Sha256.into(), &In(store, DomainId(domain)))
            .unwrap();
    };
    (1..4).for_each(|n| put(&store, n, &format!("first {n}")));
    store.checkpoint().unwrap();
    let run = store.open.inner.tables.list().runs.into_iter().find(|run| run.domain == DomainId(2)).unwrap();
    let path = store.open.inner.files.layout().run(run.id.file);
    store.close().unwrap();
    disk.fail_reads(&path, run.id.at + 4096..run.id.at + 8192);
    let store = open(&disk, &keeper).unwrap();
    for round in 0..40 {
        [1, 3].into_iter().for_each(|n| put(&store, n, &format!("{n} in {round}")));
        store.checkpoint().unwrap();
    }
    let files: BTreeSet<_> = store.open.inner.tables.list().runs.iter().map(|run| run.id.file).collect();
    assert!(files.len() <= 10, "{} files", files.len());
    assert!(matches!(store.merge_runs(), Ok(()) | Err(Error::Io { .. })));
}
