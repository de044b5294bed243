//! How long a frame is: the part of its [format](crate::segment) that follows from a blob's fact.

use std::ops::RangeInclusive;

use crate::envelope::{KeyNumber, TAG_LEN};

/// The length of a frame's descriptor in bytes.
pub(crate) const DESCRIPTOR_LEN: u64 = 128;

/// The block sizes that the format allows, as powers of two: 4 KiB to 64 KiB.
pub(crate) const BLOCK_LOG2: RangeInclusive<u8> = 12..=16;

/// The length of a block's entry in an encrypted frame's table.
pub(crate) const SEALED_ENTRY: usize = 8 + TAG_LEN;

/// The length of a block's entry in a frame's table, in bytes.
pub(crate) fn entry_len(key: KeyNumber) -> u64 {
    if key == 0 { 4 } else { SEALED_ENTRY as u64 }
}

/// Whether content of so many blocks has a table: one block that is not encrypted has its checksum elsewhere.
pub(crate) fn has_table(blocks: u64, key: KeyNumber) -> bool {
    blocks > u64::from(key == 0)
}

/// The block size for content of a length: the smallest that holds it in one block, else the largest.
pub(crate) fn block_log2_for(stored_len: u64) -> u8 {
    BLOCK_LOG2.into_iter().find(|log2| stored_len <= 1 << log2).unwrap_or(*BLOCK_LOG2.end())
}

/// How many blocks content has. Empty content has none.
pub(crate) fn blocks(stored_len: u64, block_log2: u8) -> u64 {
    stored_len.div_ceil(1 << block_log2)
}

/// Where the table of blocks begins, counted from the content's first byte.
pub(crate) fn table_offset(stored_len: u64, key: KeyNumber) -> u64 {
    stored_len.next_multiple_of(if key == 0 { 4 } else { 8 })
}

/// A whole frame's length in bytes.
pub(crate) fn frame_len(stored_len: u64, block_log2: u8, key: KeyNumber) -> u64 {
    let blocks = blocks(stored_len, block_log2);
    let content = match has_table(blocks, key) {
        false => stored_len,
        true => table_offset(stored_len, key) + entry_len(key) * blocks,
    };
    (DESCRIPTOR_LEN + content).next_multiple_of(8)
}
