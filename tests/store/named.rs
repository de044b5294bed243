//! Named files: what a name has is replaced at once, is never half of it, and goes when it is said to go.

mod content;

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use strongroom::registry::{EventKind, Subject};
use strongroom::vfs::SimVfs;
use strongroom::{
    Algorithm, Clock, CollectOptions, Collection, Digest, Error, ExpectNamed, Expires, Lsn, NamedFiles, Options,
    PutNamed, Store,
};

use crate::common::{Random, file_names, observe, options, seed};

const RETENTION: Duration = Duration::from_secs(100);

/// A store in memory whose time is told.
fn lab() -> (Clock, Store) {
    let clock = Clock::manual();
    let store = options(&SimVfs::new(), &clock).retention(RETENTION).open("/store").unwrap();
    (clock, store)
}

fn collect(store: &Store) -> Collection {
    store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap()
}

fn any() -> PutNamed {
    PutNamed::new()
}

#[test]
fn a_name_gives_its_content_from_bytes_from_a_reader_and_from_an_upload() {
    let (_, store) = lab();
    let files = store.named();
    for (n, len) in [0, 100, 2049, 70_000].into_iter().enumerate() {
        let content = Random(n as u64).bytes(len);
        let digest = Digest::of(Algorithm::Sha256, &content);
        let name = format!("from/{n}");
        let first = files.put(&name, &content, any()).unwrap();
        assert_eq!(
            (first.file.digest, first.file.len, first.existed, first.replaced),
            (digest, len as u64, false, None)
        );
        let again = files.put_reader(&name, &content[..], any().digest(digest)).unwrap();
        assert_eq!((again.file.digest, again.existed, again.replaced), (digest, true, Some(digest)));
        assert!(again.lsn > first.lsn && again.lsn == store.last_lsn());

        let upload = store.begin_upload(Algorithm::Sha256).unwrap();
        store.append_upload(upload, 0, Random(99).bytes(len)).unwrap();
        let other = Digest::of(Algorithm::Sha256, &Random(99).bytes(len));
        let refused = files.put_upload(&name, upload, other, any().expect(ExpectNamed::Absent));
        assert!(matches!(refused, Err(Error::NamedChanged { found: Some(found), .. }) if found == digest));
        assert_eq!(store.upload_status(upload).unwrap().offset, len as u64, "the upload is as it was");
        let refused = files.put_upload(&name, upload, Digest::of(Algorithm::Sha256, b"other"), any());
        assert!(matches!(refused, Err(Error::DigestMismatch { .. })));
        let last = files.put_upload(&name, upload, other, any()).unwrap();
        assert_eq!((last.file.digest, last.replaced), (other, Some(digest)));
        assert!(matches!(store.upload_status(upload), Err(Error::UploadNotFound { .. })));
        let found = files.get(&name).unwrap();
        assert_eq!((found.file, found.blob.bytes().unwrap()), (last.file, Random(99).bytes(len).into()));
    }
    let wrong = files.put("wrong", "content", any().digest(Digest::of(Algorithm::Blake3, b"other")));
    assert!(matches!(wrong, Err(Error::DigestMismatch { .. })) && files.stat("wrong").is_err());
    observe(&store);
}

#[test]
fn what_a_name_had_stays_for_the_grace_period_or_goes_with_the_next_collection() {
    let (clock, store) = lab();
    for (content, len) in [("small", 10), ("large", 5000)] {
        let part = |n: u64| Random(n + len).bytes(len as usize);
        let (files, discarding) = (store.named(), store.named().discarding());
        let old = files.put(content, part(1), any()).unwrap().file.digest;
        clock.advance(3 * RETENTION); // it was stored long ago, and is relied on until it is replaced
        let new = files.put(content, part(2), any()).unwrap().file.digest;
        clock.advance(RETENTION / 2);
        collect(&store);
        assert!(store.exists(&old).unwrap() && store.exists(&new).unwrap());
        clock.advance(RETENTION);
        collect(&store);
        assert!(!store.exists(&old).unwrap() && store.exists(&new).unwrap());

        let newest = discarding.put(content, part(3), any()).unwrap().file.digest;
        collect(&store);
        assert!(!store.exists(&new).unwrap() && store.exists(&newest).unwrap());
        // Somebody else relies on it.
        store.claim(&newest).unwrap();
        discarding.remove(content, ExpectNamed::Any).unwrap();
        collect(&store);
        assert!(store.exists(&newest).unwrap());
        clock.advance(RETENTION * 2);
        collect(&store);
        assert!(!store.exists(&newest).unwrap());
    }
    // What two names have goes with the second, and what is set again is not let go of.
    let discarding = store.named().discarding();
    let digest = discarding.put("one", "shared", any()).unwrap().file.digest;
    store.named().put("two", "shared", any()).unwrap();
    store.named().put("two", "shared", any()).unwrap();
    discarding.remove("one", ExpectNamed::Is(digest)).unwrap();
    collect(&store);
    assert_eq!(store.stat(&digest).unwrap().references, 1);
    discarding.remove("two", ExpectNamed::Any).unwrap();
    collect(&store);
    assert!(!store.exists(&digest).unwrap());
    assert_eq!(observe(&store).blobs.len(), 0);
}

#[test]
fn files_expire_by_the_clock_that_was_chosen() {
    let clock = Clock::manual();
    let disk = SimVfs::new();
    let open = |clock: &Clock| options(&disk, clock).retention(RETENTION).open("/store").unwrap();
    let store = open(&clock);
    let files = store.named();
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    files.put("open", "by open time", any().expires_after(Duration::from_secs(50))).unwrap();
    files.put("wall", "by the wall clock", any().expires_at(at(50))).unwrap();
    let never = files.put("never", "never", any()).unwrap().file;
    assert_eq!((never.expires, never.is_expired), (Expires::Never, false));
    clock.advance(Duration::from_secs(30));
    assert_eq!(files.stat("open").unwrap().expires, Expires::After(Duration::from_secs(20)));
    assert_eq!(files.stat("wall").unwrap().expires, Expires::At(at(50)));
    assert_eq!(store.expire(Duration::MAX).unwrap().named, 0);
    store.close().unwrap();

    // Closed for a while: that is no open time.
    clock.advance(Duration::from_secs(40));
    let store = open(&clock);
    let files = store.named();
    assert!(files.stat("wall").unwrap().is_expired && !files.stat("open").unwrap().is_expired);
    assert_eq!(files.get("wall").unwrap().blob.bytes().unwrap(), "by the wall clock", "until it is collected");
    assert_eq!((collect(&store).named, collect(&store).blobs), (1, 0));
    assert!(matches!(files.get("wall"), Err(Error::NamedNotFound { .. })));
    assert!(!store.exists(&Digest::of(Algorithm::Sha256, b"by the wall clock")).unwrap(), "with what it held");
    clock.advance(Duration::from_secs(20));
    assert_eq!(store.expire(Duration::MAX).unwrap().named, 1);
    assert_eq!(file_names(&store).unwrap(), ["never"]);
    // Set again, it does not expire any more, or at another time.
    for put in [any(), any().expires_at(at(1000)), any().expires_after(Duration::from_secs(1000))] {
        files.put("again", "again", any().expires_after(Duration::from_secs(1))).unwrap();
        files.put("again", "again", put).unwrap();
        clock.advance(Duration::from_secs(5));
        assert_eq!(collect(&store).named, 0);
    }
    files.put("past", "past", any().expires_at(SystemTime::UNIX_EPOCH - Duration::from_secs(9))).unwrap();
    assert_eq!(collect(&store).named, 1);
    observe(&store);
}

#[test]
fn names_are_listed_by_prefix_in_order_and_in_pages() {
    let (_, store) = lab();
    let files = store.named();
    let last = "a/\u{10ffff}\u{10ffff}\u{10ffff}";
    let mut names = vec!["a", "a/", "a/1", "a/2", last, "a0", "b", "ä", "\u{10ffff}"];
    for name in names.iter().rev() {
        files.put(name, name, any()).unwrap();
    }
    names.sort_unstable();
    for round in 0..2 {
        for prefix in ["", "a", "a/", "a/1", last, "b", "c", "\u{10ffff}", "\0", "\u{1}"] {
            let expected: Vec<_> = names.iter().copied().filter(|name| name.starts_with(prefix)).collect();
            for limit in [0, 1, 2, 3, 100] {
                let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
                loop {
                    let page = files.list(prefix, after.as_deref(), limit).unwrap();
                    assert!(page.items.len() <= limit.max(1));
                    found.extend(page.items.into_iter().map(|file| file.name));
                    (after, pages) = (page.next, pages + 1);
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(found, expected, "{prefix:?}, {limit} at a time, round {round}");
                assert!(pages <= expected.len() / limit.max(1) + 1);
            }
            let behind = files.list(prefix, Some("a/1"), 100).unwrap().items;
            let expected = expected.iter().filter(|name| **name > "a/1");
            assert!(behind.iter().map(|file| file.name.as_str()).eq(expected.copied()), "{prefix:?}");
        }
        store.checkpoint().unwrap();
    }
}

#[test]
fn a_page_ends_early_where_files_have_very_many_references() {
    let (_, store) = lab();
    let files = store.named();
    let digest = store.put("a part", Algorithm::Sha256).unwrap().digest;
    for name in ["a", "b", "c"] {
        files.put(name, name, any().references(vec![digest; 40_000])).unwrap();
    }
    let page = files.list("", None, 100).unwrap();
    assert_eq!((page.items.len(), page.next.as_deref()), (2, Some("b")));
    assert_eq!(files.list("", page.next.as_deref(), 100).unwrap().items.len(), 1);
    let too_many = files.put("d", "d", any().references(vec![digest; 65_536]));
    assert!(matches!(too_many, Err(Error::TooLarge { .. })));
    // They hold very much, so each goes in a commit of its own.
    let before = store.last_lsn();
    let removed = files.remove_many(&["a", "none", "b", "c"]).unwrap();
    assert_eq!((removed.removed, removed.lsn), (3, store.last_lsn()));
    assert_eq!(store.last_lsn().get() - before.get(), 3);
    assert_eq!(store.stat(&digest).unwrap().references, 0);
}

#[test]
fn many_names_go_in_few_commits() {
    const COUNT: usize = 7_800;
    let dir = tempfile::tempdir().unwrap();
    let store = Options::new().create(true).open(dir.path().join("store")).unwrap();
    let files = store.with_durability(strongroom::Durability::Relaxed).named();
    let names: Vec<String> = (0..COUNT).map(|n| format!("cache/{n:05}")).collect();
    for name in &names {
        files.put(name, name, any().expires_after(Duration::from_nanos(1))).unwrap();
    }
    store.sync().unwrap();
    let before = store.last_lsn();
    let began = std::time::Instant::now();
    let removed = store.named().remove_many(&names[..COUNT / 2]).unwrap();
    println!("{} removals took {:?}", removed.removed, began.elapsed());
    assert_eq!((removed.removed, removed.lsn.get() - before.get()), (COUNT as u64 / 2, 4));
    assert_eq!(store.named().remove_many(&names[..9]).unwrap().removed, 0);
    let removed = store.named().remove_prefix("cache/04").unwrap();
    assert_eq!((removed.removed, removed.lsn.get() - before.get()), (1000, 5));
    // The others expire, 256 at a time.
    let rest = (COUNT - COUNT / 2 - 1000) as u64;
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(store.expire(Duration::MAX).unwrap().named as u64, rest);
    assert!(store.last_lsn().get() - before.get() <= 5 + rest.div_ceil(256));
    assert!(file_names(&store).unwrap().is_empty());
}

#[test]
fn eight_threads_count_by_compare_and_set_and_lose_no_step() {
    const THREADS: u64 = 8;
    const STEPS: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let store = Options::new().create(true).open(dir.path().join("store")).unwrap();
    let conflicts = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let files = store.named().discarding();
                for _ in 0..STEPS {
                    loop {
                        let (count, expect) = match files.get("counter") {
                            Ok(found) => {
                                let text = String::from_utf8(found.blob.bytes().unwrap().to_vec()).unwrap();
                                (text.parse::<u64>().unwrap(), ExpectNamed::Is(found.file.digest))
                            }
                            Err(Error::NamedNotFound { .. }) => (0, ExpectNamed::Absent),
                            Err(error) => panic!("{error}"),
                        };
                        match files.put("counter", (count + 1).to_string(), any().expect(expect)) {
                            Ok(_) => break,
                            Err(Error::NamedChanged { .. }) => conflicts.fetch_add(1, Ordering::Relaxed),
                            Err(error) => panic!("{error}"),
                        };
                    }
                }
            });
        }
    });
    let found = store.named().get("counter").unwrap();
    assert_eq!(found.blob.bytes().unwrap(), (THREADS * STEPS).to_string());
    println!("{} conflicts", conflicts.into_inner());
    collect(&store);
    assert_eq!(store.blobs().count(), 1, "all that was replaced is gone");
}

/// A writer replaces, and a collection removes at once what was replaced: whoever reads gets one or the other whole.
#[test]
fn a_read_never_fails_since_its_file_was_replaced_and_the_content_collected() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().create(true).inline_max(2048).log_file_size(256 << 10).memtable_size(64 << 10);
    let store = options.retention(Duration::ZERO).open(dir.path().join("store")).unwrap();
    let content = |n: u64| Random(n).bytes([100, 3000, 70_000][n as usize % 3]);
    let files = store.named().discarding();
    files.put("it", content(0), any()).unwrap();
    let (is_over, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let found = files.get("it").unwrap();
                    let bytes = found.blob.bytes().unwrap();
                    assert_eq!(Digest::of(Algorithm::Sha256, &bytes), found.file.digest);
                    assert_eq!(bytes.len() as u64, found.file.len);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(())).unwrap();
            }
        });
        for n in 1..400 {
            files.put("it", content(n), any()).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(reads.into_inner() > 100);
    collect(&store);
    assert_eq!(observe(&store).blobs.len(), 1);
}

#[test]
fn names_are_checked_and_closed_handles_say_so() {
    let (_, store) = lab();
    let files = store.named();
    let digest = store.put("content", Algorithm::Sha256).unwrap().digest;
    let missing = Digest::of(Algorithm::Sha256, b"missing");
    for name in ["", "a\nb", "\0", &"x".repeat(1025)] {
        let is_invalid = |result: Result<_, Error>| matches!(result, Err(Error::InvalidName { max: 1024, .. }));
        assert!(is_invalid(files.put(name, "content", any()).map(drop)));
        assert!(is_invalid(files.set(name, &digest, any()).map(drop)));
        assert!(matches!(files.get(name), Err(Error::NamedNotFound { .. })));
        assert!(matches!(files.remove(name, ExpectNamed::Any), Err(Error::NamedNotFound { .. })));
    }
    assert!(matches!(files.set("a", &missing, any()), Err(Error::BlobNotFound { .. })));
    let refused = files.put("a", "new content", any().references([missing]));
    assert!(matches!(refused, Err(Error::BlobNotFound { digest }) if digest == missing));
    assert!(!store.exists(&Digest::of(Algorithm::Sha256, b"new content")).unwrap(), "all or nothing");
    assert!(matches!(store.named_in(&"nowhere".parse().unwrap()), Err(Error::DomainNotFound { .. })));
    for (expect, found) in [(ExpectNamed::Is(digest), None), (ExpectNamed::Absent, Some(digest))] {
        let changed = |result: Result<(), Error>| {
            assert!(matches!(result, Err(Error::NamedChanged { found: seen, .. }) if seen == found));
        };
        changed(files.put("b", "other", any().expect(expect)).map(drop));
        changed(files.remove("b", expect).map(drop));
        files.set("b", &digest, any()).unwrap();
    }
    let iter = files.iter("");
    store.clone().close().unwrap();
    assert!(matches!(files.get("b"), Err(Error::Closed)));
    assert!(matches!(files.put("b", "content", any()), Err(Error::Closed)));
    assert!(matches!(files.remove_prefix(""), Err(Error::Closed)));
    assert!(iter.last().unwrap().is_err());
}

#[test]
fn events_tell_what_became_of_names_and_content() {
    let (clock, store) = lab();
    let files = store.named().discarding();
    let [one, two] = ["one", "two"].map(|content| Digest::of(Algorithm::Sha256, content.as_bytes()));
    files.put("a", "one", any()).unwrap();
    files.put("a", "two", any().expires_after(Duration::from_secs(1))).unwrap();
    files.set("b", &two, any()).unwrap();
    files.remove("b", ExpectNamed::Any).unwrap();
    clock.advance(Duration::from_secs(2));
    collect(&store);
    let events = store.events(Lsn::default(), 100).unwrap().events;
    let name = |name: &str| Subject::NamedFile(name.into());
    let set = |digest, before| EventKind::Set { digest, len: 3, before };
    let expected = [
        (Subject::Store, EventKind::BlobAdded(one)),
        (name("a"), set(one, None)),
        (Subject::Store, EventKind::BlobAdded(two)),
        (name("a"), set(two, Some(one))),
        (name("b"), set(two, None)),
        (name("b"), EventKind::Removed { digest: two }),
        (name("a"), EventKind::Expired { digest: two }),
    ];
    let told: Vec<_> = events.iter().map(|event| (event.subject.clone(), event.kind.clone())).collect();
    assert_eq!(told[..7], expected);
    let gone: HashSet<_> = told[7..].iter().map(|(_, kind)| format!("{kind:?}")).collect();
    assert_eq!(gone, [one, two].map(|digest| format!("{:?}", EventKind::BlobRemoved(digest))).into());
    assert!(events.iter().all(|event| event.domain == 0 && event.repository().is_none()));
    assert_eq!(events[0].lsn, events[1].lsn, "one commit");
}

/// What a client did to the one name, and what came of it.
#[derive(Clone, Copy, Debug)]
enum Did {
    Put { content: Digest, expect: ExpectNamed, outcome: Result<Option<Digest>, Option<Digest>> },
    Removed { expect: ExpectNamed, outcome: Result<(), Option<Digest>> },
    Got(Option<Digest>),
}

impl Did {
    /// What the name has afterwards; `None` where that can't have come of it.
    fn after(self, before: Option<Digest>) -> Option<Option<Digest>> {
        let is_met = |expect| match expect {
            ExpectNamed::Any => true,
            ExpectNamed::Absent => before.is_none(),
            ExpectNamed::Is(digest) => before == Some(digest),
        };
        match self {
            Self::Put { content, expect, outcome: Ok(replaced) } => {
                (is_met(expect) && replaced == before).then_some(Some(content))
            }
            Self::Removed { expect, outcome: Ok(()) } => (is_met(expect) && before.is_some()).then_some(None),
            Self::Put { outcome: Err(found), expect, .. } => (!is_met(expect) && found == before).then_some(before),
            Self::Removed { outcome: Err(found), expect } => {
                (found == before && (!is_met(expect) || before.is_none())).then_some(before)
            }
            Self::Got(found) => (found == before).then_some(before),
        }
    }
}

fn act(files: &NamedFiles, random: &mut Random, known: &[Digest], contents: &[String]) -> Did {
    let expect = match random.below(4) {
        0 => ExpectNamed::Any,
        1 => ExpectNamed::Absent,
        _ => ExpectNamed::Is(known[random.below(known.len() as u64) as usize]),
    };
    match random.below(8) {
        0..=3 => {
            let content = &contents[random.below(contents.len() as u64) as usize];
            let outcome = match files.put("it", content, any().expect(expect)) {
                Ok(written) => Ok(written.replaced),
                Err(Error::NamedChanged { found, .. }) => Err(found),
                Err(error) => panic!("{error}"),
            };
            Did::Put { content: Digest::of(Algorithm::Sha256, content.as_bytes()), expect, outcome }
        }
        4 => match files.remove("it", expect) {
            Ok(_) => Did::Removed { expect, outcome: Ok(()) },
            Err(Error::NamedChanged { found, .. }) => Did::Removed { expect, outcome: Err(found) },
            Err(Error::NamedNotFound { .. }) => Did::Removed { expect, outcome: Err(None) },
            Err(error) => panic!("{error}"),
        },
        5 => match files.list("", None, 9).unwrap().items.first() {
            Some(file) => Did::Got(Some(file.digest)),
            None => Did::Got(None),
        },
        _ => match files.get("it") {
            Ok(found) => {
                let digest = Digest::of(Algorithm::Sha256, &found.blob.bytes().unwrap());
                assert_eq!(digest, found.file.digest);
                Did::Got(Some(digest))
            }
            Err(Error::NamedNotFound { .. }) => Did::Got(None),
            Err(error) => panic!("{error}"),
        },
    }
}

/// Whether operations, each with the moments of its call and its return, have an order that explains them.
fn has_order(
    made: &[(Did, u64, u64)],
    done: u64,
    now: Option<Digest>,
    known: &mut HashSet<(u64, Option<Digest>)>,
) -> bool {
    if done.count_ones() as usize == made.len() {
        return true;
    }
    if !known.insert((done, now)) {
        return false;
    }
    let open = || made.iter().enumerate().filter(|(n, _)| done & 1 << n == 0);
    let first_return = open().map(|(_, (_, _, returned))| *returned).min().unwrap();
    let mut next = open().filter(|(_, (_, called, _))| *called <= first_return);
    next.any(|(n, (did, ..))| did.after(now).is_some_and(|after| has_order(made, done | 1 << n, after, known)))
}

#[test]
fn what_many_clients_saw_of_a_name_could_have_come_one_after_the_other() {
    const CLIENTS: u64 = 8;
    let seed = seed(11);
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().create(true).memtable_size(8 << 10).log_file_size(64 << 10);
    let store = options.retention(Duration::ZERO).open(dir.path().join("store")).unwrap();
    let contents: Vec<String> = (0..4).map(|n| format!("content {n}")).collect();
    let known: Vec<Digest> = contents.iter().map(|one| Digest::of(Algorithm::Sha256, one.as_bytes())).collect();
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..60 {
        let (moment, barrier) = (AtomicU64::new(0), Barrier::new(CLIENTS as usize));
        let before = store.named().stat("it").ok().map(|file| file.digest);
        let made: Vec<(Did, u64, u64)> = std::thread::scope(|scope| {
            let threads = (0..CLIENTS).map(|client| {
                let (store, moment, barrier, known, contents) = (&store, &moment, &barrier, &known, &contents);
                scope.spawn(move || {
                    let (files, mut random) = (store.named().discarding(), Random(seed + (round << 8) + client));
                    barrier.wait();
                    let mut made = Vec::new();
                    for _ in 0..4 {
                        let called = moment.fetch_add(1, Ordering::SeqCst);
                        let did = act(&files, &mut random, known, contents);
                        made.push((did, called, moment.fetch_add(1, Ordering::SeqCst)));
                    }
                    if client == 0 {
                        collect(store);
                    }
                    made
                })
            });
            threads.collect::<Vec<_>>().into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert!(has_order(&made, 0, before, &mut HashSet::new()), "round {round} of seed {seed}: {made:#?}");
        for (did, ..) in made {
            let kind = match did {
                Did::Put { outcome, .. } => format!("put {}", outcome.is_ok()),
                Did::Removed { outcome, .. } => format!("removed {}", outcome.is_ok()),
                Did::Got(found) => format!("got {}", found.is_some()),
            };
            *kinds.entry(kind).or_default() += 1;
        }
    }
    assert_eq!(kinds.len(), 6, "{kinds:?}");
}
