//! The file `FORMAT`: what makes a directory a store.
//!
//! ```text
//! magic 16 "strongroom store" | version u32 | reserved (0) u32 | compatible u64 | read-only compatible u64 |
//! incompatible u64 | store 16 | reserved (0) 60 bytes | crc u32 | key table length u32 (0) | crc u32
//! ```
//!
//! The first 128 bytes, with their checksum, are the same in every version there will be: a program can always tell a
//! store that it cannot read from one that is damaged. The key table is where wrapped keys go.
//!
//! The three sets of feature bits say what a program that does not know a bit may do with the store: everything, read
//! only, or nothing. No bit is in use yet.

use std::path::Path;

use crate::error::{Damage, Error, Result};
use crate::id::StoreId;
use crate::vfs::{OpenMode, Vfs};
use crate::wire::{Fields, PutFields, crc32c};

const MAGIC: [u8; 16] = *b"strongroom store";
const VERSION: u32 = 3;
const FIXED: usize = 128;

/// Encodes the file.
pub(crate) fn encode(store: StoreId) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED + 8);
    out.put(&MAGIC);
    out.put_u32(VERSION);
    out.put_u32(0);
    out.put(&[0; 24]);
    out.put(&store.0);
    out.resize(FIXED - 4, 0);
    out.put_u32(crc32c(&out));
    let keys = 0u32.to_le_bytes();
    out.put(&keys);
    out.put_u32(crc32c(&keys));
    out
}

/// Reads and checks the file.
pub(crate) fn load(vfs: &dyn Vfs, path: &Path) -> Result<StoreId> {
    let file = vfs.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let len = file.len().map_err(Error::io("read the length of", path))?;
    let mut bytes = vec![0; usize::try_from(len.min(1 << 20)).unwrap_or_default()];
    file.read_exact_at(&mut bytes, 0).map_err(Error::io("read", path))?;
    parse(&bytes, path)
}

/// Parses the file's content.
pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<StoreId> {
    let corrupt = |offset, damage| Error::corrupt(path, offset, damage);
    let (fixed, rest) = bytes.split_at_checked(FIXED).ok_or_else(|| corrupt(0, Damage::Truncated))?;
    let (body, check) = fixed.split_at_checked(FIXED - 4).ok_or_else(|| corrupt(0, Damage::Truncated))?;
    let mut fields = Fields(body);
    if fields.array() != Some(MAGIC) {
        return Err(corrupt(0, Damage::Magic));
    }
    let (expected, found) = (Fields(check).u32().unwrap_or_default(), crc32c(body));
    if expected != found {
        return Err(corrupt(0, Damage::Checksum { expected, found }));
    }
    let mut parse = || {
        let version = fields.u32()?;
        let _reserved = fields.u32()?;
        let [_compatible, read_only, incompatible] = [fields.u64()?, fields.u64()?, fields.u64()?];
        Some((version, read_only | incompatible, StoreId(fields.array()?)))
    };
    let (version, features, store) = parse().ok_or_else(|| corrupt(0, Damage::Truncated))?;
    if version != VERSION || features != 0 {
        return Err(Error::UnsupportedFormat { path: path.to_path_buf(), version, features, supported: VERSION });
    }
    let mut fields = Fields(rest);
    let keys = fields.array().ok_or_else(|| corrupt(FIXED as u64, Damage::Truncated))?;
    let check = fields.u32().ok_or_else(|| corrupt(FIXED as u64, Damage::Truncated))?;
    if check != crc32c(&keys) {
        return Err(corrupt(FIXED as u64, Damage::Checksum { expected: check, found: crc32c(&keys) }));
    }
    if keys != [0; 4] || !fields.is_empty() {
        return Err(corrupt(FIXED as u64, Damage::Invalid("key table")));
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let path = Path::new("FORMAT");
        let store = StoreId([5; 16]);
        let good = encode(store);
        assert_eq!(parse(&good, path).unwrap(), store);
        let with = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] += 1;
            let crc = crc32c(&bytes[..FIXED - 4]).to_le_bytes();
            bytes[FIXED - 4..FIXED].copy_from_slice(&crc);
            parse(&bytes, path)
        };
        assert!(matches!(with(16), Err(Error::UnsupportedFormat { version: 4, .. })));
        assert!(matches!(with(41), Err(Error::UnsupportedFormat { features: 256, .. })));
        assert!(with(25).is_ok(), "a compatible feature");
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(parse(&flipped, path), Err(Error::Corrupt { .. })), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(matches!(parse(&good[..len], path), Err(Error::Corrupt { .. })));
        }
    }
}
