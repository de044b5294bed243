//! What encrypts: AES-256-GCM and ChaCha20-Poly1305 under subkeys by HKDF-SHA-256, all by `ring`.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Tag as RingTag, UnboundKey};
use ring::hkdf;

#[cfg(any(test, feature = "simulation"))]
use super::recorder;
use super::{Forged, Nonce, Suite, Tag};
use crate::error::{Error, Result};
use crate::keys::SecretKey;
use crate::wire::PutFields;
use crate::zeroing::Zeroizing;

/// Whether there are ciphers.
pub(crate) const IS_THERE: bool = true;

/// Derives a subkey; `info` is what it is bound to.
pub(super) fn subkey(secret: &SecretKey, salt: &[u8; 32], info: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    struct Len;
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            32
        }
    }
    let mut out = Zeroizing::new([0; 32]);
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret.expose());
    key.expand(&[info], Len).and_then(|okm| okm.fill(&mut *out)).ok()?;
    Some(out)
}

/// Encrypts and authenticates under one subkey.
pub(crate) struct Cipher {
    key: LessSafeKey,
    #[cfg(any(test, feature = "simulation"))]
    fingerprint: [u8; 16],
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(…)")
    }
}

impl Cipher {
    /// A cipher under a subkey.
    pub(crate) fn new(suite: Suite, key: &[u8; 32]) -> Option<Self> {
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        Some(Self {
            #[cfg(any(test, feature = "simulation"))]
            fingerprint: recorder::fingerprint(key),
            key: LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?),
        })
    }

    /// Encrypts in place. The caller sees to it that the nonce was not used before.
    pub(crate) fn seal(&self, nonce: Nonce, associated: &[u8], bytes: &mut [u8]) -> Result<Tag> {
        #[cfg(any(test, feature = "simulation"))]
        recorder::note(self.fingerprint, to_bytes(nonce));
        let sealed = self.key.seal_in_place_separate_tag(assume_unique(nonce), Aad::from(associated), bytes);
        // It fails for lengths only that nothing here has, 64 GiB and more.
        let tag = sealed.ok().and_then(|tag| tag.as_ref().try_into().ok());
        tag.ok_or(Error::Internal { invariant: "what is encrypted is short enough for its cipher" })
    }

    /// Decrypts in place.
    pub(crate) fn open(&self, nonce: Nonce, associated: &[u8], bytes: &mut [u8], tag: Tag) -> Result<(), Forged> {
        let tag = RingTag::from(tag);
        self.key
            .open_in_place_separate_tag(assume_unique(nonce), Aad::from(associated), tag, bytes, 0..)
            .map(drop)
            .map_err(|_| Forged)
    }

    /// [Encrypts](Self::seal) bytes, and appends the tag.
    pub(crate) fn seal_vec(&self, nonce: Nonce, associated: &[u8], bytes: &mut Vec<u8>) -> Result<()> {
        let tag = self.seal(nonce, associated, bytes)?;
        bytes.put(&tag);
        Ok(())
    }

    /// [Decrypts](Self::open) bytes with a tag at their end.
    pub(crate) fn open_vec(&self, nonce: Nonce, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Forged> {
        let (bytes, tag) = sealed.split_last_chunk().ok_or(Forged)?;
        let mut bytes = bytes.to_vec();
        self.open(nonce, associated, &mut bytes, *tag)?;
        Ok(bytes)
    }
}

fn assume_unique(nonce: Nonce) -> ring::aead::Nonce {
    ring::aead::Nonce::assume_unique_for_key(to_bytes(nonce))
}

fn to_bytes(nonce: Nonce) -> [u8; 12] {
    let mut bytes = [0; 12];
    let fields = nonce.prefix.to_le_bytes().into_iter().chain(nonce.number.to_le_bytes());
    bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    bytes
}
