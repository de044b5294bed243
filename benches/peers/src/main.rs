//! The same work on strongroom, its peers and the raw limits, side by side, in one run. `docs/performance.md` says what
//! came out.

mod contender;
mod measure;
mod peers;
mod rows;

use std::path::PathBuf;

use clap::Parser;

use crate::measure::{Random, proc_self, written_to_disks};
use crate::rows::Setting;

#[derive(Parser)]
struct Arguments {
    /// The rows, separated by commas: put-large, put-small, put-small-16, get-small, exists, get-large, open, ingest.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "put-large,put-small,put-small-16,get-small,exists,get-large,open,ingest"
    )]
    rows: Vec<String>,
    /// How often each contender takes its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the stores are put: a directory on the disk to measure. A temporary one in the current directory by
    /// default.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How many blobs there are for `exists`.
    #[arg(long, default_value_t = 1_000_000)]
    blobs: u64,
    /// The size of the blob of `get-large` and `ingest`, in MiB.
    #[arg(long, default_value_t = 1024)]
    big_mib: usize,
    /// Small sizes and one round: to see that it runs.
    #[arg(long)]
    quick: bool,
    #[arg(long, hide = true)]
    child: Option<String>,
    #[arg(long, hide = true, default_value = "")]
    child_work: String,
    #[arg(long, hide = true, default_value_t = 0)]
    child_operations: u64,
}

fn main() {
    let mut arguments = Arguments::parse();
    let temporary = tempfile::tempdir_in(".").unwrap();
    let dir = arguments.dir.clone().unwrap_or_else(|| temporary.path().to_path_buf());
    if let Some(name) = &arguments.child {
        return child(name, &arguments, &dir);
    }
    if arguments.quick {
        (arguments.rounds, arguments.blobs, arguments.big_mib) = (1, 5_000, 32);
    }
    let setting = Setting { dir, rounds: arguments.rounds, quick: arguments.quick };
    for row in &arguments.rows {
        match row.as_str() {
            "put-large" => rows::put_large(&setting).print(),
            "put-small" => rows::put_small(&setting, 1).print(),
            "put-small-16" => rows::put_small(&setting, 16).print(),
            "get-small" => rows::get_small(&setting).print(),
            "exists" => rows::exists(&setting, arguments.blobs).iter().for_each(rows::Row::print),
            "get-large" => rows::get_large(&setting, arguments.big_mib),
            "open" => rows::open_store(&setting, arguments.blobs.min(100_000)),
            "ingest" => rows::ingest(&setting, arguments.big_mib as u64),
            other => eprintln!("no row {other}"),
        }
    }
}

/// Does one contender's work in a process of its own, and prints what was written to disk and the peak of memory.
fn child(name: &str, arguments: &Arguments, dir: &std::path::Path) {
    let (_, open) = peers::ALL.into_iter().find(|(known, _)| *known == name).unwrap();
    let contender = open(dir);
    let written = written_to_disks();
    let count = arguments.child_operations;
    match arguments.child_work.as_str() {
        "put-forever" => {
            let mut random = Random(u64::from(std::process::id()));
            std::thread::scope(|scope| {
                for _ in 0..16 {
                    let mut random = Random(random.next());
                    let contender = &contender;
                    scope.spawn(move || {
                        loop {
                            contender.put(&random.bytes(1024));
                        }
                    });
                }
            });
        }
        "put-large" => (0..count).for_each(|n| drop(contender.put(&Random(n).bytes(64 << 20)))),
        "put-small" => (0..count).for_each(|n| drop(contender.put(&Random(n).bytes(4096)))),
        _ => std::thread::scope(|scope| {
            for writer in 0..16 {
                let contender = &contender;
                scope.spawn(move || {
                    (0..count / 16).for_each(|n| drop(contender.put(&Random(writer << 32 | n).bytes(4096))))
                });
            }
        }),
    }
    drop(contender);
    println!("{} {}", written_to_disks().saturating_sub(written), proc_self("status", "VmHWM:"));
}
