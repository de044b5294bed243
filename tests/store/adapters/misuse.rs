//! Futures that are dropped at any await, handles that are dropped anywhere, and calls after the end.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use strongroom::aio::{AsyncRepository, AsyncStore, Limits};
use strongroom::registry::{ExpectTag, PutManifest, RepositorySettings};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, CollectOptions, Digest, Error, Options, Result, Store, UploadId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::{PIECE, one_thread, open, options, pieces};
use crate::common::Random;
use crate::common::registry::{image, name, tag};
use crate::common::tell;
use crate::common::watched::Gate;

/// Polls a future so many times, each time that it is woken, and drops it: none if it had not come to its end.
async fn cut<T>(future: impl Future<Output = T>, polls: u32) -> Option<T> {
    let mut future = Box::pin(future);
    let mut left = polls;
    poll_fn(|cx| {
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Cuts an operation after its first poll, its second, … until it comes to its end, each time on a new store, which is
/// then as it should be.
fn cut_everywhere<F: Future<Output = Result<()>>, G: Future<Output = ()>>(
    operation: impl Fn(AsyncStore, AsyncRepository, UploadId) -> F,
    check: impl Fn(AsyncStore, AsyncRepository, UploadId, bool) -> G,
) {
    for limits in [Limits::new(), Limits::new().calls(1).reads(1).writes(1)] {
        let mut polls = 1;
        loop {
            let disk = SimVfs::new();
            let ended = one_thread().block_on(async {
                let store = AsyncStore::with_limits(options(&disk).open("/store").unwrap(), limits);
                let app = store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
                let id = app.begin_upload(Algorithm::Sha256).await.unwrap();
                app.append_upload(id, 0, "begun, ").await.unwrap();
                let ended = cut(operation(store.clone(), app.clone(), id), polls).await;
                check(store.clone(), app.clone(), id, ended.is_some()).await;
                drop(app);
                store.close().await.unwrap();
                ended
            });
            let mut store = options(&disk).open("/store").unwrap();
            assert!(store.verify(|_| ()).unwrap().findings.is_empty());
            let report = store.repair(|_| ControlFlow::Continue(())).unwrap();
            assert!(report.mended == 0 && report.left.is_sound(), "cut after {polls}: {report:?}");
            if let Some(result) = ended {
                result.unwrap();
                break;
            }
            polls += 1;
        }
        // Where each thread has done its work before it is looked at, there is nothing to cut.
        tell(&format!("cut after {} polls at most", polls - 1));
    }
}

/// A source that pauses each time.
struct Pausing<'a>(&'a [u8], bool);

impl AsyncRead for Pausing<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.1 = !self.1;
        if self.1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let n = self.0.len().min(buf.remaining());
        let (front, rest) = self.0.split_at(n);
        buf.put_slice(front);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

/// An upload can be continued from where it stands, which is somewhere in what was sent.
async fn continues(app: &AsyncRepository, id: UploadId, sent: &[u8], ended: bool) {
    let whole = [b"begun, ", sent].concat();
    let go_on = async || {
        let offset = app.append_upload(id, None, Bytes::new()).await?;
        let rest = whole.get(offset as usize..).expect("no more than was sent").to_vec();
        assert!(offset >= 7 && (!ended || rest.is_empty()), "{offset}");
        app.append_upload(id, offset, rest).await?;
        app.commit_upload(id, &Digest::of(Algorithm::Sha256, &whole)).await
    };
    loop {
        match go_on().await {
            // What was dropped may be at work for a moment yet, or being made durable.
            Err(Error::UploadBusy { .. } | Error::WrongOffset { .. }) => tokio::task::yield_now().await,
            committed => return assert_eq!(committed.unwrap().len, whole.len() as u64),
        }
    }
}

#[test]
fn appending_is_cut_at_every_await() {
    let content = &*Random(1).bytes(PIECE + 100_000).leak();
    cut_everywhere(
        |_, app, id| async move { app.append_upload_from(id, None, Pausing(content, false)).await.map(drop) },
        |_, app, id, ended| async move { continues(&app, id, content, ended).await },
    );
    cut_everywhere(
        |_, app, id| async move {
            let mut writer = app.upload_writer(id, 7);
            for piece in content.chunks(100_000) {
                writer.write([Bytes::from_static(piece)]).await?;
            }
            writer.finish().await.map(drop)
        },
        |_, app, id, ended| async move { continues(&app, id, content, ended).await },
    );
    cut_everywhere(
        |_, app, id| async move {
            let mut sink = app.append_sink(id, 7);
            for piece in content.chunks(100_000) {
                sink.write_all(piece).await.map_err(|error| panic!("{error}"))?;
                AsyncWriteExt::flush(&mut sink).await.map_err(|error| panic!("{error}"))?;
            }
            sink.finish().await.map(drop)
        },
        |_, app, id, ended| async move { continues(&app, id, content, ended).await },
    );
    cut_everywhere(
        |_, app, id| async move {
            app.append_upload(id, 7, content).await?;
            app.commit_upload(id, &Digest::of(Algorithm::Sha256, &[b"begun, ", content].concat())).await.map(drop)
        },
        |_, app, id, _| async move {
            let digest = Digest::of(Algorithm::Sha256, &[b"begun, ", content].concat());
            loop {
                match app.upload_status(id).await {
                    Ok(status) if status.offset == 7 => return continues(&app, id, content, false).await,
                    // The commit may be under way.
                    Ok(_) => match app.commit_upload(id, &digest).await {
                        Err(Error::UploadBusy { .. }) => tokio::task::yield_now().await,
                        Err(Error::UploadNotFound { .. }) => {}
                        other => {
                            other.unwrap();
                            return;
                        }
                    },
                    Err(_) => {
                        app.claim(&digest).await.unwrap();
                        return;
                    }
                }
            }
        },
    );
}

#[test]
fn putting_is_cut_at_every_await() {
    for len in [10usize, 100_000, 1_200_000] {
        let content = &*Random(len as u64).bytes(len).leak();
        let check = move |app: AsyncRepository, ended: bool| async move {
            let digest = Digest::of(Algorithm::Sha256, content);
            assert!(!ended || app.claim(&digest).await.is_ok());
            // No upload is left but the one that was there, once the one that was cut off has been cancelled.
            while app.uploads(None, 10).await.unwrap().items.len() > 1 {
                tokio::task::yield_now().await;
            }
            assert_eq!(app.put(content, digest).await.unwrap().digest, digest);
            assert!(app.get(&digest).await.unwrap().bytes().await.unwrap() == content);
        };
        cut_everywhere(
            |_, app, _| async move { app.put(content, Algorithm::Sha256).await.map(drop) },
            |_, app, _, ended| check(app, ended),
        );
        cut_everywhere(
            |_, app, _| async move { app.put_reader(Pausing(content, false), Algorithm::Sha256).await.map(drop) },
            |_, app, _, ended| check(app, ended),
        );
    }
}

#[test]
fn pushing_and_pulling_is_cut_at_every_await() {
    let layer = &*Random(3).bytes(2 * PIECE + 10).leak();
    cut_everywhere(
        |store, app, _| async move {
            let app = store.ensure_repository(app.name(), RepositorySettings::new()).await?;
            let config = app.put("{}", Algorithm::Sha256).await?;
            let layer = app.put(layer, Algorithm::Sha256).await?;
            let (media_type, document) = image(&[config.digest, layer.digest], None);
            let pushed = app.put_manifest(document, PutManifest::new(media_type).tag(tag("v1"))).await?;
            app.tag(&tag("v2"), &pushed.digest, ExpectTag::Any).await?;
            let pulled = app.pull_manifest(&tag("v2").into()).await?;
            assert_eq!(pulled.digest, pushed.digest);
            let blob = app.get(&layer.digest).await?;
            let stream = blob.open_stream(0..blob.len()).await?;
            assert_eq!(stream.try_fold(0, |len, piece| async move { Ok(len + piece.len()) }).await?, 2 * PIECE + 10);
            let mut read = Vec::new();
            blob.reader(5..blob.len())?.read_to_end(&mut read).await.map_err(|error| panic!("{error}"))?;
            app.delete_manifest(&pushed.digest).await?;
            app.remove_blob(&layer.digest).await.map(drop)
        },
        |_, app, _, _| async move {
            // A tag names a manifest that is there, with all that it holds.
            for tag in app.tags(None, 10).await.unwrap().items {
                match app.get_manifest(&tag.into()).await {
                    Err(Error::ManifestNotFound { .. }) => {} // what was cut off ran to its end meanwhile
                    found => drop(found.unwrap()),
                }
            }
        },
    );
}

#[test]
fn closing_is_cut_at_every_await() {
    for polls in 1..100 {
        let disk = SimVfs::new();
        let ended = one_thread().block_on(async {
            let store = AsyncStore::new(options(&disk).open("/store").unwrap());
            store.put("content", Algorithm::Sha256).await.unwrap();
            let ended = cut(store.close(), polls).await;
            // Where it had begun it goes on; else the store is open, and can be closed.
            match store.close().await {
                Ok(()) | Err(Error::Closed) => {}
                Err(error) => panic!("{error}"),
            }
            ended
        });
        let store = options(&disk).open("/store").unwrap();
        assert!(store.exists(&Digest::of(Algorithm::Sha256, b"content")).unwrap());
        if ended.is_some() {
            return;
        }
    }
    panic!("it does not end");
}

#[test]
fn after_the_end_every_call_says_so() {
    for by_another_handle in [false, true] {
        one_thread().block_on(async {
            let blocking = open();
            let store = AsyncStore::new(blocking.clone());
            let app = store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
            let content = Random(1).bytes(3 * PIECE);
            let digest = app.put(content.clone(), Algorithm::Sha256).await.unwrap().digest;
            let id = app.begin_upload(Algorithm::Sha256).await.unwrap();
            let blob = app.get(&digest).await.unwrap();
            let mut writer = app.upload_writer(id, 0);
            if by_another_handle {
                writer.write(["under way".into()]).await.unwrap();
                blocking.close().unwrap();
            } else {
                store.close().await.unwrap();
            }
            let is_closed = |result: Result<()>| assert!(matches!(result, Err(Error::Closed)), "{result:?}");
            is_closed(store.put("x", Algorithm::Sha256).await.map(drop));
            is_closed(app.put("x", Algorithm::Sha256).await.map(drop));
            is_closed(store.put_reader(&content[..], Algorithm::Sha256).await.map(drop));
            is_closed(app.put_reader(&b"x"[..], Algorithm::Sha256).await.map(drop));
            is_closed(app.append_upload(id, None, "x").await.map(drop));
            is_closed(app.append_upload_from(id, None, &b"x"[..]).await.map(drop));
            is_closed(writer.write(["x".into()]).await);
            is_closed(writer.finish().await.map(drop));
            is_closed(app.commit_upload(id, &digest).await.map(drop));
            is_closed(app.get(&digest).await.map(drop));
            is_closed(app.stat(&digest).await.map(drop));
            is_closed(app.tags(None, 10).await.map(drop));
            is_closed(store.repository(app.name()).await.map(drop));
            is_closed(store.sync().await);
            // What was opened stays readable where the runtime's threads still work for the store.
            let read = blob.bytes().await;
            assert!(if by_another_handle { read.unwrap() == content } else { matches!(read, Err(Error::Closed)) });
            assert_eq!(blob.blocking().bytes().unwrap(), content);
        });
    }
}

/// A store that stands while it is closed, until the gate is opened.
fn stuck_in_closing(disk: &SimVfs, gate: &Arc<Gate>) -> Store {
    let opened = options(disk).log_file_size(64 << 10).vfs(Arc::new(gate.before(".run", disk))).open("/store").unwrap();
    for n in 0..200u32 {
        opened.put(n.to_le_bytes().repeat(200), Algorithm::Blake3).unwrap();
    }
    opened
}

fn is_open(disk: &SimVfs) -> bool {
    matches!(options(disk).open("/store"), Err(Error::Locked { .. }))
}

fn runtimes() -> [Runtime; 2] {
    [one_thread(), Builder::new_multi_thread().worker_threads(1).build().unwrap()]
}

#[test]
fn dropping_the_last_handle_does_not_block_the_runtime() {
    for runtime in runtimes() {
        for kept in 0..5 {
            let (disk, gate) = (SimVfs::new(), Arc::new(Gate::default()));
            let opened = stuck_in_closing(&disk, &gate);
            runtime.block_on(async {
                let store = AsyncStore::new(opened);
                let app = store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
                let id = app.begin_upload(Algorithm::Sha256).await.unwrap();
                let digest = app.put(vec![7; 3 * PIECE], Algorithm::Sha256).await.unwrap().digest;
                let blob = app.get(&digest).await.unwrap();
                let mut writer = app.upload_writer(id, 0);
                writer.write(["a".into()]).await.unwrap();
                let mut streaming = blob.stream(0..blob.len()).unwrap();
                streaming.next().await.unwrap().unwrap();
                let mut sink = app.put_sink(Algorithm::Sha256);
                sink.send(vec![8; 2 << 20].into()).await.unwrap();
                let mut handles: [Option<Box<dyn std::any::Any>>; 5] = [
                    Some(Box::new(store)),
                    Some(Box::new(app)),
                    Some(Box::new(writer)),
                    Some(Box::new((blob, streaming))),
                    Some(Box::new(sink)),
                ];
                gate.shut();
                let last = handles[kept].take();
                drop(handles);
                // On this one thread: what it waited for here would never come to pass.
                drop(last);
                while !gate.is_waited_for() {
                    tokio::task::yield_now().await;
                }
                gate.open();
                while is_open(&disk) {
                    tokio::task::yield_now().await;
                }
            });
            let store = options(&disk).open("/store").unwrap();
            let app = store.repository(&name("team/app")).unwrap();
            assert!(
                app.uploads(None, 10).unwrap().items.iter().any(|upload| upload.offset == 1),
                "what was written counts"
            );
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_file_of_a_removed_blob_is_closed_off_the_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let is_removed = |to: &std::path::Path| to.starts_with(dir.path()) && to.to_string_lossy().ends_with(" (deleted)");
    let links = || std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| std::fs::read_link(entry.path()));
    let open_files = || links().flatten().filter(|to| is_removed(to)).count();
    // The only thread for blocking work is busy while the handle is dropped.
    let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let options = Options::new().create(true).retention(Duration::ZERO).inline_max(1000);
        let blocking = options.open(dir.path()).unwrap();
        let store = AsyncStore::new(blocking.clone());
        for kept in 0..3 {
            let digest = store.put(Random(kept).bytes(3 * PIECE), Algorithm::Sha256).await.unwrap().digest;
            let blob = store.get(&digest).await.unwrap();
            let mut stream = blob.stream(0..blob.len()).unwrap();
            stream.next().await.unwrap().unwrap();
            let mut reader = blob.reader(0..blob.len()).unwrap();
            reader.read_u8().await.unwrap();
            blocking.remove(&digest).unwrap();
            blocking.collect(&CollectOptions::new(), |_| ControlFlow::Continue(())).unwrap();
            let mut handles: [Option<Box<dyn std::any::Any>>; 3] =
                [Some(Box::new(blob)), Some(Box::new(stream)), Some(Box::new(reader))];
            let last = handles[kept as usize].take();
            drop(handles);
            let (go, gate) = std::sync::mpsc::channel::<()>();
            let (begins, has_begun) = oneshot::channel();
            let mut busy = Box::pin(store.read(move |_| {
                begins.send(()).unwrap();
                Ok::<_, Error>(gate.recv().unwrap())
            }));
            assert!(poll_fn(|cx| Poll::Ready(busy.as_mut().poll(cx))).await.is_pending());
            has_begun.await.unwrap();
            assert_eq!(open_files(), 1);
            drop(last);
            assert_eq!(open_files(), 1, "it was closed here");
            go.send(()).unwrap();
            busy.await.unwrap();
            while open_files() > 0 {
                tokio::task::yield_now().await;
            }
        }
    });
}

#[test]
fn without_a_runtime_the_last_handle_closes_the_store_where_it_is_dropped() {
    let disk = SimVfs::new();
    let store = AsyncStore::new(options(&disk).open("/store").unwrap());
    let app = one_thread().block_on(store.create_repository(&name("team/app"), RepositorySettings::new())).unwrap();
    drop(store);
    assert!(is_open(&disk));
    drop(app);
    assert!(!is_open(&disk));
}

#[test]
fn a_runtime_that_ends_takes_its_handles_along_and_leaves_a_sound_store() {
    let content = Random(9).bytes(4 * PIECE);
    for runtime in runtimes() {
        for turns in [0, 1, 3, 10, 100] {
            let disk = SimVfs::new();
            let id = runtime.block_on(async {
                let store = AsyncStore::new(options(&disk).open("/store").unwrap());
                let app = store.create_repository(&name("team/app"), RepositorySettings::new()).await.unwrap();
                app.begin_upload(Algorithm::Sha256).await.unwrap()
            });
            while is_open(&disk) {}
            let ending = one_thread();
            let acknowledged = Arc::new(AtomicU32::new(0));
            ending.block_on(async {
                let store = AsyncStore::new(options(&disk).open("/store").unwrap());
                let app = store.repository(&name("team/app")).await.unwrap();
                let (sender, content) = (app.clone(), content.clone());
                tokio::spawn(async move {
                    let body = stream::iter(pieces(&content, 9000)).chain(stream::pending());
                    sender.append_upload_stream(id, None, body).await
                });
                let puts = Arc::clone(&acknowledged);
                tokio::spawn(async move {
                    for n in 0..u32::MAX {
                        app.put(n.to_le_bytes().repeat(500), Algorithm::Sha256).await.unwrap();
                        puts.store(n + 1, Ordering::SeqCst);
                    }
                });
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            });
            drop(ending);
            let store = options(&disk).open("/store").unwrap();
            let app = store.repository(&name("team/app")).unwrap();
            for n in 0..acknowledged.load(Ordering::SeqCst) {
                app.claim(&Digest::of(Algorithm::Sha256, &n.to_le_bytes().repeat(500))).unwrap();
            }
            let offset = app.upload_status(id).unwrap().offset;
            app.append_upload(id, None, &content[offset as usize..]).unwrap();
            app.commit_upload(id, Digest::of(Algorithm::Sha256, &content)).unwrap();
            assert!(store.verify(|_| ()).unwrap().findings.is_empty());
        }
    }
}
