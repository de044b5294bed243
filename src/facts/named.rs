//! Named files: names that keep blobs.

use crate::clock::Times;
use crate::digest::Digest;
use crate::facts::{Value, put_digest, take_digest};
use crate::wire::{Fields, PutFields};

/// When a named file expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    Never,
    /// When the store's open time, in milliseconds, has come so far.
    OpenTime(u64),
    /// When the wall clock, in milliseconds since 1970, has come so far.
    WallClock(u64),
}

impl Expiry {
    /// Whether that time has come.
    pub(crate) fn is_due(self, now: Times) -> bool {
        match self {
            Self::Never => false,
            Self::OpenTime(time) => time <= now.open,
            Self::WallClock(time) => time <= now.wall,
        }
    }
}

/// What a named file holds:
///
/// ```text
/// created u64, modified u64 (ms since 1970) | expiry u8 (0 never, 1 by open time, 2 by the wall clock) |
/// expires u48 (ms) | length u48 | name length u16, name | count u32, then for each digest held: algorithm u8, bytes
/// ```
///
/// The first digest is that of its content, whose length stands here too, so that lists need not look up the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedFact {
    pub(crate) name: String,
    /// The wall clock when the name was first set, and when it was set last, in milliseconds since 1970.
    pub(crate) created: u64,
    pub(crate) modified: u64,
    pub(crate) expires: Expiry,
    /// The content's length in bytes.
    pub(crate) len: u64,
    /// The content.
    pub(crate) digest: Digest,
    /// Other blobs that it keeps.
    pub(crate) references: Vec<Digest>,
}

impl NamedFact {
    /// All blobs that it holds: its content, then what that references.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.digest).chain(&self.references)
    }

    pub(crate) fn encode(&self) -> Value {
        let mut out = Vec::with_capacity(72 + self.name.len() + 33 * self.references.len());
        out.put_u64(self.created);
        out.put_u64(self.modified);
        let (kind, time) = match self.expires {
            Expiry::Never => (0, 0),
            Expiry::OpenTime(time) => (1, time),
            Expiry::WallClock(time) => (2, time),
        };
        out.put_u8(kind);
        out.put_u48(time);
        out.put_u48(self.len);
        out.put_text(&self.name);
        out.put_len32(1 + self.references.len());
        self.held().for_each(|digest| put_digest(&mut out, digest));
        Value::new(&out)
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (created, modified) = (fields.u64()?, fields.u64()?);
        let (kind, time) = (fields.u8()?, fields.u48()?);
        let expires = match kind {
            0 => Expiry::Never,
            1 => Expiry::OpenTime(time),
            2 => Expiry::WallClock(time),
            _ => return None,
        };
        let len = fields.u48()?;
        let name = fields.text()?;
        let others = usize::try_from(fields.u32()?).ok()?.checked_sub(1)?;
        let digest = take_digest(&mut fields)?;
        // The count is bounded by what is there before anything is allocated for it.
        let mut references = Vec::with_capacity(others.min(fields.0.len() / 33));
        for _ in 0..others {
            references.push(take_digest(&mut fields)?);
        }
        fields.end()?;
        Some(Self { name, created, modified, expires, len, digest, references })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn named_files_come_back_and_what_is_cut_off_is_refused() {
        let digest = |text: &str| Digest::of(Algorithm::Sha512, text.as_bytes());
        for expires in [Expiry::Never, Expiry::OpenTime(7), Expiry::WallClock((1 << 48) - 1)] {
            for references in [Vec::new(), vec![digest("b"), digest("c")]] {
                let name = "npm/left-pad/index.json".to_owned();
                let fact =
                    NamedFact { name, created: 1, modified: 2, expires, len: 3, digest: digest("a"), references };
                let bytes = fact.encode().as_bytes().to_vec();
                assert_eq!(NamedFact::decode(&bytes), Some(fact));
                assert!((0..bytes.len()).all(|cut| NamedFact::decode(&bytes[..cut]).is_none()));
                assert_eq!(NamedFact::decode(&[&bytes[..], &[0]].concat()), None);
            }
        }
    }
}
