//! Options of a store, and opening it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::blobs::{BlobOptions, Compression};
use crate::clock::{Clock, Retention, milliseconds};
use crate::error::Result;
use crate::files::{FileOptions, limits};
use crate::gc::{Background, CollectOptions, Settings};
use crate::keys::KeyProvider;
use crate::log::{Durability, LogOptions};
use crate::sealed::ReadMode;
use crate::store::Store;
use crate::tables::TableOptions;
use crate::vfs::{RealVfs, Vfs};

/// Which thread folds facts into runs and merges runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Maintenance {
    /// A thread of the store's own, named `strongroom`. Another, `strongroom-names`, maintains the view of names.
    #[default]
    Thread,
    /// The thread whose commit makes it due, after that commit. The store then starts no thread for it, nor for the
    /// view of names. (sled, which stores that view, starts some.)
    Inline,
}

/// How opening treats damage to records in the log that no run has yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// The store is not opened: [`Corrupt`](crate::Error::Corrupt) says where the damage is.
    #[default]
    Strict,
    /// The store is opened for reading, as it was at the last commit before the damage. Writes are refused with
    /// [`ReadOnly`](crate::Error::ReadOnly), nothing on disk is changed, and neither maintenance nor collection runs;
    /// [`Store::damage`] says where the damage is. A store without damage is opened as usual.
    ///
    /// Content that later commits have removed, or moved to another file, is reported as damaged.
    ReadOnlyUpToDamage,
}

/// Options for opening or creating a store.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = strongroom::Options::new().create(true).open(dir.path().join("store"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(crate) create: bool,
    pub(crate) wait_for_lock: Duration,
    pub(crate) read_only: bool,
    pub(crate) read_mode: ReadMode,
    pub(crate) durability: Durability,
    pub(crate) maintenance: Maintenance,
    pub(crate) compression: Compression,
    pub(crate) inline_max: u64,
    pub(crate) log_file_size: u64,
    pub(crate) memtable_size: usize,
    /// None until the store is opened, where the caller did not say.
    pub(crate) max_open_files: Option<usize>,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) names_on_disk: bool,
    pub(crate) clock: Clock,
    pub(crate) retention: Duration,
    pub(crate) history: u64,
    pub(crate) page_cache: usize,
    pub(crate) key_provider: Option<Arc<dyn KeyProvider>>,
    pub(crate) background: Option<Background>,
    pub(crate) recovery: Recovery,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: false,
            wait_for_lock: Duration::ZERO,
            read_only: false,
            read_mode: ReadMode::default(),
            durability: Durability::default(),
            maintenance: Maintenance::default(),
            compression: Compression::default(),
            inline_max: 4 << 20,
            log_file_size: 64 << 20,
            memtable_size: 32 << 20,
            max_open_files: None,
            vfs: Arc::new(RealVfs),
            names_on_disk: true,
            clock: Clock::system(),
            retention: Duration::from_secs(24 * 60 * 60),
            history: 64 << 20,
            page_cache: 32 << 20,
            key_provider: None,
            background: None,
            recovery: Recovery::default(),
        }
    }
}

impl Options {
    /// The default options: an existing store, mapped reads, synced writes, a maintenance thread.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the store is created if there is none, with the directories that lead to it. Off by default.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// How long opening waits for another process, or another handle in this one, that has the store open to close it:
    /// then it fails with [`Locked`](crate::Error::Locked), which by default it does at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strongroom::{Error, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let options = Options::new().create(true).wait_for_lock(Duration::from_millis(20));
    /// let store = options.clone().open(dir.path())?;
    /// assert!(matches!(options.clone().open(dir.path()), Err(Error::Locked { .. })));
    /// store.close()?;
    /// options.open(dir.path())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for_lock(mut self, time: Duration) -> Self {
        self.wait_for_lock = time;
        self
    }

    /// Opens an existing store for reading only: it takes no lock, so that any number of processes can read a store
    /// beside the one that writes it, needs no permission to write, changes nothing, and starts no threads. Off by
    /// default.
    ///
    /// The store is seen as of one commit, whatever is written meanwhile, until [`Store::refresh`] moves it forward.
    /// Only what is durable is seen. Writes fail with [`ReadOnly`](crate::Error::ReadOnly). A call that needs a file
    /// that the writer has removed since moves the store forward by itself, and tries again. Handles stay readable as
    /// those of the writer; but where the writer crashes, and the store is opened for writing again, handles on small
    /// content of the very last commits may fail with [`Corrupt`](crate::Error::Corrupt): get them again.
    ///
    /// Names are held in memory once they are first listed, some 100 bytes each. With
    /// [`Recovery::ReadOnlyUpToDamage`] a store with a damaged log is opened up to the damage, and can't be moved
    /// forward.
    ///
    /// ```
    /// # use strongroom::{Algorithm, Error, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = Options::new().create(true).open(dir.path().join("store"))?;
    /// let digest = store.put("content", Algorithm::Sha256)?.digest;
    /// let reader = Options::new().read_only(true).open(dir.path().join("store"))?;
    /// assert_eq!(reader.get(&digest)?.bytes()?, "content");
    /// assert!(matches!(reader.remove(&digest), Err(Error::ReadOnly { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// How sealed files are read.
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.read_mode = mode;
        self
    }

    /// When a write returns: once it is durable, by default.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Which thread folds facts into runs and merges runs.
    pub fn maintenance(mut self, maintenance: Maintenance) -> Self {
        self.maintenance = maintenance;
        self
    }

    /// Whether small content is compressed.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Up to what length, in bytes, content is stored in the log and held in memory while it arrives; 4 MiB by default,
    /// and at most. Longer content gets a segment of its own.
    pub fn inline_max(mut self, bytes: u64) -> Self {
        self.inline_max = bytes.min(4 << 20);
        self
    }

    /// The size that log files grow to, in bytes; 64 MiB by default, at least 16 KiB. A file's space is reserved when
    /// the file is created: for the first one after opening a 64th of the size, 256 KiB at least, then twice as much as
    /// the file before has.
    pub fn log_file_size(mut self, bytes: u64) -> Self {
        self.log_file_size = bytes.clamp(16 << 10, 1 << 40);
        self
    }

    /// How many bytes of facts are held in memory before they become a run; 32 MiB by default. Up to four times as much
    /// is held while runs are being written.
    pub fn memtable_size(mut self, bytes: usize) -> Self {
        self.memtable_size = bytes.max(1 << 10);
        self
    }

    /// How many log files and segments are kept open, and mapped, at a time. By default a quarter of the files that the
    /// process may have open when the store is opened (`RLIMIT_NOFILE`), at least 8 and at most 512. Besides, the
    /// store has its runs open, two files for each write under way, and those of some uploads, up to half of this
    /// number.
    ///
    /// No more of them are mapped than a quarter of the mappings that the process may have (`vm.max_map_count`).
    pub fn max_open_files(mut self, files: usize) -> Self {
        self.max_open_files = Some(files.max(1));
        self
    }

    /// The file system that the store is in, if not the operating system's. The view of names, which is derived and
    /// does not use this interface, is then kept in memory.
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = vfs;
        self.names_on_disk = false;
        self
    }

    /// Where the store takes the time from.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The grace period for unreferenced blobs, counted only while the store is open; 24 hours by default. It begins
    /// anew whenever a client relies on one of these:
    ///
    /// - a blob in a repository that no manifest references: when it is pushed, mounted or
    ///   [claimed](crate::registry::Repository::claim) there, and when a manifest that references it is deleted;
    /// - a blob outside of repositories that no named file holds: when it is [stored](Store::put) or
    ///   [claimed](Store::claim), and when a named file that holds it is replaced or removed, unless that
    ///   [discards](crate::NamedFiles::discarding) its content;
    /// - an upload: when something is appended to it;
    /// - a repository that a push [created](Store::create_on_push) and that has no manifest: when that is called for it
    ///   again, or an upload is begun into it.
    ///
    /// It has to be longer than the longest push takes, from its first blob to its manifest.
    pub fn retention(mut self, open_time: Duration) -> Self {
        self.retention = open_time;
        self
    }

    /// Collects garbage in the background: a thread of the store's own, named `strongroom-gc`, calls [`Store::collect`]
    /// with these options, and waits for this long before each call. Off by default.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strongroom::{CollectOptions, Options};
    ///
    /// let gently = CollectOptions::new().bytes_per_second(64 << 20);
    /// let options = Options::new().collect_every(Duration::from_secs(60), gently);
    /// ```
    pub fn collect_every(mut self, time: Duration, options: CollectOptions) -> Self {
        let time = time.max(Duration::from_millis(1));
        self.background = Some(Background { every: time, options: CollectOptions { explain: false, ..options } });
        self
    }

    /// How many bytes of log files are kept for [`Store::events`] after runs have their facts; 64 MiB by default, at
    /// most 64 files. After a write has failed with [`Full`](crate::Error::Full), the next collection keeps none, nor
    /// does any while the space that is reserved for collection is taken.
    pub fn history(mut self, bytes: u64) -> Self {
        self.history = bytes;
        self
    }

    /// The provider of the key of an encrypted store. A store that is [created](Self::create) with one is encrypted
    /// from the beginning; to encrypt an existing store, see [`Store::encrypt`]. Opening a store needs the key of its
    /// default key domain; domains whose keys can't be unwrapped are [locked](Store::locked_domains).
    ///
    #[cfg_attr(feature = "encryption", doc = "```")]
    #[cfg_attr(not(feature = "encryption"), doc = "```ignore")]
    /// use std::sync::Arc;
    ///
    /// use strongroom::Options;
    /// use strongroom::keys::{LocalKey, SecretKey};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let key = LocalKey::new(SecretKey::generate()?);
    /// let store = Options::new().create(true).key_provider(Arc::new(key)).open(dir.path().join("store"))?;
    /// assert!(store.is_encrypted());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn key_provider(mut self, provider: Arc<dyn KeyProvider>) -> Self {
        self.key_provider = Some(provider);
        self
    }

    /// How many bytes of decrypted pages of facts an encrypted store keeps in memory; 32 MiB by default. Without
    /// encryption those pages are mapped, and the system keeps them.
    pub fn page_cache(mut self, bytes: usize) -> Self {
        self.page_cache = bytes;
        self
    }

    /// How opening treats a damaged log; by default it is refused.
    ///
    /// ```
    /// use strongroom::{Options, Recovery};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # Options::new().create(true).open(dir.path().join("store"))?.close()?;
    /// let store = Options::new().recovery(Recovery::ReadOnlyUpToDamage).open(dir.path().join("store"))?;
    /// if let Some(damage) = store.damage() {
    ///     eprintln!("read-only, as of commit {}: {damage}", store.last_lsn());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    /// Opens the store in a directory.
    ///
    /// Opening makes the process ignore the signal SIGXFSZ, unless the program has set an action for it: where a file
    /// may not become longer (`ulimit -f`), the write then fails with [`Full`](crate::Error::Full), and the process
    /// does not end. Child processes inherit that.
    ///
    /// # Errors
    /// [`NotAStore`](crate::Error::NotAStore) and [`NotEmpty`](crate::Error::NotEmpty) where there is none and none can
    /// be created, [`UnsupportedFileSystem`](crate::Error::UnsupportedFileSystem) where it lacks what a store needs,
    /// [`Locked`](crate::Error::Locked) where somebody has it open and does not close it in
    /// [time](Self::wait_for_lock), [`UnsupportedFormat`](crate::Error::UnsupportedFormat) where another version wrote
    /// it, or a newer one added what this one does not know,
    /// [`KeyRequired`](crate::Error::KeyRequired), [`NotEncrypted`](crate::Error::NotEncrypted) and
    /// [`Key`](crate::Error::Key) where the key is not the one that is needed,
    /// [`EncryptionLeftOut`](crate::Error::EncryptionLeftOut) where the crate was built without the feature
    /// `encryption` and one is, and [`Corrupt`](crate::Error::Corrupt) where facts that were durable are damaged: see
    /// [`recovery`](Self::recovery) and [`salvage`](Self::salvage).
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Store> {
        Store::open_with(self, dir.as_ref())
    }

    /// How many log files and segments are kept open.
    pub(super) fn open_files(&self) -> usize {
        self.max_open_files.unwrap_or_else(limits::open_files)
    }

    /// The grace period for unreferenced blobs and links.
    fn retention_time(&self) -> Retention {
        Retention(milliseconds(self.retention))
    }

    /// How many bytes are kept for giving space back on a full disk: for a small log file, which in recovery has to
    /// take a group of commits, and a new list.
    fn reserve_len(&self) -> u64 {
        self.log_file_size.clamp(64 << 10, 8 << 20) + (64 << 10)
    }

    pub(super) fn files(&self) -> FileOptions {
        FileOptions {
            read_mode: self.read_mode,
            max_open: self.open_files(),
            longest_pack: self.log_file_size.saturating_mul(2),
            reserve: self.reserve_len(),
        }
    }

    pub(super) fn tables(&self) -> TableOptions {
        let Self { memtable_size, history, page_cache, read_mode, .. } = *self;
        TableOptions { memtable_size, history, page_cache, read_mode }
    }

    pub(super) fn log(&self) -> LogOptions {
        let (durability, file_size) = (self.durability, self.log_file_size);
        LogOptions { durability, file_size, retention: self.retention_time() }
    }

    pub(super) fn blobs(&self) -> BlobOptions {
        let Self { inline_max, compression, .. } = *self;
        BlobOptions { inline_max, compression, retention: self.retention_time(), max_open_files: self.open_files() }
    }

    pub(super) fn collections(&self) -> Settings {
        Settings {
            retention: self.retention_time(),
            file_size: self.log_file_size,
            reserve: self.reserve_len(),
            memory: self.memtable_size,
        }
    }
}
