//! Header, footer and trailer of a run. The parsers take bytes and can be fuzzed.

use crate::envelope::{KeyNumber, TAG_LEN};
use crate::facts::Family;
use crate::id::Lsn;
use crate::tables::runs::columns::Shape;
use crate::tables::runs::guide;
use crate::wire::{Fields, PutFields, crc32c, index};

/// Where pages begin: behind the header, where pages of the system do.
pub(crate) const PAGES_AT: u64 = 4096;
pub(crate) const TRAILER_LEN: u64 = 24;
pub(crate) const PAGE_LOG2: u32 = 12;
pub(crate) const PAGE: usize = 1 << PAGE_LOG2;
pub(crate) const KEY_LEN: usize = 32;
pub(crate) const TOMBSTONE: u8 = 0;
pub(crate) const INLINE: u8 = 1;
pub(crate) const HEAP: u8 = 2;

pub(super) const MAGIC: [u8; 8] = *b"SRrun\0\0\0";
const TRAILER_MAGIC: [u8; 4] = *b"SRrt";
const VERSION: u32 = 3;

/// The length of a page's entry in the table: its CRC-32C, or the tag that it was encrypted with.
pub(crate) fn entry_len(key: KeyNumber) -> u64 {
    if key == 0 { 4 } else { TAG_LEN as u64 }
}

/// How many pages one page of the table covers.
pub(crate) fn entries_per_page(key: KeyNumber) -> u64 {
    PAGE as u64 / entry_len(key)
}

/// Where the facts of one family lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) family: Family,
    /// How its entries are written.
    pub(crate) shape: Shape,
    pub(crate) entries: u64,
    pub(crate) entries_page: u64,
    pub(crate) heap_page: u64,
    pub(crate) heap_len: u64,
    pub(crate) guide_page: u64,
    /// 0 where there is no guide.
    pub(crate) guide_lines: u64,
}

impl Section {
    /// The page of an entry, and where in it the entry begins.
    pub(crate) fn place(&self, number: u64) -> (u64, usize) {
        let (page, within) = self.shape.place(number);
        (self.entries_page + page, index(within) * self.shape.width())
    }
}

/// The length of a slot of a family.
pub(crate) fn slot_len(family: Family) -> usize {
    1 + family.value_len().unwrap_or(10)
}

/// What leads to the entries of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuideKind {
    /// Nothing: keys are few, or are gone through in order.
    None,
    /// [Lines in the order of keys](crate::tables::runs::guide), which are spread evenly.
    Ordered,
    /// [Lines by the hash of keys](crate::tables::runs::hashed), which begin with a repository.
    Hashed,
}

/// What leads to the entries of a family.
pub(crate) fn guide_of(family: Family) -> GuideKind {
    match family {
        Family::Blob | Family::Named | Family::Upload | Family::Repository | Family::Owner => GuideKind::Ordered,
        Family::Link
        | Family::Manifest
        | Family::Tag
        | Family::Pull
        | Family::AwaitedBlob
        | Family::AwaitedManifest
        | Family::Document => GuideKind::Hashed,
        Family::Segment
        | Family::UploadPart
        | Family::Referrer
        | Family::Deleted
        | Family::TagOf
        | Family::Idle
        | Family::Progress => GuideKind::None,
    }
}

/// How many pages hold this many bytes.
pub(crate) fn pages_of(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE as u64)
}

/// What stands at the end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Where in its file the run begins: one of the same domain can't be taken for it.
    pub(crate) at: u64,
    pub(crate) pages: u64,
    pub(crate) lsn_min: Lsn,
    pub(crate) lsn_max: Lsn,
    pub(crate) sections: Vec<Section>,
    /// The checksums of the pages of the table.
    pub(crate) table_crcs: Vec<u32>,
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32(VERSION);
        out.put_u32(PAGE_LOG2);
        out.put_u64(self.at);
        out.put_u64(self.pages);
        out.put_u64(self.lsn_min.0);
        out.put_u64(self.lsn_max.0);
        out.put_len32(self.sections.len());
        for section in &self.sections {
            out.put_u8(section.family as u8);
            section.shape.encode(&mut out);
            for number in [
                section.entries,
                section.entries_page,
                section.heap_page,
                section.heap_len,
                section.guide_page,
                section.guide_lines,
            ] {
                out.put_u64(number);
            }
        }
        self.table_crcs.iter().for_each(|crc| out.put_u32(*crc));
        out
    }

    /// Parses the footer of a run that is encrypted with a key, or with none. All that it says fits into the pages that
    /// it says there are.
    pub(crate) fn parse(bytes: &[u8], key: KeyNumber) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u32()? != VERSION || fields.u32()? != PAGE_LOG2 {
            return None;
        }
        let at = fields.u64()?;
        let pages = fields.u64().filter(|pages| *pages < 1 << 36)?;
        let (lsn_min, lsn_max) = (Lsn(fields.u64()?), Lsn(fields.u64()?));
        let count = fields.u32()?;
        let mut sections: Vec<Section> = Vec::new();
        for _ in 0..count {
            let family = Family::from_code(fields.u8()?)?;
            let section = Section {
                family,
                shape: Shape::parse(family, &mut fields)?,
                entries: fields.u64().filter(|entries| *entries <= u64::from(u32::MAX))?,
                entries_page: fields.u64()?,
                heap_page: fields.u64()?,
                heap_len: fields.u64()?,
                guide_page: fields.u64()?,
                guide_lines: fields.u64()?,
            };
            let fits = |first: u64, count: u64| first.checked_add(count).is_some_and(|end| end <= pages);
            let is_sane = sections.last().is_none_or(|before| before.family < section.family)
                && fits(section.entries_page, section.entries.div_ceil(section.shape.per_page()))
                && fits(section.heap_page, pages_of(section.heap_len))
                && section.guide_lines <= u64::from(u32::MAX)
                && fits(section.guide_page, pages_of(section.guide_lines * guide::LINE as u64));
            sections.push(Some(section).filter(|_| is_sane)?);
        }
        let crcs = usize::try_from(pages.div_ceil(entries_per_page(key))).ok()?;
        let table_crcs: Vec<u32> =
            fields.bytes(crcs.checked_mul(4)?)?.chunks_exact(4).filter_map(|crc| Fields(crc).u32()).collect();
        fields.end()?;
        Some(Self { at, pages, lsn_min, lsn_max, sections, table_crcs })
    }
}

/// Encodes the trailer that leads to a footer.
pub(crate) fn encode_trailer(footer_offset: u64, footer: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    out.put_u64(footer_offset);
    out.put_len32(footer.len());
    out.put_u32(crc32c(footer));
    out.put(&TRAILER_MAGIC);
    out.put_u32(crc32c(&out));
    out
}

/// Parses a trailer: the footer's offset, length and checksum.
pub(crate) fn parse_trailer(bytes: &[u8], run_len: u64) -> Option<(u64, usize, u32)> {
    let (body, check) = bytes.split_at_checked(20)?;
    let mut fields = Fields(body);
    let offset = fields.u64()?;
    let len = fields.u32()?;
    let crc = fields.u32()?;
    let whole = fields.array()? == TRAILER_MAGIC
        && Fields(check).u32()? == crc32c(body)
        && offset.checked_add(u64::from(len) + TRAILER_LEN)? == run_len;
    whole.then_some((offset, usize::try_from(len).ok()?, crc))
}
