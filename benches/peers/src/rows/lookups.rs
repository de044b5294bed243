//! Reads of small blobs and whether they are there, beside a hash table in memory.

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use strongroom::{Digest, Store};

use super::puts::{LEN, TOGETHER};
use super::{Goal, Line, Opened, Row, Setting, Turn, short, turn};
use crate::contender::{Contender as _, Key, touch};
use crate::measure::{Random, Work, content, own_mib, rate, seconds, spread};
use crate::peers::{SLOW, Strongroom, digest};

/// How many blobs those have that are slow to fill.
const FEW: u64 = 20_000;

/// The length of the blobs that there are many of.
const SHORT: usize = 32;

/// The first number of contents that are nowhere.
const ABSENT: u64 = 1 << 40;

/// What a look-up costs at the least: keys in a hash table in memory that takes their first bytes for the hash, and
/// places in a mapped file.
pub struct RawTable {
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
    /// The first so many contents.
    pub fn of(dir: &Path, count: u64, len: usize) -> Self {
        let mut places = HashMap::with_capacity_and_hasher(count as usize, BuildHasherDefault::default());
        let mut file = std::io::BufWriter::new(tempfile::tempfile_in(dir).unwrap());
        for place in 0..count {
            let content = content(place, len);
            places.insert(crate::contender::sha256(&content)[..].try_into().unwrap(), place);
            file.write_all(&content).unwrap();
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

    pub fn exists(&self, key: &[u8]) -> bool {
        self.place(key).is_some()
    }

    pub fn get(&self, key: &[u8]) -> usize {
        let at = self.place(key).unwrap() * self.len;
        touch(&self.contents[at..at + self.len])
    }
}

/// What is looked up in a round: so many random ones of a number of blobs that are there, or as many that are not.
#[derive(Clone, Copy)]
struct Probes {
    count: u64,
    blobs: u64,
    len: usize,
    are_there: bool,
}

impl Probes {
    fn keys(self, round: usize, key: impl Fn(&[u8]) -> Key) -> Vec<Key> {
        let mut random = Random(round as u64);
        let number = |_| match self.are_there {
            true => random.next() % self.blobs,
            false => ABSENT + random.next() % ABSENT,
        };
        (0..self.count).map(number).map(|number| key(&content(number, self.len))).collect()
    }

    fn digests(self, round: usize) -> Vec<Digest> {
        self.keys(round, crate::contender::sha256).iter().map(digest).collect()
    }
}

/// What is asked.
#[derive(Clone, Copy, PartialEq)]
enum Question {
    Get,
    Exists,
    ExistsMany,
}

/// The limit and strongroom take digests that are made before, side by side in memory.
fn ask_raw<'a>(raw: &'a RawTable, name: &str, question: Question, probes: Probes, at_most: Duration) -> Turn<'a> {
    turn(name, move |round| {
        let order = probes.digests(round);
        match question {
            Question::Get => rate(&order, at_most, |digest| assert_eq!(raw.get(digest.as_bytes()), raw.len)),
            _ => rate(&order, at_most, |digest| assert_eq!(raw.exists(digest.as_bytes()), probes.are_there)),
        }
    })
}

fn ask_store<'a>(store: &'a Store, name: &str, question: Question, probes: Probes, at_most: Duration) -> Turn<'a> {
    turn(name, move |round| {
        let order = probes.digests(round);
        let get = |digest: &Digest| touch(&store.get(digest).unwrap().bytes().unwrap());
        match question {
            Question::Get => rate(&order, at_most, |digest| assert_eq!(get(digest), probes.len)),
            Question::Exists => {
                rate(&order, at_most, |digest| assert_eq!(store.exists(digest).unwrap(), probes.are_there))
            }
            Question::ExistsMany => {
                let together: Vec<&[Digest]> = order.chunks_exact(TOGETHER).collect();
                let all_as = |found: Vec<bool>| found.into_iter().all(|found| found == probes.are_there);
                rate(&together, at_most, |some| assert!(all_as(store.exists_many(some).unwrap()))) * TOGETHER as f64
            }
        }
    })
}

fn ask_peer<'a>(peer: &'a Opened, question: Question, probes: Probes, at_most: Duration) -> Turn<'a> {
    let few = SLOW.contains(&peer.name) && probes.blobs > FEW;
    let name = if few { format!("{} ({FEW} blobs)", peer.name) } else { peer.name.to_string() };
    let probes = if few { Probes { blobs: FEW, count: probes.count / 10, ..probes } } else { probes };
    let contender = &peer.contender;
    turn(name, move |round| {
        let order = probes.keys(round, |content| contender.key(content));
        match question {
            Question::Get => rate(&order, at_most, |key| assert_eq!(contender.get(key), probes.len)),
            _ => rate(&order, at_most, |key| assert_eq!(contender.exists(key), probes.are_there)),
        }
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
    fs::read_dir(path.join("runs")).unwrap().count()
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
    let ours = Strongroom::open(dir.path());
    ours.load(&mut (0..blobs).map(|number| content(number, LEN)));
    let peers = setting.open_all(&["strongroom"]);
    fill(&peers, blobs, LEN);
    let raw = RawTable::of(&setting.dir, blobs, LEN);
    let probes = Probes { count: 100_000, blobs, len: LEN, are_there: true };
    // What was read once is mapped and verified.
    let warm_up = || (0..blobs).for_each(|n| _ = ours.get(&crate::contender::sha256(&content(n, LEN))));
    let ours_and_limit = |state: &str| {
        let limit = format!("limit: a hash table in memory, a page of a mapped file ({state})");
        let at_most = 4 * setting.turn;
        vec![
            ask_raw(&raw, &limit, Question::Get, probes, at_most),
            ask_store(&ours.store, &format!("strongroom, {state}"), Question::Get, probes, at_most),
        ]
    };
    wait_for_maintenance(&Strongroom::path(dir.path()), &ours.store);
    warm_up();
    let mut turns = ours_and_limit(LOADED);
    turns.extend(peers.iter().map(|peer| ask_peer(peer, Question::Get, probes, setting.turn)));
    let mut lines = setting.in_turns(turns);
    ours.store.merge_runs().unwrap();
    warm_up();
    lines.extend(setting.in_turns(ours_and_limit(MERGED)));
    let title = format!("get 4 KiB, {blobs} blobs, random, warm, 1 thread");
    let work = Work { name: "get", writers: 1, operations: 2_000 };
    let row = Row { title, unit: "M/s", scale: 1e6, lines: sorted(lines), work: None };
    row.print(setting);
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
    let before = own_mib();
    let ours = Strongroom::open(dir.path());
    let took = seconds(|| ours.load(&mut (0..blobs).map(|number| content(number, SHORT))));
    wait_for_maintenance(&path, &ours.store);
    let loaded = State::of(&path, &ours.store, before, blobs);
    let peers = if with_peers { setting.open_all(&["strongroom"]) } else { Vec::new() };
    fill(&peers, blobs, SHORT);
    let raw = RawTable::of(&setting.dir, blobs, SHORT);
    let questions = [
        ("exists, hit", Question::Exists, true),
        ("exists, miss", Question::Exists, false),
        ("exists_many of 64, hit", Question::ExistsMany, true),
        ("exists_many of 64, miss", Question::ExistsMany, false),
        ("get 32 B", Question::Get, true),
    ];
    let ask = |state: &str, peers: &[Opened]| {
        questions.map(|(_, question, are_there)| {
            let probes = Probes { count: 200_000, blobs, len: SHORT, are_there };
            let at_most = 4 * setting.turn;
            let limit = format!("limit: a hash table in memory ({state})");
            let mut turns = vec![
                ask_raw(&raw, &limit, question, probes, at_most),
                ask_store(&ours.store, &format!("strongroom, {state}"), question, probes, at_most),
            ];
            let peers = peers.iter().filter(|_| question != Question::ExistsMany);
            turns.extend(peers.map(|peer| ask_peer(peer, question, probes, setting.turn)));
            setting.in_turns(turns)
        })
    };
    let lines_loaded = ask(LOADED, &[]);
    ours.store.merge_runs().unwrap();
    let merged = State::of(&path, &ours.store, before, blobs);
    let lines_merged = ask(MERGED, &peers);
    let mut goals = Vec::new();
    for (((what, ..), mut lines), more) in questions.into_iter().zip(lines_loaded).zip(lines_merged) {
        lines.extend(more);
        let title = format!("{what}, {blobs} blobs of 32 bytes, random, 1 thread");
        let row = Row { title, unit: "M/s", scale: 1e6, lines: sorted(lines), work: None };
        row.print(setting);
        goals.extend(goals_of(what, blobs, &row));
    }
    drop(raw);
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
