//! Reading a run.

use std::cmp::Ordering;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::envelope::{FileEnvelope, FileHeader, Keyring, Nonce, Purpose, Sealing};
use crate::error::{Damage, Error, Result};
use crate::facts::{Fact, Family, Key, MAX_VALUE, Value, prefix};
use crate::id::{DomainId, Lsn};
use crate::sealed::{Block, Grain, MappingBudget, SealedFile};
use crate::tables::runs::format::{
    Footer, GuideKind, HEAP, INLINE, MAGIC, PAGE, PAGES_AT, Section, TOMBSTONE, TRAILER_LEN, entries_per_page,
    entry_len, guide_of, parse_trailer,
};
use crate::tables::runs::guide::{LINE, Line, place};
use crate::tables::runs::hashed;
use crate::tables::runs::writer::FOOTER_NONCE;
use crate::tables::{PageCache, RunId, RunMeta};
use crate::vfs::{OpenMode, Vfs};
use crate::wire::{Fields, crc32c, index};
use crate::zeroing::Zeroizing;

/// A key that is looked up in runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe<'a> {
    pub(crate) key: &'a Key,
    kind: GuideKind,
    /// Where lines are chosen by it.
    hash: u64,
}

impl<'a> Probe<'a> {
    pub(crate) fn new(key: &'a Key) -> Self {
        let kind = guide_of(key.family);
        Self { key, kind, hash: if kind == GuideKind::Hashed { hashed::hash(&key.bytes) } else { 0 } }
    }

    /// The number of its line among so many.
    fn line(&self, lines: u64) -> u64 {
        match self.kind {
            GuideKind::Hashed => hashed::place(self.hash, lines).0,
            GuideKind::Ordered | GuideKind::None => place(&self.key.bytes, lines).0,
        }
    }
}

/// What a guide says of a key.
#[derive(Debug)]
pub(crate) enum Lead {
    /// It is not in the section.
    Absent,
    /// If it is there, then among these entries.
    Among(Range<u64>),
    /// If it is there, then it is one of these entries, as many as are counted.
    OneOf([u32; hashed::SLOTS], usize),
}

/// An open run.
#[derive(Debug)]
pub(crate) struct Run {
    header: FileHeader,
    id: RunId,
    /// Where in the file its pages begin.
    pages_at: u64,
    /// Where in the file their table does.
    table_at: u64,
    /// There are others in it.
    file: Arc<SealedFile>,
    /// How it is encrypted, if it is, and where its pages are kept then.
    sealing: Option<(Sealing, Arc<PageCache>)>,
    footer: Footer,
    /// Where in the footer the section of a family stands, by the family's number.
    by_family: [u8; 32],
}

/// No section.
const NONE: u8 = u8::MAX;

/// So many pages of a new run are read and verified at a time.
const AT_ONCE: u64 = 256;

/// Among so few entries a search goes by halves at once.
const FEW: u64 = 16;

/// After so many guesses by interpolation a search goes on by halves, whatever the keys are.
const GUESSES: u32 = 6;

/// Opens a file of runs.
pub(crate) fn open_file(vfs: &dyn Vfs, path: &Path, mappings: &Arc<MappingBudget>) -> Result<Arc<SealedFile>> {
    let file = vfs.open(path, OpenMode::Read).map_err(Error::opening(path))?;
    let len = file.len().map_err(Error::io("read the length of", path))?;
    Ok(Arc::new(SealedFile::new(path.to_path_buf(), file, len, Grain::Page, mappings)))
}

impl Run {
    /// Opens a run in a file: reads its header and footer, and nothing that grows with it.
    pub(crate) fn open(file: &Arc<SealedFile>, meta: &RunMeta, keys: &Keyring, cache: &Arc<PageCache>) -> Result<Self> {
        let RunMeta { id, domain, key, len, .. } = *meta;
        let (file, begins) = (Arc::clone(file), id.at);
        let corrupt = |offset, damage| Error::corrupt(file.path(), begins + offset, damage);
        if file.len() < begins.saturating_add(len) {
            return Err(Error::corrupt(file.path(), file.len(), Damage::Truncated));
        }
        let encoded = file.read(begins, 512)?;
        let header = FileHeader::parse(&encoded, &MAGIC);
        let belongs = |header: &FileHeader| header.is_of(id.file, keys.store, domain, key);
        let header = header.filter(belongs).ok_or_else(|| corrupt(0, Damage::Invalid("run header")))?;
        let sealing = match key {
            0 if keys.accepts_plain => None,
            0 => return Err(corrupt(0, Damage::NotSealed)),
            _ => {
                let sealing = FileEnvelope::new(id.file, &encoded).opening(keys, domain, key, Purpose::Page);
                let sealing = sealing.ok_or_else(|| corrupt(0, Damage::Invalid("key number")))?;
                Some((sealing, Arc::clone(cache)))
            }
        };
        let at = len.saturating_sub(TRAILER_LEN);
        let trailer = parse_trailer(&file.read(begins + at, 24)?, len);
        let (offset, footer_len, expected) = trailer.ok_or_else(|| corrupt(at, Damage::Invalid("run trailer")))?;
        let mut bytes = file.read(begins + offset, footer_len)?;
        if crc32c(&bytes) != expected {
            return Err(corrupt(offset, Damage::Checksum { expected, found: crc32c(&bytes) }));
        }
        if let Some((sealing, _)) = &sealing {
            let opened = sealing.cipher.open_vec(FOOTER_NONCE, &encoded, &bytes);
            bytes = opened.map_err(|_| corrupt(offset, Damage::Seal))?;
        }
        let footer = Footer::parse(&bytes, key).filter(|footer| footer.at == begins);
        let footer = footer.ok_or_else(|| corrupt(offset, Damage::Invalid("run footer")))?;
        let pages_len = footer.pages * PAGE as u64;
        if PAGES_AT + pages_len + entry_len(key) * footer.pages != offset {
            return Err(corrupt(offset, Damage::Invalid("run footer")));
        }
        let mut by_family = [NONE; 32];
        for (section, number) in footer.sections.iter().zip(0..) {
            let place = by_family.get_mut(usize::from(section.family as u8));
            *place.ok_or_else(|| corrupt(offset, Damage::Invalid("run footer")))? = number;
        }
        let pages_at = begins + PAGES_AT;
        Ok(Self { header, id, pages_at, table_at: pages_at + pages_len, file, sealing, footer, by_family })
    }

    /// Reads and verifies all pages of a run that was just written, so that no look-up has to. What can't be read, or
    /// is damaged, is left to those look-ups that need it.
    pub(crate) fn verify_ahead(&self) {
        if self.sealing.is_some() || !self.file.is_mapped() {
            return; // nothing is remembered of its pages
        }
        let mut first = 0;
        while first < self.footer.pages {
            let count = AT_ONCE.min(self.footer.pages - first);
            let at = self.pages_at + first * PAGE as u64;
            let Ok(bytes) = self.file.read(at, index(count) * PAGE) else { return };
            for (page, number) in bytes.chunks(PAGE).zip(first..) {
                let expected = self.table_entry(number).ok().and_then(|entry| Fields(&entry).u32());
                if expected == Some(crc32c(page)) {
                    self.file.mark(self.pages_at + number * PAGE as u64, PAGE);
                }
            }
            first += count;
        }
    }

    /// The last commit of which it has facts.
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.footer.lsn_max
    }

    /// The key domain of its facts.
    pub(crate) fn domain(&self) -> DomainId {
        self.header.domain
    }

    pub(crate) fn id(&self) -> RunId {
        self.id
    }

    /// The file that it lies in.
    pub(crate) fn file(&self) -> &Arc<SealedFile> {
        &self.file
    }

    /// Reads all pages: those of the guide too, without which look-ups do.
    pub(crate) fn verify(&self) -> Result<()> {
        (0..self.footer.pages).try_for_each(|number| self.page(number).map(drop))
    }

    /// Goes through all facts: what can be known of them without the guide.
    pub(crate) fn verify_facts(&self) -> Result<()> {
        self.footer
            .sections
            .iter()
            .try_for_each(|section| self.iter(section.family, [0; 32]).try_for_each(|fact| fact.map(drop)))
    }

    /// What the run says of a key: `None` if nothing, `Some(None)` that it is gone, else what `read` makes of the
    /// value. Its [`lead`](Self::lead) is looked for where it is not given.
    pub(crate) fn get<T>(
        &self,
        probe: &Probe<'_>,
        lead: Option<Lead>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<Option<T>>> {
        let Some(section) = self.section(probe.key.family) else { return Ok(None) };
        let Some(lead) = lead.or_else(|| self.lead(probe)) else { return Ok(None) };
        let Some(number) = self.find(section, probe, lead)? else { return Ok(None) };
        let (page, at) = self.locate(section, number)?;
        self.value(section, page.get(at..at + section.shape.width()), read).map(Some)
    }

    /// Has the processor fetch the line of the guide that a look-up of a key begins with.
    pub(crate) fn prefetch_line(&self, probe: &Probe<'_>) {
        if let Some(section) = self.section(probe.key.family).filter(|section| section.guide_lines > 0)
            && self.sealing.is_none()
        {
            let line = probe.line(section.guide_lines) * LINE as u64;
            self.file.prefetch(self.pages_at + section.guide_page * PAGE as u64 + line);
        }
    }

    /// Asks the guide for a key, and has the processor fetch what it leads to; `None` where the key is not there.
    pub(crate) fn lead(&self, probe: &Probe<'_>) -> Option<Lead> {
        let section = self.section(probe.key.family)?;
        let lead = self.guided(section, probe);
        let number = match &lead {
            Lead::Absent => return None,
            Lead::Among(range) => range.start,
            Lead::OneOf(numbers, _) => numbers.first().copied().unwrap_or(0).into(),
        };
        if self.sealing.is_none() {
            let (page, at) = section.place(number);
            self.file.prefetch(self.pages_at + page * PAGE as u64 + at as u64);
        }
        Some(lead)
    }

    /// The number of a key's entry.
    fn find(&self, section: &Section, probe: &Probe<'_>, lead: Lead) -> Result<Option<u64>> {
        let key = &probe.key.bytes;
        let range = match lead {
            Lead::Absent => return Ok(None),
            Lead::Among(range) => range,
            Lead::OneOf(numbers, count) => {
                for number in numbers.into_iter().take(count).map(u64::from) {
                    if number < section.entries && self.key(section, number)? == *key {
                        return Ok(Some(number));
                    }
                }
                return Ok(None);
            }
        };
        let (number, is_there) = self.search(section, key, range)?;
        Ok(is_there.then_some(number))
    }

    /// The facts of a family, tombstones among them, in the order of their keys, from one on.
    pub(crate) fn iter(&self, family: Family, from: [u8; 32]) -> RunIter<'_> {
        RunIter { run: self, section: self.section(family), from: Some(from), index: 0, last: None, page: None }
    }

    fn section(&self, family: Family) -> Option<&Section> {
        let number = *self.by_family.get(usize::from(family as u8))?;
        self.footer.sections.get(usize::from(number))
    }

    /// Its sections.
    pub(crate) fn sections(&self) -> &[Section] {
        &self.footer.sections
    }

    /// What the guide says of a key: nothing, where there is none or it is damaged.
    fn guided(&self, section: &Section, probe: &Probe<'_>) -> Lead {
        let all = || Lead::Among(0..section.entries);
        let lead = self.line(section, probe, |line| match probe.kind {
            GuideKind::Hashed => match hashed::Line(line).entries(hashed::place(probe.hash, section.guide_lines).1) {
                None => all(),
                Some((_, 0)) => Lead::Absent,
                Some((numbers, count)) => Lead::OneOf(numbers, count),
            },
            GuideKind::Ordered | GuideKind::None => match Line(line) {
                line if line.may_contain(&probe.key.bytes) => Lead::Among(part(section, line, &probe.key.bytes)),
                _ => Lead::Absent,
            },
        });
        lead.unwrap_or_else(all)
    }

    /// The entries among which a key is, if anywhere, or would be.
    fn range(&self, section: &Section, key: &Key) -> Range<u64> {
        let probe = Probe::new(key);
        let in_order = || self.line(section, &probe, |line| part(section, Line(line), &key.bytes));
        (probe.kind == GuideKind::Ordered).then(in_order).flatten().unwrap_or(0..section.entries)
    }

    /// What `read` makes of a key's line of the guide; `None` where there is no guide, or the line can't be read.
    fn line<T>(&self, section: &Section, probe: &Probe<'_>, read: impl FnOnce(&[u8; LINE]) -> T) -> Option<T> {
        let at = (section.guide_lines > 0).then(|| probe.line(section.guide_lines) * LINE as u64)?;
        let page = self.page(section.guide_page + at / PAGE as u64).ok()?;
        page.get(index(at % PAGE as u64)..)?.first_chunk().map(read)
    }

    /// The first entry of a range whose key is not below `key`, and whether it is that key.
    fn search(&self, section: &Section, key: &[u8; 32], range: Range<u64>) -> Result<(u64, bool)> {
        let target = prefix(key);
        let (mut low, mut high) = (range.start, range.end);
        // Between these are the prefixes of the keys in the range, as far as is known.
        let (mut low_prefix, mut high_prefix) = (0, u64::MAX);
        let mut guesses = 0;
        while low < high {
            let middle = if high - low > FEW && guesses < GUESSES {
                // In 32 bits, so that the product fits into 64: there are fewer than 2^32 entries.
                let spread: u64 = high_prefix.saturating_sub(low_prefix);
                let shift = 32u32.saturating_sub(spread.leading_zeros());
                let ahead = target.saturating_sub(low_prefix) >> shift;
                low + (ahead.min(u64::from(u32::MAX)) * (high - low) / ((spread >> shift) + 1)).min(high - low - 1)
            } else {
                low + (high - low) / 2
            };
            guesses += 1;
            let found = self.key(section, middle)?;
            match prefix(&found).cmp(&target).then_with(|| found.cmp(key)) {
                Ordering::Equal => return Ok((middle, true)),
                Ordering::Less => (low, low_prefix) = (middle + 1, prefix(&found)),
                Ordering::Greater => (high, high_prefix) = (middle, prefix(&found)),
            }
        }
        Ok((low, false))
    }

    /// The page of an entry, and where in it the entry begins.
    fn locate(&self, section: &Section, index: u64) -> Result<(Block<'_>, usize)> {
        let (page, at) = section.place(index);
        Ok((self.page(page)?, at))
    }

    /// The key of an entry.
    fn key(&self, section: &Section, number: u64) -> Result<[u8; 32]> {
        let (page, at) = self.locate(section, number)?;
        let key = page.get(at..).and_then(|entry| section.shape.key(entry));
        key.ok_or_else(|| self.invalid(section, number))
    }

    /// What `read` makes of the value that an entry holds or leads to.
    fn value<T>(&self, section: &Section, entry: Option<&[u8]>, read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        let slot = entry.and_then(|entry| section.shape.slot(entry, |slot| self.value_of(section, slot, read)));
        slot.unwrap_or_else(|| Err(self.invalid(section, 0)))
    }

    fn value_of<T>(&self, section: &Section, slot: &[u8], read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        let invalid = || self.invalid(section, 0);
        let (tag, rest) = slot.split_first().ok_or_else(invalid)?;
        match (*tag, section.family.value_len()) {
            (TOMBSTONE, _) => Ok(None),
            (INLINE, Some(_)) => Ok(Some(read(rest))),
            (HEAP, None) => {
                let mut fields = Fields(rest);
                let place = fields.u48().zip(fields.u32());
                let (offset, len) = place.ok_or_else(invalid)?;
                let len = usize::try_from(len).ok().filter(|len| *len <= MAX_VALUE).ok_or_else(invalid)?;
                let end = offset.checked_add(len as u64).filter(|end| *end <= section.heap_len).ok_or_else(invalid)?;
                let mut value = Vec::with_capacity(len);
                for page in offset / PAGE as u64..end.div_ceil(PAGE as u64) {
                    let bytes = self.page(section.heap_page + page)?;
                    let start = page * PAGE as u64;
                    let from = usize::try_from(offset.saturating_sub(start)).map_err(|_| invalid())?;
                    let to = usize::try_from((end - start).min(PAGE as u64)).map_err(|_| invalid())?;
                    value.extend_from_slice(bytes.get(from..to).ok_or_else(invalid)?);
                }
                Ok(Some(read(&value)))
            }
            _ => Err(invalid()),
        }
    }

    /// The verified bytes of a page.
    fn page(&self, number: u64) -> Result<Block<'_>> {
        let offset = self.pages_at + number * PAGE as u64;
        let Some((sealing, cache)) = &self.sealing else {
            return self.file.block_with(offset, PAGE, || {
                let entry = self.table_entry(number)?;
                Fields(&entry).u32().ok_or_else(|| Error::corrupt(self.file.path(), offset, Damage::Truncated))
            });
        };
        // By its salt, not its id: another history of the store may have another run of that id.
        let run = self.header.salt_prefix();
        if let Some(page) = cache.get(run, number) {
            return Ok(Block::Kept(page));
        }
        let forged = || Error::corrupt(self.file.path(), offset, Damage::Seal);
        let mut page = Zeroizing::new(self.file.read(offset, PAGE)?);
        let tag = self.table_entry(number)?.as_slice().try_into().map_err(|_| forged())?;
        sealing.cipher.open(Nonce::new(number, 0), &[], &mut page, tag).map_err(|_| forged())?;
        let page = Arc::new(page);
        cache.insert(run, number, Arc::clone(&page));
        Ok(Block::Kept(page))
    }

    /// What the table has of a page.
    fn table_entry(&self, number: u64) -> Result<Vec<u8>> {
        let key = self.header.key;
        let (len, per_page) = (entry_len(key), entries_per_page(key));
        let part = number / per_page;
        let start = self.table_at + part * PAGE as u64;
        let truncated = || Error::corrupt(self.file.path(), start, Damage::Truncated);
        if self.sealing.is_some() {
            // A wrong tag opens nothing, so its own checksum need not be compared.
            return self.file.read(self.table_at + number * len, usize::try_from(len).map_err(|_| truncated())?);
        }
        let part_len = len * (self.footer.pages - part * per_page).min(per_page);
        let expected = usize::try_from(part).ok().and_then(|part| self.footer.table_crcs.get(part));
        let part_len = index(part_len);
        let table = self.file.block(start, part_len, *expected.ok_or_else(truncated)?)?;
        let at = index(len * (number % per_page));
        table.get(at..at + 4).map(<[u8]>::to_vec).ok_or_else(truncated)
    }

    /// The error that the value under a key is none that a writer puts there, with its place; `None` where the run does
    /// not say anything of the key.
    pub(crate) fn invalid_value(&self, key: &Key) -> Option<Error> {
        let section = self.section(key.family)?;
        let probe = Probe::new(key);
        let number = self.find(section, &probe, self.guided(section, &probe)).ok()??;
        Some(self.invalid(section, number))
    }

    fn invalid(&self, section: &Section, index: u64) -> Error {
        let page = section.entries_page + section.shape.place(index).0;
        Error::corrupt(self.file.path(), self.pages_at + page * PAGE as u64, Damage::Invalid("run entry"))
    }
}

/// The entries of a key's part of a line.
fn part(section: &Section, line: Line<'_>, key: &[u8; 32]) -> Range<u64> {
    match line.part(place(key, section.guide_lines).1) {
        Some(range) if range.start <= range.end && range.end <= section.entries => range,
        _ => line.first().min(section.entries)..section.entries,
    }
}

/// Goes through the facts of one section.
#[derive(Debug)]
pub(crate) struct RunIter<'a> {
    run: &'a Run,
    section: Option<&'a Section>,
    /// Where to begin; none once that was found.
    from: Option<[u8; 32]>,
    index: u64,
    last: Option<[u8; 32]>,
    /// The page that the last entry was in: where nothing is mapped, it is read once for all its entries.
    page: Option<(u64, Block<'a>)>,
}

impl RunIter<'_> {
    fn fact(&mut self, section: &Section) -> Result<Fact> {
        let run = self.run;
        let invalid = || run.invalid(section, self.index);
        let (number, at) = section.place(self.index);
        if self.page.as_ref().is_none_or(|(held, _)| *held != number) {
            self.page = Some((number, run.page(number)?));
        }
        let entry = self.page.as_ref().and_then(|(_, page)| page.get(at..at + section.shape.width()));
        let key = entry.and_then(|entry| section.shape.key(entry)).ok_or_else(invalid)?;
        if self.last.is_some_and(|last| last >= key) {
            return Err(invalid());
        }
        let value = run.value(section, entry, Value::new)?;
        self.last = Some(key);
        self.index += 1;
        Ok((Key { domain: run.domain(), family: section.family, bytes: key }, value))
    }
}

impl Iterator for RunIter<'_> {
    type Item = Result<Fact>;

    fn next(&mut self) -> Option<Result<Fact>> {
        let section = self.section?;
        if let Some(from) = self.from.take()
            && from != [0; 32]
        {
            let range =
                self.run.range(section, &Key { domain: self.run.domain(), family: section.family, bytes: from });
            match self.run.search(section, &from, range) {
                Ok((index, _)) => self.index = index,
                Err(error) => {
                    self.section = None;
                    return Some(Err(error));
                }
            }
        }
        if self.index >= section.entries {
            return None;
        }
        let fact = self.fact(section);
        if fact.is_err() {
            self.section = None; // what follows can't be told from what is missing
        }
        Some(fact)
    }
}
