//! Reads of small blobs and whether they are there, beside a hash table in memory.

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use strongroom::{Algorithm, Digest, Store};

use super::puts::{LEN, TOGETHER};
use super::{Goal, Line, Opened, Row, Setting, Turn, short, turn};
use crate::contender::{Contender as _, Key, touch};
use crate::measure::{Random, Work, content, own_mib, rate, seconds, spread};
use crate::peers::{SLOW, Strongroom};

/// How many blobs those have that are slow to fill.
const FEW: u64 = 20_000;

/// The length of the blobs that there are many of.
const SHORT: usize = 32;

/// The first number of contents that are nowhere.
const ABSENT: u64 = 1 << 40;

/// How many are looked up in a turn.
const PROBES: u64 = 200_000;

/// What a look-up costs at the least: keys in a hash table in memory that takes their first bytes for the hash, and
/// places in a mapped file.
struct RawTable {
    places: HashMap<[u8; 32], u64, BuildHasherDefault<FirstBytes>>,
    len: usize,
    contents: memmap2::Mmap,
}

#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
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
    /// The contents of a length with these digests, in this order.
    fn of(dir: &Path, digests: &[Digest], len: usize) -> Self {
        let mut places = HashMap::with_capacity_and_hasher(digests.len(), BuildHasherDefault::default());
        let mut file = std::io::BufWriter::new(tempfile::tempfile_in(dir).unwrap());
        for (digest, place) in digests.iter().zip(0..) {
            places.insert(digest.as_bytes().try_into().unwrap(), place);
            file.write_all(&content(place, len)).unwrap();
        }
        let file: fs::File = file.into_inner().unwrap();
        // SAFETY: nobody changes the file, which has no name.
        let contents = unsafe { memmap2::Mmap::map(&file).unwrap() };
        touch(&contents);
        Self { places, len, contents }
    }

    fn place(&self, key: &[u8]) -> Option<usize> {
        self.places.get::<[u8; 32]>(key.try_into().unwrap()).map(|place| *place as usize)
    }

    fn exists(&self, key: &[u8]) -> bool {
        self.place(key).is_some()
    }

    fn get(&self, key: &[u8]) -> usize {
        let at = self.place(key).unwrap() * self.len;
        touch(&self.contents[at..at + self.len])
    }
}

/// The digests of contents with successive numbers.
fn digests(numbers: Range<u64>, len: usize) -> Vec<Digest> {
    numbers.map(|number| Digest::of(Algorithm::Sha256, &content(number, len))).collect()
}

/// What is looked up: random ones of these.
#[derive(Clone, Copy)]
struct Probes<'a> {
    of: &'a [Digest],
    len: usize,
    are_there: bool,
    at_most: Duration,
}

impl Probes<'_> {
    /// Those of a round, side by side in memory.
    fn order(self, round: usize) -> Vec<Digest> {
        let mut random = Random(round as u64);
        (0..PROBES).map(|_| self.of[random.next() as usize % self.of.len()]).collect()
    }
}

/// What is asked.
#[derive(Clone, Copy, PartialEq)]
enum Question {
    Get,
    /// Get as bytes that do not borrow from the store: a copy.
    Bytes,
    Exists,
    ExistsMany,
}

/// What is asked of a store, and whether it is there.
const QUESTIONS: [(&str, Question, bool); 5] = [
    ("exists, hit", Question::Exists, true),
    ("exists, miss", Question::Exists, false),
    ("exists_many of 64, hit", Question::ExistsMany, true),
    ("exists_many of 64, miss", Question::ExistsMany, false),
    ("get 32 B", Question::Get, true),
];

fn ask_raw<'a>(raw: &'a RawTable, name: String, question: Question, probes: Probes<'a>) -> Turn<'a> {
    turn(name, move |round| {
        let order = probes.order(round);
        match question {
            Question::Get => rate(&order, probes.at_most, |digest| assert_eq!(raw.get(digest.as_bytes()), raw.len)),
            _ => rate(&order, probes.at_most, |digest| assert_eq!(raw.exists(digest.as_bytes()), probes.are_there)),
        }
    })
}

fn get(store: &Store, digest: &Digest) -> usize {
    touch(&store.get(digest).unwrap().view().unwrap())
}

fn ask_store<'a>(store: &'a Store, name: String, question: Question, probes: Probes<'a>) -> Turn<'a> {
    let Probes { len, are_there, at_most, .. } = probes;
    turn(name, move |round| {
        let order = probes.order(round);
        match question {
            Question::Get => rate(&order, at_most, |digest| assert_eq!(get(store, digest), len)),
            Question::Bytes => rate(&order, at_most, |digest| {
                assert_eq!(touch(&store.get(digest).unwrap().bytes().unwrap()), len);
            }),
            Question::Exists => rate(&order, at_most, |digest| assert_eq!(store.exists(digest).unwrap(), are_there)),
            Question::ExistsMany => {
                let together: Vec<&[Digest]> = order.chunks_exact(TOGETHER).collect();
                let all = |found: Vec<bool>| found.into_iter().all(|found| found == are_there);
                rate(&together, at_most, |some| assert!(all(store.exists_many(some).unwrap()))) * TOGETHER as f64
            }
        }
    })
}

/// Peers that are slow to fill have fewer.
fn ask_peer<'a>(peer: &'a Opened, question: Question, probes: Probes<'a>) -> Turn<'a> {
    let Probes { len, are_there, at_most, .. } = probes;
    let contender = &peer.contender;
    let ask = move |key: &[u8]| match question {
        Question::Get => assert_eq!(contender.get(key), len),
        _ => assert_eq!(contender.exists(key), are_there),
    };
    if !SLOW.contains(&peer.name) {
        return turn(peer.name, move |round| {
            rate(&probes.order(round), at_most, |digest: &Digest| ask(digest.as_bytes()))
        });
    }
    let blobs = FEW.min(probes.of.len() as u64);
    turn(format!("{} ({blobs} blobs)", peer.name), move |round| {
        let mut random = Random(round as u64);
        let first = if are_there { 0 } else { ABSENT };
        let numbers = (0..PROBES / 10).map(|_| first + random.next() % blobs);
        let order: Vec<Key> = numbers.map(|number| contender.key(&content(number, len))).collect();
        rate(&order, at_most, |key: &Key| ask(key))
    })
}

/// Fills peers with the first so many contents.
fn fill(peers: &[Opened], count: u64, len: usize) {
    for peer in peers {
        let count = if SLOW.contains(&peer.name) { FEW.min(count) } else { count };
        peer.contender.load(&mut (0..count).map(|number| content(number, len)));
    }
}

/// How many runs a store has.
fn runs(path: &Path) -> usize {
    let files = fs::read_dir(path.join("runs")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "run")).count()
}

/// Waits until maintenance has written nothing for a while.
fn wait_for_maintenance(path: &Path, store: &Store) {
    let state = || (runs(path), store.usage().unwrap().run_bytes, store.health().unfolded_facts);
    let (mut last, mut since) = (state(), Instant::now());
    while since.elapsed() < Duration::from_millis(1500) {
        std::thread::sleep(Duration::from_millis(100));
        let now = state();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// Get 4 KiB, just loaded and merged.
pub fn get_small(setting: &Setting, blobs: u64) -> Vec<Goal> {
    let dir = setting.temporary();
    let digests = digests(0..blobs, LEN);
    let raw = RawTable::of(&setting.dir, &digests, LEN);
    let ours = Strongroom::open(dir.path());
    ours.load(&mut (0..blobs).map(|number| content(number, LEN)));
    let peers = setting.open_all(&["strongroom"]);
    fill(&peers, blobs, LEN);
    let probes = Probes { of: &digests, len: LEN, are_there: true, at_most: 4 * setting.turn };
    let ours_and_limit = |state: &str| {
        // What was read once is mapped and verified.
        digests.iter().for_each(|digest| _ = get(&ours.store, digest));
        let limit = format!("limit: a hash table in memory, a page of a mapped file ({state})");
        vec![
            ask_raw(&raw, limit, Question::Get, probes),
            ask_store(&ours.store, format!("strongroom, {state}"), Question::Get, probes),
            ask_store(&ours.store, format!("strongroom, copied ({state})"), Question::Bytes, probes),
        ]
    };
    wait_for_maintenance(&Strongroom::path(dir.path()), &ours.store);
    let mut turns = ours_and_limit(LOADED);
    let for_peers = Probes { at_most: setting.turn, ..probes };
    turns.extend(peers.iter().map(|peer| ask_peer(peer, Question::Get, for_peers)));
    let mut lines = setting.in_turns(turns);
    ours.store.merge_runs().unwrap();
    lines.extend(setting.in_turns(ours_and_limit(MERGED)));
    let title = format!("get 4 KiB, {blobs} blobs, random, warm, 1 thread");
    let row = Row { title, unit: "M/s", scale: 1e6, lines: sorted(lines), work: None };
    row.print(setting);
    let work = Work { name: "get", writers: 1, operations: 2_000 };
    super::print_instructions(setting, "a get of 4 KiB", work);
    let ours = |state: &str| format!("strongroom, {state}");
    vec![
        Goal::at_least("get 4 KiB ÷ limit, just loaded", 0.4, &row.to_limit(&ours(LOADED), 0)),
        Goal::at_least("get 4 KiB ÷ limit, merged", 0.4, &row.to_limit(&ours(MERGED), 0)),
        Goal::at_least("get 4 KiB ÷ LMDB, just loaded", 3.0, &row.to_line(&ours(LOADED), "lmdb")),
    ]
}

const LOADED: &str = "just loaded";
const MERGED: &str = "merged";

/// Limits first, ours next.
fn sorted(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by_key(|line| match &line.name {
        name if name.starts_with("limit") => 0,
        name if name.starts_with("strongroom") => 1,
        _ => 2,
    });
    lines
}

/// Many blobs of 32 bytes: whether they are there, one by one and 64 at a time, and reading them, just loaded and
/// merged; and what the store is like. Peers are merged with the rest, where they take part.
pub fn lookups(setting: &Setting, blobs: u64, with_peers: bool) -> Vec<Goal> {
    let dir = setting.temporary();
    let path = Strongroom::path(dir.path());
    let (present, absent) = (digests(0..blobs, SHORT), digests(ABSENT..ABSENT + PROBES, SHORT));
    let raw = RawTable::of(&setting.dir, &present, SHORT);
    let before = own_mib();
    let ours = Strongroom::open(dir.path());
    let took = seconds(|| ours.load(&mut (0..blobs).map(|number| content(number, SHORT))));
    let ask = |state: &str, peers: &[Opened]| {
        QUESTIONS.map(|(_, question, are_there)| {
            let of = if are_there { &present[..] } else { &absent };
            let probes = Probes { of, len: SHORT, are_there, at_most: 4 * setting.turn };
            let mut turns = vec![
                ask_raw(&raw, format!("limit: a hash table in memory ({state})"), question, probes),
                ask_store(&ours.store, format!("strongroom, {state}"), question, probes),
            ];
            let probes = Probes { at_most: setting.turn, ..probes };
            let peers = peers.iter().filter(|_| question != Question::ExistsMany);
            turns.extend(peers.map(|peer| ask_peer(peer, question, probes)));
            setting.in_turns(turns)
        })
    };
    wait_for_maintenance(&path, &ours.store);
    let loaded = State::of(&path, &ours.store, before, blobs);
    let lines_loaded = ask(LOADED, &[]);
    ours.store.merge_runs().unwrap();
    let merged = State::of(&path, &ours.store, before, blobs);
    let peers = if with_peers { setting.open_all(&["strongroom"]) } else { Vec::new() };
    fill(&peers, blobs, SHORT);
    let lines_merged = ask(MERGED, &peers);
    let mut goals = Vec::new();
    for (((what, ..), mut lines), more) in QUESTIONS.into_iter().zip(lines_loaded).zip(lines_merged) {
        lines.extend(more);
        let title = format!("{what}, {blobs} blobs of 32 bytes, random, 1 thread");
        let row = Row { title, unit: "M/s", scale: 1e6, lines: sorted(lines), work: None };
        row.print(setting);
        goals.extend(goals_of(what, blobs, &row));
    }
    ours.store.close().unwrap();
    let open = super::open::times(setting, || path.clone());
    println!("\n## a store of {blobs} blobs of 32 bytes\n\n| | {LOADED} | {MERGED} |\n|---|---|---|");
    println!("| loaded without syncs, blobs/s | {:.0} | |", blobs as f64 / took);
    loaded.print_beside(&merged);
    println!("| opened after a clean close, ms | | {} |", short(spread(&open).0));
    let of = |what: &str| format!("{what}, {blobs} blobs of 32 bytes");
    goals.extend([
        Goal::at_most(of("facts a blob, merged"), 100.0, "B", &[merged.fact_bytes]),
        Goal::at_most(of("own memory, just loaded"), 96.0, "MiB", &[loaded.own_mib]),
        Goal::at_most(of("open"), 1.3, "ms", &open),
    ]);
    goals
}

/// Goals are ratios, and from 10 million blobs on rates too.
fn goals_of(what: &str, blobs: u64, row: &Row) -> Vec<Goal> {
    let ratio = match what {
        "exists, hit" => Some(0.5),
        "exists, miss" => Some(0.7),
        "get 32 B" => None,
        _ => Some(1.0),
    };
    let rates = match what {
        "exists, hit" => Some((1.0, 2.0)),
        "exists, miss" => Some((3.0, 6.0)),
        "get 32 B" => Some((0.5, 0.7)),
        _ => None,
    };
    let mut goals = Vec::new();
    for (state, rate) in [(LOADED, rates.map(|rates| rates.0)), (MERGED, rates.map(|rates| rates.1))] {
        let ours = format!("strongroom, {state}");
        if let Some(ratio) = ratio {
            let what = format!("{what} ÷ hash table, {blobs} blobs, {state}");
            goals.push(Goal::at_least(what, ratio, &row.to_limit(&ours, 0)));
        }
        if let (Some(rate), Some(line)) = (rate.filter(|_| blobs >= 10_000_000), row.line(&ours)) {
            let millions: Vec<f64> = line.rates.iter().map(|rate| rate / 1e6).collect();
            goals.push(Goal::at_least(format!("{what}, M/s, {blobs} blobs, {state}"), rate, &millions));
        }
    }
    goals
}

/// What a store takes.
struct State {
    runs: usize,
    unfolded: u64,
    fact_bytes: f64,
    own_mib: f64,
}

impl State {
    fn of(path: &Path, store: &Store, before: f64, blobs: u64) -> Self {
        Self {
            runs: runs(path),
            unfolded: store.health().unfolded_facts,
            fact_bytes: store.usage().unwrap().run_bytes as f64 / blobs as f64,
            own_mib: own_mib() - before,
        }
    }

    fn print_beside(&self, other: &Self) {
        println!("| runs | {} | {} |", self.runs, other.runs);
        println!("| facts in no run yet | {} | {} |", self.unfolded, other.unfolded);
        println!("| bytes of runs a blob | {} | {} |", short(self.fact_bytes), short(other.fact_bytes));
        println!("| own memory, MiB | {} | {} |", short(self.own_mib), short(other.own_mib));
    }
}
