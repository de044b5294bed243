//! What fails for a while, or in one place, must not cost more than that: files that can't be opened because too many
//! are, a write that fails, a full disk, a damaged run.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use strongroom::registry::RepositorySettings;
use strongroom::vfs::{Directory, Fault, File, OpenMode, SimVfs, Vfs};
use strongroom::{
    Algorithm, Clock, Digest, Durability, Error, ExpectNamed, Expires, Maintenance, Options, PutNamed, Store,
};

use crate::common::registry::{at, name, push_document};
use crate::common::watched::Watched;
use crate::common::{Random, observe};

fn options(disk: &SimVfs) -> Options {
    let options = Options::new().create(true).vfs(Arc::new(disk.clone())).clock(Clock::manual());
    options.maintenance(Maintenance::Inline).log_file_size(1 << 16)
}

/// Refuses to open files with a name like this, in this mode, so many times after so many others.
#[derive(Clone, Debug)]
struct Refusal {
    ending: &'static str,
    mode: OpenMode,
    after: Arc<AtomicU64>,
    times: Arc<AtomicU64>,
}

fn take(count: &AtomicU64) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

/// A simulated disk where opening files fails at times, as it does where a process has too many open.
fn crowded(disk: &SimVfs, refusals: Vec<Refusal>) -> Arc<dyn Vfs> {
    let opening = move |path: &Path, mode: OpenMode| {
        for refusal in &refusals {
            let is_meant = mode == refusal.mode && path.to_string_lossy().ends_with(refusal.ending);
            if is_meant && !take(&refusal.after) && take(&refusal.times) {
                return Err(io::Error::from_raw_os_error(24)); // EMFILE
            }
        }
        Ok(())
    };
    Arc::new(Watched { opening: Box::new(opening), ..Watched::new(disk) })
}

#[test]
fn files_that_can_not_be_opened_for_a_moment_cost_a_step_of_maintenance_and_nothing_else() {
    let refusal = |ending, mode| Refusal { ending, mode, after: Arc::default(), times: Arc::default() };
    let kinds = [
        refusal(".run", OpenMode::CreateNew),
        refusal(".run", OpenMode::Read),
        refusal("LIST.tmp", OpenMode::CreateNew),
        refusal(".log", OpenMode::CreateNew),
        // Directories, opened to be synced.
        refusal("/runs", OpenMode::Read),
        refusal("/log", OpenMode::Read),
        refusal("/log/0000000000", OpenMode::Read),
        refusal("/segments", OpenMode::Read),
        refusal("/segments/0000000000", OpenMode::Read),
    ];
    let mut random = Random(1);
    for round in 0..40u64 {
        let disk = SimVfs::new();
        let vfs = crowded(&disk, kinds.to_vec());
        let open =
            || options(&disk).memtable_size(1 << 10).inline_max(16 << 10).vfs(Arc::clone(&vfs)).open("/store").unwrap();
        let store = open();
        let mut stored: Vec<Digest> = Vec::new();
        let mut failed = 0;
        for n in 0..150u64 {
            if random.below(8) == 0 {
                let kind = &kinds[random.below(kinds.len() as u64) as usize];
                kind.after.store(random.below(3), Ordering::SeqCst);
                kind.times.store(1 + random.below(3), Ordering::SeqCst);
            }
            let mut content = (round << 32 | n).to_le_bytes().to_vec();
            if random.below(16) == 0 {
                content.resize(20 << 10, 0); // in a segment of its own
            }
            let put = store.put(content, Algorithm::Sha256);
            match put {
                Ok(digest) => stored.push(digest.digest),
                Err(Error::Io { .. }) => failed += 1,
                Err(error) => panic!("round {round} put {n}: {error}"),
            }
            match store.checkpoint() {
                Ok(()) | Err(Error::Io { .. }) => {}
                Err(error) => panic!("round {round} checkpoint {n}: {error}"),
            }
        }
        assert!(failed < 100, "{failed} failed");
        assert!(stored.iter().all(|digest| store.exists(digest).unwrap()), "round {round}");
        for kind in &kinds {
            kind.times.store(0, Ordering::SeqCst);
        }
        store.checkpoint().unwrap();
        store.close().unwrap();
        assert_eq!(observe(&open()).blobs.len(), stored.len(), "round {round}");
    }
}

#[test]
fn without_syncs_a_failed_write_takes_nothing_back_and_the_store_opens_again() {
    for seed in 0..40 {
        let disk = SimVfs::new();
        let open = |disk: &SimVfs| options(disk).durability(Durability::Relaxed).open("/store").unwrap();
        let store = open(&disk);
        let before: Vec<_> =
            (0..10u32).map(|n| store.put(n.to_le_bytes(), Algorithm::Sha256).unwrap().digest).collect();
        let fault = if seed % 2 == 0 { Fault::Error } else { Fault::Full };
        disk.fault_at(disk.operations() + 1, fault);
        let _ = store.put("fails", Algorithm::Sha256);
        disk.free_space();
        store.sync().unwrap();
        store.put("goes on", Algorithm::Sha256).unwrap();
        let seen = observe(&open(&disk.power_cut(seed)));
        assert!(before.iter().all(|digest| seen.blobs.contains_key(digest)), "seed {seed}: synced, and lost");
    }
}

#[test]
fn on_a_full_disk_removing_works_and_opening_after_a_kill_too() {
    // A little is left: not enough for a log file, or for that but not for the list that has to name it.
    for left in [0, 1, 300, 4096, 60_000, (64 << 10) + 1, (64 << 10) + 300, 70_000] {
        remove_on_a_full_disk(left);
    }
}

fn remove_on_a_full_disk(left: u64) {
    let disk = SimVfs::new();
    let open = |disk: &SimVfs| options(disk).open("/store").unwrap();
    let store = open(&disk);
    let large: Vec<Digest> = (0..4u8).map(|n| store.put(vec![n; 5 << 20], Algorithm::Sha256).unwrap().digest).collect();
    let small = store.put("small", Algorithm::Sha256).unwrap().digest;
    store.named().set("pin", &small, PutNamed::new()).unwrap();
    let fill = |disk: &SimVfs| disk.set_capacity(Some(disk.used() + left));
    fill(&disk);
    let is_full = |store: &Store, len| {
        let content = Random(len as u64).bytes(len);
        matches!(store.put(content, Algorithm::Sha256), Err(Error::Full { .. }))
    };
    assert!(is_full(&store, 150_000), "more than the log file has room for");
    assert!(is_full(&store, 6 << 20));
    // Not even after the log file is full of removals.
    for _ in 0..2000 {
        let _ = store.put("more", Algorithm::Sha256).map(|digest| store.remove(&digest.digest));
    }
    store.remove(&large[0]).unwrap();
    fill(&disk);
    // Killed, with a tail to write again. What follows has the reserve only.
    let disk = disk.restarted();
    let store = open(&disk);
    assert_eq!(store.get(&small).unwrap().bytes().unwrap(), "small");
    store.named().remove("pin", ExpectNamed::Any).unwrap();
    store.remove(&small).unwrap();
    for digest in &large[1..] {
        store.remove(digest).unwrap();
    }
    assert!(!is_full(&store, 6 << 20), "there is space again");
    assert_eq!(observe(&store).files.len(), 0);
    store.close().unwrap();
}

#[test]
fn on_a_disk_full_of_small_blobs_removing_them_gives_the_space_back() {
    let disk = SimVfs::new();
    let store = options(&disk).open("/store").unwrap();
    let mut random = Random(1);
    let blobs: Vec<Digest> =
        (0..100).map(|_| store.put(random.bytes(20_000), Algorithm::Sha256).unwrap().digest).collect();
    disk.set_capacity(Some(disk.used()));
    while store.put(random.bytes(20_000), Algorithm::Sha256).map(|digest| store.remove(&digest.digest)).is_ok() {}
    for digest in &blobs {
        store.remove(digest).unwrap();
    }
    store.checkpoint().unwrap();
    for _ in 0..50 {
        store.put(random.bytes(20_000), Algorithm::Sha256).unwrap();
    }
}

#[test]
fn a_damaged_run_keeps_neither_the_others_from_being_merged_nor_log_files_from_going() {
    let disk = SimVfs::new();
    let open = || options(&disk).memtable_size(1 << 10).history(0).open("/store").unwrap();
    let put = |store: &Store, n: u32| store.put(n.to_le_bytes(), Algorithm::Sha256).unwrap().digest;
    let store = open();
    for n in 0..3 {
        put(&store, n);
        store.checkpoint().unwrap();
    }
    store.close().unwrap();
    let count = |ending: &str| disk.files().iter().filter(|path| path.to_string_lossy().ends_with(ending)).count();
    let run = disk.files().into_iter().find(|path| path.to_string_lossy().ends_with(".run")).unwrap();
    disk.flip_bit(&run, 8 * (512 + 5)).unwrap();
    let store = open();
    for n in 10..200 {
        let digest = put(&store, n);
        store.remove(&digest).unwrap();
        let _ = store.checkpoint();
    }
    store.checkpoint().unwrap();
    assert!(count(".run") < 24, "{} runs", count(".run"));
    assert!(count(".log") < 4, "{} log files", count(".log"));
}

#[test]
fn open_time_is_the_time_that_the_store_was_open() {
    let (disk, clock) = (SimVfs::new(), Clock::manual());
    let options = options(&disk).clock(clock.clone());
    clock.advance(Duration::from_secs(3600));
    let store = options.clone().open("/store").unwrap();
    let digest = store.put("x", Algorithm::Sha256).unwrap().digest;
    store.named().set("pin", &digest, PutNamed::new().expires_after(Duration::from_secs(3000))).unwrap();
    clock.advance(Duration::from_secs(1000));
    store.close().unwrap();
    clock.advance(Duration::from_secs(3600));
    let store = options.open("/store").unwrap();
    assert_eq!(store.named().stat("pin").unwrap().expires, Expires::After(Duration::from_secs(2000)));
    assert_eq!(store.expire(Duration::MAX).unwrap().named, 0);
}

#[test]
fn the_log_of_a_killed_session_is_cut_before_anybody_reads_it() {
    let disk = SimVfs::new();
    let store = options(&disk).open("/store").unwrap();
    let digest = store.put("small", Algorithm::Sha256).unwrap().digest;
    let is_log = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let lens = |disk: &SimVfs| -> Vec<usize> {
        disk.files().iter().filter(|path| is_log(path)).map(|path| disk.read_file(path).unwrap().len()).collect()
    };
    assert_eq!(lens(&disk), [1 << 16], "it has its whole capacity while it is written");
    // What may not have been durable is written anew, to a file of this session, which is killed too.
    let first = disk.restarted();
    let still_open = options(&first).open("/store").unwrap();
    assert_eq!(still_open.get(&digest).unwrap().bytes().unwrap(), "small");
    let killed = first.restarted();
    assert!(lens(&killed).contains(&(1 << 16)));
    let store = options(&killed).open("/store").unwrap();
    let before = lens(&killed);
    assert!(before.iter().all(|len| *len < 4096), "{before:?}");
    // Whoever reads maps what is there, and nobody cuts it any more.
    let blob = store.get(&digest).unwrap();
    store.put("more", Algorithm::Sha256).unwrap();
    assert_eq!(blob.bytes().unwrap(), "small");
    assert_eq!(lens(&killed)[..before.len()], before);
}

#[test]
fn a_parent_directory_that_may_not_be_read_keeps_no_store_from_opening() {
    let disk = SimVfs::new();
    let digest = options(&disk).open("/store").unwrap().put("content", Algorithm::Sha256).unwrap().digest;
    let opening = |path: &Path, _: OpenMode| match path.to_str() {
        Some("/") => Err(io::ErrorKind::PermissionDenied.into()),
        _ => Ok(()),
    };
    let watched = |disk: &SimVfs| Arc::new(Watched { opening: Box::new(opening), ..Watched::new(disk) });
    let there = disk.restarted();
    let store = options(&there).vfs(watched(&there)).open("/store").unwrap();
    assert_eq!(store.get(&digest).unwrap().bytes().unwrap(), "content");
    // A directory that somebody else has made there becomes a store, and none is made.
    let empty = SimVfs::new();
    assert!(options(&empty).vfs(watched(&empty)).open("/store").is_err());
    empty.create_dir(Path::new("/store")).unwrap();
    options(&empty).vfs(watched(&empty)).open("/store").unwrap().put("content", Algorithm::Sha256).unwrap();
}

/// A file system that can't sync directories, as CIFS can't.
#[derive(Debug)]
struct NoSync(SimVfs);

impl Directory for NoSync {
    fn sync(&self) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(22)) // EINVAL
    }
}

impl Vfs for NoSync {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.0.open(path, mode)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Directory>> {
        self.0.open_dir(dir)?;
        Ok(Box::new(Self(self.0.clone())))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Vfs::lock(&self.0, path)
    }
}

#[test]
fn a_file_system_that_can_not_sync_directories_is_named_before_anything_is_there() {
    let disk = SimVfs::new();
    let refused = options(&disk).vfs(Arc::new(NoSync(disk.clone()))).open("/store").unwrap_err();
    assert!(matches!(refused, Error::UnsupportedFileSystem { .. }), "{refused}");
    assert!(disk.files().is_empty() && disk.list(Path::new("/")).unwrap().is_empty());
}

#[test]
fn a_pull_writes_nothing() {
    let (disk, clock) = (SimVfs::new(), Clock::manual());
    let store = options(&disk).clock(clock.clone()).memtable_size(1 << 10).open("/store").unwrap();
    let repository = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    push_document(&repository, "a document", &["v1"]);
    for _ in 0..100 {
        clock.advance(Duration::from_secs(20));
        let before = disk.operations();
        repository.pull_manifest(&at("v1")).unwrap();
        assert_eq!(disk.operations(), before);
    }
    // What is noted of it, the next commit makes durable.
    store.put("something", Algorithm::Sha256).unwrap();
    let pulled = repository.manifest_info(&at("v1")).unwrap().pulled_ms;
    drop(store);
    let store = options(&disk.restarted()).clock(clock).open("/store").unwrap();
    let again = store.repository(&name("team/app")).unwrap().manifest_info(&at("v1")).unwrap();
    assert!(pulled.is_some() && again.pulled_ms == pulled);
}
