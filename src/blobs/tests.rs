//! Blobs whose content is stored elsewhere than in the store's directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::digest::{Algorithm, Digest};
use crate::envelope::Keyring;
use crate::error::{Damage, Error, Result};
use crate::facts::Place;
use crate::files::{Contents, NewFile};
use crate::id::FileId;
use crate::log::Durability;
use crate::sealed::{Grain, MappingBudget, ReadMode, SealedFile};
use crate::store::{Maintenance, Options, Store};
use crate::sync::lock;
use crate::vfs::{File, OpenMode, SimVfs, Vfs};

/// Objects side by side, as in a bucket.
#[derive(Debug)]
struct Objects {
    bucket: SimVfs,
    keys: Arc<Keyring>,
    next: AtomicU64,
    unpublished: Mutex<BTreeSet<FileId>>,
}

impl Objects {
    fn open(&self, id: FileId, mode: OpenMode) -> Result<(PathBuf, Arc<dyn File>)> {
        let path = self.path(id);
        let file = self.bucket.open(&path, mode).map_err(|_| Error::corrupt(&path, 0, Damage::Missing))?;
        Ok((path, file))
    }

    fn all(&self) -> Vec<FileId> {
        self.orphans(FileId(0), FileId(0)).unwrap()
    }
}

impl Contents for Objects {
    fn begin(&self) -> FileId {
        let id = FileId(self.next.fetch_add(1, Ordering::Relaxed));
        lock(&self.unpublished).insert(id);
        id
    }

    fn create(&self, id: FileId) -> Result<(PathBuf, Arc<dyn File>)> {
        assert!(lock(&self.unpublished).contains(&id));
        self.open(id, OpenMode::CreateNew)
    }

    fn resume(&self, id: FileId) -> Result<(PathBuf, Arc<dyn File>)> {
        self.open(id, OpenMode::Write)
    }

    fn open(&self, place: &Place) -> Result<Arc<SealedFile>> {
        let (path, file) = self.open(place.file, OpenMode::Read)?;
        let (len, none) = (file.len().unwrap(), MappingBudget::new(ReadMode::Positioned, 0));
        Ok(Arc::new(SealedFile::new(path, file, len, Grain::Block, &none)))
    }

    fn keys(&self) -> Arc<Keyring> {
        Arc::clone(&self.keys)
    }

    fn path(&self, id: FileId) -> PathBuf {
        Path::new("/bucket").join(id.to_string())
    }

    fn published(&self, id: FileId) {
        assert!(lock(&self.unpublished).remove(&id));
    }

    fn give_up(&self, id: FileId) {
        let _ = self.bucket.remove(&self.path(id)); // one that was not created is not there
        lock(&self.unpublished).remove(&id);
    }

    fn orphans(&self, floor: FileId, _: FileId) -> Result<Vec<FileId>> {
        let names = self.bucket.list(Path::new("/bucket")).unwrap();
        let mut ids: Vec<FileId> = names.iter().map(|name| FileId(u64::from_str_radix(name, 16).unwrap())).collect();
        ids.retain(|id| *id >= floor);
        ids.sort_unstable();
        Ok(ids)
    }

    fn poison(&self, error: Error) -> Error {
        error
    }
}

fn content(seed: u8) -> Vec<u8> {
    (0..100_000u32).map(|number| (number / 7) as u8 ^ seed).collect()
}

#[test]
fn blobs_uploads_and_what_is_given_up_are_the_same_over_contents_that_lie_elsewhere() {
    let options = Options::new().create(true).vfs(Arc::new(SimVfs::new())).maintenance(Maintenance::Inline);
    let store: Store = options.inline_max(0).open("/store").unwrap();
    // The ids of the log's files are not theirs.
    let (first, bucket) = (FileId(1 << 32), SimVfs::new());
    bucket.create_dir(Path::new("/bucket")).unwrap();
    let (next, unpublished, keys) = (AtomicU64::new(first.0), Mutex::default(), store.keys());
    let objects = Arc::new(Objects { bucket, keys, next, unpublished });
    let node = || store.blobs_over(Arc::clone(&objects) as Arc<dyn Contents>);
    let (one, other) = (node(), node());
    let read = |digest: &Digest| other.get(crate::id::DomainId::DEFAULT, digest).unwrap().bytes().unwrap();

    let digest = one.put(&content(1), Algorithm::Sha256.into(), &one.outside(Durability::Synced)).unwrap().digest;
    assert_eq!((objects.all(), read(&digest)), (vec![first], content(1).into()));

    // What exists, or is not what was said, is given up.
    other.put(&content(1), Algorithm::Sha256.into(), &other.outside(Durability::Synced)).unwrap();
    one.put(&content(2), digest.into(), &one.outside(Durability::Synced)).unwrap_err();
    assert_eq!(objects.all(), [first]);

    // An upload goes on in another place.
    let whole = content(3);
    let (begin, end) = whole.split_at(70_000);
    let id = one.begin_upload(Algorithm::Sha256, &one.outside(Durability::Synced)).unwrap();
    assert_eq!(one.append_upload(id, Some(0), &mut &*begin, &one.outside(Durability::Synced)).unwrap(), 70_000);
    assert_eq!(other.append_upload(id, None, &mut &*end, &other.outside(Durability::Synced)).unwrap(), 100_000);
    let digest = Digest::of(Algorithm::Sha256, &whole);
    other.commit_upload(id, digest.into(), &other.outside(Durability::Synced)).unwrap();
    assert_eq!(read(&digest), whole);
    assert!(lock(&objects.unpublished).is_empty());

    // What a crash leaves is an orphan, and nothing else is.
    let left = NewFile::begin(Arc::clone(&objects) as Arc<dyn Contents>);
    objects.create(left.id()).unwrap();
    let id = left.id();
    left.keep();
    let snapshot = store.rooms().0.snapshot();
    let is_orphan = |id: &FileId| snapshot.segments(*id).unwrap().is_empty();
    let orphans: Vec<FileId> = objects.orphans(first, id).unwrap().into_iter().filter(is_orphan).collect();
    assert_eq!(orphans, [id]);
}
