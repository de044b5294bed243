//! The header of a file that belongs to one key domain: of segments and runs.
//!
//! ```text
//! magic 8 | version u32 (1) | domain u32 | file u64 | store 16 | key u32 | reserved (0) 4 | salt 32 | zeros |
//! crc u32 at 508
//! ```

use super::{KeyNumber, Keyring};
use crate::error::Result;
use crate::id::{DomainId, FileId, StoreId};
use crate::random::random;
use crate::wire::{Fields, PutFields, crc32c};

const VERSION: u32 = 1;

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) id: FileId,
    store: StoreId,
    /// The key domain of all that is in it.
    pub(crate) domain: DomainId,
    /// The number of the key that it is encrypted with; 0 for none.
    pub(crate) key: KeyNumber,
    /// Random where it is encrypted, else zeros.
    salt: [u8; 32],
}

impl FileHeader {
    /// The header of a new file of a domain.
    ///
    /// # Errors
    /// [`Error::DomainShredded`](crate::Error::DomainShredded) where the domain has no key any more.
    pub(crate) fn new(id: FileId, keys: &Keyring, domain: DomainId) -> Result<Self> {
        let key = keys.in_use(domain)?;
        let salt = if key == 0 { [0; 32] } else { random()? };
        Ok(Self { id, store: keys.store, domain, key, salt })
    }

    pub(crate) fn encode(&self, magic: &[u8; 8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.put(magic);
        out.put_u32(VERSION);
        out.put_u32(self.domain.0);
        out.put_u64(self.id.0);
        out.put(&self.store.0);
        out.put_u32(self.key.into());
        out.put_u32(0);
        out.put(&self.salt);
        out.resize(508, 0);
        out.put_u32(crc32c(&out));
        out
    }

    /// Parses a header; `None` where the bytes are none.
    pub(crate) fn parse(bytes: &[u8], magic: &[u8; 8]) -> Option<Self> {
        let (body, check) = bytes.get(..512)?.split_at_checked(508)?;
        let mut fields = Fields(body);
        if Fields(check).u32()? != crc32c(body) || fields.array()? != *magic || fields.u32()? != VERSION {
            return None;
        }
        let domain = DomainId(fields.u32()?);
        let (id, store) = (FileId(fields.u64()?), StoreId(fields.array()?));
        let key = KeyNumber::try_from(fields.u32()?).ok()?;
        fields.u32()?;
        Some(Self { id, store, domain, key, salt: fields.array()? })
    }

    /// A number that tells an encrypted file from others, also of the same id: eight bytes of its salt.
    pub(crate) fn salt_prefix(&self) -> u64 {
        self.salt.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Whether it is the header of this file of this store.
    pub(crate) fn is_of(&self, id: FileId, store: StoreId, domain: DomainId, key: KeyNumber) -> bool {
        (self.id, self.store, self.domain, self.key) == (id, store, domain, key)
    }
}
