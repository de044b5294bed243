//! Runs against a sorted map.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Expected, MergeJob, PageCache, Probe, Run, RunFile, RunWriter, open_file};
use crate::envelope::Keyring;
use crate::error::Error;
use crate::facts::{Family, Key, Value};
use crate::id::{DomainId, FileId, Lsn, StoreId};
use crate::sealed::{MappingBudget, ReadMode};
use crate::tables::RunMeta;
use crate::vfs::SimVfs;

type Facts = BTreeMap<Key, Option<Value>>;

const STORE: StoreId = StoreId([1; 16]);
const DOMAIN: DomainId = DomainId(3);

/// Keys in clusters and spread, values of every family's length, tombstones.
fn facts(most: usize) -> impl Strategy<Value = Facts> {
    let family = prop::sample::select(Family::ALL.to_vec());
    let fact = (family, any::<[u8; 2]>(), any::<bool>(), prop::option::weighted(0.8, 0..300usize)).prop_map(
        |(family, seed, spread, len)| {
            let mut bytes = [0; 32];
            if spread {
                bytes = *blake3::hash(&seed).as_bytes();
            } else {
                bytes[30..].copy_from_slice(&seed);
            }
            let value = len.map(|len| {
                let len = family.value_len().unwrap_or(len);
                Value::new(&vec![seed[0]; len])
            });
            (Key { domain: DOMAIN, family, bytes }, value)
        },
    );
    prop::collection::btree_map(any::<u32>(), fact, 0..most).prop_map(|facts| facts.into_values().collect())
}

/// Runs that are encrypted, or not.
fn keys(encrypted: bool) -> Keyring {
    if encrypted && cfg!(feature = "encryption") {
        return Keyring::known(STORE, &[0, DOMAIN.0]);
    }
    let mut plain = Keyring::plain(STORE);
    plain.domains.insert(DOMAIN, plain.domains[&DomainId::DEFAULT].clone());
    plain
}

fn create(vfs: &SimVfs, id: u64) -> RunFile {
    RunFile::create(vfs, Path::new(&format!("/{id}")), FileId(id)).unwrap()
}

fn begin<'f>(file: &'f mut RunFile, keys: &Keyring, expected: Expected) -> RunWriter<'f> {
    file.begin(keys, DOMAIN, (Lsn(1), Lsn(2)), expected).unwrap()
}

fn push_all(writer: &mut RunWriter<'_>, facts: &Facts) {
    facts.iter().for_each(|(key, value)| writer.push(key, value.as_ref().map(Value::as_bytes)).unwrap());
}

fn expected(facts: &Facts) -> Expected {
    Expected::of_facts(facts.iter().map(|(key, value)| (key, value.as_ref().map(Value::as_bytes))))
}

fn write(vfs: &SimVfs, id: u64, keys: &Keyring, facts: &Facts) -> RunMeta {
    let mut file = create(vfs, id);
    let mut writer = begin(&mut file, keys, expected(facts));
    push_all(&mut writer, facts);
    writer.finish(0).unwrap()
}

fn open(vfs: &SimVfs, meta: &RunMeta, keys: &Keyring, mode: ReadMode) -> Result<Run, Error> {
    let path = format!("/{}", meta.id.file.0);
    let mode = if meta.key == 0 { mode } else { ReadMode::Positioned };
    let file = open_file(vfs, Path::new(&path), &MappingBudget::new(mode, 8))?;
    Run::open(&file, meta, keys, &PageCache::new(1 << 16))
}

fn all(run: &Run) -> Facts {
    Family::ALL.iter().flat_map(|family| run.iter(*family, [0; 32])).map(Result::unwrap).collect()
}

fn is_corrupt(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_run_answers_as_the_facts_it_was_written_from(
        facts in facts(3000), absent in any::<[u8; 32]>(), mapped in any::<bool>(), encrypted in any::<bool>()
    ) {
        let (vfs, keys) = (SimVfs::new(), keys(encrypted));
        let meta = write(&vfs, 1, &keys, &facts);
        let run = open(&vfs, &meta, &keys, if mapped { ReadMode::Mapped } else { ReadMode::Positioned }).unwrap();
        for (key, value) in &facts {
            prop_assert_eq!(run.get(&Probe::new(key), None, Value::new).unwrap(), Some(value.clone()));
        }
        for family in Family::ALL {
            let key = Key { domain: DOMAIN, family, bytes: absent };
            prop_assert_eq!(run.get(&Probe::new(&key), None, Value::new).unwrap(), facts.get(&key).cloned());
            let from: Facts = run.iter(family, absent).map(Result::unwrap).collect();
            let expected = facts.range(key..).take_while(|(key, _)| key.family == family);
            prop_assert!(from.iter().eq(expected));
        }
        prop_assert_eq!(all(&run), facts);
    }

    #[test]
    fn merged_runs_answer_as_the_newest_of_them_that_knows(
        layers in prop::collection::vec(facts(300), 1..5),
        encrypted in any::<bool>(),
    ) {
        let (vfs, keys) = (SimVfs::new(), keys(encrypted));
        let opened = |(n, facts): (usize, &Facts)| {
            let meta = write(&vfs, n as u64 + 1, &keys, facts);
            Arc::new(open(&vfs, &meta, &keys, ReadMode::Mapped).unwrap())
        };
        let runs: Vec<Arc<Run>> = layers.iter().enumerate().map(opened).collect();
        let mut expected = Facts::new();
        layers.iter().rev().for_each(|older_first| expected.extend(older_first.clone()));
        for drop_tombstones in [false, true] {
            let id = 10 + u64::from(drop_tombstones);
            let mut file = create(&vfs, id);
            let mut writer = begin(&mut file, &keys, Expected::of_runs(&runs));
            let mut job = MergeJob::new(&runs, drop_tombstones);
            while !job.step(&mut writer, 7).unwrap() {}
            let merged = open(&vfs, &writer.finish(1).unwrap(), &keys, ReadMode::Mapped).unwrap();
            expected.retain(|_, value| value.is_some() || !drop_tombstones);
            prop_assert_eq!(all(&merged), expected.clone());
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed_or_of_no_consequence(
        facts in facts(400),
        place in any::<prop::sample::Index>(),
        bit in 0..8u8,
        encrypted in any::<bool>(),
    ) {
        let (vfs, keys) = (SimVfs::new(), keys(encrypted));
        let meta = write(&vfs, 1, &keys, &facts);
        vfs.flip_bit(Path::new("/1"), place.index(meta.len as usize) as u64 * 8 + u64::from(bit)).unwrap();
        match open(&vfs, &meta, &keys, ReadMode::Mapped) {
            Err(error) => prop_assert!(is_corrupt(&error), "{error}"),
            Ok(run) => for (key, value) in &facts {
                match run.get(&Probe::new(key), None, Value::new) {
                    Ok(found) => prop_assert_eq!(found.as_ref(), Some(value)),
                    Err(error) => prop_assert!(is_corrupt(&error), "{error}"),
                }
            },
        }
    }
}

fn facts_of(seed: u8) -> Facts {
    let key = |n: u64| Key { domain: DOMAIN, family: Family::Blob, bytes: *blake3::hash(&[n as u8, seed]).as_bytes() };
    let value = |n: u64| Some(Value::new(&vec![n as u8; Family::Blob.value_len().unwrap_or(9)]));
    (0..100).map(|n| (key(n), value(n))).collect()
}

#[test]
fn runs_behind_each_other_answer_each_for_itself_and_one_that_was_given_up_leaves_nothing() {
    for encrypted in [false, true] {
        let (vfs, keys) = (SimVfs::new(), keys(encrypted));
        let written: Vec<Facts> = (0..4).map(facts_of).collect();
        let mut file = create(&vfs, 1);
        let mut metas = Vec::new();
        for (n, facts) in written.iter().enumerate() {
            let given_up: Facts = (100..120).flat_map(facts_of).collect();
            push_all(&mut begin(&mut file, &keys, expected(&given_up)), &given_up);
            let domain = if n % 2 == 0 { DOMAIN } else { DomainId::DEFAULT };
            let mut writer = file.begin(&keys, domain, (Lsn(1), Lsn(2)), expected(facts)).unwrap();
            push_all(&mut writer, facts);
            metas.push(writer.finish(0).unwrap());
        }
        for (meta, facts) in metas.iter().zip(&written) {
            assert_eq!(meta.id.at % 4096, 0);
            for mode in [ReadMode::Mapped, ReadMode::Positioned] {
                let run = open(&vfs, meta, &keys, mode).unwrap();
                let known: Vec<Option<Value>> =
                    facts.keys().filter_map(|key| run.get(&Probe::new(key), None, Value::new).unwrap()).collect();
                assert!(known.iter().eq(facts.values()));
                run.verify().unwrap();
            }
        }
        assert!(metas.is_sorted_by(|one, next| one.id.at + one.len <= next.id.at), "{metas:?}");
    }
}

#[test]
fn a_run_is_not_taken_for_another_of_its_domain_in_the_same_file() {
    for encrypted in [false, true] {
        let (vfs, keys) = (SimVfs::new(), keys(encrypted));
        let mut file = create(&vfs, 1);
        let metas = [0, 1].map(|seed| {
            let facts = facts_of(seed);
            let mut writer = begin(&mut file, &keys, expected(&facts));
            push_all(&mut writer, &facts);
            writer.finish(0).unwrap()
        });
        assert_eq!(metas[0].len, metas[1].len);
        let (at, len) = (metas[1].id.at as usize, metas[0].len as usize);
        vfs.tamper("/1", |bytes| {
            let (one, other) = bytes.split_at_mut(at);
            one[..len].swap_with_slice(&mut other[..len]);
        })
        .unwrap();
        for meta in &metas {
            assert!(is_corrupt(&open(&vfs, meta, &keys, ReadMode::Mapped).unwrap_err()), "encrypted: {encrypted}");
        }
    }
}
