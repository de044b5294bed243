//! Listing and removing pins.

use serde_json::json;
use strongroom::transfer::{self, HeldBlobs, import_of_part};
use strongroom::{Error, Store};

use crate::commands::Failure;
use crate::output::{Output, escaped};

/// Lists the pins that are not parts of an import, and the names of which there are parts alone: an import was killed.
pub fn list(store: &Store, output: &Output) -> Result<(), Failure> {
    let mut incomplete = None;
    for name in names(store) {
        let name = name?;
        if let Some(whole) = import_of_part(&name) {
            if incomplete.as_deref() != Some(whole) && matches!(store.get_pin(whole), Err(Error::PinNotFound { .. })) {
                let document = json!({
                    "name": whole, "digest": null, "references": 0, "expires_in_seconds": null, "incomplete": true,
                });
                output.row(&document, || {
                    format!("{:<40} incomplete: import it again, or remove it with rm", escaped(whole))
                });
                incomplete = Some(whole.to_owned());
            }
            continue;
        }
        // It may have been removed since it was listed.
        let Ok(pin) = store.get_pin(&name) else { continue };
        let document = json!({
            "name": pin.name, "digest": pin.digest.to_string(), "references": pin.references.len(),
            "expires_in_seconds": pin.expires_in.map(|left| left.as_secs()), "incomplete": false,
        });
        output.row(&document, || format!("{:<40} {} +{}", escaped(&pin.name), pin.digest, pin.references.len()));
    }
    Ok(())
}

/// Removes a pin and its parts; with `blobs`, also what they held and nothing else holds.
pub fn remove(store: &Store, name: &str, blobs: HeldBlobs, output: &Output) -> Result<(), Failure> {
    let removed = transfer::remove(store, name, blobs)?;
    output.print(&json!({ "unpinned": name, "removed_blobs": removed }), "");
    Ok(())
}

/// The names of all pins, in order.
fn names(store: &Store) -> impl Iterator<Item = Result<String, Failure>> + '_ {
    let (mut after, mut page): (Option<String>, _) = (None, Vec::new().into_iter());
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
