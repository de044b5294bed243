//! The async handles: the calls of the blocking ones, for tasks.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Cursor, SeekFrom};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, TryStreamExt, stream};
use strongroom::aio::{AsyncBlob, AsyncRepository, AsyncStore, Limits, StreamError};
use strongroom::registry::{ExpectTag, PutManifest, Reference, RepositoryDeletion, RepositorySettings};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, CollectOptions, Digest, Durability, Error, Lsn, Maintenance, Options, PutNamed};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;

use super::{PIECE, one_thread, open, options, pieces};
use crate::common::Random;
use crate::common::registry::{image, name, tag};

/// A source that has something now and then, and ends or fails.
struct Slow {
    content: Cursor<Vec<u8>>,
    has_paused: bool,
    fails: bool,
}

impl Slow {
    fn new(content: &[u8]) -> Self {
        Self { content: Cursor::new(content.to_vec()), has_paused: false, fails: false }
    }

    fn failing(content: &[u8]) -> Self {
        Self { fails: true, ..Self::new(content) }
    }
}

impl AsyncRead for Slow {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.has_paused = !self.has_paused;
        if self.has_paused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.fails && self.content.position() == self.content.get_ref().len() as u64 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.content).poll_read(cx, buf)
    }
}

#[test]
fn handles_are_kept_in_maps_and_moved_into_tasks() {
    fn is_handle<T: Clone + Send + Sync + 'static>() {}
    is_handle::<AsyncStore>();
    is_handle::<AsyncRepository>();
    is_handle::<AsyncBlob>();
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let mut map = HashMap::new();
        for n in 0..4 {
            let created = store.create_repository(&name(&format!("team/app{n}")), RepositorySettings::new()).await;
            map.insert(n, created.unwrap());
        }
        let digest = Digest::of(Algorithm::Sha256, b"content");
        let task = |repository: AsyncRepository| async move { repository.put("content", digest).await };
        let tasks: Vec<_> = map.values().cloned().map(|repository| tokio::spawn(task(repository))).collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        for repository in map.values() {
            assert_eq!(repository.get(&digest).await.unwrap().bytes().await.unwrap(), "content");
        }
    });
}

#[test]
fn a_registry_can_do_without_closures() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let app = store.create_on_push(&name("team/app"), RepositorySettings::new()).await.unwrap();
        assert_eq!(app.name(), &name("team/app"));
        let config = app.put("{}", Algorithm::Sha256).await.unwrap();
        assert!(!config.existed && app.put("{}", config.digest).await.unwrap().existed);
        let id = app.begin_upload(Algorithm::Sha256).await.unwrap();
        assert_eq!(app.append_upload(id, None, "a ").await.unwrap(), 2);
        assert_eq!(app.append_upload(id, 2, "layer").await.unwrap(), 7);
        assert!(matches!(app.append_upload(id, 2, "x").await, Err(Error::WrongOffset { expected: 7, found: 2 })));
        assert_eq!(
            (app.upload_status(id).await.unwrap().offset, app.uploads(None, 10).await.unwrap().items.len()),
            (7, 1)
        );
        let layer = app.commit_upload(id, &Digest::of(Algorithm::Sha256, b"a layer")).await.unwrap();
        assert_eq!(app.claim(&layer.digest).await.unwrap().len, 7);
        assert_eq!(app.blobs(None, 10).await.unwrap().items.len(), 2);

        let (media_type, document) = image(&[config.digest, layer.digest], None);
        let put = PutManifest::new(media_type).tag(tag("v1"));
        let pushed = app.put_manifest(document.clone(), put).await.unwrap();
        let reference = Reference::Tag(tag("v1"));
        assert_eq!(app.pull_manifest(&reference).await.unwrap().content, document);
        assert_eq!(app.get_manifest(&pushed.digest.into()).await.unwrap().content, document);
        assert_eq!(app.manifest_info(&reference).await.unwrap().digest, pushed.digest);
        app.tag(&tag("v2"), &pushed.digest, ExpectTag::Absent).await.unwrap();
        assert_eq!(app.resolve(&tag("v2")).await.unwrap().digest, pushed.digest);
        assert_eq!(app.tags(None, 10).await.unwrap().items, [tag("v1"), tag("v2")]);
        assert_eq!(app.tags_of(&pushed.digest).await.unwrap().len(), 2);
        assert_eq!(app.manifests(None, 10).await.unwrap().items.len(), 1);
        assert!(app.referrers(&pushed.digest, None, None, 10).await.unwrap().items.is_empty());
        assert!(matches!(app.remove_blob(&layer.digest).await, Err(Error::BlobInUse { .. })));

        let other = store.ensure_repository(&name("team/other"), RepositorySettings::new()).await.unwrap();
        assert!(other.mount(&layer.digest, app.name(), |_| true).await.unwrap().lsn > pushed.lsn);
        assert_eq!(store.repositories(None, 10).await.unwrap().items.len(), 2);
        assert!(store.events(Lsn::default(), 100).await.unwrap().events.len() > 4);
        app.untag(&tag("v2")).await.unwrap();
        let deleted = app.delete_batch(&[pushed.digest.into()]).await.unwrap();
        assert!(deleted.iter().all(Result::is_ok));
        assert!(app.info().await.is_ok());
        app.remove_blob(&layer.digest).await.unwrap();
        store.delete_repository(app.name(), RepositoryDeletion::IfEmpty).await.unwrap();
        assert!(matches!(app.put("x", Algorithm::Sha256).await, Err(Error::RepositoryNotFound { .. })));
        assert!(matches!(store.repository(app.name()).await, Err(Error::RepositoryNotFound { .. })));
        store.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).await.unwrap();
        store.sync().await.unwrap();
        assert!(store.usage().await.unwrap().blobs > 0);
        store.close().await.unwrap();
    });
}

#[test]
fn content_from_readers_and_streams_becomes_blobs_whatever_its_length() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let app = store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
        for len in [0, 10, 999, 70_000, 1 << 20, (1 << 20) + 1, 5 * PIECE + 3] {
            let content = Random(len as u64).bytes(len);
            let digest = Digest::of(Algorithm::Sha256, &content);
            let stored = store.put_reader(Slow::new(&content), Algorithm::Sha256).await.unwrap();
            assert_eq!((stored.digest, stored.len, stored.existed), (digest, len as u64, false));
            let stored = app.put_stream(stream::iter(pieces(&content, 5000)), digest).await.unwrap();
            assert!(stored.digest == digest && !stored.existed);
            assert!(app.put_reader(Slow::new(&content), digest).await.unwrap().existed);
            // As a writer, and as a sink.
            let mut sink = app.put_sink(digest);
            for (n, part) in content.chunks(30_000).enumerate() {
                match n % 2 {
                    0 => sink.write_all(part).await.unwrap(),
                    _ => sink.send(Bytes::copy_from_slice(part)).await.unwrap(),
                }
            }
            assert_eq!(sink.finish().await.unwrap().digest, digest);
            let blob = app.get(&digest).await.unwrap();
            assert!(blob.bytes().await.unwrap() == content && blob.len() == len as u64);
            assert!(blob.stream(0..len as u64).unwrap().try_collect::<Vec<_>>().await.unwrap().concat() == content);
        }
        let wrong = app.put_reader(Slow::new(&[1; 3 << 20]), Digest::of(Algorithm::Sha256, b"other")).await;
        assert!(matches!(wrong, Err(Error::DigestMismatch { .. })));
        for len in [10, 3 << 20] {
            let failed = app.put_reader(Slow::failing(&vec![2; len]), Algorithm::Sha256).await;
            assert!(matches!(failed, Err(Error::Source { source }) if source.kind() == io::ErrorKind::ConnectionReset));
            let body = stream::iter([Ok(vec![2; len].into()), Err("broke off")]);
            let failed = app.put_stream(body, Algorithm::Sha256).await;
            assert!(matches!(failed, Err(StreamError::Source("broke off"))));
            assert!(app.stat(&Digest::of(Algorithm::Sha256, &vec![2; len])).await.is_err());
        }
        assert!(
            app.uploads(None, 10).await.unwrap().items.is_empty()
                && store.uploads(None, 10).await.unwrap().items.is_empty()
        );
    });
}

#[test]
fn an_upload_is_read_from_a_reader_and_goes_on_where_that_failed() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let content = Random(11).bytes(3 * PIECE);
        let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
        let failed = store.append_upload_from(id, None, Slow::failing(&content[..PIECE + 10])).await;
        assert!(matches!(failed, Err(Error::Source { .. })), "{failed:?}");
        assert_eq!(store.upload_status(id).await.unwrap().offset, PIECE as u64 + 10);
        let rest = store.append_upload_from(id, None, Slow::new(&content[PIECE + 10..2 * PIECE])).await;
        assert_eq!(rest.unwrap(), 2 * PIECE as u64);
        let mut writer = store.append_sink(id, None);
        tokio::io::copy(&mut &content[2 * PIECE..], &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
        assert_eq!(writer.finish().await.unwrap(), 3 * PIECE as u64);
        store.commit_upload(id, &Digest::of(Algorithm::Sha256, &content)).await.unwrap();
    });
}

#[test]
fn what_is_longer_than_its_limit_is_not_stored() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let is_over = |error: &Error, bytes| matches!(error, Error::ContentTooLong { limit } if *limit == bytes);
        for limit in [0, 1000, 70_000, 3 << 20] {
            let content = vec![3; limit + 1];
            let (bytes, part) = (limit as u64, &content[..limit]);
            for limited in [part, &content] {
                let id = store.begin_upload(Algorithm::Sha256).await.unwrap();
                store.append_upload(id, 0, "before").await.unwrap();
                let stands = bytes + 6;
                // Each time, what came before counts, and the upload can be continued at once.
                let sink = || store.append_sink(id, 6).limit(bytes);
                let by_sink = sink().send_stream(stream::iter(pieces(limited, 9999))).await;
                let mut writer = store.upload_writer(id, None).limit(bytes);
                let mut by_writer = Ok(());
                for piece in limited.chunks(100_000) {
                    by_writer = by_writer.and(writer.write([Bytes::copy_from_slice(piece)]).await);
                }
                let put = store.put_sink(Algorithm::Sha256).limit(bytes).send_reader(Slow::new(limited)).await;
                let blocking = store.write(|store, content| store.put_reader(content, Algorithm::Sha256)).limit(bytes);
                let by_reader = blocking.send_stream(stream::iter(pieces(limited, 9999))).await;
                if limited.len() <= limit {
                    assert_eq!(by_sink.unwrap(), stands);
                    by_writer.unwrap();
                    assert_eq!(writer.finish().await.unwrap(), stands + bytes);
                    assert_eq!(put.unwrap().digest, by_reader.unwrap().digest);
                    store.remove(&Digest::of(Algorithm::Sha256, limited)).await.unwrap();
                } else {
                    assert!(matches!(by_sink, Err(StreamError::Store(error)) if is_over(&error, bytes)));
                    assert!(is_over(&by_writer.unwrap_err(), bytes) && is_over(&put.unwrap_err(), bytes));
                    assert!(matches!(by_reader, Err(StreamError::Store(error)) if is_over(&error, bytes)));
                    assert_eq!(store.upload_status(id).await.unwrap().offset, 6);
                    let failed = sink().send_reader(Slow::new(limited)).await.unwrap_err();
                    assert!(is_over(&failed, bytes));
                    assert_eq!(store.append_upload(id, 6, "more").await.unwrap(), 10);
                    assert!(!store.exists(&Digest::of(Algorithm::Sha256, limited)).await.unwrap());
                }
                store.cancel_upload(id).await.unwrap();
            }
        }
        assert!(store.uploads(None, 10).await.unwrap().items.is_empty());
    });
}

#[test]
fn a_blob_is_read_by_lines_and_from_any_place() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let lines: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        let digest = store.put(lines.clone(), Algorithm::Sha256).await.unwrap().digest;
        let blob = store.get(&digest).await.unwrap();
        assert_eq!(blob.digest(), &digest);
        let mut reader = blob.reader(0..blob.len()).unwrap();
        let mut read = String::new();
        while reader.read_line(&mut read).await.unwrap() > 0 {}
        assert!(read == lines);
        let inner = 100..blob.len() - 100;
        let mut reader = blob.reader(inner.clone()).unwrap();
        for (to, at) in [
            (SeekFrom::Start(0), 0),
            (SeekFrom::Start(500_000), 500_000),
            (SeekFrom::Current(-4), 500_006),
            (SeekFrom::Current(3), 500_019),
            (SeekFrom::End(-20), inner.end - inner.start - 20),
        ] {
            assert_eq!(reader.seek(to).await.unwrap(), at);
            let mut ten = [0; 10];
            reader.read_exact(&mut ten).await.unwrap();
            let from = (inner.start + at) as usize;
            assert_eq!(ten, lines.as_bytes()[from..from + 10]);
        }
        assert_eq!(reader.seek(SeekFrom::End(50)).await.unwrap(), inner.end - inner.start, "that is the end");
        assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 0);
        assert!(reader.seek(SeekFrom::Current(i64::MIN)).await.is_err());
        assert!(matches!(blob.slice(0..blob.len() + 1).await, Err(Error::OutOfRange { .. })));
        assert!(blob.stream(blob.len()..5).is_err() && blob.reader(0..blob.len() + 1).is_err());
    });
}

#[test]
fn a_seek_reads_nothing_anew_that_was_read() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let store = AsyncStore::with_limits(options(&disk).open("/store").unwrap(), Limits::new().reads(1));
        let (short, long) = (Random(3).bytes(60_000), Random(4).bytes(4 * PIECE));
        let mut digests = Vec::new();
        for content in [&short, &long] {
            digests.push(store.put(content.clone(), Algorithm::Sha256).await.unwrap().digest);
        }
        let (short_blob, blob) = (store.get(&digests[0]).await.unwrap(), store.get(&digests[1]).await.unwrap());
        let mut reader = blob.reader(100..blob.len()).unwrap();
        let mut read = vec![0; PIECE];
        reader.read_exact(&mut read).await.unwrap();
        assert_eq!(reader.read_u8().await.unwrap(), long[100 + PIECE]); // and one more piece is read ahead
        store.stat(&digests[0]).await.unwrap(); // behind that
        let segments = || disk.files().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "seg"));
        segments().for_each(|segment| disk.fail_reads(segment, 0..u64::MAX));

        let piece = PIECE as u64;
        for to in [SeekFrom::Current(0), SeekFrom::Start(piece), SeekFrom::Start(2 * piece - 1), SeekFrom::Start(piece)]
        {
            let at = reader.seek(to).await.unwrap() as usize;
            assert_eq!(reader.read_u8().await.unwrap(), long[100 + at]);
        }
        reader.seek(SeekFrom::Start(2 * piece)).await.unwrap();
        assert_eq!(reader.read_u8().await.unwrap(), long[100 + 2 * PIECE], "what was read ahead is still there");
        reader.seek(SeekFrom::Start(3 * piece)).await.unwrap();
        assert!(reader.read_u8().await.is_err());

        let mut reader = short_blob.reader(10..short_blob.len()).unwrap();
        for to in [SeekFrom::Start(50_000), SeekFrom::Start(0), SeekFrom::End(-1), SeekFrom::Current(-7)] {
            let at = reader.seek(to).await.unwrap() as usize;
            assert_eq!(reader.read_u8().now_or_never().unwrap().unwrap(), short[10 + at]);
        }
        for (to, behind) in
            [(SeekFrom::Start(u64::MAX), true), (SeekFrom::End(i64::MAX), true), (SeekFrom::End(-59_991), false)]
        {
            assert_eq!(reader.seek(to).await.ok(), behind.then_some(59_990), "{to:?}");
        }
    });
}

#[test]
fn a_reader_whose_disk_fails_does_not_end() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let store = AsyncStore::new(options(&disk).open("/store").unwrap());
        let digest = store.put(Random(3).bytes(4 * PIECE), Algorithm::Sha256).await.unwrap().digest;
        let blob = store.get(&digest).await.unwrap();
        blob.slice(0..1).await.unwrap(); // with the table of checksums, behind the content
        let segment = disk.files().into_iter().find(|path| path.extension().is_some_and(|kind| kind == "seg")).unwrap();
        disk.fail_reads(segment, 5 * PIECE as u64 / 2..u64::MAX);
        let mut reader = blob.reader(0..blob.len()).unwrap();
        let mut read = vec![0; 2 * PIECE];
        reader.read_exact(&mut read).await.unwrap();
        for _ in 0..3 {
            let error = reader.read(&mut [0; 10]).await.unwrap_err();
            assert!(matches!(error.get_ref().unwrap().downcast_ref(), Some(Error::Io { .. })), "{error}");
        }
        assert!(blob.bytes().await.is_err() && blob.open_stream(3 * PIECE as u64..blob.len()).await.is_err());
    });
}

#[test]
fn a_short_blob_is_read_when_it_is_opened() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let store = AsyncStore::new(options(&disk).open("/store").unwrap());
        let content = Random(5).bytes(60_000);
        let digest = store.put(content.clone(), Algorithm::Sha256).await.unwrap().digest;
        let blob = store.get(&digest).await.unwrap();
        // At once, without a turn of the runtime.
        assert!(blob.bytes().now_or_never().unwrap().unwrap() == content);
        assert!(blob.slice(5..10).now_or_never().unwrap().unwrap() == content[5..10]);
        let stream = blob.open_stream(7..60_000).now_or_never().unwrap().unwrap();
        assert!(stream.try_collect::<Vec<_>>().now_or_never().unwrap().unwrap().concat() == content[7..]);
        // By each call that opens blobs.
        let app = store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
        let pushed = app.put_manifest("a document", PutManifest::new("text/plain").references([], [])).await.unwrap();
        store.named().put("file", content.clone(), PutNamed::new()).await.unwrap();
        let by_batch = store.get_many(&[digest]).await.unwrap().pop().unwrap().unwrap();
        let (_, of_manifest) = app.open_manifest(&pushed.digest.into()).await.unwrap();
        let (_, of_name) = store.named().get("file").await.unwrap();
        for blob in [by_batch, of_manifest, of_name] {
            assert_eq!(blob.bytes().now_or_never().unwrap().unwrap().len() as u64, blob.len());
        }
    });
}

#[test]
fn a_few_bytes_of_a_blob_are_a_copy_and_keep_no_file_mapped() {
    one_thread().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let store = AsyncStore::new(Options::new().create(true).open(dir.path()).unwrap());
        let content = Random(6).bytes(40_000);
        let digest = store.put(content.clone(), Algorithm::Sha256).await.unwrap().digest;
        let blob = store.get(&digest).await.unwrap();
        let whole = blob.bytes().await.unwrap();
        let mapped = whole.as_ptr_range();
        let mut reader = blob.stream(5..10).unwrap();
        for part in [blob.slice(5..10).await.unwrap(), reader.try_next().await.unwrap().unwrap()] {
            assert!(part == content[5..10] && !mapped.contains(&part.as_ptr()));
        }
        assert!(mapped.contains(&blob.slice(1..30_000).await.unwrap().as_ptr()), "more of it is not copied");
    });
}

#[test]
fn clients_that_stall_hold_no_thread() {
    one_thread().block_on(async {
        let store = AsyncStore::with_limits(open(), Limits::new().calls(1).writes(1));
        let mut sinks = Vec::new();
        for len in [1, 100, 2 << 20, 3 << 20] {
            let mut sink = store.put_sink(Algorithm::Sha256);
            sink.send(vec![4; len].into()).await.unwrap();
            sinks.push((sink, len));
        }
        store.put("quick", Algorithm::Sha256).await.unwrap();
        store.put_stream(stream::iter(pieces(b"quick as well", 2)), Algorithm::Sha256).await.unwrap();
        for (mut sink, len) in sinks {
            sink.send("more".into()).await.unwrap();
            assert_eq!(sink.finish().await.unwrap().len, len as u64 + 4);
        }
    });
}

#[test]
fn a_guard_is_held_until_the_call_has_ended_that_nobody_waits_for() {
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let (guard, mut is_dropped) = oneshot::channel::<Infallible>();
        let held = store.holding(guard);
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let (begins, has_begun) = oneshot::channel();
        let mut call = Box::pin(held.call(move |_| {
            begins.send(()).unwrap();
            gate.recv().unwrap();
            Ok::<_, Error>(())
        }));
        assert!((&mut call).now_or_never().is_none());
        has_begun.await.unwrap(); // before that it would be taken back
        drop(call);
        let repository = held.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
        drop(held);
        assert!(is_dropped.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        drop(repository);
        assert!(is_dropped.try_recv() == Err(oneshot::error::TryRecvError::Empty), "the call is at work");
        go.send(()).unwrap();
        is_dropped.await.unwrap_err();
    });
}

#[test]
fn durability_is_chosen_by_handle() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let options = options(&disk).maintenance(Maintenance::Inline);
        let store = AsyncStore::new(options.open("/store").unwrap());
        let app = store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
        let before = disk.operations();
        store.with_durability(Durability::Relaxed).put("loose", Algorithm::Sha256).await.unwrap();
        app.with_durability(Durability::Relaxed).put("loose", Algorithm::Sha256).await.unwrap();
        let through = store.with_durability(Durability::Relaxed).repository(app.name()).await.unwrap();
        through.put("loose too", Algorithm::Sha256).await.unwrap();
        assert_eq!(disk.operations(), before + 3, "written, and not synced");
        app.put("durable", Algorithm::Sha256).await.unwrap();
        assert!(disk.operations() >= before + 5, "written, and synced");
        assert!(store.blocking().last_lsn() > Lsn::default() && app.blocking().name() == app.name());
    });
}

#[test]
fn errors_of_the_programs_own_come_out_of_calls() {
    #[derive(Debug)]
    enum Own {
        Store,
        Policy,
    }
    impl From<Error> for Own {
        fn from(_: Error) -> Self {
            Self::Store
        }
    }
    one_thread().block_on(async {
        let store = AsyncStore::new(open());
        let refused = store.call(|_| Err::<(), _>(Own::Policy)).await;
        assert!(matches!(refused, Err(Own::Policy)));
        let read = store.read(|store| Ok::<_, Own>(store.stat(&Digest::of(Algorithm::Sha256, b"none"))?.len)).await;
        assert!(matches!(read, Err(Own::Store)));
        store.close().await.unwrap();
        assert!(matches!(store.call(|_| Ok::<_, Own>(())).await, Err(Own::Store)));
    });
}

#[test]
fn events_are_waited_for_without_a_thread() {
    one_thread().block_on(async {
        let store = AsyncStore::with_limits(open(), Limits::new().reads(1));
        let followers: Vec<_> = (0..20)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.wait_for_events(Lsn::default(), 10).await })
            })
            .collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(followers.iter().all(|follower| !follower.is_finished()));
        assert!(store.repositories(None, 1).await.unwrap().items.is_empty(), "their permits are free");
        store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
        for follower in followers {
            assert_eq!(follower.await.unwrap().unwrap().events.len(), 1);
        }
        let (waiting, after) = (store.clone(), store.blocking().last_lsn());
        let follower = tokio::spawn(async move { waiting.wait_for_events(after, 10).await });
        tokio::task::yield_now().await;
        store.close().await.unwrap();
        assert!(matches!(follower.await.unwrap(), Err(Error::Closed)));
    });
}

/// The runtime has no clock.
#[test]
fn events_of_another_process_are_waited_for() {
    one_thread().block_on(async {
        let disk = SimVfs::new();
        let writer = options(&disk).open("/store").unwrap();
        let reader = AsyncStore::new(options(&disk).create(false).read_only(true).open("/store").unwrap());
        let (waiting, after) = (reader.clone(), writer.last_lsn());
        let follower = tokio::spawn(async move { waiting.wait_for_events(after, 10).await });
        tokio::task::yield_now().await;
        let stored = writer.put("content", Algorithm::Sha256).unwrap();
        assert_eq!(follower.await.unwrap().unwrap().next, stored.lsn);
        reader.close().await.unwrap();
    });
}
