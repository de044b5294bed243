//! How an image has changed.

/// What has changed of an image since a decision was made about it: see
/// [`Error::ImageChanged`](crate::Error::ImageChanged).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ImageChange {
    /// It was deleted and pushed again.
    #[error("was deleted and pushed again")]
    Pushed,
    /// It was pulled.
    #[error("was pulled")]
    Pulled,
    /// Tags were set to it, moved away from it or removed.
    #[error("has got or lost a tag")]
    Tags,
    /// It was archived or restored.
    #[error("was archived or restored")]
    StorageClass,
    /// It was to follow its subject, and that stays as it is.
    #[error("is about an image that stays")]
    Subject,
}
