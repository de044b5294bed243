//! What keeps documents from being manifests.

use crate::digest::Digest;

/// Why a document is not accepted as a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestProblem {
    /// It is not JSON, or not UTF-8, or a key stands there twice, or a field has another type than manifests have.
    #[error("unexpected content at line {line}, column {column}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// It was pushed with another media type than the document has, or than it was pushed with before.
    #[error("its media type is {expected:?}, not {found:?}")]
    MediaType {
        /// What the document says, or was pushed as.
        expected: String,
        /// What it was pushed as now.
        found: String,
    },
    /// It references more than 10,000 blobs or manifests: a commit with so many would make others wait.
    #[error("it lists more than 10,000 blobs or manifests")]
    TooMany,
    /// The media type is none that can be parsed, and no references were given.
    #[error("media type {media_type:?} is none whose references are known: give them explicitly")]
    UnknownMediaType {
        /// The media type.
        media_type: String,
    },
    /// A key differs from a specified one only in the case of its letters. Some parsers, Go's among them, take it for
    /// that one, so clients would see another manifest than the registry.
    #[error("key {found:?} is read as {key:?} by some, and not by others")]
    Ambiguous {
        /// The specified key.
        key: &'static str,
        /// The key found, cut to 200 characters.
        found: String,
    },
    /// An object has more than 1,000 annotations.
    #[error("there are more than 1,000 annotations")]
    Annotations,
    /// A field that its media type requires is missing or has a value that it may not have.
    #[error("field {field:?} is missing or not as it has to be")]
    Field {
        /// The field.
        field: &'static str,
    },
    /// Another manifest holds this one, or waits for it, and now it references a manifest that it did not hold and that
    /// holds manifests itself: so two might come to hold each other. Push it again when nothing holds it.
    #[error("another manifest holds it, so that it can't come to hold a manifest that holds others")]
    References,
    /// A descriptor gives another size than its blob or manifest has, or than another descriptor of the same.
    #[error("{digest} has {expected} bytes, not {found}")]
    Size {
        /// What is referenced.
        digest: Digest,
        /// Its length in bytes.
        expected: u64,
        /// The length that the manifest says it has.
        found: u64,
    },
    /// A digest is not well-formed, or of an algorithm that is not known.
    #[error("invalid digest {digest:?}")]
    Digest {
        /// The text, cut to 200 characters.
        digest: String,
    },
}
