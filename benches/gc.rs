//! Collection: `cargo bench --bench gc [sweep] [compaction] [repository] [live]`, all four without a name, in a few
//! minutes. Prints medians and spreads, as `docs/performance.md` reports them.
//!
//! - *sweep*: so many dead blobs among so many that live, and among four times as many, by turns.
//! - *compaction*: what it writes for what it gives back, and what a put takes beside it, in a store of which a part
//!   dies again and again.
//! - *repository*: deleting a large one, while another client goes on.
//! - *live*: the work that `benches/peers/gc` has the collectors of other registries do.
//!
//! How large: `GC_BLOBS`, `GC_DEAD`, `GC_MIB`, `GC_MANIFESTS`, `GC_LIVE` (with commas), and `GC_ROUNDS`. System calls
//! are for `strace -c -f` to count.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs, reason = "a benchmark")]

mod content;

use std::fmt::Display;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use content::random;
use strongroom::registry::{PutManifest, RepositoryDeletion, RepositoryName, RepositorySettings};
use strongroom::{Algorithm, CollectOptions, Collection, Digest, Durability, Options, PutNamed, Store};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// The most that one pin holds.
const PINNED: usize = 65_535;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn rounds() -> u64 {
    setting("GC_ROUNDS", 5)
}

/// What was measured, sorted.
struct Measured(Vec<f64>);

impl Measured {
    fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    fn at(&self, thousandths: usize) -> f64 {
        let index = (self.0.len() * thousandths / 1000).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }

    fn median(&self) -> f64 {
        self.at(500)
    }
}

/// The median, with the lowest and the highest.
impl Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2} to {:.2})", self.median(), self.at(0), self.at(1000))
    }
}

/// How many bytes this process has had written to disks.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or_default()
}

/// The processor time that this process has taken, all threads together, in seconds.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A store in which nothing stays for somebody may rely on it.
fn open(path: &Path, durability: Durability) -> Store {
    let options = Options::new().create(true).durability(durability).retention(Duration::ZERO).history(0);
    options.open(path).unwrap()
}

/// Forgets what is dead, without compaction.
fn sweep_only(store: &Store) -> Collection {
    store.collect(&CollectOptions::new().max_bytes(0), |_| ControlFlow::Continue(())).unwrap()
}

// ---- sweep

struct Swept {
    path: PathBuf,
    live: u64,
    state: u64,
    /// Until the last of them was forgotten, and until the call returned.
    seconds: Vec<f64>,
    whole: Vec<f64>,
    processor: Vec<f64>,
    bytes: Vec<f64>,
    commits: u64,
}

impl Swept {
    fn fill(path: PathBuf, live: u64) -> Self {
        let store = open(&path, Durability::Relaxed);
        let (mut state, start) = (live, Instant::now());
        let mut left = live;
        while left > 0 {
            let count = left.min(PINNED as u64);
            let digests: Vec<_> =
                (0..count).map(|_| store.put(random(&mut state, 100), Algorithm::Sha256).unwrap().digest).collect();
            store
                .named()
                .set(&format!("pin-{left}"), &digests[0], PutNamed::new().references(digests.as_slice()))
                .unwrap();
            left -= count;
        }
        store.sync().unwrap();
        println!("{live} blobs of 100 bytes, stored and pinned in {:.0} s", start.elapsed().as_secs_f64());
        store.close().unwrap();
        Self {
            path,
            live,
            state,
            seconds: Vec::new(),
            whole: Vec::new(),
            processor: Vec::new(),
            bytes: Vec::new(),
            commits: 0,
        }
    }

    /// Stores blobs that nothing holds, and merges the runs.
    fn add_dead(&mut self, dead: u64) {
        let store = open(&self.path, Durability::Relaxed);
        for _ in 0..dead {
            store.put(random(&mut self.state, 100), Algorithm::Sha256).unwrap();
        }
        store.sync().unwrap();
        store.merge_runs().unwrap();
        store.close().unwrap();
    }

    fn sweep(&mut self, store: &Store, dead: u64) {
        let (before, lsn, processor_before, start) = (written(), store.last_lsn().get(), processor(), Instant::now());
        let mut forgotten = None;
        let done = store.collect(&CollectOptions::new().max_bytes(0), |so_far| {
            if so_far.blobs == dead {
                forgotten.get_or_insert_with(|| start.elapsed().as_secs_f64());
            }
            ControlFlow::Continue(())
        });
        let done = done.unwrap();
        self.seconds.extend(forgotten);
        self.whole.push(start.elapsed().as_secs_f64());
        self.processor.push(processor() - processor_before);
        self.bytes.push(mib(written() - before));
        self.commits = store.last_lsn().get() - lsn;
        assert_eq!(done.blobs, dead);
    }
}

fn sweep() {
    let (live, dead) = (setting("GC_BLOBS", 1_000_000), setting("GC_DEAD", 100_000));
    println!("\nsweep of {dead} dead blobs");
    let dir = dir();
    let mut stores = [live, 4 * live]
        .map(|live| Swept::fill(dir.path().join(live.to_string()), live))
        .into_iter()
        .collect::<Vec<_>>();
    for _ in 0..rounds() {
        stores.iter_mut().for_each(|one| one.add_dead(dead));
        let open: Vec<Store> = stores.iter().map(|one| open(&one.path, Durability::Synced)).collect();
        stores.iter_mut().zip(&open).for_each(|(one, store)| one.sweep(store, dead));
        stores.reverse(); // the other one first
    }
    stores.sort_by_key(|one| one.live);
    for Swept { live, seconds, whole, processor, bytes, commits, .. } in &stores {
        let [seconds, whole, processor, bytes] =
            [seconds, whole, processor, bytes].map(|values| Measured::new(values.clone()));
        println!("among {live}: {seconds} s, with all that a collection looks at {whole}");
        println!("  {processor} s of the processor, {commits} commits, {bytes} MiB written");
    }
    for (what, of) in [("sweep", (|one| &one.seconds) as fn(&Swept) -> &Vec<f64>), ("collection", |one| &one.whole)] {
        let ratios = of(&stores[1]).iter().zip(of(&stores[0])).map(|(large, small)| large / small).collect();
        println!("the {what} of the larger ÷ that of the smaller, round by round: {}", Measured::new(ratios));
    }
}

// ---- compaction

/// A store of blobs, held by pins, of which any may die.
struct Scattered {
    store: Arc<Store>,
    live: Vec<Digest>,
    state: u64,
}

impl Scattered {
    fn fill(path: &Path, bytes: u64) -> Self {
        let store = Arc::new(open(path, Durability::Relaxed));
        let mut filled = Self { store, live: Vec::new(), state: 1 };
        let mut so_far = 0;
        while so_far < bytes {
            so_far += filled.put();
        }
        filled.pin();
        filled.store.merge_runs().unwrap();
        let Self { store, live, state } = filled;
        Arc::into_inner(store).unwrap().close().unwrap();
        Self { store: Arc::new(open(path, Durability::Synced)), live, state }
    }

    /// Stores a blob of 4 to 64 KiB, and returns its length.
    fn put(&mut self) -> u64 {
        let len = (4 << 10) + self.below(60 << 10);
        let digest = self.store.put(random(&mut self.state, len), Algorithm::Sha256).unwrap().digest;
        self.live.push(digest);
        len as u64
    }

    fn below(&mut self, most: usize) -> usize {
        let bytes = random(&mut self.state, 8).try_into().unwrap();
        usize::try_from(u64::from_le_bytes(bytes) % most as u64).unwrap()
    }

    fn pin(&self) {
        for (n, held) in self.live.chunks(PINNED).enumerate() {
            self.store.named().set(&format!("part-{n}"), &held[0], PutNamed::new().references(held)).unwrap();
        }
    }

    /// Lets blobs die, so many of a hundred, and returns how many those are.
    fn die(&mut self, percent: usize) -> usize {
        let count = self.live.len() * percent / 100;
        for _ in 0..count {
            let at = self.below(self.live.len());
            self.live.swap_remove(at);
        }
        count
    }

    fn kill(&mut self, percent: usize) {
        self.die(percent);
        self.pin();
        sweep_only(&self.store);
    }

    /// Lets blobs die, and puts as many new ones in their places.
    fn churn(&mut self, percent: usize) {
        let count = self.die(percent);
        for _ in 0..count {
            self.put();
        }
        self.pin();
        sweep_only(&self.store);
    }

    /// What puts of 4 KiB take, in µs, one after the other, until it is enough.
    fn puts(&mut self, enough: impl Fn() -> bool) -> Vec<f64> {
        let mut taken = Vec::new();
        while !enough() {
            let content = random(&mut self.state, 4096);
            let start = Instant::now();
            self.store.put(content, Algorithm::Sha256).unwrap();
            taken.push(start.elapsed().as_secs_f64() * 1e6);
        }
        taken
    }
}

fn compaction() {
    let bytes = setting("GC_MIB", 1024) << 20;
    let dir = dir();
    let mut scattered = Scattered::fill(&dir.path().join("store"), bytes);
    println!("\ncompaction of a store of {:.0} MiB of blobs of 4 to 64 KiB", mib(bytes));
    written_for_freed(&mut scattered);
    beside(&mut scattered);
}

/// How many bytes are written for each that comes back: when a store is as dead as it may be, everywhere alike, and
/// then with a tenth of it replaced again and again.
fn written_for_freed(scattered: &mut Scattered) {
    scattered.kill(22);
    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    for round in 0..=rounds() {
        let usage = scattered.store.usage().unwrap();
        let (before, start) = (written(), Instant::now());
        let done = scattered.store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
        let (seconds, wrote) = (start.elapsed().as_secs_f64(), written() - before);
        let freed = done.freed_bytes.saturating_sub(done.moved_bytes);
        println!(
            "  {:.1} % dead: {:.0} MiB moved, {:.0} freed, {:.0} written, {:.2} for each, {seconds:.2} s; \
             {:.1} % dead after",
            usage.dead_bytes as f64 * 100.0 / (usage.live_bytes + usage.dead_bytes) as f64,
            mib(done.moved_bytes),
            mib(freed),
            mib(wrote),
            wrote as f64 / freed as f64,
            done.dead_bytes as f64 * 100.0 / (done.live_bytes + done.dead_bytes) as f64,
        );
        if done.moved > 0 && round > 0 {
            ratios.push(wrote as f64 / freed as f64);
            rates.push(mib(done.moved_bytes) / seconds);
        }
        scattered.churn(10);
    }
    println!("a tenth replaced each time: {} bytes written for each that came back", Measured::new(ratios));
    println!("MiB moved a second: {}", Measured::new(rates));
}

/// What a durable put of 4 KiB by one writer takes beside compaction.
fn beside(scattered: &mut Scattered) {
    let speeds = [
        ("as fast as it can", CollectOptions::new()),
        ("64 MiB a second at most", CollectOptions::new().bytes_per_second(64 << 20)),
    ];
    let mut alone = Vec::new();
    let mut besides = [(); 2].map(|()| (Vec::new(), Vec::new(), Vec::new()));
    for _ in 0..rounds() {
        let mut alone_now = Vec::new();
        let now = speeds.each_ref().map(|(_, options)| {
            let start = Instant::now();
            alone_now.extend(scattered.puts(|| start.elapsed() > Duration::from_secs(2)));
            // What these puts have left goes before.
            scattered.store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
            scattered.churn(18);
            beside_collection(scattered, options)
        });
        let p99 = |taken: &[f64]| Measured::new(taken.to_vec()).at(990);
        for ((all, factors, rates), (taken, rate)) in besides.iter_mut().zip(now) {
            factors.push(p99(&taken) / p99(&alone_now));
            rates.push(rate);
            all.extend(taken);
        }
        alone.extend(alone_now);
    }
    println!("put of 4 KiB, durable, one writer");
    puts_took("alone", alone);
    for ((name, _), (taken, factors, rates)) in speeds.iter().zip(besides) {
        puts_took(&format!("beside compaction, {name}"), taken);
        println!("    MiB moved a second: {}", Measured::new(rates));
        println!("    the 99th percentile ÷ that alone, round by round: {}", Measured::new(factors));
    }
}

fn puts_took(what: &str, taken: Vec<f64>) {
    let taken = Measured::new(taken);
    let [median, p99, p999, most] = [500, 990, 999, 1000].map(|part| taken.at(part));
    println!(
        "  {what}: median {median:.0} µs, 99 % {p99:.0}, 99.9 % {p999:.0}, longest {most:.0}, of {}",
        taken.0.len()
    );
}

/// What puts take while a collection goes on, and how much that moves in a second.
fn beside_collection(scattered: &mut Scattered, options: &CollectOptions) -> (Vec<f64>, f64) {
    let store = Arc::clone(&scattered.store);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let collection = scope.spawn(|| {
            let start = Instant::now();
            let done = store.collect(options, |_| ControlFlow::Continue(())).unwrap();
            over.store(true, Ordering::Relaxed);
            mib(done.moved_bytes) / start.elapsed().as_secs_f64()
        });
        let taken = scattered.puts(|| over.load(Ordering::Relaxed));
        (taken, collection.join().unwrap())
    })
}

// ---- repository

fn name(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

/// An image of these blobs, the first of which is its configuration.
fn manifest(blobs: &[Digest], n: u64) -> String {
    let descriptor = |digest: &Digest| format!(r#"{{"mediaType":"application/octet-stream","digest":"{digest}"}}"#);
    let layers: Vec<String> = blobs.iter().skip(1).map(descriptor).collect();
    let (config, layers) = (descriptor(&blobs[0]), layers.join(","));
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}],"annotations":{{"build":"{n}"}}}}"#)
}

/// Pushes an image with so many blobs of its own, and returns the digest of its manifest.
fn push(store: &Store, repository: &str, blobs: u64, n: u64) -> Digest {
    let repository = store.repository(&name(repository)).unwrap();
    let put = |layer| repository.put(random(&mut (n * 100 + layer), 100), Algorithm::Sha256).unwrap().digest;
    let blobs: Vec<Digest> = (0..blobs).map(put).collect();
    repository.put_manifest(manifest(&blobs, n), PutManifest::new(IMAGE)).unwrap().digest
}

/// What another client does, again and again: what takes how long, in µs.
fn other_client(store: &Store, over: impl Fn() -> bool) -> [Vec<f64>; 2] {
    let repository = store.repository(&name("other")).unwrap();
    let shared = repository.put("shared", Algorithm::Sha256).unwrap().digest;
    let mut state = store.last_lsn().get();
    let [mut puts, mut pushes] = [Vec::new(), Vec::new()];
    while !over() {
        let content = random(&mut state, 4096);
        let start = Instant::now();
        repository.put(content, Algorithm::Sha256).unwrap();
        puts.push(start.elapsed().as_secs_f64() * 1e6);
        let document = manifest(&[shared], state);
        let start = Instant::now();
        repository.put_manifest(document, PutManifest::new(IMAGE)).unwrap();
        pushes.push(start.elapsed().as_secs_f64() * 1e6);
    }
    [puts, pushes]
}

fn repository() {
    let manifests = setting("GC_MANIFESTS", 100_000);
    let dir = dir();
    let path = dir.path().join("store");
    let store = Options::new().create(true).durability(Durability::Relaxed).open(&path).unwrap();
    for name in [name("large"), name("other")] {
        store.create_repository(&name, RepositorySettings::new()).unwrap();
    }
    for n in 0..manifests {
        push(&store, "large", 2, n);
    }
    store.close().unwrap();
    let store = Options::new().history(0).open(&path).unwrap();
    println!("\na repository of {manifests} manifests with two blobs each is deleted");
    let start = Instant::now();
    let alone = other_client(&store, || start.elapsed() > Duration::from_secs(5));
    let over = AtomicBool::new(false);
    let (before, lsn) = (written(), store.last_lsn().get());
    let beside = thread::scope(|scope| {
        let client = scope.spawn(|| other_client(&store, || over.load(Ordering::Relaxed)));
        let start = Instant::now();
        store.delete_repository(&name("large"), RepositoryDeletion::WithContents).unwrap();
        println!("  until it is gone: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
        let (mut blobs, mut collections) = (0, 0);
        while blobs < 3 * manifests {
            blobs += store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap().blobs;
            collections += 1;
        }
        let seconds = start.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        println!("  until {blobs} blobs have gone: {seconds:.1} s, in {collections} collections");
        client.join().unwrap()
    });
    let (commits, bytes) = (store.last_lsn().get() - lsn, mib(written() - before));
    println!("  with what the other client did: {commits} commits, {bytes:.0} MiB written");
    for (who, taken) in [("alone", alone), ("beside", beside)] {
        for (what, taken) in ["put of 4 KiB", "put of a manifest"].into_iter().zip(taken) {
            puts_took(&format!("{what}, {who}"), taken);
        }
    }
}

// ---- live

/// Images of ten blobs, their manifests among them, in ten repositories; 200 of them are deleted, round by round.
fn live() {
    const IMAGES_DEAD: u64 = 200;
    let counts = std::env::var("GC_LIVE").unwrap_or_else(|_| "10000,20000,40000".to_owned());
    let counts: Vec<u64> = counts.split(',').map(|count| count.parse().unwrap()).collect();
    println!("\nregistries with {} dead blobs", IMAGES_DEAD * 10);
    let dir = dir();
    let repositories = (0..10).map(|n| format!("team/app-{n}")).collect::<Vec<_>>();
    let repository = |n: u64| repositories[usize::try_from(n % 10).unwrap()].as_str();
    let stores = counts.iter().map(|count| {
        let path = dir.path().join(count.to_string());
        let store = open(&path, Durability::Relaxed);
        for repository in &repositories {
            store.create_repository(&name(repository), RepositorySettings::new()).unwrap();
        }
        for n in IMAGES_DEAD..count / 10 {
            push(&store, repository(n), 9, n);
        }
        store.close().unwrap();
        (path, Vec::new())
    });
    let mut stores: Vec<(PathBuf, Vec<f64>)> = stores.collect();
    for round in 1..=rounds() {
        for (path, seconds) in &mut stores {
            let store = open(path, Durability::Relaxed);
            for n in (round << 32..).take(usize::try_from(IMAGES_DEAD).unwrap()) {
                let digest = push(&store, repository(n), 9, n);
                store.repository(&name(repository(n))).unwrap().delete_manifest(&digest).unwrap();
            }
            store.close().unwrap();
            let store = open(path, Durability::Synced);
            let start = Instant::now();
            let done = store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
            seconds.push(start.elapsed().as_secs_f64());
            assert_eq!(done.blobs, IMAGES_DEAD * 10);
        }
    }
    for (count, (_, seconds)) in counts.iter().zip(stores) {
        println!("{count} blobs: {} s", Measured::new(seconds));
    }
}

fn main() {
    let parts: [(&str, fn()); 4] =
        [("sweep", sweep), ("compaction", compaction), ("repository", repository), ("live", live)];
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part();
        }
    }
}
