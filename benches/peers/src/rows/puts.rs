//! Durable puts of 4 KiB: one by one from some threads, and many at a time from one.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Goal, Row, Setting, Turn, turn};
use crate::contender::Contender;
use crate::measure::{Random, Work};

/// The size of what is put.
pub const LEN: usize = 4096;

/// How many are put together.
pub const TOGETHER: usize = 64;

/// A file full of zeros that have been written, so that what is written in their place changes no metadata.
struct Zeros {
    file: fs::File,
    len: usize,
}

impl Zeros {
    fn new(setting: &Setting) -> Self {
        let (file, len) = (tempfile::tempfile_in(&setting.dir).unwrap(), 32 << 20);
        file.write_all_at(&vec![0; len], 0).unwrap();
        file.sync_all().unwrap();
        Self { file, len }
    }

    /// The rate, in pieces of 4 KiB, of overwriting so many at a time from front to back, with an fdatasync each time.
    fn overwrite(&self, at_a_time: usize, how_long: Duration) -> f64 {
        let content = Random(9).bytes(at_a_time * LEN);
        let (start, mut writes) = (Instant::now(), 0);
        while start.elapsed() < how_long {
            let at = writes * content.len() % (self.len - content.len());
            self.file.write_all_at(&content, at as u64).unwrap();
            self.file.sync_data().unwrap();
            writes += 1;
        }
        (writes * at_a_time) as f64 / start.elapsed().as_secs_f64()
    }
}

/// The limits: one piece at a time, and as many as are under way at the same time.
fn limits<'a>(zeros: &'a Zeros, at_a_time: usize, how_long: Duration) -> Vec<Turn<'a>> {
    let several = (at_a_time > 1).then_some(at_a_time);
    let limit = |n: usize| {
        let name = format!("limit: {n} × 4 KiB overwritten in one write + fdatasync");
        turn(name, move |_| zeros.overwrite(n, how_long))
    };
    [1].into_iter().chain(several).map(limit).collect()
}

/// Makes content that was not there before.
fn stamp(content: &mut [u8], writer: usize, number: u64) {
    content[..8].copy_from_slice(&(writer as u64).to_le_bytes());
    content[8..16].copy_from_slice(&number.to_le_bytes());
}

/// Puts from some threads until the time is over, or so many each. Returns how many.
pub fn put_from(contender: &dyn Contender, writers: usize, round: usize, how_long: Duration, most: u64) -> u64 {
    let (start, put) = (Instant::now(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let put = &put;
            scope.spawn(move || {
                let mut content = Random((round * writers + writer) as u64).bytes(LEN);
                let mut number = 0;
                while number < most && start.elapsed() < how_long {
                    stamp(&mut content, round * writers + writer, number);
                    contender.put(&content);
                    number += 1;
                }
                put.fetch_add(number, Ordering::Relaxed);
            });
        }
    });
    put.into_inner()
}

/// Puts many at a time until the time is over, or so many times. Returns how many.
pub fn put_together(contender: &dyn Contender, round: usize, how_long: Duration, most: u64) -> u64 {
    let start = Instant::now();
    let mut contents: Vec<Vec<u8>> = (0..TOGETHER).map(|n| Random(n as u64).bytes(LEN)).collect();
    let mut times = 0;
    while times < most && start.elapsed() < how_long {
        contents.iter_mut().zip(0..).for_each(|(content, n)| stamp(content, round * TOGETHER + n, times));
        contender.put_many(&contents);
        times += 1;
    }
    times * TOGETHER as u64
}

fn row(
    setting: &Setting,
    title: String,
    at_a_time: usize,
    work: Work,
    put: impl Fn(&dyn Contender, usize) -> u64,
) -> Row {
    let opened = setting.open_all(&[]);
    let zeros = Zeros::new(setting);
    let mut turns = limits(&zeros, at_a_time, setting.turn);
    for opened in &opened {
        turns.push(turn(opened.label(), |round| {
            let start = Instant::now();
            put(&*opened.contender, round) as f64 / start.elapsed().as_secs_f64()
        }));
    }
    Row { title, unit: "put/s", scale: 1.0, lines: setting.in_turns(turns), work: Some(work) }
}

/// One by one, from some threads.
pub fn put_small(setting: &Setting, writers: usize) -> Vec<Goal> {
    let title = format!("put 4 KiB, durable, {writers} writer{}", if writers > 1 { "s" } else { "" });
    let work = Work { name: "put", writers, operations: if writers == 1 { 200 } else { 1280 } };
    let put = |contender: &dyn Contender, round| put_from(contender, writers, round, setting.turn, u64::MAX);
    let row = row(setting, title.clone(), writers, work, put);
    row.print(setting);
    let to_limit = |limit| row.to_limit("strongroom", limit);
    match writers {
        1 => vec![Goal::at_least(format!("{title} ÷ limit"), 0.85, &to_limit(0))],
        16 => vec![
            Goal::at_least(format!("{title} ÷ one overwrite of 4 KiB"), 6.0, &to_limit(0)),
            Goal::at_least(format!("{title} ÷ limit for 16 × 4 KiB"), 0.75, &to_limit(1)),
        ],
        _ => vec![Goal::at_least(format!("{title} ÷ limit for {writers} × 4 KiB"), 0.9, &to_limit(1))],
    }
}

/// Many at a time, from one thread: `put_many`, and what peers have for it.
pub fn put_batch(setting: &Setting) -> Vec<Goal> {
    let title = format!("put {TOGETHER} × 4 KiB at a time, durable, 1 writer");
    let work = Work { name: "put-batch", writers: 1, operations: 20 * TOGETHER as u64 };
    let put = |contender: &dyn Contender, round| put_together(contender, round, setting.turn, u64::MAX);
    let row = row(setting, title.clone(), TOGETHER, work, put);
    row.print(setting);
    vec![Goal::at_least(format!("{title} ÷ limit for {TOGETHER} × 4 KiB"), 0.9, &row.to_limit("strongroom", 1))]
}
