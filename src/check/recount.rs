//! Recounting all counts that facts have.
//!
//! A recount reads one snapshot, in which everything is as one commit left it: so any difference is an error, however
//! much is written meanwhile.
//!
//! The counts of blobs are computed in passes, each over a range of keys with about a million blobs: so memory does not
//! grow with the store, and each pass reads the facts of links, manifests and named files once.

use std::collections::{HashMap, HashSet};

use crate::check::Checks;
use crate::check::wrong::{Live, Wrong};
use crate::check::{Step, repositories};
use crate::facts::{
    BlobFact, Family, Idle, IdleKind, Key, LinkFact, Lookup, NamedFact, Reader as _, RepositoryFact, SegmentKind,
};
use crate::files::Contents as _;
use crate::id::FileId;
use crate::tables::Snapshot;

/// So many blobs are counted in a pass, if their keys are spread evenly: 40 MiB.
const BLOBS_A_PASS: u64 = if cfg!(test) { 64 } else { 1 << 20 };

/// Receives what a recount finds, and may end it.
pub(crate) trait Listener {
    /// Something is wrong.
    fn found(&mut self, wrong: Wrong) -> Step<()>;

    /// Called for each fact.
    fn step(&mut self) -> Step<()> {
        Ok(())
    }
}

/// A part of the keys, by their first eight bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    first: u64,
    last: u64,
}

impl Keys {
    /// All keys, in so many parts.
    fn parts(count: u64) -> impl Iterator<Item = Self> {
        let width = u64::MAX / count.max(1);
        let at = move |part: u64| part.saturating_mul(width);
        let last = move |part: u64| if part + 1 >= count { u64::MAX } else { at(part + 1) - 1 };
        (0..count.max(1)).map(move |part| Self { first: at(part), last: last(part) })
    }

    fn has(&self, key: &Key) -> bool {
        (self.first..=self.last).contains(&key.prefix())
    }

    /// The first of them.
    fn from(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(self.first.to_be_bytes()).for_each(|(to, from)| *to = from);
        bytes
    }
}

/// How often each of some blobs is held.
pub(crate) struct Holds {
    keys: Keys,
    counts: HashMap<[u8; 32], u64>,
}

impl Holds {
    /// Counts one more that holds a blob.
    pub(crate) fn add(&mut self, blob: &Key) {
        if self.keys.has(blob) {
            *self.counts.entry(blob.bytes).or_default() += 1;
        }
    }
}

impl Checks {
    /// Recounts what belongs to a snapshot's domain: nothing that is counted in one leads out of it.
    ///
    /// A fact that can't be read ends it, and then nothing is said that would have needed it.
    pub(super) fn recount(&self, snapshot: &Snapshot, listener: &mut dyn Listener) -> Step<()> {
        repositories::recount(snapshot, listener)?;
        for file in snapshot.named_files()? {
            let file = file?;
            check_listed(snapshot, Idle::of_named(&Key::named(snapshot.domain, &file.name), &file), listener)?;
        }
        check_list(snapshot, listener)?;
        let mut live: HashMap<FileId, Live> = HashMap::new();
        let blobs = snapshot.sum_segments(|segment| segment.live_frames.into())?;
        for keys in Keys::parts(1 + blobs / BLOBS_A_PASS) {
            self.recount_blobs(snapshot, keys, &mut live, listener)?;
        }
        self.recount_segments(snapshot, live, listener)
    }

    /// Recounts how often blobs are held, and adds to what lives in files.
    fn recount_blobs(
        &self,
        snapshot: &Snapshot,
        keys: Keys,
        live: &mut HashMap<FileId, Live>,
        listener: &mut dyn Listener,
    ) -> Step<()> {
        let mut holds = Holds { keys, counts: HashMap::new() };
        for file in snapshot.named_files()? {
            file?.held().for_each(|digest| holds.add(&Key::blob(snapshot.domain, digest)));
            listener.step()?;
        }
        repositories::holds(snapshot, &mut holds, listener)?;
        for fact in snapshot.facts(Family::Blob, keys.from())? {
            let (key, value) = fact?;
            if !keys.has(&key) {
                break;
            }
            let fact = snapshot.decoded(&key, BlobFact::decode(value.as_bytes()))?;
            live.entry(fact.place.file).or_default().add(&fact.place);
            check_listed(snapshot, Idle::of_blob(&key, &fact), listener)?;
            let counted = holds.counts.remove(&key.bytes).unwrap_or_default();
            if counted != u64::from(fact.count) {
                let name =
                    self.blobs.digest_of(&key, &fact).map_or_else(|_| format!("{key:?}"), |digest| digest.to_string());
                listener.found(Wrong::Count { key, name, stored: fact.count, counted })?;
            }
            listener.step()?;
        }
        for (bytes, counted) in holds.counts {
            let key = Key { domain: snapshot.domain, family: Family::Blob, bytes };
            listener.found(Wrong::missing(format!("references to the missing blob {key:?}"), counted))?;
        }
        Ok(())
    }

    /// Compares what lives in files with what is on record.
    fn recount_segments(
        &self,
        snapshot: &Snapshot,
        mut live: HashMap<FileId, Live>,
        listener: &mut dyn Listener,
    ) -> Step<()> {
        let mut uploads = HashSet::new();
        for upload in snapshot.uploads()? {
            uploads.extend(upload?.1.file);
        }
        for fact in snapshot.segment_facts()? {
            let (file, segment) = fact?;
            let counted = live.remove(&file).unwrap_or_default();
            let is_empty = segment.kind == SegmentKind::Sealed && counted.frames == 0;
            if (segment.live_frames, segment.live_bytes) != (counted.frames, counted.bytes) || is_empty {
                listener.found(Wrong::Segment { file, stored: Some(segment), counted, kind: segment.kind })?;
            } else if segment.kind == SegmentKind::Upload
                && !uploads.contains(&file)
                // The uploads are those of now: it may have ended since.
                && (self.tables.snapshot_of(snapshot.domain).segment(file)?)
                    .is_some_and(|now| now.kind == SegmentKind::Upload)
            {
                listener.found(Wrong::Abandoned(file))?;
            }
            listener.step()?;
        }
        for (file, counted) in live {
            let is_log = self.files.path(file).starts_with(self.files.layout().logs());
            let kind = if is_log { SegmentKind::Log } else { SegmentKind::Sealed };
            listener.found(Wrong::Segment { file, stored: None, counted, kind })?;
        }
        Ok(())
    }
}

/// Looks whether what nothing holds is in the list of that.
pub(super) fn check_listed(snapshot: &Snapshot, idle: Option<Idle>, listener: &mut dyn Listener) -> Step<()> {
    let Some(idle) = idle else { return Ok(()) };
    let listed = snapshot.get(&idle.at())?.and_then(|value| Idle::decode(&idle.at(), value.as_bytes()));
    if listed.is_none_or(|listed| listed.key != idle.key) {
        listener.found(Wrong::unlisted(&idle))?;
    }
    Ok(())
}

/// Looks whether what is in the idle list should be.
fn check_list(snapshot: &Snapshot, listener: &mut dyn Listener) -> Step<()> {
    for kind in IdleKind::ALL {
        for fact in snapshot.scan_all(Idle::all(snapshot.domain, kind))? {
            let (at, value) = fact?;
            let key = Idle::decode(&at, value.as_bytes()).map(|idle| idle.key);
            let should = key.map_or(Ok(None), |key| idle_of(snapshot, &key))?;
            if should.is_none_or(|idle| idle.at() != at) {
                listener.found(Wrong::Idle { at, key, is_there: true })?;
            }
            listener.step()?;
        }
    }
    Ok(())
}

/// The entry that something should have in the idle list.
pub(super) fn idle_of(facts: &impl Lookup, key: &Key) -> crate::Result<Option<Idle>> {
    Ok(match key.family {
        Family::Named => facts.decode(key, NamedFact::decode)?.and_then(|file| Idle::of_named(key, &file)),
        Family::Link => facts.decode(key, LinkFact::decode)?.and_then(|link| Idle::of_link(key, &link)),
        Family::Repository => {
            facts.decode(key, RepositoryFact::decode)?.and_then(|repository| Idle::of_repository(key, &repository))
        }
        _ => facts.blob_by_key(key)?.and_then(|blob| Idle::of_blob(key, &blob)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DomainId;

    #[test]
    fn parts_have_every_key_once() {
        for count in [0, 1, 2, 3, 7, 255, 1 << 20] {
            let parts: Vec<_> = Keys::parts(count).collect();
            assert_eq!((parts[0].first, parts[parts.len() - 1].last), (0, u64::MAX));
            assert!(parts.windows(2).all(|pair| pair[0].last + 1 == pair[1].first && pair[0].first <= pair[0].last));
            for part in parts {
                let key = Key { domain: DomainId::DEFAULT, family: Family::Blob, bytes: part.from() };
                assert!(part.has(&key));
            }
        }
    }
}
