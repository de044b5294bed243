//! The canonical request: one text for all spellings of a request that mean the same.
//!
//! ```text
//! POST
//! /path/normalized%20and%20encoded/
//! Name1=value&Name2=value                sorted by name, then by value, both encoded
//! host:example.com                       a line for each signed header, in the order of their names
//! x-amz-date:20150830T123600Z
//!
//! host;x-amz-date
//! e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
//! ```
//! It is hashed as it is written, and never held.

use std::fmt::Write as _;

use ring::digest;

use super::{Request, sha256};
use crate::digest::encode_hex;

/// The SHA-256 of the canonical request. The names are those of the signed headers, in lower case and in order.
pub(super) fn hash(request: &Request<'_>, names: &[&str]) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut line = |parts: &[&[u8]]| {
        parts.iter().for_each(|part| context.update(part));
        context.update(b"\n");
    };
    line(&[request.method.as_bytes()]);
    line(&[path(request.path).as_bytes()]);
    line(&[query(request.query).as_bytes()]);
    for name in names {
        line(&[name.as_bytes(), b":", &values(request, name)]);
    }
    line(&[]);
    line(&[names.join(";").as_bytes()]);
    context.update(body_hash(request).as_bytes());
    context.finish()
}

/// The SHA-256 of the body, in hex.
pub(super) fn body_hash(request: &Request<'_>) -> String {
    request.body_hash.map_or_else(|| encode_hex(sha256(b"").as_ref()), |hash| encode_hex(&hash))
}

/// The path without empty segments, `.` and `..`, each segment percent-encoded as it stands.
pub(super) fn path(path: &str) -> String {
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut text = String::with_capacity(path.len() + 1);
    for segment in &kept {
        text.push('/');
        encode(segment.as_bytes(), &mut text);
    }
    if kept.is_empty() || path.ends_with('/') {
        text.push('/');
    }
    text
}

/// The parameters, encoded in one way and sorted.
pub(super) fn query(query: &str) -> String {
    if query.is_empty() {
        return String::new();
    }
    let encoded = |text: &str| {
        let mut encoded = String::with_capacity(text.len());
        encode(&decode(text), &mut encoded);
        encoded
    };
    let mut pairs: Vec<_> = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// The values of all headers of a name: trimmed, with one space for each run of them, joined by commas.
fn values(request: &Request<'_>, name: &str) -> Vec<u8> {
    let words = |value: &[u8]| {
        let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(&b' ')
    };
    request.values(name).map(words).collect::<Vec<_>>().join(&b',')
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn encode(bytes: &[u8], to: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            to.push(char::from(byte));
        } else {
            let _ = write!(to, "%{byte:02X}"); // writing to a string does not fail
        }
    }
}

/// Percent-decodes; a `%` that two hex digits do not follow stays.
fn decode(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (bytes, mut decoded, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let pair = (byte == b'%').then(|| digit(bytes.get(at + 1)).zip(digit(bytes.get(at + 2)))).flatten();
        decoded.push(pair.map_or(byte, |(high, low)| high << 4 | low));
        at += if pair.is_some() { 3 } else { 1 };
    }
    decoded
}
