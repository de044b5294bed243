//! The frames of a log file that takes no more records.

use std::path::Path;

use crate::envelope::{Keyring, Purpose};
use crate::error::{Damage, Error, Result};
use crate::id::DomainId;
use crate::log::file::{HEADER_LEN, LogHeader, LogKeys};
use crate::log::record::{self, ALIGNMENT, Header};
use crate::segment::{DESCRIPTOR_LEN, Descriptor};
use crate::vfs::File;
use crate::wire::index;

/// The length of a descriptor.
pub(super) const DESCRIPTOR: usize = 128;

/// Calls `found` with the domain, the offset and the descriptor of each frame of a log file that is `len` bytes long,
/// in order: of those that can be read. Looks at headers and descriptors only. Returns the damage that it met on the
/// way.
pub(crate) fn frames(
    path: &Path,
    file: &dyn File,
    len: u64,
    header: &LogHeader,
    keyring: &Keyring,
    mut found: impl FnMut(DomainId, u64, Descriptor),
) -> Result<Vec<Error>> {
    let keys = LogKeys::new(header, keyring, path)?;
    let mut damage = Vec::new();
    let mut was_valid = true;
    let mut offset = HEADER_LEN;
    while offset + record::HEADER_LEN as u64 <= len {
        let mut bytes = [0; record::HEADER_LEN + DESCRIPTOR];
        let there = index(len - offset).min(bytes.len());
        let (head, _) = bytes.split_at_mut(there);
        file.read_exact_at(head, offset).map_err(Error::io("read", path))?;
        let Some(header) = Header::parse(head, &keys.check) else {
            if std::mem::replace(&mut was_valid, false) {
                damage.push(Error::corrupt(path, offset, Damage::Invalid("log record")));
            }
            // A check that is keyed tells the next one from content.
            offset += ALIGNMENT;
            continue;
        };
        was_valid = true;
        let at = offset + record::HEADER_LEN as u64;
        offset += header.record_len();
        if header.frame_len == 0 {
            continue;
        }
        let sealing = keys.envelope.opening(keyring, header.domain, header.key, Purpose::Content);
        if header.key != 0 && sealing.is_none() {
            continue; // of a domain that was shredded, or rewritten since under another key
        }
        let (_, descriptor) = bytes.split_at(record::HEADER_LEN);
        match Descriptor::read(descriptor, sealing.as_ref(), Some(at + DESCRIPTOR_LEN)) {
            Some(descriptor) => found(header.domain, at, descriptor),
            None => damage.push(Error::corrupt(path, at, Damage::Invalid("frame descriptor"))),
        }
    }
    Ok(damage)
}
