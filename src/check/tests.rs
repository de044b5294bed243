//! Wrong facts of every kind: a recount finds them, and repair rebuilds those that follow from others.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use crate::blobs::PutNamed;
use crate::clock::Clock;
use crate::digest::{Algorithm, Digest};
use crate::error::{Damage, Error, Result};
use crate::facts::{
    BlobFact, Fact, Family, Idle, Key, LinkFact, Lookup, ManifestFact, NamedFact, ReferrerFact, RepositoryFact,
    SegmentFact, SegmentKind, Value,
};
use crate::id::{DomainId, FileId, RepositoryId};
use crate::registry::{PutManifest, Repository, RepositorySettings};
use crate::store::{Maintenance, Options, Store};
use crate::transaction::registry::Purge;
use crate::transaction::{Apply, Changes, ExpectNamed, Op, Request};
use crate::vfs::{SimVfs, Vfs as _};

const DOMAIN: DomainId = DomainId::DEFAULT;

/// Facts as they are given, whatever follows from what.
#[derive(Debug)]
struct Raw(Vec<Fact>);

impl Apply for Raw {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        self.0.iter().for_each(|(key, value)| facts.set(*key, value.clone()));
        Ok(Vec::new())
    }
}

struct Lab {
    disk: SimVfs,
    store: Store,
    repository: RepositoryId,
    /// Held by a named file and by the image.
    layer: Digest,
    /// Held by nothing.
    idle: Digest,
    /// In a segment of its own, and held by nothing.
    large: Digest,
    image: Digest,
    index: Digest,
}

fn open(disk: &SimVfs) -> Store {
    let options = Options::new().create(true).vfs(Arc::new(disk.clone())).clock(Clock::manual());
    options.maintenance(Maintenance::Inline).inline_max(1000).log_file_size(64 << 10).history(0).open("/store").unwrap()
}

fn descriptor(digest: &Digest) -> String {
    format!(r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}"}}"#)
}

fn push(repository: &Repository, kind: &str, rest: &str, tag: &str) -> Digest {
    let kind = format!("application/vnd.oci.image.{kind}.v1+json");
    let document = format!(r#"{{"schemaVersion":2,"mediaType":"{kind}",{rest}}}"#);
    repository.put_manifest(document, PutManifest::new(kind).tag(tag.parse().unwrap())).unwrap().digest
}

impl Lab {
    fn new() -> Self {
        let disk = SimVfs::new();
        let store = open(&disk);
        let (idle, large) = (
            store.put("idle", Algorithm::Sha256).unwrap().digest,
            store.put(vec![3; 5000], Algorithm::Sha512).unwrap().digest,
        );
        let repository = store.create_repository(&"a/b".parse().unwrap(), RepositorySettings::new()).unwrap();
        let layer = repository.put("layer", Algorithm::Sha256).unwrap().digest;
        repository.put("unreferenced", Algorithm::Sha256).unwrap();
        let expiring = PutNamed::new().expires_after(std::time::Duration::from_secs(9));
        store.named().set("file", &layer, expiring).unwrap();
        let rest = format!(r#""config":{},"layers":[],"subject":{}"#, descriptor(&layer), descriptor(&idle));
        let image = push(&repository, "manifest", &rest, "v1");
        let index = push(&repository, "index", &format!(r#""manifests":[{}]"#, descriptor(&image)), "all");
        let id = repository.named().id;
        // So many that a recount takes several passes and commits.
        for n in 0..200 {
            store.put(format!("filler {n}"), Algorithm::Sha256).unwrap();
        }
        store.create_on_push(&"a/pushed".parse().unwrap(), RepositorySettings::new()).unwrap();
        Self { disk, store, repository: id, layer, idle, large, image, index }
    }

    fn set(&self, facts: Vec<Fact>) {
        self.store.checks().log.commit(DOMAIN, Request::Apply(Box::new(Raw(facts)))).unwrap();
    }

    fn blob(&self, digest: &Digest) -> (Key, BlobFact) {
        let key = Key::blob(DOMAIN, digest);
        (key, self.store.checks().tables.snapshot().blob_by_key(&key).unwrap().unwrap())
    }

    fn get<T>(&self, key: &Key, decode: impl Fn(&[u8]) -> Option<T>) -> T {
        self.store.checks().tables.snapshot().decode(key, decode).unwrap().unwrap()
    }

    fn of_digest(&self, family: Family, digest: &Digest) -> Key {
        Key::of_digest(DOMAIN, family, self.repository, digest)
    }

    fn findings(&self) -> Vec<String> {
        let found = self.store.verify(|_| {}).unwrap().findings;
        found.iter().map(ToString::to_string).collect()
    }

    fn all_facts(&self) -> Vec<(Key, Value)> {
        let snapshot = self.store.checks().tables.snapshot();
        let of = |family| snapshot.facts(family, [0; 32]).unwrap().map(|fact| fact.unwrap()).collect::<Vec<_>>();
        Family::ALL.into_iter().flat_map(of).collect()
    }
}

/// Breaks a store, and expects so many findings, and after a repair the facts as they were before.
fn broken(what: &str, findings: usize, mended: u64, facts: impl FnOnce(&Lab) -> Vec<Fact>) {
    let mut lab = Lab::new();
    assert!(lab.findings().is_empty(), "{what}: {:#?}", lab.findings());
    let before = lab.all_facts();
    lab.set(facts(&lab));
    assert_eq!(lab.findings().len(), findings, "{what}: {:#?}", lab.findings());
    let report = lab.store.repair(|_| ControlFlow::Continue(())).unwrap();
    assert!(report.left.complete && report.left.is_sound(), "{what}: {:#?}", report.left);
    assert_eq!(
        (report.mended, report.was_wrong.len() as u64),
        (mended, mended.min(50)),
        "{what}: {:#?}",
        report.was_wrong
    );
    assert!(lab.all_facts() == before, "{what}: not as it was");
    let again = lab.store.repair(|_| ControlFlow::Continue(())).unwrap();
    assert_eq!(again.mended, 0, "{what}");
    lab.store.close().unwrap();
    let report = open(&lab.disk).verify(|_| {}).unwrap();
    assert!(report.findings.is_empty(), "{what}: {:#?}", report.findings);
}

#[test]
fn counts_are_mended() {
    for count in [0, 1, 2, 77, u32::MAX] {
        // Its count is 2. If it was 0, it would have to be listed too.
        let wrong = match count {
            0 => 2,
            2 => 0,
            _ => 1,
        };
        broken("a blob's count", wrong, wrong as u64, |lab| {
            let (key, blob) = lab.blob(&lab.layer);
            vec![(key, Some(BlobFact { count, ..blob }.encode()))]
        });
    }
    broken("a link's count", 1, 1, |lab| {
        let key = lab.of_digest(Family::Link, &lab.layer);
        vec![(key, Some(LinkFact { count: 9, ..lab.get(&key, LinkFact::decode) }.encode()))]
    });
    broken("a manifest's count", 1, 1, |lab| {
        let key = lab.of_digest(Family::Manifest, &lab.image);
        vec![(key, Some(ManifestFact { count: 0, ..lab.get(&key, ManifestFact::decode) }.encode()))]
    });
    broken("how many documents a repository has", 1, 1, |lab| {
        let key = Key::repository(DOMAIN, "a/b");
        vec![(key, Some(RepositoryFact { documents: 3, ..lab.get(&key, RepositoryFact::decode) }.encode()))]
    });
    broken("many counts", 50, 202, |lab| {
        let blobs = lab.store.blobs().map(|stat| stat.unwrap()).filter(|stat| stat.references == 0);
        let one_more = |digest: Digest| {
            let (key, blob) = lab.blob(&digest);
            [(key, Some(BlobFact { count: 1, ..blob }.encode())), (Idle::of_blob(&key, &blob).unwrap().at(), None)]
        };
        // The clock stands, so that they are touched when they were.
        blobs.flat_map(|stat| one_more(stat.digest)).collect()
    });
}

#[test]
fn what_turns_out_to_be_held_by_nothing_stays_for_the_retention_time() {
    let mut lab = Lab::new();
    let (key, blob) = lab.blob(&lab.idle);
    lab.set(vec![
        (key, Some(BlobFact { count: 3, touched: 0, ..blob }.encode())),
        (Idle::of_blob(&key, &blob).unwrap().at(), None),
    ]);
    let report = lab.store.repair(|_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.mended, report.left.is_sound()), (1, true));
    assert!(lab.blob(&lab.idle).1.touched > 0);
    lab.store.remove(&lab.idle).unwrap();
    assert!(lab.findings().is_empty());
}

#[test]
fn the_list_of_what_nothing_holds_is_mended() {
    broken("a blob that is not listed", 1, 1, |lab| {
        let (key, blob) = lab.blob(&lab.idle);
        vec![(Idle::of_blob(&key, &blob).unwrap().at(), None)]
    });
    broken("a named file that is not listed", 1, 1, |lab| {
        let key = Key::named(DOMAIN, "file");
        vec![(Idle::of_named(&key, &lab.get(&key, NamedFact::decode)).unwrap().at(), None)]
    });
    broken("a link that is not listed", 1, 1, |lab| {
        let key = lab.of_digest(Family::Link, &Digest::of(Algorithm::Sha256, b"unreferenced"));
        vec![(Idle::of_link(&key, &lab.get(&key, LinkFact::decode)).unwrap().at(), None)]
    });
    broken("a provisional repository that is not listed, and one that is and stays", 2, 2, |lab| {
        let idle = |name: &str, provisional| {
            let key = Key::repository(DOMAIN, name);
            let repository = RepositoryFact { provisional, ..lab.get(&key, RepositoryFact::decode) };
            Idle::of_repository(&key, &repository).unwrap()
        };
        vec![(idle("a/pushed", Some(0)).at(), None), idle("a/b", Some(7)).fact()]
    });
    broken("a blob that is held and listed, one that is listed twice, one that is not there", 3, 3, |lab| {
        let (held, idle) = (lab.blob(&lab.layer), lab.blob(&lab.idle));
        let entry = |(key, blob): (Key, BlobFact), touched| {
            Idle::of_blob(&key, &BlobFact { count: 0, touched, ..blob }).unwrap().fact()
        };
        let nobody = Key { bytes: [0x77; 32], ..held.0 };
        vec![entry(held, 5), entry(idle, 70_000), entry((nobody, idle.1), 1)]
    });
}

#[test]
fn what_lives_in_files_is_mended() {
    let segment_of = |lab: &Lab, digest: &Digest| {
        let key = Key::segment(DOMAIN, lab.blob(digest).1.place.file);
        (key, lab.get(&key, SegmentFact::decode))
    };
    for digest in [|lab: &Lab| lab.layer, |lab: &Lab| lab.large] {
        broken("live frames", 1, 1, |lab| {
            let (key, segment) = segment_of(lab, &digest(lab));
            vec![(key, Some(SegmentFact { live_frames: 0, ..segment }.encode()))]
        });
        broken("live bytes", 1, 1, |lab| {
            let (key, segment) = segment_of(lab, &digest(lab));
            vec![(key, Some(SegmentFact { live_bytes: segment.live_bytes + 8, ..segment }.encode()))]
        });
    }
    broken("a segment without a fact", 1, 1, |lab| vec![(segment_of(lab, &lab.large).0, None)]);
    // Of two of them it is told as well that the file is lost.
    broken("facts of files that nothing lives in", 5, 3, |lab| {
        let key = |id| Key::segment(DOMAIN, FileId(id));
        let empty = |kind| Some(SegmentFact::empty(kind, 0).encode());
        let full = SegmentFact { live_frames: 2, live_bytes: 9, ..SegmentFact::empty(SegmentKind::Sealed, 0) };
        let _ = lab;
        vec![
            (key(900), empty(SegmentKind::Sealed)),
            (key(901), Some(full.encode())),
            (key(902), empty(SegmentKind::Upload)),
        ]
    });
}

#[test]
fn what_is_not_on_record_can_not_be_let_go_of_before_it_is_mended() {
    let mut lab = Lab::new();
    let is_told = |result: Result<()>| matches!(result, Err(Error::Corrupt { damage: Damage::Invalid(_), .. }));
    // A blob that is held, and gone: it takes its content to count again.
    let (key, _) = lab.blob(&lab.layer);
    lab.set(vec![(key, None)]);
    let repository = lab.store.repository(&"a/b".parse().unwrap()).unwrap();
    assert!(is_told(lab.store.named().remove("file", ExpectNamed::Any).map(drop)));
    assert_eq!(lab.store.named().stat("file").unwrap().digest, lab.layer, "refused, it is as it was");
    assert!(is_told(
        repository.delete_manifest(&lab.index).and_then(|_| repository.delete_manifest(&lab.image)).map(drop)
    ));
    drop(repository);
    lab.store.put("layer", Algorithm::Sha256).unwrap();
    assert!(is_told(lab.store.named().remove("file", ExpectNamed::Any).map(drop)));
    lab.store.repair(|_| ControlFlow::Continue(())).unwrap();
    lab.store.named().remove("file", ExpectNamed::Any).unwrap();
    lab.store.repository(&"a/b".parse().unwrap()).unwrap().delete_manifest(&lab.image).unwrap();
    // A segment that a blob lies in.
    let segment = Key::segment(DOMAIN, lab.blob(&lab.large).1.place.file);
    lab.set(vec![(segment, None)]);
    assert!(is_told(lab.store.remove(&lab.large).map(drop)));
    lab.store.repair(|_| ControlFlow::Continue(())).unwrap();
    lab.store.remove(&lab.large).unwrap();
    assert!(lab.findings().is_empty(), "{:#?}", lab.findings());
}

#[test]
fn what_a_deleted_repository_has_left_is_not_removed_unread() {
    let lab = Lab::new();
    let before = lab.blob(&lab.layer).1;
    let keys = [
        lab.of_digest(Family::Link, &lab.layer),
        lab.of_digest(Family::Manifest, &lab.image),
        Key::tag(DOMAIN, lab.repository, "v1"),
    ];
    for key in keys {
        lab.set(vec![(key, Some(Value::new(b"?")))]);
        let purge = Purge { repository: lab.repository, keys: vec![key] };
        let purged = lab.store.checks().log.commit(DOMAIN, Request::Apply(Box::new(purge)));
        assert!(matches!(purged, Err(Error::Corrupt { .. })), "{key:?}: {purged:?}");
    }
    assert_eq!(lab.blob(&lab.layer).1, before);
}

#[test]
fn a_file_goes_that_no_blob_lives_in() {
    let mut lab = Lab::new();
    let (key, blob) = lab.blob(&lab.large);
    let path = lab.store.checks().files.layout().segment(blob.place.file);
    assert!(lab.disk.files().contains(&path));
    lab.set(vec![(key, None), (Idle::of_blob(&key, &blob).unwrap().at(), None)]);
    let report = lab.store.repair(|_| ControlFlow::Continue(())).unwrap();
    assert!(report.mended == 1 && report.left.is_sound(), "{report:#?}");
    assert!(!lab.disk.files().contains(&path));
}

#[test]
fn uploads_under_way_are_left_alone() {
    let mut lab = Lab::new();
    let id = lab.store.begin_upload(Algorithm::Sha256).unwrap();
    lab.store.append_upload(id, 0, vec![5; 70_000]).unwrap();
    assert_eq!(lab.store.repair(|_| ControlFlow::Continue(())).unwrap().mended, 0);
    let file = lab.store.checks().tables.snapshot().uploads().unwrap().next().unwrap().unwrap().1.file.unwrap();
    let key = Key::segment(DOMAIN, file);
    let wrong = SegmentFact { live_frames: 3, ..lab.get(&key, SegmentFact::decode) };
    lab.set(vec![(key, Some(wrong.encode()))]);
    assert_eq!(lab.store.repair(|_| ControlFlow::Continue(())).unwrap().mended, 1);
    lab.store.append_upload(id, 70_000, "end").unwrap();
    let content = [vec![5; 70_000], b"end".to_vec()].concat();
    lab.store.commit_upload(id, Digest::of(Algorithm::Sha256, &content)).unwrap();
    assert!(lab.findings().is_empty());
}

#[test]
fn what_leads_to_manifests_is_mended() {
    let (referrer, tag_of) = (
        |lab: &Lab, subject: &Digest| Key::referrer(DOMAIN, lab.repository, subject, &lab.image),
        |lab: &Lab, digest: &Digest, tag: &str| Key::tag_of(DOMAIN, lab.repository, digest, tag),
    );
    broken("a referrer that is not listed", 1, 1, |lab| vec![(referrer(lab, &lab.idle), None)]);
    broken("one that is listed under what is not its subject", 1, 1, |lab| {
        let fact = ReferrerFact { subject: lab.layer, digest: lab.image };
        vec![(referrer(lab, &lab.layer), Some(fact.encode()))]
    });
    broken("no way to a tag", 1, 1, |lab| vec![(tag_of(lab, &lab.image, "v1"), None)]);
    broken("a wrong one, and one to no tag", 2, 2, |lab| {
        vec![
            (tag_of(lab, &lab.index, "v1"), Some(Value::new(b"v1"))),
            (tag_of(lab, &lab.image, "none"), Some(Value::new(b"none"))),
        ]
    });
}

#[test]
fn what_nothing_else_says_is_told_and_left() {
    let lab = || Lab::new();
    let left = |mut lab: Lab, facts: Vec<Fact>| -> Vec<String> {
        lab.set(facts);
        let report = lab.store.repair(|_| ControlFlow::Continue(())).unwrap();
        report.left.findings.iter().map(ToString::to_string).collect()
    };
    // A blob that is held and gone.
    let one = lab();
    let (key, _) = one.blob(&one.layer);
    let found = left(one, vec![(key, None)]);
    assert!(found.len() == 1 && found[0].contains("missing blob"), "{found:?}");
    // A link that a manifest holds.
    let one = lab();
    let key = one.of_digest(Family::Link, &one.layer);
    let found = left(one, vec![(key, None)]);
    assert!(found.len() == 1 && found[0].contains("which is missing"), "{found:?}");
    // A repository.
    let one = lab();
    let found = left(one, vec![(Key::repository(DOMAIN, "a/b"), None)]);
    assert!(found.len() == 1 && found[0].contains("unknown repository"), "{found:?}");
}

#[test]
fn a_run_with_a_damaged_guide_is_merged_anew_and_one_with_damaged_facts_is_told() {
    let runs = |disk: &SimVfs| -> Vec<PathBuf> {
        disk.files().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "run")).collect()
    };
    let lab = Lab::new();
    lab.store.checkpoint().unwrap();
    lab.store.close().unwrap();
    let len = lab.disk.read_file(&runs(&lab.disk)[0]).unwrap().len() as u64;
    let (mut guides, mut facts) = (0, 0);
    for page in 0..len / 4096 {
        let disk = lab.disk.restarted();
        disk.flip_bit(&runs(&disk)[0], 8 * (512 + 4096 * page + 100)).unwrap();
        let Ok(mut store) = Options::new().vfs(Arc::new(disk.clone())).open("/store") else {
            continue;
        };
        let report = store.repair(|_| ControlFlow::Continue(())).unwrap();
        if report.merged_runs > 0 {
            guides += 1;
            assert!(report.left.is_sound(), "{:#?}", report.left);
            assert!(store.verify(|_| {}).unwrap().findings.is_empty());
        } else if !report.left.is_sound() {
            facts += 1;
            assert!(report.left.findings.iter().any(|finding| matches!(finding, super::Finding::Facts { .. })));
        }
        let removed = store.exists(&lab.large);
        assert!(matches!(removed, Ok(true) | Err(Error::Corrupt { .. })));
        drop(store);
        drop(disk.list(std::path::Path::new("/store")).unwrap());
    }
    assert!(guides > 0 && facts > 0, "{guides} {facts}");
}

#[test]
fn a_damaged_record_in_the_log_is_told_and_folded_while_it_is_known() {
    let lab = Lab::new();
    lab.store.checks().log.begin_log().unwrap();
    lab.store.put("behind", Algorithm::Sha256).unwrap();
    let logs = lab.store.checks().tables.logs();
    let sealed = logs.iter().find_map(|log| log.sealed.map(|(len, _)| (log.id, len))).unwrap();
    let path = lab.store.checks().files.layout().log(sealed.0);
    let is_log = |finding: &super::Finding| matches!(finding, super::Finding::Log { .. });
    // There may be content, or nothing, at a place.
    let is_told = (0..64).any(|step| {
        let bit = 8 * (sealed.1 / 2 + 64 * step);
        lab.disk.flip_bit(&path, bit).unwrap();
        let is_told = lab.store.verify(|_| {}).unwrap().findings.iter().any(is_log);
        is_told || {
            lab.disk.flip_bit(&path, bit).unwrap();
            false
        }
    });
    assert!(is_told);
    assert!(
        Options::new().vfs(Arc::new(lab.disk.restarted())).open("/store").is_err(),
        "after a crash it does not open"
    );
    let report = lab.store.scrub(&super::ScrubOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert!(report.complete && report.findings.iter().any(is_log), "{report:#?}");
    let store = open(&lab.disk.restarted());
    for digest in [lab.idle, lab.large, lab.layer, lab.image] {
        assert!(store.exists(&digest).unwrap());
    }
    assert!(!store.verify(|_| {}).unwrap().findings.iter().any(is_log));
}

#[test]
fn a_full_disk_keeps_damage_from_being_flagged_and_not_from_being_told() {
    let lab = Lab::new();
    let (_, blob) = lab.blob(&lab.large);
    let path = lab.store.checks().files.layout().segment(blob.place.file);
    lab.disk.flip_bit(&path, 8 * (blob.place.offset + 100)).unwrap();
    lab.disk.set_capacity(Some(lab.disk.used()));
    lab.disk.remove(std::path::Path::new("/store/RESERVE")).unwrap();
    lab.disk.set_capacity(Some(lab.disk.used()));
    // Until the log has no room left.
    while lab.store.put(lab.store.last_lsn().to_string(), Algorithm::Sha256).is_ok() {}
    let report = lab.store.scrub(&super::ScrubOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    assert!(report.complete && report.damaged_blobs == 1, "{report:#?}");
    lab.disk.set_capacity(None);
    assert_eq!(lab.store.scrub(&super::ScrubOptions::new(), |_| ControlFlow::Continue(())).unwrap().damaged_blobs, 1);
    assert!(lab.store.stat(&lab.large).unwrap().damaged);
}
