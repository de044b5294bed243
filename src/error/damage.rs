//! Damage to what is on disk.

/// What is wrong with bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The bytes do not match their checksum.
    #[error("checksum mismatch (expected {expected:#010x}, found {found:#010x})")]
    Checksum {
        /// The checksum on record.
        expected: u32,
        /// The checksum of what is there.
        found: u32,
    },
    /// The bytes fail authentication: they were changed, or taken from another place.
    #[error("not authentic: changed, or taken from another place")]
    Seal,
    /// The bytes are not encrypted, although all of the store is.
    #[error("not encrypted, although the store is")]
    NotSealed,
    /// The content of a blob does not have the blob's digest.
    #[error("content does not match its digest")]
    Digest,
    /// The magic number is another: this is not the kind of file or structure it should be.
    #[error("wrong magic number")]
    Magic,
    /// The file ends before the structure does.
    #[error("file is cut off")]
    Truncated,
    /// The file is missing although the store refers to it.
    #[error("file is missing")]
    Missing,
    /// A field has a value that no writer writes.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// Records that are known to be durable are gone from the log.
    #[error("the log ends at LSN {found}, but LSN {expected} was durable")]
    LogEndsEarly {
        /// The LSN that was durable.
        expected: u64,
        /// The last LSN found.
        found: u64,
    },
    /// The content was found damaged before. A push of the same content repairs it.
    #[error("content was found damaged; pushing it again brings it back")]
    Known,
    /// Compressed content does not decompress, or not to its length.
    #[error("compressed content does not decompress to its length")]
    Compression,
}
