//! A tenant disables its key, or the service that keeps it is down, when the store is opened: that tenant gets errors,
//! nobody else does, and when the key is back so is all that was there, whatever happened meanwhile.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom::keys::{KeyContext, KeyError, KeyProvider, SecretKey};
use strongroom::registry::{RepositoryDeletion, RepositorySettings};
use strongroom::vfs::{RealVfs, SimVfs};
use strongroom::{
    Algorithm, Clock, CollectOptions, Digest, Error, Lsn, Maintenance, Options, ScrubOptions, Store, UploadId,
};

use super::domains::{assert_gone, without};
use super::lab::{
    DOMAINS, Keeper, Known, Mood, Seen, assert_sound, build, domain, events, fill, finish, open, repository_of,
    rewrite, see,
};
use crate::common::registry::{name, push_image};
use crate::common::{self, Random, seed};

/// The number of the domain that is locked, of `DOMAINS[0]`.
pub const LOCKED: u32 = 1;

const MOODS: [Mood; 3] = [Mood::Denied, Mood::Gone, Mood::Unreachable];

pub fn locked_name() -> strongroom::registry::RepositoryName {
    name(&repository_of(Some(DOMAINS[0])))
}

/// Whether a call failed with what the keeper says in this mood, of the locked domain.
pub fn is_refused<T>(result: &Result<T, Error>, mood: Mood) -> bool {
    let Err(Error::Key { domain: LOCKED, source }) = result else { return false };
    match mood {
        Mood::Denied => matches!(source, KeyError::Denied { .. }),
        Mood::Gone => matches!(source, KeyError::Gone { .. }),
        Mood::Unreachable => matches!(source, KeyError::Unreachable { .. }),
    }
}

/// A store with something in all domains, of which the first tenant's is locked when it is opened.
pub struct Subject {
    pub disk: SimVfs,
    pub keeper: Arc<Keeper>,
    clock: Clock,
    seen: Seen,
    /// What there is but for the locked domain.
    rest: Seen,
    rest_known: Known,
}

impl Subject {
    pub fn new() -> Self {
        let keeper = Keeper::new(1);
        let (disk, known) = build(Some(&keeper));
        Self::of(disk, keeper, known)
    }

    /// The same, of which the last commits are in the log only, the locked domain's among them, as a kill leaves them.
    pub fn killed() -> Self {
        let keeper = Keeper::new(1);
        let (disk, mut known) = build(Some(&keeper));
        let store = open(&disk, Some(&keeper)).unwrap();
        fill(&store, Some(DOMAINS[0]), 5, &mut known);
        let disk = disk.restarted();
        drop(store);
        Self::of(disk, keeper, known)
    }

    fn of(disk: SimVfs, keeper: Arc<Keeper>, known: Known) -> Self {
        let seen = see(&open(&disk.restarted(), Some(&keeper)).unwrap());
        let (rest, rest_known) = without(&seen, &known, DOMAINS[0]);
        Self { disk, keeper, clock: Clock::manual(), seen, rest, rest_known }
    }

    pub fn options(&self, disk: &SimVfs) -> Options {
        let options = common::options(disk, &self.clock);
        options.key_provider(Arc::clone(&self.keeper) as Arc<dyn KeyProvider>).retention(Duration::from_secs(3600))
    }

    pub fn open_on(&self, disk: &SimVfs) -> Store {
        self.options(disk).open("/store").unwrap()
    }

    /// Opens it without the tenant's key.
    pub fn open_locked_on(&self, disk: &SimVfs) -> Store {
        self.keeper.refuse_domain(LOCKED, Mood::Denied);
        let store = self.open_on(disk);
        let locked = store.health().locked;
        assert_eq!(locked.len(), store.locked_domains().len());
        assert_eq!(locked.iter().map(|domain| domain.number).collect::<Vec<_>>(), [LOCKED]);
        store
    }

    /// Opens it with the tenant's key.
    pub fn open_unlocked_on(&self, disk: &SimVfs) -> Store {
        self.keeper.answer_again();
        let store = self.open_on(disk);
        let locked = store.locked_domains();
        assert!(locked.is_empty(), "{locked:?}");
        store
    }

    pub fn open_locked(&self) -> Store {
        self.open_locked_on(&self.disk)
    }

    fn compare(seen: &Seen, expected: &Seen, context: &str) {
        assert!(seen == expected, "{context}: {}", seen.difference(expected));
    }

    /// What the locked domain has, in a store in which others have changed.
    pub fn assert_back(&self, store: &Store, context: &str) {
        let seen = see(store);
        let own = repository_of(Some(DOMAINS[0]));
        let part = |seen: &Seen| {
            let repositories = seen.repositories.iter().filter(|(name, _)| **name == own).map(clone).collect();
            let is_own = |(_, (owner, _)): &(&UploadId, &(Option<String>, u64))| owner.as_ref() == Some(&own);
            let uploads = seen.uploads.iter().filter(is_own).map(clone).collect();
            let is_own = |((owner, _), _): &(&(Option<String>, String), _)| owner.as_deref() == Some(DOMAINS[0]);
            let files = seen.files.iter().filter(is_own).map(clone).collect();
            Seen { files, repositories, uploads, ..Seen::default() }
        };
        Self::compare(&part(&seen), &part(&self.seen), context);
    }
}

fn clone<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

/// What others do in the meantime: enough that tables are folded, runs merged, log files dropped.
pub fn others_go_on(store: &Store, round: u64) -> Result<Vec<(Digest, Vec<u8>)>, Error> {
    let mut kept = Vec::new();
    let mut random = Random(round);
    let tenant = store.repository(&name(&repository_of(Some(DOMAINS[1]))))?;
    for n in 0..6 {
        let content = random.bytes(if n == 3 { 5000 } else { 900 });
        let digest = store.put(&content, Algorithm::Sha256)?.digest;
        if n % 3 == 1 {
            store.remove(&digest)?;
        } else {
            kept.push((digest, content.clone()));
        }
        let theirs = tenant.put(&content[..500], Algorithm::Sha256)?.digest;
        if n % 2 == 0 {
            tenant.remove_blob(&theirs)?;
        }
    }
    Ok(kept)
}

pub fn assert_kept(store: &Store, kept: &[(Digest, Vec<u8>)], context: &str) {
    for (digest, content) in kept {
        let read = store.get(digest).and_then(|blob| blob.bytes());
        assert!(read.as_ref().is_ok_and(|read| read == content), "{context}: {read:?}");
    }
}

#[test]
fn a_domain_whose_key_is_refused_is_locked_and_no_other_is() {
    for mood in MOODS {
        let subject = Subject::new();
        subject.keeper.refuse_domain(LOCKED, mood);
        let store = subject.open_on(&subject.disk);
        let locked = store.locked_domains();
        assert_eq!(locked.len(), 1);
        assert_eq!((locked[0].number, locked[0].name.clone()), (LOCKED, Some(domain(DOMAINS[0]))));
        assert!(is_refused(&Err::<(), _>(locked[0].error.clone()), mood));
        assert_eq!(store.domains().len(), 3, "it is one of the store's domains all the same");
        let own = || RepositorySettings::new().domain(domain(DOMAINS[0]));
        assert!(is_refused(&store.repository(&locked_name()), mood));
        assert!(is_refused(&store.create_repository(&name("tenant/new"), own()), mood));
        assert!(is_refused(&store.ensure_repository(&locked_name(), own()), mood));
        assert!(is_refused(&store.delete_repository(&locked_name(), RepositoryDeletion::WithContents), mood));
        assert!(is_refused(&store.rotate_data_key(Some(&domain(DOMAINS[0]))), mood));
        // Its name is nobody else's.
        for settings in [RepositorySettings::new(), RepositorySettings::new().domain(domain(DOMAINS[1]))] {
            assert!(is_refused(&store.create_repository(&locked_name(), settings.clone()), mood));
            assert!(is_refused(&store.create_on_push(&locked_name(), settings), mood));
        }
        assert!(matches!(store.create_domain(&domain(DOMAINS[0]), None), Err(Error::DomainExists { .. })));
        Subject::compare(&see(&store), &subject.rest, "the others");
        // And they are not told of it.
        assert!(matches!(store.repository(&name("who/knows")), Err(Error::RepositoryNotFound { .. })));
        assert!(!store.repositories(None, 99).unwrap().items.contains(&locked_name()));
        let tenant = store.repository(&name(&repository_of(Some(DOMAINS[1])))).unwrap();
        let missing = Digest::of(Algorithm::Sha256, b"missing");
        assert!(is_refused(&tenant.mount(&missing, &locked_name(), |_| true), mood));
        let unseen = tenant.mount(&missing, &locked_name(), |_| false);
        assert!(matches!(unseen, Err(Error::BlobNotFound { .. })));
        push_image(&store.create_repository(&name("others/new"), RepositorySettings::new()).unwrap(), "new", &["v1"]);
        store.create_domain(&domain("another"), None).unwrap();
        store.delete_repository(&name("others/new"), RepositoryDeletion::WithContents).unwrap();
        store.rotate_data_key(None).unwrap();
        finish(&store, &subject.rest_known);
        subject.keeper.answer_again();
        assert!(store.unlock_domains().is_empty());
        subject.assert_back(&store, "unlocked");
        fill(&store, Some(DOMAINS[0]), 7, &mut Known::default());
        assert_sound(&store);
        store.close().unwrap();
        assert_sound(&subject.open_unlocked_on(&subject.disk));
    }
}

#[test]
fn the_default_domain_must_open() {
    let subject = Subject::new();
    for mood in MOODS {
        subject.keeper.refuse_domain(0, mood);
        let error = subject.options(&subject.disk).open("/store").unwrap_err();
        assert!(matches!(error, Error::Key { domain: 0, .. }), "{error}");
    }
    Subject::compare(&see(&subject.open_unlocked_on(&subject.disk)), &subject.seen, "with its key");
}

#[test]
fn a_locked_domain_outlives_everything_that_is_done_to_the_others() {
    for subject in [Subject::new(), Subject::killed()] {
        let mut kept = Vec::new();
        for round in 0..3 {
            let store = subject.open_locked();
            let context = format!("round {round}");
            if round == 0 {
                Subject::compare(&see(&store), &subject.rest, &context);
            }
            kept.extend(others_go_on(&store, round).unwrap());
            store.checkpoint().unwrap();
            store.merge_runs().unwrap();
            subject.clock.advance(Duration::from_secs(7200));
            for (digest, _) in kept.drain(..) {
                assert!(store.exists(&digest).unwrap());
            }
            let collected = store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(())).unwrap();
            assert!(collected.blobs > 0, "{collected:?}");
            assert_eq!(collected.locked.len(), 1);
            let scrubbed = store.scrub(&ScrubOptions::new().restart(true), |_| ControlFlow::Continue(())).unwrap();
            assert!(scrubbed.is_sound() && scrubbed.complete && scrubbed.locked.len() == 1, "{scrubbed:#?}");
            let verified = store.verify(|_| {}).unwrap();
            assert!(verified.findings.is_empty() && verified.locked.len() == 1, "{verified:#?}");
            store.rotate_data_key(None).unwrap();
            store.rotate_data_key(Some(&domain(DOMAINS[1]))).unwrap();
            let rewritten = store.rewrite(|_| ControlFlow::Continue(())).unwrap();
            assert!(!rewritten.complete && rewritten.locked.len() == 1 && rewritten.damaged.is_empty());
            let tenant = store.domains().into_iter().find(|one| one.name == Some(domain(DOMAINS[1]))).unwrap();
            assert_eq!(tenant.keys.len(), 1, "its old key is given up");
            let mut store = store;
            let repaired = store.repair(|_| ControlFlow::Continue(())).unwrap();
            assert!(repaired.mended == 0 && repaired.left.is_sound(), "{repaired:#?}");
            kept.extend(others_go_on(&store, 10 + round).unwrap());
            assert_kept(&store, &kept, &context);
            store.close().unwrap();
        }
        let store = subject.open_unlocked_on(&subject.disk);
        subject.assert_back(&store, "unlocked by opening");
        assert_kept(&store, &kept, "unlocked by opening");
        rewrite(&store);
        subject.assert_back(&store, "rewritten");
        let scrubbed = store.scrub(&ScrubOptions::new().restart(true), |_| ControlFlow::Continue(())).unwrap();
        assert!(scrubbed.is_sound() && scrubbed.locked.is_empty(), "{scrubbed:#?}");
        store.close().unwrap();
        assert_empties(&subject);
    }
}

/// Of a store that is emptied next to nothing remains, whatever was withheld before.
fn assert_empties(subject: &Subject) {
    let store = subject.open_unlocked_on(&subject.disk);
    for domain in store.domains() {
        let files = domain.name.map_or(Ok(store.named()), |name| store.named_in(&name)).unwrap();
        files.remove_prefix("").unwrap();
    }
    for repository in store.repositories(None, 99).unwrap().items {
        store.delete_repository(&repository, RepositoryDeletion::WithContents).unwrap();
    }
    subject.clock.advance(Duration::from_secs(1 << 20));
    store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(())).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    let store = subject.options(&subject.disk).history(0).open("/store").unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    drop(subject.options(&subject.disk).history(0).open("/store").unwrap());
    let extension = |wanted: &str| {
        let has = |path: &&std::path::PathBuf| path.extension().is_some_and(|found| found == wanted);
        subject.disk.files().iter().filter(has).count()
    };
    assert_eq!(extension("seg"), 0);
    assert!(extension("log") <= 1, "{:?}", subject.disk.files());
}

#[test]
fn what_nobody_had_folded_is_there_after_unlocking_in_any_order_of_things() {
    let subject = Subject::killed();
    for folds in [false, true] {
        for reopens in [false, true] {
            let context = format!("folds: {folds}, reopens: {reopens}");
            let disk = subject.disk.restarted();
            let mut store = subject.open_locked_on(&disk);
            let kept = others_go_on(&store, 1).unwrap();
            if folds {
                store.checkpoint().unwrap();
            }
            if reopens {
                store.close().unwrap();
                store = subject.open_locked_on(&disk);
            }
            subject.keeper.answer_again();
            assert!(store.unlock_domains().is_empty(), "{context}");
            subject.assert_back(&store, &context);
            // Changed since, and lost from memory: what is newer counts.
            let own = store.repository(&locked_name()).unwrap();
            let tags = own.tags(None, 99).unwrap().items;
            own.untag(&tags[0]).unwrap();
            let blob = own.put("after unlocking", Algorithm::Sha256).unwrap().digest;
            drop(store);
            for disk in [disk.restarted(), disk.power_cut(3)] {
                let store = subject.open_unlocked_on(&disk);
                let own = store.repository(&locked_name()).unwrap();
                assert_eq!(own.tags(None, 99).unwrap().items, tags[1..], "{context}");
                assert_eq!(own.get(&blob).unwrap().bytes().unwrap(), "after unlocking", "{context}");
                assert_kept(&store, &kept, &context);
                assert_sound(&store);
            }
        }
    }
}

#[test]
fn a_call_unlocks_its_domain_and_the_keeper_is_not_asked_by_each() {
    let subject = Subject::new();
    let store = subject.open_locked();
    let asked = || subject.keeper.asked.swap(0, Ordering::SeqCst);
    asked();
    let call = || store.repository(&locked_name()).map(drop);
    for _ in 0..100 {
        assert!(is_refused(&call(), Mood::Denied));
        let _ = store.repository(&name("default/application")).unwrap();
        let _ = store.repository(&name("who/knows")).unwrap_err();
    }
    assert_eq!(asked(), 1);
    subject.clock.advance(Duration::from_millis(4_999));
    assert!(is_refused(&call(), Mood::Denied));
    assert_eq!(asked(), 0);
    subject.keeper.refuse_domain(LOCKED, Mood::Gone);
    subject.clock.advance(Duration::from_millis(1));
    for _ in 0..100 {
        assert!(is_refused(&call(), Mood::Gone), "what it says now");
    }
    assert_eq!(asked(), 1);
    assert_eq!(store.unlock_domains().len(), 1);
    assert_eq!(asked(), 1, "whoever asks for it need not wait");
    subject.keeper.answer_again();
    assert!(is_refused(&call(), Mood::Gone));
    subject.clock.advance(Duration::from_secs(5));
    call().unwrap();
    Subject::compare(&see(&store), &subject.seen, "unlocked by a call");
}

/// A provider that does not answer for a domain while the test holds the gate.
#[derive(Debug)]
struct Hanging {
    keeper: Arc<Keeper>,
    gate: Mutex<()>,
    waiting: AtomicU64,
}

impl KeyProvider for Hanging {
    fn key_id(&self) -> Result<String, KeyError> {
        self.keeper.key_id()
    }

    fn wrap(&self, key_id: &str, key: &SecretKey, context: &KeyContext) -> Result<Vec<u8>, KeyError> {
        self.keeper.wrap(key_id, key, context)
    }

    fn unwrap(&self, key_id: &str, wrapped: &[u8], context: &KeyContext) -> Result<SecretKey, KeyError> {
        if context.domain == LOCKED {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            drop(self.gate.lock().unwrap());
        }
        self.keeper.unwrap(key_id, wrapped, context)
    }
}

#[test]
fn a_keeper_that_hangs_holds_up_one_caller_and_nobody_else() {
    let subject = Subject::new();
    let provider =
        Arc::new(Hanging { keeper: Arc::clone(&subject.keeper), gate: Mutex::default(), waiting: AtomicU64::new(0) });
    subject.keeper.refuse_domain(LOCKED, Mood::Unreachable);
    let store = subject.options(&subject.disk).key_provider(provider.clone()).open("/store").unwrap();
    subject.keeper.answer_again();
    provider.waiting.store(0, Ordering::SeqCst);
    let gate = provider.gate.lock().unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| store.repository(&locked_name()).map(drop));
        while provider.waiting.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        for _ in 0..10 {
            assert!(is_refused(&store.repository(&locked_name()), Mood::Unreachable));
        }
        // Others read and write, change keys, fold, collect.
        others_go_on(&store, 1).unwrap();
        store.checkpoint().unwrap();
        store.rotate_data_key(None).unwrap();
        store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(provider.waiting.load(Ordering::SeqCst), 1);
        drop(gate);
        first.join().unwrap().unwrap();
    });
    subject.assert_back(&store, "when it answered");
}

#[test]
fn no_call_and_no_closing_waits_for_a_keeper_that_hangs_where_there_are_threads() {
    let subject = Subject::new();
    let provider =
        Arc::new(Hanging { keeper: Arc::clone(&subject.keeper), gate: Mutex::default(), waiting: AtomicU64::new(0) });
    subject.keeper.refuse_domain(LOCKED, Mood::Unreachable);
    let open = || {
        let options = subject.options(&subject.disk).maintenance(Maintenance::Thread);
        options.key_provider(provider.clone()).open("/store").unwrap()
    };
    let store = open();
    subject.keeper.answer_again();
    provider.waiting.store(0, Ordering::SeqCst);
    let gate = provider.gate.lock().unwrap();
    while provider.waiting.load(Ordering::SeqCst) == 0 {
        assert!(is_refused(&store.repository(&locked_name()), Mood::Unreachable));
    }
    others_go_on(&store, 1).unwrap();
    store.close().unwrap();
    assert_eq!(provider.waiting.load(Ordering::SeqCst), 1);
    drop(gate);
    subject.keeper.refuse_domain(LOCKED, Mood::Unreachable);
    let store = open();
    subject.keeper.answer_again();
    // The first call has it asked; one of the next finds it unlocked.
    while let Err(error) = store.repository(&locked_name()) {
        assert!(matches!(error, Error::Key { domain: LOCKED, .. }), "{error}");
        std::thread::yield_now();
    }
    subject.assert_back(&store, "when it answered");
}

#[test]
fn a_domain_is_unlocked_while_everybody_works() {
    let seed = seed(0x10ad);
    for round in 0..4 {
        let subject = Subject::killed();
        let store = subject.open_locked();
        subject.keeper.answer_again();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|n| {
                    let (store, stop) = (&store, &stop);
                    scope.spawn(move || {
                        let mut kept = Vec::new();
                        for round in 0.. {
                            if stop.load(Ordering::Relaxed) {
                                break;
                            }
                            let mut random = Random(seed ^ n << 32 ^ round);
                            let content = random.bytes(600);
                            kept.push((store.put(&content, Algorithm::Sha256).unwrap().digest, content));
                            // All of it or nothing.
                            if let Ok(own) = store.repository(&locked_name()) {
                                assert!(
                                    !own.tags(None, 99).unwrap().items.is_empty()
                                        && !own.uploads(None, 1000).unwrap().items.is_empty()
                                );
                            }
                            let names = store.repositories(None, 99).unwrap().items;
                            assert!(names.len() == 3 || names.len() == 2, "{names:?}");
                        }
                        kept
                    })
                })
                .collect();
            if round % 2 == 0 {
                store.checkpoint().unwrap();
            }
            assert!(store.unlock_domains().is_empty());
            let own = store.repository(&locked_name()).unwrap();
            let digest = own.put("at once", Algorithm::Sha256).unwrap().digest;
            own.remove_blob(&digest).unwrap();
            stop.store(true, Ordering::Relaxed);
            for worker in workers {
                assert_kept(&store, &worker.join().unwrap(), "beside unlocking");
            }
        });
        subject.assert_back(&store, "unlocked");
        store.close().unwrap();
        let store = subject.open_unlocked_on(&subject.disk);
        subject.assert_back(&store, "opened again");
    }
}

#[test]
fn a_locked_domain_can_be_shredded() {
    for subject in [Subject::new(), Subject::killed()] {
        let store = subject.open_locked();
        others_go_on(&store, 1).unwrap();
        store.shred_domain(&domain(DOMAINS[0])).unwrap();
        assert!(store.locked_domains().is_empty());
        assert_gone(&store, &subject.disk, &subject.keeper, DOMAINS[0]);
        assert_sound(&store);
        store.close().unwrap();
        let store = subject.open_unlocked_on(&subject.disk);
        assert_gone(&store, &subject.disk, &subject.keeper, DOMAINS[0]);
        store.create_repository(&locked_name(), RepositorySettings::new()).unwrap();
        finish(&store, &subject.rest_known);
        rewrite(&store);
        assert_sound(&store);
        store.close().unwrap();
        assert_empties(&subject);
    }
}

#[test]
fn keys_are_not_wrapped_anew_where_a_locked_domain_would_lose_its_own() {
    let subject = Subject::new();
    let store = subject.open_locked();
    // Its keys are wrapped with the one that is let go of: they would be lost.
    let next = Keeper::new(2);
    let refused = store.rewrap_keys(next.clone());
    assert!(is_refused(&refused, Mood::Denied), "{refused:?}");
    drop(store);
    Subject::compare(&see(&subject.open_unlocked_on(&subject.disk)), &subject.seen, "nothing has changed");
}

#[test]
fn events_of_a_locked_domain_are_told_when_it_is_unlocked() {
    let subject = Subject::killed();
    let options = |disk| subject.options(disk).history(1 << 40);
    subject.keeper.answer_again();
    let store = options(&subject.disk).open("/store").unwrap();
    let all = events(&store).unwrap();
    store.close().unwrap();
    assert!(all.iter().any(|event| event.repository() == Some(&locked_name())));
    subject.keeper.refuse_domain(LOCKED, Mood::Denied);
    let store = options(&subject.disk).open("/store").unwrap();
    let (mut at, mut rest, mut locked) = (Lsn::default(), Vec::new(), Vec::new());
    loop {
        match store.events(at, 100) {
            Err(Error::Gap { oldest }) => at = oldest,
            page => {
                let page = page.unwrap();
                rest.extend(page.events);
                locked.extend(page.locked);
                if std::mem::replace(&mut at, page.next) == page.next {
                    break;
                }
            }
        }
    }
    let others: Vec<_> = all.iter().filter(|event| event.domain != LOCKED).cloned().collect();
    assert_eq!(rest, others);
    assert!(!locked.is_empty() && locked.iter().all(|domain| *domain == LOCKED), "{locked:?}");
    subject.keeper.answer_again();
    assert!(store.unlock_domains().is_empty());
    assert_eq!(events(&store).unwrap(), all);
}

#[test]
fn names_are_listed_without_the_locked_domain_s_and_again_with_them() {
    let keeper = Keeper::new(1);
    let dir = tempfile::tempdir().unwrap();
    let options = || {
        let options = common::options(&SimVfs::new(), &Clock::manual()).vfs(Arc::new(RealVfs));
        options.key_provider(Arc::clone(&keeper) as Arc<dyn KeyProvider>)
    };
    let path = dir.path().join("store");
    let store = options().open(&path).unwrap();
    store.create_domain(&domain(DOMAINS[0]), None).unwrap();
    for n in 0..40 {
        let settings = RepositorySettings::new();
        let settings = if n % 2 == 0 { settings.domain(domain(DOMAINS[0])) } else { settings };
        store.create_repository(&name(&format!("names/{n:02}")), settings).unwrap();
    }
    let all = store.repositories(None, 99).unwrap().items;
    let others: Vec<_> = all.iter().skip(1).step_by(2).cloned().collect();
    store.close().unwrap();
    for round in 0..3 {
        keeper.refuse_domain(LOCKED, Mood::Denied);
        let store = options().open(&path).unwrap();
        assert_eq!(store.repositories(None, 99).unwrap().items, others, "{round}");
        store.put(round.to_string(), Algorithm::Sha256).unwrap();
        keeper.answer_again();
        if round == 1 {
            assert!(store.unlock_domains().is_empty());
            assert_eq!(store.repositories(None, 99).unwrap().items, all, "{round}");
        }
        store.close().unwrap();
        if round == 2 {
            let store = options().open(&path).unwrap();
            assert_eq!(store.repositories(None, 99).unwrap().items, all, "{round}");
            store.close().unwrap();
        }
    }
}
