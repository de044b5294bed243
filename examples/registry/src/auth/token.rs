//! Passwords for the distribution API: what `aws ecr get-login-password` prints, and bearer tokens.
//!
//! ```text
//! base64url( version 1 | id of the key 8 | salt 32 | AES-256-GCM( claims ) )
//! claims: principal's ARN, access key id, region, issued, expires, as JSON
//! ```
//! The registry keeps nothing of a token: what it says is in it, readable by the registry alone, and authenticated. A
//! token is good for twelve hours. It gives no rights: who it names is looked up at each use, so a key that is removed
//! or made inactive ends its tokens at once.
//!
//! Each token is encrypted by a key of its own, derived from the registry's key and the salt: so no nonce repeats,
//! however many tokens are given out. The registry's key is the store's named file [`NAME`]; removing it, and starting
//! the registry anew, ends all tokens. With an encrypted store it is encrypted. There is no `:` in a token, by which
//! the AWS CLI would cut it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use serde::{Deserialize, Serialize};
use strongroom::{Error, ExpectNamed, PutNamed, Store};
use zeroize::Zeroizing;

use super::random;

/// Where the store has the key.
pub const NAME: &str = ".registry/token-key";

/// For how long a token is good.
pub const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// The longest token that is looked at, in characters.
const MAX: usize = 4 << 10;

const VERSION: u8 = 1;
const KEY_ID_LEN: usize = 8;
const SALT_LEN: usize = 32;

/// Why the key can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    #[error("the key of tokens: {0}")]
    Store(#[from] Error),
    #[error("the key of tokens: {0}")]
    Random(#[from] std::io::Error),
    #[error(
        "the named file {NAME} has not the 32 bytes of a key: remove it, and a new one is made, which ends all tokens"
    )]
    Damaged,
}

/// The key that tokens are encrypted with.
#[derive(Debug)]
pub struct TokenKey {
    key: hmac::Key,
    id: [u8; KEY_ID_LEN],
}

impl TokenKey {
    /// A key that was given.
    pub fn new(key: &[u8; 32]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let mut id = [0; KEY_ID_LEN];
        id.iter_mut().zip(hmac::sign(&key, b"id").as_ref()).for_each(|(to, from)| *to = *from);
        Self { key, id }
    }

    /// A key that ends with the process.
    pub fn random() -> Result<Self, TokenKeyError> {
        Ok(Self::new(&Zeroizing::new(random::bytes()?)))
    }

    /// The store's key; a new one where it has none.
    pub fn of_store(store: &Store) -> Result<Self, TokenKeyError> {
        match Self::stored(store) {
            Err(TokenKeyError::Store(Error::NamedNotFound { .. })) => {}
            found => return found,
        }
        let key = Zeroizing::new(random::bytes::<32>()?);
        match store.named().put(NAME, *key, PutNamed::new().expect(ExpectNamed::Absent)) {
            Ok(_) => Ok(Self::new(&key)),
            // Somebody else was there in the meantime.
            Err(Error::NamedChanged { .. }) => Self::stored(store),
            Err(error) => Err(error.into()),
        }
    }

    fn stored(store: &Store) -> Result<Self, TokenKeyError> {
        let blob = store.named().get(NAME)?.blob;
        if blob.len() != 32 {
            return Err(TokenKeyError::Damaged);
        }
        let bytes = blob.bytes()?;
        Ok(Self::new(bytes.as_ref().try_into().map_err(|_| TokenKeyError::Damaged)?))
    }

    /// A token with these claims.
    pub fn seal(&self, claims: &Claims) -> std::io::Result<Token> {
        let salt = random::bytes::<SALT_LEN>()?;
        let mut sealed = serde_json::to_vec(claims)?;
        let head = [&[VERSION][..], &self.id, &salt].concat();
        let failed = |_| std::io::Error::other("a token can't be encrypted");
        let key = self.of_token(&salt).map_err(failed)?;
        key.seal_in_place_append_tag(nonce(), Aad::from(&head), &mut sealed).map_err(failed)?;
        let text = URL_SAFE_NO_PAD.encode([head, sealed].concat());
        Ok(Token { text, issued: claims.issued, expires: claims.expires })
    }

    /// What a token says, if this key made it, for this region, and it is still good.
    pub fn open(&self, token: &str, region: &str, now: SystemTime) -> Result<Claims, TokenProblem> {
        let claims = self.decrypted(token).filter(|claims| claims.region == region).ok_or(TokenProblem::Invalid)?;
        if claims.expires <= seconds(now) {
            return Err(TokenProblem::Expired);
        }
        Ok(claims)
    }

    fn decrypted(&self, token: &str) -> Option<Claims> {
        let mut bytes =
            Some(token).filter(|token| token.len() <= MAX).and_then(|token| URL_SAFE_NO_PAD.decode(token).ok())?;
        let (head, sealed) = bytes.split_at_mut_checked(1 + KEY_ID_LEN + SALT_LEN)?;
        let (start, salt) = head.split_at_checked(1 + KEY_ID_LEN)?;
        let (version, id) = start.split_first()?;
        if *version != VERSION || *id != self.id {
            return None;
        }
        let key = self.of_token(salt).ok()?;
        let claims = key.open_in_place(nonce(), Aad::from(&head), sealed).ok()?;
        serde_json::from_slice(claims).ok()
    }

    /// The key of the token with this salt.
    fn of_token(&self, salt: &[u8]) -> Result<LessSafeKey, ring::error::Unspecified> {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"token");
        context.update(salt);
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, context.sign().as_ref())?))
    }
}

/// Each key encrypts one token.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a token says. One for nobody, with which public repositories are read, has neither ARN nor key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Claims {
    #[serde(rename = "a")]
    pub arn: String,
    #[serde(rename = "k")]
    pub access_key_id: String,
    #[serde(rename = "r")]
    pub region: String,
    /// In seconds since 1970.
    #[serde(rename = "i")]
    pub issued: u64,
    #[serde(rename = "e")]
    pub expires: u64,
}

/// A token, and for how long it is good. Nothing prints it.
#[derive(Clone)]
pub struct Token {
    pub text: String,
    /// In seconds since 1970.
    pub issued: u64,
    pub expires: u64,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Token {
    /// What `GetAuthorizationToken` returns: base64 of `AWS:` and the token.
    pub fn authorization(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(format!("AWS:{}", self.text))
    }
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenProblem {
    /// It is none of this registry's.
    Invalid,
    /// It was one.
    Expired,
}

#[cfg(test)]
mod tests {
    use strongroom::Options;

    use super::*;

    fn claims() -> Claims {
        let arn = "arn:aws:iam::123456789012:user/ci".to_owned();
        Claims { arn, access_key_id: "AKIAONE".into(), region: "us-east-1".into(), issued: 1000, expires: 2000 }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_says_whose_it_is_until_it_expires() {
        let key = TokenKey::new(&[7; 32]);
        let token = key.seal(&claims()).unwrap();
        assert_eq!(key.open(&token.text, "us-east-1", at(1999)), Ok(claims()));
        assert_eq!(key.open(&token.text, "us-east-1", at(2000)), Err(TokenProblem::Expired));
        assert_eq!(key.open(&token.text, "eu-west-1", at(1000)), Err(TokenProblem::Invalid));
        assert_eq!(TokenKey::new(&[8; 32]).open(&token.text, "us-east-1", at(1000)), Err(TokenProblem::Invalid));
        assert!(token.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert!(!token.text.contains("AKIA") && token.text != key.seal(&claims()).unwrap().text);
    }

    #[test]
    fn no_byte_of_a_token_can_be_changed_or_left_out() {
        let key = TokenKey::new(&[7; 32]);
        let token = key.seal(&claims()).unwrap().text;
        let open = |text: &str| key.open(text, "us-east-1", at(1000));
        for at in 0..token.len() {
            assert_eq!(open(&token[..at]), Err(TokenProblem::Invalid));
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(open(&String::from_utf8(changed).unwrap()), Err(TokenProblem::Invalid));
        }
        for text in ["", "A", ":", &format!("{token}A"), &format!("{token}="), &"A".repeat(5000)] {
            assert_eq!(open(text), Err(TokenProblem::Invalid));
        }
    }

    #[test]
    fn tokens_survive_a_restart_with_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Options::new().create(true).open(dir.path()).unwrap();
        let store = open();
        let token = TokenKey::of_store(&store).unwrap().seal(&claims()).unwrap();
        store.close().unwrap();
        let store = open();
        let key = TokenKey::of_store(&store).unwrap();
        assert_eq!(key.open(&token.text, "us-east-1", at(1000)), Ok(claims()));
        store.named().remove(NAME, ExpectNamed::Any).unwrap();
        let other = TokenKey::of_store(&store).unwrap();
        assert_eq!(other.open(&token.text, "us-east-1", at(1000)), Err(TokenProblem::Invalid));
        store.named().put(NAME, b"short", PutNamed::new()).unwrap();
        assert!(matches!(TokenKey::of_store(&store), Err(TokenKeyError::Damaged)));
        store.close().unwrap();
    }
}
