//! A shortage at every call of the file system: no file descriptor where something is opened, no memory for anything
//! else. Only syncs are spared: one that is refused stops writes, which `crash.rs` has.
//!
//! A history runs on the simulated file system, in which one call, or a few in a row, are refused. The operation that
//! meets that may fail. It must not stop the store: the operation works when it is done again, and so do all that
//! follow; nothing acknowledged is lost, all counts equal a recount, and what was left half done is gone after the next
//! opening.
//!
//! Threads are refused, too, in each place where one is started.
//!
//! `STRONGROOM_EXHAUSTIVE=1` refuses each call in turn, and not some of them.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::file_names;
use crate::common::repositories::RETENTION;
use crate::common::tour::tour;
use crate::common::{
    Pair, Random, Step, content_files, encrypted_disk, history, is_one_of, observe, options, outline,
    remove_everything, seed, tell,
};
use strongroom::vfs::{SimVfs, Vfs};
use strongroom::{
    Algorithm, Clock, CollectOptions, Error, Maintenance, Options, PutNamed, Result, ScrubOptions, Store, limit_threads,
};

/// What is done to a store.
#[derive(Clone, Debug)]
enum Act {
    Step(Step),
    /// A new data key, and all that has an old one encrypted with it.
    Rotate,
    /// A key domain with something in it comes and goes.
    Domain,
    /// What only reads, or only derives.
    Check,
}

/// A store, beside its model.
struct Run {
    disk: SimVfs,
    pair: Pair,
}

impl Run {
    fn act(&mut self, act: &Act) -> Result<()> {
        if let Act::Step(step) = act {
            return self.pair.run(step);
        }
        // Nothing that the model has changes.
        self.pair.next = self.pair.model.clone();
        self.pair.leeway = crate::common::Leeway::None;
        let store = self.pair.store.as_mut().expect("open");
        match act {
            Act::Rotate => {
                store.rotate_data_key(None)?;
                assert!(store.rewrite(|_| ControlFlow::Continue(()))?.complete);
            }
            Act::Domain => {
                let name = "tenant".parse().expect("a name");
                match store.create_domain(&name, None) {
                    Err(Error::DomainExists { .. }) => {}
                    other => other?,
                }
                match store.shred_domain(&name) {
                    Err(Error::DomainNotFound { .. }) => {}
                    other => other?,
                }
            }
            Act::Check => {
                assert!(store.verify(|_| {})?.findings.is_empty());
                let scrub = store.scrub(&ScrubOptions::new(), |_| ControlFlow::Continue(()))?;
                assert!(scrub.is_sound(), "{scrub:#?}");
                store.probe()?;
                store.merge_runs()?;
                assert!(store.repair(|_| ControlFlow::Continue(()))?.left.is_sound());
            }
            Act::Step(_) => {}
        }
        Ok(())
    }

    /// After an act that failed: goes on from what there is, and says whether the act is still to be done.
    fn recover(&mut self, act: &Act, error: &Error, context: &str) -> bool {
        assert!(error.is_shortage(), "{context}, in {act:?}: {error}");
        self.disk.shortage_during(0..0);
        if self.pair.store.is_none() {
            self.pair.open().unwrap_or_else(|error| panic!("{context}, in {act:?}, opened again: {error}"));
        }
        let store = self.pair.store.as_ref().expect("open");
        let seen = observe(store);
        let (before, after) = (outline(&self.pair.model), outline(&self.pair.next));
        if seen == after && seen != before {
            self.pair.settle().expect("a working store");
            return false;
        }
        assert!(is_one_of(&seen, &self.pair.model, &self.pair.next, self.pair.leeway), "{context}, in {act:?}");
        self.pair.adopt(&seen);
        true
    }
}

/// Runs a history in which the calls with these numbers are refused. Returns how many calls it took, and whether an act
/// has failed.
fn run(disk: SimVfs, acts: &[Act], refused: std::ops::Range<u64>, context: &str) -> (u64, bool) {
    disk.shortage_during(refused);
    let (pair, mut failed) = match Pair::new(&disk) {
        Ok(pair) => (pair, false),
        Err(error) => {
            assert!(error.is_shortage(), "{context}, creating: {error}");
            disk.shortage_during(0..0);
            (Pair::new(&disk).unwrap_or_else(|error| panic!("{context}, created again: {error}")), true)
        }
    };
    let mut run = Run { disk, pair };
    for act in acts {
        if let Err(error) = run.act(act) {
            failed = true;
            if run.recover(act, &error, context) {
                run.act(act).unwrap_or_else(|error| panic!("{context}, again {act:?}: {error}"));
            }
        }
    }
    let calls = run.disk.calls();
    run.disk.shortage_during(0..0);
    let store = run.pair.store.take().expect("open");
    assert_eq!(observe(&store), outline(&run.pair.model), "{context}");
    store.close().unwrap_or_else(|error| panic!("{context}, closing: {error}"));
    check_that_nothing_is_left(&run.disk, context);
    (calls, failed)
}

/// An opening after all was removed leaves a last log file at most.
fn check_that_nothing_is_left(disk: &SimVfs, context: &str) {
    let clock = Clock::manual();
    let store = options(disk, &clock).history(0).open("/store").expect("a clean opening");
    remove_everything(&store);
    clock.advance(Duration::from_millis(2 * RETENTION));
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).expect("a collection");
    assert_eq!(store.blobs().count(), 0, "{context}: what nothing holds is gone");
    store.checkpoint().expect("a checkpoint");
    let runs = disk.list(Path::new("/store/runs")).expect("a directory").into_iter();
    let len = |name| disk.read_file(Path::new("/store/runs").join(name)).expect("a file").len() as u64;
    let bytes: u64 = runs.filter(|name| name.ends_with(".run")).map(len).sum();
    assert_eq!(bytes, store.usage().expect("facts").run_bytes, "{context}: a run that nothing names");
    store.close().expect("a clean close");
    let files = content_files(disk);
    assert!(files.len() <= 1 && files.iter().all(|file| file.ends_with(".log")), "{context}: {files:?}");
}

/// A history that meets everything: that of the crash tests, with content of several pieces, and what else there is.
fn acts(seed: u64, is_encrypted: bool) -> Vec<Act> {
    let mut random = Random(seed);
    let large = |random: &mut Random| Step::Put { content: random.bytes(200_000), algorithm: Algorithm::Blake3 };
    let steps = tour().into_iter().chain([large(&mut random)]).chain(history(&mut random, 40));
    let mut acts: Vec<Act> = steps.map(Act::Step).collect();
    let more = if is_encrypted { vec![Act::Rotate, Act::Domain, Act::Check] } else { vec![Act::Check] };
    let at = acts.len() / 2;
    acts.splice(at..at, more.clone());
    acts.extend(more);
    acts
}

/// Refuses calls of a history, from each of some on, and so many in a row.
fn shortages(seed: u64, new: fn() -> SimVfs, in_a_row: u64, points: u64) {
    let acts = acts(seed, new().files().iter().any(|path| path == Path::new("/key")));
    let first = new().calls() + 1;
    let (last, failed) = run(new(), &acts, 0..0, "without a shortage");
    assert!(!failed);
    let is_exhaustive = std::env::var_os("STRONGROOM_EXHAUSTIVE").is_some();
    let stride = if is_exhaustive { 1 } else { ((last - first) / points).max(1) };
    let (next, met, failed) = (AtomicU64::new(first + seed % stride), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            let at = next.fetch_add(stride, Ordering::Relaxed);
            if at > last {
                return;
            }
            let context = format!("seed {seed} call {at} and {} more refused", in_a_row - 1);
            let (_, has_failed) = run(new(), &acts, at..at + in_a_row, &context);
            met.fetch_add(1, Ordering::Relaxed);
            failed.fetch_add(u64::from(has_failed), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| [scope.spawn(work), scope.spawn(work)].map(|one| one.join().expect("it holds")));
    let (met, failed) = (met.into_inner(), failed.into_inner());
    tell(&format!("{met} of {last} calls refused, {in_a_row} in a row: {failed} operations failed"));
    assert!(failed > met / 4, "{failed} of {met}");
}

#[test]
fn a_shortage_costs_the_call_that_met_it_and_nothing_else() {
    shortages(seed(0x5407), SimVfs::new, 1, 150);
}

#[test]
fn a_shortage_that_lasts_for_some_calls_costs_those_and_nothing_else() {
    shortages(seed(0x5408), SimVfs::new, 7, 100);
}

#[test]
fn a_shortage_in_an_encrypted_store_costs_the_call_that_met_it_and_nothing_else() {
    shortages(seed(0x5409), encrypted_disk, 1, 100);
}

#[test]
fn a_store_that_lost_its_format_is_not_created_anew_since_something_is_short() {
    let disk = SimVfs::new();
    let open = |disk: &SimVfs| options(disk, &Clock::manual()).open("/store");
    let store = open(&disk).expect("a working store");
    store.put("content", Algorithm::Sha256).expect("a working store");
    store.close().expect("a clean close");
    disk.remove(Path::new("/store/FORMAT")).expect("it is there");
    for call in 1.. {
        let left = disk.restarted();
        left.shortage_during(call..call + 1);
        let error = open(&left).map(drop).expect_err("there is no FORMAT");
        assert!(error.is_shortage() || matches!(error, Error::Corrupt { .. }), "call {call}: {error}");
        if left.calls() < call {
            break;
        }
        left.shortage_during(0..0);
        assert!(matches!(open(&left), Err(Error::Corrupt { .. })), "call {call}");
    }
}

#[test]
fn what_a_failed_write_has_left_goes_while_the_store_is_open() {
    for call in 1.. {
        let disk = SimVfs::new();
        let store = options(&disk, &Clock::manual()).open("/store").expect("a working store");
        store.put("before", Algorithm::Sha256).expect("a working store");
        let refused = disk.calls() + call;
        disk.shortage_during(refused..refused + 3);
        let put = store.put(Random(1).bytes(5000), Algorithm::Sha256);
        let is_past = disk.calls() < refused;
        disk.shortage_during(0..0);
        store.checkpoint().expect("maintenance");
        let segments = disk.files().iter().filter(|path| path.to_string_lossy().ends_with(".seg")).count();
        // Where the log was written to, and could not be sealed before that, it may have the record.
        let is_of_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
        let is_unknown = |error: &Error| matches!(error, Error::Io { operation: "write", path, .. } if is_of_log(path));
        if !put.as_ref().is_err_and(is_unknown) {
            assert_eq!(segments, usize::from(put.is_ok()), "call {call}: {put:?}");
        }
        if is_past {
            assert!(call > 5, "{call} calls");
            break;
        }
    }
}

/// Options with threads of the store's own.
fn with_threads(disk: &SimVfs) -> Options {
    let options = Options::new().create(true).vfs(Arc::new(disk.clone())).inline_max(1000);
    options.collect_every(Duration::from_secs(3600), CollectOptions::new())
}

#[test]
fn a_store_whose_threads_can_not_be_started_does_not_open_and_opens_later() {
    let disk = SimVfs::new();
    for left in [0, 1] {
        limit_threads(Some(left));
        let refused = with_threads(&disk).open("/store");
        limit_threads(None);
        let error = refused.expect_err("two threads are needed");
        assert!(error.is_shortage() && matches!(error, Error::Io { operation: "start a thread of", .. }), "{error}");
        let store = with_threads(&disk).open("/store").expect("the lock was given back");
        store.put([left as u8], Algorithm::Sha256).expect("a working store");
        store.close().expect("a clean close");
    }
}

#[test]
fn long_content_is_stored_where_no_thread_can_be_started() {
    let disk = SimVfs::new();
    let store = with_threads(&disk).open("/store").expect("a working store");
    let content = Random(1).bytes(3 << 20);
    limit_threads(Some(0));
    let digest = store.put(&content, Algorithm::Sha256);
    let again = store.put_reader(&content[..], Algorithm::Blake3);
    limit_threads(None);
    for digest in [digest, again] {
        let digest = digest.expect("the caller's own thread does it");
        assert_eq!(store.get(&digest.digest).expect("stored").bytes().expect("content"), content);
    }
}

#[test]
fn names_are_listed_by_the_facts_until_their_view_can_be_opened() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || Options::new().create(true).maintenance(Maintenance::Inline).open(dir.path().join("store"));
    let pin = |store: &Store, name: &str| {
        let digest = store.put(name, Algorithm::Sha256)?.digest;
        store.named().set(name, &digest, PutNamed::new())
    };
    let store = open().expect("a working store");
    pin(&store, "first").expect("a working store");
    store.close().expect("a clean close");
    limit_threads(Some(3));
    let store = open().expect("no thread is needed");
    pin(&store, "second").expect("a working store");
    assert_eq!(file_names(&store).expect("names"), ["first", "second"]);
    limit_threads(None);
    store.checkpoint().expect("a checkpoint");
    assert_eq!(file_names(&store).expect("names"), ["first", "second"]);
    pin(&store, "third").expect("a working store");
    store.close().expect("a clean close");
    let store = open().expect("a working store");
    assert_eq!(file_names(&store).expect("names"), ["first", "second", "third"]);
}
