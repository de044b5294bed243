//! A store in which content lies in every kind of file, and ways to damage it.

use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::common::registry::{image, index, name, push, tag};
use crate::common::{Random, options};
use strongroom::registry::{Repository, RepositorySettings, Tag};
use strongroom::vfs::{SimVfs, Vfs as _};
use strongroom::{
    Algorithm, Clock, CollectOptions, Compression, Damage, Digest, Error, PutNamed, Scrub, ScrubOptions, Store,
};

/// A blob, and where it lies.
#[derive(Clone)]
pub struct Content {
    pub digest: Digest,
    pub bytes: Vec<u8>,
}

/// What is in the store.
pub struct Known {
    /// In the log.
    pub small: Content,
    /// In a segment of its own.
    pub large: Content,
    /// In a segment that compaction made of a log file.
    pub packed: Content,
    /// The manifest that holds the three, and the index that holds it, tagged `v1` and `all`.
    pub image: Content,
    pub index: Digest,
}

pub fn open(disk: &SimVfs) -> Store {
    options(disk, &Clock::manual()).compression(Compression::Off).open("/store").unwrap()
}

pub fn app(store: &Store) -> Repository {
    store.repository(&name("team/app")).unwrap()
}

fn random(random: &mut Random, len: usize) -> Content {
    let bytes = random.bytes(len);
    Content { digest: Digest::of(Algorithm::Sha256, &bytes), bytes }
}

/// Builds the store, and closes it.
pub fn build(disk: &SimVfs) -> Known {
    let mut draws = Random(11);
    let [small, large, packed] = [1500, 170_000, 1200].map(|len| random(&mut draws, len));
    let store = open(disk);
    let app = store.create_repository(&name("team/app"), RepositorySettings::new()).unwrap();
    let other = store.create_repository(&name("team/other"), RepositorySettings::new()).unwrap();
    app.put(&packed.bytes, packed.digest).unwrap();
    for _ in 0..20 {
        let dead = store.put(draws.bytes(1000), Algorithm::Sha256).unwrap().digest;
        store.remove(&dead).unwrap();
    }
    let moved = store.collect(&CollectOptions::new().max_dead(0), |_| ControlFlow::Continue(())).unwrap().moved;
    assert!(moved > 0, "something was compacted");
    app.put(&small.bytes, small.digest).unwrap();
    app.put(&large.bytes, large.digest).unwrap();
    other.mount(&large.digest, app.name(), |_| true).unwrap();
    let (kind, document) = image(&[small.digest, large.digest, packed.digest], None);
    let digest = push(&app, (kind, document.clone()), &["v1"]);
    let over = push(&app, index(&[digest], None), &["all"]);
    store.named().set("kept", &small.digest, PutNamed::new().references([large.digest])).unwrap();
    store.close().unwrap();
    Known { small, large, packed, image: Content { digest, bytes: document.into_bytes() }, index: over }
}

/// The file that content lies in as it is, and where.
pub fn find(disk: &SimVfs, content: &Content) -> (PathBuf, u64) {
    let is_content = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "log" || ext == "seg");
    let found = disk.files().into_iter().filter(is_content).find_map(|path| {
        let bytes = disk.read_file(&path).unwrap();
        let head = &content.bytes[..64];
        let at = bytes.windows(64).position(|window| window == head)?;
        Some((path, at as u64))
    });
    found.expect("content in plain")
}

/// Flips a bit in the middle of content.
pub fn flip(disk: &SimVfs, content: &Content) {
    let (path, at) = find(disk, content);
    disk.flip_bit(path, 8 * (at + content.bytes.len() as u64 / 2)).unwrap();
}

/// Loses the file that content lies in.
pub fn lose(disk: &SimVfs, content: &Content) {
    let (path, _) = find(disk, content);
    disk.remove(&path).unwrap();
    disk.open_dir(path.parent().unwrap()).unwrap().sync().unwrap();
}

/// The segment that is longer than so many bytes.
pub fn segment(disk: &SimVfs, len: usize) -> PathBuf {
    let is_long = |path: &PathBuf| disk.read_file(path).unwrap().len() > len;
    disk.files().into_iter().find(|path| path.starts_with("/store/segments") && is_long(path)).unwrap()
}

pub fn scrub(store: &Store) -> Scrub {
    store.scrub(&ScrubOptions::new(), |_| ControlFlow::Continue(())).unwrap()
}

pub fn assert_sound(store: &Store) {
    let report = scrub(store);
    assert!(report.complete && report.is_sound() && report.all_listed, "{report:#?}");
    assert_eq!(report.read_bytes, report.total_bytes);
    let report = store.verify(|_| {}).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

/// Whether it is damage that is met, and not something else.
pub fn is_damage<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Corrupt { .. }))
}

/// Whether it is damage that was known before.
pub fn is_known<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Corrupt { damage: Damage::Known, .. }))
}

pub fn read(store: &Store, digest: &Digest) -> Result<Vec<u8>, Error> {
    Ok(store.get(digest)?.bytes()?.to_vec())
}

pub fn tags(names: &[&str]) -> Vec<Tag> {
    names.iter().map(|name| tag(name)).collect()
}
