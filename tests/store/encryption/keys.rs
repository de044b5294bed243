//! The wrong key, none, a keeper that refuses: a clear error each, nothing changed, and with the right key everything
//! opens again.

use std::fmt;
use std::sync::Arc;

use strongroom::keys::{KeyContext, KeyError, KeyProvider, LocalKey, Passphrase, PassphraseCost, SecretKey};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, Damage, Error, Store};

use super::disk::fix_crc;
use super::lab::{DOMAINS, Keeper, Mood, Seen, build, domain, open, rewrite, see};
use crate::common;

/// A store that holds this, and whom its keys are wrapped by.
struct Subject {
    disk: SimVfs,
    keeper: Arc<Keeper>,
    seen: Seen,
}

impl Subject {
    fn new() -> Self {
        let keeper = Keeper::new(1);
        let (disk, _) = build(Some(&keeper));
        let seen = see(&open(&disk.restarted(), Some(&keeper)).unwrap());
        Self { disk, keeper, seen }
    }

    fn store(&self) -> Store {
        open(&self.disk, Some(&self.keeper)).unwrap()
    }

    /// With the right key everything is there.
    fn assert_whole(&self, disk: &SimVfs, context: &str) {
        self.keeper.answer_again();
        let seen = see(&open(disk, Some(&self.keeper)).unwrap());
        assert!(seen == self.seen, "{context}: {}", seen.difference(&self.seen));
    }
}

/// A provider like any, around some other, so that a test can change what it does.
struct Strange {
    local: LocalKey,
    wrapped_len: usize,
    id: String,
}

impl fmt::Debug for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Strange")
    }
}

impl KeyProvider for Strange {
    fn key_id(&self) -> Result<String, KeyError> {
        Ok(self.id.clone())
    }

    fn wrap(&self, _: &str, key: &SecretKey, context: &KeyContext) -> Result<Vec<u8>, KeyError> {
        let mut wrapped = self.local.wrap(&self.local.key_id()?, key, context)?;
        wrapped.resize(self.wrapped_len.max(wrapped.len()), 0);
        Ok(wrapped)
    }

    fn unwrap(&self, _: &str, wrapped: &[u8], context: &KeyContext) -> Result<SecretKey, KeyError> {
        self.local.unwrap(&self.local.key_id()?, &wrapped[..61], context)
    }
}

fn strange(wrapped_len: usize, id_len: usize) -> Arc<Strange> {
    let local = LocalKey::new(SecretKey::from_bytes([5; 32]));
    Arc::new(Strange { local, wrapped_len, id: "i".repeat(id_len) })
}

/// A passphrase that costs little.
fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text).cost(PassphraseCost::new(64, 1, 1).unwrap())
}

#[test]
fn the_wrong_key_or_none_opens_nothing_and_changes_nothing() {
    let subject = Subject::new();
    let wrong = Keeper::new(9);
    let before = subject.disk.operations();
    for _ in 0..2 {
        let error = open(&subject.disk, Some(&wrong)).unwrap_err();
        let ids = [subject.keeper.key_id().unwrap(), wrong.key_id().unwrap()];
        let Error::Key { domain: 0, source: KeyError::Wrong { expected, found } } = &error else { panic!("{error}") };
        assert_eq!([expected, found], [&ids[0], &ids[1]]);
        let error = open(&subject.disk, None).unwrap_err();
        assert!(matches!(&error, Error::KeyRequired { path, .. } if path.ends_with("FORMAT")), "{error}");
        let passphrase = passphrase("correct horse");
        let options = common::options(&subject.disk, &Clock::manual()).key_provider(Arc::new(passphrase));
        let error = options.open("/store").unwrap_err();
        assert!(matches!(&error, Error::Key { .. }), "{error}");
    }
    assert!(subject.disk.operations() <= before + 20, "it wrote");
    let (plain, _) = build(None);
    let error = open(&plain, Some(&wrong)).unwrap_err();
    assert!(matches!(&error, Error::NotEncrypted { path } if path.ends_with("FORMAT")), "{error}");
    see(&open(&plain, None).unwrap());
    subject.assert_whole(&subject.disk, "after wrong keys");
}

#[test]
fn a_store_opens_with_a_passphrase_and_with_no_other() {
    let disk = SimVfs::new();
    let open =
        |text: &str| common::options(&disk, &Clock::manual()).key_provider(Arc::new(passphrase(text))).open("/store");
    let store = open("correct horse").unwrap();
    let digest = store.put("battery staple", Algorithm::Sha256).unwrap().digest;
    store.close().unwrap();
    let error = open("incorrect horse").unwrap_err();
    assert!(matches!(&error, Error::Key { domain: 0, .. }), "{error}");
    assert_eq!(open("correct horse").unwrap().get(&digest).unwrap().bytes().unwrap(), "battery staple");
}

#[test]
fn a_damaged_wrapped_key_is_told_from_a_wrong_one() {
    let subject = Subject::new();
    let wrapped = subject.keeper.wrapped(1).remove(0);
    for at in [0, 1, 20, 60] {
        let disk = subject.disk.restarted();
        disk.tamper("/store/FORMAT", |bytes| {
            let place = bytes.windows(wrapped.len()).position(|window| window == wrapped).unwrap();
            bytes[place + at] ^= 1;
            let end = bytes.len() - 4;
            fix_crc(bytes, 128..end);
        })
        .unwrap();
        let error = open(&disk, Some(&subject.keeper)).unwrap_err();
        // The table is verified before the keeper is asked for any domain's key but the default one's.
        let is_told = matches!(&error, Error::Corrupt { file, damage: Damage::Seal, .. } if file.ends_with("FORMAT"));
        assert!(is_told, "byte {at}: {error}");
    }
    let len = subject.disk.read_file("/store/FORMAT").unwrap().len();
    for cut in 0..len {
        let disk = subject.disk.restarted();
        disk.tamper("/store/FORMAT", |bytes| bytes.truncate(cut)).unwrap();
        let error = open(&disk, Some(&subject.keeper)).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { file, .. } if file.ends_with("FORMAT")), "cut at {cut}: {error}");
    }
    subject.assert_whole(&subject.disk, "undamaged");
}

/// What is asked of the keeper, by name.
type Call<'a> = (&'static str, Box<dyn Fn(&Store) -> Result<(), Error> + 'a>);

#[test]
fn a_keeper_that_refuses_changes_nothing_wherever_it_does() {
    let subject = Subject::new();
    let expect = |error: &Error, mood: Mood, context: &str| {
        let Error::Key { source, .. } = error else { panic!("{context}: {error}") };
        let is_refusal = match mood {
            Mood::Denied => matches!(source, KeyError::Denied { .. }),
            Mood::Gone => matches!(source, KeyError::Gone { .. }),
            Mood::Unreachable => matches!(source, KeyError::Unreachable { .. }),
        };
        assert!(is_refusal, "{context}: {error}");
    };
    let next = Keeper::new(2);
    let calls: [Call<'_>; 4] = [
        ("create_domain", Box::new(|store| store.create_domain(&domain("new"), None))),
        ("rotate_data_key", Box::new(|store| store.rotate_data_key(None))),
        ("rotate_data_key of a domain", Box::new(|store| store.rotate_data_key(Some(&domain(DOMAINS[1]))))),
        ("rewrap_keys", Box::new(|store| store.rewrap_keys(next.clone()))),
    ];
    for mood in [Mood::Denied, Mood::Gone, Mood::Unreachable] {
        // While it is opened, at each of its three keys: the default domain's is needed, the others are locked without.
        subject.keeper.refuse_after(0, mood);
        let error = open(&subject.disk, Some(&subject.keeper)).unwrap_err();
        expect(&error, mood, "opening");
        assert!(matches!(error, Error::Key { domain: 0, .. }));
        subject.assert_whole(&subject.disk, "refused at opening");
        for n in 1..3 {
            subject.keeper.refuse_after(n, mood);
            let locked = open(&subject.disk, Some(&subject.keeper)).unwrap().locked_domains();
            locked.iter().for_each(|domain| expect(&domain.error, mood, "opening"));
            assert!(locked.iter().map(|domain| i64::from(domain.number)).eq(n..3));
            subject.assert_whole(&subject.disk, "refused at opening");
        }
        for (what, call) in &calls {
            for n in 0..3 {
                let disk = subject.disk.restarted();
                let store = open(&disk, Some(&subject.keeper)).unwrap();
                let (domains, format) = (store.domains(), disk.read_file("/store/FORMAT").unwrap());
                let context = format!("{what}, refused {mood:?} at call {n}");
                subject.keeper.refuse_after(n, mood);
                next.refuse_after(n, mood);
                match call(&store) {
                    Err(error) => expect(&error, mood, &context),
                    // It took fewer calls.
                    Ok(()) => {
                        assert!(n > 0, "{context}");
                        subject.keeper.answer_again();
                        continue;
                    }
                }
                assert_eq!(store.domains(), domains, "{context}");
                assert_eq!(disk.read_file("/store/FORMAT").unwrap(), format, "{context}");
                let digest = store.put("it goes on", Algorithm::Sha256).unwrap().digest;
                store.remove(&digest).unwrap();
                store.close().unwrap();
                subject.assert_whole(&disk, &context);
            }
        }
    }
    next.answer_again();
    // Without its keeper an open store goes on, and closes.
    let store = subject.store();
    subject.keeper.refuse_after(0, Mood::Unreachable);
    let seen = see(&store);
    assert!(seen == subject.seen);
    rewrite(&store);
    store.close().unwrap();
    subject.assert_whole(&subject.disk, "after its keeper was gone");
}

#[test]
fn turning_encryption_on_with_a_keeper_that_refuses_leaves_a_plain_store() {
    let (disk, _) = build(None);
    let keeper = Keeper::new(1);
    let store = open(&disk, None).unwrap();
    let seen = see(&store);
    keeper.refuse_after(0, Mood::Unreachable);
    let error = store.encrypt(keeper.clone()).unwrap_err();
    assert!(matches!(error, Error::Key { domain: 0, source: KeyError::Unreachable { .. } }), "{error}");
    assert!(!store.is_encrypted());
    assert!(matches!(store.create_domain(&domain("new"), None), Err(Error::NotEncrypted { .. })));
    assert!(matches!(store.rotate_data_key(None), Err(Error::NotEncrypted { .. })));
    assert!(matches!(store.rewrap_keys(keeper.clone()), Err(Error::NotEncrypted { .. })));
    store.close().unwrap();
    let store = open(&disk, None).unwrap();
    assert!(see(&store) == seen);
    keeper.answer_again();
    store.encrypt(keeper.clone()).unwrap();
    store.encrypt(keeper.clone()).unwrap();
    rewrite(&store);
    assert!(see(&store) == seen);
    // A new one, whose keeper refuses: none is created, and then it is.
    let disk = SimVfs::new();
    keeper.refuse_after(0, Mood::Denied);
    assert!(matches!(open(&disk, Some(&keeper)), Err(Error::Key { domain: 0, source: KeyError::Denied { .. } })));
    keeper.answer_again();
    open(&disk, Some(&keeper)).unwrap().close().unwrap();
    open(&disk, Some(&keeper)).unwrap();
}

#[test]
fn domains_are_named_once_and_found_by_name() {
    let subject = Subject::new();
    let store = subject.store();
    let error = store.create_domain(&domain(DOMAINS[0]), None).unwrap_err();
    assert!(matches!(&error, Error::DomainExists { name } if name == DOMAINS[0]), "{error}");
    let missing = domain("missing");
    assert!(matches!(store.rotate_data_key(Some(&missing)), Err(Error::DomainNotFound { .. })));
    assert!(matches!(store.shred_domain(&missing), Err(Error::DomainNotFound { .. })));
    let settings = strongroom::registry::RepositorySettings::new().domain(missing);
    let refused = store.create_repository(&"in/none".parse().unwrap(), settings);
    assert!(matches!(refused, Err(Error::DomainNotFound { .. })), "{refused:?}");
    // A key that the keeper has not.
    let error = store.create_domain(&domain("new"), Some("local:another")).unwrap_err();
    assert!(matches!(error, Error::Key { source: KeyError::Wrong { .. }, .. }), "{error}");
    let names: Vec<_> = store.domains().into_iter().map(|one| one.name.map(|name| name.to_string())).collect();
    assert_eq!(names, [None, Some(DOMAINS[0].to_owned()), Some(DOMAINS[1].to_owned())]);
}

#[test]
fn what_a_provider_returns_is_checked_before_it_is_relied_on() {
    // More than it may return, and more than the format can hold.
    for (wrapped_len, id_len) in [(9000, 10), (70_000, 10), (100, 3000), (100, 70_000)] {
        let provider = strange(wrapped_len, id_len);
        let disk = SimVfs::new();
        let create =
            |provider: Arc<Strange>| common::options(&disk, &Clock::manual()).key_provider(provider).open("/store");
        let error = create(provider.clone()).unwrap_err();
        assert!(matches!(error, Error::Key { domain: 0, .. }), "{wrapped_len} {id_len}: {error}");
        let fine = strange(100, 10);
        let store = create(fine.clone()).unwrap();
        let digest = store.put("content", Algorithm::Sha256).unwrap().digest;
        assert!(matches!(store.rewrap_keys(provider.clone()), Err(Error::Key { .. })), "{wrapped_len} {id_len}");
        if id_len > 10 {
            let refused = store.create_domain(&domain("new"), Some(&"i".repeat(id_len)));
            assert!(matches!(refused, Err(Error::Key { .. })), "{refused:?}");
        }
        store.close().unwrap();
        let store = create(fine).unwrap();
        assert_eq!(store.get(&digest).unwrap().bytes().unwrap(), "content");
    }
    // As much as it may.
    let disk = SimVfs::new();
    let create = || common::options(&disk, &Clock::manual()).key_provider(strange(8192, 2048)).open("/store");
    create().unwrap().close().unwrap();
    create().unwrap();
}

/// A keeper of two keys: its own, and one for a tenant, which may be out of reach.
struct Two {
    own: LocalKey,
    tenant: LocalKey,
    is_reachable: std::sync::atomic::AtomicBool,
}

impl fmt::Debug for Two {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Two")
    }
}

impl Two {
    fn of(&self, key_id: &str) -> Result<&LocalKey, KeyError> {
        if self.tenant.key_id()? != key_id {
            return Ok(&self.own);
        }
        match self.is_reachable.load(std::sync::atomic::Ordering::SeqCst) {
            true => Ok(&self.tenant),
            false => Err(KeyError::Unreachable { reason: "for a moment".into() }),
        }
    }
}

impl KeyProvider for Two {
    fn key_id(&self) -> Result<String, KeyError> {
        self.own.key_id()
    }

    fn wrap(&self, key_id: &str, key: &SecretKey, context: &KeyContext) -> Result<Vec<u8>, KeyError> {
        self.of(key_id)?.wrap(key_id, key, context)
    }

    fn unwrap(&self, key_id: &str, wrapped: &[u8], context: &KeyContext) -> Result<SecretKey, KeyError> {
        self.of(key_id)?.unwrap(key_id, wrapped, context)
    }
}

#[test]
fn a_domain_keeps_a_key_of_its_own_that_is_out_of_reach_for_a_moment() {
    let key = |byte| LocalKey::new(SecretKey::from_bytes([byte; 32]));
    let two = |own| Arc::new(Two { own: key(own), tenant: key(7), is_reachable: true.into() });
    let disk = SimVfs::new();
    let store = common::options(&disk, &Clock::manual()).key_provider(two(1)).open("/store").unwrap();
    let tenant = key(7).key_id().unwrap();
    store.create_domain(&domain("tenant"), Some(&tenant)).unwrap();
    let ids = |store: &Store| {
        let ids = store.domains().into_iter().flat_map(|domain| domain.keys.into_iter().map(|key| key.key_id));
        ids.collect::<Vec<_>>()
    };
    // Were its key wrapped by the new one, to destroy its own would not destroy the domain.
    let next = two(2);
    next.is_reachable.store(false, std::sync::atomic::Ordering::SeqCst);
    let refused = store.rewrap_keys(next.clone());
    assert!(matches!(refused, Err(Error::Key { domain: 1, source: KeyError::Unreachable { .. } })), "{refused:?}");
    assert_eq!(ids(&store), [key(1).key_id().unwrap(), tenant.clone()]);
    next.is_reachable.store(true, std::sync::atomic::Ordering::SeqCst);
    store.rewrap_keys(next.clone()).unwrap();
    assert_eq!(ids(&store), [key(2).key_id().unwrap(), tenant.clone()]);
    store.rotate_data_key(Some(&domain("tenant"))).unwrap();
    assert_eq!(ids(&store), [key(2).key_id().unwrap(), tenant.clone(), tenant]);
    store.close().unwrap();
    // Where it is locked, its keys stay as they are.
    next.is_reachable.store(false, std::sync::atomic::Ordering::SeqCst);
    let store = common::options(&disk, &Clock::manual()).key_provider(next).open("/store").unwrap();
    assert_eq!(store.locked_domains().len(), 1);
    let before = ids(&store)[1..].to_vec();
    let last = two(3);
    store.rewrap_keys(last.clone()).unwrap();
    assert_eq!(ids(&store), [vec![key(3).key_id().unwrap()], before].concat());
    assert!(store.unlock_domains().is_empty(), "the new provider has its key");
    store.close().unwrap();
    let store = common::options(&disk, &Clock::manual()).key_provider(last).open("/store").unwrap();
    assert!(store.locked_domains().is_empty());
}

#[test]
fn a_lost_table_of_keys_is_damage_and_no_empty_directory() {
    let subject = Subject::new();
    let disk = subject.disk.restarted();
    strongroom::vfs::Vfs::remove(&disk, std::path::Path::new("/store/FORMAT")).unwrap();
    let error = open(&disk, Some(&subject.keeper)).unwrap_err();
    assert!(matches!(error, Error::Corrupt { damage: Damage::Missing, .. }), "{error}");
    subject.assert_whole(&subject.disk, "with its table");
}

#[test]
fn a_backup_of_hard_links_keeps_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("store"), dir.path().join("backup"));
    let keeper = Keeper::new(1);
    let open = |path: &std::path::Path| {
        let options = common::small(strongroom::Options::new(), &Clock::manual());
        options.key_provider(keeper.clone()).open(path)
    };
    let store = open(&path).unwrap();
    let digest = store.put("content", Algorithm::Sha256).unwrap().digest;
    store.close().unwrap();
    // As `cp -al` makes one, of a store that is closed.
    let made = std::process::Command::new("cp").arg("-al").args([&path, &backup]).status().unwrap();
    assert!(made.success());
    let store = open(&path).unwrap();
    store.create_domain(&domain("another"), None).unwrap();
    store.close().unwrap();
    assert_eq!(open(&backup).unwrap().get(&digest).unwrap().bytes().unwrap(), "content");
}
