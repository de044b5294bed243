//! The files of an encrypted store, taken apart as far as one can without its keys.

use std::ops::Range;
use std::path::{Path, PathBuf};

use strongroom::vfs::SimVfs;

fn number(bytes: &[u8], at: usize, len: usize) -> usize {
    bytes[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The files with an ending, sorted.
pub fn files(disk: &SimVfs, ending: &str) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|path| path.extension().is_some_and(|found| found == ending)).collect()
}

/// A record in a log file.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it begins and ends.
    pub whole: Range<usize>,
    /// Its frame, its operations and facts, and what pads them.
    pub frame: Range<usize>,
    pub body: Range<usize>,
}

/// The records of a log file.
pub fn records(log: &[u8]) -> Vec<Record> {
    let (mut records, mut at) = (Vec::new(), 512);
    while log.get(at..at + 4) == Some(b"SRrc") {
        let [ops, facts, frame] = [36, 40, 44].map(|field| number(log, at + field, 4));
        let tag = if number(log, at + 6, 2) == 0 { 0 } else { 16 };
        let frame = at + 64..at + 64 + frame;
        let body = frame.end..frame.end + ops + facts + tag;
        let end = body.end.next_multiple_of(64);
        records.push(Record { whole: at..end, frame, body });
        at = end;
    }
    records
}

/// Where the pages of a run begin.
pub const RUN_PAGES: usize = 4096;

/// The runs in a file of runs.
pub fn runs_in(file: &[u8]) -> Vec<Range<usize>> {
    let begins = (0..file.len()).step_by(4096).filter(|at| file[*at..].starts_with(b"SRrun\0\0\0"));
    let starts: Vec<usize> = begins.chain([file.len()]).collect();
    let run = |pair: &[usize]| {
        let part = &file[pair[0]..pair[1]];
        let trailer = part.windows(4).rposition(|bytes| bytes == b"SRrt").expect("a trailer");
        pair[0]..pair[0] + trailer + 8
    };
    starts.windows(2).map(run).collect()
}

/// How many pages a run has, where its table of tags begins and where its footer does.
pub fn run_parts(run: &[u8]) -> (usize, usize, usize) {
    let footer = number(run, run.len() - 24, 8);
    let pages = (footer - RUN_PAGES) / (4096 + 16);
    (pages, RUN_PAGES + pages * 4096, footer)
}

/// What stands at a place of a file, in words.
pub fn region(path: &Path, bytes: &[u8], at: usize) -> &'static str {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("log") => log_region(bytes, at),
        Some("run") => {
            let run = runs_in(bytes).into_iter().find(|run| run.contains(&at));
            let Some(run) = run else { return "run: zeros between runs" };
            let (_, table, footer) = run_parts(&bytes[run.clone()]);
            match at - run.start {
                0..512 => "run: header",
                512..RUN_PAGES => "run: zeros behind the header",
                at if at < table => "run: page",
                at if at < footer => "run: tag of a page",
                _ => "run: footer, trailer",
            }
        }
        Some("seg") => segment_region(bytes, at),
        _ => "FORMAT, LIST",
    }
}

fn log_region(log: &[u8], at: usize) -> &'static str {
    if at < 512 {
        return "log: header";
    }
    let Some(record) = records(log).into_iter().find(|record| record.whole.contains(&at)) else { return "log: rest" };
    let Record { whole, frame, body, .. } = record;
    match at {
        _ if at < whole.start + 64 => "log: header of a record",
        _ if at < frame.start + 128 && frame.contains(&at) => "log: descriptor of a frame",
        _ if frame.contains(&at) => {
            // Zeros, at most seven, in front of the table; the frames of the tests have few blocks.
            let before_a_table = (1..=2).any(|blocks| {
                let table = frame.end - 24 * blocks;
                (table.saturating_sub(7)..table).contains(&at) && log[at..table].iter().all(|byte| *byte == 0)
            });
            if before_a_table { "log: padding of a frame" } else { "log: content of a frame" }
        }
        _ if body.contains(&at) => "log: operations and facts",
        _ => "log: padding of a record",
    }
}

fn segment_region(segment: &[u8], at: usize) -> &'static str {
    if at < 512 {
        return "segment: header";
    }
    let trailer = segment.len().saturating_sub(24);
    let is_whole = segment.get(trailer + 16..trailer + 20) == Some(b"SRft");
    if at < if is_whole { 3968 } else { 4096 } {
        return "segment: zeros";
    }
    if at < 4096 {
        return "segment: descriptor";
    }
    if !is_whole {
        return "segment: of an upload";
    }
    let footer = number(segment, trailer, 8);
    if at >= footer {
        return "segment: footer, trailer";
    }
    // The table has 24 bytes a block; the content in front of it is padded to a multiple of eight.
    let blocks = (footer - 4096).div_ceil(65_536 + 24);
    let table = footer - 24 * blocks;
    match at {
        _ if at >= table => "segment: table",
        _ if at + 7 >= table && segment[at..table].iter().all(|byte| *byte == 0) => "segment: padding",
        _ => "segment: content",
    }
}

/// CRC-32C, bit by bit: whoever changes files can make it right.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

/// Makes the checksum right that stands behind some bytes.
pub fn fix_crc(bytes: &mut [u8], body: Range<usize>) {
    let crc = crc32c(&bytes[body.clone()]).to_le_bytes();
    bytes[body.end..body.end + 4].copy_from_slice(&crc);
}

/// Exchanges two ranges of one length.
pub fn exchange(bytes: &mut [u8], one: &Range<usize>, other: &Range<usize>) {
    assert_eq!(one.len(), other.len());
    for (one, other) in one.clone().zip(other.clone()) {
        bytes.swap(one, other);
    }
}

/// Exchanges ranges of one length of two files, or of one.
pub fn exchange_between(disk: &SimVfs, one: (&Path, Range<usize>), other: (&Path, Range<usize>)) {
    let [first, second] = [&one, &other].map(|(path, range)| disk.read_file(path).unwrap()[range.clone()].to_vec());
    assert!(first.len() == second.len());
    disk.tamper(one.0, |bytes| bytes[one.1.clone()].copy_from_slice(&second)).unwrap();
    disk.tamper(other.0, |bytes| bytes[other.1.clone()].copy_from_slice(&first)).unwrap();
}

/// Exchanges two whole files.
pub fn exchange_files(disk: &SimVfs, one: &Path, other: &Path) {
    let [first, second] = [one, other].map(|path| disk.read_file(path).unwrap());
    disk.tamper(one, |bytes| *bytes = second).unwrap();
    disk.tamper(other, |bytes| *bytes = first).unwrap();
}

/// Puts a file of one disk in the place of the same file of another.
pub fn put_back(disk: &SimVfs, from: &SimVfs, path: &str) {
    let old = from.read_file(path).unwrap();
    disk.tamper(path, |bytes| *bytes = old).unwrap();
}
