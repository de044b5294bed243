//! Reading a log file behind damage.
//!
//! Records begin at multiples of [`ALIGNMENT`] and have a keyed check, so the next whole one behind damage is found by
//! looking at each. A frame whose record is damaged is found in the same way, by its descriptor. A descriptor proves
//! nothing, since pushed content may contain bytes that pass for one: the content behind it is accepted only if it has
//! the digest that the descriptor names.

use std::ops::Range;
use std::path::Path;

use crate::envelope::{FileEnvelope, KeyNumber, Keyring, Purpose, Sealing};
use crate::error::{Error, Result};
use crate::facts::Fact;
use crate::id::DomainId;
use crate::log::file::{LogHeader, LogKeys};
use crate::log::frames::DESCRIPTOR;
use crate::log::record::{self, ALIGNMENT, Header, parse_facts};
use crate::log::replay::Window;
use crate::segment::{DESCRIPTOR_LEN, Descriptor};
use crate::transaction::{MAX_BODY, Op};
use crate::vfs::File;
use crate::wire::{crc32c, index};

/// Something that was found.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A record at an offset, and what it says, where its body is whole and there is a key for it.
    Record(u64, Header, Option<(Vec<Op>, Vec<Fact>)>),
    /// What passes for a frame of a domain, at an offset.
    Frame(DomainId, u64, Descriptor),
}

/// Calls `found` with what there is in a range of a log file, in order. Without the file's header no check of a record
/// can be verified, and nothing decrypted: then only frames that are not encrypted are found.
pub(crate) fn survey(
    path: &Path,
    file: &dyn File,
    header: Option<&LogHeader>,
    keyring: &Keyring,
    range: Range<u64>,
    mut found: impl FnMut(Piece),
) -> Result<()> {
    let keys = header.and_then(|header| LogKeys::new(header, keyring, path).ok());
    let envelope = keys.as_ref().map(|keys| &keys.envelope);
    let mut survey = Survey { window: Window::new(file), path, end: range.end, keyring, envelope };
    let mut offset = range.start.next_multiple_of(ALIGNMENT);
    while offset + record::HEADER_LEN as u64 <= range.end {
        let head = survey.read(offset, record::HEADER_LEN)?;
        let header = keys.as_ref().and_then(|keys| Header::parse(head, &keys.check));
        let Some(header) = header.filter(|header| header.record_len() <= range.end - offset) else {
            if let Some((domain, descriptor)) = survey.frame(offset)? {
                found(Piece::Frame(domain, offset, descriptor));
            }
            offset += ALIGNMENT;
            continue;
        };
        found(Piece::Record(offset, header, survey.body(&header, offset)?));
        let at = offset + record::HEADER_LEN as u64;
        if header.frame_len > 0
            && let Some((domain, descriptor)) = survey.frame(at)?.filter(|(domain, _)| *domain == header.domain)
        {
            found(Piece::Frame(domain, at, descriptor));
        }
        offset += header.record_len();
    }
    Ok(())
}

struct Survey<'a> {
    window: Window<'a>,
    path: &'a Path,
    end: u64,
    keyring: &'a Keyring,
    /// None where there is no header that it follows from.
    envelope: Option<&'a FileEnvelope>,
}

impl Survey<'_> {
    fn read(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        self.window.get(offset, len, self.end).map_err(Error::io("read", self.path))
    }

    fn opening(&self, domain: DomainId, key: KeyNumber, purpose: Purpose) -> Option<Sealing> {
        self.envelope?.opening(self.keyring, domain, key, purpose)
    }

    /// What a record says; `None` where it is damaged, or its key is gone.
    fn body(&mut self, header: &Header, offset: u64) -> Result<Option<(Vec<Op>, Vec<Fact>)>> {
        let [ops_len, facts_len] = [header.ops_len, header.facts_len].map(|len| index(len.into()));
        if ops_len > MAX_BODY || facts_len > MAX_BODY || header.key == 0 && !self.keyring.accepts_plain {
            return Ok(None);
        }
        let at = offset + record::HEADER_LEN as u64 + u64::from(header.frame_len);
        let mut body = self.read(at, index(header.body_len()))?.to_vec();
        if crc32c(&body) != header.body_crc {
            return Ok(None);
        }
        if header.key != 0 {
            let sealing = self.opening(header.domain, header.key, Purpose::Record);
            let Some(opened) = sealing.and_then(|sealing| header.open(&sealing, offset, &body)) else {
                return Ok(None);
            };
            body = opened;
        }
        let parse = || {
            let (ops, facts) = body.split_at_checked(ops_len)?;
            Some((Op::parse_all(ops)?, parse_facts(facts, header.domain)?))
        };
        Ok(parse())
    }

    /// What passes for a frame's descriptor at an offset, and its domain.
    fn frame(&mut self, offset: u64) -> Result<Option<(DomainId, Descriptor)>> {
        if self.end - offset < DESCRIPTOR_LEN {
            return Ok(None);
        }
        let bytes = self.read(offset, DESCRIPTOR)?.to_vec();
        let Some((domain, key)) = Descriptor::sealed_for(&bytes) else {
            let descriptor = Descriptor::parse(&bytes).filter(|_| self.keyring.accepts_plain);
            return Ok(descriptor.map(|descriptor| (DomainId::DEFAULT, descriptor)));
        };
        let sealing = self.opening(domain, key, Purpose::Content);
        let descriptor =
            sealing.and_then(|sealing| Descriptor::read(&bytes, Some(&sealing), Some(offset + DESCRIPTOR_LEN)));
        Ok(descriptor.map(|descriptor| (domain, descriptor)))
    }
}
