//! Large blobs: put, read, and stored from a reader.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use strongroom::{Algorithm, Digest, Store};

use super::{Goal, Row, Setting, turn};
use crate::contender::{sha256, touch};
use crate::measure::{Random, Work, content, proc_self, seconds, spread};

/// The length of what [`put_large`] puts.
pub const LEN: usize = 64 << 20;

pub fn put_large(setting: &Setting) -> Vec<Goal> {
    let opened = setting.open_all(&["redb", "lmdb", "lmdb-writemap", "fjall", "sled"]);
    let file = setting.temporary();
    let write_synced = |content: &[u8]| {
        let path = file.path().join("raw");
        let file = fs::File::create(&path).unwrap();
        file.write_all_at(content, 0).unwrap();
        file.sync_data().unwrap();
        fs::remove_file(path).unwrap();
    };
    let mut turns = vec![turn("limit: sha2, or write + fdatasync, the slower", |round| {
        let content = content(round as u64, LEN);
        let hash = seconds(|| drop(std::hint::black_box(sha256(&content))));
        1.0 / hash.max(seconds(|| write_synced(&content)))
    })];
    for opened in &opened {
        turns.push(turn(opened.label(), |round| {
            let content = content(round as u64, LEN);
            1.0 / seconds(|| opened.contender.put(&content))
        }));
    }
    let work = Work { name: "put-large", writers: 1, operations: 2 };
    let title = format!("put {} MiB, verified, durable", LEN >> 20);
    let row = Row { title, unit: "put/s", scale: 1.0, lines: setting.in_turns(turns), work: Some(work) };
    row.print(setting);
    vec![Goal::at_least(format!("{} ÷ limit", row.title), 0.9, &row.to_limit("strongroom", 0))]
}

/// Opens a store anew and gets its blob.
fn reopened(path: &Path, digest: &Digest) -> (Store, strongroom::Blob) {
    let store = Store::open(path).unwrap();
    let blob = store.get(digest).unwrap();
    (store, blob)
}

/// All content is in the page cache: that of the plain file, and that of the store.
pub fn get_large(setting: &Setting, mib: usize) -> Vec<Goal> {
    let len = mib << 20;
    let dir = setting.temporary();
    let (raw, path) = (dir.path().join("raw"), dir.path().join("store"));
    let content = Random(3).bytes(len);
    let file = fs::File::create_new(&raw).unwrap();
    file.write_all_at(&content, 0).unwrap();
    file.sync_all().unwrap();
    let store = strongroom::Options::new().create(true).open(&path).unwrap();
    let digest = store.put(&content, Algorithm::Blake3).unwrap().digest;
    store.close().unwrap();
    // One buffer for all that read into one, faulted in.
    let buffer = std::cell::RefCell::new(content);
    let rate = |took: f64| len as f64 / took;
    let read = |buffer: &mut [u8]| fs::File::open(&raw).unwrap().read_exact_at(buffer, 0).unwrap();
    let in_steps = |_| {
        let mut block = vec![0; 64 << 10];
        let file = fs::File::open(&raw).unwrap();
        let steps = (0..len).step_by(block.len());
        rate(seconds(|| steps.for_each(|at| file.read_exact_at(&mut block, at as u64).unwrap())))
    };
    let turns = vec![
        turn("limit: `read` of a plain file, 64 KiB at a time into one buffer of that size", in_steps),
        turn("limit: … at once into one buffer that was there", |_| rate(seconds(|| read(&mut buffer.borrow_mut())))),
        turn("limit: … at once into a new buffer", |_| rate(seconds(|| read(&mut vec![0; len])))),
        turn("strongroom, first verified read", |_| {
            rate(seconds(|| assert_eq!(touch(&reopened(&path, &digest).1.bytes().unwrap()), len)))
        }),
        turn("strongroom, first verified read, through a reader into one buffer that was there", |_| {
            let read = || reopened(&path, &digest).1.reader().read_exact(&mut buffer.borrow_mut()).unwrap();
            rate(seconds(read))
        }),
        turn("strongroom, verified read again", |_| {
            let (_store, blob) = reopened(&path, &digest);
            touch(&blob.bytes().unwrap());
            rate(seconds(|| assert_eq!(touch(&blob.bytes().unwrap()), len)))
        }),
        turn("a mapped plain file, each page touched", |_| {
            rate(seconds(|| {
                // SAFETY: nobody changes the file.
                touch(&unsafe { memmap2::Mmap::map(&fs::File::open(&raw).unwrap()).unwrap() });
            }))
        }),
    ];
    let title = format!("get {mib} MiB, in a store that was just opened");
    let row = Row { title, unit: "GB/s", scale: 1e9, lines: setting.in_turns(turns), work: None };
    row.print(setting);
    let unverified: Vec<f64> = (0..setting.rounds)
        .map(|_| {
            let (_store, blob) = reopened(&path, &digest);
            seconds(|| drop(blob.bytes_unverified().unwrap())) * 1e6
        })
        .collect();
    println!("\n`bytes_unverified`: {:.0} µs", spread(&unverified).0);
    let of = |limit| row.to_limit("strongroom, first verified read", limit);
    let what = format!("get {mib} MiB, first verified ÷ `read` of a plain file");
    vec![
        Goal::at_least(format!("{what}, 64 KiB at a time into one buffer"), 1.0, &of(0)),
        Goal::at_least(format!("{what}, at once into one buffer"), 1.0, &of(1)),
        Goal::at_least(format!("{what}, at once into a new buffer"), 1.0, &of(2)),
    ]
}

/// Content without an end, of which no two blocks are the same.
struct Endless {
    random: Random,
    block: Vec<u8>,
}

impl std::io::Read for Endless {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = buf.len().min(self.block.len());
        self.block[..8].copy_from_slice(&self.random.next().to_le_bytes());
        buf[..n].copy_from_slice(&self.block[..n]);
        Ok(n)
    }
}

/// How much memory it takes to store content from a reader.
pub fn ingest(setting: &Setting, mib: u64) -> Vec<Goal> {
    let dir = setting.temporary();
    let store = strongroom::Options::new().create(true).open(dir.path().join("store")).unwrap();
    let mut random = Random(1);
    let block = random.bytes(64 << 10);
    let reader = Endless { random, block }.take(mib << 20);
    let before = proc_self("status", "VmRSS:");
    let is_reset = fs::write("/proc/self/clear_refs", "5").is_ok();
    let took = seconds(|| _ = store.put_reader(reader, Algorithm::Sha256).unwrap().digest);
    let grew = proc_self("status", "VmHWM:").saturating_sub(before) as f64 / 1024.0;
    println!("\n## ingest a blob of {mib} MiB from a reader\n");
    println!(
        "{:.2} GB/s; memory grew by {grew:.1} MiB at its peak{}",
        (mib << 20) as f64 / took / 1e9,
        if is_reset { "" } else { " (since the process began)" }
    );
    vec![Goal::at_most(format!("ingest {mib} MiB, memory"), 64.0, "MiB", &[grew])]
}
