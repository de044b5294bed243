//! Named files in histories and in the model.

use std::time::{Duration, SystemTime};

use strongroom::{
    Algorithm, Digest, Error, ExpectNamed, Expires, NamedFile, NamedFiles, NamedWrite, PutNamed, Result, Store,
};

use super::{Model, Random, content, nth};

/// For how long the files live that expire, in milliseconds.
pub const LIFETIME: u64 = 55;

/// An operation on named files. Numbers choose among what there is.
#[derive(Clone, Debug)]
pub enum FileStep {
    /// Sets a name to a blob that is there, which references others.
    Set { name: u64, blobs: Vec<u64>, how: How },
    /// Sets a name to content.
    Put { name: u64, content: Vec<u8>, algorithm: Algorithm, how: How },
    /// Sets a name to the content of an upload.
    Commit { name: u64, upload: u64, algorithm: Algorithm, how: How },
    /// Removes a name.
    Remove { name: u64, how: How },
    /// Removes several names, or all with a prefix.
    RemoveSeveral { names: Vec<u64>, by_prefix: bool, how: How },
}

/// How something is done to a named file.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// 0: it does not expire; 1: by open time; 2: by the wall clock.
    pub expires: u64,
    /// 0 and 1: whatever it is; 2: it is not there; 3: it is as it is; from 4 on: it is some blob.
    pub expect: u64,
    /// Whether what is replaced or removed goes with the next collection.
    pub discard: bool,
}

impl How {
    pub fn draw(random: &mut Random) -> Self {
        let (expires, expect) = (random.below(4).saturating_sub(1), random.below(6));
        Self { expires, expect, discard: random.below(2) == 0 }
    }

    fn expect(self, model: &Model, name: &str) -> ExpectNamed {
        let found = model.files.get(name).map(|file| file.digests[0]);
        match (self.expect, found) {
            (0 | 1, _) => ExpectNamed::Any,
            (3, Some(found)) => ExpectNamed::Is(found),
            (4.., _) => nth(&model.blobs, self.expect).map_or(ExpectNamed::Any, ExpectNamed::Is),
            _ => ExpectNamed::Absent,
        }
    }

    fn put(self, model: &Model, name: &str, now: u64) -> PutNamed {
        let put = PutNamed::new().expect(self.expect(model, name));
        match self.expires {
            1 => put.expires_after(Duration::from_millis(LIFETIME)),
            2 => put.expires_at(SystemTime::UNIX_EPOCH + Duration::from_millis(now + LIFETIME)),
            _ => put,
        }
    }
}

/// A named file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Its content, then what it references.
    pub digests: Vec<Digest>,
    pub len: u64,
    /// As [`How::expires`].
    pub expires: u64,
    pub created: u64,
    pub modified: u64,
}

impl From<&NamedFile> for ModelFile {
    fn from(file: &NamedFile) -> Self {
        let expires = match file.expires {
            Expires::Never => 0,
            Expires::After(_) => 1,
            _ => 2,
        };
        let digests = std::iter::once(&file.digest).chain(&file.references).copied().collect();
        Self { digests, len: file.len, expires, created: file.created_ms, modified: file.modified_ms }
    }
}

/// A step drawn from a seed.
pub fn step(random: &mut Random, algorithm: Algorithm) -> FileStep {
    let (name, how) = (random.below(6), How::draw(random));
    match random.below(12) {
        0..=3 => {
            let count = 1 + random.below(3);
            FileStep::Set { name, blobs: (0..count).map(|_| random.next()).collect(), how }
        }
        4..=7 => FileStep::Put { name, content: content(random), algorithm, how },
        8 => FileStep::Commit { name, upload: random.next(), algorithm, how },
        9..=10 => FileStep::Remove { name, how },
        _ => FileStep::RemoveSeveral { names: vec![name, random.below(6)], by_prefix: random.below(2) == 0, how },
    }
}

/// Names with two beginnings.
fn name_of(name: u64) -> String {
    format!("{}/{}", ["a", "b"][name as usize % 2], name / 2)
}

fn files(store: &Store, how: How) -> NamedFiles {
    if how.discard { store.named().discarding() } else { store.named() }
}

impl Model {
    /// What a name is expected to be is not what it is.
    fn is_changed(&self, name: &str, expect: ExpectNamed) -> bool {
        let found = self.files.get(name).map(|file| file.digests[0]);
        match expect {
            ExpectNamed::Any => false,
            ExpectNamed::Absent => found.is_some(),
            ExpectNamed::Is(digest) => found != Some(digest),
        }
    }

    fn set_file(&mut self, name: &str, digests: Vec<Digest>, how: How, now: u64) -> Option<Digest> {
        let len = self.blobs[&digests[0]].len() as u64;
        let old = self.files.remove(name);
        let created = old.as_ref().map_or(now, |old| old.created);
        for digest in old.iter().flat_map(|old| &old.digests) {
            if !how.discard && !digests.contains(digest) {
                self.touch(*digest, now);
            }
        }
        let file = ModelFile { digests, len, expires: how.expires, created, modified: now };
        self.files.insert(name.to_owned(), file);
        old.map(|old| old.digests[0])
    }

    fn remove_file(&mut self, name: &str, how: How, now: u64) {
        for digest in self.files.remove(name).into_iter().flat_map(|old| old.digests) {
            if !how.discard {
                self.touch(digest, now);
            }
        }
    }
}

/// Does a step on a store and on what its model is to be.
pub fn run(store: &Store, model: &Model, next: &mut Model, step: &FileStep, now: u64) -> Result<()> {
    match step {
        FileStep::Set { name, blobs, how } => {
            let (name, files) = (name_of(*name), files(store, *how));
            let digests: Vec<_> = blobs.iter().filter_map(|n| nth(&model.blobs, *n)).collect();
            let Some((first, others)) = digests.split_first() else { return Ok(()) };
            let put = how.put(model, &name, now).references(others);
            set(model, next, (&name, digests.clone()), *how, now, |_| {}, || files.set(&name, first, put))
        }
        FileStep::Put { name, content, algorithm, how } => {
            let (name, files) = (name_of(*name), files(store, *how));
            let put = how.put(model, &name, now).algorithm(*algorithm);
            let add = |next: &mut Model| {
                next.put(*algorithm, content);
            };
            let digest = Digest::of(*algorithm, content);
            let write = || files.put_reader(&name, &content[..], put);
            set(model, next, (&name, vec![digest]), *how, now, add, write)
        }
        FileStep::Commit { name, upload, algorithm, how } => {
            let (name, files) = (name_of(*name), files(store, *how));
            let mut own = model.uploads.iter().filter(|(id, _)| !model.owners.contains_key(id));
            let count = own.clone().count();
            let Some((id, content)) = own.nth((*upload as usize).checked_rem(count).unwrap_or(0)) else {
                return Ok(());
            };
            let put = how.put(model, &name, now);
            let add = |next: &mut Model| {
                next.uploads.remove(id);
                next.put(*algorithm, content);
            };
            let digest = Digest::of(*algorithm, content);
            let write = || files.put_upload(&name, *id, digest, put);
            set(model, next, (&name, vec![digest]), *how, now, add, write)
        }
        FileStep::Remove { name, how } => {
            let (name, files) = (name_of(*name), files(store, *how));
            let expect = how.expect(model, &name);
            if !model.is_changed(&name, expect) {
                next.remove_file(&name, *how, now);
            }
            match files.remove(&name, expect) {
                Err(Error::NamedChanged { .. }) if model.is_changed(&name, expect) => Ok(()),
                Err(Error::NamedNotFound { .. }) if !model.files.contains_key(&name) => Ok(()),
                other => other.map(drop),
            }
        }
        FileStep::RemoveSeveral { names, by_prefix, how } => {
            let (names, files) = (names.iter().map(|name| name_of(*name)).collect::<Vec<_>>(), files(store, *how));
            let prefix = &names[0][..2];
            let is_meant = |name: &&String| if *by_prefix { name.starts_with(prefix) } else { names.contains(name) };
            let meant: Vec<_> = model.files.keys().filter(is_meant).cloned().collect();
            for name in &meant {
                next.remove_file(name, *how, now);
            }
            let done = if *by_prefix { files.remove_prefix(prefix)? } else { files.remove_many(&names)? };
            assert_eq!(done.removed, meant.len() as u64);
            Ok(())
        }
    }
}

/// A write of a name, and what it must say.
fn set(
    model: &Model,
    next: &mut Model,
    (name, digests): (&str, Vec<Digest>),
    how: How,
    now: u64,
    add: impl FnOnce(&mut Model),
    write: impl FnOnce() -> Result<NamedWrite>,
) -> Result<()> {
    let expect = how.expect(model, name);
    if model.is_changed(name, expect) {
        let refused = write();
        if !matches!(&refused, Err(Error::NamedChanged { found, .. })
            if *found == model.files.get(name).map(|file| file.digests[0]))
        {
            refused?;
            panic!("{name} was written, although it is not {expect:?}");
        }
        return Ok(());
    }
    let existed = model.blobs.contains_key(&digests[0]);
    add(next);
    let replaced = next.set_file(name, digests, how, now);
    let written = write()?;
    assert_eq!((written.existed, written.replaced), (existed, replaced));
    assert_eq!(ModelFile::from(&written.file), next.files[name]);
    if let Expires::After(left) = written.file.expires {
        assert_eq!(left, Duration::from_millis(LIFETIME));
    }
    Ok(())
}

/// The names of all named files of the default domain.
pub fn file_names(store: &Store) -> Result<Vec<String>> {
    store.named().iter("").map(|file| Ok(file?.name)).collect()
}
