//! Writing runs, front to back, each from facts in the order of their keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::envelope::{FileEnvelope, FileHeader, Keyring, Nonce, Purpose, Sealing};
use crate::error::{Error, Result};
use crate::facts::{Family, Key};
use crate::id::{DomainId, FileId, Lsn};
use crate::tables::runs::columns::{Columns, Shape};
use crate::tables::runs::format::{
    Footer, GuideKind, HEAP, INLINE, KEY_LEN, MAGIC, PAGE, PAGES_AT, Section, TOMBSTONE, encode_trailer, guide_of,
    slot_len,
};
use crate::tables::runs::guide::GuideBuilder;
use crate::tables::runs::hashed;
use crate::tables::{Run, RunId, RunMeta};
use crate::vfs::{File, OpenMode, Vfs};
use crate::wire::{PutFields, crc32c, index, len64};

/// How much is gathered before it is written: so much at such an offset is one piece of the page cache, which a
/// processor's address cache holds in one entry.
const BUFFER: usize = 2 << 20;

/// What is known of a run before it is written: how many entries each family gets at most, and which of their bytes
/// differ.
#[derive(Debug, Default)]
pub(crate) struct Expected(BTreeMap<Family, (usize, Columns)>);

impl Expected {
    /// What a run of these facts is like.
    pub(crate) fn of_facts<'a>(facts: impl IntoIterator<Item = (&'a Key, Option<&'a [u8]>)>) -> Self {
        let mut expected = Self::default();
        for (key, value) in facts {
            let (count, columns) = expected.family(key.family);
            *count += 1;
            columns.add(&key.bytes, value);
        }
        expected
    }

    /// What a run is like into which these are merged.
    pub(crate) fn of_runs(runs: &[Arc<Run>]) -> Self {
        let mut expected = Self::default();
        for section in runs.iter().flat_map(|run| run.sections()) {
            let (count, columns) = expected.family(section.family);
            *count = count.saturating_add(index(section.entries));
            columns.join(&section.shape);
        }
        expected
    }

    fn family(&mut self, family: Family) -> &mut (usize, Columns) {
        self.0.entry(family).or_insert_with(|| (0, Columns::new(family)))
    }
}

/// A fact is none of those that were announced.
const UNEXPECTED: Error = Error::Internal { invariant: "a run is written of the facts that it was begun for" };

/// Writes a file of runs, one behind the other.
#[derive(Debug)]
pub(crate) struct RunFile {
    id: FileId,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Where the last complete run ends. The next one begins with the page behind it.
    end: u64,
    /// How far anything was written.
    reached: u64,
}

impl RunFile {
    /// Creates the file. The caller syncs the directory.
    pub(crate) fn create(vfs: &dyn Vfs, path: &Path, id: FileId) -> Result<Self> {
        let file = vfs.open(path, OpenMode::CreateNew).map_err(Error::io("create", path))?;
        Ok(Self { id, path: path.to_path_buf(), file, end: 0, reached: 0 })
    }

    /// Begins a run of such facts of a domain. What one before has written that was not [completed](RunWriter::finish)
    /// is overwritten.
    pub(crate) fn begin(
        &mut self,
        keys: &Keyring,
        domain: DomainId,
        lsns: (Lsn, Lsn),
        expected: Expected,
    ) -> Result<RunWriter<'_>> {
        let header = FileHeader::new(self.id, keys, domain)?;
        let mut buffer = header.encode(&MAGIC);
        let sealing = FileEnvelope::new(self.id, &buffer).sealing(keys, domain, Purpose::Page)?;
        buffer.resize(index(PAGES_AT), 0);
        let (begins, table) = (self.end.next_multiple_of(PAGE as u64), Vec::new());
        let mut pages = PageWriter { begins, written: begins, file: self, buffer, count: 0, table, sealing };
        pages.flush_raw()?;
        let (section, sections) = (None, Vec::new());
        Ok(RunWriter { header, pages, lsns, expected, section, sections, entries: 0, tombstones: 0 })
    }

    /// Makes its content durable, without what a last run has written that was not completed.
    pub(crate) fn sync(&self) -> Result<()> {
        if self.reached > self.end {
            self.file.set_len(self.end).map_err(Error::io("cut", &self.path))?;
        }
        self.file.sync().map_err(Error::io("sync", &self.path))
    }
}

/// Writes a run.
///
/// In memory it holds the guide of the section that it is at (1.8 bytes a key; 8 where lines are chosen by hash) and,
/// for families whose values differ in length, that section's entries (43 bytes each at most).
#[derive(Debug)]
pub(crate) struct RunWriter<'f> {
    header: FileHeader,
    pages: PageWriter<'f>,
    lsns: (Lsn, Lsn),
    expected: Expected,
    section: Option<Building>,
    sections: Vec<Section>,
    entries: u64,
    tombstones: u64,
}

/// The section that facts go to.
#[derive(Debug)]
struct Building {
    section: Section,
    /// The entries' page that is being filled, or all of their pages where the heap is written first.
    entries: Vec<u8>,
    last: Option<[u8; KEY_LEN]>,
    guide: Guide,
}

#[derive(Debug)]
enum Guide {
    None,
    Ordered(GuideBuilder),
    Hashed(hashed::Builder),
}

impl Guide {
    fn new(family: Family, most_keys: usize) -> Self {
        match guide_of(family) {
            GuideKind::None => Self::None,
            GuideKind::Ordered => Self::Ordered(GuideBuilder::new(most_keys)),
            GuideKind::Hashed => Self::Hashed(hashed::Builder::new(most_keys)),
        }
    }

    fn push(&mut self, key: &[u8; KEY_LEN]) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Ordered(guide) => guide.push(key),
            Self::Hashed(guide) => guide.push(key),
        }
    }

    /// How many lines there are, and the lines.
    fn finish(self) -> (usize, Vec<u8>) {
        match self {
            Self::None => (0, Vec::new()),
            Self::Ordered(guide) => (guide.lines(), guide.finish()),
            Self::Hashed(guide) => (guide.lines(), guide.finish()),
        }
    }
}

impl RunWriter<'_> {
    /// Adds a fact, whose key is behind that of the fact before.
    pub(crate) fn push(&mut self, key: &Key, value: Option<&[u8]>) -> Result<()> {
        if self.section.as_ref().is_none_or(|building| building.section.family != key.family) {
            self.end_section()?;
            let (most, columns) = self.expected.0.get(&key.family).ok_or(UNEXPECTED)?;
            self.section = Some(Building::new(key.family, columns.shape(), self.pages.page(), *most));
        }
        let building = self.section.as_mut().filter(|building| building.last.is_none_or(|last| last < key.bytes));
        debug_assert!(building.is_some(), "keys in order");
        let building = building.ok_or(Error::Internal { invariant: "facts come to a run in the order of keys" })?;
        building.last = Some(key.bytes);
        let section = &mut building.section;
        let mut slot = Vec::with_capacity(slot_len(key.family));
        match (value, key.family.value_len()) {
            (None, _) => slot.put_u8(TOMBSTONE),
            (Some(value), Some(_)) => {
                slot.put_u8(INLINE);
                slot.put(value);
            }
            (Some(value), None) => {
                slot.put_u8(HEAP);
                slot.put_u48(section.heap_len);
                slot.put_len32(value.len());
                section.heap_len += len64(value);
                self.pages.write(value)?;
            }
        }
        slot.resize(slot_len(key.family), 0);
        if PAGE - building.entries.len() % PAGE < section.shape.width() {
            building.entries.resize(building.entries.len().next_multiple_of(PAGE), 0);
            if key.family.value_len().is_some() {
                self.pages.write(&building.entries)?;
                building.entries.clear();
            }
        }
        if !section.shape.pack(&key.bytes, &slot, &mut building.entries) {
            return Err(UNEXPECTED);
        }
        if section.entries >= u64::from(u32::MAX) {
            let limit = u32::MAX.into();
            return Err(Error::TooLarge { what: "the number of facts in a run", limit, found: section.entries + 1 });
        }
        building.guide.push(&key.bytes)?;
        section.entries += 1;
        self.entries += 1;
        self.tombstones += u64::from(value.is_none());
        Ok(())
    }

    fn end_section(&mut self) -> Result<()> {
        let Some(Building { mut section, entries, guide, .. }) = self.section.take() else { return Ok(()) };
        self.pages.pad()?;
        if section.family.value_len().is_none() {
            section.entries_page = self.pages.page();
        }
        self.pages.write(&entries)?;
        self.pages.pad()?;
        section.guide_page = self.pages.page();
        let (lines, guide) = guide.finish();
        section.guide_lines = lines as u64;
        self.pages.write(&guide)?;
        self.pages.pad()?;
        self.sections.push(section);
        Ok(())
    }

    /// Completes the run. It is durable when its file is.
    pub(crate) fn finish(mut self, level: u8) -> Result<RunMeta> {
        self.end_section()?;
        self.pages.pad()?;
        self.pages.flush_pages()?;
        let table = std::mem::take(&mut self.pages.table);
        let mut footer = Footer {
            at: self.pages.begins,
            pages: self.pages.count,
            lsn_min: self.lsns.0,
            lsn_max: self.lsns.1,
            sections: self.sections,
            table_crcs: table.chunks(PAGE).map(crc32c).collect(),
        }
        .encode();
        if let Some(sealing) = &self.pages.sealing {
            sealing.cipher.seal_vec(FOOTER_NONCE, &self.header.encode(&MAGIC), &mut footer)?;
        }
        self.pages.buffer.put(&table);
        let footer_offset = self.pages.written - self.pages.begins + len64(&self.pages.buffer);
        self.pages.buffer.put(&footer);
        self.pages.buffer.put(&encode_trailer(footer_offset, &footer));
        self.pages.flush_raw()?;
        let (at, end) = (self.pages.begins, self.pages.written);
        self.pages.file.end = end;
        Ok(RunMeta {
            id: RunId { file: self.header.id, at },
            level,
            domain: self.header.domain,
            key: self.header.key,
            entries: self.entries,
            tombstones: self.tombstones,
            lsn_min: self.lsns.0,
            lsn_max: self.lsns.1,
            len: end - at,
        })
    }
}

impl Building {
    fn new(family: Family, shape: Shape, page: u64, most_entries: usize) -> Self {
        let section = Section {
            family,
            shape,
            entries: 0,
            entries_page: page,
            heap_page: page,
            heap_len: 0,
            guide_page: page,
            guide_lines: 0,
        };
        let guide = Guide::new(family, most_entries);
        Self { section, entries: Vec::new(), last: None, guide }
    }
}

/// Writes whole pages behind each other, encrypted or with checksums.
#[derive(Debug)]
struct PageWriter<'f> {
    file: &'f mut RunFile,
    /// Where in the file the run begins.
    begins: u64,
    buffer: Vec<u8>,
    /// How far the file is written.
    written: u64,
    /// How many pages were written.
    count: u64,
    /// Their checksums, or tags.
    table: Vec<u8>,
    sealing: Option<Sealing>,
}

/// Where the footer stands among the pages.
pub(super) const FOOTER_NONCE: Nonce = Nonce { prefix: 0, number: 1 };

impl PageWriter<'_> {
    /// The number of the page that begins here. Only where the last one is full.
    fn page(&self) -> u64 {
        (self.written - self.begins - PAGES_AT + len64(&self.buffer)) / PAGE as u64
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(BUFFER) {
            self.buffer.put(part);
            self.flush_full()?;
        }
        Ok(())
    }

    /// Writes out what makes a whole piece with what is written.
    fn flush_full(&mut self) -> Result<()> {
        loop {
            let room = BUFFER - index(self.written) % BUFFER;
            if self.buffer.len() < room {
                return Ok(());
            }
            self.flush(room)?;
        }
    }

    /// Fills the last page with zeros.
    fn pad(&mut self) -> Result<()> {
        self.buffer.resize(self.buffer.len().next_multiple_of(PAGE), 0);
        self.flush_full()
    }

    /// Writes out all pages. The last one is full.
    fn flush_pages(&mut self) -> Result<()> {
        self.flush(self.buffer.len())
    }

    /// Writes out so many bytes of whole pages.
    fn flush(&mut self, len: usize) -> Result<()> {
        let rest = self.buffer.split_off(len);
        for page in self.buffer.chunks_mut(PAGE) {
            match &self.sealing {
                None => self.table.put_u32(crc32c(page)),
                Some(sealing) => self.table.put(&sealing.cipher.seal(Nonce::new(self.count, 0), &[], page)?),
            }
            self.count += 1;
        }
        self.flush_raw()?;
        self.buffer = rest;
        Ok(())
    }

    fn flush_raw(&mut self) -> Result<()> {
        let RunFile { file, path, .. } = &*self.file;
        file.write_all_at(&self.buffer, self.written).map_err(Error::io("write", path))?;
        self.written += len64(&self.buffer);
        self.file.reached = self.file.reached.max(self.written);
        self.buffer.clear();
        Ok(())
    }
}
