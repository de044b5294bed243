//! How a provider that holds its key in the process seals a data key: AES-256-GCM with a random nonce.
//!
//! ```text
//! header (the provider's own)  nonce 12  ciphertext 32  tag 16
//! ```
//!
//! What is authenticated besides: the context (24 bytes), the header, the id of the key. Nonces are drawn at random:
//! with 2³² data keys under one key, far more than a store has, two are alike with a probability of 2⁻³³ (NIST SP
//! 800-38D, 8.3).

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::{KeyContext, KeyError, SecretKey, random};

const TAG_LEN: usize = 16;

/// How long the sealed key is, behind the header.
pub(super) const SEALED_LEN: usize = NONCE_LEN + SecretKey::LEN + TAG_LEN;

/// The key that seals, and all that is authenticated besides the data key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealing<'a> {
    /// Serves nothing but this.
    pub(super) with: &'a SecretKey,
    pub(super) key_id: &'a str,
    pub(super) context: &'a KeyContext,
    /// What precedes the sealed key. Its length follows from its first byte.
    pub(super) header: &'a [u8],
}

impl Sealing<'_> {
    /// Header and sealed key.
    pub(super) fn seal(&self, key: &SecretKey) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let mut content = Zeroizing::new(*key.expose());
        let tag = self
            .cipher()?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), self.authenticated(), &mut *content)
            .map_err(|_| KeyError::Damaged)?;
        Ok([self.header, &nonce, &*content, tag.as_ref()].concat())
    }

    /// The data key that was sealed, from what follows the header.
    pub(super) fn open(&self, sealed: &[u8; SEALED_LEN]) -> Result<SecretKey, KeyError> {
        let (nonce, content) = sealed.split_first_chunk().ok_or(KeyError::Damaged)?;
        let mut content = Zeroizing::new(content.to_vec());
        let key = self
            .cipher()?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), self.authenticated(), &mut content)
            .map_err(|_| KeyError::Damaged)?;
        SecretKey::copied(key).ok_or(KeyError::Damaged)
    }

    fn cipher(&self) -> Result<LessSafeKey, KeyError> {
        // It fails for keys of another length, which a `SecretKey` has not.
        UnboundKey::new(&AES_256_GCM, self.with.expose()).map(LessSafeKey::new).map_err(|_| KeyError::Damaged)
    }

    fn authenticated(&self) -> Aad<Vec<u8>> {
        Aad::from([&self.context.to_bytes(), self.header, self.key_id.as_bytes()].concat())
    }
}
