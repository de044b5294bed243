//! Opening a store, and what the log has around a small put.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use strongroom::{Algorithm, Store};

use super::{Goal, Setting, short};
use crate::contender::Contender as _;
use crate::measure::{Random, content, seconds, spread};
use crate::peers::Strongroom;

/// How long it takes to open a store in each round, in ms.
pub fn times(setting: &Setting, mut prepare: impl FnMut() -> PathBuf) -> Vec<f64> {
    let mut time = |_| {
        let path = prepare();
        let mut store = None;
        let took = seconds(|| store = Some(Store::open(&path).unwrap()));
        store.unwrap().close().unwrap();
        took * 1e3
    };
    (0..setting.rounds).map(&mut time).collect()
}

/// The length of the blobs in a store that is opened.
const LEN: usize = 1024;

/// What a child does that is killed: fills a store and says so, with all facts in the log and in memory.
pub fn fill_and_wait(dir: &Path, count: u64) {
    let options = strongroom::Options::new().create(true).memtable_size(1 << 30);
    let store = Strongroom { store: options.open(Strongroom::path(dir)).unwrap() };
    store.load(&mut (0..count).map(|number| content(number, LEN)));
    println!("{}", store.store.health().unfolded_facts);
    loop {
        std::thread::park();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.path() {
            dir if dir.is_dir() => copy(&dir, &to),
            file => _ = fs::copy(file, to).unwrap(),
        }
    }
}

/// After `kill -9` with all facts in no run yet, and after a clean close.
pub fn open_store(setting: &Setting, count: u64) -> Vec<Goal> {
    let dir = setting.temporary();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--child", "strongroom", "--child-work", "fill-and-wait"])
        .args(["--child-operations", &count.to_string(), "--dir"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut unfolded = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut unfolded).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let (killed, opened) = (Strongroom::path(dir.path()), dir.path().join("copy"));
    let after_kill = times(setting, || {
        // What an earlier round has opened is clean now.
        let _ = fs::remove_dir_all(&opened);
        copy(&killed, &opened);
        opened.clone()
    });
    let clean = times(setting, || opened.clone());
    println!("\n## open a store of {count} blobs of {LEN} bytes\n\n| after | ms | spread |\n|---|---|---|");
    let kill = format!("kill -9, with {} facts in no run", unfolded.trim());
    for (after, times) in [(&*kill, &after_kill), ("a clean close", &clean)] {
        let (median, least, most) = spread(times);
        println!("| {after} | {} | {} – {} |", short(median), short(least), short(most));
    }
    vec![
        Goal::at_most(format!("open after kill -9, {count} blobs unfolded"), 40.0, "ms", &after_kill),
        Goal::at_most(format!("open after a clean close, {count} blobs"), 1.3, "ms", &clean),
    ]
}

/// How far the files in a folder are written: up to the last byte that is no zero.
fn written(dir: &Path) -> u64 {
    let of = |path: PathBuf| match path.is_dir() {
        true => written(&path),
        false => fs::read(path).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1),
    };
    fs::read_dir(dir).unwrap().map(|entry| of(entry.unwrap().path())).sum()
}

/// By how many bytes the log grows for a put of 32 bytes, beyond those.
pub fn log_bytes(setting: &Setting) -> Vec<Goal> {
    const LEN: usize = 32;
    const COUNT: usize = 1024;
    let dir = setting.temporary();
    let store = Strongroom::open(dir.path()).store;
    let log = Strongroom::path(dir.path()).join("log");
    let mut random = Random(7);
    let mut around = |together: usize| {
        let before = written(&log);
        for _ in 0..COUNT / together {
            let contents: Vec<_> = (0..together).map(|_| (random.bytes(LEN), Algorithm::Sha256)).collect();
            store.put_many(contents).unwrap().into_iter().for_each(|stored| _ = stored.unwrap());
        }
        (written(&log) - before) as f64 / COUNT as f64 - LEN as f64
    };
    let (alone, together) = (around(1), around(64));
    println!("\n## log bytes around a put of {LEN} bytes\n\n| | bytes |\n|---|---|");
    println!("| alone | {alone:.0} |\n| 64 by `put_many` | {together:.0} |");
    vec![
        Goal::at_most("log bytes around 32 B, alone", 250.0, "B", &[alone]),
        Goal::at_most("log bytes around 32 B, 64 by put_many", 120.0, "B", &[together]),
    ]
}
