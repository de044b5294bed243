//! The same pushes and pulls by the distribution API on the example registry, zot and CNCF distribution, side by side.
//!
//! ```console
//! $ cargo build --release -p strongroom-registry
//! $ cd benches/peers/registry
//! $ cargo run --release -- --strongroom ../../../target/release/registry --zot ZOT --distribution REGISTRY
//! ```
//! zot is built from its source by `CGO_ENABLED=0 go build ./cmd/zot`, distribution 2.8 by `go build ./cmd/registry`.
//! Any of them may be left out. All are started on 127.0.0.1, with nobody to log in, and ended. zot runs with
//! `commit: true`, without which it syncs nothing, and without deduplication.
//!
//! What is measured, in each round of each server by turns:
//! - blobs of 4 KiB, each new, by `POST` and `PUT` on a connection that is kept, from one client and from 16: a second
//! - the processor time that the server takes for a blob of 256 MiB, four times: pushed by `POST` and `PUT`, and pulled
//!
//! Beside them: 4 KiB overwritten and synced by fdatasync, and `Store::put` of 4 KiB, each from one thread. Only
//! strongroom and zot sync what they acknowledge.

mod client;
mod server;

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::Client;
use server::Server;
use strongroom::{Algorithm, Digest, Options};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SMALL: usize = 4 << 10;
const LARGE: usize = 256 << 20;
const CLIENTS: usize = 16;

/// For how long blobs are pushed.
const TIME: Duration = Duration::from_secs(1);

/// Seeds of contents: none is pushed twice.
static SEED: AtomicU64 = AtomicU64::new(1);

/// What is measured, in the order of the columns.
const ROWS: [&str; 4] =
    ["push 4 KiB, 1 client, a second", "push 4 KiB, 16 clients, a second", "CPU s a pushed GB", "CPU s a pulled GB"];

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    std::fs::create_dir_all(&arguments.dir)?;
    let measured = measure(&arguments);
    std::fs::remove_dir_all(&arguments.dir)?;
    let (raw, servers) = measured?;
    println!("\n| median (least to most) of {} rounds | |\n|---|---|", arguments.rounds);
    for (name, rates) in ["4 KiB overwritten + fdatasync, a second", "Store::put of 4 KiB, a second"].iter().zip(raw) {
        println!("| {name} | {} |", Spread::of(rates));
    }
    for (name, rounds) in servers {
        for (row, values) in ROWS.iter().zip(columns(&rounds)) {
            println!("| {name}: {row} | {} |", Spread::of(values));
        }
    }
    Ok(())
}

type Rounds = Vec<[f64; 4]>;

fn measure(arguments: &Arguments) -> Result<([Vec<f64>; 2], Vec<(&'static str, Rounds)>)> {
    let dir = arguments.dir.canonicalize()?;
    let (mut raw, mut results) = ([Vec::new(), Vec::new()], Vec::new());
    let servers = arguments.servers.iter().map(|(kind, program)| Server::start(kind, program, &dir));
    let servers = servers.collect::<Result<Vec<_>>>()?;
    for server in &servers {
        results.push((server.name, Vec::new()));
    }
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    let mut large = content(seed, LARGE);
    for round in 1..=arguments.rounds {
        raw[0].push(overwrite(&dir)?);
        raw[1].push(put(&dir.join("store"))?);
        println!("round {round}: overwrite {:.0}/s, put {:.0}/s", raw[0][raw[0].len() - 1], raw[1][raw[1].len() - 1]);
        for (server, (name, rounds)) in servers.iter().zip(&mut results) {
            let (one, many) = (push_small(server, 1)?, push_small(server, CLIENTS)?);
            let (pushed, pulled) = if arguments.small { (f64::NAN, f64::NAN) } else { transfer(server, &mut large)? };
            println!("round {round}: {name}: {one:.0}/s, {many:.0}/s, {pushed:.2} s, {pulled:.2} s");
            rounds.push([one, many, pushed, pulled]);
        }
    }
    Ok((raw, results))
}

/// Pushes new blobs from so many clients, and returns how many a second.
fn push_small(server: &Server, clients: usize) -> Result<f64> {
    let push = || -> Result<u64> {
        let mut client = Client::connect(server.port)?;
        let (mut pushed, begun) = (0, Instant::now());
        while begun.elapsed() < TIME {
            let content = content(SEED.fetch_add(1, Ordering::Relaxed), SMALL);
            client.push("bench/app", &content, &Digest::of(Algorithm::Sha256, &content).to_string())?;
            pushed += 1;
        }
        Ok(pushed)
    };
    let begun = Instant::now();
    let pushed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(push)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a client has panicked")?).sum::<Result<u64>>()
    })?;
    Ok(pushed as f64 / begun.elapsed().as_secs_f64())
}

/// Pushes and pulls four blobs, and returns what processor time a GB takes the server each way.
fn transfer(server: &Server, large: &mut [u8]) -> Result<(f64, f64)> {
    let (mut pushed, mut pulled, mut client) = (0.0, 0.0, Client::connect(server.port)?);
    for _ in 0..4 {
        large[..8].copy_from_slice(&SEED.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let digest = Digest::of(Algorithm::Sha256, &*large).to_string();
        let begun = server.cpu()?;
        client.push("bench/app", large, &digest)?;
        let between = server.cpu()?;
        client.pull("bench/app", &digest, large.len())?;
        pushed += between - begun;
        pulled += server.cpu()? - between;
        client.delete("bench/app", &digest)?; // where it may be
    }
    let gb = (4 * LARGE) as f64 / 1e9;
    Ok((pushed / gb, pulled / gb))
}

/// How often 4 KiB are overwritten and synced, a second.
fn overwrite(dir: &Path) -> Result<f64> {
    let path = dir.join("raw");
    std::fs::write(&path, vec![0; 16 << 20])?;
    let (file, block) = (File::options().write(true).open(&path)?, content(0, SMALL));
    file.sync_all()?;
    let (begun, mut times) = (Instant::now(), 0);
    while begun.elapsed() < TIME {
        file.write_all_at(&block, times % 4096 * SMALL as u64)?;
        file.sync_data()?;
        times += 1;
    }
    Ok(times as f64 / begun.elapsed().as_secs_f64())
}

/// How often 4 KiB are put, a second.
fn put(dir: &Path) -> Result<f64> {
    let store = Options::new().create(true).open(dir)?;
    let (begun, mut times) = (Instant::now(), 0);
    while begun.elapsed() < TIME {
        store.put(content(SEED.fetch_add(1, Ordering::Relaxed), SMALL), Algorithm::Sha256)?;
        times += 1;
    }
    Ok(times as f64 / begun.elapsed().as_secs_f64())
}

/// Bytes that nobody compresses, like those of no other seed.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len / 8).flat_map(|_| next()).collect()
}

fn columns(rounds: &Rounds) -> [Vec<f64>; 4] {
    std::array::from_fn(|column| rounds.iter().map(|round| round[column]).collect())
}

struct Spread(f64, f64, f64);

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values[values.len() / 2], values[0], values[values.len() - 1])
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = if self.0 < 100.0 { 2 } else { 0 };
        write!(f, "{:.digits$} ({:.digits$} to {:.digits$})", self.0, self.1, self.2)
    }
}

struct Arguments {
    servers: Vec<(String, PathBuf)>,
    rounds: usize,
    /// Whether only small blobs are pushed.
    small: bool,
    dir: PathBuf,
}

impl Arguments {
    fn parse() -> Result<Self> {
        let mut arguments = std::env::args().skip(1);
        let dir = PathBuf::from("target/registry-peers");
        let mut own = Self { servers: Vec::new(), rounds: 5, small: false, dir };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} takes a value"));
            match argument.as_str() {
                "--strongroom" | "--zot" | "--distribution" => {
                    own.servers.push((argument[2..].to_owned(), PathBuf::from(value()?).canonicalize()?));
                }
                "--rounds" => own.rounds = value()?.parse::<usize>()?.max(1),
                "--small" => own.small = true,
                "--dir" => own.dir = value()?.into(),
                _ => return Err(format!("unknown: {argument}; see the beginning of the program").into()),
            }
        }
        Ok(own)
    }
}
