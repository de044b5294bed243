//! The contenders.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::contender::{Contender, Key, Open, sha256, touch};

/// All of them, by name.
pub const ALL: [(&str, Open); 7] = [
    ("strongroom", |dir| Box::new(Strongroom::open(dir))),
    ("redb", |dir| Box::new(Redb::open(dir))),
    ("lmdb", |dir| Box::new(Lmdb::open(dir))),
    ("sled", |dir| {
        Box::new(Sled(sled::Config::new().path(dir).cache_capacity(1 << 30).flush_every_ms(None).open().unwrap()))
    }),
    ("cacache", |dir| Box::new(Cacache(dir.to_path_buf()))),
    ("iroh-blobs", |dir| Box::new(Iroh::open(dir))),
    ("files", |dir| Box::new(Files::open(dir))),
];

/// How many are stored in one transaction when loading.
const BATCH: usize = 10_000;

pub struct Strongroom {
    store: strongroom::Store,
}

impl Strongroom {
    pub fn open(dir: &Path) -> Self {
        let options = strongroom::Options::new().create(true);
        Self { store: options.open(dir.join("store")).unwrap() }
    }
}

fn digest(key: &Key) -> strongroom::Digest {
    strongroom::Digest::from_bytes(strongroom::Algorithm::Sha256, key).unwrap()
}

impl Contender for Strongroom {
    fn put(&self, content: &[u8]) -> Key {
        self.store.put(content, strongroom::Algorithm::Sha256).unwrap().digest.as_bytes().to_vec()
    }

    fn load(&self, contents: &mut dyn Iterator<Item = Vec<u8>>) -> Vec<Key> {
        let contents: Vec<_> = contents.collect();
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let work = || {
                let mut keys = Vec::new();
                while let Some(content) = contents.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    keys.push(self.put(content));
                }
                keys
            };
            let workers: Vec<_> = (0..128).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        })
    }

    fn settle(&self) {
        self.store.merge_runs().unwrap();
    }

    fn get(&self, key: &Key) -> usize {
        touch(&self.store.get(&digest(key)).unwrap().bytes().unwrap())
    }

    fn exists(&self, key: &Key) -> bool {
        self.store.exists(&digest(key)).unwrap()
    }
}

const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("blobs");

pub struct Redb(redb::Database);

impl Redb {
    fn open(dir: &Path) -> Self {
        Self(redb::Database::create(dir.join("db")).unwrap())
    }

    fn write(&self, contents: &[Vec<u8>]) -> Vec<Key> {
        let transaction = self.0.begin_write().unwrap();
        let mut keys = Vec::new();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for content in contents {
                let key = sha256(content);
                table.insert(&key[..], &content[..]).unwrap();
                keys.push(key);
            }
        }
        transaction.commit().unwrap();
        keys
    }
}

impl Contender for Redb {
    fn put(&self, content: &[u8]) -> Key {
        self.write(&[content.to_vec()]).remove(0)
    }

    fn load(&self, contents: &mut dyn Iterator<Item = Vec<u8>>) -> Vec<Key> {
        in_batches(contents, |batch| self.write(batch))
    }

    fn get(&self, key: &Key) -> usize {
        use redb::ReadableDatabase as _;
        let table = self.0.begin_read().unwrap().open_table(TABLE).unwrap();
        touch(table.get(&key[..]).unwrap().unwrap().value())
    }

    fn exists(&self, key: &Key) -> bool {
        use redb::ReadableDatabase as _;
        self.0.begin_read().unwrap().open_table(TABLE).unwrap().get(&key[..]).unwrap().is_some()
    }
}

type LmdbTable = heed::Database<heed::types::Bytes, heed::types::Bytes>;

pub struct Lmdb {
    env: heed::Env,
    table: LmdbTable,
}

impl Lmdb {
    fn open(dir: &Path) -> Self {
        // SAFETY: nothing else touches the fresh directory.
        let env = unsafe { heed::EnvOpenOptions::new().map_size(64 << 30).max_readers(512).open(dir).unwrap() };
        let mut transaction = env.write_txn().unwrap();
        let table: LmdbTable = env.create_database(&mut transaction, None).unwrap();
        transaction.commit().unwrap();
        Self { env, table }
    }

    fn write(&self, contents: &[Vec<u8>]) -> Vec<Key> {
        let mut transaction = self.env.write_txn().unwrap();
        let mut keys = Vec::new();
        for content in contents {
            let key = sha256(content);
            self.table.put(&mut transaction, &key, content).unwrap();
            keys.push(key);
        }
        transaction.commit().unwrap();
        keys
    }
}

impl Contender for Lmdb {
    fn put(&self, content: &[u8]) -> Key {
        self.write(&[content.to_vec()]).remove(0)
    }

    fn load(&self, contents: &mut dyn Iterator<Item = Vec<u8>>) -> Vec<Key> {
        in_batches(contents, |batch| self.write(batch))
    }

    fn get(&self, key: &Key) -> usize {
        let transaction = self.env.read_txn().unwrap();
        touch(self.table.get(&transaction, key).unwrap().unwrap())
    }

    fn exists(&self, key: &Key) -> bool {
        let transaction = self.env.read_txn().unwrap();
        self.table.get(&transaction, key).unwrap().is_some()
    }
}

pub struct Sled(sled::Db);

impl Contender for Sled {
    fn put(&self, content: &[u8]) -> Key {
        let key = sha256(content);
        self.0.insert(&key, content).unwrap();
        self.0.flush().unwrap();
        key
    }

    fn load(&self, contents: &mut dyn Iterator<Item = Vec<u8>>) -> Vec<Key> {
        in_batches(contents, |batch| {
            let mut changes = sled::Batch::default();
            let keys: Vec<Key> = batch.iter().map(|content| sha256(content)).collect();
            keys.iter().zip(batch).for_each(|(key, content)| changes.insert(&key[..], &content[..]));
            self.0.apply_batch(changes).unwrap();
            self.0.flush().unwrap();
            keys
        })
    }

    fn get(&self, key: &Key) -> usize {
        touch(&self.0.get(key).unwrap().unwrap())
    }

    fn exists(&self, key: &Key) -> bool {
        self.0.contains_key(key).unwrap()
    }
}

pub struct Cacache(PathBuf);

impl Contender for Cacache {
    fn put(&self, content: &[u8]) -> Key {
        cacache::write_hash_sync(&self.0, content).unwrap().to_string().into_bytes()
    }

    fn load(&self, contents: &mut dyn Iterator<Item = Vec<u8>>) -> Vec<Key> {
        contents.map(|content| self.put(&content)).collect()
    }

    fn get(&self, key: &Key) -> usize {
        touch(&cacache::read_hash_sync(&self.0, &integrity(key)).unwrap())
    }

    fn exists(&self, key: &Key) -> bool {
        cacache::exists_sync(&self.0, &integrity(key))
    }

    fn absent(&self, n: u64) -> Key {
        cacache::Integrity::from(n.to_le_bytes()).to_string().into_bytes()
    }
}

fn integrity(key: &Key) -> cacache::Integrity {
    String::from_utf8(key.clone()).unwrap().parse().unwrap()
}

pub struct Iroh {
    runtime: tokio::runtime::Runtime,
    store: iroh_blobs::store::fs::FsStore,
}

impl Iroh {
    fn open(dir: &Path) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = runtime.block_on(iroh_blobs::store::fs::FsStore::load(dir)).unwrap();
        Self { runtime, store }
    }

    fn hash(key: &Key) -> iroh_blobs::Hash {
        iroh_blobs::Hash::from_bytes(key[..].try_into().unwrap())
    }
}

impl Drop for Iroh {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.store.shutdown());
    }
}

impl Contender for Iroh {
    fn put(&self, content: &[u8]) -> Key {
        self.runtime.block_on(async {
            let tag = self.store.blobs().add_slice(content).await.unwrap();
            self.store.sync_db().await.unwrap();
            tag.hash.as_bytes().to_vec()
        })
    }

    fn load(&self, contents: &mut dyn Iterator<Item = Vec<u8>>) -> Vec<Key> {
        self.runtime.block_on(async {
            let mut keys = Vec::new();
            for content in contents {
                keys.push(self.store.blobs().add_bytes(content).await.unwrap().hash.as_bytes().to_vec());
            }
            self.store.sync_db().await.unwrap();
            keys
        })
    }

    fn get(&self, key: &Key) -> usize {
        touch(&self.runtime.block_on(async { self.store.blobs().get_bytes(Self::hash(key)).await.unwrap() }))
    }

    fn exists(&self, key: &Key) -> bool {
        self.runtime.block_on(async { self.store.blobs().has(Self::hash(key)).await.unwrap() })
    }
}

/// A file per blob: written beside, synced, renamed, directory synced.
pub struct Files {
    dir: PathBuf,
    next: AtomicU64,
}

impl Files {
    fn open(dir: &Path) -> Self {
        for n in 0..256 {
            fs::create_dir(dir.join(format!("{n:02x}"))).unwrap();
        }
        Self { dir: dir.to_path_buf(), next: AtomicU64::new(0) }
    }

    fn path(&self, key: &Key) -> PathBuf {
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(&hex[..2]).join(&hex[2..])
    }

    fn write(&self, content: &[u8], durable: bool) -> Key {
        let key = sha256(content);
        let path = self.path(&key);
        let temporary = self.dir.join(format!("tmp-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let mut file = fs::File::create_new(&temporary).unwrap();
        file.write_all(content).unwrap();
        if durable {
            file.sync_all().unwrap();
        }
        fs::rename(&temporary, &path).unwrap();
        if durable {
            fs::File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
        }
        key
    }
}

impl Contender for Files {
    fn put(&self, content: &[u8]) -> Key {
        self.write(content, true)
    }

    fn load(&self, contents: &mut dyn Iterator<Item = Vec<u8>>) -> Vec<Key> {
        contents.map(|content| self.write(&content, false)).collect()
    }

    fn get(&self, key: &Key) -> usize {
        touch(&fs::read(self.path(key)).unwrap())
    }

    fn exists(&self, key: &Key) -> bool {
        self.path(key).exists()
    }
}

fn in_batches(contents: &mut dyn Iterator<Item = Vec<u8>>, mut write: impl FnMut(&[Vec<u8>]) -> Vec<Key>) -> Vec<Key> {
    let mut keys = Vec::new();
    loop {
        let batch: Vec<_> = contents.take(BATCH).collect();
        if batch.is_empty() {
            return keys;
        }
        keys.extend(write(&batch));
    }
}
