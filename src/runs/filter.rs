//! The Bloom filter of a section: which keys it may hold.
//!
//! Blocked: all bits of a key lie in one line of 64 bytes, one cache line. About ten bits a key and six probes let one
//! look-up in a hundred of absent keys through.

use crate::facts::prefix;

pub(crate) const LINE: usize = 64;
const PROBES: u32 = 6;
const BITS_PER_KEY: usize = 10;

/// How many lines a filter for this many keys has.
pub(crate) fn lines(keys: usize) -> usize {
    (keys * BITS_PER_KEY).div_ceil(LINE * 8).max(1)
}

/// The line of a key: it grows with the key.
pub(crate) fn line_of(key: &[u8; 32], lines: u64) -> u64 {
    let product = u128::from(prefix(key)) * u128::from(lines);
    u64::try_from(product >> 64).unwrap_or_default()
}

/// The bits of a key in its line: byte and mask.
fn bits(key: &[u8; 32]) -> impl Iterator<Item = (usize, u8)> {
    let &[_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, ..] = key;
    let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    (0..PROBES).map(move |probe| {
        let bit = hash >> (9 * probe) & 511;
        (usize::try_from(bit >> 3).unwrap_or_default(), 1 << (bit & 7))
    })
}

/// A filter being built.
#[derive(Debug)]
pub(crate) struct FilterBuilder {
    pub(crate) bytes: Vec<u8>,
}

impl FilterBuilder {
    pub(crate) fn new(keys: usize) -> Self {
        Self { bytes: vec![0; lines(keys) * LINE] }
    }

    pub(crate) fn insert(&mut self, key: &[u8; 32]) {
        let lines = (self.bytes.len() / LINE) as u64;
        let start = usize::try_from(line_of(key, lines)).unwrap_or_default() * LINE;
        if let Some(line) = self.bytes.get_mut(start..start + LINE) {
            for (byte, mask) in bits(key) {
                if let Some(byte) = line.get_mut(byte) {
                    *byte |= mask;
                }
            }
        }
    }
}

/// Whether a key may be in the set that a line belongs to.
pub(crate) fn may_contain(line: &[u8], key: &[u8; 32]) -> bool {
    bits(key).all(|(byte, mask)| line.get(byte).is_none_or(|byte| byte & mask != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_found_and_few_others() {
        let key = |n: u32| *blake3::hash(&n.to_le_bytes()).as_bytes();
        let mut filter = FilterBuilder::new(10_000);
        (0..10_000).for_each(|n| filter.insert(&key(n)));
        let contains = |n| {
            let key = key(n);
            let line = line_of(&key, (filter.bytes.len() / LINE) as u64) as usize;
            may_contain(&filter.bytes[line * LINE..][..LINE], &key)
        };
        assert!((0..10_000).all(contains));
        let passed = (10_000..110_000).filter(|n| contains(*n)).count();
        assert!(passed < 2_500, "{passed} of 100,000 absent keys pass");
    }
}
