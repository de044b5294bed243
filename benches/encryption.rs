//! What encryption costs: `cargo bench --bench encryption [ROUNDS]`. Two stores side by side, one of them encrypted,
//! and what the hardware gives beside them, all in one run and by turns. Prints medians with their spread, and ratios,
//! as `docs/performance.md` reports them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a benchmark")]

mod content;

use std::hint::black_box;
use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use content::random;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::Digest as _;
use strongroom::keys::{LocalKey, SecretKey};
use strongroom::{Algorithm, Digest, Durability, Options, Store};

const LONG: usize = 64 << 20;
const SHORT: usize = 4 << 10;
const BLOBS: usize = 50_000;
/// So many small operations are timed together.
const BATCH: usize = 2000;

/// A store with many small blobs, whose facts are in runs, and what is measured on it.
struct Lab {
    store: Store,
    durable: Store,
    digests: Vec<Digest>,
    absent: Vec<Digest>,
    long: Digest,
    state: u64,
    next: usize,
}

impl Lab {
    fn new(dir: &std::path::Path, options: impl Fn() -> Options) -> Self {
        std::fs::create_dir(dir).unwrap();
        let store = options().create(true).durability(Durability::Relaxed).open(dir.join("many")).unwrap();
        let mut state = 1;
        let digests: Vec<_> =
            (0..BLOBS).map(|_| store.put(random(&mut state, SHORT), Algorithm::Blake3).unwrap().digest).collect();
        store.merge_runs().unwrap();
        let durable = options().create(true).open(dir.join("durable")).unwrap();
        let long = durable.put(random(&mut state, LONG), Algorithm::Sha256).unwrap().digest;
        // Each has been touched once.
        digests.iter().for_each(|digest| drop(store.get(digest).unwrap().bytes().unwrap()));
        let absent = (0..BLOBS).map(|n| Digest::of(Algorithm::Blake3, &n.to_le_bytes())).collect();
        Self { store, durable, digests, absent, long, state, next: 0 }
    }

    fn digest(&mut self) -> usize {
        self.next = (self.next + 7919) % BLOBS;
        self.next
    }

    fn put_long(&mut self) -> f64 {
        let content = random(&mut self.state, LONG);
        let start = Instant::now();
        let digest = self.durable.put(&content, Algorithm::Sha256).unwrap().digest;
        let rate = LONG as f64 / start.elapsed().as_secs_f64();
        self.durable.remove(&digest).unwrap();
        rate
    }

    fn put_short(&mut self) -> f64 {
        let contents: Vec<_> = (0..BATCH / 10).map(|_| random(&mut self.state, SHORT)).collect();
        let start = Instant::now();
        for content in &contents {
            self.durable.put(content, Algorithm::Sha256).unwrap();
        }
        contents.len() as f64 / start.elapsed().as_secs_f64()
    }

    /// The whole in one piece.
    fn get_long(&mut self) -> f64 {
        let start = Instant::now();
        black_box(self.durable.get(&self.long).unwrap().bytes().unwrap());
        LONG as f64 / start.elapsed().as_secs_f64()
    }

    /// Through a buffer, as a server sends it.
    fn stream_long(&mut self) -> f64 {
        let mut buffer = vec![0; 64 << 10];
        let start = Instant::now();
        let mut reader = self.durable.get(&self.long).unwrap().reader();
        while reader.read(&mut buffer).unwrap() > 0 {
            black_box(&buffer);
        }
        LONG as f64 / start.elapsed().as_secs_f64()
    }

    /// 4 KiB out of the middle of 64 MiB.
    fn slice_long(&mut self) -> f64 {
        let blob = self.durable.get(&self.long).unwrap();
        let start = Instant::now();
        for _ in 0..BATCH {
            let at = (self.digest() * 4096) as u64 % (LONG - SHORT) as u64;
            black_box(blob.slice(at..at + SHORT as u64).unwrap());
        }
        BATCH as f64 / start.elapsed().as_secs_f64()
    }

    fn get_short(&mut self) -> f64 {
        let start = Instant::now();
        for _ in 0..BATCH {
            let digest = self.digest();
            black_box(self.store.get(&self.digests[digest]).unwrap().bytes().unwrap());
        }
        BATCH as f64 / start.elapsed().as_secs_f64()
    }

    fn hit(&mut self) -> f64 {
        let start = Instant::now();
        for _ in 0..BATCH {
            let digest = self.digest();
            assert!(self.store.exists(&self.digests[digest]).unwrap());
        }
        BATCH as f64 / start.elapsed().as_secs_f64()
    }

    fn miss(&mut self) -> f64 {
        let start = Instant::now();
        for _ in 0..BATCH {
            let digest = self.digest();
            assert!(!self.store.exists(&self.absent[digest]).unwrap());
        }
        BATCH as f64 / start.elapsed().as_secs_f64()
    }
}

/// AES-256-GCM's own rate: blocks of 64 KiB, in the processor's cache.
fn aead(buffer: &mut [u8]) -> f64 {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).unwrap());
    let start = Instant::now();
    for n in 0..(LONG / buffer.len()) as u64 {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&n.to_le_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), buffer).unwrap());
    }
    LONG as f64 / start.elapsed().as_secs_f64()
}

fn sha256(content: &[u8]) -> f64 {
    let start = Instant::now();
    black_box(sha2::Sha256::digest(content));
    LONG as f64 / start.elapsed().as_secs_f64()
}

/// The median, the least and the most.
fn spread(mut rates: Vec<f64>) -> (f64, f64, f64) {
    rates.sort_by(f64::total_cmp);
    (rates[rates.len() / 2], rates[0], rates[rates.len() - 1])
}

/// Only the rows whose names have this in them: `ROW=…`.
fn is_wanted(name: &str) -> bool {
    std::env::var("ROW").map_or(true, |row| name.contains(&row))
}

fn main() {
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(11);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let key = Arc::new(LocalKey::new(SecretKey::generate().unwrap()));
    let mut plain = Lab::new(&dir.path().join("plain"), Options::new);
    let mut sealed = Lab::new(&dir.path().join("sealed"), || Options::new().key_provider(key.clone()));
    let (mut block, content) = (vec![0; 64 << 10], random(&mut 9, LONG));

    let sha = spread((0..rounds).map(|_| sha256(&content)).collect());
    let mut all_alone = Vec::new();
    println!("| | plain | encrypted | ratio | spread of the encrypted |\n|---|---|---|---|---|");
    let mut row = |name: &str, unit: f64, measure: fn(&mut Lab) -> f64| {
        if !is_wanted(name) {
            return f64::NAN;
        }
        let (mut without, mut with, mut cipher) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            without.push(measure(&mut plain));
            cipher.push(aead(&mut block));
            with.push(measure(&mut sealed));
        }
        let cipher_alone = spread(cipher.clone()).0;
        all_alone.extend(cipher);
        let (without, (with, least, most)) = (spread(without).0, spread(with));
        println!(
            "| {name} | {:.2} | {:.2} | {:.2} | {:.2} to {:.2} |",
            without / unit,
            with / unit,
            with / without,
            least / unit,
            most / unit
        );
        with / cipher_alone
    };
    row("put 64 MiB, SHA-256, durable, GB/s", 1e9, Lab::put_long);
    row("put 4 KiB, durable, one writer, thousands/s", 1e3, Lab::put_short);
    let whole = row("get 64 MiB in one piece, GB/s", 1e9, Lab::get_long);
    let streamed = row("read 64 MiB through a buffer, GB/s", 1e9, Lab::stream_long);
    row("4 KiB out of 64 MiB, thousands/s", 1e3, Lab::slice_long);
    row("get 4 KiB of 50,000, thousands/s", 1e3, Lab::get_short);
    row("exists, of 50,000: hit, thousands/s", 1e3, Lab::hit);
    row("exists, of 50,000: miss, thousands/s", 1e3, Lab::miss);
    let aead = spread(all_alone);
    println!(
        "\nAES-256-GCM alone, 64 KiB in cache: {:.2} GB/s ({:.2} to {:.2})",
        aead.0 / 1e9,
        aead.1 / 1e9,
        aead.2 / 1e9
    );
    println!("SHA-256 alone: {:.2} GB/s ({:.2} to {:.2})", sha.0 / 1e9, sha.1 / 1e9, sha.2 / 1e9);
    println!("encrypted get ÷ AES-256-GCM: {:.2} in one piece, {:.2} through a buffer", whole, streamed);
}
