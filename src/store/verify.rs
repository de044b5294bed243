//! Reading everything again and counting everything anew.

use std::collections::HashMap;

use crate::blob::Blob;
use crate::digest::Digest;
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Family, Key, SegmentFact, SegmentKind};
use crate::id::FileId;
use crate::registry::recount;
use crate::segment::{parse_footer, parse_header};
use crate::store::view::{Lookup, Snapshot, decoded};
use crate::store::{Inner, Store};
use crate::vfs::OpenMode;

/// What [`Store::verify`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// How many blobs were read.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many bytes their content takes on disk, without checksums.
    pub stored_bytes: u64,
    /// What is wrong. Empty for a sound store.
    pub findings: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Finding {
    /// A blob can't be read, or is not what its digest says.
    Blob {
        /// The blob, where its digest is known.
        digest: Option<Digest>,
        /// Why.
        error: Error,
    },
    /// A segment's header or footer is damaged. Its blobs may be sound all the same.
    Segment {
        /// Which, and where.
        error: Error,
    },
    /// A number that is kept differs from what a recount gives.
    Count {
        /// What is counted.
        what: String,
        /// The number on record.
        stored: u64,
        /// The recount.
        counted: u64,
    },
}

impl Store {
    /// Reads every blob, compares it with its digest, and recounts all that is counted. Calls `progress` after each blob
    /// with the numbers so far.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where facts are damaged, so that not even the list of blobs is known.
    pub fn verify(&self, mut progress: impl FnMut(&Verification)) -> Result<Verification> {
        let mut report = Verification::default();
        for snapshot in self.inner.snapshot().each_domain() {
            self.inner.verify_domain(&snapshot, &mut report, &mut progress)?;
        }
        Ok(report)
    }
}

impl Inner {
    /// Verifies what belongs to a snapshot's domain: nothing that is counted in one leads out of it.
    fn verify_domain(
        &self,
        snapshot: &Snapshot,
        report: &mut Verification,
        progress: &mut dyn FnMut(&Verification),
    ) -> Result<()> {
        let mut held: HashMap<[u8; 32], u64> = HashMap::new();
        for pin in snapshot.pins()? {
            for digest in &pin?.digests {
                *held.entry(Key::blob(snapshot.domain, digest).bytes).or_default() += 1;
            }
        }
        recount(snapshot, &mut held, &mut |what, stored, counted| report.compare(|| what, stored, counted))?;
        let mut segments: HashMap<FileId, (u64, u64)> = HashMap::new();
        for fact in snapshot.facts(Family::Blob, [0; 32])? {
            let (key, value) = fact?;
            let fact = decoded(BlobFact::decode(value.as_bytes()))?;
            let (frames, bytes) = segments.entry(fact.place.file).or_default();
            *frames += 1;
            *bytes += fact.place.frame_len();
            report.blobs += 1;
            report.bytes += fact.len;
            report.stored_bytes += fact.place.stored_len;
            let digest = self.digest_of(&key, &fact);
            let counted = held.remove(&key.bytes).unwrap_or_default();
            let name = |digest: &Result<Digest>| digest.as_ref().map_or_else(|_| format!("{key:?}"), Digest::to_string);
            report.compare(|| format!("references to {}", name(&digest)), fact.count.into(), counted);
            let read = digest.clone().and_then(|digest| {
                let file = self.files.get(&fact.place)?;
                Blob::new(digest, fact, file).verify()
            });
            // The blob may have been removed since: then there is nothing to find.
            if let Err(error) = read
                && self.snapshot().blob_by_key(&key)?.is_some_and(|now| now.place == fact.place)
            {
                report.findings.push(Finding::Blob { digest: digest.ok(), error });
            }
            progress(report);
        }
        for (key, counted) in held {
            report.compare(|| format!("references to the missing blob {key:02x?}"), 0, counted);
        }
        for fact in snapshot.facts(Family::Segment, [0; 32])? {
            let (key, value) = fact?;
            let segment = decoded(SegmentFact::decode(value.as_bytes()))?;
            let (frames, bytes) = segments.remove(&FileId(key.prefix())).unwrap_or_default();
            report.compare(|| format!("live frames of {key:?}"), segment.live_frames.into(), frames);
            report.compare(|| format!("live bytes of {key:?}"), segment.live_bytes, bytes);
            if segment.kind == SegmentKind::Sealed
                && let Err(error) = self.check_segment(FileId(key.prefix()))
                && self.snapshot_of(snapshot.domain).segment(FileId(key.prefix()))?.is_some()
            {
                report.findings.push(Finding::Segment { error });
            }
            let empty_segment = segment.kind == SegmentKind::Sealed && frames == 0;
            report.compare(|| format!("segment without a live frame: {key:?}"), u64::from(empty_segment), 0);
        }
        for (file, (frames, _)) in segments {
            report.compare(|| format!("frames in the unknown segment {file}"), 0, frames);
        }
        Ok(())
    }

    /// Reads what surrounds the frames of a segment.
    fn check_segment(&self, id: FileId) -> Result<()> {
        let path = self.files.layout.segment(id);
        let file = self.files.vfs.open(&path, OpenMode::Read).map_err(Error::opening(&path))?;
        let read = |offset, len| {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, offset).ok().map(|()| bytes)
        };
        if read(0, 512).and_then(|header| parse_header(&header)) != Some((id, self.files.store)) {
            return Err(Error::corrupt(&path, 0, Damage::Invalid("segment header")));
        }
        let len = file.len().map_err(Error::io("read the length of", &path))?;
        match parse_footer(len, read) {
            Some(_) => Ok(()),
            None => Err(Error::corrupt(&path, len, Damage::Invalid("segment footer"))),
        }
    }
}

impl Verification {
    fn compare(&mut self, what: impl FnOnce() -> String, stored: u64, counted: u64) {
        if stored != counted {
            self.findings.push(Finding::Count { what: what(), stored, counted });
        }
    }
}
