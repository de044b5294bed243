//! Pins, which are named files, and the pins that hold the parts of an import.
//!
//! An import of a large folder has a document in several parts. Each part is held by a pin whose name is the import's
//! name, `#`, and the part's digest. Users can neither set nor remove such names by themselves: the import and its
//! removal do. A replacement first sets the pins of its parts, then the one of its name, which is the step from the old
//! content to the new, and then removes the part pins that are left of what was before.

use std::collections::BTreeSet;

use crate::blobs::PutNamed;
use crate::digest::Digest;
use crate::error::Error;
use crate::store::Store;
use crate::transaction::ExpectNamed;
use crate::transfer::error::TransferError;

/// So many blobs does a pin hold at most, besides the one it names.
pub(crate) const HELD_MAX: usize = 65_535;

/// The longest name: that of a part has at most 1,024 bytes.
const NAME_MAX: usize = 1024 - "#sha256:".len() - 64;

/// Whether a pin that has the name already may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the call fails.
    Refuse,
    /// It is replaced.
    Replace,
}

/// A pin that is about to be set, which may replace an import with all of its parts. Until it is set, the parts that it
/// holds go when this is dropped.
///
/// ```
/// use strongroom::transfer::{Existing, NewPin, TransferError};
/// use strongroom::{Algorithm, Options, PutNamed};
///
/// # let dir = tempfile::tempdir()?;
/// let store = Options::new().create(true).open(dir.path().join("store"))?;
/// let digest = store.put("content", Algorithm::Sha256)?.digest;
/// NewPin::new(&store, "it", Existing::Refuse)?.set(&digest, PutNamed::new())?;
/// let again = NewPin::new(&store, "it", Existing::Refuse);
/// assert!(matches!(again, Err(TransferError::NameInUse { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NewPin<'a> {
    store: &'a Store,
    name: String,
    replaces: Option<Digest>,
    /// The pins of the parts, and of them those that were not there before.
    parts: BTreeSet<String>,
    new_parts: Vec<String>,
}

impl<'a> NewPin<'a> {
    /// Checks the name, and that there is no pin of it yet, or that it may be replaced.
    ///
    /// # Errors
    /// [`TransferError::NameInUse`]; [`TransferError::ReservedName`] for a digest and for the name of an import's part;
    /// [`Error::InvalidName`] unless it has 1 to 952 bytes without control characters.
    pub fn new(store: &'a Store, name: &str, existing: Existing) -> Result<Self, TransferError> {
        check(name)?;
        if name.parse::<Digest>().is_ok() {
            let problem = "is a digest, which commands take for the blob: give the pin another name";
            return Err(TransferError::ReservedName { name: name.to_owned(), problem });
        }
        if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(Error::InvalidName { name: name.chars().take(200).collect(), max: NAME_MAX }.into());
        }
        let replaces = match store.named().stat(name) {
            Err(Error::NamedNotFound { .. }) => None,
            other => Some(other?.digest),
        };
        match (existing, replaces) {
            (Existing::Refuse, Some(digest)) => Err(TransferError::NameInUse { name: name.to_owned(), digest }),
            _ => Ok(Self { store, name: name.to_owned(), replaces, parts: BTreeSet::new(), new_parts: Vec::new() }),
        }
    }

    /// Holds a part of what the pin is to name.
    pub(crate) fn hold_part(&mut self, part: &Digest, references: Vec<Digest>) -> Result<(), TransferError> {
        let name = format!("{}#{part}", self.name);
        let is_new = matches!(self.store.named().stat(&name), Err(Error::NamedNotFound { .. }));
        self.store.named().set(&name, part, PutNamed::new().references(references))?;
        self.new_parts.extend(is_new.then(|| name.clone()));
        self.parts.insert(name);
        Ok(())
    }

    /// Sets the pin, and removes the parts of what was pinned before. Returns what was.
    ///
    /// # Errors
    /// As [`NamedFiles::set`](crate::NamedFiles::set).
    pub fn set(mut self, digest: &Digest, options: PutNamed) -> Result<Option<Digest>, TransferError> {
        self.store.named().set(&self.name, digest, options)?;
        self.new_parts.clear();
        for part in parts(self.store, &self.name)? {
            if !self.parts.contains(&part) {
                self.store.named().remove(&part, ExpectNamed::Any)?;
            }
        }
        Ok(self.replaces)
    }
}

impl Drop for NewPin<'_> {
    fn drop(&mut self) {
        for part in &self.new_parts {
            // If it stays, the next import under the name or `remove` removes it.
            let _ = self.store.named().remove(part, ExpectNamed::Any);
        }
    }
}

/// Whether the blobs go that a removed pin alone held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBlobs {
    /// They stay, like other unreferenced blobs, until a collection removes them.
    Keep,
    /// They are removed at once.
    Remove,
}

/// Removes what was imported under a name: its pin, and those of its parts. Also removes what an import under that name
/// left that was killed. Returns how many blobs were removed.
///
/// # Errors
/// [`TransferError::ReservedName`] for the name of a part; [`Error::NamedNotFound`] where there is nothing of that
/// name.
pub fn remove(store: &Store, name: &str, blobs: HeldBlobs) -> Result<usize, TransferError> {
    check(name)?;
    let mut removed = 0;
    let mut pins = parts(store, name)?;
    match store.named().stat(name) {
        Err(Error::NamedNotFound { .. }) if !pins.is_empty() => {} // parts that an interrupted import left
        other => pins.insert(0, other?.name),
    }
    for name in pins {
        let pin = store.named().stat(&name)?;
        store.named().remove(&name, ExpectNamed::Any)?;
        for digest in pin.references.iter().chain([&pin.digest]).filter(|_| blobs == HeldBlobs::Remove) {
            match store.remove(digest) {
                Ok(_) => removed += 1,
                Err(Error::BlobInUse { .. } | Error::BlobNotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(removed)
}

/// The name of the import whose part a pin of this name holds, where it is such a name.
///
/// ```
/// use strongroom::transfer::import_of_part;
///
/// assert_eq!(import_of_part(&format!("folder#sha256:{}", "ab".repeat(32))), Some("folder"));
/// assert_eq!(import_of_part("folder#1"), None);
/// ```
pub fn import_of_part(name: &str) -> Option<&str> {
    let (whole, digest) = name.rsplit_once('#')?;
    digest.parse::<Digest>().is_ok().then_some(whole)
}

/// Refuses the names of parts.
fn check(name: &str) -> Result<(), TransferError> {
    if import_of_part(name).is_none() {
        return Ok(());
    }
    let problem = "is the name of a part of an import, which comes and goes with that";
    Err(TransferError::ReservedName { name: name.to_owned(), problem })
}

/// The names that hold parts of what is, or was to be, imported under a name.
fn parts(store: &Store, name: &str) -> Result<Vec<String>, TransferError> {
    let prefix = format!("{name}#");
    let mut parts = Vec::new();
    for file in store.named().iter(&prefix) {
        let name = file?.name;
        if name.strip_prefix(&prefix).is_some_and(|digest| digest.parse::<Digest>().is_ok()) {
            parts.push(name);
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;
    use crate::store::Options;

    fn file_names(store: &Store) -> Vec<String> {
        store.named().iter("").map(|file| file.unwrap().name).collect()
    }

    #[test]
    fn parts_of_what_is_not_pinned_in_the_end_are_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Options::new().create(true).open(dir.path().join("store")).unwrap();
        let digests = ["one", "two", "three"].map(|content| store.put(content, Algorithm::Sha256).unwrap());
        let mut pin = NewPin::new(&store, "f", Existing::Refuse).unwrap();
        pin.hold_part(&digests[0].digest, Vec::new()).unwrap();
        assert_eq!(file_names(&store).len(), 1);
        drop(pin);
        assert!(file_names(&store).is_empty());

        let mut pin = NewPin::new(&store, "f", Existing::Refuse).unwrap();
        pin.hold_part(&digests[0].digest, Vec::new()).unwrap();
        pin.set(&digests[1].digest, PutNamed::new()).unwrap();
        let before = file_names(&store);
        assert_eq!(before.len(), 2);
        let mut pin = NewPin::new(&store, "f", Existing::Replace).unwrap();
        pin.hold_part(&digests[0].digest, Vec::new()).unwrap();
        pin.hold_part(&digests[2].digest, Vec::new()).unwrap();
        drop(pin);
        assert_eq!(file_names(&store), before, "what is pinned keeps its parts");
    }
}
