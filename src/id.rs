//! Numbers that name things, each its own type.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Log sequence number: a commit's position in the order of all commits. The first commit has 1; 0 means none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub(crate) u64);

impl Lsn {
    /// Before the first commit.
    pub(crate) const ZERO: Self = Self(0);

    /// The position after this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position as a number.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// For positions that were kept as numbers, such as those in [events](crate::Store::events).
impl From<u64> for Lsn {
    fn from(position: u64) -> Self {
        Self(position)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Names a log file, a segment or a run. One counter serves all three, and no number is used twice in a store's life,
/// so that a place (file, offset) means one thing for ever. At most 48 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId(pub(crate) u64);

impl FileId {
    /// The largest id that the formats can hold.
    pub(crate) const MAX: u64 = (1 << 48) - 1;
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

/// Names a repository for ever, also once its name is another's: the LSN of the commit that created it. At most 48
/// bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RepositoryId(pub(crate) u64);

/// Numbers a key domain: what belongs to it is encrypted under its keys alone, and content is stored once in it. What
/// is in no domain of its own is in the default one, as is everything in a store that is not encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DomainId(pub(crate) u32);

impl DomainId {
    /// The default domain.
    pub(crate) const DEFAULT: Self = Self(0);
}

/// Sixteen random bytes, shown as hex.
macro_rules! random_id {
    ($(#[$doc:meta])* $visibility:vis $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $visibility struct $name(pub(crate) [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

random_id! {
    /// Names a resumable upload: 16 random bytes, shown and parsed as 32 lower-case hex digits.
    ///
    /// ```
    /// let id: strongroom::UploadId = "000102030405060708090a0b0c0d0e0f".parse()?;
    /// assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0e0f");
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    pub UploadId
}
random_id! {
    /// Names a store: 16 random bytes drawn when it is created and repeated in each of its files.
    pub(crate) StoreId
}
random_id! {
    /// Names one opening of a store: 16 random bytes. Derived files that carry another one are not trusted.
    pub(crate) SessionId
}

impl FromStr for UploadId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut bytes = [0; 16];
        let invalid = || Error::InvalidUploadId { text: text.chars().take(200).collect() };
        crate::digest::decode_hex(text, &mut bytes).ok_or_else(invalid)?;
        Ok(Self(bytes))
    }
}
