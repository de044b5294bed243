//! Segments: files of frames, never changed once sealed.
//!
//! ```text
//! header, 512 bytes | zeros | frames from byte 3,968 on, so that the first content begins at a page | footer | trailer
//!
//! header: see [`FileHeader`](crate::envelope::FileHeader)
//! footer: count u32, then for each frame: offset u48 | length u48 | algorithm u8, digest
//! trailer, 24 bytes: footer offset u64 | footer length u32 | footer crc u32 | magic u32 | crc u32
//! ```
//!
//! The footer lists the frames of the segment; only facts say which of them live. Small content is first written to the
//! [log](crate::log), whose sealed files serve as segments too. Compaction moves live frames out of mostly dead files
//! into [packs](Pack), segments of many frames, which are encrypted as those in a log file are.

mod frame;
mod pack;
mod writer;

pub(crate) use crate::facts::{DESCRIPTOR_LEN, blocks, entry_len, table_offset};
pub(crate) use frame::{Descriptor, Frame, entry, open_block};
pub(crate) use pack::Pack;
pub(crate) use writer::{
    CONTENT_OFFSET, FooterEntry, Progress, SEGMENT_FRAME_OFFSET, SegmentWriter, Trailer, is_trailer, parse_footer,
    parse_header, table_check,
};
