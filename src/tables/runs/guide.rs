//! The guide of a section: whether a key may be in it, and where.
//!
//! One cache line of 64 bytes answers both. Keys are spread evenly, so a line belongs to an equal share of the range of
//! keys, about 35 keys, and is divided into sixteen parts:
//!
//! ```text
//! first u32: the number of the first entry of this line or a later one |
//! ends 16 × u8: how many of the line's entries lie in the parts up to and with this one; 255: that many or more |
//! Bloom filter 44 bytes: six bits a key
//! ```
//!
//! About ten bits a key let one look-up in a hundred of absent keys through. A part has two entries, so that a look-up
//! in a large run touches this line and those few entries: its cost is that of the cache misses.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::facts::prefix;
use crate::wire::{first, halves, index};

pub(crate) const LINE: usize = 64;
const PARTS: usize = 16;
const BITS: u64 = 8 * 44;
const PROBES: u32 = 6;
const KEYS_PER_LINE: usize = 35;

/// A key has no place.
pub(super) const IN_GUIDE: Error = Error::Internal { invariant: "each key of a run has its place in the guide" };

/// How many lines a guide for this many keys has.
pub(crate) fn lines(keys: usize) -> usize {
    keys.div_ceil(KEYS_PER_LINE).max(1)
}

/// The line of a key, which grows with the key, and the part of that line.
pub(crate) fn place(key: &[u8; 32], lines: u64) -> (u64, usize) {
    let product = u128::from(prefix(key)) * u128::from(lines);
    let (within, line) = halves(product);
    (line, index(within >> 60))
}

/// The bits of a key in its line's filter: byte and mask.
fn bits(key: &[u8; 32]) -> impl Iterator<Item = (usize, u8)> {
    let &[_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, ..] = key;
    let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    (0..PROBES).map(move |probe| {
        let bit = ((hash >> (10 * probe) & 1023) * BITS) >> 10;
        (index(bit >> 3), 1 << (bit & 7))
    })
}

/// A line as it is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a>(pub(crate) &'a [u8; LINE]);

impl Line<'_> {
    /// Whether a key may be in the section.
    pub(crate) fn may_contain(self, key: &[u8; 32]) -> bool {
        let (_, filter) = self.0.split_at(4 + PARTS);
        // All of them in any case: to end with the first that says no would be a jump that nobody can foresee.
        bits(key).fold(true, |may, (byte, mask)| may & filter.get(byte).is_none_or(|byte| byte & mask != 0))
    }

    /// The number of the first entry of this line or a later one.
    pub(crate) fn first(self) -> u64 {
        u32::from_le_bytes(first(self.0)).into()
    }

    /// The numbers of a part's entries; `None` where the line has too many to tell.
    pub(crate) fn part(self, part: usize) -> Option<Range<u64>> {
        let end = |part: usize| self.0.get(4 + part).copied().filter(|end| *end < u8::MAX).map(u64::from);
        let start = part.checked_sub(1).map_or(Some(0), end)?;
        Some(self.first() + start..self.first() + end(part)?)
    }
}

/// A guide being built, from keys in their order.
#[derive(Debug)]
pub(crate) struct GuideBuilder {
    bytes: Vec<u8>,
    /// How many lines have got their first entry.
    begun: usize,
    entries: u32,
}

impl GuideBuilder {
    pub(crate) fn new(most_keys: usize) -> Self {
        Self { bytes: vec![0; lines(most_keys) * LINE], begun: 0, entries: 0 }
    }

    pub(crate) fn lines(&self) -> usize {
        self.bytes.len() / LINE
    }

    pub(crate) fn push(&mut self, key: &[u8; 32]) -> Result<()> {
        let (line, part) = place(key, self.lines() as u64);
        let line = index(line);
        self.begin_lines(line.saturating_add(1));
        self.entries += 1;
        let line = self.bytes.as_chunks_mut::<LINE>().0.get_mut(line).ok_or(IN_GUIDE)?;
        let (head, filter) = line.split_at_mut(4 + PARTS);
        head.iter_mut().skip(4 + part).for_each(|end| *end = end.saturating_add(1));
        for (byte, mask) in bits(key) {
            *filter.get_mut(byte).ok_or(IN_GUIDE)? |= mask;
        }
        Ok(())
    }

    /// Sets the first entry of all lines up to here that have none.
    fn begin_lines(&mut self, until: usize) {
        let first = self.entries.to_le_bytes();
        let until = until.min(self.lines());
        for line in self.bytes.as_chunks_mut::<LINE>().0.iter_mut().take(until).skip(self.begun) {
            line.split_at_mut(4).0.copy_from_slice(&first);
        }
        self.begun = self.begun.max(until);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.begin_lines(usize::MAX);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(keys: &[[u8; 32]]) -> Vec<u8> {
        let mut guide = GuideBuilder::new(keys.len());
        keys.iter().for_each(|key| guide.push(key).unwrap());
        guide.finish()
    }

    fn look_up(guide: &[u8], key: &[u8; 32]) -> (bool, Option<Range<u64>>) {
        let (line, part) = place(key, (guide.len() / LINE) as u64);
        let line = Line(guide[line as usize * LINE..].first_chunk().unwrap());
        (line.may_contain(key), line.part(part))
    }

    #[test]
    fn all_keys_are_found_where_they_are_and_few_others_at_all() {
        let key = |n: u32| *blake3::hash(&n.to_le_bytes()).as_bytes();
        let mut keys: Vec<[u8; 32]> = (0..10_000).map(key).collect();
        keys.sort_unstable();
        let guide = build(&keys);
        let mut touched = 0;
        for (number, key) in keys.iter().enumerate() {
            let (may_contain, part) = look_up(&guide, key);
            let part = part.unwrap();
            assert!(may_contain && part.contains(&(number as u64)));
            touched += part.end - part.start;
        }
        assert!(touched < 45_000, "{touched} entries in the parts of 10,000 keys");
        let passed = (10_000..110_000).filter(|n| look_up(&guide, &key(*n)).0).count();
        assert!(passed < 2_500, "{passed} of 100,000 absent keys pass");
    }

    #[test]
    fn keys_that_are_not_spread_are_found_too() {
        let keys: Vec<[u8; 32]> =
            (0..600u16).map(|n| [[3; 30].as_slice(), &n.to_be_bytes()].concat().try_into().unwrap()).collect();
        let guide = build(&keys);
        assert_eq!(look_up(&guide, &keys[5]), (true, None), "too many in one part to tell");
        assert_eq!(look_up(&guide, &[0; 32]).1, Some(0..0));
        assert_eq!(look_up(&guide, &[255; 32]).1, Some(600..600));
    }
}
