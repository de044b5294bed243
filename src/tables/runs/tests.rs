//! Runs against a sorted map.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Expected, MergeJob, PageCache, Probe, Run, RunWriter};
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

fn create(vfs: &SimVfs, id: u64, keys: &Keyring, expected: Expected) -> RunWriter {
    let path = format!("/{id}");
    RunWriter::create(vfs, Path::new(&path), FileId(id), keys, DOMAIN, (Lsn(1), Lsn(2)), expected).unwrap()
}

fn write(vfs: &SimVfs, id: u64, keys: &Keyring, facts: &Facts) -> RunMeta {
    let facts = facts.iter().map(|(key, value)| (key, value.as_ref().map(Value::as_bytes)));
    let mut writer = create(vfs, id, keys, Expected::of_facts(facts.clone()));
    facts.for_each(|(key, value)| writer.push(key, value).unwrap());
    writer.finish(0).unwrap()
}

fn open(vfs: &SimVfs, meta: &RunMeta, keys: &Keyring, mode: ReadMode) -> Result<Run, Error> {
    let path = format!("/{}", meta.id.0);
    Run::open(vfs, Path::new(&path), meta, keys, &MappingBudget::new(mode, 8), &PageCache::new(1 << 16))
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
            let mut writer = create(&vfs, id, &keys, Expected::of_runs(&runs));
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
