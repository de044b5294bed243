//! Manifests and names for tests of repositories.

use std::time::Duration;

use strongroom::registry::{
    Pushed, PutManifest, Reference, Referrer, Repository, RepositoryName, RepositorySettings, Tag,
};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, Digest, Error, Options, Result, Store};

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn name(name: &str) -> RepositoryName {
    name.parse().expect("a repository's name")
}

pub fn tag(tag: &str) -> Tag {
    tag.parse().expect("a tag")
}

/// Options under which a short history makes many log files, folds and merges.
pub fn options(disk: &SimVfs, clock: &Clock) -> Options {
    super::options(disk, clock)
}

/// A descriptor, as a manifest has them, without a size.
pub fn descriptor(media_type: &str, digest: &Digest) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}"}}"#)
}

fn subject(subject: Option<&Digest>) -> String {
    subject.map_or_else(String::new, |digest| format!(r#","subject":{}"#, descriptor(IMAGE, digest)))
}

/// An image: its media type and the document. The first blob is its config, the others are layers.
pub fn image(blobs: &[Digest], of: Option<&Digest>) -> (&'static str, String) {
    let (config, layers) = blobs.split_first().expect("a config");
    let layers: Vec<_> =
        layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer)).collect();
    let config = descriptor("application/vnd.oci.image.config.v1+json", config);
    let (layers, subject) = (layers.join(","), subject(of));
    (IMAGE, format!(r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{config},"layers":[{layers}]{subject}}}"#))
}

/// An index: its media type and the document.
pub fn index(manifests: &[Digest], of: Option<&Digest>) -> (&'static str, String) {
    let manifests: Vec<_> = manifests.iter().map(|manifest| descriptor(IMAGE, manifest)).collect();
    let (manifests, subject) = (manifests.join(","), subject(of));
    (INDEX, format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{manifests}]{subject}}}"#))
}

/// For how many seconds of open time blobs stay that no manifest references. That somebody relies on one is noted at
/// most every 100.
pub const RETENTION: u64 = 800;

/// A disk and a clock, on which stores are opened.
pub struct Lab {
    pub disk: SimVfs,
    pub clock: Clock,
}

impl Lab {
    pub fn new() -> Self {
        Self { disk: SimVfs::new(), clock: Clock::manual() }
    }

    pub fn options(&self) -> Options {
        options(&self.disk, &self.clock).retention(Duration::from_secs(RETENTION)).history(1 << 40)
    }

    pub fn open(&self) -> Store {
        self.options().open("/store").expect("a store")
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

pub fn create(store: &Store, repository: &str) -> Repository {
    store.create_repository(&name(repository), RepositorySettings::new()).expect("a new repository")
}

pub fn blob(repository: &Repository, content: &str) -> Digest {
    repository.put(content, Algorithm::Sha256).expect("a blob").digest
}

pub fn try_push(repository: &Repository, (media_type, document): (&str, String), tags: &[&str]) -> Result<Pushed> {
    let put = tags.iter().fold(PutManifest::new(media_type), |put, name| put.tag(tag(name)));
    repository.put_manifest(document, put)
}

pub fn push(repository: &Repository, document: (&str, String), tags: &[&str]) -> Digest {
    try_push(repository, document, tags).expect("a push").digest
}

/// An image that has nothing in common with others.
pub fn push_image(repository: &Repository, content: &str, tags: &[&str]) -> Digest {
    push(repository, image(&[blob(repository, content)], None), tags)
}

/// A document of no known type that references nothing.
pub fn push_document(repository: &Repository, content: &str, tags: &[&str]) -> Digest {
    let put = PutManifest::new("text/plain").references([], []);
    let put = tags.iter().fold(put, |put, name| put.tag(tag(name)));
    repository.put_manifest(content, put).expect("a push").digest
}

pub fn at(text: &str) -> Reference {
    text.parse().expect("a tag or a digest")
}

/// What a refused manifest lacks: blobs and manifests.
pub fn missing<T: std::fmt::Debug>(refused: Result<T>) -> (Vec<Digest>, Vec<Digest>) {
    match refused {
        Err(Error::ReferencesMissing { mut blobs, mut manifests }) => {
            blobs.sort_unstable();
            manifests.sort_unstable();
            (blobs, manifests)
        }
        other => panic!("{other:?}"),
    }
}

/// The pages of a subject's referrers, those of a type if one is given.
pub fn referrer_pages(
    repository: &Repository,
    subject: &Digest,
    artifact_type: Option<&str>,
    limit: usize,
) -> Vec<Vec<Referrer>> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = repository.referrers(subject, artifact_type, after.as_ref(), limit).expect("a page of referrers");
        assert!(page.items.len() <= limit);
        assert!(page.next.is_none() || page.next != after, "each page goes on");
        pages.push(page.items);
        after = page.next;
        if after.is_none() {
            return pages;
        }
    }
}

pub fn assert_sound(store: &Store) {
    let report = store.verify(|_| {}).expect("verification");
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

pub fn is_gone<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::BlobNotFound { .. }))
}

pub fn is_unknown<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::ManifestNotFound { .. }))
}
