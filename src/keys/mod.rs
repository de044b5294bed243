//! Key providers: the key-encryption keys that the caller has for the store.
//!
//! An encrypted store has random data keys, which it stores *wrapped*: encrypted by a key that is not in the directory.
//! A [`KeyProvider`] has that key: from a file, an environment variable, a passphrase, or a service such as AWS KMS. It
//! is called when a store is opened (once for each data key), when a key domain gets a new data key, and when keys are
//! wrapped anew; never while content is read or written.
//!
//! # Which provider to use
//! | provider | can read the store | can't read it |
//! |---|---|---|
//! | [`LocalKey`] | anyone with the directory and the key | anyone with the directory alone: a disk, a backup |
//! | [`Passphrase`] | anyone with the directory who can guess the passphrase | anyone with the directory who can't |
//! | `KmsKey` (feature `kms`) | anyone with the directory whom the service lets use the key | anyone without credentials for the service |
//!
//! None protects against an attacker who can read the memory of a process that has the store open: it has the data
//! keys.
//!
//! The crate has the providers, and encrypts, with its feature `encryption`, which is on by default. Without it, an
//! encrypted store is refused ([`Error::EncryptionLeftOut`](crate::Error::EncryptionLeftOut)), and so is a provider.
//!
//! Keys are wiped from memory where this crate holds them. It can't wipe copies that the cipher, the system or an HTTP
//! client made.

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

use crate::zeroing::Zeroizing;

#[cfg(feature = "kms")]
mod kms;
#[cfg(feature = "encryption")]
mod local;
#[cfg(feature = "encryption")]
mod passphrase;
#[cfg(feature = "encryption")]
mod seal;
#[cfg(test)]
#[cfg(feature = "encryption")]
mod vectors;

#[cfg(feature = "kms")]
pub use kms::{AwsCredentials, AwsKms, Kms, KmsKey};
#[cfg(feature = "encryption")]
pub use local::LocalKey;
#[cfg(feature = "encryption")]
pub use passphrase::{Passphrase, PassphraseCost};

#[cfg(all(feature = "encryption", feature = "fuzzing"))]
pub(crate) mod fuzzing {
    //! The parsers, for fuzzing.
    #[cfg(feature = "kms")]
    pub(crate) use super::kms::fuzz as kms_answer;
    pub(crate) use super::local::parse as key_file;
    pub(crate) use super::passphrase::Wrapped;
}

/// A key of 32 bytes. Its memory is wiped when it is dropped, and nothing prints it.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; SecretKey::LEN]>);

impl SecretKey {
    /// The length in bytes.
    pub const LEN: usize = 32;

    /// A key of these bytes.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A new key, from the operating system's random numbers.
    ///
    /// # Errors
    /// [`KeyError::Unreachable`] where the system has none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut key = Self::from_bytes([0; Self::LEN]);
        random(&mut *key.0)?;
        Ok(key)
    }

    /// A copy of these bytes, if they are as many as a key has.
    #[cfg(feature = "encryption")]
    pub(crate) fn copied(bytes: &[u8]) -> Option<Self> {
        let mut key = Self::from_bytes([0; Self::LEN]);
        (bytes.len() == Self::LEN).then(|| key.0.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from))?;
        Some(key)
    }

    /// The key's bytes.
    pub fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// Fills `bytes` from the operating system's random numbers.
fn random(bytes: &mut [u8]) -> Result<(), KeyError> {
    getrandom::fill(bytes).map_err(|error| KeyError::Unreachable { reason: error.to_string() })
}

impl Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// A key domain's name: 1 to 128 of the letters, digits and `._-`, of which the first is a letter or a digit.
///
/// ```
/// let name: strongroom::keys::DomainName = "tenant-7".parse()?;
/// assert_eq!(name.as_str(), "tenant-7");
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

impl DomainName {
    const MAX: usize = 128;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for DomainName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for DomainName {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self, crate::Error> {
        let is_valid = (1..=Self::MAX).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if is_valid {
            return Ok(Self(text.to_owned()));
        }
        Err(crate::Error::InvalidName { name: text.chars().take(200).collect(), max: Self::MAX })
    }
}

/// What a data key is for: it is bound to this when it is wrapped, so that wrapped keys can't take each other's places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyContext {
    /// The store's id.
    pub store: [u8; 16],
    /// The number of the key domain; 0 is the default one.
    pub domain: u32,
    /// The number of the data key in its domain.
    pub key: u32,
}

impl KeyContext {
    /// A context.
    pub fn new(store: [u8; 16], domain: u32, key: u32) -> Self {
        Self { store, domain, key }
    }

    /// The context in 24 bytes: store, domain, key, the numbers little-endian. For providers that authenticate bytes.
    pub fn to_bytes(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let fields = self.store.into_iter().chain(self.domain.to_le_bytes()).chain(self.key.to_le_bytes());
        bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        bytes
    }
}

/// Wraps and unwraps data keys with a key-encryption key.
///
/// Calls may take as long as a request over a network; they are made from the thread that opens the store or asks for
/// keys to be changed, and from one beside the calls on a key domain that is [locked](crate::Store::locked_domains).
pub trait KeyProvider: Debug + Send + Sync {
    /// The id of the key that [`wrap`](Self::wrap) uses where none is named. It is stored beside the wrapped keys, in
    /// plain text, and passed to [`unwrap`](Self::unwrap): a name or a fingerprint, no secret. At most 2,048 bytes.
    ///
    /// # Errors
    /// Where the id is not known.
    fn key_id(&self) -> Result<String, KeyError>;

    /// Encrypts a data key with the key of this id, bound to its context. The result has at most 8 KiB.
    ///
    /// # Errors
    /// [`KeyError::Denied`], [`KeyError::Gone`] where there is no such key, [`KeyError::Unreachable`];
    /// [`KeyError::Wrong`] where this provider has another key than that.
    fn wrap(&self, key_id: &str, key: &SecretKey, context: &KeyContext) -> Result<Vec<u8>, KeyError>;

    /// Decrypts a data key that [`wrap`](Self::wrap) encrypted with the key of this id.
    ///
    /// # Errors
    /// As `wrap`; [`KeyError::Damaged`] where the key is the right one, but what is to be unwrapped is not what was
    /// wrapped in this context.
    fn unwrap(&self, key_id: &str, wrapped: &[u8], context: &KeyContext) -> Result<SecretKey, KeyError>;

    /// Makes a new data key and wraps it with the key of this id: the key and what [`wrap`](Self::wrap) returns. A
    /// service that makes keys itself overrides this; by default they come from the operating system's random numbers.
    ///
    /// # Errors
    /// As `wrap`.
    fn generate(&self, key_id: &str, context: &KeyContext) -> Result<(SecretKey, Vec<u8>), KeyError> {
        let key = SecretKey::generate()?;
        let wrapped = self.wrap(key_id, &key, context)?;
        Ok((key, wrapped))
    }
}

/// Wraps nothing: for tests and fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
#[derive(Debug)]
pub(crate) struct InPlain;

#[cfg(any(test, feature = "fuzzing"))]
impl KeyProvider for InPlain {
    fn key_id(&self) -> Result<String, KeyError> {
        Ok("known".into())
    }

    fn wrap(&self, _: &str, key: &SecretKey, _: &KeyContext) -> Result<Vec<u8>, KeyError> {
        Ok(key.expose().to_vec())
    }

    fn unwrap(&self, _: &str, wrapped: &[u8], _: &KeyContext) -> Result<SecretKey, KeyError> {
        wrapped.try_into().map(SecretKey::from_bytes).map_err(|_| KeyError::Damaged)
    }
}

/// Why a key could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key service does not let the caller use the key.
    #[error("use of the key was denied: {reason}")]
    Denied {
        /// What the keeper says.
        reason: String,
    },
    /// There is no such key (any more). What was encrypted with it can't be read.
    #[error("the key {key_id:?} does not exist, or was destroyed: {reason}")]
    Gone {
        /// The key's id.
        key_id: String,
        /// What the keeper says.
        reason: String,
    },
    /// The key service did not answer. Try again later.
    #[error("the key's keeper can't be reached: {reason}")]
    Unreachable {
        /// What was tried and how it failed.
        reason: String,
    },
    /// The key given is not the one that the store's keys were wrapped with.
    #[error("this is another key than the store's: it needs {expected:?}, and was given {}", given(found))]
    Wrong {
        /// The id of the key that is needed.
        expected: String,
        /// The id of the key that was given; empty where that has none, as passphrases.
        found: String,
    },
    /// A wrapped key is damaged, or belongs to another place, although the key is the right one. Restore the file that
    /// has it from a backup.
    #[error("a wrapped key is damaged, or was wrapped for another store or another place in it")]
    Damaged,
    /// The input is no key: a file or a variable has the wrong length or is not hex, a passphrase is empty, a setting
    /// that is needed to use the key is missing.
    #[error("no key can be had from what was given: {reason}")]
    Invalid {
        /// What is expected.
        reason: String,
    },
    /// A key file can't be read or written. `kind` is `NotFound`, `PermissionDenied`, or `AlreadyExists` where a new
    /// one was to be made.
    #[error("the key file {}: {kind}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        kind: io::ErrorKind,
    },
}

/// How a key that was given is named to the reader.
fn given(found: &str) -> String {
    if found.is_empty() { "another".to_owned() } else { format!("{found:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_differ_in_their_bytes_where_they_differ() {
        let contexts = [([1; 16], 2, 3), ([1; 16], 3, 2), ([2; 16], 2, 3), ([1; 16], 2, 4)];
        let bytes: std::collections::BTreeSet<_> =
            contexts.iter().map(|&(store, domain, key)| KeyContext::new(store, domain, key).to_bytes()).collect();
        assert_eq!(bytes.len(), contexts.len());
    }

    #[test]
    fn a_key_without_an_id_is_told_as_another() {
        let error = |found: &str| KeyError::Wrong { expected: "a".into(), found: found.into() }.to_string();
        assert_eq!(error("b"), "this is another key than the store's: it needs \"a\", and was given \"b\"");
        assert_eq!(error(""), "this is another key than the store's: it needs \"a\", and was given another");
    }
}
