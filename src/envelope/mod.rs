//! The envelope: how what lies on disk is encrypted.
//!
//! The caller's [key provider](crate::keys::KeyProvider) wraps *data keys*, 32 random bytes each. A key
//! [domain](DomainId) has its own. Nothing is encrypted with a data key itself: each file that is written draws a
//! random salt, and what is encrypted in it is encrypted under a *subkey*:
//!
//! ```text
//! subkey = HKDF-SHA-256(data key, salt: BLAKE3 of the file's header, in which 32 random bytes stand,
//!                       info: "strongroom v1" | purpose u8 | store 16 | domain u32 | key u16 | file u64)
//! ```
//!
//! So what was written into one file, for one purpose, in one domain of one store can't be opened as anything else:
//! whatever is moved, swapped between files or taken from another store fails, as does everything in a file whose
//! header was changed. Within a file the nonce is the place:
//!
//! | what | purpose | nonce: prefix u64, number u32 |
//! |---|---|---|
//! | a block of content in a log file | content | where in the file the content begins, which readers verify; the block's number |
//! | a block of content in a segment | content | what this opening of the segment drew; the block's number |
//! | a frame's descriptor, a segment's footer | content | the same prefix; 2³² − 1, 2³² − 2 |
//! | operations and facts of a record | record | where in the file the record begins; 0 |
//! | a page of a run | page | the page's number; 0 |
//! | a run's footer | page | 0; 1 |
//! | the list, a label, the table of keys | their own | 0; 0, under a salt drawn each time |
//! | a page of names | name | a counter; 0, under a salt drawn at each opening of the store |
//!
//! # Why no nonce repeats under a key
//! - A **log file** is written front to back, once. A file of an earlier session is never appended to, and where a
//!   write failed nothing more goes into the file. What recovery takes over it encrypts anew, in a new file.
//! - A **segment** may be opened again, to go on with an upload, at a place up to which things are known durable: what
//!   was written behind that is written again, with other content. Each opening draws a prefix of 64 bits. For two of
//!   one segment to be the same, with a thousand openings, the chance is one in 2⁴⁵. Nothing is written twice at one
//!   place in one opening: a call that fails (a seal, for one) ends the opening.
//! - **Runs**, the **list** and the **table of keys** are written once, as a whole, each under its own salt.
//! - A **restored backup** is another history of the same files from then on. But whatever is written is written to new
//!   files, with new salts, or in a new opening of a segment. Two copies of a store that both go on share no subkey but
//!   those of segments that were being uploaded, and no prefix.
//! - What does *not* hold: a machine that is **cloned while a store is open**, with its memory, and goes on in both
//!   copies (or is put back to a state of its memory) writes different things to one place under one key. Nothing is
//!   drawn anew then. Close stores before such a snapshot.
//!
//! No key comes near the limit of its cipher: a subkey of AES-GCM is used for one file, of which the largest have 2²⁸
//! blocks.
//!
//! The tests record every (key, nonce) pair over all simulated crashes ([`recorder`]).
//!
//! Without the feature `encryption` there is no [`Cipher`]: an encrypted store is refused where its `FORMAT` is read,
//! and no store becomes one.

#[cfg(feature = "encryption")]
mod cipher;
#[cfg(not(feature = "encryption"))]
#[path = "no_cipher.rs"]
mod cipher;
mod header;
mod keyring;
mod locked;
#[cfg(all(feature = "encryption", any(test, feature = "simulation")))]
pub(crate) mod recorder;
mod table;

use self::cipher::subkey;
pub(crate) use self::cipher::{Cipher, IS_THERE};
pub(crate) use self::header::FileHeader;
pub(crate) use self::keyring::{CheckKey, Domain, DomainState, FileEnvelope, Keyring, Keys, Sealing};
pub use self::locked::LockedDomain;
pub(crate) use self::table::Table;
use crate::id::{DomainId, FileId, StoreId};
use crate::wire::PutFields;

/// What a key of a domain is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Purpose {
    /// Frames: descriptors and blocks of content.
    Content = 1,
    /// Operations and facts in the log.
    Record = 2,
    /// The checks of records' headers.
    Header = 3,
    /// Pages of runs.
    Page = 4,
    /// The list of log files and runs.
    List = 5,
    /// Pages of names.
    #[cfg_attr(not(feature = "sled"), expect(dead_code, reason = "names are in memory"))]
    Name = 6,
    /// A domain's name.
    Label = 7,
    /// The table of keys.
    Table = 8,
    /// Checks of the tables of frames.
    Check = 9,
}

/// The number of a data key in its domain. 0 stands for none: what is not encrypted.
pub(crate) type KeyNumber = u16;

/// An algorithm for authenticated encryption, with nonces of 12 bytes and tags of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Suite {
    /// AES-256-GCM, NIST SP 800-38D.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305, RFC 8439.
    ChaCha20Poly1305 = 2,
}

impl Suite {
    /// The faster of the two here: AES where the processor has instructions for it, which are also what makes it safe
    /// to use.
    pub(crate) fn best() -> Self {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        let has_aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let has_aes = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
        let has_aes = false;
        if has_aes { Self::Aes256Gcm } else { Self::ChaCha20Poly1305 }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Aes256Gcm, Self::ChaCha20Poly1305].into_iter().find(|suite| *suite as u8 == code)
    }
}

/// The length of an authentication tag in bytes.
pub(crate) const TAG_LEN: usize = 16;

/// Shows that something was encrypted with the key, as it is and where it is.
pub(crate) type Tag = [u8; TAG_LEN];

/// Where something stands under its subkey: see the table in the [module's documentation](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nonce {
    pub(crate) prefix: u64,
    pub(crate) number: u32,
}

impl Nonce {
    /// For what is encrypted under a salt of its own.
    pub(crate) const ONLY: Self = Self { prefix: 0, number: 0 };

    pub(crate) fn new(prefix: u64, number: u32) -> Self {
        Self { prefix, number }
    }
}

/// Something is not what was encrypted, or was encrypted elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

/// Identifies a subkey: what it is derived from, besides the data key and the salt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) store: StoreId,
    pub(crate) domain: DomainId,
    pub(crate) key: KeyNumber,
    /// Zero for what has no number.
    pub(crate) file: FileId,
}

impl Identity {
    /// What a subkey for a purpose is bound to.
    fn info(self, purpose: Purpose) -> Vec<u8> {
        let mut info = Vec::with_capacity(64);
        info.put(b"strongroom v1");
        info.put_u8(purpose as u8);
        info.put(&self.store.0);
        info.put_u32(self.domain.0);
        info.put_u16(self.key);
        info.put_u64(self.file.0);
        info
    }
}
