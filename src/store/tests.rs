//! A store with two key domains keeps their facts and content apart, also in a log file with frames of both.

mod merges;

use std::sync::Arc;
use std::time::Duration;

use crate::blobs::{Claimed, Destination, PutNamed};
use crate::clock::Clock;
use crate::digest::{Algorithm, Digest};
use crate::error::{Damage, Error, Result};
use crate::facts::{Family, Key, Lookup, Value};
use crate::id::{DomainId, FileId};
use crate::keys::InPlain;
use crate::log::Durability;
use crate::registry::{PutManifest, Reference, Repository, RepositoryDeletion, RepositoryName, RepositorySettings};
use crate::segment::DESCRIPTOR_LEN;
use crate::store::{Maintenance, Options, Store};
use crate::transaction::{Apply, Changes, ExpectNamed, Op, Request};
use crate::vfs::{Fault, OpenMode, SimVfs, Vfs as _};

const ONE: DomainId = DomainId::DEFAULT;
const OTHER: DomainId = DomainId(1);

/// A domain as a place for blobs, without a repository.
struct In<'a>(&'a Store, DomainId);

impl Destination for In<'_> {
    fn domain(&self) -> DomainId {
        self.1
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }

    fn claim_many(&self, digests: &[Digest]) -> Result<Vec<Result<Claimed>>> {
        let snapshot = self.0.open.inner.tables.snapshot_of(self.1);
        let claim = |digest: &Digest| {
            let blob = snapshot.blob(digest)?.ok_or(Error::BlobNotFound { digest: *digest })?;
            Ok(Claimed { blob, link: None, lsn: snapshot.lsn })
        };
        Ok(digests.iter().map(claim).collect())
    }
}

fn open(disk: &SimVfs) -> Store {
    let options = Options::new().create(true).vfs(Arc::new(disk.clone())).clock(Clock::manual());
    let options = options.maintenance(Maintenance::Inline).history(0).log_file_size(64 << 10);
    let store = options.key_provider(Arc::new(InPlain)).open("/store").unwrap();
    match store.create_domain(&"other".parse().unwrap(), None) {
        Ok(()) | Err(Error::DomainExists { .. }) => store,
        Err(error) => panic!("{error}"),
    }
}

/// Settings of a repository in a domain.
fn within(domain: DomainId) -> RepositorySettings {
    let settings = RepositorySettings::new();
    if domain == ONE { settings } else { settings.domain("other".parse().unwrap()) }
}

fn put(store: &Store, domain: DomainId, content: &str) -> Digest {
    match domain {
        OTHER => {
            store.open.inner.blobs.put(content.as_bytes(), Algorithm::Sha256.into(), &In(store, OTHER)).unwrap().digest
        }
        _ => store.put(content, Algorithm::Sha256).unwrap().digest,
    }
}

fn remove(store: &Store, domain: DomainId, digest: Digest) -> Vec<FileId> {
    store.open.inner.log.commit(domain, Request::Remove(digest)).unwrap().dropped
}

fn has_log(disk: &SimVfs, store: &Store, id: FileId) -> bool {
    disk.files().contains(&store.open.inner.files.layout().log(id))
}

/// The log file that is written now.
fn active_log(store: &Store) -> FileId {
    store.open.inner.log.active_log().unwrap()
}

/// Begins a new log file, and makes runs of what is in the one before, which the list names no more.
fn let_log_go(store: &Store) {
    store.open.inner.log.rotate_now();
    store.checkpoint().unwrap();
}

fn assert_sound(store: &Store) {
    let findings = store.verify(|_| {}).unwrap().findings;
    assert!(findings.is_empty(), "{findings:?}");
}

/// The domains of the runs, as the list and the view have them, by the files in which they lie.
fn run_domains(store: &Store) -> Vec<Vec<u32>> {
    let runs = store.open.inner.tables.list().runs;
    let mut listed: Vec<_> = runs.iter().map(|run| (run.id, run.domain)).collect();
    listed.sort_by_key(|(_, domain)| *domain);
    assert_eq!(store.open.inner.tables.open_run_domains(), listed, "those of a domain in the list's order");
    let by_file = runs.chunk_by(|one, next| one.id.file == next.id.file);
    by_file.map(|runs| runs.iter().map(|run| run.domain.0).collect()).collect()
}

#[test]
fn a_table_with_facts_of_two_domains_becomes_two_runs_in_a_file() {
    let store = open(&SimVfs::new());
    let (one, other) = (put(&store, ONE, "one's"), put(&store, OTHER, "the other's"));
    let shared = put(&store, ONE, "both have it");
    assert_eq!(put(&store, OTHER, "both have it"), shared);
    store.checkpoint().unwrap();
    assert_eq!(run_domains(&store), [[0, 1]]);
    assert_eq!(store.open.inner.tables.list().folded, store.last_lsn());
    let has = |domain, digest| store.open.inner.blobs.get(domain, digest).is_ok_and(|blob| blob.verify().is_ok());
    let check = || {
        assert!(has(ONE, &one) && has(ONE, &shared) && has(OTHER, &other) && has(OTHER, &shared));
        assert!(!has(OTHER, &one) && !has(ONE, &other));
        assert_eq!(store.blobs().count(), 2);
        assert_eq!(store.usage().unwrap().blobs, 4, "content of two domains is stored twice");
        assert_sound(&store);
    };
    check();
    for n in 0..9 {
        put(&store, OTHER, &n.to_string());
        store.checkpoint().unwrap();
        if n == 3 {
            remove(&store, ONE, put(&store, ONE, "goes again"));
        }
    }
    assert_eq!(
        run_domains(&store),
        [vec![1], vec![1], vec![1, 0], vec![1, 0]],
        "ten files, of which twice four were merged"
    );
    store.merge_runs().unwrap();
    assert_eq!(run_domains(&store), [[1, 0]]);
    remove(&store, OTHER, put(&store, OTHER, "9"));
    (0..9).for_each(|n| drop(remove(&store, OTHER, Digest::of(Algorithm::Sha256, n.to_string().as_bytes()))));
    store.checkpoint().unwrap();
    assert_eq!(store.usage().unwrap().blobs, 4);
    assert_sound(&store);
}

#[test]
fn a_fold_that_fails_leaves_no_run_of_any_domain_and_is_done_again() {
    for step in 1.. {
        let disk = SimVfs::new();
        let store = open(&disk);
        let digests = [ONE, OTHER].map(|domain| put(&store, domain, "content"));
        let before = disk.operations();
        disk.fault_at(before + step, Fault::Full);
        let folded = store.checkpoint();
        let done = disk.operations() < before + step;
        let runs = disk.files().into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "run"));
        assert_eq!(runs.count(), run_domains(&store).len(), "files, step {step}: {folded:?}");
        disk.free_space();
        store.checkpoint().unwrap();
        assert_eq!(run_domains(&store), [[0, 1]], "step {step}");
        [ONE, OTHER]
            .into_iter()
            .zip(digests)
            .for_each(|(domain, digest)| drop(store.open.inner.blobs.get(domain, &digest).unwrap()));
        if done {
            break;
        }
    }
}

#[test]
fn a_log_file_goes_with_the_last_frame_of_any_domain() {
    for first in [ONE, OTHER] {
        let disk = SimVfs::new();
        let store = open(&disk);
        let last = if first == ONE { OTHER } else { ONE };
        let digests = [first, last].map(|domain| put(&store, domain, "content"));
        let log = active_log(&store);
        assert_eq!(store.open.inner.tables.snapshot().segments(log).unwrap().len(), 2);
        assert_eq!(store.usage().unwrap().segments, 1, "one file, whoever counts");
        let_log_go(&store);
        assert_eq!(remove(&store, first, digests[0]), [], "the other domain has a frame in it");
        let_log_go(&store);
        assert!(has_log(&disk, &store, log));
        assert_eq!(store.open.inner.blobs.get(last, &digests[1]).unwrap().bytes().unwrap(), "content");
        assert_sound(&store);
        assert_eq!(remove(&store, last, digests[1]), [log]);
        assert!(!has_log(&disk, &store, log));
        let_log_go(&store);
        assert_sound(&store);
    }
}

#[test]
fn a_log_file_that_a_domain_emptied_while_it_was_written_goes_with_the_other_s_last_frame() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let digests = [ONE, OTHER].map(|domain| put(&store, domain, "content"));
    let log = active_log(&store);
    assert_eq!(remove(&store, ONE, digests[0]), [], "it is needed");
    let_log_go(&store);
    let segments = store.open.inner.tables.snapshot().segments(log).unwrap();
    assert_eq!(segments.iter().map(|(domain, _)| *domain).collect::<Vec<_>>(), [OTHER]);
    assert!(has_log(&disk, &store, log));
    assert_eq!(remove(&store, OTHER, digests[1]), [log]);
    assert!(!has_log(&disk, &store, log));
}

#[test]
fn a_log_file_that_all_domains_emptied_while_it_was_written_goes_when_it_is_let_go_of() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let digests = [ONE, OTHER].map(|domain| put(&store, domain, "content"));
    let log = active_log(&store);
    [ONE, OTHER].into_iter().zip(digests).for_each(|(domain, digest)| drop(remove(&store, domain, digest)));
    assert!(has_log(&disk, &store, log));
    let_log_go(&store);
    assert!(!has_log(&disk, &store, log));
    assert_eq!(store.open.inner.tables.snapshot().segments(log).unwrap(), []);
}

#[test]
fn the_tail_of_the_log_comes_back_in_its_domains() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let digests = [ONE, OTHER].map(|domain| put(&store, domain, "content"));
    let after = disk.restarted();
    let store = open(&after);
    let log = active_log(&store);
    for (domain, digest) in [ONE, OTHER].into_iter().zip(digests) {
        assert_eq!(store.open.inner.blobs.get(domain, &digest).unwrap().bytes().unwrap(), "content");
    }
    assert_eq!(
        store.open.inner.tables.snapshot().segments(log).unwrap().len(),
        1,
        "of two records one was known durable"
    );
    assert_sound(&store);
}

fn name(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

fn manifest(layer: &Digest) -> (PutManifest, String) {
    (PutManifest::new("a/b").references(vec![*layer], vec![]).tag("v1".parse().unwrap()), format!("holds {layer}"))
}

#[test]
fn a_repository_lives_in_its_domain_and_is_found_there() {
    let store = open(&SimVfs::new());
    let one = store.create_repository(&name("one"), RepositorySettings::new()).unwrap();
    let other = store.create_repository(&name("other"), within(OTHER)).unwrap();
    for taken in ["one", "other"] {
        for domain in [ONE, OTHER] {
            let again = store.create_repository(&name(taken), within(domain));
            assert!(matches!(again, Err(Error::RepositoryExists { .. })), "{taken} in {domain:?}");
        }
    }
    let found: Repository = store.repository(&name("other")).unwrap();
    assert_eq!((found.domain(), found.named()), (OTHER, other.named()));
    assert_eq!(store.repositories(None, 9).unwrap().items, [name("one"), name("other")]);
    assert_eq!(store.repositories(Some("one"), 9).unwrap().items, [name("other")]);
    assert_eq!(store.repositories(None, 1).unwrap().items, [name("one")]);

    let layer = one.put("a layer", Algorithm::Sha256).unwrap().digest;
    assert!(matches!(found.get(&layer), Err(Error::BlobNotFound { .. })));
    found.mount(&layer, one.name(), |_| true).unwrap();
    assert_eq!(found.get(&layer).unwrap().bytes().unwrap(), "a layer");
    let missing = Digest::of(Algorithm::Sha256, b"missing");
    assert!(matches!(found.mount(&missing, one.name(), |_| true), Err(Error::BlobNotFound { .. })));
    for repository in [&one, &found] {
        let (put, document) = manifest(&layer);
        let digest = repository.put_manifest(&document, put).unwrap().digest;
        assert_eq!(repository.tags(None, 9).unwrap().items, ["v1".parse().unwrap()]);
        assert_eq!(repository.tags_of(&digest).unwrap().len(), 1);
        repository.pull_manifest(&"v1".parse().unwrap()).unwrap();
        let upload = repository.begin_upload(Algorithm::Sha256).unwrap();
        repository.append_upload(upload, 0, "an upload").unwrap();
        repository.commit_upload(upload, Digest::of(Algorithm::Sha256, b"an upload")).unwrap();
        repository.begin_upload(Algorithm::Sha256).unwrap();
        assert_eq!(repository.uploads(None, 1000).unwrap().items.len(), 1);
    }
    assert_eq!(store.usage().unwrap().blobs, 6, "each domain has its own");
    store.open.inner.registry.write_pulls().unwrap();
    let info = found.manifest_info(&Reference::Tag("v1".parse().unwrap())).unwrap();
    assert!(info.pulled_ms.is_some());
    assert_sound(&store);
    store.checkpoint().unwrap();
    assert_sound(&store);

    assert_eq!(store.expire_uploads(Duration::ZERO).unwrap(), 2);
    store.delete_repository(&name("other"), RepositoryDeletion::WithContents).unwrap();
    assert!(matches!(found.get(&layer), Err(Error::RepositoryNotFound { .. })));
    assert_eq!(one.get(&layer).unwrap().bytes().unwrap(), "a layer");
    assert_eq!(store.repositories(None, 9).unwrap().items, [name("one")]);
    store.create_repository(&name("other"), RepositorySettings::new()).unwrap();
    assert_eq!(store.repository(&name("other")).unwrap().domain(), ONE);
    assert_sound(&store);
}

/// A fact that no writer writes.
#[derive(Debug)]
struct Unknown(Key);

impl Apply for Unknown {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        facts.set(self.0, Some(Value::new(b"of another format")));
        Ok(Vec::new())
    }
}

#[test]
fn a_value_that_can_not_be_decoded_is_told_with_its_place_in_a_run() {
    let store = open(&SimVfs::new());
    let key = Key::named(ONE, "a file");
    store.open.inner.log.commit(ONE, Request::Apply(Box::new(Unknown(key)))).unwrap();
    store.checkpoint().unwrap();
    let runs: Vec<_> = store.open.inner.tables.list().runs.iter().map(|run| run.id).collect();
    let [run] = runs[..] else { panic!("one run: {runs:?}") };
    let path = store.open.inner.files.layout().run(run.file);
    let is_placed = |error: Error| matches!(error, Error::Corrupt { file, offset, .. } if file == path && offset > 0);
    let (snapshot, files) = (store.open.inner.tables.snapshot(), store.named());
    assert!(is_placed(snapshot.blob_by_key(&key).unwrap_err()));
    assert!(is_placed(snapshot.named_files().unwrap().next().unwrap().unwrap_err()));
    assert!(is_placed(files.get("a file").unwrap_err()));
    let digest = put(&store, ONE, "content");
    assert!(is_placed(files.set("a file", &digest, PutNamed::new()).unwrap_err()), "a decision reads it too");
    assert!(is_placed(files.remove("a file", ExpectNamed::Any).unwrap_err()));
}

#[test]
fn what_two_blobs_have_in_a_log_file_can_not_be_exchanged() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let digests = ["one of two", "the other!"].map(|content| put(&store, ONE, content));
    let places = digests.map(|digest| store.open.inner.tables.snapshot().blob(&digest).unwrap().unwrap().place);
    let file = disk.open(&store.open.inner.files.layout().log(places[0].file), OpenMode::Write).unwrap();
    // Content and all that it takes to decrypt it, each to where the other was.
    let len = (places[0].frame_len() - DESCRIPTOR_LEN) as usize;
    let mut parts = [vec![0; len], vec![0; len]];
    parts.iter_mut().zip(places).for_each(|(part, place)| file.read_exact_at(part, place.offset).unwrap());
    parts.iter().zip(places.iter().rev()).for_each(|(part, place)| file.write_all_at(part, place.offset).unwrap());
    for digest in digests {
        let read = store.get(&digest).unwrap().bytes();
        assert!(matches!(read, Err(Error::Corrupt { damage: Damage::Seal, .. })), "{read:?}");
    }
}

#[test]
fn what_is_stored_and_held_in_one_commit_is_not_listed_and_taken_off_the_list() {
    let store = open(&SimVfs::new());
    let ours = store.create_repository(&"our/repo".parse().unwrap(), RepositorySettings::new()).unwrap();
    ours.put("pushed", Algorithm::Sha256).unwrap();
    store.put("stored", Algorithm::Sha256).unwrap();
    let facts = store.open.inner.tables.unfolded(Family::Idle);
    let listed: Vec<bool> = facts.iter().map(|(_, value)| value.is_some()).collect();
    assert_eq!(listed, [true, true], "the link, and the blob that nothing holds");
}

#[test]
fn a_snapshot_knows_of_a_pull_that_was_noted_before_it_and_is_stored_since() {
    let store = open(&SimVfs::new());
    let repository = store.create_repository(&"team/app".parse().unwrap(), RepositorySettings::new()).unwrap();
    let digest = repository.put_manifest("document", PutManifest::new("text/plain").references([], [])).unwrap().digest;
    let reference = Reference::Digest(digest);
    let before = repository.snapshot().unwrap();
    repository.pull_manifest(&reference).unwrap();
    let moment = repository.snapshot().unwrap();
    let pulled = |moment: &crate::registry::RepositorySnapshot| {
        let [Some(image)] = &moment.image_many(std::slice::from_ref(&reference)).unwrap()[..] else { panic!("there") };
        assert_eq!(moment.manifest_info(&reference).unwrap().pulled_ms, image.pulled_ms);
        image.pulled_ms
    };
    assert_eq!(pulled(&moment), Some(0));
    store.open.inner.registry.write_pulls().unwrap();
    assert_eq!((pulled(&moment), pulled(&before)), (Some(0), Some(0)));
    repository.delete_manifest(&digest).unwrap();
    assert_eq!(pulled(&moment), None, "it was stored after that moment, and is gone with the manifest");
}
