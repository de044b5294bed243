//! A store that an earlier build wrote opens, holds what it held, and goes on.
//!
//! `tests/golden/store` and `tests/golden/encrypted` were written by `STRONGROOM_BLESS=1 cargo test --test store
//! golden::`, which is to be repeated when the format changes, and only then.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use strongroom::registry::{ExpectDocument, PutManifest, RepositorySettings, StorageClass, TagMutability};
use strongroom::{Algorithm, Compression, Digest, Error, Maintenance, Options, PutNamed, Store};

use crate::common::file_names;
use crate::common::registry::{image, index, name, tag};
use crate::common::{Random, copy, known_key};

/// Whether a store is encrypted, with a key that everybody knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Encrypted,
}

fn golden(kind: Kind) -> PathBuf {
    let name = if kind == Kind::Plain { "store" } else { "encrypted" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn options(kind: Kind) -> Options {
    let options = match kind {
        Kind::Plain => Options::new(),
        Kind::Encrypted => Options::new().key_provider(known_key([0x5a; 32])),
    };
    options.maintenance(Maintenance::Inline).inline_max(4096).log_file_size(16 << 10).compression(Compression::Auto)
}

/// Contents that take every way through the format: one of each algorithm, compressed or not, in the log and in
/// segments, of one block and of several.
fn contents() -> Vec<(Algorithm, Vec<u8>)> {
    vec![
        (Algorithm::Sha256, Vec::new()),
        (Algorithm::Sha512, b"golden".to_vec()),
        (Algorithm::Blake3, b"golden".to_vec()),
        (Algorithm::Sha256, br#"{"layers":["sha256:","sha256:","sha256:"]}"#.repeat(40)),
        (Algorithm::Sha256, Random(1).bytes(4000)),
        (Algorithm::Sha256, Random(2).bytes(5000)),
        (Algorithm::Sha512, Random(3).bytes(70_000)),
    ]
}

const PIECE: &[u8] = b"an upload that goes on";

/// An image under two tags, an index over it, and a referrer of it; some of it folded into a run, some in the log.
fn push(store: &Store) {
    let settings = RepositorySettings::new().mutability(TagMutability::Immutable);
    let settings = settings.exclusions(["dev-*".parse().unwrap()]).unwrap();
    let settings = settings.document("policy", "{}").unwrap();
    let repository = store.create_repository(&name("team/app"), settings).unwrap();
    let config = repository.put("{}", Algorithm::Sha256).unwrap().digest;
    let layer = repository.put("a layer", Algorithm::Sha512).unwrap().digest;
    let (media_type, document) = image(&[config, layer], None);
    let put = PutManifest::new(media_type).tag(tag("v1")).tag(tag("dev-1"));
    let digest = repository.put_manifest(document, put).unwrap().digest;
    repository.pull_manifest(&digest.into()).unwrap();
    store.checkpoint().unwrap();
    repository.set_document("resource tags", "[]", ExpectDocument::Absent).unwrap();
    let (media_type, document) = index(&[digest], None);
    repository.put_manifest(document, PutManifest::new(media_type).tag(tag("all"))).unwrap();
    let (media_type, document) = image(&[config], Some(&digest));
    let referrer = repository.put_manifest(document, PutManifest::new(media_type)).unwrap().digest;
    repository.set_storage_class(&referrer, StorageClass::Archive).unwrap();
}

/// What [`push`] pushed is there.
fn pull(store: &Store) {
    let repository = store.repository(&name("team/app")).unwrap();
    let settings = repository.info().unwrap().settings;
    assert!(settings.is_immutable(&tag("v1")) && !settings.is_immutable(&tag("dev-1")));
    assert_eq!(repository.tags(None, 9).unwrap().items, [tag("all"), tag("dev-1"), tag("v1")]);
    let manifest = repository.get_manifest(&tag("v1").into()).unwrap();
    assert_eq!(Digest::of(Algorithm::Sha256, &manifest.content), manifest.digest);
    let info = repository.manifest_info(&manifest.digest.into()).unwrap();
    assert!(info.references == 1 && info.pulled_ms.is_some());
    assert_eq!(repository.referrers(&manifest.digest, None, None, 9).unwrap().items.len(), 1);
    assert_eq!(repository.blobs(None, 9).unwrap().items.iter().map(|blob| blob.references).sum::<u32>(), 3);
    let manifests = repository.manifests(None, 9).unwrap().items;
    let archived = manifests.iter().filter(|info| info.storage_class == StorageClass::Archive);
    assert_eq!((manifests.len(), archived.count()), (3, 1));
    let documents = repository.documents().unwrap();
    assert_eq!(
        documents.iter().map(|one| (&*one.name, &*one.content)).collect::<Vec<_>>(),
        [("policy", &b"{}"[..]), ("resource tags", b"[]")]
    );
}

fn write(dir: &Path, kind: Kind) {
    let store = options(kind).create(true).open(dir).unwrap();
    push(&store);
    if kind == Kind::Encrypted {
        store.create_domain(&"tenant".parse().unwrap(), None).unwrap();
        let settings = RepositorySettings::new().domain("tenant".parse().unwrap());
        let repository = store.create_repository(&name("tenant/app"), settings).unwrap();
        repository.put("the tenant's", Algorithm::Sha256).unwrap();
        store.rotate_data_key(None).unwrap();
    }
    let digests: Vec<Digest> =
        contents().iter().map(|(algorithm, content)| store.put(content, *algorithm).unwrap().digest).collect();
    store.named().set("all", &digests[0], PutNamed::new().references(&digests[1..])).unwrap();
    let removed = store.put("removed", Algorithm::Sha256).unwrap().digest;
    store.checkpoint().unwrap();
    store.remove(&removed).unwrap();
    let upload = store.begin_upload(Algorithm::Sha256).unwrap();
    store.append_upload(upload, 0, PIECE).unwrap();
    let later = store.put(Random(4).bytes(3000), Algorithm::Blake3).unwrap().digest;
    store.named().set("later", &later, PutNamed::new()).unwrap();
    store.close().unwrap();
    fs::remove_dir_all(dir.join("names")).unwrap();
    fs::remove_file(dir.join("RESERVE")).unwrap();
}

#[test]
fn a_store_of_an_earlier_build_holds_what_it_held_and_goes_on() {
    opens(Kind::Plain);
}

#[test]
fn so_does_an_encrypted_one() {
    if cfg!(feature = "encryption") {
        return opens(Kind::Encrypted);
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&golden(Kind::Encrypted), dir.path());
    let refused = options(Kind::Plain).open(dir.path());
    assert!(matches!(refused, Err(Error::EncryptionLeftOut)), "{refused:?}");
}

fn opens(kind: Kind) {
    if std::env::var_os("STRONGROOM_BLESS").is_some() {
        let _ = fs::remove_dir_all(golden(kind));
        write(&golden(kind), kind);
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&golden(kind), dir.path());
    let store = options(kind).open(dir.path()).unwrap();
    let mut digests = Vec::new();
    for (algorithm, content) in contents() {
        let digest = Digest::of(algorithm, &content);
        assert_eq!(store.get(&digest).unwrap().bytes().unwrap(), content);
        assert_eq!(store.stat(&digest).unwrap().references, 1);
        digests.push(digest);
    }
    let (later, of_the_repository) = (1, 5);
    assert_eq!(store.blobs().count(), digests.len() + later + of_the_repository);
    pull(&store);
    let pin = store.named().stat("all").unwrap();
    assert_eq!((pin.digest, &pin.references[..]), (digests[0], &digests[1..]));
    assert_eq!(file_names(&store).unwrap(), ["all", "later"]);
    assert!(store.verify(|_| {}).unwrap().findings.is_empty());
    goes_on(&store);
    if kind == Kind::Encrypted {
        let keys: Vec<_> = store.domains().iter().map(|domain| (domain.number, domain.current_key)).collect();
        assert_eq!(keys, [(0, 2), (1, 1)]);
        let tenant = store.repository(&name("tenant/app")).unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"the tenant's");
        assert_eq!(tenant.get(&digest).unwrap().bytes().unwrap(), "the tenant's");
        assert!(store.rewrite(|_| ControlFlow::Continue(())).unwrap().complete);
    }
    store.close().unwrap();
    assert!(options(kind).open(dir.path()).unwrap().verify(|_| {}).unwrap().findings.is_empty());
}

/// The upload is taken up where it was left, the state of its hash included.
fn goes_on(store: &Store) {
    let upload = store.uploads(None, 1000).unwrap().items[0].id;
    store.append_upload(upload, PIECE.len() as u64, ", after years").unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"an upload that goes on, after years");
    store.commit_upload(upload, digest).unwrap();
    assert_eq!(store.get(&digest).unwrap().bytes().unwrap(), "an upload that goes on, after years");
}
