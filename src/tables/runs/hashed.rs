//! The guide of a section whose keys begin with a repository: they are not spread evenly, so a line is chosen by their
//! hash.
//!
//! ```text
//! how many keys the line has u8 (255: more than it has room for) | reserved (0) 3 bytes |
//! for each of twelve keys: eight bits of its hash | for each: the number of its entry u32
//! ```
//!
//! Eight keys belong to a line on average. Of seventeen lines one has more than twelve; keys of those are searched for
//! among all entries, as are all where whoever chose the keys had them share a line.

use crate::error::Result;
use crate::tables::runs::guide::{IN_GUIDE, LINE};
use crate::wire::{first, halves, index};

pub(crate) const SLOTS: usize = 12;
const KEYS_PER_LINE: usize = 8;
const HEAD: usize = 4;
const FULL: u8 = u8::MAX;

/// How many lines a guide for this many keys has.
fn lines(keys: usize) -> usize {
    keys.div_ceil(KEYS_PER_LINE).max(1)
}

/// A key's hash. The digest in it is spread; what is before it has to be mixed in.
pub(crate) fn hash(key: &[u8; 32]) -> u64 {
    let [a, b] = [first::<8, 32>(key), key.last_chunk().copied().unwrap_or_default()].map(u64::from_le_bytes);
    let &[_, _, _, _, _, _, _, _, rest @ ..] = key;
    let c = u64::from_le_bytes(first::<8, 24>(&rest));
    let (low, high) = halves(u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(c ^ b.rotate_left(32) | 1));
    low ^ high
}

/// The line of a hash, and the bits of it that stand there.
pub(crate) fn place(hash: u64, lines: u64) -> (u64, u8) {
    let (_, line) = halves(u128::from(hash) * u128::from(lines));
    let [bits, ..] = hash.to_le_bytes();
    (line, bits)
}

/// What a line says of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a>(pub(crate) &'a [u8; LINE]);

impl Line<'_> {
    /// The numbers of the entries that may be of a key with these bits, as many as are counted; `None` where the line
    /// has too many to tell.
    pub(crate) fn entries(self, bits: u8) -> Option<([u32; SLOTS], usize)> {
        let [count, _, _, _, rest @ ..] = self.0;
        if usize::from(*count) > SLOTS {
            return None;
        }
        let (hashes, numbers) = rest.split_at(SLOTS);
        let slots = hashes.iter().zip(numbers.as_chunks().0).take(usize::from(*count));
        let (mut found, mut len) = ([0; SLOTS], 0);
        for (to, (_, number)) in found.iter_mut().zip(slots.filter(|(own, _)| **own == bits)) {
            *to = u32::from_le_bytes(*number);
            len += 1;
        }
        Some((found, len))
    }
}

/// A guide being built, from keys in their order.
#[derive(Debug)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    entries: u32,
}

impl Builder {
    pub(crate) fn new(most_keys: usize) -> Self {
        Self { bytes: vec![0; lines(most_keys) * LINE], entries: 0 }
    }

    pub(crate) fn lines(&self) -> usize {
        self.bytes.len() / LINE
    }

    pub(crate) fn push(&mut self, key: &[u8; 32]) -> Result<()> {
        let (line, bits) = place(hash(key), self.lines() as u64);
        let line = self.bytes.as_chunks_mut::<LINE>().0.get_mut(index(line)).ok_or(IN_GUIDE)?;
        let number = self.entries;
        self.entries += 1;
        let (head, slots) = line.split_at_mut(HEAD);
        let count = head.first_mut().ok_or(IN_GUIDE)?;
        let (hashes, numbers) = slots.split_at_mut(SLOTS);
        let slot = usize::from(*count);
        let (Some(own), Some(at)) = (hashes.get_mut(slot), numbers.as_chunks_mut().0.get_mut(slot)) else {
            *count = FULL;
            return Ok(());
        };
        (*own, *at) = (bits, number.to_le_bytes());
        *count += 1;
        Ok(())
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of a few repositories.
    fn key(n: u32) -> [u8; 32] {
        let mut key = [0; 32];
        key[5] = n.to_le_bytes()[0] % 5;
        key[6..].copy_from_slice(&blake3::hash(&n.to_le_bytes()).as_bytes()[..26]);
        key
    }

    #[test]
    fn nearly_all_keys_are_found_in_their_line_and_few_others() {
        let mut builder = Builder::new(10_000);
        (0..10_000).for_each(|n| builder.push(&key(n)).unwrap());
        let lines = builder.lines() as u64;
        let guide = builder.finish();
        let entries = |n| {
            let (line, bits) = place(hash(&key(n)), lines);
            let line = Line(guide[line as usize * LINE..].first_chunk().unwrap());
            line.entries(bits).map(|(found, count)| found[..count].to_vec())
        };
        let overflowed = (0..10_000).filter(|n| entries(*n).is_none()).count();
        assert!(overflowed < 1500, "{overflowed} of 10,000 keys lie in lines that have too many");
        assert!((0..10_000).all(|n| entries(n).is_none_or(|found| found.contains(&n))));
        let passed = (10_000..110_000).filter(|n| entries(*n).is_some_and(|found| !found.is_empty())).count();
        assert!(passed < 5_000, "{passed} of 100,000 absent keys pass");
    }
}
