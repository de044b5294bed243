//! Listing and removing pins.

use serde_json::json;
use strongroom::transfer::{self, HeldBlobs, import_of_part};
use strongroom::{Error, Expires, Store};

use crate::failure::Failure;
use crate::output::{Output, escaped};

/// Lists the pins that are not parts of an import, and the names of which there are parts alone: an import was killed.
pub fn list(store: &Store, output: &Output) -> Result<(), Failure> {
    let (files, mut incomplete) = (store.named(), None);
    for file in files.iter("") {
        let pin = file?;
        if let Some(whole) = import_of_part(&pin.name) {
            let is_missing = || matches!(files.stat(whole), Err(Error::NamedNotFound { .. }));
            if incomplete.as_deref() != Some(whole) && is_missing() {
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
        let expires_in = match pin.expires {
            Expires::After(left) => Some(left.as_secs()),
            _ => None,
        };
        let document = json!({
            "name": pin.name, "digest": pin.digest.to_string(), "references": pin.references.len(),
            "expires_in_seconds": expires_in, "incomplete": false,
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
