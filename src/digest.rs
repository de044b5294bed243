//! Digests: what names a blob.
//!
//! A [`Digest`] is parsed once, at the edge, from `algorithm:hex` as the OCI image specification writes it; an invalid
//! one can't exist. A [`Hasher`] computes one while content streams by, and its state can be saved and taken up again
//! after a restart for the SHA-2 family.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;
use sha2::digest::common::hazmat::SerializableState;

use crate::error::Error;
use crate::wire::first;

/// A digest algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256, what registries use.
    Sha256,
    /// SHA-512, which the OCI specifications allow too.
    Sha512,
    /// BLAKE3 with 32 bytes of output: about three times as fast as SHA-256.
    Blake3,
}

impl Algorithm {
    /// The name in front of the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Blake3 => "blake3",
        }
    }

    /// A digest's length in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The number that stands for it in files.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
            Self::Blake3 => 3,
        }
    }

    /// The algorithm of a number in a file.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Sha256),
            2 => Some(Self::Sha512),
            3 => Some(Self::Blake3),
            _ => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The digest of a blob's own bytes, uncompressed and unencrypted.
///
/// ```
/// use strongroom::{Algorithm, Digest};
///
/// let digest: Digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse()?;
/// assert_eq!(digest.algorithm(), Algorithm::Sha256);
/// assert_eq!(digest, Digest::of(Algorithm::Sha256, b""));
/// assert!("sha256:E3B0".parse::<Digest>().is_err());
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// The digest's bytes, zeros after them.
    bytes: [u8; 64],
}

impl Digest {
    /// The digest of `content`.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// A digest from its bytes, which must have the algorithm's length.
    pub fn from_bytes(algorithm: Algorithm, digest: &[u8]) -> Option<Self> {
        let mut bytes = [0; 64];
        bytes.get_mut(..algorithm.digest_len())?.copy_from_slice(digest.get(..algorithm.digest_len())?);
        (digest.len() == algorithm.digest_len()).then_some(Self { algorithm, bytes })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digest's bytes: 32 or 64 of them.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.algorithm.digest_len()).unwrap_or(&self.bytes)
    }

    /// The first 32 of the digest's bytes.
    pub(crate) fn first_bytes(&self) -> [u8; 32] {
        first(&self.bytes)
    }

    /// The digest's bytes in lower-case hex.
    pub fn hex(&self) -> String {
        encode_hex(self.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidAlgorithm { text: text.chars().take(200).collect() };
        let mut all = [Self::Sha256, Self::Sha512, Self::Blake3].into_iter();
        all.find(|algorithm| algorithm.name() == text).ok_or_else(invalid)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let (name, hex) = text.split_once(':')?;
            let algorithm: Algorithm = name.parse().ok()?;
            let mut bytes = [0; 64];
            decode_hex(hex, bytes.get_mut(..algorithm.digest_len())?)?;
            Some(Self { algorithm, bytes })
        };
        parse().ok_or_else(|| Error::InvalidDigest { text: text.chars().take(200).collect() })
    }
}

/// Lower-case hex of `bytes`.
pub(crate) fn encode_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Fills `bytes` from lower-case hex of exactly their length.
pub(crate) fn decode_hex(hex: &str, bytes: &mut [u8]) -> Option<()> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if hex.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = value(high)? << 4 | value(low)?;
    }
    Some(())
}

/// Computes a [`Digest`] over content that comes in pieces.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
            Algorithm::Blake3 => State::Blake3(Box::default()),
        })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
            State::Blake3(_) => Algorithm::Blake3,
        }
    }

    /// Takes in the next piece of content.
    pub fn update(&mut self, content: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(content),
            State::Sha512(state) => state.update(content),
            State::Blake3(state) => {
                state.update(content);
            }
        }
    }

    /// The digest of all content seen.
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        let mut bytes = [0; 64];
        let (head, _) = bytes.split_at_mut(algorithm.digest_len());
        match self.0 {
            State::Sha256(state) => head.copy_from_slice(&state.finalize()),
            State::Sha512(state) => head.copy_from_slice(&state.finalize()),
            State::Blake3(state) => head.copy_from_slice(state.finalize().as_bytes()),
        }
        Digest { algorithm, bytes }
    }

    /// The state, to be taken up by [`resume`](Self::resume). `None` for BLAKE3, whose state can't be saved.
    pub(crate) fn save(&self) -> Option<Vec<u8>> {
        match &self.0 {
            State::Sha256(state) => Some(state.serialize().to_vec()),
            State::Sha512(state) => Some(state.serialize().to_vec()),
            State::Blake3(_) => None,
        }
    }

    /// Takes up a saved state.
    pub(crate) fn resume(algorithm: Algorithm, saved: &[u8]) -> Option<Self> {
        Some(Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::deserialize(saved.try_into().ok()?).ok()?),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::deserialize(saved.try_into().ok()?).ok()?),
            Algorithm::Blake3 => return None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip_through_text() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3] {
            let digest = Digest::of(algorithm, b"strongroom");
            assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
            assert_eq!(Digest::from_bytes(algorithm, digest.as_bytes()), Some(digest));
        }
    }

    #[test]
    fn malformed_digests_are_refused() {
        let good = Digest::of(Algorithm::Sha256, b"x").to_string();
        for bad in ["", ":", "sha256", "sha256:", "md5:00", &good[1..], &good[..70], &format!("{good}0")] {
            assert!(matches!(bad.parse::<Digest>(), Err(Error::InvalidDigest { .. })), "{bad}");
        }
        assert!(good.to_uppercase().parse::<Digest>().is_err());
        assert!(good.replace("sha256", "SHA256").parse::<Digest>().is_err());
        assert!("sha256:é".repeat(50).parse::<Digest>().is_err());
    }

    #[test]
    fn a_saved_hash_state_goes_on_where_it_stood() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(&[7; 1000]);
            let mut resumed = Hasher::resume(algorithm, &hasher.save().unwrap()).unwrap();
            resumed.update(b"end");
            let mut whole = vec![7; 1000];
            whole.extend(b"end");
            assert_eq!(resumed.finish(), Digest::of(algorithm, &whole));
            assert!(Hasher::resume(algorithm, &[0; 3]).is_none());
        }
    }
}
