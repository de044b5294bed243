//! A plain model of a store, histories of operations, and the comparison of the two.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod registry;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strongroom::vfs::SimVfs;
use strongroom::{
    Algorithm, Clock, Digest, Durability, Error, Maintenance, Options, PinOptions, ReadMode, Result, Store, UploadId,
};

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
    Put { content: Vec<u8>, algorithm: Algorithm },
    Remove(u64),
    Pin { name: u64, blobs: Vec<u64>, expires: bool },
    Unpin(u64),
    Begin(Algorithm),
    Append { upload: u64, content: Vec<u8> },
    Commit { upload: u64, algorithm: Algorithm },
    Cancel(u64),
    Expire,
    Checkpoint,
    Reopen,
}

/// A history of `count` operations drawn from a seed.
pub fn history(random: &mut Random, count: usize) -> Vec<Step> {
    (0..count).map(|_| step(random)).collect()
}

pub fn step(random: &mut Random) -> Step {
    let algorithm = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3][random.below(3) as usize];
    match random.below(20) {
        0..=6 => Step::Put { content: content(random), algorithm },
        7 => Step::Remove(random.next()),
        8..=10 => {
            let count = 1 + random.below(3);
            let blobs = (0..count).map(|_| random.next()).collect();
            Step::Pin { name: random.below(6), blobs, expires: random.below(3) == 0 }
        }
        11 => Step::Unpin(random.below(6)),
        12 => Step::Begin(algorithm),
        13..=14 => Step::Append { upload: random.next(), content: content(random) },
        15 => Step::Commit { upload: random.next(), algorithm },
        16 => Step::Cancel(random.next()),
        17 => Step::Expire,
        18 => Step::Checkpoint,
        _ => Step::Reopen,
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

/// Options under which a short history makes many log files, folds and merges.
pub fn options(disk: &SimVfs, clock: &Clock) -> Options {
    Options::new()
        .create(true)
        .vfs(Arc::new(disk.clone()))
        .clock(clock.clone())
        .maintenance(Maintenance::Inline)
        .inline_max(2048)
        .log_file_size(16 << 10)
        .memtable_size(2 << 10)
        .history(24 << 10)
        .read_mode(ReadMode::Mapped)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPin {
    pub digests: Vec<Digest>,
    pub expires: Option<u64>,
}

/// What a store should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    pub pins: BTreeMap<String, ModelPin>,
    pub uploads: BTreeMap<UploadId, Vec<u8>>,
}

fn nth<K: Clone, V>(map: &BTreeMap<K, V>, n: u64) -> Option<K> {
    map.keys().nth((n as usize).checked_rem(map.len())?).cloned()
}

impl Model {
    fn is_held(&self, digest: &Digest) -> bool {
        self.pins.values().any(|pin| pin.digests.contains(digest))
    }

    pub fn put(&mut self, algorithm: Algorithm, content: &[u8]) -> Digest {
        let digest = Digest::of(algorithm, content);
        self.blobs.insert(digest, content.to_vec());
        digest
    }
}

/// A store beside its model.
pub struct Pair {
    pub disk: SimVfs,
    pub clock: Clock,
    pub durability: Durability,
    pub store: Option<Store>,
    pub model: Model,
    /// What the model would be, had the operation under way succeeded.
    pub next: Model,
    /// What else the operation under way may leave.
    pub leeway: Leeway,
}

/// What an operation may leave besides the state before it and that after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leeway {
    #[default]
    None,
    /// An upload whose id nobody was told.
    Begun,
    /// Some of several independent removals.
    Between,
}

impl Pair {
    pub fn new(disk: &SimVfs) -> Result<Self> {
        Self::with(disk, Durability::Synced)
    }

    pub fn with(disk: &SimVfs, durability: Durability) -> Result<Self> {
        let mut pair = Self {
            disk: disk.clone(),
            clock: Clock::manual(),
            durability,
            store: None,
            model: Model::default(),
            next: Model::default(),
            leeway: Leeway::None,
        };
        pair.open()?;
        Ok(pair)
    }

    /// Opens the store, after it was closed or after that failed.
    pub fn open(&mut self) -> Result<()> {
        let options = options(&self.disk, &self.clock).durability(self.durability);
        self.store = Some(options.open("/store")?);
        Ok(())
    }

    /// Does a step on both. An error is one of the store that the model does not have.
    pub fn run(&mut self, step: &Step) -> Result<()> {
        self.next = self.model.clone();
        self.leeway = Leeway::None;
        self.clock.advance(Duration::from_millis(10));
        let store = self.store.as_ref().expect("open");
        match step {
            Step::Put { content, algorithm } => {
                let digest = self.next.put(*algorithm, content);
                assert_eq!(store.put_reader(&content[..], *algorithm)?, digest);
            }
            Step::Remove(n) => {
                let Some(digest) = nth(&self.model.blobs, *n) else { return Ok(()) };
                if self.model.is_held(&digest) {
                    let refused = store.remove(&digest);
                    if !matches!(refused, Err(Error::BlobInUse { .. })) {
                        refused?;
                        panic!("removed {digest}, which is held");
                    }
                    return Ok(());
                }
                self.next.blobs.remove(&digest);
                store.remove(&digest)?;
            }
            Step::Pin { name, blobs, expires } => {
                let name = format!("pin-{name}");
                let digests: Vec<_> = blobs.iter().filter_map(|n| nth(&self.model.blobs, *n)).collect();
                let Some((first, others)) = digests.split_first() else { return Ok(()) };
                let mut pin = PinOptions::new().references(others);
                if *expires {
                    pin = pin.expires_after(Duration::from_millis(55));
                }
                let expires = expires.then_some(0);
                self.next.pins.insert(name.clone(), ModelPin { digests: digests.clone(), expires });
                store.pin(&name, first, pin)?;
                let left = store.get_pin(&name)?.expires_in.map(|left| left.as_millis());
                assert_eq!(left, expires.map(|_| 55));
            }
            Step::Unpin(name) => {
                let name = format!("pin-{name}");
                let known = self.next.pins.remove(&name).is_some();
                match store.unpin(&name) {
                    Err(Error::PinNotFound { .. }) if !known => {}
                    other => other?,
                }
            }
            Step::Begin(algorithm) => {
                self.leeway = Leeway::Begun;
                let id = store.begin_upload(*algorithm)?;
                self.next.uploads.insert(id, Vec::new());
            }
            Step::Append { upload, content } => {
                let Some(id) = nth(&self.model.uploads, *upload) else { return Ok(()) };
                let so_far = self.next.uploads.get_mut(&id).expect("known");
                let offset = so_far.len() as u64;
                so_far.extend(content);
                let expected = so_far.len() as u64;
                let wrong = store.append_upload(id, offset + 1, content);
                if !matches!(&wrong, Err(Error::WrongOffset { expected, .. }) if *expected == offset) {
                    wrong?;
                    panic!("appended at a wrong offset");
                }
                assert_eq!(store.append_upload(id, offset, content)?, expected);
            }
            Step::Commit { upload, algorithm } => {
                let Some(id) = nth(&self.model.uploads, *upload) else { return Ok(()) };
                let content = self.next.uploads.remove(&id).expect("known");
                let digest = self.next.put(*algorithm, &content);
                store.commit_upload(id, &digest)?;
            }
            Step::Cancel(n) => {
                let Some(id) = nth(&self.model.uploads, *n) else { return Ok(()) };
                self.next.uploads.remove(&id);
                store.cancel_upload(id)?;
            }
            Step::Expire => {
                self.leeway = Leeway::Between;
                // Uploads idle for 40 ms and expired pins, by what the store says of them.
                let uploads = store.uploads()?;
                let is_idle = |idle: Duration| idle >= Duration::from_millis(40);
                let idle: BTreeSet<_> = uploads.iter().filter(|one| is_idle(one.idle)).map(|one| one.id).collect();
                self.next.uploads.retain(|id, _| !idle.contains(id));
                let mut expired = BTreeSet::new();
                for (name, pin) in &self.model.pins {
                    if pin.expires.is_some() && store.get_pin(name)?.expires_in == Some(Duration::ZERO) {
                        expired.insert(name.clone());
                    }
                }
                self.next.pins.retain(|name, _| !expired.contains(name));
                assert_eq!(store.expire(Duration::from_millis(40))?, (expired.len(), idle.len()));
            }
            Step::Checkpoint => store.checkpoint()?,
            Step::Reopen => {
                self.store.take().expect("open").close()?;
                self.open()?;
            }
        }
        self.model = self.next.clone();
        Ok(())
    }

    /// Ends the process: what was open is gone, without having been closed.
    pub fn kill(self) {
        let Some(store) = self.store else { return };
        // After a power cut closing does nothing; otherwise the disk was copied before.
        drop(store);
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
        let page = store.pins(after.as_deref(), 4).expect("names");
        for name in &page {
            let pin = store.get_pin(name).expect("a listed pin");
            let digests = std::iter::once(pin.digest).chain(pin.references).collect();
            let expires = pin.expires_in.map(|_| 0);
            seen.pins.insert(name.clone(), ModelPin { digests, expires });
        }
        match page.last() {
            Some(last) => after = Some(last.clone()),
            None => break,
        }
    }
    for upload in store.uploads().expect("uploads") {
        seen.uploads.insert(upload.id, vec![0; upload.offset as usize]);
    }
    let report = store.verify(|_| {}).expect("verification");
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.blobs as usize, seen.blobs.len());
    seen
}

/// A model in which only the length of an upload counts: what is in it shows when it is committed.
pub fn outline(model: &Model) -> Model {
    let uploads = model.uploads.iter().map(|(id, content)| (*id, vec![0; content.len()])).collect();
    Model { uploads, ..model.clone() }
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
            seen == before
        }
        Leeway::Between => {
            let pins = |model: &Model| BTreeSet::from_iter(model.pins.keys().cloned());
            let uploads = |model: &Model| BTreeSet::from_iter(model.uploads.keys().copied());
            seen.blobs == before.blobs
                && pins(&after).is_subset(&pins(seen))
                && pins(seen).is_subset(&pins(&before))
                && uploads(&after).is_subset(&uploads(seen))
                && uploads(seen).is_subset(&uploads(&before))
        }
    }
}

/// Commits all uploads, and compares their contents with those that were appended.
pub fn finish_uploads(store: &Store, models: &[&Model]) {
    for upload in store.uploads().expect("uploads") {
        let mut contents = models.iter().filter_map(|model| model.uploads.get(&upload.id));
        let content = contents.rfind(|content| content.len() as u64 == upload.offset).cloned();
        let Some(content) = content.or((upload.offset == 0).then(Vec::new)) else {
            panic!("an upload of {} bytes that nobody made", upload.offset);
        };
        let digest = Digest::of(Algorithm::Sha256, &content);
        store.commit_upload(upload.id, &digest).expect("the content appended");
        assert_eq!(store.get(&digest).expect("committed").bytes().expect("content"), content);
    }
}
