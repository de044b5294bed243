//! Appending content to an upload: from a caller's reader, or in pieces as a client sends them.

use std::ops::Deref;

use crate::blobs::BlobStore;
use crate::blobs::Destination;
use crate::blobs::uploads::{Lease, SHORT, Session, Written, advanced, changed_parts};
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::facts::UploadFact;
use crate::files::NewFile;
use crate::id::UploadId;
use crate::log::Durability;
#[cfg(feature = "tokio")]
use crate::sync::lock;
use crate::transaction::Request;
use crate::wire::len64;

/// After so many bytes what came is made durable while the rest comes: a crash takes no more of it back, and no record
/// holds more of its checksums.
const COMMIT_EVERY: u64 = 256 << 20;

/// An upload to which content is being added. No other call can work on it meanwhile.
///
/// What was written counts once [`finish`](Self::finish) has made it durable; dropping this before discards it.
pub(crate) struct Appending<I: Deref<Target = BlobStore>> {
    lease: Lease<I>,
    session: Box<Session>,
    durability: Durability,
}

impl<I: Deref<Target = BlobStore>> Appending<I> {
    /// Begins at `offset`, which must be where the upload stands, or where it stands.
    pub(crate) fn begin(store: I, id: UploadId, offset: Option<u64>, into: &dyn Destination) -> Result<Self> {
        let owner = into.repository()?;
        let (mut lease, session) = Lease::take(store, into.domain(), id)?;
        match session.expect(id, owner, offset).and_then(|()| lease.store.log.admit()) {
            Ok(()) => Ok(Self { lease, session, durability: into.durability() }),
            Err(error) => {
                lease.session = Some(session);
                Err(error)
            }
        }
    }

    /// Writes pieces. Where that fails the upload stands where it was made durable last.
    pub(crate) fn write(mut self, pieces: &[&[u8]]) -> Result<Self> {
        let mut written = self.session.write(&self.lease.store, pieces);
        if written.is_ok() && self.session.unsaved() >= COMMIT_EVERY {
            written = self.session.advance(&self.lease.store, self.lease.id, self.durability);
        }
        match written {
            Ok(()) => Ok(self),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Whether to close it while no content arrives: each keeps a file open, and there are so many that others need it.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_in_the_way(&self) -> bool {
        let store = &self.lease.store;
        lock(&store.uploads).len() > store.options.max_open_files / 2
    }

    /// Makes durable what was written, and returns where the upload then stands.
    pub(crate) fn finish(mut self) -> Result<u64> {
        match self.session.advance(&self.lease.store, self.lease.id, self.durability) {
            Ok(()) => {
                let offset = self.session.fact.offset;
                self.lease.session = Some(self.session);
                Ok(offset)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Forgets what was written since it was made durable last.
    pub(crate) fn discard(mut self) {
        drop(self.session.unpublished.take());
    }

    fn fail(mut self, error: Error) -> Error {
        self.session.give_up(&self.lease.store);
        error
    }
}

impl Session {
    /// Writes pieces: into memory while the content is short, then into the upload's segment, which is created with all
    /// that there is.
    fn write(&mut self, store: &BlobStore, pieces: &[&[u8]]) -> Result<()> {
        let more: u64 = pieces.iter().map(|piece| len64(piece)).sum();
        if more == 0 {
            return Ok(());
        }
        match &mut self.content {
            Written::Short(content) if len64(content) + more <= SHORT.min(store.options.inline_max) => {
                pieces.iter().for_each(|piece| content.extend_from_slice(piece));
            }
            Written::Short(content) => {
                let file = self.unpublished.insert(store.begin_file());
                let mut writer = store.create_segment(file, self.domain)?;
                let all: Vec<&[u8]> = std::iter::once(&content[..]).chain(pieces.iter().copied()).collect();
                writer.append_all(&all)?;
                self.content = Written::Segment(writer);
            }
            Written::Segment(writer) => writer.append_all(pieces)?,
        }
        if let Some(hasher) = &mut self.hasher {
            pieces.iter().for_each(|piece| hasher.update(piece));
        }
        Ok(())
    }

    /// Makes what was written durable, and then the upload's new state.
    fn advance(&mut self, store: &BlobStore, id: UploadId, durability: Durability) -> Result<()> {
        if self.unsaved() == 0 {
            // No commit finds out whether the upload is still there.
            return store.upload_fact(self.domain, id).map(drop);
        }
        let from = self.fact.clone();
        let to = UploadFact { touched: store.clock.open_time(), ..from.clone() };
        let (to, parts) = match &self.content {
            Written::Short(content) => (UploadFact { offset: len64(content), rest: content.clone(), ..to }, Vec::new()),
            Written::Segment(writer) => {
                writer.sync().map_err(|error| store.contents.poison(error))?;
                let file = from.file.or(self.unpublished.as_ref().map(NewFile::id));
                let hash_state = self.hasher.as_ref().and_then(Hasher::save).unwrap_or_default();
                let to = advanced(UploadFact { file, hash_state, ..to }, writer);
                let parts = changed_parts(writer.table(), to.entry_len(), from.whole_blocks());
                (to, parts)
            }
        };
        let request = Request::AppendUpload { id, from, to: to.clone(), parts };
        let outcome = store.log.commit_as(durability, self.domain, request)?;
        self.fact = to;
        self.unpublished.take().map_or(Ok(()), |file| store.log.publish(file, outcome.lsn))
    }
}
