//! Rebuilding facts that follow from others.
//!
//! The right value is decided at the ordering point, by the facts as they are then. A count, which takes a recount, is
//! set only where it still is the one that the recount found: every change of what is counted changes it.

use crate::check::recount::idle_of;
use crate::check::wrong::{Live, Wrong};
use crate::error::{Error, Result};
use crate::facts::find;
use crate::facts::{
    AwaitedFact, BlobFact, Family, Idle, Key, LinkFact, Lookup, ManifestFact, ReferrerFact, RepositoryFact,
    SegmentFact, SegmentKind, Value,
};
use crate::id::FileId;
use crate::transaction::registry::set_link;
use crate::transaction::{Apply, Changes, Op};

/// Mends what is wrong, each if it still is.
#[derive(Debug)]
pub(super) struct Mend(pub(super) Vec<Wrong>);

impl Apply for Mend {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        for wrong in &self.0 {
            facts.tally.mended += u64::from(mend(facts, wrong)?);
            facts.check_size()?;
        }
        Ok(Vec::new())
    }
}

fn mend(facts: &mut Changes<'_>, wrong: &Wrong) -> Result<bool> {
    match wrong {
        Wrong::Count { key, stored, counted, .. } => {
            let (limit, found) = (u32::MAX.into(), *counted);
            let too_many = |_| Error::TooLarge { what: "the number of references", limit, found };
            mend_count(facts, *key, *stored, u32::try_from(found).map_err(too_many)?)
        }
        Wrong::Segment { file, stored, counted, kind } => mend_segment(facts, *file, stored.as_ref(), counted, *kind),
        Wrong::Abandoned(file) => {
            let is_there = facts.segment(*file)?.is_some_and(|segment| segment.kind == SegmentKind::Upload);
            if is_there {
                facts.drop_file(*file)?;
            }
            Ok(is_there)
        }
        Wrong::Idle { at, key, .. } => {
            let should = key.map_or(Ok(None), |key| idle_of(facts, &key))?.filter(|idle| idle.at() == *at);
            let listed = facts.get(at)?.and_then(|value| Idle::decode(at, value.as_bytes()));
            if listed.map(|listed| listed.key) == should.map(|should| should.key) && listed.is_some() {
                return Ok(false);
            }
            set(facts, *at, should.and_then(|should| should.fact().1))
        }
        Wrong::Referrer { key, fact, .. } => {
            let repository = key.repository_id();
            let manifest = find::manifest(facts, repository, &fact.digest)?;
            let subject = manifest.and_then(|manifest| manifest.subject);
            let fact = subject.map(|subject| ReferrerFact { subject, digest: fact.digest });
            let matches =
                |fact: &ReferrerFact| Key::referrer(key.domain, repository, &fact.subject, &fact.digest) == *key;
            set(facts, *key, fact.filter(matches).map(|fact| fact.encode()))
        }
        Wrong::TagOf { key, tag, .. } => {
            let repository = key.repository_id();
            let named = find::tag(facts, repository, tag)?;
            let matches = named.is_some_and(|named| Key::tag_of(key.domain, repository, &named.digest, tag) == *key);
            set(facts, *key, matches.then(|| Value::new(tag.as_bytes())))
        }
        Wrong::Beyond { .. } => Ok(false),
    }
}

/// Sets a fact, and says whether it was another.
fn set(facts: &mut Changes<'_>, key: Key, value: Option<Value>) -> Result<bool> {
    let differs = facts.get(&key)? != value;
    if differs {
        facts.set(key, value);
    }
    Ok(differs)
}

/// Sets a count. What turns out to be held by nothing stays for as long as if somebody had asked for it now.
fn mend_count(facts: &mut Changes<'_>, key: Key, stored: u32, count: u32) -> Result<bool> {
    let now = facts.now().touched();
    match key.family {
        Family::Blob => {
            let Some(old) = facts.blob_by_key(&key)?.filter(|blob| blob.count == stored) else { return Ok(false) };
            let touched = if count == 0 { now } else { old.touched };
            facts.change(key, Some(&old), Some(&BlobFact { count, touched, ..old }))?;
        }
        Family::Link => {
            let old = facts.decode(&key, LinkFact::decode)?;
            let Some(old) = old.filter(|link| link.count == stored) else { return Ok(false) };
            let touched = if count == 0 { now } else { old.touched };
            set_link(facts, key, Some(&old), Some(&LinkFact { count, touched, ..old }));
        }
        Family::AwaitedBlob | Family::AwaitedManifest => {
            let old = facts.decode(&key, AwaitedFact::decode)?;
            let Some(old) = old.filter(|awaited| awaited.count == stored) else { return Ok(false) };
            facts.set(key, (count > 0).then(|| AwaitedFact { count, ..old }.encode()));
        }
        Family::Repository => {
            let old = facts.decode(&key, RepositoryFact::decode)?;
            let Some(old) = old.filter(|one| u32::from(one.documents) == stored) else { return Ok(false) };
            // There are never more; if there are, none can be added until some are removed.
            let documents = u8::try_from(count).unwrap_or(u8::MAX);
            facts.set(key, Some(RepositoryFact { documents, ..old }.encode()));
        }
        _ => {
            let old = facts.decode(&key, ManifestFact::decode)?;
            let Some(old) = old.filter(|manifest| manifest.count == stored) else { return Ok(false) };
            facts.set(key, Some(ManifestFact { count, ..old }.encode()));
        }
    }
    Ok(true)
}

/// Sets what lives in a file; one in which nothing does goes.
fn mend_segment(
    facts: &mut Changes<'_>,
    file: FileId,
    stored: Option<&SegmentFact>,
    counted: &Live,
    kind: SegmentKind,
) -> Result<bool> {
    if facts.segment(file)?.as_ref() != stored {
        return Ok(false);
    }
    let mut segment = stored.copied().unwrap_or(SegmentFact::empty(kind, counted.key));
    (segment.live_frames, segment.live_bytes) = (counted.frames, counted.bytes);
    segment.frame_bytes = segment.frame_bytes.max(counted.bytes);
    match kind {
        SegmentKind::Upload if counted.frames == 0 => {
            facts.set(Key::segment(facts.domain(), file), Some(segment.encode()))
        }
        SegmentKind::Upload => {
            segment.kind = SegmentKind::Sealed;
            facts.set_segment(file, &segment)?;
        }
        SegmentKind::Log | SegmentKind::Sealed => facts.set_segment(file, &segment)?,
    }
    Ok(true)
}
