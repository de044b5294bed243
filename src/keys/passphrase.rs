//! A key from a passphrase: Argon2id.
//!
//! ```text
//! wrapped: version 1 (u8)  memory in KiB (u32)  passes (u32)  lanes (u32)  salt 16  check 8
//!          nonce 12  ciphertext 32  tag 16                                                      97 bytes; see `seal`
//! ```
//!
//! Argon2id makes 32 bytes of passphrase, salt and cost. From these are derived (BLAKE3's mode for deriving keys) the
//! key that wraps and the check, which tells a wrong passphrase from damage. It tells an attacker nothing that the tag
//! does not: a guess costs one run of Argon2id either way. Damage in cost, salt or check itself looks like a wrong
//! passphrase.
//!
//! All keys that one provider wraps have one salt, that of the first it met, and what was derived is kept: a store with
//! a thousand data keys opens with one derivation. A cost that is read from a wrapped key is believed within
//! [`PassphraseCost`]'s bounds alone.

use std::fmt;
use std::sync::Mutex;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use super::seal::{SEALED_LEN, Sealing};
use super::{KeyContext, KeyError, KeyProvider, SecretKey, random};
use crate::sync::lock;
use crate::wire::{Fields, PutFields as _, first};

const ID: &str = "passphrase";
const VERSION: u8 = 1;
const WRAPPING: &str = "strongroom: the wrapping key of a passphrase, version 1";
const CHECK: &str = "strongroom: the check of a passphrase, version 1";

const SALT_LEN: usize = 16;
const CHECK_LEN: usize = 8;
const HEADER_LEN: usize = 1 + 3 * 4 + SALT_LEN + CHECK_LEN;

/// What a guess at a passphrase costs: the parameters of Argon2id.
///
/// The default is the second recommendation of RFC 9106 (section 4): 64 MiB, 3 passes, 4 lanes, which is above what
/// OWASP asks for at least. The lanes are computed one after the other, which changes nothing of the result; it takes
/// some 0.3 s.
///
/// ```
/// use strongroom::keys::PassphraseCost;
///
/// let default = PassphraseCost::default();
/// assert_eq!(default, PassphraseCost::new(64 * 1024, 3, 4)?);
/// # Ok::<(), strongroom::keys::KeyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassphraseCost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Default for PassphraseCost {
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

impl PassphraseCost {
    /// The most memory, in KiB: 1 GiB.
    pub const MAX_MEMORY_KIB: u32 = 1 << 20;
    /// The most memory times passes, in KiB: 4 GiB, which take some ten seconds.
    pub const MAX_WORK_KIB: u32 = 4 << 20;
    /// The most lanes.
    pub const MAX_LANES: u32 = 64;

    /// A cost: memory in KiB, passes over it, and lanes. Less than the default is for tests.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] beyond the bounds, where there is less than 8 KiB for each lane, or where one is 0.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, KeyError> {
        let cost = Self { memory_kib, passes, lanes };
        cost.is_allowed().then_some(cost).ok_or_else(|| KeyError::Invalid {
            reason: format!(
                "Argon2id with {memory_kib} KiB, {passes} passes and {lanes} lanes: allowed are up to {} KiB, \
                 {} KiB times passes, and {} lanes of at least 8 KiB",
                Self::MAX_MEMORY_KIB,
                Self::MAX_WORK_KIB,
                Self::MAX_LANES
            ),
        })
    }

    fn is_allowed(self) -> bool {
        (1..=Self::MAX_LANES).contains(&self.lanes)
            && (8 * self.lanes..=Self::MAX_MEMORY_KIB).contains(&self.memory_kib)
            && self.passes > 0
            && self.passes.checked_mul(self.memory_kib).is_some_and(|work| work <= Self::MAX_WORK_KIB)
    }
}

/// A key-encryption key that is derived from a passphrase.
///
/// # What it protects
/// Anyone who obtains the store's directory has to guess the passphrase, and pays [`PassphraseCost`] for each guess.
/// That protects a passphrase of six random words; it does not protect a word from a dictionary with a digit behind it.
/// A machine that opens the store unattended has the passphrase somewhere, and then a [`LocalKey`](super::LocalKey) is
/// as safe, and faster.
///
/// The passphrase is taken as the bytes that it is. Text from keyboards should be brought into one Unicode normal form
/// by the caller.
///
/// # Example
/// ```
/// use strongroom::keys::{KeyContext, KeyError, KeyProvider, Passphrase, PassphraseCost, SecretKey};
///
/// # let cost = PassphraseCost::new(64, 1, 1)?; // so that the example is fast
/// let passphrase = Passphrase::new("tidal canoe verb ochre plank mimic");
/// # let passphrase = passphrase.cost(cost);
/// let (context, data_key) = (KeyContext::new([7; 16], 0, 1), SecretKey::generate()?);
/// let wrapped = passphrase.wrap("passphrase", &data_key, &context)?;
/// assert_eq!(passphrase.unwrap("passphrase", &wrapped, &context)?.expose(), data_key.expose());
///
/// let other = Passphrase::new("hunter2");
/// assert!(matches!(other.unwrap("passphrase", &wrapped, &context), Err(KeyError::Wrong { .. })));
/// # Ok::<(), KeyError>(())
/// ```
pub struct Passphrase {
    passphrase: Zeroizing<Vec<u8>>,
    cost: PassphraseCost,
    known: Mutex<Known>,
}

/// What the provider learned of the store and derived for it.
#[derive(Default)]
struct Known {
    /// The salt for keys that are wrapped: the first that was drawn, or that the passphrase was right for.
    salt: Option<[u8; SALT_LEN]>,
    derived: Vec<(Source, Derived)>,
}

/// What a key is derived from, besides the passphrase.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Source {
    cost: PassphraseCost,
    salt: [u8; SALT_LEN],
}

#[derive(Clone)]
struct Derived {
    wrapping: SecretKey,
    check: [u8; CHECK_LEN],
}

impl Passphrase {
    /// The provider that has this passphrase. A `String` is taken over and wiped in the end; of text that is borrowed,
    /// only the copy is. An empty passphrase is refused when it is to be used.
    pub fn new(passphrase: impl Into<Vec<u8>>) -> Self {
        let passphrase = Zeroizing::new(passphrase.into());
        Self { passphrase, cost: PassphraseCost::default(), known: Mutex::default() }
    }

    /// What keys that are wrapped from now on cost; 64 MiB, 3 passes and 4 lanes by default. Those that were wrapped
    /// before have the cost that they were wrapped with, until they are wrapped anew.
    pub fn cost(mut self, cost: PassphraseCost) -> Self {
        self.cost = cost;
        self
    }

    fn derive(&self, source: &Source) -> Result<Derived, KeyError> {
        if self.passphrase.is_empty() {
            return Err(KeyError::Invalid { reason: "the passphrase is empty".to_owned() });
        }
        let root = Zeroizing::new(argon2id(&self.passphrase, source)?);
        let wrapping = Zeroizing::new(blake3::derive_key(WRAPPING, &*root));
        let check = Zeroizing::new(blake3::derive_key(CHECK, &*root));
        Ok(Derived { wrapping: SecretKey::from_bytes(*wrapping), check: first(&check) })
    }

    /// What keys are wrapped with.
    fn for_wrapping(&self) -> Result<(Source, Derived), KeyError> {
        let mut known = lock(&self.known); // others wait for what is being derived, rather than derive it too
        let mut drawn = [0; SALT_LEN];
        random(&mut drawn)?;
        let source = Source { cost: self.cost, salt: known.salt.unwrap_or(drawn) };
        let derived = match known.find(&source) {
            Some(derived) => derived,
            None => known.keep(source, self.derive(&source)?),
        };
        Ok((source, derived))
    }

    /// What a key was wrapped with, if the passphrase is right.
    fn for_unwrapping(&self, wrapped: &Wrapped<'_>) -> Result<Derived, KeyError> {
        let mut known = lock(&self.known);
        let found = known.find(&wrapped.source);
        let derived = found.map_or_else(|| self.derive(&wrapped.source), Ok)?;
        if derived.check != wrapped.check {
            // Nothing is kept, so that a wrong salt is not taken for the store's, and many are not kept.
            return Err(KeyError::Wrong { expected: ID.to_owned(), found: String::new() });
        }
        Ok(known.keep(wrapped.source, derived))
    }
}

impl Known {
    fn find(&self, source: &Source) -> Option<Derived> {
        self.derived.iter().find(|(known, _)| known == source).map(|(_, derived)| derived.clone())
    }

    fn keep(&mut self, source: Source, derived: Derived) -> Derived {
        self.salt.get_or_insert(source.salt);
        if self.find(&source).is_none() {
            self.derived.push((source, derived.clone()));
        }
        derived
    }
}

impl KeyProvider for Passphrase {
    fn key_id(&self) -> Result<String, KeyError> {
        Ok(ID.to_owned())
    }

    fn wrap(&self, key_id: &str, key: &SecretKey, context: &KeyContext) -> Result<Vec<u8>, KeyError> {
        only_id(key_id)?;
        let (source, derived) = self.for_wrapping()?;
        let header = source.header(derived.check);
        Sealing { with: &derived.wrapping, key_id, context, header: &header }.seal(key)
    }

    fn unwrap(&self, key_id: &str, wrapped: &[u8], context: &KeyContext) -> Result<SecretKey, KeyError> {
        only_id(key_id)?;
        let wrapped = Wrapped::parse(wrapped).ok_or(KeyError::Damaged)?;
        let derived = self.for_unwrapping(&wrapped)?;
        Sealing { with: &derived.wrapping, key_id, context, header: wrapped.header }.open(wrapped.sealed)
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passphrase").field("cost", &self.cost).finish_non_exhaustive()
    }
}

fn only_id(key_id: &str) -> Result<(), KeyError> {
    let wrong = || KeyError::Wrong { expected: key_id.to_owned(), found: ID.to_owned() };
    (key_id == ID).then_some(()).ok_or_else(wrong)
}

impl Source {
    fn header(&self, check: [u8; CHECK_LEN]) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.put_u8(VERSION);
        header.put_u32(self.cost.memory_kib);
        header.put_u32(self.cost.passes);
        header.put_u32(self.cost.lanes);
        header.put(&self.salt);
        header.put(&check);
        header
    }
}

/// A wrapped key's fields, the cost within bounds.
pub(crate) struct Wrapped<'a> {
    source: Source,
    check: [u8; CHECK_LEN],
    header: &'a [u8],
    sealed: &'a [u8; SEALED_LEN],
}

impl<'a> Wrapped<'a> {
    /// The fields, or `None` if this was not wrapped by a passphrase.
    pub(crate) fn parse(wrapped: &'a [u8]) -> Option<Self> {
        let (header, sealed) = wrapped.split_at_checked(HEADER_LEN)?;
        let mut fields = Fields(header);
        (fields.u8()? == VERSION).then_some(())?;
        let cost = PassphraseCost { memory_kib: fields.u32()?, passes: fields.u32()?, lanes: fields.u32()? };
        cost.is_allowed().then_some(())?;
        let source = Source { cost, salt: fields.array()? };
        Some(Self { source, check: fields.array()?, header, sealed: sealed.try_into().ok()? })
    }
}

/// 32 bytes by Argon2id, version 1.3.
fn argon2id(passphrase: &[u8], source: &Source) -> Result<[u8; 32], KeyError> {
    let failed = |error: argon2::Error| KeyError::Invalid { reason: format!("Argon2id: {error}") };
    let PassphraseCost { memory_kib, passes, lanes } = source.cost;
    let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(failed)?;
    let mut memory = Zeroizing::new(Vec::new());
    memory
        .try_reserve_exact(params.block_count())
        .map_err(|_| KeyError::Unreachable { reason: format!("Argon2id needs {memory_kib} KiB of memory") })?;
    memory.resize(params.block_count(), Block::new());
    let mut key = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase, &source.salt, &mut key, &mut *memory)
        .map_err(failed)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{decode_hex, encode_hex};

    const CONTEXT: KeyContext = KeyContext { store: [3; 16], domain: 5, key: 7 };
    const CHEAP: PassphraseCost = PassphraseCost { memory_kib: 8, passes: 1, lanes: 1 };
    const WORDS: &str = "tidal canoe verb ochre plank mimic";

    fn cheap(passphrase: &str) -> Passphrase {
        Passphrase::new(passphrase).cost(CHEAP)
    }

    fn wrong() -> KeyError {
        KeyError::Wrong { expected: ID.into(), found: String::new() }
    }

    fn data_key() -> SecretKey {
        SecretKey::from_bytes([0xa7; 32])
    }

    #[test]
    fn what_was_wrapped_is_unwrapped_by_who_knows_the_passphrase() {
        let wrapped = cheap(WORDS).wrap(ID, &data_key(), &CONTEXT).unwrap();
        assert_eq!(wrapped.len(), 97);
        // The cost is that of the wrapped key, not of who unwraps.
        let provider = Passphrase::new(WORDS.to_owned());
        assert_eq!(provider.unwrap(ID, &wrapped, &CONTEXT).unwrap().expose(), data_key().expose());
        let (made, wrapped) = cheap(WORDS).generate(ID, &CONTEXT).unwrap();
        assert_eq!(provider.unwrap(ID, &wrapped, &CONTEXT).unwrap().expose(), made.expose());
        let other = cheap("tidal canoe verb ochre plank mimi");
        assert_eq!(other.unwrap(ID, &wrapped, &CONTEXT).unwrap_err(), wrong());
        assert_eq!(
            other.unwrap("local:00", &wrapped, &CONTEXT).unwrap_err().to_string().matches("local:00").count(),
            1
        );
        assert!(matches!(other.wrap("local:00", &data_key(), &CONTEXT), Err(KeyError::Wrong { .. })));
    }

    /// What is on disk stays readable.
    #[test]
    fn keys_that_were_wrapped_once_are_unwrapped_for_ever() {
        let mut wrapped = [0; 97];
        let hex = concat!(
            "0108000000010000000100000022db92595ad76c256df8cf50c7eb9a9d5782631e7f28df43ed8820c3ad558e4ba0",
            "1cf2a48ebf26022b1d79b7d96b6297de24b593416d200514836115b3e5df5dcea05e817a313b66ff70cc4ee1400e082b1274f9",
        );
        decode_hex(hex, &mut wrapped).unwrap();
        assert_eq!(cheap(WORDS).unwrap(ID, &wrapped, &CONTEXT).unwrap().expose(), data_key().expose());
    }

    #[test]
    fn the_default_cost_works() {
        let passphrase = Passphrase::new(WORDS);
        let wrapped = passphrase.wrap(ID, &data_key(), &CONTEXT).unwrap();
        assert_eq!(wrapped[1..13], [0, 0, 1, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(passphrase.unwrap(ID, &wrapped, &CONTEXT).unwrap().expose(), data_key().expose());
    }

    #[test]
    fn another_context_is_refused() {
        let passphrase = cheap(WORDS);
        let wrapped = passphrase.wrap(ID, &data_key(), &CONTEXT).unwrap();
        for other in [
            KeyContext { store: [4; 16], ..CONTEXT },
            KeyContext { domain: 7, key: 5, ..CONTEXT },
            KeyContext { key: 8, ..CONTEXT },
        ] {
            assert_eq!(passphrase.unwrap(ID, &wrapped, &other).unwrap_err(), KeyError::Damaged);
        }
    }

    #[test]
    fn every_changed_bit_and_every_other_length_is_refused() {
        let passphrase = cheap(WORDS);
        let mut wrapped = passphrase.wrap(ID, &data_key(), &CONTEXT).unwrap();
        for bit in 0..wrapped.len() * 8 {
            wrapped[bit / 8] ^= 1 << (bit % 8);
            let costly = Wrapped::parse(&wrapped)
                .is_some_and(|wrapped| wrapped.source.cost.memory_kib * wrapped.source.cost.passes > 1 << 14);
            if !costly {
                let error = passphrase.unwrap(ID, &wrapped, &CONTEXT).unwrap_err();
                // In the version and behind the check it is damage for sure.
                let damage = bit / 8 == 0 || bit / 8 >= HEADER_LEN;
                assert!(error == KeyError::Damaged || !damage && error == wrong(), "bit {bit}: {error}");
            }
            wrapped[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..wrapped.len() {
            assert_eq!(passphrase.unwrap(ID, &wrapped[..length], &CONTEXT).unwrap_err(), KeyError::Damaged);
        }
        for more in [1, 100, 1 << 20] {
            let longer = [wrapped.clone(), vec![0; more]].concat();
            assert_eq!(passphrase.unwrap(ID, &longer, &CONTEXT).unwrap_err(), KeyError::Damaged);
        }
        assert_eq!(lock(&passphrase.known).derived.len(), 1, "nothing is kept of what was refused");
    }

    #[test]
    fn a_hostile_cost_is_not_paid() {
        let passphrase = cheap(WORDS);
        let wrapped = passphrase.wrap(ID, &data_key(), &CONTEXT).unwrap();
        let g = 1 << 20;
        for (memory, passes, lanes) in [
            (g + 1, 1, 1),
            (u32::MAX, 1, 1),
            (g, 5, 4),
            (8, u32::MAX, 1),
            (1 << 16, 1 << 16, 1),
            (8, 1, 2),
            (7, 1, 1),
            (0, 1, 1),
            (8, 0, 1),
            (8, 1, 0),
            (g, 1, 65),
            (8, 1, u32::MAX),
        ] {
            assert!(matches!(PassphraseCost::new(memory, passes, lanes), Err(KeyError::Invalid { .. })));
            let mut hostile = wrapped.clone();
            let cost = [memory, passes, lanes].map(u32::to_le_bytes).concat();
            hostile.splice(1..13, cost);
            assert_eq!(passphrase.unwrap(ID, &hostile, &CONTEXT).unwrap_err(), KeyError::Damaged);
        }
        for (memory, passes, lanes) in [(g, 4, 64), (8, 1, 1), (8, g / 2, 1)] {
            PassphraseCost::new(memory, passes, lanes).unwrap();
        }
    }

    #[test]
    fn one_salt_and_one_derivation_serve_a_store() {
        let first = cheap(WORDS);
        let wrapped: Vec<_> = (0..20).map(|_| first.wrap(ID, &data_key(), &CONTEXT).unwrap()).collect();
        assert!(wrapped.iter().all(|other| other[..HEADER_LEN] == wrapped[0][..HEADER_LEN]));

        let second = cheap(WORDS);
        for wrapped in &wrapped {
            second.unwrap(ID, wrapped, &CONTEXT).unwrap();
        }
        let more = second.wrap(ID, &data_key(), &CONTEXT).unwrap();
        assert_eq!(more[..HEADER_LEN], wrapped[0][..HEADER_LEN], "the salt that was met is used");
        assert_eq!(lock(&second.known).derived.len(), 1);

        // Who asks for another cost gets it, with the salt that was met.
        let third = cheap(WORDS).cost(PassphraseCost { passes: 2, ..CHEAP });
        third.unwrap(ID, &more, &CONTEXT).unwrap();
        let dearer = third.wrap(ID, &data_key(), &CONTEXT).unwrap();
        assert_eq!((dearer[5], &dearer[13..29]), (2, &more[13..29]));
        assert_eq!(second.unwrap(ID, &dearer, &CONTEXT).unwrap().expose(), data_key().expose());

        let other = cheap(WORDS).wrap(ID, &data_key(), &CONTEXT).unwrap();
        assert_ne!(other[13..29], more[13..29], "another store has another salt");
    }

    #[test]
    fn threads_share_what_one_derives() {
        let passphrase = cheap(WORDS);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| passphrase.wrap(ID, &data_key(), &CONTEXT).unwrap());
            }
        });
        assert_eq!(lock(&passphrase.known).derived.len(), 1);
    }

    #[test]
    fn an_empty_passphrase_is_refused() {
        let wrapped = cheap(WORDS).wrap(ID, &data_key(), &CONTEXT).unwrap();
        let invalid = KeyError::Invalid { reason: "the passphrase is empty".into() };
        assert_eq!(cheap("").wrap(ID, &data_key(), &CONTEXT).unwrap_err(), invalid);
        assert_eq!(cheap("").unwrap(ID, &wrapped, &CONTEXT).unwrap_err(), invalid);
    }

    #[test]
    fn nothing_that_is_shown_has_the_passphrase_or_a_key() {
        let passphrase = cheap(WORDS);
        let wrapped = passphrase.wrap(ID, &data_key(), &CONTEXT).unwrap();
        let derived = passphrase.for_wrapping().unwrap().1;
        let mut shown = format!("{passphrase:?} {passphrase:#?}");
        for error in [
            passphrase.unwrap("local:1", &wrapped, &CONTEXT).unwrap_err(),
            passphrase.unwrap(ID, &wrapped[1..], &CONTEXT).unwrap_err(),
            passphrase.unwrap(ID, &wrapped, &KeyContext { key: 1, ..CONTEXT }).unwrap_err(),
            cheap("canoe").unwrap(ID, &wrapped, &CONTEXT).unwrap_err(),
            PassphraseCost::new(0, 0, 0).unwrap_err(),
        ] {
            shown += &format!("{error} {error:?}");
        }
        assert!(
            !shown.contains("canoe") && !shown.contains(&encode_hex(b"canoe")) && !shown.contains("99, 97, 110"),
            "{shown}"
        );
        for secret in [derived.wrapping.expose(), data_key().expose()] {
            for piece in secret.chunks(4) {
                assert!(!shown.contains(&encode_hex(piece)) && !shown.contains(&format!("{piece:?}")[1..8]), "{shown}");
            }
        }
    }
}
