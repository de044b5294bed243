//! Runs: sorted, immutable, checksummed files of facts.
//!
//! A run is checkpoint and index in one. It holds facts of one domain and of all families, each family in a section of
//! its own, sorted by key. Newer runs of the domain hide what older ones say. Four runs of a tier are merged into one
//! of the next, so that a fact is written a few times in its life however many there are.
//!
//! ```text
//! header, 512 bytes, and zeros up to 4,096 | pages of 4 KiB: for each section its entries, heap and guide | table of
//! the pages' CRC-32Cs | footer | trailer, 24 bytes
//!
//! header:  see [`FileHeader`](crate::envelope::FileHeader)
//! entries: key 32, slot, without the bytes that [all entries have in common](columns); as many as fit whole into a
//!          page. Slot: tag u8 (0 tombstone, 1 value here, 2 value in the heap), then the value where all values of the
//!          family have one length, else heap offset u48, length u32
//! guide:   lines of 64 bytes, chosen [by the order of keys](guide) or [by their hash](hashed): whether a key may be
//!          there, and where
//! footer:  version u32 | page_log2 u32 | pages u64 | lsn_min u64 | lsn_max u64 | sections u32 |
//!          for each: family u8 | varying bytes of an entry, as bits, u128 | the other bytes | entries u64 |
//!                    first page of entries u64 | of heap u64 | heap length u64 | of guide u64 | guide lines u64 |
//!          for each 1,024 pages the crc u32 of their part of the table
//! trailer: footer offset u64 | footer length u32 | footer crc u32 | magic u32 | crc u32
//! ```
//!
//! All facts of a run belong to one key domain. An encrypted run (`key` is not 0) has the same parts. Each page is
//! encrypted where it is, and the table has tags of 16 bytes instead of checksums, 256 to a page; the footer is
//! encrypted, with its tag behind it and the header as associated data. Decrypted pages are kept in a [cache](cache) of
//! bounded size.
//!
//! The guide is derived: where one of its pages is damaged, a look-up goes on without it. Damage in an entry
//! or a value is [`Error::Corrupt`](crate::Error::Corrupt) for those look-ups that need the page, and no others.
//!
//! The [list](crate::tables::list), a small file that is replaced as a whole, says which runs there are.

mod cache;
mod columns;
mod format;
mod guide;
mod hashed;
mod merge;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use cache::PageCache;
#[cfg(feature = "fuzzing")]
pub(crate) use format::Footer;
pub(crate) use merge::{Merge, MergeJob, Source};
pub(crate) use reader::{Lead, Probe, Run, open_file};
pub(crate) use writer::{Expected, RunFile, RunWriter};
