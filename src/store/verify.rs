//! Reading everything again and counting everything anew.

use std::collections::HashMap;

use crate::blob::Blob;
use crate::digest::Digest;
use crate::envelope::{FileEnvelope, KeyNumber, Purpose};
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Family, Idle, IdleKind, Key, SegmentFact, SegmentKind};
use crate::id::{DomainId, FileId};
use crate::registry::recount;
use crate::segment::{DESCRIPTOR_LEN, parse_footer, parse_header};
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
    /// A segment's header or footer, or what stands in front of a blob in one, is damaged. The blobs may be sound all the same.
    Segment {
        /// Which, and where.
        error: Error,
    },
    /// A part of a run is damaged without which facts are found all the same, if not as fast.
    Run {
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
        // What these say of facts was readable, or this would have ended already.
        let damaged = self.inner.view().runs.iter().filter_map(|run| run.verify().err()).collect::<Vec<_>>();
        report.findings.extend(damaged.into_iter().map(|error| Finding::Run { error }));
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
        let mut idle = IdleCheck::new(snapshot);
        for pin in snapshot.pins()? {
            let pin = pin?;
            idle.check(Idle::of_pin(&Key::pin(snapshot.domain, &pin.name), &pin))?;
            for digest in &pin.digests {
                *held.entry(Key::blob(snapshot.domain, digest).bytes).or_default() += 1;
            }
        }
        let compare = &mut |what, stored, counted| report.compare(|| what, stored, counted);
        recount(snapshot, &mut held, &mut |link| idle.check(Some(link)), compare)?;
        let mut segments: HashMap<FileId, (u64, u64)> = HashMap::new();
        for fact in snapshot.facts(Family::Blob, [0; 32])? {
            let (key, value) = fact?;
            let fact = decoded(BlobFact::decode(value.as_bytes()))?;
            let (frames, bytes) = segments.entry(fact.place.file).or_default();
            *frames += 1;
            *bytes += fact.place.frame_len();
            idle.check(Idle::of_blob(&key, &fact))?;
            report.blobs += 1;
            report.bytes += fact.len;
            report.stored_bytes += fact.place.stored_len;
            let digest = self.digest_of(&key, &fact);
            let counted = held.remove(&key.bytes).unwrap_or_default();
            let name = |digest: &Result<Digest>| digest.as_ref().map_or_else(|_| format!("{key:?}"), Digest::to_string);
            report.compare(|| format!("references to {}", name(&digest)), fact.count.into(), counted);
            let read = digest.clone().and_then(|digest| {
                let file = self.files.get(&fact.place)?;
                Blob::new(digest, fact, file, &self.files.keys.get(), snapshot.domain)?.verify()
            });
            let finding = match read {
                Err(error) => Some(Finding::Blob { digest: digest.ok(), error }),
                Ok(()) => self.check_frame(&key, &fact).err().map(|error| Finding::Segment { error }),
            };
            // The blob may have been removed since: then there is nothing to find.
            if let Some(finding) = finding
                && self.snapshot().blob_by_key(&key)?.is_some_and(|now| now.place == fact.place)
            {
                report.findings.push(finding);
            }
            progress(report);
        }
        for (kind, expected, listed) in idle.end()? {
            report.compare(|| format!("{kind:?}s that nothing holds, in their list"), listed, expected);
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
                && let Err(error) = self.check_segment(FileId(key.prefix()), snapshot.domain, segment.key)
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

    /// Compares what stands in front of a blob with its fact.
    fn check_frame(&self, key: &Key, fact: &BlobFact) -> Result<()> {
        let descriptor = self.descriptor_of(key, fact)?;
        let at = fact.place.offset - DESCRIPTOR_LEN;
        let BlobFact { count, touched, damaged, .. } = *fact;
        if (BlobFact { count, touched, damaged, ..descriptor.fact(fact.place.file, at) }) == *fact {
            return Ok(());
        }
        let path = self.files.get(&fact.place)?.path().to_path_buf();
        Err(Error::corrupt(&path, at, Damage::Invalid("frame descriptor")))
    }

    /// Reads what surrounds the frames of a segment.
    fn check_segment(&self, id: FileId, domain: DomainId, key: KeyNumber) -> Result<()> {
        let path = self.files.layout.segment(id);
        let file = self.files.vfs.open(&path, OpenMode::Read).map_err(Error::opening(&path))?;
        let read = |offset, len| {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, offset).ok().map(|()| bytes)
        };
        let invalid = || Error::corrupt(&path, 0, Damage::Invalid("segment header"));
        let header = read(0, 512).ok_or_else(invalid)?;
        if !parse_header(&header).is_some_and(|header| header.is_of(id, self.files.store, domain, key)) {
            return Err(invalid());
        }
        let sealing = FileEnvelope::new(id, &header).opening(&self.files.keys.get(), domain, key, Purpose::Content);
        let len = file.len().map_err(Error::io("read the length of", &path))?;
        match parse_footer(len, sealing.as_ref(), read) {
            Some(_) => Ok(()),
            None => Err(Error::corrupt(&path, len, Damage::Invalid("segment footer"))),
        }
    }
}

/// Compares what nothing holds with the list of it.
struct IdleCheck<'a> {
    snapshot: &'a Snapshot,
    /// For each kind: how many there are that nothing holds, and how many of them are in the list.
    found: [(IdleKind, u64, u64); 3],
}

impl<'a> IdleCheck<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, found: [IdleKind::Pin, IdleKind::Link, IdleKind::Blob].map(|kind| (kind, 0, 0)) }
    }

    fn check(&mut self, idle: Option<Idle>) -> Result<()> {
        let Some(idle) = idle else { return Ok(()) };
        let is_listed = self.snapshot.get(&idle.at())?.is_some_and(|value| {
            Idle::decode(&idle.at(), value.as_bytes()).is_some_and(|listed| listed.key == idle.key)
        });
        for (kind, expected, listed) in &mut self.found {
            if *kind == idle.kind() {
                *expected += 1;
                *listed += u64::from(is_listed);
            }
        }
        Ok(())
    }

    /// The kinds of which some are not in the list, or others are: how many should be, and how many are.
    fn end(self) -> Result<Vec<(IdleKind, u64, u64)>> {
        let mut wrong = Vec::new();
        for (kind, expected, listed) in self.found {
            let mut all = self.snapshot.scan(Idle::all(self.snapshot.domain, kind))?;
            let all = all.try_fold(0, |count, fact| fact.map(|_| count + 1))?;
            if (listed, all) != (expected, expected) {
                wrong.push((kind, expected, if listed == expected { all } else { listed }));
            }
        }
        Ok(wrong)
    }
}

impl Verification {
    fn compare(&mut self, what: impl FnOnce() -> String, stored: u64, counted: u64) {
        if stored != counted {
            self.findings.push(Finding::Count { what: what(), stored, counted });
        }
    }
}
