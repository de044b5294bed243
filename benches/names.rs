//! The view of names at a million: `cargo bench --bench names [NAMES]`. Prints time, memory and space for loading,
//! opening, paging and rebuilding it, as `docs/performance.md` reports them.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a benchmark")]

mod measure;

use std::time::{Duration, Instant};

use measure::{anonymous_mib, size};
use strongroom::{Algorithm, Durability, Options, PutNamed, Store};

/// The median time of a page of 100 names.
fn page(store: &Store, names: u64) -> Duration {
    let mut times: Vec<Duration> = (0..201)
        .map(|n| {
            let after = name(n * 7919 % names);
            let start = Instant::now();
            assert!(store.named().list("", Some(&after), 100).unwrap().items.len() <= 100);
            start.elapsed()
        })
        .collect();
    times.sort();
    times.get(100).copied().unwrap_or_default()
}

/// Until a page takes what it takes when the view answers, and not the facts.
fn until_answered(store: &Store, start: Instant) -> Duration {
    loop {
        let asked = Instant::now();
        store.named().list("", None, 100).unwrap();
        if asked.elapsed() < Duration::from_millis(5) {
            return start.elapsed();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn name(n: u64) -> String {
    format!("team-{:04}/service-{:05}:v{n}", n % 1000, n / 1000)
}

fn main() {
    let names = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("store");
    let store = Options::new().create(true).durability(Durability::Relaxed).open(&path).unwrap();
    let digest = store.put("content", Algorithm::Sha256).unwrap().digest;
    let start = Instant::now();
    for n in 0..names {
        store.named().set(&name(n), &digest, PutNamed::new()).unwrap();
    }
    store.checkpoint().unwrap();
    let took = start.elapsed();
    println!("pin {names} names: {:.0} a second, {} MiB of memory", names as f64 / took.as_secs_f64(), anonymous_mib());
    store.close().unwrap();
    println!("on disk: names/ {} MiB, runs/ {} MiB", size(&path.join("names")) >> 20, size(&path.join("runs")) >> 20);

    let before = anonymous_mib();
    let start = Instant::now();
    let store = Store::open(&path).unwrap();
    println!("open: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    println!("the view answers after {:.0} ms", until_answered(&store, start).as_secs_f64() * 1e3);
    println!("a page of 100 names: {:.0} µs", page(&store, names).as_secs_f64() * 1e6);
    println!("memory: {} MiB more", anonymous_mib().saturating_sub(before));
    store.close().unwrap();

    std::fs::remove_dir_all(path.join("names")).unwrap();
    let start = Instant::now();
    let store = Store::open(&path).unwrap();
    println!("open without names/: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    println!("rebuilt after {:.0} ms", until_answered(&store, start).as_secs_f64() * 1e3);
    println!("memory: {} MiB", anonymous_mib());
    store.close().unwrap();
    println!("on disk: names/ {} MiB", size(&path.join("names")) >> 20);
}
