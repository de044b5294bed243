//! Names on sled 0.34.7, with what that version needs to be used safely.
//!
//! - A kill while it writes a snapshot leaves a `snap.*.generating` that makes the next opening fail: such files are
//!   removed first.
//! - Opening, reading and writing may panic, or hang, on damage: opening runs on a thread of its own with a deadline, and
//!   every call is inside `catch_unwind`.
//! - Its memory grows with the size of batches and with what waits to be flushed: batches are small.
//! - Its file never shrinks: a view that is rebuilt begins in an empty directory.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::names::{Backend, Change, Failed};

/// The key of the watermark: no kind of name has the number 0.
const WATERMARK: &[u8] = &[0];

/// An opening that takes longer counts as failed. 5 million keys take 2.7 s.
const DEADLINE: Duration = Duration::from_secs(10);

const CACHE: u64 = 32 << 20;

pub(super) struct SledBackend {
    /// None once closed.
    db: Option<sled::Db>,
}

impl SledBackend {
    /// Opens what is in a directory.
    pub(super) fn open(dir: &Path) -> Result<Self, Failed> {
        for entry in std::fs::read_dir(dir).map_err(|_| Failed)?.flatten() {
            if entry.file_name().to_string_lossy().ends_with(".generating") {
                std::fs::remove_file(entry.path()).map_err(|_| Failed)?;
            }
        }
        let (sender, receiver) = sync_channel(1);
        let path = dir.to_path_buf();
        std::thread::Builder::new()
            .name("strongroom-names".into())
            .spawn(move || {
                let config = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(Some(500));
                let opened = catch_unwind(AssertUnwindSafe(|| config.mode(sled::Mode::LowSpace).open()));
                let _ = sender.send(opened); // nobody waits any more after the deadline
            })
            .map_err(|_| Failed)?;
        match receiver.recv_timeout(DEADLINE) {
            Ok(Ok(Ok(db))) => Ok(Self { db: Some(db) }),
            _ => Err(Failed),
        }
    }

    /// Begins anew in a directory, whatever is in it.
    pub(super) fn create(dir: &Path) -> Result<Self, Failed> {
        if dir.is_dir() {
            std::fs::remove_dir_all(dir).map_err(|_| Failed)?;
        } else if dir.exists() {
            std::fs::remove_file(dir).map_err(|_| Failed)?;
        }
        std::fs::create_dir_all(dir).map_err(|_| Failed)?;
        Self::open(dir)
    }

    fn with<T>(&self, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, Failed> {
        let db = self.db.as_ref().ok_or(Failed)?;
        catch_unwind(AssertUnwindSafe(|| call(db))).map_err(|_| Failed)?.map_err(|_| Failed)
    }
}

impl Backend for SledBackend {
    fn write(&mut self, changes: &[(Vec<u8>, Change)], watermark: Option<&[u8]>) -> Result<(), Failed> {
        self.with(|db| {
            let mut batch = sled::Batch::default();
            for (key, change) in changes {
                match change {
                    Change::Set => batch.insert(key.as_slice(), &[]),
                    Change::Remove => batch.remove(key.as_slice()),
                }
            }
            if let Some(watermark) = watermark {
                batch.insert(WATERMARK, watermark);
            }
            db.apply_batch(batch)
        })
    }

    fn keys_after(&self, after: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Failed> {
        self.with(|db| {
            let keys = db.range::<&[u8], _>((Bound::Excluded(after), Bound::Unbounded)).keys();
            let same_kind =
                |key: &sled::Result<sled::IVec>| key.as_ref().map_or(true, |key| key.first() == after.first());
            keys.take_while(same_kind).take(limit).map(|key| Ok(key?.to_vec())).collect()
        })
    }

    fn watermark(&self) -> Result<Option<Vec<u8>>, Failed> {
        self.with(|db| Ok(db.get(WATERMARK)?.map(|watermark| watermark.to_vec())))
    }

    fn close(&mut self) {
        let _ = self.with(|db| db.flush().map(drop)); // what it loses is rebuilt
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

impl Drop for SledBackend {
    fn drop(&mut self) {
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}
