//! Storage classes: archiving images, and restoring them.
//!
//! An archived image is kept and shown, and not pulled. Restoring one takes no time here: none is ever `ACTIVATING`.

use serde_json::{Value, json};
use strongroom::Error;
use strongroom::registry::StorageClass;

use super::call::{Answer, Call};
use super::error::ApiError;
use super::image_ids::{image_not_found, output, shown, the_image};
use super::{Built, Service, Target};

pub const OPERATIONS: &[Built] = &[Service::Private.writes("UpdateImageStorageClass", Target::Repository, update)];

/// An index goes with the images that it alone holds.
fn update(call: &Call<'_>) -> Answer {
    let (repository, input) = (call.repository()?, &call.input);
    let given = input.0.get("imageId").unwrap_or(&Value::Null);
    let (id, digest) = the_image(call, &repository, given)?;
    let class = match input.required("targetStorageClass") {
        "ARCHIVE" => StorageClass::Archive,
        _ => StorageClass::Standard,
    };
    let not_supported = |why: &str| {
        let message = format!("The requested storage class update is not supported: {why}");
        ApiError::new("ImageStorageClassUpdateNotSupportedException", message)
    };
    repository.set_storage_class(&digest, class).map_err(|error| match error {
        Error::ManifestNotFound { .. } => image_not_found(call, given),
        Error::ManifestInUse { .. } => not_supported("the image is referenced by a manifest list"),
        Error::TooLarge { .. } => not_supported("the image references too many others"),
        error => call.error(error),
    })?;
    Ok(output(call, [("imageId", shown(&digest, id.tag())), ("imageStatus", json!(shown_status(class)))]))
}

/// The status of an image of a storage class.
pub fn shown_status(class: StorageClass) -> &'static str {
    match class {
        StorageClass::Archive => "ARCHIVED",
        _ => "ACTIVE",
    }
}

/// Which images are listed, by their status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFilter {
    Any,
    Only(StorageClass),
    /// None is of it.
    Activating,
}

impl StatusFilter {
    /// The status that is asked for; where none is, that of images that can be pulled.
    pub fn of(given: Option<&Value>) -> Self {
        match given.and_then(Value::as_str) {
            Some("ANY") => Self::Any,
            Some("ARCHIVED") => Self::Only(StorageClass::Archive),
            Some("ACTIVATING") => Self::Activating,
            _ => Self::Only(StorageClass::Standard),
        }
    }

    pub fn takes(self, class: StorageClass) -> bool {
        match self {
            Self::Any => true,
            Self::Only(wanted) => wanted == class,
            Self::Activating => false,
        }
    }
}
