//! What was measured.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long requests took, by what they were.
#[derive(Debug, Default)]
pub struct Latencies(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    took: BTreeMap<&'static str, Vec<Duration>>,
    refused: BTreeMap<(&'static str, String), usize>,
}

fn at(sorted: &[Duration], percent: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
    let index = (sorted.len() as f64 * percent / 100.0) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |took| took.as_secs_f64() * 1000.0)
}

impl Latencies {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note(&self, what: &'static str, took: Duration) {
        self.lock().took.entry(what).or_default().push(took);
    }

    /// A request was not answered as it should have been.
    pub fn refuse(&self, what: &'static str, why: &str) {
        *self.lock().refused.entry((what, why.chars().take(120).collect())).or_default() += 1;
    }

    pub fn refused(&self) -> usize {
        self.lock().refused.values().sum()
    }

    /// Of all requests together, in milliseconds.
    pub fn percentile(&self, percent: f64) -> f64 {
        let mut all: Vec<Duration> = self.lock().took.values().flatten().copied().collect();
        all.sort_unstable();
        at(&all, percent)
    }

    pub fn print(&self) {
        let noted = self.lock();
        println!(
            "  {:<20} {:>8} {:>9} {:>9} {:>9} {:>9}",
            "milliseconds", "count", "50 %", "99 %", "99.9 %", "longest"
        );
        let all: Vec<Duration> = noted.took.values().flatten().copied().collect();
        let rows = noted.took.iter().map(|(what, took)| (*what, took.clone())).chain([("all", all)]);
        for (what, mut took) in rows {
            took.sort_unstable();
            let [a, b, c, d] = [50.0, 99.0, 99.9, 100.0].map(|percent| at(&took, percent));
            println!("  {what:<20} {:>8} {a:>9.2} {b:>9.2} {c:>9.2} {d:>9.2}", took.len());
        }
        for ((what, why), count) in &noted.refused {
            println!("  NOT SERVED: {what}: {why} ({count} times)");
        }
    }
}

/// The memory of a process that is its own, and not the page cache's.
#[derive(Debug)]
pub struct Memory {
    pid: Option<u32>,
    most: AtomicU64,
}

impl Memory {
    pub fn of(pid: Option<u32>) -> Self {
        Self { pid, most: AtomicU64::new(0) }
    }

    /// Looks again and again.
    pub fn watch(&self, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            self.most.fetch_max(self.now().unwrap_or(0), Relaxed);
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// In KiB.
    fn now(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// The most there was, in MiB.
    pub fn most(&self) -> u64 {
        self.most.load(Relaxed) >> 10
    }
}
