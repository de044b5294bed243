//! Documents that are attached to repositories: what they may be called, and how long they may be.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::id::Lsn;

/// The most documents that a repository has.
pub(crate) const MAX_DOCUMENTS: usize = 64;

/// The longest document in bytes.
const MAX_DOCUMENT: usize = 1 << 20;

/// The longest name of a document in bytes.
const MAX_NAME: usize = 128;

/// What a document has to be for it to be set or removed: compare-and-set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpectDocument {
    /// Anything, or not there.
    #[default]
    Any,
    /// Not there.
    Absent,
    /// Of this revision.
    Is(Lsn),
}

impl ExpectDocument {
    /// Fails where a document that is of a revision, or is not there, is not as expected.
    pub(crate) fn check(self, name: &str, found: Option<Lsn>) -> Result<()> {
        match self {
            Self::Any => Ok(()),
            Self::Absent if found.is_none() => Ok(()),
            Self::Is(expected) if found == Some(expected) => Ok(()),
            Self::Absent | Self::Is(_) => Err(Error::DocumentChanged { name: name.to_owned(), found }),
        }
    }
}

/// A document that is about to be set: its name and its length are such as they may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewDocument {
    pub(crate) name: String,
    pub(crate) content: Bytes,
}

impl NewDocument {
    pub(crate) fn new(name: &str, content: &[u8]) -> Result<Self> {
        check_name(name)?;
        Error::check_limit("a repository's document", content.len(), MAX_DOCUMENT)?;
        Ok(Self { name: name.to_owned(), content: Bytes::copy_from_slice(content) })
    }
}

/// Fails where a document may not have a name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let is_name = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let text = || name.chars().take(200).collect();
    if is_name { Ok(()) } else { Err(Error::InvalidDocumentName { name: text() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_printable_ascii() {
        for good in ["a", "ecr/lifecycle policy", "~", &"x".repeat(128)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a\n", "\u{7f}", "größe", &"x".repeat(129), &"ü".repeat(1000)] {
            assert!(matches!(check_name(bad), Err(Error::InvalidDocumentName { name }) if name.len() <= 400));
        }
    }
}
