//! Encrypting what the view of names keeps in sled.
//!
//! Without encryption, the key of a page of names in sled is its first name, so sled has the pages in order. The keys
//! of encrypted pages are numbers, which reveal nothing; their order is an index in memory, of the first name of each
//! page, read when the view is opened.
//!
//! ```text
//! page, watermark: domain u32 | key u16 | salt 32 | counter u64 | encrypted, with the number as associated data |
//!                  tag 16
//! ```
//!
//! The salt is drawn at each opening of the view, the counter counts what was encrypted since. A page has names of one
//! domain, and is encrypted under its key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::envelope::{Cipher, KeyNumber, Keyring, Keys, Nonce, Purpose};
use crate::id::{DomainId, FileId};
use crate::names::Failed;
use crate::random::random;
use crate::sync::lock;
use crate::wire::{Fields, PutFields};

type Ciphers = HashMap<(DomainId, KeyNumber, [u8; 32]), Arc<Cipher>>;

/// Encrypts and decrypts values of the view.
#[derive(Debug)]
pub(super) struct Seal {
    keys: Keys,
    salt: [u8; 32],
    counter: AtomicU64,
    ciphers: Mutex<Ciphers>,
}

impl Seal {
    /// For an opening of the view; none without encryption.
    pub(super) fn new(keys: &Keys) -> Result<Option<Self>, Failed> {
        if !keys.get().is_encrypted() {
            return Ok(None);
        }
        let (salt, counter) = (random().map_err(|_| Failed)?, AtomicU64::new(0));
        Ok(Some(Self { keys: keys.clone(), salt, counter, ciphers: Mutex::default() }))
    }

    fn cipher(
        &self,
        keyring: &Keyring,
        domain: DomainId,
        key: KeyNumber,
        salt: [u8; 32],
    ) -> Result<Arc<Cipher>, Failed> {
        let mut ciphers = lock(&self.ciphers);
        if let Some(cipher) = ciphers.get(&(domain, key, salt)) {
            return Ok(Arc::clone(cipher));
        }
        let cipher = keyring.cipher(domain, key, &salt, Purpose::Name, FileId(0)).ok_or(Failed)?;
        ciphers.insert((domain, key, salt), Arc::clone(&cipher));
        Ok(cipher)
    }

    /// Whether a domain was shredded, so that nothing of it is kept any more.
    pub(super) fn is_gone(&self, domain: DomainId) -> bool {
        self.keys.get().is_shredded(domain)
    }

    /// Encrypts what is to lie under a number.
    pub(super) fn seal(&self, domain: DomainId, under: &[u8], value: &[u8]) -> Result<Vec<u8>, Failed> {
        let keyring = self.keys.get();
        let key = keyring.current(domain).ok_or(Failed)?;
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut out = Vec::with_capacity(value.len() + 64);
        out.put_u32(domain.0);
        out.put_u16(key);
        out.put(&self.salt);
        out.put_u64(counter);
        let mut value = value.to_vec();
        let cipher = self.cipher(&keyring, domain, key, self.salt)?;
        cipher.seal_vec(Nonce::new(counter, 0), under, &mut value).map_err(|_| Failed)?;
        out.put(&value);
        Ok(out)
    }

    /// Decrypts what lies under a number; `None` for a page of a domain that was shredded.
    pub(super) fn open(&self, under: &[u8], sealed: &[u8]) -> Result<Option<Vec<u8>>, Failed> {
        let keyring = self.keys.get();
        let mut fields = Fields(sealed);
        let mut head = || Some((DomainId(fields.u32()?), fields.u16()?, fields.array()?, fields.u64()?));
        let (domain, key, salt, counter) = head().ok_or(Failed)?;
        if keyring.is_shredded(domain) {
            return Ok(None);
        }
        let opened = self.cipher(&keyring, domain, key, salt)?.open_vec(Nonce::new(counter, 0), under, fields.0);
        opened.map(Some).map_err(|_| Failed)
    }
}
