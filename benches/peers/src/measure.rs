//! Timing, medians, and what the kernel counted.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Pseudo-random, incompressible content.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// The content with a number: the same each time, and another for each number.
pub fn content(number: u64, len: usize) -> Vec<u8> {
    Random(number.wrapping_mul(0xd134_2543_de82_ef95)).bytes(len)
}

/// How long something takes, in seconds.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
}

/// Median, least and greatest.
pub fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.as_slice() {
        [] => (f64::NAN, f64::NAN, f64::NAN),
        all => (all[all.len() / 2], all[0], all[all.len() - 1]),
    }
}

/// A number out of a file of `/proc/self`, by its label.
pub fn proc_self(file: &str, label: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_default();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or_default()
}

/// How many bytes all disks have written since the machine started. (`write_bytes` of `/proc/self/io` counts whole
/// folios, of which a part is written.) On a machine that does nothing else, the difference is what this process wrote.
pub fn written_to_disks() -> u64 {
    let stats = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let sectors = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = fields.get(2)?;
        let is_disk = Path::new("/sys/block").join(name).exists() && !name.starts_with("loop");
        fields.get(9).filter(|_| is_disk)?.parse::<u64>().ok()
    };
    stats.lines().filter_map(sectors).sum::<u64>() * 512
}

/// Memory of the process's own, in MiB: without what its allocator could give back, and without the page cache's.
pub fn own_mib() -> f64 {
    // SAFETY: it has no preconditions.
    unsafe { libc::malloc_trim(0) };
    proc_self("status", "RssAnon:") as f64 / 1024.0
}

/// Operations a second: over all of them in order, or those that are begun in so much time.
pub fn rate<T>(order: &[T], at_most: Duration, mut operation: impl FnMut(&T)) -> f64 {
    let start = Instant::now();
    let mut done = 0;
    for some in order.chunks(64) {
        some.iter().for_each(&mut operation);
        done += some.len();
        if start.elapsed() > at_most {
            break;
        }
    }
    done as f64 / start.elapsed().as_secs_f64()
}

/// Work that `--child` does in a process of its own, so that what it costs can be counted.
#[derive(Clone, Copy)]
pub struct Work {
    pub name: &'static str,
    pub writers: usize,
    pub operations: u64,
}

/// What an operation cost in a process of its own. What can't be counted here is missing.
#[derive(Default)]
pub struct Cost {
    pub calls: f64,
    pub syncs: f64,
    pub bytes_written: f64,
    pub peak_kib: u64,
}

/// Runs `--child` below a tracer, with so many operations. Returns what it printed, and what the tracer wrote.
fn traced(tracer: &[&str], dir: &Path, name: &str, work: Work, operations: u64) -> Option<(Vec<u64>, String)> {
    let place = tempfile::tempdir_in(dir).ok()?;
    let summary = tempfile::NamedTempFile::new().ok()?;
    let path = summary.path().to_str()?;
    let child = Command::new(tracer.first()?)
        .args(tracer.iter().skip(1).map(|argument| argument.replace("SUMMARY", path)))
        .arg(std::env::current_exe().ok()?)
        .args(["--child", name, "--child-work", work.name, "--child-writers", &work.writers.to_string()])
        .args(["--child-operations", &operations.to_string(), "--dir"])
        .arg(place.path())
        .output()
        .ok()?;
    let printed = String::from_utf8(child.stdout).ok()?;
    let numbers = printed.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    Some((numbers, std::fs::read_to_string(path).ok()?))
}

/// What each operation costs: what is counted with all of them, less what is counted with none.
pub fn cost(dir: &Path, name: &str, work: Work) -> Option<Cost> {
    let count = |operations: u64| -> Option<[u64; 4]> {
        let strace = ["strace", "-f", "-c", "-o", "SUMMARY"];
        let (numbers, summary) = traced(&strace, dir, name, work, operations)?;
        let (mut calls, mut syncs) = (0, 0);
        for line in summary.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(count), Some(call)) = (fields.get(3).and_then(|n| n.parse::<u64>().ok()), fields.last()) else {
                continue;
            };
            if *call != "total" {
                calls += count;
                syncs += if matches!(*call, "fsync" | "fdatasync" | "msync") { count } else { 0 };
            }
        }
        Some([calls, syncs, *numbers.first()?, *numbers.get(1)?])
    };
    let (none, all) = (count(0)?, count(work.operations)?);
    let each = |which: usize| all[which].saturating_sub(none[which]) as f64 / work.operations as f64;
    Some(Cost { calls: each(0), syncs: each(1), bytes_written: each(2), peak_kib: all[3] })
}

/// Instructions for each operation, as valgrind counts them: without instructions for SHA-256, which it does not know.
pub fn instructions(dir: &Path, name: &str, work: Work) -> Option<f64> {
    let count = |operations: u64| -> Option<u64> {
        let valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--log-file=SUMMARY"];
        let (_, log) = traced(&valgrind, dir, name, work, operations)?;
        log.lines().find_map(|line| line.split_once("Collected :"))?.1.trim().parse().ok()
    };
    let (none, all) = (count(0)?, count(work.operations)?);
    Some(all.saturating_sub(none) as f64 / work.operations as f64)
}
