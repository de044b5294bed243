//! Look-ups in a store that was just loaded, and in the same when all its runs are merged: `cargo bench --bench
//! lookups [BLOBS [LENGTH]]`, with a million blobs of 32 bytes if not told otherwise. Beside them what they cost at the
//! least: a hash table in memory that takes a key's first bytes for the hash. Times are those of the processor, ratios
//! those of one run; `LOOKUPS_MEMTABLE` sets how many bytes of facts become a run.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a benchmark"
)]

mod content;
mod measure;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::time::Instant;

use content::random;
use measure::{anonymous_mib, size};
use strongroom::{Algorithm, Digest, Durability, Options, Store};

const PROBES: usize = 200_000;
const ROUNDS: usize = 7;
const BATCH: usize = 64;

#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    }
}

type Table = HashMap<[u8; 32], u64, BuildHasherDefault<FirstBytes>>;

fn key(digest: &Digest) -> [u8; 32] {
    digest.as_bytes().try_into().unwrap()
}

/// The median of the rounds, in millions a second, with the least and the most.
fn show(name: &str, mut rates: Vec<f64>, limit: f64) -> f64 {
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    let ratio = if limit > 0.0 { format!(", {:.2} of the limit", median / limit) } else { String::new() };
    println!("  {name:26} {median:6.2} M/s ({:.2} to {:.2}){ratio}", rates[0], rates[rates.len() - 1]);
    median
}

/// How long this thread has had a processor, in ns: what others take is not counted.
fn processor_time() -> u64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

fn rate(count: usize, work: impl FnOnce()) -> f64 {
    let begun = processor_time();
    work();
    count as f64 / (processor_time() - begun) as f64 * 1e3
}

struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }
}

fn measure(store: &Store, digests: &[Digest], table: &Table) {
    const KINDS: [&str; 9] = [
        "hash table, hit",
        "exists, hit",
        "exists_many of 64, hit",
        "hash table, miss",
        "exists, miss",
        "exists_many of 64, miss",
        "get and bytes",
        "get_many of 64 and bytes",
        "stat",
    ];
    let mut rates: [Vec<f64>; KINDS.len()] = Default::default();
    for round in 0..ROUNDS as u64 {
        let mut random = Random(round + 1);
        let hits: Vec<Digest> = (0..PROBES).map(|_| digests[random.below(digests.len())]).collect();
        let misses: Vec<Digest> = (0..PROBES)
            .map(|n| Digest::of(Algorithm::Blake3, &[round, n as u64].map(u64::to_be_bytes).concat()))
            .collect();
        for (kinds, order, is_there) in [(0, &hits, true), (3, &misses, false)] {
            rates[kinds].push(rate(PROBES, || {
                order.iter().for_each(|digest| assert_eq!(black_box(table.get(&key(digest))).is_some(), is_there));
            }));
            rates[kinds + 1].push(rate(PROBES, || {
                order.iter().for_each(|digest| assert_eq!(store.exists(digest).unwrap(), is_there));
            }));
            rates[kinds + 2].push(rate(PROBES, || {
                for some in order.chunks(BATCH) {
                    assert!(store.exists_many(some).unwrap().into_iter().all(|exists| exists == is_there));
                }
            }));
        }
        rates[6].push(rate(PROBES, || {
            hits.iter().for_each(|digest| drop(black_box(store.get(digest).unwrap().bytes().unwrap())));
        }));
        rates[7].push(rate(PROBES, || {
            for some in hits.chunks(BATCH) {
                store
                    .get_many(some)
                    .unwrap()
                    .into_iter()
                    .for_each(|blob| drop(black_box(blob.unwrap().bytes().unwrap())));
            }
        }));
        rates[8].push(rate(PROBES, || {
            hits.iter().for_each(|digest| {
                black_box(store.stat(digest).unwrap());
            });
        }));
    }
    let mut limit = 0.0;
    for (at, (kind, rates)) in KINDS.into_iter().zip(rates).enumerate() {
        if at % 3 == 0 {
            limit = 0.0;
        }
        let median = show(kind, rates, limit);
        if at == 0 || at == 3 {
            limit = median;
        }
    }
}

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let (blobs, len) = (numbers.next().unwrap_or(1_000_000usize), numbers.next().unwrap_or(32usize));
    let chosen = std::env::var_os("STRONGROOM_BENCH_DIR");
    let dir = tempfile::tempdir_in(chosen.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into())).unwrap();
    let path = dir.path().join("store");
    let mut options = Options::new().create(true).durability(Durability::Relaxed);
    if let Some(bytes) = std::env::var("LOOKUPS_MEMTABLE").ok().and_then(|bytes| bytes.parse().ok()) {
        options = options.memtable_size(bytes);
    }
    let store = options.open(&path).unwrap();
    let (mut state, mut digests) = (1, Vec::with_capacity(blobs));
    let begun = Instant::now();
    while digests.len() < blobs {
        let contents: Vec<_> =
            (0..1000.min(blobs - digests.len())).map(|_| (random(&mut state, len), Algorithm::Blake3)).collect();
        digests.extend(store.put_many(contents).unwrap().into_iter().map(|stored| stored.unwrap().digest));
    }
    let runs = || {
        let names = std::fs::read_dir(path.join("runs")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".run")).count()
    };
    println!("{blobs} blobs of {len} bytes loaded in {:.1} s", begun.elapsed().as_secs_f64());
    let mut before = 0;
    while before != runs() {
        before = runs(); // what the load made due may still be merged
        std::thread::sleep(std::time::Duration::from_secs(5));
    }
    let own = anonymous_mib();
    let table: Table = digests.iter().map(key).zip(0..).collect();
    println!("just loaded, {} runs:", runs());
    measure(&store, &digests, &table);
    let begun = Instant::now();
    store.merge_runs().unwrap();
    println!("all merged in {:.1} s, {} runs:", begun.elapsed().as_secs_f64(), runs());
    measure(&store, &digests, &table);
    drop(table);
    let (keys, facts) = ((digests.capacity() * size_of::<Digest>()) as u64 >> 20, size(&path.join("runs")) as f64);
    println!("facts {:.1} bytes a blob; own memory without the keys {} MiB", facts / blobs as f64, own - keys);
    store.close().unwrap();
    let mut taken: Vec<f64> = (0..11)
        .map(|_| {
            let begun = Instant::now();
            drop(black_box(Store::open(&path).unwrap()));
            begun.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    println!("open and close, clean: {:.2} ms ({:.2} to {:.2})", taken[5], taken[0], taken[10]);
}
