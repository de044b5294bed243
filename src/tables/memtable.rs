//! Facts that no run holds yet.
//!
//! A concurrent table that keeps every version of a fact, so that a reader sees what held at its LSN while commits go
//! on. It is divided into shards with a lock each, held for a look-up or an insertion, never across I/O.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use crate::facts::{Fact, Family, Key, Value, successor};
use crate::id::{DomainId, Lsn};
use crate::sync::{read, write};
use crate::wire::index;

const SHARD_BITS: u32 = 6;
const SHARDS: usize = 1 << SHARD_BITS;

/// What a fact costs besides a long value: key, versions, the map's slack.
const FACT_BYTES: usize = 160;

/// What a key costs among those in order.
const ORDERED_BYTES: usize = 50;

/// So many keys are taken at a time where they are gone through in order.
const BATCH: usize = 64;

/// What a version of a fact costs, except that its key may be kept in order.
fn cost(value: &Option<Value>) -> usize {
    FACT_BYTES + value.as_ref().map_or(0, |value| value.as_bytes().len().saturating_sub(46))
}

/// A table of facts.
#[derive(Debug)]
pub(crate) struct Memtable {
    /// No two in one line of a cache: else readers on two cores, each in a shard of its own, take turns at it.
    shards: [CachePadded<Shard>; SHARDS],
    /// The keys of the families that are asked for [in order](Family::is_ordered).
    ordered: RwLock<BTreeSet<Key>>,
    len: AtomicUsize,
    bytes: AtomicUsize,
    lsn_min: AtomicU64,
    lsn_max: AtomicU64,
}

type Shard = RwLock<HashMap<Key, Versions, BuildHasherDefault<PrefixHasher>>>;

/// The versions of a fact: the newest, and those before it, oldest first.
#[derive(Debug)]
struct Versions {
    lsn: Lsn,
    value: Option<Value>,
    older: Vec<(Lsn, Option<Value>)>,
}

impl Versions {
    fn at(&self, lsn: Lsn) -> Option<&Option<Value>> {
        if self.lsn <= lsn {
            return Some(&self.value);
        }
        self.older.iter().rev().find(|(version, _)| *version <= lsn).map(|(_, value)| value)
    }
}

/// Keys are digests, hashes and ids already: what is left is to mix them.
#[derive(Debug, Default)]
struct PrefixHasher(u64);

impl Hasher for PrefixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }
}

impl Memtable {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| CachePadded::default()),
            ordered: RwLock::default(),
            len: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            lsn_min: AtomicU64::new(u64::MAX),
            lsn_max: AtomicU64::new(0),
        }
    }

    /// How many versions of facts there are.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// About how many bytes of memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The lowest and the highest LSN taken in.
    pub(crate) fn lsn_range(&self) -> (Lsn, Lsn) {
        (Lsn(self.lsn_min.load(Ordering::Relaxed)), Lsn(self.lsn_max.load(Ordering::Relaxed)))
    }

    #[expect(clippy::indexing_slicing, reason = "so many bits number the shards")]
    fn shard(&self, key: &Key) -> &Shard {
        let mixed = key.prefix().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SHARD_BITS);
        &self.shards[index(mixed)]
    }

    /// Takes in a fact. Its LSN is not below that of any other version of it.
    pub(crate) fn insert(&self, lsn: Lsn, (key, value): Fact) {
        let mut bytes = cost(&value);
        if key.family.is_ordered() && write(&self.ordered).insert(key) {
            bytes += ORDERED_BYTES;
        }
        {
            let mut shard = write(self.shard(&key));
            match shard.get_mut(&key) {
                Some(versions) if versions.lsn == lsn => versions.value = value,
                Some(versions) => {
                    let older = (versions.lsn, std::mem::replace(&mut versions.value, value));
                    versions.older.push(older);
                    versions.lsn = lsn;
                }
                None => drop(shard.insert(key, Versions { lsn, value, older: Vec::new() })),
            }
        }
        self.note_lsn(lsn);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.len.fetch_add(1, Ordering::Release);
    }

    /// Takes in facts that nobody has seen yet, in the order of their LSNs: of each only the last version.
    pub(crate) fn fill(&self, facts: impl IntoIterator<Item = (Lsn, Fact)>) {
        let mut ordered = Vec::new();
        let (mut len, mut bytes) = (0, 0);
        for (lsn, (key, value)) in facts {
            bytes += cost(&value);
            len += 1;
            self.note_lsn(lsn);
            let mut shard = write(self.shard(&key));
            let versions = Versions { lsn, value, older: Vec::new() };
            if shard.insert(key, versions).is_none() && key.family.is_ordered() {
                bytes += ORDERED_BYTES;
                ordered.push(key);
            }
        }
        // Sorted once: that takes a quarter of what it takes to insert them one by one.
        write(&self.ordered).append(&mut ordered.into_iter().collect());
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.len.fetch_add(len, Ordering::Release);
    }

    fn note_lsn(&self, lsn: Lsn) {
        self.lsn_min.fetch_min(lsn.0, Ordering::Relaxed);
        self.lsn_max.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// What held under a key at an LSN: `None` where this table does not say, `Some(None)` where it was gone, else what
    /// `look` makes of the value.
    pub(crate) fn get<T>(&self, key: &Key, at: Lsn, look: impl FnOnce(&[u8]) -> T) -> Option<Option<T>> {
        if self.len() == 0 {
            return None;
        }
        let shard = read(self.shard(key));
        Some(shard.get(key)?.at(at)?.as_ref().map(|value| look(value.as_bytes())))
    }

    /// A table of those of its facts that commits behind an LSN have brought.
    pub(crate) fn newer_than(&self, lsn: Lsn) -> Self {
        let newer = Self::new();
        for shard in &self.shards {
            for (key, versions) in read(shard).iter() {
                let own = std::iter::once((versions.lsn, &versions.value));
                let all = versions.older.iter().map(|(lsn, value)| (*lsn, value)).chain(own);
                all.filter(|(own, _)| *own > lsn).for_each(|(own, value)| newer.insert(own, (*key, value.clone())));
            }
        }
        newer
    }

    /// Forgets all facts but those with such keys.
    pub(crate) fn retain(&self, is_kept: impl Fn(&Key) -> bool) {
        write(&self.ordered).retain(&is_kept);
        self.shards.iter().for_each(|shard| write(shard).retain(|key, _| is_kept(key)));
    }

    /// All facts as of an LSN, in the order of their keys.
    pub(crate) fn sorted(&self, at: Lsn) -> Vec<Fact> {
        self.collect(at, |_| true)
    }

    /// All facts of a family as of an LSN, in the order of their keys.
    pub(crate) fn of_family(&self, family: Family, at: Lsn) -> Vec<Fact> {
        self.collect(at, |key| key.family == family)
    }

    /// The facts of a domain's family as of an LSN, in the order of their keys, from one on. For families that are not
    /// [ordered](Family::is_ordered) this looks through the whole table.
    pub(crate) fn range(
        &self,
        domain: DomainId,
        family: Family,
        from: [u8; 32],
        at: Lsn,
    ) -> Box<dyn Iterator<Item = Fact> + '_> {
        if !family.is_ordered() {
            let wanted = |key: &Key| (key.domain, key.family) == (domain, family) && key.bytes >= from;
            return Box::new(self.collect(at, wanted).into_iter());
        }
        let mut next = Some(from);
        let batches = std::iter::from_fn(move || {
            let first = Key { domain, family, bytes: next? };
            let last = Key { domain, family, bytes: [u8::MAX; 32] };
            let batch: Vec<Key> = read(&self.ordered).range(first..=last).take(BATCH).copied().collect();
            next = batch.last().filter(|_| batch.len() == BATCH).and_then(|last| successor(last.bytes));
            Some(batch)
        });
        Box::new(batches.flatten().filter_map(move |key| {
            let shard = read(self.shard(&key));
            let value = shard.get(&key)?.at(at)?.clone();
            Some((key, value))
        }))
    }

    fn collect(&self, at: Lsn, wanted: impl Fn(&Key) -> bool) -> Vec<Fact> {
        let mut facts = Vec::new();
        for shard in &self.shards {
            let shard = read(shard);
            let versions = shard.iter().filter(|(key, _)| wanted(key));
            facts.extend(versions.filter_map(|(key, versions)| Some((*key, versions.at(at)?.clone()))));
        }
        facts.sort_unstable_by_key(|(key, _)| *key);
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_the_version_of_its_lsn() {
        let table = Memtable::new();
        let key = Key { domain: DomainId::DEFAULT, family: Family::Named, bytes: [1; 32] };
        table.insert(Lsn(3), (key, Some(Value::new(b"a"))));
        table.insert(Lsn(5), (key, None));
        table.insert(Lsn(7), (key, Some(Value::new(b"b"))));
        let at = |lsn| table.get(&key, Lsn(lsn), <[u8]>::to_vec);
        assert_eq!(at(2), None);
        assert_eq!(at(4), Some(Some(b"a".to_vec())));
        assert_eq!(at(6), Some(None));
        assert_eq!(at(9), Some(Some(b"b".to_vec())));
        assert_eq!(table.lsn_range(), (Lsn(3), Lsn(7)));
    }

    #[test]
    fn what_is_behind_an_lsn_keeps_its_versions() {
        let table = Memtable::new();
        let key = |byte| Key { domain: DomainId::DEFAULT, family: Family::Named, bytes: [byte; 32] };
        let insert = |lsn, byte, value: &[u8]| table.insert(Lsn(lsn), (key(byte), Some(Value::new(value))));
        for (lsn, byte, value) in [(3, 1, b"a"), (4, 2, b"b"), (5, 1, b"c"), (7, 1, b"d")] {
            insert(lsn, byte, value);
        }
        let newer = table.newer_than(Lsn(4));
        let at = |lsn, byte| newer.get(&key(byte), Lsn(lsn), <[u8]>::to_vec);
        assert_eq!((at(4, 1), at(9, 2)), (None, None));
        assert_eq!((at(6, 1), at(7, 1)), (Some(Some(b"c".to_vec())), Some(Some(b"d".to_vec()))));
        assert_eq!(newer.lsn_range(), (Lsn(5), Lsn(7)));
    }

    #[test]
    fn a_table_that_is_filled_has_the_last_version_of_each_fact_and_keys_in_order() {
        let table = Memtable::new();
        let key = |byte| Key { domain: DomainId::DEFAULT, family: Family::Tag, bytes: [byte; 32] };
        let facts = [(3, 9, Some(b"a")), (4, 2, Some(b"b")), (5, 9, None), (7, 5, Some(b"c"))];
        table.fill(facts.map(|(lsn, byte, value)| (Lsn(lsn), (key(byte), value.map(|value| Value::new(value))))));
        let all: Vec<Fact> = table.range(DomainId::DEFAULT, Family::Tag, [0; 32], Lsn(7)).collect();
        let expected = [(2, Some(b"b")), (5, Some(b"c")), (9, None)];
        assert_eq!(all, expected.map(|(byte, value)| (key(byte), value.map(|value| Value::new(value)))));
        assert_eq!(
            (all.clone(), Vec::new()),
            (table.of_family(Family::Tag, Lsn(7)), table.of_family(Family::Blob, Lsn(7)))
        );
        assert_eq!(table.lsn_range(), (Lsn(3), Lsn(7)));
    }

    #[test]
    fn facts_come_out_in_the_order_of_their_keys() {
        let table = Memtable::new();
        for n in (0..200u8).rev() {
            let family = if n % 2 == 0 { Family::Blob } else { Family::Upload };
            table.insert(Lsn(1), (Key { domain: DomainId::DEFAULT, family, bytes: [n; 32] }, None));
        }
        let sorted = table.sorted(Lsn(1));
        assert!(sorted.is_sorted_by_key(|(key, _)| *key));
        assert_eq!(sorted.len(), 200);
        assert_eq!(table.range(DomainId::DEFAULT, Family::Blob, [100; 32], Lsn(1)).count(), 50);
    }

    #[test]
    fn an_ordered_family_is_gone_through_in_order_as_of_an_lsn() {
        let table = Memtable::new();
        let domain = DomainId::DEFAULT;
        let key = |family, n: u16| Key { domain, family, bytes: [n.to_be_bytes(); 16].concat().try_into().unwrap() };
        for n in (0..500).rev() {
            table.insert(Lsn(1 + u64::from(n % 2)), (key(Family::Tag, n), Some(Value::new(&n.to_be_bytes()))));
            table.insert(Lsn(1), (key(Family::Link, n), None));
        }
        for (lsn, expected) in [(1, 200), (2, 400)] {
            let from = key(Family::Tag, 100).bytes;
            let facts: Vec<Fact> = table.range(domain, Family::Tag, from, Lsn(lsn)).collect();
            assert_eq!(facts.len(), expected);
            assert!(facts.is_sorted_by_key(|(key, _)| *key) && facts.iter().all(|(key, _)| key.family == Family::Tag));
        }
    }

    #[test]
    fn a_range_stays_within_its_domain() {
        let table = Memtable::new();
        for domain in [0, 1, 2].map(DomainId) {
            for family in [Family::Tag, Family::Blob, Family::TagOf] {
                for byte in [0, 7, u8::MAX] {
                    table.insert(Lsn(1), (Key { domain, family, bytes: [byte; 32] }, None));
                }
            }
        }
        for family in [Family::Tag, Family::Blob] {
            let found = table.range(DomainId(1), family, [1; 32], Lsn(1)).map(|(key, _)| key);
            let expected = [7, u8::MAX].map(|byte| Key { domain: DomainId(1), family, bytes: [byte; 32] });
            assert_eq!(found.collect::<Vec<_>>(), expected);
        }
    }
}
