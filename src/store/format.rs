//! The file `FORMAT`: what makes a directory a store.
//!
//! ```text
//! magic 16 "strongroom store" | version u32 | reserved (0) u32 | compatible u64 | read-only compatible u64 |
//! incompatible u64 | store 16 | reserved (0) 60 bytes | crc u32 | key table: length u32 | bytes | crc u32
//! ```
//!
//! The first 128 bytes, with their checksum, are the same in every version there will be: a program can always tell a
//! store that it cannot read from one that is damaged. The [key table](crate::envelope::Table) has the wrapped keys of
//! an encrypted store; without encryption it is empty.
//!
//! The three sets of feature bits say what a program that does not know a bit may do with the store: everything, read
//! only, or nothing. Incompatible: bit 0, encryption.

use std::path::Path;

use crate::envelope::{self, Keyring, Table};
use crate::error::{Damage, Error, Result};
use crate::files::{Layout, open_dir, remove_if_there};
use crate::id::StoreId;
use crate::keys::KeyProvider;
use crate::vfs::{OpenMode, Vfs};
use crate::wire::{Fields, PutFields, crc32c, index};

const MAGIC: [u8; 16] = *b"strongroom store";
const VERSION: u32 = 11;
const FIXED: usize = 128;
const ENCRYPTION: u64 = 1;

/// The longest file that is read, in bytes: a thousand domains with a few keys each are a tenth of it.
const MAX_LEN: u64 = 16 << 20;

/// Encodes the file.
pub(crate) fn encode(keys: &Keyring) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(FIXED + 8);
    out.put(&MAGIC);
    out.put_u32(VERSION);
    out.put_u32(0);
    out.put(&[0; 16]);
    out.put_u64(if keys.is_encrypted() { ENCRYPTION } else { 0 });
    out.put(&keys.store.0);
    out.resize(FIXED - 4, 0);
    out.put_u32(crc32c(&out));
    let table = if keys.is_encrypted() { Table::encode(keys, &out)? } else { Vec::new() };
    let mut rest = Vec::new();
    rest.put_len32(table.len());
    rest.put(&table);
    rest.put_u32(crc32c(&rest));
    out.put(&rest);
    Ok(out)
}

/// What becomes of the bytes of the file that was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Old {
    /// They stay until the file system uses their place again. (Backups may have hard links to the file.)
    Leave,
    /// They are overwritten, as far as the file system lets one: there are wrapped keys in them that were given up.
    Wipe,
}

/// Replaces the file, durably.
///
/// # Errors
/// After a failed sync, or a rename in which the disk failed, either file may count; after any other error it is the
/// old one.
pub(crate) fn replace(vfs: &dyn Vfs, layout: &Layout, keys: &Keyring, then: Old) -> Result<()> {
    let encoded = encode(keys)?;
    Error::check_limit("the table of keys", encoded.len(), index(MAX_LEN))?;
    let (path, root) = (layout.format(), layout.root());
    let temporary = root.join("FORMAT.tmp");
    // Opened before anything is done: keys that are given up must not stay for want of a descriptor.
    let old = match then {
        Old::Leave => None,
        Old::Wipe => {
            let old = vfs.open(&path, OpenMode::Write).map_err(Error::opening(&path))?;
            Some((old.len().map_err(Error::io("read the length of", &path))?, old))
        }
    };
    let dir = open_dir(vfs, root)?;
    remove_if_there(vfs, &temporary)?;
    let file = vfs.open(&temporary, OpenMode::CreateNew).map_err(Error::io("create", &temporary))?;
    file.write_all_at(&encoded, 0).map_err(Error::io("write", &temporary))?;
    file.sync().map_err(Error::io("sync", &temporary))?;
    vfs.rename(&temporary, &path).map_err(Error::io("rename", &temporary))?;
    dir.sync().map_err(Error::io("sync", root))?;
    if let Some((len, old)) = old {
        let zeros = vec![0; index(len.min(MAX_LEN))];
        let _ = old.write_all_at(&zeros, 0).map(|()| old.sync()); // it has no name any more
    }
    Ok(())
}

/// What a program is going to do with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    /// Features that it does not know may be read-only compatible.
    Read,
}

/// Reads and checks the file, and unwraps the keys.
///
/// # Errors
/// [`Error::KeyRequired`] where the store is encrypted and there is no provider, [`Error::NotEncrypted`] where it is
/// the other way round; [`Error::EncryptionLeftOut`].
pub(crate) fn load(vfs: &dyn Vfs, path: &Path, provider: Option<&dyn KeyProvider>) -> Result<Keyring> {
    open(&read(vfs, path)?, path, provider, Access::Write)
}

/// Checks what is in the file, and unwraps the keys.
///
/// # Errors
/// As [`load`].
pub(crate) fn open(bytes: &[u8], path: &Path, provider: Option<&dyn KeyProvider>, access: Access) -> Result<Keyring> {
    let (store, table) = parse(bytes, path, access)?;
    match (table, provider) {
        (None, None) => Ok(Keyring::plain(store)),
        (None, Some(_)) => Err(Error::NotEncrypted { path: path.to_path_buf() }),
        (Some(_), _) if !envelope::IS_THERE => Err(Error::EncryptionLeftOut),
        (Some(table), None) => Err(Error::KeyRequired { path: path.to_path_buf(), key_id: table.key_id() }),
        (Some(table), Some(provider)) => {
            let before = bytes.get(..FIXED).ok_or_else(|| Error::corrupt(path, 0, Damage::Truncated))?;
            table.open(store, provider, path, before)
        }
    }
}

/// The id of the store whose file it is.
pub(crate) fn store_of(vfs: &dyn Vfs, path: &Path) -> Result<StoreId> {
    Ok(parse(&read(vfs, path)?, path, Access::Read)?.0)
}

/// Reads the file, whatever is in it.
pub(crate) fn read(vfs: &dyn Vfs, path: &Path) -> Result<Vec<u8>> {
    let file = vfs.open(path, OpenMode::Read).map_err(Error::opening(path))?;
    let len = file.len().map_err(Error::io("read the length of", path))?;
    let mut bytes = vec![0; index(len.min(MAX_LEN))];
    file.read_exact_at(&mut bytes, 0).map_err(Error::io("read", path))?;
    Ok(bytes)
}

/// Parses the file's content: the store's id and, if it is encrypted, its table of keys.
pub(crate) fn parse(bytes: &[u8], path: &Path, access: Access) -> Result<(StoreId, Option<Table>)> {
    let corrupt = |offset, damage| Error::corrupt(path, offset, damage);
    let (fixed, rest) = bytes.split_at_checked(FIXED).ok_or_else(|| corrupt(0, Damage::Truncated))?;
    let (body, check) = fixed.split_last_chunk().ok_or_else(|| corrupt(0, Damage::Truncated))?;
    let mut fields = Fields(body);
    if fields.array() != Some(MAGIC) {
        return Err(corrupt(0, Damage::Magic));
    }
    let (expected, found) = (u32::from_le_bytes(*check), crc32c(body));
    if expected != found {
        return Err(corrupt(0, Damage::Checksum { expected, found }));
    }
    let mut parse = || {
        let version = fields.u32()?;
        let _reserved = fields.u32()?;
        let [_compatible, read_only, incompatible] = [fields.u64()?, fields.u64()?, fields.u64()?];
        Some((version, read_only, incompatible, StoreId(fields.array()?)))
    };
    let (version, read_only, incompatible, store) = parse().ok_or_else(|| corrupt(0, Damage::Truncated))?;
    let needed = if access == Access::Write { read_only } else { 0 };
    let features = needed | (incompatible & !ENCRYPTION);
    if version != VERSION || features != 0 {
        return Err(Error::UnsupportedFormat { path: path.to_path_buf(), version, features, supported: VERSION });
    }
    let at = FIXED as u64;
    let (rest, check) = rest.split_last_chunk().ok_or_else(|| corrupt(at, Damage::Truncated))?;
    let (expected, found) = (u32::from_le_bytes(*check), crc32c(rest));
    if expected != found {
        return Err(corrupt(at, Damage::Checksum { expected, found }));
    }
    let mut fields = Fields(rest);
    let len = fields.u32().and_then(|len| usize::try_from(len).ok());
    if len != Some(fields.0.len()) {
        return Err(corrupt(at, Damage::Truncated));
    }
    if incompatible & ENCRYPTION == 0 {
        return if fields.is_empty() { Ok((store, None)) } else { Err(corrupt(at, Damage::Invalid("key table"))) };
    }
    let table = Table::parse(fields.0).ok_or_else(|| corrupt(at, Damage::Invalid("key table")))?;
    Ok((store, Some(table)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let path = Path::new("FORMAT");
        let store = StoreId([5; 16]);
        let good = encode(&Keyring::plain(store)).unwrap();
        assert_eq!(parse(&good, path, Access::Write).unwrap(), (store, None));
        let with_access = |at: usize, access| {
            let mut bytes = good.clone();
            bytes[at] += 1;
            let crc = crc32c(&bytes[..FIXED - 4]).to_le_bytes();
            bytes[FIXED - 4..FIXED].copy_from_slice(&crc);
            parse(&bytes, path, access).map(drop)
        };
        let with = |at| with_access(at, Access::Write);
        assert!(matches!(with(16), Err(Error::UnsupportedFormat { version, .. }) if version == VERSION + 1));
        assert!(matches!(with(41), Err(Error::UnsupportedFormat { features: 256, .. })));
        assert!(with(25).is_ok(), "a compatible feature");
        assert!(matches!(with(33), Err(Error::UnsupportedFormat { features: 256, .. })));
        assert!(with_access(33, Access::Read).is_ok(), "a read-only compatible feature");
        assert!(matches!(with_access(41, Access::Read), Err(Error::UnsupportedFormat { features: 256, .. })));
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(parse(&flipped, path, Access::Read), Err(Error::Corrupt { .. })), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(matches!(parse(&good[..len], path, Access::Read), Err(Error::Corrupt { .. })));
        }
    }
}
