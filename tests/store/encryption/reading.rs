//! Content is decrypted alike however it is read: in one piece or in parts, on one thread or two, into memory of the
//! engine's or of its caller's.

use std::io::{Read, Seek, SeekFrom};

use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Blob, Error, limit_threads};

use super::lab::{Keeper, open};
use crate::common::{Random, seed};

/// Reads a blob through buffers of changing lengths.
fn read(blob: &Blob, random: &mut Random) -> std::io::Result<Vec<u8>> {
    let (mut reader, mut found) = (blob.reader(), Vec::new());
    loop {
        let len = [0, 1, 1000, 65_535, 65_536, 65_537, 1 << 20, 5 << 20, 7 << 20][random.below(9) as usize];
        let mut buf = vec![0xaa; len];
        let read = reader.read(&mut buf)?;
        if read == 0 && len > 0 {
            return Ok(found);
        }
        found.extend_from_slice(&buf[..read]);
    }
}

#[test]
fn encrypted_content_reads_alike_in_one_piece_and_through_buffers() {
    let mut random = Random(seed(0xdec0de));
    let (keeper, disk) = (Keeper::new(1), SimVfs::new());
    let store = open(&disk, Some(&keeper)).unwrap();
    for len in [0, 1, 4096, 65_536, 65_537, 131_072, 5 << 20, (6 << 20) + 1000] {
        let content = random.bytes(len);
        let digest = store.put(&content, Algorithm::Blake3).unwrap().digest;
        for threads in [Some(0), None] {
            limit_threads(threads);
            let blob = store.get(&digest).unwrap();
            assert!(read(&blob, &mut random).unwrap() == content, "{len} bytes through buffers");
            assert!(blob.bytes().unwrap() == content, "{len} bytes in one piece");
            for _ in 0..20 {
                let from = random.below(len as u64 + 1);
                let to = from + random.below(len as u64 - from + 1);
                let part = &content[from as usize..to as usize];
                assert!(blob.slice(from..to).unwrap() == part, "{from}..{to} of {len}");
                let (mut reader, mut found) = (blob.reader(), vec![0; part.len()]);
                reader.seek(SeekFrom::Start(from)).unwrap();
                reader.read_exact(&mut found).unwrap();
                assert!(found == part, "{from}..{to} of {len} through a buffer");
            }
        }
        limit_threads(None);
    }
}

#[test]
fn damage_in_long_encrypted_content_is_an_error_however_it_is_read() {
    let (keeper, disk) = (Keeper::new(1), SimVfs::new());
    let store = open(&disk, Some(&keeper)).unwrap();
    let content = Random(3).bytes(6 << 20);
    let digest = store.put(&content, Algorithm::Blake3).unwrap().digest;
    store.close().unwrap();
    let path = disk.files().into_iter().max_by_key(|path| disk.read_file(path).unwrap().len()).unwrap();
    for at in [0, 40 * 65_536, 95 * 65_536 + 5] {
        let damaged = disk.restarted();
        damaged.flip_bit(&path, 8 * (4096 + at) + 3).unwrap();
        let blob = open(&damaged, Some(&keeper)).unwrap().get(&digest).unwrap();
        let block = 4096 + at / 65_536 * 65_536;
        let is_told = |error: &Error| matches!(error, Error::Corrupt { offset, .. } if *offset == block);
        assert!(is_told(&blob.bytes().unwrap_err()), "at {at}");
        for len in [4096, 65_536, 8 << 20] {
            let mut buf = vec![0; len];
            let mut reader = blob.reader();
            let error = std::iter::repeat_with(|| reader.read(&mut buf)).find_map(Result::err).unwrap();
            assert!(is_told(error.get_ref().unwrap().downcast_ref().unwrap()), "at {at}, {len} at a time: {error}");
        }
    }
}
