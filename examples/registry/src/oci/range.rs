//! The header `Range`.

use std::ops::Range;

use axum::http::HeaderMap;
use axum::http::header::{IF_RANGE, RANGE};
use strongroom::{Digest, Error, Result};

/// What of a blob is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    All,
    /// `bytes=a-b`, both included, or `bytes=a-`.
    From(u64, Option<u64>),
    /// `bytes=-n`.
    Last(u64),
}

impl Wanted {
    /// What a request for a blob asks for. What is malformed, has another unit or more than one range is all of it, as
    /// RFC 9110 allows; so is a range of what the blob is not, by `If-Range`.
    pub fn of(headers: &HeaderMap, digest: &Digest) -> Self {
        let is_other = headers.get(IF_RANGE).is_some_and(|tag| tag.as_bytes() != format!("\"{digest}\"").as_bytes());
        let range = headers.get(RANGE).and_then(|range| range.to_str().ok()).filter(|_| !is_other);
        range.and_then(parse).unwrap_or(Self::All)
    }

    /// The bytes meant, of a blob of this length.
    pub fn within(self, len: u64) -> Result<Range<u64>> {
        let (start, end) = match self {
            Self::All => return Ok(0..len),
            Self::From(start, None) => (start, len),
            Self::From(start, Some(last)) => (start, last.saturating_add(1).min(len)),
            Self::Last(count) => (len.saturating_sub(count), len),
        };
        if start < end { Ok(start..end) } else { Err(Error::OutOfRange { start, end, len }) }
    }
}

fn parse(range: &str) -> Option<Wanted> {
    match range.strip_prefix("bytes=")?.trim().split_once('-')? {
        ("", count) => Some(Wanted::Last(number(count)?)),
        (start, "") => Some(Wanted::From(number(start)?, None)),
        (start, last) => Some(Wanted::From(number(start)?, Some(number(last)?))),
    }
}

/// Digits only: `parse` alone takes a sign.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Where a chunk lies: `Content-Range: <first>-<last>`. RFC 9110's `bytes <first>-<last>/<length>` is taken too.
pub fn chunk(range: &str) -> Option<Range<u64>> {
    let range = range.trim().strip_prefix("bytes ").unwrap_or(range.trim());
    let range = range.split_once('/').map_or(range, |(range, _)| range);
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..last.checked_add(1)?)
}
