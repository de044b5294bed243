//! Whether and how small content is compressed.

use std::cell::RefCell;

use crate::digest::Digest;
use crate::facts::Codec;
use crate::segment::Frame;
use crate::thread::lend;
use crate::wire::len64;

/// Whether small content is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// With zstd, where the content is at most [`Options::inline_max`](crate::Options::inline_max) long, does not look
    /// compressed already, and becomes at least an eighth smaller.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Shorter content is not worth a compressor's overhead.
const MIN_LEN: usize = 256;

/// So many pieces of the content, of so many bytes each, tell what it is. To count 4 KiB would take as long as to hash
/// them.
const PIECES: usize = 4;
const PIECE: usize = 256;

/// zstd's fastest regular level: about 500 MB/s, and small content is mostly JSON, which shrinks well at any level.
const LEVEL: i32 = 1;

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Frames a blob's content: compressed where that makes it at least an eighth smaller.
pub(crate) fn frame_for(digest: Digest, content: &[u8], compression: Compression) -> Frame {
    let packed = (compression == Compression::Auto && may_shrink(content)).then(|| pack(content)).flatten();
    match packed {
        Some(packed) => Frame::new(digest, len64(content), Codec::Zstd, &packed),
        None => Frame::new(digest, len64(content), Codec::Plain, content),
    }
}

fn pack(content: &[u8]) -> Option<Vec<u8>> {
    lend(&COMPRESSOR, |compressor| {
        if compressor.is_none() {
            *compressor = zstd::bulk::Compressor::new(LEVEL).ok();
        }
        let packed = compressor.as_mut()?.compress(content).ok()?;
        (packed.len() + packed.len() / 7 <= content.len()).then_some(packed)
    })
}

/// Decompresses what [`frame_for`] packed into exactly `len` bytes; `None` where that is not what comes out. No more
/// than `len` bytes are ever allocated.
pub(crate) fn unpack(packed: &[u8], len: usize) -> Option<Vec<u8>> {
    lend(&DECOMPRESSOR, |decompressor| {
        if decompressor.is_none() {
            *decompressor = zstd::bulk::Decompressor::new().ok();
        }
        let content = decompressor.as_mut()?.decompress(packed, len).ok()?;
        (content.len() == len).then_some(content)
    })
}

/// Whether content is likely to become smaller: it does not begin like a compressed format, and the bytes of a sample
/// are not spread as evenly as random ones.
fn may_shrink(content: &[u8]) -> bool {
    const COMPRESSED: [&[u8]; 8] = [
        b"\x1f\x8b",         // gzip
        b"\x28\xb5\x2f\xfd", // zstd
        b"\xfd7zXZ\0",       // xz
        b"BZh",              // bzip2
        b"PK\x03\x04",       // zip, jar, wheel
        b"\x04\x22\x4d\x18", // lz4
        b"\x89PNG",
        b"\xff\xd8\xff", // JPEG
    ];
    if content.len() < MIN_LEN || COMPRESSED.iter().any(|magic| content.starts_with(magic)) {
        return false;
    }
    let sample = content.chunks(content.len().div_ceil(PIECES)).flat_map(|part| part.iter().take(PIECE));
    let (mut counts, mut n) = ([0u64; 256], 0);
    for byte in sample {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            (*count, n) = (*count + 1, n + 1);
        }
    }
    // The sum of squares of n evenly drawn bytes is about n²/256 + n. A third more than that is worth a try.
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    squares > (n * n / 256 + n) * 4 / 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn text_shrinks_and_random_or_compressed_content_is_left_alone() {
        let text = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#.repeat(50);
        let digest = Digest::of(Algorithm::Blake3, &text);
        let frame = frame_for(digest, &text, Compression::Auto);
        assert_eq!(frame.descriptor.codec, Codec::Zstd);
        assert!(frame.descriptor.stored_len < 300);
        let stored = &frame.bytes[128..][..frame.descriptor.stored_len as usize];
        assert_eq!(unpack(stored, text.len()).unwrap(), text);
        assert_eq!(unpack(stored, text.len() - 1), None, "a decompression bomb ends at the length on record");
        assert_eq!(unpack(stored, text.len() + 1), None);
        assert_eq!(frame_for(digest, &text, Compression::Off).descriptor.codec, Codec::Plain);
        let mut random = vec![0; 10_000];
        blake3::Hasher::new().finalize_xof().fill(&mut random);
        assert!(!may_shrink(&random));
        let behind_random = [random.as_slice(), text.repeat(10).as_slice()].concat();
        assert!(may_shrink(&behind_random), "the beginning does not speak for all");
        assert!(!may_shrink(&[b"\x1f\x8b".as_slice(), &text].concat()));
    }
}
