//! A store beside its model: each step is done on both, and must come to the same.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use strongroom::vfs::SimVfs;
use strongroom::{
    Algorithm, Clock, CollectOptions, Collection, Digest, Durability, Error, Options, Result, Stopped, Store, UploadId,
};

use super::calls::{Call, NAMES, pulls};
use super::events::{Follower, Stock, record};
use super::registry::name;
use super::repositories::{Action, Outcome, RETENTION};
use super::{INLINE_MAX, Model, Random, Step, files, nth, options, staged, uploads_of};

/// How a store is opened, with a clock.
type MakeOptions = Box<dyn Fn(&Clock) -> Options + Send>;

/// A store beside its model.
pub struct Pair {
    pub clock: Clock,
    path: PathBuf,
    make_options: MakeOptions,
    pub store: Option<Store>,
    pub model: Model,
    /// What the model would be, had the operation under way succeeded.
    pub next: Model,
    /// What else the operation under way may leave.
    pub leeway: Leeway,
    /// What the store has told of what happened.
    pub stock: Stock,
    /// How much time has passed, in milliseconds.
    now: u64,
    /// Whether closing failed at some time, so that the store may have counted less of it.
    time_is_doubtful: bool,
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
    /// Each repository as it was before or as it is after.
    Each,
    /// Some of what a collection takes.
    Swept,
    /// Some of the blobs that are stored.
    Stored,
}

impl Pair {
    pub fn new(disk: &SimVfs) -> Result<Self> {
        Self::with(disk, Durability::Synced)
    }

    pub fn with(disk: &SimVfs, durability: Durability) -> Result<Self> {
        let disk = disk.clone();
        Self::at("/store", move |clock| options(&disk, clock).durability(durability))
    }

    /// A store in a directory, which is opened with such options.
    pub fn at(path: impl Into<PathBuf>, make_options: impl Fn(&Clock) -> Options + Send + 'static) -> Result<Self> {
        let mut pair = Self {
            clock: Clock::manual(),
            path: path.into(),
            make_options: Box::new(make_options),
            store: None,
            model: Model::default(),
            next: Model::default(),
            leeway: Leeway::None,
            stock: Stock::default(),
            now: 0,
            time_is_doubtful: false,
        };
        pair.open()?;
        Ok(pair)
    }

    /// Opens the store, after it was closed or after that failed.
    pub fn open(&mut self) -> Result<()> {
        self.store = Some((self.make_options)(&self.clock).open(&self.path)?);
        Ok(())
    }

    /// Does a step on both. An error is one of the store that the model does not have.
    pub fn run(&mut self, step: &Step) -> Result<()> {
        self.next = self.model.clone();
        self.leeway = Leeway::None;
        self.wait(10);
        self.attempt(step)?;
        self.settle()
    }

    /// The model is as the step has left the store: so must be those who follow events.
    pub fn settle(&mut self) -> Result<()> {
        self.model = self.next.clone();
        self.leeway = Leeway::None;
        let store = self.store.as_ref().expect("open");
        let record = record(store, self.stock.position)?;
        // Where there is a gap (nothing is kept on a full disk), they take stock anew.
        if record.since == self.stock.position {
            let mut follower = Follower::of(&self.stock.model);
            follower.follow(&record.events).unwrap_or_else(|error| panic!("{error}"));
            let expected = Follower::of(&self.model);
            assert!(follower.agrees(&expected), "{:#?} lead to {follower:#?}, not {expected:#?}", record.events);
        }
        self.stock.told.extend(record.events);
        self.stock.position = record.next;
        self.stock.model = self.model.clone();
        Ok(())
    }

    /// After a step that failed and may be done in part: goes on from what there is.
    pub fn adopt(&mut self, seen: &Model) {
        self.next = self.model.clone();
        self.next.uploads.retain(|id, _| seen.uploads.contains_key(id));
        self.next.owners.retain(|id, _| seen.uploads.contains_key(id));
        self.next.files.retain(|name, _| seen.files.contains_key(name));
        self.next.blobs.retain(|digest, _| seen.blobs.contains_key(digest));
        self.next.touched.retain(|digest, _| seen.blobs.contains_key(digest));
        if self.leeway == Leeway::Stored {
            for (digest, content) in &seen.blobs {
                self.next.blobs.entry(*digest).or_insert_with(|| content.clone());
                if !self.model.blobs.contains_key(digest) {
                    self.next.touch(*digest, self.now);
                }
            }
        }
        self.next.repositories.retain(|name, _| seen.repositories.contains_key(name));
        for (name, repository) in &mut self.next.repositories {
            repository.links.retain(|digest, _| seen.repositories[name].links.contains_key(digest));
        }
        self.settle().expect("a working store");
    }

    /// What a call would come to.
    pub fn outcome(&self, call: &Call) -> Outcome {
        self.model.clone().call(call, self.now)
    }

    fn wait(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        self.clock.advance(Duration::from_millis(milliseconds));
    }

    fn attempt(&mut self, step: &Step) -> Result<()> {
        let store = self.store.as_ref().expect("open");
        match step {
            Step::Put { content, algorithm } => {
                let digest = self.next.put(*algorithm, content);
                self.next.touch(digest, self.now);
                let stored = match staged(&digest, content) {
                    Some(file) => store.put_file(file.path(), *algorithm)?,
                    None => store.put_reader(&content[..], *algorithm)?,
                };
                assert_eq!(stored.digest, digest);
            }
            Step::PutMany { contents, algorithm } => {
                self.leeway = Leeway::Stored;
                let mut expected = Vec::new();
                for content in contents {
                    let digest = Digest::of(*algorithm, content);
                    expected.push((digest, content.len() as u64, self.next.blobs.contains_key(&digest)));
                    self.next.put(*algorithm, content);
                    self.next.touch(digest, self.now);
                }
                let stored = store.put_many(contents.iter().map(|content| (content, *algorithm)))?;
                let stored = stored.into_iter().collect::<Result<Vec<_>>>()?;
                // Where this was tried before, some of it may be there that the model does not have.
                for (one, (digest, len, existed)) in stored.iter().zip(expected) {
                    assert_eq!((one.digest, one.len, one.existed || !existed), (digest, len, true));
                }
                assert!(stored.iter().all(|one| one.lsn <= store.last_lsn()));
            }
            Step::Remove(n) => self.remove(*n)?,
            Step::File(step) => files::run(store, &self.model, &mut self.next, step, self.now)?,
            Step::Begin { .. } | Step::Append { .. } | Step::Commit { .. } | Step::Cancel(_) => self.upload(step)?,
            Step::Expire => self.expire()?,
            Step::Checkpoint => store.checkpoint()?,
            Step::Reopen => {
                let is_doubtful = std::mem::replace(&mut self.time_is_doubtful, true);
                self.store.take().expect("open").close()?;
                self.time_is_doubtful = is_doubtful;
                self.open()?;
            }
            Step::Call { kind, repository, pick } => {
                let drawn = kind.draw(&self.model, *repository, &mut Random(*pick));
                let Some(call) = drawn else { return Ok(()) };
                let expected = self.next.call(&call, self.now);
                assert_eq!(call.run(store)?, expected, "{call:?}");
                if let (Action::Pull(_), Outcome::Found(digest)) = (&call.action, expected) {
                    let info = store.repository(&name(&call.repository))?.manifest_info(&digest.into())?;
                    assert_eq!(info.pulled_ms, Some(self.now));
                }
            }
            Step::Wait(milliseconds) => self.wait(*milliseconds),
            Step::ExpireBlobs => self.expire_blobs()?,
            Step::Claim(blobs) => {
                let mut digests: Vec<_> = blobs.iter().filter_map(|n| nth(&self.model.blobs, *n)).collect();
                let absent = Digest::of(Algorithm::Sha256, b"nobody stores this");
                digests.push(absent);
                let mut claimed = store.claim_many(&digests)?;
                // Each that is told counts, also where another one fails.
                for (digest, _) in digests.iter().zip(&claimed).filter(|(_, one)| one.is_ok()) {
                    self.model.touch(*digest, self.now);
                    self.next.touch(*digest, self.now);
                }
                match claimed.pop() {
                    Some(Err(Error::BlobNotFound { digest })) if digest == absent => {}
                    Some(Err(error)) => return Err(error),
                    found => panic!("{found:?}"),
                }
                let claimed = claimed.into_iter().collect::<Result<Vec<_>>>()?;
                let known = store.stat_many(&digests)?;
                assert!(known.iter().zip(&digests).all(|(one, digest)| one.is_none_or(|one| one.digest == *digest)));
                assert_eq!(claimed.len(), known.iter().flatten().count());
            }
            Step::Collect(max_dead) => self.collect(*max_dead)?,
        }
        Ok(())
    }

    fn remove(&mut self, n: u64) -> Result<()> {
        let store = self.store.as_ref().expect("open");
        let Some(digest) = nth(&self.model.blobs, n) else { return Ok(()) };
        if self.model.is_held(&digest) {
            let refused = store.remove(&digest);
            if !matches!(refused, Err(Error::BlobInUse { .. })) {
                refused?;
                panic!("removed {digest}, which is held");
            }
            return Ok(());
        }
        self.next.remove(&digest);
        match store.remove(&digest) {
            // What a deleted repository left goes with the maintenance after a commit: if it failed, with the next.
            Err(Error::BlobInUse { .. }) => store.remove(&digest).map(drop),
            other => other.map(drop),
        }
    }

    fn upload(&mut self, step: &Step) -> Result<()> {
        let store = self.store.as_ref().expect("open");
        let of = |n: u64| nth(&self.model.uploads, n);
        let repository = |id: &UploadId| {
            let owner = self.model.owners.get(id);
            owner.map(|owner| store.repository(&name(owner))).transpose()
        };
        match step {
            Step::Begin { algorithm, repository } => {
                self.leeway = Leeway::Begun;
                let Some(owner) = repository.map(|n| NAMES[n as usize % NAMES.len()]) else {
                    let id = store.begin_upload(*algorithm)?;
                    self.next.uploads.insert(id, Vec::new());
                    return Ok(());
                };
                match store.repository(&name(owner)) {
                    Err(Error::RepositoryNotFound { .. }) if !self.model.repositories.contains_key(owner) => {}
                    repository => {
                        let id = repository?.begin_upload(*algorithm)?;
                        self.next.uploads.insert(id, Vec::new());
                        self.next.owners.insert(id, owner.to_owned());
                        self.next.repositories.get_mut(owner).expect("it is there").touch(self.now);
                        let refused = store.cancel_upload(id);
                        if !matches!(refused, Err(Error::UploadNotFound { .. })) {
                            refused?;
                            panic!("not the store's");
                        }
                    }
                }
            }
            Step::Append { upload, content } => {
                let Some(id) = of(*upload) else { return Ok(()) };
                let repository = repository(&id)?;
                let append = |offset| match &repository {
                    Some(repository) => repository.append_upload(id, offset, content),
                    None => store.append_upload(id, offset, content),
                };
                let so_far = self.next.uploads.get_mut(&id).expect("known");
                let offset = so_far.len() as u64;
                so_far.extend(content);
                let expected = so_far.len() as u64;
                let wrong = append(Some(offset + 1));
                if !matches!(&wrong, Err(Error::WrongOffset { expected, .. }) if *expected == offset) {
                    wrong?;
                    panic!("appended at a wrong offset");
                }
                let offset = expected.is_multiple_of(2).then_some(offset); // else where it ends
                assert_eq!(append(offset)?, expected);
            }
            Step::Commit { upload, last, algorithm } => {
                let Some(id) = of(*upload) else { return Ok(()) };
                let repository = repository(&id)?;
                let mut content = self.next.uploads.remove(&id).expect("known");
                let at = content.len() as u64;
                let rides = !last.is_empty() && content.len() + last.len() <= INLINE_MAX;
                if rides {
                    content.extend(last);
                }
                let digest = strongroom::Digest::of(*algorithm, &content);
                match (self.next.owners.remove(&id), repository) {
                    (Some(owner), Some(repository)) => {
                        let put = Action::Put { content, algorithm: *algorithm };
                        let call = Call { repository: owner, action: put };
                        assert_eq!(self.next.call(&call, self.now), Outcome::Done);
                        match rides {
                            true => repository.commit_upload_with(id, at, last, digest)?,
                            false => repository.commit_upload(id, digest)?,
                        };
                    }
                    _ => {
                        let digest = self.next.put(*algorithm, &content);
                        self.next.touch(digest, self.now);
                        match rides {
                            true => store.commit_upload_with(id, None, last, digest)?,
                            false => store.commit_upload(id, digest)?,
                        };
                    }
                }
            }
            Step::Cancel(n) => {
                let Some(id) = of(*n) else { return Ok(()) };
                let repository = repository(&id)?;
                self.next.uploads.remove(&id);
                self.next.owners.remove(&id);
                match repository {
                    Some(repository) => repository.cancel_upload(id)?,
                    None => store.cancel_upload(id)?,
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn expire(&mut self) -> Result<()> {
        self.leeway = Leeway::Between;
        let expected = self.expire_in_model(40)?;
        let store = self.store.as_ref().expect("open");
        let expired = store.expire(Duration::from_millis(40))?;
        assert_eq!((expired.named, expired.uploads), expected);
        Ok(())
    }

    /// Ends expired files and uploads that were idle for so many milliseconds, by what the store says of them, in the
    /// model; returns how many of each.
    fn expire_in_model(&mut self, idle: u64) -> Result<(usize, usize)> {
        let store = self.store.as_ref().expect("open");
        let uploads = uploads_of(store)?;
        let is_idle = |one: Duration| one >= Duration::from_millis(idle);
        let idle: BTreeSet<_> = uploads.iter().filter(|(_, one)| is_idle(one.idle)).map(|(_, one)| one.id).collect();
        self.next.uploads.retain(|id, _| !idle.contains(id));
        self.next.owners.retain(|id, _| !idle.contains(id));
        let mut expired = BTreeSet::new();
        for name in self.model.files.keys() {
            if store.named().stat(name)?.is_expired {
                expired.insert(name.clone());
            }
        }
        self.next.files.retain(|name, _| !expired.contains(name));
        Ok((expired.len(), idle.len()))
    }

    /// A dry run first, which changes nothing and tells what then comes to pass.
    fn collect(&mut self, max_dead: u8) -> Result<()> {
        self.leeway = Leeway::Swept;
        let (files, uploads) = self.expire_in_model(RETENTION)?;
        let store = self.store.as_ref().expect("open");
        let mut links = 0;
        for repository in self.next.repositories.values_mut() {
            let expired = repository.expired(self.now);
            links += expired.len();
            repository.links.retain(|digest, _| !expired.contains(digest));
        }
        let (owners, now) = (&self.next.owners, self.now);
        let is_used = |name: &String| owners.values().any(|owner| owner == name);
        self.next.repositories.retain(|name, repository| !repository.expires(is_used(name), now));
        let repositories = self.model.repositories.len() - self.next.repositories.len();
        let dead = self.next.dead(self.now);
        dead.iter().for_each(|digest| self.next.remove(digest));
        let options = CollectOptions::new().max_dead(max_dead);
        let would = store.collect(&options.clone().dry_run(true), |_| ControlFlow::Continue(()))?;
        let done = store.collect(&options, |_| ControlFlow::Continue(()))?;
        let counts = |one: &Collection| (one.named, one.uploads, one.links, one.repositories, one.blobs);
        // On a full disk facts may stay where they are.
        let is_done = matches!(done.stopped, None | Some(Stopped::Space));
        assert!(would.dry_run && !done.dry_run && is_done, "{would:?} {done:?}");
        assert_eq!((done.rescued, done.damaged.len()), (0, 0), "{done:?}");
        let all_but_blobs = |one: &Collection| (one.named, one.uploads, one.links, one.repositories);
        assert_eq!(all_but_blobs(&would), all_but_blobs(&done));
        assert!(would.blobs <= done.blobs, "what deleted repositories have left may come to it");
        if !self.time_is_doubtful {
            let expected = (files as u64, uploads as u64, links as u64, repositories as u64, dead.len() as u64);
            assert_eq!(counts(&done), expected, "{done:?}");
            return Ok(());
        }
        // What the store has counted less time for, it may keep.
        for (owner, before) in &self.model.repositories {
            if !self.next.repositories.contains_key(owner) && store.repository(&name(owner)).is_ok() {
                self.next.repositories.insert(owner.clone(), before.clone());
            }
        }
        for (owner, after) in &mut self.next.repositories {
            let repository = store.repository(&name(owner))?;
            let before = &self.model.repositories[owner].links;
            let stayed = before.iter().filter(|(digest, _)| repository.stat(digest).is_ok());
            after.links.extend(stayed.map(|(digest, link)| (*digest, *link)));
        }
        for (digest, content) in &self.model.blobs {
            if !self.next.blobs.contains_key(digest) && store.exists(digest)? {
                self.next.blobs.insert(*digest, content.clone());
                self.next.touched.extend(self.model.touched.get(digest).map(|at| (*digest, *at)));
            }
        }
        Ok(())
    }

    fn expire_blobs(&mut self) -> Result<()> {
        let store = self.store.as_ref().expect("open");
        self.leeway = Leeway::Each;
        let mut count = 0;
        for repository in self.next.repositories.values_mut() {
            let expired = repository.expired(self.now);
            count += expired.len();
            repository.links.retain(|digest, _| !expired.contains(digest));
        }
        let found = store.expire_blobs()?;
        if !self.time_is_doubtful {
            assert_eq!(found, count);
            return Ok(());
        }
        assert!(found <= count);
        for (owner, after) in &mut self.next.repositories {
            let repository = store.repository(&name(owner))?;
            let before = &self.model.repositories[owner].links;
            let stayed = before.iter().filter(|(digest, _)| repository.stat(digest).is_ok());
            after.links.extend(stayed.map(|(digest, link)| (*digest, *link)));
        }
        Ok(())
    }

    /// Whether the store knows of each manifest when it was pulled last, or at least (where that was not noted before a
    /// process ended) nothing else.
    pub fn check_pulls(&self, is_all_noted: bool) {
        let store = self.store.as_ref().expect("open");
        let known = pulls(store);
        for (owner, repository) in &self.model.repositories {
            for (digest, manifest) in &repository.manifests {
                let found = known.get(&(owner.clone(), *digest)).copied();
                let is_right = if is_all_noted { found == manifest.pulled } else { found <= manifest.pulled };
                assert!(is_right, "{digest} in {owner}: pulled {:?}, known is {found:?}", manifest.pulled);
            }
        }
    }

    /// Ends the process: what was open is gone, without having been closed.
    pub fn kill(self) {
        let Some(store) = self.store else { return };
        // After a power cut closing does nothing; otherwise the disk was copied before.
        drop(store);
    }
}
