//! Pins: what they stand for is replaced only where that was asked for.

use serde_json::json;
use strongroom::{Digest, Error, PinOptions, Store};

use crate::commands::Failure;
use crate::output::Output;
use crate::transfer;

/// The longest name, in bytes.
const NAME_MAX: usize = 1024;

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
    pub name: String,
    replaces: Option<Digest>,
}

impl<'a> NewPin<'a> {
    /// Checks the name, and that there is no pin of it yet, or that it may be replaced.
    pub fn new(store: &'a Store, name: &str, existing: Existing) -> Result<Self, Failure> {
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
            _ => Ok(Self { store, name: name.to_owned(), replaces }),
        }
    }

    /// Sets the pin. Returns what was pinned before.
    pub fn set(&self, digest: &Digest, options: PinOptions) -> Result<Option<Digest>, Failure> {
        self.store.pin(&self.name, digest, options)?;
        Ok(self.replaces)
    }
}

/// Lists the pins.
pub fn list(store: &Store, output: &Output) -> Result<(), Failure> {
    for name in names(store, None) {
        let name = name?;
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
    let mut removed = 0;
    for name in transfer::parts(store, name)? {
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
