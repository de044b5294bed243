//! Writing a segment of many frames, one behind the other.

use std::path::PathBuf;
use std::sync::Arc;

use crate::envelope::{FileEnvelope, FileHeader, KeyNumber, Keyring, Purpose, Sealing};
use crate::error::{Damage, Error, Result};
use crate::facts::DESCRIPTOR_LEN;
use crate::id::{DomainId, FileId};
use crate::random::random;
use crate::segment::frame::{Descriptor, Frame};
use crate::segment::writer::{FooterEntry, MAGIC, SEGMENT_FRAME_OFFSET, encode_footer, write};
use crate::vfs::File;
use crate::wire::{PutFields, index, len64};

/// So much is written at a time.
const BUFFER: usize = 1 << 20;

/// Writes a segment of many frames. Where it is encrypted, so are they, as in a log file: each place of the file is
/// written once, so it can be the nonce of what stands there.
#[derive(Debug)]
pub(crate) struct Pack {
    path: PathBuf,
    file: Arc<dyn File>,
    key: KeyNumber,
    sealing: Option<Sealing>,
    /// What was not written yet, and where it begins.
    buffer: Vec<u8>,
    written: u64,
    frames: Vec<FooterEntry>,
}

impl Pack {
    /// Begins a pack in a new file, for content of a domain.
    pub(crate) fn begin(
        (path, file): (PathBuf, Arc<dyn File>),
        id: FileId,
        keys: &Keyring,
        domain: DomainId,
    ) -> Result<Self> {
        let header = FileHeader::new(id, keys, domain)?;
        let encoded = header.encode(&MAGIC);
        let sealing = match header.key {
            0 => None,
            key => {
                let sealing = FileEnvelope::new(id, &encoded).opening(keys, domain, key, Purpose::Content);
                Some(sealing.ok_or_else(|| Error::corrupt(&path, 0, Damage::Invalid("key number")))?)
            }
        };
        let mut buffer = encoded;
        buffer.resize(index(SEGMENT_FRAME_OFFSET), 0);
        Ok(Self { path, file, key: header.key, sealing, buffer, written: 0, frames: Vec::new() })
    }

    /// How many bytes the file has so far.
    pub(crate) fn len(&self) -> u64 {
        self.written + len64(&self.buffer)
    }

    /// The number of the key that the segment is encrypted with; 0 for none.
    pub(crate) fn key(&self) -> KeyNumber {
        self.key
    }

    /// Adds a frame, and says what stands there now, and where.
    pub(crate) fn append(&mut self, frame: &Frame) -> Result<(Descriptor, u64)> {
        let at = self.len();
        match &self.sealing {
            None => self.buffer.put(&frame.bytes),
            Some(sealing) => self.buffer.put(&frame.seal(sealing, at + DESCRIPTOR_LEN)?),
        }
        self.frames.push((at, frame.len(self.key), frame.descriptor.digest));
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok((frame.descriptor.in_log(self.key), at))
    }

    /// Writes what surrounds the frames, and makes all of it durable.
    pub(crate) fn finish(mut self) -> Result<()> {
        let prefix = u64::from_le_bytes(random()?);
        let sealed = self.sealing.as_ref().map(|sealing| (sealing, prefix));
        let footer = encode_footer(self.len(), &self.frames, sealed)?;
        self.buffer.put(&footer);
        self.flush()?;
        self.file.sync().map_err(Error::io("sync", &self.path))
    }

    fn flush(&mut self) -> Result<()> {
        write(&*self.file, &self.path, &[&self.buffer], self.written)?;
        // The system has no more than two pieces to write at a time: the syncs of others would wait for all of them.
        let before = self.written.saturating_sub(BUFFER as u64);
        let wait = self.file.wait_for_writeback(before, self.written - before);
        wait.map_err(Error::io("write out", &self.path))?;
        self.written = self.len();
        self.buffer.clear();
        Ok(())
    }
}
