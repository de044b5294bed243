//! The adapters for tokio: nothing blocks the runtime, memory and threads are bounded, and what is dropped is not half
//! done.

mod calls;
mod cuts;
mod misuse;
mod verbs;
mod writers;

use crate::common::file_names;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::Read;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt, TryStreamExt, stream};
use strongroom::aio::{AsyncStore, Limits, StreamError};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Digest, Error, Options, PutNamed, ReadMode, Store};
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::common::Random;
use crate::common::watched::Gate;

const PIECE: usize = 256 << 10;

/// The kind of runtime that shows whether anything blocks it.
fn one_thread() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn options(disk: &SimVfs) -> Options {
    Options::new().create(true).vfs(Arc::new(disk.clone())).inline_max(1000).read_mode(ReadMode::Positioned)
}

fn open() -> Store {
    options(&SimVfs::new()).open("/store").unwrap()
}

fn pieces(content: &[u8], len: usize) -> Vec<Result<Bytes, Infallible>> {
    content.chunks(len).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect()
}

#[test]
fn a_call_that_blocks_does_not_block_the_runtime() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let (go, gate) = mpsc::channel();
        let call = store.call(move |_| Ok::<_, Error>(gate.recv().unwrap()));
        // On the runtime's one thread: if the call blocked it, this would never come to pass.
        let (came, ()) = tokio::join!(call, async move { go.send(7).unwrap() });
        assert_eq!(came.unwrap(), 7);
    });
}

#[test]
fn a_call_whose_future_is_dropped_runs_to_its_end() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let (begun, has_begun) = oneshot::channel();
        let (go, gate) = mpsc::channel::<()>();
        let mut call = Box::pin(store.call(move |store: &Store| {
            begun.send(()).unwrap();
            gate.recv().unwrap();
            store.put("content", Algorithm::Sha256)
        }));
        assert!(poll_fn(|cx| Poll::Ready(call.poll_unpin(cx))).await.is_pending());
        has_begun.await.unwrap();
        drop(call);
        go.send(()).unwrap();
        store.close().await.unwrap(); // waits for it
    });
}

#[test]
fn a_call_for_which_no_thread_can_be_started_fails_and_the_next_ones_go_on() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        strongroom::limit_threads(Some(0));
        let refused = store.put("content", Algorithm::Sha256).await;
        assert!(refused.unwrap_err().is_shortage());
        let mut sink = store.write(|store, content| store.put_reader(content, Algorithm::Sha256));
        let sent = sink.send(Bytes::from_static(b"content")).await;
        assert!(sent.and(sink.finish().await.map(drop)).unwrap_err().is_shortage());
        assert!(store.close().await.unwrap_err().is_shortage());
        strongroom::limit_threads(None);
        let digest = store.put("content", Algorithm::Sha256).await.unwrap();
        assert!(store.exists(&digest.digest).await.unwrap());
        store.close().await.unwrap();
    });
}

#[test]
fn no_more_calls_run_at_once_than_the_limit_says() {
    Builder::new_multi_thread().worker_threads(2).build().unwrap().block_on(async {
        let store = AsyncStore::with_limits(open(), Limits::new().calls(3).reads(2));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let calls = (0..200).map(|_| {
            let (store, running, most) = (store.clone(), Arc::clone(&running), Arc::clone(&most));
            async move {
                let work = move |_: &Store| {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, Error>(())
                };
                store.call(work).await.unwrap();
            }
        });
        stream::iter(calls).buffer_unordered(100).collect::<Vec<_>>().await;
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
    });
}

#[test]
fn reads_and_streams_go_on_while_every_call_waits_for_the_disk() {
    // With the log file that is to be begun the ordering point stands; with the run, folding, and then commits.
    for stuck in [".log", ".run"] {
        let (disk, gate) = (SimVfs::new(), Arc::new(Gate::default()));
        let small = options(&disk).memtable_size(1 << 10).log_file_size(64 << 10);
        let opened = small.vfs(Arc::new(gate.before(stuck, &disk))).open("/store").unwrap();
        let content = Random(4).bytes(3 * PIECE);
        let digest = opened.put(&content[..], Algorithm::Sha256).unwrap().digest;
        opened.named().set("pinned", &digest, PutNamed::new()).unwrap();
        let limits = Limits::new().calls(2).reads(2).writes(1);
        one_thread().block_on(async {
            let store = AsyncStore::with_limits(opened, limits);
            gate.shut();
            // Each of them puts more than there is room for.
            let put = |call: u64| {
                store.call(move |store| {
                    (0..1000).try_for_each(|n| store.put(format!("{call} {n}"), Algorithm::Sha256).map(drop))
                })
            };
            let mut calls: Vec<_> = (0..2).map(|call| Box::pin(put(call))).collect();
            assert!(calls.iter_mut().all(|call| call.now_or_never().is_none()));
            gate.wait();
            assert!(store.call(|_| Ok::<_, Error>(())).now_or_never().is_none(), "there is no permit left");
            assert_eq!(store.read(file_names).await.unwrap(), ["pinned"], "{stuck}");
            let stream =
                store.open(move |store| Ok::<_, Error>((store.get(&digest)?, 0..3 * PIECE as u64))).await.unwrap();
            assert_eq!(stream.try_collect::<Vec<_>>().await.unwrap().concat(), content, "{stuck}");
            assert!(calls.iter_mut().all(|call| call.now_or_never().is_none()), "{stuck}");
            gate.open();
            for call in calls {
                call.await.unwrap();
            }
            store.close().await.unwrap();
        });
    }
}

#[test]
fn closing_waits_for_reads() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let (go, gate) = mpsc::channel::<()>();
        let mut read = Box::pin(store.read(move |store| {
            gate.recv().unwrap();
            file_names(store)
        }));
        assert!((&mut read).now_or_never().is_none());
        let mut close = Box::pin(store.close());
        assert!((&mut close).now_or_never().is_none());
        assert!(store.read(|_| Ok::<_, Error>(())).now_or_never().is_none(), "it comes behind closing");
        go.send(()).unwrap();
        assert!(read.await.unwrap().is_empty());
        close.await.unwrap();
        assert!(matches!(store.read(|_| Ok::<_, Error>(())).await, Err(Error::Closed)));
    });
}

#[test]
fn a_slow_upload_does_not_make_calls_wait() {
    one_thread().block_on(async {
        let store = AsyncStore::with_limits(open(), Limits::new().calls(1).writes(1));
        let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
        let mut sink = store.append_sink(id, 0);
        sink.send("slow".into()).await.unwrap();
        store.put("other", Algorithm::Sha256).await.unwrap();
        assert_eq!(sink.finish().await.unwrap(), 4);
    });
}

#[test]
fn uploads_to_which_nothing_comes_hold_no_thread_and_keep_nobody_from_writing() {
    // 256 uploads that got a byte now and then stopped all pushes.
    one_thread().block_on(async {
        let store = AsyncStore::with_limits(open(), Limits::new().calls(1).writes(1));
        let begin = || store.begin_upload(Algorithm::Sha256);
        let (mut sinks, mut writers) = (Vec::new(), Vec::new());
        for n in 0..15u8 {
            let mut sink = store.append_sink(begin().await.unwrap(), 0);
            sink.send(vec![n].into()).await.unwrap();
            sinks.push(sink);
            let mut writer = store.upload_writer(begin().await.unwrap(), 0);
            writer.write([vec![n].into()]).await.unwrap();
            writers.push(writer);
        }
        let id = begin().await.unwrap();
        assert_eq!(store.append_sink(id, 0).send_stream(stream::iter(pieces(b"quick", 2))).await.unwrap(), 5);
        for (mut sink, mut writer) in sinks.into_iter().zip(writers) {
            sink.send("more".into()).await.unwrap();
            assert_eq!(sink.finish().await.unwrap(), 5);
            writer.write(["mo".into(), "re".into()]).await.unwrap();
            assert_eq!(writer.finish().await.unwrap(), 5);
        }
    });
}

#[test]
fn a_panic_comes_out_where_the_call_is_awaited() {
    let outcome = std::panic::catch_unwind(|| {
        one_thread().block_on(async {
            let _ = AsyncStore::new(open()).call(|_| -> Result<(), Error> { panic!("in the call") }).await;
        });
    });
    assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"in the call"));
}

#[test]
fn without_a_runtime_there_is_an_error() {
    let store = AsyncStore::new(open());
    let mut cx = Context::from_waker(Waker::noop());
    let call = pin!(store.put("content", Algorithm::Sha256));
    assert!(matches!(call.poll(&mut cx), Poll::Ready(Err(Error::Closed))));
    let mut sink = store.write(|store, content| store.put_reader(content, Algorithm::Sha256));
    assert!(matches!(sink.poll_ready_unpin(&mut cx), Poll::Ready(Err(Error::Closed))));
    assert!(matches!(pin!(sink.finish()).poll(&mut cx), Poll::Ready(Err(Error::Closed))));
}

#[test]
fn closing_waits_for_what_is_under_way_and_refuses_what_comes_later() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let store = AsyncStore::new(options(&disk).open("/store").unwrap());
        let content = Random(1).bytes(2 * PIECE);
        let digest = Digest::of(Algorithm::Sha256, &content);
        let put = content.clone();
        store.put(put, digest).await.unwrap();
        let mut idle =
            store.open(move |store| store.get(&digest).map(|blob| (blob, 0..2 * PIECE as u64))).await.unwrap();

        let (begun, has_begun) = oneshot::channel();
        let mut sink = store.write(move |store, content| {
            begun.send(()).unwrap();
            store.put_reader(content, Algorithm::Sha256)
        });
        sink.send("before".into()).await.unwrap();
        has_begun.await.unwrap();
        let other = store.clone();
        let (closed, put) = tokio::join!(other.close(), sink.finish());
        closed.unwrap();
        assert_eq!(put.unwrap().digest, Digest::of(Algorithm::Sha256, b"before"));

        assert!(matches!(store.call(|_| Ok::<_, Error>(())).await, Err(Error::Closed)));
        store.close().await.unwrap();
        // What was read before is there, and then the stream ends with the error.
        assert!(idle.next().await.unwrap().is_ok());
        assert!(matches!(idle.next().await, Some(Err(Error::Closed))));
        assert!(idle.next().await.is_none());
        options(&disk).open("/store").unwrap();
    });
}

#[test]
fn a_stream_yields_any_range_exactly() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let len = 2 * PIECE + 777;
        for len in [0, 1, 500, PIECE, PIECE + 1, len] {
            let content = Random(len as u64).bytes(len);
            let put = content.clone();
            let digest = store.put(put, Algorithm::Sha256).await.unwrap();
            for range in [0..len, 0..len.min(1), len / 2..len, len..len, len / 3..len / 2] {
                let part = range.start as u64..range.end as u64;
                let opened = part.clone();
                let stream =
                    store.open(move |store| Ok::<_, Error>((store.get(&digest.digest)?, opened))).await.unwrap();
                assert_eq!(stream.remaining(), part.end - part.start);
                let blob = store.get(&digest.digest).await.unwrap();
                let raw = store.stream(blob.blocking().clone(), part.clone()).unwrap();
                let begun = blob.open_stream(part.clone()).await.unwrap();
                assert!(blob.slice(part.clone()).await.unwrap() == content[range.clone()]);
                let mut read = Vec::new();
                blob.reader(part.clone()).unwrap().read_to_end(&mut read).await.unwrap();
                assert!(read == content[range.clone()]);
                for stream in [stream, raw, begun, blob.stream(part).unwrap()] {
                    let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
                    assert!(pieces.iter().all(|piece| (1..=PIECE).contains(&piece.len())));
                    assert!(pieces.concat() == content[range.clone()]);
                }
            }
            let beyond = len as u64 + 1;
            let opened = store.open(move |store| Ok::<_, Error>((store.get(&digest.digest)?, 0..beyond))).await;
            assert!(matches!(opened, Err(Error::OutOfRange { .. })));
        }
    });
}

#[test]
fn a_stream_reads_one_piece_ahead_and_no_more() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let store = AsyncStore::new(options(&disk).open("/store").unwrap());
        let content = Random(3).bytes(8 * PIECE);
        let digest = store.put(content, Algorithm::Sha256).await.unwrap();
        let mut stream =
            store.open(move |store| Ok::<_, Error>((store.get(&digest.digest)?, 0..8 * PIECE as u64))).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().len(), PIECE);
        // From the third piece on the disk fails now. Had the stream read on, it would have them.
        let segment = disk.files().into_iter().find(|path| path.extension().is_some_and(|kind| kind == "seg")).unwrap();
        disk.fail_reads(segment, 5 * PIECE as u64 / 2..u64::MAX);
        assert_eq!(stream.next().await.unwrap().unwrap().len(), PIECE);
        assert!(stream.next().await.unwrap().is_err());
        assert!(stream.next().await.is_none());
    });
}

#[test]
fn many_streams_at_once_on_one_thread_all_come_to_their_end() {
    one_thread().block_on(async {
        let store = AsyncStore::with_limits(open(), Limits::new().calls(4));
        let content = Random(4).bytes(3 * PIECE + 5);
        let put = content.clone();
        let digest = store.put(put, Algorithm::Sha256).await.unwrap();
        let read = |_| async {
            let range = 0..content.len() as u64;
            let stream = store.open(move |store| Ok::<_, Error>((store.get(&digest.digest)?, range))).await.unwrap();
            assert!(stream.try_collect::<Vec<_>>().await.unwrap().concat() == content);
        };
        stream::iter(0..100).map(read).buffer_unordered(100).collect::<Vec<_>>().await;
    });
}

#[test]
fn a_stream_outlives_the_removal_of_its_blob() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let content = Random(5).bytes(3 * PIECE);
        let put = content.clone();
        let digest = store.put(put, Algorithm::Sha256).await.unwrap();
        let stream =
            store.open(move |store| Ok::<_, Error>((store.get(&digest.digest)?, 0..3 * PIECE as u64))).await.unwrap();
        store.remove(&digest.digest).await.unwrap();
        assert!(stream.try_collect::<Vec<_>>().await.unwrap().concat() == content);
    });
}

#[test]
fn content_arrives_whole_whatever_its_pieces_are() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let content = Random(6).bytes(2 * PIECE + 100);
        let digest = Digest::of(Algorithm::Sha256, &content);
        for len in [113, PIECE, PIECE + 1, content.len()] {
            let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
            let sink = store.append_sink(id, 0);
            let sent = sink.send_stream(stream::iter(pieces(&content, len))).await.unwrap();
            assert_eq!(sent, content.len() as u64);
            store.commit_upload(id, &digest).await.unwrap();
        }
        let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
        let mut empty = store.append_sink(id, 0);
        empty.send(Bytes::new()).await.unwrap();
        assert_eq!(empty.finish().await.unwrap(), 0);
    });
}

#[test]
fn a_sink_takes_no_more_than_it_may_hold() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let (go, gate) = mpsc::channel::<()>();
        let mut sink = store.write(move |_, mut content| {
            gate.recv().unwrap();
            let mut read = Vec::new();
            content.read_to_end(&mut read).unwrap();
            Ok(read.len())
        });
        let mut taken = 0;
        let more = Bytes::from(vec![1; 100_000]);
        // The operation reads nothing. A full sink stays so, however often the runtime turns.
        for _ in 0..1000 {
            if poll_fn(|cx| Poll::Ready(sink.poll_ready_unpin(cx))).await.is_ready() {
                sink.start_send_unpin(more.clone()).unwrap();
                taken += more.len();
            }
            tokio::task::yield_now().await;
        }
        assert!((1..=10 * more.len()).contains(&taken), "{taken}");
        go.send(()).unwrap();
        assert_eq!(sink.finish().await.unwrap(), taken);
    });
}

#[test]
fn a_large_piece_is_handed_over_in_parts() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let (go, gate) = mpsc::channel::<()>();
        let mut sink = store.write(move |store, content| {
            gate.recv().unwrap();
            store.put_reader(content, Algorithm::Sha256)
        });
        let content = Bytes::from(Random(7).bytes(40 * PIECE));
        sink.feed(content.clone()).await.unwrap();
        for _ in 0..1000 {
            tokio::task::yield_now().await;
            assert!(poll_fn(|cx| Poll::Ready(sink.poll_ready_unpin(cx))).await.is_pending());
        }
        go.send(()).unwrap();
        assert_eq!(sink.finish().await.unwrap().digest, Digest::of(Algorithm::Sha256, &content));
    });
}

#[test]
fn a_sink_that_is_dropped_is_no_end_of_content() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let (tell, told) = oneshot::channel();
        let mut sink = store.write(|store, content| {
            let _ = tell.send(store.put_reader(content, Algorithm::Sha256));
            Ok(())
        });
        sink.send("half of it".into()).await.unwrap();
        drop(sink);
        assert!(matches!(told.await.unwrap(), Err(Error::Source { .. })));
        assert_eq!(store.call(|store| Ok::<_, Error>(store.blobs().count())).await.unwrap(), 0);
    });
}

#[test]
fn an_upload_whose_client_went_away_goes_on_where_it_stood() {
    let disk = SimVfs::new();
    let content = Random(8).bytes(3 * PIECE);
    let runtime = one_thread();
    let id = runtime.block_on(async {
        let store = AsyncStore::new(options(&disk).open("/store").unwrap());
        let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
        // The handler's future is dropped while it waits for more.
        let body = stream::iter(pieces(&content[..2 * PIECE], 5000)).chain(stream::pending());
        let mut handler = Box::pin(store.append_sink(id, 0).send_stream(body));
        for _ in 0..1000 {
            assert!(poll_fn(|cx| Poll::Ready(handler.poll_unpin(cx))).await.is_pending());
            tokio::task::yield_now().await;
        }
        drop(handler);
        store.close().await.unwrap(); // waits until what came before is stored
        id
    });
    runtime.block_on(async {
        let store = AsyncStore::new(options(&disk).open("/store").unwrap());
        let offset = store.upload_status(id).await.unwrap().offset;
        assert!(offset > 0 && offset <= 2 * PIECE as u64, "{offset}");
        let rest = stream::iter(pieces(&content[offset as usize..], 5000));
        assert_eq!(store.append_sink(id, offset).send_stream(rest).await.unwrap(), 3 * PIECE as u64);
        let digest = Digest::of(Algorithm::Sha256, &content);
        store.commit_upload(id, &digest).await.unwrap();
    });
}

#[test]
fn a_body_that_breaks_off_is_told_apart_from_a_failing_store() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let store = AsyncStore::new(options(&disk).open("/store").unwrap());
        let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
        let body = stream::iter([Ok(Bytes::from("came")), Err("broke off"), Ok(Bytes::from("never came"))]);
        let sent = store.append_sink(id, 0).send_stream(body).await;
        assert!(matches!(sent, Err(StreamError::Source("broke off"))));
        // What came before counts, and the upload is free at once.
        assert_eq!(store.append_sink(id, 4).finish().await.unwrap(), 4);

        let body = stream::iter(pieces(&[0; 100], 10)).chain(stream::pending());
        let sent = store.append_sink(id, 9).send_stream(body);
        assert!(sent.now_or_never().is_none());
        let endless = stream::repeat(Ok::<_, Infallible>(Bytes::from_static(&[0; 1000])));
        // The call whose sender was given up may be at work on it for a moment yet.
        let sent = loop {
            let sent = store.append_sink(id, 9).send_stream(endless.clone()).await;
            if !matches!(sent, Err(StreamError::Store(Error::UploadBusy { .. }))) {
                break sent;
            }
        };
        assert!(matches!(sent, Err(StreamError::Store(Error::WrongOffset { expected: 4, found: 9 }))), "{sent:?}");

        disk.set_capacity(Some(disk.used() + 100_000));
        let sent = store.append_sink(id, 4).send_stream(endless).await;
        assert!(matches!(sent, Err(StreamError::Store(Error::Full { .. }))), "{sent:?}");
    });
}

#[test]
fn what_failed_early_is_told_by_sending_and_by_finishing() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
        let mut sink = store.append_sink(id, 1);
        let failed = loop {
            if let Err(error) = sink.send("x".into()).await {
                break error;
            }
        };
        assert!(matches!(failed, Error::WrongOffset { expected: 0, found: 1 }));
        assert!(matches!(sink.send("x".into()).await, Err(Error::WrongOffset { .. })));
        assert!(matches!(sink.finish().await, Err(Error::WrongOffset { .. })));

        // An operation that needs no more is not an error, and what is sent to it goes nowhere.
        let mut sink = store.write(|_, _| Ok(3));
        for _ in 0..100 {
            sink.send("x".into()).await.unwrap();
        }
        Pin::new(&mut sink).close().await.unwrap();
        assert_eq!(sink.finish().await.unwrap(), 3);
    });
}

#[test]
fn what_nobody_polls_holds_no_permit() {
    // 200 clients that stalled stopped all reads: a semaphore gives a permit also to those that are not polled.
    one_thread().block_on(async {
        let limits = Limits::new().reads(1).writes(1);
        let store = AsyncStore::with_limits(open(), limits);
        let digest = store.put(Random(9).bytes(4 * PIECE), Algorithm::Sha256).await.unwrap().digest;
        let blob = store.get(&digest).await.unwrap();
        let all = 0..blob.len();
        let upload = store.begin_upload(Algorithm::Sha256).await.unwrap();
        let (mut streams, mut readers, mut writer) = (Vec::new(), Vec::new(), store.upload_writer(upload, 0));
        for _ in 0..2 {
            streams.push(blob.stream(all.clone()).unwrap());
            readers.push(blob.reader(all.clone()).unwrap());
        }
        let mut half_read = blob.open_stream(all.clone()).await.unwrap();

        let (go, gate) = mpsc::channel::<()>();
        let (go_on, other_gate) = mpsc::channel::<()>();
        let mut reading = Box::pin(store.read(move |_| gate.recv().map_err(|_| Error::Closed)));
        let mut writing = store.write(move |_, _| other_gate.recv().map_err(|_| Error::Closed));
        assert!((&mut reading).now_or_never().is_none());
        writing.send("x".into()).await.unwrap();
        tokio::task::yield_now().await;
        // Each is polled once, while another has the permit, and never again.
        assert!(streams.iter_mut().all(|stream| stream.next().now_or_never().is_none()));
        assert!(readers.iter_mut().all(|reader| reader.read_u8().now_or_never().is_none()));
        half_read.next().now_or_never().unwrap().unwrap().unwrap(); // and reads ahead
        let mut stat = Box::pin(store.stat(&digest));
        let mut write = Box::pin(writer.write(["y".into()]));
        assert!((&mut stat).now_or_never().is_none() && (&mut write).now_or_never().is_none());
        go.send(()).unwrap();
        go_on.send(()).unwrap();
        reading.await.unwrap();
        writing.finish().await.unwrap();

        assert!(store.exists(&digest).await.unwrap());
        let other = store.begin_upload(Algorithm::Sha256).await.unwrap();
        assert_eq!(store.append_sink(other, 0).send_reader(&b"other"[..]).await.unwrap(), 5);
        drop(write);
        drop(writer); // its upload is open, for which closing waits
        store.close().await.unwrap();
        assert!(streams[0].next().await.unwrap().is_ok() && half_read.next().await.unwrap().is_ok(), "they were read");
        stat.await.unwrap();
    });
}
