//! What calls for many cost beside calls for one, and async calls beside blocking ones: `cargo bench --bench calls`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

mod content;

use std::hint::black_box;
use std::time::Duration;

use content::random;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use strongroom::aio::AsyncStore;
use strongroom::registry::RepositorySettings;
use strongroom::{Algorithm, Digest, Durability, Options, PutNamed, SnapshotOptions, Store};

fn dir() -> tempfile::TempDir {
    let chosen = std::env::var_os("STRONGROOM_BENCH_DIR");
    tempfile::tempdir_in(chosen.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into())).unwrap()
}

fn open(dir: &tempfile::TempDir) -> Store {
    Options::new().create(true).open(dir.path().join("store")).unwrap()
}

fn batches(criterion: &mut Criterion) {
    let dir = dir();
    let store = open(&dir);
    let mut state = 5;
    let mut contents = || -> Vec<Vec<u8>> { (0..64).map(|_| random(&mut state, 4096)).collect() };
    let known: Vec<Digest> =
        contents().iter().map(|content| store.put(content, Algorithm::Sha256).unwrap().digest).collect();
    let mut group = criterion.benchmark_group("64 blobs of 4 KiB");
    group.sample_size(20);
    group.bench_function("put, one by one", |bencher| {
        let put = |contents: Vec<Vec<u8>>| {
            contents.iter().map(|content| store.put(content, Algorithm::Sha256).unwrap().len).sum::<u64>()
        };
        bencher.iter_batched(&mut contents, put, BatchSize::PerIteration);
    });
    group.bench_function("put_many", |bencher| {
        let put = |contents: Vec<Vec<u8>>| store.put_many(contents.iter().map(|one| (one, Algorithm::Sha256))).unwrap();
        bencher.iter_batched(&mut contents, put, BatchSize::PerIteration);
    });
    group.bench_function("stat, one by one", |bencher| {
        bencher.iter(|| known.iter().map(|digest| store.stat(digest).unwrap().len).sum::<u64>());
    });
    group.bench_function("stat_many", |bencher| bencher.iter(|| store.stat_many(black_box(&known)).unwrap()));
    group.bench_function("get_many", |bencher| bencher.iter(|| store.get_many(black_box(&known)).unwrap()));
    group.bench_function("claim_many", |bencher| bencher.iter(|| store.claim_many(black_box(&known)).unwrap()));
}

fn names(criterion: &mut Criterion) {
    let dir = dir();
    let store = open(&dir);
    let fill = || {
        let files = store.with_durability(Durability::Relaxed).named();
        (0..7800).for_each(|n| drop(files.put(&format!("npm/{n}"), n.to_string(), PutNamed::new()).unwrap()));
    };
    let mut group = criterion.benchmark_group("named files");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    group.bench_function("remove_prefix of 7,800", |bencher| {
        let remove = |()| store.named().remove_prefix("npm/").unwrap();
        bencher.iter_batched(fill, remove, BatchSize::PerIteration);
    });
    store.named().put("npm/index", "content", PutNamed::new()).unwrap();
    group.bench_function("get", |bencher| bencher.iter(|| store.named().get("npm/index").unwrap()));
}

fn switches(criterion: &mut Criterion) {
    let dir = dir();
    let store = open(&dir);
    let digest = store.put("content", Algorithm::Sha256).unwrap().digest;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let store = AsyncStore::new(store);
    let mut group = criterion.benchmark_group("a look-up in memory");
    group.bench_function("AsyncStore::stat", |bencher| {
        bencher.iter(|| runtime.block_on(store.stat(&digest)).unwrap());
    });
    group.bench_function("blocking", |bencher| bencher.iter(|| store.blocking().stat(black_box(&digest)).unwrap()));
    runtime.block_on(store.close()).unwrap();
}

fn whole(criterion: &mut Criterion) {
    let dir = dir();
    let store = open(&dir);
    let relaxed = store.with_durability(Durability::Relaxed);
    let app = relaxed.create_repository(&"team/app".parse().unwrap(), RepositorySettings::new()).unwrap();
    let mut state = 9;
    for _ in 0..50_000 {
        app.put(random(&mut state, 4096), Algorithm::Blake3).unwrap();
    }
    store.checkpoint().unwrap();
    let mut group = criterion.benchmark_group("50,000 blobs of 4 KiB");
    group.sample_size(10);
    group.bench_function("Repository::usage", |bencher| bencher.iter(|| app.usage().unwrap()));
    let to = dir.path().join("copy");
    for links in [true, false] {
        let options = SnapshotOptions::new().links(links);
        group.bench_function(format!("snapshot_to, links: {links}"), |bencher| {
            let clear = || drop(std::fs::remove_dir_all(&to));
            bencher.iter_batched(clear, |()| store.snapshot_to(&to, &options).unwrap(), BatchSize::PerIteration);
        });
    }
}

criterion_group!(benches, batches, names, switches, whole);
criterion_main!(benches);
