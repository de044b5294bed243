//! A key that a key management service keeps and never gives away: the service wraps and unwraps, the store keeps what
//! it returns.
//!
//! [`Kms`] is what a service can do, in the shape of AWS KMS; [`AwsKms`] speaks to that one. [`KmsKey`] makes a
//! provider of a service and the name of a key. For another service, or for AWS by its own SDK, implement [`Kms`].

use std::fmt::Debug;

use super::{KeyContext, KeyError, KeyProvider, SecretKey};
use crate::digest::encode_hex;

mod answer;
mod aws;
#[cfg(test)]
mod tests;

#[cfg(feature = "fuzzing")]
pub(crate) use answer::fuzz;
pub use aws::{AwsCredentials, AwsKms};

/// A key management service: wraps keys of 32 bytes with keys that it keeps.
///
/// The context is pairs that are authenticated, not encrypted, and that services show in their logs: a key that was
/// encrypted with one context is decrypted with the same alone.
pub trait Kms: Debug + Send + Sync {
    /// Encrypts a data key with the service's key of this id.
    ///
    /// # Errors
    /// As [`KeyProvider::wrap`].
    fn encrypt(&self, key_id: &str, plaintext: &SecretKey, context: &[(&str, String)]) -> Result<Vec<u8>, KeyError>;

    /// Decrypts what `encrypt` or `generate_data_key` returned for the same key and context.
    ///
    /// # Errors
    /// As [`KeyProvider::unwrap`].
    fn decrypt(&self, key_id: &str, ciphertext: &[u8], context: &[(&str, String)]) -> Result<SecretKey, KeyError>;

    /// A new data key, and the same encrypted.
    ///
    /// # Errors
    /// As [`KeyProvider::generate`].
    fn generate_data_key(&self, key_id: &str, context: &[(&str, String)]) -> Result<(SecretKey, Vec<u8>), KeyError>;
}

/// A provider whose key-encryption key stays in a [`Kms`].
///
/// # What it protects
/// Anyone who obtains the store's directory can read nothing without the service, which decides, and logs, who unwraps
/// a key. That is only as safe as the credentials: credentials on the same disk are lost with it. A client that was
/// once allowed to unwrap may have kept the data keys, and can read what was written until then unless it is encrypted
/// anew. **Where the service's key is destroyed, the content is lost**; where the service can't be reached, the store
/// does not open.
///
/// The service is told which store, domain and data key it works for, as an encryption context of three pairs, which
/// policies can ask for: `strongroom:store` (32 hex digits), `strongroom:domain` and `strongroom:key` (numbers).
///
/// Name the key by what does not change: with AWS the whole ARN, no alias. What is stored is the name; when an alias
/// comes to mean another key, the store's keys can't be unwrapped with it any more ([`KeyError::Wrong`]). Keys that
/// were wrapped under another id are unwrapped with that: the service decides whether that is allowed.
///
/// # Example
/// ```
/// use strongroom::keys::{KeyContext, KeyError, KeyProvider, Kms, KmsKey, SecretKey};
///
/// /// A service to try things out with: it "encrypts" with its context.
/// #[derive(Debug)]
/// struct Toy;
///
/// impl Kms for Toy {
///     fn encrypt(&self, _: &str, plaintext: &SecretKey, context: &[(&str, String)]) -> Result<Vec<u8>, KeyError> {
///         Ok([&plaintext.expose()[..], format!("{context:?}").as_bytes()].concat())
///     }
///
///     fn decrypt(&self, _: &str, ciphertext: &[u8], context: &[(&str, String)]) -> Result<SecretKey, KeyError> {
///         let (key, rest) = ciphertext.split_first_chunk().ok_or(KeyError::Damaged)?;
///         let same = rest == format!("{context:?}").as_bytes();
///         if same { Ok(SecretKey::from_bytes(*key)) } else { Err(KeyError::Damaged) }
///     }
///
///     fn generate_data_key(
///         &self,
///         key_id: &str,
///         context: &[(&str, String)],
///     ) -> Result<(SecretKey, Vec<u8>), KeyError> {
///         let key = SecretKey::generate()?;
///         let encrypted = self.encrypt(key_id, &key, context)?;
///         Ok((key, encrypted))
///     }
/// }
///
/// let provider = KmsKey::new(Toy, "toy-key-1");
/// let (data_key, wrapped) = provider.generate("toy-key-1", &KeyContext::new([7; 16], 0, 1))?;
/// let unwrapped = provider.unwrap("toy-key-1", &wrapped, &KeyContext::new([7; 16], 0, 1))?;
/// assert_eq!(unwrapped.expose(), data_key.expose());
/// assert!(provider.unwrap("toy-key-1", &wrapped, &KeyContext::new([7; 16], 0, 2)).is_err());
/// # Ok::<(), KeyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct KmsKey<K> {
    client: K,
    key_id: String,
}

impl<K: Kms> KmsKey<K> {
    /// The provider that uses this key of this service.
    pub fn new(client: K, key_id: impl Into<String>) -> Self {
        Self { client, key_id: key_id.into() }
    }
}

impl<K: Kms> KeyProvider for KmsKey<K> {
    fn key_id(&self) -> Result<String, KeyError> {
        Ok(self.key_id.clone())
    }

    fn wrap(&self, key_id: &str, key: &SecretKey, context: &KeyContext) -> Result<Vec<u8>, KeyError> {
        self.client.encrypt(key_id, key, &pairs(context))
    }

    fn unwrap(&self, key_id: &str, wrapped: &[u8], context: &KeyContext) -> Result<SecretKey, KeyError> {
        self.client.decrypt(key_id, wrapped, &pairs(context))
    }

    fn generate(&self, key_id: &str, context: &KeyContext) -> Result<(SecretKey, Vec<u8>), KeyError> {
        self.client.generate_data_key(key_id, &pairs(context))
    }
}

/// The context as a service takes it.
fn pairs(context: &KeyContext) -> [(&'static str, String); 3] {
    [
        ("strongroom:store", encode_hex(&context.store)),
        ("strongroom:domain", context.domain.to_string()),
        ("strongroom:key", context.key.to_string()),
    ]
}
