//! Appending content to an upload: from a caller's reader, or in pieces as a client sends them.

use std::ops::Deref;

use crate::blobs::BlobStore;
use crate::blobs::Destination;
use crate::blobs::uploads::{Lease, Session, advanced, changed_parts, expect_owner};
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::facts::UploadFact;
use crate::files::NewFile;
use crate::id::UploadId;
use crate::log::Durability;
#[cfg(feature = "tokio")]
use crate::sync::lock;
use crate::transaction::Request;

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
        let expected = session.fact.offset;
        let may_begin = expect_owner(id, &session.fact, owner).and_then(|()| match offset {
            Some(found) if found != expected => Err(Error::WrongOffset { expected, found }),
            _ => lease.store.log.admit(),
        });
        match may_begin {
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
    /// Writes pieces into the upload's segment, which is created with the first.
    fn write(&mut self, store: &BlobStore, pieces: &[&[u8]]) -> Result<()> {
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Ok(());
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let file = self.unpublished.insert(store.begin_file());
                none.insert(store.create_segment(file, self.domain)?)
            }
        };
        writer.append_all(pieces)?;
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
        let Some(writer) = &self.writer else { return Ok(()) };
        writer.sync().map_err(|error| store.contents.poison(error))?;
        let from = self.fact.clone();
        let file = from.file.or(self.unpublished.as_ref().map(NewFile::id));
        let hash_state = self.hasher.as_ref().and_then(Hasher::save).unwrap_or_default();
        let to = UploadFact { file, touched: store.clock.open_time(), hash_state, ..from.clone() };
        let to = advanced(to, writer);
        let parts = changed_parts(writer.table(), to.entry_len(), from.whole_blocks());
        let request = Request::AppendUpload { id, from, to: to.clone(), parts };
        let outcome = store.log.commit_as(durability, self.domain, request)?;
        self.fact = to;
        self.unpublished.take().map_or(Ok(()), |file| store.log.publish(file, outcome.lsn))
    }
}
