//! What many key domains cost: `cargo bench --bench domains [ROUNDS]`. The same puts in stores with 1, 32 and 1,023
//! domains beside the default one, by turns. Prints medians with their spread, as `docs/performance.md` reports them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a benchmark")]

mod content;
mod measure;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use content::random;
use measure::{anonymous_mib, size};
use strongroom::keys::{LocalKey, SecretKey};
use strongroom::registry::{Repository, RepositorySettings};
use strongroom::{Algorithm, Digest, Durability, Options, Store};

const DOMAINS: [usize; 3] = [1, 32, 1023];
/// So many are put in a round, the same number in each domain.
const BLOBS: usize = 16 << 10;

/// A store with so many domains, and what it was asked so far.
struct Lab {
    path: PathBuf,
    options: Options,
    store: Store,
    repositories: Vec<Repository>,
    stored: Vec<Digest>,
    state: u64,
    times: Times,
}

/// Milliseconds of each round.
#[derive(Default)]
struct Times {
    create: Vec<f64>,
    fold: Vec<f64>,
    open: Vec<f64>,
    hits: Vec<f64>,
}

fn milliseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

impl Lab {
    fn new(path: PathBuf, domains: usize) -> Self {
        let key = Arc::new(LocalKey::new(SecretKey::generate().unwrap()));
        let options = Options::new().create(true).key_provider(key).durability(Durability::Relaxed);
        let store = options.clone().open(&path).unwrap();
        let mut times = Times::default();
        for n in 0..domains {
            let domain = format!("domain-{n}").parse().unwrap();
            times.create.push(milliseconds(|| store.create_domain(&domain, None).unwrap()));
            store.create_repository(&name(n), RepositorySettings::new().domain(domain)).unwrap();
        }
        let repositories = (0..domains).map(|n| store.repository(&name(n)).unwrap()).collect();
        Self { path, options, store, repositories, stored: Vec::new(), state: 1, times }
    }

    fn round(&mut self) {
        for n in 0..BLOBS {
            let content = random(&mut self.state, 32);
            let repository = &self.repositories[n % self.repositories.len()];
            self.stored.push(repository.put(content, Algorithm::Blake3).unwrap().digest);
        }
        self.times.fold.push(milliseconds(|| self.store.checkpoint().unwrap()));
        self.store.clone().close().unwrap();
        let Self { options, path, times, .. } = self;
        times.open.push(milliseconds(|| self.store = options.clone().open(path).unwrap()));
        self.repositories = (0..self.repositories.len()).map(|n| self.store.repository(&name(n)).unwrap()).collect();
        let hits = milliseconds(|| {
            for n in (0..BLOBS).map(|n| n * 7919 % self.stored.len()) {
                self.repositories[n % BLOBS % self.repositories.len()].stat(&self.stored[n]).unwrap();
            }
        });
        self.times.hits.push(BLOBS as f64 / hits);
    }
}

fn name(n: usize) -> strongroom::registry::RepositoryName {
    format!("of-{n}/application").parse().unwrap()
}

/// How many files in a folder this process holds open.
fn held(dir: &Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| std::fs::read_link(entry.path()));
    links.flatten().filter(|to| to.starts_with(dir)).count()
}

/// The median, with the least and the most.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.1} ({:.1} to {:.1})", values[values.len() / 2], values[0], values[values.len() - 1])
}

fn main() {
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(9);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut labs = DOMAINS.map(|domains| Lab::new(dir.path().join(domains.to_string()), domains));
    (0..rounds).for_each(|_| labs.iter_mut().for_each(Lab::round));
    let columns = ["domains", "create one, ms", "fold, ms", "open, ms", "stat, thousands/s", "files of runs"];
    println!("puts in a fold: {BLOBS}\n\n| {} | descriptors | runs, MiB |", columns.join(" | "));
    println!("|---|---|---|---|---|---|---|---|");
    for (domains, lab) in DOMAINS.into_iter().zip(&mut labs) {
        let Times { create, fold, open, hits } = std::mem::take(&mut lab.times);
        let runs = lab.path.join("runs");
        let files = std::fs::read_dir(&runs).unwrap().flatten().filter(|file| file.file_name() != "LIST").count();
        println!(
            "| {domains} | {} | {} | {} | {} | {files} | {} | {} |",
            spread(create),
            spread(fold),
            spread(open),
            spread(hits),
            held(&lab.path),
            size(&runs) >> 20,
        );
    }
    println!("\nmemory of all three: {} MiB", anonymous_mib());
}
