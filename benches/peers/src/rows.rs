//! The rows of the table: each does the same work on all contenders and on the raw limit, in turns.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::contender::{Contender, Key, Open, sha256, touch};
use crate::measure::{Random, cost, proc_self, seconds, spread};
use crate::peers;

/// What all rows need to know.
pub struct Setting {
    pub dir: std::path::PathBuf,
    pub rounds: usize,
    pub quick: bool,
}

/// A result: operations a second of each round, by contender; the first is the limit.
pub struct Row {
    pub title: String,
    pub unit: &'static str,
    pub scale: f64,
    pub lines: Vec<(String, Vec<f64>)>,
    /// The work that `--child` does for this row, and how often.
    pub work: Option<(&'static str, u64)>,
}

impl Row {
    pub fn print(&self) {
        println!("\n## {}\n", self.title);
        println!(
            "| who | median {} | spread | ÷ limit | ÷ strongroom | calls/op | syncs/op | bytes written/op | peak MiB |",
            self.unit
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        let of = |name: &str| {
            let found = self.lines.iter().find(|(line, _)| line.starts_with(name));
            found.map_or(f64::NAN, |(_, rates)| spread(rates).0)
        };
        let (limit, ours) = (of("limit"), of("strongroom"));
        for (name, rates) in &self.lines {
            let (median, least, most) = spread(rates);
            let scaled = |rate: f64| format!("{:.*}", if rate / self.scale < 10.0 { 2 } else { 0 }, rate / self.scale);
            let counted = self
                .work
                .filter(|_| !name.starts_with("limit") && !name.starts_with("beside"))
                .and_then(|(work, n)| cost(name, work, n));
            let counted = counted.map_or("n/a | n/a | n/a | n/a".into(), |cost| {
                let Cost { calls, syncs, bytes_written, peak_kib } = cost;
                format!("{calls:.1} | {syncs:.2} | {bytes_written:.0} | {}", peak_kib >> 10)
            });
            println!(
                "| {name} | {} | {} – {} | {:.2} | {:.2} | {counted} |",
                scaled(median),
                scaled(least),
                scaled(most),
                median / limit,
                median / ours
            );
        }
    }
}

use crate::measure::Cost;

fn open(setting: &Setting, name: &str, open: Open) -> (tempfile::TempDir, Box<dyn Contender>) {
    let dir = tempfile::Builder::new().prefix(name).tempdir_in(&setting.dir).unwrap();
    let contender = open(dir.path());
    (dir, contender)
}

/// Runs rounds in which each takes its turn, beginning with another one each time.
fn in_turns(rounds: usize, contenders: &mut [(String, Box<dyn FnMut(usize) -> f64 + '_>)]) -> Vec<(String, Vec<f64>)> {
    let mut lines: Vec<(String, Vec<f64>)> = contenders.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
    let count = contenders.len();
    for round in 0..rounds {
        for turn in 0..count {
            let who = (round + turn) % count;
            lines[who].1.push((contenders[who].1)(round));
        }
    }
    lines
}

fn chosen<'a>(names: &'a [&str]) -> impl Iterator<Item = (&'static str, Open)> + 'a {
    peers::ALL.into_iter().filter(|(name, _)| names.contains(name))
}

const SMALL: [&str; 7] = ["strongroom", "redb", "lmdb", "sled", "cacache", "iroh-blobs", "files"];

pub fn put_large(setting: &Setting) -> Row {
    let len = if setting.quick { 8 << 20 } else { 64 << 20 };
    let mut random = Random(1);
    let contents: Vec<Vec<u8>> = (0..setting.rounds).map(|_| random.bytes(len)).collect();
    let opened: Vec<_> = chosen(&["strongroom", "cacache", "iroh-blobs", "files"])
        .map(|(name, how)| (name, open(setting, name, how)))
        .collect();
    let file = setting.dir.join("raw");
    let mut turns: Vec<(String, Box<dyn FnMut(usize) -> f64 + '_>)> = Vec::new();
    turns.push((
        "limit: sha2 or write + fdatasync, the slower".into(),
        Box::new(|round| {
            let hash = seconds(|| drop(std::hint::black_box(sha256(&contents[round]))));
            let write = seconds(|| write_synced(&file, &contents[round]));
            fs::remove_file(&file).unwrap();
            1.0 / hash.max(write)
        }),
    ));
    for (name, (_dir, contender)) in &opened {
        turns.push((name.to_string(), Box::new(|round| 1.0 / seconds(|| drop(contender.put(&contents[round]))))));
    }
    let title = format!("put {} MiB, verified, durable", len >> 20);
    Row { title, unit: "put/s", scale: 1.0, lines: in_turns(setting.rounds, &mut turns), work: Some(("put-large", 3)) }
}

fn write_synced(path: &Path, content: &[u8]) {
    let file = fs::File::create(path).unwrap();
    file.write_all_at(content, 0).unwrap();
    file.sync_data().unwrap();
}

/// The rate, in pieces of 4 KiB, of overwriting so many at a time in a file full of zeros, with a sync each time.
fn raw_overwrite(path: &Path, count: usize, at_a_time: usize) -> f64 {
    let file = fs::File::create(path).unwrap();
    file.write_all_at(&vec![0; count * at_a_time * 4096], 0).unwrap();
    file.sync_all().unwrap();
    let content = Random(9).bytes(at_a_time * 4096);
    let took = seconds(|| {
        for n in 0..count {
            file.write_all_at(&content, (n * content.len()) as u64).unwrap();
            file.sync_data().unwrap();
        }
    });
    (count * at_a_time) as f64 / took
}

pub fn put_small(setting: &Setting, writers: usize) -> Row {
    let each = if setting.quick { 20 } else { 300 };
    let opened: Vec<_> = chosen(&SMALL).map(|(name, how)| (name, open(setting, name, how))).collect();
    let file = setting.dir.join("raw");
    let mut turns: Vec<(String, Box<dyn FnMut(usize) -> f64 + '_>)> = Vec::new();
    turns.push(("limit: overwrite + fdatasync, 1 writer".into(), Box::new(|_| raw_overwrite(&file, each, 1))));
    if writers > 1 {
        let line = format!("beside it: overwrite of {writers} × 4 KiB + fdatasync");
        turns.push((line, Box::new(|_| raw_overwrite(&file, each, writers))));
    }
    for (number, (name, (_dir, contender))) in opened.iter().enumerate() {
        turns.push((
            name.to_string(),
            Box::new(move |round| {
                let contents: Vec<Vec<Vec<u8>>> = (0..writers)
                    .map(|writer| {
                        let mut random = Random((number as u64) << 40 | (round as u64) << 20 | writer as u64);
                        (0..each).map(|_| random.bytes(4096)).collect()
                    })
                    .collect();
                let took = seconds(|| {
                    std::thread::scope(|scope| {
                        for contents in &contents {
                            scope.spawn(|| contents.iter().for_each(|content| drop(contender.put(content))));
                        }
                    })
                });
                (writers * each) as f64 / took
            }),
        ));
    }
    let title = format!("put 4 KiB, durable, {writers} writer{}", if writers > 1 { "s" } else { "" });
    let work = if writers == 1 { ("put-small", 200) } else { ("put-small-16", 1600) };
    Row { title, unit: "put/s", scale: 1.0, lines: in_turns(setting.rounds, &mut turns), work: Some(work) }
}

/// Contenders with so many blobs of a length in them, and the keys.
fn loaded(
    setting: &Setting,
    len: usize,
    many: u64,
    few: u64,
) -> Vec<(String, tempfile::TempDir, Box<dyn Contender>, Vec<Key>)> {
    chosen(&SMALL)
        .map(|(name, how)| {
            let (dir, contender) = open(setting, name, how);
            let count = if matches!(name, "cacache" | "iroh-blobs" | "files") { few.min(many) } else { many };
            let mut random = Random(5);
            let keys = contender.load(&mut (0..count).map(|_| random.bytes(len)));
            contender.settle();
            let label = if count < many { format!("{name} ({count} blobs)") } else { name.to_string() };
            (label, dir, contender, keys)
        })
        .collect()
}

pub fn get_small(setting: &Setting) -> Row {
    let (count, reads) = if setting.quick { (2_000, 2_000) } else { (100_000, 100_000) };
    let opened = loaded(setting, 4096, count, 20_000);
    let mut raw = RawTable::of(&opened[0].3);
    raw.add_contents(&setting.dir.join("raw-contents"));
    let mut turns: Vec<(String, Box<dyn FnMut(usize) -> f64 + '_>)> = Vec::new();
    turns.push((
        "limit: a hash table in memory, a page of a mapped file".into(),
        Box::new(|round| {
            let mut random = Random(round as u64);
            let order: Vec<&Key> = (0..reads).map(|_| &opened[0].3[(random.next() % count) as usize]).collect();
            reads as f64 / seconds(|| order.into_iter().for_each(|key| assert_eq!(raw.get(key), 4096)))
        }),
    ));
    // Warm is what was read before, mapped and verified.
    opened
        .iter()
        .for_each(|(_, _dir, contender, keys)| keys.iter().for_each(|key| assert_eq!(contender.get(key), 4096)));
    for (label, _dir, contender, keys) in &opened {
        turns.push((
            label.clone(),
            Box::new(move |round| {
                let reads = if keys.len() as u64 == count { reads } else { reads / 10 };
                let mut random = Random(round as u64);
                let order: Vec<&Key> =
                    (0..reads).map(|_| &keys[(random.next() % keys.len() as u64) as usize]).collect();
                reads as f64 / seconds(|| order.into_iter().for_each(|key| assert_eq!(contender.get(key), 4096)))
            }),
        ));
    }
    let lines = in_turns(setting.rounds + 1, &mut turns).into_iter().map(|(name, rates)| (name, rates[1..].to_vec()));
    Row {
        title: "get 4 KiB, random, warm, 1 thread".into(),
        unit: "M/s",
        scale: 1e6,
        lines: lines.collect(),
        work: None,
    }
}

pub fn exists(setting: &Setting, count: u64) -> [Row; 2] {
    let opened = loaded(setting, 16, count, 20_000);
    let probes = 200_000;
    let mut rows = Vec::new();
    let raw = RawTable::of(&opened[0].3);
    for hit in [true, false] {
        let mut turns: Vec<(String, Box<dyn FnMut(usize) -> f64 + '_>)> = Vec::new();
        turns.push((
            "limit: a hash table in memory".into(),
            Box::new(|round| {
                let mut random = Random(round as u64);
                let order: Vec<Key> = (0..probes)
                    .map(|_| match hit {
                        true => opened[0].3[(random.next() % count) as usize].clone(),
                        false => crate::contender::sha256(&random.next().to_le_bytes()),
                    })
                    .collect();
                probes as f64 / seconds(|| order.iter().for_each(|key| assert_eq!(raw.place(key).is_some(), hit)))
            }),
        ));
        for (label, _dir, contender, keys) in &opened {
            turns.push((
                label.clone(),
                Box::new(move |round| {
                    let probes = if keys.len() as u64 == count { probes } else { probes / 10 };
                    let mut random = Random(round as u64);
                    let order: Vec<Key> = (0..probes)
                        .map(|_| match hit {
                            true => keys[(random.next() % keys.len() as u64) as usize].clone(),
                            false => contender.absent(random.next()),
                        })
                        .collect();
                    probes as f64 / seconds(|| order.iter().for_each(|key| assert_eq!(contender.exists(key), hit)))
                }),
            ));
        }
        let lines =
            in_turns(setting.rounds + 1, &mut turns).into_iter().map(|(name, rates)| (name, rates[1..].to_vec()));
        let title = format!("exists, {count} blobs, {}", if hit { "hit" } else { "miss" });
        rows.push(Row { title, unit: "M/s", scale: 1e6, lines: lines.collect(), work: None });
    }
    rows.try_into().unwrap_or_else(|_| unreachable!("two rows"))
}

/// What a look-up costs at the least: keys in a hash table in memory that takes their first bytes for the hash.
struct RawTable {
    places: std::collections::HashMap<[u8; 32], u64, std::hash::BuildHasherDefault<FirstBytes>>,
    contents: Option<memmap2::Mmap>,
}

#[derive(Default)]
struct FirstBytes(u64);

impl std::hash::Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }
}

impl RawTable {
    fn of(keys: &[Key]) -> Self {
        let places = keys.iter().zip(0..).map(|(key, place)| (key[..].try_into().unwrap(), place)).collect();
        Self { places, contents: None }
    }

    /// A page of content for each key.
    fn add_contents(&mut self, path: &Path) {
        fs::write(path, Random(1).bytes(self.places.len() * 4096)).unwrap();
        // SAFETY: nobody changes the file, whose name is gone.
        self.contents = Some(unsafe { memmap2::Mmap::map(&fs::File::open(path).unwrap()).unwrap() });
        fs::remove_file(path).unwrap();
        touch(self.contents.as_ref().unwrap());
    }

    fn place(&self, key: &Key) -> Option<usize> {
        self.places.get::<[u8; 32]>(key[..].try_into().unwrap()).map(|place| *place as usize)
    }

    fn get(&self, key: &Key) -> usize {
        let at = self.place(key).unwrap() * 4096;
        touch(&self.contents.as_ref().unwrap()[at..at + 4096])
    }
}

pub fn get_large(setting: &Setting, mib: usize) {
    let content = Random(3).bytes(mib << 20);
    println!("\n## get a blob of {mib} MiB\n\n| what | GB/s, or time |\n|---|---|");
    let gigabytes = content.len() as f64 / 1e9;
    let (mut first, mut again, mut unverified) = (Vec::new(), Vec::new(), Vec::new());
    let (mut plain, mut read) = (Vec::new(), Vec::new());
    let dir = tempfile::tempdir_in(&setting.dir).unwrap();
    let raw = dir.path().join("raw");
    fs::write(&raw, &content).unwrap();
    let path = dir.path().join("store");
    let store = strongroom::Options::new().create(true).open(&path).unwrap();
    let digest = store.put(&content, strongroom::Algorithm::Blake3).unwrap().digest;
    store.close().unwrap();
    for _ in 0..setting.rounds {
        let store = strongroom::Store::open(&path).unwrap();
        unverified.push(seconds(|| drop(store.get(&digest).unwrap().bytes_unverified().unwrap())));
        first.push(
            gigabytes / seconds(|| assert_eq!(touch(&store.get(&digest).unwrap().bytes().unwrap()), content.len())),
        );
        again.push(
            gigabytes / seconds(|| assert_eq!(touch(&store.get(&digest).unwrap().bytes().unwrap()), content.len())),
        );
        store.close().unwrap();
        plain.push(
            gigabytes
                / seconds(|| {
                    let file = fs::File::open(&raw).unwrap();
                    // SAFETY: nobody changes the file.
                    touch(&unsafe { memmap2::Mmap::map(&file).unwrap() });
                }),
        );
        read.push(
            gigabytes
                / seconds(|| {
                    let file = fs::File::open(&raw).unwrap();
                    let mut block = vec![0; 64 << 10];
                    (0..content.len())
                        .step_by(block.len())
                        .for_each(|at| file.read_exact_at(&mut block, at as u64).unwrap());
                }),
        );
    }
    println!("| mmap of a plain file, each page touched | {:.1} |", spread(&plain).0);
    println!("| read of a plain file, 64 KiB at a time | {:.1} |", spread(&read).0);
    println!("| first verified read, each page touched | {:.1} |", spread(&first).0);
    println!("| verified read again, each page touched | {:.1} |", spread(&again).0);
    println!("| bytes_unverified | {:.1} µs |", spread(&unverified).0 * 1e6);
}

pub fn open_store(setting: &Setting, count: u64) {
    println!("\n## open a store of {count} blobs of 1 KiB\n\n| after | ms |\n|---|---|");
    let dir = tempfile::tempdir_in(&setting.dir).unwrap();
    let path = dir.path().join("store");
    let mut random = Random(11);
    let mut fill = || {
        let contender = peers::Strongroom::open(dir.path());
        contender.load(&mut (0..count).map(|_| random.bytes(1024)));
        contender
    };
    let store = fill();
    store.put(b"one more");
    drop(store);
    let clean: Vec<f64> = (0..setting.rounds)
        .map(|_| {
            let mut opened = None;
            seconds(|| opened = Some(strongroom::Store::open(&path).unwrap()))
        })
        .collect();
    println!("| a clean close | {:.1} |", spread(&clean).0 * 1e3);
    let killed: Vec<f64> = (0..setting.rounds)
        .map(|_| {
            // A child that fills the store further and is killed: with facts that no run has.
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--child", "strongroom", "--child-work", "put-forever", "--dir"])
                .arg(dir.path())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1500));
            child.kill().unwrap();
            child.wait().unwrap();
            let mut opened = None;
            seconds(|| opened = Some(strongroom::Store::open(&path).unwrap()))
        })
        .collect();
    println!("| kill -9 in the middle of writing | {:.1} |", spread(&killed).0 * 1e3);
}

pub fn ingest(setting: &Setting, mib: u64) {
    struct Endless {
        random: Random,
        left: u64,
        block: Vec<u8>,
    }
    impl std::io::Read for Endless {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            let n = buf.len().min(self.block.len()).min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let stamp = self.random.next().to_le_bytes();
            self.block[..8].copy_from_slice(&stamp);
            buf[..n].copy_from_slice(&self.block[..n]);
            self.left -= n as u64;
            Ok(n)
        }
    }
    let dir = tempfile::tempdir_in(&setting.dir).unwrap();
    let store = strongroom::Options::new().create(true).open(dir.path().join("store")).unwrap();
    let mut random = Random(1);
    let block = random.bytes(64 << 10);
    let before = proc_self("status", "VmRSS:");
    let reset = fs::write("/proc/self/clear_refs", "5").is_ok();
    let reader = Endless { random, left: mib << 20, block };
    let took = seconds(|| _ = store.put_reader(reader, strongroom::Algorithm::Sha256).unwrap().digest);
    let peak = proc_self("status", "VmHWM:");
    println!("\n## ingest a blob of {mib} MiB from a reader\n");
    println!(
        "{:.2} GB/s; memory grew by {} MiB at its peak{}",
        (mib << 20) as f64 / took / 1e9,
        peak.saturating_sub(before) >> 10,
        if reset { "" } else { " (since the process began)" }
    );
}
