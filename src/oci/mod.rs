//! What the OCI distribution and image specifications define, parsed: names, tags, references, manifests.
//!
//! Pure: it knows neither facts nor files. [`name`] has types that are parsed once, so an invalid one can't exist;
//! [`document`] says what a manifest references, by a JSON [parser](json) that reads what all readers read.

pub(crate) mod attached;
pub(crate) mod document;
pub(crate) mod json;
mod name;
mod settings;
pub(crate) mod wildcard;

pub use attached::ExpectDocument;
pub use name::{Reference, RepositoryName, Tag, TagFilter};
pub use settings::{ExpectTag, RepositoryInfo, RepositorySettings, TagMutability};
