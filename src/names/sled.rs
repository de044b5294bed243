//! Names on sled 0.34.7, with what that version needs to be used safely.
//!
//! - A kill while it writes a snapshot leaves a `snap.*.generating` that makes the next opening fail: such files are
//!   removed first.
//! - Opening, reading and writing may panic, or hang: every call, also the last, which drops it, is made through a
//!   [guard](super::guard). Its own thread panics where it can't be started, within opening.
//! - It follows links, also to write and to remove: where the directory is one, or has one in it, or a file that has
//!   another name too, [it is removed](super::place) and not opened.
//! - It takes several hundred bytes of memory a key, whatever its cache may hold: keys are kept in pages, of which each
//!   is one entry. A million names are then 40,000 entries.
//! - Its memory grows with the size of batches and with what waits to be flushed: batches are small.
//! - Its file never shrinks: a view that is rebuilt begins in an empty directory.
//!
//! A page lies under its first key. Its value is its keys, in order, without their [head](HEAD), which they share:
//! `length u16 | bytes` each. Where the store is encrypted, pages lie under numbers and are [encrypted](super::seal),
//! whole keys in them, and an index in memory has their order. So that no page can be taken away, or an older one be
//! put back, there is a *sum* of all pages behind the watermark, encrypted with it: `key 32 | sum 16`. The sum is the
//! exclusive or of a keyed hash of each page and its number, under a key that is drawn for the directory. Where it is
//! another than that of the pages found, the view is not trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::envelope::Keys;
use crate::id::DomainId;
use crate::names::seal::Seal;
use crate::names::{Backend, Change, Failed, KeyList, KeyRange, PREFIX_LEN};
use crate::random::random;
use crate::sync::lock;
use crate::wire::{Fields, PutFields};

/// The key of the watermark: no kind of name has the number 0.
const WATERMARK: &[u8] = &[0];

/// How often opening is tried again, every 20 ms, while sled still has its lock.
const LOCK_TRIES: u32 = 100;

const CACHE: u64 = 32 << 20;

/// A page with more bytes than this is divided.
const PAGE: usize = 1024;

/// So many pages are written in one batch.
const PAGES_PER_BATCH: usize = 256;

/// How many bytes all keys of a page have in common: kind and domain.
const HEAD: usize = PREFIX_LEN;

/// Where a page lies that has names in it, in an encrypted view.
const NUMBER: u8 = 1;

pub(super) struct SledBackend {
    /// None once closed.
    db: Mutex<Option<sled::Db>>,
    seal: Option<Sealed>,
}

/// What an encrypted view has in memory.
struct Sealed {
    seal: Seal,
    index: Mutex<Index>,
}

/// The numbers of pages, by their first keys.
#[derive(Default)]
struct Index {
    pages: BTreeMap<Vec<u8>, u64>,
    next: u64,
    sum: Sum,
}

/// What shows that pages, as they lie in sled, are those that were written last.
#[derive(Clone, Default, PartialEq, Eq)]
struct Sum {
    key: [u8; 32],
    sum: [u8; 16],
}

impl Sum {
    const LEN: usize = 48;

    /// Takes a page in, or out if it is in.
    fn toggle(&mut self, under: &[u8], value: &[u8]) {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        let hash = hasher.update(under).update(value).finalize(); // numbers are all of one length
        self.sum.iter_mut().zip(hash.as_bytes()).for_each(|(sum, hash)| *sum ^= hash);
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self { key: fields.array()?, sum: fields.array()? })
    }
}

/// Keys that begin alike, in order.
type Page = BTreeSet<Vec<u8>>;

impl SledBackend {
    /// Opens what is in a directory; `None` where somebody else has it open.
    pub(super) fn open(dir: &Path, keys: &Keys) -> Result<Option<Self>, Failed> {
        let seal = Seal::new(keys)?.map(|seal| Sealed { seal, index: Mutex::default() });
        let Some(db) = Self::open_db(dir)? else { return Ok(None) };
        let backend = Self { db: Mutex::new(Some(db)), seal };
        if let Some(sealed) = &backend.seal {
            let index = backend.with(|db| sealed.read_index(db))?;
            *lock(&sealed.index) = index;
        }
        Ok(Some(backend))
    }

    fn open_db(dir: &Path) -> Result<Option<sled::Db>, Failed> {
        for entry in std::fs::read_dir(dir).map_err(|_| Failed)?.flatten() {
            if entry.file_name().to_string_lossy().ends_with(".generating") {
                std::fs::remove_file(entry.path()).map_err(|_| Failed)?;
            }
        }
        // It begins with the time since 1970, and panics where there is none.
        if SystemTime::now() < SystemTime::UNIX_EPOCH {
            return Err(Failed);
        }
        let config = sled::Config::new().path(dir).cache_capacity(CACHE).flush_every_ms(Some(500));
        let config = config.mode(sled::Mode::LowSpace);
        // The lock of a view that was closed a moment ago, in this process, is released by a thread of sled's. If it is
        // not, a call on that view hangs.
        for _ in 0..LOCK_TRIES {
            match config.open() {
                Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {}
                opened => return opened.map(Some).map_err(|_| Failed),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(None)
    }

    fn with<T>(&self, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, Failed> {
        let db = lock(&self.db).clone().ok_or(Failed)?;
        call(&db).map_err(|_| Failed)
    }
}

impl Backend for SledBackend {
    fn write(&self, changes: &[(Vec<u8>, Change)], watermark: Option<&[u8]>) -> Result<(), Failed> {
        if let Some(sealed) = &self.seal {
            return self.with(|db| sealed.write(db, changes, watermark));
        }
        self.with(|db| {
            let mut changes = changes.iter().peekable();
            let (mut batch, mut pages) = (sled::Batch::default(), 0);
            while let Some((key, _)) = changes.peek() {
                let old = page_of(db, key)?;
                let end = db.get_gt(old.as_ref().map_or(key.as_slice(), |(at, _)| at))?.map(|(at, _)| at);
                let kind = key.get(..HEAD);
                let (at, mut keys) = old.map_or((None, Page::new()), |(at, keys)| (Some(at), keys));
                let belongs = |key: &[u8]| key.get(..HEAD) == kind && end.as_ref().is_none_or(|end| *key < **end);
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

    fn keys_in(&self, range: &KeyRange) -> Result<KeyList, Failed> {
        if let Some(sealed) = &self.seal {
            return self.with(|db| sealed.keys_in(db, range));
        }
        self.with(|db| {
            let mut keys = Vec::new();
            let first = page_of(db, &range.after)?.map(|(at, _)| at);
            let from = first.as_deref().unwrap_or(&range.after);
            for page in db.range::<&[u8], _>((Bound::Included(from), Bound::Unbounded)) {
                let (at, page) = page?;
                if keys.len() >= range.limit || *at >= *range.end {
                    break;
                }
                keys.extend(parse(&at, &page)?.into_iter().filter(|key| range.contains(key)));
            }
            keys.truncate(range.limit);
            Ok(keys)
        })
    }

    fn watermark(&self) -> Result<Option<Vec<u8>>, Failed> {
        self.with(|db| {
            let watermark = db.get(WATERMARK)?.map(|watermark| watermark.to_vec());
            match (&self.seal, watermark) {
                (Some(sealed), Some(watermark)) => sealed.watermark(&watermark).map(|(watermark, _)| Some(watermark)),
                (_, watermark) => Ok(watermark),
            }
        })
    }

    fn close(&self) {
        let _ = self.with(|db| db.flush().map(drop)); // what it loses is rebuilt
        let db = lock(&self.db).take();
        drop(db);
    }
}

impl Sealed {
    fn open(&self, under: &[u8], value: &[u8]) -> sled::Result<Option<Vec<u8>>> {
        self.seal.open(under, value).map_err(|Failed| damaged())
    }

    /// Decrypts a watermark and the sum behind it.
    fn watermark(&self, sealed: &[u8]) -> sled::Result<(Vec<u8>, Sum)> {
        let mut watermark = self.open(WATERMARK, sealed)?.ok_or_else(damaged)?;
        let sum = watermark.split_off(watermark.len().saturating_sub(Sum::LEN));
        Ok((watermark, Sum::parse(&sum).ok_or_else(damaged)?))
    }

    /// Reads all pages for where they begin, and fails where they are not those that the watermark was written with.
    /// Those of domains that were shredded are removed.
    fn read_index(&self, db: &sled::Db) -> sled::Result<Index> {
        let expected = db.get(WATERMARK)?.map(|sealed| self.watermark(&sealed)).transpose()?;
        let key = match &expected {
            Some((_, sum)) => sum.key,
            None => random().map_err(|_| damaged())?,
        };
        let mut index = Index { sum: Sum { key, sum: [0; 16] }, ..Index::default() };
        let mut shredded = Vec::new();
        for entry in db.scan_prefix([NUMBER]) {
            let (under, value) = entry?;
            index.sum.toggle(&under, &value);
            let number = under.get(1..).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
            let number = number.ok_or_else(damaged)?;
            index.next = index.next.max(number + 1);
            match self.open(&under, &value)? {
                Some(page) => {
                    let first = first_key(&page).ok_or_else(damaged)?;
                    index.pages.insert(first, number);
                }
                None => shredded.push((under, value)),
            }
        }
        if expected.is_some_and(|(_, expected)| expected != index.sum) {
            return Err(damaged());
        }
        for (under, value) in shredded {
            db.remove(&under)?;
            index.sum.toggle(&under, &value);
        }
        Ok(index)
    }

    fn page(&self, db: &sled::Db, number: u64) -> sled::Result<Page> {
        let under = number_key(number);
        self.parse(&under, &db.get(&under)?.ok_or_else(damaged)?)
    }

    fn parse(&self, under: &[u8], value: &[u8]) -> sled::Result<Page> {
        let page = self.open(under, value)?.unwrap_or_default();
        let (head, rest) = page.split_at_checked(HEAD.min(page.len())).unwrap_or_default();
        parse(head, rest)
    }

    /// Readers wait for a batch of pages to be taken in, not for pages to be read, encrypted or flushed.
    fn write(&self, db: &sled::Db, changes: &[(Vec<u8>, Change)], watermark: Option<&[u8]>) -> sled::Result<()> {
        let mut changes = changes.iter().peekable();
        let mut replaced = Replaced::default();
        while let Some((key, _)) = changes.peek() {
            let head = key.get(..HEAD).unwrap_or_default().to_vec();
            // What waits in the batch is about keys before these.
            let index = lock(&self.index);
            let (old, end) = (index.page_of(key), index.next_behind(key));
            drop(index);
            let old = old.filter(|(first, _)| first.starts_with(&head));
            let mut keys = Page::new();
            if let Some((first, number)) = old {
                let under = number_key(number);
                let value = db.get(&under)?.ok_or_else(damaged)?;
                keys = self.parse(&under, &value)?;
                replaced.old.push((first, under, value));
            }
            let belongs = |key: &[u8]| key.starts_with(&head) && end.as_ref().is_none_or(|end| key < end.as_slice());
            while let Some((key, change)) = changes.next_if(|(key, _)| belongs(key)) {
                match change {
                    Change::Set => keys.insert(key.clone()),
                    Change::Remove => keys.remove(key),
                };
            }
            let domain = head.get(1..).and_then(|domain| domain.try_into().ok()).map(u32::from_be_bytes);
            let domain = DomainId(domain.ok_or_else(damaged)?);
            if self.seal.is_gone(domain) {
                keys.clear();
            }
            for (first, page) in divided(&keys) {
                let number = lock(&self.index).next_number();
                let under = number_key(number);
                let page = [head.as_slice(), &page].concat();
                let value = self.seal.seal(domain, &under, &page).map_err(|Failed| damaged())?;
                replaced.new.push((first.to_vec(), number, value));
            }
            if replaced.new.len() >= PAGES_PER_BATCH {
                self.apply(db, std::mem::take(&mut replaced), None)?;
            }
        }
        self.apply(db, replaced, watermark)?;
        if watermark.is_some() { db.flush().map(drop) } else { Ok(()) }
    }

    /// Has pages take the place of others, in one step.
    fn apply(&self, db: &sled::Db, replaced: Replaced, watermark: Option<&[u8]>) -> sled::Result<()> {
        let mut index = lock(&self.index);
        let mut batch = sled::Batch::default();
        for (first, under, value) in replaced.old {
            index.sum.toggle(&under, &value);
            index.pages.remove(&first);
            batch.remove(under);
        }
        for (first, number, value) in replaced.new {
            let under = number_key(number);
            index.sum.toggle(&under, &value);
            index.pages.insert(first, number);
            batch.insert(under, value);
        }
        if let Some(watermark) = watermark {
            let Sum { key, sum } = &index.sum;
            let watermark = [watermark, key, sum].concat();
            let sealed = self.seal.seal(DomainId::DEFAULT, WATERMARK, &watermark).map_err(|Failed| damaged())?;
            batch.insert(WATERMARK, sealed);
        }
        db.apply_batch(batch)
    }

    fn keys_in(&self, db: &sled::Db, range: &KeyRange) -> sled::Result<KeyList> {
        // Held meanwhile: a page that is written anew gets another number.
        let index = lock(&self.index);
        let after = range.after.as_slice();
        let first = index.pages.range::<[u8], _>((Bound::Unbounded, Bound::Included(after))).next_back();
        let from = first.map_or(after, |(first, _)| first.as_slice());
        let mut keys = Vec::new();
        for (first, number) in index.pages.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if keys.len() >= range.limit || *first >= range.end {
                break;
            }
            let page = self.page(db, *number)?;
            keys.extend(page.into_iter().filter(|key| range.contains(key)));
        }
        keys.truncate(range.limit);
        Ok(keys)
    }
}

impl KeyRange {
    fn contains(&self, key: &[u8]) -> bool {
        key > self.after.as_slice() && key < self.end.as_slice()
    }
}

/// Pages that are no more, by their first keys, and those in their place, by these and their numbers.
#[derive(Default)]
struct Replaced {
    old: Vec<(Vec<u8>, Vec<u8>, sled::IVec)>,
    new: Vec<(Vec<u8>, u64, Vec<u8>)>,
}

impl Index {
    /// The last page that does not begin behind a key.
    fn page_of(&self, key: &[u8]) -> Option<(Vec<u8>, u64)> {
        let page = self.pages.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        page.map(|(first, number)| (first.clone(), *number))
    }

    /// Where the first page begins that begins behind a key.
    fn next_behind(&self, key: &[u8]) -> Option<Vec<u8>> {
        let next = self.pages.range::<[u8], _>((Bound::Excluded(key), Bound::Unbounded)).next();
        next.map(|(first, _)| first.clone())
    }

    fn next_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }
}

fn number_key(number: u64) -> Vec<u8> {
    [&[NUMBER][..], &number.to_be_bytes()].concat()
}

/// The first key of a decrypted page, which begins with what its keys have in common.
fn first_key(page: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Fields(page);
    let head = fields.bytes(HEAD)?;
    Some([head, fields.bytes16()?].concat())
}

/// The page that a key belongs to, and where it lies: the last that does not begin behind it.
fn page_of(db: &sled::Db, key: &[u8]) -> sled::Result<Option<(sled::IVec, Page)>> {
    match db.range::<&[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back().transpose()? {
        Some((at, page)) if at.get(..HEAD) == key.get(..HEAD) => parse(&at, &page).map(|keys| Some((at, keys))),
        _ => Ok(None),
    }
}

/// Parses a page as a plain view has it and as an encrypted one has it.
#[cfg(feature = "fuzzing")]
pub(super) fn parse_any(bytes: &[u8]) {
    let _ = parse(&[1; HEAD], bytes);
    let _ = first_key(bytes);
}

fn damaged() -> sled::Error {
    sled::Error::Unsupported("a page that this backend did not write".into())
}

/// The keys in a page that lies under `at`.
fn parse(at: &[u8], page: &[u8]) -> sled::Result<Page> {
    let mut fields = Fields(page);
    let mut keys = Page::new();
    while !fields.is_empty() {
        let rest = fields.bytes16().ok_or_else(damaged)?;
        keys.insert(at.iter().take(HEAD).chain(rest).copied().collect());
    }
    Ok(keys)
}

/// Keys as pages of bounded size, each with the key that it lies under.
fn divided(keys: &Page) -> Vec<(&[u8], Vec<u8>)> {
    let mut pages: Vec<(&[u8], Vec<u8>)> = Vec::new();
    for key in keys {
        let rest = key.get(HEAD..).unwrap_or_default();
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
