//! Segments: files of frames.

mod frame;

pub(crate) use frame::{BLOCK_LOG2, DESCRIPTOR_LEN, block_log2_for, blocks, frame_len, table_offset};
