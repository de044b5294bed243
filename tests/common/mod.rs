//! A plain model of a store, histories of operations, and the comparison of the two.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses its part")]

pub mod acknowledged;
pub mod calls;
pub mod events;
pub mod files;
pub mod linear;
pub mod pair;
pub mod registry;
pub mod repositories;
pub mod tour;
pub mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strongroom::keys::KeyProvider;
use strongroom::registry::RepositoryDeletion;
use strongroom::vfs::{OpenMode, SimVfs, Vfs as _};
use strongroom::{Algorithm, Clock, Digest, Maintenance, Options, ReadMode, Store, UploadId, UploadStatus};

use calls::{Call, KINDS, Kind, observe_repository, repositories};
pub use files::{FileStep, ModelFile, file_names};
pub use pair::{Leeway, Pair};
use repositories::{Action, Outcome, Push, Repository, apply};

/// Random numbers from a seed (SplitMix64).
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(len).collect()
    }
}

/// The seed of a test: from `STRONGROOM_SEED`, or the one given. Printed, so that a failure can be repeated.
pub fn seed(default: u64) -> u64 {
    let seed = std::env::var("STRONGROOM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default);
    println!("seed {seed}: repeat with STRONGROOM_SEED={seed}");
    seed
}

/// Tells something that is to be seen also where the test passes.
pub fn tell(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}"); // not captured, other than what `println` prints
}

/// How many files in a folder this process holds open.
#[cfg(target_os = "linux")]
pub fn open_files(dir: &Path) -> usize {
    let is_ours = |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(dir));
    fs::read_dir("/proc/self/fd").expect("the process's files").flatten().filter(is_ours).count()
}

/// Copies a folder and what is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("a copy");
        }
    }
}

/// One operation of a history. Numbers choose among what there is.
#[derive(Clone, Debug)]
pub enum Step {
    Put {
        content: Vec<u8>,
        algorithm: Algorithm,
    },
    Remove(u64),
    /// Something is done to a named file.
    File(FileStep),
    /// Begins an upload, in a repository or in none.
    Begin {
        algorithm: Algorithm,
        repository: Option<u64>,
    },
    Append {
        upload: u64,
        content: Vec<u8>,
    },
    /// Commits an upload, with a last piece where all of it then rides in the log.
    Commit {
        upload: u64,
        last: Vec<u8>,
        algorithm: Algorithm,
    },
    Cancel(u64),
    Expire,
    Checkpoint,
    Reopen,
    /// A call on a repository.
    Call {
        kind: Kind,
        repository: u64,
        pick: u64,
    },
    /// Time passes: so many milliseconds.
    Wait(u64),
    ExpireBlobs,
    /// Relies on blobs outside of any repository.
    Claim(Vec<u64>),
    /// Stores several contents in one call.
    PutMany {
        contents: Vec<Vec<u8>>,
        algorithm: Algorithm,
    },
    /// Collects, and leaves so many percent of the bytes dead.
    Collect(u8),
}

/// A history of `count` operations drawn from a seed. What it begins with gives the others something to be about.
pub fn history(random: &mut Random, count: usize) -> Vec<Step> {
    use Kind::{Create, Image, Index, Mount, Put};
    let first = [(Create, 0), (Put, 0), (Put, 0), (Image, 0), (Create, 1), (Mount, 1), (Image, 0), (Index, 0)];
    let call = |(kind, repository)| Step::Call { kind, repository, pick: random.next() };
    let mut steps: Vec<_> = first.map(call).into_iter().collect();
    steps.extend(std::iter::repeat_with(|| step(random)).take(count.saturating_sub(steps.len())));
    steps
}

pub fn step(random: &mut Random) -> Step {
    let algorithm = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3][random.below(3) as usize];
    match random.below(64) {
        0..=4 => Step::Put { content: content(random), algorithm },
        5 => Step::PutMany { contents: (0..2 + random.below(3)).map(|_| content(random)).collect(), algorithm },
        6..=7 => Step::Remove(random.next()),
        8..=12 => Step::File(files::step(random, algorithm)),
        13..=14 => Step::Begin { algorithm, repository: (random.below(3) > 0).then(|| random.below(2)) },
        15..=18 => Step::Append { upload: random.next(), content: content(random) },
        19..=20 => Step::Commit { upload: random.next(), last: content(random), algorithm },
        21 => Step::Cancel(random.next()),
        22 => Step::Expire,
        23..=24 => Step::Checkpoint,
        25..=26 => Step::Reopen,
        27..=28 => Step::Wait([20_000, 60_000, 120_000][random.below(3) as usize]),
        29 => Step::ExpireBlobs,
        30 => Step::Claim((0..1 + random.below(3)).map(|_| random.next()).collect()),
        31..=33 => Step::Collect([0, 0, 20][random.below(3) as usize]),
        _ => {
            let kind = KINDS[random.below(KINDS.len() as u64) as usize];
            // Mostly the two that there are from the beginning.
            Step::Call { kind, repository: [0, 0, 0, 1, 1, 2][random.below(6) as usize], pick: random.next() }
        }
    }
}

/// Content of a length that is interesting for the [options](options) of the tests; compressible or not, sometimes one
/// that was there before.
fn content(random: &mut Random) -> Vec<u8> {
    let len = [0, 1, 100, 700, 2048, 2049, 5000, 70_000][random.below(8) as usize];
    match random.below(4) {
        0 => vec![random.below(3) as u8; len],
        _ => random.bytes(len),
    }
}

/// A file with content, for every second digest: what has it is stored by `put_file`, the rest by `put_reader`.
pub fn staged(digest: &Digest, content: &[u8]) -> Option<tempfile::NamedTempFile> {
    (digest.as_bytes()[0] % 2 == 1).then(|| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    })
}

/// Where on a disk the key lies that stores on it are encrypted with.
const KEY: &str = "/key";

/// A disk with a key: stores on it are encrypted. In a crate without encryption it is as any other.
pub fn encrypted_disk() -> SimVfs {
    let disk = SimVfs::new();
    if cfg!(not(feature = "encryption")) {
        return disk;
    }
    let file = disk.open(Path::new(KEY), OpenMode::CreateNew).expect("an empty disk");
    file.write_all_at(&Random(0x6b).bytes(32), 0).expect("a working disk");
    file.sync().expect("a working disk");
    disk.open_dir(Path::new("/")).and_then(|root| root.sync()).expect("a working disk");
    disk
}

/// The key on a disk.
fn key_on(disk: &SimVfs) -> Option<Arc<dyn KeyProvider>> {
    let key = disk.read_file(Path::new(KEY)).ok()?;
    Some(known_key(key.try_into().expect("32 bytes")))
}

/// A provider with this key.
#[cfg(feature = "encryption")]
pub fn known_key(key: [u8; 32]) -> Arc<dyn KeyProvider> {
    use strongroom::keys::{LocalKey, SecretKey};
    Arc::new(LocalKey::new(SecretKey::from_bytes(key)))
}

#[cfg(not(feature = "encryption"))]
pub fn known_key(_: [u8; 32]) -> Arc<dyn KeyProvider> {
    unreachable!("no disk has a key")
}

/// Longer content has a segment of its own.
pub const INLINE_MAX: usize = 2048;

/// Options under which a short history makes many log files, folds and merges.
pub fn options(disk: &SimVfs, clock: &Clock) -> Options {
    let options = Options::new();
    let options = match key_on(disk) {
        Some(key) => options.key_provider(key),
        None => options,
    };
    small(options, clock).vfs(Arc::new(disk.clone()))
}

/// The same for any place.
pub fn small(options: Options, clock: &Clock) -> Options {
    options
        .create(true)
        .clock(clock.clone())
        .maintenance(Maintenance::Inline)
        .inline_max(INLINE_MAX as u64)
        .log_file_size(16 << 10)
        .memtable_size(2 << 10)
        .history(24 << 10)
        .retention(Duration::from_millis(repositories::RETENTION))
        .read_mode(ReadMode::Mapped)
}

/// What a store should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// When somebody last relied on those of them that were stored or claimed outside of any repository.
    pub touched: BTreeMap<Digest, u64>,
    pub files: BTreeMap<String, ModelFile>,
    pub uploads: BTreeMap<UploadId, Vec<u8>>,
    /// The repositories of the uploads that are in one.
    pub owners: BTreeMap<UploadId, String>,
    pub repositories: BTreeMap<String, Repository>,
    /// What was pushed as manifests: to be pushed again.
    pub pushes: Vec<Push>,
}

fn nth<K: Clone, V>(map: &BTreeMap<K, V>, n: u64) -> Option<K> {
    map.keys().nth((n as usize).checked_rem(map.len())?).cloned()
}

impl Model {
    fn is_held(&self, digest: &Digest) -> bool {
        let holds = |one: &Repository| one.links.contains_key(digest) || one.manifests.contains_key(digest);
        self.files.values().any(|file| file.digests.contains(digest)) || self.repositories.values().any(holds)
    }

    /// Somebody relies on a blob, outside of any repository.
    pub fn touch(&mut self, digest: Digest, now: u64) {
        let touched = self.touched.entry(digest).or_insert(now);
        if repositories::is_stale(*touched, now) {
            *touched = now;
        }
    }

    pub fn remove(&mut self, digest: &Digest) {
        self.blobs.remove(digest);
        self.touched.remove(digest);
    }

    /// The blobs that nothing holds and nobody relies on any more.
    pub fn dead(&self, now: u64) -> Vec<Digest> {
        let has_expired = |digest| self.touched.get(digest).is_none_or(|at| repositories::has_expired(*at, now));
        self.blobs.keys().filter(|digest| has_expired(digest) && !self.is_held(digest)).copied().collect()
    }

    pub fn put(&mut self, algorithm: Algorithm, content: &[u8]) -> Digest {
        let digest = Digest::of(algorithm, content);
        self.blobs.insert(digest, content.to_vec());
        digest
    }

    /// Does a call. Blobs that no repository has any more stay in the store, as do manifests' documents.
    pub fn call(&mut self, call: &Call, now: u64) -> Outcome {
        let source = match &call.action {
            Action::Mount { from, .. } => self.repositories.get(from).cloned(),
            _ => None,
        };
        let mut state = self.repositories.remove(&call.repository);
        let outcome = apply(&mut state, &call.action, source.as_ref(), now);
        match state {
            Some(state) => drop(self.repositories.insert(call.repository.clone(), state)),
            None => {
                self.owners.retain(|id, owner| *owner != call.repository || self.uploads.remove(id).is_none());
            }
        }
        match &call.action {
            Action::Put { content, algorithm } if outcome == Outcome::Done => drop(self.put(*algorithm, content)),
            Action::PutManifest(push) => {
                if outcome == Outcome::Done {
                    self.put(push.algorithm, &push.content);
                }
                self.pushes.push(push.clone());
            }
            _ => {}
        }
        outcome
    }
}

/// What a store holds, read back and verified in every way there is.
pub fn observe(store: &Store) -> Model {
    let mut seen = Model::default();
    for stat in store.blobs() {
        let stat = stat.expect("undamaged facts");
        let blob = store.get(&stat.digest).expect("a listed blob");
        let content = blob.bytes().expect("undamaged content").to_vec();
        assert_eq!(content.len() as u64, stat.len);
        assert_eq!(Digest::of(stat.digest.algorithm(), &content), stat.digest);
        seen.blobs.insert(stat.digest, content);
    }
    let mut after = None;
    loop {
        let page = store.named().list("", after.as_deref(), 4).expect("names");
        for file in &page.items {
            assert_eq!(store.named().stat(&file.name).expect("a listed file"), *file);
            let found = store.named().get(&file.name).expect("a listed file");
            assert_eq!((found.file, found.blob.digest()), (file.clone(), &file.digest));
            seen.files.insert(file.name.clone(), ModelFile::from(file));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    for prefix in ["a/", "b/1", "c"] {
        let all = seen.files.keys().filter(|name| name.starts_with(prefix));
        assert!(store.named().iter(prefix).map(|file| file.expect("a name").name).eq(all.cloned()));
    }
    for name in repositories(store).expect("undamaged facts") {
        seen.repositories.insert(name.clone(), observe_repository(store, &name));
    }
    for (owner, upload) in uploads_of(store).expect("undamaged facts") {
        seen.uploads.insert(upload.id, vec![0; upload.offset as usize]);
        seen.owners.extend(owner.map(|owner| (upload.id, owner)));
    }
    for (name, one) in &seen.repositories {
        let usage = store.repository(&registry::name(name)).and_then(|open| open.usage()).expect("undamaged facts");
        let uploads = || seen.uploads.iter().filter(|(id, _)| seen.owners.get(id) == Some(name));
        let counted = [usage.blobs, usage.manifests, usage.tags, usage.uploads].map(|count| count as usize);
        assert_eq!(counted, [one.links.len(), one.manifests.len(), one.tags.len(), uploads().count()], "{name}");
        let bytes = [
            one.links.keys().filter_map(|digest| seen.blobs.get(digest)).map(Vec::len).sum::<usize>(),
            uploads().map(|(_, content)| content.len()).sum(),
        ];
        assert_eq!([usage.blob_bytes, usage.upload_bytes].map(|count| count as usize), bytes, "{name}");
    }
    let report = store.verify(|_| {}).expect("verification");
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.blobs as usize, seen.blobs.len());
    seen
}

/// All uploads, and the repositories that they are in.
pub fn uploads_of(store: &Store) -> strongroom::Result<Vec<(Option<String>, UploadStatus)>> {
    let mut uploads: Vec<_> = store.uploads(None, 1000)?.items.into_iter().map(|upload| (None, upload)).collect();
    for name in repositories(store)? {
        let own = store.repository(&registry::name(&name))?.uploads(None, 1000)?.items.into_iter();
        uploads.extend(own.map(|upload| (Some(name.clone()), upload)));
    }
    Ok(uploads)
}

/// A model in which only what can be seen counts: what is in an upload shows when it is committed.
pub fn outline(model: &Model) -> Model {
    let uploads = model.uploads.iter().map(|(id, content)| (*id, vec![0; content.len()])).collect();
    let repositories = model.repositories.iter().map(|(name, one)| (name.clone(), one.outline())).collect();
    let (blobs, files, owners) = (model.blobs.clone(), model.files.clone(), model.owners.clone());
    Model { blobs, touched: BTreeMap::new(), files, uploads, owners, repositories, pushes: Vec::new() }
}

/// Whether what was seen is the state before an operation or that after it, with the leeway the operation has.
pub fn is_one_of(seen: &Model, before: &Model, after: &Model, leeway: Leeway) -> bool {
    let (before, after) = (outline(before), outline(after));
    if *seen == before || *seen == after {
        return true;
    }
    match leeway {
        Leeway::None => false,
        Leeway::Begun => {
            let mut seen = seen.clone();
            let begun = |id: &UploadId, content: &Vec<u8>| content.is_empty() && !before.uploads.contains_key(id);
            seen.uploads.retain(|id, content| !begun(id, content));
            seen.owners.retain(|id, _| before.uploads.contains_key(id));
            seen == before
        }
        Leeway::Between => {
            let files = |model: &Model| BTreeSet::from_iter(model.files.keys().cloned());
            let uploads = |model: &Model| BTreeSet::from_iter(model.uploads.keys().copied());
            seen.blobs == before.blobs
                && seen.repositories == before.repositories
                && files(&after).is_subset(&files(seen))
                && files(seen).is_subset(&files(&before))
                && uploads(&after).is_subset(&uploads(seen))
                && uploads(seen).is_subset(&uploads(&before))
        }
        Leeway::Stored => {
            let are_within = |less: &Model, more: &Model| less.blobs.keys().all(|one| more.blobs.contains_key(one));
            are_within(&before, seen)
                && are_within(seen, &after)
                && Model { blobs: before.blobs.clone(), touched: before.touched.clone(), ..seen.clone() } == before
        }
        Leeway::Swept => {
            let of = |model: &Model| {
                let mut keys: BTreeSet<String> = model.blobs.keys().map(Digest::to_string).collect();
                keys.extend(model.files.keys().map(|name| format!("file {name}")));
                keys.extend(model.uploads.keys().map(|id| format!("upload {id}")));
                for (name, repository) in &model.repositories {
                    keys.insert(format!("repository {name}"));
                    keys.extend(repository.links.keys().map(|digest| format!("{digest} in {name}")));
                }
                keys
            };
            let (least, found, most) = (of(&after), of(seen), of(&before));
            let rest = |model: &Model| {
                let mut rest = model.repositories.clone();
                rest.retain(|name, _| seen.repositories.contains_key(name));
                rest.values_mut().for_each(|repository| repository.links.clear());
                rest
            };
            least.is_subset(&found) && found.is_subset(&most) && rest(seen) == rest(&before)
        }
        Leeway::Each => {
            let is_one = |(name, one): (&String, &Repository)| {
                before.repositories.get(name) == Some(one) || after.repositories.get(name) == Some(one)
            };
            seen.repositories.iter().all(is_one)
                && Model { repositories: before.repositories.clone(), ..seen.clone() } == before
        }
    }
}

/// Commits all uploads, and compares their contents with those that were appended.
pub fn finish_uploads(store: &Store, models: &[&Model]) {
    for (owner, upload) in uploads_of(store).expect("undamaged facts") {
        let mut contents = models.iter().filter_map(|model| model.uploads.get(&upload.id));
        let content = contents.rfind(|content| content.len() as u64 == upload.offset).cloned();
        let Some(content) = content.or((upload.offset == 0).then(Vec::new)) else {
            panic!("an upload of {} bytes that nobody made", upload.offset);
        };
        let digest = Digest::of(Algorithm::Sha256, &content);
        match owner {
            None => drop(store.commit_upload(upload.id, digest).expect("the content appended")),
            Some(name) => {
                let repository = store.repository(&registry::name(&name)).expect("listed");
                repository.commit_upload(upload.id, digest).expect("the content appended");
                assert_eq!(repository.get(&digest).expect("committed").bytes().expect("content"), content);
            }
        }
        assert_eq!(store.get(&digest).expect("committed").bytes().expect("content"), content);
    }
}

/// Removes all that holds a blob, so that nothing should stay.
pub fn remove_everything(store: &Store) {
    store.named().remove_prefix("").expect("names");
    for name in store.repositories(None, usize::MAX).expect("repositories").items {
        store.delete_repository(&name, RepositoryDeletion::WithContents).expect("listed");
    }
    for upload in store.uploads(None, 1000).expect("uploads").items {
        store.cancel_upload(upload.id).expect("begun");
    }
}

/// The log files and segments.
pub fn content_files(disk: &SimVfs) -> Vec<String> {
    let list = |dir: &str| disk.list(Path::new(dir)).expect("a directory");
    let shards = ["/store/log", "/store/segments"]
        .into_iter()
        .flat_map(|parent| list(parent).into_iter().map(move |shard| format!("{parent}/{shard}")));
    shards.flat_map(|shard| list(&shard).into_iter().map(move |name| format!("{shard}/{name}"))).collect()
}
