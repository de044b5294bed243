//! What the store's operations cost: `cargo bench --bench store`. How that compares with peers and with what the
//! hardware gives is for `benches/peers` to say.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a benchmark"
)]

mod content;

use std::hint::black_box;
use std::io::Read;
use std::time::{Duration, Instant};

use content::random;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use strongroom::{Algorithm, Digest, Durability, Options, Store};

/// On the disk that the project is on, not on a file system in memory, or where `STRONGROOM_BENCH_DIR` says.
fn dir() -> tempfile::TempDir {
    let chosen = std::env::var_os("STRONGROOM_BENCH_DIR");
    tempfile::tempdir_in(chosen.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into())).unwrap()
}

/// A store of many tiny blobs, its facts in runs.
fn filled(dir: &tempfile::TempDir, blobs: u64, len: usize) -> (Store, Vec<Digest>) {
    let options = Options::new().create(true).durability(Durability::Relaxed);
    let store = options.open(dir.path().join("store")).unwrap();
    let mut state = 1;
    let digests = (0..blobs).map(|_| store.put(random(&mut state, len), Algorithm::Blake3).unwrap().digest).collect();
    store.merge_runs().unwrap();
    (store, digests)
}

fn put(criterion: &mut Criterion) {
    let dir = dir();
    let store = Options::new().create(true).open(dir.path().join("store")).unwrap();
    let mut state = 7;
    for len in [4 << 10, 64 << 10, 1 << 20, 64 << 20] {
        let mut group = criterion.benchmark_group("put, SHA-256, durable");
        group.throughput(Throughput::Bytes(len as u64)).sample_size(20).measurement_time(Duration::from_secs(3));
        group.bench_function(format!("{} KiB", len >> 10), |bencher| {
            bencher.iter_batched(
                || random(&mut state, len),
                |content| store.put(content, Algorithm::Sha256).unwrap().digest,
                BatchSize::PerIteration,
            );
        });
    }
}

/// A file that was just written, as build tools stage them.
fn staged(criterion: &mut Criterion) {
    let dir = dir();
    let store = Options::new().create(true).open(dir.path().join("store")).unwrap();
    let path = dir.path().join("staged");
    let mut state = 11;
    let mut group = criterion.benchmark_group("put a staged file of 64 MiB, SHA-256, durable");
    group.throughput(Throughput::Bytes(64 << 20)).sample_size(10);
    let mut measure = |name, put: &dyn Fn() -> Digest| {
        group.bench_function(name, |bencher| {
            let stage = || std::fs::write(&path, random(&mut state, 64 << 20)).unwrap();
            let put = |()| store.remove(&put()).unwrap();
            bencher.iter_batched(stage, put, BatchSize::PerIteration);
        });
    };
    measure("put_file", &|| store.put_file(&path, Algorithm::Sha256).unwrap().digest);
    let read = || store.put_reader(std::fs::File::open(&path).unwrap(), Algorithm::Sha256).unwrap().digest;
    measure("put_reader", &read);
}

fn read(criterion: &mut Criterion) {
    let dir = dir();
    let (store, digests) = filled(&dir, 50_000, 4096);
    let mut n = 0;
    let mut next = || {
        n = (n + 7919) % digests.len();
        digests[n]
    };
    let mut group = criterion.benchmark_group("read");
    group.bench_function("get 4 KiB, verified", |bencher| {
        bencher.iter(|| store.get(&next()).unwrap().bytes().unwrap());
    });
    group.finish();
    let big = store.put(random(&mut 3, 256 << 20), Algorithm::Blake3).unwrap().digest;
    let mut group = criterion.benchmark_group("read 256 MiB");
    group.throughput(Throughput::Bytes(256 << 20)).sample_size(10);
    group.bench_function("verified again", |bencher| bencher.iter(|| store.get(&big).unwrap().bytes().unwrap()));
    group.bench_function("unverified", |bencher| bencher.iter(|| store.get(&big).unwrap().bytes_unverified().unwrap()));
}

/// 1 GiB, read for the first time since the store was opened, and a plain file, by turns: what counts is the ratio.
fn first_read(_: &mut Criterion) {
    const NAME: &str = "first read of 1 GiB";
    if std::env::args().skip(1).any(|filter| !filter.starts_with('-') && !NAME.contains(&filter)) {
        return;
    }
    let dir = dir();
    let content = random(&mut 5, 1 << 30);
    let plain = dir.path().join("plain");
    std::fs::write(&plain, &content).unwrap();
    let path = dir.path().join("store");
    let store = Options::new().create(true).open(&path).unwrap();
    let digest = store.put(&content, Algorithm::Blake3).unwrap().digest;
    store.close().unwrap();
    let rate = |read: &mut dyn FnMut()| {
        let begun = Instant::now();
        read();
        content.len() as f64 / begun.elapsed().as_secs_f64() / 1e9
    };
    let mut block = vec![0; 64 << 10];
    let mut through = |from: &mut dyn Read| while from.read(&mut block).unwrap() > 0 {};
    let mut rates: [Vec<f64>; 3] = Default::default();
    for _ in 0..7 {
        rates[0].push(rate(&mut || through(&mut std::fs::File::open(&plain).unwrap())));
        let store = Store::open(&path).unwrap();
        rates[1].push(rate(&mut || assert_eq!(store.get(&digest).unwrap().bytes().unwrap().len(), content.len())));
        store.close().unwrap();
        let store = Store::open(&path).unwrap();
        rates[2].push(rate(&mut || through(&mut store.get(&digest).unwrap().reader())));
        store.close().unwrap();
    }
    let [plain, whole, through] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!("{NAME}, GB/s: plain file {plain:.2}; in one piece {whole:.2}, {:.2} of it", whole / plain);
    println!("{NAME}, GB/s: through a buffer, as the plain file is read, {through:.2}, {:.2} of it", through / plain);
}

fn exists(criterion: &mut Criterion) {
    let dir = dir();
    let (store, digests) = filled(&dir, 1_000_000, 8);
    let absent: Vec<_> = (0..1_000_000u32).map(|n| Digest::of(Algorithm::Blake3, &n.to_le_bytes())).collect();
    let mut group = criterion.benchmark_group("exists, 1 M blobs");
    for (name, digests) in [("hit", &digests), ("miss", &absent)] {
        let mut n = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                n = (n + 7919) % digests.len();
                store.exists(&digests[n]).unwrap()
            });
        });
    }
    group.finish();
    store.close().unwrap();
    let mut group = criterion.benchmark_group("open, 1 M blobs");
    group.sample_size(10);
    group.bench_function("and close, clean", |bencher| {
        bencher.iter(|| drop(Store::open(dir.path().join("store")).unwrap()));
    });
}

/// Each of two threads asks as often as is counted: what they share costs both.
fn exists_shared(criterion: &mut Criterion) {
    let dir = dir();
    let store = Options::new().create(true).durability(Durability::Relaxed).open(dir.path().join("store")).unwrap();
    let mut state = 1;
    let present: Vec<_> =
        (0..50_000).map(|_| store.put(random(&mut state, 8), Algorithm::Blake3).unwrap().digest).collect();
    let absent: Vec<_> = (0..50_000u32).map(|n| Digest::of(Algorithm::Blake3, &n.to_le_bytes())).collect();
    let mut group = criterion.benchmark_group("exists, 50 k blobs in the memory table, two threads");
    for (name, digests) in [("hit", &present), ("miss", &absent)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let ask = |first: usize| {
                    let numbers = (0..times as usize).map(|n| (first + n * 7919) % digests.len());
                    numbers.for_each(|n| {
                        black_box(store.exists(&digests[n]).unwrap());
                    });
                };
                let begun = Instant::now();
                std::thread::scope(|scope| {
                    scope.spawn(|| ask(0));
                    ask(25_000);
                });
                begun.elapsed()
            });
        });
    }
}

criterion_group!(benches, put, staged, read, first_read, exists, exists_shared);
criterion_main!(benches);
