//! A flipped bit is found wherever it means anything: where it is not, there are zeros, or what nobody needs any more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use strongroom::registry::Event;
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Digest, Error, Options};

use super::disk::{files, records, region};
use super::lab::{Interrogation, Keeper, Known, Seen, build_with, events, options, see};
use crate::common::{Random, seed, tell};

/// How often bits of a region of a file were flipped, and how often that was found.
type Counts = BTreeMap<(PathBuf, &'static str), (usize, usize)>;

/// Regions in which there is nothing but zeros.
const ZEROS: [&str; 5] = [
    "log: padding of a frame",
    "log: padding of a record",
    "run: zeros behind the header",
    "run: zeros between runs",
    "segment: zeros",
];

/// A store that is asked for everything after its files were changed.
pub struct Subject {
    pub disk: SimVfs,
    pub keeper: Arc<Keeper>,
    history: u64,
    known: Known,
    seen: Seen,
    events: Vec<Event>,
}

fn options_of(disk: &SimVfs, keeper: &Arc<Keeper>, history: u64) -> Options {
    options(disk, Some(keeper)).history(history)
}

impl Subject {
    /// One that keeps so many bytes of log files for who reads events.
    pub fn new(history: u64) -> Self {
        let keeper = Keeper::new(1);
        let (disk, known) = build_with(Some(&keeper), &|disk| options_of(disk, &keeper, history));
        let copy = disk.restarted();
        let store = options_of(&copy, &keeper, history).open("/store").unwrap();
        let (seen, events) = (see(&store), events(&store).unwrap());
        drop(store);
        Self { disk, keeper, history, known, seen, events }
    }

    /// Asks for everything of what was changed on a copy of the disk. All answers are right; what comes back are the
    /// errors.
    pub fn ask(&self, changed: &SimVfs, context: String) -> Vec<Error> {
        let mut asked = Interrogation::new(&self.seen, &self.known, &self.events, context);
        asked.open(options_of(changed, &self.keeper, self.history));
        asked.errors
    }

    /// Flips a bit; says whether anything was found.
    fn flip(&self, path: &Path, bit: u64, context: String) -> bool {
        let damaged = self.disk.restarted();
        damaged.flip_bit(path, bit).unwrap();
        !self.ask(&damaged, context).is_empty()
    }

    /// Which bits of a file are flipped: all of `FORMAT` and of the list, and of others some of each region.
    fn bits(&self, path: &Path, random: &mut Random) -> Vec<u64> {
        let bytes = self.disk.read_file(path).unwrap();
        if path.ends_with("FORMAT") || path.ends_with("LIST") {
            return (0..bytes.len() as u64 * 8).collect();
        }
        let most = if std::env::var_os("STRONGROOM_EXHAUSTIVE").is_some() { 200 } else { 3 };
        let mut regions: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        // The long middle of long files is all the same.
        for at in (0..bytes.len()).filter(|at| *at < 5000 || at % 7 == 0 || bytes.len() - at < 200) {
            regions.entry(region(path, &bytes, at)).or_default().push(at);
        }
        let mut bits = Vec::new();
        for places in regions.values() {
            bits.extend((0..most).map(|_| {
                let place = places[random.below(places.len() as u64) as usize];
                place as u64 * 8 + random.below(8)
            }));
        }
        bits
    }

    fn flip_all(&self, seed: u64, is_wanted: impl Fn(&Path) -> bool) -> Counts {
        let mut random = Random(seed);
        let mut work = Vec::new();
        for path in self.disk.files().into_iter().filter(|path| is_wanted(path)) {
            work.extend(self.bits(&path, &mut random).into_iter().map(|bit| (path.clone(), bit)));
        }
        let (next, counts) = (AtomicUsize::new(0), Mutex::new(Counts::new()));
        let flip = || {
            while let Some((path, bit)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (bytes, at) = (self.disk.read_file(path).unwrap(), *bit as usize / 8);
                let region = region(path, &bytes, at);
                let context = format!("seed {seed}: bit {bit} of {}, {region}", path.display());
                let is_found = self.flip(path, *bit, context);
                assert!(!ZEROS.contains(&region) || bytes[at] == 0);
                let mut counts = counts.lock().unwrap();
                let count = counts.entry((path.clone(), region)).or_default();
                count.0 += 1;
                count.1 += usize::from(is_found);
            }
        };
        std::thread::scope(|scope| [scope.spawn(flip), scope.spawn(flip)].map(|one| one.join().expect("it holds")));
        counts.into_inner().unwrap()
    }
}

fn by_region(counts: &Counts) -> BTreeMap<&'static str, (usize, usize)> {
    let mut all: BTreeMap<_, (usize, usize)> = BTreeMap::new();
    for ((_, region), (flipped, found)) in counts {
        let one = all.entry(*region).or_default();
        *one = (one.0 + flipped, one.1 + found);
    }
    all
}

#[test]
fn a_flipped_bit_is_found_wherever_it_means_anything() {
    let seed = seed(0xf11b);
    // All log files are kept for who reads events.
    let counts = Subject::new(1 << 40).flip_all(seed, |path| !path.ends_with("LOCK") && !path.ends_with("RESERVE"));
    for (place, (flipped, found)) in &counts {
        assert!(flipped == found || ZEROS.contains(&place.1), "{place:?}: {found} of {flipped} flips found");
    }
    let counts = by_region(&counts);
    assert!(counts.len() >= 18, "{:?}", counts.keys());
    tell(&format!("bits flipped, and found: {counts:?}"));
}

#[test]
fn of_a_log_file_that_is_kept_for_its_frames_only_the_records_are_needed_by_nobody() {
    let seed = seed(0xf11c);
    let counts = Subject::new(0).flip_all(seed, |path| path.extension().is_some_and(|ending| ending == "log"));
    let mut given_up = 0;
    for ((path, region), (flipped, found)) in &counts {
        match *region {
            // All or none: their facts are in runs.
            "log: header of a record" | "log: operations and facts" => {
                assert!([0, *flipped].contains(found), "{path:?}, {region}: {found} of {flipped} flips found");
                given_up += usize::from(*found == 0);
            }
            region => assert!(flipped == found || ZEROS.contains(&region), "{path:?}, {region}"),
        }
    }
    assert!(given_up > 2, "{given_up}");
}

#[test]
fn a_flipped_bit_in_the_log_of_a_killed_process_takes_the_last_commit_at_most() {
    let seed = seed(0xf11d);
    let mut random = Random(seed);
    let keeper = Keeper::new(1);
    let disk = SimVfs::new();
    // Nothing is folded meanwhile: the list would know what was durable.
    let options = options_of(&disk, &keeper, 0).log_file_size(64 << 10).memtable_size(1 << 20);
    let store = options.open("/store").unwrap();
    let contents: Vec<_> = (0..12).map(|_| random.bytes(300)).collect();
    let digests: Vec<_> =
        contents.iter().map(|content| store.put(content, Algorithm::Blake3).unwrap().digest).collect();
    let killed = disk.restarted();
    drop(store);
    let log = files(&killed, "log").pop().unwrap();
    let bytes = killed.read_file(&log).unwrap();
    let records = records(&bytes);
    assert_eq!(records.len(), digests.len());
    let end = records.last().unwrap().whole.end;
    let (mut lost, mut found) = (0, 0);
    for n in 0..800 {
        // What is reserved behind the records is long, and all the same.
        let bit = if n % 8 == 0 { random.below(bytes.len() as u64 * 8) } else { random.below(end as u64 * 8) };
        let at = bit as usize / 8;
        let damaged = killed.restarted();
        damaged.flip_bit(&log, bit).unwrap();
        let context = format!("seed {seed}: bit {bit} in {}", region(&log, &bytes, at));
        let store = match options_of(&damaged, &keeper, 0).open("/store") {
            Ok(store) => store,
            Err(error) => {
                assert!(matches!(&error, Error::Corrupt { file, .. } if *file == log), "{context}: {error}");
                found += 1;
                continue;
            }
        };
        for (n, (digest, content)) in digests.iter().zip(&contents).enumerate() {
            match store.get(digest).and_then(|blob| blob.bytes()) {
                Ok(bytes) => assert_eq!(bytes, content),
                Err(Error::Corrupt { .. }) => found += 1,
                Err(Error::BlobNotFound { .. }) => {
                    let is_last = n + 1 == digests.len() && records[n].whole.contains(&at);
                    assert!(is_last, "{context}: commit {n} is gone");
                    lost += 1;
                }
                Err(error) => panic!("{context}: {error}"),
            }
        }
        let again = Digest::of(Algorithm::Sha256, b"on it goes");
        assert_eq!(store.put(b"on it goes", Algorithm::Sha256).unwrap().digest, again, "{context}");
    }
    tell(&format!("{found} errors, and the last commit was lost {lost} times"));
    assert!(lost > 10 && found > 200);
}
