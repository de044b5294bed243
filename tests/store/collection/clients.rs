//! Sixteen clients push, pull, tag, delete, mount and upload while collections run all the time, on a disk whose power
//! is cut again and again.
//!
//! `STRONGROOM_SOAK_SECONDS` says for how long, 8 seconds by default.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strongroom::registry::{PutManifest, Repository, RepositoryDeletion, RepositorySettings};
use strongroom::vfs::{Fault, SimVfs};
use strongroom::{Algorithm, Clock, CollectOptions, Digest, Error, Maintenance, Options, Result, Store};

use crate::common::registry::{assert_sound, image, index, name, tag};
use crate::common::{Random, encrypted_disk, seed, tell};

const CLIENTS: u64 = 16;

/// So short that what clients rely on is gone again and again before they make use of it.
const RETENTION: Duration = Duration::from_millis(3);

/// What a client was told is there: each tag of its repository, the manifest that it names, and the blobs of that.
type Known = BTreeMap<String, (Digest, BTreeSet<Digest>)>;

/// A client, and what it knows. Nobody else changes its repository.
struct Client {
    number: u64,
    random: Random,
    known: Known,
    /// The tags whose change was under way when the power went: each may name what it did or what it was to.
    doubtful: BTreeSet<String>,
    pushes: u64,
}

fn options(disk: &SimVfs) -> Options {
    let options = crate::common::options(disk, &Clock::system()).maintenance(Maintenance::Thread).history(0);
    options.log_file_size(64 << 10).memtable_size(32 << 10).retention(RETENTION)
}

impl Client {
    fn new(number: u64, seed: u64) -> Self {
        Self { number, random: Random(seed ^ number << 32), known: Known::new(), doubtful: BTreeSet::new(), pushes: 0 }
    }

    fn repository(&self, store: &Store) -> Result<Repository> {
        store.ensure_repository(&name(&format!("client/{}", self.number)), RepositorySettings::new())
    }

    /// Content that others push too, or of its own.
    fn content(&mut self) -> Vec<u8> {
        match self.random.below(4) {
            0 => {
                format!("shared {}", self.random.below(12)).into_bytes().repeat(1 + self.random.below(300) as usize % 3)
            }
            1 => self.random.bytes(3000),
            _ => self.random.bytes(400),
        }
    }

    fn push_blob(&mut self, ours: &Repository) -> Result<(Digest, Vec<u8>)> {
        let content = self.content();
        let digest = Digest::of(Algorithm::Sha256, &content);
        match ours.claim(&digest) {
            Ok(_) => return Ok((digest, content)),
            Err(Error::BlobNotFound { .. }) => {}
            Err(other) => return Err(other),
        }
        match self.random.below(3) {
            0 => {
                let upload = ours.begin_upload(Algorithm::Sha256)?;
                let half = content.len() as u64 / 2;
                let done = ours
                    .append_upload(upload, 0, &content[..half as usize])
                    .and_then(|_| ours.append_upload(upload, half, &content[half as usize..]))
                    .and_then(|_| ours.commit_upload(upload, digest));
                match done {
                    Err(Error::UploadNotFound { .. }) => drop(ours.put(&content, digest)?), // it has expired
                    other => drop(other?),
                }
            }
            1 => {
                let from = name(&format!("client/{}", self.random.below(CLIENTS)));
                match ours.mount(&digest, &from, |_| true) {
                    Err(Error::BlobNotFound { .. }) => drop(ours.put(&content, digest)?),
                    other => drop(other?),
                }
            }
            _ => drop(ours.put(&content, digest)?),
        }
        Ok((digest, content))
    }

    /// Pushes an image, again and again where something of it was collected meanwhile.
    fn push(&mut self, ours: &Repository) -> Result<()> {
        let tag_name = format!("v{}", self.random.below(4));
        let blobs: Vec<_> = (0..1 + self.random.below(4)).map(|_| self.push_blob(ours)).collect::<Result<_>>()?;
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        let (media_type, document) = image(&digests, None);
        self.doubtful.insert(tag_name.clone());
        let pushed = loop {
            match ours.put_manifest(&document, PutManifest::new(media_type).tag(tag(&tag_name))) {
                Err(Error::ReferencesMissing { blobs: missing, .. }) => {
                    for (digest, content) in blobs.iter().filter(|(digest, _)| missing.contains(digest)) {
                        ours.put(content, digest)?;
                    }
                }
                other => break other?,
            }
        };
        self.pushes += 1;
        self.known.insert(tag_name, (pushed.digest, digests.into_iter().collect()));
        if self.random.below(6) == 0 {
            let (media_type, document) = index(&[pushed.digest], None);
            let parent = ours.put_manifest(document, PutManifest::new(media_type))?.digest;
            ours.delete_manifest(&parent)?;
        }
        self.doubtful.clear();
        Ok(())
    }

    /// Deletes an image, by its tag or altogether.
    fn delete(&mut self, ours: &Repository) -> Result<()> {
        let n = self.random.below(4);
        let Some((tag_name, (digest, _))) = self.known.iter().nth(n as usize) else { return Ok(()) };
        let (tag_name, digest) = (tag_name.clone(), *digest);
        if self.random.below(2) == 0 {
            self.doubtful.insert(tag_name.clone());
            untag(ours, &tag_name)?;
            self.known.remove(&tag_name);
        } else {
            let its = self.known.iter().filter(|(_, (known, _))| *known == digest);
            self.doubtful = its.map(|(tag_name, _)| tag_name.clone()).collect();
            match ours.delete_manifest(&digest) {
                Ok(_) => self.known.retain(|_, (known, _)| *known != digest),
                Err(Error::ManifestInUse { .. }) => {} // by an index that a power cut has left
                Err(other) => return Err(other),
            }
        }
        self.doubtful.clear();
        Ok(())
    }

    /// Whatever it was told is there can be pulled, whole. Fails where the power has gone.
    fn pull_all(&self, store: &Store, context: &str) -> Result<()> {
        let ours = self.repository(store)?;
        let expect = |is_there: Result<()>, what: &str| match is_there {
            Err(Error::Io { .. }) if context.is_empty() => is_there,
            Err(error) => panic!("{context}: {what} of {}: {error}", self.number),
            Ok(()) => Ok(()),
        };
        for (tag_name, (digest, blobs)) in &self.known {
            let found = ours.resolve(&tag(tag_name)).map(|found| found.digest);
            if self.doubtful.contains(tag_name) && found.as_ref().ok() != Some(digest) {
                continue;
            }
            let same = |found| assert_eq!(found, *digest, "{context}: {tag_name} of {}", self.number);
            expect(found.map(same), tag_name)?;
            expect(ours.get_manifest(&(*digest).into()).map(drop), tag_name)?;
            for blob in blobs {
                expect(ours.get(blob).and_then(|content| content.verify()), tag_name)?;
            }
        }
        Ok(())
    }

    fn work(&mut self, store: &Store) -> Result<()> {
        let ours = self.repository(store)?;
        match self.random.below(10) {
            0..=4 => self.push(&ours),
            5..=6 => self.delete(&ours),
            7 => self.pull_all(store, ""),
            8 => store.put(self.content(), Algorithm::Blake3).map(drop),
            _ => {
                // Everything, at once.
                if self.random.below(8) > 0 {
                    return Ok(());
                }
                self.doubtful = self.known.keys().cloned().collect();
                let own = name(&format!("client/{}", self.number));
                store.delete_repository(&own, RepositoryDeletion::WithContents)?;
                self.known.clear();
                self.doubtful.clear();
                Ok(())
            }
        }
    }
}

/// Lets clients and collections run until the power is cut; says how many collections there were.
fn run(store: &Store, clients: &mut [Client], until: Instant) -> u64 {
    let done = AtomicBool::new(false);
    let collections = AtomicU64::new(0);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let max_dead = [0, 20][collections.load(Ordering::Relaxed) as usize % 2];
                match store.collect(&CollectOptions::new().max_dead(max_dead), |_| ControlFlow::Continue(())) {
                    Ok(report) => assert!(report.damaged.is_empty(), "{report:?}"),
                    Err(error) => return *failure.lock().unwrap() = Some(error),
                }
                collections.fetch_add(1, Ordering::Relaxed);
            }
        });
        let working: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(|| while Instant::now() < until && client.work(store).is_ok() {}))
            .collect();
        working.into_iter().for_each(|one| one.join().unwrap());
        done.store(true, Ordering::Release);
        collecting.join().unwrap();
    });
    collections.into_inner()
}

fn clients_beside_collections(new: fn() -> SimVfs, seed: u64, time: Duration) {
    let end = Instant::now() + time;
    let mut draws = Random(seed);
    let mut disk = new();
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| Client::new(number, seed)).collect();
    let (mut rounds, mut collections) = (0, 0);
    while rounds < 3 || Instant::now() < end {
        rounds += 1;
        let cut = disk.operations() + 200 + draws.below(6000);
        disk.fault_at(cut, Fault::PowerCut);
        let context = format!("seed {seed} round {rounds}");
        // The power may go while it is being opened.
        if let Ok(store) = options(&disk).open("/store") {
            collections += run(&store, &mut clients, Instant::now() + Duration::from_secs(20));
        }
        disk = if draws.below(2) == 0 { disk.power_cut(draws.next()) } else { disk.restarted() };
        let store = options(&disk).open("/store").unwrap_or_else(|error| panic!("{context}: {error}"));
        for client in &mut clients {
            client.pull_all(&store, &context).unwrap();
            // What the power has cut is as it is now.
            let doubtful = std::mem::take(&mut client.doubtful);
            client.known.retain(|tag_name, _| !doubtful.contains(tag_name));
        }
        assert_sound(&store);
        store.close().unwrap();
    }
    let store = options(&disk).open("/store").unwrap();
    for client in &mut clients {
        forget_what_is_not_known(client, &store);
    }
    std::thread::sleep(5 * RETENTION);
    let collect =
        |max_dead| store.collect(&CollectOptions::new().max_dead(max_dead), |_| ControlFlow::Continue(())).unwrap();
    collect(0);
    std::thread::sleep(5 * RETENTION);
    let report = collect(0);
    clients.iter().for_each(|client| client.pull_all(&store, "at the end").unwrap());
    assert_sound(&store);
    // Exactly what is reachable is left.
    let mut reachable = BTreeSet::new();
    for (digest, blobs) in clients.iter().flat_map(|client| client.known.values()) {
        reachable.insert(*digest);
        reachable.extend(blobs);
    }
    let left: BTreeSet<_> = store.blobs().map(|blob| blob.unwrap().digest).collect();
    assert_eq!(left, reachable);
    assert!(store.uploads(None, 1000).unwrap().items.is_empty());
    // And it takes no more than in a new store.
    let fresh = options(&new()).open("/store").unwrap();
    for digest in &reachable {
        let content = store.get(digest).unwrap().bytes().unwrap();
        fresh.put(content, *digest).unwrap();
    }
    let (ours, theirs) = (store.usage().unwrap(), fresh.usage().unwrap());
    let stored = ours.live_bytes + report.dead_bytes;
    assert!(stored * 5 <= theirs.live_bytes * 6 + (5 << 17), "{report:?} {ours:?}, a fresh one {theirs:?}");
    let pushes: u64 = clients.iter().map(|client| client.pushes).sum();
    tell(&format!(
        "{pushes} pushes and {collections} collections in {rounds} rounds that ended in a power cut or a kill"
    ));
    assert!(pushes > 100 && collections > 3);
}

fn untag(ours: &Repository, tag_name: &str) -> Result<()> {
    ours.untag(&tag(tag_name)).map(drop)
}

/// Deletes what is there although nobody knows it: what the power cut left half done.
fn forget_what_is_not_known(client: &Client, store: &Store) {
    let ours = client.repository(store).unwrap();
    for tag_name in ours.tags(None, 99).unwrap().items {
        if !client.known.contains_key(tag_name.as_str()) {
            untag(&ours, tag_name.as_str()).unwrap();
        }
    }
    let known: BTreeSet<_> = client.known.values().map(|(digest, _)| *digest).collect();
    loop {
        let left = ours.manifests(None, 1000).unwrap().items;
        let mut deleted = 0;
        for manifest in left.iter().filter(|manifest| !known.contains(&manifest.digest)) {
            match ours.delete_manifest(&manifest.digest) {
                Ok(_) => deleted += 1,
                Err(Error::ManifestInUse { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        if deleted == 0 {
            return;
        }
    }
}

#[test]
fn sixteen_clients_beside_collections_lose_nothing_and_leave_nothing() {
    let seconds = std::env::var("STRONGROOM_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let time = Duration::from_secs(seconds);
    let seed = seed(0x16c);
    clients_beside_collections(SimVfs::new, seed, time.mul_f64(0.7));
    clients_beside_collections(encrypted_disk, seed, time.mul_f64(0.3));
}
