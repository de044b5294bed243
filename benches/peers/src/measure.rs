//! Timing, medians, and what the kernel counted.

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
        let is_disk = std::path::Path::new("/sys/block").join(name).exists() && !name.starts_with("loop");
        fields.get(9).filter(|_| is_disk)?.parse::<u64>().ok()
    };
    stats.lines().filter_map(sectors).sum::<u64>() * 512
}

/// What one contender cost the kernel in a process of its own.
#[derive(Default)]
pub struct Cost {
    pub calls: f64,
    pub syncs: f64,
    pub bytes_written: f64,
    pub peak_kib: u64,
}

/// Runs `--child` for a contender, twice: with no operations, and with `operations`. The difference is theirs.
pub fn cost(name: &str, work: &str, operations: u64) -> Option<Cost> {
    let traced = |operations: u64| -> Option<(u64, u64, u64, u64)> {
        let summary = tempfile::NamedTempFile::new().ok()?;
        let child = Command::new("strace")
            .args(["-f", "-c", "-o"])
            .arg(summary.path())
            .arg(std::env::current_exe().ok()?)
            .args(["--child", name, "--child-work", work, "--child-operations", &operations.to_string()])
            .output()
            .ok()?;
        let printed = String::from_utf8(child.stdout).ok()?;
        let mut numbers = printed.split_whitespace().filter_map(|number| number.parse().ok());
        let (bytes, peak) = (numbers.next()?, numbers.next()?);
        let (mut calls, mut syncs) = (0, 0);
        for line in std::fs::read_to_string(summary.path()).ok()?.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(count), Some(call)) = (fields.get(3).and_then(|n| n.parse::<u64>().ok()), fields.last()) else {
                continue;
            };
            if *call != "total" {
                calls += count;
                syncs += if matches!(*call, "fsync" | "fdatasync") { count } else { 0 };
            }
        }
        Some((calls, syncs, bytes, peak))
    };
    let (none, all) = (traced(0)?, traced(operations)?);
    let each = |all: u64, none: u64| all.saturating_sub(none) as f64 / operations as f64;
    Some(Cost {
        calls: each(all.0, none.0),
        syncs: each(all.1, none.1),
        bytes_written: each(all.2, none.2),
        peak_kib: all.3,
    })
}
