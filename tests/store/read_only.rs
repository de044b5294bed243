//! Stores that are open for reading only, beside the one that writes: each reader sees the store as it was at a
//! commit, whatever is folded, merged, compacted, removed, cut and recovered meanwhile; and nothing that a power cut
//! takes back.

use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use strongroom::registry::{PutManifest, RepositorySettings};
use strongroom::vfs::{Directory, Fault, File, OpenMode, SimVfs, Vfs};
use strongroom::{
    Algorithm, Clock, CollectOptions, Error, Options, PutNamed, ReadOnlyCause, Recovery, ScrubOptions, Store,
};

use crate::common::registry::{image, name, tag};
use crate::common::tour::tour;
use crate::common::{
    Pair, Random, Step, encrypted_disk, history, is_one_of, observe, options, outline, seed, small, tell,
};

const STEPS: usize = 40;

fn reading(disk: &SimVfs) -> Options {
    options(disk, &Clock::manual()).create(false).read_only(true)
}

fn open(disk: &SimVfs) -> Store {
    reading(disk).open("/store").unwrap()
}

/// What of a reader's blobs and named files can be read is right, also where the writer has gone on.
fn check_content(reader: &Store, context: &str) {
    let files = reader.named();
    for file in files.iter("").collect::<Vec<_>>() {
        let name = file.unwrap_or_else(|error| panic!("{context}: {error}")).name;
        match files.get(&name) {
            Ok(found) => found.blob.verify().unwrap_or_else(|error| panic!("{context}: {name}: {error}")),
            Err(Error::NamedNotFound { .. }) => {} // the reader has moved forward by itself
            Err(error) => panic!("{context}: {name}: {error}"),
        }
    }
    for stat in reader.blobs().collect::<Vec<_>>() {
        let stat = stat.unwrap_or_else(|error| panic!("{context}: {error}"));
        match reader.get(&stat.digest) {
            Ok(blob) => blob.verify().unwrap_or_else(|error| panic!("{context}: {error}")),
            Err(Error::BlobNotFound { .. }) => {} // the same
            Err(error) => panic!("{context}: {error}"),
        }
    }
}

#[test]
fn readers_see_each_commit_once_they_read_on_and_the_moment_before_until_then() {
    let seed = seed(0x4ead);
    for round in 0..6 {
        let disk = if round % 2 == 0 { SimVfs::new() } else { encrypted_disk() };
        let steps = if round < 2 { tour() } else { history(&mut Random(seed + round), 3 * STEPS) };
        let mut pair = Pair::new(&disk).unwrap();
        let (follower, mut late) = (open(&disk), open(&disk));
        for (n, step) in steps.iter().enumerate() {
            let context = format!("seed {seed} round {round} step {n}: {step:?}");
            pair.run(step).unwrap();
            let expected = outline(&pair.model);
            let last = pair.store.as_ref().unwrap().last_lsn();
            let operations = disk.operations();
            check_content(&late, &context);
            let is_behind = follower.last_lsn() < last;
            assert_eq!(follower.refresh().unwrap(), last, "{context}");
            assert!(observe(&follower) == expected, "{context}: {:#?}", observe(&follower));
            assert!(follower.refresh().is_ok() && follower.last_lsn() == last);
            if n % 3 == 0 {
                let fresh = open(&disk);
                assert!(fresh.last_lsn() == last && observe(&fresh) == expected, "{context}: a new reader");
            }
            if n % 7 == 0 {
                late.refresh().unwrap();
                assert!(observe(&late) == expected, "{context}: a late reader");
            }
            if n % 20 == 19 {
                late = open(&disk);
            }
            // A few syncs of the log at most, and nothing else that changes something.
            assert!(disk.operations() - operations <= 4 && (is_behind || n > 0), "{context}");
        }
    }
}

#[test]
fn content_that_was_moved_since_is_found_where_it_lies_now() {
    let disk = SimVfs::new();
    let store = options(&disk, &Clock::manual()).open("/store").unwrap();
    let (files, mut random) = (store.named(), Random(11));
    let names: Vec<String> = (0..200).map(|n| format!("{n:03}")).collect();
    let put = |name: &String| files.put(name, random.bytes(400), PutNamed::new()).unwrap().file.digest;
    let digests: Vec<_> = names.iter().map(put).collect();
    let (by_digest, by_name) = (open(&disk), open(&disk));
    let (kept, gone): (Vec<usize>, Vec<usize>) = (0..200).partition(|n| n % 4 == 0);
    let gone: Vec<&String> = gone.into_iter().map(|n| &names[n]).collect();
    files.discarding().remove_many(&gone).unwrap();
    let done = store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(())).unwrap();
    assert!(done.moved > 10 && done.files > 0, "{done:?}");
    for n in kept {
        by_digest.get(&digests[n]).unwrap().verify().unwrap();
        by_name.named().get(&names[n]).unwrap().blob.verify().unwrap();
    }
    assert_eq!(
        [by_digest, by_name].map(|reader| reader.last_lsn()),
        [store.last_lsn(); 2],
        "they have read on for that"
    );
}

#[test]
fn what_a_reader_has_seen_beside_a_process_that_was_killed_survives_a_power_cut() {
    let seed = seed(0x5ee);
    let mut covered = 0;
    for (round, new) in [SimVfs::new, encrypted_disk].into_iter().enumerate() {
        let steps: Vec<Step> = tour().into_iter().chain(history(&mut Random(seed), STEPS)).collect();
        let counting = new();
        let first = counting.operations() + 1;
        let mut pair = Pair::new(&counting).unwrap();
        steps.iter().for_each(|step| pair.run(step).unwrap());
        for at in (first..=counting.operations()).step_by(1 + 2 * round) {
            let disk = new();
            disk.fault_at(at, Fault::PowerCut);
            let Ok(mut pair) = Pair::new(&disk) else { continue };
            let Some(error) = steps.iter().find_map(|step| pair.run(step).err()) else { continue };
            let (before, after, leeway) = (outline(&pair.model), outline(&pair.next), pair.leeway);
            pair.kill();
            let context = format!("seed {seed} round {round} at {at}: {error}");
            // The kernel lives on: all that was written is there, and nothing of it is safe.
            let left = disk.restarted();
            let reader = reading(&left).open("/store").unwrap_or_else(|error| panic!("{context}: {error}"));
            let seen = observe(&reader);
            assert!(is_one_of(&seen, &before, &after, leeway), "{context}: {seen:#?}");
            let cut = left.power_cut(seed ^ at);
            let writer = options(&cut, &Clock::manual()).open("/store").unwrap();
            // Its recovery may give up a log file in which nothing lives, which is a commit.
            assert!(writer.last_lsn() >= reader.last_lsn(), "{context}");
            assert!(observe(&writer) == seen, "{context}: what a reader had seen is gone");
            covered += 1;
        }
    }
    tell(&format!("readers beside killed processes: {covered}"));
}

/// A disk as a process sees it that is killed after so many changes: from then on no call does anything.
#[derive(Clone, Debug)]
struct Mortal {
    disk: Arc<dyn Vfs>,
    left: Arc<AtomicU64>,
}

#[derive(Debug)]
struct MortalFile(Arc<dyn File>, Arc<AtomicU64>);

#[derive(Debug)]
struct MortalDirectory(Box<dyn Directory>, Arc<AtomicU64>);

fn live(left: &AtomicU64) -> io::Result<()> {
    let one_less = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    one_less.map(drop).map_err(|_| io::Error::other("killed"))
}

impl Vfs for Mortal {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        live(&self.left)?;
        Ok(Arc::new(MortalFile(self.disk.open(path, mode)?, Arc::clone(&self.left))))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        live(&self.left)?;
        self.disk.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        live(&self.left)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        live(&self.left)?;
        self.disk.remove(path)
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Directory>> {
        live(&self.left)?;
        Ok(Box::new(MortalDirectory(self.disk.open_dir(dir)?, Arc::clone(&self.left))))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }
}

impl Directory for MortalDirectory {
    fn sync(&self) -> io::Result<()> {
        live(&self.1)?;
        self.0.sync()
    }
}

impl File for MortalFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        live(&self.1)?;
        self.0.write_at(bufs, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        live(&self.1)?;
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        live(&self.1)?;
        self.0.allocate(len)
    }

    fn sync(&self) -> io::Result<()> {
        live(&self.1)?;
        self.0.sync()
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        self.0.start_writeback(offset, len);
    }

    fn map(&self) -> io::Result<bytes::Bytes> {
        self.0.map()
    }
}

#[test]
fn a_reader_follows_through_kills_and_recoveries_of_the_writer() {
    let seed = seed(0xf0110);
    let mut anew = 0;
    for round in 0..40 {
        let mut random = Random(seed ^ round << 32);
        let disk = if round % 2 == 0 { SimVfs::new() } else { encrypted_disk() };
        drop(options(&disk, &Clock::manual()).open("/store").unwrap());
        let (reader, late) = (open(&disk), open(&disk));
        for kill in 0..8 {
            let clock = Clock::manual();
            let left = Arc::new(AtomicU64::new(u64::MAX));
            let mortal = Mortal { disk: Arc::new(disk.clone()), left: Arc::clone(&left) };
            let writer = options(&disk, &clock).vfs(Arc::new(mortal)).open("/store").unwrap();
            let context = format!("seed {seed} round {round} kill {kill}");
            left.store(random.below(80), Ordering::Relaxed);
            for n in 0.. {
                let len = [10, 900, 5000][random.below(3) as usize];
                let content = random.bytes(len);
                let put = writer.put(&content, Algorithm::Sha256).and_then(|digest| {
                    writer.named().set(&format!("pin-{}", n % 5), &digest.digest, PutNamed::new())?;
                    if n % 4 == 3 { writer.checkpoint() } else { Ok(()) }
                });
                if random.below(2) == 0 {
                    reader.refresh().unwrap_or_else(|error| panic!("{context}: {error}"));
                }
                if put.is_err() {
                    break;
                }
            }
            drop(writer);
            // What is read of the log now, the recovery writes to another place.
            let read_on = reader.refresh().unwrap_or_else(|error| panic!("{context}: {error}"));
            let known = (read_on, observe(&reader));
            let recovered = options(&disk, &clock).open("/store").unwrap();
            check_content(&late, &context);
            check_content(&reader, &context);
            assert_eq!((recovered.last_lsn(), observe(&recovered)), known, "{context}: what was seen is gone");
            assert_eq!(reader.refresh().unwrap(), recovered.last_lsn(), "{context}");
            assert!(observe(&reader) == observe(&recovered), "{context}");
            if kill % 3 == 2 {
                assert_eq!(late.refresh().unwrap(), recovered.last_lsn(), "{context}");
                assert!(observe(&late) == observe(&recovered), "{context}");
            }
            anew += 1;
        }
    }
    tell(&format!("kills of a writer that were followed: {anew}"));
}

/// Puts the files of another disk's store in the place of those of this one's.
fn replace(disk: &SimVfs, by: &SimVfs) {
    disk.files().iter().for_each(|path| disk.remove(path).unwrap());
    for path in by.files() {
        let dirs: Vec<_> = path.ancestors().skip(1).collect();
        dirs.into_iter().rev().for_each(|dir| drop(disk.create_dir(dir)));
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        file.write_all_at(&by.read_file(&path).unwrap(), 0).unwrap();
    }
}

/// An older copy of a store has the same store id, and uses LSNs, ids of files and lengths again for other things.
#[test]
fn a_reader_follows_the_store_that_was_restored_under_it_and_mixes_no_histories() {
    for (round, new) in (0..60).map(|round| (round, [SimVfs::new, encrypted_disk][round % 2])) {
        let mut random = Random(0x2e57 + round as u64);
        let (disk, clock) = (new(), Clock::manual());
        let options = |disk: &SimVfs| options(disk, &clock).history([0, 1 << 40][round / 2 % 2]);
        let commits = |store: &Store, which: u8, count: u64, random: &mut Random| {
            for n in 0..count {
                let content = [which; 5000].map(|byte| byte ^ u8::try_from(n).unwrap());
                let len = [40, 5000][random.below(2) as usize];
                store.named().put(&format!("{}", n % 3), &content[..len], PutNamed::new()).unwrap();
                if random.below(4) == 0 {
                    store.checkpoint().unwrap();
                }
            }
        };
        let store = options(&disk).open("/store").unwrap();
        let early = open(&disk);
        commits(&store, 1, random.below(5), &mut random);
        if random.below(2) == 0 {
            store.checkpoint().unwrap();
        }
        let backup = disk.restarted();
        let (before, count) = (open(&disk), random.below(6));
        commits(&store, 2, count, &mut random);
        let after = open(&disk);
        if random.below(2) == 0 {
            store.close().unwrap();
        }
        let late = open(&disk);
        replace(&disk, &backup);
        let readers = [early, before, after, late];
        let check = |context: &str| {
            let expected = open(&disk);
            for (n, reader) in readers.iter().enumerate() {
                let context = format!("round {round} {context} reader {n}");
                assert_eq!(reader.refresh().unwrap(), expected.last_lsn(), "{context}");
                assert!(observe(reader) == observe(&expected), "{context}");
                check_content(reader, &context);
            }
        };
        if round % 3 == 0 {
            check("before it is written to");
        }
        // A backup is used by another process: nothing of the lock is left.
        let other = disk.restarted();
        let store = options(&other).open("/store").unwrap();
        let more = [count, random.below(9)][random.below(2) as usize];
        commits(&store, 3, more, &mut random);
        store.close().unwrap();
        replace(&disk, &other);
        check("after it was written to");
    }
}

#[test]
fn another_store_in_the_place_of_the_one_that_is_read_is_an_error_of_its_own() {
    for new in [SimVfs::new, encrypted_disk] {
        let (disk, other) = (SimVfs::new(), new());
        let [store, _other] = [&disk, &other].map(|disk| options(disk, &Clock::manual()).open("/store").unwrap());
        let digest = store.put("content", Algorithm::Sha256).unwrap().digest;
        let reader = open(&disk);
        replace(&disk, &other);
        for _ in 0..2 {
            assert!(matches!(reader.refresh(), Err(Error::OtherStore { path }) if path == Path::new("/store")));
            assert!(reader.exists(&digest).unwrap(), "it stays where it was");
        }
    }
}

#[test]
fn events_are_those_of_the_writer_by_now_and_whoever_waits_for_one_gets_it() {
    let disk = SimVfs::new();
    let writer = options(&disk, &Clock::manual()).open("/store").unwrap();
    let (reader, other) = (open(&disk), open(&disk));
    let (after, first) = (reader.last_lsn(), writer.put("first", Algorithm::Sha256).unwrap().lsn);
    assert_eq!(reader.events(after, 9).unwrap().events.len(), 1);
    assert_eq!(reader.last_lsn(), first);
    assert!(other.events(first, 9).unwrap().events.is_empty(), "the position is not ahead of the store");
    let waiting = reader.clone();
    let follower = std::thread::spawn(move || waiting.wait_for_events(first, 9, Duration::from_secs(600)));
    let second = writer.put("second", Algorithm::Sha256).unwrap().lsn;
    assert_eq!(follower.join().unwrap().unwrap().next, second);
    assert!(reader.wait_for_events(second, 9, Duration::from_millis(1)).unwrap().events.is_empty());
    let waiting = reader.clone();
    let follower = std::thread::spawn(move || waiting.wait_for_events(second, 9, Duration::from_secs(600)));
    reader.close().unwrap();
    assert!(matches!(follower.join().unwrap(), Err(Error::Closed)), "closing ends the wait");
}

#[test]
fn blobs_are_opened_as_of_one_moment_also_where_the_first_has_moved() {
    let disk = SimVfs::new();
    let writer = options(&disk, &Clock::manual()).history(1 << 40).open("/store").unwrap();
    let app = writer.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let [long, short] = [Random(1).bytes(60_000), b"in the log".to_vec()].map(|content| {
        app.put(&content, Algorithm::Sha256).unwrap();
        writer.put(&content, Algorithm::Sha256).unwrap().digest
    });
    let [reader, of_repository] = [open(&disk), open(&disk)];
    let read = of_repository.repository(&name("team/app")).unwrap();
    for digest in [long, short] {
        app.remove_blob(&digest).unwrap();
        writer.remove(&digest).unwrap();
    }
    // The first file is gone: finding out moves the store forward, and the second blob is there no more.
    for found in [reader.get_many(&[long, short]).unwrap(), read.get_many(&[long, short]).unwrap()] {
        assert!(matches!(found[0], Err(Error::BlobNotFound { digest }) if digest == long), "{found:?}");
        assert_eq!(found[1].as_ref().unwrap().bytes().unwrap(), "in the log");
    }
    assert!(matches!(reader.get(&short), Err(Error::BlobNotFound { .. })));
}

#[test]
fn nothing_is_written_by_a_store_that_only_reads() {
    let disk = SimVfs::new();
    let clock = Clock::manual();
    assert!(matches!(reading(&disk).open("/store"), Err(Error::NotAStore { .. })));
    let writer = options(&disk, &clock).open("/store").unwrap();
    let repository = writer.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let layer = repository.put("layer", Algorithm::Sha256).unwrap().digest;
    let (media_type, document) = image(&[layer], None);
    repository.put_manifest(&document, PutManifest::new(media_type).tag(tag("v1"))).unwrap();
    let digest = writer.put("content", Algorithm::Sha256).unwrap().digest;
    // Not even where that would be possible; and beside a writer, so also several at once.
    let (reader, _other) = (open(&disk), open(&disk));
    let before: Vec<_> = disk.files().into_iter().map(|path| (disk.read_file(&path).unwrap(), path)).collect();
    let mut refused: Vec<(&str, Error)> = Vec::new();
    let mut refuse = |what, result: Result<(), Error>| refused.push((what, result.unwrap_err()));
    refuse("put", reader.put("more", Algorithm::Sha256).map(drop));
    refuse("put_reader", reader.put_reader(&[7; 9000][..], Algorithm::Sha256).map(drop));
    refuse("remove", reader.remove(&digest).map(drop));
    refuse("set", reader.named().set("name", &digest, PutNamed::new()).map(drop));
    refuse("put", reader.named().put("name", "content", PutNamed::new()).map(drop));
    refuse("remove", reader.named().remove_many(&["kept"]).map(drop));
    refuse("begin_upload", reader.begin_upload(Algorithm::Sha256).map(drop));
    refuse("create", reader.create_repository(&name("other"), RepositorySettings::new()).map(drop));
    refuse("checkpoint", reader.checkpoint());
    refuse("merge_runs", reader.merge_runs());
    refuse("sync", reader.sync());
    refuse("probe", reader.probe());
    refuse("collect", reader.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).map(drop));
    refuse("scrub", reader.scrub(&ScrubOptions::new(), |_| ControlFlow::Continue(())).map(drop));
    let app = reader.repository(&name("team/app")).unwrap();
    refuse("put in a repository", app.put("more", Algorithm::Sha256).map(drop));
    refuse("put_manifest", app.put_manifest(&document, PutManifest::new(media_type).tag(tag("v2"))).map(drop));
    for (what, error) in refused {
        assert!(matches!(error, Error::ReadOnly { cause: ReadOnlyCause::Asked }), "{what}: {error}");
    }
    assert_eq!(app.pull_manifest(&tag("v1").into()).unwrap().content, document);
    assert!(reader.damage().is_none());
    reader.close().unwrap();
    let after: Vec<_> = disk.files().into_iter().map(|path| (disk.read_file(&path).unwrap(), path)).collect();
    assert!(after == before);
}

#[test]
fn damage_is_reported_once_it_stands_still_and_a_damaged_log_is_read_up_to_it() {
    let disk = SimVfs::new();
    let writer = options(&disk, &Clock::manual()).memtable_size(1 << 20).open("/store").unwrap();
    let kept = writer.put("kept", Algorithm::Sha256).unwrap().digest;
    let (flipped, lost) = (writer.put(Random(1).bytes(60_000), Algorithm::Sha256).unwrap().digest, "damaged");
    let gone = writer.put(Random(2).bytes(60_000), Algorithm::Sha256).unwrap().digest;
    let lost = writer.put(lost, Algorithm::Sha256).unwrap().digest;
    writer.close().unwrap();
    let segments: Vec<_> =
        disk.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    disk.flip_bit(&segments[0], 8 * 9000).unwrap();
    disk.remove(&segments[1]).unwrap();
    let reader = open(&disk);
    assert!(matches!(reader.get(&flipped).unwrap().bytes(), Err(Error::Corrupt { .. })));
    assert!(matches!(reader.get(&gone), Err(Error::Corrupt { .. })));
    assert_eq!(reader.verify(|_| {}).unwrap().findings.len(), 3);
    let log = disk.files().into_iter().find(|path| path.extension().is_some_and(|e| e == "log")).unwrap();
    let at = disk.read_file(&log).unwrap().windows(7).rposition(|bytes| bytes == b"damaged").unwrap();
    disk.flip_bit(&log, 8 * (at as u64 + 30)).unwrap();
    assert!(matches!(reading(&disk).open("/store"), Err(Error::Corrupt { file, .. }) if file == log));
    let reader = reading(&disk).recovery(Recovery::ReadOnlyUpToDamage).open("/store").unwrap();
    assert!(reader.damage().is_some());
    assert_eq!(reader.get(&kept).unwrap().bytes().unwrap(), "kept");
    assert!(matches!(reader.get(&lost), Err(Error::BlobNotFound { .. })));
    assert_eq!(reader.refresh().unwrap(), reader.last_lsn());
    // It took no lock.
    let again = reading(&disk).recovery(Recovery::ReadOnlyUpToDamage).open("/store").unwrap();
    assert_eq!(again.last_lsn(), reader.last_lsn());
}

#[test]
fn readers_in_other_threads_see_whole_commits_in_order_and_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let clock = Clock::system();
    let options = || small(Options::new(), &clock).log_file_size(64 << 10).memtable_size(8 << 10);
    let writer = options().open(&path).unwrap();
    let app = writer.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let is_over = AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let read = || {
            let reader = options().create(false).read_only(true).open(&path).unwrap();
            let (mut last, mut count, mut newest) = (reader.last_lsn(), 0u64, 0);
            while !is_over.load(Ordering::Relaxed) {
                let fresh = (count % 5 == 0).then(|| options().create(false).read_only(true).open(&path).unwrap());
                let now = reader.refresh().unwrap();
                assert!(now >= last);
                last = now;
                let seen = fresh.as_ref().unwrap_or(&reader);
                let app = seen.repository(&name("team/app")).unwrap();
                // Both tags are moved in one commit, and removed by none.
                let tags = ["one", "two"].map(|name| app.manifest_info(&tag(name).into()).map(|info| info.digest));
                match tags {
                    [Ok(one), Ok(two)] => assert_eq!(one, two),
                    [Err(Error::ManifestNotFound { .. }), Err(Error::ManifestNotFound { .. })] => {}
                    other => panic!("{other:?}"),
                }
                match app.pull_manifest(&tag("one").into()) {
                    Ok(manifest) => {
                        let number = String::from_utf8(manifest.content.to_vec()).unwrap();
                        let number: u64 = number.trim_end_matches(' ').parse().unwrap();
                        assert!(number >= newest);
                        newest = if fresh.is_some() { newest } else { number };
                    }
                    Err(Error::ManifestNotFound { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                for stat in seen.blobs().take(20).collect::<Vec<_>>() {
                    match seen.get(&stat.unwrap().digest) {
                        Ok(blob) => blob.verify().unwrap(),
                        Err(Error::BlobNotFound { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                if count % 20 == 0 {
                    let report = seen.verify(|_| {}).unwrap();
                    assert!(report.findings.is_empty(), "{:#?}", report.findings);
                }
                count += 1;
            }
            count
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        let mut random = Random(9);
        let mut blobs = Vec::new();
        for n in 0..600u64 {
            let manifest = PutManifest::new("text/plain").references([], []).tag(tag("one")).tag(tag("two"));
            app.put_manifest(format!("{n:<900}"), manifest).unwrap();
            blobs.push(writer.put(random.bytes([100, 1500, 9000][n as usize % 3]), Algorithm::Sha256).unwrap().digest);
            if blobs.len() > 30 {
                writer.remove(&blobs.swap_remove(random.below(30) as usize)).unwrap();
            }
            if n % 40 == 39 {
                writer.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(())).unwrap();
            }
        }
        is_over.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().unwrap())
    });
    tell(&format!("rounds of readers beside 1,200 commits: {reads:?}"));
    assert!(reads.iter().all(|count| *count > 10));
}
