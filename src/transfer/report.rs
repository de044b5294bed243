//! What imports and exports say that they did.

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::transfer::path::RawPath;

/// So many names of what was left out are listed.
const LISTED: usize = 1000;

/// What an import did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Imported {
    /// How many files were stored.
    pub files: usize,
    /// How many bytes they had.
    pub bytes_in: u64,
    /// By how many bytes the store's live content grew, by all that was stored meanwhile.
    pub bytes_stored: u64,
    /// What was left out.
    pub left_out: LeftOut,
    /// What the name named before.
    pub replaced: Option<Digest>,
}

/// What an export did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Exported {
    /// How many files were written.
    pub files: usize,
    /// How many modes lost their special bits: see [`SpecialBits::Drop`](super::SpecialBits).
    pub dropped: usize,
    /// A directory that could not be removed after all was moved from it.
    pub left_behind: Option<PathBuf>,
}

/// What was left out of an import.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    listed: Vec<(RawPath, Why)>,
    count: usize,
}

/// Why something was left out of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// It is a pipe, a socket or a device.
    Special,
    /// It was replaced or removed between listing and opening.
    Changed,
    /// Another process has a lease of it, and does not give it up.
    Leased,
    /// An export could not make its path.
    TooLong,
    /// An image layout has no such file.
    Stray,
    /// What should be a blob of an image layout is a link, a directory, a pipe …
    NoFile,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Special => "neither a file, a directory nor a link",
            Self::Changed => "removed or replaced while it was read",
            Self::Leased => "held by a lease of another process",
            Self::TooLong => "its path is too long",
            Self::Stray => "not part of an image layout",
            Self::NoFile => "no regular file; links in an image layout are not followed",
        })
    }
}

impl LeftOut {
    /// The first 1,000 of it: paths below the folder, and why.
    pub fn listed(&self) -> impl Iterator<Item = (&Path, Why)> {
        self.listed.iter().map(|(path, why)| (path.as_path(), *why))
    }

    /// How many there are, listed or not.
    pub fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn add(&mut self, path: &[u8], why: Why) {
        self.count += 1;
        if self.listed.len() < LISTED {
            self.listed.push((RawPath(path.to_vec()), why));
        }
    }
}
