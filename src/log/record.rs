//! A record: one commit in the log.
//!
//! ```text
//! header, 64 bytes | frame, frame_len bytes (0: none) | operations, ops_len bytes | facts, facts_len bytes |
//! zeros up to a multiple of 64
//!
//! header: magic u32 | kind u8 (1) | flags u8 (0) | key u16 | lsn u64 | durable u64 | wall u48 (ms since 1970) |
//!         open u48 (ms of open time) | ops_len u32 | facts_len u32 | frame_len u32 | domain u32 | body_crc u32 |
//!         check u64
//! ```
//!
//! `durable` is the highest LSN that was known durable when the record was written. `body_crc` covers operations and
//! facts; the frame has checksums of its own. `check` is a keyed hash of the header under the log file's salt: content
//! that somebody pushes rides in the log, and must not be able to pass for a record.
//!
//! A commit belongs to one key domain, and so do all its facts. `key` is the number of the domain's key that the record
//! is encrypted with; 0 for none. Then operations and facts are encrypted together, with a tag of 16 bytes behind them,
//! the header up to `body_crc` as associated data, and `body_crc` is over what is on disk. `check` is under a key that
//! only the store has.
//!
//! Operations say what happened, facts what is known since. Each fact:
//!
//! ```text
//! family u8 | key 32 bytes | present u8 (0: tombstone) | if present: length u32, value
//! ```

use std::borrow::Cow;

use crate::clock::Times;
use crate::envelope::{KeyNumber, Nonce, Sealing, TAG_LEN};
use crate::error::{Error, Result};
use crate::facts::{Fact, Family, Key, MAX_VALUE, Value};
use crate::id::{DomainId, Lsn};
use crate::wire::{Fields, PutFields, crc32c, first, index, len64};

/// Records begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 64;

/// The length of a record's header in bytes.
pub(crate) const HEADER_LEN: usize = 64;

/// The first bytes of a record.
pub(crate) const MAGIC: [u8; 4] = *b"SRrc";
const KIND_COMMIT: u8 = 1;

/// A random number in the header of a log file; without encryption the key under which the headers of its records are
/// hashed.
pub(crate) type Salt = [u8; 32];

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) lsn: Lsn,
    pub(crate) durable: Lsn,
    /// The wall clock, in milliseconds since 1970.
    pub(crate) wall: u64,
    /// The store's open time, in milliseconds.
    pub(crate) open: u64,
    pub(crate) ops_len: u32,
    pub(crate) facts_len: u32,
    pub(crate) frame_len: u32,
    pub(crate) domain: DomainId,
    pub(crate) key: KeyNumber,
    pub(crate) body_crc: u32,
}

impl Header {
    pub(crate) fn encode(&self, salt: &Salt) -> Vec<u8> {
        let mut out = self.associated();
        out.put_u32(self.body_crc);
        out.put_u64(check(salt, &out));
        out
    }

    /// All up to the body's checksum.
    fn associated(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.put(&MAGIC);
        out.put_u8(KIND_COMMIT);
        out.put_u8(0);
        out.put_u16(self.key);
        out.put_u64(self.lsn.0);
        out.put_u64(self.durable.0);
        out.put_u48(self.wall);
        out.put_u48(self.open);
        out.put_u32(self.ops_len);
        out.put_u32(self.facts_len);
        out.put_u32(self.frame_len);
        out.put_u32(self.domain.0);
        out
    }

    /// Parses a header; `None` where the bytes are none that was written under this salt.
    pub(crate) fn parse(bytes: &[u8], salt: &Salt) -> Option<Self> {
        let bytes = bytes.get(..HEADER_LEN)?;
        let (body, stored_check) = bytes.split_at_checked(56)?;
        let mut fields = Fields(body);
        if fields.array::<4>()? != MAGIC
            || fields.u8()? != KIND_COMMIT
            || Fields(stored_check).u64()? != check(salt, body)
        {
            return None;
        }
        let _flags = fields.u8()?;
        let key = fields.u16()?;
        let lsn = Lsn(fields.u64()?);
        let durable = Lsn(fields.u64()?);
        let wall = fields.u48()?;
        let open = fields.u48()?;
        let ops_len = fields.u32()?;
        let facts_len = fields.u32()?;
        let frame_len = fields.u32()?;
        let domain = DomainId(fields.u32()?);
        let body_crc = fields.u32()?;
        Some(Self { lsn, durable, wall, open, ops_len, facts_len, frame_len, domain, key, body_crc })
    }

    /// The length of operations and facts on disk, in bytes.
    pub(crate) fn body_len(&self) -> u64 {
        u64::from(self.ops_len) + u64::from(self.facts_len) + tag_len(self.key)
    }

    /// Decrypts the body of a record that stands at `offset` of its file. `None` where it is not what was encrypted
    /// there.
    pub(crate) fn open(&self, sealing: &Sealing, offset: u64, body: &[u8]) -> Option<Vec<u8>> {
        sealing.cipher.open_vec(Nonce::new(offset, 0), &self.associated(), body).ok()
    }

    /// The record's length in its file, a multiple of [`ALIGNMENT`].
    pub(crate) fn record_len(&self) -> u64 {
        record_len(self.frame_len.into(), self.body_len())
    }
}

/// What encrypting a body adds to its length, in bytes.
pub(crate) fn tag_len(key: KeyNumber) -> u64 {
    if key == 0 { 0 } else { TAG_LEN as u64 }
}

/// The length in its file of a record with a frame and a body (operations and facts) of these lengths.
pub(crate) fn record_len(frame_len: u64, body_len: u64) -> u64 {
    (HEADER_LEN as u64 + frame_len + body_len).next_multiple_of(ALIGNMENT)
}

fn check(salt: &Salt, header: &[u8]) -> u64 {
    u64::from_le_bytes(first(blake3::keyed_hash(salt, header).as_bytes()))
}

/// A record as it is written: what stands before its frame, the frame, and what stands behind it.
#[derive(Debug)]
pub(crate) struct Encoded<'f> {
    pub(crate) head: Vec<u8>,
    pub(crate) frame: Cow<'f, [u8]>,
    pub(crate) rest: Vec<u8>,
}

impl Encoded<'_> {
    pub(crate) fn len(&self) -> u64 {
        self.pieces().map(len64).into_iter().sum()
    }

    pub(crate) fn pieces(&self) -> [&[u8]; 3] {
        [&self.head, &self.frame, &self.rest]
    }
}

/// What becomes a record once it has its place in the order.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) domain: DomainId,
    pub(crate) ops: Vec<u8>,
    pub(crate) facts: Vec<Fact>,
}

/// Where a record stands, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) lsn: Lsn,
    /// The highest LSN known durable.
    pub(crate) durable: Lsn,
    pub(crate) times: Times,
    /// Where in its file it begins.
    pub(crate) offset: u64,
}

impl Body {
    /// Encodes the parts of a record around its frame: the header, and what follows the frame. Whoever commits has
    /// refused what does not fit into one.
    pub(crate) fn encode(
        &self,
        at: Position,
        frame_len: u64,
        salt: &Salt,
        sealing: Option<&Sealing>,
    ) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut body = Vec::with_capacity(index(self.encoded_len()) + 2 * index(ALIGNMENT));
        body.put(&self.ops);
        self.facts.iter().for_each(|fact| put_fact(&mut body, fact));
        let too_long = Error::Internal { invariant: "the parts of a record have lengths of 32 bits" };
        let size = |len: u64| u32::try_from(len).map_err(|_| too_long.clone());
        let mut header = Header {
            lsn: at.lsn,
            durable: at.durable,
            wall: at.times.wall,
            open: at.times.open,
            ops_len: size(len64(&self.ops))?,
            facts_len: size(len64(&body) - len64(&self.ops))?,
            frame_len: size(frame_len)?,
            domain: self.domain,
            key: sealing.map_or(0, |sealing| sealing.key),
            body_crc: 0,
        };
        if let Some(sealing) = sealing {
            sealing.cipher.seal_vec(Nonce::new(at.offset, 0), &header.associated(), &mut body)?;
        }
        header.body_crc = crc32c(&body);
        let padding = header.record_len() - HEADER_LEN as u64 - frame_len - len64(&body);
        body.resize(body.len() + index(padding), 0);
        Ok((header.encode(salt), body))
    }

    /// An upper bound of the encoded body's length in bytes, not encrypted.
    pub(crate) fn encoded_len(&self) -> u64 {
        let fact_len = |(_, value): &Fact| 38 + value.as_ref().map_or(0, |value| len64(value.as_bytes()));
        len64(&self.ops) + self.facts.iter().map(fact_len).sum::<u64>()
    }
}

fn put_fact(out: &mut Vec<u8>, (key, value): &Fact) {
    out.put_u8(key.family as u8);
    out.put(&key.bytes);
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        out.put_len32(value.as_bytes().len());
        out.put(value.as_bytes());
    }
}

/// Parses the facts of a record of a domain; `None` where they hold what no writer puts there.
pub(crate) fn parse_facts(bytes: &[u8], domain: DomainId) -> Option<Vec<Fact>> {
    let mut fields = Fields(bytes);
    let mut facts = Vec::new();
    while !fields.is_empty() {
        let key = Key { domain, family: Family::from_code(fields.u8()?)?, bytes: fields.array()? };
        let value = match fields.u8()? {
            0 => None,
            1 => {
                let len = usize::try_from(fields.u32()?).ok().filter(|len| *len <= MAX_VALUE)?;
                Some(Value::new(fields.bytes(len)?))
            }
            _ => return None,
        };
        facts.push((key, value));
    }
    Some(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Body {
        let key = Key { domain: DomainId(2), family: Family::Named, bytes: [3; 32] };
        Body { domain: DomainId(2), ops: b"ops".to_vec(), facts: vec![(key, Some(Value::new(b"value"))), (key, None)] }
    }

    const AT: Position = Position { lsn: Lsn(9), durable: Lsn(8), times: Times { wall: 5, open: 6 }, offset: 512 };

    #[test]
    fn a_record_round_trips_and_no_flipped_bit_does() {
        let (salt, body) = ([7; 32], body());
        let (header, rest) = body.encode(AT, 0, &salt, None).unwrap();
        let parsed = Header::parse(&header, &salt).unwrap();
        assert_eq!((parsed.lsn, parsed.durable, parsed.wall, parsed.open), (Lsn(9), Lsn(8), 5, 6));
        assert_eq!(parsed.record_len(), (header.len() + rest.len()) as u64);
        assert!(body.encoded_len() >= u64::from(parsed.ops_len + parsed.facts_len));
        let facts = &rest[parsed.ops_len as usize..][..parsed.facts_len as usize];
        assert_eq!(parse_facts(facts, DomainId(2)).unwrap(), body.facts);
        for bit in 0..header.len() * 8 {
            let mut flipped = header.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&flipped, &salt), None, "bit {bit}");
        }
        assert_eq!(Header::parse(&header, &[8; 32]), None);
        assert_eq!(parse_facts(&facts[..facts.len() - 1], DomainId(2)), None);
    }

    #[test]
    #[cfg(feature = "encryption")]
    fn an_encrypted_record_opens_where_it_was_put_with_its_own_header() {
        use crate::envelope::{Cipher, Suite};
        let salt = [7; 32];
        let cipher = std::sync::Arc::new(Cipher::new(Suite::best(), &[1; 32]).unwrap());
        let sealing = Sealing { cipher, domain: DomainId(2), key: 4 };
        let (header, rest) = body().encode(AT, 0, &salt, Some(&sealing)).unwrap();
        let parsed = Header::parse(&header, &salt).unwrap();
        assert_eq!((parsed.domain, parsed.key), (DomainId(2), 4));
        assert_eq!(parsed.record_len(), (header.len() + rest.len()) as u64);
        let sealed = &rest[..parsed.body_len() as usize];
        assert_eq!(crc32c(sealed), parsed.body_crc);
        let opened = parsed.open(&sealing, 512, sealed).unwrap();
        assert_eq!(parse_facts(&opened[3..], DomainId(2)).unwrap(), body().facts);
        assert_eq!(parsed.open(&sealing, 576, sealed), None);
        assert_eq!(Header { wall: 6, ..parsed }.open(&sealing, 512, sealed), None);
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parsed.open(&sealing, 512, &flipped), None, "bit {bit}");
        }
    }
}
