//! Names of pins, and the pins that hold the parts of an import.
//!
//! An import of a large folder has a document in several parts. Each part is held by a pin whose name is the import's
//! name, `#`, and the part's digest. These names are none that a user can set or remove by themselves: they come and go
//! with the import. A replacement first sets the pins of its parts, then the one of its name, which is the step from
//! the old content to the new, and then removes the part pins that are left of what was before.

use std::collections::BTreeSet;

use serde_json::json;
use strongroom::{Digest, Error, PinOptions, Store};

use crate::commands::Failure;
use crate::output::Output;

/// So many blobs does a pin hold at most, besides the one it names.
pub const HELD_MAX: usize = 65_535;

/// The longest name: that of a part has at most 1,024 bytes.
const NAME_MAX: usize = 1024 - "#sha256:".len() - 64;

/// Whether a command may replace a pin.
#[derive(Clone, Copy, Debug)]
pub enum Existing {
    Refuse,
    Replace,
}

/// A pin that is about to be set.
#[derive(Debug)]
pub struct NewPin<'a> {
    store: &'a Store,
    name: String,
    replaces: Option<Digest>,
    parts: BTreeSet<String>,
}

impl<'a> NewPin<'a> {
    /// Checks the name, and that there is no pin of it yet, or that it may be replaced.
    pub fn new(store: &'a Store, name: &str, existing: Existing) -> Result<Self, Failure> {
        check(name)?;
        if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(Error::InvalidName { name: name.chars().take(200).collect(), max: NAME_MAX }.into());
        }
        let replaces = match store.get_pin(name) {
            Err(Error::PinNotFound { .. }) => None,
            other => Some(other?.digest),
        };
        match (existing, replaces) {
            (Existing::Refuse, Some(digest)) => Err(Failure::Document(format!(
                "there is a pin {name:?} already, of {digest}: give another name, or replace it with --replace"
            ))),
            _ => Ok(Self { store, name: name.to_owned(), replaces, parts: BTreeSet::new() }),
        }
    }

    /// Holds a part of what the pin is to name.
    pub fn hold_part(&mut self, part: &Digest, references: Vec<Digest>) -> Result<(), Failure> {
        let name = format!("{}#{part}", self.name);
        self.store.pin(&name, part, PinOptions::new().references(references))?;
        self.parts.insert(name);
        Ok(())
    }

    /// Sets the pin, and removes the parts of what was pinned before. Returns what was.
    pub fn set(self, digest: &Digest, options: PinOptions) -> Result<Option<Digest>, Failure> {
        self.store.pin(&self.name, digest, options)?;
        for part in parts(self.store, &self.name)? {
            if !self.parts.contains(&part) {
                self.store.unpin(&part)?;
            }
        }
        Ok(self.replaces)
    }
}

/// Lists the pins that are not parts of an import.
pub fn list(store: &Store, output: &Output) -> Result<(), Failure> {
    for name in names(store, None) {
        let name = name?;
        if is_part(&name) {
            continue;
        }
        // It may have been removed since it was listed.
        let Ok(pin) = store.get_pin(&name) else { continue };
        let document = json!({
            "name": pin.name, "digest": pin.digest.to_string(), "references": pin.references.len(),
            "expires_in_seconds": pin.expires_in.map(|left| left.as_secs()),
        });
        output.row(&document, || format!("{:<40} {} +{}", pin.name, pin.digest, pin.references.len()));
    }
    Ok(())
}

/// Removes a pin and its parts; with `blobs`, also what they held and nothing else holds.
pub fn remove(store: &Store, name: &str, blobs: bool, output: &Output) -> Result<(), Failure> {
    check(name)?;
    let mut removed = 0;
    let mut pins = parts(store, name)?;
    match store.get_pin(name) {
        Err(Error::PinNotFound { .. }) if !pins.is_empty() => {} // parts that an interrupted import left
        other => pins.insert(0, other?.name),
    }
    for name in pins {
        let pin = store.get_pin(&name)?;
        store.unpin(&name)?;
        for digest in pin.references.iter().chain([&pin.digest]).filter(|_| blobs) {
            match store.remove(digest) {
                Ok(()) => removed += 1,
                Err(Error::BlobInUse { .. } | Error::BlobNotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    output.print(&json!({ "unpinned": name, "removed_blobs": removed }), "");
    Ok(())
}

/// Whether a name is one that holds a part of an import.
fn is_part(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, digest)| digest.parse::<Digest>().is_ok())
}

/// Refuses the names of parts.
fn check(name: &str) -> Result<(), Failure> {
    if !is_part(name) {
        return Ok(());
    }
    Err(Failure::Document(format!("{name:?} is the name of a part of an import, which comes and goes with that")))
}

/// The names that hold parts of what is, or was to be, imported under a name.
fn parts(store: &Store, name: &str) -> Result<Vec<String>, Failure> {
    let prefix = format!("{name}#");
    let mut parts = Vec::new();
    for pin in names(store, Some(prefix.clone())) {
        let pin = pin?;
        match pin.strip_prefix(&prefix) {
            Some(digest) if digest.parse::<Digest>().is_ok() => parts.push(pin),
            Some(_) => {}
            None => break,
        }
    }
    Ok(parts)
}

/// The names of all pins behind `after`, in order.
fn names(store: &Store, mut after: Option<String>) -> impl Iterator<Item = Result<String, Failure>> + '_ {
    let mut page = Vec::new().into_iter();
    std::iter::from_fn(move || {
        if page.as_slice().is_empty() {
            match store.pins(after.as_deref(), 1000) {
                Ok(names) => page = names.into_iter(),
                Err(error) => return Some(Err(error.into())),
            }
        }
        after = Some(page.next()?);
        after.clone().map(Ok)
    })
}
