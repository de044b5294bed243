//! Where content is: compares the places that facts name with the files on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::blobs::Blob;
use crate::check::{Found, Halt, Reread, Step};
use crate::digest::Digest;
use crate::envelope::{FileEnvelope, Purpose};
use crate::error::{Damage, Error, Result};
use crate::facts::{BlobFact, Key, Lookup, Reader, SegmentKind};
use crate::files::Contents as _;
use crate::id::FileId;
use crate::segment::{DESCRIPTOR_LEN, Descriptor, parse_header};
use crate::store::Inner;
use crate::store::salvage::Planner;
use crate::transaction::{Apply, Changes, Op};
use crate::vfs::OpenMode;

/// Content in places that no fact names: it proves itself, by its digest.
#[derive(Debug, Default)]
pub(super) struct Copies(BTreeMap<Key, Vec<(Digest, BlobFact)>>);

impl Copies {
    pub(super) fn add(&mut self, key: Key, digest: Digest, fact: BlobFact) {
        self.0.entry(key).or_default().push((digest, fact));
    }

    fn has(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    /// The blobs that there may be copies of.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.0.keys().copied().collect()
    }

    /// A copy of a blob that was read and has the digest.
    pub(super) fn verified(&self, inner: &Inner, key: &Key) -> Result<Option<(Digest, BlobFact)>> {
        for (digest, fact) in self.0.get(key).into_iter().flatten() {
            let verify = || {
                let file = inner.files.get_anew(&fact.place)?;
                Blob::new(*digest, *fact, file, &*inner.files, key.domain)?.verify()
            };
            match verify() {
                Ok(()) => return Ok(Some((*digest, *fact))),
                Err(Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The files of content on disk.
#[derive(Debug)]
pub(super) struct OnDisk {
    pub(super) logs: BTreeMap<FileId, PathBuf>,
    pub(super) segments: BTreeMap<FileId, PathBuf>,
}

impl OnDisk {
    pub(super) fn list(inner: &Inner) -> Result<Self> {
        let layout = inner.files.layout();
        let [logs, segments] = [layout.logs(), layout.segments()].map(|parent| inner.all_files(&parent));
        let found = Self { logs: logs?, segments: segments? };
        found.all().for_each(|(id, _)| inner.files.skip_past(*id));
        Ok(found)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&FileId, &PathBuf)> {
        self.logs.iter().chain(&self.segments)
    }

    pub(super) fn has(&self, id: FileId) -> bool {
        self.logs.contains_key(&id) || self.segments.contains_key(&id)
    }
}

/// Blobs whose content is not where their facts say.
#[derive(Debug, Default)]
pub(super) struct Astray {
    /// Their files are not there.
    pub(super) missing: BTreeSet<Key>,
    /// Their content is damaged, or its file is lost.
    pub(super) damaged: BTreeMap<Key, Error>,
}

impl Planner {
    /// Looks where content is that no fact names: in segments whose facts are cut. Returns the segments of uploads
    /// that are complete, so that the uploads were, or were about to be, committed.
    pub(super) fn find_copies(&mut self, on_disk: &OnDisk) -> Result<BTreeSet<FileId>> {
        let mut complete = BTreeSet::new();
        for (id, path) in &on_disk.segments {
            let known = self.inner.tables.snapshot().segments(*id)?;
            if known.iter().any(|(_, segment)| segment.kind != SegmentKind::Upload) {
                continue;
            }
            let frames = self.frames_of(*id, path)?;
            if !frames.is_empty() && !known.is_empty() {
                complete.insert(*id);
            }
            frames.into_iter().for_each(|(key, digest, fact)| self.cut.copies.add(key, digest, fact));
        }
        Ok(complete)
    }

    /// Looks for copies of blobs also in segments that facts name: a pack may be named for a part of what is in it.
    fn find_copies_of(&mut self, astray: &Astray, on_disk: &OnDisk) -> Result<()> {
        let wanted: BTreeSet<Key> = astray.missing.iter().chain(astray.damaged.keys()).copied().collect();
        if wanted.iter().all(|key| self.cut.copies.has(key)) {
            return Ok(());
        }
        for (id, path) in &on_disk.segments {
            let mut frames = self.frames_of(*id, path)?;
            frames.retain(|(key, ..)| wanted.contains(key));
            frames.into_iter().for_each(|(key, digest, fact)| self.cut.copies.add(key, digest, fact));
        }
        Ok(())
    }

    /// The frames of a segment, by its footer: none where it is not complete, or damaged.
    fn frames_of(&self, id: FileId, path: &Path) -> Result<Vec<(Key, Digest, BlobFact)>> {
        let files = &self.inner.files;
        let file = files.vfs().open(path, OpenMode::Read).map_err(Error::opening(path))?;
        let read = |offset, len: usize| {
            let mut bytes = vec![0; len];
            match file.read_exact_at(&mut bytes, offset) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
                other => other.map(|()| Some(bytes)).map_err(Error::io("read", path)),
            }
        };
        let Some(bytes) = read(0, 512)? else { return Ok(Vec::new()) };
        let is_known = |domain| self.inner.tables.snapshot().domains().contains(&domain);
        let Some(header) = parse_header(&bytes).filter(|header| is_known(header.domain)) else {
            return Ok(Vec::new());
        };
        let footer = match files.footer(id, header.domain, header.key) {
            Err(Error::Corrupt { .. }) => return Ok(Vec::new()),
            other => other?,
        };
        let envelope = FileEnvelope::new(id, &bytes);
        let sealing = envelope.opening(&files.keys(), header.domain, header.key, Purpose::Content);
        let mut frames = Vec::new();
        for (at, _, digest) in footer {
            // The frames of a pack are encrypted as those in a log file are.
            let of_pack = Some(at + DESCRIPTOR_LEN);
            let descriptor = read(at, 128)?.and_then(|bytes| {
                let read = |prefix| Descriptor::read(&bytes, sealing.as_ref(), prefix);
                read(None).or_else(|| read(of_pack))
            });
            let descriptor = descriptor.filter(|descriptor| descriptor.digest == digest);
            frames.extend(descriptor.map(|one| (Key::blob(header.domain, &digest), digest, one.fact(id, at))));
        }
        Ok(frames)
    }

    /// Compares where blobs should be with what is there. Content is read in `suspects` only.
    fn find_astray(&self, on_disk: &OnDisk, suspects: &BTreeSet<FileId>) -> Result<Astray> {
        let mut astray = Astray::default();
        let inner = &self.inner;
        for snapshot in inner.tables.snapshot().each_domain() {
            for fact in snapshot.all::<BlobFact>()? {
                let (key, fact) = fact?;
                let (file, is_suspect) = (fact.place.file, suspects.contains(&fact.place.file));
                if !on_disk.has(file) && !is_suspect {
                    astray.missing.insert(key);
                } else if is_suspect {
                    match settled(inner.checks.reread(&key, &mut |_| Ok(())))? {
                        Some(Reread { found: Found::Damaged(error), .. }) => drop(astray.damaged.insert(key, error)),
                        Some(Reread { found: Found::Unreadable(error), .. }) => return Err(error),
                        _ => {}
                    }
                }
            }
        }
        Ok(astray)
    }

    /// Finds the blobs that are not where they should be, and lets those lie in another place of which there is a copy.
    /// What is left is in no file.
    pub(super) fn find_content(&mut self, on_disk: &OnDisk, suspects: &BTreeSet<FileId>) -> Result<Astray> {
        let mut astray = self.find_astray(on_disk, suspects)?;
        self.find_copies_of(&astray, on_disk)?;
        for key in astray.missing.iter().chain(astray.damaged.keys()).copied().collect::<Vec<_>>() {
            if let Some((_, to)) = self.cut.copies.verified(&self.inner, &key)? {
                self.place(key, to)?;
                astray.missing.remove(&key);
                astray.damaged.remove(&key);
            }
        }
        // The last that is known of these, or of their files, is that they were there still: they are lost.
        for key in astray.missing.clone() {
            let fact = self.blob_fact(&key)?;
            let file = Key::segment(key.domain, fact.place.file);
            if self.cut.is_there.get(&key).or_else(|| self.cut.is_there.get(&file)) == Some(&true) {
                astray.missing.remove(&key);
                astray.damaged.insert(key, self.missing(&key)?);
            }
        }
        Ok(astray)
    }

    /// What is known of a blob that is on record.
    fn blob_fact(&self, key: &Key) -> Result<BlobFact> {
        let snapshot = self.inner.tables.snapshot_of(key.domain);
        snapshot.decoded(key, snapshot.blob_by_key(key)?)
    }

    /// What readers are told of a blob whose file is not there.
    pub(super) fn missing(&self, key: &Key) -> Result<Error> {
        let fact = self.blob_fact(key)?;
        let path = self.inner.files.path(fact.place.file);
        Ok(Error::corrupt(&path, fact.place.offset, Damage::Missing))
    }

    /// Lets a blob lie in a place, whether it was known or not.
    pub(super) fn place(&mut self, key: Key, to: BlobFact) -> Result<()> {
        let is_log = self.inner.files.path(to.place.file).starts_with(self.inner.files.layout().logs());
        let log = if is_log { to.place.file } else { FileId(0) };
        self.apply(key.domain, log, Box::new(Lay { key, to: Some(to) })).map(drop)
    }

    /// Flags a blob as damaged.
    pub(super) fn flag(&mut self, key: Key) -> Result<()> {
        self.apply(key.domain, FileId(0), Box::new(Lay { key, to: None })).map(drop)
    }
}

fn settled<T>(step: Step<Option<T>>) -> Result<Option<T>> {
    match step {
        Err(Halt::Failed(error)) => Err(error),
        Err(Halt::Stopped) => Ok(None),
        Ok(found) => Ok(found),
    }
}

/// Lets a blob lie in a place; or flags it, where there is none.
#[derive(Debug)]
struct Lay {
    key: Key,
    to: Option<BlobFact>,
}

impl Apply for Lay {
    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let old = facts.blob_by_key(&self.key)?;
        let new = match (&old, &self.to) {
            (Some(old), None) => BlobFact { damaged: true, ..*old },
            (Some(old), Some(to)) if old.algorithm == to.algorithm => {
                BlobFact { count: old.count, touched: old.touched, stored: old.stored, ..*to }
            }
            // As if somebody had just stored it.
            (None, Some(to)) => {
                let now = facts.now();
                BlobFact { touched: now.touched(), stored: now.seconds(), ..*to }
            }
            _ => return Ok(Vec::new()),
        };
        facts.change(self.key, old.as_ref(), Some(&new))?;
        Ok(Vec::new())
    }
}
