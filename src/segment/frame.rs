//! A frame: one checksummed piece of content.
//!
//! ```text
//! descriptor, 128 bytes | content, stored_len bytes | where there are two blocks or more: zeros up to a multiple of 4,
//! then one CRC-32C (u32) a block | zeros up to a multiple of 8
//! ```

use std::ops::RangeInclusive;

/// The length of a frame's descriptor in bytes.
pub(crate) const DESCRIPTOR_LEN: u64 = 128;

/// The block sizes that the format allows, as powers of two: 4 KiB to 64 KiB.
pub(crate) const BLOCK_LOG2: RangeInclusive<u8> = 12..=16;

/// The block size for content of a length: the smallest that holds it in one block, else the largest.
pub(crate) fn block_log2_for(stored_len: u64) -> u8 {
    BLOCK_LOG2.into_iter().find(|log2| stored_len <= 1 << log2).unwrap_or(*BLOCK_LOG2.end())
}

/// How many blocks content has. Empty content has none.
pub(crate) fn blocks(stored_len: u64, block_log2: u8) -> u64 {
    stored_len.div_ceil(1 << block_log2)
}

/// Where the table of block checksums begins, counted from the content's first byte.
pub(crate) fn table_offset(stored_len: u64) -> u64 {
    stored_len.next_multiple_of(4)
}

/// A whole frame's length in bytes.
pub(crate) fn frame_len(stored_len: u64, block_log2: u8) -> u64 {
    let content = match blocks(stored_len, block_log2) {
        0 | 1 => stored_len,
        blocks => table_offset(stored_len) + 4 * blocks,
    };
    (DESCRIPTOR_LEN + content).next_multiple_of(8)
}
