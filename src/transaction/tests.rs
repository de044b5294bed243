//! Decisions over a plain map, without log, files and threads, equal those over a store, request by request, and leave
//! the same facts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::blobs::{Compression, frame_for};
use crate::clock::{Clock, Retention, Times};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::envelope::KeyNumber;
use crate::error::{Error, Result};
use crate::facts::{
    BlobFact, DocumentFact, Family, Idle, IdleKind, Key, Known, Named, NamesOf, Place, Prefix, Reader, RepositoryFact,
    SegmentFact, StorageClass, UploadFact, Value,
};
use crate::id::{DomainId, FileId, Lsn, UploadId};
use crate::oci::attached::NewDocument;
use crate::oci::document::Document;
use crate::oci::{ExpectDocument, ExpectTag, Reference, RepositorySettings, Tag, TagMutability};
use crate::random::Random;
use crate::store::{Maintenance, Options, Store};
use crate::transaction::collection::{Condemn, Forget, Move, MoveFrames};
use crate::transaction::named::{Lifetime, Released, RemoveNamed, RemoveSeveral, SetNamed};
use crate::transaction::registry::{
    Create, Delete, DeleteReferences, Exists, Expire, ExpireRepository, Keep, Link, NotePulls, Purge, PutManifest,
    RemoveDocument, Set, SetDocument, SetStorageClass, SetTag, Touch, Unlink, Untag,
};
use crate::transaction::{Apply, Context, ExpectNamed, Outcome, Over, Placing, Request, rehearse, resolve};
use crate::vfs::SimVfs;

const DOMAIN: DomainId = DomainId::DEFAULT;
const RETENTION: Duration = Duration::from_secs(100);

/// Facts in a map.
#[derive(Debug, Default)]
struct Map {
    facts: BTreeMap<Key, Value>,
    last: Lsn,
}

impl Reader for Map {
    fn get(&self, key: &Key) -> Result<Option<Value>> {
        Ok(self.facts.get(key).cloned())
    }

    fn scan(&self, prefix: Prefix, after: Option<Key>, limit: usize) -> Result<Vec<(Key, Value)>> {
        let facts = prefix.range(&self.facts, after);
        Ok(facts.take(limit).map(|(key, value)| (*key, value.clone())).collect())
    }

    fn names(&self, of: NamesOf<'_>, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        of.first(self, after, limit)
    }

    fn domains(&self) -> &[DomainId] {
        &[DOMAIN]
    }

    fn lock_of(&self, _: DomainId) -> Option<&Error> {
        None
    }
}

/// Where commits to the map go: nowhere.
#[derive(Debug)]
struct NoLog(Lsn);

impl Placing for NoLog {
    fn lsn(&self) -> Lsn {
        self.0
    }

    fn frame(&self) -> (FileId, u64, KeyNumber) {
        (FileId(1), 4096, 0)
    }

    fn is_needed(&self, _: FileId) -> bool {
        true
    }
}

impl Map {
    fn commit(&mut self, request: &Request, now: Times) -> Result<Outcome> {
        let retention = Retention(RETENTION.as_millis() as u64);
        let placing = NoLog(self.last.next());
        let context = Context { domain: DOMAIN, facts: self, placing: &placing, now, retention };
        let resolved = resolve(request, &context)?;
        if !resolved.ops.is_empty() || !resolved.facts.is_empty() {
            self.last = self.last.next();
        }
        let over = names_in(&Over { newer: &resolved.facts.iter().cloned().collect(), older: self });
        for (key, value) in resolved.facts {
            match value {
                Some(value) => drop(self.facts.insert(key, value)),
                None => drop(self.facts.remove(&key)),
            }
        }
        assert_eq!(over, names_in(self), "{request:?}");
        Ok(resolved.outcome)
    }
}

fn content(number: usize) -> String {
    format!("content {number}")
}

fn digest(number: usize) -> Digest {
    let algorithm = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3][number % 3];
    Digest::of(algorithm, content(number).as_bytes())
}

fn tag(number: usize) -> Tag {
    format!("v{number}").parse().unwrap()
}

fn name(number: usize) -> String {
    format!("team/app-{number}")
}

/// A repository as it stands, or one that never was.
fn named(map: &Map, number: usize) -> Named {
    let fact = map.facts.get(&Key::repository(DOMAIN, &name(number)));
    let fact = fact.and_then(|value| RepositoryFact::decode(value.as_bytes()));
    fact.map_or(Named { id: crate::id::RepositoryId(999), name: name(number) }, |fact| fact.named())
}

fn upload(number: usize, now: Times) -> UploadFact {
    UploadFact {
        file: None,
        offset: 0,
        block_crc: 0,
        created: now.wall,
        touched: now.open,
        algorithm: Algorithm::Sha256,
        repository: None,
        hash_state: Hasher::new(Algorithm::Sha256).save().unwrap(),
        key: 0,
        rest: vec![number as u8; 3],
    }
}

/// A file of content: no log file has such an id.
fn file(number: usize) -> FileId {
    FileId(1 << 20 | number as u64)
}

/// A blob in such a file, and its place there.
fn in_segment(map: &Map) -> Option<(Digest, Place)> {
    (0..8).find_map(|number| {
        let fact = map.facts.get(&Key::blob(DOMAIN, &digest(number)))?;
        let place = BlobFact::decode(fact.as_bytes())?.place;
        (place.file >= file(0)).then_some((digest(number), place))
    })
}

/// What is in the idle list.
fn idle(map: &Map, kind: IdleKind) -> Vec<Idle> {
    let facts = map.scan(Idle::all(DOMAIN, kind), None, 3).unwrap();
    facts.iter().map(|(at, value)| Idle::decode(at, value.as_bytes()).unwrap()).collect()
}

/// Pages of names.
fn names_in(facts: &dyn Reader) -> Vec<Vec<String>> {
    let tags = facts.scan(Prefix::all(DOMAIN, Family::Repository), None, 9).unwrap();
    let tags = tags.iter().map(|(_, value)| RepositoryFact::decode(value.as_bytes()).unwrap().id);
    let of = tags.map(|id| NamesOf::Tags(DOMAIN, id)).chain([
        NamesOf::Named(DOMAIN, ""),
        NamesOf::Named(DOMAIN, "file"),
        NamesOf::Named(DOMAIN, "file 1"),
        NamesOf::Repositories,
    ]);
    let pages = [(None, 9), (None, 1), (Some("file 0"), 1), (Some("team/app-0"), 2), (Some("v1"), 1)];
    of.flat_map(|of| pages.map(|(after, limit)| facts.names(of, after, limit).unwrap())).collect()
}

/// The facts that a repository that was deleted has left.
fn left(map: &Map) -> Option<Purge> {
    let deleted = map.facts.keys().find(|key| key.family == Family::Deleted)?;
    let repository = deleted.repository_id();
    let (rest, last) = ([Family::Referrer, Family::Manifest, Family::Link], [Family::Document, Family::Deleted]);
    let families = [Family::Tag, Family::TagOf, Family::Pull].into_iter().chain(rest).chain(last);
    let of = |family| map.scan(Prefix::of(DOMAIN, family, repository), None, 5).unwrap();
    let keys = families.map(of).find(|facts| !facts.is_empty())?;
    Some(Purge { repository, keys: keys.into_iter().map(|(key, _)| key).collect() })
}

fn file_name(random: &mut Random) -> String {
    format!("file {}", random.below(2))
}

fn released(random: &mut Random) -> Released {
    [Released::Kept, Released::Discarded][random.below(2)]
}

/// A named file that holds these.
fn set_named(random: &mut Random, digest: Digest, references: Vec<Digest>, now: Times) -> SetNamed {
    let lifetimes = [Lifetime::Unlimited, Lifetime::OpenTime(50_000), Lifetime::Until(now.wall + 50_000)];
    let expected = [ExpectNamed::Any, ExpectNamed::Any, ExpectNamed::Absent, ExpectNamed::Is(digest)];
    SetNamed {
        name: file_name(random),
        digest,
        references,
        lifetime: lifetimes[random.below(3)],
        expect: expected[random.below(4)],
        released: released(random),
    }
}

/// A request drawn from a seed, about what there is.
fn request(random: &mut Random, map: &Map, now: Times) -> Request {
    let (blob, other) = (random.below(8), random.below(8));
    let repository = named(map, random.below(3));
    let apply = |change: Box<dyn Apply>| Request::Apply(change);
    let frame = |number| frame_for(digest(number), content(number).as_bytes(), Compression::Off);
    let upload_id = UploadId([random.below(3) as u8; 16]);
    let found = map.facts.get(&Key::upload(DOMAIN, upload_id)).and_then(|value| UploadFact::decode(value.as_bytes()));
    match random.below(32) {
        0 => Request::PutFrame { frame: frame(blob), then: None },
        1..=3 => {
            let link = Link { repository, digest: digest(blob), from: None };
            Request::PutFrame { frame: frame(blob), then: Some(Box::new(link)) }
        }
        4 => Request::Touch(vec![digest(blob), digest(other)]),
        5 => Request::Remove(digest(blob)),
        6 => {
            let set = set_named(random, digest(blob), vec![digest(other)], now);
            match random.below(2) {
                0 => apply(Box::new(set)),
                _ => Request::PutFrame { frame: frame(blob), then: Some(Box::new(set)) },
            }
        }
        7 => {
            let expect = [ExpectNamed::Any, ExpectNamed::Is(digest(blob))][random.below(2)];
            apply(Box::new(RemoveNamed { name: file_name(random), expect, released: released(random) }))
        }
        8 => {
            let names = vec![file_name(random), file_name(random), "none".into()];
            let only_expired = random.below(2) == 0;
            apply(Box::new(RemoveSeveral { names, only_expired, released: released(random) }))
        }
        9 => Request::BeginUpload {
            id: upload_id,
            fact: upload(blob, now),
            then: [None, Some(Box::new(Exists(repository)) as Box<dyn Apply>)]
                .into_iter()
                .nth(random.below(2))
                .unwrap(),
        },
        10 => match found {
            Some(from) => {
                let (descriptor, frame) = (frame(blob).descriptor, Some(frame(blob)));
                Request::CommitUpload { id: upload_id, from, descriptor, frame, then: None }
            }
            None => Request::CancelUpload { id: upload_id, untouched_since: None },
        },
        11 | 12 => {
            let mut settings = RepositorySettings::new();
            if random.below(2) == 0 {
                settings = settings.document("d0", "from the beginning").unwrap();
            }
            let provisional = random.below(3) == 0;
            apply(Box::new(Create { name: repository.name, settings, provisional }))
        }
        13 => apply(Box::new(Delete { name: repository.name, with_contents: random.below(4) == 0 })),
        14 => {
            let from = Some(named(map, random.below(3)));
            apply(Box::new(Link { repository, digest: digest(blob), from }))
        }
        15 => apply(Box::new(Touch { repository, digests: vec![digest(blob), digest(other)] })),
        16 => apply(Box::new(Unlink { repository, digest: digest(blob) })),
        17..=19 => {
            // A document is a blob of the same name. It may reference others, and, as a manifest, itself.
            let document = Document::of_references(&[digest(other)], &[digest(random.below(8))]).unwrap();
            let put = PutManifest {
                repository,
                digest: digest(blob),
                len: content(blob).len() as u64,
                media_type: "text/plain".into(),
                document,
                tags: vec![tag(random.below(3))],
                expect_tag: [ExpectTag::Any, ExpectTag::Absent][random.below(2)],
                awaits_blobs: random.below(3) == 0,
                awaits_manifests: random.below(2) == 0,
            };
            Request::PutFrame { frame: frame(blob), then: Some(Box::new(put)) }
        }
        20 => {
            let (tag, digest) = (tag(random.below(3)), digest(blob));
            match random.below(4) {
                3 => {
                    let class = [StorageClass::Standard, StorageClass::Archive, StorageClass::Archive][random.below(3)];
                    apply(Box::new(SetStorageClass { repository, digest, class }))
                }
                0 => apply(Box::new(SetTag { repository, tag, digest, expect: ExpectTag::Any })),
                1 => apply(Box::new(Untag { repository, digest, tags: vec![tag.to_string()] })),
                _ => apply(Box::new(NotePulls(vec![(repository, digest, now.wall)]))),
            }
        }
        21 => {
            let references =
                vec![Reference::Digest(digest(blob)), Reference::Tag(tag(other)), Reference::Digest(digest(other))];
            apply(Box::new(DeleteReferences { repository, references }))
        }
        22 if random.below(2) == 0 => {
            let known = map.facts.iter().find(|(key, _)| key.family == Family::Document);
            let known = known.and_then(|(_, value)| DocumentFact::revision_of(value.as_bytes()));
            let expect =
                [ExpectDocument::Any, ExpectDocument::Absent, known.map_or(ExpectDocument::Any, ExpectDocument::Is)];
            let (name, expect) = (format!("d{}", random.below(2)), expect[random.below(3)]);
            match random.below(3) {
                0 => apply(Box::new(RemoveDocument { repository, name, expect })),
                _ => {
                    let document = NewDocument::new(&name, content(blob).as_bytes()).unwrap();
                    apply(Box::new(SetDocument { repository, document, expect }))
                }
            }
        }
        22 => {
            let links = idle(map, IdleKind::Link).into_iter().map(|idle| (idle, None)).collect();
            apply(Box::new(Expire { repository, links }))
        }
        23 => {
            let blobs = idle(map, IdleKind::Blob);
            match random.below(2) {
                0 => apply(Box::new(Condemn(blobs))),
                _ => apply(Box::new(Forget(blobs.into_iter().map(|idle| (idle, None)).collect()))),
            }
        }
        24 | 25 => {
            let link = Link { repository, digest: digest(blob), from: None };
            let then = [None, Some(Box::new(link) as Box<dyn Apply>)].into_iter().nth(random.below(2)).unwrap();
            Request::PutSegment { descriptor: frame(blob).descriptor, file: file(random.below(99)), then }
        }
        26 => match found {
            Some(from) if from.file.is_some() && random.below(2) == 0 => {
                let to = UploadFact { file: Some(file(100 + random.below(99))), ..from.clone() };
                Request::MoveUpload { id: upload_id, from, to, parts: vec![(0, vec![2; 4])] }
            }
            Some(from) => {
                let into = from.file.unwrap_or(file(100 + random.below(99)));
                let to = UploadFact { file: Some(into), offset: from.offset + 70_000, ..from.clone() };
                Request::AppendUpload { id: upload_id, from, to, parts: vec![(0, vec![1; 4])] }
            }
            None => Request::BeginUpload { id: upload_id, fact: upload(blob, now), then: None },
        },
        27 | 28 => match in_segment(map) {
            Some((digest, from)) => {
                let frame = frame_for(digest, b"content in a segment", Compression::Off);
                match random.below(2) {
                    0 => Request::MoveFrame { from, frame },
                    _ => Request::MoveSegment { from, descriptor: frame.descriptor, file: file(random.below(99)) },
                }
            }
            None => Request::Touch(vec![digest(blob)]),
        },
        29 => {
            let settings = RepositorySettings::new().mutability(TagMutability::Immutable);
            apply(Box::new(Set { repository, settings, creates: random.below(2) == 0 }))
        }
        30 => match random.below(2) {
            0 => apply(Box::new(Keep(repository))),
            _ => apply(Box::new(ExpireRepository { repository, in_use: random.below(3) == 0 })),
        },
        _ => match left(map) {
            Some(purge) => apply(Box::new(purge)),
            None => Request::DropFile(FileId(1)),
        },
    }
}

/// A request that was rehearsed, and is decided later.
struct Rehearsed {
    request: Request,
    known: Known,
    due: usize,
}

/// What a request comes to over the store as it is, read anew or with what was read before.
fn decided(store: &Store, request: &Request, known: Option<&Known>, now: Times) -> Option<String> {
    let snapshot = store.rooms().0.snapshot();
    let recalled = match known {
        Some(known) => Some(snapshot.recalling(known)?),
        None => None,
    };
    let facts: &dyn Reader = recalled.as_ref().map_or(&snapshot, |recalled| recalled);
    let placing = NoLog(store.last_lsn().next());
    let retention = Retention(RETENTION.as_millis() as u64);
    let resolved = resolve(request, &Context { domain: DOMAIN, facts, placing: &placing, now, retention });
    Some(format!("{resolved:?}"))
}

/// All facts, but for where content lies: the log knows that.
fn seen(facts: impl Iterator<Item = (Key, Value)>) -> BTreeMap<Key, Value> {
    let place = Place { file: FileId(0), offset: 0, stored_len: 0, block_log2: 0, crc: 0, key: 0 };
    let facts = facts.filter(|(key, _)| key.family != Family::Segment);
    facts
        .map(|(key, value)| match key.family {
            Family::Blob => (key, BlobFact { place, ..BlobFact::decode(value.as_bytes()).unwrap() }.encode()),
            _ => (key, value),
        })
        .collect()
}

fn facts_of(store: &Store) -> BTreeMap<Key, Value> {
    let snapshot = store.rooms().0.snapshot();
    let facts = Family::ALL.into_iter().flat_map(|family| {
        let facts: Vec<_> = snapshot.facts(family, [0; 32]).unwrap().map(Result::unwrap).collect();
        facts
    });
    seen(facts)
}

/// What an outcome says, but for files.
fn said(outcome: &Result<Outcome>) -> String {
    match outcome {
        Ok(Outcome { existed, applied, refused, tally, .. }) => format!("{existed} {applied} {refused:?} {tally:?}"),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn requests_come_to_the_same_over_a_map_and_over_a_store() {
    for seed in 0..4 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let clock = Clock::manual();
        let options = Options::new().create(true).vfs(Arc::new(SimVfs::new())).clock(clock.clone());
        let options = options.maintenance(Maintenance::Inline).retention(RETENTION);
        let store = options.open("/store").unwrap();
        let mut map = Map::default();
        let (mut done, mut recalled, mut rehearsed) = (0, 0, Vec::new());
        for step in 0..400 {
            let now = Times { wall: clock.wall(), open: clock.elapsed() };
            let drawn = request(&mut random.clone(), &map, now);
            let same = request(&mut random, &map, now);
            let over_store = store.rooms().1.commit_unthrottled(DOMAIN, drawn);
            let over_map = map.commit(&same, now);
            assert_eq!(said(&over_map), said(&over_store), "step {step} of seed {seed}: {same:?}");
            assert_eq!(map.last, store.last_lsn(), "step {step} of seed {seed}: {same:?}");
            rehearsed.retain(|Rehearsed { request, known, due }| {
                if step < *due {
                    return true;
                }
                if let Some(found) = decided(&store, request, Some(known), now) {
                    let expected = decided(&store, request, None, now).unwrap();
                    assert_eq!(found, expected, "step {step} of seed {seed}: {request:?}");
                    recalled += 1;
                }
                false
            });
            let request = request(&mut Random(random.0 ^ 1), &map, now);
            let retention = Retention(RETENTION.as_millis() as u64);
            let (as_of, snapshot) = (store.last_lsn(), store.rooms().0.snapshot());
            let context = Context { domain: DOMAIN, facts: &snapshot, placing: &NoLog(as_of.next()), now, retention };
            let known = rehearse(&request, as_of, &context);
            rehearsed.push(Rehearsed { request, known, due: step + random.below(20) });
            done += usize::from(over_map.is_ok_and(|outcome| outcome.applied > 0));
            if step % 10 == 0 {
                let facts = map.facts.iter().map(|(key, value)| (*key, value.clone()));
                assert_eq!(seen(facts), facts_of(&store), "step {step} of seed {seed}");
                assert_eq!(names_in(&map), names_in(&store.rooms().0.snapshot()), "step {step} of seed {seed}");
            }
            if step % 90 == 0 {
                store.rooms().1.checkpoint().unwrap();
            }
            clock.advance(Duration::from_secs(random.below(20) as u64));
        }
        assert!(done > 80, "of 400 requests of seed {seed} only {done} came to anything");
        assert!(recalled > 200, "of 400 requests of seed {seed} only {recalled} could recall what they had read");
    }
}

#[test]
fn frames_of_a_pack_whose_blobs_went_meanwhile_count_as_dead() {
    let (mut map, now) = (Map::default(), Times { wall: 1, open: 1 });
    let frame = |number| frame_for(digest(number), content(number).as_bytes(), Compression::Off);
    let mut moves = Vec::new();
    for number in 0..3 {
        map.commit(&Request::PutFrame { frame: frame(number), then: None }, now).unwrap();
        let fact = map.facts.get(&Key::blob(DOMAIN, &digest(number))).unwrap();
        let from = BlobFact::decode(fact.as_bytes()).unwrap().place;
        moves.push(Move { from, to: frame(number).descriptor, offset: 4096 * (1 + number as u64) });
    }
    map.commit(&Request::Remove(digest(1)), now).unwrap();
    let pack = FileId(9);
    let len = |step: &Move| step.to.fact(pack, step.offset).place.frame_len();
    let bytes: u64 = moves.iter().map(len).sum();
    let dead = len(&moves[1]);
    // In two steps, as if they were many.
    for (goes_on, moves) in [(false, moves[..2].to_vec()), (true, moves[2..].to_vec())] {
        let publish = MoveFrames { file: pack, key: 0, bytes, goes_on, moves };
        map.commit(&Request::Apply(Box::new(publish)), now).unwrap();
        let segment = map.facts.get(&Key::segment(DOMAIN, pack)).unwrap();
        assert_eq!(SegmentFact::decode(segment.as_bytes()).unwrap().frame_bytes, bytes);
    }
    let segment = SegmentFact::decode(map.facts.get(&Key::segment(DOMAIN, pack)).unwrap().as_bytes()).unwrap();
    assert_eq!((segment.live_frames, segment.frame_bytes - segment.live_bytes), (2, dead));
}
