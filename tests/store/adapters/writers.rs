//! Writers of uploads: what was written counts, whatever becomes of them, and many of them take no more than there is.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use futures_util::FutureExt;
use strongroom::aio::{AsyncStore, Limits};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Digest, Error, Options};
use tokio::sync::oneshot;

use super::{one_thread, open, options};
use crate::common::Random;

#[test]
fn what_an_upload_writer_has_written_counts_whenever_it_is_dropped() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let store = AsyncStore::new(options(&disk).open("/store").unwrap());
        let begin = || store.begin_upload(Algorithm::Sha256);
        let stands = async |id| store.upload_status(id).await.map(|status| status.offset);
        let (id, other) = (begin().await.unwrap(), begin().await.unwrap());
        let mut writer = store.upload_writer(id, 0);
        writer.write(["one ".into()]).await.unwrap();
        assert_eq!(stands(id).await.unwrap(), 0, "nothing is durable yet");
        let second = store.upload_writer(id, 0).write(["x".into()]).await;
        assert!(matches!(second, Err(Error::UploadBusy { .. })));
        // Dropped with a call under way: so much is not written in a moment.
        let two = Bytes::from(Random(9).bytes(4 << 20));
        let (begun, has_begun) = oneshot::channel();
        let (mut begun, mut pieces) = (Some(begun), vec![two.clone()]);
        let mut call = Box::pin(writer.write_from(move || {
            begun.take().into_iter().for_each(|begun| begun.send(()).unwrap());
            std::mem::take(&mut pieces)
        }));
        assert!(poll_fn(|cx| Poll::Ready(call.poll_unpin(cx))).await.is_pending());
        has_begun.await.unwrap();
        drop(call);
        assert!(matches!(writer.write(["never ".into()]).await, Err(Error::Closed)));
        drop(writer);
        // Dropped between two calls, and never begun.
        let mut writer = store.upload_writer(other, 0);
        writer.write(["other".into()]).await.unwrap();
        drop(writer);
        drop(store.upload_writer(other, 5));
        let begun = loop {
            let again = store.upload_writer(id, 0).finish().await;
            if !matches!(again, Err(Error::UploadBusy { .. })) {
                break again; // what was written last is durable by now
            }
        };
        let offset = 4 + (4 << 20);
        assert!(matches!(begun, Err(Error::WrongOffset { expected, found: 0 }) if expected == offset), "{begun:?}");
        let mut writer = store.upload_writer(id, offset);
        writer.write(["three".into()]).await.unwrap();
        drop(writer);
        store.close().await.unwrap(); // waits for all of it
        let store = options(&disk).open("/store").unwrap();
        for (id, content) in [(id, [b"one ", &two[..], b"three"].concat()), (other, b"other".to_vec())] {
            let digest = Digest::of(Algorithm::Sha256, &content);
            store.commit_upload(id, digest).unwrap();
        }
    });
}

#[test]
fn an_upload_writer_whose_store_fails_leaves_the_upload_where_it_stood() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let store = AsyncStore::new(options(&disk).open("/store").unwrap());
        let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
        let mut writer = store.upload_writer(id, 0);
        writer.write([vec![1; 2000].into()]).await.unwrap();
        let files = disk.files().len();
        disk.set_capacity(Some(disk.used() + 50_000));
        let full = loop {
            if let Err(error) = writer.write([vec![1; 10_000].into()]).await {
                break error;
            }
        };
        assert!(matches!(full, Error::Full { .. }), "{full}");
        assert!(matches!(writer.finish().await, Err(Error::Closed)));
        assert_eq!(disk.files().len(), files - 1, "the segment is gone");
        disk.set_capacity(None);
        let mut writer = store.upload_writer(id, 0);
        writer.write(["again".into()]).await.unwrap();
        assert_eq!(writer.finish().await.unwrap(), 5);
    });
}

#[test]
fn an_upload_that_is_given_up_under_a_writer_is_gone_for_it_too() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let shared = options(&disk).open("/store").unwrap();
        let store = AsyncStore::new(shared.clone());
        let id = shared.begin_upload(Algorithm::Sha256).unwrap();
        shared.append_upload(id, 0, vec![1; 10_000]).unwrap();
        let mut writer = store.upload_writer(id, 10_000);
        writer.write(Vec::new()).await.unwrap();
        shared.cancel_upload(id).unwrap();
        let finished = writer.finish().await;
        assert!(matches!(finished, Err(Error::UploadNotFound { .. })), "{finished:?}");
        let again = shared.append_upload(id, 10_000, "more");
        assert!(matches!(again, Err(Error::UploadNotFound { .. })), "{again:?}");
    });
}

#[test]
fn a_task_that_has_an_upload_open_and_begins_another_does_not_keep_a_store_from_closing() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let begin = || store.begin_upload(Algorithm::Sha256);
        let (one, other) = (begin().await.unwrap(), begin().await.unwrap());
        let mut first = store.upload_writer(one, 0);
        first.write(["x".into()]).await.unwrap();
        let closing = tokio::spawn({
            let store = store.clone();
            async move { store.close().await }
        });
        tokio::task::yield_now().await;
        let second = store.upload_writer(other, 0).write(["y".into()]).await;
        assert!(matches!(second, Err(Error::Closed)), "{second:?}");
        assert_eq!(first.finish().await.unwrap(), 1);
        closing.await.unwrap().unwrap();
    });
}

#[test]
fn a_write_that_is_done_when_its_future_is_dropped_is_made_durable_off_the_runtime() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let shared = options(&disk).open("/store").unwrap();
        let store = AsyncStore::with_limits(shared.clone(), Limits::new().writes(1));
        let id = shared.begin_upload(Algorithm::Sha256).unwrap();
        let mut writer = store.upload_writer(id, 0);
        let mut write = Box::pin(writer.write([vec![1; 100_000].into()]));
        assert!(poll_fn(|cx| Poll::Ready(write.poll_unpin(cx))).await.is_pending());
        // It is done when another has had its turn.
        let other = shared.begin_upload(Algorithm::Sha256).unwrap();
        store.upload_writer(other, 0).finish().await.unwrap();
        drop(write);
        assert_eq!(shared.upload_status(id).unwrap().offset, 0, "the runtime's thread has made it durable");
        drop(writer);
        store.close().await.unwrap();
        let again = options(&disk).open("/store").unwrap();
        assert_eq!(again.upload_status(id).unwrap().offset, 100_000);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn very_many_writers_hold_no_more_files_than_the_store_may_open() {
    let dir = tempfile::tempdir().unwrap();
    let open_files = || crate::common::open_files(dir.path());
    one_thread().block_on(async {
        let options = Options::new().create(true).max_open_files(64).durability(strongroom::Durability::Relaxed);
        let store = AsyncStore::new(options.open(dir.path()).unwrap());
        let before = open_files();
        let mut writers = Vec::new();
        for n in 0..200u64 {
            let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
            let mut writer = store.upload_writer(id, 0);
            writer.write([Bytes::from(n.to_le_bytes().to_vec())]).await.unwrap();
            writers.push((id, writer));
        }
        let held = open_files() - before;
        assert!(held <= 48, "{held} files");
        for (n, (id, mut writer)) in writers.into_iter().enumerate() {
            writer.write([" and more".into()]).await.unwrap();
            assert_eq!(writer.finish().await.unwrap(), 17);
            let digest = Digest::of(Algorithm::Sha256, &[&n.to_le_bytes()[..], b" and more"].concat());
            store.commit_upload(id, &digest).await.unwrap();
        }
    });
}

#[test]
fn what_comes_fast_is_written_in_one_step_and_as_it_came() {
    one_thread().block_on(async {
        let store = AsyncStore::with_limits(open(), Limits::new().writes(1));
        let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
        let content = Bytes::from(Random(7).bytes(700_000));
        let (mut random, mut rest) = (Random(8), content.clone());
        let mut writer = store.upload_writer(id, 0);
        while !rest.is_empty() {
            // Pieces of any length, empty ones too, some at a time.
            let mut coming = Vec::new();
            for _ in 0..random.below(20) {
                let lens = (0..1 + random.below(30)).map(|_| random.below(3) * random.below(9_000));
                coming.push(lens.map(|len| rest.split_to(rest.len().min(len as usize))).collect::<Vec<_>>());
            }
            let mut coming = coming.into_iter();
            writer.write_from(move || coming.next().unwrap_or_default()).await.unwrap();
        }
        assert_eq!(writer.finish().await.unwrap(), 700_000);
        let digest = Digest::of(Algorithm::Sha256, &content);
        store.commit_upload(id, &digest).await.unwrap();
    });
}

#[test]
fn a_writer_whose_call_was_dropped_does_not_block_the_runtime_while_that_goes_on() {
    one_thread().block_on(async {
        let store = AsyncStore::new(options(&SimVfs::new()).open("/store").unwrap());
        let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
        let mut writer = store.upload_writer(id, 0);
        let (begun, has_begun) = oneshot::channel();
        let (go, goes_on) = std::sync::mpsc::channel::<()>();
        let mut begun = Some(begun);
        let mut call = Box::pin(writer.write_from(move || {
            begun.take().into_iter().for_each(|begun| begun.send(()).unwrap());
            goes_on.recv().unwrap_err(); // until its sender is gone
            Vec::new()
        }));
        assert!(poll_fn(|cx| Poll::Ready(call.poll_unpin(cx))).await.is_pending());
        has_begun.await.unwrap();
        drop(call);
        assert!(matches!(writer.finish().await, Err(Error::Closed)), "at once, also where nobody lets the call go on");
        drop(go);
        store.close().await.unwrap();
    });
}
