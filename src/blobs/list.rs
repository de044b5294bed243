//! Listing blobs, and the digests behind their keys.

use std::sync::Arc;

use crate::blobs::content::is_gone;
use crate::blobs::{BlobStore, Stat};
use crate::digest::{Algorithm, Digest};
use crate::envelope::Purpose;
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Family, Key, Lookup as _, successor};
use crate::sealed::SealedFile;
use crate::segment::{DESCRIPTOR_LEN, Descriptor};
use crate::tables::Snapshot;

/// An iterator over all blobs. See [`Store::blobs`](crate::Store::blobs).
#[derive(Debug)]
pub struct Blobs {
    store: Arc<BlobStore>,
    snapshot: Snapshot,
    /// The key from which the next batch begins; none after the last.
    from: Option<[u8; 32]>,
    batch: std::vec::IntoIter<Result<Stat>>,
}

impl Blobs {
    /// Each batch begins with a look through all facts that no run has.
    const BATCH: usize = 16 << 10;

    fn next_batch(&mut self, from: [u8; 32]) -> Result<Vec<Result<Stat>>> {
        let (mut batch, mut count) = (Vec::new(), 0);
        let mut last = None;
        for fact in self.snapshot.facts(Family::Blob, from)?.take(Self::BATCH) {
            let (key, value) = fact?;
            last = Some(key.bytes);
            let stat = self.snapshot.decoded(&key, BlobFact::decode(value.as_bytes())).and_then(|fact| {
                let digest = self.store.digest_since(&key, &fact)?;
                Ok(digest.map(|digest| Stat::new(digest, &fact, &self.store.clock)))
            });
            batch.extend(stat.transpose());
            count += 1;
        }
        self.from = last.filter(|_| count == Self::BATCH).and_then(successor);
        Ok(batch)
    }
}

impl Iterator for Blobs {
    type Item = Result<Stat>;

    fn next(&mut self) -> Option<Result<Stat>> {
        loop {
            if let Some(stat) = self.batch.next() {
                return Some(stat);
            }
            match self.from.take().map(|from| self.next_batch(from))? {
                Ok(batch) => self.batch = batch.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl BlobStore {
    /// All blobs outside of domains of their own, as of a moment.
    pub(crate) fn list(self: &Arc<Self>, snapshot: Snapshot) -> Blobs {
        Blobs { store: Arc::clone(self), snapshot, from: Some([0; 32]), batch: Vec::new().into_iter() }
    }

    /// The digest of a blob whose key and fact are known: the key itself, or what the frame says where the key is only
    /// a hash of the digest.
    pub(crate) fn digest_of(&self, key: &Key, fact: &BlobFact) -> Result<Digest> {
        match digest_in(key, fact) {
            Some(digest) => Ok(digest),
            None => Ok(self.descriptor_in(&*self.contents.open(&fact.place)?, key, fact)?.digest),
        }
    }

    /// The digest of a blob that was there as of some snapshot, wherever it lies now. `None` where it is gone since,
    /// and only its frame could tell.
    pub(crate) fn digest_since(&self, key: &Key, fact: &BlobFact) -> Result<Option<Digest>> {
        let mut fact = *fact;
        loop {
            let error = match self.digest_of(key, &fact) {
                Err(error) if is_gone(&error) => error,
                other => return other.map(Some),
            };
            self.tables.catch_up();
            match self.tables.snapshot_of(key.domain).blob_by_key(key)? {
                Some(now) if now.place != fact.place => fact = now,
                Some(_) => return Err(error),
                None => return Ok(None),
            }
        }
    }

    /// The descriptor of the frame that a blob lies in, in this file.
    pub(crate) fn descriptor_in(&self, file: &SealedFile, key: &Key, fact: &BlobFact) -> Result<Descriptor> {
        let at = fact.place.offset - DESCRIPTOR_LEN;
        let bytes = file.read(at, 128)?;
        let keys = self.contents.keys();
        let envelope = file.envelope();
        let sealing =
            envelope.and_then(|envelope| envelope.opening(&keys, key.domain, fact.place.key, Purpose::Content));
        let prefix = (fact.place.crc == 0).then_some(fact.place.offset); // in a log file
        let descriptor = Descriptor::read(&bytes, sealing.as_ref(), prefix);
        let descriptor = descriptor.filter(|descriptor| Key::blob(key.domain, &descriptor.digest) == *key);
        descriptor.ok_or_else(|| Error::corrupt(file.path(), at, Damage::Invalid("frame descriptor")))
    }
}

/// The digest of a blob, where its key is the digest.
pub(crate) fn digest_in(key: &Key, fact: &BlobFact) -> Option<Digest> {
    match fact.algorithm {
        Algorithm::Sha512 => None,
        algorithm => Digest::from_bytes(algorithm, &key.bytes),
    }
}
