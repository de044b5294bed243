//! Uploads: in pieces of any size, many at once, over restarts, with clients that fail.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Clock, Digest, Error, Maintenance, Options, Store};

use crate::common::Random;

fn open(disk: &SimVfs) -> Store {
    let options = Options::new().create(true).vfs(Arc::new(disk.clone())).clock(Clock::manual());
    options.maintenance(Maintenance::Inline).inline_max(1000).max_open_files(2).open("/store").unwrap()
}

#[test]
fn an_upload_in_very_many_pieces_ends_like_any_other() {
    // Blocks end within pieces, parts of the list of checksums end within blocks.
    const PIECES: usize = 1_500;
    const PIECE: usize = 50_001;
    let content = Random(1).bytes(PIECE);
    let dir = tempfile::tempdir().unwrap();
    let open = || Options::new().create(true).inline_max(1000).memtable_size(1 << 20).open(dir.path()).unwrap();
    let mut store = open();
    let upload = store.begin_upload(Algorithm::Blake3).unwrap();
    let mut offset = 0;
    for n in 0..PIECES {
        offset = store.append_upload(upload, offset, &content).unwrap();
        if n % 500 == 250 {
            store.close().unwrap();
            store = open();
        }
    }
    let whole = content.repeat(PIECES);
    let digest = Digest::of(Algorithm::Blake3, &whole);
    store.commit_upload(upload, digest).unwrap();
    assert!(store.get(&digest).unwrap().bytes().unwrap() == whole);
    assert!(store.verify(|_| {}).unwrap().findings.is_empty());
    assert!(store.uploads(None, 1000).unwrap().items.is_empty());
}

#[test]
fn uploads_are_counted_up_to_a_limit_where_they_belong() {
    let store = open(&SimVfs::new());
    let app = crate::common::registry::create(&store, "team/app");
    let _ = [(); 3].map(|()| store.begin_upload(Algorithm::Sha256).unwrap());
    let _ = [(); 2].map(|()| app.begin_upload(Algorithm::Sha256).unwrap());
    let counts = |limit| {
        let [all, own] = [store.count_uploads(limit), app.count_uploads(limit)].map(Result::unwrap);
        [all, own, store.named().count_uploads(limit).unwrap()]
    };
    assert_eq!([counts(100), counts(2), counts(1), counts(0)], [[5, 2, 3], [2, 2, 2], [1, 1, 1], [0, 0, 0]]);
}

#[test]
fn more_uploads_than_files_may_be_open_go_on_side_by_side() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let contents: Vec<Vec<u8>> = (0..20).map(|n| Random(n).bytes(70_000)).collect();
    let uploads: Vec<_> = contents.iter().map(|_| store.begin_upload(Algorithm::Sha256).unwrap()).collect();
    for at in (0..70_000).step_by(7_000) {
        for (upload, content) in uploads.iter().zip(&contents) {
            store.append_upload(*upload, at as u64, &content[at..at + 7_000]).unwrap();
        }
    }
    for (upload, content) in uploads.iter().zip(&contents) {
        store.commit_upload(*upload, Digest::of(Algorithm::Sha256, content)).unwrap();
    }
    assert_eq!(store.blobs().count(), 20);
    assert!(store.verify(|_| {}).unwrap().findings.is_empty());
}

/// Says that it is being read, then waits, then panics.
struct Buggy {
    reading: Sender<()>,
    go: Receiver<()>,
}

impl Read for Buggy {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.reading.send(()).unwrap();
        self.go.recv().unwrap();
        panic!("the client's own bug");
    }
}

#[test]
fn a_second_call_is_told_that_the_upload_is_in_use_and_a_panic_of_the_first_leaves_it_where_it_stood() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let upload = store.begin_upload(Algorithm::Sha256).unwrap();
    store.append_upload(upload, 0, "kept").unwrap();
    let ((reading, read), (go, went)) = (channel(), channel());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| store.append_upload_from(upload, 4, Buggy { reading, go: went }));
        read.recv().unwrap();
        let is_busy = |result| matches!(result, Err(Error::UploadBusy { .. }));
        assert!(is_busy(store.append_upload(upload, 4, "x").map(drop)));
        assert!(is_busy(store.commit_upload(upload, Digest::of(Algorithm::Sha256, b"kept")).map(drop)));
        go.send(()).unwrap();
        assert!(first.join().is_err());
    });
    assert_eq!(store.append_upload(upload, 4, ", and more").unwrap(), 14);
    store.commit_upload(upload, Digest::of(Algorithm::Sha256, b"kept, and more")).unwrap();
}

#[test]
fn an_upload_that_is_given_up_while_content_comes_is_gone_and_so_is_its_file() {
    let disk = SimVfs::new();
    let store = open(&disk);
    let upload = store.begin_upload(Algorithm::Sha256).unwrap();
    struct Cancelling<'a>(&'a Store, strongroom::UploadId, u64);
    impl Read for Cancelling<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.2 == 3 {
                self.0.cancel_upload(self.1).unwrap();
            }
            self.2 += 1;
            Ok(if self.2 < 6 { buf.len() } else { 0 })
        }
    }
    let result = store.append_upload_from(upload, 0, Cancelling(&store, upload, 0));
    assert!(matches!(result, Err(Error::UploadNotFound { .. })), "{result:?}");
    assert!(matches!(store.append_upload(upload, 0, "x"), Err(Error::UploadNotFound { .. })));
    store.close().unwrap();
    assert!(disk.files().iter().all(|path| path.extension().is_none_or(|extension| extension != "seg")));
}

/// How many segments a disk has.
fn segments(disk: &SimVfs) -> usize {
    disk.files().iter().filter(|path| path.extension().is_some_and(|extension| extension == "seg")).count()
}

#[test]
fn a_short_upload_lies_in_the_log_over_restarts_and_in_a_segment_once_it_is_long() {
    // Plain and encrypted; with content that stays short, ends at the limit, and becomes long.
    for disk in [SimVfs::new(), crate::common::encrypted_disk()] {
        let open = || crate::common::options(&disk, &Clock::manual()).inline_max(100_000).open("/store").unwrap();
        for (len, are_long) in [(1, 0), (65_535, 0), (65_536, 0), (65_537, 1), (140_000, 1)] {
            let content = Random(len).bytes(len as usize);
            let mut store = open();
            let upload = store.begin_upload(Algorithm::Sha512).unwrap();
            let mut at = 0;
            for (n, piece) in content.chunks(30_000).enumerate() {
                at = store.append_upload(upload, at, piece).unwrap();
                if n % 2 == 1 {
                    store.checkpoint().unwrap();
                }
                store.close().unwrap();
                store = open();
                assert_eq!(store.upload_status(upload).unwrap().offset, at);
            }
            assert_eq!(segments(&disk), are_long, "{len}");
            // By another algorithm than was declared, it is read again.
            let algorithm = if len % 2 == 0 { Algorithm::Sha512 } else { Algorithm::Blake3 };
            let digest = Digest::of(algorithm, &content);
            let wrong = Digest::of(algorithm, b"other");
            assert!(matches!(store.commit_upload(upload, wrong), Err(Error::DigestMismatch { .. })));
            store.commit_upload(upload, digest).unwrap();
            assert_eq!(segments(&disk), usize::from(len > 100_000), "{len}");
            assert!(store.get(&digest).unwrap().bytes().unwrap() == content);
            assert!(store.verify(|_| {}).unwrap().findings.is_empty());
            store.remove(&digest).unwrap();
            store.close().unwrap();
        }
    }
}

#[test]
fn the_last_piece_comes_with_the_commit_in_one_sync_and_where_that_fails_nothing_has_changed() {
    let disk = SimVfs::new();
    let store = Options::new().create(true).vfs(Arc::new(disk.clone())).inline_max(100_000).open("/store").unwrap();
    store.put("the log has begun", Algorithm::Sha256).unwrap();
    for (first, last) in
        [(0, 0), (0, 4096), (5000, 3000), (65_536, 30_000), (0, 100_001), (70_000, 10), (70_000, 70_000)]
    {
        let content = Random(first as u64).bytes(first + last);
        let digest = Digest::of(Algorithm::Sha256, &content);
        let upload = store.begin_upload(Algorithm::Sha256).unwrap();
        store.append_upload(upload, 0, &content[..first]).unwrap();
        let (at, last) = (first as u64, &content[first..]);
        let wrong_offset = store.commit_upload_with(upload, at + 1, last, digest);
        assert!(matches!(wrong_offset, Err(Error::WrongOffset { .. })), "{wrong_offset:?}");
        if content.len() <= 100_000 && first <= 65_536 {
            let other = store.commit_upload_with(upload, at, [last, b"x"].concat(), digest);
            assert!(matches!(other, Err(Error::DigestMismatch { .. })), "{other:?}");
        }
        assert_eq!(store.upload_status(upload).unwrap().offset, at);
        let before = disk.operations();
        let stored = store.commit_upload_with(upload, (first % 2 == 0).then_some(at), last, digest).unwrap();
        if content.len() <= 10_000 {
            assert_eq!(disk.operations() - before, 2, "a record is written and synced");
        }
        assert_eq!((stored.digest, stored.len, stored.existed), (digest, content.len() as u64, false));
        assert!(store.get(&digest).unwrap().bytes().unwrap() == content);
        let again = store.commit_upload_with(upload, at, last, digest);
        assert!(matches!(again, Err(Error::UploadNotFound { .. })), "{again:?}");
    }
    assert!(store.verify(|_| {}).unwrap().findings.is_empty());
}
