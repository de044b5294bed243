//! Names on sled 0.34.7, with what that version needs to be used safely.
//!
//! - A kill while it writes a snapshot leaves a `snap.*.generating` that makes the next opening fail: such files are
//!   removed first.
//! - Opening, reading and writing may panic, or hang, on damage: opening runs on a thread of its own with a deadline, and
//!   every call is inside `catch_unwind`.
//! - It takes several hundred bytes of memory a key, whatever its cache may hold: keys are kept in pages, of which each is one
//!   entry. A million names are then 40,000 entries.
//! - Its memory grows with the size of batches and with what waits to be flushed: batches are small.
//! - Its file never shrinks: a view that is rebuilt begins in an empty directory.
//!
//! A page lies under its first key. Its value is its keys, in order, without their first byte, which they share: `length u16 |
//! bytes` each.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::names::{Backend, Change, Changes, Failed};
use crate::sync::lock;
use crate::wire::{Fields, PutFields};

/// The key of the watermark: no kind of name has the number 0.
const WATERMARK: &[u8] = &[0];

/// An opening that takes longer counts as failed. 5 million keys take 2.7 s.
const DEADLINE: Duration = Duration::from_secs(10);

const CACHE: u64 = 32 << 20;

/// A page with more bytes than this is divided.
const PAGE: usize = 1024;

/// So many pages are written in one batch.
const PAGES_PER_BATCH: usize = 256;

pub(super) struct SledBackend {
    /// None once closed.
    db: Mutex<Option<sled::Db>>,
}

/// Keys that begin with the same byte, in order.
type Page = BTreeSet<Vec<u8>>;

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
            Ok(Ok(Ok(db))) => Ok(Self { db: Mutex::new(Some(db)) }),
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
        let db = lock(&self.db).clone().ok_or(Failed)?;
        catch_unwind(AssertUnwindSafe(|| call(&db))).map_err(|_| Failed)?.map_err(|_| Failed)
    }
}

impl Backend for SledBackend {
    fn write(&self, changes: &Changes, watermark: Option<&[u8]>) -> Result<(), Failed> {
        self.with(|db| {
            let mut changes = changes.iter().peekable();
            let (mut batch, mut pages) = (sled::Batch::default(), 0);
            while let Some((key, _)) = changes.peek() {
                let old = page_of(db, key)?;
                let end = db.get_gt(old.as_ref().map_or(key.as_slice(), |(at, _)| at))?.map(|(at, _)| at);
                let kind = key.first().copied();
                let (at, mut keys) = old.map_or((None, Page::new()), |(at, keys)| (Some(at), keys));
                let belongs = |key: &[u8]| key.first().copied() == kind && end.as_ref().is_none_or(|end| *key < **end);
                while let Some((key, change)) = changes.next_if(|(key, _)| belongs(key)) {
                    match change {
                        Change::Set => keys.insert(key.clone()),
                        Change::Remove => keys.remove(key),
                    };
                }
                at.iter().for_each(|at| batch.remove(at));
                for (first, page) in divided(&keys) {
                    batch.insert(first, page);
                    pages += 1;
                }
                if pages >= PAGES_PER_BATCH {
                    db.apply_batch(std::mem::take(&mut batch))?;
                    pages = 0;
                }
            }
            if let Some(watermark) = watermark {
                batch.insert(WATERMARK, watermark);
            }
            db.apply_batch(batch)?;
            // To the system, so that a kill does not leave the view behind the log.
            if watermark.is_some() { db.flush().map(drop) } else { Ok(()) }
        })
    }

    fn keys_between(&self, after: &[u8], end: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Failed> {
        self.with(|db| {
            let mut keys = Vec::new();
            let first = page_of(db, after)?.map(|(at, _)| at);
            let from = first.as_deref().unwrap_or(after);
            for page in db.range::<&[u8], _>((Bound::Included(from), Bound::Unbounded)) {
                let (at, page) = page?;
                if keys.len() >= limit || *at >= *end {
                    break;
                }
                keys.extend(
                    parse(&at, &page)?.into_iter().filter(|key| key.as_slice() > after && key.as_slice() < end),
                );
            }
            keys.truncate(limit);
            Ok(keys)
        })
    }

    fn watermark(&self) -> Result<Option<Vec<u8>>, Failed> {
        self.with(|db| Ok(db.get(WATERMARK)?.map(|watermark| watermark.to_vec())))
    }

    fn close(&self) {
        let _ = self.with(|db| db.flush().map(drop)); // what it loses is rebuilt
        let db = lock(&self.db).take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

impl Drop for SledBackend {
    fn drop(&mut self) {
        let db = lock(&self.db).take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

/// The page that a key belongs to, and where it lies: the last that does not begin behind it.
fn page_of(db: &sled::Db, key: &[u8]) -> sled::Result<Option<(sled::IVec, Page)>> {
    match db.range::<&[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back().transpose()? {
        Some((at, page)) if at.first() == key.first() => parse(&at, &page).map(|keys| Some((at, keys))),
        _ => Ok(None),
    }
}

/// The keys in a page that lies under `at`.
fn parse(at: &[u8], page: &[u8]) -> sled::Result<Page> {
    let damaged = || sled::Error::Unsupported("a page that this backend did not write".into());
    let mut fields = Fields(page);
    let mut keys = Page::new();
    while !fields.is_empty() {
        let rest = fields.bytes16().ok_or_else(damaged)?;
        keys.insert(at.iter().take(1).chain(rest).copied().collect());
    }
    Ok(keys)
}

/// Keys as pages of bounded size, each with the key that it lies under.
fn divided(keys: &Page) -> Vec<(&[u8], Vec<u8>)> {
    let mut pages: Vec<(&[u8], Vec<u8>)> = Vec::new();
    for key in keys {
        let rest = key.get(1..).unwrap_or_default();
        if pages.last().is_none_or(|(_, page)| page.len() + rest.len() > PAGE) {
            pages.push((key, Vec::new()));
        }
        if let Some((_, page)) = pages.last_mut() {
            page.put_u16(u16::try_from(rest.len()).unwrap_or(u16::MAX));
            page.put(rest);
        }
    }
    pages
}
