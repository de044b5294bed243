//! Any history of operations leaves what a plain model in memory says, with and without a power cut in it, and from
//! several threads at once. A failing history is shrunk to the shortest that fails.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use strongroom::vfs::{Fault, SimVfs};
use strongroom::{Algorithm, Clock, Digest, Options, PutNamed, ReadMode, Store};

use crate::common::calls::{KINDS, Kind};
use crate::common::{Leeway, Model, Pair, Random, Step, files, is_one_of, observe, options, outline, seed};

fn config(cases: u32, default_seed: u64) -> ProptestConfig {
    let rng_seed = RngSeed::Fixed(seed(default_seed));
    ProptestConfig { cases, rng_seed, failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() }
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    // Around the lengths at which something changes: compression, the log or a segment, one block or two.
    let len = select(vec![0, 1, 255, 256, 700, 2047, 2048, 2049, 5000, 65_536, 65_537, 70_000]);
    (len, 0..4u64).prop_map(|(len, kind)| if kind == 0 { vec![7; len] } else { Random(kind).bytes(len) })
}

fn step() -> impl Strategy<Value = Step> {
    let algorithm = || select(vec![Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3]);
    let which = || 0..8u64;
    prop_oneof![
        6 => (content(), algorithm()).prop_map(|(content, algorithm)| Step::Put { content, algorithm }),
        1 => (prop::collection::vec(content(), 1..4), algorithm())
            .prop_map(|(contents, algorithm)| Step::PutMany { contents, algorithm }),
        2 => which().prop_map(Step::Remove),
        6 => (any::<u64>(), algorithm())
            .prop_map(|(draw, algorithm)| Step::File(files::step(&mut Random(draw), algorithm))),
        1 => (algorithm(), prop::option::of(0..3u64))
            .prop_map(|(algorithm, repository)| Step::Begin { algorithm, repository }),
        3 => (which(), content()).prop_map(|(upload, content)| Step::Append { upload, content }),
        1 => (which(), content(), algorithm())
            .prop_map(|(upload, last, algorithm)| Step::Commit { upload, last, algorithm }),
        1 => which().prop_map(Step::Cancel),
        1 => Just(Step::Expire),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        1 => select(vec![20_000, 60_000, 120_000]).prop_map(Step::Wait),
        1 => Just(Step::ExpireBlobs),
        1 => prop::collection::vec(which(), 1..4).prop_map(Step::Claim),
        2 => select(vec![0, 20]).prop_map(Step::Collect),
        16 => (select(KINDS.to_vec()), 0..3u64, 0..1000u64)
            .prop_map(|(kind, repository, pick)| Step::Call { kind, repository, pick }),
    ]
}

/// Repositories and something in one, so that calls on them are about something.
fn first_steps() -> Vec<Step> {
    let call = |(kind, repository, pick)| Step::Call { kind, repository, pick };
    [(Kind::Create, 0, 0), (Kind::Create, 1, 5), (Kind::Put, 0, 0), (Kind::Image, 0, 0)].map(call).to_vec()
}

#[test]
fn any_history_leaves_what_the_model_says() {
    proptest!(config(300, 1), |(steps in prop::collection::vec(step(), 1..50))| {
        let mut pair = Pair::new(&SimVfs::new()).unwrap();
        for step in first_steps().iter().chain(&steps).chain([&Step::Reopen]) {
            pair.run(step).unwrap();
        }
        pair.check_pulls(true);
        prop_assert!(observe(pair.store.as_ref().unwrap()) == outline(&pair.model));
    });
}

#[test]
fn any_history_with_a_power_cut_leaves_the_state_before_or_after_the_operation_under_way() {
    let history = || prop::collection::vec(step(), 1..30);
    proptest!(config(1500, 2), |(steps in history(), at in 1..700u64, draw in any::<u64>())| {
        let disk = SimVfs::new();
        disk.fault_at(at, Fault::PowerCut);
        let (mut before, mut after, mut leeway) = (Model::default(), Model::default(), Leeway::None);
        if let Ok(mut pair) = Pair::new(&disk) {
            let failed = first_steps().iter().chain(&steps).any(|step| pair.run(step).is_err());
            (before, leeway) = (pair.model.clone(), pair.leeway);
            after = if failed { pair.next.clone() } else { pair.model.clone() };
            pair.kill();
        }
        let store = options(&disk.power_cut(draw), &Clock::manual()).open("/store").unwrap();
        prop_assert!(is_one_of(&observe(&store), &before, &after, leeway));
    });
}

#[test]
fn threads_that_put_name_and_remove_at_once_leave_what_each_of_them_expects() {
    const THREADS: u64 = 4;
    const STEPS: u64 = 250;
    let seed = seed(3);
    let dir = tempfile::tempdir().unwrap();
    let opened = || {
        let options = Options::new().create(true).inline_max(4096).log_file_size(256 << 10).memtable_size(16 << 10);
        options.max_open_files(4).read_mode(ReadMode::Mapped).open(dir.path().join("store")).unwrap()
    };
    let store = opened();
    let shared: Vec<Vec<u8>> = (0..6).map(|n| Random(seed ^ n << 50).bytes(100 + 3000 * n as usize)).collect();
    let models: Vec<BTreeMap<Digest, Vec<u8>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (store, shared) = (&store, &shared);
                scope.spawn(move || work(store, shared, thread, Random(seed + thread), STEPS))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let compare = |store: &Store| {
        let mut expected: BTreeMap<Digest, Vec<u8>> = models.iter().flatten().map(|(d, c)| (*d, c.clone())).collect();
        expected.extend(shared.iter().map(|content| (Digest::of(Algorithm::Sha256, content), content.clone())));
        let seen = observe(store);
        assert!(seen.blobs == expected, "{} blobs, {} expected", seen.blobs.len(), expected.len());
        assert_eq!(seen.files.len() as u64, THREADS);
    };
    compare(&store);
    store.close().unwrap();
    compare(&opened());
}

/// Puts, reads, names and removes contents of its own, and some that all threads put and nobody removes; returns its
/// own.
fn work(store: &Store, shared: &[Vec<u8>], thread: u64, mut random: Random, steps: u64) -> BTreeMap<Digest, Vec<u8>> {
    let mut own: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
    let name = format!("thread-{thread}");
    let mut named = None;
    for n in 0..steps {
        let common = &shared[random.below(shared.len() as u64) as usize];
        let common = store.put(common, Algorithm::Sha256).unwrap().digest;
        let len = [10, 600, 5000, 30_000][random.below(4) as usize];
        let mut content = random.bytes(len);
        content.extend([thread, n].iter().flat_map(|n| n.to_le_bytes()));
        let digest = store.put(&content, Algorithm::Sha256).unwrap().digest;
        own.insert(digest, content);
        if n % 5 == 0 {
            store.named().set(&name, &digest, PutNamed::new().references([common])).unwrap();
            named = Some(digest);
        }
        let chosen = *own.keys().nth(random.below(own.len() as u64) as usize).unwrap();
        let blob = store.get(&chosen).unwrap();
        if random.below(2) == 0 && Some(chosen) != named {
            store.remove(&chosen).unwrap();
            assert!(!store.exists(&chosen).unwrap(), "a thread sees its own commits");
            assert_eq!(blob.bytes().unwrap(), own[&chosen], "removed, and still readable");
            own.remove(&chosen);
        } else {
            assert_eq!(blob.bytes().unwrap(), own[&chosen]);
        }
    }
    own
}
