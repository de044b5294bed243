//! Reading from an encrypted store, beside a plain one and what the cipher gives by itself.

use std::hint::black_box;
use std::io::Read as _;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use strongroom::keys::{LocalKey, SecretKey};
use strongroom::{Algorithm, Digest, Durability, Options, Store};

use super::{Goal, Row, Setting, turn};
use crate::contender::touch;
use crate::measure::{Random, content, rate, seconds};

const LONG: usize = 64 << 20;
const SHORT: usize = 4096;
const BLOBS: u64 = 50_000;

/// A store with one long blob and many short ones, merged, all of which were read once.
struct Filled {
    store: Store,
    long: Digest,
    short: Vec<Digest>,
}

impl Filled {
    fn new(options: Options, dir: &std::path::Path) -> Self {
        let store = options.create(true).durability(Durability::Relaxed).open(dir).unwrap();
        let contents = (0..BLOBS).map(|number| (content(number, SHORT), Algorithm::Blake3));
        let short: Vec<_> =
            store.put_many(contents).unwrap().into_iter().map(|stored| stored.unwrap().digest).collect();
        let long = store.put(content(BLOBS, LONG), Algorithm::Sha256).unwrap().digest;
        store.merge_runs().unwrap();
        let filled = Self { store, long, short };
        filled.short.iter().for_each(|digest| _ = filled.get(digest));
        filled
    }

    fn get(&self, digest: &Digest) -> usize {
        touch(&self.store.get(digest).unwrap().bytes().unwrap())
    }
}

/// The cipher's own rate: blocks of 64 KiB in the processor's cache.
fn cipher(buffer: &mut [u8]) -> f64 {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).unwrap());
    let blocks = (LONG / buffer.len()) as u64;
    let took = seconds(|| {
        for block in 0..blocks {
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&block.to_le_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), buffer).unwrap());
        }
    });
    LONG as f64 / took
}

pub fn get_encrypted(setting: &Setting) -> Vec<Goal> {
    let dir = setting.temporary();
    let key = LocalKey::new(SecretKey::generate().unwrap());
    let encrypted = Filled::new(Options::new().key_provider(Arc::new(key)), &dir.path().join("encrypted"));
    let plain = Filled::new(Options::new(), &dir.path().join("plain"));
    let mut buffer = vec![0; 64 << 10];
    let mut into = vec![0; 64 << 10];
    let through = |buffer: &mut [u8]| {
        let mut reader = encrypted.store.get(&encrypted.long).unwrap().reader();
        while reader.read(buffer).unwrap() > 0 {
            black_box(&buffer);
        }
    };
    let turns = vec![
        turn("limit: AES-256-GCM, 64 KiB in cache", |_| cipher(&mut buffer)),
        turn("strongroom, through a buffer of 64 KiB", |_| LONG as f64 / seconds(|| through(&mut into))),
        turn("strongroom, in one piece", |_| LONG as f64 / seconds(|| _ = encrypted.get(&encrypted.long))),
    ];
    let title = "get 64 MiB, encrypted".to_string();
    let long = Row { title, unit: "GB/s", scale: 1e9, lines: setting.in_turns(turns), work: None };
    long.print(setting);
    let turns = [("limit: plain", &plain), ("strongroom, encrypted", &encrypted)].map(|(name, filled)| {
        turn(name, move |round| {
            let mut random = Random(round as u64);
            let order: Vec<_> = (0..BLOBS).map(|_| filled.short[(random.next() % BLOBS) as usize]).collect();
            rate(&order, setting.turn, |digest| assert_eq!(filled.get(digest), SHORT))
        })
    });
    let title = format!("get 4 KiB of {BLOBS}, encrypted");
    let lines = setting.in_turns(turns.into_iter().collect());
    let small = Row { title, unit: "M/s", scale: 1e6, lines, work: None };
    small.print(setting);
    vec![
        Goal::at_least("encrypted get 64 MiB ÷ AES-256-GCM, buffer", 0.75, &long.to_limit(&long.lines[1].name, 0)),
        Goal::at_least("encrypted get 64 MiB ÷ AES-256-GCM, one piece", 0.6, &long.to_limit(&long.lines[2].name, 0)),
        Goal::at_least("encrypted get 4 KiB ÷ plain", 0.8, &small.to_limit("strongroom, encrypted", 0)),
    ]
}
