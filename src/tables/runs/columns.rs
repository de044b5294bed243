//! Which bytes of a section's entries differ, and which are alike in all of them.
//!
//! Values have fields of fixed width, most of whose upper bytes are zero everywhere, and keys of some families begin
//! alike. Such bytes stand once, in the run's footer. What is left of an entry has the same width throughout its
//! section, so that an entry is still found by its number.
//!
//! A section's [`Columns`] are known before it is written: from the facts in memory, or from those of the runs that are
//! merged.

use crate::facts::Family;
use crate::tables::runs::format::{HEAP, INLINE, KEY_LEN, PAGE, TOMBSTONE, slot_len};
use crate::wire::{Fields, PutFields, halves};

/// An entry is at most so long, in bytes: a key and its slot.
const MOST: usize = 128;

/// An entry's bytes, with zeros behind them.
type Entry = [u8; MOST];

/// The length of a family's entries in bytes.
fn entry_len(family: Family) -> usize {
    KEY_LEN + slot_len(family)
}

/// What the entries seen so far have in common.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    family: Family,
    /// The bytes of the first entry, and of the first with a value.
    first: Entry,
    /// Not 0 where an entry had another byte.
    differs: Entry,
    has_entry: bool,
    has_value: bool,
}

impl Columns {
    /// Those of no entries.
    pub(crate) fn new(family: Family) -> Self {
        let mut differs = [0; MOST];
        if family.value_len().is_none() {
            // Where a value comes to lie in the heap is not known before.
            differs.iter_mut().take(entry_len(family)).skip(KEY_LEN + 1).for_each(|byte| *byte = u8::MAX);
        }
        Self { family, first: [0; MOST], differs, has_entry: false, has_value: false }
    }

    /// An entry more.
    pub(crate) fn add(&mut self, key: &[u8; KEY_LEN], value: Option<&[u8]>) {
        let tag = match value {
            None => TOMBSTONE,
            Some(_) if self.family.value_len().is_some() => INLINE,
            Some(_) => HEAP,
        };
        let first = self.first.iter_mut().zip(&mut self.differs);
        let had_entry = std::mem::replace(&mut self.has_entry, true);
        note(had_entry, first.zip(key.iter().chain([&tag])));
        // What stands behind a tombstone does not matter.
        if let Some(value) = value.filter(|_| self.family.value_len().is_some()) {
            let had_value = std::mem::replace(&mut self.has_value, true);
            let first = self.first.iter_mut().zip(&mut self.differs).skip(KEY_LEN + 1);
            note(had_value, first.zip(value));
        }
    }

    /// The entries of a section more.
    pub(crate) fn join(&mut self, shape: &Shape) {
        let had_entry = std::mem::replace(&mut self.has_entry, true);
        self.has_value = true;
        for (at, ((first, differs), common)) in
            self.first.iter_mut().zip(&mut self.differs).zip(&shape.common).enumerate()
        {
            if !had_entry {
                *first = *common;
            }
            *differs |= *first ^ *common;
            if shape.varying >> at & 1 == 1 {
                *differs = u8::MAX;
            }
        }
    }

    /// How entries are written of which this is true.
    pub(crate) fn shape(&self) -> Shape {
        let mut varying = 0;
        for (at, _) in self.differs.iter().enumerate().filter(|(_, differs)| **differs != 0) {
            varying |= 1 << at;
        }
        // A key is compared from its first byte that varies on, and an entry is never empty.
        let prefix = u128::trailing_zeros(varying | 1 << (KEY_LEN - 1));
        varying |= KEY & (u128::MAX << prefix);
        Shape::new(self.family, varying, self.first)
    }
}

/// Compares bytes with the first ones; or these are the first.
fn note<'a>(had_first: bool, bytes: impl Iterator<Item = ((&'a mut u8, &'a mut u8), &'a u8)>) {
    if had_first {
        bytes.for_each(|((first, differs), byte)| *differs |= *first ^ *byte);
    } else {
        bytes.for_each(|((first, _), byte)| *first = *byte);
    }
}

/// The bits of a key's bytes.
const KEY: u128 = (1 << KEY_LEN) - 1;

/// How the entries of a section are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// A bit for each byte that stands in the entries.
    varying: u128,
    /// The other bytes.
    common: Entry,
    /// How many of a key's first bytes are common.
    prefix: usize,
    /// Of the slot: where bytes that vary begin, and how many those are.
    groups: Vec<(usize, usize)>,
    len: usize,
    width: usize,
    /// How many entries a page holds, and 2^64 over that, rounded up: numbers below 2^32 are divided by multiplying.
    per_page: u64,
    reciprocal: u64,
}

impl Shape {
    fn new(family: Family, varying: u128, mut common: Entry) -> Self {
        let is_varying = |at: usize| varying >> at & 1 == 1;
        let len = entry_len(family);
        common.iter_mut().enumerate().filter(|(at, _)| *at >= len || is_varying(*at)).for_each(|(_, byte)| *byte = 0);
        let mut groups: Vec<(usize, usize)> = Vec::new();
        for at in (KEY_LEN..len).filter(|at| is_varying(*at)) {
            match groups.last_mut() {
                Some((start, count)) if *start + *count == at => *count += 1,
                _ => groups.push((at, 1)),
            }
        }
        let prefix = (varying.trailing_zeros() as usize).min(KEY_LEN - 1);
        let width = varying.count_ones() as usize;
        let per_page = (PAGE / width.max(1)) as u64;
        let reciprocal = u64::MAX / per_page + 1;
        Self { varying, common, prefix, groups, len, width, per_page, reciprocal }
    }

    /// How many entries a page holds.
    pub(crate) fn per_page(&self) -> u64 {
        self.per_page
    }

    /// The page of an entry, counted from the first one's, and its number there.
    pub(crate) fn place(&self, number: u64) -> (u64, u64) {
        let (_, page) = halves(u128::from(number) * u128::from(self.reciprocal));
        (page, number.wrapping_sub(page.wrapping_mul(self.per_page)))
    }

    /// The length of an entry in bytes.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Appends what is written of an entry; `false` where a byte is another than it should be.
    pub(crate) fn pack(&self, key: &[u8; KEY_LEN], slot: &[u8], out: &mut Vec<u8>) -> bool {
        let mut whole = self.common;
        let (own_key, own_slot) = whole.split_at_mut(KEY_LEN);
        own_key.copy_from_slice(key);
        let said = if slot.first() == Some(&TOMBSTONE) { 1 } else { slot.len() };
        own_slot.iter_mut().zip(slot).take(said).for_each(|(to, from)| *to = *from);
        let key_rest = (self.prefix, KEY_LEN - self.prefix);
        for (start, count) in [key_rest].iter().chain(&self.groups) {
            let varying = whole.get_mut(*start..start + count).unwrap_or_default();
            out.put(varying);
            varying.fill(0);
        }
        whole == self.common
    }

    /// The key of an entry.
    pub(crate) fn key(&self, entry: &[u8]) -> Option<[u8; KEY_LEN]> {
        if self.prefix == 0 {
            return entry.first_chunk().copied();
        }
        let mut key = *self.common.first_chunk()?;
        let (_, rest) = key.split_at_mut_checked(self.prefix)?;
        rest.copy_from_slice(entry.get(..rest.len())?);
        Some(key)
    }

    /// What `read` makes of the slot of an entry.
    pub(crate) fn slot<T>(&self, entry: &[u8], read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let mut whole = self.common;
        let mut rest = entry.get(KEY_LEN - self.prefix..)?;
        for (start, count) in &self.groups {
            let (bytes, next) = rest.split_at_checked(*count)?;
            whole.get_mut(*start..start + count)?.copy_from_slice(bytes);
            rest = next;
        }
        whole.get(KEY_LEN..self.len).map(read)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put(&self.varying.to_le_bytes());
        out.put(self.common.split_at(self.len).0);
    }

    /// Parses the shape of a family's entries.
    pub(crate) fn parse(family: Family, fields: &mut Fields<'_>) -> Option<Self> {
        let varying = u128::from_le_bytes(fields.array()?);
        let len = entry_len(family);
        let mut common = [0; MOST];
        common.get_mut(..len)?.copy_from_slice(fields.bytes(len)?);
        let key = varying & KEY;
        let is_suffix = key != 0 && key | (key - 1) == KEY;
        let shape = Self::new(family, varying, common);
        (is_suffix && varying >> len == 0 && shape.common == common).then_some(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(family: Family, value: Option<u8>) -> Vec<u8> {
        let mut slot = vec![TOMBSTONE; slot_len(family)];
        if let Some(byte) = value {
            slot[0] = INLINE;
            slot[9] = byte;
        }
        slot
    }

    #[test]
    fn entries_come_back_without_the_bytes_that_they_have_in_common() {
        let key = |n: u8| std::array::from_fn(|at| if at < 4 { 7 } else { n });
        for family in Family::ALL.into_iter().filter(|family| family.value_len().is_some_and(|len| len > 9)) {
            let mut columns = Columns::new(family);
            let entries = [(1, Some(3)), (2, None), (3, Some(4))];
            for (n, value) in entries {
                let slot = slot(family, value);
                columns.add(&key(n), value.map(|_| &slot[1..]));
            }
            let shape = columns.shape();
            assert_eq!(shape.width(), 28 + 2, "the key's rest, the tag, and one byte of the value");
            let mut encoded = Vec::new();
            shape.encode(&mut encoded);
            assert_eq!(Shape::parse(family, &mut Fields(&encoded)).as_ref(), Some(&shape));
            for (n, value) in entries {
                let mut packed = Vec::new();
                assert!(shape.pack(&key(n), &slot(family, value), &mut packed));
                assert_eq!(packed.len(), shape.width());
                assert_eq!(shape.key(&packed), Some(key(n)));
                let said = if value.is_some() { slot_len(family) } else { 1 };
                let found = shape.slot(&packed, |slot| slot[..said].to_vec());
                assert_eq!(found.unwrap(), slot(family, value)[..said]);
            }
            assert!(!shape.pack(&[9; 32], &slot(family, None), &mut Vec::new()), "another prefix");
            for number in [0, 1, 126, 127, 128, 1_000_003, u64::from(u32::MAX)] {
                assert_eq!(shape.place(number), (number / shape.per_page(), number % shape.per_page()));
            }
            let mut joined = Columns::new(family);
            joined.join(&shape);
            assert_eq!(joined.shape(), shape);
        }
    }
}
