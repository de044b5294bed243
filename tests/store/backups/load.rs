//! Snapshots while clients push, set named files and collect: each holds exactly what was acknowledged at its commit:
//! tags, manifests, named files, and the blobs that these reference. Their number is `STRONGROOM_SNAPSHOTS`, a dozen by
//! default.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
#[cfg(feature = "encryption")]
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

#[cfg(feature = "encryption")]
use strongroom::keys::LocalKey;
use strongroom::registry::{Repository, RepositorySettings};
use strongroom::{Clock, CollectOptions, Digest, Error, Lsn, Options, SnapshotOptions, SnapshotReport, Store};

use crate::common::acknowledged::{Change, Client, Held};
use crate::common::registry::{name, tag};
use crate::common::{Random, seed, tell};

const CLIENTS: usize = 16;

/// A store that clients use, each of them a repository of its own.
struct Load {
    dir: PathBuf,
    clock: Clock,
    #[cfg_attr(not(feature = "encryption"), allow(dead_code, reason = "there are no keys without it"))]
    key: Option<PathBuf>,
    is_over: AtomicBool,
    changes: AtomicU64,
    /// What each client was told is done, in order, and the LSNs of those commits.
    done: Vec<Mutex<Vec<(Lsn, Change)>>>,
}

/// What there is of each client.
type Seen = Vec<Held>;

impl Load {
    fn new(dir: &Path, encrypted: bool) -> Self {
        let key = encrypted.then(|| dir.join("key"));
        #[cfg(feature = "encryption")]
        key.iter().for_each(|key| drop(LocalKey::create_file(key).unwrap()));
        Self {
            dir: dir.to_path_buf(),
            clock: Clock::system(),
            key,
            is_over: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            done: (0..CLIENTS).map(|_| Mutex::default()).collect(),
        }
    }

    fn options(&self) -> Options {
        let options = Options::new().clock(self.clock.clone()).inline_max(4096).log_file_size(1 << 20);
        let options = options.memtable_size(64 << 10).retention(Duration::from_secs(1));
        #[cfg(feature = "encryption")]
        if let Some(key) = &self.key {
            return options.key_provider(Arc::new(LocalKey::from_file(key).unwrap()));
        }
        options
    }

    fn path(&self) -> PathBuf {
        self.dir.join("store")
    }

    fn open_reading(&self, path: &Path) -> Store {
        self.options().read_only(true).open(path).unwrap()
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Makes changes until it is over: not as fast as it can, or on a slow disk files were replaced faster than a
    /// snapshot can copy them.
    fn change(&self, n: usize, mut client: Client) {
        while !self.is_over() {
            let planned = client.plan();
            let lsn = client.carry_out(&planned);
            self.done[n].lock().unwrap().push((lsn, planned.change));
            self.changes.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn collect(&self, store: &Store) {
        while !self.is_over() {
            store.collect(&CollectOptions::new().max_dead(5), |_| ControlFlow::Continue(())).unwrap();
        }
    }

    /// Reads beside all that, with a store that moves forward, and with new ones.
    fn read(&self) -> u64 {
        let reader = self.open_reading(&self.path());
        let (mut rounds, mut last) = (0, Lsn::default());
        while !self.is_over() {
            let fresh = self.open_reading(&self.path());
            let now = reader.refresh().unwrap();
            assert!(now >= last);
            last = now;
            for store in [&reader, &fresh] {
                for found in Self::tagged(store).iter().enumerate().filter_map(|(n, found)| Some((n, (*found)?))) {
                    let repository = store.repository(&name(&format!("client-{}", found.0))).unwrap();
                    match repository.get_manifest(&found.1.into()) {
                        Ok(manifest) => {
                            assert!(manifest.content.starts_with(format!("client-{}/", found.0).as_bytes()))
                        }
                        Err(Error::ManifestNotFound { .. }) => {} // it has moved forward by itself
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            rounds += 1;
        }
        rounds
    }

    /// What the tag of each client names.
    fn tagged(store: &Store) -> Vec<Option<Digest>> {
        let tagged = |n| match store.repository(&name(&format!("client-{n}"))).unwrap().resolve(&tag("latest")) {
            Ok(info) => Some(info.digest),
            Err(Error::ManifestNotFound { .. }) => None,
            Err(error) => panic!("{error}"),
        };
        (0..CLIENTS).map(tagged).collect()
    }

    fn seen(store: &Store) -> Seen {
        (0..CLIENTS).map(|n| Held::by(store, &name(&format!("client-{n}")))).collect()
    }

    /// Opens a snapshot, to write or to read, and reads all of it.
    fn check(&self, report: &SnapshotReport, at: &Path) -> Seen {
        let read_only = report.lsn.get().is_multiple_of(2);
        let copy = self.options().read_only(read_only).open(at).unwrap();
        // One that is opened for writing may give log files up by itself.
        assert!(copy.last_lsn() == report.lsn || !read_only && copy.last_lsn() > report.lsn);
        let verified = copy.verify(|_| {}).unwrap();
        assert!(verified.findings.is_empty() && report.missing.is_empty(), "{:#?}", verified.findings);
        Self::seen(&copy)
    }

    /// What was acknowledged at a commit, once all clients have told what they have done.
    fn expected(&self, lsn: Lsn) -> Seen {
        let held = |done: &Mutex<Vec<(Lsn, Change)>>| {
            let done = done.lock().unwrap();
            Held::after(done.iter().take_while(|(own, _)| *own <= lsn).map(|(_, change)| change))
        };
        self.done.iter().map(held).collect()
    }
}

fn under_load(encrypted: bool) {
    let count = std::env::var("STRONGROOM_SNAPSHOTS").ok().and_then(|count| count.parse().ok()).unwrap_or(12);
    let seed = seed(0x10ad);
    let dir = tempfile::tempdir().unwrap();
    let load = Load::new(dir.path(), encrypted);
    let store = load.options().create(true).open(load.path()).unwrap();
    let create = |n| store.create_repository(&name(&format!("client-{n}")), RepositorySettings::new()).unwrap();
    let repositories: Vec<Repository> = (0..CLIENTS).map(create).collect();
    let to = |n: usize| dir.path().join(format!("snapshot-{n}"));
    let (reports, rounds) = std::thread::scope(|scope| {
        let load = &load;
        for (n, repository) in repositories.into_iter().enumerate() {
            let client = Client::new(&store, repository, Random(seed ^ (n as u64) << 32));
            scope.spawn(move || load.change(n, client));
        }
        scope.spawn(|| load.collect(&store));
        let readers = [scope.spawn(|| load.read()), scope.spawn(|| load.read())];
        // However this ends, the others end too.
        let over = Over(&load.is_over);
        let mut reports: BTreeMap<usize, (SnapshotReport, Seen)> = BTreeMap::new();
        for n in 0..count {
            let before = store.last_lsn();
            let with = match n % 3 {
                2 => SnapshotOptions::new().links(false).base(to(n - 1)),
                _ => SnapshotOptions::new(),
            };
            let from = if n % 2 == 0 { &store } else { &load.open_reading(&load.path()) };
            let report = from.snapshot_to(to(n), &with).unwrap();
            assert!(report.lsn >= before, "what was acknowledged before");
            let seen = load.check(&report, &to(n));
            reports.insert(n, (report, seen));
            if n >= 4 {
                fs::remove_dir_all(to(n - 4)).unwrap();
            }
        }
        drop(over);
        (reports, readers.map(|reader| reader.join().unwrap()))
    });
    for (n, (report, seen)) in &reports {
        assert_eq!(*seen, load.expected(report.lsn), "snapshot {n} of {}", report.lsn);
    }
    // Those that are left, after all that.
    for n in count.saturating_sub(4)..count {
        assert_eq!(load.check(&reports[&n].0, &to(n)), reports[&n].1);
    }
    let total = |of: fn(&SnapshotReport) -> u64| reports.values().map(|(report, _)| of(report)).sum::<u64>() >> 20;
    let held = |of: fn(&Held) -> usize| reports.values().flat_map(|(_, seen)| seen).map(of).sum::<usize>();
    tell(&format!(
        "{} snapshots (encrypted: {encrypted}) beside {} changes and {rounds:?} rounds of readers, with {} manifests \
         and {} named files in all: {} MiB linked, {} MiB copied",
        reports.len(),
        load.changes.load(Ordering::Relaxed),
        held(|held| held.manifests.len()),
        held(|held| held.named.len()),
        total(|report| report.linked_bytes),
        total(|report| report.copied_bytes),
    ));
}

/// Ends the clients when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn snapshots_under_load_hold_exactly_what_was_acknowledged_at_their_commits() {
    under_load(false);
}

#[cfg(feature = "encryption")]
#[test]
fn so_do_those_of_an_encrypted_store() {
    under_load(true);
}
