//! Many clients on the same repositories at once: what each of them saw could have come one after the other.
//!
//! In each round sixteen threads do a few random operations on three repositories, and note when each was called, when
//! it returned and what came of it. Then the operations on each repository must have an order that explains all of it
//! and what the repository holds in the end. An update that was lost, a check that was overtaken or a push that was
//! seen by halves has none.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use strongroom::registry::{ExpectTag, PutManifest, RepositorySettings};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, Digest, Maintenance, Options, Store};

use crate::common::calls::{Call, Kind, NAMES, observe_repository, repositories};
use crate::common::linear::{Operation, Seen, linearize};
use crate::common::registry::{name, tag};
use crate::common::repositories::{Action, Outcome, Push, Refusal, Repository, Settings, apply};
use crate::common::{Model, Random, observe, options, seed};

const CLIENTS: u64 = 16;
const OPERATIONS: usize = 4;
const ROUNDS: u64 = 60;

/// What clients do, as often as they do it.
const KINDS: [Kind; 30] = {
    use Kind::*;
    [
        Put,
        Put,
        Put,
        Put,
        Mount,
        Mount,
        RemoveBlob,
        RemoveBlob,
        Claim,
        Image,
        Image,
        Image,
        Image,
        Index,
        Index,
        Again,
        Tag,
        Tag,
        Tag,
        Untag,
        DeleteManifest,
        DeleteBatch,
        Pull,
        Look,
        Look,
        Look,
        Look,
        Set,
        Create,
        Delete,
    ]
};

/// Draws a call whose effects show: what a manifest holds must follow from its document.
fn draw(model: &Model, random: &mut Random) -> Call {
    loop {
        let kind = KINDS[random.below(KINDS.len() as u64) as usize];
        if kind == Kind::Delete && random.below(16) > 0 {
            continue; // what is deleted with its repository is not there to be contended for
        }
        let Some(mut call) = kind.draw(model, random.below(3), random) else { continue };
        match &mut call.action {
            Action::Put { content, algorithm } => {
                let n = random.below(6);
                *content = Random(n).bytes([10, 700, 3000][n as usize % 3]);
                *algorithm = Algorithm::Sha256;
            }
            Action::PutManifest(push) if push.blobs.iter().any(|(_, may_be_absent)| *may_be_absent) => continue,
            _ => {}
        }
        return call;
    }
}

/// A call of a client, with the moments of its call and its return.
type Made = (Call, Outcome, u64, u64);

fn work(store: &Store, model: &Model, mut random: Random, moment: &AtomicU64) -> Vec<Made> {
    let mut model = model.clone();
    let mut made = Vec::new();
    for _ in 0..OPERATIONS {
        let call = draw(&model, &mut random);
        let called = moment.fetch_add(1, Ordering::SeqCst);
        let outcome = call.run(store).unwrap();
        let returned = moment.fetch_add(1, Ordering::SeqCst);
        model.call(&call, 0); // so that the next ones can be about it
        made.push((call, outcome, called, returned));
    }
    made
}

/// The operations on a repository.
fn operations(made: &[Made], repository: &str) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (call, outcome, called, returned) in made {
        let mut add = |seen| operations.push(Operation { called: *called, returned: *returned, seen });
        if let Action::Mount { digest, from } = &call.action
            && from == repository
        {
            match outcome {
                Outcome::Done => add(Seen::Has(*digest, true)),
                Outcome::Refused(Refusal::BlobNotFound(_)) => add(Seen::Has(*digest, false)),
                _ => {}
            }
        }
        if call.repository == repository {
            add(Seen::Call(Box::new(call.action.clone()), outcome.clone()));
        }
    }
    operations
}

/// Runs rounds on a store, and compares what it holds after each.
fn run(store: &Store, seed: u64, rounds: u64) {
    let mut model = Model::default();
    let moment = AtomicU64::new(0);
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..rounds {
        let barrier = Barrier::new(CLIENTS as usize);
        let made: Vec<Made> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let (barrier, model, moment) = (&barrier, &model, &moment);
                    let random = Random(seed ^ round << 32 ^ client << 16);
                    scope.spawn(move || {
                        barrier.wait();
                        work(store, model, random, moment)
                    })
                })
                .collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        });
        let listed = repositories(store).unwrap();
        for name in NAMES {
            let found = listed.iter().any(|listed| listed == name).then(|| observe_repository(store, name));
            let is_end = |state: &Option<Repository>| state.as_ref().map(Repository::outline) == found;
            let operations = operations(&made, name);
            let start = model.repositories.remove(name);
            let end = linearize(&start, &operations, is_end).unwrap_or_else(|| {
                let operations: Vec<_> = operations.iter().map(|operation| format!("{operation}\n")).collect();
                let operations = operations.concat();
                let states = format!("from {start:#?}\nto {found:#?}");
                panic!("seed {seed} round {round}: no order of these explains {name}\n{states}\n{operations}")
            });
            model.repositories.extend(end.map(|end| (name.to_owned(), end)));
        }
        for (call, outcome, ..) in made {
            let kind = format!("{outcome:?}");
            *outcomes.entry(kind.split(['(', ' ']).next().unwrap().to_owned()).or_default() += 1;
            if let (Action::PutManifest(push), Outcome::Done) = (call.action, outcome) {
                model.put(push.algorithm, &push.content);
                model.pushes.push(push);
            }
        }
        for n in 0..6 {
            model.put(Algorithm::Sha256, &Random(n).bytes([10, 700, 3000][n as usize % 3]));
        }
        if round % 8 == 7 {
            assert!(store.verify(|_| {}).unwrap().findings.is_empty(), "seed {seed} round {round}");
        }
    }
    observe(store);
    println!("{outcomes:?}");
    assert!(outcomes["Done"] > rounds * CLIENTS * OPERATIONS as u64 / 4, "{outcomes:?}");
}

#[test]
fn what_sixteen_clients_see_on_a_simulated_disk_could_have_come_one_after_the_other() {
    let seed = seed(16);
    for (n, maintenance) in (0..).zip([Maintenance::Inline, Maintenance::Thread]) {
        let store = options(&SimVfs::new(), &Clock::manual()).maintenance(maintenance).open("/store").unwrap();
        run(&store, seed ^ n << 60, ROUNDS);
        store.close().unwrap();
    }
}

#[test]
fn what_sixteen_clients_see_on_a_real_disk_could_have_come_one_after_the_other() {
    let seed = seed(17);
    let dir = tempfile::tempdir().unwrap();
    let options = || {
        let options = Options::new().create(true).clock(Clock::manual()).inline_max(2048).log_file_size(256 << 10);
        options.memtable_size(16 << 10).open(dir.path().join("store")).unwrap()
    };
    let store = options();
    run(&store, seed, ROUNDS);
    let before = observe(&store);
    store.close().unwrap();
    assert!(observe(&options()) == before);
}

#[test]
fn a_push_with_many_tags_is_seen_with_all_of_them_or_with_none() {
    let clock = Clock::manual();
    let store = options(&SimVfs::new(), &clock).memtable_size(1 << 20).open("/store").unwrap();
    let repository = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let put = || PutManifest::new("a/b").references([], []);
    let put = (0..200).fold(put(), |put, n| put.tag(tag(&format!("t{n}"))));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = [0; 2];
            while !is_done.load(Ordering::Relaxed) {
                match repository.tags(None, 1000).unwrap().items.len() {
                    0 => seen[0] += 1,
                    200 => seen[1] += 1,
                    some => panic!("{some} of 200 tags"),
                }
                // Who has seen a tag finds it in the list, unless it is removed meanwhile.
                if let Ok(found) = repository.resolve(&tag("t199")) {
                    let listed = repository.tags(Some("t198"), 1).unwrap().items;
                    let again = repository.resolve(&tag("t199"));
                    assert!(!listed.is_empty() || again.ok() != Some(found), "a tag that is there is not listed");
                }
            }
            seen
        });
        for _ in 0..200 {
            clock.advance(Duration::from_millis(1)); // so that a tag that was removed and set again is another one
            let pushed = repository.put_manifest("document", put.clone()).unwrap();
            repository.delete_manifest(&pushed.digest).unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
        println!("{:?}", reader.join().unwrap());
    });
}

fn push(n: u8, tags: &[&str], expect: ExpectTag) -> Action {
    Action::PutManifest(Push {
        content: vec![n],
        algorithm: Algorithm::Sha256,
        media_type: "example/document".to_owned(),
        artifact_type: None,
        subject: None,
        blobs: Vec::new(),
        manifests: Vec::new(),
        explicit: true,
        sparse: false,
        awaits: false,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        expect,
    })
}

/// Whether operations at these moments have an order, if nothing is said of the end.
fn have_an_order(operations: Vec<(u64, u64, Action, Outcome)>) -> bool {
    let mut start = None;
    assert_eq!(apply(&mut start, &Action::Create(Settings::default()), None, 0), Outcome::Done);
    let operation = |(called, returned, action, outcome)| Operation {
        called,
        returned,
        seen: Seen::Call(Box::new(action), outcome),
    };
    let operations: Vec<_> = operations.into_iter().map(operation).collect();
    linearize(&start, &operations, |_| true).is_some()
}

#[test]
fn the_search_finds_an_order_where_there_is_one_and_none_where_an_update_was_lost() {
    let (a, b) = (Digest::of(Algorithm::Sha256, &[1]), Digest::of(Algorithm::Sha256, &[2]));
    let done = || Outcome::Done;
    let resolve = || Action::Resolve("v1".to_owned());
    let put = |n, expect| push(n, &["v1"], expect);
    // At the same time: either may be the last.
    for last in [a, b] {
        assert!(have_an_order(vec![
            (0, 10, put(1, ExpectTag::Any), done()),
            (1, 9, put(2, ExpectTag::Any), done()),
            (11, 12, resolve(), Outcome::Found(last)),
        ]));
    }
    // One after the other: the second was lost.
    assert!(!have_an_order(vec![
        (0, 1, put(1, ExpectTag::Any), done()),
        (2, 3, put(2, ExpectTag::Any), done()),
        (4, 5, resolve(), Outcome::Found(a)),
    ]));
    // Two clients that both moved a tag from where only one of them can have found it.
    let moved = |found| Outcome::Refused(Refusal::TagMoved("v1".to_owned(), found));
    let both = |second| vec![(0, 10, put(1, ExpectTag::Absent), done()), (1, 9, put(2, ExpectTag::Absent), second)];
    assert!(!have_an_order(both(done())));
    assert!(have_an_order(both(moved(Some(a)))));
    assert!(!have_an_order(both(moved(None))));
    // A push whose two tags were seen by halves.
    let names = |names: &[&str]| Outcome::Names(names.iter().map(|name| (*name).to_owned()).collect());
    let seen = |tags: &[&str]| {
        vec![(0, 10, push(1, &["v1", "v2"], ExpectTag::Any), done()), (1, 9, Action::Tags, names(tags))]
    };
    assert!(have_an_order(seen(&[])) && have_an_order(seen(&["v1", "v2"])));
    assert!(!have_an_order(seen(&["v1"])));
    // What a client saw it must see again.
    assert!(!have_an_order(vec![
        (0, 20, put(1, ExpectTag::Any), done()),
        (1, 2, Action::Info(a), Outcome::Count(0)),
        (3, 4, Action::Tags, names(&[])),
    ]));
}

#[test]
fn the_search_finds_a_blob_that_was_taken_from_under_a_manifest() {
    let blob = b"layer".to_vec();
    let digest = Digest::of(Algorithm::Sha256, &blob);
    let Action::PutManifest(mut image) = push(1, &[], ExpectTag::Any) else { panic!("a push") };
    image.blobs.push((digest, false));
    let history = |removed| {
        vec![
            (0, 1, Action::Put { content: blob.clone(), algorithm: Algorithm::Sha256 }, Outcome::Done),
            (2, 10, Action::PutManifest(image.clone()), Outcome::Done),
            (3, 9, Action::RemoveBlob(digest), removed),
        ]
    };
    assert!(have_an_order(history(Outcome::Refused(Refusal::BlobInUse(digest, 1)))));
    assert!(!have_an_order(history(Outcome::Done)));
}
