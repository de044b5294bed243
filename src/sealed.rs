//! Sealed files, which are never written again: read block by block, each verified when it is first touched.
//!
//! The first touch of a block has the system read it, so that a disk error is an error, and compares its checksum: of
//! content of several blocks a step of the mapping is [brought into memory](File::populate); what is short, or where
//! that fails, is read by position. Then a bit is set, and further touches go to the mapping as it is. There is one bit
//! for every [`Grain`] of the file; a block has the bit of the grain in which it begins. Two blocks that are at least
//! as long as a grain can't begin in the same one, so the bit is exact for them. Shorter ones have none. Of small
//! content there is a bit for each page instead, that it was read by position before: from then on it is taken from the
//! mapping, and compared each time. What else is shorter than a grain is compared each time.

use std::cell::RefCell;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use bytes::Bytes;

use crate::envelope::FileEnvelope;
use crate::error::{Damage, Error, Result, room};
use crate::prefetch::prefetch;
use crate::sync::lock;
use crate::thread::{lend, side_by_side};
use crate::vfs::File;
use crate::wire::{crc32c, index};
use crate::zeroing::Zeroizing;

/// How sealed files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// By mapping them into memory: reads without a copy. Each block is brought into memory by a call, and verified,
    /// when it is first touched, so that damage and read errors are errors. A disk that fails later, when the system
    /// has dropped a page and reads it again, ends the process with `SIGBUS`, as for every program that maps files; so
    /// does a file that somebody else has made shorter.
    #[default]
    Mapped,
    /// By position only. Every read copies, and is verified; nothing is mapped.
    Positioned,
}

/// How many files may be mapped at a time: the system allows a process about 65,000 mappings.
#[derive(Debug)]
pub(crate) struct MappingBudget {
    left: AtomicUsize,
}

impl MappingBudget {
    /// A budget of `files` mappings, or of none where reads are positioned.
    pub(crate) fn new(mode: ReadMode, files: usize) -> Arc<Self> {
        let left = if mode == ReadMode::Mapped { files } else { 0 };
        Arc::new(Self { left: AtomicUsize::new(left) })
    }

    fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// A mapping that gives its place in the budget back when the last holder of a part of it is gone.
struct Counted {
    bytes: Bytes,
    budget: Arc<MappingBudget>,
    _held: Arc<()>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.budget.left.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long a block is at least that is remembered as verified, in bytes. What it takes to remember them grows with the
/// file's length over this: 2 MiB for a segment of 1 TiB, 64 KiB for a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grain {
    /// Small content, in log files and packs.
    Small = 128,
    /// The pages of runs.
    Page = 4096,
    /// The blocks of segments.
    Block = 65_536,
}

/// The length of the pages of which it is remembered that they were read, in bytes.
const PAGE: u64 = 4096;

/// A bit for each part of a file.
#[derive(Debug)]
struct Bits {
    /// How long a part is, as a power of two: to shift takes less time than to divide.
    log2: u32,
    words: OnceLock<Vec<AtomicU64>>,
}

/// One of them.
#[derive(Clone, Copy)]
struct Bit<'a>(&'a AtomicU64, u64);

impl Bits {
    fn new(part: u64) -> Self {
        Self { log2: part.trailing_zeros(), words: OnceLock::new() }
    }

    /// The bit of the part with this number, of a file of this length.
    fn get(&self, number: u64, file_len: u64) -> Option<Bit<'_>> {
        let words = || (0..=(file_len >> self.log2) / 64).map(|_| AtomicU64::new(0)).collect();
        let word = self.words.get_or_init(words).get(index(number / 64))?;
        Some(Bit(word, 1 << (number % 64)))
    }

    /// Has the processor fetch the bit of an offset.
    fn prefetch(&self, offset: u64) {
        let word = index((offset >> self.log2) / 64);
        if let Some(words) = self.words.get().and_then(|words| words.get(word..)) {
            prefetch(words);
        }
    }
}

impl Bit<'_> {
    fn is_set(self) -> bool {
        self.0.load(Ordering::Relaxed) & self.1 != 0
    }

    fn set(self) {
        self.0.fetch_or(self.1, Ordering::Relaxed);
    }
}

thread_local! {
    /// Where blocks are read to that are only compared.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An open sealed file.
#[derive(Debug)]
pub(crate) struct SealedFile {
    path: PathBuf,
    file: Arc<dyn File>,
    len: u64,
    map: Option<Bytes>,
    /// The grains in which blocks begin that were verified.
    verified: Bits,
    /// The pages that were read by position, where content is small.
    pages: Option<Bits>,
    /// What derives the keys of what is encrypted in it.
    envelope: Option<FileEnvelope>,
    /// Shared with all that was handed out of the mapping.
    held: Arc<()>,
}

/// Verified bytes of a file: a part of its mapping, or a copy.
#[derive(Debug)]
pub(crate) enum Block<'a> {
    Mapped(&'a [u8]),
    Copied(Vec<u8>),
    /// A decrypted page of a run.
    Kept(Arc<Zeroizing<Vec<u8>>>),
}

impl Deref for Block<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Copied(bytes) => bytes,
            Self::Kept(page) => page,
        }
    }
}

impl SealedFile {
    /// Up to this length bytes of a mapping are copied. That takes 0.1 µs for 4 KiB and 0.9 µs for 16 KiB, beside the
    /// 0.5 µs of a look-up; 64 KiB would take 4 µs.
    pub(crate) const COPIED: usize = 16 << 10;

    /// So much of a mapping is brought into memory, and verified, at a time: some 120 µs.
    const STEP: usize = 1 << 20;

    /// From so many bytes on a thread is started, which takes some 30 µs, to verify them in half the time.
    const MANY: usize = 8 << 20;

    /// Takes an open file of `len` bytes and maps it, if the budget allows and the system does.
    pub(crate) fn new(
        path: PathBuf,
        file: Arc<dyn File>,
        len: u64,
        grain: Grain,
        mappings: &Arc<MappingBudget>,
    ) -> Self {
        let held = Arc::new(());
        let map = (len > 0 && mappings.take()).then(|| {
            let counted =
                |bytes| Bytes::from_owner(Counted { bytes, budget: Arc::clone(mappings), _held: Arc::clone(&held) });
            match file.map() {
                Ok(bytes) => Some(counted(bytes)),
                Err(_) => {
                    drop(counted(Bytes::new())); // no mapping to be had: reads are positioned
                    None
                }
            }
        });
        let pages = (grain == Grain::Small).then(|| Bits::new(PAGE));
        let (verified, map) = (Bits::new(grain as u64), map.flatten());
        Self { path, file, len, map, verified, pages, envelope: None, held }
    }

    /// Sets what derives the keys of what is encrypted in it.
    pub(crate) fn set_envelope(&mut self, envelope: FileEnvelope) {
        self.envelope = Some(envelope);
    }

    /// What derives the keys of what is encrypted in it.
    pub(crate) fn envelope(&self) -> Option<&FileEnvelope> {
        self.envelope.as_ref()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// What lives while somebody can read from the file.
    pub(crate) fn held(&self) -> Weak<()> {
        Arc::downgrade(&self.held)
    }

    pub(crate) fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// The bytes of a block, whose checksum is `crc`.
    pub(crate) fn block(&self, offset: u64, len: usize, crc: u32) -> Result<Block<'_>> {
        self.block_with(offset, len, || Ok(crc))
    }

    /// [`block`](Self::block), with a checksum that has to be looked up: only where the block was not verified before.
    pub(crate) fn block_with(&self, offset: u64, len: usize, crc: impl FnOnce() -> Result<u32>) -> Result<Block<'_>> {
        let Some(mapped) = self.mapped(offset, len)? else {
            return self.checked(offset, len, crc()?).map(Block::Copied);
        };
        let Some(bit) = self.bit(offset, len) else {
            let crc = crc()?;
            if self.pages.is_some() && self.page_bits(offset, len).all(|bit| bit.is_some_and(Bit::is_set)) {
                self.compare(offset, mapped, crc)?;
                return Ok(Block::Mapped(mapped));
            }
            let copied = self.checked(offset, len, crc)?;
            self.page_bits(offset, len).flatten().for_each(Bit::set);
            return Ok(Block::Copied(copied));
        };
        if !bit.is_set() {
            if self.pages.is_some() && len <= Self::COPIED {
                // It will be copied anyhow: to have the system map it now would take longer than that.
                let copied = self.checked(offset, len, crc()?)?;
                bit.set();
                return Ok(Block::Copied(copied));
            }
            self.check(offset, len, crc()?)?;
            bit.set();
        }
        Ok(Block::Mapped(mapped))
    }

    /// The bits of the pages that a block touches, which remember that a read error there would have been an error:
    /// where content is small.
    fn page_bits(&self, offset: u64, len: usize) -> impl Iterator<Item = Option<Bit<'_>>> {
        let pages = offset / PAGE..(offset + len as u64).div_ceil(PAGE);
        self.pages.iter().flat_map(move |bits| pages.clone().map(|page| bits.get(page, self.len)))
    }

    /// Verifies blocks of a mapped file that lie one behind the other, with these checksums: of `block_len` bytes each,
    /// but for the last one. Many are verified on two threads.
    pub(crate) fn verify(&self, offset: u64, len: usize, block_len: usize, crcs: &[[u8; 4]]) -> Result<()> {
        let Some(mapped) = self.mapped(offset, len)? else { return Ok(()) };
        let is_unread = |(block, at): &(&[u8], u64)| self.bit(*at, block.len()).is_some_and(|bit| !bit.is_set());
        let unread = mapped.chunks(block_len).zip((offset..).step_by(block_len)).filter(is_unread).count();
        let steps =
            (offset..).step_by(Self::STEP).zip(mapped.chunks(Self::STEP)).zip(crcs.chunks(Self::STEP / block_len));
        let steps = Mutex::new(steps);
        let work = || {
            loop {
                let Some(((at, step), crcs)) = lock(&steps).next() else { return Ok(()) };
                self.verify_step(at, step, block_len, crcs)?;
            }
        };
        if unread * block_len >= Self::MANY { side_by_side("strongroom-verify", work) } else { work() }
    }

    fn verify_step(&self, offset: u64, mapped: &[u8], block_len: usize, crcs: &[[u8; 4]]) -> Result<()> {
        let mut is_there = None;
        for ((block, at), crc) in mapped.chunks(block_len).zip((offset..).step_by(block_len)).zip(crcs) {
            let bit = self.bit(at, block.len());
            if bit.is_some_and(Bit::is_set) {
                continue;
            }
            let left = mapped.len() - index(at - offset);
            let crc = u32::from_le_bytes(*crc);
            if *is_there.get_or_insert_with(|| self.populate(at, left)) {
                self.compare(at, block, crc)?;
            } else {
                self.check(at, block.len(), crc)?;
            }
            bit.into_iter().for_each(Bit::set);
        }
        Ok(())
    }

    /// Brings a part of the mapping into memory; `false` where it has to be read by position.
    fn populate(&self, offset: u64, len: usize) -> bool {
        let start = index(offset);
        self.map.as_ref().is_some_and(|map| self.file.populate(map, start..start + len))
    }

    /// [`block`](Self::block), as bytes that do not borrow from the file.
    pub(crate) fn bytes(&self, offset: u64, len: usize, crc: u32) -> Result<Bytes> {
        match self.block(offset, len, crc)? {
            Block::Mapped(_) => self.bytes_verified(offset, len),
            Block::Copied(bytes) => Ok(bytes.into()),
            Block::Kept(page) => Ok(Bytes::copy_from_slice(&page)),
        }
    }

    /// Copies bytes of the file as they are: from the mapping, if they were [seen](Self::mark) before, so that a read
    /// error is an error.
    pub(crate) fn copy_to(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        if let Some(seen) = self.seen(offset, out.len())? {
            out.copy_from_slice(seen);
            return Ok(());
        }
        self.read_into(offset, out)
    }

    /// [`copy_to`](Self::copy_to), behind what is in a vector: without filling it with zeros before.
    pub(crate) fn append_to(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        if let Some(seen) = self.seen(offset, len)? {
            out.extend_from_slice(seen);
            return Ok(());
        }
        let filled = out.len();
        out.try_reserve(len).map_err(|_| Error::no_memory(&self.path))?;
        out.resize(filled + len, 0);
        self.read_into(offset, out.split_at_mut(filled).1)
    }

    /// A part of the mapping that was [read](Self::mark) before.
    pub(crate) fn seen(&self, offset: u64, len: usize) -> Result<Option<&[u8]>> {
        Ok(self.mapped(offset, len)?.filter(|_| self.bit(offset, len).is_some_and(Bit::is_set)))
    }

    /// Remembers that bytes were read, and were what they should be.
    pub(crate) fn mark(&self, offset: u64, len: usize) {
        if self.map.is_some() {
            self.bit(offset, len).into_iter().for_each(Bit::set);
        }
    }

    /// Bytes of the file as they are.
    pub(crate) fn bytes_unverified(&self, offset: u64, len: usize) -> Result<Bytes> {
        if len <= Self::COPIED || !self.is_mapped() {
            return self.read(offset, len).map(Bytes::from);
        }
        self.bytes_verified(offset, len)
    }

    /// Bytes of the file whose blocks were verified. Few are copied, so that a document that somebody keeps does not
    /// keep a mapping of 64 MiB alive; more keep it.
    pub(crate) fn bytes_verified(&self, offset: u64, len: usize) -> Result<Bytes> {
        if let Some(mapped) = self.mapped(offset, len)?
            && let (Some(map), Ok(start)) = (&self.map, usize::try_from(offset))
        {
            if len <= Self::COPIED {
                return Ok(Bytes::copy_from_slice(mapped));
            }
            return Ok(map.slice(start..start + len));
        }
        self.read(offset, len).map(Bytes::from)
    }

    /// A part of the mapping; an error where it lies outside of the file.
    fn mapped(&self, offset: u64, len: usize) -> Result<Option<&[u8]>> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.len);
        let end = end.ok_or_else(|| Error::corrupt(&self.path, self.len, Damage::Truncated))?;
        let Some(map) = &self.map else { return Ok(None) };
        let range = index(offset)..index(end);
        map.get(range).map(Some).ok_or_else(|| Error::corrupt(&self.path, map.len() as u64, Damage::Truncated))
    }

    /// The bit that remembers a block as verified; none where it is shorter than a grain.
    fn bit(&self, offset: u64, len: usize) -> Option<Bit<'_>> {
        let log2 = self.verified.log2;
        if len as u64 >> log2 == 0 { None } else { self.verified.get(offset >> log2, self.len) }
    }

    /// Has the processor fetch what lies at an offset, where that is mapped, and what is remembered of it.
    pub(crate) fn prefetch(&self, offset: u64) {
        if let Some(bytes) = self.map.as_ref().and_then(|map| map.get(index(offset)..)) {
            prefetch(bytes);
            self.verified.prefetch(offset);
        }
    }

    /// Reads by position and compares the checksum.
    fn checked(&self, offset: u64, len: usize, crc: u32) -> Result<Vec<u8>> {
        let bytes = self.read(offset, len)?;
        self.compare(offset, &bytes, crc)?;
        Ok(bytes)
    }

    /// [`checked`](Self::checked) for callers that do not need the copy: it is made where the last one was, so that it
    /// stays in the processor's cache.
    fn check(&self, offset: u64, len: usize, crc: u32) -> Result<()> {
        if len > Grain::Block as usize {
            return self.checked(offset, len, crc).map(drop); // a table: long ones are not kept
        }
        lend(&SCRATCH, |scratch| {
            scratch.resize(len, 0);
            self.read_into(offset, scratch)?;
            self.compare(offset, scratch, crc)
        })
    }

    fn compare(&self, offset: u64, bytes: &[u8], crc: u32) -> Result<()> {
        let found = crc32c(bytes);
        if found == crc {
            return Ok(());
        }
        Err(Error::corrupt(&self.path, offset, Damage::Checksum { expected: crc, found }))
    }

    /// Reads by position, whatever is there.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.mapped(offset, len)?; // before anything is allocated
        let mut bytes = room(&self.path, len)?;
        bytes.resize(len, 0);
        self.read_into(offset, &mut bytes)?;
        Ok(bytes)
    }

    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::corrupt(&self.path, offset, Damage::Truncated),
            _ => Error::io("read", &self.path)(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{OpenMode, RealVfs, SimVfs, Vfs};

    fn file(content: &[u8]) -> (tempfile::TempDir, PathBuf, Arc<dyn File>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, content).unwrap();
        let file = RealVfs.open(&path, OpenMode::Write).unwrap();
        (dir, path, file)
    }

    #[test]
    fn damage_is_found_when_a_block_is_first_touched_in_either_mode() {
        let content: Vec<u8> = (0..20_000u32).map(|i| i.to_le_bytes()[0]).collect();
        for mode in [ReadMode::Mapped, ReadMode::Positioned] {
            let (_dir, path, handle) = file(&content);
            let budget = MappingBudget::new(mode, 1);
            let sealed = SealedFile::new(path, Arc::clone(&handle), 20_000, Grain::Small, &budget);
            assert_eq!(sealed.is_mapped(), mode == ReadMode::Mapped);
            let (block, short) = (&content[4096..8192], &content[10_000..10_100]);
            assert_eq!(&*sealed.block(4096, 4096, crc32c(block)).unwrap(), block);
            assert_eq!(&sealed.bytes(10_000, 100, crc32c(short)).unwrap()[..], short);
            handle.write_all_at(b"!", 15_000).unwrap();
            handle.write_all_at(b"!", 10_050).unwrap();
            let untouched = crc32c(&content[12_288..16_384]);
            let damaged = |result: Result<Block<'_>>| match result.map(|_| ()) {
                Err(Error::Corrupt { offset, damage: Damage::Checksum { .. }, .. }) => offset,
                other => panic!("{other:?}"),
            };
            assert_eq!(damaged(sealed.block(12_288, 4096, untouched)), 12_288);
            assert_eq!(damaged(sealed.block(10_000, 100, crc32c(short))), 10_000);
        }
    }

    #[test]
    fn a_disk_error_or_damage_in_many_blocks_is_an_error_at_its_block() {
        const BLOCK: usize = 64 << 10;
        let content: Vec<u8> = (0..160 * BLOCK as u32 + 1000).map(|i| (i >> 8).to_le_bytes()[0]).collect();
        let crcs: Vec<_> = content.chunks(BLOCK).map(|block| crc32c(block).to_le_bytes()).collect();
        let path = std::path::Path::new("/f");
        for (threads, bad) in [(None, 0), (Some(0), 3), (None, 70), (None, 159), (None, 160)] {
            let disk = SimVfs::new();
            let handle = disk.open(path, OpenMode::CreateNew).unwrap();
            handle.write_all_at(&content, 0).unwrap();
            let budget = MappingBudget::new(ReadMode::Mapped, 3);
            let open =
                || SealedFile::new(path.into(), Arc::clone(&handle), content.len() as u64, Grain::Block, &budget);
            let all = |file: &SealedFile| file.verify(0, content.len(), BLOCK, &crcs);
            let (seen, damaged, unread) = (open(), open(), (bad * BLOCK) as u64);
            crate::thread::limit_threads(threads);
            all(&seen).unwrap();
            let calls = disk.calls();
            all(&seen).unwrap();
            assert_eq!(disk.calls() - calls, 1, "only the last one, which is short, is read again");
            disk.flip_bit(path, 8 * unread + 5).unwrap();
            let error = all(&damaged).unwrap_err();
            assert!(matches!(error, Error::Corrupt { offset, .. } if offset == unread), "{error}");
            disk.flip_bit(path, 8 * unread + 5).unwrap();
            disk.fail_reads(path, unread..unread + 1);
            let failing = open();
            assert!(matches!(all(&failing), Err(Error::Io { .. })), "block {bad}");
            crate::thread::limit_threads(None);
            for (number, block) in content.chunks(BLOCK).enumerate() {
                let read = failing.verify((number * BLOCK) as u64, block.len(), BLOCK, &crcs[number..=number]);
                assert_eq!(read.is_err(), number == bad, "{number}");
            }
        }
    }

    #[test]
    fn what_lies_outside_of_the_file_is_cut_off() {
        let (_dir, path, handle) = file(&[1; 1000]);
        let sealed = SealedFile::new(path, handle, 1000, Grain::Small, &MappingBudget::new(ReadMode::Mapped, 1));
        for (offset, len) in [(999, 2), (1001, 0), (u64::MAX, 1), (0, usize::MAX)] {
            let result = sealed.bytes_unverified(offset, len);
            assert!(matches!(result, Err(Error::Corrupt { damage: Damage::Truncated, .. })), "{offset} {len}");
        }
    }

    #[test]
    fn a_file_that_can_not_be_mapped_is_read_by_position() {
        let disk = SimVfs::new();
        let handle = disk.open(std::path::Path::new("/f"), OpenMode::CreateNew).unwrap();
        let content = [7; 5000];
        handle.write_all_at(&content, 0).unwrap();
        let budget = MappingBudget::new(ReadMode::Mapped, 1);
        let open = || SealedFile::new("/f".into(), Arc::clone(&handle), 5000, Grain::Small, &budget);
        disk.shortage_during(disk.calls() + 1..disk.calls() + 2);
        let file = open();
        assert!(!file.is_mapped());
        assert_eq!(file.bytes(0, 5000, crc32c(&content)).unwrap(), content[..]);
        assert!(open().is_mapped(), "what could not be mapped takes nothing of the budget");
    }

    #[test]
    fn a_length_that_there_is_no_memory_for_is_an_error() {
        let (_dir, path, handle) = file(&[1; 1000]);
        let budget = MappingBudget::new(ReadMode::Positioned, 1);
        let sealed = SealedFile::new(path, handle, 1 << 62, Grain::Small, &budget);
        assert!(sealed.read(0, 1 << 61).unwrap_err().is_shortage());
        assert!(sealed.append_to(0, 1 << 61, &mut Vec::new()).unwrap_err().is_shortage());
    }

    #[test]
    fn past_the_budget_files_are_not_mapped_until_a_mapping_is_gone() {
        let content = [1; 20_000];
        let (_dir, path, handle) = file(&content);
        let budget = MappingBudget::new(ReadMode::Mapped, 1);
        let open = || SealedFile::new(path.clone(), Arc::clone(&handle), 20_000, Grain::Small, &budget);
        let first = open();
        assert!(first.is_mapped() && !open().is_mapped());
        let held = first.bytes(0, 20_000, crc32c(&content)).unwrap();
        let few = first.bytes(0, 10_000, crc32c(&content[..10_000])).unwrap();
        drop(first);
        assert!(!open().is_mapped(), "a part of the mapping is still held");
        drop(held);
        assert!(open().is_mapped(), "few bytes are copied");
        assert_eq!(few, content[..10_000]);
    }
}
