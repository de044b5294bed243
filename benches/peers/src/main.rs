//! The same work on strongroom, its peers and the raw limits, side by side, in one run. `docs/performance.md` says what
//! came out.

mod contender;
mod measure;
mod peers;
mod rows;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use crate::contender::Contender;
use crate::measure::{Random, content, proc_self, written_to_disks};
use crate::rows::{Goal, Setting};

/// All rows, in the order in which they are measured.
const ROWS: &str = "log-bytes,put-small,put-small-16,put-small-64,put-batch,get-small,lookups,get-large,\
                    get-encrypted,open,put-large,ingest";

/// The peers of the quick form: those that are durable.
const QUICK: &str = "strongroom,redb,lmdb,fjall,iroh-blobs,files";

#[derive(Parser)]
struct Arguments {
    /// The rows, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = ROWS)]
    rows: Vec<String>,
    /// Who takes part, separated by commas; all by default, and in the quick form all that are durable.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// How often each takes its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the stores are put: a directory on the disk to measure. A temporary one in the current directory by
    /// default.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How many blobs there are for `lookups`, separated by commas; peers take part up to a million of them.
    #[arg(long, value_delimiter = ',', default_value = "100000,1000000,10000000")]
    blobs: Vec<u64>,
    /// The size of the blob of `get-large` and `ingest`, in MiB.
    #[arg(long, default_value_t = 1024)]
    big_mib: usize,
    /// All rows in five minutes: turns of a quarter of the time, 512 MiB and a million blobs at most, peers among
    /// 100,000.
    #[arg(long)]
    quick: bool,
    /// Do not count system calls, syncs and bytes written.
    #[arg(long)]
    no_costs: bool,
    /// Count instructions too, with valgrind.
    #[arg(long)]
    instructions: bool,
    #[arg(long, hide = true)]
    child: Option<String>,
    #[arg(long, hide = true, default_value = "")]
    child_work: String,
    #[arg(long, hide = true, default_value_t = 0)]
    child_operations: u64,
    #[arg(long, hide = true, default_value_t = 1)]
    child_writers: usize,
}

fn main() {
    let mut arguments = Arguments::parse();
    if let (Some(name), Some(dir)) = (&arguments.child, &arguments.dir) {
        return child(name, &arguments, dir);
    }
    let temporary = tempfile::tempdir_in(arguments.dir.as_deref().unwrap_or(Path::new("."))).unwrap();
    if arguments.quick {
        arguments.blobs.retain(|blobs| *blobs <= 1_000_000);
        arguments.big_mib = arguments.big_mib.min(512);
    }
    if arguments.peers.is_empty() {
        let all = || peers::ALL.iter().map(|(name, _)| name.to_string()).collect();
        arguments.peers = if arguments.quick { QUICK.split(',').map(String::from).collect() } else { all() };
    }
    let setting = Setting {
        dir: temporary.path().to_path_buf(),
        rounds: arguments.rounds,
        turn: Duration::from_millis(if arguments.quick { 250 } else { 1000 }),
        names: arguments.peers,
        costs: !arguments.no_costs,
        instructions: arguments.instructions,
    };
    let peers_up_to = if arguments.quick { 100_000 } else { 1_000_000 };
    let mut goals = Vec::new();
    for row in &arguments.rows {
        let start = std::time::Instant::now();
        match row.as_str() {
            "put-large" => goals.extend(rows::put_large(&setting)),
            "put-small" => goals.extend(rows::put_small(&setting, 1)),
            "put-small-16" => goals.extend(rows::put_small(&setting, 16)),
            "put-small-64" => goals.extend(rows::put_small(&setting, 64)),
            "put-batch" => goals.extend(rows::put_batch(&setting)),
            "get-small" => goals.extend(rows::get_small(&setting, 100_000)),
            "lookups" => {
                for &blobs in &arguments.blobs {
                    goals.extend(rows::lookups(&setting, blobs, blobs <= peers_up_to));
                }
            }
            "get-large" => goals.extend(rows::get_large(&setting, arguments.big_mib)),
            "get-encrypted" => goals.extend(rows::get_encrypted(&setting)),
            "open" => goals.extend(rows::open_store(&setting, 100_000)),
            "log-bytes" => goals.extend(rows::log_bytes(&setting)),
            "ingest" => goals.extend(rows::ingest(&setting, arguments.big_mib as u64)),
            other => eprintln!("no row {other}"),
        }
        eprintln!("{row}: {:.0} s", start.elapsed().as_secs_f64());
    }
    Goal::print_all(&goals);
}

/// Does one contender's work in a process of its own, and prints what was written to disk and the peak of memory.
fn child(name: &str, arguments: &Arguments, dir: &Path) {
    let Arguments { child_operations: count, child_writers: writers, .. } = *arguments;
    if arguments.child_work == "fill-and-wait" {
        rows::fill_and_wait(dir, count);
    }
    let (_, open) = peers::ALL.into_iter().find(|(known, _)| *known == name).unwrap();
    let contender = open(dir);
    let written = written_to_disks();
    match arguments.child_work.as_str() {
        "put-large" => (0..count).for_each(|n| contender.put(&content(n, rows::LARGE))),
        "put" => _ = rows::put_from(&*contender, writers, 0, Duration::MAX, count / writers as u64),
        "put-batch" => _ = rows::put_together(&*contender, 0, Duration::MAX, count / rows::TOGETHER as u64),
        "get" => get(&*contender, count),
        other => panic!("no work {other}"),
    }
    drop(contender);
    println!("{} {}", written_to_disks().saturating_sub(written), proc_self("status", "VmHWM:"));
}

/// Gets so many out of a thousand, all of which were read before.
fn get(contender: &dyn Contender, count: u64) {
    let contents: Vec<Vec<u8>> = (0..1000).map(|number| content(number, rows::SMALL)).collect();
    contender.load(&mut contents.iter().cloned());
    let keys: Vec<_> = contents.iter().map(|content| contender.key(content)).collect();
    let get = |key: &Vec<u8>| assert_eq!(contender.get(key), rows::SMALL);
    keys.iter().for_each(get);
    let mut random = Random(count);
    (0..count).map(|_| &keys[random.next() as usize % keys.len()]).for_each(get);
}
