//! The contenders, each with the options that its own documentation recommends for durable writes and random reads.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::contender::{Contender, Key, Open, in_batches, sha256, touch};

/// All of them, by name.
pub const ALL: [(&str, Open); 9] = [
    ("strongroom", |dir| Box::new(Strongroom::open(dir))),
    ("redb", |dir| Box::new(Redb::open(dir))),
    ("lmdb", |dir| Box::new(Lmdb::open(dir, heed::EnvFlags::empty()))),
    // "May be slightly faster for DBs that fit entirely in RAM", and as durable: commits msync what they wrote.
    ("lmdb-writemap", |dir| Box::new(Lmdb::open(dir, heed::EnvFlags::WRITE_MAP))),
    ("fjall", |dir| Box::new(Fjall::open(dir))),
    ("sled", |dir| Box::new(Sled::open(dir))),
    ("cacache", |dir| Box::new(Cacache(dir.to_path_buf()))),
    ("iroh-blobs", |dir| Box::new(Iroh::open(dir))),
    ("files", |dir| Box::new(Files::open(dir))),
];

/// What acknowledges content that a power cut may take.
pub const NOT_DURABLE: [&str; 2] = ["sled", "cacache"];

/// What makes so many calls for a blob that it gets fewer of them where they are only read.
pub const SLOW: [&str; 3] = ["cacache", "iroh-blobs", "files"];

/// Default options: synced writes, mapped reads.
pub struct Strongroom {
    pub store: strongroom::Store,
}

impl Strongroom {
    pub fn open(dir: &Path) -> Self {
        let options = strongroom::Options::new().create(true);
        Self { store: options.open(Self::path(dir)).unwrap() }
    }

    /// Where the store is that was opened in a directory.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("store")
    }
}

fn digest(key: &[u8]) -> strongroom::Digest {
    strongroom::Digest::from_bytes(strongroom::Algorithm::Sha256, key).unwrap()
}

impl Contender for Strongroom {
    fn put(&self, content: &[u8]) {
        self.store.put(content, strongroom::Algorithm::Sha256).unwrap();
    }

    fn put_many(&self, contents: &[Vec<u8>]) {
        let contents = contents.iter().map(|content| (content, strongroom::Algorithm::Sha256));
        self.store.put_many(contents).unwrap().into_iter().for_each(|stored| _ = stored.unwrap());
    }

    fn load(&self, contents: &mut dyn Iterator<Item = Vec<u8>>) {
        let relaxed = Self { store: self.store.with_durability(strongroom::Durability::Relaxed) };
        in_batches(contents, |batch| relaxed.put_many(batch));
        self.store.sync().unwrap();
    }

    fn get(&self, key: &[u8]) -> usize {
        touch(&self.store.get(&digest(key)).unwrap().view().unwrap())
    }

    fn exists(&self, key: &[u8]) -> bool {
        self.store.exists(&digest(key)).unwrap()
    }
}

const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("blobs");

/// The defaults: `Durability::Immediate` (persistent when `commit` returns) in one phase, 1 GiB of cache, which holds
/// all that is read here; `quick_repair` would make commits slower.
pub struct Redb(redb::Database);

impl Redb {
    fn open(dir: &Path) -> Self {
        Self(redb::Database::create(dir.join("db")).unwrap())
    }

    fn write<'a>(&self, contents: impl Iterator<Item = &'a [u8]>) {
        let mut transaction = self.0.begin_write().unwrap();
        transaction.set_durability(redb::Durability::Immediate).unwrap();
        let mut table = transaction.open_table(TABLE).unwrap();
        contents.for_each(|content| _ = table.insert(&sha256(content)[..], content).unwrap());
        drop(table);
        transaction.commit().unwrap();
    }
}

impl Contender for Redb {
    fn put(&self, content: &[u8]) {
        self.write([content].into_iter());
    }

    fn put_many(&self, contents: &[Vec<u8>]) {
        self.write(contents.iter().map(|content| &content[..]));
    }

    fn get(&self, key: &[u8]) -> usize {
        use redb::ReadableDatabase as _;
        let table = self.0.begin_read().unwrap().open_table(TABLE).unwrap();
        touch(table.get(key).unwrap().unwrap().value())
    }

    fn exists(&self, key: &[u8]) -> bool {
        use redb::ReadableDatabase as _;
        self.0.begin_read().unwrap().open_table(TABLE).unwrap().get(key).unwrap().is_some()
    }
}

type LmdbTable = heed::Database<'static, heed::types::Bytes, heed::types::Bytes>;

/// Durable by default (`NO_SYNC`, `NO_META_SYNC` and `MAP_ASYNC` are not). With readers in thread-local storage, which
/// spares a lock for each; with readahead, since `NO_READ_AHEAD` is for what does not fit in memory.
pub struct Lmdb {
    env: heed::Env,
    table: LmdbTable,
}

impl Lmdb {
    fn open(dir: &Path, flags: heed::EnvFlags) -> Self {
        let mut options = heed::EnvOpenOptions::new();
        options.map_size(16 << 30).max_readers(512);
        // SAFETY: the flags leave locks and syncs as they are, and nothing else touches the fresh directory.
        let env = unsafe { options.flags(flags).open(dir).unwrap() };
        let created = env.create_databases_and_commit(env.write_txn().unwrap(), |opener, transaction| {
            opener.create_database(transaction, None).map(heed::CommitOrAbort::<_, ()>::Commit)
        });
        let table: LmdbTable = created.unwrap().commit().unwrap();
        Self { env, table }
    }

    fn write<'a>(&self, contents: impl Iterator<Item = &'a [u8]>) {
        let mut transaction = self.env.write_txn().unwrap();
        contents.for_each(|content| self.table.put(&mut transaction, &sha256(content), content).unwrap());
        transaction.commit().unwrap();
    }
}

impl Contender for Lmdb {
    fn put(&self, content: &[u8]) {
        self.write([content].into_iter());
    }

    fn put_many(&self, contents: &[Vec<u8>]) {
        self.write(contents.iter().map(|content| &content[..]));
    }

    fn get(&self, key: &[u8]) -> usize {
        let transaction = self.env.read_txn().unwrap();
        touch(self.table.get(&transaction, key).unwrap().unwrap())
    }

    fn exists(&self, key: &[u8]) -> bool {
        let transaction = self.env.read_txn().unwrap();
        self.table.get(&transaction, key).unwrap().is_some()
    }
}

/// Values of 1 KiB and more apart from keys, as recommended for large ones; a block cache that holds all of it, as
/// recommended where that is possible; `SyncData` after each write, since fdatasync is enough on ext4 and XFS.
pub struct Fjall {
    database: fjall::Database,
    blobs: fjall::Keyspace,
}

impl Fjall {
    fn open(dir: &Path) -> Self {
        let database = fjall::Database::builder(dir.join("db")).cache_size(1 << 30).open().unwrap();
        let options = || fjall::KeyspaceCreateOptions::default().with_kv_separation(Some(Default::default()));
        Self { blobs: database.keyspace("blobs", options).unwrap(), database }
    }

    fn write<'a>(&self, contents: impl Iterator<Item = &'a [u8]>) {
        let mut batch = self.database.batch().durability(Some(fjall::PersistMode::SyncData));
        contents.for_each(|content| batch.insert(&self.blobs, sha256(content), content));
        batch.commit().unwrap();
    }
}

impl Contender for Fjall {
    fn put(&self, content: &[u8]) {
        self.blobs.insert(sha256(content), content).unwrap();
        self.database.persist(fjall::PersistMode::SyncData).unwrap();
    }

    fn put_many(&self, contents: &[Vec<u8>]) {
        self.write(contents.iter().map(|content| &content[..]));
    }

    fn get(&self, key: &[u8]) -> usize {
        touch(&self.blobs.get(key).unwrap().unwrap())
    }

    fn exists(&self, key: &[u8]) -> bool {
        self.blobs.contains_key(key).unwrap()
    }
}

/// `HighThroughput`, a cache that holds all of it, and a flush for each write in the place of one every 500 ms. That
/// flush is `sync_file_range` on Linux: what the disk has in its own cache, a power cut may take.
pub struct Sled(sled::Db);

impl Sled {
    fn open(dir: &Path) -> Self {
        let config = sled::Config::new().path(dir).cache_capacity(1 << 30).mode(sled::Mode::HighThroughput);
        Self(config.flush_every_ms(None).open().unwrap())
    }
}

impl Contender for Sled {
    fn put(&self, content: &[u8]) {
        self.0.insert(sha256(content), content).unwrap();
        self.0.flush().unwrap();
    }

    fn put_many(&self, contents: &[Vec<u8>]) {
        let mut changes = sled::Batch::default();
        contents.iter().for_each(|content| changes.insert(sha256(content), &content[..]));
        self.0.apply_batch(changes).unwrap();
        self.0.flush().unwrap();
    }

    fn get(&self, key: &[u8]) -> usize {
        touch(&self.0.get(key).unwrap().unwrap())
    }

    fn exists(&self, key: &[u8]) -> bool {
        self.0.contains_key(key).unwrap()
    }
}

/// By the digest of the content, without an index entry, and by the blocking calls: it has no option for durability.
pub struct Cacache(PathBuf);

impl Contender for Cacache {
    fn put(&self, content: &[u8]) {
        cacache::write_hash_sync(&self.0, content).unwrap();
    }

    fn get(&self, key: &[u8]) -> usize {
        touch(&cacache::read_hash_sync(&self.0, &integrity(key)).unwrap())
    }

    fn exists(&self, key: &[u8]) -> bool {
        cacache::exists_sync(&self.0, &integrity(key))
    }

    fn key(&self, content: &[u8]) -> Key {
        cacache::Integrity::from(content).to_string().into_bytes()
    }
}

fn integrity(key: &[u8]) -> cacache::Integrity {
    std::str::from_utf8(key).unwrap().parse().unwrap()
}

/// The default options: content of up to 16 KiB in its database, writes batched for up to 500 ms, which `sync_db` ends
/// at once and waits for: after each put, or after as many as are put together.
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

    fn write(&self, contents: &mut dyn Iterator<Item = Vec<u8>>) {
        self.runtime.block_on(async {
            for content in contents {
                self.store.blobs().add_bytes(content).await.unwrap();
            }
            self.store.sync_db().await.unwrap();
        });
    }

    fn hash(key: &[u8]) -> iroh_blobs::Hash {
        iroh_blobs::Hash::from_bytes(key.try_into().unwrap())
    }
}

impl Drop for Iroh {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.store.shutdown());
    }
}

impl Contender for Iroh {
    fn put(&self, content: &[u8]) {
        self.write(&mut [content.to_vec()].into_iter());
    }

    fn put_many(&self, contents: &[Vec<u8>]) {
        self.write(&mut contents.iter().cloned());
    }

    fn load(&self, contents: &mut dyn Iterator<Item = Vec<u8>>) {
        self.write(contents);
    }

    fn get(&self, key: &[u8]) -> usize {
        touch(&self.runtime.block_on(async { self.store.blobs().get_bytes(Self::hash(key)).await.unwrap() }))
    }

    fn exists(&self, key: &[u8]) -> bool {
        self.runtime.block_on(async { self.store.blobs().has(Self::hash(key)).await.unwrap() })
    }

    fn key(&self, content: &[u8]) -> Key {
        iroh_blobs::Hash::new(content).as_bytes().to_vec()
    }
}

/// A file per blob: written beside, synced, renamed, directory synced. Many are all synced and renamed before each
/// directory is synced once.
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

    fn path(&self, key: &[u8]) -> PathBuf {
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(&hex[..2]).join(&hex[2..])
    }

    /// Writes a file, and returns the directory that it is in.
    fn write(&self, content: &[u8], sync: impl Fn(&fs::File)) -> PathBuf {
        let path = self.path(&sha256(content));
        let temporary = self.dir.join(format!("tmp-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let mut file = fs::File::create_new(&temporary).unwrap();
        file.write_all(content).unwrap();
        sync(&file);
        fs::rename(&temporary, &path).unwrap();
        path.parent().unwrap().to_path_buf()
    }

    fn write_synced<'a>(&self, contents: impl Iterator<Item = &'a [u8]>) {
        let sync = |file: &fs::File| file.sync_all().unwrap();
        let directories: BTreeSet<_> = contents.map(|content| self.write(content, sync)).collect();
        directories.iter().for_each(|dir| sync(&fs::File::open(dir).unwrap()));
    }
}

impl Contender for Files {
    fn put(&self, content: &[u8]) {
        self.write_synced([content].into_iter());
    }

    fn put_many(&self, contents: &[Vec<u8>]) {
        self.write_synced(contents.iter().map(|content| &content[..]));
    }

    fn load(&self, contents: &mut dyn Iterator<Item = Vec<u8>>) {
        contents.for_each(|content| _ = self.write(&content, |_| ()));
    }

    fn get(&self, key: &[u8]) -> usize {
        touch(&fs::read(self.path(key)).unwrap())
    }

    fn exists(&self, key: &[u8]) -> bool {
        self.path(key).exists()
    }
}
